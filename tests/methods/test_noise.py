"""Stateless noise: even, uncorrelated, and the same whoever else draws."""

import math

import pytest
import torch
from scipy import stats

from methods.noise import dropout, normal, row_keys, uniform


def test_uniform_numbers_are_uniform() -> None:
    draws = uniform(row_keys(7, 3, 256), 0, (400,)).flatten()
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws.numpy(), "uniform").pvalue > 1e-3


def test_normal_numbers_are_normal_and_finite() -> None:
    draws = normal(row_keys(7, 3, 256), 1, (400,)).flatten()
    assert draws.isfinite().all()
    assert stats.kstest(draws.numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("axis", ["seed", "step", "row", "site", "element"])
def test_neighbours_on_every_axis_are_uncorrelated(axis: str) -> None:
    n = 20_000
    pairs = {
        "seed": (uniform(row_keys(5, 0, n), 0), uniform(row_keys(6, 0, n), 0)),
        "step": (uniform(row_keys(5, 0, n), 0), uniform(row_keys(5, 1, n), 0)),
        "row": (uniform(row_keys(5, 0, n + 1), 0)[:-1], uniform(row_keys(5, 0, n + 1), 0)[1:]),
        "site": (uniform(row_keys(5, 0, n), 0), uniform(row_keys(5, 0, n), 1)),
        "element": tuple(uniform(row_keys(5, 0, n), 0, (2,)).T),
    }
    a, b = pairs[axis]
    assert not torch.equal(a, b)
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4 / math.sqrt(n)


def test_seeds_that_differ_in_high_bits_alone_differ() -> None:
    assert not torch.equal(row_keys(1, 0, 8), row_keys(1 + (1 << 40), 0, 8))


def test_the_same_axes_give_the_same_numbers_whatever_the_global_state() -> None:
    first = normal(row_keys(9, 4, 5), 2, (3, 2))
    torch.manual_seed(123)
    assert torch.equal(first, normal(row_keys(9, 4, 5), 2, (3, 2)))


def test_a_sample_draws_the_same_alone_in_a_batch_and_under_vmap() -> None:
    keys = torch.stack([row_keys(seed, 0, 6) for seed in (1, 2, 3)])  # (K, B)
    together = torch.func.vmap(lambda key: normal(key, 3, (4,)))(keys)
    for replica in range(3):
        assert torch.equal(together[replica], normal(keys[replica], 3, (4,)))
        assert torch.equal(together[replica, 2:3], normal(keys[replica, 2:3], 3, (4,)))


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    x = torch.ones(500, 40)
    dropped = dropout(x, 0.25, row_keys(0, 0, 500), 0)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert dropout(x, 0.0, row_keys(0, 0, 500), 0) is x


def test_golden_words_pin_the_stream() -> None:
    """A change of the hash changes results, and must raise the protocol version with it."""
    assert row_keys(12345, 6, 3).tolist() == GOLDEN_KEYS
    assert uniform(row_keys(12345, 6, 1), 2, (3,))[0].tolist() == pytest.approx(GOLDEN_UNIFORM, abs=0)


GOLDEN_KEYS = [2656607634, 3792143868, 1813375731]
GOLDEN_UNIFORM = [0.8989090919494629, 0.44889116287231445, 0.9245669841766357]
