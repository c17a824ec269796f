"""Hateful Memes from the raw folder and the Arrow files, and what such files may hold instead."""

import json

import pyarrow as pa
import pytest

from datasets.errors import DataError
from datasets.hateful_memes import HatefulMemes
from datasets.pairs import read_pairs, verify_pairs
from datasets.store import store_directory
from datasets.tasks import Binary
from tests.datasets.image_text_fixtures import (
    make_hateful_memes,
    make_hateful_memes_arrow,
    picture,
    write,
    write_arrow,
)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))
    return store_directory("hateful_memes")


def refusal(folder, store):
    with pytest.raises(DataError) as caught:
        HatefulMemes.prepare(folder, store)
    assert not store.exists()
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_ids_keep_their_leading_zeros(tmp_path, store):
    HatefulMemes.prepare(make_hateful_memes(tmp_path / "raw"), store)
    found = read_pairs(store)
    assert found.ids[0] == "01235"
    assert found.image(0) == picture(0, (12, 12), "PNG", seed=1235)
    assert found.card.sizes == {"train": 10, "valid": 4, "test": 6}
    assert found.target.tolist() == [0, 1] * 10
    assert found.task == Binary()
    assert verify_pairs(store) == []


def test_the_labelled_test_file_is_taken_under_either_name(tmp_path, store):
    folder = make_hateful_memes(tmp_path / "raw")
    (folder / "test_seen.jsonl").replace(folder / "test.jsonl")
    (folder / "dev_seen.jsonl").replace(folder / "dev.jsonl")
    HatefulMemes.prepare(folder, store)
    assert read_pairs(store).card.provenance == {
        "layout": "folder", "train": "train.jsonl", "valid": "dev.jsonl", "test": "test.jsonl",
    }  # fmt: skip


def test_a_test_file_without_labels_is_told(tmp_path, store):
    folder = make_hateful_memes(tmp_path / "raw")
    (folder / "test_seen.jsonl").unlink()
    told = refusal(folder, store)
    assert "test.jsonl:1 has no label: it is the challenge's file without them." in told
    assert "Put test_seen.jsonl of the later release beside it." in told


def test_a_missing_file_is_told(tmp_path, store):
    folder = make_hateful_memes(tmp_path / "raw")
    (folder / "dev_seen.jsonl").unlink()
    assert "has no dev_seen.jsonl or dev.jsonl" in refusal(folder, store)


GOOD = {"id": 1235, "img": "img/01235.png", "label": 0, "text": "x"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"img": "../../../etc/passwd"}, "'img' '../../../etc/passwd' leads out of the folder"),
        ({"img": "/etc/passwd"}, "leads out of the folder"),
        ({"img": 7}, "'img' and 'text' must be strings"),
        ({"text": None}, "'img' and 'text' must be strings"),
        ({"label": 2}, "'label' must be 0 or 1, got '2'"),
        ({"label": True}, "'label' must be 0 or 1, got 'True'"),
        ({"label": "1"}, "'label' must be 0 or 1"),
        ({"label": [1]}, "'label' must be 0 or 1"),
        ({"label": 1.0}, "'label' must be 0 or 1"),
        ({"img": "img/01236.png"}, "sample '01236' is twice in train"),
    ],
)
def test_odd_lines_are_refused_in_one_sentence(tmp_path, store, line, told):
    folder = make_hateful_memes(tmp_path / "raw")
    lines = (folder / "train.jsonl").read_text().splitlines()
    write(folder / "train.jsonl", "\n".join([json.dumps({**GOOD, **line}), *lines[1:]]))
    assert told in refusal(folder, store)


def test_a_sample_in_train_and_test_is_refused(tmp_path, store):
    folder = make_hateful_memes(tmp_path / "raw")
    with (folder / "test_seen.jsonl").open("a") as file:
        file.write(json.dumps(GOOD))
    assert "sample '01235' is in both train and test" in refusal(folder, store)


def test_damaged_and_missing_images_are_left_out_and_listed(tmp_path, store):
    folder = make_hateful_memes(tmp_path / "raw")
    (folder / "img" / "01235.png").unlink()
    write(folder / "img" / "01236.png", picture()[:100])
    told = HatefulMemes.prepare(folder, store)
    assert "left out: 01235: the image is missing" in told
    assert "left out: 01236: the image is damaged or no image" in told
    assert read_pairs(store).card.sizes["train"] == 8


def test_arrow_files_are_read(tmp_path, store):
    HatefulMemes.prepare(make_hateful_memes_arrow(tmp_path), store)
    found = read_pairs(store)
    assert found.card.sizes == {"train": 6, "valid": 2, "test": 2}
    assert [found.texts(row) for row in range(2)] == [["meme 0"], ["meme 1"]]
    assert found.ids[0] == "train-0"


def test_arrow_files_with_the_column_name_that_the_code_reads(tmp_path, store):
    make_hateful_memes_arrow(tmp_path)
    schema = pa.schema({"image": pa.binary(), "plots": pa.list_(pa.string()), "label": pa.int64()})
    rows = [{"image": picture(), "plots": ["a plot"], "label": 1}]
    write_arrow(tmp_path / "hatememes_test.arrow", rows, schema)
    HatefulMemes.prepare(tmp_path, store)
    assert read_pairs(store).texts(8) == ["a plot"]
    write_arrow(tmp_path / "hatememes_test.arrow", [{**rows[0], "label": 3}], schema)
    with pytest.raises(DataError, match="row 0 has label 3, expected 0 or 1"):
        HatefulMemes.prepare(tmp_path, store)
