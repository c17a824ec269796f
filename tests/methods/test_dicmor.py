"""DiCMoR and its flow against a worked example of the reference code, Jacobians, and a loop over patterns."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch, make_batch
from datasets.tasks import Binary, MultiClass, MultiLabel, Regression, Task
from methods.dicmor import DiCMoR, DiCMoRConfig, bits_per_dimension, log_density
from methods.flow import FARTHEST, START, Coupling, Flow
from methods.noise import row_keys

# ---- the flow: the reference code's own function (DiCMoR, commit 3d7e617) gives these digits ------------------------


def untrained(width: int, steps: int, alternate: bool = False) -> Flow:
    """A flow whose networks' last layers are zero, as the reference starts."""
    flow = Flow(width, 64, steps, alternate).double()
    with torch.no_grad():
        for step in flow.steps:
            for parameter in step.layers[-1].parameters():
                parameter.zero_()
    return flow


def test_untrained_flow_by_hand() -> None:
    """Two samples of four channels and two time steps; each time step is a vector to our flow."""
    x = torch.tensor(
        [[[1, -1], [0.5, 0], [2, 0.1], [-0.3, 0.4]], [[0, 0.2], [0.3, -0.7], [1, 1], [0.6, -0.2]]], dtype=torch.float64
    ).mT  # (B, T, channels)
    flow = untrained(4, 32)
    z, log_determinant = flow(x)
    torch.testing.assert_close(z[..., :2], x[..., :2], atol=0, rtol=0)
    torch.testing.assert_close(z[..., 2:], 0.01721978 * x[..., 2:], atol=1e-8, rtol=0)
    assert log_determinant.sum(1).tolist() == pytest.approx([-16.24678541] * 2, abs=1e-8)
    torch.testing.assert_close(flow.inverse(z), x, atol=1e-14, rtol=0)
    torch.testing.assert_close(untrained(4, 32).inverse(z), x, atol=1e-14, rtol=0)  # another untrained flow
    standard = log_density(z, *torch.zeros(2, 4, dtype=torch.float64))
    assert standard.sum().item() == pytest.approx(-16.13900395, abs=1e-7)
    bits = bits_per_dimension((standard + log_determinant).sum(), 2 * 4 * 2)
    assert bits.item() == pytest.approx(4.38512340, abs=1e-8)


