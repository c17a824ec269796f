"""`bench compare` on a real store, and the curves and settings it and the figures read from there."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.curves import CURVE_COLUMNS
from bench import __main__ as entry
from bench.tracking import Store
from tests.bench.run_tools import bench, write_grid
from tests.bench.test_tracking import SUBSETS, finished

Call = Callable[..., tuple[int, str, str]]

GRID = """
name: {name}
methods: [constant, unimodal]
datasets: [digits]
label_ratios: [0.05]
modalities: [upper, full]
seeds: {seeds}
train: {{epochs: {epochs}, batch_size: 256}}
executor: {{slots: 1}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an experiment of one epoch and two seeds, and another of two epochs and one seed."""
    path = tmp_path_factory.mktemp("compare")
    for name, seeds, epochs in (("short", 2, "1"), ("longer", 1, "2")):
        store = Store(f"sqlite:///{path}/mlflow.db", name)
        grid = store.open_grid("digest", {}, {}, 10**12)
        for method, score in (("constant", 0.1), ("unimodal", 0.5 + 0.1 * seeds)):
            for seed in range(seeds):
                outcome: dict[str, Any] = finished(f"{method}-{epochs}-{seed}".rjust(16, "0"), method=method, seed=seed)
                outcome["record"]["params"]["train.epochs"] = epochs
                outcome["cells"] = {subset: {"last": {"acc": score}} for subset in SUBSETS}
                store.write(outcome, grid)
    return path


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`bench compare WORDS` in this process: exit code, output, errors."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench", "compare", *words])
        monkeypatch.setattr(sys, "path", list(sys.path))
        code = entry._run()
        return code, *capsys.readouterr()

    return run


@pytest.mark.slow
def test_two_grids_of_other_settings(tmp_path: Path) -> None:
    for name, seeds, epochs in (("short", 2, 1), ("longer", 1, 2)):
        write_grid(tmp_path, GRID.format(name=name, seeds=seeds, epochs=epochs), f"{name}.yaml")
        assert bench("run", f"{name}.yaml", cwd=tmp_path).returncode == 0
    done = bench("compare", "short", "longer", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["n_common"], told["n_identical"], told["same"]) == (4, 2, False)
    assert {row["method"]: row["n_identical"] for row in told["groups"]} == {"constant": 2, "unimodal": 0}
    assert told["only"] == [{"experiment": "short", "why": "seed 1", "n_cells": 4}]
    assert told["settings"] == [{"key": "train.epochs", "a": "1", "b": "2", "where": "everywhere"}]
    assert told["versions"] == []
    assert {row["method"] for row in told["largest"]} == {"unimodal"}


def test_json_tells_what_differs(call: Call) -> None:
    code, out, err = call("short", "longer", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["n_common"], told["n_identical"], told["same"]) == (6, 3, False)
    assert {row["method"]: row["verdict"] for row in told["groups"]} == {
        "constant": "identical", "unimodal": "worse in the only seed",
    }  # fmt: skip
    assert told["only"] == [{"experiment": "short", "why": "seed 1", "n_cells": 6}]
    assert told["settings"] == [{"key": "train.epochs", "a": "1", "b": "2", "where": "everywhere"}]


def test_one_screen_tells_it(call: Call) -> None:
    code, out, err = call("short", "longer")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "Different: 3 of 6 common cells have other values."
    assert "Only in short: 6 cells: seed 1 (6)." in out
    assert "not testable with 1 seed" in out
    assert "train.epochs" in out
    assert len(out.splitlines()) < 40


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["short", "longr"], "no experiment 'longr' in sqlite:///mlflow.db. Did you mean 'longer'?"),
        (["short", "short"], "'short' was given twice"),
        (["short", "Default"], "experiment 'Default' has no finished cell"),
        (["short", "longer", "--tracking-uri", "sqlite:///absent.db"], "there is no tracking store at"),
    ],
)
def test_wrong_use_is_one_sentence(call: Call, words: list[str], told: str) -> None:
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1


# ---- what the store tells ---------------------------------------------------------------------------------


@pytest.fixture
def store(folder: Path, request: pytest.FixtureRequest) -> Store:
    """An experiment of the test's own beside the grids'."""
    return Store(f"sqlite:///{folder}/mlflow.db", request.node.name)


def fill(store: Store, n: int = 3) -> None:
    """Trainings with three epochs of four metrics; the last one has one that is undefined."""
    for at in range(n):
        outcome: dict[str, Any] = finished(f"{at:016x}", seed=at)
        outcome["curves"] = [
            {"train/loss": 1 / epoch + at, "train/rec": 0.5, "valid/score": epoch / 10, "gradient/f": 1.0,
             "time_ms": 1e12 + epoch}
            for epoch in (1, 2, 3)
        ]  # fmt: skip
        if at == n - 1:
            outcome["curves"][1]["valid/score"] = math.nan
        store.write(outcome, store.open_grid("digest", {}, {}, 10**12))


def test_curves_are_tidy_and_only_those_asked_for(store: Store) -> None:
    fill(store)
    frame = store.curves(("train/*", "valid/score"))
    assert set(CURVE_COLUMNS) < set(frame.columns)
    assert set(frame["key"]) == {"train/loss", "train/rec", "valid/score"}
    assert len(frame) == 3 * 3 * 3
    own = frame[(frame["seed"] == 2) & (frame["key"] == "train/loss")].sort_values("epoch")
    assert own["epoch"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(own["value"], [3, 2.5, 1 / 3 + 2])
    assert frame["value"].isna().sum() == 1
    assert store.curves(("absent",)).empty
    assert set(CURVE_COLUMNS) < set(store.curves(("absent",)).columns)


class PublicCalls:
    """A client of which nothing but its public calls is to be had."""

    def __init__(self, client: Any) -> None:
        self.search_runs, self.get_metric_history = client.search_runs, client.get_metric_history


def test_a_server_gives_the_same_curves_as_a_database(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's client has no database to read; the public call, which both have, must give the same."""
    fill(store)
    whole = store.curves()
    assert len(whole) == 3 * 3 * 3
    monkeypatch.setattr(store, "_client", PublicCalls(store._client))
    assert store.curves().equals(whole)


def test_an_epoch_written_twice_counts_once_with_its_later_value(store: Store) -> None:
    fill(store, 1)
    run_id = store.known()[f"{0:016x}"].run_id
    store._client.log_metric(run_id, "train/loss", 7.0, timestamp=2 * 10**12, step=2)
    frame = store.curves(("train/loss",)).set_index("epoch")
    assert frame["value"].tolist() == [1.0, 7.0, pytest.approx(1 / 3)]


def test_settings_hold_parameters_data_and_protocol(store: Store) -> None:
    outcome = finished()
    outcome["record"]["training_tags"]["protocol"] = "2"
    store.write(outcome, store.open_grid("digest", {}, {}, 10**12))
    told = {(row.dataset, row.method, row.key): row.value for row in store.settings().itertuples()}
    assert told == {
        ("digits", "robult", "method.tau"): "0.3", ("digits", "robult", "train.epochs"): "2",
        ("digits", "robult", "data"): "f" * 36, ("digits", "robult", "protocol"): "2",
    }  # fmt: skip


def test_versions_are_those_of_the_newest_grid_and_none_where_they_are_gone(store: Store) -> None:
    assert store.versions() == {}
    store.open_grid("old", {}, {}, 10**12)
    assert store.versions() == {}
    told = {"python": "3.12", "platform": "p", "torch_devices": ["cpu", "cpu"], "packages": {"torch": "2"}}
    tags = {"mlflow.source.git.commit": "0123456789abcdef"}
    store.open_grid("new", tags, {"environment.json": json.dumps(told)}, 2 * 10**12)
    expected = {"python": "3.12", "platform": "p", "devices": "cpu", "torch": "2", "commit": "0123456789ab"}
    assert store.versions() == expected
