"""Pretrained networks that turn texts and images into vectors, each modality ALONE so that neither tells of the other.

Through transformers: from this machine first, else from the hub. Shapes: B batch, L tokens, h x w pixels, D width.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from datasets.errors import DataError, UserError


def load(kind: str, name: str, what: str, **more: Any) -> Any:
    """`transformers.<kind>.from_pretrained(name)`, looked for on this machine before the hub is asked.

    Args:
        kind: a class of transformers.
        name: a folder, or the id of a repository on the hub.
        what: what it is, for messages.
        more: further arguments of `from_pretrained`.

    Raises:
        UserError: transformers is not installed.
        DataError: there is nothing of this name, or it is something else.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "pretrained networks need transformers, which is not installed: pip install 'robult-bench[vilt]'."
        ) from error
    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    cls = getattr(transformers, kind)
    if kind.startswith("Auto"):
        more["trust_remote_code"] = False  # left open, a folder that brings code makes it ask on the terminal
    try:
        return cls.from_pretrained(name, local_files_only=True, **more)
    except Exception as local_error:  # transformers raises nearly anything for a folder it cannot read
        if Path(name).exists() or name.startswith((".", "/", "~")):
            raise _refused(name, what, local_error) from local_error
    try:
        return cls.from_pretrained(name, **more)
    except Exception as error:
        raise _refused(name, what, error) from error


def _refused(name: str, what: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split()).partition(". ")[0][:160].rstrip(".") or type(error).__name__
    return DataError(f"the {what} of '{name}' cannot be loaded ({reason}): name a folder that has them.")


def load_network(kind: str, name: str, model_type: str, device: str) -> Any:
    """A pretrained network in evaluation mode, every weight of which came from its file.

    Raises:
        UserError: transformers is not installed.
        DataError: it is absent, or a network of another kind, whose weights would be left as they were drawn.
    """
    config = load("AutoConfig", name, "settings")
    if config.model_type != model_type:
        raise DataError(f"'{name}' is a network of the kind '{config.model_type}', expected '{model_type}'.")
    network, report = load(kind, name, "weights", output_loading_info=True, dtype=torch.float32)
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        raise DataError(f"the weights of '{name}' lack {len(missing)} of a {kind}'s, the first is '{missing[0]}'.")
    return network.eval().requires_grad_(False).to(device)


