"""The suite's seed, given or drawn; what a failed test did; and the figures at the end."""

import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.run_tools import finished_cells
from tests.chaos.arena import GRID, SMALL, Arena, Cells, Story, kill, processes_of, spooled, undisturbed, until

SEED = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))
_figures: list[str] = []


def pytest_report_header() -> str:
    return f"chaos: seed {SEED}; repeat with CHAOS_SEED={SEED}"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """The test's own random numbers: they do not depend on which tests ran before."""
    return random.Random(f"{SEED} {request.node.nodeid}")


@pytest.fixture
def story(request: pytest.FixtureRequest) -> Story:
    """What the test does, shown when it fails."""
    return Story(SEED, request.node.name)


@pytest.fixture(autouse=True)
def no_survivors(tmp_path: Path) -> Iterator[None]:
    """What a failed test has left running is ended."""
    yield
    for process in processes_of(tmp_path):
        kill(process)


@pytest.fixture
def figures() -> list[str]:
    """Lines shown at the end of the session."""
    return _figures


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """What the suite's grid gives when nothing disturbs it."""
    return undisturbed(GRID, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="session")
def small_truth(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """What the small grid gives when nothing disturbs it."""
    return undisturbed(SMALL, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def waiting(tmp_path: Path, small_truth: Cells, story: Story) -> Arena:
    """A small grid, killed while its store was locked: some results are in the store, eight or more in the spool."""
    arena = Arena(tmp_path / "grid", SMALL, small_truth, story)
    life = arena.start()
    assert until(lambda: finished_cells(arena.folder) or life.poll() is not None, 300)
    with sqlite3.connect(arena.folder / "mlflow.db", timeout=60) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert until(lambda: len(spooled(arena.folder)) >= 8 or life.poll() is not None, 300)
        life.kill()
        arena.end()
        holder.rollback()
    arena.check_after_death()
    return arena


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _figures:
        terminalreporter.section(f"chaos, seed {SEED}")
        for line in _figures:
            terminalreporter.line(line)
