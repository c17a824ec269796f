"""The pairs store: written whole, read memory-mapped, and what raw folders may hold that no store should."""

import hashlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets import pairs
from datasets.base import SPLITS
from datasets.errors import DataError
from datasets.pairs import (
    RawPairs,
    Sample,
    UnusableImage,
    decode,
    read_pairs,
    read_pairs_card,
    stored_image,
    verify_pairs,
    write_pairs,
)
from datasets.raw_files import inside, read_bytes, read_csv, read_json, read_json_lines, refuse_archive, require
from datasets.store_folder import ARRAYS, CARD
from datasets.tasks import MultiClass, MultiLabel
from tests.datasets.image_text_fixtures import picture, write


def samples(n=8, **changed):
    """Samples of two classes, two of them in each of the smaller splits."""
    splits = ["train"] * (n - 4) + ["valid"] * 2 + ["test"] * 2
    return [
        Sample(f"s{i}", split, i % 2, (f"text {i}",), picture(i % 2, (10 + i, 9), seed=i), **changed)
        for i, split in enumerate(splits)
    ]


def raw(items=None, task=None, classes=("a", "b")):
    items = samples() if items is None else items
    return RawPairs(task or MultiClass(len(classes)), classes, items, len(items), None)


@pytest.fixture
def store(tmp_path):
    write_pairs(tmp_path / "toy", "toy", raw())
    return tmp_path / "toy"


def message(call, *args):
    with pytest.raises(DataError) as caught:
        call(*args)
    assert str(caught.value).isprintable()
    return str(caught.value)


# ---- content ----------------------------------------------------------------------------------------------------


def test_everything_comes_back_as_it_was(store):
    found, given_samples = read_pairs(store), samples()
    assert found.ids == [sample.id for sample in given_samples]
    assert found.target.tolist() == [sample.label for sample in given_samples]
    assert [SPLITS[i] for i in found.splits] == [sample.split for sample in given_samples]
    for row, sample in enumerate(given_samples):
        assert found.texts(row) == list(sample.texts)
        assert found.image(row) == sample.image
        assert tuple(found.sides[row]) == Image.open(io.BytesIO(sample.image)).size
    assert found.rows("valid").tolist() == [4, 5]
    assert found.card.sizes == {"train": 4, "valid": 2, "test": 2}
    assert verify_pairs(store) == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.lists(st.text(max_size=20), min_size=1, max_size=4), min_size=3, max_size=6), data=st.data())
def test_any_text_and_any_number_of_texts_survive(tmp_path, texts, data):
    split = ["train", "valid", "test", *data.draw(st.lists(st.sampled_from(SPLITS), min_size=9, max_size=9))]
    items = [
        Sample(f"é{i}", split[i], (i % 2, 1), (*own, "x"), picture(seed=i)) for i, own in enumerate(texts)
    ]  # fmt: skip
    write_pairs(tmp_path / "any", "any", raw(items, MultiLabel(2)))
    found = read_pairs(tmp_path / "any")
    assert [found.texts(row) for row in range(len(items))] == [list(item.texts) for item in items]
    assert found.target.dtype == np.float32
    assert found.target.tolist() == [list(item.label) for item in items]
    assert verify_pairs(tmp_path / "any") == []


def test_a_lone_surrogate_does_not_stop_the_writer(tmp_path):
    items = samples()
    items[0] = Sample("s0", "train", 0, ("a \ud800 b",), picture())
    write_pairs(tmp_path / "toy", "toy", raw(items))
    assert read_pairs(tmp_path / "toy").texts(0) == ["a ? b"]


def test_the_file_is_one_that_the_library_reads(store):
    from safetensors.numpy import load_file

    arrays = load_file(store / ARRAYS)
    content = b"".join(sample.image for sample in samples())
    assert arrays["images"].tobytes().rstrip(b"\0") == content.rstrip(b"\0")
    assert arrays["image_offsets"][-1] == len(content)


