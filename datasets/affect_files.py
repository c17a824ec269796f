"""The pickles in which people have CMU-MOSI and CMU-MOSEI, told apart by what is in them, never by their names.

Three families: of the MulT code (GMC, Robult), of MultiBench, and of MMSA (RAML, DiCMoR), each aligned to words or
not. N samples, T steps, D features.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.base import SPLITS, Split
from datasets.errors import DataError
from datasets.overlap import REMEDY, Overlap, first_overlap, kept_rows, shown
from datasets.sequences import Broken, cleaned, find_broken, is_empty, turn_left
from datasets.statistics import slices
from datasets.unpickle import read_pickle

Family = Literal["MulT", "MultiBench", "MMSA"]
MODALITIES = ("text", "audio", "vision")
MAX_STEPS, MAX_FEATURES, MAX_ROWS = 5_000, 8_192, 1_000_000
SHOWN_KEYS = 8


@dataclass(frozen=True)
class Sequences:
    """Sequences (N, T, D) as they will be, made from the file's a slice of samples at a time.

    It stands in for an array of float32 wherever slices, length and shape are enough: a file of gigabytes is read,
    converted and written without being in memory.
    """

    source: NDArray[Any]
    """As the file has them, of any float type, perhaps not finite."""
    length: NDArray[np.int64] | None = None
    """(N,) steps of sequences that are padded at the end; None where padding comes first."""
    blank: bool = False
    """Whether what stands in the padding is set to zero."""

    dtype: ClassVar = np.dtype(np.float32)
    itemsize: ClassVar = dtype.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def size(self) -> int:
        return self.source.size

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        return cleaned(self.turned(rows))

    def turned(self, rows: slice) -> NDArray[Any]:
        """Samples padded in front, values as they are."""
        x = self.source[rows]
        if self.length is None:
            return x
        turned = turn_left(x, self.length[rows])
        if self.blank:
            turned[self._padding(rows)[:, ::-1]] = 0
        return turned

    def blanked_steps(self) -> int:
        """Steps of padding that have values; 0 where padding is left as it is."""
        if not self.blank:
            return 0
        return sum(int(self.source[rows][self._padding(rows)].any(axis=1).sum()) for rows in slices(self))

    def _padding(self, rows: slice) -> NDArray[np.bool_]:
        """Steps beyond each sample's length, (N, T)."""
        assert self.length is not None
        steps: NDArray[np.bool_] = np.arange(self.shape[1]) >= self.length[rows, None]
        return steps

    def scan(self) -> tuple[Broken, NDArray[np.bool_]]:
        """The values that are not finite, and which samples have no value but zero, (N,)."""
        found, empty, start = [], [], 0
        for rows in slices(self):
            x = self.turned(rows)
            broken = find_broken(x)
            found.append(Broken(broken.index + start, broken.value))
            empty.append(is_empty(cleaned(x) if len(broken.index) else x))
            start += x.size
        index, value = (np.concatenate([getattr(one, name) for one in found]) for name in ("index", "value"))
        return Broken(index, value), np.concatenate(empty)

    def take(self, rows: NDArray[np.int64]) -> "Sequences":
        """These samples."""
        return replace(self, source=self.source[rows], length=None if self.length is None else self.length[rows])


@dataclass
class RawSplit:
    """One split as the file has it, sequences padded in front."""

    inputs: dict[str, Sequences]
    target: NDArray[np.float64]
    """(N,) sentiment."""
    ids: list[str] | None
    classes: NDArray[np.int64] | None = None
    """(N,) MMSA's classes 0 negative, 1 neutral, 2 positive."""


@dataclass
class Raw:
    """A whole file."""

    family: Family
    aligned: bool
    splits: dict[Split, RawSplit]
    notes: list[str] = field(default_factory=list)
    """What was done to the values or could not be checked; a sentence each."""

    @property
    def title(self) -> str:
        return f"{self.family}, {'aligned to words' if self.aligned else 'not aligned'}"

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(self.splits[split].target) for split in SPLITS)

    @property
    def widths(self) -> dict[str, int]:
        return {name: x.shape[2] for name, x in self.splits["train"].inputs.items()}


