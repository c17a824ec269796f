"""Curves: lines are the means that were measured, what is left out is told, and all of it can be read."""

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.curves import (
    CURVE_COLUMNS,
    MAX_KEYS,
    Drawing,
    corruption_series,
    draw_corruptions,
    draw_label_ratios,
    draw_sensitivity,
    draw_training,
    draw_weights,
    find_sweeps,
    line_looks,
)
from analysis.figures import COLOURS, MAX_SUBSETS, method_styles, render
from analysis.results import summarise
from datasets.errors import UserError
from tests.analysis.frames import SETS, frame_of, realistic, result, toy

METHODS = ("robult", "robult[no_rec]", "gmc", "constant")
STYLES = method_styles(METHODS)
TEN = ("robult", "robult[no_rec]", "raml", "gmc", "actionmae", "mvae", "mmvae", "augmentation", "tate", "concat")
VIEWS = {"views": (("profile", "fourier", "karhunen", "pixels"), {"acc": True})}


def figure_of(drawing: Drawing) -> Figure:
    assert drawing.figure is not None, drawing.words
    return drawing.figure


def panel(figure: Figure, title: str) -> Any:
    (found,) = [ax for ax in figure.axes if ax.get_title(loc="left") == title]
    return found


def line(ax: Any, colour: str) -> np.ndarray[Any, Any]:
    """The points of the first line of a colour."""
    return next(one.get_xydata() for one in ax.lines if one.get_color() == colour)


def texts(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text")))


def caption(figure: Figure) -> str:
    return str(figure.get_supxlabel()).replace("\n", " ")


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts outside the panels, or names of ticks of one panel, that cover each other."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = []
    for group in (
        [text for ax in figure.axes for text in [ax.xaxis.label, ax.yaxis.label, *ax.texts] if text.get_text()],
        *([label for label in ax.get_xticklabels() if label.get_text()] for ax in figure.axes),
        [ax._left_title for ax in figure.axes if ax.get_visible()],  # type: ignore[attr-defined]
    ):
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in group]
        found += [(a, b) for i, (a, one) in enumerate(boxes) for b, other in boxes[:i] if one.overlaps(other)]
    return found


# ---- label ratios -----------------------------------------------------------------------------------------

RATIOS = (0.05, 0.25, 0.5, 1.0)


def test_lines_over_label_ratios_are_the_means() -> None:
    summary = summarise(realistic(METHODS, ratios=RATIOS), "last")
    drawing = draw_label_ratios(summary, "digits", "last", STYLES)
    figure = figure_of(drawing)
    assert drawing.words == ""
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["upper", "lower", "upper+lower"]
    for subset in ("upper", "lower", "upper+lower"):
        part = summary[(summary["dataset"] == "digits") & (summary["metric"] == "acc")]
        own = part[(part["method"] == "gmc") & (part["modalities"] == subset)].sort_values("label_ratio")
        np.testing.assert_allclose(line(panel(figure, subset), COLOURS["gmc"]), own[["label_ratio", "mean"]].to_numpy())
    assert panel(figure, "upper").get_xscale() == "log"
    assert "Mean over 3 seeds" in caption(figure)
    assert "The axis of label ratios is logarithmic." in caption(figure)
    assert figure.axes[0].get_ylabel() == "acc ↑"


def test_bands_are_one_deviation_to_each_side() -> None:
    rows = [result("gmc", "a", seed, value + ratio, ratio=ratio) for ratio in (0.5, 1.0)
            for seed, value in enumerate((0.1, 0.2, 0.3))]  # fmt: skip
    figure = figure_of(draw_label_ratios(summarise(frame_of(rows), "last"), "toy", "last", method_styles(["gmc"])))
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.7 - 0.1, 1.2 + 0.1))


def test_many_methods_have_bars_instead_of_bands() -> None:
    summary = summarise(realistic(TEN, ratios=RATIOS), "last")
    figure = figure_of(draw_label_ratios(summary, "digits", "last", method_styles(TEN)))
    assert not [one for one in figure.axes[0].collections if type(one).__name__ == "FillBetweenPolyCollection"]
    assert len(figure.axes[0].containers) == len(TEN)
    assert overlaps(figure) == []


def test_a_constant_predictor_far_off_is_told_and_does_not_squash_the_lines() -> None:
    frame = realistic(METHODS, ratios=RATIOS)
    figure = figure_of(draw_label_ratios(summarise(frame, "last"), "synthetic", "last", STYLES))
    assert "The constant predictor (1.42) is above the panels." in caption(figure)
    assert figure.axes[0].get_ylim()[1] < 1.42
    assert "constant predictor" not in [text.get_text() for text in figure.legends[0].get_texts()]
    near = frame.assign(value=frame["value"].where(frame["method"] != "constant", 0.5))
    figure = figure_of(draw_label_ratios(summarise(near, "last"), "digits", "last", STYLES))
    assert "constant predictor" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert figure.axes[0].get_ylim()[0] < 0.5


