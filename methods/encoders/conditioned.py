"""Encode once what several test conditions share.

A training is tested on every modality subset and under every corruption, and most of what its encoders read is the same
each time: a modality's samples as they are, corrupted, or zeros where it is hidden. `Conditioned` inputs look to a
method like rows of all conditions together; the encoders of this package see which rows repeat.
Shapes: C conditions, N samples, d latent width.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only


class Conditioned(Tensor):
    """One modality of N samples under C conditions: C N rows, condition after condition, none of them stored twice.

    Whatever is not an encoder gets the rows themselves, made when they are asked for.
    """

    versions: Sequence[Tensor]
    """The samples as they are, or corrupted, each (N, ...)."""
    which: Sequence[int | None]
    """The version each condition shows, None where it hides the modality."""
    available: Tensor
    """(C N, M) bool, of the batch these inputs are hidden by."""

    @staticmethod
    def of(versions: Sequence[Tensor], which: Sequence[int | None], available: Tensor) -> "Conditioned":
        """The rows of C conditions, see the attributes."""
        first = versions[0]
        made: Conditioned = Tensor._make_wrapper_subclass(
            Conditioned, (len(which) * len(first), *first.shape[1:]), dtype=first.dtype, device=first.device
        )
        made.versions, made.which, made.available = versions, which, available
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        args, kwargs = tree_map_only(Conditioned, Conditioned.rows, (args, kwargs or {}))
        return func(*args, **kwargs)

    def under(self, conditions: Sequence[int]) -> "Conditioned":
        """The rows of these conditions alone."""
        return Conditioned.of(self.versions, [self.which[c] for c in conditions], self.available)

    def zero(self) -> Tensor:
        """One hidden sample, (1, ...)."""
        return torch.zeros_like(self.versions[0][:1])

    def rows(self) -> Tensor:
        """All rows, hidden ones zero, (C N, ...)."""
        return self.mapped(lambda x: x)

    def mapped(self, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """What an encoder of single samples, (B, ...) -> (B, d), makes of all rows, asked once a version: (C N, d)."""
        n = len(self.versions[0])
        known = {v: encode(self.versions[v]) for v in dict.fromkeys(self.which) if v is not None}
        hidden = encode(self.zero()) if None in self.which else None
        parts = [known[v] if v is not None else hidden.expand(n, *hidden.shape[1:]) for v in self.which]  # type: ignore[union-attr]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


Network = TypeVar("Network", bound=nn.Module)


def by_sample(forward: Callable[[Network, Tensor], Tensor]) -> Callable[[Network, Tensor], Tensor]:
    """A module's `forward` (B, ...) -> (B, d), in which samples do not see each other: each is then encoded once."""

    @wraps(forward)
    def once(self: Network, x: Tensor) -> Tensor:
        return x.mapped(lambda rows: forward(self, rows)) if isinstance(x, Conditioned) else forward(self, x)

    return once


class Joint(Protocol):
    """A joint encoder says its latent width."""

    latent: int


Together = TypeVar("Together", bound=Joint)
JointForward = Callable[[Together, Sequence[Tensor], Tensor | None], Tensor]


def of_complete(forward: JointForward[Together]) -> JointForward[Together]:
    """A joint encoder's `forward` that, of several conditions, computes those alone that show every modality.

    The methods that have one answer from unimodal latents elsewhere. What is left out is NaN and not just any number,
    so that a method that does read it cannot go unnoticed: the trainer then evaluates one condition after the other.
    """

    @wraps(forward)
    def complete(self: Together, xs: Sequence[Tensor], noise: Tensor | None = None) -> Tensor:
        seen = [x for x in xs if isinstance(x, Conditioned)]
        if len(seen) < len(xs):
            return forward(self, xs, noise)
        count, n = len(seen[0].which), len(seen[0].versions[0])
        whole = [c for c in range(count) if all(x.which[c] is not None for x in seen)]
        if not whole:
            return seen[0].versions[0].new_full((count * n, self.latent), torch.nan)
        found = forward(self, [x.under(whole) for x in seen], noise)
        encoded = dict(zip(whole, torch.split(found, n), strict=True))
        left_out = torch.full_like(encoded[whole[0]], torch.nan)
        return torch.cat([encoded.get(c, left_out) for c in range(count)])

    return complete
