"""TATE: a transformer that is told by a tag on every token which modalities are missing, beside a full-data teacher.

Zeng, Liu and Zhou, "Tag-assisted Multimodal Sentiment Analysis under Uncertain Missing Modalities", SIGIR 2022. What
the encoder makes of incomplete samples is drawn to what a network trained on complete ones makes of them, the decoder
rebuilds the tagged tokens, and the pooled output must still tell the tag. Here on one token a modality. The released
code differs from the paper (see `tag` and `teacher_input`) and leaves dropout on at test time; the default is the
paper's intent. Its sums over a batch are means here, and the penalty on its last layer is left to weight decay.
Shapes: B batch, M modalities and tokens, P missing patterns, d latent width, E token width, W task width.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task, masked_mean
from methods.base import Method, MethodConfig, Stage, hyper
from methods.encoders import cannot_encode
from methods.fusion import complete, shown
from methods.noise import dropout
from methods.patterns import mean_over_patterns
from methods.transformer import join_heads, split_heads
from methods.zero_inputs import (
    FIRST_SITE,
    ModalityEncoders,
    PatternConfig,
    choose_patterns,
    embedded_under,
    pattern_keys,
    pattern_loss,
    training_patterns,
)

SITE_ENCODER, SITE_DECODER = FIRST_SITE, FIRST_SITE + 1
SMALLEST = 1e-7
"""Probabilities are clipped here before their logarithm is taken (Keras, which the TATE code uses)."""


class TATEConfig(PatternConfig):
    """Hyper-parameters of TATE."""

    heads: int = hyper(4, source="TATE code", ge=1)
    dropout: float = hyper(0.2, source="TATE code: of attention weights", search=(0.0, 0.5), ge=0, lt=1)
    tag: Literal["pattern", "constant"] = hyper(
        "pattern",
        source="TATE: which modalities are missing; constant: what the TATE code computes, where a tensor is compared "
        "with a number, which is never true, so that every sample has the tag of all modalities but the last missing",
    )
    teacher_input: Literal["complete", "zeroed"] = hyper(
        "complete", source="TATE: the teacher sees the full data; zeroed: the TATE code feeds it the incomplete batch"
    )
    teacher_share: float = hyper(0.5, source="TATE code: as many epochs for both", gt=0, lt=1, unit="of the epochs")
    lambda_encoder: float = hyper(0.1, source="TATE code", search=(0.01, 1.0), log=True, ge=0)
    lambda_decoder: float = hyper(0.1, source="TATE code", search=(0.01, 1.0), log=True, ge=0)
    lambda_tag: float = hyper(
        0.1,
        source="TATE code; there the other terms are sums over a batch of 32 and this is a mean, which is the weight "
        "0.1 / 32 here",
        search=(0.001, 1.0),
        log=True,
        ge=0,
    )


# ---- losses and tags: pure functions of tensors ---------------------------------------------------------------------


def start(parameter: nn.Parameter) -> None:
    """Give weight matrices Xavier-uniform values (TATE code); vectors keep PyTorch's."""
    if parameter.dim() == 2:
        nn.init.xavier_uniform_(parameter)


def tags(chosen: Tensor) -> Tensor:
    """1 for a complete set, then 1 for each missing modality, (..., M) bool -> (..., M+1)."""
    return torch.cat([chosen.all(-1, keepdim=True), ~chosen], dim=-1).float()


