"""What the image-text data sets share: a pairs store from raw files, features or raw inputs from that.

`features`: vectors that a pretrained network made offline, one for the text and one for the image of a sample.
`raw`: token ids (L,) and pixels (3, H, H), for methods that bring the network along.
"""

import hashlib
import json
import re
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from datasets.base import SPLITS, Data, DataSet, DataSpec, Part, Split
from datasets.errors import DataError
from datasets.folds import FoldConfig, Rows, dealt, dealt_spec, groups_of, stratified_rows
from datasets.overlap import Overlap
from datasets.pairs import Pairs, RawPairs, decode, read_pairs, read_pairs_card, summary, verify_pairs, write_pairs
from datasets.progress import report
from datasets.raw_files import refuse_archive, require
from datasets.store import read_spec, read_store, store_directory, verify_store
from datasets.store_folder import CARD
from datasets.tasks import task_from_json

VILT = "dandelin/vilt-b32-mlm"
VILT_TOKENS = 40
"""Rows of the table of positions of the released ViLT."""
_CORRUPTED = re.compile(
    r"(?P<encoder>.+?)(\.noise-(?P<noise>[0-9.e-]+?))?(\.mask-(?P<mask>[0-9.e-]+?))?\.seed-(?P<seed>[0-9]+)"
)
"""Names of features that `bench data embed` makes of a corrupted test split."""


class ImageTextConfig(FoldConfig):
    """Options of every image-text data set."""

    inputs: Literal["features", "raw"] = Field(
        default="features",
        description="vectors made by `bench data embed`, or token ids and pixels for a method with its own backbone",
    )
    features: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")] = Field(
        default="vilt", description="which features: vilt, resnet-bert, or another variant `bench data embed` made"
    )
    tokenizer: str = Field(
        default=VILT, description="raw: folder or hub id of the word pieces; those of bert-base-uncased for ViLT"
    )
    max_length: int = Field(default=VILT_TOKENS, ge=4, le=1024, description="raw: tokens L, the rest is cut off")
    image_size: int = Field(default=384, ge=32, le=512, description="raw: pixels H a side; images are squeezed")

    @model_validator(mode="after")
    def _folds_have_one_kind_of_sample(self) -> "ImageTextConfig":
        if self.fold is not None and _CORRUPTED.fullmatch(self.features) and self.inputs == "features":
            raise ValueError(f"features: {self.features} are corrupted in the released test split alone: no folds.")
        return self