def test_a_ratio_without_results_is_a_gap() -> None:
    frame = realistic(METHODS, ratios=RATIOS)
    frame = frame[~((frame["method"] == "gmc") & (frame["label_ratio"] == 0.25))]
    points = line(
        panel(figure_of(draw_label_ratios(summarise(frame, "last"), "digits", "last", STYLES)), "upper"),
        COLOURS["gmc"],
    )
    assert points[:, 0].tolist() == list(RATIOS)
    assert np.isnan(points[:, 1]).tolist() == [False, True, False, False]


def test_one_label_ratio_is_no_curve() -> None:
    figure, words = draw_label_ratios(summarise(toy(), "last"), "toy", "last", STYLES)
    assert figure is None
    assert words == "toy has results for one label ratio, 5%, and a curve over label ratios takes two or more."


def test_subsets_that_are_left_out_are_counted() -> None:
    summary = summarise(realistic(METHODS, sets=VIEWS), "last")
    drawing = draw_label_ratios(summary, "views", "last", STYLES)
    assert len([ax for ax in figure_of(drawing).axes if ax.get_visible()]) == 5 <= MAX_SUBSETS
    assert drawing.words == "views: 10 more modality subsets are in the tables only."


def test_an_unknown_metric_or_data_set_names_those_there_are() -> None:
    summary = summarise(realistic(METHODS), "last")
    with pytest.raises(UserError, match="no metric 'auc'; it has: acc, f1_macro"):
        draw_label_ratios(summary, "digits", "last", STYLES, metric="auc")
    with pytest.raises(UserError, match="no results of 'absent'; there are: digits, synthetic"):
        draw_label_ratios(summary, "absent", "last", STYLES)


# ---- corruption -------------------------------------------------------------------------------------------


def told(corruptions: list[str]) -> list[tuple[str, tuple[float, ...]]]:
    return [(own.title, own.levels) for own in corruption_series(corruptions)]


@pytest.mark.parametrize(
    ("corruptions", "series"),
    [
        ([""], []),
        (["", "gaussian(image)=0.18"], [("gaussian on image", (0.0, 0.18))]),
        (["gaussian(image)=0.18"], []),
        (["mask(a)=0.2", "mask(a)=0.1"], [("mask on a", (0.1, 0.2))]),
        (["", "mask(a)=0.1", "mask(b)=0.1"], [("mask on a", (0.0, 0.1)), ("mask on b", (0.0, 0.1))]),
        (["", "swap(a)=0.5&swap(b)=0.5", "swap(a)=1&swap(b)=1"], [("swap on a+b", (0.0, 0.5, 1.0))]),
        (["", "gaussian(a)=1&mask(b)=0.1"], []),
        (
            ["", "gaussian(a)=1", "gaussian(a)=1&mask(b)=0.1", "gaussian(a)=1&mask(b)=0.2"],
            [("gaussian on a", (0.0, 1.0)), ("mask on b, with gaussian(a)=1", (0.0, 0.1, 0.2))],
        ),
        (["", "gaussian(a (left))=1e-05"], [("gaussian on a (left)", (0.0, 1e-05))]),
    ],
)
def test_corruptions_that_differ_in_one_level_are_a_series(
    corruptions: list[str], series: list[tuple[str, tuple[float, ...]]]
) -> None:
    assert told(corruptions) == series
    assert told(corruptions[::-1]) == series


@pytest.mark.parametrize("text", ["gaussian=0.1", "gaussian(a)", "gaussian(a)=much", "a"])
def test_what_is_no_corruption_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no corruption such as"):
        corruption_series([text])


def corrupted() -> pd.DataFrame:
    """wa = 0.8 - level (a: 0.9 - level, one seed more), for two methods, on a, b and a+b."""
    levels = {"": 0.0, "mask(a)=0.1": 0.1, "mask(a)=0.3": 0.3, "swap(b)=0.5": 0.5, "mask(a)=0.1&swap(b)=0.5": 0.6}
    return frame_of([
        result(method, subset, seed, 0.8 - level + 0.01 * seed, ratio=1.0, corruption=name, metric="wa")
        for method in ("robult", "gmc") for name, level in levels.items() for seed in (0, 1)
        for subset in ("a", "b", "a+b") if all(f"({m})" not in name or m in subset for m in "ab")
    ])  # fmt: skip


