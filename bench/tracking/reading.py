"""What the store has, as frames and plain values."""

import contextlib
import json
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.grid.plan import Training
from bench.tracking.client import Experiment, plain_errors
from bench.tracking.places import TrackingError
from bench.tracking.soundness import MISSING, LeftOut, cell_problem
from bench.tracking.tables import Row, read_histories, read_rows
from datasets.corruption import Corruption, condition

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run

ARRAYS = "arrays.npz"
"""Artifact of a training run that holds what `bench.arrays` describes."""
_READERS = 8
"""Threads that read curves from a server."""

CURVE_TAGS = ["dataset", "label_ratio", "method", "seed", "training_id"]
RESULT_COLUMNS = [
    "dataset", "label_ratio", "modalities", "corruption", "method", "seed", "checkpoint", "metric", "value",
    "higher_is_better", "primary", "n_modalities", "full", "training_id", "run_id",
]  # fmt: skip


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


def known_of(rows: Iterable[Row], finished_cells: Callable[[str], Iterable[str]]) -> dict[str, Known]:
    """Training id -> what is known of it.

    Args:
        rows: training runs, oldest first; one that finished counts before one that did not.
        finished_cells: conditions of a training's finished cells, asked for where its run does not name them.
    """
    found: dict[str, Known] = {}
    for row in rows:
        identity = row.tags["training_id"]
        conditions = frozenset(filter(None, row.tags.get("conditions", "").split(",")))
        if not (row.finished and conditions):
            conditions = frozenset(finished_cells(identity))
        if identity not in found or row.finished:
            saved = frozenset(filter(None, row.tags.get("saved", "").split(",")))
            found[identity] = Known(row.run_id, row.status, conditions, saved)
    return found


class Reader(Experiment):
    """Reads one experiment; `known` may be called from any thread.

    Runs whose tags cannot be used do not count; `left_out` tells of those that were met.
    """

    @cached_property
    def left_out(self) -> LeftOut:
        return LeftOut()

    def known(self, training_id: str | None = None) -> dict[str, Known]:
        """Trainings the store has, by id; only `training_id` when given.

        A training that has finished names its conditions in a tag; of one cut short, or of very many, the cells are
        looked up.
        """
        with plain_errors(self.uri):
            rows = self._rows("training", training_id, values=False)
            return known_of(rows, lambda identity: self._cells(identity, finished=True))

    def _cells(self, training_id: str, *, finished: bool = False) -> dict[str, str]:
        """Condition -> run id of a training's cell runs; only of the finished ones where asked."""
        rows = self._rows("cell", training_id, values=False)
        return {condition_of(row.tags): row.run_id for row in rows if row.finished or not finished}

    def _rows(self, stage: str, training_id: str | None = None, *, values: bool = True) -> "Iterator[Row]":
        """The runs of a stage, oldest first; a database may leave out metrics and parameters, which costs it time."""
        store = self._database()
        if store is not None:
            rows = read_rows(store, self.experiment_id, stage, training_id, values=values)
        else:
            query = f"tags.stage = '{stage}'" + (f" AND tags.training_id = '{training_id}'" if training_id else "")
            rows = map(_row_of, self._search(query))
        return (row for row in rows if self.left_out.is_sound(stage, row.run_id, row.tags))

    def _finished_trainings(self) -> "Iterator[Run]":
        """The runs of finished trainings, as MLflow has them."""
        for run in self._search("tags.stage = 'training' AND attributes.status = 'FINISHED'"):
            if self.left_out.is_sound("training", run.info.run_id, run.data.tags):
                yield run

    def arrays(self, wanted: "Container[str] | None" = None) -> "Iterator[tuple[dict[str, str], Path]]":
        """Every finished training that kept arrays: its tags, and the file on this machine while the next is not asked.

        An artifact that is gone is told with a path that does not exist.

        Args:
            wanted: ids of trainings; None: all.
        """
        for run in self._finished_trainings():
            if "saved" not in run.data.tags or (wanted is not None and run.data.tags["training_id"] not in wanted):
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / ARRAYS
                with contextlib.suppress(Exception):  # MLflow raises whatever its artifact store does
                    path = Path(self._client.download_artifacts(run.info.run_id, ARRAYS, folder))
                yield dict(run.data.tags), path

    def latest_grid(self) -> "Run | None":
        """The experiment's newest grid run."""
        return next(iter(self.grids()), None)

    def grids(self) -> "list[Run]":
        """The experiment's grid runs, newest first."""
        with plain_errors(self.uri):
            return list(self._search("tags.stage = 'grid'"))[::-1]

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
        with plain_errors(self.uri):
            return [row.tags for row in self._rows("training", values=False) if row.status == "FAILED"]

    def trainings(self) -> "pd.DataFrame":
        """One row a finished training, oldest first: its tags, `run_id`, and its last metrics by their names.

        Parameters are columns too, as `param/method.tau`.
        """
        import pandas as pd

        with plain_errors(self.uri):
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
        with plain_errors(self.uri):
            for run in self._finished_trainings():
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

        with plain_errors(self.uri):
            runs = list(self._finished_trainings())
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
            yield from read_histories(store, having)
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

        with plain_errors(self.uri):
            trainings = {row.tags["training_id"]: row.tags for row in self._rows("training")}
            cells = [row for row in self._rows("cell") if row.finished and self._fits(row, trainings)]
        rows = [result for row in cells for result in _result_rows(row, trainings[row.tags["training_id"]])]
        return pd.DataFrame(rows, columns=RESULT_COLUMNS)

    def _fits(self, cell: Row, trainings: Mapping[str, Mapping[str, str]]) -> bool:
        """Whether the training of a cell, which says what its metrics mean, is there and agrees with it."""
        identity = cell.tags["training_id"]
        if identity in self.left_out.trainings:
            return False
        if identity in trainings:
            problem = cell_problem(cell.tags, trainings[identity])
        else:
            problem = f"the run of training {identity} {MISSING}"
        if problem:
            self.left_out.add("cell", problem, cell.run_id)
        return not problem


def _row_of(run: "Run") -> Row:
    data = run.data
    return Row(run.info.run_id, run.info.status, dict(data.tags), dict(data.metrics), dict(data.params))


def _curve_tags(run: "Run") -> tuple[Any, ...]:
    """A training's `CURVE_TAGS`."""
    tags = run.data.tags
    return tags["dataset"], float(tags["label_ratio"]), tags["method"], int(tags["seed"]), tags["training_id"]


def condition_of(tags: Mapping[str, str]) -> str:
    """The condition a cell run was tested under."""
    return condition(tags["modalities"], Corruption.parse(tags.get("corruption", "")))


def _result_rows(row: Row, training: Mapping[str, str]) -> Iterator[tuple[Any, ...]]:
    """The rows of one cell, one for each checkpoint and metric; `training` has the tags of its training."""
    tags = row.tags
    higher = training["higher_is_better"].split(",")
    for key, value in sorted(row.metrics.items()):
        checkpoint, _, metric = key.partition("/")
        yield (
            tags["dataset"], float(tags["label_ratio"]), tags["modalities"], tags.get("corruption", ""),
            tags["method"], int(tags["seed"]), checkpoint, metric, value,
            metric in higher, metric == training["primary_metric"],
            tags["modalities"].count("+") + 1, tags["modalities"] == training["full_subset"],
            tags["training_id"], row.run_id,
        )  # fmt: skip
