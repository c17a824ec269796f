"""Mutual information between fused and unimodal representations, by histograms and by nearest neighbours.

Robult, D.7 (Table 12), after Peng et al. 2005, whose estimator takes scalars. The paper names neither how vectors
are reduced nor bins nor unit. Here: the mean over dimensions of I(Z_i; S_i), 10 bins of equal width, nats; with
them an entropy is at most ln 10 = 2.303. The plug-in estimate of independent data is not 0 but about
(K_xy - K_x - K_y + 1) / (2n) with K occupied cells (0.057 for n = 686), hence the null of shuffled pairs beside
every value. It measures dependence of a coordinate on the same coordinate, not of the vectors on each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    fused_and_single,
    unit_rows,
    varied,
)

BINS = 10
NEIGHBOURS = 3
"""Neighbours of the estimator of Kraskov et al."""
Codes = NDArray[np.int64]


# ---- discrete values --------------------------------------------------------------------------------------


def equal_width(x: ArrayLike, bins: int = BINS) -> Codes:
    """Bin of each value among `bins` of equal width between the smallest and the largest of its column, (n, d).

    The bins are those of `numpy.histogram`; a column of one value is in one bin.
    """
    if bins < 2:
        raise RepresentationError(f"a histogram needs at least 2 bins, got {bins}.")
    values = checked("the representation", x)
    codes = np.empty(values.shape, np.int64)
    for place, column in enumerate(values.T):
        edges = np.linspace(column.min(), column.max(), bins + 1)
        codes[:, place] = np.clip(np.searchsorted(edges, column, side="right") - 1, 0, bins - 1)
    return codes


def three_states(x: ArrayLike, width: float = 1.0) -> Codes:
    """0, 1, 2 for values below, within and above `width` standard deviations around the mean (Peng et al. 2005)."""
    values = checked("the representation", x)
    reach = width * values.std(axis=0)
    low, high = values.mean(axis=0) - reach, values.mean(axis=0) + reach
    return np.asarray((values > low).astype(np.int64) + (values > high))


def _counts(codes: Codes, states: int) -> NDArray[np.int64]:
    """How often each state occurs in each column of (n, d) codes, (d, states)."""
    d = codes.shape[1]
    return np.bincount((codes + states * np.arange(d)).ravel(), minlength=d * states).reshape(d, states)


def _entropies(counts: NDArray[np.int64]) -> Array:
    """Plug-in entropy of each row of counts in nats."""
    from scipy.special import xlogy

    share = counts / counts.sum(axis=1, keepdims=True)
    return np.asarray(-xlogy(share, share).sum(axis=1))


# ---- plug-in estimates ------------------------------------------------------------------------------------


def entropy(codes: Codes) -> Array:
    """Plug-in entropy of each column of (n, d) codes in nats, (d,)."""
    return _entropies(_counts(codes, int(codes.max()) + 1))


def mutual_information(x: Codes, y: Codes) -> Array:
    """Plug-in mutual information of each column of x with the same column of y, both (n, d) codes, in nats, (d,)."""
    return _plug_in(x, y)[0]


def miller_madow(x: Codes, y: Codes) -> Array:
    """`mutual_information` less its bias of first order, (K_xy - K_x - K_y + 1) / (2n); may be negative."""
    value, bias = _plug_in(x, y)
    return value - bias


def _plug_in(x: Codes, y: Codes) -> tuple[Array, Array]:
    """Mutual information per column and its bias of first order."""
    if x.shape != y.shape:
        raise RepresentationError(
            f"mutual information goes dimension by dimension and needs two arrays of one shape, got {x.shape} and "
            f"{y.shape}."
        )
    states_x, states_y = int(x.max()) + 1, int(y.max()) + 1
    of_x, of_y = _counts(x, states_x), _counts(y, states_y)
    joint = _counts(x * states_y + y, states_x * states_y)
    cells = [(counts > 0).sum(axis=1) for counts in (joint, of_x, of_y)]
    bias = (cells[0] - cells[1] - cells[2] + 1) / (2 * len(x))
    return _entropies(of_x) + _entropies(of_y) - _entropies(joint), bias


@dataclass(frozen=True)
class Null:
    """Mutual information of pairs that have nothing to do with each other: one set of rows shuffled."""

    mean: float
    upper: float
    """95 % of the shuffles give less."""


def shuffled_null(x: Codes, y: Codes, n_shuffles: int = 100, seed: int = 0) -> Null:
    """What the mean over dimensions is when rows are paired at random; the rows themselves stay whole."""
    draw = np.random.default_rng(seed)
    values = [mutual_information(x, y[draw.permutation(len(y))]).mean() for _ in range(n_shuffles)]
    return Null(float(np.mean(values)), float(np.quantile(values, 0.95)))


# ---- nearest neighbours -----------------------------------------------------------------------------------


def neighbour_information(x: ArrayLike, y: ArrayLike, k: int = NEIGHBOURS) -> float:
    """Mutual information of two sets of vectors (n, d_x), (n, d_y) in nats: first estimator of Kraskov et al. 2004.

    Sound for a few dimensions; in ten it finds less than half of a strong dependence. May be slightly negative.

    Raises:
        RepresentationError: the arrays differ in n, or n <= k.
    """
    from scipy.special import digamma
    from sklearn.neighbors import KDTree, NearestNeighbors

    a, b = checked("x", x, least=k + 1), checked("y", y, least=k + 1)
    if len(a) != len(b):
        raise RepresentationError(f"mutual information needs paired rows, got {len(a)} and {len(b)}.")
    nearest = NearestNeighbors(metric="chebyshev", n_neighbors=k).fit(np.concatenate([a, b], axis=1))
    radius = np.nextafter(nearest.kneighbors()[0][:, -1], 0)  # strictly nearer than the k-th
    within = [KDTree(part, metric="chebyshev").query_radius(part, radius, count_only=True) for part in (a, b)]
    # A count holds the sample itself, so it is the n_x + 1 of the formula.
    means = sum(digamma(np.maximum(count, 1)).mean() for count in within)
    return float(digamma(len(a)) + digamma(k) - means)


def scalar_neighbour_information(x: ArrayLike, y: ArrayLike, k: int = NEIGHBOURS, seed: int = 0) -> Array:
    """Mutual information of each column of x with the same column of y by scikit-learn's estimator, (d,), >= 0."""
    from sklearn.feature_selection import mutual_info_regression

    a, b = checked("x", x, least=k + 1), checked("y", y, least=k + 1)
    if a.shape != b.shape:
        raise RepresentationError(f"mutual information goes dimension by dimension, got {a.shape} and {b.shape}.")
    columns = zip(a.T, b.T, strict=True)
    return np.array([mutual_info_regression(i[:, None], j, n_neighbors=k, random_state=seed)[0] for i, j in columns])


