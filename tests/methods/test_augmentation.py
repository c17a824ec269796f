"""Augmentation, and what it shares with the other methods that train on missing patterns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datasets.batch import Batch, make_batch
from datasets.tasks import MultiClass, Regression
from methods.augmentation import Augmentation, AugmentationConfig
from methods.concat import Concat, ConcatConfig
from methods.noise import row_keys
from methods.patterns import missing_patterns
from methods.zero_inputs import (
    PatternConfig,
    choose_patterns,
    pattern_loss,
    pattern_weights,
    relative_error,
    restoration_error,
    training_patterns,
)

SHAPES = {"text": (5,), "audio": (3,), "vision": (4,)}
SMALL = {"latent": 6, "head_width": 7}


def model(**values: object) -> Augmentation:
    torch.manual_seed(1)
    return Augmentation(SHAPES, Regression(), AugmentationConfig.model_validate(SMALL | values))


def batch(available: Tensor | None = None, size: int = 8, step: int = 0) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    labelled = torch.arange(size) % 3 != 2
    target, noise = torch.randn(size, generator=random), row_keys(0, step, size)
    return make_batch(inputs, target, available=available, labelled=labelled, noise=noise)


def test_mean_over_three_patterns_by_hand() -> None:
    """One sample of class 0 with logits (2, 0), (0.5, 0.5), (-1, 1) under three patterns."""
    logits = torch.tensor([[[2.0, 0.0]], [[0.5, 0.5]], [[-1.0, 1.0]]])
    of = make_batch({"a": torch.ones(1, 2)}, torch.tensor([0]))
    task, all_three = MultiClass(n_classes=2), torch.ones(3, 1, dtype=torch.bool)
    assert pattern_loss(task, logits, all_three, of).item() == pytest.approx(0.98233440, abs=1e-7)
    last = torch.tensor([[False], [False], [True]])
    assert pattern_loss(task, logits, last, of).item() == pytest.approx(2.12692801, abs=1e-6)


@pytest.mark.parametrize("incomplete", [False, True])
@pytest.mark.parametrize("full_pattern", [True, False])
def test_loss_equals_predictions_pattern_by_pattern(incomplete: bool, full_pattern: bool) -> None:
    """Each pattern is made in the data, and the network reads that as it would at test time."""
    has = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 1]] * 2).bool() if incomplete else torch.ones(8, 3) > 0
    method, of = model(full_pattern=full_pattern).eval(), batch(has)
    losses: list[list[float]] = [[] for _ in range(8)]
    for pattern in missing_patterns(3, 63)[0 if full_pattern else 1 :]:
        shown = make_batch(of.inputs, of.target, available=pattern.expand(8, 3))
        errors = (method.predict(shown)[:, 0] - of.target).abs()
        for j in range(8):
            if not (pattern & ~has[j]).any():
                losses[j].append(float(errors[j].detach()))
    expected = [sum(each) / len(each) for j, each in enumerate(losses) if of.labelled[j]]
    assert method.loss(of)["sup"].item() == pytest.approx(sum(expected) / len(expected), abs=1e-6)


def test_with_the_full_pattern_alone_it_is_concat_fusion() -> None:
    method = model().eval()
    method.patterns = method.patterns[:1]
    concat = Concat(SHAPES, Regression(), ConcatConfig.model_validate(SMALL)).eval()
    concat.load_state_dict(method.state_dict())
    assert method.loss(batch())["sup"].item() == pytest.approx(concat.loss(batch())["sup"].item(), abs=1e-7)


def test_drawing_a_pattern_gives_the_enumerated_loss_on_average() -> None:
    enumerated = model(head_dropout=0.0).train().loss(batch())["sup"]
    sampling = model(head_dropout=0.0, patterns="sample").train()
    drawn = torch.stack([sampling.loss(batch(step=step))["sup"] for step in range(600)])
    assert drawn.std() > 1e-3  # one pattern a sample and step
    assert abs(drawn.mean() - enumerated) < 4 * drawn.std() / 600**0.5
    assert sampling.eval().loss(batch())["sup"].item() == pytest.approx(enumerated.item(), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.booleans(), st.integers(0, 2**31))
def test_a_drawn_pattern_is_part_of_what_a_sample_has(modalities: int, full: bool, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    available = torch.rand(32, modalities, generator=random) < 0.6
    inputs = {str(i): torch.zeros(32, 1) for i in range(modalities)}
    of = make_batch(inputs, torch.zeros(32), available=available, noise=row_keys(seed, 0, 32))
    patterns = training_patterns(modalities, PatternConfig(full_pattern=full))
    shown, counts = choose_patterns(patterns, of, "sample", training=True)
    assert shown.shape == (1, 32, modalities)
    assert not (shown & ~available).any()
    assert torch.equal(shown.any(-1), counts)
    assert torch.equal(counts[0], available.any(1))
    known = set(map(tuple, patterns.tolist()))
    assert all(tuple(row) in known for row in shown[0][counts[0]].tolist())


def test_every_pattern_is_drawn_equally_often() -> None:
    available = torch.tensor([[True, True, True], [True, True, False]]).repeat(6000, 1)
    inputs = {str(i): torch.zeros(12000, 1) for i in range(3)}
    of = make_batch(inputs, torch.zeros(12000), available=available, noise=row_keys(5, 0, 12000))
    shown, _ = choose_patterns(missing_patterns(3, 63), of, "sample", training=True)
    for first, patterns in ((0, 7), (1, 3)):
        _, often = shown[0, first::2].unique(dim=0, return_counts=True)
        assert len(often) == patterns
        assert (often - 6000 / patterns).abs().max() < 5 * (6000 / patterns) ** 0.5


def test_patterns_without_the_full_set() -> None:
    assert training_patterns(3, PatternConfig(full_pattern=False)).all(1).sum() == 0
    assert len(training_patterns(3, PatternConfig(full_pattern=False))) == 6
    assert training_patterns(1, PatternConfig(full_pattern=False)).tolist() == [[True]]
    assert len(training_patterns(8, PatternConfig(max_patterns=20))) == 20


def test_each_pattern_drops_units_of_its_own() -> None:
    method = model(head_dropout=0.5).train()
    method.patterns = method.patterns[:1].repeat(2, 1)  # the full set twice: equal but for dropout
    with torch.no_grad():
        once = method.eval().loss(batch())["sup"]
        twice = method.train().loss(batch())["sup"]
        method.patterns = method.patterns[:1]
        single = method.loss(batch())["sup"]
    assert len({once.item(), twice.item(), single.item()}) == 3


def test_restoration_error_counts_entries_once() -> None:
    """Two patterns of two samples; the first has both patterns, the second only the first."""
    estimate = torch.tensor([[[[1.0], [2.0]], [[3.0], [4.0]]], [[[5.0], [6.0]], [[7.0], [8.0]]]])  # (P, B, M, 1)
    counts = torch.tensor([[True, True], [True, False]])
    weight = pattern_weights(counts)
    assert weight.tolist() == [[0.5, 1.0], [0.5, 0.0]]
    zeros = torch.zeros(2, 2, 1)
    everything = torch.ones(2, 2, 2, dtype=torch.bool)
    expected = (0.5 * (1 + 4 + 25 + 36) + 9 + 16) / 4
    assert restoration_error(estimate, zeros, everything, weight).item() == pytest.approx(expected)
    first_modality = torch.tensor([True, False])
    assert restoration_error(estimate, zeros, first_modality, weight).item() == pytest.approx((0.5 * 26 + 9) / 2)
    assert restoration_error(estimate, zeros, ~everything, weight).item() == 0


def test_relative_error_of_the_mean_is_one() -> None:
    target = torch.randn(20, 4)
    rows = torch.arange(20) < 15
    mean = target[:15].mean(0).expand(20, 4)
    assert relative_error(mean, target, rows).item() == pytest.approx(1, abs=1e-5)
    assert relative_error(target, target, rows).item() == 0
    assert relative_error(target, target, torch.zeros(20, dtype=torch.bool)).isfinite()
