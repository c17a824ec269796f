"""How these models are usually written and trained: the baseline of the speed benchmarks.

One replica a process, PyTorch's own layers one after the other, a DataLoader, Adam as it comes, a `.item()` a step for
the log. GMC as its reference code has it (MulT's nine transformers singly, `nn.GRU`, `F.dropout`), Robult by its
Algorithm 1 with one backward pass a loss. Shapes: B batch, M modalities, T time steps, E width, d latent width.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Shapes = Mapping[str, tuple[int, ...]]


class Samples(Dataset[tuple[list[Tensor], Tensor, Tensor]]):
    """Inputs, target and whether the label is visible, sample by sample."""

    def __init__(self, inputs: Sequence[Tensor], target: Tensor, labelled: Tensor) -> None:
        self.inputs, self.target, self.labelled = inputs, target, labelled

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: int) -> tuple[list[Tensor], Tensor, Tensor]:
        return [x[index] for x in self.inputs], self.target[index], self.labelled[index]


def loader(inputs: Sequence[Tensor], target: Tensor, labelled: Tensor, size: int) -> DataLoader[object]:
    """Shuffled batches without the incomplete last one."""
    return DataLoader(Samples(inputs, target, labelled), batch_size=size, shuffle=True, drop_last=True)


def forever(batches: DataLoader[object]) -> Iterator[tuple[list[Tensor], Tensor, Tensor]]:
    while True:
        yield from batches


# ---- MulT, as its code and GMC's have it ----------------------------------------------------------------------------


class Attention(nn.Module):
    """Multi-head attention as MulT's code has it: matrix products in batches of (B H), mask, softmax, dropout.

    On CPUs quicker here than `nn.MultiheadAttention`, whose fused kernel does not like heads of 6 features.
    """

    def __init__(self, width: int, heads: int, rate: float) -> None:
        super().__init__()
        self.packed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.rate = heads, rate

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        weights, biases = self.packed.weight.chunk(3), self.packed.bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).view(len(x), -1, x.shape[2] // self.heads).transpose(0, 1)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )  # (B H, T, E / H)
        score = torch.bmm(q * q.shape[2] ** -0.5, k.transpose(1, 2)) + mask
        share = F.dropout(F.softmax(score, dim=-1), self.rate, self.training)
        return self.out(torch.bmm(share, v).transpose(0, 1).reshape(query.shape))  # type: ignore[no-any-return]


class TransformerLayer(nn.Module):
    """Pre-norm attention and feed-forward part, (T, B, E)."""

    def __init__(self, width: int, heads: int, attention_rate: float, rate: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, attention_rate)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.rate = rate

    def forward(self, x: Tensor, source: tuple[Tensor, Tensor] | None) -> Tensor:
        q = self.norm1(x)
        k, v = (q, q) if source is None else (self.norm1(source[0]), self.norm1(source[1]))
        mask = torch.full((len(q), len(k)), -math.inf).triu(1 + abs(len(k) - len(q)))
        seen = self.attention(q, k, v, mask)
        x = x + F.dropout(seen, self.rate, self.training)
        wide = F.dropout(F.relu(self.fc1(self.norm2(x))), self.rate, self.training)
        return x + F.dropout(self.fc2(wide), self.rate, self.training)


class Transformer(nn.Module):
    """One transformer encoder, cross-modal with a source."""

    def __init__(self, width: int, depth: int, heads: int, attention_rate: float) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.ModuleList(TransformerLayer(width, heads, attention_rate, 0.1) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def embed(self, x: Tensor) -> Tensor:
        """Scaled inputs with sinusoidal positions, made anew each time as there."""
        half = self.width // 2
        frequency = torch.exp(torch.arange(half) * (-math.log(10_000) / (half - 1)))
        angle = torch.arange(1, len(x) + 1)[:, None] * frequency
        table = torch.cat([angle.sin(), angle.cos()], dim=1)[:, None]
        x = math.sqrt(self.width) * x + torch.where(x[..., :1] != 0, table, 0.0)
        return F.dropout(x, 0.25, self.training)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        x = self.embed(x)
        pair = None if source is None else (self.embed(source), self.embed(source))
        for layer in self.layers:
            x = layer(x, pair)
        return self.norm(x)  # type: ignore[no-any-return]


class MulT(nn.Module):
    """Every modality attends to every other, then to itself; all steps of all layers are computed, the last is read."""

    def __init__(self, shapes: Shapes, latent: int, width: int = 30, depth: int = 5, heads: int = 5) -> None:
        super().__init__()
        m = self.m = len(shapes)
        self.project = nn.ModuleList(nn.Conv1d(d, width, 1, bias=False) for _, d in shapes.values())
        self.cross = nn.ModuleDict(
            {
                f"{i}{j}": Transformer(width, depth, heads, 0.1 if j == 0 else 0.0)
                for i in range(m)
                for j in range(m)
                if i != j
            }
        )
        self.memory = nn.ModuleList(Transformer((m - 1) * width, depth, heads, 0.1) for _ in range(m))
        wide = m * (m - 1) * width
        self.proj1, self.proj2, self.out = nn.Linear(wide, wide), nn.Linear(wide, wide), nn.Linear(wide, latent)

    def forward(self, xs: list[Tensor]) -> Tensor:
        xs = [F.dropout(xs[0], 0.25, self.training), *xs[1:]]
        h = [project(x.transpose(1, 2)).permute(2, 0, 1) for project, x in zip(self.project, xs, strict=True)]
        last = []
        for i, memory in enumerate(self.memory):
            seen = [self.cross[f"{i}{j}"](h[i], h[j]) for j in range(self.m) if j != i]
            last.append(memory(torch.cat(seen, dim=2))[-1])
        q = torch.cat(last, dim=1)
        return self.out(q + self.proj2(F.relu(self.proj1(q))))  # type: ignore[no-any-return]


# ---- the parts of both methods --------------------------------------------------------------------------------------


class GRUProjector(nn.Module):
    def __init__(self, steps: int, features: int, latent: int) -> None:
        super().__init__()
        self.gru = nn.GRU(features, 30, batch_first=True)
        self.project = nn.Linear(30 * steps, latent)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.gru(x)[0].flatten(1))  # type: ignore[no-any-return]


class Head(nn.Module):
    def __init__(self, latent: int, outputs: int) -> None:
        super().__init__()
        self.fc1, self.fc2, self.out = nn.Linear(latent, latent), nn.Linear(latent, latent), nn.Linear(latent, outputs)

    def forward(self, q: Tensor) -> Tensor:
        return self.out(q + self.fc2(F.relu(self.fc1(q))))  # type: ignore[no-any-return]


class JointOfVectors(nn.Module):
    """Own projectors, concatenation, residual block, linear layer."""

    def __init__(self, shapes: Shapes, latent: int) -> None:
        super().__init__()
        wide = latent * len(shapes)
        self.project = nn.ModuleList(two_layers(shape[0], latent) for shape in shapes.values())
        self.mix = Head(wide, latent)

    def forward(self, xs: list[Tensor]) -> Tensor:
        return self.mix(torch.cat([p(x) for p, x in zip(self.project, xs, strict=True)], dim=1))  # type: ignore[no-any-return]


def two_layers(inputs: int, latent: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, latent), nn.ReLU(), nn.Linear(latent, latent))


def latent_width(shapes: Shapes) -> int:
    return 60 if any(len(shape) == 2 for shape in shapes.values()) else 128


def projector(shape: tuple[int, ...], latent: int) -> nn.Module:
    return GRUProjector(*shape, latent) if len(shape) == 2 else two_layers(shape[0], latent)


def joint(shapes: Shapes, latent: int) -> nn.Module:
    sequences = any(len(shape) == 2 for shape in shapes.values())
    return MulT(shapes, latent) if sequences else JointOfVectors(shapes, latent)


# ---- GMC ------------------------------------------------------------------------------------------------------------


class GMC(nn.Module):
    """Its supervised loss: NT-Xent over the 2B points of each modality and the joint one, and the task's loss."""

    def __init__(self, shapes: Shapes, outputs: int) -> None:
        super().__init__()
        d = latent_width(shapes)
        self.processors = nn.ModuleList(projector(shape, d) for shape in shapes.values())
        self.joint = joint(shapes, d)
        self.encoder, self.head = nn.Linear(d, d), Head(d, outputs)

    def loss(self, xs: list[Tensor], target: Tensor, labelled: Tensor) -> Tensor:
        whole = F.normalize(self.encoder(self.joint(xs)), dim=-1)
        total = task_loss(self.head(whole), target, labelled)
        for processor, x in zip(self.processors, xs, strict=True):
            single = F.normalize(self.encoder(processor(x)), dim=-1)
            points = torch.cat([whole, single])
            similarity = torch.exp(points @ points.T / 0.3)
            among = torch.ones_like(similarity) - torch.eye(len(points))
            negatives = similarity.masked_select(among.bool()).view(len(points), -1).sum(-1)
            partner = torch.exp((whole * single).sum(-1) / 0.3).repeat(2)
            total = total - torch.log(partner / negatives).mean()
        return total


