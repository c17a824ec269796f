"""MMVAE: the posterior is a mixture of one Gaussian for each modality, and every one must generate all modalities.

Shi et al., "Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models", NeurIPS 2019, on
features, with a head that reads the latents; how RAML made a classifier of it is not told. An absent modality has no
weight in the mixture. Averaged over all missing patterns, the weights are what they are with everything there, so
the suite's other switch, training on every pattern, would only repeat the same bound.
Shapes: B batch, M experts, K draws of each, D features of a modality, L latent width, W task width.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task, masked_mean
from methods.base import Method, MethodConfig, hyper
from methods.encoders import DropoutHead, cannot_encode, mlp, projector
from methods.fusion import LateFusion, mean_available, mean_output, present, shown
from methods.noise import normal
from methods.patterns import answers, sample_losses
from methods.reconstruction import Targets, misfit
from methods.vae import VAEConfig, active_share, divergence, drawn, log_normal

LEAST_SIGMA = 1e-6
MOST_LOG_RATIO = 20.0
"""Bound of an importance weight's logarithm in `elbo_weighted`, where one draw in the tails could end a training."""
ABSENT = -1e9
"""Log weight of an expert that is not there. Finite, so that a sample without any gives no NaN."""
DIAGNOSED = 16
"""Draws of each expert from which `diagnose` judges the importance weights."""
SITE_LATENT, SITE_HEAD = 0, 2
"""Of the noise; the latent takes two."""


class MMVAEConfig(VAEConfig):
    """Hyper-parameters of MMVAE."""

    objective: Literal["elbo", "elbo_weighted", "iwae", "dreg"] = hyper(
        "elbo",
        source="not given by RAML: our choice, the simplest; MMVAE runs dreg. 'elbo_weighted': the bound the MMVAE "
        "code exposes, whose cross terms are importance-weighted",
        search=("elbo", "iwae", "dreg"),
    )
    draws: int = hyper(1, source="not given by RAML: our choice; MMVAE: 30 and 50", search=(1, 30), ge=1)
    looser: bool = hyper(
        True, source="MMVAE, section 3.3 and code: a bound for each expert, then their mean; False: one for all draws"
    )
    dreg_true: bool = hyper(
        True,
        source="MMVAE, section 3.3: the gradient through z is weighted once more; False: MMVAE code, whose hook for it "
        "sits on a tensor that the loss does not use, so that it never fires",
    )
    learn_prior: bool = hyper(False, source="not given by RAML: our choice; the published MMVAE runs learn its scales")
    lambda_elbo: float = hyper(1.0, source="not given by RAML: our choice", search=(0.1, 10.0), log=True, gt=0)
    inference: Literal["late", "latent_mean"] = hyper(
        "late",
        source="our choice: the mean of the outputs over the experts that are there, a mixture as the posterior; "
        "'latent_mean': the output of their mean latent",
    )
    late_fusion: LateFusion = hyper("prob_mean", source="our choice: a mixture of predictive distributions")


# ---- bounds: pure functions of tensors ------------------------------------------------------------------------------


def mixture_weights(available: Tensor) -> Tensor:
    """log pi_m, equal for what is there, (M, B) bool -> (M, B); `ABSENT` elsewhere."""
    count = available.sum(0).clamp(min=1).to(torch.float32)
    return torch.where(available, -count.log(), ABSENT)


def log_mixture(log_q: Tensor, log_pi: Tensor) -> Tensor:
    """log sum_j pi_j q_j(z), log_q (M, ..., B) over the experts j, log_pi (M, B) -> (..., B)."""
    between = (1,) * (log_q.dim() - 2)
    return (log_q + log_pi.reshape(len(log_pi), *between, -1)).logsumexp(0)


def mixed(values: Tensor, log_pi: Tensor) -> Tensor:
    """sum_m pi_m of a value of each expert, (M, B), (M, B) -> (B,)."""
    return (log_pi.exp() * values).sum(0)


def elbo(log_likelihood: Tensor, kl: Tensor, log_pi: Tensor) -> Tensor:
    """Mean over the experts of their own lower bounds, each generating all modalities (MMVAE, Eq. 2).

    Args:
        log_likelihood: of everything a sample has, from each draw, (M, K, B).
        kl: from the prior, (M, B).
        log_pi: (M, B).

    Returns:
        (B,).
    """
    return mixed(log_likelihood.mean(1) - kl, log_pi)


