"""The pairs store of an image-text data set: a directory with `data.safetensors` and `card.json`.

It keeps what the raw folder held before any network read it: ids, splits, labels, texts and images, checked once and
in one file that is read memory-mapped. Grids train on what is made from it (see `embed.py` and `image_text.py`).

N samples; a sample has one image and one or more texts.
"""

import hashlib
import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasets.base import SPLITS, Split
from datasets.errors import DataError
from datasets.image_journal import ImageJournal, Picture
from datasets.overlap import REMEDY, Overlap, first_overlap, kept_rows
from datasets.progress import report
from datasets.raw_files import read_bytes, read_json
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
from datasets.tasks import MultiLabel, Task, task_from_json
from datasets.work_folder import work_folder

STORED_SIDE = 384
"""Shorter side of the images that are kept: what ViLT reads. Smaller ones keep their bytes as they are."""
JPEG_QUALITY = 95
MAX_IMAGE_BYTES = 64 << 20
MAX_PIXELS = 64_000_000
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_TEXT_BYTES = 1 << 20
MAX_CARD_BYTES = 64 << 20
HEADER_BYTES = 4096
"""Room for the safetensors header, which is written last: the images before it are streamed."""
CHUNK = 256
RECIPE = 1
"""Changes when other images are kept of the same raw ones."""

Note = str


class UnusableImage(Exception):
    """Why an image is left out, as the rest of a sentence."""


@dataclass(frozen=True)
class Sample:
    """One sample as a reader of a raw folder finds it."""

    id: str
    split: Split
    label: int | tuple[int, ...]
    """Class, or an indicator for each label."""
    texts: tuple[str, ...]
    image: Path | bytes


@dataclass
class RawPairs:
    """What a reader finds in a raw folder. `samples` is consumed once; reading it may add to `skipped` and `notes`."""

    task: Task
    classes: Sequence[str]
    """Names of the classes or labels, in the order of their numbers."""
    samples: Iterable[Sample]
    count: int
    """How many samples there will be, about."""
    released: Mapping[Split, int] | None
    """Sizes of the released data set; None where the split is ours."""
    text_fields: Sequence[str] = ()
    """Names of a sample's texts; empty where they are alternatives of one another."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """Id and reason of what is left out."""
    notes: list[Note] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)


class PairsCard(BaseModel):
    """What `card.json` of a pairs store says."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format_version: Literal[1] = 1
    kind: Literal["pairs"] = "pairs"
    name: str
    task: dict[str, Any]
    classes: list[str]
    text_fields: list[str]
    sizes: dict[Split, int] = Field(min_length=3)
    fingerprint: str
    data_bytes: int
    notes: list[Note]
    skipped: list[list[str]]
    provenance: dict[str, str]


@dataclass(frozen=True)
class Pairs:
    """An open pairs store; nothing is read before it is used."""

    card: PairsCard
    task: Task
    ids: list[str]
    splits: NDArray[np.uint8]
    """(N,), 0 train, 1 valid, 2 test."""
    target: NDArray[Any]
    """(N,) int64 class or (N, C) float32 indicators."""
    sides: NDArray[np.int32]
    """(N, 2) width and height of the stored images."""
    _arrays: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.ids)

    def texts(self, row: int) -> list[str]:
        """The texts of a sample."""
        first, end = self._arrays["text_rows"][row : row + 2]
        return _strings(self._arrays["texts"], self._arrays["text_offsets"][first : end + 1])

    def image(self, row: int) -> bytes:
        """The encoded image of a sample."""
        start, end = self._arrays["image_offsets"][row : row + 2]
        return self._arrays["images"][start:end].tobytes()

    def rows(self, split: Split) -> NDArray[np.int64]:
        """The samples of a split, in the order of the store."""
        return np.flatnonzero(self.splits == SPLITS.index(split))


# ---- images -----------------------------------------------------------------------------------------------------


