"""K methods of equal shape that train together: one in plain PyTorch, or a stack of them as one batched model.

A stack keeps the weights of its replicas in one matrix, a row each, and every replica's own modules are views of its
row: they can be read, saved and restored as if they were alone. The optimiser steps row by row, so that a replica
without a gradient, or one that has failed, stays where it is.
Shapes: K replicas, B batch, P trained weights of a replica.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils._pytree import tree_map

from bench.grid.settings import TrainSettings
from datasets.batch import Batch
from methods.base import Method, Stage


class Replicas(Protocol):
    """What the trainer asks of the methods it trains together; every answer has a leading axis of K replicas."""

    methods: Sequence[Method]
    optimiser: torch.optim.Optimizer

    def begin(self, stage: Stage) -> None:
        """Take the parameters of a stage into a new optimiser; the methods have entered it."""

    def step(self, batch: Batch, moves: NDArray[Any]) -> dict[str, Tensor]:
        """One optimiser step on batches (K, B, ...); only replicas with True in `moves` (K,) are moved.

        Returns:
            The loss terms, each (K,).
        """

    def each(self, call: str, batch: Batch) -> Any:
        """`loss`, `predict`, `embed` or `diagnose`, each replica on its own batch (K, B, ...); no gradient."""

    def shared(self, call: str, batch: Batch) -> Any:
        """The same, all replicas on one batch (B, ...)."""

    def set_rates(self, rates: Sequence[float]) -> None:
        """The learning rate of each replica from now on, K of them."""

    def gradient_norms(self) -> dict[str, Tensor]:
        """Norm of the last step's gradient by child module, each (K,); 0 where there was none."""

    def refresh(self) -> None:
        """Take over what was changed in the methods from outside: buffers, restored weights."""

    def keep(self, kept: Sequence[int]) -> None:
        """Go on with these replicas alone, with their weights and what the optimiser remembers of them."""


