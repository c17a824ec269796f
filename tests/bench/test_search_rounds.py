"""Rounds: stacks that do not depend on slots, a barrier between epochs, failures that cost their own trial alone."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from bench.executors import worker as plain_worker
from bench.search import worker
from bench.search.file import parse_search
from bench.search.rounds import Rounds, deal, make_stacks, make_trial
from bench.search.search import Search
from bench.search.study import Asked, Told
from bench.training.trainer import Trainer
from datasets.catalog import DATASETS
from tests.bench.search_tools import FormulaExecutor, text, value_of

TAUS = (0.1, 0.4, 0.8, 1.6)


def train(search: Search, executor: FormulaExecutor, look: Any = lambda step, values: []) -> dict[int, Told]:
    rounds = Rounds(search, executor)  # type: ignore[arg-type]
    asked = [Asked(10 + i, {"tau": tau}) for i, tau in enumerate(TAUS)]
    return rounds.train(search.methods[0], asked, look)


def worse_than_best(step: int, values: Mapping[int, float]) -> list[int]:
    """After two epochs, everyone but the best stops."""
    return [n for n, value in values.items() if step >= 2 and value < max(values.values())]


@pytest.mark.parametrize("pruner", ["none", "median", "wilcoxon"])
def test_a_round_gives_the_same_on_any_number_of_slots(pruner: str) -> None:
    search = parse_search(text(pruner=pruner, stack="3"))
    found, stacks = [], []
    for n_slots in (1, 2, 5):
        executor = FormulaExecutor(n_slots)
        told = train(search, executor, worse_than_best)
        for one in told.values():
            one.attrs.pop("seconds")
        found.append({number: one.plain() for number, one in told.items()})
        stacks.append(sorted([training.id for training in stack] for stack in executor.stacks))
    assert found[0] == found[1] == found[2]
    assert stacks[0] == stacks[1] == stacks[2]
    assert max(map(len, stacks[0])) <= 3


def test_values_are_the_mean_over_seeds_and_subsets() -> None:
    search = parse_search(text())
    told = train(search, FormulaExecutor(2))
    for one, tau in zip(told.values(), TAUS, strict=True):
        assert one.values == pytest.approx((0.5 - abs(tau - 0.4) / 4 + 0.04 + 0.0005,))


def test_epochs_are_judged_together_and_the_pruned_stop() -> None:
    search = parse_search(text(pruner="median", stack="1"))
    looks: list[tuple[int, list[int]]] = []

    def look(step: int, values: Mapping[int, float]) -> list[int]:
        looks.append((step, sorted(values)))
        return worse_than_best(step, values)

    told = train(search, FormulaExecutor(3), look)
    assert looks == [(1, [10, 11, 12, 13]), (2, [10, 11, 12, 13]), (3, [11]), (4, [11])]
    assert [told[n].state for n in (10, 11, 12, 13)] == ["pruned", "complete", "pruned", "pruned"]
    assert told[10].attrs["stopped_after"] == 2
    assert sorted(told[10].steps) == [1, 2]
    assert sorted(told[11].steps) == [1, 2, 3, 4]


def test_seeds_train_one_after_the_other_for_wilcoxon() -> None:
    search = parse_search(text(pruner="wilcoxon", seeds="3"))
    executor = FormulaExecutor(2)
    told = train(search, executor, lambda step, values: [n for n in values if n != 11])
    seeds = [{training.seed for training in stack} for stack in executor.stacks]
    assert seeds[0] == {0}
    assert sum(len(stack) for stack in executor.stacks) == 4 + 2
    assert [told[n].state for n in (10, 11, 12, 13)] == ["pruned", "complete", "pruned", "pruned"]
    assert list(told[11].steps) == [0, 1, 2]


@pytest.mark.parametrize("pruner", ["none", "median"])
def test_a_trial_that_fails_fails_alone_with_its_reason(pruner: str) -> None:
    told = train(parse_search(text(pruner=pruner)), FormulaExecutor(2, fails=[0.8]))
    assert [told[n].state for n in (10, 11, 12, 13)] == ["complete", "complete", "failed", "complete"]
    assert told[12].attrs["reason"] == "loss term 'sup' became nan in epoch 1"


@pytest.mark.parametrize("pruner", ["none", "median", "wilcoxon"])
def test_what_kills_a_worker_is_found_and_the_others_are_trained(pruner: str) -> None:
    executor = FormulaExecutor(2, kills=[1.6])
    told = train(parse_search(text(pruner=pruner)), executor)
    assert [told[n].state for n in (10, 11, 12, 13)] == ["complete", "complete", "complete", "failed"]
    assert told[13].attrs["reason"] == "its worker process was killed (signal 9)"
    assert executor.renewed >= 2


def test_equal_trials_are_trained_once() -> None:
    search = parse_search(text())
    executor = FormulaExecutor(2)
    asked = [Asked(0, {"tau": 0.4}), Asked(1, {"tau": 0.4})]
    told = Rounds(search, executor).train(search.methods[0], asked, lambda step, values: [])  # type: ignore[arg-type]
    assert sum(map(len, executor.stacks)) == 2
    assert told[0].values == told[1].values


def test_shares_are_of_about_equal_work() -> None:
    search = parse_search(text(stack="2"))
    trials = [make_trial(search, search.methods[0], n, {"tau": tau}) for n, tau in enumerate(TAUS)]
    stacks = make_stacks((training for trial in trials for training in trial.trainings), 2)
    assert [len(stack) for stack in stacks] == [2, 2, 2, 2]
    assert [len(share) for share in deal(stacks, 2)] == [2, 2]
    assert len(deal(stacks[:1], 2)) == 1


# ---- the worker, in this process --------------------------------------------------------------------------------


class Answers:
    """Answers looks in turn, then lets everybody go on."""

    def __init__(self, *gone: list[str]) -> None:
        self.gone = list(gone)

    def recv(self) -> list[str]:
        return self.gone.pop(0) if self.gone else []


def share(search: Search, monkeypatch: pytest.MonkeyPatch, every: int, *gone: list[str]) -> tuple[list[Any], list[Any]]:
    """A share of two trials as a worker trains it: what it told, what it gave."""
    torch.set_num_threads(1)
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(plain_worker, "tell", told.append)
    monkeypatch.setattr(worker, "_answers", Answers(*gone))
    trials = [make_trial(search, search.methods[0], n, {"tau": tau}) for n, tau in enumerate(TAUS[:2])]
    stacks = make_stacks((training for trial in trials for training in trial.trainings), 8)
    return told, worker.train_share(stacks, search.objectives[0], "cpu", "last", every)


def test_a_share_is_judged_on_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    search = parse_search(text())
    _, given = share(search, monkeypatch, 0)
    trial = make_trial(search, search.methods[0], 0, {"tau": TAUS[0]})
    data = DATASETS.get("synthetic")(search.datasets[0].config).load()
    stack = [t for tau in TAUS[:2] for t in make_trial(search, search.methods[0], 0, {"tau": tau}).trainings]
    trainer = Trainer(stack, data)
    for _ in trainer.epochs():
        rows = trainer.validation(["m1", "m2", "m1+m2"])
    for trained, training in zip(given[:2], trial.trainings, strict=True):
        assert trained.training_id == training.id
        assert {name: row["acc"] for name, row in trained.rows.items()} == pytest.approx(
            {name: row["acc"] for name, row in rows[training.id].items()}
        )
        mean = sum(row["acc"] for row in trained.rows.values()) / 3
        assert trained.curve[-1] == pytest.approx(mean)
        assert len(trained.curve) == 4


def test_a_share_lets_go_whom_the_answer_names(monkeypatch: pytest.MonkeyPatch) -> None:
    search = parse_search(text())
    first = make_trial(search, search.methods[0], 0, {"tau": TAUS[0]}).trainings
    told, given = share(search, monkeypatch, 1, [], [training.id for training in first])
    looks = [event["look"] for event in told if event.get("whole")]
    assert looks == [1, 2, 3, 4]
    assert [len(event["values"]) for event in told if "values" in event] == [4, 4, 2, 2]
    by_id = {trained.training_id: trained for trained in given}
    assert all(not by_id[t.id].rows and by_id[t.id].failure is None for t in first)
    assert sum(bool(trained.rows) for trained in given) == 2


def test_formula_trainings_differ() -> None:
    search = parse_search(text())
    one, two = (make_trial(search, search.methods[0], 0, {"tau": tau}).trainings[0] for tau in TAUS[:2])
    assert value_of(one, 1) != value_of(two, 1)
