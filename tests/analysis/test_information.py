"""Mutual information: worked values, NumPy's histogram as the oracle, and a null that catches the bias."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from analysis.information import (
    COLUMNS,
    InformationSettings,
    entropy,
    equal_width,
    information_frame,
    information_table,
    miller_madow,
    mutual_information,
    neighbour_information,
    principal_components,
    scalar_neighbour_information,
    shuffled_null,
    three_states,
)
from analysis.representations import RepresentationError
from tests.analysis import clouds

Pair = tuple[clouds.Cloud, clouds.Cloud]


def gaussian_pair(rho: float) -> Pair:
    """Two standard normal variables of correlation rho; they share -0.5 ln(1 - rho^2) nats."""
    z = np.random.default_rng(0).standard_normal((1000, 2))
    return z[:, :1], rho * z[:, :1] + np.sqrt(1 - rho**2) * z[:, 1:]


GOLDEN = {  # rho -> bins -> plug-in estimate
    0.0: {3: 0.00298, 5: 0.00336, 10: 0.02997, 20: 0.11412, 50: 0.57845},
    0.5: {3: 0.06242, 5: 0.11570, 10: 0.16130, 20: 0.25290, 50: 0.70897},
    0.8: {3: 0.16648, 5: 0.33500, 10: 0.48026, 20: 0.57143, 50: 0.92115},
    0.95: {3: 0.31856, 5: 0.53383, 10: 0.91954, 20: 1.13745, 50: 1.38363},
}


@pytest.mark.parametrize("rho", GOLDEN)
@pytest.mark.parametrize("bins", [3, 5, 10, 20, 50])
def test_plug_in_estimates_of_a_gaussian_pair(rho: float, bins: int) -> None:
    x, y = (equal_width(part, bins) for part in gaussian_pair(rho))
    assert mutual_information(x, y)[0] == pytest.approx(GOLDEN[rho][bins], abs=6e-6)


@pytest.mark.parametrize(
    ("rho", "ten", "twenty"),
    [(0, 0.00697, 0.03462), (0.5, 0.13980, 0.17840), (0.8, 0.46576, 0.52143), (0.95, 0.91354, 1.11495)],
)
def test_the_bias_is_taken_off(rho: float, ten: float, twenty: float) -> None:
    for bins, wanted in ((10, ten), (20, twenty)):
        x, y = (equal_width(part, bins) for part in gaussian_pair(rho))
        assert miller_madow(x, y)[0] == pytest.approx(wanted, abs=6e-6)


@pytest.mark.parametrize(("width", "wanted"), [(1.0, 0.23218), (0.5, 0.31528)])
def test_three_states_of_peng(width: float, wanted: float) -> None:
    x, y = (three_states(part, width) for part in gaussian_pair(0.8))
    assert mutual_information(x, y)[0] == pytest.approx(wanted, abs=6e-6)


@pytest.mark.parametrize(("rho", "wanted"), [(0, 0), (0.5, 0.11871), (0.8, 0.48640), (0.95, 1.15054)])
def test_nearest_neighbours_of_scikit_learn(rho: float, wanted: float) -> None:
    assert scalar_neighbour_information(*gaussian_pair(rho))[0] == pytest.approx(wanted, abs=6e-6)


@pytest.mark.parametrize(("rho", "wanted"), [(0, -0.02420), (0.5, 0.11717), (0.8, 0.48523)])
def test_nearest_neighbours_of_scalars(rho: float, wanted: float) -> None:
    assert neighbour_information(*gaussian_pair(rho)) == pytest.approx(wanted, abs=6e-6)


def test_nearest_neighbours_of_vectors() -> None:
    # They share 0.4315, 1.5325 and 5.1083 nats: ten dimensions are far beyond the estimator.
    for d, rho, wanted, flat in ((3, 0.5, 0.3958, 0.1329), (3, 0.8, 1.4214, 0.4402), (10, 0.8, 2.084, 0.4392)):
        draw = np.random.default_rng(3)
        x = draw.standard_normal((2000, d))
        y = rho * x + np.sqrt(1 - rho**2) * draw.standard_normal((2000, d))
        assert neighbour_information(x, y) == pytest.approx(wanted, abs=5e-4)
        pooled = mutual_information(equal_width(x.reshape(-1, 1)), equal_width(y.reshape(-1, 1)))[0]
        assert pooled == pytest.approx(flat, abs=6e-5)


# ---- properties -------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(1, 4))
def test_bins_are_those_of_numpys_histogram(seed: int, bins: int, d: int) -> None:
    draw = np.random.default_rng(seed)
    x, y = draw.standard_normal((50, d)), draw.integers(0, 4, (50, d)).astype(float)
    a, b = equal_width(x, bins), equal_width(y, bins)
    for i in range(d):
        joint = np.histogram2d(x[:, i], y[:, i], bins)[0]
        np.testing.assert_array_equal(
            np.bincount(a[:, i] * bins + b[:, i], minlength=bins**2).reshape(bins, bins), joint
        )
        assert mutual_information(a, b)[i] == pytest.approx(mutual_info_score(a[:, i], b[:, i]), abs=1e-12)
        share = joint.sum(1)[joint.sum(1) > 0] / 50
        assert entropy(a)[i] == pytest.approx(-(share * np.log(share)).sum(), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_information_is_symmetric_bounded_and_blind_to_the_order_of_samples(seed: int) -> None:
    draw = np.random.default_rng(seed)
    x, y = equal_width(draw.standard_normal((40, 3)), 6), equal_width(draw.standard_normal((40, 3)), 6)
    value, order = mutual_information(x, y), draw.permutation(40)
    np.testing.assert_allclose(value, mutual_information(y, x), atol=1e-12)
    np.testing.assert_allclose(value, mutual_information(x[order], y[order]), atol=1e-12)
    assert (value >= -1e-12).all()
    assert (value <= np.minimum(entropy(x), entropy(y)) + 1e-12).all()
    np.testing.assert_allclose(mutual_information(x, x), entropy(x), atol=1e-12)


def test_a_constant_column_has_no_entropy() -> None:
    x = np.stack([np.full(30, 2.5), np.arange(30.0)], axis=1)
    np.testing.assert_allclose(entropy(equal_width(x)), [0, np.log(10)], atol=1e-12)


def test_the_null_is_the_bias_of_independent_data() -> None:
    draw = np.random.default_rng(1)
    x, y = equal_width(draw.standard_normal((686, 20))), equal_width(draw.standard_normal((686, 20)))
    null = shuffled_null(x, y, n_shuffles=50)
    assert null.mean == pytest.approx(0.057, abs=0.006)  # (K_xy - K_x - K_y + 1) / (2n), 686 samples, 10 bins
    assert mutual_information(x, y).mean() < null.upper * 1.05
    assert mutual_information(x, x).mean() > 10 * null.upper
    assert null == shuffled_null(x, y, n_shuffles=50)
    assert null != shuffled_null(x, y, n_shuffles=50, seed=1)


def test_principal_components_keep_the_variance_they_can() -> None:
    x = np.random.default_rng(0).standard_normal((50, 4)) * [5, 3, 1, 0.1] + 7
    leading = principal_components(x, 2)
    assert leading.shape == (50, 2)
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    np.testing.assert_allclose(leading.var(axis=0, ddof=1), values[:2])


# ---- Table 12 ---------------------------------------------------------------------------------------------


def test_the_frame_finds_more_in_the_closer_modality_and_nothing_in_noise() -> None:
    named = clouds.representations(300, spread=1.5)
    named["z/noise"] = clouds.unit(np.random.default_rng(2).standard_normal((300, 12)))
    frame = information_frame({"robult": named, "constant": {}}, InformationSettings(n_shuffles=40))
    assert tuple(frame.columns) == COLUMNS
    by = frame.set_index("modality")
    assert list(by.index) == ["text", "image", "noise", "fused"]
    for name in ("information", "miller_madow", "neighbours", "neighbours_pca", "pooled"):
        assert by.loc["text", name] > by.loc["image", name] > by.loc["noise", name]
    assert by.loc["noise", "information"] < by.loc["noise", "null_95"] * 1.05
    assert by.loc["text", "information"] > 2 * by.loc["text", "null_95"]
    np.testing.assert_allclose(by.loc["fused", "information"], entropy(equal_width(named["s"])).mean())
    assert by.loc["fused", "information"] < np.log(10)
    assert np.isnan(by.loc["fused", "null_mean"])
    table = information_table(frame, ["robult", "raml"])
    assert set(table["raml"]) == {"—"}
    text = by.loc["text"]
    assert table.loc["text", "robult"] == f"{text.information:.3f} ({text.null_mean:.3f})"
    assert list(table.index)[-1] == "fused"


def test_the_frame_says_why_a_value_is_missing() -> None:
    named = clouds.representations(60)
    named["z/text"] = named["z/text"][:, :5]
    named["z/image"] = np.ones_like(named["z/image"])
    frame = information_frame({"gmc": named}, InformationSettings(n_shuffles=2)).set_index("modality")
    assert "one shape" in frame.loc["text", "problem"]
    assert "gmc: z/image is the same for all 60 samples" in frame.loc["image", "problem"]
    assert frame.loc["fused", "problem"] == ""
    assert information_table(frame.reset_index()).loc["text", "gmc"] == "—"


def test_three_states_can_be_asked_for() -> None:
    frame = information_frame({"m": clouds.representations()}, InformationSettings(discretise="three_states"))
    assert frame["information"].iloc[-1] <= np.log(3)


GOOD = np.random.default_rng(0).standard_normal((12, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: equal_width(GOOD, 1), "at least 2 bins"),
        (lambda: equal_width(GOOD * np.nan), "NaN"),
        (lambda: mutual_information(equal_width(GOOD), equal_width(GOOD[:, :2])), "one shape"),
        (lambda: neighbour_information(GOOD[:3], GOOD[:3]), "at least 4"),
        (lambda: neighbour_information(GOOD, GOOD[:5]), "paired rows"),
        (lambda: scalar_neighbour_information(GOOD, GOOD[:, :2]), "dimension by dimension"),
    ],
)
def test_hostile_input_is_told_in_a_sentence(call: object, words: str) -> None:
    with pytest.raises(RepresentationError, match=words):
        call()  # type: ignore[operator]
