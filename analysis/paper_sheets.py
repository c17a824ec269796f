"""The papers' tables to look at: ours, the printed ones, or both side by side, as Markdown, LaTeX and on a terminal.

A `Sheet` is a table of texts with headings of several levels, which a page can lay out as it likes.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from analysis import tables
from analysis.paper_tables import DATASETS, METHODS, METRICS, PaperTable, agreement, agreement_told, leads
from analysis.published import fingerprints, table_notes
from analysis.results import CHECKPOINTS
from analysis.tables import CONSTANT_MARK, MISSING, escape_latex, escape_markdown

if TYPE_CHECKING:
    from rich.table import Table as TerminalTable

View = Literal["ours", "published", "beside"]
VIEWS: dict[View, str] = {
    "ours": "our results",
    "published": "as printed",
    "beside": "printed, ours, and ours minus printed",
}
COUNTS = ("flops", "macs", "params")
LEAD = "Δ"
SIDE = ("paper", "ours", "diff.")


@dataclass(frozen=True)
class SheetCell:
    """A text and how it is marked."""

    text: str
    best: bool = False
    second: bool = False

    def styled(self, text: str, best: Callable[[str], str], second: Callable[[str], str]) -> str:
        """A text written for some format, in that format's bold or underline."""
        return best(text) if self.best else second(text) if self.second else text


@dataclass(frozen=True)
class SheetPanel:
    """A part of a sheet: `columns` has the headings of each column from the top down, `stubs` those of each row."""

    title: str
    columns: tuple[tuple[str, ...], ...]
    stubs: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[SheetCell, ...], ...]

    def heading(self, columns: slice = slice(None)) -> list[list[tuple[str, int]]]:
        """The lines of the heading over some columns, each as (text, how many columns it spans)."""
        own = self.columns[columns]
        lines = []
        for depth in range(len(own[0])):
            # A heading spans neighbours only as far as the headings above it do.
            runs = [list(run) for _, run in groupby(own, key=lambda labels: labels[: depth + 1])]
            lines.append([(run[0][depth], len(run)) for run in runs])
        return lines

    def shown_stubs(self) -> list[tuple[str, ...]]:
        """The headings of the rows, without those that repeat the row above."""
        shown, before = [], ("",) * len(self.stubs[0])
        for stub in self.stubs:
            same = [stub[: depth + 1] == before[: depth + 1] for depth in range(len(stub) - 1)]
            shown.append((*("" if again else text for again, text in zip(same, stub[:-1], strict=True)), stub[-1]))
            before = stub
        return shown


@dataclass(frozen=True)
class Sheet:
    """A paper's table in one view, with what a reader must know below it."""

    name: str
    caption: str
    view: View
    panels: tuple[SheetPanel, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.name}: {self.caption} ({VIEWS[self.view]})"


# ---- from filled cells ------------------------------------------------------------------------------------


def make_sheet(table: PaperTable, cells: pd.DataFrame, view: View, *, checkpoint: str = "last") -> Sheet:
    """One view of a filled table.

    Args:
        table: of `analysis.paper_tables.PAPER_TABLES`.
        cells: from `analysis.paper_tables.fill` with the same table.
        view: `ours`: mean, standard deviation, seeds; `published`: the printed digits; `beside`: printed, ours and
            the difference in three columns, and per ranking Kendall's tau and whether the best is the same.
        checkpoint: what `ours` were measured at, for the notes.
    """
    panels = tuple(_panel(table, cells, at, view) for at in range(len(table.panels)))
    return Sheet(table.name, table.caption, view, panels, tuple(_notes(table, cells, view, checkpoint)))


def make_sheets(table: PaperTable, cells: pd.DataFrame, *, checkpoint: str = "last") -> dict[View, Sheet]:
    """All views of a filled table."""
    return {view: make_sheet(table, cells, view, checkpoint=checkpoint) for view in VIEWS}


