"""`echod.server.drain`: a drain has one deadline, for those too who begin to drain after it."""

from __future__ import annotations

import socket
import time

import pytest
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from echod.config.settings import Configuration
from echod.connection.connection import Connection
from echod.kit.makers import ConnectionFactory, ConnectionMaker, FactoryMaker
from echod.server.drain import PATIENCE
from echod.server.plan import ListenerRequest, plan
from echod.server.registry import BUILTIN, Registry
from echod.server.service import CUT_SHORT, EchodService
from echod.testing import Loop
from tests.conftest import LoggedErrors


def test_whoComesAsTheDeadlinePasses() -> None:
    """One that a listener which lasts accepts after the cut is cut too, and does not linger."""
    loop = Loop()
    requests = [
        ListenerRequest(place="test", protocol=name, endpoint="tcp:0") for name in ("raw", "health")
    ]
    configuration = Configuration(drainTimeout=1.0)
    service = EchodService(plan(configuration, requests, Registry(), 1 << 16), loop, loop.seconds)
    service.privilegedStartService()
    service.startService()
    raw, health = service.listeners
    with socket.create_connection(("127.0.0.1", raw.getHost().port)):
        while not raw.connectionCount:
            loop.turn(0.01)
        ended: list[object] = []
        service.stopService().addBoth(ended.append)
        # Nobody looks at sockets before the timers.
        with socket.create_connection(("127.0.0.1", health.getHost().port)):
            loop.advance(1.0)
            deadline = time.monotonic() + 5
            while not ended:
                assert time.monotonic() < deadline, "it lingers"
                loop.advance(0.0)
                loop.turn(0.001)


class Staying(Connection):
    """Somebody's, which keeps its own end to itself: what it extends, it does not call."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `Connection.connectionLost`."""


REGISTRY = Registry([*BUILTIN, ConnectionMaker("staying", "x", Staying)])


def serving(configuration: Configuration, protocol: str = "raw") -> tuple[Loop, EchodService]:
    """A service with one listener, begun."""
    loop = Loop()
    requests = [ListenerRequest(place="test", protocol=protocol, endpoint="tcp:0")]
    service = EchodService(plan(configuration, requests, REGISTRY, 1 << 16), loop, loop.seconds)
    service.privilegedStartService()
    service.startService()
    return loop, service


@pytest.mark.parametrize("cut", [False, True])
def test_whoNeverEnds(cut: bool) -> None:
    """A listener whose stop never fires does not outlast the deadline by more than a little."""
    loop, service = serving(Configuration(drainTimeout=1.0), "staying")
    (listener,) = service.listeners
    with socket.create_connection(("127.0.0.1", listener.getHost().port)):
        while not listener.connectionCount:
            loop.turn(0.01)
        ended: list[object] = []
        service.stopService().addBoth(ended.append)
        if cut:
            service.cut()
        else:
            loop.advance(1.0)
        loop.turn()
        assert not service._facade.getReaders()
        assert not ended
        loop.advance(PATIENCE)
        assert ended == [None]
    assert service.exitStatus == CUT_SHORT


def test_cutInTheDelay() -> None:
    """Who cuts a drain in its delay ends it at once: the delay, the listeners, the connections."""
    loop, service = serving(Configuration(drainDelay=3600.0))
    (raw,) = service.listeners
    with socket.create_connection(("127.0.0.1", raw.getHost().port)):
        while not raw.connectionCount:
            loop.turn(0.01)
        ended: list[object] = []
        service.stopService().addBoth(ended.append)
        loop.advance(60.0)
        assert raw.listens
        assert service.draining
        service.cut()
        loop.turn()
        assert not raw.listens
        assert ended == [None]
    assert service.exitStatus == CUT_SHORT
    assert not loop.getDelayedCalls()


def test_cutBeforeTheDrain() -> None:
    """A second signal may come before the reactor has begun to stop: connections end at once."""
    loop, service = serving(Configuration())
    (raw,) = service.listeners
    with socket.create_connection(("127.0.0.1", raw.getHost().port)):
        while not raw.connectionCount:
            loop.turn(0.01)
        service.cut()
        loop.turn()
        assert not raw.connectionCount
    ended: list[object] = []
    service.stopService().addBoth(ended.append)
    assert ended == [None]
    assert service.exitStatus == CUT_SHORT


class Told(ConnectionFactory):
    """A factory that wants to know when a drain begins."""

    def __init__(self, calls: list[str], *, raises: bool = False) -> None:
        super().__init__(Connection)
        self._calls = calls
        self._raises = raises

    def drainBegins(self) -> None:
        self._calls.append("told")
        if self._raises:
            raise RuntimeError("broken")

    def stopFactory(self) -> None:
        self._calls.append("stopped")


@pytest.mark.parametrize("raises", [False, True])
def test_factoriesAreTold(raises: bool, loggedErrors: LoggedErrors) -> None:
    """Each of them, as it begins and before any listener stops; not while ``drain_delay`` runs."""
    calls: list[str] = []
    maker = FactoryMaker("told", "x", lambda: Told(calls, raises=raises))
    loop = Loop()
    requests = [ListenerRequest(place="test", protocol="told", endpoint="tcp:0") for _ in range(2)]
    planned = plan(Configuration(drainDelay=1.0), requests, Registry([maker]), 1 << 16)
    service = EchodService(planned, loop, loop.seconds)
    service.privilegedStartService()
    service.startService()
    ended: list[object] = []
    service.stopService().addBoth(ended.append)
    assert calls == []
    loop.advance(1.0)
    assert calls == ["told", "told", "stopped", "stopped"]
    loop.advance(0.0)
    assert ended
    assert len(loggedErrors.flush()) == 2 * raises
