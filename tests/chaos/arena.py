"""Where a grid is run and struck: a folder with its store, what an undisturbed run gives, and what must always hold."""

import contextlib
import fnmatch
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import psutil

from tests.bench.run_tools import bench, cell_metrics, query, start, workers, write_grid

Cells = dict[tuple[str, str], float | None]
"""(cell id, metric) -> value, of finished cells."""


def grid_of(n_seeds: int) -> str:
    """A grid of three methods, short enough that a hundred kills need several."""
    return f"""
name: chaos
methods: [constant, unimodal, gmc]
datasets: [synthetic: {{n_modalities: 2, uniqueness: 1, n_train: 160, n_valid: 32, n_test: 32}}]
label_ratios: [0.5]
seeds: {n_seeds}
train: {{epochs: 2, batch_size: 8}}
"""


GRID, N_CELLS = grid_of(30), 30 * 9
SMALL, N_SMALL = grid_of(12), 12 * 9

DOCUMENTED = (
    "grid.yaml",
    "mlflow.db",
    ".bench/*/claims.lock",
    "mlartifacts/*/artifacts/*",
)
"""Every file that a finished grid may leave."""

CUT_SHORT = (".bench/*/outcomes/*.json", ".bench/*/outcomes/.*.json.*.tmp", "mlflow.db-journal", ".mlflow.db.*.new*")
"""What a killed run may leave besides, until the next run."""

MARK = "BENCH_TEST_ARENA"
"""The environment variable by which every process of an arena is found, whoever its parent is by then."""


class Story:
    """What is done in a test, printed: pytest shows it when the test fails, or at once with `-s`."""

    def __init__(self, seed: int, test: str) -> None:
        self.began = time.monotonic()
        self.tell(f"{test}: repeat with make test-chaos CHAOS_SEED={seed}")

    def tell(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:7.2f} s  {text}", flush=True)


