"""Where results are kept: the store's URI, the files beside it, and whether it can be used at all; needs no MLflow."""

import contextlib
import os
import re
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

from bench.grid.grid import DEFAULT_TRACKING_URI
from datasets.errors import UserError

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql")


class TrackingError(UserError):
    """The tracking store cannot be used; the message says why and what to do."""

    exit_code = 1


class StoreUnreachable(TrackingError):
    """The store does not answer now, but may later: worth trying again."""


def resolve_uri(uri: str | None) -> str:
    """The store asked for, else `MLFLOW_TRACKING_URI`, else SQLite in the working directory."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite store, or None for a server."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def state_folder(uri: str, experiment: str) -> Path:
    """Where claims and the spool of an experiment live: beside a SQLite file, else in the working directory."""
    file = sqlite_path(uri)
    return (file.parent if file else Path.cwd()) / ".bench" / safe_name(experiment)


def safe_name(name: str) -> str:
    """`name` with everything but letters, digits, `-`, `_` and `.` replaced, for use as a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).lstrip(".") or "_"


def check_store(uri: str) -> None:
    """Refuse a store that cannot work, quickly and without MLflow.

    Raises:
        UserError: the URI is of no kind we know.
        TrackingError: the SQLite file or its folder cannot be written, is locked, or is no MLflow store.
    """
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme not in SCHEMES:
        raise UserError(
            f"tracking.uri '{uri}' is not a tracking store: use sqlite:///FILE, http(s)://SERVER or a database URL."
        )
    file = sqlite_path(uri)
    if file is None:
        return
    if not file.parent.is_dir():
        raise TrackingError(f"tracking store {file}: the folder {file.parent} does not exist; make it first.")
    if not os.access(file.parent, os.W_OK) or (file.exists() and not os.access(file, os.W_OK)):
        raise TrackingError(f"tracking store {file} is read-only for you: choose another with tracking.uri.")
    if file.exists():
        _check_sqlite(file)


DAMAGED = "the file is damaged or no SQLite database: put a backup in its place, or move it away to begin anew."
"""What is said of a SQLite store that cannot be read."""


def _check_sqlite(file: Path) -> None:
    """Open the database, ask for the write lock and give it back, and read the schema version."""
    if file.stat().st_size == 0:  # SQLite would take it for a new database, and the results for never made
        raise TrackingError(f"tracking store {file} is empty: put a backup in its place, or remove it to begin anew.")
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=10)) as database:
            database.execute("BEGIN IMMEDIATE")
            (page,) = database.execute("PRAGMA page_size").fetchone()
            if file.stat().st_size % page:  # SQLite itself notices whole pages that are missing
                raise TrackingError(f"tracking store {file} cannot be used: {DAMAGED}")
            database.rollback()
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and not {"runs", "alembic_version"} <= tables:
                raise TrackingError(f"tracking store {file} is a SQLite database, but not one of MLflow's.")
            version = database.execute("SELECT version_num FROM alembic_version").fetchone() if tables else None
    except sqlite3.Error as error:
        raise sqlite_problem(file, error) from error
    if version:
        _check_schema(file, version[0])


def sqlite_problem(file: Path, error: sqlite3.Error) -> TrackingError:
    """The error to raise for what SQLite says of a store."""
    return TrackingError(f"tracking store {file} cannot be used: {_sqlite_reason(error)}")


def _sqlite_reason(error: sqlite3.Error) -> str:
    text = str(error)
    if "locked" in text:
        return "another program holds its lock; close it, or wait, and run the same command again."
    if "readonly" in text:
        return "it is read-only; choose another with tracking.uri."
    if "not a database" in text or "malformed" in text:
        return DAMAGED
    if "full" in text:
        return "the disk is full; make room and run the same command again."
    return f"{text}."


_REVISION = re.compile(r"^revision\b.*=\W*(\w+)", re.M)
_BEFORE = re.compile(r"^down_revision\b.*=(.*)", re.M)
"""What a migration of MLflow leads to, and what it starts from."""


def _check_schema(file: Path, version: str) -> None:
    """Compare a store's schema with what the installed MLflow's migrations lead to.

    Raises:
        TrackingError: it is newer, or older.
    """
    from importlib.util import find_spec

    package = find_spec("mlflow")
    if package is None or package.origin is None:
        return
    folder = Path(package.origin).parent / "store" / "db_migrations" / "versions"
    migrations = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    revisions = {word for text in migrations for word in _REVISION.findall(text)}
    if revisions and version not in revisions:
        raise TrackingError(
            f"tracking store {file} has schema {version}, which is newer than the installed MLflow knows: "
            "upgrade MLflow (pip install -U mlflow) or choose another store with tracking.uri."
        )
    if any(version in line for text in migrations for line in _BEFORE.findall(text)):
        raise TrackingError(outdated(f"sqlite:///{file}"))


def outdated(uri: str) -> str:
    """What is said of a store that an older MLflow made."""
    return f"tracking store {uri} was made by an older MLflow: back it up, then run: mlflow db upgrade {uri}"


def deleted(experiment: str, uri: str, experiment_id: str) -> str:
    """What is said of an experiment in MLflow's bin."""
    return (
        f"experiment '{experiment}' was deleted in {uri}: restore it "
        f"(mlflow experiments restore -x {experiment_id}) or give the grid another name."
    )
