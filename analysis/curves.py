"""Figures over a continuous axis (label ratio, corruption level, hyper-parameter, epoch) and of fusion weights.

After Robult, Figure 7, and RAML, Figures 4 and 5. Colours and markers of methods are those of `analysis.figures`.
Every function here gives a `Drawing`: the figure, or None where there is nothing to draw, and why in a sentence.
Letters: K methods, L levels, D features, P points of a line, E epochs.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.figures import COLOURS, HATCHES, INK, MAX_SUBSETS, Style
from analysis.results import CHECKPOINTS, CONSTANT, TIE, base_method, order_corruptions, order_methods, some
from analysis.tables import percent
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
MAX_KEYS = 12
"""Panels of a figure of training curves."""
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


# ---- metric against label ratio (Robult, Figure 7) --------------------------------------------------------


def draw_label_ratios(
    summary: pd.DataFrame, dataset: str, checkpoint: str, styles: Mapping[str, Style], *, metric: str | None = None
) -> Drawing:
    """A data set's metric against the share of visible labels, a panel a modality subset, clean inputs.

    Args:
        summary: from `analysis.results.summarise`, made for `checkpoint`.
        dataset: label of the data set.
        checkpoint: `last` or `best`, for the caption.
        styles: of every method, from `analysis.figures.method_styles`.
        metric: None: the primary one.

    Raises:
        UserError: the summary has no such data set or metric.
    """
    part = _of_metric(summary, dataset, metric)
    part = part[(part["corruption"] == "") & (part["n_seeds"] > 0)]
    ratios = sorted(part["label_ratio"].unique())
    if len(ratios) < 2:
        there = f"results for one label ratio, {percent(ratios[0])}," if ratios else "no results on clean inputs"
        return Drawing(None, f"{dataset} has {there} and a curve over label ratios takes two or more.")
    subsets, hidden = _legible_subsets(part)
    log = ratios[-1] / ratios[0] >= 8
    panels = [
        Panel(subset, _method_lines(part[part["modalities"] == subset], "label_ratio", ratios), "visible labels",
              _metric_label(part), log, ticks=tuple(ratios), tick_text=percent)
        for subset in subsets
    ]  # fmt: skip
    axis = " The axis of label ratios is logarithmic." if log else ""
    figure = _draw_panels(
        panels, line_looks(styles), _columns(len(panels)), _heading(part), f"{_spread_told(part)}{axis}", checkpoint
    )
    return Drawing(figure, f"{dataset}: {hidden} more modality subsets are in the tables only." if hidden else "")


def _legible_subsets(part: pd.DataFrame) -> tuple[list[str], int]:
    """The modality subsets to draw, and how many are left out: of too many the single ones and the full set stay."""
    facts = part[["modalities", "n_modalities", "full"]].drop_duplicates()
    if len(facts) <= MAX_SUBSETS:
        return facts["modalities"].tolist(), 0
    ends = facts.loc[(facts["n_modalities"] == 1) | facts["full"], "modalities"].tolist()
    kept = (ends or facts["modalities"].tolist())[:MAX_SUBSETS]
    return kept, len(facts) - len(kept)


def _method_lines(part: pd.DataFrame, column: str, at: Sequence[float]) -> tuple[Line, ...]:
    """A line for each method of a summary that has a defined mean anywhere, at the values `at` of a column."""
    lines = []
    for method in order_methods(part["method"]):
        own = part[part["method"] == method].set_index(column)[["mean", "std"]].reindex(list(at))
        if own["mean"].notna().any():
            lines.append(Line(method, np.array(at, float), own["mean"].to_numpy(float), own["std"].to_numpy(float)))
    return tuple(lines)


# ---- metric against corruption level (RAML, Tables II and III) --------------------------------------------

Steps = frozenset[tuple[str, str, float]]
"""What a corruption does: (kind, modality, level) of each step."""
AXIS_WORDS = {
    "gaussian": "noise, standard deviations", "mask": "share that is masked", "swap": "share that trades places",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Series:
    """Corruptions that differ in one level alone."""

    kind: str
    modalities: tuple[str, ...]
    """The modalities corrupted at this level, all alike."""
    others: str
    """What else is corrupted, alike at every level; empty: nothing."""
    corruptions: tuple[str, ...]
    """In the words of the results frame, from level 0 (clean, or with `others` alone) upwards."""
    levels: tuple[float, ...]

    @property
    def title(self) -> str:
        """`gaussian on image`, `mask on text, with gaussian(image)=0.18`."""
        with_others = f", with {self.others}" if self.others else ""
        return f"{self.kind} on {'+'.join(self.modalities)}{with_others}"


def corruption_series(corruptions: Sequence[str]) -> list[Series]:
    """The series that corruptions of a results frame form, each with two levels at least.

    What several modalities are corrupted with at one common level varies together; of other combinations each step
    varies while the others stay, where results allow it. Level 0 is the condition without that step.

    Raises:
        UserError: one is not of the form `gaussian(image)=0.18&mask(text)=0.1`.
    """
    for text in corruptions:
        _steps(text)
    known = {_steps(text): text for text in order_corruptions(corruptions)}
    found: dict[tuple[Any, ...], dict[float, str]] = {}
    for steps, text in known.items():
        for moved in _axes(steps):
            others = steps - moved
            key = (tuple(sorted({(kind, name) for kind, name, _ in moved})), tuple(sorted(others)))
            levels = found.setdefault(key, {})
            levels[next(iter(moved))[2]] = text
            if others in known:
                levels[0.0] = known[others]
    series = []
    for (moved_keys, others), levels in found.items():
        positive = [level for level in levels if level > 0]
        if len(positive) < (1 if 0.0 in levels and not others else 2):
            continue
        order = sorted(levels)
        words = "&".join(f"{kind}({name})={level:g}" for kind, name, level in others)
        names = tuple(name for _, name in moved_keys)
        series.append(Series(moved_keys[0][0], names, words, tuple(levels[at] for at in order), tuple(order)))
    return sorted(series, key=lambda own: bool(own.others))


def _steps(corruption: str) -> Steps:
    steps = set()
    for step in filter(None, corruption.split("&")):
        what, _, level = step.rpartition("=")
        kind, bracket, modality = what.removesuffix(")").partition("(")
        try:
            steps.add((kind, modality, float(level)))
        except ValueError:
            bracket = ""
        if not bracket:
            raise UserError(f"'{step}' is no corruption such as 'gaussian(image)=0.18'.")
    return frozenset(steps)


def _axes(steps: Steps) -> list[Steps]:
    """Which steps may vary while the others stay: all together where they are alike, else each alone."""
    alike = len({(kind, level) for kind, _, level in steps}) == 1
    return [steps] if alike else [frozenset([step]) for step in sorted(steps)]


def draw_corruptions(
    summary: pd.DataFrame,
    dataset: str,
    label_ratio: float,
    checkpoint: str,
    styles: Mapping[str, Style],
    *,
    metric: str | None = None,
) -> Drawing:
    """A data set's metric against the level of a corruption: a row a corruption, a column a modality subset.

    Args:
        summary: from `analysis.results.summarise`, made for `checkpoint`.
        dataset: label of the data set.
        label_ratio: the label ratio whose trainings are shown.
        checkpoint: `last` or `best`, for the caption.
        styles: of every method, from `analysis.figures.method_styles`.
        metric: None: the primary one.

    Raises:
        UserError: the summary has no such data set or metric.
    """
    part = _of_metric(summary, dataset, metric)
    part = part[(part["label_ratio"] == label_ratio) & (part["n_seeds"] > 0)]
    corruptions = part["corruption"].unique().tolist()
    if not any(corruptions):
        where = f"{dataset} at {percent(label_ratio)} of the labels"
        return Drawing(None, f"{where} has no results on corrupted inputs; grids ask for them with 'corruptions'.")
    series = corruption_series(corruptions)
    rows = [(own, shown) for own in series[:MAX_ROWS] if (shown := _series_panels(own, part))]
    if not rows:
        return Drawing(None, f"{dataset} has no corruption with results at two levels or more, 0 counted: no curve.")
    columns = max(len(shown) for _, shown in rows)
    panels = [panel for _, shown in rows for panel in [*shown, *[None] * (columns - len(shown))]]
    drawn = {text for own, _ in rows for text in own.corruptions}
    lost = [text for text in corruptions if text and text not in drawn]
    words = "Level 0 is the same cell without that corruption."
    heading = f"{_heading(part)}, {percent(label_ratio)} of the labels"
    figure = _draw_panels(panels, line_looks(styles), columns, heading, f"{_spread_told(part)} {words}", checkpoint)
    told = [f"corruptions in the tables only: {some(lost)}"] if lost else []
    if any(len(_subsets_of(own, part)) > MAX_COLUMNS for own, _ in rows):
        told.append(f"of modality subsets the {MAX_COLUMNS} with the most and the fewest modalities are drawn")
    return Drawing(figure, f"{dataset}: {'; '.join(told)}." if told else "")


def _subsets_of(series: Series, part: pd.DataFrame) -> list[str]:
    """The modality subsets that were tested at two levels of a series or more, in the order of the tables."""
    own = part[part["corruption"].isin(series.corruptions)]
    counts = own.groupby("modalities", sort=False)["corruption"].nunique()
    return [str(subset) for subset in own["modalities"].unique() if counts[subset] > 1 and _corrupts(series, subset)]


def _corrupts(series: Series, subset: str) -> bool:
    return set(series.modalities) <= set(subset.split("+"))


def _series_panels(series: Series, part: pd.DataFrame) -> list[Panel]:
    subsets = _subsets_of(series, part)
    if len(subsets) > MAX_COLUMNS:
        subsets = [*subsets[: MAX_COLUMNS - 1], subsets[-1]]
    level = dict(zip(series.corruptions, series.levels, strict=True))
    own = part[part["corruption"].isin(series.corruptions)]
    own = own.assign(level=own["corruption"].map(level))
    return [
        Panel(f"{series.title}\ntested on {subset}",
              _method_lines(own[own["modalities"] == subset], "level", series.levels),
              AXIS_WORDS.get(series.kind, "level"), _metric_label(part), ticks=series.levels)
        for subset in subsets
    ]  # fmt: skip


# ---- sensitivity to hyper-parameters (RAML, Figure 4) -----------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sweep:
    """Methods of a results frame that differ in numeric hyper-parameters alone."""

    base: str
    """What they have in common: `robult`, `robult[no_rec]`."""
    keys: tuple[str, ...]
    """The hyper-parameters that vary, as labels name them."""
    points: Mapping[str, tuple[float, ...]]
    """Method label -> a value for each key."""

    def values(self, key: str) -> list[float]:
        """The values of one hyper-parameter, from low to high."""
        at = self.keys.index(key)
        return sorted({point[at] for point in self.points.values()})


def find_sweeps(methods: Sequence[str]) -> list[Sweep]:
    """The sweeps that method labels name, such as `robult[tau=0.1]` beside `robult[tau=0.3]`, in the order of columns.

    Labels that were cut for their length (`...~1a2b3c4d`) no longer say their values and belong to no sweep; nor does a
    label without the hyper-parameter, such as `robult`, for it does not say its value either.
    """
    groups: dict[tuple[Any, ...], dict[str, dict[str, float]]] = {}
    for method in order_methods(methods):
        base, fixed, numbers = _label_parts(method)
        if numbers:
            groups.setdefault((base, fixed, tuple(numbers)), {})[method] = numbers
    sweeps = []
    for (base, fixed, names), members in groups.items():
        keys = tuple(name for name in names if len({numbers[name] for numbers in members.values()}) > 1)
        if not keys:
            continue
        same = {name: value for name, value in next(iter(members.values())).items() if name not in keys}
        parts = [*fixed, *(f"{name}={value:g}" for name, value in same.items())]
        title = f"{base}[{','.join(parts)}]" if parts else base
        sweeps.append(Sweep(title, keys, {label: tuple(own[key] for key in keys) for label, own in members.items()}))
    return sweeps


def _label_parts(method: str) -> tuple[str, tuple[str, ...], dict[str, float]]:
    """Base, what is no number, and the numbers of a label: `robult[no_rec,tau=0.3]` -> robult, no_rec, tau 0.3."""
    base, bracket, rest = method.partition("[")
    if not bracket or "~" in rest:
        return method, (), {}
    fixed, numbers = [], {}
    for part in _split(rest.removesuffix("]").replace("][", ",")):
        name, _, value = part.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError:
            fixed.append(part)
    return base, tuple(fixed), numbers


def _split(text: str) -> list[str]:
    """At commas outside round brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


