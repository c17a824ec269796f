"""RAML: every modality as a Gaussian; the surer it is of a feature, the more it counts there.

"Redundancy-Adaptive Multimodal Learning for Imperfect Data". Each modality gives a mean and a standard deviation of
every feature; means are fused with weights in proportion to the precisions of the modalities that are there, so an
absent modality has no weight. One predictor reads fused means and samples of each modality alike. The paper leaves the
loss weights and the networks' depth open; such readings are switches of the Config.
Shapes: B batch, M modalities, D embedding width, P missing patterns, W task width.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task, masked_mean
from methods.base import Method, MethodConfig, hyper
from methods.encoders import EncoderConfig, cannot_encode, projector
from methods.fusion import present, shown
from methods.noise import normal
from methods.patterns import mean_over_patterns, missing_patterns, possible

BOUND = 10.0
"""Largest log precision either way: exp stays far within single precision, and so do ratios of weights."""


class RAMLConfig(EncoderConfig):
    """Hyper-parameters of RAML."""

    width: int | None = hyper(
        None, source="RAML, IV-A: 128; our choice: the latent width (128 on vectors), as for all methods", ge=1
    )
    weighting: Literal["adaptive", "fixed", "identical"] = hyper(
        "adaptive",
        source="RAML, Eq. 4; Table V: identical weights, or weights learned per feature but the same for all samples",
    )
    unimodal_loss: bool = hyper(True, source="RAML, Eq. 2; False: Table VI without L^U")
    sparsity_loss: bool = hyper(True, source="RAML, Eq. 3; False: Table VI without L^D")
    lambda_u: float = hyper(
        1.0, source="RAML, Figure 4: flat between 0.4 and 1.4; value not given: our choice", search=(0.2, 1.6), ge=0
    )
    lambda_d: float = hyper(
        0.2,
        source="RAML, Figure 4 scans 0.2 to 1.6, where much hurts; value not given: our choice",
        search=(0.001, 1.6),
        log=True,
        ge=0,
    )
    l1_reduction: Literal["sum", "mean"] = hyper(
        "mean",
        source="RAML, Eq. 3 prints a norm, a sum over features; our choice: their mean, since summed over 128 features "
        "the weights of Figure 4 (0.2 to 1.6) leave nothing but a constant predictor",
        search=("sum", "mean"),
    )
    l1_on_unlabelled: bool = hyper(
        False, source="not given, as RAML has labels everywhere: our choice; True: L^D needs none", search=(False, True)
    )
    mask_unimodal: bool = hyper(
        False,
        source="RAML, Eq. 2 and 3 print no availability; True averages L^U and L^D over the missing patterns as well, "
        "as training on each pattern in turn would",
    )
    full_modality_training: bool = hyper(
        False, source="RAML, III-C trains on all missing patterns; True is Table IV, trained on complete samples"
    )
    max_patterns: int = hyper(
        63,
        source="RAML, III-C: all 2^M - 1; our choice: all of six modalities, of more a fixed sample that holds the "
        "full set and every single one",
        ge=1,
    )
    shared_predictor: bool = hyper(True, source="RAML, III-B; False is Figure 4: one predictor a modality and for h")


# ---- losses: pure functions of tensors ------------------------------------------------------------------------------


def relative_precision(log_precision: Tensor) -> Tensor:
    """Precisions over the largest one of a sample's modalities, (M, B, D): ratios of them are all that fusion needs."""
    return (log_precision - log_precision.amax(0, keepdim=True)).exp()


def fusion_weights(log_precision: Tensor, available: Tensor) -> Tensor:
    """omega_m: share of modality m in the precision of those available, element by element (RAML, Eq. 4).

    Args:
        log_precision: -log sigma^2, within +-`BOUND`, (M, B or 1, D).
        available: (B, M) bool.

    Returns:
        (M, B, D), summing to 1 over the available modalities; 0 where none is.
    """
    precision = relative_precision(log_precision) * available.T[..., None]
    return precision / precision.sum(0, keepdim=True).clamp(min=1e-12)


def fused_means(mu: Tensor, log_precision: Tensor, patterns: Tensor) -> Tensor:
    """h = sum_m omega_m mu_m under every missing pattern (RAML, Eq. 4).

    Args:
        mu: (M, B, D).
        log_precision: within +-`BOUND`, (M, B or 1, D).
        patterns: (P, M) bool.

    Returns:
        (P, B, D). The weights of P patterns are never formed: two matrix products give numerator and denominator.
    """
    precision = relative_precision(log_precision)
    chosen = patterns.to(mu.dtype)
    numerator = torch.einsum("pm,mbd->pbd", chosen, precision * mu)
    return numerator / torch.einsum("pm,mbd->pbd", chosen, precision.expand_as(mu)).clamp(min=1e-12)


