"""Label masks and splits: stratified, nested, paired over methods, reproducible."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.labels import label_mask, label_warning, stratified_split

group_arrays = st.lists(st.integers(-3, 8), min_size=1, max_size=120).map(np.array)
ratios = st.floats(0.001, 1.0)
quick = settings(deadline=None, max_examples=150)


def mask(groups, ratio, *, dataset="digits", seed=0, at_least_one=False):
    return label_mask(groups, ratio, dataset=dataset, seed=seed, at_least_one=at_least_one)


@quick
@given(group_arrays, ratios, ratios, st.integers(0, 99), st.booleans())
def test_a_larger_ratio_shows_all_that_a_smaller_one_does(groups, a, b, seed, at_least_one):
    small, large = (mask(groups, r, seed=seed, at_least_one=at_least_one) for r in sorted((a, b)))
    assert not (small & ~large).any()


@quick
@given(group_arrays, ratios, st.integers(0, 99), st.booleans())
def test_every_class_is_within_one_label_of_its_share(groups, ratio, seed, at_least_one):
    shown = mask(groups, ratio, seed=seed, at_least_one=at_least_one)
    classes = np.unique(groups)
    for c in classes:
        n = (groups == c).sum()
        # Of label sets the total comes first: it may move a class by its part of the other classes' roundings.
        moved = 0 if at_least_one else (len(classes) + 1) * n / len(groups)
        assert abs(shown[groups == c].sum() - ratio * n) < 1 + moved + 1e-9


@quick
@given(st.integers(1, 12), st.integers(1, 20), ratios, st.integers(0, 99))
def test_with_classes_of_one_size_the_total_is_within_half_a_label(n_classes, size, ratio, seed):
    groups = np.repeat(np.arange(n_classes), size)
    shown = mask(groups, ratio, seed=seed, at_least_one=True).sum()
    share = ratio * len(groups)
    assert abs(shown - share) <= 0.5 + 1e-6 or share < n_classes


@quick
@given(group_arrays, ratios, st.integers(0, 99))
def test_at_least_one_label_of_every_class_and_never_none(groups, ratio, seed):
    kept = mask(groups, ratio, seed=seed, at_least_one=True)
    assert set(groups[kept]) == set(groups)
    assert mask(groups, ratio, seed=seed).any()


@quick
@given(group_arrays, st.integers(0, 99), st.booleans())
def test_ratio_one_shows_everything(groups, seed, at_least_one):
    assert mask(groups, 1.0, seed=seed, at_least_one=at_least_one).all()


@quick
@given(group_arrays, ratios, st.integers(0, 99))
def test_names_of_classes_do_not_matter_only_their_order(groups, ratio, seed):
    assert np.array_equal(mask(groups, ratio, seed=seed), mask(groups * 10 + 3, ratio, seed=seed))


def test_uneven_classes_drift_by_a_label_or_two_at_most():
    groups = np.repeat(np.arange(7), [53, 40, 12, 9, 200, 131, 30])
    totals = [mask(groups, 0.1, seed=seed, at_least_one=True).sum() for seed in range(300)]
    assert np.mean(totals) == pytest.approx(0.1 * len(groups), abs=0.3)
    assert np.ptp(totals) <= 4


# ---- label sets: thousands of classes, most of them with a sample or two ---------------------------------------------


def like_mm_imdb(n, n_labels, rng):
    """Label sets (n, n_labels) as bits: labels that get rarer, one to four a sample, most sets rare."""
    share = 0.5 * 0.78 ** np.arange(n_labels)
    bits = rng.random((n, n_labels)) < share
    bits[~bits.any(axis=1), 0] = True
    return bits


def codes(bits):
    return (bits * (1 << np.arange(bits.shape[1]))).sum(axis=1)


@quick
@given(st.integers(1, 400), st.integers(1, 12), ratios, ratios, st.integers(0, 99))
def test_label_sets_show_the_share_asked_for_and_are_nested(n, n_labels, a, b, seed):
    groups = codes(like_mm_imdb(n, n_labels, np.random.default_rng(seed)))
    small, large = (mask(groups, ratio, seed=seed) for ratio in sorted((a, b)))
    assert not (small & ~large).any()
    for shown, ratio in ((small, min(a, b)), (large, max(a, b))):
        assert shown.sum() == max(1, round(ratio * n))  # within half a label, so within 0.5 % from 100 samples on


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.5])
def test_every_label_shows_its_share_though_most_label_sets_are_rare(ratio):
    bits = like_mm_imdb(15552, 23, np.random.default_rng(0))
    groups = codes(bits)
    sizes = np.unique(groups, return_counts=True)[1]
    assert len(sizes) > 1500
    assert np.median(sizes) == 1
    for seed in range(5):
        shown = mask(groups, ratio, seed=seed)
        assert abs(shown.mean() - ratio) < 0.005 * ratio
        expected, found = ratio * bits.sum(axis=0), bits[shown].sum(axis=0)
        # A draw that ignored the labels would be off by `by_chance` in the mean square.
        by_chance = np.sqrt(expected * (1 - ratio))
        assert np.sqrt(np.mean(((found - expected) / by_chance) ** 2)) < 0.7
        assert (abs(found - expected) < 1 + 2.5 * by_chance).all()


def test_rare_label_sets_are_shown_as_often_as_others():
    groups = np.concatenate([np.zeros(60, int), np.arange(1, 41)])
    often = np.mean([mask(groups, 0.2, seed=seed) for seed in range(800)], axis=0)
    assert abs(often - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 800)


def test_masks_of_label_sets_stay_the_same_from_version_to_version():
    """Golden, as below."""
    groups = np.array([0, 5, 5, 1, 2, 2, 2, 8, 8, 3, 9, 2, 4, 6, 1, 1, 7, 5, 10, 2])
    assert np.flatnonzero(mask(groups, 0.25, seed=3)).tolist() == [0, 4, 7, 12, 14]


def test_every_sample_is_shown_equally_often():
    groups = np.repeat([0, 1, 2], [50, 30, 20])
    often = np.mean([mask(groups, 0.3, seed=seed) for seed in range(600)], axis=0)
    assert abs(often - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 600)


def test_the_draw_depends_on_data_set_and_seed_alone():
    groups = np.arange(200) % 5
    reference = mask(groups, 0.3)
    np.random.seed(7)  # noqa: NPY002 (the global stream must not matter)
    np.random.random(11)  # noqa: NPY002
    assert np.array_equal(mask(groups, 0.3), reference)
    assert not np.array_equal(mask(groups, 0.3, seed=1), reference)
    assert not np.array_equal(mask(groups, 0.3, dataset="synthetic"), reference)


def test_the_global_stream_is_left_as_it_was():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    mask(np.arange(50) % 5, 0.5)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_masks_stay_the_same_from_version_to_version():
    """Golden: results of a finished grid must stay comparable. Written by this code when it was made."""
    groups = np.arange(30) % 3
    assert np.flatnonzero(mask(groups, 0.2, seed=3, at_least_one=True)).tolist() == [2, 12, 14, 22, 27, 28]


@pytest.mark.parametrize("ratio", [0, -0.1, 1.01, float("nan")])
def test_a_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(ValueError, match=r"in \(0, 1\], got"):
        mask(np.zeros(3, dtype=int), ratio)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="without samples"):
        mask(np.zeros(0, dtype=int), 0.5)


def test_the_warning_counts_classes_with_less_than_one_label():
    groups = np.repeat([0, 1, 2, 3], [5, 40, 9, 20])
    assert label_warning(groups, 0.05) == (
        "label ratio 0.05 is less than one label for 2 of 4 classes (class 0 has 5 and class 2 has 9 training "
        "samples): each of them keeps one label, more than its share."
    )
    assert label_warning(groups, 0.2) is None
    assert "class 0 has 1, class 1 has 1, class 2 has 1 and 6 more" in label_warning(np.arange(9), 0.5)


@quick
@given(group_arrays, st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 9))
def test_a_split_deals_every_sample_once_and_each_class_by_its_shares(groups, parts, seed):
    shares = np.array(parts) / sum(parts)
    dealt = stratified_split(groups, list(shares), "test", seed)
    assert sorted(np.concatenate(dealt)) == list(range(len(groups)))
    for rows, share in zip(dealt, shares, strict=True):
        assert (np.diff(rows) > 0).all()
        for c in np.unique(groups):
            assert abs((groups[rows] == c).sum() - share * (groups == c).sum()) < 1 + 1e-9


def test_a_split_is_exact_where_shares_are_whole():
    train, valid = stratified_split(np.repeat(np.arange(10), 160), (0.8, 0.2), "x")
    assert len(train) == 1280
    assert np.bincount(np.repeat(np.arange(10), 160)[valid]).tolist() == [32] * 10


@pytest.mark.parametrize("shares", [(), (0.5, 0.4), (1.2, -0.2)])
def test_shares_must_add_up(shares):
    with pytest.raises(ValueError, match="add up to 1"):
        stratified_split(np.zeros(4, dtype=int), shares, "x")
