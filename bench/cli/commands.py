"""What the commands of the command line do, once the heavy imports are paid for."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.cli.tell import tell
from bench.tracking import Glance, Reader, check_store, resolve_uri, sqlite_path
from bench.tracking.timings import timings
from datasets.errors import UserError, did_you_mean, without_secrets

if TYPE_CHECKING:
    from bench.grid.grid import Executor, Grid
    from bench.grid.plan import Plan, Training
    from bench.scheduling.cost_model import CostModel
    from bench.scheduling.simulate import Machine, Simulated

# ---- bench run --------------------------------------------------------------------------------------------


def run_grid(name: str, *, fail_fast: bool, on: str | None = None) -> int:
    """`bench run`: exit code 0 when everything is finished, 1 when a training failed, 130 when interrupted."""
    from bench.grid.file import Collection, load_asked

    asked = load_asked(name)
    if isinstance(asked, Collection):
        return _run_collection(asked.grids, fail_fast=fail_fast, on=on)
    return _run(name, _plan(name, asked, on), fail_fast=fail_fast, on=on)


def _run_collection(grids: tuple[str, ...], *, fail_fast: bool, on: str | None) -> int:
    """One grid after the other, whatever becomes of each; 2 when none could be run."""
    from bench.grid.file import load_grid

    codes: dict[str, int] = {}
    for number, name in enumerate(grids, 1):
        tell(f"[{number}/{len(grids)}] {name}")
        try:
            codes[name] = _run(name, _plan(name, load_grid(name), on), fail_fast=fail_fast, on=on)
        except UserError as error:
            tell(str(error))
            codes[name] = error.exit_code
        if codes[name] == 130:
            return 130
        if codes[name] and fail_fast:
            break
    if failed := [name for name, code in codes.items() if code]:
        tell(f"{len(failed)} of {len(grids)} grids are not finished: {', '.join(failed)}")
    return 0 if not failed else 2 if set(codes.values()) == {2} else 1


def _plan(name: str, grid: "Grid", on: str | None) -> "Plan":
    """The grid's plan, or that of the grid on a stand-in for its data.

    Raises:
        UserError: it cannot be planned; where its data are missing, what is missing and how to go on without.
    """
    from bench.grid.plan import make_plan
    from bench.grid.problems import GridError

    if on is not None:
        from bench.grid.stand_in import stand_in

        grid, changed = stand_in(grid, on)
        tell(f"{name}: {changed}")
    try:
        return make_plan(grid)
    except GridError as error:
        if on is None and any(problem.path.startswith("datasets[") for problem in error.problems):
            raise UserError(f"{error}\nTo try the grid without these data: bench plan {name} --on synthetic") from error
        raise


def _run(name: str, plan: "Plan", *, fail_fast: bool, on: str | None) -> int:
    from bench.running.progress import make_display, seconds
    from bench.running.runner import Runner

    stop_when_told()
    again = f"bench run {name}" + (f" --on {on}" if on else "")
    for skip in plan.skipped:
        tell(f"impossible: {skip.method} on {skip.dataset}: {skip.reason}")
    for warning in plan.warnings:
        tell(f"warning: {warning}")
    display = make_display()
    runner = Runner(plan, display, fail_fast=fail_fast)
    try:
        summary = runner.run()
    finally:
        display.stop()
    n_cells = sum(len(runner.trainings[i].conditions) for i in summary.finished)
    if summary.interrupted:
        tell(
            f"stopped: {len(summary.finished)} trainings finished, {len(summary.killed)} cut short. "
            f"The same command goes on: {again}"
        )
        return 130
    if not summary.saved:
        why = summary.why_unsaved or "the tracking store did not take everything."
        tell(f"{why} Finished results wait in {runner.spool.folder}; run the same command again.")
    if summary.failed:
        _tell_failures(summary.failed, again)
        return 1
    if summary.finished or summary.elsewhere:
        tell(
            f"{len(summary.finished)} trainings, {n_cells} cells in {seconds(summary.seconds)}. "
            f"Next: bench report {plan.grid.name}, or bench ui"
        )
    elif summary.saved:
        tell(f"nothing to do: all {summary.n_trainings} trainings are finished. See: bench report {plan.grid.name}")
    return 0 if summary.saved else 1


def stop_when_told() -> None:
    """Take SIGTERM, and the end of the terminal where that is not ignored (nohup), for a Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _tell_failures(failed: dict[str, Any], again: str) -> None:
    """A table of reasons: one line a training, grouped by reason."""
    from bench.running.progress import name_of

    reasons: dict[str, list[str]] = {}
    for training, reason in failed.values():
        reasons.setdefault(reason, []).append(name_of(training))
    tell(f"{len(failed)} trainings failed; the others are finished. They are tried again by: {again}")
    for reason, names in reasons.items():
        tell(f"  {reason}")
        for training in names[:5]:
            tell(f"    {training}")
        if len(names) > 5:
            tell(f"    ... and {len(names) - 5} more")


