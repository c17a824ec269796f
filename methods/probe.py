"""A linear regressor on frozen representations, fitted to its optimum: what an ablation without a classifier needs."""

import torch
from torch import Tensor

from datasets.tasks import Task


def apply_linear(weights: Tensor, features: Tensor) -> Tensor:
    """Features (..., N, d) times weights (..., d+1, W), whose last row is the bias -> (..., N, W)."""
    return features @ weights[..., :-1, :] + weights[..., -1:, :]


def fit_linear(features: Tensor, target: Tensor, task: Task, l2: Tensor) -> Tensor:
    """Weights (d+1, W) of the regularised linear model of the task: logistic regression, or ridge for values.

    Minimises the summed smooth loss of the task + l2/2 ||w||^2, bias free, in double precision by L-BFGS from
    zero: convex and deterministic. Equal to scikit-learn's Ridge(alpha=l2) and, for three classes and more,
    LogisticRegression(C=1/l2); for two classes, which have two logits here and one there, C=2/l2.

    Args:
        features: (N, d), labelled samples only; with none the weights are zero.
        target: (N,) or (N, C).
        l2: strength of the penalty, scalar >= 0.
    """
    with torch.inference_mode(False), torch.enable_grad():  # whoever calls may have switched gradients off
        x, y = features.detach().clone().double(), target.detach().clone()
        y = y.double() if y.is_floating_point() else y
        strength = l2.detach().clone().double()
        weights = torch.zeros(x.shape[1] + 1, task.width, dtype=torch.float64, device=x.device, requires_grad=True)
        solver = torch.optim.LBFGS(
            [weights],
            max_iter=500,
            history_size=20,
            tolerance_grad=1e-7,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            solver.zero_grad()
            value = task.smooth_loss(apply_linear(weights, x), y).sum() + strength / 2 * weights[:-1].square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        solver.step(objective)  # type: ignore[no-untyped-call]
    return weights.detach().to(features.dtype)
