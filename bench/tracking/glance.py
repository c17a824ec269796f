"""What a SQLite store has of an experiment, read without MLflow, whose import takes longer than looking does."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from bench.tracking.places import TrackingError, deleted, sqlite_problem
from bench.tracking.reading import Known, condition_of, known_of
from bench.tracking.soundness import LeftOut
from bench.tracking.tables import OWN_TAG, Row

_RUNS = """
    SELECT r.run_uuid, r.status, t.key, t.value
    FROM runs r
    JOIN tags own ON own.run_uuid = r.run_uuid AND own.key = ?
    JOIN tags t ON t.run_uuid = r.run_uuid
    WHERE r.experiment_id = ? AND r.lifecycle_stage = 'active'
    ORDER BY r.start_time, r.run_uuid
"""
_NEWEST = """
    WITH newest AS (
        SELECT r.run_uuid
        FROM runs r
        JOIN tags own ON own.run_uuid = r.run_uuid AND own.key = ?
        WHERE r.experiment_id = ? AND r.lifecycle_stage = 'active' AND r.status = 'FINISHED'
        ORDER BY r.start_time DESC LIMIT ?
    )
    SELECT run_uuid, 'tags', key, value FROM tags JOIN newest USING (run_uuid)
    UNION ALL
    SELECT run_uuid, 'params', key, value FROM params JOIN newest USING (run_uuid) WHERE key LIKE 'train.%'
    UNION ALL
    SELECT run_uuid, 'metrics', key, value FROM latest_metrics JOIN newest USING (run_uuid) WHERE key LIKE 'cost/%'
"""


class Glance:
    """One experiment in a SQLite file as it is at the moment of opening, for reading alone."""

    def __init__(self, file: Path, experiment: str) -> None:
        """Look into the store.

        Raises:
            TrackingError: the file cannot be read, or the experiment was deleted.
        """
        self._trainings: list[Row] = []
        self._conditions: dict[str, list[str]] = {}
        """Training id -> conditions of its finished cells, where some training does not name them."""
        self._grids: list[Row] = []
        self._file, self._id = file, -1
        with self._opened() as database:
            found = database.execute(
                "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?", (experiment,)
            ).fetchone()
            if found is None:
                return
            if found[1] != "active":
                raise TrackingError(deleted(experiment, f"sqlite:///{file}", str(found[0])))
            self._id = found[0]
            self._read(database)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Able to write, though nothing is: what a killed writer left half done has to be rolled back first."""
        place = f"file:{quote(str(self._file))}?mode=rw"
        try:
            with contextlib.closing(sqlite3.connect(place, timeout=10, uri=True)) as database:
                yield database
        except sqlite3.Error as error:
            raise sqlite_problem(self._file, error) from error

    def _read(self, database: sqlite3.Connection) -> None:
        sound = LeftOut().is_sound
        trainings = _runs(database, self._id, OWN_TAG["training"])
        self._trainings = [row for row in trainings if sound("training", row.run_id, row.tags)]
        self._grids = list(_runs(database, self._id, "grid_digest"))
        if any(not (row.finished and row.tags.get("conditions")) for row in self._trainings):
            for row in _runs(database, self._id, OWN_TAG["cell"]):
                if row.finished and sound("cell", row.run_id, row.tags):
                    self._conditions.setdefault(row.tags["training_id"], []).append(condition_of(row.tags))

    def known(self) -> dict[str, Known]:
        """As `Reader.known`."""
        return known_of(self._trainings, lambda training_id: self._conditions.get(training_id, ()))

    def grid_is_finished(self, digest: str) -> bool:
        """Whether a run of this very grid ended well."""
        return any(row.finished and row.tags["grid_digest"] == digest for row in self._grids)

    def newest(self, count: int) -> list[Row]:
        """The newest finished trainings, with their `train` parameters and what they cost alone."""
        rows: dict[str, Row] = {}
        with self._opened() as database:
            for run_id, kind, key, value in database.execute(_NEWEST, (OWN_TAG["training"], self._id, count)):
                getattr(rows.setdefault(run_id, Row(run_id, "FINISHED", {}, {}, {})), kind)[key] = value
        return list(rows.values())


def _runs(database: sqlite3.Connection, experiment_id: int, own_tag: str) -> Iterator[Row]:
    """The active runs that have a tag which only those of one stage have, oldest first."""
    rows: dict[str, Row] = {}
    for run_id, status, key, value in database.execute(_RUNS, (own_tag, experiment_id)):
        rows.setdefault(run_id, Row(run_id, status, {}, {}, {})).tags[key] = value
    yield from rows.values()
