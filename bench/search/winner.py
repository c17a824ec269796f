"""From a search back to a grid: the configurations that won, as YAML that `bench run` takes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.grid.grid import Entry, Grid, Train
from bench.grid.plan import MethodChoice
from bench.search.rounds import configured
from bench.search.search import Search
from bench.search.space import split_values
from bench.search.study import TrialRow
from datasets.errors import UserError


@dataclass(frozen=True)
class Pick:
    """A configuration for a grid: a trial of a method, or its defaults."""

    method: MethodChoice
    label: str
    params: Mapping[str, Any]

    @property
    def train(self) -> dict[str, Any]:
        """The train settings that were tuned with it."""
        return split_values(self.params)[1]


def tuned(method: MethodChoice, best: Sequence[TrialRow]) -> list[Pick]:
    """The winner of a study, or its Pareto front, labelled by trial."""
    many = len(best) > 1
    return [Pick(method, _label(method, f"tuned-{row.number}" if many else "tuned"), row.params) for row in best]


def default(method: MethodChoice) -> Pick:
    return Pick(method, _label(method, "default"), {})


def same(search: Search, a: Pick, b: Pick) -> bool:
    """Whether two configurations of a method train the same."""
    keys = {configured(pick.method, split_values(pick.params)[0]).key for pick in (a, b)}
    train = [{name: values[0] for name, values in search.grid.train.values.items()} | pick.train for pick in (a, b)]
    return len(keys) == 1 and train[0] == train[1]


def _label(method: MethodChoice, end: str) -> str:
    """`robult-tuned`: within what a label may be long."""
    return f"{method.label[: 49 - len(end)]}-{end}"


def grids(search: Search, picks: Sequence[Pick]) -> list[Grid]:
    """Grids of the search's name that train and test the picks: one for each set of train settings."""
    groups: dict[str, list[Pick]] = {}
    for pick in picks:
        groups.setdefault(json.dumps(pick.train, sort_keys=True), []).append(pick)
    return [_grid(search, group) for group in groups.values()]


def _grid(search: Search, picks: Sequence[Pick]) -> Grid:
    train, tuned_settings = search.grid.train, {name: (value,) for name, value in picks[0].train.items()}
    own = {
        name: {key: value for key, value in values.items() if key not in tuned_settings}
        for name, values in train.datasets.items()
    }
    return replace(
        search.grid,
        description=f"Found by bench search {search.name}.",
        methods=tuple(_entry(pick) for pick in picks),
        train=Train({**train.values, **tuned_settings}, {name: values for name, values in own.items() if values}),
        source="",
    )


def _entry(pick: Pick) -> Entry:
    """What differs from the Config's own defaults, whatever variant it came by."""
    choice = configured(pick.method, split_values(pick.params)[0])
    plain = type(choice.config)().model_dump(mode="json")
    values = {key: (value,) for key, value in choice.config.model_dump(mode="json").items() if plain[key] != value}
    return Entry(pick.method.name, pick.label, (), values)


def fragment(search: Search, picks: Sequence[Pick], told: Mapping[str, str]) -> str:
    """The picks as the text of one grid, each told of in a comment.

    Args:
        search: where they come from.
        picks: what won.
        told: label -> a line on it.

    Raises:
        UserError: they were tuned with different train settings.
    """
    found = grids(search, picks)
    if len(found) > 1:
        labels = ", ".join(dict.fromkeys(pick.method.label for pick in picks))
        raise UserError(
            f"these were tuned with different train settings, which one grid cannot hold: name one with --method or "
            f"--trial. The methods are: {labels}."
        )
    lines = [f"# {label}: {line}" for label, line in told.items()]
    return "\n".join([f"# Found by bench search {search.name}.", *lines, found[0].to_yaml()])
