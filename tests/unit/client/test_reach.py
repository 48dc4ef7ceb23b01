"""`echod.client.reach`: what is said of each reason, and whether a socket is connected to
itself."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from echod.client.reach import ask, left, reach
from echod.config.endpoints import TCPEndpoint, UDPEndpoint, parseTarget
from echod.errors import ConnectFailed, NoAnswer
from echod.transports.self_connect import isItself


def soon() -> float:
    return time.monotonic() + 20


@pytest.mark.parametrize(
    ("why", "mend"),
    [
        (errno.ECONNREFUSED, "start echod, or name where it listens"),
        (errno.EACCES, "may this user connect?"),
        (errno.EPERM, "may this user connect?"),
        (errno.ENETUNREACH, "see this machine's routes"),
        (errno.EHOSTUNREACH, "see this machine's routes"),
        (errno.ETIMEDOUT, "is echod stopped, or a firewall on the way?"),
        (errno.EAFNOSUPPORT, "this kernel lacks that family"),
        (errno.EADDRNOTAVAIL, "no address or no free port to connect from"),
        (errno.EINVAL, "needs its interface: fe80::1%eth0"),
        (errno.EMFILE, "see ulimit -n"),
        (errno.EIO, "see to that, or start echod"),
    ],
)
@pytest.mark.parametrize(
    "find",
    [
        lambda: reach(TCPEndpoint("127.0.0.1", 7), soon()),
        lambda: ask(UDPEndpoint("127.0.0.1", 7), b"x", soon()),
        lambda: reach(parseTarget("unix:/nobody/here"), soon()),
    ],
    ids=["tcp", "udp", "unix"],
)
def test_mends(
    monkeypatch: pytest.MonkeyPatch, why: int, mend: str, find: Callable[[], object]
) -> None:
    """One line: the system's reason, and what to do about that one."""

    class Failing(socket.socket):
        def connect(self, address: Any) -> None:
            raise OSError(why, os.strerror(why))

        def connect_ex(self, address: Any) -> int:
            return why

    monkeypatch.setattr(socket, "socket", Failing)
    with pytest.raises(ConnectFailed) as failed:
        find()
    assert str(failed.value).startswith(f"{os.strerror(why)}: ")
    assert mend in str(failed.value)


@pytest.mark.parametrize(
    ("why", "mend"),
    [
        (socket.EAI_NONAME, "is that how the host is spelt?"),
        (socket.EAI_AGAIN, "does the name server in /etc/resolv.conf answer?"),
        (socket.EAI_FAIL, "does the name server in /etc/resolv.conf answer?"),
    ],
)
def test_names(monkeypatch: pytest.MonkeyPatch, why: int, mend: str) -> None:
    """getaddrinfo(3): whether it is the name, or whoever is asked for it."""

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(why, "the resolver's words")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ConnectFailed) as failed:
        reach(TCPEndpoint("a.example", 7), soon())
    assert str(failed.value).startswith(f"the resolver's words: {mend}")


def test_absoluteLocalhost() -> None:
    """RFC 6761 section 6.3: it is the loopback, whatever the resolver knows of such dots."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        reached, why = reach(TCPEndpoint("localhost.", server.getsockname()[1]), soon())
        with reached:
            assert (reached.getpeername(), why) == (server.getsockname(), 0)


def test_tooLate() -> None:
    with pytest.raises(NoAnswer, match="is echod stopped"):
        reach(TCPEndpoint("127.0.0.1", 7), time.monotonic() - 1)
    with pytest.raises(TimeoutError):
        left(time.monotonic() - 1)


def test_isItself() -> None:
    """A datagram socket can be connected to itself in so many words."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.connect(one.getsockname())
        assert isItself(one)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert not isItself(client)
    with socket.socket() as nobody, pytest.raises(OSError, match="not connected"):
        isItself(nobody)
