"""What the representation analyses share: checks of arrays, unit norm, a key of their content.

Representations are arrays (n, d), one row a sample. A method's are named as its `embed` names them: `s` of all
modalities, `z/<modality>` of one alone, `u/<modality>` of what one alone knows.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datasets.errors import UserError

Array = NDArray[np.float64]
Representations = Mapping[str, NDArray[Any]]
"""Name -> (n, d): the representations of one method, row by row of the same samples."""

FUSED = "s"
"""The representation of all modalities together."""


class RepresentationError(UserError):
    """An array that an analysis cannot read; the message says which, why, and what would do."""

    exit_code = 1


def checked(name: str, x: ArrayLike, *, least: int = 2) -> Array:
    """The representation as float64 (n, d).

    Args:
        name: what the message calls it.
        x: (n, d); a vector (n,) counts as (n, 1).
        least: fewest rows the analysis can work with.

    Raises:
        RepresentationError: not a matrix of finite numbers, fewer than `least` rows, or no columns.
    """
    try:
        array = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RepresentationError(f"{name} must be an array of numbers (n, d).") from error
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise RepresentationError(f"{name} must have shape (n, d), got {array.shape}.")
    if len(array) < least:
        raise RepresentationError(f"{name} has {len(array)} samples; this analysis needs at least {least}.")
    bad = int((~np.isfinite(array)).any(axis=1).sum())
    if bad:
        raise RepresentationError(
            f"{name} has {bad} of {len(array)} samples with NaN or infinite values: did the training diverge?"
        )
    return array


def varied(name: str, x: Array) -> Array:
    """The representation, unless all its rows are the same up to rounding in single precision.

    Raises:
        RepresentationError: the representation is constant.
    """
    if np.ptp(x, axis=0).max() <= 1e-6 * np.abs(x).max():
        raise RepresentationError(f"{name} is the same for all {len(x)} samples: the representation has collapsed.")
    return x


def unit_rows(name: str, x: ArrayLike, *, least: int = 2) -> Array:
    """The representation with rows of norm 1, as the contrastive losses see it.

    Raises:
        RepresentationError: as `checked`, or a row is zero and has no direction.
    """
    array = checked(name, x, least=least)
    norm = np.linalg.norm(array, axis=1, keepdims=True)
    zero = int((norm == 0).sum())
    if zero:
        raise RepresentationError(f"{name} has {zero} of {len(array)} samples that are zero, without a direction.")
    unit: Array = array / norm
    return unit


def same_samples(**arrays: NDArray[Any]) -> int:
    """The number of rows that all arrays have.

    Raises:
        RepresentationError: they differ.
    """
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise RepresentationError(f"the arrays must describe the same samples, row by row; their sizes are: {told}.")
    return next(iter(sizes.values()))


def checked_classes(classes: ArrayLike, n: int, *, least: int = 1) -> NDArray[np.int64]:
    """Class of each of n samples as integers (n,).

    Args:
        least: fewest different classes the analysis can work with.

    Raises:
        RepresentationError: not n whole numbers, or fewer than `least` classes.
    """
    array = np.asarray(classes)
    if array.shape != (n,):
        raise RepresentationError(f"classes must be one per sample, shape ({n},), got {array.shape}.")
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and np.array_equal(array, np.round(array))):
        raise RepresentationError(f"classes must be whole numbers, got {array.dtype}; regression needs its 7 groups.")
    n_classes = len(np.unique(array))
    if n_classes < least:
        raise RepresentationError(f"this analysis needs samples of at least {least} classes, there is {n_classes}.")
    return array.astype(np.int64)


def modality_of(name: str) -> str:
    """`z/text` -> `text`; `s` -> `full`."""
    return "full" if name == FUSED else name.partition("/")[2] or name


def fused_and_single(method: str, representations: Representations) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """The representation `s` of a method, and by modality those of one modality alone, `z/<modality>`.

    Raises:
        RepresentationError: the method has no `s`, or no `z/<modality>`.
    """
    single = {modality_of(name): x for name, x in representations.items() if name.startswith("z/")}
    if FUSED not in representations or not single:
        there = ", ".join(representations) or "none"
        raise RepresentationError(
            f"{method}: needs the representations {FUSED} and z/<modality> of each modality, got: {there}."
        )
    return representations[FUSED], single


def content_key(*arrays: ArrayLike, **settings: object) -> str:
    """A hexadecimal key of arrays and settings, to cache a costly analysis by what it was made from.

    Equal values of equal type and shape in equal order give equal keys, in any process; settings are compared by
    `repr` and their order does not matter.
    """
    digest = hashlib.blake2b(digest_size=16)
    for array in map(np.ascontiguousarray, arrays):
        digest.update(f"{array.dtype.str}{array.shape};".encode())
        digest.update(array.tobytes())
    digest.update(repr(sorted(settings.items())).encode())
    return digest.hexdigest()
