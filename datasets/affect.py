"""What CMU-MOSI and CMU-MOSEI have in common: options, preparation from any of the known files, what is checked.

N samples, T steps, D features; the three modalities are sequences with zeros in front of the first word.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from datasets.affect_files import MODALITIES, Family, Raw, read_affect, video_of
from datasets.base import SPLITS, Data, DataSet, DataSpec, Part, Split
from datasets.errors import DataError
from datasets.folds import FoldConfig, Rows, block_rows, dealt, dealt_spec, groups_of
from datasets.overlap import Overlap
from datasets.progress import report
from datasets.sequences import Broken, CleanUp, is_empty, restore, standardise
from datasets.store import (
    Card,
    Notes,
    Stored,
    file_digest,
    is_prepared_from,
    outline,
    read_all,
    read_card,
    read_spec,
    store_directory,
    write_store,
)
from datasets.tasks import Binary, MultiClass, Regression, Task

TASK = Regression()
RECIPE = "affect 2"
"""Changes when `prepare` makes another store of the same file."""
LABEL_TOLERANCE = 1e-4
Labels = Literal["regression", "three_class", "binary"]
LABEL_TASKS: dict[Labels, Task] = {"regression": TASK, "three_class": MultiClass(3), "binary": Binary()}


class AffectConfig(FoldConfig):
    """Options of `cmu_mosi` and `cmu_mosei`; folds keep the clips of a video together."""

    labels: Labels = Field(
        default="regression",
        description="the sentiment in [-3, 3] (MulT, GMC, Robult); three_class: negative, zero, positive (MMSA, RAML); "
        "binary: above zero or not (MultiBench)",
    )
    empty_text: Literal["keep", "drop"] = Field(
        default="keep", description="drop: leave out samples whose text is zero throughout, as MultiBench does"
    )
    scaling: Literal["none", "train"] = Field(
        default="none",
        description="train: each feature to mean 0 and deviation 1 over the training split's rows that are not padding",
    )
    clean_up: CleanUp = Field(
        default="all",
        description="all: every value that is not finite is 0; reference: only -inf is, as in the reference codes, and "
        "a run may fail on the NaN and +inf that stay",
    )

    @model_validator(mode="after")
    def _folds_take_all(self) -> "AffectConfig":
        if self.fold is not None and self.empty_text == "drop":
            raise ValueError("empty_text: drop is known for the released splits only: leave it out with fold.")
        return self


@dataclass(frozen=True)
class Expected:
    """What is known of a family's file of one data set."""

    sizes: tuple[tuple[int, int, int], ...]
    """Training, validation and test samples; any of these."""
    widths: Mapping[str, int]
    classes: Mapping[Split, tuple[int, int, int]] = field(default_factory=dict)
    """Negative, zero and positive samples."""


