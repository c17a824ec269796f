"""What a plan will take: a few real steps of each kind of training are timed on random data of the true shapes."""

import time
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch

from bench.executors.local import slot_devices
from bench.grid import Executor
from bench.plan import Training
from bench.trainer import Trainer
from datasets.base import SPLITS, Data, DataSpec, Part, Split
from datasets.seeds import generator

PROBE_ROWS = 512
PROBE_BUDGET_S = 8.0
"""Kinds of training left when this is spent are taken to cost what the others do on average."""
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


def estimate(trainings: list[Training], executor: Executor) -> Estimate:
    """Time each kind of training for a moment on this machine and add up."""
    devices = slot_devices(executor.devices, executor.slots)
    n_slots = max(min(len(devices), len(trainings)), 1)
    kinds = Counter(_kind(training) for training in trainings)
    examples = {_kind(training): training for training in trainings}
    costs: dict[str, tuple[float, float]] = {}
    deadline = time.monotonic() + PROBE_BUDGET_S
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for kind, training in examples.items():
        if time.monotonic() > deadline:
            break
        costs[kind] = _cost(training, devices[0])
    torch.set_num_threads(threads)
    typical = float(np.mean([seconds for seconds, _ in costs.values()])) if costs else 0.0
    total = sum(count * costs.get(kind, (typical, 0.0))[0] for kind, count in kinds.items())
    longest = max((seconds for seconds, _ in costs.values()), default=0.0)
    memory = n_slots * (WORKER_MIB + max((mib for _, mib in costs.values()), default=0.0))
    cells = sum(len(training.conditions) for training in trainings)
    disk = (len(trainings) * TRAINING_KIB + cells * CELL_KIB) / 1024
    return Estimate(max(total / n_slots, longest), n_slots, memory if trainings else 0.0, disk)


def _kind(training: Training) -> str:
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
