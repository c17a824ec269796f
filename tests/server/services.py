"""A real PostgreSQL and a real `mlflow server` with a login, on free loopback ports, in folders that go away again."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.bench.run_tools import environment
from tests.server.process import TrackingServer, free_port, wait_until

ADMIN, PASSWORD = "admin", "a long enough password"
DATABASE_PASSWORD = "another password"
LOGIN = {"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
ROOT = Path(__file__).parents[2]


def postgres_tools() -> Path:
    """Where PostgreSQL's programs are; skips the test when it is not installed."""
    places = [Path(found).resolve().parent for tool in ("postgres", "initdb") if (found := shutil.which(tool))]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if all((place / tool).exists() for tool in ("initdb", "postgres", "pg_dump", "pg_restore", "psql")):
            return place
    pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")


def as_postgres() -> dict[str, Any]:
    """How PostgreSQL, which refuses to be root, is started: as the account its package made."""
    if os.getuid() != 0:
        return {}
    with contextlib.suppress(KeyError):
        import pwd

        account = pwd.getpwnam("postgres")
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    pytest.skip("root cannot run PostgreSQL, and there is no account 'postgres'")


class Postgres:
    """A database server with a password, in a folder of its own."""

    def __init__(self) -> None:
        self.tools = postgres_tools()
        self.account = as_postgres()
        # Not below pytest's folders: those are closed to other accounts.
        self.folder = Path(tempfile.mkdtemp(prefix="bench-postgres-"))
        if self.account:
            os.chown(self.folder, self.account["user"], self.account["group"])
        self.port = free_port()
        self.uri = f"postgresql+psycopg://lab@127.0.0.1:{self.port}/mlflow"
        self.process: subprocess.Popen[bytes] | None = None
        self._init()

    def _init(self) -> None:
        secret = self.folder / "password"
        secret.write_text(DATABASE_PASSWORD)
        words = ["--username=lab", f"--pwfile={secret}", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8"]
        words += ["--locale=C", "-D", str(self.folder / "data")]
        subprocess.run([self.tools / "initdb", *words], check=True, capture_output=True, cwd="/", **self.account)

    def start(self) -> None:
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        words = [word for setting in settings for word in ("-c", setting)]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [self.tools / "postgres", "-D", self.folder / "data", "-p", str(self.port), *words],
            stdout=log, stderr=log, cwd="/", start_new_session=True, **self.account,
        )  # fmt: skip
        log.close()
        wait_until(self.answers, 60, "PostgreSQL does not start", self.folder / "log")

    def answers(self) -> bool:
        return self.psql("select 1", database="postgres").returncode == 0

    def psql(self, sql: str, *, database: str = "mlflow") -> "subprocess.CompletedProcess[str]":
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "lab", "-d", database]
        words = ["-X", "-q", "-t", "-A", *where, "-c", sql]
        return subprocess.run([self.tools / "psql", *words], capture_output=True, text=True, env=self.environment())

    def environment(self) -> dict[str, str]:
        return environment() | {"PGPASSWORD": DATABASE_PASSWORD}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the database, read without MLflow."""
        import psycopg

        where = self.uri.replace("+psycopg", "")
        with psycopg.connect(where, password=DATABASE_PASSWORD) as database:
            return database.execute(sql).fetchall()  # type: ignore[arg-type]

    def stop(self, how: int = signal.SIGINT) -> None:
        """End the server: SIGINT is PostgreSQL's fast shutdown."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)


class Server(TrackingServer):
    """`docker/serve`, as the image runs it: an MLflow server with a login, on a database and a folder of artifacts."""

    def __init__(
        self,
        postgres: Postgres,
        folder: Path,
        artifacts: str | None = None,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(folder)
        self.postgres, self.more = postgres, more
        self.artifacts = artifacts or str(folder / "artifacts")

    def command(self) -> Sequence[str | Path]:
        return [ROOT / "docker" / "serve"]

    def environment(self) -> Mapping[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / "docker"), os.environ["PATH"]])
        return {
            **self.postgres.environment(),
            "PATH": path,
            "DATABASE_URI": self.postgres.uri,
            "ARTIFACTS": self.artifacts,
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "not a secret here",
            "SERVE_HOST": "127.0.0.1",
            "SERVE_PORT": str(self.port),
            "SERVE_WORKERS": "1",
            "TMPDIR": str(self.folder),
            **self.more,
        }


@contextlib.contextmanager
def running(folder: Path, artifacts: str | None = None, more: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server on a new database; everything ends and goes away with it.

    Args:
        folder: for its log, and its artifacts.
        artifacts: another place for artifacts.
        more: further environment of the server.
    """
    postgres = Postgres()
    server = Server(postgres, folder, artifacts, more or {})
    try:
        postgres.start()
        assert postgres.psql("create database mlflow", database="postgres").returncode == 0
        server.start()
        yield server
    finally:
        server.kill()
        postgres.remove()
