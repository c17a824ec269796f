"""What a person sees while a search runs: one bar on a terminal, plain lines elsewhere. Everything goes to stderr."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from bench.running.progress import PLAIN_EVERY_S, seconds
from bench.search.study import TrialRow


class PlainDisplay:
    """Lines for logs and pipes: better trials and failures at once, progress every ten seconds."""

    def __init__(self) -> None:
        self.title = ""
        self.n_all = self.n_before = self.n_done = self.n_of_round = 0
        self.n_failed = self.n_pruned = 0
        self.best: TrialRow | None = None
        self.share = 0.0
        self._began = self._next = time.monotonic()

    def print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def start(self, title: str, n_before: int, n_all: int, n_slots: int) -> None:
        """A study begins, or goes on."""
        self.title, self.n_all, self.n_before, self.n_done = title, n_all, n_before, n_before
        self.n_failed = self.n_pruned = 0
        self.best, self.share = None, 0.0
        self._began = time.monotonic()
        self._next = self._began + PLAIN_EVERY_S
        done = f", {n_before} already done" if n_before else ""
        self.print(f"{title}: {n_all} trials{done}; {n_slots} slot{'s' * (n_slots > 1)}.")

    def round(self, n_trials: int) -> None:
        self.n_of_round, self.share = n_trials, 0.0

    def tick(self, share: float) -> None:
        """So much of the round is done."""
        self.share = max(self.share, min(share, 1.0))
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_EVERY_S
            self.print(self._state())

    def _state(self) -> str:
        return f"{self.title}: {self.n_done}/{self.n_all} trials{self._counts()}, about {seconds(self.left_s)} left"

    def _counts(self) -> str:
        counts = f", {self.n_pruned} pruned" if self.n_pruned else ""
        counts += f", {self.n_failed} failed" if self.n_failed else ""
        return counts + (f", best {self.best.values[0]:.4f}" if self.best and self.best.values else "")

    def ended(self, row: TrialRow, best: TrialRow | None) -> None:
        """A trial has ended; `best` is the best so far, None with several objectives."""
        self.n_done += 1
        self.share = 0.0
        if row.state == "failed":
            self.n_failed += 1
            self.print(f"trial {row.number} FAILED ({shown(row.params)}): {row.attrs.get('reason', 'no reason given')}")
        self.n_pruned += row.state == "pruned"
        if best is not None and best.number == row.number and best.values is not None:
            self.best = best
            self.print(f"trial {row.number} is the best so far: {best.values[0]:.4f} with {shown(row.params)}")

    @property
    def left_s(self) -> float | None:
        """Seconds to the end if trials go on taking what they took here; None before there is anything to judge by."""
        done = self.n_done - self.n_before + self.share * self.n_of_round
        if done < 0.2:
            return None
        left = self.n_all - self.n_before - done
        return max(left, 0.0) * (time.monotonic() - self._began) / done

    def stop(self) -> None:
        """Nothing to put back."""


class LiveDisplay(PlainDisplay):
    """One bar, redrawn in place."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[told]}")
        self._bars = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=8)
        self._task: Any = None

    def print(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def start(self, title: str, n_before: int, n_all: int, n_slots: int) -> None:
        super().start(title, n_before, n_all, n_slots)
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(title, total=n_all, completed=n_before, told="starting")
        self._bars.start()

    def tick(self, share: float) -> None:
        self.share = max(self.share, min(share, 1.0))
        done = self.n_done + self.share * self.n_of_round
        told = f"{self.n_done}/{self.n_all}{self._counts()}  about {seconds(self.left_s)} left"
        self._bars.update(self._task, completed=done, told=told)

    def stop(self) -> None:
        self._bars.stop()


def make_display() -> PlainDisplay:
    """A bar on a terminal, plain lines otherwise."""
    return LiveDisplay() if sys.stderr.isatty() else PlainDisplay()


def shown(params: Mapping[str, Any]) -> str:
    """`tau=0.31, rbf=cos_fixed`."""
    return ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items()) or "defaults"