def test_the_same_samples_give_the_same_fingerprint_and_others_another(tmp_path, store):
    first = read_pairs_card(store).fingerprint
    assert write_pairs(tmp_path / "again", "toy", raw()).fingerprint == first
    for change in ({"texts": ("other",)}, {"label": 1}, {"image": picture(5)}, {"id": "s00"}):
        items = samples()
        items[0] = Sample(**{**vars(items[0]), **change})
        assert write_pairs(tmp_path / "changed", "toy", raw(items)).fingerprint != first


def test_large_images_are_shrunk_and_small_ones_keep_their_bytes():
    small = picture(size=(384, 700), form="PNG")
    assert stored_image(small) == (small, 384, 700)
    content, width, height = stored_image(picture(size=(1000, 500)))
    assert (width, height) == (768, 384)
    shrunk = decode(content)
    assert shrunk.size == (768, 384)
    exact = Image.open(io.BytesIO(picture(size=(1000, 500)))).resize((768, 384), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(shrunk, dtype=int) - np.asarray(exact, dtype=int)).mean() < 3


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(mode):
    buffer = io.BytesIO()
    Image.new(mode, (5, 4)).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    assert decode(buffer.getvalue()).mode == "RGB"


# ---- images that are none ---------------------------------------------------------------------------------------


