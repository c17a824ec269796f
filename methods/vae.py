"""What MVAE and MMVAE share: Gaussian latents, how a bound is scaled, a head beside the decoders.

Shapes: B batch, M modalities, D features of a modality, L latent width; leading axes (...) are patterns or draws.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from methods.base import hyper
from methods.encoders import EncoderConfig
from methods.reconstruction import Likelihood

ACTIVE = 0.01
"""Variance over samples of a latent mean above which the latent is in use (Burda et al., ICLR 2016)."""


class VAEConfig(EncoderConfig):
    """Hyper-parameters of both."""

    beta: float = hyper(
        0.1,
        source="not given by RAML: our choice; weight of the divergence from the prior, once errors and divergence are "
        "means over their dimensions",
        search=(0.01, 1.0),
        log=True,
        gt=0,
    )
    scale: Literal["per_feature", "summed"] = hyper(
        "per_feature",
        source="not given by RAML: our choice, the mean over features and over latents, so that modalities of 35 and "
        "1024 features weigh the same beside the supervised loss; 'summed': as in the codes of both papers",
    )
    likelihood: Likelihood = hyper(
        "gaussian", source="not given by RAML: our choice, on standardised features; MMVAE code: laplace"
    )
    head_dropout: float = hyper(
        0.3, source="MMIN code, the classifier of RAML's baselines", search=(0.0, 0.5), ge=0, lt=1
    )


def divergence(mu: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)), summed over latents, (..., L) -> (...) (Kingma and Welling 2014, appendix B)."""
    return -0.5 * (1 + log_variance - mu.square() - log_variance.exp()).sum(-1)


def log_normal(x: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """log N(x; mu, sigma^2), summed over the last axis, (..., L) -> (...)."""
    return (-0.5 * ((x - mu) / sigma).square() - sigma.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def active_share(mu: Tensor, seen: Tensor) -> Tensor:
    """Share of the latents whose mean varies over samples, mu (B, L), seen (B,) bool -> scalar; 0: collapsed."""
    weight = seen.to(mu.dtype)[:, None] / seen.sum().clamp(min=1)
    variance = ((mu - (mu * weight).sum(0)).square() * weight).sum(0)
    return (variance > ACTIVE).to(mu.dtype).mean()


def drawn(mu: Tensor, sigma: Tensor, epsilon: Tensor | None) -> Tensor:
    """mu + epsilon sigma; without noise, as in evaluation, mu."""
    return mu if epsilon is None else torch.addcmul(mu, epsilon, sigma)
