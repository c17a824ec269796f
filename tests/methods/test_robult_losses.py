"""Robult's losses against worked numbers and against slow loops over pairs that follow the equations one by one.

The worked example has four samples in two dimensions, one modality and tau = 0.5; its numbers were computed with NumPy
from Eq. 2-7 and, where a name says so, by hand.
"""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from datasets.batch import Batch, make_batch
from datasets.tasks import MultiClass, MultiLabel, Regression, Task
from methods.contrast import log_share
from methods.robult import (
    Latents,
    Robult,
    RobultConfig,
    pair_weights,
    positive_pairs,
    reconstruction_loss,
    reference_proximity,
    supervised_loss,
)

S = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-0.8, 0.6]])
Z = torch.tensor([[0.8, 0.6], [0.6, 0.8], [0.0, 1.0], [-0.6, 0.8]])
TAU = torch.tensor(0.5)
COSINE = S @ Z.T
LABELLED = torch.tensor([True, True, True, False])
TARGET = torch.tensor([0, 0, 1, 0])
PSEUDO = torch.tensor([1, 0, 1, 1])
"""Predicted classes; those of the labelled samples are wrong on purpose and must be ignored."""

GOLDEN: dict[str, tuple[dict[str, Any], float, float]] = {
    "weights of one, mean over anchors": ({"weight": "none"}, 1.308508, 1.690522),
    "weights of one, sum over anchors": ({"weight": "none", "pu_reduction": "anchor_sum"}, 3.925523, 3.381044),
    "weights of one, mean over pairs": ({"weight": "none", "pu_reduction": "pair_mean"}, 1.282128, 1.427227),
    "fixed bandwidth on phi": ({"rbf": "phi_fixed", "pu_reduction": "anchor_sum"}, 3.925523, 0.270409),
    "adaptive bandwidth, mean over anchors": ({}, 1.308508, 1.104408),
    "adaptive bandwidth, sum over anchors": ({"pu_reduction": "anchor_sum"}, 3.925523, 2.208816),
    "fixed bandwidth on cosines": ({"rbf": "cos_fixed", "bandwidth": 0.5**0.5}, 1.308508, 1.358377),
    "manhattan distance": ({"weight": "l1"}, 1.308508, 0.240899),
    "euclidean distance": ({"weight": "l2"}, 1.308508, 0.337623),
    "no pseudo-labels": ({"pseudo_labelling": False}, 1.308508, 0.540638),
}


def robult(task: Task, modalities: int = 1, latent: int = 2, **values: Any) -> Robult:
    shapes = {f"m{i}": (3,) for i in range(modalities)}
    return Robult(shapes, task, RobultConfig(latent=latent, **({"tau": 0.5} | values)))


def latents(s: Tensor, *z: Tensor) -> Latents:
    stack = torch.stack(z)
    return Latents(stack, s, stack, stack, s)


def soft_pu(
    model: Robult, labelled: Tensor, target: Tensor = TARGET, pseudo: Tensor = PSEUDO, modalities: int = 1
) -> dict[str, Tensor]:
    """The terms of L_PU on the worked example, the same z in every modality."""
    size, classes = len(S), model.task.width
    logits = torch.nn.functional.one_hot(pseudo, classes).float().expand(modalities + 1, size, classes)
    batch = make_batch({f"m{i}": torch.zeros(size, 3) for i in range(modalities)}, target, labelled=labelled)
    return model.soft_pu(latents(S, *[Z] * modalities), logits, batch)


@pytest.mark.parametrize("modalities", [1, 3])
@pytest.mark.parametrize(("values", "lb", "ulb"), GOLDEN.values(), ids=GOLDEN)
def test_worked_example(values: dict[str, Any], lb: float, ulb: float, modalities: int) -> None:
    terms = soft_pu(robult(MultiClass(2), modalities, **values), LABELLED, modalities=modalities)
    assert terms["lb"].item() == pytest.approx(lb, abs=1e-5)
    assert terms["ulb"].item() == pytest.approx(ulb, abs=1e-5)


