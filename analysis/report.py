"""The report of an experiment as files: one self-contained HTML page; the same as Markdown, LaTeX, CSV and figures."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.figures import method_styles
from analysis.files import Cache, replace_files
from analysis.folds import find_folds
from analysis.page import to_html
from analysis.paper_tables import Origins
from analysis.results import CHECKPOINTS, CONSTANT, check_frame, some, summarise, tested, unused_columns
from analysis.sections.base import (
    Grid,
    Head,
    Inputs,
    KeptGroup,
    Links,
    Picture,
    Say,
    Section,
    grid_csv,
    grid_latex,
    grid_markdown,
)
from analysis.sections.cost import cost_section, measured_counts
from analysis.sections.overview import overview_section
from analysis.sections.papers import costing_note, papers_section
from analysis.sections.ranking import ranking_section
from analysis.sections.representations import Analysed, analyse
from analysis.sections.results import hidden_subsets, results_section
from analysis.settling import settle
from analysis.tables import CONSTANT_MARK, MISSING, escape_latex, escape_markdown, percent, to_csv
from datasets.errors import UserError


class Written(list[Path]):
    """The files of a report, in the order in which they were written, and what its reader must know."""

    def __init__(self, paths: Iterable[Path], notes: list[str], problems: list[str]) -> None:
        super().__init__(paths)
        self.notes = notes
        """What to know first."""
        self.problems = problems
        """What could not be said, and why."""


@dataclass(frozen=True)
class Sources:
    """What a report is made from besides results; without any of it the report has the fewer sections.

    Attributes:
        links: addresses of runs.
        cache: of costly analyses.
        origins: what results do not say of their trainings, by the labels of their data sets.
        protocols: training id -> version of the protocol it followed.
        failures: trainings that failed, a sentence each.
        notes: what else a reader must know first.
        kept, trainings, counts, curves: see `analysis.sections.base.Inputs`.
        tell: is told what takes a while.
    """

    links: Links = field(default_factory=Links)
    cache: Cache = field(default_factory=lambda: Cache(None))
    origins: Origins = field(default_factory=Origins)
    protocols: Mapping[str, str] = field(default_factory=dict)
    failures: Sequence[str] = ()
    notes: Sequence[str] = ()
    kept: Sequence[KeptGroup] = ()
    trainings: pd.DataFrame | None = None
    counts: pd.DataFrame | None = None
    curves: pd.DataFrame | None = None
    tell: Callable[[str], None] = lambda _: None


def write_report(
    frame: pd.DataFrame,
    directory: Path,
    *,
    title: str,
    checkpoint: str,
    context: Mapping[str, object],
    sources: Sources | None = None,
) -> Written:
    """Write `index.html`, `report.md`, `report.tex`, `results.csv`, `summary.csv`, the figures and `tables/`.

    Nothing in the files depends on the clock or the machine, so the same results give the same bytes. Each file
    is written beside its place and renamed into it: a reader never meets half of one. What cannot be said, a section
    or a part of one, is a sentence in its place.

    Args:
        frame: results, see `analysis.results.check_frame`; `results.csv` has all of them, the rest of the
            report those of `checkpoint`, folds of a data set together. Without a row the page says so, and there is
            nothing else.
        directory: made if absent; files of an earlier report are replaced, or removed where there are none any more.
        title: heading, usually the experiment's name.
        checkpoint: `last` or `best`.
        context: how the results were made (grid, commit, store ...), printed as name and value.
        sources: what else is known.

    Returns:
        The paths written, with `notes` and `problems`.

    Raises:
        UserError: the frame is bad, has nothing at this checkpoint, or a file cannot be written.
    """
    sources = sources or Sources()
    context = {**context, "checkpoint": CHECKPOINTS.get(checkpoint, checkpoint)}
    unused = _unused_note(frame)
    settled, notes = settle(frame, sources.protocols)
    if settled.empty:
        return _write_nothing(directory, title, context, sources, [*sources.notes, *notes])
    single = check_frame(settled)
    folds = find_folds(single)
    checked = folds.merged(single)
    summary = summarise(checked, checkpoint)
    inputs = Inputs(
        checked, summary, checkpoint, method_styles(summary["method"].unique()), sources.links, sources.cache,
        origins=replace(sources.origins, names=folds.names(sources.origins.names)), failures=tuple(sources.failures),
        kept=tuple(sources.kept), context=context, counts=sources.counts,
        trainings=None if sources.trainings is None else folds.merged(_of_shown(sources.trainings, single)),
        curves=None if sources.curves is None else folds.merged(_of_shown(sources.curves, single)),
    )  # fmt: skip
    told = report_notes(checked, summary, checkpoint)
    notes = [*sources.notes, *notes, *costing_note(inputs), *folds.told, *told, *unused, *hidden_subsets(inputs)]
    analysed = analyse(inputs, sources.tell)
    notes += analysed.notes
    sections = list(_sections(replace(inputs, notes=tuple(notes)), analysed))
    tidy = summary.assign(checkpoint=checkpoint)
    contents: dict[str, bytes] = {
        "results.csv": to_csv(single).encode(),
        "summary.csv": to_csv(tidy[["dataset", "checkpoint", *summary.columns[1:]]]).encode(),
    }
    return _write_all(directory, title, context, sections, contents, notes, sources.links.ui)


def _of_shown(frame: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """The rows of trainings whose results are shown."""
    return frame[frame["training_id"].isin(results["training_id"].unique())]


def _write_nothing(
    directory: Path, title: str, context: Mapping[str, object], sources: Sources, notes: list[str]
) -> Written:
    """A page that says that there is nothing yet, what was left out, and what failed."""
    problem = "There are no finished cells to report yet. Run or resume the grid with: bench run GRID"
    said = [Say(problem, "problem"), *(Say(note, "note") for note in notes)]
    said += [Say(f"Failed: {text}", "problem") for text in sources.failures]
    section = Section("overview", "Overview", tuple(said))
    return _write_all(directory, title, context, [section], {}, notes, "")


# ---- sections ---------------------------------------------------------------------------------------------


def _sections(inputs: Inputs, analysed: Analysed) -> Iterator[Section]:
    """All sections that have a subject, in the papers' order; what fails is a sentence in its place."""
    more = [measured_counts(inputs), *analysed.measured]
    yield overview_section(inputs)
    yield from _made("results", "Results by data set", lambda: results_section(inputs))
    yield from _made("curves", "Curves", lambda: _curves(inputs))
    yield from _made("papers", "Tables of the papers", lambda: papers_section(inputs, more))
    yield from _made("ranking", "Ranking of the methods", lambda: ranking_section(inputs))
    yield from analysed.sections()
    yield from _made("cost", "Cost", lambda: cost_section(inputs))


