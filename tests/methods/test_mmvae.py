"""MMVAE against a worked example of the reference code's functions, and its gradients against their definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datasets.batch import Batch, make_batch
from datasets.tasks import MultiClass, Regression, Task
from methods.mmvae import (
    MMVAE,
    MMVAEConfig,
    draw_weights,
    effective_draws,
    elbo,
    elbo_weighted,
    importance_bound,
    log_mixture,
    mixture_weights,
)
from methods.noise import row_keys
from methods.patterns import missing_patterns
from methods.vae import divergence, log_normal

# ---- the worked example: the reference code's own functions (mmvae, commit 54398d7) give these digits ---------------

MU = torch.tensor([0.5, -0.3], dtype=torch.float64).reshape(2, 1, 1)
SIGMA = torch.tensor([0.8, 1.2], dtype=torch.float64).reshape(2, 1, 1)
EPSILON = torch.tensor([[0.3, -1.1], [0.7, 0.1]], dtype=torch.float64).reshape(2, 2, 1, 1)
BOTH = mixture_weights(torch.ones(2, 1, dtype=torch.bool)).double()
KL = divergence(MU, 2 * SIGMA.log())


class Example:
    """Two modalities, one latent, one sample; the decoders are z (1, -1) and z / 2."""

    def __init__(self, draws: int) -> None:
        self.z = MU[:, None] + EPSILON[:, :draws] * SIGMA[:, None]  # (M, K, B, L)
        first, second = torch.tensor([1.0, -0.5]).double(), torch.tensor([0.2]).double()
        std = torch.tensor(0.75, dtype=torch.float64)
        self.told = torch.stack(
            [
                log_normal(first, self.z * torch.tensor([1.0, -1.0]).double(), std),
                2 * log_normal(second, self.z / 2, std),
            ]
        )  # (M, M, K, B): modality d from the draws of m
        self.log_q = log_normal(self.z, MU[:, None, None], SIGMA[:, None, None])
        zero, one = torch.zeros(1).double(), torch.ones(1).double()
        self.log_weight = log_normal(self.z, zero, one) + self.told.sum(0) - log_mixture(self.log_q, BOTH)


def test_bounds_of_one_draw_by_hand() -> None:
    one = Example(1)
    assert one.log_weight.flatten().tolist() == pytest.approx([-2.837866, -2.818119], abs=1e-6)
    assert elbo(one.told.sum(0), KL, BOTH).item() == pytest.approx(-2.83088128, abs=1e-8)
    own = one.told.diagonal(dim1=0, dim2=1).permute(2, 0, 1)
    assert elbo_weighted(own, own, one.log_q, KL, BOTH).item() == pytest.approx(-2.99354615, abs=1e-8)
    assert importance_bound(one.log_weight, BOTH, looser=False).item() == pytest.approx(-2.82794382, abs=5e-8)
    assert importance_bound(one.log_weight, BOTH, looser=True).item() == pytest.approx(-2.82799257, abs=5e-8)


def test_bounds_of_two_draws_by_hand() -> None:
    two = Example(2)
    assert two.log_weight.flatten().tolist() == pytest.approx([-2.837866, -4.970440, -2.818119, -4.177037], abs=1e-6)
    assert importance_bound(two.log_weight, BOTH, looser=False).item() == pytest.approx(-3.34846756, abs=5e-8)
    assert importance_bound(two.log_weight, BOTH, looser=True).item() == pytest.approx(-3.35079169, abs=5e-8)
    value = (draw_weights(two.log_weight, BOTH, looser=True) * two.log_weight).sum()
    assert value.item() == pytest.approx(-3.07988038, abs=1e-8)


# ---- properties -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("available", [[1, 1, 1], [1, 0, 1], [0, 1, 0]])
def test_the_mixture_is_a_density_of_what_is_there(available: list[int]) -> None:
    grid = torch.linspace(-30, 30, 20001, dtype=torch.float64)[:, None]  # (N, L)
    mu, sigma = torch.tensor([-2.0, 0.5, 3.0]).double(), torch.tensor([0.3, 1.0, 2.0]).double()
    log_q = log_normal(grid, mu[:, None, None], sigma[:, None, None])  # (M, N)
    there = torch.tensor(available).bool()[:, None]
    density = log_mixture(log_q, mixture_weights(there).double()).exp()
    assert torch.trapezoid(density, grid[:, 0]).item() == pytest.approx(1, abs=1e-7)
    mean = torch.trapezoid(density * grid[:, 0], grid[:, 0]).item()
    assert mean == pytest.approx(mu[there[:, 0]].mean().item(), abs=1e-7)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**31))
def test_bounds_are_ordered(experts: int, draws: int, seed: int) -> None:
    """One bound for all draws is at least the mean of the experts' own, which are at least the mean log weight."""
    random = torch.Generator().manual_seed(seed)
    log_weight = 5 * torch.randn(experts, draws, 3, generator=random)
    log_pi = mixture_weights(torch.ones(experts, 3, dtype=torch.bool))
    tight, loose = (importance_bound(log_weight, log_pi, looser) for looser in (False, True))
    assert (tight >= loose - 1e-5).all()
    assert (loose >= log_weight.mean((0, 1)) - 1e-5).all()
    for looser in (True, False):
        assert draw_weights(log_weight, log_pi, looser).sum((0, 1)).tolist() == pytest.approx([1] * 3, abs=1e-5)
    torch.testing.assert_close(
        importance_bound(log_weight[:, :1].expand(-1, draws, -1), log_pi, True), log_weight[:, 0].mean(0)
    )


