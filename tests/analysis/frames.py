"""Results frames for the tests: one that can be checked by hand, and ones of any size."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from analysis.results import COLUMNS
from datasets.base import all_subsets
from datasets.seeds import generator


def result(
    method: str,
    modalities: str,
    seed: int,
    value: float,
    *,
    dataset: str = "toy",
    ratio: float = 0.05,
    metric: str = "acc",
    higher: bool = True,
    primary: bool = True,
    checkpoint: str = "last",
    full: str = "a+b",
    corruption: str = "",
) -> dict[str, Any]:
    """One row of a results frame."""
    training = f"t-{dataset}-{ratio}-{method}-{seed}"
    return {
        "dataset": dataset, "label_ratio": ratio, "modalities": modalities, "corruption": corruption, "method": method,
        "seed": seed, "checkpoint": checkpoint, "metric": metric, "value": value, "higher_is_better": higher,
        "primary": primary,
        "n_modalities": modalities.count("+") + 1, "full": modalities == full,
        "training_id": training, "run_id": f"{training}-{modalities}{corruption}",
    }  # fmt: skip


def frame_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def toy() -> pd.DataFrame:
    """Small enough to check by hand.

    a:   robult .8 .9 (mean .85, std sqrt(.005) = .0707), gmc .7 .7, constant .5 .5
    b:   robult .5 .5 = constant, gmc has no result
    a+b: robult NaN .9, gmc .6 (one seed of two), constant .5 .5
    """
    nan = float("nan")
    values = {
        "a": {"robult": (0.8, 0.9), "gmc": (0.7, 0.7), "constant": (0.5, 0.5)},
        "b": {"robult": (0.5, 0.5), "constant": (0.5, 0.5)},
        "a+b": {"robult": (nan, 0.9), "gmc": (0.6,), "constant": (0.5, 0.5)},
    }
    return frame_of([
        result(method, subset, seed, value)
        for subset, methods in values.items()
        for method, seeds in methods.items()
        for seed, value in enumerate(seeds)
    ])  # fmt: skip


SETS: Mapping[str, tuple[tuple[str, ...], Mapping[str, bool]]] = {
    "digits": (("upper", "lower"), {"acc": True, "f1_macro": True}),
    "synthetic": (("first", "second", "third"), {"mae": False, "corr": True}),
}
"""Data set -> (modalities, metric -> higher is better); the first metric is the primary one."""


def realistic(
    methods: Sequence[str] = ("robult", "gmc", "unimodal", "constant"),
    *,
    sets: Mapping[str, tuple[tuple[str, ...], Mapping[str, bool]]] = SETS,
    ratios: Sequence[float] = (0.05, 0.5),
    seeds: int = 3,
    checkpoints: Sequence[str] = ("last", "best"),
) -> pd.DataFrame:
    """Results as a grid gives them: better with more modalities and labels, earlier methods a little better."""
    rng = generator("tests", "realistic results")
    rows = []
    for dataset, (modalities, metrics) in sets.items():
        full, primary = "+".join(modalities), next(iter(metrics))
        for ratio, method, subset, seed, checkpoint, metric in product(
            ratios, methods, all_subsets(modalities), range(seeds), checkpoints, metrics
        ):
            share = (subset.count("+") + 1) / len(modalities)
            gain = (0.5 + 0.3 * share) * (0.75 + 0.25 * ratio) - 0.02 * list(methods).index(method)
            value = _value(method, metric, metrics[metric], gain + 0.015 * rng.standard_normal())
            facts = {"higher": metrics[metric], "primary": metric == primary, "full": full}
            rows.append(
                result(method, subset, seed, value, dataset=dataset, ratio=ratio, metric=metric,
                       checkpoint=checkpoint, **facts)
            )  # fmt: skip
    return frame_of(rows)


def _value(method: str, metric: str, higher: bool, gain: float) -> float:
    if method == "constant":
        return float(np.nan) if metric == "corr" else 0.1 if higher else 1.42
    return 0.1 + gain if higher else 1.42 * (1 - 0.6 * gain)
