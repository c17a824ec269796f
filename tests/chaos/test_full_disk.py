"""A disk that fills up while a grid runs: what is trained waits, and is written once there is room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.arena import Arena, Cells, Story, undisturbed

pytestmark = pytest.mark.chaos

GRID = """
name: full
methods: [constant]
datasets: [digits]
seeds: 60
"""
N_CELLS = 3 * 60


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    return undisturbed(GRID, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB, which a store of a few dozen runs fills."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_is_said_plainly_and_loses_nothing(small_disk: Path, truth: Cells, story: Story) -> None:
    arena = Arena(small_disk, GRID, truth, story)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_100_000)
    first = arena.run()
    assert first.returncode == 1
    assert "the disk is full; make room" in first.stderr
    assert len(first.stderr.splitlines()) < 40
    ballast.unlink()
    assert 0 < arena.check_after_death() < N_CELLS
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert arena.finish() == N_CELLS


def test_a_disk_without_room_for_a_store(small_disk: Path, truth: Cells, story: Story) -> None:
    arena = Arena(small_disk, GRID, truth, story)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (3 * 2**20 - 200_000))
    first = arena.run()
    assert first.returncode == 1
    assert "the disk is full; make room" in first.stderr
    ballast.unlink()
    arena.check_after_death()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert arena.finish() == N_CELLS
