"""Which methods differ: critical-difference diagrams, p values, and how probable an improvement is."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from analysis.files import frame_key
from analysis.ranking import AXES, Blocks, Ranking, Selection, Test, compare, make_blocks
from analysis.ranking_figures import draw_ranking
from analysis.resampling import (
    DATASETS_TRIED,
    SEEDS_TRIED,
    Needed,
    datasets_needed,
    improvement,
    rank_intervals,
    seeds_needed,
)
from analysis.results import CONSTANT, order_methods, some
from analysis.sections.base import (
    Block,
    Grid,
    Head,
    Inputs,
    Picture,
    Say,
    Section,
    Value,
    Views,
    attempt,
    grid_of,
    number,
    p_value,
    picture,
)
from datasets.errors import UserError

TEST_WORDS: dict[Test, str] = {
    "nemenyi": "Nemenyi", "conover-holm": "Conover, Holm", "wilcoxon-holm": "Wilcoxon, Holm",
}  # fmt: skip
MOST_PAIRS = 66
"""Rows of a table of pairs on the page, those of twelve methods; a longer one is a file."""
N_RESAMPLES, N_DRAWS = 1000, 500
MOST_DRAWN = 5_000_000
"""Means drawn at once for the seeds needed; of very many cells fewer draws are made."""
Shown = Mapping[str, Callable[[Any], Value]]


def ranking_section(inputs: Inputs) -> Section:
    """Primary metrics over data sets and over their parts, then each primary metric where there are several."""
    frame = inputs.frame
    frame = frame[frame["primary"] & (frame["checkpoint"] == inputs.checkpoint) & (frame["corruption"] == "")]
    if frame.loc[frame["method"] != CONSTANT, "method"].nunique() < 2:
        text = "A ranking needs clean results of two methods or more besides the constant predictor."
        return Section("ranking", "Ranking of the methods", (Say(text, "problem"),))
    blocks: list[Block] = [
        Say(
            "Mean ranks (1 = best) over blocks; a bar joins methods that are not shown to differ. Clean inputs alone; "
            "the constant predictor is left out. Test after Demšar (2006)."
        )
    ]
    inputs = replace(
        inputs, frame=frame
    )  # every step checks the frame it is given, so it is given no more than it reads
    primary = sorted(frame["metric"].unique())
    for metric in [None, *(primary if len(primary) > 1 else [])]:
        blocks += attempt("", partial(_by_metric, inputs, metric))
    blocks += attempt("Seeds and data sets needed", lambda: _needed(inputs))
    blocks += attempt("Probability of improvement", lambda: _improvement(inputs))
    return Section("ranking", "Ranking of the methods", tuple(blocks))


def _by_metric(inputs: Inputs, metric: str | None) -> Iterator[Block]:
    """Over data sets, where there are several, then over data sets x modality subsets x label ratios."""
    told = f"by {metric}" if metric else "by the primary metric of each data set"
    for by, words in (
        (("dataset",), "data sets, one block each"),
        (("dataset", "modalities", "label_ratio"), "data sets x modality subsets x label ratios, dependent blocks"),
    ):
        yield Head(f"Ranks {told}, over {words}")
        yield from attempt(f"Ranks {told}, over {words}", partial(_ranks, inputs, metric, by))


def _ranks(inputs: Inputs, metric: str | None, by: tuple[str, ...]) -> Iterator[Block]:
    """The diagram of each post-hoc test, then the p values of all tests side by side."""
    selection, left_out = _selection(inputs, metric, by)
    blocks = make_blocks(inputs.frame, selection)
    blocks = replace(blocks, notes=(*blocks.notes, *left_out))
    if blocks.n == 1:
        yield Say(f"Not testable: there is one block ({blocks.told}).", "note")
        return
    tests: tuple[Test, ...] = ("wilcoxon-holm",) if blocks.k == 2 else tuple(TEST_WORDS)
    rankings = {test: compare(blocks, test) for test in tests}
    name = "-".join(["ranking", metric or "primary", "datasets" if len(by) == 1 else "cells"])
    pictures = {test: _diagram(inputs, ranking, f"{name}-{test}") for test, ranking in rankings.items()}
    if len(tests) == 1:
        yield pictures[tests[0]]
    else:
        views = ((TEST_WORDS[test], (shown,)) for test, shown in pictures.items())
        yield Views(f"mean ranks by {blocks.by_metric}, over {blocks.told}, by post-hoc test", tuple(views))
    yield _pairs(blocks, rankings)


def _selection(
    inputs: Inputs, metric: str | None = None, by: tuple[str, ...] = AXES[:3]
) -> tuple[Selection, list[str]]:
    """The methods that have results on every data set, and a sentence on the others.

    A method that cannot be run on some data set would otherwise leave nothing of it to compare the others by.
    """
    frame = inputs.frame if metric is None else inputs.frame[inputs.frame["metric"] == metric]
    frame = frame[frame["method"] != CONSTANT]
    n_sets = frame.groupby("method")["dataset"].nunique()
    whole = order_methods(n_sets.index[n_sets == frame["dataset"].nunique()])
    if len(whole) < 2 or len(whole) == len(n_sets):
        return Selection(inputs.checkpoint, metric, by=by), []
    others = order_methods(set(n_sets.index) - set(whole))
    told = f"Left out for having no result on some data set: {some(others, 20)}."
    return Selection(inputs.checkpoint, metric, tuple(whole), by=by), [told]


def _diagram(inputs: Inputs, ranking: Ranking, name: str) -> Picture:
    blocks = ranking.blocks
    key = f"{frame_key(blocks.scores.reset_index(drop=True))}|{ranking.notes}|{sorted(inputs.styles.items())}"
    title = f"Mean ranks by {blocks.by_metric}"
    return picture(
        inputs,
        key,
        lambda: draw_ranking(ranking, inputs.styles, title=title),
        name=name,
        caption=f"{title}, over {blocks.told}: {TEST_WORDS[ranking.test]} (Robult, Figure 5)",
        alt=f"Critical-difference diagram. Mean ranks: {_told(ranking)}. {' '.join(ranking.notes)}",
    )


def _told(ranking: Ranking) -> str:
    return ", ".join(f"{name} {rank:.2f}" for name, rank in ranking.mean_ranks.items())


def _pairs(blocks: Blocks, rankings: Mapping[Test, Ranking]) -> Grid:
    """p values of every pair by each test."""
    first = next(iter(rankings.values()))
    table = first.pairs()
    columns = {"better": "better mean rank", "worse": "worse mean rank", "rank_gap": "gap"}
    shown = {}
    for test, ranking in rankings.items():
        other = ranking.pairs()
        table[f"p {test}"], table[f"says {test}"] = other["p"], other["conclusion"]
        columns |= {f"p {test}": f"p ({TEST_WORDS[test]})", f"says {test}": f"conclusion ({TEST_WORDS[test]})"}
        shown[f"p {test}"] = p_value
    caption = f"Pairs of methods by {blocks.by_metric}, over {blocks.n} blocks ({blocks.told})"
    grid = grid_of(table, caption, columns=columns, n_stubs=2, digits=2, shown=shown, notes=first.notes)
    return replace(grid, shown=len(table) <= MOST_PAIRS)


# ---- how much more would be needed ------------------------------------------------------------------------


def _needed(inputs: Inputs) -> Iterator[Block]:
    """How many seeds would repeat the ranking, and how many data sets would separate each pair."""
    selection, _ = _selection(inputs)
    yield Head("How many more seeds or data sets a stable ranking would need")
    for make in (_seeds_needed, _datasets_needed):
        try:
            yield make(inputs, selection)
        except UserError as error:  # one seed, or one data set: nothing is known of others
            yield Say(str(error), "note")


def _seeds_needed(inputs: Inputs, selection: Selection) -> Grid:
    n_draws = max(50, min(N_DRAWS, MOST_DRAWN // make_blocks(inputs.frame, selection).scores.size))
    table, notes = _cached(
        inputs, f"seeds needed|{n_draws}", lambda: seeds_needed(inputs.frame, selection, n_resamples=n_draws)
    )
    columns = {"claim": "claim", "now": "seeds now", "share_now": "share of runs in which it would hold now",
               "needed": "seeds needed"}  # fmt: skip
    caption = "Seeds with which another run of the grid would rank methods the same"
    shown: Shown = {"needed": partial(_need, most=SEEDS_TRIED[-1]), "now": _whole}
    return grid_of(table, caption, columns=columns, digits=2, notes=notes, shown=shown)


def _datasets_needed(inputs: Inputs, selection: Selection) -> Grid:
    table, notes = _cached(
        inputs,
        f"data sets needed|{N_DRAWS}",
        lambda: datasets_needed(make_blocks(inputs.frame, selection), n_resamples=N_DRAWS),
    )
    columns = {"better": "better mean rank", "worse": "worse mean rank", "rank_gap": "gap", "now": "data sets now",
               "power_now": "power now", "needed": "data sets needed"}  # fmt: skip
    caption = "Data sets with which Nemenyi's test would separate each pair"
    shown: Shown = {"needed": partial(_need, most=DATASETS_TRIED[-1]), "now": _whole}
    grid = grid_of(table, caption, columns=columns, n_stubs=2, digits=2, notes=notes, shown=shown)
    return replace(grid, shown=len(table) <= MOST_PAIRS)


def _cached(inputs: Inputs, what: str, make: Callable[[], Needed]) -> tuple[pd.DataFrame, list[str]]:
    """The table of an estimate and what it assumes, estimated only where it was not before.

    Raises:
        UserError: it cannot be estimated; that is kept as well.
    """

    def estimated() -> pd.DataFrame:
        try:
            found = make()
        except UserError as error:
            return pd.DataFrame({"problem": [str(error)]})
        return found.table.astype({"needed": float}).assign(assumptions="\n".join(found.assumptions))

    table = inputs.cache.frame(f"{what}|{_results_key(inputs)}", estimated)
    if "problem" in table:
        raise UserError(str(table["problem"].iloc[0]))
    return table, str(table["assumptions"].iloc[0]).split("\n")


def _results_key(inputs: Inputs) -> str:
    """Of the values that are ranked, whatever the runs they are from."""
    own = inputs.frame
    return frame_key(own.sort_values([*own.columns[:8]]).drop(columns=["training_id", "run_id"]))


def _whole(n: float) -> Value:
    return number(int(n))


def _need(n: float, most: int) -> Value:
    """A number, or that it is more than was tried."""
    return Value(f"over {most}") if pd.isna(n) else number(int(n))


# ---- improvement ------------------------------------------------------------------------------------------


def _improvement(inputs: Inputs) -> Iterator[Block]:
    selection, left_out = _selection(inputs)
    key = _results_key(inputs)
    yield Head("How probable an improvement is")
    frame = inputs.cache.frame(
        f"improvement|{N_RESAMPLES}|{key}", lambda: improvement(inputs.frame, selection, n_resamples=N_RESAMPLES)
    )
    methods = list(dict.fromkeys(frame["method"]))
    pairs = {(row.method, row.than): row for row in frame.itertuples()}
    rows = tuple(
        (Value(one), *(_chance(pairs.get((one, other))) for other in methods)) for one in methods
    )  # fmt: skip
    yield Grid(
        "Probability that a run of the row's method beats one of the column's, with its 95% interval over seeds",
        (("method",), *((name,) for name in methods)), 1, rows,
        (*left_out, "Agarwal et al. (2021): share of pairs of runs in a cell, then the mean over "
         f"{int(frame['n_cells'].iloc[0])} cells of clean inputs; 0.5 is a draw. Nothing is said about the size of a "
         f"gain. {N_RESAMPLES} resamples of the seeds; with few seeds the intervals are too short.",),
    )  # fmt: skip
    ranks = inputs.cache.frame(
        f"rank intervals|{N_RESAMPLES}|{key}",
        lambda: rank_intervals(inputs.frame, selection, n_resamples=N_RESAMPLES),
    )
    columns = {"method": "method", "mean_rank": "mean rank", "low": "2.5%", "high": "97.5%",
               "share_best": "share of resamples in which it is best"}  # fmt: skip
    yield grid_of(ranks, "How far mean ranks repeat over seeds", columns=columns, digits=2,
                  notes=["Seeds of every cell are drawn anew; data sets stay the same."])  # fmt: skip


def _chance(row: object) -> Value:
    if row is None:
        return Value("")
    probability, low, high = (float(getattr(row, name)) for name in ("probability", "low", "high"))
    return Value(f"{probability:.2f} [{low:.2f}, {high:.2f}]", probability)
