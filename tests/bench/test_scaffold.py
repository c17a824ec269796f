"""`bench new method` writes a method that passes `bench check`, and runs in a grid by its import string."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.scaffold import new_method
from datasets.errors import UserError
from tests.bench.run_tools import ROOT, bench, finished_cells, write_grid


def test_a_new_method_keeps_the_contract_and_runs(tmp_path: Path) -> None:
    told = bench("new", "method", "my_method", cwd=tmp_path)
    assert told.stdout == "wrote my_method.py and test_my_method.py. Try it: bench check my_method:MyMethod\n"
    checked = bench("check", "my_method:MyMethod", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout
    assert "BROKEN" not in checked.stdout
    write_grid(tmp_path, 'methods: ["my_method:MyMethod"]\ndatasets: [digits]\nseeds: 1\ntrain: {epochs: 1}\n')
    run = bench("run", "grid.yaml", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert len(finished_cells(tmp_path)) == 3


@pytest.mark.slow
def test_its_own_test_passes(tmp_path: Path) -> None:
    new_method("mine", tmp_path)
    env = dict(os.environ) | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["My-Method", "1st", "class", "../x", "", "x" * 300])
def test_a_name_that_is_no_module_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a method's name is a Python module name"):
        new_method(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("precious")
    with pytest.raises(UserError, match=r"test_mine\.py is there already"):
        new_method("mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
