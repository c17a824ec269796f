"""What a card says of the arrays: value statistics per modality and split, and how the labels are distributed.

N samples; a row is one step of a sequence, or one vector.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

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


class Sized(Protocol):
    """An array, or what stands for one."""

    @property
    def size(self) -> int: ...

    def __len__(self) -> int: ...


def slices(x: Sized) -> Iterator[slice]:
    """The samples of `x` (N, ...) in runs of at most `CHUNK_VALUES` values where samples are smaller."""
    step = max(1, CHUNK_VALUES * len(x) // max(x.size, 1))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def chunks(x: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """`x` (N, ...) itself in such runs."""
    for rows in slices(x):
        yield x[rows]


@dataclass
class Tally:
    """Statistics in the making, chunk by chunk."""

    total: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    n_values: int = 0
    n_rows: int = 0
    zero_rows: int = 0
    broken: int = 0
    """Values that are not finite; with any, there are no statistics."""
    _doubles: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False)

    def add(self, chunk: NDArray[np.float32]) -> None:
        """Count the samples of a chunk (N, D) or (N, T, D)."""
        rows = chunk.reshape(-1, chunk.shape[-1])
        values = self._as_float64(rows)
        with np.errstate(invalid="ignore"):
            total, squares = float(values.sum()), float(values @ values)
        if not np.isfinite(squares):  # no square of a float32 is too large for a float64
            self.broken += int(rows.size - np.isfinite(rows).sum())
        self.total += total
        self.squares += squares
        self.low, self.high = min(self.low, float(rows.min())), max(self.high, float(rows.max()))
        self.n_values += rows.size
        self.n_rows += len(rows)
        self.zero_rows += len(rows) - int(np.count_nonzero(rows.any(axis=1)))

    def _as_float64(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """The values in a row, in memory that every chunk uses again: fresh pages cost more than the sums."""
        if self._doubles.size < rows.size:
            self._doubles = np.empty(rows.size)
        values = self._doubles[: rows.size]
        np.copyto(values.reshape(rows.shape), rows)
        return values

    def statistics(self) -> Statistics:
        mean = self.total / self.n_values
        std = float(np.sqrt(max(self.squares / self.n_values - mean**2, 0.0)))
        return Statistics(mean, std, self.low, self.high, self.zero_rows / self.n_rows)


def describe_values(x: NDArray[np.float32]) -> Statistics:
    """Statistics of a finite array (N, D) or (N, T, D), in one pass over it."""
    tally = Tally()
    for chunk in chunks(x):
        tally.add(chunk)
    return tally.statistics()


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
