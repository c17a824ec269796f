"""Random raw files have the keys, types, nesting, shapes and quirks of the real ones."""

import pickle

import h5py
import numpy as np
import pytest

from datasets.errors import DataError, UserError
from datasets.raw_maker import FORMATS, affect_content, make_raw, sentiments, split_sizes


def test_the_real_sizes_are_the_default():
    assert split_sizes("cmu_mosi", "mult", None) == (1284, 229, 686)
    assert split_sizes("cmu_mosei", "multibench", None) == (16265, 1869, 4643)
    assert split_sizes("cmu_mosei", "mmsa_unaligned", None) == (16326, 1871, 4659)
    assert split_sizes("cmu_mosei", "mult", 800) == (800, 100, 300)


@pytest.mark.parametrize("name", ["cmu_mosi", "cmu_mosei"])
def test_mult_files(name):
    part = affect_content(name, "mult", (12, 7, 7))["train"]
    assert set(part) == {"text", "audio", "vision", "labels", "id"}
    assert {key: part[key].dtype.kind for key in part} == {
        "text": "f", "audio": "f", "vision": "f", "labels": "f", "id": "S" if name == "cmu_mosi" else "U",
    }  # fmt: skip
    assert part["text"].shape == (12, 50, 300)
    assert part["text"].dtype == np.float64
    assert part["labels"].shape == (12, 1, 1)
    assert part["id"].shape == (12, 3)
    assert np.isneginf(part["audio"]).sum() == 2
    assert np.isnan(part["audio"]).sum() == 1
    padding = (~part["text"].any(axis=2)).sum(axis=1)
    assert padding.min() >= 5
    assert padding.max() <= 30
    assert all(not row[:n].any() and row[n:].any(axis=1).all() for row, n in zip(part["text"], padding, strict=True))


def test_multibench_files():
    part = affect_content("cmu_mosi", "multibench", (12, 7, 7))["train"]
    assert list(part) == ["vision", "audio", "text", "labels", "id"]
    assert [part[key].shape for key in ("vision", "audio", "text")] == [(12, 50, 35), (12, 50, 74), (12, 50, 300)]
    assert part["id"][5] == "train1[1]"
    assert (~part["text"].any(axis=(1, 2))).sum() == 1


def test_mmsa_files():
    part = affect_content("cmu_mosei", "mmsa_unaligned", (12, 7, 7))["test"]
    assert set(part) == {
        "raw_text", "audio", "vision", "id", "text", "text_bert", "audio_lengths", "vision_lengths", "annotations",
        "classification_labels", "regression_labels",
    }  # fmt: skip
    assert part["text"].shape == (7, 50, 768)
    assert part["audio"].shape == (7, 375, 74)
    assert part["vision"].shape == (7, 500, 35)
    assert part["text_bert"].shape == (7, 3, 50)
    assert part["text_bert"].dtype == np.int64
    assert part["text_bert"][0, 1].all()
    assert all(isinstance(n, int) for n in part["audio_lengths"])
    assert "audio_lengths" not in affect_content("cmu_mosei", "mmsa", (7, 7, 7))["test"]
    assert np.array_equal(part["classification_labels"], np.sign(part["regression_labels"]) + 1)
    assert not part["vision"][1, part["vision_lengths"][1] :].any()


def test_sentiments_are_multiples_of_a_fifth_with_zeros_and_every_level():
    target = sentiments(np.random.default_rng(0), 14)
    assert np.allclose(target * 5, np.round(target * 5))
    assert (target == 0).sum() >= 2
    assert set(np.round(target)) == {-3, -2, -1, 0, 1, 2, 3}


def test_iemocap_folder(tmp_path):
    make_raw("iemocap", tmp_path / "raw", rows=20)
    with h5py.File(tmp_path / "raw/A/comparE.h5") as file:
        assert len(file) == 20
        assert next(iter(file.values())).shape[1] == 130
    for name, shape in {"V/denseface.h5": (50, 342), "L/bert_large.h5": (22, 1024)}.items():
        with h5py.File(tmp_path / "raw" / name) as file:
            assert {data.shape for data in file.values()} == {shape}
    with h5py.File(tmp_path / "raw/A/comparE_mean_std.h5") as file:
        assert sorted(file, key=int) == [str(fold) for fold in range(1, 11)]
        assert file["3/mean"].shape == file["3/std"].shape == (130,)
    names = np.load(tmp_path / "raw/target/2/tst_int2name.npy")
    assert names.dtype.kind == "S"
    assert names.shape == (2, 1)


@pytest.mark.parametrize("form", FORMATS)
def test_files_are_the_same_for_the_same_seed(tmp_path, form):
    for name in ("a", "b"):
        make_raw("cmu_mosi", tmp_path / name, rows=8, form=form)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert list(pickle.loads((tmp_path / "a").read_bytes())) == ["train", "valid", "test"]


def test_what_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "there").touch()
    with pytest.raises(UserError, match="there is no maker of 'digits'"):
        make_raw("digits", tmp_path / "x")
    with pytest.raises(UserError, match="there is no format 'muilt': it is one of mult"):
        make_raw("cmu_mosi", tmp_path / "x", form="muilt")
    with pytest.raises(UserError, match="iemocap has one format"):
        make_raw("iemocap", tmp_path / "x", form="mult")
    with pytest.raises(UserError, match="--rows takes 1 to"):
        make_raw("cmu_mosi", tmp_path / "x", rows=0)
    with pytest.raises(DataError, match="exists and is not overwritten"):
        make_raw("cmu_mosi", tmp_path / "there", rows=8)
    with pytest.raises(DataError, match="cannot be written: No such file or directory"):
        make_raw("cmu_mosi", tmp_path / "no" / "x", rows=8)
