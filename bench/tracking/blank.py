"""An empty SQLite store to copy: MLflow takes seconds to make one, through all its migrations."""

import contextlib
import os
import shutil
import sqlite3
from importlib.metadata import version
from pathlib import Path

import platformdirs


def copy_blank(place: Path) -> bool:
    """Put a copy of the kept blank of this MLflow at `place`; False where there is none, or a damaged one."""
    try:
        shutil.copyfile(_kept(), place)
        with contextlib.closing(sqlite3.connect(place)) as database:
            told = [*database.execute("PRAGMA quick_check"), *database.execute("SELECT count(*) FROM alembic_version")]
        whole = told == [("ok",), (1,)]
    except (OSError, sqlite3.Error):
        whole = False
    if not whole:
        place.unlink(missing_ok=True)
    return whole


def keep_blank(store: Path) -> None:
    """Keep a new store as the blank, without its default experiment, whose artifacts have a place of their own.

    What goes wrong costs the next store its seconds, and nothing else.
    """
    kept = _kept()
    draft = kept.with_name(f"{kept.name}.{os.getpid()}.new")
    with contextlib.suppress(OSError, sqlite3.Error):
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(store, draft)
            with contextlib.closing(sqlite3.connect(draft)) as database, database:
                database.execute("DELETE FROM experiments")
            draft.replace(kept)
        finally:
            draft.unlink(missing_ok=True)


def _kept() -> Path:
    return platformdirs.user_cache_path("robult-bench", appauthor=False) / f"mlflow-{version('mlflow')}.db"
