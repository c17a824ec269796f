"""MM-IMDb from the raw folder, the Arrow files and the HDF5 file, and what such files may hold instead."""

import json

import h5py
import numpy as np
import pyarrow as pa
import pytest

from datasets.base import SPLITS
from datasets.errors import DataError
from datasets.mm_imdb import GENRES, TASK, MMIMDb, MMIMDbConfig, read_hdf5
from datasets.pairs import read_pairs, verify_pairs
from datasets.store import read_card, store_directory, verify_store
from tests.datasets.image_text_fixtures import (
    film,
    film_ids,
    make_mm_imdb,
    make_mm_imdb_arrow,
    make_mm_imdb_hdf5,
    mm_imdb_hdf5_arrays,
    picture,
    write,
    write_arrow,
)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))
    return store_directory("mm_imdb")


def refusal(folder, store):
    with pytest.raises(DataError) as caught:
        MMIMDb.prepare(folder, store)
    assert not store.exists()
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_there_are_the_23_genres_of_the_released_set():
    assert len(GENRES) == len(set(GENRES)) == TASK.width == 23


@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_raw_folder_becomes_a_store(tmp_path, store, side_by_side):
    MMIMDb.prepare(make_mm_imdb(tmp_path / "raw", side_by_side=side_by_side), store)
    found, ids = read_pairs(store), film_ids()
    assert found.ids == ids["train"] + ids["dev"] + ids["test"]
    for row, film_id in enumerate(found.ids):
        original = film(int(film_id))
        assert found.texts(row) == original["plot"]
        assert {GENRES[i] for i in np.flatnonzero(found.target[row])} == set(original["genres"]) & set(GENRES)
        assert found.image(row) == picture(int(film_id) % 2, (8, 8), seed=int(film_id))
    assert verify_pairs(store) == []


@pytest.mark.parametrize("large", [False, True])
def test_arrow_files_give_the_same_store_as_the_folder(tmp_path, store, large):
    MMIMDb.prepare(make_mm_imdb(tmp_path / "raw"), store)
    fingerprint = read_pairs(store).card.fingerprint
    MMIMDb.prepare(make_mm_imdb_arrow(tmp_path / "arrow", large=large), store)
    assert read_pairs(store).card.fingerprint == fingerprint


def test_one_plot_or_all_of_them():
    plots = ["short", "much longer than that", "  ", " " * 90]
    assert MMIMDb().choose(plots) == ["much longer than that"]
    assert MMIMDb(MMIMDbConfig(plots="all")).choose(plots) == plots[:2]


def test_what_is_told_of_a_small_set(tmp_path, store):
    folder = make_mm_imdb(tmp_path / "raw")
    (folder / "labels" / "0000005.json").unlink()
    write(folder / "labels" / "0000006.json", {"plot": ["x"], "genres": ["News"]})
    told = MMIMDb.prepare(folder, store)
    assert "mm_imdb: 11 train, 6 valid, 6 test; images and texts." in told
    assert "train 11 (released: 15552)" in told
    assert "1 films have none of the 23 genres; they are kept, with no label." in told
    assert "left out: 0000005: the label file is missing" in told
    assert "bench data embed mm_imdb --with vilt" in told


def split_with(**changed):
    return {**film_ids(), **changed}


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("split.json", "[]", "split.json must have lists of ids for train, dev and test"),
        ("split.json", json.dumps({"train": [], "test": []}), "must have lists of ids"),
        ("split.json", json.dumps(split_with(dev=[5])), "'dev' must be a list of ids as strings"),
        ("split.json", json.dumps(split_with(dev=["0000005"])), "sample '0000005' is in both train and valid"),
        ("split.json", json.dumps(split_with(dev=["../../etc/passwd"])), "'../../etc/passwd' in 'dev' is not"),
        ("split.json", json.dumps(split_with(test=["00000\n5"])), "is not the number of a film"),
        ("split.json", "{", "split.json is not JSON"),
        ("labels/0000007.json", json.dumps({"genres": ["Drama"]}), "0000007.json: 'plot' must be a list of strings"),
        ("labels/0000007.json", json.dumps({"plot": ["x"], "genres": "Drama"}), "'genres' must be a list of strings"),
        ("labels/0000007.json", json.dumps({"plot": [7], "genres": []}), "'plot' must be a list of strings"),
        ("labels/0000007.json", json.dumps([1]), "'plot' must be a list of strings"),
        ("labels/0000007.json", b"\xff\xfe{", "0000007.json is not JSON"),
    ],
)  # fmt: skip
def test_a_folder_with_odd_files_is_refused_in_one_sentence(tmp_path, store, file, content, told):
    folder = make_mm_imdb(tmp_path / "raw")
    write(folder / file, content)
    assert told in refusal(folder, store)