def test_effective_draws() -> None:
    log_weight = torch.tensor([[0.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0]])[:, :, None]
    assert effective_draws(log_weight).flatten().tolist() == pytest.approx([4, 1])


# ---- the method -----------------------------------------------------------------------------------------------------

SHAPES = {"text": (5,), "audio": (4, 3), "vision": (4,)}
SOME = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1]] * 2).bool()
LABELLED = torch.tensor([1, 1, 0, 1, 0, 1, 1, 0]).bool()


def model(task: Task | None = None, shapes: dict[str, tuple[int, ...]] | None = None, **values: object) -> MMVAE:
    torch.manual_seed(1)
    config = MMVAEConfig.model_validate({"latent": 6, "head_dropout": 0.0} | values)
    return MMVAE(shapes or SHAPES, task or Regression(), config).eval()


def batch(available: Tensor | None = None, labelled: Tensor | None = None, size: int = 8) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    target = torch.randn(size, generator=random)
    return make_batch(inputs, target, available=available, labelled=labelled, noise=row_keys(0, 0, size))


def written_out(method: MMVAE, of: Batch) -> dict[str, float]:
    """The simple bound and the head sample by sample and expert by expert, in evaluation mode."""
    config, names, d = method.config, list(SHAPES), 6
    bounds, sup = [], []
    for j in range(len(of.target)):
        has = [m for m in range(3) if of.available[j, m]]
        h = [method.f[m](of.inputs[name][j : j + 1])[0] for m, name in enumerate(names)]
        x = [method.targets.each[m](of.inputs[name][j : j + 1])[0] for m, name in enumerate(names)]
        total = lost = torch.tensor(0.0)
        for m in has:
            mu, sigma = method.to_mu[m](h[m]), torch.nn.functional.softplus(method.to_sigma[m](h[m])) + 1e-6
            kl = 0.5 * (mu**2 + sigma**2 - 2 * sigma.log() - 1).sum()
            for to in has:  # every expert generates all that is there
                gap = method.decoders[to](mu) - x[to]
                error = 0.5 * gap.square() if config.likelihood == "gaussian" else gap.abs()
                total = total + (error.mean() if config.scale == "per_feature" else 5 / len(gap) * error.sum())
            total = total + (config.beta * kl / d if config.scale == "per_feature" else kl)
            lost = lost + (method.head(mu[None], of.noise[j : j + 1])[0, 0] - of.target[j]).abs()
        bounds.append(config.lambda_elbo * total / len(has))
        if of.labelled[j]:
            sup.append(lost / len(has))
    return {"elbo": float(sum(bounds) / len(bounds)), "sup": float(sum(sup) / len(sup))}


