"""`bench report` on the store of a real run: sections, links, what is missing, watching, and reading many cells."""

import math
import os
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.files import Cache
from bench.cli.reporting import LOCAL_UI, _counts, ui_address
from bench.tracking import Store
from datasets.errors import UserError
from tests.bench.run_tools import bench, start, write_grid
from tests.bench.test_tracking import SUBSETS, finished

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


# ---- results that allow little to be said -------------------------------------------------------------------


def stored(folder: Path, name: str, methods: dict[str, list[float]], **tags: str) -> None:
    """An experiment of digits: method -> accuracy of each seed, the same on every subset."""
    store = Store(f"sqlite:///{folder}/mlflow.db", name)
    grid = store.open_grid(name, {}, {}, 10**12)
    for method, scores in methods.items():
        for seed, score in enumerate(scores):
            outcome: dict[str, Any] = finished(f"{name}{method}{seed}".rjust(16, "0"), method=method, seed=seed)
            outcome["cells"] = {subset: {"last": {"acc": score}} for subset in SUBSETS}
            outcome["record"]["training_tags"] |= tags
            store.write(outcome, grid)


@pytest.mark.slow
def test_one_seed_one_method_and_a_metric_that_never_changes_are_told(tmp_path: Path) -> None:
    stored(tmp_path, "little", {"robult": [0.5]})
    told = bench("report", "little", "--quick", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    page = (tmp_path / "reports/little/index.html").read_text()
    for words in (
        "There is one seed: no standard deviation can be given",
        "Only one method has results, robult: nothing is ranked.",
        "acc of digits has the same value, 0.5, in every cell: it ranks nothing.",
        "The grid has no &#39;constant&#39; method",
        "A ranking needs clean results of two methods or more",
    ):
        assert words in page, words
        assert words.replace("&#39;", "'") in told.stderr, words
    assert "digits: acc" in page


@pytest.mark.slow
def test_undefined_cells_and_mixed_protocols_are_told(tmp_path: Path) -> None:
    stored(tmp_path, "mixed", {"robult": [0.9, 0.8], "gmc": [0.9, 0.9]}, protocol="1")
    stored(tmp_path, "mixed", {"md": [0.7, 0.6], "tmc": [0.7, math.nan]}, protocol="2")
    told = bench("report", "mixed", "--quick", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    page = (tmp_path / "reports/mixed/index.html").read_text()
    for words in (
        "mixes results of several versions of the protocol (1, 2), which must not be compared: 12 cells of others than "
        "version 2 are left out.",
        "acc of digits is undefined (NaN) for at least one seed: tmc in 3 cells.",
    ):
        assert words in page, words
        assert words in told.stderr, words
    assert "0.650 ± 0.071" in page
    assert "0.900" not in page


def test_an_unprepared_data_set_leaves_out_its_operations_in_one_sentence(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid whose other data set was prepared on another machine."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "none"))
    store = Store(f"sqlite:///{done}/mlflow.db", "kept", create=False)
    text = GRID.replace("[digits]", "[digits, handwritten]").replace("[robult, gmc, constant]", "[constant]")
    monkeypatch.setattr(Store, "text", lambda *_: text)
    notes: list[str] = []
    counts = _counts(store, Cache(None), notes, lambda _: None)
    assert notes == [
        "Operations are not counted on handwritten: not prepared on this machine, or not where BENCH_DATA says; see: "
        "bench data ls."
    ]
    assert counts is not None
    assert set(counts["dataset"]) == {"digits"}


def test_operations_are_counted_of_all_grids_of_an_experiment(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/mlflow.db", "both")
    for at, method in enumerate(("gmc", "constant", "gmc: {latent: 8}")):
        text = GRID.replace("[robult, gmc, constant]", f"[{{{method}}}]" if ":" in method else f"[{method}]")
        store.open_grid(method, {}, {"grid.yaml": text}, 10**12 + at)
    notes: list[str] = []
    counts = _counts(store, Cache(None), notes, lambda _: None)
    assert notes == []
    assert counts is not None
    assert set(counts["method"]) == {"gmc", "constant", "gmc[latent=8]"}


def test_links_lead_to_the_server_or_to_what_is_asked() -> None:
    assert ui_address("sqlite:///mlflow.db", None) == LOCAL_UI
    assert ui_address("https://me:secret@lab.example/mlflow/", None) == "https://lab.example/mlflow"
    assert ui_address("https://lab.example", "") == ""
    with pytest.raises(UserError, match="--ui takes the address"):
        ui_address("sqlite:///mlflow.db", "javascript:alert(1)")
