"""MM-IMDb: film posters and plots with 23 genres, a film having one or more (Arevalo et al., ICLR workshop 2017)."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from datasets.arrow import count_rows, find_arrow_files, read_rows
from datasets.base import SPLITS, Part, Split
from datasets.errors import DataError
from datasets.image_text import ImageText, ImageTextConfig
from datasets.overlap import REMEDY, Overlap, first_overlap, kept_rows
from datasets.pairs import RawPairs, Sample
from datasets.raw_files import read_json, require
from datasets.store import spec_of, write_store
from datasets.tasks import MultiLabel

GENRES = (
    "Drama", "Comedy", "Romance", "Thriller", "Crime", "Action", "Adventure", "Horror", "Documentary", "Mystery",
    "Sci-Fi", "Fantasy", "Family", "Biography", "War", "History", "Music", "Animation", "Musical", "Western", "Sport",
    "Short", "Film-Noir",
)  # fmt: skip
"""In the order of the missing-aware prompts code."""

TASK = MultiLabel(len(GENRES))
RELEASED: Mapping[Split, int] = {"train": 15552, "valid": 2608, "test": 7799}
SPLIT_NAMES: Mapping[Split, str] = {"train": "train", "valid": "dev", "test": "test"}

HDF5_NAME, HDF5_VARIANT = "multimodal_imdb.hdf5", "vgg-word2vec"
HDF5_SHAPES = {"features": (300,), "vgg_features": (4096,), "genres": (23,), "imdb_ids": ()}
MAX_ROWS = 200_000

ID = re.compile(r"[0-9]{1,12}")
Arrays = dict[str, NDArray[Any]]


class MMIMDbConfig(ImageTextConfig):
    """Options of `mm_imdb`."""

    plots: Literal["longest", "all"] = Field(
        default="longest",
        description="one sample a film, with its longest plot; or one sample a plot, as missing-aware prompts has it",
    )

    @model_validator(mode="after")
    def _a_film_is_in_one_split(self) -> "MMIMDbConfig":
        if self.fold is not None and self.plots == "all":
            raise ValueError("plots: all has several samples of a film, which folds would part: use plots: longest.")
        return self


class MMIMDb(ImageText):
    """25959 films, 23 genres, released splits of 15552, 2608 and 7799."""

    name = "mm_imdb"
    summary = "film posters and plots, 23 genres, multi-label (raw folder, Arrow files or the GMU HDF5 file)"
    source = "MM-IMDb (Arevalo et al., 2017), project page or its archive.org mirror"
    licence = "research use; posters and plots belong to IMDb and the rights holders: do not pass them on"
    Config = MMIMDbConfig
    config: MMIMDbConfig

    def choose(self, texts: list[str]) -> list[str]:
        if self.config.plots == "all":
            return [text for text in texts if text.strip()]
        return [max(texts, key=lambda text: len(text.strip()))]

    def options(self) -> dict[str, str]:
        return {"plots": "all"} if self.config.plots == "all" else {}

    @classmethod
    def prepare(cls, source: Path, store: Path, overlap: Overlap = "refuse") -> str | None:
        """Turn the raw folder or the Arrow files into a pairs store, or the HDF5 file into ready features."""
        path = source / HDF5_NAME if (source / HDF5_NAME).is_file() else source
        if path.suffix in (".hdf5", ".h5") and path.is_file():
            return _prepare_hdf5(path, store, overlap)
        return super().prepare(source, store, overlap)

    @classmethod
    def read(cls, source: Path) -> RawPairs:
        if arrows := find_arrow_files(source, "mmimdb", SPLIT_NAMES):
            return _read_arrow(arrows)
        return _read_folder(source)


# ---- raw folder -------------------------------------------------------------------------------------------------


def _read_folder(source: Path) -> RawPairs:
    """`images/<id>.jpeg`, `labels/<id>.json` and `split.json`, or both kinds side by side in `dataset/`."""
    ids = read_split(source / "split.json")
    side_by_side = (source / "dataset").is_dir() and not (source / "labels").is_dir()
    images, labels = (source / "dataset",) * 2 if side_by_side else (source / "images", source / "labels")
    for folder in (images, labels):
        if not folder.is_dir():
            raise DataError(f"{folder} is missing: {source} is not the folder of MM-IMDb (images, labels, split.json).")
    raw = RawPairs(TASK, GENRES, (), sum(map(len, ids.values())), RELEASED, provenance={"layout": "folder"})
    raw.samples = _samples(raw, ids, images, labels)
    return raw


def read_split(path: Path) -> dict[Split, list[str]]:
    """`{"train": [ids], "dev": [...], "test": [...]}`, checked.

    Raises:
        DataError: it is not that.
    """
    content = read_json(path, 64 << 20)
    if not isinstance(content, dict) or not set(SPLIT_NAMES.values()) <= content.keys():
        raise DataError(f"{path} must have lists of ids for train, dev and test.")
    ids: dict[Split, list[str]] = {}
    for split, name in SPLIT_NAMES.items():
        if not isinstance(content[name], list) or not all(isinstance(i, str) for i in content[name]):
            raise DataError(f"{path}: '{name}' must be a list of ids as strings.")
        for film in content[name]:
            if not ID.fullmatch(film):
                raise DataError(f"{path}: {film[:60]!r} in '{name}' is not the number of a film.")
        ids[split] = content[name]
    return ids


def _samples(raw: RawPairs, ids: Mapping[Split, list[str]], images: Path, labels: Path) -> Iterator[Sample]:
    without = 0
    for split in SPLITS:
        for film in ids[split]:
            path = labels / f"{film}.json"
            if not path.is_file():
                raw.skipped.append((film, "the label file is missing"))
                continue
            plots, genres = _film(path)
            label = _indicators(genres)
            without += not any(label)
            yield Sample(film, split, label, plots, images / f"{film}.jpeg")
    if without:
        raw.notes.append(f"{without} films have none of the 23 genres; they are kept, with no label.")


def _film(path: Path) -> tuple[tuple[str, ...], list[str]]:
    """Plots and genres of a label file."""
    content = read_json(path, 4 << 20)
    found = []
    for key in ("plot", "genres"):
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DataError(f"{path}: '{key}' must be a list of strings.")
        found.append(value)
    return tuple(found[0]), found[1]


def _indicators(genres: list[str]) -> tuple[int, ...]:
    return tuple(int(genre in genres) for genre in GENRES)


# ---- Arrow files ------------------------------------------------------------------------------------------------


def _read_arrow(paths: Mapping[Split, Path]) -> RawPairs:
    count = sum(map(count_rows, paths.values()))
    return RawPairs(TASK, GENRES, _arrow_samples(paths), count, RELEASED, provenance={"layout": "arrow"})


def _arrow_samples(paths: Mapping[Split, Path]) -> Iterator[Sample]:
    columns = {
        "image": ("binary", "image"), "texts": ("texts", "plots", "text"), "label": ("integers", "label"),
        "id": ("text", "image_id"),
    }  # fmt: skip
    for split, path in paths.items():
        for number, row in read_rows(path, columns):
            label = tuple(row["label"])
            if len(label) != len(GENRES) or not set(label) <= {0, 1}:
                raise DataError(f"{path}: row {number} must have 23 indicators of 0 or 1 as 'label'.")
            texts = tuple(text for text in row["texts"] if text is not None)
            yield Sample(row["id"], split, label, texts, row["image"])


# ---- the HDF5 file of the GMU code ------------------------------------------------------------------------------


def _prepare_hdf5(path: Path, store: Path, overlap: Overlap) -> str:
    """Ready features: mean word2vec of the longest plot and VGG of the poster, as the GMU code made them."""
    arrays, names = read_hdf5(path)
    split_rows = _hdf5_splits(path, [film.decode("ascii", "replace") for film in arrays["imdb_ids"]], overlap)
    order = [names.index(genre) for genre in GENRES]
    text = arrays["features"].astype(np.float32)
    unknown = int(np.isnan(text).any(axis=1).sum())
    text, image = np.nan_to_num(text, posinf=0, neginf=0), arrays["vgg_features"].astype(np.float32)
    if broken := int(image.size - np.isfinite(image).sum()):
        raise DataError(f"{path} has {broken} values in 'vgg_features' that are NaN or infinite.")
    target = arrays["genres"][:, order].astype(np.float32)
    parts = {
        split: Part({"text": text[rows], "image": image[rows]}, target[rows]) for split, rows in split_rows.items()
    }
    directory = store.with_name(f"{store.name}.{HDF5_VARIANT}")
    note = f"{unknown} plots without a known word: their text is zero" if unknown else "every plot has a known word"
    write_store(directory, spec_of(directory.name, TASK, parts), parts, {"file": path.name, "note": note})
    sizes = ", ".join(f"{len(parts[split])} {split}" for split in SPLITS)
    return f"mm_imdb: {sizes}; {note}. In a grid: mm_imdb: {{features: {HDF5_VARIANT}}}. Kept in {directory}"


def read_hdf5(path: Path) -> tuple[Arrays, list[str]]:
    """The wanted arrays of the file and the genres of its columns, checked.

    Raises:
        DataError: it is damaged or another file, or leads to other files.
    """
    require("h5py", "h5py", "HDF5 files")
    import h5py

    try:
        with h5py.File(path, "r") as file:
            sets = {name: _hdf5_dataset(path, file, name) for name in HDF5_SHAPES}
            rows = {data.shape[0] for data in sets.values()}
            if len(rows) > 1 or not 1 <= min(rows) <= MAX_ROWS:
                raise DataError(f"{path} has arrays of {sorted(rows)} rows, expected 25959 in all.")
            names = _genre_names(path, sets["genres"].attrs.get("target_names"))
            arrays = {name: data[()] for name, data in sets.items()}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DataError(f"{path} is not an HDF5 file that can be read ({reason}).") from error
    if not np.isin(arrays["genres"], (0, 1)).all():
        raise DataError(f"{path} has other values than 0 and 1 in 'genres'.")
    return arrays, names


def _hdf5_dataset(path: Path, file: Any, name: str) -> Any:
    """A data set of the expected kind and shape that lies in this very file."""
    import h5py

    link = file.get(name, getlink=True)
    if link is None:
        raise DataError(f"{path} lacks '{name}': it holds {', '.join(list(file)[:10]) or 'nothing'}.")
    if not isinstance(link, h5py.HardLink):
        raise DataError(f"{path} has '{name}' as a link to elsewhere, which is not followed.")
    data = file[name]
    if not isinstance(data, h5py.Dataset):
        raise DataError(f"{path} has '{name}' as a group, expected an array.")
    if data.is_virtual or data.external:
        raise DataError(f"{path} has '{name}' in other files, which are not read.")
    kind = "S" if name == "imdb_ids" else "fiu"
    if data.dtype.kind not in kind or data.shape[1:] != HDF5_SHAPES[name] or data.ndim == 0:
        raise DataError(
            f"{path} has '{name}' as {data.dtype} {data.shape}, expected "
            f"{'text' if name == 'imdb_ids' else 'numbers'} of shape (rows, *{HDF5_SHAPES[name]})."
        )
    if name == "imdb_ids" and data.dtype.itemsize > 32:
        raise DataError(f"{path} has 'imdb_ids' of {data.dtype.itemsize} letters, expected 7.")
    return data


def _genre_names(path: Path, value: Any) -> list[str]:
    """The attribute `target_names`: a JSON list, or an array of strings."""
    try:
        names = json.loads(value) if isinstance(value, str | bytes) else [
            name.decode() if isinstance(name, bytes) else str(name) for name in value
        ]  # fmt: skip
    except (ValueError, TypeError):
        names = None
    if not isinstance(names, list) or sorted(map(str, names)) != sorted(GENRES):
        raise DataError(f"{path}: the attribute 'target_names' of 'genres' must list the 23 genres.")
    return names


def _hdf5_splits(path: Path, films: list[str], overlap: Overlap) -> dict[Split, NDArray[np.int64]]:
    """Rows of each split: as `split.json` beside the file says, or in the file's own order."""
    beside = path.with_name("split.json")
    if beside.is_file():
        row_of = {film.lstrip("0"): row for row, film in enumerate(films)}
        ids = read_split(beside)
        if lost := [film for split in SPLITS for film in ids[split] if film.lstrip("0") not in row_of]:
            raise DataError(f"{beside} has {len(lost)} films that {path.name} lacks, the first is {lost[0]}.")
        if overlap == "refuse" and (found := first_overlap(ids)):
            raise DataError(
                f"{beside}: film {found[0]} comes twice, the second time in '{SPLIT_NAMES[found[2]]}'. {REMEDY}."
            )
        if overlap == "drop":
            rows = kept_rows(ids, within=True)
            ids = {split: [ids[split][row] for row in rows[split]] for split in SPLITS}
        return {split: np.array([row_of[film.lstrip("0")] for film in ids[split]]) for split in SPLITS}
    if len(films) != sum(RELEASED.values()):
        raise DataError(
            f"{path} has {len(films)} rows, the released file {sum(RELEASED.values())}: put split.json beside it, so "
            f"that the splits are known."
        )
    if len(set(films)) != len(films):
        raise DataError(f"{path} has a film twice in 'imdb_ids'.")
    ends = np.cumsum([0, *(RELEASED[split] for split in SPLITS)])
    return {split: np.arange(ends[i], ends[i + 1]) for i, split in enumerate(SPLITS)}
