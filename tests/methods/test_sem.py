"""SEM against worked examples of the reference code's functions, and all pairs at once against one after another."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datasets.batch import Batch, make_batch
from datasets.tasks import Binary, MultiClass, MultiLabel, Regression, Task
from methods.noise import row_keys
from methods.sem import (
    RINCE_POWER,
    RINCE_WEIGHT,
    SEM,
    SEMConfig,
    clustered,
    cmi_weight,
    jsd_weight,
    mmd_weight,
    nce,
    pscl,
    rince,
)

# ---- worked examples: the reference code's own functions (SEM, commit 5ccaa63) give these digits --------------------

Z = F.normalize(
    torch.tensor(
        [[[1, 0, 1], [0, 1, 1], [1, 1, 0]], [[1, 0.2, 0.8], [0.1, 1, 0.5], [0.9, 1, -0.2]]], dtype=torch.float64
    ),
    dim=-1,
)
ALL = torch.ones(2, 3, dtype=torch.bool)
GROUPS = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 2, 2])


def test_contrasts_by_hand() -> None:
    expected = torch.tensor([[1.23142920, 1.26747648], [1.26747648, 1.27159395]], dtype=torch.float64)
    torch.testing.assert_close(nce(Z, ALL), expected, atol=1e-8, rtol=0)
    assert pscl(Z, ALL)[0, 1].item() == pytest.approx(-1.66733448, abs=1e-8)
    assert rince(Z, ALL)[0, 1].item() == pytest.approx(-5.01322533, abs=1e-7)


def test_weights_by_hand() -> None:
    assert math.log(1 + cmi_weight(*GROUPS)) == pytest.approx(0.73966738, abs=1e-8)
    assert cmi_weight(*GROUPS) == pytest.approx(1.09523847, abs=1e-8)
    first = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    second = torch.tensor([[1.0, 0.5], [0.0, 1.0], [2.0, 0.0]], dtype=torch.float64)
    assert 1 - math.log(1 + jsd_weight(first, second)) == pytest.approx(0.03820321, abs=1e-8)
    assert jsd_weight(first, second) == pytest.approx(1.61639335, abs=1e-8)
    assert -math.log(mmd_weight(first, second)) == pytest.approx(1.12371572, abs=1e-8)
    assert mmd_weight(first, second) == pytest.approx(0.32506968, abs=1e-8)


def test_weighted_sum_by_hand() -> None:
    weight = torch.tensor([[cmi_weight(a, b) for b in GROUPS] for a in GROUPS], dtype=torch.float64)
    assert (weight * nce(Z, ALL)).sum().item() == pytest.approx(7.07727719, abs=1e-7)


def test_a_view_with_itself() -> None:
    """Two orthonormal rows: the duplicate against twice the other row, log(e + 2) - 1."""
    alone = nce(torch.eye(2, dtype=torch.float64)[None], torch.ones(1, 2, dtype=torch.bool))
    assert alone.item() == pytest.approx(0.55144471, abs=1e-8)


# ---- all pairs at once against one pair after another ---------------------------------------------------------------


def one_pair(a: Tensor, b: Tensor, how: str, tau: float) -> float:
    """The contrast of the samples that have both views, row by row of the 2B stacked ones."""
    if how == "pscl":
        n, product = len(a), a @ b.T
        apart = (product - product.diag().diag()).square().sum() / max(n * (n - 1), 1)
        return float(apart - 2 * (a * b).sum() / n)
    stacked, n = torch.cat([a, b]), len(a)
    lost = []
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        negatives = [stacked[i] @ stacked[k] / tau for k in range(2 * n) if k % n != i % n]
        positive = stacked[i] @ stacked[partner] / tau
        total = torch.stack([positive, *negatives]).exp().sum()
        if how == "nce":
            lost.append(total.log() - positive)
        else:
            q = RINCE_POWER
            lost.append(-(positive.exp() ** q) / q + (RINCE_WEIGHT * total) ** q / q)
    return float(sum(lost) / len(lost))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.sampled_from(["nce", "rince", "pscl"]), st.integers(0, 2**31))
def test_all_pairs_equal_one_after_another(views: int, size: int, how: str, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(views, size, 3, generator=random, dtype=torch.float64), dim=-1)
    everything = torch.ones(views, size, dtype=torch.bool)
    given_matrix = {"nce": lambda: nce(z, everything, 0.7), "rince": lambda: rince(z, everything, 0.7)}.get(
        how, lambda: pscl(z, everything)
    )()
    expected = [[one_pair(z[v], z[w], how, 0.7) for w in range(views)] for v in range(views)]
    torch.testing.assert_close(given_matrix, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(given_matrix, given_matrix.T)


@pytest.mark.parametrize("how", [nce, rince, pscl])
def test_samples_that_lack_a_view_are_not_contrasted(how: object) -> None:
    """Samples 3 and 4 lack both views, so the rest is as if they were not there."""
    z = F.normalize(torch.randn(2, 5, 3, dtype=torch.float64), dim=-1)
    seen = torch.tensor([[1, 1, 1, 0, 0]] * 2).bool()
    torch.testing.assert_close(how(z, seen), how(z[:, :3], seen[:, :3]))  # type: ignore[operator]
    assert not how(z, torch.zeros_like(seen)).any()  # type: ignore[operator]


def test_a_lone_row_is_still_pushed_from() -> None:
    """What has one view is a candidate there, but no anchor of the pair."""
    z = F.normalize(torch.randn(2, 3, 3, dtype=torch.float64), dim=-1)
    seen = torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    lost = []
    for own, other, i in ((0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1)):
        candidates = [(v, k) for v in (own, other) for k in range(3) if k != i and seen[v, k]]
        positive = z[own, i] @ z[other, i]
        score = torch.stack([positive, *[z[own, i] @ z[v, k] for v, k in candidates]])
        lost.append(score.logsumexp(0) - positive)
    assert nce(z, seen)[0, 1].item() == pytest.approx(float(sum(lost) / 4), abs=1e-9)


def test_rows_longer_than_the_radius_are_cut_to_it() -> None:
    z = torch.randn(2, 4, 3, dtype=torch.float64)
    longer = torch.where(z.norm(dim=-1, keepdim=True) > 1, z, F.normalize(z, dim=-1))
    seen = torch.ones(2, 4, dtype=torch.bool)
    torch.testing.assert_close(pscl(5 * longer, seen, 1.0), pscl(F.normalize(z, dim=-1), seen))


# ---- weights --------------------------------------------------------------------------------------------------------

SHAPES = {"text": (5,), "audio": (4, 3), "vision": (4,)}
SOME = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1]] * 2).bool()
LABELLED = torch.tensor([1, 1, 0, 1, 0, 1, 1, 0]).bool()


def model(task: Task | None = None, stage: str = "contrast-1", **values: object) -> SEM:
    torch.manual_seed(1)
    config = SEMConfig.model_validate({"latent": 6, "head_dropout": 0.0} | values)
    method = SEM(SHAPES, task or Regression(), config)
    method.stage = stage
    return method.eval()


def batch(available: Tensor | None = None, labelled: Tensor | None = None, size: int = 8) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    target = torch.randn(size, generator=random)
    return make_batch(inputs, target, available=available, labelled=labelled, noise=row_keys(0, 0, size))


@pytest.mark.parametrize(("how", "diagonal"), [("cmi", math.e - 1), ("jsd", math.e - 1), ("mmd", 1.0), ("none", 1.0)])
def test_weights_are_symmetric_and_largest_for_a_view_with_itself(how: str, diagonal: float) -> None:
    method = model(weighting=how)
    x = torch.randn(3, 40, 6)
    seen = torch.ones(3, 40, dtype=torch.bool)
    weight = method.weights(x, seen)
    assert torch.equal(weight, weight.T)
    assert weight.diagonal().tolist() == pytest.approx([diagonal] * 3, abs=1e-5)
    assert (weight >= 0).all()
    assert (weight <= diagonal + 1e-5).all()
    assert torch.equal(weight, method.weights(x, seen))
    seen[0] = False
    alone = method.weights(x, seen)
    if how != "none":
        assert not alone[0].any()  # a pair nobody has


@pytest.mark.parametrize("how", ["cmi", "jsd", "mmd"])
def test_weights_are_larger_for_views_that_agree(how: str) -> None:
    random = torch.Generator().manual_seed(0)
    centre = 4 * torch.eye(6)[torch.arange(60) % 3]
    first, second = (centre + 0.3 * torch.randn(60, 6, generator=random) for _ in range(2))
    stranger = 3 * torch.randn(60, 6, generator=random)
    method = model(MultiClass(n_classes=3), weighting=how)
    weight = method.weights(torch.stack([first, second, stranger]), torch.ones(3, 60, dtype=torch.bool))
    assert weight[0, 1] > weight[0, 2] + 0.1
    assert weight[0, 1] > weight[1, 2] + 0.1


def test_weights_read_only_samples_that_have_the_views() -> None:
    x = torch.randn(3, 30, 6)
    seen = torch.ones(3, 30, dtype=torch.bool)
    seen[1, 20:] = False
    for how in ("cmi", "jsd", "mmd"):
        method, other = model(weighting=how), x.clone()
        other[1, 20:] = 1e3
        assert torch.equal(method.weights(x, seen), method.weights(other, seen))


def test_no_more_clusters_than_different_rows() -> None:
    same = np.ones((10, 3), dtype=np.float32)
    assert set(clustered(same, 4, 2, 0)) == {0}
    two = np.concatenate([same, -same])
    assert len(set(clustered(two, 7, 2, 0))) == 2


@pytest.mark.parametrize(
    ("task", "count"), [(Regression(), 7), (MultiClass(n_classes=5), 5), (Binary(), 2), (MultiLabel(n_labels=4), 4)]
)
def test_as_many_clusters_as_classes_labels_or_levels(task: Task, count: int) -> None:
    x, seen = torch.randn(3, 50, 6), torch.ones(3, 50, dtype=torch.bool)
    seen[2, :5] = False
    groups = model(task).clusters(x, seen)
    assert set(groups[0]) == set(range(count))
    assert set(groups[2][:5]) == {-1}
    assert set(groups[2][5:]) == set(range(count))
    assert set(model(task, clusters=3).clusters(x, seen)[0]) == {0, 1, 2}


# ---- the method -----------------------------------------------------------------------------------------------------


def test_training_is_autoencoders_and_then_periods() -> None:
    stages = model(periods=2, start_share=0.4).stages()
    assert [(stage.name, round(stage.share, 6)) for stage in stages] == [
        ("autoencoders", 0.4), ("contrast-1", 0.3), ("contrast-2", 0.3)
    ]  # fmt: skip


def test_weights_are_made_before_each_period() -> None:
    method, of = model(MultiClass(n_classes=3), stage="autoencoders", weighting="jsd"), batch(SOME)
    method.requires_grad_(False)
    method.enter(of)
    assert torch.equal(method.pair_weight, torch.ones(3, 3))
    assert (method.targets.each[0].std != 1).all()  # but the targets are standardised
    h = method.encode(list(of.inputs.values()))
    for stage, of_what in (("contrast-1", h), ("contrast-2", method.projected(h))):
        method.stage = stage
        method.enter(of)
        torch.testing.assert_close(method.pair_weight, method.weights(of_what, SOME.T))
    assert "pair_weight" in method.state_dict()  # restored with the best epoch


def test_a_split_is_encoded_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("methods.sem.ROWS", 3)
    method, of = model(), batch()
    h, z = method.encoded(list(of.inputs.values()))
    torch.testing.assert_close(h, method.encode(list(of.inputs.values())))
    torch.testing.assert_close(z, method.projected(h))


@pytest.mark.parametrize("available", [None, SOME])
@pytest.mark.parametrize("contrast", ["nce", "rince", "pscl"])
def test_losses_equal_sums_written_out(contrast: str, available: Tensor | None) -> None:
    method, of = model(contrast=contrast, lambda_con=0.3, lambda_rec=2.0), batch(available, LABELLED)
    method.pair_weight.copy_(torch.rand(3, 3))
    with torch.no_grad():
        terms = {name: float(value) for name, value in method.loss(of).items()}
        h = method.encode(list(of.inputs.values()))
        z, there = method.projected(h), of.available.T
        torch.testing.assert_close(z.norm(dim=-1), torch.ones(3, 8))
        rec = 0.0
        for v, x in enumerate(of.inputs.values()):
            gap = method.decoders[v](h[v]) - method.targets.each[v](x)
            rec += float(gap.square()[there[v]].mean())
        tau = 0.5 if contrast == "rince" else 1.0
        pairs = {"nce": nce(z, there, tau), "rince": rince(z, there, tau), "pscl": pscl(z, there)}[contrast]
        con = sum(float(method.pair_weight[v, w] * pairs[v, w]) for v in range(3) for w in range(3))
        sup = []
        for j in torch.arange(8)[LABELLED]:
            has = [v for v in range(3) if of.available[j, v]]
            subsets = [[v for i, v in enumerate(has) if code >> i & 1] for code in range(1, 2 ** len(has))]
            outputs = [method.head(z[s, j].mean(0)[None], of.noise[:1])[0, 0] for s in subsets]
            sup.append(sum(float((output - of.target[j]).abs()) for output in outputs) / len(outputs))
    expected = {"rec": 2.0 * rec, "con": 0.3 * con, "sup": sum(sup) / len(sup)}
    assert terms == pytest.approx(expected, rel=1e-4)


def test_the_first_stage_only_reconstructs() -> None:
    method, of = model(stage="autoencoders"), batch(labelled=LABELLED)
    terms = method.loss(of)
    assert set(terms) == {"rec"}
    terms["rec"].backward()
    moved = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"f", "decoders"}


def test_denoising_and_masking_are_for_training() -> None:
    of = batch(size=200)
    xs = list(of.inputs.values())
    for start in ("plain", "noisy", "masked"):
        method = model(start=start, stage="autoencoders")
        assert all(torch.equal(a, b) for a, b in zip(method.disturbed(xs, of.noise), xs, strict=True))
        method.train()
        disturbed = method.disturbed(xs, of.noise)
        for a, b in zip(disturbed, xs, strict=True):
            gap = a - b
            if start == "plain":
                assert not gap.any()
            elif start == "noisy":
                assert gap.std().item() == pytest.approx(1, abs=0.05)
            else:
                assert (a == 0).float().mean().item() == pytest.approx(0.3, abs=0.05)
                assert torch.equal(a[a != 0], b[a != 0])
    assert not torch.equal(disturbed[0] == 0, (disturbed[2] == 0)[:, :1].expand(200, 5))


def test_prediction_is_of_the_mean_projection() -> None:
    method, of = model(), batch(SOME)
    embedded = method.embed(of)
    torch.testing.assert_close(method.predict(of), method.head(embedded["s"], of.noise))
    torch.testing.assert_close(embedded["s"][1], embedded["z/text"][1])
    both = (embedded["z/audio"][2] + embedded["z/vision"][2]) / 2
    torch.testing.assert_close(embedded["s"][2], both)


def test_diagnosis_tells_degeneration() -> None:
    method, of = model(), batch()
    method.pair_weight.copy_(torch.tensor([[9.0, 1.0, 2.0], [1.0, 9.0, 3.0], [2.0, 3.0, 9.0]]))
    told = {name: float(value) for name, value in method.diagnose(of).items()}
    assert [told[f"weight/{name}"] for name in SHAPES] == pytest.approx([1.5, 2.0, 2.5])
    assert max(told[f"alike/{name}"] for name in SHAPES) < 0.999
    with torch.no_grad():
        for project in method.project:
            project.weight.zero_()
            project.bias.fill_(1.0)
    told = {name: float(value) for name, value in method.diagnose(of).items()}
    assert [told[f"alike/{name}"] for name in SHAPES] == pytest.approx([1.0] * 3, abs=1e-5)
    assert [told[f"agreement/{name}"] for name in SHAPES] == pytest.approx([1.0] * 3, abs=1e-5)
