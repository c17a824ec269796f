"""`bench run` from the outside: results, repetition, failures, kills, company."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.bench.run_tools import (
    ODD,
    bench,
    cell_metrics,
    descendants,
    environment,
    finished_cells,
    query,
    start,
    statuses,
    workers,
    write_grid,
)

SMALL = """
name: small
methods: [robult, gmc, unimodal, constant]
datasets: [digits]
label_ratios: [0.05]
seeds: 2
train: {epochs: 2}
"""
N_TRAININGS, N_CELLS = 8, 24


def slow(pause_s: float, n: int = 6) -> str:
    """Trainings that take about 2 epochs x 16 steps x `pause_s` seconds each, whatever the machine."""
    return f"""
name: slow
methods: [{{"{ODD}:Linear": {{pause_s: {pause_s}, label: slow}}}}]
datasets: [digits]
label_ratios: [0.5]
seeds: {n}
train: {{epochs: 2}}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """A folder in which the small grid was run once, on two slots."""
    folder = tmp_path_factory.mktemp("done")
    write_grid(folder, SMALL + "executor: {slots: 2}\n")
    return folder, bench("run", "grid.yaml", cwd=folder)


Done = tuple[Path, "subprocess.CompletedProcess[str]"]


def test_a_grid_runs_to_the_end(done: Done) -> None:
    folder, run = done
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
    assert f"{N_TRAININGS} trainings, {N_CELLS} cells in" in run.stderr
    assert "Next: bench report small, or bench ui" in run.stderr
    assert statuses(folder, "grid") == ["FINISHED"]
    assert statuses(folder, "training") == ["FINISHED"] * N_TRAININGS
    assert len(finished_cells(folder)) == N_CELLS
    assert not list((folder / ".bench/small/outcomes").iterdir())


