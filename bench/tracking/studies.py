"""Searches in MLflow: a study's run, and below it a run for each trial with parameters, curve, state and objective."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.tracking.client import plain_errors
from bench.tracking.writing import Store

_KEPT = 4000
"""The longest tag; MLflow takes 8000 characters."""


@dataclass(frozen=True)
class TrialRun:
    """One finished trial as MLflow shows it."""

    key: str
    """`method/number`, unique in its search."""
    method: str
    number: int
    state: str
    """complete, pruned or failed."""
    params: Mapping[str, Any]
    objectives: Mapping[str, float]
    """By name; empty unless the trial is complete."""
    curve: Sequence[float]
    """The first objective after each epoch."""
    seconds: float
    ended_ms: int
    tags: Mapping[str, str] = field(default_factory=dict)
    """`stopped_after`, `failure`, ..."""


class StudyStore(Store):
    """Reads and writes the runs of one search."""

    def open_study(self, tags: Mapping[str, str], files: Mapping[str, str], started_ms: int) -> str:
        """The search's run, found by its name or made with its tags and text files."""
        with plain_errors(self.uri):
            for run in self._search(f"tags.stage = 'study' AND tags.search = '{self.name}'"):
                self._client.update_run(run.info.run_id, status="RUNNING")
                return str(run.info.run_id)
            tags = {"stage": "study", "search": self.name, **tags}
            run = self._client.create_run(
                self.experiment_id, start_time=started_ms, tags=tags, run_name=f"search {self.name}"
            )
            for name, text in files.items():
                self._client.log_text(run.info.run_id, text, name)
            return str(run.info.run_id)

    def known_trials(self) -> set[str]:
        """Keys of the trials that are written whole."""
        with plain_errors(self.uri):
            runs = self._search("tags.stage = 'trial' AND attributes.status != 'RUNNING'")
            return {str(run.data.tags["trial"]) for run in runs}

    def write_trial(self, study_run: str, trial: TrialRun) -> None:
        """A run for a trial, at once with all there is of it."""
        from mlflow.entities import Metric, Param

        tags = {
            "stage": "trial", "trial": trial.key, "method": trial.method, "state": trial.state,
            "mlflow.parentRunId": study_run, **{key: value[:_KEPT] for key, value in trial.tags.items()},
        }  # fmt: skip
        started_ms = trial.ended_ms - int(1000 * trial.seconds)
        with plain_errors(self.uri):
            name = f"{trial.method} trial {trial.number}"
            run = self._client.create_run(self.experiment_id, start_time=started_ms, tags=tags, run_name=name)
            metrics = [Metric("seconds", trial.seconds, trial.ended_ms, 0)]
            metrics += [
                Metric(f"objective/{_key(key)}", value, trial.ended_ms, 0) for key, value in trial.objectives.items()
            ]
            metrics += [
                Metric("valid/objective", value, trial.ended_ms, epoch) for epoch, value in enumerate(trial.curve, 1)
            ]
            params = [Param(key, str(value)) for key, value in trial.params.items()]
            self._client.log_batch(run.info.run_id, metrics=metrics[:1000], params=params[:100])
            status = "FAILED" if trial.state == "failed" else "FINISHED"
            self._client.set_terminated(run.info.run_id, status, end_time=trial.ended_ms)

    def keep_report(self, study_run: str, folder: Path) -> None:
        """Keep the figures and tables of a search with its run."""
        self.log_files(study_run, folder, "report")


def _key(name: str) -> str:
    """A name with nothing in it that MLflow refuses in a key."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)
