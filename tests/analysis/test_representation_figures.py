"""Figures of representations: what is drawn is what was measured, nothing is clipped, gaps say why."""

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.figures import COLOURS, method_styles, render
from analysis.geometry import neighbour_accuracy, plane, same_class_distances, silhouette, uniformity
from analysis.proximity import Proximity, positive_proximity
from analysis.pseudo_labels import WeightedLabels, judge, purity_frame
from analysis.representation_figures import (
    class_looks,
    draw_clusters,
    draw_confusion,
    draw_geometry,
    draw_normality,
    draw_purity,
)
from analysis.representations import RepresentationError
from tests.analysis import clouds
from tests.analysis.test_pseudo_labels import batches

NAMES = {0: "negative", 1: "neutral", 2: "positive $x_1"}


def texts(artist: Figure | Axes) -> list[str]:
    return [text.get_text() for text in artist.findobj(Text) if text.get_text()]


def assert_nothing_is_clipped(figure: Figure) -> None:
    """All that is drawn, texts and legends included, lies within the figure's edges."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    assert min(box.x0, box.y0) >= -0.02
    assert box.x1 <= width + 0.02
    assert box.y1 <= height + 0.02


def judged(n_classes: int = 3) -> object:
    draw = np.random.default_rng(0)
    pseudo = draw.integers(0, n_classes, 300)
    return judge([WeightedLabels(draw.integers(0, n_classes, 300), pseudo, draw.random(300))], range(n_classes))


def proximities() -> dict[str, Proximity]:
    named = clouds.representations(66)
    return {m: positive_proximity(named["s"], named[f"z/{m}"], clouds.classes(66), 0.3) for m in ("text", "image")}


def figures() -> Iterator[Figure]:
    named, classes = clouds.representations(), clouds.classes()
    styles = method_styles(["robult", "gmc[a_variant_with_a_long_name]"])
    yield draw_geometry("robult", named, classes, names=NAMES, how="pca")
    yield draw_geometry("gmc", {"s": named["s"]}, np.arange(120) % 12, how="pca")
    yield draw_clusters(dict.fromkeys(styles, named), classes, styles, names=NAMES, how="pca")
    yield draw_clusters({"robult": named}, np.arange(120) % 12, styles, how="pca")
    yield draw_confusion(judged(7), title="robult", names=dict.fromkeys(range(7), "a long name"))  # type: ignore[arg-type]
    yield draw_confusion(judged(2), title="robult")  # type: ignore[arg-type]
    yield draw_confusion(judged(40), title="robult")  # type: ignore[arg-type]
    yield draw_purity(dict.fromkeys(styles, purity_frame({1: judged(), 5: judged()})), styles)  # type: ignore[dict-item]
    yield draw_normality(proximities(), title="robult", max_anchors=3)


def test_nothing_is_clipped_and_dollars_are_dollars() -> None:
    seen = []
    for figure in figures():
        assert_nothing_is_clipped(figure)
        seen += texts(figure)
    assert "positive $x_1" in seen


def test_a_clipped_text_would_be_found() -> None:
    figure = draw_confusion(judged(2), title="robult")  # type: ignore[arg-type]
    figure.text(0.95, 0.5, "far too long for its place")
    with pytest.raises(AssertionError):
        assert_nothing_is_clipped(figure)


def test_a_figure_is_the_same_every_time() -> None:
    named, classes = {"s": clouds.representations(60)["s"]}, clouds.classes(60)
    one, other = (render(draw_geometry("robult", named, classes, how="pca"), "png") for _ in range(2))
    assert one == other


# ---- Figure 8 ---------------------------------------------------------------------------------------------


def test_figure_8_prints_the_numbers_of_the_original_space() -> None:
    named, classes = clouds.representations(), clouds.classes()
    figure = draw_geometry("robult", named, classes, names=NAMES, how="pca")
    words = texts(figure)
    for name in ("z/text", "z/image", "s"):
        mean = same_class_distances(named[name], classes).mean()
        assert f"same class: mean {mean:.2f}" in words
        assert any(f"uniformity {uniformity(named[name]):.2f} (floor" in word for word in words)
    assert len(figure.axes) == 3 * (1 + 2 * 4)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["text", "image", "full"]


def test_figure_8_draws_the_most_frequent_classes_and_says_what_it_leaves_out() -> None:
    classes = np.repeat([5, 3, 9, 1, 7, 2], [30, 28, 26, 20, 10, 6])
    figure = draw_geometry("robult", {"s": clouds.representations()["s"]}, classes, how="pca")
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles[1:] == ["all", "class 1", "class 3", "class 5", "class 9"]
    assert "2 rarer classes are in 'all' alone" in figure.get_supxlabel().replace("\n", " ")


def test_the_density_of_angles_is_drawn_in_the_colour_of_its_class() -> None:
    figure = draw_geometry("robult", {"s": clouds.representations()["s"]}, clouds.classes(), how="pca")
    looks = class_looks([0, 1, 2])
    lines = [to_hex(ax.lines[0].get_color()) for ax in figure.axes[4::2]]
    assert lines == [looks[c][0].lower() for c in range(3)]


def test_classes_differ_by_colour_and_marker() -> None:
    looks = class_looks(range(64))
    assert len(set(looks.values())) == 64
    assert len({colour for colour, _ in class_looks(range(8)).values()}) == 8
    assert len({marker for _, marker in class_looks(range(8)).values()}) == 8


# ---- Figure 10 --------------------------------------------------------------------------------------------


def test_figure_10_draws_the_view_and_prints_the_original_space() -> None:
    good, classes = clouds.representations(), clouds.classes()
    bad = {"s": np.ones((120, 4)), "z/text": good["z/text"]}
    figure = draw_clusters({"robult": good, "gmc": bad}, classes, method_styles(["robult", "gmc"]), how="pca")
    axes = np.array(figure.axes).reshape(3, 2)
    for row, name in enumerate(("z/text", "z/image", "s")):
        x = good[name]
        wanted = f"silhouette {silhouette(x, classes):.2f} · NN {neighbour_accuracy(x, classes):.2f}"
        assert axes[row, 0].get_xlabel() == wanted
        points = np.concatenate([np.asarray(part.get_offsets()) for part in axes[row, 0].collections])
        flat = plane(x, "pca")
        np.testing.assert_allclose(points, np.concatenate([flat[classes == c] for c in range(3)]), atol=1e-9)
    assert any("no such representation" in word.replace("\n", " ") for word in texts(axes[1, 1]))
    assert any("gmc: s is the same" in word.replace("\n", " ") for word in texts(axes[2, 1]))
    strips = [to_hex(axes[0, column].lines[0].get_color()) for column in range(2)]
    assert strips == [COLOURS["robult"].lower(), COLOURS["gmc"].lower()]


# ---- pseudo-labels and proximity --------------------------------------------------------------------------


def test_figure_9_shows_counts_and_purity_beside_chance() -> None:
    result = judge(batches(0.5), range(3))
    figure = draw_confusion(result, title="robult, epoch 20")
    left, right = figure.axes[:2]
    cells = [text.get_text() for text in left.texts]
    assert cells == [str(count) for count in result.before.ravel() if count]
    assert left.get_title() == f"all: purity {result.purity_before:.3f}"
    assert right.get_title() == f"without low weights: purity {result.purity_after:.3f}"
    below = figure.get_supxlabel().replace("\n", " ")
    assert f"{result.null.min():.3f} to {result.null.max():.3f} in 20 draws" in below
    assert f"{result.auroc:.2f}" in below


def test_figure_9_says_when_nothing_is_filtered() -> None:
    flat = WeightedLabels(np.array([0, 1]), np.array([0, 0]), np.ones(2))
    figure = draw_confusion(judge([flat], range(2)), title="robult")
    assert "All weights are equal in 1 of 1 batches" in figure.get_supxlabel().replace("\n", " ")


def test_purity_lines_are_the_frames() -> None:
    frame = purity_frame({e: judge(batches(0.1 * e), range(3)) for e in (1, 2, 3)})
    figure = draw_purity({"robult": frame}, method_styles(["robult"]))
    everyone, kept = figure.axes[0].lines
    np.testing.assert_allclose(everyone.get_ydata(), frame["purity"])
    np.testing.assert_allclose(kept.get_ydata(), frame["purity_weighted"])
    assert to_hex(kept.get_color()) == COLOURS["robult"].lower()


def test_qq_points_lie_on_the_line_for_normal_data_alone() -> None:
    draw = np.random.default_rng(0)
    cosine = tuple(0.1 * draw.standard_normal(60) for _ in range(30))
    figure = draw_normality({"text": Proximity(cosine, 0.1)}, title="robult", max_anchors=5)
    straight, bent = (np.asarray(ax.collections[0].get_offsets()) for ax in figure.axes)
    middle = np.abs(straight[:, 0]) < 1.5
    assert np.abs(straight[middle, 0] - straight[middle, 1]).max() < 0.15
    assert np.abs(bent[:, 0] - bent[:, 1]).max() > 1
    assert len(straight) <= 800


# ---- hostile input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: draw_geometry("constant", {}, []), "constant: has no representation"),
        (lambda: draw_geometry("m", clouds.representations(30), np.zeros(5)), r"shape \(30,\)"),
        (lambda: draw_clusters({"constant": {}}, [0, 1], {}), "no method has a representation"),
        (lambda: draw_purity({}, {}), "no epoch"),
        (lambda: draw_normality({}, title="m"), "no proximity"),
    ],
)
def test_nothing_to_draw_is_told_in_a_sentence(call: object, words: str) -> None:
    with pytest.raises(RepresentationError, match=words):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("one_class", [True, False])
def test_odd_representations_are_drawn_or_explained(one_class: bool) -> None:
    named = clouds.representations(30)
    named["z/text"] = named["z/text"] * np.nan
    named["z/image"] = np.repeat(named["z/image"][:2], 15, axis=0)  # two points
    classes = np.zeros(30, int) if one_class else clouds.classes(30)
    figure = draw_geometry("m", named, classes, how="pca")
    assert any("NaN" in word for word in texts(figure))
    assert_nothing_is_clipped(figure)
    assert_nothing_is_clipped(draw_clusters({"m": named}, classes, method_styles(["m"]), how="pca"))
