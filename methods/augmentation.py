"""Augmentation: Concat Fusion, trained on every missing pattern with zeros in place of what is missing.

The second baseline of RAML ("Redundancy-Adaptive Multimodal Learning for Imperfect Data"); the MMIN code (ACL 2021)
has it as well, with one incomplete pattern drawn for each sample. Shapes: B batch, M modalities, P missing patterns.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task
from methods.base import Method, MethodConfig
from methods.concat import ConcatNet
from methods.encoders import cannot_encode
from methods.fusion import shown
from methods.patterns import answers
from methods.zero_inputs import (
    SITE_KEYS,
    HeadConfig,
    PatternConfig,
    choose_patterns,
    embedded_under,
    pattern_loss,
    training_patterns,
)


class AugmentationConfig(PatternConfig, HeadConfig):
    """Hyper-parameters of Augmentation."""


class Augmentation(Method):
    """Concatenated embeddings under all missing patterns."""

    name = "augmentation"
    title = "Augmentation"
    paper = "Redundancy-Adaptive Multimodal Learning for Imperfect Data, section IV (baseline)"
    Config = AugmentationConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"mmin": {"patterns": "sample", "full_pattern": False}}
    needs_labels = True

    config: AugmentationConfig
    patterns: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: AugmentationConfig) -> None:
        super().__init__(shapes, task, config)
        self.net = ConcatNet(shapes, task, config)
        self.register_buffer("patterns", training_patterns(len(shapes), config), persistent=False)

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`sup`, the task's loss, averaged over the missing patterns of each sample."""
        chosen, counts = choose_patterns(self.patterns, batch, self.config.patterns, self.training)
        h = embedded_under(chosen, *self.net.f(shown(batch)))  # (P, B, M, d)
        return {
            "sup": pattern_loss(self.task, answers(self.net.head, h.flatten(2), batch.noise, SITE_KEYS), counts, batch)
        }

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
