"""The pickles in which people have CMU-MOSI and CMU-MOSEI, told apart by what is in them, never by their names.

Three families: of the MulT code (GMC, Robult), of MultiBench, and of MMSA (RAML, DiCMoR), each aligned to words or
not. N samples, T steps, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.base import SPLITS, Split
from datasets.errors import DataError
from datasets.sequences import turn_left
from datasets.unpickle import read_pickle

Family = Literal["MulT", "MultiBench", "MMSA"]
MODALITIES = ("text", "audio", "vision")
MAX_STEPS, MAX_FEATURES, MAX_ROWS = 5_000, 8_192, 1_000_000
SHOWN_KEYS = 8


@dataclass
class RawSplit:
    """One split as the file has it, sequences padded in front."""

    inputs: dict[str, NDArray[Any]]
    """Modality -> (N, T, D), any float type, perhaps not finite."""
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


def read_affect(path: Path) -> Raw:
    """The content of a pickle of either data set, its structure checked, its values as they are.

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
    _check_ids(path, raw)
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
    inputs = {name: _sequence(path, f"{split}/{name}", part.get(name)) for name in MODALITIES}
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


def _check_rows(path: Path, split: str, key: str, target: NDArray[Any], inputs: Mapping[str, NDArray[Any]]) -> None:
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
            read.inputs[name] = turn_left(read.inputs[name], count)
    text = read.inputs["text"]
    said = 0
    for row, count in enumerate(words):
        padding = text[row, : text.shape[1] - count]
        said += int(padding.any(axis=1).sum())
        padding[:] = 0
    if said:
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


def _check_ids(path: Path, raw: Raw) -> None:
    """A sample in two splits is refused: scores on it would be worth nothing."""
    seen: dict[str, Split] = {}
    repeated = 0
    for split, part in raw.splits.items():
        if part.ids is None:
            raw.notes.append(f"{split} has no 'id': whether its samples are in other splits too was not checked.")
            continue
        own = set(part.ids)
        repeated += len(part.ids) - len(own)
        if shared := sorted(own & seen.keys()):
            name = "".join(letter if letter.isprintable() else "?" for letter in shared[0][:60])
            more = f" and {len(shared) - 1} more samples" if len(shared) > 1 else ""
            raise _refused(path, f"has '{name}'{more} in both '{seen[shared[0]]}' and '{split}'")
        seen |= dict.fromkeys(own, split)
    if repeated:
        raw.notes.append(f"{repeated:,} samples have the name of another sample of their split.")


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
