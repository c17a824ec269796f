"""Stacks: trained as one, every training gives what it gives alone, whoever its neighbours are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.grid.file import parse_grid
from bench.grid.plan import Training, make_plan
from bench.scheduling.stacks import stack_key
from bench.training.replica import TrainingFailed
from bench.training.replicas import Stack
from bench.training.trainer import Result, Trainer
from datasets.base import Data
from datasets.batch import Batch
from datasets.catalog import DATASETS
from methods.registry import METHODS
from tests.bench import odd_methods
from tests.bench.run_tools import bench, cell_metrics, statuses, write_grid

SMALL = "{n_train: 96, n_valid: 40, n_test: 40, n_modalities: 2, uniqueness: 1, redundancy: 1, synergy: 0}"
STACKABLE = [name for name in METHODS.builtin if METHODS.get(name).stackable and METHODS.get(name).iterative]
TOLERANCE = 2e-3
"""Of test metrics after a few steps: float32 sums in another order, through Adam, which divides by small numbers."""


def trainings(methods: str, dataset: str = f"synthetic: {SMALL}", **options: Any) -> list[Training]:
    ratios, seeds = options.pop("ratios", "[1.0]"), options.pop("seeds", 4)
    settings = {"epochs": 2, "batch_size": 32} | options
    text = f"methods: [{methods}]\ndatasets: [{dataset}]\nlabel_ratios: {ratios}\nseeds: {seeds}\ntrain: {settings}\n"
    return make_plan(parse_grid(text.replace("None", "null").replace("'", '"'))).trainings


def data_of(asked: Training) -> Data:
    return DATASETS.get(asked.dataset.name)(asked.dataset.config).load()


def results(asked: Sequence[Training]) -> list[Result]:
    """The results of one stack; a training that failed fails the test."""
    told = Trainer(list(asked), data_of(asked[0])).run()
    for result in told:
        assert isinstance(result, Result), result
    return told  # type: ignore[return-value]


def same(ours: Result, alone: Result, tolerance: float = TOLERANCE) -> None:
    assert len(ours.curves) == len(alone.curves)
    for row, other in zip(ours.curves, alone.curves, strict=True):
        assert set(row) == set(other)
        for name in row.keys() - {"time_ms"}:
            np.testing.assert_allclose(row[name], other[name], rtol=20 * tolerance, atol=10 * tolerance, err_msg=name)
    assert ours.warning == alone.warning
    for name, cell in alone.cells.items():
        for metric, value in cell["last"].items():
            np.testing.assert_allclose(ours.cells[name]["last"][metric], value, atol=0.05, err_msg=f"{name} {metric}")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("method", STACKABLE)
def test_a_stack_gives_what_each_training_gives_alone(method: str) -> None:
    regression = METHODS.get(method).refuses(
        trainings("constant", "synthetic: {task: regression}")[0].dataset.spec, METHODS.get(method).Config()
    )
    task = ", task: regression}" if regression is None else "}"
    asked = trainings(method, f"synthetic: {SMALL[:-1]}{task}", ratios="[0.5, 1.0]", seeds=2, epochs=4, lr=1e-4)
    assert len({stack_key(training) for training in asked}) == 1
    assert isinstance(Trainer(asked, data_of(asked[0])).models, Stack)
    for ours, training in zip(results(asked), asked, strict=True):
        same(ours, results([training])[0])


@pytest.mark.parametrize(
    "method", ["robult: {variant: no_sup}", "robult: {variant: plus_gmc}", "augmentation: {patterns: sample}"]
)
def test_parts_fitted_at_the_end_and_drawn_patterns_stack_as_well(method: str) -> None:
    asked = trainings(method, seeds=3, lr=1e-4)
    for ours, training in zip(results(asked), asked, strict=True):
        same(ours, results([training])[0])


@pytest.mark.parametrize("method", ["robult", "gmc", "mmin"])
def test_neighbours_change_nothing(method: str) -> None:
    asked = trainings(method, lr=1e-4, epochs=4)
    first = results(asked[:3])[0]
    same(first, results([asked[0], asked[3]])[0])
    same(first, results([asked[2], asked[0]])[1])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["robult", "gmc", "raml", "actionmae"])
def test_sequences_stack_as_well(method: str) -> None:
    data = f"synthetic: {SMALL[:-1]}, inputs: sequence, task: regression}}"
    asked = trainings(method, data, seeds=3, lr=1e-4)
    for ours, training in zip(results(asked), asked, strict=True):
        same(ours, results([training])[0])


def test_each_replica_has_its_own_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps it when others are dropped."""
    monkeypatch.setattr("bench.training.trainer.PATIENCE", 0)
    asked = trainings("unimodal", ratios="[0.1]", seeds=4, schedule="plateau", epochs=12, lr=1e-2)
    together, alone = results(asked), [results([training])[0] for training in asked]
    for ours, one in zip(together, alone, strict=True):
        same(ours, one)
    rates = [[row["lr"] for row in result.curves] for result in together]
    assert len({tuple(own) for own in rates}) > 1

    dropping = Trainer(asked, data_of(asked[0]))
    for epoch, _ in enumerate(dropping.epochs(), start=1):
        if epoch == 5:
            dropping.drop([asked[0].id, asked[2].id], "not needed")
    kept = dropping.results()
    for k in (1, 3):
        assert isinstance(kept[k], Result)
        same(kept[k], alone[k])