def test_corruption_curves_start_at_the_clean_value() -> None:
    drawing = draw_corruptions(summarise(corrupted(), "last"), "toy", 1.0, "last", STYLES)
    figure = figure_of(drawing)
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_visible()]
    assert titles == ["mask on a\ntested on a", "mask on a\ntested on a+b", "swap on b\ntested on b",
                      "swap on b\ntested on a+b"]  # fmt: skip
    points = line(panel(figure, "mask on a\ntested on a+b"), COLOURS["gmc"])
    np.testing.assert_allclose(points, [[0, 0.805], [0.1, 0.705], [0.3, 0.505]])
    assert panel(figure, "swap on b\ntested on b").get_xlabel() == "share that trades places"
    assert drawing.words == "toy: corruptions in the tables only: mask(a)=0.1&swap(b)=0.5."


def test_clean_results_have_no_corruption_curve() -> None:
    figure, words = draw_corruptions(summarise(toy(), "last"), "toy", 0.05, "last", STYLES)
    assert figure is None
    assert words.startswith("toy at 5% of the labels has no results on corrupted inputs")


# ---- hyper-parameters -------------------------------------------------------------------------------------


def test_sweeps_are_read_from_labels() -> None:
    names = [
        "robult", "robult[tau=0.1]", "robult[tau=0.3]", "robult[no_rec,tau=0.1,bandwidth=2]",
        "robult[no_rec,tau=0.3,bandwidth=2]", "gmc[tau=0.1]", "mine[a=1][epochs=10]", "mine[a=1][epochs=20]",
        "raml[sizes=(8,16),lr=1e-3]", "raml[sizes=(8,16),lr=1e-2]", "cra[mode=x]", "cra[mode=y]", "long[a=1~1a2b3c4d",
    ]  # fmt: skip
    found = {sweep.base: (sweep.keys, dict(sweep.points)) for sweep in find_sweeps(names)}
    assert found == {
        "robult": (("tau",), {"robult[tau=0.1]": (0.1,), "robult[tau=0.3]": (0.3,)}),
        "robult[no_rec,bandwidth=2]": (
            ("tau",),
            {"robult[no_rec,tau=0.1,bandwidth=2]": (0.1,), "robult[no_rec,tau=0.3,bandwidth=2]": (0.3,)},
        ),
        "mine[a=1]": (("epochs",), {"mine[a=1][epochs=10]": (10.0,), "mine[a=1][epochs=20]": (20.0,)}),
        "raml[sizes=(8,16)]": (
            ("lr",), {"raml[sizes=(8,16),lr=1e-3]": (1e-3,), "raml[sizes=(8,16),lr=1e-2]": (1e-2,)}
        ),
    }  # fmt: skip


def swept(score: Callable[[float, float], float], *, higher: bool = True) -> pd.DataFrame:
    return frame_of([
        result(f"robult[tau={tau:g},bandwidth={width:g}]", "a+b", seed, score(tau, width), higher=higher)
        for tau in (0.1, 0.3, 1.0) for width in (1, 2, 4) for seed in (0, 1) if (tau, width) != (1.0, 4)
    ])  # fmt: skip


@pytest.mark.parametrize("higher", [True, False])
def test_the_heat_map_marks_the_optimum_and_what_is_missing(higher: bool) -> None:
    sign = 1 if higher else -1
    frame = swept(lambda tau, width: 0.5 - sign * (abs(tau - 0.3) + 0.1 * abs(width - 4)), higher=higher)
    (sweep,) = find_sweeps(frame["method"].unique().tolist())
    assert (sweep.keys, sweep.values("tau"), sweep.values("bandwidth")) == (
        ("tau", "bandwidth"), [0.1, 0.3, 1.0], [1.0, 2.0, 4.0],
    )  # fmt: skip
    figure = figure_of(draw_sensitivity(summarise(frame, "last"), "toy", sweep, "last"))
    (ax,) = figure.axes
    frames = [patch for patch in ax.patches if not patch.get_fill()]
    assert [(patch.get_x(), patch.get_y()) for patch in frames] == [pytest.approx((2 - 0.46, 1 - 0.46))]
    assert [patch.get_xy() for patch in ax.patches if patch.get_hatch()] == [(1.5, 1.5)]
    assert [text.get_text() for text in ax.texts][5] == "0.5"
    assert len(ax.texts) == 8
    assert "not to be chosen by" in caption(figure)


