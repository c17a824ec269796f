"""From a grid to the trainings it asks for, each with an identity that is the hash of what determines its result."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from itertools import combinations as choose
from typing import Any

from bench.arrays import NOTHING, Save
from bench.grid.choices import combinations
from bench.grid.grid import Asked, Grid
from bench.grid.problems import GridError, Problem, Problems, Spot, check
from bench.grid.settings import TrainSettings
from bench.grid.yaml_lines import Node
from datasets.base import DataConfig, DataSpec
from datasets.catalog import DATASETS
from datasets.corruption import Corruption, conditions
from datasets.errors import UserError, did_you_mean
from methods.base import MethodConfig
from methods.registry import METHODS

PROTOCOL = 3
"""Part of every identity. Raise it when a change of the code changes results: earlier ones then count as other work."""

RESERVED = "+@&,"
"""Characters that join the names of modalities and corruptions, so that none may hold them."""

MAX_TRAININGS = 1_000_000
MAX_CELLS = 5_000_000
MAX_MODALITIES_FOR_ALL = 12
"""Beyond it, `all` would be more than 4,095 modality subsets."""


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """One method with all its hyper-parameters."""

    name: str
    """Name in the registry, or an import string."""
    label: str
    """Name in tables, unique in its grid and safe in file names: `robult[no_rec,tau=0.5]`."""
    variant: str
    config: MethodConfig
    key: str
    """Canonical JSON of the name and every hyper-parameter."""


@dataclass(frozen=True, slots=True)
class DatasetChoice:
    """One data set with all its options, and what it holds."""

    name: str
    label: str
    config: DataConfig
    spec: DataSpec


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained once, and the conditions it is evaluated under."""

    id: str
    """16 hex digits; the same wherever the same result is to be expected."""
    method: MethodChoice
    dataset: DatasetChoice
    label_ratio: float
    seed: int
    settings: TrainSettings
    conditions: tuple[str, ...]
    """Modality subsets, clean or corrupted, as `datasets.corruption.condition` names them."""
    save: Save = NOTHING

    def cell_id(self, condition: str) -> str:
        """Identity of this training's result under one condition."""
        return f"{self.id}-{condition}"

    @property
    def cells(self) -> dict[str, str]:
        """Condition -> cell id."""
        return {condition: self.cell_id(condition) for condition in self.conditions}


@dataclass(frozen=True, slots=True)
class Skip:
    """Part of the product of methods and data sets that is impossible, and why."""

    method: str
    dataset: str
    reason: str
    n_trainings: int
    """0 where the trainings take place and only some of their cells are impossible."""
    n_cells: int


@dataclass(frozen=True)
class Plan:
    """Everything a grid asks for, in the order in which it is best trained."""

    grid: Grid
    trainings: list[Training]
    skipped: list[Skip]
    warnings: list[str]
    n_cells: int
    swept_settings: tuple[str, ...] = ()
    """Train settings that differ between trainings of one method and data set: an axis that tables must not mix."""

    def remaining(self, finished: Collection[str]) -> list[Training]:
        """The trainings with a cell that is not among the finished cell ids, evaluated on those cells alone."""
        if not finished:
            return self.trainings
        left = []
        for training in self.trainings:
            missing = tuple(name for name in training.conditions if training.cell_id(name) not in finished)
            if missing:
                left.append(training if missing == training.conditions else replace(training, conditions=missing))
        return left


def make_plan(grid: Grid) -> Plan:
    """Multiply a grid out. All methods of one seed come before the next seed, so a first comparison is early.

    Raises:
        GridError: a data set cannot be described, a modality exists nowhere, the grid is too large, or nothing is left.
    """
    problems = Problems(grid.file)
    datasets = describe_datasets(grid, problems)
    if problems.found:
        raise GridError(problems.found)
    methods = [MethodChoice(item.name, item.label, item.variant, item.config, item.key) for item in grid.asked_methods]
    settings = [_settings(grid, dataset) for dataset in datasets]
    _check_missing_rates(grid, datasets, settings)
    _refuse_excess(grid, len(methods), settings, problems)
    blocks, skipped = _blocks(grid, methods, datasets, settings, problems)
    if problems.found:
        raise GridError(problems.found)
    if not blocks:
        raise GridError([_nothing_left(grid, skipped)])
    n_cells = sum(len(block.conditions) for block in blocks) * len(grid.seeds) * len(grid.label_ratios)
    if n_cells > MAX_CELLS:
        raise GridError([Problem(grid.file, 0, "", f"{n_cells:,} cells; a grid may ask for {MAX_CELLS:,}: split it")])
    trainings = list(_trainings(grid, blocks))
    return Plan(grid, trainings, skipped, _warnings(blocks), n_cells, _swept(settings))


