"""Metric against label ratio (Robult, Figure 7)."""

from collections.abc import Mapping

import pandas as pd

from analysis.curves.panels import (
    Drawing,
    Panel,
    columns_for,
    draw_panels,
    heading_of,
    legible_subsets,
    line_looks,
    method_lines,
    metric_label,
    of_metric,
    spread_told,
)
from analysis.figures import Style
from analysis.tables import percent


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
    part = of_metric(summary, dataset, metric)
    part = part[(part["corruption"] == "") & (part["n_seeds"] > 0)]
    ratios = sorted(part["label_ratio"].unique())
    if len(ratios) < 2:
        there = f"results for one label ratio, {percent(ratios[0])}," if ratios else "no results on clean inputs"
        return Drawing(None, f"{dataset} has {there} and a curve over label ratios takes two or more.")
    subsets, hidden = legible_subsets(part)
    log = ratios[-1] / ratios[0] >= 8
    panels = [
        Panel(subset, method_lines(part[part["modalities"] == subset], "label_ratio", ratios), "visible labels",
              metric_label(part), log, ticks=tuple(ratios), tick_text=percent)
        for subset in subsets
    ]  # fmt: skip
    axis = " The axis of label ratios is logarithmic." if log else ""
    figure = draw_panels(
        panels, line_looks(styles), columns_for(len(panels)), heading_of(part), f"{spread_told(part)}{axis}", checkpoint
    )
    return Drawing(figure, f"{dataset}: {hidden} more modality subsets are in the tables only." if hidden else "")
