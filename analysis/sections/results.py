"""Mean and spread of every cell: a figure and a table per data set and metric."""

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pandas as pd

from analysis.figures import draw, panels
from analysis.files import frame_key
from analysis.results import TIE
from analysis.sections.base import Block, Grid, Head, Inputs, Picture, Say, Section, Value, Views, picture
from analysis.subset_means import has_many_subsets, summary_by_size
from analysis.tables import Row, Table, make_tables, to_latex

MOST_ROWS = 250
"""Rows of a table on the page; a longer one is a file."""


Cells = Mapping[tuple[str, float, str, str], str]
"""(data set, label ratio, what is tested, method) -> the address of its runs."""


def results_section(inputs: Inputs) -> Section:
    """Data set by data set: bars of the primary metric, and a table a metric."""
    tables = make_tables(inputs.summary, inputs.checkpoint)
    links = run_links(inputs)
    blocks: list[Block] = []
    for dataset in dict.fromkeys(table.dataset for table in tables):
        own = [table for table in tables if table.dataset == dataset]
        blocks += [Head(dataset), _bars(inputs, own[0])]
        many = has_many_subsets(inputs.summary, dataset)
        blocks += _in_few_rows(inputs, own, links) if many else [result_grid(table, links) for table in own]
    return Section("results", "Results by data set", tuple(blocks))


def _in_few_rows(inputs: Inputs, tables: list[Table], links: Cells) -> Iterator[Block]:
    """Of many modality subsets the means by size, and every subset of the primary metric; of the others as files."""
    dataset, methods = tables[0].dataset, tables[0].methods
    few = make_tables(summary_by_size(inputs.frame, dataset, inputs.checkpoint, methods), inputs.checkpoint)
    for short, whole in zip(few, tables, strict=True):
        note = "Means over modality subsets are taken seed by seed, then over seeds."
        by_size = replace(result_grid(short, links), notes=(*short.notes, note))
        every = result_grid(whole, links)
        every = replace(every, caption=f"{every.caption}, every modality subset")
        if whole.primary and len(every.rows) <= MOST_ROWS:
            views = (("By number of modalities", (by_size,)), ("Every modality subset", (every,)))
            yield Views(f"{whole.dataset}: {whole.metric}", views)
        else:
            yield by_size
            yield replace(every, shown=False)


def hidden_subsets(inputs: Inputs) -> Iterator[str]:
    """Sentences on modality subsets that figures leave out."""
    for dataset in inputs.summary["dataset"].unique():
        hidden = panels(inputs.frame, inputs.summary, str(dataset), inputs.checkpoint).hidden
        if hidden is not None:
            yield f"{hidden}."


def _bars(inputs: Inputs, table: Table) -> Picture | Say:
    own = inputs.frame[(inputs.frame["dataset"] == table.dataset) & (inputs.frame["checkpoint"] == inputs.checkpoint)]
    if (own["corruption"] != "").all():
        return Say("There are no results on clean inputs to draw.", "note")
    shown = panels(inputs.frame, inputs.summary, table.dataset, inputs.checkpoint)
    return picture(
        inputs,
        frame_key(own.sort_values(["label_ratio", "modalities", "method", "seed", "metric"])),
        lambda: draw(shown, inputs.styles),
        name=figure_name(table.dataset),
        caption=f"{table.dataset}: {table.metric} by modality subset and label ratio",
        alt=f"Bar chart of {table.caption}, by modality subset and label ratio; the table below has its numbers.",
    )


def file_name(text: str) -> str:
    """A file name, without suffix: safe on every file system, and different for different texts."""
    safe = re.sub(r"[^a-z0-9._-]+", "_", text.lower())[:80].strip("_.")
    return safe + (f"-{zlib.crc32(text.encode()):08x}" if safe != text else "")


def figure_name(dataset: str) -> str:
    return f"figure-{file_name(dataset)}"


# ---- links ------------------------------------------------------------------------------------------------


def run_links(inputs: Inputs) -> Cells:
    """The address of the runs behind each mean over seeds."""
    if not inputs.links.ui:
        return {}
    from analysis.results import tested

    own = inputs.frame[inputs.frame["checkpoint"] == inputs.checkpoint]
    own = own.drop_duplicates("run_id").sort_values("seed", kind="stable")
    keys = ["dataset", "label_ratio", "modalities", "corruption", "method"]
    found = {}
    for key, runs in own.groupby(keys, sort=False)["run_id"]:
        dataset, ratio, modalities, corruption, method = map(str, key)
        tags = {"stage": "cell", "dataset": dataset, "label_ratio": ratio, "modalities": modalities,
                "corruption": corruption, "method": method}  # fmt: skip
        address = inputs.links.of(runs.tolist()) or inputs.links.search({k: v for k, v in tags.items() if v})
        found[dataset, float(ratio), tested(modalities, corruption), method] = address
    return found


# ---- tables -----------------------------------------------------------------------------------------------


def result_grid(table: Table, links: Cells) -> Grid:
    """A table of results as the page lays it out."""
    rows = tuple(_row(table, row, links) for row in table.rows)
    heads = (("label ratio",), ("modalities",), *((method,) for method in table.methods))
    return Grid(table.caption, heads, 2, rows, tuple(table.notes), to_latex(table))


def _row(table: Table, row: Row, links: Cells) -> tuple[Value, ...]:
    values = [Value(row.ratio, row.label_ratio), Value(row.modalities)]
    for method, cell, text in zip(table.methods, row.cells, table.texts(row), strict=True):
        mark = "best" if cell.best else "second" if cell.second else ""
        defined = cell.n_seeds > 0 and not pd.isna(cell.mean)
        link = links.get((table.dataset, row.label_ratio, row.modalities, method), "") if cell.n_seeds else ""
        values.append(Value(text, round(cell.mean / TIE) * TIE if defined else None, mark, link))  # type: ignore[arg-type]
    return tuple(values)
