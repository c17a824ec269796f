"""How long trainings take: an expectation from their arithmetic, corrected by every training that was measured.

What is learned is the logarithm of measured over expected seconds, on four levels: device, method, data set, and kind
of training (one method with its hyper-parameters on one data set with its settings). Each level is drawn towards the
one above it, so a kind never seen is expected to behave as its method does on that data set, else as its method does,
else as the device does. In logarithms a training that was held up once does little harm.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from bench.grid.plan import DatasetChoice, MethodChoice, Training
from bench.grid.settings import TrainSettings
from methods.registry import METHODS

STEP_S = 0.004
"""Seconds of a step whatever its arithmetic: a few hundred small operations, on one thread or launched on a GPU."""
FLOPS = {"cpu": 2e10, "cuda": 1e13}
"""Arithmetic a second of these small models, one thread or one GPU; only their order of magnitude matters."""
FLOPS_OF_A_VALUE = 15_000.0
"""FLOPs of a training step per input value of a batch."""
EVALUATION = 1.25
"""What validation after each epoch and the test at the end add to the steps."""
START_S = 0.1

MARGINAL = {"cpu": 0.9, "cuda": 1 / 15}
"""What a further training adds to a stack, as a share of the first: nearly all of it on a CPU thread (measured, see
`scheduling.stacks`), a fifteenth where 16 take twice the time of one, which is what stacks on GPUs are made for."""
TOWARDS = 0.2
"""How much the level above counts, in measured trainings."""
EARLIER = 0.3
"""What a training of an earlier run counts: another machine may have made it."""


def device_kind(device: str) -> str:
    """`cpu` or `cuda` (or `mps`), whatever the number of the device."""
    return device.partition(":")[0]


class Kind(NamedTuple):
    """Trainings that take the same time: they differ in seed and label ratio."""

    method: MethodChoice
    dataset: DatasetChoice
    settings: TrainSettings


class Measured(NamedTuple):
    """A finished training as the tracking store knows it."""

    training_id: str
    method: str
    dataset: str
    epochs: int
    batch_size: int
    seconds: float
    """Its share of its stack's."""
    stack: int
    device: str


