"""Training again what a run was: rebuilt from the store alone, compared number by number, differences named."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.cli.commands import reproduce_run
from bench.grid.file import Collection, load_asked, load_grid, parse_grid
from bench.grid.plan import make_plan
from bench.grid.stand_in import stand_in
from bench.grids import bundled_names
from bench.provenance import this_session
from bench.reproduce import Number, Reproduction, differences, rebuild, reproduce
from bench.tracking import record_of
from bench.tracking.origin import Origin, origin_of
from datasets.errors import UserError
from tests.bench.run_tools import bench, query, write_grid
from tests.datasets.fixtures import make_own_folder

GRID = """
name: again
methods: [unimodal, constant]
datasets: [digits, own: {folder: mine}]
label_ratios: [0.1]
corruptions: [gaussian: {upper: 0.5}]
seeds: 2
train: {epochs: [1, 2]}
executor: {slots: 1, stack: 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the grid was run."""
    folder = tmp_path_factory.mktemp("again")
    make_own_folder(folder / "mine")
    write_grid(folder, GRID)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        words = bench("run", "grid.yaml", cwd=folder)
    assert words.returncode == 0, words.stderr
    return folder


@pytest.fixture(autouse=True)
def _inside(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "folder" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("folder"))
        monkeypatch.setenv("XDG_DATA_HOME", str(request.getfixturevalue("folder") / "data"))
        monkeypatch.delenv("BENCH_DATA", raising=False)


URI = "sqlite:///mlflow.db"


def run_of(folder: Path, **tags: str) -> str:
    """The id of one run with these tags."""
    chosen = " ".join(
        f"JOIN tags {key} ON {key}.run_uuid = run.run_uuid AND {key}.key = '{key}' AND {key}.value = '{value}'"
        for key, value in tags.items()
    )
    rows = query(folder, f"SELECT run.run_uuid FROM runs run {chosen} ORDER BY run.run_uuid")
    assert rows, tags
    return str(rows[0][0])


def change(folder: Path, run: str, metric: str, by: float) -> None:
    with sqlite3.connect(folder / "mlflow.db") as database:
        n = database.execute(
            "UPDATE latest_metrics SET value = value + ? WHERE run_uuid = ? AND key = ?", (by, run, metric)
        ).rowcount
    assert n == 1


# ---- from the store to a verdict --------------------------------------------------------------------------


def test_a_training_comes_out_again_with_all_its_cells(folder: Path) -> None:
    run = run_of(folder, stage="training", dataset="digits", method_id="constant", seed="1")
    found = reproduce(URI, run)
    assert found.verdict == "identical"
    assert len({number.condition for number in found.numbers}) == 5, "three subsets, two of them corrupted too"
    assert {number.metric.partition("/")[0] for number in found.numbers} == {"last", "best"}
    assert not found.missing
    assert not found.differences


def test_a_cell_of_a_stack_comes_out_again_alone(folder: Path) -> None:
    run = run_of(folder, stage="cell", dataset_id="own", method_id="unimodal", seed="0", modalities="text+audio")
    done = bench("reproduce", run, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The same" in done.stdout
    assert "unimodal[epochs=" in done.stdout
    assert "/ own[folder=mine] / 0.1 / 0 (" in done.stdout


def test_another_number_is_told_with_how_far_it_is_off(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(folder, stage="cell", dataset="digits", method_id="constant", seed="0", modalities="lower")
    change(folder, run, "last/acc", 1e-9)
    assert reproduce(URI, run).verdict == "equal"
    change(folder, run, "last/acc", 0.25)
    assert reproduce_run(run, "cpu", URI, as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "different"
    (apart,) = [number for number in told["numbers"] if abs(number["then"] - number["now"]) > 1e-6]
    assert apart["metric"] == "last/acc"
    assert apart["then"] - apart["now"] == pytest.approx(0.25)
    assert reproduce_run(run, "auto", URI, as_json=False) == 1
    words = capsys.readouterr().out
    assert "Different: 1 of" in words
    assert "Nothing that is recorded differs" in words


def test_other_data_are_named(folder: Path) -> None:
    run = run_of(folder, stage="training", dataset_id="own", method_id="unimodal", seed="1")
    text = np.load(folder / "mine" / "text.npy")
    np.save(folder / "mine" / "text.npy", -text)
    found = reproduce(URI, run)
    np.save(folder / "mine" / "text.npy", text)
    assert found.verdict == "different"
    assert "data fingerprint" in found.differences
    assert "data fingerprint: " in str(found)


def test_the_grid_run_keeps_what_each_session_ran_on(folder: Path) -> None:
    origin = origin_of(URI, run_of(folder, stage="training", dataset="digits", method_id="constant", seed="0"))
    now = this_session()
    assert origin.session["hardware"] == now.told["hardware"]
    assert origin.session["packages"] == now.told["packages"]
    assert origin.session["code"] == now.told["code"]
    assert origin.session["command"].endswith("run grid.yaml")
    assert origin.diff == now.diff
    (session,) = {str(value) for (value,) in query(folder, "SELECT value FROM tags WHERE key = 'session'")}
    assert len(session) == 12


@pytest.mark.parametrize(
    ("run", "told"),
    [("grid", "is a grid run: name the run of a training or of a cell"), ("none", "there is no run 'none'")],
)
def test_what_cannot_be_reproduced_is_one_sentence(folder: Path, run: str, told: str) -> None:
    words = run_of(folder, stage="grid") if run == "grid" else run
    with pytest.raises(UserError, match=told):
        reproduce(URI, words)
    with pytest.raises(UserError, match="there is no tracking store"):
        reproduce("sqlite:///none.db", words)


@pytest.mark.parametrize("stage", ["training", "cell"])
def test_an_edited_tag_is_one_sentence(folder: Path, stage: str) -> None:
    run = run_of(folder, stage=stage, dataset="digits", method_id="constant")
    with sqlite3.connect(folder / "mlflow.db") as database:
        key = (run, "seed")
        (seed,) = database.execute("SELECT value FROM tags WHERE run_uuid = ? AND key = ?", key).fetchone()
        database.execute("UPDATE tags SET value = 'many' WHERE run_uuid = ? AND key = ?", key)
    try:
        with pytest.raises(UserError, match=f"{stage} run {run} cannot be reproduced: the tag 'seed' is 'many'"):
            reproduce(URI, run)
    finally:
        with sqlite3.connect(folder / "mlflow.db") as database:
            database.execute("UPDATE tags SET value = ? WHERE run_uuid = ? AND key = ?", (seed, *key))


def test_a_device_that_is_not_there_is_one_sentence(folder: Path) -> None:
    run = run_of(folder, stage="cell", method_id="constant")
    with pytest.raises(UserError, match="--device cuda:77 cannot be used here"):
        reproduce(URI, run, "cuda:77")


# ---- rebuilding from the grid that is kept ----------------------------------------------------------------


def grids() -> list[str]:
    return [name for name in bundled_names() if not isinstance(load_asked(name), Collection)]


@pytest.mark.parametrize("name", grids())
def test_every_training_of_a_bundled_grid_is_found_again(name: str) -> None:
    """As the grid run keeps it, put on a stand-in for its data, with one data set, seed and label ratio at a time."""
    grid, _ = stand_in(load_grid(name), "synthetic")
    plan = make_plan(grid)
    kept = parse_grid(grid.to_yaml(), grid.file).to_yaml()
    for training in plan.trainings[:: max(1, len(plan.trainings) // 5)]:
        record = record_of(training, plan.swept_settings)
        cells = {name: {"last/acc": 1.0} for name in training.conditions[:2]}
        origin = Origin(
            "x", "run", None, record["tags"] | record["training_tags"], record["params"],
            record["data"]["fingerprint"][:36], cells, kept, "kept.yaml", this_session().told, this_session().diff,
        )  # fmt: skip
        again, swept = rebuild(origin)
        assert again.id == training.id
        assert again.conditions == tuple(cells)
        assert record_of(again, swept)["name"] == record["name"]
        assert differences(origin, again, this_session()) == {}


def test_versions_machine_code_and_settings_are_compared() -> None:
    plan = make_plan(load_grid("quickstart"))
    training = plan.trainings[0]
    record = record_of(training)
    told = json.loads(this_session().text)
    told["packages"] |= {"torch": "1.0", "rich": "0.1"}
    told["hardware"]["cpu"] = "Z80"
    told["code"] = {"commit": "0" * 40, "dirty": True, "untracked": {"methods/mine.py": "aa"}}
    tags = record["tags"] | record["training_tags"] | {"protocol": "1"}
    params = record["params"] | {"train.lr": "0.5"}
    origin = Origin("x", "run", None, tags, params, "f" * 36, {}, "", "", told, "diff --git a/x b/x\n")
    found = differences(origin, training, this_session())
    assert found["torch"][0] == "1.0"
    assert found["cpu"][0] == "Z80"
    assert found["protocol"][0] == "1"
    assert found["train.lr"][0] == "0.5"
    assert found["data fingerprint"][0] == "f" * 36
    assert found["code commit"][0] == "0" * 12
    assert found["code that was not committed"][0] == "2 changed files"
    assert found["other packages"][0] == "rich 0.1"


def test_a_store_from_before_sessions_is_compared_as_far_as_it_tells() -> None:
    plan = make_plan(load_grid("quickstart"))
    training = plan.trainings[0]
    record = record_of(training)
    tags = record["tags"] | record["training_tags"]
    origin = Origin("x", "run", None, tags, record["params"], record["data"]["fingerprint"][:36], {}, "", "", {}, "")
    assert set(differences(origin, training, this_session())) <= {"code"}


def test_a_grid_that_asks_for_something_else_by_now_says_so() -> None:
    plan = make_plan(load_grid("quickstart"))
    record = record_of(plan.trainings[0])
    tags = record["tags"] | record["training_tags"] | {"method": "gone", "training_id": "0" * 16}
    origin = Origin("x", "run", None, tags, {}, "", {}, plan.grid.to_yaml(), "kept.yaml", {}, "")
    with pytest.raises(UserError, match="no longer asks for 'gone' on"):
        rebuild(origin)
    with pytest.raises(UserError, match=r"cannot be planned today:\nkept.yaml:1: unknown key 'x'"):
        rebuild(replace(origin, grid="x: 1\nmethods: [constant]\ndatasets: [digits]\n"))


# ---- verdicts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [
        (0.5, 0.5, "identical"), (float("nan"), float("nan"), "identical"), (0.5, 0.5 + 1e-12, "equal"),
        (1e6, 1e6 + 1, "equal"), (0.5, 0.501, "different"), (float("nan"), 0.5, "different"), (0.0, 1e-9, "equal"),
    ],
)  # fmt: skip
def test_verdicts(then: float, now: float, verdict: str) -> None:
    found = Reproduction("x", "cpu", [Number("a", "last/acc", then, now)], [], {})
    assert found.verdict == verdict
    assert json.loads(found.to_json())["verdict"] == verdict


def test_what_does_not_come_out_again_is_a_difference() -> None:
    found = Reproduction("x", "cpu", [], ["a  last/acc"], {})
    assert found.verdict == "different"
    assert "a  last/acc did not come out again" in str(found)
