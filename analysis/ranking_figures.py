"""Critical-difference diagrams: mean ranks on a line, bars under methods that are not shown to differ.

Demšar (2006), Figure 1. Drawn here rather than by scikit-posthocs, whose diagram writes the critical difference over
the ticks, prints names in the methods' colours (some are too pale for text), and does not show which methods that
lie within a bar's ends belong to it.
"""

import math
from dataclasses import dataclass
from itertools import combinations
from textwrap import wrap
from typing import TYPE_CHECKING

from analysis.figures import INK, Style
from analysis.ranking import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_NAME = 44
"""Letters of a method's name; of longer ones the two ends."""
ROW, BAR = 0.25, 0.16
"""Distance between rows of names and between bars, in inches."""
LETTER = 0.076
"""Width of an average letter of the names, in inches."""
FIRST_BAR = 0.17
"""From the axis to the first bar, in inches."""
AXIS = 4.2
"""Least length of the rank axis, in inches."""
CAPTION_LETTER = 0.061
"""Width of an average letter below, in inches."""


@dataclass(frozen=True)
class Layout:
    """Where things are, in inches from the axis line (y, downwards) and from the figure's left edge (x)."""

    width: float
    left: float
    right: float
    low: float
    high: float
    bars: int
    rows: int
    above: float

    def x(self, rank: float) -> float:
        return self.left + (rank - self.low) / (self.high - self.low) * (self.right - self.left)

    def row(self, at: int) -> float:
        """The height of a row of names."""
        return FIRST_BAR + BAR * self.bars + ROW * (at + 0.6)

    @property
    def bottom(self) -> float:
        return self.row(self.rows - 1) + 0.2


def draw_ranking(ranking: Ranking, styles: dict[str, Style], *, title: str | None = None) -> "Figure":
    """The critical-difference diagram of a ranking, with what was tested and how in words below it.

    Best mean rank left. A bar joins methods of which no two are shown to differ, its dots are its methods; a dashed
    bar joins methods of which some pairs could not be tested with so few blocks. Nemenyi's critical difference, where
    that is the test and the axis has room for it, is drawn above.

    Args:
        ranking: from `analysis.ranking.compare`.
        styles: of every method, from `analysis.figures.method_styles`, so that colours are those of other figures.
        title: None: the metric.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    place = _layout(ranking)
    caption = "\n".join(wrap(" ".join(ranking.notes), int((place.width - 0.3) / CAPTION_LETTER)))
    below = 0.14 * (caption.count("\n") + 1) + 0.12
    height = place.above + place.bottom + below
    with style.context("default"):
        figure = Figure(figsize=(place.width, height))
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        ax.set(xlim=(0, place.width), ylim=(place.bottom + below, -place.above))
        ax.axis("off")
        words = title or f"Mean ranks by {ranking.blocks.by_metric}"
        ax.text(place.width / 2, 0.14 - place.above, _ends(words, int(place.width / 0.1)), fontsize=11, color=INK,
                fontweight="bold", ha="center", va="top", parse_math=False)  # fmt: skip
        _draw_axis(ax, place)
        if ranking.cd is not None and ranking.cd <= place.high - place.low:
            _draw_critical_difference(ax, place, ranking.cd)
        _draw_methods(ax, place, ranking, styles)
        _draw_bars(ax, place, ranking)
        ax.text(0.15, place.bottom + 0.02, caption, fontsize=8, color="#555555", ha="left", va="top", linespacing=1.25,
                parse_math=False)  # fmt: skip
    return figure


def _ends(name: str, limit: int) -> str:
    """The name, or its two ends where it has more than `limit` letters."""
    return name if len(name) <= limit else f"{name[: limit // 2]}…{name[-(limit // 2) :]}"


def _sides(ranking: Ranking) -> tuple[list[str], list[str]]:
    """The methods named at the left, best first, and at the right, worst first."""
    methods = ranking.methods
    half = (len(methods) + 1) // 2
    return methods[:half], methods[half:][::-1]


def _layout(ranking: Ranking) -> Layout:
    ranks = ranking.mean_ranks
    k = len(ranks)
    low, high = (1, k) if k <= 8 else (math.floor(ranks.min()), math.ceil(ranks.max()))
    if ranking.cd is not None and ranking.cd < k - 1:
        high = max(high, min(k, math.ceil(low + ranking.cd)))
        low = min(low, max(1, math.floor(high - ranking.cd)))
    left, right = (
        max(len(_ends(name, LONGEST_NAME)) for name in side) * LETTER + 0.85 if side else 0.6
        for side in _sides(ranking)
    )
    axis = max(AXIS, 0.28 * (high - low))
    return Layout(
        width=left + axis + right,
        left=left,
        right=left + axis,
        low=low,
        high=high,
        bars=1 + max(_levels(ranking), default=0),
        rows=(k + 1) // 2,
        above=0.95 if ranking.cd is not None else 0.7,
    )


def _levels(ranking: Ranking) -> list[int]:
    """The line each bar is drawn on, counted downwards, such that bars on one line do not touch."""
    gap = 0.03 * float(ranking.mean_ranks.max() - ranking.mean_ranks.min())
    lines: list[list[tuple[float, float]]] = []
    levels = []
    for group in ranking.groups:
        own = ranking.mean_ranks[list(group)]
        low, high = float(own.min()) - gap, float(own.max()) + gap
        free = (at for at, taken in enumerate(lines) if all(low > end or high < start for start, end in taken))
        level = next(free, len(lines))
        if level == len(lines):
            lines.append([])
        lines[level].append((low, high))
        levels.append(level)
    return levels


def _draw_axis(ax: "Axes", place: Layout) -> None:
    """The rank axis with ticks above it."""
    ax.plot([place.left, place.right], [0, 0], color=INK, linewidth=1, solid_capstyle="butt", zorder=3)
    span = int(place.high - place.low)
    step = 1 if span <= 20 else 2 if span <= 40 else 5
    for rank in range(int(place.low), int(place.high) + 1):
        named = (rank - int(place.low)) % step == 0
        ax.plot([place.x(rank)] * 2, [0, -0.07 if named else -0.04], color=INK, linewidth=1, zorder=3)
        if named:
            ax.text(place.x(rank), -0.1, str(rank), fontsize=9, color=INK, ha="center", va="bottom")
    for rank in range(int(place.low), int(place.high)):
        if span <= 8:
            ax.plot([place.x(rank + 0.5)] * 2, [0, -0.04], color=INK, linewidth=0.8, zorder=3)
    ax.text(place.left - 0.12, -0.1, "better", fontsize=8, color="#555555", ha="right", va="bottom")
    ax.text(place.right + 0.12, -0.1, "worse", fontsize=8, color="#555555", ha="left", va="bottom")


def _draw_critical_difference(ax: "Axes", place: Layout, cd: float) -> None:
    """A bar of the critical difference's length above the axis, starting at the best end."""
    start, end, y = place.x(place.low), place.x(place.low + cd), -0.36
    ax.plot([start, end], [y, y], color=INK, linewidth=1.2, zorder=3)
    for x in (start, end):
        ax.plot([x, x], [y - 0.04, y + 0.04], color=INK, linewidth=1.2, zorder=3)
    ax.text((start + end) / 2, y - 0.05, f"CD = {cd:.2f}", fontsize=9, color=INK, ha="center", va="bottom")


