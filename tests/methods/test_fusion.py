"""Answering from whichever modalities are there."""

import torch

from datasets.batch import make_batch
from datasets.tasks import Binary, Regression
from methods.fusion import complete, late_fusion, mean_available, mean_output, present, shown
from methods.gmc import GMC, GMCConfig
from methods.unimodal import Unimodal, UnimodalConfig


def test_shown_holds_nothing_of_hidden_modalities_or_filling_rows() -> None:
    nan = torch.full((3, 2), torch.nan)
    nan[0] = 1.0
    batch = make_batch({"a": nan, "b": torch.ones(3, 2)}, torch.zeros(3), valid=torch.tensor([True, True, False]))
    batch = batch._replace(available=torch.tensor([[True, True], [False, True], [True, True]]))
    a, b = shown(batch)
    assert a.tolist() == [[1, 1], [0, 0], [0, 0]]
    assert b.tolist() == [[1, 1], [1, 1], [0, 0]]
    assert present(batch).tolist() == [[True, False, False], [True, True, False]]
    assert complete(batch).tolist() == [True, False, False]


def test_mean_available() -> None:
    values = torch.tensor([[[1.0], [1.0], [1.0]], [[3.0], [3.0], [3.0]]])  # (M, B, n)
    available = torch.tensor([[True, True], [False, True], [False, False]])
    assert mean_available(values, available).tolist() == [[2.0], [3.0], [0.0]]  # finite without any modality


def test_late_fusion_of_logits_and_of_probabilities() -> None:
    single = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]], [[50.0, -50.0]]])  # (M, B, W)
    available, joint = torch.tensor([[True, True, False]]), torch.tensor([[7.0, 8.0]])
    assert late_fusion(joint, single, available, Binary(), "logit_mean").tolist() == [[1.0, 0.0]]
    fused = late_fusion(joint, single, available, Binary(), "prob_mean")
    torch.testing.assert_close(fused.softmax(-1)[0], (torch.tensor([2.0, 0.0]).softmax(-1) + 0.5) / 2)
    assert late_fusion(joint, single, torch.ones_like(available), Binary(), "logit_mean").tolist() == [[7.0, 8.0]]
    assert torch.isfinite(mean_output(single, torch.zeros_like(available), Binary(), "prob_mean")).all()


def test_a_sample_without_every_modality_does_not_teach_the_joint_parts() -> None:
    """Whatever its label: its joint embedding would be one of zeros."""
    inputs = {"a": torch.randn(6, 3), "b": torch.randn(6, 2)}
    available = torch.ones(6, 2, dtype=torch.bool)
    available[4:, 1] = False
    rows = torch.arange(4)
    target = torch.linspace(-2, 2, 6)
    batch = make_batch(inputs, target, available=available)
    whole = make_batch({name: x[rows] for name, x in inputs.items()}, target[rows])
    gmc = GMC({"a": (3,), "b": (2,)}, Regression(), GMCConfig(latent=6))
    for name, value in gmc.loss(whole).items():
        torch.testing.assert_close(gmc.loss(batch)[name], value)
    unimodal = Unimodal({"a": (3,), "b": (2,)}, Regression(), UnimodalConfig(latent=6))
    ours, theirs = unimodal.loss(batch), unimodal.loss(whole)
    for name in ("sup/joint", "sup/b"):
        torch.testing.assert_close(ours[name], theirs[name])
    assert ours["sup/a"] != theirs["sup/a"]