class Affect(DataSet):
    """Text, audio and vision of spoken opinions with their sentiment; see `AffectConfig` for the targets."""

    Config = AffectConfig
    config: AffectConfig
    expected: ClassVar[Mapping[Family, Expected]]
    other: ClassVar[tuple[str, tuple[tuple[int, int, int], ...]]]
    """The data set it is confused with: its id and sizes that are only its own."""

    def spec(self) -> DataSpec:
        directory = store_directory(self.name)
        whole = self._described(directory, read_spec(directory), read_card(directory))
        return whole if self.config.fold is None else dealt_spec(whole, self.config, self._rows(read_all(directory)))

    def load(self) -> Data:
        directory = store_directory(self.name)
        stored = read_all(directory)
        spec = self._described(directory, stored.data.spec, stored.card)
        parts = put_back(stored) if self.config.clean_up == "reference" else stored.data.parts
        if self.config.fold is not None:
            rows = self._rows(stored)
            spec, parts = dealt_spec(spec, self.config, rows), dealt(parts, spec, self.config, rows)
        if self.config.empty_text == "drop":
            parts = {split: without_empty_text(part) for split, part in parts.items()}
        if self.config.scaling == "train":
            parts = standardise(parts)
        relabelled = {
            split: Part(part.inputs, relabel(part.target, self.config.labels)) for split, part in parts.items()
        }
        return Data(spec, relabelled)

    def _rows(self, stored: Stored) -> Rows:
        """The samples of each split of the fold that is asked for."""
        videos = [stored.extras[key] for split in SPLITS if (key := f"{split}/video") in stored.extras]
        if len(videos) < len(SPLITS):
            raise DataError(
                f"'{self.name}' as it is prepared does not tell which clips are of one video, so that folds would mix "
                f"them: prepare it again, from a file that has an 'id' for every sample."
            )
        target = np.concatenate([stored.data.parts[split].target for split in SPLITS])
        return block_rows(groups_of(stored.data.spec, target), np.concatenate(videos), self.name, self.config)

    def _described(self, directory: Path, raw: DataSpec, card: Card) -> DataSpec:
        """The store's spec with the options in its task, sizes and fingerprint."""
        if tuple(raw.modalities) != MODALITIES or raw.task != TASK or "empty_text" not in card.facts:
            raise DataError(
                f"the store in {directory} does not hold text, audio and vision of '{self.name}'. "
                f"Prepare it with: bench data prepare {self.name} --from FILE"
            )
        chosen = self.config.model_dump(exclude=set(FoldConfig.model_fields))
        changed = [f"{key}={value}" for key, value in chosen.items() if value != AffectConfig.model_fields[key].default]
        empty = card.facts["empty_text"] if self.config.empty_text == "drop" else dict.fromkeys(SPLITS, 0)
        sizes: dict[Split, int] = {split: raw.sizes[split] - int(empty[split]) for split in SPLITS}
        fingerprint = "-".join([raw.fingerprint, *changed])
        return DataSpec(self.name, raw.modalities, LABEL_TASKS[self.config.labels], sizes, fingerprint)

    @classmethod
    def prepare(cls, source: Path, store: Path, overlap: Overlap = "refuse") -> None:
        """Turn a pickle of the MulT, MultiBench or MMSA project into a store of sentiments and clean sequences.

        It takes seconds, so that one that is killed begins again; what it left is swept away by a later one.

        Raises:
            DataError: the file cannot be trusted or is not this data set.
        """
        if source.is_dir():
            raise DataError(f"{source} is a folder: --from takes the pickle file of '{cls.name}'.")
        with ThreadPoolExecutor(1) as beside:  # hashing on one core while the other reads, converts and writes
            digest = beside.submit(file_digest, source)
            recipe = RECIPE if overlap == "refuse" else f"{RECIPE}, overlap {overlap}"
            if store.exists() and is_prepared_from(store, digest.result(), recipe):
                return
            cls._prepare(source, store, digest, overlap, recipe)

    @classmethod
    def _prepare(cls, source: Path, store: Path, digest: Future[str], overlap: Overlap, recipe: str) -> None:
        raw = read_affect(source, overlap)
        cls._refuse_other(source, raw)
        warnings = [*cls._differences(raw), *raw.notes]
        parts, extras, empty = _convert(source, raw, warnings)
        extras |= _videos(raw)
        if any(empty.values()):
            told = ", ".join(f"{n} {split}" for split, n in empty.items())
            warnings.append(f"text is zero throughout in some samples ({told}); empty_text: drop leaves them out.")

        def provenance() -> dict[str, str]:
            return {
                "file": source.name, "sha256": digest.result(), "format": raw.title, "recipe": recipe,
                "source": cls.source, "licence": cls.licence,
            }  # fmt: skip

        notes = Notes(provenance, warnings, {"family": raw.family, "aligned": raw.aligned, "empty_text": empty}, extras)
        write_store(store, outline(cls.name, TASK, parts), parts, notes)

    # ---- what is known of the files --------------------------------------------------------------------------

    @classmethod
    def _refuse_other(cls, path: Path, raw: Raw) -> None:
        name, sizes = cls.other
        if raw.sizes in sizes:
            told = "/".join(map(str, raw.sizes))
            raise DataError(
                f"{path} is {name}, by its {told} samples. Prepare it with: bench data prepare {name} --from {path}"
            )

    @classmethod
    def _differences(cls, raw: Raw) -> list[str]:
        """How a file differs from what is known of its family, a sentence each."""
        expected = cls.expected[raw.family]
        told = []
        if raw.sizes not in expected.sizes:
            known = " or ".join("/".join(map(str, sizes)) for sizes in expected.sizes)
            told.append(
                f"{'/'.join(map(str, raw.sizes))} training, validation and test samples, expected {known} in a file of "
                f"{raw.family}."
            )
        told += [
            f"{name} has {width} features, expected {expected.widths[name]} in a file of {raw.family}."
            for name, width in raw.widths.items()
            if width != expected.widths[name]
        ]
        if raw.family == "MMSA" and raw.sizes in expected.sizes:
            for split, known_counts in expected.classes.items():
                counts = tuple(np.bincount(relabel(raw.splits[split].target, "three_class"), minlength=3).tolist())
                if counts != known_counts:
                    told.append(f"{split} has {counts} negative, zero and positive samples, expected {known_counts}.")
        for split, part in raw.splits.items():
            if part.classes is not None:
                differ = int((relabel(part.target, "three_class") != part.classes).sum())
                if differ:
                    told.append(
                        f"{split}: {differ} classes of the file are not the sign of its sentiment, which counts."
                    )
        return told


