"""Imported by the fork server alone, first of all: it ends when the scheduler does, however that dies, and tidies up.

By itself it ends when nobody holds the pipe to it any more, but a worker that was stopped (Ctrl-Z) holds it for ever.
The folder of its socket would be the scheduler's to remove, and a killed scheduler removes nothing.
"""

import atexit
import os
import shutil
import signal

from bench.executors.forkserver import FOLDER, wake_when_parent_dies

_fork_server, _scheduler = os.getpid(), os.getppid()


def _tidy_up() -> None:
    shutil.rmtree(os.environ[FOLDER], ignore_errors=True)


def _end_if_alone(*_: object) -> None:
    if os.getpid() == _fork_server and os.getppid() != _scheduler:  # no worker that was just forked
        if os.getpgrp() == _scheduler:  # what else of it was stopped, multiprocessing's resource tracker, goes on too
            signal.signal(signal.SIGCONT, signal.SIG_IGN)
            os.killpg(_scheduler, signal.SIGCONT)
        _tidy_up()
        os._exit(0)  # at once, and in silence: it may be in the middle of its imports, or of its own end


atexit.register(_tidy_up)
signal.signal(signal.SIGCONT, _end_if_alone)
wake_when_parent_dies()
