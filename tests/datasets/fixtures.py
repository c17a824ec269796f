"""Makers of tiny files in the formats of the real data sets."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VIEW_RANGES: dict[str, tuple[int, type, float, float]] = {
    "x1": (240, np.uint8, 0, 6),
    "x2": (76, np.float64, 0.0002, 0.80),
    "x3": (216, np.uint16, 0, 1353),
    "x4": (47, np.float64, 0.001, 778),
    "x5": (64, np.float64, -16.5, 17.1),
    "x6": (6, np.float64, 0, 17572),
}
"""Columns, stored type and range of the six views as the released file has them."""


def handwritten_arrays(train_per_class: int = 10, test_per_class: int = 5, seed: int = 0) -> dict[str, NDArray[Any]]:
    """The variables of `handwritten_6views.mat` with few rows: same keys, types, ranges, rows sorted by class.

    Each class has its own centre, so that a method can learn something.
    """
    rng = np.random.default_rng(seed)
    centres = {view: rng.uniform(0.2, 0.8, (10, columns)) for view, (columns, *_) in VIEW_RANGES.items()}
    arrays: dict[str, NDArray[Any]] = {}
    for part, per_class in (("train", train_per_class), ("test", test_per_class)):
        labels = np.repeat(np.arange(1, 11, dtype=np.uint8), per_class)
        arrays[f"gt_{part}"] = labels[:, None]
        for view, (columns, dtype, low, high) in VIEW_RANGES.items():
            noise = rng.uniform(-0.2, 0.2, (len(labels), columns))
            arrays[f"{view}_{part}"] = (low + (high - low) * (centres[view][labels - 1] + noise)).astype(dtype)
    return arrays


def make_handwritten_mat(path: Path, *, compressed: bool = True, seed: int = 0, **replaced: Any) -> dict[str, Any]:
    """Write such a file and return its variables.

    Args:
        path: the .mat file.
        compressed: as MATLAB 7 writes it; MATLAB 5 did not compress.
        seed: of the values.
        replaced: other values for some variables; None leaves one out.
    """
    import scipy.io

    arrays = {**handwritten_arrays(seed=seed), **replaced}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    scipy.io.savemat(path, arrays, do_compression=compressed)
    return arrays


def make_own_folder(folder: Path, n: int = 90) -> Path:
    """A user's own data: `data.yaml`, a vector and a sequence of `n` samples of three classes; return the folder."""
    folder.mkdir(parents=True)
    rng, label = np.random.default_rng(0), np.arange(n) % 3
    np.save(folder / "text.npy", (rng.normal(size=(n, 6)) + label[:, None]).astype(np.float32))
    np.savez(folder / "rest.npz", audio=rng.normal(size=(n, 4, 3)) + label[:, None, None], label=label)
    (folder / "data.yaml").write_text(
        "task: {kind: multiclass, n_classes: 3}\nmodalities: {text: text.npy, audio: 'rest.npz:audio'}\n"
        "target: 'rest.npz:label'\nsplit: {train: 0.6, valid: 0.2, test: 0.2}\n"
    )
    return folder
