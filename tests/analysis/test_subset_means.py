"""Means over modality subsets of a size: by hand, where results lack, and where they stand in a table."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from analysis.curves import draw_sizes
from analysis.figures import method_styles
from analysis.results import check_frame, summarise
from analysis.subset_means import has_many_subsets, means_by_number, means_by_size, summary_by_size
from datasets.base import all_subsets
from tests.analysis.frames import frame_of, result

NAMES = ("d", "c", "b", "a")
FULL = "d+c+b+a"


def value_of(subset: str, seed: int) -> float:
    return 0.1 * (subset.count("+") + 1) + 0.01 * ("a" in subset) + 0.001 * seed


def four() -> pd.DataFrame:
    """Four modalities, fifteen subsets, two methods, two seeds."""
    return check_frame(frame_of([
        result(method, subset, seed, value_of(subset, seed), full=FULL, corruption=corruption)
        for method, subset, seed, corruption in product(
            ("gmc", "tmc"), all_subsets(NAMES), (0, 1), ("", "gaussian(d)=0.5")
        )
        if not corruption or "d" in subset
    ]))  # fmt: skip


def mean_of(frame: pd.DataFrame, name: str, corruption: str = "") -> float:
    own = frame[(frame["modalities"] == name) & (frame["corruption"] == corruption) & (frame["seed"] == 0)]
    (value,) = own.loc[own["method"] == "gmc", "value"]
    return float(value)


def test_means_are_over_the_subsets_of_a_size() -> None:
    means = means_by_size(four(), "toy")
    # Of the 6 pairs 3 hold `a`, of the 4 triples 3, of all 15 subsets 8.
    assert mean_of(means, "2 of 4, mean of 6") == pytest.approx(0.2 + 0.01 / 2)
    assert mean_of(means, "3 of 4, mean of 4") == pytest.approx(0.3 + 0.01 * 3 / 4)
    everything = [value_of(subset, 0) for subset in all_subsets(NAMES)]
    assert mean_of(means, "all, mean of 15") == pytest.approx(np.mean(everything))
    assert mean_of(means, FULL) == pytest.approx(0.41)
    # What holds `d` is corrupted: 3 pairs, one of them with `a`.
    assert mean_of(means, "2 of 4, mean of 3", "gaussian(d)=0.5") == pytest.approx(0.2 + 0.01 / 3)


def test_rows_are_in_the_order_of_modalities_then_sizes() -> None:
    assert has_many_subsets(summarise(four(), "last"), "toy")
    summary = summary_by_size(four(), "toy", "last", ["gmc", "tmc", "prompt_trans"])
    clean = summary[summary["corruption"] == ""]
    names = ["d", "c", "b", "a", "2 of 4, mean of 6", "3 of 4, mean of 4", FULL, "all, mean of 15"]
    assert list(dict.fromkeys(clean["modalities"])) == names
    assert clean["method"].tolist() == ["gmc", "prompt_trans", "tmc"] * len(names)
    assert (clean.loc[clean["method"] == "prompt_trans", "n_seeds"] == 0).all()


def test_a_mean_needs_every_subset_and_is_undefined_with_one() -> None:
    frame = four()
    lost = (frame["method"] == "gmc") & (frame["modalities"] == "d+c") & (frame["seed"] == 0)
    few = means_by_size(frame[~lost], "toy")
    own = few[(few["method"] == "gmc") & (few["corruption"] == "")]
    assert set(own.loc[own["seed"] == 0, "modalities"]).isdisjoint({"2 of 4, mean of 6", "all, mean of 15"})
    assert "2 of 4, mean of 6" in set(own.loc[own["seed"] == 1, "modalities"])
    undefined = means_by_size(frame.assign(value=frame["value"].mask(lost)), "toy")
    assert np.isnan(mean_of(undefined, "2 of 4, mean of 6"))


def test_a_curve_over_the_number_of_modalities() -> None:
    means = means_by_number(four(), "toy", "last")
    gmc = means[means["method"] == "gmc"].set_index("n_modalities")
    assert gmc["n_seeds"].tolist() == [2] * 4
    assert gmc.loc[2, "mean"] == pytest.approx(0.2055)
    assert gmc.loc[2, "std"] == pytest.approx(0.001 / np.sqrt(2))
    figure = draw_sizes(means, "toy", "last", method_styles(["gmc", "tmc"])).figure
    assert figure is not None
    singles = four()[lambda frame: frame["n_modalities"] == 1]
    told = draw_sizes(means_by_number(singles, "toy", "last"), "toy", "last", {})
    assert told.figure is None
    assert "no curve over sizes" in told.words