def _panel(table: PaperTable, cells: pd.DataFrame, at: int, view: View) -> SheetPanel:
    own = cells[cells["panel"] == at].sort_values(["row", "column"])
    most = int(cells["n_seeds"].max())
    grid = [list(line) for _, line in groupby(_records(own), key=lambda cell: cell["row"])]
    columns = [tuple(cell["column_labels"]) for cell in grid[0]]
    stubs = [tuple(line[0]["row_labels"]) for line in grid]
    rows = [[part for cell in line for part in _cell(table, cell, view, most)] for line in grid]
    if view == "beside":
        columns = [(*labels, side) for labels in columns for side in SIDE]
        if table.panels[at].methods_in_columns:
            _add_agreement_columns(columns, rows, grid, agreement(cells))
        else:
            stubs.append(("ranking",))
            rows.append(_agreement_row(grid, agreement(cells)))
    if table.lead_of:
        stubs.append((LEAD,))
        rows.append(_lead_row(table, cells, at, view, len(grid[0])))
    return SheetPanel(table.panels[at].title, tuple(columns), tuple(stubs), tuple(map(tuple, rows)))


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _cell(table: PaperTable, at: dict[str, Any], view: View, most: int) -> Iterator[SheetCell]:
    """The texts of one cell: one, or three side by side."""
    if view in ("published", "beside"):
        digits = MISSING if pd.isna(at["published"]) else str(at["printed"])
        text = digits + (CONSTANT_MARK if at["decides"] else "")
        yield SheetCell(text, at["published_best"], at["published_second"])
    if view in ("ours", "beside"):
        mark = CONSTANT_MARK if at["is_constant"] else ""
        yield SheetCell(_ours(table, at, most, spread=view == "ours") + mark, at["best"], at["second"])
    if view == "beside":
        yield SheetCell(_difference(table, at))


def _ours(table: PaperTable, at: dict[str, Any], most: int, *, spread: bool) -> str:
    """`0.912±0.013`, or the mean alone."""
    numbers = tables.Cell(
        float(at["mean"]), float(at["std"]), int(at["n_seeds"]), int(at["n_nan"]), False, False, False
    )
    if at["metric"] in COUNTS and numbers.n_seeds and not numbers.n_nan:
        return _count(numbers.mean)
    mean, plus_minus, rest = numbers.text(most, table.decimals).partition(" ± ")
    std, space, seeds = rest.partition(" ")
    return mean + (f"±{std}" if plus_minus and spread else "") + space + seeds


def _count(value: float) -> str:
    """A number of operations or parameters: `1.08 G`, `507.44 M`, `888.32 K`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f}"


def _difference(table: PaperTable, at: dict[str, Any]) -> str:
    gap, printed = float(at["difference"]), float(at["published"])
    if math.isnan(gap):
        return MISSING
    return f"{100 * gap / printed:+.1f}%" if at["metric"] in COUNTS else f"{gap:+z.{table.decimals}f}"


def _agreed(at: dict[str, Any]) -> tuple[str, str]:
    """Kendall's tau and whether the best is the same, in two words."""
    if at["n_common"] < 2:
        return MISSING, MISSING
    tau = f"{at['tau']:+z.2f}" if not math.isnan(at["tau"]) else MISSING
    return tau, "same" if at["same_best"] else "other"


def _add_agreement_columns(
    columns: list[tuple[str, ...]],
    rows: list[list[SheetCell]],
    grid: list[list[dict[str, Any]]],
    table: pd.DataFrame,
) -> None:
    """After the last method of each group of columns: tau, and whether the best is the same."""
    facts = {row["group"]: row for row in _records(table)}
    ends = [
        at for at, cell in enumerate(grid[0]) if at + 1 == len(grid[0]) or grid[0][at + 1]["group"] != cell["group"]
    ]
    for end in reversed(ends):
        place = len(SIDE) * (end + 1)
        above = columns[place - 1][:-2]
        columns[place:place] = [(*above, "ranking", "τ"), (*above, "ranking", "best")]
        for line, row in zip(grid, rows, strict=True):
            row[place:place] = [SheetCell(word) for word in _agreed(facts[line[end]["group"]])]


def _agreement_row(grid: list[list[dict[str, Any]]], table: pd.DataFrame) -> list[SheetCell]:
    """Below the methods: tau under ours, whether the best is the same under the difference."""
    facts = {row["group"]: row for row in _records(table)}
    words = [_agreed(facts[cell["group"]]) for cell in grid[0]]
    return [SheetCell(word) for tau, best in words for word in ("τ, best", tau, best)]


