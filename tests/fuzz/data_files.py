"""Whole tiny files of every format the suite reads, the command that reads each, and damage to them."""

import functools
import pickle
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from datasets.raw_maker import affect_content, make_iemocap
from tests.datasets import fixtures
from tests.datasets import image_text_fixtures as pairs
from tests.fuzz.edits import damaged

DESCRIBED = """\
task: {{kind: multiclass, n_classes: 3}}
modalities: {{text: 'small.{where}'}}
target: label.npy
split: {{train: 0.6, valid: 0.2, test: 0.2}}
"""


@dataclass(frozen=True)
class Target:
    """A folder of valid files, the file in it that is damaged, and what reads it."""

    name: str
    make: Callable[[Path], object]
    """Writes the valid files into a folder."""
    file: str
    words: tuple[str, ...]
    """The command, `{}` standing for the folder."""

    def fill(self, folder: Path, content: bytes) -> None:
        """Put a copy of the valid files into `folder`, the one file with other content."""
        shutil.copytree(_valid(self.make), folder)
        (folder / self.file).write_bytes(content)

    def whole(self) -> bytes:
        return (_valid(self.make) / self.file).read_bytes()


_kept: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def _valid(make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills, made once."""
    _kept.append(tempfile.TemporaryDirectory(prefix="bench-fuzz-"))
    folder = Path(_kept[-1].name) / "valid"
    folder.mkdir()
    make(folder)
    return folder


# ---- makers -----------------------------------------------------------------------------------------------------


def _own(where: str, write: Callable[[Path, Any], object]) -> Callable[[Path], None]:
    """A maker of a user's own folder whose array is in a file of one kind."""

    def make(folder: Path) -> None:
        label = np.arange(60) % 3
        np.save(folder / "label.npy", label)
        write(folder / f"small.{where.partition(':')[0]}", np.random.default_rng(0).normal(size=(60, 4)))
        (folder / "data.yaml").write_text(DESCRIBED.format(where=where))

    return make


def _save_tensors(path: Path, x: Any) -> None:
    from safetensors.numpy import save_file

    save_file({"x": x}, path)


def _save_table(path: Path, x: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({f"x{i}": column for i, column in enumerate(x.T)}), path)


def _save_npz(path: Path, x: Any) -> None:
    np.savez_compressed(path, x=x)


def _affect(form: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        content = affect_content("cmu_mosi", form, (7, 7, 7))
        steps = slice(0, 3) if form == "mmsa" else slice(-3, None)  # where no padding is
        for part in content.values():  # narrow, or most damage would hit numbers
            for key in ("text", "audio", "vision"):
                part[key] = part[key][:, steps, : 6 if key == "text" else None]
            if "text_bert" in part:
                part["text_bert"] = part["text_bert"][:, :, steps]
        (folder / "raw.pkl").write_bytes(pickle.dumps(content, 4))

    return make


def _mat(folder: Path) -> None:
    fixtures.make_handwritten_mat(folder / "raw.mat")


def _plain_mat(folder: Path) -> None:
    fixtures.make_handwritten_mat(folder / "raw.mat", compressed=False)


def _iemocap(folder: Path) -> None:
    inner = folder / "raw"
    make_iemocap(inner, 80, audio_steps=(2, 4))


def _hdf5(folder: Path) -> None:
    films = [f"{i + 5:07d}" for i in range(6)]
    pairs.make_mm_imdb_hdf5(folder / "multimodal_imdb.hdf5")
    pairs.write(folder / "split.json", {"train": films[:2], "dev": films[2:4], "test": films[4:]})


def _store(folder: Path) -> None:
    """The prepared store of `handwritten`, as the folder of prepared data has it."""
    from datasets.handwritten import Handwritten

    fixtures.make_handwritten_mat(folder / "raw.mat")
    Handwritten.prepare(folder / "raw.mat", folder / "handwritten")


def _inside(make: Callable[[Path], object]) -> Callable[[Path], object]:
    return functools.partial(_make_inside, make)


def _make_inside(make: Callable[[Path], object], folder: Path) -> object:
    return make(folder / "raw")


VERIFY = ("data", "verify", "own", "--from", "{}")


def _prepare(name: str, source: str = "{}/raw") -> tuple[str, ...]:
    return ("data", "prepare", name, "--from", source)


TARGETS = {
    target.name: target
    for target in (
        Target("npy", _own("npy", np.save), "small.npy", VERIFY),
        Target("npz", _own("npz:x", _save_npz), "small.npz", VERIFY),
        Target("safetensors", _own("safetensors:x", _save_tensors), "small.safetensors", VERIFY),
        Target("parquet", _own("parquet:x*", _save_table), "small.parquet", VERIFY),
        Target("mat", _mat, "raw.mat", _prepare("handwritten", "{}/raw.mat")),
        Target("plain mat", _plain_mat, "raw.mat", _prepare("handwritten", "{}/raw.mat")),
        Target("mult pickle", _affect("mult"), "raw.pkl", _prepare("cmu_mosi", "{}/raw.pkl")),
        Target("mmsa pickle", _affect("mmsa"), "raw.pkl", _prepare("cmu_mosi", "{}/raw.pkl")),
        Target("iemocap h5", _iemocap, "raw/V/denseface.h5", _prepare("iemocap")),
        Target("iemocap npy", _iemocap, "raw/target/1/trn_label.npy", _prepare("iemocap")),
        Target("mm_imdb hdf5", _hdf5, "multimodal_imdb.hdf5", _prepare("mm_imdb", "{}/multimodal_imdb.hdf5")),
        Target("mm_imdb json", _inside(pairs.make_mm_imdb), "raw/split.json", _prepare("mm_imdb")),
        Target("mm_imdb film", _inside(pairs.make_mm_imdb), "raw/labels/0000005.json", _prepare("mm_imdb")),
        Target("mm_imdb jpeg", _inside(pairs.make_mm_imdb), "raw/images/0000005.jpeg", _prepare("mm_imdb")),
        Target("mm_imdb arrow", _inside(pairs.make_mm_imdb_arrow), "raw/mmimdb_train.arrow", _prepare("mm_imdb")),
        Target("memes jsonl", _inside(pairs.make_hateful_memes), "raw/train.jsonl", _prepare("hateful_memes")),
        Target("memes png", _inside(pairs.make_hateful_memes), "raw/img/01235.png", _prepare("hateful_memes")),
        Target("food101 csv", _inside(pairs.make_food101), "raw/texts/train_titles.csv", _prepare("food101")),
        Target("n24news json", _inside(pairs.make_n24news), "raw/nytimes_dataset_full.json", _prepare("n24news")),
        Target("store card", _store, "handwritten/card.json", ("data", "verify", "handwritten")),
        Target("store arrays", _store, "handwritten/data.safetensors", ("data", "verify", "handwritten")),
    )
}  # fmt: skip


def contents(target: Target) -> st.SearchStrategy[bytes]:
    """The target's file, damaged; now and then something else altogether, or the beginning of another format."""
    starts = (b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"PAR1", b"ARROW1\x00\x00", b"\x80\x04", b"{")
    noise = st.builds(lambda start, rest: start + rest, st.sampled_from(starts), st.binary(max_size=200))
    hurt = damaged(target.whole)
    return st.one_of(hurt, hurt, hurt, hurt, noise)