@pytest.mark.parametrize(("higher", "best"), [(True, 0.3), (False, 1.0)])
def test_the_best_point_of_a_line_is_ringed(higher: bool, best: float) -> None:
    values = {0.1: 0.4, 0.3: 0.6, 1.0: 0.2}
    frame = frame_of([result(f"gmc[tau={tau:g}]", "a", 0, value, higher=higher) for tau, value in values.items()])
    (sweep,) = find_sweeps(frame["method"].unique().tolist())
    (ax,) = figure_of(draw_sensitivity(summarise(frame, "last"), "toy", sweep, "last")).axes
    rings = [one.get_xydata()[0] for one in ax.lines if one.get_markersize() > 10]
    np.testing.assert_allclose(rings, [[best, values[best]]])
    assert ax.get_xscale() == "log"


def test_three_hyper_parameters_at_once_are_refused_in_words() -> None:
    names = [f"robult[a={a},b={b},c={c}]" for a in (1, 2) for b in (1, 2) for c in (1, 2)]
    frame = frame_of([result(name, "a", 0, 0.5) for name in names])
    figure, words = draw_sensitivity(summarise(frame, "last"), "toy", find_sweeps(names)[0], "last")
    assert figure is None
    assert words == "robult varies 3 hyper-parameters at once (a, b, c): a figure shows one or two."


def test_a_sweep_without_results_in_a_data_set_is_not_drawn() -> None:
    (sweep,) = find_sweeps(["gmc[tau=1]", "gmc[tau=2]"])
    figure, words = draw_sensitivity(summarise(toy(), "last"), "toy", sweep, "last")
    assert figure is None
    assert words == "toy has results for fewer than two values of tau of gmc."


# ---- training ---------------------------------------------------------------------------------------------


def curves(methods: tuple[str, ...] = ("robult", "gmc"), keys: tuple[str, ...] = ("valid/score",)) -> pd.DataFrame:
    return pd.DataFrame(
        [
            ("toy", 0.05, method, seed, key, epoch, epoch + 0.1 * seed)
            for method in methods for seed in range(3) for key in keys for epoch in range(1, 21)
        ],
        columns=list(CURVE_COLUMNS),
    )  # fmt: skip


def test_training_curves_are_means_over_seeds() -> None:
    figure = figure_of(draw_training(curves(), "toy", 0.05, STYLES))
    points = line(panel(figure, "valid/score"), COLOURS["gmc"])
    np.testing.assert_allclose(points, [[epoch, epoch + 0.1] for epoch in range(1, 21)])
    heights = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((1.1 - 0.1, 20.1 + 0.1))


def test_the_keys_that_tell_most_come_first_and_the_rest_is_told() -> None:
    many = tuple(f"train/{letter}" for letter in "abcdefghijkl")
    frame = pd.concat([
        curves(keys=("train/z", "valid/score")),
        curves(("robult",), (*many, "train/loss", "diagnose/pseudo_label_accuracy", "gradient/f")),
    ])  # fmt: skip
    drawing = draw_training(frame, "toy", 0.05, STYLES)
    titles = [ax.get_title(loc="left") for ax in figure_of(drawing).axes if ax.get_visible()]
    assert titles[:5] == ["valid/score", "diagnose/pseudo_label_accuracy", "train/loss", "train/z", "train/a"]
    assert len(titles) == MAX_KEYS
    assert drawing.words == "toy: curves that are not drawn: train/i, train/j, train/k, train/l."


def test_losses_of_very_different_sizes_get_a_logarithmic_axis() -> None:
    frame = curves(keys=("train/loss", "valid/score"))
    frame["value"] = 10.0 ** (frame["epoch"] / 4)
    axes = figure_of(draw_training(frame, "toy", 0.05, STYLES)).axes
    assert [ax.get_yscale() for ax in axes[:2]] == ["linear", "log"]


def test_what_is_not_drawn_for_many_methods_is_told_only_where_it_is_so() -> None:
    styles = method_styles(TEN)
    told = "No spread in panels of more than 4 methods."
    long, short = (figure_of(draw_training(frame, "toy", 0.05, styles))
                   for frame in (curves(TEN), curves(TEN).query("epoch < 10")))  # fmt: skip
    assert told in caption(long)
    assert told not in caption(short)
    assert len(long.axes[0].collections) == len(long.axes[0].containers) == 0
    assert len(short.axes[0].containers) == len(TEN)


def test_without_curves_there_is_a_reason() -> None:
    figure, words = draw_training(curves(), "toy", 0.5, STYLES)
    assert figure is None
    assert words.startswith("toy at 50% of the labels has no training curve of valid/score")
    with pytest.raises(UserError, match="lack the columns epoch, value"):
        draw_training(curves().drop(columns=["epoch", "value"]), "toy", 0.05, STYLES)


