"""What a search asks of Optuna, and the only module that imports it.

The study proper lies in the storage. Beside it stands a mirror in memory, in which trials are suggested, reported and
judged; the storage learns of a trial when it has been suggested, whole, and again when its round has ended. So a
process that is killed leaves nothing half done: its trials are still running there, with their parameters, and the
next process on its lane trains the round again and comes to the same numbers.
"""

import contextlib
import fcntl
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from bench.search.search import Pruner, Sampler
from bench.search.space import Space
from datasets.errors import UserError
from datasets.seeds import seed_of

optuna.logging.set_verbosity(optuna.logging.ERROR)
for _name in ("alembic", "sqlalchemy"):
    logging.getLogger(_name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

State = Literal["running", "complete", "pruned", "failed"]
_STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running", TrialState.WAITING: "running", TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
}  # fmt: skip
_SNAPSHOT = "sampler_state"
"""Attribute of a trial: what the sampler had noted of the study when the trial's round had been asked for."""


class StudyError(UserError):
    """A study that cannot be opened or gone on with."""

    exit_code = 1


@dataclass(frozen=True)
class TrialRow:
    """A trial as tables and figures see it."""

    number: int
    state: State
    values: tuple[float, ...] | None
    """One for each objective, of complete trials."""
    params: Mapping[str, Any]
    attrs: Mapping[str, Any]
    """`seconds`, `reason`, `epoch` of pruning, ..."""
    steps: Mapping[int, float]


@dataclass(frozen=True)
class Asked:
    """A trial to be trained."""

    number: int
    params: Mapping[str, Any]


@dataclass
class Told:
    """How a trial ended."""

    state: State
    values: tuple[float, ...] | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    steps: dict[int, float] = field(default_factory=dict)
    """Intermediate values, where a pruner looked at them."""
    noted: dict[str, Any] = field(default_factory=dict)
    """What the pruner noted of the trial; see `Study.note`."""

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "steps": list(self.steps.items())}

    @classmethod
    def from_plain(cls, told: Mapping[str, Any]) -> "Told":
        values = None if told["values"] is None else tuple(told["values"])
        steps = {int(step): float(value) for step, value in told["steps"]}
        return cls(told["state"], values, dict(told["attrs"]), steps, dict(told["noted"]))


# ---- storages -------------------------------------------------------------------------------------------------


