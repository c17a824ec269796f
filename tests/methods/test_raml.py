"""RAML against a worked example by hand and against sums over patterns, modalities and samples written out."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from datasets.batch import Batch, make_batch
from datasets.tasks import MultiClass, Regression
from methods.noise import normal, row_keys
from methods.patterns import mean_over_patterns, missing_patterns, possible
from methods.raml import (
    BOUND,
    RAML,
    Gaussians,
    RAMLConfig,
    fused_means,
    fusion_weights,
)

# ---- the worked example: two modalities, two features, one sample of class 0 and a predictor that changes nothing ----

MU = torch.tensor([[[1.0, 2.0]], [[3.0, -2.0]]])
SIGMA = torch.tensor([[[1.0, 2.0]], [[2.0, 1.0]]])
EXAMPLE = Gaussians(MU, 2 * SIGMA.log())


def example_model(**values: object) -> RAML:
    config = RAMLConfig.model_validate({"latent": 2, "l1_reduction": "sum"} | values)
    method = RAML({"a": (2,), "b": (2,)}, MultiClass(n_classes=2), config)
    method.encode = lambda xs: EXAMPLE  # type: ignore[method-assign]
    with torch.no_grad():
        for predictor in (method.predictor, *getattr(method, "single", [])):
            predictor.weight.copy_(torch.eye(2))
            predictor.bias.zero_()
    return method.eval()  # without noise


def example_batch(labelled: bool = True) -> Batch:
    return make_batch(
        {"a": torch.ones(1, 2), "b": torch.ones(1, 2)}, torch.tensor([0]), labelled=torch.tensor([labelled])
    )


@pytest.mark.parametrize(
    ("available", "weights", "h"),
    [
        ([True, True], [[0.8, 0.2], [0.2, 0.8]], [1.4, -1.2]),
        ([True, False], [[1.0, 1.0], [0.0, 0.0]], [1.0, 2.0]),
        ([False, True], [[0.0, 0.0], [1.0, 1.0]], [3.0, -2.0]),
    ],
)
def test_weights_and_fused_means_by_hand(available: list[bool], weights: list[list[float]], h: list[float]) -> None:
    delta = torch.tensor([available])
    ours = fusion_weights(-EXAMPLE.log_variance, delta)
    torch.testing.assert_close(ours[:, 0], torch.tensor(weights), atol=1e-6, rtol=0)
    torch.testing.assert_close(fused_means(MU, -EXAMPLE.log_variance, delta)[0], torch.tensor([h]), atol=1e-5, rtol=0)
    torch.testing.assert_close(example_model().fuse(EXAMPLE, delta), torch.tensor([h]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("lambda_u", "lambda_d", "total"), [(1.0, 1.0, 4.791622), (1.0, 0.2, 2.071622)])
def test_losses_by_hand(lambda_u: float, lambda_d: float, total: float) -> None:
    method = example_model(full_modality_training=True, lambda_u=lambda_u, lambda_d=lambda_d)
    terms = method.loss(example_batch())
    assert terms["m"].item() == pytest.approx(0.071645, abs=1e-5)
    assert terms["u"].item() == pytest.approx(1.319977 * lambda_u, abs=1e-5)
    assert terms["d"].item() == pytest.approx(3.4 * lambda_d, abs=1e-5)
    assert sum(terms.values()).item() == pytest.approx(total, abs=1e-5)


def test_mean_over_the_features_halves_the_norm_of_two() -> None:
    method = example_model(l1_reduction="mean", lambda_d=1.0)
    assert method.loss(example_batch())["d"].item() == pytest.approx(1.7, abs=1e-5)


def test_each_modality_alone_by_hand() -> None:
    task, target = MultiClass(n_classes=2), torch.tensor([0])
    losses = [task.sample_loss(mu, target).item() for mu in MU]
    assert losses == pytest.approx([1.313262, 0.006715], abs=1e-5)


def test_fused_loss_is_averaged_over_the_three_patterns() -> None:
    assert example_model().loss(example_batch())["m"].item() == pytest.approx(0.463874, abs=1e-5)


def test_sampling_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """rho (1, -1) and (0.5, 2) move the means to (2, 0) and (4, 0)."""
    rho = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    monkeypatch.setattr("methods.raml.normal", lambda key, site, shape: rho[site].expand(len(key), *shape))
    terms = example_model().train().loss(example_batch())
    assert terms["u"].item() == pytest.approx(0.145078, abs=1e-5)
    assert terms["m"].item() == pytest.approx(0.463874, abs=1e-5)  # the fused mean is never sampled


def test_availability_in_the_single_losses_by_hand() -> None:
    """Two of the three patterns hold each modality; L^D is 3.4, 3 and 5 under them."""
    terms = example_model(mask_unimodal=True, lambda_d=1.0).loss(example_batch())
    assert terms["u"].item() == pytest.approx(1.319977 * 2 / 3, abs=1e-5)
    assert terms["d"].item() == pytest.approx((3.4 + 3 + 5) / 3, abs=1e-5)


def test_weights_of_the_ablations_by_hand() -> None:
    both = torch.tensor([[True, True]])
    identical = example_model(weighting="identical")
    torch.testing.assert_close(identical.fuse(EXAMPLE, both), torch.tensor([[2.0, 0.0]]))
    fixed = example_model(weighting="fixed")
    torch.testing.assert_close(fixed.fuse(EXAMPLE, both), torch.tensor([[2.0, 0.0]]))  # all start alike
    with torch.no_grad():
        fixed.fixed.copy_(torch.tensor([[[math.log(3.0), 0.0]], [[0.0, math.log(4.0)]]]))
    torch.testing.assert_close(fixed.fuse(EXAMPLE, both), torch.tensor([[1.5, -1.2]]))
    torch.testing.assert_close(fixed.fuse(EXAMPLE, torch.tensor([[False, True]])), MU[1])


# ---- against sums written out ---------------------------------------------------------------------------------------

SHAPES = {"text": (5,), "audio": (3,), "vision": (4,)}


def model(**values: object) -> RAML:
    torch.manual_seed(1)
    return RAML(SHAPES, Regression(), RAMLConfig.model_validate({"latent": 6, "width": 7} | values))


def batch(available: Tensor | None = None, labelled: Tensor | None = None, size: int = 8) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    noise = row_keys(0, 0, size)
    return make_batch(inputs, torch.randn(size, generator=random), available=available, labelled=labelled, noise=noise)


def written_out(method: RAML, of: Batch) -> dict[str, float]:
    """The losses sample by sample, modality by modality and pattern by pattern, with softmax weights."""
    config, names = method.config, list(SHAPES)
    fused, single, norms = [], {name: [] for name in names}, []
    for j in range(len(of.target)):
        has = [m for m in range(3) if of.available[j, m]]
        patterns = [p for n in product([True, False], repeat=3) if (p := [m for m in range(3) if n[m]])]
        patterns = [p for p in patterns if set(p) <= set(has)]
        h = [method.f[m](of.inputs[name][j]) for m, name in enumerate(names)]
        mu = [method.g_mu[m](h[m]) for m in range(3)]
        log_variance = [method.g_sigma[m](h[m]).clamp(-BOUND, BOUND) for m in range(3)]
        score = {"adaptive": [-v for v in log_variance], "identical": [torch.zeros(7)] * 3}.get(config.weighting)
        score = [method.fixed[m, 0] for m in range(3)] if score is None else score

        def weigh(p: list[int], score: list[Tensor] = score) -> dict[int, Tensor]:
            return dict(zip(p, torch.stack([score[m] for m in p]).softmax(0), strict=True))

        def norm(p: list[int], mu: list[Tensor] = mu) -> Tensor:
            size = torch.stack([(w * mu[m]).abs() for m, w in weigh(p).items()]).sum(0)
            return size.sum() if config.l1_reduction == "sum" else size.mean()

        def lost(predictor: nn.Module, x: Tensor, j: int = j) -> Tensor:
            return (predictor(x)[0] - of.target[j]).abs()

        if of.labelled[j]:
            each = [lost(method.predictor, sum(w * mu[m] for m, w in weigh(p).items())) for p in patterns]
            fused.append(sum(each) / len(each))
            for m in has:
                rho = normal(of.noise, m, (7,))[j]
                sample = mu[m] + rho * (0.5 * log_variance[m]).exp()
                predictor = method.predictor if config.shared_predictor else method.single[m]
                share = sum(m in p for p in patterns) / len(patterns) if config.mask_unimodal else 1
                single[names[m]].append(share * lost(predictor, sample))
        if of.labelled[j] or config.l1_on_unlabelled:
            under = [norm(p) for p in patterns] if config.mask_unimodal else [norm(has)]
            norms.append(sum(under) / len(under))
    return {
        "m": float(sum(fused) / len(fused)),
        "u": config.lambda_u * float(sum(sum(x) / len(x) for x in single.values() if x)),
        "d": config.lambda_d * float(sum(norms) / len(norms)),
    }


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"mask_unimodal": True, "shared_predictor": False, "l1_reduction": "sum"},
        {"weighting": "identical", "l1_on_unlabelled": True, "lambda_u": 0.5},
        {"weighting": "fixed", "lambda_d": 0.7, "mask_unimodal": True, "l1_on_unlabelled": True},
    ],
)
def test_losses_equal_sums_written_out(values: dict[str, object], whole: bool) -> None:
    available = None if whole else torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]] * 2).bool()
    of = batch(available, labelled=torch.tensor([1, 1, 0, 1, 0, 1, 1, 0]).bool())
    method = model(**values).train()
    if method.config.weighting == "fixed":
        nn.init.normal_(method.fixed)
    with torch.no_grad():
        expected, terms = written_out(method, of), method.loss(of)
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**31))
def test_weights_are_shares_of_what_is_there(modalities: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    mu, log_variance = torch.randn(2, modalities, 6, 4, generator=random)
    log_variance = (8 * log_variance).clamp(-BOUND, BOUND)
    available = torch.rand(6, modalities, generator=random) < 0.6
    available[torch.arange(6), torch.randint(0, modalities, (6,), generator=random)] = True
    weights = fusion_weights(-log_variance, available)
    torch.testing.assert_close(weights.sum(0), torch.ones(6, 4), atol=1e-5, rtol=0)
    assert not weights[~available.T].any()
    expected = torch.where(available.T[..., None], -log_variance, -torch.inf).softmax(0)
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-4)
    for j in range(6):  # the fused mean of many patterns at once is that of the weights
        fused = fused_means(mu, -log_variance, available[j : j + 1])[0, j]
        torch.testing.assert_close(fused, (weights * mu).sum(0)[j], atol=1e-5, rtol=1e-4)


def test_no_modality_at_all_gives_zeros_not_nan() -> None:
    assert not fusion_weights(torch.zeros(3, 2, 4), torch.zeros(2, 3, dtype=torch.bool)).any()


# ---- patterns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modalities", [1, 2, 3, 6])
def test_all_patterns_of_up_to_six_modalities(modalities: int) -> None:
    patterns = missing_patterns(modalities, 63)
    assert patterns.shape == (2**modalities - 1, modalities)
    assert len(set(map(tuple, patterns.tolist()))) == len(patterns)
    assert patterns.any(1).all()
    assert patterns[0].all()


@pytest.mark.parametrize("most", [1, 9, 63])
def test_a_fixed_sample_of_the_patterns_of_more(most: int) -> None:
    patterns = missing_patterns(8, most)
    assert torch.equal(patterns, missing_patterns(8, most))
    rows = set(map(tuple, patterns.tolist()))
    assert len(rows) == len(patterns) == max(most, 9)
    assert patterns[0].all()
    assert torch.equal(patterns[1:9], torch.eye(8).bool())
    assert patterns.any(1).all()


def test_a_sample_is_shown_only_what_it_has() -> None:
    available = torch.tensor([[True, True], [True, False], [False, True]])
    fits = possible(missing_patterns(2, 63), available)  # both, first, second
    assert fits.T.tolist() == [[True, True, True], [False, True, False], [False, False, True]]
    assert mean_over_patterns(torch.tensor([[3.0], [6.0], [9.0]]), fits).tolist() == [6.0, 6.0, 9.0]


# ---- the method -----------------------------------------------------------------------------------------------------


def test_prediction_reads_the_means_of_what_is_there() -> None:
    available = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
    method, of = model(), batch(available.bool())
    embedded, output = method.embed(of), method.predict(of)
    torch.testing.assert_close(output, method.predictor(embedded["s"]))
    for j, name in ((1, "text"), (2, "audio"), (3, "vision")):
        torch.testing.assert_close(embedded["s"][j], embedded[f"z/{name}"][j])
    assert torch.equal(method.train().predict(of), method.eval().predict(of))


def test_noise_is_drawn_in_training_only_and_anew_for_every_modality() -> None:
    method, of = model(), batch()
    other = of._replace(noise=row_keys(0, 1, 8))
    first, second = (method.train().loss(x)["u"].item() for x in (of, other))
    assert first != second
    assert method.eval().loss(of)["u"].item() == method.loss(other)["u"].item()
    assert not torch.equal(normal(of.noise, 0, (7,)), normal(of.noise, 1, (7,)))


@pytest.mark.parametrize(
    ("values", "needs"),
    [
        ({}, True),
        ({"l1_on_unlabelled": True}, False),
        ({"l1_on_unlabelled": True, "lambda_d": 0.0}, True),
        ({"l1_on_unlabelled": True, "sparsity_loss": False}, True),
    ],
)
def test_labels_are_needed_unless_the_norm_is_taken_of_all(values: dict[str, object], needs: bool) -> None:
    method = model(**values)
    assert method.needs_labels == needs
    terms = method.loss(batch(labelled=torch.zeros(8, dtype=torch.bool)))
    sum(terms.values()).backward()
    moved = any(p.grad is not None and bool(p.grad.any()) for p in method.parameters())
    assert moved != needs


@pytest.mark.parametrize(
    ("variant", "terms"), [("only_m", {"m"}), ("m_d", {"m", "d"}), ("m_u", {"m", "u"}), ("weight_fixed", set("mud"))]
)
def test_variants_have_the_terms_of_their_table(variant: str, terms: set[str]) -> None:
    assert set(model(**RAML.variants[variant]).loss(batch())) == terms


def test_diagnosis_tells_a_collapse() -> None:
    method, of = model(), batch()
    told = {name: float(value) for name, value in method.diagnose(of).items()}
    assert sum(told[f"weight/{name}"] for name in SHAPES) == pytest.approx(1, abs=1e-5)
    assert told["bounded"] == 0
    assert min(told[f"sigma_spread/{name}"] for name in SHAPES) > 0.01
    with torch.no_grad():
        for g in (*method.g_sigma, method.g_mu[1]):
            g.weight.zero_()
            g.bias.zero_()
        method.g_sigma[0].bias.fill_(-50.0)  # at the bound, hence far surer than the others
    told = {name: float(value) for name, value in method.diagnose(of).items()}
    assert told["weight/text"] > 0.99
    assert told["sigma/text"] == pytest.approx(math.exp(-BOUND / 2), rel=1e-4)
    assert told["sigma_spread/audio"] == pytest.approx(0, abs=1e-6)
    assert told["mu/audio"] == pytest.approx(0, abs=1e-6)
    assert told["bounded"] == pytest.approx(1 / 3)


def test_the_fused_loss_alone_learns_to_prefer_the_informative_modality() -> None:
    """With L^U or L^D it need not: both pull sigma, or the weighted mean, of a useless modality down."""
    random = torch.Generator().manual_seed(0)
    target = torch.arange(200) % 2
    good = torch.randn(200, 4, generator=random) + 3 * (2.0 * target[:, None] - 1)
    bad = torch.randn(200, 4, generator=random)
    noisy = make_batch({"good": good, "bad": bad}, target)
    method = RAML({"good": (4,), "bad": (4,)}, MultiClass(n_classes=2), RAMLConfig(latent=8, **RAML.variants["only_m"]))
    optimiser = torch.optim.Adam(method.parameters(), lr=3e-3)
    for _ in range(200):
        optimiser.zero_grad()
        sum(method.loss(noisy).values()).backward()
        optimiser.step()
    assert method.diagnose(noisy)["weight/good"] > 0.6
    assert F.cross_entropy(method.predict(noisy), target) < 0.01
