"""Some hundred cases of all fuzz targets; `make fuzz` runs 10,000. Seeds are fixed, so that a test means one thing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli.app import app
from tests.fuzz import commands, data_files
from tests.fuzz.calls import Hang, call, sandbox
from tests.fuzz.targets import ALL, Fuzz

CASES = 150


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    with sandbox(tmp_path):
        yield tmp_path


@pytest.mark.parametrize("fuzz", ALL, ids=lambda fuzz: fuzz.name)
def test_whatever_comes_in_a_sentence_comes_out(fuzz: Fuzz) -> None:
    codes = fuzz.run(CASES, 0)
    assert sum(codes.values()) >= CASES / 2
    assert {0} < set(codes), "cases are neither all sound nor all refused"


@pytest.mark.parametrize("target", data_files.TARGETS.values(), ids=lambda target: target.name)
def test_undamaged_files_are_taken(target: data_files.Target) -> None:
    """Or damage to them would be refused for another reason."""
    place = Path("data" if target.name.startswith("store") else "raw-files")
    target.fill(place, target.whole())
    ended = call(*(word.format(place) for word in target.words))
    assert ended.code == 0, ended.err


def test_the_commands_that_are_called_are_commands_and_the_others_do_nothing() -> None:
    assert set(commands.commands()) >= commands.CALLED
    assert {name for name, _ in commands._registered(app, ())} == set(commands.commands())
    assert call("ui", "--tracking-uri", "nonsense").code == 0


def test_a_hang_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.cli.data_commands

    def endless(**_: object) -> int:
        while True:
            pass

    monkeypatch.setattr("tests.fuzz.calls.LIMIT_S", 0.2)
    monkeypatch.setattr(bench.cli.data_commands, "list_data", endless)
    with pytest.raises(Hang):
        call("data", "ls")


def test_an_internal_error_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.cli.data_commands

    def broken(**_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.cli.data_commands, "list_data", broken)
    with pytest.raises(AssertionError, match="internal error"):
        call("data", "ls").check()
