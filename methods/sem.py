"""SEM: contrast every pair of modalities, weighted by how much their representations agree already.

Xu et al., "Self-Weighted Contrastive Learning among Multiple Views for Mitigating Representation Degeneration",
NeurIPS 2023. Autoencoders come first; then periods of contrast and reconstruction, before each of which the weights
are made anew from the whole training split. The original clusters; a head on the mean of the projections, trained
beside them, makes it predict. Shapes: B batch, V views (modalities), P missing patterns, d latent width, W task width.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.seeds import seed_of
from datasets.tasks import Regression, Task, masked_mean
from methods.base import Method, MethodConfig, Stage, hyper
from methods.contrast import log_total, off_diagonal
from methods.encoders import DropoutHead, EncoderConfig, cannot_encode, mlp, projector, unit
from methods.fusion import mean_available, present, shown
from methods.noise import normal, uniform
from methods.patterns import answers, mean_over_patterns, missing_patterns, possible, sample_losses
from methods.reconstruction import Targets

Weighting = Literal["cmi", "jsd", "mmd", "none"]

PSCL_RADIUS = 3.0**0.5
RINCE_WEIGHT, RINCE_POWER = 1e-3, 0.5
MMD_KERNELS, MMD_FACTOR, MMD_ROWS = 4, 4.0, 2000
MASKED_SHARE = 0.3
ROWS = 1024
"""Samples that are encoded at once when the weights are made."""
SITE_HEAD, SITE_INPUT = 0, 8
"""Of the noise; every input takes two."""


class SEMConfig(EncoderConfig):
    """Hyper-parameters of SEM."""

    weighting: Weighting = hyper(
        "cmi",
        source="SEM, section 3.3: class mutual information, from k-means of each view; Jensen-Shannon divergence and "
        "maximum mean discrepancy are its alternatives; 'none': all pairs alike",
        search=("cmi", "jsd", "mmd"),
    )
    contrast: Literal["nce", "pscl", "rince"] = hyper(
        "nce", source="SEM code, option of each of its contrastive losses", search=("nce", "pscl", "rince")
    )
    tau: float | None = hyper(None, source="SEM code: 1, and 0.5 for rince (None, the default)", gt=0)
    lambda_con: float = hyper(
        1.0,
        source="not given: Robult, D.3 adjusts SEM to labels and does not say how; our choice",
        search=(0.01, 1.0),
        log=True,
        gt=0,
    )
    lambda_rec: float = hyper(1.0, source="SEM code, lambda", search=(0.1, 10.0), log=True, gt=0)
    start: Literal["plain", "noisy", "masked"] = hyper(
        "plain", source="SEM code: first autoencoders as they are, denoising N(0, 1), or with 30 % of entries zeroed"
    )
    start_share: float = hyper(
        0.25,
        source="SEM code, Caltech: 100 of 400 epochs are autoencoders alone",
        gt=0,
        lt=1,
        unit="share of the epochs",
    )
    periods: int = hyper(
        3, source="SEM code: 3 (Caltech), 4 and 1 on other data; a period has its weights and optimiser", ge=1
    )
    clusters: int | None = hyper(
        None,
        source="SEM code: the number of classes; our choice (None, the default): as many as classes, labels or levels",
        ge=2,
    )
    kmeans_restarts: int = hyper(10, source="SEM code: 100; our choice: a tenth of its time", ge=1)
    head_dropout: float = hyper(
        0.3, source="MMIN code, the classifier of RAML's baselines", search=(0.0, 0.5), ge=0, lt=1
    )
    patterns: Literal["enumerate", "none"] = hyper(
        "enumerate",
        source="RAML, III-C: all missing patterns, here all of each batch and for the head alone, as SEM contrasts "
        "what is there; 'none': every sample as it is",
    )
    max_patterns: int = hyper(
        63,
        source="RAML, III-C: all 2^M - 1; our choice: all of six modalities, of more a fixed sample that holds the "
        "full set and every single one",
        ge=1,
    )


# ---- contrast of all pairs of views at once -------------------------------------------------------------------------


def pair_mean(values: Tensor, seen: Tensor) -> Tensor:
    """Mean over the samples that have both views of a pair, (V, V, B), (V, B) bool -> (V, V); 0 where none has."""
    both = seen[:, None] & seen
    return (values * both).sum(-1) / both.sum(-1).clamp(min=1)


def contrast_parts(z: Tensor, seen: Tensor, tau: Tensor | float) -> tuple[Tensor, Tensor]:
    """What NCE and RINCE are made of, for an anchor in view v whose partner is the same sample in view w.

    Candidates are the 2B rows of both views but the anchor itself and its partner; a view with itself counts twice,
    and its partner is its duplicate (SEM code).

    Args:
        z: embeddings of norm 1, (V, B, d).
        seen: (V, B) bool; samples that lack a view are no candidates in it.
        tau: temperature.

    Returns:
        (V, V, B) similarity over temperature of the partner, and log of the sum of exp over it and all candidates.
    """
    score = torch.einsum("vid,wjd->vwij", z, z) / tau
    among = off_diagonal(z.shape[1], z.device) & seen[:, None, :]  # (W, B, B): candidate j in view w
    total = log_total(score, among)  # (V, V, B)
    own = total.diagonal(dim1=0, dim2=1).mT[:, None]  # (V, 1, B)
    partner = score.diagonal(dim1=2, dim2=3)
    return partner, torch.logaddexp(torch.logaddexp(own, total), partner)


def nce(z: Tensor, seen: Tensor, tau: Tensor | float = 1.0) -> Tensor:
    """InfoNCE of every ordered pair of views, the mean over its 2B anchors, (V, V) (SEM code); see `contrast_parts`."""
    partner, total = contrast_parts(z, seen, tau)
    lost = total - partner
    return pair_mean((lost + lost.transpose(0, 1)) / 2, seen)


def rince(z: Tensor, seen: Tensor, tau: Tensor | float = 0.5) -> Tensor:
    """The robust variant -p^q / q + (lambda (p + n))^q / q of every pair, (V, V) (SEM code); arguments as `nce`."""
    partner, total = contrast_parts(z, seen, tau)
    power = RINCE_POWER
    lost = (((total * power).exp() * RINCE_WEIGHT**power) - (partner * power).exp()) / power
    return pair_mean((lost + lost.transpose(0, 1)) / 2, seen)


def pscl(z: Tensor, seen: Tensor, radius: float = PSCL_RADIUS) -> Tensor:
    """The spectral variant of every pair, (V, V): -2 mean <a_i, b_i> + mean over i != j of <a_i, b_j>^2 (SEM code).

    Rows longer than `radius` are cut to it; those of norm 1 never are.
    """
    z = z * (radius / z.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
    product = torch.einsum("vid,wjd->vwij", z, z)
    both = seen[:, None] & seen  # (V, V, B)
    among = both[..., :, None] & both[..., None, :] & off_diagonal(z.shape[1], z.device)
    apart = (product.square() * among).sum((-2, -1)) / among.sum((-2, -1)).clamp(min=1)
    return -2 * pair_mean(product.diagonal(dim1=2, dim2=3), seen) + apart


# ---- weights of the pairs, from the whole training split ------------------------------------------------------------


def clustered(x: NDArray[np.float32], clusters: int, restarts: int, seed: int) -> NDArray[np.int32]:
    """k-means' cluster of every row (N, d), of as many clusters as there are different rows at most."""
    from sklearn.cluster import KMeans

    count = min(clusters, len(np.unique(x, axis=0)))
    return KMeans(count, n_init=restarts, random_state=seed % 2**32).fit_predict(x)  # type: ignore[no-any-return]