class _KernelLock(JournalFileOpenLock):
    """A lock the kernel frees when its holder dies; Optuna's own lock files outlive a killed process by 30 s."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def acquire(self) -> bool:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        os.close(self._file)


def open_storage(place: str) -> BaseStorage:
    """A journal file by its path, or a database by its URL.

    Raises:
        StudyError: it cannot be reached, or is none.
    """
    try:
        if "://" not in place:
            path = Path(place)
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _KernelLock(path.with_name(f"{path.name}.lock"))
            _mend(path, lock)
            return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        if place.startswith("redis"):
            return optuna.storages.get_storage(place)
        return RDBStorage(place, engine_kwargs=_patience(place))
    except ImportError as error:
        raise StudyError(f"storage {place} needs a driver that is not installed: {error}.") from error
    except Exception as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()
        told = reason[0] if reason else type(error).__name__
        raise StudyError(f"storage {place} cannot be used: {told}") from error


def _patience(url: str) -> dict[str, Any]:
    """A server that does not answer is given up after some seconds."""
    timeout = {"postgresql": "connect_timeout", "mysql": "connect_timeout", "sqlite": "timeout"}
    argument = timeout.get(urlsplit(url).scheme.partition("+")[0])
    return {"connect_args": {argument: 20}} if argument else {}


def _mend(path: Path, lock: _KernelLock) -> None:
    """Cut off a last line that a full disk or a crash of the machine left unfinished: all after it would be lost."""
    lock.acquire()
    try:
        with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
            text = file.read()
            if text and not text.endswith(b"\n"):
                file.truncate(text.rfind(b"\n") + 1)
    finally:
        lock.release()


def study_names(storage: BaseStorage, search: str) -> list[str]:
    """The studies of a search, one a method, in the order in which they were begun."""
    found = [study for study in storage.get_all_studies() if study.user_attrs.get("search") == search]
    return [study.study_name for study in sorted(found, key=lambda study: study._study_id)]


# ---- samplers and pruners -------------------------------------------------------------------------------------


def make_sampler(settings: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    """A sampler with its random numbers from `seed`; several trials asked at once repel each other."""
    match settings.kind:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=settings.startup, constant_liar=True)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=settings.startup)
        case "cmaes":
            return optuna.samplers.CmaEsSampler(
                seed=seed, n_startup_trials=settings.startup, warn_independent_sampling=False
            )
        case "qmc":
            return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        case "random" | "grid":  # the points of a grid are given, in order
            return optuna.samplers.RandomSampler(seed=seed)


def make_pruner(settings: Pruner, epochs: int) -> optuna.pruners.BasePruner:
    """A pruner for trials of at most so many epochs."""
    match settings.kind:
        case "median":
            return optuna.pruners.MedianPruner(settings.startup, settings.warmup)
        case "hyperband":
            return optuna.pruners.HyperbandPruner(
                min(settings.min_epochs, epochs), max_resource=epochs, reduction_factor=settings.reduction
            )
        case "wilcoxon":
            return optuna.pruners.WilcoxonPruner(p_threshold=settings.p)
        case "none":
            return optuna.pruners.NopPruner()


# ---- the study ------------------------------------------------------------------------------------------------


class Study:
    """One study as one process sees it, on the lane the process holds."""

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        higher: Sequence[bool],
        sampler: Sampler,
        pruner: Pruner,
        epochs: int,
        lane: int = 0,
    ) -> None:
        """Open a study that is there.

        Args:
            storage: from `open_storage`.
            name: the study's.
            higher: of each objective, whether more is better.
            sampler: who suggests.
            pruner: who stops.
            epochs: the most a trial can have.
            lane: number of this process among those that share the study; each has suggestions of its own.
        """
        self.storage, self.name, self.lane = storage, name, lane
        self._id = storage.get_study_id_from_name(name)
        self._directions = [_direction(up) for up in higher]
        self._sampler, self._pruner = sampler, make_pruner(pruner, epochs)
        self._mirror: optuna.Study | None = None
        self._memory, self._memory_study = InMemoryStorage(), 0
        self._trials: dict[int, optuna.Trial] = {}
        """Those of the round at hand, by number, as the mirror has them."""

    @staticmethod
    def exists(storage: BaseStorage, name: str) -> bool:
        return any(study.study_name == name for study in storage.get_all_studies())

    @staticmethod
    def create(storage: BaseStorage, name: str, higher: Sequence[bool], attrs: Mapping[str, Any]) -> None:
        """Make a study with its attributes, unless another process does so at this moment."""
        with contextlib.suppress(optuna.exceptions.DuplicatedStudyError):
            study = storage.create_new_study([_direction(up) for up in higher], name)
            for key, value in attrs.items():
                storage.set_study_user_attr(study, key, value)

    def attrs(self) -> dict[str, Any]:
        return self.storage.get_study_user_attrs(self._id)

    def set_attr(self, key: str, value: Any) -> None:
        self.storage.set_study_user_attr(self._id, key, value)

    def rows(self) -> list[TrialRow]:
        """Every trial of the study, whoever trained it."""
        return [_row(trial) for trial in self._frozen()]

    def _frozen(self) -> list[FrozenTrial]:
        return self.storage.get_all_trials(self._id, deepcopy=False)

    # ---- asking ------------------------------------------------------------------------------------------

    def unfinished(self) -> tuple[int, int] | None:
        """The round that an earlier process on this lane left unfinished, and how many trials it has."""
        own = [t for t in self._frozen() if t.user_attrs.get("lane") == self.lane and t.state == TrialState.RUNNING]
        return (own[0].user_attrs["round"], own[0].user_attrs["of"]) if own else None

    def next_round(self) -> int:
        """Number of the next round on this lane."""
        return 1 + max(
            (t.user_attrs["round"] for t in self._frozen() if t.user_attrs.get("lane") == self.lane), default=-1
        )

    def ask(self, round_: int, n: int, space: Space, given: Sequence[Mapping[str, Any]] = ()) -> list[Asked]:
        """The `n` trials of a round; the same whenever it is asked for, as long as no other process finished trials.

        Args:
            round_: its number on this lane.
            n: how many trials.
            space: what to suggest of.
            given: parameters of the first trials; the others are the sampler's.
        """
        there = {int(t.user_attrs["index"]) for t in self._of_round(round_)}
        if len(there) < n:
            self._suggest(round_, n, space, given, missing=set(range(n)) - there)
        running = [t for t in self._of_round(round_) if t.state == TrialState.RUNNING]
        mirror = self._reflect()
        for trial in running:
            if trial.number not in self._trials:
                self._trials[trial.number] = optuna.Trial(mirror, self._memory_id(trial.number))
        return [Asked(t.number, dict(t.params)) for t in running]

    def _of_round(self, round_: int) -> list[FrozenTrial]:
        own = [
            t for t in self._frozen() if (t.user_attrs.get("lane"), t.user_attrs.get("round")) == (self.lane, round_)
        ]
        return sorted(own, key=lambda trial: int(trial.user_attrs["index"]))

    def _suggest(
        self, round_: int, n: int, space: Space, given: Sequence[Mapping[str, Any]], missing: set[int]
    ) -> None:
        """Suggest a whole round in the mirror, and put into the storage what is missing there."""
        mirror = self._reflect() if len(missing) == n else self._reflect(without=round_)
        mirror.sampler = make_sampler(self._sampler, self._seed(round_))
        for params in given:
            mirror.enqueue_trial(dict(params))
        trials: list[optuna.Trial] = []
        for _ in range(n):
            trials.append(mirror.ask())
            space.suggest(trials[-1])
        noted = self._memory.get_study_system_attrs(self._memory_study)
        attrs = {"lane": self.lane, "round": round_, "of": n, **({_SNAPSHOT: noted} if noted else {})}
        for index in sorted(missing):
            template = copy(self._memory.get_trial(self._memory_id(trials[index].number)))
            template.user_attrs = {**attrs, "index": index}
            template.system_attrs = {k: v for k, v in template.system_attrs.items() if k != "fixed_params"}
            self.storage.create_new_trial(self._id, template)
        if [t.number for t in self._of_round(round_)] == [trial.number for trial in trials]:
            self._trials = {trial.number: trial for trial in trials}
        else:  # another process asked at the same time
            self._mirror = None

    def _seed(self, round_: int) -> int:
        """A round's own random numbers; a Sobol sequence goes on from round to round."""
        axes = ("qmc",) if self._sampler.kind == "qmc" else ("round", round_)
        return seed_of("search", self._sampler.seed, self.lane, *axes) % 2**32

    # ---- the mirror --------------------------------------------------------------------------------------

    def _reflect(self, without: int | None = None) -> optuna.Study:
        """The mirror, brought up to the storage; `without` leaves out what the storage has of a round of this lane."""
        frozen = self._frozen()
        if without is not None:
            frozen = [
                t for t in frozen if (t.user_attrs.get("lane"), t.user_attrs.get("round")) != (self.lane, without)
            ]
        mirror = self._mirror if self._mirror is not None and without is None else self._new_mirror(frozen)
        known = self._memory.get_all_trials(self._memory_study, deepcopy=False)
        for seen, trial in zip(known, frozen, strict=False):
            if not seen.state.is_finished() and trial.state.is_finished():
                self._finish_in_mirror(seen.number, trial)
        for trial in frozen[len(known) :]:
            self._memory.create_new_trial(self._memory_study, trial)
        return mirror

    def _new_mirror(self, frozen: Sequence[FrozenTrial]) -> optuna.Study:
        """An empty mirror that knows what the sampler had noted when this lane last asked."""
        self._memory = InMemoryStorage()
        self._memory_study = self._memory.create_new_study(self._directions, self.name)
        self._trials = {}
        own = [t for t in frozen if t.user_attrs.get("lane") == self.lane]
        for key, value in (own[-1].user_attrs.get(_SNAPSHOT, {}) if own else {}).items():
            self._memory.set_study_system_attr(self._memory_study, key, value)
        random = optuna.samplers.RandomSampler(0)  # another is set before trials are asked for
        self._mirror = optuna.load_study(
            study_name=self.name, storage=self._memory, sampler=random, pruner=self._pruner
        )
        return self._mirror

    def _finish_in_mirror(self, number: int, ended: FrozenTrial) -> None:
        memory, trial_id = self._memory, self._memory_id(number)
        for step, value in ended.intermediate_values.items():
            memory.set_trial_intermediate_value(trial_id, step, value)
        for key, value in ended.user_attrs.items():
            memory.set_trial_user_attr(trial_id, key, value)
        for key, value in ended.system_attrs.items():
            memory.set_trial_system_attr(trial_id, key, value)
        memory.set_trial_state_values(trial_id, ended.state, ended.values)

    def _memory_id(self, number: int) -> int:
        return self._memory.get_trial_id_from_study_id_trial_number(self._memory_study, number)

    def _storage_id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, number)

    # ---- judging and telling -----------------------------------------------------------------------------

    def prune(self, step: int, values: Mapping[int, float]) -> list[int]:
        """Report a step's values by trial number; the numbers of the trials that should stop, judged in that order."""
        stop = []
        for number in sorted(values):
            trial = self._trials[number]
            trial.report(values[number], step)
            if trial.should_prune():
                stop.append(number)
        return stop

    def note(self, told: Mapping[int, Told]) -> None:
        """Add to the trials of a round what the pruner noted of them, so that they can be told by another process."""
        for number in told.keys() & self._trials.keys():
            noted = self._memory.get_trial(self._memory_id(number)).system_attrs
            known = self.storage.get_trial(self._storage_id(number)).system_attrs
            told[number].noted = {k: v for k, v in noted.items() if k not in known and k != "fixed_params"}

    def tell(self, told: Mapping[int, Told]) -> None:
        """Take the trials of a round to the storage, in the order of their numbers."""
        for number in sorted(told):
            end = told[number]
            trial_id = self._storage_id(number)
            if self.storage.get_trial(trial_id).state.is_finished():
                continue
            for step, value in end.steps.items():
                self.storage.set_trial_intermediate_value(trial_id, step, value)
            for key, value in end.attrs.items():
                self.storage.set_trial_user_attr(trial_id, key, value)
            for key, value in end.noted.items():
                self.storage.set_trial_system_attr(trial_id, key, value)
            state, values = _ended(end)
            self.storage.set_trial_state_values(trial_id, state, values)
        self._trials = {}

    # ---- what the study says -----------------------------------------------------------------------------

    def best(self) -> list[TrialRow]:
        """The best trial; of several objectives, those that no other beats in all. Of equals the first."""
        complete = [t for t in self._frozen() if t.state == TrialState.COMPLETE and t.values is not None]
        if not complete:
            return []
        study = self.whole()
        return [_row(trial) for trial in (study.best_trials if len(self._directions) > 1 else [study.best_trial])]

    def whole(self) -> optuna.Study:
        """The study as Optuna's own functions take it, in memory."""
        return self._reflect()


