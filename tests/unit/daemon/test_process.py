"""`echod.daemon.process`: what one that cannot start says, and what one whose log hangs exits
with."""

from __future__ import annotations

import io
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogBeginner, LogEvent, LogPublisher
from zope.interface import implementer

from echod.config.settings import Configuration
from echod.daemon.log import Log
from echod.daemon.process import Daemon, StandardError
from echod.errors import AlreadyReported
from echod.server.plan import ListenerRequest, plan
from echod.server.registry import Registry
from echod.startup import StoppedEarly
from tests.conftest import LoggedErrors
from tests.unit.daemon.test_log import PATIENCE, World
from tests.unit.outer import Outer


class Loop(Outer):
    """One that begins when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Callable[[], Any]] = []

    def callWhenRunning(self, call: Callable[[], Any]) -> None:
        self.waiting.append(call)

    def run(self) -> None:
        for call in self.waiting:
            call()


class Stopped(Loop):
    """One in which SIGTERM comes as the first socket is bound, and is to be watched."""

    def addReader(self, reader: Any) -> None:
        raise StoppedEarly(0)


@pytest.fixture
def standardError(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The reading end of the process's standard error."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "__stderr__", stream)
        yield reading
    os.close(reading)


@pytest.fixture
def log() -> Log:
    """Nobody's: neither on standard error nor elsewhere."""
    return Log(LogBeginner(LogPublisher(), io.StringIO(), sys, warnings))


@pytest.fixture
def hungLog() -> Iterator[Log]:
    """One whose observer does not return from the first event."""
    world, goOn = World(patience=0.01), threading.Event()

    @implementer(ILogObserver)
    def hangs(event: LogEvent) -> None:
        assert goOn.wait(PATIENCE)

    world.beginLoggingTo([hangs])
    world.logger.info("hello")
    yield world.log
    goOn.set()


def daemonOf(log: Log, port: int = 0, loop: Loop | None = None) -> tuple[Daemon, Loop]:
    loop = loop or Loop()
    request = ListenerRequest(place="here", protocol="raw", endpoint=f"tcp:{port}")
    reactor: Any = loop
    return Daemon(plan(Configuration(), [request], Registry(), 4096), reactor, log), loop


@pytest.fixture
def busyPort() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_cannotListen(
    standardError: int, log: Log, busyPort: int, elsewhere: bool, loggedErrors: LoggedErrors
) -> None:
    """Standard error has it, once; the log too, if that is elsewhere."""
    log.elsewhere = elsewhere
    daemon, loop = daemonOf(log, busyPort)
    with pytest.raises(AlreadyReported):
        daemon.privilegedStartService()
    text = os.read(standardError, 1000).decode()
    assert text.startswith(f"echod: cannot listen on tcp 127.0.0.1:{busyPort}: Address ")
    assert [f"echod: {line}\n" for line in loggedErrors.flush()] == [text] * elsewhere
    loop.run()


def test_noStandardError(
    monkeypatch: pytest.MonkeyPatch, log: Log, busyPort: int, loggedErrors: LoggedErrors
) -> None:
    """Without a standard error the log has it, wherever that is."""
    monkeypatch.setattr(sys, "__stderr__", None)
    daemon, _ = daemonOf(log, busyPort)
    with pytest.raises(AlreadyReported):
        daemon.privilegedStartService()
    assert len(loggedErrors.flush()) == 1


def test_nobodyReads(standardError: int) -> None:
    """Whoever does not read why is waited for no longer than said."""
    error = StandardError(patience=0.01)
    error.tell("x" * (1 << 17))
    assert len(os.read(standardError, 1 << 16)) == 1 << 16
    while os.read(standardError, 1 << 16)[-1:] != b"\n":
        pass
    error.close()
    assert not error


def test_isLeft(standardError: int, log: Log) -> None:
    """Once it serves, standard error is let go: a shell may wait for its end."""
    before = os.listdir("/proc/self/fd")
    _, loop = daemonOf(log)
    assert os.listdir("/proc/self/fd") != before
    loop.run()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("became", "status"), [("nothing", 1), ("ended", 0), ("served", 0), ("cut", 3)]
)
def test_logHangs(
    standardError: int, hungLog: Log, monkeypatch: pytest.MonkeyPatch, became: str, status: int
) -> None:
    """A process whose log cannot be written ends all the same, and says what became of it."""
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    daemon, loop = daemonOf(hungLog, loop=Stopped() if became == "ended" else None)
    if became == "ended":
        with pytest.raises(AlreadyReported) as told:
            daemon.privilegedStartService()
        assert told.value.status == 0
        daemon.end()
    loop.run()
    if became in ("served", "cut"):
        daemon.cutShort = became == "cut"
        daemon.end()
    elif became == "nothing":
        daemon, other = daemonOf(hungLog)
        daemon.end()
        other.run()
    assert statuses == [status]


def test_logIsWritten(standardError: int, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose log is written ends as Python does."""
    monkeypatch.setattr(os, "_exit", None)
    daemon, loop = daemonOf(log)
    loop.run()
    daemon.end()
