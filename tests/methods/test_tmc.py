"""TMC against printed values and a training run of its code, and against sums written out in NumPy."""

from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import digamma, gammaln
from torch import Tensor

from bench.contract import TASKS
from datasets.base import DataSpec
from datasets.batch import Batch, make_batch
from datasets.handwritten import FILE_NAME, VIEWS, read_mat
from datasets.tasks import MultiClass, MultiLabel, Task
from methods.evidential import confidence, uncertainty
from methods.tmc import TMC, TMCConfig

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "handwritten" / FILE_NAME
SHAPES = {"text": (5,), "audio": (3,), "vision": (4,)}

Floats = NDArray[np.float64]


def model(task: Task | None = None, **values: Any) -> TMC:
    torch.manual_seed(1)
    method = TMC(SHAPES, task or MultiClass(3), TMCConfig.model_validate({"latent": 6} | values))
    with torch.no_grad():  # opinions that differ, so that no mistake hides in vacuous ones
        for head in method.head:
            head.weight.mul_(6)
    return method.double()


def batch(task: Task | None = None, available: Tensor | None = None, labelled: Tensor | None = None) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(6, *shape, generator=random).double() for name, shape in SHAPES.items()}
    many = isinstance(task, MultiLabel)
    target = (torch.rand(6, 3, generator=random) < 0.5).float() if many else torch.tensor([0, 1, 2, 2, 1, 0])
    made = make_batch(inputs, target, available=available, labelled=labelled)
    return made._replace(progress=torch.full((6,), 0.03, dtype=torch.float64))


# ---- the worked example: three views, two samples of classes 0 and 2, printed by the TMC code (commit 08d0ca4) ------

EVIDENCE = torch.tensor(
    [[[2.0, 0.5, 0.1], [0.2, 0.3, 4.0]], [[1.0, 1.0, 0.0], [3.0, 0.0, 1.0]], [[0.0, 0.4, 0.4], [0.0, 0.0, 0.5]]],
    dtype=torch.float64,
)[:, :, None]


@pytest.mark.parametrize(("weight", "total"), [(0.02, 3.93318439), (0.5, 4.65189535), (1.0, 5.40055259)])
def test_loss_of_the_example(weight: float, total: float) -> None:
    method = model(**TMC.variants["reference"])
    method.view_evidence = lambda features: EVIDENCE  # type: ignore[method-assign]
    inputs = {name: torch.ones(2, *shape).double() for name, shape in SHAPES.items()}
    of = make_batch(inputs, torch.tensor([0, 2]))
    terms = method.loss(of._replace(progress=torch.full((2,), 0.1 * weight, dtype=torch.float64)))
    assert set(terms) == {"view/text", "view/audio", "view/vision", "fused"}
    assert float(sum(terms.values())) == pytest.approx(total, abs=1e-6)
    alpha = torch.tensor([[4.66666667, 3.28888889, 1.51333333], [4.4, 1.3, 8.88888889]], dtype=torch.float64)
    torch.testing.assert_close(method.predict(of), alpha.log(), atol=1e-7, rtol=0)


# ---- against sums written out ---------------------------------------------------------------------------------------


def opinion_loss(evidence: Floats, y: int, weight: float) -> float:
    """Of one opinion (C,) on one sample."""
    alpha, classes = evidence + 1, len(evidence)
    lost = digamma(alpha.sum()) - digamma(alpha[y])
    wrong = np.where(np.arange(classes) == y, 1.0, alpha)
    divergence = gammaln(wrong.sum()) - gammaln(wrong).sum() - gammaln(classes)
    return float(lost + weight * (divergence + ((wrong - 1) * (digamma(wrong) - digamma(wrong.sum()))).sum()))


def dempster(first: Floats, second: Floats) -> Floats:
    """Two opinions (C,) fused belief by belief."""
    classes = len(first)
    b1, b2 = first / (first.sum() + classes), second / (second.sum() + classes)
    u1, u2 = 1 - b1.sum(), 1 - b2.sum()
    kept = 1 - (np.outer(b1, b2).sum() - (b1 * b2).sum())
    return (b1 * b2 + b1 * u2 + b2 * u1) / kept * classes / (u1 * u2 / kept)  # type: ignore[no-any-return]


def evidence_of(method: TMC, xs: list[Tensor]) -> list[Floats]:
    """Each view's evidence on one sample, M arrays (K, C)."""
    said = []
    for f, head, x in zip(method.f, method.head, xs, strict=True):
        logits = head(f(x[None]))[0].detach().numpy().reshape(method.opinions, method.classes)
        said.append(np.log1p(np.exp(logits)) if method.config.activation == "softplus" else np.maximum(logits, 0))
    return said


