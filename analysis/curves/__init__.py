"""Figures over a continuous axis (label ratio, corruption level, hyper-parameter, epoch) and of fusion weights.

After Robult, Figure 7, and RAML, Figures 4 and 5. Colours and markers of methods are those of `analysis.figures`.
Every function here gives a `Drawing`: the figure, or None where there is nothing to draw, and why in a sentence.
Letters: K methods, L levels, D features, P points of a line, E epochs.
"""

from analysis.curves.corruption import corruption_series, draw_corruptions
from analysis.curves.panels import Drawing, line_looks
from analysis.curves.ratios import draw_label_ratios
from analysis.curves.sensitivity import draw_sensitivity, find_sweeps
from analysis.curves.sizes import draw_sizes
from analysis.curves.training import CURVE_COLUMNS, MAX_KEYS, draw_training
from analysis.curves.weights import draw_weights

__all__ = [
    "CURVE_COLUMNS", "MAX_KEYS", "Drawing", "corruption_series", "draw_corruptions", "draw_label_ratios",
    "draw_sensitivity", "draw_sizes", "draw_training", "draw_weights", "find_sweeps", "line_looks",
]  # fmt: skip
