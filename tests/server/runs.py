"""Grids against a server, as a user starts them, and what the server's database has afterwards."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.bench.run_tools import CELLS, ODD, environment
from tests.server.process import wait_until
from tests.server.services import LOGIN, Server


def grid(name: str, *, seeds: int, pause_s: float = 0.02, uri: str | None = None) -> str:
    """Trainings of a second or two each, three cells a training."""
    text = f"""
name: {name}
methods: [{{"{ODD}:Linear": {{pause_s: {pause_s}, label: slow}}}}]
datasets: [digits]
label_ratios: [0.5]
seeds: {seeds}
train: {{epochs: 2}}
"""
    return text + (f"tracking: {{uri: '{uri}'}}\n" if uri else "")


def start(*words: str, cwd: Path, login: dict[str, str] | None = None, **more: str) -> "subprocess.Popen[str]":
    """`bench WORDS` with a login in the environment; `login={}`: without one."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *words],
        cwd=cwd,
        env=environment() | (LOGIN if login is None else login) | more,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def end(process: "subprocess.Popen[str]", timeout_s: float = 600) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a process; no traceback in either."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert "Traceback" not in out + err, err
    return process.returncode, out, err


def bench(*words: str, cwd: Path, login: dict[str, str] | None = None, **more: str) -> tuple[int, str, str]:
    return end(start(*words, cwd=cwd, login=login, **more))


def cells_of(server: Server, experiment: str) -> dict[tuple[str, str], float | None]:
    """(cell id, metric) -> value of every finished cell of an experiment; one that is there twice fails the test."""
    rows = server.postgres.query(_of(CELLS, experiment))
    done = [row for row in rows if row[1] == "FINISHED"]
    found = {(str(cell), str(key)): None if nan else float(value) for cell, _, key, value, nan in done}
    assert len(found) == len(done), "a cell has results twice"
    return found


def doubled(server: Server, experiment: str) -> list[tuple[object, ...]]:
    """What an experiment has more than once: active runs of a training or cell, and values of a metric at a step."""
    runs = _of(
        "SELECT id.key, id.value, count(*) FROM runs run JOIN tags stage ON stage.run_uuid = run.run_uuid "
        "AND stage.key = 'stage' JOIN tags id ON id.run_uuid = run.run_uuid "
        "AND (stage.value, id.key) IN (('cell', 'cell_id'), ('grid', 'grid_digest'), ('training', 'training_id')) "
        "WHERE run.lifecycle_stage = 'active'",
        experiment,
    )
    values = _of(
        "SELECT m.run_uuid, m.key, m.step FROM metrics m JOIN runs run ON run.run_uuid = m.run_uuid "
        "WHERE run.lifecycle_stage = 'active'",
        experiment,
    )
    return [
        *server.postgres.query(f"{runs} GROUP BY id.key, id.value HAVING count(*) > 1"),
        *server.postgres.query(f"{values} GROUP BY m.run_uuid, m.key, m.step HAVING count(*) > 1"),
    ]


def statuses(server: Server, experiment: str) -> dict[str, set[str]]:
    """Stage -> statuses of its active runs."""
    found: dict[str, set[str]] = {}
    sql = (
        "SELECT stage.value, run.status FROM runs run JOIN tags stage ON stage.run_uuid = run.run_uuid "
        "AND stage.key = 'stage' WHERE run.lifecycle_stage = 'active'"
    )
    for stage, status in server.postgres.query(_of(sql, experiment)):
        found.setdefault(str(stage), set()).add(str(status))
    return found


def wait_for_cells(server: Server, experiment: str, n: int) -> None:
    """Wait until so many results have arrived."""
    wait_until(lambda: len(cells_of(server, experiment)) >= n, 300, f"fewer than {n} results arrive")


def _of(sql: str, experiment: str) -> str:
    """`sql` about the active runs `run`, for one experiment only."""
    return f"{sql} AND run.experiment_id = (SELECT experiment_id FROM experiments WHERE name = '{experiment}')"