def read_affect(path: Path, overlap: Overlap = "refuse") -> Raw:
    """The content of a pickle of either data set, its structure checked, its values as they are.

    Args:
        path: the file.
        overlap: what becomes of samples whose names come again.

    Raises:
        DataError: it is not such a file, or hostile; the sentence names key, what came and what was expected.
    """
    content = read_pickle(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(split), dict) for split in SPLITS):
        raise _refused(path, f"has no splits {', '.join(SPLITS)} at its top: it holds {_held(content)}")
    family, aligned = recognise(path, content)
    raw = Raw(family, aligned, {})
    for split in SPLITS:
        raw.splits[split] = _read_split(path, split, content.pop(split), raw)  # its bytes are freed when converted
    _check_same_shapes(path, raw)
    _settle_ids(path, raw, overlap)
    return raw


def recognise(path: Path, content: Mapping[Any, Any]) -> tuple[Family, bool]:
    """Which project's file it is and whether its sequences are aligned.

    MMSA has `regression_labels`. MultiBench's files are nested like those of the MulT code, but name their samples
    `video[segment]`, in a list.
    """
    part = content["train"]
    arrays = [part[name] for name in MODALITIES if isinstance(part.get(name), np.ndarray)]
    aligned = len({x.shape[1] for x in arrays if x.ndim == 3}) <= 1
    if "regression_labels" in part:
        return "MMSA", aligned and "audio_lengths" not in part
    if "labels" not in part:
        raise _refused(path, f"has neither 'labels' nor 'regression_labels' in 'train': it holds {_held(part)}")
    ids = part.get("id")
    names = [ids[0]] if isinstance(ids, list) and ids else []
    bracketed = bool(names) and isinstance(names[0], str) and names[0].endswith("]") and "[" in names[0]
    return ("MultiBench" if bracketed else "MulT"), aligned


# ---- one split --------------------------------------------------------------------------------------------------


def _read_split(path: Path, split: Split, part: dict[Any, Any], raw: Raw) -> RawSplit:
    inputs = {name: Sequences(_sequence(path, f"{split}/{name}", part.get(name))) for name in MODALITIES}
    key = "regression_labels" if raw.family == "MMSA" else "labels"
    target = _numbers(path, f"{split}/{key}", part.get(key), "fiu")
    if target.ndim > 1 and target.shape[1:].count(1) != target.ndim - 1:
        raise _refused(path, f"has '{split}/{key}' of shape {target.shape}, expected one value a sample")
    target = target.reshape(-1).astype(np.float64)
    _check_rows(path, split, key, target, inputs)
    if not np.isfinite(target).all():
        raise _refused(path, f"has {int((~np.isfinite(target)).sum())} labels in '{split}/{key}' that are not finite")
    read = RawSplit(inputs, target, _read_ids(path, split, part.get("id"), len(target)))
    if raw.family == "MMSA":
        _read_classes(path, split, part, read)
        _pad_in_front(path, split, part, read, raw)
    return read


def _check_rows(path: Path, split: str, key: str, target: NDArray[Any], inputs: Mapping[str, Sequences]) -> None:
    for name, x in inputs.items():
        if len(x) != len(target):
            raise _refused(path, f"has {len(x)} samples in '{split}/{name}' and {len(target)} in '{split}/{key}'")
    if not 1 <= len(target) <= MAX_ROWS:
        raise _refused(path, f"has {len(target)} samples in '{split}'")


def _sequence(path: Path, key: str, value: Any) -> NDArray[Any]:
    x = _numbers(path, key, value, "f")
    if x.ndim != 3 or not 1 <= x.shape[1] <= MAX_STEPS or not 1 <= x.shape[2] <= MAX_FEATURES:
        raise _refused(path, f"has '{key}' of shape {x.shape}, expected (samples, steps, features)")
    return x


