"""The report of an experiment as files: Markdown, LaTeX, CSV, figures and one self-contained HTML page."""

import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.figures import draw, method_styles, panels, render
from analysis.page import to_html
from analysis.results import CHECKPOINTS, CONSTANT, check_frame, some, summarise, tested, unused_columns
from analysis.tables import (
    CONSTANT_MARK,
    MISSING,
    Table,
    escape_latex,
    escape_markdown,
    make_tables,
    percent,
    to_csv,
    to_latex,
    to_markdown,
)
from datasets.errors import UserError


class Written(list[Path]):
    """The files of a report, in the order in which they were written, and what its reader must know first."""

    def __init__(self, paths: Iterable[Path], notes: list[str]) -> None:
        super().__init__(paths)
        self.notes = notes


def write_report(
    frame: pd.DataFrame,
    directory: Path,
    *,
    title: str,
    checkpoint: str,
    context: Mapping[str, object],
) -> Written:
    """Write `index.html`, `report.md`, `report.tex`, `results.csv`, `summary.csv` and a figure per data set.

    Nothing in the files depends on the clock or the machine, so the same results give the same bytes. Each file
    is written beside its place and renamed into it: a reader never meets half of one.

    Args:
        frame: results, see `analysis.results.check_frame`; `results.csv` has all of them, the rest of the
            report those of `checkpoint`.
        directory: made if absent; files of an earlier report are replaced.
        title: heading, usually the experiment's name.
        checkpoint: `last` or `best`.
        context: how the results were made (grid, commit, store ...), printed as name and value.

    Returns:
        The paths written, with the notes of `report_notes` as `.notes`.

    Raises:
        UserError: the frame is bad, no cell has finished, or a file cannot be written.
    """
    checked = check_frame(frame)
    summary = summarise(checked, checkpoint)
    tables = make_tables(summary, checkpoint)
    figures, hidden = _draw_all(checked, summary, checkpoint)
    notes = [*report_notes(checked, summary, checkpoint), *_unused_note(frame), *hidden]
    context = {**context, "checkpoint": CHECKPOINTS[checkpoint]}
    names = _figure_names(figures)
    vectors = {dataset: svg for dataset, (_, svg) in figures.items()}
    tidy = summary.assign(checkpoint=checkpoint)
    contents: dict[str, bytes] = {
        "results.csv": to_csv(checked).encode(),
        "summary.csv": to_csv(tidy[["dataset", "checkpoint", *summary.columns[1:]]]).encode(),
    }
    for dataset, (png, svg) in figures.items():
        contents |= {f"{names[dataset]}.png": png, f"{names[dataset]}.svg": svg}
    contents["report.md"] = _markdown(title, context, notes, tables, names).encode()
    contents["report.tex"] = _latex(title, context, notes, tables).encode()
    contents["index.html"] = to_html(title, context, notes, tables, vectors).encode()
    return Written([_write(directory / name, content) for name, content in contents.items()], notes)


def _draw_all(
    frame: pd.DataFrame, summary: pd.DataFrame, checkpoint: str
) -> tuple[dict[str, tuple[bytes, bytes]], list[str]]:
    """Data set -> (PNG, SVG), and sentences on what was left out of them."""
    styles = method_styles(summary["method"].unique())
    figures, hidden = {}, []
    for dataset in summary["dataset"].unique():
        shown = panels(frame, summary, dataset, checkpoint)
        figure = draw(shown, styles)
        figures[str(dataset)] = render(figure, "png"), render(figure, "svg")
        if shown.hidden is not None:
            hidden.append(f"{shown.hidden}.")
    return figures, hidden


def _figure_names(datasets: Iterable[str]) -> dict[str, str]:
    """A file name, without suffix, per data set: safe on every file system, and no two alike."""
    names: dict[str, str] = {}
    for dataset in datasets:
        safe = re.sub(r"[^a-z0-9._-]+", "_", dataset.lower())[:80].strip("_.")
        changed = safe != dataset
        names[dataset] = f"figure-{safe}" + (f"-{zlib.crc32(dataset.encode()):08x}" if changed else "")
    return names


# ---- what a reader must know first ------------------------------------------------------------------------


def report_notes(frame: pd.DataFrame, summary: pd.DataFrame, checkpoint: str) -> list[str]:
    """What is missing, undefined or beyond comparison in these results, in plain sentences; empty if nothing is.

    Args:
        frame: checked results.
        summary: from `analysis.results.summarise`, made for `checkpoint`.
        checkpoint: `last` or `best`.
    """
    chosen = frame[frame["checkpoint"] == checkpoint]
    return [
        *_seed_notes(summary),
        *_method_notes(summary),
        *_missing_notes(summary),
        *_nan_notes(summary),
        *_flat_metric_notes(chosen),
        *_constant_notes(summary),
    ]


def _seed_notes(summary: pd.DataFrame) -> Iterator[str]:
    if summary["n_seeds"].max() == 1:
        yield (
            "There is one seed: no standard deviation can be given, and no difference between methods can be told "
            "from chance. Add seeds to the grid."
        )
        return
    most = summary.groupby("dataset")["n_seeds"].transform("max")
    few = _cells(summary[(summary["n_seeds"] > 0) & (summary["n_seeds"] < most)])
    if few:
        yield f"{_count(len(few), 'cell has', 'cells have')} fewer seeds than others of the data set: {some(few)}."


