"""How long the finished trainings of an experiment took, for the cost model."""

from collections.abc import Iterator

from bench.scheduling.cost_model import Measured
from bench.tracking.client import plain_errors
from bench.tracking.glance import Glance
from bench.tracking.reading import Reader
from bench.tracking.tables import Row

NEWEST = 2000
"""Trainings that are looked at; more would tell little more and cost a large grid's start."""


def timings(store: Glance | Reader) -> list[Measured]:
    """The newest finished trainings with what they took.

    Raises:
        TrackingError: the store cannot be read.
    """
    if isinstance(store, Glance):
        rows = store.newest(NEWEST)
    else:
        with plain_errors(store.uri):
            rows = list(_searched(store))
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
