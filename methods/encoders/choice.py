"""Which projector and which joint encoder a data set gets, by the shapes of its modalities or by name.

Robult (C.2) keeps the projectors f_i and the joint encoder f_0 equal across methods so that comparisons are of the
methods: GRUs and MulT on sequences, "simple fully connected" layers on vectors (offline ViLT embeddings), of which
`fc` picks one of two readings. Shapes: B batch, M modalities, T time steps, D features of a modality, d latent width.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from methods.base import MethodConfig, hyper
from methods.encoders.conditioned import of_complete
from methods.encoders.layers import Layers, Linear, Residual, mlp
from methods.encoders.mult import MulT, Rates
from methods.encoders.sequences import GRUProjector, LSTMProjector, TextCNN

FC = Literal["table5", "plain"]
Shapes = Mapping[str, tuple[int, ...]]


class EncoderConfig(MethodConfig):
    """What every method with encoders declares."""

    latent: int | None = hyper(
        None,
        source="Robult, C.2: 128 for vector embeddings, 60 for sequences (None, the default, which takes 60 as soon "
        "as one modality is a sequence)",
        search=(32, 256),
        log=True,
        ge=1,
    )
    fc: FC = hyper(
        "table5",
        source="Robult, Table 5: with two layers and GMC's joint processor the parameters of GMC on Hateful Memes "
        "come out exactly (674 050); 'plain' is the literal C.2, one layer each",
        search=("table5", "plain"),
    )
    projector: Literal["auto", "fc", "gru", "lstm", "textcnn"] = hyper(
        "auto",
        source="Robult, C.2: fc on vectors, gru on sequences (auto); RAML, IV-A: lstm with max-pooling, textcnn on "
        "words. Names the projector of sequences: a vector always takes fc, also in a data set of vectors alone, and "
        "fc reads a sequence flattened",
    )
    gru_hidden: int = hyper(30, source="GMC code", ge=1)
    textcnn_filters: int = hyper(100, source="Kim, EMNLP 2014: 100 of each span", ge=1)
    joint: Literal["auto", "concat", "mult"] = hyper(
        "auto",
        source="Robult, C.2: mult where two or more modalities are all sequences, else concat (auto); concat projects "
        "every modality with networks of its own",
    )
    mult_width: int = hyper(30, source="GMC code", ge=2)
    mult_depth: int = hyper(5, source="GMC code", ge=1, unit="layers")
    mult_heads: int = hyper(5, source="GMC code", ge=1)
    mult_text: str | None = hyper(
        None,
        source="MulT and GMC code drop inputs, and attention to them, of the text alone: the modality that counts as "
        "text; our choice (None): the first",
    )
    mult_input_dropout: float = hyper(0.25, source="GMC code", ge=0, lt=1)
    mult_embed_dropout: float = hyper(0.25, source="GMC code", ge=0, lt=1)
    mult_attention_dropout: float = hyper(0.1, source="GMC code", ge=0, lt=1)
    mult_layer_dropout: float = hyper(0.1, source="GMC code: of residual branches and hidden units", ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.mult_width % self.mult_heads:
            raise ValueError(
                f"mult_heads must divide mult_width, got {self.mult_heads} heads for a width of {self.mult_width}."
            )
        return self

    def latent_for(self, shapes: Shapes) -> int:
        """The latent width d on these modalities: `latent`, or the paper's for their kind."""
        if self.latent is not None:
            return self.latent
        return 60 if any(map(is_sequence, shapes.values())) else 128


def is_sequence(shape: tuple[int, ...]) -> bool:
    """Whether samples of `shape` are (T, D), not (D,)."""
    return len(shape) == 2


def cannot_project(shapes: Shapes) -> str | None:
    """Why there is no projector for these modalities, as half a sentence; None when there is one."""
    for name, shape in shapes.items():
        if len(shape) not in (1, 2):
            return f"takes vectors (D,) and sequences (T, D); a sample of modality '{name}' has shape {tuple(shape)}"
    return None


