"""The process workers are forked from. Light on purpose: `bench run` starts it before anything heavy is imported."""

import os
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext


def preload() -> ForkServerContext:
    """Start the fork server, which imports torch and the trainer while the scheduler still reads the grid."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a worker: slots share the cores, results repeat
    context = get_context("forkserver")
    context.set_forkserver_preload(["bench.executors.worker"])
    forkserver.ensure_running()
    return context
