"""From a pairs store to the features store that grids train on: every text and every image through a network, once.

A job that is killed goes on where it stopped: vectors go to files beside the store, batch by batch, and batches do not
depend on when they are computed. K texts are trained on, N images; one image may have several texts.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.base import SPLITS, Part, Split
from datasets.errors import DataError, UserError, did_you_mean
from datasets.image_text import ImageText
from datasets.pairs import Pairs, decode, read_pairs
from datasets.pretrained import ENCODERS, Encoder
from datasets.progress import report
from datasets.raw_files import require
from datasets.seeds import generator
from datasets.store import Notes, outline, read_card, read_store, store_directory, write_store
from datasets.work_folder import replace_text, work_folder

T = TypeVar("T")
AHEAD = 2
"""Batches whose images are decoded while one is computed."""


@dataclass(frozen=True)
class Corruption:
    """RAML's corruption of the TEST split, before the networks: pixels get noise, words are masked."""

    noise: float = 0.0
    """Standard deviation of the Gaussian noise on pixels in [0, 1], which are then clipped."""
    mask: float = 0.0
    """Probability that a word becomes [MASK]."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.noise <= 10 and 0 <= self.mask <= 1):
            raise UserError(
                f"noise is a deviation in [0, 10] and mask a share in [0, 1], got {self.noise}, {self.mask}."
            )

    @property
    def suffix(self) -> str:
        """What it adds to the name of the features; nothing where nothing is corrupted."""
        if not (self.noise or self.mask):
            return ""
        noise, mask = (
            f".{name}-{value:g}" if value else "" for name, value in (("noise", self.noise), ("mask", self.mask))
        )
        return f"{noise}{mask}.seed-{self.seed}"


@dataclass(frozen=True)
class Job:
    """One call of `embed`."""

    encoder: str
    weights: Mapping[str, str] = field(default_factory=dict)
    """`text` and `image`, or `both` for one network, -> folder or hub id; left out, the encoder's own."""
    batch: int = 32
    max_length: int | None = None
    device: str = "auto"
    corruption: Corruption = Corruption()


def embed(dataset: ImageText, job: Job) -> str:
    """Make the features store of a data set and tell what it holds; a finished one is left alone.

    With corruption, training and validation are those of the clean features, which must be there.

    Raises:
        UserError: an unknown encoder, wrong options, or transformers is not installed.
        DataError: the pairs store, the weights or the clean features are absent or damaged, or another call is at
            work on the same.
    """
    _check(job)
    pairs = read_pairs(store_directory(dataset.name))
    encoder = ENCODERS[job.encoder](job.weights, job.max_length, _device(job.device))
    facts = _facts(dataset, pairs, encoder, job)
    clean = _configured(dataset, job.encoder)
    wanted = _configured(dataset, job.encoder + job.corruption.suffix)
    directory = wanted.features_directory()
    if _facts_of(directory) != facts:
        machine = {"batch": str(job.batch), "device": _device(job.device), "torch": str(torch.__version__)}
        with work_folder(directory, {**facts, **machine}, "makes these features") as folder:
            work = Work(folder, encoder, job, pairs)
            parts = _corrupted(work, clean, facts) if job.corruption.suffix else _clean(work, dataset)
            provenance = {
                "format": f"{job.encoder} features",
                "made from": f"pairs store {pairs.card.fingerprint}",
            } | machine
            notes = Notes(provenance, pairs.card.notes, facts)
            write_store(directory, outline(directory.name, pairs.task, parts), parts, notes)
    spec = wanted.spec()
    sizes = ", ".join(f"{spec.sizes[split]} {split}" for split in SPLITS)
    widths = ", ".join(f"{name} {shape[0]}" for name, shape in spec.modalities.items())
    return f"{dataset.name}: {sizes}; {widths} numbers each. In a grid: {_grid_line(wanted)}. Kept in {directory}"


def _check(job: Job) -> None:
    if job.encoder not in ENCODERS:
        near = did_you_mean(job.encoder, [*ENCODERS])
        raise UserError(f"unknown encoder '{job.encoder}'.{near} There are: {', '.join(ENCODERS)}.")
    known = ENCODERS[job.encoder].defaults
    if odd := sorted(job.weights.keys() - known.keys()):
        raise UserError(f"{job.encoder} has no weights '{odd[0]}': it takes {', '.join(known)}.")
    if not 1 <= job.batch <= 65536 or not (job.max_length is None or 3 <= job.max_length <= 8192):
        raise UserError("a batch has 1 to 65536 samples, and max-length is 3 to 8192 tokens.")
    require("PIL", "Pillow", "images")


