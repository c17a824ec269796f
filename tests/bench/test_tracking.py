"""MLflow as the suite writes it: three levels of runs, writes that may be repeated, errors in plain words."""

import contextlib
import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from bench.tracking import (
    Glance,
    Store,
    StoreUnreachable,
    TrackingError,
    check_store,
    safe_name,
    sqlite_path,
    state_folder,
)
from bench.tracking.timings import timings
from datasets.errors import UserError

SUBSETS = ("upper", "lower", "upper+lower")


def record(training_id: str = "a" * 16, method: str = "robult", seed: int = 0) -> dict[str, Any]:
    return {
        "training_id": training_id,
        "name": f"{method} / digits / 0.05 / {seed}",
        "tags": {
            "training_id": training_id, "method": method, "method_id": method, "variant": "default",
            "dataset": "digits", "dataset_id": "digits", "label_ratio": "0.05", "seed": str(seed),
        },
        "training_tags": {
            "task": "multiclass", "primary_metric": "acc", "higher_is_better": "acc,f1_macro",
            "full_subset": "upper+lower",
        },
        "params": {"method.tau": "0.3", "train.epochs": "2"},
        "data": {"name": "digits", "fingerprint": "f" * 64, "sizes": {"train": 10, "valid": 5, "test": 5}},
        "cells": {subset: f"{training_id[:8]}-{subset}" for subset in SUBSETS},
    }  # fmt: skip


def finished(training_id: str = "a" * 16, **options: Any) -> dict[str, Any]:
    row = {"acc": 0.5, "f1_macro": math.nan}
    return {
        "record": record(training_id, **options),
        "status": "finished",
        "curves": [{"train/loss": 1.0 / epoch, "valid/acc": 0.1 * epoch, "time_ms": 1e12 + epoch} for epoch in (1, 2)],
        "cells": {subset: {"last": row, "best": {"acc": 0.6, "f1_macro": 0.4}} for subset in SUBSETS},
        "best_epoch": 2,
        "cost": {"wall_s": 1.5, "parameters": 10.0},
        "ended_ms": 1_000_000_000_500,
    }


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def store(uri: str, request: pytest.FixtureRequest) -> Store:
    return Store(uri, request.node.name)


@pytest.fixture
def grid_run(store: Store) -> str:
    return store.open_grid("digest", {"checkpoint": "last"}, {"grid.yaml": "name: x\n"}, 10**12)


def runs(store: Store, stage: str) -> list[Any]:
    return list(store._search(f"tags.stage = '{stage}'"))


def test_a_finished_training_is_a_run_with_curves_and_a_cell_run_for_each_subset(store: Store, grid_run: str) -> None:
    run_id, fresh = store.begin(record(), grid_run, 10**12)
    assert fresh
    assert store.known()["a" * 16].status == "RUNNING"
    store.write(finished(), grid_run, run_id, fresh=True)

    known = store.known()["a" * 16]
    assert (known.run_id, known.status, known.conditions) == (run_id, "FINISHED", frozenset(SUBSETS))
    training = store._client.get_run(run_id)
    assert training.data.tags["mlflow.parentRunId"] == grid_run
    assert training.data.params == {"method.tau": "0.3", "train.epochs": "2"}
    assert training.inputs.dataset_inputs[0].dataset.digest == "f" * 36
    curve = store._client.get_metric_history(run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 1.0), (2, 0.5)]
    cells = {run.data.tags["modalities"]: run for run in runs(store, "cell")}
    assert set(cells) == set(SUBSETS)
    for subset, cell in cells.items():
        assert cell.info.status == "FINISHED"
        assert cell.data.tags["mlflow.parentRunId"] == run_id
        assert cell.data.tags["cell_id"] == f"{'a' * 8}-{subset}"
        assert cell.data.metrics["last/acc"] == 0.5
        assert math.isnan(cell.data.metrics["last/f1_macro"])
        assert cell.data.metrics["best/acc"] == 0.6
    assert set(store.known()["a" * 16].conditions) == set(SUBSETS)


def test_writing_an_outcome_again_changes_nothing(store: Store, grid_run: str) -> None:
    for _ in range(3):
        store.write(finished(), grid_run)
    assert len(runs(store, "training")) == 1
    assert len(runs(store, "cell")) == len(SUBSETS)
    run_id = store.known()["a" * 16].run_id
    assert len(store._client.get_metric_history(run_id, "train/loss")) == 2


