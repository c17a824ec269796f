"""CMU-MOSI and CMU-MOSEI: every known file is recognised by its content, told what is odd in it, or refused."""

import json
import os
import pickle
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import affect
from datasets.affect import AffectConfig, relabel
from datasets.cmu_mosei import CmuMosei
from datasets.cmu_mosi import CmuMosi
from datasets.errors import DataError
from datasets.raw_maker import FORMATS, affect_content
from datasets.sequences import (
    apply_moments,
    clean,
    find_broken,
    fits_float32,
    is_empty,
    lengths,
    moments,
    restore,
    turn_left,
)
from datasets.store import read_all, read_store, store_directory, verify_store
from datasets.tasks import Binary, MultiClass, Regression

SETS = {"cmu_mosi": CmuMosi, "cmu_mosei": CmuMosei}
WIDTHS = {
    ("cmu_mosi", "mult"): (300, 5, 20), ("cmu_mosei", "mult"): (300, 74, 35),
    ("cmu_mosi", "multibench"): (300, 74, 35), ("cmu_mosei", "multibench"): (300, 74, 35),
    ("cmu_mosi", "mmsa"): (768, 5, 20), ("cmu_mosei", "mmsa"): (768, 74, 35),
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))
    return tmp_path / "stores"


def content_of(form="mult", name="cmu_mosi", sizes=(12, 7, 7)):
    return affect_content(name, form, sizes)


def write(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def prepare(tmp_path, content, name="cmu_mosi", protocol=4):
    SETS[name].prepare(write(tmp_path / "any name.bin", content, protocol), store_directory(name))
    return read_all(store_directory(name))


def refusal(tmp_path, content, name="cmu_mosi"):
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, content, name)
    text = str(caught.value)
    assert text.isprintable()
    assert not store_directory(name).exists()
    return text.removeprefix(f"{tmp_path / 'any name.bin'} ")


# ---- the families -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SETS)
def test_every_family_is_recognised_by_its_content(tmp_path, name, form):
    family, _, unaligned = form.partition("_")
    stored = prepare(tmp_path, content_of(form, name), name)
    title = {"mult": "MulT", "multibench": "MultiBench", "mmsa": "MMSA"}[family]
    assert stored.card.provenance["format"] == f"{title}, {'not aligned' if unaligned else 'aligned to words'}"
    widths = dict(zip(("text", "audio", "vision"), WIDTHS[name, family], strict=True))
    steps = {"text": 50, "audio": 375, "vision": 500} if unaligned else dict.fromkeys(widths, 50)
    assert dict(stored.data.spec.modalities) == {key: (steps[key], widths[key]) for key in widths}
    assert list(stored.data.spec.modalities) == ["text", "audio", "vision"]
    assert dict(stored.data.spec.sizes) == {"train": 12, "valid": 7, "test": 7}
    assert verify_store(store_directory(name)) == []
    assert SETS[name]().load().spec.task == Regression()


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", SETS)
def test_values_and_labels_arrive_unchanged(tmp_path, name, protocol):
    content = content_of(name=name)
    data = prepare(tmp_path, content, name, protocol).data
    for split, part in content.items():
        assert np.array_equal(data.parts[split].target, part["labels"].ravel().astype(np.float32))
        for modality in ("text", "audio", "vision"):
            expected = np.nan_to_num(part[modality].astype(np.float32), nan=0, posinf=0, neginf=0)
            assert np.array_equal(data.parts[split].inputs[modality], expected)


def test_the_text_of_the_last_step_is_the_last_word_in_every_family(tmp_path):
    for form in FORMATS:
        data = prepare(tmp_path, content_of(form)).data
        for part in data.parts.values():
            for name, x in part.inputs.items():
                filled = x[lengths(x) > 0]
                assert filled[:, -1].any(axis=1).all(), (form, name)
                assert not filled[lengths(filled) < x.shape[1], 0].any()


