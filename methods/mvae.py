"""MVAE: one latent whose posterior is the product of a prior expert and one expert for each modality that is there.

Wu and Goodman, "Multimodal Generative Models for Scalable Weakly-Supervised Learning", NeurIPS 2018, on features. The
bound of each modality subset reconstructs what is in the subset. How RAML made a classifier of it is not told: by
default a head reads the latent; with `classifier: label` the label is one more modality, as in the MVAE code, seen by
labelled training samples alone. Shapes: B batch, M modalities, N experts (M, or M+1 with the label), P subsets,
D features of a modality, L latent width, W task width.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import MultiClass, Task, masked_mean
from methods.base import Method, MethodConfig, hyper
from methods.encoders import DropoutHead, cannot_encode, mlp, projector
from methods.fusion import present, shown
from methods.noise import normal, uniform
from methods.patterns import answers, missing_patterns, possible, sample_losses
from methods.reconstruction import Targets, misfit
from methods.vae import VAEConfig, active_share, divergence, drawn

BOUND = 10.0
"""Largest log variance of an expert either way: sums of precisions stay well within single precision."""
SITE_LATENT, SITE_ORDER, SITE_SIZE, SITE_HEAD = 0, 2, 3, 4
"""Of the noise; the latent takes two."""


class MVAEConfig(VAEConfig):
    """Hyper-parameters of MVAE."""

    classifier: Literal["head", "label"] = hyper(
        "head",
        source="not given by RAML: our choice; 'label': MVAE code, the label is one more modality with an encoder and "
        "a decoder, and the decoder predicts",
    )
    lambda_rec: float = hyper(1.0, source="not given by RAML: our choice", search=(0.1, 10.0), log=True, gt=0)
    lambda_label: float = hyper(
        10.0, source="MVAE code, lambda_text: 10; its README runs 50; used by classifier 'label'", search=(1, 50), ge=0
    )
    anneal: float = hyper(
        0.2,
        source="MVAE code: 200 of 500 epochs on MNIST, 20 of 100 on CelebA",
        ge=0,
        le=1,
        unit="share of the epochs over which the weight of the divergence grows from 0",
    )
    subsets: Literal["enumerate", "published", "none"] = hyper(
        "enumerate",
        source="RAML, III-C: the mean over all missing patterns; 'published': MVAE, Eq. 5, a sum of the full set, "
        "every single modality and random subsets between; 'none': every sample as it is",
    )
    max_patterns: int = hyper(
        63,
        source="RAML, III-C: all 2^M - 1; our choice: all of six modalities, of more a fixed sample that holds the "
        "full set and every single one",
        ge=1,
    )
    random_subsets: int = hyper(
        1, source="MVAE code, k of CelebA-19; used by subsets 'published', from three modalities on", ge=0
    )
    cross_reconstruction: bool = hyper(
        False,
        source="MVAE, Eq. 5 reconstructs only what is in the subset; True: all that a sample has, from every subset",
        search=(False, True),
    )


# ---- pieces ---------------------------------------------------------------------------------------------------------


class Gaussians(NamedTuple):
    """Experts (N, B, L) or posteriors (P, B, L)."""

    mu: Tensor
    log_variance: Tensor


def product_of_experts(experts: Gaussians, among: Tensor) -> Gaussians:
    """The product of the prior N(0, 1) and of the experts of each subset (MVAE, section 2.2).

    Args:
        experts: (N, B, L).
        among: which experts count, (P, N, B) bool.

    Returns:
        (P, B, L); the prior where none counts.
    """
    precision, chosen = (-experts.log_variance).exp(), among.to(experts.mu.dtype)
    total = 1 + torch.einsum("pnb,nbl->pbl", chosen, precision)
    return Gaussians(torch.einsum("pnb,nbl->pbl", chosen, precision * experts.mu) / total, -total.log())


def negative_bound(errors: Tensor, inside: Tensor, kl: Tensor, beta: Tensor | float) -> Tensor:
    """What a subset's evidence lower bound is below 0: sum of errors inside the subset + beta KL (MVAE, Eq. 3).

    Args:
        errors: weighted reconstruction errors, (N, ...).
        inside: which of them belong to the subset, broadcastable to `errors`.
        kl: divergence of the posterior from the prior, (...).
    """
    return (errors * inside).sum(0) + beta * kl


def random_subsets(noise: Tensor, seen: Tensor, count: int) -> Tensor:
    """`count` random subsets of what each sample has: the size uniform in 2 to N - 1, then a subset of that size.

    A sample that has fewer is shown all it has. MVAE code draws once a batch, we once a sample.

    Args:
        noise: keys, (B,).
        seen: (N, B) bool.

    Returns:
        (count, N, B) bool; no subset where there are fewer than three experts, since no size is between.
    """
    experts = len(seen)
    if experts < 3 or count == 0:
        return seen.new_zeros((0, *seen.shape))
    size = 2 + (uniform(noise, SITE_SIZE, (count,)) * (experts - 2)).long()  # (B, count)
    score = torch.where(seen.T[:, None], uniform(noise, SITE_ORDER, (count, experts)), 2.0)  # (B, count, N)
    rank = (score[..., :, None] > score[..., None, :]).sum(-1)
    return (seen.T[:, None] & (rank < size[..., None])).permute(1, 2, 0)


def label_vectors(task: Task, target: Tensor) -> Tensor:
    """Labels as an encoder reads them, (B,) or (B, C) -> (B, W): one-hot classes, indicators, or the value."""
    if isinstance(task, MultiClass):
        return (target[:, None] == torch.arange(task.width, device=target.device)).float()
    return target.reshape(-1, task.width).float()


# ---- the method -----------------------------------------------------------------------------------------------------


class MVAE(Method):
    """Gaussian experts multiplied with the prior, decoders for every modality, a head on the latent."""

    name = "mvae"
    title = "MVAE"
    paper = "Multimodal Generative Models for Scalable Weakly-Supervised Learning, NeurIPS 2018"
    Config = MVAEConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "label_as_modality": {"classifier": "label"},
        "published_subsets": {"subsets": "published"},
    }

    config: MVAEConfig
    beta: Tensor
    lambda_rec: Tensor
    lambda_label: Tensor
    patterns: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: MVAEConfig) -> None:
        super().__init__(shapes, task, config)
        self.latent = d = config.latent_for(shapes)
        self.f = nn.ModuleList(projector(shape, d, config) for shape in shapes.values())
        experts = len(shapes)
        if config.classifier == "label":
            self.f_label = mlp(task.width, d, d)
            self.decode_label = mlp(d, d, task.width)
            experts += 1
        else:
            self.head = DropoutHead(d, d, task.width, config.head_dropout, site=0)
        self.to_mu = nn.ModuleList(nn.Linear(d, d) for _ in range(experts))
        self.to_log_variance = nn.ModuleList(nn.Linear(d, d) for _ in range(experts))
        self.targets = Targets(shapes)
        self.decoders = nn.ModuleList(mlp(d, d, shape[-1]) for shape in shapes.values())
        self.register_buffer("patterns", missing_patterns(experts, config.max_patterns), persistent=False)
        self.hyper_buffers("beta", "lambda_rec", "lambda_label")

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    def enter(self, train: Batch) -> None:
        """Mean and spread of the features that are reconstructed."""
        self.targets.fit(shown(train), present(train))

    # ---- posterior ----------------------------------------------------------------------------------------

    def experts(self, batch: Batch, labels: bool = False) -> Gaussians:
        """mu and log sigma^2 of every modality's expert, and with `labels` of the label's."""
        h = [f(x) for f, x in zip(self.f, shown(batch), strict=True)]
        if labels:
            h.append(self.f_label(label_vectors(self.task, batch.target)))
        mu = torch.stack([to_mu(x) for to_mu, x in zip(self.to_mu, h, strict=False)])
        log_variance = torch.stack([to(x) for to, x in zip(self.to_log_variance, h, strict=False)])
        return Gaussians(mu, log_variance.clamp(-BOUND, BOUND))

    def posterior(self, batch: Batch, available: Tensor) -> Gaussians:
        """q(z | what is available), available (M, B) bool -> mu and log sigma^2, (B, L)."""
        mu, log_variance = product_of_experts(self.experts(batch), available[None])
        return Gaussians(mu[0], log_variance[0])

    def shown_subsets(self, seen: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The subsets each sample is trained on, (P, N, B) bool, and their weights in its loss, (P, B)."""
        config = self.config
        if config.subsets == "none":
            return seen[None], seen.any(0)[None].float()
        if config.subsets == "enumerate":
            fits = possible(self.patterns, seen.T)  # (P, B)
            return self.patterns[:, :, None] & fits[:, None], fits / fits.sum(0).clamp(min=1)
        singles = torch.eye(len(seen), dtype=torch.bool, device=seen.device)[:, :, None] & seen
        drawn_now = random_subsets(noise, seen, config.random_subsets if self.training else 0)
        among = torch.cat([seen[None], singles, drawn_now])
        return among, among.any(1).float()

    # ---- loss ---------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`rec` and `kl` of the bounds on all samples; `sup`, from the head, on labelled ones.

        With `classifier: label` `sup` is the label's part of the reconstruction.
        """
        config, as_modality = self.config, self.config.classifier == "label"
        there = present(batch)
        seen = torch.cat([there, batch.labelled[None]]) if as_modality else there  # (N, B)
        among, weight = self.shown_subsets(seen, batch.noise)
        mu, log_variance = product_of_experts(self.experts(batch, labels=as_modality), among)  # (P, B, L)
        z = drawn(mu, (0.5 * log_variance).exp(), self.latent_noise(batch, len(mu)))
        inside = (seen[None].expand_as(among) if config.cross_reconstruction else among) * weight[:, None]  # (P, N, B)
        errors = self.errors(z, batch)
        growth = (batch.progress / config.anneal).clamp(max=1) if config.anneal else torch.ones_like(batch.progress)
        kl = growth * (weight * self.divergence(mu, log_variance)).sum(0)
        rec = sum(((e * inside[:, i]).sum(0) for i, e in enumerate(errors)), torch.zeros_like(kl))
        terms = {
            "rec": self.lambda_rec * masked_mean(rec, batch.valid),
            "kl": self.beta * masked_mean(kl, batch.valid),
        }
        if as_modality:
            lost = (inside[:, -1] * sample_losses(self.task, self.decode_label(z), batch.target)).sum(0)
            return terms | {"sup": self.lambda_label * masked_mean(lost, batch.labelled)}
        outputs = answers(self.head, z, batch.noise, SITE_HEAD)
        lost = (weight * sample_losses(self.task, outputs, batch.target)).sum(0)
        return terms | {"sup": masked_mean(lost, batch.labelled)}

    def latent_noise(self, batch: Batch, subsets: int) -> Tensor | None:
        """One draw a subset in training, (P, B, L); none in evaluation."""
        if not self.training:
            return None
        return normal(batch.noise, SITE_LATENT, (subsets, self.latent)).transpose(0, 1)

    def errors(self, z: Tensor, batch: Batch) -> list[Tensor]:
        """Reconstruction error of every modality from each latent (..., B, L), M times (..., B)."""
        errors = []
        for decode, x in zip(self.decoders, self.targets.of(shown(batch)), strict=True):
            error = misfit(decode(z), x, self.config.likelihood)
            errors.append(error / x.shape[-1] if self.config.scale == "per_feature" else error)
        return errors

    def divergence(self, mu: Tensor, log_variance: Tensor) -> Tensor:
        """KL from the prior, (..., L) -> (...), a mean or a sum over latents as the errors are over features."""
        kl = divergence(mu, log_variance)
        return kl / mu.shape[-1] if self.config.scale == "per_feature" else kl

    # ---- inference ----------------------------------------------------------------------------------------

    def predict(self, batch: Batch) -> Tensor:
        """Head, or label decoder, on the mean of q(z | what is available)."""
        mu = self.posterior(batch, batch.available.T).mu
        if self.config.classifier == "label":
            return self.decode_label(mu)  # type: ignore[no-any-return]
        return self.head(mu, batch.noise)  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the mean of the posterior given what is available, and `z/<modality>` given that one alone."""
        named = {"s": self.posterior(batch, batch.available.T).mu}
        return named | {f"z/{name}": q.mu for name, q in self.alone(batch)}

    def alone(self, batch: Batch) -> list[tuple[str, Gaussians]]:
        """The posterior given one modality at a time, where the sample has it, and the prior elsewhere."""
        only = torch.eye(len(self.modalities), dtype=torch.bool, device=batch.available.device)[:, :, None]
        mu, log_variance = product_of_experts(self.experts(batch), only & batch.available.T)
        return [(name, Gaussians(mu[i], log_variance[i])) for i, name in enumerate(self.modalities)]

    # ---- diagnostics --------------------------------------------------------------------------------------

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Whether the posterior has collapsed onto the prior.

        `kl/<modality>` is the divergence a latent given that modality alone, `kl/all` given what is available (near 0:
        collapsed); `active`, the share of latents whose mean varies over samples; `rec/<modality>`, the error a feature
        from what is available (Gaussian: 0.5 is as good as the mean).
        """
        there = present(batch)
        q = self.posterior(batch, batch.available.T)
        told = {"kl/all": masked_mean(divergence(*q) / q.mu.shape[-1], batch.valid)}
        for (name, alone), seen in zip(self.alone(batch), there, strict=True):
            told[f"kl/{name}"] = masked_mean(divergence(*alone) / q.mu.shape[-1], seen)
        for name, decode, x, seen in zip(
            self.modalities, self.decoders, self.targets.of(shown(batch)), there, strict=True
        ):
            told[f"rec/{name}"] = masked_mean(misfit(decode(q.mu), x, self.config.likelihood) / x.shape[-1], seen)
        return told | {"active": active_share(q.mu, batch.valid)}