@pytest.mark.parametrize("available", [None, SOME])
@pytest.mark.parametrize(
    "values", [{}, {"likelihood": "laplace", "beta": 0.5, "lambda_elbo": 2.0}, {"scale": "summed"}, {"draws": 4}]
)
def test_losses_equal_a_loop_over_samples_and_experts(values: dict[str, object], available: Tensor | None) -> None:
    method, of = model(**values), batch(available, LABELLED)
    with torch.no_grad():
        expected = written_out(method, of)
        terms = {name: float(value) for name, value in method.loss(of).items()}
    assert terms == pytest.approx(expected, rel=1e-4)


def test_averaging_over_missing_patterns_changes_nothing() -> None:
    """Why there is no switch for it: every expert is in as many patterns as any other and has the same share there."""
    told, kl = torch.randn(3, 1, 1), torch.rand(3, 1)
    everything = elbo(told, kl, mixture_weights(torch.ones(3, 1, dtype=torch.bool)))
    each = [elbo(told, kl, mixture_weights(pattern[:, None])) for pattern in missing_patterns(3, 63)]
    torch.testing.assert_close(torch.stack(each).mean(0), everything)


@pytest.mark.parametrize("looser", [True, False])
@pytest.mark.parametrize("true", [True, False])
def test_doubly_reparameterised_gradients(true: bool, looser: bool) -> None:
    """Through z with the weights squared, through the decoders with the weights, through q not at all."""
    method, of = model(objective="dreg", draws=3, dreg_true=true, looser=looser).train(), batch(SOME)
    with torch.no_grad():
        mu, sigma = method.encode(list(of.inputs.values()))
    mu.requires_grad_()
    sigma.requires_grad_()
    z = method.latents(mu, sigma, of.noise, 3)
    bound = method.bound(z, mu, sigma, of).sum()
    weight_of_decoder = method.decoders[0][0].weight
    given_mu, given_sigma, given_decoder = torch.autograd.grad(bound, [mu, sigma, weight_of_decoder])

    log_pi = mixture_weights(of.available.T)
    free = z.detach().requires_grad_()
    log_weight = method.log_weights(free, mu.detach(), sigma.detach(), log_pi, of)
    a = draw_weights(log_weight, log_pi, looser)
    within = log_weight.detach().softmax(1) if looser else a
    [through_z] = torch.autograd.grad((a * (within if true else 1) * log_weight).sum(), free, retain_graph=True)
    [through_decoder] = torch.autograd.grad((a * log_weight).sum(), weight_of_decoder)
    epsilon = ((z - mu[:, None]) / sigma[:, None]).detach()
    torch.testing.assert_close(given_mu, through_z.sum(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(given_sigma, (through_z * epsilon).sum(1), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(given_decoder, through_decoder, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bound, (a * log_weight).sum())  # the value is the same either way


def test_one_modality_and_one_draw_are_a_plain_autoencoder() -> None:
    """IWAE's bound is then log p(x, z) - log q(z | x), the bound with its divergence sampled."""
    method = model(shapes={"text": (5,)}, objective="iwae").train()
    of = make_batch({"text": torch.randn(4, 5)}, torch.randn(4), noise=row_keys(0, 0, 4))
    with torch.no_grad():
        mu, sigma = method.encode([of.inputs["text"]])
        z = method.latents(mu, sigma, of.noise, 1)
        bound = method.bound(z, mu, sigma, of)
        latent, standard = z[0, 0], torch.distributions.Normal(torch.zeros(6), torch.ones(6))
        error = 0.5 * (method.decoders[0](latent) - of.inputs["text"]).square().sum(-1)
        sampled = (torch.distributions.Normal(mu[0], sigma[0]).log_prob(latent) - standard.log_prob(latent)).sum(-1)
    torch.testing.assert_close(bound, -6 / (0.1 * 5) * error - sampled, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("objective", ["elbo", "elbo_weighted", "iwae", "dreg"])
def test_experts_that_are_absent_have_no_say(objective: str) -> None:
    method = model(objective=objective, draws=3).train()
    of, has = batch(torch.tensor([[True, False, False]]).expand(8, 3)), ["f.1", "to_mu.1", "decoders.1", "f.2"]
    method.loss(of)["elbo"].backward()
    for name, parameter in method.named_parameters():
        if name.startswith(tuple(has)):
            assert parameter.grad is None or not parameter.grad.any()
        if name.startswith("to_mu.0"):
            assert parameter.grad is not None
            assert parameter.grad.any()


def test_the_exposed_bound_moves_an_expert_through_the_weights_of_the_others() -> None:
    """Alone with its own term, text would not depend on vision's draws; there it does, through q_text / q_vision."""
    method, of = model(objective="elbo_weighted").train(), batch()
    mu, sigma = (x.detach().requires_grad_() for x in method.encode(list(of.inputs.values())))
    z = method.latents(mu, sigma, of.noise, 1).detach()
    bound = method.bound(z, mu, sigma, of).sum()
    kl = divergence(mu, 2 * sigma.log()).mean(0).sum()
    [with_weights] = torch.autograd.grad(bound + kl, mu)  # what is left are the importance weights
    assert with_weights.abs().max() > 1e-3


def test_the_learned_prior_has_scales_that_sum_to_the_width() -> None:
    method, of = model(learn_prior=True), batch()
    torch.testing.assert_close(method.prior_scale(6), torch.ones(6))
    assert method.loss(of)["elbo"].item() == pytest.approx(model().loss(of)["elbo"].item(), rel=1e-5)
    with torch.no_grad():
        method.prior[0] = 2.0
    assert method.prior_scale(6).sum().item() == pytest.approx(6)
    with torch.no_grad():
        mu, sigma = method.encode(list(of.inputs.values()))
        kl = torch.distributions.kl_divergence(
            torch.distributions.Normal(mu, sigma), torch.distributions.Normal(0.0, method.prior_scale(6))
        ).sum(-1)
        likelihood = method.likelihoods(mu[:, None], of).sum(0)
        expected = elbo(likelihood, kl, mixture_weights(of.available.T)).mean()
    assert method.loss(of)["elbo"].item() == pytest.approx(-0.1 / 6 * expected.item(), rel=1e-4)


def test_prediction_mixes_the_outputs_or_the_latents_of_what_is_there() -> None:
    late, of = model(MultiClass(n_classes=3)), batch(SOME)
    embedded = late.embed(of)
    each = torch.stack([late.head(embedded[f"z/{name}"], of.noise).softmax(-1) for name in SHAPES])
    weight = SOME.T[..., None].float()
    expected = (each * weight).sum(0) / weight.sum(0)
    torch.testing.assert_close(late.predict(of).softmax(-1), expected)
    mean = model(MultiClass(n_classes=3), inference="latent_mean")
    torch.testing.assert_close(mean.predict(of), mean.head(mean.embed(of)["s"], of.noise))


def test_diagnosis_tells_a_collapse() -> None:
    method, of = model(), batch()
    with torch.no_grad():
        for layer in method.to_mu:
            layer.weight.mul_(10)
    told = {name: float(value) for name, value in method.diagnose(of).items()}
    assert all(told[f"active/{name}"] > 0.5 for name in SHAPES)
    assert all(1 <= told[f"ess/{name}"] < 16 for name in SHAPES)
    with torch.no_grad():
        for layer in (*method.to_mu, *method.to_sigma):
            layer.weight.zero_()
            layer.bias.zero_()
        for layer in method.to_sigma:
            layer.bias.fill_(math.log(math.e - 1))  # softplus gives 1: the prior
    told = {name: float(value) for name, value in method.diagnose(of).items()}
    assert max(told[f"kl/{name}"] for name in SHAPES) < 1e-6
    assert not any(told[f"active/{name}"] for name in SHAPES)


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
def test_more_draws_come_from_noise_of_their_own(objective: str) -> None:
    method, of = model(objective=objective, draws=5).train(), batch()
    mu, sigma = method.encode(list(of.inputs.values()))
    z = method.latents(mu, sigma, of.noise, 5)
    assert z.shape == (3, 5, 8, 6)
    assert len(((z - mu[:, None]) / sigma[:, None]).flatten().unique()) > 600
    assert torch.equal(method.eval().latents(mu, sigma, of.noise, 5), mu[:, None])
