"""Fusion weights, feature by feature, as a corruption grows (RAML, Figure 5)."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from analysis.curves.panels import LETTER, Drawing, Floats, explain, plain_style
from analysis.figures import INK
from analysis.results import some
from datasets.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOLD_LETTER = 0.1
"""Width of an average letter of a title, in inches."""
MAX_ACROSS = 3
"""Modalities beside each other; more go on below."""


def draw_weights(
    weights: Mapping[str, ArrayLike], methods: Sequence[str], levels: Sequence[float], *, corruption: str, dataset: str
) -> Drawing:
    """Element-wise fusion weights as a corruption grows: a panel a modality, methods below each other, a strip a level.

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
    across = min(len(arrays), MAX_ACROSS)
    lines = -(-len(arrays) // across)  # of one method
    width = max(6.5, 1.2 + 3.3 * across)
    with plain_style():
        title = wrap(f"{dataset}: fusion weights under {corruption}", int(width / BOLD_LETTER))
        height = 1.25 + 0.2 * len(title) + lines * len(rows) * (0.42 + 0.23 * len(levels))
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(lines * len(rows), across, squeeze=False)
        for ax in axes.ravel():
            ax.set_axis_off()
        for i, k in enumerate(rows):
            order = np.argsort(-next(iter(arrays.values()))[k, 0], kind="stable")
            for at, (name, array) in enumerate(arrays.items()):
                j = at % across
                ax, strips = axes[lines * i + at // across, j], array[k][:, order]
                ax.set_axis_on()
                image = ax.imshow(strips, cmap="cividis", vmin=low, vmax=high if high > low else low + 1, aspect="auto",
                                  interpolation="nearest")  # fmt: skip
                for level in range(1, len(levels)):
                    ax.axhline(level - 0.5, color="white", linewidth=1.5)
                ax.set_title(f"{methods[k]}: {name}", fontsize=9, loc="left", parse_math=False)
                ax.set_xticks([])
                ax.set_yticks(range(len(levels)), [f"{level:g}" for level in levels] if j == 0 else [])
                ax.tick_params(labelsize=8, length=0)
                ax.spines[:].set_visible(False)
                for level, mean in enumerate(strips.mean(1)):
                    ax.annotate(f"{mean:.2f}", (1, level), (4, 0), xycoords=("axes fraction", "data"),
                                textcoords="offset points", fontsize=8, va="center", color=INK)  # fmt: skip
        beside = wrap(f"level of {corruption}", max(int(0.7 * height / LETTER), 12))
        figure.supylabel("\n".join(beside), fontsize=9, parse_math=False)
        bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 2.2 / height), aspect=16, pad=0.03)
        bar.ax.tick_params(labelsize=8)
        bar.set_label("weight", fontsize=9)
        figure.suptitle("\n".join(title), fontsize=11, fontweight="bold", parse_math=False)
        words = f"in the order of the weights of {next(iter(arrays))} at level {levels[0]:g}; mean over test samples."
        explain(figure, f"A column is one of the {len(order)} features, {words} Numbers: mean over features.")
    return figure
