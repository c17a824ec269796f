"""MD against printed values of its code, and training steps against sums and an Adam written out sample by sample."""

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.contract import TASKS
from datasets.base import DataSpec
from datasets.batch import Batch, make_batch
from datasets.tasks import Binary, MultiClass, MultiLabel, Task
from methods.md import MD, MDConfig, View, true_class_probability
from methods.noise import dropout, row_keys

SHAPES = {"text": (5,), "audio": (3,)}


def model(task: Task | None = None, shapes: dict[str, tuple[int, ...]] = SHAPES, **values: Any) -> MD:
    torch.manual_seed(1)
    config = MDConfig.model_validate({"latent": 6, "hidden": 4, "view_network": "linear"} | values)
    return MD(shapes, task or MultiClass(3), config).double()


def batch(task: Task | None = None, available: Tensor | None = None, labelled: Tensor | None = None) -> Batch:
    random = torch.Generator().manual_seed(3)
    inputs = {name: torch.rand(6, *shape, generator=random).double() for name, shape in SHAPES.items()}
    many = isinstance(task, MultiLabel)
    target = (torch.rand(6, 3, generator=random) < 0.5).double() if many else torch.tensor([0, 1, 2, 2, 1, 0])
    return make_batch(inputs, target, available=available, labelled=labelled, noise=row_keys(0, 0, 6))


# ---- the worked example: two modalities, three samples, printed by the MD code (commit 06a2bb8) ---------------------


def example() -> tuple[MD, Batch]:
    """Layers in the order gate, hidden, classifier, confidence of each modality and then fusion; layer c has weights
    0.1 (a + 1) - 0.05 b + 0.02 c and biases 0.01 (a + 1)."""
    config = {"hidden": 2, "dropout": 0.0, "patterns": "none"}
    method = model(Binary(), {"first": (2,), "second": (3,)}, **config)
    layers = [layer for view in method.views for layer in (view.gate, view.encode, view.classify, view.trust)]
    with torch.no_grad():
        for c, layer in enumerate([*layers, method.fusion]):
            a, b = (torch.arange(n, dtype=torch.float64) for n in layer.weight.shape)
            layer.weight.copy_(0.1 * (a[:, None] + 1) - 0.05 * b + 0.02 * c)
            layer.bias.copy_(0.01 * (a + 1))
    first = [[0.2, 0.9], [1, 0], [0.5, 0.5]]
    second = [[0.1, 0.4, 0.7], [0.9, 0.3, 0], [0.6, 0.6, 0.6]]
    inputs = {"first": torch.tensor(first).double(), "second": torch.tensor(second).double()}
    inputs = {name: torch.round(x, decimals=1) for name, x in inputs.items()}
    return method, make_batch(inputs, torch.tensor([0, 1, 1]))


def test_losses_of_the_example() -> None:
    method, of = example()
    terms = {name: float(value.detach()) for name, value in method.loss(of).items()}
    assert sum(terms.values()) == pytest.approx(3.57905695, abs=1e-6)
    assert terms["fusion"] == pytest.approx(0.69038019, abs=1e-6)
    printed = {"first": (0.536570, 0.219273, 0.688087), "second": (0.585450, 0.176494, 0.682803)}
    for name, values in printed.items():
        ours = tuple(terms[f"{what}/{name}"] for what in ("gate", "confidence", "sup"))
        assert ours == pytest.approx(values, abs=1e-6)


def test_confidences_of_the_example() -> None:
    method, of = example()
    printed = [
        ([0.033065, 0.036692, 0.033312], [0.492906, 0.507733, 0.507111]),
        ([0.066656, 0.083057, 0.106148], [0.490681, 0.511218, 0.514023]),
    ]
    views = method.look(list(of.inputs.values()), of.noise)
    for view, (confidence, true) in zip(views, printed, strict=True):
        assert view.confidence.tolist() == pytest.approx(confidence, abs=1e-6)
        ours = true_class_probability(method.task, view.output, of.target)
        assert ours.tolist() == pytest.approx(true, abs=1e-6)


# ---- training steps written out -------------------------------------------------------------------------------------


