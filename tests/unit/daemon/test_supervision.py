"""`echod.daemon.supervision`: whatever a reload fails of, its manager and the log are told."""

from __future__ import annotations

import socket
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from echod.config.settings import Configuration
from echod.daemon.sd_notify import Notifier
from echod.daemon.supervision import AGAIN, Supervision
from echod.errors import ConfigurationError
from echod.server.plan import ListenerRequest, Plan, plan
from echod.server.registry import Registry
from echod.server.service import EchodService
from tests.conftest import LoggedErrors
from tests.unit.conftest import LogLines
from tests.unit.outer import Outer, waitUntil


class Mute(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


def rawPlan() -> Plan:
    """One listener."""
    request = ListenerRequest(place="here", protocol="raw", endpoint="tcp:0")
    return plan(Configuration(), [request], Registry(), 4096)


class Supervised:
    """
    A service and its manager.

    :ivar address: of the manager's socket.
    :ivar readPlan: what reads the configuration.
    """

    def __init__(self, manager: socket.socket) -> None:
        self._manager = manager
        self.address = manager.getsockname()
        self.loop = Outer()
        self.service = EchodService(rawPlan(), self.loop, self.loop.seconds)
        self.service.startService()
        self.readPlan: Callable[[], Plan] = rawPlan
        notifier = Notifier({"NOTIFY_SOCKET": self.address})
        # Any: a reload asks nothing of the reactor.
        reactor: Any = self.loop
        self._supervision = Supervision(self.service, notifier, self._makePlan, reactor)

    def _makePlan(self) -> Plan:
        return self.readPlan()

    def reload(self) -> list[str]:
        """As SIGHUP; returns what the manager was told, without the time."""
        self._supervision.reload()
        return self.told()

    def told(self) -> list[str]:
        """The first line of each message that has come to the manager."""
        told = []
        while True:
            try:
                told.append(self._manager.recv(1000).decode().partition("\n")[0])
            except BlockingIOError:
                return told

    def serves(self) -> bool:
        """Whether a client is answered."""
        (listener,) = self.service.listeners
        with socket.create_connection(("127.0.0.1", listener.getHost().port), 20) as client:
            before = listener.counters()["bytes_out"]
            client.send(b"hello")
            waitUntil(self.loop.turn, lambda: listener.counters()["bytes_out"] > before)
            return client.recv(10) == b"hello"


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        supervised = Supervised(manager)
        yield supervised
        supervised.service.cut()
        supervised.service.stopService()
        supervised.loop.rest()


def raises(error: BaseException) -> Callable[[], Plan]:
    """What fails to read the configuration."""

    def read() -> Plan:
        raise error

    return read


def noPlan() -> Plan:
    """What the service cannot serve, and does not look for."""
    plan: Any = None
    return plan  # type: ignore[no-any-return]  # that is the fault


WELL = "STATUS=serving: 0 connections at 1 listeners"


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (raises(KeyError("gone")), "KeyError: 'gone'"),
        (raises(SystemExit(3)), "SystemExit: 3"),
        (raises(KeyboardInterrupt("stop")), "KeyboardInterrupt: stop"),
        (raises(CancelledError("late")), "CancelledError: late"),
        (raises(Mute()), "Mute: (it cannot say what)"),
        (raises(MemoryError("two\nlines")), "MemoryError: two\\nlines"),
        (noPlan, "AttributeError: 'NoneType' object has no attribute 'byDefault'"),
    ],
)
def test_faultInAReload(
    supervised: Supervised,
    read: Callable[[], Plan],
    what: str,
    logLines: LogLines,
    loggedErrors: LoggedErrors,
) -> None:
    """The status has what it was, the log its traceback, and the daemon goes on as it was."""
    before = supervised.service.listeners
    supervised.readPlan = read
    assert supervised.reload() == [
        "RELOADING=1",
        "READY=1",
        f"{WELL}; the last reload failed: {what}; see the log",
    ]
    (text,) = logLines.texts
    assert f"the configuration stays as it was: {what}\nTraceback" in text
    assert len(loggedErrors.flush()) == 1
    assert supervised.service.listeners == before
    reloads = supervised.service.reloads
    assert (reloads.succeededAt, reloads.refused) == (None, f"{what}; see the log")
    assert reloads.refusedAt == pytest.approx(time.time(), abs=60)
    assert supervised.serves()
    supervised.readPlan = rawPlan
    assert "failed" not in "".join(supervised.reload())
    assert (reloads.refused, reloads.refusedAt) == ("", None)
    assert reloads.succeededAt == pytest.approx(time.time(), abs=60)
    assert supervised.serves()


def test_refusedReload(supervised: Supervised, logLines: LogLines) -> None:
    """What an operator got wrong is one line, without a traceback."""
    supervised.readPlan = raises(ConfigurationError("$.drain: no such key"))
    told = supervised.reload()
    assert told[2] == f"{WELL}; the last reload failed: $.drain: no such key"
    assert logLines.lines == ["the configuration stays as it was: $.drain: no such key"]
    supervised.readPlan = rawPlan
    assert supervised.reload() == ["RELOADING=1", "READY=1", WELL]


def test_managerThatIsSlow(supervised: Supervised) -> None:
    """What it has no room for comes later, in order, though nothing else is to be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
        other.setblocking(False)
        while True:
            other.sendto(b"X=1", supervised.address)
    supervised.readPlan = raises(ConfigurationError("no"))
    assert set(supervised.reload()) == {"X=1"}
    supervised.loop.advance(AGAIN)
    supervised.loop.turn()
    assert supervised.told() == ["RELOADING=1", "READY=1", f"{WELL}; the last reload failed: no"]
    supervised.loop.advance(AGAIN)
    supervised.loop.rest()
    assert supervised.told() == []