def constant_tags(chosen: Tensor) -> Tensor:
    """The tag of all modalities but the last missing, whatever is chosen, (..., M) -> (..., M+1)."""
    only_last = torch.arange(chosen.shape[-1], device=chosen.device) == chosen.shape[-1] - 1
    return tags(only_last).expand(*chosen.shape[:-1], -1)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of probabilities, (..., E) -> (...), both clipped to 1e-7 and above (Keras)."""
    p, q = p.clamp(SMALLEST, 1.0), q.clamp(SMALLEST, 1.0)
    return (p * (p / q).log()).sum(-1)


def token_divergence(a: Tensor, b: Tensor) -> Tensor:
    """KL both ways between the softmaxes of tokens over their features, mean over the tokens (TATE code).

    Args:
        a: (..., M, E).
        b: (..., M, E).

    Returns:
        (...).
    """
    p, q = a.softmax(-1), b.softmax(-1)
    return (divergence(p, q) + divergence(q, p)).mean(-1)


def tag_distance(pooled: Tensor, tag: Tensor) -> Tensor:
    """|tag - sigmoid of the last features of the pooled output|, (..., E), (..., M+1) -> (..., M+1)."""
    return (tag - pooled[..., -tag.shape[-1] :].sigmoid()).abs()


# ---- the network ----------------------------------------------------------------------------------------------------


class PostNormBlock(nn.Module):
    """x = LN(x + Attention(x)); x = LN(x + MLP(x)), with dropout of attention weights; ReLU (TATE code)."""

    def __init__(self, width: int, heads: int, rate: float, site: int) -> None:
        super().__init__()
        self.heads, self.rate, self.site = heads, rate, site
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        """Tokens (N, M, E), and noise keys (N,) where attention weights are to be dropped -> (N, M, E)."""
        x = self.norm_attention(x + self.attention(x, keys))
        return self.norm_mlp(x + self.mlp(x))  # type: ignore[no-any-return]

    def attention(self, x: Tensor, keys: Tensor | None) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        weight = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)  # (N, heads, M, M)
        if keys is not None:
            weight = dropout(weight, self.rate, keys, self.site)
        return self.out(join_heads(weight @ value))  # type: ignore[no-any-return]


class Pooling(nn.Module):
    """Gated weights of the tokens: softmax over them of ((x W_u) * sigmoid(x W_m)) w_r (TATE code)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.u, self.m = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.r = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (..., M, E) -> their weighted mean (..., E) and the weights (..., M)."""
        weight = self.r(self.u(x) * self.m(x).sigmoid()).squeeze(-1).softmax(-1)
        return (weight[..., None] * x).sum(-2), weight


class Seen(NamedTuple):
    """What the network makes of every sample under every pattern."""

    tokens: Tensor
    """The tagged tokens it reads, (P, B, M, E)."""
    encoded: Tensor
    """(P, B, M, E)."""
    decoded: Tensor
    """(P, B, M, E)."""
    pooled: Tensor
    """(P, B, E)."""
    weight: Tensor
    """Of each token in it, (P, B, M)."""
    tag: Tensor
    """(P, B, M+1)."""
    output: Tensor
    """(P, B, W)."""


class TATENet(nn.Module):
    """Encoders, features common to each pair of modalities, tags, transformer encoder and decoder, pooling, head."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: TATEConfig) -> None:
        super().__init__()
        d, m = config.latent_for(shapes), len(shapes)
        shared = max(d // max(m - 1, 1), 1)
        common = shared * (m - 1) if m > 1 else d
        width = -(-(common + m + 1) // config.heads) * config.heads
        self.constant, self.filling = config.tag == "constant", width - common - (m + 1)
        self.pair_of = {pair: i for i, pair in enumerate(combinations(range(m), 2))}
        self.f = ModalityEncoders(shapes, d, config)
        self.pairs = nn.ModuleList(nn.Linear(d, shared, bias=False) for _ in self.pair_of)
        self.encoder = PostNormBlock(width, config.heads, config.dropout, SITE_ENCODER)
        self.decoder = PostNormBlock(width, config.heads, config.dropout, SITE_DECODER)
        self.pool = Pooling(width)
        self.head = nn.Sequential(nn.Linear(width, d, bias=False), nn.Linear(d, task.width))
        for name, parameter in self.named_parameters():
            if not name.startswith("f."):
                start(parameter)

    def common(self, h: Tensor) -> Tensor:
        """Every modality through the matrix it shares with each other one, side by side, (..., M, d) -> (..., M, C).

        With a single modality, its embedding.
        """
        modalities = range(h.shape[-2])
        if len(modalities) == 1:
            return h
        rows = []
        for i in modalities:
            through = [self.pairs[self.pair_of[min(i, j), max(i, j)]] for j in modalities if j != i]
            rows.append(torch.cat([pair(h[..., i, :]) for pair in through], dim=-1))
        return torch.stack(rows, dim=-2)

    def embed(self, xs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Common features of M inputs (B, ...), (B, M, C), and those of zero inputs, (M, C)."""
        h, zero = self.f(xs)
        return self.common(h), self.common(zero)

    def forward(self, xs: list[Tensor], chosen: Tensor, noise: Tensor | None = None) -> Seen:
        """What is made of M inputs (B, ...) under patterns (P, B, M); noise keys (B,) where training drops weights."""
        features, tag = embedded_under(chosen, *self.embed(xs)), self.tag(chosen)
        mark = tag[..., None, :].expand(*features.shape[:-1], -1)
        tokens = torch.cat([features, features.new_zeros(*features.shape[:-1], self.filling), mark], dim=-1)
        keys = None if noise is None else pattern_keys(noise, len(chosen))
        encoded = self.encoder(tokens.flatten(0, 1), keys)
        decoded = self.decoder(encoded, keys).reshape(tokens.shape)
        encoded = encoded.reshape(tokens.shape)
        pooled, weight = self.pool(encoded)
        return Seen(tokens, encoded, decoded, pooled, weight, tag, self.head(pooled))

    def tag(self, chosen: Tensor) -> Tensor:
        """(..., M) bool -> (..., M+1)."""
        return constant_tags(chosen) if self.constant else tags(chosen)


# ---- the method -----------------------------------------------------------------------------------------------------


class TATE(Method):
    """A tagged transformer for incomplete samples, drawn to one that was trained on complete ones."""

    name = "tate"
    title = "TATE"
    paper = "Tag-assisted Multimodal Sentiment Analysis under Uncertain Missing Modalities, SIGIR 2022"
    Config = TATEConfig
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reference": {"tag": "constant", "teacher_input": "zeroed", "lambda_tag": 0.1 / 32},
    }

    config: TATEConfig
    patterns: Tensor
    lambda_encoder: Tensor
    lambda_decoder: Tensor
    lambda_tag: Tensor

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: TATEConfig) -> None:
        super().__init__(shapes, task, config)
        self.teacher = TATENet(shapes, task, config)
        self.student = TATENet(shapes, task, config)
        self.register_buffer("patterns", training_patterns(len(shapes), config), persistent=False)
        self.hyper_buffers("lambda_encoder", "lambda_decoder", "lambda_tag")

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return cannot_encode(spec.modalities, config)

    # ---- stages -------------------------------------------------------------------------------------------

    def stages(self) -> tuple[Stage, ...]:
        """The full-data network, then the one for incomplete samples, from weights of its own."""
        share = self.config.teacher_share
        return (Stage("teacher", share, ("teacher",)), Stage("student", 1 - share, ("student",)))

    @property
    def net(self) -> TATENet:
        """The network that the current stage trains and that answers."""
        return self.teacher if self.stage == "teacher" else self.student

    @property
    def needs_labels(self) -> bool:
        config = self.config
        if self.stage == "teacher":
            return config.lambda_decoder == 0
        return config.lambda_encoder == 0 and config.lambda_decoder == 0 and config.lambda_tag == 0

    def untrained(self) -> tuple[str, ...]:
        parts = ["pool"] if len(self.modalities) == 1 else []
        parts += ["decoder"] if self.config.lambda_decoder == 0 else []
        return tuple(f"{net}.{part}" for net in ("teacher", "student") for part in parts)

    # ---- the interface ------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`sup` on labelled samples, `decoder` on all; for the student `encoder` and `tag` as well.

        The teacher learns from complete samples alone.
        """
        xs, noise = shown(batch), batch.noise if self.training else None
        if self.stage == "teacher":
            whole = complete(batch)
            seen = self.teacher(xs, torch.ones_like(batch.available)[None], noise)
            return self.own_terms(seen, whole[None], whole, batch)
        chosen, counts = choose_patterns(self.patterns, batch, self.config.patterns, self.training)
        seen = self.student(xs, chosen, noise)
        drawn, rows = self.drawn_to(xs, chosen, batch)
        pull = mean_over_patterns(token_divergence(seen.encoded, drawn), counts)
        told = mean_over_patterns(tag_distance(seen.pooled, seen.tag).mean(-1), counts)
        return self.own_terms(seen, counts, batch.valid, batch) | {
            "encoder": self.lambda_encoder * masked_mean(pull, rows),
            "tag": self.lambda_tag * masked_mean(told, batch.valid),
        }

    def own_terms(self, seen: Seen, counts: Tensor, rows: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What a network learns without a teacher.

        Args:
            seen: under P patterns.
            counts: which patterns count for a sample, (P, B) bool.
            rows: samples that count, (B,) bool.
        """
        rebuilt = mean_over_patterns(token_divergence(seen.decoded, seen.tokens), counts)
        labelled = batch._replace(labelled=batch.labelled & rows)
        return {
            "sup": pattern_loss(self.task, seen.output, counts, labelled),
            "decoder": self.lambda_decoder * masked_mean(rebuilt, rows),
        }

    @torch.no_grad()
    def drawn_to(self, xs: list[Tensor], chosen: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the teacher makes of the samples, (P or 1, B, M, E), without dropout, and for which it counts, (B,)."""
        if self.config.teacher_input == "zeroed":
            return self.teacher(xs, chosen).encoded, batch.valid
        return self.teacher(xs, torch.ones_like(batch.available)[None]).encoded, complete(batch)

    def predict(self, batch: Batch) -> Tensor:
        """The head on the pooled output, missing modalities read as zeros and tagged."""
        return self.look(batch).output[0]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """`s`, the pooled output, which the head reads; `z/<modality>`, its token as encoded among the others."""
        seen = self.look(batch)
        return {"s": seen.pooled[0]} | {f"z/{name}": seen.encoded[0, :, i] for i, name in enumerate(self.modalities)}

    def look(self, batch: Batch) -> Seen:
        """What the stage's network makes of a batch as it is, as one pattern, without dropout."""
        return self.net(shown(batch), batch.available[None])  # type: ignore[no-any-return]

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Whether the tag survives and which tokens count.

        `tag/complete` and `tag/<modality>` are the mean distances of the tag's elements over all training patterns:
        near 0.5 the pooled output has forgotten them. `weight/<modality>` is its token's mean weight in the pooling.
        `unlike_teacher` is the mean divergence of the encoded tokens from the teacher's, in nats.
        """
        xs = shown(batch)
        chosen, counts = choose_patterns(self.patterns, batch, "enumerate", training=False)
        seen = self.net(xs, chosen)

        def mean(values: Tensor) -> Tensor:  # (P, B, n) -> (n,)
            over = mean_over_patterns(values, counts[..., None])
            return (over * batch.valid[:, None]).sum(0) / batch.valid.sum().clamp(min=1)

        weight, distance = mean(seen.weight), mean(tag_distance(seen.pooled, self.net.tag(chosen)))
        told = {f"weight/{name}": weight[i] for i, name in enumerate(self.modalities)}
        told |= {f"tag/{name}": distance[i] for i, name in enumerate(("complete", *self.modalities))}
        if self.stage == "student":
            drawn, rows = self.drawn_to(xs, chosen, batch)
            apart = mean_over_patterns(token_divergence(seen.encoded, drawn), counts)
            told["unlike_teacher"] = masked_mean(apart, rows)
        return told
