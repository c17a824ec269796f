"""The prepared store: written whole or not at all, read memory-mapped, checked, and clear about what is wrong."""

import json
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import datasets.store
from datasets.base import Part
from datasets.errors import DataError
from datasets.store import (
    content_problems,
    data_home,
    fingerprint,
    read_card,
    read_spec,
    read_store,
    spec_of,
    store_directory,
    verify_store,
    write_store,
)
from datasets.store_folder import ARRAYS, CARD
from datasets.tasks import Binary, MultiClass, MultiLabel, Regression

TASKS = [Regression(), Binary(), MultiClass(3), MultiLabel(4)]


def make_parts(task=TASKS[2], seed=0, sizes=(8, 4, 4)):
    rng = np.random.default_rng(seed)
    return {
        split: Part(
            {
                "text": rng.normal(size=(n, 3)).astype(np.float32),
                "audio": rng.normal(size=(n, 5, 2)).astype(np.float32),
            },
            task.random_target(n, rng),
        )
        for split, n in zip(("train", "valid", "test"), sizes, strict=True)
    }


@pytest.fixture
def store(tmp_path):
    """A sound store of three classes."""
    parts = make_parts()
    write_store(tmp_path / "toy", spec_of("toy", TASKS[2], parts), parts, {"file": "raw.bin"})
    return tmp_path / "toy"


def message(call, *args):
    """The one sentence with which a call is refused."""
    with pytest.raises(DataError) as caught:
        call(*args)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 1
    return text


def edit_card(store, **changes):
    card = json.loads((store / CARD).read_text())
    (store / CARD).write_text(json.dumps(card | changes))


# ---- round trip -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_what_is_written_is_read(tmp_path, task):
    parts = make_parts(task)
    spec = spec_of("toy", task, parts)
    write_store(tmp_path / "toy", spec, parts, {"file": "raw.bin"})
    data = read_store(tmp_path / "toy")
    assert data.spec == read_spec(tmp_path / "toy") == spec
    assert list(data.spec.modalities) == ["text", "audio"]
    for split, part in parts.items():
        assert np.array_equal(data.parts[split].target, part.target)
        assert data.parts[split].target.dtype == part.target.dtype
        for name, x in part.inputs.items():
            assert np.array_equal(data.parts[split].inputs[name], x)
    assert verify_store(tmp_path / "toy") == []
    assert read_card(tmp_path / "toy").provenance == {"file": "raw.bin"}


def mapped_kib(path):
    """Memory-mapped KiB, and those of them that were copied, of a file in this process."""
    mapped = copied = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0] and not line.split(" ")[0].endswith(":"):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Size:"):
            mapped += int(line.split()[1])
        elif inside and line.startswith("Anonymous:"):
            copied += int(line.split()[1])
    return mapped, copied


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc/self/smaps")
def test_arrays_are_mapped_not_copied(tmp_path):
    task = Regression()
    parts = make_parts(task, sizes=(200_000, 4, 4))
    write_store(tmp_path / "big", spec_of("big", task, parts), parts)
    data = read_store(tmp_path / "big")
    total = data.parts["train"].inputs["audio"].sum()
    mapped, copied = mapped_kib(tmp_path / "big" / ARRAYS)
    assert mapped > 10_000
    assert copied == 0
    assert total == parts["train"].inputs["audio"].sum()


def test_writing_to_an_array_never_reaches_the_file(store):
    data = read_store(store)
    data.parts["train"].inputs["text"][:] = 0
    assert verify_store(store) == []
    assert read_store(store).parts["train"].inputs["text"].any()


def test_torch_takes_the_arrays_without_a_warning(store, recwarn):
    import torch

    assert torch.from_numpy(read_store(store).parts["train"].inputs["text"]).shape == (8, 3)
    assert not recwarn.list


# ---- fingerprint ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["train", "valid", "test"]), st.sampled_from(["text", "audio", "target"]), st.data())
def test_the_fingerprint_notices_every_value(split, name, data):
    parts = make_parts()
    before = fingerprint(TASKS[2], parts)
    array = parts[split].target if name == "target" else parts[split].inputs[name]
    at = data.draw(st.integers(0, array.size - 1))
    array.flat[at] += 1
    assert fingerprint(TASKS[2], parts) != before


def test_the_fingerprint_notices_names_shapes_and_the_task():
    parts = make_parts()
    prints = {fingerprint(TASKS[2], parts), fingerprint(MultiClass(4), parts)}
    renamed = {k: Part({"text": p.inputs["text"], "sound": p.inputs["audio"]}, p.target) for k, p in parts.items()}
    reshaped = {
        k: Part({"text": p.inputs["text"], "audio": p.inputs["audio"].reshape(-1, 2, 5)}, p.target)
        for k, p in parts.items()
    }
    prints |= {fingerprint(TASKS[2], renamed), fingerprint(TASKS[2], reshaped)}
    assert len(prints) == 4


