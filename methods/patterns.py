"""Missing patterns: the modality subsets a sample can be shown in. Shapes: B batch, M modalities, P patterns."""

from itertools import product

import torch
from torch import Tensor

from datasets.seeds import generator


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
