"""The small pieces several networks are made of. Shapes: d latent width, C outputs."""

import torch.nn.functional as F
from torch import Tensor, nn

from methods.encoders.conditioned import by_sample
from methods.noise import dropout


def unit(x: Tensor) -> Tensor:
    """`x` scaled to norm 1 along its last axis; a zero vector stays zero."""
    return F.normalize(x, dim=-1, eps=1e-12)


class Layers(nn.Sequential):
    """Layers of single samples, one after the other."""

    @by_sample
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]


class Linear(nn.Linear):
    """One layer of single samples."""

    @by_sample
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two fully connected layers with a ReLU between them."""
    return Layers(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class Residual(nn.Module):
    """q + L(ReLU(L(q))), width kept (GMC code, the block of its head and of its joint processor)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = mlp(width, width, width)

    def forward(self, q: Tensor) -> Tensor:
        return q + self.branch(q)  # type: ignore[no-any-return]


def residual_head(latent: int, outputs: int) -> nn.Sequential:
    """Classifier or regressor (..., d) -> (..., C): a residual block, then one linear layer (GMC code)."""
    return nn.Sequential(Residual(latent), nn.Linear(latent, outputs))


class DropoutHead(nn.Module):
    """Classifier or regressor of two hidden layers, each with ReLU and dropout (MMIN code; RAML's baselines).

    Args:
        inputs: width of the input.
        hidden: width of both hidden layers.
        outputs: C.
        rate: share of hidden units dropped in training.
        site: dropout takes this site of the noise and the next.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, rate: float, site: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)])
        self.out = nn.Linear(hidden, outputs)
        self.rate, self.site = rate, site

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """(B, inputs) and the samples' noise keys (B,) -> (B, C)."""
        for offset, layer in enumerate(self.layers):
            x = layer(x).relu()
            if self.training:
                x = dropout(x, self.rate, noise, self.site + offset)
        return self.out(x)  # type: ignore[no-any-return]