class Arena:
    """One grid in one folder, on a store of its own."""

    def __init__(self, folder: Path, grid: str, truth: Cells, story: Story) -> None:
        self.folder, self.truth, self.story = folder, truth, story
        self.temporary = folder.with_name(f"{folder.name}-tmp")
        self.temporary.mkdir(parents=True)
        write_grid(folder, grid)
        self.environment: dict[str, str] = {}
        """What its runs get besides."""
        self.fork_server_killed = False
        """Whether it was killed: if the scheduler is killed too, nobody is left to remove the folder of its socket."""
        self.kept: Cells = {}
        self.life: subprocess.Popen[str] | None = None

    # ---- runs ---------------------------------------------------------------------------------------------

    def _environment(self) -> AbstractContextManager[object]:
        """What marks the processes of this arena, and where they may put temporary files."""
        marks = {MARK: str(self.folder), "TMPDIR": str(self.temporary), **self.environment}
        return mock.patch.dict(os.environ, marks)

    def start(self) -> "subprocess.Popen[str]":
        """`bench run`, in the background."""
        with self._environment():
            self.life = start("run", "grid.yaml", cwd=self.folder)
        self.story.tell(f"start {self.life.pid}")
        return self.life

    def run(self, timeout: float = 600) -> "subprocess.CompletedProcess[str]":
        """`bench run`, to its end, undisturbed."""
        with self._environment():
            done = bench("run", "grid.yaml", cwd=self.folder, timeout=timeout)
        self.story.tell(f"a run ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        return done

    def end(self, timeout: float = 120) -> str:
        """Wait for the run in the background to end; what it said on stderr."""
        assert self.life is not None
        try:
            _, err = self.life.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.life.pid} or a process of its has not ended: {self.processes()}") from None
        self.story.tell(f"{self.life.pid} ended with {self.life.returncode}: {err.strip()[-300:]}")
        assert "Traceback" not in err, err
        assert "internal error" not in err, err
        return err

    def processes(self) -> list[psutil.Process]:
        """Every living process that a run in this folder has started, orphans too."""
        return processes_of(self.folder)

    def workers(self) -> list[psutil.Process]:
        return workers(self.life.pid) if self.life is not None else []

    # ---- what must always hold ----------------------------------------------------------------------------

    def check_cells(self) -> int:
        """No finished cell is lost, doubled or other than in an undisturbed run; returns how many there are."""
        now = cell_metrics(self.folder)  # fails on a doubled cell
        lost = self.kept.keys() - now.keys()
        assert not lost, f"{len(lost)} finished values are lost: {sorted(lost)[:4]}"
        wrong = {
            key: (value, self.truth.get(key, "no such cell"))
            for key, value in now.items()
            if not self._true(key, value)
        }
        assert not wrong, f"{len(wrong)} values differ from an undisturbed run's: {list(wrong.items())[:4]}"
        cells = {cell for cell, _ in now}
        partial = {key for key in self.truth if key[0] in cells} - now.keys()
        assert not partial, f"{len(partial)} metrics of finished cells are missing: {sorted(partial)[:4]}"
        self.kept = now
        return len(cells)

    def _true(self, key: tuple[str, str], value: float | None) -> bool:
        return key in self.truth and self.truth[key] == value

    def check_no_process(self, timeout_s: float = 10) -> None:
        """Nothing that the run has started is left running."""
        deadline = time.monotonic() + timeout_s
        while left := self.processes():
            assert time.monotonic() < deadline, f"left running: {left}"
            time.sleep(0.05)

    def check_files(self, allowed: tuple[str, ...] = DOCUMENTED) -> None:
        """Nothing lies in the folder, or in the folder for temporary files, that is not documented."""
        names = [str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if not path.is_dir()]
        odd = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)]
        assert not odd, f"left in the folder: {odd}"
        excused = ("torchinductor_", *(["pymp-"] if self.fork_server_killed else []))  # the first is a cache
        left = [path for path in self.temporary.iterdir() if not path.name.startswith(excused)]
        assert not left, f"left in TMPDIR: {left}"

    def check_after_death(self) -> int:
        """All that holds once a scheduler is gone, however it went."""
        self.check_no_process()
        self.check_files(DOCUMENTED + CUT_SHORT)
        return self.check_cells()

    def finish(self, left: tuple[str, ...] = ()) -> int:
        """One more run, undisturbed, finishes what is left and tidies up; returns how many cells were checked.

        Args:
            left: patterns of files that the test itself has put there.
        """
        done = self.run()
        assert done.returncode == 0, done.stderr
        n_cells = self.check_cells()
        assert self.kept == self.truth, f"{len(self.truth) - len(self.kept)} values are missing"
        self.check_no_process()
        self.check_files(DOCUMENTED + left)
        states = query(
            self.folder,
            "SELECT tags.value, runs.status, COUNT(*) FROM runs "
            "JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'stage' "
            "WHERE runs.lifecycle_stage = 'active' GROUP BY 1, 2 ORDER BY 1, 2",
        )
        n_trainings = len({cell[:16] for cell, _ in self.truth})
        expected = [("cell", "FINISHED", n_cells), ("grid", "FINISHED", 1), ("training", "FINISHED", n_trainings)]
        assert states == expected, f"the store holds {states} instead of {expected}"
        for name in ("grid.yaml", "grid.resolved.yaml", "environment.json"):
            assert len(list(self.folder.glob(f"mlartifacts/*/*/artifacts/{name}"))) == 1, f"{name} is not kept"
        return n_cells


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every living process of the arenas in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARK, "")
            if marked.startswith(str(folder)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def undisturbed(grid: str, folder: Path) -> Cells:
    """What a grid gives when nothing disturbs it."""
    write_grid(folder, grid)
    done = bench("run", "grid.yaml", cwd=folder, timeout=600)
    assert done.returncode == 0, done.stderr
    return cell_metrics(folder)


def spooled(folder: Path) -> dict[str, bytes]:
    """The results that wait for the store: name -> content."""
    found = {}
    for path in folder.glob(".bench/*/outcomes/*.json"):
        with contextlib.suppress(FileNotFoundError):  # it was just written
            found[path.name] = path.read_bytes()
    return found


def kill(process: psutil.Process) -> bool:
    """kill -9; False when it was gone already."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def interrupt(life: "subprocess.Popen[str]") -> None:
    os.killpg(life.pid, signal.SIGINT)


def until(condition: Callable[[], object], timeout_s: float = 60) -> bool:
    """Wait for a condition; False when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def shuffled_deck(rng: random.Random, counts: dict[str, int]) -> list[str]:
    """Each word as often as asked, in random order."""
    deck = [word for word, count in counts.items() for _ in range(count)]
    rng.shuffle(deck)
    return deck
