"""Results on disk between the worker that made them and the tracking store: nothing finished is ever lost.

A worker writes each outcome whole (temporary file, fsync, rename) before it says that it is done. The writer
deletes it once the tracking store has it. Whatever is found at the next start is written then.
"""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter

Outcome = dict[str, Any]
"""What one training gave: `record` (how it is shown in tracking), `status`, and curves, cells, cost or reason."""

_ID = re.compile(r"[0-9a-f]{16}")
_LARGEST = 1 << 28
"""No outcome is near it; a file of that size would only fill the memory."""


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


class _Record(BaseModel):
    """How a training is shown in tracking, as `bench.tracking.record_of` makes it."""

    training_id: str
    name: str
    tags: dict[str, str]
    training_tags: dict[str, str]
    params: dict[str, str]
    data: dict[str, Any]
    cells: dict[str, str]


class _Failed(BaseModel):
    record: _Record
    status: Literal["failed"]
    reason: str
    ended_ms: int = Field(ge=0, lt=1 << 53)


class _Finished(BaseModel):
    record: _Record
    status: Literal["finished"]
    curves: list[dict[str, float]]
    cells: dict[str, dict[str, dict[str, float]]]
    best_epoch: int
    cost: dict[str, float]
    ended_ms: int = Field(ge=0, lt=1 << 53)


_OUTCOME: TypeAdapter[_Failed | _Finished] = TypeAdapter(Annotated[_Failed | _Finished, Field(discriminator="status")])


class Spool:
    """The outcomes of one experiment that the tracking store does not have yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "outcomes"
        self.damaged: list[Path] = []
        """What was set aside, where it is now."""

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
            if path.stat().st_size > _LARGEST:
                raise ValueError("too large for an outcome")
            outcome: Outcome = json.loads(path.read_text(encoding="utf-8"))
            if _OUTCOME.validate_python(outcome).record.training_id != training_id:
                raise ValueError("the outcome of another training")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError):
            self._set_aside(path)
            return None
        return outcome

    def _set_aside(self, path: Path) -> None:
        """Move a damaged file, or whatever lies in its place, out of the way; where that fails it is passed over."""
        aside = path.with_suffix(".damaged")
        for number in range(2, 100):
            if not os.path.lexists(aside):
                break
            aside = path.with_suffix(f".{number}.damaged")
        with contextlib.suppress(OSError):
            path.replace(aside)
            self.damaged.append(aside)

    def drop(self, training_id: str) -> None:
        self.path(training_id).unlink(missing_ok=True)
        self.arrays(training_id).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        """Ids of the trainings whose outcomes are here, in a fixed order; other files are nobody's business."""
        return iter(sorted(path.stem for path in self.folder.glob("*.json") if _ID.fullmatch(path.stem)))

    def sweep(self, elsewhere: Callable[[str], bool]) -> None:
        """Remove what a killed worker left half done.

        Args:
            elsewhere: whether another scheduler works on a training; what is half done of it is left alone.
        """
        drafts = [(path.name[1:17], path) for path in self.folder.glob(".*.tmp")]
        orphans = [(path.stem, path) for path in self.folder.glob("*.npz") if not self.path(path.stem).exists()]
        for training_id, path in [*drafts, *orphans]:
            if _ID.fullmatch(training_id) and not elsewhere(training_id):
                with contextlib.suppress(OSError):
                    path.unlink()