def decode(content: bytes) -> Any:
    """An encoded image as an RGB Pillow image.

    Raises:
        UnusableImage: it is no image, truncated, of an unexpected format or of too many pixels.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes that are refused below
            image = Image.open(io.BytesIO(content), formats=IMAGE_FORMATS)
            if image.width * image.height > MAX_PIXELS:  # told by its header: nothing is unpacked yet
                raise UnusableImage(f"has {image.width} x {image.height} pixels")
            return image.convert("RGB")
    except UnusableImage:
        raise
    except Image.DecompressionBombError:
        raise UnusableImage("has far too many pixels") from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise UnusableImage(f"is damaged or no image ({type(error).__name__})") from None


def stored_image(source: Path | bytes) -> tuple[bytes, int, int]:
    """The bytes to keep of an image, its width and height: as they are, or shrunk to a shorter side of 384 pixels.

    Raises:
        UnusableImage: there is none, or as `decode`.
    """
    from PIL import Image

    if isinstance(source, Path):
        if not source.exists():
            raise UnusableImage("is missing")
        try:
            source = read_bytes(source, MAX_IMAGE_BYTES)
        except DataError:
            raise UnusableImage("cannot be read or is too large") from None
    image = decode(source)
    shorter = min(image.size)
    if shorter <= STORED_SIDE and len(source) <= MAX_IMAGE_BYTES:
        return source, *image.size
    width, height = (max(1, round(side * STORED_SIDE / shorter)) for side in image.size)
    shrunk, buffer = image.resize((width, height), Image.Resampling.BICUBIC), io.BytesIO()
    try:
        shrunk.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    except OSError:  # a JPEG has at most 65535 pixels a side
        raise UnusableImage(f"has {image.width} x {image.height} pixels") from None
    return buffer.getvalue(), width, height


def _load_image(sample: Sample) -> Picture:
    try:
        return stored_image(sample.image)
    except UnusableImage as error:
        return f"the image {error}"


# ---- writing ----------------------------------------------------------------------------------------------------


def write_pairs(directory: Path, name: str, raw: RawPairs, overlap: Overlap = "refuse") -> PairsCard:
    """Write a pairs store whole or not at all; one that is there is replaced. A killed call is gone on with.

    Samples without a readable image or without text are left out and listed in the card.

    Args:
        directory: where the store goes.
        name: of the data set.
        raw: what was found in the raw folder.
        overlap: what becomes of ids that come twice; "drop" leaves out training and validation samples that have
            image and text of a later split's, too.

    Raises:
        DataError: an id comes twice, a split is empty, more than half is unusable, or the store cannot be written.
    """
    try:
        directory = directory.resolve()
        refuse_foreign_folder(directory)
        sweep_stale(directory)
        with work_folder(directory, {"pairs": name, "recipe": RECIPE}, "prepares this data set") as folder:
            with ImageJournal(folder, 8 + HEADER_BYTES) as images:
                kept = _stream(images, raw)
            path = folder / ARRAYS
            if overlap == "drop":
                path, kept = _without_overlap(path, raw, kept)
            _check(name, raw, kept, overlap)
            _finish_store(path, directory, name, raw, kept)
    except OSError as error:
        raise DataError(f"store {directory} cannot be written: {error.strerror or error}.") from error
    return read_pairs_card(directory)


def _finish_store(path: Path, directory: Path, name: str, raw: RawPairs, kept: "_Kept") -> None:
    """From the file of images to the store in its place."""
    with path.open("r+b") as file:
        fingerprint = _finish(file, raw.task, kept.arrays(raw.task), kept)
    card = PairsCard(
        name=name,
        task=raw.task.to_json(),
        classes=list(raw.classes),
        text_fields=list(raw.text_fields),
        sizes=kept.sizes(),
        fingerprint=fingerprint,
        data_bytes=path.stat().st_size,
        notes=[*raw.notes, *_notes(raw, kept)],
        skipped=[list(item) for item in raw.skipped],
        provenance=raw.provenance,
    )
    with new_folder(directory) as folder:
        path.replace(folder / ARRAYS)
        (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


@dataclass
class _Kept:
    """What the store will hold, but for the images, which are in the file already."""

    ids: list[str] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    labels: list[int | tuple[int, ...]] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    text_rows: list[int] = field(default_factory=lambda: [0])
    image_ends: list[int] = field(default_factory=lambda: [0])
    sides: list[tuple[int, int]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    """A hash of each sample's image and texts."""
    images_digest: Any = field(default_factory=hashlib.sha256)

    def sizes(self) -> dict[Split, int]:
        counts = Counter(self.splits)
        return {split: counts[i] for i, split in enumerate(SPLITS)}

    def arrays(self, task: Task) -> dict[str, NDArray[Any]]:
        """All arrays but the images, those of wide types first so that each begins on a multiple of its width."""
        ids = [sample_id.encode() for sample_id in self.ids]
        target_type = np.float32 if isinstance(task, MultiLabel) else np.int64
        arrays = {
            "target": np.array(self.labels, dtype=target_type),
            "text_rows": np.array(self.text_rows, dtype=np.int64),
            "text_offsets": _offsets(self.texts),
            "id_offsets": _offsets(ids),
            "image_offsets": np.array(self.image_ends, dtype=np.int64),
            "sides": np.array(self.sides, dtype=np.int32).reshape(-1, 2),
            "splits": np.array(self.splits, dtype=np.uint8),
            "ids": np.frombuffer(b"".join(ids), dtype=np.uint8),
            "texts": np.frombuffer(b"".join(self.texts), dtype=np.uint8),
        }
        return dict(sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])))


