"""What a plan will take: a few real steps of each kind of training are timed on random data of the true shapes."""

import time
from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np
import torch

from bench.grid.grid import Executor
from bench.grid.plan import Training
from bench.scheduling.cost_model import START_S, CostModel, shape_of, step_flops
from bench.scheduling.slots import slot_devices
from bench.training.trainer import Trainer
from datasets.base import SPLITS, Data, DataSpec, Part, Split
from datasets.seeds import generator

PROBE_ROWS = 512
PROBE_BUDGET_S = 4.0
"""What kinds of training left when this is spent cost is inferred from the others, see `scheduling.cost_model`."""
PROBE_WEIGHT = 0.5
"""What a probe counts beside a training that was measured: it has seen a few steps."""
COUNT_BUDGET_S = 1.5
"""Of counting the arithmetic of a step of each kind."""
WORKER_MIB = 300.0
"""Resident memory of a worker with little data (peak of a small training: 299 MiB with torch 2.13 on Linux)."""
TRAINING_KIB, CELL_KIB = 90.0, 12.0
"""Growth of a SQLite store, within about a tenth of what two grids left: 48 trainings of 30 epochs with 240 cells, and
36 of 40 epochs with 252 cells, 7.2 and 7.3 MiB in all. Longer trainings leave longer curves and need more."""


@dataclass(frozen=True)
class Estimate:
    """Time, memory and disk of what is left to train."""

    seconds: float
    n_slots: int
    memory_mib: float
    """Of all slots together."""
    disk_mib: float
    """In the tracking store."""


def estimate(trainings: list[Training], executor: Executor, costs: CostModel | None = None) -> Estimate:
    """Time each kind of training for a moment on this machine and add up.

    Args:
        trainings: what is left.
        executor: on what.
        costs: takes over what is timed; it may know some trainings already.
    """
    costs = CostModel() if costs is None else costs
    devices = slot_devices(executor.devices, executor.slots)
    n_slots = max(min(len(devices), len(trainings)), 1)
    kinds: dict[int, tuple[Training, int]] = {}
    for training in trainings:
        key = id(costs.kind(training))
        kinds[key] = (training, kinds[key][1] + 1 if key in kinds else 1)
    memory_mib = _probe([training for training, _ in kinds.values()], devices[0], costs)
    seconds = [(costs.seconds(training, devices[0]), n) for training, n in kinds.values()]
    total, longest = sum(each * n for each, n in seconds), max((each for each, _ in seconds), default=0.0)
    memory = n_slots * (WORKER_MIB + memory_mib)
    cells = sum(len(training.conditions) for training in trainings)
    disk = (len(trainings) * TRAINING_KIB + cells * CELL_KIB) / 1024
    return Estimate(max(total / n_slots, longest), n_slots, memory if trainings else 0.0, disk)


def _probe(examples: list[Training], device: str, costs: CostModel) -> float:
    """Time kinds of training as long as the budget lasts, those nothing is known of first; returns the most MiB."""
    examples = list({_name(training): training for training in examples}.values())
    deadline = time.monotonic() + PROBE_BUDGET_S
    _count(examples, costs)
    memory_mib, threads = 0.0, torch.get_num_threads()
    torch.set_num_threads(1)
    for training in sorted(examples, key=lambda training: costs.knows(training, device)):
        if time.monotonic() > deadline:
            break
        seconds, mib = _cost(training, device)
        costs.learn(training, device, seconds + START_S, weight=PROBE_WEIGHT)
        memory_mib = max(memory_mib, mib)
    torch.set_num_threads(threads)
    return memory_mib


def _count(examples: list[Training], costs: CostModel) -> None:
    """Count the arithmetic of all kinds, or of none: half of them would compare badly with the others."""
    deadline = time.monotonic() + COUNT_BUDGET_S
    counted: dict[Hashable, float] = {}
    for kind in map(costs.kind, examples):
        if time.monotonic() > deadline:
            return
        flops = step_flops(kind) if shape_of(kind) not in counted else None
        if flops is not None:
            counted[shape_of(kind)] = flops
    costs.counted |= counted


def _name(training: Training) -> str:
    return f"{training.method.key}|{training.dataset.label}|{training.settings.model_dump_json()}"


def _cost(training: Training, device: str) -> tuple[float, float]:
    """Seconds and MiB of one training, from a few steps and one evaluation."""
    spec = training.dataset.spec
    short = replace(training, settings=training.settings.model_copy(update={"epochs": 1}), label_ratio=1.0)
    trainer = Trainer([short], _random(spec, training), device)
    stages = trainer.methods[0].stages()
    trainer.settings = trainer.settings.model_copy(update={"epochs": len(stages)})  # one of each
    trainer.run()  # warm-up, and the evaluation that ends a training
    steps = max(trainer.steps, 1)
    per_epoch, started = 0.0, time.perf_counter()
    for stage, _ in zip(stages, trainer.epochs(), strict=False):  # a method without epochs gives no row
        now = time.perf_counter()
        per_epoch, started = per_epoch + stage.share * (now - started), now
    true_steps = max(spec.sizes["train"] // min(training.settings.batch_size, spec.sizes["train"]), 1)
    seconds = per_epoch / steps * true_steps * training.settings.epochs
    bytes_ = sum(4 * sum(spec.sizes.values()) * int(np.prod(shape)) for shape in spec.modalities.values())
    parameters = sum(p.numel() for p in trainer.methods[0].parameters())
    return seconds, (2 * bytes_ + 20 * parameters) / 2**20


def _random(spec: DataSpec, training: Training) -> Data:
    """Random data in the shapes of a data set, at most `PROBE_ROWS` rows a split, in the split's proportions."""
    rng = generator("estimate", spec.fingerprint)
    sizes = _short_sizes(spec, training.settings.batch_size)
    return Data(replace(spec, sizes=sizes), {split: _part(spec, sizes[split], rng) for split in SPLITS})


def _short_sizes(spec: DataSpec, batch_size: int) -> dict[Split, int]:
    share = min(1.0, max(PROBE_ROWS, 2 * batch_size) / spec.sizes["train"])
    return {split: max(int(spec.sizes[split] * share), 2) for split in SPLITS}


def _part(spec: DataSpec, n: int, rng: np.random.Generator) -> Part:
    inputs = {name: rng.standard_normal((n, *shape), dtype=np.float32) for name, shape in spec.modalities.items()}
    return Part(inputs, spec.task.random_target(n, rng))
