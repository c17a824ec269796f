"""IEMOCAP in the features and folds of the MMIN project: acted emotion, four classes, ten speakers.

N utterances; audio (T, 130) ComParE frames, vision (50, 342) DenseNet faces, text (22, 1024) BERT-large tokens.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from datasets.array_files import hdf5_array, open_hdf5, read_npy
from datasets.base import SPLITS, Data, DataConfig, DataSet, DataSpec, Part, Split
from datasets.errors import DataError
from datasets.folds import Rows, gather
from datasets.progress import report
from datasets.sequences import Floats, apply_moments, clean, moments, turn_left
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
from datasets.tasks import MultiClass

TASK = MultiClass(4)
RECIPE = "iemocap 1"
FILES = {"audio": ("A/comparE.h5", 130), "vision": ("V/denseface.h5", 342), "text": ("L/bert_large.h5", 1024)}
"""Modality -> its file and number of features, in MMIN's order."""
STATISTICS = "A/comparE_mean_std.h5"
PARTS: dict[Split, str] = {"train": "trn", "valid": "val", "test": "tst"}
N_UTTERANCES = 5531
MAX_STEPS, MAX_UTTERANCES = 4000, 50_000
FOLDS = range(1, 11)


class IemocapConfig(DataConfig):
    """Options of `iemocap`."""

    fold: int = Field(default=1, ge=1, le=10, description="whose speakers are tested; RAML averages all ten")
    audio_scaling: Literal["train", "utterance", "none"] = Field(
        default="train",
        description="each audio feature to mean 0 and deviation 1: over the fold's training split, with the figures "
        "MMIN ships, or over each utterance by itself",
    )
    audio_steps: int | None = Field(
        default=None, ge=1, le=MAX_STEPS, description="keep only the last steps of the audio, which has some hundred"
    )


class Iemocap(DataSet):
    """5531 utterances; happy and excited are one class. Fold k tests one speaker and validates on one other."""

    name = "iemocap"
    summary = "four emotions in 5531 utterances: audio, vision, text (the MMIN project's folder), ten folds"
    source = "USC SAIL (Busso et al., 2008); features and folds of the MMIN project (Zhao et al., 2021)"
    licence = "USC SAIL's release form must be signed; do not pass the features on"
    Config = IemocapConfig
    config: IemocapConfig

    def spec(self) -> DataSpec:
        directory = store_directory(self.name)
        return self._described(directory, read_spec(directory), read_card(directory))

    def load(self) -> Data:
        stored = read_all(store_directory(self.name))
        spec = self._described(store_directory(self.name), stored.data.spec, stored.card)
        rows = {split: stored.extras[f"fold/{self.config.fold}/{split}"] for split in SPLITS}
        parts = {split: gather(stored.data.parts, rows[split]) for split in SPLITS}
        return Data(spec, {split: self._audio(part, stored) for split, part in parts.items()})

    def _audio(self, part: Part, stored: Stored) -> Part:
        """The part with its audio cut and scaled as the options say."""
        audio = part.inputs["audio"]
        if self.config.audio_steps is not None:
            audio = audio[:, -self.config.audio_steps :]
        if self.config.audio_scaling == "train":
            mean, std = (stored.extras[f"fold/{self.config.fold}/{key}"] for key in ("mean", "std"))
            audio = apply_moments(audio, mean, std)
        elif self.config.audio_scaling == "utterance":
            audio = np.concatenate([apply_moments(x, *moments(x)) for x in np.split(audio, len(audio))])
        return Part({**part.inputs, "audio": audio}, part.target)

    def _described(self, directory: Path, raw: DataSpec, card: Card) -> DataSpec:
        """The store's spec with the fold's sizes and the options in its fingerprint."""
        folds = card.facts.get("folds")
        if tuple(raw.modalities) != tuple(FILES) or raw.task != TASK or not isinstance(folds, dict):
            raise DataError(
                f"the store in {directory} does not hold '{self.name}'. "
                f"Prepare it with: bench data prepare {self.name} --from FOLDER"
            )
        if str(self.config.fold) not in folds:
            raise DataError(
                f"'{self.name}' was prepared from a folder without fold {self.config.fold}: it has {', '.join(folds)}."
            )
        sizes: dict[Split, int] = {split: int(folds[str(self.config.fold)][split]) for split in SPLITS}
        steps, width = raw.modalities["audio"]
        shapes = {**raw.modalities, "audio": (min(steps, self.config.audio_steps or steps), width)}
        options = "-".join(f"{key}={value}" for key, value in self.config.model_dump().items())
        return DataSpec(self.name, shapes, TASK, sizes, f"{raw.fingerprint}-{options}")

    @classmethod
    def prepare(cls, source: Path, store: Path) -> None:
        """Turn MMIN's folder into one store of all utterances, clean and padded in front, and the folds over it.

        Raises:
            DataError: a file is absent, damaged or not what it should be.
        """
        if not source.is_dir():
            raise DataError(f"{source} is not a folder: --from takes the one that holds {', '.join(cls._asked())}.")
        digest = _folder_digest(source)
        if is_prepared_from(store, digest, RECIPE):
            return
        folds, classes = read_folds(source)
        first = next(iter(folds))
        names = [name for split in SPLITS for name in folds[first][split]]
        warnings: list[str] = []
        if len(names) != N_UTTERANCES or len(folds) != len(FOLDS):
            warnings.append(f"{len(names)} utterances in {len(folds)} folds, expected {N_UTTERANCES} in {len(FOLDS)}.")
        whole = {modality: _read_features(source, modality, names, warnings) for modality in FILES}
        row = {name: i for i, name in enumerate(names)}
        rows: dict[int, Rows] = {
            fold: {split: np.array([row[name] for name in found[split]]) for split in SPLITS}
            for fold, found in folds.items()
        }
        target = np.array([classes[name] for name in names], dtype=np.int64)
        parts: dict[Split, Part] = {}
        for split in SPLITS:  # the first fold's splits follow each other: slices, not copies
            span = slice(rows[first][split][0], rows[first][split][-1] + 1)
            parts[split] = Part({modality: x[span] for modality, x in whole.items()}, target[span])
        extras = {f"fold/{fold}/{split}": rows[fold][split] for fold in folds for split in SPLITS}
        extras |= _audio_statistics(source, whole["audio"], rows, warnings)
        facts = {"folds": {str(fold): {split: len(rows[fold][split]) for split in SPLITS} for fold in folds}}
        provenance = {
            "file": source.name, "sha256": digest, "format": f"MMIN, {len(folds)} folds", "recipe": RECIPE,
            "source": cls.source, "licence": cls.licence,
        }  # fmt: skip
        write_store(store, outline(cls.name, TASK, parts), parts, Notes(provenance, warnings, facts, extras))

    @staticmethod
    def _asked() -> list[str]:
        return [*(file for file, _ in FILES.values()), STATISTICS, "target/1/trn_label.npy"]


