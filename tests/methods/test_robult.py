"""Robult as a whole: sizes, which loss moves what, inference, variants, and the regressor of ablation (1)."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from datasets.base import DataSpec
from datasets.batch import Batch, make_batch
from datasets.tasks import Binary, MultiClass, MultiLabel, Regression, Task
from methods.encoders import unit
from methods.fusion import complete, present, shown
from methods.robult import Robult, RobultConfig, reconstruction_loss, supervised_loss

SHAPES = {"text": (5,), "image": (4,)}


def robult(task: Task | None = None, seed: int = 0, **values: Any) -> Robult:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Robult(SHAPES, task or MultiClass(3), RobultConfig(**({"latent": 8} | values)))


def batch_of(size: int = 12, classes: int = 3, **masks: Tensor) -> Batch:
    random = torch.Generator().manual_seed(1)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    target = torch.randint(0, classes, (size,), generator=random)
    return make_batch(inputs, target, **({"labelled": torch.arange(size) % 2 == 0} | masks))


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameters_on_hateful_memes_shapes() -> None:
    shapes = {"text": (768,), "image": (768,)}
    assert count(Robult(shapes, Binary(), RobultConfig())) == 855_298
    plain = Robult(shapes, Binary(), RobultConfig(fc="plain"))
    assert count(plain.f) == 2 * (768 * 128 + 128)
    assert count(plain.f0) == 2 * 768 * 128 + 128


def test_combination_of_latents_without_parameters() -> None:
    concat, total, mean = (robult(combine=how) for how in ("concat_linear", "sum", "mean"))
    assert count(concat) - count(total) == 2 * 8 * 8 + 8
    assert count(total) == count(mean)
    latents = mean.encode(shown(batch_of()))
    assert latents.u is not None
    torch.testing.assert_close(mean.outputs(latents)[1:], mean.c((latents.u + latents.z) / 2))


def test_shapes_without_an_encoder_are_refused_with_a_reason() -> None:
    spec = DataSpec("mosi", {"m0": (300,), "m1": (20, 8)}, Regression(), {"train": 1, "valid": 1, "test": 1}, "x")
    assert Robult.refuses(spec, RobultConfig()) is None
    reason = Robult.refuses(spec, RobultConfig(joint="mult"))
    assert reason == "cannot attend over time with joint 'mult', as modality 'm0' is a vector: use 'auto'"


def test_a_config_that_trains_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="nothing is left to train on"):
        RobultConfig(supervised=False, labelled_pairs=False, unlabelled_pairs=False)


# ---- gradients ------------------------------------------------------------------------------------------------------


def gradient(model: Robult, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def moved(gradients: dict[str, Tensor]) -> set[str]:
    """Modules that have any gradient."""
    return {name.split(".")[0] for name, value in gradients.items() if value.abs().sum() > 0}


@pytest.mark.parametrize(
    ("term", "values", "modules"),
    [
        ("rec", {}, {"g", "r"}),
        ("rec", {"rec_trains_r": False}, {"g"}),
        ("rec", {"grad_routing": "none"}, {"f", "g", "g0", "r"}),
        ("lb", {}, {"f", "f0", "g0"}),
        ("ulb", {}, {"f", "f0", "g0"}),
        ("sup", {}, {"f", "f0", "g", "g0", "combine", "c"}),
    ],
)
def test_every_loss_moves_the_modules_it_should(term: str, values: dict[str, Any], modules: set[str]) -> None:
    """Robult, 2.3 and Algorithm 1: L_rec the g_i (and r_i), L_PU the f_i, f_0 and g_0, L_sup the whole network."""
    model = robult(**values)
    assert moved(gradient(model, model.loss(batch_of())[term])) == modules


@pytest.mark.parametrize("literal", [False, True])
def test_one_backward_pass_equals_the_toggled_passes_of_algorithm_1(literal: bool) -> None:
    model, batch = robult(rec_trains_r=not literal), batch_of()
    terms = model.loss(batch)
    ours = gradient(model, torch.stack(list(terms.values())).sum())

    def toggle(*modules: str) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.split(".")[0] in modules)

    # One forward pass in which nothing is detached, then a backward pass a loss, as Algorithm 1 prints it.
    every = tuple(name for name, _ in model.named_children())
    toggle(*every)
    model.zero_grad()
    latents = model.encode(shown(batch))
    outputs = model.outputs(latents)
    restored = torch.stack([r(x) for r, x in zip(model.r, latents.pair, strict=True)])
    l_rec = reconstruction_loss(restored, latents.h, present(batch), squared=True)
    l_pu = torch.stack(list(model.soft_pu(latents, outputs, batch).values())).sum()
    rows = torch.cat([complete(batch)[None], present(batch)]) & batch.labelled
    l_cls = supervised_loss(outputs, batch.target, rows, model.task, "mean")
    toggle("g") if literal else toggle("g", "r")
    l_rec.backward(retain_graph=True)
    toggle("f", "f0", "g", "g0")
    l_pu.backward(retain_graph=True)
    toggle(*every)
    l_cls.backward()

    for name, parameter in model.named_parameters():
        theirs = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(ours[name], theirs, rtol=1e-5, atol=1e-7, msg=name)
    assert sum(value.abs().sum() > 0 for value in ours.values()) > 20


def test_loss_weights_scale_their_terms() -> None:
    one, other = robult().loss(batch_of()), robult(lambda_pu=0.5, lambda_rec=3.0).loss(batch_of())
    for name, factor in {"sup": 1.0, "lb": 0.5, "ulb": 0.5, "rec": 3.0}.items():
        assert other[name].item() == pytest.approx(factor * one[name].item(), rel=1e-5)


def test_replicas_of_a_stack_may_differ_in_continuous_hyper_parameters() -> None:
    batch = batch_of()
    values = [{"tau": 0.2, "kappa": 1.0, "lambda_pu": 1.0}, {"tau": 0.6, "kappa": 4.0, "lambda_pu": 0.3}]
    models = [robult(seed=k, **v) for k, v in enumerate(values)]
    parameters, buffers = torch.func.stack_module_state(models)  # type: ignore[arg-type]

    def terms(parameters: Any, buffers: Any) -> Any:
        return torch.func.functional_call(models[0], (parameters, buffers), ("loss", batch))

    together = torch.func.vmap(terms)(parameters, buffers)
    for k, model in enumerate(models):
        for name, value in model.loss(batch).items():
            assert together[name][k].item() == pytest.approx(value.item(), rel=1e-4)


# ---- what is there and what is not ----------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{}, {"intra_view": True}, {"pu_reduction": "pair_mean", "weight": "l1"}])
def test_filling_rows_change_no_term(values: dict[str, Any]) -> None:
    model, batch = robult(**values), batch_of(8)
    valid = torch.arange(12) < 8
    padded = make_batch(
        {name: torch.cat([x, torch.full((4, *x.shape[1:]), 7.0)]) for name, x in batch.inputs.items()},
        torch.cat([batch.target, torch.zeros(4, dtype=torch.long)]),
        labelled=torch.cat([batch.labelled, torch.ones(4, dtype=torch.bool)]),
        valid=valid,
    )
    for name, value in model.loss(batch).items():
        assert model.loss(padded)[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_a_sample_without_every_modality_has_no_fused_latent() -> None:
    """It is no anchor and teaches the fused head nothing, but stays a candidate where it has a modality."""
    available = torch.ones(12, 2, dtype=torch.bool)
    available[3, 1] = False
    batch = batch_of(available=available)
    model = robult()
    latents = model.encode(shown(batch))
    pairs = model.contrast(latents, model.outputs(latents), batch)
    assert not pairs.possible[:, 3].any()
    assert pairs.possible[0, :, 3].sum() == 11
    assert not pairs.possible[1, :, 3].any()


@pytest.mark.parametrize("task", [Regression(), MultiClass(3), MultiLabel(3)], ids=lambda task: task.kind)
@pytest.mark.parametrize("how", ["logit_mean", "prob_mean"])
def test_predict_takes_the_fused_branch_or_the_mean_of_the_unimodal_ones(task: Task, how: Any) -> None:
    model = robult(task, late_fusion=how)
    batch = batch_of(3)
    available = torch.tensor([[True, True], [True, False], [False, True]])
    target = torch.zeros(3) if task.kind == "regression" else torch.zeros(3, task.width)
    shown_batch = make_batch(batch.inputs, target, available=available)
    outputs = model.outputs(model.encode(shown(shown_batch)))
    predicted = model.predict(shown_batch)
    scale = task.probabilities
    torch.testing.assert_close(scale(predicted[:1]), scale(outputs[0, :1]))
    torch.testing.assert_close(scale(predicted[1:2]), scale(outputs[1, 1:2]))
    torch.testing.assert_close(scale(predicted[2:]), scale(outputs[2, 2:]))


def test_embeddings_are_named_and_of_norm_one() -> None:
    embedded = robult().embed(batch_of())
    assert list(embedded) == ["s", "z/text", "z/image", "u/text", "u/image"]
    for value in embedded.values():
        torch.testing.assert_close(value.norm(dim=-1), torch.ones(12))
    assert list(robult(unique_branches=False).embed(batch_of())) == ["s", "z/text", "z/image"]


# ---- variants -------------------------------------------------------------------------------------------------------


def test_variants_are_those_of_the_published_tables_and_one_of_ours() -> None:
    assert list(Robult.variants) == [
        "no_sup", "no_rec", "no_lb", "no_ulb", "no_unique_branches", "no_weighting", "no_pseudo_labelling",
        "weight_l1", "weight_l2", "no_soft_pu", "plus_gmc", "monolithic",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("variant", "terms"),
    [
        ("no_sup", {"lb", "ulb", "rec"}),
        ("no_rec", {"sup", "lb", "ulb"}),
        ("no_lb", {"sup", "ulb", "rec"}),
        ("no_ulb", {"sup", "lb", "rec"}),
        ("no_soft_pu", {"sup", "rec"}),
        ("no_unique_branches", {"sup", "lb", "ulb"}),
        ("no_weighting", {"sup", "lb", "ulb", "rec"}),
    ],
)
def test_a_variant_drops_its_term_and_keeps_the_others(variant: str, terms: set[str]) -> None:
    named = robult(**Robult.variants[variant]).loss(batch_of())
    assert set(named) == terms
    if variant in ("no_lb", "no_ulb", "no_soft_pu"):  # same modules, weights and other terms
        for name, value in robult().loss(batch_of()).items():
            assert name not in named or named[name].item() == value.item()


def test_without_unique_branches_the_shared_latent_goes_straight_to_the_classifier() -> None:
    model = robult(unique_branches=False)
    assert {name for name, _ in model.named_children()} == {"f", "f0", "g0", "c"}
    latents = model.encode(shown(batch_of()))
    torch.testing.assert_close(model.outputs(latents)[1:], model.c(latents.z))


@pytest.mark.parametrize("task", [MultiClass(3), Regression()], ids=lambda task: task.kind)
def test_without_supervised_loss_a_regressor_is_fitted_to_the_frozen_latents(task: Task) -> None:
    """Against scikit-learn, on the labelled samples alone; the fused one reads s, the others [u_i ; z_i]."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    model, batch = robult(task, supervised=False), batch_of(40)
    if task.kind == "regression":
        batch = batch._replace(target=torch.randn(40, generator=torch.Generator().manual_seed(3)))
        expected = linear_model.Ridge(alpha=1.0)
    else:
        expected = linear_model.LogisticRegression(C=1.0, tol=1e-10, max_iter=5000)
    before = [p.clone() for p in model.parameters()]
    model.finish(batch)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))

    latents = model.encode(shown(batch))
    for column, features in ((None, latents.s), (0, latents.pair[0]), (1, latents.pair[1])):
        available = torch.ones(40, 2, dtype=torch.bool)
        if column is not None:
            available[:, 1 - column] = False
        ours = task.probabilities(model.predict(make_batch(batch.inputs, batch.target, available=available)))
        x = features.detach().numpy().astype(np.float64)
        expected.fit(x[batch.labelled.numpy()], batch.target[batch.labelled].numpy())
        theirs = expected.predict(x)[:, None] if task.kind == "regression" else expected.predict_proba(x)
        np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=1e-4)


