"""ETMC: TMC with a pseudo-view, in which all modalities together give evidence of their own.

Han et al., "Trusted Multi-View Classification with Dynamic Evidential Fusion", TPAMI 2023. The concatenated features go
through one more evidence head, whose opinion is fused and supervised like another view. The reference code selects its
checkpoint, and lowers its learning rate, by the accuracy on the test set: published figures need that; here validation
selects.
Shapes: B batch, M modalities (views), P missing patterns, K opinions a sample, C classes, d features of a view.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from datasets.batch import Batch
from datasets.tasks import Task, masked_mean
from methods.base import hyper
from methods.evidential import from_log_commonality, log_commonality, uncertainty
from methods.fusion import shown
from methods.tmc import TMC, TMCConfig


class ETMCConfig(TMCConfig):
    """Hyper-parameters of ETMC."""

    view_network: Literal["shared", "linear"] = hyper(
        "shared",
        source="our choice: the suite's projectors under the heads, as for all methods; 'linear': heads of one linear "
        "layer on the inputs themselves, as the ETMC code has on the features of its ResNet-18 encoders",
    )
    anneal_share: float = hyper(
        0.1,
        source="our choice: as TMC (ETMC code: the first 10 of at most 500 epochs, of which early stopping runs fewer)",
        search=(0.02, 0.5),
        log=True,
        unit="share of the training steps",
        gt=0,
        le=1,
    )
    pseudo_view: Literal["any", "complete"] = hyper(
        "any",
        source="not given, as ETMC knows no missing views: our choice: it sees what is there and zeros for the rest, "
        "which counts a modality that is alone twice; 'complete': only samples with every modality have it",
        search=("any", "complete"),
    )


class ETMC(TMC):
    """TMC's evidence networks and one on the concatenation; M + 1 opinions fused, M + 2 supervised."""

    name = "etmc"
    title = "ETMC"
    paper = "Trusted Multi-View Classification with Dynamic Evidential Fusion, TPAMI 2023"
    Config = ETMCConfig
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "full_modality": {"patterns": "none"},
        "zeros": {"mask_aware": False},
        "complete_pseudo": {"pseudo_view": "complete"},
    }

    config: ETMCConfig

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: ETMCConfig) -> None:
        super().__init__(shapes, task, config)
        self.pseudo = nn.Linear(sum(self.widths), self.opinions * self.classes)

    # ---- the pseudo-view ----------------------------------------------------------------------------------

    def pseudo_evidence(self, features: list[Tensor], unseen: list[Tensor] | None, seen: Tensor) -> Tensor:
        """Evidence of the concatenated features, in which zeros stand for views that are not seen, (P, B, K, C).

        The head is linear, so what each view adds to it is computed once for all patterns.

        Args:
            features: of every view, M tensors (B, d).
            unseen: features of a view shown as zeros, M tensors (1, d), which stand for it then; None: zeros do.
            seen: (P, B, M) bool.
        """
        parts = torch.split(self.pseudo.weight, self.widths, dim=1)  # M matrices (K C, d)
        added = torch.stack([h @ w.T for h, w in zip(features, parts, strict=True)])  # (M, B, K C)
        logits = self.pseudo.bias + torch.einsum("pbm,mbk->pbk", seen.to(added.dtype), added)
        if unseen is not None:
            added = torch.cat([h @ w.T for h, w in zip(unseen, parts, strict=True)])  # (M, K C)
            logits = logits + (~seen).to(added.dtype) @ added
        return self.as_evidence(logits)

    def has_pseudo(self, seen: Tensor) -> Tensor:
        """Whether there is a pseudo-view, (P, B, M) -> (P, B) bool."""
        if not self.config.mask_aware:
            return torch.ones_like(seen[..., 0])
        return seen.any(-1) if self.config.pseudo_view == "any" else seen.all(-1)

    # ---- loss and inference -------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`view/<modality>`, `pseudo` and `fused`: TMC's loss with one opinion more."""
        xs, under = shown(batch), self.shown_patterns(batch)
        features = self.encode(xs)
        zeros = self.zero_features(xs)
        evidence = self.view_evidence(features)
        unseen = None if zeros is None else self.view_evidence(zeros)
        pseudo, there = self.pseudo_evidence(features, zeros, under.seen), self.has_pseudo(under.seen)
        total = (
            self.fused_log_commonality(evidence, unseen, under.seen) + log_commonality(pseudo) * there[..., None, None]
        )
        return self.view_losses(evidence, unseen, under, batch) | {
            "pseudo": self.mean_loss(self.opinion_loss(pseudo, batch) * there, under, batch),
            "fused": self.mean_loss(self.opinion_loss(from_log_commonality(total), batch), under, batch),
        }

    def fused(self, batch: Batch) -> Tensor:
        """Evidence of the opinion fused from the views that are there and the pseudo-view, (B, K, C)."""
        features = self.encode(shown(batch))
        seen = self.counted(batch)
        there = self.has_pseudo(seen)[..., None, None]
        total = self.fused_log_commonality(self.view_evidence(features), None, seen)
        return from_log_commonality(total + log_commonality(self.pseudo_evidence(features, None, seen)) * there)[0]

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """As TMC, and `uncertainty/pseudo`, of the pseudo-view."""
        seen = self.counted(batch)
        own = uncertainty(self.pseudo_evidence(self.encode(shown(batch)), None, seen)).mean(-1)[0]
        there = self.has_pseudo(seen)[0] & batch.valid
        return super().diagnose(batch) | {"uncertainty/pseudo": masked_mean(own, there)}
