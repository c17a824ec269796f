"""What a section of the report is made of: headings, sentences, tables and figures, in any output's terms.

A section never stops the page: what it cannot say becomes a sentence in its place.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import numpy as np
import pandas as pd

from analysis.figures import Style, render
from analysis.files import Cache
from analysis.paper_tables import Origins
from analysis.tables import LATEX_ROWS, LATEX_SIZES, LATEX_WIDTH, MISSING, escape_latex, no_formula
from datasets.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPARED = 5
"""Runs that one link compares side by side; more are linked as a search."""


# ---- where numbers come from ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Links:
    """Addresses of runs in the tracking store's own UI; without an address there are no links."""

    ui: str = ""
    experiment_id: str = ""

    def of(self, runs: Sequence[str]) -> str:
        """The page of a run, or of several compared; empty where there is none."""
        if not self.ui or not runs or len(runs) > COMPARED:
            return ""
        base = self.ui.rstrip("/")
        if len(runs) == 1:
            return f"{base}/#/experiments/{quote(self.experiment_id)}/runs/{quote(runs[0])}"
        chosen, own = (quote(json.dumps(names, separators=(",", ":"))) for names in ([*runs], [self.experiment_id]))
        return f"{base}/#/compare-runs?runs={chosen}&experiments={own}"

    def search(self, tags: Mapping[str, str]) -> str:
        """The list of the runs with these tags; empty where a value cannot be written into a search."""
        if not self.ui or any("'" in value for value in tags.values()):
            return ""
        words = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
        base = self.ui.rstrip("/")
        return f"{base}/#/experiments/{quote(self.experiment_id)}/runs?searchFilter={quote(words)}"


@dataclass(frozen=True)
class Kept:
    """What one training kept of itself, besides metrics."""

    dataset: str
    label_ratio: float
    method: str
    seed: int
    run_id: str
    full: str
    """The data set's full modality subset."""
    arrays: Mapping[str, Any]
    """Named as in the tracking store: `embedding/<subset>/<name>`, `group`, `pseudo/<epoch>/...`."""
    tau: float = float("nan")
    """The method's temperature, where it has one."""


@dataclass(frozen=True)
class KeptGroup:
    """Trainings of one data set and label ratio whose arrays are read together, and how to read them.

    `read` gives what is there and sentences on what is not.
    """

    dataset: str
    label_ratio: float
    read: Callable[[], tuple[list[Kept], list[str]]]


@dataclass(frozen=True)
class Inputs:
    """All that a report is made from."""

    frame: pd.DataFrame
    """Checked results of all checkpoints, each cell once."""
    summary: pd.DataFrame
    """Of `checkpoint`, see `analysis.results.summarise`."""
    checkpoint: str
    styles: dict[str, Style]
    links: Links = Links()
    cache: Cache = field(default_factory=lambda: Cache(None))
    notes: tuple[str, ...] = ()
    """What a reader must know first."""
    context: Mapping[str, object] = field(default_factory=dict)
    origins: Origins = field(default_factory=Origins)
    """What the frame does not say of its trainings, for the papers' tables."""
    failures: tuple[str, ...] = ()
    """Trainings that failed, a sentence each."""
    kept: tuple[KeptGroup, ...] = ()
    trainings: pd.DataFrame | None = None
    """One row a finished training: `dataset`, `label_ratio`, `method`, `seed`, `run_id` and its cost."""
    counts: pd.DataFrame | None = None
    """Counted operations and parameters, see `analysis.complexity.COLUMNS`."""
    curves: pd.DataFrame | None = None
    """One row a point of a training's curves."""


# ---- what a section holds ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """One cell of a table."""

    text: str
    sort: float | None = None
    """What it is sorted by, where that is not its text."""
    mark: Literal["", "best", "second"] = ""
    link: str = ""


