"""Projectors, joint encoders and the head: sizes by hand, what they refuse, what they compute."""

import pytest
import torch

from methods.encoders import cannot_encode, joint_encoder, projector, residual_head, unit


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("fc", "single", "joint"), [("table5", 114_944, 394_368), ("plain", 98_432, 196_736)])
def test_sizes_on_two_vilt_embeddings(fc: str, single: int, joint: int) -> None:
    assert count(projector((768,), 128, fc)) == single  # type: ignore[arg-type]
    assert count(joint_encoder({"text": (768,), "image": (768,)}, 128, fc)) == joint  # type: ignore[arg-type]


def test_residual_head() -> None:
    head = residual_head(60, 1)
    assert count(head) == 7381  # GMC's head on CMU-MOSI
    first, second = head[0].branch[0], head[0].branch[2]
    q = torch.randn(3, 60, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head(q), head[1](q + second(torch.relu(first(q)))))


@pytest.mark.parametrize("fc", ["table5", "plain"])
def test_the_joint_encoder_reads_every_modality(fc: str) -> None:
    joint = joint_encoder({"a": (3,), "b": (2,)}, 5, fc)  # type: ignore[arg-type]
    a, b = torch.ones(2, 3), torch.ones(2, 2)
    assert joint([a, b]).shape == (2, 5)
    assert not torch.allclose(joint([a, b]), joint([a, 0 * b]))
    assert not torch.allclose(joint([a, b]), joint([0 * a, b]))


def test_sequences_are_refused_by_name() -> None:
    assert cannot_encode({"a": (3,), "b": (2,)}) is None
    assert cannot_encode({"a": (3,), "m1": (20, 8)}) == "takes vectors only so far; modality 'm1' is a sequence (20, 8)"


def test_unit_leaves_zero_alone_with_a_finite_gradient() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    y = unit(x)
    assert y[1].tolist() == [0.0, 0.0]
    torch.testing.assert_close(y[0], torch.tensor([0.6, 0.8]))
    y.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
