"""How fusion weights answer to corrupted inputs, feature by feature (RAML, Figure 5)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.curves import Drawing, draw_weights
from analysis.curves.corruption import Series, corruption_series
from analysis.representations import content_key
from analysis.sections.base import Block, Inputs, Kept, Say, attempt, picture
from analysis.sections.results import file_name
from analysis.tables import percent

MAX_SERIES = 6
"""Figures of a data set and label ratio."""
Weights = dict[str, dict[str, NDArray[Any]]]
"""Corruption -> modality -> weight of each feature, (D,)."""


def fusion_weights(inputs: Inputs, kept: Sequence[Kept]) -> Iterator[Block]:
    """A figure a corruption: methods of equal width below each other, all modalities present."""
    found = {one.method: weights for one in kept if (weights := _weights_of(one))}
    if not found:
        return
    series = corruption_series(list(dict.fromkeys(text for weights in found.values() for text in weights)))
    what = f"{kept[0].dataset}, {percent(kept[0].label_ratio)} of the labels"
    if not series:
        yield Say(f"{what}: weights were kept of clean inputs alone; a grid corrupts them with 'corruptions'.", "note")
    for own in series[:MAX_SERIES]:
        for members in _of_equal_width(found).values():
            yield from attempt(f"Weights under {own.title}", partial(_figure, inputs, what, own, members))
    if len(series) > MAX_SERIES:
        yield Say(f"Not drawn: {', '.join(own.title for own in series[MAX_SERIES:])}.", "note")


def _weights_of(one: Kept) -> Weights:
    """What a training kept of tests with all modalities."""
    found: Weights = {}
    for name, x in one.arrays.items():
        if name.startswith("weight/"):
            condition, _, modality = name.removeprefix("weight/").rpartition("/")
            subset, _, corruption = condition.partition("@")
            if subset == one.full:
                found.setdefault(corruption, {})[modality] = x
    return found


def _of_equal_width(found: Mapping[str, Weights]) -> dict[tuple[Any, ...], dict[str, Weights]]:
    """Methods by the modalities and the number of features that they weigh."""
    alike: dict[tuple[Any, ...], dict[str, Weights]] = {}
    for method, weights in found.items():
        first = next(iter(weights.values()))
        alike.setdefault(tuple((name, x.shape) for name, x in first.items()), {})[method] = weights
    return alike


def _figure(inputs: Inputs, what: str, series: Series, members: Mapping[str, Weights]) -> Iterator[Block]:
    methods = list(members)
    first = next(iter(members[methods[0]].values()))
    arrays = {
        name: np.stack([
            np.stack([own.get(text, {}).get(name, np.full_like(x, np.nan)) for text in series.corruptions])
            for own in members.values()
        ])
        for name, x in first.items()
    }  # fmt: skip
    drawing: Drawing = draw_weights(arrays, methods, series.levels, corruption=series.title, dataset=what)
    figure = drawing.figure
    if figure is None:
        yield Say(drawing.words, "note")
        return
    key = content_key(*arrays.values(), names=tuple(arrays), methods=tuple(methods), levels=series.levels)
    yield picture(
        inputs, key, lambda: figure, name=f"weights-{file_name(f'{what} {series.title} {methods[0]}')}",
        caption=f"Fusion weights under {series.title} (RAML, Figure 5): {what}",
        alt=f"Weight of each feature of {', '.join(arrays)} in the fusion of {', '.join(methods)}, from level "
            f"{series.levels[0]:g} to {series.levels[-1]:g} of {series.title}; mean weights stand beside the strips.",
    )  # fmt: skip
    if drawing.words:
        yield Say(drawing.words, "note")
