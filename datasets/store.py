"""The prepared store of a file-based data set: a directory with `data.safetensors`, `card.json` and `card.html`.

The arrays are read memory-mapped: opening a store of any size costs nothing, and all workers share its pages.
The card says what the arrays are; the fingerprint, a hash of their content, binds the two together. `card.html` is
the card for people, made from it (`datasets.card_page`) and never read.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from datasets.base import SPLITS, Data, DataSpec, Part, Split
from datasets.errors import DataError
from datasets.progress import report
from datasets.statistics import Tally, chunks, describe_target
from datasets.store_folder import (
    ARRAYS,
    CARD,
    TYPE_NAMES,
    damaged,
    map_arrays,
    new_folder,
    not_prepared,
    refuse_foreign_folder,
    sweep_stale,
)
from datasets.tasks import TASKS, MultiClass, MultiLabel, Regression, Task

FORMAT_VERSION = 2
EXTRA = "extra/"
MAX_CARD_BYTES = 1 << 20
READ_BYTES = 1 << 20
MAX_WAITING = 32
"""Chunks that wait to be hashed: a bound on memory."""
SYNC_BYTES = 128 << 20
"""As often as this the disk is told to begin, so that it works while the rest is computed."""


class Card(BaseModel):
    """What `card.json` says of the arrays beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format_version: int = Field(default=FORMAT_VERSION, ge=1, le=FORMAT_VERSION)
    name: str
    modalities: dict[Annotated[str, Field(pattern=r"^[^+/]+$")], list[Annotated[int, Field(gt=0)]]] = Field(
        min_length=1
    )
    task: dict[str, Any]
    sizes: dict[Split, Annotated[int, Field(gt=0)]]
    fingerprint: str
    data_bytes: int
    provenance: dict[str, str] = {}
    """Where the arrays come from: source file, its hash, notes."""
    warnings: list[str] = []
    """Differences from what is known of the data set, and what was changed in its values; a sentence each."""
    facts: dict[str, Any] = {}
    """What the data set's own code wants to know without the arrays."""
    extras: dict[str, list[int]] = {}
    """Shape of each further array, by its name without `extra/`."""
    statistics: dict[str, dict[Split, dict[str, float]]] = {}
    """Modality -> split -> `statistics.Statistics`."""
    labels: dict[Split, dict[str, int]] = {}
    """Split -> samples of each class or label, or a histogram of the values."""


@dataclass(frozen=True)
class Notes:
    """What the card says beyond the arrays; see `Card`."""

    provenance: Mapping[str, str] | Callable[[], Mapping[str, str]]
    """A function is asked when the arrays are written: hashes of raw files may be made meanwhile."""
    warnings: Sequence[str] = ()
    facts: Mapping[str, Any] | None = None
    extras: Mapping[str, NDArray[Any]] | None = None
    """Further arrays for the data set's own code, such as lengths; part of the fingerprint."""


def data_home() -> Path:
    """The folder of all prepared stores: `BENCH_DATA`, or the user's data folder of this platform."""
    if home := os.environ.get("BENCH_DATA"):
        return Path(home).expanduser()
    from platformdirs import user_data_dir

    return Path(user_data_dir("robult-bench", appauthor=False))


def store_directory(name: str) -> Path:
    """Where the store of the data set called `name` lives."""
    return data_home() / name


def file_digest(path: Path) -> str:
    """SHA-256 of a file, telling how far it is.

    Raises:
        DataError: it cannot be read.
    """
    digest, done = hashlib.sha256(), 0
    try:
        total = path.stat().st_size
        buffer = memoryview(bytearray(READ_BYTES))
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
                done += count
                report(f"comparing {path.name} with the store", done, total)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()


def is_prepared_from(directory: Path, sha256: str, recipe: str) -> bool:
    """Whether a sound store is there that this `recipe` made of a source with this hash."""
    try:
        told = read_all(directory).card.provenance
    except DataError:
        return False
    return (told.get("sha256"), told.get("recipe")) == (sha256, recipe)


