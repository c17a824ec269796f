"""Figures: one per data set, bars of the primary metric per modality subset, a facet per label ratio.

Bars grow from the constant predictor, not from 0: what the inputs taught a method is the length of its bar, so
lengths may be compared although the axis is cut, and a bar of no length is a method that learnt nothing. For a
metric that is better lower the bars hang. Without a constant predictor (or where its metric is undefined) the
bars start at 0 and the axis shows it.
"""

import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.results import CHECKPOINTS, CONSTANT, base_method, order_methods
from analysis.tables import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SUBSETS = 12
"""Subsets one figure can show legibly; of more, the single modalities and the full set are drawn."""

COLOURS = {
    # The papers' own methods: Okabe and Ito's colours.
    "robult": "#0072B2", "gmc": "#E69F00", "actionmae": "#009E73", "prompt_trans": "#CC79A7", "raml": "#D55E00",
    "unimodal": "#56B4E9", CONSTANT: "#444444",
    # The others: found by search, so that any two of all these are at least 15 apart in CIE Lab (1976) for normal
    # sight and for simulated protanopia, deuteranopia and tritanopia (Machado et al. 2009).
    "concat": "#C0AB59", "augmentation": "#B6C9B6", "mvae": "#B3FC83", "mmvae": "#1FF9A2", "cra": "#8906E0",
    "mmin": "#9B83FC", "tate": "#A6543F", "tmc": "#03347C", "etmc": "#3C024B", "md": "#674C67", "dicmor": "#702310",
    "sem": "#23212C",
}  # fmt: skip
MARKERS = {
    "robult": "o", "gmc": "s", "actionmae": "^", "prompt_trans": "D", "raml": "v", "unimodal": "P", CONSTANT: "_",
    "concat": "X", "augmentation": "o", "mvae": "s", "mmvae": "^", "cra": "D", "mmin": "v", "tate": "P", "tmc": "X",
    "etmc": "o", "md": "s", "dicmor": "D", "sem": "^",
}  # fmt: skip
SPARE = ("#B8860B", "#4B0082", "#2F4F4F", "#8FBC8F", "#A0522D", "#708090", "#C71585", "#6B8E23")
"""For methods of a user's own."""
HATCHES = ("////", "....", "xxxx", "\\\\\\\\", "----", "++++", "||||", "oooo")
"""For variants, on a lighter base colour."""

INK = "#222222"
DPI = 150


@dataclass(frozen=True)
class Style:
    """How a method looks in every figure: bar colour, its edge and hatch, the shape of its points."""

    face: str
    edge: str
    hatch: str
    marker: str


def method_styles(methods: Iterable[str]) -> dict[str, Style]:
    """A style per method label, the same in every figure: by method id, variants lighter and hatched.

    Ids that the suite does not know get a spare colour, and variants a hatch, chosen by their name, so that they
    keep it from report to report; only a collision within `methods` moves one on to the next free choice.
    """
    methods = order_methods(methods)
    bases = sorted({base_method(method) for method in methods})
    unknown = [base for base in bases if base not in COLOURS]
    spare = _choices(unknown, len(SPARE))
    styles = {}
    for base in bases:
        colour = COLOURS.get(base) or SPARE[spare[base] % len(SPARE)]
        marker = MARKERS.get(base) or "osD^vPX"[spare[base] % 7]
        variants = [method for method in methods if base_method(method) == base and method != base]
        styles[base] = Style(colour, colour, "", marker)
        for method, choice in _choices(variants, len(HATCHES)).items():
            styles[method] = Style(_lighter(colour), colour, HATCHES[choice % len(HATCHES)], marker)
    return {method: styles[method] for method in methods}


def _choices(names: Sequence[str], n: int) -> dict[str, int]:
    """A number in [0, n) per name, by a hash of the name, without collisions while there are at most n names."""
    taken: dict[str, int] = {}
    for name in sorted(names):
        choice = zlib.crc32(name.encode()) % n
        while choice in taken.values() and len(taken) < n:
            choice = (choice + 1) % n
        taken[name] = choice
    return taken


