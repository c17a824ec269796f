"""Missing modalities as zero inputs: how RAML runs the baselines it compares with, and what they share for it.

"Redundancy-Adaptive Multimodal Learning for Imperfect Data", III-C and IV-A: a missing modality is an input of zeros,
read by its encoder like any other, and training shows every sample in all 2^M - 1 missing patterns. An encoder sees no
modality but its own, so it runs once on what is there and once on zeros, whatever the number of patterns.
Shapes: B batch, M modalities, P missing patterns, d latent width, W task width.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from datasets.batch import Batch
from datasets.tasks import Task, masked_mean
from methods.base import hyper
from methods.encoders import Conditioned, EncoderConfig, projector
from methods.noise import split, uniform
from methods.patterns import mean_over_patterns, missing_patterns, possible, sample_losses

SITE_PATTERN, SITE_KEYS = 0, 1
"""Where noise is drawn: the pattern of each sample, and a key for each sample under each pattern."""
FIRST_SITE = 2
"""Methods number their own sites from here."""

PatternChoice = Literal["enumerate", "sample"]


class HeadConfig(EncoderConfig):
    """What methods with the two-layer head of MMIN's code declare."""

    head_width: int = hyper(128, source="MMIN code: both hidden layers", ge=1)
    head_dropout: float = hyper(0.3, source="MMIN code, its full-modality model", search=(0.0, 0.5), ge=0, lt=1)


class PatternConfig(EncoderConfig):
    """What methods trained on missing patterns declare."""

    patterns: PatternChoice = hyper(
        "enumerate",
        source="RAML, III-C shows all missing patterns, but not how often: the mean over all of them in every step, "
        "which has no variance; sample: one a sample and step, drawn evenly (MMIN code); the same on average, and with "
        "many modalities far cheaper",
    )
    full_pattern: bool = hyper(
        True, source="RAML, III-C: the full set is one of the patterns; False: the MMIN code trains on the others alone"
    )
    max_patterns: int = hyper(
        63,
        source="RAML, III-C: all 2^M - 1; our choice: all of six modalities, of more a fixed sample that holds the "
        "full set and every single one",
        ge=1,
    )


def training_patterns(modalities: int, config: PatternConfig) -> Tensor:
    """The patterns a Config trains on, (P, M) bool; with one modality there is none but the full set."""
    patterns = missing_patterns(modalities, config.max_patterns)
    return patterns if config.full_pattern or modalities == 1 else patterns[1:]


def choose_patterns(patterns: Tensor, batch: Batch, how: PatternChoice, training: bool) -> tuple[Tensor, Tensor]:
    """What each sample shows under each pattern it is trained in, and which of these count.

    Only patterns within what a sample has are used, so that none of them shows nothing. Evaluation enumerates.

    Args:
        patterns: (P, M) bool.
        training: whether noise may be drawn.

    Returns:
        What is shown, (P, B, M) bool, and what counts, (P, B) bool; with `sample` P is 1.
    """
    fits = possible(patterns, batch.available)  # (P, B)
    if how == "enumerate" or not training:
        return patterns[:, None, :] & fits[..., None], fits
    nth = (uniform(batch.noise, SITE_PATTERN) * fits.sum(0)).long()
    chosen = fits & (fits.cumsum(0) - 1 == nth)
    return (patterns[:, None, :] & chosen[..., None]).any(0, keepdim=True), fits.any(0, keepdim=True)


class ModalityEncoders(nn.Module):
    """f_m of every modality, and what each makes of an input of zeros."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], latent: int, config: EncoderConfig) -> None:
        super().__init__()
        self.each = nn.ModuleList(projector(shape, latent, config) for shape in shapes.values())

    def forward(self, xs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """M inputs (B, ...) -> embeddings (B, M, d), and those of zero inputs (M, d)."""
        conditioned = [x for x in xs if isinstance(x, Conditioned)]
        if len(conditioned) == len(xs):
            zeros = [f(x.zero())[0] for f, x in zip(self.each, conditioned, strict=True)]
            return torch.stack([f(x) for f, x in zip(self.each, xs, strict=True)], dim=1), torch.stack(zeros)
        with_zeros = [torch.cat([x, torch.zeros_like(x[:1])]) for x in xs]
        h = torch.stack([f(x) for f, x in zip(self.each, with_zeros, strict=True)], dim=1)
        return h[:-1], h[-1]


def embedded_under(chosen: Tensor, h: Tensor, zero: Tensor) -> Tensor:
    """Embeddings of inputs that are zero where not chosen.

    Args:
        chosen: (P, B, M) bool.
        h: embeddings of the inputs as they are, (B, M, d).
        zero: embeddings of zero inputs, (M, d), or zeros to hide the embedding itself.

    Returns:
        (P, B, M, d).
    """
    return torch.where(chosen[..., None], h, zero)


def pattern_keys(noise: Tensor, patterns: int) -> Tensor:
    """Noise keys of the samples under every pattern, (B,) -> (P B,)."""
    return split(noise, SITE_KEYS, patterns).flatten()


def pattern_loss(task: Task, outputs: Tensor, counts: Tensor, batch: Batch) -> Tensor:
    """The task's loss averaged over each sample's patterns, then over the labelled samples, scalar.

    Args:
        outputs: (P, B, W).
        counts: which patterns count for a sample, (P, B) bool.
    """
    return masked_mean(mean_over_patterns(sample_losses(task, outputs, batch.target), counts), batch.labelled)


def pattern_weights(counts: Tensor) -> Tensor:
    """Equal weights of the patterns that count for a sample, with the sum 1, or 0 where none does: (P, B) -> (P, B)."""
    return counts / counts.sum(0).clamp(min=1)


def relative_error(estimate: Tensor, target: Tensor, rows: Tensor) -> Tensor:
    """Squared error over the target's variance across the samples, scalar: 1 is what guessing their mean gives.

    Args:
        estimate: (B, d).
        target: (B, d).
        rows: samples that count, (B,) bool.
    """
    weight = rows[:, None] / rows.sum().clamp(min=1)  # (B, 1)
    variance = ((target - (target * weight).sum(0)).square() * weight).sum()
    return ((estimate - target).square() * weight).sum() / variance.clamp(min=1e-12)


def restoration_error(estimate: Tensor, target: Tensor, entries: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error over the entries that count, scalar; 0 where none does.

    Args:
        estimate: (P, B, M, d).
        target: broadcastable to it.
        entries: broadcastable to (P, B, M) bool.
        weight: of every pattern of every sample, (P, B); see `pattern_weights`.
    """
    counts = weight[..., None] * entries  # (P, B, M)
    error = (estimate - target).square().mean(-1)
    return (error * counts).sum() / counts.sum().clamp(min=1e-6)
