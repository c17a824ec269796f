"""A method that allocates without end; used by import string."""

import resource
from pathlib import Path

import torch
from torch import Tensor

from datasets.batch import Batch
from methods.base import MethodConfig, hyper
from tests.bench.odd_methods import Linear

_CHUNK = 32 * 2**20


class GreedyConfig(MethodConfig):
    pause_s: float = hyper(0.0, source="test", ge=0, unit="s")
    room_mib: int = hyper(0, source="test", ge=0, unit="MiB; 0: what the system gives")


class Greedy(Linear):
    """Keeps all it can get, unless the file `enough` is in the working directory."""

    Config = GreedyConfig
    config: GreedyConfig  # type: ignore[assignment]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if not Path("enough").exists():
            if self.config.room_mib:
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                limit = pages * resource.getpagesize() + self.config.room_mib * 2**20
                resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
            kept = []
            while True:
                kept.append(torch.ones(_CHUNK // 4))
        return super().loss(batch)