def test_mmsa_sequences_turn_together_and_lose_no_step(tmp_path):
    content = content_of("mmsa")
    part = content["train"]
    part["audio"][:, :, 0] = part["vision"][:, :, 0] = np.where(part["text_bert"][:, 1] > 0, np.arange(1, 51), 0)
    inputs = prepare(tmp_path, content).data.parts["train"].inputs
    words = part["text_bert"][:, 1].sum(axis=1)
    assert words[0] == 50
    for row, n in enumerate(words):
        for name in ("audio", "vision"):
            assert inputs[name][row, 50 - n :, 0].tolist() == list(range(1, n + 1))
        assert np.array_equal(inputs["text"][row, 50 - n :], part["text"][row, :n])
        assert not inputs["text"][row, : 50 - n].any()
    assert np.array_equal(inputs["text"][0], part["text"][0])  # a full row is not taken for an empty one


def test_unaligned_mmsa_sequences_turn_by_their_own_lengths(tmp_path):
    content = content_of("mmsa_unaligned")
    part = content["train"]
    inputs = prepare(tmp_path, content).data.parts["train"].inputs
    for name in ("audio", "vision"):
        for row, n in enumerate(part[f"{name}_lengths"]):
            told = np.nan_to_num(part[name][row, :n], nan=0, neginf=0)
            assert np.array_equal(inputs[name][row, -n:], told)


# ---- what is told -----------------------------------------------------------------------------------------------


def test_every_value_that_is_not_finite_is_counted_and_zeroed(tmp_path):
    content = content_of()
    content["train"]["audio"][1, 40, 2] = np.inf
    content["valid"]["vision"][0, 45, :3] = np.nan
    content["test"]["text"][2, 49, 5] = 1e39  # not finite as float32
    warnings = prepare(tmp_path, content).card.warnings
    assert "train/audio: 2 -inf and 1 +inf and 1 NaN set to zero." in warnings
    assert "valid/vision: 3 NaN set to zero." in warnings
    assert "test/text: 1 +inf set to zero." in warnings
    assert CmuMosi().load().parts["train"].inputs["audio"][1, 40, 2] == 0


def test_reference_clean_up_zeroes_minus_infinity_alone(tmp_path):
    content = content_of()
    content["train"]["audio"][1, 40, 2] = np.inf
    prepare(tmp_path, content)
    audio = CmuMosi(AffectConfig(clean_up="reference")).load().parts["train"].inputs["audio"]
    expected = content["train"]["audio"].astype(np.float32)
    expected[expected == -np.inf] = 0
    assert np.isinf(audio[1, 40, 2])
    assert np.array_equal(audio, expected, equal_nan=True)
    assert np.isfinite(CmuMosi().load().parts["train"].inputs["audio"]).all()


def test_other_sizes_widths_and_classes_are_told_not_trusted(tmp_path):
    warnings = prepare(tmp_path, content_of("mmsa", "cmu_mosei"), "cmu_mosi").card.warnings
    assert warnings[0] == ("12/7/7 training, validation and test samples, expected 1284/229/686 in a file of MMSA.")
    assert "audio has 74 features, expected 5 in a file of MMSA." in warnings
    content = content_of("mmsa")
    content["test"]["classification_labels"][:2] = 2 - content["test"]["classification_labels"][:2]
    flipped = int((content["test"]["regression_labels"][:2] != 0).sum())
    told = f"test: {flipped} classes of the file are not the sign of its sentiment, which counts."
    assert told in prepare(tmp_path, content).card.warnings


def test_a_file_of_the_known_size_has_nothing_to_tell_but_its_broken_values(tmp_path, monkeypatch):
    known = affect.Expected(((12, 7, 7),), {"text": 300, "audio": 5, "vision": 20})
    monkeypatch.setitem(CmuMosi.expected, "MulT", known)
    assert all("set to zero" in warning for warning in prepare(tmp_path, content_of()).card.warnings)


def test_the_other_data_set_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(CmuMosi, "other", ("cmu_mosei", ((12, 7, 7),)))
    told = refusal(tmp_path, content_of())
    assert told == (
        "is cmu_mosei, by its 12/7/7 samples. Prepare it with: bench data prepare cmu_mosei "
        f"--from {tmp_path / 'any name.bin'}"
    )


# ---- the options ------------------------------------------------------------------------------------------------


