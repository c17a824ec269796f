"""Timing side by side, and the table that is printed of it."""

import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Row:
    """One measured thing, with what it is measured against."""

    item: str
    what: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None
    """None where there is no target."""
    told: str = ""
    """The numbers behind it."""


def at_least(value: float, limit: float, unit: str = "x") -> tuple[str, bool]:
    return f"at least {limit:g} {unit}", value >= limit


def at_most(value: float, limit: float, unit: str = "x") -> tuple[str, bool]:
    return f"at most {limit:g} {unit}", value <= limit


def cpu_ms(call: Callable[[], object]) -> float:
    """CPU time of this thread, which other processes on the machine change little."""
    started = time.thread_time()
    call()
    return 1000 * (time.thread_time() - started)


def interleaved_ms(calls: Sequence[Callable[[], object]], rounds: int = 7, warm_up: int = 2) -> list[float]:
    """Median CPU time of each call, taken in turns so that all meet the same load."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(warm_up + rounds):
        for call, own in zip(calls, times, strict=True):
            gc.collect(0)
            took = cpu_ms(call)
            if turn >= warm_up:
                own.append(took)
    return [statistics.median(own) for own in times]


def exponent(sizes: Iterable[float], costs: Iterable[float]) -> float:
    """b of the least-squares fit cost = a size^b."""
    return float(np.polyfit(np.log(list(sizes)), np.log(list(costs)), 1)[0])


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "when": time.strftime("%Y-%m-%d %H:%M"),
    }


def head(found: dict[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in found.items())


def shown(row: Row) -> str:
    mark = {None: "", True: "met", False: "MISSED"}[row.met]
    number = f"{row.value:.2f}" if abs(row.value) < 100 else f"{row.value:,.0f}"
    line = f"{row.item:<13}{row.what:<66}{number + ' ' + row.unit:>16}   {row.target:<18}{mark}".rstrip()
    return f"{line}\n{'':<13}  {row.told}" if row.told else line


def write_json(path: Path, rows: Sequence[Row], found: dict[str, str], not_run: Sequence[str]) -> None:
    content = {"machine": found, "rows": [asdict(row) for row in rows], "not_run": list(not_run)}
    path.write_text(json.dumps(content, indent=1) + "\n")
