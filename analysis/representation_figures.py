"""Figures of representations: pairs and angles (Robult, Figure 8), pseudo-labels (9), clusters (10), Q-Q plots.

Classes differ by colour and by the shape of their points; methods keep the colours of the other figures. What a view
in the plane cannot show, numbers from the original space say beside it.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.figures import INK, Style
from analysis.geometry import (
    angle_density,
    angles,
    neighbour_accuracy,
    on_circle,
    plane,
    same_class_distances,
    same_item_distances,
    silhouette,
    uniformity,
    uniformity_floor,
)
from analysis.proximity import Proximity, anchor_frame, proximity_summary
from analysis.pseudo_labels import PseudoLabels, row_shares
from analysis.representations import (
    FUSED,
    Array,
    RepresentationError,
    Representations,
    checked_classes,
    modality_of,
    unit_rows,
    varied,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

CLASS_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31", "#999999", "#882255",
)  # fmt: skip
"""Okabe and Ito's colours without the yellow, which is too pale for points, then a brown, a grey and a wine red, so
that ten classes have a colour each."""
CLASS_MARKERS = "o^sDvPX*"
SAME_CLASS, SAME_ITEM = "#0072B2", "#E69F00"
MAX_CLASSES = 4
"""Classes with panels of their own in Figure 8: the most frequent ones."""
MAX_POINTS = 2000
"""Samples of a view in the plane; of more, as many are drawn at random. Numbers are always of all."""
GREY = "#555555"
View = Literal["tsne", "pca"]
Place = Literal["outside upper center", "outside lower center"]
VIEWS = {"tsne": "t-SNE", "pca": "principal components"}


@contextmanager
def _plain() -> Iterator[None]:
    """Matplotlib's own defaults, whatever a user's matplotlibrc says."""
    from matplotlib import style

    with style.context("default"):
        yield


def class_looks(classes: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Colour and marker of each class; the pair is unique for up to 64 classes."""
    n = len(CLASS_COLOURS)
    return {
        c: (CLASS_COLOURS[at % n], CLASS_MARKERS[(at + at // n) % len(CLASS_MARKERS)])
        for at, c in enumerate(sorted(classes))
    }


def class_name(c: int, names: Mapping[int, str] | None) -> str:
    """The class as a figure prints it."""
    return names.get(c, f"class {c}") if names else f"class {c}"


def _explain(figure: "Figure", words: str, width: float) -> None:
    """What is drawn, in words below."""
    text = "\n".join(line for part in words.split("\n") for line in wrap(part, int(width / 0.064)))
    figure.supxlabel(text, fontsize=8, color=GREY, parse_math=False)


def _say(ax: "Axes", words: str) -> None:
    """A sentence in the place of a panel that cannot be drawn."""
    ax.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    inches = ax.get_position().width * ax.figure.get_figwidth()  # type: ignore[union-attr]
    text = "\n".join(wrap(words, max(14, int(inches / 0.075))))
    ax.text(0.5, 0.5, text, ha="center", va="center", fontsize=7.5, color=GREY, parse_math=False)


def _shown(n: int, seed: int) -> NDArray[np.int64]:
    """Rows that a view in the plane shows."""
    rows = np.arange(n)
    return rows if n <= MAX_POINTS else np.sort(np.random.default_rng(seed).permutation(rows)[:MAX_POINTS])


def _in_order(representations: Representations) -> list[str]:
    """The names a figure shows: each `z/<modality>`, then `s`."""
    names = [name for name in representations if name.startswith("z/")]
    return [*names, FUSED] if FUSED in representations else names


# ---- Figure 8: alignment and uniformity -------------------------------------------------------------------


def draw_geometry(
    method: str,
    representations: Representations,
    classes: ArrayLike,
    *,
    names: Mapping[int, str] | None = None,
    how: View = "tsne",
    seed: int = 0,
) -> "Figure":
    """Alignment and uniformity of one method, a row per modality and the full set (Robult, Figure 8).

    Left the distances of positive pairs; then, for all samples and for each of the most frequent classes, the
    Gaussian kernel density of the view projected to the unit circle, and below it the von Mises kernel density of
    its angles. A representation that cannot be read has its reason in the place of its panels.

    Args:
        representations: `s` and `z/<modality>`, (n, d).
        classes: true class of each sample, (n,).
        names: what classes are called.
        how: view in the plane.
        seed: of t-SNE and of drawn pairs.

    Raises:
        RepresentationError: nothing to draw, or classes that do not fit.
    """
    from matplotlib.figure import Figure

    shown = _in_order(representations)
    if not shown:
        raise RepresentationError(f"{method}: has no representation to draw.")
    groups = checked_classes(classes, len(representations[shown[0]]))
    found, counts = np.unique(groups, return_counts=True)
    chosen = np.sort(found[np.argsort(-counts, kind="stable")[:MAX_CLASSES]]).tolist()
    width = 3.1 + 1.75 * (1 + len(chosen))
    with _plain():
        figure = Figure(figsize=(width, 1.1 + 2.55 * len(shown)), layout="constrained")
        grid = figure.add_gridspec(
            2 * len(shown),
            2 + len(chosen),
            height_ratios=[3, 1] * len(shown),
            width_ratios=[1.55, *[1] * (1 + len(chosen))],
        )
        for row, name in enumerate(shown):
            pairs = figure.add_subplot(grid[2 * row : 2 * row + 2, 0])
            cells = [
                (figure.add_subplot(grid[2 * row, 1 + at]), figure.add_subplot(grid[2 * row + 1, 1 + at]))
                for at in range(1 + len(chosen))
            ]
            _draw_modality(pairs, cells, f"{method}: {name}", name, representations, groups, chosen, names, how, seed)
            if row == 0:
                for (top, _), word in zip(cells, ["all", *(class_name(c, names) for c in chosen)], strict=True):
                    top.set_title(word, fontsize=9, parse_math=False)
        figure.suptitle(f"{method}: alignment and uniformity", fontsize=11, fontweight="bold", parse_math=False)
        hidden = f" {len(found) - len(chosen)} rarer classes are in 'all' alone." if len(found) > len(chosen) else ""
        _explain(
            figure,
            f"Distances on the unit sphere of the representation. Right: {VIEWS[how]} of the samples, centred and "
            "projected to the unit circle, Gaussian density; below, von Mises density of the angles, dashed: uniform. "
            "Angles of a view depend on its seed and say nothing about uniformity on the sphere, for which the value "
            f"at the left stands; its floor depends on the dimension.{hidden}",
            width,
        )
    return figure


def _draw_modality(
    pairs: "Axes",
    cells: list[tuple["Axes", "Axes"]],
    label: str,
    name: str,
    representations: Representations,
    groups: NDArray[np.int64],
    chosen: list[int],
    names: Mapping[int, str] | None,
    how: View,
    seed: int,
) -> None:
    """One row of Figure 8."""
    try:
        x = varied(label, unit_rows(label, representations[name]))
        flat = plane(x[(rows := _shown(len(x), seed))], how, seed=seed)
        _draw_distances(pairs, name, x, representations, groups, seed)
    except RepresentationError as error:
        pairs.clear()
        _say(pairs, str(error))
        for ax in (ax for cell in cells for ax in cell):
            ax.set_axis_off()
    else:
        looks = class_looks(np.unique(groups).tolist())
        circle, theta, shown = on_circle(flat), angles(flat), groups[rows]
        everyone = np.ones(len(shown), bool)
        for (top, below), members, colour in zip(
            cells, [everyone, *(shown == c for c in chosen)], [INK, *(looks[c][0] for c in chosen)], strict=True
        ):
            _draw_circle(top, circle[members])
            _draw_angles(below, theta[members], colour)
    pairs.set_ylabel(modality_of(name), fontsize=10, fontweight="bold", parse_math=False)


def _draw_distances(
    ax: "Axes", name: str, x: Array, representations: Representations, groups: NDArray[np.int64], seed: int
) -> None:
    """Histogram of positive pairs' distances, with their means."""
    bins = np.linspace(0, 2, 41).tolist()
    of_class = same_class_distances(x, groups, seed=seed)
    ax.hist(of_class, bins, density=True, color=SAME_CLASS, alpha=0.55)
    means = [(of_class.mean(), SAME_CLASS, "--", "same class")]
    if name != FUSED and FUSED in representations and representations[FUSED].shape == x.shape:
        of_item = same_item_distances(representations[FUSED], x)
        ax.hist(of_item, bins, density=True, histtype="step", color=SAME_ITEM, linewidth=1.4)
        means.append((of_item.mean(), SAME_ITEM, ":", "same sample, z to s"))
    top = ax.get_ylim()[1]
    for mean, colour, line, word in means:
        ax.plot([mean, mean], [0, top], color=colour, linestyle=line, linewidth=1.6, label=f"{word}: mean {mean:.2f}")
    ax.set(xlim=(0, 2), ylim=(0, 1.3 * top), yticks=[])  # with room for the words
    ax.legend(loc="upper left", fontsize=7.5, frameon=False, handlelength=1.6, borderaxespad=0.2)
    ax.set_title(f"uniformity {uniformity(x):.2f} (floor {uniformity_floor(x.shape[1]):.2f})", fontsize=8, color=INK)
    ax.set_xlabel("distance of positive pairs", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _draw_circle(ax: "Axes", points: Array) -> None:
    """Gaussian kernel density of points on the unit circle."""
    from matplotlib.patches import Circle
    from scipy.stats import gaussian_kde

    ax.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), xticks=[], yticks=[], aspect="equal")
    axis = np.linspace(-1.5, 1.5, 70)
    grid = np.meshgrid(axis, axis)
    try:
        density = gaussian_kde(points.T)(np.stack([part.ravel() for part in grid])).reshape(70, 70)
    except (ValueError, np.linalg.LinAlgError):  # one point, or all in one direction
        density = np.zeros((70, 70))
    if 0 < density.max() < 100:
        ax.contourf(*grid, density, levels=np.linspace(0.03, 1, 12) * density.max(), cmap="Blues")
    else:  # too narrow to be seen
        ax.scatter(points[:, 0], points[:, 1], s=8, color=INK)
    ax.add_patch(Circle((0, 0), 1, fill=False, edgecolor=GREY, linewidth=0.6))
    ax.spines[:].set_visible(False)


def _draw_angles(ax: "Axes", theta: Array, colour: str) -> None:
    """Von Mises kernel density of angles."""
    at = np.linspace(-np.pi, np.pi, 361)
    density = angle_density(theta, at)
    ax.fill_between(at, density, color=colour, alpha=0.35, linewidth=0)
    ax.plot(at, density, color=colour, linewidth=1.1)
    ax.axhline(1 / (2 * np.pi), color=GREY, linestyle="--", linewidth=0.7)
    ax.set(xlim=(-np.pi, np.pi), ylim=(0, None), yticks=[])
    ax.set_xticks([-np.pi, 0, np.pi], ["−π", "0", "π"], fontsize=7)
    ax.spines[["top", "right", "left"]].set_visible(False)


# ---- Figure 10: clusters ----------------------------------------------------------------------------------


def draw_clusters(
    methods: Mapping[str, Representations],
    classes: ArrayLike,
    styles: Mapping[str, Style],
    *,
    names: Mapping[int, str] | None = None,
    how: View = "tsne",
    seed: int = 0,
) -> "Figure":
    """Views of several methods side by side, a row per modality and the full set (Robult, Figure 10).

    Below each view, from the original space: the silhouette of the true classes and the accuracy of its 5 nearest
    neighbours, beside what always guessing the largest class gets.

    Args:
        methods: method -> its representations of the same samples; columns in this order.
        classes: true class of each sample, (n,).
        styles: of every method, from `analysis.figures.method_styles`.
        names: what classes are called.
        how: view in the plane.
        seed: of t-SNE.

    Raises:
        RepresentationError: no method has a representation, or classes do not fit.
    """
    from matplotlib.figure import Figure

    drawn = {method: named for method, named in methods.items() if _in_order(named)}
    rows = list(dict.fromkeys(name for named in drawn.values() for name in _in_order(named) if name != FUSED))
    rows += [FUSED] if any(FUSED in named for named in drawn.values()) else []
    if not rows:
        raise RepresentationError("no method has a representation to draw.")
    groups = np.asarray(classes)
    found = np.unique(checked_classes(groups, len(groups))).tolist()
    width = max(4.0, 0.5 + 2.5 * len(drawn))
    with _plain():
        figure = Figure(figsize=(width, 1.5 + 2.65 * len(rows)), layout="constrained")
        axes = figure.subplots(len(rows), len(drawn), squeeze=False)
        for column, (method, named) in enumerate(drawn.items()):
            axes[0, column].set_title(_in_lines(method), fontsize=10, fontweight="bold", pad=9, parse_math=False)
            axes[0, column].plot([0.2, 0.8], [1.03, 1.03], transform=axes[0, column].transAxes, linewidth=3.5,
                                 color=styles[method].edge, clip_on=False, solid_capstyle="butt")  # fmt: skip
            for row, name in enumerate(rows):
                _draw_view(axes[row, column], f"{method}: {name}", named.get(name), groups, how, seed)
        for row, name in enumerate(rows):
            axes[row, 0].set_ylabel(modality_of(name), fontsize=10, fontweight="bold", parse_math=False)
        _class_legend(figure, found, names, width)
        guess = np.unique(groups, return_counts=True)[1].max() / len(groups)
        _explain(
            figure,
            f"Views: {VIEWS[how]} of {min(len(groups), MAX_POINTS)} test samples. Silhouette and accuracy of the 5 "
            "nearest neighbours (NN) are of the unit-norm representation, not of the view; always guessing the largest "
            f"class gets {guess:.2f}.",
            width,
        )
    return figure


def _in_lines(method: str) -> str:
    """A method's name with a long variant on lines of its own."""
    base, bracket, variant = method.partition("[")
    return method if len(method) <= 24 else "\n".join([base, *wrap(bracket + variant, 28)])


def _draw_view(ax: "Axes", label: str, x: ArrayLike | None, groups: NDArray[np.int64], how: View, seed: int) -> None:
    ax.set(xticks=[], yticks=[])
    ax.set_box_aspect(1)
    ax.spines[:].set_color("#BBBBBB")
    if x is None:
        _say(ax, "no such representation")
        return
    try:
        unit = varied(label, unit_rows(label, x))
        classes = checked_classes(groups, len(unit))
        rows = _shown(len(unit), seed)
        flat = plane(unit[rows], how, seed=seed)
        numbers = [f"NN {neighbour_accuracy(unit, classes):.2f}"]
        if 1 < len(np.unique(classes)) < len(classes):
            numbers.insert(0, f"silhouette {silhouette(unit, classes):.2f}")
    except RepresentationError as error:
        _say(ax, str(error))
        return
    size = float(np.clip(3000 / len(rows), 3, 18))
    for c, (colour, marker) in class_looks(np.unique(groups).tolist()).items():
        of_c = classes[rows] == c
        ax.scatter(flat[of_c, 0], flat[of_c, 1], s=size, marker=marker, color=colour, alpha=0.7, linewidth=0)
    ax.set_xlabel(" · ".join(numbers), fontsize=8.5, color=INK)


def _class_legend(figure: "Figure", classes: list[int], names: Mapping[int, str] | None, width: float) -> None:
    """Classes above the views; of more than 30 the first ones."""
    from matplotlib.lines import Line2D

    looks = class_looks(classes)
    handles = [Line2D([], [], linestyle="", marker=m, color=colour, markersize=6) for colour, m in looks.values()]
    words = [class_name(c, names) for c in looks]
    _named_legend(figure, handles[:30], words[:30], width, "outside upper center")


def _named_legend(
    figure: "Figure", handles: Sequence["Artist"], names: Sequence[str], width: float, place: Place
) -> None:
    """A legend in as many columns as fit into `width` inches, whatever characters the names hold."""
    inches = [0.6 + 0.075 * len(name) for name in names]
    columns = len(names) if sum(inches) < width - 0.3 else max(1, int((width - 0.3) / max(inches)))
    legend = figure.legend(handles, ["-"] * len(names), loc=place, ncols=min(columns, len(names)), frameon=False,
                           fontsize=9, handletextpad=0.4, columnspacing=1.3)  # fmt: skip
    # A legend drops labels that start with an underscore, so the names are set afterwards.
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
        text.set_parse_math(False)


# ---- Figure 9: pseudo-labels ------------------------------------------------------------------------------


MOST_COUNTED = 12
"""Classes up to which the fields of a confusion matrix have room for their counts."""


def draw_confusion(judged: PseudoLabels, *, title: str, names: Mapping[int, str] | None = None) -> "Figure":
    """Pseudo-labels against the truth, all and without those of low weight (Robult, Figure 9).

    Colours are shares of the true class, numbers are counts; the titles say how pure the pseudo-labels are and how
    pure as many random ones are.
    """
    from matplotlib.figure import Figure

    n = len(judged.classes)
    side = float(np.clip(0.48 * n, 2.4, 5.2))
    width = 2 * side + 2.0
    with _plain():
        figure = Figure(figsize=(width, side + 1.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_matrix(left, judged.before, judged, names)
        image = _draw_matrix(right, judged.after, judged, names)
        left.set_title(f"all: purity {judged.purity_before:.3f}", fontsize=9.5)
        right.set_title(f"without low weights: purity {judged.purity_after:.3f}", fontsize=9.5)
        left.set_ylabel("true class", fontsize=9)
        bar = figure.colorbar(image, ax=[left, right], shrink=0.75, pad=0.02)
        bar.set_label("share of the true class", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        figure.suptitle(title, fontsize=11, fontweight="bold", parse_math=False)
        counted = "Numbers are counts. " if n <= MOST_COUNTED else ""
        chance = f"{judged.null.min():.3f} to {judged.null.max():.3f}"
        _explain(
            figure,
            f"Right: without the {100 * judged.dropped_share:.0f}% of lowest weight in each batch; dropping as many at "
            f"random gives {chance} in {len(judged.null)} draws. AUROC of the weight for 'right': {judged.auroc:.2f}. "
            f"{counted}{judged.note and judged.note[0].upper() + judged.note[1:] + '.'}",
            width,
        )
    return figure


def _draw_matrix(
    ax: "Axes", counts: NDArray[np.int64], judged: PseudoLabels, names: Mapping[int, str] | None
) -> "AxesImage":
    shares = np.nan_to_num(row_shares(counts))
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    n = len(judged.classes)
    size = float(np.clip(62 / n, 5, 8.5))
    for i, j in np.ndindex(n, n):
        if n <= MOST_COUNTED and counts[i, j]:
            colour = "white" if shares[i, j] > 0.55 else INK
            ax.text(j, i, f"{counts[i, j]:d}", ha="center", va="center", fontsize=size, color=colour)
    labels = [names.get(c, str(c)) if names else str(c) for c in judged.classes]
    turned = 90 if n > 15 else 40 if max(map(len, labels)) > 4 else 0
    letters = 8 if n <= 15 else 5.5
    ax.set_xticks(range(n), labels, fontsize=letters, rotation=turned, ha="right" if turned == 40 else "center",
                  parse_math=False)  # fmt: skip
    ax.set_yticks(range(n), labels, fontsize=letters, parse_math=False)
    ax.set_xlabel("pseudo-class", fontsize=9)
    return image


def draw_purity(frames: Mapping[str, pd.DataFrame], styles: Mapping[str, Style]) -> "Figure":
    """Purity of pseudo-labels over epochs, all (dashed) and those kept by their weight (solid), a colour a method.

    Args:
        frames: method -> from `analysis.pseudo_labels.purity_frame`.
        styles: of every method.

    Raises:
        RepresentationError: there is no epoch to draw.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    if not any(len(frame) for frame in frames.values()):
        raise RepresentationError("there is no epoch with pseudo-labels to draw.")
    with _plain():
        figure = Figure(figsize=(7.0, 3.9), layout="constrained")
        ax = figure.subplots()
        for method, frame in frames.items():
            style = styles[method]
            mark = style.marker if len(frame) <= 40 else ""
            ax.fill_between(
                frame["epoch"], frame["null_low"], frame["null_high"], color=style.edge, alpha=0.2, linewidth=0
            )
            ax.plot(frame["epoch"], frame["purity"], color=style.edge, linestyle="--", linewidth=1.1)
            ax.plot(
                frame["epoch"], frame["purity_weighted"], color=style.edge, marker=mark, markersize=4, linewidth=1.5
            )
        ax.set_xlabel("epoch", fontsize=9)
        ax.set_ylabel("share of right pseudo-labels", fontsize=9)
        ax.grid(axis="y", color="#E4E4E4", linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        lines = [Line2D([], [], color=styles[m].edge, marker=styles[m].marker, markersize=5) for m in frames]
        _named_legend(figure, lines, list(frames), 7.0, "outside upper center")
        kinds = [Line2D([], [], color=GREY), Line2D([], [], color=GREY, linestyle="--"), Patch(color=GREY, alpha=0.25)]
        words = ["without low weights", "all", "as many dropped at random, 95%"]
        _named_legend(figure, kinds, words, 7.0, "outside lower center")
    return figure


# ---- Q-Q plots of proximity -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Quantiles:
    """Points of a normal Q-Q plot."""

    theory: Array
    sample: Array


def _quantiles(x: Array, limit: int = 800) -> _Quantiles:
    """Q-Q points, thinned to at most `limit`."""
    from scipy.stats import norm

    ordered = np.sort(x)
    theory = norm.ppf((np.arange(1, len(x) + 1) - 0.375) / (len(x) + 0.25))  # Blom's plotting positions
    kept = np.arange(len(x))
    if len(x) > limit:  # evenly along the axis: the ends are what one looks at
        kept = np.unique(np.searchsorted(theory, np.linspace(theory[0], theory[-1], limit)))
    return _Quantiles(theory[kept], ordered[kept])


def draw_normality(
    proximities: Mapping[str, Proximity], *, title: str, colour: str = "#0072B2", max_anchors: int = 200
) -> "Figure":
    """Normal Q-Q plots of cosine (above) and phi = exp(cosine / tau) (below), a column per modality.

    Every anchor's proximities are standardised first, since anchors differ in mean; the numbers are medians and
    shares over anchors.

    Args:
        proximities: modality -> from `analysis.proximity.positive_proximity`.
        colour: of the points, such as the method's.

    Raises:
        RepresentationError: there is no modality.
    """
    from matplotlib.figure import Figure

    if not proximities:
        raise RepresentationError("there is no proximity to draw.")
    width = max(5.2, 0.6 + 2.6 * len(proximities))
    with _plain():
        figure = Figure(figsize=(width, 6.4), layout="constrained")
        axes = figure.subplots(2, len(proximities), squeeze=False)
        for column, (modality, proximity) in enumerate(proximities.items()):
            summary = proximity_summary(anchor_frame(proximity, max_anchors)).set_index("reading").to_dict("index")
            for ax, reading in zip(axes[:, column], ("cosine", "phi"), strict=True):
                _draw_quantiles(ax, _quantiles(proximity.standardised[reading]), summary[reading], colour)
            axes[0, column].set_title(modality, fontsize=10, fontweight="bold", parse_math=False)
        tau = next(iter(proximities.values())).tau
        for ax, word in zip(axes[:, 0], ("cosine", f"phi = exp(cosine / {tau:g})"), strict=True):
            ax.set_ylabel(f"{word}, standardised", fontsize=9)
        for ax in axes[1]:
            ax.set_xlabel("normal quantile", fontsize=9)
        figure.suptitle(title, fontsize=11, fontweight="bold", parse_math=False)
        _explain(
            figure,
            "Positive pairs, each anchor standardised. On the line: normal. r, skewness and excess kurtosis are "
            "medians over anchors; 'rejected' is the share of anchors whose normality Shapiro and Wilk's test rejects "
            "at 5%, about 5% for normal data; 'best' is the family with the lowest AIC for most anchors.",
            width,
        )
    return figure


def _draw_quantiles(ax: "Axes", points: _Quantiles, summary: Mapping[Hashable, float], colour: str) -> None:
    ends = np.array([points.theory.min(), points.theory.max()])
    ax.plot(ends, ends, color=GREY, linewidth=1, linestyle="--", zorder=1)
    ax.scatter(points.theory, points.sample, s=7, color=colour, linewidth=0, zorder=2)
    best = max(("normal", "lognormal", "beta"), key=lambda name: summary[f"best_{name}"])
    words = (
        f"r {summary['qq_r']:.3f}\nskew {summary['skew']:.2f}\nkurtosis {summary['kurtosis']:.2f}\n"
        f"rejected {100 * summary['rejected_shapiro']:.0f}%\nbest: {best}"
    )
    # Under the line, which runs from corner to corner, there is room.
    ax.text(0.97, 0.03, words, transform=ax.transAxes, ha="right", va="bottom", fontsize=7.5, color=INK, zorder=3,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5})  # fmt: skip
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
