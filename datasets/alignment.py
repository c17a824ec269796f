"""Features brought to another width, so that a model trained on one data set fits another: `pca` or `tsne`.

Every function sees one modality of ONE data set: neither way looks at the other data set or at a label, so that what
comes out has the width of the other's features and not their meaning.

Shapes: N samples, T steps, R rows, D features, W the width wanted. A row is one vector or one step of a sequence; rows
that are zero throughout (padding) take no part and stay zero.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.base import SPLITS, Split
from datasets.errors import DataError
from datasets.progress import report
from datasets.seeds import generator, seed_of
from datasets.statistics import chunks
from datasets.store import data_home

ALIGNMENT_VERSION = 1
"""Goes into fingerprints and names of cached arrays: raise it with any change that changes an array."""
N_NEIGHBOURS = 5
PLACED_AT_ONCE = 20_000
Floats = NDArray[np.float32]


# ---- principal components ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Components:
    """A map from D features to W uncorrelated ones of mean 0 and deviation 1 over the rows it was fitted to."""

    mean: NDArray[np.float64]
    """(D,)."""
    directions: NDArray[np.float64]
    """(D, W), each divided by its deviation; zero where the rows have fewer than W dimensions."""

    def project(self, x: Floats) -> Floats:
        """The components of every row that is not zero, (N, ..., D) -> (N, ..., W)."""
        projected = np.zeros((*x.shape[:-1], self.directions.shape[1]), np.float32)
        start = 0
        for chunk in chunks(x):
            filled = chunk.any(axis=-1)
            projected[start : start + len(chunk)][filled] = (chunk[filled] - self.mean) @ self.directions
            start += len(chunk)
        return projected


def principal_components(x: Floats, width: int) -> Components:
    """The `width` directions in which the rows of `x` (N, ..., D) vary most, in that order.

    A direction's sign is free. It is chosen so that the component is skewed to the right: a property of what the
    features show, not of their coordinates, so that two data sets that show the same skewed quantities agree on it.
    For a symmetric component it is chance, though always the same.
    """
    total, n = np.zeros(x.shape[-1]), 0
    for rows in _filled(x):
        total, n = total + rows.sum(axis=0), n + len(rows)
    mean = total / max(n, 1)
    covariance = np.zeros((len(mean), len(mean)))
    for rows in _filled(x):
        covariance += (rows - mean).T @ (rows - mean) / max(n, 1)
    variances, vectors = np.linalg.eigh(covariance)
    variances, vectors = variances[::-1][:width], vectors[:, ::-1][:, :width]
    # Beyond what the rounding of float32 features shows of directions that are not there.
    seen = variances > max(variances[0], 0) * len(mean) * float(np.finfo(np.float32).eps) ** 2
    directions = vectors * np.where(seen, 1 / np.sqrt(np.where(seen, variances, 1.0)), 0.0)
    skewness = np.zeros(width)
    for rows in _filled(x):
        skewness += (((rows - mean) @ directions) ** 3).sum(axis=0)
    return Components(mean, directions * np.where(skewness < 0, -1.0, 1.0))


def _filled(x: Floats) -> Iterator[NDArray[np.float64]]:
    """The rows that are not zero, some at a time, in double precision."""
    for chunk in chunks(x):
        rows = chunk.reshape(-1, chunk.shape[-1])
        yield rows[rows.any(axis=1)].astype(np.float64)


# ---- t-SNE ------------------------------------------------------------------------------------------------------


def scatter(splits: Mapping[Split, Floats], width: int, landmarks: int, seed: int) -> dict[Split, Floats]:
    """t-SNE coordinates of every row, from one fit to rows of all the splits, {split: (N, ..., W)}.

    t-SNE (van der Maaten and Hinton, 2008) places the rows it is given and has no map for others; its sparse form
    (Barnes-Hut) ends at three dimensions, and the exact form beyond takes time and memory with the square of the
    rows. So it is fitted to at most `landmarks` rows, drawn at random. A row that was not drawn lies between its
    five nearest landmarks, each weighed by one over its distance. With no more rows than landmarks this is plain t-SNE.
    Perplexity is 30, or a third of the rows where these are few.

    Raises:
        DataError: too few different rows for `width` coordinates.
    """
    whole = np.concatenate([x.reshape(-1, x.shape[-1]) for x in splits.values()])  # (R, D)
    filled = np.flatnonzero(whole.any(axis=1))
    chosen = filled
    if len(filled) > landmarks:
        drawn = generator("alignment", "landmarks", seed).choice(filled, landmarks, replace=False)
        chosen = np.sort(drawn)
    found = _tsne(whole[chosen], width, seed)
    placed = np.zeros((len(whole), width), np.float32)
    rest = np.setdiff1d(filled, chosen, assume_unique=True)
    if len(rest):
        _place(whole, rest, placed, whole[chosen], found)
    placed[chosen] = found
    ends = np.cumsum([x[..., 0].size for x in splits.values()])[:-1]
    parts = np.split(placed, ends)
    return {split: part.reshape(*x.shape[:-1], width) for (split, x), part in zip(splits.items(), parts, strict=True)}


def _tsne(rows: Floats, width: int, seed: int) -> Floats:
    from sklearn.manifold import TSNE

    if (n := len(np.unique(rows, axis=0))) <= width:
        raise DataError(f"t-SNE to {width} features needs more than {width} different rows, here are {n}")
    fitted = TSNE(
        width,
        perplexity=min(30.0, (len(rows) - 1) / 3),
        method="barnes_hut" if width <= 3 else "exact",
        random_state=seed_of("alignment", "tsne", seed) % 2**32,
    )
    found: Floats = fitted.fit_transform(rows).astype(np.float32)
    return found


def _place(whole: Floats, rest: NDArray[np.int64], placed: Floats, landmarks: Floats, positions: Floats) -> None:
    """Write the positions of the rows `rest` of `whole` (R, D) to `placed` (R, W)."""
    from sklearn.neighbors import KNeighborsRegressor

    nearest = KNeighborsRegressor(min(N_NEIGHBOURS, len(landmarks)), weights="distance").fit(landmarks, positions)
    for start in range(0, len(rest), PLACED_AT_ONCE):
        rows = rest[start : start + PLACED_AT_ONCE]
        placed[rows] = nearest.predict(whole[rows])
        report("placing rows between the landmarks", start + len(rows), len(rest))


# ---- one modality, and what is kept of it -----------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How the features of one modality are brought to a width."""

    align: str
    """`pca` or `tsne`."""
    width: int
    landmarks: int = 0
    """Both 0 for `pca`, which draws nothing."""
    seed: int = 0


