"""`echod.transports.accepted`: who is accepted is read first, and watched for what is left."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.protocol import Factory

from echod.kit import Connection, ConnectionMaker
from echod.protocols.line import LineOptions, line
from echod.testing import Loop
from echod.transports.accepted import Accepted
from echod.transports.resting import PAUSE
from echod.transports.socket_stream import FIRST_READ
from echod.transports.tcp import Port, Server
from tests.unit.outer import reset, waitUntil
from tests.unit.served import Served


class Holding(Connection):
    """Echoes; reads nothing before it is told to."""

    verbatim = True

    def begun(self) -> None:
        self.holdInput()

    def received(self, data: bytes) -> None:
        self.reply(data)


class Leaving(Holding):
    """Aborts as it begins."""

    def begun(self) -> None:
        raise ValueError("nobody")


class Watched:
    """What the loop of a listener is told of connections, in order; ``full``: it takes none."""

    def __init__(self, served: Served) -> None:
        self.told: list[str] = []
        self.full = False
        for name in ("addReader", "removeReader", "addWriter"):
            setattr(served.loop, name, self._spy(name, getattr(served.loop, name)))

    def _spy(self, name: str, real: Callable[[Any], None]) -> Callable[[Any], None]:
        def call(descriptor: Any) -> None:
            if isinstance(descriptor, Accepted):
                self.told.append(name)
                if self.full and name == "addReader":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        return call


def arrived(
    served: Served, *, data: bytes = b"", end: str = "", room: int | None = None
) -> socket.socket:
    """
    A client that waits to be accepted, and whose bytes, FIN or RST are with the kernel.

    :param room: bytes of its receive buffer; the kernel makes more of a few (socket(7)).
    """
    client = socket.socket()
    client.settimeout(20)
    if room is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    client.connect(served.address)
    if data:
        client.send(data)
    if end == "FIN":
        client.shutdown(socket.SHUT_WR)
    elif end == "RST":
        reset(client)
    # Over loopback all that is done within the calls.
    poll = select.poll()
    poll.register(served.listener._port.fileno(), select.POLLIN)
    assert poll.poll(20_000)
    return client


def test_shortConnection() -> None:
    """Bytes and FIN are there: echoed and closed in the turn of the port, and never watched."""
    with Served(None) as served:
        watched = Watched(served)
        with arrived(served, data=b"hello", end="FIN") as client:
            served.turn()
            assert served.connections == []
            assert watched.told == []
            assert client.recv(9) == b"hello"
            assert client.recv(9) == b""
        counters = served.counters()
        assert counters["closed"] == {"eof": 1}
        assert (counters["accepted"], counters["bytes_in"], counters["bytes_out"]) == (1, 5, 5)
        assert [text.split()[0] for text in served.lines[-3:]] == ["opened", "eof", "closed"]


@pytest.mark.parametrize("first", [b"", b"hello", b"x" * 10_000], ids=["none", "some", "much"])
def test_whatComesLater(first: bytes) -> None:
    """What is there is echoed at once, the rest as it comes; then the end."""
    with Served(None) as served:
        watched = Watched(served)
        with arrived(served, data=first) as client:
            served.turn()
            assert watched.told == ["addReader"]
            served.rest()
            client.send(b"world")
            client.shutdown(socket.SHUT_WR)
            served.rest()
            data = b""
            while more := client.recv(65536):
                data += more
            assert data == first + b"world"
        assert served.closed == {"eof": 1}


def test_endAlone() -> None:
    """A client that sends nothing but FIN is given FIN, in the same turn or the next."""
    with Served(None) as served, arrived(served, end="FIN") as client:
        served.rest()
        assert client.recv(9) == b""
        assert served.closed == {"eof": 1}


def test_reset() -> None:
    """An RST that is there already is one, and not an end like others."""
    with Served(None) as served, arrived(served, data=b"hello", end="RST"):
        served.rest()
        assert served.connections == []
        assert served.closed == {"reset": 1}
        assert served.counters()["resets"] == 1


def test_lastBytesAreOnTheirWay() -> None:
    """FIN is there, and no room for the echo: watched without a wish, so that RST is told."""
    data = b"x" * (FIRST_READ - 1)
    with Served(None) as served:
        watched = Watched(served)
        with arrived(served, data=data, end="FIN", room=1) as client:
            served.turn()
            assert watched.told == ["addReader", "removeReader"]
            assert served.connection.transport.unsent() > 0
            got = b""
            while more := client.recv(65536):
                got += more
            assert got == data
            served.gone()
        assert served.closed == {"eof": 1}


def test_lastBytesCannotBeWatched() -> None:
    """ENOSPC of epoll_ctl(2) takes nothing from who only waits for its last bytes."""
    data = b"x" * (FIRST_READ - 1)
    with Served(None) as served:
        Watched(served).full = True
        with arrived(served, data=data, end="FIN", room=1) as client:
            served.turn()
            assert served.connection.transport.unsent() > 0
            assert not served.listener._port.resting
            got = b""
            while more := client.recv(65536):
                got += more
            assert got == data
            served.gone()
        with arrived(served, data=data, end="FIN", room=1) as client:
            served.turn()
            # The sweep tells of it.
            reset(client)
            served.gone()
        assert served.closed == {"eof": 1, "reset": 1}


def test_holdsAsItBegins() -> None:
    """Who wants to read nothing yet is not read."""
    maker = ConnectionMaker("holding", "reads later", Holding)
    with Served(None, (maker, None)) as served:
        with arrived(served, data=b"hello", end="FIN") as client:
            served.rest()
            (connection,) = served.connections
            assert connection.bytesIn == 0
            connection.releaseInput()
            served.rest()
            assert client.recv(9) == b"hello"
        assert served.closed == {"eof": 1}


def test_raisesAsItBegins(loggedErrors: Any) -> None:
    """It is aborted, and not read before."""
    maker = ConnectionMaker("leaving", "aborts", Leaving)
    with Served(None, (maker, None)) as served, arrived(served, data=b"hello") as client:
        served.rest()
        assert served.counters()["bytes_in"] == 0
        assert served.closed == {"error": 1}
        with pytest.raises(ConnectionResetError):
            client.recv(9)
    assert len(loggedErrors.flush()) == 1


def test_cannotBeWatched() -> None:
    """ENOSPC of epoll_ctl(2): a short connection needs nobody; another is reset, the port rests."""
    with Served(None) as served:
        watched = Watched(served)
        watched.full = True
        with arrived(served, data=b"hello", end="FIN") as client:
            served.turn()
            assert client.recv(9) == b"hello"
        with arrived(served, data=b"hello") as client:
            served.rest()
            assert client.recv(9) == b"hello"
            with pytest.raises(ConnectionResetError):
                client.recv(9)
        assert served.counters()["resets"] == 1
        assert served.listener._port.resting
        watched.full = False
        with arrived(served, data=b"hello") as client:
            served.advance(PAUSE)
            waitUntil(lambda _: served.turn(), lambda: served.counters()["bytes_in"] == 15)
            assert client.recv(9) == b"hello"


def test_othersHaveATurnOfTheirOwn() -> None:
    """A protocol that looks at its bytes may take long: it is watched, and read, as all are."""
    with Served(None, (line, LineOptions())) as served:
        watched = Watched(served)
        with arrived(served, data=b"hello\n", end="FIN") as client:
            served.turn()
            assert served.counters()["bytes_in"] == 0
            assert watched.told == ["addReader"]
            served.rest()
            assert client.recv(9) == b"hello\n"
        assert served.closed == {"eof": 1}


@pytest.mark.parametrize(
    "address", [("192.0.2.1", 5), ("2001:db8::1", 5, 0, 0), ("fe80::1%eth0", 5, 7, 2)]
)
def test_addresses(address: tuple[str, int] | tuple[str, int, int, int]) -> None:
    """They are made another way than Twisted's, and are the same."""
    port = Port(0, Factory(), 5, "", Loop())
    made = port._buildAddr(address)
    kind = IPv4Address if len(address) == 2 else IPv6Address
    expected = kind("TCP", *address)
    assert made == expected
    assert (repr(made), hash(made), vars(made)) == (repr(expected), hash(expected), vars(expected))


def test_attributesNeedNoDictionary() -> None:
    """However many are accepted before one has had a message: none has a dictionary of its own."""

    class Echoing(Connection):
        verbatim = True

    class Fresh(Server):
        pass

    maker = ConnectionMaker("echoing", "echoes", Echoing)
    with Served(None, (maker, None)) as served, ExitStack() as stack:
        served.listener._port.transport = Fresh
        clients = [
            stack.enter_context(socket.create_connection(served.address, 20)) for _ in range(60)
        ]
        served.until(lambda: len(served.connections) == len(clients))
        for client in clients:
            client.send(b"hello")
        served.until(lambda: served.counters()["bytes_in"] == 5 * len(clients))
        served.advance(1.1)
        objects = [each for one in served.connections for each in (one, one.transport)]
        found = [one for one in objects if dict in map(type, gc.get_referents(one))]
        assert found == []
