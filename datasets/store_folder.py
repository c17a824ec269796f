"""The folder of a prepared store on the disk: put in its place whole or not at all, mapped, its damage told.

Stores of features (`store.py`) and of images with texts (`pairs.py`) both keep to it.
"""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from numpy.typing import NDArray

from datasets.errors import DataError

ARRAYS, CARD, PAGE = "data.safetensors", "card.json", "card.html"
TYPE_NAMES = {"<f4": "F32", "<f8": "F64", "<i8": "I64", "<i4": "I32", "|i1": "I8", "|u1": "U8", "|b1": "BOOL"}
"""A NumPy type as a safetensors header calls it."""
STALE_S = 24 * 3600
"""Age at which what a killed `prepare` left beside a store is swept away."""


# ---- writing ----------------------------------------------------------------------------------------------------


def refuse_foreign_folder(directory: Path) -> None:
    """Let nothing be replaced that is not a store.

    Raises:
        DataError: something else is there.
    """
    try:
        foreign = sorted({entry.name for entry in directory.iterdir()} - {ARRAYS, CARD, PAGE})
    except NotADirectoryError:
        foreign = [directory.name]
    except FileNotFoundError:
        foreign = []
    if foreign:
        raise DataError(
            f"{directory} is not a store and is not overwritten: it holds '{foreign[0]}'. Name another folder."
        )


def sweep_stale(directory: Path) -> None:
    """Remove what killed writers of this store left behind long enough ago that none can still be at work."""
    for left in directory.parent.glob(f".{directory.name}.*.tmp"):
        with suppress(FileNotFoundError):  # its writer has just moved it
            if time.time() - left.stat().st_mtime > STALE_S:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def new_folder(directory: Path) -> Iterator[Path]:
    """A folder beside `directory` for the arrays and the card, which then go to the disk and take its place.

    Raises:
        OSError: the disk is full, or refuses.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(mkdtemp(prefix=f".{directory.name}.", suffix=".tmp", dir=directory.parent))
    try:
        yield staging
        staging.chmod(0o755)  # a store is for everyone who may enter its parent; the defaults here are private
        (staging / ARRAYS).chmod(0o644)
        for made in (staging / ARRAYS, staging / CARD, staging):
            _flush(made)
        _take_place(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _take_place(staging: Path, directory: Path) -> None:
    """Move the finished folder to its place; a store that is there steps aside first and is then removed."""
    while True:  # another writer may fill the place again in between
        try:
            staging.rename(directory)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        aside = Path(mkdtemp(prefix=f".{directory.name}.", suffix=".tmp", dir=directory.parent))
        with suppress(FileNotFoundError):
            directory.rename(aside)
        shutil.rmtree(aside)
    _flush(directory.parent)


def _flush(path: Path) -> None:
    """Force a file, or a folder's list of files, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---- reading ----------------------------------------------------------------------------------------------------


def map_arrays(path: Path, data_bytes: int, fingerprint: str) -> dict[str, NDArray[Any]]:
    """Every array of a store's file, as views of one private memory map.

    Args:
        path: the file.
        data_bytes: its length, as the card says.
        fingerprint: of its content, as the card says; the file's header must say the same.

    Raises:
        DataError: the file is missing, damaged or not that of the card.
    """
    from safetensors import SafetensorError, safe_open

    try:
        size = path.stat().st_size
        if size != data_bytes:
            what = "is truncated" if size < data_bytes else "has grown"
            raise damaged(path, f"{what}: {size} bytes, its card says {data_bytes}")
        # "pt" maps the file (private, so that writes stay in memory); "np" would copy every array.
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("fingerprint") != fingerprint:
                raise damaged(path, "has another fingerprint than its card: the two files are not from one store")
            return {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise damaged(path, "is missing") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (SafetensorError, TypeError) as error:  # TypeError: a type that NumPy does not know
        raise damaged(path, "is not a safetensors file of a store") from error


def damaged(path: Path, what: str) -> DataError:
    """The error that a file of a store is not as it was written; `what` is the rest of the sentence."""
    return DataError(f"{path} {what}. {_remedy(path.parent)}")


def not_prepared(directory: Path) -> DataError:
    """The error that there is no store."""
    return DataError(
        f"data set '{directory.name}' is not prepared: there is no store in {directory}. {_remedy(directory)}"
    )


def _remedy(directory: Path) -> str:
    return f"Prepare it with: bench data prepare {directory.name} --from PATH"
