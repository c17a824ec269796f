"""DCA: equal to the public implementation on its own scores, honest about zeros, deaf to what must not matter."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay

from analysis.dca import (
    DelaunayScore,
    DelaunaySettings,
    clusters,
    delaunay_frame,
    delaunay_graph,
    delaunay_score,
    delaunay_table,
    score_halves,
    score_subsamples,
)
from analysis.representations import RepresentationError
from tests.analysis import clouds


class Golden(NamedTuple):
    """What the public DCA code gives with HDBSCAN size 10 and T = 10^4 rays a point."""

    sets: clouds.Sets
    sums: tuple[float, float]
    precision: float
    recall: float
    mixed: int
    edges: int
    harmonic: float
    n_clusters: int
    n_noise: int
    exact: bool
    """Whether the exact graph is affordable and its edges are those of the public code."""


GOLDEN = [
    Golden(clouds.two_gaussians, (3.05263, -17.70062), 0.70, 0.68, 161, 311, 0.621010, 6, 62, True),
    Golden(clouds.missed_mode, (468.30826, 360.61553), 1, 2 / 3, 292, 685, 0.619081, 3, 0, True),
    Golden(clouds.far_apart, (-10.65259, 771.90080), 0, 0, 0, 2251, 0, 2, 0, False),
    Golden(clouds.noisy_copy, (64.07302, 64.81327), 0.47, 0.47, 1509, 2990, 0.481019, 2, 106, False),
    Golden(clouds.on_the_sphere, (8.17265, 12.89229), 0.70, 0.70, 1470, 2883, 0.622618, 3, 48, False),
    Golden(clouds.exact_copy, (64.07302, 64.07302), 0.30, 0.30, 304, 458, 0.367051, 3, 140, False),
    Golden(clouds.on_a_line, (-22.40073, 9.41458), 0.89, 0.92, 88, 174, 0.716362, 7, 19, True),
]  # fmt: skip


def named(golden: Golden) -> str:
    return golden.sets.__name__


@pytest.mark.parametrize("n_rays", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("golden", GOLDEN, ids=named)
def test_scores_are_those_of_the_public_code(golden: Golden, n_rays: int) -> None:
    r, e = golden.sets()
    np.testing.assert_allclose((r.sum(), e.sum()), golden.sums, atol=1e-5)
    score = delaunay_score(r, e, DelaunaySettings(n_rays=n_rays))
    assert score.precision == pytest.approx(golden.precision, abs=1e-12)
    assert score.recall == pytest.approx(golden.recall, abs=1e-12)
    assert score.quality == pytest.approx(golden.mixed / golden.edges, abs=5e-3)
    assert score.harmonic_mean == pytest.approx(golden.harmonic, abs=2e-3)
    assert (score.n_clusters, score.n_noise) == (golden.n_clusters, golden.n_noise)
    if golden.exact:
        assert (score.n_mixed_edges, score.n_edges) == (golden.mixed, golden.edges)
        assert score.harmonic_mean == pytest.approx(golden.harmonic, abs=5e-7)


@pytest.mark.parametrize("golden", [GOLDEN[3], GOLDEN[4]], ids=named)
def test_rays_find_as_many_edges_as_the_public_code(golden: Golden) -> None:
    score = delaunay_score(*golden.sets(), DelaunaySettings(n_rays=10_000))
    assert score.n_edges == pytest.approx(golden.edges, abs=5)
    assert score.n_mixed_edges == pytest.approx(golden.mixed, abs=5)


def test_the_worked_example_of_the_harmonic_mean() -> None:
    # The example in the public code's documentation: P 0.95, recall 0.4, q 19/95.
    score = DelaunayScore(0.95, 0.4, 19 / 95, 95, 19, 3, 1, 0, 10, 20)
    assert score.harmonic_mean == pytest.approx(0.350769, abs=5e-7)
    assert score.consistency == pytest.approx(2 / 3)


# ---- the graph --------------------------------------------------------------------------------------------


def edges(graph: object) -> set[tuple[int, int]]:
    start, end = graph.tocoo().coords  # type: ignore[attr-defined]
    return {(int(i), int(j)) for i, j in zip(start, end, strict=True) if i < j}


def test_rays_find_the_exact_graph_in_the_plane_and_a_subset_in_space() -> None:
    plane, space = np.random.default_rng(0).standard_normal((60, 2)), np.random.default_rng(1).standard_normal((60, 3))
    rays = DelaunaySettings(graph="rays", n_rays=20_000)
    exact = DelaunaySettings(graph="exact")
    assert edges(delaunay_graph(plane, exact)) >= edges(delaunay_graph(plane, rays))
    assert len(edges(delaunay_graph(plane, rays))) >= 0.97 * len(edges(delaunay_graph(plane, exact)))
    assert edges(delaunay_graph(space, rays)) <= edges(delaunay_graph(space, exact))
    assert len(edges(delaunay_graph(space, rays))) >= 0.95 * len(edges(delaunay_graph(space, exact)))


def test_rays_agree_with_a_plain_loop_over_points_and_directions() -> None:
    x = np.random.default_rng(3).standard_normal((25, 7))
    settings = DelaunaySettings(n_rays=200, seed=5)
    found = set()
    for u in np.random.default_rng(5).standard_normal((200, 7)):
        for p in range(len(x)):
            rise = [u @ (q - x[p]) for q in x]
            reach = [((q - x[p]) ** 2).sum() / (2 * r) if r > 1e-12 else np.inf for q, r in zip(x, rise, strict=True)]
            if min(reach) < np.inf:
                found.add(tuple(sorted((p, int(np.argmin(reach))))))
    assert edges(delaunay_graph(x, settings)) == found


def test_the_graph_contains_the_spanning_tree_and_is_symmetric() -> None:
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial.distance import cdist

    x = np.random.default_rng(4).standard_normal((80, 10))
    graph = delaunay_graph(x, DelaunaySettings(n_rays=2000))
    assert (graph != graph.T).nnz == 0
    tree = minimum_spanning_tree(cdist(x, x)).tocoo()
    assert {tuple(sorted(pair)) for pair in zip(*tree.coords, strict=True)} <= edges(graph)


def test_edges_among_some_points_are_those_of_the_whole_graph() -> None:
    x = np.random.default_rng(6).standard_normal((50, 8))
    some = np.arange(50) % 3 > 0
    whole = edges(delaunay_graph(x, DelaunaySettings(n_rays=300)))
    part = edges(delaunay_graph(x, DelaunaySettings(n_rays=300), among=some))
    assert part == {(i, j) for i, j in whole if some[i] and some[j]}


def test_copies_keep_one_edge_to_the_first_copy_at_the_other_end() -> None:
    # Three corners of a triangle, the last twice: the copies are not joined, each is joined to both others.
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    wanted = {(0, 1), (0, 2), (1, 2), (0, 3), (1, 3)}
    assert edges(delaunay_graph(x)) == wanted
    assert edges(delaunay_graph(x, DelaunaySettings(graph="rays"))) == wanted


def test_points_in_a_plane_of_their_space_need_no_triangulation() -> None:
    flat = np.random.default_rng(8).standard_normal((40, 2))
    lifted = flat @ np.array([[1.0, 0.5, 0.2], [0.3, -1.0, 2.0]])
    hull = edges(delaunay_graph(lifted))
    assert hull <= {(i, j) for i, j in combinations(range(40), 2)}
    assert len(hull) > 60


def test_threads_do_not_change_the_graph_and_a_seed_does() -> None:
    x = np.random.default_rng(9).standard_normal((200, 20))
    few = DelaunaySettings(n_rays=3000)
    assert edges(delaunay_graph(x, few)) == edges(delaunay_graph(x, few, threads=3))
    np.random.seed(0)  # noqa: NPY002 - that global state is not read
    assert edges(delaunay_graph(x, few)) == edges(delaunay_graph(x, few))
    assert edges(delaunay_graph(x, few)) != edges(delaunay_graph(x, DelaunaySettings(n_rays=3000, seed=1)))


@pytest.mark.slow
def test_nine_thousand_samples_in_sixty_dimensions() -> None:
    """R and E of CMU-MOSEI's test set: about half a minute on one core."""
    r = clouds.unit(np.random.default_rng(0).standard_normal((4643, 60)))
    e = clouds.unit(r + 0.05 * np.random.default_rng(1).standard_normal((4643, 60)))
    score = delaunay_score(r, e, threads=2)
    assert score.quality == pytest.approx(0.5, abs=0.05)


