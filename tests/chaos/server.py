"""A real `mlflow server` on SQLite, which can be killed and started again."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.run_tools import environment
from tests.server.process import TrackingServer

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a job queue of several processes, which nobody here uses
}


class Server(TrackingServer):
    """`mlflow server`, its store `mlflow.db` in `folder`."""

    def __enter__(self) -> "Server":
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def command(self) -> Sequence[str | Path]:
        words = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        words += ["--artifacts-destination", str(self.folder / "mlartifacts")]
        return [sys.executable, "-m", "mlflow", *words]

    def environment(self) -> Mapping[str, str]:
        return environment() | _QUIET | {"TMPDIR": str(self.folder.parent)}
