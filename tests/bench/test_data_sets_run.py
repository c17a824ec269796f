"""From raw files to results: make, prepare and train on each of the affect data sets and on a folder of one's own."""

from pathlib import Path

import pytest

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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; `bench` keeps its stores below it."""
    environment = run_tools.environment() | {"BENCH_DATA": str(tmp_path / "stores")}
    monkeypatch.setattr(run_tools, "environment", lambda: environment)
    return tmp_path


def test_every_affect_data_set_goes_from_raw_files_to_results(home: Path) -> None:
    for name, words in MAKE.items():
        assert bench("data", "make", name, *words, cwd=home).returncode == 0
        done = bench("data", "prepare", name, "--from", words[1], cwd=home)
        assert done.returncode == 0, done.stderr
        assert f"{name} is prepared: " in done.stdout
        assert "expected" in done.stderr  # other sizes than the real set's
        page = (home / "stores" / name / "card.html").read_text()
        assert "<svg" in page
        assert "expected" in page
    assert "cmu_mosi is already prepared" in bench("data", "prepare", "cmu_mosi", "--from", "mosi.pkl", cwd=home).stdout
    make_own_folder(home / "mine")
    grid = write_grid(home, GRID)
    done = bench("run", str(grid), cwd=home)
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
        assert bench("data", "verify", name, cwd=home).returncode == 0
    assert "sound" in bench("data", "verify", "own", "--from", "mine", cwd=home).stdout


def test_what_is_refused_is_one_sentence(home: Path) -> None:
    (home / "bad.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    done = bench("data", "prepare", "cmu_mosi", "--from", "bad.pkl", cwd=home)
    assert done.returncode == 1
    assert "asks for 'os.system'" in done.stderr
    assert not (home / "pwned").exists()
    done = bench("data", "verify", "cmu_mosi", "--from", ".", cwd=home)
    assert done.returncode == 2
    assert "--from is for data sets that are folders" in done.stderr
    done = bench("data", "make", "digits", "--out", "x", cwd=home)
    assert done.returncode == 2
    assert "there is no maker of 'digits'" in done.stderr
