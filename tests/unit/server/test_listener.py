"""`echod.server.stream_listener`, `echod.server.datagram_listener`: listeners of a service, turn
by turn."""

from __future__ import annotations

import os
import socket
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

from echod.config.settings import Configuration
from echod.errors import ListenError
from echod.kit.makers import DatagramMaker, FactoryMaker
from echod.server.plan import ListenerRequest, plan
from echod.server.registry import Registry
from echod.server.service import EchodService
from tests.conftest import LoggedErrors
from tests.unit.outer import Outer, waitUntil


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


def serviceOf(loop: Outer, protocol: Any, endpoint: str) -> EchodService:
    """A service with one listener, not started."""
    registry = Registry() if isinstance(protocol, str) else Registry([protocol])
    name = protocol if isinstance(protocol, str) else protocol.name
    request = ListenerRequest(place="here", protocol=name, endpoint=endpoint)
    return EchodService(plan(Configuration(), [request], registry, 4096), loop)


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
    monkeypatch: pytest.MonkeyPatch,
    loggedErrors: LoggedErrors,
) -> None:
    """The last step of a start fails (epoll_ctl(2): ENOSPC): why is said, and nothing is left."""
    loop = Outer()
    service = serviceOf(loop, protocol, endpoint.format(tmp_path))
    (listener,) = service.listeners

    def refuse(_: object) -> None:
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "addReader", refuse)
        with pytest.raises(ListenError, match=r"^cannot listen on .*: No space left on device$"):
            service.privilegedStartService()
    assert os.listdir("/proc/self/fd") == before
    assert os.listdir(tmp_path) == loop.getReaders() == []
    # Nothing of it is in the way of another try.
    listener.privilegedStartService()
    assert len(loop.getReaders()) == 1
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
