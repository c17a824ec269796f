"""Folds: every sample is tested once, classes keep their shares, videos stay whole, nothing is learnt across splits."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from datasets.affect import AffectConfig
from datasets.base import SPLITS
from datasets.cmu_mosi import CmuMosi
from datasets.digits import Digits
from datasets.errors import DataError
from datasets.folds import FoldConfig, block_rows, stratified_rows
from datasets.handwritten import HandwrittenConfig
from datasets.image_text import ImageTextConfig
from datasets.mm_imdb import MMIMDbConfig
from datasets.own import Own, OwnConfig
from datasets.raw_maker import affect_content, make_raw
from datasets.store import content_problems, read_all, store_directory
from datasets.synthetic import Synthetic, SyntheticConfig
from tests.datasets.fixtures import make_own_folder

quick = settings(deadline=None, max_examples=100)
group_arrays = st.lists(st.integers(0, 6), min_size=12, max_size=150).map(np.array)


def rows_of(groups, fold, folds, name="digits"):
    return stratified_rows(groups, name, FoldConfig(fold=fold, folds=folds))


@quick
@given(group_arrays, st.integers(3, 6))
def test_the_folds_test_every_sample_once_and_validate_on_it_once(groups, folds):
    found = [rows_of(groups, fold, folds) for fold in range(1, folds + 1)]
    everyone = list(range(len(groups)))
    for split in ("test", "valid"):
        assert sorted(np.concatenate([rows[split] for rows in found])) == everyone
    for fold, rows in enumerate(found):
        assert sorted(np.concatenate([rows[split] for split in SPLITS])) == everyone
        assert np.array_equal(rows["valid"], found[(fold + 1) % folds]["test"])
        assert abs(len(rows["test"]) - len(groups) / folds) < 1


@quick
@given(group_arrays, st.integers(3, 6))
def test_every_part_has_its_share_of_every_class(groups, folds):
    classes = np.unique(groups)
    for fold in range(1, folds + 1):
        tested = rows_of(groups, fold, folds)["test"]
        for c in classes:
            n = (groups == c).sum()
            # Parts are equal to a sample, and that comes before the classes' roundings.
            assert abs((groups[tested] == c).sum() - n / folds) < 2 + 2 * len(classes) * n / len(groups)


def test_of_many_samples_every_part_has_the_same_classes():
    groups = np.repeat(np.arange(10), 180)
    for fold in range(1, 11):
        counts = np.bincount(groups[rows_of(groups, fold, 10)["test"]])
        assert abs(counts - 18).max() <= 1


def test_the_deal_depends_on_name_and_number_of_folds_alone():
    groups = np.arange(200) % 5
    first = rows_of(groups, 1, 5)["test"]
    np.random.seed(3)  # noqa: NPY002 (the global stream must not matter)
    assert np.array_equal(rows_of(groups, 1, 5)["test"], first)
    assert not np.array_equal(rows_of(groups, 1, 5, name="other")["test"], first)
    assert first[:8].tolist() == [2, 5, 21, 29, 33, 42, 43, 56]


@quick
@given(st.integers(0, 1000), st.integers(3, 6))
def test_blocks_stay_whole_and_parts_about_equal(seed, folds):
    rng = np.random.default_rng(seed)
    blocks = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    groups = rng.integers(0, 4, len(blocks))
    found = [block_rows(groups, blocks, "x", FoldConfig(fold=fold, folds=folds)) for fold in range(1, folds + 1)]
    assert sorted(np.concatenate([rows["test"] for rows in found])) == list(range(len(blocks)))
    for rows in found:
        parted = [set(blocks[rows[split]]) for split in SPLITS]
        assert sum(map(len, parted)) == len(set.union(*parted))
        assert abs(len(rows["test"]) - len(blocks) / folds) <= 8 + 0.1 * len(blocks) / folds
        share = np.bincount(groups[rows["test"]], minlength=4) / len(rows["test"])
        assert abs(share - np.bincount(groups) / len(groups)).max() < 0.12


# ---- data sets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda **fold: Digits(FoldConfig(**fold)),
        lambda **fold: Synthetic(SyntheticConfig(n_train=60, n_valid=20, n_test=41, **fold)),
        lambda **fold: Synthetic(SyntheticConfig(n_train=60, n_valid=20, n_test=41, task="regression", **fold)),
        lambda **fold: Synthetic(SyntheticConfig(n_train=60, n_valid=20, n_test=41, task="multilabel", **fold)),
    ],
)
def test_a_fold_is_what_its_description_says(make):
    prints, whole = {make().spec().fingerprint}, make().load()
    total = sum(part.inputs[name].sum() for part in whole.parts.values() for name in part.inputs)
    for fold in (1, 2, 5):
        dataset = make(fold=fold, folds=5)
        data = dataset.load()
        assert data.spec == dataset.spec()
        assert content_problems(data.spec, data.parts) == []
        assert sum(part.inputs[name].sum() for part in data.parts.values() for name in part.inputs) == pytest.approx(
            total, rel=1e-4
        )
        prints.add(data.spec.fingerprint)
    assert len(prints) == 4
    assert make(folds=7).spec() == make().spec()


def test_scaling_is_learnt_on_the_folds_own_training_split(tmp_path):
    folder = make_own_folder(tmp_path / "mine")
    for fold in (1, 3):
        data = Own(OwnConfig(folder=str(folder), scaling="train", fold=fold, folds=3)).load()
        for x in data.parts["train"].inputs.values():
            rows = x.reshape(-1, x.shape[-1])
            filled = rows[rows.any(axis=1)].astype(np.float64)
            assert abs(filled.mean(axis=0)).max() < 1e-5


@pytest.fixture
def mosi(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))
    make_raw("cmu_mosi", tmp_path / "mosi.pkl", rows=60)
    CmuMosi.prepare(tmp_path / "mosi.pkl", store_directory("cmu_mosi"))


@pytest.mark.usefixtures("mosi")
def test_clips_of_a_video_are_never_on_both_sides():
    stored = read_all(store_directory("cmu_mosi"))
    video = np.concatenate([stored.extras[f"{split}/video"] for split in SPLITS])
    first = np.concatenate([stored.data.parts[split].inputs["audio"][:, -1, 0] for split in SPLITS])
    assert len(set(first)) > 0.9 * len(first)  # tells samples apart
    of = {}
    for value, code in zip(first, video, strict=True):
        of.setdefault(float(value), code)
    tested = []
    for fold in range(1, 5):
        dataset = CmuMosi(AffectConfig(fold=fold, folds=4, labels="binary", scaling="none"))
        data = dataset.load()
        assert data.spec == dataset.spec()
        sides = [{of[float(v)] for v in data.parts[split].inputs["audio"][:, -1, 0] if v} for split in SPLITS]
        assert sum(map(len, sides)) == len(set.union(*sides))
        tested.append(len(data.parts["test"]))
    assert sum(tested) == len(first)


@pytest.mark.usefixtures("mosi")
def test_folds_are_the_same_for_every_kind_of_label():
    first, second = (CmuMosi(AffectConfig(fold=2, labels=kind)).load() for kind in ("regression", "three_class"))
    assert np.array_equal(first.parts["test"].inputs["text"], second.parts["test"].inputs["text"])


def test_without_names_of_samples_the_folds_of_videos_are_refused(tmp_path, monkeypatch):

    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))
    content = affect_content("cmu_mosi", "mult", (20, 7, 7))
    for part in content.values():
        del part["id"]
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(content))
    CmuMosi.prepare(tmp_path / "m.pkl", store_directory("cmu_mosi"))
    with pytest.raises(DataError, match="does not tell which clips are of one video"):
        CmuMosi(AffectConfig(fold=1)).spec()


def test_too_many_folds_are_refused():
    with pytest.raises(DataError, match="'synthetic' is too small for 40 folds"):
        Synthetic(SyntheticConfig(n_train=10, n_valid=4, n_test=4, fold=3, folds=40)).spec()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: FoldConfig(fold=6), "fold is one of 1 to 5"),
        (lambda: FoldConfig(fold=1, folds=2), "greater than or equal to 3"),
        (lambda: HandwrittenConfig(fold=1, scaling="released"), "scaling: released"),
        (lambda: AffectConfig(fold=1, empty_text="drop"), "empty_text: drop"),
        (lambda: MMIMDbConfig(fold=1, plots="all"), "plots: all"),
        (lambda: ImageTextConfig(fold=1, features="vilt.noise-0.18.seed-0"), "corrupted in the released test split"),
    ],
)
def test_what_folds_cannot_be_is_refused(make, told):
    with pytest.raises(ValidationError, match=told):
        make()