def test_labels_as_three_classes_and_as_two():
    values = np.array([-3, -0.2, 0, 0.2, 3], dtype=np.float32)
    assert relabel(values, "three_class").tolist() == [0, 0, 1, 2, 2]
    assert relabel(values, "binary").tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("labels", "task"), [("regression", Regression()), ("three_class", MultiClass(3)), ("binary", Binary())]
)
def test_the_labels_option_changes_the_task_and_leaves_the_inputs_where_they_are(tmp_path, labels, task):
    prepare(tmp_path, content_of())
    chosen, plain = CmuMosi(AffectConfig(labels=labels)), CmuMosi().load()
    assert chosen.spec() == chosen.load().spec
    assert chosen.spec().task == task
    assert (chosen.spec().fingerprint == plain.spec.fingerprint) == (labels == "regression")
    assert not chosen.load().parts["train"].inputs["text"].flags.owndata  # still the mapped file


def test_texts_of_zeros_are_dropped_on_request_as_multibench_does(tmp_path):
    card = prepare(tmp_path, content_of("multibench")).card
    assert card.facts["empty_text"] == {"train": 1, "valid": 0, "test": 0}
    assert CmuMosi().load().spec.sizes["train"] == 12
    dropping = CmuMosi(AffectConfig(empty_text="drop"))
    data = dropping.load()
    assert dropping.spec().sizes == {"train": 11, "valid": 7, "test": 7}
    assert {split: len(part) for split, part in data.parts.items()} == dict(data.spec.sizes)
    kept = np.delete(content_of("multibench")["train"]["labels"].ravel(), 6).astype(np.float32)
    assert np.array_equal(data.parts["train"].target, kept)


def test_scaling_learns_from_the_training_rows_that_are_no_padding(tmp_path):
    content = content_of()
    content["test"]["vision"] *= 100
    prepare(tmp_path, content)
    raw, scaled = CmuMosi().load(), CmuMosi(AffectConfig(scaling="train")).load()
    rows = raw.parts["train"].inputs["vision"].reshape(-1, 20).astype(np.float64)
    rows = rows[rows.any(axis=1)]
    for split in ("train", "test"):
        x = raw.parts[split].inputs["vision"]
        expected = np.where(x.any(axis=2, keepdims=True), (x - rows.mean(axis=0)) / rows.std(axis=0), 0)
        assert np.allclose(scaled.parts[split].inputs["vision"], expected, atol=1e-4)
        assert np.array_equal(lengths(scaled.parts[split].inputs["vision"]), lengths(x))


# ---- files that are not what they should be ---------------------------------------------------------------------


def changed(split, key, change, form="mult"):
    content = content_of(form)
    content[split][key] = change(content[split][key])
    return content


def without(split, key):
    content = content_of()
    del content[split][key]
    return content


def endless():
    loop = []
    loop.append(loop)
    return loop


