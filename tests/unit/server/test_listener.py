"""`echod.server.stream_listener`, `echod.server.datagram_listener`: listeners of a service, turn
by turn."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

from echod.config.settings import Configuration
from echod.connection.sweep import SHARDS, TICK
from echod.errors import ListenError
from echod.kit.makers import DatagramMaker, FactoryMaker
from echod.server.plan import ListenerRequest, Plan, plan
from echod.server.registry import Registry
from echod.server.service import EchodService
from echod.testing import Loop
from tests.conftest import LoggedErrors
from tests.unit.conftest import LogLines
from tests.unit.outer import Crowded, Outer, waitUntil


class Unwilling(Factory):
    """Makes a protocol for nobody."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        return None


class Broken(Unwilling):
    """It cannot even say no."""

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        raise KeyError("its own")


def listenerOf(loop: Outer, protocol: Any, endpoint: str) -> Any:
    """The only listener of a service, not started."""
    (listener,) = serviceOf(loop, protocol, endpoint).listeners
    return listener


def planOf(protocol: Any, endpoint: str, limits: dict[str, Any] | None = None) -> Plan:
    """One listener."""
    registry = Registry() if isinstance(protocol, str) else Registry([protocol])
    name = protocol if isinstance(protocol, str) else protocol.name
    request = ListenerRequest(place="here", protocol=name, endpoint=endpoint, limits=limits or {})
    return plan(Configuration(), [request], registry, 4096)


def serviceOf(
    loop: Loop, protocol: Any, endpoint: str, limits: dict[str, Any] | None = None
) -> EchodService:
    """A service with one listener, not started."""
    return EchodService(planOf(protocol, endpoint, limits), loop, loop.seconds)


def toldOf(logLines: LogLines, line: str) -> bool:
    """Whether the one warning is this, and names one address for an example."""
    (warning,) = logLines.warnings
    begin, _, example = warning.partition(" example=")
    return begin == line and example.startswith("127.0.0.")


@pytest.mark.parametrize(("factory", "reason"), [(Unwilling, "protocol"), (Broken, "error")])
def test_factoryWithoutAProtocol(
    factory: type[Factory], reason: str, loggedErrors: LoggedErrors
) -> None:
    """Its clients are closed, and counted as refused."""
    loop = Outer()
    listener = listenerOf(loop, FactoryMaker("x", "x", factory), "tcp:0")
    listener.privilegedStartService()
    address = ("127.0.0.1", listener.getHost().port)
    try:
        with socket.create_connection(address, 20) as one, socket.create_connection(address) as two:
            waitUntil(loop.turn, lambda: listener.totals.refused.total() >= 2)
            assert one.recv(1) == two.recv(1) == b""
        assert listener.counters()["refused"] == {reason: 2}
        assert listener.counters()["accepted"] == listener.counters()["open"] == 0
    finally:
        listener.abandon()
    told = loggedErrors.flush()
    assert len(told) == (2 if reason == "error" else 0)
    assert all("could not accept" in line and "its own" in line for line in told)


def test_tracebacksOfAFactory(loggedErrors: LoggedErrors) -> None:
    """O5: strangers cannot fill the log with them: ten at once, then one a second."""
    loop = Outer()
    listener = listenerOf(loop, FactoryMaker("x", "x", Broken), "tcp:0")
    listener.privilegedStartService()
    address = ("127.0.0.1", listener.getHost().port)
    try:
        for count in range(30):
            with socket.create_connection(address, 20):
                waitUntil(loop.turn, lambda: listener.totals.refused["error"] > count)  # noqa: B023  # called at once
    finally:
        listener.abandon()
    assert 10 <= len(loggedErrors.flush()) < 20


@pytest.mark.parametrize(("protocol", "endpoint"), [("raw", "tcp:0"), ("udp", "udp:0")])
def test_neverStarted(protocol: str, endpoint: str) -> None:
    """To stop or to give up what was never bound is nothing, and done at once."""
    loop = Outer()
    listener = listenerOf(loop, protocol, endpoint)
    listener.abandon()
    stopped = listener.stopService()
    assert stopped is None or stopped.called
    assert loop.getReaders() == []


