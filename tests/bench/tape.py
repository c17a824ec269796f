"""A recorder for the CPU that is as strict as CUDA graphs: operations are noted with their memory and done later."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "equal")


class Strict(TorchDispatchMode):
    """Raises where the host of a GPU would wait."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in WAITS:
            raise RuntimeError(f"{func} makes the host wait\nand more lines")
        return func(*args, **(kwargs or {}))


def place(x: Any) -> Any:
    """A tensor as the memory it has now, whatever becomes of the tensor."""
    return x.detach() if isinstance(x, Tensor) else x


def storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


class Tape(Strict):
    """The operations of some work with the memory they read and write. Host code runs once, while it is recorded; of
    what it did to memory nothing is left: what was there is restored, what is new is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.saved: dict[int, tuple[Any, Any]] = {}
        self.new: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if any(argument.alias_info and argument.alias_info.is_write for argument in func._schema.arguments):
            for x in given:
                memory = x.untyped_storage()
                self.saved.setdefault(storage(x), (memory, memory.clone()))
        places = tree_map(place, (args, kwargs))
        out = super().__torch_dispatch__(func, types, args, kwargs)
        told = tree_map(place, out)
        self.new += [x for x in tree_leaves(told) if isinstance(x, Tensor) and storage(x) not in map(storage, given)]
        self.operations.append((func, *places, told))
        return out

    def rewind(self) -> None:
        for memory, saved in self.saved.values():
            memory.copy_(saved)
        for x in self.new:
            if x.is_floating_point():
                x.fill_(torch.nan)

    @torch.no_grad()
    def play(self) -> None:
        for func, args, kwargs, told in self.operations:
            for old, new in zip(tree_leaves(told), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Taped:
    """A `Recorder` by tape, with a clock on which replays take half as long as steps, or half as long again."""

    def __init__(self, *, quicker: bool = True, strict: bool = True) -> None:
        self.quicker, self.strict = quicker, strict
        self.tried = self.recorded = self.replayed = self.asked = 0
        self.clock_s = 0.0

    @contextmanager
    def aside(self, *, strict: bool = False) -> Iterator[None]:
        if strict and self.strict:
            with Strict():
                yield
        else:
            yield

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.tried += 1
        tape = Tape()
        try:
            with tape:
                work()
        except RuntimeError as error:
            raise RuntimeError("a recording could not be ended") from error  # as CUDA says it
        finally:
            tape.rewind()
        self.recorded += 1

        def replay() -> None:
            self.clock_s += -0.5 if self.quicker else 0.5
            self.replayed += 1
            tape.play()

        return replay

    def now(self) -> float:
        self.asked += 1
        self.clock_s += 1.0
        return self.clock_s