RATIO_MARKERS = "osD^vPX"


def draw_sensitivity(
    summary: pd.DataFrame, dataset: str, sweep: Sweep, checkpoint: str, *, metric: str | None = None
) -> Drawing:
    """How a data set's metric depends on one hyper-parameter (lines) or two (heat maps), on clean inputs.

    With one there is a panel a modality subset and a line a label ratio; with two a row a label ratio and a column a
    modality subset. The best value is marked; it is best on the test split, so it must not be chosen by.

    Args:
        summary: from `analysis.results.summarise`, made for `checkpoint`.
        dataset: label of the data set.
        sweep: one of `find_sweeps`.
        checkpoint: `last` or `best`, for the caption.
        metric: None: the primary one.

    Raises:
        UserError: the summary has no such data set or metric.
    """
    part = _of_metric(summary, dataset, metric)
    part = part[(part["corruption"] == "") & (part["n_seeds"] > 0) & part["method"].isin(list(sweep.points))]
    if len(sweep.keys) > 2:
        n, keys = len(sweep.keys), some(sweep.keys)
        return Drawing(None, f"{sweep.base} varies {n} hyper-parameters at once ({keys}): a figure shows one or two.")
    if part["mean"].notna().sum() == 0 or part["method"].nunique() < 2:
        return Drawing(None, f"{dataset} has results for fewer than two values of {some(sweep.keys)} of {sweep.base}.")
    for at, key in enumerate(sweep.keys):
        part = part.assign(**{f"at {key}": [sweep.points[method][at] for method in part["method"]]})
    return (_draw_line_sweep if len(sweep.keys) == 1 else _draw_map_sweep)(part, dataset, sweep, checkpoint)


