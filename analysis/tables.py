"""Result tables: one per data set and metric, and their text as Markdown, LaTeX, CSV and on a terminal.

Rows are label ratio x modality subset, columns are methods, as in Robult, Tables 1 to 3. Every name that comes
from a grid is escaped for the format it is written into.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from analysis.results import CHECKPOINTS, tested

if TYPE_CHECKING:
    from rich.table import Table as TerminalTable

ROW = ["label_ratio", "corruption", "modalities"]
MISSING = "—"
CONSTANT_MARK = "†"
LATEX_ROWS = 40
"""Rows of one LaTeX table: what a page holds."""
LATEX_WIDTH = 480.0
"""Width of one LaTeX table in points: the text of an A4 page with small margins."""
LATEX_SIZES = {"small": 5.0, "footnotesize": 4.6, "scriptsize": 4.3, "tiny": 3.7}
"""Type sizes, with the width of a bold digit in points; a table is set in the largest that fits."""


@dataclass(frozen=True)
class Cell:
    """One method at one label ratio and modality subset: mean and standard deviation over seeds."""

    mean: float
    std: float
    n_seeds: int
    n_nan: int
    best: bool
    second: bool
    is_constant: bool

    def text(self, n_expected: int, digits: int = 3) -> str:
        """The numbers as a table prints them: `0.912 ± 0.013`, without marks.

        `(n=2)` is added where fewer seeds than `n_expected` are there, `NaN (1/3)` says that one of three seeds
        has no defined value, and a cell without any result is a dash.
        """
        if self.n_seeds == 0:
            return MISSING
        if self.n_nan > 0:
            return "NaN" if self.n_nan == self.n_seeds else f"NaN ({self.n_nan}/{self.n_seeds})"
        spread = f" ± {self.std:z.{digits}f}" if self.n_seeds > 1 else ""
        partial = f" (n={self.n_seeds})" if self.n_seeds < n_expected else ""
        return f"{self.mean:z.{digits}f}{spread}{partial}"


@dataclass(frozen=True)
class Row:
    """One label ratio and modality subset, with a cell per method."""

    label_ratio: float
    modalities: str
    """The modality subset, and how it is corrupted where it is."""
    cells: tuple[Cell, ...]

    @property
    def ratio(self) -> str:
        return percent(self.label_ratio)


@dataclass(frozen=True)
class Table:
    """The results of one data set by one metric."""

    dataset: str
    metric: str
    higher_is_better: bool
    primary: bool
    checkpoint: str
    methods: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def arrow(self) -> str:
        return "↑" if self.higher_is_better else "↓"

    @property
    def caption(self) -> str:
        better = "higher" if self.higher_is_better else "lower"
        return f"{self.dataset}: {self.metric} {self.arrow} ({better} is better)"

    @cached_property
    def n_seeds(self) -> int:
        """Seeds of the cells that have most."""
        return max(cell.n_seeds for row in self.rows for cell in row.cells)

    @property
    def notes(self) -> list[str]:
        """What a reader must know to read the numbers, in plain sentences; only what occurs in this table."""
        cells = [cell for row in self.rows for cell in row.cells]
        checkpoint = f"Test results of the {CHECKPOINTS[self.checkpoint]}."
        if self.n_seeds > 1:
            spread = f"Mean ± sample standard deviation (ddof = 1) over n = {self.n_seeds} seeds"
            partial = any(0 < cell.n_seeds < self.n_seeds for cell in cells)
            notes = [f"{spread}, fewer where (n=...) says so." if partial else f"{spread}.", checkpoint]
        else:
            notes = ["One seed: no standard deviation.", checkpoint]
        if any(cell.best for cell in cells):
            notes.append("Best of a row in bold, second best underlined; equal means share the mark.")
        if any(cell.is_constant for cell in cells):
            notes.append(f"{CONSTANT_MARK} equals the constant predictor, which ignores its inputs.")
        if any(cell.n_nan for cell in cells):
            notes.append("NaN: undefined for at least one seed, as (seeds undefined/seeds) where not for all.")
        if any(cell.n_seeds == 0 for cell in cells):
            notes.append(f"{MISSING} no finished result.")
        return notes

    def texts(self, row: Row) -> list[str]:
        """The cells of a row as text, constant marker included."""
        return [cell.text(self.n_seeds) + (CONSTANT_MARK if cell.is_constant else "") for cell in row.cells]

    @cached_property
    def widths(self) -> list[int]:
        """Letters of the widest text of each method's column."""
        columns = zip(*map(self.texts, self.rows), strict=True)
        return [max(map(len, (name, *texts))) for name, texts in zip(self.methods, columns, strict=True)]


