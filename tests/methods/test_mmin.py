"""MMIN: the imagination by hand, what it aims at, and the two stages."""

import copy

import pytest
import torch
from torch import Tensor

from datasets.batch import Batch, make_batch
from datasets.tasks import Regression
from methods.mmin import MMIN, Imagination, MMINConfig
from methods.noise import row_keys
from methods.patterns import missing_patterns
from tests.methods.test_cra import counting_weights

SHAPES = {"text": (5,), "audio": (3,), "vision": (4,)}
INCOMPLETE = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 1]] * 2).bool()


def test_imagination_by_hand() -> None:
    """Three features, layers of 2 and 1 units, two autoencoders; the MMIN code's own class gives the same digits."""
    network = Imagination(3, [2, 1], 2)
    order = [network.transition]
    order += [part for block in network.cascade.blocks for part in (block.encoder, block.decoder)]
    counting_weights([parameter for part in order for parameter in part.parameters()])
    output, codes = network(torch.tensor([[1.0, 0.0, -0.5], [0.2, 0.4, 0.6]]))
    expected = torch.tensor([[0.04460029, 0.11634208, 0.18808387], [0.03999405, 0.11537049, 0.19074694]])
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)
    latent = torch.tensor([[0.0517, 0.10334644], [0.05076, 0.1269361]])
    torch.testing.assert_close(codes, latent, atol=1e-6, rtol=0)
    error = (output - torch.tensor([[0.5, 0.5, 0.5], [0.0, 1.0, 0.0]])).square().mean()
    assert error.item() == pytest.approx(0.21207121, abs=1e-6)


def model(stage: str = "student", **values: object) -> MMIN:
    torch.manual_seed(1)
    config = {"latent": 6, "head_width": 7, "code_width": 2, "depth": 2}
    method = MMIN(SHAPES, Regression(), MMINConfig.model_validate(config | values)).eval()
    method.stage = stage
    return method


def batch(available: Tensor | None = None, size: int = 8) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.randn(size, *shape, generator=random) for name, shape in SHAPES.items()}
    target, noise = torch.randn(size, generator=random), row_keys(0, 0, size)
    return make_batch(inputs, target, available=available, labelled=torch.arange(size) % 3 != 2, noise=noise)


def test_the_target_is_the_complement() -> None:
    method, xs = model(), list(batch().inputs.values())
    real = torch.stack([f(x) for f, x in zip(method.teacher.f.each, xs, strict=True)], dim=1)
    zero = torch.stack([f(torch.zeros_like(x)) for f, x in zip(method.teacher.f.each, xs, strict=True)], dim=1)
    chosen = torch.tensor([[True, True, True], [True, False, False]])[:, None].expand(2, 8, 3)
    target = method.target(xs, chosen)
    torch.testing.assert_close(target[0], zero)
    torch.testing.assert_close(target[1, :, 0], zero[:, 0])
    torch.testing.assert_close(target[1, :, 1:], real[:, 1:])
    assert not target.requires_grad


def written_out(method: MMIN, of: Batch) -> dict[str, float]:
    """The student's losses sample by sample and pattern by pattern."""
    back, sup, aimed, returned = method.imagine if method.config.share_cycle else method.cycle, [], [], []
    for j in range(len(of.target)):
        rows = [x[j] for x in of.inputs.values()]
        h = [f(x) for f, x in zip(method.f.each, rows, strict=True)]
        zero = [f(torch.zeros_like(x)) for f, x in zip(method.f.each, rows, strict=True)]
        taught = [f(x) for f, x in zip(method.teacher.f.each, rows, strict=True)]
        taught_zero = [f(torch.zeros_like(x)) for f, x in zip(method.teacher.f.each, rows, strict=True)]
        has = [m for m in range(3) if of.available[j, m]]
        patterns = [[m for m in range(3) if p[m]] for p in missing_patterns(3, 63)]
        patterns = [p for p in patterns if set(p) <= set(has)]
        losses = []
        for p in patterns:
            x = torch.cat([h[m] if m in p else zero[m] for m in range(3)])
            u, codes = x, []
            for block in method.imagine.cascade.blocks:
                codes.append(block.encoder(u))
                u = u + block.decoder(codes[-1])
            imagined = method.imagine.transition(u)
            output = method.head(torch.cat(codes)[None], of.noise[:1])[0, 0]
            losses.append(float((output - of.target[j]).abs()))
            target = [taught_zero[m] if m in p else taught[m] for m in range(3)]
            errors = [(part - t).square().mean() for part, t in zip(imagined.split(6), target, strict=True)]
            aimed += [(float(errors[m]), 1 / len(patterns)) for m in has]
            returned.append((float((back(imagined)[0] - x).square().mean()), 1 / len(patterns)))
        if of.labelled[j]:
            sup.append(sum(losses) / len(losses))

    def mean(weighted: list[tuple[float, float]]) -> float:
        return sum(w * e for e, w in weighted) / sum(w for _, w in weighted)

    return {"sup": sum(sup) / len(sup), "imagine": 4 * mean(aimed), "cycle": 2 * mean(returned)}


