"""What a search runs in a worker process: its share of a round of trials, on the validation split alone.

The stacks of a share advance side by side, an epoch each in turn, where a pruner looks at them: then the worker tells
what every training has come to and waits for the answer, which are the trainings to let go.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from bench.executors import worker
from bench.grid.plan import Training
from bench.search.objective import Objective
from bench.training.replica import Replica, Row, TrainingFailed
from bench.training.trainer import Result, Trainer
from datasets.base import Data
from datasets.catalog import DATASETS

VALUES_AT_ONCE = 40
"""Values of one message, so that it fits into the pipe whole."""
PRUNED = "pruned"

_answers: Connection | None = None
_capture = False
_data: dict[str, Data] = {}


@dataclass
class Trained:
    """What one training of a trial gave."""

    training_id: str
    failure: str | None = None
    """Why it failed; None also when it was let go."""
    rows: Mapping[str, Row] = field(default_factory=dict)
    """Modality subset -> validation metrics at the checkpoint asked for; empty unless it was trained to its end."""
    curve: list[float] = field(default_factory=list)
    """The first objective after each epoch."""
    seconds: float = 0.0


def start(slot: int, device: str, capture: bool, progress: Connection, answers: Connection) -> None:
    """Make this process a worker that can be answered."""
    global _answers, _capture
    worker.start(slot, device, capture, progress)
    _answers, _capture = answers, capture


def train_share(
    stacks: Sequence[list[Training]], objective: Objective, device: str, checkpoint: str, look_every: int
) -> list[Trained]:
    """Train stacks side by side and judge them on the validation split.

    Args:
        stacks: each of trainings that may share one.
        objective: what is told after each epoch.
        device: of all tensors.
        checkpoint: `last` or `best`.
        look_every: epochs between two looks of a pruner; 0: nobody looks, and the stacks train one after the other.

    Raises:
        Exception: of a share of several trainings: each may do better alone.
    """
    courses = [_Course(stack, objective, device) for stack in stacks]
    try:
        if look_every:
            _side_by_side(courses, look_every)
        told = []
        for course in courses:
            told += course.finish(checkpoint)
        return told
    except Exception as error:
        if sum(len(stack) for stack in stacks) > 1:
            raise
        return [Trained(stacks[0][0].id, worker.reason_of(error, device))]


def _side_by_side(courses: Sequence["_Course"], look_every: int) -> None:
    """Advance all stacks epoch by epoch until each has ended; at every look let go whom the answer names."""
    assert _answers is not None
    epoch, going = 0, list(courses)
    while going:
        epoch += 1
        going = [course for course in going if course.advance()]
        if epoch % look_every or not going:
            continue
        values = [(id_, value) for course in courses for id_, value in course.values().items()]
        failed = [(id_, why) for course in courses for id_, why in course.failures().items()]
        for first in range(0, len(values), VALUES_AT_ONCE):
            worker.tell({"look": epoch, "values": values[first : first + VALUES_AT_ONCE]})
        for id_, why in failed:
            worker.tell({"look": epoch, "failed": [id_, why[:500]]})
        worker.tell({"look": epoch, "whole": True})
        gone = set(_answers.recv())
        for course in courses:
            course.drop(gone)


class _Course:
    """One stack on its way through its epochs; built when it first advances."""

    def __init__(self, stack: list[Training], objective: Objective, device: str) -> None:
        self.stack, self.objective, self.device = stack, objective, device
        self.subsets = list(objective.subsets(stack[0].dataset))
        self.curves: dict[str, list[float]] = {training.id: [] for training in stack}
        self.gone: set[str] = set()
        self.broken: TrainingFailed | None = None
        """Why none of them can train at all."""
        self._trainer: Trainer | None = None
        self._epochs: Iterator[list[tuple[Replica, Row]]] = iter(())
        self._told_s = 0.0
        self._started = time.perf_counter()

    @property
    def trainer(self) -> Trainer:
        if self._trainer is None:
            self._started = time.perf_counter()
            data = _load(self.stack[0])
            self._trainer = Trainer(self.stack, data, self.device, self._alive, "valid", capture=_capture)
            self._epochs = self._trainer.epochs()
        return self._trainer

    def _alive(self) -> None:
        if time.monotonic() - self._told_s > worker.SIGN_EVERY_S:
            self._told_s = time.monotonic()
            done = max(map(len, self.curves.values()), default=0) / self.stack[0].settings.epochs
            worker.tell({"alive": True, "done": done})

    def advance(self) -> bool:
        """Train one epoch; False when there is none left."""
        trainer = self.trainer
        try:
            if not trainer.running or next(self._epochs, None) is None:
                return False
        except TrainingFailed as failure:
            self.broken = failure
            return False
        for id_, rows in trainer.validation(self.subsets).items():
            self.curves[id_].append(self.objective.of_training(self.subsets, rows))
        return True

    def values(self) -> dict[str, float]:
        """Training id -> the objective after its last epoch, of those that go on or have ended well."""
        failed = self.failures()
        return {id_: c[-1] for id_, c in self.curves.items() if c and id_ not in failed and id_ not in self.gone}

    def failures(self) -> dict[str, str]:
        """Training id -> why it failed, other than by being let go."""
        if self.broken is not None:
            return {training.id: str(self.broken) for training in self.stack}
        found = ((r.training.id, r.failure) for r in self.trainer.asked if r.failure is not None)
        return {id_: str(failure) for id_, failure in found if id_ not in self.gone}

    def drop(self, ids: set[str]) -> None:
        own = {id_ for id_ in ids if id_ in self.curves} - self.gone - set(self.failures())
        if own:
            self.gone |= own
            self.trainer.drop(own, PRUNED)

    def finish(self, checkpoint: str) -> list[Trained]:
        """Train to the end whatever still goes on, and judge it."""
        while self.advance():
            pass
        failed = self.failures()
        results = [] if self.broken is not None else self.trainer.results()
        failed |= self.failures()  # its predictions may become infinite only now
        seconds = (time.perf_counter() - self._started) / len(self.stack)
        told = [Trained(t.id, failed.get(t.id), curve=self.curves[t.id], seconds=seconds) for t in self.stack]
        for trained, result in zip(told, results, strict=False):
            if isinstance(result, Result):
                trained.rows = {subset: rows[checkpoint] for subset, rows in result.cells.items()}
        return told


def _load(training: Training) -> Data:
    """The training's data set, kept with the others of the search."""
    key = training.dataset.spec.fingerprint
    if key not in _data:
        _data[key] = DATASETS.get(training.dataset.name)(training.dataset.config).load()
    return _data[key]
