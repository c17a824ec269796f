"""What the documentation tells people to type: run where that takes seconds, else read by the command line itself."""

import functools
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main

from bench.cli.app import app
from bench.grid.stand_in import STAND_INS
from bench.grids import bundled_names
from bench.searches import bundled_searches
from datasets.catalog import DATASETS
from methods.registry import METHODS
from tests.fuzz.calls import call, sandbox

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docker/*.md")])
SHELLS = ("", "sh", "bash", "shell", "console")
BENCH = ("bench", ".venv/bin/bench")
OTHER = (
    "cp",
    "cd",
    "export",
    "git",
    "docker",
    "pg_dump",
    "mlflow",
    "ray",
    "python",
    "sudo",
    "chmod",
    "openssl",
    "curl",
)
"""Programs of others that the documentation may name in a block of commands; what follows them is not checked."""
TREE = re.compile(r"[\w.]+/(\s|$)")
"""How a line of a listing of folders begins."""
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]+")
"""What stands for something of the reader's own."""
RUN = ("ls", "doctor", "data ls", "new method", "check", "plan", "data verify", "data prepare")
"""Commands that take seconds; the others train, serve, or need a store with results."""


@dataclass(frozen=True)
class Command:
    """A command line in a document."""

    file: str
    line: int
    words: tuple[str, ...]
    in_block: bool
    """Not in the middle of a sentence, where `bench run` may be the name of a command and no more."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {shlex.join(self.words)}"


# ---- finding them -----------------------------------------------------------------------------------------


def blocks(text: str) -> Iterator[tuple[int, str, str, list[str]]]:
    """Line number, kind (`fenced` or `indented`), language and lines of every block of code."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        if match := re.match(r"\s*```(\w*)", lines[at]):
            end = next((i for i in range(at + 1, len(lines)) if lines[i].strip() == "```"), len(lines))
            yield at + 2, "fenced", match[1], [line.strip() for line in lines[at + 1 : end]]
            at = end
        elif re.match(r" {4}\S", lines[at]) and (at == 0 or not lines[at - 1].strip()):
            end = next((i for i in range(at, len(lines)) if not re.match(r"( {4}.*)?$", lines[i])), len(lines))
            yield at + 1, "indented", "", [line.strip() for line in lines[at:end]]
            at = end
        at += 1


def spans(text: str) -> Iterator[tuple[int, str]]:
    """Line number and content of every code span outside blocks."""
    hidden = text.splitlines()
    for start, _, _, lines in blocks(text):
        for i in range(start - 1, start - 1 + len(lines)):
            hidden[i] = ""
    plain = re.sub(r"^\s*```.*$", "", "\n".join(hidden), flags=re.MULTILINE)
    for match in re.finditer(r"`([^`]+)`", plain):
        yield plain.count("\n", 0, match.start()) + 1, " ".join(match[1].split())


def words_of(line: str) -> tuple[str, ...]:
    """A line as a shell splits it, without its comment, its prompt and the variables set before the command."""
    words = shlex.split(line.removeprefix("$ "), comments=True)
    words = words[: next((at for at, word in enumerate(words) if word in (">", ">>", "|", "&&", ";")), None)]
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    return tuple(words)


def is_shell(kind: str, language: str, lines: list[str]) -> bool:
    if kind == "fenced" and language:
        return language in SHELLS
    return not all(TREE.match(line) for line in lines[:1])


def commands_of(file: str, text: str) -> Iterator[Command]:
    """Every command that a document shows: lines of blocks, and code spans that begin with a program of ours."""
    for start, kind, language, lines in blocks(text):
        if is_shell(kind, language, lines):
            for number, line in enumerate(lines, start):
                if words := words_of(line):
                    yield Command(file, number, words, True)
    for number, span in spans(text):
        first = span.split(" ")[0]
        if first in (*BENCH, "make", "pip") and span not in BENCH:
            yield Command(file, number, words_of(span), False)


def all_commands() -> list[Command]:
    return [
        command
        for path in DOCUMENTS
        for command in commands_of(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]


# ---- reading them as the command line does ------------------------------------------------------------------


@functools.cache
def root() -> Any:
    return typer.main.get_command(app)


def resolve(words: tuple[str, ...]) -> tuple[str, Any, list[str]]:
    """The command that words after `bench` name, as click has it, and the words that are left for it.

    Raises:
        LookupError: there is none.
    """
    command, names, left = root(), [], list(words)
    while (children := getattr(command, "commands", None)) and left and not left[0].startswith("-"):
        if names == ["search"] and left[0] not in children:
            left.insert(0, "run")  # `bench search NAME` is short for it
        if left[0] not in children:
            raise LookupError(f"there is no command 'bench {' '.join([*names, left[0]])}'")
        names.append(left.pop(0))
        command = children[names[-1]]
    return " ".join(names), command, left


def problem_with(command: Command) -> str | None:
    """Why `bench` would not take a command, or None."""
    try:
        name, found, left = resolve(command.words[1:])
    except LookupError as error:
        return str(error)
    if not left and (getattr(found, "commands", None) or not command.in_block):
        return None  # the name of a command, or of a group of them
    if left and getattr(found, "commands", None):
        known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
        return None if set(left) <= known else f"'bench {name}' has no option {' '.join(left)}"
    try:
        given = found.make_context(name, left).params
    except SystemExit:
        return None
    except Exception as error:  # click's usage errors, and its way to leave after --help
        if type(error).__name__ == "Exit":
            return None
        return str(error.format_message() if hasattr(error, "format_message") else error)
    return wrong_name(name, given)


def wrong_name(name: str, given: dict[str, Any]) -> str | None:
    """The grid, data set, method, stand-in, encoder or option that a command names and that is not there."""
    known = {
        "grid": (given.get("grid"), bundled_names()),
        "on": (given.get("on"), [*STAND_INS]),
        "method": (given.get("method"), METHODS.names()),
        "encoder": (given.get("encoder"), ["vilt", "resnet-bert"]),
        "search": (given.get("search"), [*bundled_searches()]),
        "name": (given.get("name") if name.startswith("data") else None, DATASETS.names()),
    }
    for what, (value, names) in known.items():
        own = not isinstance(value, str) or PLACEHOLDER.fullmatch(value) or value.endswith(".yaml") or ":" in value
        if not own and value not in names:
            return f"{what} '{value}' is none of {', '.join(names)}"
    if name == "data embed":
        fields = DATASETS.get(given["name"]).Config.model_fields if given["name"] in DATASETS.names() else {}
        for option in given.get("option") or ():
            if fields and option.partition("=")[0] not in fields:
                return f"data set '{given['name']}' has no option '{option}'"
    return None


def unknown(command: Command) -> str | None:
    """Why nobody could type a command, or None; whoever's it is."""
    first, rest = command.words[0], command.words[1:]
    if first in BENCH:
        return problem_with(command)
    if first == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        odd = [word for word in rest if "=" not in word and word not in targets]
        return f"the Makefile has no target {odd}" if odd else None
    if first in ("pip", ".venv/bin/pip"):
        setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = {extra for word in rest for extra in re.findall(r"robult-bench\[([\w,-]+)\]", word)}
        asked = {extra for group in extras for extra in group.split(",")}
        odd = sorted(asked - set(setup["optional-dependencies"]))
        return f"there is no extra {odd}" if odd else None
    if first.startswith("docker/"):
        return None if os.access(ROOT / first, os.X_OK) else f"there is no script {first} to run"
    if first.startswith(".venv/bin/"):
        return None if (ROOT / first).exists() or first.endswith(("pytest", "ruff", "mypy")) else f"no program {first}"
    return None if first in OTHER else f"'{first}' is no program that this documentation may name"


# ---- tests ------------------------------------------------------------------------------------------------


def test_commands_are_found() -> None:
    found = {path.name: 0 for path in DOCUMENTS}
    for command in all_commands():
        found[Path(command.file).name] += 1
    assert found["README.md"] > 25, found
    assert found["CONTRIBUTING.md"] > 8, found


def test_every_command_is_one() -> None:
    told = [f"{command}\n    {why}" for command in all_commands() if (why := unknown(command))]
    assert not told, "\n".join(told)


def test_every_option_in_the_text_is_one() -> None:
    def options(command: Any) -> Iterator[str]:
        yield from (option for parameter in command.params for option in parameter.opts)
        for child in getattr(command, "commands", {}).values():
            yield from options(child)

    known = {*options(root()), "--help"}
    for path in DOCUMENTS:
        for number, span in spans(path.read_text(encoding="utf-8")):
            if span.startswith("--"):
                assert span.split(" ")[0].partition("=")[0] in known, f"{path.name}:{number}: {span}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("`bench rnu quickstart`", "there is no command 'bench rnu'"),
        ("    bench data prepar x\n", "there is no command 'bench data prepar'"),
        ("`bench run quikstart`", "grid 'quikstart' is none of"),
        ("`bench run quickstart --onn digits`", "No such option: --onn"),
        ("`bench run quickstart --on mnist`", "on 'mnist' is none of"),
        ("`bench data prepare mnist --from FILE`", "name 'mnist' is none of"),
        ("`bench data embed mm_imdb --with clip`", "encoder 'clip' is none of"),
        ("`bench data embed mm_imdb --with vilt --option plts=all`", "has no option 'plts=all'"),
        ("    bench data prepare digits\n", "Missing option '--from'"),
        ("`bench check robutl`", "method 'robutl' is none of"),
        ("`make tset`", "the Makefile has no target"),
        ("`pip install 'robult-bench[vitl]'`", "there is no extra"),
        ("```sh\nbnech run quickstart\n```\n", "'bnech' is no program"),
        ("    bnech run quickstart\n", "'bnech' is no program"),
    ],
)
def test_a_command_that_is_none_is_noticed(text: str, told: str) -> None:
    (command,) = commands_of("x.md", text)
    assert told in (unknown(command) or "")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_every_make_target_of_the_documentation_can_start() -> None:
    """Down to the commands it would run, none of which is run."""
    targets = {command.words for command in all_commands() if command.words[0] == "make"}
    for words in sorted(targets):
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


# ---- running them -----------------------------------------------------------------------------------------


def yaml_blocks() -> list[str]:
    """The YAML of the README, as it is written."""
    return re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of somebody who did what the README says: its grid, its own data, a method of its own."""
    with sandbox(tmp_path_factory.mktemp("reader")) as folder:
        grid, described = yaml_blocks()
        (folder / "first.yaml").write_text(grid)
        (folder / "my-grid.yaml").write_text(grid)
        own = folder / "my-folder"
        own.mkdir()
        (own / "data.yaml").write_text(described)
        rng = np.random.default_rng(0)
        np.save(own / "text.npy", rng.normal(size=(80, 5)))
        np.savez(own / "features.npz", audio=rng.normal(size=(80, 3, 2)))
        np.save(own / "labels.npy", np.arange(80) % 4)
        assert call("new", "method", "my_method").code == 0
        (folder / "my_package").mkdir()
        (folder / "my_package" / "__init__.py").touch()
        shutil.copy(folder / "my_method.py", folder / "my_package" / "my_module.py")
        yield folder


def runnable() -> list[Command]:
    """Commands that take seconds and need nothing that the reader does not have."""
    found: dict[tuple[str, ...], Command] = {}
    for command in all_commands():
        if command.words[0] not in BENCH:
            continue
        name, _, left = resolve(command.words[1:])
        shown = any(PLACEHOLDER.fullmatch(word) for word in left)
        if "--help" in left or "--version" in left or (name in RUN and left and not shown) or name == "doctor":
            found.setdefault(command.words[1:], command)
    return list(found.values())


@pytest.mark.parametrize("command", runnable(), ids=str)
def test_commands_of_seconds_do_what_they_say(command: Command, reader: Path) -> None:
    if command.words[1:3] == ("new", "method"):  # it overwrites nothing
        for name in ("my_method.py", "test_my_method.py"):
            (reader / name).unlink()
    ended = call(*command.words[1:])
    ended.check()
    absent = "is not prepared" in ended.err  # of data that are not here the command says how to get them
    assert ended.code == 0 or absent, ended.err


def test_the_grid_of_the_readme_is_one(reader: Path) -> None:
    ended = call("plan", "first.yaml", "--json")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("{")


def test_every_example_of_the_help_is_a_command() -> None:
    def helps(command: Any) -> Iterator[str]:
        yield command.help or ""
        yield getattr(command, "epilog", None) or ""
        for child in getattr(command, "commands", {}).values():
            yield from helps(child)

    examples = [line for text in helps(root()) for line in re.findall(r"Example: (bench .*)", text)]
    assert len(examples) > 12
    for example in examples:
        command = Command("--help", 0, words_of(example), True)
        assert problem_with(command) is None, f"{example}: {problem_with(command)}"
