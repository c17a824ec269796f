"""Studies: a seed reproduces a search, a process that dies at any moment changes nothing, trials are told in order."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.search.search import Pruner, Sampler
from bench.search.space import Parameter, Space
from bench.search.study import Study, StudyError, Told, open_storage, study_names

SPACE = Space(
    (
        Parameter("tau", "float", 0.05, 2.0, log=True),
        Parameter("kappa", "float", 0.05, 20.0, log=True),
        Parameter("rbf", "choice", choices=("phi", "cos")),
        Parameter("width", "float", 0.0, 1.0, when={"rbf": ("cos",)}),
    )
)
K = 4


def value(params: Mapping[str, Any]) -> float:
    return -(math.log(params["tau"] / 0.5) ** 2) - math.log(params["kappa"] / 2) ** 2 + params.get("width", 0.1)


class Killed(BaseException):
    pass


class Play:
    """One process after another on the same study."""

    def __init__(self, folder: Path, sampler: str, pruner: str = "none", seed: int = 0) -> None:
        self.file = str(folder / "study.journal")
        self.settings = Sampler(kind=sampler, seed=seed, startup=4), Pruner(kind=pruner, startup=2, warmup=1)  # type: ignore[arg-type]
        Study.create(open_storage(self.file), "x", [True], {"search": "x"})
        self.study = self.begin()

    def begin(self, lane: int = 0) -> Study:
        sampler, pruner = self.settings
        return Study(
            open_storage(self.file), "x", higher=[True], sampler=sampler, pruner=pruner, epochs=9, lane=lane
        )  # fmt: skip

    def train(self, round_: int, breaks: Callable[[str], None] = lambda moment: None) -> None:
        """A round from asking to telling; `breaks` may raise `Killed` at a moment."""
        asked = self.study.ask(round_, K, SPACE)
        breaks("asked")
        told = {one.number: Told("complete", (value(one.params),)) for one in asked}
        if self.settings[1].by_epoch:
            for epoch in range(1, 10):
                going = {a.number: value(a.params) * (1 + 1 / epoch) for a in asked if told[a.number].state != "pruned"}
                for number, at in going.items():
                    told[number].steps[epoch] = at
                for number in self.study.prune(epoch, going):
                    told[number] = Told("pruned", None, steps=told[number].steps)
                breaks(f"epoch {epoch}")
        self.study.note(told)
        kept = {n: Told.from_plain(json.loads(json.dumps(one.plain()))) for n, one in told.items()}
        first = dict(sorted(kept.items())[:2])
        self.study.tell(first)
        try:
            breaks("half told")
        except Killed:
            self.study = self.begin()
            assert self.study.unfinished() == (round_, K)
            assert [one.number for one in self.study.ask(round_, K, SPACE)] == sorted(kept)[2:]
        self.study.tell(kept)

    def end(self) -> list[tuple[Any, ...]]:
        return [(row.number, row.state, row.params, row.values, row.steps) for row in self.study.rows()]


def killed_at(wanted: str) -> Callable[[str], None]:
    def breaks(moment: str) -> None:
        if moment == wanted:
            raise Killed

    return breaks


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [("tpe", "none"), ("tpe", "median"), ("tpe", "hyperband"), ("random", "none"), ("qmc", "none"), ("cmaes", "none")],
)
def test_a_search_cut_short_anywhere_ends_as_one_that_was_not(tmp_path: Path, sampler: str, pruner: str) -> None:
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole, broken = Play(tmp_path / "whole", sampler, pruner), Play(tmp_path / "broken", sampler, pruner)
    moments = ["asked", "half told", "epoch 3", "asked"]
    for round_, moment in enumerate(moments):
        whole.train(round_)
        try:
            broken.train(round_, killed_at(moment))
        except Killed:
            broken.study = broken.begin()
            assert broken.study.unfinished() == (round_, K)
            broken.train(round_)
        assert broken.study.next_round() == round_ + 1
    assert whole.end() == broken.end()
    assert len({str(row[2]) for row in whole.end()}) > 12  # not K times the same


@pytest.mark.parametrize("n_asked", [1, 3])
def test_a_process_killed_while_it_asks_suggests_the_same_again(tmp_path: Path, n_asked: int) -> None:
    (tmp_path / "whole").mkdir()
    whole, broken = Play(tmp_path / "whole", "tpe"), Play(tmp_path, "tpe")
    for play in (whole, broken):
        play.train(0)
        play.train(1)
    create, left = broken.study.storage.create_new_trial, [n_asked]

    def create_some(*args: Any, **more: Any) -> int:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return create(*args, **more)

    broken.study.storage.create_new_trial = create_some  # type: ignore[method-assign]
    with pytest.raises(Killed):
        broken.study.ask(2, K, SPACE)
    broken.study = broken.begin()
    assert len([row for row in broken.study.rows() if row.state == "running"]) == n_asked
    for play in (whole, broken):
        play.train(2)
    assert whole.end() == broken.end()


def test_another_seed_suggests_something_else(tmp_path: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        play = Play(folder, "tpe", seed=seed)
        play.train(0)
        found.append(play.end())
    assert found[0] == found[1] != found[2]


def test_two_processes_share_a_study_without_suggesting_the_same(tmp_path: Path) -> None:
    play = Play(tmp_path, "tpe")
    one, two = play.begin(0), play.begin(1)
    asked = [study.ask(round_, K, SPACE) for round_ in (0, 1) for study in (one, two)]
    params = [str(trial.params) for trials in asked for trial in trials]
    assert len(set(params)) == 4 * K
    for study, trials in zip((one, two, one, two), asked, strict=True):
        study.tell({trial.number: Told("complete", (value(trial.params),)) for trial in trials})
    assert [row.number for row in one.rows()] == list(range(4 * K))
    assert {row.state for row in one.rows()} == {"complete"}


def test_given_parameters_come_first(tmp_path: Path) -> None:
    play = Play(tmp_path, "random")
    given = {"tau": 0.3, "kappa": 1.0, "rbf": "phi"}
    asked = play.study.ask(0, K, SPACE, [given])
    assert [dict(trial.params) == given for trial in asked] == [True, False, False, False]


def test_a_failed_trial_has_its_reason_and_no_value(tmp_path: Path) -> None:
    play = Play(tmp_path, "tpe")
    asked = play.study.ask(0, K, SPACE)
    told = {trial.number: Told("complete", (value(trial.params),)) for trial in asked}
    told[1] = Told("failed", attrs={"reason": "out of memory"})
    play.study.tell(told)
    row = play.study.rows()[1]
    assert (row.state, row.values, row.attrs["reason"]) == ("failed", None, "out of memory")
    play.train(1)
    assert play.study.best()[0].number != 1


def test_the_best_of_several_objectives_is_a_front(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "s.journal"))
    Study.create(storage, "x", [True, False], {"search": "x"})
    study = Study(storage, "x", higher=[True, False], sampler=Sampler(kind="random"), pruner=Pruner(), epochs=1)
    asked = study.ask(0, 3, SPACE)
    values = [(1.0, 1.0), (2.0, 2.0), (0.5, 2.0)]
    study.tell({one.number: Told("complete", v) for one, v in zip(asked, values, strict=True)})
    assert sorted(row.number for row in study.best()) == [0, 1]
    assert study_names(storage, "x") == ["x"]


def test_an_unfinished_last_line_costs_nothing_else(tmp_path: Path) -> None:
    play = Play(tmp_path, "tpe")
    play.train(0)
    before = play.end()
    with Path(play.file).open("ab") as file:
        file.write(b'{"op_code": 4, "worker_')
    play.study = play.begin()
    assert play.end() == before
    play.train(1)
    play.study = play.begin()
    assert len(play.end()) == 2 * K


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("sqlite:////nowhere/at/all/s.db", "unable to open database file"),
        ("postgresql://me:secret@127.0.0.1:1/x", "storage postgresql://127.0.0.1:1/x cannot be used"),
        ("nonsense://x", "storage nonsense://x"),
    ],
)
def test_a_storage_that_cannot_be_used_is_a_sentence_without_its_password(place: str, says: str) -> None:
    with pytest.raises(StudyError) as caught:
        open_storage(place)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_any_database_serves(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 's.db'}")
    Study.create(storage, "x", [True], {"search": "x"})
    study = Study(storage, "x", higher=[True], sampler=Sampler(), pruner=Pruner(), epochs=1)
    asked = study.ask(0, 3, SPACE)
    study.tell({trial.number: Told("complete", (value(trial.params),)) for trial in asked})
    assert [row.state for row in study.rows()] == ["complete"] * 3
