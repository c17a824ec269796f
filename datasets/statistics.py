"""What a card says of the arrays: value statistics per modality and split, and how the labels are distributed.

N samples; a row is one step of a sequence, or one vector.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.tasks import MultiClass, MultiLabel, Task

CHUNK_VALUES = 1 << 19
"""Values handled at a time: they stay in the processor's cache, and memory does not grow with the data."""


@dataclass(frozen=True)
class Statistics:
    """One modality in one split; zero rows (padding, absent samples) are counted in all figures."""

    mean: float
    std: float
    low: float
    high: float
    zero_rows: float
    """Share of rows that are zero throughout."""

    def to_json(self) -> dict[str, float]:
        return {name: float(f"{value:.6g}") for name, value in asdict(self).items()}


def chunks(x: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """`x` (N, ...) in runs of whole samples, at most `CHUNK_VALUES` values each where samples are smaller."""
    step = max(1, CHUNK_VALUES * len(x) // max(x.size, 1))
    for start in range(0, len(x), step):
        yield x[start : start + step]


def describe_values(x: NDArray[np.float32]) -> Statistics:
    """Statistics of a finite array (N, D) or (N, T, D), in one pass over it."""
    total = squares = 0.0
    low, high, zero_rows, n_rows = np.inf, -np.inf, 0, 0
    for chunk in chunks(x):
        rows = chunk.reshape(-1, x.shape[-1])
        values = rows.astype(np.float64).ravel()
        total += float(values.sum())
        squares += float(values @ values)
        low, high = min(low, rows.min()), max(high, rows.max())
        zero_rows += len(rows) - int(np.count_nonzero(rows.any(axis=1)))
        n_rows += len(rows)
    mean = total / x.size
    variance = max(squares / x.size - mean**2, 0.0)
    return Statistics(float(mean), float(np.sqrt(variance)), float(low), float(high), zero_rows / n_rows)


def describe_target(task: Task, target: NDArray[Any]) -> dict[str, int]:
    """How many samples have each class, label or, for values, each level of the task's groups, in order."""
    if isinstance(task, MultiLabel):
        return {str(label): int(n) for label, n in enumerate(target.sum(0))}
    if isinstance(task, MultiClass):
        return {str(label): int(n) for label, n in enumerate(np.bincount(target, minlength=task.n_classes))}
    low, high = float(target.min()), float(target.max())
    low, high = getattr(task, "low", low), getattr(task, "high", high)
    step = (high - low) / 24 or 1.0  # bars about both ends and, in [-3, 3], about every whole value
    counts, _ = np.histogram(target, bins=25, range=(low - step / 2, low + 24.5 * step))
    return {f"{low + i * step:g}": int(n) for i, n in enumerate(counts)}