# ---- bench plan -------------------------------------------------------------------------------------------


def show_plan(name: str, *, as_json: bool, on: str | None = None, simulated: str | None = None) -> int:
    """`bench plan`: what a run would do, without doing it; on other devices where some are simulated."""
    from bench.grid.file import Collection, load_asked
    from bench.grid.plan import describe
    from bench.scheduling.cost_model import CostModel
    from bench.scheduling.estimate import estimate
    from bench.scheduling.simulate import parse_machine

    machine = None if simulated is None else parse_machine(simulated)
    asked = load_asked(name)
    if isinstance(asked, Collection):
        return _show_collection(name, asked.grids, as_json=as_json, on=on, machine=machine)
    plan, costs = _plan(name, asked, on), CostModel()
    uri = plan.grid.tracking.uri
    check_store(uri)
    finished = _finished_cells(plan, costs)
    summary = describe(plan, finished)
    remaining = plan.remaining(finished)
    cost = estimate(remaining, plan.grid.executor, costs)
    simulation = _simulate(remaining, machine, plan.grid.executor, costs)
    if as_json:
        print(json.dumps({**summary.to_json(), "estimate": vars(cost), **_simulation_json(simulation)}, indent=2))
        return 0
    from bench.cli.show import print_plan

    print_plan(plan, summary, cost)
    _show_simulation(simulation)
    return 0


def _simulate(
    remaining: "list[Training]", machine: "Machine | None", executor: "Executor", costs: "CostModel"
) -> "Simulated | None":
    """The run on imagined devices, where any are asked for and anything is left to train."""
    from bench.scheduling.simulate import Simulated, simulate

    if machine is None or not remaining:
        return None
    told = simulate(remaining, machine, costs, stack=executor.stack)
    return Simulated(told, sum(costs.seconds(training, machine.devices[0]) for training in remaining), costs)


def _simulation_json(simulation: "Simulated | None") -> dict[str, Any]:
    return {} if simulation is None else {"simulation": simulation.to_json()}


def _show_simulation(simulation: "Simulated | None") -> None:
    if simulation is not None:
        from bench.cli.show_simulation import print_simulation

        print_simulation(simulation)


def _show_collection(
    name: str, grids: tuple[str, ...], *, as_json: bool, on: str | None, machine: "Machine | None"
) -> int:
    """A line a grid; what several share is counted where it is first asked for. Exit code 2 if one is refused."""
    from bench.grid.file import load_grid
    from bench.grid.grid import Executor
    from bench.grid.problems import GridError
    from bench.scheduling.cost_model import CostModel
    from bench.scheduling.estimate import estimate

    plans: dict[str, Plan] = {}
    refused: dict[str, list[str]] = {}
    for grid in grids:
        try:
            plans[grid] = _plan(grid, load_grid(grid), on)
        except UserError as error:
            cause = error.__cause__ if isinstance(error.__cause__, GridError) else error
            refused[grid] = [p.text for p in cause.problems] if isinstance(cause, GridError) else [str(cause)]
    costs = CostModel()
    rows, remaining = _collection_rows(plans, costs)
    executor = next((plan.grid.executor for plan in plans.values()), Executor())
    cost = estimate(remaining, executor, costs) if plans else None
    simulation = _simulate(remaining, machine, executor, costs)
    if as_json:
        told = {"name": name, "grids": rows, "refused": refused, "estimate": vars(cost) if cost else None}
        print(json.dumps(told | _simulation_json(simulation), indent=2))
    elif rows:
        from bench.cli.show import print_collection

        print_collection(rows, cost)
        _show_simulation(simulation)
    if refused and not as_json:
        tell(f"\n{len(refused)} of {len(grids)} grids cannot be planned: {', '.join(refused)}")
        for text in dict.fromkeys(text for texts in refused.values() for text in texts):
            tell(f"  {text}")
        if on is None:
            tell(f"To try the grids without these data: bench plan {name} --on synthetic")
    return 2 if refused else 0


def _collection_rows(plans: "dict[str, Plan]", costs: "CostModel") -> "tuple[list[dict[str, Any]], list[Training]]":
    """What each grid adds to those before it, and the trainings that are left to do for all of them."""
    rows, left = [], []
    asked: dict[tuple[str, str], set[str]] = {}
    for grid, plan in plans.items():
        place = (plan.grid.tracking.uri, plan.grid.name)
        check_store(place[0])
        before, finished = asked.setdefault(place, set()), _finished_cells(plan, costs)
        own = plan.remaining(before)
        cells = [training.cell_id(condition) for training in own for condition in training.conditions]
        rows.append({
            "grid": grid, "experiment": plan.grid.name, "trainings": len(own), "cells": len(cells),
            "cells_done": sum(cell in finished for cell in cells), "shared": len(plan.trainings) - len(own),
        })  # fmt: skip
        left += plan.remaining(before | finished)
        before.update(cell for training in plan.trainings for cell in training.cells.values())
    return rows, left


