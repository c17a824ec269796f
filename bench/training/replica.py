"""One training among those that train together: its initial weights, labels, modalities, random streams and results.

Shapes: N samples, B batch, M modalities.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from bench.grid.plan import Training
from datasets.base import DataSpec, Part
from datasets.errors import UserError
from datasets.labels import label_mask, label_warning
from datasets.missing import training_availability
from datasets.seeds import generator, seed_of
from methods.base import Method
from methods.registry import METHODS

Row = dict[str, float]


class TrainingFailed(UserError):
    """A training that cannot go on; the message is the reason shown beside it."""

    exit_code = 1


@dataclass
class Replica:
    """One training among those that train together: what is its own."""

    training: Training
    method: Method
    labelled: NDArray[np.bool_]
    """(N,), which training labels are visible."""
    available: NDArray[np.bool_]
    """(N, M), which modalities each training sample has."""
    warning: str | None
    noise_seed: int
    order: np.random.Generator
    failure: TrainingFailed | None = None
    """Why it cannot go on; the others do."""
    curves: list[Row] = field(default_factory=list)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    validation: dict[str, Row] = field(default_factory=dict)
    """Modality subset -> validation metrics of the last epoch."""
    best: float = -np.inf
    best_epoch: int = 0
    best_state: dict[str, Tensor] | None = None
    cells: dict[str, dict[str, Row]] = field(default_factory=dict)
    schedule: ReduceLROnPlateau = field(init=False)
    """Of the stage at hand."""

    @property
    def rate(self) -> float:
        """Its learning rate."""
        return float(self.schedule.optimizer.param_groups[0]["lr"])

    def look(self, row: Row) -> None:
        """Keep the weights if this epoch is the best on validation so far."""
        score = row["valid/score"] if np.isfinite(row["valid/score"]) else -np.inf
        if score > self.best or self.best_state is None:
            self.best, self.best_epoch = score, len(self.curves)
            self.best_state = {key: value.clone() for key, value in self.method.state_dict().items()}


def build(training: Training, spec: DataSpec) -> Method:
    """The method with its initial weights, which depend on method, data set, label ratio and seed alone."""
    cls = METHODS.get(training.method.name)
    seed = seed_of("weights", training.method.name, spec.fingerprint, training.label_ratio, training.seed)
    with torch.random.fork_rng(devices=[]):  # nn.Module initialisers know only the global generator
        torch.manual_seed(seed)
        return cls(spec.modalities, spec.task, training.method.config)


def make_replica(training: Training, spec: DataSpec, train: Part, device: str) -> Replica:
    """A training with its initial weights, visible labels, modalities and random streams."""
    task, settings, fingerprint = spec.task, training.settings, spec.fingerprint
    groups = task.groups(torch.as_tensor(np.ascontiguousarray(train.target))).numpy()
    ratio, seed, one_each = training.label_ratio, training.seed, task.kind != "multilabel"
    labelled = label_mask(groups, ratio, dataset=fingerprint, seed=seed, at_least_one=one_each)
    available = training_availability(
        len(train), tuple(spec.modalities), settings.missing_rate, dataset=fingerprint, seed=seed
    )
    failure = None
    if not labelled.any():
        failure = TrainingFailed(f"label ratio {ratio:g} leaves no label among {len(labelled)} training samples")
    return Replica(
        training,
        build(training, spec).to(device),
        labelled,
        available,
        label_warning(groups, ratio) if one_each else None,
        seed_of("noise", fingerprint, ratio, seed),
        generator("order", fingerprint, ratio, seed),
        failure,
    )


def draw_batches(replica: Replica, steps: int, size: int) -> NDArray[np.int64]:
    """Indices of one epoch's batches, (steps, B); the incomplete last one is dropped, every method gets equal steps."""
    order, labelled, n = replica.order, replica.labelled, steps * size
    sampler = replica.training.settings.label_sampler
    if sampler == "labelled_only":
        pool = np.flatnonzero(labelled)
        index = np.concatenate([order.permutation(pool) for _ in range(-(-n // max(len(pool), 1)))])[:n]
    else:
        index = order.permutation(len(labelled))[:n]
    batches = index.reshape(steps, size)
    if sampler == "stratified":
        without = np.flatnonzero(~labelled[batches].any(axis=1))
        pool = order.permutation(np.flatnonzero(labelled))
        batches[without, 0] = pool[np.arange(len(without)) % len(pool)]
    return batches
