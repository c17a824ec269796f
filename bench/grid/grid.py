"""The validated content of one `grid.yaml`: what to train, on what, and how.

`bench.grid.file` reads one and tells every problem at once; `Grid.to_yaml` writes it back.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bench.arrays import What
from bench.grid.problems import Spot
from datasets.corruption import Corruption

if TYPE_CHECKING:  # they need torch, which a listing of grids should not wait for
    from datasets.base import DataConfig
    from methods.base import MethodConfig


C_co = TypeVar("C_co", bound=BaseModel, covariant=True)

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"

Checkpoint = Literal["last", "best"]
CHECKPOINTS: tuple[Checkpoint, ...] = ("last", "best")


def _store(uri: str) -> str:
    if not uri.strip():
        raise ValueError(f"an empty URI; leave the key out for {DEFAULT_TRACKING_URI}")
    if re.fullmatch(r"[^:]+\.(db|sqlite3?)", uri):
        raise ValueError(f"'{uri}' is not a URI. Did you mean 'sqlite:///{uri}'?")
    if uri.startswith("sqlite:") and not uri.startswith("sqlite:///"):
        raise ValueError(f"'{uri}' needs three slashes. Did you mean 'sqlite:///{uri[7:].lstrip('/')}'?")
    return uri


def _device(name: str) -> str:
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", name):
        raise ValueError(f"unknown device '{name}': write cpu, mps, cuda or cuda:0, cuda:1, ...")
    return name


def _device_word(value: object) -> object:
    if isinstance(value, str) and value not in ("auto", "cpu"):
        raise ValueError(f"unknown devices '{value}': write auto, cpu or a list such as ['cuda:0', 'cuda:1']")
    return value


def _distinct(devices: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(devices)) < len(devices):
        raise ValueError("a device is given twice; 'slots' says how many trainings share one")
    return devices


class Tracking(BaseModel):
    """Where results are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: Annotated[str, AfterValidator(_store)] = Field(
        default_factory=lambda: os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI,
        description="MLflow tracking URI: the grid's, else MLFLOW_TRACKING_URI, else SQLite in the working directory",
    )


