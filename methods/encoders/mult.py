"""MulT as a joint encoder: every modality attends to every other, then to itself; the last time step is read.

Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019, as GMC code uses it, for
any number M of modalities: M (M - 1) cross-modal and M self-attention transformers. Transformers of equal shape run as
one: their parameters lie along a leading axis of groups, and every layer is one pass for all of them.
Shapes: G groups, B batch, T time steps of a target, S of a source, E width, H heads, d latent width.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.encoders.conditioned import of_complete
from methods.encoders.layers import Residual
from methods.noise import dropout, split

Pair = tuple[int, int]
"""A target modality, which asks, and a source modality, which answers."""
Item = TypeVar("Item")

FIRST_SITE = 1 << 16
"""Noise sites from here on are the encoder's; a method numbers its own from 0."""
SITES_PER_LAYER = 4
CPU_ROWS, GPU_ROWS = 64, 1024
"""Rows that go through at once outside training: attention weights of a whole split take gigabytes. On a CPU blocks
that fit its caches are quicker too: 2048 rows of CMU-MOSI's shapes took 11 s in blocks of 64, 33 s as one."""


class Rates(NamedTuple):
    """How often MulT drops what, in training."""

    inputs: float
    """Raw features of the text."""
    embed: float
    """Scaled inputs of a transformer with their positions."""
    attention: float
    """Attention weights, where the source is the text and in self-attention."""
    layer: float
    """Both residual branches of a layer and the hidden units of its feed-forward part."""


def position_table(steps: int, width: int) -> Tensor:
    """Sines and then cosines of the positions 1 to `steps`, (T, E); position 0 is a row of zeros that nobody stores."""
    half = width // 2
    frequency = torch.exp(torch.arange(half) * (-math.log(10_000) / max(half - 1, 1)))
    angle = torch.arange(1, steps + 1)[:, None] * frequency
    return F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, width % 2))


def positions(x: Tensor, table: Tensor) -> Tensor:
    """Position of every step of `x` (..., T, E), zeros where its first feature is 0, as in a frame that only pads."""
    return torch.where(x[..., :1] != 0, table[: x.shape[-2]], 0.0)


def causal_mask(targets: int, sources: int, device: torch.device) -> Tensor:
    """What is added to the scores, (T, S): -inf for keys later than the query.

    Where the lengths differ, a query sees as many keys more (MulT code).
    """
    return torch.full((targets, sources), -torch.inf, device=device).triu(1 + abs(sources - targets))


def maybe_dropped(x: Tensor, p: float, keys: Tensor | None, site: int) -> Tensor:
    """Dropout of `x` (G, B, ...) by the keys (G B,) of its rows; no keys, no dropout."""
    if keys is None or p == 0:
        return x
    return dropout(x.flatten(0, 1), p, keys[: len(x) * x.shape[1]], site).reshape(x.shape)


