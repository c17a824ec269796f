"""Tags that were edited, or that another version wrote: told in one sentence, and the rest is reported."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.results import check_frame
from analysis.settling import settle
from bench.cli.reporting import make_report
from bench.tracking import Store, TrackingError
from bench.tracking.soundness import cell_problem, tag_problem
from tests.bench.test_tracking import SUBSETS, finished, record

CELL = "SELECT run_uuid FROM tags WHERE key = 'modalities' AND value = 'upper'"
OTHER_CELL = CELL.replace("upper", "lower")
TRAINING = "SELECT run_uuid FROM tags WHERE key = 'primary_metric'"
OLDER = f"SELECT run_uuid FROM tags WHERE key = 'seed' AND value = '0' AND run_uuid IN ({TRAINING})"
TRAINING_TAGS: dict[str, Any] = record()["tags"] | record()["training_tags"]
CELL_TAGS: dict[str, Any] = record()["tags"] | {"modalities": "upper", "corruption": ""}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two trainings of robult, 3 cells each, accuracies 0.5 and 0.75."""
    file = tmp_path_factory.mktemp("made") / "mlflow.db"
    store = Store(f"sqlite:///{file}", "odd")
    grid = store.open_grid("odd", {}, {}, 10**12)
    for seed, score in enumerate((0.5, 0.75)):
        outcome: dict[str, Any] = finished(f"{seed}" * 16, seed=seed)
        outcome["cells"] = {subset: {"last": {"acc": score, "f1_macro": score}} for subset in SUBSETS}
        outcome["ended_ms"] += 1000 * seed
        store.write(outcome, grid)
    return file


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a copy of that store."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(made, tmp_path)
    return tmp_path


def edit(folder: Path, *statements: str) -> None:
    with sqlite3.connect(folder / "mlflow.db") as database:
        for statement in statements:
            assert database.execute(statement).rowcount > 0


def tag(runs: str, key: str, value: str | None) -> str:
    """A statement that changes a tag of the first of some runs, or removes it."""
    where = f"key = '{key}' AND run_uuid = ({runs} ORDER BY run_uuid LIMIT 1)"
    return f"DELETE FROM tags WHERE {where}" if value is None else f"UPDATE tags SET value = '{value}' WHERE {where}"


def read(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """The results a report is made from, and what it tells of those left out."""
    store = Store(f"sqlite:///{folder}/mlflow.db", "odd", create=False)
    settled, notes = settle(store.results(), {})
    return check_frame(settled), [*store.left_out.told, *notes]


def report(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What `bench report` says on the terminal, and the page's source."""
    assert make_report("odd", folder / "reports", None, f"sqlite:///{folder}/mlflow.db", quick=True) == 0
    page = (folder / "reports/odd/index.html").read_text()
    return capsys.readouterr().err, page.replace("&#39;", "'")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("corruption", "gaussian(upper)=abc", "is 'gaussian(upper)=abc', which this version does not know"),
        ("corruption", "blur(upper)=0.3", "is 'blur(upper)=0.3', which this version does not know"),
        ("corruption", "mask(upper)=7", "is 'mask(upper)=7', but a share is above 0 and at most 1, got 7"),
        ("corruption", "gaussian(upper)=e", "is 'gaussian(upper)=e', which this version does not know"),
        ("seed", "x", "is 'x', not an integer"),
        ("seed", "1" * 30, f"is '{'1' * 30}', not an integer"),
        ("seed", "7", "is '7', but '0' at its training"),
        ("seed", None, "is missing"),
        ("label_ratio", "many", "is 'many', not a share above 0 and at most 1"),
        ("label_ratio", "nan", "is 'nan', not a share above 0 and at most 1"),
        ("label_ratio", "5", "is '5', not a share above 0 and at most 1"),
        ("method", " ", "is ' ', no name that can be printed"),
        ("method", "gmc", "is 'gmc', but 'robult' at its training"),
        ("modalities", "smell", "is 'smell', no subset of upper+lower"),
        ("modalities", "upper+upper", "is 'upper+upper', no subset of upper+lower"),
    ],
)
def test_what_is_wrong_with_a_tag_of_a_cell_is_told(key: str, value: str | None, told: str) -> None:
    tags = {name: text for name, text in (CELL_TAGS | {key: value}).items() if text is not None}
    problem = tag_problem("cell", tags) or cell_problem(tags, TRAINING_TAGS)
    assert problem == f"the tag '{key}' {told}"


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("seed", "x", "is 'x', not an integer"),
        ("label_ratio", "0", "is '0', not a share above 0 and at most 1"),
        ("primary_metric", None, "is missing"),
        ("full_subset", "", "is '', no name that can be printed"),
        ("training_id", None, "is missing"),
    ],
)
def test_what_is_wrong_with_a_tag_of_a_training_is_told(key: str, value: str | None, told: str) -> None:
    tags = {name: text for name, text in (TRAINING_TAGS | {key: value}).items() if text is not None}
    assert tag_problem("training", tags) == f"the tag '{key}' {told}"


