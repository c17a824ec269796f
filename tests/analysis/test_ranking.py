"""Ranking, held to Demšar's worked example, to the printed Table 2 of Robult, and to what few blocks cannot show."""

import math
from itertools import combinations, permutations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.published import published
from analysis.ranking import (
    TESTS,
    Blocks,
    Ranking,
    Selection,
    blocks_from,
    compare,
    critical_difference,
    friedman,
    holm,
    make_blocks,
    minimum_blocks,
    ranks_of,
    signed_rank,
)
from datasets.errors import UserError
from tests.analysis.frames import frame_of, realistic, result, toy

C45 = pd.DataFrame(
    [[.763, .768, .771, .798], [.599, .591, .590, .569], [.954, .971, .968, .967], [.628, .661, .654, .657],
     [.882, .888, .886, .898], [.936, .931, .916, .931], [.661, .668, .609, .685], [.583, .583, .563, .625],
     [.775, .838, .866, .875], [1.0, 1.0, 1.0, 1.0], [.940, .962, .965, .962], [.619, .666, .614, .669],
     [.972, .981, .975, .975], [.957, .978, .946, .970]],
    columns=["C4.5", "+m", "+cf", "+m+cf"],
)  # fmt: skip
"""Demšar (2006), Table 6: AUC of four variants of C4.5 on 14 data sets."""


def table_2(*subsets: str) -> Blocks:
    """Robult, Table 2 as printed: macro F1, accuracy and AUROC of three data sets, a block each subset."""
    printed = published("robult", "2")
    wide = printed[printed["modalities"].isin(subsets)].pivot(
        index=["dataset", "modalities"], columns="method", values="value"
    )
    return blocks_from(wide, datasets=[str(name) for name in wide.index.get_level_values("dataset")])


ALL = ("text", "image", "text+image")


def p_of(ranking: Ranking, which: str, pairs: list[tuple[str, str]]) -> list[float]:
    square: pd.DataFrame = getattr(ranking, which)
    return [float(square.loc[a, b]) for a, b in pairs]  # type: ignore[arg-type]


# ---- golden 1: Demšar's example ---------------------------------------------------------------------------


def test_demsar_as_printed_without_correction_for_ties() -> None:
    blocks = blocks_from(C45)
    np.testing.assert_allclose(blocks.ranks.mean(0), [3.143, 2.000, 2.929, 1.929], atol=5e-4)
    test = friedman(blocks.ranks, correct_ties=False)
    assert test.chi2 == pytest.approx(9.8571, abs=1e-4)
    assert test.p_chi2 == pytest.approx(0.0198, abs=1e-4)
    assert test.f == pytest.approx(3.9867, abs=1e-4)
    assert test.p_f == pytest.approx(0.0144, abs=1e-4)
    assert (test.df1, test.df2) == (3, 39)


def test_demsar_corrected_for_ties_is_scipys() -> None:
    test = friedman(blocks_from(C45).ranks)
    assert test.chi2 == pytest.approx(10.9524, abs=1e-4)
    assert test.p_chi2 == pytest.approx(0.011986, abs=1e-6)
    assert test.f == pytest.approx(4.5859, abs=1e-4)
    scipys = stats.friedmanchisquare(*C45.to_numpy().T)
    assert (test.chi2, test.p_chi2) == pytest.approx(scipys)


