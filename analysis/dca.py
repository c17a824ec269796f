"""Delaunay Component Analysis: does an evaluation set E lie where a reference set R lies?

Poklukar et al., "Delaunay Component Analysis for Evaluation of Data Representations", ICLR 2022, with the settings
of the GMC code. Robult, Table 14: R is the representation of all modalities, E that of one modality of the same
test samples, and the figure of merit is the harmonic mean of precision, recall and network quality.

1. R and E together are clustered by HDBSCAN on plain distances; samples in no cluster are noise.
2. A component is fundamental if it holds samples and edges of both sets. Precision is the share of E in fundamental
   components, recall the share of R.
3. Network quality is the share of edges between R and E among the Delaunay edges inside components.

How to read it: for equal, well mixed sets the quality tends to 1/2, so the harmonic mean tops out near 0.75; an
exact copy does not score 1; size of the sets and `min_cluster_size` move the score. Compare methods at equal n and
settings only, over several subsamples, with unit-norm rows, and read the parts beside the mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.representations import (
    Array,
    RepresentationError,
    Representations,
    checked,
    fused_and_single,
    unit_rows,
    varied,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_array

EXACT_DIMENSIONS = 4
"""Up to here the exact Delaunay graph is cheap; the number of its simplices grows exponentially."""
BLOCK = 2**17
"""Entries of the blocks that rays are followed in: two of them stay in a core's cache."""


@dataclass(frozen=True)
class DelaunaySettings:
    """What moves the score; defaults as in the GMC code, except for the rays."""

    min_cluster_size: int = 10
    n_rays: int = 1000
    """Rays a sample; the DCA code casts 10^4. Scores move by less than 0.005, the number of edges by much more."""
    graph: Literal["auto", "exact", "rays"] = "auto"
    """`auto`: exact up to `EXACT_DIMENSIONS` dimensions."""
    seed: int = 239
    """Of the rays."""

    def __post_init__(self) -> None:
        if self.min_cluster_size < 2 or self.n_rays < 1:
            raise RepresentationError(
                f"DCA needs min_cluster_size >= 2 and n_rays >= 1, got {self.min_cluster_size} and {self.n_rays}."
            )


@dataclass(frozen=True)
class DelaunayScore:
    """How well E lies where R lies."""

    precision: float
    recall: float
    quality: float
    n_edges: int
    """Delaunay edges inside components."""
    n_mixed_edges: int
    """Those of them between R and E."""
    n_clusters: int
    n_fundamental: int
    n_noise: int
    """Samples of R and E in no cluster."""
    n_reference: int
    n_evaluation: int

    @property
    def harmonic_mean(self) -> float:
        """3 / (1/P + 1/R + 1/q), or 0 where one of them is 0 (Robult, D.12; GMC)."""
        parts = self.precision, self.recall, self.quality
        return 3 / sum(1 / part for part in parts) if all(parts) else 0.0

    @property
    def noise_share(self) -> float:
        return self.n_noise / (self.n_reference + self.n_evaluation)

    @property
    def consistency(self) -> float:
        """1 - |n_R - n_E| / (n_R + n_E) of the two sets."""
        return 1 - abs(self.n_reference - self.n_evaluation) / (self.n_reference + self.n_evaluation)

    @property
    def zero_because(self) -> str:
        """Why the harmonic mean is 0; empty where it is not."""
        if self.harmonic_mean > 0:
            return ""
        if self.n_clusters == 0:
            return "no cluster: all samples are noise"
        if self.n_mixed_edges == 0:
            return "R and E lie in separate clusters"
        return "no cluster holds samples of both sets and edges between them"


