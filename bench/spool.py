"""Results on disk between the worker that made them and the tracking store: nothing finished is ever lost.

A worker writes each outcome whole (temporary file, fsync, rename) before it says that it is done. The writer
deletes it once the tracking store has it. Whatever is found at the next start is written then.
"""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Outcome = dict[str, Any]
"""What one training gave: `record` (how it is shown in tracking), `status`, and curves, cells, cost or reason."""


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader, or a crash, sees the old file or the new one, never a part.

    Raises:
        OSError: the disk is full or the folder not writable; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Spool:
    """The outcomes of one experiment that the tracking store does not have yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "outcomes"

    def path(self, training_id: str) -> Path:
        return self.folder / f"{training_id}.json"

    def arrays(self, training_id: str) -> Path:
        """Where the arrays of a training wait, if it has any."""
        return self.folder / f"{training_id}.npz"

    def put(self, outcome: Mapping[str, Any]) -> None:
        """Keep an outcome until the tracking store has it.

        Raises:
            OSError: it could not be written.
        """
        write_atomically(self.path(outcome["record"]["training_id"]), json.dumps(outcome))

    def get(self, training_id: str) -> Outcome | None:
        """The spooled outcome of a training; a damaged file is set aside as `.damaged` and counts as none."""
        path = self.path(training_id)
        try:
            outcome: Outcome = json.loads(path.read_text(encoding="utf-8"))
            if outcome["record"]["training_id"] != training_id or outcome["status"] not in ("finished", "failed"):
                raise ValueError("not an outcome of this training")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            path.replace(path.with_suffix(".damaged"))
            return None
        return outcome

    def drop(self, training_id: str) -> None:
        self.path(training_id).unlink(missing_ok=True)
        self.arrays(training_id).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        """Ids of the trainings whose outcomes are here, in a fixed order."""
        return iter(sorted(path.stem for path in self.folder.glob("*.json")))

    def sweep(self) -> None:
        """Remove what a killed worker left half done: files a minute old, which nobody writes any more."""
        orphans = (path for path in self.folder.glob("*.npz") if not self.path(path.stem).exists())
        for path in [*self.folder.glob(".*.tmp"), *orphans]:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > 60:
                    path.unlink()
