"""Makers of tiny raw folders in the formats of the image-text data sets, and of tiny networks of their encoders."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.mm_imdb import GENRES

WORDS = ("the", "a", "quiet", "loud", "house", "river", "old", "war", "love", "song", "train", "dog")


def picture(shade: int = 0, size: tuple[int, int] = (16, 12), form: str = "JPEG", seed: int = 0) -> bytes:
    """A noisy image around one of some shades, so that shades can be told apart."""
    rng = np.random.default_rng([shade, seed])
    base = np.array([(shade * 83) % 200, (shade * 151) % 200, (shade * 37) % 200])
    pixels = base + rng.integers(0, 56, (size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


def text(rng: np.random.Generator, *more: str) -> str:
    return " ".join([*more, *rng.choice(WORDS, 5)])


def write(path: Path, content: bytes | str | Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


# ---- MM-IMDb ----------------------------------------------------------------------------------------------------

FILMS = {"train": 12, "dev": 6, "test": 6}


def film_ids(sizes: Mapping[str, int] = FILMS) -> dict[str, list[str]]:
    number = iter(range(5, 5000))
    return {split: [f"{next(number):07d}" for _ in range(size)] for split, size in sizes.items()}


def film(number: int) -> dict[str, Any]:
    """A label file: one or two plots, two genres of the 23, and for every third film one that is not."""
    rng = np.random.default_rng(number)
    genres = [GENRES[number % 2], GENRES[2 + number % 3]] + (["News"] if number % 3 == 0 else [])
    plots = [text(rng, genres[0].lower())]
    if number % 2:
        plots.append(text(rng, genres[0].lower(), "and", "then"))
    return {"plot": plots, "genres": genres, "title": f"film {number}", "year": 1999}


def make_mm_imdb(folder: Path, *, side_by_side: bool = False) -> Path:
    """`images/`, `labels/`, `split.json`; or both in `dataset/` as in the official archive."""
    ids = film_ids()
    images, labels = ("dataset", "dataset") if side_by_side else ("images", "labels")
    for films in ids.values():
        for film_id in films:
            write(folder / images / f"{film_id}.jpeg", picture(int(film_id) % 2, (8, 8), seed=int(film_id)))
            write(folder / labels / f"{film_id}.json", film(int(film_id)))
    write(folder / "split.json", ids)
    return folder


def make_mm_imdb_arrow(folder: Path, *, large: bool = False) -> Path:
    """The three Arrow files; newer pandas writes large_string."""
    import pyarrow as pa

    string = pa.large_string() if large else pa.string()
    schema = pa.schema({
        "image": pa.binary(), "plots": pa.list_(string), "label": pa.list_(pa.int64()), "genres": pa.list_(string),
        "image_id": string, "split": string,
    })  # fmt: skip
    for split, films in film_ids().items():
        rows = []
        for film_id in films:
            found = film(int(film_id))
            rows.append({
                "image": picture(int(film_id) % 2, (8, 8), seed=int(film_id)), "plots": found["plot"],
                "label": [int(genre in found["genres"]) for genre in GENRES], "genres": found["genres"],
                "image_id": film_id, "split": split,
            })  # fmt: skip
        write_arrow(folder / f"mmimdb_{split}.arrow", rows, schema)
    return folder


def write_arrow(path: Path, rows: Sequence[Mapping[str, Any]], schema: Any) -> None:
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=schema)
    with pa.OSFile(str(path), "wb") as sink, pa.RecordBatchFileWriter(sink, schema) as writer:
        writer.write_table(table)


def mm_imdb_hdf5_arrays(n: int = 6, seed: int = 0) -> dict[str, NDArray[Any]]:
    """The arrays of multimodal_imdb.hdf5 with few rows and short tf-idf vectors."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 300)).astype(np.float32)
    features[1] = np.nan
    return {
        "features": features,
        "vgg_features": rng.normal(size=(n, 4096)).astype(np.float32),
        "images": rng.integers(0, 256, (n, 3, 4, 2)).astype(np.int32),
        "three_grams": rng.random((n, 7)).astype(np.float32),
        "word_grams": rng.random((n, 7)).astype(np.float32),
        "genres": (rng.random((n, 23)) < 0.2).astype(np.int32),
        "imdb_ids": np.array([f"{i + 5:07d}" for i in range(n)], dtype="S7"),
    }