@pytest.mark.parametrize(("reduction", "ulb"), [("anchor_mean", 1.239177), ("anchor_sum", 4.956707)])
def test_without_labels_every_anchor_is_referred_to_its_own_partner(reduction: str, ulb: float) -> None:
    terms = soft_pu(robult(MultiClass(2), pu_reduction=reduction), torch.zeros(4, dtype=torch.bool))
    assert terms["lb"].item() == 0
    assert terms["ulb"].item() == pytest.approx(ulb, abs=1e-5)


@pytest.mark.parametrize(("target", "lb"), [((0, 0, 0, 0), 1.656540), ((0, 1, 2, 3), 1.016540)])
def test_all_labelled_with_one_class_and_with_all_classes_distinct(target: tuple[int, ...], lb: float) -> None:
    terms = soft_pu(robult(MultiClass(4)), torch.ones(4, dtype=torch.bool), torch.tensor(target))
    assert terms["lb"].item() == pytest.approx(lb, abs=1e-5)
    assert terms["ulb"].item() == 0


def test_all_labelled_and_distinct_is_one_directional_infonce() -> None:
    terms = soft_pu(robult(MultiClass(4)), torch.ones(4, dtype=torch.bool), torch.arange(4))
    infonce = torch.nn.functional.cross_entropy(COSINE / TAU, torch.arange(4))
    assert terms["lb"].item() == pytest.approx(infonce.item(), abs=1e-6)


def test_plus_gmc_adds_the_similarities_within_each_view() -> None:
    # Sums of log v over the five labelled pairs: s-z -6.410640, s-s -3.736080, z-z -1.175154; Eq. 18 divides by five.
    terms = soft_pu(robult(MultiClass(2), **Robult.variants["plus_gmc"]), LABELLED)
    assert terms["lb"].item() == pytest.approx((6.410640 + 3.736080 + 1.175154) / 5, abs=1e-5)
    assert terms["lb"].item() == pytest.approx(2.264375, abs=1e-5)


def test_pieces_of_the_worked_example() -> None:
    log_v = log_share(COSINE / TAU, torch.tensor(True))
    assert log_v[0].tolist() == pytest.approx([-0.659087, -1.059087, -2.259087, -3.459087], abs=1e-5)
    assert log_v[3].tolist() == pytest.approx([-3.020638, -2.460638, -1.260638, -0.540638], abs=1e-5)
    group = torch.where(LABELLED, TARGET, PSEUDO)
    known, guessed = positive_pairs(group, LABELLED)
    assert known.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 2]]
    assert guessed.nonzero().tolist() == [[2, 3], [3, 2], [3, 3]]
    phi = (COSINE / TAU).exp()
    reference = reference_proximity(phi, known)
    assert reference.tolist() == pytest.approx([4.136575, 4.136575, 4.953032, 6.820958], abs=1e-5)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("phi_adaptive", (0.634093, 0.580167, 1)),
        ("phi_fixed", (3.5e-5, 5e-6, 1)),
        ("cos_fixed", (0.763074, 0.878447, 1)),
        ("l1", (0.085260, 0, 1)),
        ("l2", (0.163251, 0, 1)),
        ("none", (1, 1, 1)),
    ],
)
def test_weights_of_the_worked_example(kernel: Any, expected: tuple[float, ...]) -> None:
    known, guessed = positive_pairs(torch.where(LABELLED, TARGET, PSEUDO), LABELLED)
    one = torch.tensor(1.0)
    weight = pair_weights(kernel, COSINE, TAU, known, guessed, kappa=one, gamma=one, bandwidth=torch.tensor(0.5**0.5))
    assert weight[guessed].tolist() == pytest.approx(expected, abs=1e-5 if kernel != "phi_fixed" else 1e-6)


