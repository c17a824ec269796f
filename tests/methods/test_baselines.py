"""The unimodal and the constant baseline."""

from typing import Any

import pytest
import torch

from datasets.batch import Batch, make_batch
from datasets.tasks import MultiClass, MultiLabel, Regression, Task
from methods.base import MethodConfig
from methods.constant import Constant
from methods.fusion import shown
from methods.unimodal import Unimodal, UnimodalConfig

SHAPES = {"a": (3,), "b": (2,), "c": (4,)}


def batch_of(size: int, available: torch.Tensor | None = None) -> Batch:
    random = torch.Generator().manual_seed(4)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    return make_batch(inputs, torch.linspace(-2, 2, size), available=available)


def test_the_networks_are_independent() -> None:
    """The loss of one moves none of the others."""
    model = Unimodal(SHAPES, Regression(), UnimodalConfig(latent=6))
    terms = model.loss(batch_of(9))  # odd: the signs of an L1 loss cannot cancel at a bias
    assert list(terms) == ["sup/a", "sup/b", "sup/c", "sup/joint"]
    for term, own in (("sup/b", ("f.1.", "g.1.", "c.1.")), ("sup/joint", ("f0.", "g0.", "c0."))):
        model.zero_grad()
        terms[term].backward(retain_graph=True)
        moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert moved == {name for name, _ in model.named_parameters() if name.startswith(own)}


@pytest.mark.parametrize("full", ["joint", "late_mean"])
def test_predict_by_subset(full: Any) -> None:
    model = Unimodal(SHAPES, Regression(), UnimodalConfig(latent=6, unimodal_full=full))
    batch = batch_of(3, torch.tensor([[1, 1, 1], [0, 1, 0], [1, 0, 1]]).bool())
    joint, single = model.encode(shown(batch))
    outputs = model.classify(single)
    expected = outputs[:, 0].mean(0)
    if full == "joint":
        assert joint is not None
        expected = model.c0(joint)[0]
    torch.testing.assert_close(model.predict(batch)[0], expected)
    torch.testing.assert_close(model.predict(batch)[1], outputs[1, 1])
    torch.testing.assert_close(model.predict(batch)[2], (outputs[0, 2] + outputs[2, 2]) / 2)
    assert (joint is None) == (full == "late_mean")


def test_architecture_is_robults_with_a_classifier_each() -> None:
    d = 128
    model = Unimodal({"text": (768,), "image": (768,)}, MultiClass(2), UnimodalConfig())
    head = 2 * (d * d + d) + d * 2 + 2
    branch = 768 * d + d + d * d + d + d * d + d + head
    joint = 394_368 + 2 * (d * d + d) + head  # the joint encoder of GMC's 674 050
    assert sum(p.numel() for p in model.parameters()) == 2 * branch + joint


@pytest.mark.parametrize(
    ("task", "target", "expected"),
    [
        (Regression(), torch.tensor([-1.0, 2.0, 0.5, 9.0]), 0.5),
        (MultiClass(3), torch.tensor([2, 2, 0, 1]), 2),
        (MultiLabel(2), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), [True, False]),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_constant_is_the_best_guess_from_visible_labels(task: Task, target: torch.Tensor, expected: Any) -> None:
    method = Constant({"a": (3,)}, task, MethodConfig())
    labelled = torch.tensor([True, True, True, False])  # the last would change every answer
    method.finish(make_batch({"a": torch.zeros(4, 3)}, target, labelled=labelled))
    output = method.predict(make_batch({"a": torch.randn(5, 3)}, target[:1].expand(5, *target.shape[1:])))
    assert output.shape == (5, task.width)
    assert (output == output[:1]).all()
    if task.kind == "regression":
        assert output[0].item() == expected
    elif task.kind == "multiclass":
        assert output[0].argmax() == expected
        torch.testing.assert_close(output[0].softmax(-1), torch.tensor([1 / 3, 0.0, 2 / 3]), atol=1e-6, rtol=0)
    else:
        assert (output[0] > 0).tolist() == expected


def test_constant_without_labels_answers_zero() -> None:
    method = Constant({"a": (3,)}, Regression(), MethodConfig())
    method.finish(make_batch({"a": torch.zeros(2, 3)}, torch.ones(2), labelled=torch.zeros(2, dtype=torch.bool)))
    assert method.predict(make_batch({"a": torch.zeros(2, 3)}, torch.ones(2))).tolist() == [[0.0], [0.0]]
