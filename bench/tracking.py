"""Everything the suite says to MLflow, and the only module that imports it.

Shape: grid run (YAML, environment, report) > training run (parameters, curves, cost) > cell run (test metrics of
one condition). Every write is safe to repeat: what is already there is found and kept.
"""

import contextlib
import json
import logging
import os
import sqlite3
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bench.grid import DEFAULT_TRACKING_URI
from bench.plan import PROTOCOL, Training
from bench.spool import Outcome
from datasets.corruption import Corruption, condition, split_condition
from datasets.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql")
_PAGE = 1000
_BATCH = 1000
"""The most metrics MLflow takes in one `log_batch`."""
ARRAYS = "arrays.npz"
"""Artifact of a training run that holds what `bench.arrays` describes."""
_HISTORIES = 500
"""Runs of which one metric is read at once."""
_READERS = 8
"""Threads that read curves from a server."""
_TAG_LENGTH = 4000
"""The longest tag that is worth reading with every run; MLflow takes 8000 characters."""


class TrackingError(UserError):
    """The tracking store cannot be used; the message says why and what to do."""

    exit_code = 1


class StoreUnreachable(TrackingError):
    """The store does not answer now, but may later: worth trying again."""


@dataclass
class Known:
    """A training the store has heard of."""

    run_id: str
    status: str
    """MLflow's: RUNNING, FINISHED, FAILED or KILLED."""
    conditions: frozenset[str]
    """Conditions whose cells are finished."""
    saved: frozenset[str] = frozenset()
    """Arrays that are kept, as `bench.arrays.Save.words` names them."""

    def has(self, training: Training) -> bool:
        """Whether nothing a training is asked for is missing."""
        return self.conditions.issuperset(training.conditions) and self.saved.issuperset(training.save.words)


def record_of(training: Training, swept: tuple[str, ...] = ()) -> dict[str, Any]:
    """How a training is shown in MLflow, as plain values that travel with its outcome.

    Args:
        training: the training.
        swept: train settings that differ within the grid; they become part of the method's label.
    """
    spec = training.dataset.spec
    task = spec.task
    label = training.method.label
    if swept:
        values = training.settings.model_dump()
        label += "[" + ",".join(f"{key}={values[key]}" for key in swept) + "]"
    return {
        "training_id": training.id,
        "name": f"{label} / {training.dataset.label} / {training.label_ratio:g} / {training.seed}",
        "tags": {
            "training_id": training.id,
            "method": label,
            "method_id": training.method.name,
            "variant": training.method.variant,
            "dataset": training.dataset.label,
            "dataset_id": training.dataset.name,
            "label_ratio": str(training.label_ratio),
            "seed": str(training.seed),
        },
        "training_tags": {
            "task": task.kind,
            "primary_metric": task.primary,
            "higher_is_better": ",".join(name for name, higher in task.metrics.items() if higher),
            "full_subset": spec.full,
            "protocol": str(PROTOCOL),
        },
        "params": {
            **{f"method.{key}": str(value) for key, value in training.method.config.model_dump().items()},
            **{f"data.{key}": str(value) for key, value in training.dataset.config.model_dump().items()},
            **{f"train.{key}": str(value) for key, value in training.settings.model_dump().items()},
        },
        "data": {"name": training.dataset.name, "fingerprint": spec.fingerprint, "sizes": dict(spec.sizes)},
        "cells": training.cells,
    }


# ---- opening a store --------------------------------------------------------------------------------------


def resolve_uri(uri: str | None) -> str:
    """The store asked for, else `MLFLOW_TRACKING_URI`, else SQLite in the working directory."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite store, or None for a server."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def state_folder(uri: str, experiment: str) -> Path:
    """Where claims and the spool of an experiment live: beside a SQLite file, else in the working directory."""
    file = sqlite_path(uri)
    return (file.parent if file else Path.cwd()) / ".bench" / safe_name(experiment)


def safe_name(name: str) -> str:
    """`name` with everything but letters, digits, `-`, `_` and `.` replaced, for use as a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".") or "_"


