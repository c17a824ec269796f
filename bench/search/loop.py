"""From a search to its winner: rounds of trials until the budget is spent, whoever else works on the same study."""

import contextlib
import itertools
import json
import socket
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.grid.plan import MethodChoice
from bench.grid.problems import check
from bench.grid.settings import TrainSettings
from bench.running.claims import Claims
from bench.scheduling.slots import slot_devices
from bench.search.display import PlainDisplay
from bench.search.executor import ShareExecutor
from bench.search.record import Record
from bench.search.rounds import Rounds
from bench.search.search import Search
from bench.search.space import TRAIN
from bench.search.study import Asked, Study, StudyError, Told, TrialRow, open_storage
from bench.spool import write_atomically
from bench.tracking import TrackingError, check_store, state_folder

MAX_LANES = 64
"""Processes on one machine that may share a study."""


def folder_of(search: Search) -> Path:
    """Where claims, rounds and by default the journal of a search lie."""
    return state_folder(search.grid.tracking.uri, search.name)


def place_of(search: Search) -> str:
    """The storage of a search: a path or a URL."""
    return search.storage or str(folder_of(search) / "study.journal")


@dataclass
class Tuned:
    """How one method came out of a search."""

    method: MethodChoice
    rows: list[TrialRow]
    best: list[TrialRow]
    """One; with several objectives the Pareto front."""
    default: tuple[float, ...] | None
    """The objectives of the default configuration; None when it failed."""
    seconds: float
    """Wall time of all its trials."""

    @property
    def counts(self) -> dict[str, int]:
        states = [row.state for row in self.rows]
        return {state: states.count(state) for state in ("complete", "pruned", "failed", "running")}


@dataclass
class Ended:
    """How a search ended."""

    tuned: list[Tuned] = field(default_factory=list)
    interrupted: bool = False
    shared: bool = False
    """Other processes still work on it."""
    unsaved: str = ""
    """Why MLflow does not have everything, if it does not."""


