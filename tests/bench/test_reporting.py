"""`bench report` on the store of a real run: sections, links, what is missing, watching, and reading many cells."""

import os
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pandas as pd
import pytest

from bench.reporting import LOCAL_UI, plain_uri, ui_address
from bench.tracking import Store
from datasets.errors import UserError
from tests.bench.run_tools import bench, start, write_grid

GRID = """
name: kept
methods: [robult, gmc, constant]
datasets: [digits]
label_ratios: [0.05]
seeds: 1
train: {epochs: 2}
save: [embeddings, pseudo_labels]
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished grid that kept arrays."""
    folder = tmp_path_factory.mktemp("kept")
    write_grid(folder, GRID)
    run = bench("run", "grid.yaml", cwd=folder)
    assert run.returncode == 0, run.stderr
    return folder


def copy_of(done: Path, folder: Path) -> Path:
    """The same store elsewhere; its artifacts stay where they were."""
    shutil.copy(done / "mlflow.db", folder)
    return folder


@pytest.mark.slow
def test_kept_arrays_and_costs_come_into_the_report_and_what_is_missing_is_told(done: Path, tmp_path: Path) -> None:
    told = bench("report", "kept", cwd=done)
    assert told.returncode == 0, told.stderr
    text = (done / "reports/kept/index.html").read_text()
    for section in ("results", "ranking", "representations", "pseudo-labels", "proximity", "cost"):
        assert f'<h2 id="{section}">' in text, section
    store = Store(f"sqlite:///{done}/mlflow.db", "kept", create=False)
    runs = set(store.results()["run_id"])
    linked = set(re.findall(rf"{LOCAL_UI}/#/experiments/{store.experiment_id}/runs/(\w+)", text))
    assert runs <= linked
    assert any("report" in path.parts for path in (done / "mlartifacts").rglob("index.html"))
    gone = store.trainings().set_index("method").loc["gmc", "run_id"]
    (array,) = (done / "mlartifacts" / "kept" / gone).rglob("arrays.npz")
    array.rename(tmp_path / "arrays.npz")
    told = bench("report", "kept", cwd=done)
    (tmp_path / "arrays.npz").rename(array)
    assert told.returncode == 0
    what = "The arrays of gmc on digits, 0.05 of the labels, seed 0"
    words = f"{what} are missing from the store (arrays.npz of run {gone})."
    assert words in (done / "reports/kept/index.html").read_text()
    assert words in told.stderr


def test_a_quick_report_leaves_out_what_takes_long_and_says_so(done: Path, tmp_path: Path) -> None:
    folder = copy_of(done, tmp_path)
    told = bench("report", "kept", "--quick", "--ui", "https://mlflow.example/", cwd=folder)
    assert told.returncode == 0, told.stderr
    text = (folder / "reports/kept/index.html").read_text()
    assert "left out (--quick)" in text
    assert "left out (--quick)" in told.stderr
    assert '<h2 id="representations">' not in text
    assert "https://mlflow.example/#/experiments/" in text
    assert LOCAL_UI not in text


@pytest.mark.slow
def test_watching_ends_with_the_grid_and_with_ctrl_c(done: Path, tmp_path: Path) -> None:
    folder = copy_of(done, tmp_path)
    told = bench("report", "kept", "--quick", "--watch", "--every", "1", cwd=folder)
    assert told.returncode == 0, told.stderr
    assert "9 cells, 9 new:" in told.stderr
    assert "the grid's run has ended (finished)." in told.stderr
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("UPDATE runs SET status = 'RUNNING' WHERE name = 'grid kept'")
    page = folder / "reports/kept/index.html"
    page.unlink()
    process = start("report", "kept", "--quick", "--watch", "--every", "1", cwd=folder)
    deadline = time.monotonic() + 90
    while not page.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_rows_of_the_database_are_what_searching_finds(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"sqlite:///{done}/mlflow.db", "kept", create=False)
    fast = store.results(), store.trainings()
    monkeypatch.setattr(Store, "_database", lambda _: None)
    slow = store.results(), store.trainings()
    order = ["run_id", "checkpoint", "metric"]
    for one, other in zip(fast, slow, strict=True):
        keys = [name for name in order if name in one]
        one, other = (frame.sort_values(keys, ignore_index=True) for frame in (one, other))
        assert len(one) > 0
        pd.testing.assert_frame_equal(one, other[one.columns.tolist()])


def test_an_experiment_without_cells_has_a_page_that_says_so(tmp_path: Path) -> None:
    Store(f"sqlite:///{tmp_path}/mlflow.db", "empty")
    told = bench("report", "empty", cwd=tmp_path)
    assert told.returncode == 1
    assert "experiment 'empty' has no finished cell yet; see: bench plan empty." in told.stderr
    assert "There are no finished cells to report yet." in (tmp_path / "reports/empty/index.html").read_text()


def test_links_lead_to_the_server_or_to_what_is_asked() -> None:
    assert ui_address("sqlite:///mlflow.db", None) == LOCAL_UI
    assert ui_address("https://me:secret@lab.example/mlflow/", None) == "https://lab.example/mlflow"
    assert ui_address("https://lab.example", "") == ""
    assert plain_uri("postgresql://me:secret@db/mlflow") == "postgresql://db/mlflow"
    with pytest.raises(UserError, match="--ui takes the address"):
        ui_address("sqlite:///mlflow.db", "javascript:alert(1)")
