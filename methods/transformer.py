"""The transformer block of vision transformers, with a mask of the tokens that may be looked at.

Plain matrix products: the methods attend to a handful of tokens, and a stack of replicas batches them like any other.
Shapes: B batch, N tokens, E token width, H heads.
"""

import math

import torch
from torch import Tensor, nn

HIDDEN = -1e9
"""Score of a token that must not be looked at. Finite, so that a row without any token gives no NaN."""


def attend(query: Tensor, key: Tensor, value: Tensor, among: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention: the values, averaged by softmax(<q, k> / sqrt(width)) over the keys that count.

    Args:
        query: (..., Q, E).
        key: (..., N, E).
        value: (..., N, V).
        among: True where a key counts, broadcastable to (..., Q, N); None: all count.

    Returns:
        (..., Q, V).
    """
    score = query @ key.mT / math.sqrt(query.shape[-1])
    if among is not None:
        score = torch.where(among, score, HIDDEN)
    return score.softmax(-1) @ value


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, E) -> (B, H, N, E/H)."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """(B, H, N, E/H) -> (B, N, E)."""
    return x.transpose(-3, -2).flatten(-2)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one packed query, key and value projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} attention heads do not divide a width of {width}.")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """x (B, N, E), seen (B, N) bool -> (B, N, E)."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        among = None if seen is None else seen[..., None, None, :]
        return self.out(join_heads(attend(query, key, value, among)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm ViT block: x += Attention(LN(x)); x += MLP(LN(x)); GELU, no dropout.

    A token that is not `seen` is no key for anybody, itself included, but still gets an output, which the caller
    leaves unread: masking equals leaving the token out.
    """

    def __init__(self, width: int, heads: int, ratio: int = 4) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, heads)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """x (B, N, E), seen (B, N) bool or None for all -> (B, N, E)."""
        x = x + self.attention(self.norm_attention(x), seen)
        return x + self.mlp(self.norm_mlp(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A row of blocks and a closing LayerNorm; linear layers start Xavier-uniform with zero bias."""

    def __init__(self, width: int, depth: int, heads: int, ratio: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        xavier(self)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """x (B, N, E), seen (B, N) bool or None for all -> (B, N, E)."""
        for block in self.blocks:
            x = block(x, seen)
        return self.norm(x)  # type: ignore[no-any-return]


def xavier(module: nn.Module) -> None:
    """Give every linear layer within `module` Xavier-uniform weights and zero biases (MAE, ActionMAE code)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
