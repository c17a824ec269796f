"""`bench WORDS` in this process on input made to break it, and the rules that whatever comes out must keep."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import category

import pytest
import typer

from bench import __main__ as entry
from tests.fuzz.commands import silence

LIMIT_S = 30
"""A case that takes longer hangs; the slowest good ones take a second or two on a busy machine."""


class Hang(BaseException):
    """A case took longer than `LIMIT_S`. No `Exception`, so that nothing on its way takes it for its own."""


@dataclass(frozen=True)
class Ended:
    """How one call of `bench` ended."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    def check(self, *names: str) -> None:
        """Fail unless the rules are kept.

        Args:
            names: where the call failed, its message must hold one of them: a file, a key.
        """
        told = f"bench {' '.join(map(repr, self.words))} -> {self.code}\n{self.out}{self.err}"
        assert self.code in (0, 1, 2, 130), told
        assert "Traceback" not in self.out + self.err, told
        assert "internal error" not in self.err, told
        assert not list(Path.cwd().glob("bench-crash-*")), told
        shown = (self.out + self.err).replace("\n", "").replace("\t", "")  # the usage errors set lists with tabs
        typed = set("".join(self.words))  # may be repeated as it is
        acted_on = {letter for letter in shown if category(letter) in ("Cc", "Cf")} - typed
        assert not acted_on, f"{told}\nA terminal would act on {acted_on}"
        if self.code:
            assert self.err.strip() or self.out.strip(), told
            assert not names or any(name in self.err for name in names), f"{told}\nIt names none of {names}"


def call(*words: str) -> Ended:
    """`bench WORDS` to its end, in the working directory."""
    out, err = io.StringIO(), io.StringIO()
    for report in Path.cwd().glob("bench-crash-*"):
        report.unlink()
    sys.argv[:] = ["bench", *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _limit():
        code = entry._run()
    return Ended(words, code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _limit() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Hang(f"it takes longer than {LIMIT_S} s")

    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)}
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def sandbox(folder: Path) -> Iterator[Path]:
    """Work in `folder`, with no data prepared, no network, and nothing that trains, serves or takes minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for key in [key for key in os.environ if key.startswith(("MLFLOW_", "BENCH_"))]:
            patch.delenv(key)
        patch.setenv("BENCH_DATA", str(folder / "data"))
        patch.setenv("COLUMNS", "120")
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(sys, "argv", list(sys.argv))
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        patch.setattr(sys, "stdin", io.StringIO())
        _replace_what_takes_long(patch)
        silence(patch)
        yield folder


def _leave(*_: object, **__: object) -> None:
    raise typer.Exit(0)


def _replace_what_takes_long(patch: pytest.MonkeyPatch) -> None:
    import bench.cli.commands
    import bench.contract
    import bench.executors.forkserver
    import bench.search.loop
    import datasets.raw_maker as maker

    content, folder = maker.affect_content, maker.make_iemocap

    def few(name: str, form: Any, sizes: Sequence[int], seed: int = 0) -> dict[str, Any]:
        few_samples: tuple[Any, ...] = tuple(min(size, 8) for size in sizes)
        return content(name, form, few_samples, seed)  # type: ignore[arg-type]

    patch.setattr(maker, "affect_content", few)
    patch.setattr(maker, "make_iemocap", lambda out, n, seed=0: folder(out, min(n, 20), seed=seed, audio_steps=(1, 4)))
    patch.setattr(bench.cli.commands, "_run", lambda *_, **__: 0)  # a plan that is sound is not trained
    patch.setattr(bench.search.loop, "Searcher", _leave)
    patch.setattr(bench.contract, "run_contract", lambda _: [])
    patch.setattr(bench.executors.forkserver, "preload", lambda: None)