def steps_of(training: Training | Kind) -> int:
    """Optimiser steps of a whole training."""
    n = training.dataset.spec.sizes["train"]
    return training.settings.epochs * max(n // min(training.settings.batch_size, n), 1)


class _Branch:
    """The mean of what was learned below one branch; of each child one training counts at most, however many it has."""

    __slots__ = ("parent", "total", "weight")

    def __init__(self, parent: "_Branch | None") -> None:
        self.parent, self.total, self.weight = parent, 0.0, 0.0

    def add(self, total: float, weight: float) -> None:
        before = self._vote()
        self.total, self.weight = self.total + total, self.weight + weight
        if self.parent is not None:
            after = self._vote()
            self.parent.add(after[0] - before[0], after[1] - before[1])

    def _vote(self) -> tuple[float, float]:
        return (self.total / (self.weight + 1), self.weight / (self.weight + 1)) if self.weight else (0.0, 0.0)

    @property
    def mean(self) -> float:
        above = 0.0 if self.parent is None else self.parent.mean
        return (self.total + TOWARDS * above) / (self.weight + TOWARDS)


class _Observation(NamedTuple):
    branch: _Branch
    device: str
    log_ratio: float
    """Of the stack's seconds to what one training is expected to take by its arithmetic alone."""
    stack: int
    weight: float


@dataclass
class CostModel:
    """Seconds of trainings and stacks on a kind of device."""

    counted: dict[Hashable, float] = field(default_factory=dict)
    """FLOPs of a step that were counted, by `shape_of`."""
    version: int = 0
    """Raised when predictions change."""

    def __post_init__(self) -> None:
        self._branches: dict[tuple[Any, ...], _Branch] = {}
        self._kinds: dict[tuple[int, int, int], Kind] = {}
        self._observations: list[_Observation] = []
        self._by_size: dict[str, dict[_Branch, dict[int, tuple[float, int]]]] = {}
        """Device -> kind of training -> stack size -> mean log ratio, and of how many."""
        self._marginal = dict(MARGINAL)
        self._cached: dict[tuple[int, int, int, str], tuple[int, float]] = {}

    # ---- prediction ---------------------------------------------------------------------------------------

    def seconds(self, training: Training, device: str, stack: int = 1) -> float:
        """What a stack of `stack` trainings like this one takes."""
        device = device_kind(device)
        key = (id(training.method), id(training.dataset), id(training.settings), device)
        version, alone = self._cached.get(key, (-1, 0.0))
        if version != self.version:
            kind = self.kind(training)
            alone = self.expected_s(kind, device) * math.exp(self._branch(kind, device).mean)
            self._cached[key] = (self.version, alone)
        return alone * self._growth(device, stack)

    def knows(self, training: Training, device: str) -> bool:
        """Whether anything of its method was measured on this kind of device."""
        branch = self._branch(self.kind(training), device_kind(device))
        assert branch.parent is not None
        assert branch.parent.parent is not None
        return branch.parent.parent.weight > 0

    @property
    def has_measured(self) -> bool:
        return bool(self._observations)

    def expected_s(self, kind: Kind, device: str) -> float:
        """Seconds by arithmetic alone; a method that is fitted without steps takes none.

        The geometric mean of what was counted and what the inputs suggest: over 35 kinds of training that were timed
        the logarithm of its error spreads by 0.87, that of the inputs by 1.0, that of the count by 1.2, which takes
        small operations for nothing and patterns that never occur for work.
        """
        if not METHODS.get(kind.method.name).iterative:
            return START_S
        by_inputs = default_flops(kind)
        flops = math.sqrt(by_inputs * self.counted.get(shape_of(kind), by_inputs))
        step_s = STEP_S + flops / FLOPS.get(device, FLOPS["cuda"])
        return START_S + EVALUATION * steps_of(kind) * step_s

    def _growth(self, device: str, stack: int) -> float:
        """What a stack takes in units of one training."""
        return 1 + (stack - 1) * self._marginal.get(device, MARGINAL["cuda"])

    def kind(self, training: Training) -> Kind:
        """The same object for all trainings of a kind in a plan."""
        key = (id(training.method), id(training.dataset), id(training.settings))
        if key not in self._kinds:  # it holds them, so that no other object gets their addresses
            self._kinds[key] = Kind(training.method, training.dataset, training.settings)
        return self._kinds[key]

    def _branch(self, kind: Kind, device: str) -> _Branch:
        settings = (kind.settings.epochs, kind.settings.batch_size)
        path = (device, kind.method.name, kind.dataset.label, (kind.method.key, settings))
        for depth in range(1, len(path) + 1):
            if path[:depth] not in self._branches:
                self._branches[path[:depth]] = _Branch(self._branches.get(path[: depth - 1]))
        return self._branches[path]

    # ---- learning -----------------------------------------------------------------------------------------

    def learn(self, training: Training, device: str, seconds: float, stack: int = 1, weight: float = 1.0) -> None:
        """Take over that a stack of `stack` trainings like this one took `seconds`."""
        if not (seconds > 0 and math.isfinite(seconds)):
            return
        device, kind = device_kind(device), self.kind(training)
        log_ratio = math.log(seconds / self.expected_s(kind, device))
        observation = _Observation(self._branch(kind, device), device, log_ratio, stack, weight)
        self._observations.append(observation)
        self._note_size(observation)
        self._apply(observation)
        self.version += 1

    def _apply(self, seen: _Observation) -> None:
        value = seen.log_ratio - math.log(self._growth(seen.device, seen.stack))
        seen.branch.add(seen.weight * value, seen.weight)

    def _note_size(self, seen: _Observation) -> None:
        """Learn what a further training adds from kinds that were seen in stacks of several sizes."""
        sizes = self._by_size.setdefault(seen.device, {}).setdefault(seen.branch, {})
        mean, n = sizes.get(seen.stack, (0.0, 0))
        sizes[seen.stack] = ((mean * n + seen.log_ratio) / (n + 1), n + 1)
        if len(sizes) < 2:
            return
        expected = MARGINAL.get(seen.device, MARGINAL["cuda"])
        several = [found for found in self._by_size[seen.device].values() if len(found) > 1]
        told = [math.log(expected), *map(_log_marginal, several)]
        learned = math.exp(sum(told) / len(told))
        if abs(math.log(learned / self._marginal.get(seen.device, expected))) > 0.02:
            self._marginal[seen.device] = learned
            self._relearn(besides=seen)

    def _relearn(self, besides: _Observation) -> None:
        for branch in self._branches.values():
            branch.total = branch.weight = 0.0
        for seen in self._observations:
            if seen is not besides:
                self._apply(seen)

    def recall(self, measured: Iterable[Measured], plan: Iterable[Training]) -> int:
        """Learn from what a tracking store knows of trainings on this plan's data sets; returns from how many.

        A training of the plan's own kinds counts as such; one with another configuration, epochs or batch size stands
        for its method on that data set.
        """
        by_id: dict[str, Training] = {}
        by_name: dict[tuple[str, str], Training] = {}
        for training in plan:
            by_id[training.id] = training
            by_name.setdefault((training.method.name, training.dataset.label), training)
        n = 0
        for seen in measured:
            example = by_id.get(seen.training_id) or by_name.get((seen.method, seen.dataset))
            if example is None:
                continue
            if seen.training_id not in by_id:
                example = _other(example, seen)
            self.learn(example, seen.device, seen.seconds * seen.stack, seen.stack, EARLIER)
            n += 1
        return n


def _other(example: Training, seen: Measured) -> Training:
    """A training of the same method on the same data with the epochs and batch size of one that was measured."""
    settings = example.settings.model_copy(update={"epochs": seen.epochs, "batch_size": seen.batch_size})
    return replace(example, settings=settings)


def _log_marginal(sizes: Mapping[int, tuple[float, int]]) -> float:
    """What a further training adds, by one kind's mean log seconds in its smallest and its largest stack."""
    few, many = min(sizes), max(sizes)
    ratio = math.exp(sizes[many][0] - sizes[few][0])
    left = (many - 1) - ratio * (few - 1)
    return math.log(min(max((ratio - 1) / left, 0.005), 1.2) if left > 0 else 1.2)


# ---- arithmetic -------------------------------------------------------------------------------------------


def shape_of(kind: Kind) -> Hashable:
    """What decides the arithmetic of a step."""
    spec = kind.dataset.spec
    n = min(kind.settings.batch_size, spec.sizes["train"])
    return kind.method.key, tuple(spec.modalities.items()), spec.task.width, n


def default_flops(kind: Kind) -> float:
    """FLOPs of a step by the size of its inputs alone."""
    spec = kind.dataset.spec
    values = sum(int(np.prod(shape)) for shape in spec.modalities.values())
    return FLOPS_OF_A_VALUE * values * min(kind.settings.batch_size, spec.sizes["train"])


def step_flops(kind: Kind) -> float | None:
    """FLOPs of one training step, counted on shapes without arithmetic; None where a method cannot be run so."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from datasets.batch import make_batch
    from datasets.seeds import generator

    spec, n = kind.dataset.spec, min(kind.settings.batch_size, kind.dataset.spec.sizes["train"])
    try:
        with torch.device("meta"):
            method = METHODS.get(kind.method.name)(spec.modalities, spec.task, kind.method.config)
            target = torch.as_tensor(spec.task.random_target(n, generator("flops", spec.fingerprint)))
            batch = make_batch({name: torch.zeros((n, *shape)) for name, shape in spec.modalities.items()}, target)
            with FlopCounterMode(display=False) as counter:
                torch.stack(list(method.train().loss(batch).values())).sum().backward()  # type: ignore[no-untyped-call]
    except Exception:  # any method of a user's own; its inputs then say how long it may take
        return None
    return float(counter.get_total_flops())
