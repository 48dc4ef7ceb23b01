"""
A connection under test, without a network: a link whose client end is yours.

`memoryLink` joins a connection to a client through two bounded queues a direction, as two
kernels would: what is sent waits until the other side's queue has room, FIN follows the
bytes, RST overtakes them.  The server's transport is the real one (`transports.tcp.Server`,
Twisted's own code) on an imitated socket, so that pausing, half-closing and closing are not
imitated.  `tcpLink` is the same over loopback TCP; the project's tests hold one against the other.

Nothing happens by itself: `Link.pump` lets the server's turns pass, `Loop.advance` its time::

    link = memoryLink(raw.makeFactory(RawOptions()).buildProtocol(None))
    link.send(b"hello")
    link.finish()
    assert link.readAll() == b"hello"
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory

from echod.config.endpoints import TCPEndpoint, UNIXEndpoint
from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.metering import Turns
from echod.connection.owner import Owner
from echod.connection.states import State
from echod.connection.sweep import TICK, Sweep
from echod.kit.twisted_protocol import asConnection
from echod.testing.in_flight import inFlight
from echod.testing.memory_pipes import MemoryPipes
from echod.testing.memory_socket import MemorySocket
from echod.testing.stepped_loop import Loop
from echod.testing.tls_socket import RECORD, TLSSocket
from echod.tls.context import ServerTLS
from echod.transports.bulk_echo import BulkEcho
from echod.transports.layers import Layer, ProxyLayer, TLSLayer
from echod.transports.layers.proxied import Proxied
from echod.transports.ports import layered
from echod.transports.socket_stream import SocketStream
from echod.transports.tcp import Server, TCPPort
from echod.transports.telling import telling
from echod.transports.unix import UNIXListeningPort
from echod.wire.networks import Networks

__all__ = ["Link", "Security", "memoryLink", "tcpLink", "unixLink"]

#: The server's side of TLS, and the client's.
Security = tuple[ServerTLS, ssl.SSLContext]

#: Bytes that one read of a client takes at most.
CHUNK = 65536
#: Seconds that bytes, FIN or RST may be on their way over loopback TCP.  A UNIX socket has them at
#: the other end when the call returns.
TCP_PATIENCE = 0.01
#: Seconds until what must come has not come.
PATIENCE = 30.0
#: Turns without an end are a fault of the code under test.
TURNS = 1_000_000


class _MemoryServer(Server):
    """The real transport, asking the imitated kernel."""

    # Any: an imitated one.
    socket: Any
    pipes = MemoryPipes()

    def _inQueue(self, request: int) -> int:
        return int(self.socket.queued(request))

    def kernelFacts(self) -> dict[str, dict[str, object]]:
        """None: there is no kernel."""
        return {}


# The same behind a proxy.
_ProxiedMemoryServer = layered(Proxied, _MemoryServer)


class _LinkOwner(Owner):
    """The listener of one connection."""

    def __init__(self, loop: Loop, limits: Limits) -> None:
        self.sweep = Sweep(loop, loop.seconds)
        self.sweep.start()
        self.limits = limits
        if limits.listenerBytesPerSecond:
            self.byteRate = Turns(limits.listenerBytesPerSecond)
        self.timeline = limits.timeline or 0
        self.openConnections = 0

    def opened(self, connection: Connection) -> None:
        self.openConnections += 1

    def closed(self, connection: Connection) -> None:
        self.openConnections -= 1


class Link:
    """
    A connection, and the client's end of it.

    :ivar connection: the one under test.
    :ivar loop: its reactor.
    """

    def __init__(
        self,
        connection: Connection,
        # Any: what has the methods of a socket: real, imitated or over TLS.
        client: Any,
        loop: Loop,
        owner: _LinkOwner,
        patience: float = 0.0,
    ) -> None:
        self.connection = connection
        self.loop = loop
        self._client = client
        self._owner = owner
        # The server's end of the client.
        self._accepted = getattr(connection.transport, "socket", None)
        # Seconds to wait for what a kernel has on its way.
        self._patience = patience

    @property
    def gone(self) -> bool:
        """Whether the server's end has let go of its descriptor, and of its pipe if it had one."""
        transport = self.connection.transport
        keeps = isinstance(transport, BulkEcho) and transport._inPipe()
        return self._owner.openConnections == 0 and not keeps

    def send(self, data: bytes | memoryview) -> int:
        """Send what the queues take now; returns how many bytes that was."""
        try:
            return int(self._client.send(data))
        except BlockingIOError:
            return 0

    def receive(self, limit: int = CHUNK) -> bytes | None:
        """
        Read what has arrived: ``b""`` at the server's FIN, ``None`` if there is nothing yet.

        :raises ConnectionResetError: after an RST.
        """
        try:
            return bytes(self._client.recv(limit))
        except BlockingIOError:
            return None

    def finish(self) -> None:
        """Send FIN; reading goes on."""
        self._client.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send RST, as a process that is killed with unread input does."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._client.close()

    def close(self) -> None:
        """Close the client's end, as ``close(2)``."""
        self._client.close()

    def coming(self) -> bool:
        """Whether a kernel may have something on its way between the client and the server."""
        return self._accepted is None or inFlight(self._client, self._accepted)

    def pump(
        self, until: Callable[[], object] | None = None, *, patience: float | None = None
    ) -> None:
        """
        Let turns pass until nothing happens any more, or ``until`` is true.

        :param patience: seconds to wait for what a real kernel still has on its way; 0 where that
            may as well come later.
        :raises AssertionError: if there is no end to it.
        """
        wait = self._patience if patience is None else patience
        for _ in range(TURNS):
            if until is not None and until():
                return
            # Asked before the turn: what has come by then is served by it.
            coming = wait and self.coming()
            if not self.loop.turn(wait if coming else 0.0):
                return
        raise AssertionError("the connection never comes to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass, tick by tick, with all that it brings about."""
        for _ in range(round(seconds / TICK)):
            self.loop.advance(TICK)
            self.pump(patience=0.0)
        self.pump()

    def readAll(self, limit: int = CHUNK) -> bytes:
        """
        Read until the server's FIN.

        :param limit: bytes a read.
        :raises AssertionError: if the server neither sends nor ends.
        :raises ConnectionResetError: after an RST.
        """
        pieces: list[bytes] = []
        deadline = time.monotonic() + PATIENCE
        while True:
            self.pump(patience=0.0)
            piece = self.receive(limit)
            if piece is None:
                # Perhaps a kernel has it.
                self.pump()
                piece = self.receive(limit)
            if piece == b"":
                self.pump()
                return b"".join(pieces)
            if piece is not None:
                pieces.append(piece)
            elif not self._patience or time.monotonic() > deadline:
                raise AssertionError("the server neither sends nor ends")
            else:
                # A kernel whose peer has just begun to read again may want to be asked (RFC 9293
                # section 3.8.6.1).
                self.loop.turn(self._patience)

    def exchange(self, data: bytes) -> bytes:
        """Send all of ``data``, reading all the while, then FIN; returns what came back."""
        view = memoryview(data)
        pieces: list[bytes] = []
        while view:
            view = view[self.send(view) :]
            self.pump(patience=0.0)
            piece = self.receive()
            if piece:
                pieces.append(piece)
        self.finish()
        return b"".join([*pieces, self.readAll()])


def memoryLink(
    protocol: IProtocol,
    *,
    limits: Limits | None = None,
    sendBuffer: int = 65536,
    receiveBuffer: int = 65536,
    header: bytes = b"",
    transport: Callable[..., SocketStream] | None = None,
) -> Link:
    """
    A link in memory.

    :param protocol: fresh, not connected yet; if it is no `Connection`, it is hosted on one.
    :param limits: its deadlines.
    :param sendBuffer: bytes each side's kernel takes before the other has room.
    :param receiveBuffer: bytes that wait to be read, each side.
    :param header: a PROXY header, or how it begins, if the server is to expect one: sent before all
        else, and not read yet.
    :param transport: what makes the server's transport, in place of echod's.
    """
    loop = Loop()
    owner = _LinkOwner(loop, limits or Limits())
    connection = asConnection(protocol)
    ours, theirs = MemorySocket.pair(sendBuffer, receiveBuffer)
    connection.owner = owner
    assert theirs.send(header) == len(header), "the buffers are too small for the header"
    usual = _ProxiedMemoryServer if header else _MemoryServer
    kind: Callable[..., SocketStream] = transport or (telling(usual) if owner.timeline else usual)
    connection.makeConnection(kind(ours, connection, ("127.0.0.1", 50000), None, 0, loop))
    return Link(connection, theirs, loop, owner)


def unixLink(
    protocol: IProtocol,
    *,
    limits: Limits | None = None,
    sendBuffer: int | None = None,
    receiveBuffer: int | None = None,
) -> Link:
    """The same over a UNIX socket; ``receiveBuffer`` is its sender's there (unix(7))."""
    # A name that the kernel chooses, in no file system.
    with socket.socket(socket.AF_UNIX) as unused:
        unused.bind("")
        endpoint = UNIXEndpoint("@" + unused.getsockname()[1:].decode())

    # Any: the port of either family.
    def connect(port: Any) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        if sendBuffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sendBuffer)
        client.connect(endpoint.address)
        return client

    link = _kernelLink(
        protocol,
        limits,
        lambda factory, loop: UNIXListeningPort(endpoint, factory, 1, loop),
        connect,
        patience=0.0,
    )
    if receiveBuffer is not None:
        # Any: one that has a socket of its own.
        accepted: Any = link.connection.transport
        accepted.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, receiveBuffer)
    return link