def _configured(dataset: ImageText, features: str) -> ImageText:
    return type(dataset)(dataset.config.model_copy(update={"inputs": "features", "features": features}))


def _device(asked: str) -> str:
    """The device to compute on; `auto` is the first GPU where there is one."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=asked)
    except Exception as error:  # torch raises several kinds for devices that are not there
        raise UserError(f"there is no device '{asked}' here.") from error
    return asked


def _facts(dataset: ImageText, pairs: Pairs, encoder: Encoder, job: Job) -> dict[str, Any]:
    """What determines the vectors up to rounding, as the card keeps it."""
    return {
        "encoder": job.encoder, **encoder.facts(), "pairs": pairs.card.fingerprint, "classes": pairs.card.classes,
        "options": dataset.options(),
        "corruption": {"noise": job.corruption.noise, "mask": job.corruption.mask, "seed": job.corruption.seed},
    }  # fmt: skip


def _facts_of(directory: Path) -> dict[str, Any] | None:
    """What the features that are there were made with."""
    try:
        return read_card(directory).facts
    except DataError:
        return None


def _grid_line(dataset: ImageText) -> str:
    options = {
        **({} if dataset.config.features == "vilt" else {"features": dataset.config.features}),
        **dataset.options(),
    }
    told = ", ".join(f"{key}: {value}" for key, value in options.items())
    return f"{dataset.name}: {{{told}}}" if told else dataset.name


# ---- what is encoded --------------------------------------------------------------------------------------------


def _clean(work: "Work", dataset: ImageText) -> dict[Split, Part]:
    """Every text and every image."""
    pairs = work.pairs
    chosen = [(row, text) for row in range(len(pairs)) for text in dataset.choose(pairs.texts(row))]
    rows = np.array([row for row, _ in chosen], dtype=np.int64)
    texts = work.texts([text for _, text in chosen])
    images = work.images(np.arange(len(pairs)))
    parts: dict[Split, Part] = {}
    for code, split in enumerate(SPLITS):
        here = pairs.splits[rows] == code
        parts[split] = Part({"text": texts[here], "image": images[rows[here]]}, pairs.target[rows[here]])
    return parts


def _corrupted(work: "Work", clean: ImageText, facts: Mapping[str, Any]) -> dict[Split, Part]:
    """The clean features, but for what the corruption changes in the test split."""
    directory, pairs = clean.features_directory(), work.pairs
    none = Corruption()
    expected = {**facts, "corruption": {"noise": none.noise, "mask": none.mask, "seed": none.seed}}
    if _facts_of(directory) != expected:
        raise DataError(
            f"corrupted features need the clean ones in {directory}, made with the same weights and options: "
            f"run the same command without noise and mask first."
        )
    parts = dict(read_store(directory).parts)
    test, how = pairs.rows("test"), work.job.corruption
    chosen = [(int(row), text) for row in test for text in clean.choose(pairs.texts(int(row)))]
    inputs = dict(parts["test"].inputs)
    if how.mask:
        words = [masked(text, how, pairs.ids[row], i, work.encoder) for i, (row, text) in enumerate(chosen)]
        inputs["text"] = work.texts(words)
    if how.noise:
        place = {int(row): i for i, row in enumerate(test)}
        inputs["image"] = work.images(test)[[place[row] for row, _ in chosen]]
    return parts | {"test": Part(inputs, parts["test"].target)}


def masked(text: str, how: Corruption, sample: str, number: int, encoder: Encoder) -> str:
    """Each word replaced by [MASK] with probability `how.mask`; the draw is that sample's, whatever is around it."""
    words = text.split()
    drawn = generator("mask", how.seed, sample, number).random(len(words)) < how.mask
    return " ".join(str(encoder.tokenize.mask_token) if hit else word for word, hit in zip(words, drawn, strict=True))


def noised(pixels: NDArray[np.float32], how: Corruption, sample: str) -> NDArray[np.float32]:
    """Pixels in [0, 1] with Gaussian noise, clipped; levels of one seed scale the same draw."""
    if not how.noise:
        return pixels
    drawn = generator("noise", how.seed, sample).standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(pixels + np.float32(how.noise) * drawn, 0, 1)


