"""A store that cannot be written, before a run and in the middle of one."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench.run_tools import finished_cells
from tests.chaos.arena import N_SMALL, SMALL, Arena, Cells, Story, spooled, until

pytestmark = pytest.mark.chaos


@contextmanager
def frozen(*paths: Path) -> Iterator[None]:
    """Make files and folders read-only, for root too."""
    root = os.geteuid() == 0

    def set_frozen(path: Path, on: bool) -> None:
        if root:
            done = subprocess.run(["chattr", "+i" if on else "-i", str(path)], capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f"root is stopped only where chattr +i works: {done.stderr.strip()}")
        else:
            path.chmod(path.stat().st_mode ^ 0o200)

    changed = []
    try:
        for path in paths:
            set_frozen(path, True)
            changed.append(path)
        yield
    finally:
        for path in changed:
            set_frozen(path, False)


@pytest.fixture
def arena(tmp_path: Path, small_truth: Cells, story: Story) -> Arena:
    """A grid that was begun."""
    arena = Arena(tmp_path / "grid", SMALL, small_truth, story)
    life = arena.start()
    assert until(lambda: finished_cells(arena.folder) or life.poll() is not None, 300)
    return arena


@pytest.mark.parametrize("what", ["mlflow.db", "."])
def test_a_read_only_store_is_refused_before_anything_trains(arena: Arena, what: str) -> None:
    assert arena.life is not None
    arena.life.kill()
    arena.end()
    before, waiting = arena.check_after_death(), spooled(arena.folder)
    with frozen(arena.folder / what):
        run = arena.run()
    assert run.returncode == 1
    assert run.stderr.splitlines() == [
        f"bench: tracking store {arena.folder}/mlflow.db is read-only for you: choose another with tracking.uri."
    ]
    assert arena.check_after_death() == before
    assert spooled(arena.folder) == waiting
    assert arena.finish() == N_SMALL


def test_a_store_that_is_read_only_for_a_while_is_waited_for(arena: Arena) -> None:
    """SQLite needs a journal beside the store, so a read-only folder stops it in the middle of a run."""
    assert arena.life is not None
    with frozen(arena.folder):
        assert until(lambda: len(spooled(arena.folder)) >= 3 or arena.life.poll() is not None, 300)
        time.sleep(2)
        arena.story.tell(f"thawed with {len(spooled(arena.folder))} results waiting")
    err = arena.end(timeout=600)
    assert arena.life.returncode == 0, err
    assert arena.check_after_death() == N_SMALL
    assert arena.finish() == N_SMALL
