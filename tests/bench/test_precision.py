"""`train: {precision: ...}`: products in fewer bits where it is asked for, and nowhere else."""

import numpy as np
import pytest
import torch

from bench.grid.file import parse_grid
from bench.grid.plan import Training, make_plan
from bench.scheduling.stacks import stack_key
from bench.training.trainer import Result, Trainer
from datasets.catalog import DATASETS
from methods.registry import METHODS

QUICK = ["robult", "gmc", "raml", "tmc", "dicmor"]
SLOW = [name for name in METHODS.builtin if METHODS.get(name).stackable and name not in (*QUICK, "constant")]


def trainings(method: str, precision: str, *, inputs: str = "vector", seeds: int = 2) -> list[Training]:
    data = f"{{n_modalities: 2, uniqueness: [1, 1], inputs: {inputs}, n_train: 96, n_valid: 32, n_test: 32}}"
    train = f"{{epochs: 4, batch_size: 32, precision: {precision}}}"
    text = f"name: x\nmethods: [{method}]\ndatasets: [synthetic: {data}]\nseeds: {seeds}\ntrain: {train}\n"
    return list(make_plan(parse_grid(text, "g.yaml")).trainings)


def results(asked: list[Training]) -> list[Result]:
    data = DATASETS.get(asked[0].dataset.name)(asked[0].dataset.config).load()
    made = Trainer(asked, data)
    found = made.run()
    assert all(p.dtype is torch.float32 for method in made.methods for p in method.parameters())
    return [result for result in found if isinstance(result, Result)]


def agrees(method: str, inputs: str) -> None:
    """Losses in bfloat16 are near those in float32, but others; a stack's are near those alone."""
    full, mixed = (results(trainings(method, precision, inputs=inputs)) for precision in ("float32", "bf16"))
    alone = results(trainings(method, "bf16", inputs=inputs, seeds=1))
    losses = [np.array([row["train/loss"] for row in result.curves]) for result in (full[0], mixed[0], alone[0])]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.1)
    np.testing.assert_allclose(losses[2], losses[1], rtol=0.1)
    assert (losses[0] != losses[1]).any()
    assert len(mixed) == 2


@pytest.mark.parametrize("method", QUICK)
def test_mixed_precision_trains(method: str) -> None:
    agrees(method, "vector")


def test_mixed_precision_trains_on_sequences() -> None:
    agrees("gmc", "sequence")


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["vector", "sequence"])
@pytest.mark.parametrize("method", SLOW)
def test_mixed_precision_trains_every_method(method: str, inputs: str) -> None:
    agrees(method, inputs)


def test_precision_is_part_of_a_trainings_identity() -> None:
    one, other = trainings("gmc", "float32")[0], trainings("gmc", "bf16")[0]
    assert one.id != other.id
    assert stack_key(one) != stack_key(other)


def test_tf32_is_used_where_it_is_asked_for_alone() -> None:
    results(trainings("unimodal", "tf32", seeds=1))
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.cudnn.allow_tf32
    results(trainings("unimodal", "float32", seeds=1))
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32