def l1_norm(fused_size: Tensor, reduction: Literal["sum", "mean"]) -> Tensor:
    """sum_m |omega_m mu_m|_1 of every sample, (..., B) (RAML, Eq. 3).

    Args:
        fused_size: sum_m omega_m |mu_m|, (..., B, D): weights are never negative, so fusing sizes is the same.
        reduction: over the D features, `sum` as the norm is printed.
    """
    return fused_size.sum(-1) if reduction == "sum" else fused_size.mean(-1)


# ---- the method -----------------------------------------------------------------------------------------------------


class Gaussians(NamedTuple):
    """Embeddings of every modality, each (M, B, D)."""

    mu: Tensor
    log_variance: Tensor


class RAML(Method):
    """Gaussian unimodal embeddings, fused by their precisions, and one predictor for all of them."""

    name = "raml"
    title = "RAML"
    paper = "Redundancy-Adaptive Multimodal Learning for Imperfect Data"
    Config = RAMLConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "weight_identical": {"weighting": "identical"},
        "weight_fixed": {"weighting": "fixed"},
        "only_m": {"unimodal_loss": False, "sparsity_loss": False},
        "m_d": {"unimodal_loss": False},
        "m_u": {"sparsity_loss": False},
    }

    config: RAMLConfig
    lambda_u: Tensor
    lambda_d: Tensor
    patterns: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: RAMLConfig) -> None:
        super().__init__(shapes, task, config)
        d = config.latent_for(shapes)
        width = config.width or d
        self.f = nn.ModuleList(projector(shape, d, config) for shape in shapes.values())
        self.g_mu = nn.ModuleList(nn.Linear(d, width) for _ in shapes)
        self.g_sigma = nn.ModuleList(nn.Linear(d, width) for _ in shapes)
        if config.weighting == "fixed":
            self.fixed = nn.Parameter(torch.zeros(len(shapes), 1, width))
        self.predictor = nn.Linear(width, task.width)
        if not config.shared_predictor:
            self.single = nn.ModuleList(nn.Linear(width, task.width) for _ in shapes)
        all_patterns = missing_patterns(len(shapes), config.max_patterns)
        kept = all_patterns[:1] if config.full_modality_training else all_patterns
        self.register_buffer("patterns", kept, persistent=False)
        self.hyper_buffers("lambda_u", "lambda_d")

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    @property
    def needs_labels(self) -> bool:
        """Only L^D can do without labels, and only where it is asked to."""
        config = self.config
        return not (config.sparsity_loss and config.l1_on_unlabelled and config.lambda_d > 0)

    def untrained(self) -> tuple[str, ...]:
        config, names = self.config, []
        weighs = config.weighting == "adaptive" and len(self.modalities) > 1
        if not (weighs or config.unimodal_loss):
            names.append("g_sigma")
        if config.weighting == "fixed" and len(self.modalities) == 1:
            names.append("fixed")
        if not (config.shared_predictor or config.unimodal_loss):
            names.append("single")
        return tuple(names)

    # ---- embeddings ---------------------------------------------------------------------------------------

    def encode(self, xs: list[Tensor]) -> Gaussians:
        """mu_m and log sigma_m^2 of every modality from M inputs (B, ...)."""
        h = [f(x) for f, x in zip(self.f, xs, strict=True)]
        mu = torch.stack([g(x) for g, x in zip(self.g_mu, h, strict=True)])
        log_variance = torch.stack([g(x) for g, x in zip(self.g_sigma, h, strict=True)])
        return Gaussians(mu, log_variance.clamp(-BOUND, BOUND))

    def log_precision(self, gaussians: Gaussians) -> Tensor:
        """What the weights are proportional to, as a logarithm, (M, B or 1, D)."""
        if self.config.weighting == "adaptive":
            return -gaussians.log_variance
        if self.config.weighting == "fixed":
            return self.fixed.clamp(-BOUND, BOUND)
        return torch.zeros_like(gaussians.mu[:, :1])

    def fuse(self, gaussians: Gaussians, available: Tensor) -> Tensor:
        """h of every sample from the modalities it has, (B, D)."""
        return (fusion_weights(self.log_precision(gaussians), available) * gaussians.mu).sum(0)

    # ---- loss ---------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`m`, and `u` and `d` times their lambda (RAML, Eq. 6)."""
        config = self.config
        gaussians = self.encode(shown(batch))
        fits = possible(self.patterns, batch.available)  # (P, B)
        terms = {"m": self.fused_loss(gaussians, fits, batch)}
        if config.unimodal_loss:
            terms["u"] = self.lambda_u * self.sampled_loss(gaussians, fits, batch)
        if config.sparsity_loss:
            terms["d"] = self.lambda_d * self.sparsity(gaussians, fits, batch)
        return terms

    def fused_loss(self, gaussians: Gaussians, fits: Tensor, batch: Batch) -> Tensor:
        """L^M: the task's loss of f(h), averaged over the missing patterns of each sample (RAML, Eq. 5)."""
        h = fused_means(gaussians.mu, self.log_precision(gaussians), self.patterns)  # (P, B, D)
        return masked_mean(mean_over_patterns(self.sample_losses(self.predictor(h), batch), fits), batch.labelled)

    def sampled_loss(self, gaussians: Gaussians, fits: Tensor, batch: Batch) -> Tensor:
        """L^U: the sum over modalities of the loss of f(mu + rho sigma), rho normal, 0 in evaluation (RAML, Eq. 2)."""
        config, sample = self.config, gaussians.mu
        if self.training:
            rho = torch.stack([normal(batch.noise, site, sample.shape[-1:]) for site in range(len(sample))])
            sample = sample + rho * (0.5 * gaussians.log_variance).exp()
        outputs = self.predictor(sample) if config.shared_predictor else self.by_modality(sample)
        losses, seen = self.sample_losses(outputs, batch), present(batch) & batch.labelled  # (M, B)
        if config.mask_unimodal:  # a modality counts in as many of a sample's patterns as have it
            losses = losses * mean_over_patterns(self.patterns[:, :, None], fits[:, None, :])
        return ((losses * seen).sum(1) / seen.sum(1).clamp(min=1)).sum()

    def sparsity(self, gaussians: Gaussians, fits: Tensor, batch: Batch) -> Tensor:
        """L^D: the L1 norm of the weighted means, which lets features of weight go to zero (RAML, Eq. 3)."""
        config, sizes = self.config, gaussians._replace(mu=gaussians.mu.abs())
        if config.mask_unimodal:
            under = fused_means(sizes.mu, self.log_precision(gaussians), self.patterns)
            norm = mean_over_patterns(l1_norm(under, config.l1_reduction), fits)
        else:
            norm = l1_norm(self.fuse(sizes, batch.available), config.l1_reduction)
        return masked_mean(norm, batch.valid if config.l1_on_unlabelled else batch.labelled)

    def by_modality(self, embeddings: Tensor) -> Tensor:
        """Every modality's own predictor, (M, B, D) -> (M, B, W)."""
        return torch.stack([f(x) for f, x in zip(self.single, embeddings, strict=True)])

    def sample_losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The task's loss of each of N outputs a sample, (N, B, W) -> (N, B)."""
        count, size = outputs.shape[:2]
        target = batch.target.expand(count, *batch.target.shape).flatten(0, 1)
        return self.task.sample_loss(outputs.flatten(0, 1), target).reshape(count, size)

    # ---- inference ----------------------------------------------------------------------------------------

    def predict(self, batch: Batch) -> Tensor:
        """f(h) of the means alone; with one modality h is its mean."""
        return self.predictor(self.fuse(self.encode(shown(batch)), batch.available))  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the fused mean h, and `z/<modality>`, the means mu_m."""
        gaussians = self.encode(shown(batch))
        means = zip(self.modalities, gaussians.mu, strict=True)
        return {"s": self.fuse(gaussians, batch.available)} | {f"z/{name}": mu for name, mu in means}

    def fusion_weights(self, batch: Batch) -> dict[str, Tensor]:
        """omega of every modality, feature by feature (RAML, Eq. 4; Figure 5)."""
        gaussians = self.encode(shown(batch))
        weight = fusion_weights(self.log_precision(gaussians), batch.available)
        return {"weight": weight.expand_as(gaussians.mu)}

    # ---- diagnostics --------------------------------------------------------------------------------------

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Whether the weights adapt and the embeddings live.

        For each modality: `weight`, its mean share in h (near 0 or 1: one modality has taken over); `sigma`, its mean
        standard deviation; `sigma_spread`, the standard deviation over samples of log sigma (near 0: adaptive weights
        are fixed ones); `mu`, the mean size of its means (near 0: L^D has shut it off). `bounded` is the share of
        log variances at their bound, where they no longer learn.
        """
        gaussians = self.encode(shown(batch))
        seen = present(batch)
        count = seen.sum(1).clamp(min=1)

        def mean(values: Tensor) -> Tensor:  # (M, B, D) -> (M, D)
            return (values * seen[..., None]).sum(1) / count[:, None]

        weight = mean(fusion_weights(self.log_precision(gaussians), batch.available))
        log_sigma = 0.5 * gaussians.log_variance
        spread = mean((log_sigma - mean(log_sigma)[:, None]).square()).sqrt()
        values = {
            "weight": weight,
            "sigma": mean(log_sigma.exp()),
            "sigma_spread": spread,
            "mu": mean(gaussians.mu.abs()),
        }
        told = {f"{what}/{m}": v[i].mean() for what, v in values.items() for i, m in enumerate(self.modalities)}
        at_bound = (gaussians.log_variance.abs() >= BOUND).float().mean(-1)
        return told | {"bounded": masked_mean(at_bound.flatten(), seen.flatten())}
