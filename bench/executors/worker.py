"""What runs in a worker process: one training at a time, on one thread, results to the spool, progress to a pipe.

The fork server imports this module once, so that a new worker has torch at hand.
"""

import contextlib
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from bench.arrays import Arrays, write_arrays
from bench.executors.forkserver import wake_when_parent_dies
from bench.grid.plan import Training
from bench.spool import Outcome, Spool
from bench.training.replica import TrainingFailed
from bench.training.trainer import Result, Trainer
from datasets.base import Data
from datasets.catalog import DATASETS
from datasets.errors import UserError

_PIPE_ATOMIC = 4000
"""A pipe write up to 4096 bytes is never mixed with another process's, nor cut by its death."""

SIGN_EVERY_S = 1.0
"""How often a worker says that it is alive, far more often than anybody waits for it."""

_slot = 0
_device = "cpu"
_capture = False
_progress: Connection | None = None
_data: dict[str, Data] = {}


def start(slot: int, device: str, capture: bool, progress: Connection) -> None:
    """Make this process a worker: one thread, deaf to Ctrl-C (the scheduler decides), gone when the scheduler is."""
    global _slot, _device, _capture, _progress
    _slot, _device, _capture, _progress = slot, device, capture, progress
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    wake_when_parent_dies()
    torch.set_num_threads(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def work(trainings: list[Training], records: list[dict[str, Any]], spool_folder: Path) -> list[Outcome]:
    """Train a stack, and put each outcome into the spool; a failure is an outcome too.

    Returns:
        The outcomes, with `spooled` False when the spool could not be written (a full disk).

    Raises:
        Exception: of a stack of several: parts of it may do better.
    """
    spool = Spool(spool_folder)
    made = train(trainings, records, _load, _device, tell, capture=_capture)
    return [keep(outcome, arrays, spool) for outcome, arrays in made]


def train(
    trainings: list[Training],
    records: list[dict[str, Any]],
    load: Callable[[Training], Data],
    device: str,
    tell: Callable[[dict[str, Any]], None],
    *,
    capture: bool = False,
) -> list[tuple[Outcome, Arrays]]:
    """Train a stack and tell how it goes, wherever the worker is; `capture` as `Trainer` takes it.

    Returns:
        Of each training the outcome, and the arrays that the grid keeps of it.

    Raises:
        Exception: of a stack of several, as `work`.
    """
    started = int(time.time() * 1000)
    try:
        results = _run(trainings, load(trainings[0]), device, tell, capture)
    except Exception as error:
        if len(trainings) > 1:
            raise
        results = [error]
    made: list[tuple[Outcome, Arrays]] = []
    for training, record, result in zip(trainings, records, results, strict=True):
        outcome = failed(result, device) if isinstance(result, Exception) else _finished(training, result)
        outcome = {"record": record, "started_ms": started, **outcome, "ended_ms": int(time.time() * 1000)}
        made.append((outcome, {} if isinstance(result, Exception) else result.arrays))
    return made


def _run(
    trainings: list[Training], data: Data, device: str, tell: Callable[[dict[str, Any]], None], capture: bool
) -> Sequence[Result | Exception]:
    signs = _Signs(tell)
    trainer = Trainer(trainings, data, device, signs, capture=capture)
    for training in trainings:
        tell({"training": training.id, "epoch": 0, "row": {}})
    return trainer.run(lambda training, epoch, row: tell({"training": training.id, "epoch": epoch, "row": row}))


class _Signs:
    """Tells, every second or so, that steps are being made."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self.tell, self.told_s = tell, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self.told_s > SIGN_EVERY_S:
            self.told_s = time.monotonic()
            self.tell({"alive": True})


def _finished(training: Training, result: Result) -> Outcome:
    return {
        "status": "finished",
        "curves": result.curves,
        "cells": result.cells,
        "best_epoch": result.best_epoch,
        "warning": result.warning,
        "cost": result.cost,
        "saved": sorted(training.save.words),
    }


def keep(outcome: Outcome, arrays: Arrays, spool: Spool) -> Outcome:
    """Put an outcome and its arrays into the spool; returns it with `spooled`, False on a full disk."""
    if outcome.get("saved"):
        try:
            write_arrays(spool.arrays(outcome["record"]["training_id"]), arrays)
        except OSError:  # costs the arrays, not the result; they are made another time
            outcome["saved"] = []
    outcome["spooled"] = True
    try:
        spool.put(outcome)
    except OSError:
        outcome["spooled"] = False
    return outcome


def failed(error: Exception, device: str) -> Outcome:
    """The outcome of a training that failed."""
    outcome: Outcome = {"status": "failed", "reason": reason_of(error, device)}
    if is_out_of_memory(error):
        outcome["out_of_memory"] = True
    if not isinstance(error, UserError):
        outcome["traceback"] = "".join(traceback.format_exception(error))
    return outcome


def is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def reason_of(error: BaseException, device: str = "its device") -> str:
    """Why a training failed, in one line."""
    if isinstance(error, TrainingFailed | UserError):
        return str(error)
    if is_out_of_memory(error):
        return f"out of memory on {device}: a smaller train.batch_size or fewer slots may help"
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _load(training: Training) -> Data:
    """The training's data set, kept for the next training on it."""
    key = training.dataset.spec.fingerprint
    if key not in _data:
        _data.clear()
        _data[key] = DATASETS.get(training.dataset.name)(training.dataset.config).load()
    return _data[key]


def tell(event: dict[str, Any]) -> None:
    """Send a progress event; one too long or without a reader is dropped, for it only feeds the display."""
    message = json.dumps({"slot": _slot, **event}).encode()
    if _progress is not None and len(message) < _PIPE_ATOMIC:
        with contextlib.suppress(OSError):
            _progress.send_bytes(message)