def _curves(inputs: Inputs) -> Section | None:
    from analysis.sections.curves import curves_section

    return curves_section(inputs)


def _made(key: str, title: str, make: Callable[[], Section | None]) -> Iterator[Section]:
    try:
        section = make()
    except (UserError, ValueError, np.linalg.LinAlgError) as error:
        section = Section(key, title, (Say(f"This part could not be made: {error}", "problem"),))
    if section is not None:
        yield section


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
    """What has no result: methods that have none on a data set in one word, other cells by name."""
    none = summary.groupby(["dataset", "method"])["n_seeds"].transform("max") == 0
    whole = summary.loc[none, ["dataset", "method"]].drop_duplicates()
    if not whole.empty:
        told = some(f"{method} on {dataset}" for dataset, method in whole.itertuples(index=False, name=None))
        yield f"No finished result at all ({MISSING}): {told}."
    missing, n_cells = _cells(summary[(summary["n_seeds"] == 0) & ~none]), len(_cells(summary[~none]))
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


def _write_all(
    directory: Path,
    title: str,
    context: Mapping[str, object],
    sections: Sequence[Section],
    contents: dict[str, bytes],
    notes: list[str],
    ui: str,
) -> Written:
    """Write what sections hold in all formats, the page last."""
    tables: dict[int, str] = {}
    taken: set[str] = set()
    for section in sections:
        for view, block in section.simple():
            if isinstance(block, Grid):
                name = _table_name(section, view, block, taken)
                tables[id(block)] = f"tables/{name}"
                contents[f"tables/{name}.csv"] = grid_csv(block).encode()
                if not block.latex.startswith("%"):
                    contents[f"tables/{name}.tex"] = grid_latex(block).encode()
            elif isinstance(block, Picture):
                contents |= {f"{block.name}.png": block.png, f"{block.name}.svg": block.svg}
    contents["report.md"] = _markdown(title, context, sections).encode()
    contents["report.tex"] = _latex(title, context, sections).encode()
    contents["index.html"] = to_html(title, context, sections, tables, ui=ui).encode()
    problems = [
        block.text
        for section in sections
        for _, block in section.simple()
        if isinstance(block, Say) and block.kind == "problem"
    ]
    return Written(replace_files(directory, contents), notes, problems)