@dataclass(frozen=True)
class DelaunayScores:
    """Scores of several subsamples of equal size."""

    scores: tuple[DelaunayScore, ...]
    size: int
    """Samples of R, and of E, in each subsample."""

    PARTS = ("harmonic_mean", "precision", "recall", "quality", "n_edges", "n_clusters", "noise_share")

    @property
    def zero_because(self) -> str:
        """Why subsamples scored 0 and how many did: `R and E lie in separate clusters (3 of 5)`."""
        causes = [score.zero_because for score in self.scores if score.zero_because]
        counted = {cause: causes.count(cause) for cause in causes}
        return "; ".join(f"{cause} ({count} of {len(self.scores)})" for cause, count in counted.items())

    def summary(self) -> dict[str, float]:
        """`<part>` its mean over subsamples and `<part>_std` the sample deviation, NaN for one subsample."""
        summary = {}
        for part in self.PARTS:
            values = np.array([getattr(score, part) for score in self.scores], dtype=np.float64)
            summary[part] = float(values.mean())
            summary[f"{part}_std"] = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        return summary


# ---- the Delaunay graph -----------------------------------------------------------------------------------


def delaunay_graph(
    points: ArrayLike,
    settings: DelaunaySettings | None = None,
    *,
    threads: int = 1,
    among: NDArray[np.bool_] | None = None,
) -> "csr_array":
    """The Delaunay graph of points (n, d), a symmetric boolean matrix (n, n) without diagonal.

    Exact in few dimensions; in many, the edges that rays find: a subset of the true ones, which misses only pairs
    whose Voronoi cells share a face that is seen under a small angle. Equal points are one point of the graph, and
    of an edge between two such groups all copies keep an edge to the first copy at the other end, as in the DCA
    code, where equal distances go to the first.

    Args:
        points: (n, d).
        settings: of which `graph`, `n_rays` and `seed` are read.
        threads: threads that follow rays; the graph does not depend on them.
        among: (n,) bool, the points between which edges are wanted; all by default. The others still stand in the
            way of edges.
    """
    from scipy.sparse import csr_array

    settings = settings or DelaunaySettings()
    x = checked("points", points)
    wanted = np.ones(len(x), bool) if among is None else np.asarray(among, bool)
    unique, first, group = np.unique(x, axis=0, return_index=True, return_inverse=True)
    group = group.ravel()
    wanted_groups = np.bincount(group, weights=wanted) > 0
    if len(unique) == 1:
        return csr_array((len(x), len(x)), dtype=bool)
    exact = settings.graph == "exact" or (settings.graph == "auto" and x.shape[1] <= EXACT_DIMENSIONS)
    ends = _triangulate(unique) if exact else None
    if ends is None:
        ends = _follow_rays(unique, settings, threads, wanted_groups)
    start, end = _expand_copies(*ends, first, group)
    keep = wanted[start] & wanted[end]
    start, end = start[keep], end[keep]
    both = np.concatenate([start, end]), np.concatenate([end, start])
    graph = csr_array((np.ones(len(both[0]), np.int8), both), shape=(len(x), len(x)))
    graph.sum_duplicates()
    return graph.astype(bool)


