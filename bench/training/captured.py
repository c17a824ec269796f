"""The training step recorded once and replayed where that is measured to pay (CUDA graphs), else made as it is.

A step of a small model is hundreds of short kernels, which a host launches more slowly than a GPU runs them; a graph
launches all of them at once. Its kernels read and write the memory they were recorded with, with the numbers the host
gave them then. So a batch is copied to where the recorded one was, and whatever else is elsewhere or another number
from now on (an optimiser, restored weights, a learning rate) makes the recording void: the next steps make another.
Shapes: K replicas, B batch, T loss terms.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from bench.training.replicas import Replicas
from datasets.batch import Batch
from methods.base import Method, Stage

WARM_UP = 3
"""Steps beside the recording's place before one is recorded, as torch's documentation of CUDA graphs asks: libraries
set themselves up in them and the optimiser makes its state. The last one is a rehearsal."""
TIMED = 5
"""Steps that are timed as they are, and as replays; the kind with the smaller median goes on."""


class Recorder(Protocol):
    """What records work on a device."""

    def aside(self, *, strict: bool = False) -> AbstractContextManager[None]:
        """Work in here runs where recording takes place; where strict, what makes the host wait raises."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Note what `work` does on the device, which does none of it; it does so at every call of what is returned.

        Raises:
            RuntimeError: some of it cannot be recorded.
        """

    def now(self) -> float:
        """Seconds on a clock when the device has done all it was given."""


def recorder_of(device: str) -> Recorder | None:
    """What records on a device; None on one that has no such thing."""
    return CudaGraphs(device) if device.startswith("cuda") else None


class CudaGraphs:
    """CUDA graphs, recorded on a stream of their own, on which the steps before have run as well."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    @contextmanager
    def aside(self, *, strict: bool = False) -> Iterator[None]:
        current, before = torch.cuda.current_stream(self.device), torch.cuda.get_sync_debug_mode()
        self.stream.wait_stream(current)
        try:
            # Where a recording cannot be ended, `torch.cuda.graph` leaves its stream the current one: not so this.
            with torch.cuda.stream(self.stream):
                _watch_waits("error" if strict else before)
                yield
        finally:
            _watch_waits(before)
            current.wait_stream(self.stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with self.aside(), torch.cuda.graph(graph, stream=self.stream):
            work()
        return graph.replay

    def now(self) -> float:
        torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _watch_waits(mode: str | int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it does not notice all of them; recording does
        torch.cuda.set_sync_debug_mode(mode)


@dataclass
class _Recording:
    """One step in memory of its own."""

    buffers: list[Tensor]
    """The batch it reads, leaf by leaf."""
    layout: TreeSpec
    names: tuple[str, ...]
    terms: Tensor
    """What the loss terms of these names come to, (T, K)."""
    gradients: list[tuple[nn.Parameter, Tensor | None]]
    """Of each parameter of the optimiser."""
    replay: Callable[[], None]

    def fits(self, batch: Batch) -> bool:
        """Whether a batch has the shapes of the recorded one."""
        leaves, layout = tree_flatten(batch)
        same = (x.shape == y.shape and x.dtype == y.dtype for x, y in zip(leaves, self.buffers, strict=False))
        return layout == self.layout and all(same)


class Captured:
    """Replicas whose steps are replayed where that is possible and quicker; they give what `plain` gives.

    A step that does not move all replicas, or has a batch of another shape, is made as it is. So are all from then on
    where recording fails, and all of a stage where replays turn out to be slower. Only methods that keep to the rules
    of a stack are recorded: what others do between kernels would be done once.
    """

    optimiser: torch.optim.Optimizer

    def __init__(self, plain: Replicas, recorder: Recorder) -> None:
        self.plain, self.recorder = plain, recorder
        self.methods: Sequence[Method] = plain.methods
        self.why_not: str | None = None
        """Why nothing is recorded any more, for a person."""
        if not self.methods[0].stackable:
            self.why_not = f"{self.methods[0].name} is not stackable, so its steps are not captured"
        self.steps = self.replays = 0
        self._forget()

    @property
    def share(self) -> float:
        """Share of the steps so far that were replays."""
        return self.replays / max(self.steps, 1)

    # ---- what makes a recording void ----------------------------------------------------------------------

    def begin(self, stage: Stage) -> None:
        self.plain.begin(stage)
        self._adopt()

    def keep(self, kept: Sequence[int]) -> None:
        self.plain.keep(kept)
        self._adopt()

    def _adopt(self) -> None:
        """Take over the methods and the new optimiser; what is quicker is open again."""
        self.methods, self.optimiser = self.plain.methods, self.plain.optimiser
        for group in self.optimiser.param_groups:
            group["capturable"] = True  # else it refuses; fused Adam computes the same either way
        self._forget()

    def refresh(self) -> None:
        self.plain.refresh()
        self._drop()

    def set_rates(self, rates: Sequence[float]) -> None:
        """As `Replicas.set_rates`; a rate is a number in the recording, so that it is the very same as without one."""
        before = [group["lr"] for group in self.optimiser.param_groups]
        self.plain.set_rates(rates)
        if [group["lr"] for group in self.optimiser.param_groups] != before:
            self._drop()

    def _drop(self) -> None:
        self._recording: _Recording | None = None
        self._warm = 0

    def _forget(self) -> None:
        self._drop()
        self._pays: bool | None = None
        """Whether replays are quicker; None until it has been measured."""
        self._plain_s: list[float] = []
        self._replay_s: list[float] = []
        self._replayed: _Recording | None = None
        """What the last step replayed, if it did."""

    # ---- steps --------------------------------------------------------------------------------------------

    def step(self, batch: Batch, moves: NDArray[Any]) -> dict[str, Tensor]:
        self.steps += 1
        if self.why_not is not None or self._pays is False or not moves.all():
            return self._as_it_is(batch, moves)
        if self._warm < WARM_UP:
            return self._warm_up(batch, moves)
        if self._pays is None and len(self._plain_s) < TIMED:
            return self._timed(self._plain_s, self._as_it_is, batch, moves)
        recording = self._recording or self._record(batch, moves)
        if recording is None or not recording.fits(batch):
            return self._as_it_is(batch, moves)
        if self._pays is None:
            terms = self._timed(self._replay_s, self._replay, batch, moves)
            self._judge()
            return terms
        return self._replay(batch, moves)

    def _as_it_is(self, batch: Batch, moves: NDArray[Any]) -> dict[str, Tensor]:
        self._replayed = None
        return self.plain.step(batch, moves)

    def _warm_up(self, batch: Batch, moves: NDArray[Any]) -> dict[str, Tensor]:
        """A step where recording will take place. In the last, waiting raises, as it would in a recording, which it
        would leave in a state that is harder to recover from; nothing has been moved then, and the step is made anew.
        """
        self._warm += 1
        if self._warm < WARM_UP:
            with self.recorder.aside():
                return self._as_it_is(batch, moves)
        try:
            with self.recorder.aside(strict=True):
                return self._as_it_is(batch, moves)
        except RuntimeError as error:
            self._give_up(error)
            return self._as_it_is(batch, moves)

    def _record(self, batch: Batch, moves: NDArray[Any]) -> _Recording | None:
        """A recording of a step that moves all replicas; None, and never again, where that fails."""
        leaves, layout = tree_flatten(batch)
        buffers = [x.clone() for x in leaves]
        told: list[tuple[tuple[str, ...], Tensor]] = []

        def work() -> None:
            terms = self.plain.step(tree_unflatten(buffers, layout), moves)
            told.append((tuple(terms), torch.stack(list(terms.values()))))

        try:
            replay = self.recorder.record(work)
        except RuntimeError as error:
            self._give_up(error)
            return None
        ((names, terms),) = told
        gradients = [(p, p.grad) for group in self.optimiser.param_groups for p in group["params"]]
        self._recording = _Recording(buffers, layout, names, terms, gradients, replay)
        return self._recording

    def _replay(self, batch: Batch, moves: NDArray[Any]) -> dict[str, Tensor]:
        recording = self._recording
        assert recording is not None
        for buffer, x in zip(recording.buffers, tree_flatten(batch)[0], strict=True):
            buffer.copy_(x)
        recording.replay()
        self.replays += 1
        self._replayed = recording
        return dict(zip(recording.names, recording.terms.clone(), strict=True))  # the next replay overwrites them

    def _give_up(self, error: RuntimeError) -> None:
        cause = error.__context__ or error  # of a failed recording, what made it fail
        text = str(cause).strip().splitlines() or [""]
        self.why_not = f"the steps of {self.methods[0].name} cannot be captured: {type(cause).__name__}: {text[0]}"

    def _timed(
        self,
        times: list[float],
        step: Callable[[Batch, NDArray[Any]], dict[str, Tensor]],
        batch: Batch,
        moves: NDArray[Any],
    ) -> dict[str, Tensor]:
        started = self.recorder.now()
        terms = step(batch, moves)
        times.append(self.recorder.now() - started)
        return terms

    def _judge(self) -> None:
        if len(self._replay_s) == TIMED:
            self._pays = median(self._replay_s) < median(self._plain_s)
            if not self._pays:
                self._drop()

    # ---- what is the plain ones' own ------------------------------------------------------------------------

    def each(self, call: str, batch: Batch) -> Any:
        return self.plain.each(call, batch)

    def shared(self, call: str, batch: Batch) -> Any:
        return self.plain.shared(call, batch)

    def gradient_norms(self) -> dict[str, Tensor]:
        if self._replayed is not None:
            for parameter, gradient in self._replayed.gradients:
                parameter.grad = gradient  # a step that was made as it is may have put its own there since
        return self.plain.gradient_norms()