def cmi_weight(first: NDArray[np.int32], second: NDArray[np.int32]) -> float:
    """exp(normalised mutual information of two clusterings) - 1, from 0 to e - 1 (SEM, section 3.3)."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(np.exp(normalized_mutual_info_score(first, second, average_method="arithmetic")) - 1)


def jsd_weight(first: Tensor, second: Tensor) -> float:
    """exp(1 - JSD) - 1, the mean over samples of the divergence of the softmax over features, in nats (SEM code)."""
    p, q = first.softmax(-1), second.softmax(-1)
    middle = ((p + q) / 2).clamp(min=1e-30).log()

    def against_middle(x: Tensor) -> Tensor:
        return (x * (x.clamp(min=1e-30).log() - middle)).sum(-1)

    divergence = (against_middle(p) + against_middle(q)).mean() / 2
    return float((1 - divergence).exp() - 1)


def mmd_weight(first: Tensor, second: Tensor) -> float:
    """exp(-maximum mean discrepancy) with Gaussian kernels, of the first 2000 samples (SEM code)."""
    first, second = first[:MMD_ROWS], second[:MMD_ROWS]
    rows = torch.cat([first, second])
    distance = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    bandwidth = distance.sum() / (len(rows) ** 2 - len(rows)) / MMD_FACTOR ** (MMD_KERNELS // 2)
    scaled = -distance / bandwidth.clamp(min=1e-12)
    kernel = torch.stack([(scaled / MMD_FACTOR**i).exp() for i in range(MMD_KERNELS)]).sum(0)
    n = len(first)
    discrepancy = kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
    return float((-discrepancy).exp())


# ---- the method -----------------------------------------------------------------------------------------------------


class SEM(Method):
    """An autoencoder and a projection for each view, weighted contrast between them, a head on the mean projection."""

    name = "sem"
    title = "SEM"
    paper = (
        "Self-Weighted Contrastive Learning among Multiple Views for Mitigating Representation Degeneration, "
        "NeurIPS 2023"
    )
    Config = SEMConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "jsd": {"weighting": "jsd"},
        "mmd": {"weighting": "mmd"},
        "unweighted": {"weighting": "none"},
    }

    config: SEMConfig
    tau: Tensor
    lambda_con: Tensor
    lambda_rec: Tensor
    pair_weight: Tensor
    subsets: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: SEMConfig) -> None:
        super().__init__(shapes, task, config)
        d, views = config.latent_for(shapes), len(shapes)
        self.f = nn.ModuleList(projector(shape, d, config) for shape in shapes.values())
        self.project = nn.ModuleList(nn.Linear(d, d) for _ in shapes)
        self.targets = Targets(shapes)
        self.decoders = nn.ModuleList(mlp(d, d, shape[-1]) for shape in shapes.values())
        self.head = DropoutHead(d, d, task.width, config.head_dropout, site=0)
        self.register_buffer("pair_weight", torch.ones(views, views))
        self.register_buffer("subsets", missing_patterns(views, config.max_patterns), persistent=False)
        tau = config.tau or (0.5 if config.contrast == "rince" else 1.0)
        self.register_buffer("tau", torch.tensor(tau), persistent=False)
        self.hyper_buffers("lambda_con", "lambda_rec")

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    def stages(self) -> tuple[Stage, ...]:
        """Autoencoders, then the periods; each begins with an optimiser of its own, as in the SEM code."""
        config = self.config
        share = (1 - config.start_share) / config.periods
        periods = [Stage(f"contrast-{i + 1}", share) for i in range(config.periods)]
        return (Stage("autoencoders", config.start_share), *periods)

    def enter(self, train: Batch) -> None:
        """Features' mean and spread before the first stage, the pairs' weights before each period.

        The first weights are of the autoencoders' latents, later ones of the projections (SEM code).
        """
        if self.stage == "autoencoders":
            self.targets.fit(shown(train), present(train))
            return
        h, z = self.encoded(shown(train))
        self.pair_weight.copy_(self.weights(h if self.stage == "contrast-1" else z, present(train)))

    # ---- weights ------------------------------------------------------------------------------------------

    def encoded(self, xs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Latents and projections of a whole split, each (V, N, d), computed in blocks of rows."""
        blocks = [self.encode([x[i : i + ROWS] for x in xs]) for i in range(0, len(xs[0]), ROWS)]
        h = torch.cat(blocks, dim=1)
        return h, self.projected(h)

    def weights(self, x: Tensor, seen: Tensor) -> Tensor:
        """Weight of every pair of views, (V, N, d), (V, N) bool -> (V, V), symmetric; 0 for a pair nobody has."""
        views, how = len(x), self.config.weighting
        weight = torch.ones(views, views)
        if how == "none":
            return weight
        groups = self.clusters(x, seen) if how == "cmi" else None
        for v in range(views):
            for w in range(v, views):
                both = seen[v] & seen[w]
                if not both.any():
                    weight[v, w] = weight[w, v] = 0.0
                elif groups is not None:
                    rows = both.cpu().numpy()
                    weight[v, w] = weight[w, v] = cmi_weight(groups[v][rows], groups[w][rows])
                else:
                    rule = jsd_weight if how == "jsd" else mmd_weight
                    weight[v, w] = weight[w, v] = rule(x[v][both], x[w][both])
        return weight

    def clusters(self, x: Tensor, seen: Tensor) -> list[NDArray[np.int32]]:
        """Cluster of every sample in each view, -1 where it lacks the view."""
        k = self.config.clusters or (self.task.n_groups if isinstance(self.task, Regression) else self.task.width)
        groups = []
        for v in range(len(x)):
            rows = seen[v].cpu().numpy()
            group = np.full(len(rows), -1, dtype=np.int32)
            if rows.any():
                seed = seed_of("sem clusters", self.stage, v)
                group[rows] = clustered(x[v].cpu().numpy()[rows], k, self.config.kmeans_restarts, seed)
            groups.append(group)
        return groups

    # ---- loss ---------------------------------------------------------------------------------------------

    def encode(self, xs: Sequence[Tensor]) -> Tensor:
        """M inputs (B, ...) -> latents (V, B, d)."""
        return torch.stack([f(x) for f, x in zip(self.f, xs, strict=True)])

    def projected(self, h: Tensor) -> Tensor:
        """Latents -> projections of norm 1, (V, B, d)."""
        return unit(torch.stack([project(x) for project, x in zip(self.project, h, strict=True)]))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`rec` alone in the first stage; then `rec`, the weighted contrast `con`, and `sup` on labelled samples."""
        xs, there = shown(batch), present(batch)
        if self.stage == "autoencoders":
            return {"rec": self.reconstruction(self.encode(self.disturbed(xs, batch.noise)), xs, there)}
        h = self.encode(xs)
        z = self.projected(h)
        return {
            "rec": self.reconstruction(h, xs, there),
            "con": self.lambda_con * (self.pair_weight * self.contrasts(z, there)).sum(),
            "sup": self.supervised(z, batch),
        }

    def disturbed(self, xs: list[Tensor], noise: Tensor) -> list[Tensor]:
        """Inputs as the first stage's autoencoders see them; in evaluation as they are."""
        if not self.training or self.config.start == "plain":
            return xs
        if self.config.start == "noisy":
            return [x + normal(noise, SITE_INPUT + i, tuple(x.shape[1:])) for i, x in enumerate(xs)]
        kept = [uniform(noise, SITE_INPUT + i, tuple(x.shape[1:])) >= MASKED_SHARE for i, x in enumerate(xs)]
        return [x * keep for x, keep in zip(xs, kept, strict=True)]

    def reconstruction(self, h: Tensor, xs: list[Tensor], there: Tensor) -> Tensor:
        """Sum over views of the mean squared error of their standardised features, scalar."""
        parts = zip(self.decoders, h, self.targets.of(xs), there, strict=True)
        errors = [masked_mean((decode(x) - target).square().mean(-1), seen) for decode, x, target, seen in parts]
        return self.lambda_rec * torch.stack(errors).sum()

    def contrasts(self, z: Tensor, there: Tensor) -> Tensor:
        """The chosen contrastive loss of every ordered pair of views, (V, V)."""
        match self.config.contrast:
            case "nce":
                return nce(z, there, self.tau)
            case "rince":
                return rince(z, there, self.tau)
            case "pscl":
                return pscl(z, there)

    def supervised(self, z: Tensor, batch: Batch) -> Tensor:
        """The task's loss of the head on the mean projection of each missing pattern, scalar."""
        if self.config.patterns == "none":
            outputs = self.head(mean_available(z, batch.available), batch.noise)
            return self.task.loss(outputs, batch.target, batch.labelled)
        fits = possible(self.subsets, batch.available)  # (P, B)
        share = self.subsets / self.subsets.sum(1, keepdim=True)
        means = torch.einsum("pv,vbd->pbd", share, z)
        lost = sample_losses(self.task, answers(self.head, means, batch.noise, SITE_HEAD), batch.target)
        return masked_mean(mean_over_patterns(lost, fits), batch.labelled)

    # ---- inference ----------------------------------------------------------------------------------------

    def predict(self, batch: Batch) -> Tensor:
        """The head on the mean projection of the views that are there."""
        z = self.projected(self.encode(shown(batch)))
        return self.head(mean_available(z, batch.available), batch.noise)  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the mean projection of what is there; `z/<view>`, projections of norm 1; `u/<view>`, latents."""
        h = self.encode(shown(batch))
        z = self.projected(h)
        named = {"s": mean_available(z, batch.available)}
        for i, name in enumerate(self.modalities):
            named |= {f"z/{name}": z[i], f"u/{name}": h[i]}
        return named

    # ---- diagnostics --------------------------------------------------------------------------------------

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Whether views agree and whether they have degenerated.

        For each view: `weight`, the mean weight of its pairs with other views; `agreement`, the mean cosine of its
        projections with the same samples' in other views; `alike`, the mean cosine between different samples within
        it (near 1: degenerated).
        """
        there = present(batch)
        z = self.projected(self.encode(shown(batch)))
        views, size = z.shape[:2]
        others = off_diagonal(views, z.device)
        count = others.sum(1).clamp(min=1)
        score = torch.einsum("vid,wjd->vwij", z, z)
        agreement = pair_mean(score.diagonal(dim1=2, dim2=3), there)
        apart = there[:, :, None] & there[:, None, :] & off_diagonal(size, z.device)
        within = score.diagonal(dim1=0, dim2=1).permute(2, 0, 1)  # (V, B, B)
        values = {
            "weight": (self.pair_weight * others).sum(1) / count,
            "agreement": (agreement * others).sum(1) / count,
            "alike": (within * apart).sum((1, 2)) / apart.sum((1, 2)).clamp(min=1),
        }
        return {f"{what}/{name}": value[i] for what, value in values.items() for i, name in enumerate(self.modalities)}