# ---- reading MMIN's folder --------------------------------------------------------------------------------------


def read_folds(folder: Path) -> tuple[dict[int, dict[Split, list[str]]], dict[str, int]]:
    """Fold -> split -> utterances, and the class of every utterance, checked against one another.

    Raises:
        DataError: a fold is missing a file, or folds contradict each other.
    """
    folds: dict[int, dict[Split, list[str]]] = {}
    classes: dict[str, int] = {}
    for fold in FOLDS:
        place = folder / "target" / str(fold)
        if not place.is_dir():
            continue
        folds[fold] = {}
        for split, short in PARTS.items():
            names, labels = _read_targets(place, short)
            folds[fold][split] = names
            for name, label in zip(names, labels, strict=True):
                if classes.setdefault(name, label) != label:
                    raise DataError(f"{place} gives '{name}' another class than another fold does.")
        told = [name for split in SPLITS for name in folds[fold][split]]
        if len(set(told)) != len(told):
            twice = next(name for name in told if told.count(name) > 1)
            raise DataError(f"{place} has '{twice}' more than once in its splits.")
        if set(told) != classes.keys():
            odd = min(classes.keys() ^ set(told))
            raise DataError(f"{place} and fold {min(folds)} do not hold the same utterances: '{odd}' is in one only.")
    if not folds:
        raise DataError(f"{folder} has no folds: expected target/1/trn_label.npy to target/10/tst_label.npy.")
    return folds, classes


def _read_targets(place: Path, short: str) -> tuple[list[str], list[int]]:
    labels, names = read_npy(place / f"{short}_label.npy"), read_npy(place / f"{short}_int2name.npy")
    if (
        labels.ndim != 2
        or labels.shape[1] != 4
        or labels.dtype.kind not in "fiub"
        or not 1 <= len(labels) <= MAX_UTTERANCES
    ):
        raise DataError(f"{place / short}_label.npy has shape {labels.shape}, expected one-hot rows (utterances, 4).")
    if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
        raise DataError(f"{place / short}_label.npy has rows that are not one-hot.")
    if names.dtype.kind not in "SU" or names.size != len(labels):
        raise DataError(f"{place / short}_int2name.npy has {names.size} names, expected {len(labels)}.")
    words = [
        name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names.ravel().tolist()
    ]
    for word in words:
        if not word or not word.isprintable() or "/" in word or len(word) > 100 or word.startswith("."):
            raise DataError(f"{place / short}_int2name.npy has {word[:40]!r}, which is not the name of an utterance.")
    return words, labels.argmax(axis=1).tolist()


