"""Trained on one data set and tested on another, without fine-tuning: Robult, D.10 and Table 13.

The paper trains on CMU-MOSEI and tests on CMU-MOSI, whose audio has 5 features against 74 and whose vision 20 against
35. It says only that "T-SNE on the original data" brings CMU-MOSEI's features to the widths of CMU-MOSI.

What that means for the printed figures: t-SNE keeps who is near whom within ONE data set and nothing else. Its axes
have no meaning, order or scale that CMU-MOSI's own features share, so that a model trained on such coordinates meets
unrelated numbers in the audio and vision of the test. It also has no map for new rows: rows of all splits are placed
together, so that validation rows take part in what the model is trained on. Nor can it be done literally: CMU-MOSEI has
hundreds of thousands of steps, and t-SNE to 5 or 20 dimensions takes the square of that. `align: tsne` is the nearest
thing that finishes (`alignment.scatter`). `align: pca` leaks nothing and maps new rows; but it, too, only ranks each
side's own variation, and transfers as far as the leading components of the two happen to show the same quantities.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from datasets.alignment import ALIGNMENT_VERSION, Recipe, align, kept, split_shapes
from datasets.base import SPLITS, Data, DataConfig, DataSet, DataSpec, Part, Split
from datasets.catalog import DATASETS
from datasets.errors import UserError, did_you_mean

Floats = NDArray[np.float32]
Role = Literal["train", "test"]
ROLE_OF: dict[Split, Role] = {"train": "train", "valid": "train", "test": "test"}


class TransferConfig(DataConfig):
    """Options of `transfer`; the default is Table 13 with an alignment that is sound."""

    train: str = Field(default="cmu_mosei", description="data set whose training and validation splits are used")
    test: str = Field(default="cmu_mosi", description="data set whose test split is used")
    train_options: dict[str, Any] = Field(default={}, description="options of the first, such as {scaling: train}")
    test_options: dict[str, Any] = Field(default={}, description="options of the second")
    modalities: str = Field(
        default="", description="the modalities to use, joined by +, where the two do not have the same ones"
    )
    align: Literal["none", "pca", "tsne"] = Field(
        default="pca",
        description="how features of different width become equal. pca: the principal components of each data set, "
        "fitted to its own training split and standardised by it; tsne: as published, see the module's text; "
        "none: refuse them. A modality of equal width in both is left as it is, unless `width` asks for less",
    )
    width: dict[str, Annotated[int, Field(ge=1, le=4096)]] = Field(
        default={}, description="common width by modality; without it the smaller of the two, as in the paper"
    )
    landmarks: int = Field(default=2000, ge=10, le=20_000, description="rows that t-SNE is fitted to; tsne only")
    seed: int = Field(default=0, ge=0, description="of t-SNE and of the rows it is fitted to")

    @model_validator(mode="after")
    def _width_needs_a_way(self) -> "TransferConfig":
        if self.width and self.align == "none":
            raise ValueError("width needs a way to reach it: set align to pca or tsne.")
        return self


@dataclass(frozen=True)
class Match:
    """One modality as both data sets have it, and what becomes of it."""

    shapes: Mapping[Role, tuple[int, ...]]
    width: int
    changed: tuple[Role, ...]
    """The data sets whose features are not used as they are."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample, with as many steps as the training data set has."""
        return (*self.shapes["train"][:-1], self.width)


