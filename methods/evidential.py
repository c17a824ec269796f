"""Evidence, opinions and their fusion: what TMC and ETMC share.

A network's non-negative evidence e for C classes is an opinion: a Dirichlet distribution with alpha = e + 1 and
strength S = sum alpha, belief e / S in every class and uncertainty C / S; no evidence is the vacuous opinion.
A task asks for K opinions a sample: one about its classes, or one of two classes (against, for) about every label.
Shapes: B batch, M views, K opinions, C classes, W task width.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.tasks import MultiLabel, Regression, Task

Activation = Literal["softplus", "relu"]

MOST_EVIDENCE = 1e5
"""More is taken for this much in the loss: single precision no longer tells the terms of the divergence apart there.
Six views of the handwritten numerals reached 2.6e3 in the reference code."""
MOST_LOG = 80.0
"""Bound of a fused opinion's log(1 + e / C): exp stays finite in single precision, whatever the number of views."""


# ---- opinions about a task's targets --------------------------------------------------------------------------------


def no_opinion(task: Task) -> str | None:
    """Why there is no opinion on such targets, as half a sentence; None when there is."""
    if isinstance(task, Regression):
        return "gives evidence for classes or labels; a regression has neither"
    return None


def opinion_shape(task: Task) -> tuple[int, int]:
    """(K, C): one opinion about all classes, or one of two classes for every label."""
    return (task.width, 2) if isinstance(task, MultiLabel) else (1, task.width)


def true_classes(task: Task, target: Tensor) -> Tensor:
    """One-hot true class of each opinion, target (B,) or (B, K) -> (B, K, C) bool."""
    _, classes = opinion_shape(task)
    index = target.long() if isinstance(task, MultiLabel) else target[:, None]
    return index[..., None] == torch.arange(classes, device=target.device)


def outputs(task: Task, evidence: Tensor) -> Tensor:
    """Evidence as a task's outputs, (B, K, C) -> (B, W): their softmax, or sigmoid, is the expected probability."""
    log_alpha = evidence.log1p()
    return log_alpha[..., 1] - log_alpha[..., 0] if isinstance(task, MultiLabel) else log_alpha[:, 0]


# ---- evidence -------------------------------------------------------------------------------------------------------


def activated(logits: Tensor, activation: Activation) -> Tensor:
    """Outputs of a network as evidence, never negative."""
    return F.softplus(logits) if activation == "softplus" else logits.relu()


def uncertainty(evidence: Tensor) -> Tensor:
    """C / S, (..., C) -> (...): 1 without evidence, towards 0 with much."""
    classes = evidence.shape[-1]
    return classes / (evidence.sum(-1) + classes)


def confidence(evidence: Tensor) -> Tensor:
    """The largest expected probability alpha_k / S, (..., C) -> (...)."""
    return (evidence.amax(-1) + 1) / (evidence.sum(-1) + evidence.shape[-1])


def log_commonality(evidence: Tensor) -> Tensor:
    """log(1 + e / C), the logarithm of (b_k + u) / u: commonalities, whose logarithms fusion adds, (..., C)."""
    return (evidence / evidence.shape[-1]).log1p()


def from_log_commonality(total: Tensor) -> Tensor:
    """The evidence whose `log_commonality` is `total`, (..., C)."""
    return total.shape[-1] * total.clamp(max=MOST_LOG).expm1()


def fuse(evidence: Tensor, seen: Tensor) -> Tensor:
    """Evidence of the opinions that are there, fused by the reduced Dempster rule (TMC, ETMC).

    The rule for two opinions, b_k ~ b1_k b2_k + b1_k u2 + b2_k u1 and u ~ u1 u2, multiplies their (b_k + u) / u, which
    is 1 + e_k / C: every class by itself, in any order. So M opinions need no recursion, and one that is not there, as
    one without evidence, changes nothing.

    Args:
        evidence: (M, B or 1, K, C).
        seen: which views count, (P, B, M) bool for P missing patterns.

    Returns:
        (P, B, K, C); 0, the vacuous opinion, where no view counts.
    """
    return from_log_commonality(summed_log_commonality(evidence, seen))


def summed_log_commonality(evidence: Tensor, seen: Tensor) -> Tensor:
    """`log_commonality` of the views that count, summed: (M, B or 1, K, C) and (P, B, M) bool -> (P, B, K, C)."""
    each = log_commonality(evidence).expand(-1, seen.shape[1], -1, -1)
    return torch.einsum("pbm,mbkc->pbkc", seen.to(each.dtype), each)


# ---- losses: pure functions of tensors ------------------------------------------------------------------------------


def expected_cross_entropy(alpha: Tensor, true: Tensor) -> Tensor:
    """Mean of -log p_y where p is drawn from the Dirichlet: psi(S) - psi(alpha_y), (..., C) -> (...) (TMC).

    Args:
        alpha: (..., C).
        true: one-hot true class, broadcasts with `alpha`.
    """
    return alpha.sum(-1).digamma() - (alpha.digamma() * true).sum(-1)


def misleading_evidence(alpha: Tensor, true: Tensor) -> Tensor:
    """KL divergence to the uniform Dirichlet after the true class' evidence is removed, (..., C) -> (...) (TMC).

    0 exactly where all evidence is for the true class. Arguments as `expected_cross_entropy`.
    """
    wrong = torch.where(true, 1.0, alpha)
    strength = wrong.sum(-1)
    normaliser = strength.lgamma() - wrong.lgamma().sum(-1) - math.lgamma(alpha.shape[-1])
    return normaliser + ((wrong - 1) * (wrong.digamma() - strength.digamma()[..., None])).sum(-1)


def evidential_loss(evidence: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """Loss of the K opinions on each sample, averaged over them (TMC; over labels: our choice).

    Args:
        evidence: (..., B, K, C).
        true: one-hot true classes, (B, K, C) bool.
        weight: of the divergence, lambda_t, (B,).

    Returns:
        (..., B).
    """
    alpha = evidence.clamp(max=MOST_EVIDENCE) + 1
    wrong = misleading_evidence(alpha, true).mean(-1)
    return expected_cross_entropy(alpha, true).mean(-1) + weight * wrong


def annealed(progress: Tensor, share: Tensor) -> Tensor:
    """lambda_t: rises from 0 to 1 over the first `share` of training, then stays, (B,) -> (B,) (TMC code, by epoch)."""
    return (progress / share).clamp(max=1.0)
