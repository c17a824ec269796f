"""A worker that hangs costs its own training, and its slot goes on."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from pebble.pool.base_pool import PoolStatus

from bench.executors.local import LocalExecutor
from tests.bench.run_tools import ODD, bench, start, statuses, workers, write_grid
from tests.bench.test_run import until

GRID = f"""
name: hangs
methods: ["{ODD}:Linear", {{"{ODD}:Hanging": {{label: hanging}}}}]
datasets: [digits]
label_ratios: [0.5]
seeds: 2
train: {{epochs: 1}}
executor: {{devices: cpu, slots: 1, silence_s: 10}}
"""


@pytest.mark.slow
def test_a_worker_that_makes_no_step_is_killed_and_the_grid_goes_on(tmp_path: Path) -> None:
    write_grid(tmp_path, GRID)
    run = bench("run", "grid.yaml", cwd=tmp_path)
    assert run.returncode == 1
    assert "its worker hung: no step for executor.silence_s = 10 s" in run.stderr
    assert statuses(tmp_path, "training") == ["FAILED"] * 2 + ["FINISHED"] * 2


def test_a_call_that_its_pool_forgets_is_ended(tmp_path: Path) -> None:
    """As when an idle worker was killed, and its pool breaks just when it is given something to do."""
    executor = LocalExecutor(["cpu"], tmp_path)
    try:
        executor.call(0, time.sleep, (600,), of=["a" * 16])
        executor._pools[0]._context.status = PoolStatus.ERROR
        event = executor.inbox.get(timeout=60)
    finally:
        executor.close()
    why = "its worker process was killed before it began"
    assert event == {"slot": 0, "of": ["a" * 16], "died": why, "out_of_memory": False}


@pytest.mark.slow
def test_a_stopped_worker_is_killed(tmp_path: Path) -> None:
    slow = GRID.replace(f'"{ODD}:Linear", ', "").replace(
        f'{ODD}:Hanging": {{label: hanging}}', f'{ODD}:Linear": {{pause_s: 2.0}}'
    )
    write_grid(tmp_path, slow.replace("seeds: 2", "seeds: 1"))
    process = start("run", "grid.yaml", cwd=tmp_path)
    until(lambda: "RUNNING" in statuses(tmp_path, "training"))
    until(lambda: len(workers(process.pid)) > 0)
    time.sleep(8)  # it has begun its steps, so that its silence is that of a worker at work
    stopped: list[psutil.Process] = workers(process.pid)
    for worker in stopped:
        os.kill(worker.pid, signal.SIGSTOP)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "its worker hung" in err
    assert statuses(tmp_path, "training") == ["FAILED"]
    psutil.wait_procs(stopped, timeout=10)
    assert not [p for p in stopped if p.is_running()]