# ---- fusion weights ---------------------------------------------------------------------------------------


def test_weights_are_strips_in_one_order_of_features() -> None:
    image = np.array([[[0.2, 0.9, 0.5], [0.1, 0.6, 0.4]]])
    drawing = draw_weights(
        {"image": image, "text": 1 - image}, ["raml"], (0, 0.38), corruption="gaussian(image)", dataset="toy"
    )
    figure = figure_of(drawing)
    np.testing.assert_allclose(panel(figure, "raml: image").images[0].get_array(), [[0.9, 0.5, 0.2], [0.6, 0.4, 0.1]])
    np.testing.assert_allclose(panel(figure, "raml: text").images[0].get_array(), [[0.1, 0.5, 0.8], [0.4, 0.6, 0.9]])
    assert [text.get_text() for text in panel(figure, "raml: image").texts] == ["0.53", "0.37"]
    assert overlaps(figure) == []


def test_methods_without_weights_are_told() -> None:
    weights = np.stack([np.full((2, 4), 0.5), np.full((2, 4), np.nan)])
    drawing = draw_weights({"a": weights}, ["raml", "gmc"], (0, 1), corruption="mask(a)", dataset="toy")
    assert drawing.words == "toy: without defined weights at every level: gmc."
    nothing = draw_weights({"a": weights[1:]}, ["gmc"], (0, 1), corruption="mask(a)", dataset="toy")
    assert nothing == (None, "toy: no method has defined fusion weights at every level of mask(a).")
    assert draw_weights({}, [], (), corruption="mask(a)", dataset="toy").figure is None


@pytest.mark.parametrize(
    ("weights", "why"), [(np.full((1, 3, 4), 0.5), r"must be \(1, 2, features\)"), (np.full((1, 2, 4), 1.5), "shares")]
)
def test_weights_that_are_none_are_refused(weights: Any, why: str) -> None:
    with pytest.raises(UserError, match=why):
        draw_weights({"a": weights}, ["raml"], (0, 1), corruption="mask(a)", dataset="toy")


# ---- all of them ------------------------------------------------------------------------------------------


def test_variants_of_a_method_have_lines_of_their_own() -> None:
    names = ["robult", *(f"robult[{letter}]" for letter in "abcdefgh")]
    looks = line_looks(method_styles(names))
    assert len({str(look.dash) for look in looks.values()}) == len(names)
    assert len({look.colour for look in looks.values()}) == 1
    assert line_looks(method_styles(["constant"]))["constant"].marker == ""


def test_odd_names_and_many_ratios_are_drawn_as_they_are() -> None:
    name, ratios = "_my$_{x}$", (0.01, 0.011, 0.012, 0.5, 0.98, 0.99, 1.0)
    sets = {"set $x$": (("text$", "a_very_long_modality_name_that_goes_on_and_on"), {"acc": True})}
    frame = realistic((name, "constant"), sets=sets, ratios=ratios)
    figure = figure_of(
        draw_label_ratios(summarise(frame, "last"), "set $x$", "last", method_styles([name, "constant"]))
    )
    root = ElementTree.fromstring(render(figure, "svg"))
    assert root.tag.endswith("svg")
    assert name in [text.get_text() for text in figure.legends[0].get_texts()]
    assert overlaps(figure) == []
    named = [label.get_text() for label in figure.axes[0].get_xticklabels() if label.get_text()]
    assert named[0] in {"1%", "1.1%", "1.2%"}
    assert named[-1] == "100%"


def test_the_same_figure_gives_the_same_bytes() -> None:
    summary = summarise(realistic(METHODS, ratios=(0.5, 1.0), sets={"digits": SETS["digits"]}), "last")
    one, two = (render(figure_of(draw_label_ratios(summary, "digits", "last", STYLES)), "svg") for _ in range(2))
    assert one == two


def test_weights_of_many_modalities_go_on_below() -> None:
    shares = np.full((6, 1, 2, 5), 1 / 6)
    figure = figure_of(
        draw_weights(
            dict(zip("abcdef", shares, strict=True)), ["raml"], [0, 1], corruption="gaussian(a)", dataset="toy"
        )
    )
    places = {ax.get_title(loc="left"): ax.get_subplotspec() for ax in figure.axes if ax.get_title(loc="left")}
    assert [spec.rowspan.start for spec in places.values() if spec] == [0, 0, 0, 1, 1, 1]
    assert figure.get_figwidth() < 12