def test_a_finished_grid_is_not_run_again(done: Done) -> None:
    folder, _ = done
    before = cell_metrics(folder)
    again = bench("run", "grid.yaml", cwd=folder)
    assert again.returncode == 0
    assert f"nothing to do: all {N_TRAININGS} trainings are finished" in again.stderr
    assert cell_metrics(folder) == before
    assert statuses(folder, "grid") == ["FINISHED"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("run_grid('grid.yaml', fail_fast=False)", "nothing to do"),
        ("show_plan('grid.yaml', as_json=False)", "all done"),
    ],
)
def test_a_finished_grid_is_told_without_mlflow(done: Done, call: str, says: str) -> None:
    folder, _ = done
    code = (
        f"import sys; from bench.cli.commands import run_grid, show_plan; {call}; "
        "print({'mlflow', 'torch._dynamo', 'pandas'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True)
    assert says in told.stdout + told.stderr
    assert told.stdout.endswith("set()\n")


def test_another_grid_of_finished_trainings_has_a_run_of_its_own(done: Done, tmp_path: Path) -> None:
    folder, _ = done
    shutil.copy(folder / "mlflow.db", tmp_path)
    write_grid(tmp_path, SMALL.replace("seeds: 2", "seeds: 1"))
    again = bench("run", "grid.yaml", cwd=tmp_path)
    assert "nothing to do" in again.stderr
    assert statuses(tmp_path, "grid") == ["FINISHED", "FINISHED"]


def test_plan_says_what_is_done(done: Done) -> None:
    folder, _ = done
    told = bench("plan", "grid.yaml", cwd=folder)
    assert f"{N_TRAININGS} trainings, {N_CELLS} cells; all done." in told.stdout


def test_results_repeat_bit_for_bit_on_one_slot(done: Done, tmp_path: Path) -> None:
    folder, _ = done
    write_grid(tmp_path, SMALL + "executor: {slots: 1}\n")
    assert bench("run", "grid.yaml", cwd=tmp_path).returncode == 0
    first, second = cell_metrics(folder), cell_metrics(tmp_path)
    assert len(first) == N_CELLS * 6
    assert first == second


def test_the_report_of_a_run(done: Done) -> None:
    folder, _ = done
    told = bench("report", "small", cwd=folder)
    assert told.returncode == 0
    assert "upper+lower" in told.stdout
    assert "robult" in told.stdout
    for name in ("report.md", "report.tex", "results.csv", "figure-digits.png"):
        assert (folder / "reports/small" / name).stat().st_size > 0
    artifacts = list((folder / "mlartifacts").rglob("figure-digits.png"))
    assert artifacts, "the report is not among the grid run's artifacts"


@pytest.mark.slow
def test_more_modalities_train_again_but_rewrite_nothing(tmp_path: Path) -> None:
    """A grid that grows keeps what it has: same cells, same runs, same numbers."""
    narrow = "name: grow\nmethods: [constant]\ndatasets: [digits]\nseeds: 2\nmodalities: {}\n"
    write_grid(tmp_path, narrow.format("[upper]"))
    bench("run", "grid.yaml", cwd=tmp_path)
    before = cell_metrics(tmp_path)
    write_grid(tmp_path, narrow.format("all"))
    assert bench("run", "grid.yaml", cwd=tmp_path).returncode == 0
    after = cell_metrics(tmp_path)
    assert len(finished_cells(tmp_path)) == 6
    assert {key: after[key] for key in before} == before
    assert statuses(tmp_path, "training") == ["FINISHED"] * 2


# ---- failures ---------------------------------------------------------------------------------------------

FAILING = f"""
name: failing
methods:
  - constant
  - "{ODD}:Diverging": {{label: diverging}}
  - "{ODD}:Raising": {{label: raising}}
  - "{ODD}:Dying": {{label: dying}}
datasets: [digits]
seeds: 1
train: {{epochs: 1}}
"""


def test_failures_cost_only_themselves_and_are_tried_again(tmp_path: Path) -> None:
    write_grid(tmp_path, FAILING)
    run = bench("run", "grid.yaml", cwd=tmp_path)
    assert run.returncode == 1
    assert "3 trainings failed; the others are finished." in run.stderr
    assert "loss term 'sup' became nan in epoch 1" in run.stderr
    assert "RuntimeError: shapes cannot be multiplied" in run.stderr
    assert "its worker process was killed (signal 9)" in run.stderr
    assert "diverging on digits, 1 labelled, seed 0" in run.stderr
    assert statuses(tmp_path, "training") == ["FAILED", "FAILED", "FAILED", "FINISHED"]
    assert statuses(tmp_path, "grid") == ["FAILED"]
    traceback = next((tmp_path / "mlartifacts").rglob("traceback.txt")).read_text()
    assert "odd_methods.py" in traceback

    (tmp_path / "survive").touch()
    again = bench("run", "grid.yaml", cwd=tmp_path)
    assert again.returncode == 1
    assert "2 trainings failed" in again.stderr
    assert statuses(tmp_path, "training") == ["FAILED", "FAILED", "FINISHED", "FINISHED"]


@pytest.mark.slow
def test_fail_fast_stops_at_the_first_failure(tmp_path: Path) -> None:
    grid = slow(0.01).replace("methods: [", f'methods: [{{"{ODD}:Raising": {{label: raising}}}}, ')
    write_grid(tmp_path, grid + "executor: {slots: 1}\n")
    run = bench("run", "--fail-fast", "grid.yaml", cwd=tmp_path)
    assert run.returncode == 1
    assert "RuntimeError: shapes cannot be multiplied" in run.stderr
    assert len(finished_cells(tmp_path)) < 18


@pytest.mark.slow
def test_a_training_over_its_time_limit_is_given_up(tmp_path: Path) -> None:
    write_grid(tmp_path, slow(30.0, n=1) + "executor: {timeout_s: 1}\n")
    run = bench("run", "grid.yaml", cwd=tmp_path)
    assert run.returncode == 1
    assert "took longer than executor.timeout_s = 1 s" in run.stderr


# ---- kills ------------------------------------------------------------------------------------------------


def until(condition: "object", timeout_s: float = 60) -> None:
    """Wait for a condition; fail when it does not come."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def test_ctrl_c_stops_the_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    write_grid(tmp_path, slow(0.15))
    process = start("run", "grid.yaml", cwd=tmp_path)
    until(lambda: len(finished_cells(tmp_path)) >= 3)
    family = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "cut short. The same command goes on: bench run grid.yaml" in err
    assert "KILLED" in statuses(tmp_path, "training")
    assert "RUNNING" not in statuses(tmp_path, "training")
    assert statuses(tmp_path, "grid") == ["KILLED"]
    psutil.wait_procs(family, timeout=5)
    assert not [p for p in family if p.is_running()]

    kept = cell_metrics(tmp_path)
    (tmp_path / "hurry").touch()
    assert bench("run", "grid.yaml", cwd=tmp_path).returncode == 0
    after = cell_metrics(tmp_path)
    assert len(finished_cells(tmp_path)) == 18
    assert {key: after[key] for key in kept} == kept
    assert statuses(tmp_path, "training") == ["FINISHED"] * 6


def test_kill_9_of_the_scheduler_leaves_no_orphan_and_loses_nothing(tmp_path: Path) -> None:
    write_grid(tmp_path, slow(0.02))
    process = start("run", "grid.yaml", cwd=tmp_path)
    until(lambda: len(finished_cells(tmp_path)) >= 3)
    family = descendants(process.pid)
    kept = cell_metrics(tmp_path)
    process.kill()
    process.communicate()
    psutil.wait_procs(family, timeout=10)
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    assert bench("run", "grid.yaml", cwd=tmp_path).returncode == 0
    after = cell_metrics(tmp_path)
    assert len(finished_cells(tmp_path)) == 18
    assert {key: after[key] for key in kept} == kept
    assert statuses(tmp_path, "training") == ["FINISHED"] * 6


def test_kill_9_of_a_worker_costs_only_its_training(tmp_path: Path) -> None:
    write_grid(tmp_path, slow(0.05, n=4))
    process = start("run", "grid.yaml", cwd=tmp_path)
    until(lambda: len(workers(process.pid)) >= 1)
    time.sleep(0.5)
    workers(process.pid)[0].kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode in (0, 1), err
    if process.returncode == 1:
        assert "1 trainings failed" in err
        assert len(finished_cells(tmp_path)) == 9
    assert bench("run", "grid.yaml", cwd=tmp_path).returncode == 0
    assert len(finished_cells(tmp_path)) == 12


# ---- company ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_schedulers_share_one_grid(tmp_path: Path) -> None:
    write_grid(tmp_path, slow(0.02, n=8) + "executor: {slots: 1}\n")
    both = [start("run", "grid.yaml", cwd=tmp_path) for _ in range(2)]
    told = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert len(finished_cells(tmp_path)) == 24
    assert statuses(tmp_path, "training") == ["FINISHED"] * 8
    assert len(statuses(tmp_path, "grid")) == 1
    shares = [int(err.splitlines()[-1].split(" trainings")[0]) for _, err in told if " trainings, " in err]
    assert sum(shares) == 8, told


# ---- provenance -------------------------------------------------------------------------------------------


def test_a_run_says_where_it_comes_from(done: Done) -> None:
    folder, _ = done
    files = {path.name for path in (folder / "mlartifacts").rglob("*") if path.is_file()}
    assert {"grid.yaml", "grid.resolved.yaml", "environment.json"} <= files
    keys = {str(key) for (key,) in query(folder, "SELECT DISTINCT key FROM tags")}
    assert {"method", "dataset", "label_ratio", "modalities", "seed", "stage", "cell_id", "training_id"} <= keys
    params = {str(key) for (key,) in query(folder, "SELECT DISTINCT key FROM params")}
    assert {"method.tau", "train.lr"} <= params
    metrics = {str(key) for (key,) in query(folder, "SELECT DISTINCT key FROM metrics")}
    assert {"train/loss", "valid/acc", "cost/wall_s", "cost/parameters", "cost/peak_mib", "last/acc"} <= metrics
    assert len(metrics) < 60