class GroupedLinear(nn.Module):
    """G linear layers at once, (G, B, T, in) -> (G, B, T, out); Xavier-uniform weights, zero biases (MulT code)."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(groups, outputs))
        for weight in self.weight.detach():
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor) -> Tensor:
        return grouped_linear(x, self.weight, self.bias)

    def parts(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Weights and biases of `count` projections that are packed into one."""
        return zip(self.weight.chunk(count, dim=1), self.bias.chunk(count, dim=1), strict=True)


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (G, B, T, in), weight (G, out, in), bias (G, out) -> (G, B, T, out)."""
    return torch.baddbmm(bias[:, None], x.flatten(1, 2), weight.mT).reshape(*x.shape[:3], -1)


class GroupedNorm(nn.Module):
    """G layer norms at once, (G, B, T, E) -> (G, B, T, E)."""

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(groups, width))
        self.bias = nn.Parameter(torch.zeros(groups, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(standardised(x))

    def scaled(self, x: Tensor) -> Tensor:
        """The scale and shift alone, of an `x` that is standardised already."""
        return torch.addcmul(self.bias[:, None, None], x, self.weight[:, None, None])


def standardised(x: Tensor) -> Tensor:
    """`x` (..., E) at mean 0 and variance 1 along its last axis."""
    return F.layer_norm(x, x.shape[-1:])


class GroupedAttention(nn.Module):
    """G multi-head attentions at once, with one packed projection of queries, keys and values.

    Args:
        rate: dropout of the attention weights of the first `dropped` groups.
    """

    def __init__(self, groups: int, width: int, heads: int, *, dropped: int, rate: float) -> None:
        super().__init__()
        self.heads, self.dropped, self.rate = heads, dropped, rate
        self.packed = GroupedLinear(groups, width, 3 * width)
        self.out = GroupedLinear(groups, width, width)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, keys: Tensor | None, site: int
    ) -> Tensor:
        """Query (G, B, T, E), key and value (G, B, S, E), `mask` (T, S) -> (G, B, T, E)."""
        q, k, v = (
            self._heads(grouped_linear(x, *part))
            for x, part in zip((query, key, value), self.packed.parts(3), strict=True)
        )
        score = (q * q.shape[-2] ** -0.5).mT @ k  # (G, B, H, T, S)
        if mask is not None:
            score += mask
        mixed = self._mix(score.softmax(-1), v, keys, site)
        return self.out(mixed.flatten(2, 3).mT)  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        """(G, B, T, E) -> (G, B, H, E/H, T): a few features before the steps, as CPUs multiply wide matrices faster."""
        return x.mT.reshape(*x.shape[:2], self.heads, -1, x.shape[2])

    def _mix(self, share: Tensor, value: Tensor, keys: Tensor | None, site: int) -> Tensor:
        """Values averaged by the attention weights, some of which are dropped, (G, B, H, E/H, T)."""
        n = self.dropped
        if keys is None or n == 0 or self.rate == 0:
            return value @ share.mT
        sizes = [n, len(share) - n]
        (some, rest), (of_some, of_rest) = torch.split(share, sizes), torch.split(value, sizes)
        some = maybe_dropped(some, self.rate, keys, site)
        return torch.cat([of_some @ some.mT, of_rest @ rest.mT])


class GroupedLayer(nn.Module):
    """One pre-norm layer of G transformers: attention, then a feed-forward part four times as wide."""

    def __init__(self, groups: int, width: int, heads: int, *, dropped: int, rates: Rates) -> None:
        super().__init__()
        self.rate = rates.layer
        self.norm_attention = GroupedNorm(groups, width)
        self.attention = GroupedAttention(groups, width, heads, dropped=dropped, rate=rates.attention)
        self.norm_feed = GroupedNorm(groups, width)
        self.widen = GroupedLinear(groups, width, 4 * width)
        self.narrow = GroupedLinear(groups, 4 * width, width)

    def forward(
        self, x: Tensor, source: tuple[Tensor, Tensor] | None, keys: Tensor | None, site: int, *, last_only: bool
    ) -> Tensor:
        """(G, B, T, E) -> (G, B, T, E), or (G, B, 1, E) of the last step alone.

        Args:
            source: what keys and values are made of, (G, B, S, E) each, standardised; None: `x` itself.
            keys: of the noise, (G B,); None: no dropout.
        """
        query = self.norm_attention(x)
        key, value = (query, query) if source is None else map(self.norm_attention.scaled, source)
        mask = None if last_only else causal_mask(query.shape[2], key.shape[2], x.device)
        if last_only:
            x, query = x[:, :, -1:], query[:, :, -1:]
        seen = self.attention(query, key, value, mask, keys, site)
        x = x + maybe_dropped(seen, self.rate, keys, site + 1)
        wide = maybe_dropped(self.widen(self.norm_feed(x)).relu(), self.rate, keys, site + 2)
        return x + maybe_dropped(self.narrow(wide), self.rate, keys, site + 3)


class GroupedTransformer(nn.Module):
    """G transformer encoders of equal shape at once, cross-modal or, with `last_only`, self-attention.

    Args:
        steps: the longest sequence that comes.
        dropped: how many groups, the first ones, drop attention weights.
        last_only: attend to oneself and give the last step alone, so that the last layer computes no other.
        site: first of its noise sites.
    """

    table: Tensor

    def __init__(
        self,
        groups: int,
        steps: int,
        width: int,
        depth: int,
        heads: int,
        *,
        rates: Rates,
        dropped: int,
        last_only: bool,
        site: int,
    ) -> None:
        super().__init__()
        self.groups, self.scale, self.rate, self.last_only, self.site = groups, width**0.5, rates.embed, last_only, site
        self.layers = nn.ModuleList(
            GroupedLayer(groups, width, heads, dropped=dropped, rates=rates) for _ in range(depth)
        )
        self.norm = GroupedNorm(groups, width)
        self.register_buffer("table", position_table(steps, width), persistent=False)

    def forward(self, x: Tensor, source: Tensor | None, noise: Tensor | None) -> Tensor:
        """x (G, B, T, E), source (G, B, S, E) -> (G, B, T, E), or (G, B, 1, E); noise (B,), None: no dropout."""
        keys = None if noise is None else split(noise, self.site, self.groups).flatten()
        x = self._embed(x, keys, 1)
        pair = None if source is None else self._embedded_source(source, keys)
        for depth, layer in enumerate(self.layers, start=1):
            last = self.last_only and depth == len(self.layers)
            x = layer(x, pair, keys, SITES_PER_LAYER * depth, last_only=last)
        return self.norm(x)  # type: ignore[no-any-return]

    def _embed(self, x: Tensor, keys: Tensor | None, site: int) -> Tensor:
        return maybe_dropped(self.scale * x + positions(x, self.table), self.rate, keys, site)

    def _embedded_source(self, source: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        """Standardised once for all layers; keys and values lose different elements."""
        key = standardised(self._embed(source, keys, 2))
        return key, key if keys is None else standardised(self._embed(source, keys, 3))


def alike(items: Iterable[Item], feature: Callable[[Item], Hashable]) -> list[list[Item]]:
    """The items in groups of equal `feature`, in the order they come."""
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(feature(item), []).append(item)
    return list(groups.values())


class MulT(nn.Module):
    """f_0 of M >= 2 sequences: tensors (B, T_i, D_i) -> (B, d).

    Args:
        shapes: (T_i, D_i) of every modality.
        width: of the projections and the cross-modal transformers; self-attention is M - 1 times as wide.
        text: index of the modality whose inputs are dropped, and whose attention weights are, where it is the source.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        latent: int,
        *,
        width: int,
        depth: int,
        heads: int,
        text: int,
        rates: Rates,
    ) -> None:
        super().__init__()
        self.latent = latent
        m, steps = len(shapes), [steps for steps, _ in shapes]
        self.text, self.rate = text, rates.inputs
        self.project = nn.ModuleList(nn.Linear(features, width, bias=False) for _, features in shapes)
        pairs = [(target, source) for target in range(m) for source in range(m) if source != target]
        pairs.sort(key=lambda pair: pair[1] != text)  # the groups that drop attention weights come first
        self.pairs: list[list[Pair]] = alike(pairs, lambda pair: (steps[pair[0]], steps[pair[1]]))
        self.cross = nn.ModuleList(
            GroupedTransformer(
                len(group), max(steps), width, depth, heads,
                rates=rates, dropped=sum(source == text for _, source in group), last_only=False,
                site=FIRST_SITE + 1 + number,
            )
            for number, group in enumerate(self.pairs)
        )  # fmt: skip
        self.targets: list[list[int]] = alike(range(m), lambda target: steps[target])
        self.memory = nn.ModuleList(
            GroupedTransformer(
                len(group), max(steps), (m - 1) * width, depth, heads,
                rates=rates, dropped=len(group), last_only=True, site=FIRST_SITE + 1 + len(self.pairs) + number,
            )
            for number, group in enumerate(self.targets)
        )  # fmt: skip
        self.mix = nn.Sequential(Residual(m * (m - 1) * width), nn.Linear(m * (m - 1) * width, latent))

    @of_complete
    def forward(self, xs: Sequence[Tensor], noise: Tensor | None = None) -> Tensor:
        """M tensors (B, T_i, D_i) -> (B, d).

        Args:
            noise: keys of the samples, (B,); needed in training, unused otherwise.
        """
        if not self.training:
            rows = CPU_ROWS if xs[0].device.type == "cpu" else GPU_ROWS
            blocks = zip(*(torch.split(x, rows) for x in xs), strict=True)
            return torch.cat([self._encoded(list(block), None) for block in blocks])
        if noise is None:
            raise ValueError("MulT drops inputs and units in training, so it needs the batch's noise keys.")
        return self._encoded(list(xs), noise)

    def _encoded(self, xs: list[Tensor], noise: Tensor | None) -> Tensor:
        crossed: dict[Pair, Tensor] = {}
        projected = self._projected(xs, noise)
        for encode, pairs in zip(self.cross, self.pairs, strict=True):
            asking = torch.stack([projected[target] for target, _ in pairs])  # (G, B, T, E)
            answering = torch.stack([projected[source] for _, source in pairs])
            crossed |= zip(pairs, encode(asking, answering, noise), strict=True)
        last: dict[int, Tensor] = {}
        for encode, targets in zip(self.memory, self.targets, strict=True):
            gathered = [
                torch.cat([crossed[target, source] for source in range(len(projected)) if source != target], dim=-1)
                for target in targets
            ]
            last |= zip(targets, encode(torch.stack(gathered), None, noise).squeeze(2), strict=True)
        return self.mix(torch.cat([last[target] for target in range(len(projected))], dim=-1))  # type: ignore[no-any-return]

    def _projected(self, xs: list[Tensor], noise: Tensor | None) -> list[Tensor]:
        if noise is not None and self.rate > 0:
            xs[self.text] = dropout(xs[self.text], self.rate, noise, FIRST_SITE)
        return [project(x) for project, x in zip(self.project, xs, strict=True)]