def _lead_row(table: PaperTable, cells: pd.DataFrame, at: int, view: View, n_columns: int) -> list[SheetCell]:
    """The lead of the paper's method over the best of the others, in percentage points."""
    found = {}
    for name in ("published", "mean"):
        lead = leads(table, cells, name)
        own = lead[lead["panel"] == at].set_index("column")["lead"]
        found[name] = [float(own[column]) for column in range(n_columns)]
    texts = {name: [MISSING if math.isnan(x) else f"{x:+z.2f}" for x in lead] for name, lead in found.items()}
    if view != "beside":
        return [SheetCell(text) for text in texts["published" if view == "published" else "mean"]]
    gaps = [mine - theirs for theirs, mine in zip(found["published"], found["mean"], strict=True)]
    apart = [MISSING if math.isnan(x) else f"{x:+z.2f}" for x in gaps]
    return [SheetCell(text) for trio in zip(texts["published"], texts["mean"], apart, strict=True) for text in trio]


# ---- notes ------------------------------------------------------------------------------------------------


def _notes(table: PaperTable, cells: pd.DataFrame, view: View, checkpoint: str) -> Iterator[str]:
    if view in ("ours", "beside"):
        yield from _notes_on_ours(table, cells, view, checkpoint)
    yield "Best in bold, second best underlined, among the methods of this table; equal values share the mark."
    marked = (view != "published" and cells["is_constant"].any()) or (view != "ours" and cells["decides"].any())
    if marked:
        yield from _notes_on_constants(table, cells, view)
    lacking = int((cells["n_seeds"] == 0).sum()) if view != "published" else 0
    if lacking:
        yield f"{MISSING} no result of ours, in {lacking} of {len(cells)} cells."
    if table.lead_of:
        yield f"{LEAD} lead of {METHODS[table.lead_of]} over the best other method, in percentage points."
    if view == "ours":
        return
    if cells["published"].isna().any():
        yield f"{MISSING} under the paper: not printed."
    if view == "beside":
        yield (
            "Difference: ours minus the paper's. Ranking: Kendall's τ over the methods that both have, and whether a "
            "best method is the same."
        )
        yield agreement_told(cells)
    yield from (note.text for note in table_notes(table.paper, table.number))
    yield from _cell_notes(table, cells)


def _notes_on_ours(table: PaperTable, cells: pd.DataFrame, view: View, checkpoint: str) -> Iterator[str]:
    most = int(cells["n_seeds"].max())
    if most == 0:
        yield "Nothing of this table has been measured yet."
        return
    fewer = ", fewer where (n=...) says so" if cells["n_seeds"].between(1, most - 1).any() else ""
    spread = " ± sample standard deviation" if view == "ours" else ""
    seeds = f"mean{spread} over n = {most} seeds{fewer}" if most > 1 else "one seed"
    yield f"Ours: {seeds}; test results of the {CHECKPOINTS[checkpoint]}."
    if table.paper == "robult" and (cells["metric"] == "f1").any():
        yield "F1 of ours is f1_swapped, computed as the paper's; f1 with the usual order is in the tables of the grid."


def _notes_on_constants(table: PaperTable, cells: pd.DataFrame, view: View) -> Iterator[str]:
    yield f"{CONSTANT_MARK} equals a constant predictor, which ignores its inputs."
    if view == "ours":
        return
    for name, part in cells[cells["decides"] != ""].groupby("dataset", sort=False):
        for entry in fingerprints():
            if (entry["paper"], entry["dataset"]) == (table.paper, name) and entry["decides"] in set(part["decides"]):
                scores = ", ".join(
                    f"{METRICS[metric].split()[0]} {digits}" for metric, digits in entry["values"].items()
                )
                yield f"{DATASETS[str(name)]} {scores} is the score of deciding {entry['decides']}: {entry['why']}"