def test_demsars_own_numbers_from_unrounded_data() -> None:
    """The paper's ranks need that the last two of row 13 are not tied, as they were before rounding."""
    unrounded = C45.copy()
    unrounded.loc[12, "+cf"] = 0.9751
    blocks = blocks_from(unrounded)
    np.testing.assert_allclose(blocks.ranks.mean(0), [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    test = friedman(blocks.ranks, correct_ties=False)
    assert round(test.chi2, 2) == 9.28
    assert round(test.f, 2) == 3.69
    assert stats.f.ppf(0.95, test.df1, test.df2) == pytest.approx(2.8451, abs=1e-4)
    assert critical_difference(4, 14) == pytest.approx(1.2536, abs=1e-4)
    assert critical_difference(4, 14, 0.10) == pytest.approx(1.1181, abs=1e-4)


def test_demsars_table_of_critical_values() -> None:
    """Demšar (2006), Table 5a: q at 0.05 for 2 to 10 methods, to 3 digits."""
    q = [critical_difference(k, 6) * math.sqrt(6 * 6 / (k * (k + 1))) for k in range(2, 11)]
    np.testing.assert_allclose(q, [1.960, 2.344, 2.569, 2.728, 2.850, 2.948, 3.031, 3.102, 3.164], atol=1e-3)


C45_PAIRS = list(combinations(["C4.5", "+m", "+cf", "+m+cf"], 2))


def test_demsar_post_hoc() -> None:
    """Computed with scikit-posthocs 0.17, SciPy 1.17 and statsmodels' Holm, on the numbers as printed."""
    blocks = blocks_from(C45)
    nemenyi = compare(blocks, "nemenyi")
    np.testing.assert_allclose(
        p_of(nemenyi, "p", C45_PAIRS), [0.08867, 0.97169, 0.06168, 0.22670, 0.99888, 0.17005], atol=1e-5
    )
    assert nemenyi.cd == pytest.approx(1.2536, abs=1e-4)
    assert nemenyi.groups == (("+m+cf", "+m", "+cf", "C4.5"),)  # Friedman rejects, Nemenyi finds no pair
    assert nemenyi.any_difference
    conover = compare(blocks, "conover-holm")
    np.testing.assert_allclose(
        p_of(conover, "raw_p", C45_PAIRS), [0.00861, 0.60682, 0.00549, 0.03029, 0.86359, 0.02022], atol=1e-5
    )
    wilcoxon = compare(blocks, "wilcoxon-holm")
    np.testing.assert_allclose(
        p_of(wilcoxon, "raw_p", C45_PAIRS), [0.01076, 0.86126, 0.01587, 0.05433, 0.32783, 0.02531], atol=1e-5
    )
    np.testing.assert_allclose(
        p_of(wilcoxon, "p", C45_PAIRS), [0.06454, 0.86126, 0.07937, 0.16299, 0.65565, 0.10125], atol=1e-5
    )


# ---- golden 2: Robult, Table 2 ----------------------------------------------------------------------------


def test_table_2_friedman() -> None:
    ranking = compare(table_2(*ALL))
    expected = {"robult": 10 / 9, "gmc": 21 / 9, "unimodal": 30 / 9, "prompt_trans": 34 / 9, "actionmae": 40 / 9}
    assert ranking.mean_ranks.to_dict() == pytest.approx(expected)
    test = ranking.friedman
    assert test is not None
    assert test.chi2 == pytest.approx(24.5333, abs=1e-4)
    assert test.p_chi2 == pytest.approx(6.243e-5, rel=1e-3)
    assert test.f == pytest.approx(17.1163, abs=1e-4)
    assert stats.f.ppf(0.95, test.df1, test.df2) == pytest.approx(2.6684, abs=1e-4)
    assert ranking.cd == pytest.approx(2.0332, abs=1e-4)


def test_table_2_nemenyi_does_not_separate_robult_from_gmc() -> None:
    ranking = compare(table_2(*ALL), "nemenyi")
    pairs = [("robult", other) for other in ("unimodal", "prompt_trans", "actionmae", "gmc")] + [("gmc", "actionmae")]
    np.testing.assert_allclose(p_of(ranking, "p", pairs), [0.0240, 0.0032, 0.0001, 0.4718, 0.0373], atol=5e-5)
    table = ranking.pairs()
    assert set(zip(table["better"], table["worse"], strict=True)) == set(combinations(ranking.methods, 2))
    apart = table[table["conclusion"] == "different"]
    assert set(zip(apart["better"], apart["worse"], strict=True)) == {*pairs[:3], pairs[4]}
    assert table.loc[table["conclusion"] != "different", "p"].min() > 0.29
    assert ranking.groups == (
        ("robult", "gmc"), ("gmc", "unimodal", "prompt_trans"), ("unimodal", "prompt_trans", "actionmae")
    )  # fmt: skip


def test_table_2_conover_and_wilcoxon_separate_them() -> None:
    conover = compare(table_2(*ALL), "conover-holm")
    pairs = [("robult", "gmc"), ("unimodal", "gmc"), ("prompt_trans", "actionmae"), ("gmc", "prompt_trans")]
    np.testing.assert_allclose(p_of(conover, "p", pairs), [0.0499, 0.0962, 0.2899, 0.0168], atol=5e-5)
    assert conover.groups == (("gmc", "unimodal"), ("unimodal", "prompt_trans", "actionmae"))
    wilcoxon = compare(table_2(*ALL), "wilcoxon-holm")
    pairs = [("robult", other) for other in ("gmc", "unimodal", "actionmae", "prompt_trans")]
    pairs += [("gmc", other) for other in ("unimodal", "actionmae", "prompt_trans")] + [("prompt_trans", "actionmae")]
    expected = [0.0391, 0.0391, 0.0391, 0.0469, 0.0469, 0.0391, 0.0781, 0.3867]
    np.testing.assert_allclose(p_of(wilcoxon, "p", pairs), expected, atol=5e-5)
    assert "no difference shown" in set(wilcoxon.pairs()["conclusion"])
    assert wilcoxon.pairs()["least_p"].iloc[0] == pytest.approx(10 / 256)


def test_table_2_single_modalities() -> None:
    ranking = compare(table_2("text", "image"), "wilcoxon-holm")
    expected = {"robult": 1, "gmc": 2, "unimodal": 3, "actionmae": 13 / 3, "prompt_trans": 14 / 3}
    assert ranking.mean_ranks.to_dict() == pytest.approx(expected)
    assert ranking.friedman is not None
    assert ranking.friedman.chi2 == pytest.approx(22.9333, abs=1e-4)
    assert ranking.friedman.f == pytest.approx(107.5, abs=1e-2)
    assert set(ranking.pairs()["conclusion"]) == {"not testable"}  # 10 pairs / 2^5 = 0.31
    assert any("no pair is testable" in note.lower() and "0.31" in note for note in ranking.notes)


def test_table_2_full_set_alone() -> None:
    """Three blocks: by chi2 nothing is shown, by Iman and Davenport's F something is."""
    cautious, usual = (compare(table_2("text+image"), omnibus=name) for name in ("chi2", "f"))
    test = cautious.friedman
    assert test is not None
    assert test.chi2 == pytest.approx(9.0667, abs=1e-4)
    assert test.p_chi2 == pytest.approx(0.0595, abs=5e-5)
    assert test.f == pytest.approx(6.18, abs=5e-3)
    assert not cautious.any_difference
    assert cautious.groups == (tuple(cautious.methods),)
    assert any("pairs are not looked at" in note for note in cautious.notes)
    assert usual.any_difference


def test_table_2_one_block_a_data_set() -> None:
    ranking = compare(table_2(*ALL).one_per_dataset())
    assert ranking.friedman is not None
    assert ranking.friedman.chi2 == pytest.approx(12)  # its maximum, N (k - 1)
    assert ranking.friedman.p_chi2 == pytest.approx(0.0174, abs=5e-5)
    assert math.isinf(ranking.friedman.f)
    assert ranking.friedman.p_f == pytest.approx(1 / 120**2)
    told = " ".join(compare(table_2(*ALL)).notes)
    assert "N = 9 blocks (block) from 3 data sets" in told
    assert "not independent" in told
    assert "With one block a data set (N = 3, means): Friedman's chi2 = 12.00, p = 0.017; F infinite" in told


# ---- against other computations ---------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(3, 7), st.integers(0, 2**32 - 1), st.booleans())
def test_friedman_equals_scipy_and_ranks_add_up(n: int, k: int, seed: int, tied: bool) -> None:
    scores = np.random.default_rng(seed).random((n, k))
    scores = np.round(scores, 1) if tied else scores
    ranks = ranks_of(scores)
    np.testing.assert_allclose(ranks.sum(1), k * (k + 1) / 2)
    np.testing.assert_array_equal(ranks, pd.DataFrame(scores).rank(axis=1, ascending=False).to_numpy())
    test = friedman(ranks)
    if not math.isnan(test.chi2):
        assert (test.chi2, test.p_chi2) == pytest.approx(tuple(stats.friedmanchisquare(*ranks.T)), abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 8), st.integers(3, 6), st.integers(0, 2**32 - 1), st.sampled_from(sorted(TESTS)))
def test_a_ranking_does_not_depend_on_order_scale_or_monotone_change(n: int, k: int, seed: int, test: str) -> None:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.random((n, k)), columns=[f"m{i}" for i in range(k)])
    first = compare(blocks_from(table), test)  # type: ignore[arg-type]
    moved = table.sample(frac=1, random_state=seed % 1000)[list(rng.permutation(table.columns))]
    # An affine change keeps differences in order as well, which the signed ranks look at.
    second = compare(blocks_from(1 - 2 * moved, higher_is_better=False), test)  # type: ignore[arg-type]
    pd.testing.assert_series_equal(first.mean_ranks, second.mean_ranks[first.mean_ranks.index])
    order = first.methods
    np.testing.assert_allclose(first.p.to_numpy(), second.p.loc[order, order].to_numpy(), atol=1e-9)
    assert set(map(frozenset, first.groups)) == set(map(frozenset, second.groups))