def _lighter(colour: str) -> str:
    """Halfway to white."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = to_rgb(colour)
    return to_hex((0.5 + red / 2, 0.5 + green / 2, 0.5 + blue / 2))


# ---- what is drawn ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panels:
    """The numbers of one figure. R label ratios, S modality subsets, K methods without the constant predictor."""

    dataset: str
    metric: str
    higher_is_better: bool
    checkpoint: str
    ratios: tuple[float, ...]
    subsets: tuple[str, ...]
    n_hidden: int
    """Subsets that are in the tables and not drawn."""
    methods: tuple[str, ...]
    """Those that have a result on this data set."""
    mean: NDArray[np.float64]
    """(R, S, K); NaN where undefined or missing."""
    std: NDArray[np.float64]
    """(R, S, K); NaN for one seed."""
    n_seeds: NDArray[np.int64]
    """(R, S, K); 0 where missing."""
    constant: NDArray[np.float64]
    """(R,) mean of the constant predictor; NaN where there is none."""
    points: pd.DataFrame
    """One row a seed: `ratio`, `subset`, `method` (indices), `value`, finite."""

    @property
    def baseline(self) -> NDArray[np.float64]:
        """Where bars start, (R,): the constant predictor if it is known in every facet, else 0."""
        known = bool(np.isfinite(self.constant).all())
        return self.constant if known else np.zeros(len(self.ratios))

    @property
    def starts_at_constant(self) -> bool:
        return bool(np.isfinite(self.constant).all())

    @property
    def hidden(self) -> str | None:
        """A sentence on the subsets that are not drawn, None when all are."""
        if self.n_hidden == 0:
            return None
        return (
            f"{self.dataset}: {self.n_hidden} of {self.n_hidden + len(self.subsets)} modality subsets "
            "are in the tables only, the figure would be illegible"
        )


def panels(frame: pd.DataFrame, summary: pd.DataFrame, dataset: str, checkpoint: str) -> Panels:
    """The numbers of the figure of one data set, by the first metric of its summary, the primary one.

    Args:
        frame: checked results (`analysis.results.check_frame`).
        summary: from `analysis.results.summarise`, made for `checkpoint`.
        dataset: label of the data set.
        checkpoint: `last` or `best`.
    """
    part = summary[(summary["dataset"] == dataset) & (summary["corruption"] == "")]
    metric = str(part["metric"].iloc[0])
    part = part[part["metric"] == metric]
    subsets, n_hidden = _legible(part[["modalities", "n_modalities", "full"]].drop_duplicates())
    ratios = [float(ratio) for ratio in part["label_ratio"].unique()]
    known = part.groupby("method", sort=False)["n_seeds"].max() > 0
    drawn = [str(method) for method in known.index[known] if method != CONSTANT]
    grid = part.set_index(["label_ratio", "modalities", "method"])
    axes = pd.MultiIndex.from_product([ratios, subsets, drawn])
    shape = len(ratios), len(subsets), len(drawn)
    chosen = grid.loc[axes] if drawn else grid.iloc[:0]
    constant = part[part["method"] == CONSTANT].groupby("label_ratio")["mean"].mean().reindex(ratios)
    return Panels(
        dataset, metric, bool(part["higher_is_better"].iloc[0]), checkpoint, tuple(ratios), tuple(subsets), n_hidden,
        tuple(drawn), chosen["mean"].to_numpy(np.float64).reshape(shape),
        chosen["std"].to_numpy(np.float64).reshape(shape), chosen["n_seeds"].to_numpy(np.int64).reshape(shape),
        constant.to_numpy(np.float64), _points(frame, dataset, metric, checkpoint, ratios, subsets, drawn),
    )  # fmt: skip


def _legible(facts: pd.DataFrame) -> tuple[list[str], int]:
    """The subsets to draw and how many are left out."""
    names = [str(name) for name in facts["modalities"]]
    if len(names) <= MAX_SUBSETS:
        return names, 0
    ends = facts.loc[(facts["n_modalities"] == 1) | facts["full"], "modalities"].tolist()
    kept = (ends or names)[:MAX_SUBSETS]
    return kept, len(names) - len(kept)


def _points(
    frame: pd.DataFrame,
    dataset: str,
    metric: str,
    checkpoint: str,
    ratios: list[float],
    subsets: list[str],
    methods: list[str],
) -> pd.DataFrame:
    """The seeds' values, with their places in the figure."""
    chosen = frame[
        (frame["dataset"] == dataset)
        & (frame["metric"] == metric)
        & (frame["checkpoint"] == checkpoint)
        & (frame["corruption"] == "")
        & frame["modalities"].isin(subsets)
        & frame["method"].isin(methods)
        & np.isfinite(frame["value"])
    ].sort_values(["label_ratio", "modalities", "method", "seed"])
    places = {
        "ratio": pd.Index(ratios).get_indexer(pd.Index(chosen["label_ratio"])),
        "subset": pd.Index(subsets).get_indexer(pd.Index(chosen["modalities"])),
        "method": pd.Index(methods).get_indexer(pd.Index(chosen["method"])),
    }
    return pd.DataFrame(places | {"value": chosen["value"].to_numpy()})


