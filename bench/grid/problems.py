"""What is wrong with a grid, told by file, line and key in plain sentences, all at once."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel
from pydantic_core.core_schema import ErrorType

from bench.grid.yaml_lines import Node
from datasets.errors import UserError, did_you_mean, printable

M = TypeVar("M", bound=BaseModel)

MAX_TOLD = 50


def _one_line(text: str) -> str:
    """Line breaks as spaces and what a terminal would act on as escapes: a grid may come from anywhere."""
    return printable(" ".join(text.splitlines()))


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend in a grid file."""

    file: str
    """Empty where there is no file yet."""
    line: int
    """Counted from 1; 0 where the problem is with the file as a whole."""
    path: str
    """Where in the YAML: `methods[1].robult.tau`; empty for the file as a whole."""
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return _one_line(": ".join(part for part in (place, self.path, self.text) if part))


class GridError(UserError):
    """Everything that is wrong with a grid, one line a problem, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(dict.fromkeys(problems), key=lambda problem: problem.line)
        lines = [str(problem) for problem in self.problems[:MAX_TOLD]]
        more = len(self.problems) - MAX_TOLD
        if more > 0:
            lines.append(f"... and {more} more problems")
        super().__init__("\n".join(lines))


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in the file: a node and the path that leads to it."""

    node: Node
    path: str = ""

    @property
    def line(self) -> int:
        return self.node.line

    def item(self, index: int) -> "Spot":
        return Spot(self.node.items[index], f"{self.path}[{index}]")

    def key(self, key: str) -> "Spot":
        return Spot(self.node.keys[key], f"{self.path}.{key}" if self.path else key)

    def items(self) -> "list[Spot]":
        return [self.item(index) for index in range(len(self.node.items))]

    def walk(self, steps: Iterable[int | str]) -> "Spot":
        """Follow pydantic's location as far as the file has it; its names for members of a union are no steps."""
        spot = self
        for step in steps:
            if isinstance(step, int) and 0 <= step < len(spot.node.items):
                spot = spot.item(step)
            elif isinstance(step, str) and step in spot.node.keys:
                spot = spot.key(step)
        return spot


class Problems:
    """Collects what is wrong with one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[Problem] = []

    def __len__(self) -> int:
        return len(self.found)

    def add(self, spot: Spot, text: str) -> None:
        self.found.append(Problem(self.file, spot.line, spot.path, text))

    def at_line(self, line: int, text: str, path: str = "") -> None:
        self.found.append(Problem(self.file, line, path, text))


def show(value: Any) -> str:
    """A value of the file as a sentence shows it, abbreviated."""
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}...'"
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return ".nan" if value != value else ".inf" if value > 0 else "-.inf"
    text = str(value)
    return text if len(text) <= 30 else f"{text[:27]}..."


def listing(names: Sequence[str], limit: int = 30) -> str:
    """`a, b, c`, cut when there are too many to read."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """`what`, then the nearest known name, then all of them."""
    return f"{what}.{did_you_mean(name, list(known))} Known: {listing(known)}"


# ---- pydantic's errors in our words ---------------------------------------------------------------------------

_PYDANTICS_OWN = frozenset(get_args(ErrorType))
_EXPECTED: Mapping[str, str] = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_unicode": "text",
    "string_not_ascii": "text without special characters",
    "none_required": "null",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "deque_type": "a list",
    "iterable_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "dataclass_type": "a mapping",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "at least {min_length} item(s)",
    "too_long": "at most {max_length} item(s)",
    "string_too_short": "text of at least {min_length} character(s)",
    "string_too_long": "text of at most {max_length} character(s)",
    "string_pattern_mismatch": "text that matches {pattern}",
    "date_type": "a date",
    "date_parsing": "a date",
    "path_type": "a path",
    "url_type": "a URL",
    "url_parsing": "a URL",
    "url_scheme": "a URL that starts with {expected_schemes}",
}


def _choices(error: Mapping[str, Any]) -> list[str]:
    # pydantic tells the choices as one text: "'none', 'plateau' or 3".
    expected = str(error.get("ctx", {}).get("expected", ""))
    return [part.strip().strip("'\"") for part in expected.replace(" or ", ", ").split(", ") if part.strip()]


def _expected(error: Mapping[str, Any]) -> str | None:
    """What was expected, as a noun; None where the error is a sentence of its own."""
    kind = error["type"]
    if kind in ("literal_error", "enum"):
        choices = _choices(error)
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    pattern = _EXPECTED.get(kind)
    if pattern is None:
        return None
    context = {key: f"{value:g}" if isinstance(value, float) else value for key, value in error.get("ctx", {}).items()}
    return pattern.format_map({"gt": "?", "ge": "?", "lt": "?", "le": "?", **context})


def _sentence(error: Mapping[str, Any]) -> str:
    """An error that is not of the form "expected this, got that"."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", "")) or "not a valid value"
    if kind == "missing":
        return f"'{error['loc'][-1]}' is required" if error["loc"] else "a value is required"
    if kind == "extra_forbidden":
        return f"unknown key '{error['loc'][-1]}'"
    if kind not in _PYDANTICS_OWN:
        return str(error["msg"])  # the Config author's own words
    return f"not a valid value: {show(error.get('input'))}"


def explain(errors: Iterable[Mapping[str, Any]], spot: Spot, skip: int = 0) -> list[tuple[Spot, str]]:
    """Pydantic's errors as (place, sentence) pairs; what the members of a union each expected becomes one sentence.

    `spot` is where pydantic's locations start, after their first `skip` steps.
    """
    groups: dict[str, tuple[Spot, list[Mapping[str, Any]]]] = {}
    for detail in errors:
        place = spot.walk(detail["loc"][skip:])
        groups.setdefault(place.path, (place, []))[1].append(detail)
    # A list given to "number or list of numbers": where the problem is inside the list, only that is of interest.
    inner = [path for path in groups if not any(other.startswith((f"{path}[", f"{path}.")) for other in groups)]
    return [(groups[path][0], _one_sentence(groups[path][1], groups[path][0].node.plain())) for path in inner]


def _one_sentence(details: list[Mapping[str, Any]], got: Any) -> str:
    nouns = [_expected(detail) for detail in details]
    if None in nouns:  # of a union, the member that got furthest
        sentences = [_sentence(detail) for detail, noun in zip(details, nouns, strict=True) if noun is None]
        return "; ".join(dict.fromkeys(sentences))
    expected = list(dict.fromkeys(noun for noun in nouns if noun is not None))
    told = f"expected {' or '.join(expected)}, got {show(got)}"
    if expected == ["text"] and isinstance(got, int | float):
        return f"{told}: put it in quotes"
    choices = [
        choice for detail in details if detail["type"] in ("literal_error", "enum") for choice in _choices(detail)
    ]
    hint = did_you_mean(got, choices) if isinstance(got, str) else ""
    return f"{told}.{hint}" if hint else told


def check(model: type[M], values: Mapping[str, Any]) -> M:
    """`values` as the model, strictly: no text for a number, no true for 1, but a list where it wants a tuple.

    Raises:
        ValidationError: as pydantic words it; `explain` has ours.
    """
    # JSON is the one input in which pydantic is strict about scalars and still takes a list for a tuple.
    return model.model_validate_json(json.dumps(values), strict=True)
