"""ActionMAE: drop modality tokens at random, restore them from the others, decide from the completed set.

Woo et al., "Towards Good Practices for Missing Modality Robust Action Recognition", AAAI 2023, on one token a modality
as the Robult comparison runs it. The reference code differs from its own description in three places (see `mae_fixes`);
the default is the corrected method. Shapes: B batch, M modalities, K memory tokens, E token width, W task width.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task, masked_mean
from methods.base import Method, MethodConfig, hyper
from methods.encoders import EncoderConfig, cannot_encode, projector
from methods.fusion import present, shown
from methods.noise import uniform
from methods.transformer import Transformer, xavier

SITE_COUNT, SITE_ORDER = 0, 1
"""Where noise is drawn: how many tokens a batch keeps, and which ones each sample keeps."""


class ActionMAEConfig(EncoderConfig):
    """Hyper-parameters of ActionMAE."""

    mae_fixes: bool = hyper(
        True,
        source="our choice; False is what the ActionMAE code computes: positions are never added, so dropped "
        "modalities share one reconstruction; at test time kept tokens move to the front slots; with nothing dropped "
        "the memory tokens are read as the first slots",
    )
    mae_width: int | None = hyper(
        None,
        source="ActionMAE code: 512, from backbones of that width; our choice: the latent width, as for all methods; "
        "another width puts a linear layer in front",
        ge=2,
    )
    depth: int = hyper(2, source="ActionMAE code: blocks of the encoder, and of the decoder", search=(1, 4), ge=1)
    heads: int = hyper(
        8,
        source="ActionMAE code; where 8 does not divide the width, our choice: the largest smaller number that does",
        ge=1,
    )
    mlp_ratio: int = hyper(4, source="ActionMAE code: 2048 / 512", ge=1)
    memory_tokens: int = hyper(
        1, source="ActionMAE code: 1 in its configs, 4 in its launch script, 10 in its class", search=(1, 4, 10), ge=1
    )
    normalise_target: bool = hyper(True, source="ActionMAE code: every token to be restored, to mean 0 and variance 1")
    mae_detach_target: bool = hyper(
        False, source="ActionMAE code: the projectors learn from the reconstruction's target as well"
    )
    decode_whole: bool = hyper(
        False,
        source="ActionMAE code: the decoder is skipped where nothing is dropped; True always decodes, so that the "
        "linear layers of the fusion read one kind of slot",
        search=(False, True),
    )
    lambda_mae: float = hyper(1.0, source="ActionMAE code: both losses weigh 1", search=(0.1, 10.0), log=True, ge=0)
    label_smoothing: float = hyper(
        0.1, source="ActionMAE code; single-label classification only", search=(0.0, 0.2), ge=0, lt=1
    )


# ---- losses and masks: pure functions of tensors --------------------------------------------------------------------


def random_keep(noise: Tensor, available: Tensor, valid: Tensor) -> Tensor:
    """Which tokens each sample keeps: one number a batch, uniform in 1..M, and a random subset of that size a sample.

    ActionMAE code. The number is drawn with the key of the first valid row. A sample that lacks modalities keeps at
    most those it has.

    Args:
        noise: keys, (B,) int64.
        available: (B, M) bool.
        valid: (B,) bool.

    Returns:
        (B, M) bool; never empty where `available` is not.
    """
    modalities = available.shape[1]
    first = valid & (valid.cumsum(0) == 1)
    key = (noise * first).sum(0, keepdim=True)
    count = 1 + (uniform(key, SITE_COUNT) * modalities).long()  # (1,)
    score = torch.where(available, uniform(noise, SITE_ORDER, (modalities,)), 2.0)
    rank = (score[:, :, None] > score[:, None, :]).sum(-1)  # how many tokens come before
    return available & (rank < count)


def normalised(tokens: Tensor) -> Tensor:
    """Every token (..., E) at mean 0 and unbiased variance 1, up to 1e-6 (ActionMAE code; masked autoencoders)."""
    centred = tokens - tokens.mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / max(tokens.shape[-1] - 1, 1)
    return centred / torch.sqrt(variance + 1e-6)


def restoration_errors(restored: Tensor, tokens: Tensor, normalise: bool = True) -> Tensor:
    """Mean squared error of every restored token, (B, M, E) -> (B, M) (ActionMAE code, forward_mask_loss)."""
    return (restored - (normalised(tokens) if normalise else tokens)).square().mean(-1)


def mask_loss(restored: Tensor, tokens: Tensor, dropped: Tensor, normalise: bool = True) -> Tensor:
    """Mean error over the dropped tokens of the batch, scalar; 0 where the reference gives 0/0: nothing dropped.

    Args:
        restored: (B, M, E).
        tokens: the tokens as they were, (B, M, E).
        dropped: (B, M) bool.
    """
    return masked_mean(restoration_errors(restored, tokens, normalise), dropped)


def packed_front(tokens: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Kept tokens moved to the front in their order, as the reference evaluates: (B, M, E), (B, M) -> the same."""
    order = keep.long().argsort(dim=1, descending=True, stable=True)
    return tokens.gather(1, order[..., None].expand(tokens.shape)), keep.gather(1, order)


