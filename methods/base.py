"""What a method is: an `nn.Module` built from (modality shapes, task, its own Config).

Shapes: B batch, M modalities, T time, D features, d latent width, W task width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task


class MethodConfig(BaseModel):
    """Hyper-parameters of a method: frozen, unknown keys refused, every field made by `hyper`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def hyper(
    default: Any,
    *,
    source: str,
    search: tuple[Any, ...] | None = None,
    log: bool = False,
    unit: str | None = None,
    **bounds: Any,
) -> Any:
    """A hyper-parameter of a `Config`.

    Args:
        default: the value used when a grid says nothing.
        source: where the default comes from: "Robult, C.2", "GMC code", or "not given: our choice".
        search: for a number its (low, high), otherwise the choices, that `bench search` tries.
        log: search on a log scale.
        unit: unit of the value, where it has one.
        bounds: valid range as pydantic knows it (`gt`, `ge`, `lt`, `le`).
    """
    extra: dict[str, Any] = {"source": source, "search": search, "log": log, "unit": unit}
    return Field(default, description=source, json_schema_extra=extra, **bounds)


class Stage(NamedTuple):
    """One part of a training: a share of its epochs, with an optimiser of its own."""

    name: str
    share: float = 1.0
    """Of the epochs; the shares of all stages add up to 1."""
    trains: tuple[str, ...] = ()
    """Names, or dotted prefixes, of the parameters that are trained; empty: all."""

    def covers(self, parameter: str) -> bool:
        """Whether this stage trains the parameter of this name."""
        return not self.trains or any(parameter == name or parameter.startswith(f"{name}.") for name in self.trains)


class Miniature(NamedTuple):
    """Tiny inputs on which the contract tries a method that takes neither vectors nor sequences of vectors."""

    inputs: Mapping[str, tuple[int, ...]]
    """Modality name -> shape of one sample."""
    token_ids: Mapping[str, int] = {}
    """Modality name -> how many token ids there are, where the values are ids: whole numbers from 0 (padding) up."""
    config: Mapping[str, Any] = {}
    """Config values that make the method as small, such as random weights in place of a download."""


class Method(nn.Module, ABC):
    """One method of the suite. A subclass is one file: Config, losses, modules, `loss`, `predict`, `embed`.

    Stackable methods keep to four rules, so that the engine can train K of them at once: shapes do not depend
    on values (masks, no boolean indexing, no `.item()`), no in-place state, no random numbers of their own,
    and continuous hyper-parameters are buffers (`hyper_buffers`), which stack like weights.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """The method as tables print it."""
    paper: ClassVar[str]
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Variant (ablation) as the papers name it -> the Config values it stands for."""
    stackable: ClassVar[bool] = True
    pseudo_labels: ClassVar[bool] = False
    """True where training uses predicted labels; their accuracy on the hidden ones is then logged."""
    iterative: ClassVar[bool] = True
    """False for a method that is fitted by `finish` alone, without gradient steps."""
    miniature: ClassVar[Miniature | None] = None
    """What the contract tries a method on that takes neither its vectors nor its sequences."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: MethodConfig) -> None:
        super().__init__()
        self.shapes = dict(shapes)
        self.modalities = tuple(shapes)
        self.task = task
        self.config = config
        self.stage = self.stages()[0].name
        self.hyper_names: tuple[str, ...] = ()
        """Hyper-parameters that are buffers."""

    # ---- what a method must answer ------------------------------------------------------------------------

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar terms; their sum is minimised, each is logged."""

    @abstractmethod
    def predict(self, batch: Batch) -> Tensor:
        """Outputs (B, W) from the available modalities alone, for any non-empty subset, per sample."""

    @abstractmethod
    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """The representations the analysis reads, each (B, d): `s`, `z/text`, `u/text`, ..."""

    # ---- what a method may answer -------------------------------------------------------------------------

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        """Why this method cannot take a data set, as half a sentence; None when it can."""
        return None

    def stages(self) -> tuple[Stage, ...]:
        """How training is divided, for methods with a teacher or a pretraining; `self.stage` names the current one.

        Depends on the Config alone. The best epoch is chosen in the last stage.
        """
        return (Stage("train"),)

    def enter(self, train: Batch) -> None:
        """Called before a stage's first epoch with the whole training split; `self.stage` is the new stage already.

        What is computed between stages (weights from clusters, a copy of a teacher) goes into buffers here.
        """

    def finish(self, train: Batch) -> None:
        """Called once after the last epoch with the whole training split; closed-form parts are fitted here."""

    def weighted_pairs(self, batch: Batch) -> dict[str, Tensor]:
        """For methods that weigh pairs by pseudo-labels: `weight` and `pairs` (V, B, B), `pseudo` (B,); else empty.

        `pairs` says which pairs of V views count by a pseudo-label, `pseudo` the class every sample counts as.
        """
        return {}

    def fusion_weights(self, batch: Batch) -> dict[str, Tensor]:
        """For methods that weigh modalities feature by feature: `weight` (M, B, D), 0 where missing; else empty."""
        return {}

    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars that tell whether training is healthy (a collapsed latent, a saturated weight); logged per epoch."""
        return {}

    @property
    def needs_labels(self) -> bool:
        """True where a batch without labels must not move the weights (purely supervised methods, or Configs)."""
        return False

    def untrained(self) -> tuple[str, ...]:
        """Names, or dotted prefixes, of the parameters that no loss term moves by design under this Config."""
        return ()

    def forward(self, call: Literal["loss", "predict", "embed", "diagnose"], batch: Batch) -> Any:
        """The named call, as the one door that `torch.func.functional_call` knows."""
        return getattr(self, call)(batch)

    # ---- tools for subclasses -----------------------------------------------------------------------------

    def hyper_buffers(self, *names: str) -> None:
        """Register the named Config values as scalar buffers, so that replicas of a stack may differ in them."""
        self.hyper_names += names
        for name in names:
            self.register_buffer(name, torch.tensor(float(getattr(self.config, name))), persistent=False)
