"""Panels of lines below a legend, with words below them: what all curves are drawn with."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.figures import COLOURS, HATCHES, INK, MAX_SUBSETS, Style
from analysis.results import CHECKPOINTS, CONSTANT, TIE, base_method, order_methods, some
from datasets.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

GREY = "#555555"
DASHES: tuple[Any, ...] = (
    (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (7, 2)), (0, (2.5, 1)), (0, (3, 1, 1, 1, 1, 1)),
    (0, (1, 2.5)), (0, (8, 1.5, 2, 1.5)),
)  # fmt: skip
"""Line patterns of variants, one for each hatch of bars."""
MAX_BANDS = 4
"""Lines of one panel up to which spreads are bands; the bands of more would cover each other, so they are bars."""
DENSE = 15
"""Points of a line up to which each has a marker, and a bar where bands would cover each other."""
MAX_ROWS, MAX_COLUMNS = 5, 4
"""Panels of a figure that has an axis in each direction."""
LETTER = 0.057
"""Width of an average letter of a caption, in inches."""


class Drawing(NamedTuple):
    """A figure and what must be said of it."""

    figure: "Figure | None"
    words: str
    """Without a figure: why there is nothing to draw. With one: which results it leaves out, empty where none."""


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a panel; NaN where there is no defined result, which is a gap."""

    name: str
    x: Floats
    mean: Floats
    std: Floats
    """NaN for one seed."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Lines over one axis."""

    title: str
    lines: tuple[Line, ...]
    x_label: str = ""
    y_label: str = ""
    log_x: bool = False
    log_y: bool = False
    ticks: tuple[float, ...] = ()
    """Where x was measured; empty: round numbers."""
    tick_text: Callable[[float], str] = "{:g}".format
    best: str = ""
    """`max` or `min`: the best point of each line is ringed."""


@dataclass(frozen=True)
class Look:
    """How a line looks."""

    colour: str
    marker: str
    dash: Any = "-"
    face: str = ""


def line_looks(styles: Mapping[str, Style]) -> dict[str, Look]:
    """Lines in the colours and with the markers of the bars; a variant is dashed, its markers are light.

    The constant predictor is a dashed line without markers, as everywhere.
    """
    looks = {}
    for method, style in styles.items():
        if base_method(method) == CONSTANT:
            looks[method] = Look(COLOURS[CONSTANT], "", (0, (5, 3)))
        else:
            dash = DASHES[HATCHES.index(style.hatch)] if style.hatch in HATCHES else "-"
            looks[method] = Look(style.edge, style.marker, dash, style.face)
    return looks


# ---- from summaries ---------------------------------------------------------------------------------------


def legible_subsets(part: pd.DataFrame) -> tuple[list[str], int]:
    """The modality subsets to draw, and how many are left out: of too many the single ones and the full set stay."""
    facts = part[["modalities", "n_modalities", "full"]].drop_duplicates()
    if len(facts) <= MAX_SUBSETS:
        return facts["modalities"].tolist(), 0
    ends = facts.loc[(facts["n_modalities"] == 1) | facts["full"], "modalities"].tolist()
    kept = (ends or facts["modalities"].tolist())[:MAX_SUBSETS]
    return kept, len(facts) - len(kept)


def method_lines(part: pd.DataFrame, column: str, at: Sequence[float]) -> tuple[Line, ...]:
    """A line for each method of a summary that has a defined mean anywhere, at the values `at` of a column."""
    lines = []
    for method in order_methods(part["method"]):
        own = part[part["method"] == method].set_index(column)[["mean", "std"]].reindex(list(at))
        if own["mean"].notna().any():
            lines.append(Line(method, np.array(at, float), own["mean"].to_numpy(float), own["std"].to_numpy(float)))
    return tuple(lines)


def of_metric(summary: pd.DataFrame, dataset: str, metric: str | None) -> pd.DataFrame:
    """A data set's rows of one metric, by default the primary one.

    Raises:
        UserError: there is none.
    """
    part = summary[summary["dataset"] == dataset]
    if part.empty:
        raise UserError(f"there are no results of '{dataset}'; there are: {some(summary['dataset'].unique(), 20)}.")
    if metric is None:
        metric = str(part["metric"].iloc[0])
    chosen = part[part["metric"] == metric]
    if chosen.empty:
        raise UserError(f"'{dataset}' has no metric '{metric}'; it has: {some(part['metric'].unique(), 20)}.")
    return chosen


def metric_label(part: pd.DataFrame) -> str:
    return f"{part['metric'].iloc[0]} {'↑' if part['higher_is_better'].iloc[0] else '↓'}"


def heading_of(part: pd.DataFrame) -> str:
    better = "higher" if part["higher_is_better"].iloc[0] else "lower"
    return f"{part['dataset'].iloc[0]}: {part['metric'].iloc[0]}, {better} is better"