class Unstartable(Factory):
    """Its start fails."""

    noisy = False

    def startFactory(self) -> None:
        raise KeyError("its own")


class UnstartableDatagrams(DatagramProtocol):
    """So does its."""

    def startProtocol(self) -> None:
        raise KeyError("its own")


ENDPOINTS = [("raw", "tcp:0"), ("raw", "unix:{}/socket"), ("udp", "udp:0")]


@pytest.mark.parametrize(("protocol", "endpoint"), ENDPOINTS)
def test_notWatched(
    protocol: str,
    endpoint: str,
    tmp_path: Path,
    loggedErrors: LoggedErrors,
) -> None:
    """The last step of a start fails (epoll_ctl(2): ENOSPC): why is said, and nothing is left."""
    loop = Crowded(refuses=object)
    service = serviceOf(loop, protocol, endpoint.format(tmp_path))
    (listener,) = service.listeners
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ListenError, match=r"^cannot listen on .*: No space left on device$"):
        service.privilegedStartService()
    assert os.listdir("/proc/self/fd") == before
    assert os.listdir(tmp_path) == loop.getReaders() == []
    # Nothing of it is in the way of another try.
    loop.refuses = ()
    listener.privilegedStartService()
    # The poller's two.
    assert len(loop.getReaders()) == 2
    listener.abandon()
    loggedErrors.flush()


@pytest.mark.parametrize(("protocol", "endpoint"), ENDPOINTS)
def test_unstartable(
    protocol: str, endpoint: str, tmp_path: Path, loggedErrors: LoggedErrors
) -> None:
    """A plugin's own start raises: that is what is said, and nothing is left."""
    loop = Outer()
    maker = (
        DatagramMaker("x", "x", UnstartableDatagrams)
        if protocol == "udp"
        else FactoryMaker("x", "x", Unstartable)
    )
    service = serviceOf(loop, maker, endpoint.format(tmp_path))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Exception, match="its own"):
        service.privilegedStartService()
    assert os.listdir("/proc/self/fd") == before
    assert os.listdir(tmp_path) == loop.getReaders() == []
    loggedErrors.flush()


def test_datagramsByStartServiceAlone() -> None:
    """`startService` binds what the privileged hook has not, and once."""
    loop = Outer()
    listener = listenerOf(loop, "udp", "udp:0")
    listener.startService()
    bound = listener.getHost()
    listener.startService()
    assert listener.getHost() == bound
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.sendto(b"hello", ("127.0.0.1", bound.port))
        waitUntil(loop.turn, lambda: listener.counters()["datagrams_out"])
        assert client.recv(10) == b"hello"
    listener.stopService()
    assert loop.getReaders() == []


#: Ticks after which the clock has gone to rest, and one more.
TICKS = range(SHARDS + 3)
#: Option of a socket: an error that ICMP tells is its own (ip(7)); Python has no name for it.
IP_RECVERR = 11


def isAtRest(loop: Outer) -> bool:
    """Whether no tick is to come."""
    return not loop.getDelayedCalls()


def tick(loop: Outer, count: int = 1) -> None:
    """Let so many ticks pass, and what they bring about."""
    for _ in range(count):
        loop.advance(TICK)
        loop.rest()


@pytest.mark.parametrize("ticks", TICKS)
def test_refusalAsTheClockGoesToRest(ticks: int, logLines: LogLines) -> None:
    """Whenever a client is refused while nobody is served, the log tells it within a second."""
    loop = Outer()
    service = serviceOf(loop, "raw", "tcp:0", {"deny": ["127.0.0.1"]})
    service.startService()
    (listener,) = service.listeners
    tick(loop, ticks)
    with socket.create_connection(("127.0.0.1", listener.getHost().port), 20) as client:
        waitUntil(loop.turn, lambda: listener.counters()["refused"])
        assert client.recv(1) == b""
    tick(loop, SHARDS)
    assert toldOf(logLines, f"refused {listener.describe()} denied=1")
    tick(loop)
    assert isAtRest(loop)
    service.stopService()


