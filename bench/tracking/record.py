"""How a training is shown in MLflow: plain values that travel with its outcome."""

from typing import Any

from bench.grid.plan import PROTOCOL, Training


def record_of(training: Training, swept: tuple[str, ...] = ()) -> dict[str, Any]:
    """How a training is shown in MLflow, as plain values that travel with its outcome.

    Args:
        training: the training.
        swept: train settings that differ within the grid; they become part of the method's label.
    """
    spec = training.dataset.spec
    task = spec.task
    label = training.method.label
    if swept:
        values = training.settings.model_dump()
        label += "[" + ",".join(f"{key}={values[key]}" for key in swept) + "]"
    return {
        "training_id": training.id,
        "name": f"{label} / {training.dataset.label} / {training.label_ratio:g} / {training.seed}",
        "tags": {
            "training_id": training.id,
            "method": label,
            "method_id": training.method.name,
            "variant": training.method.variant,
            "dataset": training.dataset.label,
            "dataset_id": training.dataset.name,
            "label_ratio": str(training.label_ratio),
            "seed": str(training.seed),
        },
        "training_tags": {
            "task": task.kind,
            "primary_metric": task.primary,
            "higher_is_better": ",".join(name for name, higher in task.metrics.items() if higher),
            "full_subset": spec.full,
            "protocol": str(PROTOCOL),
        },
        "params": {
            **{f"method.{key}": str(value) for key, value in training.method.config.model_dump().items()},
            **{f"data.{key}": str(value) for key, value in training.dataset.config.model_dump().items()},
            **{f"train.{key}": str(value) for key, value in training.settings.model_dump().items()},
        },
        "data": {"name": training.dataset.name, "fingerprint": spec.fingerprint, "sizes": dict(spec.sizes)},
        "cells": training.cells,
    }
