"""ViLT (Kim et al., "Vision-and-Language Transformer", ICML 2021) whose first layers take prompts, and its weights.

Layers are those of `methods.transformer`; what transformers reads from a checkpoint is renamed to fit them. Dropout is
left out: the transformer is meant to be frozen.

Shapes: B batch, L text tokens, H x W pixels, N tokens, P prompt tokens, E token width.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.errors import UserError
from datasets.seeds import seed_of
from methods.prompts import PromptedTransformer, PromptType

PAD, UNKNOWN, CLS, SEP = 0, 100, 101, 102
"""Token ids of BERT's uncased vocabulary, which ViLT reads."""


@dataclass(frozen=True)
class Size:
    """The shape of a ViLT; ViLT-B/32 unless said otherwise."""

    vocabulary: int = 30522
    positions: int = 40
    """Words it was trained with."""
    width: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 32
    """Side of an image patch in pixels."""
    grid: int = 12
    """Patches along a side of the images it was trained with."""
    epsilon: float = 1e-12
    """Of its LayerNorms."""


RANDOM: Mapping[str, Size] = {
    "random-base": Size(),
    "random-tiny": Size(positions=8, width=32, depth=2, heads=4, patch=4, grid=3),
}
"""Untrained transformers: ViLT-B/32, whose cost can be measured without a download, and one as small as tests need."""


class Embeddings(nn.Module):
    """Words and patches as tokens (ViLT, 3.1): BERT's embeddings of words, linear ones of patches, their modality."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.word = nn.Embedding(size.vocabulary, size.width)
        self.segment = nn.Parameter(torch.zeros(1, size.width))
        self.text_position = nn.Parameter(torch.zeros(size.positions, size.width))
        self.text_norm = nn.LayerNorm(size.width)
        self.patch = nn.Conv2d(3, size.width, size.patch, size.patch)
        self.image_cls = nn.Parameter(torch.zeros(1, size.width))
        self.image_position = nn.Parameter(torch.zeros(1 + size.grid**2, size.width))
        self.modality = nn.Parameter(torch.zeros(2, size.width))

    def forward(self, ids: Tensor, pixels: Tensor) -> Tensor:
        """ids (B, L) int64, pixels (B, 3, H, W) -> (B, N, E): L words, a token of the whole image, its patches."""
        text = self.text_norm(self.word(ids) + self.segment + self.text_position)
        patches = self.patch(pixels).flatten(2).mT  # (B, patches, E)
        image = torch.cat([self.image_cls.expand(len(pixels), 1, -1), patches], dim=1) + self.image_position
        return torch.cat([text + self.modality[0], image + self.modality[1]], dim=1)

    @torch.no_grad()
    def fit_positions(self, words: int, rows: int, columns: int) -> None:
        """Make the position tables those of `words` words and rows x columns patches.

        Longer texts than it was trained with stretch their table bilinearly (reference code), other images theirs
        with the corners kept (ViLT code); shorter texts have its first rows.
        """
        table, grid = self.text_position, round((len(self.image_position) - 1) ** 0.5)
        if words > len(table):
            table = F.interpolate(table[None, None], size=(words, table.shape[1]), mode="bilinear")[0, 0]  # type: ignore[assignment]
        self.text_position = nn.Parameter(table[:words])
        plane = self.image_position[1:].T.reshape(1, -1, grid, grid)
        plane = F.interpolate(plane, size=(rows, columns), mode="bilinear", align_corners=True)
        self.image_position = nn.Parameter(torch.cat([self.image_position[:1], plane[0].flatten(1).T]))


class ViLT(nn.Module):
    """The vision-and-language transformer: one stream of words and patches, prompts in its first layers."""

    def __init__(self, size: Size, prompt_type: PromptType) -> None:
        super().__init__()
        self.embeddings = Embeddings(size)
        self.trunk = PromptedTransformer(size.width, size.depth, size.heads, prompt_type)
        for part in self.modules():
            if isinstance(part, nn.LayerNorm):
                part.eps = size.epsilon

    def forward(self, ids: Tensor, pixels: Tensor, prompts: Tensor) -> Tensor:
        """ids (B, L) int64, pixels (B, 3, H, W), prompts (B, layers, P, E) -> normalised [CLS], (B, E)."""
        tokens = self.embeddings(ids, pixels)
        seen = F.pad(ids != PAD, (0, tokens.shape[1] - ids.shape[1]), value=True)  # every patch is seen
        return self.trunk(tokens, prompts, seen)  # type: ignore[no-any-return]


def freeze(module: nn.Module) -> None:
    """Turn all parameters of `module` into constants, which move with it but are neither trained nor saved."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach(), persistent=False)


# ---- pretrained weights ---------------------------------------------------------------------------------------------


class Pretrained(NamedTuple):
    """What training starts from."""

    vilt: ViLT
    pooler: nn.Linear
    size: Size


