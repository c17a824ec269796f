"""Corruptions do what they say to the modality they name, by the seed of the data alone, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from datasets.base import Data, DataSpec, Part
from datasets.corruption import (
    Corruption,
    Floats,
    Step,
    condition,
    conditions,
    corrupted,
    feature_spread,
    level_problem,
    split_condition,
)
from datasets.tasks import Regression

N = 400


def data(fingerprint: str = "f") -> Data:
    """A vector with features of standard deviation 1, 1, 1 and 10, a sequence that begins with padding, and images."""
    draw = np.random.default_rng(0)
    vector = (draw.standard_normal((N, 4)) * [1, 1, 1, 10]).astype(np.float32)
    sequence = draw.standard_normal((N, 8, 3)).astype(np.float32) + 5
    sequence[:, :3] = 0
    image = draw.uniform(-1, 1, (N, 3, 4, 4)).astype(np.float32)
    part = Part({"vector": vector, "sequence": sequence, "image": image}, np.zeros(N, np.float32))
    shapes = {name: x.shape[1:] for name, x in part.inputs.items()}
    spec = DataSpec("d", shapes, Regression(), {"train": N, "valid": N, "test": N}, fingerprint)
    return Data(spec, {"train": part, "valid": part, "test": part})


def under(text: str, fingerprint: str = "f") -> dict[str, Floats]:
    made = data(fingerprint)
    return dict(corrupted(made, made.parts["test"], Corruption.parse(text)).inputs)


CLEAN = data().parts["test"].inputs


@pytest.mark.parametrize("kind", ["gaussian", "mask", "swap"])
@pytest.mark.parametrize("modality", ["vector", "sequence", "image"])
def test_only_the_named_modality_changes_and_equal_seeds_give_equal_inputs(kind: str, modality: str) -> None:
    text = f"{kind}({modality})=0.5"
    once, again, elsewhere = under(text), under(text), under(text, "another data set")
    for name, x in CLEAN.items():
        assert np.array_equal(once[name], x) == (name != modality)
    assert np.array_equal(once[modality], again[modality])
    assert not np.array_equal(once[modality], elsewhere[modality])
    assert once[modality].dtype == np.float32
    assert np.array_equal(CLEAN[modality], data().parts["test"].inputs[modality])  # the data itself is left alone


def test_gaussian_noise_is_of_the_spread_of_each_feature_and_grows_with_the_level() -> None:
    noise = under("gaussian(vector)=0.5")["vector"] - CLEAN["vector"]
    assert noise.std(axis=0) == pytest.approx(0.5 * feature_spread(CLEAN["vector"]), rel=0.1)
    twice = under("gaussian(vector)=1")["vector"] - CLEAN["vector"]
    np.testing.assert_allclose(twice, 2 * noise, atol=1e-4)


def test_gaussian_noise_on_pixels_is_of_their_range_and_clipped() -> None:
    noisy = under("gaussian(image)=0.1")["image"]
    inside = np.abs(CLEAN["image"]) < 0.2  # five standard deviations from being clipped
    assert (noisy - CLEAN["image"])[inside].std() == pytest.approx(0.2, rel=0.05)  # [-1, 1] is twice as wide as [0, 1]
    assert np.abs(noisy).max() <= 1


def test_padding_stays_padding() -> None:
    for kind in ("gaussian", "mask", "swap"):
        assert not under(f"{kind}(sequence)=0.9")["sequence"][:, :3].any()


def test_spread_of_sequences_leaves_padding_out() -> None:
    assert feature_spread(CLEAN["sequence"]) == pytest.approx(
        CLEAN["sequence"][:, 3:].reshape(-1, 3).std(axis=0), rel=1e-4
    )


@pytest.mark.parametrize(("modality", "axis"), [("vector", ()), ("sequence", (2,)), ("image", (1,))])
def test_masking_zeroes_a_share_of_features_steps_or_pixels(modality: str, axis: tuple[int, ...]) -> None:
    before, little, much = (
        CLEAN[modality],
        under(f"mask({modality})=0.2")[modality],
        under(f"mask({modality})=0.6")[modality],
    )
    there = before.any(axis=axis) if axis else before != 0
    for x, share in ((little, 0.2), (much, 0.6)):
        gone = ~(x.any(axis=axis) if axis else x != 0)
        assert gone[there].mean() == pytest.approx(share, abs=0.04)
        assert np.array_equal(x[~np.isclose(x, before)], np.zeros((~np.isclose(x, before)).sum()))
    assert not (much[little == 0]).any()  # what a lower level hides, a higher one hides too


def values(x: Floats) -> Floats:
    return np.sort(x.reshape(len(x), -1), axis=1)


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, (3, 6, 2), elements=st.floats(-5, 5, width=32)), st.floats(0.01, 1))
def test_a_swap_keeps_the_steps_and_moves_a_share_of_them(x: Floats, level: float) -> None:
    made = data()
    part = Part({"sequence": x}, np.zeros(3, np.float32))
    moved = corrupted(made, part, Corruption((Step("swap", "sequence", level),))).inputs["sequence"]
    for before, after in zip(x, moved, strict=True):
        assert sorted(map(tuple, before.tolist())) == sorted(map(tuple, after.tolist()))
        there = int(before.any(axis=1).sum())
        assert (before != after).any(axis=1).sum() <= round(level * there)


def test_a_swap_keeps_the_values_of_vectors_and_the_pixels_of_images() -> None:
    assert np.array_equal(values(under("swap(vector)=1")["vector"]), values(CLEAN["vector"]))
    swapped = under("swap(image)=0.5")["image"]

    def pixels(x: Floats) -> list[list[list[float]]]:
        return [sorted(image.reshape(3, -1).T.tolist()) for image in x[:20]]

    assert pixels(swapped) == pixels(CLEAN["image"])


def test_steps_follow_one_another() -> None:
    both = under("gaussian(vector)=0.5&mask(vector)=0.5")["vector"]
    assert (both == 0).mean() == pytest.approx(0.5, abs=0.05)
    assert not np.isclose(both, CLEAN["vector"])[both != 0].any()


kinds = st.sampled_from(["gaussian", "mask", "swap"])
steps = st.builds(
    Step, kinds, st.sampled_from(["text", "audio (left)", "v=1"]), st.floats(0.001, 1).map(lambda x: float(f"{x:g}"))
)


@given(st.lists(steps, max_size=3).map(lambda found: Corruption(tuple(found))))
def test_names_are_read_back(corruption: Corruption) -> None:
    assert split_condition(condition("text+v=1", corruption)) == ("text+v=1", corruption)


def test_conditions_are_clean_first_and_hold_what_is_corrupted() -> None:
    found = conditions(
        ("a", "b", "a+b"), [Corruption.parse("mask(a)=0.5"), Corruption.parse("mask(a)=0.5&mask(b)=0.5")]
    )
    assert found == ("a", "b", "a+b", "a@mask(a)=0.5", "a+b@mask(a)=0.5", "a+b@mask(a)=0.5&mask(b)=0.5")


@pytest.mark.parametrize("text", ["blur(a)=1", "mask(a)", "mask=1", "mask(a)=x"])
def test_other_text_is_no_corruption(text: str) -> None:
    with pytest.raises(ValueError, match="no corruption"):
        Corruption.parse(text)


def test_levels_out_of_range_are_named() -> None:
    assert level_problem("mask", 1) is None
    assert "share" in str(level_problem("swap", 1.1))
    assert "standard deviation" in str(level_problem("gaussian", 0))