@dataclass(frozen=True)
class Grid:
    """A table: headings of each column from the top down, the first `n_stubs` of them naming rows."""

    caption: str
    columns: tuple[tuple[str, ...], ...]
    n_stubs: int
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()
    latex: str = ""
    """Written by who knows the layout better; empty: as `grid_latex` writes it."""
    shown: bool = True
    """Whether the page shows it; otherwise it links to the files alone."""

    def heading(self) -> list[list[tuple[str, int]]]:
        """The lines of the heading of the columns after the stubs, each as (text, columns it spans)."""
        own = self.columns[self.n_stubs :]
        lines = []
        for depth in range(len(own[0]) if own else 0):
            runs = [list(run) for _, run in groupby(own, key=lambda labels: labels[: depth + 1])]
            last = depth + 1 == len(own[0])
            lines.append([(labels[depth], 1) for labels in own] if last else [(r[0][depth], len(r)) for r in runs])
        return lines

    def repeats(self) -> list[list[bool]]:
        """For every row, whether each of its stubs but the last says what the row above does."""
        found, before = [], [""] * self.n_stubs
        for row in self.rows:
            stubs = [value.text for value in row[: self.n_stubs]]
            found.append([at + 1 < self.n_stubs and stubs[: at + 1] == before[: at + 1] for at in range(self.n_stubs)])
            before = stubs
        return found


@dataclass(frozen=True)
class Picture:
    """A figure as it is shown and downloaded."""

    name: str
    """Of its files, without suffix."""
    caption: str
    alt: str
    png: bytes
    svg: bytes


@dataclass(frozen=True)
class Say:
    """A sentence or more."""

    text: str
    kind: Literal["plain", "note", "problem"] = "plain"


@dataclass(frozen=True)
class Head:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Source:
    """Text to copy."""

    caption: str
    text: str


Simple = Grid | Picture | Say | Source


@dataclass(frozen=True)
class Views:
    """Several ways to look at one thing, of which the page shows one at a time."""

    name: str
    views: tuple[tuple[str, tuple[Simple, ...]], ...]


Block = Grid | Picture | Say | Head | Source | Views


@dataclass(frozen=True)
class Section:
    """A part of the report with a title of its own."""

    key: str
    title: str
    blocks: tuple[Block, ...]

    def simple(self) -> Iterable[tuple[str, Simple | Head]]:
        """Every block with the view it is in, or an empty text."""
        for block in self.blocks:
            if isinstance(block, Views):
                yield "", Head(block.name)
                for view, parts in block.views:
                    yield from ((view, part) for part in parts)
            else:
                yield "", block


def attempt(what: str, make: Callable[[], Iterable[Block]]) -> list[Block]:
    """The blocks, or, where they cannot be made, a sentence that says why."""
    try:
        return list(make())
    except (UserError, ValueError, np.linalg.LinAlgError) as error:
        text = str(error)
        return [Say(f"{what}: {text}" if what else text, "problem")]


# ---- figures ----------------------------------------------------------------------------------------------


def picture(
    inputs: Inputs, key: str, draw: "Callable[[], Figure]", *, name: str, caption: str, alt: str = ""
) -> Picture:
    """The figure that `draw` makes, drawn only if it was not drawn before from the same content.

    Args:
        inputs: for the cache.
        key: of everything the figure is made from.
        draw: makes it.
        name: of its files, unique in the report.
        caption: what it shows.
        alt: what a reader who cannot see it needs; the caption by default.
    """

    def both() -> bytes:
        figure = draw()
        png = render(figure, "png")
        figure.set_layout_engine("none")  # everything has its place: it need not be found again
        return len(png).to_bytes(8, "big") + png + render(figure, "svg")

    packed = inputs.cache.bytes(f"figure|{name}|{key}", both)
    size = 8 + int.from_bytes(packed[:8], "big")
    return Picture(name, caption, alt or caption, packed[8:size], packed[size:])


# ---- frames as tables -------------------------------------------------------------------------------------


def number(value: object, digits: int = 3) -> Value:
    """A number as a table prints it; NaN is a dash."""
    if isinstance(value, bool | np.bool_):
        return Value("yes" if value else "no")
    if isinstance(value, int | np.integer):
        return Value(f"{int(value):,}", float(value))
    if isinstance(value, float | np.floating):
        x = float(value)
        if np.isnan(x):
            return Value(MISSING)
        return Value(f"{x:z.{digits}f}" if abs(x) < 1e5 else f"{x:.4g}", x)
    return Value(MISSING if value is None or value is pd.NA else str(value))


def p_value(value: float) -> Value:
    """A p value with two significant digits."""
    if np.isnan(value):
        return Value(MISSING)
    return Value("< 0.0001" if value < 1e-4 else f"{value:.2g}", float(value))