def _cell_notes(table: PaperTable, cells: pd.DataFrame) -> Iterator[str]:
    """What is odd about single printed numbers, each note once with the cells it is about."""
    noted = cells[cells["note"].fillna("") != ""]
    for note, part in noted.groupby("note", sort=False):
        whole = len(part) == len(cells[cells["metric"].isin(part["metric"]) & cells["dataset"].isin(part["dataset"])])
        places = dict.fromkeys(
            " ".join(filter(None, [table.panels[at].title.partition(":")[0], *labels, *columns]))
            for at, labels, columns in zip(part["panel"], part["row_labels"], part["column_labels"], strict=True)
        )
        where = "" if whole or len(places) > 6 else f"{', '.join(places)}: "
        yield f"{where}{note}"


# ---- Markdown ---------------------------------------------------------------------------------------------


def to_markdown(sheet: Sheet) -> str:
    """The sheet in GitHub's Markdown; headings of several levels are joined, for Markdown has one."""

    def line(words: Sequence[str]) -> str:
        return f"| {' | '.join(words)} |"

    lines = [f"**{escape_markdown(sheet.title)}**", ""]
    for panel in sheet.panels:
        if panel.title:
            lines += [f"*{escape_markdown(panel.title)}*", ""]
        n_stubs = max(map(len, panel.stubs))
        heads = [escape_markdown(" / ".join(labels)) for labels in panel.columns]
        lines += [line([*[" "] * n_stubs, *heads]), line(["---"] * n_stubs + ["---:"] * len(heads))]
        for stub, row in zip(panel.shown_stubs(), panel.rows, strict=True):
            cells = [cell.styled(escape_markdown(cell.text), "**{}**".format, "<ins>{}</ins>".format) for cell in row]
            lines.append(line([*[""] * (n_stubs - len(stub)), *map(escape_markdown, stub), *cells]))
        lines.append("")
    return "\n".join([*lines, " ".join(map(escape_markdown, sheet.notes)), ""])


# ---- LaTeX ------------------------------------------------------------------------------------------------

LATEX_HEIGHT = 640.0
"""Height of one LaTeX table in points, caption included: the text of an A4 page with small margins, less a little."""
LATEX_LEADING = {"small": 11.0, "footnotesize": 9.5, "scriptsize": 8.0, "tiny": 6.0}
"""Distance of lines in points, by type size."""
CAPTION_LETTERS, CAPTION_LEADING = 95, 12.0
"""Letters of a line of the caption, and the distance of its lines in points."""
LATEX_SEPARATION = {"small": 4.0, "footnotesize": 4.0, "scriptsize": 3.0, "tiny": 2.0}
"""Half the space between columns, in points, by type size."""


@dataclass(frozen=True)
class _Part:
    """Some columns of panels that have the same columns: what one tabular holds."""

    panels: tuple[SheetPanel, ...]
    columns: slice

    @property
    def n_stubs(self) -> int:
        return max(len(stub) for panel in self.panels for stub in panel.stubs)

    def height(self, size: str) -> float:
        """Estimated height in points in a type size."""
        heading = len(self.panels[0].columns[0])
        n_rows = sum(len(panel.rows) + bool(panel.title) for panel in self.panels)
        n_groups = sum(bool(stub[0]) for panel in self.panels for stub in panel.shown_stubs() if len(stub) > 1)
        spaces = 6.0 * (3 + heading + n_groups + len(self.panels))
        return LATEX_LEADING[size] * (heading + n_rows) + spaces

    def width(self, size: str) -> float:
        """Estimated width in points in a type size."""
        digit, separation = tables.LATEX_SIZES[size], LATEX_SEPARATION[size]
        widths: list[int]
        lines = [[len(cell.text) for cell in row[self.columns]] for panel in self.panels for row in panel.rows]
        heads = self.panels[0].columns[self.columns]
        widths = [max(*texts, len(head[-1])) for *texts, head in zip(*lines, heads, strict=True)]
        stubs = [
            [stub[at] for panel in self.panels for stub in panel.stubs if at < len(stub)] for at in range(self.n_stubs)
        ]
        for line in self.panels[0].heading(self.columns)[:-1]:  # a heading wider than what it spans widens it
            at = 0
            for text, span in line:
                lack = len(text) - sum(widths[at : at + span])
                widths[at + span - 1] += max(lack, 0)
                at += span
        letters = sum(widths) + sum(max(map(len, column)) for column in stubs)
        return digit * letters + 2 * separation * (len(widths) + len(stubs))

    @property
    def size(self) -> str | None:
        """The largest type in which it fits a page, None if none does."""
        return next((size for size in tables.LATEX_SIZES if self.width(size) <= tables.LATEX_WIDTH), None)


