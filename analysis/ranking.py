"""Which methods differ: Friedman's test over blocks, post-hoc tests of pairs, groups that cannot be told apart.

Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006. A block is one place where
all methods are compared: a data set, or one modality subset or label ratio of it. Seeds are averaged first, so a
block has one value a method. Blocks of one data set are not independent of each other, which every test here takes
them to be; `Ranking.notes` says so wherever it is the case, with the result of one block a data set beside it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.results import CONSTANT, TIE, at_checkpoint, order_methods, some
from datasets.errors import UserError, did_you_mean

Floats = NDArray[np.float64]

AXES = ("dataset", "modalities", "label_ratio", "corruption")
AXIS_WORDS = {
    "dataset": "data set", "modalities": "modality subset", "label_ratio": "label ratio", "corruption": "corruption",
}  # fmt: skip
TESTS = {
    "nemenyi": "Nemenyi's test, which allows for all pairs at once",
    "conover-holm": "Conover's test on rank sums, Holm's correction",
    "wilcoxon-holm": "Wilcoxon's signed-rank test, two-sided, Holm's correction",
}
"""Post-hoc tests of all pairs. Conover's is the more powerful, Nemenyi's has one critical difference for all pairs."""

EXACT_WITH_TIES = 10
"""Up to so many differences, Wilcoxon's p value with ties is exact, by all signs; SciPy's normal approximation there
can fall below what any exact test can reach."""

Missing = Literal["drop_blocks", "drop_methods"]
Test = Literal["nemenyi", "conover-holm", "wilcoxon-holm"]
Omnibus = Literal["f", "chi2"]


@dataclass(frozen=True)
class Selection:
    """Which results are ranked, over which blocks.

    Attributes:
        checkpoint: `last` or `best`.
        metric: one metric for all data sets that have it; None: the primary metric of each.
        methods: None: all but the constant predictor.
        by: what tells blocks apart, `dataset` and perhaps others of `AXES`; over the rest a block's value is the mean.
        missing: where a method lacks a result, `drop_blocks` leaves out those cells for all methods,
            `drop_methods` those methods. Either is told in `Blocks.notes`.
        corrupted: whether cells with corrupted inputs are ranked too.
    """

    checkpoint: str = "last"
    metric: str | None = None
    methods: tuple[str, ...] | None = None
    by: tuple[str, ...] = ("dataset", "modalities", "label_ratio")
    missing: Missing = "drop_blocks"
    corrupted: bool = False

    def __post_init__(self) -> None:
        for name in self.by:
            if name not in AXES:
                raise UserError(
                    f"blocks can be told apart by {', '.join(AXES)}, not by '{name}'.{did_you_mean(name, AXES)}"
                )
        if "dataset" not in self.by:
            raise UserError("blocks must be told apart by 'dataset': a mean over data sets has no meaning.")
        if self.missing not in ("drop_blocks", "drop_methods"):
            raise UserError(f"missing must be drop_blocks or drop_methods, got '{self.missing}'.")


@dataclass(frozen=True, eq=False)
class Blocks:
    """One score per block and method, higher is better whatever the metric's direction.

    Attributes:
        scores: N blocks (rows) x k methods (columns), finite.
        datasets: the data set of each block, (N,).
        told: how blocks are made, in words: `data set x modality subset`.
        by_metric: what was measured, in words.
        seeds: least and most seeds behind a value; (0, 0) where unknown.
        notes: what was left out and why, in plain sentences.
    """

    scores: pd.DataFrame
    datasets: tuple[str, ...]
    told: str
    by_metric: str
    seeds: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(self.scores)

    @property
    def k(self) -> int:
        return self.scores.shape[1]

    @property
    def methods(self) -> list[str]:
        return [str(name) for name in self.scores.columns]

    @property
    def n_datasets(self) -> int:
        return len(set(self.datasets))

    @property
    def ranks(self) -> Floats:
        """(N, k), 1 = best; scores closer than `analysis.results.TIE` share the mean of their ranks."""
        return ranks_of(self.scores.to_numpy(np.float64))

    def one_per_dataset(self) -> "Blocks":
        """The means of each data set's blocks as the only block of that data set."""
        scores = self.scores.groupby(list(self.datasets), sort=False).mean()
        return replace(self, scores=scores, datasets=tuple(scores.index), told="data set")


