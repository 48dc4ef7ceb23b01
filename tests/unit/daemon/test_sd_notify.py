"""`echod.daemon.sd_notify` and `echod.transports.loop.heartbeat`: what a service manager is told,
and earned by."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from echod.daemon.sd_notify import Notifier
from echod.testing.stepped_loop import Loop
from echod.transports.loop.heartbeat import Heartbeat
from tests.unit.conftest import LogLines


@pytest.fixture
def told(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        yield manager


def environmentOf(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), "HOME": "/", **more}


def receiveAll(manager: socket.socket) -> list[str]:
    """The first line of each message that has come."""
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(manager.recv(1000).decode().partition("\n")[0])
    return found


def test_messages(told: socket.socket) -> None:
    """One datagram each, in the words of sd_notify(3)."""
    environment = environmentOf(told)
    notifier = Notifier(environment)
    assert environment == {"HOME": "/"}
    notifier.ready()
    assert told.recv(1000) == b"READY=1"
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    word, _, stamp = told.recv(1000).decode().partition("\nMONOTONIC_USEC=")
    assert word == "RELOADING=1"
    assert before <= int(stamp) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.extend(1.5)
    assert told.recv(1000) == b"EXTEND_TIMEOUT_USEC=1500000"
    notifier.stopping()
    assert told.recv(1000) == b"STOPPING=1"
    notifier.watchdog()
    assert told.recv(1000) == b"WATCHDOG=1"
    notifier.status("serving")
    notifier.status("serving")
    notifier.status("draining")
    assert [told.recv(1000), told.recv(1000)] == [b"STATUS=serving", b"STATUS=draining"]
    with pytest.raises(BlockingIOError):
        told.recv(1000)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2500000"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": str(os.getpid())}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "1"}, 1e-6),
        ({"WATCHDOG_USEC": "18446744073709551615"}, 18446744073709.55),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_watchdogInterval(
    told: socket.socket, more: dict[str, str], expected: float | None
) -> None:
    """sd_watchdog_enabled(3): in microseconds, and perhaps another process's."""
    environment = environmentOf(told, **more)
    assert Notifier(environment).watchdogInterval == expected
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize("bad", ["soon", "0", "-1", "1.5", "\u0663", "9" * 400])
def test_watchdogThatIsNone(told: socket.socket, bad: str, logLines: LogLines) -> None:
    """sd_watchdog_enabled(3) refuses them too: there is no watchdog, and a line says so."""
    assert Notifier(environmentOf(told, WATCHDOG_USEC=bad)).watchdogInterval is None
    expected = f"WATCHDOG_USEC is {bad!r}, no number of microseconds: no watchdog"
    assert logLines.lines == [expected]


def test_pathThatIsTooLong(logLines: LogLines) -> None:
    """Python's own errors have no reason of the system's."""
    Notifier({"NOTIFY_SOCKET": "/" * 200}).ready()
    assert logLines.lines[0].endswith("': AF_UNIX path too long")


def test_abstractSocket() -> None:
    """sd_notify(3): ``@`` stands for NUL."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")
        name = manager.getsockname()
        Notifier({"NOTIFY_SOCKET": "@" + name[1:].decode()}).ready()
        assert manager.recv(1000) == b"READY=1"


def test_nobodyListens(tmp_path: Path, logLines: LogLines) -> None:
    """Outside systemd nothing is said; where there should be somebody, once."""
    Notifier({}).ready()
    Notifier({"WATCHDOG_USEC": "1"}).watchdog()
    assert logLines.lines == []
    notifier = Notifier({"NOTIFY_SOCKET": f"{tmp_path}/gone"})
    notifier.ready()
    notifier.watchdog()
    assert logLines.lines == [f"cannot notify '{tmp_path}/gone': No such file or directory"]


def test_managerThatDoesNotRead(told: socket.socket) -> None:
    """Nobody waits for it: when its queue is full, the newest of each kind comes later."""
    notifier = Notifier(environmentOf(told))
    begun = time.monotonic()
    for number in range(3000):
        notifier.status(str(number))
        notifier.reloading()
        notifier.ready()
    assert time.monotonic() - begun < 20
    assert notifier.waits
    assert told.recv(1000) == b"STATUS=0"
    messages = []
    while notifier.waits:
        messages.append(told.recv(1000).decode().partition("\n")[0])
        notifier.sendWaiting()
    messages += receiveAll(told)
    assert messages[-3:] == ["STATUS=2999", "RELOADING=1", "READY=1"]
    assert len(messages) < 3000


@pytest.mark.parametrize("letter", ["x", "é", "€"])
def test_longStatus(told: socket.socket, letter: str, logLines: LogLines) -> None:
    """A status is cut to what systemd takes (4096 bytes), between two characters."""
    notifier = Notifier(environmentOf(told))
    text = "serving: " + letter * 300_000
    notifier.status(text)
    message = told.recv(10_000)
    assert 4090 < len(message) <= 4096
    cut = message.decode()
    assert cut.endswith("...")
    assert f"STATUS={text}".startswith(cut.removesuffix("..."))
    notifier.status(text)
    assert receiveAll(told) == []
    assert logLines.lines == []


def test_noDescriptorLeft(told: socket.socket, logLines: LogLines) -> None:
    """Without a descriptor for its socket (EMFILE) a message waits, too."""
    notifier = Notifier(environmentOf(told))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        notifier.ready()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert notifier.waits
    notifier.sendWaiting()
    assert receiveAll(told) == ["READY=1"]
    assert logLines.lines == []


def test_pulse() -> None:
    """A byte arrives in the next turn; not while nobody serves descriptors."""
    loop: Any = Loop()
    heartbeat = Heartbeat(loop)
    assert heartbeat.beat()
    assert not heartbeat.beat()
    assert not heartbeat.beat()
    loop.turn(1.0)
    assert heartbeat.beat()
    loop.turn(1.0)
    assert heartbeat.beat()
    heartbeat.stop()
    heartbeat.stop()
    assert loop.getReaders() == []
    assert heartbeat.fileno() == -1
    assert heartbeat.beat()
    heartbeat.connectionLost(Failure(ConnectionDone()))
