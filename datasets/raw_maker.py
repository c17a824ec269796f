"""Files of random values in the formats of the real affect data sets: to try a pipeline, its speed and its memory.

Same keys, types, nesting, shapes and kinds of padding as the real files, -inf and NaN in the audio included; the
features are noise with a little of the label in them, so that something can be learnt. N samples, T steps.
"""

import pickle  # nosec B403  # written, never read
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DataError, UserError
from datasets.progress import report
from datasets.seeds import generator

Format = Literal["mult", "mult_unaligned", "multibench", "mmsa", "mmsa_unaligned"]
FORMATS: tuple[Format, ...] = ("mult", "mult_unaligned", "multibench", "mmsa", "mmsa_unaligned")
SPLITS = ("train", "valid", "test")
SIZES = {
    ("cmu_mosi", "mmsa"): (1284, 229, 686), ("cmu_mosi", "other"): (1284, 229, 686),
    ("cmu_mosei", "mmsa"): (16326, 1871, 4659), ("cmu_mosei", "other"): (16265, 1869, 4643),
}  # fmt: skip
UNALIGNED_STEPS = {"text": 50, "audio": 375, "vision": 500}
SIGNAL = 0.3
ROWS_AT_A_TIME = 512


def make_raw(name: str, out: Path, rows: int | None = None, form: str | None = None, seed: int = 0) -> None:
    """Write a file, or for `iemocap` a folder, as people have it of the data set `name`.

    Args:
        name: cmu_mosi, cmu_mosei or iemocap.
        out: what is written; must not exist.
        rows: training samples (IEMOCAP: utterances in all); None makes as many as the real set has.
        form: one of `FORMATS`; None is "mult".
        seed: of the values.

    Raises:
        UserError: there is no such maker, or the form does not fit.
        DataError: `out` exists or cannot be written.
    """
    if name not in ("cmu_mosi", "cmu_mosei", "iemocap"):
        raise UserError(f"there is no maker of '{name}': it makes cmu_mosi, cmu_mosei and iemocap.")
    if rows is not None and not 1 <= rows <= 1_000_000:
        raise UserError(f"--rows takes 1 to 1,000,000, got {rows}.")
    if out.exists():
        raise DataError(f"{out} exists and is not overwritten: name another with --out.")
    try:
        if name == "iemocap":
            if form is not None:
                raise UserError("iemocap has one format: leave --format out.")
            make_iemocap(out, 5531 if rows is None else rows, seed=seed)
            return
        if form is not None and form not in FORMATS:
            raise UserError(f"there is no format '{form}': it is one of {', '.join(FORMATS)}.")
        content = affect_content(name, form or "mult", split_sizes(name, form or "mult", rows), seed)
        with out.open("xb") as file:
            pickle.dump(content, file, protocol=4)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}.") from error


