"""Prompt-Trans on a frozen ViLT: words and pixels in, prompts that tell the transformer what is missing.

Lee et al., "Multimodal Prompting with Missing Modalities for Visual Recognition", CVPR 2023, with its reference code,
on ViLT (Kim et al., ICML 2021). The pretrained transformer stays as it is; the prompts of each missing pattern, the
pooler and the classifier learn. Two things differ from the reference code. It leaves the dropout of the frozen
transformer on in training; here a frozen transformer is a fixed function, without dropout. And the order of image
patches is fixed, which changes nothing, since attention knows no order.

Shapes: B batch, L text tokens, H x W pixels, N tokens, E token width, W task width.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.errors import UserError
from datasets.tasks import Task
from methods.base import Method, MethodConfig, Miniature, hyper
from methods.fusion import shown
from methods.prompts import (
    PromptInit,
    PromptType,
    initial_prompts,
    pattern_code,
    prompt_sizes,
    select_prompts,
    simulate_missing,
    task_head,
)
from methods.vilt import CLS, PAD, RANDOM, SEP, UNKNOWN, Size, freeze, pretrained, untrained

ABSENT_PIXEL = {"ones": 1.0, "zeros": 0.0}
"""Value of every pixel of an image that is not there; with mean 0.5 and deviation 0.5 they are white and grey."""

CPU_ROWS, GPU_ROWS = 16, 64
"""Rows that go through at once outside training, where a whole split may come: of ViLT-B/32 one takes some 10 MB, with
1024 words 100."""


class PromptViLTConfig(MethodConfig):
    """Hyper-parameters of Prompt-Trans on ViLT."""

    weights: str = hyper(
        "dandelin/vilt-b32-mlm",
        source="Lee et al.: ViLT-B/32 as its authors pretrained it. A model of the Hugging Face hub, or a folder with "
        "one; random-base and random-tiny are untrained ones that need no file",
    )
    prompt_type: PromptType = hyper(
        "input",
        source="Lee et al., 3.3: input-level prompts are tokens that stay; attention-level ones are prefixes of keys "
        "and values; the code runs the first unless told otherwise",
        search=("input", "attention"),
    )
    prompt_length: Literal[0, 2, 4, 8, 16, 32] = hyper(
        16,
        source="the code. Attention-level prompts are half keys, half values; 0: pooler and classifier alone",
        search=(4, 8, 16, 32),
        unit="tokens",
    )
    prompted_layers: int = hyper(6, source="the code: the first 6 of 12", ge=1, search=(1, 12), unit="layers")
    prompt_init: PromptInit = hyper(
        "normal",
        source="the code starts with zeros and one row of ones, another row for each pattern (rows); equal rows stay "
        "equal without dropout in the frozen transformer, so that we start from N(0, 0.02) like its embeddings",
    )
    simulate_missing: bool = hyper(
        True,
        source="the code's switch, off there. True: each complete training sample loses nothing, the first or the "
        "second modality, with equal chances; False: complete training data never train the other two prompts",
    )
    absent_image: Literal["ones", "zeros"] = hyper(
        "ones", source="the code: a missing image is all ones, a missing text the empty one, [CLS] [SEP]"
    )


class PromptViLT(Method):
    """Missing-aware prompts on a frozen ViLT that reads token ids and pixels; purely supervised."""

    name = "prompt_vilt"
    title = "Prompt-Trans"
    paper = "Multimodal Prompting with Missing Modalities for Visual Recognition, CVPR 2023"
    Config = PromptViLTConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "attention_level": {"prompt_type": "attention"},
        "no_prompts": {"prompt_length": 0},
        "no_simulation": {"simulate_missing": False},
    }
    stackable = False
    miniature = Miniature(
        inputs={"text": (6,), "image": (3, 8, 8)},
        token_ids={"text": 30522},
        config={"weights": "random-tiny", "prompt_length": 4, "prompted_layers": 1},
    )
    needs_labels = True

    config: PromptViLTConfig
    empty_text: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: PromptViLTConfig) -> None:
        super().__init__(shapes, task, config)
        (words,), (_, height, width) = shapes["text"], shapes["image"]
        random = RANDOM.get(config.weights)
        start = untrained(random, config.prompt_type) if random else pretrained(config.weights, config.prompt_type)
        self._fits(start.size, height, width)
        start.vilt.embeddings.fit_positions(words, height // start.size.patch, width // start.size.patch)
        freeze(start.vilt)
        self.vilt, self.vocabulary = start.vilt, start.size.vocabulary
        size = (config.prompted_layers, config.prompt_length, start.size.width)
        self.prompts = nn.Parameter(initial_prompts(size, config.prompt_type, config.prompt_init))
        self.pooler = start.pooler
        self.classifier = task_head(start.size.width, task.width)
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.register_buffer("empty_text", F.pad(torch.tensor([CLS, SEP]), (0, words - 2), value=PAD), persistent=False)

    def _fits(self, size: Size, height: int, width: int) -> None:
        """Refuse what only the checkpoint tells."""
        if self.config.prompted_layers > size.depth:
            raise UserError(
                f"prompted_layers is {self.config.prompted_layers}, but the ViLT of '{self.config.weights}' has "
                f"{size.depth} layers."
            )
        if min(height, width) < size.patch:
            raise UserError(
                f"modality 'image' has {height} x {width} pixels, less than a patch of the ViLT of "
                f"'{self.config.weights}', which has {size.patch} x {size.patch}."
            )

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        otherwise = "for embeddings use prompt_trans"
        if set(spec.modalities) != {"text", "image"}:
            return f"takes two modalities, text and image; this data set has {', '.join(spec.modalities)}; {otherwise}"
        text, image = spec.modalities["text"], spec.modalities["image"]
        if len(text) != 1 or text[0] < 2:
            return f"takes text as token ids of the shape (L,); here it has the shape {tuple(text)}; {otherwise}"
        if len(image) != 3 or image[0] != 3:
            return (
                f"takes images as pixels of the shape (3, H, W); here they have the shape {tuple(image)}; {otherwise}"
            )
        return None

    def encode(self, text: Tensor, pixels: Tensor, available: Tensor) -> Tensor:
        """The pooled [CLS] of what is there, (B, E) in [-1, 1].

        Args:
            text: token ids, (B, L) float32.
            pixels: normalised with mean 0.5 and deviation 0.5, (B, 3, H, W).
            available: (B, 2) bool, text first.
        """
        if self.training:
            return self._encoded(text, pixels, available)
        rows = CPU_ROWS if text.device.type == "cpu" else GPU_ROWS
        blocks = zip(*(torch.split(x, rows) for x in (text, pixels, available)), strict=True)
        return torch.cat([self._encoded(*block) for block in blocks])

    def _encoded(self, text: Tensor, pixels: Tensor, available: Tensor) -> Tensor:
        text_seen, image_seen = available[:, 0], available[:, 1]
        ids = torch.where(text_seen[:, None], self.known(text), self.empty_text)
        pixels = torch.where(image_seen[:, None, None, None], pixels, ABSENT_PIXEL[self.config.absent_image])
        cls = self.vilt(ids, pixels, select_prompts(self.prompts, pattern_code(available)))
        return self.pooler(cls).tanh()  # type: ignore[no-any-return]

    def known(self, text: Tensor) -> Tensor:
        """Token ids as integers, those outside the vocabulary [UNK]; (B, L) -> (B, L) int64."""
        ids = text.round().long()
        return torch.where((ids >= 0) & (ids < self.vocabulary), ids, UNKNOWN)

    def seen(self, batch: Batch, available: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `encode` takes of a batch, whatever the order of its modalities."""
        inputs = dict(zip(self.modalities, shown(batch), strict=True))
        columns = [self.modalities.index(name) for name in ("text", "image")]
        return inputs["text"], inputs["image"], torch.stack([available[:, i] for i in columns], dim=1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`sup`: the task's loss of the labelled samples, each under the pattern it has or is made to have."""
        available = batch.available
        if self.training and self.config.simulate_missing:
            available = simulate_missing(available, batch.noise)
        output = self.classifier(self.encode(*self.seen(batch, available)))
        return {"sup": self.task.loss(output, batch.target, batch.labelled)}

    def predict(self, batch: Batch) -> Tensor:
        """The classifier under the prompts of the sample's pattern, an empty text or image for what is missing."""
        return self.classifier(self.encode(*self.seen(batch, batch.available)))  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the pooled [CLS], and `z/<modality>`, what it is when that modality alone is there."""
        named = {"s": self.encode(*self.seen(batch, batch.available))}
        for i, name in enumerate(self.modalities):
            alone = torch.arange(2, device=batch.available.device) == i
            named[f"z/{name}"] = self.encode(*self.seen(batch, batch.available & alone))
        return named

    def untrained(self) -> tuple[str, ...]:
        """Prompts of no length have nothing to learn."""
        return () if self.config.prompt_length else ("prompts",)

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """How large the prompts of every missing pattern are."""
        return prompt_sizes(self.prompts, ("text", "image")) if self.config.prompt_length else {}