def check_store(uri: str) -> None:
    """Refuse a store that cannot work, quickly and without MLflow.

    Raises:
        UserError: the URI is of no kind we know.
        TrackingError: the SQLite file or its folder cannot be written, is locked, or is no MLflow store.
    """
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme not in SCHEMES:
        raise UserError(
            f"tracking.uri '{uri}' is not a tracking store: use sqlite:///FILE, http(s)://SERVER or a database URL."
        )
    file = sqlite_path(uri)
    if file is None:
        return
    if not file.parent.is_dir():
        raise TrackingError(f"tracking store {file}: the folder {file.parent} does not exist; make it first.")
    if not os.access(file.parent, os.W_OK) or (file.exists() and not os.access(file, os.W_OK)):
        raise TrackingError(f"tracking store {file} is read-only for you: choose another with tracking.uri.")
    if file.exists():
        _check_sqlite(file)


def _check_sqlite(file: Path) -> None:
    """Open the database, ask for the write lock and give it back, and read the schema version."""
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=10)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and not {"runs", "alembic_version"} <= tables:
                raise TrackingError(f"tracking store {file} is a SQLite database, but not one of MLflow's.")
            version = database.execute("SELECT version_num FROM alembic_version").fetchone() if tables else None
    except sqlite3.Error as error:
        raise TrackingError(f"tracking store {file} cannot be used: {_sqlite_reason(error)}") from error
    if version and not _known_schema(version[0]):
        raise TrackingError(
            f"tracking store {file} has schema {version[0]}, which is newer than the installed MLflow knows: "
            "upgrade MLflow (pip install -U mlflow) or choose another store with tracking.uri."
        )


def _sqlite_reason(error: sqlite3.Error) -> str:
    text = str(error)
    if "locked" in text:
        return "another program holds its lock; close it, or wait, and run the same command again."
    if "readonly" in text:
        return "it is read-only; choose another with tracking.uri."
    if "not a database" in text or "malformed" in text:
        return "the file is damaged or no SQLite database; move it away or choose another with tracking.uri."
    if "full" in text:
        return "the disk is full; make room and run the same command again."
    return f"{text}."


def _known_schema(version: str) -> bool:
    """True when one of the installed MLflow's migrations has this revision."""
    from importlib.util import find_spec

    package = find_spec("mlflow")
    if package is None or package.origin is None:
        return True
    migrations = Path(package.origin).parent / "store" / "db_migrations" / "versions"
    return not migrations.is_dir() or any(migrations.glob(f"{version}_*.py"))


