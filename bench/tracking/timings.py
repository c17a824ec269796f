"""How long the finished trainings of an experiment took, for the cost model."""

from collections.abc import Iterator
from typing import Any

from bench.scheduling.cost_model import Measured
from bench.tracking.client import plain_errors
from bench.tracking.reading import Reader
from bench.tracking.tables import Row

NEWEST = 2000
"""Trainings that are looked at; more would tell little more and cost a large grid's start."""


def timings(store: Reader) -> list[Measured]:
    """The newest finished trainings with what they took.

    Raises:
        TrackingError: the store cannot be read.
    """
    with plain_errors(store.uri):
        database = store._database()
        rows = _searched(store) if database is None else _selected(database, store.experiment_id)
        return [seen for row in rows if (seen := _measured(row)) is not None]


def _measured(row: Row) -> Measured | None:
    tags, params, cost = row.tags, row.params, row.metrics
    try:
        return Measured(
            tags["training_id"], tags["method_id"], tags["dataset"], int(params["train.epochs"]),
            int(params["train.batch_size"]), cost["cost/wall_s"], int(cost.get("cost/stack", 1)),
            "cuda" if cost.get("cost/gpu") else "cpu",
        )  # fmt: skip
    except (KeyError, ValueError):
        return None  # of an earlier version


def _searched(store: Reader) -> Iterator[Row]:
    query = "tags.stage = 'training' AND attributes.status = 'FINISHED'"
    found = store._client.search_runs(
        [store.experiment_id], query, max_results=min(NEWEST, 1000), order_by=["attributes.start_time DESC"]
    )
    for run in found:
        data = run.data
        yield Row(run.info.run_id, run.info.status, dict(data.tags), dict(data.metrics), dict(data.params))


def _selected(store: Any, experiment_id: str) -> Iterator[Row]:
    """From MLflow's tables, the few values that are needed."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag

    r: Any = SqlRun
    tables: tuple[tuple[Any, str, tuple[str, ...]], ...] = (
        (SqlTag, "tags", ("training_id", "method_id", "dataset")),
        (SqlLatestMetric, "metrics", ("cost/wall_s", "cost/stack", "cost/gpu")),
        (SqlParam, "params", ("train.epochs", "train.batch_size")),
    )
    with store.ManagedSessionMaker() as session:
        stage = session.query(SqlTag.run_uuid).filter(SqlTag.key == "stage", SqlTag.value == "training")
        newest = session.query(r.run_uuid).filter(
            r.experiment_id == int(experiment_id), r.lifecycle_stage == "active", r.status == "FINISHED",
            r.run_uuid.in_(stage),
        ).order_by(r.start_time.desc()).limit(NEWEST)  # fmt: skip
        rows = {run_id: Row(run_id, "FINISHED", {}, {}, {}) for (run_id,) in newest}
        for table, kind, keys in tables:
            ids = list(rows)
            for start in range(0, len(ids), 500):
                found = session.query(table.run_uuid, table.key, table.value)
                for run_id, key, value in found.filter(
                    table.run_uuid.in_(ids[start : start + 500]), table.key.in_(keys)
                ):
                    getattr(rows[run_id], kind)[key] = value
    yield from rows.values()