@pytest.mark.parametrize("available", [None, INCOMPLETE])
@pytest.mark.parametrize("values", [{}, {"share_cycle": True}])
def test_losses_equal_sums_written_out(values: dict[str, object], available: Tensor | None) -> None:
    method, of = model(**values), batch(available)
    with torch.no_grad():
        terms = {name: float(value) for name, value in method.loss(of).items()}
        assert terms == pytest.approx(written_out(method, of), abs=1e-5)


def test_the_cycle_does_not_move_what_it_returns_to() -> None:
    """Its gradient at the encoders is that of a loss to a constant; what is left out differs from zero."""
    method, of = model(lambda_cycle=1.0), batch()
    method.patterns = method.patterns[:1]
    method.loss(of)["cycle"].backward()
    ours = {name: p.grad.clone() for name, p in method.f.named_parameters()}
    h, _ = method.f(list(of.inputs.values()))
    x = h.flatten(1)
    constant = torch.tensor(x.tolist())
    for target, equal in ((constant, True), (x, False)):
        method.zero_grad()
        (method.cycle(method.imagine(x)[0])[0] - target).square().mean().backward(retain_graph=True)
        theirs = dict(method.f.named_parameters())
        close = [torch.allclose(g, theirs[name].grad, atol=1e-6) for name, g in ours.items()]
        assert all(close) == equal


def test_the_teacher_is_a_full_modality_model_and_then_frozen() -> None:
    method, of = model("teacher"), batch(INCOMPLETE)
    errors = (method.predict(of)[:, 0] - of.target).abs()
    torch.testing.assert_close(method.loss(of)["teacher"], errors[[0, 4]].mean())  # complete and labelled
    assert method.needs_labels
    method.stage = "student"
    with torch.no_grad():
        method.enter(of)
    teacher = copy.deepcopy(method.teacher.state_dict())
    for name, value in method.f.state_dict().items():
        assert torch.equal(value, teacher[f"f.{name}"])
    stage = method.stages()[1]
    names = [name for name, _ in method.named_parameters() if stage.covers(name)]
    assert not any(name.startswith("teacher") for name in names)
    optimiser = torch.optim.Adam([p for name, p in method.named_parameters() if name in names], lr=1e-2)
    before = method.loss(of)["imagine"].item()
    for _ in range(5):
        method.zero_grad()
        sum(method.loss(of).values()).backward()
        optimiser.step()
    assert all(torch.equal(value, teacher[name]) for name, value in method.teacher.state_dict().items())
    assert not torch.equal(method.f.each[0][0].weight, method.teacher.f.each[0][0].weight)
    assert method.loss(of)["imagine"].item() < before


def test_inference_reads_neither_the_teacher_nor_the_cycle() -> None:
    method, of = model(), batch(INCOMPLETE)
    before = method.predict(of)
    with torch.no_grad():
        for parameter in (*method.teacher.parameters(), *method.cycle.parameters()):
            parameter += 1
    assert torch.equal(method.predict(of), before)
    torch.testing.assert_close(method.head(method.embed(of)["s"], of.noise), before)


@pytest.mark.parametrize(
    ("values", "needs"),
    [({}, False), ({"lambda_cycle": 0.0}, False), ({"lambda_imagine": 0.0, "lambda_cycle": 0.0}, True)],
)
def test_labels_are_needed_where_nothing_is_imagined(values: dict[str, object], needs: bool) -> None:
    assert model(**values).needs_labels == needs


def test_redundant_modalities_are_imagined_from_each_other() -> None:
    random = torch.Generator().manual_seed(0)
    shared = torch.randn(64, 3, generator=random)
    inputs = {"a": shared @ torch.randn(3, 5, generator=random), "b": shared @ torch.randn(3, 4, generator=random)}
    of = make_batch(inputs, shared[:, 0], noise=row_keys(0, 0, 64))
    torch.manual_seed(0)
    method = MMIN({"a": (5,), "b": (4,)}, Regression(), MMINConfig(latent=8, code_width=8, depth=1))
    for stage in method.stages():
        method.stage = stage.name
        with torch.no_grad():
            method.enter(of)
        names = [name for name, _ in method.named_parameters() if stage.covers(name)]
        optimiser = torch.optim.Adam([p for name, p in method.named_parameters() if name in names], lr=1e-2, fused=True)
        if stage.name == "student":
            assert max(float(x) for x in method.diagnose(of).values()) > 0.9  # nothing is known yet
        for _ in range(100):
            optimiser.zero_grad()
            sum(method.loss(of).values()).backward()
            optimiser.step()
    told = {name: float(value) for name, value in method.eval().diagnose(of).items()}
    assert set(told) == {"imagination/a", "imagination/b", "cycle"}
    assert max(told.values()) < 0.7