@pytest.mark.parametrize("died_after", range(12))
def test_a_writer_that_dies_anywhere_is_taken_up_without_loss_or_double(
    store: Store, grid_run: str, monkeypatch: pytest.MonkeyPatch, died_after: int
) -> None:
    """Let the client fail at its n-th writing call, as a kill would stop it there, then write again."""
    calls = 0

    def dying(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > died_after:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("create_run", "log_batch", "set_terminated", "set_tag", "log_inputs"):
            patch.setattr(store._client, name, dying(getattr(store._client, name)))
        with pytest.raises(KeyboardInterrupt):
            store.write(finished(), grid_run)
    store.write(finished(), grid_run)

    frame = store.results()
    assert len(frame) == len(SUBSETS) * 2 * 2
    assert not frame.duplicated(["modalities", "checkpoint", "metric"]).any()
    assert len(runs(store, "training")) == 1
    assert len(runs(store, "cell")) == len(SUBSETS)
    run_id = store.known()["a" * 16].run_id
    assert len(store._client.get_metric_history(run_id, "train/loss")) == 2


def test_what_is_written_whole_is_what_the_client_would_have_written(store: Store, grid_run: str) -> None:
    outcome = finished() | {"warning": "few labels"}
    outcome["curves"][1]["train/loss"] = math.inf
    by_id = {}
    for training_id, whole in (("a" * 16, True), ("b" * 16, False)):
        outcome = outcome | {"record": record(training_id)}
        run_id, _ = store.begin(outcome["record"], grid_run, 10**12)
        if whole:
            store.write(outcome, grid_run, run_id, fresh=True)
        else:
            store._write_by_parts(run_id, outcome, None)
        cells = store._search(f"tags.training_id = '{training_id}' AND tags.stage = 'cell'")
        by_id[training_id] = [store._client.get_run(run_id), *sorted(cells, key=lambda run: run.info.run_name)]

    for run, other in zip(by_id["a" * 16], by_id["b" * 16], strict=True):
        replaced = {run.info.run_id: other.info.run_id, by_id["a" * 16][0].info.run_id: by_id["b" * 16][0].info.run_id}
        text = json.dumps([run.to_dictionary(), histories(store, run)], sort_keys=True)
        for old, new in {**replaced, "a" * 16: "b" * 16, "a" * 8: "b" * 8}.items():
            text = text.replace(old, new)
        assert text == json.dumps([other.to_dictionary(), histories(store, other)], sort_keys=True)


def histories(store: Store, run: Any) -> dict[str, Any]:
    """Every value of every metric of a run."""
    return {
        key: sorted((m.step, m.timestamp, m.value) for m in store._client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
    }


def test_a_training_is_written_whole_or_not_at_all(
    store: Store, grid_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.tracking import tables

    run_id, _ = store.begin(record(), grid_run, 10**12)

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(tables, "_insert_metrics", full)
        with pytest.raises(StoreUnreachable, match="the disk is full; make room"):
            store.write(finished(), grid_run, run_id, fresh=True)
    assert runs(store, "cell") == []
    assert store.known()["a" * 16].status == "RUNNING"
    store.write(finished(), grid_run, run_id)
    assert store.known()["a" * 16].conditions == frozenset(SUBSETS)


def test_a_grid_that_asks_for_more_subsets_adds_cells_and_rewrites_none(store: Store, grid_run: str) -> None:
    first = finished()
    first["cells"] = {"upper": first["cells"]["upper"]}
    store.write(first, grid_run)
    before = {run.data.tags["modalities"]: run.info.run_id for run in runs(store, "cell")}
    changed = finished()
    changed["cells"]["upper"] = {"last": {"acc": 0.0}, "best": {"acc": 0.0}}
    store.write(changed, grid_run)
    after = {run.data.tags["modalities"]: run for run in runs(store, "cell")}
    assert set(after) == set(SUBSETS)
    assert after["upper"].info.run_id == before["upper"]
    assert after["upper"].data.metrics["last/acc"] == 0.5
    assert store.known()["a" * 16].conditions == frozenset(SUBSETS)


def test_a_failure_keeps_its_reason_and_a_retry_takes_its_place(store: Store, grid_run: str) -> None:
    failed = {"record": record(), "status": "failed", "reason": "loss term 'pu' became nan", "ended_ms": 10**12}
    store.write(failed, grid_run)
    assert store.known()["a" * 16].status == "FAILED"
    assert [row["failure"] for row in store.failures()] == ["loss term 'pu' became nan"]
    run_id, fresh = store.begin(record(), grid_run, 10**12)
    assert fresh
    store.write(finished(), grid_run, run_id, fresh=True)
    assert store.failures() == []
    assert [run.info.run_id for run in runs(store, "training")] == [run_id]


def test_the_grid_run_is_found_again(store: Store, grid_run: str) -> None:
    store.close_run(grid_run, "KILLED")
    assert store.open_grid("digest", {}, {}, 10**12) == grid_run
    assert store.open_grid("another", {}, {}, 10**12 + 1) != grid_run
    latest = store.latest_grid()
    assert latest is not None
    assert latest.data.tags["grid_digest"] == "another"


def test_a_grid_run_cut_short_gets_the_files_it_lacks_and_keeps_those_it_has(store: Store) -> None:
    first = store.open_grid("digest", {}, {"grid.yaml": "name: x\n"}, 10**12)
    again = store.open_grid("digest", {}, {"grid.yaml": "name: y\n", "environment.json": "{}"}, 10**12)
    assert again == first
    assert store.text(first, "grid.yaml") == "name: x\n"
    assert store.text(first, "environment.json") == "{}"


def test_results_are_the_frame_that_analysis_takes(store: Store, grid_run: str) -> None:
    from analysis.results import check_frame

    store.write(finished("a" * 16, seed=0), grid_run)
    store.write(finished("b" * 16, method="gmc", seed=1), grid_run)
    frame = check_frame(store.results())
    assert len(frame) == 2 * len(SUBSETS) * 2 * 2
    row = frame[(frame.method == "gmc") & frame.full & frame.primary & (frame.checkpoint == "best")].iloc[0]
    assert (row.value, row.seed, row.label_ratio, row.modalities, row.n_modalities) == (0.6, 1, 0.05, "upper+lower", 2)
    assert bool(row.higher_is_better)


# ---- stores that cannot be used ---------------------------------------------------------------------------


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(UserError, match=r"tracking.uri 'ftp://x' is not a tracking store: use sqlite:///FILE"):
        check_store("ftp://x")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"the folder .*absent does not exist"):
        check_store(f"sqlite:///{tmp_path}/absent/mlflow.db")


def test_a_locked_store_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mlflow.db"
    real = sqlite3.connect
    holder = real(file)
    holder.execute("CREATE TABLE t (x)")
    holder.commit()
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: real(path, timeout=0.1))
    with pytest.raises(TrackingError, match="another program holds its lock"):
        check_store(f"sqlite:///{file}")
    holder.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_bytes(b"not a database at all" * 100)
    with pytest.raises(TrackingError, match="damaged or no SQLite database"):
        check_store(f"sqlite:///{file}")


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE notes (text)")
    with pytest.raises(TrackingError, match="not one of MLflow's"):
        check_store(f"sqlite:///{file}")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE runs (x)")
        database.execute("CREATE TABLE alembic_version (version_num)")
        database.execute("INSERT INTO alembic_version VALUES ('fffffffffff9')")
    with pytest.raises(TrackingError, match="newer than the installed MLflow knows: upgrade MLflow"):
        check_store(f"sqlite:///{file}")


def test_a_store_of_this_mlflow_passes(uri: str, store: Store) -> None:
    check_store(uri)


def test_an_older_schema_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE runs (run_uuid)")
        database.execute("CREATE TABLE alembic_version (version_num)")
        database.execute("INSERT INTO alembic_version VALUES ('451aebb31d03')")  # MLflow 1.0
    with pytest.raises(TrackingError, match="made by an older MLflow: back it up, then run: mlflow db upgrade sqlite"):
        check_store(f"sqlite:///{tmp_path}/mlflow.db")


def schema(file: Path) -> list[Any]:
    with contextlib.closing(sqlite3.connect(file)) as database:
        tables = database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        return [*tables, *database.execute("SELECT * FROM alembic_version")]


def test_a_new_store_is_copied_from_a_blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = [Store(f"sqlite:///{tmp_path}/{name}.db", "x") for name in ("first", "second")]
    (blank,) = (tmp_path / "cache" / "robult-bench").iterdir()
    assert schema(tmp_path / "first.db") == schema(tmp_path / "second.db") == schema(blank)
    for store in made:
        assert {e.name for e in store._client.search_experiments()} == {"x", "Default"}
    blank.write_bytes(blank.read_bytes()[:5000])
    Store(f"sqlite:///{tmp_path}/third.db", "x")
    assert schema(tmp_path / "third.db") == schema(blank)  # made anew, and kept in the damaged one's place


def test_a_store_is_made_where_no_blank_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Store(f"sqlite:///{tmp_path}/mlflow.db", "x").results().empty


def glance(store: Store) -> Glance:
    file = sqlite_path(store.uri)
    assert file is not None
    return Glance(file, store.name)


def test_a_glance_knows_what_mlflow_knows(store: Store, grid_run: str) -> None:
    store.write(finished("1" * 16), grid_run)
    for name, value in (("2" * 16, "conditions"), ("3" * 16, "")):  # cells to be looked up; one of them unfinished
        run = store.write(finished(name), grid_run)
        store._client.delete_tag(run, "conditions")
        cell = next(run for run in runs(store, "cell") if run.data.tags["training_id"] == name)
        if not value:
            store._client.set_terminated(cell.info.run_id, "KILLED")
    store._client.set_tag(store.known()["1" * 16].run_id, "saved", "embeddings,predictions")
    store.write({**finished("4" * 16), "status": "failed", "reason": "no luck"}, grid_run)
    store.begin(record("5" * 16), grid_run, 10**12)
    gone = store.write(finished("6" * 16), grid_run)
    store._client.delete_run(gone)
    damaged = store.write(finished("7" * 16), grid_run)
    store._client.set_tag(damaged, "seed", "many")

    known = glance(store).known()
    assert known == store.known()
    assert {name[0]: (k.status, len(k.conditions)) for name, k in known.items()} == {
        "1": ("FINISHED", 3), "2": ("FINISHED", 3), "3": ("FINISHED", 2), "4": ("FAILED", 0), "5": ("RUNNING", 0),
    }  # fmt: skip


def test_a_glance_knows_what_trainings_took(store: Store, grid_run: str) -> None:
    settings = {"train.epochs": "4", "train.batch_size": "64"}
    for name, cost in (
        ("1" * 16, {"wall_s": 1.5}),
        ("2" * 16, {"wall_s": 8.0, "stack": 2.0, "gpu": 1.0}),
        ("3" * 16, {}),
    ):
        outcome = finished(name) | {"cost": cost}
        outcome["record"]["params"] = {**outcome["record"]["params"], **settings}
        store.write(outcome, grid_run)
    store.write(finished("4" * 16) | {"status": "failed", "reason": "no luck"}, grid_run)
    seen = timings(glance(store))
    assert sorted(seen) == sorted(timings(store))
    assert [m.training_id[0] for m in sorted(seen)] == ["1", "2"]
    assert {(m.seconds, m.stack, m.device) for m in seen} == {(1.5, 1, "cpu"), (8.0, 2, "cuda")}


def test_a_glance_tells_whether_this_grid_ended_well(store: Store, grid_run: str) -> None:
    assert not glance(store).grid_is_finished("digest")
    store.close_run(grid_run, "FAILED")
    assert not glance(store).grid_is_finished("digest")
    store.close_run(grid_run, "FINISHED")
    assert glance(store).grid_is_finished("digest")
    assert not glance(store).grid_is_finished("another")


def test_a_glance_at_what_is_not_there_or_was_deleted(store: Store) -> None:
    file = sqlite_path(store.uri)
    assert file is not None
    assert Glance(file, "never begun").known() == {}
    store._client.delete_experiment(store.experiment_id)
    with pytest.raises(TrackingError, match=r"was deleted in sqlite:///.*: restore it \(mlflow experiments restore -x"):
        Glance(file, store.name)
    file = file.with_name("broken.db")
    file.write_bytes(b"no database" * 100)
    with pytest.raises(TrackingError, match="damaged or no SQLite database"):
        Glance(file, store.name)


def test_an_unknown_experiment_lists_those_there_are(uri: str, store: Store) -> None:
    with pytest.raises(TrackingError, match=f"no experiment 'nope' in .*there are: .*{store.name}"):
        Store(uri, "nope", create=False)


def test_an_unreachable_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:9"):
        Store("http://127.0.0.1:9", "x")


def test_state_lies_beside_a_sqlite_file_and_names_are_safe(tmp_path: Path) -> None:
    assert sqlite_path("http://server") is None
    assert state_folder(f"sqlite:///{tmp_path}/a/mlflow.db", "x y/../z") == tmp_path / "a" / ".bench" / "x_y_.._z"
    assert safe_name("../..") == "_.."
    assert safe_name("...") == "_"
