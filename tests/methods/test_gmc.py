"""GMC against numbers its reference code gives and against loops over the 2B points."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datasets.batch import make_batch
from datasets.tasks import Binary, Regression
from methods.fusion import shown
from methods.gmc import GMC, GMCConfig, geometric_contrast, joint_negatives_contrast

# A worked example: the reference code's supervised loss gives these numbers to 1e-6.
JOINT = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
SINGLE = torch.tensor([[[0.8, 0.6], [0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [-0.6, 0.8], [0.8, -0.6]]])
SEEN = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("tau", "first", "second", "total"),
    [(0.3, 1.520931, 1.504703, 4.025634), (0.1, 2.084479, 2.987064, 6.071542), (1.0, 1.529231, 1.359015, 3.888246)],
)
def test_worked_example(tau: float, first: float, second: float, total: float) -> None:
    t = torch.tensor(tau)
    assert geometric_contrast(JOINT, SINGLE[:1], t, SEEN[:1]).item() == pytest.approx(first, abs=1e-5)
    assert geometric_contrast(JOINT, SINGLE[1:], t, SEEN[1:]).item() == pytest.approx(second, abs=1e-5)
    task, output, target = Regression(), torch.tensor([[0.5], [-1.0], [2.0]]), torch.tensor([1.0, -1.5, 0.0])
    contrast = geometric_contrast(JOINT, SINGLE, t, SEEN)
    everything = torch.ones(3, dtype=torch.bool)
    assert (contrast + task.loss(output, target, everything)).item() == pytest.approx(total, abs=1e-5)
    if tau == 0.3:
        some = task.loss(output, target, torch.tensor([True, False, True]))
        assert some.item() == pytest.approx(1.25)
        assert (contrast + some).item() == pytest.approx(4.275634, abs=1e-5)


def test_one_sample_costs_nothing() -> None:
    one = geometric_contrast(JOINT[:1], SINGLE[:, :1], torch.tensor(0.3), SEEN[:, :1])
    assert one.item() == pytest.approx(0, abs=1e-6)
    assert joint_negatives_contrast(JOINT[:1], SINGLE[:, :1], torch.tensor(0.3), SEEN[:, :1]).item() == 0


def slow(joint: list[list[float]], single: list[list[float]], tau: float, seen: list[bool], negatives: str) -> float:
    """One modality, point by point."""
    rows = [j for j, there in enumerate(seen) if there]
    points = [joint[j] for j in rows] + [single[j] for j in rows]
    n = len(rows)

    def score(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / tau

    losses = []
    if negatives == "all":
        for p in range(2 * n):
            partner = p + n if p < n else p - n
            denominator = sum(math.exp(score(points[p], points[q])) for q in range(2 * n) if q != p)
            losses.append(math.log(denominator) - score(points[p], points[partner]))
    else:
        for p in range(n):
            others = sum(math.exp(score(points[p], points[q])) for q in range(n) if q != p)
            losses.append(math.log(others) - score(points[p], points[p + n]) if others else 0.0)
    return sum(losses) / len(losses) if losses else 0.0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.sampled_from([0.25, 1.0]), st.integers(0, 2**31), st.booleans())
def test_contrast_equals_loops(modalities: int, size: int, tau: float, seed: int, whole: bool) -> None:
    random = torch.Generator().manual_seed(seed)

    def latent(*shape: int) -> Tensor:
        x = torch.randn(*shape, 3, generator=random, dtype=torch.float64)
        return x / x.norm(dim=-1, keepdim=True)

    joint, single = latent(size), latent(modalities, size)
    seen = torch.ones(modalities, size, dtype=torch.bool)
    if not whole:
        seen = torch.rand(modalities, size, generator=random) < 0.6
    t = torch.tensor(tau, dtype=torch.float64)
    for contrast, negatives in ((geometric_contrast, "all"), (joint_negatives_contrast, "joints")):
        expected = sum(
            slow(joint.tolist(), z.tolist(), tau, rows.tolist(), negatives)
            for z, rows in zip(single, seen, strict=True)
        )
        assert contrast(joint, single, t, seen).item() == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_parameters_on_hateful_memes_shapes() -> None:
    model = GMC({"text": (768,), "image": (768,)}, Binary(), GMCConfig())
    assert sum(p.numel() for p in model.parameters()) == 674_050  # Robult, Table 5


@pytest.mark.parametrize("renorm", [False, True])
def test_predict_puts_the_joint_or_the_mean_embedding_through_one_head(renorm: bool) -> None:
    shapes = {"a": (3,), "b": (2,), "c": (4,)}
    model = GMC(shapes, Regression(), GMCConfig(latent=6, renorm_mean=renorm))
    x = {name: torch.randn(4, *shape, generator=torch.Generator().manual_seed(2)) for name, shape in shapes.items()}
    available = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 1, 0]]).bool()
    batch = make_batch(x, torch.zeros(4), available=available)
    joint, single = model.encode(shown(batch))
    mean = torch.stack([single[0, 1], (single[1, 2] + single[2, 2]) / 2, (single[0, 3] + single[1, 3]) / 2])
    if renorm:
        mean = mean / mean.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(model.predict(batch), model.head(torch.cat([joint[:1], mean])))


def test_only_the_joint_embedding_trains_the_head() -> None:
    model = GMC({"a": (3,), "b": (2,)}, Regression(), GMCConfig(latent=6))
    random = torch.Generator().manual_seed(0)
    inputs = {"a": torch.randn(5, 3, generator=random), "b": torch.randn(5, 2, generator=random)}
    terms = model.loss(make_batch(inputs, torch.ones(5)))
    terms["sup"].backward(retain_graph=True)
    assert all(p.grad is None or not p.grad.any() for p in model.processors.parameters())
    terms["con"].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.processors.parameters())
