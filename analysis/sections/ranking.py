"""Which methods differ: critical-difference diagrams, p values, and how probable an improvement is."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pandas as pd

from analysis.files import frame_key
from analysis.ranking import Blocks, Ranking, Selection, compare, make_blocks
from analysis.ranking_figures import draw_ranking
from analysis.resampling import improvement, rank_intervals
from analysis.results import CONSTANT
from analysis.sections.base import Block, Grid, Head, Inputs, Say, Section, Value, attempt, grid_of, p_value, picture

TESTS = ("nemenyi", "wilcoxon-holm")
TEST_WORDS = {"nemenyi": "Nemenyi", "wilcoxon-holm": "Wilcoxon, Holm", "conover-holm": "Conover, Holm"}
N_RESAMPLES = 1000


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
    blocks = make_blocks(inputs.frame, Selection(inputs.checkpoint, metric, by=by))
    ranking = compare(blocks)
    name = "-".join(["ranking", metric or "primary", "datasets" if len(by) == 1 else "cells"])
    key = f"{frame_key(blocks.scores.reset_index(drop=True))}|{ranking.notes}|{sorted(inputs.styles.items())}"
    title = f"Mean ranks by {blocks.by_metric}"
    yield picture(
        inputs,
        key,
        lambda: draw_ranking(ranking, inputs.styles, title=title),
        name=name,
        caption=f"{title}, over {blocks.told}",
        alt=f"Critical-difference diagram. Mean ranks: {_told(ranking)}. {' '.join(ranking.notes)}",
    )
    yield _pairs(blocks, ranking)


def _told(ranking: Ranking) -> str:
    return ", ".join(f"{name} {rank:.2f}" for name, rank in ranking.mean_ranks.items())


def _pairs(blocks: Blocks, ranking: Ranking) -> Grid:
    """p values of every pair by each test."""
    table = ranking.pairs()
    columns = {"better": "better mean rank", "worse": "worse mean rank", "rank_gap": "gap"}
    shown = {}
    tests = TESTS if ranking.test != "wilcoxon-holm" else ("wilcoxon-holm",)
    for test in tests:
        other = compare(blocks, test).pairs()  # type: ignore[arg-type]
        conclusions = pd.Series(other["conclusion"])
        table[f"p {test}"], table[f"says {test}"] = other["p"], conclusions
        columns |= {f"p {test}": f"p ({TEST_WORDS[test]})", f"says {test}": f"conclusion ({TEST_WORDS[test]})"}
        shown[f"p {test}"] = p_value
    caption = f"Pairs of methods by {blocks.by_metric}, over {blocks.n} blocks ({blocks.told})"
    return grid_of(table, caption, columns=columns, n_stubs=2, digits=2, shown=shown, notes=ranking.notes)


def _improvement(inputs: Inputs) -> Iterator[Block]:
    selection = Selection(inputs.checkpoint)
    own = inputs.frame
    key = frame_key(own.sort_values([*own.columns[:8]]).drop(columns=["training_id", "run_id"]))
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
        ("Agarwal et al. (2021): share of pairs of runs in a cell, then the mean over "
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
