"""The process workers are forked from. Light on purpose: `bench run` starts it before anything heavy is imported."""

import os
import signal
import sys
import tempfile
from multiprocessing import forkserver, get_context, util
from multiprocessing.context import ForkServerContext

FOLDER = "BENCH_FORKSERVER_FOLDER"
"""Environment variable with the folder of the fork server's socket, which a killed scheduler does not remove."""
_LONGEST = 70
"""Bytes of a folder below which sockets can have paths; an address holds 104 on some systems, and 33 are appended."""
PRELOADED = ("bench.executors.tether", "bench.executors.worker", "torch._dynamo")
"""Imported once for all workers; the last by every optimiser when it is first made, which takes longer than torch."""


def preload() -> ForkServerContext:
    """Start the fork server, which imports torch and the trainer while the scheduler still reads the grid."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a worker: slots share the cores, results repeat
    os.environ[FOLDER] = _folder_for_sockets()
    context = get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])  # a closed terminal is the scheduler's affair
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, heard)
    return context


def _folder_for_sockets() -> str:
    """The folder of multiprocessing's sockets, in /tmp where that of TMPDIR would make their paths too long."""
    chosen = tempfile.gettempdir()
    try:
        tempfile.tempdir = chosen if len(os.fsencode(chosen)) <= _LONGEST else "/tmp"  # nosec B108 - made with mkdtemp
        return str(util.get_temp_dir())
    finally:
        tempfile.tempdir = chosen


def wake_when_parent_dies() -> None:
    """Have Linux send SIGCONT when the parent dies: a process that was stopped goes on, and notices."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGCONT)  # 1: PR_SET_PDEATHSIG