# ---- describing arrays ------------------------------------------------------------------------------------------


def spec_of(name: str, task: Task, parts: Mapping[Split, Part]) -> DataSpec:
    """The description of `parts`, with the fingerprint of their content."""
    return replace(outline(name, task, parts), fingerprint=fingerprint(task, parts))


def outline(name: str, task: Task, parts: Mapping[Split, Part]) -> DataSpec:
    """The description of `parts` with an empty fingerprint, for `write_store` to fill in: one pass less."""
    shapes = {modality: x.shape[1:] for modality, x in parts["train"].inputs.items()}
    sizes = {split: len(parts[split]) for split in SPLITS}
    return DataSpec(name, shapes, task, sizes, "")


def fingerprint(task: Task, parts: Mapping[Split, Part], extras: Mapping[str, NDArray[Any]] | None = None) -> str:
    """Hash of the task and of every array's name, type, shape and values, 32 hexadecimal digits."""
    digest = Digest(task)
    for name, array in [*named_arrays(parts), *named_extras(extras)]:
        digest.add(name, array)
    return digest.text()


class Digest:
    """A fingerprint in the making."""

    def __init__(self, task: Task) -> None:
        self._hash = hashlib.sha256(json.dumps(task.to_json(), sort_keys=True).encode())

    def add(self, name: str, array: NDArray[Any]) -> None:
        self.begin(name, array)
        self.go_on(array)

    def begin(self, name: str, array: NDArray[Any]) -> None:
        self._hash.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())

    def go_on(self, chunk: NDArray[Any]) -> None:
        self._hash.update(_bytes_of(chunk))

    def text(self) -> str:
        return self._hash.hexdigest()[:32]


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def named_extras(extras: Mapping[str, NDArray[Any]] | None) -> Iterator[tuple[str, NDArray[Any]]]:
    """`extra/...` with their arrays, by name."""
    for name, array in sorted((extras or {}).items()):
        yield EXTRA + name, array


def named_arrays(parts: Mapping[Split, Part]) -> Iterator[tuple[str, NDArray[Any]]]:
    """`train/inputs/text`, ..., `train/target`, `valid/...` with their arrays, in a fixed order."""
    for split in SPLITS:
        for modality, x in parts[split].inputs.items():
            yield _input_name(split, modality), x
        yield f"{split}/target", parts[split].target


def _input_name(split: Split, modality: str) -> str:
    return f"{split}/inputs/{modality}"


def content_problems(spec: DataSpec, parts: Mapping[Split, Part]) -> list[str]:
    """What is wrong with arrays that claim to be `spec`, a sentence each: types, shapes, NaN, label ranges."""
    problems = _form_problems(spec, parts)
    if problems:
        return problems
    for name, array in named_arrays(parts):
        if name.endswith("/target"):
            problems += _target_problems(spec.task, name, array)
        elif broken := sum(int(chunk.size - np.isfinite(chunk).sum()) for chunk in chunks(array)):
            problems.append(_broken_told(name, broken))
    return problems


def _form_problems(spec: DataSpec, parts: Mapping[Split, Part]) -> list[str]:
    """What is wrong with the names, types and shapes of arrays that claim to be `spec`."""
    expected = _expected_arrays(spec)
    if odd := expected.keys() ^ dict(named_arrays(parts)).keys():
        return [f"{min(odd)} is not in both the arrays and their description."]
    return [
        f"{name} is {array.dtype} {array.shape}, expected {dtype} {shape}."
        for name, array in named_arrays(parts)
        for dtype, shape in [expected[name]]
        if array.dtype != dtype or array.shape != shape
    ]


def _target_problems(task: Task, name: str, target: NDArray[Any]) -> list[str]:
    if broken := int(target.size - np.isfinite(target).sum()):
        return [_broken_told(name, broken)]
    problem = _label_problem(task, target)
    return [f"{name} {problem}."] if problem else []