def test_tags_as_they_are_written_are_sound() -> None:
    assert tag_problem("training", TRAINING_TAGS) == tag_problem("cell", CELL_TAGS) == ""
    assert cell_problem(CELL_TAGS | {"modalities": "upper+lower"}, TRAINING_TAGS) == ""
    assert tag_problem("cell", {key: text for key, text in CELL_TAGS.items() if key != "corruption"}) == ""


def test_a_training_with_an_odd_tag_is_left_out_with_its_cells(folder: Path) -> None:
    edit(folder, tag(TRAINING, "seed", "x"))
    frame, notes = read(folder)
    told = "1 training run in the store is left out, with its cells: the tag 'seed' is 'x', not an integer"
    assert [note.startswith(told) for note in notes] == [True]
    assert frame["training_id"].nunique() == 1
    assert len(frame) == 6


def test_cells_without_their_training_are_left_out(folder: Path) -> None:
    edit(folder, f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = ({TRAINING} LIMIT 1)")
    frame, (sentence,) = read(folder)
    assert sentence.startswith("3 cell runs in the store are left out: the run of training ")
    assert " is missing from the store (run " in sentence
    assert sentence.endswith("Restore it, or run the grid again.")
    assert frame["training_id"].nunique() == 1


def test_a_report_tells_of_every_slip_and_shows_the_rest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder, tag(CELL, "corruption", "blur(upper)=0.3"), tag(OTHER_CELL, "seed", "x"))
    said, page = report(folder, capsys)
    for words in ("the tag 'corruption' is 'blur(upper)=0.3', which this", "the tag 'seed' is 'x', not an integer"):
        assert said.count(words) == 1
        assert words in page
    assert "0.625 ± 0.177" in page  # the third subset


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (tag(OLDER, "higher_is_better", ""), "most others say something else about higher_is_better of acc"),
        (tag(OLDER, "primary_metric", "f1_macro"), "most others say something else about primary of acc"),
        (tag(OLDER, "full_subset", "upper+lower+x"), "most others say something else about full of upper+lower"),
    ],
)
def test_of_trainings_that_contradict_each_other_the_fewer_or_older_are_left_out(
    folder: Path, statement: str, told: str
) -> None:
    edit(folder, statement)
    frame, notes = read(folder)
    assert notes[0].startswith(f"1 training is left out on digits, as {told}")
    assert set(frame["training_id"]) == {"1" * 16}


def test_a_data_set_without_its_primary_metric_is_told_in_place_of_tables(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, "UPDATE tags SET value = 'nosuch' WHERE key = 'primary_metric'")
    with pytest.raises(TrackingError, match="no finished cell"):
        report(folder, capsys)
    told = "digits is left out: none of the metrics it has results of is its primary one."
    assert told in capsys.readouterr().err
    assert told in (folder / "reports/odd/index.html").read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("key = 'final/acc'", "1 value is left out, of checkpoints that this version does not know: 'final'."),
        ("value = 'abc'", "1 value is left out: not a number in the store (run "),
    ],
)
def test_values_that_are_none_are_left_out(folder: Path, change: str, told: str) -> None:
    edit(folder, f"UPDATE latest_metrics SET {change} WHERE key = 'last/acc' AND run_uuid = ({CELL} LIMIT 1)")
    frame, (sentence,) = read(folder)
    assert sentence.startswith(told)
    assert len(frame) == 11


def test_a_cell_that_is_there_twice_is_shown_once(folder: Path) -> None:
    for table, columns in (("tags", "key, value"), ("latest_metrics", "key, value, timestamp, step, is_nan")):
        edit(
            folder,
            f"INSERT INTO {table} (run_uuid, {columns}) SELECT 'copy-' || substr(run_uuid, 6), {columns} FROM {table} "
            f"WHERE run_uuid IN ({CELL})",
        )
    columns = "experiment_id, status, lifecycle_stage, start_time, source_type"
    edit(
        folder,
        f"INSERT INTO runs (run_uuid, {columns}) SELECT 'copy-' || substr(run_uuid, 6), {columns} FROM runs "
        f"WHERE run_uuid IN ({CELL} AND run_uuid NOT LIKE 'copy-%')",
    )
    frame, notes = read(folder)
    assert notes == ["2 cells are in the store more than once: robult on digits. The latest are shown."]
    assert len(frame) == 12


def test_what_is_kept_but_read_by_no_analysis_does_not_stop_a_report(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, f"INSERT INTO tags (run_uuid, key, value) SELECT run_uuid, 'saved', 'predictions' FROM ({TRAINING})")
    assert "0.625 ± 0.177" in report(folder, capsys)[1]


def test_an_unreadable_condition_is_no_finished_one(folder: Path) -> None:
    """`bench run` asks what a training cut short has finished: it is evaluated anew, not refused."""
    edit(
        folder,
        "UPDATE runs SET status = 'KILLED' WHERE run_uuid IN (" + TRAINING + ")",
        tag(CELL, "corruption", "blur(upper)=1"),
    )
    known = Store(f"sqlite:///{folder}/mlflow.db", "odd", create=False).known()
    assert sorted(len(one.conditions) for one in known.values()) == [2, 3]
