"""What SECURITY.md promises: nothing that others wrote becomes code, nothing secret is shown or kept."""

import ast
import contextlib
import csv
import os
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.report import Sources, write_report
from analysis.sections.base import Links
from bench import provenance
from bench.grid.file import Collection, load_asked, load_grid, parse_grid
from bench.grid.plan import make_plan
from bench.grid.problems import GridError
from bench.grids import bundled_names
from bench.running.runner import Runner
from bench.tracking import record_of, safe_name
from datasets.errors import UserError, without_secrets
from tests.analysis.frames import realistic, toy
from tests.datasets.fixtures import make_own_folder
from tests.fuzz.calls import call, sandbox
from tests.test_structure import MODULES

EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "--><svg/onload=alert(1)>",
    "]]></style><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "</title><base href=//x.example>",
)
SECRET = "hunter2"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with sandbox(tmp_path):
        yield tmp_path


# ---- pages ------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Everything on a page that could act, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts = 0
        self.acting: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        if tag in ("iframe", "object", "embed", "base", "form", "link", "foreignobject", "animate", "set"):
            self.acting.append(tag)
        for name, value in attrs:
            plain = re.sub(r"[\x00-\x20]", "", value or "").lower()
            data = tag == "img" and plain.startswith("data:image/png;base64,")
            leads = name in ("href", "src", "xlink:href", "action", "formaction", "style", "content")
            if name.startswith("on") or (
                leads and plain.startswith(("javascript:", "vbscript:", "data:")) and not data
            ):
                self.acting.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("evil", EVIL)
