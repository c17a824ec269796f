"""A data set of your own from a folder: a `data.yaml` that says which file holds what; no code.

    task: {kind: multiclass, n_classes: 4}     # or regression {low, high}, binary, multilabel {n_labels}
    modalities:
      text: text.npy                           # (N, D) or (N, T, D), N samples
      audio: features.npz:audio                # FILE:KEY of a .npz, .safetensors or .parquet
      sensors: table.parquet:s_*               # columns side by side
    target: table.parquet:label                # classes from 0, values, or (N, C) of 0 and 1
    split: table.parquet:split                 # train, valid, test for each sample
    # or: split: {train: 0.7, valid: 0.15, test: 0.15}      drawn once, every class by its share
    name: speech                               # optional, for the card; source and licence too

The folder is turned into a store when it is first used, and again when one of its files has changed.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from datasets.array_files import read_array
from datasets.base import SPLITS, Data, DataSet, DataSpec, Part, Split
from datasets.errors import DataError, UserError, did_you_mean
from datasets.folds import FoldConfig, dealt, dealt_spec
from datasets.labels import stratified_split
from datasets.progress import report
from datasets.raw_files import inside, read_bytes
from datasets.sequences import clean, standardise
from datasets.store import Notes, outline, read_all, read_card, read_spec, store_directory, verify_store, write_store
from datasets.tasks import TASKS, MultiClass, MultiLabel, Regression, Task

YAML = "data.yaml"
RECIPE = "own 1"
MAX_YAML_BYTES = 64 << 10
MAX_SAMPLES = 50_000_000
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$"

Where = Annotated[str, Field(min_length=1, max_length=500)]


class Described(BaseModel):
    """What `data.yaml` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: dict[str, Any]
    modalities: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,49}$")], Where] = Field(min_length=1)
    target: Where
    split: Where | dict[Split, Annotated[float, Field(gt=0, lt=1)]]
    name: Annotated[str, Field(pattern=NAME)] | None = None
    source: str = ""
    licence: str = ""


class OwnConfig(FoldConfig):
    """Options of `own`."""

    folder: str = Field(default="", description=f"the folder that holds {YAML}; relative to where bench is started")
    scaling: Literal["none", "train"] = Field(
        default="none", description="train: each feature to mean 0 and deviation 1 over the training split"
    )


class Own(DataSet):
    """A folder with `data.yaml` and arrays; see this module's text for what it may say."""

    name = "own"
    summary = "a folder of your own: data.yaml and .npy, .npz, .parquet or .safetensors files, no code"
    source = "yours"
    licence = "yours"
    Config = OwnConfig
    config: OwnConfig
    MISSING: ClassVar[str] = "data set 'own' needs a folder: write own: {folder: PATH} in the grid."

    def spec(self) -> DataSpec:
        return dealt_spec(self._described(read_spec(self._store())), self.config)

    def load(self) -> Data:
        data = read_all(self._store()).data
        whole = self._described(data.spec)
        parts = dealt(data.parts, whole, self.config)
        if self.config.scaling == "train":
            parts = standardise(parts)
        return Data(dealt_spec(whole, self.config), parts)

    def verify(self) -> list[str] | None:
        """Everything wrong with the folder, a sentence each; what is right is read in full."""
        if not self.config.folder:
            raise UserError("data set 'own' is a folder: name it, as in bench data verify own --from FOLDER.")
        folder = Path(self.config.folder).expanduser()
        try:
            problems = folder_problems(folder)
        except DataError as error:
            return [str(error)]
        return problems or verify_store(self._store())

    def _described(self, raw: DataSpec) -> DataSpec:
        suffix = "" if self.config.scaling == "none" else f"-scaling={self.config.scaling}"
        return DataSpec(self.name, raw.modalities, raw.task, raw.sizes, raw.fingerprint + suffix)

    def _store(self) -> Path:
        """The store of the folder, made when it is not there or the folder has changed."""
        if not self.config.folder:
            raise UserError(self.MISSING)
        folder = Path(self.config.folder).expanduser()
        described = read_yaml(folder)
        store = store_of(folder)
        try:
            current = read_card(store).provenance.get("files") == _stamp(folder, described)
        except DataError:
            current = False
        if not current:
            _make_store(folder, described, store)
        return store

    @classmethod
    def prepare(cls, source: Path, store: Path) -> str | None:
        """Make or renew the store of a folder; `store` is not used, each folder has its own.

        Raises:
            DataError: what is wrong with the folder, the first problem of all.
        """
        folder = source.parent if source.name == YAML else source
        own = cls(OwnConfig(folder=str(folder)))
        spec = own.spec()
        sizes = ", ".join(f"{spec.sizes[split]} {split}" for split in SPLITS)
        from datasets.card_page import write_page

        described = read_yaml(folder)
        about = {"summary": f"from {folder.name}", "source": described.source or "yours", "licence": described.licence}
        page = write_page(own._store(), about)
        return (
            f"{spec.name}: {sizes}; {len(spec.modalities)} modalities ({spec.full}). Its card: {page}\n"
            f"In a grid: datasets: [own: {{folder: {folder}}}]"
        )


