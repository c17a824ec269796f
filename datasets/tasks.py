"""What is to be predicted. A task owns everything that depends on the kind of target; no method branches on it.

Shapes: B samples, W = `width` outputs of a model, C classes or labels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datasets import metrics

if TYPE_CHECKING:  # torch takes two seconds to import, and preparing data needs a task's name and range alone
    from torch import Tensor

Floats = NDArray[np.floating[Any]]


def masked_mean(values: "Tensor", mask: "Tensor") -> "Tensor":
    """Mean of `values` (B,) where `mask` (B,) is True; 0, never NaN, where nothing is."""
    weight = mask.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


@dataclass(frozen=True)
class Task(ABC):
    """One kind of target: output width, masked loss, decoding, groups for contrastive positives, metrics."""

    kind: ClassVar[str]
    primary: ClassVar[str]
    """The metric that selects epochs and heads tables."""
    metrics: ClassVar[Mapping[str, bool]]
    """Metric name -> True where higher is better."""
    empty_group: ClassVar[int | None] = None
    """The group of samples without any label, where the task knows such samples."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Number W of outputs a model needs."""

    @abstractmethod
    def sample_loss(self, output: "Tensor", target: "Tensor") -> "Tensor":
        """Loss of every sample, (B, W), target -> (B,)."""

    def loss(self, output: "Tensor", target: "Tensor", labelled: "Tensor") -> "Tensor":
        """Mean loss over the labelled samples, scalar; 0 when the batch has none (methods-wide convention)."""
        return masked_mean(self.sample_loss(output, target), labelled)

    def smooth_loss(self, output: "Tensor", target: "Tensor") -> "Tensor":
        """Twice differentiable loss of every sample, (B, W), target -> (B,), for models fitted in closed form."""
        return self.sample_loss(output, target)

    def label_smoothed_loss(self, output: "Tensor", target: "Tensor", smoothing: "float | Tensor") -> "Tensor":
        """`sample_loss` with `smoothing` of the target spread evenly over the classes, where one of C is true."""
        return self.sample_loss(output, target)

    @abstractmethod
    def probabilities(self, output: "Tensor") -> "Tensor":
        """Outputs on the scale on which predictions may be averaged, (B, W): probabilities, or values."""

    @abstractmethod
    def from_probabilities(self, probability: "Tensor") -> "Tensor":
        """Inverse of `probabilities`, up to what does not change the prediction, (B, W)."""

    @abstractmethod
    def groups(self, target: "Tensor") -> "Tensor":
        """Which samples count as one class for contrastive positives: (B,) int64 codes."""

    @abstractmethod
    def pseudo_groups(self, output: "Tensor") -> "Tensor":
        """Groups read off a model's outputs, (B, W) -> (B,) int64, without gradient."""

    @abstractmethod
    def constant_output(self, target: "Tensor", labelled: "Tensor") -> "Tensor":
        """The output (W,) of the best predictor that ignores its inputs: majority class, median, base rates."""

    @abstractmethod
    def evaluate(self, output: Floats, target: NDArray[Any]) -> dict[str, float]:
        """Every metric of `metrics`, from raw outputs (N, W) and true targets."""

    @abstractmethod
    def random_target(self, n: int, rng: np.random.Generator) -> NDArray[Any]:
        """Targets of the right shape and type without meaning, (n,) or (n, C): for timing and for tests."""

    def to_json(self) -> dict[str, Any]:
        """The task as plain values; `task_from_json` reads it back."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Regression(Task):
    """A value in [low, high]; sentiment metrics as MulT, GMC and Robult report them.

    Groups quantise the value to `n_groups` levels (Robult, section 3.2: 7 classes), halves to even.
    """

    low: float = -3.0
    high: float = 3.0
    n_groups: int = 7

    kind: ClassVar[str] = "regression"
    primary: ClassVar[str] = "mae"
    metrics: ClassVar[Mapping[str, bool]] = {
        "mae": False, "corr": True, "acc": True, "f1": True, "f1_swapped": True,
    }  # fmt: skip

    @property
    def width(self) -> int:
        return 1

    def sample_loss(self, output: "Tensor", target: "Tensor") -> "Tensor":
        return (output[:, 0] - target).abs()

    def smooth_loss(self, output: "Tensor", target: "Tensor") -> "Tensor":
        return 0.5 * (output[:, 0] - target).square()

    def probabilities(self, output: "Tensor") -> "Tensor":
        return output

    def from_probabilities(self, probability: "Tensor") -> "Tensor":
        return probability

    def groups(self, target: "Tensor") -> "Tensor":
        step = (self.high - self.low) / (self.n_groups - 1)
        # Rounded about the middle level, so that a half goes where rounding the value itself sends it.
        middle = (self.n_groups - 1) // 2
        steps = (target.clamp(self.low, self.high) - (self.low + middle * step)) / step
        return steps.round().long() + middle

    def pseudo_groups(self, output: "Tensor") -> "Tensor":
        return self.groups(output[:, 0].detach())

    def constant_output(self, target: "Tensor", labelled: "Tensor") -> "Tensor":
        return target[labelled].median().reshape(1)

    def evaluate(self, output: Floats, target: NDArray[Any]) -> dict[str, float]:
        return metrics.sentiment(output[:, 0], target)

    def random_target(self, n: int, rng: np.random.Generator) -> NDArray[Any]:
        return rng.uniform(self.low, self.high, n).astype(np.float32)


@dataclass(frozen=True)
class MultiClass(Task):
    """One of C classes; cross-entropy."""

    n_classes: int = 2

    kind: ClassVar[str] = "multiclass"
    primary: ClassVar[str] = "acc"
    metrics: ClassVar[Mapping[str, bool]] = {"acc": True, "f1_macro": True, "ua": True}

    @property
    def width(self) -> int:
        return self.n_classes

    def sample_loss(self, output: "Tensor", target: "Tensor") -> "Tensor":
        from torch.nn.functional import cross_entropy

        return cross_entropy(output, target, reduction="none")

    def label_smoothed_loss(self, output: "Tensor", target: "Tensor", smoothing: "float | Tensor") -> "Tensor":
        spread = -output.log_softmax(-1).mean(-1)
        return (1 - smoothing) * self.sample_loss(output, target) + smoothing * spread

    def probabilities(self, output: "Tensor") -> "Tensor":
        return output.softmax(-1)

    def from_probabilities(self, probability: "Tensor") -> "Tensor":
        return probability.clamp(min=1e-12).log()

    def groups(self, target: "Tensor") -> "Tensor":
        return target

    def pseudo_groups(self, output: "Tensor") -> "Tensor":
        return output.detach().argmax(-1)

    def constant_output(self, target: "Tensor", labelled: "Tensor") -> "Tensor":
        from torch.nn.functional import one_hot

        counts = one_hot(target, self.n_classes)[labelled].sum(0)
        return self.from_probabilities(counts / counts.sum())

    def evaluate(self, output: Floats, target: NDArray[Any]) -> dict[str, float]:
        return metrics.classification(output.argmax(-1), target, self.n_classes)

    def random_target(self, n: int, rng: np.random.Generator) -> NDArray[Any]:
        return rng.permutation(np.arange(n) % self.n_classes)


@dataclass(frozen=True)
class Binary(MultiClass):
    """Two classes with two logits; AUROC is of the probability of class 1 (Prompt-Trans' metrics)."""

    kind: ClassVar[str] = "binary"
    primary: ClassVar[str] = "auroc"
    metrics: ClassVar[Mapping[str, bool]] = {"auroc": True, "acc": True, "f1_macro": True}

    def evaluate(self, output: Floats, target: NDArray[Any]) -> dict[str, float]:
        scores = metrics.classification(output.argmax(-1), target, 2)
        auroc = metrics.auroc(output[:, 1] - output[:, 0], target)
        return {"auroc": auroc, "acc": scores["acc"], "f1_macro": scores["f1_macro"]}


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any set of C labels; binary cross-entropy averaged over the labels; sigmoid at 0.5 decides."""

    n_labels: int = 2

    kind: ClassVar[str] = "multilabel"
    primary: ClassVar[str] = "f1_macro"
    metrics: ClassVar[Mapping[str, bool]] = {"f1_macro": True, "f1_micro": True, "f1_samples": True}
    empty_group: ClassVar[int | None] = 0

    @property
    def width(self) -> int:
        return self.n_labels

    def sample_loss(self, output: "Tensor", target: "Tensor") -> "Tensor":
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(output, target, reduction="none").mean(-1)

    def probabilities(self, output: "Tensor") -> "Tensor":
        return output.sigmoid()

    def from_probabilities(self, probability: "Tensor") -> "Tensor":
        return probability.logit(eps=1e-6)

    def groups(self, target: "Tensor") -> "Tensor":
        import torch

        # Equal label sets get equal codes: the set's bits, as one integer (62 labels fit in int64).
        if self.n_labels > 62:
            raise ValueError(f"groups of label sets need at most 62 labels, got {self.n_labels}.")
        bits = torch.tensor([1 << i for i in range(self.n_labels)], device=target.device)
        return ((target > 0.5).long() * bits).sum(-1)

    def pseudo_groups(self, output: "Tensor") -> "Tensor":
        return self.groups((output.detach() >= 0).float())

    def constant_output(self, target: "Tensor", labelled: "Tensor") -> "Tensor":
        return self.from_probabilities(target[labelled].mean(0))

    def evaluate(self, output: Floats, target: NDArray[Any]) -> dict[str, float]:
        return metrics.multilabel(output >= 0, target > 0.5)

    def random_target(self, n: int, rng: np.random.Generator) -> NDArray[Any]:
        return (rng.random((n, self.n_labels)) < 0.5).astype(np.float32)


TASKS: Mapping[str, type[Task]] = {task.kind: task for task in (Regression, Binary, MultiClass, MultiLabel)}


def task_from_json(value: Mapping[str, Any]) -> Task:
    """Read back what `Task.to_json` wrote.

    Raises:
        ValueError: the kind is not one of `TASKS`.
    """
    fields = dict(value)
    kind = fields.pop("kind", None)
    if kind not in TASKS:
        raise ValueError(f"a task is one of {', '.join(TASKS)}, got {kind!r}.")
    return TASKS[kind](**fields)
