"""`bench doctor`: what is wrong with this installation, and how to mend it."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets.errors import UserError, without_secrets

LOW_DISK_GIB = 2.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    about: str
    state: Literal["ok", "note", "wrong"]
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        mark = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}[self.state]
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{mark}  {self.about:<9}  {self.text}{remedy}"


def examine(tracking_uri: str | None) -> list[Finding]:
    """Look at Python, torch, devices, the tracking store, data sets and the disk."""
    return [_python(), *_torch(), _store(tracking_uri), *_data(), _disk()]


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} in {sys.prefix}")


def _torch() -> list[Finding]:
    try:
        import torch
    except ImportError as error:
        return [Finding("torch", "wrong", f"cannot be imported: {error}.", "Run: pip install 'torch>=2.11,<2.14'")]
    findings = [Finding("torch", "ok", torch.__version__)]
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        findings.append(Finding("devices", "ok", names))
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        findings.append(Finding("devices", "note", f"no GPU that torch can use; {cores} CPU cores, one slot each."))
    return findings


def _store(uri: str | None) -> Finding:
    from bench.tracking import Reader, check_store, resolve_uri, sqlite_path

    uri = resolve_uri(uri)
    try:
        check_store(uri)
        file = sqlite_path(uri)
        if file is not None and not file.exists():
            return Finding("tracking", "ok", f"{without_secrets(uri)} (made by the first run)")
        names = Reader.experiments(uri)
    except UserError as error:
        return Finding("tracking", "wrong", str(error))
    return Finding("tracking", "ok", f"{without_secrets(uri)}: {len(names)} experiments")


def _data() -> list[Finding]:
    from datasets.catalog import DATASETS
    from datasets.store import data_home

    findings = []
    for name in DATASETS.names():
        try:
            spec = DATASETS.get(name)().spec()
        except UserError as error:
            findings.append(Finding("data", "note", f"{name}: {error}"))
        else:
            findings.append(Finding("data", "ok", f"{name}: {', '.join(spec.modalities)}"))
    home = data_home()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        findings.append(Finding("data", "wrong", f"{home} cannot be written.", "Set BENCH_DATA to a folder of yours."))
    return findings


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < LOW_DISK_GIB:
        return Finding("disk", "wrong", f"{free:.1f} GiB free here.", "Make room before a long run.")
    return Finding("disk", "ok", f"{free:.0f} GiB free here")