# ---- data sets ------------------------------------------------------------------------------------------------


def describe_datasets(grid: Grid, problems: Problems) -> list[DatasetChoice]:
    """The grid's data sets with their descriptions; what stands in the way is added to `problems`."""
    found: list[DatasetChoice] = []
    places: dict[str, Asked[DataConfig]] = {}
    for asked in grid.asked_datasets:
        try:
            spec = DATASETS.get(asked.name)(asked.config).spec()
        except UserError as error:
            problems.add(asked.spot, str(error))
            continue
        except Exception as error:  # a data set of the user's own may fail in any way
            problems.add(asked.spot, f"data set '{asked.label}' cannot be described: {type(error).__name__}: {error}")
            continue
        if strange := [name for name in spec.modalities if not name or set(name) & set(RESERVED)]:
            text = f"modality '{strange[0]}' of '{asked.label}' holds one of {' '.join(RESERVED)}, which join names"
            problems.add(asked.spot, text)
            continue
        same = places.setdefault(_identity(spec), asked)
        if same.key != asked.key:  # equal keys were told when the file was read
            text = f"'{asked.label}' holds the same data as '{same.label}' ({same.spot.path}): remove one"
            problems.add(asked.spot, text)
        found.append(DatasetChoice(asked.name, asked.label, asked.config, spec))
    _check_modalities(grid, found, problems)
    return found


def _identity(spec: DataSpec) -> str:
    return json.dumps([spec.fingerprint, spec.task.to_json()], sort_keys=True)


def _check_modalities(grid: Grid, datasets: list[DatasetChoice], problems: Problems) -> None:
    spots = grid.modality_spots or tuple(Spot(Node(0, None), "modalities") for _ in grid.modalities)
    for dataset in datasets:
        if "all" in grid.modalities and len(dataset.spec.modalities) > MAX_MODALITIES_FOR_ALL:
            spot = spots[grid.modalities.index("all")]
            n = len(dataset.spec.modalities)
            text = f"'all' of the {n} modalities of '{dataset.label}' is 2^{n} - 1 subsets: name those you want"
            problems.add(spot, text)
    if not datasets or any(problem.path.startswith("datasets") for problem in problems.found):
        return  # a modality nobody has may be of a data set that could not be described
    known = list(dict.fromkeys(name for dataset in datasets for name in dataset.spec.modalities))
    for request, spot in zip(grid.modalities, spots, strict=True):
        for name in [] if request in _WORDS else request.split("+"):
            if name not in known:
                hint = did_you_mean(name, [*known, *_WORDS])
                problems.add(spot, f"unknown modality '{name}'.{hint} The data sets here have: {', '.join(known)}")
    for name in dict.fromkeys(step.modality for corruption in grid.corruptions for step in corruption.steps):
        if name not in [*known, "all"]:
            text = f"unknown modality '{name}'.{did_you_mean(name, [*known, 'all'])} The data sets here have: "
            problems.add(Spot(Node(0, None), "corruptions"), text + ", ".join(known))


_WORDS = ("all", "single", "full")


def subsets_of(requests: Iterable[str], modalities: Mapping[str, Any]) -> tuple[tuple[str, ...], list[str]]:
    """The modality subsets that `requests` mean for one data set, and a reason for each request it cannot meet.

    Subsets are written in the data set's own order, each once, singles first.
    """
    names = tuple(modalities)
    position = {name: index for index, name in enumerate(names)}
    wanted: set[tuple[int, ...]] = set()
    lacking = []
    for request in requests:
        if request == "full":
            wanted.add(tuple(range(len(names))))
        elif request in ("single", "all"):
            sizes = range(1, 2 if request == "single" else len(names) + 1)
            wanted.update(part for size in sizes for part in choose(range(len(names)), size))
        elif missing := [name for name in request.split("+") if name not in position]:
            names_missing = " and ".join(repr(name) for name in missing)
            lacking.append(f"has no modality {names_missing}" + (f" for '{request}'" if "+" in request else ""))
        else:
            wanted.add(tuple(sorted(position[name] for name in request.split("+"))))
    ordered = sorted(wanted, key=lambda part: (len(part), part))
    return tuple("+".join(names[index] for index in part) for part in ordered), lacking


