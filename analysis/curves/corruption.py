"""Metric against the level of a corruption (RAML, Tables II and III)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.curves.panels import (
    MAX_COLUMNS,
    MAX_ROWS,
    Drawing,
    Panel,
    draw_panels,
    heading_of,
    line_looks,
    method_lines,
    metric_label,
    of_metric,
    spread_told,
)
from analysis.figures import Style
from analysis.results import order_corruptions, some
from analysis.tables import percent
from datasets.errors import UserError

Steps = frozenset[tuple[str, str, float]]
"""What a corruption does: (kind, modality, level) of each step."""
AXIS_WORDS = {
    "gaussian": "noise, standard deviations", "mask": "share that is masked", "swap": "share that trades places",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Series:
    """Corruptions that differ in one level alone."""

    kind: str
    modalities: tuple[str, ...]
    """The modalities corrupted at this level, all alike."""
    others: str
    """What else is corrupted, alike at every level; empty: nothing."""
    corruptions: tuple[str, ...]
    """In the words of the results frame, from level 0 (clean, or with `others` alone) upwards."""
    levels: tuple[float, ...]

    @property
    def title(self) -> str:
        """`gaussian on image`, `mask on text, with gaussian(image)=0.18`."""
        with_others = f", with {self.others}" if self.others else ""
        return f"{self.kind} on {'+'.join(self.modalities)}{with_others}"


def corruption_series(corruptions: Sequence[str]) -> list[Series]:
    """The series that corruptions of a results frame form, each with two levels at least.

    What several modalities are corrupted with at one common level varies together; of other combinations each step
    varies while the others stay, where results allow it. Level 0 is the condition without that step.

    Raises:
        UserError: one is not of the form `gaussian(image)=0.18&mask(text)=0.1`.
    """
    for text in corruptions:
        _steps(text)
    known = {_steps(text): text for text in order_corruptions(corruptions)}
    found: dict[tuple[Any, ...], dict[float, str]] = {}
    for steps, text in known.items():
        for moved in _axes(steps):
            others = steps - moved
            key = (tuple(sorted({(kind, name) for kind, name, _ in moved})), tuple(sorted(others)))
            levels = found.setdefault(key, {})
            levels[next(iter(moved))[2]] = text
            if others in known:
                levels[0.0] = known[others]
    series = []
    for (moved_keys, others), levels in found.items():
        positive = [level for level in levels if level > 0]
        if len(positive) < (1 if 0.0 in levels and not others else 2):
            continue
        order = sorted(levels)
        words = "&".join(f"{kind}({name})={level:g}" for kind, name, level in others)
        names = tuple(name for _, name in moved_keys)
        series.append(Series(moved_keys[0][0], names, words, tuple(levels[at] for at in order), tuple(order)))
    return sorted(series, key=lambda own: bool(own.others))


def _steps(corruption: str) -> Steps:
    steps = set()
    for step in filter(None, corruption.split("&")):
        what, _, level = step.rpartition("=")
        kind, bracket, modality = what.removesuffix(")").partition("(")
        try:
            steps.add((kind, modality, float(level)))
        except ValueError:
            bracket = ""
        if not bracket:
            raise UserError(f"'{step}' is no corruption such as 'gaussian(image)=0.18'.")
    return frozenset(steps)


def _axes(steps: Steps) -> list[Steps]:
    """Which steps may vary while the others stay: all together where they are alike, else each alone."""
    alike = len({(kind, level) for kind, _, level in steps}) == 1
    return [steps] if alike else [frozenset([step]) for step in sorted(steps)]


def draw_corruptions(
    summary: pd.DataFrame,
    dataset: str,
    label_ratio: float,
    checkpoint: str,
    styles: Mapping[str, Style],
    *,
    metric: str | None = None,
) -> Drawing:
    """A data set's metric against the level of a corruption: a row a corruption, a column a modality subset.

    Args:
        summary: from `analysis.results.summarise`, made for `checkpoint`.
        dataset: label of the data set.
        label_ratio: the label ratio whose trainings are shown.
        checkpoint: `last` or `best`, for the caption.
        styles: of every method, from `analysis.figures.method_styles`.
        metric: None: the primary one.

    Raises:
        UserError: the summary has no such data set or metric.
    """
    part = of_metric(summary, dataset, metric)
    part = part[(part["label_ratio"] == label_ratio) & (part["n_seeds"] > 0)]
    corruptions = part["corruption"].unique().tolist()
    if not any(corruptions):
        where = f"{dataset} at {percent(label_ratio)} of the labels"
        return Drawing(None, f"{where} has no results on corrupted inputs; grids ask for them with 'corruptions'.")
    series = corruption_series(corruptions)
    rows = [(own, shown) for own in series[:MAX_ROWS] if (shown := _series_panels(own, part))]
    if not rows:
        return Drawing(None, f"{dataset} has no corruption with results at two levels or more, 0 counted: no curve.")
    columns = max(len(shown) for _, shown in rows)
    panels = [panel for _, shown in rows for panel in [*shown, *[None] * (columns - len(shown))]]
    drawn = {text for own, _ in rows for text in own.corruptions}
    lost = [text for text in corruptions if text and text not in drawn]
    words = "Level 0 is the same cell without that corruption."
    heading = f"{heading_of(part)}, {percent(label_ratio)} of the labels"
    figure = draw_panels(panels, line_looks(styles), columns, heading, f"{spread_told(part)} {words}", checkpoint)
    told = [f"corruptions in the tables only: {some(lost)}"] if lost else []
    if any(len(_subsets_of(own, part)) > MAX_COLUMNS for own, _ in rows):
        told.append(f"of modality subsets the {MAX_COLUMNS} with the most and the fewest modalities are drawn")
    return Drawing(figure, f"{dataset}: {'; '.join(told)}." if told else "")


def _subsets_of(series: Series, part: pd.DataFrame) -> list[str]:
    """The modality subsets that were tested at two levels of a series or more, in the order of the tables."""
    own = part[part["corruption"].isin(series.corruptions)]
    counts = own.groupby("modalities", sort=False)["corruption"].nunique()
    return [str(subset) for subset in own["modalities"].unique() if counts[subset] > 1 and _corrupts(series, subset)]


def _corrupts(series: Series, subset: str) -> bool:
    return set(series.modalities) <= set(subset.split("+"))


def _series_panels(series: Series, part: pd.DataFrame) -> list[Panel]:
    subsets = _subsets_of(series, part)
    if len(subsets) > MAX_COLUMNS:
        subsets = [*subsets[: MAX_COLUMNS - 1], subsets[-1]]
    level = dict(zip(series.corruptions, series.levels, strict=True))
    own = part[part["corruption"].isin(series.corruptions)]
    own = own.assign(level=own["corruption"].map(level))
    return [
        Panel(f"{series.title}\ntested on {subset}",
              method_lines(own[own["modalities"] == subset], "level", series.levels),
              AXIS_WORDS.get(series.kind, "level"), metric_label(part), ticks=series.levels)
        for subset in subsets
    ]  # fmt: skip