class Transfer(DataSet):
    """The training and validation split of one data set, the test split of another; see `TransferConfig`.

    The two need one task and one set of modalities. Sequences get the number of steps of the training data set:
    shorter ones more padding in front, of longer ones the FIRST steps are cut off, as padding is where they begin.

    `pca` uses inputs of the second data set's training split, never its labels and never a test row. `tsne` changes
    only a data set whose width is not the common one, as the paper does, and sees all of its rows.
    """

    name = "transfer"
    summary = "trained on one data set, tested on another; features aligned by PCA, or by t-SNE as Robult does"
    source = "the two data sets it is made of; Robult (IJCAI 2025), D.10"
    licence = "those of the two data sets"
    Config = TransferConfig
    config: TransferConfig

    def spec(self) -> DataSpec:
        sides = self._sides()
        specs: dict[Role, DataSpec] = {role: side.spec() for role, side in sides.items()}
        return self._spec(specs, self._match(specs))

    def load(self) -> Data:
        data: dict[Role, Data] = {role: side.load() for role, side in self._sides().items()}
        specs: dict[Role, DataSpec] = {role: found.spec for role, found in data.items()}
        matches = self._match(specs)
        inputs: dict[Split, dict[str, Floats]] = {split: {} for split in SPLITS}
        for name, match in matches.items():
            for role in specs:
                for split, x in self._features(role, name, match, data[role]).items():
                    if ROLE_OF[split] == role:
                        inputs[split][name] = fit_steps(x, match.shape)
        parts = {split: Part(inputs[split], data[ROLE_OF[split]].parts[split].target) for split in SPLITS}
        return Data(self._spec(specs, matches), parts)

    @classmethod
    def prepare(cls, source: Path, store: Path) -> str | None:
        raise UserError("data set 'transfer' needs no preparation of its own: prepare the two it is made of.")

    def _sides(self) -> dict[Role, DataSet]:
        return {
            "train": _data_set("train", self.config.train, self.config.train_options),
            "test": _data_set("test", self.config.test, self.config.test_options),
        }

    def _spec(self, specs: Mapping[Role, DataSpec], matches: Mapping[str, Match]) -> DataSpec:
        sizes = {split: specs[ROLE_OF[split]].sizes[split] for split in SPLITS}
        shapes = {name: match.shape for name, match in matches.items()}
        told = {
            name: [match.shape, {role: self._key(specs[role], name, match) for role in match.changed}]
            for name, match in matches.items()
        }
        content = [ALIGNMENT_VERSION, specs["train"].fingerprint, specs["test"].fingerprint, told]
        return DataSpec(self.name, shapes, specs["train"].task, sizes, _hash(content))

    # ---- what fits together ----------------------------------------------------------------------------------

    def _match(self, specs: Mapping[Role, DataSpec]) -> dict[str, Match]:
        """Every modality in use, in the order of the training data set.

        Raises:
            UserError: the two data sets cannot be brought together.
        """
        train, test = specs["train"], specs["test"]
        if train.task != test.task:
            raise UserError(
                f"data set 'transfer' needs one task: '{train.name}' has {_told(train)}, '{test.name}' {_told(test)}; "
                f"choose others, or options (train_options, test_options) that make them equal."
            )
        names = self._names(train, test)
        if odd := [name for name in self.config.width if name not in names]:
            raise UserError(
                f"data set 'transfer': width names '{odd[0]}', which is not in use.{did_you_mean(odd[0], names)}"
            )
        return {name: self._match_one(name, specs) for name in names}

    def _names(self, train: DataSpec, test: DataSpec) -> list[str]:
        own, other = list(train.modalities), list(test.modalities)
        common = [name for name in own if name in other]
        if not self.config.modalities:
            if len(common) < max(len(own), len(other)):
                which = f"modalities: {'+'.join(common)} uses the common ones" if common else "they have none in common"
                raise UserError(
                    f"data set 'transfer' needs the same modalities: '{train.name}' has {', '.join(own)}, "
                    f"'{test.name}' {', '.join(other)}; {which}."
                )
            return own
        asked = [name.strip() for name in self.config.modalities.split("+")]
        if odd := [name for name in asked if name not in common]:
            raise UserError(
                f"data set 'transfer': modalities names '{odd[0]}', which '{train.name}' and '{test.name}' do not both "
                f"have.{did_you_mean(odd[0], common)}"
            )
        return [name for name in own if name in asked]

    def _match_one(self, name: str, specs: Mapping[Role, DataSpec]) -> Match:
        shapes = {role: spec.modalities[name] for role, spec in specs.items()}
        if len(shapes["train"]) != len(shapes["test"]):
            kinds = [f"a {'sequence' if len(shapes[role]) > 1 else 'vector'} in '{specs[role].name}'" for role in specs]
            raise UserError(f"data set 'transfer': {name} is {' and '.join(kinds)}; leave it out with modalities.")
        own = {role: shape[-1] for role, shape in shapes.items()}
        width = self.config.width.get(name, min(own.values()))
        changed = tuple(role for role in specs if own[role] != width)
        if changed and self.config.align == "none":
            told = " and ".join(f"{own[role]} in '{specs[role].name}'" for role in specs)
            raise UserError(
                f"data set 'transfer': {name} has {told} features, which align: none leaves different; "
                f"set align: pca, or tsne as Robult does."
            )
        for role in specs:
            if own[role] < width:
                has = f"'{specs[role].name}' has {own[role]}"
                raise UserError(f"data set 'transfer': width asks for {width} features of {name}, {has}.")
        if changed and self.config.align == "pca":
            changed = tuple(specs)  # components of one side mean nothing to features of the other
        return Match(shapes, width, changed)

    # ---- arrays ----------------------------------------------------------------------------------------------

    def _recipe(self, match: Match) -> Recipe:
        config = self.config
        if config.align == "tsne":
            return Recipe("tsne", match.width, config.landmarks, config.seed)
        return Recipe("pca", match.width)

    def _key(self, spec: DataSpec, name: str, match: Match) -> str:
        """Hash of all that determines a changed modality."""
        recipe = self._recipe(match)
        return _hash([ALIGNMENT_VERSION, spec.fingerprint, name, vars(recipe)])

    def _features(self, role: Role, name: str, match: Match, data: Data) -> Mapping[Split, Floats]:
        """The modality in every split of one data set, its features brought to the common width."""
        splits: dict[Split, Floats] = {split: data.parts[split].inputs[name] for split in SPLITS}
        if role not in match.changed:
            return splits
        return kept(
            self._key(data.spec, name, match),
            split_shapes(match.shapes[role], data.spec.sizes, match.width),
            lambda: align(splits, self._recipe(match), f"{name} of '{data.spec.name}'"),
        )