# ---- drawing ----------------------------------------------------------------------------------------------

GAP = 0.26
"""Least space between groups of bars, as a share of a group's width."""
WIDEST_BAR = 0.36
"""In inches."""


def draw(panels: Panels, styles: dict[str, Style]) -> "Figure":
    """The bar chart of one data set: a facet per label ratio, a group of bars per modality subset.

    Error bars are the sample standard deviation over seeds, points are the seeds, the dashed line is the
    constant predictor; a dash stands where there is no result, `NaN` where it is undefined.
    """
    from matplotlib.figure import Figure

    n_subsets, n_methods = len(panels.subsets), max(1, len(panels.methods))
    width = float(np.clip(0.9 + n_subsets * (0.19 * n_methods + 0.3), 7.0, 16.0))
    group = (width - 0.9) / n_subsets  # inches
    step = min((1 - GAP) / n_methods, WIDEST_BAR / group)
    with _plain_style():
        figure = Figure(figsize=(width, 1.4 + 2.7 * len(panels.ratios)), layout="constrained")
        axes = figure.subplots(len(panels.ratios), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for place, ax in enumerate(axes):
            _draw_facet(ax, panels, place, styles, step)
        axes[0].set_ylim(*_limits(panels))
        _label_subsets(axes[-1], panels.subsets, group)
        _legend(figure, panels, styles, width)
        _explain(figure, panels)
    return figure


def _draw_facet(ax: "Axes", panels: Panels, place: int, styles: dict[str, Style], step: float) -> None:
    """One label ratio; `step` is the distance between bars, groups are 1 apart."""
    groups = np.arange(len(panels.subsets))
    base = panels.baseline[place]
    seeds = panels.points[panels.points["ratio"] == place]
    for k, method in enumerate(panels.methods):
        style = styles[method]
        x = groups + (k - (len(panels.methods) - 1) / 2) * step
        mean, std = panels.mean[place, :, k], panels.std[place, :, k]
        shown = np.isfinite(mean)
        ax.bar(x[shown], mean[shown] - base, step * 0.9, bottom=base, color=style.face, edgecolor=style.edge,
               hatch=style.hatch, linewidth=0.6, zorder=2)  # fmt: skip
        spread = shown & np.isfinite(std)
        ax.errorbar(x[spread], mean[spread], std[spread], fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.2,
                    capthick=0.9, zorder=4)  # fmt: skip
        own = seeds[seeds["method"] == k]
        ax.scatter(x[own["subset"]] + _spread_seeds(own["subset"], step), own["value"], s=9, marker=style.marker,
                   facecolor="white", edgecolor=INK, linewidth=0.5, zorder=5)  # fmt: skip
        up = panels.higher_is_better
        for at in np.flatnonzero(~shown):
            word = "NaN" if panels.n_seeds[place, at, k] else "missing"
            ax.annotate(word, (x[at], base), (0, 3 if up else -3), textcoords="offset points", rotation=90,
                        ha="center", va="bottom" if up else "top", fontsize=7, color=INK, zorder=6)  # fmt: skip
    if np.isfinite(panels.constant[place]):
        ax.axhline(panels.constant[place], color=COLOURS[CONSTANT], linestyle=(0, (5, 3)), linewidth=1.1, zorder=3)
    else:
        ax.axhline(base, color=INK, linewidth=0.8, zorder=3)
    ax.set_title(f"{percent(panels.ratios[place])} of the labels", loc="left", fontsize=9, parse_math=False)
    ax.grid(axis="y", color="#E4E4E4", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(axis="x", length=0)
    ax.tick_params(axis="both", labelsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_ylabel(f"{panels.metric} {'↑' if panels.higher_is_better else '↓'}", parse_math=False)


def _spread_seeds(subset: "pd.Series[int]", step: float) -> NDArray[np.float64]:
    """Sideways shifts that keep the seeds of one bar apart, symmetric about its middle."""
    order = subset.groupby(subset).cumcount().to_numpy(np.float64)
    count = subset.groupby(subset).transform("size").to_numpy(np.float64)
    shifts: NDArray[np.float64] = (order - (count - 1) / 2) / np.maximum(count - 1, 1) * step * 0.5
    return shifts


def _limits(panels: Panels) -> tuple[float, float]:
    """The y range: everything drawn, and where bars start, with a little room."""
    ends = [panels.baseline, panels.constant, panels.mean, panels.mean - panels.std, panels.mean + panels.std]
    values = np.concatenate([part.ravel() for part in ends] + [panels.points["value"].to_numpy(np.float64)])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    # A bar that starts at 0 starts on the axis itself.
    grounded = not panels.starts_at_constant and low == 0.0
    return (low if grounded else low - room), high + room


def _label_subsets(ax: "Axes", subsets: Sequence[str], inches: float) -> None:
    """Subset names below the groups: broken at `+` to fit, turned where a single name is too long."""
    room = max(int(inches / 0.075), 4)  # characters
    names = [_shortened(subset) for subset in subsets]
    turned = any(len(part) + 1 > room for name in names for part in name.split("+"))
    texts = ["\n".join(_break_at_plus(name, 24 if turned else room)) for name in names]
    ax.set_xticks(range(len(subsets)), texts)
    ax.set_xlim(-0.5, len(subsets) - 0.5)
    for label in ax.get_xticklabels():
        label.set_parse_math(False)
        if turned:
            label.set(rotation=30, ha="right", rotation_mode="anchor")


def _break_at_plus(subset: str, room: int) -> Iterator[str]:
    line = ""
    for part in subset.replace("+", "+\0").split("\0"):
        if line and len(line) + len(part) > room:
            yield line
            line = ""
        line += part
    yield line


def _shortened(name: str, limit: int = 60) -> str:
    """The name, or its two ends if it has more than `limit` characters."""
    return name if len(name) <= limit else f"{name[: limit // 2]}…{name[-limit // 2 :]}"


def _legend(figure: "Figure", panels: Panels, styles: dict[str, Style], width: float) -> None:
    """Title and legend above the facets, the legend in as many columns as fit."""
    from matplotlib.artist import Artist
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = [_shortened(method, 40) for method in panels.methods]
    handles: list[Artist] = [
        Patch(facecolor=styles[m].face, edgecolor=styles[m].edge, hatch=styles[m].hatch) for m in panels.methods
    ]
    if np.isfinite(panels.constant).any():
        names.append("constant predictor")
        handles.append(Line2D([], [], color=COLOURS[CONSTANT], linestyle=(0, (5, 3)), linewidth=1.1))
    inches = [0.55 + 0.068 * len(name) for name in names]
    fits = sum(inches) < width - 0.4
    columns = len(names) if fits else max(1, int((width - 0.4) / max(inches)))
    # A legend drops labels that start with an underscore, so the names are set afterwards.
    legend = figure.legend(handles, ["-"] * len(handles), loc="outside upper center", ncols=max(columns, 1),
                           frameon=False, fontsize=9, handlelength=1.6, columnspacing=1.4)  # fmt: skip
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
        text.set_parse_math(False)
    direction = "higher is better" if panels.higher_is_better else "lower is better"
    after = f": {_shortened(panels.metric, 30)}, {direction}"
    legend.set_title(_shortened(panels.dataset, max(int(width * 9) - len(after), 20)) + after)
    legend.get_title().set(fontsize=11, fontweight="bold", parse_math=False)


def _explain(figure: "Figure", panels: Panels) -> None:
    """What is drawn, in words below the facets."""
    start = (
        "Bars start at the constant predictor (dashed), not at 0: their length is what the inputs add"
        if panels.starts_at_constant
        else "Bars start at 0"
    )
    most = int(panels.n_seeds.max(initial=0))
    spread = f"Error bars: sample standard deviation over {most} seeds; points: seeds" if most > 1 else "One seed"
    hidden = f"\n{panels.n_hidden} more modality subsets are in the tables." if panels.n_hidden else ""
    words = f"{start}.\n{spread}. Test results of the {CHECKPOINTS[panels.checkpoint]}.{hidden}"
    figure.supxlabel(words, fontsize=8, color="#555555")


@contextmanager
def _plain_style() -> Iterator[None]:
    """Matplotlib's own defaults, whatever a user's matplotlibrc says, for the time of drawing."""
    from matplotlib import rc_context, style

    with style.context("default"), rc_context({"svg.hashsalt": "robult-bench", "hatch.linewidth": 0.6}):
        yield


def render(figure: "Figure", kind: Literal["png", "svg"]) -> bytes:
    """The figure as a PNG of `DPI` or an SVG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    with _plain_style():
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