def test_replicas_may_differ_in_the_values_of_buffers() -> None:
    asked = trainings("robult: {tau: [0.2, 1.0], lambda_rec: [0.5, 2.0]}", seeds=1, lr=1e-4, epochs=4)
    assert len({stack_key(training) for training in asked}) == 1
    together = results(asked)
    for ours, training in zip(together, asked, strict=True):
        same(ours, results([training])[0])
    assert together[0].curves[-1]["train/loss"] != together[1].curves[-1]["train/loss"]


def test_what_has_another_structure_does_not_stack() -> None:
    one = trainings("gmc", seeds=1)[0]
    others = [
        trainings("gmc: {latent: 64}", seeds=1)[0],
        trainings("gmc", seeds=1, lr=0.01)[0],
        trainings("robult", seeds=1)[0],
        trainings("gmc", "digits", seeds=1)[0],
        replace(one, conditions=one.conditions[:1]),
    ]
    assert len({stack_key(training) for training in [one, *others]}) == 6
    lambdas = trainings("robult: {lambda_rec: [0.0, 1.0]}", seeds=1)
    assert stack_key(lambdas[0]) != stack_key(lambdas[1])  # a term that is not there is another structure


def test_some_train_alone() -> None:
    assert stack_key(trainings("constant", seeds=1)[0]) is None


class Fragile(odd_methods.Linear):
    """Its loss is NaN from the second epoch on, in the replica whose first weight is positive."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        broken = (batch.progress[0] >= 0.5) & (self.start > 0)
        return {"sup": super().loss(batch)["sup"] * torch.where(broken, torch.nan, 1.0)}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("start", self.layer.weight.detach().flatten()[0].clone())


def test_a_replica_that_diverges_fails_alone() -> None:
    asked = trainings("tests.bench.test_stacks:Fragile", seeds=8)
    told = Trainer(asked, data_of(asked[0])).run()
    failed = [isinstance(result, TrainingFailed) for result in told]
    assert 0 < sum(failed) < 8
    for result, training in zip(told, asked, strict=True):
        (alone,) = Trainer([training], data_of(training)).run()
        if isinstance(result, TrainingFailed):
            assert str(result) == str(alone) == "loss term 'sup' became nan in epoch 2"
        else:
            assert isinstance(alone, Result)
            same(result, alone)


def test_a_replica_without_labels_in_a_batch_stays_where_it_is() -> None:
    asked = trainings("unimodal", ratios="[0.02, 1.0]", seeds=2, batch_size=8, lr=1e-4)
    for ours, training in zip(results(asked), asked, strict=True):
        same(ours, results([training])[0])


def test_clipping_is_of_each_replica() -> None:
    asked = trainings("gmc", seeds=3, clip_norm=0.1, lr=1e-4)
    for ours, training in zip(results(asked), asked, strict=True):
        same(ours, results([training])[0])


def test_the_best_epoch_is_each_ones_own() -> None:
    asked = trainings("gmc", "digits", seeds=4, epochs=6, lr=0.02, ratios="[0.1]")
    together = results(asked)
    assert len({result.best_epoch for result in together}) > 1
    for result in together:
        scores = [row["valid/score"] for row in result.curves]
        assert result.best_epoch == int(np.argmax(scores)) + 1
        if result.best_epoch != len(scores):
            assert any(cell["last"] != cell["best"] for cell in result.cells.values())


def test_saved_arrays_are_each_ones_own() -> None:
    from bench.arrays import Save

    asked = [
        replace(t, save=Save(("embeddings", "predictions", "pseudo_labels")))
        for t in trainings("robult", seeds=2, lr=1e-4)
    ]
    for ours, training in zip(results(asked), asked, strict=True):
        alone = results([training])[0]
        assert set(ours.arrays) == set(alone.arrays)
        for name, array in alone.arrays.items():
            if array.dtype.kind == "f":
                np.testing.assert_allclose(ours.arrays[name], array, atol=1e-3, err_msg=name)
            else:
                assert (ours.arrays[name] == array).mean() > 0.98, name


# ---- through the command line ---------------------------------------------------------------------------------------

GRID = """
name: stacks
methods: [gmc, constant, "tests.bench.odd_methods:Dying": {label: dying}]
datasets: [digits]
label_ratios: [0.1]
seeds: 4
train: {epochs: 2, lr: 0.0001}
executor: {devices: cpu, slots: 1, stack: STACK}
"""


@pytest.mark.slow
def test_a_grid_in_stacks_gives_the_results_of_one_without_and_what_kills_a_worker_fails_alone(tmp_path: Path) -> None:
    found, told = {}, {}
    for stack in ("1", "4"):
        write_grid(tmp_path / stack, GRID.replace("STACK", stack))
        told[stack] = bench("run", "grid.yaml", cwd=tmp_path / stack)
        assert told[stack].returncode == 1
        assert "its worker process was killed" in told[stack].stderr
        assert statuses(tmp_path / stack, "training") == ["FAILED"] * 4 + ["FINISHED"] * 8
        found[stack] = cell_metrics(tmp_path / stack)
    assert "4 of dying on digits: its worker process was killed" in told["4"].stderr
    assert "tried again in smaller stacks" not in told["1"].stderr
    assert found["1"].keys() == found["4"].keys()
    for key, value in found["1"].items():
        assert found["4"][key] == pytest.approx(value, abs=0.02), key