def _client(uri: str) -> "MlflowClient":
    """A client for `uri`; MLflow is told to be quiet, to send nothing home and to give up on a dead server soon."""
    for key, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    }.items():
        os.environ.setdefault(key, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it prints tracebacks of what is raised, and told, anyway
    from mlflow import MlflowClient

    # MLflow keeps one store for each URI it has seen: a relative path would be that of the first working directory.
    file = sqlite_path(uri)
    return MlflowClient(tracking_uri=uri if file is None else f"sqlite:///{file}")


def _create_sqlite(file: Path) -> None:
    """Make a new SQLite store beside its place and put it there whole.

    Several processes that open a new store at once break it, and one that is killed leaves half the tables.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        with _plain_errors(f"sqlite:///{draft}"):
            _client(f"sqlite:///{draft}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # another process was first: its store serves as well
            file.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)


def _remove_drafts(file: Path) -> None:
    """Remove drafts of a store whose makers were killed; SQLite's journals of them too."""
    import psutil

    for draft in file.parent.glob(f".{file.name}.*.new*"):
        pid = draft.name.removeprefix(f".{file.name}.").partition(".")[0]
        if not (pid.isdigit() and psutil.pid_exists(int(pid))):
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _plain_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow and its transports raise into one sentence."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except UserError:
        raise
    except MlflowException as error:
        text = str(error).splitlines()[0]
        if "out-of-date" in text:
            raise TrackingError(
                f"tracking store {uri} was made by an older MLflow: back it up, then run: mlflow db upgrade {uri}"
            ) from error
        if error.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            raise TrackingError(
                f"tracking server {uri} refuses the login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            ) from error
        if "disk is full" in str(error) or "No space left" in str(error):
            raise StoreUnreachable(f"tracking store {uri}: the disk is full; make room.") from error
        transient = ("locked", "Max retries", "timed out", "Connection", "disk I/O", "temporarily")
        kind = StoreUnreachable if any(word in str(error) for word in transient) else TrackingError
        raise kind(f"tracking store {uri} does not take the request: {text}") from error
    except OSError as error:  # requests' ConnectionError among them
        raise StoreUnreachable(f"tracking store {uri} cannot be reached: {error}") from error


# ---- the store --------------------------------------------------------------------------------------------


class Store:
    """One experiment in one MLflow store. Not thread-safe but for `known`: a single writer uses it."""

    def __init__(self, uri: str, experiment: str, *, create: bool = True) -> None:
        """Open, or create, the experiment.

        Raises:
            TrackingError: the store cannot be used, or `create` is False and the experiment is not there.
        """
        check_store(uri)
        self.uri, self.name = uri, experiment
        file = sqlite_path(uri)
        if file is not None:
            _remove_drafts(file)
            if not file.exists():
                _create_sqlite(file)
        self._client = _client(uri)
        with _plain_errors(uri):
            self.experiment_id = self._experiment(create)

    @staticmethod
    def experiments(uri: str) -> list[str]:
        """Names of the experiments in a store.

        Raises:
            TrackingError: the store cannot be used.
        """
        check_store(uri)
        client = _client(uri)
        with _plain_errors(uri):
            return sorted(experiment.name for experiment in client.search_experiments())

    def _experiment(self, create: bool) -> str:
        found = self._client.get_experiment_by_name(self.name)
        if found is not None:
            if found.lifecycle_stage != "active":
                raise TrackingError(
                    f"experiment '{self.name}' was deleted in {self.uri}: restore it "
                    f"(mlflow experiments restore -x {found.experiment_id}) or give the grid another name."
                )
            return str(found.experiment_id)
        if not create:
            names = ", ".join(sorted(e.name for e in self._client.search_experiments())) or "none"
            raise TrackingError(f"no experiment '{self.name}' in {self.uri}; there are: {names}.")
        file = sqlite_path(self.uri)
        location = (file.parent / "mlartifacts" / safe_name(self.name)).as_uri() if file else None
        try:
            return str(self._client.create_experiment(self.name, artifact_location=location))
        except Exception:  # another scheduler made it a moment ago
            again = self._client.get_experiment_by_name(self.name)
            if again is None:
                raise
            return str(again.experiment_id)

    # ---- reading ------------------------------------------------------------------------------------------

    def _search(self, query: str) -> Iterator["Run"]:
        token = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id], query, max_results=_PAGE, page_token=token, order_by=["attributes.start_time ASC"]
            )
            yield from page
            token = page.token
            if not token:
                return

    def known(self, training_id: str | None = None) -> dict[str, Known]:
        """Trainings the store has, by id; only `training_id` when given.

        A training that has finished names its conditions in a tag; of one cut short, or of very many, the cells are
        looked up.
        """
        query = "tags.stage = 'training'" + (f" AND tags.training_id = '{training_id}'" if training_id else "")
        with _plain_errors(self.uri):
            found: dict[str, Known] = {}
            for run in self._search(query):
                identity, tags = run.data.tags["training_id"], run.data.tags
                conditions = frozenset(filter(None, tags.get("conditions", "").split(",")))
                if run.info.status != "FINISHED" or not conditions:
                    conditions = frozenset(self._cells(identity, "FINISHED"))
                if identity not in found or run.info.status == "FINISHED":
                    saved = frozenset(filter(None, tags.get("saved", "").split(",")))
                    found[identity] = Known(run.info.run_id, run.info.status, conditions, saved)
            return found

    def finished_cells(self) -> frozenset[str]:
        """Ids of all finished cells."""
        with _plain_errors(self.uri):
            runs = self._search("tags.stage = 'cell' AND attributes.status = 'FINISHED'")
            return frozenset(run.data.tags["cell_id"] for run in runs)

    def _cells(self, training_id: str, status: str | None = None) -> dict[str, str]:
        """Condition -> run id of a training's cell runs."""
        query = f"tags.stage = 'cell' AND tags.training_id = '{training_id}'"
        if status:
            query += f" AND attributes.status = '{status}'"
        return {_condition(run.data.tags): run.info.run_id for run in self._search(query)}

    def _rows(self, stage: str) -> "Iterator[_Row]":
        """The runs of a stage, oldest first."""
        store = self._database()
        if store is not None:
            yield from _read_rows(store, self.experiment_id, stage)
            return
        for run in self._search(f"tags.stage = '{stage}'"):
            data = run.data
            finished = run.info.status == "FINISHED"
            yield _Row(run.info.run_id, finished, dict(data.tags), dict(data.metrics), dict(data.params))

    def _database(self) -> Any:
        """MLflow's own store where it is a database, else None."""
        store: Any = getattr(getattr(self._client, "_tracking_client", None), "store", None)
        return store if hasattr(store, "ManagedSessionMaker") else None

    # ---- writing ------------------------------------------------------------------------------------------

    def open_grid(self, digest: str, tags: Mapping[str, str], files: Mapping[str, str], started_ms: int) -> str:
        """The grid's run: found by the digest of what it asks for, or made with its tags and text files."""
        with _plain_errors(self.uri):
            for run in self._search(f"tags.stage = 'grid' AND tags.grid_digest = '{digest}'"):
                self._client.update_run(run.info.run_id, status="RUNNING")
                return str(run.info.run_id)
            tags = {"stage": "grid", "grid_digest": digest, **tags}
            run = self._client.create_run(
                self.experiment_id, start_time=started_ms, tags=tags, run_name=f"grid {self.name}"
            )
            for name, text in files.items():
                self._client.log_text(run.info.run_id, text, name)
            return str(run.info.run_id)

    def close_run(self, run_id: str, status: str) -> None:
        with _plain_errors(self.uri):
            self._client.set_terminated(run_id, status)

    def begin(self, record: Mapping[str, Any], grid_run: str, started_ms: int) -> tuple[str, bool]:
        """A run for a training that started at `started_ms`, and whether it is new.

        An earlier attempt that left no finished cell is deleted; one that did is kept, to be completed.
        """
        with _plain_errors(self.uri):
            known = self.known(record["training_id"]).get(record["training_id"])
            if known is not None and (known.status == "FINISHED" or known.conditions):
                return known.run_id, False
            if known is not None:
                self._client.delete_run(known.run_id)
            return self._create_training(record, grid_run, started_ms), True

    def _create_training(self, record: Mapping[str, Any], grid_run: str, started_ms: int) -> str:
        tags = {"stage": "training", "mlflow.parentRunId": grid_run, **record["tags"], **record["training_tags"]}
        run = self._client.create_run(self.experiment_id, start_time=started_ms, tags=tags, run_name=record["name"])
        return str(run.info.run_id)

    def write(self, outcome: Outcome, grid_run: str, run_id: str | None = None, *, fresh: bool = False) -> str:
        """Write the outcome of a training; repeating it changes nothing. Returns the training's run id.

        Args:
            outcome: what the worker made.
            grid_run: parent of a training run that has to be made.
            run_id: the training's run, where it is known.
            fresh: the run was made by this process and nothing was written to it, so nothing need be looked up.
        """
        record = outcome["record"]
        with _plain_errors(self.uri):
            known = None if fresh else self.known(record["training_id"]).get(record["training_id"])
            if run_id is None:
                started_ms: int = outcome["started_ms"] if "started_ms" in outcome else outcome["ended_ms"]
                run_id = known.run_id if known else self._create_training(record, grid_run, started_ms)
            if outcome["status"] == "failed":
                self._write_failure(run_id, outcome)
                return run_id
            finished = known is not None and known.status == "FINISHED"
            if not finished:
                self._write_training(run_id, outcome)
            self._write_cells(run_id, outcome, {} if fresh else self._cells(record["training_id"]), known)
            if not finished:
                self._client.set_terminated(run_id, "FINISHED", end_time=outcome["ended_ms"])
            return run_id

    def keep_arrays(self, run_id: str, file: Path, saved: Sequence[str]) -> None:
        """Keep the arrays of a training with its run; repeating it changes nothing."""
        if not saved or not file.exists():
            return
        with _plain_errors(self.uri), tempfile.TemporaryDirectory() as folder:
            named = Path(folder) / ARRAYS
            named.symlink_to(file.absolute())
            self._client.log_artifact(run_id, str(named))
            self._client.set_tag(run_id, "saved", ",".join(sorted(saved)))

    def arrays(self, wanted: "Container[str] | None" = None) -> "Iterator[tuple[dict[str, str], Path]]":
        """Every finished training that kept arrays: its tags, and the file on this machine while the next is not asked.

        An artifact that is gone is told with a path that does not exist.

        Args:
            wanted: ids of trainings; None: all.
        """
        for run in self._search("tags.stage = 'training' AND attributes.status = 'FINISHED'"):
            if "saved" not in run.data.tags or (wanted is not None and run.data.tags["training_id"] not in wanted):
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / ARRAYS
                with contextlib.suppress(Exception):  # MLflow raises whatever its artifact store does
                    path = Path(self._client.download_artifacts(run.info.run_id, ARRAYS, folder))
                yield dict(run.data.tags), path

    def _write_failure(self, run_id: str, outcome: Outcome) -> None:
        self._client.set_tag(run_id, "failure", outcome["reason"][:4000])
        if outcome.get("traceback"):
            self._client.log_text(run_id, outcome["traceback"], "traceback.txt")
        self._client.set_terminated(run_id, "FAILED", end_time=outcome["ended_ms"])

    def _write_training(self, run_id: str, outcome: Outcome) -> None:
        from mlflow.entities import Dataset, DatasetInput, Metric, Param

        record = outcome["record"]
        metrics = [Metric(f"cost/{key}", value, outcome["ended_ms"], 0) for key, value in outcome["cost"].items()]
        metrics.append(Metric("best_epoch", outcome["best_epoch"], outcome["ended_ms"], 0))
        for step, row in enumerate(outcome["curves"], start=1):
            stamp = int(row["time_ms"])
            metrics += [Metric(key, value, stamp, step) for key, value in row.items() if key != "time_ms"]
        params = [Param(key, value[:6000]) for key, value in record["params"].items()]
        self._client.log_batch(run_id, metrics=metrics[:_BATCH], params=params)
        for start in range(_BATCH, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        data = record["data"]
        dataset = Dataset(
            name=data["name"],
            digest=data["fingerprint"][:36],
            source_type="robult-bench",
            source=json.dumps({"data_set": data["name"]}),
            profile=json.dumps(data["sizes"]),
        )
        self._client.log_inputs(run_id, [DatasetInput(dataset)])
        if outcome.get("warning"):
            self._client.set_tag(run_id, "warning", outcome["warning"][:4000])

    def _write_cells(self, training_run: str, outcome: Outcome, there: Mapping[str, str], known: Known | None) -> None:
        """Make the cell runs that are missing, complete those cut short, leave the finished ones alone."""
        record, stamp = outcome["record"], outcome["ended_ms"]
        done = known.conditions if known else frozenset()
        for name, scores in outcome["cells"].items():
            if name in done:
                continue
            run_id = there.get(name) or self._create_cell(record, name, training_run, stamp)
            self._client.log_batch(run_id, metrics=list(_cell_metrics(scores, stamp)))
            self._client.set_terminated(run_id, "FINISHED", end_time=stamp)
        finished = ",".join(sorted({*outcome["cells"], *done}))
        if len(finished) <= _TAG_LENGTH:
            self._client.set_tag(training_run, "conditions", finished)

    def _create_cell(self, record: Mapping[str, Any], name: str, training_run: str, stamp: int) -> str:
        subset, corruption = split_condition(name)
        tags = {
            "stage": "cell",
            "mlflow.parentRunId": training_run,
            "cell_id": record["cells"][name],
            "modalities": subset,
            "corruption": str(corruption),
            **record["tags"],
        }
        run = self._client.create_run(self.experiment_id, start_time=stamp, tags=tags, run_name=name)
        return str(run.info.run_id)

    def kill(self, run_ids: Iterable[str]) -> None:
        """Mark runs that were cut short."""
        with _plain_errors(self.uri):
            for run_id in run_ids:
                self._client.set_terminated(run_id, "KILLED")

    def log_files(self, run_id: str, folder: Path, under: str) -> None:
        """Keep every file of `folder` as an artifact of the run, below `under`."""
        with _plain_errors(self.uri):
            self._client.log_artifacts(run_id, str(folder), under)

    # ---- results ------------------------------------------------------------------------------------------

    def latest_grid(self) -> "Run | None":
        """The experiment's newest grid run."""
        with _plain_errors(self.uri):
            runs = list(self._search("tags.stage = 'grid'"))
            return runs[-1] if runs else None

    def text(self, run_id: str, name: str) -> str:
        """A text file kept with a run.

        Raises:
            TrackingError: it is not there.
        """
        with tempfile.TemporaryDirectory() as folder:
            try:
                return Path(self._client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")
            except Exception as error:  # MLflow raises whatever its artifact store does
                raise TrackingError(f"the file {name} of run {run_id} is missing from {self.uri}.") from error

    def failures(self) -> list[dict[str, str]]:
        """Trainings whose last attempt failed: their tags, `failure` with the reason among them."""
        with _plain_errors(self.uri):
            return [run.data.tags for run in self._search("tags.stage = 'training' AND attributes.status = 'FAILED'")]

    def trainings(self) -> "pd.DataFrame":
        """One row a finished training, oldest first: its tags, `run_id`, and its last metrics by their names.

        Parameters are columns too, as `param/method.tau`.
        """
        import pandas as pd

        with _plain_errors(self.uri):
            rows = [
                {key: value for key, value in row.tags.items() if not key.startswith("mlflow.")}
                | row.metrics
                | {f"param/{key}": value for key, value in row.params.items()}
                | {"run_id": row.run_id}
                for row in self._rows("training")
                if row.finished
            ]
        return pd.DataFrame(rows)

    def settings(self) -> "pd.DataFrame":
        """What the finished trainings were made with, one row a setting: `dataset`, `method`, `key`, `value`.

        Keys are those of the parameters (`method.tau`, `train.epochs`), `data` for the fingerprint and `protocol`.
        """
        import pandas as pd

        rows = []
        with _plain_errors(self.uri):
            for run in self._search("tags.stage = 'training' AND attributes.status = 'FINISHED'"):
                tags = run.data.tags
                told = list(run.data.params.items())
                told += [("protocol", tags["protocol"])] if "protocol" in tags else []
                told += [("data", given.dataset.digest) for given in (run.inputs.dataset_inputs if run.inputs else [])]
                rows += [(tags["dataset"], tags["method"], key, value) for key, value in told]
        return pd.DataFrame(rows, columns=["dataset", "method", "key", "value"]).drop_duplicates(ignore_index=True)

    def versions(self) -> dict[str, str]:
        """What the newest grid run ran on: `python`, `platform`, `devices`, `commit`, packages; empty if unknown."""
        grid = self.latest_grid()
        if grid is None:
            return {}
        commit = grid.data.tags.get("mlflow.source.git.commit")
        with tempfile.TemporaryDirectory() as folder:
            try:
                file = Path(self._client.download_artifacts(grid.info.run_id, "environment.json", folder))
                told = json.loads(file.read_text(encoding="utf-8"))
                devices = ", ".join(sorted(set(told["torch_devices"])))
                versions = {"python": told["python"], "platform": told["platform"], "devices": devices}
                versions |= told["packages"]
            except Exception:  # MLflow raises whatever its artifact store does; an artifact is never essential
                versions = {}
        return versions | ({"commit": commit[:12]} if commit else {})

    def curves(self, keys: Sequence[str] = ("valid/score", "train/*", "diagnose/*")) -> "pd.DataFrame":
        """Curves of the finished trainings, one row a value: tags, `key`, `epoch` (from 1), `value`.

        Of an epoch that was written twice the later value counts. A database is asked for many runs at once, a server
        for one run and key at a time, by several threads.

        Args:
            keys: names of metrics; `*` stands for anything. Ask for few: this reads every epoch of every training.
        """
        import pandas as pd

        with _plain_errors(self.uri):
            runs = list(self._search("tags.stage = 'training' AND attributes.status = 'FINISHED'"))
            having: dict[str, list[str]] = {}
            for run in runs:
                for key in run.data.metrics:
                    if any(fnmatchcase(key, pattern) for pattern in keys):
                        having.setdefault(key, []).append(run.info.run_id)
            found = pd.DataFrame(self._histories(having), columns=["run_id", "key", "epoch", "time", "value"])
        found = found.sort_values(["run_id", "key", "epoch", "time"], kind="stable")
        found = found[found["epoch"] > 0].drop_duplicates(["run_id", "key", "epoch"], keep="last")
        tags = pd.DataFrame([(run.info.run_id, *_curve_tags(run)) for run in runs], columns=["run_id", *CURVE_TAGS])
        tags = tags.drop_duplicates("training_id")
        return tags.merge(found.drop(columns="time"), on="run_id", how="inner")

    def _histories(self, having: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, int, int, float]]:
        """Every value of the named metrics: run, key, step, time, value.

        Args:
            having: metric -> runs that have it.
        """
        store = self._database()
        if store is not None:
            yield from _read_histories(store, having)
            return
        asked = [(run_id, key) for key, run_ids in having.items() for run_id in run_ids]
        with ThreadPoolExecutor(_READERS) as pool:
            histories = pool.map(lambda each: self._client.get_metric_history(*each), asked)
            for (run_id, key), history in zip(asked, histories, strict=True):
                for metric in history:
                    yield run_id, key, metric.step, metric.timestamp, metric.value

    def results(self) -> "pd.DataFrame":
        """Every finished cell of the experiment as the frame `analysis.results` describes."""
        import pandas as pd

        with _plain_errors(self.uri):
            trainings = {row.tags["training_id"]: row.tags for row in self._rows("training")}
            rows = [result for row in self._rows("cell") if row.finished for result in _result_rows(row, trainings)]
        return pd.DataFrame(rows, columns=RESULT_COLUMNS)


@dataclass
class _Row:
    """What is read of a run."""

    run_id: str
    finished: bool
    tags: dict[str, str]
    metrics: dict[str, float]
    params: dict[str, str]


def _read_rows(store: Any, experiment_id: str, stage: str) -> Iterator[_Row]:
    """The active runs of a stage from MLflow's own tables, which its search would make many objects of.

    100,000 cells took several minutes by searching and take seconds as rows.
    """
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag

    r: Any = SqlRun
    t: Any = SqlTag
    m: Any = SqlLatestMetric
    p: Any = SqlParam
    with store.ManagedSessionMaker() as session:
        named = session.query(t.run_uuid).filter(t.key == "stage", t.value == stage)
        runs = session.query(r.run_uuid, r.status).filter(
            r.experiment_id == int(experiment_id), r.lifecycle_stage == "active", r.run_uuid.in_(named)
        )
        ordered = runs.order_by(r.start_time, r.run_uuid)
        rows = {run_id: _Row(run_id, status == "FINISHED", {}, {}, {}) for run_id, status in ordered}
        for run_id, key, value in session.query(t.run_uuid, t.key, t.value).filter(t.run_uuid.in_(named)):
            if run_id in rows:
                rows[run_id].tags[key] = value
        for run_id, key, value, undefined in session.query(m.run_uuid, m.key, m.value, m.is_nan).filter(
            m.run_uuid.in_(named)
        ):
            if run_id in rows:
                rows[run_id].metrics[key] = float("nan") if undefined else value
        if stage == "training":
            for run_id, key, value in session.query(p.run_uuid, p.key, p.value).filter(p.run_uuid.in_(named)):
                if run_id in rows:
                    rows[run_id].params[key] = value
    yield from rows.values()


def _read_histories(store: Any, having: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, int, int, float]]:
    """As `Store._histories`, from MLflow's own table, which its bulk call would make an object of for each value.

    280,000 values of 1,000 runs took 15 s by that call and 2 s as rows.
    """
    from mlflow.store.tracking.dbmodels.models import SqlMetric

    m: Any = SqlMetric
    with store.ManagedSessionMaker() as session:
        for key, run_ids in having.items():
            for start in range(0, len(run_ids), _HISTORIES):
                part = run_ids[start : start + _HISTORIES]
                rows = session.query(m.run_uuid, m.step, m.timestamp, m.value, m.is_nan)
                for run_id, step, stamp, value, undefined in rows.filter(m.key == key, m.run_uuid.in_(part)):
                    yield run_id, key, step, stamp, float("nan") if undefined else value