def _draw_line_sweep(part: pd.DataFrame, dataset: str, sweep: Sweep, checkpoint: str) -> Drawing:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    (key,) = sweep.keys
    values = sweep.values(key)
    ratios = sorted(part["label_ratio"].unique())
    shades = [colormaps["viridis"](at) for at in np.linspace(0.0, 0.8, len(ratios))]
    looks = {
        f"{percent(ratio)} of the labels": Look(to_hex(shade), RATIO_MARKERS[at % 7], DASHES[at % 8] if at else "-")
        for at, (ratio, shade) in enumerate(zip(ratios, shades, strict=True))
    }
    subsets, hidden = _legible_subsets(part)
    log = _is_geometric(values)
    panels = [
        Panel(subset, tuple(_ratio_lines(part[part["modalities"] == subset], f"at {key}", values)), key,
              _metric_label(part), log, ticks=tuple(values),
              best="max" if part["higher_is_better"].iloc[0] else "min")
        for subset in subsets
    ]  # fmt: skip
    words = "Rings: best on the test split, to be read and not to be chosen by."
    figure = _draw_panels(panels, looks, _columns(len(panels)), f"{sweep.base}, {key}. {_heading(part)}",
                          f"{_spread_told(part)} {words}", checkpoint)  # fmt: skip
    return Drawing(figure, f"{dataset}: {hidden} more modality subsets are in the tables only." if hidden else "")