def elbo_weighted(own: Tensor, others: Tensor, log_q: Tensor, kl: Tensor, log_pi: Tensor) -> Tensor:
    """The bound the MMVAE code exposes: what expert r says of another modality d is read off d's own draws.

    They are weighed by q_r / q_d, through which r learns; q_d and the draws are constants there.

    Args:
        own: log-likelihood of each modality from its own draws, 0 where absent, (M, K, B).
        others: the same from draws without gradient, (M, K, B).
        log_q: of expert r at the draws of d, those without gradient, (M, M, K, B).
        kl, log_pi: as `elbo`.
    """
    elsewhere = ~torch.eye(len(kl), dtype=torch.bool, device=kl.device)[:, :, None, None]
    log_ratio = log_q - log_q.diagonal(dim1=0, dim2=1).permute(2, 0, 1).detach()
    ratio = torch.where(elsewhere, log_ratio.clamp(max=MOST_LOG_RATIO).exp(), 0.0)
    return mixed((own + (ratio * others).sum(1)).mean(1) - kl, log_pi)


def importance_bound(log_weight: Tensor, log_pi: Tensor, looser: bool) -> Tensor:
    """Log of the mean importance weight, (M, K, B) -> (B,): for each expert and then their mean, or of all at once."""
    draws = math.log(log_weight.shape[1])
    if looser:
        return mixed(log_weight.logsumexp(1) - draws, log_pi)
    return (log_weight + log_pi[:, None]).flatten(0, 1).logsumexp(0) - draws


def draw_weights(log_weight: Tensor, log_pi: Tensor, looser: bool) -> Tensor:
    """Share of each draw in the bound's gradient, without gradient, (M, K, B)."""
    if looser:
        return log_weight.detach().softmax(1) * log_pi.exp()[:, None]
    return (log_weight + log_pi[:, None]).detach().flatten(0, 1).softmax(0).reshape(log_weight.shape)


def once_more(log_weight: Tensor, log_pi: Tensor, looser: bool) -> Tensor:
    """What true DReG weighs the gradient through each draw with once more, (M, K, B) (MMVAE, section 3.3).

    The share of the draw within its bound: the loose bounds' own weights pi must count only once.
    """
    return log_weight.softmax(1) if looser else draw_weights(log_weight, log_pi, looser)


def effective_draws(log_weight: Tensor) -> Tensor:
    """Effective sample size (sum w)^2 / sum w^2 over the draws, (M, K, B) -> (M, B), between 1 and K."""
    share = log_weight.softmax(1)
    return 1 / share.square().sum(1)


# ---- the method -----------------------------------------------------------------------------------------------------