def test_another_folder_is_refused(tmp_path, store):
    assert "split.json cannot be read: No such file or directory" in refusal(tmp_path, store)
    write(tmp_path / "split.json", film_ids())
    assert "images is missing" in refusal(tmp_path, store)
    write(tmp_path / "mmimdb.zip", b"PK")
    assert "is an archive: unpack it first" in refusal(tmp_path / "mmimdb.zip", store)


# ---- Arrow files ------------------------------------------------------------------------------------------------

STRINGS = pa.list_(pa.string())
FIELDS = {
    "image": pa.binary(), "plots": STRINGS, "label": pa.list_(pa.int64()), "genres": STRINGS, "image_id": pa.string(),
}  # fmt: skip
ROW = {"image": picture(), "plots": ["x"], "label": [1] + [0] * 22, "genres": ["Drama"], "image_id": "1"}
ARROWS = {
    "no column": ({"plots": None}, ROW, "lacks the column 'plots': it has image, label, genres, image_id"),
    "type": ({"image": pa.string()}, {**ROW, "image": "x"}, "has the column 'image' as string, expected binary"),
    "text": ({"plots": pa.string()}, {**ROW, "plots": "x"}, "has the column 'plots' as string, expected texts"),
    "floats": (
        {"label": pa.list_(pa.float32())}, {**ROW, "label": [0.5] * 23}, "as list<item: float>, expected integers",
    ),
    "22 labels": ({}, {**ROW, "label": [0] * 22}, "row 0 must have 23 indicators of 0 or 1 as 'label'"),
    "label 2": ({}, {**ROW, "label": [2] * 23}, "row 0 must have 23 indicators of 0 or 1 as 'label'"),
    "null": ({}, {**ROW, "image": None}, "has an empty value in row 0"),
    "null label": ({}, {**ROW, "label": [None] * 23}, "row 0 must have 23 indicators"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARROWS)
def test_odd_arrow_files_are_refused(tmp_path, store, case):
    changed, row, told = ARROWS[case]
    make_mm_imdb_arrow(tmp_path)
    fields = {name: dtype for name, dtype in {**FIELDS, **changed}.items() if dtype is not None}
    write_arrow(tmp_path / "mmimdb_dev.arrow", [{name: row[name] for name in fields}], pa.schema(fields))
    assert told in refusal(tmp_path, store)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 0.99])
def test_a_truncated_arrow_file_is_refused(tmp_path, store, share):
    path = make_mm_imdb_arrow(tmp_path) / "mmimdb_dev.arrow"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "mmimdb_dev.arrow is not an Arrow file that can be read" in refusal(tmp_path, store)


def test_all_three_arrow_files_are_needed(tmp_path, store):
    (make_mm_imdb_arrow(tmp_path) / "mmimdb_dev.arrow").unlink()
    assert "mmimdb_dev.arrow is missing, but mmimdb_train.arrow is there" in refusal(tmp_path, store)


# ---- HDF5 file --------------------------------------------------------------------------------------------------

SPLIT = {"train": ["0000005", "0000006", "0000009"], "dev": ["0000007"], "test": ["0000010", "0000008"]}


@pytest.fixture
def hdf5(tmp_path):
    write(tmp_path / "gmu" / "split.json", SPLIT)
    return tmp_path / "gmu" / "multimodal_imdb.hdf5"


