"""A hundred kills at random moments: of workers, fork servers, schedulers, and of the tracker, thread and server.

No finished cell is lost, doubled or changed; what was cut short is finished by the same command; nothing is left
running or lying about.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.chaos.arena import GRID, N_CELLS, Arena, Cells, Story, interrupt, kill, shuffled_deck, spooled, until
from tests.chaos.server import Server

pytestmark = pytest.mark.chaos

SHARE = float(os.environ.get("CHAOS_SHARE", "1"))
"""Part of the kills that is made; for trying the suite itself."""

ON_SQLITE = {"worker": 44, "fork server": 4, "scheduler": 12, "tracker": 10}
"""The tracker is the scheduler's writer thread here: it is struck while it takes an outcome to the store."""
ON_A_SERVER = {"worker": 14, "scheduler": 3, "tracker": 3, "server": 10}

PHASES = ("start-up", "work", "work", "shut-down")
EXCUSES = ("They are tried again by", "run the same command again", "cannot be reached", "The same command goes on")
"""What a run that did not finish may say."""


class Siege:
    """Kills in a fixed random order, over as many grids as they take."""

    def __init__(self, rng: random.Random, story: Story, deck: list[str], new_arena: Callable[[], Arena]) -> None:
        self.rng, self.story, self.deck, self.new_arena = rng, story, deck, new_arena
        self.server: Server | None = None
        """The tracking server of the present grid, where there is one."""
        self.kills: Counter[tuple[str, str]] = Counter()
        self.n_cells = self.n_checks = self.n_grids = self.n_runs = 0
        self.began = time.monotonic()

    def run(self) -> None:
        """Make every kill; what always holds is checked after each, and whole grids at their ends."""
        while self.deck:
            arena = self.new_arena()
            while self.deck and len({cell for cell, _ in arena.kept}) < N_CELLS:
                self._life(arena)
            self._serve()
            self.n_cells += arena.finish()
            self.n_grids += 1

    def _life(self, arena: Arena) -> None:
        """One `bench run`, struck until it is dead, done, or there are no kills left."""
        phase = self.rng.choice(PHASES)
        if self.rng.random() < 0.8:
            self._serve()
        life = arena.start()
        self.n_runs += 1
        self._wait_for(phase, arena)
        while self.deck and life.poll() is None:
            target = self.deck[-1]
            if not self._strike(target, arena):
                self.deck.insert(0, self.deck.pop())  # there is none just now: another first
                continue
            self.kills[self.deck.pop(), phase] += 1
            self.story.tell(f"killed a {target} ({phase}), {len(self.deck)} kills left")
            if target in ("scheduler", "tracker"):
                break
            self.n_checks += 1
            arena.check_cells()
            time.sleep(self.rng.uniform(0.0, 1.0))
            self._serve()
        err = arena.end(timeout=600)
        assert life.returncode in (0, 1, 130, -9), f"exit code {life.returncode}: {err}"
        assert life.returncode != 1 or any(excuse in err for excuse in EXCUSES), err
        assert life.returncode != 1 or "nothing to do" not in err, err
        self.n_checks += 1
        arena.check_after_death()

    def _wait_for(self, phase: str, arena: Arena) -> None:
        """Until a random moment of a phase of the run."""
        assert arena.life is not None
        life = arena.life
        if phase == "start-up":
            time.sleep(self.rng.uniform(0.0, 4.0))
            return
        until(lambda: life.poll() is not None or arena.workers())
        time.sleep(self.rng.uniform(0.0, 5.0))
        if phase == "shut-down" and life.poll() is None:
            interrupt(life)
            time.sleep(self.rng.uniform(0.0, 1.5))

    def _strike(self, target: str, arena: Arena) -> bool:
        """kill -9 one process; False when there is none of the kind."""
        assert arena.life is not None
        life = arena.life
        if target == "server":
            assert self.server is not None
            self.server.kill()
            time.sleep(self.rng.uniform(0.0, 2.0))
            return True
        if target == "tracker":  # while it has something to write
            until(lambda: life.poll() is not None or spooled(arena.folder), 5)
            time.sleep(self.rng.uniform(0.0, 0.1))
        if target in ("tracker", "scheduler"):
            return life.poll() is None and kill(psutil.Process(life.pid))
        until(lambda: life.poll() is not None or arena.workers(), 5)
        struck = arena.workers()
        if target == "fork server":
            arena.fork_server_killed = True
            struck = [parent for worker in struck if (parent := _parent(worker)) is not None and parent.pid != life.pid]
        return bool(struck) and kill(self.rng.choice(struck))

    def _serve(self) -> None:
        """Have the server running again, where there is one."""
        if self.server is not None and self.server.process is None:
            self.server.start()

    def figures(self, store: str) -> list[str]:
        """What was done, in lines."""
        targets, phases = Counter[str](), Counter[str]()
        for (target, phase), count in self.kills.items():
            targets[target] += count
            phases[phase] += count
        return [
            f"{store}: {self.kills.total()} kills in {self.n_runs} runs of {self.n_grids} grids, "
            f"{time.monotonic() - self.began:.0f} s",
            f"  by target: {_counted(targets)}; by phase: {_counted(phases)}",
            f"  {self.n_cells} cells equal to an undisturbed run's, 0 lost, 0 doubled, checked {self.n_checks} times "
            f"between",
        ]


def _parent(process: psutil.Process) -> psutil.Process | None:
    try:
        return process.parent()
    except psutil.NoSuchProcess:
        return None


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))


def deck_of(rng: random.Random, counts: dict[str, int]) -> list[str]:
    deck = shuffled_deck(rng, counts)
    return deck[: max(1, round(SHARE * len(deck)))]


def test_kills_of_workers_schedulers_and_the_writer(
    tmp_path: Path, rng: random.Random, story: Story, truth: Cells, figures: list[str]
) -> None:
    siege = Siege(
        rng, story, deck_of(rng, ON_SQLITE), lambda: Arena(tmp_path / f"grid-{siege.n_grids}", GRID, truth, story)
    )
    siege.run()
    figures += siege.figures("SQLite")


def test_kills_with_a_tracking_server(
    tmp_path: Path, rng: random.Random, story: Story, truth: Cells, figures: list[str]
) -> None:
    def new_arena() -> Arena:
        folder = tmp_path / f"grid-{siege.n_grids}"
        server = siege.server = servers.enter_context(Server(folder))  # its store is made undisturbed
        arena = Arena(folder, GRID + f"tracking: {{uri: '{server.uri}'}}\n", truth, story)
        server.wait()
        return arena

    with ExitStack() as servers:
        siege = Siege(rng, story, deck_of(rng, ON_A_SERVER), new_arena)
        siege.run()
        figures += siege.figures("mlflow server")
