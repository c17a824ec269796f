"""What a run was made with, told so fully that another can be compared with it: machine, packages, code, command."""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from datasets.errors import without_secrets

ROOT = Path(__file__).parents[1]
CODE = ("bench", "methods", "datasets", "analysis", "pyproject.toml")
"""What of a checkout determines results; nothing else of it is ever kept, so that no notes or keys go along."""
MAX_DIFF_BYTES = 1_000_000
"""The most that is kept of the changes to the code."""
SESSIONS = "sessions"
"""Folder among a grid run's artifacts: what each process that trained for it ran on, by its id."""
WITHOUT_DIFF = "BENCH_RECORD_DIFF"
"""The environment variable that keeps changes of the code to oneself, set to 0."""
_ASSIGNED = re.compile(r"(?i)^([+-].*\b\w*(?:password|passwd|secret|token|api_?key)\w*['\"]?\s*[:=]\s*)(['\"]).+\2")


@dataclass(frozen=True)
class Session:
    """One process that trains: what it runs on, and the changes of its code that are in no commit."""

    told: dict[str, Any]
    """Plain values; `packages` holds the version of every installed distribution."""
    diff: str

    @property
    def id(self) -> str:
        """A hash of all of it."""
        return sha256((self.text + self.diff).encode()).hexdigest()[:12]

    @property
    def text(self) -> str:
        """`told` as JSON."""
        return json.dumps(self.told, indent=2)

    def write(self, folder: Path) -> None:
        """Write it as `ID.json`, and the changes of the code, where there are some, as `ID.diff`."""
        (folder / f"{self.id}.json").write_text(self.text, encoding="utf-8")
        if self.diff:
            (folder / f"{self.id}.diff").write_text(self.diff, encoding="utf-8")


@cache
def this_session() -> Session:
    """What this process runs on, looked up once."""
    import torch

    from bench.grid.plan import PROTOCOL

    code, diff = git_state()
    told = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch_devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["cpu"],
        "command": command_line(),
        "protocol": PROTOCOL,
        "hardware": hardware(),
        "code": code,
        "packages": packages(),
    }
    return Session(told, diff)


def packages() -> dict[str, str]:
    """Every installed distribution and its version, as `pip freeze` tells them."""
    from importlib.metadata import distributions

    return dict(sorted((d.metadata["Name"], d.version) for d in distributions()))


def command_line() -> str:
    """The command as it was typed, without the logins that addresses in it hold."""
    return without_secrets(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))


# ---- the machine ------------------------------------------------------------------------------------------


def hardware() -> dict[str, Any]:
    """The processor, its cores and what numeric libraries make of them, the memory, and each GPU with its driver."""
    import psutil
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told: dict[str, Any] = {
        "host": platform.node(),
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "usable_threads": usable,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [_gpu(i) for i in range(torch.cuda.device_count())],
    }
    if told["gpus"]:
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        told |= {"driver": _driver(), "cuda": torch.version.cuda, "cudnn": cudnn}
    return told


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _gpu(index: int) -> dict[str, Any]:
    import torch

    told = torch.cuda.get_device_properties(index)
    return {
        "name": told.name,
        "memory_gib": round(told.total_memory / 2**30, 1),
        "capability": f"{told.major}.{told.minor}",
    }


def _driver() -> str | None:
    try:
        words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().partition("\n")[0] or None


# ---- the code ---------------------------------------------------------------------------------------------


def git_state(root: Path = ROOT) -> tuple[dict[str, Any], str]:
    """Commit and changes of the code that runs; both empty when it is no checkout of its own.

    Returns:
        `commit`, `dirty`, the digest of every new `untracked` file; and the changes as `git diff` shows them.
    """
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel").strip()).resolve() != root.resolve():
            return {}, ""  # installed below somebody else's repository
        commit = _git(root, "rev-parse", "HEAD").strip()
        plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")
        diff = _git(root, "diff", *plain, "HEAD", "--", *CODE)
        new = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE).split("\0")
    except (OSError, subprocess.SubprocessError):
        return {}, ""
    untracked = {name: _digest(root / name) for name in sorted(filter(None, new))}
    return {"commit": commit, "dirty": bool(diff or untracked), "untracked": untracked}, _kept(diff)


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words],
        capture_output=True, text=True, errors="replace", timeout=10, check=True,
    )  # fmt: skip
    return done.stdout


def _digest(path: Path) -> str:
    try:
        return sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return "unreadable"


def _kept(diff: str) -> str:
    """What is kept of a diff: no more than is worth reading, and nothing that looks like a password."""
    if os.environ.get(WITHOUT_DIFF) == "0":
        return ""
    lines = [_ASSIGNED.sub(r"\1\2***\2", line) for line in without_secrets(diff).splitlines(keepends=True)]
    text = "".join(lines)
    if len(text.encode()) <= MAX_DIFF_BYTES:
        return text
    cut = text.encode()[:MAX_DIFF_BYTES].decode(errors="ignore")
    return f"{cut}\n... cut: the changes have {len(text.encode()):,} bytes\n"


def git_tags() -> dict[str, str]:
    """The code's commit and whether it was changed since, as MLflow names them; nothing when it is not a checkout."""
    code = this_session().told["code"]
    return {"mlflow.source.git.commit": code["commit"], "git_dirty": str(code["dirty"])} if code else {}
