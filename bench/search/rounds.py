"""A round of trials: made into trainings, dealt to the slots in stacks, judged as they go, and brought to values.

What a stack holds depends on the round and on `stack` alone, never on the slots, so that a seed reproduces a search
on any number of them.
"""

import json
import queue
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from bench.grid.plan import MethodChoice, Training, trainings_of
from bench.grid.problems import check, show
from bench.grid.settings import TrainSettings
from bench.scheduling.stacks import stack_key
from bench.search.executor import ShareExecutor
from bench.search.objective import Objective
from bench.search.search import Search
from bench.search.space import split_values
from bench.search.study import Asked, Told
from bench.search.worker import Trained
from methods.registry import METHODS

START_S = 300.0
"""How long a worker may take, besides, until its first sign of life: it imports, and loads the data."""

Look = Callable[[int, Mapping[int, float]], list[int]]
"""What judges trials by their values so far: (step, trial number -> value) -> the numbers of those that should stop."""


@dataclass
class Trial:
    """One trial on its way."""

    number: int
    params: Mapping[str, Any]
    trainings: tuple[Training, ...] = ()
    failure: str | None = None
    pruned_at: int | None = None
    """The epoch, or with pruning by seeds the number of seeds, after which it was stopped."""
    steps: dict[int, float] = field(default_factory=dict)

    @property
    def is_going(self) -> bool:
        return self.failure is None and self.pruned_at is None


def make_trial(search: Search, method: MethodChoice, number: int, params: Mapping[str, Any]) -> Trial:
    """The trainings of a trial, with the identities a grid would give them; a configuration that is none has failed."""
    own, train = split_values(params)
    trainings: list[Training] = []
    try:
        choice = configured(method, own)
        for dataset in search.datasets:
            if why := METHODS.get(method.name).refuses(dataset.spec, choice.config):
                return Trial(number, params, failure=f"{dataset.label}: {why}")
            values = search.grid.train.values_for(dataset.name, dataset.label)
            settings = check(TrainSettings, {**{name: tried[0] for name, tried in values.items()}, **train})
            found = {subset for objective in search.objectives for subset in objective.subsets(dataset)}
            conditions = tuple(sorted(found, key=lambda subset: (subset.count("+"), subset)))
            trainings += trainings_of(search.grid, choice, dataset, settings, conditions)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the combination"
        return Trial(number, params, failure=f"{where}: {first['msg']}, got {show(first.get('input'))}")
    return Trial(number, params, tuple(trainings))


def configured(method: MethodChoice, values: Mapping[str, Any]) -> MethodChoice:
    """The method with some hyper-parameters changed.

    Raises:
        ValidationError: its Config refuses them.
    """
    config = check(type(method.config), {**method.config.model_dump(mode="json"), **values})
    key = json.dumps({"name": method.name, "config": config.model_dump(mode="json")}, sort_keys=True)
    return MethodChoice(method.name, method.label, method.variant, config, key)


