"""Peak memory of the process that asks; no imports that take memory themselves."""

import resource
from pathlib import Path


def peak_mib() -> float:
    """MiB this process held at most since its program began.

    Linux's `ru_maxrss` would not do: it begins with what the process that started this one held.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, where there is no /proc
    kib = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:")).split()[1]
    return int(kib) / 1024
