"""The images of a pairs store in the making: one file they are written to in turn, and a journal of what is in it.

A preparation that is killed goes on where it stopped, a chunk of samples at a time: what the journal tells of a chunk
is true, as its images are on the disk before it is told.
"""

import json
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.store_folder import ARRAYS

JOURNAL = "images.jsonl"

Picture = tuple[bytes, int, int] | str
"""The encoded image, its width and height; or why there is none."""


class ImageJournal:
    """Pictures chunk by chunk: those an earlier call has made are taken, others are added, in the same order."""

    def __init__(self, folder: Path, begin: int) -> None:
        """Open what is in `folder`; images begin at byte `begin` of the file."""
        for name in (ARRAYS, JOURNAL):
            (folder / name).touch()
        self.file = (folder / ARRAYS).open("r+b")
        self._journal = (folder / JOURNAL).open("r+b")
        self._left = deque(self._entries())
        self._told = 0
        self.file.seek(begin)

    def _entries(self) -> list[tuple[int, dict[str, Any]]]:
        """Length in bytes and content of each whole line; a killed call may have left half of one."""
        found = []
        for line in self._journal:
            if not line.endswith(b"\n"):
                break
            found.append((len(line), json.loads(line)))
        return found

    def taken(self, key: str) -> list[Picture] | None:
        """What an earlier call made of the chunk with this key; None: from here on everything is to be added."""
        if self._left and self._left[0][1]["key"] == key:
            length, entry = self._left.popleft()
            at = self.file.tell()
            pictures = [self._read(told) for told in entry["pictures"]]
            if None not in pictures:
                self._told += length
                return [picture for picture in pictures if picture is not None]
            self.file.seek(at)
        self.cut()
        return None

    def _read(self, told: Any) -> Picture | None:
        if isinstance(told, str):
            return told
        content = self.file.read(told[0])
        return (content, told[1], told[2]) if len(content) == told[0] else None

    def cut(self) -> None:
        """Forget what an earlier call made beyond this point."""
        self._left.clear()
        self.file.truncate()

    def add(self, key: str, pictures: Sequence[Picture]) -> None:
        """Keep the pictures of the next chunk."""
        for picture in pictures:
            if not isinstance(picture, str):
                self.file.write(picture[0])
        self.file.flush()
        os.fdatasync(self.file.fileno())
        entry = {"key": key, "pictures": [p if isinstance(p, str) else [len(p[0]), *p[1:]] for p in pictures]}
        line = json.dumps(entry).encode() + b"\n"
        self._journal.seek(self._told)
        self._journal.truncate()
        self._journal.write(line)
        self._journal.flush()
        self._told += len(line)

    def __enter__(self) -> "ImageJournal":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self._journal.close()
