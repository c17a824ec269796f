"""What the suite tells MLflow; every write is safe to repeat: what is already there is found and kept."""

import json
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.spool import Outcome
from bench.tracking.client import plain_errors
from bench.tracking.places import sqlite_path, state_folder
from bench.tracking.reading import ARRAYS, Known, Reader
from bench.tracking.tables import NewRun, Row, Value, finish_run
from datasets.corruption import split_condition

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_BATCH = 1000
"""The most metrics MLflow takes in one `log_batch`."""
_TAG_LENGTH = 4000
"""The longest tag that is worth reading with every run; MLflow takes 8000 characters."""
_AT_ONCE = 4
"""Cells that a server is told of at once: it has several processes, and most of a request is waiting."""
_PARAM_LENGTH = 6000
"""The longest parameter; every MLflow since 2.8 takes it."""


class Store(Reader):
    """Reads and writes one experiment. Not thread-safe but for `known`: a single writer uses it.

    Schedulers of one state folder never work on the same training. Those of several machines, which share but a server,
    know nothing of each other: each makes runs of its own, and `settle` leaves one of them.
    """

    @cached_property
    def _scheduler(self) -> str:
        """Names the state folder whose claims keep schedulers apart; a tag of the runs that are begun under it."""
        folder = state_folder(self.uri, self.name)
        return f"{socket.gethostname()}-{sha256(str(folder).encode()).hexdigest()[:8]}"

    def open_grid(self, digest: str, tags: Mapping[str, str], files: Mapping[str, str], started_ms: int) -> str:
        """The grid's run: found by the digest of what it asks for, or made with its tags and text files."""
        with plain_errors(self.uri):
            for run in self._search(f"tags.stage = 'grid' AND tags.grid_digest = '{digest}'"):
                self._client.update_run(run.info.run_id, status="RUNNING")
                self._keep_texts(run.info.run_id, files)  # a scheduler that was killed here may have left some out
                return str(run.info.run_id)
            tags = {"stage": "grid", "grid_digest": digest, **tags}
            run = self._client.create_run(
                self.experiment_id, start_time=started_ms, tags=tags, run_name=f"grid {self.name}"
            )
            first = next(self._search(f"tags.stage = 'grid' AND tags.grid_digest = '{digest}'"), run)
            if first.info.run_id != run.info.run_id:  # another machine made one at the same moment
                self._client.delete_run(run.info.run_id)
                return str(first.info.run_id)
            self._keep_texts(run.info.run_id, files)
            return str(run.info.run_id)

    def _keep_texts(self, run_id: str, files: Mapping[str, str]) -> None:
        """Keep text files with a run, those that are not there yet."""
        there = {file.path for file in self._client.list_artifacts(run_id)}
        for name, text in files.items():
            if name not in there:
                self._client.log_text(run_id, text, name)

    def close_run(self, run_id: str, status: str) -> None:
        with plain_errors(self.uri):
            self._client.set_terminated(run_id, status)

    def begin(self, record: Mapping[str, Any], grid_run: str, started_ms: int) -> tuple[str, bool]:
        """A run for a training that started at `started_ms`, and whether it is new.

        An earlier attempt that left no finished cell is deleted; one that did is kept, to be completed. What another
        machine has under way is left alone.
        """
        with plain_errors(self.uri):
            known = self.known(record["training_id"]).get(record["training_id"])
            if known is not None and (known.status == "FINISHED" or known.conditions):
                return known.run_id, False
            if known is not None:
                for row in self._rows("training", record["training_id"], values=False):
                    if row.status != "RUNNING" or self._is_ours(row):
                        self._client.delete_run(row.run_id)
            return self._create_training(record, grid_run, started_ms), True

    def _is_ours(self, row: Row) -> bool:
        """Whether a run was begun under our state folder: if it still runs while we hold its claim, it is dead."""
        return row.tags.get("scheduler", self._scheduler) == self._scheduler

    def settle(self, training_id: str) -> None:
        """Where several machines finished the same training, leave one of its runs; whoever comes last sees them all.

        Attempts of ours that a lost answer left behind go too. In a SQLite file there is nothing to settle.
        """
        if sqlite_path(self.uri) is not None:
            return
        with plain_errors(self.uri):
            rows = list(self._rows("training", training_id, values=False))
            finished = sorted(row.run_id for row in rows if row.finished)  # an order that all of them see
            if not finished:
                return
            extra = {row.run_id for row in rows if row.status == "RUNNING" and self._is_ours(row)}
            extra.update(finished[1:])
            if not extra:
                return
            for cell in self._rows("cell", training_id, values=False):
                if cell.tags["mlflow.parentRunId"] in extra:
                    self._client.delete_run(cell.run_id)
            for run_id in sorted(extra):
                self._client.delete_run(run_id)

    def _create_training(self, record: Mapping[str, Any], grid_run: str, started_ms: int) -> str:
        tags = {"stage": "training", "mlflow.parentRunId": grid_run, "scheduler": self._scheduler}
        tags |= {**record["tags"], **record["training_tags"]}
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
        with plain_errors(self.uri):
            known = None if fresh else self.known(record["training_id"]).get(record["training_id"])
            if run_id is None:
                started_ms: int = outcome["started_ms"] if "started_ms" in outcome else outcome["ended_ms"]
                run_id = known.run_id if known else self._create_training(record, grid_run, started_ms)
            if outcome["status"] == "failed":
                self._write_failure(run_id, outcome)
            elif fresh and (database := self._database()) is not None:
                self._write_whole(database, run_id, outcome)
            else:
                self._write_by_parts(run_id, outcome, known)
            return run_id

    def _write_whole(self, database: Any, run_id: str, outcome: Outcome) -> None:
        """Into a database, in one transaction."""
        record, stamp = outcome["record"], outcome["ended_ms"]
        self._client.log_inputs(run_id, [_data_of(record)])
        cells = [
            NewRun(name, _cell_tags(record, name, run_id), list(_cell_values(scores, stamp)))
            for name, scores in outcome["cells"].items()
        ]
        tags = _end_tags(outcome, outcome["cells"])
        values = list(_training_values(outcome))
        finish_run(database, run_id, tags=tags, params=_params(record), metrics=values, below=cells, end_ms=stamp)

    def _write_by_parts(self, run_id: str, outcome: Outcome, known: Known | None) -> None:
        """To a server, or where an earlier attempt may have left something, request by request."""
        finished = known is not None and known.status == "FINISHED"
        if not finished:
            self._write_training(run_id, outcome)
        self._write_cells(
            run_id, outcome, {} if known is None else self._cells(outcome["record"]["training_id"]), known
        )
        if not finished:
            self._client.set_terminated(run_id, "FINISHED", end_time=outcome["ended_ms"])

    def keep_arrays(self, run_id: str, file: Path, saved: Sequence[str]) -> None:
        """Keep the arrays of a training with its run; repeating it changes nothing."""
        if not saved or not file.exists():
            return
        with plain_errors(self.uri), tempfile.TemporaryDirectory() as folder:
            named = Path(folder) / ARRAYS
            named.symlink_to(file.absolute())
            self._client.log_artifact(run_id, str(named))
            self._client.set_tag(run_id, "saved", ",".join(sorted(saved)))

    def _write_failure(self, run_id: str, outcome: Outcome) -> None:
        self._client.set_tag(run_id, "failure", outcome["reason"][:_TAG_LENGTH])
        if outcome.get("traceback"):
            self._client.log_text(run_id, outcome["traceback"], "traceback.txt")
        self._client.set_terminated(run_id, "FAILED", end_time=outcome["ended_ms"])

    def _write_training(self, run_id: str, outcome: Outcome) -> None:
        from mlflow.entities import Metric, Param

        metrics = [Metric(*value) for value in _training_values(outcome)]
        params = [Param(key, value) for key, value in _params(outcome["record"]).items()]
        self._client.log_batch(run_id, metrics=metrics[:_BATCH], params=params)
        for start in range(_BATCH, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        self._client.log_inputs(run_id, [_data_of(outcome["record"])])

    def _write_cells(self, training_run: str, outcome: Outcome, there: Mapping[str, str], known: Known | None) -> None:
        """Make the cell runs that are missing, complete those cut short, leave the finished ones alone."""
        from mlflow.entities import Metric

        record, stamp = outcome["record"], outcome["ended_ms"]
        done = known.conditions if known else frozenset()

        def write(name: str) -> None:
            run_id = there.get(name) or self._create_cell(record, name, training_run, stamp)
            metrics = [Metric(*value) for value in _cell_values(outcome["cells"][name], stamp)]
            self._client.log_batch(run_id, metrics=metrics)
            self._client.set_terminated(run_id, "FINISHED", end_time=stamp)

        missing = [name for name in outcome["cells"] if name not in done]
        with ThreadPoolExecutor(_AT_ONCE if self._database() is None else 1) as pool:
            writing = [pool.submit(write, name) for name in missing]
            try:
                for each in writing:
                    each.result()
            finally:  # where one fails, those that have not begun would fail in their turn
                for each in writing:
                    each.cancel()
        for key, value in _end_tags(outcome, {*outcome["cells"], *done}).items():
            self._client.set_tag(training_run, key, value)

    def _create_cell(self, record: Mapping[str, Any], name: str, training_run: str, stamp: int) -> str:
        tags = _cell_tags(record, name, training_run)
        run = self._client.create_run(self.experiment_id, start_time=stamp, tags=tags, run_name=name)
        return str(run.info.run_id)

    def kill(self, run_ids: Iterable[str]) -> None:
        """Mark runs that were cut short."""
        with plain_errors(self.uri):
            for run_id in run_ids:
                self._client.set_terminated(run_id, "KILLED")

    def log_files(self, run_id: str, folder: Path, under: str) -> None:
        """Keep every file of `folder` as an artifact of the run, below `under`."""
        with plain_errors(self.uri):
            self._client.log_artifacts(run_id, str(folder), under)


def _training_values(outcome: Outcome) -> Iterator[Value]:
    """Cost, the best epoch, and the curves."""
    for key, value in outcome["cost"].items():
        yield f"cost/{key}", value, outcome["ended_ms"], 0
    yield "best_epoch", outcome["best_epoch"], outcome["ended_ms"], 0
    for step, row in enumerate(outcome["curves"], start=1):
        for key, value in row.items():
            if key != "time_ms":
                yield key, value, int(row["time_ms"]), step


def _cell_values(scores: Mapping[str, Mapping[str, float]], stamp: int) -> Iterator[Value]:
    """`last/acc`, `best/acc`, ...: few keys, because the UI slows down with thousands."""
    for checkpoint, row in scores.items():
        for name, value in row.items():
            yield f"{checkpoint}/{name}", value, stamp, 0


def _cell_tags(record: Mapping[str, Any], name: str, training_run: str) -> dict[str, str]:
    subset, corruption = split_condition(name)
    return {
        "stage": "cell",
        "mlflow.parentRunId": training_run,
        "cell_id": record["cells"][name],
        "modalities": subset,
        "corruption": str(corruption),
        **record["tags"],
    }


def _end_tags(outcome: Outcome, conditions: Iterable[str]) -> dict[str, str]:
    """What is told of a training when it has finished: its conditions, unless they are too many, and a warning."""
    finished = ",".join(sorted(conditions))
    tags = {"conditions": finished} if len(finished) <= _TAG_LENGTH else {}
    return tags | ({"warning": outcome["warning"][:_TAG_LENGTH]} if outcome.get("warning") else {})


def _params(record: Mapping[str, Any]) -> dict[str, str]:
    return {key: value[:_PARAM_LENGTH] for key, value in record["params"].items()}


def _data_of(record: Mapping[str, Any]) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput

    data = record["data"]
    dataset = Dataset(
        name=data["name"],
        digest=data["fingerprint"][:36],
        source_type="robult-bench",
        source=json.dumps({"data_set": data["name"]}),
        profile=json.dumps(data["sizes"]),
    )
    return DatasetInput(dataset)