def test_the_hdf5_file_becomes_features(hdf5, store):
    arrays = make_mm_imdb_hdf5(hdf5)
    told = MMIMDb.prepare(hdf5.parent, store)
    assert "1 plots without a known word: their text is zero" in told
    dataset = MMIMDb(MMIMDbConfig(features="vgg-word2vec"))
    spec, data = dataset.spec(), dataset.load()
    assert data.spec == spec
    assert spec.modalities == {"text": (300,), "image": (4096,)}
    assert spec.name == "mm_imdb"
    rows = {split: [int(film_id) - 5 for film_id in SPLIT[name]] for split, name in zip(SPLITS, SPLIT, strict=True)}
    for split, part in data.parts.items():
        assert np.array_equal(part.inputs["image"], arrays["vgg_features"][rows[split]])
        assert np.array_equal(part.inputs["text"], np.nan_to_num(arrays["features"][rows[split]]))
        assert np.array_equal(part.target, arrays["genres"][rows[split]][:, ::-1])  # the file has them reversed
    assert (data.parts["train"].inputs["text"][1] == 0).all()
    assert dataset.verify() == []
    assert verify_store(store.with_name("mm_imdb.vgg-word2vec")) == []
    assert read_card(store.with_name("mm_imdb.vgg-word2vec")).provenance["file"] == hdf5.name


def test_without_split_json_the_rows_must_be_those_of_the_released_file(hdf5, store, monkeypatch):
    arrays = make_mm_imdb_hdf5(hdf5)
    (hdf5.parent / "split.json").unlink()
    assert "has 6 rows, the released file 25959: put split.json beside it" in refusal(hdf5, store)
    monkeypatch.setattr("datasets.mm_imdb.RELEASED", {"train": 3, "valid": 1, "test": 2})
    MMIMDb.prepare(hdf5, store)
    parts = MMIMDb(MMIMDbConfig(features="vgg-word2vec")).load().parts
    assert np.array_equal(parts["test"].inputs["image"], arrays["vgg_features"][4:])


GOOD = mm_imdb_hdf5_arrays()
BAD = {
    "missing": ({"vgg_features": None}, "lacks 'vgg_features': it holds features, genres"),
    "columns": ({"features": GOOD["features"][:, :200]}, "has 'features' as float32 (6, 200), expected numbers of"),
    "flat": ({"vgg_features": np.zeros(6)}, "has 'vgg_features' as float64 (6,), expected"),
    "rows": ({"features": GOOD["features"][:5]}, "has arrays of [5, 6] rows, expected 25959 in all"),
    "ids": ({"imdb_ids": np.arange(6)}, "has 'imdb_ids' as int64 (6,), expected text of shape"),
    "long ids": ({"imdb_ids": np.array([b"5" * 99] * 6)}, "has 'imdb_ids' of 99 letters, expected 7"),
    "labels": ({"genres": GOOD["genres"] + 2}, "has other values than 0 and 1 in 'genres'"),
    "infinite": ({"vgg_features": GOOD["vgg_features"] * np.inf}, "in 'vgg_features' that are NaN or infinite"),
    "films": ({"imdb_ids": np.array([b"1"] * 6)}, "has 6 films that multimodal_imdb.hdf5 lacks, the first is 0000005"),
    "names": ({"names": GENRES[:22]}, "'target_names' of 'genres' must list the 23 genres"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_hdf5_file_of_another_kind_is_refused(hdf5, store, case):
    replaced, told = BAD[case]
    make_mm_imdb_hdf5(hdf5, **replaced)
    assert told in refusal(hdf5, store)
    assert not store.with_name("mm_imdb.vgg-word2vec").exists()


@pytest.mark.parametrize("kind", ["soft", "external", "virtual", "stored outside", "group"])
def test_what_leads_to_other_files_is_not_followed(hdf5, store, tmp_path, kind):
    make_mm_imdb_hdf5(hdf5, features=None)
    make_mm_imdb_hdf5(tmp_path / "secret.hdf5")
    with h5py.File(hdf5, "a") as file:
        if kind == "soft":
            file["features"] = h5py.SoftLink("/vgg_features")
        elif kind == "external":
            file["features"] = h5py.ExternalLink(str(tmp_path / "secret.hdf5"), "/features")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((6, 300), "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.hdf5"), "features", (6, 300))
            file.create_virtual_dataset("features", layout)
        elif kind == "stored outside":
            file.create_dataset("features", (6, 300), "f4", external=[(str(tmp_path / "secret.hdf5"), 0, 7200)])
        else:
            file.create_group("features")
    told = refusal(hdf5, store)
    assert any(words in told for words in ("which is not followed", "in other files", "as a group, expected an array"))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_hdf5_file_is_refused(hdf5, share):
    make_mm_imdb_hdf5(hdf5)
    content = hdf5.read_bytes()
    hdf5.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match="is not an HDF5 file that can be read"):
        read_hdf5(hdf5)
