"""Is the proximity of positive pairs Gaussian? The assumption behind Robult's RBF weights, which its paper names as a
limitation.

Proximity has two readings: the cosine c = <s, z>, and phi = exp(c / tau). Not both can be Gaussian: a Gaussian c makes
phi log-normal. Pairs that share an anchor are not independent, and a test on all of them rejects normal data; so tests
go anchor by anchor and are summarised, or take one pair a sample. A large n rejects everything: read the Q-Q
correlation, skewness and kurtosis first.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from analysis.representations import Array, RepresentationError, checked_classes, unit_rows

LEAST = 20
"""Fewest partners an anchor is tested with: below, the kurtosis test is invalid."""
LEVEL = 0.05
SIMULATIONS = 2000
"""Normal samples that the null distribution of Lilliefors' statistic is taken from."""
SHAPIRO_LIMIT = 5000
"""Up to this n the p-value of Shapiro and Wilk's test is accurate."""
TESTS = ("shapiro", "anderson", "lilliefors", "dagostino")


@dataclass(frozen=True)
class Normality:
    """How normal one sample is: four tests with estimated mean and deviation, and effect sizes."""

    n: int
    shapiro: float
    """W of Shapiro and Wilk."""
    shapiro_p: float
    anderson: float
    """A^2 of Anderson and Darling."""
    anderson_p: float
    lilliefors: float
    """D of Lilliefors: Kolmogorov and Smirnov's with estimated parameters."""
    lilliefors_p: float
    """By simulation, so at least 1 / (SIMULATIONS + 1)."""
    dagostino: float
    """K^2 of D'Agostino and Pearson."""
    dagostino_p: float
    qq_r: float
    """Correlation of the points of a normal Q-Q plot."""
    skew: float
    kurtosis: float
    """Excess kurtosis."""


def normality(x: ArrayLike) -> Normality:
    """Tests and effect sizes of one sample (n,).

    Raises:
        RepresentationError: fewer than `LEAST` values, values that are not finite, or all the same.
    """
    from scipy.stats import kurtosis, normaltest, probplot, shapiro, skew

    values = _sample(x)
    if len(values) <= SHAPIRO_LIMIT:
        w, w_p = shapiro(values)
    else:
        w = w_p = float("nan")
    a, a_p = anderson_darling(values)
    d = _lilliefors_statistic(values[None])[0]
    null = _lilliefors_null(len(values))
    k2, k2_p = normaltest(values)
    qq_r = probplot(values, fit=True)[1][2]
    return Normality(
        len(values), float(w), float(w_p), a, a_p, float(d), float((1 + (null >= d).sum()) / (1 + len(null))),
        float(k2), float(k2_p), float(qq_r), float(skew(values)), float(kurtosis(values)),
    )  # fmt: skip


def _sample(x: ArrayLike) -> Array:
    values = np.asarray(x, np.float64)
    if values.ndim != 1 or len(values) < LEAST:
        raise RepresentationError(f"a test of normality needs at least {LEAST} values (n,), got shape {values.shape}.")
    if not np.isfinite(values).all():
        raise RepresentationError("proximities are NaN or infinite: did the training diverge?")
    if np.ptp(values) <= 1e-9 * np.abs(values).max():
        raise RepresentationError(f"all {len(values)} proximities are the same, so they have no distribution.")
    return values


def anderson_darling(x: Array) -> tuple[float, float]:
    """A^2 with estimated mean and deviation, and its p-value by the formulas of D'Agostino and Stephens (1986)."""
    from scipy.stats import norm

    n = len(x)
    z = np.sort((x - x.mean()) / x.std(ddof=1))
    i = np.arange(1, n + 1)
    a = float(-n - ((2 * i - 1) / n * (norm.logcdf(z) + norm.logsf(z[::-1]))).sum())
    b = a * (1 + 0.75 / n + 2.25 / n**2)
    if b < 0.2:
        p = 1 - np.exp(-13.436 + 101.14 * b - 223.73 * b**2)
    elif b < 0.34:
        p = 1 - np.exp(-8.318 + 42.796 * b - 59.938 * b**2)
    elif b < 0.6:
        p = np.exp(0.9177 - 4.279 * b - 1.38 * b**2)
    else:
        p = np.exp(1.2937 - 5.709 * b + 0.0186 * b**2) if b < 13 else 0.0
    return a, float(p)