def task_loss(output: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
    """L1 or cross-entropy of the labelled samples."""
    if not labelled.any():
        return output.sum() * 0
    if target.dtype == torch.int64:
        return F.cross_entropy(output[labelled], target[labelled])
    return F.l1_loss(output[labelled, 0], target[labelled])


def train_gmc(model: GMC, batches: DataLoader[object]) -> Iterator[float]:
    """Trains a step each time it is asked for the next loss."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for xs, target, labelled in forever(batches):
        optimiser.zero_grad()
        loss = model.loss(xs, target, labelled)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        yield loss.item()


# ---- Robult ---------------------------------------------------------------------------------------------------------


class Robult(nn.Module):
    """Its three losses, modality by modality (Algorithm 1 alternates between them)."""

    def __init__(self, shapes: Shapes, outputs: int) -> None:
        super().__init__()
        d = latent_width(shapes)
        self.f = nn.ModuleList(projector(shape, d) for shape in shapes.values())
        self.g = nn.ModuleList(nn.Linear(d, d) for _ in shapes)
        self.r = nn.ModuleList(two_layers(2 * d, d) for _ in shapes)
        self.f0, self.g0 = joint(shapes, d), two_layers(d, d)
        self.combine, self.c = nn.Linear(2 * d, d), Head(d, outputs)

    def latents(self, xs: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        h0, h = self.f0(xs), [f(x) for f, x in zip(self.f, xs, strict=True)]
        u = [F.normalize(g(x), dim=-1) for g, x in zip(self.g, h, strict=True)]
        return h0, h, u, [F.normalize(self.g0(x), dim=-1) for x in h]

    def answers(self, h0: Tensor, u: list[Tensor], z: list[Tensor]) -> list[Tensor]:
        pairs = zip(u, z, strict=True)
        return [self.c(h0), *(self.c(self.combine(torch.cat(pair, dim=-1))) for pair in pairs)]

    def contrast(self, xs: list[Tensor], target: Tensor, labelled: Tensor) -> Tensor:
        """L_lb + L_ulb with the weights of Eq. 5."""
        h0, _, u, z = self.latents(xs)
        s, outputs = F.normalize(self.g0(h0), dim=-1), self.answers(h0, u, z)
        group = torch.where(labelled, groups(target), guessed(outputs[0].detach(), target))
        same, both = group[:, None] == group[None], labelled[:, None] & labelled[None]
        total = torch.zeros(())
        for z_i in z:
            cosine = s @ z_i.T
            log_v = F.log_softmax(cosine / 0.3, dim=-1)
            phi = torch.exp(cosine.detach() / 0.3)
            known = same & both
            count = known.sum(1)
            mean = (phi * known).sum(1) / count.clamp(min=1)
            gap = (phi - torch.where(count > 0, mean, phi.diagonal())[:, None]).square()
            others = same & ~both
            among = others & ~torch.eye(len(s), dtype=torch.bool)
            weight = torch.exp(-gap / (2 * gap[among].mean() + 1e-12)) if among.any() else torch.ones_like(gap)
            for pairs, weights in ((known, torch.ones_like(gap)), (others, weight)):
                lost = -(weights * log_v * pairs).sum(1) / pairs.sum(1).clamp(min=1)
                total = total + lost.sum() / pairs.any(1).sum().clamp(min=1) / len(z)
        return total

    def reconstruction(self, xs: list[Tensor]) -> Tensor:
        """L_rec of Eq. 10."""
        _, h, u, z = self.latents(xs)
        lost = [
            1 - F.cosine_similarity(r(torch.cat([u_i, z_i.detach()], dim=-1)), h_i.detach()).square().mean()
            for r, u_i, z_i, h_i in zip(self.r, u, z, h, strict=True)
        ]
        return torch.stack(lost).mean()

    def supervised(self, xs: list[Tensor], target: Tensor, labelled: Tensor) -> Tensor:
        h0, _, u, z = self.latents(xs)
        return torch.stack([task_loss(out, target, labelled) for out in self.answers(h0, u, z)]).mean()


def groups(target: Tensor) -> Tensor:
    return target if target.dtype == torch.int64 else target.clamp(-3, 3).round().long()


def guessed(output: Tensor, target: Tensor) -> Tensor:
    return output.argmax(1) if target.dtype == torch.int64 else groups(output[:, 0])


def enable(model: Robult, names: set[str]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in names)


def train_robult(model: Robult, batches: DataLoader[object]) -> Iterator[float]:
    """Algorithm 1: parameters are switched on for one loss after the other, gradients add up, then one step."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for xs, target, labelled in forever(batches):
        optimiser.zero_grad()
        told = 0.0
        enable(model, {"f", "f0", "g0"})
        loss = model.contrast(xs, target, labelled)
        loss.backward()  # type: ignore[no-untyped-call]
        told += loss.item()
        enable(model, {"g", "r"})
        loss = model.reconstruction(xs)
        loss.backward()  # type: ignore[no-untyped-call]
        told += loss.item()
        enable(model, {"f", "f0", "g", "g0", "combine", "c"})
        loss = model.supervised(xs, target, labelled)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        yield told + loss.item()