class ImageText(DataSet):
    """A data set of images and texts; a subclass gives `read`, which finds its samples in a raw folder."""

    Config = ImageTextConfig
    config: ImageTextConfig

    modalities: ClassVar[tuple[str, ...]] = ("text", "image")

    @classmethod
    @abstractmethod
    def read(cls, source: Path) -> RawPairs:
        """The samples of a raw folder.

        Raises:
            DataError: it is not this data set.
        """

    def choose(self, texts: list[str]) -> list[str]:
        """The texts that are trained on, of all those a stored sample has; each becomes one sample."""
        return [" ".join(texts)]

    def options(self) -> dict[str, str]:
        """The options that change which texts are trained on, where they are not the default."""
        return {}

    # ---- preparing ----------------------------------------------------------------------------------------------

    @classmethod
    def prepare(cls, source: Path, store: Path, overlap: Overlap = "refuse") -> str | None:
        """Turn the raw folder into a pairs store and tell what it holds; a call that was killed is gone on with.

        Raises:
            DataError: the folder is not this data set.
        """
        refuse_archive(source)
        require("PIL", "Pillow", "images")
        card = write_pairs(store, cls.name, cls.read(source), overlap)
        return summary(card, store)

    def features_directory(self) -> Path:
        """Where the features live that this configuration trains on."""
        variant = "".join(f".{key}-{value}" for key, value in self.options().items())
        return store_directory(f"{self.name}.{self.config.features}{variant}")

    def verify(self) -> list[str]:
        """What is wrong with the pairs store and with every features store made from it."""
        require("PIL", "Pillow", "images")
        pairs, features = store_directory(self.name), self._features_stores()
        problems = verify_pairs(pairs) if pairs.exists() or not features else []
        return problems + [problem for directory in features for problem in verify_store(directory)]

    def _features_stores(self) -> list[Path]:
        home = store_directory(self.name).parent
        return sorted(path for path in home.glob(f"{self.name}.*") if (path / CARD).is_file())

    # ---- reading ------------------------------------------------------------------------------------------------

    def spec(self) -> DataSpec:
        whole = self._raw_spec() if self.config.inputs == "raw" else self._features_spec()
        return dealt_spec(whole, self.config)

    def load(self) -> Data:
        if self.config.inputs == "raw":
            return self._load_raw()
        whole, parts = self._features_spec(), read_store(self.features_directory()).parts
        return Data(dealt_spec(whole, self.config), dealt(parts, whole, self.config))

    def _features_spec(self) -> DataSpec:
        """Of the released splits."""
        directory = self.features_directory()
        if not directory.exists():
            raise DataError(self._no_features())
        try:
            spec = read_spec(directory)
        except DataError as error:  # the store knows only of raw files
            raise DataError(f"{str(error).partition(' Prepare it with:')[0]} {self._remedy()}") from error
        if tuple(spec.modalities) != self.modalities:
            raise DataError(f"{directory} does not hold features of {' and '.join(self.modalities)}. {self._remedy()}")
        return DataSpec(self.name, spec.modalities, spec.task, spec.sizes, spec.fingerprint)

    def _no_features(self) -> str:
        have = [path.name.removeprefix(f"{self.name}.") for path in self._features_stores()]
        if not have and not store_directory(self.name).exists():
            return (
                f"data set '{self.name}' is not prepared: there is no store in {store_directory(self.name)}. "
                f"Prepare it with: bench data prepare {self.name} --from PATH, then: {self._embed()}"
            )
        instead = f", or use what is there (features: {', '.join(have)})" if have else ""
        return f"data set '{self.name}' has no features '{self.config.features}' yet. {self._remedy()}{instead}"

    def _remedy(self) -> str:
        return f"Make them with: {self._embed()}"

    def _embed(self) -> str:
        """The command that makes the features of this configuration."""
        encoder, corruption = self.config.features, ""
        if found := _CORRUPTED.fullmatch(self.config.features):
            encoder = found["encoder"]
            given = {name: found[name] for name in ("noise", "mask") if found[name]}
            given |= {"seed": found["seed"]} if found["seed"] != "0" else {}
            corruption = "".join(f" --{name} {value}" for name, value in given.items())
        options = "".join(f" --option {key}={value}" for key, value in self.options().items())
        return f"bench data embed {self.name} --with {encoder}{corruption}{options}"

    # ---- raw inputs ---------------------------------------------------------------------------------------------

    def _raw_spec(self) -> DataSpec:
        """Of the released splits."""
        card = read_pairs_card(store_directory(self.name))
        task, config = task_from_json(card.task), self.config
        sizes = card.sizes if not self.options() else self._sizes(read_pairs(store_directory(self.name)))
        how = [vocabulary_hash(config.tokenizer), config.max_length, config.image_size, self.options()]
        fingerprint = f"{card.fingerprint}-{hashlib.sha256(json.dumps(how).encode()).hexdigest()[:12]}"
        side = config.image_size
        shapes = {"text": (config.max_length,), "image": (3, side, side)}
        return DataSpec(self.name, shapes, task, {split: sizes[split] for split in SPLITS}, fingerprint)

    def _sizes(self, pairs: Pairs) -> dict[Split, int]:
        return {split: sum(len(self.choose(pairs.texts(row))) for row in pairs.rows(split)) for split in SPLITS}

    def _load_raw(self) -> Data:
        spec, pairs = self._raw_spec(), read_pairs(store_directory(self.name))
        require("PIL", "Pillow", "images")
        self._check_memory(spec)
        tokenize, parts = tokenizer(self.config.tokenizer), {}
        for split, in_split in self._raw_rows(spec, pairs).items():
            rows = [(row, text) for row in in_split for text in self.choose(pairs.texts(int(row)))]
            tokens = np.zeros((len(rows), *spec.modalities["text"]), dtype=np.float32)
            images = np.empty((len(rows), *spec.modalities["image"]), dtype=np.float32)
            for i, (row, text) in enumerate(rows):
                ids = token_ids(tokenize, text, self.config.max_length)
                tokens[i, : len(ids)] = ids
                images[i] = square_pixels(pairs.image(int(row)), self.config.image_size)
                report(f"{split} images", i + 1, len(rows))
            target = pairs.target[[row for row, _ in rows]]
            parts[split] = Part({"text": tokens, "image": images}, target)
        return Data(dealt_spec(spec, self.config), parts)

    def _raw_rows(self, spec: DataSpec, pairs: Pairs) -> Rows:
        """Which stored samples each split has."""
        released: Rows = {split: pairs.rows(split) for split in SPLITS}
        if self.config.fold is None:
            return released
        pool = np.concatenate([released[split] for split in SPLITS])
        rows = stratified_rows(groups_of(spec, pairs.target[pool]), self.name, self.config)
        return {split: pool[rows[split]] for split in SPLITS}

    def _check_memory(self, spec: DataSpec) -> None:
        import psutil

        side = self.config.image_size
        need = sum(spec.sizes.values()) * 4 * (3 * side * side + self.config.max_length)
        free = psutil.virtual_memory().available
        if need > free:
            raise DataError(
                f"data set '{self.name}' with raw inputs needs {need / 2**30:.0f} GiB of memory, {free / 2**30:.0f} "
                f"GiB are free: choose a smaller image_size than {side}, or inputs: features."
            )


def square_pixels(content: bytes, side: int) -> NDArray[np.float32]:
    """An encoded image squeezed to (3, side, side), values in [-1, 1] as ViLT takes them."""
    from PIL import Image

    image = decode(content).resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)
    return (pixels / 127.5 - 1).astype(np.float32, copy=False)


# ---- word pieces ------------------------------------------------------------------------------------------------


def tokenizer(name: str) -> Any:
    """The word pieces of a folder or hub id, from this machine if they are there.

    Raises:
        DataError: transformers is not installed, or there are no such word pieces.
    """
    from datasets.pretrained import load

    return load("AutoTokenizer", name, "word pieces")


def token_ids(tokenize: Any, text: str, max_length: int) -> list[int]:
    """Token ids with [CLS] and [SEP], at most `max_length`."""
    ids: list[int] = tokenize(text, truncation=True, max_length=max_length)["input_ids"]
    return ids


def vocabulary_hash(name: str) -> str:
    """Hash of the file of word pieces, without loading transformers.

    Raises:
        DataError: there is none on this machine.
    """
    for file in ("tokenizer.json", "vocab.txt"):
        path = Path(name) / file
        if not path.is_file():
            path = Path(_cached(name, file) or path)
        if path.is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    raise DataError(
        f"the word pieces of '{name}' are not on this machine: give a folder that has them as `tokenizer`, or fetch "
        f"them with: hf download {name}"
    )


def _cached(name: str, file: str) -> str | None:
    """Where the hub's cache has a file."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(name, file)
    except HFValidationError:
        return None
    return found if isinstance(found, str) else None
