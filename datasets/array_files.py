"""Arrays from .npy, .npz, .safetensors, .parquet and .h5 files that may hold anything: bounded, and nothing is run.

Declared sizes are compared with the file or with a limit before memory is taken for them.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DataError, did_you_mean

MAX_ARRAY_BYTES = 32 << 30
MAX_UNPACKED_RATIO = 1000
"""Compressed numbers rarely shrink to less than a hundredth."""
HEADER_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    OverflowError,
    TokenError,
    TypeError,
    RecursionError,
    MemoryError,
    zipfile.BadZipFile,
)
"""What NumPy raises for the text at the head of a damaged .npy file, which it reads as Python, or for another kind."""
TYPES = (".npy", ".npz", ".safetensors", ".parquet")


def read_array(path: Path, key: str | None) -> NDArray[Any]:
    """One array of a file; of a .npy file memory-mapped.

    Args:
        path: a file whose name ends in one of `TYPES`.
        key: which array, tensor or column; `f_*` is all columns that begin so, side by side. None where the file has
            only one.

    Raises:
        DataError: what is wrong, in one sentence.
    """
    kind = path.suffix.lower()
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors, ".parquet": _read_parquet}
    if kind == ".npy":
        if key is not None:
            raise DataError(f"{path} is one array and has no '{key}': name the file alone.")
        return read_npy(path)
    if kind not in readers:
        raise DataError(f"{path} is not of a known kind: arrays come from files that end in {', '.join(TYPES)}.")
    if not path.is_file():
        raise DataError(f"{path} is not there, or is not a file.")
    return readers[kind](path, key)


def read_npy(path: Path) -> NDArray[Any]:
    """The array of a .npy file, mapped: a declared shape beyond the file's length is refused, objects too."""
    try:
        if not path.is_file():
            raise DataError(f"{path} is not there, or is not a file.")
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except HEADER_ERRORS as error:
        raise DataError(f"{path} is not a .npy file of numbers or text: {first_line(error)}.") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is a .npz file under another name.")
    return array


def _read_npz(path: Path, key: str | None) -> NDArray[Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            info = archive.getinfo(f"{_only(path, names, key)}.npy")
            if info.file_size > min(MAX_ARRAY_BYTES, MAX_UNPACKED_RATIO * max(info.compress_size, 1)):
                raise DataError(f"{path} announces {info.file_size:,} bytes for '{key}' in {info.compress_size:,}.")
            with archive.open(info) as member:
                content = member.read(info.file_size)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} is not a .npz file: {first_line(error)}.") from None
    return _npy_of(path, content)


def _npy_of(path: Path, content: bytes) -> NDArray[Any]:
    """The array in the bytes of a .npy file."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the format is not known")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        if dtype.hasobject:
            raise ValueError("it holds objects")
        if math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
            raise ValueError(f"shape {shape} does not fit its {len(content):,} bytes")
        flat: NDArray[Any] = np.frombuffer(content, dtype, offset=stream.tell())
        return flat.reshape(shape, order="F" if fortran else "C")
    except HEADER_ERRORS as error:
        raise DataError(f"{path} holds something else than arrays of numbers or text: {first_line(error)}.") from None


def _read_safetensors(path: Path, key: str | None) -> NDArray[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # "pt" maps the file, "np" copies
            name = _only(path, list(file.keys()), key)
            array: NDArray[Any] = file.get_tensor(name).numpy()
    except (SafetensorError, OSError, TypeError) as error:
        raise DataError(f"{path} is not a .safetensors file of numbers: {first_line(error)}.") from None
    return array


def _read_parquet(path: Path, key: str | None) -> NDArray[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{path} needs pyarrow: pip install 'robult-bench[data]'.") from None
    try:
        with pq.ParquetFile(path) as file:
            size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
            if size > MAX_ARRAY_BYTES:
                raise DataError(f"{path} announces {size:,} bytes, more than {MAX_ARRAY_BYTES:,}.")
            names = file.schema_arrow.names
            wanted = [name for name in names if name.startswith(key[:-1])] if key and key.endswith("*") else []
            table = file.read(columns=wanted or [_only(path, names, key)])
        columns = [_column(path, name, table[name]) for name in table.column_names]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is not a .parquet file of numbers: {first_line(error)}.") from None
    return columns[0] if not wanted else np.stack(columns, axis=1)


def _column(path: Path, name: str, column: Any) -> NDArray[Any]:
    """A column of numbers or words (N,), or of lists of equal length (N, D)."""
    import pyarrow as pa

    column = column.combine_chunks()
    if column.null_count:
        raise DataError(f"{path} lacks {column.null_count} values in column '{name}'.")
    if not (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    ):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    values = column.flatten()
    if values.null_count or len(column) == 0 or len(values) % len(column):
        raise DataError(f"{path} has lists of different lengths in column '{name}'.")
    width = len(values) // len(column)
    sizes = column.value_lengths().to_numpy() if not pa.types.is_fixed_size_list(column.type) else np.array([width])
    if (sizes != width).any():
        raise DataError(f"{path} has lists of different lengths in column '{name}'.")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), width)


def _only(path: Path, names: list[str], key: str | None) -> str:
    """The name that was asked for, or the only one."""
    if key is None and len(names) == 1:
        return names[0]
    if key is not None and key in names:
        return key
    known = ", ".join(names[:8]) or "nothing"
    if key is None:
        raise DataError(
            f"{path} holds several arrays ({known}): name one, as in '{path.name}:{names[0] if names else 'x'}'."
        )
    raise DataError(f"{path} has no '{key}'.{did_you_mean(key, names)} It holds {known}.")


# ---- HDF5 -------------------------------------------------------------------------------------------------------


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """An HDF5 file, read only; what goes wrong inside the block is told as a damaged file."""
    try:
        import h5py
    except ImportError:
        raise DataError(f"{path} needs h5py: pip install 'robult-bench[data]'.") from None
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise DataError(f"{path} is not a whole HDF5 file: {first_line(error)}.") from None


def hdf5_array(path: Path, group: Any, name: str, limit: int) -> NDArray[Any]:
    """A dataset of at most `limit` values; no links to elsewhere, no data outside the file."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], h5py.Dataset):
        raise DataError(f"{path} has '{name}' as something else than an array of its own.")
    data = group[name]
    if data.external or data.is_virtual:
        raise DataError(f"{path} keeps '{name}' in another file, which is not read.")
    if data.size is None or data.size > limit or data.dtype.kind not in "fiu":
        raise DataError(f"{path} has '{name}' of shape {data.shape} and type {data.dtype}, expected fewer numbers.")
    return np.asarray(data[()])


def first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0].rstrip(". ")
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200] or type(error).__name__
