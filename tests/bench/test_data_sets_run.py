"""From raw files to the report: make, prepare, train and report, on every data set that is not images and texts.

Those are in `tests/datasets/test_image_text_runs.py`.
"""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import __main__ as entry
from datasets.raw_maker import affect_content
from tests.bench import run_tools
from tests.bench.run_tools import bench, query, write_grid
from tests.datasets.fixtures import make_handwritten_mat, make_own_folder

GRID = """
name: sets
methods: [unimodal, constant]
datasets: [{}]
modalities: [full]
seeds: 1
train: {{epochs: 1, batch_size: 8}}
"""
QUICK = {
    "cmu_mosi": "cmu_mosi", "own": "own: {folder: mine}", "handwritten": "handwritten",
}  # fmt: skip
THOROUGH = {
    "cmu_mosei": "cmu_mosei: {labels: three_class, scaling: train}", "iemocap": "iemocap: {fold: 2, audio_steps: 8}",
    "mosi": "cmu_mosi: {fold: [1, 2], folds: 3, label: mosi}", "cmu_mosi": "cmu_mosi",
}  # fmt: skip
MAKE = {
    "cmu_mosi": ["--out", "mosi.pkl", "--rows", "24"],
    "cmu_mosei": ["--out", "mosei.pkl", "--rows", "24", "--format", "mmsa"],
    "iemocap": ["--out", "iemocap", "--rows", "80"],
}


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; stores are kept below it."""
    environment = run_tools.environment() | {"BENCH_DATA": str(tmp_path / "stores")}
    monkeypatch.setattr(run_tools, "environment", lambda: environment)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "stores"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`bench WORDS` in this process: exit code, output, errors."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench", *words])
        monkeypatch.setattr(sys, "path", list(sys.path))
        code = entry._run()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


@pytest.mark.parametrize("sets", [QUICK, pytest.param(THOROUGH, marks=pytest.mark.slow)], ids=["quick", "thorough"])
def test_every_data_set_goes_from_raw_files_to_the_report(home: Path, call: Call, sets: dict[str, str]) -> None:
    for name, words in MAKE.items():
        if name in sets:
            make_and_prepare(home, call, name, words)
    if "own" in sets:
        make_own_folder(home / "mine")
        make_handwritten_mat(home / "views.mat")
        assert call("data", "prepare", "handwritten", "--from", "views.mat")[0] == 0
    asked = [f"{{{words}}}" if ":" in words else words for words in sets.values()]
    done = bench("run", str(write_grid(home, GRID.format(", ".join(asked)))), cwd=home)
    assert done.returncode == 0, done.stderr
    cells = query(
        home,
        "select d.value, count(*) from runs r join tags s on s.run_uuid = r.run_uuid and s.key = 'stage' "
        "join tags d on d.run_uuid = r.run_uuid and d.key = 'dataset' where s.value = 'cell' "
        "and r.status = 'FINISHED' group by d.value",
    )
    found = {str(name) if str(name).startswith("mosi") else str(name).partition("[")[0]: n for name, n in cells}
    expected = [name for name in sets if name != "mosi"]
    expected += ["mosi[fold=1]", "mosi[fold=2]"] if "mosi" in sets else []
    assert found == dict.fromkeys(expected, 2)
    code, _, err = call("report", "sets", "--quick")
    assert code == 0, err
    page = (home / "reports" / "sets" / "index.html").read_text()
    assert all(name in page for name in sets)


def make_and_prepare(home: Path, call: Call, name: str, words: list[str]) -> None:
    """From nothing to a sound store with its card."""
    assert call("data", "make", name, *words)[0] == 0
    code, out, err = call("data", "prepare", name, "--from", words[1])
    assert code == 0, err
    assert f"{name} is prepared: " in out
    assert "expected" in err  # other sizes than the real set's
    page = (home / "stores" / name / "card.html").read_text()
    assert "<svg" in page
    assert "expected" in page
    assert f"{name} is already prepared" in call("data", "prepare", name, "--from", words[1])[1]
    assert "sound" in call("data", "verify", name)[1]


def test_samples_in_two_splits_are_for_a_person_to_decide(home: Path, call: Call) -> None:
    content = affect_content("cmu_mosi", "multibench", (24, 7, 9))
    content["test"]["id"][:2] = content["train"]["id"][:2]
    (home / "mosi.pkl").write_bytes(pickle.dumps(content))
    code, _, err = call("data", "prepare", "cmu_mosi", "--from", "mosi.pkl")
    assert code == 1
    assert "--overlap drop leaves it in one of them only" in err
    code, out, err = call("data", "prepare", "cmu_mosi", "--from", "mosi.pkl", "--overlap", "drop")
    assert code == 0
    assert "22 train, 7 valid, 9 test" in out
    assert "were dropped (2 train)" in err
    code, _, err = call("data", "prepare", "iemocap", "--from", ".", "--overlap", "drop")
    assert code == 2
    assert "has no splits whose samples could overlap" in err


def test_what_is_refused_is_one_sentence(home: Path, call: Call) -> None:
    (home / "bad.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    code, _, err = call("data", "prepare", "cmu_mosi", "--from", "bad.pkl")
    assert code == 1
    assert "asks for 'os.system'" in err
    assert not (home / "pwned").exists()
    code, _, err = call("data", "verify", "cmu_mosi", "--from", ".")
    assert code == 2
    assert "--from is for data sets that are folders" in err
    code, _, err = call("data", "make", "digits", "--out", "x")
    assert code == 2
    assert "there is no maker of 'digits'" in err