def _stream(images: ImageJournal, raw: RawPairs) -> _Kept:
    """Write the images one after the other, keep the rest; what an earlier call has written is read instead."""
    kept, samples, done = _Kept(), iter(raw.samples), 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding releases the interpreter
        while chunk := list(islice(samples, CHUNK)):
            key = _key(chunk)
            pictures = images.taken(key)
            if pictures is None:
                pictures = [
                    problem or picture
                    for picture, problem in zip(pool.map(_load_image, chunk), map(_text_problem, chunk), strict=True)
                ]
                images.add(key, pictures)
            for sample, picture in zip(chunk, pictures, strict=True):
                if isinstance(picture, str):
                    raw.skipped.append((sample.id, picture))
                else:
                    _keep(kept, sample, *picture)
            done += len(chunk)
            report("images", done, max(done, raw.count))
    images.cut()
    return kept


def _key(chunk: Sequence[Sample]) -> str:
    """What tells a chunk of samples from another, their raw images' sizes and times included."""
    digest = hashlib.blake2b(digest_size=16)
    for sample in chunk:
        image = sample.image
        if isinstance(image, Path):
            told = image.stat() if image.exists() else None
            image = repr((str(image), told and (told.st_size, told.st_mtime_ns))).encode()
        digest.update(repr((sample.id, sample.split, sample.label, sample.texts, len(image))).encode() + image)
    return digest.hexdigest()


def _text_problem(sample: Sample) -> str | None:
    texts = _encoded(sample.texts)
    if not any(text.strip() for text in texts):
        return "there is no text"
    if max(map(len, texts)) > MAX_TEXT_BYTES:
        return f"a text is longer than {MAX_TEXT_BYTES >> 20} MiB"
    return None


def _encoded(texts: Sequence[str]) -> list[bytes]:
    return [text.encode("utf-8", errors="replace") for text in texts]


def _keep(kept: _Kept, sample: Sample, content: bytes, width: int, height: int) -> None:
    texts = _encoded(sample.texts)
    kept.ids.append(sample.id)
    kept.splits.append(SPLITS.index(sample.split))
    kept.labels.append(sample.label)
    kept.texts.extend(texts)
    kept.text_rows.append(len(kept.texts))
    kept.image_ends.append(kept.image_ends[-1] + len(content))
    kept.sides.append((width, height))
    kept.images_digest.update(content)
    kept.contents.append(hashlib.blake2b(b"\0".join([*texts, content]), digest_size=16).digest())