class MMVAE(Method):
    """Gaussian experts in a mixture, decoders that restore every modality from each, a head on the latents."""

    name = "mmvae"
    title = "MMVAE"
    paper = "Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models, NeurIPS 2019"
    Config = MMVAEConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "iwae": {"objective": "iwae", "draws": 5},
        "dreg": {"objective": "dreg", "draws": 5},
        "dreg_reference": {"objective": "dreg", "draws": 5, "dreg_true": False},
    }

    config: MMVAEConfig
    beta: Tensor
    lambda_elbo: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: MMVAEConfig) -> None:
        super().__init__(shapes, task, config)
        d = config.latent_for(shapes)
        self.f = nn.ModuleList(projector(shape, d, config) for shape in shapes.values())
        self.to_mu = nn.ModuleList(nn.Linear(d, d) for _ in shapes)
        self.to_sigma = nn.ModuleList(nn.Linear(d, d) for _ in shapes)
        if config.learn_prior:
            self.prior = nn.Parameter(torch.zeros(d))
        self.targets = Targets(shapes)
        self.decoders = nn.ModuleList(mlp(d, d, shape[-1]) for shape in shapes.values())
        self.head = DropoutHead(d, d, task.width, config.head_dropout, site=0)
        self.hyper_buffers("beta", "lambda_elbo")

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    def enter(self, train: Batch) -> None:
        """Mean and spread of the features that are reconstructed."""
        self.targets.fit(shown(train), present(train))

    # ---- experts ------------------------------------------------------------------------------------------

    def encode(self, xs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """mu and sigma of every modality's expert, each (M, B, L)."""
        h = [f(x) for f, x in zip(self.f, xs, strict=True)]
        mu = torch.stack([to(x) for to, x in zip(self.to_mu, h, strict=True)])
        raw = torch.stack([to(x) for to, x in zip(self.to_sigma, h, strict=True)])
        return mu, F.softplus(raw) + LEAST_SIGMA

    def prior_scale(self, width: int) -> Tensor:
        """Standard deviations of the prior, summing to L if they are learned (MMVAE code), else 1."""
        return width * self.prior.softmax(0) if self.config.learn_prior else torch.ones((), device=self.beta.device)

    def latents(self, mu: Tensor, sigma: Tensor, noise: Tensor, draws: int) -> Tensor:
        """Draws of every expert, (M, K, B, L); in evaluation the one draw is the mean."""
        if not self.training:
            return mu[:, None]
        epsilon = normal(noise, SITE_LATENT, (len(mu), draws, mu.shape[-1])).permute(1, 2, 0, 3)
        return drawn(mu[:, None], sigma[:, None], epsilon)

    # ---- bounds -------------------------------------------------------------------------------------------

    def likelihoods(self, z: Tensor, batch: Batch) -> Tensor:
        """Scaled log-likelihood of every modality from each latent, (..., B, L) -> (M, ..., B); 0 where absent."""
        scales = self.likelihood_scales(z.shape[-1])
        told = []
        for decode, x, scale, seen in zip(
            self.decoders, self.targets.of(shown(batch)), scales, present(batch), strict=True
        ):
            told.append(torch.where(seen, misfit(decode(z), x, self.config.likelihood), 0.0) * -scale)
        return torch.stack(told)

    def likelihood_scales(self, latent: int) -> list[Tensor]:
        """s_d of every modality.

        `per_feature`: L / (beta D_d), which after `bound_scale` leaves the mean error and beta times the mean
        divergence. `summed`: the largest D over D_d (MMVAE code).
        """
        widths = [shape[-1] for shape in self.shapes.values()]
        if self.config.scale == "summed":
            return [torch.ones_like(self.beta) * max(widths) / width for width in widths]
        return [latent / (self.beta * width) for width in widths]

    def bound_scale(self, latent: int) -> Tensor:
        """Weight of the bound in the loss."""
        return self.lambda_elbo * (self.beta / latent if self.config.scale == "per_feature" else 1.0)

    def log_weights(self, z: Tensor, mu: Tensor, sigma: Tensor, log_pi: Tensor, batch: Batch) -> Tensor:
        """log p(x, z) / q(z | x) of every draw, (M, K, B, L) -> (M, K, B), with scaled likelihoods."""
        scale = self.prior_scale(z.shape[-1]).expand(z.shape[-1])
        log_prior = log_normal(z, torch.zeros_like(scale), scale)
        log_q = log_normal(z, mu[:, None, None], sigma[:, None, None])  # (M, M, K, B): expert j at draws of m
        return log_prior + self.likelihoods(z, batch).sum(0) - log_mixture(log_q, log_pi)

    def bound(self, z: Tensor, mu: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        """The objective of every sample, (B,); with `dreg` its value is the mean log weight, what counts its gradient.

        True DReG weighs the gradient through z twice: z is replaced by a z + (1 - a) z without gradient, which is z.
        """
        config, log_pi = self.config, mixture_weights(present(batch))
        if config.objective == "iwae":
            return importance_bound(self.log_weights(z, mu, sigma, log_pi, batch), log_pi, config.looser)
        if config.objective == "dreg":
            fixed = mu.detach(), sigma.detach()
            if config.dreg_true:
                with torch.no_grad():
                    share = once_more(self.log_weights(z, *fixed, log_pi, batch), log_pi, config.looser)[..., None]
                z = share * z + (1 - share) * z.detach()
            log_weight = self.log_weights(z, *fixed, log_pi, batch)
            return (draw_weights(log_weight, log_pi, config.looser) * log_weight).sum((0, 1))
        scale = self.prior_scale(z.shape[-1])
        kl = divergence(mu / scale, 2 * (sigma / scale).log())
        if config.objective == "elbo":
            return elbo(self.likelihoods(z, batch).sum(0), kl, log_pi)
        return self.weighted_bound(z, mu, sigma, kl, log_pi, batch)

    def weighted_bound(self, z: Tensor, mu: Tensor, sigma: Tensor, kl: Tensor, log_pi: Tensor, batch: Batch) -> Tensor:
        """`elbo_weighted` from the decoders' answers; modality d is decoded from its own draws alone."""
        still = z.detach()
        log_q = log_normal(still, mu[:, None, None], sigma[:, None, None])  # (M, M, K, B)
        own, others = (self.likelihoods(at, batch).diagonal(dim1=0, dim2=1).permute(2, 0, 1) for at in (z, still))
        return elbo_weighted(own, others, log_q, kl, log_pi)

    # ---- loss ---------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`elbo`, the scaled and negated objective, on all samples; `sup`, the head on every draw, on labelled ones."""
        mu, sigma = self.encode(shown(batch))
        z = self.latents(mu, sigma, batch.noise, self.config.draws)
        bound = self.bound(z, mu, sigma, batch)
        outputs = answers(self.head, z.flatten(0, 1), batch.noise, SITE_HEAD)  # (M K, B, W)
        lost = sample_losses(self.task, outputs, batch.target).reshape(z.shape[:3]).mean(1)  # (M, B)
        return {
            "elbo": -self.bound_scale(mu.shape[-1]) * masked_mean(bound, batch.valid & batch.available.any(1)),
            "sup": masked_mean(mixed(lost, mixture_weights(present(batch))), batch.labelled),
        }

    # ---- inference ----------------------------------------------------------------------------------------

    def predict(self, batch: Batch) -> Tensor:
        """The head on the mean of each expert that is there, outputs averaged; or on their mean latent."""
        mu, _ = self.encode(shown(batch))
        if self.config.inference == "latent_mean":
            return self.head(mean_available(mu, batch.available), batch.noise)  # type: ignore[no-any-return]
        outputs = answers(self.head, mu, batch.noise, SITE_HEAD)
        return mean_output(outputs, batch.available, self.task, self.config.late_fusion)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the mean of the mixture, and `z/<modality>`, the mean of each expert."""
        mu, _ = self.encode(shown(batch))
        means = zip(self.modalities, mu, strict=True)
        return {"s": mean_available(mu, batch.available)} | {f"z/{name}": m for name, m in means}

    # ---- diagnostics --------------------------------------------------------------------------------------

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Whether experts have collapsed onto the prior, and how many of the importance-weighted draws count.

        For each modality: `kl`, the divergence a latent (near 0: collapsed); `active`, the share of latents whose mean
        varies; `rec`, the error a feature from the mixture's means (Gaussian: 0.5 is as good as the mean); `ess`, the
        effective number of 16 draws. The draws are those of the batch's noise keys.
        """
        there, log_pi = present(batch), mixture_weights(present(batch))
        mu, sigma = self.encode(shown(batch))
        scale = self.prior_scale(mu.shape[-1])
        kl = divergence(mu / scale, 2 * (sigma / scale).log()) / mu.shape[-1]
        epsilon = normal(batch.noise, SITE_LATENT, (len(mu), DIAGNOSED, mu.shape[-1])).permute(1, 2, 0, 3)
        z = drawn(mu[:, None], sigma[:, None], epsilon)
        ess = effective_draws(self.log_weights(z, mu, sigma, log_pi, batch))
        centre = mean_available(mu, batch.available)
        told: dict[str, Tensor] = {}
        for i, (name, x) in enumerate(zip(self.modalities, self.targets.of(shown(batch)), strict=True)):
            error = misfit(self.decoders[i](centre), x, self.config.likelihood) / x.shape[-1]
            told |= {
                f"kl/{name}": masked_mean(kl[i], there[i]),
                f"active/{name}": active_share(mu[i], there[i]),
                f"rec/{name}": masked_mean(error, there[i]),
                f"ess/{name}": masked_mean(ess[i], there[i]),
            }
        return told
