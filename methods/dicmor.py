"""DiCMoR: a flow for each modality into one latent space, through which a missing modality is recovered from others.

Wang, Cui and Li, "Distribution-Consistent Modal Recovering for Incomplete Multimodal Learning", ICCV 2023, on one
embedding a modality. Every class has one Gaussian in the latent space, shared by all modalities; a latent of what is
there goes through the inverse flow of what is missing, and a network rebuilds the embedding. Where the original
predicts with cross-modal transformers over time, a head reads the embeddings side by side.
Shapes: B batch, M modalities, P missing patterns, G class priors, d latent width, W task width.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import MultiClass, MultiLabel, Regression, Task, masked_mean
from methods.base import Method, MethodConfig, Stage, hyper
from methods.encoders import DropoutHead, EncoderConfig, Residual, cannot_encode, projector
from methods.flow import Flow
from methods.fusion import complete, present, shown
from methods.patterns import answers, mean_over_patterns, missing_patterns, possible, sample_losses

LOG_SIGMA_BOUND = 5.0
"""Largest log standard deviation of a class prior either way."""
SITE_HEAD = 0


class DiCMoRConfig(EncoderConfig):
    """Hyper-parameters of DiCMoR."""

    reference_coupling: bool = hyper(
        False,
        source="DiCMoR code mixes or swaps no features between couplings, so that half of them pass all unchanged "
        "(True); our choice: the halves take turns, as the flow it builds on does in effect",
        search=(False, True),
    )
    flow_steps: int = hyper(
        8, source="DiCMoR code: 32 on 46 time steps; our choice on one embedding", search=(4, 32), log=True, ge=1
    )
    flow_hidden: int = hyper(64, source="DiCMoR code", ge=1)
    rebuild_blocks: int = hyper(
        2,
        source="DiCMoR code: 20 blocks of channel attention over time; our choice on one embedding: residual blocks",
        ge=1,
    )
    lambda_prior: float = hyper(0.1, source="DiCMoR code", search=(0.01, 1.0), log=True, gt=0)
    lambda_rebuild: float = hyper(0.1, source="DiCMoR code", search=(0.01, 1.0), log=True, ge=0)
    unlabelled_prior: Literal["mixture", "none"] = hyper(
        "mixture",
        source="Robult, D.3 adjusts DiCMoR to few labels and does not say how: our choice, flows learn from unlabelled "
        "samples by the mixture of the class priors; 'none': from labelled ones alone",
    )
    multilabel_prior: Literal["shared", "sum"] = hyper(
        "shared",
        source="not given, as DiCMoR has one class a sample: our choice, one prior for all; 'sum': its mean and log "
        "standard deviation are sums over a sample's labels, and unlabelled samples teach the flows nothing",
    )
    complete_share: float = hyper(
        0.5,
        source="DiCMoR code starts from models trained on complete data, for how long is not said: our choice of the "
        "share of epochs; 0: one stage with everything",
        ge=0,
        lt=1,
        unit="share of the epochs on complete data",
    )
    freeze_encoders: bool = hyper(
        False,
        source="DiCMoR code keeps its encoders at the values from complete data; our choice: the task goes on training "
        "them, and neither flow nor recovery ever does",
        search=(False, True),
    )
    head_dropout: float = hyper(
        0.3, source="MMIN code, the classifier of RAML's baselines", search=(0.0, 0.5), ge=0, lt=1
    )
    max_patterns: int = hyper(
        63,
        source="RAML, III-C: all 2^M - 1 missing patterns, here all for each batch (DiCMoR code: one, by a fixed "
        "schedule); our choice: all of six modalities, of more a fixed sample with the full set and every single one",
        ge=1,
    )

    @model_validator(mode="after")
    def _frozen_after_something(self) -> Self:
        if self.freeze_encoders and not self.complete_share:
            raise ValueError("freeze_encoders needs a stage on complete data before: complete_share must be above 0.")
        return self


# ---- class priors ---------------------------------------------------------------------------------------------------


def prior_count(task: Task, config: DiCMoRConfig) -> int:
    """G: classes, levels of a value, or with many labels one prior, or one summand for each label and one for all."""
    if isinstance(task, MultiLabel):
        return 1 if config.multilabel_prior == "shared" else 1 + task.n_labels
    if isinstance(task, Regression):
        return task.n_groups
    return task.width


def prior_membership(task: Task, config: DiCMoRConfig, target: Tensor) -> Tensor:
    """Which priors a target adds up, (B,) or (B, C) -> (B, G)."""
    if isinstance(task, MultiLabel):
        base = torch.ones_like(target[:, :1])
        return base if config.multilabel_prior == "shared" else torch.cat([base, target], dim=1)
    group = target if isinstance(task, MultiClass) else task.groups(target)
    return (group[:, None] == torch.arange(prior_count(task, config), device=target.device)).float()


def log_density(z: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log N(z; mean, sigma^2), summed over features, (..., d) -> (...)."""
    log_sigma = log_sigma.clamp(-LOG_SIGMA_BOUND, LOG_SIGMA_BOUND)
    return (-0.5 * ((z - mean) * (-log_sigma).exp()).square() - log_sigma - 0.5 * math.log(2 * math.pi)).sum(-1)