def percent(ratio: float) -> str:
    """A label ratio as tables print it: 0.05 -> `5%`."""
    return f"{100 * ratio:.6g}%"


def make_tables(summary: pd.DataFrame, checkpoint: str) -> list[Table]:
    """One table per data set and metric, in the order of the summary: primary metric first.

    Args:
        summary: from `analysis.results.summarise`.
        checkpoint: the checkpoint it was made for, `last` or `best`.
    """
    tables = []
    for (dataset, metric), part in summary.groupby(["dataset", "metric"], sort=False):
        rows = [
            Row(float(cells["label_ratio"].iloc[0]), tested(str(modalities), str(corruption)), tuple(_cells(cells)))
            for (_, corruption, modalities), cells in part.groupby(ROW, sort=False)
        ]
        first = part.iloc[0]
        methods = tuple(part["method"].iloc[: len(rows[0].cells)])
        flags = bool(first["higher_is_better"]), bool(first["primary"])
        tables.append(Table(str(dataset), str(metric), *flags, checkpoint, methods, tuple(rows)))
    return tables


def _cells(part: pd.DataFrame) -> Iterator[Cell]:
    names = ("mean", "std", "n_seeds", "n_nan", "best", "second", "is_constant")
    return map(Cell, *(part[name].tolist() for name in names))


# ---- Markdown ---------------------------------------------------------------------------------------------


def escape_markdown(text: str) -> str:
    """Text that GitHub's Markdown shows as it is, on one line, inside a table or outside."""
    text = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, best in bold, second underlined (`<ins>`), notes below."""

    def line(words: Sequence[str]) -> str:
        return f"| {' | '.join(words)} |"

    lines = [
        f"**{escape_markdown(table.caption)}**",
        "",
        line(["label ratio", "modalities", *map(escape_markdown, table.methods)]),
        line(["---:", "---", *["---:"] * len(table.methods)]),
    ]
    for row in table.rows:
        cells = [
            _styled(cell, escape_markdown(text), "**{}**".format, "<ins>{}</ins>".format)
            for cell, text in zip(row.cells, table.texts(row), strict=True)
        ]
        lines.append(line([row.ratio, escape_markdown(row.modalities), *cells]))
    return "\n".join([*lines, "", " ".join(map(escape_markdown, table.notes)), ""])


def _styled(cell: Cell, text: str, best: Callable[[str], str], second: Callable[[str], str]) -> str:
    if cell.best:
        return best(text)
    return second(text) if cell.second else text


# ---- LaTeX ------------------------------------------------------------------------------------------------

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": "{`}", "[": "{[}", "]": "{]}", "±": r"$\pm$", "†": r"$^\dagger$", "—": "---",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}",
}  # fmt: skip
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030a": "r", "\u030c": "v",
            "\u0327": "c"}  # fmt: skip


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is; a character that plain LaTeX has no glyph for becomes its code, `U+4E2D`.

    Brackets are braced, so that none after a row's end is read as an option; pairs of hyphens stay hyphens.
    """
    pieces = re.split("(?<=-)(?=-)", " ".join(text.split()))
    return "{}".join("".join(_LATEX.get(char) or _latex_char(char) for char in piece) for piece in pieces)


def _latex_char(char: str) -> str:
    """One character: ASCII as it is, an accented letter by its accent's command, any other as its code."""
    if " " <= char <= "~":
        return char
    parts = unicodedata.normalize("NFD", char)
    if len(parts) == 2 and parts[1] in _ACCENTS and parts[0].isascii():
        return rf"\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"U+{ord(char):04X}"


def to_latex(table: Table) -> str:
    r"""The table as LaTeX `table` environments; needs `\usepackage{booktabs}` and nothing else.

    Best is `\textbf`, second `\underline`. What a page cannot hold, more than `LATEX_ROWS` rows or too wide in
    the smallest type, is continued in further environments; marks are of the whole row.
    """
    rows = [slice(at, at + LATEX_ROWS) for at in range(0, len(table.rows), LATEX_ROWS)]
    parts = [(some_rows, columns) for some_rows in rows for columns in _latex_columns(table)]
    return "\n".join(_latex_part(table, *part, number, len(parts)) for number, part in enumerate(parts, 1))


def _latex_width(table: Table, columns: slice, digit: float) -> float:
    """Estimated width in points of a table with some of the methods, in type with digits of `digit` points."""
    widths = table.widths[columns]
    names = len("label ratio") + max(len(row.modalities) for row in table.rows)
    return digit * (names + sum(widths)) + 8.0 * (2 + len(widths))


