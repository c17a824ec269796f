"""N24News from its folder: fields, fixed split, and what such files may hold instead."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from datasets.errors import DataError
from datasets.n24news import FIELDS, N24News, N24NewsConfig
from datasets.pairs import read_pairs, verify_pairs
from datasets.store import store_directory
from tests.datasets.image_text_fixtures import SECTIONS, article, make_n24news, write


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))
    return store_directory("n24news")


def refusal(folder, store):
    with pytest.raises(DataError) as caught:
        N24News.prepare(folder, store)
    assert not store.exists()
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_all_fields_are_kept_and_sections_are_numbered_by_name(tmp_path, store):
    N24News.prepare(make_n24news(tmp_path / "raw"), store)
    found = read_pairs(store)
    assert found.card.text_fields == list(FIELDS)
    assert found.card.classes == sorted(SECTIONS)
    for row, name in enumerate(found.ids):
        original = article(int(name.removeprefix("img-")))
        assert found.texts(row) == [original[field] for field in FIELDS]
        assert found.card.classes[found.target[row]] == original["section"]
    assert found.texts(0)[3] == ""
    assert verify_pairs(store) == []


def test_the_split_is_fixed_and_stratified(tmp_path, store):
    folder = make_n24news(tmp_path / "raw", n=100)
    N24News.prepare(folder, store)
    found = read_pairs(store)
    for split, share in (("train", 0.72), ("valid", 0.08), ("test", 0.2)):
        counts = np.bincount(found.target[found.rows(split)], minlength=2)
        assert (np.abs(counts - share * 50) <= 1).all()
    fingerprint = found.card.fingerprint
    N24News.prepare(folder, store)
    assert read_pairs(store).card.fingerprint == fingerprint


def test_a_download_with_its_own_split_keeps_it(tmp_path, store):
    N24News.prepare(make_n24news(tmp_path / "raw", split=True), store)
    found = read_pairs(store)
    assert found.card.sizes == {"train": 20, "valid": 10, "test": 10}
    assert found.ids[20] == "img-000020"


def test_the_file_without_bodies_will_do(tmp_path, store):
    N24News.prepare(make_n24news(tmp_path / "raw", full=False), store)
    assert read_pairs(store).texts(1)[3] == ""


def test_the_text_is_made_of_the_fields_that_are_asked_for():
    texts = ["head ", "abstract", "", "body"]
    assert N24News().choose(texts) == ["head abstract"]
    assert N24News(N24NewsConfig(text="caption+body")).choose(texts) == ["body"]
    assert N24News(N24NewsConfig(text="caption")).choose(texts) == [""]
    assert N24News().options() == {}
    assert N24News(N24NewsConfig(text="body")).features_directory().name == "n24news.vilt.text-body"


@pytest.mark.parametrize("text", ["title", "headline+", "", "headline+headline", "headline, abstract"])
def test_unknown_fields_are_refused(text):
    with pytest.raises(ValidationError, match="text is made of headline, abstract, caption, body joined by"):
        N24NewsConfig(text=text)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"image_id": "../../etc/passwd"}, "article 0 has no usable 'image_id': '../../etc/passwd'"),
        ({"image_id": 7}, "article 0 has no usable 'image_id'"),
        ({"image_id": ".hidden"}, "article 0 has no usable 'image_id'"),
        ({"image_id": "img-000001"}, "sample 'img-000001' is "),
        ({"section": None}, "article 0 has no 'section'"),
        ({"headline": ["a"]}, "article 0 has a text that is not a string"),
    ],
)
def test_odd_articles_are_refused_in_one_sentence(tmp_path, store, changed, told):
    folder = make_n24news(tmp_path / "raw")
    articles = json.loads((folder / "nytimes_dataset_full.json").read_text())
    write(folder / "nytimes_dataset_full.json", [{**articles[0], **changed}, *articles[1:]])
    assert told in refusal(folder, store)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "must be a list of articles"),
        ([], "must be a list of articles"),
        ([1], "article 0 is not an object"),
        ([article(1)], "has articles of 1 section, expected 24"),
    ],
)
def test_odd_lists_are_refused_in_one_sentence(tmp_path, store, content, told):
    folder = make_n24news(tmp_path / "raw")
    write(folder / "nytimes_dataset_full.json", content)
    assert told in refusal(folder, store)


def test_another_folder_is_refused(tmp_path, store):
    assert "has neither nytimes_dataset_full.json nor nytimes_dataset.json" in refusal(tmp_path, store)
    write(tmp_path / "nytimes_dataset.json", [article(1)])
    assert "has no folder 'images': build the data set first" in refusal(tmp_path, store)
    assert "is a file: give the folder" in refusal(tmp_path / "nytimes_dataset.json", store)


def test_articles_without_a_picture_are_left_out_and_listed(tmp_path, store):
    folder = make_n24news(tmp_path / "raw")
    (folder / "images" / "img-000003.jpg").unlink()
    assert "left out: img-000003: the image is missing" in N24News.prepare(folder, store)