def to_latex(sheet: Sheet) -> str:
    r"""The sheet as LaTeX `table` environments; needs `\usepackage{booktabs}` and nothing else.

    Panels of equal columns share a tabular, others follow below. Columns that a page cannot hold in the smallest
    type go on in a further tabular, the columns of one method staying together; what is too high for a page goes on
    in a further environment. The notes are in the first caption.
    """
    alike = [tuple(run) for _, run in groupby(sheet.panels, key=lambda panel: panel.columns)]
    parts = [part for panels in alike for part in _split(panels, len(SIDE) if sheet.view == "beside" else 1)]
    sizes = [part.size or "tiny" for part in parts]
    size = next(size for size in reversed(tables.LATEX_SIZES) if size in sizes)
    # One type size for all; the caption with the notes takes its share of the first page.
    pages: list[list[_Part]] = [[]]
    left = LATEX_HEIGHT - CAPTION_LEADING * (3 + len(" ".join(sheet.notes)) / CAPTION_LETTERS)
    for part in parts:
        if pages[-1] and part.height(size) > left:
            pages.append([])
            left = LATEX_HEIGHT - 3 * CAPTION_LEADING
        pages[-1].append(part)
        left -= part.height(size)
    return "\n".join(_latex_table(sheet, page, size, number, len(pages)) for number, page in enumerate(pages, 1))


def _split(panels: tuple[SheetPanel, ...], block: int) -> list[_Part]:
    """Parts that fit a page: cut between top headings where that is enough, else between methods."""
    columns, n = panels[0].columns, len(panels[0].columns)
    starts = [at for at in range(1, n) if block == 1 or columns[at][:-1] != columns[at - 1][:-1]]
    tops = {at for at in starts if columns[at][0] != columns[at - 1][0]}
    parts, start = [], 0
    while _Part(panels, slice(start, n)).size is None:
        able = [at for at in starts if at > start and _Part(panels, slice(start, at)).size is not None]
        if not able:
            break
        whole = [at for at in able if at in tops and len(columns[0]) > 1 and len(tops) < len(starts)]
        end = max(whole or able)
        parts.append(_Part(panels, slice(start, end)))
        start = end
    return [*parts, _Part(panels, slice(start, n))]


def _latex_table(sheet: Sheet, parts: list[_Part], size: str, number: int, n_tables: int) -> str:
    title = sheet.title + (f", part {number} of {n_tables}" if n_tables > 1 else "")
    words = [f"{title}.", *(sheet.notes if number == 1 else [])]
    label = re.sub(r"[^A-Za-z0-9]+", "-", f"{sheet.name}-{sheet.view}").strip("-").lower()
    return "\n".join([
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption[{{{_latex(title)}}}]{{{_latex(' '.join(words))}}}",
        rf"\label{{tab:{label}-{number}}}",
        r"\vspace{4pt}",
        "\n\\par\\medskip\n".join("\n".join(_latex_tabular(part, size)) for part in parts),
        r"\end{table}",
        "",
    ])  # fmt: skip


def _latex_tabular(part: _Part, size: str) -> Iterator[str]:
    """One tabular in a type size, panel after panel."""
    n_columns = len(part.panels[0].columns[part.columns])
    yield rf"{{\{size}\setlength{{\tabcolsep}}{{{LATEX_SEPARATION[size]:g}pt}}"
    yield rf"\begin{{tabular}}{{{'l' * part.n_stubs}{'r' * n_columns}}}"
    yield r"\toprule"
    yield from _latex_heading(part.panels[0], part.columns, part.n_stubs)
    yield r"\midrule"
    for at, panel in enumerate(part.panels):
        if at:
            yield r"\addlinespace"
        if panel.title:
            yield rf"\multicolumn{{{part.n_stubs + n_columns}}}{{l}}{{\textit{{{_latex(panel.title)}}}}} \\"
        yield from _latex_rows(panel, part.columns, part.n_stubs)
    yield r"\bottomrule"
    yield r"\end{tabular}}"


