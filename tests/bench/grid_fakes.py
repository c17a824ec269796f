"""Small methods and data sets whose options, refusals and failures are chosen to try the reading of grids."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from datasets.base import Data, DataConfig, DataSet, DataSpec
from datasets.batch import Batch
from datasets.errors import DataError
from datasets.tasks import MultiClass, Regression
from methods.base import Method, MethodConfig, hyper


class FakeConfig(MethodConfig):
    tau: float = hyper(0.3, source="made up", gt=0, le=10)
    kappa: float = hyper(1.0, source="made up", ge=0)
    depth: int = hyper(2, source="made up", ge=1)
    rec: Literal["cos", "cos2", "none"] = hyper("cos2", source="made up")
    widths: tuple[int, ...] = hyper((8, 8), source="made up")
    bias: bool = hyper(True, source="made up")

    @model_validator(mode="after")
    def _consistent(self) -> "FakeConfig":
        if self.rec == "none" and self.depth > 4:
            raise ValueError("without rec the depth is at most 4")
        return self


class Fake(Method):
    """Has hyper-parameters of every type; takes classes only."""

    name = "fake"
    title = "Fake"
    paper = "made up"
    Config = FakeConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"no_rec": {"rec": "none"}, "sharp": {"tau": 0.1}}

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return "it needs classes, this is a regression" if spec.task.kind == "regression" else None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    def predict(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError


class Plain(Fake):
    """No hyper-parameters, takes anything."""

    Config = MethodConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return None


class Undecided(Plain):
    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        raise KeyError("oops")


class NoMethod:
    """Not a method at all."""


class ViewsConfig(DataConfig):
    views: int = Field(2, ge=1, le=40)
    task: Literal["multiclass", "regression"] = "multiclass"
    noise: float = Field(0.0, ge=0)
    uniqueness: Annotated[int, Field(ge=0)] | tuple[Annotated[int, Field(ge=0)], ...] = 0
    comment: str = ""
    """Without effect on the data, so that two configurations can hold the same."""


class Views(DataSet):
    """Modalities v1, v2, ...; 30 training samples."""

    name = "views"
    Config = ViewsConfig

    def spec(self) -> DataSpec:
        config = self.config
        assert isinstance(config, ViewsConfig)
        task = Regression() if config.task == "regression" else MultiClass(n_classes=3)
        modalities = {f"v{index}": (4,) for index in range(1, config.views + 1)}
        told = config.model_dump_json(exclude={"comment"})
        return DataSpec("views", modalities, task, {"train": 30, "valid": 10, "test": 10}, told)

    def load(self) -> Data:
        raise NotImplementedError


class Letters(Views):
    """Modalities text and audio, no options."""

    name = "letters"
    Config = DataConfig

    def spec(self) -> DataSpec:
        sizes = {"train": 50, "valid": 10, "test": 10}
        return DataSpec("letters", {"text": (4,), "audio": (3, 2)}, MultiClass(n_classes=2), sizes, "letters")  # type: ignore[arg-type]


class FileConfig(DataConfig):
    folder: str


class Absent(Views):
    name = "absent"
    Config = FileConfig

    def spec(self) -> DataSpec:
        raise DataError("data set 'absent' is not prepared. Prepare it with: bench data prepare absent --from FILE")


class Broken(Letters):
    def spec(self) -> DataSpec:
        raise ZeroDivisionError("division by zero")