def store_of(folder: Path) -> Path:
    """Where the store of a folder lives: told apart by the folder's full path."""
    full = str(folder.resolve())
    return store_directory(f"own-{hashlib.blake2b(full.encode(), digest_size=6).hexdigest()}")


# ---- what data.yaml says ----------------------------------------------------------------------------------------


def read_yaml(folder: Path) -> Described:
    """The folder's description, checked.

    Raises:
        DataError: there is none, or what is wrong with it.
    """
    import yaml

    path = folder / YAML
    if not path.is_file():
        raise DataError(f"{folder} has no {YAML}: it says which files hold the modalities, the target and the split.")
    try:
        content = yaml.load(read_bytes(path, MAX_YAML_BYTES), Loader=_plain_loader())  # nosec B506  # a safe loader
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0] or type(error).__name__
        problem = "it nests too deep" if isinstance(error, RecursionError) else problem
        raise DataError(f"{path}{where} is not YAML: {problem}.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a mapping with the keys {', '.join(Described.model_fields)}.")
    if odd := [key for key in content if key not in Described.model_fields]:
        hint = did_you_mean(str(odd[0]), list(Described.model_fields))
        raise DataError(
            f"{path} has an unknown key {str(odd[0])[:50]!r}.{hint} It knows: {', '.join(Described.model_fields)}."
        )
    try:
        described = Described.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(word)[:50] for word in first["loc"])
        raise DataError(f"{path}: {where}: {first['msg']}.") from None
    task_of(path, described)
    if isinstance(described.split, dict) and abs(sum(described.split.values()) - 1) > 1e-6:
        raise DataError(f"{path}: split: the shares add up to {sum(described.split.values()):g}, expected 1.")
    if isinstance(described.split, dict) and set(described.split) != set(SPLITS):
        raise DataError(f"{path}: split: expected a share for each of {', '.join(SPLITS)}.")
    return described


def _plain_loader() -> Any:
    """YAML's safe loader without aliases: a few lines of them unfold to any size."""
    import yaml

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.composer.ComposerError(None, None, "aliases (*name) are not used here", mark)
            return super().compose_node(parent, index)

    return Plain


def task_of(path: Path, described: Described) -> Task:
    """The task the description names; raises DataError where there is no such task."""
    fields = dict(described.task)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in TASKS:
        hint = did_you_mean(str(kind), list(TASKS))
        raise DataError(f"{path}: task: kind is one of {', '.join(TASKS)}, got {str(kind)[:40]!r}.{hint}")
    known = [key for key in TASKS[kind]().to_json() if key != "kind"]
    if odd := [key for key in fields if key not in known]:
        raise DataError(f"{path}: task: a {kind} task has no {odd[0]!r}; it has {', '.join(known) or 'no options'}.")
    if kind == "binary":
        fields = {}
    try:
        task: Task = TypeAdapter(TASKS[kind]).validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: task: {first['loc'][-1]}: {first['msg']}.") from None
    counts = {"multiclass": "n_classes", "multilabel": "n_labels"}
    if kind in counts and (counts[kind] not in fields or fields[counts[kind]] < 2):
        raise DataError(f"{path}: task: a {kind} task needs {counts[kind]}, at least 2.")
    if isinstance(task, Regression) and not task.low < task.high:
        raise DataError(f"{path}: task: low must be below high, got {task.low:g} and {task.high:g}.")
    return task


def _find(folder: Path, where: str) -> tuple[Path, str | None]:
    """File and key of `features.npz:audio`.

    Raises:
        DataError: the name leads out of the folder.
    """
    name, _, key = where.partition(":")
    path = inside(folder, name)
    if path is None or not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{folder / YAML} names '{where}', which is not inside the folder.")
    return path, key or None


def _stamp(folder: Path, described: Described) -> str:
    """What tells whether a file has changed, without reading it: sizes and times, and the recipe."""
    wheres = [*described.modalities.values(), described.target]
    wheres += [described.split] if isinstance(described.split, str) else []
    lines = [RECIPE]
    for path in sorted({folder / YAML, *(_find(folder, where)[0] for where in wheres)}):
        try:
            told = path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
        lines.append(f"{path.name} {told.st_size} {told.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# ---- from files to a store --------------------------------------------------------------------------------------


def _make_store(folder: Path, described: Described, store: Path) -> None:
    if problems := folder_problems(folder):
        more = f" ({len(problems) - 1} more: bench data verify own --from {folder})" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)
    task = task_of(folder / YAML, described)
    stamp = _stamp(folder, described)
    target = _target(task, _array(folder, described.target))
    rows = _rows(folder, described, task, target)
    whole, warnings = {}, []
    for done, (name, where) in enumerate(described.modalities.items()):
        report(f"reading {folder.name}", done, len(described.modalities))
        whole[name], broken = clean(_array(folder, where))
        if broken.counts:
            told = " and ".join(f"{n:,} {kind}" for kind, n in broken.counts.items())
            warnings.append(f"{name}: {told} set to zero.")
    parts = {
        split: Part({name: np.ascontiguousarray(x[rows[split]]) for name, x in whole.items()}, target[rows[split]])
        for split in SPLITS
    }
    provenance = {
        "folder": str(folder.resolve()),
        "files": stamp,
        "source": described.source,
        "licence": described.licence,
    }
    spec = outline(described.name or folder.resolve().name, task, parts)
    write_store(store, spec, parts, Notes({key: value for key, value in provenance.items() if value}, warnings))


