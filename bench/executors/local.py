"""Worker processes on this machine: one a device slot, whose death costs only its training."""

import contextlib
import json
import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from bench.executors import worker
from bench.executors.forkserver import preload
from bench.grid.plan import Training
from bench.spool import Outcome

Event = dict[str, Any]

WATCH_S = 1.0
"""How often a pool is asked whether it still works."""


class LocalExecutor:
    """Slots that take one stack of trainings each and put what happens into `inbox`.

    Events: `{"slot", "training", "epoch", "row"}` while it runs, and `{"slot", "of", "outcomes"}` or
    `{"slot", "of", "died"}` at its end, where `of` are the ids of the stack. Every slot is a pool of its own, so that
    nothing is shared that a killed process could leave locked.
    """

    def __init__(
        self, devices: list[str], spool_folder: Path, timeout_s: float | None = None, *, capture: bool = False
    ) -> None:
        self.devices, self.spool_folder, self.timeout_s, self.capture = devices, spool_folder, timeout_s, capture
        self.inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._context = preload()
        self._reader, self._writer = multiprocessing.Pipe(duplex=False)
        threading.Thread(target=_pump, args=(self._reader, self.inbox), daemon=True).start()
        self._pools = [self._pool(slot) for slot in range(len(devices))]
        self._calls: dict[int, Future[Any]] = {}
        """What each slot was last given to do."""
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()
        self._lives = [0] * len(devices)
        """How often each slot was renewed: what an earlier life still has to say is nobody's any more."""

    def _pool(self, slot: int) -> ProcessPool:
        start, args = self.start(slot)
        return ProcessPool(max_workers=1, context=self._context, initializer=start, initargs=args)

    def start(self, slot: int) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """What makes a new process the worker of a slot."""
        return worker.start, (slot, self.devices[slot], self.capture, self._writer)

    def submit(self, slot: int, trainings: list[Training], records: list[dict[str, Any]]) -> None:
        """Train a stack on a free slot; its time-out is that of its trainings one after the other."""
        timeout = None if self.timeout_s is None else self.timeout_s * len(trainings)
        of = [training.id for training in trainings]
        self.call(slot, worker.work, (trainings, records, self.spool_folder), timeout, of)

    def call(
        self,
        slot: int,
        work: Callable[..., Any],
        args: tuple[Any, ...],
        timeout_s: float | None = None,
        of: Sequence[str] = (),
    ) -> None:
        """Let a free slot's worker do `work`; what it returns are the `outcomes` of the event at its end."""
        try:
            future: Future[Any] = self._pools[slot].schedule(work, args=args)
        except RuntimeError:  # the fork server died a moment ago: a new pool starts it anew
            self.renew(slot)
            try:
                future = self._pools[slot].schedule(work, args=args)
            except RuntimeError as error:
                future = Future()
                future.set_exception(error)
        self._calls[slot] = future
        future.add_done_callback(self._on_done(slot, self._lives[slot], of))
        if timeout_s is not None:
            self._limit(future, slot, timeout_s, of)

    def _watch(self) -> None:
        """End the calls that pebble forgets: those that a pool took in the moment its idle worker was found dead."""
        while not self._closed.wait(WATCH_S):
            for slot, future in list(self._calls.items()):
                if not future.done() and not self._pools[slot].active:
                    with contextlib.suppress(InvalidStateError):
                        future.set_exception(BrokenProcessPool())

    def _limit(self, future: "Future[Any]", slot: int, timeout_s: float, of: Sequence[str]) -> None:
        """Say that a call takes too long; pebble would go by the time of day, which jumps."""
        life = self._lives[slot]

        def expire() -> None:
            if not future.done() and life == self._lives[slot]:
                why = f"took longer than executor.timeout_s = {self.timeout_s:g} s"
                self.inbox.put({"slot": slot, "of": of, "died": why})

        timer = threading.Timer(timeout_s, expire)
        timer.daemon = True
        timer.start()
        future.add_done_callback(lambda _: timer.cancel())

    def _on_done(self, slot: int, life: int, of: Sequence[str]) -> Callable[["Future[list[Outcome]]"], None]:
        def tell(future: "Future[list[Outcome]]") -> None:
            if future.cancelled() or life != self._lives[slot]:
                return
            error = future.exception()
            event: Event = {"slot": slot, "of": of}
            if error is None:
                event["outcomes"] = future.result()
            else:
                event |= {"died": self._why(slot, error), "out_of_memory": worker.is_out_of_memory(error)}
            self.inbox.put(event)

        return tell

    def _why(self, slot: int, error: BaseException) -> str:
        if isinstance(error, ProcessExpired):
            code = error.exitcode or 0
            if code >= 0:
                return f"its worker exited with {code}"
            memory = "; the system does so when memory runs out" if code == -signal.SIGKILL else ""
            return f"its worker process was killed (signal {-code}){memory}"
        if isinstance(error, BrokenProcessPool):
            return "its worker process was killed before it began"
        return worker.reason_of(error, self.devices[slot])

    def ready(self) -> list[int]:
        """The slots that can take a stack from the start."""
        return list(range(len(self.devices)))

    def renew(self, slot: int) -> bool:
        """Give the slot a new pool after a death, which may have left the old one's locks held; it is ready at once."""
        self._lives[slot] += 1
        self._calls.pop(slot, None)
        old, self._pools[slot] = self._pools[slot], self._pool(slot)
        threading.Thread(target=_stop, args=(old,), daemon=True).start()
        return True

    def close(self) -> None:
        """Kill what still runs and end the workers."""
        self._closed.set()
        for pool in self._pools:
            pool.stop()  # type: ignore[no-untyped-call]
        for pool in self._pools:
            pool.join(timeout=5)


def _stop(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join(timeout=5)


def _pump(reader: Connection, inbox: "queue.SimpleQueue[Event]") -> None:
    """Move progress events from the workers' pipe into the inbox until the pipe is closed."""
    while True:
        try:
            inbox.put(json.loads(reader.recv_bytes()))
        except (EOFError, OSError):
            return
        except ValueError:
            continue
