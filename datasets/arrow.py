"""The Arrow files of the missing-aware prompts code: one file a split, one row a sample, images as encoded bytes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets.base import SPLITS, Split
from datasets.errors import DataError
from datasets.raw_files import require


def find_arrow_files(folder: Path, stem: str, names: Mapping[Split, str]) -> dict[Split, Path] | None:
    """`<stem>_<name>.arrow` of every split; None where the folder has none of them.

    Raises:
        DataError: some are there, others are not.
    """
    paths = {split: folder / f"{stem}_{names[split]}.arrow" for split in SPLITS}
    there = [split for split in SPLITS if paths[split].is_file()]
    if not there:
        return None
    require("pyarrow", "pyarrow", "Arrow files")
    if absent := [split for split in SPLITS if split not in there]:
        raise DataError(f"{paths[absent[0]]} is missing, but {paths[there[0]].name} is there: all three are needed.")
    return paths


def count_rows(path: Path) -> int:
    """How many rows the file has; raises as `read_rows`."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
    except (OSError, pa.ArrowException) as error:
        raise _refused(path, error) from error


def read_rows(path: Path, columns: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and values of each row.

    Args:
        path: an Arrow IPC file (random access).
        columns: key of the result -> its kind (`binary`, `text`, `texts`, `integer`, `integers`) and the names the
            column may have; a name that ends in `?` may be absent. `text` takes string and large_string alike.

    Raises:
        DataError: it is no such file, damaged, lacks a column or has one of another type.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            found = _match(path, reader.schema, columns)
            number = 0
            for i in range(reader.num_record_batches):
                batch = reader.get_batch(i).select(list(found.values()))
                batch.validate(full=True)  # offsets of a hostile file could lead anywhere
                for start in range(0, batch.num_rows, 64):
                    for row in batch.slice(start, 64).to_pylist():
                        if any(row[name] is None for name in found.values()):
                            raise DataError(f"{path} has an empty value in row {number}.")
                        yield number, {key: row[name] for key, name in found.items()}
                        number += 1
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _refused(path, error) from error


def _match(path: Path, schema: Any, columns: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Key -> name of the column that is there, its type checked."""
    found = {}
    for key, (kind, *names) in columns.items():
        there = [name for name in names if schema.names.count(name.removesuffix("?")) == 1]
        if not there:
            if names[0].endswith("?"):
                continue
            has = ", ".join(schema.names[:10]) or "no columns"
            raise DataError(f"{path} lacks the column '{names[0]}': it has {has}.")
        name = there[0].removesuffix("?")
        if not _is_kind(schema.field(name).type, kind):
            raise DataError(f"{path} has the column '{name}' as {schema.field(name).type}, expected {kind}.")
        found[key] = name
    return found


def _is_kind(dtype: Any, kind: str) -> bool:
    import pyarrow as pa

    types: Any = pa.types

    def is_list_of(check: Any) -> bool:
        return (types.is_list(dtype) or types.is_large_list(dtype)) and bool(check(dtype.value_type))

    def is_text(dtype: Any) -> bool:
        return bool(types.is_string(dtype) or types.is_large_string(dtype))

    checks = {
        "binary": lambda: types.is_binary(dtype) or types.is_large_binary(dtype),
        "text": lambda: is_text(dtype),
        "texts": lambda: is_list_of(is_text),
        "integer": lambda: types.is_integer(dtype),
        "integers": lambda: is_list_of(types.is_integer),
    }
    check: Any = checks[kind]
    return bool(check())


def _refused(path: Path, error: Exception) -> DataError:
    reason = str(error).partition("\n")[0].rstrip(".")
    return DataError(f"{path} is not an Arrow file that can be read ({reason}). Write it again from the raw folder.")
