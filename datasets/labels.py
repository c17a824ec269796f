"""Which training labels are visible, and how samples are dealt to splits: stratified, and the same for every method.

N samples in C classes; class c has n_c of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.seeds import generator


def label_mask(
    groups: NDArray[np.integer[Any]], ratio: float, *, dataset: str, seed: int, at_least_one: bool
) -> NDArray[np.bool_]:
    """Which training samples show their label, (N,) bool.

    Every class shows its share: within one sample of `ratio * n_c`. Masks are nested: what a smaller ratio shows,
    a larger one shows too, so that curves over the ratio differ by added labels alone. The draw depends on the
    data set and the seed, never on the ratio or the method. At least one label is always shown.

    Where classes are label sets, most of them have a sample or two, and their roundings add up. So there
    (`at_least_one` False) the total comes first: it is `ratio * N`, rounded; a class may then be off by one more for
    every share 1/C of all samples that it has.

    Args:
        groups: class of each sample, (N,); for a multi-label task the code of its label set (`Task.groups`), so that
            codes near one another mean label sets alike.
        ratio: share of the labels that are visible, in (0, 1].
        dataset: the data set's name or fingerprint.
        seed: the run's seed.
        at_least_one: show one label of every class, however small its share; not for label sets.

    Raises:
        ValueError: the ratio is outside (0, 1] or there are no samples.
    """
    _check(groups, ratio)
    if not at_least_one:
        return stratified_rank(groups, "labels", dataset, seed) < max(1, round(ratio * len(groups)))
    keys = _keys(groups, "labels", dataset, seed)
    mask = keys < ratio
    mask[_first_of_each_class(groups, keys)] = True
    return mask


def label_warning(groups: NDArray[np.integer[Any]], ratio: float) -> str | None:
    """A sentence about the classes whose share of labels is less than one label, or None when there are none.

    It tells what `label_mask(..., at_least_one=True)` does about them.

    Raises:
        ValueError: as `label_mask`.
    """
    _check(groups, ratio)
    classes, sizes = np.unique(groups, return_counts=True)
    small = sizes * ratio < 1
    if not small.any():
        return None
    told = [f"class {c} has {n}" for c, n in zip(classes[small], sizes[small], strict=True)]
    if len(told) > 4:
        told[3:] = [f"{len(told) - 3} more"]
    samples = f"{', '.join(told[:-1])} and {told[-1]}" if len(told) > 1 else told[0]
    return (
        f"label ratio {ratio:g} is less than one label for {small.sum()} of {len(classes)} classes ({samples} training "
        f"samples): each of them keeps one label, more than its share."
    )


def stratified_split(
    groups: NDArray[np.integer[Any]], shares: Sequence[float], *axes: str | int | float
) -> list[NDArray[np.int64]]:
    """The samples dealt to `len(shares)` parts, as ascending indices; each class within one sample of each share.

    Args:
        groups: class of each sample, (N,).
        shares: share of each part, positive, with sum 1.
        axes: what the draw depends on (see `seeds.generator`).

    Raises:
        ValueError: the shares are not positive or do not add up to 1.
    """
    if min(shares, default=0.0) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"the shares of a split are positive and add up to 1, got {list(shares)}.")
    part = np.searchsorted(np.cumsum(shares)[:-1], _keys(groups, *axes), side="right")
    return [np.flatnonzero(part == i) for i in range(len(shares))]


def stratified_rank(groups: NDArray[np.integer[Any]], *axes: str | int | float) -> NDArray[np.int64]:
    """The samples in a random order of which every stretch holds its share of every class: the rank of each, (N,).

    Made for thousands of small classes: a stretch holds its share of neighbouring classes together, too.

    Args:
        groups: class of each sample, (N,).
        axes: what the draw depends on (see `seeds.generator`).
    """
    keys = _keys(groups, *axes, neighbours=True)
    rank = np.empty(len(keys), dtype=np.int64)
    rank[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    return rank


def _keys(groups: NDArray[np.integer[Any]], *axes: str | int | float, neighbours: bool = False) -> NDArray[np.float64]:
    """A key in (0, 1) for each sample, (N,): the samples with keys below r are a stratified share r.

    The sample of random rank k = 0..n_c-1 within class c gets (k + u_c) / n_c. The offsets u_c are spread evenly over
    (0, 1): what one class rounds up another rounds down, so that the total keeps its share too. They are the midpoints
    of C equal parts in random order, or with `neighbours` a van der Corput sequence with random digits flipped, of
    which every run of classes has an even part.
    """
    # Raw bits, because NumPy keeps a bit generator's stream over versions, but not that of `permutation`.
    bits = generator(*axes).bit_generator
    _, code, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if neighbours:
        flipped = _reversed_bits(np.arange(len(sizes))) ^ (bits.random_raw() >> 32)
        offset = (flipped + 0.5) / 2**32
    else:
        offset = (np.argsort(bits.random_raw(len(sizes))) + 0.5) / len(sizes)
    order = np.lexsort((bits.random_raw(len(groups)), code))  # class by class, at random within each
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - (np.cumsum(sizes) - sizes)[code[order]]
    keys: NDArray[np.float64] = (rank + offset[code]) / sizes[code]
    return keys


def _reversed_bits(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers below 2^32 with their 32 binary digits in reverse."""
    flipped = np.zeros_like(numbers)
    for digit in range(32):
        flipped |= ((numbers >> digit) & 1) << (31 - digit)
    return flipped


def _first_of_each_class(groups: NDArray[np.integer[Any]], keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the smallest key of each class, (C,)."""
    order = np.lexsort((keys, groups))
    return order[np.unique(groups[order], return_index=True)[1]]


def _check(groups: NDArray[np.integer[Any]], ratio: float) -> None:
    if not 0 < ratio <= 1:
        raise ValueError(f"the label ratio is a share of the training labels in (0, 1], got {ratio!r}.")
    if len(groups) == 0:
        raise ValueError("labels cannot be drawn from a training split without samples.")