def test_the_fingerprint_does_not_depend_on_memory_layout():
    parts = make_parts()
    turned = {k: Part({name: np.asfortranarray(x) for name, x in p.inputs.items()}, p.target) for k, p in parts.items()}
    assert fingerprint(TASKS[2], parts) == fingerprint(TASKS[2], turned)


# ---- writing whole or not at all --------------------------------------------------------------------------------


def test_the_same_content_is_not_written_twice(store):
    parts = make_parts()
    before = (store / ARRAYS).stat().st_ino
    write_store(store, spec_of("toy", TASKS[2], parts), parts)
    assert (store / ARRAYS).stat().st_ino == before


def test_other_content_and_a_damaged_store_are_replaced(store):
    parts = make_parts(seed=1)
    spec = spec_of("toy", TASKS[2], parts)
    write_store(store, spec, parts)
    assert read_spec(store) == spec
    (store / ARRAYS).write_bytes(b"junk")
    write_store(store, spec, parts)
    assert verify_store(store) == []
    assert [path.name for path in store.parent.iterdir()] == ["toy"]


def in_a_process_that_dies(step, call):
    """Run `call` in a child that is gone, without any clean-up, at the n-th flush to the disk; True if it died."""
    pid = os.fork()
    if pid == 0:
        count, real = 0, os.fsync

        def fsync(handle):
            nonlocal count
            count += 1
            if count == step:
                os._exit(9)
            real(handle)

        os.fsync = fsync
        call()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_killed_writer_leaves_no_half_store(tmp_path):
    parts = make_parts()
    spec, place = spec_of("toy", TASKS[2], parts), tmp_path / "toy"
    step = 1
    while in_a_process_that_dies(step, lambda: write_store(place, spec, parts)):
        assert not place.exists() or verify_store(place) == []
        step += 1
        if place.exists():  # it died after the move: start over with nothing
            break
    assert step > 3
    write_store(place, spec, parts)
    assert verify_store(place) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_killed_writer_leaves_the_old_store_in_place(store):
    old, parts = read_spec(store), make_parts(seed=1)
    new = spec_of("toy", TASKS[2], parts)
    for step in (1, 2, 3):
        assert in_a_process_that_dies(step, lambda: write_store(store, new, parts))
        assert read_spec(store) == old
        assert verify_store(store) == []


def test_what_a_killed_writer_left_is_swept_a_day_later(store):
    old, new = store.parent / ".toy.abc.tmp", store.parent / ".toy.def.tmp"
    for left in (old, new):
        left.mkdir()
        (left / ARRAYS).write_bytes(b"half")
    os.utime(old, (0, 0))
    parts = make_parts(seed=1)
    write_store(store, spec_of("toy", TASKS[2], parts), parts)
    assert not old.exists()
    assert new.exists()


def test_many_writers_at_once_leave_one_sound_store(tmp_path):
    parts = make_parts()
    spec, failures = spec_of("toy", TASKS[2], parts), []
    start = threading.Barrier(6)

    def write():
        start.wait()
        try:
            write_store(tmp_path / "toy", spec, parts)
        except DataError as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert verify_store(tmp_path / "toy") == []
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_a_folder_with_other_files_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    parts = make_parts()
    told = message(write_store, tmp_path, spec_of("toy", TASKS[2], parts), parts)
    assert told == f"{tmp_path} is not a store and is not overwritten: it holds 'thesis.tex'. Name another folder."
    assert "is not overwritten" in message(write_store, tmp_path / "thesis.tex", spec_of("toy", TASKS[2], parts), parts)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_link_to_a_store_stays_a_link(store):
    link = store.parent / "link"
    link.symlink_to(store)
    parts = make_parts(seed=1)
    write_store(link, spec_of("toy", TASKS[2], parts), parts)
    assert link.is_symlink()
    assert read_store(link).spec.fingerprint == fingerprint(TASKS[2], parts)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no way to reserve on this system")
def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path, monkeypatch):
    asked = []

    def full(handle, start, n_bytes):
        asked.append(n_bytes)
        raise OSError(28, "No space left on device")

    parts = make_parts()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        told = message(write_store, tmp_path / "toy", spec_of("toy", TASKS[2], parts), parts)
    assert told == f"store {tmp_path / 'toy'} cannot be written: No space left on device."
    assert list(tmp_path.iterdir()) == []
    write_store(tmp_path / "toy", spec_of("toy", TASKS[2], parts), parts)
    assert asked == [(tmp_path / "toy" / ARRAYS).stat().st_size]