# ---- diagnostics ----------------------------------------------------------------------------------------------------


def test_diagnostics_tell_a_collapse_and_a_saturated_kernel() -> None:
    batch = batch_of(32)
    told = robult().diagnose(batch)
    assert 0 < told["u_variance"] < 1
    assert 0 <= told["unlabelled_pairs"] <= 1
    assert told["u_norm"] > 0

    collapsed = robult()
    for g in collapsed.g:
        torch.nn.init.zeros_(g.weight)
    assert collapsed.diagnose(batch)["u_variance"].item() == pytest.approx(0, abs=1e-6)

    narrow = robult(rbf="phi_fixed", gamma=1e6).diagnose(batch)
    wide = robult(rbf="phi_fixed", gamma=0.0).diagnose(batch)
    assert narrow["weights_low"] > 0.9
    assert (wide["weights_low"], wide["weights_high"]) == (0, 1)


def test_diagnostics_by_hand() -> None:
    model, batch = robult(), batch_of(6, labelled=torch.tensor([True, True, False, False, False, False]))
    latents = model.encode(shown(batch))
    told = model.diagnose(batch)
    torch.testing.assert_close(told["u_norm"], model.unique(latents.h).norm(dim=-1).mean())
    assert latents.u is not None
    torch.testing.assert_close(told["u_variance"], 1 - latents.u.mean(1).square().sum(-1).mean(), rtol=1e-4, atol=1e-5)
    pairs = model.contrast(latents, model.outputs(latents), batch)
    assert told["unlabelled_pairs"].item() == pytest.approx(pairs.unlabelled.float().mean().item())
    torch.testing.assert_close(told["labelled_proximity"], (pairs.cosine / 0.3).exp()[pairs.labelled].mean())
    torch.testing.assert_close(unit(latents.u), latents.u)


def test_a_monolithic_latent_has_the_same_parameters_and_is_both_u_and_z() -> None:
    shapes = {"text": (6,), "audio": (4,)}
    split, whole = (Robult(shapes, MultiClass(n_classes=3), RobultConfig(monolithic=on)) for on in (False, True))
    counts = [{name: p.numel() for name, p in method.named_parameters()} for method in (split, whole)]
    assert counts[0] == counts[1]
    inputs = {name: torch.randn(5, *shape) for name, shape in shapes.items()}
    latents = whole.encode(list(inputs.values()))
    assert latents.u is latents.z
    expected = whole.g0(latents.h) + torch.stack([g(h) for g, h in zip(whole.g, latents.h, strict=True)])
    torch.testing.assert_close(latents.z, expected / expected.norm(dim=-1, keepdim=True))
    with pytest.raises(ValueError, match="needs unique_branches"):
        RobultConfig(monolithic=True, unique_branches=False)
