"""Losses, validation score and diagnostics by epoch."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from analysis.curves.panels import MAX_BANDS, Drawing, Line, Panel, columns_for, draw_panels, is_dense, line_looks
from analysis.figures import Style
from analysis.results import order_methods, some
from analysis.tables import percent
from datasets.errors import UserError

MAX_KEYS = 12
"""Panels of a figure of training curves."""
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
    if n > 1 and any(len(panel.lines) > MAX_BANDS and is_dense(panel.lines[0]) for panel in panels):
        words += f"No spread in panels of more than {MAX_BANDS} methods. "
    words += "Losses of different methods are not on one scale."
    if any(name.startswith("diagnose/") for name in names[:MAX_KEYS]):
        words += " diagnose/...: on the last batch of an epoch."
    heading = f"{dataset}: training, {percent(label_ratio)} of the labels"
    figure = draw_panels(panels, line_looks(styles), columns_for(len(panels)), heading, words, None, share_y=False)
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
