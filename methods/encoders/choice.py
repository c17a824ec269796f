"""Projectors and joint encoders: from raw features to a latent of width d. Every method uses the same ones.

Robult (C.2) keeps the projectors f_i equal across methods so that comparisons are of the methods. For data sets
of one vector a modality (offline ViLT embeddings) it says "simple fully connected"; `fc` picks one of two readings.
Shapes: B batch, M modalities, D features of a modality, d latent width, C outputs.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from methods.base import MethodConfig, hyper
from methods.encoders.layers import Residual, mlp

FC = Literal["table5", "plain"]
Shapes = Mapping[str, tuple[int, ...]]


class EncoderConfig(MethodConfig):
    """What every method with encoders declares."""

    latent: int = hyper(128, source="Robult, C.2: 128 for vector embeddings", search=(32, 256), log=True, ge=1)
    fc: FC = hyper(
        "table5",
        source="Robult, Table 5: with two layers and GMC's joint processor the parameters of GMC on Hateful Memes "
        "come out exactly (674 050); 'plain' is the literal C.2, one layer each",
        search=("table5", "plain"),
    )


def cannot_encode(shapes: Shapes) -> str | None:
    """Why there is no encoder for these modalities, as half a sentence; None when there is one."""
    for name, shape in shapes.items():
        if len(shape) != 1:
            return f"takes vectors only so far; modality '{name}' is a sequence {tuple(shape)}"
    return None


def projector(shape: tuple[int, ...], latent: int, fc: FC) -> nn.Module:
    """f_i of one modality of `shape` (D,): (B, D) -> (B, d)."""
    (features,) = shape
    return mlp(features, latent, latent) if fc == "table5" else nn.Linear(features, latent)


def joint_encoder(shapes: Shapes, latent: int, fc: FC) -> nn.Module:
    """f_0 of all modalities together: a sequence of M tensors (B, D_i) -> (B, d)."""
    return ProcessedJoint(shapes, latent) if fc == "table5" else ConcatenatedJoint(shapes, latent)


class ProcessedJoint(nn.Module):
    """Own projectors, concatenation, residual block, linear layer: the end of GMC's joint processor on vectors."""

    def __init__(self, shapes: Shapes, latent: int) -> None:
        super().__init__()
        width = latent * len(shapes)
        self.project = nn.ModuleList(projector(shape, latent, "table5") for shape in shapes.values())
        self.mix = nn.Sequential(Residual(width), nn.Linear(width, latent))

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        together = torch.cat([project(x) for project, x in zip(self.project, xs, strict=True)], dim=-1)  # (B, M d)
        return self.mix(together)  # type: ignore[no-any-return]


class ConcatenatedJoint(nn.Module):
    """One linear layer on the concatenated inputs."""

    def __init__(self, shapes: Shapes, latent: int) -> None:
        super().__init__()
        self.mix = nn.Linear(sum(features for (features,) in shapes.values()), latent)

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        return self.mix(torch.cat(list(xs), dim=-1))  # type: ignore[no-any-return]
