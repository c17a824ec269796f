"""A normalising flow of affine couplings: an invertible map from features to a latent whose density is known.

As DiCMoR uses Glow (Kingma and Dhariwal, NeurIPS 2018), for vectors.
Shapes: D features; leading axes (...) are samples.
"""

import torch
from torch import Tensor, nn

SCALE_SHIFT = 2.0
"""Added to the logit of a coupling's scale (Glow code): an untrained one contracts by sigmoid(2) = 0.88."""
GAIN = 3.0
"""The last layer of a coupling's network is multiplied by exp(3 g), g learned (Glow code)."""
LEAST_LOG_SCALE = -5.0
"""Of one coupling, so that its inverse stretches by 150 at most."""
FARTHEST = 1e6
"""Bound of every feature on the way back: the inverse of what another flow says may lie anywhere."""
START = 1e-3
"""Standard deviation of that layer's first weights. Zero in the Glow code; a little more, so that the layers before it
learn from the first step, leaves two untrained flows each other's inverse up to rounding of a percent."""


class Coupling(nn.Module):
    """Half of the features pass unchanged and say how the other half is shifted and scaled, b -> (b + t) s.

    Args:
        width: D.
        hidden: units of both hidden layers.
        first: the first half is changed instead of the second.
    """

    def __init__(self, width: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.cut, self.first = width // 2, first
        kept, changed = (width - self.cut, self.cut) if first else (self.cut, width - self.cut)
        self.layers = nn.Sequential(
            nn.Linear(kept, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2 * changed)
        )
        self.gain = nn.Parameter(torch.zeros(2 * changed))
        for parameter in self.layers[-1].parameters():
            nn.init.normal_(parameter, std=START)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The half that is kept and the half that changes."""
        a, b = x[..., : self.cut], x[..., self.cut :]
        return (b, a) if self.first else (a, b)

    def whole(self, kept: Tensor, changed: Tensor) -> Tensor:
        """Inverse of `halves`."""
        return torch.cat([changed, kept] if self.first else [kept, changed], dim=-1)

    def scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """log s, never above 0, and t."""
        raw, shift = (self.layers(kept) * (GAIN * self.gain).exp()).chunk(2, dim=-1)
        return nn.functional.logsigmoid(raw + SCALE_SHIFT).clamp(min=LEAST_LOG_SCALE), shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) -> z (..., D) and the log-determinant (...)."""
        kept, changed = self.halves(x)
        log_scale, shift = self.scale_and_shift(kept)
        return self.whole(kept, (changed + shift) * log_scale.exp()), log_scale.sum(-1)

    def inverse(self, z: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        kept, changed = self.halves(z)
        log_scale, shift = self.scale_and_shift(kept)
        return self.whole(kept, changed * (-log_scale).exp() - shift)


class Flow(nn.Module):
    """Couplings one after another.

    Args:
        width: D, at least 2.
        hidden: units of the couplings' networks.
        steps: how many couplings.
        alternate: the halves take turns in being changed; False: always the second one (DiCMoR code).
    """

    def __init__(self, width: int, hidden: int, steps: int, alternate: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList(Coupling(width, hidden, alternate and step % 2 == 1) for step in range(steps))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) -> z (..., D) and log |det dz/dx| (...)."""
        log_determinant = torch.zeros_like(x[..., 0])
        for step in self.steps:
            x, change = step(x)
            log_determinant = log_determinant + change
        return x, log_determinant

    def inverse(self, z: Tensor) -> Tensor:
        """The x whose image is z, (..., D) -> (..., D)."""
        for step in reversed(self.steps):
            z = step.inverse(z).clamp(-FARTHEST, FARTHEST)  # type: ignore[operator]
        return z