def conditions_of(
    subsets: tuple[str, ...], corruptions: Iterable[Corruption], modalities: Mapping[str, Any]
) -> tuple[tuple[str, ...], list[str]]:
    """What a training on one data set is tested under, and a reason for each corruption that cannot be tested.

    A corruption is tested on the subsets that hold all modalities it changes.
    """
    applicable, lacking = [], []
    for corruption in (asked.of(modalities) for asked in corruptions):
        missing = sorted(corruption.modalities - set(modalities))
        if missing:
            lacking.append(f"has no modality {' and '.join(map(repr, missing))} for '{corruption}'")
        elif not any(corruption.modalities <= set(subset.split("+")) for subset in subsets):
            lacking.append(f"no subset that is tested holds what '{corruption}' changes")
        else:
            applicable.append(corruption)
    return conditions(subsets, applicable), lacking


# ---- trainings ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Block:
    """The trainings of one method on one data set with one group of settings: every seed and label ratio."""

    method: MethodChoice
    dataset: DatasetChoice
    settings: TrainSettings
    conditions: tuple[str, ...]

    def prefix(self) -> Any:
        """A hash that has taken everything but the label ratio and the seed."""
        what = [PROTOCOL, self.method.key, _identity(self.dataset.spec), self.settings.model_dump(mode="json")]
        return blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=8)


def _settings(grid: Grid, dataset: DatasetChoice) -> list[TrainSettings]:
    values = grid.train.values_for(dataset.name, dataset.label)
    return [check(TrainSettings, combination) for combination in combinations(values)]


def _check_missing_rates(grid: Grid, datasets: list[DatasetChoice], settings: list[list[TrainSettings]]) -> None:
    """Refuse a rate for a modality that no data set of the grid has; one that only some have holds for those."""
    known = list(dict.fromkeys(name for dataset in datasets for name in dataset.spec.modalities))
    rates = [option.missing_rate for options in settings for option in options]
    asked = dict.fromkeys(name for rate in rates if isinstance(rate, dict) for name in rate)
    texts = [
        f"unknown modality '{name}'.{did_you_mean(name, known)} The data sets of this grid have: {', '.join(known)}"
        for name in asked
        if name not in known
    ]
    if texts:
        raise GridError([Problem(grid.file, 0, "train.missing_rate", text) for text in texts])


def _swept(settings: list[list[TrainSettings]]) -> tuple[str, ...]:
    fields = TrainSettings.model_fields
    return tuple(
        key for key in fields if any(len({repr(getattr(s, key)) for s in options}) > 1 for options in settings)
    )


def _refuse_excess(grid: Grid, n_methods: int, settings: list[list[TrainSettings]], problems: Problems) -> None:
    """Told before anything is multiplied out, so that a typing slip cannot eat the memory."""
    n = n_methods * sum(map(len, settings)) * len(grid.label_ratios) * len(grid.seeds)
    if n > MAX_TRAININGS:
        problems.at_line(0, f"{n:,} trainings; a grid may ask for {MAX_TRAININGS:,}: split it")
        raise GridError(problems.found)


def _blocks(
    grid: Grid,
    methods: list[MethodChoice],
    datasets: list[DatasetChoice],
    settings: list[list[TrainSettings]],
    problems: Problems,
) -> tuple[list[_Block], list[Skip]]:
    blocks: list[_Block] = []
    skipped: list[Skip] = []
    for dataset, options in zip(datasets, settings, strict=True):
        n = len(options) * len(grid.label_ratios) * len(grid.seeds)
        subsets, lacking = subsets_of(grid.modalities, dataset.spec.modalities)
        tested, untestable = conditions_of(subsets, grid.corruptions, dataset.spec.modalities)
        lacking += untestable
        for method, asked in zip(methods, grid.asked_methods, strict=True):
            refusal = _refusal(method, dataset, asked.spot, problems)
            if refusal is not None:
                skipped.append(Skip(method.label, dataset.label, refusal, n, n * len(tested)))
                continue
            for index, why in enumerate(lacking):
                skipped.append(Skip(method.label, dataset.label, why, 0 if subsets or index else n, n))
            if tested:
                blocks += [_Block(method, dataset, option, tested) for option in options]
    return blocks, skipped


