"""The papers' metrics in plain NumPy, so that workers start fast; tests hold them against scikit-learn.

N samples, C classes or labels. A metric that is undefined is NaN, never a made-up number.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


def _f1(true_positive: Floats, predicted: Floats, actual: Floats) -> Floats:
    """F1 from counts, 0 where a class neither occurs nor is predicted (`zero_division=0`)."""
    support = predicted + actual
    score: Floats = np.divide(2.0 * true_positive, support, out=np.zeros(np.shape(support)), where=support > 0)
    return score


def _class_counts(prediction: Ints, truth: Ints, n_classes: int) -> tuple[Floats, Floats, Floats]:
    """Per class: true positives, predicted, actual, each (C,)."""
    hits = np.bincount(truth[prediction == truth], minlength=n_classes).astype(float)
    return (
        hits,
        np.bincount(prediction, minlength=n_classes).astype(float),
        np.bincount(truth, minlength=n_classes).astype(float),
    )


def classification(prediction: Ints, truth: Ints, n_classes: int) -> dict[str, float]:
    """Accuracy (RAML's WA), macro F1 and unweighted accuracy UA = mean recall of the classes that occur."""
    hits, predicted, actual = _class_counts(prediction, truth, n_classes)
    occurs = actual > 0
    seen = occurs | (predicted > 0)
    return {
        "acc": float(hits.sum() / len(truth)),
        "f1_macro": float(_f1(hits, predicted, actual)[seen].mean()),
        "ua": float((hits[occurs] / actual[occurs]).mean()),
    }


def weighted_f1(prediction: Ints, truth: Ints, n_classes: int) -> float:
    """F1 of each class averaged with the number of its TRUE samples as weight."""
    hits, predicted, actual = _class_counts(prediction, truth, n_classes)
    return float((_f1(hits, predicted, actual) * actual).sum() / actual.sum())


def sentiment(value: Floats, truth: Floats) -> dict[str, float]:
    """MAE, Pearson r, and the two-class accuracy and F1 of MulT and GMC.

    MAE and r are over all samples; r is NaN when either side is constant. The two-class scores leave out
    samples whose TRUE value is exactly 0 and call a value > 0 positive. The published F1 was computed with
    truth and prediction swapped, which weights the classes by how often they are PREDICTED: that is
    `f1_swapped`; `f1` weights by the truth.
    """
    value, truth = value.astype(np.float64), truth.astype(np.float64)
    kept = truth != 0
    positive, actual = (value[kept] > 0).astype(int), (truth[kept] > 0).astype(int)
    two_class = kept.any()
    return {
        "mae": float(np.abs(value - truth).mean()),
        "corr": pearson(value, truth),
        "acc": float((positive == actual).mean()) if two_class else float("nan"),
        "f1": weighted_f1(positive, actual, 2) if two_class else float("nan"),
        "f1_swapped": weighted_f1(actual, positive, 2) if two_class else float("nan"),
    }


def pearson(a: Floats, b: Floats) -> float:
    """Pearson's r; NaN when either side is constant, where it is undefined."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def auroc(score: Floats, truth: Ints) -> float:
    """Area under the ROC curve, ties counted half; NaN when one class is absent."""
    positive = truth == 1
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if n_pos == 0 or n_neg == 0:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2.0
    return float((mean_rank[inverse][positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def multilabel(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, float]:
    """Macro, micro and per-sample F1 of indicator matrices (N, C); classes without any entry count 0."""
    hits = prediction & truth
    return {
        "f1_macro": float(_f1(*(m.sum(0).astype(float) for m in (hits, prediction, truth))).mean()),
        "f1_micro": float(_f1(*(np.array(float(m.sum())) for m in (hits, prediction, truth)))),
        "f1_samples": float(_f1(*(m.sum(1).astype(float) for m in (hits, prediction, truth))).mean()),
    }
