"""Constant: the best answer that ignores its inputs, the floor under every table."""

from collections.abc import Mapping

import torch
from torch import Tensor

from datasets.batch import Batch
from datasets.tasks import Task
from methods.base import Method, MethodConfig


class Constant(Method):
    """Majority class, median or base rates of the labelled training samples; zeros before `finish`.

    Several published rows equal such a predictor to the printed digit, so a table needs one beside them.
    """

    name = "constant"
    title = "Constant"
    paper = "none: what a predictor without inputs reaches"
    Config = MethodConfig
    iterative = False

    output: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: MethodConfig) -> None:
        super().__init__(shapes, task, config)
        self.register_buffer("output", torch.zeros(task.width))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """No terms: nothing is trained."""
        return {}

    def finish(self, train: Batch) -> None:
        """Read the constant off the labels; without any label it stays zero."""
        if train.labelled.any():
            self.output = self.task.constant_output(train.target, train.labelled).to(self.output.dtype)

    def predict(self, batch: Batch) -> Tensor:
        return self.output.expand(len(batch.target), -1)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """No representation."""
        return {}
