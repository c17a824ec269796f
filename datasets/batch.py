"""What a method sees: one batch, in which nothing hidden can be read."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """A batch of B samples with M modalities; a pytree of tensors.

    The data layer has zeroed what the method must not see: inputs that are not available, targets that are
    not labelled. The masks say which zeros are real.
    """

    inputs: dict[str, Tensor]
    """Modality name -> (B, D) or (B, T, D), in the data set's own order."""
    target: Tensor
    """(B,) class index or value, or (B, C) multi-label indicators; zero where not labelled."""
    labelled: Tensor
    """(B,) bool, True where `target` may be read."""
    available: Tensor
    """(B, M) bool, True where a modality is present."""
    valid: Tensor
    """(B,) bool, False for rows that only fill the last batch."""
    noise: Tensor
    """(B,) int64, the key of each sample's random numbers in this step (see `methods.noise`)."""
    progress: Tensor
    """(B,) float32, the same in all rows: share of the stage's training steps that lie behind; 1 in evaluation."""


def hide(inputs: Mapping[str, Tensor], available: Tensor) -> dict[str, Tensor]:
    """`inputs` with zeros wherever `available` (B, M) is False, modality by modality."""
    hidden = {}
    for column, (name, x) in enumerate(inputs.items()):
        mask = available[:, column].reshape(-1, *[1] * (x.dim() - 1))  # (B, 1[, 1])
        hidden[name] = torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))
    return hidden


def make_batch(
    inputs: Mapping[str, Tensor],
    target: Tensor,
    *,
    labelled: Tensor | None = None,
    available: Tensor | None = None,
    valid: Tensor | None = None,
    noise: Tensor | None = None,
    progress: Tensor | float = 1.0,
) -> Batch:
    """A batch in which hidden inputs and targets are zero; masks left out mean "everything".

    Args:
        inputs: modality name -> (B, D) or (B, T, D).
        target: (B,) or (B, C).
        labelled: (B,) bool.
        available: (B, M) bool.
        valid: (B,) bool; rows that are not valid are never labelled.
        noise: (B,) int64; left out, every key is 0.
        progress: scalar, share of the stage's training steps that lie behind.
    """
    n, device = len(target), target.device
    everything = torch.ones(n, dtype=torch.bool, device=device)
    valid = everything if valid is None else valid
    labelled = valid if labelled is None else labelled & valid
    if available is None:
        available = everything[:, None].expand(n, len(inputs))
        shown = dict(inputs)
    else:
        shown = hide(inputs, available)
    mask = labelled.reshape(-1, *[1] * (target.dim() - 1))
    target = torch.where(mask, target, torch.zeros((), dtype=target.dtype, device=device))
    noise = torch.zeros(n, dtype=torch.int64, device=device) if noise is None else noise
    done = torch.as_tensor(progress, dtype=torch.float32, device=device).expand(n)
    return Batch(shown, target, labelled, available, valid, noise, done)
