"""Searches that need no training: an executor whose trainings are a formula, and a search file to start from."""

import queue
from collections.abc import Sequence
from typing import Any

from bench.grid.plan import Training
from bench.search.objective import Objective
from bench.search.worker import Trained

TEXT = """
name: small
methods: [gmc]
datasets: ["synthetic": {n_train: 96, n_valid: 40, n_test: 40, n_modalities: 2, uniqueness: 1, synergy: 0}]
label_ratios: [0.5]
seeds: 2
train: {epochs: 4, batch_size: 32}
space: {gmc: {tau: {low: 0.05, high: 2.0, log: true, points: 3}}}
sampler: {kind: tpe, startup: 4}
budget: {trials: 8}
batch: 4
executor: {devices: cpu, slots: 2}
"""


def text(**changes: str) -> str:
    """The search file with some of its lines changed, or added."""
    lines = {line.partition(":")[0]: line for line in TEXT.strip().splitlines()}
    return "\n".join((lines | {key: f"{key}: {value}" for key, value in changes.items()}).values())


def value_of(training: Training, epoch: int) -> float:
    """Best at tau 0.4; grows by epochs; a little different for each seed."""
    tau = training.method.config.tau  # type: ignore[attr-defined]
    return 0.5 - abs(tau - 0.4) / 4 + 0.01 * epoch + 0.001 * training.seed


class FormulaExecutor:
    """Slots that train nothing: a training's value is `value_of`, some fail, some kill their worker."""

    def __init__(self, n_slots: int, *, fails: Sequence[float] = (), kills: Sequence[float] = ()) -> None:
        self.devices = ["cpu"] * n_slots
        self.inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.fails, self.kills = fails, kills
        self.stacks: list[list[Training]] = []
        self.renewed = 0
        self._going: dict[int, dict[str, Any]] = {}

    def train(
        self, slot: int, stacks: Sequence[list[Training]], objective: Objective, checkpoint: str, look_every: int
    ) -> None:
        self.stacks += stacks
        trainings = [training for stack in stacks for training in stack]
        if any(t.method.config.tau in self.kills for t in trainings):  # type: ignore[attr-defined]
            self.inbox.put({"slot": slot, "died": "its worker process was killed (signal 9)"})
            return
        self._going[slot] = {"trainings": trainings, "epoch": 0, "every": look_every, "gone": set()}
        self._on(slot)

    def answer(self, slot: int, gone: Sequence[str]) -> None:
        self._going[slot]["gone"] |= set(gone)
        self._on(slot)

    def renew(self, slot: int) -> None:
        self.renewed += 1

    def _on(self, slot: int) -> None:
        course = self._going[slot]
        epochs = max(training.settings.epochs for training in course["trainings"])
        left = [t for t in course["trainings"] if t.id not in course["gone"]]
        course["epoch"] += 1
        if course["every"] and course["epoch"] <= epochs and left:
            values = [(t.id, value_of(t, course["epoch"])) for t in left if not self._failure(t)]
            self.inbox.put({"slot": slot, "look": course["epoch"], "values": values})
            for training in left:
                if why := self._failure(training):
                    self.inbox.put({"slot": slot, "look": course["epoch"], "failed": [training.id, why]})
            self.inbox.put({"slot": slot, "look": course["epoch"], "whole": True})
            return
        self.inbox.put({"slot": slot, "outcomes": [self._trained(t, course["gone"]) for t in course["trainings"]]})

    def _failure(self, training: Training) -> str | None:
        tau = training.method.config.tau  # type: ignore[attr-defined]
        return "loss term 'sup' became nan in epoch 1" if tau in self.fails and training.seed == 1 else None

    def _trained(self, training: Training, gone: set[str]) -> Trained:
        if training.id in gone:
            return Trained(training.id)
        if why := self._failure(training):
            return Trained(training.id, why)
        epochs = training.settings.epochs
        rows = {subset: {"acc": value_of(training, epochs)} for subset in training.conditions}
        return Trained(training.id, None, rows, [value_of(training, epoch) for epoch in range(1, epochs + 1)], 0.1)
