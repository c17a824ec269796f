"""Named random streams: every generator is made from a hash of the axes its numbers should depend on."""

import hashlib

import numpy as np


def seed_of(*axes: str | int | float) -> int:
    """A 63-bit seed that is the same for the same axes, in any process and on any machine.

    Axes are compared by their printed form, so `0.5` and `"0.5"` give one seed and `1` and `1.0` two.

    Raises:
        ValueError: an axis contains the unit separator used to join them.
    """
    words = [str(axis) for axis in axes]
    if any("\x1f" in word for word in words):
        raise ValueError(f"a seed axis must not contain the unit separator \\x1f, got {words!r}.")
    digest = hashlib.blake2b("\x1f".join(words).encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*axes: str | int | float) -> np.random.Generator:
    """A NumPy generator for the stream named by `axes`; global random state is never touched."""
    return np.random.Generator(np.random.PCG64(seed_of(*axes)))
