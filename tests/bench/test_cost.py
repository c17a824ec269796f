"""Costs: closed forms, what fused kernels would hide, and that measuring leaves no trace."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from analysis.complexity import COLUMNS, complexity_table
from bench.cost import count_cost, count_flops, idle_modules, influential, latency_ms, only, peak_bytes
from datasets.batch import Batch, make_batch
from datasets.errors import UserError
from datasets.tasks import MultiClass, Regression
from methods.base import Method, Stage
from methods.registry import METHODS
from methods.robult import Robult, RobultConfig

CPU = torch.device("cpu")
SHAPES: dict[str, tuple[int, ...]] = {"text": (5,), "audio": (3,)}


def batch(size: int = 8) -> Batch:
    draw = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(size, *shape, generator=draw) for name, shape in SHAPES.items()}
    return make_batch(inputs, torch.arange(size) % 3)


def subsets() -> dict[str, Tensor]:
    return {
        "text": torch.tensor([True, False]),
        "audio": torch.tensor([False, True]),
        "text+audio": torch.ones(2).bool(),
    }


# ---- FLOPs: closed forms ----------------------------------------------------------------------------------


def test_a_linear_layer_counts_two_flops_a_multiply_add() -> None:
    layer, x = nn.Linear(128, 64), torch.randn(4, 128)
    assert sum(p.numel() for p in layer.parameters()) == 8256
    assert count_flops(lambda: layer(x))[0] == 65536 == 2 * 32768


def test_activations_and_norms_count_nothing() -> None:
    stack = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.LayerNorm(64), nn.Linear(64, 7))
    flops, by_module = count_flops(lambda: stack(torch.randn(4, 128)), stack)
    assert flops == 69120
    assert by_module["3"] == 2 * 4 * 64 * 7


@pytest.mark.parametrize("train", [True, False])
def test_recurrent_layers_are_counted(train: bool) -> None:
    x = torch.randn(2, 4, 5)
    gru, lstm = nn.GRU(5, 3, batch_first=True).train(train), nn.LSTM(5, 3, batch_first=True).train(train)
    with torch.set_grad_enabled(train):
        assert count_flops(lambda: gru(x))[0] == 1152 == 2 * 2 * 4 * 3 * (5 * 3 + 3 * 3)
        assert count_flops(lambda: lstm(x))[0] == 1536 == 2 * 2 * 4 * 4 * (5 * 3 + 3 * 3)


def test_a_transformer_costs_the_same_in_training_and_evaluation() -> None:
    # PyTorch's fused layer and its attention for CPUs would count 0.
    layer, x = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True), torch.randn(2, 5, 8)
    by_hand = 2 * 2 * 5 * (8 * 24 + 8 * 8 + 2 * 8 * 16) + 2 * (2 * 2 * 5 * 5 * 8)
    assert count_flops(lambda: layer.train()(x))[0] == by_hand
    with torch.no_grad():
        assert count_flops(lambda: layer.eval()(x))[0] == by_hand
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled


# ---- memory and time --------------------------------------------------------------------------------------


def test_peak_memory_follows_what_is_held() -> None:
    mib = 1 << 18  # float32 values

    def freed() -> None:
        torch.empty(4 * mib)
        _held = torch.empty(2 * mib), torch.empty(mib)

    def viewed() -> None:
        whole = torch.empty(2 * mib)
        part = whole[:5]
        del whole
        _held = torch.empty(mib), part + 1

    assert peak_bytes(freed, CPU) == 4 << 20
    assert peak_bytes(viewed, CPU) == (3 << 20) + 5 * 4


def test_peak_memory_counts_what_the_backward_pass_saves_and_not_the_weights() -> None:
    w = torch.randn(1 << 18, requires_grad=True)

    def step() -> None:
        w.grad = None
        (w * 2).exp().exp().sum().backward()

    assert peak_bytes(lambda: w.view(512, 512), CPU) == 0
    # w * 2 is freed once exp has made its result, each exp keeps its own, the gradients come on top.
    assert 3 << 20 <= peak_bytes(step, CPU) <= (4 << 20) + 64


def test_latency_is_a_median_of_calls() -> None:
    calls: list[int] = []
    assert 0 <= latency_ms(lambda: calls.append(1), CPU, runs=5) < 50
    assert len(calls) == 8


# ---- methods ----------------------------------------------------------------------------------------------


class TwoHeads(Method):
    """A head a modality, and one that no prediction reads."""

    name, title, paper = "two_heads", "Two heads", "none"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.heads = nn.ModuleList(nn.Linear(shape[0], self.task.width) for shape in self.shapes.values())
        self.spare = nn.Linear(self.task.width, 7)
        self.frozen = nn.Linear(2, 2)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("heads", trains=("heads", "spare")),)

    def predict(self, batch: Batch) -> Tensor:
        outputs = torch.stack([head(x) for head, x in zip(self.heads, batch.inputs.values(), strict=True)])
        seen = batch.available.T[:, :, None].float()
        self.spare(outputs[0])
        return (outputs * seen).sum(0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"sup": self.task.loss(self.predict(batch), batch.target, batch.labelled)}

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        return {}


def test_parameters_and_flops_of_a_method_that_can_be_counted_by_hand() -> None:
    method = TwoHeads(SHAPES, MultiClass(n_classes=3), Method.Config())
    cost = count_cost(method, batch(), subsets(), runs=1)
    heads = {"text": 5 * 3 + 3, "audio": 3 * 3 + 3}
    assert cost.total_parameters == sum(heads.values()) + (3 * 7 + 7) + (2 * 2 + 2)
    assert cost.trainable_parameters == cost.total_parameters - 6
    by = {one.subset: one for one in cost.inference}
    assert {name: by[name].used_parameters for name in heads} == heads
    assert by["text+audio"].used_parameters == sum(heads.values())
    assert {one.flops for one in cost.inference} == {2 * (5 * 3 + 3 * 3 + 3 * 7)}
    assert by["text"].needed_flops == 2 * 5 * 3
    assert by["audio"].needed_flops == 2 * 3 * 3
    assert by["text+audio"].needed_flops == 2 * (5 * 3 + 3 * 3)
    # A step: forward, and of each head the gradient of its weights; inputs need none.
    assert cost.step is not None
    assert cost.step.flops == 8 * (2 * (5 * 3 + 3 * 3 + 3 * 7) + 2 * (5 * 3 + 3 * 3))
    assert cost.step.batch_size == 8


def test_reconstructors_are_not_used_at_inference() -> None:
    method = Robult(SHAPES, Regression(), RobultConfig())
    cost = count_cost(method, batch(), subsets(), runs=1)
    restoring = sum(p.numel() for p in method.r.parameters())
    assert cost.trainable_parameters == cost.total_parameters
    for one in cost.inference:
        assert 0 < one.used_parameters <= cost.total_parameters - restoring
    used = influential(method, only(batch(), subsets()["text"]))
    assert not any(name.startswith(("r.", "f.1.", "g.1.")) for name in used)
    assert "r" in idle_modules(method, used)
    assert {one.needed_flops < one.flops for one in cost.inference} == {True}


def test_measuring_leaves_no_trace() -> None:
    method = Robult(SHAPES, Regression(), RobultConfig()).eval()
    method.f.requires_grad_(False)
    weights = {name: value.clone() for name, value in method.state_dict().items()}
    trainable = [p.requires_grad for p in method.parameters()]
    random = torch.get_rng_state()
    first, second = (count_cost(method, batch(), subsets(), runs=1) for _ in range(2))
    assert not method.training
    assert [p.requires_grad for p in method.parameters()] == trainable
    assert all(p.grad is None for p in method.parameters())
    assert all(torch.equal(weights[name], value) for name, value in method.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert [one.flops for one in first.inference] == [one.flops for one in second.inference]
    assert first.step is not None
    assert second.step is not None
    assert (first.step.flops, first.step.peak_bytes) == (second.step.flops, second.step.peak_bytes)


def test_counting_alone_gives_the_same_counts_and_measures_nothing() -> None:
    method = Robult(SHAPES, Regression(), RobultConfig())
    counted, measured = (count_cost(method, batch(), subsets(), runs=runs) for runs in (0, 1))
    assert [one.flops for one in counted.inference] == [one.flops for one in measured.inference]
    assert [one.used_parameters for one in counted.inference] == [one.used_parameters for one in measured.inference]
    assert counted.step is not None
    assert measured.step is not None
    assert counted.step.flops == measured.step.flops
    assert math.isnan(counted.step.latency_ms)
    assert all(math.isnan(one.latency_ms) for one in counted.inference)


@pytest.mark.parametrize("name", ["gmc", "actionmae", "unimodal", "constant"])
def test_rows_feed_the_table(name: str) -> None:
    cls = METHODS.get(name)
    method = cls(SHAPES, MultiClass(n_classes=3), cls.Config())
    cost = count_cost(method, batch(), subsets(), runs=1)
    rows = cost.rows(dataset="toy", method=name)
    assert set(rows[0]) == set(COLUMNS)
    import pandas as pd

    table = complexity_table(pd.DataFrame(rows))
    assert list(table.columns) == [name]
    assert (cost.step is None) == (name == "constant")


def test_only_shows_one_sample_and_hides_the_rest() -> None:
    one = only(batch(), torch.tensor([True, False]))
    assert len(one.target) == 1
    assert one.inputs["audio"].abs().sum() == 0
    assert torch.equal(one.inputs["text"], batch().inputs["text"][:1])
    assert not one.labelled.any()


def test_a_subset_that_does_not_fit_is_told() -> None:
    method = TwoHeads(SHAPES, Regression(), Method.Config())
    with pytest.raises(UserError, match=r"modality subset 'text': needs one flag for each of text, audio"):
        count_cost(method, batch(), {"text": torch.ones(3).bool()})
    with pytest.raises(UserError, match="at least one sample"):
        count_cost(method, batch(0), subsets())
