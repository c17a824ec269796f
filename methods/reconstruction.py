"""What autoencoders restore: the features of every modality, standardised. Shapes: B batch, T time, D features."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Likelihood = Literal["gaussian", "laplace"]

LEAST_SPREAD = 1e-6
"""A feature that varies less in training is only centred."""


class Target(nn.Module):
    """One modality as a vector to be restored, every feature with mean 0 and variance 1 on the training split.

    Of a sequence it is the mean over time, without steps that are all zeros, as padding is: restoring step by step
    says little more. Before `fit` nothing is moved or scaled.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.width = shape[-1]
        self.register_buffer("mean", torch.zeros(self.width))
        self.register_buffer("std", torch.ones(self.width))

    @torch.no_grad()
    def fit(self, x: Tensor, seen: Tensor) -> None:
        """Learn mean and standard deviation from the samples that have this modality, x (B, ...), seen (B,) bool."""
        values = averaged_over_time(x).double()[seen]
        if len(values) == 0:
            return
        std = values.std(0, correction=0)
        self.mean.copy_(values.mean(0))
        self.std.copy_(torch.where(std < LEAST_SPREAD, 1.0, std))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) or (B, T, D) -> (B, D)."""
        return (averaged_over_time(x) - self.mean) / self.std


def averaged_over_time(x: Tensor) -> Tensor:
    """Mean over the steps that are not all zeros, (B, T, D) -> (B, D); vectors (B, D) stay."""
    if x.dim() == 2:
        return x
    there = (x != 0).any(-1, keepdim=True)
    return x.sum(-2) / there.sum(-2).clamp(min=1)


class Targets(nn.Module):
    """The targets of all modalities."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.each = nn.ModuleList(Target(shape) for shape in shapes.values())

    def fit(self, xs: Sequence[Tensor], seen: Tensor) -> None:
        """M inputs (B, ...) and who has them, (M, B) bool."""
        for target, x, there in zip(self.each, xs, seen, strict=True):
            target.fit(x, there)  # type: ignore[operator]

    def of(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """M inputs (B, ...) -> M vectors (B, D_m)."""
        return [target(x) for target, x in zip(self.each, xs, strict=True)]


def misfit(restored: Tensor, target: Tensor, likelihood: Likelihood = "gaussian") -> Tensor:
    """Negative log-likelihood at scale 1 without its constant, summed over features, (..., D) -> (...)."""
    gap = restored - target
    return (0.5 * gap.square() if likelihood == "gaussian" else gap.abs()).sum(-1)
