"""Concat Fusion: encode every modality, put the embeddings side by side, decide; trained on complete samples only.

The first baseline of RAML ("Redundancy-Adaptive Multimodal Learning for Imperfect Data"), and the full-modality model
that MMIN (ACL 2021) starts from: fusion of embeddings, with no term that prepares for missing modalities. At test time
a missing modality is an input of zeros. Shapes: B batch, M modalities, d latent width, W task width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task, masked_mean
from methods.base import Method, MethodConfig, hyper
from methods.encoders import DropoutHead, cannot_encode
from methods.fusion import complete, present, shown
from methods.zero_inputs import FIRST_SITE, HeadConfig, ModalityEncoders


class ConcatConfig(HeadConfig):
    """Hyper-parameters of Concat Fusion."""

    incomplete_samples: bool = hyper(
        False,
        source="RAML, IV-A: trained on full samples alone; True: those that lack a modality teach as well, with zeros",
    )


class ConcatNet(nn.Module):
    """Encoders and a head that reads their embeddings side by side."""

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: HeadConfig, site: int = FIRST_SITE
    ) -> None:
        super().__init__()
        d = config.latent_for(shapes)
        self.f = ModalityEncoders(shapes, d, config)
        self.head = DropoutHead(len(shapes) * d, config.head_width, task.width, config.head_dropout, site)

    def forward(self, xs: list[Tensor], noise: Tensor) -> Tensor:
        """M inputs (B, ...), zeros where missing, and noise keys (B,) -> (B, W)."""
        return self.head(self.f(xs)[0].flatten(1), noise)  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the embeddings side by side; `z/<modality>`, each of them, that of zeros where it is missing."""
        h, _ = self.f(shown(batch))
        return {"s": h.flatten(1)} | {f"z/{name}": h[:, i] for i, name in enumerate(batch.inputs)}

    def reliance(self, batch: Batch) -> dict[str, Tensor]:
        """`reliance/<modality>`: mean change of the outputs when that modality alone is replaced by zeros."""
        xs, seen = shown(batch), present(batch)
        whole, told = self(xs, batch.noise), {}
        for i, name in enumerate(batch.inputs):
            without = [torch.zeros_like(x) if j == i else x for j, x in enumerate(xs)]
            change = (self(without, batch.noise) - whole).abs().mean(-1)
            told[f"reliance/{name}"] = masked_mean(change, seen[i])
        return told


class Concat(Method):
    """Intermediate fusion by concatenation, complete samples only."""

    name = "concat"
    title = "Concat Fusion"
    paper = "Redundancy-Adaptive Multimodal Learning for Imperfect Data, section IV (baseline)"
    Config = ConcatConfig
    needs_labels = True

    config: ConcatConfig

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: ConcatConfig) -> None:
        super().__init__(shapes, task, config)
        self.net = ConcatNet(shapes, task, config)

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`sup`, the task's loss of labelled samples that have every modality."""
        rows = batch.labelled if self.config.incomplete_samples else batch.labelled & complete(batch)
        return {"sup": self.task.loss(self.predict(batch), batch.target, rows)}

    def predict(self, batch: Batch) -> Tensor:
        """The head on all embeddings, missing modalities read as zeros."""
        return self.net(shown(batch), batch.noise)  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """See `ConcatNet.embed`."""
        return self.net.embed(batch)

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """How much each modality decides (see `ConcatNet.reliance`): near 0 the fusion ignores it."""
        return self.net.reliance(batch)
