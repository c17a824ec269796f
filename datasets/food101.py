"""UPMC Food-101: photos from web search and the titles of their pages, 101 dishes (Wang et al., ICME workshop 2015).

Not ETH Food-101, which has no text.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets.arrow import count_rows, find_arrow_files, read_rows
from datasets.base import Split
from datasets.errors import DataError
from datasets.image_text import ImageText
from datasets.pairs import RawPairs, Sample, deal
from datasets.raw_files import inside, read_csv, read_json
from datasets.tasks import MultiClass

N_CLASSES = 101
RELEASED: Mapping[Split, int] = {"train": 61142, "valid": 6846, "test": 22716}
SPLIT_NAMES: Mapping[Split, str] = {"train": "train", "valid": "val", "test": "test"}
SHARES: Mapping[Split, float] = {"train": 0.9, "valid": 0.1}
"""Of the released training part, where no split.json says which images validate."""
MAX_FILE_BYTES = 512 << 20
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class Food101(ImageText):
    """About 90 700 pairs of 101 dishes; titles often name the dish, so the text alone is strong."""

    name = "food101"
    summary = "UPMC Food-101: photos and page titles of 101 dishes (raw folder or Arrow files)"
    source = "UPMC/ISIR VISIIR page, Kaggle mirror (Wang et al., 2015)"
    licence = "research use; the images are from web search: do not pass them on"

    @classmethod
    def read(cls, source: Path) -> RawPairs:
        if arrows := find_arrow_files(source, "food101", SPLIT_NAMES):
            return _read_arrow(source, arrows)
        return _read_folder(source)


# ---- raw folder -------------------------------------------------------------------------------------------------


def _read_folder(source: Path) -> RawPairs:
    """`images/{train,test}/<class>/<class>_<n>.jpg`, `texts/*_titles.csv` or `text.json`, and maybe `split.json`."""
    raw = RawPairs(MultiClass(2), (), (), 0, RELEASED, provenance={"layout": "folder"})
    titles = _titles(source, raw)
    found = _images(source)
    splits = _splits(source, found, raw)
    placed = []
    for file, split in splits.items():
        dish = file.rpartition("_")[0]
        path = inside(source / "images" / ("test" if split == "test" else "train"), f"{dish}/{file}")
        if not dish or path is None or "/" in file:
            raise DataError(f"{source / 'split.json'}: {file[:60]!r} is not the name of an image like apple_pie_3.jpg.")
        if file not in titles:
            raw.skipped.append((file, "there is no title"))
        else:
            placed.append((file, split, dish, path))
    raw.classes = sorted({dish for _, _, dish, _ in placed})
    raw.task, raw.count = MultiClass(max(2, len(raw.classes))), len(placed)
    if len(raw.classes) != N_CLASSES:
        raw.notes.append(f"there are {len(raw.classes)} classes, the released data set has {N_CLASSES}.")
    number = {dish: i for i, dish in enumerate(raw.classes)}
    if raw.released is None and len(placed) != sum(RELEASED.values()):
        raw.notes.append(f"there are {len(placed)} pairs, the released data set has {sum(RELEASED.values())}.")
    raw.samples = [Sample(file, split, number[dish], (titles[file],), path) for file, split, dish, path in placed]
    return raw


def _titles(source: Path, raw: RawPairs) -> dict[str, str]:
    """File name -> title, from the two CSV files or from text.json."""
    csvs = [source / "texts" / f"{part}_titles.csv" for part in ("train", "test")]
    if all(path.is_file() for path in csvs):
        raw.provenance["titles"] = "texts/*_titles.csv"
        return {file: title for path in csvs for file, title in _csv_titles(path, raw)}
    path = source / "text.json"
    if not path.is_file():
        raise DataError(f"{source} has neither texts/train_titles.csv and texts/test_titles.csv nor text.json.")
    content = read_json(path, MAX_FILE_BYTES)
    if not isinstance(content, dict) or not all(isinstance(title, str) for title in content.values()):
        raise DataError(f"{path} must map names of images to titles.")
    raw.provenance["titles"] = "text.json"
    return content


def _csv_titles(path: Path, raw: RawPairs) -> Iterator[tuple[str, str]]:
    """Rows `file,title,class` without a header."""
    rows = bad = 0
    for _, row in read_csv(path, MAX_FILE_BYTES):
        rows += 1
        if len(row) != 3 or row[0].rpartition("_")[0] != row[2]:
            bad += 1
            continue
        yield row[0], row[1]
    if bad * 2 > rows:
        raise DataError(f"{path}: {bad} of {rows} rows are not 'file,title,class' with the class of the file's name.")
    if bad:
        raw.notes.append(f"{bad} rows of {path.name} are not 'file,title,class' and are ignored.")


def _images(source: Path) -> dict[str, str]:
    """File name -> `train` or `test`, the part whose folder it lies in."""
    found: dict[str, str] = {}
    for part in ("train", "test"):
        folder = source / "images" / part
        if not folder.is_dir():
            raise DataError(f"{folder} is missing: {source} is not the folder of UPMC Food-101 (images, texts).")
        for dish in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
            for name in sorted(entry.name for entry in dish.iterdir()):
                if not name.lower().endswith(IMAGE_SUFFIXES) or name.rpartition("_")[0] != dish.name:
                    continue
                if found.setdefault(name, part) != part:
                    raise DataError(f"{source / 'images'}: {name} is in both train and test.")
    return found


def _splits(source: Path, found: Mapping[str, str], raw: RawPairs) -> dict[str, Split]:
    """File name -> split: as split.json says, or the released parts with a fixed tenth of train to validate."""
    path = source / "split.json"
    if path.is_file():
        raw.provenance["split"] = "split.json"
        return _read_split(path)
    raw.provenance["split"] = "a fixed stratified tenth of the released training part validates"
    train = [file for file, part in found.items() if part == "train"]
    dishes = sorted({file.rpartition("_")[0] for file in train})
    raw.released = None
    dealt = deal([dishes.index(file.rpartition("_")[0]) for file in train], SHARES, "food101", "split")
    splits = dict(zip(train, dealt, strict=True))
    return splits | {file: "test" for file, part in found.items() if part == "test"}


def _read_split(path: Path) -> dict[str, Split]:
    content, splits = read_json(path, MAX_FILE_BYTES), dict[str, Split]()
    for split, name in SPLIT_NAMES.items():
        files = content.get(name) if isinstance(content, dict) else None
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            raise DataError(f"{path}: '{name}' must be a list of names of images.")
        for file in files:
            if splits.setdefault(file, split) != split:
                raise DataError(f"{path}: {file[:60]!r} is in both {SPLIT_NAMES[splits[file]]} and {name}.")
    return splits


# ---- Arrow files ------------------------------------------------------------------------------------------------


def _read_arrow(source: Path, paths: Mapping[Split, Path]) -> RawPairs:
    """The class numbers are those of class_idx.json, which names them where it lies beside the files."""
    count = sum(map(count_rows, paths.values()))
    names = _class_names(source / "class_idx.json")
    task = MultiClass(len(names))
    samples = _arrow_samples(paths, len(names))
    return RawPairs(task, names, samples, count, RELEASED, provenance={"layout": "arrow"})


def _class_names(path: Path) -> list[str]:
    if not path.is_file():
        return [str(i) for i in range(N_CLASSES)]
    content: Any = read_json(path, 1 << 20)
    if not isinstance(content, dict) or sorted(content.values(), key=str) != sorted(range(len(content)), key=str):
        raise DataError(f"{path} must map each class to a number of its own from 0.")
    return sorted(content, key=lambda name: int(content[name]))


def _arrow_samples(paths: Mapping[Split, Path], n_classes: int) -> Iterator[Sample]:
    columns = {
        "image": ("binary", "image"), "texts": ("texts", "text"), "label": ("integer", "label"),
        "id": ("text", "image_id"),
    }  # fmt: skip
    for split, path in paths.items():
        for number, row in read_rows(path, columns):
            if not 0 <= row["label"] < n_classes:
                raise DataError(f"{path}: row {number} has class {row['label']}, expected 0 to {n_classes - 1}.")
            texts = tuple(text for text in row["texts"] if text is not None)[:1]
            yield Sample(row["id"], split, row["label"], texts, row["image"])
