"""IEMOCAP in MMIN's folder: ten folds over one store, scaled as MMIN scales, and refused when it contradicts itself."""

import shutil

import h5py
import numpy as np
import pytest

from datasets.errors import DataError
from datasets.iemocap import FILES, Iemocap, IemocapConfig
from datasets.raw_maker import make_iemocap
from datasets.sequences import lengths
from datasets.store import read_all, store_directory, verify_store

N = 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """MMIN's folder with 80 utterances, eight a speaker; audio of 5 to 9 frames."""
    folder = tmp_path_factory.mktemp("raw") / "IEMOCAP"
    make_iemocap(folder, N, audio_steps=(5, 9))
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))


@pytest.fixture
def stored(folder):
    Iemocap.prepare(folder, store_directory("iemocap"))
    return read_all(store_directory("iemocap"))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def refusal(folder):
    with pytest.raises(DataError) as caught:
        Iemocap.prepare(folder, store_directory("iemocap"))
    text = str(caught.value)
    assert text.isprintable()
    assert not store_directory("iemocap").exists()
    return text


def names(folder, fold, short):
    return [row[0].decode() for row in np.load(folder / "target" / str(fold) / f"{short}_int2name.npy")]


# ---- folds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", [1, 2, 10])
@pytest.mark.parametrize("scaling", ["train", "utterance", "none"])
def test_a_fold_holds_the_utterances_the_files_say_scaled_as_mmin_does(folder, stored, fold, scaling):
    data = Iemocap(IemocapConfig(fold=fold, audio_scaling=scaling)).load()
    with h5py.File(folder / "A/comparE_mean_std.h5") as file:
        mean, std = file[f"{fold}/mean"][()], file[f"{fold}/std"][()]
    for split, short in {"train": "trn", "valid": "val", "test": "tst"}.items():
        part = data.parts[split]
        labels = np.load(folder / "target" / str(fold) / f"{short}_label.npy")
        assert np.array_equal(part.target, labels.argmax(axis=1))
        assert list(part.inputs) == ["audio", "vision", "text"]
        for row, name in enumerate(names(folder, fold, short)):
            for modality, (file_name, _) in FILES.items():
                with h5py.File(folder / file_name) as file:
                    x = file[name][()]
                if modality == "audio" and scaling == "train":
                    x = (x - mean) / std
                elif modality == "audio" and scaling == "utterance":
                    x = (x - x.mean(axis=0)) / x.std(axis=0)
                found = part.inputs[modality][row]
                assert np.allclose(found[-len(x) :], x, atol=1e-4)
                assert not found[: -len(x)].any()


def test_every_fold_has_its_sizes_task_and_fingerprint(stored):
    specs = [Iemocap(IemocapConfig(fold=fold)).spec() for fold in range(1, 11)]
    assert len({spec.fingerprint for spec in specs}) == 10
    assert all(sum(spec.sizes.values()) == N for spec in specs)
    assert specs[0].modalities == {"audio": (9, 130), "vision": (50, 342), "text": (22, 1024)}
    assert specs[0].sizes == {"train": 64, "valid": 8, "test": 8}
    tested = [row for fold in range(1, 11) for row in stored.extras[f"fold/{fold}/test"].tolist()]
    assert sorted(tested) == list(range(N))


def test_one_fold_is_mapped_and_the_audio_can_be_cut(stored):
    data = Iemocap(IemocapConfig(audio_scaling="none", audio_steps=4)).load()
    assert data.spec.modalities["audio"] == data.parts["train"].inputs["audio"].shape[1:] == (4, 130)
    assert all(not x.flags.owndata for x in data.parts["train"].inputs.values())
    whole = Iemocap(IemocapConfig(audio_scaling="none")).load().parts["train"].inputs["audio"]
    assert np.array_equal(data.parts["train"].inputs["audio"], whole[:, -4:])
    assert set(lengths(whole)) <= set(range(5, 10))


def test_what_is_unusual_is_told(stored, copy):
    assert stored.card.warnings == ["80 utterances in 10 folds, expected 5531 in 10."]
    assert stored.card.provenance["format"] == "MMIN, 10 folds"
    (copy / "A/comparE_mean_std.h5").unlink()
    shutil.rmtree(copy / "target" / "4")
    with h5py.File(copy / "V/denseface.h5", "a") as file:
        name = next(iter(file))
        x = file[name][()]
        x[-7:], x[0, 0], x[1, :2] = 0, np.nan, -np.inf
        file[name][...] = x
    Iemocap.prepare(copy, store_directory("iemocap"))
    found = read_all(store_directory("iemocap"))
    assert "80 utterances in 9 folds, expected 5531 in 10." in found.card.warnings
    assert "vision: 2 -inf and 1 NaN set to zero." in found.card.warnings
    assert "vision: the padding of 1 utterances was moved from end to front." in found.card.warnings
    assert any("were computed from the features" in warning for warning in found.card.warnings)
    for key in ("mean", "std"):
        assert np.allclose(found.extras[f"fold/1/{key}"], stored.extras[f"fold/1/{key}"], atol=1e-4)
    with pytest.raises(DataError, match="prepared from a folder without fold 4: it has 1, 2, 3, 5"):
        Iemocap(IemocapConfig(fold=4)).spec()


