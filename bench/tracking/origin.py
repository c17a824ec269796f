"""All that the store knows of how one result came about: enough to train it again and to compare."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.provenance import SESSIONS
from bench.tracking.client import connect, plain_errors
from bench.tracking.places import TrackingError, check_store, sqlite_path
from bench.tracking.reading import Reader, condition_of
from bench.tracking.soundness import tag_problem
from datasets.errors import UserError

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True)
class Origin:
    """Where a result came from."""

    experiment: str
    training_run: str
    condition: str | None
    """Of a cell run; None: all of its training."""
    tags: dict[str, str]
    """The training run's, MLflow's own among them."""
    params: dict[str, str]
    data_digest: str
    """The first letters of the data's fingerprint."""
    cells: dict[str, dict[str, float]]
    """Condition -> metric (`last/acc`) -> value, of the finished cells that are asked for."""
    grid: str
    """The YAML of the grid that asked for it."""
    grid_file: str
    session: dict[str, Any]
    """What it ran on, as `bench.provenance` tells it."""
    diff: str
    """Changes of the code that were in no commit."""


def origin_of(uri: str, run_id: str) -> Origin:
    """The origin of a training run or a cell run.

    Raises:
        UserError: there is no such run, or it is neither a training nor a cell.
        TrackingError: the store cannot be used, or lacks what is needed.
    """
    check_store(uri)
    if (file := sqlite_path(uri)) is not None and not file.exists():
        raise TrackingError(f"there is no tracking store at {file}: name one with --tracking-uri.")
    client = connect(uri)
    with plain_errors(uri):
        run = _run(client, uri, run_id)
        stage = run.data.tags.get("stage")
        if stage not in ("training", "cell"):
            what = "a grid run" if stage == "grid" else "no run of this suite"
            raise UserError(f"run {run_id} is {what}: name the run of a training or of a cell.")
        training = run if stage == "training" else _parent(client, uri, run)
        for role, one in {"training": training, stage: run}.items():
            if problem := tag_problem(role, one.data.tags):
                raise TrackingError(f"{role} run {one.info.run_id} cannot be reproduced: {problem}.")
        grid = _parent(client, uri, training)
        name = client.get_experiment(run.info.experiment_id).name
        reader = _Results(uri, name, create=False)
        cells = reader.of(training.data.tags["training_id"])
    only = next((condition for condition, (cell, _) in cells.items() if cell == run_id), None)
    if stage == "cell" and only is None:
        raise UserError(f"cell run {run_id} is not finished, so there is nothing to compare with.")
    given = training.inputs.dataset_inputs if training.inputs else []
    session, diff = _session(reader, grid, training.data.tags.get("session", ""))
    return Origin(
        experiment=name,
        training_run=training.info.run_id,
        condition=only,
        tags=dict(training.data.tags),
        params=dict(training.data.params),
        data_digest=given[0].dataset.digest if given else "",
        cells={name: values for name, (_, values) in cells.items() if only in (None, name)},
        grid=reader.text(grid.info.run_id, "grid.resolved.yaml"),
        grid_file=grid.data.tags.get("mlflow.source.name", "").removeprefix("bench run ") or "grid.yaml",
        session=session,
        diff=diff,
    )


class _Results(Reader):
    """Reads the results of one training."""

    def of(self, training_id: str) -> dict[str, tuple[str, dict[str, float]]]:
        """Condition -> run id and metrics of each finished cell."""
        found = {}
        query = f"tags.stage = 'cell' AND tags.training_id = '{training_id}' AND attributes.status = 'FINISHED'"
        for run in self._search(query):
            if self.left_out.is_sound("cell", run.info.run_id, run.data.tags):
                found[condition_of(run.data.tags)] = (str(run.info.run_id), dict(run.data.metrics))
        return found


def _run(client: Any, uri: str, run_id: str) -> "Run":
    from mlflow.exceptions import MlflowException

    try:
        run: Run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(f"there is no run '{run_id}' in {uri}; its id is in the address of its page.") from error
    return run


def _parent(client: Any, uri: str, run: "Run") -> "Run":
    parent = run.data.tags.get("mlflow.parentRunId")
    if not parent:
        raise TrackingError(f"run {run.info.run_id} has no parent in {uri}: it was not made by bench run.")
    return _run(client, uri, parent)


def _session(reader: Reader, grid: "Run", session: str) -> tuple[dict[str, Any], str]:
    """What a training ran on; of one from before sessions were kept, what its grid's first process ran on."""
    run_id = grid.info.run_id
    names = (f"{SESSIONS}/{session}.json", f"{SESSIONS}/{session}.diff") if session else ("environment.json", "")
    try:
        told = json.loads(reader.text(run_id, names[0]))
        diff = reader.text(run_id, names[1]) if told.get("code", {}).get("dirty") and names[1] else ""
    except (TrackingError, ValueError):
        return {}, ""
    if not session and (commit := grid.data.tags.get("mlflow.source.git.commit")):
        told["code"] = {"commit": commit, "dirty": grid.data.tags.get("git_dirty") == "True"}
    return told, diff
