"""From a plan to results: hand trainings to free slots, outcomes to the writer, and lose nothing on the way."""

import contextlib
import getpass
import queue
import socket
import tempfile
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from bench.executors.local import Event, LocalExecutor
from bench.grid.plan import Plan, Training
from bench.provenance import SESSIONS, git_tags, this_session
from bench.running.claims import Claims
from bench.running.progress import Clock, name_of_stack
from bench.running.writer import Writer
from bench.scheduling.cost_model import CostModel
from bench.scheduling.schedule import Schedule
from bench.scheduling.slots import slots_of
from bench.spool import Outcome, Spool
from bench.tracking import (
    Glance,
    Known,
    Reader,
    Store,
    TrackingError,
    check_store,
    record_of,
    sqlite_path,
    state_folder,
)
from bench.tracking.timings import timings
from datasets.errors import without_secrets

START_S = 300.0
"""How long a worker may take, besides, until its first sign of life: it imports, and loads the data."""
MAX_LOSSES = 3
"""How many machines may be lost under a training before it counts as failed."""
PEER_POLL_S = 1.0
"""How often a training claimed by another scheduler is asked for again."""


class Executor(Protocol):
    """Slots that take one stack each and put into `inbox` what happens.

    Events: `{"slot", "training", "epoch", "row"}` and `{"slot", "alive"}` while a stack runs; at its end
    `{"slot", "outcomes"}`, `{"slot", "died"}` with the reason, or `{"slot", "lost"}` where the machine is gone; and
    `{"slot", "ready"}` when a slot that was not ready can take a stack.
    """

    devices: list[str]
    inbox: "queue.SimpleQueue[Event]"

    def ready(self) -> list[int]: ...
    def submit(self, slot: int, trainings: list[Training], records: list[dict[str, Any]]) -> None: ...
    def renew(self, slot: int) -> bool: ...
    def close(self) -> None: ...


class Display(Protocol):
    """What shows a run to a person; every call returns at once."""

    clock: Clock

    def start(self, pending: list[Training], n_done: int, n_slots: int) -> None: ...
    def note(self, text: str) -> None: ...
    def began(self, slot: int, stack: list[Training]) -> None: ...
    def epoch(self, slot: int, training: Training, epoch: int, row: Mapping[str, float]) -> None: ...
    def ended(self, slot: int, training: Training, outcome: Outcome) -> None: ...
    def halved(self, slot: int, stack: list[Training]) -> None: ...
    def dropped(self, training: Training) -> None: ...
    def tick(self, waiting: str | None) -> None: ...
    def stop(self) -> None: ...


@dataclass
class Summary:
    """How a run ended."""

    n_trainings: int
    n_done_before: int = 0
    finished: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    """Trainings another scheduler finished."""
    failed: dict[str, tuple[Training, str]] = field(default_factory=dict)
    """Training id -> training and reason."""
    killed: list[Training] = field(default_factory=list)
    interrupted: bool = False
    saved: bool = True
    """False when outcomes wait in the spool for a store that did not answer."""
    why_unsaved: str = ""
    seconds: float = 0.0
    grid_run: str = ""

    @property
    def status(self) -> str:
        """MLflow's word for it."""
        return "KILLED" if self.interrupted else "FAILED" if self.failed else "FINISHED"