CURVE_TAGS = ["dataset", "label_ratio", "method", "seed", "training_id"]


def _curve_tags(run: "Run") -> tuple[Any, ...]:
    """A training's `CURVE_TAGS`."""
    tags = run.data.tags
    return tags["dataset"], float(tags["label_ratio"]), tags["method"], int(tags["seed"]), tags["training_id"]


RESULT_COLUMNS = [
    "dataset", "label_ratio", "modalities", "corruption", "method", "seed", "checkpoint", "metric", "value",
    "higher_is_better", "primary", "n_modalities", "full", "training_id", "run_id",
]  # fmt: skip


def _condition(tags: Mapping[str, str]) -> str:
    """The condition a cell run was tested under."""
    return condition(tags["modalities"], Corruption.parse(tags.get("corruption", "")))


def _cell_metrics(scores: Mapping[str, Mapping[str, float]], stamp: int) -> "Iterator[Metric]":
    """`last/acc`, `best/acc`, ...: few keys, because the UI slows down with thousands."""
    from mlflow.entities import Metric

    for checkpoint, row in scores.items():
        for name, value in row.items():
            yield Metric(f"{checkpoint}/{name}", value, stamp, 0)


def _result_rows(row: _Row, trainings: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[Any, ...]]:
    """The rows of one cell, one for each checkpoint and metric."""
    tags = row.tags
    training = trainings.get(tags["training_id"], {})
    higher = training.get("higher_is_better", "").split(",")
    for key, value in sorted(row.metrics.items()):
        checkpoint, _, metric = key.partition("/")
        yield (
            tags["dataset"], float(tags["label_ratio"]), tags["modalities"], tags.get("corruption", ""),
            tags["method"], int(tags["seed"]), checkpoint, metric, value,
            metric in higher, metric == training.get("primary_metric"),
            tags["modalities"].count("+") + 1, tags["modalities"] == training.get("full_subset"),
            tags["training_id"], row.run_id,
        )  # fmt: skip
