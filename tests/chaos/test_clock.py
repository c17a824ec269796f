"""A clock that jumps by days, to and fro, in the middle of a run and between runs (libfaketime)."""

import random
import time
from pathlib import Path

import pytest

from tests.bench.run_tools import finished_cells
from tests.chaos.arena import GRID, N_CELLS, Arena, Cells, Story, until

pytestmark = pytest.mark.chaos

LIMITS = "executor: {timeout_s: 200, silence_s: 300}\n"
JUMPS = ["+1d", "-1d", "+400d", "-3650d", "+10s", "-90s", "+0"]


class Clock:
    """The time of day as the processes of an arena see it; as on real machines the monotonic clock never jumps."""

    def __init__(self, folder: Path, arena: Arena) -> None:
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        if not libraries:
            pytest.skip("libfaketime is not installed (apt-get install faketime)")
        self.file = folder / "time"
        self.jump("+0")
        arena.environment = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, offset: str) -> None:
        """Set the clock `offset` from the real time."""
        draft = self.file.with_name("draft")
        draft.write_text(offset + "\n")
        draft.replace(self.file)


def test_jumps_in_the_middle_of_a_run(tmp_path: Path, truth: Cells, story: Story, rng: random.Random) -> None:
    arena = Arena(tmp_path / "grid", GRID + LIMITS, truth, story)
    clock = Clock(tmp_path, arena)
    life = arena.start()
    assert until(lambda: finished_cells(arena.folder) or life.poll() is not None, 300)
    jumps = rng.sample(JUMPS, len(JUMPS))
    for offset in jumps:
        story.tell(f"the clock jumps to {offset}")
        clock.jump(offset)
        time.sleep(rng.uniform(0.2, 2.0))
    err = arena.end(timeout=600)
    assert life.returncode == 0, err
    assert arena.check_after_death() == N_CELLS
    arena.environment = {}
    assert arena.finish() == N_CELLS


def test_runs_of_another_year(tmp_path: Path, truth: Cells, story: Story, rng: random.Random) -> None:
    """Killed in the future, gone on with in the past, finished today; every life sees what the others wrote."""
    arena = Arena(tmp_path / "grid", GRID + LIMITS, truth, story)
    clock = Clock(tmp_path, arena)
    for offset in ("+800d", "-800d"):
        clock.jump(offset)
        before = len(finished_cells(arena.folder))
        life = arena.start()
        assert until(lambda: len(finished_cells(arena.folder)) > before or life.poll() is not None, 300)  # noqa: B023
        time.sleep(rng.uniform(0.0, 1.0))
        life.kill()
        arena.end()
        assert arena.check_after_death() > before
    arena.environment = {}
    assert arena.finish() == N_CELLS
