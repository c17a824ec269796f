"""A server that freezes, is killed and comes back while grids run against it: nothing is lost, nothing is doubled."""

import signal
import time
from pathlib import Path

import pytest

from tests.bench.run_tools import cell_metrics, write_grid
from tests.server.runs import bench, cells_of, doubled, end, grid, start, statuses, wait_for_cells
from tests.server.services import Server

Values = dict[tuple[str, str], float | None]


def undisturbed(folder: Path, text: str) -> Values:
    """The results of a grid on SQLite, with nothing in its way."""
    write_grid(folder, text)
    code, _, err = bench("run", "grid.yaml", cwd=folder, login={})
    assert code == 0, err
    return cell_metrics(folder)


def assert_whole(server: Server, experiment: str, truth: Values, *folders: Path) -> None:
    """Every result is there once with its true value, every run has ended, and nothing waits on disk."""
    assert cells_of(server, experiment) == truth
    assert doubled(server, experiment) == []
    assert statuses(server, experiment) == {stage: {"FINISHED"} for stage in ("grid", "training", "cell")}
    for folder in folders:
        assert not list(folder.rglob("outcomes/*.json"))


def break_and_mend(server: Server, experiment: str, outage_s: float) -> None:
    """Freeze the server, let it go on, kill it with everything it started, and start it again."""
    wait_for_cells(server, experiment, 2)
    server.signal(signal.SIGSTOP)
    time.sleep(outage_s)
    server.signal(signal.SIGCONT)
    wait_for_cells(server, experiment, len(cells_of(server, experiment)) + 2)
    server.kill()
    time.sleep(outage_s)
    server.start()


def test_two_schedulers_lose_nothing_when_the_server_freezes_and_dies(server: Server, tmp_path: Path) -> None:
    together = tmp_path / "together"
    write_grid(together, grid("outage", seeds=8, uri=server.uri))
    schedulers = [start("run", "grid.yaml", cwd=together) for _ in range(2)]
    break_and_mend(server, "outage", outage_s=2)
    for code, _, err in map(end, schedulers):
        assert code == 0, err
    truth = undisturbed(tmp_path / "alone", grid("outage", seeds=8))
    assert_whole(server, "outage", truth, together)


@pytest.mark.slow
def test_a_minute_without_the_server_loses_nothing(server: Server, tmp_path: Path) -> None:
    together = tmp_path / "together"
    write_grid(together, grid("minute", seeds=40, uri=server.uri))
    schedulers = [start("run", "grid.yaml", cwd=together) for _ in range(2)]
    break_and_mend(server, "minute", outage_s=60)
    ends = [end(scheduler, timeout_s=900) for scheduler in schedulers]
    # One whose trainings end early waits a minute for the server, then leaves the rest to the next start.
    if any(code != 0 for code, _, _ in ends):
        code, _, err = bench("run", "grid.yaml", cwd=together)
        assert code == 0, err
    truth = undisturbed(tmp_path / "alone", grid("minute", seeds=40))
    assert_whole(server, "minute", truth, together)


@pytest.mark.slow
def test_a_database_that_dies_is_waited_for(server: Server, tmp_path: Path) -> None:
    write_grid(tmp_path / "run", grid("database", seeds=12, uri=server.uri))
    scheduler = start("run", "grid.yaml", cwd=tmp_path / "run")
    wait_for_cells(server, "database", 2)
    server.postgres.stop(signal.SIGQUIT)  # at once, without a checkpoint: it recovers from its log
    time.sleep(5)
    server.postgres.start()
    code, _, err = end(scheduler)
    assert code == 0, err
    truth = undisturbed(tmp_path / "alone", grid("database", seeds=12))
    assert_whole(server, "database", truth, tmp_path / "run")


@pytest.mark.slow
def test_two_machines_that_share_but_the_server_leave_each_result_once(server: Server, tmp_path: Path) -> None:
    text = grid("machines", seeds=8, uri=server.uri)
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        write_grid(folder, text)
    schedulers = [start("run", "grid.yaml", cwd=folder) for folder in folders]
    for code, _, err in map(end, schedulers):
        assert code == 0, err
    truth = undisturbed(tmp_path / "alone", grid("machines", seeds=8))
    assert_whole(server, "machines", truth, *folders)


@pytest.mark.slow
def test_a_killed_scheduler_is_followed_by_one_on_another_machine(server: Server, tmp_path: Path) -> None:
    text = grid("heir", seeds=8, uri=server.uri)
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        write_grid(folder, text)
    victim = start("run", "grid.yaml", cwd=first)
    wait_for_cells(server, "heir", 4)
    victim.kill()
    victim.communicate()
    code, _, err = bench("run", "grid.yaml", cwd=second)
    assert code == 0, err
    truth = undisturbed(tmp_path / "alone", grid("heir", seeds=8))
    assert cells_of(server, "heir") == truth
    # What the killed one had finished waits in its own folder: a result that is there already changes nothing.
    assert bench("run", "grid.yaml", cwd=first)[0] == 0
    assert cells_of(server, "heir") == truth
