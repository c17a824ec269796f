"""From the text of a grid file to a `Grid`, or to every problem there is with it."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from bench.arrays import WHATS, What
from bench.grid.choices import (
    DEFAULT_VARIANT,
    MAX_CHOICES,
    label_problem,
    n_choices,
    read_sweep,
    registry_name,
    unroll,
)
from bench.grid.grid import CHECKPOINTS, Asked, Checkpoint, Entry, Executor, Grid, Tracking, Train
from bench.grid.plan import describe_datasets
from bench.grid.problems import GridError, Problem, Problems, Spot, check, explain, listing, show
from bench.grid.settings import TrainSettings
from bench.grid.yaml_lines import YamlError, read_yaml
from datasets.base import DataConfig
from datasets.catalog import DATASETS
from datasets.corruption import KINDS, Corruption, Kind, Step, level_problem
from datasets.errors import UserError, did_you_mean
from datasets.registry import Registry
from methods.base import MethodConfig
from methods.registry import METHODS

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

KEYS = (
    "name", "description", "methods", "datasets", "label_ratios", "modalities", "corruptions", "seeds", "train",
    "checkpoint", "save", "tracking", "executor",
)  # fmt: skip
MAX_SEEDS = 100_000
MAX_SEED = 2**32 - 1
SUBSET_WORDS = ("all", "single", "full")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def read_grid(text: str, file: str) -> Grid:
    """See `bench.grid.file.parse_grid`."""
    problems = Problems(file)
    grid = GridReader(read_root(text, problems), problems, text).grid()
    if problems.found:
        describe_datasets(grid, problems)  # what planning would find is told now, with the rest
        raise GridError(problems.found)
    return grid


def read_root(text: str, problems: Problems, noun: str = "grid") -> Spot:
    """The mapping a file holds; keys given twice are told.

    Raises:
        GridError: it is not YAML, or no mapping.
    """
    file = problems.file
    try:
        text.encode()
        root, repeated = read_yaml(text)
    except YamlError as error:
        raise GridError([Problem(file, error.line, "", error.text)]) from error
    except UnicodeEncodeError as error:
        raise GridError([Problem(file, 0, "", "not text: it holds half of a surrogate pair")]) from error
    for line, told in repeated:
        problems.at_line(line, told)
    if not root.is_mapping:
        empty = root.value is None
        got = "the file is empty" if empty else f"expected a mapping with keys, got {show(root.plain())}"
        problems.at_line(0 if empty else root.line, f"{got}; a {noun} needs at least 'methods' and 'datasets'")
        raise GridError(problems.found)
    return Spot(root)


class GridReader:
    """Reads each key of one file; where a value is wrong the problem is told and a harmless value goes on."""

    noun = "grid"
    known: tuple[str, ...] = KEYS

    def __init__(self, root: Spot, problems: Problems, text: str) -> None:
        self.root = root
        self.problems = problems
        self.text = text

    def grid(self) -> Grid:
        self.keys()
        methods, asked_methods = self.methods()
        datasets, asked_datasets = self.datasets()
        modalities, spots = self.modalities()
        return Grid(
            name=self.name(),
            description=self.description(),
            methods=methods,
            datasets=datasets,
            label_ratios=self.label_ratios(),
            modalities=modalities,
            corruptions=self.corruptions(),
            seeds=self.seeds(),
            train=self.train(datasets, asked_datasets),
            checkpoint=self.checkpoint(),
            save=self.save(),
            tracking=self.section("tracking", Tracking),
            executor=self.section("executor", Executor),
            file=self.problems.file,
            source=self.text,
            asked_methods=tuple(asked_methods),
            asked_datasets=tuple(asked_datasets),
            modality_spots=tuple(spots),
        )

    # ---- single keys ------------------------------------------------------------------------------------------

    def keys(self) -> None:
        for key in self.root.node.keys:
            if key not in self.known:
                line = self.root.node.key_lines[key]
                hint = did_you_mean(key, self.known)
                text = f"unknown key '{key}'.{hint} A {self.noun} has: {', '.join(self.known)}"
                self.problems.at_line(line, text)
        for key in ("methods", "datasets"):
            if key not in self.root.node.keys:
                self.problems.at_line(0, f"'{key}' is missing: list at least one; see bench ls {key}")

    def name(self) -> str:
        spot = self.get("name")
        if spot is None:
            stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(self.problems.file).stem).strip("-._")
            return stem[:100] or "grid"
        value = self.words(spot)
        if value is not None and not _NAME.fullmatch(value):
            self.problems.add(
                spot,
                f"{show(value)} is no name: use up to 100 letters, digits, - _ and ., starting with a letter or digit",
            )
        return value or "grid"

    def description(self) -> str:
        spot = self.get("description")
        return "" if spot is None else self.words(spot) or ""

    def checkpoint(self) -> Checkpoint:
        spot = self.get("checkpoint")
        if spot is None:
            return "last"
        value = spot.node.plain()
        if value not in CHECKPOINTS:
            hint = did_you_mean(value, CHECKPOINTS) if isinstance(value, str) else ""
            text = f"expected one of {', '.join(CHECKPOINTS)}, got {show(value)}"
            self.problems.add(spot, f"{text}.{hint}" if hint else text)
        return cast(Checkpoint, value)

    def save(self) -> tuple[What, ...]:
        spot = self.get("save")
        found: dict[What, int] = {}
        for place in [] if spot is None else self.one_or_many(spot):
            value = place.node.plain()
            if value not in WHATS:
                hint = did_you_mean(value, WHATS) if isinstance(value, str) else ""
                text = f"expected one of {', '.join(WHATS)}, got {show(value)}"
                self.problems.add(place, f"{text}.{hint}" if hint else text)
            elif value in found:
                self.problems.add(place, f"'{value}' is given twice")
            else:
                found[value] = 1
        return tuple(found)

    def label_ratios(self) -> tuple[float, ...]:
        spot = self.get("label_ratios")
        found: dict[float, int] = {}
        for place in [] if spot is None else self.one_or_many(spot):
            value = place.node.plain()
            if not isinstance(value, int | float) or isinstance(value, bool):
                self.problems.add(place, f"expected a number above 0 and at most 1, got {show(value)}")
            elif not 0 < value <= 1:
                percent = f"; for {value:g} % write {value / 100:g}" if 1 < value <= 100 else ""
                self.problems.add(place, f"a label ratio is above 0 and at most 1, got {show(value)}{percent}")
            elif value in found:
                self.problems.add(place, f"{value:g} is given twice")
            else:
                found[float(value)] = 1
        return tuple(found) or (1.0,)

    def seeds(self) -> tuple[int, ...]:
        spot = self.get("seeds")
        if spot is None:
            return Grid.seeds
        if not spot.node.is_list:
            count = spot.node.plain()
            if isinstance(count, int) and not isinstance(count, bool) and 1 <= count <= MAX_SEEDS:
                return tuple(range(count))
            self.problems.add(spot, f"expected a count from 1 to {MAX_SEEDS:,} or a list of seeds, got {show(count)}")
            return (0,)
        found: dict[int, int] = {}
        for place in self.one_or_many(spot):
            value = place.node.plain()
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEED:
                self.problems.add(place, f"a seed is a whole number from 0 to {MAX_SEED}, got {show(value)}")
            elif value in found:
                self.problems.add(place, f"seed {value} is given twice")
            else:
                found[value] = 1
        return tuple(found)

    def section(self, key: str, model: type[M]) -> M:
        """A mapping that one pydantic model describes whole."""
        spot = self.get(key)
        if spot is None or not self.is_mapping(spot, "a mapping"):
            return model()
        for name in spot.node.keys:
            if name not in model.model_fields:
                known = list(model.model_fields)
                line = spot.node.key_lines[name]
                text = f"unknown key '{name}'.{did_you_mean(name, known)} It has: {', '.join(known)}"
                self.problems.at_line(line, text, key)
        given = {name: node.plain() for name, node in spot.node.keys.items() if name in model.model_fields}
        try:
            return check(model, given)
        except ValidationError as error:
            for place, text in explain(error.errors(include_url=False), spot):
                self.problems.add(place, text)
            return model()

    # ---- methods and data sets --------------------------------------------------------------------------------

    def methods(self) -> tuple[tuple[Entry, ...], list[Asked[MethodConfig]]]:
        def read(spot: Spot) -> tuple[Entry, list[Asked[MethodConfig]]] | None:
            return self.entry(spot, METHODS, "hyper-parameter", lambda cls: (cls.Config, cls.variants))

        return self.entries("methods", "method", read)

    def datasets(self) -> tuple[tuple[Entry, ...], list[Asked[DataConfig]]]:
        def read(spot: Spot) -> tuple[Entry, list[Asked[DataConfig]]] | None:
            return self.entry(spot, DATASETS, "option", lambda cls: (cls.Config, None))

        return self.entries("datasets", "data set", read)

    def entries(
        self, key: str, noun: str, read: Callable[[Spot], tuple[Entry, list[Asked[M]]] | None]
    ) -> tuple[tuple[Entry, ...], list[Asked[M]]]:
        entries: list[Entry] = []
        asked: list[Asked[M]] = []
        spot = self.get(key)
        for place in [] if spot is None else self.one_or_many(spot):
            found = read(place)
            if found is not None:
                entries.append(found[0])
                asked.extend(found[1])
        if len(asked) > MAX_CHOICES:
            assert spot is not None
            self.problems.add(spot, f"{len(asked):,} configurations; a grid may ask for {MAX_CHOICES:,}: split it")
        self.refuse_repeats(noun, asked)
        return tuple(entries), asked

    def entry(
        self,
        spot: Spot,
        registry: Registry[T],
        noun: str,
        parts: Callable[[type[T]], tuple[type[M], Mapping[str, Mapping[str, Any]] | None]],
    ) -> tuple[Entry, list[Asked[M]]] | None:
        """One item: a name, or a mapping of one name to its options; None when nothing can be made of it."""
        options = self.name_and_options(spot, registry.noun)
        if options is None:
            return None
        name, where = options
        try:
            model, variants = parts(registry.get(name))
        except UserError as error:
            self.problems.add(spot, str(error))
            return None
        except Exception as error:  # whatever a user's module does when it is imported
            self.problems.add(spot, f"{registry.noun} '{name}' cannot be imported: {type(error).__name__}: {error}")
            return None
        before = len(self.problems)
        reserved = ("label",) if variants is None else ("variant", "label")
        owner = f"{registry.noun} '{name}'"
        label = self.label(where)
        chosen = () if variants is None else self.variants(where, owner, variants)
        values = read_sweep(self.problems, where, model, owner=owner, noun=noun, reserved=reserved)
        entry = Entry(name, label, chosen, values)
        if n_choices(entry) > MAX_CHOICES:
            text = f"the lists multiply to {n_choices(entry):,} configurations; a grid may ask for {MAX_CHOICES:,}"
            self.problems.add(spot, text)
        if len(self.problems) > before:
            return entry, []
        return entry, unroll(self.problems, spot, entry, model, variants or {}, registry_name(registry, name))

    def name_and_options(self, spot: Spot, noun: str) -> tuple[str, Spot] | None:
        node = spot.node
        if isinstance(node.value, str) and node.value:
            return node.value, spot
        if len(node.keys) == 1:
            name = next(iter(node.keys))
            options = spot.key(name)
            if options.node.value is None or self.is_mapping(options, f"a mapping with the options of '{name}'"):
                return name, options
            return None
        if len(node.keys) > 1:
            keys = ", ".join(f"'{key}'" for key in islice(node.keys, 5))
            text = f"expected one {noun} with its options indented below it, got the keys {keys} side by side"
        else:
            text = f"expected the name of a {noun}, or a mapping of one name to its options, got {show(node.plain())}"
        self.problems.add(spot, text)
        return None

    def label(self, options: Spot) -> str | None:
        if "label" not in options.node.keys:
            return None
        spot = options.key("label")
        label = self.words(spot)
        if label is not None and (wrong := label_problem(label)):
            self.problems.add(spot, wrong)
        return label

    def variants(self, options: Spot, owner: str, known: Mapping[str, Any]) -> tuple[str, ...]:
        if "variant" not in options.node.keys:
            return ()
        names = [DEFAULT_VARIANT, *(name for name in known if name != DEFAULT_VARIANT)]
        found: dict[str, int] = {}
        for spot in self.one_or_many(options.key("variant")):
            name = self.words(spot)
            if name is None:
                continue
            if name not in names:
                text = f"{owner} has no variant '{name}'.{did_you_mean(name, names)} It has: {listing(names)}"
                self.problems.add(spot, text)
            elif name in found:
                self.problems.add(spot, f"'{name}' is given twice")
            else:
                found[name] = 1
        return tuple(found)

    def refuse_repeats(self, noun: str, asked: Sequence[Asked[Any]]) -> None:
        """Two entries of one configuration would train the same thing twice; of one label, could not be told apart."""
        by_key: dict[str, Asked[Any]] = {}
        by_label: dict[str, Asked[Any]] = {}
        for item in asked:
            same = by_key.setdefault(item.key, item)
            if same is not item:
                where = "by its lists" if same.spot.path == item.spot.path else f"first as {same.spot.path}"
                text = f"the {noun} '{item.label}' is given twice, equal in every option ({where}): remove one"
                self.problems.add(item.spot, text)
                continue
            namesake = by_label.setdefault(item.label.casefold(), item)
            if namesake is not item:
                text = f"the label '{item.label}' is taken by {namesake.spot.path}: give one of them another 'label'"
                self.problems.add(item.spot, text)

    # ---- modalities -------------------------------------------------------------------------------------------

    def modalities(self) -> tuple[tuple[str, ...], list[Spot]]:
        spot = self.get("modalities")
        found: dict[frozenset[str], str] = {}
        spots: list[Spot] = []
        for place in [] if spot is None else self.one_or_many(spot):
            subset = self.subset(place)
            if subset is None:
                continue
            same = found.setdefault(frozenset(subset.split("+")), subset)
            if len(found) == len(spots):
                self.problems.add(place, f"'{subset}' is given twice" + (f" (as '{same}')" if same != subset else ""))
            else:
                spots.append(place)
        return (tuple(found.values()), spots) if found else (Grid.modalities, [])

    def subset(self, spot: Spot) -> str | None:
        """One request: a word of `SUBSET_WORDS`, or modality names joined by `+` or listed."""
        listed = spot.items() if spot.node.is_list else [spot]
        if not listed:
            self.problems.add(spot, "an empty list; name at least one modality")
        parts: list[str] = []
        for place in listed:
            value = place.node.plain()
            if not isinstance(value, str):
                known = ", ".join(SUBSET_WORDS)
                self.problems.add(place, f"expected {known} or modality names such as 'text+audio', got {show(value)}")
                return None
            parts.extend(part.strip() for part in value.split("+"))
        if "" in parts:
            self.problems.add(spot, f"{show('+'.join(parts))} lacks a modality name beside a '+'")
        elif len(set(parts)) < len(parts):
            self.problems.add(spot, f"{show('+'.join(parts))} names a modality twice")
        elif len(parts) > 1 and (words := [part for part in parts if part in SUBSET_WORDS]):
            self.problems.add(spot, f"'{words[0]}' stands alone: it is no modality to be joined by '+'")
        elif parts:
            return "+".join(parts)
        return None

    # ---- corruptions ------------------------------------------------------------------------------------------

    def corruptions(self) -> tuple[Corruption, ...]:
        """Each item of the list, its lists of levels multiplied out."""
        spot = self.get("corruptions")
        found: dict[Corruption, int] = {}
        for place in [] if spot is None else self.one_or_many(spot):
            if not self.is_mapping(place, "a mapping such as gaussian: {image: 0.18}"):
                continue
            steps = [choices for kind in place.node.keys for choices in self.steps(place, kind)]
            if prod(map(len, steps)) > MAX_CHOICES:
                self.problems.add(place, f"the lists multiply to more than {MAX_CHOICES:,} corruptions: split it")
                continue
            for chosen in product(*steps) if steps and all(steps) else ():
                corruption = Corruption(chosen)
                if corruption in found:
                    self.problems.add(place, f"'{corruption}' is given twice")
                found[corruption] = 1
        return tuple(found)

    def steps(self, spot: Spot, kind: str) -> list[list[Step]]:
        """What one kind does to each modality, as the levels it takes in turn."""
        if kind not in KINDS:
            line = spot.node.key_lines[kind]
            text = f"unknown corruption '{kind}'.{did_you_mean(kind, KINDS)} There are: {', '.join(KINDS)}"
            self.problems.at_line(line, text, spot.path)
            return []
        where = spot.key(kind)
        if not self.is_mapping(where, f"a mapping of modalities to levels such as {kind}: {{image: 0.1}}"):
            return []
        return [self.levels(where.key(name), kind, name) for name in where.node.keys]

    def levels(self, spot: Spot, kind: Kind, modality: str) -> list[Step]:
        found = []
        for place in self.one_or_many(spot):
            value = place.node.plain()
            if not isinstance(value, int | float) or isinstance(value, bool):
                self.problems.add(place, f"expected a number, got {show(value)}")
            elif wrong := level_problem(kind, value):
                self.problems.add(place, wrong)
            else:
                found.append(Step(kind, modality, float(value)))
        return found

    # ---- train settings ---------------------------------------------------------------------------------------

    def train(self, entries: Sequence[Entry], asked: Sequence[Asked[DataConfig]]) -> Train:
        spot = self.get("train")
        if spot is None or not self.is_mapping(spot, "a mapping of train settings"):
            return Train()
        values = self.settings(spot, reserved=("datasets",))
        special: dict[str, dict[str, tuple[Any, ...]]] = {}
        if "datasets" in spot.node.keys and self.is_mapping(spot.key("datasets"), "a mapping of data sets to settings"):
            special = self.special_settings(spot.key("datasets"), entries, asked)
        train = Train(values, special)
        n_settings = max((prod(map(len, train.values_for(a.name, a.label).values())) for a in asked), default=1)
        if n_settings > MAX_CHOICES:
            text = f"the lists multiply to {n_settings:,} settings; a grid may ask for {MAX_CHOICES:,}"
            self.problems.add(spot, text)
        return train

    def special_settings(
        self, spot: Spot, entries: Sequence[Entry], asked: Sequence[Asked[DataConfig]]
    ) -> dict[str, dict[str, tuple[Any, ...]]]:
        names = [entry.name for entry in entries] + [entry.label for entry in entries if entry.label]
        known = list(dict.fromkeys([*names, *(item.label for item in asked)]))
        unrolled = {item.spot.path for item in asked}
        special = {}
        for name in spot.node.keys:
            # The labels of an entry that has problems of its own are not known.
            of_broken = len(unrolled) < len(entries) and name.partition("[")[0] in names
            if name not in known and known and not of_broken:
                text = f"no data set of this grid is called '{name}'.{did_you_mean(name, known)}"
                self.problems.at_line(spot.node.key_lines[name], f"{text} It has: {listing(known)}", spot.path)
            if self.is_mapping(spot.key(name), "a mapping of train settings"):
                special[name] = self.settings(spot.key(name))
        return special

    def settings(self, spot: Spot, reserved: tuple[str, ...] = ()) -> dict[str, tuple[Any, ...]]:
        return read_sweep(self.problems, spot, TrainSettings, owner="'train'", noun="setting", reserved=reserved)

    # ---- small steps ------------------------------------------------------------------------------------------

    def get(self, key: str) -> Spot | None:
        """The value of a top-level key; a key with nothing behind it is a problem of its own."""
        if key not in self.root.node.keys:
            return None
        spot = self.root.key(key)
        if spot.node.value is None:
            line = self.root.node.key_lines[key]
            self.problems.at_line(line, "nothing is given; write a value or remove the key", key)
            return None
        return spot

    def one_or_many(self, spot: Spot) -> list[Spot]:
        """The items of a list, or a single value as if it were a list of one."""
        if not spot.node.is_list:
            return [spot]
        if not spot.node.items:
            self.problems.add(spot, "an empty list; give at least one value")
        return spot.items()

    def words(self, spot: Spot) -> str | None:
        value = spot.node.plain()
        if isinstance(value, str):
            return value
        quotes = ": put it in quotes" if isinstance(value, int | float) else ""
        self.problems.add(spot, f"expected text, got {show(value)}{quotes}")
        return None

    def is_mapping(self, spot: Spot, expected: str) -> bool:
        if not spot.node.is_mapping:
            self.problems.add(spot, f"expected {expected}, got {show(spot.node.plain())}")
        return spot.node.is_mapping