def test_a_full_disk_is_told_in_one_sentence(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    parts = make_parts()
    told = message(write_store, tmp_path / "toy", spec_of("toy", TASKS[2], parts), parts)
    assert told == f"store {tmp_path / 'toy'} cannot be written: No space left on device."
    assert list(tmp_path.iterdir()) == []


def test_a_store_can_be_read_by_others(store):
    assert store.stat().st_mode & 0o005 == 0o005
    assert all((store / name).stat().st_mode & 0o004 for name in (ARRAYS, CARD))


def test_arrays_that_are_not_what_the_spec_says_are_not_written(tmp_path):
    parts = make_parts()
    spec = spec_of("toy", TASKS[2], parts)
    parts["valid"].inputs["text"][1, 2] = np.nan
    parts["test"].inputs["audio"][0, 0] = -np.inf
    told = message(write_store, tmp_path / "toy", spec, parts)
    assert told == ("data set 'toy' is not written: valid/inputs/text has 1 values that are NaN or infinite. (1 more)")
    parts["test"].target[0] = 3
    told = message(write_store, tmp_path / "toy", spec, parts)
    assert told == "data set 'toy' is not written: test/target has classes 0 to 3, expected 0 to 2."
    told = message(write_store, tmp_path / "toy", spec, make_parts(seed=1))
    assert told == "data set 'toy' is not written: its arrays do not have the fingerprint of its spec."
    assert list(tmp_path.iterdir()) == []


# ---- what is wrong with arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "value", "told"),
    [
        (MultiClass(3), 3, "train/target has classes 0 to 3, expected 0 to 2."),
        (MultiClass(3), -1, "train/target has classes -1 to 2, expected 0 to 2."),
        (Binary(), 2, "train/target has classes 0 to 2, expected 0 to 1."),
        (Regression(), 3.5, "expected -3 to 3."),
        (MultiLabel(4), 0.5, "train/target has indicators other than 0 and 1."),
        (Regression(), np.inf, "train/target has 1 values that are NaN or infinite."),
    ],
)
def test_labels_outside_the_tasks_range_are_found(task, value, told):
    parts = make_parts(task)
    spec = spec_of("toy", task, parts)
    assert content_problems(spec, parts) == []
    parts["train"].target.flat[0] = value
    (problem,) = content_problems(spec, parts)
    assert problem.endswith(told)


def test_types_shapes_and_names_are_compared():
    parts = make_parts()
    spec = spec_of("toy", TASKS[2], parts)
    inputs = dict(parts["train"].inputs)
    wide = parts | {"train": Part(inputs | {"text": inputs["text"].astype(np.float64)}, parts["train"].target)}
    assert content_problems(spec, wide) == ["train/inputs/text is float64 (8, 3), expected float32 (8, 3)."]
    short = parts | {"train": Part(inputs | {"text": inputs["text"][:5]}, parts["train"].target)}
    assert content_problems(spec, short) == ["train/inputs/text is float32 (5, 3), expected float32 (8, 3)."]
    less = parts | {"train": Part({"text": inputs["text"]}, parts["train"].target)}
    assert content_problems(spec, less) == ["train/inputs/audio is not in both the arrays and their description."]


# ---- what is wrong with a store ---------------------------------------------------------------------------------


def test_an_absent_store_names_the_command_that_makes_it(tmp_path):
    expected = (
        f"data set 'mosi' is not prepared: there is no store in {tmp_path / 'mosi'}. "
        "Prepare it with: bench data prepare mosi --from PATH"
    )
    assert message(read_spec, tmp_path / "mosi") == message(read_store, tmp_path / "mosi") == expected
    assert verify_store(tmp_path / "mosi") == [expected]


def test_a_truncated_file_says_so(store):
    size = (store / ARRAYS).stat().st_size
    with (store / ARRAYS).open("r+b") as file:
        file.truncate(size - 10)
    told = message(read_store, store)
    assert told == (
        f"{store / ARRAYS} is truncated: {size - 10} bytes, its card says {size}. "
        "Prepare it with: bench data prepare toy --from PATH"
    )
    assert verify_store(store) == [told]


def test_a_missing_arrays_file_says_so(store):
    (store / ARRAYS).unlink()
    assert f"{store / ARRAYS} is missing." in message(read_store, store)


def test_arrays_of_another_store_are_refused(store, tmp_path):
    parts = make_parts(seed=1)
    write_store(tmp_path / "other", spec_of("toy", TASKS[2], parts), parts)
    (store / ARRAYS).write_bytes((tmp_path / "other" / ARRAYS).read_bytes())
    assert "another fingerprint than its card: the two files are not from one store" in message(read_store, store)