def brute_signed_rank(difference: np.ndarray) -> float:
    """The share of all sign patterns whose rank sum is at least as far from the middle."""
    apart = difference[difference != 0]
    ranks = stats.rankdata(np.abs(apart))
    middle = ranks.sum() / 2
    seen = abs(ranks[apart > 0].sum() - middle)
    sums = (sum(r for r, up in zip(ranks, signs, strict=True) if up) for signs in product((0, 1), repeat=len(ranks)))
    return float(np.mean([abs(total - middle) >= seen - 1e-9 for total in sums]))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
def test_few_signed_ranks_are_exact_with_ties_and_zeros(values: list[int]) -> None:
    difference = np.array(values) / 7
    p, m = signed_rank(difference)
    assert m == np.count_nonzero(values)
    assert p == pytest.approx(brute_signed_rank(difference) if m else 1.0)
    assert m == 0 or p >= 2.0 ** (1 - m) - 1e-12


def test_holm_equals_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for n in (1, 2, 3, 10, 45, 153):
        p = np.round(np.random.default_rng(n).random(n) ** 3, 2)  # with ties
        np.testing.assert_allclose(holm(p), multitest.multipletests(p, method="holm")[1])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_groups_are_the_maximal_sets_without_a_shown_difference(k: int, seed: int) -> None:
    """Against a look at every subset of the methods."""
    from analysis.ranking import _cliques

    joined = np.random.default_rng(seed).random((k, k)) < 0.6
    joined = joined & joined.T
    np.fill_diagonal(joined, True)
    names = [str(i) for i in range(k)]
    able = [
        frozenset(part)
        for size in range(2, k + 1)
        for part in combinations(range(k), size)
        if all(joined[i, j] for i, j in combinations(part, 2))
    ]
    largest = {part for part in able if not any(part < other for other in able)}
    found = list(_cliques(joined, names))
    assert {frozenset(map(int, clique)) for clique in found} == largest
    assert len(found) == len(largest)


