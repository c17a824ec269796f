"""The ONE writer: a thread that opens the tracking store and takes everything to it, off the critical path.

While the store does not answer, outcomes wait in the spool and are tried again; the scheduler never waits for it.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.spool import Outcome, Spool
from bench.tracking import Store, StoreUnreachable, TrackingError

RETRY_S = 5.0
"""Pause before a store that did not answer is asked again."""

PATIENCE_S = 60.0
"""How long the end of a run waits for a store that does not answer; what is spooled then stays for the next start."""

Job = Callable[[Store], None]


class Writer:
    """Takes jobs in order, in a thread of its own; every public method returns at once unless it says otherwise."""

    def __init__(self, open_store: Callable[[], Store], open_grid: Callable[[Store], str], spool: Spool) -> None:
        """Nothing happens before `start`, or before there is something to do.

        Args:
            open_store: makes the store, in the writer's thread (importing MLflow takes a second or two).
            open_grid: finds or makes the grid's run.
            spool: where outcomes wait.
        """
        self._spool = spool
        self._open_store, self._open_grid = open_store, open_grid
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._runs: dict[str, str] = {}
        """Training id -> its run, for trainings begun by this process and not yet written."""
        self.ready = threading.Event()
        self.store: Store | None = None
        self.grid_run = ""
        self.problem: TrackingError | None = None
        """Why the store cannot be used at all; set before `ready`."""
        self.waiting: str | None = None
        """Why the store is being waited for; None while it answers."""
        self.written: queue.SimpleQueue[str] = queue.SimpleQueue()
        """Ids of trainings whose outcomes the store has."""
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking-writer", daemon=True)

    # ---- called by the scheduler --------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to open the store; a second call does nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def begin(self, record: Mapping[str, Any]) -> None:
        """Show a training as running."""
        training_id, started_ms = record["training_id"], int(time.time() * 1000)

        def job(store: Store) -> None:
            run, fresh = store.begin(record, self.grid_run, started_ms)
            if fresh:
                self._runs[training_id] = run

        self.put(job)

    def finish(self, outcome: Outcome) -> None:
        """Take an outcome to the store, then remove it from the spool."""
        training_id = outcome["record"]["training_id"]

        def job(store: Store) -> None:
            run = self._runs.pop(training_id, None)  # gone at a second attempt: then what is there is looked up
            run = store.write(outcome, self.grid_run, run, fresh=run is not None)
            store.keep_arrays(run, self._spool.arrays(training_id), outcome.get("saved", []))
            store.settle(training_id)
            self._spool.drop(training_id)
            self.written.put(training_id)

        self.put(job)

    def put(self, job: Job) -> None:
        """Do something else with the store when its turn comes; it is repeated while the store is away."""
        self.start()
        self._jobs.put(job)

    def kill(self, training_ids: list[str]) -> None:
        """Mark trainings that were cut short."""
        if training_ids:
            self.put(lambda store: store.kill([self._runs.pop(i) for i in training_ids if i in self._runs]))

    def close(self, status: str, timeout_s: float | None = None) -> bool:
        """Finish the jobs, set the grid run's status and end the thread; waits.

        Args:
            status: MLflow status of the grid run.
            timeout_s: give up after this long; by default only after `PATIENCE_S` without an answer.

        Returns:
            False when the store does not have everything; what is spooled is written at the next start.
        """
        if self._thread.ident is None:
            return True  # there was nothing to write
        self._jobs.put(lambda store: store.close_run(self.grid_run, status))
        self._jobs.put(None)
        unanswered = 0.0
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._thread.is_alive() and unanswered < PATIENCE_S:
            if deadline is not None and time.monotonic() > deadline:
                break
            self._thread.join(0.1)
            unanswered = 0.0 if self.waiting is None else unanswered + 0.1
        self._abandoned.set()
        return not self._thread.is_alive() and self.problem is None

    # ---- the thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        if not self._open():
            return
        while (job := self._jobs.get()) is not None:
            if not self._do(job):
                return

    def _open(self) -> bool:
        try:
            self.store = self._open_store()
            self.grid_run = self._open_grid(self.store)
        except Exception as error:
            self.problem = _as_problem(error)
        self.ready.set()
        return self.problem is None

    def _do(self, job: Job) -> bool:
        """Do a job, again and again while the store is away; False when nothing more can be done."""
        assert self.store is not None
        while not self._abandoned.is_set():
            try:
                job(self.store)
            except StoreUnreachable as error:
                self.waiting = str(error)
                self._abandoned.wait(RETRY_S)
            except Exception as error:
                self.problem = _as_problem(error)
                return False
            else:
                self.waiting = None
                return True
        return False


def _as_problem(error: Exception) -> TrackingError:
    if isinstance(error, TrackingError):
        return error
    return TrackingError(f"the tracking store failed: {type(error).__name__}: {error}")
