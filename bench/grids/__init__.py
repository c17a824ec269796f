"""The bundled grids, usable by name: `bench run quickstart`. Imports nothing heavy."""

import re
from importlib.resources import files
from importlib.resources.abc import Traversable


def bundled_names() -> list[str]:
    """Names of the bundled grids and collections, Table 2 before Table 10."""
    names = (item.name for item in files(__name__).iterdir())
    return sorted((name.removesuffix(".yaml") for name in names if name.endswith(".yaml")), key=_by_number)


def _by_number(name: str) -> list[tuple[str, int]]:
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def bundled_grids() -> dict[str, str]:
    """Every bundled grid with the first line of its comment; reads no YAML and imports nothing heavy."""
    told = first_lines(files(__name__))
    return {name: told[name] for name in bundled_names()}


def first_lines(folder: Traversable) -> dict[str, str]:
    """Every YAML file of a folder with the first line of its comment."""
    told = {}
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.name.endswith(".yaml"):
            first = item.read_text(encoding="utf-8").partition("\n")[0]
            told[item.name.removesuffix(".yaml")] = first.lstrip("# ").strip() if first.startswith("#") else ""
    return told