# ---- what few blocks cannot show --------------------------------------------------------------------------


def test_fewest_blocks() -> None:
    """Below nine blocks five methods cannot be separated by exact Wilcoxon with Holm: 10 pairs * 2^(1 - 8) = 0.078."""
    assert [minimum_blocks(k) for k in (2, 3, 4, 5, 6)] == [6, 7, 8, 9, 10]
    rising = pd.DataFrame(np.arange(5) + np.linspace(0, 0.4, 9)[:, None] ** np.arange(5), columns=list("abcde"))
    eight, nine = (compare(blocks_from(rising.iloc[:n]), "wilcoxon-holm") for n in (8, 9))
    assert set(eight.pairs()["conclusion"]) == {"not testable"}
    assert set(nine.pairs()["conclusion"]) == {"different"}


@pytest.mark.parametrize("test", sorted(TESTS))
@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_least_number_of_blocks_suffices_when_all_agree_and_one_less_does_not(test: str, k: int) -> None:
    least = minimum_blocks(k, test)  # type: ignore[arg-type]
    for n, wanted in ((least - 1, "not testable"), (least, "different")):
        # Unequal gaps, so that signed ranks have no ties.
        table = pd.DataFrame(np.arange(k) * (1 + np.arange(n) / 10)[:, None] + np.arange(k), columns=list("abcdef")[:k])
        ranking = compare(blocks_from(table), test)  # type: ignore[arg-type]
        table_of_pairs = ranking.pairs()
        widest = table_of_pairs[(table_of_pairs["better"] == ranking.methods[0])].iloc[-1]
        assert widest["conclusion"] == wanted, (n, ranking.notes)


