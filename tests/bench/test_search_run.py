"""`bench search` as a user meets it: from a file to a winner that `bench run` takes, and through kill -9."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from bench.search.search import Pruner, Sampler
from bench.search.study import Study, open_storage
from tests.bench.run_tools import bench, query, start, statuses, write_grid
from tests.bench.search_tools import text


def rows(folder: Path, name: str = "small") -> list[tuple[object, ...]]:
    """What a search's study holds, times aside."""
    storage = open_storage(str(folder / ".bench" / name / "study.journal"))
    study = Study(storage, name, higher=[True], sampler=Sampler(), pruner=Pruner(), epochs=1)
    return [(row.number, row.state, dict(row.params), row.values, dict(row.steps)) for row in study.rows()]


def test_from_a_search_to_a_grid(tmp_path: Path) -> None:
    write_grid(tmp_path, text(budget="{trials: 6}", train="{epochs: 2, batch_size: 32}"), "search.yaml")
    done = bench("search", "search.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (method,) = told["methods"]
    assert method["trials"] == {"complete": 6, "pruned": 0, "failed": 0, "running": 0}
    (line,) = told["test"]
    assert line["valid_tuned"] >= line["valid_default"]
    assert len(line["gains"]) == 2
    assert line["test_tuned"] - line["test_default"] == pytest.approx(sum(line["gains"]) / 2)

    report = tmp_path / "reports" / "small"
    drawn = {path.name for path in report.glob("*.png")}
    assert {"history.png", "slice.png"} <= drawn
    assert len((report / "trials.csv").read_text().splitlines()) == 7
    assert statuses(tmp_path, "study") == ["FINISHED"]
    assert statuses(tmp_path, "trial") == ["FINISHED"] * 6
    params = query(tmp_path, "SELECT params.value FROM params JOIN tags ON tags.run_uuid = params.run_uuid "
                             "WHERE tags.key = 'trial' AND params.key = 'tau'")  # fmt: skip
    assert sorted(float(str(value)) for (value,) in params) == sorted(row[2]["tau"] for row in rows(tmp_path))  # type: ignore[index]

    best = bench("search", "best", "small", cwd=tmp_path)
    write_grid(tmp_path, best.stdout, "tuned.yaml")
    again = bench("run", "tuned.yaml", cwd=tmp_path)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr  # the winner was tested by the search: same identities

    refused = bench("search", "search.yaml", cwd=tmp_path)
    assert refused.returncode == 1
    assert "has 6 trials already: go on with it, or join it, by --resume" in refused.stderr
    write_grid(tmp_path, text(space="{gmc: {tau: {low: 0.1, high: 0.2}}}"), "search.yaml")
    refused = bench("search", "search.yaml", "--resume", cwd=tmp_path)
    assert "but with another space, another train" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["none", "{kind: median, startup: 3, warmup: 1}"])
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(tmp_path: Path, pruner: str) -> None:
    search = text(pruner=pruner, budget="{trials: 12}")
    for name in ("whole", "killed"):
        write_grid(tmp_path / name, search, "search.yaml")
    assert bench("search", "search.yaml", cwd=tmp_path / "whole").returncode == 0
    journal = tmp_path / "killed" / ".bench" / "small" / "study.journal"
    size = 0
    for _ in range(3):
        process = start("search", "search.yaml", "--resume", cwd=tmp_path / "killed")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if journal.exists() and journal.stat().st_size > size:
                size = journal.stat().st_size  # something was asked or told a moment ago
                break
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        size = journal.stat().st_size if journal.exists() else 0
    done = bench("search", "search.yaml", "--resume", cwd=tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert len(statuses(tmp_path / "killed", "trial")) == 12


@pytest.mark.slow
def test_slots_change_nothing(tmp_path: Path) -> None:
    found = []
    for slots in ("1", "3"):
        folder = tmp_path / slots
        executor = f"{{devices: cpu, slots: {slots}}}"
        write_grid(folder, text(pruner="{kind: hyperband, min_epochs: 1}", executor=executor), "search.yaml")
        assert bench("search", "search.yaml", cwd=folder).returncode == 0
        found.append(rows(folder))
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_sweep_and_several_methods(tmp_path: Path) -> None:
    space = "{gmc: {tau: {low: 0.1, high: 1.0, points: 3}}, concat: {train.lr: {low: 0.001, high: 0.01, points: 2}}}"
    search = text(methods="[gmc, concat]", space=space, train="{epochs: 2, batch_size: 32}")
    write_grid(tmp_path, search, "search.yaml")
    done = bench("search", "search.yaml", "--grid", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [method["trials"]["complete"] for method in told["methods"]] == [3, 2]
    assert {line["method"] for line in told["test"]} == {"gmc", "concat"}
    refused = bench("search", "best", "small-grid", cwd=tmp_path)
    assert refused.returncode == 2
    assert "name one with --method" in refused.stderr
    best = bench("search", "best", "small-grid", "--method", "concat", cwd=tmp_path)
    write_grid(tmp_path, best.stdout, "tuned.yaml")
    assert "all done" in bench("plan", "tuned.yaml", cwd=tmp_path).stdout
