"""What a method costs in parameters, multiply-adds, time and memory, for inference and a training step (Robult, B.4).

Conventions. A MAC is one multiply-add; PyTorch's counter, which is used here, counts 2 FLOPs for each and looks at
matrix products, convolutions and attention alone (recurrent layers are matrix products), so FLOPs = 2 MACs
throughout. Other tools differ: fvcore calls MACs flops and counts nothing for GRU and LSTM, DeepSpeed and calflops
add element-wise work to FLOPs alone. Inference is of one sample, a training step of a whole batch.
"""

import math
import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from datasets.batch import Batch, make_batch
from datasets.errors import UserError
from methods.base import Method

LATENCY_RUNS = 30
WARM_UP = 3


@dataclass(frozen=True)
class Inference:
    """One sample with one modality subset."""

    subset: str
    used_parameters: int
    """In tensors that have an influence on the output: reconstructors and absent branches are not among them."""
    flops: int
    """Executed: methods compute all branches and mask the absent ones, so this hardly depends on the subset."""
    needed_flops: int
    """Less those of modules none of whose parameters has an influence on the output: what a deployment could leave
    out. An upper bound: a module that branches share counts for all of them."""
    latency_ms: float
    """Median."""
    peak_bytes: int
    """Most memory at a time in tensors made on the way; parameters and inputs come on top."""


@dataclass(frozen=True)
class Step:
    """Loss and gradients of one batch, without the optimiser."""

    batch_size: int
    flops: int
    latency_ms: float
    peak_bytes: int
    """Gradients included."""


@dataclass(frozen=True)
class Cost:
    """What one method costs on one data set."""

    total_parameters: int
    trainable_parameters: int
    """Of `total_parameters`, those that some stage trains and some loss moves."""
    inference: tuple[Inference, ...]
    step: Step | None
    """None for a method without gradient steps."""
    device: str
    threads: int
    """CPU threads of latencies."""

    def rows(self, **names: object) -> list[dict[str, object]]:
        """One flat row a modality subset, the columns `analysis.complexity` reads; `names` (method ...) first."""
        step = self.step or Step(0, 0, float("nan"), 0)
        return [
            {
                **names,
                "modalities": one.subset,
                "total_parameters": self.total_parameters,
                "trainable_parameters": self.trainable_parameters,
                "used_parameters": one.used_parameters,
                "inference_flops": one.flops,
                "inference_macs": one.flops // 2,
                "inference_needed_flops": one.needed_flops,
                "inference_latency_ms": one.latency_ms,
                "inference_peak_bytes": one.peak_bytes,
                "batch_size": step.batch_size,
                "step_flops": step.flops,
                "step_macs": step.flops // 2,
                "step_latency_ms": step.latency_ms,
                "step_peak_bytes": step.peak_bytes,
                "device": self.device,
                "threads": self.threads,
            }
            for one in self.inference
        ]