BAD = {
    "no splits": (lambda: {"a": 1, "b\n": 2}, "has no splits train, valid, test at its top: it holds a, b?"),
    "a list": (lambda: [1], "it holds a list"),
    "a loop": (endless, "it holds a list"),
    "split that is no mapping": (lambda: content_of() | {"test": []}, "has no splits"),
    "no labels": (lambda: without("train", "labels"), "has neither 'labels' nor 'regression_labels' in 'train'"),
    "no audio": (lambda: without("valid", "audio"), "lacks 'valid/audio'"),
    "integers": (lambda: changed("train", "text", lambda x: x.astype(int)), "has 'train/text' as an array of int64"),
    "complex": (lambda: changed("train", "text", lambda x: x + 1j), "neither numbers nor text"),
    "text": (lambda: changed("train", "audio", lambda x: x.astype(str)), "expected real numbers"),
    "objects": (lambda: changed("test", "vision", lambda x: x.astype(object)), "as an array of objects, expected real"),
    "a loop as features": (lambda: changed("test", "vision", lambda x: endless()), "as a list, expected an array"),
    "two axes": (lambda: changed("train", "text", lambda x: x[:, 0]), "of shape (12, 300), expected (samples, steps"),
    "other rows": (lambda: changed("train", "text", lambda x: x[1:]), "has 11 samples in 'train/text' and 12 in"),
    "other steps": (
        lambda: changed("valid", "text", lambda x: x[:, 1:]), "'valid/text' with samples of (49, 300), but (50, 300)",
    ),
    "no rows": (lambda: {s: {k: v[:0] for k, v in p.items()} for s, p in content_of().items()}, "has 0 samples"),
    "label NaN": (lambda: changed("train", "labels", lambda x: x * np.nan), "has 12 labels in 'train/labels'"),
    "labels too wide": (lambda: changed("train", "labels", lambda x: np.tile(x, (1, 1, 7))), "expected one value"),
    "labels of 0..6": (lambda: changed("test", "labels", lambda x: x + 3), "in 'test', expected sentiments in [-3, 3]"),
    "huge label": (lambda: changed("train", "labels", lambda x: [10**400] * 12), "in 'train/labels' that is too large"),
    "one sample in two splits": (
        lambda: changed("test", "id", lambda x: content_of()["train"]["id"][:7]),
        "has 'train_0 0.0 4.5' and 6 more samples in both 'train' and 'test'",
    ),
    "few ids": (lambda: changed("train", "id", lambda x: x[:3]), "has 'train/id' as 3 names, expected 12"),
    "mask of another length": (
        lambda: changed("train", "text_bert", lambda x: x[:, :, :40], "mmsa"), "'train/text_bert' of shape (12, 3, 40)",
    ),
    "classes beyond": (
        lambda: changed("train", "classification_labels", lambda x: x + 2, "mmsa"), "not one of 0, 1, 2",
    ),
    "lengths of nothing": (
        lambda: changed("train", "audio_lengths", lambda x: [-1] * 12, "mmsa_unaligned"), "'train/audio_lengths' that",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_file_of_other_content_is_refused_in_one_sentence(tmp_path, case):
    make, told = BAD[case]
    text = refusal(tmp_path, make())
    assert told in text


def test_a_folder_or_an_absent_file_says_so(tmp_path):
    with pytest.raises(DataError, match="is a folder: --from takes the pickle file of 'cmu_mosi'"):
        CmuMosi.prepare(tmp_path, store_directory("cmu_mosi"))
    with pytest.raises(DataError, match="cannot be read: No such file"):
        CmuMosi.prepare(tmp_path / "absent", store_directory("cmu_mosi"))


def test_repeated_and_absent_ids_are_told(tmp_path):
    content = content_of()
    content["train"]["id"][1] = content["train"]["id"][0]
    del content["test"]["id"]
    warnings = prepare(tmp_path, content).card.warnings
    assert "1 samples have the name of another sample of their split." in warnings
    assert any(warning.startswith("test has no 'id'") for warning in warnings)


def test_a_store_of_something_else_is_refused(tmp_path):
    prepare(tmp_path, content_of())
    card = store_directory("cmu_mosi") / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"facts": {}}))
    with pytest.raises(DataError, match="does not hold text, audio and vision of 'cmu_mosi'"):
        CmuMosi().spec()


# ---- once, whole, quick -----------------------------------------------------------------------------------------


def test_the_same_file_again_changes_nothing_and_another_takes_its_place(tmp_path):
    first = prepare(tmp_path, content_of()).card
    written = (store_directory("cmu_mosi") / "data.safetensors").stat().st_mtime_ns
    assert prepare(tmp_path, content_of()).card == first
    assert (store_directory("cmu_mosi") / "data.safetensors").stat().st_mtime_ns == written
    assert prepare(tmp_path, content_of(sizes=(13, 7, 7))).card.fingerprint != first.fingerprint
    assert prepare(tmp_path, content_of()).card.fingerprint == first.fingerprint


def test_a_damaged_store_is_made_again(tmp_path):
    prepare(tmp_path, content_of())
    arrays = store_directory("cmu_mosi") / "data.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-10])
    prepare(tmp_path, content_of())
    assert verify_store(store_directory("cmu_mosi")) == []


