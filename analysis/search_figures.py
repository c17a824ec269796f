"""The landscape of a search: an objective over two hyper-parameters, with the best trial and the default marked.

Trials that fill a grid are drawn as its cells. Others are points, on a surface fitted to them (thin-plate splines with
smoothing, in the scale of the axes): the colour between points is an estimate, the colour of a point is what it gave.
"""

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.figures import DPI, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_TRIALS = 6
"""Complete trials that make a landscape; fewer are a list."""
SMOOTHING = 0.1
SIDE = 160
"""Points of the fitted surface in each direction."""


def draw_landscape(
    trials: pd.DataFrame,
    objective: str,
    *,
    x: str,
    y: str,
    higher: bool,
    log: tuple[bool, bool] = (False, False),
    default: Mapping[str, Any] | None = None,
) -> "Figure | None":
    """Draw an objective over two numeric hyper-parameters.

    Args:
        trials: a row a trial: `state`, a column for each parameter and for the objective.
        objective: its column, and the title of the colours.
        x: parameter along the horizontal axis.
        y: along the vertical axis.
        higher: whether more is better.
        log: whether each axis is logarithmic.
        default: the default configuration, marked where it has both parameters.

    Returns:
        The figure; None with too few complete trials, or all on one line.
    """
    from matplotlib.figure import Figure

    known = trials[trials["state"] == "complete"].dropna(subset=[x, y, objective])
    if len(known) < LEAST_TRIALS or known[x].nunique() < 2 or known[y].nunique() < 2:
        return None
    at = known[[x, y]].to_numpy(float)
    value = known[objective].to_numpy(float)
    figure = Figure(figsize=(6.4, 5.0), layout="constrained")
    ax = figure.add_subplot()
    for place, is_log in zip("xy", log, strict=True):
        if is_log:
            getattr(ax, f"set_{place}scale")("log")
    limits = _limits(value)
    colours = "viridis" if higher else "viridis_r"
    cells = known.groupby([x, y])[objective].mean().unstack()
    if cells.notna().all(axis=None) and cells.size > 1 and len(cells) * len(cells.columns) <= len(known):
        drawn = _draw_cells(ax, cells, log, colours, limits)
    else:
        drawn = _draw_surface(ax, at, value, log, colours, limits)
    _mark(ax, at, value, higher, default, x, y)
    bar = figure.colorbar(drawn, ax=ax, label=objective)
    bar.outline.set_visible(False)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    better = "higher is better" if higher else "lower is better"
    ax.set_title(f"{objective} on validation, {better}", fontsize=11, fontweight="bold", loc="left")
    return figure


def _limits(value: NDArray[np.float64]) -> tuple[float, float]:
    """Colours span what most trials gave, so that one bad trial does not take all of them."""
    low, high = np.quantile(value, [0.05, 0.95])
    return (float(low), float(high)) if low < high else (float(value.min()), float(value.max()) + 1e-9)


def _draw_cells(
    ax: "Axes", cells: pd.DataFrame, log: tuple[bool, bool], colours: str, limits: tuple[float, float]
) -> Any:
    """A cell a point of the grid, with its value written in it where there is room."""
    xs, ys = cells.index.to_numpy(float), cells.columns.to_numpy(float)
    drawn = ax.pcolormesh(
        _edges(xs, log[0]), _edges(ys, log[1]), cells.to_numpy(float).T, cmap=colours, vmin=limits[0], vmax=limits[1]
    )
    if cells.size <= 100:
        middle = sum(limits) / 2
        for (i, j), value in np.ndenumerate(cells.to_numpy(float)):
            dark = (value < middle) == (colours == "viridis")
            ax.annotate(
                f"{value:.3f}", (float(xs[i]), float(ys[j])), xytext=(0, 10), textcoords="offset points", ha="center",
                va="bottom", fontsize=7, color="white" if dark else INK,
            )  # fmt: skip
    ax.set_xticks(xs, [f"{v:.3g}" for v in xs])
    ax.set_yticks(ys, [f"{v:.3g}" for v in ys])
    ax.minorticks_off()
    return drawn