def _broken_told(name: str, broken: int) -> str:
    return f"{name} has {broken} values that are NaN or infinite."


def _label_problem(task: Task, target: NDArray[Any]) -> str | None:
    """How the targets leave the task's range, as the rest of a sentence."""
    low, high = target.min(), target.max()
    if isinstance(task, MultiClass) and not (low >= 0 and high < task.n_classes):
        return f"has classes {low} to {high}, expected 0 to {task.n_classes - 1}"
    if isinstance(task, Regression) and not (low >= task.low and high <= task.high):
        return f"has values {low:g} to {high:g}, expected {task.low:g} to {task.high:g}"
    if isinstance(task, MultiLabel) and not np.isin(target, (0, 1)).all():
        return "has indicators other than 0 and 1"
    return None


def _expected_arrays(spec: DataSpec) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Array name -> (type, shape) that a store of `spec` holds."""
    labels = (spec.task.width,) if isinstance(spec.task, MultiLabel) else ()
    target_type = np.dtype(np.int64 if isinstance(spec.task, MultiClass) else np.float32)
    expected: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    for split in SPLITS:
        for modality, shape in spec.modalities.items():
            expected[_input_name(split, modality)] = (np.dtype(np.float32), (spec.sizes[split], *shape))
        expected[f"{split}/target"] = (target_type, (spec.sizes[split], *labels))
    return expected


# ---- writing ----------------------------------------------------------------------------------------------------


def write_store(
    directory: Path, spec: DataSpec, parts: Mapping[Split, Part], notes: Notes | Mapping[str, str] | None = None
) -> DataSpec:
    """Write a store whole or not at all; one that holds the same content already is left alone.

    The files go to a folder beside `directory`, are flushed to the disk, and then take its place.

    Args:
        directory: where the store goes; replaced when it is a store, refused when it holds anything else.
        spec: what the arrays are, with their content's fingerprint (`spec_of`), or without one (`outline`).
        parts: the arrays.
        notes: what else the card says; a plain mapping is where the arrays come from.

    Returns:
        The spec with its fingerprint.

    Raises:
        DataError: the arrays are not what `spec` says, or `directory` is in other use or cannot be written.
    """
    notes = notes if isinstance(notes, Notes) else Notes(notes or {})
    problems = _form_problems(spec, parts)
    for split in () if problems else SPLITS:
        problems += _target_problems(spec.task, f"{split}/target", parts[split].target)
    _refuse(spec.name, problems)
    try:
        directory = directory.resolve()  # a link stays, what it points to is replaced
        refuse_foreign_folder(directory)
        if spec.fingerprint and _holds(directory, spec):
            return spec
        sweep_stale(directory)
        with new_folder(directory) as folder:
            spec = _write_files(folder, spec, parts, notes)
    except OSError as error:
        raise DataError(f"store {directory} cannot be written: {error.strerror or error}.") from error
    return spec


def _refuse(name: str, problems: Sequence[str]) -> None:
    if problems:
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"data set '{name}' is not written: {problems[0]}{more}")


def _write_files(folder: Path, spec: DataSpec, parts: Mapping[Split, Part], notes: Notes) -> DataSpec:
    arrays = {**dict(named_arrays(parts)), **dict(named_extras(notes.extras))}
    found, tallies = _write_arrays(folder / ARRAYS, spec.task, arrays)
    _refuse(spec.name, [_broken_told(name, tally.broken) for name, tally in tallies.items() if tally.broken])
    if spec.fingerprint not in ("", found):
        raise DataError(f"data set '{spec.name}' is not written: its arrays do not have the fingerprint of its spec.")
    spec = replace(spec, fingerprint=found)
    card = Card(
        name=spec.name,
        modalities={name: list(shape) for name, shape in spec.modalities.items()},
        task=spec.task.to_json(),
        sizes=dict(spec.sizes),
        fingerprint=spec.fingerprint,
        data_bytes=(folder / ARRAYS).stat().st_size,
        provenance=dict(notes.provenance() if callable(notes.provenance) else notes.provenance),
        warnings=list(notes.warnings),
        facts=dict(notes.facts or {}),
        extras={name: list(x.shape) for name, x in (notes.extras or {}).items()},
        statistics={
            modality: {split: tallies[_input_name(split, modality)].statistics().to_json() for split in SPLITS}
            for modality in spec.modalities
        },
        labels={split: describe_target(spec.task, parts[split].target) for split in SPLITS},
    )
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return spec


def _write_arrays(path: Path, task: Task, arrays: Mapping[str, NDArray[Any]]) -> tuple[str, dict[str, Tally]]:
    """Write a safetensors file straight from the arrays' memory; returns their fingerprint and what inputs are like.

    The library's writer first copies every array, which doubles the memory of a large data set. The fingerprint
    stands in the header at a fixed width and is filled in at the end. It is computed beside the writing, and the disk
    works beside both; each input is counted and written chunk by chunk while it is in the processor's cache. Of an
    array only slices are asked for, so that it may be something that makes them then.
    """
    header: dict[str, Any] = {"__metadata__": {"fingerprint": "-" * 32}}
    end = 0
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].itemsize):  # so that each is aligned
        header[name] = {
            "dtype": TYPE_NAMES[array.dtype.str],
            "shape": array.shape,
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest, tallies = Digest(task), {name: Tally() for name in arrays if "/inputs/" in name}
    hashing: deque[Future[None]] = deque()
    with path.open("wb") as file, ThreadPoolExecutor(1) as hasher, _Syncing(file.fileno()) as syncing:
        _reserve(file.fileno(), 8 + len(text) + end)
        file.write(len(text).to_bytes(8, "little") + text)
        for name, array in arrays.items():
            hashing.append(hasher.submit(digest.begin, name, array))
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            for chunk in chunks(array):
                hashing.append(hasher.submit(digest.go_on, chunk))
                if name in tallies:
                    tallies[name].add(chunk)
                file.write(_bytes_of(chunk))
                syncing.wrote(chunk.nbytes)
                report("writing the store", file.tell(), 8 + len(text) + end)
                while len(hashing) > MAX_WAITING:
                    hashing.popleft().result()
        for hashed in hashing:
            hashed.result()
        file.seek(8 + text.index(b"-" * 32))
        file.write(digest.text().encode())
    return digest.text(), tallies


def _reserve(handle: int, n_bytes: int) -> None:
    """Give a file its place on the disk: a full disk is told at once, and pages that have a place are written faster.

    1.9 GB took 0.7 s of CPU in place of 1.6 s, on ext4.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, n_bytes)