def test_a_killed_prepare_leaves_no_half_store(tmp_path, home):
    path = write(tmp_path / "big.pkl", content_of(sizes=(60, 7, 7)))
    code = (
        "import sys; from pathlib import Path; import datasets.statistics, datasets.store as s\n"
        "from datasets.cmu_mosi import CmuMosi\n"
        "datasets.statistics.CHUNK_VALUES = 1024\n"
        "s.report = lambda *a: (print('writing', flush=True), __import__('time').sleep(0.01))\n"
        "CmuMosi.prepare(Path(sys.argv[1]), s.store_directory('cmu_mosi'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, env=dict(os.environ))
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not store_directory("cmu_mosi").exists()
    CmuMosi.prepare(path, store_directory("cmu_mosi"))
    assert verify_store(store_directory("cmu_mosi")) == []


@pytest.mark.parametrize("form", ["mult", "multibench", "mmsa", "mmsa_unaligned"])
def test_a_file_is_converted_without_being_in_memory(tmp_path, monkeypatch, form):
    """Mapped bytes of the file are not counted: they are the system's, and can be given back."""
    CmuMosi.prepare(write(tmp_path / "small.pkl", content_of(form)), store_directory("cmu_mosi"))  # imports
    monkeypatch.setattr("datasets.statistics.CHUNK_VALUES", 1 << 14)
    path = write(tmp_path / "large.pkl", content_of(form, sizes=(160, 20, 20)))
    tracemalloc.start()
    CmuMosi.prepare(path, store_directory("cmu_mosi"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.4 * path.stat().st_size
    assert verify_store(store_directory("cmu_mosi")) == []


def test_opening_copies_nothing(tmp_path):
    prepare(tmp_path, content_of(sizes=(60, 7, 7)))
    data = CmuMosi().load()
    assert all(not x.flags.owndata for part in data.parts.values() for x in part.inputs.values())


# ---- sequences --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "told"),
    [
        (np.nan, np.float64, "NaN"), (np.inf, np.float64, "+inf"), (-np.inf, np.float64, "-inf"),
        (1e39, np.float64, "+inf"), (-1e39, np.float64, "-inf"), (np.inf, np.float16, "+inf"),
        (np.nan, np.float32, "NaN"), (3.4e38, np.float64, ""), (-65504, np.float16, ""),
    ],
)  # fmt: skip
def test_one_value_that_float32_does_not_hold_is_found_among_many(value, dtype, told):
    x = np.ones((3, 4, 5), dtype)
    x[1, 2, 3] = value
    assert fits_float32(x) == (not told)
    found = find_broken(x)
    assert found.counts == ({told: 1} if told else {})
    assert found.index.tolist() == ([33] if told else [])


def test_a_sample_that_is_zero_as_float32_is_empty():
    x = np.zeros((4, 3, 2))
    x[0, 2, 1] = 1e-60  # in the last step, less than a float32 can be
    x[1, 0, 0] = 1e-60
    x[2, 0, 0] = 1.0
    assert is_empty(x).tolist() == is_empty(x.astype(np.float32)).tolist() == [True, True, False, True]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**31))
def test_turning_moves_steps_and_loses_none(n, steps, width, seed):
    rng = np.random.default_rng(seed)
    x, length = rng.normal(size=(n, steps, width)), rng.integers(0, steps + 1, n)
    turned = turn_left(x, length)
    for row, count in enumerate(length):
        assert np.array_equal(turned[row], np.roll(x[row], steps - count, axis=0))
    assert np.array_equal(turn_left(turned, steps - length), x)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 30), st.integers(0, 2**31))
def test_cleaning_and_putting_back_are_inverse(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3, 2)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = rng.choice([np.nan, np.inf, -np.inf])
    cleaned, broken = clean(x)
    assert np.isfinite(cleaned).all()
    assert sum(broken.counts.values()) == (~np.isfinite(x)).sum()
    assert np.array_equal(restore(cleaned, broken), x, equal_nan=True)


def test_lengths_count_from_the_first_row_that_is_not_zero():
    x = np.zeros((3, 4, 2), np.float32)
    x[0, 1, 0] = x[1, 3, 1] = 1
    assert lengths(x).tolist() == [3, 1, 0]


def test_a_feature_that_never_changes_is_shifted_only():
    x = np.full((4, 3, 1), 7, np.float32)
    assert not apply_moments(x, *moments(x)).any()


def test_stores_of_the_first_format_are_still_read(tmp_path):
    content = content_of("mmsa")
    for part in content.values():
        del part["id"]
    card = prepare(tmp_path, content).card
    old = {key: value for key, value in card.model_dump().items() if key in
           ("name", "modalities", "task", "sizes", "fingerprint", "data_bytes", "provenance")}  # fmt: skip
    old["format_version"] = 1
    assert not card.extras
    (store_directory("cmu_mosi") / "card.json").write_text(json.dumps(old))
    assert read_store(store_directory("cmu_mosi")).spec.fingerprint == card.fingerprint