def _direction(higher: bool) -> optuna.study.StudyDirection:
    return optuna.study.StudyDirection.MAXIMIZE if higher else optuna.study.StudyDirection.MINIMIZE


def _ended(told: Told) -> tuple[TrialState, list[float] | None]:
    """Optuna's state and values; a pruned trial counts with its last intermediate value."""
    if told.state == "complete":
        return TrialState.COMPLETE, list(told.values or ())
    if told.state == "pruned":
        return TrialState.PRUNED, [told.steps[max(told.steps)]] if told.steps else None
    return TrialState.FAIL, None


def _row(trial: FrozenTrial) -> TrialRow:
    state = _STATES[trial.state]
    values = tuple(trial.values) if state == "complete" and trial.values is not None else None
    attrs = {key: value for key, value in trial.user_attrs.items() if key != _SNAPSHOT}
    return TrialRow(trial.number, state, values, dict(trial.params), attrs, dict(trial.intermediate_values))


# ---- importance and plots -------------------------------------------------------------------------------------


def importances(study: optuna.Study, objective: int = 0) -> dict[str, float]:
    """Share of the objective's variance by parameter (fANOVA), highest first; empty where nothing can be said."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 4 or len({trial.values[objective] for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        return optuna.importance.get_param_importances(
            study, evaluator=evaluator, target=lambda trial: float(trial.values[objective])
        )
    except (ValueError, RuntimeError):  # no parameter that all trials have
        return {}


def plots(study: optuna.Study, objectives: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Name and drawer of every figure that the trials so far can fill; a drawer returns Matplotlib axes, or several."""
    from optuna.visualization import matplotlib as draw

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return
    shared = set.intersection(*(set(trial.params) for trial in complete))
    varied = [name for name in sorted(shared) if len({str(trial.params[name]) for trial in complete}) > 1]
    for index, title in enumerate(objectives):
        end = f"-{index + 1}" if len(objectives) > 1 else ""
        target = {"target": lambda trial, i=index: trial.values[i]} if len(objectives) > 1 else {}
        words: dict[str, Any] = {**target, "target_name": title}
        yield f"history{end}", lambda words=words: draw.plot_optimization_history(study, **words)
        if varied:
            yield f"slice{end}", lambda words=words: draw.plot_slice(study, params=varied, **words)
        if len(varied) > 1:
            chosen = _foremost(importances(study, index), varied)
            yield (
                f"parallel{end}",
                lambda words=words, c=chosen: draw.plot_parallel_coordinate(study, params=c, **words),
            )
            yield f"contour{end}", lambda words=words, c=chosen: draw.plot_contour(study, params=c[:4], **words)
        if found := importances(study, index):
            yield f"importance{end}", lambda found=found, title=title: draw_importance(found, title)
    if len(objectives) == 2:
        yield "pareto", lambda: draw.plot_pareto_front(study, target_names=list(objectives))
    if any(trial.intermediate_values for trial in study.get_trials(deepcopy=False)):
        yield "intermediate", lambda: _without_long_legend(draw.plot_intermediate_values(study))


def _without_long_legend(axes: Any) -> Any:
    """A legend of every trial would be longer than the figure."""
    legend = axes.get_legend()
    if legend is not None and len(legend.get_texts()) > 12:
        legend.remove()
    return axes


def _foremost(found: Mapping[str, float], varied: list[str]) -> list[str]:
    """At most eight parameters, those that matter most first."""
    return sorted(varied, key=lambda name: -found.get(name, 0.0))[:8]


def draw_importance(found: Mapping[str, float], title: str) -> Any:
    """Bars of the importances, highest on top."""
    from matplotlib import pyplot

    _, axes = pyplot.subplots(figsize=(6, 1 + 0.35 * len(found)))
    names = list(found)[::-1]
    axes.barh(names, [found[name] for name in names], color="#0072B2")
    axes.set_xlabel(f"share of the variance of {title}")
    return axes
