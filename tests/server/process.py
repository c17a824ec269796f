"""An MLflow server in processes of its own, on a free loopback port, which can be killed and started again."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TrackingServer(ABC):
    """An MLflow server; a subclass says by which command."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}-server.log")
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """What to start, in `folder`."""

    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """All variables it is started with."""

    def begin(self) -> None:
        """Start it, not waiting until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, env=self.environment(), stdout=log, stderr=log, start_new_session=True
            )

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def wait(self) -> None:
        """Until it answers.

        Raises:
            RuntimeError: it does not.
        """
        wait_until(self.answers, 300, "the MLflow server does not start", self.log, self.process)

    def start(self) -> None:
        """Start it and wait until it answers; raises as `wait`."""
        self.begin()
        self.wait()

    def signal(self, what: int) -> None:
        """Send a signal to the server and all its processes."""
        assert self.process is not None
        os.killpg(self.process.pid, what)

    def kill(self) -> None:
        """kill -9, of the server and its web workers at once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self.process.wait(30)
            self.process = None


def wait_until(
    true: Callable[[], bool],
    timeout_s: float,
    otherwise: str,
    log: Path | None = None,
    process: "subprocess.Popen[bytes] | None" = None,
) -> None:
    """Wait for something to become true.

    Raises:
        RuntimeError: it did not, or the process that should make it so has ended; with the end of its log.
    """
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            raise RuntimeError(otherwise + (f":\n{log.read_text()[-3000:]}" if log else ""))
        time.sleep(0.1)
