"""
`Layer`: one more is one module and one line in a list.

`CountingLayer` is such a one.  It counts the bytes on the wire; a connection must be the same with
it as without, echoed in place or not, over TCP and UNIX sockets, and below TLS and PROXY headers.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory

from echod.config.endpoints import TCPEndpoint, UNIXEndpoint
from echod.config.limits import Limits
from echod.config.settings import Configuration
from echod.connection.connection import Connection
from echod.connection.states import Reason
from echod.protocols.raw import RawOptions, raw
from echod.protocols.whoami import whoami
from echod.server.listener import Likeness, ListenerPlan
from echod.server.plan import ListenerRequest, plan
from echod.server.registry import BUILTIN, Registry
from echod.testing import Link, Loop, checkProtocol
from echod.testing.links import TCP_PATIENCE, _kernelLink
from echod.transports.bulk_echo import LARGEST_READ
from echod.transports.layers import LAYERS, Layer, TLSLayer
from echod.transports.layers.proxied import Proxied
from echod.transports.ports import layered
from echod.transports.socket_stream import SocketStream
from echod.transports.tcp import Server, TCPPort
from echod.transports.unix import UNIXListeningPort
from tests.certificates import Certificates
from tests.tlspeer import Peer
from tests.unit.proxyheaders import formatV2
from tests.unit.served import Served
from tests.unit.transports.layers.counting import Counted, CountingLayer

#: The one line.
THREE: tuple[type[Layer], ...] = (CountingLayer, *LAYERS)
SHOWN = (raw, RawOptions(quit="never said"))
UNSEEN = (raw, RawOptions())

addresses = pytest.mark.parametrize("kind", ["tcp", "unix"])
protocols = pytest.mark.parametrize("protocol", [SHOWN, UNSEEN], ids=["shown", "unseen"])


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def unusedName() -> str:
    """One that the kernel chooses, in no file system."""
    with socket.socket(socket.AF_UNIX) as unused:
        unused.bind("")
        name: bytes = unused.getsockname()
        return "@" + name[1:].decode()


@contextmanager
def counting(
    kind: str, protocol: tuple[Any, Any] = UNSEEN, tls: dict[str, Any] | None = None, **more: Any
) -> Iterator[tuple[Served, Any]]:
    """A listener that counts, and where it is."""
    endpoint: TCPEndpoint | UNIXEndpoint = TCPEndpoint("127.0.0.1", 0)
    if kind == "unix":
        endpoint = UNIXEndpoint(unusedName())
    outer = [CountingLayer("so many:")]
    with Served(tls, protocol, outer=outer, endpoint=endpoint, **more) as served:
        where = endpoint.address if isinstance(endpoint, UNIXEndpoint) else served.address
        yield served, where


@contextmanager
def client(where: Any) -> Iterator[socket.socket]:
    """A socket that is connected, and does not block."""
    family = socket.AF_INET if isinstance(where, tuple) else socket.AF_UNIX
    with socket.socket(family) as skt:
        skt.connect(where)
        skt.setblocking(False)
        yield skt


def counted(connection: Connection) -> tuple[int, int]:
    """Bytes that came and went, as the layer has them."""
    facts = connection.transport.facts()["count"]
    return facts["received"], facts["sent"]


def exchange(served: Served, skt: socket.socket, data: bytes) -> bytes:
    """Send all of ``data`` and read as much."""
    view, back = memoryview(data), bytearray()

    def step() -> bool:
        nonlocal view
        with suppress(BlockingIOError):
            view = view[skt.send(view) :]
        with suppress(BlockingIOError):
            back.extend(skt.recv(65536))
        return len(back) == len(data)

    served.until(step, "the echo")
    return bytes(back)


def received(served: Served, skt: socket.socket) -> bytes:
    """All until FIN."""
    back = bytearray()
    ended = False

    def step() -> bool:
        nonlocal ended
        with suppress(BlockingIOError):
            piece = skt.recv(65536)
            back.extend(piece)
            ended = not piece
        return ended

    served.until(step, "FIN")
    return bytes(back)


@addresses
@protocols
@pytest.mark.parametrize("size", [1, 5000, 3_000_000])
def test_echo(kind: str, protocol: tuple[Any, Any], size: int) -> None:
    """Every byte is counted once, on the way in and on the way out, echoed in place or not."""
    data = noise(size)
    with counting(kind, protocol) as (served, where), client(where) as skt:
        assert exchange(served, skt, data) == data
        transport = served.connection.transport
        assert isinstance(transport, Counted)
        assert counted(served.connection) == (size, size)
        assert bool(transport.counting.looks) == (protocol is UNSEEN and size > LARGEST_READ)
        assert served.connection.bytesIn == size


@addresses
def test_conformance(kind: str) -> None:
    """Whatever a listener promises of a protocol is kept above such a layer."""

    def link(
        protocol: IProtocol,
        *,
        limits: Limits | None = None,
        sendBuffer: int | None = None,
        receiveBuffer: int | None = None,
    ) -> Link:
        def makePort(factory: Factory, loop: Loop) -> Any:
            port: Any
            if kind == "unix":
                port = UNIXListeningPort(UNIXEndpoint(unusedName()), factory, 1, loop)
            else:
                port = TCPPort(TCPEndpoint("127.0.0.1", 0), factory, 1, 60, loop)
            port.installLayers([CountingLayer()])
            return port

        def connect(port: Any) -> socket.socket:
            skt = socket.socket(port.addressFamily)
            for each in (skt, port.socket):
                if sendBuffer is not None:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sendBuffer)
                if receiveBuffer is not None:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiveBuffer)
            skt.connect(port.socket.getsockname())
            return skt

        patience = 0.0 if kind == "unix" else TCP_PATIENCE
        return _kernelLink(protocol, limits, makePort, connect, patience)

    checkProtocol(raw, RawOptions(), link=link)


@addresses
@protocols
def test_halfClose(kind: str, protocol: tuple[Any, Any]) -> None:
    """What came before FIN is answered, then FIN follows."""
    data = noise(50_000)
    with counting(kind, protocol) as (served, where), client(where) as skt:
        skt.sendall(data)
        skt.shutdown(socket.SHUT_WR)
        assert received(served, skt) == data
        served.gone()
        assert served.closed == {"eof": 1}


@addresses
@protocols
def test_backpressure(kind: str, protocol: tuple[Any, Any]) -> None:
    """A peer that reads nothing stops the reading; what was counted in is out, or waits here."""
    with counting(kind, protocol, buffers=65536) as (served, where), client(where) as skt:
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        data, sent, quiet = noise(8_000_000), 0, 0
        while quiet < 50:
            quiet += 1
            with suppress(BlockingIOError):
                sent += skt.send(data[sent : sent + 65536])
                quiet = 0
            served.turn()
        assert sent < len(data)
        assert served.connection.pauses
        transport: Any = served.connection.transport
        waits = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        came, went = counted(served.connection)
        assert came == went + waits
        assert waits <= 2 * 65536
        back = bytearray()
        served.until(lambda: readSome(skt, back) == sent, "the rest")
        assert bytes(back) == data[:sent]
        assert counted(served.connection) == (sent, sent)


def readSome(skt: socket.socket, back: bytearray) -> int:
    with suppress(BlockingIOError):
        back.extend(skt.recv(65536))
    return len(back)


@addresses
@protocols
@pytest.mark.parametrize("header", [b"", formatV2(("192.0.2.1", 1000), ("192.0.2.2", 443))])
def test_belowTLS(
    certificates: Certificates, kind: str, protocol: tuple[Any, Any], header: bytes
) -> None:
    """The records are counted, and the header before them; the protocol's bytes are as ever."""
    tls = {"cert": certificates.server}
    data = noise(300_000)
    with (
        counting(kind, protocol, tls, proxy=bool(header)) as (served, where),
        Peer(where, certificates.context("1.3"), turn=served.turn, header=header) as peer,
    ):
        peer.shakeHands()
        connection = served.connection
        peer.send(peer.seal(data) + peer.closeNotify())
        assert peer.readAll() == data
        assert peer.notified
        assert counted(connection) == (peer.sent, len(peer.wire))
        peer.finish()
        served.gone()
        assert served.closed == {"eof": 1}
        assert served.told("count").startswith("count raw ")
        assert " so many: received=" in served.told("count")


