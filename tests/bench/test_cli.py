"""The command line: help worth reading, one sentence when something is wrong, the right exit code, JSON on request."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import __main__ as entry

Call = Callable[..., tuple[int, str, str]]

COMMANDS = [
    ["run"], ["plan"], ["report"], ["compare"], ["ui"], ["reproduce"], ["ls"], ["check"], ["doctor"],
    ["data", "ls"], ["data", "prepare"], ["data", "embed"], ["data", "verify"], ["data", "make"],
    ["search", "best"], ["search", "show"], ["new", "method"],
]  # fmt: skip


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """`bench WORDS` in this process, in an empty folder with no data prepared."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench", *words])
        monkeypatch.setattr(sys, "path", list(sys.path))
        code = entry._run()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(call: Call, words: list[str]) -> None:
    code, out, _ = call(*words, "--help")
    assert code == 0
    assert f"Example: bench {' '.join(words)}" in out


@pytest.mark.parametrize("words", [[], ["data"], ["search"], ["new"]], ids=" ".join)
def test_lists_of_commands_are_whole_on_a_narrow_terminal(
    call: Call, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = call(*words, "--help")
    assert "..." not in out.partition("Commands:")[2]


def test_no_words_show_the_help(call: Call) -> None:
    _, out, err = call()
    assert "A first run: bench run quickstart" in " ".join((out + err).split())


def test_version(call: Call) -> None:
    code, out, _ = call("--version")
    assert code == 0
    assert out.startswith("robult-bench ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["frob"], "No such command 'frob'"),
        (["ls", "method"], "'method' is not one of 'methods', 'datasets', 'grids'"),
        (["run"], "Missing argument 'GRID'"),
        (["run", "quikstart"], "unknown grid 'quikstart'. Did you mean 'quickstart'?"),
        (["run", "absent.yaml"], "absent.yaml: no such file"),
        (["plan", "absent.yaml"], "absent.yaml: no such file"),
        (["check", "robutl"], "unknown method 'robutl'. Did you mean 'robult'? List them with: bench ls methods"),
        (["data", "verify", "digit"], "unknown data set 'digit'. Did you mean 'digits'?"),
        (["data", "prepare", "digits", "--from", "."], "data set 'digits' needs no preparation"),
        (["ui", "--port", "0"], "Invalid value for '--port'"),
        (["ui", "--tracking-uri", "mlflow.db"], "'mlflow.db' is not a tracking store"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_sentence_and_exit_code_2(call: Call, words: list[str], told: str) -> None:
    code, out, err = call(*words)
    assert code == 2
    assert told in err
    assert out == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report", "nothing"], "there is no tracking store at"),
        (["data", "verify", "handwritten"], "Prepare it with: bench data prepare handwritten --from PATH"),
        (["data", "prepare", "handwritten", "--from", "absent.mat"], "absent.mat does not exist"),
        (["ui", "--tracking-uri", "sqlite:////absent/folder/x.db"], "the folder /absent/folder does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_failed_work_is_one_sentence_and_exit_code_1(call: Call, words: list[str], told: str) -> None:
    code, _, err = call(*words)
    assert code == 1
    assert told in err
    assert len(err.strip().splitlines()) == 1


def test_a_grid_with_an_unprepared_data_set_says_how_to_prepare_it(call: Call) -> None:
    code, _, err = call("run", "handwritten")
    assert code == 2
    assert "bench data prepare handwritten --from PATH" in err


def test_all_problems_of_a_grid_are_told_at_once(call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("methods: [robutl]\ndatasets: [digit]\nlabel_ratios: [0, 2]\nseeds: [1, 1]\n")
    code, _, err = call("run", "bad.yaml")
    assert code == 2
    assert "bad.yaml:1: methods[0]: unknown method 'robutl'. Did you mean 'robult'?" in err
    assert "bad.yaml:2: datasets[0]: unknown data set 'digit'. Did you mean 'digits'?" in err
    assert "bad.yaml:3: label_ratios[0]" in err
    assert "bad.yaml:3: label_ratios[1]" in err
    assert "bad.yaml:4: seeds[1]" in err
    assert not (tmp_path / "mlflow.db").exists(), "something ran before the file was checked"


@pytest.mark.parametrize(
    "words",
    [["ls", "methods"], ["ls", "datasets"], ["ls", "grids"], ["data", "ls"], ["doctor"], ["plan", "quickstart"]],
    ids=" ".join,
)
def test_listings_print_json(call: Call, words: list[str]) -> None:
    code, out, _ = call(*words, "--json")
    assert code == 0
    assert json.loads(out)


def test_doctor_names_what_is_wrong(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"garbage, not a database" * 50)
    code, out, _ = call("doctor")
    assert code == 1
    wrong = [line for line in out.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 1
    assert "damaged or no SQLite database" in wrong[0]


def test_data_listing_says_what_is_ready(call: Call) -> None:
    _, out, _ = call("data", "ls")
    lines = out.splitlines()
    assert any(line.startswith("digits") and line.rstrip().endswith("1077/360/360") for line in lines)
    assert any(
        line.startswith("handwritten") and line.endswith("handwritten --from PATH") for line in map(str.rstrip, lines)
    )


def test_a_file_that_cannot_be_used_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.cli.data_commands

    def broken(**_: object) -> None:
        Path("x" * 300).read_text()

    monkeypatch.setattr(bench.cli.data_commands, "list_data", broken)
    assert call("data", "ls") == (1, "", f"bench: {'x' * 200}: File name too long.\n")


def test_an_unexpected_error_is_a_sentence_and_a_file(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench.cli.data_commands

    def broken(**_: object) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(bench.cli.data_commands, "list_data", broken)
    code, _, err = call("data", "ls")
    assert code == 1
    assert err.startswith(
        "bench: internal error (ZeroDivisionError: division by zero); nothing already computed is lost"
    )
    (report,) = tmp_path.glob("bench-crash-*.txt")
    assert "ZeroDivisionError" in report.read_text()