class Searcher:
    """One `bench search`."""

    def __init__(self, search: Search, display: PlainDisplay, *, resume: bool = False) -> None:
        """Open the storage and the studies; refuse what cannot be gone on with, before anything trains.

        Raises:
            UserError: storage or tracking store cannot be used, or a study of the same name is another one.
        """
        check_store(search.grid.tracking.uri)
        self.search, self.display = search, display
        self.folder = folder_of(search)
        try:
            self.claims = Claims(self.folder)
        except OSError as error:
            raise TrackingError(f"the state folder {self.folder} cannot be written: {error.strerror}.") from error
        self.storage = open_storage(place_of(search))
        for method in search.methods:
            self._prepare(method, resume)
        self.lane = self._lane()
        self.devices = slot_devices(search.grid.executor.devices, search.grid.executor.slots)

    # ---- studies ---------------------------------------------------------------------------------------------

    def _prepare(self, method: MethodChoice, resume: bool) -> None:
        """Make a method's study, or hold the one there to what is asked for."""
        search, name = self.search, self.search.study_name(method.label)
        asked = search.identity(method)
        if Study.exists(self.storage, name):
            study = self.study(method, 0)
            known, n = study.attrs().get("identity"), len(study.rows())
            if known is not None and known != asked:
                differs = [part.replace("_", " ") for part in asked if known.get(part) != asked[part]]
                raise StudyError(
                    f"a study '{name}' with {n} trials is in {place_of(search)}, but with another "
                    f"{', another '.join(differs)}: give this search another name, or put back what was changed."
                )
            if known is not None and n and not resume:
                raise StudyError(
                    f"the study '{name}' has {n} trials already: go on with it, or join it, by --resume; "
                    "or give this search another name."
                )
            if known is not None:
                return
        attrs = {
            "search": search.name, "method": method.label, "source": search.source, "file": search.grid.file,
            "objectives": [objective.name for objective in search.objectives], "home": socket.gethostname(),
            "identity": asked,
        }  # fmt: skip
        Study.create(self.storage, name, [objective.higher for objective in search.objectives], attrs)
        study = self.study(method, 0)
        for key, value in attrs.items():
            if key not in study.attrs():  # of a process killed a moment after it made the study
                study.set_attr(key, value)

    def study(self, method: MethodChoice, lane: int | None = None) -> Study:
        """A method's study, on this process's lane or another."""
        return Study(
            self.storage,
            self.search.study_name(method.label),
            higher=[objective.higher for objective in self.search.objectives],
            sampler=self.search.sampler,
            pruner=self.search.pruner,
            epochs=self._epochs(),
            lane=self.lane if lane is None else lane,
        )

    def _epochs(self) -> int:
        """The most epochs a trial can have."""
        train, most = self.search.grid.train, []
        for dataset in self.search.datasets:
            tried = train.values_for(dataset.name, dataset.label).get("epochs")
            most.append(int(tried[0]) if tried else check(TrainSettings, {}).epochs)
        spaces = (parameter for space in self.search.spaces.values() for parameter in space.parameters)
        for parameter in spaces:
            if parameter.name == f"{TRAIN}epochs":
                most += [int(parameter.high), *(int(choice) for choice in parameter.choices)]
        return max(most)

    # ---- lanes -----------------------------------------------------------------------------------------------

    def _lane(self) -> int:
        """The first lane no living process of this machine holds; those of other machines have numbers of their own."""
        home = self.study(self.search.methods[0], 0).attrs().get("home")
        here = socket.gethostname()
        first = 0 if home == here else (1 + zlib.crc32(here.encode())) * MAX_LANES
        for lane in range(first, first + MAX_LANES):
            if self._take(lane):
                return lane
        raise StudyError(f"{MAX_LANES} processes of this machine work on '{self.search.name}' already.")

    def _take(self, lane: int) -> bool:
        return self.claims.take(f"{lane:015x}")

    def _orphaned(self, method: MethodChoice) -> Iterator[int]:
        """Lanes with running trials whose process has died; each is ours once it is yielded."""
        rows = self.study(method, self.lane).rows()
        lanes = {int(row.attrs["lane"]) for row in rows if row.state == "running" and "lane" in row.attrs}
        first = self.lane - self.lane % MAX_LANES
        yield from (lane for lane in sorted(lanes) if first <= lane < first + MAX_LANES and self._take(lane))

    # ---- the search ------------------------------------------------------------------------------------------

    def run(self) -> Ended:
        """Tune one method after the other, each until its own budget is spent."""
        ended = Ended()
        executor: ShareExecutor | None = None
        record = Record(self.search, self.folder)
        try:
            executor = ShareExecutor(self.devices, capture=self.search.grid.executor.capture)
            rounds = Rounds(self.search, executor, self.display.tick)
            for method in self.search.methods:
                self._tune(method, rounds, record)
                for lane in self._orphaned(method):
                    self._tune(method, rounds, record, lane)
                ended.tuned.append(self._tuned(method, rounds))
                ended.shared |= ended.tuned[-1].counts["running"] > 0
        except KeyboardInterrupt:
            ended.interrupted = True
        finally:
            if executor is not None:
                executor.close()
            self.display.stop()
            self.record = record
        return ended

    def _tune(self, method: MethodChoice, rounds: Rounds, record: Record, lane: int | None = None) -> None:
        """Rounds until the budget is spent; on the lane of a dead process, just the round it left."""
        study = self.study(method, self.lane if lane is None else lane)
        before = study.rows()
        record.catch_up(method.label, before)
        self.display.start(study.name, _n_ended(before), self._n_all(method), len(self.devices))
        best = study.best()
        while (asked := self._ask(study, method, only_left=lane is not None)) is not None:
            round_, trials = asked
            self.display.round(len(trials))
            told = self._train(study, round_, method, trials, rounds)
            study.tell(told)
            with contextlib.suppress(FileNotFoundError):
                self._file(study, round_).unlink()
            rows = {row.number: row for row in study.rows()}
            record.trials(method.label, [rows[trial.number] for trial in trials])
            self.display.n_done = _n_ended(rows.values()) - len(trials)  # others may have ended some
            for trial in trials:
                one = len(self.search.objectives) == 1
                best = study.best() if one and rows[trial.number].state == "complete" else best
                self.display.ended(rows[trial.number], best[0] if best and one else None)

    def _n_all(self, method: MethodChoice) -> int:
        trials = self.search.budget.trials
        return (
            min(trials, len(self.search.spaces[method.label].grid())) if self.search.sampler.kind == "grid" else trials
        )

    def _ask(self, study: Study, method: MethodChoice, *, only_left: bool) -> tuple[int, list[Asked]] | None:
        """The round that was left unfinished, or the next; None when the budget is spent."""
        space = self.search.spaces[method.label]
        with self.claims:
            if (left := study.unfinished()) is not None:
                round_, n = left
                return round_, study.ask(round_, n, space, self._given(study, method, round_, n))
            rows = study.rows()
            n = min(self.search.batch, self._n_all(method) - len(rows))
            if only_left or n <= 0 or self._is_late(rows):
                return None
            round_ = study.next_round()
            given = self._given(study, method, round_, n)
            if self.search.sampler.kind == "grid":
                n = min(n, len(given))
            return (round_, study.ask(round_, n, space, given)) if n else None

    def _is_late(self, rows: Sequence[TrialRow]) -> bool:
        """Whether the wall time of the budget is over; that of earlier processes counts."""
        minutes = self.search.budget.minutes
        return minutes is not None and _wall_s(rows) >= 60 * minutes

    def _given(self, study: Study, method: MethodChoice, round_: int, n: int) -> list[dict[str, Any]]:
        """Parameters that are not suggested: the defaults come first; a grid is given whole, point by point."""
        space = self.search.spaces[method.label]
        if self.search.sampler.kind == "grid":
            rows = [
                row for row in study.rows() if (row.attrs.get("lane"), row.attrs.get("round")) != (study.lane, round_)
            ]
            tried = {json.dumps(dict(row.params), sort_keys=True) for row in rows}
            points = (point for point in space.grid() if json.dumps(point, sort_keys=True) not in tried)
            return list(itertools.islice(points, n))
        default = space.of(self.defaults(method)) if (study.lane, round_) == (0, 0) else None
        return [] if default is None else [default]

    def defaults(self, method: MethodChoice) -> dict[str, Any]:
        """The default configuration with the train settings, as a space names them; those of the first data set."""
        dataset = self.search.datasets[0]
        tried = self.search.grid.train.values_for(dataset.name, dataset.label)
        settings = check(TrainSettings, {}).model_dump() | {name: values[0] for name, values in tried.items()}
        own = method.config.model_dump(mode="json")
        return own | {f"{TRAIN}{name}": value for name, value in settings.items()}

    # ---- one round -------------------------------------------------------------------------------------------

    def _file(self, study: Study, round_: int) -> Path:
        """Where the results of a round wait until the storage has all of them."""
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in study.name)
        return self.folder / "rounds" / f"{name}-{study.lane}-{round_}.json"

    def _train(
        self, study: Study, round_: int, method: MethodChoice, trials: Sequence[Asked], rounds: Rounds
    ) -> dict[int, Told]:
        """Train a round, or read what a process left that was killed while it told of it."""
        file = self._file(study, round_)
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            kept = {int(number): Told.from_plain(told) for number, told in json.loads(file.read_text()).items()}
            if kept.keys() >= {trial.number for trial in trials}:
                return {trial.number: kept[trial.number] for trial in trials}
        told = rounds.train(method, trials, study.prune)
        for number, curve in rounds.curves.items():
            told[number].attrs |= {"curve": [round(value, 6) for value in curve], "ended_ms": int(time.time() * 1000)}
        study.note(told)
        write_atomically(file, json.dumps({number: one.plain() for number, one in told.items()}))
        return told

    def _tuned(self, method: MethodChoice, rounds: Rounds) -> Tuned:
        study = self.study(method, self.lane)
        rows = study.rows()
        return Tuned(method, rows, study.best(), self._default(study, method, rows, rounds), _wall_s(rows))

    def _default(
        self, study: Study, method: MethodChoice, rows: Sequence[TrialRow], rounds: Rounds
    ) -> tuple[float, ...] | None:
        """What the defaults give on validation: the trial that is them, else they are trained beside the study."""
        point = self.search.spaces[method.label].of(self.defaults(method))
        for row in rows:
            if point is not None and row.state == "complete" and dict(row.params) == point:
                return row.values
        known = study.attrs().get("default_values")
        if known is None:
            self.display.print(f"{study.name}: the defaults were no complete trial; they are trained to compare with.")
            told = rounds.train(method, [Asked(-1, {})], lambda step, values: [])[-1]
            known = list(told.values) if told.values is not None else []
            study.set_attr("default_values", known)
        return tuple(known) or None


def _n_ended(rows: Iterable[TrialRow]) -> int:
    return sum(row.state != "running" for row in rows)


def _wall_s(rows: Sequence[TrialRow]) -> float:
    """Wall time of a study's rounds, which is shared out over their trials."""
    return sum(float(row.attrs.get("seconds", 0.0)) for row in rows)
