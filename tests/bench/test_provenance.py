"""What a session records of itself: enough to compare, nothing secret, nothing of somebody else's repository."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from bench import provenance
from bench.provenance import MAX_DIFF_BYTES, Session, command_line, git_state, hardware, packages


def git(folder: Path, *words: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    done = subprocess.run(
        ["git", *words], cwd=folder, env=os.environ | identity, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit that looks like ours."""
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "a.py").write_text("lr = 1\n")
    (tmp_path / "notes.txt").write_text("mine\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    told, diff = git_state(checkout)
    assert told == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False, "untracked": {}}
    assert diff == ""


def test_changes_of_the_code_are_kept_and_nothing_else(checkout: Path) -> None:
    (checkout / "bench" / "a.py").write_text("lr = 2\n")
    (checkout / "bench" / "new.py").write_text("x = 1\n")
    (checkout / "notes.txt").write_text("my diary\n")
    (checkout / ".env").write_text("TOKEN=1\n")
    told, diff = git_state(checkout)
    assert told["dirty"] is True
    assert list(told["untracked"]) == ["bench/new.py"]
    assert "-lr = 1\n+lr = 2\n" in diff
    assert "diary" not in diff + str(told)
    assert ".env" not in diff + str(told)
    git(checkout, "stash", "-q")
    (checkout / "again.diff").write_text(diff)
    git(checkout, "apply", "again.diff")
    assert (checkout / "bench" / "a.py").read_text() == "lr = 2\n"


def test_what_looks_like_a_secret_is_masked(checkout: Path) -> None:
    lines = ["uri = 'http://me:hunter2@server/'", "API_KEY = 'hunter2'", '"password": "hunter2"', "tokens = 5"]
    (checkout / "bench" / "a.py").write_text("\n".join(lines) + "\n")
    _, diff = git_state(checkout)
    assert "hunter2" not in diff
    assert "+uri = 'http://server/'" in diff
    assert "+tokens = 5" in diff


def test_large_changes_are_cut(checkout: Path) -> None:
    (checkout / "bench" / "a.py").write_text("x = 1\n" * 400_000)
    _, diff = git_state(checkout)
    assert len(diff.encode()) < MAX_DIFF_BYTES + 100
    assert diff.endswith("bytes\n")


def test_the_diff_can_be_kept_to_oneself(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "bench" / "a.py").write_text("lr = 2\n")
    monkeypatch.setenv("BENCH_RECORD_DIFF", "0")
    told, diff = git_state(checkout)
    assert told["dirty"] is True
    assert diff == ""


def test_a_repository_around_the_installation_is_not_ours(checkout: Path) -> None:
    inner = checkout / "venv" / "site-packages"
    (inner / "bench").mkdir(parents=True)
    assert git_state(inner) == ({}, "")


def test_no_repository_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(tmp_path) == ({}, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == ({}, "")


def test_the_machine_and_every_package_are_told() -> None:
    told = hardware()
    assert told["threads"] >= told["usable_threads"] >= 1
    assert told["memory_gib"] > 0
    assert told["cpu"]
    assert packages()["torch"] == version("torch")
    assert packages()["mlflow"] == version("mlflow")


def test_a_gpu_is_told_with_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Properties:
        name, total_memory, major, minor = "H200", 141 * 2**30, 9, 0

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    monkeypatch.setattr(provenance, "_driver", lambda: "580.1")
    told = hardware()
    assert told["gpus"] == [{"name": "H200", "memory_gib": 141.0, "capability": "9.0"}]
    assert told["driver"] == "580.1"


def test_the_command_is_told_without_its_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/home/me/.venv/bin/bench", "report", "a b", "--tracking-uri", "http://me:hunter2@server"]
    monkeypatch.setattr(sys, "argv", words)
    assert command_line() == "bench report 'a b' --tracking-uri http://server"


def test_a_session_is_known_by_its_content(tmp_path: Path) -> None:
    one, same, other = Session({"a": 1}, ""), Session({"a": 1}, ""), Session({"a": 1}, "diff")
    assert one.id == same.id != other.id
    other.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"{other.id}.json", f"{other.id}.diff"}