def _lilliefors_statistic(x: Array) -> Array:
    """Largest distance of the empirical distribution of each row of (k, n) from the normal one fitted to it, (k,)."""
    from scipy.special import ndtr

    n = x.shape[1]
    z = np.sort((x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, ddof=1, keepdims=True), axis=1)
    below = ndtr(z)
    i = np.arange(n)
    return np.asarray(np.maximum(((i + 1) / n - below).max(axis=1), (below - i / n).max(axis=1)))


@lru_cache(maxsize=512)
def _lilliefors_null(n: int) -> Array:
    """The statistic of `SIMULATIONS` normal samples of size n, the same in every process; in blocks to save memory."""
    draw = np.random.default_rng([20, n])
    rows = max(1, min(SIMULATIONS, 1_000_000 // n))
    sizes = [min(rows, SIMULATIONS - at) for at in range(0, SIMULATIONS, rows)]
    return np.concatenate([_lilliefors_statistic(draw.standard_normal((size, n))) for size in sizes])


# ---- which family fits ------------------------------------------------------------------------------------


def fit_families(x: ArrayLike, low: float, high: float) -> dict[str, float]:
    """AIC of the maximum likelihood fits of three families with two parameters each; the lowest fits best.

    Args:
        x: proximities (n,).
        low, high: what proximity can be at all; the beta distribution lives between them.

    Returns:
        `normal`; `lognormal`, NaN where a value is not positive; `beta`, NaN where a value is at an end or beyond.
    """
    from scipy.stats import beta

    values = _sample(x)

    def aic(log_likelihood: float) -> float:
        return 4 - 2 * log_likelihood

    def gaussian(v: Array) -> float:
        return float(-len(v) / 2 * (np.log(2 * np.pi * v.var()) + 1))

    fits = {"normal": aic(gaussian(values)), "lognormal": float("nan"), "beta": float("nan")}
    if (values > 0).all():
        logs = np.log(values)
        fits["lognormal"] = aic(gaussian(logs) - float(logs.sum()))
    share = (values - low) / (high - low)
    if ((share > 0) & (share < 1)).all():
        a, b = _fit_beta(share)
        fits["beta"] = aic(float(beta.logpdf(share, a, b).sum()) - len(values) * float(np.log(high - low)))
    return fits


def _fit_beta(share: Array) -> tuple[float, float]:
    """Maximum likelihood parameters of values in (0, 1), from the moments on."""
    from scipy.optimize import minimize
    from scipy.special import betaln

    mean, var = share.mean(), share.var()
    size = max(mean * (1 - mean) / var - 1, 1e-3)
    logs, logs_rest = np.log(share).mean(), np.log1p(-share).mean()

    def loss(theta: Array) -> float:
        a, b = np.exp(np.clip(theta, -30, 30))
        return float(betaln(a, b) - (a - 1) * logs - (b - 1) * logs_rest)

    found = minimize(loss, np.log([mean * size, (1 - mean) * size]), method="Nelder-Mead", options={"xatol": 1e-6})
    a, b = np.exp(found.x)
    return float(a), float(b)


# ---- anchor by anchor -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proximity:
    """Proximities of the positive pairs of one modality; A anchors."""

    cosine: tuple[Array, ...]
    """Of each anchor to its partners, A arrays."""
    tau: float

    @property
    def phi(self) -> tuple[Array, ...]:
        """exp(c / tau)."""
        return tuple(np.exp(c / self.tau) for c in self.cosine)

    @property
    def standardised(self) -> dict[str, Array]:
        """`cosine` and `phi` of all pairs, each anchor with mean 0 and deviation 1: what one Q-Q plot can show."""
        readings = {"cosine": self.cosine, "phi": self.phi}
        return {
            name: np.concatenate([(v - v.mean()) / v.std(ddof=1) for v in parts]) for name, parts in readings.items()
        }


def positive_proximity(s: ArrayLike, z: ArrayLike, classes: ArrayLike, tau: float, *, least: int = LEAST) -> Proximity:
    """Cosines <s_j, z_k> of every anchor j with the partners k != j of its class.

    Args:
        s: fused representation (n, d).
        z: representation of one modality (n, d).
        classes: true class of each sample, (n,).
        tau: temperature of phi.
        least: anchors with fewer partners are left out, as are those whose partners are all equally near.

    Raises:
        RepresentationError: s and z differ in shape, tau is not positive, or no anchor has enough partners.
    """
    f, g = unit_rows("s", s), unit_rows("z", z)
    if f.shape != g.shape:
        raise RepresentationError(f"s and z must have one shape, got {f.shape} and {g.shape}.")
    if not tau > 0:
        raise RepresentationError(f"tau must be positive, got {tau}.")
    groups = checked_classes(classes, len(f))
    cosine = np.clip(f @ g.T, -1, 1)
    partner = (groups[:, None] == groups[None, :]) & ~np.eye(len(f), dtype=bool)
    rows = [cosine[j, partner[j]] for j in np.flatnonzero(partner.sum(axis=1) >= least)]
    rows = [row for row in rows if np.ptp(row) > 1e-9]
    if not rows:
        raise RepresentationError(f"no anchor has {least} partners of its class at different distances.")
    return Proximity(tuple(rows), float(tau))


def anchor_frame(proximity: Proximity, max_anchors: int = 200, seed: int = 0) -> pd.DataFrame:
    """One row per reading (`cosine`, `phi`) and anchor: the fields of `Normality`, and the AIC of each family.

    Of more than `max_anchors` anchors as many are drawn: each costs a dozen milliseconds.
    """
    anchors = np.arange(len(proximity.cosine))
    if len(anchors) > max_anchors:
        anchors = np.sort(np.random.default_rng(seed).permutation(anchors)[:max_anchors])
    ends = {"cosine": (-1.0, 1.0), "phi": (float(np.exp(-1 / proximity.tau)), float(np.exp(1 / proximity.tau)))}
    readings = {"cosine": proximity.cosine, "phi": proximity.phi}
    rows = [
        {
            "reading": reading,
            "anchor": int(anchor),
            **asdict(normality(values[anchor])),
            **{f"aic_{name}": aic for name, aic in fit_families(values[anchor], *ends[reading]).items()},
        }
        for reading, values in readings.items()
        for anchor in anchors
    ]
    return pd.DataFrame(rows)


def proximity_summary(frame: pd.DataFrame, level: float = LEVEL) -> pd.DataFrame:
    """What the anchors say together, one row per reading.

    `rejected_<test>` is the share of anchors whose normality the test rejects at `level`, which is about `level` for
    normal data; `qq_r`, `skew`, `kurtosis` are medians; `best_<family>` is the share of anchors it fits best by AIC.
    """
    rows = []
    for reading, part in frame.groupby("reading", sort=False):
        best = part[[f"aic_{name}" for name in ("normal", "lognormal", "beta")]].idxmin(axis=1)
        rows.append(
            {"reading": reading, "n_anchors": len(part), "median_partners": float(part["n"].median())}
            | {f"rejected_{test}": _share_below(part[f"{test}_p"], level) for test in TESTS}
            | {name: float(part[name].median()) for name in ("qq_r", "skew", "kurtosis")}
            | {f"best_{name}": float((best == f"aic_{name}").mean()) for name in ("normal", "lognormal", "beta")}
        )
    return pd.DataFrame(rows)


def _share_below(p: "pd.Series[float]", level: float) -> float:
    known = p.dropna()
    return float((known < level).mean()) if len(known) else float("nan")


def proximity_frame(
    s: ArrayLike,
    single: Mapping[str, ArrayLike],
    classes: ArrayLike,
    tau: float,
    *,
    max_anchors: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """`proximity_summary` of every modality: rows modality x reading, `problem` where an anchor cannot be tested.

    Args:
        s: fused representation (n, d).
        single: modality -> its representation (n, d).
        classes: true class of each sample.
        tau: temperature of phi.
    """
    parts = []
    for modality, z in single.items():
        try:
            proximity = positive_proximity(s, z, classes, tau)
            part = proximity_summary(anchor_frame(proximity, max_anchors, seed)).assign(problem="")
        except RepresentationError as error:
            part = pd.DataFrame([{"problem": str(error)}])
        part.insert(0, "modality", modality)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["modality", "reading", "problem"])
