"""The papers' tables with our numbers: ours, the printed ones beside ours, and LaTeX to copy."""

import re
from collections.abc import Iterable

import pandas as pd

from analysis.paper_sheets import SIDE, Sheet, SheetPanel, make_sheets, to_latex
from analysis.paper_tables import PAPER_TABLES, PaperTable, _variant, fill, layout, measured
from analysis.published import AVERAGE, subset_key
from analysis.results import base_method
from analysis.sections.base import Block, Grid, Head, Inputs, Say, Section, Source, Value, Views

Runs = dict[tuple[str, float, str, str, str], list[str]]
"""(data set, label ratio, subset key, method, variant) -> runs of clean inputs."""


def papers_section(inputs: Inputs, more: Iterable[pd.DataFrame] = ()) -> Section | None:
    """Every table of the papers that has a number of ours; None where none has.

    Args:
        more: rows with the columns of `analysis.paper_tables.MEASURED` that are no cells of the grid: operations,
            DCA, mutual information.
    """
    theirs = [set(layout(table)["dataset"]) for table in PAPER_TABLES]
    frame = inputs.frame[inputs.frame["dataset"].replace(dict(inputs.names)).isin(set().union(*theirs))]
    further = [part for part in more if not part.empty]
    if not frame.empty:
        further.insert(0, measured(frame, inputs.checkpoint, inputs.names))
    if not further:
        return None
    ours = pd.concat(further, ignore_index=True)
    runs = _runs(inputs, frame)
    blocks: list[Block] = []
    for table, datasets in zip(PAPER_TABLES, theirs, strict=True):
        own = ours[ours["dataset"].isin(datasets)]
        if own.empty:
            continue
        cells = fill(table, own)
        if (cells["n_seeds"] > 0).any():
            sheets = make_sheets(table, cells, checkpoint=inputs.checkpoint)
            blocks += [Head(f"{table.name}: {table.caption}"), _views(inputs, table, cells, sheets, runs)]
    if not blocks:
        return None
    words = (
        "The layouts of the papers. Their numbers are printed ones, made by their authors on their machines: a "
        "difference tells nothing about chance."
    )
    return Section("papers", "Tables of the papers", (Say(words), *blocks))


def _views(
    inputs: Inputs, table: PaperTable, cells: pd.DataFrame, sheets: "dict[str, Sheet] | object", runs: Runs
) -> Views:
    assert isinstance(sheets, dict)
    ours, beside = (_grids(inputs, sheets[name], cells, runs) for name in ("ours", "beside"))
    sources = tuple(Source(f"{table.name}, {name}", to_latex(sheets[view])) for name, view in (
        ("ours", "ours"), ("published beside ours", "beside")))  # fmt: skip
    return Views(table.name, (("Ours", ours), ("Published beside ours", beside), ("LaTeX", sources)))


def _runs(inputs: Inputs, frame: pd.DataFrame) -> Runs:
    """The runs behind our numbers, as `fill` names them."""
    own = frame[(frame["checkpoint"] == inputs.checkpoint) & (frame["corruption"] == "")]
    own = own.drop_duplicates("run_id").sort_values("seed", kind="stable")
    found: Runs = {}
    for dataset, ratio, subset, method, run in zip(
        own["dataset"].replace(dict(inputs.names)), own["label_ratio"], own["modalities"], own["method"], own["run_id"],
        strict=True,
    ):  # fmt: skip
        for name in (subset_key(subset), AVERAGE):
            found.setdefault((dataset, float(ratio), name, base_method(method), _variant(method)), []).append(run)
    return found


def _grids(inputs: Inputs, sheet: Sheet, cells: pd.DataFrame, runs: Runs) -> tuple[Grid, ...]:
    """A table a panel; the notes stand below the last, the LaTeX of the whole goes with the first."""
    grids = []
    for at, panel in enumerate(sheet.panels):
        last = at + 1 == len(sheet.panels)
        title = f"{sheet.title}{f' · {panel.title}' if panel.title else ''}"
        links = _links(inputs, panel, cells[cells["panel"] == at], runs)
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


def _links(inputs: Inputs, panel: SheetPanel, cells: pd.DataFrame, runs: Runs) -> dict[tuple[int, int], str]:
    """(row, column) of our numbers -> the address of their runs."""
    mine = [at for at, labels in enumerate(panel.columns) if labels[-1] == SIDE[1]] or list(range(len(panel.columns)))
    found = {}
    names = ["dataset", "label_ratio", "modalities", "method", "variant", "row", "column"]
    own = cells.loc[(cells["n_seeds"] > 0) & cells["sigma"].isna(), names]
    for dataset, ratio, modalities, method, variant, row, column in own.itertuples(index=False, name=None):
        key = str(dataset), float(ratio), str(modalities), str(method), str(variant)
        if key in runs:
            tags = {"stage": "cell", "method_id": key[3], "dataset_id": key[0], "label_ratio": str(key[1])}
            address = inputs.links.of(runs[key]) or inputs.links.search(tags)
            found[int(row), mine[int(column)]] = address
    return found
