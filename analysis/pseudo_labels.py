"""Are pseudo-labels right, and do low weights mark the wrong ones? (Robult, D.8, Figure 9)

Weights belong to pairs (anchor j, candidate k, modality i), the paper's figure counts samples and does not say how
it gets from one to the other. Two readings:

- `pairs` (default): every pair of B_1,0 with a candidate whose label is hidden counts once; the true class of k
  stands against its pseudo-class, which is the class of j.
- `samples`: every candidate whose label is hidden counts once, with the mean of its weights over anchors and
  modalities.

Pairs of a sample with itself are left out: they say nothing of classes. The weighting keeps what has a weight of at
least the 25 % percentile of its batch. Dropping a quarter moves precision by chance alone, hence the null of as
many dropped at random.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.representations import RepresentationError, checked_classes

PERCENTILE = 25.0
N_DRAWS = 20
"""Random drops of the null."""


@dataclass(frozen=True)
class WeightedLabels:
    """Pseudo-labels of one batch, each with its weight and the truth that was held back; L labels."""

    true: NDArray[np.int64]
    """(L,)"""
    pseudo: NDArray[np.int64]
    """(L,)"""
    weight: NDArray[np.float64]
    """(L,)"""


def weighted_labels(
    weight: ArrayLike,
    pairs: ArrayLike,
    pseudo: ArrayLike,
    true: ArrayLike,
    labelled: ArrayLike,
    *,
    count: Literal["pairs", "samples"] = "pairs",
) -> WeightedLabels:
    """The pseudo-labels that a batch used, with their weights.

    Args:
        weight: w of anchor j and candidate k, (M, B, B) or (B, B).
        pairs: True where (j, k) is a pair of B_1,0 and both exist, of the same shape.
        pseudo: class every sample counts as, true where labelled and predicted elsewhere, (B,).
        true: class every sample has, (B,).
        labelled: True where the method saw the label, (B,).
        count: what counts once, see the module.

    Raises:
        RepresentationError: shapes disagree, a weight of a pair is not finite, or a pair joins different
            pseudo-classes, which no pair of B_1,0 does.
    """
    guessed = checked_classes(pseudo, len(np.asarray(pseudo)))
    size = len(guessed)
    truth, seen = checked_classes(true, size), np.asarray(labelled, bool)
    w, mask = np.asarray(weight, np.float64), np.asarray(pairs, bool)
    if w.shape != mask.shape or w.shape[-2:] != (size, size) or w.ndim not in (2, 3) or seen.shape != (size,):
        raise RepresentationError(
            f"weights and pairs must be (M, B, B) and labelled (B,) with B = {size} pseudo-labels, got {w.shape}, "
            f"{mask.shape} and {seen.shape}."
        )
    mask = mask & ~np.eye(size, dtype=bool) & ~seen  # the last over candidates
    _, j, k = np.nonzero(mask.reshape(-1, size, size))
    values = w.reshape(-1, size, size)[mask.reshape(-1, size, size)]
    if not np.isfinite(values).all():
        raise RepresentationError("a weight of a pair is NaN or infinite: did the training diverge?")
    if (guessed[j] != guessed[k]).any():
        raise RepresentationError("a pair joins samples of different pseudo-classes; pairs of B_1,0 share one.")
    if count == "pairs":
        return WeightedLabels(truth[k], guessed[k], values)
    uses = np.bincount(k, minlength=size)
    used = np.flatnonzero(uses)
    mean = np.bincount(k, weights=values, minlength=size)[used] / uses[used]
    return WeightedLabels(truth[used], guessed[used], mean)


# ---- confusion --------------------------------------------------------------------------------------------


def confusion(true: ArrayLike, pseudo: ArrayLike, classes: Sequence[int]) -> NDArray[np.int64]:
    """Counts (C, C): true classes down, pseudo-classes across, in the order of `classes`, empty ones included.

    Raises:
        RepresentationError: a label is not among `classes`.
    """
    rows, columns = np.asarray(true), np.asarray(pseudo)
    strange = sorted((set(np.unique(rows).tolist()) | set(np.unique(columns).tolist())) - set(classes))
    if strange:
        raise RepresentationError(f"labels {strange} are not among the classes {list(classes)}.")
    order = np.argsort(classes)
    row, column = (order[np.searchsorted(classes, labels, sorter=order)] for labels in (rows, columns))
    cells = row * len(classes) + column
    return np.bincount(cells, minlength=len(classes) ** 2).reshape(len(classes), len(classes))


def purity(counts: NDArray[np.int64]) -> float:
    """Share of pseudo-labels that are right; NaN without any."""
    return float(np.trace(counts) / counts.sum()) if counts.sum() else float("nan")


def precision_by_class(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of right ones among the pseudo-labels of each class, (C,); NaN where a class was never guessed."""
    guessed = counts.sum(axis=0)
    return np.where(guessed > 0, np.diag(counts) / np.maximum(guessed, 1), np.nan)


