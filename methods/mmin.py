"""MMIN: imagine the embeddings of missing modalities from those that are there, and classify on the way.

Zhao, Li and Jin, "Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing Modalities",
ACL 2021. A full-modality model is trained first; its encoders, frozen, say what the embedding of a missing modality
would have been. A cascade of residual autoencoders predicts that, a second one predicts the input back (the cycle), and
the codes of the first are what the head reads. Shapes: B batch, M modalities, P missing patterns, d latent width, K
autoencoders, C code width, W task width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task
from methods.base import Method, MethodConfig, Stage, hyper
from methods.concat import ConcatNet
from methods.encoders import DropoutHead, cannot_encode, mlp
from methods.fusion import complete, present, shown
from methods.patterns import answers
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

SITE_TEACHER, SITE_HEAD = FIRST_SITE, FIRST_SITE + 2


class MMINConfig(PatternConfig, HeadConfig):
    """Hyper-parameters of MMIN; `head_dropout` is the teacher's."""

    depth: int = hyper(5, source="MMIN code, IEMOCAP", search=(3, 5), ge=1, unit="autoencoders")
    code_width: int = hyper(64, source="MMIN code: 256, 128 and 64 units, which are 4, 2 and 1 times this", ge=1)
    code_dropout: float = hyper(
        0.5, source="MMIN code, IEMOCAP: of the head on the codes", search=(0.0, 0.5), ge=0, lt=1
    )
    share_cycle: bool = hyper(
        False, source="MMIN code: one cascade both ways is an option; in the paper there are two", search=(False, True)
    )
    teacher_share: float = hyper(
        0.25, source="MMIN code: 20 epochs of the full-modality model, 60 of MMIN", gt=0, lt=1, unit="of the epochs"
    )
    lambda_imagine: float = hyper(
        4.0, source="MMIN code, IEMOCAP; 1 is its default", search=(0.1, 10.0), log=True, ge=0
    )
    lambda_cycle: float = hyper(2.0, source="MMIN code, IEMOCAP; 1 is its default", search=(0.1, 10.0), log=True, ge=0)


