"""The linear regressor on frozen representations, against scikit-learn."""

import numpy as np
import pytest
import torch

from datasets.tasks import Binary, MultiClass, MultiLabel, Regression
from methods.probe import apply_linear, fit_linear

linear_model = pytest.importorskip("sklearn.linear_model")

X = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
L2 = torch.tensor(0.7)


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_regression(classes: int) -> None:
    y = (X[:, 0] * 2 + X[:, 1]).round().long().clamp(0, classes - 1)
    task = Binary() if classes == 2 else MultiClass(classes)
    ours = apply_linear(fit_linear(X, y, task, L2), X).softmax(-1)
    # Two logits share a penalty that one logit bears alone, hence twice the C.
    c = (2 if classes == 2 else 1) / 0.7
    theirs = linear_model.LogisticRegression(C=c, tol=1e-10, max_iter=5000).fit(X.double().numpy(), y.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(X.double().numpy()), atol=1e-5)


def test_ridge_regression() -> None:
    y = X[:, 0] - X[:, 3] + 2
    ours = apply_linear(fit_linear(X, y, Regression(), L2), X)[:, 0]
    theirs = linear_model.Ridge(alpha=0.7).fit(X.double().numpy(), y.double().numpy())
    np.testing.assert_allclose(ours.numpy(), theirs.predict(X.double().numpy()), atol=1e-5)


def test_label_sets_are_fitted_one_by_one() -> None:
    y = torch.stack([X[:, 0] > 0, X[:, 1] > 1], dim=1).float()
    ours = apply_linear(fit_linear(X, y, MultiLabel(2), L2), X).sigmoid()
    for label in range(2):  # the task averages over the two labels, which doubles the strength of the penalty
        model = linear_model.LogisticRegression(C=1 / 1.4, tol=1e-10, max_iter=5000)
        theirs = model.fit(X.double().numpy(), y[:, label].numpy()).predict_proba(X.double().numpy())
        np.testing.assert_allclose(ours[:, label].numpy(), theirs[:, 1], atol=1e-5)


def test_without_samples_the_weights_are_zero() -> None:
    assert not fit_linear(X[:0], torch.zeros(0), Regression(), L2).any()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_may_be_off_around_it(mode: type[torch.no_grad]) -> None:
    with mode():
        features = X * 1.0  # made inside, as a method's latents are
        weights = fit_linear(features, X[:, 0] * 1.0, Regression(), L2)
    torch.testing.assert_close(weights, fit_linear(X, X[:, 0], Regression(), L2))