def _ratio_lines(part: pd.DataFrame, column: str, values: Sequence[float]) -> Iterator[Line]:
    for ratio, own in part.groupby("label_ratio"):
        found = own.set_index(column)[["mean", "std"]].reindex(list(values))
        x, mean, std = np.array(values, float), found["mean"].to_numpy(float), found["std"].to_numpy(float)
        yield Line(f"{percent(float(str(ratio)))} of the labels", x, mean, std)


def _is_geometric(values: Sequence[float]) -> bool:
    """Whether values read better on a logarithmic axis."""
    return len(values) > 2 and min(values) > 0 and max(values) / min(values) >= 10


def _draw_map_sweep(part: pd.DataFrame, dataset: str, sweep: Sweep, checkpoint: str) -> Drawing:
    from matplotlib.figure import Figure

    down, across = sweep.keys
    facts = part[["modalities", "n_modalities", "full"]].drop_duplicates()
    subsets = facts["modalities"].tolist()
    if len(subsets) > MAX_COLUMNS:
        subsets = [*subsets[: MAX_COLUMNS - 1], subsets[-1]]
    ratios = sorted(part["label_ratio"].unique())
    shown = ratios if len(ratios) <= MAX_ROWS else [*ratios[: MAX_ROWS - 1], ratios[-1]]
    rows, columns = sweep.values(down), sweep.values(across)
    width = max(5.0, len(subsets) * max(2.3, 0.9 + 0.5 * len(columns)))
    with _plain_style():
        figure = Figure(figsize=(width, 1.3 + len(shown) * max(1.6, 0.75 + 0.32 * len(rows))), layout="constrained")
        axes = figure.subplots(len(shown), len(subsets), squeeze=False)
        for (i, ratio), (j, subset) in ((a, b) for a in enumerate(shown) for b in enumerate(subsets)):
            own = part[(part["label_ratio"] == ratio) & (part["modalities"] == subset)]
            grid = own.pivot(index=f"at {down}", columns=f"at {across}", values="mean").reindex(rows, columns=columns)
            _draw_map(axes[i, j], grid.to_numpy(float), bool(part["higher_is_better"].iloc[0]))
            axes[i, j].set_title(f"{subset}, {percent(ratio)} of the labels", fontsize=9, loc="left", parse_math=False)
            axes[i, j].set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
            axes[i, j].set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
            if i == len(shown) - 1:
                axes[i, j].set_xlabel(across, fontsize=9, parse_math=False)
            if j == 0:
                axes[i, j].set_ylabel(down, fontsize=9, parse_math=False)
        figure.suptitle(f"{sweep.base}. {_heading(part)}", fontsize=11, fontweight="bold", parse_math=False)
        n = int(part["n_seeds"].max())
        words = (
            f"Mean over {n} seeds. " if n > 1 else "One seed. "
        ) + "Colours run from the worst to the best of each panel, brighter is better; framed: best on the test split, "
        _explain(figure, f"{words}to be read and not to be chosen by. Test results of the {CHECKPOINTS[checkpoint]}.")
    lost = len(facts) - len(subsets) + len(ratios) - len(shown)
    return Drawing(figure, f"{dataset}: {lost} more subsets or label ratios are in the tables only." if lost else "")


