"""The slots of a run: which devices train, and how many trainings each takes at once."""

import os
from collections.abc import Sequence

from bench.grid.grid import Executor
from bench.scheduling.schedule import MAX_WORKERS


def slot_devices(devices: str | Sequence[str], slots: str | int) -> list[str]:
    """The device of every slot: one for each visible GPU, else one for each CPU core this process may use.

    Args:
        devices: `auto`, `cpu`, or a list like `["cuda:0", "cuda:1"]`.
        slots: `auto`, or how many slots in all; they are dealt over the devices in turn.
    """
    import torch

    if devices == "auto":
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or "cpu"
    if devices == "cpu":
        n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        devices = ["cpu"] * n_cores
    count = len(devices) if slots == "auto" else int(slots)
    return [devices[i % len(devices)] for i in range(count)]


def slots_of(settings: Executor, n_trainings: int) -> tuple[list[str], bool]:
    """The device of every slot that so many trainings can use, and whether slots that share a GPU are on trial.

    With `slots: auto` a GPU has several, which the schedule opens as long as one more gets more work done.
    """
    devices = slot_devices(settings.devices, settings.slots)
    crowd = settings.slots == "auto" and devices[0].startswith("cuda")
    if crowd:
        devices = devices * MAX_WORKERS
    return devices[:n_trainings], crowd
