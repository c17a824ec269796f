"""Concat Fusion: its loss, on which samples, and what zeros stand for."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.batch import Batch, make_batch
from datasets.tasks import MultiClass, Regression
from methods.concat import Concat, ConcatConfig
from methods.noise import row_keys

SHAPES = {"text": (5,), "audio": (3,), "vision": (4,)}


def model(**values: object) -> Concat:
    torch.manual_seed(1)
    return Concat(SHAPES, Regression(), ConcatConfig.model_validate({"latent": 6, "head_width": 7} | values))


def batch(available: Tensor | None = None, labelled: Tensor | None = None, size: int = 8, step: int = 0) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    noise = row_keys(0, step, size)
    return make_batch(inputs, torch.randn(size, generator=random), available=available, labelled=labelled, noise=noise)


def by_hand(method: Concat, inputs: dict[str, Tensor]) -> Tensor:
    """The network layer by layer, without dropout, from its weights."""
    h = []
    for f, x in zip(method.net.f.each, inputs.values(), strict=True):
        first, _, second = f
        h.append(F.linear(F.linear(x, first.weight, first.bias).relu(), second.weight, second.bias))
    x, head = torch.cat(h, dim=1), method.net.head
    for layer in head.layers:
        x = F.linear(x, layer.weight, layer.bias).clamp(min=0)
    return F.linear(x, head.out.weight, head.out.bias)


def test_cross_entropy_by_hand() -> None:
    """Logits (2, 0), (0.5, 0.5), (-1, 1) for class 0."""
    method = Concat({"a": (2,)}, MultiClass(n_classes=2), ConcatConfig())
    method.predict = lambda batch: torch.tensor([[2.0, 0.0], [0.5, 0.5], [-1.0, 1.0]])  # type: ignore[method-assign]
    of = make_batch({"a": torch.ones(3, 2)}, torch.zeros(3, dtype=torch.long))
    assert method.loss(of)["sup"].item() == pytest.approx(0.98233440, abs=1e-7)
    one = of._replace(labelled=torch.tensor([False, False, True]))
    assert method.loss(one)["sup"].item() == pytest.approx(2.12692801, abs=1e-6)


def test_missing_modalities_are_read_as_zeros() -> None:
    available = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 1, 1]] * 2).bool()
    method, of = model().eval(), batch(available)
    zeroed = {name: x * available[:, i : i + 1] for i, (name, x) in enumerate(batch().inputs.items())}
    torch.testing.assert_close(method.predict(of), by_hand(method, zeroed))
    embedded = method.embed(of)
    torch.testing.assert_close(embedded["s"], torch.cat([embedded[f"z/{name}"] for name in SHAPES], dim=1))
    of_zeros = method.net.f.each[1](torch.zeros(1, 3))[0]
    torch.testing.assert_close(embedded["z/audio"][1], of_zeros)
    assert of_zeros.abs().max() > 0.01  # a zero input has an embedding all the same


@pytest.mark.parametrize("incomplete", [False, True])
def test_only_complete_labelled_samples_teach(incomplete: bool) -> None:
    available = torch.tensor([[1, 1, 1], [1, 0, 1]] * 4).bool()
    labelled = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0]).bool()
    method, of = model(incomplete_samples=incomplete).eval(), batch(available, labelled)
    errors = (method.predict(of)[:, 0] - of.target).abs()
    rows = [0, 1, 2, 3] if incomplete else [0, 2]
    torch.testing.assert_close(method.loss(of)["sup"], errors[rows].mean())


def test_units_are_dropped_in_training_only() -> None:
    method = model(head_dropout=0.5)
    first, again, other = (method.train().loss(batch(step=step))["sup"].item() for step in (0, 0, 1))
    assert first == again != other
    plain = {method.eval().loss(batch(step=step))["sup"].item() for step in (0, 1)}
    assert len(plain) == 1
    assert first not in plain


def test_diagnosis_tells_what_the_fusion_ignores() -> None:
    method = model().eval()
    with torch.no_grad():
        method.net.head.layers[0].weight[:, 6:12] = 0  # audio is not read
    told = method.diagnose(batch())
    assert told["reliance/audio"] == 0
    x = batch().inputs
    change = by_hand(method, x) - by_hand(method, x | {"text": torch.zeros(8, 5)})
    torch.testing.assert_close(told["reliance/text"], change.abs().mean())
