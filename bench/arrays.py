"""What a grid keeps of a training besides its metrics: arrays for the analyses, one compressed file a training.

Names in the file: `embedding/<subset>/<name>` (N, d) and `prediction/<condition>` (N, W) of the test split, with
`target` (N,) or (N, C) and `group` (N,), the class each target counts as; `weight/<condition>/<modality>` (D,), the
mean weight over the test split of each feature in the fusion; `pseudo/<epoch>/weight` and `.../pairs` (S, V, B, B),
`.../pseudo`, `.../true` and `.../labelled` (S, B) of the S training batches of an epoch, where B is the batch, V the
views that pairs are of. N samples, d and W widths, D features.
"""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

What = Literal["embeddings", "predictions", "pseudo_labels", "weights"]
WHATS: tuple[What, ...] = get_args(What)
Arrays = Mapping[str, NDArray[Any]]

PSEUDO_EPOCH = 20
"""The epoch Robult, Figure 9, looks at; a shorter training is looked at in its last."""


class Save(NamedTuple):
    """What of each training is kept; part of no identity, for it changes no result."""

    what: tuple[What, ...] = ()
    checkpoint: str = "last"
    """The weights that embeddings and predictions are of."""

    @property
    def words(self) -> frozenset[str]:
        """What a store remembers to have: with another checkpoint it is something else."""
        return frozenset(f"{name}:{self.checkpoint}" for name in self.what)


NOTHING = Save()


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays to `path`, whole or not at all.

    Raises:
        OSError: the disk is full or the folder not writable.
    """
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read_arrays(path: Path, prefixes: Sequence[str] = ("",)) -> dict[str, NDArray[Any]]:
    """The arrays of a file whose names begin with one of `prefixes`.

    Raises:
        ValueError: the file is damaged.
    """
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name.startswith(tuple(prefixes))}
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