def untrained(size: Size, prompt_type: PromptType) -> Pretrained:
    """Random weights of a scale that layers keep; always the same, as a file would be."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("untrained ViLT"))
        vilt, pooler = ViLT(size, prompt_type), nn.Linear(size.width, size.width)
        for parameter in [*vilt.parameters(), *pooler.parameters()]:
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=size.width**-0.5)
    return Pretrained(vilt, pooler, size)


def pretrained(weights: str, prompt_type: PromptType) -> Pretrained:
    """The ViLT of a checkpoint, and its pooler, which goes on learning.

    Raises:
        UserError: transformers is not installed, or there is no such checkpoint, or it holds something else.
    """
    model = load_transformers(weights)
    config = model.config
    size = Size(
        config.vocab_size, config.max_position_embeddings, config.hidden_size, config.num_hidden_layers,
        config.num_attention_heads, config.patch_size, config.image_size // config.patch_size, config.layer_norm_eps,
    )  # fmt: skip
    if config.hidden_act != "gelu" or config.intermediate_size != 4 * size.width:
        raise UserError(
            f"weights: the ViLT of '{weights}' has layers of another kind ({config.hidden_act}, "
            f"{config.intermediate_size} wide) than the published ones, which have GELU and 4 times their width."
        )
    with torch.device("meta"):  # nothing is drawn and nothing allocated that is replaced at once
        vilt, pooler = ViLT(size, prompt_type), nn.Linear(size.width, size.width)
    vilt.load_state_dict(renamed(model.state_dict(), size.depth), assign=True)
    pooler.load_state_dict(model.pooler.dense.state_dict(), assign=True)
    return Pretrained(vilt, pooler, size)


def load_transformers(weights: str) -> Any:
    """The `ViltModel` of transformers in a folder, in the cache of the Hugging Face hub, or on the hub.

    Raises:
        UserError: see `pretrained`.
    """
    try:
        from transformers import ViltModel
        from transformers.utils import logging
    except ImportError as error:
        raise UserError(
            f"prompt_vilt reads '{weights}' with the package transformers, which cannot be imported ({error}). "
            "Run: pip install 'robult-bench[vilt]'"
        ) from error
    folder = Path(weights).expanduser()
    if not folder.is_dir() and (folder.is_absolute() or weights.count("/") > 1 or weights.startswith((".", "~"))):
        raise UserError(f"weights: there is no folder '{weights}' with a ViLT; give a folder or a model of the hub.")
    with _quiet(logging):
        model, told = _from_pretrained(ViltModel, str(folder) if folder.is_dir() else weights, folder.is_dir())
    absent = sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))
    if absent or told["mismatched_keys"]:
        raise UserError(f"weights: '{weights}' does not hold a ViLT: {len(absent)} of its tensors are not there.")
    return model


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """No progress bars, and no report that the heads of its pretraining are left out, which is meant."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _from_pretrained(cls: Any, weights: str, is_folder: bool) -> Any:
    """What transformers reads, without the network where that is enough."""
    options = {"dtype": torch.float32, "output_loading_info": True}
    try:
        return cls.from_pretrained(weights, local_files_only=True, **options)
    except Exception as error:  # a damaged file raises anything
        if is_folder:
            raise UserError(
                f"weights: the folder '{weights}' does not hold a ViLT that transformers can read: {_line(error)}"
            ) from error
    try:
        return cls.from_pretrained(weights, **options)
    except Exception as error:
        raise UserError(
            f"weights: '{weights}' is neither a folder here nor in the cache of the Hugging Face hub, and it could "
            f"not be downloaded: {_line(error)} Where there is a network, run: hf download {weights} --local-dir "
            "FOLDER; then give that folder as weights."
        ) from error


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def renamed(theirs: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The weights of a `ViltModel` of transformers under the names of `ViLT`."""
    ours = {
        "embeddings.segment": theirs["embeddings.text_embeddings.token_type_embeddings.weight"][:1],
        "embeddings.text_position": theirs["embeddings.text_embeddings.position_embeddings.weight"],
        "embeddings.image_cls": theirs["embeddings.cls_token"][0],
        "embeddings.image_position": theirs["embeddings.position_embeddings"][0],
        "embeddings.modality": theirs["embeddings.token_type_embeddings.weight"][:2],  # a third is for a second image
        "embeddings.word.weight": theirs["embeddings.text_embeddings.word_embeddings.weight"],
    }
    same = {
        "embeddings.text_norm": "embeddings.text_embeddings.LayerNorm",
        "embeddings.patch": "embeddings.patch_embeddings.projection",
        "trunk.transformer.norm": "layernorm",
    }
    for layer in range(depth):
        block, source = f"trunk.transformer.blocks.{layer}", f"encoder.layer.{layer}"
        same |= {
            f"{block}.norm_attention": f"{source}.layernorm_before",
            f"{block}.attention.out": f"{source}.attention.output.dense",
            f"{block}.norm_mlp": f"{source}.layernorm_after",
            f"{block}.mlp.0": f"{source}.intermediate.dense",
            f"{block}.mlp.2": f"{source}.output.dense",
        }
        for kind in ("weight", "bias"):
            parts = [theirs[f"{source}.attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            ours[f"{block}.attention.qkv.{kind}"] = torch.cat(parts)
    return ours | {f"{a}.{kind}": theirs[f"{b}.{kind}"] for a, b in same.items() for kind in ("weight", "bias")}
