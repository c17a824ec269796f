"""UCI "Multiple Features": handwritten numerals in six views, in the file and split of the TMC reference code.

N samples; a view is a modality.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from datasets import matlab
from datasets.base import Data, DataSet, DataSpec, Part, Split
from datasets.errors import DataError
from datasets.folds import FoldConfig, dealt, dealt_spec
from datasets.labels import stratified_split
from datasets.store import read_spec, read_store, spec_of, store_directory, write_store
from datasets.tasks import MultiClass

VIEWS = {"pix": 240, "fou": 76, "fac": 216, "zer": 47, "kar": 64, "mor": 6}
"""UCI's names: pixel averages, Fourier coefficients, profile correlations, Zernike moments, Karhunen-Loeve
coefficients, morphological features; in the file they are x1 to x6."""

TASK = MultiClass(10)
FILE_NAME = "handwritten_6views.mat"
SHA256 = "d731ec02aaa97cf9a5826df68b0dd1e73ba61a82ba3c8f64606ba402926c885b"
ROWS = {"train": 1600, "test": 400}
VALID_SHARE = 0.2
"""Share of the released training part that becomes the validation split; the file has none."""

MAX_FILE_BYTES = 64 << 20
MAX_ROWS = 20_000
MIN_TRAIN_ROWS_PER_CLASS = 5

Arrays = Mapping[str, NDArray[Any]]


class HandwrittenConfig(FoldConfig):
    """Options of `handwritten`."""

    scaling: Literal["train", "released"] = Field(
        default="train",
        description="min-max to [0, 1] per feature: fitted on the training split alone, or as the TMC reference code "
        "does, separately on its training and its test part, which lets the test samples be seen together",
    )

    @model_validator(mode="after")
    def _folds_are_not_as_released(self) -> "HandwrittenConfig":
        if self.fold is not None and self.scaling == "released":
            raise ValueError("scaling: released is of the released parts, which a fold mixes: leave one of them out.")
        return self


class Handwritten(DataSet):
    """2000 numerals of 10 classes in six views; 1280 to train, 320 to validate (fixed), the official 400 to test."""

    name = "handwritten"
    summary = "UCI handwritten numerals in six views, as TMC splits them (one file)"
    source = f"UCI Multiple Features (R. Duin, 1998); {FILE_NAME} of the TMC reference code (hanmenghan/TMC)"
    licence = "UCI: CC BY 4.0 as far as we know, see its page before passing it on; the TMC repository states none"
    Config = HandwrittenConfig
    config: HandwrittenConfig

    def spec(self) -> DataSpec:
        return dealt_spec(self._scaled(read_spec(store_directory(self.name))), self.config)

    def load(self) -> Data:
        raw = read_store(store_directory(self.name))
        whole = self._scaled(raw.spec)
        parts = scale(dealt(raw.parts, whole, self.config), self.config.scaling)
        return Data(dealt_spec(whole, self.config), parts)

    def _scaled(self, raw: DataSpec) -> DataSpec:
        """The store's spec, checked, with the scaling in its fingerprint."""
        if dict(raw.modalities) != {name: (width,) for name, width in VIEWS.items()} or raw.task != TASK:
            raise DataError(
                f"the store in {store_directory(self.name)} does not hold the six views of '{self.name}'. "
                f"Prepare it with: bench data prepare {self.name} --from PATH"
            )
        fingerprint = f"{raw.fingerprint}-{self.config.scaling}"
        return DataSpec(self.name, raw.modalities, raw.task, raw.sizes, fingerprint)

    @classmethod
    def prepare(cls, source: Path, store: Path) -> None:
        """Turn the .mat file (or the folder that holds it) into a store of raw values.

        Raises:
            DataError: the file is absent, damaged or not this data set.
        """
        path = source / FILE_NAME if source.is_dir() else source
        content = _read_file(path)
        arrays = read_mat(path, content)
        parts = split(arrays)
        provenance = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest()}
        if provenance["sha256"] != SHA256:
            rows = " and ".join(f"{len(arrays[f'gt_{part}'])} {part}" for part in ROWS)
            provenance["note"] = f"not the file of the TMC reference code, but of its form: {rows} rows"
        write_store(store, spec_of(cls.name, TASK, parts), parts, provenance)


# ---- from arrays to splits --------------------------------------------------------------------------------------


def split(arrays: Arrays) -> dict[Split, Part]:
    """Raw views as float32 and classes from 0: the official test part, and a fixed fifth of the rest to validate."""
    target = {part: arrays[f"gt_{part}"].ravel().astype(np.int64) - 1 for part in ROWS}
    views = {
        part: {name: arrays[f"x{i}_{part}"].astype(np.float32) for i, name in enumerate(VIEWS, start=1)}
        for part in ROWS
    }
    kept, held_out = stratified_split(target["train"], (1 - VALID_SHARE, VALID_SHARE), "handwritten", "split")

    def rows_of(rows: NDArray[np.int64]) -> Part:
        return Part({name: x[rows] for name, x in views["train"].items()}, target["train"][rows])

    return {"train": rows_of(kept), "valid": rows_of(held_out), "test": Part(views["test"], target["test"])}


