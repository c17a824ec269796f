"""CRA: restore what is missing by a chain of residual autoencoders, then classify what was there and what was restored.

Tran et al., "Missing Modalities Imputation via Cascaded Residual Autoencoder", CVPR 2017. The original restores raw
inputs by convolutions and trains a classifier afterwards; among RAML's baselines it works on the embeddings of the
modalities, with everything trained together. What that leaves open is a switch of the Config.
Shapes: B batch, M modalities, P missing patterns, K autoencoders, d latent width, W task width.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task, masked_mean
from methods.base import Method, MethodConfig, Stage, hyper
from methods.encoders import DropoutHead, cannot_encode
from methods.fusion import complete, present, shown
from methods.patterns import answers, mean_over_patterns
from methods.residual_autoencoder import Cascade
from methods.zero_inputs import (
    FIRST_SITE,
    SITE_KEYS,
    HeadConfig,
    ModalityEncoders,
    PatternConfig,
    choose_patterns,
    embedded_under,
    pattern_loss,
    pattern_weights,
    relative_error,
    restoration_error,
    training_patterns,
)

CLASSIFIER_SHARE, FINE_TUNING_SHARE = 0.2, 0.5
"""Shares of the stages of `greedy`. The CRA code pre-trains each of three autoencoders for 40,000 steps and fine-tunes
for up to 200,000; the encoders and the head, which it does not have, get a fifth of the epochs before that."""


class CRAConfig(PatternConfig, HeadConfig):
    """Hyper-parameters of CRA."""

    depth: int = hyper(3, source="CRA code: K = 3; MMIN code: 5", search=(1, 5), ge=1, unit="autoencoders")
    code_width: int = hyper(
        64,
        source="not given for embeddings: our choice: the 256, 128, 64 units of the MMIN code, here 4, 2 and 1 times",
        ge=1,
    )
    missing_as: Literal["zero_embedding", "zero_input"] = hyper(
        "zero_embedding",
        source="CRA: the cascade starts from zeros where something is missing, here of the embedding; zero_input: from "
        "what the encoder makes of zeros, RAML's rule for inputs",
    )
    restored: Literal["all", "missing"] = hyper(
        "all", source="CRA code: the error counts all entries; missing: those alone that were hidden"
    )
    reduction: Literal["mean", "half_sum"] = hyper(
        "mean", source="our choice, so that the weight does not depend on the width; half_sum: CRA code, 1/(2N) sum"
    )
    whole_loss: bool = hyper(
        True,
        source="not given: our choice: the head reads complete embeddings too, in a term of its own, which keeps the "
        "embeddings from collapsing to what is easily restored",
    )
    schedule: Literal["joint", "greedy"] = hyper(
        "joint",
        source="our choice for embeddings, all at once; greedy: the CRA code trains the autoencoders one after the "
        "other, those before frozen, then all together; here after the encoders and the head",
    )
    lambda_rec: float = hyper(1.0, source="not given: our choice", search=(0.1, 10.0), log=True, ge=0)


def half_squared_error(estimate: Tensor, target: Tensor, entries: Tensor, counts: Tensor, valid: Tensor) -> Tensor:
    """1/(2N) sum of squared errors, the Euclidean loss of the CRA code, averaged over the patterns of each sample.

    Args:
        estimate: (P, B, M, d).
        target: (B, M, d).
        entries: which count, broadcastable to (P, B, M) bool.
        counts: which patterns count for a sample, (P, B) bool.
        valid: samples that count, (B,) bool.
    """
    error = ((estimate - target).square().sum(-1) * entries).sum(-1)  # (P, B)
    return masked_mean(mean_over_patterns(0.5 * error, counts), valid)


class CRA(Method):
    """Embeddings of missing modalities restored by a cascade, and a head on the completed set."""

    name = "cra"
    title = "CRA"
    paper = "Missing Modalities Imputation via Cascaded Residual Autoencoder, CVPR 2017"
    Config = CRAConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"greedy": {"schedule": "greedy"}}

    config: CRAConfig
    patterns: Tensor
    lambda_rec: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: CRAConfig) -> None:
        super().__init__(shapes, task, config)
        d = config.latent_for(shapes)
        width = len(shapes) * d
        self.f = ModalityEncoders(shapes, d, config)
        self.cascade = Cascade(width, [4 * config.code_width, 2 * config.code_width, config.code_width], config.depth)
        self.head = DropoutHead(width, config.head_width, task.width, config.head_dropout, FIRST_SITE)
        self.register_buffer("patterns", training_patterns(len(shapes), config), persistent=False)
        self.hyper_buffers("lambda_rec")

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    # ---- stages -------------------------------------------------------------------------------------------

    def stages(self) -> tuple[Stage, ...]:
        """One, or with `greedy` the encoders and the head, each autoencoder in turn, and all together."""
        if self.config.schedule == "joint":
            return (Stage("together"),)
        depth = self.config.depth
        share = (1 - CLASSIFIER_SHARE - FINE_TUNING_SHARE) / depth
        blocks = [Stage(f"block_{k + 1}", share, (f"cascade.blocks.{k}",)) for k in range(depth)]
        first, last = Stage("classifier", CLASSIFIER_SHARE, ("f", "head")), Stage("together", FINE_TUNING_SHARE)
        return (first, *blocks, last)

    @property
    def depth(self) -> int:
        """How many autoencoders the current stage runs through."""
        if self.stage == "together":
            return self.config.depth
        return 0 if self.stage == "classifier" else int(self.stage.removeprefix("block_"))

    @property
    def restores(self) -> bool:
        """Whether the restoration error teaches: with one modality nothing is ever missing."""
        return self.config.lambda_rec > 0 and (len(self.modalities) > 1 or self.config.restored == "all")

    @property
    def needs_labels(self) -> bool:
        return self.stage == "classifier" or not self.restores

    def untrained(self) -> tuple[str, ...]:
        return () if self.restores or len(self.modalities) > 1 else ("cascade",)

    # ---- restoration --------------------------------------------------------------------------------------

    def restore(self, chosen: Tensor, h: Tensor, zero: Tensor) -> Tensor:
        """x_K, every embedding as the cascade has it, under every pattern.

        Args:
            chosen: what is there, (P, B, M) bool.
            h: embeddings, (B, M, d).
            zero: those of zero inputs, (M, d).

        Returns:
            (P, B, M, d).
        """
        blank = zero if self.config.missing_as == "zero_input" else torch.zeros_like(zero)
        start = embedded_under(chosen, h, blank)
        return self.cascade(start.flatten(2), self.depth)[0].reshape(start.shape)  # type: ignore[no-any-return]

    def completed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embeddings with what is missing restored, and without, each (B, M, d)."""
        h, zero = self.f(shown(batch))
        there = batch.available[None]
        return torch.where(there[..., None], h, self.restore(there, h, zero))[0], h

    # ---- the interface ------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`sup` on restored sets, `rec` on all samples, `whole` on complete ones; of these what the stage trains."""
        config, stage = self.config, self.stage
        h, zero = self.f(shown(batch))
        terms = {}
        if stage == "classifier" or (stage == "together" and config.whole_loss):
            output = self.head(h.flatten(1), batch.noise)
            terms["whole"] = self.task.loss(output, batch.target, batch.labelled & complete(batch))
        if stage == "classifier":
            return terms
        chosen, counts = choose_patterns(self.patterns, batch, config.patterns, self.training)
        restored = self.restore(chosen, h, zero)
        terms["rec"] = self.lambda_rec * self.restoration_loss(restored, h.detach(), chosen, counts, batch)
        if stage == "together":
            completed = torch.where(chosen[..., None], h, restored).flatten(2)
            outputs = answers(self.head, completed, batch.noise, SITE_KEYS)
            terms["sup"] = pattern_loss(self.task, outputs, counts, batch)
        return terms

    def restoration_loss(
        self, restored: Tensor, target: Tensor, chosen: Tensor, counts: Tensor, batch: Batch
    ) -> Tensor:
        """Error of x_K, (P, B, M, d), where a sample has the modality, so that there is a target (B, M, d)."""
        entries = batch.available if self.config.restored == "all" else batch.available & ~chosen
        if self.config.reduction == "half_sum":
            return half_squared_error(restored, target, entries, counts, batch.valid)
        return restoration_error(restored, target, entries, pattern_weights(counts & batch.valid))

    def predict(self, batch: Batch) -> Tensor:
        """The head on what is there and what is restored."""
        return self.head(self.completed(batch)[0].flatten(1), batch.noise)  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the completed set side by side, which the head reads; `z/<modality>`, its embedding, unrestored."""
        completed, h = self.completed(batch)
        return {"s": completed.flatten(1)} | {f"z/{name}": h[:, i] for i, name in enumerate(self.modalities)}

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Whether the cascade restores anything.

        `restoration/<modality>` is the error of its embedding when it alone is hidden, over the embedding's variance
        across samples: 1 is what the mean embedding gives.
        """
        h, zero = self.f(shown(batch))
        told = {}
        for i, name in enumerate(self.modalities if len(self.modalities) > 1 else ()):
            others = batch.available & (torch.arange(len(self.modalities), device=h.device) != i)
            restored = self.restore(others[None], h, zero)[0, :, i]
            told[f"restoration/{name}"] = relative_error(restored, h[:, i], present(batch)[i] & others.any(1))
        return told
