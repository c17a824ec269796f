"""Trainings let go on the way: they cost nothing more, and those that stay give what they would have given."""

from collections.abc import Collection

import numpy as np
import pytest

from bench.grid.plan import Training
from bench.training.replica import TrainingFailed
from bench.training.replicas import Stack
from bench.training.trainer import Result, Trainer
from tests.bench.test_stacks import data_of, same, trainings


def run(asked: list[Training], drops: dict[int, Collection[int]], split: str = "test") -> list[Result | TrainingFailed]:
    """Train as one; `drops` says which of `asked` go after which epoch."""
    trainer = Trainer(asked, data_of(asked[0]), split=split)  # type: ignore[arg-type]
    for epoch, _ in enumerate(trainer.epochs(), start=1):
        trainer.drop({asked[k].id for k in drops.get(epoch, ())}, f"dropped after epoch {epoch}")
    return trainer.results()


@pytest.mark.parametrize("method", ["gmc", "robult", "mmin"])
def test_those_that_stay_give_what_they_give_alone(method: str) -> None:
    asked = trainings(method, lr=1e-4, epochs=4)
    told = run(asked, {1: [0], 3: [1, 3]})
    assert [str(told[k]) for k in (0, 1, 3)] == [f"dropped after epoch {e}" for e in (1, 3, 3)]
    (alone,) = Trainer([asked[2]], data_of(asked[2])).run()
    assert isinstance(told[2], Result)
    assert isinstance(alone, Result)
    same(told[2], alone)


def test_a_dropped_replica_leaves_the_stack() -> None:
    asked = trainings("gmc", epochs=3)
    trainer = Trainer(asked, data_of(asked[0]))
    epochs = trainer.epochs()
    next(epochs)
    trainer.drop({asked[1].id}, "why")
    assert isinstance(trainer.models, Stack)
    assert len(trainer.models.weights) == len(trainer.labelled) == len(trainer.replicas) == 3
    assert [replica.training for replica in trainer.asked] == asked
    assert len(next(epochs)) == 3


def test_nothing_is_trained_once_all_are_dropped() -> None:
    asked = trainings("gmc", seeds=2, epochs=9)
    trainer = Trainer(asked, data_of(asked[0]))
    seen = 0
    for _ in trainer.epochs():
        seen += 1
        trainer.drop({training.id for training in asked}, "why")
    assert seen == 1
    assert [str(result) for result in trainer.results()] == ["why", "why"]


def test_cells_of_the_validation_split_are_the_last_epochs_validation() -> None:
    (asked,) = trainings("gmc", seeds=1, epochs=3)
    trainer = Trainer([asked], data_of(asked), split="valid")
    for _ in trainer.epochs():
        told = trainer.validation(list(asked.conditions))
    (result,) = trainer.results()
    assert isinstance(result, Result)
    for subset, metrics in told[asked.id].items():
        assert result.cells[subset]["last"] == pytest.approx(metrics)
    full = asked.dataset.spec.full
    assert result.curves[-1]["valid/acc"] == result.cells[full]["last"]["acc"]


def test_subsets_that_select_no_epoch_are_validated_when_asked_for() -> None:
    data = "synthetic: {n_train: 96, n_valid: 40, n_test: 40, n_modalities: 3, uniqueness: [1, 0, 1]}"
    asked = trainings("gmc", data, seeds=2, epochs=1)
    trainer = Trainer(asked, data_of(asked[0]))
    for _ in trainer.epochs():
        told = trainer.validation(["m1+m2", "m3"])
    assert told.keys() == {training.id for training in asked}
    values = [metrics["acc"] for of in told.values() for metrics in of.values()]
    assert np.isfinite(values).all()
