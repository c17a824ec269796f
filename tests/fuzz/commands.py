"""Command lines made of what the commands themselves say they take, right and wrong."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import strategies as st

from bench.cli.app import app
from bench.grids import bundled_names
from datasets.catalog import DATASETS
from methods.registry import METHODS
from tests.datasets.fixtures import make_own_folder
from tests.fuzz.yaml_texts import HOSTILE

CALLED = {
    "run", "plan", "report", "compare", "reproduce", "ls", "check", "doctor", "new method", "search run", "search show",
    "data ls", "data prepare", "data embed", "data verify", "data make",
}  # fmt: skip
"""Commands that are run; of any other one (`ui` serves, ...) only the reading of its words is tried."""

FILES = ("good.yaml", "bad.yaml", "folder", "garbage.db", "empty.db", "absent", "folder/own", ".", "..", "/dev/null")
"""What `fill` puts into the working directory, and what is not there."""
STORES = (
    "sqlite:///garbage.db",
    "sqlite:///empty.db",
    "sqlite:///none.db",
    "sqlite:///absent/x.db",
    "sqlite:///folder",
)
WORDS = (
    "methods",
    "datasets",
    "grids",
    "last",
    "best",
    "own",
    "vilt",
    "mult",
    "mmsa",
    "cpu",
    "plots=all",
    "a=b=c",
    "=",
)
NEVER = {"watch", "simulate"}
"""Options that make a command run until it is stopped, or play a whole schedule."""
GOOD = "methods: [constant]\ndatasets: [digits]\nseeds: 1\n"


def fill() -> None:
    """Write the files that command lines name into the working directory."""
    Path("good.yaml").write_text(GOOD)
    Path("bad.yaml").write_text("methods: [robutl]\nseeds: [1, 1]\n")
    Path("garbage.db").write_bytes(b"no database" * 100)
    Path("empty.db").write_bytes(b"")
    make_own_folder(Path("folder/own"))


@functools.cache
def commands() -> dict[str, Any]:
    """Every command by its words, as click has it."""
    return dict(_walk(typer.main.get_command(app), ()))


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if not children:
        yield " ".join(words), command
        return
    for name, child in children.items():
        yield from _walk(child, (*words, name))


def silence(patch: pytest.MonkeyPatch) -> None:
    """Let the commands that are not in `CALLED` do nothing once their words are read."""
    for words, info in _registered(app, ()):
        if words not in CALLED:

            @functools.wraps(info.callback)
            def nothing(*_: object, **__: object) -> int:
                return 0

            patch.setattr(info, "callback", nothing)


def _registered(group: typer.Typer, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for info in group.registered_commands:
        assert info.callback is not None
        yield " ".join([*words, info.name or info.callback.__name__.replace("_", "-")]), info
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _registered(inner.typer_instance, (*words, str(inner.name)))


def _names(parameter: Any) -> st.SearchStrategy[str]:
    """Words that suit a parameter, or nearly."""
    suiting = {
        "grid": (*bundled_names(), *FILES), "method": METHODS.names(), "tracking_uri": STORES, "source": FILES,
        "folder": FILES, "out": ("absent", "folder", "absent/x"), "on": ("digits", "synthetic", "own"),
        "form": ("mult", "mmsa"), "kind": ("methods", "grids"), "encoder": ("vilt", "resnet-bert"),
    }  # fmt: skip
    names = suiting.get(parameter.name, DATASETS.names() if parameter.name == "name" else WORDS)
    return st.sampled_from(names)


def _numbers() -> st.SearchStrategy[str]:
    return st.one_of(st.integers(-3, 9).map(str), st.integers().map(str), st.floats().map(str))


def _junk() -> st.SearchStrategy[str]:
    """Words without a slash, so that nothing is written outside the working directory."""
    letters = st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"])
    hostile = [word for word in HOSTILE if not {"/", "\\", "\0"} & set(word)]
    return st.one_of(
        st.text(letters, max_size=10), st.sampled_from(hostile), st.sampled_from(["--", "-", "-x", "--x="])
    )


def _value(parameter: Any) -> st.SearchStrategy[str]:
    good = st.one_of(_names(parameter), _numbers()) if parameter.name not in ("grid", "name") else _names(parameter)
    return st.integers(0, 7).flatmap(lambda n: good if n else st.one_of(_junk(), st.sampled_from(WORDS)))


def _given(parameter: Any) -> st.SearchStrategy[list[str]]:
    """A parameter as words of the command line."""
    if parameter.param_type_name == "argument":
        return _value(parameter).map(lambda word: [word])
    name = st.sampled_from([parameter.opts[0]] * 9 + [parameter.opts[0][:-1]])
    if parameter.is_flag:
        return name.map(lambda word: [word])
    joined = st.booleans()
    return st.builds(
        lambda word, value, one: [f"{word}={value}"] if one else [word, value], name, _value(parameter), joined
    )


@st.composite
def _lines(draw: st.DrawFn) -> list[str]:
    name = draw(st.sampled_from(sorted(commands())))
    words: list[str] = []
    for parameter in commands()[name].params:
        if parameter.name in NEVER:
            continue
        chance = 9 if parameter.required else 3
        if draw(st.integers(0, 9)) <= chance:
            words += draw(_given(parameter))
    words += draw(st.lists(_junk(), max_size=1)) if draw(st.integers(0, 5)) == 0 else []
    if draw(st.integers(0, 9)) == 0:
        words = draw(st.permutations(words))
    return [*name.split(), *words]


def _is_safe(words: list[str]) -> bool:
    """No word may be taken for one of the options in `NEVER`, shortened or not."""
    return not any(word[:3] in {f"--{name[0]}" for name in NEVER} and word != "--seed" for word in words)


def lines() -> st.SearchStrategy[list[str]]:
    """Command lines: a command with parameters of its own, or words that may be anything."""
    anything = st.lists(st.one_of(_junk(), st.sampled_from(sorted(commands())), st.sampled_from(FILES)), max_size=5)
    line = _lines()
    return st.one_of(line, line, line, line, line, anything).filter(_is_safe)
