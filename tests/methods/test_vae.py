"""What the variational autoencoders share, against torch.distributions and against means written out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Laplace, Normal, kl_divergence

from methods.reconstruction import Target, Targets, averaged_over_time, misfit
from methods.vae import active_share, divergence, drawn, log_normal


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_divergence_and_density_are_those_of_torch(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    mu, log_variance, x = torch.randn(3, 4, 5, generator=random, dtype=torch.float64)
    sigma = (0.5 * log_variance).exp()
    q = Normal(mu, sigma)
    expected = kl_divergence(q, Normal(torch.zeros_like(mu), torch.ones_like(mu))).sum(-1)
    torch.testing.assert_close(divergence(mu, log_variance), expected)
    torch.testing.assert_close(log_normal(x, mu, sigma), q.log_prob(x).sum(-1))


@pytest.mark.parametrize(
    ("likelihood", "density", "constant"),
    [("gaussian", Normal, 0.5 * math.log(2 * math.pi)), ("laplace", Laplace, math.log(2))],
)
def test_misfit_is_a_log_likelihood_without_its_constant(likelihood: str, density: type, constant: float) -> None:
    restored, target = torch.randn(2, 3, 6, dtype=torch.float64)
    expected = -density(restored, 1.0).log_prob(target).sum(-1) - 6 * constant
    torch.testing.assert_close(misfit(restored, target, likelihood), expected)  # type: ignore[arg-type]


def test_without_noise_a_draw_is_the_mean() -> None:
    mu, sigma, epsilon = torch.randn(3, 4, 5)
    assert torch.equal(drawn(mu, sigma, None), mu)
    torch.testing.assert_close(drawn(mu, sigma, epsilon), mu + epsilon * sigma)


def test_active_latents_are_those_whose_mean_varies_among_the_samples_seen() -> None:
    mu = torch.tensor([[1.0, 0.0, 5.0], [-1.0, 0.001, 5.0], [0.0, 9.0, -9.0]])
    assert active_share(mu, torch.tensor([True, True, False])).item() == pytest.approx(1 / 3)
    assert active_share(mu, torch.ones(3, dtype=torch.bool)).item() == pytest.approx(1)
    assert active_share(mu, torch.zeros(3, dtype=torch.bool)).item() == 0


# ---- targets --------------------------------------------------------------------------------------------------------


def test_targets_are_standardised_by_the_samples_that_have_the_modality() -> None:
    x = 3 + 2 * torch.randn(50, 4)
    x[:, 3] = 7.0  # a constant is centred and not divided by zero
    seen = torch.arange(50) < 40
    target = Target((4,))
    target.fit(torch.where(seen[:, None], x, 1e6), seen)
    given = target(x)[seen]
    torch.testing.assert_close(given.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(given.std(0, correction=0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-5, rtol=0)


def test_a_target_nobody_has_stays_as_it_was() -> None:
    target, x = Target((3,)), torch.randn(5, 3)
    target.fit(x, torch.zeros(5, dtype=torch.bool))
    assert torch.equal(target(x), x)


def test_a_sequence_is_its_mean_without_padding() -> None:
    x = torch.randn(2, 5, 3)
    x[0, 3:] = 0  # pads its end
    x[1] = 0  # pads all of it
    mean = averaged_over_time(x)
    torch.testing.assert_close(mean[0], x[0, :3].mean(0))
    assert not mean[1].any()
    assert torch.equal(averaged_over_time(x[0]), x[0])


def test_every_modality_has_a_target_of_its_own() -> None:
    xs = [torch.randn(30, 2), 5 + torch.randn(30, 4, 3)]
    targets = Targets({"a": (2,), "b": (4, 3)})
    targets.fit(xs, torch.ones(2, 30, dtype=torch.bool))
    for vector, width in zip(targets.of(xs), (2, 3), strict=True):
        assert vector.shape == (30, width)
        torch.testing.assert_close(vector.square().mean(0), torch.ones(width), atol=1e-4, rtol=0)
    assert {"each.0.mean", "each.1.std"} <= set(targets.state_dict())  # restored with the best epoch