def _without_overlap(path: Path, raw: RawPairs, kept: _Kept) -> tuple[Path, _Kept]:
    """The store's images without those of samples that come again, in a file beside; a note tells how many."""
    rows: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for row, code in enumerate(kept.splits):
        rows[SPLITS[code]].append(row)
    stay = set(range(len(kept.ids)))
    for names in (kept.ids, kept.contents):
        of_splits = {split: [str(names[row]) for row in own if row in stay] for split, own in rows.items()}
        places = {split: [row for row in own if row in stay] for split, own in rows.items()}
        chosen = kept_rows(of_splits, within=names is kept.ids)
        stay = {places[split][i] for split in SPLITS for i in chosen[split]}
    lost = Counter(SPLITS[code] for row, code in enumerate(kept.splits) if row not in stay)
    if not lost:
        return path, kept
    told = ", ".join(f"{count} {split}" for split, count in lost.items())
    raw.notes.append(f"samples that come again in another split or with another's id were dropped ({told}).")
    left, target = _Kept(), path.with_name(f"{ARRAYS}.kept")
    with path.open("rb") as source, target.open("wb") as file:
        file.write(bytes(8 + HEADER_BYTES))
        for row in sorted(stay):
            source.seek(8 + HEADER_BYTES + kept.image_ends[row])
            content = source.read(kept.image_ends[row + 1] - kept.image_ends[row])
            file.write(content)
            texts = tuple(text.decode() for text in kept.texts[kept.text_rows[row] : kept.text_rows[row + 1]])
            sample = Sample(kept.ids[row], SPLITS[kept.splits[row]], kept.labels[row], texts, b"")
            _keep(left, sample, content, *kept.sides[row])
    return target, left


def _check(name: str, raw: RawPairs, kept: _Kept, overlap: Overlap) -> None:
    """What no store may have."""
    usable, unusable = len(kept.ids), len(raw.skipped)
    if unusable > usable:
        first, reason = raw.skipped[0]
        raise DataError(
            f"data set '{name}' is not written: {unusable} of {usable + unusable} samples are unusable, "
            f"the first is '{first}': {reason}."
        )
    if odd := next((sample_id for sample_id in kept.ids if not sample_id.isprintable()), None):
        raise DataError(f"data set '{name}' is not written: {odd!r} is no id of a sample.")
    of_splits: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for sample_id, code in zip(kept.ids, kept.splits, strict=True):
        of_splits[SPLITS[code]].append(sample_id)
    if (found := first_overlap(of_splits)) and overlap == "refuse":
        sample_id, first, second = found
        where = f"twice in {first}" if first == second else f"in both {first} and {second}"
        raise DataError(f"data set '{name}' is not written: sample {sample_id!r} is {where}. {REMEDY}.")
    if found:
        raw.notes.append(f"sample {found[0]!r} comes twice, maybe others too; they are kept.")
    if empty := [split for split, size in kept.sizes().items() if size == 0]:
        raise DataError(f"data set '{name}' is not written: its {empty[0]} split has no usable sample.")


def _notes(raw: RawPairs, kept: _Kept) -> list[Note]:
    """How the content differs from what was released, and what else a person should know of it."""
    notes, sizes = [], kept.sizes()
    if raw.released is not None and dict(raw.released) != sizes:
        told = ", ".join(f"{split} {sizes[split]} (released: {raw.released[split]})" for split in SPLITS)
        notes.append(f"the sizes are not those of the released data set: {told}.")
    if raw.skipped:
        reasons = Counter(reason.partition(" (")[0] for _, reason in raw.skipped).most_common(4)
        told = ", ".join(f"{count} x {reason}" for reason, count in reasons)
        notes.append(f"{len(raw.skipped)} samples are left out ({told}); the card lists them.")
    elsewhere = {content for content, s in zip(kept.contents, kept.splits, strict=True) if s == 0}
    for split in (1, 2):
        same = sum(c in elsewhere for c, s in zip(kept.contents, kept.splits, strict=True) if s == split)
        if same:
            notes.append(f"{same} {SPLITS[split]} samples have image and text of a training sample; they are kept.")
    for split, told in ((0, "train"), (2, "test")):
        labels = np.array([label for label, s in zip(kept.labels, kept.splits, strict=True) if s == split])
        wide = isinstance(raw.task, MultiLabel)
        counts = labels.sum(axis=0) if wide else np.bincount(labels, minlength=len(raw.classes))
        if absent := [label for label, count in zip(raw.classes, counts, strict=True) if count == 0]:
            effect = "; its F1 counts as 0" if wide and split == 2 else ""
            notes.append(f"no {told} sample has {', '.join(absent)}{effect}.")
    return notes