def grid_of(
    frame: pd.DataFrame,
    caption: str,
    *,
    columns: Mapping[str, str],
    n_stubs: int = 1,
    notes: Sequence[str] = (),
    digits: int = 3,
    shown: Mapping[str, Callable[[Any], Value]] | None = None,
    links: Sequence[str] = (),
) -> Grid:
    """A table of some columns of a frame.

    Args:
        frame: one row a row.
        caption: what it shows.
        columns: column -> its heading; the first `n_stubs` name the rows.
        n_stubs: see above.
        notes: sentences below it.
        digits: after the point.
        shown: column -> how its values are printed, where not as `number` does.
        links: an address for the numbers of each row.
    """
    shown = shown or {}
    rows = []
    for at, row in enumerate(frame[list(columns)].itertuples(index=False, name=None)):
        values = [
            shown[name](value) if name in shown else number(value, digits)
            for name, value in zip(columns, row, strict=True)
        ]
        if links and links[at]:
            values[n_stubs:] = [
                Value(value.text, value.sort, value.mark, links[at] if value.sort is not None else "")
                for value in values[n_stubs:]
            ]
        rows.append(tuple(values))
    return Grid(caption, tuple((head,) for head in columns.values()), n_stubs, tuple(rows), tuple(notes))


# ---- a table in plain formats -----------------------------------------------------------------------------


def grid_csv(grid: Grid) -> str:
    """One line a row, full numbers where a cell has one, headings of several levels joined by ` / `."""
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([no_formula(" / ".join(filter(None, labels))) for labels in grid.columns])
    for row in grid.rows:
        writer.writerow([no_formula(value.text) if value.sort is None else repr(value.sort) for value in row])
    return out.getvalue()


def grid_latex(grid: Grid) -> str:
    r"""The table as LaTeX `table` environments; needs `\usepackage{booktabs}` and nothing else.

    More rows than a page holds are continued; a table too wide for a page in small type is set in the smallest.
    """
    if grid.latex:
        return grid.latex
    parts = [grid.rows[at : at + LATEX_ROWS] for at in range(0, len(grid.rows), LATEX_ROWS)] or [()]
    return "\n".join(_latex_part(grid, part, number, len(parts)) for number, part in enumerate(parts, 1))


def _latex_part(grid: Grid, rows: Sequence[tuple[Value, ...]], number: int, n_parts: int) -> str:
    heads = [" / ".join(filter(None, labels)) for labels in grid.columns]
    widths = [max([len(head), *(len(row[at].text) for row in rows)]) for at, head in enumerate(heads)]
    space = 8.0 * len(heads)
    size = next((s for s, digit in LATEX_SIZES.items() if digit * sum(widths) + space <= LATEX_WIDTH), "tiny")
    continued = f", part {number} of {n_parts}" if n_parts > 1 else ""
    notes = " ".join(grid.notes) if number == 1 else ""
    head = [
        r"\begin{table}[htbp]", r"\centering", rf"\{size}", r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape_latex(grid.caption + continued)}. {escape_latex(notes)}}}",
        rf"\begin{{tabular}}{{{'l' * grid.n_stubs}{'r' * (len(heads) - grid.n_stubs)}}}", r"\toprule",
        " & ".join(map(escape_latex, heads)) + r" \\", r"\midrule",
    ]  # fmt: skip
    body = [" & ".join(map(_latex_value, row)) + r" \\" for row in rows]
    return "\n".join([*head, *body, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_value(value: Value) -> str:
    text = value.text
    words = f"$-${escape_latex(text[1:])}" if text[:1] == "-" and text[1:2].isdigit() else escape_latex(text)
    if value.mark == "best":
        return rf"\textbf{{{words}}}"
    return rf"\underline{{{words}}}" if value.mark == "second" else words


def grid_markdown(grid: Grid) -> str:
    """The table in GitHub's Markdown, best in bold, second underlined, notes below."""
    from analysis.tables import escape_markdown

    def line(words: Iterable[str]) -> str:
        return f"| {' | '.join(words)} |"

    def cell(value: Value) -> str:
        text = escape_markdown(value.text)
        return f"**{text}**" if value.mark == "best" else f"<ins>{text}</ins>" if value.mark == "second" else text

    heads = [escape_markdown(" / ".join(filter(None, labels))) for labels in grid.columns]
    rules = ["---"] * grid.n_stubs + ["---:"] * (len(heads) - grid.n_stubs)
    lines = [f"**{escape_markdown(grid.caption)}**", "", line(heads), line(rules)]
    lines += [line(map(cell, row)) for row in grid.rows]
    return "\n".join([*lines, "", " ".join(map(escape_markdown, grid.notes)), ""])
