"""Unimodal: a supervised network for every modality alone, and another for all together.

The baseline of Robult (3.2, C.2): the branches of Robult without any term that ties them, each with its own
classifier, trained on labelled samples only. Shapes: B batch, M modalities, d latent width, W task width.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task
from methods.base import Method, MethodConfig, hyper
from methods.encoders import EncoderConfig, cannot_encode, joint_encoder, mlp, projector, residual_head, unit
from methods.fusion import LateFusion, complete, late_fusion, mean_output, present, shown


class UnimodalConfig(EncoderConfig):
    """Hyper-parameters of the unimodal baseline."""

    unimodal_full: Literal["joint", "late_mean"] = hyper(
        "joint",
        source="not given: with all modalities Robult, Table 2, prints 0.138 on Food-101 where the single ones reach "
        "0.321 and 0.296, too low for a mean of their outputs, hence a network of its own; C.2 lists f_0 as well",
    )
    late_fusion: LateFusion = hyper(
        "logit_mean", source="Robult, D.1: mean of the outputs; scale not given: our choice"
    )


class Unimodal(Method):
    """M+1 independent networks; nothing is shared, so training them together is training them apart."""

    name = "unimodal"
    title = "Unimodal"
    paper = "Robult, IJCAI 2025, section 3.2 (baseline)"
    Config = UnimodalConfig
    needs_labels = True

    config: UnimodalConfig

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: UnimodalConfig) -> None:
        super().__init__(shapes, task, config)
        d = config.latent_for(shapes)
        self.f = nn.ModuleList(projector(shape, d, config) for shape in shapes.values())
        self.g = nn.ModuleList(nn.Linear(d, d) for _ in shapes)
        self.c = nn.ModuleList(residual_head(d, task.width) for _ in shapes)
        if config.unimodal_full == "joint":
            self.f0 = joint_encoder(shapes, d, config)
            self.g0 = mlp(d, d, d)
            self.c0 = residual_head(d, task.width)

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    def encode(self, xs: list[Tensor], noise: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """M inputs (B, ...), noise keys (B,) -> joint latent (B, d), if there is one, and unimodal ones (M, B, d)."""
        joint = unit(self.g0(self.f0(xs, noise))) if self.config.unimodal_full == "joint" else None
        single = [g(f(x)) for f, g, x in zip(self.f, self.g, xs, strict=True)]
        return joint, unit(torch.stack(single))

    def classify(self, single: Tensor) -> Tensor:
        """Every modality's own head, (M, B, d) -> (M, B, W)."""
        return torch.stack([c(latent) for c, latent in zip(self.c, single, strict=True)])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The task's loss of every network, `sup/<modality>` and `sup/joint`."""
        joint, single = self.encode(shown(batch), batch.noise)
        rows = present(batch) & batch.labelled  # (M, B)
        terms = {
            f"sup/{name}": self.task.loss(output, batch.target, labelled)
            for name, output, labelled in zip(self.modalities, self.classify(single), rows, strict=True)
        }
        if joint is not None:
            terms["sup/joint"] = self.task.loss(self.c0(joint), batch.target, batch.labelled & complete(batch))
        return terms

    def predict(self, batch: Batch) -> Tensor:
        """The joint network where every modality is there, otherwise the mean of the networks of those that are."""
        joint, single = self.encode(shown(batch), batch.noise)
        outputs, how = self.classify(single), self.config.late_fusion
        if joint is None:
            return mean_output(outputs, batch.available, self.task, how)
        return late_fusion(self.c0(joint), outputs, batch.available, self.task, how)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`z/<modality>`, and `s` of the joint network, all of norm 1."""
        joint, single = self.encode(shown(batch), batch.noise)
        named = {f"z/{name}": z for name, z in zip(self.modalities, single, strict=True)}
        return named if joint is None else {"s": joint} | named
