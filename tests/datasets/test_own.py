"""A folder of the user's own: every kind of file, every kind of task, and clear words about everything wrong."""

import io
import os
import zipfile

import numpy as np
import pytest
import yaml
from pydantic import ValidationError
from safetensors.numpy import save_file

from datasets.errors import DataError, UserError
from datasets.own import Own, OwnConfig, folder_problems, store_of
from datasets.store import read_card

N = 60
WORDS = np.array(["train"] * 36 + ["valid"] * 12 + ["test"] * 12)
RNG = np.random.default_rng(0)
TEXT, AUDIO = RNG.normal(size=(N, 5)).astype(np.float32), RNG.normal(size=(N, 4, 3))
LABEL = np.arange(N) % 3
PLAIN = {
    "task": {"kind": "multiclass", "n_classes": 3},
    "modalities": {"text": "text.npy", "audio": "audio.npy"},
    "target": "label.npy",
    "split": "split.npy",
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "speech"
    folder.mkdir()
    for name, array in {"text": TEXT, "audio": AUDIO, "label": LABEL, "split": WORDS}.items():
        np.save(folder / f"{name}.npy", array)
    return describe(folder)


def describe(folder, **changes):
    told = {key: value for key, value in (PLAIN | changes).items() if value is not None}
    (folder / "data.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    return folder


def own(folder, **options):
    return Own(OwnConfig(folder=str(folder), **options))


def refusal(folder):
    with pytest.raises(DataError) as caught:
        own(folder).spec()
    text = str(caught.value)
    assert text.isprintable()
    assert not store_of(folder).exists()
    assert own(folder).verify()
    return text


def check(folder):
    data = own(folder).load()
    assert data.spec == own(folder).spec()
    for split in ("train", "valid", "test"):
        rows = split == WORDS
        assert np.array_equal(data.parts[split].inputs["text"], TEXT[rows])
        assert np.array_equal(data.parts[split].inputs["audio"], AUDIO[rows].astype(np.float32))
        assert np.array_equal(data.parts[split].target, LABEL[rows])
    assert own(folder).verify() == []


# ---- kinds of files ---------------------------------------------------------------------------------------------


def test_npy(folder):
    check(folder)
    assert own(folder).spec().modalities == {"text": (5,), "audio": (4, 3)}


def test_npz_and_safetensors(folder):
    np.savez_compressed(folder / "f.npz", text=TEXT, audio=AUDIO, split=WORDS)
    save_file({"label": LABEL}, folder / "only.safetensors")
    modalities = {"text": "f.npz:text", "audio": "f.npz:audio"}
    check(describe(folder, modalities=modalities, target="only.safetensors", split="f.npz:split"))


def test_parquet_columns_and_lists(folder):
    import pandas as pd

    table = pd.DataFrame({f"t{i}": TEXT[:, i] for i in range(5)} | {"y": LABEL, "part": WORDS, "list": list(TEXT)})
    table.to_parquet(folder / "t.parquet")
    told = {"audio": "audio.npy", "target": "t.parquet:y", "split": "t.parquet:part"}
    for text in ("t.parquet:t*", "t.parquet:list"):
        modalities = {"text": text, "audio": told["audio"]}
        check(describe(folder, modalities=modalities, target=told["target"], split=told["split"]))


@pytest.mark.parametrize(
    ("task", "target"),
    [
        ({"kind": "regression", "low": 0.0, "high": 10.0}, np.linspace(0, 10, N)),
        ({"kind": "binary"}, np.arange(N) % 2),
        ({"kind": "multilabel", "n_labels": 4}, (np.arange(N)[:, None] >> np.arange(4)) % 2),
    ],
    ids=["regression", "binary", "multilabel"],
)
def test_every_task(folder, task, target):
    np.save(folder / "label.npy", target)
    data = own(describe(folder, task=task)).load()
    assert data.spec.task.kind == task["kind"]
    assert np.allclose(data.parts["test"].target, target[WORDS == "test"])


def test_a_split_by_shares_is_stratified_and_stays(folder):
    describe(folder, split={"train": 0.5, "valid": 0.25, "test": 0.25})
    data = own(folder).load()
    assert dict(data.spec.sizes) == {"train": 30, "valid": 15, "test": 15}
    assert np.bincount(data.parts["test"].target).tolist() == [5, 5, 5]
    rows = np.concatenate([part.inputs["text"] for part in data.parts.values()])
    assert np.array_equal(rows[np.lexsort(rows.T)], TEXT[np.lexsort(TEXT.T)])


def test_values_that_are_not_finite_are_zeroed_and_told(folder):
    broken = TEXT.copy()
    broken[0, 0], broken[1, 1] = np.nan, np.inf
    np.save(folder / "text.npy", broken)
    assert not own(folder).load().parts["train"].inputs["text"][[0, 1], [0, 1]].any()
    assert read_card(store_of(folder)).warnings == ["text: 1 +inf and 1 NaN set to zero."]


def test_scaling_is_learnt_on_the_training_split(folder):
    part = own(folder, scaling="train").load().parts["test"]
    train = TEXT[WORDS == "train"].astype(float)
    assert np.allclose(part.inputs["text"], (TEXT[WORDS == "test"] - train.mean(0)) / train.std(0), atol=1e-5)


# ---- the store behind it ----------------------------------------------------------------------------------------


def test_the_store_is_made_once_and_again_when_a_file_changes(folder):
    first = own(folder).spec().fingerprint
    written = (store_of(folder) / "card.json").stat().st_mtime_ns
    assert own(folder).spec().fingerprint == first
    assert (store_of(folder) / "card.json").stat().st_mtime_ns == written
    np.save(folder / "text.npy", TEXT + 1)
    os.utime(folder / "text.npy", ns=(1, 1))
    assert own(folder).spec().fingerprint != first


def test_two_folders_do_not_share_a_store(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    assert store_of(folder) != store_of(other)


def test_prepare_says_what_it_made_and_how_to_use_it(folder):
    told = Own.prepare(folder / "data.yaml", folder)
    assert "own: 36 train, 12 valid, 12 test; 2 modalities (text+audio). Its card: " in told
    assert f"datasets: [own: {{folder: {folder}}}]" in told
    assert (store_of(folder) / "card.html").exists()


def test_without_a_folder_it_says_so():
    with pytest.raises(UserError, match=r"needs a folder: write own: \{folder: PATH\} in the grid"):
        Own().spec()
    with pytest.raises(UserError, match="bench data verify own --from FOLDER"):
        Own().verify()
    with pytest.raises(ValidationError):
        OwnConfig(foldr="x")


# ---- what is wrong ----------------------------------------------------------------------------------------------


def test_verify_tells_every_problem_at_once(folder):
    np.save(folder / "text.npy", TEXT[:-1])
    np.save(folder / "audio.npy", AUDIO.astype(str))
    np.save(folder / "label.npy", LABEL + 1)
    np.save(folder / "split.npy", np.where(WORDS == "test", "tset", WORDS))
    problems = folder_problems(folder)
    assert [problem.partition(" ")[2] for problem in problems] == [
        "has values 1 to 3, expected whole classes from 0 to 2.",
        "(text) has 59 rows, but the target has 60.",
        f"(audio) holds {AUDIO.astype(str).dtype}, expected numbers.",
        "has 'tset', expected one of train, valid, test for each sample.",
    ]
    assert own(folder).verify() == problems
    assert f"(3 more: bench data verify own --from {folder})" in refusal(folder)


def bomb(folder):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (60, 1 << 20)})
    with zipfile.ZipFile(folder / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", head.getvalue() + bytes(60 << 21))
    return {"text": "b.npz:x"}


def zip_with_path(folder):
    with zipfile.ZipFile(folder / "p.npz", "w") as archive:
        archive.writestr("../../x.npy", b"x")
    return {"text": "p.npz:x"}


def short_member(folder):
    with zipfile.ZipFile(folder / "s.npz", "w") as archive:
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
        archive.writestr("x.npy", stream.getvalue())
    return {"text": "s.npz:x"}


def objects(folder):
    np.save(folder / "o.npy", np.array([{}] * N, dtype=object), allow_pickle=True)
    return {"text": "o.npy"}


def object_npz(folder):
    np.savez(folder / "o.npz", x=np.array([{}] * N, dtype=object))
    return {"text": "o.npz:x"}


def link(folder):
    (folder / "l.npy").symlink_to("/etc/passwd")
    return {"text": "l.npy"}


MODALITY = {
    "decompression bomb": (bomb, "announces"),
    "path in an archive": (zip_with_path, "has no 'x'."),
    "shape beyond the bytes": (short_member, "does not fit its"),
    "objects": (objects, "is not a .npy file of numbers or text"),
    "objects in an archive": (object_npz, "it holds objects"),
    "link out of the folder": (link, "names 'l.npy', which is not inside the folder"),
    "path out of the folder": (lambda f: {"text": "../x.npy"}, "names '../x.npy', which is not inside the folder"),
    "absolute path": (lambda f: {"text": "/etc/passwd"}, "which is not inside the folder"),
    "absent": (lambda f: {"text": "absent.npy"}, "is not there, or is not a file"),
    "a folder": (lambda f: (f / "d.npy").mkdir() or {"text": "d.npy"}, "is not there, or is not a file"),
    "unknown kind": (lambda f: {"text": "data.yaml"}, "is not of a known kind"),
    "junk npz": (lambda f: (f / "j.npz").write_bytes(b"junk") and {"text": "j.npz"}, "is not a .npz file"),
    "junk safetensors": (
        lambda f: (f / "j.safetensors").write_bytes(b"junk") and {"text": "j.safetensors:x"}, "is not a .safetensors",
    ),
    "junk parquet": (lambda f: (f / "j.parquet").write_bytes(b"junk") and {"text": "j.parquet:x"}, "is not a .parquet"),
    "key of a npy": (lambda f: {"text": "text.npy:x"}, "is one array and has no 'x'"),
    "no key": (lambda f: np.savez(f / "t.npz", a=TEXT, b=TEXT) or {"text": "t.npz"}, "holds several arrays (a, b)"),
    "wrong key": (lambda f: np.savez(f / "t.npz", text=TEXT) or {"text": "t.npz:txt"}, "Did you mean 'text'?"),
    "four axes": (lambda f: np.save(f / "q.npy", np.ones((N, 2, 2, 2))) or {"text": "q.npy"}, "expected (samples"),
    "one number": (lambda f: np.save(f / "q.npy", np.array(1.0)) or {"text": "q.npy"}, "expected one row a sample"),
}  # fmt: skip


@pytest.mark.parametrize("case", MODALITY)
def test_a_file_that_is_not_an_array_is_refused(folder, case):
    damage, told = MODALITY[case]
    assert told in refusal(describe(folder, modalities=damage(folder)))


YAML = {
    "unknown key": ({"labels": "x"}, "has an unknown key 'labels'. It knows: task, modalities, target"),
    "close key": ({"modality": {}}, "Did you mean 'modalities'?"),
    "no target": ({"target": None}, "target: Field required"),
    "no modalities": ({"modalities": {}}, "modalities: "),
    "odd name": ({"modalities": {"a+b": "text.npy"}}, "modalities.a+b"),
    "no kind": ({"task": {"n_classes": 3}}, "task: kind is one of regression, binary, multiclass, multilabel, got"),
    "odd kind": ({"task": {"kind": "multiclas"}}, "Did you mean 'multiclass'?"),
    "no classes": ({"task": {"kind": "multiclass"}}, "needs n_classes, at least 2"),
    "odd option": ({"task": {"kind": "multiclass", "classes": 3}}, "a multiclass task has no 'classes'"),
    "low above high": ({"task": {"kind": "regression", "low": 3, "high": -3}}, "low must be below high"),
    "shares": ({"split": {"train": 0.5, "valid": 0.1, "test": 0.1}}, "the shares add up to 0.7, expected 1"),
    "two shares": ({"split": {"train": 0.5, "test": 0.5}}, "expected a share for each of train, valid, test"),
    "odd share": ({"split": {"train": 0.5, "dev": 0.5}}, "split"),
}  # fmt: skip


@pytest.mark.parametrize("case", YAML)
def test_a_description_that_is_wrong_is_refused(folder, case):
    changes, told = YAML[case]
    assert told in refusal(describe(folder, **changes))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "line 1 is not YAML"),
        ("- a", "is not a mapping with the keys task, modalities"),
        ("a: &a [x]\nb: [*a, *a]", "aliases (*name) are not used here"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("[" * 5000, "is not YAML"),
        ("\x00", "is not YAML"),
        (r'"\UAAAAAAAA"', "is not YAML"),
        (r'{task: {}, modalities: {"\e[2J": x.npy}, target: x, split: x}', r"modalities.\x1b"),
    ],
)
def test_a_file_that_is_no_description_is_refused(folder, text, told):
    (folder / "data.yaml").write_text(text)
    assert told in refusal(folder)


def test_a_folder_without_a_description_says_what_is_missing(tmp_path):
    assert "has no data.yaml: it says which files hold" in refusal(tmp_path)
