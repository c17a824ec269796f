"""How representations lie on the unit sphere: alignment, uniformity, separation of classes, views in the plane.

Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
Hypersphere", ICML 2020; Robult, D.6 (Figure 8) and D.9 (Figure 10). Everything but the views is measured in the
original space on rows scaled to norm 1. A view in the plane depends on its seed and settings, and its angles say
nothing about uniformity on the sphere: read the numbers beside it.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.representations import (
    FUSED,
    Array,
    RepresentationError,
    Representations,
    checked,
    checked_classes,
    modality_of,
    same_samples,
    unit_rows,
    varied,
)

MAX_PAIRS = 100_000
"""Same-class pairs that are looked at; of more, this many are drawn."""
NEIGHBOURS = 5
"""Neighbours that vote on a sample's class."""
SMOOTHEST = 1.0
"""Least concentration of the kernel for angles: the plug-in rule gives 0, a flat line, for angles without direction."""
SHARPEST = 1e6
"""Largest concentration of angles that is told from all angles being one."""


# ---- alignment and uniformity -----------------------------------------------------------------------------


def same_item_distances(x: ArrayLike, y: ArrayLike) -> Array:
    """Distance of the two views of each sample, (n,), between 0 and 2.

    Raises:
        RepresentationError: the views differ in shape, or a row has no direction.
    """
    f, g = unit_rows("the first view", x, least=1), unit_rows("the second view", y, least=1)
    if f.shape != g.shape:
        raise RepresentationError(f"the two views must have one shape, got {f.shape} and {g.shape}.")
    distances: Array = np.linalg.norm(f - g, axis=1)
    return distances


def same_class_distances(x: ArrayLike, classes: ArrayLike, *, max_pairs: int = MAX_PAIRS, seed: int = 0) -> Array:
    """Distances of pairs of different samples of one class: all pairs, or `max_pairs` drawn uniformly among them.

    Raises:
        RepresentationError: no class has two samples.
    """
    f = unit_rows("the representation", x)
    first, second = same_class_pairs(checked_classes(classes, len(f)), max_pairs=max_pairs, seed=seed)
    distances: Array = np.linalg.norm(f[first] - f[second], axis=1)
    return distances


