"""Resampling: against closed forms, exhaustive counts and simulation with a known truth."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.published import published
from analysis.ranking import Selection, blocks_from, make_blocks
from analysis.resampling import datasets_needed, improvement, rank_intervals, seed_intervals, seed_scores, seeds_needed
from datasets.errors import UserError
from tests.analysis.frames import frame_of, realistic, result, toy


def runs(**methods: list[float]) -> pd.DataFrame:
    """One cell, a list of seeds a method."""
    return frame_of([
        result(method, "a+b", seed, value) for method, values in methods.items() for seed, value in enumerate(values)
    ])  # fmt: skip


def cells(*each: dict[str, list[float]]) -> pd.DataFrame:
    """Several cells, each a data set of its own."""
    return frame_of([
        result(method, "a+b", seed, value, dataset=f"set{at}")
        for at, methods in enumerate(each)
        for method, values in methods.items()
        for seed, value in enumerate(values)
    ])  # fmt: skip


def probability(table: pd.DataFrame, method: str, than: str, column: str = "probability") -> float:
    return float(table[(table["method"] == method) & (table["than"] == than)][column].iloc[0])


# ---- probability of improvement ---------------------------------------------------------------------------


def test_improvement_is_the_mean_share_of_won_pairs() -> None:
    """Cell 1: 0.3 beats both, 0.1 ties one and loses one: (2 + 0.5) / 4. Cell 2: three against one, all won."""
    frame = cells({"robult": [0.3, 0.1], "gmc": [0.1, 0.2]}, {"robult": [0.5, 0.6, 0.7], "gmc": [0.4]})
    table = improvement(frame, Selection(), n_resamples=200)
    assert probability(table, "robult", "gmc") == pytest.approx((0.625 + 1) / 2)
    assert probability(table, "gmc", "robult") == pytest.approx(1 - 0.8125)
    assert set(table["n_cells"]) == {2}


def test_improvement_of_a_metric_that_is_better_lower() -> None:
    frame = frame_of([
        result(method, "a+b", seed, value, metric="mae", higher=False)
        for method, values in {"robult": (0.1, 0.2), "gmc": (0.3, 0.4)}.items()
        for seed, value in enumerate(values)
    ])  # fmt: skip
    assert probability(improvement(frame, Selection(), n_resamples=10), "robult", "gmc") == 1


def test_interval_of_improvement_is_that_of_all_resamples() -> None:
    """Two seeds each: all 16 resamples can be listed, and 4,000 drawn ones must have their distribution."""
    one, other = [0.3, 0.1], [0.1, 0.2]
    wins = [[1.0, 1.0], [0.5, 0.0]]
    outcomes = [
        np.mean([[wins[i][j] for j in b] for i in a])
        for a in product((0, 1), repeat=2)
        for b in product((0, 1), repeat=2)
    ]
    table = improvement(runs(robult=one, gmc=other), Selection(), n_resamples=4000, confidence=0.8)
    low, high = np.quantile(outcomes, [0.1, 0.9])
    assert probability(table, "robult", "gmc", "low") == pytest.approx(low, abs=0.01)
    assert probability(table, "robult", "gmc", "high") == pytest.approx(high, abs=0.01)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4))
def test_improvements_of_a_pair_add_up_to_one(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    draw = [np.round(rng.random(size), 1).tolist() for size in (n, m, n)]
    table = improvement(runs(robult=draw[0], gmc=draw[1], raml=draw[2]), Selection(), n_resamples=20)
    for a, b in (("robult", "gmc"), ("robult", "raml"), ("gmc", "raml")):
        assert probability(table, a, b) + probability(table, b, a) == pytest.approx(1)
        assert probability(table, a, b, "low") == pytest.approx(1 - probability(table, b, a, "high"))
        assert 0 <= probability(table, a, b, "low") <= probability(table, a, b, "high") <= 1


# ---- intervals --------------------------------------------------------------------------------------------


def test_seed_intervals_of_three_seeds_hold_the_truth_three_times_in_four() -> None:
    """As the docstring says: for a symmetric spread, unless all three lie on one side, 1 - 2 / 2^3."""
    rng = np.random.default_rng(1)
    frame = cells(*({"robult": rng.standard_normal(3).tolist()} for _ in range(1500)))
    found = seed_intervals(frame, "last", n_resamples=500)
    held = (found["low"] <= 0) & (found["high"] >= 0)
    assert held.mean() == pytest.approx(0.75, abs=0.04)


def test_seed_intervals_of_many_seeds_are_those_of_the_normal_mean() -> None:
    values = np.random.default_rng(2).standard_normal(400)
    found = seed_intervals(runs(robult=values.tolist()), "last", n_resamples=4000).iloc[0]
    half = 1.96 * values.std(ddof=1) / 20
    assert found["mean"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_one_seed_and_an_undefined_seed_have_no_interval() -> None:
    found = seed_intervals(toy(), "last", n_resamples=50).set_index(["modalities", "method"])
    assert found.loc[("a", "gmc"), ["low", "high"]].tolist() == [0.7, 0.7]
    assert found.loc[("a+b", "gmc"), ["low", "high"]].isna().all()
    assert found.loc[("a+b", "robult"), ["mean", "low", "high"]].isna().all()
    assert found.loc[("a", "robult"), ["low", "high"]].tolist() == [0.8, 0.9]


def test_rank_intervals() -> None:
    """gmc's two seeds straddle robult's: of its means .1, .3, .5 (1/4, 1/2, 1/4) only the last is above .4."""
    frame = cells(*[{"robult": [0.4, 0.4], "gmc": [0.1, 0.5]}] * 40)
    table = rank_intervals(frame, Selection(), n_resamples=400)
    assert table["method"].tolist() == ["robult", "gmc"]
    assert table["mean_rank"].tolist() == [1.0, 2.0]
    spread = 1.96 * np.sqrt(0.25 * 0.75 / 40)
    assert table.loc[0, "low"] == pytest.approx(1.25 - spread, abs=0.06)
    assert table.loc[0, "high"] == pytest.approx(1.25 + spread, abs=0.06)
    assert table["share_best"].sum() == pytest.approx(1)


def test_blocks_and_seed_scores_tell_the_same_means() -> None:
    frame = realistic()
    frame = frame[(frame["method"] != "gmc") | (frame["modalities"] != "upper")]
    for selection in (
        Selection(),
        Selection(by=("dataset",)),
        Selection(by=("dataset", "label_ratio"), missing="drop_methods"),
    ):
        seeds, blocks = seed_scores(frame, selection), make_blocks(frame, selection)
        assert seeds.methods == blocks.methods
        assert tuple(seeds.datasets) == blocks.datasets
        np.testing.assert_allclose(seeds.block_means(np.nanmean(seeds.values, axis=2)), blocks.scores.to_numpy())


def test_the_same_seed_gives_the_same_numbers_whatever_the_global_state() -> None:
    frame = realistic()
    first = improvement(frame, Selection(), n_resamples=50), rank_intervals(frame, Selection(), n_resamples=50)
    np.random.seed(3)  # noqa: NPY002
    second = improvement(frame, Selection(), n_resamples=50), rank_intervals(frame, Selection(), n_resamples=50)
    for a, b in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(a, b)
    shuffled = frame.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(first[0], improvement(shuffled, Selection(), n_resamples=50))


# ---- how much more ----------------------------------------------------------------------------------------


def test_data_sets_needed_for_a_difference_that_is_always_there() -> None:
    """All agree, gaps of one rank: Nemenyi separates neighbours once its critical difference is below 1."""
    from analysis.ranking import critical_difference

    table = pd.DataFrame([[3.0, 2.0, 1.0]] * 4, columns=list("abc"))
    found = datasets_needed(blocks_from(table), n_resamples=50)
    neighbours = found.table[found.table["rank_gap"] == 1]["needed"].unique().tolist()
    assert len(neighbours) == 1
    needed = int(neighbours[0])
    assert critical_difference(3, needed) < 1
    tried = sorted(found.curve["n"].unique())
    assert critical_difference(3, tried[tried.index(needed) - 1]) > 1
    wide = found.table[found.table["rank_gap"] == 2].iloc[0]
    assert (wide["better"], wide["worse"], wide["needed"]) == ("a", "c", 3)
    assert wide["power_now"] == 1


def test_data_sets_needed_has_no_answer_where_methods_are_equal() -> None:
    table = pd.DataFrame([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0]] * 3, columns=list("abc"))
    found = datasets_needed(blocks_from(table), n_resamples=200).table
    assert found[(found["better"] == "a") & (found["worse"] == "b")]["needed"].isna().all()
    assert found[found["worse"] == "c"]["needed"].notna().all()


def test_table_2_would_need_more_data_sets() -> None:
    """Robult before GMC on all three data sets of its Table 2, a gap of one rank, which five methods need 38 for."""
    printed = published("robult", "2").pivot(index=["dataset", "modalities"], columns="method", values="value")
    blocks = blocks_from(printed, datasets=[str(name) for name in printed.index.get_level_values("dataset")])
    found = datasets_needed(blocks, n_resamples=200)
    row = found.table[(found.table["better"] == "robult") & (found.table["worse"] == "gmc")].iloc[0]
    assert (row["now"], row["power_now"]) == (3, 0)
    assert row["needed"] == 38
    assert any("drawn from them with replacement" in told for told in found.assumptions)


def test_seeds_needed_follow_the_normal_law() -> None:
    """Two methods, one cell, gap d, spread s each: order kept with Phi(d sqrt(n) / (s sqrt 2))."""
    frame = runs(robult=[0.4, 0.6], gmc=[0.3, 0.5])  # gap 0.1, s = 0.1414
    found = seeds_needed(frame, Selection(), n_resamples=20_000)
    curve = found.curve[found.curve["claim"] == "robult before gmc"].set_index("n")["share"]
    assert curve[1] == pytest.approx(0.6915, abs=0.01)  # Phi(0.5)
    assert curve[4] == pytest.approx(0.8413, abs=0.01)  # Phi(1)
    needed = found.table.set_index("claim")["needed"]
    assert needed["robult before gmc"] == 12  # Phi(0.5 sqrt(n)) >= 0.95 from n = 10.8
    assert needed["robult is best"] == 12
    assert found.table["now"].unique().tolist() == [2]


def test_what_cannot_be_estimated_is_told() -> None:
    with pytest.raises(UserError, match="have one seed"):
        seeds_needed(runs(robult=[0.4], gmc=[0.3]), Selection())
    with pytest.raises(UserError, match="one data set tells nothing"):
        datasets_needed(make_blocks(runs(robult=[0.4], gmc=[0.3]), Selection()))
    with pytest.raises(UserError, match="confidence must lie"):
        seed_intervals(toy(), "last", confidence=95)
    with pytest.raises(UserError, match="n_resamples"):
        improvement(runs(robult=[0.4], gmc=[0.3]), Selection(), n_resamples=0)
    nan = float("nan")
    with pytest.raises(UserError, match="too few results to resample; lacking in some cells: robult"):
        improvement(runs(robult=[0.4, nan], gmc=[0.3, 0.1]), Selection())
