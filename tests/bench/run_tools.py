"""Starting `bench` as a user does, and reading what it left in the store."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
ODD = "tests.bench.odd_methods"


def environment() -> dict[str, str]:
    """The environment of a user, with the test methods importable."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "BENCH_"))}
    return env | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def start(*words: str, cwd: Path) -> "subprocess.Popen[str]":
    """`bench WORDS`, in a session of its own so that signals reach only it."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *words],
        cwd=cwd,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_hear_interrupts,
    )


def _hear_interrupts() -> None:
    """A test run started in the background, or under nohup, ignores them, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def bench(*words: str, cwd: Path, timeout: float = 240) -> "subprocess.CompletedProcess[str]":
    """`bench WORDS` to its end."""
    process = start(*words, cwd=cwd)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def write_grid(folder: Path, text: str, name: str = "grid.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def query(folder: Path, sql: str) -> list[tuple[object, ...]]:
    """Rows of the folder's tracking store, read without MLflow; none while there is no store."""
    file = folder / "mlflow.db"
    if not file.exists():
        return []
    with sqlite3.connect(file, timeout=20) as database:
        return database.execute(sql).fetchall()  # the store appears whole, never without its tables


CELLS = """
SELECT id.value, run.status, metric.key, metric.value, metric.is_nan FROM runs run
JOIN tags id ON id.run_uuid = run.run_uuid AND id.key = 'cell_id'
JOIN latest_metrics metric ON metric.run_uuid = run.run_uuid
WHERE run.lifecycle_stage = 'active'
"""


def cell_metrics(folder: Path) -> dict[tuple[str, str], float | None]:
    """(cell id, metric) -> value of every finished cell; a cell that is there twice fails the test."""
    rows = [row for row in query(folder, CELLS) if row[1] == "FINISHED"]
    found = {(str(cell), str(key)): None if nan else float(str(value)) for cell, _, key, value, nan in rows}
    assert len(found) == len(rows), "a cell has results twice"
    return found


def finished_cells(folder: Path) -> set[str]:
    """Ids of the cells the store holds as finished; one that is there twice fails the test."""
    rows = query(
        folder,
        "SELECT tags.value FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'cell_id' "
        "WHERE runs.lifecycle_stage = 'active' AND runs.status = 'FINISHED'",
    )
    cells = [str(cell) for (cell,) in rows]
    assert len(set(cells)) == len(cells), "a cell is there twice"
    return set(cells)


def statuses(folder: Path, stage: str) -> list[str]:
    """MLflow statuses of all active runs of a stage."""
    rows = query(
        folder,
        "SELECT runs.status FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'stage' "
        f"WHERE tags.value = '{stage}' AND runs.lifecycle_stage = 'active'",
    )
    return sorted(str(status) for (status,) in rows)


def descendants(pid: int) -> list[psutil.Process]:
    """All processes a process has started, and they in turn."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def workers(pid: int) -> list[psutil.Process]:
    """The worker processes of a `bench run`: the children of its fork server."""
    found = []
    for process in descendants(pid):
        try:
            forked = "forkserver" in " ".join(process.cmdline())  # no program that an import runs for a moment
            if forked and process.children() == [] and process.ppid() != pid:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found