def spread_told(part: pd.DataFrame) -> str:
    """How many seeds, what the spread is, and what a gap means where there is one."""
    most, least = int(part["n_seeds"].max()), int(part["n_seeds"].min())
    if most == 1:
        told = "One seed: no spread."
    else:
        number = f"{most} seeds" + (f", {least} in places" if least < most else "")
        told = f"Mean over {number}; spread: their sample standard deviation."
    return told + (" Gaps: undefined for at least one seed." if part["n_nan"].any() else "")


def columns_for(n: int) -> int:
    """Columns of n panels: as square as is legible."""
    return n if n <= 3 else 2 if n == 4 else 3 if n <= 9 else 4


# ---- drawing ----------------------------------------------------------------------------------------------


def draw_panels(
    panels: Sequence[Panel | None],
    looks: Mapping[str, Look],
    n_columns: int,
    heading: str,
    words: str,
    checkpoint: str | None,
    *,
    share_y: bool = True,
) -> "Figure":
    """Panels row by row below a legend, with words below them; None leaves a place empty."""
    from matplotlib.figure import Figure

    n_rows = math.ceil(len(panels) / n_columns)
    width = {1: 5.6, 2: 7.6, 3: 9.6}.get(n_columns, 12.0)
    names = list(dict.fromkeys(line.name for panel in panels if panel for line in panel.lines))
    order = [name for name in looks if name in names]
    with plain_style():
        one_axis = len({panel.x_label for panel in panels if panel}) == 1
        two_lines = any(panel and "\n" in panel.title for panel in panels)
        figure = Figure(figsize=(width, 1.5 + n_rows * (2.5 if two_lines else 2.25)), layout="constrained")
        axes = figure.subplots(n_rows, n_columns, squeeze=False, sharey=share_y).ravel()
        for at, ax in enumerate(axes):
            panel = panels[at] if at < len(panels) else None
            if panel is None:
                ax.set_visible(False)
                continue
            below = panels[at + n_columns] if at + n_columns < len(panels) else None
            repeated = below is not None and one_axis
            first = at % n_columns == 0 or not share_y
            shown = replace(panel, x_label="" if repeated else panel.x_label, y_label=panel.y_label if first else "")
            _draw_panel(ax, shown, looks, order, width / n_columns)
        if share_y and (beyond := _fit_methods(axes[0], [panel for panel in panels if panel])):
            words += beyond
            order = [name for name in order if base_method(name) != CONSTANT]
        _legend(figure, order, looks, width, heading)
        results = f" Test results of the {CHECKPOINTS[checkpoint]}." if checkpoint else ""
        explain(figure, f"{words}{results}")
    return figure


def _fit_methods(ax: "Axes", panels: Sequence[Panel]) -> str:
    """Fit the common y axis to the methods where the constant predictor is far from all of them, and say so."""
    lines = [line for panel in panels for line in panel.lines]
    ends = [line.mean + sign * np.nan_to_num(line.std) for line in lines if not _is_constant(line) for sign in (-1, 1)]
    flat = [line.mean for line in lines if _is_constant(line)]
    if not ends or not flat:
        return ""
    values, constant = np.concatenate(ends), np.concatenate(flat)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = max(high - low, TIE)
    least, most = float(np.nanmin(constant)), float(np.nanmax(constant))
    if most >= low - 0.4 * room and least <= high + 0.4 * room:
        return ""
    ax.set_ylim(low - 0.06 * room, high + 0.06 * room)
    value = f"{least:.3g}" if most - least < TIE else f"{least:.3g} to {most:.3g}"
    return f" The constant predictor ({value}) is {'above' if least > high else 'below'} the panels."


def _is_constant(line: Line) -> bool:
    return base_method(line.name) == CONSTANT


