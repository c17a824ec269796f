"""Reading raw folders that may hold anything: bounded sizes, no way out of the folder, one sentence when refused."""

import csv
import io
import json
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from datasets.errors import DataError, UserError

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst")
MAX_LINE_BYTES = 1 << 20


def require(module: str, package: str, what: str) -> None:
    """Say plainly that an optional package is absent.

    Raises:
        UserError: `module` cannot be imported.
    """
    if find_spec(module) is None:
        raise UserError(f"{what} need {package}, which is not installed: pip install 'robult-bench[data]'.")


def refuse_archive(source: Path) -> None:
    """Archives are never unpacked here: what is in them could be written anywhere.

    Raises:
        DataError: `source` is an archive.
    """
    if source.suffix.lower() in ARCHIVES and source.is_file():
        raise DataError(f"{source} is an archive: unpack it first, and give the folder with --from.")


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        DataError: it is absent, no regular file, or larger.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device could block or never end
            raise DataError(f"{path} is not a regular file.")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except ValueError as error:  # a NUL in the name
        raise DataError(f"{str(path)!r} is not a file name.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(content) > limit:
        raise DataError(f"{path} is larger than {limit >> 20} MiB, the most such a file may have.")
    return content


def read_json(path: Path, limit: int) -> Any:
    """The value of a JSON file of at most `limit` bytes.

    Raises:
        DataError: as `read_bytes`, or it is not JSON.
    """
    try:
        return json.loads(read_bytes(path, limit))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {_first_line(error)}.") from error


def read_json_lines(path: Path, limit: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line that is not blank.

    Raises:
        DataError: as `read_bytes`, or a line is too long or no JSON object.
    """
    for number, line in enumerate(read_bytes(path, limit).split(b"\n"), start=1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{path}:{number} is longer than {MAX_LINE_BYTES >> 20} MiB, the most a line may have.")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number} is not JSON: {_first_line(error)}.") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}:{number} is not a JSON object.")
        yield number, value


def read_csv(path: Path, limit: int) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row; bytes that are not UTF-8 become the replacement character.

    Raises:
        DataError: as `read_bytes`, or it holds NUL bytes or cells of absurd length.
    """
    content = read_bytes(path, limit)
    if b"\0" in content:
        raise DataError(f"{path} holds NUL bytes: it is not a CSV file.")
    rows = csv.reader(io.StringIO(content.decode("utf-8-sig", errors="replace"), newline=""))
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}:{rows.line_num} is not CSV: {error}.") from error


def inside(folder: Path, name: str) -> Path | None:
    """`folder / name` where the relative name stays inside the folder, else None.

    Names come from files that anyone may have written: absolute names, `..`, backslashes and NUL are not followed.
    """
    path = PurePosixPath(name)
    if not name or "\\" in name or "\0" in name or path.is_absolute() or ".." in path.parts or not path.parts:
        return None
    return folder / path


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