def same_class_pairs(
    classes: NDArray[np.int64], *, max_pairs: int = MAX_PAIRS, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both members of the pairs i < j of one class; drawn with replacement where there are more than `max_pairs`."""
    members = [np.flatnonzero(classes == c) for c in np.unique(classes)]
    n_pairs = np.array([len(m) * (len(m) - 1) // 2 for m in members])
    if n_pairs.sum() == 0:
        raise RepresentationError("no class has two samples, so there is no pair of one class.")
    if n_pairs.sum() <= max_pairs:
        chosen = [m[np.stack(np.triu_indices(len(m), 1))] for m in members]
    else:
        draw = np.random.default_rng(seed)
        counts = draw.multinomial(max_pairs, n_pairs / n_pairs.sum())
        chosen = [m[_pairs_of(len(m), int(k), draw)] for m, k in zip(members, counts, strict=True) if k]
    first, second = np.concatenate(chosen, axis=1)
    return first, second


def _pairs_of(n: int, count: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """`count` uniform pairs of different numbers below n, (2, count)."""
    first, step = draw.integers(n, size=count), draw.integers(1, n, size=count)
    return np.sort(np.stack([first, (first + step) % n]), axis=0)


def alignment(distances: ArrayLike, power: float = 2) -> float:
    """Mean of |f(x) - f(y)|^power over positive pairs; lower is better (Wang and Isola, Eq. 3)."""
    return float((np.asarray(distances, np.float64) ** power).mean())


def uniformity(x: ArrayLike, t: float = 2) -> float:
    """log of the mean of exp(-t |f_i - f_j|^2) over pairs i < j; lower is better (Wang and Isola, Eq. 4).

    Without self pairs, as the authors' code computes it. 0 for a collapsed representation; the floor, which depends
    on the dimension, is `uniformity_floor`, up to sampling: a few regularly placed points lie below it.
    """
    from scipy.spatial.distance import cdist, pdist
    from scipy.special import logsumexp

    f = unit_rows("the representation", x)
    parts = []
    for at in range(0, len(f), 1024):
        rows, rest = f[at : at + 1024], f[at + 1024 :]
        pairs = np.concatenate([pdist(rows, "sqeuclidean"), cdist(rows, rest, "sqeuclidean").ravel()])
        if len(pairs):
            parts.append(logsumexp(-t * pairs))
    return float(logsumexp(parts) - np.log(len(f) * (len(f) - 1) / 2))


def uniformity_floor(d: int, t: float = 2) -> float:
    """Uniformity of the uniform distribution on the unit sphere of R^d: log 0F1(; d/2; t^2) - 2t."""
    from scipy.special import hyp0f1

    return float(np.log(hyp0f1(d / 2, t**2)) - 2 * t)


# ---- separation of classes --------------------------------------------------------------------------------


def silhouette(x: ArrayLike, classes: ArrayLike) -> float:
    """Mean silhouette of the true classes, by Euclidean distance of unit rows; 1 is best, 0 means they overlap.

    Raises:
        RepresentationError: fewer than two classes, or every sample has a class of its own.
    """
    from sklearn.metrics import silhouette_score

    f = unit_rows("the representation", x)
    groups = checked_classes(classes, len(f), least=2)
    if len(np.unique(groups)) == len(f):
        raise RepresentationError("every sample has a class of its own; the silhouette needs classes with members.")
    return float(silhouette_score(f, groups))


def neighbour_accuracy(x: ArrayLike, classes: ArrayLike, k: int = NEIGHBOURS) -> float:
    """Share of samples whose class wins the vote of their k nearest others on the unit sphere.

    Of classes with equal votes the one of the nearer neighbour wins.

    Raises:
        RepresentationError: fewer than k + 1 samples.
    """
    from sklearn.neighbors import NearestNeighbors

    f = unit_rows("the representation", x, least=k + 1)
    groups = np.unique(checked_classes(classes, len(f)), return_inverse=True)[1].ravel()
    nearest = NearestNeighbors(n_neighbors=k).fit(f).kneighbors(return_distance=False)  # (n, k), without itself
    votes = np.zeros((len(f), groups.max() + 1))
    for place in range(k):
        votes[np.arange(len(f)), groups[nearest[:, place]]] += 1 + 2.0 ** -(place + 10)  # the nearer breaks ties
    return float((votes.argmax(axis=1) == groups).mean())


# ---- views in the plane -----------------------------------------------------------------------------------


def plane(x: ArrayLike, how: Literal["tsne", "pca"] = "tsne", *, perplexity: float = 30, seed: int = 0) -> Array:
    """The unit rows in two dimensions, centred, (n, 2).

    `tsne` starts from the principal components, so that a seed repeats it; of few samples, perplexity is (n - 1) / 3
    at most. `pca` is free of chance: each component's sign makes its largest entry positive.

    Raises:
        RepresentationError: fewer than 4 samples, or a constant representation.
    """
    f = varied("the representation", unit_rows("the representation", x, least=4))
    if how == "pca" or f.shape[1] == 1:
        centred = f - f.mean(axis=0)
        left, scale, _ = np.linalg.svd(centred, full_matrices=False)
        flat = np.zeros((len(f), 2))
        flat[:, : min(2, f.shape[1])] = (left * scale)[:, :2]
        return np.asarray(flat * np.where(flat[np.abs(flat).argmax(axis=0), [0, 1]] < 0, -1, 1))
    from sklearn.manifold import TSNE

    model = TSNE(2, perplexity=min(perplexity, (len(f) - 1) / 3), init="pca", learning_rate="auto", random_state=seed)
    flat = model.fit_transform(f).astype(np.float64)
    return np.asarray(flat - flat.mean(axis=0))


def on_circle(flat: ArrayLike) -> Array:
    """Points of the plane (n, 2) projected to the unit circle around their mean; a point at the mean stays there."""
    points = checked("the view", flat)
    centred = points - points.mean(axis=0)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.where(norm > 0, norm, 1))


def angles(flat: ArrayLike) -> Array:
    """arctan2(y, x) of points of the plane around their mean, (n,), in (-pi, pi]."""
    circle = on_circle(flat)
    return np.asarray(np.arctan2(circle[:, 1], circle[:, 0]))


# ---- densities of angles ----------------------------------------------------------------------------------


def concentration(theta: ArrayLike) -> float:
    """Maximum likelihood concentration of the von Mises distribution, at most `SHARPEST`: I1(a)/I0(a) = resultant."""
    from scipy.optimize import brentq
    from scipy.special import i0e, i1e

    resultant = abs(np.exp(1j * np.asarray(theta, np.float64)).mean())
    if resultant >= i1e(SHARPEST) / i0e(SHARPEST):
        return SHARPEST
    return float(brentq(lambda a: i1e(a) / i0e(a) - resultant, 0.0, SHARPEST))


def kernel_concentration(theta: ArrayLike) -> float:
    """Concentration of the kernel for a density of angles by the plug-in rule of Taylor (2008), at least `SMOOTHEST`.

    It is made for one mode: angles with several modes come out too smooth. Robult gives no bandwidth.
    """
    from scipy.special import i0e, ive

    n, a = len(np.asarray(theta)), concentration(theta)
    if a == 0:
        return SMOOTHEST
    rule = (3 * n * a**2 * ive(2, 2 * a) / (4 * np.sqrt(np.pi) * i0e(a) ** 2)) ** 0.4
    return float(np.clip(rule, SMOOTHEST, SHARPEST))


def angle_density(theta: ArrayLike, at: ArrayLike, kernel: float | None = None) -> Array:
    """Von Mises kernel density of angles `theta` (n,), in 1/radian, at the angles `at`.

    On the circle the von Mises-Fisher kernel of Robult, Figure 8, is the von Mises kernel. `kernel` is its
    concentration, by `kernel_concentration` where None.
    """
    from scipy.special import i0e

    data, places = np.asarray(theta, np.float64), np.asarray(at, np.float64)
    k = kernel_concentration(data) if kernel is None else kernel
    bumps = np.exp(k * (np.cos(places[..., None] - data) - 1))  # scaled by exp(-k), as i0e is: no overflow
    density: Array = bumps.mean(axis=-1) / (2 * np.pi * i0e(k))
    return density


# ---- the frame --------------------------------------------------------------------------------------------

MEASURES = (
    "uniformity", "uniformity_floor", "alignment_item", "distance_item", "alignment_class", "distance_class",
    "silhouette", "neighbour_accuracy",
)  # fmt: skip


def geometry_frame(
    methods: Mapping[str, Representations], classes: ArrayLike, *, max_pairs: int = MAX_PAIRS, seed: int = 0
) -> pd.DataFrame:
    """Alignment, uniformity and separation of every representation of every method, in the original space.

    Args:
        methods: method -> its representations of the same samples.
        classes: (n,) true class of each sample.

    Returns:
        One row per method and representation: `n`, `d`, the `MEASURES` and `problem`, a sentence where one is
        undefined. `alignment_item` and `distance_item` (its mean distance) compare `z/...` with `s`; pairs of one
        class give the other two.
    """
    rows = [
        {"method": method, "representation": name, "modality": modality_of(name), "n": len(x), **row}
        for method, named in methods.items()
        for name, x in named.items()
        for row in [_measure(f"{method}: {name}", name, named, np.asarray(classes), max_pairs, seed)]
    ]
    columns = ["method", "representation", "modality", "n", "d", *MEASURES, "problem"]
    return pd.DataFrame(rows, columns=columns)


def _measure(
    label: str, name: str, named: Representations, classes: NDArray[np.int64], max_pairs: int, seed: int
) -> dict[str, object]:
    row: dict[str, object] = {"problem": ""}
    try:
        f = unit_rows(label, named[name])
        same_samples(**{name: f, "classes": classes})
        row |= {"d": f.shape[1], "uniformity_floor": uniformity_floor(f.shape[1]), "uniformity": uniformity(f)}
        if name.startswith("z/") and FUSED in named and named[FUSED].shape == f.shape:
            distances = same_item_distances(named[FUSED], f)
            row |= {"alignment_item": alignment(distances), "distance_item": float(distances.mean())}
        distances = same_class_distances(f, classes, max_pairs=max_pairs, seed=seed)
        row |= {"alignment_class": alignment(distances), "distance_class": float(distances.mean())}
        row["neighbour_accuracy"] = neighbour_accuracy(f, classes)
        row["silhouette"] = silhouette(f, classes)
    except RepresentationError as error:
        row["problem"] = str(error)
    return row
