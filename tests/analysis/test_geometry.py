"""Alignment, uniformity, separation and views: closed forms, slow loops, and what a sentence must say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gaussian_kde, vonmises

from analysis.geometry import (
    MEASURES,
    SHARPEST,
    SMOOTHEST,
    alignment,
    angle_density,
    angles,
    concentration,
    geometry_frame,
    kernel_concentration,
    neighbour_accuracy,
    on_circle,
    plane,
    same_class_distances,
    same_class_pairs,
    same_item_distances,
    silhouette,
    uniformity,
    uniformity_floor,
)
from analysis.representations import RepresentationError
from tests.analysis import clouds


def at_degrees(*degrees: float) -> clouds.Cloud:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


# ---- alignment and uniformity -----------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "floor"), [(2, -1.575027), (3, -2.079777), (60, -3.866952), (128, -3.937530)])
def test_the_floor_of_uniformity_is_that_of_the_uniform_distribution(d: int, floor: float) -> None:
    assert uniformity_floor(d) == pytest.approx(floor, abs=5e-7)


def test_uniformity_of_four_points_on_the_circle() -> None:
    # Four pairs at squared distance 2, two at 4: log((4 e^-4 + 2 e^-8) / 6).
    assert uniformity(at_degrees(0, 90, 180, 270)) == pytest.approx(-4.396349, abs=5e-7)
    assert uniformity(np.ones((5, 3))) == pytest.approx(0, abs=1e-12)


def test_uniformity_of_normal_samples_is_near_the_floor() -> None:
    draw = np.random.default_rng(0)
    assert uniformity(draw.standard_normal((2000, 2))) == pytest.approx(-1.5749, abs=5e-5)
    assert uniformity(draw.standard_normal((2000, 60))) == pytest.approx(-3.86756, abs=5e-6)


@pytest.mark.parametrize("n", [2, 1024, 1025])
def test_uniformity_in_blocks_equals_all_pairs_at_once(n: int) -> None:
    x = clouds.unit(np.random.default_rng(n).standard_normal((n, 5)))
    square = ((x[:, None] - x[None]) ** 2).sum(-1)[np.triu_indices(n, 1)]
    assert uniformity(7 * x, t=3) == pytest.approx(np.log(np.exp(-3 * square).mean()), abs=1e-10)


def test_alignment_of_pairs_sixty_and_ninety_degrees_apart() -> None:
    distances = same_item_distances(at_degrees(0, 0), at_degrees(60, 90))
    assert alignment(distances) == pytest.approx(1.5)
    assert alignment(distances, power=1) == pytest.approx(1.207107, abs=5e-7)


# ---- pairs of one class -----------------------------------------------------------------------------------


def test_all_pairs_of_one_class_are_looked_at_once() -> None:
    classes = np.array([0, 1, 0, 1, 0, 2])
    first, second = same_class_pairs(classes)
    assert sorted(zip(first, second, strict=True)) == [(0, 2), (0, 4), (1, 3), (2, 4)]


def test_drawn_pairs_are_uniform_over_pairs_not_over_classes() -> None:
    classes = np.repeat([0, 1], [30, 10])  # 435 and 45 pairs
    first, second = same_class_pairs(classes, max_pairs=400, seed=1)
    assert len(first) == 400
    assert (first < second).all()
    assert (classes[first] == classes[second]).all()
    assert (classes[first] == 0).mean() == pytest.approx(435 / 480, abs=0.05)
    np.testing.assert_array_equal(first, same_class_pairs(classes, max_pairs=400, seed=1)[0])
    assert (first != same_class_pairs(classes, max_pairs=400, seed=2)[0]).any()


def test_a_draw_has_the_mean_of_all_pairs() -> None:
    x = clouds.representations(300)["s"]
    every = same_class_distances(x, clouds.classes(300))
    some = same_class_distances(x, clouds.classes(300), max_pairs=5000)
    assert len(every) == 3 * 100 * 99 // 2
    assert some.mean() == pytest.approx(every.mean(), abs=4 * every.std() / 5000**0.5)


# ---- separation -------------------------------------------------------------------------------------------


def test_neighbours_vote_as_in_a_plain_loop() -> None:
    x, classes = clouds.representations(90, spread=1.2)["s"], clouds.classes(90)
    right = 0
    for i in range(90):
        order = [j for j in np.argsort(((x - x[i]) ** 2).sum(1)) if j != i][:5]
        votes = [int((classes[order] == c).sum()) for c in range(3)]
        nearest = next(c for c in classes[order] if votes[c] == max(votes))
        right += nearest == classes[i]
    assert neighbour_accuracy(x, classes) == pytest.approx(right / 90)
    assert 0.4 < right / 90 < 1


def test_silhouette_of_two_tight_opposite_classes_is_one() -> None:
    assert silhouette(at_degrees(0, 0.1, 180, 180.1), [0, 0, 1, 1]) == pytest.approx(1, abs=2e-3)
    assert silhouette(at_degrees(0, 0.1, 180, 180.1), [0, 1, 0, 1]) < 0


# ---- views ------------------------------------------------------------------------------------------------


def test_principal_components_are_free_of_chance_and_keep_distances_of_a_plane() -> None:
    x = at_degrees(*np.random.default_rng(0).uniform(0, 360, 50)) @ np.array([[0.6, 0.8, 0], [0.0, 0.0, 1.0]])
    flat = plane(x, "pca")
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(
        np.linalg.norm(flat[:, None] - flat[None], axis=-1), np.linalg.norm(x[:, None] - x[None], axis=-1), atol=1e-9
    )
    np.testing.assert_array_equal(flat, plane(x, "pca", seed=9))


def test_tsne_repeats_by_its_seed_and_keeps_classes_together() -> None:
    x, classes = clouds.representations(60, spread=0.3)["s"], clouds.classes(60)
    flat = plane(x, seed=3)
    np.testing.assert_allclose(flat, plane(x, seed=3))
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-6)
    nearest = np.linalg.norm(flat[:, None] - flat[None], axis=-1) + np.diag(np.full(60, np.inf))
    assert (classes[nearest.argmin(axis=1)] == classes).mean() > 0.9


def test_angles_are_those_around_the_mean() -> None:
    flat = np.array([[11.0, 5.0], [9.0, 5.0], [10.0, 7.0], [10.0, 3.0]])
    np.testing.assert_allclose(angles(flat), np.array([0, np.pi, np.pi / 2, -np.pi / 2]))
    np.testing.assert_allclose(np.linalg.norm(on_circle(flat), axis=1), 1)


# ---- densities --------------------------------------------------------------------------------------------


def test_the_density_of_angles_on_a_worked_sample() -> None:
    theta = np.random.default_rng(0).vonmises(0, 4, 200)
    assert concentration(theta) == pytest.approx(3.7456, abs=5e-5)
    assert concentration(theta) == pytest.approx(vonmises.fit(theta, fscale=1)[0], abs=1e-4)
    assert kernel_concentration(theta) == pytest.approx(24.1819, abs=5e-5)
    assert angle_density(theta, 0.0) == pytest.approx(0.67154, abs=5e-6)
    circle = np.linspace(-np.pi, np.pi, 2001)
    assert np.trapezoid(angle_density(theta, circle), circle) == pytest.approx(1, abs=1e-9)


def test_the_density_of_three_angles_is_a_mean_of_von_mises_densities() -> None:
    theta = np.array([0, np.pi / 2, np.pi])
    found = angle_density(theta, np.array([0, np.pi / 4]), 5.0)
    np.testing.assert_allclose(found, [0.291006, 0.133712], atol=5e-7)
    np.testing.assert_allclose(found, [vonmises.pdf(at, 5, loc=theta).mean() for at in (0, np.pi / 4)])


def test_extreme_angles_neither_overflow_nor_flatten() -> None:
    assert concentration(np.zeros(10)) == SHARPEST
    assert np.isfinite(angle_density(np.zeros(10), np.linspace(-3, 3, 9))).all()
    around = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    assert kernel_concentration(around) == SMOOTHEST
    assert angle_density(around, 0.3) == pytest.approx(1 / (2 * np.pi), rel=1e-6)
    assert angle_density(around, 0.3, kernel=5000.0) >= 0


def test_the_gaussian_density_is_scipys() -> None:
    density = gaussian_kde(np.random.default_rng(0).standard_normal((100, 2)).T)
    assert density.factor == pytest.approx(0.464159, abs=5e-7)
    assert density([0, 0])[0] == pytest.approx(0.126941, abs=5e-7)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(-3, 3))
def test_turning_the_circle_turns_the_density(seed: int, turn: float) -> None:
    theta = np.random.default_rng(seed).vonmises(0, 2, 40)
    assert angle_density(theta + turn, 1 + turn) == pytest.approx(float(angle_density(theta, 1.0)), rel=1e-6)


# ---- the frame --------------------------------------------------------------------------------------------


def test_the_frame_orders_modalities_by_how_compact_they_are() -> None:
    named = clouds.representations()
    frame = geometry_frame({"robult": named, "constant": {}}, clouds.classes())
    assert list(frame["modality"]) == ["full", "text", "image"]
    by = frame.set_index("modality")
    for measure in ("distance_class", "alignment_class"):
        assert by.loc["full", measure] < by.loc["text", measure] < by.loc["image", measure]
    assert by.loc["full", "silhouette"] > by.loc["image", "silhouette"]
    assert np.isnan(by.loc["full", "alignment_item"])
    assert by.loc["text", "alignment_item"] == pytest.approx(
        alignment(same_item_distances(named["s"], named["z/text"])), rel=1e-12
    )
    assert (by["uniformity"] > by["uniformity_floor"] - 0.1).all()
    assert set(MEASURES) < set(frame.columns)


def test_a_row_that_cannot_be_measured_says_why_and_spares_the_others() -> None:
    named = clouds.representations(30)
    named["z/text"][3] = 0
    frame = geometry_frame({"gmc": named}, clouds.classes(30)).set_index("representation")
    assert "gmc: z/text has 1 of 30 samples that are zero" in frame.loc["z/text", "problem"]
    assert frame.loc["z/image", "problem"] == ""
    one = geometry_frame({"gmc": clouds.representations(30)}, np.zeros(30, int))
    assert one["problem"].str.contains("at least 2 classes, there is 1").all()
    assert one["uniformity"].notna().all()


GOOD = np.random.default_rng(0).standard_normal((12, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: uniformity(GOOD[:1]), "at least 2"),
        (lambda: same_item_distances(GOOD, GOOD[:5]), "one shape"),
        (lambda: same_class_distances(GOOD, np.arange(12)), "no class has two samples"),
        (lambda: same_class_distances(GOOD, np.linspace(0, 1, 12)), "whole numbers"),
        (lambda: same_class_distances(GOOD, [0, 1]), r"shape \(12,\)"),
        (lambda: silhouette(GOOD, np.arange(12)), "class of its own"),
        (lambda: neighbour_accuracy(GOOD[:5], [0, 1, 0, 1, 0]), "at least 6"),
        (lambda: plane(np.ones((9, 3))), "collapsed"),
        (lambda: plane(GOOD[:3]), "at least 4"),
        (lambda: geometry_frame({"m": {"s": GOOD}}, [0, 1]).problem.map(_raise), "same samples"),
    ],
)
def test_hostile_input_is_told_in_a_sentence(call: object, words: str) -> None:
    with pytest.raises(RepresentationError, match=words):
        call()  # type: ignore[operator]


def _raise(problem: str) -> None:
    raise RepresentationError(problem)