def fit_steps(x: Floats, shape: tuple[int, ...]) -> Floats:
    """Sequences with as many steps as `shape` (T, W) has, padded or cut in FRONT; vectors as they are."""
    if len(shape) == 1 or x.shape[1] == shape[0]:
        return x
    if x.shape[1] > shape[0]:
        return x[:, -shape[0] :]
    padded = np.zeros((len(x), *shape), x.dtype)
    padded[:, -x.shape[1] :] = x
    return padded


def _data_set(role: Role, name: str, options: Mapping[str, Any]) -> DataSet:
    """One of the two data sets, with its options.

    Raises:
        UserError: there is no such data set, or its options are wrong.
    """
    owner = f"data set 'transfer': {role}"
    try:
        cls = DATASETS.get(name)
    except UserError as error:
        raise UserError(f"{owner}: {error}") from None
    if issubclass(cls, Transfer):
        raise UserError(f"{owner}: 'transfer' takes two data sets other than itself.")
    known = list(cls.Config.model_fields)
    if odd := [key for key in options if key not in known]:
        has = f"It has: {', '.join(known)}" if known else "It has none"
        raise UserError(
            f"{owner}_options: data set '{name}' has no option '{odd[0]}'.{did_you_mean(odd[0], known)} {has}."
        )
    try:
        return cls(cls.Config.model_validate_json(json.dumps(options), strict=True))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ": ".join(["_options", *map(str, first["loc"])])
        said = str(first.get("ctx", {}).get("error", "")) or first["msg"]
        raise UserError(f"{owner}{where}: {said.rstrip('.')}.") from None


def _told(spec: DataSpec) -> str:
    """The task in a few words: `regression (low -3.0, high 3.0, n_groups 7)`."""
    fields = [f"{key} {value}" for key, value in spec.task.to_json().items() if key != "kind"]
    return f"{spec.task.kind} ({', '.join(fields)})" if fields else spec.task.kind


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
