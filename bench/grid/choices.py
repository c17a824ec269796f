"""Entries of a grid unrolled: every sweep multiplied out, every option resolved, every result labelled."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from math import prod
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from bench.grid.grid import Asked, Entry
from bench.grid.problems import Problems, Spot, check, explain, listing, show
from datasets.errors import did_you_mean
from datasets.registry import Registry

C_co = TypeVar("C_co", bound=BaseModel, covariant=True)
M = TypeVar("M", bound=BaseModel)

DEFAULT_VARIANT = "default"
MAX_CHOICES = 10_000
"""Configurations one grid may ask for, methods and data sets each."""
MAX_LABEL = 100
_LABEL_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+=,()-")


# ---- options in the file --------------------------------------------------------------------------------------


def read_sweep(
    problems: Problems, spot: Spot, model: type[BaseModel], *, owner: str, noun: str, reserved: Iterable[str] = ()
) -> dict[str, tuple[Any, ...]]:
    """For each option given under `spot` the values it takes in turn; those `model` refuses are told and left out.

    A list is a sweep, unless the option itself takes a list; then a list that holds lists is one.
    """
    sweep = {}
    for key in spot.node.keys:
        if key in reserved:
            continue
        if key not in model.model_fields:
            known = [*model.model_fields, *reserved]
            has = f"It has: {listing(known)}" if model.model_fields else f"It has no {noun}s"
            line = spot.node.key_lines[key]
            problems.at_line(line, f"{owner} has no {noun} '{key}'.{did_you_mean(key, known)} {has}", spot.path)
            continue
        found = _read_values(problems, spot.key(key), model, key)
        if found:
            sweep[key] = found
    return sweep


def _read_values(problems: Problems, spot: Spot, model: type[BaseModel], key: str) -> tuple[Any, ...]:
    node = spot.node
    errors = value_errors(model, key, spot)
    takes_list = admits_list(model.model_fields[key].annotation)
    nested = any(item.is_list for item in node.items)
    if not node.is_list or (takes_list and (not errors or not nested)):
        for place, text in errors:
            problems.add(place, text)
        return () if errors else (node.plain(),)
    if not node.items:
        problems.add(spot, "an empty list; give at least one value")
    values: dict[str, Any] = {}
    for item in spot.items():
        value = item.node.plain()
        same = json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)
        errors = value_errors(model, key, item)
        if not errors and same in values:
            errors = [(item, f"{show(value)} is given twice")]
        for place, text in errors:
            problems.add(place, text)
        if not errors:
            values[same] = value
    return tuple(values.values())


def value_errors(model: type[BaseModel], key: str, spot: Spot) -> list[tuple[Spot, str]]:
    """What the model's field `key` has against the value at `spot`, other fields aside."""
    if not _is_finite(spot.node.plain()):
        inside = " with .nan or .inf in it" if spot.node.is_list or spot.node.is_mapping else ""
        return [(spot, f"expected finite numbers, got {show(spot.node.plain())}{inside}")]
    try:
        check(model, {key: spot.node.plain()})
    except ValidationError as error:
        own = [detail for detail in error.errors(include_url=False) if detail["loc"][:1] == (key,)]
        return explain(own, spot, skip=1)
    return []


def _is_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or abs(value) < float("inf")


def admits_list(annotation: Any) -> bool:
    """Whether a field of this type may itself be a list."""
    if annotation is Any or annotation is object:
        return True
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return any(map(admits_list, get_args(annotation)))
    if origin is not None and hasattr(annotation, "__metadata__"):  # Annotated[X, ...]
        return admits_list(get_args(annotation)[0])
    kind = origin or annotation
    return isinstance(kind, type) and issubclass(kind, Iterable) and not issubclass(kind, str | bytes | Mapping)


# ---- unrolling ------------------------------------------------------------------------------------------------


def n_choices(entry: Entry) -> int:
    """How many configurations an entry stands for."""
    return max(1, len(entry.variants)) * prod(map(len, entry.values.values()))


