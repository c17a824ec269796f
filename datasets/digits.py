"""Handwritten digits, 8x8 pixels, the upper and the lower half as two modalities; ready to use, no download."""

import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.base import SPLITS, Data, DataSet, DataSpec, Part, Split
from datasets.errors import DataError
from datasets.folds import FoldConfig, dealt, dealt_spec
from datasets.labels import stratified_split
from datasets.store import fingerprint
from datasets.tasks import MultiClass

TASK = MultiClass(10)
SIZES: dict[Split, int] = {"train": 1077, "valid": 360, "test": 360}
FINGERPRINT = "154408877c8e9897bde12b5b68a7084c"
SHARES = (0.6, 0.2, 0.2)


class Digits(DataSet):
    """1797 images of the ten digits, pixels in [0, 1]; a fixed stratified split of 60, 20 and 20 percent."""

    name = "digits"
    summary = "scikit-learn's 8x8 digits, upper and lower half as two modalities"
    source = "UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998), test part, in scikit-learn"
    licence = "CC BY 4.0 (UCI); the copy comes with scikit-learn (BSD-3-Clause)"
    Config = FoldConfig
    config: FoldConfig

    def spec(self) -> DataSpec:
        return dealt_spec(self._whole(), self.config)

    def _whole(self) -> DataSpec:
        # Constants, so that planning reads nothing; `load` holds the content against them.
        return DataSpec(self.name, {"upper": (32,), "lower": (32,)}, TASK, SIZES, FINGERPRINT)

    def load(self) -> Data:
        table = _read_table()
        pixels, target = (table[:, :64] / 16).astype(np.float32), table[:, 64].astype(np.int64)
        split = stratified_split(target, SHARES, "digits", "split")
        parts = {
            name: Part({"upper": pixels[rows, :32], "lower": pixels[rows, 32:]}, target[rows])
            for name, rows in zip(SPLITS, split, strict=True)
        }
        if fingerprint(TASK, parts) != FINGERPRINT:
            raise DataError(
                "data set 'digits' is not what the suite was made with: the digits.csv.gz of this scikit-learn holds "
                "other values. Install another version of scikit-learn."
            )
        return Data(self.spec(), dealt(parts, self._whole(), self.config))


def _read_table() -> NDArray[np.float64]:
    """The file that scikit-learn bundles, (1797, 65): 64 pixels 0..16 and the digit.

    Read straight from its folder: importing scikit-learn for it costs a worker 1.5 s, reading it 3 ms.

    Raises:
        DataError: scikit-learn is not installed, or the file is not there or not a table.
    """
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise DataError("data set 'digits' comes with scikit-learn, which is not installed: pip install scikit-learn.")
    path = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise DataError(f"data set 'digits' cannot be read from {path}: {error}. Reinstall scikit-learn.") from error
    if table.shape != (1797, 65):
        raise DataError(f"data set 'digits' has shape {table.shape} in {path}, expected (1797, 65).")
    return table
