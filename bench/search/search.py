"""The validated content of one `search.yaml`: what is tuned on what, in which space, how, and for how long."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench.grid.grid import Grid
from bench.search.objective import Objective
from bench.search.space import Space

if TYPE_CHECKING:
    from bench.grid.plan import DatasetChoice, MethodChoice

SamplerKind = Literal["tpe", "gp", "cmaes", "random", "grid", "qmc"]
PrunerKind = Literal["none", "median", "hyperband", "wilcoxon"]


class Sampler(BaseModel):
    """Who suggests the next trials."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: SamplerKind = Field(default="tpe", description="grid tries every point once; qmc is a Sobol sequence")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="of the suggestions, not of the trainings")
    startup: int = Field(default=10, ge=1, le=10_000, description="random trials before tpe, gp and cmaes have a model")


class Pruner(BaseModel):
    """Who stops trials that promise nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: PrunerKind = "none"
    startup: int = Field(default=5, ge=0, le=10_000, description="median: trials that are never stopped")
    warmup: int = Field(default=5, ge=0, le=1_000_000, description="median: epochs in which none is stopped")
    every: int = Field(default=1, ge=1, le=1_000_000, description="epochs between two looks (median, hyperband)")
    min_epochs: int = Field(default=3, ge=1, le=1_000_000, description="hyperband: epochs of the shortest trial")
    reduction: int = Field(default=3, ge=2, le=10, description="hyperband: one in so many goes on")
    p: float = Field(default=0.1, gt=0, lt=1, description="wilcoxon: significance of being worse than the best")

    @property
    def by_epoch(self) -> bool:
        """Whether trials are looked at epoch by epoch, side by side."""
        return self.kind in ("median", "hyperband")

    @property
    def by_seed(self) -> bool:
        """Whether the seeds of a trial train one after the other."""
        return self.kind == "wilcoxon"


class Budget(BaseModel):
    """When a search ends; for each method of its own, so that all are tuned alike."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    trials: Annotated[int, Field(ge=1, le=100_000)] = 40
    minutes: float | None = Field(default=None, gt=0, description="wall time after which no round begins")


@dataclass(frozen=True)
class Search:
    """One search. Made by `load_search` and `parse_search`, which check it."""

    grid: Grid
    """Name, methods, data sets, label ratios, seeds, train settings: as a grid has them, nothing swept."""
    methods: "tuple[MethodChoice, ...]"
    """What is tuned, each in a study of its own; their configurations are the defaults that trials start from."""
    datasets: "tuple[DatasetChoice, ...]"
    spaces: Mapping[str, Space]
    """By the label of a method."""
    objectives: tuple[Objective, ...]
    sampler: Sampler = field(default_factory=Sampler)
    pruner: Pruner = field(default_factory=Pruner)
    budget: Budget = field(default_factory=Budget)
    batch: int = 8
    """K, trials that are asked for together."""
    stack: int = 8
    """Replicas of a stack; it changes results by rounding alone."""
    storage: str | None = None
    """An Optuna storage; None: a journal file beside the tracking store."""
    source: str = field(default="", compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.grid.name

    def study_name(self, method: str) -> str:
        """Name of a method's study: that of the search, with the method where there are several."""
        return self.name if len(self.methods) == 1 else f"{self.name}/{method}"

    def identity(self, method: "MethodChoice") -> dict[str, str]:
        """What a study's trials depend on, each part as a digest: two searches may share a study if all are equal."""
        grid = self.grid
        parts: dict[str, Any] = {
            "space": self.spaces[method.label].plain(),
            "objective": [objective.plain() for objective in self.objectives],
            "method": method.key,
            "datasets": [[d.spec.fingerprint, str(d.spec.task.to_json())] for d in self.datasets],
            "label_ratios": grid.label_ratios,
            "seeds": grid.seeds,
            "train": grid.train.plain(),
            "checkpoint": grid.checkpoint,
            "sampler": self.sampler.model_dump(),
            "pruner": self.pruner.model_dump(),
            "batch": self.batch,
        }
        return {name: _digest(part) for name, part in parts.items()}


def _digest(part: Any) -> str:
    import json

    return blake2b(json.dumps(part, sort_keys=True, default=list).encode(), digest_size=8).hexdigest()