def test_all_blocks_agree() -> None:
    order = pd.DataFrame([[1.0, 2.0, 3.0]] * 2, columns=list("abc"))
    test = friedman(blocks_from(order).ranks)
    assert math.isinf(test.f)
    assert test.p_f == pytest.approx(1 / 6)
    conover = compare(blocks_from(order), "conover-holm")
    assert conover.p.to_numpy()[0, 1] == pytest.approx(0.5)  # three pairs of 1/6
    assert not conover.any_difference
    many = compare(blocks_from(pd.DataFrame([[1.0, 2.0, 2.0]] * 9, columns=list("abc"))), "conover-holm")
    assert many.friedman is not None
    assert many.friedman.p_f == pytest.approx(3.0**-8)  # three orders of one and a tie
    assert many.groups == (("b", "c"),)


def test_the_chance_of_agreement_is_that_of_all_orders() -> None:
    """Every way in which two blocks of three methods can be ordered."""
    orders = list(permutations([1.0, 2.0, 3.0]))
    infinite = [math.isinf(friedman(np.array([a, b])).f) for a in orders for b in orders]
    assert np.mean(infinite) == pytest.approx(1 / 6)


def test_one_block_tests_nothing() -> None:
    ranking = compare(blocks_from(pd.DataFrame([[1.0, 2.0, 3.0]], columns=list("abc"))), "conover-holm")
    assert set(ranking.pairs()["conclusion"]) == {"not testable"}
    assert any("not testable, there is one block" in note for note in ranking.notes)
    for test in ("nemenyi", "wilcoxon-holm"):
        single = compare(blocks_from(pd.DataFrame([[1.0, 2.0, 3.0]], columns=list("abc"))), test)  # type: ignore[arg-type]
        assert set(single.pairs()["conclusion"]) == {"not testable"}


@pytest.mark.parametrize("test", sorted(TESTS))
def test_a_metric_that_is_the_same_everywhere_ranks_nothing(test: str) -> None:
    ranking = compare(blocks_from(pd.DataFrame(np.ones((10, 4)), columns=list("abcd"))), test)  # type: ignore[arg-type]
    assert ranking.mean_ranks.tolist() == [2.5] * 4
    assert not ranking.any_difference
    assert ranking.groups == (("a", "b", "c", "d"),)
    assert any("no method differs from another in any block" in note for note in ranking.notes)


