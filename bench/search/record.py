"""What MLflow is told of a search, off the critical path: by a writer thread that waits while the store is away."""

import getpass
import time
from collections.abc import Sequence
from pathlib import Path

from bench.provenance import git_tags, this_session
from bench.running.writer import Writer
from bench.search.search import Search
from bench.search.study import TrialRow
from bench.spool import Spool
from bench.tracking import Store
from bench.tracking.studies import StudyStore, TrialRun


class Record:
    """The search's run and those of its trials. Every method returns at once unless it says otherwise."""

    def __init__(self, search: Search, folder: Path) -> None:
        self.search = search
        uri, name = search.grid.tracking.uri, search.name
        self._written: set[str] = set()
        """Keys of the trials the store has."""
        started_ms = int(time.time() * 1000)

        def open_run(store: Store) -> str:
            assert isinstance(store, StudyStore)
            self._written = store.known_trials()
            return store.open_study(self._tags(), self._files(), started_ms)

        self._writer = Writer(lambda: StudyStore(uri, name), open_run, Spool(folder))
        self._writer.start()

    def _tags(self) -> dict[str, str]:
        search = self.search
        return {
            "methods": ", ".join(method.label for method in search.methods),
            "datasets": ", ".join(dataset.label for dataset in search.datasets),
            "objectives": "; ".join(objective.name for objective in search.objectives),
            "sampler": search.sampler.kind,
            "pruner": search.pruner.kind,
            "batch": str(search.batch),
            "mlflow.note.content": search.grid.description or f"`bench search` of {search.name}.",
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": f"bench search {search.grid.file}",
            "mlflow.source.type": "LOCAL",
            **git_tags(),
        }

    def _files(self) -> dict[str, str]:
        return {"search.yaml": self.search.source, "environment.json": this_session().text}

    def catch_up(self, method: str, rows: Sequence[TrialRow]) -> None:
        """Write the finished trials that an earlier process did not come to write."""
        self.trials(method, [row for row in rows if row.state != "running"])

    def trials(self, method: str, rows: Sequence[TrialRow]) -> None:
        """Take finished trials to the store, each once."""
        for row in rows:
            trial = self._trial(method, row)

            def job(store: Store, trial: TrialRun = trial) -> None:
                assert isinstance(store, StudyStore)
                if trial.key not in self._written:
                    store.write_trial(self._writer.grid_run, trial)
                    self._written.add(trial.key)

            self._writer.put(job)

    def _trial(self, method: str, row: TrialRow) -> TrialRun:
        names = [objective.name for objective in self.search.objectives]
        tags = {key: str(row.attrs[key]) for key in ("stopped_after", "round", "lane") if key in row.attrs}
        if "reason" in row.attrs:
            tags["failure"] = str(row.attrs["reason"])
        return TrialRun(
            key=f"{method}/{row.number}",
            method=method,
            number=row.number,
            state=row.state,
            params=row.params,
            objectives=dict(zip(names, row.values or (), strict=False)),
            curve=row.attrs.get("curve", ()),
            seconds=float(row.attrs.get("seconds", 0.0)),
            ended_ms=int(row.attrs.get("ended_ms", time.time() * 1000)),
            tags=tags,
        )

    def report(self, folder: Path) -> None:
        """Keep the report's files with the search's run."""

        def job(store: Store) -> None:
            assert isinstance(store, StudyStore)
            store.keep_report(self._writer.grid_run, folder)

        self._writer.put(job)

    def wait(self) -> None:
        """Wait until the store is open: two that make a new store in one process would be in each other's way."""
        self._writer.ready.wait()

    def close(self, status: str, timeout_s: float | None = None) -> str:
        """Write what is left and end the search's run; waits.

        Returns:
            Why the store does not have everything; empty when it has.
        """
        if self._writer.close(status, timeout_s):
            return ""
        return str(self._writer.problem or self._writer.waiting or "the tracking store did not take everything.")
