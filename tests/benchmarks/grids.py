"""Items b and c, start-up and planning: whole commands, against processes without scheduler and tracking.

Baselines, measured in the same run: an empty Python for start-up, the bare training loops (same trainings, same
processes, no scheduler, no tracking) for overhead, one slot for two.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from bench.grid.file import load_grid
from bench.grid.grid import Grid
from bench.grid.plan import make_plan
from bench.running.runner import plan_digest
from bench.tracking import Store, record_of
from tests.bench.run_tools import bench, query, start, write_grid
from tests.benchmarks.measure import Row, at_least, at_most

SHORT = """
name: short
methods: [robult, gmc, unimodal, constant]
datasets: [digits, synthetic]
label_ratios: [0.05, 0.5]
seeds: 4
train: {epochs: 10}
"""

LEAST = """
name: least
methods: [gmc]
datasets: [digits]
label_ratios: [0.5]
seeds: 1
train: {epochs: 1}
"""

LARGE = """
name: large
methods: [{robult: {tau: [0.1, 0.2, 0.3, 0.4, 0.5]}}, {gmc: {tau: [0.1, 0.2, 0.3, 0.4, 0.5]}}]
datasets: [synthetic, {synthetic: {redundancy: 2, label: more}}]
label_ratios: [0.05, 0.1, 0.2, 0.5, 1.0]
seeds: 1430
"""

FINISHED = """
name: finished
methods: [constant]
datasets: [synthetic: {n_modalities: 6, redundancy: 1, uniqueness: 0, synergy: 0}]
label_ratios: [1.0]
seeds: 160
"""

LONGEST_S = 1800
"""Seconds after which a run counts as hung."""
PAIRS = 2
"""Paired runs of whole commands."""


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


# ---- start-up ---------------------------------------------------------------------------------------------


def startup() -> Iterator[Row]:
    """startup: an answer from the command line, against an empty Python."""

    def python() -> float:
        return timed(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))

    def help_() -> float:
        words = [sys.executable, "-m", "bench", "--help"]
        return timed(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL))

    pairs = [(help_(), python()) for _ in range(9)]
    took, empty = (statistics.median(times) for times in zip(*pairs, strict=True))
    yield Row("startup", "bench --help", took, "s", *at_most(took, 0.4, "s"), f"an empty Python: {empty:.2f} s")


def large_grid() -> Iterator[Row]:
    """plan: 1,000,000 cells read, checked and described, imports included."""
    code = (
        "import sys, time; t = time.perf_counter();"
        "from bench.grid.file import load_grid; from bench.grid.plan import make_plan, describe;"
        "p = make_plan(load_grid(sys.argv[1])); describe(p, frozenset());"
        "t = time.perf_counter() - t; from tests.benchmarks.peak import peak_mib; print(t, peak_mib(), p.n_cells)"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = write_grid(Path(folder), LARGE)
        out = [
            subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True).stdout
            for _ in range(3)
        ]
    figures = [tuple(map(float, text.split())) for text in out]
    seconds, mib, cells = (statistics.median(values) for values in zip(*figures, strict=True))
    yield Row("plan", f"validate and plan {cells:,.0f} cells", seconds, "s", *at_most(seconds, 10, "s"))
    yield Row("plan", "  memory", mib, "MiB", *at_most(mib, 1024, "MiB"))


def finished_grid() -> Iterator[Row]:
    """finished: `bench run` where nothing is left to do, against an empty Python."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_cells = _finish(folder, load_grid(str(write_grid(folder, FINISHED))))
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            done = bench("run", "grid.yaml", cwd=folder)
            seconds.append(time.perf_counter() - started)
            assert "nothing to do" in done.stderr, done.stderr
    took = statistics.median(seconds)
    yield Row("finished", f"bench run of {n_cells:,} finished cells", took, "s", *at_most(took, 3, "s"))


def _finish(folder: Path, grid: Grid) -> int:
    """Write made-up results of a whole grid into a new store; returns its number of cells."""
    plan, scores = make_plan(grid), {"last": {"acc": 0.5}, "best": {"acc": 0.5}}
    store = Store(f"sqlite:///{folder / 'mlflow.db'}", grid.name)
    run = store.open_grid(plan_digest(plan), {}, {}, 1)
    for training in plan.trainings:
        record = record_of(training, ())
        begun, _ = store.begin(record, run, 1)
        outcome = {
            "record": record, "status": "finished", "curves": [], "best_epoch": 0, "cost": {}, "ended_ms": 2,
            "cells": dict.fromkeys(training.conditions, scores),
        }  # fmt: skip
        store.write(outcome, run, begun, fresh=True)
    store.close_run(run, "FINISHED")
    return plan.n_cells


