"""What the contrastive losses of several methods share."""

import torch
from torch import Tensor

NEVER = -1e9
"""Score of a candidate that is left out. Finite, so that a row without candidates gives no NaN."""


def log_total(score: Tensor, among: Tensor) -> Tensor:
    """Log of the sum of exp(score) over the candidates of every anchor: the denominator of a contrastive loss.

    Args:
        score: similarity over temperature, (..., anchors, candidates).
        among: True where a candidate counts, broadcastable to `score`.

    Returns:
        (..., anchors); hugely negative, but finite, for an anchor without any candidate.
    """
    return torch.where(among, score, NEVER).logsumexp(dim=-1)


def log_share(score: Tensor, among: Tensor) -> Tensor:
    """Log of the share exp(score_jk) / Σ_h exp(score_jh) that candidate k has for anchor j; as `log_total`."""
    return score - log_total(score, among)[..., None]


def off_diagonal(size: int, device: torch.device) -> Tensor:
    """(size, size) bool, False for a sample with itself."""
    return ~torch.eye(size, dtype=torch.bool, device=device)