def test_a_changed_value_is_found_by_verify(store):
    content = bytearray((store / ARRAYS).read_bytes())
    content[-5] ^= 1
    (store / ARRAYS).write_bytes(bytes(content))
    read_store(store)  # quick checks only
    assert any("have changed" in problem for problem in verify_store(store))


def test_a_newer_format_asks_for_an_update(store):
    edit_card(store, format_version=3)
    told = message(read_spec, store)
    assert told == (
        f"{store / CARD} has format version 3, this suite reads up to 2: update robult-bench, or prepare the data set "
        "again."
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sizes": {"train": 8, "valid": 4}}, "lacks a size for each of train, valid, test"),
        ({"sizes": {"train": -8, "valid": 4, "test": 4}}, "is not a store's card (sizes.train: "),
        ({"modalities": {}}, "is not a store's card (modalities: "),
        ({"modalities": {"../x": [3]}}, "is not a store's card (modalities.../x"),
        ({"modalities": {"a+b": [3]}}, "is not a store's card (modalities.a+b"),
        ({"extra": 1}, "is not a store's card (extra: "),
        ({"task": {"kind": "ranking"}}, "has an unknown task kind 'ranking', expected one of regression, binary"),
        ({"task": {"kind": ["multiclass"]}}, "has an unknown task kind"),
        ({"task": {"kind": "multiclass", "n_classes": "many"}}, "has a task that is not a multiclass task"),
        ({"task": {"kind": "multiclass", "n_classes": 3, "more": 1}}, "has a task that is not a multiclass task"),
        ({"format_version": "1"}, "is not a store's card (format_version: "),
    ],
)
def test_a_card_that_is_not_one_is_refused(store, changes, told):
    edit_card(store, **changes)
    text = message(read_spec, store)
    assert text.startswith(f"{store / CARD} {told}")
    assert text.endswith("Prepare it with: bench data prepare toy --from PATH")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"[" * 100_000, b"null", b" " * (2 << 20)])
def test_a_card_of_junk_is_refused(store, content):
    (store / CARD).write_bytes(content)
    assert message(read_spec, store).startswith(f"{store / CARD} is ")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"modalities": {"text": [4], "audio": [5, 2]}}, "has train/inputs/text as float32 (8, 3), its card says"),
        ({"modalities": {"text": [3]}}, "does not hold the arrays of its card ('test/inputs/audio')"),
        ({"sizes": {"train": 7, "valid": 4, "test": 4}}, "has train/inputs/text as float32 (8, 3)"),
        (
            {"task": {"kind": "multilabel", "n_labels": 4}},
            "has train/target as int64 (8,), its card says float32 (8, 4)",
        ),
    ],
)
def test_a_card_that_describes_other_arrays_is_refused(store, changes, told):
    edit_card(store, **changes)
    assert message(read_store, store).startswith(f"{store / ARRAYS} {told}")


def with_header(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**40) + b"{}",
        with_header(b"{"),
        with_header(b"[" * 90_000),
        with_header({"x": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}}, bytes(4)),
        with_header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**60]}}, bytes(4)),
        with_header({"x": {"dtype": "PY", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    ],
)
def test_a_hostile_header_is_refused(store, content):
    (store / ARRAYS).write_bytes(content)
    edit_card(store, data_bytes=len(content))
    told = message(read_store, store)
    assert told.startswith(f"{store / ARRAYS} ")
    assert told.endswith("Prepare it with: bench data prepare toy --from PATH")


def test_types_numpy_does_not_know_are_refused(store):
    header = {
        "__metadata__": {"fingerprint": read_card(store).fingerprint},
        "x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
    }
    (store / ARRAYS).write_bytes(with_header(header, bytes(4)))
    edit_card(store, data_bytes=(store / ARRAYS).stat().st_size)
    assert "is not a safetensors file of a store" in message(read_store, store)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_change_of_bytes_does_anything_but_raise_or_read(store, data):
    name = data.draw(st.sampled_from([ARRAYS, CARD]))
    sound = (store / name).read_bytes()
    content = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, min(900, len(content) - 1)))] = data.draw(st.integers(0, 255))
    (store / name).write_bytes(bytes(content))
    try:
        read_store(store)
    except DataError:
        assert len(verify_store(store)) == 1
    finally:
        (store / name).write_bytes(sound)


# ---- where stores live ------------------------------------------------------------------------------------------


def test_the_home_is_bench_data_or_the_users_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    assert data_home() == tmp_path
    assert store_directory("mosi") == tmp_path / "mosi"
    monkeypatch.setenv("BENCH_DATA", "~/data")
    assert data_home() == Path.home() / "data"
    monkeypatch.delenv("BENCH_DATA")
    assert data_home().name == "robult-bench"
    assert datasets.store.data_home().is_absolute()
