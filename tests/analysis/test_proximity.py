"""Proximity: worked statistics, SciPy's fits as the oracle, and tests that keep their level anchor by anchor."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, lognorm, norm

from analysis.proximity import (
    anchor_frame,
    anderson_darling,
    fit_families,
    normality,
    positive_proximity,
    proximity_frame,
    proximity_summary,
)
from analysis.representations import RepresentationError
from tests.analysis import clouds

NORMAL = np.random.default_rng(0).standard_normal(200)


def test_a_normal_sample() -> None:
    found = normality(NORMAL)
    assert found.shapiro == pytest.approx(0.98896, abs=5e-6)
    assert found.shapiro_p == pytest.approx(0.12552, abs=5e-6)
    assert found.anderson == pytest.approx(0.31977, abs=5e-6)
    assert found.anderson_p == pytest.approx(0.53074, abs=5e-6)  # normal_ad of statsmodels
    assert found.lilliefors == pytest.approx(0.03062, abs=5e-6)
    assert found.dagostino == pytest.approx(2.7359, abs=5e-5)
    assert found.dagostino_p == pytest.approx(0.25463, abs=5e-6)
    assert found.qq_r == pytest.approx(0.99592, abs=5e-6)
    assert found.skew == pytest.approx(-0.1810, abs=5e-5)
    assert found.kurtosis == pytest.approx(-0.4037, abs=5e-5)


def test_a_lognormal_sample() -> None:
    found = normality(np.exp(NORMAL))
    assert found.shapiro == pytest.approx(0.80950, abs=5e-6)
    assert found.shapiro_p == pytest.approx(6.7e-15, rel=0.02)
    assert found.anderson == pytest.approx(12.04386, abs=5e-6)
    assert found.dagostino == pytest.approx(70.8456, abs=5e-5)
    assert found.qq_r == pytest.approx(0.89978, abs=5e-6)
    assert found.skew == pytest.approx(1.6895, abs=5e-5)
    assert found.kurtosis == pytest.approx(2.6405, abs=5e-5)
    assert found.lilliefors_p < 0.001
    assert found.anderson_p < 1e-20


def test_cosines_of_random_directions_are_normal_and_their_exponentials_are_not() -> None:
    draw = np.random.default_rng(1)
    s = clouds.unit(draw.standard_normal((1, 60)))
    z = clouds.unit(draw.standard_normal((500, 60)))
    c = (z @ s.T)[:, 0]
    assert c.std() == pytest.approx(0.12904, abs=5e-5)
    assert normality(c).shapiro_p == pytest.approx(0.497, abs=5e-4)
    phi = normality(np.exp(c / 0.3))
    assert phi.shapiro == pytest.approx(0.91617, abs=5e-6)
    assert phi.shapiro_p == pytest.approx(5e-16, rel=0.2)


def test_lilliefors_p_is_its_tabled_quantile() -> None:
    # Lilliefors' 5 % point is 0.886 / sqrt(n) for large n (1967), 0.0886 for n = 100; ours is by simulation.
    from analysis.proximity import _lilliefors_null

    assert np.quantile(_lilliefors_null(100), 0.95) == pytest.approx(0.0886, rel=0.03)


def test_every_test_keeps_its_level_on_normal_data() -> None:
    draw = np.random.default_rng(2)
    found = [normality(draw.standard_normal(60)) for _ in range(150)]
    for name in ("shapiro_p", "anderson_p", "lilliefors_p", "dagostino_p"):
        assert np.mean([getattr(one, name) < 0.05 for one in found]) == pytest.approx(0.05, abs=0.05)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 50), st.floats(-20, 20))
def test_place_and_scale_do_not_matter(seed: int, scale: float, shift: float) -> None:
    x = np.random.default_rng(seed).gamma(3, size=40)
    before, after = normality(x), normality(scale * x + shift)
    for name in ("shapiro", "anderson", "lilliefors", "dagostino", "qq_r", "skew", "kurtosis"):
        assert getattr(before, name) == pytest.approx(getattr(after, name), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.7, 2.0])
def test_anderson_darlings_p_falls_as_the_sample_bends(shift: float) -> None:
    straight, bent = anderson_darling(NORMAL), anderson_darling(NORMAL + shift * NORMAL**2)
    assert bent[0] >= straight[0]
    assert 0 <= bent[1] <= straight[1] <= 1


# ---- families ---------------------------------------------------------------------------------------------


def test_aic_is_that_of_scipys_fits() -> None:
    x = np.random.default_rng(3).beta(8, 3, 150) * 2 - 1
    found = fit_families(x + 1, 0, 2)
    share = (x + 1) / 2
    a, b, _, _ = beta.fit(share, floc=0, fscale=1)
    assert found["beta"] == pytest.approx(4 - 2 * (beta.logpdf(share, a, b) - np.log(2)).sum(), abs=1e-3)
    assert found["normal"] == pytest.approx(4 - 2 * norm.logpdf(x, *norm.fit(x)).sum(), abs=1e-8)
    shape, _, scale = lognorm.fit(x + 1, floc=0)
    assert found["lognormal"] == pytest.approx(4 - 2 * lognorm.logpdf(x + 1, shape, 0, scale).sum(), abs=1e-3)
    assert min(found, key=found.__getitem__) == "beta"


def test_each_family_wins_on_its_own() -> None:
    draw = np.random.default_rng(4)
    assert np.isnan(fit_families(draw.standard_normal(200), -1, 1)["lognormal"])
    assert np.isnan(fit_families(draw.standard_normal(200), -1, 1)["beta"])
    skewed = fit_families(np.exp(draw.normal(0, 0.8, 300)), 0, 1000)
    assert min(skewed, key=skewed.__getitem__) == "lognormal"


# ---- anchors ----------------------------------------------------------------------------------------------


def test_partners_are_the_others_of_the_class() -> None:
    named, classes = clouds.representations(63), clouds.classes(63)
    found = positive_proximity(named["s"], named["z/text"], classes, 0.3)
    assert [len(c) for c in found.cosine] == [20] * 63
    partners = [k for k in range(63) if k % 3 == 2 and k != 5]
    np.testing.assert_allclose(found.cosine[5], named["z/text"][partners] @ named["s"][5])
    np.testing.assert_allclose(found.phi[5], np.exp(found.cosine[5] / 0.3))
    together = found.standardised["phi"]
    assert together.shape == (63 * 20,)
    assert together.mean() == pytest.approx(0, abs=1e-12)


def test_testing_anchors_one_by_one_spares_clustered_normal_data() -> None:
    # Ten anchors with a shift of their own: normal each, not together.
    draw = np.random.default_rng(5)
    rejected = [
        np.array([normality(anchor).shapiro_p < 0.05 for anchor in draw.standard_normal((10, 30)) + shift])
        for shift in 3 * draw.standard_normal((12, 10, 1))
    ]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.05)
    pooled = [
        normality((draw.standard_normal((10, 30)) + 3 * draw.standard_normal((10, 1))).ravel()).shapiro_p < 0.05
        for _ in range(12)
    ]
    assert np.mean(pooled) > 0.8


def test_normal_cosines_have_lognormal_phis() -> None:
    draw = np.random.default_rng(6)
    x = draw.standard_normal((90, 60))
    frame = proximity_summary(
        anchor_frame(positive_proximity(x, draw.standard_normal((90, 60)), np.zeros(90, int), 0.3), max_anchors=40)
    ).set_index("reading")
    assert list(frame.index) == ["cosine", "phi"]
    assert (frame["n_anchors"] == 40).all()
    assert frame.loc["cosine", "rejected_shapiro"] < 0.2 < 0.8 < frame.loc["phi", "rejected_shapiro"]
    assert frame.loc["phi", "best_lognormal"] + frame.loc["phi", "best_beta"] > 0.9
    assert frame.loc["cosine", "qq_r"] > frame.loc["phi", "qq_r"]
    assert frame.loc["phi", "skew"] > 0.8


def test_the_frame_says_why_a_modality_is_missing() -> None:
    named = clouds.representations(63)
    frame = proximity_frame(
        named["s"],
        {"text": named["z/text"], "image": named["z/image"] * np.nan},
        clouds.classes(63),
        0.3,
        max_anchors=3,
    )
    assert list(frame["modality"]) == ["text", "text", "image"]
    assert "NaN" in frame["problem"].iloc[2]
    assert frame["problem"].iloc[0] == ""


GOOD = clouds.unit(np.random.default_rng(0).standard_normal((30, 4)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: normality(NORMAL[:19]), "at least 20 values"),
        (lambda: normality(np.ones(30)), "all 30 proximities are the same"),
        (lambda: normality(np.append(NORMAL, np.nan)), "NaN"),
        (lambda: normality(NORMAL[:, None]), "shape"),
        (lambda: positive_proximity(GOOD, GOOD[:, :2], np.zeros(30, int), 0.3), "one shape"),
        (lambda: positive_proximity(GOOD, GOOD, np.zeros(30, int), 0), "tau must be positive"),
        (lambda: positive_proximity(GOOD, GOOD, np.arange(30), 0.3), "no anchor has 20 partners"),
        (lambda: positive_proximity(np.ones((30, 2)), np.ones((30, 2)), np.zeros(30, int), 0.3), "different distances"),
    ],
)
def test_hostile_input_is_told_in_a_sentence(call: object, words: str) -> None:
    with pytest.raises(RepresentationError, match=words):
        call()  # type: ignore[operator]
