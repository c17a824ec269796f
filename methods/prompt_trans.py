"""Prompt-Trans (embedding-level): a transformer told by learnt prompts which modality is missing.

Lee et al., "Multimodal Prompting with Missing Modalities for Visual Recognition", CVPR 2023, with its reference code.
There, a pretrained ViLT reads words and image patches and stays frozen; only the prompts of each missing pattern, the
pooler and the classifier learn. This file is that mechanism on feature vectors, not that model: tokens are made by a
linear layer from the embeddings of a data set, and the transformer is small, has no pretrained weights and no dropout,
and therefore learns as well. Its numbers say what missing-aware prompts add to such a transformer; they do not
reproduce published numbers of Prompt-Trans, and tables title it "Prompt-Trans (embedding-level)".

Shapes: B batch, N tokens, T time, D features, E token width, P prompt tokens, L prompted layers, W task width.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn
from torch.func import functional_call

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task
from methods.base import Method, MethodConfig, hyper
from methods.fusion import shown
from methods.prompts import (
    PromptedTransformer,
    PromptInit,
    PromptType,
    initial_prompts,
    pattern_code,
    prompt_sizes,
    select_prompts,
    simulate_missing,
    task_head,
)
from methods.transformer import xavier


class PromptTransConfig(MethodConfig):
    """Hyper-parameters of Prompt-Trans (embedding-level)."""

    # Prompts
    prompt_type: PromptType = hyper(
        "input",
        source="Lee et al., 3.3: input-level prompts are tokens that stay; attention-level ones are prefixes of keys "
        "and values; the code runs the first unless told otherwise",
        search=("input", "attention"),
    )
    prompt_length: Literal[2, 4, 8, 16] = hyper(
        4,
        source="not given for a transformer this small: our choice; 16 tokens in the code. Attention-level prompts are "
        "half keys, half values",
        search=(2, 4, 8, 16),
        unit="tokens",
    )
    prompt_init: PromptInit = hyper(
        "normal",
        source="the code starts with zeros and one row of ones, another row for each pattern (rows); equal rows stay "
        "equal without the dropout of its trunk, and few labels taught less, so that we start from N(0, 0.02) like its "
        "embeddings",
    )
    simulate_missing: bool = hyper(
        True,
        source="the code's switch, off there. True: each complete training sample loses nothing, the first or the "
        "second modality, with equal chances; False: complete training data never train the other two prompts",
    )

    # Trunk
    latent: int = hyper(128, source="not given: our choice, the latent width of Robult, C.2; 768 in ViLT", ge=1)
    depth: int = hyper(
        4, source="not given: our choice; 12 in ViLT, whose first half is prompted, as here", ge=1, unit="layers"
    )
    heads: int = hyper(8, source="not given: our choice; 12 in ViLT", ge=1)
    max_tokens: int = hyper(
        64,
        source="not given: our choice; a longer sequence is averaged over equal windows to at most so many tokens",
        ge=1,
        unit="tokens",
    )
    freeze_trunk: bool = hyper(
        False,
        source="True in Lee et al., where the trunk is pretrained; here it starts at random and must learn: our choice",
    )

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.latent % self.heads:
            raise ValueError(f"heads must divide latent, got {self.heads} heads for a latent of {self.latent}.")
        return self

    @property
    def prompted_layers(self) -> int:
        """How many layers, counted from the first, have prompts."""
        return max(1, self.depth // 2)


# ---- modules --------------------------------------------------------------------------------------------------------


class Tokeniser(nn.Module):
    """One modality as tokens: one for a vector, one a time step for a sequence, which a prompt can then weigh apart.

    A missing modality is a learnt dummy in place of every token, as the reference code feeds a white image.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, max_tokens: int) -> None:
        super().__init__()
        steps = shape[0] if len(shape) == 2 else 1
        self.window = -(-steps // max_tokens)
        self.project = nn.Linear(shape[-1], latent)
        self.dummy = nn.Parameter(0.02 * torch.randn(latent))
        self.modality = nn.Parameter(0.02 * torch.randn(latent))
        positions = -(-steps // self.window)
        self.position = nn.Parameter(0.02 * torch.randn(positions, latent)) if positions > 1 else None

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """x (B, D) or (B, T, D), seen (B,) bool -> (B, N, E)."""
        if x.dim() == 2:
            x = x[:, None]
        if self.window > 1:
            x = F.avg_pool1d(x.mT, self.window, ceil_mode=True).mT  # the last window averages the steps it has
        tokens = torch.where(seen[:, None, None], self.project(x), self.dummy) + self.modality
        return tokens if self.position is None else tokens + self.position


# ---- the method -----------------------------------------------------------------------------------------------------


class PromptTrans(Method):
    """Missing-aware prompts on a transformer over one or more tokens a modality; purely supervised."""

    name = "prompt_trans"
    title = "Prompt-Trans (embedding-level)"
    paper = "Multimodal Prompting with Missing Modalities for Visual Recognition, CVPR 2023"
    Config = PromptTransConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "attention_level": {"prompt_type": "attention"},
        "no_simulation": {"simulate_missing": False},
    }
    needs_labels = True

    config: PromptTransConfig

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: PromptTransConfig) -> None:
        super().__init__(shapes, task, config)
        d = config.latent
        self.tokenisers = nn.ModuleList(Tokeniser(shape, d, config.max_tokens) for shape in shapes.values())
        self.cls = nn.Parameter(0.02 * torch.randn(d))
        self.trunk = PromptedTransformer(d, config.depth, config.heads, config.prompt_type)
        size = (config.prompted_layers, config.prompt_length, d)
        self.prompts = nn.Parameter(initial_prompts(size, config.prompt_type, config.prompt_init))
        self.pooler = nn.Linear(d, d)
        self.classifier = task_head(d, task.width)
        xavier(self)  # the code's N(0, 0.02) suits layers on top of pretrained ones

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        if len(spec.modalities) != 2:
            return f"takes exactly two modalities; this data set has {len(spec.modalities)}"
        for name, shape in spec.modalities.items():
            if len(shape) not in (1, 2):
                return f"takes vectors and sequences of vectors; modality '{name}' has the shape {tuple(shape)}"
        return None

    def encode(self, xs: list[Tensor], available: Tensor) -> Tensor:
        """2 inputs, available (B, 2) -> the pooled [CLS], (B, E) in [-1, 1]."""
        parts = [make(x, available[:, i]) for i, (make, x) in enumerate(zip(self.tokenisers, xs, strict=True))]
        tokens = torch.cat([self.cls.expand(len(available), 1, -1), *parts], dim=1)  # (B, 1 + N, E)
        prompts = select_prompts(self.prompts, pattern_code(available))
        return self.pooler(self.transform(tokens, prompts)).tanh()  # type: ignore[no-any-return]

    def transform(self, tokens: Tensor, prompts: Tensor) -> Tensor:
        """The trunk, which neither tokens nor its own weights learn through where it is frozen."""
        if not self.config.freeze_trunk:
            return self.trunk(tokens, prompts)  # type: ignore[no-any-return]
        fixed = {name: p.detach() for name, p in self.trunk.named_parameters()}
        return functional_call(self.trunk, fixed, (tokens.detach(), prompts))  # type: ignore[no-any-return]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`sup`: the task's loss of the labelled samples, each under the pattern it has or is made to have."""
        available = batch.available
        if self.training and self.config.simulate_missing:
            available = simulate_missing(available, batch.noise)
        output = self.classifier(self.encode(shown(batch), available))
        return {"sup": self.task.loss(output, batch.target, batch.labelled)}

    def predict(self, batch: Batch) -> Tensor:
        """The classifier under the prompts of the sample's pattern, a dummy for what is missing."""
        return self.classifier(self.encode(shown(batch), batch.available))  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the pooled [CLS], and `z/<modality>`, what it is when that modality alone is there."""
        xs, named = shown(batch), {"s": self.encode(shown(batch), batch.available)}
        for i, name in enumerate(self.modalities):
            alone = torch.arange(2, device=batch.available.device) == i
            named[f"z/{name}"] = self.encode(xs, batch.available & alone)
        return named

    def untrained(self) -> tuple[str, ...]:
        """What complete training data leave as it was; samples that lack a modality do train its dummy."""
        if self.config.freeze_trunk:
            return ("tokenisers", "cls", "trunk")
        if not self.config.simulate_missing:
            return tuple(f"tokenisers.{i}.dummy" for i in range(2))
        return ()

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """How large the prompts of every missing pattern are."""
        return prompt_sizes(self.prompts, self.modalities)