def folder_problems(folder: Path) -> list[str]:
    """Everything that is wrong with the arrays of a folder, a sentence each.

    Raises:
        DataError: the description itself is wrong, so that there is nothing to compare.
    """
    described = read_yaml(folder)
    task = task_of(folder / YAML, described)
    problems: list[str] = []

    def attempt(where: str) -> NDArray[Any] | None:
        try:
            return _array(folder, where)
        except DataError as error:
            problems.append(str(error))
            return None

    target = attempt(described.target)
    n = None if target is None else len(target)
    if target is not None:
        problems += [f"{folder / described.target} {problem}." for problem in _target_problems(task, target)]
    for name, where in described.modalities.items():
        x = attempt(where)
        if x is not None:
            problems += [f"{folder / where} ({name}) {problem}." for problem in _input_problems(x, n)]
    if isinstance(described.split, str):
        words = attempt(described.split)
        if words is not None:
            problems += [f"{folder / described.split} {problem}." for problem in _split_problems(words, n)]
    return problems


def _array(folder: Path, where: str) -> NDArray[Any]:
    array = read_array(*_find(folder, where))
    if array.ndim == 0 or not 1 <= len(array) <= MAX_SAMPLES:
        raise DataError(f"{folder / where} has shape {array.shape}, expected one row a sample.")
    return array


def _input_problems(x: NDArray[Any], n: int | None) -> list[str]:
    problems = []
    if x.dtype.kind not in "fiub":
        problems.append(f"holds {x.dtype}, expected numbers")
    if x.ndim not in (2, 3) or 0 in x.shape:
        problems.append(f"has shape {x.shape}, expected (samples, features) or (samples, steps, features)")
    if n is not None and len(x) != n:
        problems.append(f"has {len(x)} rows, but the target has {n}")
    return problems


def _target_problems(task: Task, target: NDArray[Any]) -> list[str]:
    width = task.width if isinstance(task, MultiLabel) else None
    shape = (len(target),) if width is None else (len(target), width)
    if target.dtype.kind not in "fiub":
        return [f"holds {target.dtype}, expected numbers: write classes as 0, 1, 2, ..."]
    if target.shape not in (shape, (*shape, 1)):
        return [f"has shape {target.shape}, expected {shape} for a {task.kind} task"]
    if not np.isfinite(target).all():
        return [f"has {int((~np.isfinite(target)).sum())} values that are NaN or infinite"]
    low, high = target.min(), target.max()
    if isinstance(task, MultiClass) and not (low >= 0 and high < task.n_classes and (target == np.floor(target)).all()):
        return [f"has values {low:g} to {high:g}, expected whole classes from 0 to {task.n_classes - 1}"]
    if isinstance(task, Regression) and not (low >= task.low and high <= task.high):
        return [f"has values {low:g} to {high:g}, expected {task.low:g} to {task.high:g}: set low and high of the task"]
    if isinstance(task, MultiLabel) and not np.isin(target, (0, 1)).all():
        return ["has values other than 0 and 1"]
    return []


def _split_problems(words: NDArray[Any], n: int | None) -> list[str]:
    if n is not None and words.shape not in ((n,), (n, 1)):
        return [f"has shape {words.shape}, expected a word for each of {n} samples"]
    found = _words(words)
    if odd := sorted(set(found) - set(SPLITS)):
        told = "".join(letter if letter.isprintable() else "?" for letter in odd[0][:30])
        return [f"has '{told}', expected one of {', '.join(SPLITS)} for each sample"]
    return [f"has no sample in '{split}'" for split in SPLITS if split not in found]


def _words(array: NDArray[Any]) -> list[str]:
    return [
        word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)[:60]
        for word in array.ravel().tolist()
    ]


def _target(task: Task, target: NDArray[Any]) -> NDArray[Any]:
    shape = (len(target), task.width) if isinstance(task, MultiLabel) else (len(target),)
    return np.asarray(target).reshape(shape).astype(np.int64 if isinstance(task, MultiClass) else np.float32)


def _rows(folder: Path, described: Described, task: Task, target: NDArray[Any]) -> Mapping[Split, NDArray[Any]]:
    """Which samples each split holds."""
    if isinstance(described.split, str):
        words = np.array(_words(_array(folder, described.split)))
        return {split: np.flatnonzero(words == split) for split in SPLITS}
    groups = task.groups(torch.as_tensor(target)).numpy()
    found = stratified_split(groups, [described.split[split] for split in SPLITS], "own", "split", len(target))
    rows: dict[Split, NDArray[Any]] = dict(zip(SPLITS, found, strict=True))
    if empty := [split for split in SPLITS if not len(rows[split])]:
        raise DataError(
            f"{folder / YAML}: split: no sample falls to '{empty[0]}' of {len(target)}: give it a larger share."
        )
    return rows
