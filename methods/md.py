"""MD: gate every feature, estimate how much each modality can be trusted, and scale it by that before fusion.

Han et al., "Multimodal Dynamics: Dynamical Fusion for Trustworthy Multimodal Classification", CVPR 2022. A modality's
confidence is a regression of the probability that its own classifier gives the true class. The published figure on
ROSMAP (84.2 % accuracy) agrees, in all three metrics, with choosing the checkpoint on the test set; the last epoch of
the reference code gives 81.6 +- 1.5 over ten seeds, and that is what an honest comparison can expect.
Shapes: B batch, M modalities, P missing patterns, D features of a modality, H hidden width, W task width.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import MultiLabel, Regression, Task, masked_mean
from methods.base import Method, hyper
from methods.encoders import EncoderConfig, cannot_encode, projector
from methods.fusion import present, shown
from methods.noise import dropout
from methods.patterns import mean_over_patterns, missing_patterns, possible


class MDConfig(EncoderConfig):
    """Hyper-parameters of MD."""

    hidden: int | None = hyper(
        None, source="MD code: 1000; our choice (None): the latent width (128 on vectors), as for all methods", ge=1
    )
    view_network: Literal["shared", "linear"] = hyper(
        "shared",
        source="our choice: the suite's projector between gate and hidden layer, as for all methods; 'linear': gated "
        "vectors go straight into the hidden layer, as in the MD code. A sequence is projected first and then gated",
    )
    dropout: float = hyper(
        0.3, source="MD code: 0.5 of 1000 hidden units; our choice at 128 of them", search=(0.0, 0.5), ge=0, lt=1
    )
    detach_tcp: bool = hyper(
        False,
        source="MD code: regressing the true-class probability moves the unimodal classifier as well; True: only the "
        "confidence, which the paper's words suggest",
        search=(False, True),
    )
    gate_on_unlabelled: bool = hyper(
        True, source="not given, as MD has labels everywhere: our choice, as the sparsity of the gates needs none"
    )
    mask_aware: bool = hyper(
        True,
        source="RAML shows missing modalities as zeros and does not say whether MD is told; our choice: told, what is "
        "missing adds nothing to fusion and loss; False: its confidence on zeros is learned like any other",
        search=(True, False),
    )
    patterns: Literal["enumerate", "none"] = hyper(
        "enumerate",
        source="RAML, Table I: its baselines train on all missing patterns, here all of each batch; 'none': every "
        "sample as it is (RAML, Table IV; MD code)",
    )
    max_patterns: int = hyper(
        63,
        source="RAML, III-C: all 2^M - 1; our choice: all of six modalities, of more a fixed sample that holds the "
        "full set and every single one",
        ge=1,
    )


# ---- pieces ---------------------------------------------------------------------------------------------------------


def true_class_probability(task: Task, output: Tensor, target: Tensor) -> Tensor:
    """Probability of what is true, (B, W), target -> (B,); with many labels the mean over them (our extension)."""
    probability = task.probabilities(output)
    if isinstance(task, MultiLabel):
        return torch.where(target > 0.5, probability, 1 - probability).mean(-1)
    return probability.gather(-1, target[:, None])[:, 0]


def xavier(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with Xavier-normal weights and zero bias, as every layer of the MD code."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class View(NamedTuple):
    """What the network of one modality says."""

    gate: Tensor
    """Mean of its feature gates, (B,)."""
    hidden: Tensor
    """(B, H)."""
    output: Tensor
    """Of its own classifier, (B, W)."""
    confidence: Tensor
    """Estimated probability of the true class, (B,); nothing keeps it within [0, 1] (MD code)."""

    @property
    def scaled(self) -> Tensor:
        """What goes into the fusion, (B, H)."""
        return self.hidden * self.confidence[:, None]


class ViewNetwork(nn.Module):
    """Gate, hidden layer, classifier and confidence of one modality.

    Args:
        shape: of a sample, (D,) or (T, D).
        task: gives the width of the classifier.
        config: of the method.
        latent: width of the suite's projectors.
        site: dropout takes this site of the noise.
    """

    def __init__(self, shape: tuple[int, ...], task: Task, config: MDConfig, latent: int, site: int) -> None:
        super().__init__()
        hidden, sequence = config.hidden or latent, len(shape) == 2
        gated = latent if sequence else shape[0]
        project_gated = config.view_network == "shared" and not sequence
        self.before = projector(shape, latent, config) if sequence else nn.Identity()
        self.gate = xavier(gated, gated)
        self.after = projector(shape, latent, config) if project_gated else nn.Identity()
        self.encode = xavier(latent if project_gated else gated, hidden)
        self.classify = xavier(hidden, task.width)
        self.trust = xavier(hidden, 1)
        self.rate, self.site = config.dropout, site

    def forward(self, x: Tensor, noise: Tensor) -> View:
        """(B, *shape) and the samples' noise keys (B,)."""
        x = self.before(x)
        gate = self.gate(x).sigmoid()  # (B, D)
        hidden = self.encode(self.after(gate * x)).relu()
        if self.training:
            hidden = dropout(hidden, self.rate, noise, self.site)
        return View(gate.mean(-1), hidden, self.classify(hidden), self.trust(hidden)[:, 0])