@addresses
@protocols
def test_backpressureBelowTLS(
    certificates: Certificates, kind: str, protocol: tuple[Any, Any]
) -> None:
    """A peer that reads nothing stops the reading of records, too; then all of them come."""
    tls = {"cert": certificates.server}
    data = noise(4_000_000)
    with (
        counting(kind, protocol, tls, buffers=65536) as (served, where),
        Peer(where, certificates.context("1.3"), turn=served.turn, buffers=65536) as peer,
    ):
        peer.shakeHands()
        records, quiet = memoryview(peer.seal(data)), 0
        while quiet < 50:
            quiet += 1
            with suppress(BlockingIOError):
                count = peer.socket.send(records[:65536])
                peer.sent += count
                records = records[count:]
                quiet = 0
            served.turn()
        connection = served.connection
        assert records
        assert connection.pauses
        assert counted(connection)[0] <= peer.sent
        peer.send(bytes(records))
        peer.send(peer.closeNotify())
        assert peer.readAll() == data
        assert counted(connection) == (peer.sent, len(peer.wire))


def test_plan(certificates: Certificates) -> None:
    """One line in the list: a listener can ask for it, says so, and a reload compares it."""

    def made(**table: Any) -> ListenerPlan:
        request = ListenerRequest(place="here", protocol="raw", endpoint="tcp:7", layers=table)
        found = plan(Configuration(), [request], Registry(BUILTIN), 9999, layerKinds=THREE)
        return found.listeners[0]

    tls = {"cert": certificates.server}
    alone, all_ = made(count="a"), made(count="a", tls=tls, proxy=["::1"])
    assert [layer.name for layer in all_.layers] == ["count", "proxy", "tls"]
    assert made().layers == []
    assert alone.describe(alone.endpoint) == "raw tcp 127.0.0.1:7 (count)"
    assert all_.describe(all_.endpoint) == "raw tcp 127.0.0.1:7 (tls, proxy, count)"
    assert alone.likeness(made(count="a")) is Likeness.ALL
    assert alone.likeness(made(count="b")) is Likeness.KIND
    assert alone.likeness(made()) is Likeness.KIND
    assert alone.layer(CountingLayer) == CountingLayer("a")
    assert alone.layer(TLSLayer) is None