def make_replicas(methods: Sequence[Method], settings: TrainSettings) -> Replicas:
    """The one method as it is, or several as a stack; from here on this process computes as `settings.precision` says.

    torch would let convolutions use TF32 unasked.
    """
    torch.set_float32_matmul_precision("high" if settings.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
    return Alone(methods[0], settings) if len(methods) == 1 else Stack(methods, settings)


def train_mode(methods: Sequence[Method], on: bool) -> None:
    for method in methods:
        method.train(on)


def mixed_precision(method: Method, settings: TrainSettings) -> AbstractContextManager[Any]:
    """Where a method computes its answers: in bfloat16 what torch trusts it with, if the settings say so."""
    if settings.precision != "bf16":
        return nullcontext()
    device = next((p.device.type for p in method.parameters()), "cpu")
    return torch.autocast(device, torch.bfloat16)


def _full(x: Tensor) -> Tensor:
    """An answer in float32 again."""
    return x.float() if x.dtype is torch.bfloat16 else x


class Alone:
    """One method, K = 1."""

    optimiser: torch.optim.Optimizer

    def __init__(self, method: Method, settings: TrainSettings) -> None:
        self.methods: Sequence[Method] = [method]
        self.settings = settings
        self.mixed = mixed_precision(method, settings)
        self.learnable = {name for name, p in method.named_parameters() if p.requires_grad}

    def begin(self, stage: Stage) -> None:
        method, settings = self.methods[0], self.settings
        for name, parameter in method.named_parameters():
            parameter.requires_grad_(name in self.learnable and stage.covers(name))
            parameter.grad = None  # of an earlier stage
        trained = [p for p in method.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(trained, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)

    def step(self, batch: Batch, moves: NDArray[Any]) -> dict[str, Tensor]:
        method = self.methods[0]
        with self.mixed:
            terms = tree_map(_full, method.loss(tree_map(_first, batch)))
        self.optimiser.zero_grad()
        if moves[0]:
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            if self.settings.clip_norm is not None:
                nn.utils.clip_grad_norm_(method.parameters(), self.settings.clip_norm)
            self.optimiser.step()
        return {name: term.detach()[None] for name, term in terms.items()}

    @torch.no_grad()
    def each(self, call: str, batch: Batch) -> Any:
        return self.shared(call, tree_map(_first, batch))

    @torch.no_grad()
    def shared(self, call: str, batch: Batch) -> Any:
        with self.mixed:
            return tree_map(_lead, getattr(self.methods[0], call)(batch))

    def set_rates(self, rates: Sequence[float]) -> None:
        self.optimiser.param_groups[0]["lr"] = rates[0]

    def gradient_norms(self) -> dict[str, Tensor]:
        return {name: _norm(module)[None] for name, module in self.methods[0].named_children()}

    def refresh(self) -> None:
        """Nothing is kept beside the method."""

    def keep(self, kept: Sequence[int]) -> None:
        """There is but one."""


def _first(x: Tensor) -> Tensor:
    return x[0]


def _lead(x: Tensor) -> Tensor:
    return _full(x)[None]


def _norm(module: nn.Module) -> Tensor:
    """Norm of all gradients of a module, scalar; 0 where nothing has a gradient."""
    norms = [p.grad.norm() for p in module.parameters() if p.grad is not None]
    return torch.stack(norms).norm() if norms else torch.zeros(())


class Stack:
    """K stackable methods of one class and equal shapes as one batched model."""

    optimiser: torch.optim.Optimizer

    def __init__(self, methods: Sequence[Method], settings: TrainSettings) -> None:
        self.methods = methods
        self.settings = settings
        self.mixed = mixed_precision(methods[0], settings)
        self.alone = methods[0]
        """Through which all are called; its own weights are replaced in every call."""
        self.learnable = [name for name, p in self.alone.named_parameters() if p.requires_grad]
        self.shapes = {name: p.shape for name, p in self.alone.named_parameters()}
        self.trained: list[str] = []
        self._gather([])

    # ---- the weights --------------------------------------------------------------------------------------

    def begin(self, stage: Stage) -> None:
        self._gather([name for name in self.learnable if stage.covers(name)])
        self._optimise()

    def _optimise(self) -> None:
        settings = self.settings
        rows = [nn.Parameter(row) for row in self.weights.detach()]  # views: one optimiser tensor a replica
        self.rows = rows
        # One group moves all replicas at once; rates of their own take one each.
        groups: Any = rows if settings.schedule == "none" else [{"params": [row]} for row in rows]
        self.optimiser = torch.optim.Adam(groups, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)

    def set_rates(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"] = rate

    def _gather(self, trained: list[str]) -> None:
        """Move the trained weights into the rows of one matrix, (K, P), and stack the others as they are."""
        self.trained = trained
        own = [dict(method.named_parameters()) for method in self.methods]
        rows = [torch.cat([p[name].detach().flatten() for name in trained]) if trained else torch.zeros(0) for p in own]
        self.weights = torch.stack(rows).requires_grad_()
        for row, parameters in zip(self.weights.detach(), own, strict=True):
            for name, view in self._named(row[None]).items():
                parameters[name].data = view[0]
        self.refresh()

    def _named(self, rows: Tensor) -> dict[str, Tensor]:
        """Weights (K, P) by name, each (K, ...)."""
        sizes = [self.shapes[name].numel() for name in self.trained]
        parts = torch.split(rows, sizes, dim=1) if sizes else ()
        return {
            name: part.reshape(len(rows), *self.shapes[name]) for name, part in zip(self.trained, parts, strict=True)
        }

    @torch.no_grad()
    def refresh(self) -> None:
        parameters, self.buffers = stack_module_state(list(self.methods))
        self.fixed = {name: p.detach() for name, p in parameters.items() if name not in set(self.trained)}

    def _state(self, *, gradient: bool) -> dict[str, Tensor]:
        return self.fixed | self._named(self.weights if gradient else self.weights.detach())

    def keep(self, kept: Sequence[int]) -> None:
        old_rows, old = self.rows, self.optimiser
        self.methods = [self.methods[k] for k in kept]
        self.alone = self.methods[0]  # one that was let go is told neither stage nor mode
        self._gather(self.trained)
        self._optimise()
        if self.settings.schedule != "none":
            self.set_rates([old.param_groups[k]["lr"] for k in kept])
        for row, k in zip(self.rows, kept, strict=True):
            if old_rows[k] in old.state:
                self.optimiser.state[row] = old.state[old_rows[k]]

    # ---- calls --------------------------------------------------------------------------------------------

    def _call(self, call: str, parameters: Mapping[str, Tensor], batch: Batch, *, shared: bool) -> Any:
        def one(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batch: Batch) -> Any:
            return functional_call(self.alone, (dict(parameters), dict(buffers)), (call, batch))

        over = vmap(one, in_dims=(0, 0, None if shared else 0), randomness="error")
        with self.mixed:
            return tree_map(_full, over(parameters, self.buffers, batch))

    def step(self, batch: Batch, moves: NDArray[Any]) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = self._call("loss", self._state(gradient=True), batch, shared=False)
        if moves.any():
            # Replicas share no weight, so the gradient of the sum is each one's own.
            (gradient,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), self.weights)
            self._move(gradient, moves)
        else:
            self.optimiser.zero_grad()
        return {name: term.detach() for name, term in terms.items()}

    @torch.no_grad()
    def _move(self, gradient: Tensor, moves: NDArray[Any]) -> None:
        if self.settings.clip_norm is not None:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (self.settings.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        for row, own, moved in zip(self.rows, gradient, moves, strict=True):
            row.grad = own if moved else None
        self.optimiser.step()

    @torch.no_grad()
    def each(self, call: str, batch: Batch) -> Any:
        return self._call(call, self._state(gradient=False), batch, shared=False)

    @torch.no_grad()
    def shared(self, call: str, batch: Batch) -> Any:
        return self._call(call, self._state(gradient=False), batch, shared=True)

    def gradient_norms(self) -> dict[str, Tensor]:
        own = [torch.zeros_like(row) if row.grad is None else row.grad for row in self.rows]
        named = self._named(torch.stack(own))
        told = {}
        for child, _ in self.alone.named_children():
            norms = [g.flatten(1).norm(dim=1) for name, g in named.items() if name.startswith(f"{child}.")]
            told[child] = torch.stack(norms).norm(dim=0) if norms else torch.zeros(len(self.methods))
        return told
