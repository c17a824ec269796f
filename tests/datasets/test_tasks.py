"""Tasks: losses under a label mask, decoding, groups, averaging, the constant predictor, and their JSON form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import tensor

from datasets.tasks import TASKS, Binary, MultiClass, MultiLabel, Regression, masked_mean, task_from_json

quick = settings(deadline=None, max_examples=50)
ALL = [Regression(), Binary(), MultiClass(4), MultiLabel(3)]


def random_case(task, n=40, seed=0):
    """Outputs (n, W) and targets of a task."""
    rng = np.random.default_rng(seed)
    return (
        torch.as_tensor(rng.normal(0, 2, (n, task.width)), dtype=torch.float32),
        torch.as_tensor(task.random_target(n, rng)),
    )


# ---- golden numbers ---------------------------------------------------------------------------------------------


def test_regression_loss_is_the_mean_absolute_error_of_labelled_samples():
    heads = tensor([[0.5, 1, -2], [0, 2, 1], [1, 1, 0]])
    target, labelled = tensor([1.0, -1, 0]), tensor([True, True, False])
    losses = [Regression().loss(head[:, None], target, labelled) for head in heads]
    assert torch.stack(losses).tolist() == pytest.approx([1.25, 2.0, 1.0])
    assert torch.stack(losses).mean() == pytest.approx(1.416667)


def test_multilabel_groups_are_equal_label_sets():
    groups = MultiLabel(2).groups(tensor([[1.0, 0], [1, 0], [1, 1], [0, 0]]))
    same = (groups[:, None] == groups).int().tolist()
    assert same == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_regression_groups_round_halves_to_even_after_clipping():
    groups = Regression().groups(tensor([3.7, -0.5, 0.5, 1.49, -2.6]))
    assert (groups - 3).tolist() == [3, 0, 0, 1, -3]


def test_multilabel_loss_of_a_worked_example():
    output, target = tensor([[0.0, 2], [-1, 1], [3, -3]]), tensor([[1.0, 0], [0, 1], [1, 1]])
    assert MultiLabel(2).loss(output, target, tensor([True] * 3)) == pytest.approx(1.090629, abs=1e-6)
    assert MultiLabel(2).loss(output, target, tensor([True, True, False])) == pytest.approx(0.861650, abs=1e-6)


def test_multiclass_loss_of_a_worked_example():
    output = tensor([[2.0, 0, -1], [0, 1, 0], [5, 5, 5]])
    loss = MultiClass(3).loss(output, tensor([0, 2, 1]), tensor([True, True, False]))
    assert loss == pytest.approx(0.860645, abs=1e-6)


def test_evaluate_of_worked_examples():
    truth, value = np.array([1, 2, -1, -2, -0.5, 0]), np.array([1, 0.5, 1, 0.2, -1, 0.3])
    scores = Regression().evaluate(value[:, None], truth)
    assert (scores["mae"], scores["f1_swapped"]) == pytest.approx((1.083333, 0.633333), abs=1e-6)
    logits = np.array([[2, -1, 0.5], [-1, -2, 1], [0.3, -0.5, -2], [-1, -1, 1]])
    genres = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]], dtype=np.float32)
    assert MultiLabel(3).evaluate(logits, genres)["f1_macro"] == pytest.approx(0.433333, abs=1e-6)
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    two = np.stack([np.log(1 - scores), np.log(scores)], axis=1)
    binary = Binary().evaluate(two, np.array([0, 0, 1, 1]))
    assert (binary["auroc"], binary["acc"]) == (0.75, 0.75)


# ---- every task -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
def test_evaluate_gives_exactly_the_metrics_declared_with_the_primary_among_them(task):
    output, target = random_case(task)
    scores = task.evaluate(output.numpy(), target.numpy())
    assert scores.keys() == task.metrics.keys()
    assert task.primary in scores
    assert all(math.isfinite(score) for score in scores.values())


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
def test_the_loss_reads_labelled_samples_alone_and_is_zero_without_any(task):
    output, target = random_case(task)
    labelled = torch.arange(len(output)) % 3 == 0
    loss = task.loss(output, target, labelled)
    assert loss == pytest.approx(task.sample_loss(output[labelled], target[labelled]).mean().item(), rel=1e-5)
    nothing = task.loss(output.requires_grad_(), target, torch.zeros(len(output), dtype=torch.bool))
    assert nothing == 0
    nothing.backward()
    assert output.grad.abs().max() == 0


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
@quick
@given(seed=st.integers(0, 10_000))
def test_outputs_survive_the_way_over_probabilities(task, seed):
    output, target = random_case(task, seed=seed)
    assume(output.abs().min() > 1e-6)  # one that rounding carries over a threshold is another prediction
    back = task.from_probabilities(task.probabilities(output))
    assert torch.allclose(task.probabilities(back), task.probabilities(output), atol=1e-5)
    assert torch.equal(task.pseudo_groups(back), task.pseudo_groups(output))
    before, after = (task.evaluate(x.numpy(), target.numpy()) for x in (output, back))
    assert after == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
def test_the_average_of_two_heads_that_agree_is_each_of_them(task):
    output, _ = random_case(task)
    average = task.from_probabilities((task.probabilities(output) + task.probabilities(output.clone())) / 2)
    assert torch.allclose(task.probabilities(average), task.probabilities(output), atol=1e-5)


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
def test_from_probabilities_of_certainties_is_finite(task):
    certain = torch.eye(task.width)
    assert torch.isfinite(task.from_probabilities(certain)).all()


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
def test_no_other_constant_beats_the_constant_output(task):
    _, target = random_case(task, seed=5)
    labelled = torch.arange(len(target)) % 4 != 0
    best = task.constant_output(target, labelled)
    assert best.shape == (task.width,)

    def loss(constant):
        return task.loss(constant.expand(len(target), -1), target, labelled).item()

    for other in torch.randn(200, task.width, generator=torch.Generator().manual_seed(1)):
        assert loss(best) <= loss(best + 0.3 * other) + 1e-6


def test_constant_outputs_in_numbers():
    everything = tensor([True] * 5)
    assert Regression().constant_output(tensor([1.0, 2, -1, 0, 3]), everything).tolist() == [1.0]
    majority = MultiClass(3).constant_output(tensor([0, 2, 2, 1, 2]), everything)
    assert majority.softmax(-1).tolist() == pytest.approx([0.2, 0.2, 0.6])
    rates = MultiLabel(2).constant_output(tensor([[1.0, 0], [1, 0], [0, 0], [1, 0], [1, 1]]), everything)
    assert rates.sigmoid().tolist() == pytest.approx([0.8, 0.2])
    hidden = tensor([True, True, False, False, False])
    assert Regression().constant_output(tensor([1.0, 1, -3, -3, -3]), hidden).tolist() == [1.0]


@pytest.mark.parametrize("task", ALL, ids=lambda task: task.kind)
def test_pseudo_groups_of_a_perfect_output_are_the_true_groups(task):
    _, target = random_case(task)
    if isinstance(task, Regression):
        perfect = target[:, None]
    elif isinstance(task, MultiLabel):
        perfect = 10 * target - 5
    else:
        perfect = 10.0 * torch.nn.functional.one_hot(target, task.width)
    assert torch.equal(task.pseudo_groups(perfect), task.groups(target))
    assert task.groups(target).dtype == torch.int64


@quick
@given(st.integers(1, 5), st.integers(0, 1000))
def test_multilabel_codes_are_equal_only_for_equal_sets(n_labels, seed):
    sets = torch.as_tensor(np.random.default_rng(seed).integers(0, 2, (20, n_labels))).float()
    codes = MultiLabel(n_labels).groups(sets)
    assert torch.equal(codes[:, None] == codes, (sets[:, None] == sets).all(-1))


def test_label_sets_beyond_an_integer_are_refused():
    assert MultiLabel(62).groups(torch.ones(1, 62)).item() == 2**62 - 1
    with pytest.raises(ValueError, match="at most 62 labels, got 63"):
        MultiLabel(63).groups(torch.ones(1, 63))


@quick
@given(st.floats(-5, 5), st.integers(2, 12))
def test_a_regression_group_is_the_nearest_level(value, n_groups):
    task = Regression(-2.0, 4.0, n_groups)
    group = task.groups(tensor([value])).item()
    levels = np.linspace(-2, 4, n_groups)
    assert 0 <= group < n_groups
    assert abs(levels[group] - np.clip(value, -2, 4)) <= np.abs(levels - np.clip(value, -2, 4)).min() + 1e-5


@pytest.mark.parametrize("task", [*ALL, Regression(-1.0, 1.0, 5)], ids=lambda task: task.kind)
def test_a_task_is_read_back_from_json(task):
    import json

    assert task_from_json(json.loads(json.dumps(task.to_json()))) == task
    assert TASKS[task.kind] is type(task)


@pytest.mark.parametrize("value", [{"kind": "ranking"}, {}])
def test_an_unknown_kind_of_task_is_refused(value):
    with pytest.raises(ValueError, match="a task is one of regression, binary, multiclass, multilabel, got"):
        task_from_json(value)


def test_masked_mean():
    assert masked_mean(tensor([1.0, 2, 30]), tensor([True, True, False])) == 1.5
    assert masked_mean(tensor([1.0, 2]), tensor([False, False])) == 0


def test_label_smoothing_spreads_over_classes_and_leaves_other_targets_alone() -> None:
    logits, target = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 2])
    task = MultiClass(n_classes=3)
    smoothed = task.label_smoothed_loss(logits, target, 0.1)
    assert smoothed.tolist() == pytest.approx([0.3365, 1.5181], abs=1e-4)  # torch's own cross_entropy
    assert smoothed.mean().item() == pytest.approx(0.927312, abs=1e-5)
    expected = torch.nn.functional.cross_entropy(logits, target, reduction="none", label_smoothing=0.3)
    torch.testing.assert_close(task.label_smoothed_loss(logits, target, torch.tensor(0.3)), expected)
    torch.testing.assert_close(task.label_smoothed_loss(logits, target, 0.0), task.sample_loss(logits, target))
    value, output = torch.tensor([1.0, -2.0]), torch.tensor([[0.5], [0.5]])
    assert torch.equal(Regression().label_smoothed_loss(output, value, 0.1), Regression().sample_loss(output, value))