def align(splits: Mapping[Split, Floats], recipe: Recipe, owner: str) -> dict[Split, Floats]:
    """Every split of one modality with `recipe.width` features; `pca` is fitted to the training split alone.

    Args:
        splits: {split: (N, D) or (N, T, D)}, all three.
        recipe: the way and the width.
        owner: whose they are, for messages: `audio of 'cmu_mosei'`.

    Raises:
        DataError: a value is not finite, or there are too few rows.
    """
    if not all(np.isfinite(chunk).all() for x in splits.values() for chunk in chunks(x)):
        raise DataError(
            f"{owner} holds values that are NaN or infinite, which cannot be aligned: let its options clean them."
        )
    if recipe.align == "pca":
        components = principal_components(splits["train"], recipe.width)
        return {split: components.project(x) for split, x in splits.items()}
    try:
        return scatter(splits, recipe.width, recipe.landmarks, recipe.seed)
    except DataError as error:
        raise DataError(f"{owner}: {error}; align: pca takes any number of rows.") from None


def cache_folder() -> Path:
    """Where aligned arrays are kept, beside the stores; it may be removed at any time."""
    return data_home() / ".cache"


def kept(
    key: str, shapes: Mapping[Split, tuple[int, ...]], make: Callable[[], dict[Split, Floats]]
) -> dict[Split, Floats]:
    """What `make` returns, from the cache where it is there; processes that want it at once wait for one of them.

    A cached file that is damaged is made again, and where none can be written the arrays are simply not kept.

    Args:
        key: a hash of all that determines the arrays.
        shapes: {split: shape} of what `make` returns.
        make: the costly part.
    """
    path = cache_folder() / f"aligned-{key}.safetensors"
    found = _read(path, shapes)
    if found is None:
        with _alone(path.parent):
            found = _read(path, shapes)
            if found is None:
                found = make()
                _write(path, found)
    return found


def _read(path: Path, shapes: Mapping[Split, tuple[int, ...]]) -> dict[Split, Floats] | None:
    """The arrays of the file, memory-mapped; None where it is not there or not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            found: dict[Split, Floats] = {split: file.get_tensor(split).numpy() for split in shapes}
    except (OSError, SafetensorError):
        return None
    sound = all(found[split].shape == shape and found[split].dtype == np.float32 for split, shape in shapes.items())
    return found if sound else None


def _write(path: Path, arrays: Mapping[Split, Floats]) -> None:
    """Write the file whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with suppress(OSError, SafetensorError):  # a full or read-only disk costs time, not the result
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = mkstemp(prefix=f".{path.stem}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        try:
            save_file({str(split): np.ascontiguousarray(x) for split, x in arrays.items()}, name)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the cache's lock; where there can be none, go on without: the work is then done twice, not wrongly."""
    import fcntl

    handle: Any = None
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / "lock").open("w")
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            handle.close()


def split_shapes(shape: tuple[int, ...], sizes: Mapping[Split, int], width: int) -> dict[Split, tuple[int, ...]]:
    """Shape of every split of a modality once its features have the given width."""
    return {split: (sizes[split], *shape[:-1], width) for split in SPLITS}