def _draw_panel(ax: "Axes", panel: Panel, looks: Mapping[str, Look], order: Sequence[str], inches: float) -> None:
    bands = sum(not _is_constant(line) for line in panel.lines) <= MAX_BANDS
    if panel.log_x:
        ax.set_xscale("log")
    if panel.log_y:
        ax.set_yscale("log")
    for line in panel.lines:
        _draw_line(ax, line, looks[line.name], order.index(line.name), bands, panel)
    _set_ticks(ax, panel, inches)
    room = int((inches - 0.5) / 0.07)
    title = "\n".join(_ends(part, room) for part in panel.title.split("\n"))
    ax.set_title(title, fontsize=9, loc="left", parse_math=False)
    ax.set_xlabel(panel.x_label, fontsize=9, parse_math=False)
    ax.set_ylabel(panel.y_label, fontsize=9, parse_math=False)
    ax.tick_params(axis="both", which="major", labelsize=8.5)
    ax.grid(axis="y", color="#E4E4E4", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_line(ax: "Axes", line: Line, look: Look, place: int, bands: bool, panel: Panel) -> None:
    """One line with its spread: a band, or bars where bands would cover each other."""
    from matplotlib.patheffects import Normal, Stroke

    floor = np.nanmin(line.mean) * 0.5 if panel.log_y else -np.inf
    low, high = np.maximum(line.mean - line.std, floor), line.mean + line.std
    spread = np.isfinite(line.std) & np.isfinite(line.mean) & bool(look.marker)
    dense = is_dense(line)
    if bands:
        ax.fill_between(line.x, low, high, where=spread, color=look.colour, alpha=0.16, linewidth=0, zorder=2)
    elif not dense:
        ends = np.stack([line.mean - low, high - line.mean])[:, spread]
        ax.errorbar(line.x[spread], line.mean[spread], ends, fmt="none", ecolor=look.colour, elinewidth=0.8,
                    capsize=1.8, capthick=0.8, alpha=0.8, zorder=2)  # fmt: skip
    # A pale colour gets a thin outline, so that it is seen on white.
    effects = [Stroke(linewidth=2.3, foreground="#777777"), Normal()] if _is_pale(look.colour) else None
    every = (place % 5, max(len(line.x) // 6, 1)) if dense else 1
    ax.plot(line.x, line.mean, color=look.colour, linestyle=look.dash, linewidth=1.6, path_effects=effects, zorder=3)
    if look.marker:
        ax.plot(line.x, line.mean, linestyle="", marker=look.marker, markersize=5, markeredgecolor=INK,
                markerfacecolor=look.face or look.colour, markeredgewidth=0.5, markevery=every, zorder=4)  # fmt: skip
    if panel.best and np.isfinite(line.mean).any():
        at = int(np.nanargmax(line.mean) if panel.best == "max" else np.nanargmin(line.mean))
        ax.plot(line.x[at], line.mean[at], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=INK,
                markeredgewidth=1.1, zorder=5)  # fmt: skip


def is_dense(line: Line) -> bool:
    """Whether a line has too many points to mark each."""
    return len(line.x) > DENSE


def _is_pale(colour: str) -> bool:
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.7


def _set_ticks(ax: "Axes", panel: Panel, inches: float) -> None:
    """A tick wherever something was measured, named as far as names do not touch; round numbers otherwise."""
    from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

    if not panel.ticks:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        return
    spots = np.log(panel.ticks) if panel.log_x else np.array(panel.ticks)
    span = float(np.ptp(spots)) or 1.0
    spots = (spots - spots.min()) / span * (inches - 0.9)  # inches from the first tick
    names = [panel.tick_text(value) for value in panel.ticks]
    kept = [len(names) - 1]  # from the right, as the largest is the one compared most
    for at in range(len(names) - 2, -1, -1):
        if spots[kept[-1]] - spots[at] >= 0.06 + 0.036 * (len(names[at]) + len(names[kept[-1]])):
            kept.append(at)
    ax.set_xticks(list(panel.ticks), [name if at in kept else "" for at, name in enumerate(names)])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.06)


def _legend(figure: "Figure", names: Sequence[str], looks: Mapping[str, Look], width: float, heading: str) -> None:
    """Heading and legend above the panels, the legend in as many columns as fit."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=look.colour, linestyle=look.dash, linewidth=1.6, marker=look.marker, markersize=5,
               markerfacecolor=look.face or look.colour, markeredgecolor=INK, markeredgewidth=0.5)
        for look in (looks[name] for name in names)
    ]  # fmt: skip
    words = ["constant predictor" if base_method(name) == CONSTANT else _ends(name, 40) for name in names]
    inches = [0.65 + 0.072 * len(word) for word in words]
    columns = len(words) if sum(inches) < width - 0.4 else max(1, int((width - 0.4) / max(inches, default=1)))
    # A legend drops labels that start with an underscore, so the names are set afterwards.
    legend = figure.legend(handles, ["-"] * len(words), loc="outside upper center", frameon=False, fontsize=9,
                           ncols=max(1, min(columns, len(words))), handlelength=2.6, columnspacing=1.4)  # fmt: skip
    for text, word in zip(legend.get_texts(), words, strict=True):
        text.set_text(word)
        text.set_parse_math(False)
    legend.set_title("\n".join(wrap(heading, int(width * 10.5))))
    legend.get_title().set(fontsize=11, fontweight="bold", parse_math=False, ha="center")


def explain(figure: "Figure", words: str) -> None:
    """What is drawn, in words below the panels."""
    text = "\n".join(wrap(words, int((figure.get_figwidth() - 0.3) / LETTER)))
    figure.supxlabel(text, fontsize=8, color=GREY, parse_math=False)


def _ends(name: str, limit: int) -> str:
    """The name, or its two ends where it has more than `limit` letters."""
    return name if len(name) <= limit else f"{name[: limit // 2]}…{name[-(limit // 2) :]}"


@contextmanager
def plain_style() -> Iterator[None]:
    """Matplotlib's own defaults, whatever a user's matplotlibrc says."""
    from matplotlib import rc_context, style

    with style.context("default"), rc_context({"hatch.linewidth": 0.6}):
        yield
