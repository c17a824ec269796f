"""Workers on a Ray cluster: one actor a slot, whose death, or whose node's, costs only its stack.

The scheduling process keeps all that `bench run` keeps on one machine: claims, spool, the one writer. A node needs
robult-bench and nothing else: data sets travel through Ray's object store, once a node, and outcomes and arrays come
back through it, to be spooled here before anybody counts them as finished. Ray is imported when this is first used.
"""

import asyncio
import logging
import os
import queue
import socket
import sys
import threading
import time
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.executors import worker
from bench.grid.grid import Executor
from bench.grid.plan import Training
from bench.spool import Outcome, Spool
from datasets.base import Data
from datasets.catalog import DATASETS
from datasets.errors import UserError

if TYPE_CHECKING:
    from bench.arrays import Arrays

Event = dict[str, Any]

CONNECT_S = 5.0
"""How long a cluster's head may take to answer before it counts as unreachable."""
POLL_S = 0.1
"""How often what the cluster has done is looked at."""
NEVER_S = 1e9


class ClusterError(UserError):
    """The cluster cannot be used; the message says why and what to do."""

    exit_code = 1


# ---- on the cluster ---------------------------------------------------------------------------------------


class Mailbox:
    """What workers tell while they train; lives beside the scheduler, so that it goes down with no other node."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    async def put(self, event: Event) -> None:
        self.events.put_nowait(event)

    async def take(self) -> list[Event]:
        """All there is, waiting for the first."""
        told = [await self.events.get()]
        while not self.events.empty():
            told.append(self.events.get_nowait())
        return told


class Worker:
    """One slot: a process on some node, with one CPU and its part of a GPU."""

    def __init__(self, slot: int, life: int, device: str, capture: bool, mailbox: Any, places: list[str]) -> None:
        """Become the worker of a slot.

        Args:
            slot: its number.
            life: how many workers it had before.
            device: what it trains on.
            capture: as `Trainer` takes it.
            mailbox: where it tells what it does.
            places: where the scheduling process looks for modules; a node that shares its disk finds a method of a
                user's own there.
        """
        import torch

        torch.set_num_threads(1)
        sys.path += [place for place in places if place not in sys.path and Path(place).is_dir()]
        self.mark = {"slot": slot, "life": life}
        self.device, self.capture, self.mailbox = device, capture, mailbox

    def ready(self) -> bool:
        """Answers once the process runs and has imported what it needs."""
        return True

    def work(
        self, trainings: list[Training], records: list[dict[str, Any]], data: Data
    ) -> "list[tuple[Outcome, Arrays]]":
        """Train a stack, see `bench.executors.worker.train`; `data` comes from the node's object store."""
        return worker.train(trainings, records, lambda _: data, self.device, self._tell, capture=self.capture)

    def _tell(self, event: Event) -> None:
        self.mailbox.put.remote(self.mark | event)


# ---- in the scheduling process ----------------------------------------------------------------------------


@dataclass
class _Call:
    """Something asked of a worker that has not answered yet."""

    slot: int
    life: int
    stack: list[Training] | None
    """None where it was asked whether it is ready."""
    until_s: float