def _refusal(method: MethodChoice, dataset: DatasetChoice, spot: Spot, problems: Problems) -> str | None:
    try:
        return METHODS.get(method.name).refuses(dataset.spec, method.config)
    except Exception as error:  # a method of the user's own may fail in any way
        text = f"'{method.label}' cannot say whether it takes '{dataset.label}': {type(error).__name__}: {error}"
        problems.add(spot, text)
        return None


def _trainings(grid: Grid, blocks: list[_Block]) -> Iterator[Training]:
    prefixes = [block.prefix() for block in blocks]
    save = Save(grid.save, grid.checkpoint)
    for seed in grid.seeds:
        for ratio in grid.label_ratios:
            axes = json.dumps([ratio, seed]).encode()
            for block, prefix in zip(blocks, prefixes, strict=True):
                digest = prefix.copy()
                digest.update(axes)
                yield Training(
                    digest.hexdigest(), block.method, block.dataset, ratio, seed, block.settings, block.conditions, save
                )


def trainings_of(
    grid: Grid, method: MethodChoice, dataset: DatasetChoice, settings: TrainSettings, conditions: tuple[str, ...]
) -> list[Training]:
    """The trainings of one method on one data set, every seed and label ratio, as a grid that asks for them has them.

    A search makes its trials of these: same configuration, same identity, seeds and masks.
    """
    return list(_trainings(grid, [_Block(method, dataset, settings, conditions)]))


def _nothing_left(grid: Grid, skipped: list[Skip]) -> Problem:
    reasons = list(dict.fromkeys(f"{skip.method} on {skip.dataset}: {skip.reason}" for skip in skipped))
    more = f"; and {len(reasons) - 10} more" if len(reasons) > 10 else ""
    return Problem(grid.file, 0, "", f"nothing is left to train ({'; '.join(reasons[:10])}{more})")


def _warnings(blocks: list[_Block]) -> list[str]:
    told = []
    for block in blocks:
        label, size, n = block.dataset.label, block.settings.batch_size, block.dataset.spec.sizes["train"]
        if size > n:
            told.append(f"{label}: batch_size {size} is more than its {n} training samples: an epoch is one step")
    return list(dict.fromkeys(told))


# ---- summary --------------------------------------------------------------------------------------------------


@dataclass
class SummaryRow:
    """What a plan holds for one method on one data set."""

    method: str
    dataset: str
    trainings: int = 0
    cells: int = 0
    trainings_done: int = 0
    cells_done: int = 0
    trainings_skipped: int = 0
    cells_skipped: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlanSummary:
    """A plan in numbers, for `bench plan`."""

    name: str
    rows: list[SummaryRow]
    warnings: list[str]

    def total(self, count: str) -> int:
        """Sum of one count of `SummaryRow` over all rows."""
        return sum(getattr(row, count) for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """The summary as plain values."""
        counts = [name for name, kind in SummaryRow.__annotations__.items() if kind is int]
        return {
            "name": self.name,
            **{count: self.total(count) for count in counts},
            "rows": [asdict(row) | {"reasons": list(row.reasons)} for row in self.rows],
            "warnings": self.warnings,
        }


def describe(plan: Plan, finished: Collection[str]) -> PlanSummary:
    """Count a plan by method and data set; `finished` holds the ids of cells that have results."""
    rows: dict[tuple[str, str], SummaryRow] = {}

    def row(method: str, dataset: str) -> SummaryRow:
        return rows.setdefault((method, dataset), SummaryRow(method, dataset))

    for training in plan.trainings:
        at = row(training.method.label, training.dataset.label)
        done = sum(training.cell_id(name) in finished for name in training.conditions) if finished else 0
        at.trainings += 1
        at.cells += len(training.conditions)
        at.cells_done += done
        at.trainings_done += done == len(training.conditions)
    for skip in plan.skipped:
        at = row(skip.method, skip.dataset)
        at.trainings_skipped += skip.n_trainings
        at.cells_skipped += skip.n_cells
        at.reasons = (*at.reasons, skip.reason)
    return PlanSummary(plan.grid.name, sorted(rows.values(), key=lambda r: (r.dataset, r.method)), plan.warnings)
