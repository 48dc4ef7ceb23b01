"""Signals from the first moment to the last, and what was inherited of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.daemon import (
    MODULE,
    PATIENCE,
    Daemon,
    Daemonised,
    both,
    exchange,
    waitFor,
)
from tests.integration.namespaces import needsRoot
from tests.integration.test_plugins import install
from tests.integration.test_stop import pattern, stuff

stops = pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name
)

#: Have a command inherit something: Python's statement and the command are its arguments.
INHERITING = [
    sys.executable,
    "-c",
    "import os, signal, sys; exec(sys.argv[1]); os.execvp(sys.argv[2], sys.argv[2:])",
]
LISTENER = '[[listener]]\nprotocol = "raw"\nendpoint = "tcp:0"\n'


# -- While it starts ---------------------------------------------------------------------------


class Starting:
    """
    A daemon that reads its configuration from a pipe, and waits for us to write it.

    :ivar pid: the daemon's, which may be another than that of the process that was started.
    """

    def __init__(self, folder: Path, command: Sequence[str], options: Sequence[str]) -> None:
        self._path = folder / "echod.toml"
        os.mkfifo(self._path)
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--config", str(self._path), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        # A pipe opens when both ends do.
        self._pipe = self._open()
        self.pid = self._daemon()
        # A signal just before a read is told of when the read returns, and this one does not.
        waitFor(self._sleeps, "who reads the pipe, and sleeps")

    def _open(self) -> int:
        def opened() -> int | None:
            assert self.process.poll() is None, self.output()
            try:
                return os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                return None

        # Not 0.
        pipe: int = waitFor(opened, "who reads the pipe")
        return pipe

    def _daemon(self) -> int:
        """Process 1 of a namespace is a child of the one that was started."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else pid

    def _sleeps(self) -> bool:
        """Whether it does (proc_pid_stat(5)): since it has opened the pipe, to read from it."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    def configure(self, text: str = LISTENER) -> None:
        """Give it the file, now and whenever it asks."""
        os.write(self._pipe, text.encode())
        os.close(self._pipe)
        self._pipe = -1

    def output(self) -> str:
        """What it has said."""
        return self._output.read_text()

    def waitFor(self, text: str) -> None:
        """Wait until it has said ``text``."""
        waitFor(lambda: text in self.output() or self.process.poll() is not None, text)
        assert text in self.output()

    def end(self) -> None:
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait()
        if self._pipe >= 0:
            os.close(self._pipe)


@contextmanager
def starting(folder: Path, command: Sequence[str], *options: str) -> Iterator[Starting]:
    daemon = Starting(folder, command, options)
    try:
        yield daemon
    finally:
        daemon.end()


@both
@stops
def test_stoppedAtOnce(tmp_path: Path, command: list[str], number: int) -> None:
    """Whoever stops it before it serves ends it, in silence, as one that has served."""
    with starting(tmp_path, command) as daemon:
        os.kill(daemon.pid, number)
        assert daemon.process.wait(PATIENCE) == 0
        assert daemon.output() == ""


@both
def test_askedWhileItStarts(tmp_path: Path, command: list[str]) -> None:
    """SIGUSR1 and SIGHUP (logrotate, a certificate's hook) are done once it serves."""
    with starting(tmp_path, command) as daemon:
        os.kill(daemon.pid, signal.SIGUSR1)
        os.kill(daemon.pid, signal.SIGHUP)
        os.kill(daemon.pid, signal.SIGUSR2)
        daemon.configure()
        daemon.waitFor("listening ")
        # The file is a pipe here.
        daemon.waitFor("echod.toml is no file, and cannot be read again")
        daemon.waitFor("counters {")
        daemon.waitFor("SIGUSR2 is kept for rolling restarts: nothing is done")
        os.kill(daemon.pid, signal.SIGTERM)
        assert daemon.process.wait(PATIENCE) == 0


@needsRoot
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
@both
@stops
def test_processOne(tmp_path: Path, command: list[str], number: int) -> None:
    """As process 1 of a container: the kernel throws away what has no handler there."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with starting(tmp_path, [*unshare, *command]) as daemon:
        assert daemon.pid != daemon.process.pid
        os.kill(daemon.pid, number)
        assert daemon.process.wait(PATIENCE) == 0


@stops
def test_commandThatPrints(tmp_path: Path, number: int) -> None:
    """One that was interrupted has not said that all is well, and has no traceback."""
    with starting(tmp_path, MODULE, "--check-config") as daemon:
        os.kill(daemon.pid, number)
        assert daemon.process.wait(PATIENCE) == -number
        assert daemon.output() == ""


def test_pluginThatLoads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop while somebody's module loads is no fault of that module's."""
    text = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n"
    install(tmp_path, "stops 1", "stops = stopping:maker", stopping=text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run(
        [*MODULE, "--port=0"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


BETWEEN = """
import os, signal
from twisted.application import app
from twisted.internet import reactor

for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    reactor.addSystemEventTrigger("before", "startup", os.kill, os.getpid(), number)
    reactor.addSystemEventTrigger("during", "startup", os.kill, os.getpid(), number)
maker = None
"""


@both
def test_betweenBindingAndServing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """The reactor puts in handlers of its own as it starts: what comes then is ours too."""
    install(tmp_path, "between 1", "between = between:maker", between=BETWEEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run(
        [*command, "--port=0"], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    for text in ("SIGHUP: reading the configuration again", "counters {", "SIGTERM: draining"):
        assert text in done.stdout


@both
def test_keptForRollingRestarts(command: list[str]) -> None:
    """SIGUSR2 does nothing but a line; without a handler it would kill (signal(7))."""
    with Daemon("--port=0", command=command) as daemon, daemon.connect() as client:
        daemon.signal(signal.SIGUSR2)
        daemon.waitForLine("SIGUSR2 is kept for rolling restarts: nothing is done")
        assert exchange(client, b"here") == b"here"
        assert daemon.stop() == 0


# -- What is inherited ---------------------------------------------------------------------------


@both
def test_blocked(command: list[str]) -> None:
    """Whoever starts it may block signals (a thread of Java, Go, libvirt): they count."""
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))"
    # It answers SIGUSR1, or this would not go on.
    with Daemon("--port=0", command=[*INHERITING, block, *command]) as daemon:
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        found = re.search(r"SigBlk:\s+(\w+)", status)
        assert found is not None
        assert int(found[1], 16) == 0
        daemon.signal(signal.SIGHUP)
        daemon.waitForLine("reloaded: ")
        assert daemon.stop() == 0


@both
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_ignored(command: list[str], number: signal.Signals) -> None:
    """A script's background job has SIGINT ignored, nohup(1) SIGHUP: they stay so."""
    ignore = f"signal.signal({int(number)}, signal.SIG_IGN)"
    with Daemon("--port=0", command=[*INHERITING, ignore, *command]) as daemon:
        daemon.waitForLine(f"{number.name} stays ignored")
        daemon.signal(number)
        # Signals are taken by their numbers: this one would come after it.
        daemon.counters()
        assert exchange(daemon.connect(), b"here") == b"here"
        assert not [line for line in daemon.lines if f"{number.name}: " in line]
        assert daemon.stop() == 0


CLOSED = {"0": "<&-", "1": ">&-", "2": "2>&-", "all": "<&- >&- 2>&-"}


@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED)
def test_closedDescriptors(tmp_path: Path, closed: str) -> None:
    """As cron and others start it, in the background, with descriptors closed: it serves."""
    with Daemonised(tmp_path) as daemon:
        shell = ["bash", "-c", f'exec "$@" {closed}', "bash"]
        assert daemon.start("--port=0", before=shell).returncode == 0
        with subprocess.Popen(["true"]):
            port = daemon.ports()["raw"]
        assert exchange(connectTo(port), b"hello") == b"hello"
        pid = int(daemon.pidFile.read_text())
        for number in range(3):
            assert os.readlink(f"/proc/{pid}/fd/{number}") == os.devnull
        os.kill(pid, signal.SIGTERM)
        waitFor(lambda: not daemon.processes(), "its end")


@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED)
@both
def test_closedInTheForeground(command: list[str], closed: str) -> None:
    """In the foreground too, as far as it can be told: by its status."""
    with subprocess.Popen(
        ["bash", "-c", f'exec "$@" {closed}', "bash", *command, "--port=0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        waitFor(lambda: handles(process.pid) or process.poll() is not None, "its handlers")
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_takenDescriptors(tmp_path: Path) -> None:
    """A reactor that twistd makes first takes the numbers: that is refused, and says so."""
    with Daemonised(tmp_path) as daemon:
        shell = ["bash", "-c", 'twistd=$1; shift; exec "$twistd" -r epoll "$@" <&-', "bash"]
        ended = daemon.start("--port=0", before=shell)
        assert ended.returncode == 1
        assert ended.stderr.startswith("echod: descriptors [0] were closed as twistd started")
        assert ended.stderr.count("\n") == 1


def connectTo(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def handles(pid: int) -> bool:
    """Whether a process has a handler for SIGUSR1."""
    found = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return found is not None and bool(int(found[1], 16) >> (signal.SIGUSR1 - 1) & 1)


# -- As it ends ----------------------------------------------------------------------------------


@both
def test_exitHandlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    """Status 3 has handlers of others called, those of before echod and those of plugins."""
    text = "import atexit, sys\natexit.register(print, 'by {}', file=sys.__stdout__)\n"
    (tmp_path / "sitecustomize.py").write_text(text.format("site"))
    install(tmp_path, "ends 1", "ends = ending:maker", ending=text.format("plugin"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    data = pattern(16 << 20)
    with (
        Daemon("--port=0", "--drain-timeout=0.2", command=command) as daemon,
        daemon.connect() as client,
    ):
        stuff(daemon, client, data)
        assert daemon.stop() == 3
        assert daemon.lines[-2:] == ["by plugin", "by site"]


@both
def test_storm(command: list[str]) -> None:
    """Signals of every kind until it is gone: status 0, whichever comes last."""
    with Daemon("--port=0", command=command) as daemon:
        daemon.signal(signal.SIGTERM)

        def gone() -> bool:
            asking = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
            for number in (*asking, signal.SIGTERM, signal.SIGINT):
                daemon.signal(number)
            return daemon.process.poll() is not None

        waitFor(gone, "its end")
        assert daemon.wait() == 0
        assert not [line for line in daemon.lines if "Traceback" in line]
