"""Reading a search: a bundled one by name, or a file by path, with every problem told at once."""

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

from bench.arrays import What
from bench.grid.choices import value_errors
from bench.grid.file import read_text
from bench.grid.grid import Executor, Grid
from bench.grid.plan import DatasetChoice, MethodChoice, describe_datasets, subsets_of
from bench.grid.problems import GridError, Problem, Problems, Spot, listing, show
from bench.grid.reader import GridReader, read_root
from bench.grid.settings import TrainSettings
from bench.grid.yaml_lines import Node
from bench.search.objective import OVERS, Objective, Over
from bench.search.search import Budget, Pruner, Sampler, Search
from bench.search.space import TRAIN, Parameter, Space
from bench.searches import bundled_searches
from datasets.corruption import Corruption
from datasets.errors import did_you_mean
from methods.base import MethodConfig
from methods.registry import METHODS

KEYS = (
    "name", "description", "methods", "datasets", "label_ratios", "modalities", "seeds", "train", "checkpoint",
    "space", "objective", "sampler", "pruner", "budget", "batch", "stack", "storage", "tracking", "executor",
)  # fmt: skip
DECLARED = "declared"
"""The word for the search range a method's Config declares."""
OTHERS = "others"
"""The key for all parameters with a declared range that are not named."""
OF_GRIDS_ALONE = {
    "kind": "the trials of a search train on this machine: remove it",
    "address": "the trials of a search train on this machine: remove it",
    "stack": "how many replicas train as one is a search's own 'stack', beside 'batch': write it there",
    "timeout_s": "a trial has no time limit of its own: 'budget: {minutes: ...}' ends the search",
}
"""Keys under executor that a search does not take, and what to do instead."""
RANGE_KEYS = ("low", "high", "log", "step", "points", "choices", "when")
MAX_POINTS = 1000
MAX_BATCH = 1024


def load_search(name_or_path: str) -> Search:
    """A bundled search by name, or a search file by path; a file goes before a bundled name.

    Raises:
        GridError: no such search, or one with problems: all of them are told.
    """
    path, bundled = Path(name_or_path), bundled_searches()
    if name_or_path.endswith((".yaml", ".yml")) or os.sep in name_or_path or path.is_file():
        return parse_search(read_text(path, name_or_path), name_or_path)
    if name_or_path in bundled:
        file = f"{name_or_path}.yaml"
        return parse_search(read_text(files("bench.searches") / file, name_or_path), file)
    text = (
        f"unknown search '{name_or_path}'.{did_you_mean(name_or_path, list(bundled))} List the bundled ones with: "
        "bench ls searches; a search of your own is given by its path, ending in .yaml"
    )
    raise GridError([Problem("", 0, "", text)])


def parse_search(text: str, file: str = "search.yaml") -> Search:
    """The search that `text` describes.

    Raises:
        GridError: with every problem found.
    """
    problems = Problems(file)
    search = SearchReader(read_root(text, problems, "search"), problems, text).search()
    if problems.found:
        raise GridError(problems.found)
    return search


