"""What a data set is: a cheap description for planning, arrays when it is used, a fingerprint for identity."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from datasets.tasks import Task

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class DataConfig(BaseModel):
    """Options of a data set, as a grid may give them. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class DataSpec:
    """What planning needs to know of a data set, without its arrays."""

    name: str
    modalities: Mapping[str, tuple[int, ...]]
    """Modality name -> shape of one sample, (D,) or (T, D); the order is the data set's own."""
    task: Task
    sizes: Mapping[Split, int]
    fingerprint: str
    """Hash of the content: equal fingerprints mean equal arrays."""

    @property
    def full(self) -> str:
        """The modality subset that holds every modality."""
        return "+".join(self.modalities)


def all_subsets(modalities: Mapping[str, Any] | tuple[str, ...]) -> list[str]:
    """Every non-empty modality subset, singles first, each written in the data set's own order."""
    names = tuple(modalities)
    return ["+".join(part) for size in range(1, len(names) + 1) for part in combinations(names, size)]


@dataclass(frozen=True)
class Part:
    """One split: N samples."""

    inputs: Mapping[str, NDArray[np.float32]]
    """Modality name -> (N, D) or (N, T, D), finite."""
    target: NDArray[Any]
    """(N,) int64 class, (N,) float32 value, or (N, C) float32 indicators."""

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Data:
    """The loaded arrays of a data set."""

    spec: DataSpec
    parts: Mapping[Split, Part]
    truth: Mapping[str, float] = field(default_factory=dict)
    """What is known exactly, e.g. the information of `synthetic` in bits; empty for real data."""


class DataSet(ABC):
    """A data set of the suite: options in, description and arrays out. One file a data set.

    A subclass gives `name`, `summary`, `source`, `licence`, a `Config`, and `spec` and `load`. `spec` must be
    quick (no large arrays are read): it runs for every `bench plan`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    licence: ClassVar[str]
    Config: ClassVar[type[DataConfig]] = DataConfig

    def __init__(self, config: DataConfig | None = None) -> None:
        self.config = self.Config() if config is None else config

    @abstractmethod
    def spec(self) -> DataSpec:
        """Shapes, task, sizes and fingerprint.

        Raises:
            DataError: the prepared store is absent or damaged; the message gives the command that mends it.
        """

    @abstractmethod
    def load(self) -> Data:
        """The arrays of all splits.

        Raises:
            DataError: as `spec`, or the content does not match the fingerprint.
        """

    def verify(self) -> list[str] | None:
        """What is wrong with what is on disk, a sentence each; None: it is one store, which verifies itself."""
        return None

    @classmethod
    def prepare(cls, source: Path, store: Path) -> str | None:
        """Turn the raw file people have into a verified store; data sets that need no file refuse.

        One whose raw files have samples in several splits takes a third argument, `overlap` (`overlap.Overlap`).

        Returns:
            What to tell the person where the store is not yet what `spec` describes; None: the spec says it all.

        Raises:
            UserError: this data set needs no preparation.
            DataError: the file is not what it should be.
        """
        from datasets.errors import UserError

        raise UserError(f"data set '{cls.name}' needs no preparation: it is ready to use.")