def _read_features(folder: Path, modality: str, names: list[str], warnings: list[str]) -> Floats:
    """All utterances of one modality, (N, T, D), zeros in front; T is that of the longest."""
    file, width = FILES[modality]
    path = folder / file
    found: list[NDArray[Any]] = []
    with open_hdf5(path) as store:
        for done, name in enumerate(names):
            if name not in store:
                raise DataError(f"{path} lacks the utterance '{name}'.")
            x = hdf5_array(path, store, name, MAX_STEPS * width)
            if x.ndim != 2 or x.shape[1] != width or not len(x) or x.dtype.kind != "f":
                raise DataError(
                    f"{path} has '{name}' of shape {x.shape} and type {x.dtype}, expected (steps, {width})."
                )
            found.append(x)
            if done % 64 == 0:
                report(f"reading {file}", done, len(names))
    steps = max(map(len, found))
    padded = np.zeros((len(found), steps, width), np.float32)
    counts: dict[str, int] = {}
    for row, x in enumerate(found):
        values, broken = clean(x)
        padded[row, steps - len(x) :] = values
        counts = {kind: counts.get(kind, 0) + broken.counts.get(kind, 0) for kind in {*counts, *broken.counts}}
    if counts:
        warnings.append(
            f"{modality}: {' and '.join(f'{n:,} {kind}' for kind, n in sorted(counts.items()))} set to zero."
        )
    return _trailing_zeros_in_front(padded, modality, warnings)


def _trailing_zeros_in_front(x: Floats, modality: str, warnings: list[str]) -> Floats:
    """MMIN pads vision and text to one length; zeros at the end come to the front, so that the last step counts."""
    filled = (x[:, ::-1] != 0).any(axis=2)
    trailing = np.where(filled.any(axis=1), filled.argmax(axis=1), 0)
    if not trailing.any():
        return x
    warnings.append(f"{modality}: the padding of {int((trailing > 0).sum()):,} utterances was moved from end to front.")
    return turn_left(x, x.shape[1] - trailing)


def _audio_statistics(
    folder: Path, audio: Floats, rows: Mapping[int, Rows], warnings: list[str]
) -> dict[str, NDArray[Any]]:
    """Mean and deviation of each audio feature over each fold's training split: the file's, or computed without it."""
    path, width = folder / STATISTICS, FILES["audio"][1]
    found: dict[str, NDArray[Any]] = {}
    if not path.exists():
        warnings.append(f"{STATISTICS} is absent: means and deviations of the audio were computed from the features.")
        for fold, of_splits in rows.items():
            mean, std = moments(audio[of_splits["train"]])
            found |= {f"fold/{fold}/mean": mean.astype(np.float32), f"fold/{fold}/std": std.astype(np.float32)}
        return found
    with open_hdf5(path) as store:
        for fold in rows:
            if str(fold) not in store:
                raise DataError(f"{path} lacks the group '{fold}' of that fold.")
            for key in ("mean", "std"):
                values = hdf5_array(path, store[str(fold)], key, width).astype(np.float32)
                if values.shape != (width,) or not np.isfinite(values).all() or (key == "std" and values.min() < 0):
                    raise DataError(f"{path} has '{fold}/{key}' that is not {width} finite numbers.")
                found[f"fold/{fold}/{key}"] = values
            if (flat := int((found[f"fold/{fold}/std"] == 0).sum())) and fold == min(rows):
                warnings.append(f"audio: {flat} features never change in training; they are only shifted.")
    return found


def _folder_digest(folder: Path) -> str:
    """Hash of the files that count, by name and content."""
    digest = hashlib.sha256()
    files = [folder / file for file, _ in FILES.values()] + [folder / STATISTICS]
    files += [folder / "target" / str(fold) / f"{short}_{what}.npy" for fold in FOLDS for short in PARTS.values()
              for what in ("label", "int2name")]  # fmt: skip
    for path in files:
        if path.is_file():
            digest.update(f"{path.relative_to(folder)} {file_digest(path)}\n".encode())
    return digest.hexdigest()