def _finish(file: BinaryIO, task: Task, arrays: Mapping[str, NDArray[Any]], kept: _Kept) -> str:
    """Write the arrays behind the images and the header before them; returns the fingerprint of all content."""
    # The library writes a file from arrays in memory; tens of gigabytes of images are streamed instead, in its format:
    # eight bytes of header length, a JSON header padded with spaces, the arrays without gaps.
    images_end = kept.image_ends[-1]
    padding = -images_end % 8
    file.seek(8 + HEADER_BYTES + images_end)
    file.write(bytes(padding))
    shape = [images_end + padding]
    header: dict[str, Any] = {"images": {"dtype": "U8", "shape": shape, "data_offsets": [0, *shape]}}
    digest = hashlib.sha256(json.dumps(task.to_json(), sort_keys=True).encode() + kept.images_digest.digest())
    end = images_end + padding
    for name, array in arrays.items():
        content = np.ascontiguousarray(array).tobytes()
        file.write(content)
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode() + content)
        offsets = [end, end + len(content)]
        header[name] = {"dtype": TYPE_NAMES[array.dtype.str], "shape": array.shape, "data_offsets": offsets}
        end += len(content)
    fingerprint = digest.hexdigest()[:32]
    header["__metadata__"] = {"fingerprint": fingerprint}
    file.seek(0)
    file.write(HEADER_BYTES.to_bytes(8, "little") + json.dumps(header).encode().ljust(HEADER_BYTES))
    return fingerprint


def _offsets(items: Sequence[bytes]) -> NDArray[np.int64]:
    """Where each item begins, and the end of the last."""
    return np.concatenate([[0], np.cumsum([len(item) for item in items])]).astype(np.int64)


