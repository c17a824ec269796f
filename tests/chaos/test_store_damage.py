"""A store file that is cut at a random byte: one clear sentence, exit code 1, and what waits in the spool is kept."""

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from bench.tracking import TrackingError, check_store
from tests.bench.run_tools import finished_cells
from tests.chaos.arena import N_SMALL, SMALL, Arena, Cells, Story, spooled, until

pytestmark = pytest.mark.chaos


@pytest.fixture
def arena(tmp_path: Path, small_truth: Cells, story: Story) -> Arena:
    """A grid that was killed while its store was locked: some results are in the store, some wait in the spool."""
    arena = Arena(tmp_path / "grid", SMALL, small_truth, story)
    life = arena.start()
    assert until(lambda: finished_cells(arena.folder) or life.poll() is not None, 300)
    with sqlite3.connect(arena.folder / "mlflow.db", timeout=60) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert until(lambda: len(spooled(arena.folder)) >= 5 or life.poll() is not None, 300)
        life.kill()
        arena.end()
        holder.rollback()
    arena.check_after_death()
    assert len(spooled(arena.folder)) >= 5
    return arena


def check_refusal(code: int, err: str, arena: Arena, waiting: dict[str, bytes]) -> None:
    """One sentence that names the file, exit code 1, and the spool as it was."""
    told = [line for line in err.splitlines() if line.startswith("bench: ")]
    assert code == 1, err
    assert len(told) == 1, err
    assert str(arena.folder / "mlflow.db") in told[0]
    assert "put a backup in its place" in told[0]
    now = spooled(arena.folder)
    assert {name: now.get(name) for name in waiting} == waiting


def check_every_cut_is_noticed(whole: bytes, copy: Path, rng: random.Random) -> None:
    """Two hundred random bytes, and those where SQLite's own checks begin and end."""
    edges = [0, 1, 15, 16, 17, 99, 100, 511, 512, 4095, 4096, 4097, len(whole) - 4096, len(whole) - 1]
    for size in [*edges, *(rng.randrange(len(whole)) for _ in range(200))]:
        copy.write_bytes(whole[:size])
        with pytest.raises(TrackingError, match=r"cut\.db (cannot be used: the file is damaged|is empty)"):
            check_store(f"sqlite:///{copy}")
    copy.write_bytes(whole)
    check_store(f"sqlite:///{copy}")


def test_a_cut_store_is_refused_and_the_spool_is_kept(arena: Arena, rng: random.Random) -> None:
    store, backup = arena.folder / "mlflow.db", arena.folder.with_name("backup.db")
    shutil.copy(store, backup)
    whole, waiting = store.read_bytes(), spooled(arena.folder)
    check_every_cut_is_noticed(whole, arena.folder.with_name("cut.db"), rng)
    for size in [0, len(whole) - 1, rng.randrange(4096, len(whole))]:
        arena.story.tell(f"cut at byte {size} of {len(whole)}")
        store.write_bytes(whole[:size])
        run = arena.run()
        check_refusal(run.returncode, run.stderr, arena, waiting)
        assert store.read_bytes() == whole[:size], "a damaged store was written to"
    shutil.copy(backup, store)
    assert arena.finish() == N_SMALL


def test_a_store_that_is_cut_in_the_middle_of_a_run(arena: Arena, rng: random.Random) -> None:
    store, backup = arena.folder / "mlflow.db", arena.folder.with_name("backup.db")
    shutil.copy(store, backup)
    before = len(finished_cells(arena.folder))
    life = arena.start()
    assert until(lambda: len(finished_cells(arena.folder)) > before or life.poll() is not None, 300)
    size = rng.randrange(1, store.stat().st_size - 4096)
    arena.story.tell(f"cut at byte {size} of {store.stat().st_size}")
    with store.open("r+b") as file:
        file.truncate(size)
    err = arena.end(timeout=600)
    check_refusal(life.returncode, err, arena, {})
    arena.check_no_process()
    store.with_name("mlflow.db-journal").unlink(missing_ok=True)
    arena.kept = {}  # the backup is older than what was checked last
    shutil.copy(backup, store)
    assert arena.finish() == N_SMALL
