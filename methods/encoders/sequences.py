"""Projectors of one sequence (B, T, D) to a latent (B, d): GRU, LSTM with max-pooling, TextCNN.

The recurrences are written out: `nn.GRU` and `nn.LSTM` have no batching rule for a stack of replicas. Their parameters
keep the names, shapes, gate order and initial values they have there.
Shapes: B batch, T time steps, D features, H hidden width, d latent width.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

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


class GatedSteps(torch.autograd.Function):
    """The recurrence of a GRU, its gradients by hand: a fifth of the operations that recording each step takes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(inputs: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        """All states (T, B, H), and for the gradients the gates (T, B, 2H), the new values and their parts (T, B, H).

        Args:
            inputs: what the gates get from the inputs, (T, B, 3H).
            weight: from the state to reset, update and new, (3H, H), its bias (3H,).
        """
        n = weight.shape[-1]
        h = torch.zeros_like(inputs[0, :, :n])
        to_gates = weight.mT
        found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for to_reset_update, to_new in zip(*(x.unbind(0) for x in torch.split(inputs, [2 * n, n], -1)), strict=True):
            reset_update, part = torch.split(torch.addmm(bias, h, to_gates), [2 * n, n], dim=-1)
            gates = (to_reset_update + reset_update).sigmoid()
            reset, update = gates.chunk(2, dim=-1)
            new = torch.addcmul(to_new, reset, part).tanh()
            h = torch.lerp(new, h, update)
            found.append((h, gates, new, part))
        return tuple(torch.stack(all_steps) for all_steps in zip(*found, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[1], *output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, states, gates, new, part = ctx.saved_tensors
        reset, update = gates.chunk(2, dim=-1)
        before = torch.cat([torch.zeros_like(states[:1]), states[:-1]])
        # What each gate's sum gets of the gradient of the state after it, for all steps at once.
        of_new = (1 - update) * (1 - new.square())
        of_reset, of_update = of_new * part * reset * (1 - reset), (before - new) * update * (1 - update)
        factors = torch.cat([of_reset, of_update, of_new * reset], dim=-1)  # (T, B, 3H)
        carried, after = torch.zeros_like(states[0]), []
        steps = zip(*(x.flip(0).unbind(0) for x in (gradients[0], update, factors)), strict=True)
        for gradient, kept, factor in steps:
            h = gradient + carried
            after.append(h)
            carried = torch.addmm(h * kept, h.repeat(1, 3) * factor, weight)
        h = torch.stack(after).flip(0)
        of_sums = h.repeat(1, 1, 3) * factors  # (T, B, 3H)
        of_inputs = torch.cat([of_sums[..., : 2 * h.shape[-1]], h * of_new], dim=-1)
        flat = of_sums.flatten(0, 1)
        return of_inputs, flat.mT @ before.flatten(0, 1), flat.sum(0)


def in_full_precision(device: str) -> AbstractContextManager[Any]:
    """No mixed precision, on a device that has it."""
    available = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if available else nullcontext()


class GRU(Recurrence):
    """All states of a gated recurrent unit: (B, T, D) -> (B, T, H), as `nn.GRU(D, H, batch_first=True)`."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden, gates=3)

    def forward(self, x: Tensor) -> Tensor:
        inputs = F.linear(x, self.weight_ih_l0, self.bias_ih_l0).transpose(0, 1)  # (T, B, 3H)
        with in_full_precision(x.device.type):  # errors of half precision would add up over the steps
            states = GatedSteps.apply(inputs.float(), self.weight_hh_l0, self.bias_hh_l0)[0]  # type: ignore[no-untyped-call]
        return states.transpose(0, 1)  # type: ignore[no-any-return]


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
