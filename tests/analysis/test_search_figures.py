"""The landscape of a search: what is marked, what is drawn of a sweep and of scattered trials, and when nothing is."""

import numpy as np
import pandas as pd
import pytest

from analysis.figures import render
from analysis.search_figures import draw_landscape, render_drawn


def trials(tau: np.ndarray, kappa: np.ndarray, higher: bool = True) -> pd.DataFrame:  # type: ignore[type-arg]
    value = 0.8 - 0.1 * np.log(tau / 0.5) ** 2 - 0.05 * np.log(kappa / 2) ** 2
    sign = 1 if higher else -1
    return pd.DataFrame(
        {"trial": range(len(tau)), "state": "complete", "tau": tau, "kappa": kappa, "acc": sign * value}
    )


def scattered(n: int = 30) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    return trials(np.exp(draw.uniform(-3, 1, n)), np.exp(draw.uniform(-3, 3, n)))


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_trial_and_the_default_are_marked(higher: bool) -> None:
    frame = scattered()
    figure = draw_landscape(
        frame, "acc", x="tau", y="kappa", higher=higher, log=(True, True), default={"tau": 0.3, "kappa": 1.0}
    )
    assert figure is not None
    best = frame.loc[frame["acc"].idxmax() if higher else frame["acc"].idxmin()]
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]  # type: ignore[union-attr]
    assert texts == [
        f"best trial: tau {best['tau']:.3g}, kappa {best['kappa']:.3g}, {best['acc']:.4f}",
        "default: tau 0.3, kappa 1",
    ]
    assert render(figure, "png").startswith(b"\x89PNG")


def test_a_sweep_is_drawn_as_cells_with_their_values() -> None:
    tau, kappa = (axis.ravel() for axis in np.meshgrid([0.1, 0.5, 2.0], [0.5, 2.0, 8.0, 32.0]))
    figure = draw_landscape(trials(tau, kappa), "acc", x="tau", y="kappa", higher=True, log=(True, True))
    assert figure is not None
    written = {text.get_text() for text in figure.axes[0].texts}
    assert {f"{value:.3f}" for value in trials(tau, kappa)["acc"]} == written


def test_pruned_and_failed_trials_are_left_out() -> None:
    frame = scattered(8)
    frame.loc[:2, "state"] = ["pruned", "failed", "running"]
    frame.loc[:2, "acc"] = np.nan
    assert draw_landscape(frame, "acc", x="tau", y="kappa", higher=True) is None  # five are no landscape
    one_line = scattered().assign(kappa=1.0)
    assert draw_landscape(one_line, "acc", x="tau", y="kappa", higher=True) is None


def test_the_style_of_another_library_stays_its_own() -> None:
    from matplotlib import pyplot, rcParams

    before = dict(rcParams)

    def draw() -> object:
        pyplot.style.use("ggplot")
        _, axes = pyplot.subplots(1, 2)
        return axes

    found = render_drawn(draw)
    assert set(found) == {"png", "svg"}
    assert dict(rcParams) == before
    assert pyplot.get_fignums() == []
