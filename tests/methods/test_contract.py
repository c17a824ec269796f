"""The contract catches methods that break it: each class below is wrong in one way, and the rule says which."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.contract import CHECKS, Subject, run_check, run_contract, small_config
from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task
from methods.base import Method, MethodConfig, Miniature, hyper
from methods.fusion import mean_available, shown


class Honest(Method):
    """The mean of one linear output a modality; keeps the contract."""

    name = "honest"
    title = "Honest"
    paper = "none"
    needs_labels = True

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: MethodConfig) -> None:
        super().__init__(shapes, task, config)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 32), nn.ReLU(), nn.Linear(32, task.width))
            for shape in shapes.values()
        )

    def outputs(self, batch: Batch) -> Tensor:
        return torch.stack([head(x) for head, x in zip(self.heads, shown(batch), strict=True)])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"sup": self.task.loss(self.predict(batch), batch.target, batch.labelled & batch.available.any(1))}

    def predict(self, batch: Batch) -> Tensor:
        return mean_available(self.outputs(batch), batch.available)

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        return {"s": self.predict(batch)}


class Leaky(Honest):
    """Reads what is hidden and weighs it as if it were there."""

    def outputs(self, batch: Batch) -> Tensor:
        return torch.stack([head(x) for head, x in zip(self.heads, batch.inputs.values(), strict=True)])

    def predict(self, batch: Batch) -> Tensor:
        return self.outputs(batch).mean(0)


class Mixing(Honest):
    """Centres its outputs over the batch."""

    def predict(self, batch: Batch) -> Tensor:
        output = super().predict(batch)
        return output - output.mean(0)


class Peeking(Honest):
    """Learns from labels that are hidden."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"sup": self.task.loss(self.predict(batch), batch.target, batch.valid)}


class Padded(Honest):
    """Averages over rows that only fill the batch."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return super().loss(batch) | {"size": 1e-3 * self.outputs(batch).square().mean()}

    needs_labels = False


class Undefined(Honest):
    """Divides by the number of labels."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        losses = self.task.sample_loss(self.predict(batch), batch.target) * batch.labelled
        return {"sup": losses.sum() / batch.labelled.sum()}


class Idle(Honest):
    """Has weights that nothing moves."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: MethodConfig) -> None:
        super().__init__(shapes, task, config)
        self.spare = nn.Linear(2, 2)


class Slander(Honest):
    """Declares weights untrained that the loss moves."""

    def untrained(self) -> tuple[str, ...]:
        return ("heads",)


class Stubborn(Honest):
    """Learns nothing that helps."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"sup": -super().loss(batch)["sup"].clamp(max=30.0)}


class Noisy(Honest):
    """Draws its own random numbers."""

    def predict(self, batch: Batch) -> Tensor:
        return super().predict(batch) + 1e-3 * torch.randn(len(batch.target), 1)


class Forgetful(Honest):
    """Keeps what `finish` fitted outside its state."""

    shift = 0.0

    def finish(self, train: Batch) -> None:
        self.shift = 1.0

    def predict(self, batch: Batch) -> Tensor:
        return super().predict(batch) + self.shift


