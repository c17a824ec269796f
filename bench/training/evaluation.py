"""What a trained method answers under every condition, all of them in one pass. Torch and NumPy only.

Shapes: K replicas, C conditions, N samples, B batch, M modalities, W task width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.base import Data, DataSpec, Part, Split
from datasets.batch import Batch, make_batch
from datasets.corruption import Corruption, corrupted
from methods.encoders import Conditioned

ROWS = 8192
"""Rows of one pass over all replicas and conditions."""
LEAST_ROWS = 1024
"""Rows that are worth a pass, however many replicas there are."""
CORRUPTED_BYTES = 2**28
"""Of corrupted copies of a split that are held at a time."""


@dataclass(frozen=True)
class Resident:
    """One split on the device: gathered by index, never copied again."""

    inputs: Mapping[str, Tensor]
    target: Tensor
    truth: NDArray[Any]
    """The target as NumPy, for the metrics."""

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, index: Tensor, **more: Any) -> Batch:
        """The samples `index` (B,) as a batch; `more` as `make_batch` takes it."""
        return make_batch({name: x[index] for name, x in self.inputs.items()}, self.target[index], **more)


def resident(part: Part, device: str) -> Resident:
    """Move a split to the device."""
    inputs = {name: on_device(x, device) for name, x in part.inputs.items()}
    return Resident(inputs, on_device(part.target, device), part.target)


def on_device(x: NDArray[Any], device: str) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(x), device=device)


def corrupted_resident(data: Data, split: Split, corruption: Corruption, clean: Resident, device: str) -> Resident:
    """The corrupted split on the device; what is not corrupted are the very tensors of the clean one."""
    part = corrupted(data, data.parts[split], corruption)
    changed = {name: on_device(part.inputs[name], device) for name in clean.inputs if name in corruption.modalities}
    return Resident({**clean.inputs, **changed}, clean.target, clean.truth)


def corruptions_at_once(part: Part, corruptions: Sequence[Corruption]) -> Iterator[list[Corruption]]:
    """The corruptions in groups whose corrupted copies do not take too much memory together."""
    size = [sum(part.inputs[name].nbytes for name in corruption.modalities) for corruption in corruptions]
    cuts, held = [0], 0
    for i, more in enumerate(size):
        held += more
        if held > CORRUPTED_BYTES and i > cuts[-1]:
            cuts.append(i)
            held = more
    return (list(corruptions[start:end]) for start, end in pairwise([*cuts, len(corruptions)]))


class Asked(NamedTuple):
    """One condition: a split, corrupted or not, of which a modality subset is shown."""

    part: Resident
    subset: str


def subset_masks(spec: DataSpec, subsets: Sequence[str], device: str) -> Tensor:
    """(S, M) bool: which modalities each of S subsets holds."""
    members = [set(subset.split("+")) for subset in subsets]
    return torch.tensor([[name in member for name in spec.modalities] for member in members], device=device)


def conditioned_batch(asked: Sequence[Asked], masks: Tensor, rows: slice) -> Batch:
    """Some samples under every condition as one unlabelled batch of C B rows, condition after condition.

    Args:
        masks: what each condition shows, (C, M) bool.
        rows: which B of the samples.
    """
    target = asked[0].part.target[rows].repeat(len(asked), *[1] * (asked[0].part.target.dim() - 1))
    available = masks.repeat_interleave(len(target) // len(asked), dim=0)
    shows = masks.tolist()
    inputs: dict[str, Tensor] = {}
    for m, name in enumerate(asked[0].part.inputs):
        found = [one.part.inputs[name] for one in asked]
        number = {id(x): v for v, x in enumerate({id(x): x for x in found}.values())}
        which = [number[id(x)] if shown[m] else None for x, shown in zip(found, shows, strict=True)]
        inputs[name] = Conditioned.of([x[rows] for x in {id(x): x for x in found}.values()], which, available)
    nothing = torch.zeros(len(target), dtype=torch.bool, device=target.device)
    return make_batch(inputs, target, labelled=nothing)._replace(available=available)


def batches(part: Resident, available: Tensor) -> Iterator[Batch]:
    """A split in unlabelled batches under one modality subset, (M,) bool."""
    for rows in torch.split(torch.arange(len(part), device=part.target.device), LEAST_ROWS):
        nothing = torch.zeros_like(rows, dtype=torch.bool)
        yield part.batch(rows, available=available.expand(len(rows), -1), labelled=nothing)


Predict = Callable[[Batch], Tensor]
"""Outputs of K replicas on one batch, (K, B, W)."""


def outputs_together(predict: Predict, replicas: int, asked: Sequence[Asked], masks: Tensor) -> NDArray[np.float32]:
    """Outputs under each condition, (K, C, N, W), in passes over some of the samples under all conditions.

    Args:
        replicas: K.
        masks: what each condition shows, (C, M) bool.
    """
    n, at_once = len(asked[0].part), max(max(ROWS // replicas, LEAST_ROWS) // len(asked), 1)
    slices = [slice(start, min(start + at_once, n)) for start in range(0, n, at_once)]
    chunks = [predict(conditioned_batch(asked, masks, rows)) for rows in slices]
    apart = [out.reshape(replicas, len(asked), -1, out.shape[-1]) for out in chunks]
    return torch.cat(apart, dim=2).cpu().numpy()


def outputs_one_by_one(predict: Predict, asked: Sequence[Asked], masks: Tensor) -> NDArray[np.float32]:
    """The same, condition after condition: what `outputs_together` must equal."""
    told = [
        torch.cat([predict(batch) for batch in batches(one.part, mask)], dim=1)
        for one, mask in zip(asked, masks, strict=True)
    ]
    return torch.stack(told, dim=1).cpu().numpy()
