"""A training that takes all the memory there is fails alone, with a plain reason, and is tried again."""

import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.run_tools import bench, cell_metrics, statuses, write_grid
from tests.chaos.arena import Arena, Story

pytestmark = pytest.mark.chaos

GREEDY = "tests.chaos.greedy"


def grid(room_mib: int) -> str:
    return f"""
name: memory
methods: [constant, unimodal, {{"{GREEDY}:Greedy": {{label: greedy, room_mib: {room_mib}}}}}]
datasets: [synthetic: {{n_modalities: 2, uniqueness: 1, n_train: 64, n_valid: 32, n_test: 32}}]
label_ratios: [0.5]
seeds: 3
train: {{epochs: 1}}
"""


def arena_of(folder: Path, text: str, story: Story) -> Arena:
    """An arena, after an undisturbed run in another folder, in which nobody was greedy."""
    undisturbed = folder / "undisturbed"
    write_grid(undisturbed, text)
    (undisturbed / "enough").touch()
    assert bench("run", "grid.yaml", cwd=undisturbed).returncode == 0
    return Arena(folder / "disturbed", text, cell_metrics(undisturbed), story)


def check_the_others_and_go_on(arena: Arena) -> None:
    """The three greedy trainings failed and the others did not; with memory enough the same command finishes."""
    assert statuses(arena.folder, "training") == ["FAILED"] * 3 + ["FINISHED"] * 6
    assert arena.check_after_death() == 18
    (arena.folder / "enough").touch()
    arena.finish(left=("enough",))


def test_a_training_without_memory_fails_alone(tmp_path: Path, story: Story) -> None:
    arena = arena_of(tmp_path, grid(room_mib=512), story)
    run = arena.run()
    assert run.returncode == 1
    assert "3 trainings failed; the others are finished." in run.stderr
    assert "out of memory on cpu: a smaller train.batch_size or fewer slots may help" in run.stderr
    check_the_others_and_go_on(arena)


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """The `tasks` file of a memory control group of 1.5 GiB."""
    group = Path(f"/sys/fs/cgroup/memory/bench-{uuid.uuid4().hex[:8]}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(1536 * 2**20))
    except OSError as error:
        pytest.skip(f"a memory control group (version 1) cannot be made: {error.strerror}")
    yield group / "cgroup.procs"
    for pid in (group / "cgroup.procs").read_text().split():
        os.kill(int(pid), 9)
    group.rmdir()


def test_a_worker_that_the_system_kills_for_its_memory_fails_alone(
    tmp_path: Path, story: Story, rng: random.Random, small_memory: Path
) -> None:
    arena = arena_of(tmp_path, grid(room_mib=0), story)
    life = arena.start()
    small_memory.write_text(str(life.pid))
    err = arena.end(timeout=600)
    assert life.returncode == 1, err
    assert "its worker process was killed (signal 9); the system does so when memory runs out" in err
    check_the_others_and_go_on(arena)
