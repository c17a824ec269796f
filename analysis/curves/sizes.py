"""Metric against the number of modalities that are there."""

from collections.abc import Mapping

import pandas as pd

from analysis.curves.panels import (
    Drawing,
    Panel,
    columns_for,
    draw_panels,
    heading_of,
    line_looks,
    method_lines,
    metric_label,
    spread_told,
)
from analysis.figures import Style
from analysis.tables import percent


def draw_sizes(means: pd.DataFrame, dataset: str, checkpoint: str, styles: Mapping[str, Style]) -> Drawing:
    """A data set's primary metric against the number of modalities, a panel a label ratio, clean inputs.

    Args:
        means: from `analysis.subset_means.means_by_number`.
        dataset: label of the data set.
        checkpoint: `last` or `best`, for the caption.
        styles: of every method, from `analysis.figures.method_styles`.
    """
    sizes = sorted(means["n_modalities"].unique()) if len(means) else []
    if len(sizes) < 3:
        return Drawing(None, f"{dataset} has no results on all subsets of three sizes or more: no curve over sizes.")
    panels = [
        Panel(f"{percent(float(str(ratio)))} of the labels", method_lines(part, "n_modalities", sizes), "modalities",
              metric_label(part), ticks=tuple(sizes))
        for ratio, part in means.groupby("label_ratio")
    ]  # fmt: skip
    words = f"Mean over all modality subsets of a size. {spread_told(means)}"
    heading = f"{heading_of(means)}, by number of modalities"
    return Drawing(draw_panels(panels, line_looks(styles), columns_for(len(panels)), heading, words, checkpoint), "")