class WrittenOut:
    """MD sample by sample and pattern by pattern, from a list of weights, with an Adam of its own."""

    def __init__(self, method: MD) -> None:
        self.config, self.task, self.size = method.config, method.task, len(method.views)
        self.weights = {name: p.detach().clone().requires_grad_() for name, p in method.named_parameters()}
        self.moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in self.weights.items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        return self.weights[f"{name}.weight"] @ x + self.weights[f"{name}.bias"]

    def view(self, m: int, x: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gate, scaled features, classifier's logits and confidence of one sample."""
        gate = 1 / (1 + torch.exp(-self.linear(f"views.{m}.gate", x)))
        h = self.linear(f"views.{m}.encode", x * gate).relu() * kept  # its slope at 0 matters: zeros end there
        confidence = self.linear(f"views.{m}.trust", h)[0]
        return gate, h * confidence, self.linear(f"views.{m}.classify", h), confidence

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        if isinstance(self.task, MultiLabel):
            return F.binary_cross_entropy_with_logits(logits, y)
        return torch.logsumexp(logits, 0) - logits[int(y)]

    def probability(self, logits: Tensor, y: Tensor) -> Tensor:
        if isinstance(self.task, MultiLabel):
            on = 1 / (1 + torch.exp(-logits))
            return sum(on[i] if y[i] > 0.5 else 1 - on[i] for i in range(len(y))) / len(y)  # type: ignore[no-any-return]
        return torch.exp(logits[int(y)]) / torch.exp(logits).sum()

    def loss(self, of: Batch) -> Tensor:
        config, total = self.config, torch.zeros((), dtype=torch.float64)
        width = config.hidden or 0
        kept = [
            dropout(torch.ones(6, width, dtype=torch.float64), config.dropout, of.noise, m) for m in range(self.size)
        ]
        labelled = int(of.labelled.sum())
        penalised = len(of.target) if config.gate_on_unlabelled else labelled
        for j in range(len(of.target)):
            has = {m for m in range(self.size) if of.available[j, m]}
            patterns = [{m for m in range(self.size) if n[m]} for n in product([1, 0], repeat=self.size)][:-1]
            patterns = [has] if config.patterns == "none" else [p for p in patterns if p <= has]
            for p in patterns:
                counted = [m for m in range(self.size) if m in p or not config.mask_aware]
                scaled = [torch.zeros(width, dtype=torch.float64)] * self.size
                for m in counted:
                    x = list(of.inputs.values())[m][j] * (m in p)
                    gate, scaled[m], logits, confidence = self.view(m, x, kept[m][j])
                    if of.labelled[j] or config.gate_on_unlabelled:
                        total = total + gate.mean() / (penalised * len(patterns))
                    if of.labelled[j]:
                        true = self.probability(logits, of.target[j])
                        true = true.detach() if config.detach_tcp else true
                        own = (confidence - true) ** 2 + self.cross_entropy(logits, of.target[j])
                        total = total + own / (labelled * len(patterns))
                if of.labelled[j]:
                    fused = self.cross_entropy(self.linear("fusion", torch.cat(scaled)), of.target[j])
                    total = total + fused / (labelled * len(patterns))
        return total

    def step(self, of: Batch, number: int, lr: float, decay: float) -> float:
        """One step of Adam with the penalty in its gradient; the loss before it."""
        total = self.loss(of)
        gradients = torch.autograd.grad(total, list(self.weights.values()))
        with torch.no_grad():
            for (name, weight), gradient in zip(self.weights.items(), gradients, strict=True):
                g = gradient + decay * weight
                first, second = self.moments[name]
                first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
                self.moments[name] = first, second
                scale = (second / (1 - 0.999**number)).sqrt() + 1e-8
                weight -= lr * first / (1 - 0.9**number) / scale
        return float(total.detach())


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ({"patterns": "none", "mask_aware": False, "dropout": 0.0}, MultiClass(3)),
        ({"dropout": 0.5}, MultiClass(3)),
        ({"mask_aware": False, "detach_tcp": True, "gate_on_unlabelled": False}, MultiClass(3)),
        ({"patterns": "none", "detach_tcp": True}, MultiLabel(3)),
        ({"mask_aware": False}, MultiLabel(3)),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_training_steps_equal_those_written_out(values: dict[str, Any], task: Task, whole: bool) -> None:
    available = None if whole else torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1], [1, 0], [0, 1]]).bool()
    of = batch(task, available, None if whole else torch.tensor([1, 1, 0, 1, 0, 1]).bool())
    method = model(task, **values).train()
    other = WrittenOut(method)
    optimiser = torch.optim.Adam(method.parameters(), lr=1e-2, weight_decay=1e-4)
    for number in range(1, 7):
        drawn = of._replace(noise=row_keys(0, number, 6))
        optimiser.zero_grad()
        total = torch.stack(list(method.loss(drawn).values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        assert float(total.detach()) == pytest.approx(other.step(drawn, number, 1e-2, 1e-4), rel=1e-6), number
    for name, p in method.named_parameters():
        torch.testing.assert_close(p.detach(), other.weights[name].detach(), atol=1e-5, rtol=0)


# ---- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detached", [True, False])
def test_confidence_teaches_the_classifier_unless_detached(detached: bool) -> None:
    method, of = model(detach_tcp=detached), batch()
    term = method.loss(of)["confidence/text"]
    term.backward()  # type: ignore[no-untyped-call]
    weight = method.views[0].classify.weight.grad
    assert (weight is None or not bool(weight.any())) == detached
    assert bool(method.views[0].trust.weight.grad.any())


def test_labels_are_needed_unless_gates_are_penalised_without() -> None:
    for asked, needs in ((True, False), (False, True)):
        method = model(gate_on_unlabelled=asked)
        assert method.needs_labels == needs
        sum(method.loss(batch(labelled=torch.zeros(6).bool())).values()).backward()
        moved = {name for name, p in method.named_parameters() if p.grad is not None and bool(p.grad.any())}
        assert moved == (set() if needs else {f"views.{m}.gate.{part}" for m in (0, 1) for part in ("weight", "bias")})


# ---- inference ------------------------------------------------------------------------------------------------------


def test_without_confidence_the_fusion_says_only_its_bias() -> None:
    method, of = model().eval(), batch()
    with torch.no_grad():
        method.fusion.bias.copy_(torch.tensor([0.3, -0.2, 1.0]))
        for view in method.views:
            view.trust.weight.zero_()
            view.trust.bias.zero_()
    torch.testing.assert_close(method.predict(of), method.fusion.bias.expand(6, 3))


@pytest.mark.parametrize("mask_aware", [True, False])
def test_fusion_reads_the_scaled_features_side_by_side(mask_aware: bool) -> None:
    available = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1], [1, 0], [0, 1]]).bool()
    method, of = model(mask_aware=mask_aware).eval(), batch(available=available)
    with torch.no_grad():  # biases start at 0, where inputs of zeros say nothing anyway
        for view in method.views:
            view.encode.bias.fill_(0.5)
    embedded = method.embed(of)
    torch.testing.assert_close(method.predict(of), method.fusion(embedded["s"]))
    assert bool(embedded["s"][1, 4:].any()) != mask_aware
    views = method.look(list(of.inputs.values()), of.noise)
    torch.testing.assert_close(embedded["z/audio"], views[1].hidden)
    torch.testing.assert_close(embedded["s"][0, 4:], views[1].hidden[0] * views[1].confidence[0])


