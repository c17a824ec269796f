"""The space a search looks through: for each hyper-parameter the values it may take, and when it counts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, Protocol

Kind = Literal["float", "int", "choice"]
TRAIN = "train."
"""Before the name of a train setting, to tell it from a hyper-parameter of the method."""


class Suggester(Protocol):
    """Who chooses the values: an Optuna trial."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...
    def suggest_categorical(self, name: str, choices: tuple[Any, ...]) -> Any: ...


@dataclass(frozen=True)
class Parameter:
    """One dimension of a space."""

    name: str
    """A hyper-parameter of the method, or `train.` and a train setting."""
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()
    points: int = 5
    """Values of a grid over a range without `step`."""
    when: Mapping[str, tuple[Any, ...]] | None = None
    """Other parameters -> values under which this one counts; else it is left at its default."""

    def counts(self, values: Mapping[str, Any]) -> bool:
        """Whether the parameter is part of a configuration whose other values are these."""
        return all(values.get(name) in allowed for name, allowed in (self.when or {}).items())

    def suggest(self, trial: Suggester) -> Any:
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, self.choices)
        if self.kind == "int":
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def contains(self, value: Any) -> bool:
        """Whether a search may suggest this value."""
        if self.kind == "choice":
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-9

    def grid(self) -> tuple[Any, ...]:
        """The values of a sweep: the choices, the steps of a range, or `points` values evenly over it."""
        import numpy as np

        if self.kind == "choice":
            return self.choices
        if self.step:
            values = np.arange(self.low, self.high + self.step / 2, self.step)
        elif self.log:
            values = np.geomspace(self.low, self.high, self.points)
        else:
            values = np.linspace(self.low, self.high, self.points)
        if self.kind == "int":
            return tuple(dict.fromkeys(round(float(value)) for value in values))
        return tuple(min(max(float(f"{value:.6g}"), self.low), self.high) for value in values)

    def plain(self) -> dict[str, Any]:
        """As the identity of a study has it; `points` changes no suggestion."""
        told: dict[str, Any] = {"kind": self.kind}
        if self.kind == "choice":
            told["choices"] = list(self.choices)
        else:
            told |= {"low": self.low, "high": self.high, "log": self.log, "step": self.step}
        if self.when:
            told["when"] = {name: list(allowed) for name, allowed in self.when.items()}
        return told

    def __str__(self) -> str:
        if self.kind == "choice":
            text = " | ".join(str(choice) for choice in self.choices)
        else:
            text = f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"
            text += f", step {self.step:g}" if self.step else ""
        when = " and ".join(f"{name} is {' or '.join(map(str, values))}" for name, values in (self.when or {}).items())
        return f"{self.name}: {text}{f' (when {when})' if when else ''}"


@dataclass(frozen=True)
class Space:
    """The parameters of one method, each after those that its `when` names."""

    parameters: tuple[Parameter, ...]

    def suggest(self, trial: Suggester) -> dict[str, Any]:
        """The values of a trial, without those of parameters that do not count."""
        values: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.counts(values):
                values[parameter.name] = parameter.suggest(trial)
        return values

    def of(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The point of the space that holds these values (a default configuration, say); None when it lies outside."""
        point: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.counts(point):
                value = values.get(parameter.name)
                if parameter.kind == "float" and isinstance(value, int) and not isinstance(value, bool):
                    value = float(value)
                if not parameter.contains(value):
                    return None
                point[parameter.name] = value
        return point

    def grid(self) -> list[dict[str, Any]]:
        """Every point of a sweep once, the last parameter changing fastest."""
        found: dict[str, dict[str, Any]] = {}
        for values in product(*(parameter.grid() for parameter in self.parameters)):
            point = dict(self._counting(dict(zip(self.names, values, strict=True))))
            found.setdefault(json.dumps(point, sort_keys=True), point)
        return list(found.values())

    def _counting(self, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        kept: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.counts(kept):
                kept[parameter.name] = values[parameter.name]
        yield from kept.items()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    def plain(self) -> dict[str, Any]:
        return {parameter.name: parameter.plain() for parameter in self.parameters}


def split_values(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a trial as (hyper-parameters of the method, train settings)."""
    method = {name: value for name, value in values.items() if not name.startswith(TRAIN)}
    return method, {name.removeprefix(TRAIN): value for name, value in values.items() if name.startswith(TRAIN)}
