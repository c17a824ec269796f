"""Hateful Memes: images with their caption, hateful or not (Kiela et al., NeurIPS 2020)."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from datasets.arrow import count_rows, find_arrow_files, read_rows
from datasets.base import SPLITS, Split
from datasets.errors import DataError
from datasets.image_text import ImageText
from datasets.pairs import RawPairs, Sample
from datasets.raw_files import inside, read_json_lines
from datasets.tasks import Binary

TASK = Binary()
CLASSES = ("not hateful", "hateful")
RELEASED: Mapping[Split, int] = {"train": 8500, "valid": 500, "test": 1000}
FILES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train.jsonl",),
    "valid": ("dev_seen.jsonl", "dev.jsonl"),
    "test": ("test_seen.jsonl", "test.jsonl"),
}
MAX_FILE_BYTES = 256 << 20


class HatefulMemes(ImageText):
    """8500 to train, dev_seen (500) to validate, test_seen (1000) to test."""

    name = "hateful_memes"
    summary = "memes: image and caption, hateful or not; AUROC (raw folder or Arrow files)"
    source = "Meta AI Hateful Memes challenge (Kiela et al., 2020)"
    licence = "Meta's own, to be accepted by each user; do not pass it on. The content is offensive"

    @classmethod
    def read(cls, source: Path) -> RawPairs:
        if arrows := find_arrow_files(source, "hatememes", {"train": "train", "valid": "dev", "test": "test"}):
            count = sum(map(count_rows, arrows.values()))
            return RawPairs(TASK, CLASSES, _arrow_samples(arrows), count, RELEASED, provenance={"layout": "arrow"})
        folder = source / "data" if (source / "data" / "train.jsonl").is_file() else source
        files = {split: _file(folder, split) for split in SPLITS}
        samples = [sample for split, path in files.items() for sample in _samples(folder, path, split)]
        provenance = {"layout": "folder"} | {split: path.name for split, path in files.items()}
        return RawPairs(TASK, CLASSES, samples, len(samples), RELEASED, provenance=provenance)


def _file(folder: Path, split: Split) -> Path:
    for name in FILES[split]:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} has no {' or '.join(FILES[split])}: give the folder of Hateful Memes with --from.")


def _samples(folder: Path, path: Path, split: Split) -> Iterator[Sample]:
    for number, line in read_json_lines(path, MAX_FILE_BYTES):
        where = f"{path}:{number}"
        image, text, label = line.get("img"), line.get("text"), line.get("label")
        if "label" not in line:
            raise DataError(
                f"{where} has no label: it is the challenge's file without them. "
                f"Put {FILES[split][0]} of the later release beside it."
            )
        if not isinstance(image, str) or not isinstance(text, str):
            raise DataError(f"{where}: 'img' and 'text' must be strings.")
        if label not in (0, 1) or isinstance(label, bool | float):
            raise DataError(f"{where}: 'label' must be 0 or 1, got {str(label)[:40]!r}.")
        if (file := inside(folder, image)) is None:
            raise DataError(f"{where}: 'img' {image[:60]!r} leads out of the folder.")
        # The file's name and not `id`: an integer has lost its leading zeros.
        yield Sample(file.stem, split, label, (text,), file)


def _arrow_samples(paths: Mapping[Split, Path]) -> Iterator[Sample]:
    columns = {"image": ("binary", "image"), "texts": ("texts", "text", "plots"), "label": ("integer", "label")}
    for split, path in paths.items():
        for number, row in read_rows(path, columns):
            if row["label"] not in (0, 1):
                raise DataError(f"{path}: row {number} has label {row['label']}, expected 0 or 1.")
            texts = tuple(text for text in row["texts"] if text is not None)[:1]
            yield Sample(f"{split}-{number}", split, row["label"], texts, row["image"])