@pytest.mark.parametrize("test", sorted(TESTS))
def test_two_methods_are_compared_by_wilcoxon_alone(test: str) -> None:
    table = pd.DataFrame({"a": np.arange(8.0), "b": np.arange(8.0) - np.linspace(0.1, 0.9, 8)})
    ranking = compare(blocks_from(table), test)  # type: ignore[arg-type]
    assert (ranking.test, ranking.friedman, ranking.cd) == ("wilcoxon-holm", None, None)
    assert ranking.pairs().loc[0, "p"] == pytest.approx(2 / 2**8)
    assert ranking.pairs().loc[0, "conclusion"] == "different"
    few = compare(blocks_from(table.iloc[:5]), test)  # type: ignore[arg-type]
    assert few.pairs().loc[0, "conclusion"] == "not testable"
    assert any("0.062" in note for note in few.notes)


# ---- blocks of a results frame ----------------------------------------------------------------------------


def test_blocks_average_seeds_and_turn_metrics_around() -> None:
    frame = realistic()
    blocks = make_blocks(frame, Selection())
    assert (blocks.n, blocks.k, blocks.n_datasets) == (2 * (3 + 7), 3, 2)
    assert blocks.seeds == (3, 3)
    assert blocks.by_metric == "acc (digits), mae (synthetic)"
    assert "constant" not in blocks.methods
    cell = {"dataset": "synthetic", "label_ratio": 0.05, "modalities": "first", "metric": "mae", "checkpoint": "last"}
    own = frame[(frame[list(cell)] == pd.Series(cell)).all(axis=1) & (frame["method"] == "gmc")]
    assert blocks.scores.loc[("synthetic", "first", 0.05), "gmc"] == pytest.approx(-own["value"].mean())
    assert blocks.ranks.mean(0).argmin() == blocks.methods.index("robult")


def test_blocks_by_fewer_axes_are_means_of_their_cells() -> None:
    frame = realistic()
    cells = make_blocks(frame, Selection())
    coarse = make_blocks(frame, Selection(by=("dataset",)))
    assert coarse.n == 2
    expected = cells.scores[[name == "digits" for name in cells.datasets]].mean()
    np.testing.assert_allclose(coarse.scores.to_numpy()[0], expected)
    assert make_blocks(frame, Selection(by=("dataset", "label_ratio"))).n == 4


def test_corrupted_cells_are_ranked_only_if_asked_for() -> None:
    clean = realistic()
    noisy = clean.assign(corruption="gaussian(upper)=0.1", value=-clean["value"])
    frame = pd.concat([clean, noisy])
    np.testing.assert_array_equal(make_blocks(frame, Selection()).scores, make_blocks(clean, Selection()).scores)
    by = ("dataset", "modalities", "label_ratio", "corruption")
    both = make_blocks(frame, Selection(corrupted=True, by=by))
    assert both.n == 2 * make_blocks(clean, Selection()).n
    assert both.told == "data set x modality subset x label ratio x corruption"
    np.testing.assert_allclose(make_blocks(frame, Selection(corrupted=True)).scores, 0, atol=1e-12)  # means of both
    with pytest.raises(UserError, match="no results on clean inputs"):
        make_blocks(noisy, Selection())


def test_gaps_are_dropped_by_a_named_choice_and_told() -> None:
    with pytest.raises(UserError, match="fewer than two methods"):
        make_blocks(toy(), Selection(missing="drop_methods"))  # gmc lacks b, robult is NaN on a+b
    blocks = make_blocks(toy(), Selection())
    assert blocks.scores.index.get_level_values("modalities").tolist() == ["a"]
    assert blocks.notes == ("2 of 3 cells are left out, where there is no result of: robult, gmc.",)
    kept = make_blocks(toy(), Selection(methods=("gmc", "constant", "robult")))
    assert kept.methods == ["robult", "gmc", "constant"]
    frame = realistic()
    lacking = frame[(frame["method"] != "gmc") | (frame["modalities"] != "upper")]
    methods = make_blocks(lacking, Selection(missing="drop_methods"))
    assert methods.methods == ["robult", "unimodal"]
    assert methods.n == 20
    assert methods.notes == ("Left out for lack of results in some cells: gmc.",)
    assert make_blocks(lacking, Selection()).n == 18


