"""Figures: that what is drawn is what was measured, that it can be read, and that it is the same every time."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.figures import COLOURS, DPI, MARKERS, MAX_SUBSETS, Panels, draw, method_styles, panels, render
from analysis.results import CONSTANT, METHOD_ORDER, check_frame, summarise
from tests.analysis.frames import frame_of, realistic, result, toy

EIGHT = ("robult", "robult[no_rec]", "raml", "gmc", "actionmae", "prompt_trans", "tate", "unimodal", "constant")
VIEWS = {"views": (("profile", "fourier", "karhunen", "morphological", "pixels", "zernike"), {"acc": True})}
LONG = {"a very long data set label " * 4: (("a_modality_with_a_long_name", "b$_x$"), {"acc": True})}


def numbers(frame: pd.DataFrame, dataset: str) -> Panels:
    checked = check_frame(frame)
    return panels(checked, summarise(checked, "last"), dataset, "last")


def drawn(frame: pd.DataFrame, dataset: str) -> tuple[Figure, Panels]:
    shown = numbers(frame, dataset)
    return draw(shown, method_styles(frame["method"].unique())), shown


def bars(figure: Figure, facet: int) -> list[Any]:
    return [bar for container in figure.axes[facet].containers for bar in getattr(container, "patches", [])]


# ---- what is drawn is what was measured -------------------------------------------------------------------


def test_bars_grow_from_the_constant_predictor_to_the_mean() -> None:
    frame = realistic()
    figure, shown = drawn(frame, "digits")
    summary = summarise(frame, "last")
    assert shown.methods == ("robult", "gmc", "unimodal")
    for facet, ratio in enumerate((0.05, 0.5)):
        part = summary[
            (summary["dataset"] == "digits") & (summary["metric"] == "acc") & (summary["label_ratio"] == ratio)
        ]
        means = part[part["method"] != CONSTANT].pivot(index="method", columns="modalities", values="mean")
        wanted = means.loc[list(shown.methods), ["upper", "lower", "upper+lower"]].to_numpy().ravel()
        found = bars(figure, facet)
        np.testing.assert_allclose([bar.get_y() for bar in found], 0.1)  # the constant predictor's accuracy
        np.testing.assert_allclose([bar.get_y() + bar.get_height() for bar in found], wanted)


def test_bars_of_a_metric_that_is_better_lower_hang() -> None:
    figure, _ = drawn(realistic(), "synthetic")
    assert all(bar.get_height() < 0 for bar in bars(figure, 0))
    assert "↓" in figure.axes[0].get_ylabel()
    assert "lower is better" in figure.legends[0].get_title().get_text()


def test_without_the_constant_predictor_bars_start_at_zero_on_the_axis() -> None:
    figure, shown = drawn(realistic(("robult", "gmc")), "digits")
    assert not shown.starts_at_constant
    assert {bar.get_y() for bar in bars(figure, 0)} == {0}
    assert figure.axes[0].get_ylim()[0] == 0
    assert "Bars start at 0" in figure.get_supxlabel()


def test_a_constant_predictor_absent_from_one_facet_is_no_start_for_any() -> None:
    frame = realistic()
    _, shown = drawn(frame[(frame["method"] != CONSTANT) | (frame["label_ratio"] == 0.05)], "digits")
    assert not shown.starts_at_constant
    np.testing.assert_array_equal(shown.baseline, 0)


def test_points_are_the_seeds_and_error_bars_the_sample_deviation() -> None:
    frame = realistic()
    shown = numbers(frame, "digits")
    assert len(shown.points) == 2 * 3 * 3 * 3  # ratios, subsets, methods, seeds
    at = shown.points.query("ratio == 1 and subset == 2 and method == 0")["value"]
    own = frame[
        (frame["dataset"] == "digits") & (frame["label_ratio"] == 0.5) & (frame["modalities"] == "upper+lower")
        & (frame["method"] == "robult") & (frame["metric"] == "acc") & (frame["checkpoint"] == "last")
    ]["value"]  # fmt: skip
    np.testing.assert_array_equal(at.to_numpy(), own.to_numpy())
    np.testing.assert_allclose(shown.std[1, 2, 0], own.std(ddof=1))
    np.testing.assert_allclose(shown.mean[1, 2, 0], own.mean())


def test_missing_and_undefined_cells_are_written_in_their_places() -> None:
    figure, shown = drawn(toy(), "toy")
    words = {text.get_text(): text.xy for text in figure.axes[0].texts}  # type: ignore[attr-defined]
    assert shown.methods == ("robult", "gmc")
    assert set(words) == {"NaN", "missing"}
    assert 1 < words["missing"][0] < 1.5  # gmc on b, right of the group's middle
    assert 1.5 < words["NaN"][0] < 2  # robult on a+b, left of it
    assert len(bars(figure, 0)) == 4


def test_everything_lies_within_the_axes() -> None:
    for frame, dataset in ((realistic(), "digits"), (realistic(), "synthetic"), (toy(), "toy")):
        figure, shown = drawn(frame, dataset)
        low, high = figure.axes[0].get_ylim()
        ends = [shown.points["value"].to_numpy(), (shown.mean - shown.std).ravel(), (shown.mean + shown.std).ravel()]
        values = np.concatenate(ends)
        values = values[np.isfinite(values)]
        assert low < values.min()
        assert values.max() < high


@pytest.mark.parametrize(
    "frame",
    [
        realistic(("constant",)),
        realistic(("robult",), seeds=1),
        frame_of([result("robult", "a", 0, float("nan"))]),
        frame_of([result("robult", "a", 0, 0.0)]),
    ],
)
def test_poor_results_still_make_a_figure(frame: pd.DataFrame) -> None:
    figure, _ = drawn(frame, frame["dataset"].iloc[0])
    assert render(figure, "png").startswith(b"\x89PNG")


def test_of_too_many_subsets_the_single_ones_and_the_full_set_are_drawn_and_it_is_told() -> None:
    figure, shown = drawn(realistic(("robult", "constant"), sets=VIEWS, seeds=2), "views")
    names = VIEWS["views"][0]
    assert shown.subsets == (*names, "+".join(names))
    assert len(shown.subsets) <= MAX_SUBSETS
    assert shown.hidden == ("views: 56 of 63 modality subsets are in the tables only, the figure would be illegible")
    assert "56 more modality subsets are in the tables" in figure.get_supxlabel()


# ---- it can be read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "dataset"),
    [
        (realistic(), "digits"),
        (realistic(EIGHT, ratios=(0.05, 0.5, 1.0)), "synthetic"),
        (realistic(EIGHT, ratios=(0.05, 0.5, 1.0)), "digits"),
        (realistic(sets=VIEWS, seeds=2), "views"),
        (realistic(("robult", "_own$method_" * 8, "constant"), sets=LONG), next(iter(LONG))),
    ],
    ids=["quickstart", "eight methods, seven subsets", "eight methods, three subsets", "six views", "long names"],
)
def test_no_text_is_clipped_and_none_covers_another(frame: pd.DataFrame, dataset: str) -> None:
    figure, _ = drawn(frame, dataset)
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    page = figure.bbox
    boxes = {}
    for text in figure.findobj(lambda artist: hasattr(artist, "get_text") and artist.get_visible()):
        if text.get_text():
            box = text.get_window_extent(renderer)
            boxes[(text.get_text(), id(text))] = box
            inside = box.x0 >= 2 and box.y0 >= 2 and box.x1 <= page.x1 - 2 and box.y1 <= page.y1 - 2
            assert inside, f"{text.get_text()!r} at {box} leaves the page {page}"
    labels = figure.axes[-1].get_xticklabels()
    if labels[0].get_rotation() == 0:
        for left, right in combinations([label.get_window_extent(renderer) for label in labels], 2):
            assert left.x1 < right.x0
    legend = figure.legends[0].get_window_extent(renderer)
    top = figure.axes[0].get_tightbbox(renderer)
    assert top is not None
    assert legend.y0 >= top.y1 - 1
    words = figure._supxlabel.get_window_extent(renderer)  # type: ignore[attr-defined]
    bottom = figure.axes[-1].get_tightbbox(renderer)
    assert bottom is not None
    assert words.y1 <= bottom.y0 + 1


def lab(colour: str, blindness: str) -> np.ndarray:
    """CIE Lab of a colour as it is seen; simulation matrices of Machado et al. (2009), severity 1, linear RGB."""
    seen = {
        "none": (1, 0, 0, 0, 1, 0, 0, 0, 1),
        "protanopia": (0.152286, 1.052583, -0.204868, 0.114503, 0.786281, 0.099216, -0.003882, -0.048116, 1.051998),
        "deuteranopia": (0.367322, 0.860646, -0.227968, 0.280085, 0.672501, 0.047413, -0.01182, 0.04294, 0.968881),
        "tritanopia": (1.255528, -0.076749, -0.178779, -0.078411, 0.930809, 0.147602, 0.004733, 0.691367, 0.3039),
    }
    srgb = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.reshape(seen[blindness], (3, 3)) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("blindness", ["none", "protanopia", "deuteranopia", "tritanopia"])
def test_colours_are_told_apart_under_colour_blindness(blindness: str) -> None:
    for one, other in combinations([method for method in COLOURS if method != CONSTANT], 2):
        distance = np.linalg.norm(lab(COLOURS[one], blindness) - lab(COLOURS[other], blindness))
        assert distance >= 15, f"{one} and {other}: {distance:.1f}"
    for method in COLOURS:
        assert np.linalg.norm(lab(COLOURS[method], blindness) - lab("#FFFFFF", blindness)) >= 20, method


def test_a_method_looks_the_same_in_every_figure() -> None:
    assert set(COLOURS) == set(MARKERS) == set(METHOD_ORDER)
    few, many = method_styles(["gmc", "mine"]), method_styles([*METHOD_ORDER, "mine", "gmc[x]", "gmc[y]"])
    assert few["gmc"] == many["gmc"]
    assert few["mine"] == many["mine"]
    assert many["gmc"].face == COLOURS["gmc"]


def test_variants_share_the_edge_colour_and_differ_in_hatch() -> None:
    variants = [f"robult[v{i}]" for i in range(8)]
    styles = method_styles(["robult", *variants])
    assert {styles[variant].edge for variant in variants} == {COLOURS["robult"]}
    assert {styles[variant].face for variant in variants} == {"#80b8d8"}  # #0072B2 halfway to white
    assert len({styles[variant].hatch for variant in variants}) == 8
    assert styles["robult"].hatch == ""


def test_methods_of_a_users_own_differ_from_one_another() -> None:
    styles = method_styles([f"own{i}" for i in range(8)])
    assert len({style.face for style in styles.values()}) == 8


# ---- the same every time ----------------------------------------------------------------------------------


def test_the_same_results_give_the_same_bytes() -> None:
    frame = realistic(EIGHT)
    for kind in ("png", "svg"):
        first, second = (render(drawn(rows, "digits")[0], kind) for rows in (frame, frame.iloc[::-1]))  # type: ignore[arg-type]
        assert first == second


def test_svg_is_well_formed_and_loads_nothing() -> None:
    svg = render(drawn(realistic(), "digits")[0], "svg")
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    links = [value for node in root.iter() for name, value in node.attrib.items() if name.endswith("href")]
    assert links
    assert all(link.startswith("#") for link in links)


def test_a_users_matplotlibrc_changes_nothing_and_is_left_alone() -> None:
    from matplotlib import rcParams

    plain = render(drawn(realistic(), "digits")[0], "png")
    before = rcParams["font.size"]
    try:
        rcParams["font.size"] = 30.0
        assert render(drawn(realistic(), "digits")[0], "png") == plain
        assert rcParams["font.size"] == 30.0
    finally:
        rcParams["font.size"] = before


def test_drawing_needs_neither_pyplot_nor_torch() -> None:
    code = (
        "import sys; from tests.analysis.test_figures import drawn, toy; from analysis import report; "
        "drawn(toy(), 'toy'); print([name for name in ('matplotlib.pyplot', 'mlflow') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
