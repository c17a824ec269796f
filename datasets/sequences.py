"""What sequences of features need: lengths read off the padding, padding in front, clean values, scaling.

Shapes: N samples, T steps, D features. Everywhere in this suite padding is rows of zeros BEFORE the first step, so
that the last step of every sample is its last word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.base import Part, Split
from datasets.statistics import chunks

Floats = NDArray[np.float32]
CleanUp = Literal["all", "reference"]
LARGEST = float(np.finfo(np.float32).max)


def lengths(x: Floats) -> NDArray[np.int64]:
    """Steps from the first row that is not zero to the end, (N, T, D) -> (N,); 0 for a sample that is all zero."""
    found = np.empty(len(x), dtype=np.int64)
    start = 0
    for chunk in chunks(x):
        filled = (chunk != 0).any(axis=2)
        found[start : start + len(chunk)] = np.where(filled.any(axis=1), x.shape[1] - filled.argmax(axis=1), 0)
        start += len(chunk)
    return found


def is_empty(x: NDArray[Any]) -> NDArray[np.bool_]:
    """Samples without any value that float32 can tell from zero, (N, ...) -> (N,)."""
    # Padding comes first: most samples are told by their last step.
    found: NDArray[np.bool_] = np.logical_not(as_float32(x[:, -1]).reshape(len(x), -1).any(axis=1))
    for row in np.flatnonzero(found):
        found[row] = not as_float32(x[row]).any()
    return found


def turn_left(x: NDArray[Any], length: NDArray[np.int64]) -> NDArray[Any]:
    """Move what follows the first `length` steps of each sample in front of them; nothing is lost, (N, T, D).

    Of right-padded sequences this makes left-padded ones, and sequences that share `length` stay aligned.
    """
    turned = np.empty_like(x)
    for row, n in enumerate(length):
        cut = x.shape[1] - n
        turned[row, :cut], turned[row, cut:] = x[row, n:], x[row, :n]
    return turned


# ---- values that are not finite ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """The values of one array that are not finite as float32, and where they were."""

    index: NDArray[np.int64]
    """Positions in the flattened array, (K,)."""
    value: Floats
    """-inf, +inf or NaN, (K,)."""

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind, kinds that occur only."""
        kinds = {"-inf": self.value == -np.inf, "+inf": self.value == np.inf, "NaN": np.isnan(self.value)}
        return {kind: int(found.sum()) for kind, found in kinds.items() if found.any()}

    @property
    def beyond_reference(self) -> "Broken":
        """Those that the reference codes leave: all but -inf."""
        kept = self.value != -np.inf
        return Broken(self.index[kept], self.value[kept])


def as_float32(x: NDArray[Any]) -> Floats:
    """`x` as float32, without a copy where it is that; what is beyond float32 becomes infinite."""
    with np.errstate(over="ignore"):
        return x.astype(np.float32, copy=False)


def fits_float32(x: NDArray[Any]) -> bool:
    """Whether every value is certainly finite as float32; of extremes alone, which takes no memory."""
    return not x.size or (float(x.min()) >= -LARGEST and float(x.max()) <= LARGEST)  # neither holds of NaN


def cleaned(x: NDArray[Any]) -> Floats:
    """`x` as float32 with zeros for what is not finite; without a copy where nothing changes."""
    cast = as_float32(x)
    return cast if fits_float32(cast) else np.where(np.isfinite(cast), cast, np.float32(0))


def find_broken(x: NDArray[Any]) -> Broken:
    """What `cleaned` takes away."""
    index, value, start = [np.empty(0, np.int64)], [np.empty(0, np.float32)], 0
    for chunk in chunks(x):
        if not fits_float32(chunk):
            cast = as_float32(chunk)
            broken = ~np.isfinite(cast)
            index.append(start + np.flatnonzero(broken))
            value.append(cast[broken])
        start += chunk.size
    return Broken(np.concatenate(index), np.concatenate(value))


def clean(x: NDArray[Any]) -> tuple[Floats, Broken]:
    """`cleaned` and what it took away.

    The reference codes (MulT, GMC, MMSA, MultiBench) zero only -inf, and only in the audio.
    """
    broken = find_broken(x)
    return (cleaned(x) if len(broken.index) else as_float32(x)), broken


def restore(x: Floats, broken: Broken) -> Floats:
    """A copy of a cleaned array with values put back, for runs that repeat a reference code to the letter."""
    whole = np.array(x, order="C")
    whole.reshape(-1)[broken.index] = broken.value
    return whole


# ---- scaling ----------------------------------------------------------------------------------------------------


def standardise(parts: Mapping[Split, Part]) -> dict[Split, Part]:
    """Each feature to mean 0 and deviation 1 over the rows of the training split that are not padding.

    Padding stays zero; a feature that never changes is only shifted. Nothing is learnt from the other splits.
    """
    fitted = {name: moments(x) for name, x in parts["train"].inputs.items()}
    return {
        split: Part({name: apply_moments(x, *fitted[name]) for name, x in part.inputs.items()}, part.target)
        for split, part in parts.items()
    }


def moments(x: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each feature over the rows that are not zero, (D,) each, in double precision."""
    total, n = np.zeros(x.shape[-1]), 0
    for chunk in chunks(x):
        rows = _filled(chunk)
        total += rows.sum(axis=0)
        n += len(rows)
    mean = total / max(n, 1)
    squares = np.zeros(x.shape[-1])
    for chunk in chunks(x):
        squares += np.square(_filled(chunk) - mean).sum(axis=0)
    return mean, np.sqrt(squares / max(n, 1))


def _filled(chunk: Floats) -> NDArray[np.float64]:
    rows = chunk.reshape(-1, chunk.shape[-1])
    return rows[rows.any(axis=1)].astype(np.float64)


def apply_moments(x: Floats, mean: NDArray[np.floating[Any]], std: NDArray[np.floating[Any]]) -> Floats:
    """`(x - mean) / std` in the rows that are not zero, (..., D); a deviation of 0 counts as 1."""
    scaled = np.zeros_like(x)
    scale = np.where(std > 0, std, 1.0)
    for source, target in zip(chunks(x), chunks(scaled), strict=True):
        filled = source.any(axis=-1)
        target[filled] = (source[filled] - mean) / scale
    return scaled