def test_the_same_folder_again_changes_nothing(folder, stored):
    written = (store_directory("iemocap") / "card.json").stat().st_mtime_ns
    Iemocap.prepare(folder, store_directory("iemocap"))
    assert (store_directory("iemocap") / "card.json").stat().st_mtime_ns == written
    assert verify_store(store_directory("iemocap")) == []


# ---- folders that are not what they should be -------------------------------------------------------------------


def replace(folder, file, name, value):
    with h5py.File(folder / file, "a") as store:
        del store[name]
        if value is not None:
            store[name] = value


def first(folder):
    return names(folder, 1, "trn")[0]


def save(folder, path, value):
    np.save(folder / "target" / path, value, allow_pickle=True)


def change_labels(folder):
    labels = np.load(folder / "target/2/trn_label.npy")
    save(folder, "2/trn_label.npy", labels[:, ::-1])


def repeat_name(folder):
    row = np.load(folder / "target/1/trn_int2name.npy")
    row[1] = row[0]
    save(folder, "1/trn_int2name.npy", row)


def in_two_splits(folder):
    row = np.load(folder / "target/1/tst_int2name.npy")
    row[0] = first(folder).encode()
    save(folder, "1/tst_int2name.npy", row)
    label = np.load(folder / "target/1/tst_label.npy")
    label[0] = np.load(folder / "target/1/trn_label.npy")[0]
    save(folder, "1/tst_label.npy", label)


def soft_link(folder):
    with h5py.File(folder / "L/bert_large.h5", "a") as store:
        name = first(folder)
        del store[name]
        store[name] = h5py.ExternalLink("/etc/passwd", "/")


def huge(folder):
    with h5py.File(folder / "V/denseface.h5", "a") as store:
        name = first(folder)
        del store[name]
        store.create_dataset(name, shape=(2**40, 342), dtype="f4", chunks=(64, 342))


def huge_labels(folder):
    path = folder / "target/1/trn_label.npy"
    content = path.read_bytes()
    assert b"(64, 4), }        " in content
    path.write_bytes(content.replace(b"(64, 4), }        ", b"(6400000000, 4), }"))


def cut_header(folder):
    path = folder / "target/1/trn_label.npy"
    path.write_bytes(path.read_bytes().replace(b"}", b" "))


BAD = {
    "no folds": (lambda f: shutil.rmtree(f / "target"), "has no folds: expected target/1/trn_label.npy"),
    "no text": (lambda f: (f / "L/bert_large.h5").unlink(), "is not a whole HDF5 file"),
    "junk": (lambda f: (f / "A/comparE.h5").write_bytes(b"junk" * 100), "is not a whole HDF5 file"),
    "truncated": (
        lambda f: (f / "V/denseface.h5").write_bytes((f / "V/denseface.h5").read_bytes()[:5000]), "not a whole HDF5",
    ),
    "utterance absent": (lambda f: replace(f, "L/bert_large.h5", first(f), None), "lacks the utterance"),
    "wrong width": (lambda f: replace(f, "A/comparE.h5", first(f), np.ones((5, 129), "f4")), "expected (steps, 130)"),
    "one axis": (lambda f: replace(f, "A/comparE.h5", first(f), np.ones(130, "f4")), "expected (steps, 130)"),
    "integers": (lambda f: replace(f, "A/comparE.h5", first(f), np.ones((5, 130), int)), "expected (steps, 130)"),
    "words": (lambda f: replace(f, "A/comparE.h5", first(f), b"words"), "expected fewer numbers"),
    "a link elsewhere": (soft_link, "as something else than an array of its own"),
    "huge": (huge, "of shape (1099511627776, 342)"),
    "huge labels": (huge_labels, "is not a .npy file of numbers or text"),
    "cut header": (cut_header, "is not a .npy file of numbers or text"),
    "objects": (lambda f: save(f, "1/trn_label.npy", np.array([{}], object)), "is not a .npy file of numbers or text"),
    "not one-hot": (lambda f: save(f, "1/val_label.npy", np.ones((8, 4))), "has rows that are not one-hot"),
    "five classes": (lambda f: save(f, "1/val_label.npy", np.eye(5)), "expected one-hot rows (utterances, 4)"),
    "few names": (lambda f: save(f, "1/val_int2name.npy", np.array([[b"a"]])), "has 1 names, expected 8"),
    "odd name": (
        lambda f: save(f, "1/val_int2name.npy", np.array([[b"../../etc"]] * 8)), "is not the name of an utterance",
    ),
    "folds disagree": (change_labels, "another class than another fold does"),
    "a name twice": (repeat_name, "more than once in its splits"),
    "one in two splits": (in_two_splits, "more than once in its splits"),
    "statistics NaN": (
        lambda f: replace(f, "A/comparE_mean_std.h5", "3/std", np.full(130, np.nan)), "has '3/std' that is not",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_folder_that_contradicts_itself_is_refused(copy, case):
    damage, told = BAD[case]
    damage(copy)
    assert told in refusal(copy)


def test_a_file_is_no_folder(folder):
    assert "is not a folder: --from takes the one that holds A/comparE.h5" in refusal(folder / "A/comparE.h5")