def _draw_methods(ax: "Axes", place: Layout, ranking: Ranking, styles: dict[str, Style]) -> None:
    """A marker on the axis, a line down and sideways, and the name with the mean rank, for every method."""
    for side, names in zip(("left", "right"), _sides(ranking), strict=True):
        end = place.left - 0.1 if side == "left" else place.right + 0.1
        away = -1 if side == "left" else 1
        for at, name in enumerate(names):
            x, y, look = place.x(float(ranking.mean_ranks[name])), place.row(at), styles[name]
            for colour, width in (("#999999", 2.0), (look.edge, 1.2)):  # an outline, for pale colours
                ax.plot([x, x, end], [0, y, y], color=colour, linewidth=width, zorder=1, solid_joinstyle="miter")
            for at_x, at_y in ((x, 0.0), (end, y)):
                ax.scatter(at_x, at_y, s=26, marker=_filled(look.marker), facecolor=look.face, edgecolor=INK,
                           linewidth=0.6, zorder=5)  # fmt: skip
            words = [_ends(name, LONGEST_NAME), f"{ranking.mean_ranks[name]:.2f}"]
            text = "  ".join(words if side == "left" else words[::-1])
            ax.text(end + away * 0.1, y, text, fontsize=9, color=INK, ha="right" if side == "left" else "left",
                    va="center", parse_math=False)  # fmt: skip


def _filled(marker: str) -> str:
    """A marker that has an inside: the constant predictor's dash elsewhere is a line, which would look like a tick."""
    return "p" if marker == "_" else marker


def _draw_bars(ax: "Axes", place: Layout, ranking: Ranking) -> None:
    """A bar a group, with a dot under each of its methods; dashed where a pair of the group was not testable."""
    for group, level in zip(ranking.groups, _levels(ranking), strict=True):
        members = list(group)
        x = [place.x(float(ranking.mean_ranks[name])) for name in members]
        y = FIRST_BAR + BAR * level
        tested = all(ranking.testable.loc[one, other] for one, other in combinations(members, 2))
        room = 0.05  # so that methods of equal ranks have a bar as well
        ax.plot([min(x) - room, max(x) + room], [y, y], color=INK, linewidth=3.2, zorder=2, solid_capstyle="butt",
                linestyle="-" if tested else (0, (1.2, 0.8)), dash_capstyle="butt")  # fmt: skip
        ax.scatter(x, [y] * len(x), s=13, facecolor="white", edgecolor=INK, linewidth=0.9, zorder=4)