class _Syncing:
    """Lets the disk begin while a long file is still being written; errors are left to the final flush."""

    def __init__(self, handle: int) -> None:
        self._handle, self._waiting = handle, 0
        self._beside = ThreadPoolExecutor(1)
        self._at_work: Future[None] | None = None

    def wrote(self, n_bytes: int) -> None:
        self._waiting += n_bytes
        if self._waiting >= SYNC_BYTES and (self._at_work is None or self._at_work.done()):
            self._at_work, self._waiting = self._beside.submit(os.fdatasync, self._handle), 0

    def __enter__(self) -> "_Syncing":
        return self

    def __exit__(self, *_: object) -> None:
        self._beside.shutdown()


def _holds(directory: Path, spec: DataSpec) -> bool:
    """Whether a sound store of this content is there already."""
    try:
        return read_spec(directory) == spec and not verify_store(directory)
    except DataError:
        return False


# ---- reading ----------------------------------------------------------------------------------------------------


def read_spec(directory: Path) -> DataSpec:
    """What the store holds, from its card alone.

    Raises:
        DataError: there is no store, its card is damaged, or a newer version of the suite wrote it.
    """
    card = read_card(directory)
    return DataSpec(
        name=card.name,
        modalities={name: tuple(shape) for name, shape in card.modalities.items()},
        task=_read_task(directory, card),
        sizes={split: card.sizes[split] for split in SPLITS},
        fingerprint=card.fingerprint,
    )