@pytest.mark.parametrize(("width", "millions"), [(32, 0.24), (64, 0.34), (128, 0.54)])
def test_couplings_have_the_published_size(width: int, millions: float) -> None:
    assert sum(p.numel() for p in Flow(width, 64, 32, False).parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def trained(width: int, steps: int, alternate: bool, seed: int) -> Flow:
    """A flow with weights far from its start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = Flow(width, 8, steps, alternate).double()
        for parameter in flow.parameters():
            nn.init.normal_(parameter, std=0.3)
    return flow


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(1, 6), st.booleans(), st.integers(0, 2**31))
def test_the_inverse_undoes_the_flow_and_the_determinant_is_the_jacobians(
    width: int, steps: int, alternate: bool, seed: int
) -> None:
    flow = trained(width, steps, alternate, seed)
    x = torch.randn(3, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    z, log_determinant = flow(x)
    torch.testing.assert_close(flow.inverse(z), x, atol=1e-8, rtol=1e-6)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda row: flow(row)[0], x[i])
        assert log_determinant[i].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-6)


def test_halves_that_take_turns_all_change() -> None:
    x = torch.randn(5, 6, dtype=torch.float64)
    assert torch.equal(trained(6, 8, False, 0)(x)[0][:, :3], x[:, :3])  # the reference's half that never does
    changed = trained(6, 8, True, 0)(x)[0]
    assert ((changed - x).abs() > 1e-3).all()


def test_a_new_flow_is_close_to_the_reference_start_and_learns_everywhere() -> None:
    flow, x = Flow(8, 64, 4, True), torch.randn(16, 8)
    z, log_determinant = flow(x)
    start, first = untrained(8, 4, True).float()(x)
    torch.testing.assert_close(z, start, atol=50 * START, rtol=0)
    torch.testing.assert_close(log_determinant, first, atol=50 * START, rtol=0)
    (z.square().sum() - log_determinant.sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in flow.parameters())


def test_the_way_back_stays_finite_wherever_it_starts() -> None:
    flow = Flow(6, 8, 32, True)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=2.0)
    x = flow.inverse(1e4 * torch.randn(20, 6))
    assert torch.isfinite(x).all()
    assert x.abs().max() <= FARTHEST


def test_halves_of_an_odd_width() -> None:
    for first in (True, False):
        coupling, x = Coupling(5, 4, first), torch.randn(3, 5)
        kept, changed = coupling.halves(x)
        assert kept.shape[1] == (3 if first else 2)
        assert torch.equal(coupling.whole(kept, changed), x)


# ---- priors ---------------------------------------------------------------------------------------------------------

SHAPES = {"text": (5,), "audio": (4, 3), "vision": (4,)}
SOME = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1]] * 2).bool()
LABELLED = torch.tensor([1, 1, 0, 1, 0, 1, 1, 0]).bool()


def model(task: Task | None = None, stage: str = "recovery", **values: object) -> DiCMoR:
    torch.manual_seed(1)
    config = DiCMoRConfig.model_validate({"latent": 6, "head_dropout": 0.0, "flow_steps": 3} | values)
    method = DiCMoR(SHAPES, task or Regression(), config)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if name.startswith(("flows", "prior")):
                nn.init.normal_(parameter, std=0.3)
    method.stage = stage
    return method.eval()


def batch(
    task: Task | None = None, available: Tensor | None = None, labelled: Tensor | None = None, size: int = 8
) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    target = 3 * torch.randn(size, generator=random)
    if isinstance(task, MultiLabel):
        target = (torch.randn(size, task.n_labels, generator=random) > 0).float()
    elif isinstance(task, MultiClass):
        target = torch.arange(size) % task.n_classes
    return make_batch(inputs, target, available=available, labelled=labelled, noise=row_keys(0, 0, size))


def densities(method: DiCMoR, z: Tensor) -> Tensor:
    """log N(z) under every prior from torch's own distribution, (B, G)."""
    each = [torch.distributions.Normal(mean, log_sigma.exp()).log_prob(z).sum(-1) for mean, log_sigma in method.prior]
    return torch.stack(each, dim=-1)


@pytest.mark.parametrize("task", [Regression(), MultiClass(n_classes=3), Binary()])
def test_a_hidden_label_leaves_the_mixture_of_the_classes(task: Task) -> None:
    method, of = model(task), batch(task, labelled=LABELLED)
    method.enter(of)
    count = torch.bincount(task.groups(of.target)[LABELLED], minlength=len(method.prior)) + 1.0
    torch.testing.assert_close(method.log_share.exp(), count / count.sum())
    z = torch.randn(3, 8, 6)
    given_density = method.log_prior(z, of)
    for m in range(3):
        each = densities(method, z[m])
        of_class = each.gather(1, task.groups(of.target)[:, None])[:, 0]
        mixture = (each.exp() * (count / count.sum())).sum(1).log()
        torch.testing.assert_close(given_density[m], torch.where(LABELLED, of_class, mixture), atol=1e-4, rtol=1e-4)


def test_many_labels_share_a_prior_or_add_theirs_up() -> None:
    task = MultiLabel(n_labels=3)
    of, z = batch(task, labelled=LABELLED), torch.randn(3, 8, 6)
    shared = model(task)
    assert len(shared.prior) == 1
    torch.testing.assert_close(shared.log_prior(z, of)[0], densities(shared, z[0])[:, 0], atol=1e-4, rtol=1e-4)
    summed = model(task, multilabel_prior="sum")
    mean, log_sigma = summed.prior[0] + sum(summed.prior[1 + i] for i in range(3) if of.target[0, i])
    expected = torch.distributions.Normal(mean, log_sigma.exp()).log_prob(z[0, 0]).sum()
    assert summed.log_prior(z, of)[0, 0].item() == pytest.approx(expected.item(), abs=1e-4)
    assert not summed.has_mixture
    hidden = of._replace(target=torch.where(LABELLED[:, None], of.target, 1.0))
    assert summed.loss(of)["prior"] == summed.loss(hidden)["prior"]  # they teach the flows nothing


def test_priors_are_standard_normal_at_first() -> None:
    method = DiCMoR(SHAPES, Regression(), DiCMoRConfig(latent=6))
    z = torch.randn(3, 8, 6)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(method.log_prior(z, batch(labelled=LABELLED)), expected)


# ---- the losses -----------------------------------------------------------------------------------------------------


def written_out(method: DiCMoR, of: Batch) -> dict[str, float]:
    """All three losses sample by sample, pattern by pattern and modality by modality."""
    config, bits = method.config, [[] for _ in SHAPES]
    rebuilt, sup = [], []
    h = [method.f[m](of.inputs[name]) for m, name in enumerate(SHAPES)]
    for j in range(len(of.target)):
        has = [m for m in range(3) if of.available[j, m]]
        z = {}
        for m in has:
            z[m], change = method.flows[m](h[m][j])
            log_prior = method.log_prior(z[m][None, None].expand(3, 8, 6), of)[0, j]
            if of.labelled[j] or method.has_mixture:
                bits[m].append(-(change + log_prior) / math.log(2) / 6)
        every = [[m for m in range(3) if kept[m]] for kept in product([True, False], repeat=3)]
        patterns = [p for p in every if p and set(p) <= set(has)]
        errors, losses = [], []
        for pattern in patterns:
            slots, missed = [], []
            for m in range(3):
                if m in pattern:
                    slots.append(h[m][j])
                    continue
                carried = sum(method.flows[m].inverse(z[k]) for k in pattern) / len(pattern)
                slots.append(method.rebuild[m](carried))
                if m in has:
                    missed.append((slots[-1] - h[m][j]).square().mean())
            errors.append(sum(missed) / len(missed) if missed else torch.tensor(0.0))
            output = method.head(torch.cat(slots)[None], of.noise[j : j + 1])
            losses.append(method.task.sample_loss(output, of.target[j : j + 1])[0])
        rebuilt.append(sum(errors) / len(errors))
        if of.labelled[j]:
            sup.append(sum(losses) / len(losses))
    return {
        "prior": config.lambda_prior * float(sum(max(sum(b) / len(b), torch.tensor(0.0)) for b in bits)),
        "rebuild": config.lambda_rebuild * float(sum(rebuilt) / len(rebuilt)),
        "sup": float(sum(sup) / len(sup)),
    }


@pytest.mark.parametrize("available", [None, SOME])
@pytest.mark.parametrize(
    "values",
    [{}, {"reference_coupling": True, "lambda_rebuild": 0.5}, {"unlabelled_prior": "none", "rebuild_blocks": 1}],
)
def test_losses_equal_a_loop(values: dict[str, object], available: Tensor | None) -> None:
    method, of = model(**values), batch(available=available, labelled=LABELLED)
    with torch.no_grad():
        expected = written_out(method, of)
        terms = {name: float(value) for name, value in method.loss(of).items()}
    assert terms == pytest.approx(expected, abs=1e-4, rel=1e-4)


def test_bits_below_zero_let_go() -> None:
    """Where the density is good enough the reference stops pushing."""
    method, of = model(), batch()
    with torch.no_grad():
        for parameter in method.f.parameters():
            parameter.zero_()  # every embedding is 0
        method.prior.zero_()
        method.prior[:, 1] = -4
        for flow in method.flows:
            for parameter in flow.parameters():
                parameter.zero_()
    assert method.diagnose(of)["bits/text"] < 0
    assert method.loss(of)["prior"] == 0


GROUPS = ("f.", "flows.", "rebuild.", "prior", "head.")


@pytest.mark.parametrize(
    ("term", "moved"),
    [("prior", {"flows.", "prior"}), ("rebuild", {"rebuild."}), ("sup", {"f.", "rebuild.", "head."})],
)
def test_which_term_moves_what(term: str, moved: set[str]) -> None:
    """Only the task moves the encoders, only the likelihood the flows (DiCMoR code, where the encoders are frozen)."""
    method = model().train()
    method.loss(batch())[term].backward()
    got = {
        group
        for group in GROUPS
        for name, parameter in method.named_parameters()
        if name.startswith(group) and parameter.grad is not None and parameter.grad.any()
    }
    assert got == moved


# ---- stages and inference -------------------------------------------------------------------------------------------


def test_complete_data_come_first() -> None:
    method = model(stage="complete")
    assert [stage.name for stage in method.stages()] == ["complete", "recovery"]
    of = batch(available=SOME, labelled=LABELLED)
    terms = method.loss(of)
    assert set(terms) == {"prior", "sup"}
    whole = SOME.all(1) & LABELLED
    expected = (method.predict(of)[whole, 0] - of.target[whole]).abs().mean()
    torch.testing.assert_close(terms["sup"], expected)
    assert [stage.name for stage in model(complete_share=0.0).stages()] == ["recovery"]


def test_frozen_encoders_stay_as_complete_data_made_them() -> None:
    first, second = model(freeze_encoders=True).stages()
    names = [name for name, _ in model().named_parameters()]
    assert all(first.covers(name) for name in names)
    assert {name for name in names if not second.covers(name)} == {name for name in names if name.startswith("f.")}
    with pytest.raises(ValidationError, match="complete_share must be above 0"):
        DiCMoRConfig(freeze_encoders=True, complete_share=0.0)


@pytest.mark.parametrize(
    ("values", "stage", "needs"),
    [
        ({}, "complete", False),
        ({"unlabelled_prior": "none"}, "complete", True),
        ({"unlabelled_prior": "none"}, "recovery", False),
        ({"unlabelled_prior": "none", "lambda_rebuild": 0.0}, "recovery", True),
    ],
)
def test_when_labels_are_needed(values: dict[str, object], stage: str, needs: bool) -> None:
    method = model(stage=stage, **values).train()
    assert method.needs_labels == needs
    sum(method.loss(batch(labelled=torch.zeros(8, dtype=torch.bool))).values()).backward()
    assert needs != any(p.grad is not None and bool(p.grad.any()) for p in method.parameters())


def test_slots_are_embeddings_or_recovered() -> None:
    method, of = model(), batch(available=SOME)
    embedded = method.embed(of)
    h = {name: method.f[m](of.inputs[name]) for m, name in enumerate(SHAPES)}
    for m, name in enumerate(SHAPES):
        torch.testing.assert_close(embedded[f"z/{name}"][SOME[:, m]], h[name][SOME[:, m]])
    z = method.flows[0](h["text"][1])[0]  # the second sample has the text alone
    recovered = method.rebuild[2](method.flows[2].inverse(z))
    torch.testing.assert_close(embedded["z/vision"][1], recovered)
    torch.testing.assert_close(embedded["u/text"][1], z)
    torch.testing.assert_close(method.predict(of), method.head(embedded["s"], of.noise))


def test_a_latent_of_one_feature_is_refused() -> None:
    spec = DataSpec("tiny", SHAPES, Regression(), {"train": 8, "valid": 8, "test": 8}, "tiny")
    assert "latent must be 2 or more" in str(DiCMoR.refuses(spec, DiCMoRConfig(latent=1)))
    assert DiCMoR.refuses(spec, DiCMoRConfig(latent=2)) is None


def test_recovery_learns_what_modalities_share() -> None:
    """Two views of one vector: from the other one, an embedding is recovered far better than by its mean."""
    random = torch.Generator().manual_seed(0)
    common = torch.randn(64, 3, generator=random)
    turned = {name: torch.linalg.qr(torch.randn(3, 3, generator=random)).Q for name in ("a", "b")}
    of = make_batch({name: common @ turn for name, turn in turned.items()}, (common[:, 0] > 0).long())
    torch.manual_seed(0)
    config = DiCMoRConfig(latent=32, lambda_rebuild=1.0, freeze_encoders=True, flow_steps=2, complete_share=0.5)
    method = DiCMoR({"a": (3,), "b": (3,)}, Binary(), config)
    told = []
    for stage in method.stages():
        method.stage = stage.name
        method.enter(of)
        trained_now = [p for name, p in method.named_parameters() if stage.covers(name)]
        optimiser = torch.optim.Adam(trained_now, lr=3e-3)
        for step in range(80):
            method.zero_grad()
            sum(method.train().loss(of._replace(noise=row_keys(0, step, 64))).values()).backward()
            optimiser.step()
        told.append({name: value.item() for name, value in method.eval().diagnose(of).items()})
    for name in ("rebuild/a", "rebuild/b"):
        assert told[0][name] > 0.25
        assert told[1][name] < 0.5 * told[0][name]