def make_mm_imdb_hdf5(path: Path, *, names: Sequence[str] = tuple(reversed(GENRES)), **replaced: Any) -> Any:
    """Such a file; `replaced` gives other arrays or, as None, leaves one out. Returns the arrays."""
    import h5py

    arrays = {name: a for name, a in {**mm_imdb_hdf5_arrays(), **replaced}.items() if a is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        sequences = file.create_dataset("sequences", (6,), dtype=h5py.vlen_dtype(np.int32))
        sequences[0] = [1, 2, 3]
        if "genres" in file:
            file["genres"].attrs["target_names"] = json.dumps(list(names))
    return arrays


# ---- UPMC Food-101 ----------------------------------------------------------------------------------------------

DISHES = ("apple_pie", "frozen_yogurt")
UNTITLED = "apple_pie_90.jpg"


def dish_files(per_class: int = 6) -> dict[str, list[str]]:
    """Names of the images of each part; the last of train validates where split.json says so."""
    return {
        "train": [f"{dish}_{i}.jpg" for dish in DISHES for i in range(per_class)],
        "test": [f"{dish}_{i + 50}.jpg" for dish in DISHES for i in range(4)],
    }


def dish_title(name: str) -> str:
    """A title; some have a comma, which is quoted in the CSV."""
    dish, _, number = name.removesuffix(".jpg").rpartition("_")
    comma = ", the best" if int(number) % 2 else " recipe"
    return f"{dish.replace('_', ' ')}{comma} {WORDS[int(number) % len(WORDS)]}"


def make_food101(folder: Path, *, titles: str = "csv", split: bool = False, per_class: int = 12) -> Path:
    """`images/`, with `texts/*.csv` or `text.json`, and `split.json` if asked; one image has no title."""
    files = dish_files(per_class)
    for part, names in files.items():
        for name in [*names, *([UNTITLED] if part == "train" else [])]:
            dish = name.rpartition("_")[0]
            content = picture(DISHES.index(dish), (20, 24), seed=int(name[len(dish) + 1 : -4]))
            write(folder / "images" / part / dish / name, content)
        if titles == "csv":
            rows = io.StringIO()
            csv.writer(rows).writerows([name, dish_title(name), name.rpartition("_")[0]] for name in names)
            write(folder / "texts" / f"{part}_titles.csv", rows.getvalue())
    if titles == "json":
        write(folder / "text.json", {name: dish_title(name) for names in files.values() for name in names})
    write(folder / "class_idx.json", {"frozen_yogurt": 0, "apple_pie": 1})
    if split:
        validate = [name for name in files["train"] if name.removesuffix(".jpg").endswith(("_0", "_1"))]
        train = [name for name in files["train"] if name not in validate]
        write(folder / "split.json", {"train": [*train, UNTITLED], "val": validate, "test": files["test"]})
    return folder


def make_food101_arrow(folder: Path) -> Path:
    import pyarrow as pa

    schema = pa.schema({
        "image": pa.binary(), "text": pa.list_(pa.string()), "label": pa.int64(), "image_id": pa.string(),
        "split": pa.string(),
    })  # fmt: skip
    files = dish_files()
    parts = {"train": files["train"][::2], "val": files["train"][1::2], "test": files["test"]}
    for split, names in parts.items():
        rows = [
            {
                "image": picture(DISHES.index(name.rpartition("_")[0]), seed=i), "text": [dish_title(name)],
                "label": 1 - DISHES.index(name.rpartition("_")[0]), "image_id": name, "split": split,
            }
            for i, name in enumerate(names)
        ]  # fmt: skip
        write_arrow(folder / f"food101_{split}.arrow", rows, schema)
    write(folder / "class_idx.json", {"frozen_yogurt": 0, "apple_pie": 1})
    return folder


# ---- Hateful Memes ----------------------------------------------------------------------------------------------

MEMES = {"train": 10, "dev_seen": 4, "test_seen": 6}


def make_hateful_memes(folder: Path, sizes: Mapping[str, int] = MEMES) -> Path:
    """`img/<id>.png` and a jsonl file for each part, with the challenge's test.jsonl, which has no labels."""
    number = iter(range(1235, 9000))
    for part, size in sizes.items():
        lines = []
        for i in range(size):
            meme, rng = next(number), np.random.default_rng(i)
            label = i % 2
            lines.append({"id": meme, "img": f"img/{meme:05d}.png", "label": label, "text": text(rng, WORDS[label])})
            write(folder / "img" / f"{meme:05d}.png", picture(label, (12, 12), "PNG", seed=meme))
        write(folder / f"{part}.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
    write(folder / "test.jsonl", json.dumps({"id": 1, "img": "img/00001.png", "text": "no label"}) + "\n")
    return folder


def make_hateful_memes_arrow(folder: Path) -> Path:
    import pyarrow as pa

    schema = pa.schema({
        "image": pa.binary(), "text": pa.list_(pa.string()), "label": pa.int64(), "split": pa.string(),
    })  # fmt: skip
    for split, size in (("train", 6), ("dev", 2), ("test", 2)):
        rows = [
            {"image": picture(i % 2, form="PNG", seed=i), "text": [f"meme {i}"], "label": i % 2, "split": split}
            for i in range(size)
        ]
        write_arrow(folder / f"hatememes_{split}.arrow", rows, schema)
    return folder


# ---- N24News ----------------------------------------------------------------------------------------------------

SECTIONS = ("Travel", "Art & Design")


def article(number: int) -> dict[str, Any]:
    """An article; every fifth has no body, as behind a pay wall."""
    rng, section = np.random.default_rng(number), SECTIONS[number % 2]
    return {
        "section": section,
        "headline": text(rng, section.split()[0].lower()),
        "abstract": text(rng),
        "caption": f"caption {number}",
        "article_url": f"https://example.org/{number}",
        "image_url": f"https://example.org/{number}.jpg",
        "image_id": f"img-{number:06d}",
        "body": "" if number % 5 == 0 else text(rng, "body"),
    }


def make_n24news(folder: Path, n: int = 40, *, full: bool = True, split: bool = False) -> Path:
    """`images/<image_id>.jpg` and the list of all articles, or one list for each split."""
    articles = [article(number) for number in range(n)]
    for number, item in enumerate(articles):
        write(folder / "images" / f"{item['image_id']}.jpg", picture(number % 2, (24, 16), seed=number))
        if not full:
            del item["body"]
    if split:
        for part, rows in (
            ("train", slice(0, n // 2)),
            ("valid", slice(n // 2, n * 3 // 4)),
            ("test", slice(n * 3 // 4, n)),
        ):
            write(folder / f"nytimes_{part}.json", articles[rows])
    else:
        write(folder / ("nytimes_dataset_full.json" if full else "nytimes_dataset.json"), articles)
    return folder


MAKERS = {
    "mm_imdb": make_mm_imdb,
    "food101": make_food101,
    "hateful_memes": make_hateful_memes,
    "n24news": make_n24news,
}


# ---- networks ---------------------------------------------------------------------------------------------------

VOCABULARY = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "drama", "comedy", "apple", "pie", "frozen", "yogurt",
    "travel", "art", "recipe", "best", ",", "##s",
]  # fmt: skip


def make_vocabulary(folder: Path) -> Path:
    """Word pieces as BERT's are stored, with few words."""
    write(folder / "vocab.txt", "\n".join(VOCABULARY) + "\n")
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    return folder


def make_vilt(folder: Path, seed: int = 0) -> Path:
    """A ViLT of random weights, 16 wide, that reads 12 tokens and images of 32 pixels in patches of 8."""
    import torch
    from transformers import ViltConfig, ViltModel

    config = ViltConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12, image_size=32, patch_size=8,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ViltModel(config)
        for parameter in model.parameters():  # the stock start is too even to tell a slip from the truth
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return make_vocabulary(folder)


def make_bert(folder: Path) -> Path:
    """A BERT of random weights, 24 wide."""
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=20,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        BertModel(config).save_pretrained(folder)
    return make_vocabulary(folder)


def make_resnet(folder: Path) -> Path:
    """A ResNet of random weights with two stages of basic blocks, 10 wide at its end."""
    import torch
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=6, hidden_sizes=[6, 10], depths=[1, 1], layer_type="basic")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        ResNetModel(config).save_pretrained(folder)
    return folder


def prepare_with_features(name: str, folder: Path) -> None:
    """A tiny copy of an image-text data set, prepared, with the features of a tiny ViLT."""
    from datasets.catalog import DATASETS
    from datasets.embed import Job, embed
    from datasets.image_text import ImageText
    from datasets.store import store_directory

    cls = DATASETS.get(name)
    assert issubclass(cls, ImageText)
    cls.prepare(MAKERS[name](folder / "raw"), store_directory(name))
    embed(cls(), Job("vilt", {"both": str(make_vilt(folder / "vilt"))}))