def _numbers(path: Path, key: str, value: Any, kinds: str) -> NDArray[Any]:
    """An array of numbers; a flat list of numbers becomes one."""
    if value is None:
        raise _refused(path, f"lacks '{key}'")
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        try:
            value = np.array(value, dtype=np.float64)
        except OverflowError:
            raise _refused(path, f"has a number in '{key}' that is too large") from None
    if not isinstance(value, np.ndarray):
        raise _refused(path, f"has '{key}' as {_kind(value)}, expected an array of numbers")
    if value.dtype.kind not in kinds:
        raise _refused(path, f"has '{key}' as {_kind(value)}, expected {'real ' if kinds == 'f' else ''}numbers")
    return value


def _read_ids(path: Path, split: str, value: Any, n: int) -> list[str] | None:
    """A name for each sample: `video start end`, `video[3]`, `video$_$3`; None where the file has none."""
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.dtype.kind in "SUOfiu" and value.ndim in (1, 2):
        value = value.tolist()
    if not isinstance(value, list) or len(value) != n:
        held = f"{len(value)} names" if isinstance(value, list) else _kind(value)
        raise _refused(path, f"has '{split}/id' as {held}, expected {n} names")
    return [" ".join(map(_word, item)) if isinstance(item, list | tuple) else _word(item) for item in value]


def _word(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, int) and value.bit_length() > 64:
        return "<a long number>"
    return str(value) if isinstance(value, str | int | float) else f"<{type(value).__name__}>"


def video_of(name: str) -> str:
    """The video a sample is of: what comes before the clip in `video start end`, `video[3]`, `video$_$3`."""
    return re.split(r"\$_\$|\[| ", name, maxsplit=1)[0]


# ---- MMSA -------------------------------------------------------------------------------------------------------


def _read_classes(path: Path, split: Split, part: Mapping[Any, Any], read: RawSplit) -> None:
    if "classification_labels" in part:
        classes = _numbers(path, f"{split}/classification_labels", part["classification_labels"], "fiu").reshape(-1)
        if len(classes) != len(read.target) or not np.isin(classes, (0, 1, 2)).all():
            raise _refused(path, f"has '{split}/classification_labels' that are not one of 0, 1, 2 for each sample")
        read.classes = classes.astype(np.int64)


def _pad_in_front(path: Path, split: str, part: Mapping[Any, Any], read: RawSplit, raw: Raw) -> None:
    """MMSA pads at the end; here padding comes first, so that the last step is the last word.

    Aligned sequences turn together by the text's length, which keeps them aligned. What BERT says of padding
    is set to zero, since zero rows are how a method knows padding.
    """
    mask = part.get("text_bert")
    if mask is None:
        raw.notes.append(f"{split} has no 'text_bert': its sequences keep the padding they have.")
        return
    mask = _numbers(path, f"{split}/text_bert", mask, "fiu")
    if mask.shape != (len(read.target), 3, read.inputs["text"].shape[1]):
        raise _refused(
            path, f"has '{split}/text_bert' of shape {mask.shape}, expected (samples, 3, steps) as 'text' has them"
        )
    words = np.clip((mask[:, 1] > 0).sum(axis=1), 1, mask.shape[2]).astype(np.int64)
    length = {name: words if raw.aligned else _lengths(path, split, name, part, read) for name in ("audio", "vision")}
    for name, count in {"text": words, **length}.items():
        if count is not None:
            read.inputs[name] = Sequences(read.inputs[name].source, count, blank=name == "text")
    if said := read.inputs["text"].blanked_steps():
        raw.notes.append(f"{split}/text: {said:,} steps of padding had values and were set to zero.")


