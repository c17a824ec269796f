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


@pytest.mark.xdist_group("server")
def test_two_schedulers_lose_nothing_when_the_server_freezes_and_dies(server: Server, tmp_path: Path) -> None:
    together = tmp_path / "together"
    write_grid(together, grid("outage", seeds=12, uri=server.uri))
    schedulers = [start("run", "grid.yaml", cwd=together) for _ in range(2)]
    break_and_mend(server, "outage", outage_s=2)
    for code, _, err in map(end, schedulers):
        assert code == 0, err
    truth = undisturbed(tmp_path / "alone", grid("outage", seeds=12))
    assert_whole(server, "outage", truth, together)
