"""MLflow's client, made quiet, and its errors put into one sentence each."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.tracking.blank import copy_blank, keep_blank
from bench.tracking.faults import problem_of
from bench.tracking.places import TrackingError, check_store, deleted, safe_name, sqlite_path
from datasets.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PAGE = 1000
_DATABASE_TRIES = 3
"""MLflow would try for nearly two minutes to reach a database that is not there, and say nothing."""


def connect(uri: str) -> "MlflowClient":
    """A client for `uri`; MLflow is told to be quiet, to send nothing home and to give up on a dead server soon.

    It does not repeat requests by itself: one without an answer may have been carried out, and a run made twice. The
    writer looks at what is there before it tries again.
    """
    for key, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
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
    if file is None and not uri.startswith("http"):
        import mlflow.store.db.utils as database

        database.MAX_RETRY_COUNT = _DATABASE_TRIES
    with plain_errors(uri):
        return MlflowClient(tracking_uri=uri if file is None else f"sqlite:///{file}")


def _create_sqlite(file: Path) -> None:
    """Make a new SQLite store beside its place, with tables and default experiment, and put it there whole.

    Several processes that open a new store at once break it, and one that is killed leaves half the tables.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        copied = copy_blank(draft)
        with plain_errors(f"sqlite:///{draft}"):
            connect(f"sqlite:///{draft}").search_experiments(max_results=1)
        if not copied:
            keep_blank(draft)
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
def plain_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow and its transports raise into one sentence."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except UserError:
        raise
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise TrackingError(
            f"tracking store {uri} needs a database driver that is not installed: "
            f"{str(error).splitlines()[0].rstrip('.')}. For PostgreSQL: pip install psycopg2-binary"
        ) from error
    except (MlflowException, SQLAlchemyError, OSError) as error:  # requests' errors are OSErrors
        raise problem_of(uri, error) from error


class Experiment:
    """One experiment in one MLflow store."""

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
        self._client = connect(uri)
        with plain_errors(uri):
            self.experiment_id = self._experiment(create)

    @staticmethod
    def experiments(uri: str) -> list[str]:
        """Names of the experiments in a store.

        Raises:
            TrackingError: the store cannot be used.
        """
        check_store(uri)
        client = connect(uri)
        with plain_errors(uri):
            return sorted(experiment.name for experiment in client.search_experiments())

    def _experiment(self, create: bool) -> str:
        found = self._client.get_experiment_by_name(self.name)
        if found is not None:
            if found.lifecycle_stage != "active":
                raise TrackingError(deleted(self.name, self.uri, str(found.experiment_id)))
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

    def _database(self) -> Any:
        """MLflow's own store where it is a database, else None."""
        store: Any = getattr(getattr(self._client, "_tracking_client", None), "store", None)
        return store if hasattr(store, "ManagedSessionMaker") else None
