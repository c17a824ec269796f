"""Files of a report: written whole or not at all, and a cache of what is costly, by the content it was made from."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from datasets.errors import UserError

UNUSED_DAYS = 30
"""What was not asked for so long is removed."""
MANIFEST = ".files.json"
"""In a folder of a report: the names of the files that the report wrote there."""


def write_file(path: Path, content: bytes) -> Path:
    """Write a file beside its place and rename it, so that a reader meets the old one or the new one.

    Raises:
        UserError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"the report cannot be written: {path}: {error.strerror}. Make room there or choose another directory."
        ) from error
    return path


def replace_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files below a folder, and remove those that an earlier call wrote there and this one does not.

    Files that nobody wrote with this function stay. Cut short, the next call removes what this one would have.

    Args:
        folder: made if absent.
        contents: name below `folder` -> content, written in this order.

    Raises:
        UserError: one cannot be written.
    """
    earlier = _listed(folder)
    write_file(folder / MANIFEST, _listing(earlier | contents.keys()))
    written = [write_file(folder / name, content) for name, content in contents.items()]
    for name in earlier - contents.keys():
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)
    write_file(folder / MANIFEST, _listing(contents.keys()))
    return written


def _listing(names: Iterable[str]) -> bytes:
    return json.dumps(sorted(names), indent=0).encode()


def _listed(folder: Path) -> set[str]:
    """The names in a folder's manifest that lie below the folder; none where it cannot be read."""
    try:
        names = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return set()
    root = folder.resolve()
    inside = (name for name in names if isinstance(name, str)) if isinstance(names, list) else ()
    return {name for name in inside if (folder / name).parent.resolve().is_relative_to(root)}


class Cache:
    """What was computed before, in a folder that may be deleted at any time.

    A key covers the content an analysis was made from, its settings, the code of this package and the versions of
    the libraries it uses: what any of them changes is computed anew. A cache that cannot be written is none.
    """

    def __init__(self, folder: Path | None) -> None:
        """Use `folder`, made when first needed; None keeps nothing."""
        self.folder = folder
        self.hits = self.misses = 0
        self._remove_unused()

    def bytes(self, key: str, make: Callable[[], bytes]) -> bytes:
        """What `make` gives, or gave before for this key."""
        if self.folder is None:
            return make()
        path = self.folder / f"{hashlib.blake2b(f'{_code()}|{key}'.encode(), digest_size=16).hexdigest()}.bin"
        with suppress(OSError):
            content = path.read_bytes()
            os.utime(path)
            self.hits += 1
            return content
        self.misses += 1
        content = make()
        with suppress(UserError):
            write_file(path, content)
        return content

    def frame(self, key: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """As `bytes`, for a frame of numbers and texts."""

        def packed() -> bytes:
            return json.dumps(make().to_dict("list")).encode()

        return pd.DataFrame(json.loads(self.bytes(key, packed)))

    def _remove_unused(self) -> None:
        if self.folder is None or not self.folder.is_dir():
            return
        oldest = time.time() - UNUSED_DAYS * 86_400
        for path in self.folder.glob("*.bin"):
            with suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


@cache
def _code() -> str:
    """A digest of this package's source and of the versions of what it computes with."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    for name in ("numpy", "scipy", "pandas", "scikit-learn", "matplotlib"):
        with suppress(PackageNotFoundError):
            digest.update(f"{name}={version(name)};".encode())
    return digest.hexdigest()


def frame_key(frame: pd.DataFrame) -> str:
    """A key of a frame's content, whatever its index."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(list(frame.columns)).encode())
    digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()
