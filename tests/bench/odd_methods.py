"""Methods that misbehave on purpose, for the runner's tests; used by import string."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datasets.batch import Batch
from methods.base import Method, MethodConfig, hyper


class OddConfig(MethodConfig):
    pause_s: float = hyper(0.0, source="test", ge=0, unit="s")
    seed_that_fails: float = hyper(-1.0, source="test")


class Linear(Method):
    """A linear model on everything there is; `pause_s` slows each step down until the file `hurry` is there."""

    name = "linear"
    title = "Linear"
    paper = "none"
    Config: type[MethodConfig] = OddConfig

    config: OddConfig

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.layer = nn.Linear(sum(shape[0] for shape in self.shapes.values()), self.task.width)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if not Path("hurry").exists():
            time.sleep(self.config.pause_s)
        return {"sup": self.task.loss(self.predict(batch), batch.target, batch.labelled)}

    def predict(self, batch: Batch) -> Tensor:
        return self.layer(torch.cat(list(batch.inputs.values()), dim=1))

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        return {}


class Diverging(Linear):
    """Its loss is NaN from the start."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"sup": super().loss(batch)["sup"] * float("nan")}


class Raising(Linear):
    """A bug in a method of a user's own."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raise RuntimeError("shapes cannot be multiplied")


class Dying(Linear):
    """Kills its own process, unless the file `survive` is in the working directory."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if not Path("survive").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(batch)


class Hanging(Linear):
    """Waits for what never comes."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        time.sleep(3600)
        return super().loss(batch)