def weights_hash(network: Any) -> str:
    """Hash of every weight of a network, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"\n{name} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


class Encoder(ABC):
    """A pair of networks, or one that reads both, used for a text alone and for an image alone."""

    name: ClassVar[str]
    defaults: ClassVar[Mapping[str, str]]
    """Modality -> weights on the hub, unless others are named."""
    max_length: int
    """Tokens of a text, the rest is cut off."""
    mean: ClassVar[tuple[float, float, float]]
    deviation: ClassVar[tuple[float, float, float]]
    tokenize: Any

    @abstractmethod
    def __init__(self, weights: Mapping[str, str], max_length: int | None, device: str) -> None:
        """Load the networks; raises as `load_network`."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What determines the vectors: weights, revisions, pooling, lengths."""

    @abstractmethod
    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids (B, L) and which of them are no padding (B, L) bool -> (B, D)."""

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, h, w) of images of one size -> (B, D)."""

    @abstractmethod
    def shape(self, width: int, height: int) -> tuple[int, int]:
        """Height and width at which an image of this size is encoded."""

    @abstractmethod
    def resize(self, image: Any) -> Any:
        """A Pillow image at the size of `shape`."""

    def unit_pixels(self, image: Any) -> NDArray[np.float32]:
        """A Pillow image as (3, h, w) in [0, 1]."""
        return (np.asarray(self.resize(image), dtype=np.float32) / 255).transpose(2, 0, 1).astype(np.float32)

    def normalise(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pixels in [0, 1] as the network was trained on them, (3, h, w)."""
        mean, deviation = (np.array(v, dtype=np.float32)[:, None, None] for v in (self.mean, self.deviation))
        return np.ascontiguousarray((pixels - mean) / deviation, dtype=np.float32)

    def token_ids(self, text: str) -> list[int]:
        """Token ids with [CLS] and [SEP], at most `max_length`."""
        ids: list[int] = self.tokenize(text, truncation=True, max_length=self.max_length)["input_ids"]
        return ids


class Vilt(Encoder):
    """ViLT-B/32 (Kim et al., ICML 2021): one transformer over words or image patches, last layer, mean over tokens.

    Robult (C.2) takes offline ViLT embeddings without saying how; a text encoded beside its image would already hold
    the image, so here each is encoded without the other. The table of positions ends at 40 words; for more it is
    stretched as the missing-aware prompts code does.
    """

    name = "vilt"
    defaults = {"both": "dandelin/vilt-b32-mlm"}
    mean = deviation = (0.5, 0.5, 0.5)

    def __init__(self, weights: Mapping[str, str], max_length: int | None, device: str) -> None:
        self.source = weights.get("both", self.defaults["both"])
        self.network = load_network("ViltModel", self.source, "vilt", device)
        self.tokenize = load("AutoTokenizer", self.source, "word pieces")
        self.table: Tensor = self.network.embeddings.text_embeddings.position_embeddings.weight  # (40, D)
        self.max_length = max_length or len(self.table)
        self.side, self.patch = int(self.network.config.image_size), int(self.network.config.patch_size)

    def facts(self) -> dict[str, Any]:
        return {
            "weights": self.source, "revision": getattr(self.network.config, "_commit_hash", None),
            "weights_hash": weights_hash(self.network), "pooling": "mean of the last layer's tokens, no padding",
            "encoded": "each modality alone", "max_length": self.max_length,
            "positions": len(self.table), "image_side": self.side,
        }  # fmt: skip

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        parts = self.network.embeddings
        words = parts.text_embeddings
        x = words.word_embeddings(ids) + words.token_type_embeddings(torch.zeros_like(ids))  # (B, L, D)
        x = words.LayerNorm(x + self._positions()[: ids.shape[1]])
        x = x + parts.token_type_embeddings(torch.zeros_like(ids))
        hidden = self._transform(x, mask)
        weight = mask.to(x.dtype)[..., None]
        return (hidden * weight).sum(1) / weight.sum(1)

    def encode_image(self, pixels: Tensor) -> Tensor:
        parts = self.network.embeddings
        patches = parts.patch_embeddings(pixels)  # (B, D, h / 32, w / 32)
        grid = self.side // self.patch
        table = parts.position_embeddings  # (1, 1 + grid * grid, D)
        spatial = table[:, 1:].transpose(1, 2).reshape(1, -1, grid, grid)
        # The stock code also draws a random order of the patches; attention knows none.
        spatial = F.interpolate(spatial, size=patches.shape[2:], mode="bilinear", align_corners=True)
        x = (patches + spatial).flatten(2).transpose(1, 2)
        cls = (parts.cls_token + table[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([cls, x], dim=1)
        x = x + parts.token_type_embeddings.weight[1]
        return self._transform(x, None).mean(1)

    def _transform(self, x: Tensor, mask: Tensor | None) -> Tensor:
        blocked = None
        if mask is not None:
            blocked = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
            blocked = blocked.masked_fill(~mask, torch.finfo(x.dtype).min)[:, None, None]
        hidden: Tensor = self.network.layernorm(self.network.encoder(x, attention_mask=blocked)[0])
        return hidden

    def _positions(self) -> Tensor:
        """Embeddings of the positions, (max_length, D): the table, stretched if texts may be longer."""
        if self.max_length <= len(self.table):
            return self.table
        size = (self.max_length, self.table.shape[1])
        return F.interpolate(self.table[None, None], size=size, mode="bilinear")[0, 0]

    def shape(self, width: int, height: int) -> tuple[int, int]:
        # The shorter side becomes 384, the longer at most 384 * 1333 / 800; whole patches, at least one.
        shorter, longer = self.side, int(1333 / 800 * self.side)
        scale = shorter / min(width, height)
        sides = [scale * height, scale * width]
        if max(sides) > longer:
            sides = [side * longer / max(sides) for side in sides]
        rows, columns = (max(1, int(side + 0.5) // self.patch) * self.patch for side in sides)
        return rows, columns

    def resize(self, image: Any) -> Any:
        from PIL import Image

        height, width = self.shape(*image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)


class ResNetBert(Encoder):
    """RAML's features (IV-A): ResNet-18 before its classifier, 512-d; BERT-large, its [CLS] of the last layer, 1024-d.

    Whether RAML took [CLS] or the pooled [CLS] is not stated; the pooler was trained for next sentences.
    """

    name = "resnet-bert"
    defaults = {"image": "microsoft/resnet-18", "text": "google-bert/bert-large-uncased"}
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    shorter, crop = 256, 224

    def __init__(self, weights: Mapping[str, str], max_length: int | None, device: str) -> None:
        self.sources = {**self.defaults, **weights}
        self.resnet = load_network("ResNetModel", self.sources["image"], "resnet", device)
        self.bert = load_network("BertModel", self.sources["text"], "bert", device)
        self.tokenize = load("AutoTokenizer", self.sources["text"], "word pieces")
        positions = int(self.bert.config.max_position_embeddings)
        self.max_length = max_length or positions
        if self.max_length > positions:
            raise UserError(f"'{self.sources['text']}' reads at most {positions} tokens, got {self.max_length}.")

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "pooling": "text: [CLS] of the last layer; image: global average before the classifier"
        }
        for modality, network in (("text", self.bert), ("image", self.resnet)):
            found[f"{modality}_weights"] = self.sources[modality]
            found[f"{modality}_revision"] = getattr(network.config, "_commit_hash", None)
            found[f"{modality}_weights_hash"] = weights_hash(network)
        return found | {"encoded": "each modality alone", "max_length": self.max_length, "image_side": self.crop}

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden: Tensor = self.bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return hidden[:, 0]

    def encode_image(self, pixels: Tensor) -> Tensor:
        pooled: Tensor = self.resnet(pixels).pooler_output
        return pooled.flatten(1)

    def shape(self, width: int, height: int) -> tuple[int, int]:
        return self.crop, self.crop

    def resize(self, image: Any) -> Any:
        from PIL import Image

        # The middle 224 of 256 pixels a shorter side, cut before it is resized so that a long image stays small.
        cut = min(image.size) * self.crop / self.shorter
        left, top = (image.width - cut) / 2, (image.height - cut) / 2
        box = (left, top, left + cut, top + cut)
        return image.resize((self.crop, self.crop), Image.Resampling.BILINEAR, box=box)


ENCODERS: Mapping[str, type[Encoder]] = {encoder.name: encoder for encoder in (Vilt, ResNetBert)}
