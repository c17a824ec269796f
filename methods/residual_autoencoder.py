"""The cascaded residual autoencoder of CRA, which MMIN imagines missing modalities with.

Tran et al., "Missing Modalities Imputation via Cascaded Residual Autoencoder", CVPR 2017; Zhao et al., ACL 2021.
Shapes: N samples, under as many missing patterns, D features of all modalities together, K autoencoders, C code width.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class ResidualAutoencoder(nn.Module):
    """An autoencoder whose output corrects its input: (N, D) -> correction (N, D) and code (N, C).

    LeakyReLU between the layers of the encoder, ReLU between those of the decoder, none at code and output (MMIN code).

    Args:
        features: D.
        widths: of the encoder's layers, the last one C; the decoder mirrors them.
    """

    def __init__(self, features: int, widths: Sequence[int]) -> None:
        super().__init__()
        down, up = [features, *widths], [*reversed(widths), features]
        self.encoder = layers(down, lambda: nn.LeakyReLU(0.01))
        self.decoder = layers(up, nn.ReLU)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder(x)
        return self.decoder(code), code


def layers(widths: Sequence[int], activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Linear layers of these widths with activations between them."""
    row: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        row += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*row[:-1])


class Cascade(nn.Module):
    """K residual autoencoders one after the other: x_k = x_(k-1) + RA_k(x_(k-1)) (CRA, MMIN)."""

    def __init__(self, features: int, widths: Sequence[int], depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualAutoencoder(features, widths) for _ in range(depth))

    def forward(self, x: Tensor, depth: int | None = None) -> tuple[Tensor, Tensor]:
        """x_K and the codes side by side, (..., D) -> (..., D) and (..., K C); of the first `depth` only, if given."""
        codes = [x[..., :0]]
        for block in list(self.blocks)[:depth]:
            correction, code = block(x)
            x = x + correction
            codes.append(code)
        return x, torch.cat(codes, dim=-1)
