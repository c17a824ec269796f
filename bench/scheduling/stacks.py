"""Which trainings may train as one, and how many of them at once are worth it."""

import json
from collections.abc import Hashable

import torch

from bench.grid.plan import Training
from datasets.base import DataSpec
from methods.base import Method, MethodConfig
from methods.registry import METHODS

CPU_STACK = 1
"""On one CPU thread a stack of 8 took 0.73 (RAML), 0.83 (Robult), 1.0 (GMC, Unimodal) times the step of one by one on
two vectors of 32 features and batches of 64, and of 4 on MulT 1.2 times: too little for what it costs, results that
are equal to rounding only and more work lost with a worker. `executor: {stack: 8}` asks for it all the same."""
GPU_STACK = 16
"""Where the kernels of one small model leave a GPU idle; not measured yet."""


def stack_key(training: Training) -> Hashable:
    """Equal for trainings that may share a stack; None for one that trains alone.

    Those of one method, data set, train settings and conditions, which differ in seed, label ratio and the values of
    hyper-parameters that are buffers of the method (`Method.hyper_buffers`).
    """
    method = METHODS.get(training.method.name)
    if not (method.stackable and method.iterative):
        return None
    spec = training.dataset.spec
    return (
        training.method.name,
        _structure(method, training.method.config, spec),
        spec.fingerprint,
        training.settings,
        training.conditions,
        training.save,
    )


def _structure(method: type[Method], config: MethodConfig, spec: DataSpec) -> str:
    """The Config without the values that are buffers; where one is zero a term may be left out, which is structure."""
    values = config.model_dump(mode="json")
    fixed = {name: value for name, value in values.items() if not isinstance(value, float)}
    buffers = _buffers(method, json.dumps(fixed, sort_keys=True), config, _Shapes(spec))
    kept = {name: value == 0 if name in buffers else value for name, value in values.items()}
    return json.dumps(kept, sort_keys=True)


class _Shapes:
    """A description that is equal to another of the same modalities and task."""

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec
        self.key = json.dumps([list(spec.modalities.items()), spec.task.to_json()], sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shapes) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


_found: dict[tuple[type[Method], str, _Shapes], frozenset[str]] = {}


def _buffers(method: type[Method], fixed: str, config: MethodConfig, shapes: _Shapes) -> frozenset[str]:
    """Names of the hyper-parameters that are buffers; one method of a kind is built to ask it."""
    key = (method, fixed, shapes)
    if key not in _found:
        with torch.random.fork_rng(devices=[]):
            built = method(shapes.spec.modalities, shapes.spec.task, config)
        _found[key] = frozenset(built.hyper_names)
    return _found[key]


def most_in_a_stack(device: str) -> int:
    """How many trainings in a stack pay on a device."""
    return CPU_STACK if device.startswith("cpu") else GPU_STACK
