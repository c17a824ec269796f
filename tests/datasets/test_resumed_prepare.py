"""A preparation of images and texts that is killed goes on where it stopped, and ends as an undisturbed one does."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datasets import pairs
from datasets.hateful_memes import HatefulMemes
from datasets.image_journal import JOURNAL
from datasets.pairs import read_pairs, verify_pairs
from datasets.store_folder import ARRAYS
from tests.datasets.image_text_fixtures import picture, write

CODE = """
import sys, time
from pathlib import Path
from datasets import pairs
from datasets.hateful_memes import HatefulMemes
pairs.CHUNK, load = 4, pairs._load_image
def slow(sample):
    time.sleep(0.02)
    return load(sample)
pairs._load_image = slow
pairs.report = lambda what, done, total: print(done, flush=True)
HatefulMemes.prepare(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture
def folder(tmp_path):
    """36 memes, one of them damaged."""
    number = 0
    for name, n in {"train": 24, "dev_seen": 6, "test_seen": 6}.items():
        lines = []
        for _ in range(n):
            file = f"img/{number:05}.png"
            content = picture(number % 2, (20 + number, 30), "PNG", seed=number)
            write(tmp_path / "raw" / file, content[:60] if number == 3 else content)
            lines.append(json.dumps({"id": number, "img": file, "label": number % 2, "text": f"caption {number}"}))
            number += 1
        write(tmp_path / "raw" / f"{name}.jsonl", "\n".join(lines))
    return tmp_path / "raw"


def killed_after(samples, folder, store):
    process = subprocess.Popen([sys.executable, "-c", CODE, str(folder), str(store)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    while int(process.stdout.readline()) < samples:
        pass
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


@pytest.fixture
def decoded(monkeypatch):
    """Ids of the samples whose images are looked at in this process."""
    seen, load = [], pairs._load_image
    monkeypatch.setattr(pairs, "CHUNK", 4)
    monkeypatch.setattr(pairs, "_load_image", lambda sample: seen.append(sample.id) or load(sample))
    return seen


def partial(store):
    return store.with_name(f".{store.name}.partial")


def test_a_killed_prepare_goes_on_and_ends_as_an_undisturbed_one(tmp_path, folder, decoded):
    store = tmp_path / "stores" / "hateful_memes"
    killed_after(16, folder, store)
    assert not store.exists()
    HatefulMemes.prepare(folder, store)
    assert len(decoded) <= 36 - 16
    assert not partial(store).exists()
    assert verify_pairs(store) == []
    HatefulMemes.prepare(folder, tmp_path / "undisturbed")
    assert read_pairs(store).card == read_pairs(tmp_path / "undisturbed").card
    assert (store / ARRAYS).read_bytes() == (tmp_path / "undisturbed" / ARRAYS).read_bytes()


@pytest.mark.slow
def test_several_kills_do_no_harm(tmp_path, folder, decoded):
    store = tmp_path / "hateful_memes"
    for samples in (8, 12, 28):
        killed_after(samples, folder, store)
    HatefulMemes.prepare(folder, store)
    assert len(decoded) <= 8
    HatefulMemes.prepare(folder, tmp_path / "undisturbed")
    assert read_pairs(store).card == read_pairs(tmp_path / "undisturbed").card


def half_a_line(folder: Path) -> None:
    with (folder / JOURNAL).open("r+b") as file:
        file.truncate((folder / JOURNAL).stat().st_size - 3)


def lost_images(folder: Path) -> None:
    with (folder / ARRAYS).open("r+b") as file:
        file.truncate((folder / ARRAYS).stat().st_size - 5000)


def more_images(folder: Path) -> None:
    with (folder / ARRAYS).open("ab") as file:
        file.write(bytes(10_000))


@pytest.mark.slow
@pytest.mark.parametrize("harm", [half_a_line, lost_images, more_images])
def test_what_a_power_cut_may_leave_does_no_harm(tmp_path, folder, decoded, harm):
    store = tmp_path / "hateful_memes"
    killed_after(20, folder, store)
    harm(partial(store))
    HatefulMemes.prepare(folder, store)
    assert 16 <= len(decoded) < 36
    HatefulMemes.prepare(folder, tmp_path / "undisturbed")
    assert read_pairs(store).card == read_pairs(tmp_path / "undisturbed").card


@pytest.mark.slow
def test_an_image_that_was_changed_meanwhile_is_read_again(tmp_path, folder, decoded):
    store = tmp_path / "hateful_memes"
    killed_after(20, folder, store)
    new = picture(1, (44, 44), "PNG", seed=99)
    write(folder / "img" / "00009.png", new)
    HatefulMemes.prepare(folder, store)
    found = read_pairs(store)
    assert found.image(found.ids.index("00009")) == new
    assert decoded[0] in {f"{i:05}" for i in range(8, 12)}  # the chunk of four it is in, and what comes after
    assert verify_pairs(store) == []


@pytest.mark.slow
def test_two_at_once_are_refused(tmp_path, folder):
    store = tmp_path / "hateful_memes"
    code = CODE.replace("0.02", "0.5")
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), str(store)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(Exception, match="another process prepares this data set already"):
            HatefulMemes.prepare(folder, store)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
