"""A clock that jumps by days, to and fro, in the middle of a run and between runs."""

import random
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.bench.run_tools import finished_cells, query
from tests.chaos.arena import GRID, N_CELLS, N_SMALL, SMALL, Arena, Cells, Story, until

pytestmark = pytest.mark.chaos

DAY = 24 * 3600
LIMITS = "executor: {timeout_s: 200, silence_s: 300}\n"
JUMPS = [DAY, -DAY, 400 * DAY, -3650 * DAY, 10, -90, 0]


class Clock:
    """The time of day as the processes of an arena see it; as on real machines the monotonic clock never jumps."""

    def __init__(self, folder: Path, arena: Arena) -> None:
        compiler, library = shutil.which("cc"), folder / "clock.so"
        if compiler is None:
            pytest.skip("the false clock needs a C compiler (cc)")
        source = Path(__file__).with_name("clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
        self.file = folder / "offset"
        self.file.write_bytes(struct.pack("l", 0))
        arena.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(self.file)}

    def jump(self, offset_s: int) -> None:
        """Set the clock so far from the real time."""
        with self.file.open("r+b") as file:
            file.write(struct.pack("l", offset_s))


def test_jumps_in_the_middle_of_a_run(tmp_path: Path, truth: Cells, story: Story, rng: random.Random) -> None:
    arena = Arena(tmp_path / "grid", GRID + LIMITS, truth, story)
    clock = Clock(tmp_path, arena)
    life = arena.start()
    assert until(lambda: finished_cells(arena.folder) or life.poll() is not None, 300)
    for offset_s in rng.sample(JUMPS, len(JUMPS)):
        story.tell(f"the clock jumps to {offset_s:+} s")
        clock.jump(offset_s)
        time.sleep(rng.uniform(0.2, 2.0))
    err = arena.end(timeout=600)
    assert life.returncode == 0, err
    assert arena.check_after_death() == N_CELLS
    arena.environment = {}
    assert arena.finish() == N_CELLS


def test_runs_of_another_year(tmp_path: Path, small_truth: Cells, story: Story, rng: random.Random) -> None:
    """Killed in the future, gone on with in the past, finished today; every life sees what the others wrote."""
    arena = Arena(tmp_path / "grid", SMALL + LIMITS, small_truth, story)
    clock = Clock(tmp_path, arena)
    for offset_s in (800 * DAY, -800 * DAY):
        clock.jump(offset_s)
        before = len(finished_cells(arena.folder))
        life = arena.start()
        assert until(lambda: len(finished_cells(arena.folder)) > before or life.poll() is not None, 300)  # noqa: B023
        time.sleep(rng.uniform(0.0, 1.0))
        life.kill()
        arena.end()
        assert arena.check_after_death() > before
    years = {year for (year,) in query(arena.folder, "SELECT strftime('%Y', start_time / 1000, 'unixepoch') FROM runs")}
    assert time.strftime("%Y") not in years, "the clock was true"
    arena.environment = {}
    assert arena.finish() == N_SMALL