def cannot_encode(shapes: Shapes, config: MethodConfig | None = None) -> str | None:
    """Why there is no projector or joint encoder for these modalities, as half a sentence; None when there is.

    Args:
        config: an `EncoderConfig`; None: the default.
    """
    config = config if isinstance(config, EncoderConfig) else EncoderConfig()
    reason = cannot_project(shapes)
    if reason is not None or not uses_mult(shapes, config):
        return reason
    vectors = [name for name, shape in shapes.items() if not is_sequence(shape)]
    if vectors:
        return f"cannot attend over time with joint 'mult', as modality '{vectors[0]}' is a vector: use 'auto'"
    if len(shapes) < 2:
        return "cannot attend across modalities with joint 'mult', as there is one alone: use 'auto'"
    if config.mult_text is not None and config.mult_text not in shapes:
        return f"finds no modality '{config.mult_text}' to be mult_text: there are {', '.join(shapes)}"
    return None


def uses_mult(shapes: Shapes, config: EncoderConfig) -> bool:
    """Whether the joint encoder is MulT."""
    if config.joint == "auto":
        return len(shapes) > 1 and all(map(is_sequence, shapes.values()))
    return config.joint == "mult"


def projector(shape: tuple[int, ...], latent: int, config: EncoderConfig) -> nn.Module:
    """f_i of one modality of `shape` (D,) or (T, D): (B, *shape) -> (B, d)."""
    if not is_sequence(shape):
        return fully_connected(shape[0], latent, config.fc)
    steps, features = shape
    match config.projector:
        case "fc":
            return Layers(nn.Flatten(-2), fully_connected(steps * features, latent, config.fc))
        case "lstm":
            return LSTMProjector((steps, features), latent)
        case "textcnn":
            return TextCNN((steps, features), latent, config.textcnn_filters)
        case "auto" | "gru":
            return GRUProjector((steps, features), latent, config.gru_hidden)


def fully_connected(features: int, latent: int, fc: FC) -> nn.Module:
    """(B, D) -> (B, d), two layers or one."""
    return mlp(features, latent, latent) if fc == "table5" else Linear(features, latent)


def joint_encoder(shapes: Shapes, latent: int, config: EncoderConfig) -> nn.Module:
    """f_0 of all modalities together: a sequence of M tensors (B, *shape) and noise keys (B,) -> (B, d)."""
    if uses_mult(shapes, config):
        return MulT(
            [(steps, features) for steps, features in shapes.values()],
            latent,
            width=config.mult_width,
            depth=config.mult_depth,
            heads=config.mult_heads,
            text=0 if config.mult_text is None else list(shapes).index(config.mult_text),
            rates=Rates(
                config.mult_input_dropout,
                config.mult_embed_dropout,
                config.mult_attention_dropout,
                config.mult_layer_dropout,
            ),
        )
    return (ProcessedJoint if config.fc == "table5" else ConcatenatedJoint)(shapes, latent, config)


class ProcessedJoint(nn.Module):
    """Own projectors, concatenation, residual block, linear layer: GMC's joint processor without its transformers."""

    def __init__(self, shapes: Shapes, latent: int, config: EncoderConfig) -> None:
        super().__init__()
        self.latent, width = latent, latent * len(shapes)
        self.project = nn.ModuleList(projector(shape, latent, config) for shape in shapes.values())
        self.mix = nn.Sequential(Residual(width), nn.Linear(width, latent))

    @of_complete
    def forward(self, xs: Sequence[Tensor], noise: Tensor | None = None) -> Tensor:
        """M tensors (B, *shape) -> (B, d); `noise` is unused."""
        together = torch.cat([project(x) for project, x in zip(self.project, xs, strict=True)], dim=-1)  # (B, M d)
        return self.mix(together)  # type: ignore[no-any-return]


class ConcatenatedJoint(nn.Module):
    """One linear layer on the concatenated inputs; a sequence is projected first."""

    def __init__(self, shapes: Shapes, latent: int, config: EncoderConfig) -> None:
        super().__init__()
        self.latent = latent
        self.project = nn.ModuleList(
            projector(shape, latent, config) if is_sequence(shape) else nn.Identity() for shape in shapes.values()
        )
        width = sum(latent if is_sequence(shape) else shape[0] for shape in shapes.values())
        self.mix = nn.Linear(width, latent)

    @of_complete
    def forward(self, xs: Sequence[Tensor], noise: Tensor | None = None) -> Tensor:
        """M tensors (B, *shape) -> (B, d); `noise` is unused."""
        together = torch.cat([project(x) for project, x in zip(self.project, xs, strict=True)], dim=-1)
        return self.mix(together)  # type: ignore[no-any-return]
