"""What a plan will take: methods of every kind can be timed."""

from typing import Any, ClassVar

import torch

from bench.grid.file import parse_grid
from bench.grid.grid import Executor
from bench.grid.plan import make_plan
from bench.scheduling.estimate import estimate
from methods.base import Stage
from tests.bench import odd_methods


class Staged(odd_methods.Linear):
    """Three stages, of which the second has most of the epochs."""

    entered: ClassVar[list[str]] = []

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("first", 0.1), Stage("second", 0.8), Stage("third", 0.1))

    def enter(self, train: Any) -> None:
        self.entered.append(self.stage)


def test_a_method_with_more_stages_than_one_epoch_is_timed() -> None:
    text = f"methods: ['{__name__}:Staged', constant]\ndatasets: [digits]\nlabel_ratios: [1.0]\nseeds: 1\n"
    trainings = make_plan(parse_grid(text + "train: {epochs: 10, batch_size: 64}\n")).trainings
    Staged.entered.clear()
    threads = torch.get_num_threads()
    made = estimate(trainings, Executor(slots=1))
    assert torch.get_num_threads() == threads
    assert made.seconds > 0
    assert Staged.entered == ["first", "second", "third"] * 2  # once to warm up, once timed
