"""Projectors of one sequence (B, T, D) to a latent (B, d): GRU, LSTM with max-pooling, TextCNN.

The recurrences are written out: `nn.GRU` and `nn.LSTM` have no batching rule for a stack of replicas. Their parameters
keep the names, shapes, gate order and initial values they have there.
Shapes: B batch, T time steps, D features, H hidden width, d latent width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.encoders.conditioned import by_sample


class Recurrence(nn.Module):
    """The parameters of a one-layer recurrent network with `gates` gates, and the part that needs no recurrence."""

    def __init__(self, features: int, hidden: int, gates: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.weight_ih_l0 = nn.Parameter(torch.empty(gates * hidden, features))
        self.weight_hh_l0 = nn.Parameter(torch.empty(gates * hidden, hidden))
        self.bias_ih_l0 = nn.Parameter(torch.empty(gates * hidden))
        self.bias_hh_l0 = nn.Parameter(torch.empty(gates * hidden))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    def from_inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the gates get from the inputs, (B, T, D) -> T of (B, gates H), by one matrix product for all steps."""
        return F.linear(x, self.weight_ih_l0, self.bias_ih_l0).unbind(-2)

    def from_state(self, h: Tensor) -> Tensor:
        """What the gates get from the state, (B, H) -> (B, gates H)."""
        return F.linear(h, self.weight_hh_l0, self.bias_hh_l0)

    def start(self, x: Tensor) -> Tensor:
        """The state before the first step, zeros (B, H)."""
        return x.new_zeros(len(x), self.hidden)


class GRU(Recurrence):
    """All states of a gated recurrent unit: (B, T, D) -> (B, T, H), as `nn.GRU(D, H, batch_first=True)`."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden, gates=3)

    def forward(self, x: Tensor) -> Tensor:
        n = self.hidden
        h, states = self.start(x), []
        for inputs in self.from_inputs(x):
            state = self.from_state(h)
            reset, update = (inputs[..., : 2 * n] + state[..., : 2 * n]).sigmoid().chunk(2, dim=-1)
            new = torch.addcmul(inputs[..., 2 * n :], reset, state[..., 2 * n :]).tanh()
            h = torch.lerp(new, h, update)
            states.append(h)
        return torch.stack(states, dim=-2)


class LSTM(Recurrence):
    """All states of a long short-term memory: (B, T, D) -> (B, T, H), as `nn.LSTM(D, H, batch_first=True)`."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden, gates=4)

    def forward(self, x: Tensor) -> Tensor:
        h = cell = self.start(x)
        states = []
        for inputs in self.from_inputs(x):
            write, keep, new, show = (inputs + self.from_state(h)).chunk(4, dim=-1)
            cell = torch.addcmul(keep.sigmoid() * cell, write.sigmoid(), new.tanh())
            h = show.sigmoid() * cell.tanh()
            states.append(h)
        return torch.stack(states, dim=-2)


class GRUProjector(nn.Module):
    """A GRU whose T states, all of them, go through one linear layer: (B, T, D) -> (B, d) (GMC code)."""

    def __init__(self, shape: tuple[int, int], latent: int, hidden: int) -> None:
        super().__init__()
        steps, features = shape
        self.gru = GRU(features, hidden)
        self.project = nn.Linear(steps * hidden, latent)

    @by_sample
    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.gru(x).flatten(-2))  # type: ignore[no-any-return]


class LSTMProjector(nn.Module):
    """The largest value over time of each state of an LSTM: (B, T, D) -> (B, d) (RAML, IV-A)."""

    def __init__(self, shape: tuple[int, int], latent: int) -> None:
        super().__init__()
        self.lstm = LSTM(shape[1], latent)

    @by_sample
    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x).amax(dim=-2)  # type: ignore[no-any-return]


class TextCNN(nn.Module):
    """Filters over 3, 4 and 5 steps, ReLU, largest value over time, one linear layer: (B, T, D) -> (B, d).

    Kim, "Convolutional Neural Networks for Sentence Classification", EMNLP 2014, on tokens that are embedded already.
    Its dropout, which belongs to the classifier that follows there, is left out. A sequence shorter than 5 steps is
    filled up with zeros at its end.
    """

    SPANS = (3, 4, 5)

    def __init__(self, shape: tuple[int, int], latent: int, filters: int) -> None:
        super().__init__()
        steps, features = shape
        self.filling = max(max(self.SPANS) - steps, 0)
        self.filters = nn.ModuleList(nn.Conv1d(features, filters, span) for span in self.SPANS)
        self.project = nn.Linear(len(self.SPANS) * filters, latent)

    @by_sample
    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x.mT, (0, self.filling))  # (B, D, T)
        found = torch.cat([conv(x).relu().amax(dim=-1) for conv in self.filters], dim=-1)
        return self.project(found)  # type: ignore[no-any-return]
