"""Samples that come again: refused with the remedy, or kept or dropped as a person decides."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.base import SPLITS
from datasets.cmu_mosi import CmuMosi
from datasets.errors import DataError, UserError
from datasets.overlap import checked, first_overlap, kept_rows
from datasets.pairs import Sample, read_pairs, verify_pairs, write_pairs
from datasets.raw_maker import affect_content
from datasets.store import read_all, verify_store
from datasets.store_folder import ARRAYS
from tests.datasets.image_text_fixtures import picture
from tests.datasets.test_pairs import raw, samples

ids = st.fixed_dictionaries({split: st.lists(st.sampled_from("abcdefgh"), max_size=8) for split in SPLITS})


@given(ids)
def test_of_what_is_dropped_one_stays_in_the_latest_split(names):
    rows = kept_rows(names, within=True)
    kept = {split: [names[split][row] for row in rows[split]] for split in SPLITS}
    everyone = [name for split in SPLITS for name in kept[split]]
    assert sorted(everyone) == sorted({name for split in SPLITS for name in names[split]})
    assert first_overlap(kept) is None
    for name in everyone:
        latest = [split for split in SPLITS if name in names[split]][-1]
        assert kept[latest].count(name) == 1
    assert all(row == sorted(row) for row in rows.values())


@given(ids)
def test_what_is_alike_in_one_split_may_stay(names):
    rows = kept_rows(names, within=False)
    assert len(rows["test"]) == len(names["test"])
    for split, later in (("train", ("valid", "test")), ("valid", ("test",))):
        gone = {name for other in later for name in names[other]}
        assert [names[split][row] for row in rows[split]] == [name for name in names[split] if name not in gone]


def test_other_words_are_refused():
    assert checked("drop") == "drop"
    with pytest.raises(UserError, match="one of refuse, keep, drop, got 'dorp'"):
        checked("dorp")


# ---- CMU-MOSI -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pickled(tmp_path):
    """Two test samples are training samples, one of them a validation sample too."""
    content = affect_content("cmu_mosi", "mult", (12, 7, 7))
    for part in content.values():
        part["id"] = part["id"].tolist()
    content["test"]["id"][:2] = content["train"]["id"][:2]
    content["valid"]["id"][3] = content["train"]["id"][0]
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(content))
    return tmp_path / "m.pkl", content


def test_a_pickle_with_overlap_is_refused_with_the_remedy(tmp_path, pickled):
    with pytest.raises(DataError, match="--overlap drop leaves it in one of them only"):
        CmuMosi.prepare(pickled[0], tmp_path / "cmu_mosi")


def test_overlap_of_a_pickle_is_dropped_from_the_earlier_split(tmp_path, pickled):
    path, content = pickled
    CmuMosi.prepare(path, tmp_path / "cmu_mosi", "drop")
    stored = read_all(tmp_path / "cmu_mosi")
    assert [len(stored.data.parts[split]) for split in SPLITS] == [10, 6, 7]
    expected = np.delete(content["valid"]["vision"], 3, axis=0).astype(np.float32)
    assert np.array_equal(stored.data.parts["valid"].inputs["vision"], expected)
    assert np.array_equal(stored.data.parts["train"].target, content["train"]["labels"][2:, 0, 0].astype(np.float32))
    assert any("were dropped (2 train, 1 valid)" in warning for warning in stored.card.warnings)
    assert verify_store(tmp_path / "cmu_mosi") == []


def test_a_split_that_would_be_empty_is_refused(tmp_path, pickled):
    path, content = pickled
    content["valid"]["id"] = content["test"]["id"]
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match="has every sample of 'valid' in a later split too"):
        CmuMosi.prepare(path, tmp_path / "cmu_mosi", "drop")


def test_overlap_of_a_pickle_may_be_kept_and_a_change_of_mind_is_noticed(tmp_path, pickled):
    CmuMosi.prepare(pickled[0], tmp_path / "cmu_mosi", "keep")
    stored = read_all(tmp_path / "cmu_mosi")
    assert [len(stored.data.parts[split]) for split in SPLITS] == [12, 7, 7]
    assert any("that were trained on" in warning for warning in stored.card.warnings)
    CmuMosi.prepare(pickled[0], tmp_path / "cmu_mosi", "drop")
    assert len(read_all(tmp_path / "cmu_mosi").data.parts["train"]) == 10


# ---- images and texts -----------------------------------------------------------------------------------------------


def overlapping():
    """`s1` is in training and test under one id; `s2` is `s5`, of validation, under another."""
    items = samples(10)
    items[-1] = Sample("s1", "test", 1, ("another text",), picture(1, seed=70))
    items[6] = Sample("s6", "valid", 0, items[2].texts, items[2].image)
    return items


def test_overlap_of_pairs_is_dropped_by_id_and_by_content(tmp_path):
    items = overlapping()
    card = write_pairs(tmp_path / "toy", "toy", raw(items), "drop")
    found = read_pairs(tmp_path / "toy")
    assert found.ids == ["s0", "s3", "s4", "s5", "s6", "s7", "s8", "s1"]
    assert any("were dropped (2 train)" in note for note in card.notes)
    assert found.texts(7) == ["another text"]
    assert [found.image(row) for row in range(8)] == [items[i].image for i in (0, 3, 4, 5, 6, 7, 8, 9)]
    assert verify_pairs(tmp_path / "toy") == []
    alone = [items[i] for i in (0, 3, 4, 5, 6, 7, 8, 9)]
    write_pairs(tmp_path / "alone", "toy", raw(alone))
    assert (tmp_path / "alone" / ARRAYS).read_bytes() == (tmp_path / "toy" / ARRAYS).read_bytes()


def test_overlap_of_pairs_is_refused_or_kept(tmp_path):
    with pytest.raises(DataError, match=r"'s1' is in both train and test\. --overlap drop"):
        write_pairs(tmp_path / "toy", "toy", raw(overlapping()))
    assert sum(write_pairs(tmp_path / "toy", "toy", raw(overlapping()), "keep").sizes.values()) == 10
    assert verify_pairs(tmp_path / "toy") == []


def test_without_overlap_nothing_is_dropped(tmp_path):
    dropped = write_pairs(tmp_path / "a", "toy", raw(), "drop")
    assert dropped == write_pairs(tmp_path / "b", "toy", raw())