def scale(parts: Mapping[Split, Part], scaling: str) -> dict[Split, Part]:
    """Min-max scaling per feature, in double precision.

    "train": low and high are those of the training split; other splits may leave [0, 1]. "released": train and
    valid are scaled by the two together, as they are one part in the file, and test by itself.
    """
    fitted: dict[Split, tuple[Split, ...]] = {"train": ("train",), "valid": ("train",), "test": ("train",)}
    if scaling == "released":
        fitted = {"train": ("train", "valid"), "valid": ("train", "valid"), "test": ("test",)}
    scaled: dict[Split, Part] = {}
    for name, part in parts.items():
        inputs = {}
        for view, x in part.inputs.items():
            seen = np.concatenate([parts[other].inputs[view] for other in fitted[name]]).astype(np.float64)
            low, width = seen.min(axis=0), np.ptp(seen, axis=0)
            inputs[view] = ((x - low) / np.where(width > 0, width, 1)).astype(np.float32)  # constant: only shifted
        scaled[name] = Part(inputs, part.target)
    return scaled


# ---- reading a file that may be anything ------------------------------------------------------------------------


def read_mat(path: Path, content: bytes) -> dict[str, NDArray[Any]]:
    """The six views and the classes of the .mat file, checked: `x1_train` (N, 240), ..., `gt_test` (N, 1).

    Only the wanted numeric arrays are read, and they only after their declared shapes are known to be right; other
    variables are left alone.

    Args:
        path: the file's name, for messages.
        content: its bytes.

    Raises:
        DataError: what is wrong with it, in one sentence.
    """
    wanted = _wanted()
    try:
        declared = matlab.variables(content)
        _check_declared(path, declared)
        arrays = {variable.name: variable.read() for variable in declared if variable.name in wanted}
    except matlab.MalformedFile as error:
        raise _refused(path, str(error)) from error
    for name, array in arrays.items():
        _check_finite(path, name, array)
    for part in ROWS:
        _check_classes(path, part, arrays[f"gt_{part}"])
    return arrays


def _wanted() -> dict[str, tuple[str, int]]:
    """Variable name -> (part, number of columns)."""
    names = {f"x{i}_{part}": (part, columns) for part in ROWS for i, columns in enumerate(VIEWS.values(), start=1)}
    return names | {f"gt_{part}": (part, 1) for part in ROWS}


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > MAX_FILE_BYTES:
        raise _refused(path, f"is larger than {MAX_FILE_BYTES >> 20} MiB, {FILE_NAME} has 3.5 MB")
    return content


def _check_declared(path: Path, declared: list[matlab.Variable]) -> None:
    """Names, kinds and shapes, as the file states them, before any array is read."""
    names, wanted = [variable.name for variable in declared], _wanted()
    if missing := [name for name in wanted if name not in names]:
        raise _refused(path, f"lacks '{missing[0]}': it holds {', '.join(names[:14]) or 'no variables'}")
    rows: dict[str, int] = {}
    for variable in declared:
        name, shape = variable.name, variable.shape
        if name not in wanted:
            continue
        if names.count(name) > 1:
            raise _refused(path, f"holds '{name}' more than once")
        if variable.kind != matlab.NUMBERS:
            raise _refused(path, f"has '{name}' as {variable.kind}, expected numbers")
        part, columns = wanted[name]
        if len(shape) != 2 or shape[1] != columns:
            raise _refused(path, f"has '{name}' of shape {shape}, expected (rows, {columns})")
        if not 1 <= shape[0] <= MAX_ROWS:
            raise _refused(path, f"has {shape[0]} rows in '{name}', expected {ROWS[part]}")
        if rows.setdefault(part, shape[0]) != shape[0]:
            raise _refused(path, f"has {shape[0]} rows in '{name}', but {rows[part]} in others of the {part} part")


def _check_finite(path: Path, name: str, array: NDArray[Any]) -> None:
    """Finite numbers that stay finite as float32."""
    with np.errstate(over="ignore"):
        broken = int(array.size - np.isfinite(array.astype(np.float32)).sum())
    if broken:
        raise _refused(path, f"has {broken} values in '{name}' that are NaN, infinite or too large")


def _check_classes(path: Path, part: str, labels: NDArray[Any]) -> None:
    """Classes 1 to 10, equally many of each."""
    classes, counts = np.unique(labels, return_counts=True)
    if not np.array_equal(classes, np.arange(1, 11)):
        raise _refused(path, f"has other labels than 1 to 10 in 'gt_{part}'")
    if counts.min() != counts.max():
        raise _refused(
            path, f"has {counts.min()} to {counts.max()} samples a class in 'gt_{part}', expected equally many"
        )
    if part == "train" and counts.min() < MIN_TRAIN_ROWS_PER_CLASS:
        raise _refused(path, f"has {counts.min()} training samples a class, needs {MIN_TRAIN_ROWS_PER_CLASS}")


def _refused(path: Path, what: str) -> DataError:
    return DataError(f"{path} {what}. Expected is {FILE_NAME} of the TMC reference code.")
