"""Twenty kills at random moments: of a worker, of the scheduler, of both. No finished cell is lost, none is doubled."""

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.bench.run_tools import ODD, bench, cell_metrics, descendants, finished_cells, start, workers, write_grid

N_KILLS = 20
N_TRAININGS = 60

GRID = f"""
name: chaos
methods: [{{"{ODD}:Linear": {{pause_s: 0.02, label: slow}}}}]
datasets: [digits]
label_ratios: [0.5]
seeds: {N_TRAININGS}
train: {{epochs: 2}}
"""


def strike(process: "psutil.Process", victim: str, rng: random.Random) -> None:
    """kill -9 a worker, the scheduler, or both."""
    targets = workers(process.pid)[:1] if victim in ("worker", "both") else []
    targets += [process] if victim in ("scheduler", "both") else []
    rng.shuffle(targets)
    for target in targets:
        try:
            target.kill()
        except psutil.NoSuchProcess:
            continue


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [20260, 20261])
def test_random_kills_lose_nothing_and_double_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "disturbed"
    for place in (undisturbed, folder):
        write_grid(place, GRID)
    assert bench("run", "grid.yaml", cwd=undisturbed).returncode == 0
    truth = cell_metrics(undisturbed)

    kept: set[str] = set()
    for _ in range(N_KILLS // 2):
        process = start("run", "grid.yaml", cwd=folder)
        time.sleep(rng.uniform(0.5, 8.0))
        family = descendants(process.pid)
        victim = rng.choice(["worker", "scheduler", "both"])
        strike(psutil.Process(process.pid), victim, rng)
        if victim == "worker":
            time.sleep(rng.uniform(0.5, 3.0))
            os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        psutil.wait_procs(family, timeout=10)
        orphans = [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert not orphans, f"left running after killing {victim}: {orphans}"
        now = finished_cells(folder)
        assert kept <= now, f"cells lost after killing {victim}"
        kept = now

    last = bench("run", "grid.yaml", cwd=folder)
    assert last.returncode == 0, last.stderr
    assert cell_metrics(folder) == truth
    assert not list((folder / ".bench/chaos/outcomes").glob("*.json"))
    assert not list(folder.glob(".mlflow.db.*")), "a half made store was left"
