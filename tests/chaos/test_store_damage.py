"""A store file that is cut at a random byte: one clear sentence, exit code 1, and what waits in the spool is kept."""

import random
import shutil
from pathlib import Path

import pytest

from bench.tracking import TrackingError, check_store
from tests.bench.run_tools import finished_cells
from tests.chaos.arena import N_SMALL, Arena, spooled, until

pytestmark = pytest.mark.chaos


def check_refusal(code: int, err: str, arena: Arena, kept: dict[str, bytes]) -> None:
    """One sentence that names the file, exit code 1, and the spool as it was."""
    told = [line for line in err.splitlines() if line.startswith("bench: ")]
    assert code == 1, err
    assert len(told) == 1, err
    assert "mlflow.db" in told[0]
    assert "put a backup in its place" in told[0]
    now = spooled(arena.folder)
    assert {name: now.get(name) for name in kept} == kept


def check_every_cut_is_noticed(whole: bytes, copy: Path, rng: random.Random) -> None:
    """Two hundred random bytes, and those where SQLite's own checks begin and end."""
    edges = [0, 1, 15, 16, 17, 99, 100, 511, 512, 4095, 4096, 4097, len(whole) - 4096, len(whole) - 1]
    for size in [*edges, *(rng.randrange(len(whole)) for _ in range(200))]:
        copy.write_bytes(whole[:size])
        with pytest.raises(TrackingError, match=r"cut\.db (cannot be used: the file is damaged|is empty)"):
            check_store(f"sqlite:///{copy}")
    copy.write_bytes(whole)
    check_store(f"sqlite:///{copy}")


def test_a_cut_store_is_refused_and_the_spool_is_kept(waiting: Arena, rng: random.Random) -> None:
    arena, store, backup = waiting, waiting.folder / "mlflow.db", waiting.folder.with_name("backup.db")
    shutil.copy(store, backup)
    whole, kept = store.read_bytes(), spooled(arena.folder)
    check_every_cut_is_noticed(whole, arena.folder.with_name("cut.db"), rng)
    for size in [0, len(whole) - 1, rng.randrange(4096, len(whole))]:
        arena.story.tell(f"cut at byte {size} of {len(whole)}")
        store.write_bytes(whole[:size])
        run = arena.run()
        check_refusal(run.returncode, run.stderr, arena, kept)
        assert store.read_bytes() == whole[:size], "a damaged store was written to"
    shutil.copy(backup, store)
    assert arena.finish() == N_SMALL


def test_a_store_that_is_cut_in_the_middle_of_a_run(waiting: Arena, rng: random.Random) -> None:
    arena, store, backup = waiting, waiting.folder / "mlflow.db", waiting.folder.with_name("backup.db")
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
