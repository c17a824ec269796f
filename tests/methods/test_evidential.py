"""Evidential losses and fusion against printed values of the TMC code, the recursion they close, and distributions."""

import math
from functools import reduce
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from datasets.tasks import Binary, MultiClass, MultiLabel, Regression
from methods.evidential import (
    activated,
    annealed,
    confidence,
    evidential_loss,
    expected_cross_entropy,
    fuse,
    misleading_evidence,
    no_opinion,
    opinion_shape,
    outputs,
    true_classes,
    uncertainty,
)

# Two samples of classes 0 and 2, three views; expected values were printed by the functions of the TMC code
# (hanmenghan/TMC, commit 08d0ca4) in double precision.
EVIDENCE = torch.tensor(
    [[[2.0, 0.5, 0.1], [0.2, 0.3, 4.0]], [[1.0, 1.0, 0.0], [3.0, 0.0, 1.0]], [[0.0, 0.4, 0.4], [0.0, 0.0, 0.5]]],
    dtype=torch.float64,
)[:, :, None]  # (M, B, K, C)
TRUE = true_classes(MultiClass(3), torch.tensor([0, 2]))
FUSED = [[4.66666667, 3.28888889, 1.51333333], [4.4, 1.3, 8.88888889]]


def everything(evidence: Tensor) -> Tensor:
    """The mask of one pattern in which every view counts, (1, B, M)."""
    return torch.ones(1, evidence.shape[1], evidence.shape[0], dtype=torch.bool)


def near(ours: Tensor, values: list[float]) -> bool:
    return ours.flatten().tolist() == pytest.approx(values, abs=1e-6)


def test_fusion_of_the_example() -> None:
    fused = fuse(EVIDENCE, everything(EVIDENCE))[0]
    assert near(fused[:, 0] + 1, [x for row in FUSED for x in row])
    assert near(uncertainty(fused), pytest.approx([0.3168, 0.2056], abs=1e-4))
    two = fuse(EVIDENCE[:2], everything(EVIDENCE[:2]))[0, :, 0] + 1
    assert near(two, [4.66666667, 2.66666667, 1.1, 4.4, 1.3, 7.33333333])


@pytest.mark.parametrize(
    ("view", "cross_entropy", "divergence"),
    [
        (0, [0.708048, 0.440640], [0.084903, 0.041232]),
        (1, [1.083333, 1.45], [0.265279, 0.952585]),
        (2, [1.774906, 1.066667], [0.085141, 0.0]),
        (None, [0.764786, 0.518097], [0.611183, 0.954306]),
    ],
)
def test_losses_of_the_example(view: int | None, cross_entropy: list[float], divergence: list[float]) -> None:
    evidence = fuse(EVIDENCE, everything(EVIDENCE))[0] if view is None else EVIDENCE[view]
    assert near(expected_cross_entropy(evidence + 1, TRUE), cross_entropy)
    assert near(misleading_evidence(evidence + 1, TRUE), divergence)


@pytest.mark.parametrize(
    ("weight", "total"), [(0.0, 3.90323810), (0.02, 3.93318439), (0.5, 4.65189535), (1, 5.40055259)]
)
def test_total_of_the_example(weight: float, total: float) -> None:
    opinions = torch.cat([EVIDENCE, fuse(EVIDENCE, everything(EVIDENCE))])
    lost = evidential_loss(opinions, TRUE, torch.tensor(weight, dtype=torch.float64))
    assert lost.mean(1).sum().item() == pytest.approx(total, abs=1e-7)


# ---- fusion ---------------------------------------------------------------------------------------------------------