def ranks_of(scores: Floats) -> Floats:
    """Ranks along the last axis, 1 = highest score, equal scores sharing the mean of their ranks."""
    from scipy.stats import rankdata

    ranks: Floats = rankdata(-np.round(scores / TIE) * TIE, axis=-1)
    return ranks


# ---- blocks -----------------------------------------------------------------------------------------------


def select(frame: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """The rows of a results frame that are ranked, with `score` = value, or -value where lower is better.

    Raises:
        UserError: the frame is bad, or has nothing at this checkpoint, of this metric or of these methods.
    """
    chosen = at_checkpoint(frame, selection.checkpoint)
    if not selection.corrupted:
        chosen = chosen[chosen["corruption"] == ""]
        if chosen.empty:
            raise UserError("there are no results on clean inputs to rank; rank corrupted ones with corrupted: true.")
    metrics = sorted(chosen["metric"].unique())
    if selection.metric is None:
        chosen = chosen[chosen["primary"]]
    else:
        chosen = chosen[chosen["metric"] == selection.metric]
        if chosen.empty:
            raise UserError(
                f"no data set has the metric '{selection.metric}'; there are: {some(metrics, 20)}."
                f"{did_you_mean(selection.metric, metrics)}"
            )
    there = order_methods(chosen["method"])
    for method in selection.methods or ():
        if method not in there:
            raise UserError(
                f"no results of the method '{method}'; there are: {some(there, 20)}.{did_you_mean(method, there)}"
            )
    wanted = selection.methods or tuple(method for method in there if method != CONSTANT)
    chosen = chosen[chosen["method"].isin(wanted)]
    if len(set(wanted)) < 2:
        raise UserError(f"a ranking needs two methods or more; there is {', '.join(wanted) or 'none'}.")
    value = chosen["value"].where(np.isfinite(chosen["value"]))
    return chosen.assign(score=value.where(chosen["higher_is_better"], -value))


def make_blocks(frame: pd.DataFrame, selection: Selection) -> Blocks:
    """The blocks of a results frame: seeds averaged, metrics turned so that higher is better, gaps dealt with.

    A method with one undefined (NaN) seed has no value in that cell, as in every table: the mean of the others
    would flatter.

    Raises:
        UserError: see `select`; or no block, or no two methods, are left.
    """
    chosen = select(frame, selection)
    cells = chosen.groupby([*AXES, "method"], sort=True)["score"]
    sizes = cells.size()
    scores = cells.mean().where(cells.count() == sizes)
    wide = scores.unstack("method")
    wide = wide[order_methods(wide.columns)]
    kept, notes = _without_gaps(wide, selection)
    metrics = chosen.drop_duplicates(["dataset", "metric"]).set_index("dataset")["metric"]
    used = sizes.unstack("method").loc[kept.index, kept.columns].to_numpy()
    if used.min() != used.max():
        notes.append(f"Values are means of {int(used.min())} to {int(used.max())} seeds.")
    blocks = kept.groupby(level=list(selection.by), sort=False).mean()
    return Blocks(
        blocks,
        tuple(str(name) for name in blocks.index.get_level_values("dataset")),
        " x ".join(AXIS_WORDS[name] for name in AXES if name in selection.by),
        _metrics_told(metrics.loc[metrics.index.isin(kept.index.get_level_values("dataset"))]),
        (int(used.min()), int(used.max())),
        tuple(notes),
    )


def blocks_from(
    table: pd.DataFrame,
    *,
    higher_is_better: bool | Sequence[bool] = True,
    datasets: Sequence[str] | None = None,
    told: str = "block",
    by_metric: str = "score",
) -> Blocks:
    """Blocks of a table made elsewhere, such as printed numbers: rows are blocks, columns methods.

    Args:
        table: finite values.
        higher_is_better: for all rows, or one of each.
        datasets: the data set of each row; None: each row its own.
        told: what a row is, in words.
        by_metric: what was measured, in words.

    Raises:
        UserError: fewer than two methods, no row, or a value that is not finite.
    """
    if table.shape[1] < 2 or table.empty:
        raise UserError(f"a ranking needs two methods or more and a block; got a table of {table.shape}.")
    values = table.to_numpy(np.float64)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise UserError(f"no finite value of '{table.columns[column]}' in block '{table.index[row]}'.")
    sign = np.where(np.broadcast_to(np.asarray(higher_is_better), len(table)), 1.0, -1.0)
    scores = pd.DataFrame(values * sign[:, None], index=table.index, columns=table.columns)
    own = tuple(str(name) for name in (table.index if datasets is None else datasets))
    return Blocks(scores, own, told, by_metric)


def _without_gaps(wide: pd.DataFrame, selection: Selection) -> tuple[pd.DataFrame, list[str]]:
    """Cells x methods without missing values, and sentences on what was left out."""
    gaps = wide.isna()
    if not gaps.to_numpy().any():
        return wide, []
    lacking = [str(name) for name in wide.columns[gaps.any()]]
    if selection.missing == "drop_methods":
        kept = wide.loc[:, ~gaps.any()]
        told = [f"Left out for lack of results in some cells: {some(lacking, 20)}."]
        if kept.shape[1] < 2:
            raise UserError(
                "fewer than two methods have results in every cell. Drop cells instead (missing: drop_blocks), "
                "choose methods or finish the grid."
            )
        return kept, told
    kept = wide[~gaps.any(axis=1)]
    if kept.empty:
        raise UserError(
            f"there is no cell in which all methods have results; lacking: {some(lacking, 20)}. Drop methods instead "
            "(missing: drop_methods), choose methods or finish the grid."
        )
    n_lost = len(wide) - len(kept)
    return kept, [f"{n_lost} of {len(wide)} cells are left out, where there is no result of: {some(lacking, 20)}."]


def _metrics_told(metrics: "pd.Series[str]") -> str:
    """`acc`, or `acc (digits), mae (synthetic)`."""
    names = metrics.unique()
    if len(names) == 1:
        return str(names[0])
    return some((f"{name} ({some(sorted(metrics.index[metrics == name]), 3)})" for name in names), 8)


# ---- Friedman ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Friedman:
    """Whether any methods differ at all.

    `chi2` with its p value has `df1` degrees of freedom; `f`, Iman and Davenport's correction of it, has (`df1`,
    `df2`). Where all blocks agree `f` is infinite, and `p_f` is instead the exact chance that they agree if every
    order is equally likely. All are NaN where nothing can be tested: one block, or no method ever differs.
    """

    chi2: float
    p_chi2: float
    f: float
    p_f: float
    df1: int
    df2: int
    ties_corrected: bool


def friedman(ranks: Floats, *, correct_ties: bool = True) -> Friedman:
    """Friedman's test with Iman and Davenport's correction.

    Demšar (2006), section 3.2.2. The correction for ties (as in SciPy) divides chi2 by 1 - sum(t^3 - t) / (N k
    (k^2 - 1)); Demšar's formula has none.

    Args:
        ranks: (N, k) of N blocks and k methods.
        correct_ties: False gives Demšar's formula as printed.
    """
    from scipy.stats import chi2 as chi2_distribution
    from scipy.stats import f as f_distribution

    n, k = ranks.shape
    df1, df2 = k - 1, (k - 1) * (n - 1)
    nothing = Friedman(math.nan, math.nan, math.nan, math.nan, df1, df2, correct_ties)
    ties = sum(_tie_sizes(row) for row in ranks)
    free = 1 - ties / (n * k * (k**2 - 1))
    if n < 2 or free < 1e-12:
        return nothing
    mean = ranks.mean(0)
    chi2 = 12 * n / (k * (k + 1)) * float((mean**2).sum() - k * (k + 1) ** 2 / 4)
    chi2 = max(chi2 / (free if correct_ties else 1.0), 0.0)
    p_chi2 = float(chi2_distribution.sf(chi2, df1))
    rest = n * (k - 1) - chi2
    if rest < 1e-9 * n * k:
        return Friedman(chi2, p_chi2, math.inf, _all_agree_by_chance(ranks), df1, df2, correct_ties)
    f = (n - 1) * chi2 / rest
    return Friedman(chi2, p_chi2, f, float(f_distribution.sf(f, df1, df2)), df1, df2, correct_ties)


def _tie_sizes(row: Floats) -> int:
    """Sum of t^3 - t over the groups of t equal ranks."""
    counts = np.unique(row, return_counts=True)[1]
    return int((counts**3 - counts).sum())


def _all_agree_by_chance(ranks: Floats) -> float:
    """The chance that N blocks agree in a given pattern of ties when each order of it is equally likely."""
    counts = np.unique(ranks[0], return_counts=True)[1]
    orders = math.factorial(ranks.shape[1]) / math.prod(math.factorial(int(t)) for t in counts)
    return float(orders ** (1 - len(ranks)))


def critical_difference(k: int, n: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks, Demšar (2006), Equation in section 3.2.2."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)
    return q * math.sqrt(k * (k + 1) / (6 * n))


# ---- pairs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ranking:
    """Mean ranks, whether methods differ, and which pairs do.

    Attributes:
        blocks: what was ranked.
        test: the post-hoc test, a key of `TESTS`; for two methods always `wilcoxon-holm`.
        alpha: level of all tests.
        omnibus: which of Friedman's two p values decides whether pairs are looked at, `f` or `chi2`.
        mean_ranks: best first.
        friedman: None for two methods, whose signed-rank test is the only test.
        p: adjusted p values of pairs (k, k), in the order of `mean_ranks`; NaN where undefined.
        raw_p: before the adjustment; of Nemenyi's test, whose p values are adjusted by nature, the same.
        least_p: the smallest adjusted p value that so many blocks can give, (k, k).
        cd: Nemenyi's critical difference; None for the other tests.
    """

    blocks: Blocks
    test: Test
    alpha: float
    omnibus: Omnibus
    mean_ranks: "pd.Series[float]"
    friedman: Friedman | None
    p: pd.DataFrame
    raw_p: pd.DataFrame
    least_p: pd.DataFrame
    cd: float | None

    @property
    def methods(self) -> list[str]:
        """Best mean rank first."""
        return [str(name) for name in self.mean_ranks.index]

    @property
    def p_omnibus(self) -> float:
        if self.friedman is None:
            return float(_upper(self.p)[0])
        return self.friedman.p_f if self.omnibus == "f" else self.friedman.p_chi2

    @property
    def any_difference(self) -> bool:
        """Whether Friedman's test rejects that all methods are equal: only then are pairs looked at."""
        return self.p_omnibus < self.alpha

    @property
    def testable(self) -> pd.DataFrame:
        """(k, k): whether these blocks could show a difference of the pair at all, were it as clear as can be."""
        return (self.least_p < self.alpha) & self.p.notna()

    @property
    def different(self) -> pd.DataFrame:
        """(k, k): pairs whose difference is shown."""
        return (self.p < self.alpha) & self.testable & self.any_difference

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The bars of a critical-difference diagram: largest sets of methods of which no two are shown to differ."""
        return tuple(_cliques(~self.different.to_numpy(), self.methods))

    def pairs(self) -> pd.DataFrame:
        """One row a pair, the better mean rank first.

        Columns: `better`, `worse`, `rank_gap`, `p_raw`, `p` (adjusted), `least_p`, `conclusion`: `different`,
        `no difference shown`, or `not testable` where so few blocks could not have shown any.
        """
        at = list(combinations(range(len(self.methods)), 2))
        better, worse = ([self.methods[pair[side]] for pair in at] for side in (0, 1))
        ranks = self.mean_ranks.to_numpy(np.float64)
        table = pd.DataFrame({"better": better, "worse": worse, "rank_gap": [ranks[j] - ranks[i] for i, j in at]})
        for name, square in (("p_raw", self.raw_p), ("p", self.p), ("least_p", self.least_p)):
            table[name] = _upper(square)
        conclusion = np.where(_upper(self.different) > 0, "different", "no difference shown")
        return table.assign(conclusion=np.where(_upper(self.testable) > 0, conclusion, "not testable"))

    @property
    def notes(self) -> list[str]:
        """What was tested, how, on how many blocks, and what the outcome cannot say, in plain sentences."""
        return [
            *_what_was_ranked(self.blocks),
            _omnibus_told(self),
            *_pairs_told(self),
            *_dependence_told(self),
            *self.blocks.notes,
        ]


def compare(
    blocks: Blocks,
    test: Test = "nemenyi",
    *,
    alpha: float = 0.05,
    omnibus: Omnibus = "f",
    correct_ties: bool = True,
) -> Ranking:
    """Mean ranks, Friedman's test and a post-hoc test of all pairs. Two methods: Wilcoxon's test, whatever `test`.

    Args:
        blocks: from `make_blocks` or `blocks_from`.
        test: a key of `TESTS`.
        alpha: level of all tests.
        omnibus: what decides whether pairs are looked at: `f`, Iman and Davenport's F, as Demšar recommends; `chi2`
            is more cautious with few blocks.
        correct_ties: False gives Demšar's Friedman formula as printed.

    Raises:
        UserError: no such test, or alpha outside (0, 1).
    """
    if test not in TESTS:
        raise UserError(f"test must be one of {', '.join(TESTS)}, got '{test}'.{did_you_mean(test, list(TESTS))}")
    if not 0 < alpha < 1:
        raise UserError(f"alpha must lie between 0 and 1, got {alpha}.")
    if blocks.k == 2:
        test = "wilcoxon-holm"
    ranks = pd.DataFrame(blocks.ranks, columns=blocks.methods)
    mean_ranks = ranks.mean().sort_values(kind="stable")
    ordered = ranks[mean_ranks.index]
    raw, p, least = _TESTS[test](ordered, blocks.scores[mean_ranks.index])
    names = list(mean_ranks.index)
    return Ranking(
        blocks=blocks,
        test=test,
        alpha=alpha,
        omnibus=omnibus,
        mean_ranks=mean_ranks,
        friedman=friedman(blocks.ranks, correct_ties=correct_ties) if blocks.k > 2 else None,
        p=_square(p, names),
        raw_p=_square(raw, names),
        least_p=_square(least, names),
        cd=critical_difference(blocks.k, blocks.n, alpha) if test == "nemenyi" else None,
    )


PValues = tuple[Floats, Floats, Floats]
"""Raw, adjusted and least attainable p values of the pairs in the order of `itertools.combinations`."""


def _square(pairs: Floats, methods: list[str]) -> pd.DataFrame:
    """Pair values as a symmetric frame with ones on the diagonal."""
    k = len(methods)
    square = np.ones((k, k))
    upper = np.triu_indices(k, 1)
    square[upper] = pairs
    square.T[upper] = pairs
    return pd.DataFrame(square, index=methods, columns=methods)


def _upper(square: pd.DataFrame) -> Floats:
    values: Floats = square.to_numpy(np.float64)[np.triu_indices(len(square), 1)]
    return values


def _nemenyi(ranks: pd.DataFrame, scores: pd.DataFrame) -> PValues:
    """Nemenyi's test; the clearest pair is first and last in every block, a gap of k - 1 mean ranks."""
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy.stats import studentized_range

    n, k = ranks.shape
    p = _upper(posthoc_nemenyi_friedman(ranks))
    widest = (k - 1) / math.sqrt(k * (k + 1) / (6 * n)) * math.sqrt(2)
    return p, p, np.full(len(p), float(studentized_range.sf(widest, k, np.inf)))


def _conover(ranks: pd.DataFrame, scores: pd.DataFrame) -> PValues:
    """Conover's test on rank sums.

    Where all blocks agree its statistic is infinite however few they are; the p value of every pair that differs
    is then the exact chance of such agreement.
    """
    from scikit_posthocs import posthoc_conover_friedman

    values = ranks.to_numpy(np.float64)
    n_pairs = ranks.shape[1] * (ranks.shape[1] - 1) // 2
    test = friedman(values)
    if math.isnan(test.f):
        return np.full(n_pairs, np.nan), np.full(n_pairs, np.nan), np.ones(n_pairs)
    if math.isinf(test.f):
        apart = np.array([values[0, i] != values[0, j] for i, j in combinations(range(ranks.shape[1]), 2)])
        raw = np.where(apart, test.p_f, 1.0)
        return raw, holm(raw), np.full(n_pairs, min(test.p_f * n_pairs, 1.0))
    raw = _upper(posthoc_conover_friedman(ranks))
    return raw, holm(raw), np.zeros(n_pairs)


def _wilcoxon(ranks: pd.DataFrame, scores: pd.DataFrame) -> PValues:
    """Wilcoxon's signed-rank test of every pair, blocks without a difference left out (Wilcoxon's own way).

    With m blocks that differ, no two-sided p value is below 2^(1 - m), and Holm multiplies the smallest by the
    number of pairs.
    """
    values = scores.to_numpy(np.float64)
    found = [signed_rank(values[:, i] - values[:, j]) for i, j in combinations(range(values.shape[1]), 2)]
    raw = np.array([p for p, _ in found])
    m = np.array([m for _, m in found])
    # Any pair could be the one with the smallest p value only if some pair can pass Holm's first step.
    first_step = float(2.0 ** (1 - m.max())) * len(raw)
    least = np.maximum(2.0 ** (1.0 - m), first_step)
    return raw, holm(raw), np.minimum(least, 1.0)


_TESTS: Mapping[str, Any] = {"nemenyi": _nemenyi, "conover-holm": _conover, "wilcoxon-holm": _wilcoxon}


def signed_rank(difference: Floats) -> tuple[float, int]:
    """Two-sided p value of Wilcoxon's signed-rank test, zeros left out, and how many differences are not zero.

    As SciPy: exact up to 50 differences without ties and zeros, else by the normal approximation; but always exact
    up to `EXACT_WITH_TIES` differences.
    """
    from scipy.stats import PermutationMethod, wilcoxon

    steps = np.round(difference / TIE)
    apart = steps[steps != 0]
    m = len(apart)
    if m == 0:
        return 1.0, 0
    if m > EXACT_WITH_TIES:
        return float(wilcoxon(steps).pvalue), m
    if len(np.unique(np.abs(apart))) == m:
        return float(wilcoxon(apart, method="exact").pvalue), m
    return float(wilcoxon(apart, method=PermutationMethod(n_resamples=2**m)).pvalue), m


def holm(p: Floats) -> Floats:
    """Holm's step-down adjustment of p values, which keeps the chance of any false difference below alpha."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def _cliques(joined: NDArray[np.bool_], names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Maximal sets of two or more, all joined with each other, in order of their first members (Bron-Kerbosch)."""
    neighbours = [set(np.flatnonzero(row).tolist()) - {i} for i, row in enumerate(joined)]
    found: list[tuple[int, ...]] = []

    def grow(chosen: set[int], able: set[int], seen: set[int]) -> None:
        if not able and not seen:
            found.append(tuple(sorted(chosen)))
            return
        pivot = max(able | seen, key=lambda node: (len(able & neighbours[node]), -node))
        for node in sorted(able - neighbours[pivot]):
            grow(chosen | {node}, able & neighbours[node], seen & neighbours[node])
            able = able - {node}
            seen = seen | {node}

    grow(set(), set(range(len(names))), set())
    for clique in sorted(found):
        if len(clique) > 1:
            yield tuple(names[i] for i in clique)


# ---- in words ---------------------------------------------------------------------------------------------


def p_told(p: float) -> str:
    """`p = 0.024`, `p < 0.0001`, `p undefined`."""
    if math.isnan(p):
        return "p undefined"
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def _what_was_ranked(blocks: Blocks) -> Iterator[str]:
    low, high = blocks.seeds
    seeds = "" if high == 0 else f", {low} seeds averaged first" if low == high else ", seeds averaged first"
    seeds = ", one seed" if (low, high) == (1, 1) else seeds
    own = f" from {blocks.n_datasets} data sets" if blocks.n_datasets != blocks.n else ""
    own = " from one data set" if blocks.n_datasets == 1 and blocks.n > 1 else own
    yield (
        f"Mean ranks (1 = best) of {blocks.k} methods by {blocks.by_metric}, over N = {blocks.n} "
        f"{'block' if blocks.n == 1 else 'blocks'} ({blocks.told}){own}{seeds}."
    )


def _omnibus_told(ranking: Ranking) -> str:
    test, n = ranking.friedman, ranking.blocks.n
    if test is None:
        return "Two methods: Wilcoxon's signed-rank test alone."
    ties = "corrected for ties" if test.ties_corrected else "not corrected for ties"
    if math.isnan(test.chi2):
        reason = "there is one block" if n < 2 else "no method differs from another in any block"
        return f"Friedman's test: not testable, {reason}."
    first = f"Friedman's test ({ties}): chi2({test.df1}) = {test.chi2:.2f}, {p_told(test.p_chi2)}"
    if math.isinf(test.f):
        second = f"all blocks agree, so F is infinite; the chance of that without differences: {p_told(test.p_f)}"
    else:
        second = f"Iman-Davenport F({test.df1}, {test.df2}) = {test.f:.2f}, {p_told(test.p_f)}"
    by = "F" if ranking.omnibus == "f" else "chi2"
    if ranking.any_difference:
        return f"{first}; {second}. By {by}, the methods are not all equal at level {ranking.alpha:g}."
    return f"{first}; {second}. By {by}, no difference is shown at level {ranking.alpha:g}; pairs are not looked at."


def _pairs_told(ranking: Ranking) -> Iterator[str]:
    n_pairs = len(ranking.methods) * (len(ranking.methods) - 1) // 2
    cd = "" if ranking.cd is None else f" (critical difference {ranking.cd:.2f})"
    agree = ranking.friedman is not None and math.isinf(ranking.friedman.f) and ranking.test == "conover-holm"
    exact = "; all blocks agree, so p is the exact chance of that" if agree else ""
    over = f" over {n_pairs} pairs" if "holm" in ranking.test and n_pairs > 1 else ""
    name = TESTS[ranking.test] if n_pairs > 1 else TESTS["wilcoxon-holm"].removesuffix(", Holm's correction")
    yield f"Bars join methods not shown to differ at level {ranking.alpha:g} by {name}{over}{cd}{exact}."
    pairs = ranking.pairs()
    untestable = pairs[pairs["conclusion"] == "not testable"]
    if untestable.empty:
        return
    if ranking.friedman is not None and math.isnan(ranking.friedman.chi2):
        return  # said of Friedman's test already
    which = (
        "no pair is testable"
        if len(untestable) == n_pairs
        else f"{len(untestable)} of {n_pairs} pairs are not testable"
    )
    yield (
        f"{which[0].upper()}{which[1:]}: with N = {ranking.blocks.n} the smallest p value that could come out is "
        f"{untestable['least_p'].min():.2g}. Dashed bars hold such pairs and say nothing about equality."
    )


def _dependence_told(ranking: Ranking) -> Iterator[str]:
    """That blocks of one data set are not independent, and what one block a data set says."""
    blocks = ranking.blocks
    if blocks.n_datasets == blocks.n:
        return
    warning = "Blocks of one data set are not independent: read these p values as too small."
    if blocks.n_datasets == 1:
        yield f"{warning} All are of one data set, so nothing is said about others."
        return
    own = blocks.one_per_dataset()
    if blocks.k == 2:
        p, least = signed_rank(-np.diff(own.scores.to_numpy(np.float64))[:, 0])[0], 2.0 ** (1 - own.n)
        result = p_told(p) if least < ranking.alpha else f"not testable (no p value below {least:.2g})"
    else:
        test = friedman(own.ranks, correct_ties=ranking.friedman is None or ranking.friedman.ties_corrected)
        f = "F infinite, for all agree" if math.isinf(test.f) else f"F = {test.f:.2f}"
        result = f"Friedman's chi2 = {test.chi2:.2f}, {p_told(test.p_chi2)}; {f}, {p_told(test.p_f)}"
        result = "not testable" if math.isnan(test.chi2) else result
    yield f"{warning} With one block a data set (N = {own.n}, means): {result}."


def minimum_blocks(k: int, test: Test = "wilcoxon-holm", alpha: float = 0.05) -> int:
    """The fewest independent blocks with which a test of k methods separates a pair if all blocks agree."""
    pairs = k * (k - 1) // 2
    if test == "nemenyi" and k > 2:
        return next(n for n in range(2, 200) if critical_difference(k, n, alpha) < k - 1)
    if test == "conover-holm" and k > 2:
        return next(n for n in range(2, 200) if float(math.factorial(k)) ** (1 - n) * pairs < alpha)
    return next(n for n in range(2, 200) if 2.0 ** (1 - n) * pairs < alpha)