# ---- the score --------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.integers(2, 6))
def test_scale_shift_and_rotation_do_not_matter(seed: int, scale: float, d: int) -> None:
    draw = np.random.default_rng(seed)
    r, e = draw.standard_normal((40, d)), draw.standard_normal((30, d)) + 0.5
    turn = np.linalg.qr(draw.standard_normal((d, d)))[0]
    before = delaunay_score(r, e, DelaunaySettings(graph="rays", n_rays=2000))
    after = delaunay_score(scale * (r @ turn), scale * (e @ turn), DelaunaySettings(graph="rays", n_rays=2000))
    assert (before.precision, before.recall, before.n_clusters) == (after.precision, after.recall, after.n_clusters)
    assert before.quality == pytest.approx(after.quality, abs=0.08)


def test_swapping_the_sets_swaps_precision_and_recall() -> None:
    r, e = clouds.missed_mode()
    one, other = delaunay_score(r, e), delaunay_score(e, r)
    assert (one.precision, one.recall) == (other.recall, other.precision)
    assert (one.quality, one.harmonic_mean) == (other.quality, other.harmonic_mean)


def test_each_zero_has_its_cause() -> None:
    apart = delaunay_score(*clouds.far_apart())
    assert apart.harmonic_mean == 0
    assert apart.zero_because == "R and E lie in separate clusters"
    noise = delaunay_score(*clouds.noisy_copy(), DelaunaySettings(min_cluster_size=20))
    assert (noise.harmonic_mean, noise.n_clusters, noise.noise_share) == (0, 0, 1)
    assert noise.zero_because == "no cluster: all samples are noise"
    assert delaunay_score(*clouds.missed_mode()).zero_because == ""


