"""Who works on what: a claim on a training, held by one scheduler on this machine and freed when it dies.

One file holds a lock byte for each training (POSIX record locks): no litter, and the kernel lets go of a
killed scheduler's claims. Schedulers that share a state folder share the work without doing any of it twice.
"""

import fcntl
import os
from pathlib import Path

_GRID_BYTE = 1 << 60
"""Beyond every training's byte: held for a moment while a scheduler looks for, or makes, the grid's run."""


class Claims:
    """The claims this process holds in one state folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # One descriptor for the life of the process: closing any descriptor of the file would free every lock.
        self._file = os.open(folder / "claims.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._held: set[str] = set()

    def take(self, training_id: str) -> bool:
        """Claim a training; False when another scheduler has it."""
        if training_id in self._held:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(training_id))
        except (BlockingIOError, PermissionError):
            return False
        self._held.add(training_id)
        return True

    def free(self, training_id: str) -> None:
        """Give a claim back."""
        if training_id in self._held:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(training_id))
            self._held.discard(training_id)

    def elsewhere(self, training_id: str) -> bool:
        """Whether another scheduler has a claim on a training, asked by taking it for a moment."""
        if training_id in self._held:
            return False
        if not self.take(training_id):
            return True
        self.free(training_id)
        return False

    def __enter__(self) -> None:
        """Wait for the moment in which only this scheduler looks for, or makes, the grid's run."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, _GRID_BYTE)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _GRID_BYTE)


def _byte(training_id: str) -> int:
    """The lock byte of a training: the first 15 hex digits of its id, below `_GRID_BYTE`."""
    return int(training_id[:15], 16)
