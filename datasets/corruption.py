"""Corrupted inputs: noise, masked words or frames, shuffled order, on top of which modalities may be missing as well.

A corruption names what is done to which modality and how much: `gaussian(image)=0.18&mask(text)=0.1`. It is drawn from
the data set alone, so every method and seed is tested on the same corrupted inputs, and a higher level corrupts what
a lower one does and more. Shapes: N samples, D features, T time steps.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from datasets.seeds import generator

if TYPE_CHECKING:  # it needs torch, which reading a corruption's name should not wait for
    from datasets.base import Data, Part

Kind = Literal["gaussian", "mask", "swap"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Floats = NDArray[np.float32]

_STEP = re.compile(r"(?P<kind>\w+)\((?P<modality>.+)\)=(?P<level>[0-9.e+-]+)")


@dataclass(frozen=True, order=True)
class Step:
    """One thing done to one modality."""

    kind: Kind
    modality: str
    level: float
    """gaussian: standard deviation; mask and swap: share."""

    def __str__(self) -> str:
        return f"{self.kind}({self.modality})={self.level:g}"


@dataclass(frozen=True)
class Corruption:
    """What is done to the inputs of a test; without steps they are clean."""

    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return "&".join(map(str, self.steps))

    def of(self, modalities: Iterable[str]) -> "Corruption":
        """The same with `all` written out as these modalities."""
        names = tuple(modalities)
        spread = ((step, names if step.modality == "all" else (step.modality,)) for step in self.steps)
        return Corruption(tuple(Step(step.kind, name, step.level) for step, these in spread for name in these))

    @property
    def modalities(self) -> frozenset[str]:
        """The modalities it changes."""
        return frozenset(step.modality for step in self.steps)

    @classmethod
    def parse(cls, text: str) -> "Corruption":
        """The corruption that `str` wrote.

        Raises:
            ValueError: it is not of that form.
        """
        steps = []
        for part in filter(None, text.split("&")):
            found = _STEP.fullmatch(part)
            if found is None or found["kind"] not in KINDS:
                raise ValueError(f"'{part}' is no corruption such as 'gaussian(image)=0.18'")
            steps.append(Step(found["kind"], found["modality"], float(found["level"])))
        return cls(tuple(steps))


def level_problem(kind: Kind, level: float) -> str | None:
    """What is wrong with a level, or None."""
    if kind == "gaussian":
        return None if 0 < level < float("inf") else f"a standard deviation is above 0, got {level:g}"
    return None if 0 < level <= 1 else f"a share is above 0 and at most 1, got {level:g}"


def corrupted(data: "Data", part: "Part", corruption: Corruption) -> "Part":
    """`part` of `data` with its inputs corrupted, step after step; the target stays.

    - gaussian: normal noise of `level` standard deviations of each feature over the training split is added (RAML,
      IV-C, adds it to pixels in [0, 1]). Pixels, which come as (3, H, W) in [-1, 1], get `level` of their own
      range from 0 to 1 and are clipped to it, as there.
    - mask: each time step, or each feature of a vector, is zero with probability `level` (RAML masks words).
    - swap: a share `level` of the time steps, or of the features of a vector, trade places among themselves.

    Rows of a sequence that only pad (all zeros) stay as they are.
    """
    inputs = dict(part.inputs)
    for step in corruption.steps:
        clean = inputs[step.modality]
        # The level is left out of the seed: the same noise, more of it.
        draw = generator("corruption", data.spec.fingerprint, step.kind, step.modality)
        if step.kind == "gaussian":
            inputs[step.modality] = _noisy(clean, data.parts["train"].inputs[step.modality], step.level, draw)
        elif step.kind == "mask":
            inputs[step.modality] = _masked(clean, step.level, draw)
        else:
            inputs[step.modality] = _swapped(clean, step.level, draw)
    return replace(part, inputs=inputs)


def _is_padding(x: Floats) -> NDArray[np.bool_]:
    """Which time steps of sequences (N, T, D) are all zeros, (N, T)."""
    return np.asarray(~x.any(axis=2))


def _is_image(x: Floats) -> bool:
    return x.ndim == 4


def feature_spread(train: Floats) -> Floats:
    """Standard deviation of every feature over the training split, (D,); of sequences over the steps that are there."""
    rows = train if train.ndim == 2 else train[~_is_padding(train)]
    return rows.std(axis=0) if len(rows) else np.zeros(train.shape[-1], np.float32)


def _noisy(x: Floats, train: Floats, level: float, draw: np.random.Generator) -> Floats:
    noise = draw.standard_normal(x.shape, dtype=np.float32)
    if _is_image(x):
        return np.clip(x + np.float32(2 * level) * noise, -1, 1)
    noisy = x + np.float32(level) * feature_spread(train) * noise
    return noisy if x.ndim == 2 else np.where(_is_padding(x)[..., None], x, noisy)


def _units(x: Floats) -> tuple[int, int]:
    """Samples, and the things in each that are masked or swapped: features (D), time steps (T), pixels (H W)."""
    return len(x), x.shape[1] if x.ndim < 4 else x.shape[2] * x.shape[3]


def _masked(x: Floats, level: float, draw: np.random.Generator) -> Floats:
    kept = draw.random(_units(x), dtype=np.float32) >= level
    if _is_image(x):
        kept = kept.reshape(len(x), 1, *x.shape[2:])
    return x * (kept if x.ndim != 3 else kept[..., None])


def _swapped(x: Floats, level: float, draw: np.random.Generator) -> Floats:
    """The chosen places of a sample, in their order, get what stood in them in another order."""
    n, count = _units(x)
    rank, key = draw.random((n, count)), draw.random((n, count))
    flat = x.reshape(n, x.shape[1], -1).swapaxes(1, 2) if _is_image(x) else x
    here = ~_is_padding(flat) if flat.ndim == 3 and not _is_image(x) else np.ones((n, count), bool)
    order = np.tile(np.arange(count), (n, 1))
    for row in range(n):
        places = np.flatnonzero(here[row])
        chosen = np.sort(places[np.argsort(rank[row, places])[: round(level * len(places))]])
        order[row, chosen] = chosen[np.argsort(key[row, chosen])]
    moved = np.take_along_axis(flat, order if flat.ndim == 2 else order[..., None], axis=1)
    return moved.swapaxes(1, 2).reshape(x.shape) if _is_image(x) else moved


# ---- conditions: what one cell is tested under ----------------------------------------------------------------------


def condition(subset: str, corruption: Corruption) -> str:
    """The name of testing on a modality subset under a corruption: the subset alone where inputs are clean."""
    return f"{subset}@{corruption}" if corruption.steps else subset


def split_condition(name: str) -> tuple[str, Corruption]:
    """Modality subset and corruption of a condition's name."""
    subset, _, corruption = name.partition("@")
    return subset, Corruption.parse(corruption)


def conditions(subsets: Sequence[str], corruptions: Sequence[Corruption]) -> tuple[str, ...]:
    """Every condition: each subset clean, then each under every corruption of modalities that are all in it."""
    found = list(subsets)
    for corruption in corruptions:
        shown = [subset for subset in subsets if corruption.modalities <= set(subset.split("+"))]
        found += [condition(subset, corruption) for subset in shown]
    return tuple(found)