def split_sizes(name: str, form: str, rows: int | None) -> tuple[int, int, int]:
    """Samples of the three splits: the real ones, or about 8 : 1 : 3 from the training samples asked for."""
    if rows is None:
        return SIZES[name, "mmsa" if form.startswith("mmsa") else "other"]
    return rows, max(rows // 8, 7), max(3 * rows // 8, 7)


# ---- CMU-MOSI and CMU-MOSEI -------------------------------------------------------------------------------------


def affect_content(name: str, form: Format, sizes: tuple[int, int, int], seed: int = 0) -> dict[str, Any]:
    """What the pickle of one project holds: split -> key -> value."""
    content = {}
    for split, n in zip(SPLITS, sizes, strict=True):
        rng = generator("raw", name, form, split, seed)
        target = sentiments(rng, n)
        make = {"mult": _mult, "multibench": _multibench, "mmsa": _mmsa}[form.removesuffix("_unaligned")]
        content[split] = make(rng, name, split, target, form.endswith("_unaligned"))
        report("making", len(content), len(SPLITS))
    return content


def sentiments(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Multiples of 0.2 in [-3, 3]; from seven samples on every level from -3 to 3 occurs, exact zeros too."""
    level = rng.permutation(np.arange(n) % 7 - 3)
    target = level + 0.2 * rng.integers(-2, 3, n)
    target[np.flatnonzero(level == 0)[:2]] = 0
    clipped: NDArray[np.float64] = np.clip(np.round(target, 1), -3, 3)
    return clipped


def features(
    rng: np.random.Generator, target: NDArray[np.float64], length: NDArray[np.int64], shape: tuple[int, int], dtype: str
) -> NDArray[Any]:
    """Sequences (N, T, D) with `length` steps of noise and signal each, zeros in front."""
    steps, width = shape
    direction = generator("direction", width).standard_normal(width, dtype=np.float32)
    x = np.empty((len(target), steps, width), dtype=dtype)
    for start in range(0, len(x), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        noise = rng.standard_normal((len(target[rows]), steps, width), dtype=np.float32)
        noise += SIGNAL * target[rows, None, None].astype(np.float32) * direction
        noise[np.arange(steps) < steps - length[rows, None]] = 0
        x[rows] = noise
    return x


def _affect_features(
    rng: np.random.Generator, target: NDArray[np.float64], widths: dict[str, int], dtype: str, unaligned: bool
) -> dict[str, NDArray[Any]]:
    """The three modalities, with 5 to 30 zero rows in front, two -inf and a NaN in the audio."""
    length = 50 - rng.integers(5, 31, len(target))
    found = {}
    for name, width in widths.items():
        steps = UNALIGNED_STEPS[name] if unaligned else 50
        found[name] = features(rng, target, length * steps // 50, (steps, width), dtype)
    found["audio"][0, -1, :2] = -np.inf
    found["audio"][-1, -1, 0] = np.nan
    return found


def _mult(
    rng: np.random.Generator, name: str, split: str, target: NDArray[np.float64], unaligned: bool
) -> dict[str, Any]:
    widths = {"text": 300, "audio": 5, "vision": 20} if name == "cmu_mosi" else {"text": 300, "audio": 74, "vision": 35}
    found = _affect_features(rng, target, widths, "float64", unaligned)
    ids = np.array([[f"{split}_{i // 4}", f"{i % 4 * 5}.0", f"{i % 4 * 5 + 4}.5"] for i in range(len(target))])
    return {
        "text": found["text"], "audio": found["audio"], "vision": found["vision"],
        "labels": target[:, None, None], "id": ids.astype("S") if name == "cmu_mosi" else ids,
    }  # fmt: skip


def _multibench(
    rng: np.random.Generator, name: str, split: str, target: NDArray[np.float64], unaligned: bool
) -> dict[str, Any]:
    found = _affect_features(rng, target, {"text": 300, "audio": 74, "vision": 35}, "float32", unaligned)
    if split == "train":
        found["text"][len(target) // 2] = 0
    ids = [f"{split}{i // 4}[{i % 4}]" for i in range(len(target))]
    return {
        "vision": found["vision"], "audio": found["audio"], "text": found["text"],
        "labels": target[:, None, None], "id": ids,
    }  # fmt: skip


def _mmsa(
    rng: np.random.Generator, name: str, split: str, target: NDArray[np.float64], unaligned: bool
) -> dict[str, Any]:
    """Padded at the end; BERT says something of padding too; one text fills all 50 steps."""
    n, (audio_width, vision_width) = len(target), ((5, 20) if name == "cmu_mosi" else (74, 35))
    words = rng.integers(5, 51, n)
    words[0] = 50
    widths, length = {"text": 768, "audio": audio_width, "vision": vision_width}, {}
    content: dict[str, Any] = {"raw_text": [f"{count} words said" for count in words]}
    for modality, width in widths.items():
        steps = UNALIGNED_STEPS[modality] if unaligned else 50
        length[modality] = words * steps // 50
        x = features(rng, target, length[modality], (steps, width), "float32")
        for row, count in enumerate(length[modality]):
            x[row] = np.roll(x[row], count - steps, axis=0)
            if modality == "text":
                x[row, count:] = 0.01
        content[modality] = x
    content["audio"][0, 0, :2] = -np.inf
    content["id"] = [f"{split}{i // 4}$_${i % 4}" for i in range(n)]
    mask = (np.arange(50) < words[:, None]).astype(np.int64)
    content["text_bert"] = np.stack([mask * rng.integers(1000, 30000, (n, 50)), mask, np.zeros_like(mask)], axis=1)
    if unaligned:
        content |= {f"{modality}_lengths": length[modality].tolist() for modality in ("audio", "vision")}
    sign = np.sign(target).astype(int)
    content["annotations"] = [("Negative", "Neutral", "Positive")[value + 1] for value in sign]
    content["classification_labels"] = (sign + 1).astype(np.float64)
    content["regression_labels"] = target.astype(np.float32)
    return content


# ---- IEMOCAP ----------------------------------------------------------------------------------------------------


def make_iemocap(folder: Path, n: int, *, seed: int = 0, audio_steps: tuple[int, int] | None = None) -> None:
    """Write the folder of the MMIN project: h5 files of features, statistics and targets of ten folds.

    Ten speakers in five sessions; fold k tests one speaker and validates on the other of its session.

    Args:
        folder: is made.
        n: utterances, dealt evenly to speakers and classes.
        seed: of the values.
        audio_steps: fewest and most steps of the audio; None: as the real ones, up to some hundred.
    """
    import h5py

    rng = generator("raw", "iemocap", seed)
    names = [f"Ses0{i % 10 // 2 + 1}{'FM'[i % 2]}_impro{i // 10:04d}" for i in range(n)]
    classes = np.arange(n) // 10 % 4
    speaker = np.arange(n) % 10
    steps = rng.integers(*(audio_steps or (40, 340)), n, endpoint=True)
    for part in ("A", "V", "L", "target"):
        (folder / part).mkdir(parents=True)
    shapes = {"A/comparE.h5": (0, 130), "V/denseface.h5": (50, 342), "L/bert_large.h5": (22, 1024)}
    audio: list[NDArray[Any]] = []
    for file, (fixed, width) in shapes.items():
        with h5py.File(folder / file, "w") as store:
            for done, (name, x) in enumerate(_utterances(rng, names, classes, steps, fixed, width)):
                store[name] = x
                if not fixed:
                    audio.append(x)
                if done % 100 == 0:
                    report(f"making {file}", done, n)
    with h5py.File(folder / "A" / "comparE_mean_std.h5", "w") as store:
        for fold in range(10):
            parts = {"tst": speaker == fold, "val": speaker == fold ^ 1}
            parts["trn"] = ~(parts["tst"] | parts["val"])
            frames = np.concatenate([audio[i] for i in np.flatnonzero(parts["trn"])] or [np.zeros((1, 130))])
            store[f"{fold + 1}/mean"], store[f"{fold + 1}/std"] = frames.mean(axis=0), frames.std(axis=0)
            target = folder / "target" / str(fold + 1)
            target.mkdir()
            for part, mask in parts.items():
                np.save(target / f"{part}_label.npy", np.eye(4)[classes[mask]])
                np.save(target / f"{part}_int2name.npy", np.array([[names[i].encode()] for i in np.flatnonzero(mask)]))


def _utterances(
    rng: np.random.Generator, names: list[str], classes: NDArray[Any], steps: NDArray[Any], fixed: int, width: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each utterance with its sequence (T, D): noise, and a direction for each class."""
    directions = generator("directions", width).standard_normal((4, width), dtype=np.float32)
    for name, label, n in zip(names, classes, steps, strict=True):
        noise = rng.standard_normal((fixed or n, width), dtype=np.float32)
        yield name, noise + SIGNAL * directions[label]
