"""Six views of handwritten numerals: prepared from the file people have, whatever that file turns out to be."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from datasets.base import Part
from datasets.errors import DataError
from datasets.handwritten import FILE_NAME, SHA256, VIEWS, Handwritten, HandwrittenConfig, scale, split
from datasets.store import read_card, read_store, store_directory, verify_store
from tests.datasets.fixtures import VIEW_RANGES, handwritten_arrays, make_handwritten_mat

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "handwritten" / FILE_NAME
needs_real_file = pytest.mark.skipif(not REAL.exists(), reason=f"{FILE_NAME} is not on this machine")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))
    return tmp_path / "stores"


@pytest.fixture
def raw(tmp_path):
    """The variables of a small prepared file."""
    arrays = make_handwritten_mat(tmp_path / "small.mat")
    Handwritten.prepare(tmp_path / "small.mat", store_directory("handwritten"))
    return arrays


def refusal(path):
    with pytest.raises(DataError) as caught:
        Handwritten.prepare(path, store_directory("handwritten"))
    text = str(caught.value)
    assert text.isprintable()
    assert not store_directory("handwritten").exists()
    return text


# ---- from file to splits ----------------------------------------------------------------------------------------


def test_the_store_holds_the_raw_values_in_the_official_split(raw):
    parts = read_store(store_directory("handwritten")).parts
    assert {name: len(part) for name, part in parts.items()} == {"train": 80, "valid": 20, "test": 50}
    assert np.array_equal(parts["test"].target, raw["gt_test"].ravel() - 1)
    for i, (view, columns) in enumerate(VIEWS.items(), start=1):
        assert np.array_equal(parts["test"].inputs[view], raw[f"x{i}_test"].astype(np.float32))
        assert parts["train"].inputs[view].shape == (80, columns)
    assert verify_store(store_directory("handwritten")) == []


def test_training_and_validation_share_out_the_released_training_part(raw):
    parts = read_store(store_directory("handwritten")).parts
    ours = np.concatenate([parts[name].inputs["kar"] for name in ("train", "valid")])
    released = raw["x5_train"].astype(np.float32)
    assert np.array_equal(ours[np.lexsort(ours.T)], released[np.lexsort(released.T)])
    assert np.bincount(parts["valid"].target).tolist() == [2] * 10


def test_views_of_one_row_stay_together(tmp_path):
    arrays = handwritten_arrays()
    for part in ("train", "test"):
        for i in range(1, 7):
            arrays[f"x{i}_{part}"][:, 0] = np.arange(len(arrays[f"gt_{part}"]))
    for part in split(arrays).values():
        columns = [x[:, 0] for x in part.inputs.values()]
        assert all(np.array_equal(columns[0], column) for column in columns)


def test_another_file_of_the_same_form_is_accepted_with_a_note(raw, tmp_path):
    provenance = read_card(store_directory("handwritten")).provenance
    assert provenance == {
        "file": "small.mat",
        "sha256": hashlib.sha256((tmp_path / "small.mat").read_bytes()).hexdigest(),
        "note": "not the file of the TMC reference code, but of its form: 100 train and 50 test rows",
    }


def test_a_folder_that_holds_the_file_will_do(tmp_path):
    make_handwritten_mat(tmp_path / FILE_NAME, compressed=False)
    Handwritten.prepare(tmp_path, store_directory("handwritten"))
    assert Handwritten().load().spec.sizes == {"train": 80, "valid": 20, "test": 50}


def test_variables_it_does_not_know_are_left_alone(tmp_path):
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = "anything"
    make_handwritten_mat(tmp_path / "a.mat", comment=cell)
    Handwritten.prepare(tmp_path / "a.mat", store_directory("handwritten"))
    assert verify_store(store_directory("handwritten")) == []


def test_without_a_store_the_command_is_named(home):
    for call in (Handwritten().spec, Handwritten().load):
        with pytest.raises(DataError, match="Prepare it with: bench data prepare handwritten --from PATH"):
            call()


def test_a_store_of_something_else_is_refused(raw):
    card = store_directory("handwritten") / "card.json"
    card.write_text(card.read_text().replace('"pix"', '"pxi"'))
    with pytest.raises(DataError, match="does not hold the six views of 'handwritten'"):
        Handwritten().spec()


# ---- scaling ----------------------------------------------------------------------------------------------------


def test_scaling_is_fitted_on_the_training_split_alone(raw):
    from sklearn.preprocessing import MinMaxScaler

    raw_parts, data = read_store(store_directory("handwritten")).parts, Handwritten().load()
    for view in VIEWS:
        scaler = MinMaxScaler().fit(raw_parts["train"].inputs[view].astype(np.float64))
        for name, part in data.parts.items():
            expected = scaler.transform(raw_parts[name].inputs[view].astype(np.float64))
            assert part.inputs[view].dtype == np.float32
            assert np.allclose(part.inputs[view], expected, atol=1e-6)
    assert data.parts["train"].inputs["fou"].min() == 0
    assert data.parts["train"].inputs["fou"].max() == 1


def test_released_scaling_is_fitted_on_each_released_part(raw):
    from sklearn.preprocessing import minmax_scale

    parts = Handwritten(HandwrittenConfig(scaling="released")).load().parts
    for i, view in enumerate(VIEWS, start=1):
        expected = minmax_scale(raw[f"x{i}_test"].astype(np.float64))
        assert np.allclose(parts["test"].inputs[view], expected, atol=1e-5)
        both = np.concatenate([parts[name].inputs[view] for name in ("train", "valid")])
        expected = minmax_scale(raw[f"x{i}_train"].astype(np.float64))
        assert np.allclose(both[np.lexsort(both.T)], expected[np.lexsort(expected.astype(np.float32).T)], atol=1e-5)


def test_the_test_split_cannot_change_how_training_is_scaled(raw):
    parts = read_store(store_directory("handwritten")).parts
    other = dict(parts) | {"test": Part({k: 1000 * x for k, x in parts["test"].inputs.items()}, parts["test"].target)}
    for name in ("train", "valid"):
        for view in VIEWS:
            assert np.array_equal(scale(parts, "train")[name].inputs[view], scale(other, "train")[name].inputs[view])


def test_a_constant_feature_becomes_zero_not_nan():
    parts = {
        name: Part({"mor": np.full((3, 2), 7, np.float32)}, np.zeros(3, int)) for name in ("train", "valid", "test")
    }
    for scaling in ("train", "released"):
        assert all((part.inputs["mor"] == 0).all() for part in scale(parts, scaling).values())


def test_the_scalings_have_fingerprints_of_their_own(raw):
    honest, released = Handwritten().spec(), Handwritten(HandwrittenConfig(scaling="released")).spec()
    assert honest.fingerprint.endswith("-train")
    assert released.fingerprint.endswith("-released")
    assert honest.fingerprint.removesuffix("-train") == released.fingerprint.removesuffix("-released")


# ---- files that are not what they should be ---------------------------------------------------------------------


def with_nan(array):
    changed = array.astype(np.float64)
    changed[3, 4] = np.nan
    return changed


GOOD = handwritten_arrays()
CELL = np.empty((100, 240), dtype=object)
CELL[:] = 1.0
BAD = {
    "missing": ({"x4_train": None}, "lacks 'x4_train': it holds gt_train, x1_train"),
    "wrong columns": ({"x2_train": GOOD["x2_train"][:, :75]}, "has 'x2_train' of shape (100, 75), expected (rows, 76)"),
    "turned": ({"x5_test": GOOD["x5_test"].T}, "has 'x5_test' of shape (64, 50), expected (rows, 64)"),
    "three axes": ({"x6_test": np.ones((50, 6, 2))}, "has 'x6_test' of shape (50, 6, 2), expected (rows, 6)"),
    "rows differ": ({"x3_train": GOOD["x3_train"][:-1]}, "has 99 rows in 'x3_train', but 100 in others of the train"),
    "too many rows": ({"x6_test": np.zeros((20_001, 6), np.uint8)}, "has 20001 rows in 'x6_test', expected 400"),
    "no rows": ({"gt_test": np.zeros((0, 1))}, "has 0 rows in 'gt_test', expected 400"),
    "nan": ({"x2_train": with_nan(GOOD["x2_train"])}, "has 1 values in 'x2_train' that are NaN, infinite or too large"),
    "infinite": ({"x6_test": GOOD["x6_test"] * np.inf}, "values in 'x6_test' that are NaN, infinite or too large"),
    "beyond float32": ({"x6_test": GOOD["x6_test"] * 1e40}, "values in 'x6_test' that are NaN, infinite or too large"),
    "object array": ({"x1_train": CELL}, "has 'x1_train' as a cell array, expected numbers"),
    "struct": ({"x1_train": {"a": 1}}, "has 'x1_train' as a struct, expected numbers"),
    "text": ({"gt_test": "one"}, "has 'gt_test' as text, expected numbers"),
    "complex": ({"x2_test": GOOD["x2_test"] + 1j}, "has 'x2_test' as complex numbers, expected numbers"),
    "labels from 0": ({"gt_train": GOOD["gt_train"] - 1}, "has other labels than 1 to 10 in 'gt_train'"),
    "labels between": ({"gt_train": GOOD["gt_train"] + 0.5}, "has other labels than 1 to 10 in 'gt_train'"),
    "unbalanced": (
        {"gt_test": np.maximum(GOOD["gt_test"], 2) - (np.arange(50) < 3).astype(np.uint8)[:, None]},
        "has 3 to 7 samples a class in 'gt_test', expected equally many",
    ),
    "too few": (
        {k: v[::5] for k, v in GOOD.items() if k.endswith("train")},
        "has 2 training samples a class, needs 5",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_file_with_other_variables_is_refused_in_one_sentence(tmp_path, case):
    replaced, told = BAD[case]
    make_handwritten_mat(tmp_path / "bad.mat", **replaced)
    text = refusal(tmp_path / "bad.mat")
    assert text.startswith(f"{tmp_path / 'bad.mat'} ")
    assert told in text
    assert text.endswith(f"Expected is {FILE_NAME} of the TMC reference code.")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.99999])
def test_a_truncated_file_is_refused(tmp_path, share):
    make_handwritten_mat(tmp_path / "whole.mat")
    content = (tmp_path / "whole.mat").read_bytes()
    (tmp_path / "cut.mat").write_bytes(content[: int(share * len(content))])
    assert any(word in refusal(tmp_path / "cut.mat") for word in ("is truncated", "is not a MATLAB 5", "lacks '"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is not a MATLAB 5 .mat file"),
        (b"\x80\x04cos\nsystem\n" + b"x" * 300, "is not a MATLAB 5 .mat file"),
        (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", "is a MATLAB 7.3 (HDF5) file: save it again"),
    ],
)
def test_what_is_not_such_a_file_is_refused(tmp_path, content, told):
    (tmp_path / "bad.mat").write_bytes(content)
    assert told in refusal(tmp_path / "bad.mat")


def test_a_variable_that_comes_twice_is_refused(tmp_path):
    """Readers differ in which of the two they take."""
    make_handwritten_mat(tmp_path / "twice.mat")
    content = (tmp_path / "twice.mat").read_bytes()
    (tmp_path / "twice.mat").write_bytes(content + content[128:])
    assert "holds 'gt_train' more than once" in refusal(tmp_path / "twice.mat")


def test_a_huge_declared_size_is_refused_before_anything_is_read(tmp_path):
    """Two thousand million rows announced by a file of some hundred kilobytes."""
    make_handwritten_mat(tmp_path / "huge.mat", compressed=False)
    content = (tmp_path / "huge.mat").read_bytes()
    rows = np.array([100, 240], "<i4").tobytes()
    assert content.count(rows) == 1
    (tmp_path / "huge.mat").write_bytes(content.replace(rows, np.array([2_000_000_000, 240], "<i4").tobytes()))
    assert "has 2000000000 rows in 'x1_train', expected 1600" in refusal(tmp_path / "huge.mat")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "huge.mat").open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room on the disk
    assert "is larger than 64 MiB" in refusal(tmp_path / "huge.mat")


def test_an_absent_file_is_told(tmp_path):
    assert refusal(tmp_path / "no.mat") == f"{tmp_path / 'no.mat'} cannot be read: No such file or directory."
    assert refusal(tmp_path) == f"{tmp_path / FILE_NAME} cannot be read: No such file or directory."


# ---- the real file, and the maker of small ones -----------------------------------------------------------------


def test_the_fixture_has_the_form_of_the_real_file(tmp_path):
    arrays = handwritten_arrays()
    for view, (columns, dtype, low, high) in VIEW_RANGES.items():
        for part, rows in (("train", 100), ("test", 50)):
            array = arrays[f"{view}_{part}"]
            assert (array.shape, array.dtype) == ((rows, columns), dtype)
            assert low <= array.min() < array.max() <= high
    assert arrays["gt_train"].dtype == np.uint8
    assert set(arrays) == {f"{name}_{part}" for name in ("gt", *VIEW_RANGES) for part in ("train", "test")}


@needs_real_file
def test_the_real_file_has_the_form_of_the_fixture():
    import scipy.io

    real = {k: v for k, v in scipy.io.loadmat(REAL).items() if not k.startswith("__")}
    made = handwritten_arrays()
    assert real.keys() == made.keys()
    for name, array in real.items():
        assert array.dtype == made[name].dtype
        assert array.shape[1] == made[name].shape[1]


@needs_real_file
def test_the_real_file_is_prepared_as_it_always_was():
    assert hashlib.sha256(REAL.read_bytes()).hexdigest() == SHA256
    Handwritten.prepare(REAL, store_directory("handwritten"))
    assert "note" not in read_card(store_directory("handwritten")).provenance
    data = Handwritten().load()
    assert data.spec.sizes == {"train": 1280, "valid": 320, "test": 400}
    counts = {name: set(np.bincount(part.target).tolist()) for name, part in data.parts.items()}
    assert counts == {"train": {128}, "valid": {32}, "test": {40}}
    # Golden: the content and the fixed validation split must not change under finished results.
    assert data.spec.fingerprint == "b403e613da7c60635ce64d13b58d5354-train"
