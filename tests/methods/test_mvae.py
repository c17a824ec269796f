"""MVAE against worked examples of the reference code's functions and against a loop over samples and subsets."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datasets.batch import Batch, make_batch
from datasets.tasks import Binary, MultiClass, MultiLabel, Regression, Task
from methods.mvae import (
    MVAE,
    Gaussians,
    MVAEConfig,
    label_vectors,
    negative_bound,
    product_of_experts,
    random_subsets,
)
from methods.noise import row_keys
from methods.vae import divergence

# ---- worked examples: the reference code's own functions (mvae, commit 2a358eb) give these digits -------------------

EXAMPLE = Gaussians(
    torch.tensor([[[1.0, -2.0]], [[0.5, 3.0]]], dtype=torch.float64),
    torch.tensor([[[0.0, -1.0]], [[1.0, 0.5]]], dtype=torch.float64),
)


@pytest.mark.parametrize(
    ("among", "mu", "log_variance", "kl"),
    [
        ([True, True], [0.5, -0.83633029], [-0.8619948, -1.46436878], 0.96467732),
        ([True, False], [0.5, -1.46211716], [-0.69314718, -1.31326169], 1.58156844),
        ([False, True], [0.13447071, 1.13262201], [-0.31326169, -0.47407698], 0.72088579),
        ([False, False], [0.0, 0.0], [0.0, 0.0], 0.0),
    ],
)
def test_products_by_hand(among: list[bool], mu: list[float], log_variance: list[float], kl: float) -> None:
    q = product_of_experts(EXAMPLE, torch.tensor(among)[None, :, None])
    assert q.mu[0, 0].tolist() == pytest.approx(mu, abs=2e-8)
    assert q.log_variance[0, 0].tolist() == pytest.approx(log_variance, abs=2e-8)
    assert divergence(*q).item() == pytest.approx(kl, abs=2e-8)


@pytest.mark.parametrize(
    ("lambda_text", "beta", "bound"), [(10, 0.5, 560.39265447), (1, 1.0, 546.40916164), (50, 0.25, 625.20971140)]
)
def test_bound_by_hand(lambda_text: float, beta: float, bound: float) -> None:
    """Two samples: 784 pixels of 0.25 from logits 0, a label from logits that are nearly 0."""
    image = F.binary_cross_entropy_with_logits(torch.zeros(2, 784).double(), torch.full((2, 784), 0.25).double())
    logits = torch.zeros(2, 10, dtype=torch.float64)
    logits[0, 3], logits[1, 1] = 2, 1
    label = MultiClass(n_classes=10).sample_loss(logits, torch.tensor([3, 7]))
    mu = torch.tensor([[0.5, -1.0], [0.0, 2.0]], dtype=torch.float64)
    log_variance = torch.tensor([[0.0, -0.5], [0.3, 0.1]], dtype=torch.float64)
    errors = torch.stack([784 * image.expand(2), lambda_text * label])
    inside = torch.ones(2, 2, dtype=torch.bool)
    given = negative_bound(errors, inside, divergence(mu, log_variance), beta).mean()
    assert given.item() == pytest.approx(bound, abs=1e-6)


# ---- properties -----------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**31))
def test_another_expert_never_makes_the_posterior_less_sure(count: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    mu, log_variance = 3 * torch.randn(2, count, 4, 3, generator=random)
    fewer = torch.rand(1, count, 4, generator=random) < 0.5
    more = fewer | (torch.rand(1, count, 4, generator=random) < 0.5)
    experts = Gaussians(mu, log_variance)
    with_more, with_fewer = product_of_experts(experts, more), product_of_experts(experts, fewer)
    assert (with_more.log_variance <= with_fewer.log_variance + 1e-5).all()
    assert (with_fewer.log_variance <= 1e-6).all()  # never less sure than the prior


@pytest.mark.parametrize("variance", [0.1, 1.0, 7.0])
def test_two_identical_experts(variance: float) -> None:
    log_variance = torch.full((2, 1, 1), variance).log()
    q = product_of_experts(Gaussians(torch.ones(2, 1, 1), log_variance), torch.ones(1, 2, 1, dtype=torch.bool))
    assert q.log_variance.exp().item() == pytest.approx(1 / (1 + 2 / variance), rel=1e-5)
    assert q.mu.item() == pytest.approx((2 / variance) / (1 + 2 / variance), rel=1e-5)


def test_random_subsets_have_every_size_between_equally_often() -> None:
    noise, seen = row_keys(0, 0, 3000), torch.ones(5, 3000, dtype=torch.bool)
    drawn = random_subsets(noise, seen, 2)
    assert drawn.shape == (2, 5, 3000)
    sizes = drawn.sum(1).flatten()
    assert sorted(set(sizes.tolist())) == [2, 3, 4]
    assert torch.bincount(sizes)[2:].float().div(6000).tolist() == pytest.approx([1 / 3] * 3, abs=0.03)
    assert drawn.float().mean((0, 2)).tolist() == pytest.approx([0.6] * 5, abs=0.03)
    assert not torch.equal(drawn[0], drawn[1])


def test_random_subsets_stay_within_what_a_sample_has() -> None:
    noise = row_keys(0, 0, 200)
    seen = torch.rand(4, 200, generator=torch.Generator().manual_seed(0)) < 0.5
    drawn = random_subsets(noise, seen, 3)
    assert not (drawn & ~seen).any()
    assert (drawn.any(1) == seen.any(0)).all()
    assert random_subsets(noise, seen[:2], 3).shape == (0, 2, 200)  # no size between 1 and 2


@pytest.mark.parametrize(
    ("task", "target", "vectors"),
    [
        (MultiClass(n_classes=3), [2, 0], [[0, 0, 1], [1, 0, 0]]),
        (Binary(), [1, 0], [[0, 1], [1, 0]]),
        (Regression(), [1.5, -2.0], [[1.5], [-2.0]]),
        (MultiLabel(n_labels=2), [[1.0, 0.0], [1.0, 1.0]], [[1, 0], [1, 1]]),
    ],
)
def test_labels_as_an_encoder_reads_them(task: Task, target: list[float], vectors: list[list[float]]) -> None:
    assert label_vectors(task, torch.tensor(target)).tolist() == vectors


# ---- against a loop -------------------------------------------------------------------------------------------------

SHAPES = {"text": (5,), "audio": (4, 3), "vision": (4,)}


def model(task: Task | None = None, shapes: dict[str, tuple[int, ...]] | None = None, **values: object) -> MVAE:
    torch.manual_seed(1)
    config = MVAEConfig.model_validate({"latent": 6, "head_dropout": 0.0} | values)
    method = MVAE(shapes or SHAPES, task or Regression(), config)
    method.enter(batch())
    return method.eval()


def batch(available: Tensor | None = None, labelled: Tensor | None = None, size: int = 8, **more: object) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: 2 + torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    target = torch.randn(size, generator=random)
    noise = row_keys(0, 0, size)
    return make_batch(inputs, target, available=available, labelled=labelled, noise=noise, **more)  # type: ignore[arg-type]


SOME = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1]] * 2).bool()
LABELLED = torch.tensor([1, 1, 0, 1, 0, 1, 1, 0]).bool()


def written_out(method: MVAE, of: Batch) -> dict[str, float]:
    """The bounds sample by sample and subset by subset in evaluation mode, where the latent is the mean."""
    config, names, label = method.config, list(SHAPES), len(SHAPES)
    means = {"rec": [], "kl": [], "sup": []}
    for j in range(len(of.target)):
        has = [m for m in range(3) if of.available[j, m]]
        if config.classifier == "label" and of.labelled[j]:
            has.append(label)
        h = [method.f[m](of.inputs[name][j : j + 1])[0] for m, name in enumerate(names)]
        if config.classifier == "label":
            h.append(method.f_label(of.target[j].reshape(1)))
        x = [method.targets.each[m](of.inputs[name][j : j + 1])[0] for m, name in enumerate(names)]
        every = [s for size in range(1, len(has) + 1) for s in combinations(has, size)]
        published = [tuple(has), *[(m,) for m in has]]
        subsets = {"enumerate": every, "published": published, "none": [tuple(has)]}[config.subsets]
        share = 1 / len(subsets) if config.subsets == "enumerate" else 1.0
        rec = kl = sup = torch.tensor(0.0)
        for subset in subsets:
            precision, weighted = torch.ones(6), torch.zeros(6)
            for m in subset:
                tau = (-method.to_log_variance[m](h[m])).exp()
                precision, weighted = precision + tau, weighted + tau * method.to_mu[m](h[m])
            mu, variance = weighted / precision, 1 / precision
            size = 6 if config.scale == "per_feature" else 1
            kl = kl + share * 0.5 * (mu**2 + variance - variance.log() - 1).sum() / size
            for m in has if config.cross_reconstruction else subset:
                if m == label:
                    sup = sup + share * config.lambda_label * (method.decode_label(mu)[0] - of.target[j]).abs()
                    continue
                gap = method.decoders[m](mu) - x[m]
                error = 0.5 * gap.square() if config.likelihood == "gaussian" else gap.abs()
                rec = rec + share * (error.mean() if config.scale == "per_feature" else error.sum())
            if config.classifier == "head":
                output = method.head(mu[None], of.noise[j : j + 1])[0, 0]
                sup = sup + share * (output - of.target[j]).abs()
        means["rec"].append(config.lambda_rec * rec)
        means["kl"].append(config.beta * kl)
        if of.labelled[j]:
            means["sup"].append(sup)
    return {name: float(sum(values) / len(values)) for name, values in means.items()}


@pytest.mark.parametrize("available", [None, SOME])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"subsets": "none", "scale": "summed", "beta": 0.7},
        {"subsets": "published", "likelihood": "laplace", "lambda_rec": 2.0},
        {"cross_reconstruction": True},
        {"classifier": "label", "lambda_label": 3.0},
        {"classifier": "label", "subsets": "published", "cross_reconstruction": True},
    ],
)
def test_losses_equal_a_loop_over_samples_and_subsets(values: dict[str, object], available: Tensor | None) -> None:
    of, method = batch(available, LABELLED), model(**values)
    with torch.no_grad():
        expected = written_out(method, of)
        terms = {name: float(value) for name, value in method.loss(of).items()}
    assert terms == pytest.approx(expected, abs=1e-4, rel=1e-4)


# ---- the method -----------------------------------------------------------------------------------------------------


def test_two_modalities_have_the_three_published_terms() -> None:
    """MVAE sums what the mean over all missing patterns divides by three."""
    two = {name: SHAPES[name] for name in ("text", "vision")}
    of = make_batch({name: torch.randn(6, *shape) for name, shape in two.items()}, torch.randn(6))
    torch.manual_seed(0)
    every = MVAE(two, Regression(), MVAEConfig(latent=6)).eval()
    published = MVAE(two, Regression(), MVAEConfig(latent=6, subsets="published")).eval()
    published.load_state_dict(every.state_dict())
    for name, value in every.loss(of).items():
        assert published.loss(of)[name].item() == pytest.approx(3 * value.item(), rel=1e-5)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.05, 0.25), (0.2, 1.0), (0.9, 1.0)])
def test_the_divergence_counts_little_by_little(progress: float, share: float) -> None:
    method = model()
    whole = method.loss(batch(progress=1.0))
    now = method.loss(batch(progress=progress))
    assert now["kl"].item() == pytest.approx(share * whole["kl"].item(), rel=1e-5)
    assert now["rec"].item() == whole["rec"].item()
    assert model(anneal=0.0).loss(batch(progress=0.0))["kl"].item() == pytest.approx(whole["kl"].item())


def test_noise_is_drawn_in_training_only_and_anew_for_every_subset() -> None:
    method, of = model(), batch()
    other = of._replace(noise=row_keys(0, 1, 8))
    assert method.loss(of)["rec"].item() == method.loss(other)["rec"].item()
    assert method.train().loss(of)["rec"].item() != method.loss(other)["rec"].item()
    epsilon = method.latent_noise(of, 7)
    assert epsilon is not None
    assert epsilon.shape == (7, 8, 6)
    assert len(epsilon.flatten().unique()) > 300


def test_published_random_subsets_are_drawn_in_training_only() -> None:
    method, of = model(subsets="published", random_subsets=3), batch()
    seen = torch.ones(3, 8, dtype=torch.bool)
    assert len(method.shown_subsets(seen, of.noise)[0]) == 4
    among, weight = method.train().shown_subsets(seen, of.noise)
    assert len(among) == 7
    assert (among[4:].sum(1) == 2).all()
    assert weight.all()


@pytest.mark.parametrize("classifier", ["head", "label"])
def test_prediction_and_embedding_are_of_the_posterior(classifier: str) -> None:
    method, of = model(classifier=classifier), batch(SOME)
    embedded = method.embed(of)
    expected = method.decode_label(embedded["s"]) if classifier == "label" else method.head(embedded["s"], of.noise)
    torch.testing.assert_close(method.predict(of), expected)
    torch.testing.assert_close(embedded["s"][1], embedded["z/text"][1])  # has the text alone
    assert not embedded["z/vision"][1].any()  # the prior's mean
    nobody = of._replace(available=torch.zeros(8, 3, dtype=torch.bool))
    assert not method.embed(nobody)["s"].any()


def test_the_label_is_an_expert_where_it_is_seen_and_nowhere_else() -> None:
    method = model(MultiClass(n_classes=3), classifier="label")
    of = batch(labelled=LABELLED)._replace(target=torch.where(LABELLED, torch.arange(8) % 3, 0))
    hidden = of._replace(target=torch.where(LABELLED, of.target, 2))
    shown = of._replace(target=torch.where(LABELLED, (of.target + 1) % 3, 0))
    assert method.loss(of) == method.loss(hidden)
    assert method.loss(of)["rec"] != method.loss(shown)["rec"]  # its expert moves the latent
    assert torch.equal(method.predict(of), method.predict(shown))


def test_diagnosis_tells_a_collapse() -> None:
    method, of = model(), batch()
    with torch.no_grad():
        for layer in method.to_mu:
            layer.weight.mul_(10)
    told = {name: float(value) for name, value in method.diagnose(of).items()}
    assert told["active"] > 0.5
    assert told["kl/all"] > 0.01
    with torch.no_grad():
        for layer in (*method.to_mu, *method.to_log_variance):
            layer.weight.zero_()
            layer.bias.zero_()
        for layer in method.to_log_variance:
            layer.bias.fill_(30.0)  # bounded: experts that say nothing
        for decode in method.decoders:
            decode[-1].weight.zero_()
            decode[-1].bias.zero_()
    told = {name: float(value) for name, value in method.diagnose(of).items()}
    assert told["active"] == 0
    assert max(told[name] for name in told if name.startswith("kl/")) < 1e-3
    assert [told[f"rec/{name}"] for name in SHAPES] == pytest.approx([0.5] * 3, abs=1e-4)  # as good as the mean


@pytest.mark.parametrize("values", [{}, {"classifier": "label"}])
def test_unlabelled_samples_help_to_tell_clusters_apart(values: dict[str, object]) -> None:
    """Two clusters, one label each, 60 samples without: both modalities alone must find the cluster."""
    random = torch.Generator().manual_seed(0)
    target = torch.arange(62) % 2
    side = 2.0 * target[:, None] - 1
    inputs = {name: side + 0.5 * torch.randn(62, 4, generator=random) for name in ("a", "b")}
    of = make_batch(inputs, target, labelled=torch.arange(62) < 2)
    torch.manual_seed(0)
    method = MVAE({"a": (4,), "b": (4,)}, Binary(), MVAEConfig.model_validate({"latent": 8} | values))
    method.enter(of)
    optimiser = torch.optim.Adam(method.parameters(), lr=3e-3)
    for step in range(150):
        optimiser.zero_grad()
        now = of._replace(noise=row_keys(0, step, 62), progress=torch.full((62,), step / 150))
        sum(method.train().loss(now).values()).backward()
        optimiser.step()
    for seen in ([True, True], [True, False], [False, True]):
        alone = make_batch(inputs, target, available=torch.tensor([seen]).expand(62, 2))
        right = method.eval().predict(alone).argmax(1) == target
        assert right.float().mean() > 0.9
