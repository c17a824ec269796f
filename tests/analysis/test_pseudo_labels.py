"""Pseudo-labels: who counts, what the percentile keeps, and that chance is not taken for skill."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.pseudo_labels import (
    WeightedLabels,
    confusion,
    judge,
    kept,
    precision_by_class,
    purity,
    purity_frame,
    row_shares,
    weighted_labels,
)
from analysis.representations import RepresentationError

TIED = [0.1, 0.2, 0.2, 0.4, 0.5, 0.6, 0.7, 0.9]


def test_the_percentile_keeps_ties() -> None:
    # numpy.percentile interpolates to 0.2 here; "above it" would keep five.
    assert np.percentile(TIED, 25) == pytest.approx(0.2)
    assert kept(TIED).sum() == 7
    assert (np.array(TIED) > 0.2).sum() == 5
    assert kept([0.3] * 6).all()


def test_pairs_with_a_hidden_candidate_count_once_each() -> None:
    pseudo, true = np.array([0, 0, 0, 1]), np.array([0, 1, 0, 1])
    labelled = np.array([True, False, False, False])
    same = pseudo[:, None] == pseudo[None]
    weight = np.arange(32, dtype=float).reshape(2, 4, 4)
    found = weighted_labels(weight, np.stack([same, same]), pseudo, true, labelled)
    # Candidates 1 and 2 with anchors 0, 2 and 0, 1; candidate 3 is alone in its class, candidate 0 is labelled.
    slow = [
        (true[k], pseudo[k], weight[i, j, k])
        for i in range(2)
        for j in range(4)
        for k in range(4)
        if same[j, k] and j != k and not labelled[k]
    ]
    assert list(zip(found.true, found.pseudo, found.weight, strict=True)) == slow
    assert len(slow) == 8
    mean = weighted_labels(weight, np.stack([same, same]), pseudo, true, labelled, count="samples")
    assert list(mean.true) == [1, 0]
    np.testing.assert_allclose(mean.weight, [(1 + 9 + 17 + 25) / 4, (2 + 6 + 18 + 22) / 4])


def test_confusion_keeps_empty_classes_and_its_order() -> None:
    counts = confusion([-3, 0, 0, 2], [-3, 0, 1, -2], range(-3, 4))
    assert counts.shape == (7, 7)
    assert counts[0, 0] == counts[3, 3] == counts[3, 4] == counts[5, 1] == 1
    assert counts.sum() == 4
    assert purity(counts) == 0.5
    shares = row_shares(counts)
    np.testing.assert_allclose(shares[3], [0, 0, 0, 0.5, 0.5, 0, 0])
    assert np.isnan(shares[1]).all()
    np.testing.assert_allclose(precision_by_class(counts)[[0, 1, 4]], [1, 0, 0])
    assert np.isnan(precision_by_class(counts)[6])


def batches(skill: float, n: int = 400, seed: int = 0) -> list[WeightedLabels]:
    """Two batches with 70 % right; weights are higher by `skill` where right."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(2):
        pseudo = draw.integers(0, 3, n)
        right = draw.random(n) < 0.7
        made.append(WeightedLabels(np.where(right, pseudo, (pseudo + 1) % 3), pseudo, draw.random(n) + skill * right))
    return made


def test_weights_that_know_beat_the_random_drop_and_others_do_not() -> None:
    good, blind = judge(batches(0.5), range(3)), judge(batches(0.0), range(3))
    assert good.purity_after > good.null.max()
    assert good.auroc > 0.75
    assert good.dropped_share == pytest.approx(0.25, abs=0.01)
    assert blind.purity_before == pytest.approx(blind.null_mean, abs=0.01)
    assert blind.null.min() - 0.01 < blind.purity_after < blind.null.max() + 0.01
    assert blind.auroc == pytest.approx(0.5, abs=0.06)
    np.testing.assert_array_equal(good.null, judge(batches(0.5), range(3)).null)
    assert good.note == ""


def test_the_percentile_is_that_of_each_batch() -> None:
    low, high = (WeightedLabels(np.zeros(8, int), np.zeros(8, int), np.array(TIED) + shift) for shift in (0, 10))
    assert judge([low, high], [0]).after.sum() == 14


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_auroc_is_the_share_of_pairs_in_order(seed: int) -> None:
    draw = np.random.default_rng(seed)
    pseudo, weight = draw.integers(0, 2, 30), draw.integers(0, 5, 30) / 4
    true = np.concatenate([[0, 1], draw.integers(0, 2, 28)])
    pseudo[:2] = 0
    right, wrong = weight[true == pseudo], weight[true != pseudo]
    order = (right[:, None] > wrong[None]).mean() + 0.5 * (right[:, None] == wrong[None]).mean()
    assert judge([WeightedLabels(true, pseudo, weight)], [0, 1]).auroc == pytest.approx(order)


def test_equal_weights_are_told() -> None:
    flat = WeightedLabels(np.array([0, 1]), np.array([0, 0]), np.ones(2))
    judged = judge([flat, *batches(0.1)], range(3))
    assert judged.note == "all weights are equal in 1 of 3 batches: nothing is filtered there"
    assert np.isnan(judge([WeightedLabels(np.zeros(4, int), np.zeros(4, int), np.arange(4.0))], [0]).auroc)


def test_purity_over_epochs() -> None:
    frame = purity_frame({20: judge(batches(0.5), range(3)), 1: judge(batches(0.1), range(3))})
    assert list(frame["epoch"]) == [1, 20]
    assert (frame["null_low"] <= frame["null_mean"]).all()
    assert (frame["null_mean"] <= frame["null_high"]).all()
    assert (frame["n"] == 800).all()
    assert purity_frame({}).empty


SQUARE = np.ones((2, 2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: judge([], [0]), "no pseudo-label to judge"),
        (lambda: confusion([0, 5], [0, 0], [0, 1]), r"labels \[5\] are not among"),
        (lambda: weighted_labels(SQUARE, SQUARE, [0, 1], [0, 0], [False, False]), "different pseudo-classes"),
        (lambda: weighted_labels(SQUARE * np.nan, SQUARE, [0, 0], [0, 0], [False, False]), "NaN"),
        (lambda: weighted_labels(SQUARE[:1], SQUARE[:1], [0, 0], [0, 0], [False, False]), "B = 2"),
        (lambda: weighted_labels(SQUARE, SQUARE, [0, 0], [0.5, 0], [False, False]), "whole numbers"),
    ],
)
def test_hostile_input_is_told_in_a_sentence(call: object, words: str) -> None:
    with pytest.raises(RepresentationError, match=words):
        call()  # type: ignore[operator]
