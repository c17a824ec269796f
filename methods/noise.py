"""Random numbers without state: a hash of (sample's key, site, element), the same alone, in a stack or in a graph.

Every sample of a batch carries a key (`Batch.noise`), made by `row_keys` from the replica's seed, the step and the
row. A method names each place that draws noise by a `site` number of its own. Plain integer tensor operations, so
they vmap, and a replica's numbers do not depend on its neighbours. Shapes: B samples.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_LOW32 = 0xFFFFFFFF


def _signed(word: int) -> int:
    """The 32-bit integer with the bits of `word`."""
    return (word & _LOW32) - ((word & 0x80000000) << 1)


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit words in which every input bit moves about half of the output bits, int32 -> int32.

    32 bits, because vector units multiply them at once where they do not 64. Right shifts must not drag the sign along,
    hence the masks.
    """
    x = (x >> 16).bitwise_and_(0xFFFF).bitwise_xor_(x).mul_(_signed(0x7FEB352D))
    x = x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(_signed(0x846CA68B))
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def _word(key: Tensor) -> Tensor:
    """int64 below 2^32 -> int32 of the same bits."""
    return torch.where(key > 0x7FFFFFFF, key - (1 << 32), key).to(torch.int32)


def _key(word: Tensor) -> Tensor:
    """int32 -> int64 below 2^32 of the same bits."""
    return word.to(torch.int64) & _LOW32


def row_keys(seed: int, step: int, size: int, device: torch.device | str = "cpu") -> Tensor:
    """Keys of the samples of one batch, (B,) int64 below 2^32; another seed, step or row gives another key."""
    return replica_keys([seed], step, size, device)[0]


def replica_keys(seeds: Sequence[int], step: int, size: int, device: torch.device | str = "cpu") -> Tensor:
    """The keys of K replicas, each those of its own seed, (K, B) int64 below 2^32."""
    return step_keys(seeds, range(step, step + 1), size, device)[0]


def step_keys(seeds: Sequence[int], steps: range, size: int, device: torch.device | str = "cpu") -> Tensor:
    """The keys of K replicas for several steps at once, (S, K, B) int64 below 2^32."""
    low, high = (
        torch.tensor([[_signed(seed >> shift)] for seed in seeds], dtype=torch.int32, device=device)
        for shift in (0, 32)
    )
    row = torch.arange(size, device=device, dtype=torch.int32)
    step = _word(torch.arange(steps.start, steps.stop, device=device) & _LOW32)[:, None, None]
    return _key(_mix(_mix(_mix(row + low) + step) + high))


def uniform(key: Tensor, site: int, shape: tuple[int, ...] = ()) -> Tensor:
    """Numbers in [0, 1) with 24 bits, one block of `shape` a sample: (B,) -> (B, *shape)."""
    word = _words(key, site, math.prod(shape)).reshape(key.shape + shape)
    return ((word >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def _words(key: Tensor, site: int, count: int) -> Tensor:
    """`count` random words of 32 bits a sample, (B,) -> (B, count) int32."""
    start = _mix(_word(key) + _signed(0x9E3779B9 * (site + 1)))[..., None]
    return _mix(start + _signed(0x85EBCA6B) * torch.arange(count, device=key.device, dtype=torch.int32))


def split(key: Tensor, site: int, count: int) -> Tensor:
    """`count` keys in place of each, for as many networks that run as one: (B,) -> (count, B) int64 below 2^32."""
    return _key(_words(key, site, count)).mT


def normal(key: Tensor, site: int, shape: tuple[int, ...] = ()) -> Tensor:
    """Standard normal numbers, (B,) -> (B, *shape), by the Box-Muller transform of two uniforms."""
    first, second = uniform(key, 2 * site, shape), uniform(key, 2 * site + 1, shape)
    return torch.sqrt(-2.0 * torch.log1p(-first)) * torch.cos(2.0 * math.pi * second)


def dropout(x: Tensor, p: float, key: Tensor, site: int) -> Tensor:
    """`x` (B, ...) with each element zero with probability `p`, the others scaled by 1 / (1 - p).

    A word of 32 bits decides over two elements, so `p` counts in steps of 2^-16.
    """
    count, steps = math.prod(x.shape[1:]), round(p * 2**16)
    if steps == 0:
        return x
    halves = _words(key, site, (count + 1) // 2).view(torch.int16)[..., :count]
    first_kept = steps - 2**15
    kept = halves.clamp(first_kept - 1, first_kept).sub_(first_kept - 1)  # 0 or 1; quicker than to compare, on CPUs
    return x * kept.to(x.dtype).mul_(2**16 / (2**16 - steps)).reshape(x.shape)