class RayExecutor:
    """Slots on a Ray cluster; the same events as `bench.executors.local`.

    A slot is ready when its worker runs: at once where the cluster has room, else when a node joins.
    """

    def __init__(self, settings: Executor, n_trainings: int, spool: Spool) -> None:
        """Connect, and ask for a worker a slot.

        Raises:
            UserError: Ray is not installed.
            ClusterError: the cluster cannot be reached, or has nothing to train on.
        """
        self._quiet = ExitStack()
        # Ray tells the driver's stdout at length what becomes of nodes; `bench run` has nothing to say there.
        nowhere = self._quiet.enter_context(Path(os.devnull).open("w"))  # noqa: SIM115 (closed at the end)
        self._quiet.enter_context(redirect_stdout(nowhere))
        try:
            self._open(settings, n_trainings, spool)
        except BaseException:
            self._quiet.close()
            raise

    def _open(self, settings: Executor, n_trainings: int, spool: Spool) -> None:
        self.ray = connect(settings.address)
        self.spool, self.timeout_s, self.capture = spool, settings.timeout_s, settings.capture
        n_gpus, n_slots = self._size(settings)
        n_slots = min(n_slots, n_trainings)
        self.devices = ["cuda" if n_gpus else "cpu"] * n_slots
        self.gpus = _part_of_a_gpu(n_gpus, n_slots)
        self.inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._places = [str(Path(place or ".").absolute()) for place in sys.path]
        self._data: dict[str, Any] = {}
        """Fingerprint -> the data set in the object store."""
        self._lock = threading.Lock()
        self._calls: dict[Any, _Call] = {}
        self._lives = [0] * n_slots
        here = self.ray.get_runtime_context().get_node_id()
        beside = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=False)
        self._mailbox = self.ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=beside).remote()
        self._post = self._mailbox.take.remote()
        self._workers = [self._start(slot) for slot in range(n_slots)]
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="ray-events", daemon=True)
        self._thread.start()

    def _size(self, settings: Executor) -> tuple[int, int]:
        """GPUs that are to be used, and slots."""
        has = self.ray.cluster_resources()
        n_gpus = 0 if settings.devices == "cpu" else int(has.get("GPU", 0))
        n_slots = (n_gpus or int(has.get("CPU", 0))) if settings.slots == "auto" else int(settings.slots)
        if n_slots == 0:
            raise ClusterError("the Ray cluster has neither GPUs nor CPUs to train on: ray status says what it has.")
        return n_gpus, n_slots

    def _start(self, slot: int) -> Any:
        """A new worker for a slot; pending until the cluster has room."""
        options = {"num_cpus": 1, "num_gpus": self.gpus, "max_restarts": 0, "max_task_retries": 0}
        actor = self.ray.remote(Worker).options(**options)
        made = actor.remote(slot, self._lives[slot], self.devices[slot], self.capture, self._mailbox, self._places)
        with self._lock:
            self._calls[made.ready.remote()] = _Call(slot, self._lives[slot], None, NEVER_S)
        return made

    def ready(self) -> list[int]:
        """None: each tells when it is."""
        return []

    def submit(self, slot: int, trainings: list[Training], records: list[dict[str, Any]]) -> None:
        """Train a stack on a ready slot; its time-out is that of its trainings one after the other."""
        try:
            data = self._shipped(trainings[0])
        except Exception as error:  # a data set of the user's own may fail in any way
            told = [{"record": record, "ended_ms": int(time.time() * 1000)} for record in records]
            outcomes = [worker.keep(each | worker.failed(error, self.devices[slot]), {}, self.spool) for each in told]
            self.inbox.put({"slot": slot, "outcomes": outcomes})
            return
        limit = NEVER_S if self.timeout_s is None else time.monotonic() + self.timeout_s * len(trainings)
        with self._lock:
            ref = self._workers[slot].work.remote(trainings, records, data)
            self._calls[ref] = _Call(slot, self._lives[slot], trainings, limit)

    def _shipped(self, training: Training) -> Any:
        """The training's data set in the object store, from where each node copies it once."""
        key = training.dataset.spec.fingerprint
        if key not in self._data:
            self._data[key] = self.ray.put(DATASETS.get(training.dataset.name)(training.dataset.config).load())
        return self._data[key]

    def renew(self, slot: int) -> bool:
        """Replace a slot's worker; the new one tells when it is ready."""
        old = self._workers[slot]
        with self._lock:
            self._lives[slot] += 1
        self.ray.kill(old)
        self._workers[slot] = self._start(slot)
        return False

    def close(self) -> None:
        """Kill what still runs and leave the cluster."""
        self._closed.set()
        self._thread.join(2)
        for made in self._workers:
            self.ray.kill(made)
        self.ray.shutdown()
        self._quiet.close()

    # ---- what happens -------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Turn what the cluster says into events until the end."""
        while not self._closed.is_set():
            with self._lock:
                refs = [self._post, *self._calls]
            done, _ = self.ray.wait(refs, num_returns=len(refs), timeout=POLL_S, fetch_local=False)
            for ref in done:
                if self._closed.is_set():
                    return
                self._read_post() if ref == self._post else self._answered(ref)
            self._stop_late()

    def _read_post(self) -> None:
        events, self._post = self.ray.get(self._post), self._mailbox.take.remote()
        for event in events:
            if event.pop("life") == self._lives[event["slot"]]:
                self.inbox.put(event)

    def _answered(self, ref: Any) -> None:
        with self._lock:
            call = self._calls.pop(ref)
        event: Event = {"slot": call.slot}
        try:
            answer = self.ray.get(ref)
        except Exception as error:  # Ray's own, or one that the stack raised
            event |= cause_of_death(error, self.ray.exceptions)
        else:
            if call.stack is None:
                event["ready"] = True
            else:
                event["outcomes"] = [worker.keep(outcome, arrays, self.spool) for outcome, arrays in answer]
        if call.life != self._lives[call.slot]:
            return
        if call.stack is None and "ready" not in event:
            self.renew(call.slot)  # its node left before it began
            return
        self.inbox.put(event)

    def _stop_late(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [ref for ref, call in self._calls.items() if call.until_s < now]
            calls = [self._calls.pop(ref) for ref in late]
        for call in calls:
            why = f"took longer than executor.timeout_s = {self.timeout_s:g} s"
            self.inbox.put({"slot": call.slot, "died": why, "out_of_memory": False})


def cause_of_death(error: Exception, errors: Any) -> Event:
    """Whether a stack died of its own doing, or lost the machine under it.

    Args:
        error: what asking for its answer raised.
        errors: the module `ray.exceptions`.
    """
    if isinstance(error, errors.RayTaskError):
        cause = error.cause if isinstance(error.cause, Exception) else error
        return {"died": worker.reason_of(cause, "its GPU or node"), "out_of_memory": worker.is_out_of_memory(cause)}
    if isinstance(error, errors.OutOfMemoryError):
        return {"died": "out of memory: Ray killed its worker to save the node", "out_of_memory": True}
    text = str(error)  # of any death, that guesses at the system's out-of-memory killer among others
    lost = (errors.NodeDiedError, errors.ObjectLostError, errors.ActorUnavailableError, errors.LocalRayletDiedError)
    if isinstance(error, lost) or "node has died" in text or "node was terminated" in text:
        return {"lost": "its node left the cluster"}
    return {"died": "its worker process on the cluster was killed"}


def _part_of_a_gpu(n_gpus: int, n_slots: int) -> float:
    """What of a GPU a slot asks for, so that all find room: Ray counts in ten-thousandths."""
    if not n_gpus:
        return 0
    each = -(-n_slots // n_gpus)
    return 1.0 if each == 1 else int(10_000 / each) / 10_000


# ---- the cluster ------------------------------------------------------------------------------------------


def connect(address: str) -> Any:
    """The `ray` package, connected to the cluster at `address` and told to keep its voice down.

    Raises:
        UserError: Ray is not installed, or the address is of a kind that cannot work.
        ClusterError: nothing answers there, or it refuses.
    """
    for key, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_COLOR_PREFIX": "0",
    }.items():
        os.environ.setdefault(key, value)
    try:
        import ray
        import ray.util.scheduling_strategies
    except ModuleNotFoundError as error:
        raise UserError("executor.kind 'ray' needs Ray: pip install 'robult-bench[ray]'.") from error
    _check_address(address)
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except (ConnectionError, RuntimeError, OSError, ValueError) as error:
            text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            how = "start one with: ray start --head" if address == "auto" else "is it the HOST:PORT of its head?"
            raise ClusterError(
                f"no Ray cluster can be used at executor.address '{address}': {text}; {how} "
                f"(One with a token wants RAY_AUTH_MODE=token and its token here too.)"
            ) from error
    return ray


def _check_address(address: str) -> None:
    """Ask the head's port, for Ray itself tries for minutes."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise UserError(f"executor.address '{address}': write auto, local or HOST:PORT of the cluster's head.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at executor.address '{address}': {error.strerror or error}."
        ) from error