class SearchReader(GridReader):
    """Reads what a search has beyond a grid."""

    noun = "search"
    known = KEYS

    def search(self) -> Search:
        grid = self.grid()
        self.refuse_sweeps(grid)
        self.refuse_executor(grid.executor)
        before = len(self.problems)
        datasets = describe_datasets(grid, self.problems)
        if len(self.problems) > before:
            datasets = []
        methods = [
            MethodChoice(item.name, item.label, item.variant, item.config, item.key) for item in grid.asked_methods
        ]
        self.refuse_methods(methods, datasets, grid)
        pruner = self.kind_of("pruner", Pruner)
        objectives = self.objectives(datasets)
        if len(objectives) > 1 and pruner.kind != "none":
            text = f"the pruner '{pruner.kind}' compares one number, but there are {len(objectives)} objectives"
            self.problems.add(self.root.key("pruner"), f"{text}: remove the pruner, or all objectives but one")
        return Search(
            grid=grid,
            methods=tuple(methods),
            datasets=tuple(datasets),
            spaces=self.spaces(methods, grid),
            objectives=objectives,
            sampler=self.kind_of("sampler", Sampler),
            pruner=pruner,
            budget=self.section("budget", Budget),
            batch=self.count("batch", Search.batch, MAX_BATCH),
            stack=self.count("stack", Search.stack, MAX_BATCH),
            storage=self.storage(),
            source=self.text,
        )

    # ---- what a search takes of a grid -----------------------------------------------------------------------

    def refuse_sweeps(self, grid: Grid) -> None:
        sweeps = [grid.train.values, *grid.train.datasets.values()]
        for name in dict.fromkeys(name for values in sweeps for name, tried in values.items() if len(tried) > 1):
            text = f"a search trains with one '{name}'; to tune it, write '{TRAIN}{name}' under space"
            self.problems.add(self.root.key("train"), text)

    def refuse_executor(self, executor: Executor) -> None:
        """Tell of what a grid's executor has and a search would leave unread."""
        for key, text in OF_GRIDS_ALONE.items():
            if getattr(executor, key) != Executor.model_fields[key].default:
                self.problems.add(self.root.key("executor").key(key), text)

    def refuse_methods(self, methods: Sequence[MethodChoice], datasets: Sequence[DatasetChoice], grid: Grid) -> None:
        for method, asked in zip(methods, grid.asked_methods, strict=True):
            cls = METHODS.get(method.name)
            if not cls.iterative:
                self.problems.add(asked.spot, f"'{method.label}' trains without epochs: there is nothing to search")
            for dataset in datasets:
                if refusal := cls.refuses(dataset.spec, method.config):
                    self.problems.add(asked.spot, f"'{method.label}' cannot take '{dataset.label}': {refusal}")

    def corruptions(self) -> tuple[Corruption, ...]:
        return ()

    def save(self) -> tuple[What, ...]:
        return ()

    # ---- objective -------------------------------------------------------------------------------------------

    def objectives(self, datasets: Sequence[DatasetChoice]) -> tuple[Objective, ...]:
        spot = self.get("objective") or Spot(Node(0, {}), "objective")
        places = self.one_or_many(spot)
        found = [
            self.objective(place, datasets) for place in places if self.is_mapping(place, "a mapping, or a list of")
        ]
        if len(set(found)) < len(found):
            self.problems.add(spot, "an objective is given twice")
        return tuple(found)

    def objective(self, spot: Spot, datasets: Sequence[DatasetChoice]) -> Objective:
        known = ("metric", "split", "modalities", "over_subsets", "over_seeds")
        self.only(spot, known, "An objective")
        split = spot.node.keys["split"].plain() if "split" in spot.node.keys else "valid"
        if split == "test":
            text = "a search that looks at the test split has no honest test result left: it reads 'valid' alone"
            self.problems.add(spot.key("split"), f"{text}; the winner is tested at the end")
        elif split != "valid":
            self.problems.add(spot.key("split"), f"an objective reads the split 'valid', got {show(split)}")
        metric, higher = self.metric(spot, datasets)
        return Objective(
            metric,
            higher,
            self.requests(spot, datasets),
            self.over(spot, "over_subsets", ("mean", "worst")),
            self.over(spot, "over_seeds", OVERS),
        )

    def metric(self, spot: Spot, datasets: Sequence[DatasetChoice]) -> tuple[str, bool]:
        """The metric asked for, or the primary one of all data sets, and whether more of it is better."""
        if "metric" not in spot.node.keys:
            primary = list(dict.fromkeys(dataset.spec.task.primary for dataset in datasets))
            if len(primary) > 1:
                text = f"the data sets have different primary metrics ({', '.join(primary)}), whose mean means nothing"
                self.problems.add(spot, f"{text}: name a metric they share, or search them one by one")
            higher = datasets[0].spec.task.metrics[primary[0]] if datasets else True
            return primary[0] if primary else "", higher
        place = spot.key("metric")
        metric = self.words(place) or ""
        for dataset in datasets:
            metrics = dataset.spec.task.metrics
            if metric and metric not in metrics:
                text = f"'{dataset.label}' has no metric '{metric}'.{did_you_mean(metric, list(metrics))}"
                self.problems.add(place, f"{text} It has: {listing(list(metrics))}")
        return metric, next((d.spec.task.metrics[metric] for d in datasets if metric in d.spec.task.metrics), True)

    def requests(self, spot: Spot, datasets: Sequence[DatasetChoice]) -> tuple[str, ...]:
        if "modalities" not in spot.node.keys:
            return Objective.modalities
        place = spot.key("modalities")
        found = tuple(subset for item in self.one_or_many(place) if (subset := self.subset(item)) is not None)
        for dataset in datasets:
            subsets, lacking = subsets_of(found, dataset.spec.modalities)
            for why in lacking:
                self.problems.add(place, f"'{dataset.label}' {why}")
            if not subsets and not lacking:
                self.problems.add(place, f"no modality subset of '{dataset.label}' is left")
        return found

    def over(self, spot: Spot, key: str, known: Sequence[Over]) -> Over:
        if key not in spot.node.keys:
            return "mean"
        value = spot.node.keys[key].plain()
        if value not in known:
            self.problems.add(spot.key(key), f"expected one of {', '.join(known)}, got {show(value)}")
            return "mean"
        return cast(Over, value)

    # ---- space -----------------------------------------------------------------------------------------------

    def spaces(self, methods: Sequence[MethodChoice], grid: Grid) -> dict[str, Space]:
        """For each method what is asked for it, else every search range its Config declares."""
        spot = self.get("space")
        asked = spot.node.keys if spot is not None and self.is_mapping(spot, "a mapping of methods to spaces") else {}
        labels, names = [method.label for method in methods], [method.name for method in methods]
        known = [*labels, *(name for name in names if names.count(name) == 1)]
        for label in asked:
            if spot is not None and label not in known and known:
                text = f"no method of this search is called '{label}'.{did_you_mean(label, known)}"
                self.problems.at_line(spot.node.key_lines[label], f"{text} It has: {listing(labels)}", "space")
        spaces = {}
        for method, item in zip(methods, grid.asked_methods, strict=True):
            key = method.label if method.label in asked else method.name
            place = spot.key(key) if spot is not None and key in asked and key in known else None
            fixed = next((entry.values for entry in grid.methods if entry.name == item.name), {})
            spaces[method.label] = self.space(place, method, fixed)
            if not spaces[method.label].parameters and place is None:
                text = f"the Config of '{method.label}' declares no search range: name what to tune under space"
                self.problems.add(item.spot, text)
        return spaces

    def space(self, spot: Spot | None, method: MethodChoice, fixed: Any) -> Space:
        config = type(method.config)
        declared = [name for name in config.model_fields if _declared(config, name) is not None and name not in fixed]
        if spot is None or spot.node.plain() == DECLARED:
            return Space(tuple(_from_declared(config, name) for name in declared))
        if not self.is_mapping(spot, f"'{DECLARED}' or a mapping of hyper-parameters to ranges"):
            return Space(())
        found = [
            parameter
            for name in spot.node.keys
            if name != OTHERS and (parameter := self.parameter(spot, name, method, fixed)) is not None
        ]
        if OTHERS in spot.node.keys:
            if spot.node.keys[OTHERS].plain() != DECLARED:
                self.problems.add(spot.key(OTHERS), f"'{OTHERS}' takes the word '{DECLARED}' alone")
            found += [_from_declared(config, name) for name in declared if name not in spot.node.keys]
        return Space(self.in_order(spot, found))

    def parameter(self, spot: Spot, name: str, method: MethodChoice, fixed: Any) -> Parameter | None:
        """One dimension; None when nothing can be made of it."""
        config: type[Any] = TrainSettings if name.startswith(TRAIN) else type(method.config)
        field, line = name.removeprefix(TRAIN), spot.node.key_lines[name]
        if field not in config.model_fields:
            owner, noun = (
                ("'train'", "setting") if config is TrainSettings else (f"method '{method.label}'", "hyper-parameter")
            )
            known = list(config.model_fields)
            text = f"{owner} has no {noun} '{field}'.{did_you_mean(field, known)} It has: {listing(known)}"
            self.problems.at_line(line, text, spot.path)
            return None
        if name in fixed:
            text = f"'{name}' is fixed under methods and searched here: remove one of them"
            self.problems.at_line(line, text, spot.path)
        place, before = spot.key(name), len(self.problems)
        if place.node.plain() == DECLARED:
            is_declared = config is not TrainSettings and _declared(config, field) is not None
            parameter = _from_declared(config, field) if is_declared else None
            if parameter is None:
                text = f"no search range is declared for '{name}': give 'low' and 'high', or 'choices'"
                self.problems.add(place, text)
            return parameter
        if place.node.is_list:
            return self.choice(place, name, config, field, None)
        if not self.is_mapping(place, f"'{DECLARED}', a list of choices, or a mapping with low and high"):
            return None
        self.only(place, RANGE_KEYS, "A range")
        when = self.when(place)
        if "choices" in place.node.keys:
            return self.choice(place.key("choices"), name, config, field, when)
        base = None if config is TrainSettings or not _declared(config, field) else _from_declared(config, field)
        if base is not None and base.kind == "choice" and not {"low", "high"} & set(place.node.keys):
            return replace(base, when=when)
        parameter = self.range(place, name, config, field, base)
        return None if len(self.problems) > before or parameter is None else replace(parameter, when=when)

    def choice(self, spot: Spot, name: str, config: type[Any], field: str, when: Any) -> Parameter | None:
        values: list[Any] = []
        for place in self.one_or_many(spot):
            value = place.node.plain()
            for where, text in value_errors(config, field, place):
                self.problems.add(where, text)
            if isinstance(value, list | dict):
                self.problems.add(place, "a choice is one word, number, true, false or null")
            elif any(value == other and type(value) is type(other) for other in values):
                self.problems.add(place, f"{show(value)} is given twice")
            else:
                values.append(value)
        return Parameter(name, "choice", choices=tuple(values), when=when) if values else None

    def range(self, spot: Spot, name: str, config: type[Any], field: str, base: Parameter | None) -> Parameter | None:
        """A range of numbers, its missing parts those that the Config declares."""
        kind = _number(config.model_fields[field].annotation)
        if kind is None:
            self.problems.add(spot, f"'{name}' is no number: give its values as a list of choices")
            return None
        given = {key: spot.node.keys[key].plain() for key in spot.node.keys if key != "when"}
        for key in ("low", "high"):
            if key in given:
                for where, text in value_errors(config, field, spot.key(key)):
                    self.problems.add(where, text)
            elif base is None or base.kind == "choice":
                self.problems.add(spot, f"'{key}' is missing, and no search range is declared for '{name}'")
        if len([key for key in ("low", "high") if key not in given]) and (base is None or base.kind == "choice"):
            return None
        low, high = given.get("low", base.low if base else 0), given.get("high", base.high if base else 0)
        if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in (low, high)):
            return None  # told by the Config's own check
        log = given.get("log", base.log if base else False)
        step, points = given.get("step"), given.get("points", Parameter.points)
        if not isinstance(log, bool):
            self.problems.add(spot.key("log"), f"expected true or false, got {show(log)}")
        elif low >= high:
            self.problems.add(spot, f"an empty range: low {low:g} is not below high {high:g}")
        elif log and low <= 0:
            self.problems.add(spot, f"a log range cannot begin at {low:g}: give a low above 0, or log: false")
        elif log and step is not None:
            self.problems.add(spot.key("step"), "a log range has no step: use 'points' for the number of values")
        elif step is not None and not (isinstance(step, int | float) and 0 < step <= high - low):
            self.problems.add(spot.key("step"), f"expected a number above 0 and at most high - low, got {show(step)}")
        elif kind == "int" and step is not None and step != int(step):
            self.problems.add(spot.key("step"), f"'{name}' is a whole number, and so is its step; got {show(step)}")
        if not isinstance(points, int) or isinstance(points, bool) or not 2 <= points <= MAX_POINTS:
            self.problems.add(spot.key("points"), f"expected a whole number from 2 to {MAX_POINTS}, got {show(points)}")
            points = Parameter.points
        return Parameter(name, kind, low, high, bool(log), step, points=points)

    def when(self, spot: Spot) -> dict[str, tuple[Any, ...]] | None:
        if "when" not in spot.node.keys or not self.is_mapping(spot.key("when"), "a mapping such as {rbf: cos_fixed}"):
            return None
        place = spot.key("when")
        return {
            name: tuple(item.node.plain() for item in self.one_or_many(place.key(name))) for name in place.node.keys
        }

    def in_order(self, spot: Spot, parameters: list[Parameter]) -> tuple[Parameter, ...]:
        """Each parameter after those its `when` names, which must be choices of this space."""
        by_name = {parameter.name: parameter for parameter in parameters}
        for parameter in parameters:
            for name, values in (parameter.when or {}).items():
                place = spot.key(parameter.name).key("when")
                other = by_name.get(name)
                if other is None or other.kind != "choice":
                    text = f"'{name}' is no choice of this space, so nothing can depend on it"
                    self.problems.add(place, text + did_you_mean(name, list(by_name)))
                elif strange := [value for value in values if not other.contains(value)]:
                    choices = listing([str(choice) for choice in other.choices])
                    text = f"'{name}' is never {show(strange[0])}; its choices are {choices}"
                    self.problems.add(place.key(name), text)
        ordered: list[Parameter] = []
        while len(ordered) < len(parameters):
            ready = [p for p in parameters if p not in ordered and set(p.when or ()) <= {q.name for q in ordered}]
            if not ready:  # told above, or a circle
                if not self.problems.found:
                    self.problems.add(spot, "the conditions under 'when' go round in a circle")
                return tuple(parameters)
            ordered += ready
        return tuple(ordered)

    # ---- small steps -----------------------------------------------------------------------------------------

    def kind_of(self, key: str, model: type[Any]) -> Any:
        """A section that may be given as a mapping, or as the word for its kind."""
        if key in self.root.node.keys and isinstance(self.root.node.keys[key].value, str):
            node = self.root.node.keys[key]
            keys = {**self.root.node.keys, key: Node(node.line, {"kind": node}, {"kind": node.line})}
            root = Node(self.root.node.line, keys, self.root.node.key_lines)
            return SearchReader(Spot(root), self.problems, self.text).section(key, model)
        return self.section(key, model)

    def count(self, key: str, default: int, most: int) -> int:
        spot = self.get(key)
        if spot is None:
            return default
        value = spot.node.plain()
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            self.problems.add(spot, f"expected a whole number from 1 to {most}, got {show(value)}")
            return default
        return value

    def storage(self) -> str | None:
        spot = self.get("storage")
        value = None if spot is None else self.words(spot)
        if spot is not None and value is not None and "://" not in value and not value.endswith(".journal"):
            text = f"{show(value)} is no storage: write a journal file ending in .journal, or a database URL such as "
            self.problems.add(spot, text + "sqlite:///studies.db")
        return value

    def only(self, spot: Spot, known: Sequence[str], noun: str) -> None:
        for key in spot.node.keys:
            if key not in known:
                text = f"unknown key '{key}'.{did_you_mean(key, list(known))} {noun} has: {', '.join(known)}"
                self.problems.at_line(spot.node.key_lines[key], text, spot.path)


# ---- what a Config declares -----------------------------------------------------------------------------------


def _extra(config: type[MethodConfig], name: str) -> dict[str, Any]:
    extra = config.model_fields[name].json_schema_extra
    return extra if isinstance(extra, dict) else {}


def _declared(config: type[MethodConfig], name: str) -> tuple[Any, ...] | None:
    return _extra(config, name).get("search")


def _from_declared(config: type[MethodConfig], name: str) -> Parameter:
    values = _declared(config, name) or ()
    kind = _number(config.model_fields[name].annotation)
    if kind is not None and len(values) == 2:
        return Parameter(name, kind, values[0], values[1], bool(_extra(config, name).get("log")))
    return Parameter(name, "choice", choices=tuple(values))


def _number(annotation: Any) -> Any:
    """`int` or `float` where a field is a number, None where it is not."""
    if get_origin(annotation) in (Union, UnionType):
        kinds = {_number(part) for part in get_args(annotation)} - {None}
        return "float" if "float" in kinds else next(iter(kinds), None)
    if hasattr(annotation, "__metadata__"):
        return _number(get_args(annotation)[0])
    return {int: "int", float: "float"}.get(annotation)