def principal_components(x: Array, count: int) -> Array:
    """The first `count` principal components, (n, count) or fewer if there are no more dimensions."""
    centred = x - x.mean(axis=0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray((left * scale)[:, :count])


# ---- Table 12 ---------------------------------------------------------------------------------------------

COLUMNS = (
    "method", "modality", "n", "d", "information", "null_mean", "null_95", "miller_madow", "pooled", "neighbours",
    "neighbours_pca", "problem",
)  # fmt: skip


@dataclass(frozen=True)
class InformationSettings:
    """How `information_frame` estimates."""

    bins: int = BINS
    discretise: Literal["equal_width", "three_states"] = "equal_width"
    """Bins of equal width, or the three states of Peng et al., which know no `bins`."""
    n_shuffles: int = 100
    components: int = 3
    """Principal components of Z and of S that are compared as vectors."""
    seed: int = 0
    """Of the shuffles and of scikit-learn's estimator."""

    def codes(self, x: Array) -> Codes:
        return equal_width(x, self.bins) if self.discretise == "equal_width" else three_states(x)


def information_frame(
    methods: Mapping[str, Representations], settings: InformationSettings | None = None
) -> pd.DataFrame:
    """I(Z; S) for every modality and H(S) for the fused representation, of every method, in nats (Robult, Table 12).

    Args:
        methods: method -> its representations of the same samples; one without `s` and `z/...` is left out.

    Returns:
        Rows: the modalities and `fused` of each method. `information`: mean over dimensions; `null_mean`,
        `null_95`: that of shuffled pairs; `miller_madow`: less its bias; `pooled`: over all entries as one pair of
        variables, which counts as dependence that dimensions differ in mean; `neighbours`: mean over dimensions by
        nearest neighbours; `neighbours_pca`: of the leading principal components as vectors. `fused` has entropies
        in `information` and `pooled` alone. `problem`: a sentence where there is no value.
    """
    settings = settings or InformationSettings()
    rows = []
    for method, named in methods.items():
        if FUSED not in named or not any(name.startswith("z/") for name in named):
            continue
        fused, single = fused_and_single(method, named)
        for modality, z in [*single.items(), ("fused", None)]:
            row: dict[str, object] = {"method": method, "modality": modality, "problem": ""}
            try:
                s = _readable(f"{method}: s", fused)
                row |= {"n": len(s), "d": s.shape[1]}
                row |= (
                    _enrich(s, settings)
                    if z is None
                    else _compare(_readable(f"{method}: z/{modality}", z), s, settings)
                )
            except RepresentationError as error:
                row["problem"] = str(error)
            rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _readable(name: str, x: ArrayLike) -> Array:
    return varied(name, unit_rows(name, x, least=10))


def _enrich(s: Array, settings: InformationSettings) -> dict[str, float]:
    """Entropy of the fused representation, mean over dimensions and of all entries as one variable."""
    pooled = entropy(settings.codes(s.reshape(-1, 1)))[0]
    return {"information": float(entropy(settings.codes(s)).mean()), "pooled": float(pooled)}


def _compare(z: Array, s: Array, settings: InformationSettings) -> dict[str, float]:
    """Every estimate of what z (n, d) and s (n, d) share."""
    if z.shape != s.shape:
        raise RepresentationError(f"z and s must have one shape to be compared, got {z.shape} and {s.shape}.")
    x, y = settings.codes(z), settings.codes(s)
    null = shuffled_null(x, y, settings.n_shuffles, settings.seed)
    pooled = mutual_information(settings.codes(z.reshape(-1, 1)), settings.codes(s.reshape(-1, 1)))[0]
    leading_z, leading_s = (principal_components(part, settings.components) for part in (z, s))
    return {
        "information": float(mutual_information(x, y).mean()),
        "null_mean": null.mean,
        "null_95": null.upper,
        "miller_madow": float(miller_madow(x, y).mean()),
        "pooled": float(pooled),
        "neighbours": float(scalar_neighbour_information(z, s, seed=settings.seed).mean()),
        "neighbours_pca": neighbour_information(leading_z, leading_s),
    }


def information_table(frame: pd.DataFrame, methods: Sequence[str] | None = None, digits: int = 3) -> pd.DataFrame:
    """The layout of Robult, Table 12: modalities down, methods across, nats as text with the null in brackets.

    Args:
        frame: from `information_frame`.
        methods: columns, in their order; as in the frame by default.
    """
    methods = list(dict.fromkeys(frame["method"])) if methods is None else list(methods)
    texts = [
        "—" if np.isnan(value) else f"{value:.{digits}f}" + ("" if np.isnan(null) else f" ({null:.{digits}f})")
        for value, null in zip(frame["information"], frame["null_mean"], strict=True)
    ]
    modalities = list(dict.fromkeys(frame["modality"]))
    wide = frame.assign(text=texts).pivot(index="modality", columns="method", values="text")
    ends = [name for name in modalities if name != "fused"] + ["fused"] * ("fused" in modalities)
    return wide.fillna("—").reindex(index=ends, columns=methods, fill_value="—")