def test_unequal_seeds_are_told() -> None:
    frame = realistic()
    blocks = make_blocks(frame[(frame["seed"] < 2) | (frame["method"] != "gmc")], Selection())
    assert blocks.notes == ("Values are means of 2 to 3 seeds.",)


def test_means_that_differ_by_rounding_alone_are_ties() -> None:
    rows = [result("gmc", "a", seed, value) for seed, value in enumerate((0.1, 0.2, 0.3))]
    rows += [result("robult", "a", seed, value) for seed, value in enumerate((0.3, 0.1, 0.2))]
    np.testing.assert_array_equal(make_blocks(frame_of(rows), Selection()).ranks, [[1.5, 1.5]])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Selection(by=("dataset", "subset")), "not by 'subset'"),
        (lambda: Selection(by=("modalities",)), "must be told apart by 'dataset'"),
        (lambda: Selection(missing="drop"), "drop_blocks or drop_methods"),  # type: ignore[arg-type]
        (lambda: make_blocks(realistic(), Selection(metric="accc")), "Did you mean 'acc'"),
        (lambda: make_blocks(realistic(), Selection(methods=("robult", "gcm"))), "Did you mean 'gmc'"),
        (lambda: make_blocks(realistic(), Selection(methods=("robult",))), "two methods or more"),
        (lambda: make_blocks(realistic(("robult", "constant")), Selection()), "two methods or more"),
        (lambda: blocks_from(pd.DataFrame({"a": [1.0], "b": [np.nan]})), "no finite value of 'b' in block '0'"),
        (lambda: blocks_from(pd.DataFrame({"a": [1.0]})), "two methods or more"),
        (lambda: compare(blocks_from(C45), "nemeny"), "Did you mean 'nemenyi'"),  # type: ignore[arg-type]
        (lambda: compare(blocks_from(C45), alpha=0), "between 0 and 1"),
    ],
)
def test_mistakes_are_told(make: object, told: str) -> None:
    with pytest.raises(UserError, match=told):
        make()  # type: ignore[operator]


def test_one_data_set_says_nothing_about_others() -> None:
    frame = realistic()
    ranking = compare(make_blocks(frame[frame["dataset"] == "digits"], Selection()))
    told = " ".join(ranking.notes)
    assert "from one data set" in told
    assert "nothing is said about others" in told


def test_a_hundred_thousand_cells_are_the_blocks_of_every_test() -> None:
    methods = [f"m{i}" for i in range(20)]
    sets = {f"set{i}": (("a", "b", "c"), {"acc": True}) for i in range(20)}
    n = 20 * 20 * 7 * 36
    cells = pd.MultiIndex.from_product(
        [list(sets), ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"], [0.05, 0.1, 0.5, 1.0], methods, range(9)],
        names=["dataset", "modalities", "label_ratio", "method", "seed"],
    ).to_frame(index=False)
    frame = cells.assign(
        corruption="", checkpoint="last", metric="acc",
        value=np.random.default_rng(0).random(n), higher_is_better=True, primary=True,
        n_modalities=cells["modalities"].str.count(r"\+") + 1, full=cells["modalities"] == "a+b+c", training_id="t",
        run_id="r",
    )  # fmt: skip
    assert len(frame) == n > 100_000
    for test in TESTS:
        assert compare(make_blocks(frame, Selection()), test).blocks.n == 20 * 7 * 4  # type: ignore[arg-type]
