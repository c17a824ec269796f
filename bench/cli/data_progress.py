"""A bar on the terminal for preparations that take longer than a moment; silent elsewhere. Goes to stderr."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

PATIENCE_S = 2.0


class PrepareBar:
    """A listener of `datasets.progress` that shows nothing for two seconds, then one bar a step."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._what: str | None = None
        self._started = False

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._since < PATIENCE_S:
            return
        if not self._started:
            self._bars.start()
            self._started = True
        if what != self._what:
            for task in self._bars.task_ids:
                self._bars.remove_task(task)
            self._bars.add_task(what, total=total)
            self._what = what
        self._bars.update(self._bars.task_ids[-1], completed=done, total=total)

    def __enter__(self) -> "PrepareBar":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._started:
            self._bars.stop()