def _method_notes(summary: pd.DataFrame) -> Iterator[str]:
    methods = summary["method"].unique()
    if len(methods) == 1:
        yield f"Only one method has results, {methods[0]}: nothing is ranked."


def _missing_notes(summary: pd.DataFrame) -> Iterator[str]:
    missing, n_cells = _cells(summary[summary["n_seeds"] == 0]), len(_cells(summary))
    if missing:
        have = "has" if len(missing) == 1 else "have"
        yield f"{len(missing)} of {n_cells} cells {have} no finished result ({MISSING}): {some(missing)}."


def _nan_notes(summary: pd.DataFrame) -> Iterator[str]:
    undefined = summary[summary["n_nan"] > 0]
    for (dataset, metric), part in undefined.groupby(["dataset", "metric"], sort=False):
        where = part.groupby("method", sort=False).size()
        told = some((f"{method} in {_count(n, 'cell', 'cells')}" for method, n in where.items()), 8)
        yield f"{metric} of {dataset} is undefined (NaN) for at least one seed: {told}."


def _flat_metric_notes(chosen: pd.DataFrame) -> Iterator[str]:
    """Metrics that are equal wherever they are defined."""
    finite = chosen[np.isfinite(chosen["value"])]
    spread = finite.groupby(["dataset", "metric"])["value"].agg(["min", "max", "size"])
    flat = spread[(spread["min"] == spread["max"]) & (spread["size"] > 1)].reset_index()
    for dataset, metric, value in zip(flat["dataset"], flat["metric"], flat["min"], strict=True):
        yield f"{metric} of {dataset} has the same value, {value:.6g}, in every cell: it ranks nothing."


def _constant_notes(summary: pd.DataFrame) -> Iterator[str]:
    if CONSTANT not in set(summary["method"]):
        yield (
            f"The grid has no '{CONSTANT}' method: nothing shows which results are no better than ignoring the inputs."
        )
        return
    told = []
    for method, part in summary[summary["n_seeds"] > 0].groupby("method", sort=False):
        n_equal = int(part["is_constant"].sum())
        if n_equal:
            told.append(f"{method} in {n_equal} of {len(part)}")
    if told:
        yield f"Results equal to the constant predictor's ({CONSTANT_MARK}), each metric counted: {some(told, 20)}."


def _unused_note(frame: pd.DataFrame) -> list[str]:
    unused = unused_columns(frame)
    return [f"Columns of the results that no table uses: {some(unused, 20)}."] if unused else []


def _cells(part: pd.DataFrame) -> list[str]:
    """Cells as words, each once whatever the number of its metrics."""
    cells = part[["dataset", "label_ratio", "modalities", "corruption", "method"]].drop_duplicates()
    return [
        f"{method} on {dataset} {percent(float(ratio))} {tested(modalities, corruption)}"
        for dataset, ratio, modalities, corruption, method in cells.itertuples(index=False, name=None)
    ]


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


# ---- files ------------------------------------------------------------------------------------------------


def _markdown(
    title: str, context: Mapping[str, object], notes: list[str], tables: list[Table], names: Mapping[str, str]
) -> str:
    lines = [f"# {escape_markdown(title)}", ""]
    lines += [f"- {escape_markdown(name)}: {escape_markdown(str(value))}" for name, value in context.items()]
    if notes:
        lines += ["", "## What to know first", "", *(f"- {escape_markdown(note)}" for note in notes)]
    for dataset in dict.fromkeys(table.dataset for table in tables):
        own = [table for table in tables if table.dataset == dataset]
        image = f"![Bar chart of {escape_markdown(own[0].caption)}]({names[dataset]}.png)"
        lines += ["", f"## {escape_markdown(dataset)}", "", image, "", *(to_markdown(table) for table in own)]
    return "\n".join(lines)


_LATEX_HEAD = r"""% A complete document; each table stands alone and needs \usepackage{booktabs} only.
\documentclass[a4paper]{article}
\usepackage{booktabs}
\setlength{\textwidth}{17cm}
\setlength{\oddsidemargin}{-0.5cm}
\setlength{\textheight}{24cm}
\setlength{\topmargin}{-1.5cm}
\begin{document}
"""


def _latex(title: str, context: Mapping[str, object], notes: list[str], tables: list[Table]) -> str:
    about = [rf"\item[{{{escape_latex(name)}}}] {escape_latex(str(value))}" for name, value in context.items()]
    first = [rf"\item {escape_latex(note)}" for note in notes]
    lines = [_LATEX_HEAD + rf"\section*{{{escape_latex(title)}}}", r"\begin{description}", *about, r"\end{description}"]
    if first:
        lines += [r"\subsection*{What to know first}", r"\begin{itemize}", *first, r"\end{itemize}"]
    # LaTeX keeps at most a few dozen tables waiting for their page, so each data set's are let go.
    for dataset in dict.fromkeys(table.dataset for table in tables):
        lines += ["", *(to_latex(table) for table in tables if table.dataset == dataset), r"\clearpage"]
    return "\n".join([*lines, r"\end{document}", ""])


def _write(path: Path, content: bytes) -> Path:
    """Write a file beside its place and rename it, so that a reader meets the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"the report cannot be written: {path}: {error.strerror}. Make room there or choose another directory."
        ) from error
    return path
