"""The fork server starts wherever temporary files go."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.bench.run_tools import environment

START = """
import os, tempfile
from bench.executors import forkserver
forkserver.PRELOADED = ()
forkserver.preload()
print(os.environ[forkserver.FOLDER], tempfile.gettempdir())
"""


@pytest.mark.parametrize("letters", [10, 90])
def test_a_long_path_of_temporary_files_holds_no_sockets(letters: int) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        chosen = Path(base, "x" * letters)
        chosen.mkdir()
        env = environment() | {"TMPDIR": str(chosen)}
        told = subprocess.run([sys.executable, "-c", START], env=env, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    folder, others = told.stdout.split()
    assert Path(folder).parent == (chosen if letters == 10 else Path("/tmp"))
    assert others == str(chosen)
    assert not Path(folder).exists()
