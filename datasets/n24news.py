"""N24News: pictures and texts of New York Times articles, 24 sections (Wang et al., LREC 2022)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from datasets.base import SPLITS, Split
from datasets.errors import DataError
from datasets.image_text import ImageText, ImageTextConfig
from datasets.pairs import RawPairs, Sample, deal
from datasets.raw_files import read_json
from datasets.tasks import MultiClass

FIELDS = ("headline", "abstract", "caption", "body")
DEFAULT_TEXT = "headline+abstract"
N_CLASSES, N_SAMPLES = 24, 61_218
SHARES: Mapping[Split, float] = {"train": 0.72, "valid": 0.08, "test": 0.2}
"""80 to 20 as RAML; a tenth of the 80 validates. RAML's own draw is not known."""
ONE_FILE = ("nytimes_dataset_full.json", "nytimes_dataset.json")
SPLIT_WORDS: Mapping[Split, str] = {"train": "train", "valid": "val|dev", "test": "test"}
IMAGE_FOLDERS = ("images", "imgs", "image")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
MAX_FILE_BYTES = 4 << 30


class N24NewsConfig(ImageTextConfig):
    """Options of `n24news`."""

    text: str = Field(
        default=DEFAULT_TEXT,
        description=f"which fields make the text, joined by '+': {', '.join(FIELDS)}; RAML does not say which it took",
    )

    @field_validator("text")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        fields = value.split("+")
        if not set(fields) <= set(FIELDS) or len(set(fields)) < len(fields):
            raise ValueError(f"text is made of {', '.join(FIELDS)} joined by '+', got '{value}'")
        return value


class N24News(ImageText):
    """61 218 articles of 24 sections; released without the split that RAML drew, so ours is fixed."""

    name = "n24news"
    summary = "New York Times pictures and texts, 24 sections (raw folder)"
    source = "N24News (Wang et al., 2022): its download, or its builder script"
    licence = "New York Times content, research use: do not pass it on"
    Config = N24NewsConfig
    config: N24NewsConfig

    def choose(self, texts: list[str]) -> list[str]:
        chosen = (texts[FIELDS.index(name)].strip() for name in self.config.text.split("+"))
        return [" ".join(text for text in chosen if text)]

    def options(self) -> dict[str, str]:
        return {} if self.config.text == DEFAULT_TEXT else {"text": self.config.text}

    @classmethod
    def read(cls, source: Path) -> RawPairs:
        files = _find_files(source)
        images = next((source / name for name in IMAGE_FOLDERS if (source / name).is_dir()), None)
        if images is None:
            raise DataError(f"{source} has no folder 'images': build the data set first, its script fetches them.")
        articles = [(split, *_article(path, i, item)) for split, path in files for i, item in enumerate(_list(path))]
        sections = sorted({section for _, _, section, _ in articles})
        if len(sections) < 2:
            raise DataError(f"{files[0][1]} has articles of {len(sections)} section, expected {N_CLASSES}.")
        raw = RawPairs(MultiClass(len(sections)), sections, (), len(articles), None, FIELDS)
        raw.provenance = {"layout": "folder", "files": ", ".join(path.name for _, path in files)}
        if len(sections) != N_CLASSES:
            raw.notes.append(f"there are {len(sections)} sections, the released data set has {N_CLASSES}.")
        if len(articles) != N_SAMPLES:
            raw.notes.append(f"there are {len(articles)} articles, RAML reports {N_SAMPLES}.")
        labels = [sections.index(section) for _, _, section, _ in articles]
        splits = [split for split, *_ in articles]
        if None in splits:
            raw.provenance["split"] = "ours, fixed and stratified: 72, 8 and 20 percent"
            splits = [*deal(labels, SHARES, "n24news", "split")]
        raw.samples = [
            Sample(article_id, split or "train", label, texts, images / f"{article_id}.jpg")
            for (_, article_id, _, texts), label, split in zip(articles, labels, splits, strict=True)
        ]
        return raw


def _find_files(source: Path) -> list[tuple[Split | None, Path]]:
    """The one file of all articles, or a file for each split."""
    if source.is_file():
        raise DataError(f"{source} is a file: give the folder that holds it and the images with --from.")
    for name in ONE_FILE:
        if (source / name).is_file():
            return [(None, source / name)]
    found: list[tuple[Split | None, Path]] = []
    for split in SPLITS:
        paths = [p for p in sorted(source.rglob("*.json")) if re.search(SPLIT_WORDS[split], p.stem.lower())]
        if len(paths) != 1:
            raise DataError(
                f"{source} has neither {' nor '.join(ONE_FILE)}, and {len(paths)} JSON files for '{split}', not one."
            )
        found.append((split, paths[0]))
    return found


def _list(path: Path) -> list[Any]:
    content = read_json(path, MAX_FILE_BYTES)
    if not isinstance(content, list) or not content:
        raise DataError(f"{path} must be a list of articles.")
    return content


def _article(path: Path, number: int, item: Any) -> tuple[str, str, tuple[str, ...]]:
    """Id, section and the four texts of an article; a text that is absent is empty."""
    if not isinstance(item, dict):
        raise DataError(f"{path}: article {number} is not an object.")
    article_id, section = item.get("image_id"), item.get("section")
    if not isinstance(article_id, str) or not ID.fullmatch(article_id):
        raise DataError(f"{path}: article {number} has no usable 'image_id': {str(article_id)[:60]!r}.")
    if not isinstance(section, str) or not section:
        raise DataError(f"{path}: article {number} has no 'section'.")
    texts = tuple(item.get(name) or "" for name in FIELDS)
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"{path}: article {number} has a text that is not a string.")
    return article_id, section, texts