def fitting_heads(width: int, heads: int) -> int:
    """The largest number of attention heads up to `heads` that divides the width."""
    return next(h for h in range(min(heads, width), 0, -1) if width % h == 0)


# ---- the method -----------------------------------------------------------------------------------------------------


class ActionMAE(Method):
    """A masked autoencoder over modality tokens, and a linear layer for each slot of the completed set."""

    name = "actionmae"
    title = "ActionMAE"
    paper = "Towards Good Practices for Missing Modality Robust Action Recognition, AAAI 2023"
    Config = ActionMAEConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"reference": {"mae_fixes": False}}

    config: ActionMAEConfig
    lambda_mae: Tensor
    label_smoothing: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: ActionMAEConfig) -> None:
        super().__init__(shapes, task, config)
        d = config.latent_for(shapes)
        width = config.mae_width or d
        heads = fitting_heads(width, config.heads)
        self.f = nn.ModuleList(projector(shape, d, config) for shape in shapes.values())
        self.widen = nn.ModuleList(nn.Linear(d, width) if config.mae_width else nn.Identity() for _ in shapes)
        self.memory = nn.Parameter(0.02 * torch.randn(config.memory_tokens, width))
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        if config.mae_fixes:
            self.place_in = nn.Parameter(0.02 * torch.randn(len(shapes), width))
            self.place_out = nn.Parameter(0.02 * torch.randn(len(shapes), width))
        self.encoder = Transformer(width, config.depth, heads, config.mlp_ratio)
        self.decoder = Transformer(width, config.depth, heads, config.mlp_ratio)
        self.restore = nn.Linear(width, width)
        self.fuse = nn.ModuleList(nn.Linear(width, task.width) for _ in shapes)
        xavier(self.restore)
        xavier(self.fuse)
        self.hyper_buffers("lambda_mae", "label_smoothing")

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    @property
    def needs_labels(self) -> bool:
        """With one modality nothing can be dropped, so only labels teach."""
        return len(self.modalities) == 1 or self.config.lambda_mae == 0

    def untrained(self) -> tuple[str, ...]:
        if len(self.modalities) > 1:
            return ()
        return ("mask_token",) if self.config.decode_whole else ("mask_token", "place_out", "decoder", "restore")

    # ---- the masked autoencoder ---------------------------------------------------------------------------

    def tokens(self, xs: list[Tensor]) -> Tensor:
        """One token a modality: M inputs (B, ...) -> (B, M, E)."""
        return torch.stack([w(f(x)) for w, f, x in zip(self.widen, self.f, xs, strict=True)], dim=1)

    def encode(self, tokens: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Memory tokens (B, K, E) and kept tokens (B, M, E) after looking at each other; nobody looks at the rest."""
        memory = self.memory.expand(len(tokens), -1, -1)
        if self.config.mae_fixes:
            tokens = tokens + self.place_in
        seen = torch.cat([torch.ones_like(memory[..., 0], dtype=torch.bool), keep], dim=1)
        encoded = self.encoder(torch.cat([memory, tokens], dim=1), seen)
        return encoded[:, : len(self.memory)], encoded[:, len(self.memory) :]

    def decode(self, memory: Tensor, encoded: Tensor, keep: Tensor) -> Tensor:
        """Every slot restored, (B, M, E), from the memory, the kept tokens and the mask token in place of the rest."""
        slots = torch.where(keep[..., None], encoded, self.mask_token)
        if self.config.mae_fixes:
            slots = slots + self.place_out
        return self.restore(self.decoder(torch.cat([memory, slots], dim=1))[:, len(self.memory) :])  # type: ignore[no-any-return]

    def complete(self, tokens: Tensor, keep: Tensor, *, training: bool) -> Tensor:
        """The M slots that the fusion reads, (B, M, E): restored, or as encoded where a sample keeps all M tokens.

        Without `mae_fixes` two slips of the reference code are kept: its evaluation packs kept tokens into the front
        slots (its training does not), and slots that need no decoding still have the memory tokens before them.

        Args:
            tokens: (B, M, E).
            keep: (B, M) bool.
            training: which of the reference's two paths; they are the same with `mae_fixes`.
        """
        memory, encoded = self.encode(tokens, keep)
        fixed = self.config.mae_fixes
        kept = (encoded, keep) if fixed or training else packed_front(encoded, keep)
        restored = self.decode(memory, *kept)
        if self.config.decode_whole:
            return restored
        whole = encoded if fixed else torch.cat([memory, encoded], dim=1)[:, : encoded.shape[1]]
        return torch.where(keep.all(1)[:, None, None], whole, restored)

    def classify(self, slots: Tensor) -> Tensor:
        """Sum of a linear layer a slot, (B, M, E) -> (B, W)."""
        return torch.stack([fuse(slot) for fuse, slot in zip(self.fuse, slots.unbind(1), strict=True)]).sum(0)

    # ---- the interface ------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`mae` on all samples, `sup` on labelled ones; in evaluation mode nothing is dropped and `mae` is 0."""
        config, there = self.config, present(batch).T
        tokens = self.tokens(shown(batch))
        keep = random_keep(batch.noise, batch.available, batch.valid) if self.training else batch.available
        slots = self.complete(tokens, keep, training=True)
        target = tokens.detach() if config.mae_detach_target else tokens
        losses = self.task.label_smoothed_loss(self.classify(slots), batch.target, self.label_smoothing)
        return {
            "mae": self.lambda_mae * mask_loss(slots, target, there & ~keep, config.normalise_target),
            "sup": masked_mean(losses, batch.labelled),
        }

    def predict(self, batch: Batch) -> Tensor:
        """The available tokens kept, the others restored, all slots fused."""
        return self.classify(self.complete(self.tokens(shown(batch)), batch.available, training=False))

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the completed slots side by side, which the fusion reads; `z/<modality>`, the same from it alone."""
        tokens = self.tokens(shown(batch))
        named = {"s": self.complete(tokens, batch.available, training=False).flatten(1)}
        for i, name in enumerate(self.modalities):
            alone = batch.available & (torch.arange(len(self.modalities), device=tokens.device) == i)
            named[f"z/{name}"] = self.complete(tokens, alone, training=False).flatten(1)
        return named

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Whether the decoder restores anything: error of each modality from the others, and how alike tokens are.

        `mae/<modality>` is the mean squared error when it alone is dropped; normalised tokens have variance 1, so near
        1 the decoder says nothing about them. `token_variance/<modality>` is the variance over samples of a normalised
        token's elements: near 0 the projector has made its own target constant, and a small error means nothing.
        """
        tokens, there = self.tokens(shown(batch)), present(batch)
        told: dict[str, Tensor] = {}
        for i, name in enumerate(self.modalities):
            others = torch.arange(len(self.modalities), device=tokens.device) != i
            slots = self.complete(tokens, batch.available & others, training=True)
            errors = restoration_errors(slots, tokens, self.config.normalise_target)
            told[f"mae/{name}"] = masked_mean(errors[:, i], there[i])
            weight = there[i][:, None] / there[i].sum().clamp(min=1)  # (B, 1)
            token = normalised(tokens[:, i])
            centre = (token * weight).sum(0)
            told[f"token_variance/{name}"] = ((token - centre).square() * weight).sum(0).mean()
        return told