class Executor(BaseModel):
    """What trainings run on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["local", "ray"] = Field(default="local", description="local: this machine; ray: a Ray cluster")
    address: str = Field(
        default="auto", description="of the Ray cluster: auto, or HOST:PORT of its head; local starts one here"
    )
    devices: (
        Annotated[Literal["auto", "cpu"], BeforeValidator(_device_word)]
        | Annotated[tuple[Annotated[str, AfterValidator(_device)], ...], Field(min_length=1), AfterValidator(_distinct)]
    ) = Field(default="auto", description="auto: every visible GPU, else the CPU")
    slots: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        default="auto",
        description="trainings at once: auto is one a CPU core, or as many a GPU as measured to pay, one on Ray's",
    )
    stack: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        default="auto", description="trainings that a slot trains as one: auto is what pays on its device; 1: none"
    )
    capture: bool = Field(
        default=False,
        description="replay the training step from a CUDA graph where that is measured to be quicker; not on CPUs",
    )
    timeout_s: float | None = Field(default=None, gt=0, description="seconds after which a training is given up")
    silence_s: float = Field(
        default=1800.0, ge=10, description="seconds without a step after which a worker counts as hung and is killed"
    )

    @model_validator(mode="after")
    def _fit_the_kind(self) -> "Executor":
        if self.kind == "local" and self.address != "auto":
            raise ValueError("an address is that of a Ray cluster; say kind: ray")
        if self.kind == "ray" and not isinstance(self.devices, str):
            raise ValueError("devices of a Ray cluster are auto or cpu; 'slots' says how many trainings share them")
        return self


@dataclass(frozen=True)
class Entry:
    """One item under `methods` or `datasets`: a name, and for each option given the values it takes in turn."""

    name: str
    label: str | None = None
    variants: tuple[str, ...] = ()
    """Variants of a method asked for; empty: the default."""
    values: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def plain(self) -> Any:
        """As the YAML has it."""
        options: dict[str, Any] = {} if self.label is None else {"label": self.label}
        if self.variants:
            options["variant"] = _swept(self.variants)
        options |= {key: _swept(values) for key, values in self.values.items()}
        return {self.name: options} if options else self.name


@dataclass(frozen=True)
class Train:
    """Train settings: the values each takes in turn, for all data sets and for named ones."""

    values: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    datasets: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    """Name or label of a data set -> what differs there; a label goes before a name."""

    def values_for(self, name: str, label: str) -> dict[str, tuple[Any, ...]]:
        """The values that hold for one data set."""
        return {**self.values, **self.datasets.get(name, {}), **self.datasets.get(label, {})}

    def plain(self) -> dict[str, Any]:
        """As the YAML has it."""
        told: dict[str, Any] = {key: _swept(values) for key, values in self.values.items()}
        if self.datasets:
            told["datasets"] = {
                name: {key: _swept(values) for key, values in sweep.items()} for name, sweep in self.datasets.items()
            }
        return told


def _swept(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else list(values)


def _corruption(corruption: Corruption) -> dict[str, dict[str, float]]:
    told: dict[str, dict[str, float]] = {}
    for step in corruption.steps:
        told.setdefault(step.kind, {})[step.modality] = step.level
    return told


@dataclass(frozen=True, slots=True)
class Asked(Generic[C_co]):
    """One method or data set a grid asks for, with its options resolved."""

    name: str
    """Name in the registry, or an import string."""
    label: str
    """Name in tables: unique in its grid, safe in file names."""
    variant: str
    config: C_co
    key: str
    """Canonical JSON of what it is: the name and every option."""
    spot: Spot


@dataclass(frozen=True)
class Grid:
    """One experiment. Made by `load_grid` and `parse_grid`, which check it; two grids are equal if their keys are."""

    name: str
    """The MLflow experiment."""
    methods: tuple[Entry, ...]
    datasets: tuple[Entry, ...]
    description: str = ""
    label_ratios: tuple[float, ...] = (1.0,)
    modalities: tuple[str, ...] = ("all",)
    """`all`, `single`, `full` or modality names joined by `+`, in the file's order."""
    corruptions: tuple[Corruption, ...] = ()
    """What is tested besides clean inputs; the modality `all` stands for each that a data set has."""
    seeds: tuple[int, ...] = (0, 1, 2)
    train: Train = Train()
    checkpoint: Checkpoint = "last"
    """Which epoch's test metrics are reported; both are logged."""
    save: tuple[What, ...] = ()
    """Arrays kept of each training, of that epoch."""
    tracking: Tracking = field(default_factory=Tracking)
    executor: Executor = field(default_factory=Executor)
    file: str = field(default="grid.yaml", compare=False)
    """The file as messages name it."""
    source: str = field(default="", compare=False, repr=False)
    """The YAML as it was written."""
    asked_methods: "tuple[Asked[MethodConfig], ...]" = field(default=(), compare=False, repr=False)
    """`methods` with every sweep unrolled and every hyper-parameter resolved."""
    asked_datasets: "tuple[Asked[DataConfig], ...]" = field(default=(), compare=False, repr=False)
    modality_spots: tuple[Spot, ...] = field(default=(), compare=False, repr=False)
    """Where each of `modalities` stands in the file."""

    def to_yaml(self) -> str:
        """The grid as YAML; `parse_grid` reads it back as an equal grid."""
        from bench.grid.yaml_lines import write_yaml

        told: dict[str, Any] = {"name": self.name}
        if self.description:
            told["description"] = self.description
        told["methods"] = [entry.plain() for entry in self.methods]
        told["datasets"] = [entry.plain() for entry in self.datasets]
        told["label_ratios"] = list(self.label_ratios)
        told["modalities"] = list(self.modalities)
        if self.corruptions:
            told["corruptions"] = [_corruption(corruption) for corruption in self.corruptions]
        counted = self.seeds == tuple(range(len(self.seeds)))
        told["seeds"] = len(self.seeds) if counted else list(self.seeds)
        if train := self.train.plain():
            told["train"] = train
        told["checkpoint"] = self.checkpoint
        if self.save:
            told["save"] = list(self.save)
        if self.tracking.model_fields_set:  # a URI from the environment may hold a password
            told["tracking"] = {"uri": self.tracking.uri}
        told["executor"] = self.executor.model_dump(mode="json")
        return write_yaml(told)
