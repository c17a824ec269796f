"""GMC: align the embedding of every modality with that of all modalities together.

Poklukar et al., "Geometric Multimodal Contrastive Representation Learning", ICML 2022, in the supervised form of its
reference code. Shapes: B batch, M modalities, d latent width, W task width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task
from methods.base import Method, MethodConfig, hyper
from methods.contrast import log_total, off_diagonal
from methods.encoders import EncoderConfig, cannot_encode, joint_encoder, projector, residual_head, unit
from methods.fusion import complete, mean_available, present, shown


class GMCConfig(EncoderConfig):
    """Hyper-parameters of GMC."""

    tau: float = hyper(
        0.3,
        source="GMC code, supervised experiments on CMU-MOSI and -MOSEI; 0.1 in its unsupervised ones",
        search=(0.1, 1.0),
        log=True,
        ge=0.01,
    )
    joints_as_negatives: bool = hyper(
        False, source="GMC code: only in the unsupervised experiments are negatives joint embeddings alone"
    )
    renorm_mean: bool = hyper(
        False, source="GMC code: the mean of the embeddings of a modality subset is not scaled back to norm 1"
    )


# ---- losses: pure functions of tensors, dense masks only ------------------------------------------------------------


def geometric_contrast(joint: Tensor, single: Tensor, tau: Tensor, seen: Tensor) -> Tensor:
    """Symmetric NT-Xent over the 2B points of joint and unimodal embeddings (GMC code, supervised loss).

    Each point is drawn to its partner, the other view of the same sample, and pushed from all 2B - 2 others, those of
    its own view included.

    Args:
        joint: embeddings of norm 1 of all modalities together, (B, d).
        single: embeddings of norm 1 of each modality, (M, B, d).
        tau: temperature, scalar > 0.
        seen: samples for which both views exist, (M, B) bool.

    Returns:
        Scalar: mean over points, sum over modalities; 0 with one sample, whose only other point is its partner.
    """
    points = torch.cat([joint.expand_as(single), single], dim=1)  # (M, 2B, d)
    there = seen.repeat(1, 2)  # (M, 2B)
    among = off_diagonal(points.shape[1], points.device) & there[:, None, :]
    to_partner = ((joint * single).sum(-1) / tau).repeat(1, 2)
    lost = log_total(points @ points.mT / tau, among) - to_partner
    return ((lost * there).sum(1) / there.sum(1).clamp(min=1)).sum()


def joint_negatives_contrast(joint: Tensor, single: Tensor, tau: Tensor, seen: Tensor) -> Tensor:
    """Each modality against its joint embedding, the denominator being joint-joint similarities alone.

    GMC code, the second loss of the unsupervised experiments: the positive is not in the denominator, so the loss
    may be negative. Arguments and reduction as `geometric_contrast`; a sample with no other beside it counts 0.
    """
    among = off_diagonal(len(joint), joint.device) & seen[:, None, :]  # (M, B, B)
    lost = log_total(joint @ joint.mT / tau, among) - (joint * single).sum(-1) / tau  # (M, B)
    counts = seen & among.any(-1)
    return ((lost * counts).sum(1) / seen.sum(1).clamp(min=1)).sum()


# ---- the method -----------------------------------------------------------------------------------------------------


class GMC(Method):
    """Geometric multimodal contrast: one shared encoder, a head trained on the joint embedding only."""

    name = "gmc"
    title = "GMC"
    paper = "Geometric Multimodal Contrastive Representation Learning, ICML 2022"
    Config = GMCConfig

    config: GMCConfig
    tau: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: GMCConfig) -> None:
        super().__init__(shapes, task, config)
        d = config.latent_for(shapes)
        self.processors = nn.ModuleList(projector(shape, d, config) for shape in shapes.values())
        self.joint_processor = joint_encoder(shapes, d, config)
        self.encoder = nn.Linear(d, d)
        self.head = residual_head(d, task.width)
        self.hyper_buffers("tau")

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    def encode(self, xs: list[Tensor], noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """M inputs (B, ...), noise keys (B,) -> joint embedding (B, d) and unimodal ones (M, B, d), all of norm 1."""
        processed = [self.joint_processor(xs, noise), *(p(x) for p, x in zip(self.processors, xs, strict=True))]
        embedded = unit(self.encoder(torch.stack(processed)))  # (M+1, B, d)
        return embedded[0], embedded[1:]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`con` on all samples and `sup` on labelled ones, both only where every modality is there."""
        joint, single = self.encode(shown(batch), batch.noise)
        contrast = joint_negatives_contrast if self.config.joints_as_negatives else geometric_contrast
        whole = complete(batch)
        return {
            "con": contrast(joint, single, self.tau, present(batch) & whole),
            "sup": self.task.loss(self.head(joint), batch.target, batch.labelled & whole),
        }

    def predict(self, batch: Batch) -> Tensor:
        """The head on the joint embedding, or on the mean embedding of the modalities that are there."""
        joint, single = self.encode(shown(batch), batch.noise)
        mean = mean_available(single, batch.available)
        if self.config.renorm_mean:
            mean = unit(mean)
        whole = batch.available.all(dim=1)[:, None]
        return self.head(torch.where(whole, joint, mean))  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the joint embedding, and `z/<modality>`, all of norm 1."""
        joint, single = self.encode(shown(batch), batch.noise)
        return {"s": joint} | {f"z/{name}": z for name, z in zip(self.modalities, single, strict=True)}