def written_out(method: TMC, of: Batch, weight: float) -> dict[str, float]:
    """The losses sample by sample, pattern by pattern, opinion by opinion, with fusion by recursion."""
    config, many = method.config, isinstance(method.task, MultiLabel)
    sums = dict.fromkeys(["view/text", "view/audio", "view/vision", "fused"], 0.0)
    for j in np.flatnonzero(of.labelled.numpy()):
        has = {m for m in range(3) if of.available[j, m]}
        patterns = [{m for m in range(3) if n[m]} for n in product([True, False], repeat=3)][:-1]
        patterns = [has] if config.patterns == "none" else [p for p in patterns if p <= has]
        truth = of.target[j].int().tolist() if many else [int(of.target[j])]
        for p in patterns:
            xs = [x[j] * (m in p) for m, x in enumerate(of.inputs.values())]
            said = evidence_of(method, xs)
            counted = [m for m in range(3) if m in p or not config.mask_aware]
            for k, y in enumerate(truth):
                share = 1 / (len(patterns) * len(truth) * int(of.labelled.sum()))
                for m in counted:
                    sums[f"view/{method.modalities[m]}"] += share * opinion_loss(said[m][k], y, weight)
                fused = reduce(dempster, [said[m][k] for m in counted])
                sums["fused"] += share * opinion_loss(fused, y, weight)
    return sums


AVAILABLE = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1]]).bool()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("task", [MultiClass(3), MultiLabel(3)])
@pytest.mark.parametrize(
    "values",
    [{}, {"mask_aware": False}, {"patterns": "none"}, {"patterns": "none", "mask_aware": False, "activation": "relu"}],
)
def test_losses_equal_sums_written_out(values: dict[str, Any], task: Task, whole: bool) -> None:
    labelled = torch.tensor([1, 1, 0, 1, 1, 1]).bool()
    of = batch(task, None if whole else AVAILABLE, labelled)
    method = model(task, **values)
    with torch.no_grad():
        terms = {name: float(value) for name, value in method.loss(of).items()}
    assert terms == pytest.approx(written_out(method, of, 0.3), abs=1e-6)


@pytest.mark.parametrize("mask_aware", [True, False])
def test_prediction_fuses_what_counts(mask_aware: bool) -> None:
    method, of = model(mask_aware=mask_aware), batch(available=AVAILABLE)
    output = method.predict(of)
    for j in range(6):
        said = evidence_of(method, [x[j] for x in of.inputs.values()])  # hidden inputs are zeros already
        counted = [m for m in range(3) if AVAILABLE[j, m] or not mask_aware]
        expected = np.log1p(reduce(dempster, [said[m][0] for m in counted]))
        np.testing.assert_allclose(output[j].detach().numpy(), expected, atol=1e-9)


def test_a_missing_view_is_exactly_a_view_without_evidence() -> None:
    method, of = model(), batch()
    without = of._replace(available=torch.tensor([[True, False, True]]).expand(6, 3))
    expected = method.predict(without)
    with torch.no_grad():
        method.head[1].weight.zero_()
        method.head[1].bias.fill_(-1e9)
    assert torch.equal(method.predict(of), expected)


# ---- a training run of the reference code ---------------------------------------------------------------------------


def released(arrays: dict[str, NDArray[Any]], part: str) -> Batch:
    """A part of the file as one batch, scaled to [0, 1] by its own range as the TMC code does."""
    inputs = {}
    for i, name in enumerate(VIEWS, start=1):
        x = arrays[f"x{i}_{part}"].astype(np.float64)
        inputs[name] = torch.from_numpy((x - x.min(0)) / np.where(np.ptp(x, 0) > 0, np.ptp(x, 0), 1))
    return make_batch(inputs, torch.from_numpy(arrays[f"gt_{part}"].ravel().astype(np.int64) - 1))


def at_epoch(of: Batch, epoch: int) -> Batch:
    """`of` in an epoch of 500, which the TMC code counts from 1."""
    return of._replace(progress=torch.full((len(of.target),), epoch / 500, dtype=torch.float64))


TRAJECTORY = {  # step: training loss before it, test loss and accuracy after it
    1: (18.150685, 17.987310, 0.4025),
    2: (18.187526, 18.028423, 0.6775),
    3: (18.243165, 18.089216, 0.8350),
    5: (18.406141, 18.255512, 0.9100),
    10: (18.840819, 18.644066, 0.8875),
    25: (18.891672, 18.657541, 0.9425),
    50: (18.206249, 17.966517, 0.9650),
    100: (16.281034, 16.099433, 0.9750),
    200: (14.841380, 14.754456, 0.9800),
    500: (12.904897, 13.001090, 0.9825),
}
"""Full-batch training of the TMC code (commit 08d0ca4) in double precision from weights 0.05 sin(k + 1 + 100 v)."""


