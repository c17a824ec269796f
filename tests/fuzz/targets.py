"""What is fuzzed: each target draws its input and says what must hold for whatever `bench` makes of it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.datasets.fixtures import make_own_folder
from tests.fuzz import commands, data_files, yaml_texts
from tests.fuzz.calls import Ended, call

CASE = "case.yaml"


@dataclass(frozen=True)
class Fuzz:
    """One target."""

    name: str
    share: int
    """Of a hundred cases."""
    cases: Callable[[], st.SearchStrategy[Callable[[], Ended]]]
    """Cases, each a call that runs it and checks the rules."""

    def run(self, n: int, start: int) -> dict[int, int]:
        """Run `n` cases from a seed; returns how often each exit code came.

        Raises:
            AssertionError, Hang, Exception: of the smallest case found that breaks a rule.
        """
        codes: dict[int, int] = {}

        @seed(start)
        @settings(max_examples=n, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(self.cases())
        def every(case: Callable[[], Ended]) -> None:
            code = case().code
            codes[code] = codes.get(code, 0) + 1

        every()
        return codes


# ---- YAML -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GridCase:
    """A grid file."""

    content: bytes

    def __call__(self) -> Ended:
        Path(CASE).write_bytes(self.content)
        ended = call("plan", CASE)
        ended.check(CASE, "none.yaml")
        if ended.code == 2 and "grids cannot be planned" not in ended.err:
            lines = [line for line in ended.err.splitlines() if not line.startswith(("To try the grid", "... and "))]
            assert all(line.startswith((f"bench: {CASE}", CASE, "bench: none.yaml")) for line in lines), ended.err
        return ended


@dataclass(frozen=True)
class SearchCase:
    """A search file."""

    content: bytes

    def __call__(self) -> Ended:
        Path(CASE).write_bytes(self.content)
        ended = call("search", CASE)
        ended.check(CASE)
        return ended


@dataclass(frozen=True)
class DescribedCase:
    """The `data.yaml` of a folder of arrays."""

    content: bytes

    def __call__(self) -> Ended:
        folder = Path("own")
        if not folder.exists():
            make_own_folder(folder)
        (folder / "data.yaml").write_bytes(self.content)
        shutil.rmtree("data", ignore_errors=True)
        ended = call("data", "verify", "own", "--from", "own")
        ended.check("own")
        return ended


def _grids() -> st.SearchStrategy[GridCase]:
    return st.builds(GridCase, yaml_texts.texts(yaml_texts.grid_values(), yaml_texts.bundled()))


def _searches() -> st.SearchStrategy[SearchCase]:
    texts = yaml_texts.texts(yaml_texts.search_values(), yaml_texts.bundled("bench.searches"))
    return st.builds(SearchCase, texts)


def _described() -> st.SearchStrategy[DescribedCase]:
    example = (
        data_files.DESCRIBED.format(where="npy").replace("small.npy", "text.npy").replace("label.npy", "rest.npz:label")
    )
    return st.builds(DescribedCase, yaml_texts.texts(yaml_texts.described_values(), st.just(example)))


# ---- data files -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileCase:
    """A data file."""

    target: str
    content: bytes

    def __call__(self) -> Ended:
        target, folder = data_files.TARGETS[self.target], Path("raw-files")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree("data", ignore_errors=True)
        target.fill(folder, self.content)
        if target.name.startswith("store"):
            folder.rename("data")
        ended = call(*(word.format(folder) for word in target.words))
        ended.check(str(folder), "data", "own")
        assert ended.code != 2, f"a damaged file is no wrong use\n{ended.err}"
        return ended


def _files() -> st.SearchStrategy[FileCase]:
    def one(name: str) -> st.SearchStrategy[FileCase]:
        return st.builds(FileCase, st.just(name), data_files.contents(data_files.TARGETS[name]))

    return st.sampled_from(sorted(data_files.TARGETS)).flatmap(one)


# ---- command lines ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LineCase:
    """A command line."""

    words: list[str]

    def __call__(self) -> Ended:
        if not Path("good.yaml").exists():
            commands.fill()
        ended = call(*self.words)
        ended.check()
        for path in Path().iterdir():  # what a command made must not change what the next one says
            if path.name not in ("good.yaml", "bad.yaml", "folder", "garbage.db", "empty.db"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return ended


def _lines() -> st.SearchStrategy[LineCase]:
    return st.builds(LineCase, commands.lines())


ALL = (
    Fuzz("grid YAML", 30, _grids),
    Fuzz("search YAML", 10, _searches),
    Fuzz("data.yaml", 10, _described),
    Fuzz("data files", 30, _files),
    Fuzz("command lines", 20, _lines),
)