def make_stacks(trainings: Iterable[Training], size: int) -> list[list[Training]]:
    """Trainings in stacks of at most `size`, those that cannot share one alone; in a fixed order, the longest first."""
    alike: dict[Any, list[Training]] = {}
    stacks: list[list[Training]] = []
    for training in trainings:
        key = stack_key(training)
        if key is None:
            stacks.append([training])
        else:
            alike.setdefault(key, []).append(training)
    for group in alike.values():
        n = -(-len(group) // size)
        share = -(-len(group) // n)  # of equal size, so that no slot gets a crumb
        stacks += [group[i : i + share] for i in range(0, len(group), share)]
    return sorted(stacks, key=_work, reverse=True)


def _work(stack: Sequence[Training]) -> float:
    """What a stack costs, in steps of one training."""
    training = stack[0]
    steps = training.dataset.spec.sizes["train"] / training.settings.batch_size
    return len(stack) * steps * training.settings.epochs


def deal(stacks: Sequence[list[Training]], n_slots: int) -> list[list[list[Training]]]:
    """Stacks as one share for each slot, of about equal work."""
    shares: list[list[list[Training]]] = [[] for _ in range(n_slots)]
    load = [0.0] * n_slots
    for stack in stacks:
        slot = load.index(min(load))
        shares[slot].append(stack)
        load[slot] += _work(stack)
    return [share for share in shares if share]


class Rounds:
    """Trains rounds of trials on the slots of an executor."""

    def __init__(
        self, search: Search, executor: ShareExecutor, tick: Callable[[float], None] = lambda share: None
    ) -> None:
        """Args:
        search: what is searched.
        executor: its slots.
        tick: called several times a second with the share of the round that is done.
        """
        self.search, self.executor, self.tick = search, executor, tick
        self._busy: dict[int, list[list[Training]]] = {}
        self._heard: dict[int, float] = {}
        self._done: dict[int, float] = {}
        """Slot -> share of its work that is done."""
        self._trained: dict[str, Trained] = {}
        self.curves: dict[int, list[float]] = {}
        """Trial number -> the first objective after each epoch, of the last round."""
        self._again: list[Training] = []
        """Trainings whose worker died with others: they are tried alone."""

    def train(self, method: MethodChoice, asked: Sequence[Asked], look: Look) -> dict[int, Told]:
        """Train a round to its end.

        Returns:
            How each trial ended, by number.
        """
        started = time.monotonic()
        trials = [make_trial(self.search, method, one.number, one.params) for one in asked]
        self._trained = {}
        if self.search.pruner.by_seed:
            for step, seed in enumerate(self.search.grid.seeds):
                self._leg(trials, {seed}, None)
                self._judge_seed(trials, step, look)
        else:
            self._leg(trials, set(self.search.grid.seeds), look if self.search.pruner.by_epoch else None)
        seconds = (time.monotonic() - started) / max(len(trials), 1)
        self.curves = {trial.number: self._curve(trial) for trial in trials}
        return {trial.number: self._told(trial, seconds) for trial in trials}

    def _leg(self, trials: Sequence[Trial], seeds: Container[int], look: Look | None) -> None:
        """Train some seeds of the trials that are still going, then alone the trainings whose worker died."""
        wanted = {t.id: t for trial in trials if trial.is_going for t in trial.trainings if t.seed in seeds}
        stacks = make_stacks(wanted.values(), self.search.stack)
        self._again = []
        n_slots = len(self.executor.devices)
        self._work_off(deal(stacks, n_slots) if look else [[stack] for stack in stacks], trials, look)
        again, self._again = self._again, []
        self._work_off([[[training]] for training in again], trials, None)
        self._fail(trials)

    # ---- shares on slots -------------------------------------------------------------------------------------

    def _work_off(self, shares: Sequence[list[list[Training]]], trials: Sequence[Trial], look: Look | None) -> None:
        """Give shares to slots until all have ended; with `look`, all at once and in step."""
        waiting, free = deque(shares), deque(range(len(self.executor.devices)))
        total = sum(_work(stack) for share in shares for stack in share) or 1.0
        step = _Barrier(trials, look, self.executor, self.search.objectives[0]) if look and shares else None
        ended = 0.0
        while waiting or self._busy:
            while waiting and free:
                slot, share = free.popleft(), waiting.popleft()
                self._busy[slot], self._done[slot] = share, 0.0
                self._heard[slot] = time.monotonic() + START_S
                if step:
                    step.joins(slot)
                every = self.search.pruner.every if step else 0
                self.executor.train(slot, share, self.search.objectives[0], self.search.grid.checkpoint, every)
            for event in self._events():
                slot = event["slot"]
                self._heard[slot] = time.monotonic()
                if slot not in self._busy:
                    continue
                if "look" in event and step:
                    step.hears(slot, event)
                self._done[slot] = event.get("done", self._done[slot])
                if "outcomes" in event or "died" in event:
                    share = self._busy.pop(slot)
                    ended += sum(map(_work, share))
                    self._take(slot, share, event)
                    free.append(slot)
                    if step:
                        step.leaves(slot, {t.id for stack in share for t in stack} if "died" in event else set())
            self._give_up_silent()
            working = sum(self._done[slot] * sum(map(_work, share)) for slot, share in self._busy.items())
            self.tick((ended + working) / total)

    def _events(self) -> list[dict[str, Any]]:
        found = []
        try:
            found.append(self.executor.inbox.get(timeout=0.1))
            while True:
                found.append(self.executor.inbox.get_nowait())
        except queue.Empty:
            return found

    def _take(self, slot: int, share: Sequence[list[Training]], event: Mapping[str, Any]) -> None:
        """What a share came to; the trainings of one whose worker died are tried alone, once."""
        if "outcomes" in event:
            self._trained |= {trained.training_id: trained for trained in event["outcomes"]}
            return
        self.executor.renew(slot)
        trainings = [training for stack in share for training in stack]
        if len(trainings) > 1:
            self._again += trainings
        else:
            self._trained[trainings[0].id] = Trained(trainings[0].id, event["died"])

    def _give_up_silent(self) -> None:
        """Count workers that made no step for too long as dead."""
        patience = self.search.grid.executor.silence_s
        for slot in self._busy:
            if time.monotonic() - self._heard[slot] > patience:
                self._heard[slot] = time.monotonic()
                self.executor.inbox.put({"slot": slot, "died": f"it made no step for {patience:g} s, and was killed"})

    # ---- judging ---------------------------------------------------------------------------------------------

    def _fail(self, trials: Sequence[Trial]) -> None:
        """A trial with a training that failed has failed."""
        for trial in trials:
            if trial.is_going:
                trial.failure = next(
                    (why for t in trial.trainings if t.id in self._trained and (why := self._trained[t.id].failure)),
                    None,
                )

    def _judge_seed(self, trials: Sequence[Trial], step: int, look: Look) -> None:
        """After a seed: report its value alone, as trials are compared seed by seed."""
        objective, seed = self.search.objectives[0], self.search.grid.seeds[step]
        values = {}
        for trial in trials:
            if trial.is_going:
                own = [training for training in trial.trainings if training.seed == seed]
                values[trial.number] = objective.of_trial((t, self._value(t)) for t in own)
                trial.steps[step] = values[trial.number]
        is_last = step == len(self.search.grid.seeds) - 1
        stop = set(look(step, values))
        for trial in trials:
            if trial.number in stop and not is_last:
                trial.pruned_at = step + 1

    def _value(self, training: Training) -> float:
        objective = self.search.objectives[0]
        return objective.of_training(objective.subsets(training.dataset), self._trained[training.id].rows)

    def _told(self, trial: Trial, seconds: float) -> Told:
        attrs: dict[str, Any] = {"seconds": round(seconds, 3)}
        if trial.failure is not None:
            return Told("failed", attrs=attrs | {"reason": trial.failure}, steps=trial.steps)
        if trial.pruned_at is not None:
            return Told("pruned", attrs=attrs | {"stopped_after": trial.pruned_at}, steps=trial.steps)
        try:
            values = tuple(
                objective.of_trial(
                    (t, objective.of_training(objective.subsets(t.dataset), self._trained[t.id].rows))
                    for t in trial.trainings
                )
                for objective in self.search.objectives
            )
        except KeyError as missing:  # a metric that a subset did not give
            return Told("failed", attrs=attrs | {"reason": f"no value for {missing}"}, steps=trial.steps)
        if not all(abs(value) < float("inf") for value in values):
            return Told("failed", attrs=attrs | {"reason": "the objective is not finite"}, steps=trial.steps)
        return Told("complete", values, attrs, trial.steps)

    def _curve(self, trial: Trial) -> list[float]:
        """The first objective of a trial after each epoch that all its trainings have seen."""
        own = [(t, self._trained[t.id].curve) for t in trial.trainings if t.id in self._trained]
        n = min((len(curve) for _, curve in own), default=0)
        return [self.search.objectives[0].of_trial((t, curve[epoch]) for t, curve in own) for epoch in range(n)]


class _Barrier:
    """Keeps the shares of a round in step: nobody goes on before all have come to an epoch and trials were judged."""

    def __init__(self, trials: Sequence[Trial], look: Look, executor: ShareExecutor, objective: Objective) -> None:
        self.trials, self.look, self.executor, self.objective = trials, look, executor, objective
        self.values: dict[str, float] = {}
        """Training id -> its last value."""
        self.failed: dict[str, str] = {}
        self.lost: set[str] = set()
        """Trainings whose worker died: their trials are judged no more in this round."""
        self._here: dict[int, int | None] = {}
        """Slot -> the epoch it has come to and waits at."""

    def joins(self, slot: int) -> None:
        self._here[slot] = None

    def leaves(self, slot: int, lost: set[str]) -> None:
        """A share has ended, or died with its trainings."""
        del self._here[slot]
        self.lost |= lost
        self._judge()

    def hears(self, slot: int, event: Mapping[str, Any]) -> None:
        self.values |= dict(event.get("values", ()))
        if "failed" in event:
            id_, why = event["failed"]
            self.failed[id_] = why
        if event.get("whole"):
            self._here[slot] = event["look"]
            self._judge()

    def _judge(self) -> None:
        """Once everybody waits at one epoch: report, prune, and let them go on."""
        epochs = set(self._here.values())
        if not epochs or None in epochs:
            return
        step = max(epoch for epoch in epochs if epoch is not None)
        values = {}
        for trial in self.trials:
            own = [training.id for training in trial.trainings]
            trial.failure = trial.failure or next((self.failed[id_] for id_ in own if id_ in self.failed), None)
            if trial.is_going and not self.lost.intersection(own) and all(id_ in self.values for id_ in own):
                trial.steps[step] = values[trial.number] = self._value(trial)
        stop = set(self.look(step, values))
        for trial in self.trials:
            if trial.number in stop and trial.is_going:
                trial.pruned_at = step
        kept = {t.id for trial in self.trials if trial.is_going for t in trial.trainings}
        gone = sorted({t.id for trial in self.trials for t in trial.trainings} - kept)
        for slot in self._here:
            self._here[slot] = None
            self.executor.answer(slot, gone)

    def _value(self, trial: Trial) -> float:
        return self.objective.of_trial((t, self.values[t.id]) for t in trial.trainings)
