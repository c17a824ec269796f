"""How a training is run, whatever the method and the data set. Needs no torch, so that reading a grid stays quick."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(ge=0, lt=1)]
Schedule = Literal["none", "plateau"]
Precision = Literal["float32", "tf32", "bf16"]
LabelSampler = Literal["shuffle", "stratified", "labelled_only"]


class TrainSettings(BaseModel):
    """Settings of the training loop (Adam); every value is part of a training's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(default=40, ge=1, le=1_000_000, description="Robult, C.2: 40 epochs")
    batch_size: int = Field(default=64, ge=1, le=1_000_000, description="not given: our choice (GMC code: 24)")
    lr: float = Field(default=1e-3, gt=0, le=10, description="learning rate of Adam; Robult, C.2: 1e-3")
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="not given: none, as the GMC code")
    clip_norm: float | None = Field(
        default=None,
        gt=0,
        description="largest gradient norm; not given: no limit (GMC code: 0.8)",
    )
    schedule: Schedule = Field(
        default="none",
        description="plateau: divide lr by 10 after 20 epochs without a better validation loss (GMC code); "
        "not given: none",
    )
    label_sampler: LabelSampler = Field(
        default="shuffle",
        description="shuffle: as drawn; stratified: at least one labelled sample in each batch; "
        "labelled_only: the rest is not seen; not given: our choice",
    )
    precision: Precision = Field(
        default="float32",
        description="arithmetic of products: tf32 keeps 10 bits of float32's 23, on GPUs that have it; bf16 is torch's "
        "automatic mixed precision; weights stay float32; not given: float32",
    )
    missing_rate: Rate | dict[str, Rate] = Field(
        0.0,
        description="share of training samples that lack a modality, one for all or by modality; drawn once a sample "
        "(`per sample` protocol); the papers compared here train on complete samples: 0",
    )