# ---- the method -----------------------------------------------------------------------------------------------------


class MD(Method):
    """Feature gates and modality confidences in front of a linear fusion."""

    name = "md"
    title = "MD"
    paper = "Multimodal Dynamics: Dynamical Fusion for Trustworthy Multimodal Classification, CVPR 2022"
    Config = MDConfig
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "reference": {
            "view_network": "linear", "hidden": 1000, "dropout": 0.5, "patterns": "none", "mask_aware": False,
        },
        "full_modality": {"patterns": "none"},
        "zeros": {"mask_aware": False},
        "detach": {"detach_tcp": True},
    }  # fmt: skip

    config: MDConfig
    patterns: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: MDConfig) -> None:
        super().__init__(shapes, task, config)
        d = config.latent_for(shapes)
        views = (ViewNetwork(shape, task, config, d, site) for site, shape in enumerate(shapes.values()))
        self.views = nn.ModuleList(views)
        self.hidden = config.hidden or d
        self.fusion = xavier(len(shapes) * self.hidden, task.width)
        kept = missing_patterns(len(shapes), config.max_patterns)[: None if config.patterns == "enumerate" else 1]
        self.register_buffer("patterns", kept, persistent=False)

    @classmethod
    def refuses(cls, spec: DataSpec, config: EncoderConfig) -> str | None:  # type: ignore[override]
        if isinstance(spec.task, Regression):
            return "trusts a modality by the probability of the true class; a regression has no classes"
        return cannot_encode(spec.modalities, config)

    @property
    def needs_labels(self) -> bool:
        """Only the sparsity of the gates can do without labels, and only where it is asked to."""
        return not self.config.gate_on_unlabelled

    def look(self, xs: list[Tensor], noise: Tensor) -> list[View]:
        """M inputs (B, ...) and noise keys (B,) -> what each modality's network says."""
        return [view(x, noise) for view, x in zip(self.views, xs, strict=True)]

    def fuse(self, views: list[View], unseen: list[View] | None, seen: Tensor) -> Tensor:
        """Outputs from the concatenated, scaled features under every pattern, (P, B, W).

        The fusion is linear, so what each modality adds to it is computed once for all patterns.

        Args:
            views: of the inputs, M of B samples.
            unseen: of inputs of zeros, which stand for modalities not seen; None: these add nothing.
            seen: (P, B, M) bool.
        """
        weight = seen.to(views[0].hidden.dtype)
        fused = self.fusion.bias + torch.einsum("pbm,mbw->pbw", weight, self.added(views))
        return fused if unseen is None else fused + torch.einsum("pbm,mbw->pbw", 1 - weight, self.added(unseen))

    def added(self, views: list[View]) -> Tensor:
        """What each modality adds to the fused output, (M, B, W)."""
        parts = self.fusion.weight.reshape(self.task.width, len(views), self.hidden)
        return torch.stack([view.scaled @ parts[:, m].T for m, view in enumerate(views)])

    # ---- loss ---------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`fusion`, and of every modality `gate/`, `confidence/` and `sup/`, all of weight 1 (MD code).

        Each sample counts under all missing patterns within what it has, or as it is; one draw of dropout serves all.
        """
        xs = shown(batch)
        views, unseen = self.look(xs, batch.noise), None
        if self.config.patterns == "none":
            seen = self.counted(batch)[None]  # (P, B, M)
            fits = torch.ones_like(seen[..., 0])
        else:
            seen, fits = self.patterns[:, None, :] & batch.available, possible(self.patterns, batch.available)
            if not self.config.mask_aware:
                unseen = self.look([torch.zeros_like(x) for x in xs], batch.noise)
        share = mean_over_patterns(seen.to(views[0].gate.dtype), fits[..., None])  # (B, M)
        fused = self.sample_losses(self.fuse(views, unseen, seen), batch)
        terms = {"fusion": masked_mean(mean_over_patterns(fused, fits), batch.labelled)}
        for m, name in enumerate(self.modalities):
            seen_part = self.view_losses(views[m], share[:, m], batch)
            if unseen is not None:
                zeros_part = self.view_losses(unseen[m], 1 - share[:, m], batch)
                seen_part = {what: value + zeros_part[what] for what, value in seen_part.items()}
            terms |= {f"{what}/{name}": value for what, value in seen_part.items()}
        return terms

    def view_losses(self, view: View, share: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Loss terms of one modality's network.

        Args:
            view: what it says.
            share: of each sample's patterns in which it says so, (B,).
        """
        true = true_class_probability(self.task, view.output, batch.target)
        true = true.detach() if self.config.detach_tcp else true
        penalised = batch.valid if self.config.gate_on_unlabelled else batch.labelled
        return {
            "gate": masked_mean(share * view.gate, penalised),
            "confidence": masked_mean(share * (view.confidence - true).square(), batch.labelled),
            "sup": masked_mean(share * self.task.sample_loss(view.output, batch.target), batch.labelled),
        }

    def sample_losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The task's loss of each of P outputs a sample, (P, B, W) -> (P, B)."""
        count, size = outputs.shape[:2]
        target = batch.target.expand(count, *batch.target.shape).flatten(0, 1)
        return self.task.sample_loss(outputs.flatten(0, 1), target).reshape(count, size)

    # ---- inference ----------------------------------------------------------------------------------------

    def counted(self, batch: Batch) -> Tensor:
        """Which modalities a batch as it is has, (B, M) bool: those that are there, or all, also zeros."""
        return batch.available if self.config.mask_aware else torch.ones_like(batch.available)

    def predict(self, batch: Batch) -> Tensor:
        """The fused output; the confidences that scale the modalities need no label."""
        return self.fuse(self.look(shown(batch), batch.noise), None, self.counted(batch)[None])[0]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the scaled hidden features side by side as the fusion reads them, and `z/<modality>`, before scaling."""
        views, counted = self.look(shown(batch), batch.noise), self.counted(batch)
        s = torch.cat([view.scaled * counted[:, m, None] for m, view in enumerate(views)], dim=-1)  # (B, M H)
        return {"s": s} | {f"z/{name}": view.hidden for name, view in zip(self.modalities, views, strict=True)}

    # ---- diagnostics --------------------------------------------------------------------------------------

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Whether gates and confidences mean something. For each modality, over the samples that have it:

        `gate`, the mean gate (near 0: all its features are shut off); `confidence`, and `confidence_spread`, its
        standard deviation over samples (near 0: the confidences are the same for all, so nothing is dynamic);
        `confidence_error`, its mean distance from the true-class probability on labelled samples.
        """
        told: dict[str, Tensor] = {}
        seen = present(batch)
        for m, (name, view) in enumerate(zip(self.modalities, self.look(shown(batch), batch.noise), strict=True)):
            mean = masked_mean(view.confidence, seen[m])
            error = (view.confidence - true_class_probability(self.task, view.output, batch.target)).abs()
            told |= {
                f"gate/{name}": masked_mean(view.gate, seen[m]),
                f"confidence/{name}": mean,
                f"confidence_spread/{name}": masked_mean((view.confidence - mean).square(), seen[m]).sqrt(),
                f"confidence_error/{name}": masked_mean(error, seen[m] & batch.labelled),
            }
        return told