class Branching(Honest):
    """Looks at values to decide shapes, so it cannot stack."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        rows = batch.labelled & batch.valid
        output, target = self.predict(batch)[rows], batch.target[rows]
        return {"sup": self.task.loss(output, target, torch.ones(len(target), dtype=torch.bool))}


class Spoiling(Honest):
    """Changes the batch in place."""

    def predict(self, batch: Batch) -> Tensor:
        for x in batch.inputs.values():
            x.mul_(0.5)
        return super().predict(batch)


class Narrow(Honest):
    """Gives one output whatever the task."""

    def predict(self, batch: Batch) -> Tensor:
        return super().predict(batch)[:, :1]


class Unsourced(Honest):
    """Does not say where a default comes from."""

    class Config(MethodConfig):
        depth: int = 3
        width: int = hyper(3, source="our choice")


class Nameless(Honest):
    title = ""


class Indifferent(Honest):
    variants = {"same": {}}


class Picky(Honest):
    """Takes nothing."""

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return "takes nothing"


class Homebound(Honest):
    """Makes a tensor on the CPU wherever the batch is."""

    def predict(self, batch: Batch) -> Tensor:
        return super().predict(batch) + torch.arange(len(batch.target))[:, None] * 0.0


class Hungry(Honest):
    """Says it can use unlabelled batches, but cannot."""

    needs_labels = False


def test_an_honest_method_keeps_every_rule_on_vectors_and_sequences() -> None:
    results = run_contract(Honest)
    assert [result for result in results if not result.ok] == []
    assert [result.name for result in results] == list(CHECKS)


@pytest.mark.parametrize(
    ("method", "rule", "message"),
    [
        (Leaky, "never lets hidden modalities matter", "predict reads a hidden modality's values in the batch"),
        (Mixing, "predicts a sample alone as among others", "depends on what is beside them"),
        (Peeking, "never reads hidden labels, and no labels to predict", "loss 'sup' reads targets that are not"),
        (Padded, "ignores rows that only fill the batch", "loss 'size' changes with rows that are not valid"),
        (
            Undefined,
            "has a finite loss and gradient on hostile batches",
            "no labelled sample: loss 'sup' is not finite",
        ),
        (Idle, "moves every parameter it does not declare untrained", "no gradient reaches parameter 'spare.weight'"),
        (Slander, "moves every parameter it does not declare untrained", "`untrained` names 'heads.0.1.weight'"),
        (Stubborn, "fits 32 samples", "after 400 steps on 32 labelled samples its loss is"),
        (Noisy, "draws no random numbers of its own", "it draws from torch's global generator"),
        (Forgetful, "is saved and restored", "predict differs after saving and restoring"),
        (Branching, "trains in a stack as it trains alone", "raised"),
        (Spoiling, "leaves the batch as it was", "inputs 'text' were changed in place"),
        (Narrow, "predicts for every modality subset, sample by sample", "expected (B, W)"),
        (Unsourced, "says of every hyper-parameter where its default comes from", "Config field 'depth' has no source"),
        (Nameless, "names itself, its title and its paper", "`title` must be a non-empty text, got ''"),
        (Indifferent, "builds every variant, each different from the default", "variant 'same' changes nothing"),
        (Picky, "takes some data, and refuses the rest with a reason", "refuses every data set"),
        (Picky, "fits 32 samples", "nothing could be tried"),
        (Homebound, "computes where its batch is", "raised"),
        (Hungry, "tells truly whether it needs labels", "`needs_labels` must be True"),
    ],
)
def test_a_broken_method_is_told_what_is_wrong(method: type[Method], rule: str, message: str) -> None:
    result = run_check(CHECKS[rule], method)
    assert not result.ok
    assert message in result.message


def test_a_rule_that_does_not_apply_says_so() -> None:
    class Alone(Noisy):
        stackable = False

    result = run_check(CHECKS["trains in a stack as it trains alone"], Alone)
    assert (result.ok, result.message) == (True, "does not apply: stackable is False")


def test_an_exception_is_reported_with_its_place() -> None:
    class Raising(Honest):
        def predict(self, batch: Batch) -> Tensor:
            raise KeyError("no such thing")

    result = run_check(CHECKS["embeds every sample as a vector"], Raising)
    assert "raised KeyError at test_contract.py:" in result.message
    assert "no such thing" in result.message


def test_a_config_can_be_given() -> None:
    class Choosy(Honest):
        class Config(MethodConfig):
            works: bool = hyper(True, source="our choice")

        config: Any

        def predict(self, batch: Batch) -> Tensor:
            return super().predict(batch) if self.config.works else torch.full((len(batch.target), 1), torch.nan)

    rule = CHECKS["predicts for every modality subset, sample by sample"]
    assert run_check(rule, Choosy).ok
    assert not run_check(rule, Choosy, Choosy.Config(works=False)).ok


class Reader(Honest):
    """Takes token ids alone, and no longer than its Config says."""

    class Config(MethodConfig):
        longest: int = hyper(3, source="our choice")

    variants: Mapping[str, Mapping[str, Any]] = {"longer": {"longest": 9}}
    miniature = Miniature(inputs={"text": (6,)}, token_ids={"text": 50}, config={"longest": 6})

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: MethodConfig) -> None:
        super().__init__({"text": (6 * 8,)}, task, config)
        self.words = nn.Embedding(50, 8)

    @classmethod
    def refuses(cls, spec: DataSpec, config: Any) -> str | None:
        return None if spec.modalities == {"text": (6,)} and config.longest >= 6 else "takes six words"

    def outputs(self, batch: Batch) -> Tensor:
        (words,) = shown(batch)
        return self.heads[0](self.words(words.long().clamp(0, 49)).flatten(1))[None]  # type: ignore[no-any-return]


def test_a_method_may_bring_its_own_inputs_and_be_made_small() -> None:
    """Every rule is tried on token ids, under the Config that it is checked with, its variants too."""
    assert [result for result in run_contract(Reader) if not result.ok] == []
    cases = Subject(Reader, small_config(Reader)).cases()
    assert [case.task.kind for case in cases] == ["regression", "binary", "multiclass", "multilabel"]
    words = cases[0].batch(100).inputs["text"]
    assert torch.equal(words, words.round())
    assert (words.min(), words.max()) == (0, 49)
    assert not run_check(CHECKS["takes some data, and refuses the rest with a reason"], Reader, Reader.Config()).ok
    assert small_config(Reader, {"longest": 8}) == Reader.Config(longest=8)


def test_what_a_method_brings_is_checked_like_all_else() -> None:
    class Careless(Reader):
        def loss(self, batch: Batch) -> dict[str, Tensor]:
            return {"sup": self.task.loss(self.predict(batch), batch.target, batch.valid)}

    result = run_check(CHECKS["never reads hidden labels, and no labels to predict"], Careless)
    assert "loss 'sup' reads targets that are not labelled" in result.message
