"""The spool and the claims: nothing half written, nothing done twice."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from bench.running.claims import Claims
from bench.spool import Spool, write_atomically


def outcome(training_id: str, status: str = "finished") -> dict[str, Any]:
    record: dict[str, Any] = {"training_id": training_id, "name": "a training", "data": {}}
    record |= {key: {} for key in ("tags", "training_tags", "params", "cells")}
    told: dict[str, Any] = {"record": record, "status": status, "ended_ms": 10**12}
    if status == "failed":
        return told | {"reason": "its loss became nan"}
    return told | {"curves": [], "cells": {"upper": {"last": {"acc": 0.5}}}, "best_epoch": 1, "cost": {}}


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in outcome("d" * 16).items() if name != key}


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
    [
        "",
        json.dumps(outcome("d" * 16))[:-9],
        "[]",
        "null",
        "[" * 200_000,
        "\x00" * 4096,
        json.dumps(outcome("c" * 16)),
        json.dumps(without("status")),
        json.dumps(without("cells")),
        json.dumps(without("ended_ms")),
        json.dumps(outcome("d" * 16) | {"cells": {"upper": 0.5}}),
        json.dumps(outcome("d" * 16) | {"ended_ms": 10**30}),
        json.dumps(outcome("d" * 16) | {"record": "d" * 16}),
    ],
    ids=[
        "empty",
        "truncated",
        "list",
        "null",
        "deeper than any outcome",
        "zeros",
        "another training's",
        "no status",
        "no cells",
        "no time",
        "cells of another shape",
        "a time beyond all times",
        "no record",
    ],
)
def test_a_damaged_outcome_is_set_aside_and_counts_as_none(tmp_path: Path, text: str) -> None:
    spool = Spool(tmp_path)
    path = spool.path("d" * 16)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert spool.get("d" * 16) is None
    assert list(spool) == []
    assert path.with_suffix(".damaged").read_text() == text


def test_whatever_lies_in_the_place_of_an_outcome_is_set_aside(tmp_path: Path) -> None:
    """A folder with something in it, a link to itself, a file larger than the memory: twice, so that both are kept."""
    spool = Spool(tmp_path)
    for number in (1, 2):
        folder, loop, huge = (spool.path(letter * 16) for letter in "abc")
        folder.mkdir(parents=True)
        (folder / "something").touch()
        loop.symlink_to(loop)
        with huge.open("wb") as file:
            file.truncate(1 << 40)
        assert [spool.get(letter * 16) for letter in "abc"] == [None] * 3
        assert list(spool) == []
        assert len(spool.damaged) == 3 * number
    assert len(list(spool.folder.iterdir())) == 6


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(outcome("e" * 16))
    foreign = [
        spool.folder / name for name in ("notes.json", "E" * 16 + ".json", ".x.json.1.tmp", "thesis.npz", "a\nb")
    ]
    for file in foreign:
        file.touch()
    spool.sweep(lambda _: False)
    assert list(spool) == ["e" * 16]
    assert all(file.exists() for file in foreign)


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


def test_sweep_removes_what_nobody_works_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    mine, other = "e" * 16, "f" * 16
    spool.put(outcome(mine))
    for training_id in (mine, other):
        (spool.folder / f".{training_id}.json.abc.tmp").touch()
        (spool.folder / f".{training_id}.npz.7.tmp").touch()
    spool.arrays(mine).touch()
    spool.arrays(other).touch()
    spool.arrays("0" * 16).touch()
    spool.sweep(lambda training_id: training_id == other)
    left = sorted(path.name for path in spool.folder.iterdir())
    assert left == [f".{other}.json.abc.tmp", f".{other}.npz.7.tmp", f"{mine}.json", f"{mine}.npz", f"{other}.npz"]


HOLD = """
import sys, time
from pathlib import Path
from bench.running.claims import Claims
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
    assert claims.elsewhere(mine)
    assert not claims.elsewhere(other)
    assert claims.take(other)
    assert not claims.elsewhere(other), "one's own claim is not elsewhere"
    assert claims.take(other), "one's own claim can be asked for again"
    holder.kill()
    holder.wait()
    assert claims.take(mine)
    claims.free(mine)
    claims.free("never taken 0000")