class Runner:
    """One `bench run`."""

    def __init__(self, plan: Plan, display: Display, *, fail_fast: bool = False) -> None:
        """Open the state folder; a store that is not a file, or not made yet, begins to open.

        Raises:
            UserError: the tracking store cannot be used, said before anything trains.
        """
        grid = plan.grid
        self.plan, self.display, self.fail_fast = plan, display, fail_fast
        self.trainings = {training.id: training for training in plan.trainings}
        check_store(grid.tracking.uri)
        folder = state_folder(grid.tracking.uri, grid.name)
        try:
            self.claims = Claims(folder)
        except OSError as error:
            raise TrackingError(f"the state folder {folder} cannot be written: {error.strerror}.") from error
        self.spool = Spool(folder)
        self._store_file = sqlite_path(grid.tracking.uri)
        self.summary = Summary(len(plan.trainings))
        self._started_ms = int(time.time() * 1000)
        self.writer = Writer(lambda: Store(grid.tracking.uri, grid.name), self._open_grid, self.spool)
        if self._store_file is None or self._store_is_new():
            self.writer.start()
        self.costs = CostModel()
        self.schedule = Schedule([], self.costs)
        self._store: Glance | Reader | None = None
        """What the store had when the run began; None where it is only being made."""
        self._pending: list[Training] = []
        self._elsewhere: list[Training] = []
        """Trainings that another scheduler works on."""
        self._busy: dict[int, list[Training]] = {}
        self._heard: dict[int, float] = {}
        """When a slot last gave a sign of life."""
        self._unspooled: dict[str, Outcome] = {}
        self._losses: Counter[str] = Counter()
        self._warned: set[str] = set()
        self._next_poll = 0.0

    def _open_grid(self, store: Store) -> str:
        grid, session = self.plan.grid, this_session()
        with self.claims:
            grid_run = store.open_grid(
                plan_digest(self.plan),
                {
                    "methods": ", ".join(sorted({t.method.label for t in self.plan.trainings})),
                    "datasets": ", ".join(sorted({t.dataset.label for t in self.plan.trainings})),
                    "checkpoint": grid.checkpoint,
                    "n_trainings": str(len(self.plan.trainings)),
                    "n_cells": str(self.plan.n_cells),
                    "mlflow.note.content": grid.description or f"`bench run` of the grid {grid.name}.",
                    "mlflow.user": getpass.getuser(),
                    "mlflow.source.name": f"bench run {grid.file}",
                    "mlflow.source.type": "LOCAL",
                    **git_tags(),
                },
                {
                    "grid.yaml": without_secrets(grid.source),
                    "grid.resolved.yaml": without_secrets(grid.to_yaml()),
                    "environment.json": session.text,
                },
                self._started_ms,
            )
        with tempfile.TemporaryDirectory() as folder:
            session.write(Path(folder))
            store.log_files(grid_run, Path(folder), SESSIONS)
        return grid_run

    def _record(self, training: Training) -> dict[str, Any]:
        """How a training is shown in MLflow, with what it is trained on."""
        record = record_of(training, self.plan.swept_settings)
        record["training_tags"]["session"] = this_session().id
        return record

    # ---- the run ------------------------------------------------------------------------------------------

    def run(self) -> Summary:
        """Train what is not finished; returns when all of it is finished, failed or stopped.

        Raises:
            TrackingError: the store stopped working; what was trained is in the spool.
        """
        started = time.monotonic()
        executor: Executor | None = None
        try:
            known, is_told = self._known()
            self._gather(known)
            if self._pending or not is_told:
                self.writer.start()
            if self._pending:
                executor = self._executor()
                self._loop(executor)
        except KeyboardInterrupt:
            self.summary.interrupted = True
        finally:
            if executor is not None:
                executor.close()
            self._close()
            self.summary.seconds = time.monotonic() - started
        if self.writer.problem is not None:
            raise TrackingError(f"{self.writer.problem} {self._kept()}")
        return self.summary

    def _kept(self) -> str:
        waiting = len(list(self.spool))
        return f"{waiting} finished results wait in {self.spool.folder}; run the same command again." if waiting else ""

    def _known(self) -> tuple[dict[str, Known], bool]:
        """What the store has, and whether it has been told that this grid is finished.

        A store that is only being made has nothing, and is not waited for; one in a file is read without MLflow.
        """
        if self._store_is_new():
            return {}, False
        if self._store_file is not None:
            self._store = glance = Glance(self._store_file, self.plan.grid.name)
            return glance.known(), glance.grid_is_finished(plan_digest(self.plan))
        self.writer.ready.wait()
        if self.writer.store is None or self.writer.problem is not None:
            raise self.writer.problem or TrackingError("the tracking store cannot be opened.")
        self._store = self.writer.store
        return self._store.known(), True

    def _store_is_new(self) -> bool:
        """True while nobody has made the store: it knows of nothing, and need not be waited for."""
        return self._store_file is not None and not self._store_file.exists()

    def _gather(self, known: Mapping[str, Known]) -> None:
        """Fill the queue with what is not finished; outcomes found in the spool go to the writer first."""
        self.spool.sweep(self.claims.elsewhere)
        replayed = {training_id for training_id in self.spool if self._replay(training_id)}
        without_arrays = 0
        for training in self.plan.trainings:
            seen = known.get(training.id)
            if training.id in replayed or (seen is not None and seen.has(training)):
                self.summary.n_done_before += 1
            else:
                without_arrays += seen is not None and seen.conditions.issuperset(training.conditions)
                self._pending.append(training)
        if without_arrays:
            self.display.note(
                f"{without_arrays} finished trainings are repeated for the arrays that 'save' asks for; "
                f"their results stay as they are."
            )
        if replayed:
            self.display.note(
                f"{len(replayed)} results of an earlier run were waiting on disk; they are being written."
            )
        if self.spool.damaged:
            self.display.note(
                f"warning: {len(self.spool.damaged)} results of an earlier run are damaged and were set aside "
                f"({self.spool.damaged[0]}); their trainings are repeated."
            )

    def _replay(self, training_id: str) -> bool:
        """Take a spooled outcome to the writer; True when it is a finished training with all its cells."""
        if not self.claims.take(training_id):
            return False  # its scheduler is alive and will write it
        outcome = self.spool.get(training_id)
        if outcome is None:
            self.claims.free(training_id)
            return False
        self.writer.finish(outcome)
        wanted = self.trainings.get(training_id)
        if wanted is None or outcome["status"] != "finished":
            return False
        return set(wanted.conditions) <= set(outcome["cells"]) and wanted.save.words <= set(outcome.get("saved", []))

    def _executor(self) -> Executor:
        settings, executor = self.plan.grid.executor, None
        if settings.kind == "ray":
            from bench.executors.ray import RayExecutor

            executor = RayExecutor(settings, len(self._pending), self.spool)
            devices, crowd = executor.devices, False
        else:
            devices, crowd = slots_of(settings, len(self._pending))
        self._recall()
        self.schedule = Schedule(devices, self.costs, stack=settings.stack, crowd=crowd)
        self.schedule.add(self._in_own_order())
        self.display.clock.follow(self.schedule)
        n_open = sum(map(self.schedule.is_open, range(len(devices))))
        self.display.start(self._pending, self.summary.n_done_before, n_open)
        self._pending = []
        folder = self.spool.folder.parent
        return executor or LocalExecutor(devices, folder, settings.timeout_s, capture=settings.capture)

    def _recall(self) -> None:
        """Learn from earlier runs what trainings take; a store that is only being made has nothing to tell."""
        if self._store is not None:
            with contextlib.suppress(TrackingError):  # nothing depends on it but the order
                self.costs.recall(timings(self._store), self.plan.trainings)

    def _in_own_order(self) -> list[Training]:
        """What is pending; machines that share but a server begin at different places, and meet when all is done."""
        if self._store_file is not None:
            return self._pending
        place = f"{socket.gethostname()}:{self.spool.folder.absolute()}"
        start = int(sha256(place.encode()).hexdigest()[:8], 16) % len(self._pending)
        return self._pending[start:] + self._pending[:start]

    def _loop(self, executor: Executor) -> None:
        free = deque(executor.ready())
        while len(self.schedule) or self._busy or self._elsewhere:
            self._ask_peers_again()
            self._fill(executor, free)
            for event in _events(executor.inbox, 0.2):
                self._handle(event, executor, free)
            self._kill_silent(executor, free)
            self._settle()
            self.display.tick(self.writer.waiting)
            if self.writer.problem is not None or (self.fail_fast and self.summary.failed):
                return

    def _fill(self, executor: Executor, free: deque[int]) -> None:
        """Give every free slot what the schedule has for it."""
        for slot in list(free):
            stack = self.schedule.next_stack(slot, time.monotonic(), self._take_on)
            if not stack:
                continue
            free.remove(slot)
            self._busy[slot] = stack
            records = [self._record(training) for training in stack]
            executor.submit(slot, stack, records)
            for record in records:
                self.writer.begin(record)
            self.display.began(slot, stack)
            self._heard[slot] = time.monotonic() + START_S

    def _take_on(self, training: Training) -> bool:
        """Claim a training; False when somebody else works on it or has finished it."""
        if not self.claims.take(training.id):
            self._elsewhere.append(training)
            return False
        if self._is_finished(training):
            self._drop(training)
            return False
        return True

    def _is_finished(self, training: Training) -> bool:
        """Whether another scheduler finished a training since this one listed what there is."""
        if self._store_is_new():
            return False
        self.writer.ready.wait()
        if self.writer.store is None or self.writer.waiting is not None:
            return False  # a store that does not answer keeps no slot waiting
        try:
            known = self.writer.store.known(training.id).get(training.id)
        except TrackingError:
            return False  # repeating it costs time, never a result: the writer keeps what is there
        return known is not None and known.has(training)

    def _drop(self, training: Training) -> None:
        self.claims.free(training.id)
        self.summary.elsewhere.append(training.id)
        self.display.dropped(training)

    def _ask_peers_again(self) -> None:
        """Every second or so, see which trainings of other schedulers are free again: finished, or orphaned."""
        if len(self.schedule) or not self._elsewhere or time.monotonic() < self._next_poll:
            return
        self._next_poll = time.monotonic() + PEER_POLL_S
        self.schedule.add(self._elsewhere)
        self._elsewhere = []

    def _handle(self, event: Event, executor: Executor, free: deque[int]) -> None:
        slot = event["slot"]
        self._heard[slot] = time.monotonic()
        if "ready" in event:
            free.append(slot)
            return
        if "alive" in event or slot not in self._busy:
            return  # a slot that is not busy was given up as silent
        if "row" in event:
            training = self.trainings[event["training"]]
            if training in self._busy.get(slot, []):
                self.schedule.progress(slot, event["epoch"] / training.settings.epochs, time.monotonic())
                self.display.epoch(slot, training, event["epoch"], event["row"])
            return
        ids = [training.id for training in self._busy[slot]]
        if event.get("of", ids) != ids:
            return  # the last words of a worker that was given up
        stack = self._busy.pop(slot)
        if "lost" in event:
            executor.renew(slot)
            self.schedule.ended(slot)
            self._after_loss(slot, stack, event["lost"])
            return
        if "died" in event:
            self._renew(executor, slot, free)
            self._after_death(slot, stack, event["died"], out_of_memory=event.get("out_of_memory", False))
            return
        free.append(slot)
        self.schedule.ended(slot, _seconds(event["outcomes"]))
        for training, outcome in zip(stack, event["outcomes"], strict=True):
            if outcome.pop("out_of_memory", False) and self.schedule.give_back(slot, [training], out_of_memory=True):
                self.spool.drop(training.id)
                self._tell_retry(slot, [training], outcome["reason"])
            else:
                self._take(slot, training, outcome)

    def _kill_silent(self, executor: Executor, free: deque[int]) -> None:
        """Give up the workers that hang: those that made no step for too long."""
        patience = self.plan.grid.executor.silence_s
        for slot in [slot for slot in self._busy if time.monotonic() - self._heard[slot] > patience]:
            stack = self._busy.pop(slot)
            self._renew(executor, slot, free)
            self._after_death(slot, stack, f"its worker hung: no step for executor.silence_s = {patience:g} s")

    def _renew(self, executor: Executor, slot: int, free: deque[int]) -> None:
        """Give a slot a new worker; one that cannot take a stack at once tells when it can."""
        self.schedule.ended(slot)
        if executor.renew(slot):
            free.append(slot)

    def _after_loss(self, slot: int, stack: list[Training], reason: str) -> None:
        """A stack lost its machine, which is not its own fault: it is tried again elsewhere, but not for ever."""
        again = []
        for training in stack:
            self._losses[training.id] += 1
            if self._losses[training.id] < MAX_LOSSES:
                again.append(training)
            else:
                why = f"{reason}, as {MAX_LOSSES - 1} before it"
                self._take(slot, training, self._death(training, why))
        if again:
            self.display.note(f"{name_of_stack(again)}: {reason}; tried again on another machine.")
            self.display.halved(slot, again)
            self.schedule.retry(again)

    def _after_death(self, slot: int, stack: list[Training], reason: str, *, out_of_memory: bool = False) -> None:
        """Take what was safe on disk; of the rest a stack is tried again in halves, a single training has failed."""
        left = []
        for training in stack:
            outcome = self.spool.get(training.id)
            if outcome is not None:
                self._take(slot, training, outcome)
            else:
                left.append(training)
        if left and self.schedule.give_back(slot, left, out_of_memory=out_of_memory):
            self._tell_retry(slot, left, reason)
        elif left:
            self._take(slot, left[0], self._death(left[0], reason))

    def _tell_retry(self, slot: int, left: list[Training], reason: str) -> None:
        how = "they are tried again in smaller stacks" if len(left) > 1 else "it is tried again with fewer beside it"
        self.display.note(f"{name_of_stack(left)}: {reason}; {how}.")
        self.display.halved(slot, left)

    def _take(self, slot: int, training: Training, outcome: Outcome) -> None:
        """Account for an outcome and hand it to the writer."""
        if not outcome.pop("spooled", True):
            self._unspooled[training.id] = outcome
        self._account(training, outcome)
        self.writer.finish(outcome)
        self.display.ended(slot, training, outcome)
        self._warn(training, outcome.get("warning"))

    def _warn(self, training: Training, warning: str | None) -> None:
        """Say once for each data set what trainings found odd: about the labels of a ratio, about their steps."""
        text = f"warning: {training.dataset.label}: {warning}"
        if warning and text not in self._warned:
            self._warned.add(text)
            self.display.note(text)

    def _death(self, training: Training, reason: str) -> Outcome:
        stamp = int(time.time() * 1000)
        return {
            "record": self._record(training),
            "status": "failed",
            "reason": reason,
            "ended_ms": stamp,
        }

    def _account(self, training: Training, outcome: Outcome) -> None:
        if outcome["status"] == "finished":
            self.summary.finished.append(training.id)
        else:
            self.summary.failed[training.id] = (training, outcome["reason"])

    def _settle(self) -> None:
        """Give back the claims of trainings the store has."""
        for training_id in _drain(self.writer.written):
            self.claims.free(training_id)
            self._unspooled.pop(training_id, None)

    # ---- the end ------------------------------------------------------------------------------------------

    def _close(self) -> None:
        """Mark what was cut short, let the writer finish, and keep on disk what it could not."""
        self.summary.killed = [training for stack in [*self._busy.values(), *self.schedule.parts] for training in stack]
        self.writer.kill([training.id for training in self.summary.killed])
        try:
            self.summary.saved = self.writer.close(self.summary.status, 1.5 if self.summary.interrupted else None)
        except KeyboardInterrupt:
            self.summary.saved, self.summary.interrupted = False, True
        self._settle()
        self.summary.why_unsaved = self.writer.waiting or ""
        self.summary.grid_run = self.writer.grid_run
        self.spool.sweep(self.claims.elsewhere)
        for outcome in self._unspooled.values():
            try:
                self.spool.put(outcome)
            except OSError:
                self.summary.saved = False


def plan_digest(plan: Plan) -> str:
    """Identity of what a grid asks for, whatever its file looks like and wherever it runs."""
    asked = [f"{training.id}:{','.join(training.conditions)}" for training in plan.trainings]
    return sha256("\n".join([plan.grid.name, plan.grid.checkpoint, *sorted(asked)]).encode()).hexdigest()[:16]


def _seconds(outcomes: list[Outcome]) -> float | None:
    """What a stack took to train and evaluate; None where none of it finished."""
    shares = [outcome["cost"]["wall_s"] for outcome in outcomes if outcome["status"] == "finished"]
    return len(outcomes) * float(shares[0]) if shares else None


def _events(inbox: "queue.SimpleQueue[Event]", timeout_s: float) -> list[Event]:
    """Whatever has arrived, waiting a little for the first."""
    try:
        first = inbox.get(timeout=timeout_s)
    except queue.Empty:
        return []
    return [first, *_drain(inbox)]


def _drain(source: "queue.SimpleQueue[Any]") -> list[Any]:
    items = []
    while True:
        try:
            items.append(source.get_nowait())
        except queue.Empty:
            return items