def test_dropout_is_drawn_in_training_only() -> None:
    method, of = model(dropout=0.5), batch()
    other = of._replace(noise=row_keys(0, 1, 6))
    assert method.train().loss(of)["fusion"] != method.loss(other)["fusion"]
    assert method.eval().loss(of)["fusion"] == method.loss(other)["fusion"]


# ---- networks -------------------------------------------------------------------------------------------------------


def test_reference_has_the_layers_of_the_code() -> None:
    method = MD(SHAPES, MultiClass(3), MDConfig.model_validate(MD.variants["reference"]))
    shapes = {name: tuple(p.shape) for name, p in method.named_parameters() if name.endswith("weight")}
    for m, d in enumerate((5, 3)):
        of_view = {"gate": (d, d), "encode": (1000, d), "classify": (3, 1000), "trust": (1, 1000)}
        assert {name: shapes.pop(f"views.{m}.{name}.weight") for name in of_view} == of_view
    assert shapes == {"fusion.weight": (3, 2000)}
    assert not any(p.any() for name, p in method.named_parameters() if name.endswith("bias"))
    spread = method.views[0].encode.weight.std().item()  # Xavier-normal: sqrt(2 / (in + out))
    assert spread == pytest.approx((2 / 1005) ** 0.5, rel=0.05)


def test_sequences_are_gated_after_their_projector_and_vectors_before() -> None:
    method = model(shapes={"text": (6, 5), "audio": (3,)}, view_network="shared")
    assert method.views[0].gate.weight.shape == (6, 6)
    assert method.views[1].gate.weight.shape == (3, 3)
    assert [type(view.after) is torch.nn.Identity for view in method.views] == [True, False]


def test_true_class_probability_of_label_sets_is_the_mean_over_labels() -> None:
    output = torch.tensor([[0.0, 2.0]])
    ours = true_class_probability(MultiLabel(2), output, torch.tensor([[1.0, 0.0]]))
    assert ours.item() == pytest.approx((0.5 + 1 - torch.sigmoid(torch.tensor(2.0)).item()) / 2)


def test_diagnosis_tells_whether_confidence_is_dynamic() -> None:
    method, of = model().eval(), batch()
    said = [torch.tensor([0.1, 0.9, 0.1, 0.9, 0.1, 0.9]).double(), torch.full((6,), 0.4).double()]
    even = torch.zeros(6, 3).double()  # every class 1/3
    method.look = lambda xs, noise: [View(torch.full((6,), 0.7), torch.ones(6, 4), even, c) for c in said]  # type: ignore[method-assign]
    told = {name: float(value) for name, value in method.diagnose(of).items()}
    assert told["gate/text"] == pytest.approx(0.7)
    assert told["confidence/text"] == pytest.approx(0.5)
    assert told["confidence_spread/text"] == pytest.approx(0.4)
    assert told["confidence_spread/audio"] == pytest.approx(0, abs=1e-7)
    assert told["confidence_error/audio"] == pytest.approx(0.4 - 1 / 3)


def test_regression_is_refused_and_the_rest_taken() -> None:
    for task in TASKS:
        reason = MD.refuses(DataSpec("any", SHAPES, task, {"train": 8, "valid": 8, "test": 8}, ""), MDConfig())
        assert (reason is None) == (task.kind != "regression")
