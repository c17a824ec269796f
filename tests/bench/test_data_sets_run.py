"""From raw files to results: make, prepare and train on each of the affect data sets and on a folder of one's own."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import __main__ as entry
from tests.bench import run_tools
from tests.bench.run_tools import bench, query, write_grid
from tests.datasets.fixtures import make_own_folder

GRID = """
name: affect
methods: [unimodal, constant]
datasets:
  - cmu_mosi
  - cmu_mosei: {labels: three_class, scaling: train}
  - iemocap: {fold: 2, audio_steps: 8}
  - own: {folder: mine}
modalities: [full, audio]
seeds: 1
train: {epochs: 1, batch_size: 8}
"""
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


def test_every_affect_data_set_goes_from_raw_files_to_results(home: Path, call: Call) -> None:
    for name, words in MAKE.items():
        assert call("data", "make", name, *words)[0] == 0
        code, out, err = call("data", "prepare", name, "--from", words[1])
        assert code == 0, err
        assert f"{name} is prepared: " in out
        assert "expected" in err  # other sizes than the real set's
        page = (home / "stores" / name / "card.html").read_text()
        assert "<svg" in page
        assert "expected" in page
    assert "cmu_mosi is already prepared" in call("data", "prepare", "cmu_mosi", "--from", "mosi.pkl")[1]
    make_own_folder(home / "mine")
    done = bench("run", str(write_grid(home, GRID)), cwd=home)
    assert done.returncode == 0, done.stderr
    cells = query(
        home,
        "select d.value, count(*) from runs r join tags s on s.run_uuid = r.run_uuid and s.key = 'stage' "
        "join tags d on d.run_uuid = r.run_uuid and d.key = 'dataset' where s.value = 'cell' "
        "and r.status = 'FINISHED' group by d.value",
    )
    assert {str(name).partition("[")[0]: n for name, n in cells} == {
        "cmu_mosi": 4, "cmu_mosei": 4, "iemocap": 4, "own": 4,
    }  # fmt: skip
    for name in ("cmu_mosi", "iemocap"):
        assert "sound" in call("data", "verify", name)[1]
    assert "sound" in call("data", "verify", "own", "--from", "mine")[1]


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
