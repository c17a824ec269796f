"""Point clouds for the tests of the representation analyses, drawn anew from fixed seeds."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Cloud = NDArray[np.float64]


def unit(x: Cloud) -> Cloud:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def two_gaussians() -> tuple[Cloud, Cloud]:
    draw = np.random.default_rng(0)
    return draw.standard_normal((100, 2)), draw.standard_normal((100, 2))


def missed_mode() -> tuple[Cloud, Cloud]:
    """E visits two of the three modes of R."""
    draw = np.random.default_rng(1)
    centres = np.array([(0.0, 0.0), (6.0, 0.0), (0.0, 6.0)])
    reference = np.concatenate([centre + 0.5 * draw.standard_normal((40, 2)) for centre in centres])
    return reference, np.concatenate([centre + 0.5 * draw.standard_normal((60, 2)) for centre in centres[:2]])


def far_apart() -> tuple[Cloud, Cloud]:
    draw = np.random.default_rng(2)
    return draw.standard_normal((100, 4)), draw.standard_normal((100, 4)) + np.array([8.0, 0.0, 0.0, 0.0])


def noisy_copy() -> tuple[Cloud, Cloud]:
    draw = np.random.default_rng(3)
    reference = draw.standard_normal((100, 16))
    return reference, reference + 0.3 * draw.standard_normal((100, 16))


def exact_copy() -> tuple[Cloud, Cloud]:
    reference, _ = noisy_copy()
    return reference, reference.copy()


def on_the_sphere() -> tuple[Cloud, Cloud]:
    draw = np.random.default_rng(4)
    reference = unit(draw.standard_normal((80, 60)))
    return reference, unit(reference + 0.05 * draw.standard_normal((80, 60)))


def on_a_line() -> tuple[Cloud, Cloud]:
    draw = np.random.default_rng(5)
    return draw.standard_normal((100, 1)), draw.standard_normal((100, 1))


Sets = Callable[[], tuple[Cloud, Cloud]]


def representations(n: int = 120, d: int = 12, spread: float = 0.6, seed: int = 7) -> dict[str, Cloud]:
    """`s` and `z/...` as a method's `embed` gives them: three classes on the sphere, unimodal ones less compact."""
    draw = np.random.default_rng(seed)
    centres = 2 * np.linalg.qr(draw.standard_normal((d, 3)))[0].T
    s = centres[np.arange(n) % 3] + spread * draw.standard_normal((n, d))
    z = {f"z/{name}": s + more * draw.standard_normal((n, d)) for name, more in (("text", 0.5), ("image", 1.0))}
    return {name: unit(x) for name, x in ({"s": s} | z).items()}


def classes(n: int = 120) -> NDArray[np.int64]:
    """The classes of `representations`."""
    return np.arange(n) % 3