def combinations(values: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Every combination of the swept values, the last option changing fastest."""
    for combination in product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def unroll(
    problems: Problems, spot: Spot, entry: Entry, model: type[M], variants: Mapping[str, Mapping[str, Any]], name: str
) -> list[Asked[M]]:
    """Every configuration of an entry, in the order of the file; a variant's values come first, overrides after."""
    told: set[tuple[str, str]] = set()
    found = []
    for variant in entry.variants or (DEFAULT_VARIANT,):
        preset = dict(variants.get(variant, {}))
        plain = _dump_or_none(model, preset)
        for given in combinations(entry.values):
            try:
                config = check(model, {**preset, **given})
            except ValidationError as error:
                for place, text in explain(error.errors(include_url=False), _options(spot, entry)):
                    if (place.path, text) not in told:
                        told.add((place.path, text))
                        problems.add(place, text + _combination(entry, variant, given))
                continue
            dump = config.model_dump(mode="json")
            key = json.dumps({"name": name, "config": dump}, sort_keys=True)
            found.append(Asked(name, _label(entry, variant, given, dump, plain), variant, config, key, spot))
    return found


def _combination(entry: Entry, variant: str, given: Mapping[str, Any]) -> str:
    """Which point of a sweep a problem was first met at."""
    swept = [f"{key}: {show(value)}" for key, value in given.items() if len(entry.values[key]) > 1]
    if len(entry.variants) > 1:
        swept.insert(0, f"variant: {variant}")
    return f" (with {', '.join(swept)})" if swept else ""


def _options(spot: Spot, entry: Entry) -> Spot:
    """Where an entry's options stand: below its name, or at the name itself when it has none."""
    return spot.key(entry.name) if entry.name in spot.node.keys else spot


def _dump_or_none(model: type[BaseModel], preset: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        return check(model, preset).model_dump(mode="json")
    except ValidationError:  # an option without a default
        return None


# ---- labels ---------------------------------------------------------------------------------------------------


def _label(
    entry: Entry, variant: str, given: Mapping[str, Any], dump: Mapping[str, Any], plain: Mapping[str, Any] | None
) -> str:
    """`robult`, `robult[no_rec,tau=0.5]`: the name, and what differs from the default or within the sweep."""
    parts = []
    if len(entry.variants) > 1 or (variant != DEFAULT_VARIANT and entry.label is None):
        parts.append(_safe(variant))
    for key in given:
        swept = len(entry.values[key]) > 1
        if swept or (entry.label is None and (plain is None or dump.get(key) != plain.get(key))):
            parts.append(f"{key}={_safe(_worded(dump.get(key)))}")
    base = entry.label or _safe(entry.name.rpartition(":")[2])
    return _cut(f"{base}[{','.join(parts)}]" if parts else base)


def _worded(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list):
        return f"({','.join(map(_worded, value))})"
    if isinstance(value, dict):
        return f"({','.join(f'{key}={_worded(item)}' for key, item in value.items())})"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def _safe(text: str) -> str:
    return "".join(letter if letter in _LABEL_SAFE else "-" for letter in text)


def _cut(label: str) -> str:
    """A label no longer than `MAX_LABEL`, still telling long ones apart."""
    if len(label) <= MAX_LABEL:
        return label
    from hashlib import blake2b

    return f"{label[: MAX_LABEL - 9]}~{blake2b(label.encode(), digest_size=4).hexdigest()}"


def label_problem(label: str) -> str | None:
    """What is wrong with a label given in the file, or None."""
    if not 0 < len(label) <= MAX_LABEL // 2:
        return f"a label has 1 to {MAX_LABEL // 2} characters, got {len(label)}"
    odd = sorted(set(label) - _LABEL_SAFE)
    if odd or not label[0].isalnum():  # a spreadsheet takes `=` and `+` for the beginning of a formula
        return f"{show(label)} is no label: use letters, digits and . _ + = , ( ) -, starting with a letter or digit"
    return None


def registry_name(registry: Registry[Any], name: str) -> str:
    """The registry's own name of what `name` finds, so that one class never goes by two names."""
    return next((known for known, entry in registry.builtin.items() if entry.path == name), name)