def test_worked_example_under_vmap() -> None:
    """Two replicas that differ in tau and in which sample is labelled give what each gives alone."""
    labelled = torch.stack([LABELLED, torch.tensor([True, False, True, True])])
    taus = torch.tensor([0.5, 0.3])
    model = robult(MultiClass(2))

    def terms(tau: Tensor, labelled: Tensor) -> tuple[Tensor, Tensor]:
        target = torch.where(labelled, TARGET, 0)
        batch = make_batch({"m0": torch.zeros(4, 3)}, target, labelled=labelled)
        logits = torch.nn.functional.one_hot(PSEUDO, 2).float().expand(2, 4, 2)
        model.tau = tau
        named = model.soft_pu(latents(S, Z), logits, batch)
        return named["lb"], named["ulb"]

    lb, ulb = torch.func.vmap(terms)(taus, labelled)
    assert lb[0].item() == pytest.approx(1.308508, abs=1e-5)
    assert ulb[0].item() == pytest.approx(1.104408, abs=1e-5)
    for k in range(2):
        alone = terms(taus[k], labelled[k])
        assert [lb[k].item(), ulb[k].item()] == pytest.approx([term.item() for term in alone], abs=1e-6)


@pytest.mark.parametrize(("squared", "expected"), [(True, 0.5392), (False, 0.52)])
def test_reconstruction(squared: bool, expected: float) -> None:
    # Cosines 24/25 and 0.
    h, restored = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]]), torch.tensor([[[4.0, 3.0], [0.0, 2.0]]])
    loss = reconstruction_loss(restored, h, torch.ones(1, 2, dtype=torch.bool), squared=squared)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("reduction", "expected"), [("mean", 1.416667), ("sum", 4.25)])