def dempster(first: Tensor, second: Tensor) -> Tensor:
    """The reduced rule for the evidence (C,) of two opinions, belief by belief, as the TMC paper states it."""
    classes = len(first)
    b1, b2 = (e / (e.sum() + classes) for e in (first, second))
    u1, u2 = (classes / (e.sum() + classes) for e in (first, second))
    conflict = sum(b1[i] * b2[j] for i in range(classes) for j in range(classes) if i != j)
    belief = (b1 * b2 + b1 * u2 + b2 * u1) / (1 - conflict)
    u = u1 * u2 / (1 - conflict)
    return belief * classes / u


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(2, 7), st.integers(0, 2**31))
def test_closed_form_is_the_recursion_in_any_order(views: int, classes: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    evidence = 5 * torch.rand(views, 1, 1, classes, generator=random, dtype=torch.float64) ** 3
    fused = fuse(evidence, everything(evidence))[0, 0, 0]
    for order in list(permutations(range(views)))[:: max(1, math.factorial(views) // 6)]:
        expected = reduce(dempster, [evidence[v, 0, 0] for v in order])
        torch.testing.assert_close(fused, expected, rtol=1e-9, atol=1e-9)
    assert uncertainty(fused) <= uncertainty(evidence).min() + 1e-12


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**31))
def test_missing_and_vacuous_views_change_nothing(views: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    evidence = torch.rand(views, 4, 2, 3, generator=random) * 9
    seen = torch.rand(4, views, generator=random) < 0.5
    fused = fuse(evidence, seen[None])[0]
    vacuous = evidence * seen.T[..., None, None]
    assert torch.equal(fuse(vacuous, everything(vacuous))[0], fused)
    garbage = torch.where(seen.T[..., None, None], evidence, 1e4)
    assert torch.equal(fuse(garbage, seen[None])[0], fused)
    for j in range(4):
        alone = evidence[seen[j], j : j + 1]
        expected = fuse(alone, everything(alone))[0, 0] if len(alone) else torch.zeros(2, 3)
        torch.testing.assert_close(fused[j], expected)
    assert torch.equal(uncertainty(torch.zeros(3, 4)), torch.ones(3))


def test_many_patterns_are_fused_at_once() -> None:
    seen = torch.tensor([[[1, 1, 0], [0, 0, 1]], [[1, 0, 1], [1, 1, 1]]]).bool()
    both = fuse(EVIDENCE, seen)
    for p in range(2):
        assert torch.equal(both[p], fuse(EVIDENCE, seen[p : p + 1])[0])


def test_beliefs_and_uncertainty_sum_to_one() -> None:
    alpha = EVIDENCE + 1
    belief = EVIDENCE / alpha.sum(-1, keepdim=True)
    torch.testing.assert_close(belief.sum(-1) + uncertainty(EVIDENCE), torch.ones(3, 2, 1, dtype=torch.float64))
    torch.testing.assert_close(confidence(EVIDENCE), (alpha / alpha.sum(-1, keepdim=True)).amax(-1))


# ---- losses ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**31))
def test_divergence_is_that_of_dirichlets(classes: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    alpha = 1 + 20 * torch.rand(3, classes, generator=random, dtype=torch.float64) ** 4
    y = torch.randint(0, classes, (3,), generator=random)
    true = torch.nn.functional.one_hot(y, classes).bool()
    rid = torch.where(true, torch.ones_like(alpha), alpha)
    expected = kl_divergence(Dirichlet(rid), Dirichlet(torch.ones_like(rid)))
    torch.testing.assert_close(misleading_evidence(alpha, true), expected, rtol=1e-8, atol=1e-10)
    only_true = 1 + (alpha - 1) * true
    assert misleading_evidence(only_true, true).abs().max() < 1e-12


def test_expected_cross_entropy_is_the_mean_over_draws() -> None:
    alpha = torch.tensor([[3.0, 1.5, 1.0], [1.0, 1.0, 6.0]], dtype=torch.float64)
    true = torch.tensor([[True, False, False], [False, False, True]])
    drawn = Dirichlet(alpha).sample((200_000,))
    sampled = -(drawn.clamp(min=1e-300).log() * true).sum(-1).mean(0)
    torch.testing.assert_close(expected_cross_entropy(alpha, true), sampled, atol=0.01, rtol=0)


def test_losses_and_gradients_stay_finite_however_large_the_evidence() -> None:
    evidence = torch.tensor([[[[1e30, 0.0, 2.0]]], [[[1e5, 1e8, 0.0]]]], requires_grad=True)
    true = torch.tensor([[[True, False, False]]])
    fused = fuse(evidence, everything(evidence))
    assert torch.isfinite(fused).all()
    lost = evidential_loss(torch.cat([evidence, fused]), true, torch.ones(1)).sum()
    lost.backward()
    assert torch.isfinite(lost)
    assert torch.isfinite(evidence.grad).all()


def test_annealing_rises_and_stays() -> None:
    progress = torch.tensor([0.0, 0.05, 0.1, 0.6, 1.0])
    torch.testing.assert_close(annealed(progress, torch.tensor(0.1)), torch.tensor([0.0, 0.5, 1.0, 1.0, 1.0]))


# ---- tasks ----------------------------------------------------------------------------------------------------------


def test_one_opinion_about_classes_and_one_about_each_label() -> None:
    assert opinion_shape(MultiClass(5)) == (1, 5)
    assert opinion_shape(Binary()) == (1, 2)
    assert opinion_shape(MultiLabel(4)) == (4, 2)
    labels = true_classes(MultiLabel(2), torch.tensor([[1.0, 0.0]]))
    assert labels.tolist() == [[[False, True], [True, False]]]
    assert "regression" in (no_opinion(Regression()) or "")
    assert no_opinion(MultiLabel(4)) is None


@pytest.mark.parametrize("task", [MultiClass(4), Binary(), MultiLabel(3)])
def test_outputs_are_read_as_expected_probabilities(task: MultiClass | MultiLabel) -> None:
    evidence = 8 * torch.rand(5, *opinion_shape(task))
    alpha = evidence + 1
    expected = alpha / alpha.sum(-1, keepdim=True)
    ours = task.probabilities(outputs(task, evidence))
    torch.testing.assert_close(ours, expected[..., 1] if isinstance(task, MultiLabel) else expected[:, 0])


def test_evidence_is_never_negative() -> None:
    logits = torch.linspace(-50, 50, 11)
    assert activated(logits, "softplus").min() >= 0
    assert torch.equal(activated(logits, "relu"), logits.clamp(min=0))