def tcpLink(
    protocol: IProtocol,
    *,
    limits: Limits | None = None,
    sendBuffer: int | None = None,
    receiveBuffer: int | None = None,
    security: Security | None = None,
    header: bytes = b"",
) -> Link:
    """
    The same over loopback TCP; the buffers are asked of the kernel, which has limits.

    :param security: the server's and the client's side of TLS, if there is to be TLS; the client
        asks for ``localhost``.
    :param header: a PROXY header, if the server is to expect one: sent before all else.
    """

    # Any: as above; and what is given is a client as `Link` takes it.
    def connect(port: Any) -> Any:
        client = socket.socket()
        if receiveBuffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiveBuffer)
        if sendBuffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sendBuffer)
            port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sendBuffer)
        if receiveBuffer is not None:
            port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiveBuffer)
        # A byte behind a handshake would wait for its acknowledgement.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect(("127.0.0.1", port.getHost().port))
        client.sendall(header)
        if security is None:
            return client
        # Records that a small buffer takes in whole.
        return TLSSocket(client, security[1], RECORD if sendBuffer is None else sendBuffer // 4)

    def makePort(factory: Factory, loop: Loop) -> TCPPort:
        port = TCPPort(TCPEndpoint("127.0.0.1", 0), factory, 1, 60, loop)
        proxy: list[Layer] = [ProxyLayer(Networks((), ()))] if header else []
        tls: list[Layer] = [] if security is None else [TLSLayer(security[0])]
        port.installLayers([*proxy, *tls])
        return port

    return _kernelLink(protocol, limits, makePort, connect, patience=TCP_PATIENCE)


def _kernelLink(
    protocol: IProtocol,
    limits: Limits | None,
    makePort: Callable[[Any, Loop], Any],
    connect: Callable[[Any], Any],
    patience: float,
) -> Link:
    """
    A link through a real port.

    :param makePort: makes the port that accepts the connection.
    :param connect: makes the client, connected to the port that it is given.
    :param patience: seconds that what is sent may be on its way.
    """
    loop = Loop()
    owner = _LinkOwner(loop, limits or Limits())
    connection = asConnection(protocol)
    connection.owner = owner
    factory = Factory.forProtocol(lambda: connection)
    factory.noisy = False
    port = makePort(factory, loop)
    port.tellEchoes(owner.timeline > 0)
    port.startListening()
    try:
        client = connect(port)
        client.setblocking(False)
        while not owner.openConnections:
            loop.turn(1.0)
        while isinstance(client, TLSSocket) and not client.shakeHands():
            loop.turn(0.01)
        while connection.state is State.OPENING:
            loop.turn(1.0)
    finally:
        port.stopListening()
        loop.advance(0)
    return Link(connection, client, loop, owner, patience)