def _edges(values: NDArray[np.float64], is_log: bool) -> NDArray[np.float64]:
    """Borders of cells around sorted values."""
    v = np.log(values) if is_log else values
    inner = (v[1:] + v[:-1]) / 2
    edges = np.concatenate([[2 * v[0] - inner[0]], inner, [2 * v[-1] - inner[-1]]])
    return np.exp(edges) if is_log else edges


def _draw_surface(
    ax: "Axes",
    at: NDArray[np.float64],
    value: NDArray[np.float64],
    log: tuple[bool, bool],
    colours: str,
    limits: tuple[float, float],
) -> Any:
    """The trials as points on a surface fitted to them; `at` is (N, 2)."""
    from scipy.interpolate import RBFInterpolator

    scaled = np.stack([np.log(c) if is_log else c for c, is_log in zip(at.T, log, strict=True)], axis=1)
    low, span = scaled.min(0), np.ptp(scaled, axis=0)
    unit = (scaled - low) / span
    surface = RBFInterpolator(unit, value, smoothing=SMOOTHING, kernel="thin_plate_spline", degree=1)
    side = np.linspace(0, 1, SIDE)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    estimate = np.clip(surface(grid), value.min(), value.max()).reshape(SIDE, SIDE)
    xs, ys = (np.exp(side * s + b) if is_log else side * s + b for s, b, is_log in zip(span, low, log, strict=True))
    ax.pcolormesh(xs, ys, estimate.T, cmap=colours, vmin=limits[0], vmax=limits[1], shading="gouraud", rasterized=True)
    return ax.scatter(
        at[:, 0], at[:, 1], c=value, cmap=colours, vmin=limits[0], vmax=limits[1], s=26, edgecolors="white",
        linewidths=0.8, zorder=3, clip_on=False,
    )  # fmt: skip


def _mark(
    ax: "Axes",
    at: NDArray[np.float64],
    value: NDArray[np.float64],
    higher: bool,
    default: Mapping[str, Any] | None,
    x: str,
    y: str,
) -> None:
    """A star on the best trial, a diamond on the default, and what they are above the axes."""
    best = int(np.argmax(value) if higher else np.argmin(value))
    style = {"edgecolors": "black", "linewidths": 1.2, "zorder": 5, "clip_on": False}
    told = f"best trial: {x} {at[best, 0]:.3g}, {y} {at[best, 1]:.3g}, {value[best]:.4f}"
    ax.scatter(at[best, 0], at[best, 1], marker="*", s=230, c="#D55E00", label=told, **style)  # type: ignore[arg-type]
    if default is not None and all(isinstance(default.get(name), int | float) for name in (x, y)):
        place = float(default[x]), float(default[y])
        told = f"default: {x} {place[0]:.3g}, {y} {place[1]:.3g}"
        ax.scatter(*place, marker="D", s=70, c="white", label=told, **style)  # type: ignore[arg-type]
    legend = ax.legend(loc="upper left", bbox_to_anchor=(0, -0.13), ncols=1, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)


def render_drawn(draw: Callable[[], Any]) -> dict[str, bytes]:
    """What a drawer of another library draws, whole, as PNG and SVG: kind -> content; its style stays its own.

    Args:
        draw: returns the axes, or an array of them.
    """
    from matplotlib import pyplot, rc_context, style

    with style.context("default"), rc_context({"svg.hashsalt": "robult-bench"}):
        try:
            figure = np.ravel(np.asarray(draw(), dtype=object))[0].figure
            figure.set_facecolor("white")
            return {kind: _whole(figure, kind) for kind in ("png", "svg")}
        finally:
            pyplot.close("all")


def _whole(figure: "Figure", kind: str) -> bytes:
    """Cut to what is drawn: labels and legends may lie outside the figure."""
    buffer = io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata, bbox_inches="tight")
    return buffer.getvalue()
