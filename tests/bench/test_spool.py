"""The spool and the claims: nothing half written, nothing done twice."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bench.claims import Claims
from bench.spool import Spool, write_atomically


def outcome(training_id: str, status: str = "finished") -> dict[str, object]:
    return {"record": {"training_id": training_id}, "status": status, "cells": {}}


def test_what_is_put_is_got_and_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(outcome("b" * 16))
    spool.put(outcome("a" * 16, "failed"))
    assert list(spool) == ["a" * 16, "b" * 16]
    assert spool.get("a" * 16) == outcome("a" * 16, "failed")
    spool.drop("a" * 16)
    assert list(spool) == ["b" * 16]
    assert spool.get("a" * 16) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", json.dumps(outcome("c" * 16)), json.dumps({"record": {"training_id": "d" * 16}})],
    ids=["empty", "truncated", "list", "null", "another training's", "no status"],
)
def test_a_damaged_outcome_is_set_aside_and_counts_as_none(tmp_path: Path, text: str) -> None:
    spool = Spool(tmp_path)
    path = spool.path("d" * 16)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert spool.get("d" * 16) is None
    assert list(spool) == []
    assert path.with_suffix(".damaged").read_text() == text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_sweep_removes_only_old_temporary_files(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(outcome("e" * 16))
    old, new = spool.folder / ".x.json.1.tmp", spool.folder / ".y.json.2.tmp"
    for file in (old, new):
        file.touch()
    os.utime(old, (time.time() - 120, time.time() - 120))
    spool.sweep()
    assert not old.exists()
    assert new.exists()
    assert list(spool) == ["e" * 16]


HOLD = """
import sys, time
from pathlib import Path
from bench.claims import Claims
claims = Claims(Path(sys.argv[1]))
print(claims.take(sys.argv[2]), flush=True)
time.sleep(60)
"""


def test_a_claim_excludes_other_schedulers_and_dies_with_its_holder(tmp_path: Path) -> None:
    mine, other = "0123456789abcdef", "fedcba9876543210"
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path), mine], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    claims = Claims(tmp_path)
    assert not claims.take(mine)
    assert claims.take(other)
    assert claims.take(other), "one's own claim can be asked for again"
    holder.kill()
    holder.wait()
    assert claims.take(mine)
    claims.free(mine)
    claims.free("never taken 0000")