def count_cost(method: Method, batch: Batch, subsets: Mapping[str, Tensor], *, runs: int = LATENCY_RUNS) -> Cost:
    """Count and measure a method, leaving its weights, mode and gradients as they were.

    Args:
        method: on the device it is to be measured on.
        batch: a training batch on the same device, with all modalities; inference takes its first sample.
        subsets: modality subset -> which modalities it holds, (M,) bool.
        runs: forward passes a latency is the median of; training steps are a third as many. 0 counts and does not
            measure: latencies are NaN, peaks 0.

    Raises:
        UserError: the batch is empty, or a modality subset does not fit the method.
    """
    if len(batch.target) == 0:
        raise UserError("a cost needs a batch of at least one sample.")
    for subset, members in subsets.items():
        if members.shape != (len(method.modalities),):
            raise UserError(
                f"modality subset '{subset}': needs one flag for each of {', '.join(method.modalities)}, "
                f"got shape {tuple(members.shape)}."
            )
    with _untouched(method):
        inference = tuple(_inference(method, only(batch, members), name, runs) for name, members in subsets.items())
        step = _step(method, batch, -(-runs // 3)) if method.iterative else None
    return Cost(
        total_parameters=sum(p.numel() for p in method.parameters()),
        trainable_parameters=sum(p.numel() for name, p in method.named_parameters() if _is_trained(method, name)),
        inference=inference,
        step=step,
        device=batch.target.device.type,
        threads=torch.get_num_threads(),
    )


def only(batch: Batch, members: Tensor) -> Batch:
    """The first sample of a batch with the modalities `members` (M,) alone; its label is hidden."""
    available = batch.available[:1] & members.to(batch.available.device)
    return make_batch(
        {name: x[:1] for name, x in batch.inputs.items()}, batch.target[:1], available=available,
        labelled=torch.zeros_like(batch.labelled[:1]), noise=batch.noise[:1],
    )  # fmt: skip


def _is_trained(method: Method, name: str) -> bool:
    fixed = any(name == prefix or name.startswith(f"{prefix}.") for prefix in method.untrained())
    return not fixed and method.iterative and any(stage.covers(name) for stage in method.stages())


# ---- inference and training step --------------------------------------------------------------------------


def _inference(method: Method, batch: Batch, subset: str, runs: int) -> Inference:
    method.eval()

    def predict() -> Tensor:
        with torch.no_grad():
            return method("predict", batch)  # type: ignore[no-any-return]  # by the door: the counter names modules

    flops, by_module = count_flops(predict, method)
    used = influential(method, batch)
    return Inference(
        subset=subset,
        used_parameters=sum(p.numel() for name, p in method.named_parameters() if name in used),
        flops=flops,
        needed_flops=flops - sum(by_module.get(name, 0) for name in idle_modules(method, used)),
        latency_ms=latency_ms(predict, batch.target.device, runs) if runs else math.nan,
        peak_bytes=peak_bytes(predict, batch.target.device) if runs else 0,
    )


def _step(method: Method, batch: Batch, runs: int) -> Step:
    method.train()
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(_is_trained(method, name) and _stage_covers(method, name))

    def step() -> None:
        method.zero_grad(set_to_none=True)
        total = torch.stack(list(method.loss(batch).values())).sum()
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]

    flops, _ = count_flops(step, method)
    if runs == 0:
        return Step(len(batch.target), flops, math.nan, 0)
    device = batch.target.device
    peak = peak_bytes(step, device)
    return Step(len(batch.target), flops, latency_ms(step, device, runs), peak)


def _stage_covers(method: Method, name: str) -> bool:
    return next(stage for stage in method.stages() if stage.name == method.stage).covers(name)


def influential(method: Method, batch: Batch) -> set[str]:
    """Names of the parameters on which the prediction of this batch depends: a gradient that is not 0.

    Where the prediction is cut off from its parameters (closed-form heads), only those with a way to it count.
    """
    named = dict(method.named_parameters())
    for parameter in named.values():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        output = method.predict(batch)
    if not output.requires_grad or not named:
        return set()
    # Weights that differ: a plain sum would vanish where outputs are shares of 1.
    weights = torch.linspace(1, 2, output.numel(), device=output.device).reshape(output.shape)
    found = torch.autograd.grad((output * weights).sum(), list(named.values()), allow_unused=True)
    return {name for name, g in zip(named, found, strict=True) if g is not None and bool(g.ne(0).any())}


def idle_modules(method: nn.Module, used: set[str]) -> list[str]:
    """The outermost modules that have parameters of which none is used."""
    idle: list[str] = []
    for name, module in method.named_modules():
        own = [f"{name}.{key}" for key, _ in module.named_parameters()] if name else []
        inside = any(name.startswith(f"{outer}.") for outer in idle)
        if own and not inside and not used.intersection(own):
            idle.append(name)
    return idle


# ---- counting and measuring -------------------------------------------------------------------------------


def count_flops(call: Callable[[], object], root: nn.Module | None = None) -> tuple[int, dict[str, int]]:
    """FLOPs of a call by PyTorch's counter, and of each module below `root` by its name.

    Fused kernels that the counter does not know (recurrent layers of oneDNN and cuDNN, transformer layers in
    evaluation, attention on CPUs) are kept from being used: it would count 0 for them.
    """
    with _plain_kernels(), FlopCounterMode(display=False) as counter:
        call()
    prefix = f"{type(root).__name__}." if root is not None else ""
    counts = counter.get_flop_counts()
    by_module = {name.removeprefix(prefix): sum(ops.values()) for name, ops in counts.items()}
    return counter.get_total_flops(), by_module


@contextmanager
def _plain_kernels() -> Iterator[None]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = torch.backends
    before = backends.mha.get_fastpath_enabled(), backends.mkldnn.enabled, backends.cudnn.enabled
    try:
        backends.mha.set_fastpath_enabled(False)
        backends.mkldnn.enabled = backends.cudnn.enabled = False  # type: ignore[assignment]
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        backends.mha.set_fastpath_enabled(before[0])
        backends.mkldnn.enabled, backends.cudnn.enabled = before[1:]


def latency_ms(call: Callable[[], object], device: torch.device, runs: int) -> float:
    """Median wall time of a call in ms, after a few that are not timed."""
    times = []
    for run in range(WARM_UP + runs):
        _wait_for(device)
        start = time.perf_counter()
        call()
        _wait_for(device)
        if run >= WARM_UP:
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Most memory that tensors made by a call hold at a time; on CUDA devices what the allocator gave out.

    On CPUs the workspace of single kernels is not seen.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        _wait_for(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with _LiveStorage() as live:
        call()
    peak: int = live.peak
    return peak


class _LiveStorage(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows which storages made under it are still held."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for x in tree_iter((args, kwargs)):
            if isinstance(x, Tensor):  # not made by the call: a weight, an input
                self._meet(x, size=0)
        out = func(*args, **(kwargs or {}))
        for x in tree_iter(out):
            if isinstance(x, Tensor):
                self._meet(x, size=x.untyped_storage().nbytes())
        return out

    def _meet(self, x: Tensor, size: int) -> None:
        storage = x.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


@contextmanager
def _untouched(method: Method) -> Iterator[None]:
    """Training mode, gradients and what is trainable are afterwards as before."""
    training = method.training
    before = [(p, p.requires_grad, p.grad) for p in method.parameters()]
    try:
        yield
    finally:
        method.train(training)
        for parameter, requires_grad, grad in before:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
