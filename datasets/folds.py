"""K folds of a data set that has one pool of samples, as a grid asks for them: `digits: {fold: [1, 2, 3, 4, 5]}`.

The samples of all released splits are dealt to K parts, once and for all. Fold k tests part k, validates on the part
after it and trains on the rest: of ten, 8, 1 and 1, as RAML (section IV-A) has it. N samples in all.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from datasets.base import SPLITS, DataConfig, DataSpec, Part, Split
from datasets.errors import DataError
from datasets.labels import stratified_rank

Rows = Mapping[Split, NDArray[np.int64]]
C = TypeVar("C", bound="FoldConfig")


class FoldConfig(DataConfig):
    """Options of a data set that can be dealt to folds."""

    fold: int | None = Field(
        default=None, ge=1, description="which of `folds` parts is tested, the next one validates; without: the split"
    )
    folds: int = Field(default=5, ge=3, le=100, description="parts that all samples are dealt to, stratified")

    @model_validator(mode="after")
    def _fold_is_one_of_them(self: C) -> C:
        if self.fold is not None and self.fold > self.folds:
            raise ValueError(f"fold is one of 1 to {self.folds} (folds: {self.folds}), got {self.fold}.")
        return self


def dealt_spec(spec: DataSpec, config: FoldConfig, rows: Rows | None = None) -> DataSpec:
    """The description of the fold that `config` asks for; `spec` itself where it asks for none.

    Args:
        spec: of the released splits.
        config: which fold.
        rows: who is in it, where that is not by `stratified_rows`.

    Raises:
        DataError: there are too few samples for so many folds.
    """
    if config.fold is None:
        return spec
    if rows is None:  # the sizes are known without reading a target
        part = _parts(np.arange(sum(spec.sizes.values())), config.folds)
        rows = _splits(part, config.fold, config.folds)
    sizes: dict[Split, int] = {split: len(rows[split]) for split in SPLITS}
    if not all(sizes.values()):
        raise DataError(f"data set '{spec.name}' is too small for {config.folds} folds: fold {config.fold} is empty.")
    return replace(spec, sizes=sizes, fingerprint=f"{spec.fingerprint}-fold={config.fold}of{config.folds}")


def dealt(
    parts: Mapping[Split, Part], spec: DataSpec, config: FoldConfig, rows: Rows | None = None
) -> Mapping[Split, Part]:
    """The splits of the fold that `config` asks for, before anything is learnt from a split, such as a scaling.

    `parts` themselves where it asks for none. Arguments as for `dealt_spec`.
    """
    if config.fold is None:
        return parts
    if rows is None:
        target = np.concatenate([parts[split].target for split in SPLITS])
        rows = stratified_rows(groups_of(spec, target), spec.name, config)
    return {split: gather(parts, rows[split]) for split in SPLITS}


def groups_of(spec: DataSpec, target: NDArray[Any]) -> NDArray[np.int64]:
    """What the draw is stratified by: classes, label sets, or levels of a value, (N,)."""
    import torch

    groups: NDArray[np.int64] = spec.task.groups(torch.as_tensor(target)).numpy()
    return groups


def stratified_rows(groups: NDArray[np.integer[Any]], name: str, config: FoldConfig) -> Rows:
    """The fold's rows, counted through the three released splits; parts are equal to one sample.

    The deal depends on the data set's name, its classes and the number of folds, never on a seed.
    """
    assert config.fold is not None
    part = _parts(stratified_rank(groups, "folds", name, config.folds), config.folds)
    return _splits(part, config.fold, config.folds)


def block_rows(
    groups: NDArray[np.integer[Any]], blocks: NDArray[np.integer[Any]], name: str, config: FoldConfig
) -> Rows:
    """As `stratified_rows`, but what belongs together, such as the clips of one video, stays in one part.

    Blocks are dealt largest first, each to the part that then lies nearest its share of every class; parts are equal as
    far as the blocks allow.

    Args:
        groups: class of each sample, (N,).
        blocks: code of the block of each sample, (N,).
        name: the data set's.
        config: which fold.
    """
    assert config.fold is not None
    _, group = np.unique(groups, return_inverse=True)
    _, block = np.unique(blocks, return_inverse=True)
    counts = np.zeros((block.max() + 1, group.max() + 1))
    np.add.at(counts, (block, group), 1)
    share = counts.sum(axis=0) / config.folds
    held = np.zeros((config.folds, len(share)))
    part = np.empty(len(counts), dtype=np.int64)
    tie = stratified_rank(np.zeros(len(counts), dtype=np.int64), "folds", name, config.folds)
    for number in np.lexsort((tie, -counts.sum(axis=1))):
        # Squares grow fastest where a part is already full, so that sizes come out equal too.
        cost = (((held + counts[number]) / share) ** 2 - (held / share) ** 2).sum(axis=1)
        part[number] = np.argmin(cost)
        held[part[number]] += counts[number]
    return _splits(part[block], config.fold, config.folds)


def _parts(rank: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    return rank * folds // len(rank)


def _splits(part: NDArray[np.int64], fold: int, folds: int) -> Rows:
    test, valid = fold - 1, fold % folds
    return {
        "train": np.flatnonzero((part != test) & (part != valid)),
        "valid": np.flatnonzero(part == valid),
        "test": np.flatnonzero(part == test),
    }


def gather(parts: Mapping[Split, Part], rows: NDArray[np.int64]) -> Part:
    """The samples with these numbers, counted through the three splits, (K,)."""
    pools = [parts[split] for split in SPLITS]
    starts = np.cumsum([0, *map(len, pools)])
    if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        for pool, start in zip(pools, starts, strict=False):
            if start == rows[0] and len(pool) == len(rows):
                return pool  # the very split, still mapped
    inputs = {name: np.empty((len(rows), *x.shape[1:]), x.dtype) for name, x in pools[0].inputs.items()}
    target = np.empty((len(rows), *pools[0].target.shape[1:]), pools[0].target.dtype)
    for pool, start in zip(pools, starts, strict=False):
        here = (rows >= start) & (rows < start + len(pool))
        target[here] = pool.target[rows[here] - start]
        for name, x in pool.inputs.items():
            inputs[name][here] = x[rows[here] - start]
    return Part(inputs, target)
