"""Missing patterns: the modality subsets a sample can be shown in.

Shapes: B batch, M modalities, P patterns, W task width.
"""

from itertools import product

import torch
from torch import Tensor

from datasets.seeds import generator
from datasets.tasks import Task
from methods.encoders.layers import DropoutHead
from methods.noise import split


def missing_patterns(modalities: int, most: int) -> Tensor:
    """All 2^M - 1 non-empty modality subsets, the full one first, (P, M) bool; of more than `most`, a fixed sample.

    The sample holds the full set and every single modality, however small `most` is.
    """
    if 2**modalities - 1 <= most:
        return torch.tensor(list(product([True, False], repeat=modalities))[:-1])
    draw = generator("missing patterns", modalities, most)
    chosen = [[True] * modalities, *torch.eye(modalities, dtype=torch.bool).tolist()]
    while len(chosen) < most:
        pattern = draw.integers(0, 2, modalities).astype(bool).tolist()
        if any(pattern) and pattern not in chosen:
            chosen.append(pattern)
    return torch.tensor(chosen)


def possible(patterns: Tensor, available: Tensor) -> Tensor:
    """Which missing patterns a sample can be shown in, those within what it has: (P, M), (B, M) -> (P, B) bool."""
    return ~(patterns[:, None, :] & ~available[None]).any(-1)


def mean_over_patterns(values: Tensor, fits: Tensor) -> Tensor:
    """Mean over the patterns that fit a sample, (P, ...) and its mask -> (...); 0 where none does."""
    return (values * fits).sum(0) / fits.sum(0).clamp(min=1)


def answers(head: DropoutHead, x: Tensor, noise: Tensor, site: int) -> Tensor:
    """A head's outputs under every missing pattern, each with dropout of its own.

    Args:
        head: (N, n) -> (N, W).
        x: (P, B, n).
        noise: the samples' keys, (B,).
        site: of the noise, from which the patterns' keys are drawn.

    Returns:
        (P, B, W).
    """
    keys = split(noise, site, len(x)).flatten() if head.training else noise
    return head(x.flatten(0, 1), keys).reshape(*x.shape[:2], -1)  # type: ignore[no-any-return]


def sample_losses(task: Task, outputs: Tensor, target: Tensor) -> Tensor:
    """The task's loss of each of P outputs a sample, (P, B, W) -> (P, B)."""
    repeated = target.expand(len(outputs), *target.shape).flatten(0, 1)
    return task.sample_loss(outputs.flatten(0, 1), repeated).reshape(outputs.shape[:2])
