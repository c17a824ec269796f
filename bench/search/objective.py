"""What makes one configuration better than another: numbers of the validation split, brought down to one a trial."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from bench.grid.plan import DatasetChoice, Training, subsets_of

Over = Literal["mean", "median", "worst"]
OVERS: tuple[Over, ...] = ("mean", "median", "worst")

Rows = Mapping[str, Mapping[str, float]]
"""Modality subset -> metrics."""


@dataclass(frozen=True)
class Objective:
    """One number a trial: a metric over modality subsets, then over seeds, then its mean over data sets and ratios."""

    metric: str
    higher: bool
    """Whether more of it is better."""
    modalities: tuple[str, ...] = ("single", "full")
    """Requests as a grid has them."""
    over_subsets: Over = "mean"
    over_seeds: Over = "mean"

    @property
    def name(self) -> str:
        """In words, for tables and figures: `acc, full`, `acc, worst of single`."""
        return f"{self.metric}, {self._part(self.over_subsets, '+'.join(self.modalities))}" + (
            "" if self.over_seeds == "mean" else f", {self.over_seeds} seed"
        )

    def _part(self, over: Over, what: str) -> str:
        return what if what == "full" else f"{over} of {' and '.join(what.split('+'))}"

    def subsets(self, dataset: DatasetChoice) -> tuple[str, ...]:
        """The modality subsets of a data set that count."""
        found, _ = subsets_of(self.modalities, dataset.spec.modalities)
        return found

    def of_training(self, subsets: Iterable[str], rows: Rows) -> float:
        """The metric of one training over its subsets."""
        return self._reduce(self.over_subsets, [rows[subset][self.metric] for subset in subsets])

    def of_trial(self, values: Iterable[tuple[Training, float]]) -> float:
        """The value of a trial from those of its trainings."""
        groups: dict[tuple[str, float], list[float]] = {}
        for training, value in values:
            groups.setdefault((training.dataset.label, training.label_ratio), []).append(value)
        return statistics.fmean(self._reduce(self.over_seeds, group) for group in groups.values())

    def _reduce(self, over: Over, values: list[float]) -> float:
        if over == "worst":
            return min(values) if self.higher else max(values)
        return statistics.median(values) if over == "median" else statistics.fmean(values)

    def plain(self) -> dict[str, object]:
        return {
            "metric": self.metric,
            "modalities": list(self.modalities),
            "over_subsets": self.over_subsets,
            "over_seeds": self.over_seeds,
        }