@pytest.mark.skipif(not REAL.is_file(), reason=f"{FILE_NAME} is not at hand")
@pytest.mark.parametrize("steps", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_training_follows_the_reference_code(steps: int) -> None:
    arrays = read_mat(REAL, REAL.read_bytes())
    train, test = released(arrays, "train"), released(arrays, "test")
    shapes = {name: (width,) for name, width in VIEWS.items()}
    method = TMC(shapes, MultiClass(10), TMCConfig.model_validate(TMC.variants["reference"])).double()
    with torch.no_grad():
        for v, head in enumerate(method.head):
            k = torch.arange(head.weight.numel(), dtype=torch.float64)
            head.weight.copy_(0.05 * torch.sin(k + 1 + 100 * v).reshape(head.weight.shape))
            head.bias.zero_()
    optimiser = torch.optim.Adam(method.parameters(), lr=3e-3, weight_decay=1e-5)
    compared = 0
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        lost = torch.stack(list(method.loss(at_epoch(train, step)).values())).sum()
        lost.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step in TRAJECTORY:
            with torch.no_grad():
                test_loss = sum(method.loss(at_epoch(test, step)).values())
                right = (method.predict(test).argmax(1) == test.target).double().mean()
            ours = (float(lost.detach()), float(test_loss), float(right))
            assert ours == pytest.approx(TRAJECTORY[step], abs=1e-5), f"step {step}"
            compared += 1
    assert compared == sum(step <= steps for step in TRAJECTORY)


# ---- the method -----------------------------------------------------------------------------------------------------


def test_regression_is_refused_and_the_rest_taken() -> None:
    for task in TASKS:
        spec = DataSpec("any", SHAPES, task, {"train": 8, "valid": 8, "test": 8}, "")
        reason = TMC.refuses(spec, TMCConfig())
        assert (reason is None) == (task.kind != "regression")


def test_reference_has_one_linear_layer_a_view() -> None:
    method = TMC(SHAPES | {"sound": (6, 2)}, MultiClass(3), TMCConfig.model_validate(TMC.variants["reference"]))
    named = {name: tuple(p.shape) for name, p in method.named_parameters()}
    expected = {f"head.{v}.weight": (3, width) for v, width in enumerate([5, 3, 4, 12])}
    assert named == expected | {f"head.{v}.bias": (3,) for v in range(4)}


def test_the_divergence_weighs_nothing_at_first_and_fully_after_a_tenth() -> None:
    method, of = model(), batch()

    @torch.no_grad()
    def lost(progress: float) -> float:
        return float(sum(method.loss(of._replace(progress=torch.full((6,), progress))).values()))

    start, middle, end = lost(0.0), lost(0.05), lost(0.1)
    assert start < middle < end
    assert middle == pytest.approx((start + end) / 2, rel=1e-6)
    assert lost(0.7) == pytest.approx(end, rel=1e-6)


def test_diagnosis_tells_uncertainty_and_confidence() -> None:
    method, of = model(), batch()
    told = {name: float(value) for name, value in method.diagnose(of).items()}
    fused = method.fused(of).detach()
    assert told["uncertainty"] == pytest.approx(float(uncertainty(fused).mean()))
    assert told["confidence"] == pytest.approx(float(confidence(fused).mean()))
    assert told["uncertainty"] < min(told[f"uncertainty/{name}"] for name in SHAPES)
    assert told["divergence_weight"] == pytest.approx(0.3, abs=1e-6)
    with torch.no_grad():
        method.head[1].weight.zero_()
        method.head[1].bias.fill_(-1e9)
    assert float(method.diagnose(of)["uncertainty/audio"]) == 1


def test_embeddings_are_features_or_evidence() -> None:
    method, of = model(), batch(available=AVAILABLE)
    embedded = method.embed(of)
    torch.testing.assert_close(embedded["s"][4], embedded["z/vision"][4])
    torch.testing.assert_close(embedded["s"][0], (embedded["z/text"][0] + embedded["z/audio"][0]) / 2)
    linear = model(view_network="linear").embed(of)
    assert {name: tuple(value.shape) for name, value in linear.items()} == dict.fromkeys(embedded, (6, 3))
    torch.testing.assert_close(linear["s"][4], linear["z/vision"][4])


def test_a_view_of_noise_ends_less_certain_than_a_telling_one() -> None:
    random = torch.Generator().manual_seed(0)
    target = torch.arange(200) % 2
    good = torch.randn(200, 4, generator=random) + 3 * (2.0 * target[:, None] - 1)
    inputs = {"good": good, "bad": torch.randn(200, 4, generator=random)}
    method = TMC({"good": (4,), "bad": (4,)}, MultiClass(2), TMCConfig(latent=8))
    optimiser = torch.optim.Adam(method.parameters(), lr=1e-2)
    for step in range(150):
        optimiser.zero_grad()
        sum(method.loss(make_batch(inputs, target, progress=step / 150)).values()).backward()
        optimiser.step()
    told = method.diagnose(make_batch(inputs, target))
    assert told["uncertainty/good"] < 0.5 * told["uncertainty/bad"]
    assert (method.predict(make_batch(inputs, target)).argmax(1) == target).float().mean() > 0.98