def test_facts() -> None:
    """What it has found out is for whoever asks."""
    with counting("tcp", (whoami, None)) as (served, where), client(where) as skt:
        told = json.loads(received(served, skt))
        assert told["count"] == {"received": 0, "sent": 0}


def test_renewed() -> None:
    """Other settings hold for whoever connects from then on, and nothing is layered twice."""
    with counting("tcp") as (served, where):
        port = served.listener._port
        kind = port.transport
        renewed = served.listener.plan
        served.listener.renew(
            ListenerPlan(
                place="test",
                maker=renewed.maker,
                endpoint=renewed.endpoint,
                limits=renewed.limits,
                options=renewed.options,
                layers=[CountingLayer("other words:")],
            )
        )
        assert port.transport is kind
        assert port.layers == {"count": CountingLayer("other words:")}
        with client(where) as skt:
            assert exchange(served, skt, b"hello") == b"hello"


def test_order() -> None:
    """The first of the list is outermost; who has a layer already is not given it twice."""
    both = layered(Counted, layered(Proxied, Server))
    assert issubclass(both, Counted)
    order = both.__mro__
    assert order.index(Counted) < order.index(Proxied) < order.index(SocketStream)
    assert layered(Proxied, both) is both


def test_reasons() -> None:
    """What a layer can end a connection with is a `Reason`, and counted among who never came in."""
    for kind in THREE:
        for why in kind.reasons:
            assert Reason(why)
