"""The bundled digits: the right pixels, a fixed split, a cheap description."""

import gzip
import subprocess
import sys

import numpy as np
import pytest

import datasets.digits
from datasets.digits import Digits
from datasets.errors import DataError


def test_the_two_halves_are_scikit_learns_images():
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    parts = Digits().load().parts.values()
    ours = np.concatenate([np.concatenate([p.inputs["upper"], p.inputs["lower"]], axis=1) for p in parts])
    labels = np.concatenate([p.target for p in parts])
    rows = np.lexsort(np.column_stack([images, target]).T)
    our_rows = np.lexsort(np.column_stack([ours * 16, labels]).T)
    assert np.array_equal(ours[our_rows] * 16, images[rows])
    assert np.array_equal(labels[our_rows], target[rows])


def test_upper_is_the_upper_half():
    """A seven has ink in its top row and little in its bottom left."""
    train = Digits().load().parts["train"]
    seven = train.inputs["upper"][train.target == 7].mean(0).reshape(4, 8)
    assert seven[0].mean() > 0.25 > train.inputs["lower"][train.target == 7].mean(0).reshape(4, 8)[3, 4:].mean()


def test_the_split_is_stratified_60_20_20():
    data = Digits().load()
    total = sum(np.bincount(part.target, minlength=10) for part in data.parts.values())
    for part, share in zip(data.parts.values(), (0.6, 0.2, 0.2), strict=True):
        assert (abs(np.bincount(part.target, minlength=10) - share * total) < 1).all()
    assert sum(data.spec.sizes.values()) == 1797


def test_describing_and_loading_import_no_scikit_learn():
    code = (
        "import sys; from datasets.digits import Digits; d = Digits(); d.spec(); d.load();"
        "print({'sklearn', 'scipy', 'pandas', 'safetensors'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "set()"


def bundle(monkeypatch, tmp_path, content):
    """A scikit-learn folder whose bundled file has other content."""
    folder = tmp_path / "datasets" / "data"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "digits.csv.gz").write_bytes(content)
    found = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(datasets.digits, "find_spec", lambda name: found)


def test_other_content_is_refused(monkeypatch, tmp_path):
    table = datasets.digits._read_table()
    table[5, 9] += 1
    rows = "\n".join(",".join(f"{v:g}" for v in row) for row in table)
    bundle(monkeypatch, tmp_path, gzip.compress(rows.encode()))
    with pytest.raises(DataError, match=r"'digits' is not what the suite was made with.*Install another version"):
        Digits().load()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read from .*not found"),
        (b"not gzip", "cannot be read from"),
        (gzip.compress(b"1,2,3")[:-9], "cannot be read from"),
        (gzip.compress(b"1,2,x"), "cannot be read from"),
        (gzip.compress(b"1,2,3"), r"has shape \(1, 3\) in .*, expected \(1797, 65\)"),
    ],
    ids=["absent", "no gzip", "cut", "no numbers", "one row"],  # gzip writes the time into its bytes
)
def test_a_damaged_bundle_is_told_in_one_sentence(monkeypatch, tmp_path, content, told):
    bundle(monkeypatch, tmp_path, content)
    with pytest.raises(DataError, match=told) as caught:
        Digits().load()
    assert "\n" not in str(caught.value)


def test_without_scikit_learn_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(datasets.digits, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        Digits().load()
