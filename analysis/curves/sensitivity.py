"""How a metric depends on one or two hyper-parameters (RAML, Figure 4)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.curves.panels import (
    DASHES,
    MAX_COLUMNS,
    MAX_ROWS,
    Drawing,
    Floats,
    Line,
    Look,
    Panel,
    columns_for,
    draw_panels,
    explain,
    heading_of,
    legible_subsets,
    metric_label,
    of_metric,
    plain_style,
    spread_told,
)
from analysis.figures import INK
from analysis.folds import split_options
from analysis.results import CHECKPOINTS, TIE, order_methods, some
from analysis.tables import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    for part in split_options(rest.removesuffix("]").replace("][", ",")):
        name, _, value = part.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError:
            fixed.append(part)
    return base, tuple(fixed), numbers


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
    part = of_metric(summary, dataset, metric)
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
    subsets, hidden = legible_subsets(part)
    log = _is_geometric(values)
    panels = [
        Panel(subset, tuple(_ratio_lines(part[part["modalities"] == subset], f"at {key}", values)), key,
              metric_label(part), log, ticks=tuple(values),
              best="max" if part["higher_is_better"].iloc[0] else "min")
        for subset in subsets
    ]  # fmt: skip
    words = "Rings: best on the test split, to be read and not to be chosen by."
    figure = draw_panels(panels, looks, columns_for(len(panels)), f"{sweep.base}, {key}. {heading_of(part)}",
                          f"{spread_told(part)} {words}", checkpoint)  # fmt: skip
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
    with plain_style():
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
        figure.suptitle(f"{sweep.base}. {heading_of(part)}", fontsize=11, fontweight="bold", parse_math=False)
        n = int(part["n_seeds"].max())
        words = (
            f"Mean over {n} seeds. " if n > 1 else "One seed. "
        ) + "Colours run from the worst to the best of each panel, brighter is better; framed: best on the test split, "
        explain(figure, f"{words}to be read and not to be chosen by. Test results of the {CHECKPOINTS[checkpoint]}.")
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
