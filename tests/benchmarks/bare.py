"""The bare training loops of a grid: no scheduler, no tracking. `python -m tests.benchmarks.bare GRID PART N_PARTS`."""

import sys
import time

import torch

from bench.grid.file import load_grid
from bench.grid.plan import make_plan
from bench.training.trainer import train
from datasets.catalog import DATASETS


def main(grid: str, part: int, n_parts: int) -> None:
    """Train every `n_parts`-th training of each kind, then print when that began and ended, in seconds since 1970."""
    torch.set_num_threads(1)
    trainings = sorted(make_plan(load_grid(grid)).trainings, key=lambda t: (t.method.label, t.dataset.label))
    choices = {training.dataset.label: training.dataset for training in trainings}
    data = {label: DATASETS.get(choice.name)(choice.config).load() for label, choice in choices.items()}
    started = time.time()
    for training in trainings[part::n_parts]:
        train(training, data[training.dataset.label])
    print(started, time.time())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
