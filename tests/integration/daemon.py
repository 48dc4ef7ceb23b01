"""A real daemon in a process of its own, and what it says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from echod.testing.running import PATIENCE, Process, waitFor

__all__ = [
    "MODULE",
    "PATIENCE",
    "TWISTD",
    "Daemon",
    "Daemonised",
    "both",
    "exchange",
    "idle",
    "launch",
    "outcome",
    "promptly",
    "receiveAll",
    "run",
    "waitFor",
]

TWISTD = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "echod"]
MODULE = [sys.executable, "-m", "echod"]
#: A test of both commands, each its ``command``.
both = pytest.mark.parametrize("command", [TWISTD, MODULE], ids=["twistd", "module"])

Result = TypeVar("Result")


class Daemon(Process):
    """
    ``twistd -n echod ARGUMENTS`` until the ``with`` block ends.

    :ivar ports: the ports it listens on, by protocol: the first of each.
    :ivar lines: what it has printed so far.
    """

    def __init__(
        self,
        *arguments: str,
        command: list[str] | None = None,
        cwd: Any = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        super().__init__([*(command or TWISTD), *arguments], cwd, descriptors)

    def connect(self, protocol: str = "raw", *, timeout: float = PATIENCE) -> socket.socket:
        """A blocking client connection."""
        return socket.create_connection(("127.0.0.1", self.ports[protocol]), timeout)

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self) -> int:
        """Its resident memory, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert match is not None
        return int(match[1]) * 1024

    def hurry(self, number: int = signal.SIGTERM) -> int:
        """Ask until it ends at once: within a second of the first, once more means no more."""

        def ended() -> bool:
            self.signal(number)
            return self.process.poll() is not None

        waitFor(ended, "its end")
        return self.wait()

    def cpu(self) -> float:
        """Seconds of processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def receiveAll(client: socket.socket) -> bytes:
    """Read to EOF."""
    pieces = []
    while piece := client.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def exchange(client: socket.socket, data: bytes) -> bytes:
    """Send all, FIN, and read to EOF, both at once; closes the socket."""
    with client:
        sender = threading.Thread(target=_sendAndFinish, args=(client, data))
        sender.start()
        try:
            return receiveAll(client)
        finally:
            sender.join()


def _sendAndFinish(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


def outcome(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a process with pipes; what it said, standard error apart."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def launch(
    *arguments: str, command: list[str], cwd: Any = None, descriptors: Sequence[int] = ()
) -> subprocess.Popen[str]:
    """Start a process that is to end by itself; `outcome` waits for that."""
    return subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        pass_fds=descriptors,
    )


def run(
    *arguments: str,
    command: list[str] | None = None,
    cwd: Any = None,
    descriptors: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a daemon that is to end by itself."""
    return outcome(launch(*arguments, command=command or TWISTD, cwd=cwd, descriptors=descriptors))


def idle(seconds: float, why: str) -> None:
    """
    Let time pass that is itself what a test is about; the only sleep in the tests.

    Whoever waits for something has `waitFor`.

    :param why: what the time is, for who reads the test.
    """
    assert why
    time.sleep(seconds)


def promptly(seconds: float, call: Callable[[], Result]) -> Result:
    """
    What ``call`` returns within ``seconds``, besides what a daemon takes to load just now.

    The machine may have other work, which delays one call; a wait in the daemon delays each of
    three.
    """
    for _ in range(3):
        begun = time.monotonic()
        result = call()
        took = time.monotonic() - begun
        if took < seconds:
            return result
        run("--check-config", command=MODULE)
        loading = time.monotonic() - begun - took
        if took < seconds + loading:
            return result
    raise AssertionError(f"three times it has taken {seconds} s and longer")


class Daemonised:
    """
    ``twistd echod ARGUMENTS``, which leaves the foreground.

    The ``with`` block starts none; `start` does, and the block's end kills what is left.

    :ivar pidFile: where it writes its process id.
    :ivar logFile: where it writes its log.
    """

    def __init__(self, directory: Path) -> None:
        self.pidFile = directory / "echod.pid"
        self.logFile = directory / "echod.log"

    def __enter__(self) -> Daemonised:
        return self

    def __exit__(self, *exception: object) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    def start(
        self, *arguments: str, before: Sequence[str] = (), descriptors: Sequence[int] = ()
    ) -> subprocess.CompletedProcess[str]:
        """
        Run the caller's shell's part; returns what it said there, and the status.

        :param before: a command that starts the rest.
        """
        files = [f"--pidfile={self.pidFile}", f"--logfile={self.logFile}"]
        command = [*before, *TWISTD[:1]]
        return run(*files, "echod", *arguments, command=command, descriptors=descriptors)

    @property
    def lines(self) -> list[str]:
        """The log so far."""
        return self.logFile.read_text().splitlines() if self.logFile.exists() else []

    def ports(self) -> dict[str, int]:
        """The ports it listens on, by protocol, once it serves."""

        def found() -> dict[str, int]:
            pattern = re.compile(r"listening (\S+) tcp \S+:(\d+)( \(.*)?$")
            matches = map(pattern.search, self.lines)
            return {match[1]: int(match[2]) for match in matches if match}

        ports: dict[str, int] = waitFor(found, "a listener")
        return ports

    def processes(self) -> list[int]:
        """Its processes that live, by their command line; zombies are gone."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if f"--pidfile={self.pidFile}".encode() in words.split(b"\0"):
                found.append(int(name))
        return found
