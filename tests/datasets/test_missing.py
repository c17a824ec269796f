"""Training samples that lack modalities: the share asked for, never everything, the same for every method."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from datasets.missing import training_availability

MODALITIES = ("text", "audio", "vision")
rates = st.floats(0, 0.99)


@given(st.integers(1, 200), rates, st.integers(0, 10))
def test_no_sample_lacks_everything_and_draws_repeat(n: int, rate: float, seed: int) -> None:
    first = training_availability(n, MODALITIES, rate, dataset="d", seed=seed)
    np.random.default_rng(0).random(10)
    assert first.shape == (n, 3)
    assert first.any(axis=1).all()
    assert (first == training_availability(n, MODALITIES, rate, dataset="d", seed=seed)).all()


@given(rates, rates)
def test_what_a_smaller_rate_takes_a_larger_one_takes_too(a: float, b: float) -> None:
    low, high = sorted((a, b))
    few = training_availability(300, MODALITIES, low, dataset="d", seed=0)
    many = training_availability(300, MODALITIES, high, dataset="d", seed=0)
    some_left = many.sum(axis=1) > 1  # a sample with one left may have been given it back
    assert (few | ~many)[some_left].all()


def test_shares_are_those_asked_for_by_name() -> None:
    available = training_availability(20_000, MODALITIES, {"audio": 0.5, "text": 0.1}, dataset="d", seed=1)
    assert np.allclose(available.mean(axis=0), [0.9, 0.5, 1.0], atol=0.02)


def test_rate_zero_takes_nothing_and_seeds_differ() -> None:
    assert training_availability(50, MODALITIES, 0.0, dataset="d", seed=0).all()
    a, b = (training_availability(200, MODALITIES, 0.5, dataset="d", seed=seed) for seed in (0, 1))
    assert (a != b).any()