def png_of(width, height):
    """A PNG whose header announces a size and whose content is a few bytes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


BAD_IMAGES = {
    "empty": (b"", "is damaged or no image"),
    "text": (b"<html>not found</html>", "is damaged or no image"),
    "truncated": (picture(size=(40, 40))[:-200], "is damaged or no image"),
    "bomb": (png_of(30_000, 30_000), "pixels"),
    "large": (png_of(9_000, 9_000), "has 9000 x 9000 pixels"),
    "short data": (png_of(500, 500), "is damaged or no image"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "is damaged or no image"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_what_is_no_image_is_told(case):
    content, told = BAD_IMAGES[case]
    with pytest.raises(UnusableImage, match=told):
        decode(content)


def test_unusable_samples_are_left_out_and_listed(tmp_path):
    items = samples(12)
    items[1] = Sample("s1", "train", 1, ("t",), BAD_IMAGES["truncated"][0])
    items[2] = Sample("s2", "train", 1, (" ", ""), picture())
    items[3] = Sample("s3", "train", 1, ("t",), tmp_path / "absent.jpg")
    card = write_pairs(tmp_path / "toy", "toy", raw(items))
    assert card.sizes["train"] == 5
    assert [sample for sample, _ in card.skipped] == ["s1", "s2", "s3"]
    assert [reason for _, reason in card.skipped] == [
        "the image is damaged or no image (OSError)", "there is no text", "the image is missing",
    ]  # fmt: skip
    assert any("3 samples are left out" in note for note in card.notes)
    assert verify_pairs(tmp_path / "toy") == []


def test_a_pipe_where_an_image_should_be_is_not_opened(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UnusableImage, match="cannot be read"):
        stored_image(tmp_path / "pipe.jpg")


# ---- what is refused --------------------------------------------------------------------------------------------


def test_more_than_half_unusable_is_refused(tmp_path):
    items = [Sample(s.id, s.split, s.label, s.texts, tmp_path / "no.jpg") for s in samples()]
    told = message(write_pairs, tmp_path / "toy", "toy", raw(items))
    assert "8 of 8 samples are unusable, the first is 's0': the image is missing" in told
    assert not (tmp_path / "toy").exists()


@pytest.mark.parametrize(("at", "told"), [(1, "'s0' is twice in train"), (5, "'s0' is in both train and valid")])
def test_an_id_that_comes_twice_is_refused(tmp_path, at, told):
    items = samples()
    items[at] = Sample(**{**vars(items[at]), "id": "s0"})
    assert told in message(write_pairs, tmp_path / "toy", "toy", raw(items))


def test_an_empty_split_is_refused(tmp_path):
    told = message(write_pairs, tmp_path / "toy", "toy", raw(samples()[:-2]))
    assert "its test split has no usable sample" in told


def test_pairs_that_are_in_train_and_test_are_told_of(tmp_path):
    items = samples()
    items[-1] = Sample(items[-1].id, "test", 1, items[0].texts, items[0].image)
    card = write_pairs(tmp_path / "toy", "toy", raw(items))
    assert "1 test samples have image and text of a training sample; they are kept." in card.notes


def test_classes_that_a_split_lacks_are_told_of(tmp_path):
    items = [Sample(s.id, s.split, 0 if s.split == "test" else s.label, s.texts, s.image) for s in samples()]
    assert "no test sample has b." in write_pairs(tmp_path / "toy", "toy", raw(items)).notes
    wide = [Sample(s.id, s.split, (1, int(s.split == "train")), s.texts, s.image) for s in samples()]
    notes = write_pairs(tmp_path / "toy", "toy", raw(wide, MultiLabel(2))).notes
    assert notes == ["no test sample has b; its F1 counts as 0."]


def test_a_damaged_image_in_a_store_is_found(tmp_path, monkeypatch):
    broken = BAD_IMAGES["truncated"][0]
    monkeypatch.setattr("datasets.pairs.stored_image", lambda source: (source, 40, 40))
    items = samples()
    items[2] = Sample("s2", "train", 0, ("t",), broken)
    write_pairs(tmp_path / "toy", "toy", raw(items))
    assert verify_pairs(tmp_path / "toy") == ["the image of sample 's2' is damaged or no image (OSError)."]


def test_another_folder_is_not_overwritten(tmp_path):
    write(tmp_path / "mine" / "thesis.txt", "years of work")
    assert "is not a store and is not overwritten" in message(write_pairs, tmp_path / "mine", "toy", raw())
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_reader_that_fails_half_way_leaves_the_old_store(store):
    def broken():
        yield from samples()[:5]
        raise DataError("line 6 is odd.")

    before = hashlib.sha256((store / ARRAYS).read_bytes()).hexdigest()
    with pytest.raises(DataError, match="line 6 is odd"):
        write_pairs(store, "toy", RawPairs(MultiClass(2), ("a", "b"), broken(), 8, None))
    assert hashlib.sha256((store / ARRAYS).read_bytes()).hexdigest() == before
    assert sorted(path.name for path in store.parent.iterdir()) == [".toy.partial", "toy"]
    write_pairs(store, "toy", raw())
    assert [path.name for path in store.parent.iterdir()] == ["toy"]


# ---- stores that were changed -----------------------------------------------------------------------------------


def change_card(store, **changed):
    card = json.loads((store / CARD).read_text())
    (store / CARD).write_text(json.dumps({**card, **changed}))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"kind": "features"}, "is not the card of a pairs store (kind"),
        ({"extra": 1}, "is not the card of a pairs store (extra"),
        ({"sizes": {"train": 5, "valid": 1, "test": 2}}, "its card says [5, 1, 2]"),
        ({"sizes": {"train": 9, "valid": 2, "test": 2}}, "has target as int64 (8,)"),
        ({"fingerprint": "0" * 32}, "another fingerprint than its card"),
        ({"data_bytes": 7}, "bytes, its card says 7"),
        ({"task": {"kind": "multilabel", "n_labels": 3}}, "has target as int64 (8,)"),
        ({"task": {"kind": "telepathy"}}, "has a task this suite does not know"),
    ],
)
def test_a_changed_card_is_refused(store, changed, told):
    change_card(store, **changed)
    text = message(read_pairs, store)
    assert told in text
    assert text.endswith("Prepare it with: bench data prepare toy --from PATH")


def test_without_a_store_the_command_is_named(tmp_path):
    assert "bench data prepare toy --from PATH" in message(read_pairs, tmp_path / "toy")


def test_a_truncated_store_is_refused(store):
    content = (store / ARRAYS).read_bytes()
    (store / ARRAYS).write_bytes(content[:-10])
    assert "bytes, its card says" in message(read_pairs, store)
    change_card(store, data_bytes=len(content) - 10)
    assert "is not a safetensors file of a store" in message(read_pairs, store)


def test_a_flipped_byte_is_found(store):
    content = bytearray((store / ARRAYS).read_bytes())
    content[8 + pairs.HEADER_BYTES + 30] ^= 1  # in the first image
    (store / ARRAYS).write_bytes(content)
    assert any("does not have the card's fingerprint" in problem for problem in verify_pairs(store))


def test_offsets_that_lead_out_of_the_file_are_refused(store):
    content = (store / ARRAYS).read_bytes()
    header = json.loads(content[8 : 8 + pairs.HEADER_BYTES])
    at = 8 + pairs.HEADER_BYTES + header["image_offsets"]["data_offsets"][1] - 8
    (store / ARRAYS).write_bytes(content[:at] + (1 << 50).to_bytes(8, "little") + content[at + 8 :])
    assert "has image_offsets that lead out of its arrays" in message(read_pairs, store)


# ---- raw files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../secret", "a/../../b", "/etc/passwd", "", ".", "..", "a\\..\\b", "a\0b", "img/../../x.png"]
)
def test_names_that_lead_out_of_a_folder_are_not_followed(tmp_path, name):
    assert inside(tmp_path, name) is None


@given(st.text(max_size=30))
def test_no_name_leads_out_of_a_folder(name):
    found = inside(Path("/data/raw"), name)
    assert found is None or (
        ".." not in found.parts and found.is_relative_to("/data/raw") and found != Path("/data/raw")
    )


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.TGZ", "a.tar"])
def test_archives_are_not_unpacked(tmp_path, name):
    write(tmp_path / name, b"PK")
    assert "is an archive: unpack it first" in message(refuse_archive, tmp_path / name)


def test_raw_files_are_bounded(tmp_path):
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "is larger than 1 MiB" in message(read_json, tmp_path / "huge.json", 1 << 20)
    write(tmp_path / "long.jsonl", b'{"a": "' + b"x" * (1 << 21) + b'"}\n')
    assert "long.jsonl:1 is longer than 1 MiB" in message(
        lambda: list(read_json_lines(tmp_path / "long.jsonl", 1 << 30))
    )
    assert "is not a regular file" in message(read_bytes, Path("/dev/zero"), 10)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "nope", "\x00", "1" * 5000])
def test_what_is_not_json_is_told(tmp_path, content):
    write(tmp_path / "a.json", content)
    assert "a.json is not JSON: " in message(read_json, tmp_path / "a.json", 1 << 20)
    write(tmp_path / "a.jsonl", '{"fine": 1}\n\n' + content)
    assert "a.jsonl:3 is not JSON: " in message(lambda: list(read_json_lines(tmp_path / "a.jsonl", 1 << 20)))


def test_a_line_that_is_no_object_is_told(tmp_path):
    write(tmp_path / "a.jsonl", "[1]")
    assert "a.jsonl:1 is not a JSON object" in message(lambda: list(read_json_lines(tmp_path / "a.jsonl", 1 << 20)))


def test_odd_csv_is_told(tmp_path):
    write(tmp_path / "a.csv", b"a,b\0,c\n")
    assert "holds NUL bytes" in message(lambda: list(read_csv(tmp_path / "a.csv", 1 << 20)))
    write(tmp_path / "b.csv", b'a,"' + b"x" * 200_000 + b'",c\n')
    assert "b.csv:1 is not CSV: field larger than field limit" in message(
        lambda: list(read_csv(tmp_path / "b.csv", 1 << 20))
    )
    write(tmp_path / "c.csv", 'x.jpg,"caf\xe9, old",c\n'.encode("latin1"))
    assert list(read_csv(tmp_path / "c.csv", 1 << 20)) == [(1, ["x.jpg", "caf\ufffd, old", "c"])]


def test_an_absent_package_is_named_with_the_command_that_installs_it():
    from datasets.errors import UserError

    with pytest.raises(
        UserError, match=r"images need Pillow, which is not installed: pip install 'robult-bench\[data\]'"
    ):
        require("no_such_package", "Pillow", "images")