@pytest.mark.parametrize(("size", "harmonic"), [(3, 0.568), (5, 0.548), (10, 0.482), (20, 0)])
def test_cluster_size_moves_the_score_as_in_the_public_code(size: int, harmonic: float) -> None:
    score = delaunay_score(*clouds.noisy_copy(), DelaunaySettings(min_cluster_size=size, n_rays=2000))
    assert score.harmonic_mean == pytest.approx(harmonic, abs=2e-3)


def test_clusters_equal_those_of_the_delaunay_graphs_spanning_tree() -> None:
    from scipy.sparse import csr_array
    from sklearn.cluster import HDBSCAN

    x = np.concatenate(clouds.two_gaussians())
    simplices = Delaunay(x).simplices
    pairs = np.concatenate([simplices[:, pair] for pair in combinations(range(3), 2)])
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    length = np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1)
    graph = csr_array((length, (pairs[:, 0], pairs[:, 1])), shape=(200, 200))
    graph = (graph + graph.T).tocsr()
    by_graph = HDBSCAN(min_cluster_size=10, min_samples=1, metric="precomputed", copy=True).fit_predict(graph)
    ours = clusters(x)
    assert len(set(zip(by_graph, ours, strict=True))) == len(set(ours)) == len(set(by_graph))


# ---- subsamples and tables --------------------------------------------------------------------------------


def test_subsamples_are_paired_seeded_and_of_equal_size() -> None:
    r, e = clouds.noisy_copy()
    few = DelaunaySettings(n_rays=200)
    scores = score_subsamples(r, e, few, size=60, n_subsamples=3, seed=4)
    assert [(s.n_reference, s.n_evaluation) for s in scores.scores] == [(60, 60)] * 3
    assert scores == score_subsamples(r, e, few, size=60, n_subsamples=3, seed=4)
    assert len({s.n_edges for s in scores.scores}) > 1
    rows = np.random.default_rng([4, 0]).permutation(100)[:60]
    assert scores.scores[0] == delaunay_score(r[rows], e[rows], few)
    means = np.array([s.harmonic_mean for s in scores.scores])
    assert scores.summary()["harmonic_mean"] == pytest.approx(means.mean())
    assert scores.summary()["harmonic_mean_std"] == pytest.approx(means.std(ddof=1))
    assert score_halves(r, few, n_subsamples=1).size == 50


def test_the_frame_has_every_modality_a_ceiling_and_the_reason_of_a_gap() -> None:
    good = clouds.representations()
    bad = good | {"z/image": np.full_like(good["z/image"], np.nan)}
    frame = delaunay_frame({"robult": good, "gmc": bad, "constant": {}}, DelaunaySettings(n_rays=100), n_subsamples=2)
    assert list(frame["evaluation"]) == ["text", "image", "full, other half"] * 2
    assert set(frame["size"].dropna()) == {60}  # the ceiling too
    broken = frame[(frame["method"] == "gmc") & (frame["evaluation"] == "image")].iloc[0]
    assert "gmc: z/image has 120 of 120 samples with NaN" in broken["problem"]
    assert np.isnan(broken["harmonic_mean"])
    table = delaunay_table(frame, ["gmc", "robult", "raml"])
    assert list(table.columns) == ["gmc", "robult", "raml"]
    assert set(table["raml"]) == {"—"}
    assert table.loc[("full", "image"), "gmc"] == "—"
    text = frame[(frame["method"] == "robult") & (frame["evaluation"] == "text")].iloc[0]
    assert table.loc[("full", "text"), "robult"] == f"{text.harmonic_mean:.3f} ± {text.harmonic_mean_std:.3f}"


def test_a_frame_of_nothing_has_its_columns() -> None:
    frame = delaunay_frame({"constant": {}})
    assert frame.empty
    assert isinstance(delaunay_table(frame), pd.DataFrame)


# ---- hostile input ----------------------------------------------------------------------------------------

GOOD = np.random.default_rng(0).standard_normal((30, 3))


@pytest.mark.parametrize(
    ("r", "e", "words"),
    [
        (GOOD, GOOD[:, :2], "different spaces"),
        (GOOD, np.full((30, 3), np.inf), "NaN or infinite"),
        (np.ones((30, 3)), np.ones((30, 3)), "collapsed"),
        (GOOD[:4], GOOD[:4], "at least 10"),
        (GOOD, np.zeros((0, 3)), "at least 1"),
        (GOOD, [["a"] * 3], "array of numbers"),
        (GOOD, GOOD[None], "shape"),
    ],
)
def test_hostile_sets_are_told_in_a_sentence(r: object, e: object, words: str) -> None:
    with pytest.raises(RepresentationError, match=words):
        delaunay_score(r, e)  # type: ignore[arg-type]


def test_hostile_settings_are_told() -> None:
    with pytest.raises(RepresentationError, match="min_cluster_size"):
        DelaunaySettings(min_cluster_size=1)
    with pytest.raises(RepresentationError, match="subsamples of 31"):
        score_subsamples(GOOD, GOOD, size=31)