@pytest.mark.parametrize("ticks", TICKS)
def test_datagramAsTheClockGoesToRest(ticks: int, logLines: LogLines) -> None:
    """So it does of a datagram that is not answered; one that is wakes the clock for a second."""
    loop = Outer()
    service = serviceOf(loop, "udp", "udp:0", {"deny": ["127.0.0.2"]})
    service.startService()
    (listener,) = service.listeners
    target = ("127.0.0.1", listener.getHost().port)
    with ExitStack() as stack:
        for host, count in (("127.0.0.2", 1), ("127.0.0.1", 2)):
            client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            client.bind((host, 0))
            tick(loop, ticks)
            client.sendto(b"hello", target)
            waitUntil(loop.turn, lambda: listener.counters()["datagrams_in"] == count)  # noqa: B023  # called at once
            tick(loop, SHARDS)
            assert not isAtRest(loop)
            assert toldOf(logLines, f"refused {listener.describe()} denied=1")
    tick(loop)
    assert isAtRest(loop)
    service.stopService()


class Looking:
    """Looks for lost sockets, as a daemon does; `lost` once one was found."""

    def __init__(self, service: EchodService) -> None:
        self._service = service
        self.lost = False
        service.lookEachSecond(self)

    def sweep(self, now: float) -> None:
        self.lost = self._service.losesSocket()


@pytest.mark.parametrize("ticks", TICKS)
@pytest.mark.parametrize(("protocol", "endpoint"), ENDPOINTS)
def test_socketLostAsTheClockGoesToRest(
    protocol: str, endpoint: str, ticks: int, tmp_path: Path, loggedErrors: LoggedErrors
) -> None:
    """Whenever another process shuts the socket down, that is seen within a second."""
    loop = Outer()
    service = serviceOf(loop, protocol, endpoint.format(tmp_path))
    service.startService()
    looking = Looking(service)
    (listener,) = service.listeners
    tick(loop, ticks)
    with listener._port.socket.dup() as shared, suppress(OSError):
        # Of datagrams: it is done, and said to be of no connection.
        shared.shutdown(socket.SHUT_RDWR)
    waitUntil(loop.turn, lambda: not listener.listens)
    tick(loop, SHARDS)
    assert looking.lost
    tick(loop)
    assert isAtRest(loop)
    assert "shut down by another process" in "".join(loggedErrors.flush())
    service.stopService()


def test_brokenSocketOfDatagrams(loggedErrors: LoggedErrors) -> None:
    """So it is where the system tells of an error alone, and nothing is to be read."""
    loop = Outer()
    service = serviceOf(loop, "udp", "udp:0")
    service.startService()
    looking = Looking(service)
    (listener,) = service.listeners
    tick(loop, SHARDS + 1)
    assert isAtRest(loop)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        nobody = gone.getsockname()
    with listener._port.socket.dup() as shared:
        shared.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        shared.sendto(b"hello", nobody)
    waitUntil(loop.turn, lambda: not listener.listens)
    tick(loop, SHARDS)
    assert looking.lost
    loggedErrors.flush()
    service.stopService()


@pytest.mark.parametrize("how", ["reload", "stop"])
@pytest.mark.parametrize(("protocol", "endpoint"), [("raw", "tcp:0"), ("udp", "udp:0")])
def test_refusalAsItEnds(protocol: str, endpoint: str, how: str, logLines: LogLines) -> None:
    """Who was refused just before a reload, or the stop, is told of, and once."""
    loop = Outer()
    service = serviceOf(loop, protocol, endpoint, {"deny": ["127.0.0.1"]})
    service.startService()
    (listener,) = service.listeners
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as client:
        client.connect(("127.0.0.1", listener.getHost().port))
        if protocol == "udp":
            client.send(b"hello")
        waitUntil(loop.turn, lambda: listener.counters()["refused"])
    if how == "reload":
        service.reload(planOf(protocol, endpoint, {"deny": ["127.0.0.0/8"]}))
        assert service.listeners != [listener]
        tick(loop, SHARDS)
    service.stopService()
    assert toldOf(logLines, f"refused {listener.describe()} denied=1")