def _strings(content: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[str]:
    return [content[start:end].tobytes().decode("utf-8", errors="replace") for start, end in pairwise(offsets)]


# ---- reading ----------------------------------------------------------------------------------------------------


def read_pairs_card(directory: Path) -> PairsCard:
    """The card alone.

    Raises:
        DataError: there is no pairs store, or its card is damaged.
    """
    path = directory / CARD
    if not path.exists():
        raise not_prepared(directory)
    try:
        return PairsCard.model_validate(read_json(path, MAX_CARD_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise damaged(path, f"is not the card of a pairs store ({where}: {first['msg']})") from error


def read_pairs(directory: Path) -> Pairs:
    """The store, memory-mapped; only what is quick is checked. `verify_pairs` reads everything.

    Raises:
        DataError: as `read_pairs_card`, or the arrays are damaged or not those of the card.
    """
    card = read_pairs_card(directory)
    path = directory / ARRAYS
    arrays = map_arrays(path, card.data_bytes, card.fingerprint)
    try:
        task = task_from_json(card.task)
    except (ValueError, TypeError) as error:
        raise damaged(directory / CARD, "has a task this suite does not know") from error
    if problem := _shape_problem(arrays, card, task):
        raise damaged(path, problem)
    ids = _strings(arrays["ids"], arrays["id_offsets"])
    return Pairs(card, task, ids, arrays["splits"], arrays["target"], arrays["sides"], arrays)


def _shape_problem(arrays: Mapping[str, NDArray[Any]], card: PairsCard, task: Task) -> str | None:
    """Why the arrays cannot be those of the card, as the rest of a sentence; offsets never lead out of an array."""
    n = sum(card.sizes.values())
    wide = isinstance(task, MultiLabel)
    expected: dict[str, tuple[type, tuple[int | None, ...]]] = {
        "target": (np.float32 if wide else np.int64, (n, task.width) if wide else (n,)),
        "text_rows": (np.int64, (n + 1,)),
        "text_offsets": (np.int64, (None,)),
        "id_offsets": (np.int64, (n + 1,)),
        "image_offsets": (np.int64, (n + 1,)),
        "sides": (np.int32, (n, 2)),
        "splits": (np.uint8, (n,)),
        "ids": (np.uint8, (None,)),
        "texts": (np.uint8, (None,)),
        "images": (np.uint8, (None,)),
    }
    if odd := set(arrays) ^ set(expected):
        return f"does not hold the arrays of a pairs store ('{min(odd)}')"
    for name, (dtype, shape) in expected.items():
        found = arrays[name]
        if found.dtype != dtype or len(found.shape) != len(shape) or any(
            want is not None and want != have for want, have in zip(shape, found.shape, strict=True)
        ):  # fmt: skip
            return f"has {name} as {found.dtype} {found.shape}"
    counts = np.bincount(arrays["splits"], minlength=3)
    if list(counts) != [card.sizes[split] for split in SPLITS]:
        return f"has {list(counts)} samples in its splits, its card says {[card.sizes[s] for s in SPLITS]}"
    n_texts = len(arrays["text_offsets"]) - 1
    ends = {"text_offsets": len(arrays["texts"]), "id_offsets": len(arrays["ids"]), "text_rows": n_texts}
    for name, end in {**ends, "image_offsets": len(arrays["images"])}.items():
        offsets = arrays[name]
        if len(offsets) == 0 or offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] > end:
            return f"has {name} that lead out of its arrays"
    return None


def _image_problem(content: bytes) -> str | None:
    try:
        decode(content)
    except UnusableImage as error:
        return str(error)
    return None


def verify_pairs(directory: Path) -> list[str]:
    """Read everything and list what is wrong, a sentence each: content against fingerprint, labels, every image."""
    try:
        pairs = read_pairs(directory)
    except DataError as error:
        return [str(error)]
    problems = []
    digest = hashlib.sha256()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(pairs), CHUNK):
            rows = range(start, min(start + CHUNK, len(pairs)))
            contents = [pairs.image(row) for row in rows]
            for row, content, problem in zip(rows, contents, pool.map(_image_problem, contents), strict=True):
                digest.update(content)
                if problem:
                    problems.append(f"the image of sample {pairs.ids[row]!r} {problem}.")
            report("images", rows.stop, len(pairs))
    total = hashlib.sha256(json.dumps(pairs.task.to_json(), sort_keys=True).encode() + digest.digest())
    arrays = {name: array for name, array in pairs._arrays.items() if name != "images"}
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])):
        total.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    if total.hexdigest()[:32] != pairs.card.fingerprint:
        problems.append(f"the content of {directory / ARRAYS} has changed: it does not have the card's fingerprint.")
    return problems


# ---- helpers of readers -----------------------------------------------------------------------------------------


def summary(card: PairsCard, directory: Path) -> str:
    """What a person wants to know after preparing, some lines."""
    sizes = ", ".join(f"{card.sizes[split]} {split}" for split in SPLITS)
    lines = [f"{card.name}: {sizes}; images and texts. Kept in {directory}"]
    lines += [f"  note: {note}" for note in card.notes]
    lines += [f"  left out: {sample}: {reason}" for sample, reason in card.skipped[:5]]
    lines.append(f"Next, the features that grids train on: bench data embed {card.name} --with vilt")
    return "\n".join(lines)


def deal(labels: Sequence[int], shares: Mapping[Split, float], *axes: str) -> list[Split]:
    """A fixed stratified split for sets that were released without one: the split of each sample."""
    from datasets.labels import stratified_split

    split: list[Split] = ["train"] * len(labels)
    parts = stratified_split(np.array(labels), list(shares.values()), *axes)
    for name, rows in zip(shares, parts, strict=True):
        for row in rows:
            split[row] = name
    return split