class Imagination(nn.Module):
    """A cascade and two closing layers: (..., D) -> imagined (..., D) and the codes (..., K C) (MMIN code)."""

    def __init__(self, features: int, widths: list[int], depth: int) -> None:
        super().__init__()
        self.cascade = Cascade(features, widths, depth)
        self.transition = mlp(features, features, features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        refined, codes = self.cascade(x)
        return self.transition(refined), codes


class MMIN(Method):
    """A full-modality teacher, an imagination of what is missing, a cycle back, and a head on the codes."""

    name = "mmin"
    title = "MMIN"
    paper = "Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing Modalities, ACL 2021"
    Config = MMINConfig

    config: MMINConfig
    patterns: Tensor
    lambda_imagine: Tensor
    lambda_cycle: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: MMINConfig) -> None:
        super().__init__(shapes, task, config)
        d, code = config.latent_for(shapes), config.code_width
        width, widths = len(shapes) * d, [4 * code, 2 * code, code]
        self.teacher = ConcatNet(shapes, task, config, SITE_TEACHER)
        self.f = ModalityEncoders(shapes, d, config)
        self.imagine = Imagination(width, widths, config.depth)
        if not config.share_cycle:
            self.cycle = Imagination(width, widths, config.depth)
        self.head = DropoutHead(config.depth * code, config.head_width, task.width, config.code_dropout, SITE_HEAD)
        self.register_buffer("patterns", training_patterns(len(shapes), config), persistent=False)
        self.hyper_buffers("lambda_imagine", "lambda_cycle")

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    # ---- stages -------------------------------------------------------------------------------------------

    def stages(self) -> tuple[Stage, ...]:
        """The full-modality teacher, then the student, whose encoders start as the teacher's."""
        share, student = self.config.teacher_share, ["f", "imagine", "head"]
        student += [] if self.config.share_cycle else ["cycle"]
        return (Stage("teacher", share, ("teacher",)), Stage("student", 1 - share, tuple(student)))

    def enter(self, train: Batch) -> None:
        """Before the student: copy the teacher's encoders."""
        if self.stage == "student":
            self.f.load_state_dict(self.teacher.f.state_dict())

    @property
    def needs_labels(self) -> bool:
        return self.stage == "teacher" or (self.config.lambda_imagine == 0 and self.config.lambda_cycle == 0)

    def untrained(self) -> tuple[str, ...]:
        """Without the error of the imagination and of the cycle nothing reads what is imagined, only the codes."""
        config, names = self.config, []
        if config.lambda_cycle == 0 and not config.share_cycle:
            names.append("cycle")
        if config.lambda_cycle == 0 and config.lambda_imagine == 0:
            names += ["imagine.transition", f"imagine.cascade.blocks.{config.depth - 1}.decoder"]
        return tuple(names)

    # ---- imagination --------------------------------------------------------------------------------------

    def back(self, imagined: Tensor) -> Tensor:
        """The cycle: what was there, from what was imagined, (..., M d) -> (..., M d)."""
        network = self.imagine if self.config.share_cycle else self.cycle
        return network(imagined)[0]  # type: ignore[no-any-return]

    @torch.no_grad()
    def target(self, xs: list[Tensor], chosen: Tensor) -> Tensor:
        """What is to be imagined: the teacher's embedding of what is missing, and of zeros for what is there.

        MMIN code: the teacher reads the complement of what the student reads.

        Args:
            xs: M inputs (B, ...).
            chosen: what is there, (P, B, M) bool.

        Returns:
            (P, B, M, d).
        """
        return embedded_under(~chosen, *self.teacher.f(xs))

    # ---- the interface ------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`teacher` in its stage; then `sup` on labelled samples, `imagine` and `cycle` on all."""
        if self.stage == "teacher":
            output = self.teacher(shown(batch), batch.noise)
            return {"teacher": self.task.loss(output, batch.target, batch.labelled & complete(batch))}
        xs = shown(batch)
        chosen, counts = choose_patterns(self.patterns, batch, self.config.patterns, self.training)
        h = embedded_under(chosen, *self.f(xs))  # (P, B, M, d)
        imagined, codes = self.imagine(h.flatten(2))
        weight = pattern_weights(counts & batch.valid)
        # Where a sample lacks a modality for good, there is nothing to compare what is imagined with.
        missed = restoration_error(imagined.reshape(h.shape), self.target(xs, chosen), batch.available, weight)
        returned = restoration_error(self.back(imagined).reshape(h.shape), h.detach(), torch.ones_like(chosen), weight)
        outputs = answers(self.head, codes, batch.noise, SITE_KEYS)
        return {
            "sup": pattern_loss(self.task, outputs, counts, batch),
            "imagine": self.lambda_imagine * missed,
            "cycle": self.lambda_cycle * returned,
        }

    def predict(self, batch: Batch) -> Tensor:
        """The head on the codes; in its stage, the teacher with zeros for what is missing."""
        if self.stage == "teacher":
            return self.teacher(shown(batch), batch.noise)  # type: ignore[no-any-return]
        codes = self.imagine(self.f(shown(batch))[0].flatten(1))[1]
        return self.head(codes, batch.noise)  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the codes, which the head reads; `z/<modality>`, its embedding, that of zeros where it is missing."""
        if self.stage == "teacher":
            return self.teacher.embed(batch)
        h, _ = self.f(shown(batch))
        codes = self.imagine(h.flatten(1))[1]
        return {"s": codes} | {f"z/{name}": h[:, i] for i, name in enumerate(self.modalities)}

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Whether anything is imagined, and whether the way back is found.

        `imagination/<modality>` is the error of its embedding imagined from the others, `cycle` that of the embeddings
        imagined back, both over the variance of what they should be across samples: 1 is what its mean gives.
        """
        if self.stage == "teacher":
            return {}
        xs = shown(batch)
        h, zero = self.f(xs)
        told = {}
        for i, name in enumerate(self.modalities if len(self.modalities) > 1 else ()):
            others = batch.available & (torch.arange(len(self.modalities), device=h.device) != i)
            start = embedded_under(others[None], h, zero)[0]
            imagined = self.imagine(start.flatten(1))[0].reshape(h.shape)
            target = self.target(xs, others[None])[0]
            rows = present(batch)[i] & others.any(1)
            told[f"imagination/{name}"] = relative_error(imagined[:, i], target[:, i], rows)
        returned = self.back(self.imagine(h.flatten(1))[0])
        return told | {"cycle": relative_error(returned, h.flatten(1), batch.valid)}