class Work:
    """Batches through the networks into files of one folder, from where an earlier call stopped."""

    def __init__(self, folder: Path, encoder: Encoder, job: Job, pairs: Pairs) -> None:
        self.folder, self.encoder, self.job, self.pairs = folder, encoder, job, pairs
        self.device = _device(job.device)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A vector for each text, (K, D)."""
        ids = []
        for text in texts:
            ids.append(self.encoder.token_ids(text))
            report("texts into tokens", len(ids), len(texts))
        order = np.argsort([-len(tokens) for tokens in ids], kind="stable")  # alike lengths together, longest first

        def encode(rows: NDArray[np.int64], batch: Sequence[list[int]]) -> torch.Tensor:
            longest = max(map(len, batch))
            tokens = torch.zeros(len(batch), longest, dtype=torch.long)
            mask = torch.zeros(len(batch), longest, dtype=torch.bool)
            for i, own in enumerate(batch):
                tokens[i, : len(own)] = torch.tensor(own)
                mask[i, : len(own)] = True
            return self.encoder.encode_text(tokens.to(self.device), mask.to(self.device))

        return self._run("text", self._slices(order), len(texts), lambda i: ids[i], encode)

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """A vector for each of the images `rows`, (len(rows), D)."""
        shapes = [self.encoder.shape(*map(int, self.pairs.sides[row])) for row in rows]
        kinds = sorted(set(shapes), key=lambda shape: (-shape[0] * shape[1], shape))
        batches = []
        for kind in kinds:  # images of one size share a batch, so that none needs padding
            batches += self._slices(np.array([i for i, shape in enumerate(shapes) if shape == kind]))

        def load(i: int) -> NDArray[np.float32]:
            row = int(rows[i])
            pixels = self.encoder.unit_pixels(decode(self.pairs.image(row)))
            return self.encoder.normalise(noised(pixels, self.job.corruption, self.pairs.ids[row]))

        def encode(rows: NDArray[np.int64], batch: Sequence[NDArray[np.float32]]) -> torch.Tensor:
            return self.encoder.encode_image(torch.from_numpy(np.stack(batch)).to(self.device))

        return self._run("image", batches, len(rows), load, encode)

    def _slices(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [order[start : start + self.job.batch] for start in range(0, len(order), self.job.batch)]

    def _run(
        self,
        what: str,
        batches: Sequence[NDArray[np.int64]],
        count: int,
        load: Callable[[int], T],
        encode: Callable[[NDArray[np.int64], Sequence[T]], torch.Tensor],
    ) -> NDArray[np.float32]:
        """Fill `<what>.npy` (count, D) batch by batch; `<what>.done` counts the batches that are in it."""
        path, counter = self.folder / f"{what}.npy", self.folder / f"{what}.done"
        finished = int(counter.read_text()) if counter.exists() and path.exists() else 0
        array = np.lib.format.open_memmap(path, mode="r+") if finished else None
        done = sum(map(len, batches[:finished]))
        for number, (batch, loaded) in enumerate(ahead(batches[finished:], load), start=finished + 1):
            vectors = self._encoded(batch, loaded, encode)
            if array is None:
                shape = (count, vectors.shape[1])
                array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
                with path.open("r+b") as file:  # a full disk is an error now, and no crash in the map later
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            array[batch] = vectors
            array.flush()
            replace_text(counter, str(number))
            done += len(batch)
            report(f"{what}s through {self.encoder.name}", done, count)
        assert array is not None
        return array

    @torch.inference_mode()
    def _encoded(
        self, batch: NDArray[np.int64], loaded: Sequence[T], encode: Callable[..., torch.Tensor]
    ) -> NDArray[np.float32]:
        try:
            vectors: NDArray[np.float32] = encode(batch, loaded).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"a batch of {self.job.batch} does not fit into the device's memory: use --batch."
            ) from error
        if not np.isfinite(vectors).all():
            raise DataError(f"{self.encoder.name} gives values that are not finite: its weights are damaged.")
        return vectors


def ahead(
    batches: Sequence[NDArray[np.int64]], load: Callable[[int], T]
) -> Iterator[tuple[NDArray[np.int64], list[T]]]:
    """Each batch with what `load` gives for its members; the next ones are loaded meanwhile."""
    waiting: deque[tuple[NDArray[np.int64], list[Future[T]]]] = deque()
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for batch in batches:
            waiting.append((batch, [pool.submit(load, int(i)) for i in batch]))
            if len(waiting) > AHEAD:
                first, futures = waiting.popleft()
                yield first, [future.result() for future in futures]
        for last, futures in waiting:
            yield last, [future.result() for future in futures]
