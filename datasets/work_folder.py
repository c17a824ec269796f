"""The folder of a long job that is under way: what a killed call left there, the next one goes on with."""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets.errors import DataError
from datasets.raw_files import read_json

JOB = "job.json"


@contextmanager
def work_folder(directory: Path, facts: Mapping[str, Any], what: str) -> Iterator[Path]:
    """The folder of this very job beside `directory`, with what an earlier call left; removed when it is finished.

    Args:
        directory: what the job makes.
        facts: what determines the job; the work of another one is thrown away.
        what: the job in a few words, for messages.

    Raises:
        DataError: another process is at work in it.
    """
    folder = directory.with_name(f".{directory.name}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"another process {what} already ({folder}).") from None
            job = json.loads(json.dumps(facts))
            if not _same_job(folder / JOB, job):
                for left in folder.glob("*.*"):
                    left.unlink()
                replace_text(folder / JOB, json.dumps(job, indent=2))
            yield folder
            shutil.rmtree(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}.") from error


def _same_job(path: Path, job: Any) -> bool:
    try:
        return bool(read_json(path, 1 << 20) == job)
    except DataError:
        return False


def replace_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
