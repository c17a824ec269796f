"""Reading a grid: a bundled one by name, or a file by path, with every problem told at once."""

import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.grid.grid import Grid
from bench.grid.problems import GridError, Problem, Problems, Spot, show
from bench.grid.reader import read_grid
from bench.grid.yaml_lines import YamlError, read_yaml
from bench.grids import bundled_names
from datasets.errors import did_you_mean

MAX_BYTES = 1_000_000
"""Size of the largest grid file that is read."""
_COLLECTION = re.compile(r"^(grids|'grids'|\"grids\")\s*:", re.MULTILINE)


def parse_grid(text: str, file: str = "grid.yaml") -> Grid:
    """The grid that `text` describes; `file` is what messages call it, and its stem the default name.

    Raises:
        GridError: with every problem found.
    """
    return read_grid(text, file)


@dataclass(frozen=True)
class Collection:
    """Grids that are planned and run one after the other."""

    grids: tuple[str, ...]
    """Each as `load_grid` takes it."""


def load_grid(name_or_path: str) -> Grid:
    """A bundled grid by name, or a grid file by path; a file goes before a bundled name.

    Raises:
        GridError: no such grid, or one with problems: all of them are told; or a collection of grids.
    """
    found = load_asked(name_or_path)
    if isinstance(found, Collection):
        raise _file_error(name_or_path, f"a collection of grids, not one of them: {', '.join(found.grids)}")
    return found


def load_asked(name_or_path: str) -> Grid | Collection:
    """As `load_grid`, or a collection: a file with the key `grids`, bundled names and paths as seen from its folder.

    Raises:
        GridError: no such file, or one with problems: all of them are told.
    """
    path = Path(name_or_path)
    bundled = name_or_path in bundled_names()
    if _is_path(name_or_path) or os.path.isfile(name_or_path) or (os.path.isdir(name_or_path) and not bundled):  # noqa: PTH112, PTH113
        text, file = read_text(path, name_or_path), name_or_path
    elif bundled:
        file = f"{name_or_path}.yaml"
        text = read_text(files("bench.grids") / file, name_or_path)
    else:
        raise _no_such_name(name_or_path)
    if not _COLLECTION.search(text):
        return parse_grid(text, file)
    return Collection(tuple(str(path.parent / item) if _is_path(item) else item for item in _listed(text, file)))


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or "/" in name or os.sep in name


def _listed(text: str, file: str) -> list[str]:
    """The grids of a collection, as it writes them."""
    problems = Problems(file)
    try:
        root, repeated = read_yaml(text)
    except YamlError as error:
        raise GridError([Problem(file, error.line, "", error.text)]) from error
    for line, told in repeated:
        problems.at_line(line, told)
    for key in root.keys:
        if key != "grids":
            problems.at_line(root.key_lines[key], f"unknown key '{key}'. A collection of grids has only: grids")
    items = Spot(root).key("grids").items() if "grids" in root.keys else []
    if not items:
        problems.at_line(root.key_lines.get("grids", 0), "expected a list of names and paths of grids", "grids")
    found: dict[str, str] = {}
    for item in items:
        value = item.node.plain()
        if not isinstance(value, str) or not value:
            problems.add(item, f"expected the name of a grid or a path ending in .yaml, got {show(value)}")
        elif found.setdefault(value, item.path) != item.path:
            problems.add(item, f"'{value}' is given twice")
    if problems.found:
        raise GridError(problems.found)
    return list(found)


def read_text(path: Any, shown: str) -> str:
    """The file's text: at most 1 MB of UTF-8, with or without a byte order mark."""
    try:
        with path.open("rb") as stream:
            raw: bytes = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise _no_such_file(path) from error
    except IsADirectoryError as error:
        raise _file_error(shown, "this is a directory; give the grid file inside it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _file_error(shown, f"cannot be read: {reason}") from error
    if len(raw) > MAX_BYTES:
        raise _file_error(shown, f"larger than {MAX_BYTES // 1_000_000} MB, so it is no grid file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        text = f"not UTF-8 text (byte 0x{raw[error.start]:02x} at offset {error.start}); save the file as UTF-8"
        raise GridError([Problem(shown, line, "", text)]) from error


def _file_error(shown: str, text: str) -> GridError:
    return GridError([Problem(shown, 0, "", text)])


def _no_such_file(path: Path) -> GridError:
    if path.stem in bundled_names() and path.parent == Path():
        return _file_error(str(path), f"no such file. The bundled grid goes by its name: {path.stem}")
    try:
        nearby = [other.name for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        return _file_error(str(path), "no such file")
    close = get_close_matches(path.name, nearby, n=1)
    hint = f". Did you mean '{path.with_name(close[0])}'?" if close else ""
    return _file_error(str(path), f"no such file{hint}")


def _no_such_name(name: str) -> GridError:
    return _file_error(
        "",
        f"unknown grid '{name}'.{did_you_mean(name, bundled_names())} List the bundled ones with: bench ls grids; "
        "a grid of your own is given by its path, ending in .yaml",
    )
