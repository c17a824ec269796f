"""How far a ranking would repeat: intervals over seeds, probability of improvement, seeds and data sets needed.

Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021, for stratified
bootstrap intervals and the probability of improvement; a task of theirs is a cell here: one data set, modality
subset and label ratio. All of it is seeded, so the same results give the same numbers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.ranking import AXES, Blocks, Selection, critical_difference, ranks_of, select
from analysis.results import KEYS, at_checkpoint, order_methods, some
from datasets.errors import UserError

Floats = NDArray[np.float64]

N_RESAMPLES = 2000
CHUNK = 4_000_000
"""Numbers drawn at once, so that a large grid does not fill the memory."""


# ---- intervals over seeds ---------------------------------------------------------------------------------


def seed_intervals(
    frame: pd.DataFrame, checkpoint: str, *, confidence: float = 0.95, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Percentile bootstrap intervals of the mean over seeds, for every cell, method and metric that has results.

    With few seeds such an interval is too short, for it cannot leave the range of the seeds: with 3 seeds a 95 %
    interval holds the true mean about 3 times in 4. One seed, or an undefined one, has no interval.

    Columns: those of `analysis.results.KEYS`, `mean`, `low`, `high`, `n_seeds`.

    Args:
        frame: results, see `analysis.results.check_frame`.
        checkpoint: `last` or `best`.
        confidence: share of resamples that an interval holds.
        n_resamples: bootstrap resamples.
        seed: of the resampling.

    Raises:
        UserError: the frame is bad, or a number is out of range.
    """
    _check(confidence, n_resamples)
    chosen = at_checkpoint(frame, checkpoint)
    chosen["value"] = chosen["value"].where(np.isfinite(chosen["value"]))
    chosen = chosen.sort_values([*KEYS, "seed"], kind="stable", ignore_index=True)
    groups = chosen.groupby(KEYS, sort=True)["value"]
    cells = groups.size().rename("n_seeds").reset_index()
    values, ends = chosen["value"].to_numpy(np.float64), np.cumsum(cells["n_seeds"].to_numpy())
    for name in ("mean", "low", "high"):
        cells[name] = np.nan
    rng = np.random.default_rng(seed)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    found = np.full((len(cells), 3), np.nan)
    for n in sorted(cells["n_seeds"].unique()):
        rows = np.flatnonzero(cells["n_seeds"] == n)
        own = values[ends[rows, None] - n + np.arange(n)]  # (G, n)
        found[rows, 0] = own.mean(1)
        if n == 1:
            continue
        # The same seeds are drawn for all cells, as methods share them.
        weights = _draws(rng, n_resamples, int(n))
        for part in np.array_split(np.arange(len(rows)), math.ceil(len(rows) * n_resamples / CHUNK)):
            found[rows[part], 1:] = np.quantile(own[part] @ weights.T, tails, axis=1).T
    cells[["mean", "low", "high"]] = found
    return cells[[*KEYS, "mean", "low", "high", "n_seeds"]]


def _check(confidence: float, n_resamples: int) -> None:
    if not 0 < confidence < 1:
        raise UserError(f"confidence must lie between 0 and 1, got {confidence}.")
    if n_resamples < 1:
        raise UserError(f"n_resamples must be 1 or more, got {n_resamples}.")


def _draws(rng: np.random.Generator, n_resamples: int, n: int) -> Floats:
    """Weights of n items in each resample with replacement, (B, n), each row summing to 1."""
    return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) / n


# ---- seeds of each cell -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SeedScores:
    """The seeds behind blocks. C cells of G blocks, k methods, S seeds at most.

    Attributes:
        values: (C, k, S), higher is better; NaN beyond a cell's seeds.
        n_seeds: (C, k).
        block: the block of each cell, (C,).
        methods: names of the k.
        datasets: the data set of each block, (G,).
    """

    values: Floats
    n_seeds: NDArray[np.int64]
    block: NDArray[np.int64]
    methods: list[str]
    datasets: list[str]

    def block_means(self, means: Floats) -> Floats:
        """(..., C, k) cell means -> (..., G, k) block means."""
        sums = np.zeros((*means.shape[:-2], len(self.datasets), means.shape[-1]))
        np.add.at(np.moveaxis(sums, -2, 0), self.block, np.moveaxis(means, -2, 0))
        return sums / np.bincount(self.block)[:, None]


