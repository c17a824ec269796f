"""The papers' tables with our numbers: ours, the printed ones beside ours, and LaTeX to copy."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.paper_sheets import SIDE, Sheet, SheetPanel, make_sheets, to_latex
from analysis.paper_tables import PAPER_TABLES, PaperTable, fill, layout, measured, versions
from analysis.published import PLAIN_PROTOCOLS
from analysis.results import CONSTANT, some
from analysis.sections.base import Block, Grid, Head, Inputs, Say, Section, Source, Value, Views

COSTING_EPOCHS = 1
"""Epochs of trainings that are made to measure cost: no paper trains that short."""


def papers_section(inputs: Inputs, more: Iterable[pd.DataFrame] = ()) -> Section | None:
    """Every table of the papers that has a number of ours; None where none has.

    Args:
        more: rows with the columns of `analysis.paper_tables.MEASURED` that are no cells of the grid: operations,
            DCA, mutual information.
    """
    theirs = [set(layout(table)["dataset"]) for table in PAPER_TABLES]
    labels = {label: inputs.origins.name(label) for label in inputs.frame["dataset"].unique()}
    frame = inputs.frame[inputs.frame["dataset"].map(labels).isin(set().union(*theirs))]
    epochs = frame["training_id"].map(inputs.origins.epochs)
    frame = frame[epochs != COSTING_EPOCHS]
    further = [part for part in more if not part.empty]
    if not frame.empty:
        further.insert(0, measured(frame, inputs.checkpoint, inputs.origins))
    if not further:
        return None
    ours = pd.concat(further, ignore_index=True)
    blocks: list[Block] = []
    for table, datasets in zip(PAPER_TABLES, theirs, strict=True):
        own = ours[ours["dataset"].isin(datasets)]
        for title, version in versions(table, own).items() if not own.empty else ():
            cells = fill(table, version)
            if (cells["n_seeds"] > 0).any():
                blocks += _table(inputs, table, cells, title)
    if not blocks:
        return None
    words = (
        "The layouts of the papers. Their numbers are printed ones, made by their authors on their machines: a "
        "difference tells nothing about chance."
    )
    return Section("papers", "Tables of the papers", (Say(words + _trained_for(frame, epochs)), *blocks))


def _trained_for(frame: pd.DataFrame, epochs: "pd.Series[Any]") -> str:
    """How many epochs ours had, in a sentence with a leading space; nothing where that is not known."""
    known = epochs[frame.index].dropna().astype(int).groupby(frame["dataset"]).unique()
    told = [f"{' or '.join(map(str, sorted(numbers)))} on {dataset}" for dataset, numbers in known.items()]
    return f" Epochs that ours were trained for: {', '.join(told)}." if told else ""


def costing_note(inputs: Inputs) -> list[str]:
    """A sentence on the trainings that are too short for their scores to be results."""
    short = inputs.frame[inputs.frame["training_id"].map(inputs.origins.epochs) == COSTING_EPOCHS]
    short = short[short["method"] != CONSTANT]
    if short.empty:
        return []
    which = some(f"{m} on {d}" for d, m in sorted(set(zip(short["dataset"], short["method"], strict=True))))
    return [
        f"Trained for one epoch alone, as is enough to measure cost: {which}. These scores do not say how good a "
        "method is; the tables of the papers leave them out."
    ]


def _table(inputs: Inputs, table: PaperTable, cells: pd.DataFrame, version: str) -> Iterator[Block]:
    """A heading and the three views; `version` tells tables of different data sets of ours apart."""
    of = f", {version}" if version else ""
    sheets = make_sheets(replace(table, caption=f"{table.caption}{of}"), cells, checkpoint=inputs.checkpoint)
    ours, beside = (_grids(inputs, sheets[name], cells) for name in ("ours", "beside"))
    sources = (
        Source(f"{table.name}{of}, ours", to_latex(sheets["ours"])),
        Source(f"{table.name}{of}, published beside ours", to_latex(sheets["beside"])),
    )
    yield Head(f"{table.name}: {table.caption}{of}")
    yield Views(f"{table.name}{of}", (("Ours", ours), ("Published beside ours", beside), ("LaTeX", sources)))


def _grids(inputs: Inputs, sheet: Sheet, cells: pd.DataFrame) -> tuple[Grid, ...]:
    """A table a panel; the notes stand below the last, the LaTeX of the whole goes with the first."""
    grids = []
    for at, panel in enumerate(sheet.panels):
        last = at + 1 == len(sheet.panels)
        title = f"{sheet.title}{f' · {panel.title}' if panel.title else ''}"
        links = _links(inputs, panel, cells[cells["panel"] == at])
        grids.append(_grid(panel, title, sheet.notes if last else (), links, to_latex(sheet) if at == 0 else "%\n"))
    return tuple(grids)


def _grid(panel: SheetPanel, title: str, notes: tuple[str, ...], links: dict[tuple[int, int], str], latex: str) -> Grid:
    n_stubs = max(map(len, panel.stubs))
    depth = len(panel.columns[0])
    heads = tuple(("",) * depth for _ in range(n_stubs)) + panel.columns
    rows = []
    for i, (stub, row) in enumerate(zip(panel.stubs, panel.rows, strict=True)):
        own = [*map(Value, stub), *[Value("")] * (n_stubs - len(stub))]
        for j, cell in enumerate(row):
            mark = "best" if cell.best else "second" if cell.second else ""
            own.append(Value(cell.text, _number(cell.text), mark, links.get((i, j), "")))  # type: ignore[arg-type]
        rows.append(tuple(own))
    return Grid(title, heads, n_stubs, tuple(rows), notes, latex)


_UNITS = {"T": 1e12, "G": 1e9, "M": 1e6, "K": 1e3}


def _number(text: str) -> float | None:
    """The number a text starts with, in base units."""
    found = re.match(r"([+-]?\d+(?:\.\d+)?)\s?([TGMK]?)", text)
    return float(found[1]) * _UNITS.get(found[2], 1.0) if found else None


def _links(inputs: Inputs, panel: SheetPanel, cells: pd.DataFrame) -> dict[tuple[int, int], str]:
    """(row, column) of our numbers -> the address of their runs."""
    mine = [at for at, labels in enumerate(panel.columns) if labels[-1] == SIDE[1]] or list(range(len(panel.columns)))
    found = {}
    for cell in cells[cells["n_seeds"] > 0].to_dict("records"):
        tags = {"stage": "cell", "method_id": cell["method"], "dataset_id": cell["dataset"]}
        address = inputs.links.of(cell["runs"])
        if not address and cell["protocol"] in PLAIN_PROTOCOLS:
            address = inputs.links.search(tags | {"label_ratio": str(float(cell["label_ratio"]))})
        if address:
            found[int(cell["row"]), mine[int(cell["column"])]] = address
    return found
