"""The bundled searches, usable by name: `bench search robult-tau-bandwidth`. Imports nothing heavy."""

from importlib.resources import files

from bench.grids import first_lines


def bundled_searches() -> dict[str, str]:
    """Every bundled search with the first line of its comment."""
    return first_lines(files(__name__))