def seed_scores(frame: pd.DataFrame, selection: Selection) -> SeedScores:
    """The seeds of every cell in which all methods have defined results; `selection.missing` is as in `make_blocks`.

    Raises:
        UserError: see `analysis.ranking.make_blocks`.
    """
    chosen = select(frame, selection)
    chosen = chosen.assign(place=chosen.groupby([*AXES, "method"]).cumcount())
    wide = chosen.pivot(index=[*AXES, "place"], columns="method", values="score")
    wide = wide[order_methods(wide.columns)]
    n_seeds = chosen.groupby([*AXES, "method"]).size().unstack("method")[wide.columns].fillna(0)
    bad = chosen[chosen["score"].isna()].groupby([*AXES, "method"]).size().unstack("method")
    lacking = (n_seeds == 0) | bad.reindex(index=n_seeds.index, columns=n_seeds.columns).notna()
    if selection.missing == "drop_methods":
        kept_methods, cells = [str(m) for m in wide.columns[~lacking.any()]], n_seeds.index
    else:
        kept_methods, cells = [str(m) for m in wide.columns], n_seeds.index[~lacking.any(axis=1)]
    if len(kept_methods) < 2 or len(cells) == 0:
        names = some(wide.columns[lacking.any()], 20)
        raise UserError(
            f"too few results to resample; lacking in some cells: {names}. Choose methods or finish the grid."
        )
    s = int(n_seeds.to_numpy().max())
    index = pd.MultiIndex.from_tuples([(*cell, place) for cell in cells for place in range(s)])
    values = wide[kept_methods].reindex(index).to_numpy(np.float64).reshape(len(cells), s, -1).transpose(0, 2, 1)
    facts = cells.to_frame(index=False)
    block = facts.groupby(list(selection.by), sort=False).ngroup().to_numpy().astype(np.int64)
    datasets = facts.drop_duplicates(list(selection.by))["dataset"].astype(str).tolist()
    return SeedScores(values, n_seeds.loc[cells, kept_methods].to_numpy(np.int64), block, kept_methods, datasets)


