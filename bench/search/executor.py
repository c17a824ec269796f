"""Workers that can be answered: local slots with a pipe back to each."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.executors.local import LocalExecutor
from bench.grid.plan import Training
from bench.search import worker
from bench.search.objective import Objective


class ShareExecutor(LocalExecutor):
    """Slots that take a share of a round each; besides the events of any executor there are looks."""

    def __init__(self, devices: list[str], *, capture: bool = False) -> None:
        self._answers: dict[int, Connection] = {}
        super().__init__(devices, Path(), capture=capture)

    def start(self, slot: int) -> tuple[Callable[..., None], tuple[Any, ...]]:
        _, args = super().start(slot)
        hears, self._answers[slot] = multiprocessing.Pipe(duplex=False)
        return worker.start, (*args, hears)

    def train(
        self, slot: int, stacks: Sequence[list[Training]], objective: Objective, checkpoint: str, look_every: int
    ) -> None:
        """Give a share to a free slot; its event carries `bench.search.worker.Trained` as outcomes."""
        self.call(slot, worker.train_share, (stacks, objective, self.devices[slot], checkpoint, look_every))

    def answer(self, slot: int, gone: Sequence[str]) -> None:
        """Answer a slot's look with the ids of the trainings to let go; a worker that has died hears nothing."""
        try:
            self._answers[slot].send(list(gone))
        except OSError:
            return
