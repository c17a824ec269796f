"""What a results frame must be, and what the summary says of it."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.results import (
    COLUMNS,
    METHOD_ORDER,
    TIE,
    check_frame,
    order_methods,
    order_subsets,
    some,
    summarise,
    unused_columns,
)
from datasets.errors import UserError
from tests.analysis.frames import frame_of, realistic, result, toy

# ---- a valid frame ----------------------------------------------------------------------------------------


def test_a_good_frame_passes_unchanged() -> None:
    frame = realistic()
    pd.testing.assert_frame_equal(check_frame(frame), frame, check_dtype=False)


def test_integers_categories_and_row_labels_are_taken_as_they_are_meant() -> None:
    frame = toy()
    frame["value"] = [1] * len(frame)
    frame["label_ratio"] = 1
    frame["method"] = frame["method"].astype("category")
    checked = check_frame(frame.sample(frac=1.0, random_state=0))
    assert checked["value"].dtype == np.float64
    assert checked["label_ratio"].dtype == np.float64
    assert list(checked.index) == list(range(len(frame)))
    assert set(checked["method"]) == {"robult", "gmc", "constant"}


def test_missing_columns_are_named_with_the_unused_ones_and_a_likely_pair() -> None:
    frame = toy().rename(columns={"modalities": "modality"}).drop(columns="seed").assign(colour="red")
    with pytest.raises(UserError) as caught:
        check_frame(frame)
    assert str(caught.value) == (
        "the results cannot be used: missing columns: 'modalities' (Did you mean 'modality'?), 'seed'; "
        "columns that are not used: 'modality', 'colour'."
    )


def test_other_columns_are_left_out_and_can_be_told() -> None:
    frame = toy().assign(colour="red")
    assert unused_columns(frame) == ["colour"]
    assert list(check_frame(frame).columns) == list(COLUMNS)


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("seed", "0", "column 'seed' must hold integers, got"),
        ("seed", 0.0, "column 'seed' must hold integers, got float64"),
        ("seed", True, "column 'seed' must hold integers, got bool"),
        ("value", "0.5", "column 'value' must hold numbers, got"),
        ("value", True, "column 'value' must hold numbers, got bool"),
        ("method", 3, "column 'method' must hold text, found"),
        ("method", None, "column 'method' must hold text, found None"),
        ("full", 1, "column 'full' must hold True or False, got int64"),
        ("label_ratio", float("nan"), "column 'label_ratio' must hold a value in every row"),
        ("label_ratio", 0.0, "label_ratio must be in (0, 1], got 0.0"),
        ("label_ratio", 1.5, "label_ratio must be in (0, 1], got 1.5"),
        ("checkpoint", "final", "checkpoint must be one of last, best, got 'final'"),
        ("corruption", "x", "corruption must be like 'gaussian(image)=0.18&mask(text)=0.1', got 'x'"),
        ("dataset", " ", "column 'dataset' has names that cannot be printed: ' '"),
        ("method", "a\nb", "column 'method' has names that cannot be printed: 'a\\nb'"),
    ],
)
def test_a_wrong_column_is_named(column: str, values: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        check_frame(toy().assign(**{column: values}))
    assert told in str(caught.value)


def test_all_wrong_types_are_told_at_once() -> None:
    with pytest.raises(UserError, match=r"'value' must hold numbers.*'seed'|'seed'.*'value' must hold numbers"):
        check_frame(toy().assign(seed="0", value="high"))


def test_repeated_cells_are_named_with_the_remedy() -> None:
    frame = toy()
    with pytest.raises(UserError) as caught:
        check_frame(pd.concat([frame, frame.iloc[[0]]]))
    assert "cells that occur more than once: (toy, 0.05, a, robult, seed 0, last, acc)" in str(caught.value)
    assert "different method or data set labels" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"higher": False}, "data set 'toy' has both values of higher_is_better for 'acc'"),
        ({"primary": False}, "data set 'toy' has both values of primary for 'acc'"),
        ({"full": "b"}, "data set 'toy' has both values of full for 'b'"),
        ({"metric": "f1"}, "data set 'toy' has more than one primary metric: acc, f1"),
    ],
)
def test_contradictions_are_named(change: dict[str, Any], told: str) -> None:
    odd = frame_of([result("gmc", "b", 7, 0.5, **change)])
    with pytest.raises(UserError) as caught:
        check_frame(pd.concat([toy(), odd], ignore_index=True))
    assert told in str(caught.value)


@pytest.mark.parametrize("columns", [list(COLUMNS), [*COLUMNS, "colour"]])
def test_no_finished_cells_says_what_to_do(columns: list[str]) -> None:
    with pytest.raises(UserError, match=r"no finished cells to report yet.*bench run GRID"):
        check_frame(pd.DataFrame(columns=columns))


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(UserError, match="must be a pandas DataFrame, got list"):
        check_frame([])  # type: ignore[arg-type]


# ---- orders -----------------------------------------------------------------------------------------------


def test_methods_are_ordered_with_their_variants_and_the_constant_predictor_last() -> None:
    mixed = ["constant", "zeta", "unimodal", "robult[no_rec]", "alpha[x]", "gmc", "robult", "alpha", "robult[a]"]
    assert order_methods(mixed) == [
        "robult", "robult[a]", "robult[no_rec]", "gmc", "unimodal", "alpha", "alpha[x]", "zeta", "constant",
    ]  # fmt: skip
    assert order_methods(reversed(METHOD_ORDER)) == list(METHOD_ORDER)


def test_subsets_follow_the_order_in_which_the_full_set_is_written() -> None:
    subsets = ["text+vision", "vision", "audio", "text+audio+vision", "text", "audio+vision", "text+audio"]
    assert order_subsets(subsets) == [
        "text", "audio", "vision", "text+audio", "text+vision", "audio+vision", "text+audio+vision",
    ]  # fmt: skip
    assert order_subsets(["b", "a"]) == ["a", "b"]


def test_some_names_a_few_and_counts_the_rest() -> None:
    assert some("abc") == "a, b, c"
    assert some("abcdefg") == "a, b, c, d, e and 2 more"


# ---- summary ----------------------------------------------------------------------------------------------


def cell(summary: pd.DataFrame, method: str, modalities: str) -> pd.Series:
    found = summary[(summary["method"] == method) & (summary["modalities"] == modalities)]
    assert len(found) == 1
    return found.iloc[0]


def test_the_toy_summary_by_hand() -> None:
    summary = summarise(toy(), "last")
    assert summary["modalities"].tolist() == ["a"] * 3 + ["b"] * 3 + ["a+b"] * 3
    assert summary["method"].tolist() == ["robult", "gmc", "constant"] * 3

    a = cell(summary, "robult", "a")
    assert (a["mean"], a["n_seeds"], a["n_nan"]) == (pytest.approx(0.85), 2, 0)
    assert a["std"] == pytest.approx(math.sqrt(0.005))  # deviations .05, ddof 1
    assert (a["best"], a["second"]) == (True, False)
    assert cell(summary, "gmc", "a")["second"]
    assert not summary.loc[summary["method"] == "constant", "is_constant"].any()

    b = summary[summary["modalities"] == "b"].set_index("method")
    assert b["n_seeds"].to_dict() == {"robult": 2, "gmc": 0, "constant": 2}
    assert np.isnan(b.loc["gmc", "mean"])
    assert b["best"].to_dict() == {"robult": True, "gmc": False, "constant": True}
    assert not b["second"].any()
    assert b["is_constant"].to_dict() == {"robult": True, "gmc": False, "constant": False}

    both = summary[summary["modalities"] == "a+b"].set_index("method")
    assert np.isnan(both.loc["robult", "mean"])
    assert both["n_nan"].to_dict() == {"robult": 1, "gmc": 0, "constant": 0}
    assert both["best"].to_dict() == {"robult": False, "gmc": True, "constant": False}
    assert np.isnan(both.loc["gmc", "std"])
    assert both["full"].all()
    assert (both["n_modalities"] == 2).all()


def test_lower_is_better_turns_the_marks() -> None:
    rows = [
        result(m, "a", 0, v, metric="mae", higher=False) for m, v in {"robult": 1.2, "gmc": 1.0, "tmc": 1.1}.items()
    ]
    marks = summarise(frame_of(rows), "last").set_index("method")
    assert marks["best"].to_dict() == {"robult": False, "gmc": True, "tmc": False}
    assert marks["second"].to_dict() == {"robult": False, "gmc": False, "tmc": True}


def test_a_row_with_results_of_one_method_alone_has_no_marks() -> None:
    rows = [result("robult", "a", 0, 0.9), result("robult", "b", 0, 0.8), result("gmc", "b", 0, 0.7)]
    summary = summarise(frame_of(rows), "last")
    assert summary.loc[summary["best"], "modalities"].tolist() == ["b"]


def test_nan_is_never_marked_but_counts_as_a_competitor() -> None:
    rows = [result("robult", "a", 0, 0.1, metric="corr"), result("constant", "a", 0, math.nan, metric="corr")]
    summary = summarise(frame_of(rows), "last").set_index("method")
    assert summary["best"].to_dict() == {"robult": True, "constant": False}
    assert not summary["is_constant"].any()  # nothing is known to be equal


def test_infinite_values_are_undefined() -> None:
    summary = summarise(frame_of([result("robult", "a", 0, math.inf), result("gmc", "a", 0, 0.5)]), "last")
    robult = cell(summary, "robult", "a")
    assert np.isnan(robult["mean"])
    assert robult["n_nan"] == 1
    assert not robult["best"]


def test_equal_seed_by_seed_is_constant_even_where_seeds_are_missing() -> None:
    rows = [result("constant", "a", seed, value) for seed, value in enumerate((0.4, 0.6, 0.8))]
    rows += [result("robult", "a", seed, value) for seed, value in enumerate((0.4, 0.6))]  # mean .5, not .6
    rows += [result("gmc", "a", 0, 0.4), result("gmc", "a", 5, 0.9)]  # seed 5 has nothing to equal
    summary = summarise(frame_of(rows), "last").set_index("method")
    assert summary["is_constant"].to_dict() == {"robult": True, "gmc": False, "constant": False}


def test_checkpoints_are_kept_apart() -> None:
    rows = [result("robult", "a", 0, v, checkpoint=c) for c, v in {"last": 0.6, "best": 0.7}.items()]
    assert summarise(frame_of(rows), "last")["mean"].tolist() == [0.6]
    assert summarise(frame_of(rows), "best")["mean"].tolist() == [0.7]


def test_an_absent_checkpoint_tells_which_are_there() -> None:
    with pytest.raises(UserError, match="no results of checkpoint 'best'; there are results of: last"):
        summarise(toy(), "best")
    with pytest.raises(UserError, match=r"must be one of last, best, got 'lats'\. Did you mean 'last'\?"):
        summarise(toy(), "lats")


def test_every_method_stands_beside_every_cell_of_every_data_set() -> None:
    frame = realistic()
    frame = frame[~((frame["dataset"] == "synthetic") & (frame["method"] == "gmc"))]
    summary = summarise(frame, "last")
    gmc = summary[(summary["dataset"] == "synthetic") & (summary["method"] == "gmc")]
    assert len(gmc) == 2 * 7 * 2  # ratios x subsets x metrics
    assert (gmc["n_seeds"] == 0).all()


# ---- properties -------------------------------------------------------------------------------------------

VALUES = st.one_of(st.just(math.nan), st.integers(-8, 8).map(lambda eighths: eighths / 8))


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """Any frame: values on a coarse grid, so that ties, constants and NaN are common, and any cells missing."""
    methods = draw(
        st.lists(st.sampled_from(["robult", "robult[x]", "gmc", "own", "constant"]), min_size=1, unique=True)
    )
    seeds = draw(st.integers(1, 4))
    metrics = {"acc": True, "mae": False}
    rows = [
        result(method, subset, seed, draw(VALUES), ratio=ratio, metric=metric, higher=higher, primary=metric == "acc")
        for ratio in draw(st.sampled_from([(0.05,), (0.05, 1.0)]))
        for subset in ("a", "a+b")
        for method in methods
        for seed in range(seeds)
        for metric, higher in metrics.items()
        if draw(st.integers(0, 9)) > 1
    ]
    return frame_of(draw(st.permutations(rows))) if rows else frame_of([result("robult", "a", 0, 0.5)])


def slow_marks(means: dict[str, float], present: set[str], higher: bool) -> tuple[set[str], set[str]]:
    """Best and second of one row of a table, one comparison at a time."""
    if len(present) < 2:
        return set(), set()
    left = {method: mean if higher else -mean for method, mean in means.items() if not math.isnan(mean)}
    marks = []
    for _ in range(2):
        top = max(left.values(), default=0.0)
        marks.append({method for method, mean in left.items() if top - mean <= TIE})
        left = {method: mean for method, mean in left.items() if method not in marks[-1]}
    return marks[0], marks[1]


@settings(max_examples=60, deadline=None)
@given(frames())
def test_summary_equals_a_slow_independent_computation(frame: pd.DataFrame) -> None:
    summary = summarise(frame, "last")
    methods = set(frame["method"])
    records = frame.to_dict("records")
    for (ratio, subset, metric), part in summary.groupby(["label_ratio", "modalities", "metric"]):
        assert set(part["method"]) == methods
        here = [r for r in records if (r["label_ratio"], r["modalities"], r["metric"]) == (ratio, subset, metric)]
        values = {m: {r["seed"]: r["value"] for r in here if r["method"] == m} for m in methods}
        means = {m: float(np.mean(list(v.values()))) if v else math.nan for m, v in values.items()}
        present = {m for m, v in values.items() if v}
        best, second = slow_marks(means, present, metric == "acc")
        for row in part.itertuples():
            own = np.array(list(values[row.method].values()))
            np.testing.assert_allclose(row.mean, means[row.method], rtol=0, atol=1e-12)
            np.testing.assert_allclose(row.std, own.std(ddof=1) if len(own) > 1 else math.nan, rtol=0, atol=1e-12)
            assert (row.n_seeds, row.n_nan) == (len(own), np.isnan(own).sum())
            assert (row.best, row.second) == (row.method in best, row.method in second)
            constant = values.get("constant", {})
            same_mean = abs(means[row.method] - means.get("constant", math.nan)) <= TIE
            same_seeds = len(own) > 0 and all(
                abs(v - constant.get(s, math.nan)) <= TIE for s, v in values[row.method].items()
            )
            assert row.is_constant == (row.method != "constant" and (same_mean or same_seeds))


@settings(max_examples=30, deadline=None)
@given(frames(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(frame: pd.DataFrame, random: Any) -> None:
    rows = list(range(len(frame)))
    random.shuffle(rows)
    pd.testing.assert_frame_equal(summarise(frame, "last"), summarise(frame.iloc[rows], "last"), check_exact=True)