def rank_intervals(
    frame: pd.DataFrame,
    selection: Selection,
    *,
    confidence: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Bootstrap intervals of mean ranks over seeds, and how often each method has the best mean rank.

    In each resample every cell draws its seeds anew, the same for all methods where they have equally many (labels
    and batch order are theirs in common), and blocks are ranked again. Blocks stay as they are: the intervals are
    for these data sets, and say nothing about others.

    Columns: `method`, `mean_rank`, `low`, `high`, `share_best` (a tie shares), best mean rank first.

    Raises:
        UserError: see `analysis.ranking.make_blocks`.
    """
    _check(confidence, n_resamples)
    seeds = seed_scores(frame, selection)
    rng = np.random.default_rng(seed)
    resampled = np.concatenate([ranks_of(part).mean(-2) for part in _resampled_blocks(seeds, n_resamples, rng)])
    observed = ranks_of(seeds.block_means(np.nanmean(seeds.values, axis=2))).mean(0)
    best = resampled <= resampled.min(1, keepdims=True) + 1e-9
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    table = pd.DataFrame({
        "method": seeds.methods, "mean_rank": observed, "low": low, "high": high,
        "share_best": (best / best.sum(1, keepdims=True)).mean(0),
    })  # fmt: skip
    return table.sort_values("mean_rank", kind="stable", ignore_index=True)


def _resampled_blocks(seeds: SeedScores, n_resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Block means of resamples of the seeds, (B, G, k), some resamples at a time."""
    n_cells, k, s = seeds.values.shape
    shared = (seeds.n_seeds == seeds.n_seeds[:, :1]).all(1)
    values = np.nan_to_num(seeds.values)
    size = max(1, CHUNK // (n_cells * k * s))
    for start in range(0, n_resamples, size):
        b = min(size, n_resamples - start)
        weights = np.zeros((b, n_cells, k, s))
        for n in np.unique(seeds.n_seeds):
            own = shared & (seeds.n_seeds[:, 0] == n)
            weights[:, own, :, :n] = _draws(rng, b * int(own.sum()), int(n)).reshape(b, -1, 1, n)
            apart = ~shared[:, None] & (seeds.n_seeds == n)
            weights[:, apart, :n] = _draws(rng, b * int(apart.sum()), int(n)).reshape(b, -1, n)
        yield seeds.block_means((weights * values).sum(-1))


# ---- probability of improvement ---------------------------------------------------------------------------


def improvement(
    frame: pd.DataFrame,
    selection: Selection,
    *,
    confidence: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """How probable it is that a run of one method beats a run of another, for every ordered pair.

    Agarwal et al. (2021), section 4.3: in a cell the share of pairs of runs in which the first method's is better,
    a tie counting half; then the mean over cells. Intervals are percentiles of a stratified bootstrap: each cell's
    runs are drawn anew, separately for the two methods. The probability says nothing about the size of a gain.

    Columns: `method`, `than`, `probability`, `low`, `high`, `n_cells`.

    Raises:
        UserError: see `analysis.ranking.make_blocks`.
    """
    _check(confidence, n_resamples)
    seeds = seed_scores(frame, selection)
    n_cells, k, s = seeds.values.shape
    rng = np.random.default_rng(seed)
    pairs = list(combinations(range(k), 2))
    observed, resampled = np.zeros(len(pairs)), np.zeros((len(pairs), n_resamples))
    for values, counts in zip(seeds.values, seeds.n_seeds, strict=True):
        weights = np.zeros((k, n_resamples, s))
        for method, n in enumerate(counts):
            weights[method, :, :n] = _draws(rng, n_resamples, int(n))
        steps = np.round(np.nan_to_num(values) * 1e9)
        for at, (first, second) in enumerate(pairs):
            wins = (np.sign(steps[first][:, None] - steps[second]) + 1) / 2  # (S, S): 1, 1/2, 0
            observed[at] += wins[: counts[first], : counts[second]].mean() / n_cells
            resampled[at] += ((weights[first] @ wins) * weights[second]).sum(1) / n_cells
    ends = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    low, high = np.clip(ends, 0.0, 1.0)
    rows = []
    for at, (first, second) in enumerate(pairs):
        one, other = seeds.methods[first], seeds.methods[second]
        rows.append((one, other, observed[at], low[at], high[at], n_cells))
        rows.append((other, one, 1 - observed[at], 1 - high[at], 1 - low[at], n_cells))
    return pd.DataFrame(rows, columns=["method", "than", "probability", "low", "high", "n_cells"])


# ---- how much more would be needed ------------------------------------------------------------------------

DATASETS_TRIED = tuple(dict.fromkeys(round(2 * 1.12**i) for i in range(42)))
"""Numbers of data sets tried: 2 to about 200."""
SEEDS_TRIED = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100)


@dataclass(frozen=True, eq=False)
class Needed:
    """What a stable ranking would need, an estimate, with what it assumes.

    Attributes:
        table: one row a pair or a claim, see the function that made it.
        curve: for each number tried, the chance of each outcome.
        assumptions: in plain sentences, to be printed with the numbers.
    """

    table: pd.DataFrame
    curve: pd.DataFrame
    assumptions: tuple[str, ...]


def datasets_needed(
    blocks: Blocks, *, alpha: float = 0.05, power: float = 0.8, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Needed:
    """The number of data sets with which Nemenyi's test would separate each pair.

    Data sets are drawn with replacement from those that are there, each as one block, the mean of its blocks, so
    that blocks are independent; the power is the share of draws in which the pair's mean ranks are further apart
    than the critical difference, in the order seen.

    The table has `better`, `worse`, `rank_gap`, `now` (data sets), `power_now`, `needed` (missing where more than
    the most tried would be), and the curve `n`, `better`, `worse`, `power`.

    Raises:
        UserError: there is one data set (nothing is known about others), or a number is out of range.
    """
    _check(power, n_resamples)
    own = blocks.one_per_dataset()
    if own.n < 2:
        raise UserError("one data set tells nothing about how methods rank on others: add data sets.")
    ranks = own.ranks
    rng = np.random.default_rng(seed)
    order = np.argsort(ranks.mean(0), kind="stable")
    pairs = np.array(list(combinations(order, 2)))
    tried = sorted({*DATASETS_TRIED, own.n})
    powers = np.zeros((len(tried), len(pairs)))
    for at, n in enumerate(tried):
        drawn = rng.multinomial(n, np.full(own.n, 1 / own.n), size=n_resamples) / n @ ranks  # (B, k)
        gaps = drawn[:, pairs[:, 1]] - drawn[:, pairs[:, 0]]
        powers[at] = (gaps > critical_difference(own.k, n, alpha)).mean(0)
    mean = ranks.mean(0)
    named = [(own.methods[i], own.methods[j]) for i, j in pairs]
    rows = [
        (better, worse, mean[j] - mean[i], own.n, powers[tried.index(own.n), at], _first(tried, powers[:, at] >= power))
        for at, ((better, worse), (i, j)) in enumerate(zip(named, pairs, strict=True))
    ]
    table = pd.DataFrame(rows, columns=["better", "worse", "rank_gap", "now", "power_now", "needed"])
    curve = pd.DataFrame(
        [(n, *pair, powers[t, at]) for t, n in enumerate(tried) for at, pair in enumerate(named)],
        columns=["n", "better", "worse", "power"],
    )
    assumptions = (
        f"Further data sets are taken to be like the {own.n} there are, drawn from them with replacement; with so few "
        "this is a rough guess.",
        f"Needed: the fewest data sets, one block each, with which Nemenyi's test at level {alpha:g} separates the "
        f"pair in {power:.0%} of draws, and in all larger numbers tried (up to {tried[-1]}).",
    )
    return Needed(table.astype({"needed": "Int64"}), curve, assumptions)


def _first(tried: list[int], reached: NDArray[np.bool_]) -> int | None:
    """The first number from which on all are reached."""
    missed = np.flatnonzero(~reached)
    start = int(missed[-1]) + 1 if len(missed) else 0
    return tried[start] if start < len(tried) else None


def seeds_needed(
    frame: pd.DataFrame, selection: Selection, *, stable: float = 0.95, n_resamples: int = 500, seed: int = 0
) -> Needed:
    """The number of seeds a cell with which another try would give the same ranking on the same blocks.

    Each cell's mean over n seeds is drawn as normal around the mean seen, with the seeds' standard deviation (over
    the square root of n); blocks are ranked; a claim is stable at n when it holds in a share `stable` of draws.

    The table has `claim`, `now` (the fewest seeds of any cell), `share_now`, `needed` (missing where more than the
    most tried would be), and the curve `n`, `claim`, `share`. The claims: the method with the best mean rank stays
    best; each pair of neighbours keeps its order; the whole order stays.

    Raises:
        UserError: a cell has one seed, so that nothing is known of their spread; see also `make_blocks`.
    """
    _check(stable, n_resamples)
    seeds = seed_scores(frame, selection)
    if seeds.n_seeds.min() < 2:
        raise UserError("some cells have one seed, which tells nothing about their spread: add seeds to the grid.")
    mean = np.nanmean(seeds.values, axis=2)
    spread = np.nanstd(seeds.values, axis=2, ddof=1)
    order = np.argsort(ranks_of(seeds.block_means(mean)).mean(0), kind="stable")
    names = [seeds.methods[i] for i in order]
    claims = [
        f"{names[0]} is best",
        *(f"{a} before {b}" for a, b in pairwise(names)),
        "whole order",
    ]
    now = int(seeds.n_seeds.min())
    tried = sorted({*SEEDS_TRIED, now})
    rng = np.random.default_rng(seed)
    size = max(1, CHUNK // mean.size)
    shares = np.zeros((len(tried), len(claims)))
    for start in range(0, n_resamples, size):
        b = min(size, n_resamples - start)
        noise = spread * rng.standard_normal((b, *mean.shape))
        for at, n in enumerate(tried):  # the same noise for all n, so that the curve is smooth
            drawn = ranks_of(seeds.block_means(mean + noise / math.sqrt(n))).mean(-2)[:, order]
            shares[at] += _claims_held(drawn).sum(0) / n_resamples
    rows = [
        (claim, now, shares[tried.index(now), at], _first(tried, shares[:, at] >= stable))
        for at, claim in enumerate(claims)
    ]
    table = pd.DataFrame(rows, columns=["claim", "now", "share_now", "needed"]).astype({"needed": "Int64"})
    curve = pd.DataFrame(
        [(n, claim, shares[t, at]) for t, n in enumerate(tried) for at, claim in enumerate(claims)],
        columns=["n", "claim", "share"],
    )
    assumptions = (
        "The means seen are taken for the true ones, and seeds to vary normally about them with the standard deviation "
        f"seen (from {now} seeds, itself uncertain), each method by itself.",
        f"Needed: the fewest seeds with which the claim holds in {stable:.0%} of draws. Data sets stay the same: more "
        "seeds make a ranking repeat, they do not make it hold elsewhere.",
    )
    return Needed(table, curve, assumptions)


def _claims_held(drawn: Floats) -> NDArray[np.bool_]:
    """(B, k) mean ranks in the order seen -> (B, 1 + (k - 1) + 1): best stays, neighbours keep order, all do."""
    best = drawn[:, 0] <= drawn.min(1) + 1e-9
    steps = np.diff(drawn, axis=1) > -1e-9
    return np.column_stack([best, steps, steps.all(1)])
