"""The bundled grids, usable by name: `bench run quickstart`. Imports nothing heavy."""

import re
from importlib.resources import files


def bundled_names() -> list[str]:
    """Names of the bundled grids and collections, Table 2 before Table 10."""
    names = (item.name for item in files(__name__).iterdir())
    return sorted((name.removesuffix(".yaml") for name in names if name.endswith(".yaml")), key=_by_number)


def _by_number(name: str) -> list[tuple[str, int]]:
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def bundled_grids() -> dict[str, str]:
    """Every bundled grid with the first line of its comment; reads no YAML and imports nothing heavy."""
    told = {}
    for name in bundled_names():
        first = (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        told[name] = first.lstrip("# ").strip() if first.startswith("#") else ""
    return told
