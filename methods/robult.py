"""Robult: keep what modalities share and what each alone knows, with few labels.

"Robult: Leveraging Redundancy and Modality-Specific Features for Robust Multimodal Learning", IJCAI 2025.
Each modality i has a branch with a unique latent u_i and a redundant latent z_i; a fused branch gives s. A soft
positive-unlabelled contrastive loss pulls z_i towards s (Objective 2.1), a reconstruction in latent space keeps
u_i informative (Objective 2.2), and a supervised loss uses the labels there are.

The paper's text and its appendix disagree in places and leave constants open; each such reading is a named switch
of the Config. Shapes: B batch, M modalities, d latent width, W task width; j counts anchors, k candidates.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.func import functional_call

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task, masked_mean
from methods.base import Method, MethodConfig, hyper
from methods.contrast import log_share, off_diagonal
from methods.encoders import EncoderConfig, cannot_encode, joint_encoder, mlp, projector, residual_head, unit
from methods.fusion import LateFusion, complete, late_fusion, present, shown
from methods.probe import apply_linear, fit_linear

Reduction = Literal["anchor_mean", "anchor_sum", "pair_mean"]
Kernel = Literal["phi_adaptive", "phi_fixed", "cos_fixed", "l1", "l2", "none"]


class RobultConfig(EncoderConfig):
    """Hyper-parameters of Robult."""

    # Contrast, Eq. 2-7
    tau: float = hyper(
        0.3,
        source="not given: GMC code's temperature on CMU-MOSI and -MOSEI; a search over tau and kappa (60 trials, "
        "digits and synthetic, 5 % labels, 3 seeds) prefers 0.4 to 0.9 and kappa above 1, by 0.014 of accuracy on "
        "test (standard error 0.005): too little to leave a published value for",
        search=(0.1, 1.0),
        log=True,
        ge=0.05,  # below, the squared proximities of Eq. 5 leave single precision
    )
    lambda_pu: float = hyper(
        1.0, source="not given: our choice, the paper adds the losses unweighted", search=(0.1, 3.0), log=True, ge=0
    )
    labelled_pairs: bool = hyper(True, source="Robult, Eq. 4; False is ablation (3) of Table 3, no L_lb")
    unlabelled_pairs: bool = hyper(True, source="Robult, Eq. 6; False is ablation (4) of Table 3, no L_ulb")
    pseudo_labelling: bool = hyper(
        True,
        source="Robult, 2.1; False is Table 10: an unlabelled sample is positive with itself alone, as in ordinary "
        "contrastive learning (D.4)",
    )
    pu_reduction: Reduction = hyper(
        "anchor_mean",
        source="Robult prints a sum over anchors in Eq. 4 and 6 (anchor_sum) and a mean over pairs in Eq. 18 and 19 "
        "(pair_mean); not given which was run: our choice, as its scale depends on neither B nor the label ratio; "
        "on digits and a synthetic regression (5 % labels, 5 seeds) anchor_sum was level with it",
        search=("anchor_mean", "anchor_sum", "pair_mean"),
    )
    include_self: bool = hyper(
        True, source="Robult, 2.1: an anchor without labelled partners is referred to its own z_j, so (j, j) counts"
    )
    ignore_empty_multilabel: bool = hyper(
        False,
        source="not given: our choice; True stops samples with no label predicted, at first nearly all, from matching",
    )
    intra_view: bool = hyper(
        False, source="Robult, Eq. 18 and 19: True adds the s-s and z-z terms of GMC (variant plus_gmc, Table 14)"
    )

    # Weights of unlabelled pairs, Eq. 5
    weight: Literal["rbf", "l1", "l2", "none"] = hyper(
        "rbf", source="Robult, Eq. 5; l1 and l2: D.5, Table 11; none: D.4, Table 10"
    )
    rbf: Literal["phi_adaptive", "phi_fixed", "cos_fixed"] = hyper(
        "phi_adaptive",
        source="Robult, Eq. 5 applies the kernel to phi but gives no bandwidth: our choice follows the batch's own "
        "spread, since any fixed one saturates at some temperature",
        search=("phi_adaptive", "phi_fixed", "cos_fixed"),
    )
    kappa: float = hyper(
        1.0,
        source="not given: our choice; factor on the batch variance (phi_adaptive)",
        search=(0.25, 4.0),
        log=True,
        gt=0,
    )
    gamma: float = hyper(
        1.0, source="not given: our choice; exp(-gamma gap^2) (phi_fixed)", search=(0.01, 10.0), log=True, ge=0
    )
    bandwidth: float = hyper(
        0.2,
        source="not given: our choice (cos_fixed)",
        search=(0.05, 1.0),
        log=True,
        unit="cosine",
        gt=0,
    )

    # Reconstruction, Eq. 10
    unique_branches: bool = hyper(True, source="Robult, 2; False is D.4, Table 10: no u_i, hence no reconstruction")
    monolithic: bool = hyper(
        False,
        source="not in the paper: our question, whether the split helps; True: one latent unit(g_0(h_i) + g_i(h_i)) is "
        "both u_i and z_i, with the same modules and so the same number of parameters",
    )
    rec: Literal["cos2", "cos", "none"] = hyper(
        "cos2", source="Robult, Eq. 10, read as a square; cos reads the 2 as an index; none: ablation (2) of Table 3"
    )
    rec_trains_r: bool = hyper(
        True, source="Robult, Algorithm 1 never enables r_i (False); our choice: a random r_i reconstructs nothing"
    )
    lambda_rec: float = hyper(
        1.0, source="not given: our choice, the paper adds the losses unweighted", search=(0.1, 10.0), log=True, ge=0
    )

    # Classifier and supervised loss
    supervised: bool = hyper(
        True, source="Robult, 2.3; False is ablation (1) of Table 3, with a probe fitted at the end"
    )
    sup_reduction: Literal["mean", "sum"] = hyper(
        "mean", source="not given over the M+1 branches: our choice, as its scale does not depend on M"
    )
    full_input: Literal["h0", "s"] = hyper(
        "h0",
        source="Robult, Figure 3b: h_0 passes directly through c; D.4 suggests s, which was level on digits and a "
        "synthetic regression (5 % labels, 5 seeds), and far behind with anchor_sum",
        search=("h0", "s"),
    )
    combine: Literal["concat_linear", "sum", "mean"] = hyper(
        "concat_linear",
        source="Robult, Figure 3a says 'combined'; c also takes h_0, so the pair must shrink to d; the parameters of "
        "Table 5 favour a shared layer",
        search=("concat_linear", "sum", "mean"),
    )
    late_fusion: LateFusion = hyper(
        "logit_mean", source="Robult, D.1: mean of the outputs; scale not given: our choice"
    )
    grad_routing: Literal["algorithm1", "none"] = hyper(
        "algorithm1", source="Robult, Algorithm 1 and 2.3; none lets every loss reach everything upstream of it"
    )
    probe_l2: float = hyper(
        1.0, source="not given: the default strength of scikit-learn, for the regressor of ablation (1)", ge=0
    )

    @model_validator(mode="after")
    def _something_trains(self) -> Self:
        if not (self.supervised or self.labelled_pairs or self.unlabelled_pairs):
            raise ValueError(
                "nothing is left to train on: supervised, labelled_pairs and unlabelled_pairs are all off."
            )
        if self.monolithic and not self.unique_branches:
            raise ValueError("monolithic merges the unique branches with the shared one: it needs unique_branches.")
        return self

    @property
    def reconstructs(self) -> bool:
        return self.unique_branches and self.rec != "none"

    @property
    def kernel(self) -> Kernel:
        """The one kernel that `weight` and `rbf` name together."""
        return self.rbf if self.weight == "rbf" else self.weight


# ---- losses: pure functions of tensors, dense masks only ------------------------------------------------------------


def positive_pairs(
    group: Tensor, labelled: Tensor, *, include_self: bool = True, pseudo_labelling: bool = True
) -> tuple[Tensor, Tensor]:
    """Pairs that share a class: those with both labels known, B_{1,1}, and the others, B_{1,0} (Robult, Eq. 3-6).

    Being labelled is a property of the pair: a labelled k is an unlabelled partner of an unlabelled j.

    Args:
        group: class of every sample, true where labelled and predicted elsewhere, (B,).
        labelled: (B,) bool.
        include_self: whether (j, j) is a pair: s_j and z_j are different views.
        pseudo_labelling: False leaves an unlabelled sample no partner but itself (Robult, D.4).

    Returns:
        Two (B, B) bool masks.
    """
    own = ~off_diagonal(len(group), group.device)
    same = group[:, None] == group[None, :]
    both = labelled[:, None] & labelled[None, :]
    known, guessed = same & both, (same if pseudo_labelling else own) & ~both
    return (known, guessed) if include_self else (known & ~own, guessed & ~own)


def reference_proximity(proximity: Tensor, positives: Tensor) -> Tensor:
    """Mean proximity of an anchor's labelled positives, or that of its own z_j where it has none (Robult, Eq. 5).

    Args:
        proximity: of anchor j to candidate k, (..., B, B).
        positives: mask of labelled positive pairs, (..., B, B).

    Returns:
        One reference an anchor, (..., B).
    """
    count = positives.sum(-1)
    mean = (proximity * positives).sum(-1) / count.clamp(min=1)
    return torch.where(count > 0, mean, proximity.diagonal(dim1=-2, dim2=-1))


def pair_weights(
    kernel: Kernel,
    cosine: Tensor,
    tau: Tensor,
    positives: Tensor,
    candidates: Tensor,
    *,
    kappa: Tensor,
    gamma: Tensor,
    bandwidth: Tensor,
) -> Tensor:
    """Weights w_jk of unlabelled pairs: near 1 where as close as known positives are (Robult, Eq. 5 and D.5).

    No gradient flows back: otherwise w -> 0 would minimise the loss. With the gap between a proximity and its
    anchor's reference, and phi = exp(cosine / tau), the kernels are
    phi_adaptive: exp(-gap^2 / (2 kappa V)), V the mean squared gap of the batch's unlabelled pairs j != k;
    phi_fixed: exp(-gamma gap^2); cos_fixed: exp(-gap^2 / (2 bandwidth^2)) with cosines as proximities;
    l1, l2: 1 - distance / largest distance of an unlabelled pair. For scalars the Manhattan and the Euclidean
    distance of D.5 coincide although Table 11 differs, so l2 uses the squared gap.

    Args:
        cosine: <s_j, z_k>, (..., B, B).
        tau: temperature, scalar > 0.
        positives: mask of labelled positive pairs, (..., B, B).
        candidates: mask of the unlabelled pairs to be weighted, (..., B, B).

    Returns:
        (..., B, B), meaningful at `candidates` alone.
    """
    cosine = cosine.detach()
    if kernel == "none":
        return torch.ones_like(cosine)
    proximity = cosine if kernel == "cos_fixed" else (cosine / tau).exp()
    gap = proximity - reference_proximity(proximity, positives)[..., None]
    square = gap.square()
    if kernel == "phi_adaptive":
        others = candidates & off_diagonal(cosine.shape[-1], cosine.device)
        variance = (square * others).sum((-2, -1), keepdim=True) / others.sum((-2, -1), keepdim=True).clamp(min=1)
        return (-square / (2 * kappa * variance + 1e-12)).exp()
    if kernel == "phi_fixed":
        return (-gamma * square).exp()
    if kernel == "cos_fixed":
        return (-square / (2 * bandwidth.square())).exp()
    distance = gap.abs() if kernel == "l1" else square
    farthest = (distance * candidates).amax((-2, -1), keepdim=True)
    return 1 - distance / farthest.clamp(min=1e-12)


def pair_loss(value: Tensor, pairs: Tensor, reduction: Reduction) -> Tensor:
    """-log v averaged over the positive pairs of every anchor, then over anchors (Robult, Eq. 4 and 6).

    One minus: the transcriptions of Eq. 2, 4 and 18 differ in signs, but B.2 ends in I >= E log v.

    Args:
        value: log v, already weighted, (M, B, B).
        pairs: mask of positive pairs, (M, B, B).
        reduction: `anchor_mean` over anchors that have a partner, `anchor_sum` as Eq. 4 prints it, `pair_mean` over
            all pairs as Eq. 18 prints it.

    Returns:
        Scalar, the mean over modalities; 0 where there is no pair. The divisor is the number of pairs, never the
        sum of their weights.
    """
    per_anchor, count = -(value * pairs).sum(-1), pairs.sum(-1)  # (M, B)
    if reduction == "pair_mean":
        return (per_anchor.sum(-1) / count.sum(-1).clamp(min=1)).mean()
    total = (per_anchor / count.clamp(min=1)).sum(-1)  # (M,)
    if reduction == "anchor_mean":
        total = total / (count > 0).sum(-1).clamp(min=1)
    return total.mean()


def reconstruction_loss(restored: Tensor, h: Tensor, seen: Tensor, *, squared: bool) -> Tensor:
    """1 - cos^2 (or 1 - cos) between the restored and the true latent (Robult, Eq. 10).

    Args:
        restored: (M, B, d).
        h: (M, B, d).
        seen: samples that have the modality, (M, B) bool.

    Returns:
        Scalar mean over modalities and samples, labelled or not.
    """
    cosine = (unit(restored) * unit(h)).sum(-1)  # (M, B)
    lost = 1 - (cosine.square() if squared else cosine)
    return masked_mean(lost.flatten(), seen.flatten())


def supervised_loss(
    outputs: Tensor, target: Tensor, labelled: Tensor, task: Task, reduction: Literal["mean", "sum"]
) -> Tensor:
    """The task's loss of every branch on its labelled samples (Robult, 2.3: L1 or cross-entropy).

    Args:
        outputs: (M+1, B, W).
        target: (B,) or (B, C).
        labelled: samples that branch may learn from, (M+1, B) bool.
        reduction: over the branches.
    """
    losses = torch.stack([task.loss(out, target, rows) for out, rows in zip(outputs, labelled, strict=True)])
    return losses.mean() if reduction == "mean" else losses.sum()


# ---- the method -----------------------------------------------------------------------------------------------------


class Latents(NamedTuple):
    """What the branches make of a batch (Robult, Figure 3)."""

    h: Tensor
    """Projections h_i, (M, B, d)."""
    h0: Tensor
    """Fused projection h_0, (B, d)."""
    u: Tensor | None
    """Unique latents u_i of norm 1, (M, B, d); None without unique branches."""
    z: Tensor
    """Redundant latents z_i of norm 1, (M, B, d)."""
    s: Tensor
    """Fused latent of norm 1, (B, d)."""

    @property
    def pair(self) -> Tensor:
        """What a unimodal branch knows, [u_i ; z_i], (M, B, 2d), or z_i alone."""
        return self.z if self.u is None else torch.cat([self.u, self.z], dim=-1)


class Contrast(NamedTuple):
    """Everything about the pairs of a batch, each (M, B, B)."""

    cosine: Tensor
    log_v: Tensor
    labelled: Tensor
    unlabelled: Tensor
    weight: Tensor
    possible: Tensor
    """Pairs of an anchor and a candidate that both exist."""


class Robult(Method):
    """Robust multimodal pipeline, trained with one backward pass over detached copies of its latents."""

    name = "robult"
    title = "Robult"
    paper = "Robult: Leveraging Redundancy and Modality-Specific Features for Robust Multimodal Learning, IJCAI 2025"
    Config = RobultConfig
    pseudo_labels = True
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "no_sup": {"supervised": False},
        "no_rec": {"rec": "none"},
        "no_lb": {"labelled_pairs": False},
        "no_ulb": {"unlabelled_pairs": False},
        "no_unique_branches": {"unique_branches": False},
        "no_weighting": {"weight": "none"},
        "no_pseudo_labelling": {"pseudo_labelling": False},
        "weight_l1": {"weight": "l1"},
        "weight_l2": {"weight": "l2"},
        "no_soft_pu": {"labelled_pairs": False, "unlabelled_pairs": False},
        "plus_gmc": {"intra_view": True, "pu_reduction": "pair_mean"},
        "monolithic": {"monolithic": True},  # ours, not the paper's
    }

    config: RobultConfig
    tau: Tensor
    kappa: Tensor
    gamma: Tensor
    bandwidth: Tensor
    lambda_pu: Tensor
    lambda_rec: Tensor
    probe_l2: Tensor
    probe_fused: Tensor
    probe_single: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: RobultConfig) -> None:
        super().__init__(shapes, task, config)
        d, width = config.latent_for(shapes), task.width
        self.f = nn.ModuleList(projector(shape, d, config) for shape in shapes.values())
        self.f0 = joint_encoder(shapes, d, config)
        self.g0 = mlp(d, d, d)
        self.c = residual_head(d, width)
        if config.unique_branches:
            self.g = nn.ModuleList(nn.Linear(d, d) for _ in shapes)
            if config.combine == "concat_linear":
                self.combine = nn.Linear(2 * d, d)
        if config.reconstructs:
            self.r = nn.ModuleList(mlp(2 * d, d, d) for _ in shapes)
        if not config.supervised:
            known = 2 * d if config.unique_branches else d
            self.register_buffer("probe_fused", torch.zeros(d + 1, width))
            self.register_buffer("probe_single", torch.zeros(len(shapes), known + 1, width))
        self.hyper_buffers("tau", "kappa", "gamma", "bandwidth", "lambda_pu", "lambda_rec", "probe_l2")

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    # ---- forward: Figure 3 --------------------------------------------------------------------------------

    def unique(self, h: Tensor) -> Tensor:
        """g_i(h_i), plus g_0(h_i) where both are one latent, before its norm becomes 1, (M, B, d)."""
        own = torch.stack([g(h_i) for g, h_i in zip(self.g, h, strict=True)])
        return own + self.g0(h) if self.config.monolithic else own

    def encode(self, xs: list[Tensor], noise: Tensor | None = None) -> Latents:
        """M inputs (B, ...), noise keys (B,) -> latents."""
        h = torch.stack([f(x) for f, x in zip(self.f, xs, strict=True)])  # (M, B, d)
        h0 = self.f0(xs, noise)
        shared = self.g0(torch.cat([h0[None], h]))  # (M+1, B, d)
        u = unit(self.unique(h)) if self.config.unique_branches else None
        z = u if u is not None and self.config.monolithic else unit(shared[1:])
        return Latents(h, h0, u, z, unit(shared[0]))

    def outputs(self, latents: Latents) -> Tensor:
        """Outputs of the M+1 branches, the fused one first, (M+1, B, W)."""
        fused = latents.h0 if self.config.full_input == "h0" else latents.s
        if latents.u is None:
            single = latents.z
        elif self.config.combine == "concat_linear":
            single = self.combine(latents.pair)
        else:
            single = (latents.u + latents.z) * (0.5 if self.config.combine == "mean" else 1.0)
        return self.c(torch.cat([fused[None], single]))  # type: ignore[no-any-return]

    def restore(self, pair: Tensor) -> Tensor:
        """h~_i = r_i([u_i ; z_i]), (M, B, 2d) -> (M, B, d)."""
        if self.config.rec_trains_r:
            return torch.stack([r(x) for r, x in zip(self.r, pair, strict=True)])
        fixed = [{name: p.detach() for name, p in r.named_parameters()} for r in self.r]
        return torch.stack([functional_call(r, p, (x,)) for r, p, x in zip(self.r, fixed, pair, strict=True)])

    # ---- loss ---------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`sup`, `lb`, `ulb`, `rec`, each times its lambda.

        One backward pass over these terms gives the gradients of Algorithm 1, which toggles parameters between
        three: what a term must not move is detached where the term is computed.
        """
        config = self.config
        latents = self.encode(shown(batch), batch.noise)
        outputs = self.outputs(latents)
        terms: dict[str, Tensor] = {}
        if config.supervised:
            rows = torch.cat([complete(batch)[None], present(batch)]) & batch.labelled
            terms["sup"] = supervised_loss(outputs, batch.target, rows, self.task, config.sup_reduction)
        terms |= self.soft_pu(latents, outputs, batch)
        if config.reconstructs:
            terms["rec"] = self.lambda_rec * self.reconstruction(latents, present(batch))
        return terms

    def soft_pu(self, latents: Latents, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """L_lb and L_ulb, whose sum is L_PU (Robult, Eq. 4, 6, 7), each times lambda_pu."""
        config, pairs, terms = self.config, self.contrast(latents, outputs, batch), {}
        if config.labelled_pairs:
            terms["lb"] = self.lambda_pu * pair_loss(pairs.log_v, pairs.labelled, config.pu_reduction)
        if config.unlabelled_pairs:
            weighted = pairs.weight * pairs.log_v
            terms["ulb"] = self.lambda_pu * pair_loss(weighted, pairs.unlabelled, config.pu_reduction)
        return terms

    def contrast(self, latents: Latents, outputs: Tensor, batch: Batch) -> Contrast:
        """Similarities of all anchors s_j with all candidates z_k, and which pairs are positive (Robult, 2.1).

        A sample lacking a modality is no candidate there, and no anchor, as it has no fused latent.
        """
        config = self.config
        anchor, candidate = complete(batch)[:, None], present(batch)[:, None, :]  # (B, 1), (M, 1, B)
        possible = anchor & candidate
        known, guessed = positive_pairs(
            self.effective_groups(outputs, batch),
            batch.labelled,
            include_self=config.include_self,
            pseudo_labelling=config.pseudo_labelling,
        )
        known, guessed = known & possible, guessed & possible
        cosine = latents.s @ latents.z.mT  # (M, B, B)
        log_v = log_share(cosine / self.tau, candidate)
        weight = pair_weights(
            config.kernel, cosine, self.tau, known, guessed,
            kappa=self.kappa, gamma=self.gamma, bandwidth=self.bandwidth,
        )  # fmt: skip
        if config.intra_view:
            log_v = log_v + self.intra_view(latents, anchor.T, candidate)
        return Contrast(cosine, log_v, known, guessed, weight, possible)

    def intra_view(self, latents: Latents, fused: Tensor, candidate: Tensor) -> Tensor:
        """log v(s_j, s_k) + log v(z_j, z_k) of pairs j != k, (M, B, B) (Robult, Eq. 18 and 19).

        A sample is left out of its own row, where its similarity with itself would be trivial, as in GMC.
        """
        others = off_diagonal(len(latents.s), latents.s.device)
        total = torch.zeros((), device=latents.s.device)
        for view, there in ((latents.s, fused), (latents.z, candidate)):
            among = others & there
            total = total + torch.where(among, log_share(view @ view.mT / self.tau, among), 0.0)
        return total

    def effective_groups(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Class of every sample: the true one where labelled, else what the model predicts, (B,)."""
        predicted = late_fusion(outputs[0], outputs[1:], batch.available, self.task, self.config.late_fusion)
        guess = self.task.pseudo_groups(predicted)
        if self.config.ignore_empty_multilabel and self.task.empty_group is not None:
            alone = -1 - torch.arange(len(guess), device=guess.device)  # codes that nobody shares
            guess = torch.where(guess == self.task.empty_group, alone, guess)
        return torch.where(batch.labelled, self.task.groups(batch.target), guess)

    def reconstruction(self, latents: Latents, seen: Tensor) -> Tensor:
        """L_rec; by Algorithm 1 it moves g_i (and r_i) alone, so g_i sees h_i, and the target is, without gradient."""
        h, pair = latents.h, latents.pair
        if self.config.grad_routing == "algorithm1":
            h = h.detach()
            pair = torch.cat([unit(self.unique(h)), latents.z.detach()], dim=-1)
        return reconstruction_loss(self.restore(pair), h, seen, squared=self.config.rec == "cos2")

    def untrained(self) -> tuple[str, ...]:
        config = self.config
        names: list[str] = []
        if not config.supervised:
            names += ["c", "combine"] if config.reconstructs else ["c", "combine", "g"]
        if not config.rec_trains_r:
            names.append("r")
        return tuple(names)

    # ---- inference: Figure 3, D.1 -------------------------------------------------------------------------

    def predict(self, batch: Batch) -> Tensor:
        """The fused branch where every modality is there, otherwise the mean of the unimodal ones; r_i is unused."""
        latents = self.encode(shown(batch), batch.noise)
        outputs = self.outputs(latents) if self.config.supervised else self.probe(latents)
        return late_fusion(outputs[0], outputs[1:], batch.available, self.task, self.config.late_fusion)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, `z/<modality>` and `u/<modality>`, all of norm 1."""
        latents = self.encode(shown(batch), batch.noise)
        named = {"s": latents.s}
        named |= {f"z/{name}": z for name, z in zip(self.modalities, latents.z, strict=True)}
        if latents.u is not None:
            named |= {f"u/{name}": u for name, u in zip(self.modalities, latents.u, strict=True)}
        return named

    # ---- ablation (1) of Table 3: no supervised loss, a regressor on the frozen latents -------------------

    def probe(self, latents: Latents) -> Tensor:
        """Outputs of the fitted regressors, (M+1, B, W); zeros before `finish`."""
        fused = apply_linear(self.probe_fused, latents.s)
        return torch.cat([fused[None], apply_linear(self.probe_single, latents.pair)])

    @torch.no_grad()
    def finish(self, train: Batch) -> None:
        """Without a supervised loss: fit a linear regressor to s and to each [u_i ; z_i] of the labelled samples."""
        if self.config.supervised:
            return
        latents = self.encode(shown(train), train.noise)

        def fit(features: Tensor, rows: Tensor) -> Tensor:
            kept = rows & train.labelled
            return fit_linear(features[kept], train.target[kept], self.task, self.probe_l2)

        self.probe_fused = fit(latents.s, complete(train))
        self.probe_single = torch.stack([fit(x, i) for x, i in zip(latents.pair, present(train), strict=True)])

    def weighted_pairs(self, batch: Batch) -> dict[str, Tensor]:
        """The pairs of B_{1,0} with their weights w, one view a modality (Robult, Eq. 5; D.8)."""
        latents = self.encode(shown(batch), batch.noise)
        outputs = self.outputs(latents)
        pairs = self.contrast(latents, outputs, batch)
        groups = self.effective_groups(outputs, batch)
        return {"weight": pairs.weight, "pairs": pairs.unlabelled, "pseudo": groups}

    # ---- diagnostics --------------------------------------------------------------------------------------

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """How alive the unique latents are and how the soft weights are spread.

        `u_norm` is the mean norm of g_i(h_i) before scaling, `u_variance` the variance of the u_i over samples (0
        when all are alike, at most 1); `weights_low` and `weights_high` the shares of unlabelled pairs j != k with a
        weight < 0.05 and > 0.95 (either near 1: the bandwidth is wrong); `labelled_proximity` the mean phi of labelled
        positives; `unlabelled_pairs` the share of all pairs that count as unlabelled positives.
        """
        latents = self.encode(shown(batch), batch.noise)
        pairs = self.contrast(latents, self.outputs(latents), batch)
        guessed = pairs.unlabelled & off_diagonal(len(latents.s), latents.s.device)

        def mean(values: Tensor, mask: Tensor) -> Tensor:
            return masked_mean(values.float().flatten(), mask.flatten())

        told = {
            "weights_low": mean(pairs.weight < 0.05, guessed),
            "weights_high": mean(pairs.weight > 0.95, guessed),
            "labelled_proximity": mean((pairs.cosine / self.tau).exp(), pairs.labelled),
            "unlabelled_pairs": mean(pairs.unlabelled, pairs.possible),
        }
        if latents.u is not None:
            seen = present(batch)
            weight = seen[..., None] / seen.sum(1).clamp(min=1)[:, None, None]  # (M, B, 1)
            centre = (latents.u * weight).sum(1, keepdim=True)
            told["u_norm"] = mean(self.unique(latents.h).norm(dim=-1), seen)
            told["u_variance"] = ((latents.u - centre).square() * weight).sum((1, 2)).mean()
        return told