def _table_name(section: Section, view: str, grid: Grid, taken: set[str]) -> str:
    """A readable file name for a table, unlike those `taken`."""
    words = "-".join(filter(None, [section.key, view, grid.caption.partition(" (")[0]]))
    short = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:60].strip("-")
    name = next(name for at in count(1) if (name := short + (f"-{at}" if at > 1 else "")) not in taken)
    taken.add(name)
    return name


def _markdown(title: str, context: Mapping[str, object], sections: Sequence[Section]) -> str:
    lines = [f"# {escape_markdown(title)}", ""]
    lines += [f"- {escape_markdown(name)}: {escape_markdown(str(value))}" for name, value in context.items()]
    for section in sections:
        lines += ["", f"## {escape_markdown(section.title)}", ""]
        for _, block in section.simple():
            lines += [*_markdown_lines(block), ""]
    return "\n".join(lines)


def _markdown_lines(block: object) -> Iterator[str]:
    match block:
        case Head(text):
            yield f"### {escape_markdown(text)}"
        case Say(text, kind):
            yield escape_markdown(text) if kind == "plain" else f"> {escape_markdown(text)}"
        case Grid() if not block.shown:
            yield f"{escape_markdown(block.caption)}: {len(block.rows):,} rows, in a file of `tables/`."
        case Grid():
            yield grid_markdown(block)
        case Picture():
            yield f"![{escape_markdown(block.caption)}]({block.name}.png)"
        case _:  # LaTeX to copy is in a file of its own
            return


_LATEX_HEAD = r"""% A complete document; tables need \usepackage{booktabs}, figures \usepackage{graphicx}.
\documentclass[a4paper]{article}
\usepackage{booktabs}
\usepackage{graphicx}
\setlength{\textwidth}{17cm}
\setlength{\oddsidemargin}{-0.5cm}
\setlength{\textheight}{24cm}
\setlength{\topmargin}{-1.5cm}
\begin{document}
"""


def _latex(title: str, context: Mapping[str, object], sections: Sequence[Section]) -> str:
    about = [rf"\item[{{{escape_latex(name)}}}] {escape_latex(str(value))}" for name, value in context.items()]
    lines = [_LATEX_HEAD + rf"\section*{{{escape_latex(title)}}}", r"\begin{description}", *about, r"\end{description}"]
    for section in sections:
        lines += ["", rf"\section*{{{escape_latex(section.title)}}}"]
        for number, (_, block) in enumerate(section.simple()):
            # LaTeX keeps at most a few dozen tables waiting for their page, so those of each heading are let go.
            lines += [r"\clearpage"] if isinstance(block, Head) and number else []
            lines += _latex_lines(block)
        lines.append(r"\clearpage")
    return "\n".join([*lines, r"\end{document}", ""])


def _latex_lines(block: object) -> Iterator[str]:
    match block:
        case Head(text):
            yield rf"\subsection*{{{escape_latex(text)}}}"
        case Say(text):
            yield rf"{escape_latex(text)}\par"
        case Grid() if block.shown and not block.latex.startswith("%"):
            yield grid_latex(block)
        case Picture():
            size = r"width=\textwidth,height=0.8\textheight,keepaspectratio"
            yield "\n".join([
                r"\begin{figure}[htbp]", r"\centering", rf"\includegraphics[{size}]{{{block.name}.png}}",
                rf"\caption{{{escape_latex(block.caption)}}}", r"\end{figure}",
            ])  # fmt: skip
        case _:
            return
