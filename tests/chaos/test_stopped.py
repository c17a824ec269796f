"""Stopped processes (SIGSTOP, Ctrl-Z) and closed terminals: given up by the watchdog, and never left behind."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.bench.run_tools import ODD, finished_cells, statuses
from tests.chaos.arena import Arena, Cells, Story, undisturbed, until

pytestmark = pytest.mark.chaos

N = 12
GRID = f"""
name: stopped
methods: [{{"{ODD}:Linear": {{pause_s: 0.1, label: slow}}}}]
datasets: [digits]
label_ratios: [0.5]
seeds: {N}
train: {{epochs: 2}}
executor: {{devices: cpu, slots: 2, stack: 1, silence_s: 10}}
"""


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    return undisturbed(GRID, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def arena(tmp_path: Path, truth: Cells, story: Story) -> Arena:
    """A grid of which at least one training is finished, so that its workers are at work."""
    arena = Arena(tmp_path / "grid", GRID, truth, story)
    life = arena.start()
    assert until(lambda: life.poll() is not None or (finished_cells(arena.folder) and arena.workers()), 300)
    story.tell(f"{len(finished_cells(arena.folder))} of {3 * N} cells are finished")
    return arena


def test_a_stopped_worker_is_given_up_and_the_others_go_on(arena: Arena, rng: random.Random) -> None:
    time.sleep(rng.uniform(0.0, 1.0))
    assert arena.life is not None
    worker = rng.choice(arena.workers())
    worker.suspend()
    err = arena.end(timeout=600)
    assert arena.life.returncode == 1, err
    assert "its worker hung: no step for executor.silence_s = 10 s" in err
    assert statuses(arena.folder, "training") == ["FAILED"] + ["FINISHED"] * (N - 1)
    assert arena.check_after_death() == 3 * (N - 1)
    arena.finish()


@pytest.mark.parametrize("all_of_them", [False, True], ids=["one worker", "Ctrl-Z"])
def test_what_is_stopped_does_not_outlive_its_scheduler(arena: Arena, rng: random.Random, all_of_them: bool) -> None:
    assert arena.life is not None
    if all_of_them:
        os.killpg(arena.life.pid, signal.SIGSTOP)
    else:
        rng.choice(arena.workers()).suspend()
    arena.life.kill()
    arena.end()
    arena.check_after_death()
    arena.finish()


def test_a_run_ends_with_its_terminal(arena: Arena) -> None:
    """When an ssh connection breaks, every process of the run gets SIGHUP."""
    assert arena.life is not None
    os.killpg(arena.life.pid, signal.SIGHUP)
    err = arena.end()
    assert arena.life.returncode == 130, err
    assert "cut short. The same command goes on: bench run grid.yaml" in err
    arena.check_after_death()
    arena.finish()
