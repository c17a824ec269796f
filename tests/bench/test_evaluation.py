"""All conditions in one pass: the same answers as one by one, every modality encoded once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.training import evaluation
from bench.training.evaluation import (
    Asked,
    conditioned_batch,
    corrupted_resident,
    corruptions_at_once,
    outputs_one_by_one,
    outputs_together,
    subset_masks,
)
from bench.training.trainer import Trainer, train
from datasets.batch import Batch
from datasets.corruption import Corruption
from methods.encoders import Conditioned
from methods.encoders.mult import MulT
from methods.encoders.sequences import GRU
from methods.fusion import shown
from methods.gmc import GMC
from methods.registry import METHODS
from tests.bench.test_stacks import data_of, trainings

TINY = "n_train: 64, n_valid: 33, n_test: 20, uniqueness: 1, redundancy: 1, synergy: 0"
METHODS_OF_ARRAYS = [name for name in METHODS.builtin if METHODS.get(name).miniature is None]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trainer(method: str, more: str = "", *, modalities: int = 2, seeds: int = 1) -> Trainer:
    asked = trainings(method, f"synthetic: {{{TINY}, n_modalities: {modalities}{more}}}", seeds=seeds)
    made = Trainer(asked, data_of(asked[0]))
    for k, method_ in enumerate(made.methods):
        method_.eval().finish(made._whole_training_split(k))
    made.models.refresh()
    return made


def conditions(made: Trainer, *corruptions: str) -> list[Asked]:
    """Every modality subset of the validation split, clean and corrupted."""
    clean, subsets = made.parts["valid"], made.replicas[0].training.conditions
    corrupted = [corrupted_resident(made.data, "valid", Corruption.parse(c), clean, "cpu") for c in corruptions]
    return [Asked(part, subset) for part in (clean, *corrupted) for subset in subsets]


def masks_of(made: Trainer, asked: list[Asked]) -> Tensor:
    return subset_masks(made.spec, [one.subset for one in asked], "cpu")


@pytest.mark.parametrize("more", ["", ", inputs: sequence"], ids=["vectors", "sequences"])
@pytest.mark.parametrize("method", METHODS_OF_ARRAYS)
def test_together_equals_one_by_one(method: str, more: str) -> None:
    seeds = 2 if METHODS.get(method).stackable and METHODS.get(method).iterative else 1
    made = trainer(method, more, seeds=seeds)
    asked = conditions(made, "gaussian(m1)=1")
    masks = masks_of(made, asked)
    together = outputs_together(made._predict, seeds, asked, masks)
    assert together.shape == (seeds, 6, 33, made.task.width)
    np.testing.assert_allclose(together, outputs_one_by_one(made._predict, asked, masks), atol=5e-6)
    # `outputs` chooses: one pass gives the metrics of six.
    np.testing.assert_array_equal(made.outputs(asked), together)
    assert made.together


def test_a_long_split_goes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer("robult", modalities=3)
    asked = conditions(made)
    whole = made.outputs(asked)
    monkeypatch.setattr(evaluation, "ROWS", 20)
    monkeypatch.setattr(evaluation, "LEAST_ROWS", 20)
    np.testing.assert_allclose(made.outputs(asked), whole, atol=1e-6)


def test_every_version_of_a_modality_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer("gmc", ", inputs: sequence", modalities=3)
    asked = conditions(made, "mask(m2)=0.5")
    assert len(asked) == 14
    seen: list[int] = []
    joint: list[int] = []
    read, attend = GRU.forward, MulT._encoded

    def counted(self: GRU, x: Tensor) -> Tensor:
        seen.append(len(x))
        return read(self, x)

    def attended(self: MulT, xs: list[Tensor], noise: Tensor | None) -> Tensor:
        joint.append(len(xs[0]))
        return attend(self, xs, noise)

    monkeypatch.setattr(GRU, "forward", counted)
    monkeypatch.setattr(MulT, "_encoded", attended)
    made.outputs(asked)
    assert sorted(seen) == [1, 1, 1, 33, 33, 33, 33]  # three modalities hidden, three clean, one of them corrupted
    assert sum(joint) == 2 * 33  # the full set, clean and corrupted
    del seen[:], joint[:]
    made.together = False
    made.outputs(asked)
    assert (sum(seen), sum(joint)) == (3 * 14 * 33, 14 * 33)


class JointAlways(GMC):
    """Answers from the joint embedding whatever is missing."""

    def predict(self, batch: Batch) -> Tensor:
        return self.head(self.encode(shown(batch))[0])  # type: ignore[no-any-return]


def test_a_method_that_reads_the_joint_latent_of_incomplete_samples_is_evaluated_one_by_one() -> None:
    made = trainer("tests.bench.test_evaluation:JointAlways")
    asked = conditions(made)
    masks = masks_of(made, asked)
    assert not np.isfinite(outputs_together(made._predict, 1, asked, masks)).all()
    np.testing.assert_array_equal(made.outputs(asked), outputs_one_by_one(made._predict, asked, masks))
    assert not made.together


def test_weights_that_diverged_say_nothing_about_the_method() -> None:
    made = trainer("gmc")
    with torch.no_grad():
        made.methods[0].head[-1].bias.fill_(torch.nan)
    assert np.isnan(made.outputs(conditions(made))).all()
    assert made.together


def test_other_operations_than_encoders_see_the_rows() -> None:
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    available = torch.ones(9, 1, dtype=torch.bool)
    x = Conditioned.of([a, b], [0, None, 1], available)
    expected = torch.cat([a, torch.zeros(3, 4), b])
    assert x.shape == expected.shape
    assert torch.equal(x + 0, expected)
    assert torch.equal(torch.cat([x[2:7], x]), torch.cat([expected[2:7], expected]))
    assert torch.equal(x.under([2, 1]) * 1, torch.cat([b, torch.zeros(3, 4)]))
    assert torch.equal(x.mapped(lambda rows: rows.sum(1, keepdim=True)), expected.sum(1, keepdim=True))


def test_what_hides_more_than_the_condition_is_obeyed() -> None:
    made = trainer("gmc")
    asked = conditions(made)
    batch = conditioned_batch(asked, masks_of(made, asked), slice(0, 5))
    assert all(isinstance(x, Conditioned) for x in shown(batch))
    nothing = torch.zeros_like(batch.available)
    assert not any(x.any() for x in shown(batch._replace(available=nothing)))


def test_corruptions_share_a_pass_as_long_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = trainings("constant", f"synthetic: {{{TINY}, n_modalities: 2}}", seeds=1)
    part = data_of(asked[0]).parts["test"]
    names = ["", "mask(m1)=0.1", "mask(m1)=0.2", "mask(m2)=0.1&gaussian(m1)=1", "mask(m2)=0.2"]
    corruptions = [Corruption.parse(name) for name in names]
    assert list(corruptions_at_once(part, corruptions)) == [corruptions]
    monkeypatch.setattr(evaluation, "CORRUPTED_BYTES", 2 * part.inputs["m1"].nbytes)
    groups = list(corruptions_at_once(part, corruptions))
    assert groups == [corruptions[:3], corruptions[3:4], corruptions[4:]]


def test_cells_do_not_depend_on_what_is_evaluated_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    (asked,) = trainings("robult", f"synthetic: {{{TINY}, n_modalities: 2}}", seeds=1)
    names = ("m1", "m1+m2", "m1@mask(m1)=0.5", "m1+m2@mask(m1)=0.5", "m1+m2@gaussian(m2)=1")
    data = data_of(asked)
    together = train(replace(asked, conditions=names), data).cells
    assert list(together) == list(names)
    monkeypatch.setattr(evaluation, "CORRUPTED_BYTES", 0)
    apart = train(replace(asked, conditions=names), data).cells
    for name in names:
        alone = train(replace(asked, conditions=(name,)), data).cells[name]["last"]
        assert together[name]["last"] == pytest.approx(alone, abs=1e-6)
        assert apart[name]["last"] == pytest.approx(alone, abs=1e-6)