# ---- from raw values to parts -----------------------------------------------------------------------------------


def _convert(
    path: Path, raw: Raw, warnings: list[str]
) -> tuple[dict[Split, Part], dict[str, NDArray[np.generic]], dict[Split, int]]:
    """What is to be written, what the clean-up takes away beyond what the reference codes take, samples without text.

    The inputs are converted when they are written (`affect_files.Sequences`); here they are only looked through.
    """
    parts: dict[Split, Part] = {}
    extras: dict[str, NDArray[np.generic]] = {}
    empty: dict[Split, int] = {}
    for split in SPLITS:
        inputs = raw.splits[split].inputs
        for done, (name, x) in enumerate(inputs.items(), start=1):
            broken, without = x.scan()
            report("checking", len(parts) * len(MODALITIES) + done, len(SPLITS) * len(MODALITIES))
            if broken.counts:
                told = " and ".join(f"{n:,} {kind}" for kind, n in broken.counts.items())
                warnings.append(f"{split}/{name}: {told} set to zero.")
            if len(left := broken.beyond_reference.index):
                extras |= {
                    f"{split}/{name}/index": left,
                    f"{split}/{name}/value": broken.beyond_reference.value,
                }
            if without.all():
                warnings.append(f"{split}/{name} is zero throughout.")
            if name == "text":
                empty[split] = int(without.sum())
        arrays = cast(dict[str, NDArray[np.float32]], inputs)
        parts[split] = Part(arrays, _sentiment(path, split, raw.splits[split].target))
    return parts, extras, empty


def _videos(raw: Raw) -> dict[str, NDArray[np.generic]]:
    """Which video each clip is of, a number a sample; nothing where samples have no names."""
    videos = {split: [video_of(name) for name in part.ids or ()] for split, part in raw.splits.items()}
    known = {video: code for code, video in enumerate(sorted({v for names in videos.values() for v in names}))}
    return {f"{split}/video": np.array([known[v] for v in names], np.int64) for split, names in videos.items() if names}


def _sentiment(path: Path, split: str, target: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sentiments in [-3, 3]; what rounding took outside is put on the border."""
    low, high = float(target.min()), float(target.max())
    if low < TASK.low - LABEL_TOLERANCE or high > TASK.high + LABEL_TOLERANCE:
        raise DataError(f"{path} has labels from {low:g} to {high:g} in '{split}', expected sentiments in [-3, 3].")
    return np.clip(target, TASK.low, TASK.high).astype(np.float32)


def put_back(stored: Stored) -> dict[Split, Part]:
    """The parts with the NaN and +inf that the reference codes leave."""
    parts = {}
    for split, part in stored.data.parts.items():
        inputs = dict(part.inputs)
        for name in inputs:
            if f"{split}/{name}/index" in stored.extras:
                kept = Broken(stored.extras[f"{split}/{name}/index"], stored.extras[f"{split}/{name}/value"])
                inputs[name] = restore(inputs[name], kept)
        parts[split] = Part(inputs, part.target)
    return parts


def without_empty_text(part: Part) -> Part:
    """The samples whose text is not zero throughout; the part itself when that is all of them."""
    kept = ~is_empty(part.inputs["text"])
    if kept.all():
        return part
    return Part({name: x[kept] for name, x in part.inputs.items()}, part.target[kept])


def relabel(target: NDArray[Any], labels: Labels) -> NDArray[Any]:
    """Sentiments (N,) as the targets of one of the label kinds, (N,)."""
    if labels == "three_class":
        classes: NDArray[np.int64] = np.sign(target).astype(np.int64) + 1
        return classes
    return (target > 0).astype(np.int64) if labels == "binary" else target
