"""Which modalities each training sample lacks. Shapes: N samples, M modalities."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.seeds import generator


def training_availability(
    n: int, modalities: Sequence[str], rate: float | Mapping[str, float], *, dataset: str, seed: int
) -> NDArray[np.bool_]:
    """Which modalities the training samples have, (N, M) bool: the `per sample` protocol.

    Every sample lacks each modality with its rate, independently, once and for all epochs; a sample that would lack
    all keeps the one it was least likely to lose. Patterns are nested: what a smaller rate takes, a larger one takes
    too, but for samples that would lose everything. They depend on the data set and the seed, never on the method.

    Args:
        n: number of training samples.
        modalities: names, in the data set's order.
        rate: for all modalities, or by name (others: 0); each in [0, 1).
        dataset: the data set's name or fingerprint.
        seed: the run's seed.
    """
    rates = np.array([rate.get(name, 0.0) if isinstance(rate, Mapping) else rate for name in modalities])
    draw = generator("missing", dataset, seed).random((n, len(modalities)))
    available = draw >= rates
    nothing = ~available.any(axis=1)
    kept = (draw - rates).argmax(axis=1)
    available[nothing, kept[nothing]] = True
    return available