def row_shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row as shares of its true class, (C, C); NaN rows for classes that do not occur."""
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.maximum(total, 1), np.nan)


def kept(weight: ArrayLike, percentile: float = PERCENTILE) -> NDArray[np.bool_]:
    """Which weights are at least the percentile of their batch (interpolated linearly): ties with it are kept."""
    values = np.asarray(weight, np.float64)
    if len(values) == 0:
        return np.zeros(0, bool)
    return np.asarray(values >= np.percentile(values, percentile))


# ---- Figure 9 ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo-labels with and without those of low weight, and what dropping as many at random does."""

    classes: tuple[int, ...]
    before: NDArray[np.int64]
    """(C, C) counts of all."""
    after: NDArray[np.int64]
    """(C, C) counts of those kept by their weight."""
    null: NDArray[np.float64]
    """Purity after each random drop."""
    auroc: float
    """Of the weight for "this pseudo-label is right"; 0.5 is chance, NaN where all are right or all are wrong."""
    n_equal: int
    """Batches in which all weights are equal, so that none was dropped."""
    n_batches: int

    @property
    def purity_before(self) -> float:
        return purity(self.before)

    @property
    def purity_after(self) -> float:
        return purity(self.after)

    @property
    def null_mean(self) -> float:
        return float(self.null.mean())

    @property
    def dropped_share(self) -> float:
        return float(1 - self.after.sum() / self.before.sum())

    @property
    def note(self) -> str:
        """What makes the comparison void; empty if nothing does."""
        if not self.n_equal:
            return ""
        return f"all weights are equal in {self.n_equal} of {self.n_batches} batches: nothing is filtered there"


def judge(
    batches: Sequence[WeightedLabels],
    classes: Sequence[int],
    *,
    percentile: float = PERCENTILE,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> PseudoLabels:
    """Confusion with the truth over the batches of an epoch, before and after weights below the percentile go.

    Args:
        batches: from `weighted_labels`; the percentile is taken within each.
        classes: all classes, in the order of the matrix, such as -3 ... 3.
        percentile: 25 in Robult, D.8.
        n_draws: random drops of the null, which drop as many of each batch as the weights did.

    Raises:
        RepresentationError: no batch has a pseudo-label, or one is not among `classes`.
    """
    batches = [batch for batch in batches if len(batch.true)]
    if not batches:
        raise RepresentationError("there is no pseudo-label to judge: no pair has a candidate whose label is hidden.")
    stays = [kept(batch.weight, percentile) for batch in batches]
    true, pseudo = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("true", "pseudo"))
    chosen = np.concatenate(stays)
    draw = np.random.default_rng(seed)
    null = [
        np.concatenate(
            [
                (b.true == b.pseudo)[draw.permutation(len(b.true))[: s.sum()]]
                for b, s in zip(batches, stays, strict=True)
            ]
        )
        for _ in range(n_draws)
    ]
    return PseudoLabels(
        classes=tuple(classes),
        before=confusion(true, pseudo, classes),
        after=confusion(true[chosen], pseudo[chosen], classes),
        null=np.array([right.mean() for right in null]),
        auroc=_auroc(true == pseudo, np.concatenate([batch.weight for batch in batches])),
        n_equal=sum(bool(np.ptp(batch.weight) == 0) for batch in batches),
        n_batches=len(batches),
    )


def _auroc(right: NDArray[np.bool_], weight: NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(right, weight)) if 0 < right.sum() < len(right) else float("nan")


def purity_frame(epochs: Mapping[int, PseudoLabels]) -> pd.DataFrame:
    """Purity over epochs, one row an epoch: before, after, its random null with 2.5 and 97.5 %, AUROC, counts."""
    rows = [
        {
            "epoch": epoch,
            "purity": judged.purity_before,
            "purity_weighted": judged.purity_after,
            "null_mean": judged.null_mean,
            "null_low": float(np.quantile(judged.null, 0.025)),
            "null_high": float(np.quantile(judged.null, 0.975)),
            "auroc": judged.auroc,
            "n": int(judged.before.sum()),
            "n_kept": int(judged.after.sum()),
            "note": judged.note,
        }
        for epoch, judged in sorted(epochs.items())
    ]
    columns = [
        "epoch",
        "purity",
        "purity_weighted",
        "null_mean",
        "null_low",
        "null_high",
        "auroc",
        "n",
        "n_kept",
        "note",
    ]
    return pd.DataFrame(rows, columns=columns)
