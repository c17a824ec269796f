"""Missing-aware prompts: learnt tokens, or prefixes of keys and values, chosen by what a sample lacks.

Lee et al., "Multimodal Prompting with Missing Modalities for Visual Recognition", CVPR 2023, 3.2 and 3.3, with its
reference code; what their mechanism is on any pre-norm transformer, for two modalities.

Shapes: B batch, N tokens, E token width, P prompt tokens, L prompted layers.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.noise import uniform
from methods.transformer import Block, SelfAttention, Transformer, attend, join_heads, split_heads

PromptType = Literal["input", "attention"]
PromptInit = Literal["normal", "rows"]

PATTERNS = 3
"""Missing patterns of two modalities: complete, the first missing, the second missing."""

SIMULATION = 0
"""Noise site at which the simulated pattern of a sample is drawn."""

# ---- missing patterns -----------------------------------------------------------------------------------------------


def pattern_code(available: Tensor) -> Tensor:
    """0 complete, 1 the first modality missing, 2 the second, 3 both; available (B, 2) -> (B,) int64."""
    missing = (~available).long()
    return missing[:, 0] + 2 * missing[:, 1]


def select_prompts(table: Tensor, code: Tensor) -> Tensor:
    """Every sample's prompts by its pattern, table (PATTERNS, L, P, E), code (B,) -> (B, L, P, E).

    A product with one-hot rows: exact, and unlike that of an index its gradient is summed in a fixed order on a GPU.
    Code 3, a row without any modality, gets zeros.
    """
    chosen = code[:, None] == torch.arange(len(table), device=code.device)  # (B, PATTERNS)
    return (chosen.to(table.dtype) @ table.flatten(1)).reshape(len(code), *table.shape[1:])


def simulate_missing(available: Tensor, key: Tensor) -> Tensor:
    """Hide nothing, the first or the second modality of every complete sample, each with probability 1/3.

    Incomplete samples stay as they are (reference code: `simulate_missing`).

    Args:
        available: (B, 2) bool.
        key: noise keys of the samples, (B,) int64.

    Returns:
        What is left, (B, 2) bool.
    """
    drawn = (PATTERNS * uniform(key, SIMULATION)).long()  # (B,) in 0..2
    hidden = torch.stack([drawn == 1, drawn == 2], dim=-1)
    return available & ~(hidden & available.all(dim=1, keepdim=True))


# ---- prompts in a transformer ---------------------------------------------------------------------------------------


def initial_prompts(size: tuple[int, int, int], prompt_type: PromptType, how: PromptInit) -> Tensor:
    """The prompt table before training, size (L, P, E) -> (PATTERNS, L, P, E).

    `rows`: zeros, but row 0 of the complete pattern, 2 of the first missing and 1 of the second is ones; in each half
    for attention-level prompts. Where a half has too few rows they are counted round.
    """
    if how == "normal":
        return 0.02 * torch.randn(PATTERNS, *size)
    table = torch.zeros(PATTERNS, *size)
    rows = max(size[1] if prompt_type == "input" else size[1] // 2, 1)
    for pattern, row in enumerate((0, 2, 1)):
        table[pattern, :, row % rows :: rows] = 1.0
    return table


def prefix_attention(attention: SelfAttention, x: Tensor, prompt: Tensor, seen: Tensor | None = None) -> Tensor:
    """softmax(q [P_k; K]^T / sqrt(d_h)) [P_v; V], the prefixes taken as they are (Lee et al., 3.3, attention-level).

    Args:
        attention: its projections make q, K and V of the tokens.
        x: (B, N, E).
        prompt: P_k in the first half of its rows, P_v in the second, (B, P, E).
        seen: (B, N) bool, which tokens are keys; None: all.

    Returns:
        (B, N, E): as many tokens as came.
    """
    query, key, value = (split_heads(part, attention.heads) for part in attention.qkv(x).chunk(3, dim=-1))
    half = prompt.shape[-2] // 2
    prefix_key, prefix_value = (split_heads(p, attention.heads) for p in (prompt[:, :half], prompt[:, half:]))
    among = None if seen is None else F.pad(seen, (half, 0), value=True)[:, None, None, :]
    mixed = attend(query, torch.cat([prefix_key, key], dim=-2), torch.cat([prefix_value, value], dim=-2), among)
    return attention.out(join_heads(mixed))  # type: ignore[no-any-return]


class PromptedTransformer(nn.Module):
    """A transformer whose first L layers are prompted. Nothing in it is learnt about a missing pattern."""

    def __init__(self, width: int, depth: int, heads: int, prompt_type: PromptType) -> None:
        super().__init__()
        self.transformer = Transformer(width, depth, heads)
        self.prompt_type = prompt_type

    def forward(self, tokens: Tensor, prompts: Tensor, seen: Tensor | None = None) -> Tensor:
        """tokens (B, N, E), [CLS] first, prompts (B, L, P, E) -> normalised [CLS], (B, E).

        `seen` (B, N) bool says which tokens are keys, None all; prompts always are.
        """
        x = tokens
        for layer, block in enumerate(self.transformer.blocks):
            if layer >= prompts.shape[1]:
                x = block(x, seen)
            elif self.prompt_type == "attention":
                x = self.prefixed(block, x, prompts[:, layer], seen)  # type: ignore[arg-type]
            else:
                # Attention knows no order, so that appended tokens act as prepended ones, and [CLS] stays at 0.
                x = torch.cat([x, prompts[:, layer]], dim=1)
                seen = None if seen is None else F.pad(seen, (0, prompts.shape[2]), value=True)
                x = block(x, seen)
        return self.transformer.norm(x[:, 0])  # type: ignore[no-any-return]

    @staticmethod
    def prefixed(block: Block, x: Tensor, prompt: Tensor, seen: Tensor | None = None) -> Tensor:
        """The block with prefixes before its keys and values, x (B, N, E), prompt (B, P, E) -> (B, N, E)."""
        x = x + prefix_attention(block.attention, block.norm_attention(x), prompt, seen)
        return x + block.mlp(block.norm_mlp(x))  # type: ignore[no-any-return]


def task_head(width: int, outputs: int) -> nn.Sequential:
    """The code's classifier on the pooled [CLS]: twice the width, LayerNorm, GELU, linear; (B, E) -> (B, W)."""
    return nn.Sequential(nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, outputs))


def prompt_sizes(table: Tensor, modalities: tuple[str, ...]) -> dict[str, Tensor]:
    """Root mean square of every pattern's prompts: one that stays where it started was never trained."""
    named = ("complete", *(f"without_{name}" for name in modalities))
    size = table.square().mean(dim=(1, 2, 3)).sqrt()
    return {f"prompt/{pattern}": value for pattern, value in zip(named, size, strict=True)}