def _draw_map(ax: "Axes", values: Floats, higher: bool) -> None:
    """A heat map of means with its numbers, the best framed; a cell without a result is hatched."""
    from matplotlib.patches import Rectangle

    score = values if higher else -values
    low, high = (float(np.nanmin(score)), float(np.nanmax(score))) if np.isfinite(score).any() else (0.0, 1.0)
    ax.imshow(score, cmap="viridis", vmin=low, vmax=high if high > low else low + 1, aspect="auto")
    size = float(np.clip(44 / max(values.shape), 5.0, 8.5))
    for (i, j), value in np.ndenumerate(values):
        corner = (j - 0.5, i - 0.5)
        if not np.isfinite(value):
            ax.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor="#999999", hatch="////", linewidth=0))
            continue
        share = (score[i, j] - low) / (high - low) if high > low else 0.0
        ax.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=size, color=INK if share > 0.5 else "white")
    for i, j in np.argwhere(score >= high - TIE):
        ax.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor="#D55E00", linewidth=2.4))
    ax.tick_params(labelsize=8, length=0)


# ---- training curves --------------------------------------------------------------------------------------

FIRST_KEYS = ("valid/score", "diagnose/pseudo_label_accuracy", "train/loss")
CURVE_COLUMNS = ("dataset", "label_ratio", "method", "seed", "key", "epoch", "value")


