"""Comparing two experiments: what is the same is called the same, and what differs is found, sized and put in words."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.comparison import ALPHA, Comparison, Experiment, compare_experiments
from datasets.errors import UserError
from tests.analysis.frames import frame_of, realistic, result


def compared(a: pd.DataFrame, b: pd.DataFrame, **options: Any) -> Comparison:
    return compare_experiments(Experiment("old", a), Experiment("new", b), **options)


def seeds(values: list[float], method: str = "robult", **facts: Any) -> list[dict[str, Any]]:
    return [result(method, "a+b", seed, value, **facts) for seed, value in enumerate(values)]


def group(found: Comparison, method: str = "robult") -> dict[str, Any]:
    (row,) = found.groups[found.groups["method"] == method].to_dict("records")
    return {str(key): value for key, value in row.items()}


def test_an_experiment_is_the_same_as_itself_in_any_order() -> None:
    frame = realistic()
    found = compared(frame, frame.sample(frac=1, random_state=0).assign(run_id="other"))
    n = len(frame[["dataset", "label_ratio", "method", "modalities", "seed"]].drop_duplicates())
    assert (found.same, found.n_common, found.n_identical) == (True, n, n)
    assert found.headline == f"The same: all {n} cells of old and new have identical values."
    assert set(found.groups["verdict"]) == {"identical"}, "undefined values (corr of constant) count as equal"
    assert found.largest.empty
    assert found.notes == ()


def test_one_changed_value_is_found() -> None:
    a = realistic()
    b = a.copy()
    at = b.index[(b["method"] == "gmc") & (b["metric"] == "acc") & (b["checkpoint"] == "last")][0]
    b.loc[at, "value"] += 0.25
    found = compared(a, b)
    assert found.n_common - found.n_identical == 1
    (row,) = found.largest.to_dict("records")
    changed = b.loc[at]
    for axis in ("dataset", "method", "label_ratio", "modalities", "corruption"):
        assert row[axis] == changed[axis]
    assert row["difference"] == pytest.approx(0.25 / 3), "one of three seeds"
    spread = pd.concat([a, b]).query("dataset == 'digits' and metric == 'acc'")["value"].std(ddof=0)
    assert row["spreads"] == pytest.approx(0.25 / 3 / spread)
    assert "1 cell differ although" in found.notes[0], "the frames name the same trainings"


def test_direction_decides_what_is_better() -> None:
    higher = compared(frame_of(seeds([0.5, 0.6, 0.7])), frame_of(seeds([0.6, 0.7, 0.8])))
    assert group(higher)["verdict"] == "better in all 3 seeds"
    facts: dict[str, Any] = {"metric": "mae", "higher": False}
    lower = compared(frame_of(seeds([0.5, 0.6, 0.7], **facts)), frame_of(seeds([0.6, 0.7, 0.8], **facts)))
    assert group(lower)["verdict"] == "worse in all 3 seeds"
    assert group(lower)["difference"] == pytest.approx(group(higher)["difference"]) == pytest.approx(0.1)
    assert lower.largest["verdict"].tolist() == ["worse"]


@pytest.mark.parametrize(
    ("old", "new", "verdict", "test"),
    [
        ([0.5], [0.6], "better in the only seed", "not testable with 1 seed"),
        ([0.5, 0.5], [0.4, 0.4], "worse in both seeds", "not testable with 2 seeds"),
        ([0.5, 0.5, 0.5], [0.6, 0.4, 0.5], "mixed: better in 1, worse in 1 of 3 seeds", "not testable with 3 seeds"),
        ([0.5] * 5, [0.6] * 5, "better in all 5 seeds", "not testable with 5 seeds"),
        ([0.5] * 6, [0.6] * 6, "better", "p = 0.031"),
        ([0.5] * 6, [0.6] * 5 + [0.1], "no clear difference", "p = 0.53"),
        ([0.5, np.nan], [0.5, np.nan], "identical", ""),
        ([np.nan], [0.5], "undefined", "undefined"),
    ],
)
def test_verdicts(old: list[float], new: list[float], verdict: str, test: str) -> None:
    """0.031 = 2^-5, the smallest two-sided p of six signs. 0.53 = 2 * 17 / 64: of ranks 3 (five times) and 6, the one
    difference downwards has 6, and 17 of the 64 choices of signs have a sum of 6 or less."""
    row = group(compared(frame_of(seeds(old)), frame_of(seeds(new))))
    assert row["verdict"] == verdict
    assert row["test"] == test


def test_intervals_resample_seeds_and_keep_their_conditions_together() -> None:
    """Two conditions move against each other in every seed: the means of seeds do not vary, so resamples do not."""
    rows = [(0, "a", 0.1), (0, "b", -0.1), (1, "a", -0.3), (1, "b", 0.3), (2, "a", 0.2), (2, "b", -0.2)]
    old = frame_of([result("gmc", name, seed, 0.5, full="b") for seed, name, _ in rows])
    new = frame_of([result("gmc", name, seed, 0.5 + step + 0.05, full="b") for seed, name, step in rows])
    row = group(compared(old, new), "gmc")
    assert row["n_cells"] == 6
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((0.05, 0.05, 0.05))
    assert row["verdict"] == "better in all 3 seeds"


def test_intervals_of_few_seeds_are_those_of_all_resamples() -> None:
    """Three seeds have 27 equally likely resamples: the 2.5 and 97.5 % points are their ends, 0.037 beyond each."""
    row = group(compared(frame_of(seeds([0.0, 0.0, 0.0])), frame_of(seeds([0.1, 0.2, 0.6]))))
    assert (row["low"], row["high"]) == pytest.approx((0.1, 0.6))
    row = group(
        compared(frame_of(seeds([0.0, 0.0])), frame_of(seeds([0.1, 0.3]))),
    )
    assert (row["low"], row["high"]) == pytest.approx((0.1, 0.3))
    row = group(compared(frame_of(seeds([0.1])), frame_of(seeds([0.2]))))
    assert np.isnan([row["low"], row["high"]]).all()


def test_p_values_are_adjusted_over_groups() -> None:
    one, two = seeds([0.5] * 6), seeds([0.5] * 6, "gmc")
    found = compared(frame_of(one + two), frame_of(seeds([0.6] * 6) + seeds([0.6] * 6, "gmc")))
    assert found.groups["p"].tolist() == pytest.approx([2 * 2**-5] * 2)
    assert set(found.groups["verdict"]) == {"no clear difference"}, "0.0625 is above 0.05"
    assert any("after Holm for 2 tests" in note for note in found.notes)


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_turning_the_sides_turns_the_signs(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = frame_of(seeds(rng.normal(size=n).tolist()) + seeds(rng.normal(size=n).tolist(), "gmc"))
    b = frame_of(seeds(rng.normal(size=n).tolist()) + seeds(rng.normal(size=n + 1).tolist(), "gmc"))
    there, back = compared(a, b), compared(b, a)
    for name in ("robult", "gmc"):
        one, other = group(there, name), group(back, name)
        assert one["difference"] == pytest.approx(-other["difference"])
        assert (one["n_better"], one["n_worse"]) == (other["n_worse"], other["n_better"])
        assert one["p"] == pytest.approx(other["p"], nan_ok=True)
        assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]), nan_ok=True, abs=0.1)
        values = [part[part["method"] == name].set_index("seed")["value"] for part in (a, b)]
        assert one["difference"] == pytest.approx((values[1] - values[0]).mean()), "only seeds of both count"
        assert (one["p"] == one["p"]) == (2.0 ** (1 - n) <= ALPHA)


def test_cells_in_one_alone_are_counted_with_the_reason() -> None:
    a = realistic(seeds=2, sets={"digits": (("upper", "lower"), {"acc": True})})
    b = a[(a["method"] != "gmc") & (a["seed"] == 0) & ~((a["method"] == "robult") & (a["modalities"] == "upper"))]
    extra = frame_of([result("robult", "upper+lower", 0, 0.4, dataset="digits", corruption="mask(upper)=0.5",
                             full="upper+lower")])  # fmt: skip
    found = compared(a, pd.concat([b, extra], ignore_index=True))
    told = {(row.experiment, row.why): row.n_cells for row in found.only.itertuples()}
    assert told == {
        ("old", "method gmc"): 12, ("old", "seed 1"): 18,
        ("old", "not finished, or not asked for, in the other"): 2, ("new", "corruption mask(upper)=0.5"): 1,
    }  # fmt: skip
    assert not found.same
    assert found.headline == "The same where both have results: 16 common cells, identical values."


def test_values_that_differ_by_rounding_are_told_apart() -> None:
    found = compared(frame_of(seeds([0.5, 0.5])), frame_of(seeds([0.5 + 1e-8, 0.5])))
    assert (found.n_identical, found.n_rounding) == (1, 1)
    assert "1 of them by less than 1e-06" in found.headline
    assert found.largest["difference"].tolist() == pytest.approx([5e-9])


def test_undefined_in_one_alone_is_told_and_left_out() -> None:
    found = compared(frame_of(seeds([0.5, 0.6])), frame_of(seeds([np.nan, 0.7])))
    row = group(found)
    assert (row["n_undefined"], row["n_seeds"], row["difference"]) == (1, 1, pytest.approx(0.1))
    assert "1 value undefined in one experiment alone: left out of the means of both." in found.notes


def made(**values: str) -> pd.DataFrame:
    return pd.DataFrame(
        [("toy", method, key, value) for method in ("robult", "gmc") for key, value in values.items()],
        columns=["dataset", "method", "key", "value"],
    )


def test_settings_and_versions_that_differ_are_told() -> None:
    frame = frame_of(seeds([0.5]) + seeds([0.5], "gmc"))
    one, other = made(lr="0.1", epochs="1", protocol="2"), made(lr="0.1", epochs="3", protocol="3", new="x")
    other.loc[(other["method"] == "gmc") & (other["key"] == "lr"), "value"] = "0.2"
    found = compare_experiments(
        Experiment("old", frame, one, {"python": "3.11", "zlib": "1", "torch": "2.1", "numpy": "2"}),
        Experiment("new", frame.assign(training_id="x"), other, {"python": "3.12", "torch": "2.2", "numpy": "2"}),
    )
    assert found.settings.to_numpy().tolist() == [
        ["epochs", "1", "3", "everywhere"], ["lr", "0.1", "0.2", "gmc on toy"],
        ["new", "not set", "x", "everywhere"], ["protocol", "2", "3", "everywhere"],
    ]  # fmt: skip
    assert found.versions.to_numpy().tolist() == [
        ["python", "3.11", "3.12"], ["torch", "2.1", "2.2"], ["zlib", "1", "none"],
    ]  # fmt: skip
    assert "Protocol version 2 against 3: the code that makes results changed in between." in found.notes


def test_other_identities_with_equal_settings_point_at_the_protocol() -> None:
    frame = frame_of(seeds([0.5]))
    sides = [Experiment("old", frame, made(lr="1")), Experiment("new", frame.assign(training_id="x"), made(lr="1"))]
    assert "identities of the trainings are not" in compare_experiments(*sides).notes[0]


def test_metrics_read_differently_are_told() -> None:
    a = frame_of(seeds([0.5]) + seeds([0.3], metric="f1", primary=False) + seeds([0.3], metric="old", primary=False))
    b = frame_of(seeds([0.4], primary=False) + seeds([0.4], metric="f1") + seeds([0.1], metric="x", primary=False))
    found = compared(a, b)
    assert group(found)["metric"] == "acc"
    told = " ".join(found.notes)
    assert "Metrics of old alone: old of toy." in told
    assert "Metrics of new alone: x of toy." in told
    assert "The primary metric of toy is another in new: compared by acc, as in old." in told
    turned = compared(frame_of(seeds([0.5])), frame_of(seeds([0.6], higher=False)))
    assert "acc of toy is read in opposite directions: better and worse are as in old." in turned.notes
    assert group(turned)["verdict"] == "better in the only seed"


def test_json_holds_everything_and_no_nan() -> None:
    text = compared(frame_of(seeds([0.5])), frame_of(seeds([0.6]))).to_json()
    told = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert told["groups"][0]["low"] is None
    assert {"a", "b", "same", "headline", "only", "largest", "settings", "versions", "notes"} <= set(told)


@pytest.mark.parametrize(
    ("a", "b", "options", "told"),
    [
        (frame_of([]), frame_of(seeds([1.0])), {}, "experiment 'old' has no finished cell"),
        (frame_of(seeds([1.0])), frame_of([]), {}, "experiment 'new' has no finished cell"),
        (frame_of(seeds([1.0])), frame_of(seeds([1.0], dataset="x")), {}, r"no data set is in both \(toy against x\)"),
        (frame_of(seeds([1.0])), frame_of(seeds([1.0], "gmc")), {}, r"no method is in both \(robult against gmc\)"),
        (
            frame_of(seeds([1.0])),
            frame_of(seeds([1.0], ratio=0.5)),
            {},
            r"no label ratio is in both \(5% against 50%\)",
        ),
        (frame_of(seeds([1.0])), frame_of(seeds([1.0], corruption="mask(a)=1")), {}, r"\(clean against mask\(a\)=1\)"),
        (frame_of(seeds([1.0])), frame_of(seeds([1.0], checkpoint="best")), {}, "'old' has last; 'new' has best"),
        (frame_of(seeds([1.0])), frame_of(seeds([1.0])), {"checkpoint": "best"}, "no results of one checkpoint"),
        (frame_of(seeds([1.0])), frame_of(seeds([1.0])), {"checkpoint": "lst"}, "Did you mean 'last'"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    a: pd.DataFrame, b: pd.DataFrame, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        compared(a, b, **options)
    assert caught.value.exit_code == 2