def _lengths(path: Path, split: str, name: str, part: Mapping[Any, Any], read: RawSplit) -> NDArray[np.int64] | None:
    """How many steps each sample has, from the file's own list; None where it has none."""
    key, steps = f"{name}_lengths", read.inputs[name].shape[1]
    if key not in part:
        return None
    told = _numbers(path, f"{split}/{key}", part[key], "fiu").reshape(-1)
    if len(told) != len(read.target) or not np.isfinite(told).all() or told.min() < 0:
        raise _refused(path, f"has '{split}/{key}' that do not give a length for each sample")
    return told.clip(1, steps).astype(np.int64)


# ---- the whole file ---------------------------------------------------------------------------------------------


def _check_same_shapes(path: Path, raw: Raw) -> None:
    for name in MODALITIES:
        shapes = {split: raw.splits[split].inputs[name].shape[1:] for split in SPLITS}
        for split in SPLITS[1:]:
            if shapes[split] != shapes["train"]:
                raise _refused(
                    path, f"has '{split}/{name}' with samples of {shapes[split]}, but {shapes['train']} in 'train'"
                )


def _settle_ids(path: Path, raw: Raw, overlap: Overlap) -> None:
    """A sample in two splits is refused, unless a person decides otherwise: scores on it would be worth nothing."""
    ids = {split: part.ids or [] for split, part in raw.splits.items()}
    for split in SPLITS:
        if not ids[split]:
            raw.notes.append(f"{split} has no 'id': whether its samples are in other splits too was not checked.")
    own = {split: list(dict.fromkeys(names)) for split, names in ids.items()}
    if overlap == "drop" and first_overlap(ids):
        _drop(path, raw, kept_rows(ids, within=True))
    elif found := first_overlap(own):
        name, first, second = found
        several = len(set(own[first]) & set(own[second])) - 1
        told = f"'{shown(name)}'{f' and {several} more samples' if several else ''} in both '{first}' and '{second}'"
        if overlap == "refuse":
            raise DataError(f"{path} has {told}. {REMEDY}.")
        raw.notes.append(f"{told}, maybe others too: scores on them are of samples that were trained on.")
    repeated = sum(len(part.ids or []) - len(set(part.ids or [])) for part in raw.splits.values())
    if repeated:
        raw.notes.append(f"{repeated:,} samples have the name of another sample of their split.")


def _drop(path: Path, raw: Raw, rows: Mapping[Split, list[int]]) -> None:
    """Leave each split these rows only."""
    lost = {split: len(part.target) - len(rows[split]) for split, part in raw.splits.items() if part.ids}
    for split in [split for split, count in lost.items() if count]:
        part, kept = raw.splits[split], np.array(rows[split], dtype=np.int64)
        if not len(kept):
            raise DataError(f"{path} has every sample of '{split}' in a later split too: --overlap drop leaves none.")
        part.inputs = {name: x.take(kept) for name, x in part.inputs.items()}
        part.target, part.ids = part.target[kept], [(part.ids or [])[row] for row in kept]
        part.classes = None if part.classes is None else part.classes[kept]
    told = ", ".join(f"{count:,} {split}" for split, count in lost.items() if count)
    raw.notes.append(f"samples whose name comes again, in a later split if there, were dropped ({told}).")


def _held(value: Any) -> str:
    """The keys of a mapping, or what stands in its place."""
    if not isinstance(value, dict):
        return _kind(value)
    keys = ["".join(c if c.isprintable() else "?" for c in _word(key)[:30]) for key in list(value)[:SHOWN_KEYS]]
    return (", ".join(keys) or "nothing") + (", ..." if len(value) > SHOWN_KEYS else "")


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "an array of objects" if value.dtype.kind == "O" else f"an array of {value.dtype}"
    words = {dict: "a mapping", list: "a list", tuple: "a tuple", str: "text", bytes: "bytes", type(None): "nothing"}
    return words.get(type(value), f"a {type(value).__name__}")


def _refused(path: Path, what: str) -> DataError:
    return DataError(f"{path} {what}. Expected is a pickle of the MulT, MultiBench or MMSA project.")