_SYMBOLS = {"τ": r"$\tau$", "σ": r"$\sigma$", "Δ": r"$\Delta$"}


def _math(escaped: str) -> str:
    """Greek letters, which `escape_latex` writes as their codes, as LaTeX's own."""
    for letter, command in _SYMBOLS.items():
        escaped = escaped.replace(f"U+{ord(letter):04X}", command)
    return escaped


def _latex(text: str) -> str:
    """A text for a cell: escaped, with a minus sign for a leading hyphen."""
    sign = "$-$" if text.startswith("-") and text != "-" else ""
    return sign + _math(escape_latex(text[1:] if sign else text))


def _latex_heading(panel: SheetPanel, columns: slice, n_stubs: int) -> Iterator[str]:
    lines = panel.heading(columns)
    for depth, line in enumerate(lines):
        last = depth + 1 == len(lines)
        words = [_latex(text) if last else rf"\multicolumn{{{span}}}{{c}}{{{_latex(text)}}}" for text, span in line]
        yield " & ".join([*[""] * n_stubs, *words]) + r" \\"
        if not last:
            yield " ".join(_rules(line, n_stubs))


def _rules(line: list[tuple[str, int]], n_stubs: int) -> Iterator[str]:
    start = n_stubs + 1
    for _, span in line:
        yield rf"\cmidrule(lr){{{start}-{start + span - 1}}}"
        start += span


def _latex_rows(panel: SheetPanel, columns: slice, n_stubs: int) -> Iterator[str]:
    """The lines of the body; a thin space where the first heading of the rows changes, a rule above added rows."""
    for at, (stub, row) in enumerate(zip(panel.shown_stubs(), panel.rows, strict=True)):
        if stub[0] in (LEAD, "ranking") and panel.stubs[at - 1][0] not in (LEAD, "ranking"):
            yield r"\midrule"
        elif at and n_stubs > 1 and stub[0]:
            yield r"\addlinespace"
        bold, under = r"\textbf{{{}}}".format, r"\underline{{{}}}".format
        cells = [cell.styled(_latex(cell.text), bold, under) for cell in row[columns]]
        yield " & ".join([*map(_latex, stub), *[""] * (n_stubs - len(stub)), *cells]) + r" \\"


# ---- terminal ---------------------------------------------------------------------------------------------


def to_terminal(sheet: Sheet, *, plain: bool = False) -> "list[TerminalTable]":
    """The panels for `rich.print`: best bold, second underlined; the notes are below the last.

    Args:
        plain: mark them by `*` and `'` as well, for an output that has neither bold nor underline.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as TerminalTable
    from rich.text import Text

    shown = []
    for at, panel in enumerate(sheet.panels):
        title = sheet.title if at == 0 else ""
        name = "\n".join(text for text in (title, panel.title) if text)
        last = at + 1 == len(sheet.panels)
        notes = [*sheet.notes, *(["* best, ' second best."] if plain else [])] if last else []
        table = TerminalTable(
            title=Text(name, "bold") if name else None, caption=Text(" ".join(notes), "dim") if notes else None,
            title_justify="left", caption_justify="left", header_style="", box=SIMPLE_HEAD, pad_edge=False,
            collapse_padding=True,
        )  # fmt: skip
        n_stubs = max(map(len, panel.stubs))
        for _ in range(n_stubs):
            table.add_column("", overflow="fold")
        before: tuple[str, ...] = ()
        for labels in panel.columns:
            again = [labels[: depth + 1] == before[: depth + 1] for depth in range(len(labels) - 1)]
            words = ["" if same else label for same, label in zip(again, labels, strict=False)]
            table.add_column(Text("\n".join([*words, labels[-1]])), justify="right", overflow="fold")
            before = labels
        for stub, row in zip(panel.shown_stubs(), panel.rows, strict=True):
            cells = [
                Text(
                    cell.text + (("*" if cell.best else "'" if cell.second else " ") if plain else ""),
                    cell.styled("", lambda _: "bold", lambda _: "underline"),
                )
                for cell in row
            ]
            table.add_row(*map(Text, stub), *[Text("")] * (n_stubs - len(stub)), *cells)
        shown.append(table)
    return shown