def draw_training(
    curves: pd.DataFrame,
    dataset: str,
    label_ratio: float,
    styles: Mapping[str, Style],
    *,
    keys: Sequence[str] = ("valid/score", "train/*", "diagnose/*"),
) -> Drawing:
    """Loss terms, validation score and diagnostics per epoch, a panel each: mean over seeds with their deviation.

    The score to select epochs by, the accuracy of pseudo-labels and the total loss come first, then what most methods
    have; of more than `MAX_KEYS` the others are left out and told.

    Args:
        curves: one row a value: `dataset`, `label_ratio`, `method`, `seed`, `key`, `epoch` (from 1), `value`.
        dataset: label of the data set.
        label_ratio: the label ratio whose trainings are shown.
        styles: of every method, from `analysis.figures.method_styles`.
        keys: what to draw, as the store names it; `*` stands for anything.

    Raises:
        UserError: a column is missing.
    """
    missing = [name for name in CURVE_COLUMNS if name not in curves.columns]
    if missing:
        raise UserError(f"training curves lack the columns {some(missing, 10)}.")
    part = curves[(curves["dataset"] == dataset) & (curves["label_ratio"] == label_ratio)]
    wanted = {key for key in part["key"].unique() if any(fnmatchcase(str(key), pattern) for pattern in keys)}
    part = part[part["key"].isin(wanted) & np.isfinite(part["value"])]
    if part.empty:
        where = f"{dataset} at {percent(label_ratio)} of the labels"
        return Drawing(
            None, f"{where} has no training curve of {some(keys)}: only methods trained by epochs have them."
        )
    names = _key_order(part)
    panels = [_training_panel(name, part[part["key"] == name]) for name in names[:MAX_KEYS]]
    n = int(part.groupby(["method", "key"])["seed"].nunique().max())
    words = f"Mean over {n} seeds; spread: their sample standard deviation. " if n > 1 else "One seed. "
    if n > 1 and any(len(panel.lines) > MAX_BANDS and _is_dense(panel.lines[0]) for panel in panels):
        words += f"No spread in panels of more than {MAX_BANDS} methods. "
    words += "Losses of different methods are not on one scale."
    if any(name.startswith("diagnose/") for name in names[:MAX_KEYS]):
        words += " diagnose/...: on the last batch of an epoch."
    heading = f"{dataset}: training, {percent(label_ratio)} of the labels"
    figure = _draw_panels(panels, line_looks(styles), _columns(len(panels)), heading, words, None, share_y=False)
    lost = names[MAX_KEYS:]
    return Drawing(figure, f"{dataset}: curves that are not drawn: {some(lost, 10)}." if lost else "")