# ---- running ----------------------------------------------------------------------------------------------


def bare_seconds(grid: str, n_parts: int) -> float:
    """Wall time of the bare loops of a grid in `n_parts` processes, from the first step to the last, shared evenly.

    The mean end, not the last: how well a fixed deal of trainings happens to balance is no merit of a scheduler.
    """
    words = [sys.executable, "-m", "tests.benchmarks.bare", grid]
    processes = [
        subprocess.Popen([*words, str(part), str(n_parts)], stdout=subprocess.PIPE, text=True, env=one_thread())
        for part in range(n_parts)
    ]
    told = [process.communicate()[0].split() for process in processes]
    return statistics.mean(float(end) - float(start) for start, end in told)


def one_thread() -> dict[str, str]:
    return dict(os.environ) | {"OMP_NUM_THREADS": "1"}


class Run(NamedTuple):
    """Seconds of one `bench run` in an empty folder."""

    whole: float
    first: float
    """Until its first epoch was logged."""
    own: float
    """Of CPU, in the process that schedules and writes to MLflow."""

    @property
    def rest(self) -> float:
        return self.whole - self.first


def timed_run(grid: str, **executor: int) -> Run:
    """Run a grid.

    Args:
        executor: its settings, such as `slots`, for a grid that is a file.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if executor:
            listed = ", ".join(f"{key}: {value}" for key, value in executor.items())
            grid = str(write_grid(folder, Path(grid).read_text() + f"executor: {{devices: cpu, {listed}}}\n"))
        started = time.time()
        running = start("run", grid, cwd=folder)
        own = 0.0
        while running.poll() is None:
            assert time.time() - started < LONGEST_S, f"{grid} did not end within {LONGEST_S} s"
            with contextlib.suppress(psutil.Error):
                own = max(own, sum(psutil.Process(running.pid).cpu_times()[:2]))
            time.sleep(0.1)
        ended = time.time()
        assert running.returncode == 0, running.stderr.read() if running.stderr else ""
        first = float(str(query(folder, "SELECT MIN(timestamp) FROM metrics WHERE key = 'train/loss'")[0][0])) / 1000
    return Run(ended - started, first - started, own)


def overhead() -> Iterator[Row]:
    """c: what scheduling and tracking add to the bare training loops of the quickstart."""
    runs, bare, added, start_up = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        least = str(write_grid(Path(folder), LEAST))
        for _ in range(PAIRS):
            bare.append(bare_seconds("quickstart", 2))
            runs.append(timed_run("quickstart"))
            added.append(runs[-1].rest / bare[-1] - 1)
            start_up.append(timed_run(least, slots=2).own)
    whole, first, own = (statistics.median(values) for values in zip(*runs, strict=True))
    percent, once = 100 * statistics.median(added), statistics.median(start_up)
    told = f"the bare loops of the same trainings in two processes {statistics.median(bare):.0f} s"
    yield Row("c", "scheduling and tracking of the quickstart add", percent, "%", *at_most(percent, 3, "%"), told)
    share = 100 * (own - once) / (2 * whole)
    told = (
        f"{own:.1f} s of CPU in two slots' {2 * whole:.0f} s, of which {once:.1f} s are spent on a single training too"
    )
    yield Row("c", "  as a share of CPU, besides start-up", share, "%", *at_most(share, 3, "%"), told)
    yield Row("c", "bench run quickstart, whole command", whole, "s", *at_most(whole, 120, "s"))
    yield Row("c", "from the command to the end of the first epoch", first, "s", *at_most(first, 6, "s"))


def slots() -> Iterator[Row]:
    """b: trainings an hour with one and two slots, stacks on and off, from the first epoch on."""
    with tempfile.TemporaryDirectory() as folder:
        grid = str(write_grid(Path(folder), SHORT))
        ways = ({"slots": 1, "stack": 1}, {"slots": 2, "stack": 1}, {"slots": 1, "stack": 8}, {"slots": 2, "stack": 8})
        runs = [[timed_run(grid, **way).rest for way in ways] for _ in range(PAIRS)]
    one, two, one_stacked, two_stacked = (statistics.median(times) for times in zip(*runs, strict=True))
    told = f"{one:.1f} s, {two:.1f} s"
    yield Row("b", "throughput of two slots against one", one / two, "x", *at_least(one / two, 1.8), told)
    told = f"{one:.1f} s, {one_stacked:.1f} s; two slots {two:.1f} s, {two_stacked:.1f} s"
    yield Row("b", "throughput with stacks of 8 against without, one slot", one / one_stacked, "x", told=told)
    yield Row("b", "  two slots", two / two_stacked, "x")