def _latex_columns(table: Table) -> list[slice]:
    """The methods of each part: as few parts as the smallest type allows, of about equal size."""
    n, smallest = len(table.methods), min(LATEX_SIZES.values())
    for size in range(n, 0, -1):
        parts = [slice(at, min(at + size, n)) for at in range(0, n, size)]
        if all(_latex_width(table, part, smallest) <= LATEX_WIDTH for part in parts):
            break
    even = -(-n // len(parts))
    parts_even = [slice(at, min(at + even, n)) for at in range(0, n, even)]
    fits = all(_latex_width(table, part, smallest) <= LATEX_WIDTH for part in parts_even)
    return parts_even if fits else parts


def _latex_part(table: Table, rows: slice, columns: slice, number: int, n_parts: int) -> str:
    continued = f", part {number} of {n_parts}" if n_parts > 1 else ""
    methods = table.methods[columns]
    fits = (name for name, digit in LATEX_SIZES.items() if _latex_width(table, columns, digit) <= LATEX_WIDTH)
    size = next(fits, "tiny")
    label = "tab:" + re.sub(r"[^A-Za-z0-9]+", "-", f"{table.dataset}-{table.metric}").strip("-") + "-" + str(number)
    head = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\{size}",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape_latex(table.caption + continued)}. {escape_latex(' '.join(table.notes))}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{rl{'r' * len(methods)}}}",
        r"\toprule",
        " & ".join(["label ratio", "modalities", *map(escape_latex, methods)]) + r" \\",
        r"\midrule",
    ]
    foot = [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    return "\n".join([*head, *_latex_rows(table, rows, columns), *foot])


def _latex_rows(table: Table, rows: slice, columns: slice) -> Iterator[str]:
    """The lines of the body; a label ratio is printed once, and a thin space separates it from the next."""
    before: Row | None = None
    for row in table.rows[rows]:
        starts = before is None or row.label_ratio != before.label_ratio
        if starts and before is not None:
            yield r"\addlinespace"
        cells = [
            _styled(cell, _latex_number(text), r"\textbf{{{}}}".format, r"\underline{{{}}}".format)
            for cell, text in zip(row.cells[columns], table.texts(row)[columns], strict=True)
        ]
        yield " & ".join([escape_latex(row.ratio) if starts else "", escape_latex(row.modalities), *cells]) + r" \\"
        before = row


def _latex_number(text: str) -> str:
    """A cell with a minus sign, where it has one, in place of the hyphen."""
    return f"$-${escape_latex(text[1:])}" if text.startswith("-") else escape_latex(text)


# ---- CSV and terminal -------------------------------------------------------------------------------------


_FORMULA = re.compile(r"[=@\t\r]|[+-](?!$|[\s\d.]|inf|nan)")


def no_formula(text: str) -> str:
    """Text that no spreadsheet computes: a quote goes before what begins as a formula does. Numbers stay numbers."""
    return f"'{text}" if _FORMULA.match(text) else text


def to_csv(frame: pd.DataFrame) -> str:
    """Numbers, not strings: one line per row of the frame, every digit kept, NaN as an empty field."""
    texts = frame.select_dtypes(include=["object", "string", "category"]).columns
    safe = {
        name: frame[name].map(lambda value: no_formula(value) if isinstance(value, str) else value) for name in texts
    }
    return frame.assign(**safe).to_csv(index=False, lineterminator="\n")


def to_terminal(table: Table, *, plain: bool = False) -> "TerminalTable":
    """The table for `rich.print`: best bold, second underlined.

    Args:
        plain: mark them by `*` and `'` as well, for an output that has neither bold nor underline.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as TerminalTable
    from rich.text import Text

    notes = [*table.notes, *(["* best, ' second best."] if plain else [])]
    # `Text` throughout: a method such as `robult[no_rec]` would be read as markup in a plain string.
    shown = TerminalTable(
        title=Text(table.caption, "bold"), caption=Text(" ".join(notes), "dim"), title_justify="left",
        caption_justify="left", header_style="", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    shown.add_column(Text("label ratio"), justify="right", max_width=5)
    shown.add_column(Text("modalities"), overflow="fold")
    for method in table.methods:
        shown.add_column(Text(method), justify="right", overflow="fold")
    before: Row | None = None
    for row in table.rows:
        starts = before is None or before.label_ratio != row.label_ratio
        if starts and before is not None:
            shown.add_section()
        cells = [
            Text(text.replace(" ± ", "±") + (_plain_mark(cell) if plain else ""), _terminal_style(cell))
            for cell, text in zip(row.cells, table.texts(row), strict=True)
        ]
        shown.add_row(Text(row.ratio if starts else ""), Text(row.modalities), *cells)
        before = row
    return shown


def _plain_mark(cell: Cell) -> str:
    return "*" if cell.best else "'" if cell.second else " "


def _terminal_style(cell: Cell) -> str:
    return "bold" if cell.best else "underline" if cell.second else ""