def bits_per_dimension(log_likelihood: Tensor, dimensions: int) -> Tensor:
    """Negative log-likelihood in bits a dimension."""
    return -log_likelihood / (math.log(2) * dimensions)


# ---- the method -----------------------------------------------------------------------------------------------------


class Latents(NamedTuple):
    """What the flows say of a batch."""

    z: Tensor
    """(M, B, d)."""
    log_determinant: Tensor
    """(M, B)."""


class DiCMoR(Method):
    """A flow and a rebuilding network for each modality, class priors that all flows share, one head."""

    name = "dicmor"
    title = "DiCMoR"
    paper = "Distribution-Consistent Modal Recovering for Incomplete Multimodal Learning, ICCV 2023"
    Config = DiCMoRConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference_coupling": {"reference_coupling": True},
        "one_stage": {"complete_share": 0.0},
        "frozen_encoders": {"freeze_encoders": True},
    }

    config: DiCMoRConfig
    lambda_prior: Tensor
    lambda_rebuild: Tensor
    subsets: Tensor
    log_share: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: DiCMoRConfig) -> None:
        super().__init__(shapes, task, config)
        d, count = config.latent_for(shapes), prior_count(task, config)
        self.f = nn.ModuleList(projector(shape, d, config) for shape in shapes.values())
        self.flows = nn.ModuleList(
            Flow(d, config.flow_hidden, config.flow_steps, not config.reference_coupling) for _ in shapes
        )
        self.rebuild = nn.ModuleList(
            nn.Sequential(*(Residual(d) for _ in range(config.rebuild_blocks))) for _ in shapes
        )
        self.prior = nn.Parameter(torch.zeros(count, 2, d))  # mean and log sigma: standard normal at first
        self.head = DropoutHead(len(shapes) * d, d, task.width, config.head_dropout, site=0)
        self.register_buffer("log_share", torch.full((count,), -math.log(count)))
        self.register_buffer("subsets", missing_patterns(len(shapes), config.max_patterns), persistent=False)
        self.hyper_buffers("lambda_prior", "lambda_rebuild")

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        width = config.latent_for(spec.modalities) if isinstance(config, DiCMoRConfig) else 2
        if width < 2:
            return "cannot split a latent of width 1 in halves: latent must be 2 or more"
        return cannot_encode(spec.modalities, config)

    def stages(self) -> tuple[Stage, ...]:
        """Complete data first, then missing modalities, with an optimiser of its own."""
        config = self.config
        moving = ("flows", "rebuild", "prior", "head") if config.freeze_encoders else ()
        if not config.complete_share:
            return (Stage("recovery"),)
        return (Stage("complete", config.complete_share), Stage("recovery", 1 - config.complete_share, moving))

    def untrained(self) -> tuple[str, ...]:
        """With one modality there is never anything to recover from."""
        return ("rebuild",) if len(self.modalities) == 1 else ()

    def enter(self, train: Batch) -> None:
        """How often each prior's class occurs among the labelled samples, one more of each added."""
        member = prior_membership(self.task, self.config, train.target)
        count = (member * train.labelled[:, None]).sum(0) + 1
        self.log_share.copy_((count / count.sum()).log())

    # ---- density ------------------------------------------------------------------------------------------

    def flow(self, h: Tensor) -> Latents:
        """Every embedding through its flow, (M, B, d); the flows' losses do not move the encoders."""
        z, log_determinant = zip(*(flow(x) for flow, x in zip(self.flows, h.detach(), strict=True)), strict=True)
        return Latents(torch.stack(z), torch.stack(log_determinant))

    def log_prior(self, z: Tensor, batch: Batch) -> Tensor:
        """log p(z) under the prior of a sample's class, where that is hidden under the mixture, (M, B, d) -> (M, B)."""
        if self.prior.shape[0] == 1:
            return log_density(z, *self.prior[0])
        member = prior_membership(self.task, self.config, batch.target)  # (B, G)
        chosen = torch.einsum("bg,gkd->kbd", member, self.prior)
        labelled = log_density(z, *chosen)
        if not self.has_mixture:
            return labelled
        each = log_density(z[..., None, :], *self.prior.unbind(1))  # (M, B, G)
        return torch.where(batch.labelled, labelled, (each + self.log_share).logsumexp(-1))

    @property
    def has_mixture(self) -> bool:
        """Whether a sample without its label has a density."""
        config, summed = self.config, isinstance(self.task, MultiLabel) and self.config.multilabel_prior == "sum"
        return config.unlabelled_prior == "mixture" and not summed

    @property
    def needs_labels(self) -> bool:
        """Flows learn from unlabelled samples where those have a density; so does recovery, after complete data."""
        recovers = self.config.lambda_rebuild > 0 and len(self.modalities) > 1
        return not self.has_mixture and not (recovers and self.stage == "recovery")

    def prior_loss(self, latents: Latents, batch: Batch) -> Tensor:
        """Sum over modalities of bits a dimension, each at least 0 (DiCMoR code)."""
        log_likelihood = self.log_prior(latents.z, batch) + latents.log_determinant
        there = present(batch) if self.has_mixture else present(batch) & batch.labelled
        bits = bits_per_dimension(log_likelihood, latents.z.shape[-1])
        return ((bits * there).sum(1) / there.sum(1).clamp(min=1)).clamp(min=0).sum()

    # ---- recovery -----------------------------------------------------------------------------------------

    def recovered(self, z: Tensor, among: Tensor) -> Tensor:
        """Every modality rebuilt from the latents of others: mean of inverse flows, then a network (DiCMoR code).

        Args:
            z: (M, B, d).
            among: whose latents are there, (P, M, B) bool.

        Returns:
            (P, M, B, d). The inverse flows' outputs are constants, so that only the rebuilding networks learn.
        """
        weight = among / among.sum(1, keepdim=True).clamp(min=1)  # (P, M, B)
        with torch.no_grad():
            carried = [torch.einsum("pkb,kbd->pbd", weight, flow.inverse(z)) for flow in self.flows]  # type: ignore[operator]
        return torch.stack([rebuild(x) for rebuild, x in zip(self.rebuild, carried, strict=True)], dim=1)

    def completed(self, h: Tensor, restored: Tensor, among: Tensor) -> Tensor:
        """Embeddings of what is there, recovered ones for the rest, side by side, (P, B, M d)."""
        slots = torch.where(among[..., None], h, restored)  # (P, M, B, d)
        return slots.transpose(1, 2).flatten(2)

    # ---- loss ---------------------------------------------------------------------------------------------

    def encode(self, xs: list[Tensor]) -> Tensor:
        """M inputs (B, ...) -> (M, B, d)."""
        return torch.stack([f(x) for f, x in zip(self.f, xs, strict=True)])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`prior` of what is there, `sup` and `rebuild` under the missing patterns; on complete data no `rebuild`."""
        h, there = self.encode(shown(batch)), present(batch)
        latents = self.flow(h)
        terms = {"prior": self.lambda_prior * self.prior_loss(latents, batch)}
        if self.stage == "complete":
            outputs = self.head(h.transpose(0, 1).flatten(1), batch.noise)
            return terms | {"sup": self.task.loss(outputs, batch.target, batch.labelled & complete(batch))}
        among, fits = self.shown_patterns(batch)
        restored = self.recovered(latents.z, among)
        outputs = answers(self.head, self.completed(h, restored, among), batch.noise, SITE_HEAD)
        lost = mean_over_patterns(sample_losses(self.task, outputs, batch.target), fits)
        return terms | {
            "rebuild": self.lambda_rebuild * self.rebuild_loss(restored, h.detach(), there & ~among, fits),
            "sup": masked_mean(lost, batch.labelled),
        }

    def shown_patterns(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What each sample is shown under each pattern, (P, M, B), and which patterns it can be shown in, (P, B)."""
        fits = possible(self.subsets, present(batch).T)
        return self.subsets[:, :, None] & fits[:, None], fits

    def rebuild_loss(self, restored: Tensor, target: Tensor, dropped: Tensor, fits: Tensor) -> Tensor:
        """Squared error of the dropped modalities, their mean in a pattern, patterns' mean, scalar (DiCMoR code).

        Args:
            restored: (P, M, B, d).
            target: (M, B, d), without gradient.
            dropped: there in the data and not in the pattern, (P, M, B) bool.
            fits: (P, B) bool.
        """
        error = (restored - target).square().mean(-1) * dropped
        each = error.sum(1) / dropped.sum(1).clamp(min=1)  # (P, B)
        return masked_mean(mean_over_patterns(each, fits), fits.any(0))

    # ---- inference ----------------------------------------------------------------------------------------

    def restore(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Slots that the head reads, (B, M d), and the recovered modalities, (M, B, d), from what is available."""
        h, among = self.encode(shown(batch)), batch.available.T[None]
        restored = self.recovered(self.flow(h).z, among)
        return self.completed(h, restored, among)[0], restored[0]

    def predict(self, batch: Batch) -> Tensor:
        """The head on the embeddings that are there and on the recovered ones."""
        return self.head(self.restore(batch)[0], batch.noise)  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the completed slots side by side; `z/<modality>`, its slot; `u/<modality>`, its latent in the flow."""
        slots, latents = self.restore(batch)[0], self.flow(self.encode(shown(batch))).z
        named = {"s": slots}
        for i, (name, slot) in enumerate(zip(self.modalities, slots.chunk(len(self.modalities), dim=1), strict=True)):
            named |= {f"z/{name}": slot, f"u/{name}": latents[i]}
        return named

    # ---- diagnostics --------------------------------------------------------------------------------------

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Whether flows fit and recovery says anything.

        For each modality: `bits`, its negative log-likelihood in bits a dimension (at 0 the loss lets go of it);
        `log_determinant` a dimension (strongly negative: the flow only contracts); `rebuild`, the squared error of
        recovering it from all others over the variance of its embeddings (near 1: as good as their mean).
        """
        h, there = self.encode(shown(batch)), present(batch)
        latents, width = self.flow(h), h.shape[-1]
        bits = bits_per_dimension(self.log_prior(latents.z, batch) + latents.log_determinant, width)
        others = ~torch.eye(len(h), dtype=torch.bool, device=h.device)[:, :, None]
        among = others & there  # (M, M, B): pattern i lacks modality i
        restored = self.recovered(latents.z, among)
        told: dict[str, Tensor] = {}
        for i, name in enumerate(self.modalities):
            weight = there[i][:, None] / there[i].sum().clamp(min=1)
            spread = (h[i] - (h[i] * weight).sum(0)).square().mean(-1)
            counts = there[i] & among[i].any(0)
            error = (restored[i, i] - h[i]).square().mean(-1)
            told |= {
                f"bits/{name}": masked_mean(bits[i], there[i]),
                f"log_determinant/{name}": masked_mean(latents.log_determinant[i] / width, there[i]),
                f"rebuild/{name}": masked_mean(error, counts) / masked_mean(spread, there[i]).clamp(min=1e-12),
            }
        return told