def test_supervised_loss_over_the_branches(reduction: Any, expected: float) -> None:
    fused, first, second = [1.0, 1.0, 0.0], [0.5, 1.0, -2.0], [0.0, 2.0, 1.0]  # losses 1, 1.25, 2
    outputs = torch.tensor([fused, first, second])[..., None]
    labelled = torch.tensor([True, True, False]).expand(3, 3)
    loss = supervised_loss(outputs, torch.tensor([1.0, -1.0, 0.0]), labelled, Regression(), reduction)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_label_sets_match_only_when_equal() -> None:
    group = MultiLabel(2).groups(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    known, guessed = positive_pairs(group, torch.ones(4, dtype=torch.bool))
    assert known.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert not guessed.any()


def test_values_are_grouped_in_seven_classes_halves_to_even() -> None:
    groups = Regression().groups(torch.tensor([3.7, -0.5, 0.5, 1.49, -2.6]))
    assert (groups - 3).tolist() == [3, 0, 0, 1, -3]


def test_samples_without_predicted_labels_match_nobody_when_asked() -> None:
    task = MultiLabel(2)
    outputs = torch.full((2, 4, 2), -1.0)  # nothing predicted anywhere
    batch = make_batch({"m0": torch.zeros(4, 3)}, torch.zeros(4, 2), labelled=torch.tensor([True, False, False, False]))
    usual = robult(task).contrast(latents(S, Z), outputs, batch)
    ignoring = robult(task, ignore_empty_multilabel=True).contrast(latents(S, Z), outputs, batch)
    assert usual.unlabelled.sum() == 15  # all pairs but the labelled (0, 0)
    assert ignoring.unlabelled[0].nonzero().tolist() == [[1, 1], [2, 2], [3, 3]]
    assert ignoring.labelled[0].nonzero().tolist() == [[0, 0]]


def test_weights_carry_no_gradient() -> None:
    s, z = S.clone().requires_grad_(), Z.clone().requires_grad_()
    one = torch.tensor(1.0)
    known, guessed = positive_pairs(PSEUDO, LABELLED)
    weight = pair_weights("phi_adaptive", s @ z.T, TAU, known, guessed, kappa=one, gamma=one, bandwidth=one)
    assert not weight.requires_grad


# ---- slow loops -----------------------------------------------------------------------------------------------------


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def share(a: list[float], k: int, candidates: dict[int, list[float]], tau: float) -> float:
    """log v of candidate k for anchor a."""
    return dot(a, candidates[k]) / tau - math.log(sum(math.exp(dot(a, z) / tau) for z in candidates.values()))


def slow_modality(
    s: list[list[float]], z: list[list[float]], group: list[int], batch: Batch, i: int, c: RobultConfig
) -> tuple[float, float]:
    """L_lb and L_ulb of modality i, pair by pair."""
    size = range(len(s))
    labelled = batch.labelled.tolist()
    anchors = [j for j in size if batch.valid[j] and batch.available[j].all()]
    there = {k: z[k] for k in size if batch.valid[k] and batch.available[k, i]}
    fused = {k: s[k] for k in anchors}
    known: dict[int, list[int]] = {j: [] for j in anchors}
    guessed: dict[int, list[int]] = {j: [] for j in anchors}
    for j in anchors:
        for k in there:
            if j == k and not c.include_self:
                continue
            if labelled[j] and labelled[k]:
                if group[j] == group[k]:
                    known[j].append(k)
            elif (group[j] == group[k]) if c.pseudo_labelling else (j == k):
                guessed[j].append(k)

    def near(j: int, k: int) -> float:
        cosine = dot(s[j], z[k])
        return cosine if c.kernel == "cos_fixed" else math.exp(cosine / c.tau)

    reference = {
        j: sum(near(j, k) for k in known[j]) / len(known[j]) if known[j] else near(j, j) for j in anchors
    }  # fmt: skip
    gaps = {(j, k): near(j, k) - reference[j] for j in anchors for k in guessed[j]}
    apart = [gap**2 for (j, k), gap in gaps.items() if j != k]
    variance = sum(apart) / max(len(apart), 1)

    def weight(j: int, k: int) -> float:
        gap = gaps[j, k]
        if c.kernel == "phi_adaptive":
            return math.exp(-(gap**2) / (2 * c.kappa * variance + 1e-12))
        if c.kernel == "phi_fixed":
            return math.exp(-c.gamma * gap**2)
        if c.kernel == "cos_fixed":
            return math.exp(-(gap**2) / (2 * c.bandwidth**2))
        if c.kernel == "l1":
            return 1 - abs(gap) / max(*(abs(g) for g in gaps.values()), 1e-12)
        if c.kernel == "l2":
            return 1 - gap**2 / max(*(g**2 for g in gaps.values()), 1e-12)
        return 1.0

    def value(j: int, k: int) -> float:
        total = share(s[j], k, there, c.tau)
        if c.intra_view and j != k:
            if k in fused:
                total += share(s[j], k, {h: x for h, x in fused.items() if h != j}, c.tau)
            total += share(z[j], k, {h: x for h, x in there.items() if h != j}, c.tau)
        return total

    def reduce(pairs: dict[int, list[int]], weigh: Any) -> float:
        sums = {j: sum(-weigh(j, k) * value(j, k) for k in ks) for j, ks in pairs.items() if ks}
        if not sums:
            return 0.0
        if c.pu_reduction == "pair_mean":
            return sum(sums.values()) / sum(len(pairs[j]) for j in sums)
        total = sum(sums[j] / len(pairs[j]) for j in sums)
        return total / len(sums) if c.pu_reduction == "anchor_mean" else total

    return reduce(known, lambda j, k: 1.0), reduce(guessed, weight)


@st.composite
def situations(draw: Any) -> tuple[RobultConfig, Latents, Tensor, Batch, list[int]]:
    """A Config, random latents and outputs, a batch with any labels, gaps and filling rows, effective groups."""
    modalities, size, classes = draw(st.integers(1, 3)), draw(st.integers(1, 7)), 3
    config = RobultConfig(
        latent=3,
        tau=draw(st.sampled_from([0.25, 0.5, 1.0])),
        weight=draw(st.sampled_from(["rbf", "rbf", "l1", "l2", "none"])),
        rbf=draw(st.sampled_from(["phi_adaptive", "phi_fixed", "cos_fixed"])),
        kappa=draw(st.sampled_from([0.25, 1.0, 4.0])),
        gamma=0.5,
        bandwidth=0.25,
        pu_reduction=draw(st.sampled_from(["anchor_mean", "anchor_sum", "pair_mean"])),
        include_self=draw(st.booleans()),
        pseudo_labelling=draw(st.booleans()),
        intra_view=draw(st.booleans()),
    )
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def flags(shape: tuple[int, ...], share: float) -> Tensor:
        return torch.rand(shape, generator=random) < share

    def latent(*shape: int) -> Tensor:
        x = torch.randn(*shape, 3, generator=random, dtype=torch.float64)
        return x / x.norm(dim=-1, keepdim=True)

    available = flags((size, modalities), draw(st.sampled_from([1.0, 1.0, 0.7])))
    available[:, 0] |= ~available.any(1)
    batch = make_batch(
        {f"m{i}": torch.zeros(size, 3) for i in range(modalities)},
        torch.randint(0, classes, (size,), generator=random),
        labelled=flags((size,), draw(st.sampled_from([0.0, 0.5, 1.0]))),
        available=available,
        valid=flags((size,), draw(st.sampled_from([1.0, 1.0, 0.7]))),
    )
    z, s = latent(modalities, size), latent(size)
    outputs = torch.randn(modalities + 1, size, classes, generator=random, dtype=torch.float64)
    model = Robult(dict.fromkeys(batch.inputs, (3,)), MultiClass(classes), config)
    group = model.effective_groups(outputs, batch).tolist()
    return config, Latents(z, s, z, z, s), outputs, batch, group


@settings(max_examples=120, deadline=None)
@given(situations())
def test_soft_pu_equals_loops_over_pairs(situation: tuple[RobultConfig, Latents, Tensor, Batch, list[int]]) -> None:
    config, given_latents, outputs, batch, group = situation
    shapes = dict.fromkeys(batch.inputs, (3,))
    terms = Robult(shapes, MultiClass(3), config).double().soft_pu(given_latents, outputs, batch)
    slow = [
        slow_modality(given_latents.s.tolist(), z.tolist(), group, batch, i, config)
        for i, z in enumerate(given_latents.z)
    ]
    assert terms["lb"].item() == pytest.approx(sum(lb for lb, _ in slow) / len(slow), rel=1e-6, abs=1e-6)
    assert terms["ulb"].item() == pytest.approx(sum(ulb for _, ulb in slow) / len(slow), rel=1e-6, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(situations(), st.randoms(use_true_random=False))
def test_soft_pu_ignores_the_order_of_the_batch(situation: Any, random: Any) -> None:
    config, given_latents, outputs, batch, _ = situation
    order = list(range(len(batch.target)))
    random.shuffle(order)
    model = Robult(dict.fromkeys(batch.inputs, (3,)), MultiClass(3), config).double()
    shuffled = Batch({name: x[order] for name, x in batch.inputs.items()}, *(column[order] for column in batch[1:]))
    z, s = given_latents.z[:, order], given_latents.s[order]
    ours = model.soft_pu(given_latents, outputs, batch)
    theirs = model.soft_pu(Latents(z, s, z, z, s), outputs[:, order], shuffled)
    for name, value in ours.items():
        assert theirs[name].item() == pytest.approx(value.item(), rel=1e-9, abs=1e-12)


def test_one_sample_costs_nothing() -> None:
    model = robult(MultiClass(2))
    batch = make_batch({"m0": torch.zeros(1, 3)}, torch.tensor([1]))
    terms = model.soft_pu(latents(S[:1], Z[:1]), torch.zeros(2, 1, 2), batch)
    assert [term.item() for term in terms.values()] == pytest.approx([0, 0], abs=1e-6)


def test_one_class_among_unlabelled_is_finite() -> None:
    model = robult(MultiClass(2))
    terms = soft_pu(model, torch.zeros(4, dtype=torch.bool), pseudo=torch.zeros(4, dtype=torch.long))
    assert all(torch.isfinite(term) for term in terms.values())
    assert terms["ulb"] > 0