def _key_order(part: pd.DataFrame) -> list[str]:
    """Keys as they are drawn: the known ones first, then those of most methods, then by name."""
    counts = part.groupby("key")["method"].nunique()
    rest = sorted((str(key) for key in counts.index if key not in FIRST_KEYS), key=lambda key: (-counts[key], key))
    return [*(key for key in FIRST_KEYS if key in counts.index), *rest]


def _training_panel(key: str, part: pd.DataFrame) -> Panel:
    lines = []
    for method in order_methods(part["method"]):
        epochs = part[part["method"] == method].groupby("epoch")["value"].agg(["mean", "std"]).sort_index()
        x = epochs.index.to_numpy(float)
        lines.append(Line(method, x, epochs["mean"].to_numpy(float), epochs["std"].to_numpy(float)))
    means = np.concatenate([line.mean for line in lines])
    log = key.startswith("train/") and bool(means.min() > 0) and bool(means.max() > 30 * means.min())
    return Panel(key, tuple(lines), "epoch", "logarithmic" if log else "", log_y=log)


# ---- fusion weights under corruption (RAML, Figure 5) -----------------------------------------------------


def draw_weights(
    weights: Mapping[str, ArrayLike], methods: Sequence[str], levels: Sequence[float], *, corruption: str, dataset: str
) -> Drawing:
    """Element-wise fusion weights as a corruption grows: a column a modality, a row a method, a strip a level.

    Features are in the order of the first modality's weights at the first level, the same in a method's whole row, so
    that a strip may be followed downwards. The mean weight of each strip stands beside it.

    Args:
        weights: modality -> share of that modality in each feature of the fused representation, mean over samples,
            (K, L, D), or (L, D) for one method; NaN where a method has none.
        methods: names of the K.
        levels: the L levels, increasing.
        corruption: what grows, such as `gaussian(image)`.
        dataset: label of the data set.

    Raises:
        UserError: the shapes do not fit, or a weight is not a share from 0 to 1.
    """
    if not weights or not methods or not levels:
        return Drawing(None, f"{dataset}: no method has kept fusion weights under {corruption}.")
    arrays = {name: _checked_weights(name, value, len(methods), len(levels)) for name, value in weights.items()}
    rows = [k for k in range(len(methods)) if all(np.isfinite(array[k]).all() for array in arrays.values())]
    if not rows:
        return Drawing(None, f"{dataset}: no method has defined fusion weights at every level of {corruption}.")
    figure = _draw_strips(arrays, rows, methods, levels, corruption, dataset)
    lost = [methods[k] for k in range(len(methods)) if k not in rows]
    return Drawing(figure, f"{dataset}: without defined weights at every level: {some(lost)}." if lost else "")


def _checked_weights(name: str, value: ArrayLike, k: int, n_levels: int) -> Floats:
    array = np.asarray(value, float)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[:2] != (k, n_levels) or array.shape[2] == 0:
        raise UserError(f"weights of '{name}' must be ({k}, {n_levels}, features), got {array.shape}.")
    known = array[np.isfinite(array)]
    if known.size and (known.min() < -1e-6 or known.max() > 1 + 1e-6):
        raise UserError(f"weights of '{name}' must be shares from 0 to 1, got {known.min():.3g} to {known.max():.3g}.")
    return array


