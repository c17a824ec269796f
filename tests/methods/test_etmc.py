"""ETMC against printed values of its code, and its pseudo-view against a head on a concatenation written out."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.contract import TASKS
from datasets.base import DataSpec
from datasets.batch import Batch, make_batch
from datasets.tasks import MultiClass, MultiLabel, Task
from methods.etmc import ETMC, ETMCConfig
from methods.evidential import evidential_loss, fuse, outputs, true_classes, uncertainty
from methods.patterns import missing_patterns, possible

SHAPES = {"text": (5,), "audio": (3,), "vision": (4,)}
AVAILABLE = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1]]).bool()


def model(task: Task | None = None, shapes: dict[str, tuple[int, ...]] = SHAPES, **values: Any) -> ETMC:
    torch.manual_seed(1)
    method = ETMC(shapes, task or MultiClass(3), ETMCConfig.model_validate({"latent": 6} | values))
    with torch.no_grad():  # opinions that differ, so that no mistake hides in vacuous ones
        for head in (*method.head, method.pseudo):
            head.weight.mul_(6)
    return method.double()


def batch(task: Task | None = None, available: Tensor | None = None, labelled: Tensor | None = None) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(6, *shape, generator=random).double() for name, shape in SHAPES.items()}
    many = isinstance(task, MultiLabel)
    target = (torch.rand(6, 3, generator=random) < 0.5).float() if many else torch.tensor([0, 1, 2, 2, 1, 0])
    made = make_batch(inputs, target, available=available, labelled=labelled)
    return made._replace(progress=torch.full((6,), 0.03, dtype=torch.float64))


@pytest.mark.parametrize(("weight", "total"), [(0.0, 3.90323810), (0.5, 4.65189535)])
def test_loss_of_the_example(weight: float, total: float) -> None:
    """Two views and a pseudo-view, classes 0 and 2; at epochs 0 and 5 of 10 (ETMC code, commit 08d0ca4)."""
    views = torch.tensor([[[2, 0.5, 0.1], [0.2, 0.3, 4]], [[1, 1, 0], [3, 0, 1]]], dtype=torch.float64)[:, :, None]
    pseudo = torch.tensor([[[0, 0.4, 0.4], [0, 0, 0.5]]], dtype=torch.float64)[:, :, None]
    shapes = {"rgb": (4,), "depth": (3,)}
    method = model(shapes=shapes, patterns="none")
    method.view_evidence = lambda features: views  # type: ignore[method-assign]
    method.pseudo_evidence = lambda features, unseen, seen: pseudo  # type: ignore[method-assign]
    of = make_batch({name: torch.ones(2, *shape).double() for name, shape in shapes.items()}, torch.tensor([0, 2]))
    terms = method.loss(of._replace(progress=torch.full((2,), 0.1 * weight, dtype=torch.float64)))
    assert set(terms) == {"view/rgb", "view/depth", "pseudo", "fused"}
    assert float(sum(terms.values())) == pytest.approx(total, abs=1e-7)
    alpha = torch.tensor([[4.66666667, 3.28888889, 1.51333333], [4.4, 1.3, 8.88888889]], dtype=torch.float64)
    torch.testing.assert_close(method.predict(of), alpha.log(), atol=1e-7, rtol=0)


def concatenated(method: ETMC, xs: list[Tensor], seen: Tensor) -> Tensor:
    """Evidence of the head on the features side by side, under one pattern (B, M): zeros in place of what is hidden."""
    if method.config.mask_aware:
        features = [h * seen[:, m, None] for m, h in enumerate(method.encode(xs))]
    else:
        features = method.encode([x * seen[:, m, None] for m, x in enumerate(xs)])
    return method.as_evidence(method.pseudo(torch.cat(features, dim=1)))


def opinions(method: ETMC, of: Batch, pattern: Tensor) -> tuple[Tensor, Tensor]:
    """All M + 1 opinions under one pattern (M,), and which there are, (M + 1, B, K, C) and (B, M + 1)."""
    config, seen = method.config, pattern & of.available
    xs = list(of.inputs.values())
    hidden_too = [x * seen[:, m, None] for m, x in enumerate(xs)]
    pseudo = concatenated(method, xs, seen)
    said = torch.cat([method.view_evidence(method.encode(hidden_too)), pseudo[None]])
    if not config.mask_aware:
        return said, torch.ones(6, 4, dtype=torch.bool)
    there = seen.any(1) if config.pseudo_view == "any" else seen.all(1)
    return said, torch.cat([seen, there[:, None]], dim=1)


@pytest.mark.parametrize("task", [MultiClass(3), MultiLabel(3)])
@pytest.mark.parametrize(
    "values",
    [{}, {"pseudo_view": "complete"}, {"mask_aware": False}, {"view_network": "linear"}, {"max_patterns": 5}],
)
def test_losses_and_predictions_equal_a_loop_over_patterns(values: dict[str, Any], task: Task) -> None:
    labelled = torch.tensor([1, 1, 0, 1, 1, 1]).bool()
    method, of = model(task, **values), batch(task, AVAILABLE, labelled)
    patterns = missing_patterns(3, method.config.max_patterns)
    counts = possible(patterns, of.available)  # (P, B)
    names = ["view/text", "view/audio", "view/vision", "pseudo", "fused"]
    sums = dict.fromkeys(names, 0.0)
    true, weight = true_classes(task, of.target), torch.full((6,), 0.3, dtype=torch.float64)
    with torch.no_grad():
        for p, pattern in enumerate(patterns):
            said, there = opinions(method, of, pattern)
            fused = fuse(said, there[None])
            lost = evidential_loss(torch.cat([said, fused]), true, weight)  # (M + 2, B)
            lost = lost * torch.cat([there, torch.ones(6, 1, dtype=torch.bool)], dim=1).T
            share = counts[p] / counts.sum(0) * labelled / labelled.sum()
            for name, value in zip(names, lost, strict=True):
                sums[name] += float((value * share).sum())
        terms = {name: float(value) for name, value in method.loss(of).items()}
        said, there = opinions(method, of, torch.ones(3, dtype=torch.bool))
        torch.testing.assert_close(method.predict(of), outputs(task, fuse(said, there[None])[0]))
    assert terms == pytest.approx(sums, abs=1e-6)


def test_incomplete_samples_have_no_pseudo_view_where_only_complete_ones_do() -> None:
    method, of = model(pseudo_view="complete"), batch(available=AVAILABLE)
    before = method.predict(of)
    with torch.no_grad():
        method.pseudo.bias.add_(3.0)
    after = method.predict(of)
    changed = (before != after).any(1)
    assert changed.tolist() == AVAILABLE.all(1).tolist()


def test_a_modality_alone_counts_twice_by_default() -> None:
    """Its own opinion and the pseudo-view's, which sees nothing else."""
    method, of = model(), batch(available=torch.tensor([[False, True, False]]).expand(6, 3))
    features = method.encode(list(of.inputs.values()))
    own = method.view_evidence(features)[1]
    part = torch.zeros(6, 6).double()
    pseudo = method.as_evidence(method.pseudo(torch.cat([part, features[1], part], dim=1)))
    expected = fuse(torch.stack([own, pseudo]), torch.ones(1, 6, 2, dtype=torch.bool))[0]
    torch.testing.assert_close(method.fused(of), expected)


def test_diagnosis_names_the_pseudo_view() -> None:
    method, of = model(), batch()
    told = method.diagnose(of)
    expected = uncertainty(concatenated(method, list(of.inputs.values()), of.available)).mean().detach()
    assert float(told["uncertainty/pseudo"]) == pytest.approx(float(expected), rel=1e-9)
    assert told["uncertainty"] < told["uncertainty/pseudo"]


def test_regression_is_refused_and_the_rest_taken() -> None:
    for task in TASKS:
        reason = ETMC.refuses(DataSpec("any", SHAPES, task, {"train": 8, "valid": 8, "test": 8}, ""), ETMCConfig())
        assert (reason is None) == (task.kind != "regression")
