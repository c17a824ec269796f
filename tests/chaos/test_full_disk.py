"""A disk that fills up while a grid runs: what is trained waits, and is written once there is room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.run_tools import bench, finished_cells, write_grid

GRID = """
name: full
methods: [constant]
datasets: [digits]
seeds: 60
"""


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


@pytest.mark.chaos
def test_a_full_disk_is_said_plainly_and_loses_nothing(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_grid(small_disk, GRID)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 1_100_000)
    first = bench("run", "grid.yaml", cwd=small_disk)
    assert first.returncode == 1
    assert "the disk is full; make room" in first.stderr
    assert len(first.stderr.splitlines()) < 40
    kept = finished_cells(small_disk)

    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = bench("run", "grid.yaml", cwd=small_disk)
    assert again.returncode == 0, again.stderr
    assert kept <= finished_cells(small_disk)
    assert len(finished_cells(small_disk)) == 180
    assert not list((small_disk / ".bench/full/outcomes").glob("*.json"))
