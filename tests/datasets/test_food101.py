"""UPMC Food-101 from the raw folder and the Arrow files, and what such files may hold instead."""

import json

import pytest

from datasets.errors import DataError
from datasets.food101 import Food101
from datasets.pairs import read_pairs, verify_pairs
from datasets.store import store_directory
from datasets.tasks import MultiClass
from tests.datasets.image_text_fixtures import (
    DISHES,
    UNTITLED,
    dish_files,
    dish_title,
    make_food101,
    make_food101_arrow,
    write,
)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))
    return store_directory("food101")


def refusal(folder, store):
    with pytest.raises(DataError) as caught:
        Food101.prepare(folder, store)
    assert not store.exists()
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("titles", ["csv", "json"])
def test_a_raw_folder_becomes_a_store(tmp_path, store, titles):
    told = Food101.prepare(make_food101(tmp_path / "raw", titles=titles), store)
    found = read_pairs(store)
    assert sorted(found.ids) == sorted(name for names in dish_files(12).values() for name in names)
    for row, name in enumerate(found.ids):
        assert found.texts(row) == [dish_title(name)]
        assert DISHES[found.target[row]] == name.rpartition("_")[0]
    assert {found.ids[row] for row in found.rows("test")} == set(dish_files()["test"])
    assert found.task == MultiClass(2)
    assert found.card.classes == list(DISHES)
    assert f"left out: {UNTITLED}: there is no title" in told
    assert "there are 2 classes, the released data set has 101" in told
    assert verify_pairs(store) == []


def test_commas_in_titles_stay(tmp_path, store):
    Food101.prepare(make_food101(tmp_path / "raw"), store)
    found = read_pairs(store)
    assert found.texts(found.ids.index("apple_pie_1.jpg")) == ["apple pie, the best a"]


def test_split_json_says_what_validates(tmp_path, store):
    folder = make_food101(tmp_path / "raw", split=True)
    Food101.prepare(folder, store)
    found, split = read_pairs(store), json.loads((folder / "split.json").read_text())
    assert {found.ids[row] for row in found.rows("valid")} == set(split["val"])
    assert found.card.provenance["split"] == "split.json"


def test_without_split_json_a_fixed_tenth_of_each_class_validates(tmp_path, store):
    folder = make_food101(tmp_path / "raw", per_class=20)
    Food101.prepare(folder, store)
    found = read_pairs(store)
    validates = [found.ids[row] for row in found.rows("valid")]
    assert found.card.sizes == {"train": 36, "valid": 4, "test": 8}
    assert {name.rpartition("_")[0] for name in validates} == set(DISHES)
    Food101.prepare(folder, store)
    again = read_pairs(store)
    assert [again.ids[row] for row in again.rows("valid")] == validates


def test_arrow_files_keep_their_class_numbers(tmp_path, store):
    Food101.prepare(make_food101_arrow(tmp_path), store)
    found = read_pairs(store)
    assert found.card.classes == ["frozen_yogurt", "apple_pie"]
    assert all(found.card.classes[found.target[row]] in name for row, name in enumerate(found.ids))
    (tmp_path / "class_idx.json").unlink()
    Food101.prepare(tmp_path, store)
    assert read_pairs(store).task == MultiClass(101)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "must map each class to a number of its own from 0"),
        ({"a": 0, "b": 0}, "must map each class to a number of its own"),
        ({"a": 0, "b": 2}, "must map each class to a number of its own"),
        ({"a": "0", "b": 1}, "must map each class to a number of its own"),
        ({"a": 0}, "has class 1, expected 0 to 0"),
    ],
)
def test_odd_class_numbers_are_refused(tmp_path, store, content, told):
    make_food101_arrow(tmp_path)
    write(tmp_path / "class_idx.json", content)
    assert told in refusal(tmp_path, store)


def split_of(**changed):
    files = dish_files(12)
    return json.dumps({"train": files["train"][4:], "val": files["train"][:4], "test": files["test"], **changed})


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("split.json", split_of(test=["../../../etc/pass_wd.jpg"]), "is not the name of an image like apple_pie_3.jpg"),
        ("split.json", split_of(test=["noclass.jpg"]), "'noclass.jpg' is not the name of an image"),
        ("split.json", split_of(test=["apple_pie_0.jpg"]), "apple_pie_0.jpg' is in both val and test"),
        ("split.json", split_of(test=[1]), "'test' must be a list of names of images"),
        ("split.json", json.dumps({"train": []}), "'val' must be a list of names of images"),
        ("texts/train_titles.csv", b"a_1.jpg,\0,a\n", "train_titles.csv holds NUL bytes"),
        ("texts/train_titles.csv", "a_1.jpg\nb_2.jpg\n", "2 of 2 rows are not 'file,title,class'"),
        ("texts/train_titles.csv", "apple_pie_1.jpg,title,sushi\n", "with the class of the file's name"),
    ],
)
def test_a_folder_with_odd_files_is_refused_in_one_sentence(tmp_path, store, file, content, told):
    folder = make_food101(tmp_path / "raw")
    write(folder / file, content)
    assert told in refusal(folder, store)


def test_a_few_odd_rows_are_ignored_and_told(tmp_path, store):
    folder = make_food101(tmp_path / "raw")
    with (folder / "texts" / "train_titles.csv").open("a") as file:
        file.write("apple_pie_1.jpg\n")
    assert "1 rows of train_titles.csv are not 'file,title,class' and are ignored." in Food101.prepare(folder, store)


def test_an_image_in_both_parts_is_refused(tmp_path, store):
    folder = make_food101(tmp_path / "raw")
    write(folder / "images" / "test" / "apple_pie" / "apple_pie_0.jpg", b"")
    assert "apple_pie_0.jpg is in both train and test" in refusal(folder, store)


def test_another_folder_is_refused(tmp_path, store):
    assert "has neither texts/train_titles.csv and texts/test_titles.csv nor text.json" in refusal(tmp_path, store)
    write(tmp_path / "text.json", [1])
    assert "text.json must map names of images to titles" in refusal(tmp_path, store)
    write(tmp_path / "text.json", {})
    assert "train is missing" in refusal(tmp_path, store)
