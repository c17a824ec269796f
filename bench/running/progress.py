"""What a person sees while a grid runs: live bars on a terminal, plain lines elsewhere. Everything goes to stderr."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.grid.plan import Training
from bench.spool import Outcome

if TYPE_CHECKING:
    from bench.scheduling.schedule import Schedule

PLAIN_EVERY_S = 10.0
"""How often the plain display says how far it is."""


class Clock:
    """How long a run has taken, and by its schedule how long the rest will take."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._schedule: Schedule | None = None

    def follow(self, schedule: "Schedule") -> None:
        """Ask this schedule from now on."""
        self._schedule = schedule

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def left_s(self) -> float | None:
        """Seconds to the end if all goes on as before; None before there is anything to judge by."""
        return None if self._schedule is None else self._schedule.left_s(time.monotonic())


def seconds(value: float | None) -> str:
    """`3 s`, `2 min 05 s`, `1 h 04 min`; `?` when unknown."""
    if value is None:
        return "?"
    whole = round(value)
    if whole < 100:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def name_of(training: Training) -> str:
    """A training in a few words."""
    return (
        f"{training.method.label} on {training.dataset.label}, "
        f"{training.label_ratio:.4g} labelled, seed {training.seed}"
    )


def name_of_stack(stack: Sequence[Training]) -> str:
    """A stack in a few words: a training, or how many of what."""
    if len(stack) == 1:
        return name_of(stack[0])
    return f"{len(stack)} of {stack[0].method.label} on {stack[0].dataset.label}"


def score_of(training: Training, row: Mapping[str, float]) -> str:
    """The full set's primary validation metric of an epoch."""
    metric = training.dataset.spec.task.primary
    value = row.get(f"valid/{metric}")
    return f"{metric} {value:.3f}" if value is not None else ""


class PlainDisplay:
    """Lines for logs and pipes: failures at once, progress every ten seconds."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.n_all = self.n_done = self.n_failed = 0
        self._next = 0.0
        self._waiting: str | None = None

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def start(self, pending: list[Training], n_done: int, n_slots: int) -> None:
        self.n_all, self.n_done = len(pending) + n_done, n_done
        self._next = time.monotonic() + PLAIN_EVERY_S
        done = f", {n_done} already done" if n_done else ""
        self._print(f"{self.n_all} trainings{done}; {n_slots} slot{'s' * (n_slots > 1)}.")

    def note(self, text: str) -> None:
        self._print(text)

    def began(self, slot: int, stack: list[Training]) -> None:
        """A log needs no line for it."""

    def epoch(self, slot: int, training: Training, epoch: int, row: Mapping[str, float]) -> None:
        """A log needs no line for it."""

    def ended(self, slot: int, training: Training, outcome: Outcome) -> None:
        self.n_done += 1
        if outcome["status"] == "failed":
            self.n_failed += 1
            self._print(f"FAILED {name_of(training)}: {outcome['reason']}")

    def halved(self, slot: int, stack: list[Training]) -> None:
        """The note says it."""

    def dropped(self, training: Training) -> None:
        self.n_done += 1

    def tick(self, waiting: str | None) -> None:
        if waiting and waiting != self._waiting:
            self._print(f"waiting for the tracking store, training goes on: {waiting}")
        self._waiting = waiting
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_EVERY_S
            failed = f", {self.n_failed} failed" if self.n_failed else ""
            self._print(f"{self.n_done}/{self.n_all} trainings{failed}, about {seconds(self.clock.left_s)} left")

    def stop(self) -> None:
        """Nothing to put back."""


class LiveDisplay(PlainDisplay):
    """One bar for the grid and a line for each slot, redrawn in place."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]}"),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=8,
        )
        self._grid: Any = None
        self._slots: dict[int, Any] = {}

    def _print(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def start(self, pending: list[Training], n_done: int, n_slots: int) -> None:
        super().start(pending, n_done, n_slots)
        self._grid = self._bars.add_task("all trainings", total=self.n_all, completed=n_done, told="")
        self._slots = {i: self._bars.add_task(f"slot {i}", total=1, told="starting") for i in range(n_slots)}
        self._bars.start()

    def began(self, slot: int, stack: list[Training]) -> None:
        super().began(slot, stack)
        epochs = stack[0].settings.epochs
        if slot not in self._slots:  # one more worker on a GPU
            self._slots[slot] = self._bars.add_task(f"slot {slot}", total=1, told="")
        self._bars.reset(self._slots[slot], total=epochs, description=name_of_stack(stack), told=f"0/{epochs} epochs")

    def epoch(self, slot: int, training: Training, epoch: int, row: Mapping[str, float]) -> None:
        super().epoch(slot, training, epoch, row)
        told = f"{epoch}/{training.settings.epochs} epochs  {score_of(training, row)}"
        self._bars.update(self._slots[slot], completed=epoch, told=told)

    def ended(self, slot: int, training: Training, outcome: Outcome) -> None:
        super().ended(slot, training, outcome)
        self._bars.update(self._slots[slot], completed=training.settings.epochs, told=outcome["status"])

    def tick(self, waiting: str | None) -> None:
        if self._grid is None:
            return
        failed = f"  {self.n_failed} failed" if self.n_failed else ""
        store = "  waiting for the tracking store" if waiting else ""
        left = f"{seconds(self.clock.elapsed_s)}, about {seconds(self.clock.left_s)} left"
        self._bars.update(self._grid, completed=self.n_done, told=f"{self.n_done}/{self.n_all}  {left}{failed}{store}")

    def stop(self) -> None:
        self._bars.stop()


def make_display() -> PlainDisplay:
    """Live on a terminal, plain lines otherwise."""
    return LiveDisplay() if sys.stderr.isatty() else PlainDisplay()