def test_no_string_of_a_report_acts(evil: str, tmp_path: Path) -> None:
    frame = toy().assign(dataset=evil, metric=evil)
    frame["method"] = frame["method"].replace({"gmc": evil, "robult": f"{evil}2"})
    for column in ("modalities", "training_id", "run_id"):
        frame[column] += evil
    frame["full"] = frame["modalities"].str.startswith("a+b")
    sources = Sources(links=Links("https://x.example", evil), failures=[evil])
    folder = tmp_path / "report"
    write_report(frame, folder, title=evil, checkpoint="last", context={evil: evil, "about": evil}, sources=sources)
    page = Page((folder / "index.html").read_text())
    assert page.scripts == 1
    assert page.acting == []
    assert evil in page.words
    assert "Content-Security-Policy" in (folder / "index.html").read_text()
    for figure in folder.glob("*.svg"):
        own = Page(figure.read_text())
        assert own.scripts == 0
        assert own.acting == []
    assert not re.search(r"(?<!\\)<(script|img|svg|base)", (folder / "report.md").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["report"], "a name led out of the folder"


@pytest.mark.parametrize("evil", EVIL)
def test_no_string_of_a_data_card_acts(evil: str, folder: Path) -> None:
    """What a folder of somebody else's says of itself is on the page of its card."""
    own = make_own_folder(folder / "own")
    quoted = evil.replace("'", "''")
    with (own / "data.yaml").open("a") as file:
        file.write(f"source: '{quoted}'\nlicence: '{quoted}'\n")
    assert call("data", "prepare", "own", "--from", "own").code == 0
    (card,) = (folder / "data").rglob("card.html")
    page = Page(card.read_text())
    assert (page.scripts, page.acting) == (0, [])
    assert evil in page.words


@pytest.mark.parametrize("address", ["javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "file:///etc"])
def test_links_lead_to_web_pages_only(address: str) -> None:
    from bench.cli.reporting import ui_address

    with pytest.raises(UserError, match="--ui takes the address of an MLflow UI"):
        ui_address("sqlite:///x.db", address)


# ---- LaTeX and CSV ----------------------------------------------------------------------------------------


def test_no_name_becomes_a_command_of_latex(tmp_path: Path) -> None:
    evil = r"\input{/etc/passwd}\write18{ls}%$x$ ^^5c"
    frame = realistic(methods=("constant", evil), seeds=2)
    frame["dataset"] += evil
    write_report(frame, tmp_path, title=evil, checkpoint="last", context={"x": evil})
    texts = [path.read_text() for path in tmp_path.rglob("*.tex")]
    assert any("textbackslash" in text for text in texts)
    for text in texts:
        assert r"\input" not in text
        assert r"\write" not in text
        assert "^^" not in text


def test_no_label_begins_as_a_formula() -> None:
    """A table of results opened in a spreadsheet computes nothing: labels of a grid begin with a letter or digit."""
    for start in ("=", "+", "-", "@", "\\t", "\\r"):
        for text in (
            f'methods: [constant: {{label: "{start}cmd"}}]\ndatasets: [digits]\n',
            f'methods: [constant]\ndatasets: [digits: {{label: "{start}cmd"}}]\n',
        ):
            with pytest.raises(GridError, match="is no label"):
                parse_grid(text)


def test_no_foreign_label_is_a_formula_in_a_table(tmp_path: Path) -> None:
    """Tags of a shared server can say anything; negative numbers stay numbers."""
    frame = toy()
    frame["method"] = frame["method"].replace({"gmc": '=HYPERLINK("http://x")', "robult": "@SUM(A1)"})
    frame["value"] = -frame["value"]
    write_report(frame, tmp_path, title="x", checkpoint="last", context={})
    for path in tmp_path.rglob("*.csv"):
        with path.open(newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "@"))], path
    assert "'@SUM(A1)" in (tmp_path / "results.csv").read_text()
    assert pd.read_csv(tmp_path / "results.csv")["value"].min() == pytest.approx(-0.9)


# ---- files ------------------------------------------------------------------------------------------------


@given(st.text(max_size=60))
def test_names_of_files_stay_in_their_folder(name: str) -> None:
    safe = safe_name(name)
    assert Path(safe).name == safe
    assert safe not in (".", "..", "")
    assert not safe.startswith(".")
    assert "\0" not in safe
    assert len(safe) <= max(len(name), 1)


# ---- secrets ----------------------------------------------------------------------------------------------

STORES = (
    f"foo://me:{SECRET}@server/x",
    f"postgresql://me:{SECRET}@127.0.0.1:9/runs",
    f"postgresql+none://me:{SECRET}@127.0.0.1:9/runs",
    f"mysql://me:{SECRET}@127.0.0.1:9/runs",
    f"http://me:{SECRET}@127.0.0.1:9",
    f"http://me:{SECRET}@127.0.0.1:9/?token={SECRET}",
    f"sqlite:///absent/x.db?password={SECRET}",
)


@pytest.mark.parametrize("uri", STORES)
def test_no_message_shows_the_login_of_a_store(uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (folder / "grid.yaml").write_text(f"methods: [constant]\ndatasets: [digits]\ntracking: {{uri: '{uri}'}}\n")
    for words in (["plan", "grid.yaml"], ["doctor"], ["report", "x"], ["compare", "a", "b"], ["reproduce", "x"]):
        ended = call(*words)
        ended.check()
        assert ended.code in (1, 2)
        assert SECRET not in ended.out + ended.err, words


def test_the_ui_server_gets_its_store_where_nobody_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.cli.commands import serve_ui

    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("subprocess.call", lambda words, env: started.append((words, env)) or 0)
    monkeypatch.chdir(tmp_path)
    uri = f"postgresql://me:{SECRET}@server/runs"
    assert serve_ui(uri, 50999) == 0
    assert serve_ui(f"http://me:{SECRET}@server", 50999) == 0
    ((words, env),) = started
    assert SECRET not in " ".join(words)
    assert env["MLFLOW_BACKEND_STORE_URI"] == uri
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert SECRET not in "".join(capsys.readouterr())


def test_a_crash_report_keeps_no_login(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.cli.data_commands

    def broken(**_: object) -> int:
        raise ZeroDivisionError(f"no answer from http://me:{SECRET}@server/api")

    monkeypatch.setattr(bench.cli.data_commands, "list_data", broken)
    ended = call("data", "ls")
    (report,) = folder.glob("bench-crash-*")
    assert "http://server/api" in ended.err
    assert SECRET not in ended.err + report.read_text()


def test_what_is_kept_with_a_grid_holds_no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tags, the two grid files, the environment with the command line, parameters of every training."""
    uri = f"http://me:{SECRET}@server"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    text = f"methods: [constant]\ndatasets: [digits]\nseeds: 1\ntracking: {{uri: '{uri}'}}\n"
    kept: list[str] = []

    class Store:
        def open_grid(self, *told: object) -> str:
            kept.extend(map(str, told))
            return "run"

        def log_files(self, _: str, files: Path, under: str) -> None:
            kept.extend(path.name + path.read_text() for path in files.iterdir())

    plan = make_plan(parse_grid(text))
    runner: Any = SimpleNamespace(plan=plan, claims=contextlib.nullcontext(), _started_ms=0)
    monkeypatch.setattr(sys, "argv", ["bench", "run", "--tracking-uri", uri])
    provenance.this_session.cache_clear()
    Runner._open_grid(runner, Store())  # type: ignore[arg-type]
    provenance.this_session.cache_clear()
    kept += [str(record_of(training)) for training in plan.trainings]
    assert any("http://server" in words for words in kept)
    assert SECRET not in "".join(kept)
    assert SECRET in plan.grid.tracking.uri, "or nobody could log in"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see http://me:pw@server/a", "see http://server/a"),
        ("postgresql+psycopg2://me:p@ss@h:5432/db", "postgresql+psycopg2://h:5432/db"),
        ("https://token@server", "https://server"),
        ("http://server/?api_key=pw&x=1", "http://server/?api_key=***&x=1"),
        ("mail me@example.org about http://server/@x", "mail me@example.org about http://server/@x"),
        ("sqlite:////home/me/runs@2.db", "sqlite:////home/me/runs@2.db"),
        ("nothing", "nothing"),
    ],
)
def test_logins_are_cut_out_of_texts(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert str(UserError(text)) == shown


# ---- code -------------------------------------------------------------------------------------------------


def _calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every call of a module by its dotted name, with its literal keyword arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given_ = {word.arg: getattr(word.value, "value", None) for word in node.keywords if word.arg}
            yield ast.unparse(node.func), given_


@pytest.mark.parametrize("module", MODULES)
def test_nothing_that_is_read_is_run(module: str) -> None:
    for name, words in _calls(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        assert name not in ("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "yaml.unsafe_load")
        assert name not in ("tarfile.open", "shutil.unpack_archive", "marshal.loads", "pd.read_pickle", "joblib.load")
        assert words.get("shell") is not True, name
        assert words.get("allow_pickle") is not True, name
        assert words.get("trust_remote_code") is not True, name
        if name.endswith("torch.load"):
            assert words.get("weights_only") is True
        if name == "np.load":
            assert words.get("allow_pickle") is False
        if name == "yaml.load":
            assert "Loader" in words


def test_a_saved_network_that_is_a_program_is_not_run(tmp_path: Path) -> None:
    import torch

    class Program:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"x": Program()}, tmp_path / "weights.pt")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        torch.load(tmp_path / "weights.pt", weights_only=True)
    assert not (tmp_path / "ran").exists()


def test_a_name_in_a_grid_is_imported_and_never_called(folder: Path) -> None:
    (folder / "mine.py").write_text("def run(*_):\n    open('ran', 'w')\n")
    for name in ("os:system", "mine:run", "builtins:eval", "subprocess:Popen"):
        (folder / "grid.yaml").write_text(f"methods: ['{name}']\ndatasets: [digits]\n")
        ended = call("plan", "grid.yaml")
        assert ended.code == 2
        assert f"'{name}' is not a Method" in ended.err
    assert not (folder / "ran").exists()


def test_bundled_grids_name_no_code() -> None:
    for name in bundled_names():
        if not isinstance(load_asked(name), Collection):
            grid = load_grid(name)
            assert not [entry.name for entry in (*grid.methods, *grid.datasets) if ":" in entry.name]
