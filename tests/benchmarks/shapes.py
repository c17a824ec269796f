"""Random data in the shapes of the papers' data sets, and trainers on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bench.grid.file import parse_grid
from bench.grid.plan import Training, make_plan
from bench.training.trainer import Trainer
from datasets.base import Data, DataSpec, Part, Split
from datasets.tasks import MultiClass, MultiLabel, Regression, Task

VILT: Mapping[str, tuple[int, ...]] = {"image": (768,), "text": (768,)}
SHAPES: dict[str, tuple[Mapping[str, tuple[int, ...]], Task, tuple[int, int, int], int]] = {
    "cmu_mosi": ({"text": (50, 300), "audio": (50, 5), "vision": (50, 20)}, Regression(), (1284, 229, 686), 24),
    "cmu_mosei": ({"text": (50, 300), "audio": (50, 74), "vision": (50, 35)}, Regression(), (16326, 1871, 4659), 24),
    "mm_imdb": (VILT, MultiLabel(23), (15552, 2608, 7799), 128),
    "food101": (VILT, MultiClass(101), (61127, 6845, 22716), 128),
    "hateful_memes": (VILT, MultiClass(2), (8500, 500, 1000), 128),
    "digits": ({"upper": (32,), "lower": (32,)}, MultiClass(10), (1078, 359, 360), 64),
}
"""Modalities, task, samples of the training, validation and test split, batch size."""


def random_data(name: str, most: int, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Data:
    """Data of the shapes of a data set, with at most `most` samples a split."""
    of_set, task, sizes, _ = SHAPES[name]
    shapes, rng = shapes or of_set, np.random.default_rng(0)
    splits: tuple[Split, ...] = ("train", "valid", "test")
    parts = {
        split: Part(
            {m: rng.standard_normal((min(n, most), *shape), dtype=np.float32) for m, shape in shapes.items()},
            task.random_target(min(n, most), rng),
        )
        for split, n in zip(splits, sizes, strict=True)
    }
    spec = DataSpec(
        name, shapes, task, {split: len(part) for split, part in parts.items()}, f"random {name} {len(shapes)}"
    )
    return Data(spec, parts)


def trainings(method: str, seeds: int, batch_size: int, ratio: float = 0.5) -> list[Training]:
    text = (
        f"methods: [{method}]\ndatasets: [digits]\nlabel_ratios: [{ratio}]\nseeds: {seeds}\n"
        f"train: {{batch_size: {batch_size}, epochs: 40}}\n"
    )
    return make_plan(parse_grid(text)).trainings


class Steps:
    """Single steps of the trainer, batches drawn and gathered as in an epoch."""

    def __init__(self, method: str, data: Data, batch_size: int, seeds: int = 1) -> None:
        self.trainer = Trainer(trainings(method, seeds, batch_size), data)
        self.trainer._enter(self.trainer.methods[0].stages()[0])
        self.number = 0

    def __call__(self) -> Any:
        made, n = self.trainer, len(self.trainer.parts["train"])
        for method in made.methods:
            method.train()
        drawn = np.stack([np.random.default_rng(self.number + k).permutation(n) for k in range(len(made.replicas))])
        index = drawn[:, : made.batch_size]
        noise = made._keys(range(self.number, self.number + 1))[0]
        batch = made._batch(torch.as_tensor(index), noise, torch.tensor(0.5))
        self.number += 1
        return made.models.step(batch, np.ones(len(made.replicas), bool))