def _triangulate(x: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Both ends of the edges of the exact Delaunay graph of distinct points; None for points in a plane."""
    from scipy.spatial import Delaunay, QhullError

    if x.shape[1] == 1:
        order = np.argsort(x[:, 0])
        return order[:-1], order[1:]
    try:
        simplices = Delaunay(x).simplices  # (n simplices, d + 1)
    except QhullError:  # too few points, or all in a plane: rays do not mind
        return None
    one, other = np.triu_indices(simplices.shape[1], 1)
    edges = np.unique(np.sort(np.stack([simplices[:, one].ravel(), simplices[:, other].ravel()], 1), axis=1), axis=0)
    return edges[:, 0].astype(np.int64), edges[:, 1].astype(np.int64)


def _follow_rays(
    x: Array, settings: DelaunaySettings, threads: int, wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both ends of the edges that rays from the wanted points find among distinct points (n, d).

    A ray from p in direction u leaves p's Voronoi cell towards the q that minimises |q - p|^2 / (2 u.(q - p)) among
    u.(q - p) > 0, that is, towards the largest positive u.(q - p) / |q - p|^2. All points share their directions,
    unlike in the DCA code: each point's rays are as uniform as before, and n^2 T d multiply-adds become n^2 T.
    """
    x = x - x.mean(axis=0)
    x = x / np.sqrt((x**2).sum(axis=1).mean())  # the graph knows no scale; this one suits single precision
    rays = np.random.default_rng(settings.seed).standard_normal((settings.n_rays, x.shape[1]))  # length is irrelevant
    height = (rays @ x.T).astype(np.float32)  # (T, n): u.q
    nearness = _inverse_squares(x)
    starts = np.flatnonzero(wanted)
    rows = max(1, BLOCK // len(x))
    blocks = [height[at : at + rows] for at in range(0, len(height), rows)]
    hit = np.zeros((len(x), len(x)), bool)

    def follow(block: NDArray[np.float32]) -> None:
        rise, own = np.empty_like(block), np.ascontiguousarray(block.T)[:, :, None]
        for p in starts:
            np.subtract(block, own[p], out=rise)
            np.multiply(rise, nearness[p], out=rise)  # p itself rises 0: it wins where the ray is open
            hit[p, rise.argmax(axis=1)] = True

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(follow, blocks))
    np.fill_diagonal(hit, False)
    start, end = np.nonzero(hit)
    return start, end


def _inverse_squares(x: Array) -> NDArray[np.float32]:
    """1 / |q - p|^2 of all pairs, (n, n), 0 on the diagonal."""
    length = (x**2).sum(axis=1)
    inverse = np.empty((len(x), len(x)), np.float32)
    for at in range(0, len(x), 512):  # in blocks: the whole in double precision would take gigabytes
        rows = slice(at, at + 512)
        square = length[rows, None] + length - 2 * (x[rows] @ x.T)
        inverse[rows] = 1 / np.maximum(square, 1e-12)  # distinct in single precision, yet lost to rounding here
    np.fill_diagonal(inverse, 0)
    return inverse


def _expand_copies(
    start: NDArray[np.int64], end: NDArray[np.int64], first: NDArray[np.int64], group: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges between groups of equal points as edges of the points: every copy to the first at the other end."""
    start, end = np.concatenate([start, end]), np.concatenate([end, start])
    size = np.bincount(group)
    members = np.argsort(group, kind="stable")
    offset = np.concatenate([[0], np.cumsum(size)[:-1]])
    repeat = size[start]
    place = np.arange(repeat.sum()) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    return members[np.repeat(offset[start], repeat) + place], np.repeat(first[end], repeat)


# ---- the score --------------------------------------------------------------------------------------------


def clusters(points: ArrayLike, min_cluster_size: int = 10) -> NDArray[np.int64]:
    """Cluster of each point, -1 for noise, (n,): HDBSCAN on plain distances, excess of mass, no single cluster.

    DCA distils the spanning tree of the Delaunay graph; it is the Euclidean spanning tree, which lies inside that
    graph, so none is needed here.
    """
    from sklearn.cluster import HDBSCAN

    x = checked("points", points, least=min_cluster_size)
    model = HDBSCAN(min_cluster_size=min_cluster_size, min_samples=1, algorithm="kd_tree", copy=True)
    return model.fit_predict(x).astype(np.int64)  # type: ignore[no-any-return]


def delaunay_score(
    reference: ArrayLike, evaluation: ArrayLike, settings: DelaunaySettings | None = None, *, threads: int = 1
) -> DelaunayScore:
    """The DCA score of an evaluation set (n_E, d) against a reference set (n_R, d).

    Values are rounded to single precision first, as in the DCA code. Scale is not normalised: pass unit-norm rows.

    Raises:
        RepresentationError: the sets differ in d, hold NaN, are together smaller than a cluster, or are constant.
    """
    settings = settings or DelaunaySettings()
    r, e = checked("the reference set", reference, least=1), checked("the evaluation set", evaluation, least=1)
    if r.shape[1] != e.shape[1]:
        raise RepresentationError(
            f"the sets lie in different spaces: the reference set has {r.shape[1]} dimensions, "
            f"the evaluation set {e.shape[1]}; DCA compares representations of one space."
        )
    x = np.concatenate([r, e]).astype(np.float32).astype(np.float64)
    varied(
        "the reference set with the evaluation set", checked("both sets together", x, least=settings.min_cluster_size)
    )
    cluster = clusters(x, settings.min_cluster_size)
    from_r = np.arange(len(x)) < len(r)
    graph = delaunay_graph(x, settings, threads=threads, among=cluster >= 0).tocoo()
    start, end = graph.coords
    inside = (start < end) & (cluster[start] == cluster[end])
    start, end = start[inside], end[inside]
    mixed = from_r[start] != from_r[end]
    n_clusters = int(cluster.max(initial=-1)) + 1
    members = np.bincount(cluster[cluster >= 0], minlength=n_clusters)
    of_r = np.bincount(cluster[(cluster >= 0) & from_r], minlength=n_clusters)
    bridges = np.bincount(cluster[start[mixed]], minlength=n_clusters)
    fundamental = (of_r > 0) & (of_r < members) & (bridges > 0)
    return DelaunayScore(
        precision=float((members - of_r)[fundamental].sum() / len(e)),
        recall=float(of_r[fundamental].sum() / len(r)),
        quality=float(mixed.mean()) if len(mixed) else 0.0,
        n_edges=len(mixed),
        n_mixed_edges=int(mixed.sum()),
        n_clusters=n_clusters,
        n_fundamental=int(fundamental.sum()),
        n_noise=int((cluster < 0).sum()),
        n_reference=len(r),
        n_evaluation=len(e),
    )


def score_subsamples(
    reference: ArrayLike,
    evaluation: ArrayLike,
    settings: DelaunaySettings | None = None,
    *,
    size: int | None = None,
    n_subsamples: int = 5,
    seed: int = 0,
    threads: int = 1,
) -> DelaunayScores:
    """DCA scores of random subsamples without replacement, `size` samples of each set.

    Sets of equal length are taken for views of the same samples, row by row, and stay paired. The subsamples depend
    on the lengths, `size` and `seed` alone, so methods are compared on the same samples.

    Args:
        size: half of the smaller set by default.

    Raises:
        RepresentationError: as `delaunay_score`, or a set has fewer than `size` samples.
    """
    r, e = checked("the reference set", reference), checked("the evaluation set", evaluation)
    least = min(len(r), len(e))
    size = max(1, least // 2) if size is None else size
    if not 1 <= size <= least or n_subsamples < 1:
        raise RepresentationError(
            f"cannot draw {n_subsamples} subsamples of {size} from sets of {len(r)} and {len(e)} samples."
        )
    scores = []
    for number in range(n_subsamples):
        draw = np.random.default_rng([seed, number])
        of_r = draw.permutation(len(r))[:size]
        of_e = of_r if len(e) == len(r) else draw.permutation(len(e))[:size]
        scores.append(delaunay_score(r[of_r], e[of_e], settings, threads=threads))
    return DelaunayScores(tuple(scores), size)


def score_halves(
    reference: ArrayLike,
    settings: DelaunaySettings | None = None,
    *,
    size: int | None = None,
    n_subsamples: int = 5,
    seed: int = 0,
    threads: int = 1,
) -> DelaunayScores:
    """DCA scores of one random part of a set against another of its parts: what a perfect E of that size reaches.

    The GMC code compares the first half of the joint representations with the second. `size` is half the set by
    default and at most.
    """
    r = checked("the reference set", reference, least=4)
    size = min(size or len(r) // 2, len(r) // 2)
    scores = []
    for number in range(n_subsamples):
        order = np.random.default_rng([seed, number]).permutation(len(r))
        scores.append(delaunay_score(r[order[:size]], r[order[size : 2 * size]], settings, threads=threads))
    return DelaunayScores(tuple(scores), size)


def delaunay_frame(
    methods: Mapping[str, Representations],
    settings: DelaunaySettings | None = None,
    *,
    size: int | None = None,
    n_subsamples: int = 5,
    seed: int = 0,
    threads: int = 1,
) -> pd.DataFrame:
    """DCA of every method: `s` against each `z/<modality>`, and two halves of `s` as a ceiling.

    Rows are scaled to norm 1, as the losses of the methods do: DCA depends on scale.

    Args:
        methods: method -> its representations of the same test samples; without `s` and `z/...` it is left out.
        size: samples of a subsample; half of the smallest set of any method by default, so that n is the same for
            all methods and for the ceiling. A larger one holds for the modalities alone.

    Returns:
        One row per method and evaluation set (`text`, ..., `full, other half`): `size`, the columns of
        `DelaunayScores.summary`, `zero_because`, and `problem`, a sentence where there is no score.
    """
    with_both = {m: named for m, named in methods.items() if "s" in named and any(k.startswith("z/") for k in named)}
    if size is None and with_both:
        size = max(1, min(len(x) for named in with_both.values() for x in named.values()) // 2)
    more: dict[str, Any] = {"n_subsamples": n_subsamples, "seed": seed, "threads": threads, "size": size}
    rows = [
        {"method": method, "reference": "full", **row}
        for method, named in with_both.items()
        for row in _frame_rows(method, named, settings, more)
    ]
    parts = [name for part in DelaunayScores.PARTS for name in (part, f"{part}_std")]
    columns = ["method", "reference", "evaluation", "size", *parts, "zero_because", "problem"]
    return pd.DataFrame(rows, columns=columns)


def _frame_rows(
    method: str, named: Representations, settings: DelaunaySettings | None, more: dict[str, Any]
) -> Iterator[dict[str, object]]:
    fused, single = fused_and_single(method, named)
    for evaluation, x in {**single, "full, other half": None}.items():
        row: dict[str, object] = {"evaluation": evaluation, "zero_because": "", "problem": ""}
        try:
            r = unit_rows(f"{method}: s", fused)
            scores = (
                score_halves(r, settings, **more)
                if x is None
                else score_subsamples(r, unit_rows(f"{method}: z/{evaluation}", x), settings, **more)
            )
            row |= {"size": scores.size, **scores.summary(), "zero_because": scores.zero_because}
        except RepresentationError as error:
            row["problem"] = str(error)
        yield row


def delaunay_table(frame: pd.DataFrame, methods: Sequence[str] | None = None, digits: int = 3) -> pd.DataFrame:
    """The layout of Robult, Table 14: R and E down, methods across, harmonic mean ± deviation as text.

    Args:
        frame: from `delaunay_frame`.
        methods: columns, in their order; as in the frame by default.
    """
    methods = list(dict.fromkeys(frame["method"])) if methods is None else list(methods)
    texts = [
        "—" if np.isnan(mean) else f"{mean:.{digits}f}" + ("" if np.isnan(std) else f" ± {std:.{digits}f}")
        for mean, std in zip(frame["harmonic_mean"], frame["harmonic_mean_std"], strict=True)
    ]
    tidy = frame.assign(text=texts).rename(columns={"reference": "R", "evaluation": "E"})
    order = list(dict.fromkeys(zip(tidy["R"], tidy["E"], strict=True)))
    wide = tidy.pivot(index=["R", "E"], columns="method", values="text")
    index = pd.MultiIndex.from_tuples(order, names=["R", "E"])
    return wide.fillna("—").reindex(index=index, columns=methods, fill_value="—")
