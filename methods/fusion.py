"""Answering from whichever modalities are there. Shapes: B batch, M modalities, d latent width, W task width."""

from typing import Literal

import torch
from torch import Tensor

from datasets.batch import Batch, hide
from datasets.tasks import Task
from methods.encoders import Conditioned

LateFusion = Literal["logit_mean", "prob_mean"]


def shown(batch: Batch) -> list[Tensor]:
    """The M inputs with zeros wherever a modality is hidden or a row only fills the batch."""
    xs = list(batch.inputs.values())
    if all(isinstance(x, Conditioned) and x.available is batch.available for x in xs):
        return xs  # hidden already, and all rows are valid
    return list(hide(batch.inputs, batch.available & batch.valid[:, None]).values())


def present(batch: Batch) -> Tensor:
    """(M, B) bool: which samples a unimodal branch may learn from."""
    return (batch.available & batch.valid[:, None]).T


def complete(batch: Batch) -> Tensor:
    """(B,) bool: which samples the fused branch may learn from, those with every modality."""
    return batch.available.all(dim=1) & batch.valid


def mean_available(values: Tensor, available: Tensor) -> Tensor:
    """Mean over the available modalities, values (M, B, n), available (B, M) -> (B, n)."""
    weight = available.T.to(values.dtype)[..., None]  # (M, B, 1)
    return (values * weight).sum(0) / weight.sum(0).clamp(min=1.0)


def late_fusion(joint: Tensor, single: Tensor, available: Tensor, task: Task, how: LateFusion) -> Tensor:
    """The joint output where all modalities are there, elsewhere the mean of the outputs of those that are.

    Robult, Figure 3 and D.1 ("mean of the outputs"). The paper leaves open on which scale class outputs are
    averaged: `logit_mean` averages them as they are, `prob_mean` as probabilities.

    Args:
        joint: (B, W).
        single: one output a modality, (M, B, W).
        available: (B, M) bool.
    """
    return torch.where(available.all(dim=1)[:, None], joint, mean_output(single, available, task, how))


def mean_output(single: Tensor, available: Tensor, task: Task, how: LateFusion) -> Tensor:
    """Mean of the outputs of the available modalities, single (M, B, W) -> (B, W); see `late_fusion`."""
    if how == "logit_mean":
        return mean_available(single, available)
    probability = task.probabilities(single.flatten(0, 1)).reshape(single.shape)
    return task.from_probabilities(mean_available(probability, available))