def _finished_cells(plan: "Plan", costs: "CostModel") -> frozenset[str]:
    """Ids of a plan's finished cells; those of a training that lacks the arrays `save` asks for are not.

    What the finished trainings took is told to `costs`.
    """
    store = _store_of(plan.grid)
    if store is None:
        return frozenset()
    costs.recall(timings(store), plan.trainings)
    known = store.known()
    return frozenset(
        cell
        for training in plan.trainings
        if (seen := known.get(training.id)) is not None and seen.saved.issuperset(training.save.words)
        for condition, cell in training.cells.items()
        if condition in seen.conditions
    )


def _store_of(grid: "Grid") -> Glance | Reader | None:
    """The experiment of a grid where there is one; what lies in a file is read without MLflow."""
    file = sqlite_path(grid.tracking.uri)
    if file is not None:
        return Glance(file, grid.name) if file.exists() else None
    if grid.name not in Reader.experiments(grid.tracking.uri):
        return None
    return Reader(grid.tracking.uri, grid.name, create=False)


# ---- bench compare ----------------------------------------------------------------------------------------


def compare_stored(a: str, b: str, checkpoint: str | None, tracking_uri: str | None, *, as_json: bool) -> int:
    """`bench compare`: two experiments of one store, on one screen; exit code 0 whether they differ or not."""
    from analysis.comparison import Experiment, compare_experiments

    if a == b:
        raise UserError(f"'{a}' was given twice: name two experiments.")
    uri = resolve_uri(tracking_uri)
    check_store(uri)
    file = sqlite_path(uri)
    if file is not None and not file.exists():
        raise UserError(f"there is no tracking store at {file}: name one with --tracking-uri.")
    known = Reader.experiments(uri)
    for name in (a, b):
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"no experiment '{name}' in {uri}.{hint} There are: {', '.join(known) or 'none'}.")
    stores = [Reader(uri, name, create=False) for name in (a, b)]
    sides = [Experiment(store.name, store.results(), store.settings(), store.versions()) for store in stores]
    for note in (note for store in stores for note in store.left_out.told):
        tell(f"note: {note}")
    found = compare_experiments(*sides, checkpoint=checkpoint)
    if as_json:
        print(found.to_json())
        return 0
    from bench.cli.show import print_comparison

    print_comparison(found)
    return 0


# ---- bench reproduce --------------------------------------------------------------------------------------


def reproduce_run(run_id: str, device: str, tracking_uri: str | None, *, as_json: bool) -> int:
    """`bench reproduce`: exit code 0 when the same numbers came out, to the last bit or to rounding, else 1."""
    from bench.reproduce import reproduce

    found = reproduce(resolve_uri(tracking_uri), run_id, device)
    print(found.to_json() if as_json else found)
    return int(found.verdict == "different")


# ---- bench ui ---------------------------------------------------------------------------------------------


def serve_ui(tracking_uri: str | None, port: int) -> int:
    """`bench ui`: run `mlflow ui` on loopback until Ctrl-C."""
    uri = resolve_uri(tracking_uri)
    if uri.startswith(("http://", "https://")):
        print(f"The tracking store is a server already: open {without_secrets(uri)}")
        return 0
    check_store(uri)
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"port {port} is taken on this machine: choose another with --port.")
    file = sqlite_path(uri)
    if file is not None and not file.exists():
        tell(f"{file} does not exist yet: the UI will be empty until the first run.")
    print(f"MLflow UI on {without_secrets(uri)}: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    words = ["ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # Not as a word of the command: everybody on the machine can read those.
    env = {"MLFLOW_DISABLE_TELEMETRY": "true", **os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    try:
        return subprocess.call([sys.executable, "-m", "mlflow", *words], env=env)
    except KeyboardInterrupt:
        return 0


# ---- bench check ------------------------------------------------------------------------------------------


def check_method(name: str, *, as_json: bool) -> int:
    """`bench check`: every rule of the contract, one line each."""
    from bench.contract import run_contract
    from methods.registry import METHODS

    results = run_contract(METHODS.get(name))
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        for result in results:
            print(f"{'ok    ' if result.ok else 'BROKEN'}  {result.name}{'' if result.ok else f': {result.message}'}")
    broken = sum(not result.ok for result in results)
    tell(f"{name}: {len(results) - broken} of {len(results)} rules hold.")
    return int(broken > 0)
