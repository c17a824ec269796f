"""The metrics against worked examples, published constant-predictor rows, and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datasets import metrics

quick = settings(deadline=None, max_examples=60)


# ---- golden numbers, worked by hand or with scikit-learn 1.5 ---------------------------------------------------


def test_sentiment_scores_of_a_worked_example():
    truth = np.array([1, 2, -1, -2, -0.5, 0])
    scores = metrics.sentiment(np.array([1, 0.5, 1, 0.2, -1, 0.3]), truth)
    assert scores == pytest.approx(
        {"mae": 1.083333, "corr": 0.240676, "acc": 0.6, "f1": 0.566667, "f1_swapped": 0.633333}, abs=1e-5
    )


@pytest.mark.parametrize(
    ("value", "acc", "swapped", "proper"), [(1.0, 0.4223, 0.5938, 0.2507), (-1.0, 0.5777, 0.7324, 0.4231)]
)
def test_constant_predictors_give_the_rows_published_for_mosi(value, acc, swapped, proper):
    """MOSI's test part has 277 positive, 379 negative and 30 neutral samples; the rows (0.422, 0.593) and
    (0.577, 0.732) stand in the Robult paper's tables."""
    truth = np.repeat([1.5, -1.5, 0.0], [277, 379, 30])
    scores = metrics.sentiment(np.full(len(truth), value), truth)
    assert (scores["acc"], scores["f1_swapped"], scores["f1"]) == pytest.approx((acc, swapped, proper), abs=5e-5)
    assert math.isnan(scores["corr"])


def test_multilabel_f1_of_a_worked_example():
    logits = np.array([[2, -1, 0.5], [-1, -2, 1], [0.3, -0.5, -2], [-1, -1, 1]])
    truth = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]]) == 1
    expected = {"f1_macro": 0.433333, "f1_micro": 0.6, "f1_samples": 0.416667}
    assert metrics.multilabel(logits >= 0, truth) == pytest.approx(expected, abs=1e-6)


def test_auroc_of_a_worked_example():
    assert metrics.auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == 0.75


def test_weighted_and_unweighted_accuracy_of_a_worked_example():
    scores = metrics.classification(np.array([0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 2]), 3)
    assert scores["acc"] == 0.6
    assert scores["ua"] == pytest.approx(0.555556, abs=1e-6)


# ---- undefined is NaN -------------------------------------------------------------------------------------------


def test_what_is_undefined_is_nan():
    assert math.isnan(metrics.auroc(np.array([0.1, 0.2]), np.array([1, 1])))
    assert math.isnan(metrics.pearson(np.array([1.0, 1.0]), np.array([1.0, 2.0])))
    neutral = metrics.sentiment(np.array([0.5, -0.5]), np.zeros(2))
    assert [key for key, value in neutral.items() if math.isnan(value)] == ["corr", "acc", "f1", "f1_swapped"]
    assert neutral["mae"] == 0.5


# ---- equality with scikit-learn and SciPy -----------------------------------------------------------------------

classes = st.integers(1, 6).flatmap(
    lambda c: st.tuples(
        st.just(c), st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1, max_size=40)
    )
)


@quick
@given(classes)
def test_classification_equals_scikit_learn(drawn):
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    n_classes, pairs = drawn
    prediction, truth = np.array(pairs).T
    scores = metrics.classification(prediction, truth, n_classes)
    assert scores["acc"] == pytest.approx(accuracy_score(truth, prediction))
    assert scores["f1_macro"] == pytest.approx(f1_score(truth, prediction, average="macro", zero_division=0))
    occurring = np.unique(truth)
    ua = recall_score(truth, prediction, labels=occurring, average="macro", zero_division=0)
    assert scores["ua"] == pytest.approx(ua)
    weighted = f1_score(truth, prediction, average="weighted", zero_division=0)
    assert metrics.weighted_f1(prediction, truth, n_classes) == pytest.approx(weighted)


@quick
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40))
def test_auroc_equals_scikit_learn_with_ties(pairs):
    from sklearn.metrics import roc_auc_score

    score, truth = np.array([s for s, _ in pairs]) / 4, np.array([int(t) for _, t in pairs])
    if len(set(truth)) == 1:
        assert math.isnan(metrics.auroc(score, truth))
    else:
        assert metrics.auroc(score, truth) == pytest.approx(roc_auc_score(truth, score))


@quick
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 6)).flatmap(
        lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
    )
)
def test_multilabel_equals_scikit_learn(drawn):
    from sklearn.metrics import f1_score

    prediction, truth = drawn
    if truth.shape[1] == 1:  # scikit-learn takes one column for a binary task
        prediction, truth = np.pad(prediction, ((0, 0), (0, 1))), np.pad(truth, ((0, 0), (0, 1)))
    scores = metrics.multilabel(prediction, truth)
    for average in ("macro", "micro", "samples"):
        expected = f1_score(truth.astype(int), prediction.astype(int), average=average, zero_division=0)
        assert scores[f"f1_{average}"] == pytest.approx(expected)


sentiments = st.lists(
    st.tuples(st.integers(-15, 15).map(lambda v: v / 5), st.floats(-4, 4, width=32)), min_size=2, max_size=40
)


@quick
@given(sentiments)
def test_sentiment_equals_scikit_learn_and_scipy(pairs):
    from scipy.stats import pearsonr
    from sklearn.metrics import f1_score, mean_absolute_error

    truth, value = np.array(pairs).T
    scores = metrics.sentiment(value, truth)
    assert scores["mae"] == pytest.approx(mean_absolute_error(truth, value))
    if np.std(truth) > 1e-3 and np.std(value) > 1e-3:
        assert scores["corr"] == pytest.approx(pearsonr(truth, value)[0], abs=1e-9)
    kept = truth != 0
    if kept.any():
        actual, positive = truth[kept] > 0, value[kept] > 0
        assert scores["acc"] == pytest.approx((actual == positive).mean())
        assert scores["f1"] == pytest.approx(f1_score(actual, positive, average="weighted", zero_division=0))
        swapped = f1_score(positive, actual, average="weighted", zero_division=0)
        assert scores["f1_swapped"] == pytest.approx(swapped)
    else:
        assert math.isnan(scores["acc"])


@quick
@given(arrays(np.float64, (2, 12), elements=st.floats(-100, 100)), st.floats(0.1, 10), st.floats(-5, 5))
def test_pearson_does_not_care_for_scale_and_shift(ab, scale, shift):
    a, b = ab
    if np.std(a) > 1e-3 and np.std(b) > 1e-3:
        r = metrics.pearson(a, b)
        assert -1 <= r <= 1
        assert metrics.pearson(scale * a + shift, b) == pytest.approx(r, abs=1e-8)
        assert metrics.pearson(-a, b) == pytest.approx(-r, abs=1e-8)
