"""What `bench search` and its commands do, once the heavy imports are paid for."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.tell import tell
from datasets.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from bench.search.loop import Ended, Searcher, Tuned
    from bench.search.report import Line
    from bench.search.search import Search


def run_search(name: str, *, resume: bool, grid: bool, trials: int | None, out: Path, as_json: bool) -> int:
    """`bench search`: exit code 0 when the budget is spent, 1 when nothing came of it, 130 when interrupted."""
    from bench.cli.commands import stop_when_told
    from bench.running.progress import seconds
    from bench.search.display import make_display
    from bench.search.loop import Searcher

    search = _asked(name, grid=grid, trials=trials)
    stop_when_told()
    words = "".join([f"bench search {name} --resume", " --grid" * grid, f" --trials {trials}" if trials else ""])
    searcher = Searcher(search, make_display(), resume=resume)
    ended = searcher.run()
    if ended.interrupted:
        searcher.record.close("KILLED", 1.5)
        tell(f"stopped; at most the trials that were running are repeated. The same search goes on: {words}")
        return 130
    lines: list[Line] = []
    if ended.shared:
        tell("other processes still train trials of this search; the last to finish tests the winner.")
    elif any(one.best for one in ended.tuned):
        tell("the budget is spent; the winner and the defaults are tested, once.")
        lines = _examine(searcher, ended)
    folder = out / search.name
    _write(searcher, ended, folder, lines)
    unsaved = searcher.record.close("FINISHED")
    if unsaved:
        tell(f"{unsaved} The trials are in the study; the same command with --resume writes them.")
    if as_json:
        print(json.dumps(_as_json(search, ended, lines), indent=2))
    else:
        _show(search, ended, lines)
    took = seconds(sum(one.seconds for one in ended.tuned))
    tell(f"{search.name}: trials took {took}. Report: {folder}. Next: bench search best {search.name} > tuned.yaml")
    return int(not all(one.best for one in ended.tuned) or bool(unsaved))


def _asked(name: str, *, grid: bool = False, trials: int | None = None) -> "Search":
    """The search, changed by options of the command line; a sweep is a study of its own."""
    from bench.search.file import load_search
    from bench.search.search import Pruner, Sampler

    search = load_search(name)
    if grid:
        n = max(len(space.grid()) for space in search.spaces.values())
        search = replace(
            search,
            grid=replace(search.grid, name=f"{search.name[:95]}-grid"),
            sampler=Sampler(kind="grid", seed=search.sampler.seed),
            pruner=Pruner(),
            budget=search.budget.model_copy(update={"trials": n}),
        )
    elif search.sampler.kind == "grid" and trials is None and "trials" not in search.budget.model_fields_set:
        n = max(len(space.grid()) for space in search.spaces.values())
        search = replace(search, budget=search.budget.model_copy(update={"trials": n}))
    if trials is not None:
        search = replace(search, budget=search.budget.model_copy(update={"trials": trials}))
    return search


# ---- the winner on test -------------------------------------------------------------------------------------


def _examine(searcher: "Searcher", ended: "Ended") -> "list[Line]":
    """Train the winners and the defaults as ordinary grids, and compare them on test."""
    from bench.grid.file import parse_grid
    from bench.grid.plan import make_plan
    from bench.running.progress import make_display
    from bench.running.runner import Runner
    from bench.search.report import compare
    from bench.search.winner import default, grids, same, tuned
    from bench.tracking import Store

    search, trainings = searcher.search, []
    searcher.record.wait()
    won = [one for one in ended.tuned if one.best]
    picks = [default(one.method) for one in won]
    picks += [
        p for d, one in zip(picks, won, strict=True) for p in tuned(one.method, one.best[:1]) if not same(search, p, d)
    ]
    for grid in grids(search, picks):
        plan = make_plan(parse_grid(grid.to_yaml(), f"{search.name}-winner.yaml"))
        display = make_display()
        try:
            summary = Runner(plan, display).run()
        finally:
            display.stop()
        for training, reason in summary.failed.values():
            tell(f"{training.method.label} on {training.dataset.label}, seed {training.seed}, failed: {reason}")
        trainings += plan.trainings
        if summary.interrupted:
            break
    frame = Store(search.grid.tracking.uri, search.name, create=False).results()
    return compare(search, won, _test_metrics(frame, search.grid.checkpoint), trainings)


def _test_metrics(frame: Any, checkpoint: str) -> dict[str, dict[str, float]]:
    """Cell id -> metrics, of the checkpoint that counts and clean inputs."""
    found: dict[str, dict[str, float]] = {}
    kept = frame[(frame["checkpoint"] == checkpoint) & (frame["corruption"] == "")]
    columns = ("training_id", "modalities", "metric", "value")
    for training, subset, metric, value in kept[list(columns)].itertuples(index=False):
        found.setdefault(f"{training}-{subset}", {})[metric] = float(value)
    return found


def _write(searcher: "Searcher", ended: "Ended", folder: Path, lines: "Sequence[Line]") -> None:
    from bench.search.report import write_report

    for problem in write_report(searcher, ended.tuned, folder, lines):
        tell(f"note: {problem}")
    searcher.record.report(folder)


# ---- what is printed ----------------------------------------------------------------------------------------


def _show(search: "Search", ended: "Ended", lines: "Sequence[Line]") -> None:
    from bench.cli.show import print_searched

    print_searched(search, ended.tuned, lines)
    for line in lines:
        print(line.says)


def _as_json(search: "Search", ended: "Ended", lines: "Sequence[Line]") -> dict[str, Any]:
    names = [objective.name for objective in search.objectives]

    def told(one: "Tuned") -> dict[str, Any]:
        best = [{"trial": r.number, "values": r.values, "params": dict(r.params)} for r in one.best]
        return {"method": one.method.label, "trials": one.counts, "seconds": one.seconds, "best": best}

    methods = [told(one) for one in ended.tuned]
    return {"name": search.name, "objectives": names, "methods": methods, "test": [asdict(line) for line in lines]}


# ---- bench search best, show, dashboard -----------------------------------------------------------------------


def _found(name: str) -> "tuple[Search, list[Tuned]]":
    """A search and what its studies hold so far, by its file, its bundled name, or its name alone.

    Raises:
        UserError: there is no such study here.
    """
    from bench.search.file import load_search, parse_search
    from bench.search.loop import Tuned, place_of
    from bench.search.study import Study, open_storage, study_names
    from bench.tracking import resolve_uri, state_folder

    journal = state_folder(resolve_uri(None), name) / "study.journal"
    search = None
    if journal.exists():
        storage = open_storage(str(journal))
    else:
        search = load_search(name)
        place = place_of(search)
        if "://" not in place and not Path(place).exists():
            raise UserError(f"no study of '{search.name}' is in {place}: begin it by bench search {name}")
        storage = open_storage(place)
    names = study_names(storage, search.name if search else name)
    if not names:
        raise UserError(f"no study of '{search.name if search else name}' has begun.")
    attrs = [storage.get_study_user_attrs(storage.get_study_id_from_name(study)) for study in names]
    search = search or replace_name(parse_search(attrs[0]["source"], attrs[0]["file"]), name)
    found = []
    for method in search.methods:
        if search.study_name(method.label) in names:
            study = Study(
                storage, search.study_name(method.label), higher=[o.higher for o in search.objectives],
                sampler=search.sampler, pruner=search.pruner, epochs=1,
            )  # fmt: skip
            found.append(Tuned(method, study.rows(), study.best(), None, 0.0))
    return search, found


def replace_name(search: "Search", name: str) -> "Search":
    return replace(search, grid=replace(search.grid, name=name))


def print_best(name: str, *, method: str | None, trial: int | None) -> int:
    """`bench search best`: the winner as a grid, on standard output."""
    from bench.search.report import told_of
    from bench.search.winner import fragment, tuned

    search, found = _found(name)
    if method is not None:
        labels = [one.method.label for one in found]
        found = [one for one in found if one.method.label == method]
        if not found:
            raise UserError(f"'{name}' tunes no method '{method}'.{did_you_mean(method, labels)} {_there_are(labels)}")
    if trial is not None:
        found = [_only(one, trial) for one in found]
    lacking = [one.method.label for one in found if not one.best]
    if lacking:
        raise UserError(f"no trial of {', '.join(lacking)} is complete yet: there is no winner.")
    picks = [pick for one in found for pick in tuned(one.method, one.best)]
    told = {k: v for one in found for k, v in told_of(search, one, tuned(one.method, one.best)).items()}
    print(fragment(search, picks, told), end="")
    return 0


def _there_are(labels: Sequence[str]) -> str:
    return f"There are: {', '.join(labels)}."


def _only(one: "Tuned", trial: int) -> "Tuned":
    rows = [row for row in one.rows if row.number == trial and row.state == "complete"]
    if not rows:
        raise UserError(f"{one.method.label} has no complete trial {trial}.")
    return replace(one, best=rows)


def show_search(name: str, *, as_json: bool) -> int:
    """`bench search show`: how far a search is, and its best trials."""
    from bench.search.loop import Ended

    search, found = _found(name)
    if as_json:
        print(json.dumps(_as_json(search, Ended(found), []), indent=2))
    else:
        from bench.cli.show import print_trials

        print_trials(search, found)
    return 0


def serve_dashboard(name: str, port: int) -> int:
    """`bench search --dashboard`: optuna-dashboard on the search's storage, on loopback until Ctrl-C."""
    from bench.search.loop import place_of

    if find_spec("optuna_dashboard") is None:
        raise UserError("the dashboard is not installed: pip install 'robult-bench[dashboard]'")
    search = _asked(name)
    place = place_of(search)
    if "://" not in place and not Path(place).exists():
        raise UserError(f"no study of '{search.name}' is in {place}: begin it by bench search {name}")
    print(f"Optuna dashboard on {place.rpartition('@')[2]}: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    program = Path(sys.executable).with_name("optuna-dashboard")
    try:
        return subprocess.call([str(program), place, "--host", "127.0.0.1", "--port", str(port)])
    except KeyboardInterrupt:
        return 0