def _draw_strips(
    arrays: Mapping[str, Floats],
    rows: Sequence[int],
    methods: Sequence[str],
    levels: Sequence[float],
    corruption: str,
    dataset: str,
) -> "Figure":
    from matplotlib.figure import Figure

    low = min(float(array[rows].min()) for array in arrays.values())
    high = max(float(array[rows].max()) for array in arrays.values())
    width = max(6.5, 1.2 + 3.3 * len(arrays))
    with _plain_style():
        height = 1.45 + len(rows) * (0.42 + 0.23 * len(levels))
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(len(rows), len(arrays), squeeze=False)
        for i, k in enumerate(rows):
            order = np.argsort(-next(iter(arrays.values()))[k, 0], kind="stable")
            for j, (name, array) in enumerate(arrays.items()):
                ax, strips = axes[i, j], array[k][:, order]
                image = ax.imshow(strips, cmap="cividis", vmin=low, vmax=high if high > low else low + 1, aspect="auto",
                                  interpolation="nearest")  # fmt: skip
                for at in range(1, len(levels)):
                    ax.axhline(at - 0.5, color="white", linewidth=1.5)
                ax.set_title(f"{methods[k]}: {name}", fontsize=9, loc="left", parse_math=False)
                ax.set_xticks([])
                ax.set_yticks(range(len(levels)), [f"{level:g}" for level in levels] if j == 0 else [])
                ax.tick_params(labelsize=8, length=0)
                ax.spines[:].set_visible(False)
                for at, mean in enumerate(strips.mean(1)):
                    ax.annotate(f"{mean:.2f}", (1, at), (4, 0), xycoords=("axes fraction", "data"),
                                textcoords="offset points", fontsize=8, va="center", color=INK)  # fmt: skip
        figure.supylabel(f"level of {corruption}", fontsize=9, parse_math=False)
        bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 2.2 / height), aspect=16, pad=0.03)
        bar.ax.tick_params(labelsize=8)
        bar.set_label("weight", fontsize=9)
        figure.suptitle(
            f"{dataset}: fusion weights under {corruption}", fontsize=11, fontweight="bold", parse_math=False
        )
        words = f"in the order of the weights of {next(iter(arrays))} at level {levels[0]:g}; mean over test samples."
        _explain(figure, f"A column is one of the {len(order)} features, {words} Numbers: mean over features.")
    return figure


# ---- common to all ----------------------------------------------------------------------------------------


def _of_metric(summary: pd.DataFrame, dataset: str, metric: str | None) -> pd.DataFrame:
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


def _metric_label(part: pd.DataFrame) -> str:
    return f"{part['metric'].iloc[0]} {'↑' if part['higher_is_better'].iloc[0] else '↓'}"


def _heading(part: pd.DataFrame) -> str:
    better = "higher" if part["higher_is_better"].iloc[0] else "lower"
    return f"{part['dataset'].iloc[0]}: {part['metric'].iloc[0]}, {better} is better"


def _spread_told(part: pd.DataFrame) -> str:
    """How many seeds, what the spread is, and what a gap means where there is one."""
    most, least = int(part["n_seeds"].max()), int(part["n_seeds"].min())
    if most == 1:
        told = "One seed: no spread."
    else:
        number = f"{most} seeds" + (f", {least} in places" if least < most else "")
        told = f"Mean over {number}; spread: their sample standard deviation."
    return told + (" Gaps: undefined for at least one seed." if part["n_nan"].any() else "")


def _columns(n: int) -> int:
    """Columns of n panels: as square as is legible."""
    return n if n <= 3 else 2 if n == 4 else 3 if n <= 9 else 4


def _draw_panels(
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
    with _plain_style():
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
        _explain(figure, f"{words}{results}")
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
    dense = _is_dense(line)
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


def _is_dense(line: Line) -> bool:
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


def _explain(figure: "Figure", words: str) -> None:
    """What is drawn, in words below the panels."""
    text = "\n".join(wrap(words, int((figure.get_figwidth() - 0.3) / LETTER)))
    figure.supxlabel(text, fontsize=8, color=GREY, parse_math=False)


def _ends(name: str, limit: int) -> str:
    """The name, or its two ends where it has more than `limit` letters."""
    return name if len(name) <= limit else f"{name[: limit // 2]}…{name[-(limit // 2) :]}"


@contextmanager
def _plain_style() -> Iterator[None]:
    """Matplotlib's own defaults, whatever a user's matplotlibrc says."""
    from matplotlib import rc_context, style

    with style.context("default"), rc_context({"hatch.linewidth": 0.6}):
        yield
