"""`make benchmark`: what the suite adds to the training itself, as ratios of runs made side by side.

Baselines, measured in the same run: an empty Python for start-up, the bare training loops (same trainings, same
processes, no scheduler, no tracking) for overhead, one slot for two. Figures are medians; nothing is asserted here.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.run_tools import bench, query, write_grid

HERE = "python -m tests.benchmarks"

SHORT = """
name: short
methods: [robult, gmc, unimodal, constant]
datasets: [digits, synthetic]
label_ratios: [0.05, 0.5]
seeds: 1
train: {epochs: 40}
"""

LARGE = """
name: large
methods: [{robult: {tau: [0.1, 0.2, 0.3, 0.4, 0.5]}}, {gmc: {tau: [0.1, 0.2, 0.3, 0.4, 0.5]}}]
datasets: [synthetic, {synthetic: {redundancy: 2, label: more}}]
label_ratios: [0.05, 0.1, 0.2, 0.5, 1.0]
seeds: 143
"""


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def median(call: Callable[[], float], times: int) -> float:
    return statistics.median(call() for _ in range(times))


def line(what: str, value: str, target: str = "") -> None:
    print(f"{what:<58} {value:>22}   {target}", flush=True)


# ---- start-up ---------------------------------------------------------------------------------------------


def startup() -> None:
    def python() -> float:
        return timed(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))

    def help_() -> float:
        words = [sys.executable, "-m", "bench", "--help"]
        return timed(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL))

    pairs = [(help_(), python()) for _ in range(9)]
    took, empty = (statistics.median(times) for times in zip(*pairs, strict=True))
    line("bench --help", f"{took:.2f} s", f"under 0.4 s; an empty Python: {empty:.2f} s")


def large_grid() -> None:
    code = (
        "import sys, time, resource; t = time.perf_counter();"
        "from bench.grid_file import load_grid; from bench.plan import make_plan, describe;"
        "p = make_plan(load_grid(sys.argv[1])); describe(p, frozenset());"
        "print(time.perf_counter() - t, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, p.n_cells)"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = write_grid(Path(folder), LARGE)
        out = [
            subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True).stdout
            for _ in range(3)
        ]
    figures = [tuple(map(float, text.split())) for text in out]
    seconds, mib, cells = (statistics.median(values) for values in zip(*figures, strict=True))
    line(
        f"validate and plan {cells:,.0f} cells",
        f"{seconds:.1f} s, {mib:.0f} MiB",
        "under 5 s, 500 MB, imports included",
    )


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


def run_seconds(grid: str, slots: int | None = None) -> tuple[float, float, float]:
    """Seconds of a whole `bench run` in an empty folder, until its first epoch was logged, and from there on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if slots is not None:
            grid = str(write_grid(folder, Path(grid).read_text() + f"executor: {{slots: {slots}}}\n"))
        started = time.time()
        done = bench("run", grid, cwd=folder, timeout=1800)
        ended = time.time()
        assert done.returncode == 0, done.stderr
        first = float(str(query(folder, "SELECT MIN(timestamp) FROM metrics WHERE key = 'train/loss'")[0][0])) / 1000
    return ended - started, first - started, ended - first


def overhead(pairs: int) -> None:
    ratios, walls, firsts = [], [], []
    for _ in range(pairs):
        bare = bare_seconds("quickstart", 2)
        wall, first, rest = run_seconds("quickstart")
        walls.append(wall)
        firsts.append(first)
        ratios.append((rest / bare - 1, wall / bare - 1, bare))
    line("bench run quickstart, whole command", f"{statistics.median(walls):.0f} s", "under 120 s on 2 cores")
    line("from the command to the end of the first epoch", f"{statistics.median(firsts):.1f} s", "first step under 6 s")
    bare = statistics.median(r[2] for r in ratios)
    line("  bare training loops, two processes", f"{bare:.0f} s", "the baseline")
    line("scheduling and tracking add", f"{100 * statistics.median(r[0] for r in ratios):+.1f}%", "under 5%")
    line("  with start-up and the store's creation", f"{100 * statistics.median(r[1] for r in ratios):+.1f}%")


def slots(pairs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        grid = str(write_grid(Path(folder), SHORT))
        times = [(run_seconds(grid, 1), run_seconds(grid, 2)) for _ in range(pairs)]
    whole = statistics.median(one[0] / two[0] for one, two in times)
    training = statistics.median(one[2] / two[2] for one, two in times)
    line("two slots against one, the training part", f"{training:.2f} x", "at least 1.7 x")
    line("  the whole command", f"{whole:.2f} x")


def main() -> None:
    parser = argparse.ArgumentParser(prog=HERE, description=__doc__)
    parser.add_argument("--pairs", type=int, default=3, help="paired runs of each comparison")
    parser.add_argument("only", nargs="*", help="startup, plan, overhead or slots; default: all")
    asked = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "startup": startup,
        "plan": large_grid,
        "overhead": lambda: overhead(asked.pairs),
        "slots": lambda: slots(asked.pairs),
    }
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of paired runs\n")
    for name in asked.only or parts:
        parts[name]()


if __name__ == "__main__":
    main()