def read_card(directory: Path) -> Card:
    """The card of the store in `directory`; raises as `read_spec`."""
    path = directory / CARD
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CARD_BYTES + 1)
    except FileNotFoundError:
        raise not_prepared(directory) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if len(text) > MAX_CARD_BYTES:
        raise damaged(path, "is larger than a card can be")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, "is not JSON") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {version}, this suite reads up to {FORMAT_VERSION}: "  # nosec B608  # no SQL
            f"update robult-bench, or prepare the data set again."
        )
    try:
        card = Card.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise damaged(path, f"is not a store's card ({where}: {first['msg']})") from error
    if set(card.sizes) != set(SPLITS):
        raise damaged(path, f"lacks a size for each of {', '.join(SPLITS)}")
    return card


def _read_task(directory: Path, card: Card) -> Task:
    kind = card.task.get("kind")
    fields = {key: value for key, value in card.task.items() if key != "kind"}
    if not isinstance(kind, str) or kind not in TASKS:
        raise damaged(directory / CARD, f"has an unknown task kind {kind!r}, expected one of {', '.join(TASKS)}")
    try:
        task: Task = TypeAdapter(TASKS[kind]).validate_python(fields)
    except ValidationError as error:
        raise damaged(directory / CARD, f"has a task that is not a {kind} task") from error
    if task.to_json() != card.task:
        raise damaged(directory / CARD, f"has a task that is not a {kind} task")
    return task


@dataclass(frozen=True)
class Stored:
    """All that a store holds."""

    data: Data
    extras: Mapping[str, NDArray[Any]]
    card: Card


def read_store(directory: Path) -> Data:
    """The arrays of the store, memory-mapped: nothing is read before it is used, and writes never reach the file.

    Only what is quick is checked here: the card, the file's length, header, names, types and shapes.
    `verify_store` reads everything.

    Raises:
        DataError: as `read_spec`, or the arrays are truncated, damaged or not those of the card.
    """
    return read_all(directory).data


def read_all(directory: Path) -> Stored:
    """As `read_store`, with the card and the further arrays."""
    spec, card = read_spec(directory), read_card(directory)
    path = directory / ARRAYS
    arrays = map_arrays(path, card.data_bytes, card.fingerprint)
    expected = _expected_arrays(spec)
    if odd := set(arrays) ^ {*expected, *(EXTRA + name for name in card.extras)}:
        raise damaged(path, f"does not hold the arrays of its card ('{min(odd)}')")
    for name, (dtype, shape) in expected.items():
        if arrays[name].dtype != dtype or arrays[name].shape != shape:
            found = f"{arrays[name].dtype} {arrays[name].shape}"
            raise damaged(path, f"has {name} as {found}, its card says {dtype} {shape}")
    extras = {name: arrays[EXTRA + name] for name in card.extras}
    for name, extra in extras.items():
        if extra.shape != tuple(card.extras[name]):
            raise damaged(path, f"has {EXTRA}{name} as {extra.shape}, its card says {tuple(card.extras[name])}")
    parts = {
        split: Part(
            {modality: arrays[_input_name(split, modality)] for modality in spec.modalities}, arrays[f"{split}/target"]
        )
        for split in SPLITS
    }
    return Stored(Data(spec, parts), extras, card)


def verify_store(directory: Path) -> list[str]:
    """Read everything and list what is wrong, a sentence each; an empty list means the store is sound.

    Digest, types, shapes, NaN and infinities, label ranges, truncation.
    """
    try:
        stored = read_all(directory)
    except DataError as error:
        return [str(error)]
    data = stored.data
    problems = content_problems(data.spec, data.parts)
    if fingerprint(data.spec.task, data.parts, stored.extras) != data.spec.fingerprint:
        problems.append(f"the values in {directory / ARRAYS} have changed: they do not have the card's fingerprint.")
    return problems
