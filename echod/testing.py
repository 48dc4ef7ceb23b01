"""
A connection under test, without a network: a link whose client end is yours.

`memoryLink` joins a `Connection` to a client through two bounded queues a direction, as two
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

import select
import socket
import time
from collections.abc import Callable
from errno import ECONNRESET
from itertools import count
from termios import FIONREAD, TIOCOUTQ
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IReactorFDSet,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.connection import Connection
from echod.deadlines import TICK, Sweep
from echod.endpoints import TCPEndpoint
from echod.settings import Limits
from echod.transports.tcp import Server, TCPPort

__all__ = ["Link", "Loop", "MemorySocket", "memoryLink", "tcpLink"]

_log = Logger()

#: Bytes that one read of a client takes at most.
CHUNK = 65536
#: Turns without an end are a fault of the code under test.
TURNS = 1_000_000


# -- Two imitated sockets ------------------------------------------------------------------


class _Direction:
    """Bytes on their way from one socket to the other, FIN behind them."""

    def __init__(self, sendBuffer: int, receiveBuffer: int) -> None:
        self._sendBuffer = sendBuffer
        self._receiveBuffer = receiveBuffer
        self.sent = bytearray()
        self.arrived = bytearray()
        self.finished = False

    @property
    def room(self) -> int:
        return self._sendBuffer - len(self.sent)

    @property
    def ended(self) -> bool:
        """Whether the reader has nothing more to expect."""
        return self.finished and not self.sent and not self.arrived

    def push(self, data: bytes | memoryview) -> int:
        taken = min(len(data), self.room)
        self.sent += memoryview(data)[:taken]
        self.flow()
        return taken

    def take(self, limit: int) -> bytes:
        data = bytes(self.arrived[:limit])
        del self.arrived[:limit]
        self.flow()
        return data

    def flow(self) -> None:
        moved = min(self._receiveBuffer - len(self.arrived), len(self.sent))
        self.arrived += self.sent[:moved]
        del self.sent[:moved]


class MemorySocket:
    """
    One end of an imitated, non-blocking TCP connection, with the socket methods in use here.

    Errors are those of the real calls: ``BlockingIOError``, ``ConnectionResetError``,
    ``BrokenPipeError``.
    """

    _numbers = count(1 << 20)
    peer: MemorySocket

    def __init__(self, outgoing: _Direction, incoming: _Direction) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._number = next(self._numbers)
        self._error = 0
        self._abortive = False
        self.closed = False

    @classmethod
    def pair(cls, sendBuffer: int, receiveBuffer: int) -> tuple[MemorySocket, MemorySocket]:
        """
        Two connected ends.

        :param sendBuffer: bytes that wait at the sender, each direction.
        :param receiveBuffer: bytes that wait at the receiver, each direction.
        """
        there = _Direction(sendBuffer, receiveBuffer)
        back = _Direction(sendBuffer, receiveBuffer)
        one, other = cls(there, back), cls(back, there)
        one.peer, other.peer = other, one
        return one, other

    def send(self, data: bytes | memoryview) -> int:
        """See ``socket.send``."""
        self._raiseError()
        if self._outgoing.finished:
            raise BrokenPipeError
        if self.peer.closed:
            self._reset()
            return len(data)
        taken = self._outgoing.push(data)
        if not taken and data:
            raise BlockingIOError
        return taken

    def recv(self, limit: int) -> bytes:
        """See ``socket.recv``: bytes that arrived before an RST are read before it."""
        if self._incoming.arrived:
            return self._incoming.take(limit)
        self._raiseError()
        if self._incoming.ended:
            return b""
        raise BlockingIOError

    def recv_into(self, buffer: memoryview, size: int = 0, flags: int = 0) -> int:
        """See ``socket.recv_into``: ``MSG_PEEK`` only looks, ``MSG_TRUNC`` only drops."""
        size = size or len(buffer)
        if flags & socket.MSG_PEEK and self._incoming.arrived:
            data = bytes(self._incoming.arrived[:size])
        else:
            data = self.recv(size)
        if not flags & socket.MSG_TRUNC:
            buffer[: len(data)] = data
        return len(data)

    def shutdown(self, how: int) -> None:
        """See ``socket.shutdown``."""
        if how != socket.SHUT_RD:
            self._outgoing.finished = True

    def close(self) -> None:
        """See ``socket.close``: RST if bytes are unread or ``SO_LINGER`` is (1, 0), else FIN."""
        if self.closed:
            return
        self.closed = True
        if self._abortive or self._incoming.arrived or self._incoming.sent:
            self._outgoing.sent.clear()
            self.peer._reset()
        self._outgoing.finished = True

    def fileno(self) -> int:
        """A number that no real descriptor has; -1 once closed."""
        return -1 if self.closed else self._number

    def setblocking(self, flag: bool) -> None:
        """Nothing here ever blocks."""

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """Only ``SO_LINGER`` is looked at."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._abortive = True

    def getsockopt(self, level: int, option: int) -> int:
        """Only ``SO_ERROR``, which reports an error once."""
        error, self._error = self._error, 0
        return error

    def getsockname(self) -> tuple[str, int]:
        """An address to show."""
        return ("127.0.0.1", 7)

    def poll(self) -> int:
        """What ``poll(2)`` would say."""
        events = 0
        if self._incoming.arrived or self._incoming.ended or self._error:
            events |= select.POLLIN
        if self._outgoing.room or self._error:
            events |= select.POLLOUT
        if self._error:
            events |= select.POLLERR
        return events

    def queued(self, request: int) -> int:
        """What ``ioctl`` would say to ``FIONREAD`` and ``TIOCOUTQ``."""
        if request == FIONREAD:
            return len(self._incoming.arrived)
        assert request == TIOCOUTQ
        waiting = len(self._outgoing.sent)
        return waiting + (1 if waiting and self._outgoing.finished else 0)

    def _reset(self) -> None:
        """RST arrived: what was to be sent, or was on its way, is gone."""
        if not self.closed:
            self._error = ECONNRESET
        self._outgoing.sent.clear()
        self._incoming.sent.clear()

    def _raiseError(self) -> None:
        if self._error:
            raise ConnectionResetError(self._error, "reset by the peer")


class _MemoryServer(Server):
    """The real transport, asking the imitated kernel."""

    socket: Any

    def _queued(self, request: int) -> int:
        return int(self.socket.queued(request))


# -- A reactor whose turns are yours -------------------------------------------------------


@implementer(IReactorFDSet)
class Loop(Clock):
    """Descriptors, real and imitated, and a clock; `turn` is one turn of the reactor."""

    def __init__(self) -> None:
        super().__init__()
        self._readers: dict[Any, None] = {}
        self._writers: dict[Any, None] = {}

    def addReader(self, reader: IReadDescriptor) -> None:
        """See ``IReactorFDSet``."""
        self._readers[reader] = None

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """See ``IReactorFDSet``."""
        self._writers[writer] = None

    def removeReader(self, reader: IReadDescriptor) -> None:
        """See ``IReactorFDSet``."""
        self._readers.pop(reader, None)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """See ``IReactorFDSet``."""
        self._writers.pop(writer, None)

    def removeAll(self) -> list[Any]:
        """See ``IReactorFDSet``."""
        everybody = list({**self._readers, **self._writers})
        self._readers.clear()
        self._writers.clear()
        return everybody

    def getReaders(self) -> list[Any]:
        """See ``IReactorFDSet``."""
        return list(self._readers)

    def getWriters(self) -> list[Any]:
        """See ``IReactorFDSet``."""
        return list(self._writers)

    def turn(self, wait: float = 0.0) -> bool:
        """
        Call what is due, then every descriptor that is ready, once.

        :param wait: seconds to wait for real descriptors if nothing is ready.
        :returns: whether anything was called.
        """
        due = bool(self.calls) and self.calls[0].getTime() <= self.seconds()
        self.advance(0)
        ready = self._ready(wait)
        for descriptor, events in ready:
            self._serve(descriptor, events)
        return due or bool(ready)

    def _ready(self, wait: float) -> list[tuple[Any, int]]:
        ready, real = [], {}
        poll = select.poll()
        for descriptor in {**self._readers, **self._writers}:
            wanted = (select.POLLIN if descriptor in self._readers else 0) | (
                select.POLLOUT if descriptor in self._writers else 0
            )
            if isinstance(descriptor.socket, MemorySocket):
                events = descriptor.socket.poll() & (wanted | select.POLLERR)
                if events:
                    ready.append((descriptor, events))
            else:
                poll.register(descriptor.fileno(), wanted)
                real[descriptor.fileno()] = descriptor
        if real:
            timeout = 0 if ready else wait * 1000
            ready.extend((real[number], events) for number, events in poll.poll(timeout))
        return ready

    def _serve(self, descriptor: Any, events: int) -> None:
        """As Twisted's poll reactors do: read, then write, then believe an error."""
        why, reading = None, False
        try:
            if events & select.POLLIN and descriptor in self._readers:
                reading = True
                why = descriptor.doRead()
            if not why and events & select.POLLOUT and descriptor in self._writers:
                reading = False
                why = descriptor.doWrite()
            if not why and not events & (select.POLLIN | select.POLLOUT):
                why = ConnectionResetError()
        except Exception as error:
            _log.failure("a descriptor raised")
            why = error
        if why:
            self.removeReader(descriptor)
            if (
                reading
                and isinstance(why, ConnectionDone)
                and IHalfCloseableDescriptor.providedBy(descriptor)
            ):
                descriptor.readConnectionLost(Failure(why))
            else:
                self.removeWriter(descriptor)
                descriptor.connectionLost(Failure(why))


# -- The link --------------------------------------------------------------------------------


class _Owner:
    """The listener of one connection."""

    def __init__(self, loop: Loop, limits: Limits) -> None:
        self.sweep = Sweep(loop, loop.seconds)
        self.sweep.start()
        self.limits = limits
        self.openConnections = 0

    def opened(self, connection: Connection) -> None:
        self.openConnections += 1

    def lingering(self, connection: Connection) -> None:
        pass

    def inputEnded(self, connection: Connection) -> None:
        pass

    def closed(self, connection: Connection) -> None:
        self.openConnections -= 1


class Link:
    """
    A connection, and the client's end of it.

    :ivar connection: the one under test.
    :ivar loop: its reactor.
    """

    def __init__(
        self, connection: Connection, client: Any, loop: Loop, owner: _Owner, *, real: bool
    ) -> None:
        self.connection = connection
        self.loop = loop
        self._client = client
        self._owner = owner
        # Seconds to wait for a real kernel before "nothing happens" is believed.
        self._patience = 0.01 if real else 0.0

    @property
    def gone(self) -> bool:
        """Whether the server's end has let go of its descriptor."""
        return self._owner.openConnections == 0

    def send(self, data: bytes) -> int:
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

    def pump(self, until: Callable[[], object] | None = None) -> None:
        """
        Let turns pass until nothing happens any more, or ``until`` is true.

        :raises AssertionError: if there is no end to it.
        """
        for _ in range(TURNS):
            if until is not None and until():
                return
            if not self.loop.turn(self._patience):
                return
        raise AssertionError("the connection never comes to rest")

    def advance(self, seconds: float) -> None:
        """Let time pass, tick by tick, with all that it brings about."""
        for _ in range(round(seconds / TICK)):
            self.loop.advance(TICK)
            while self.loop.turn():
                pass
        self.pump()

    def readAll(self, limit: int = CHUNK) -> bytes:
        """
        Read until the server's FIN.

        :param limit: bytes a read.
        :raises AssertionError: if the server neither sends nor ends.
        :raises ConnectionResetError: after an RST.
        """
        pieces: list[bytes] = []
        deadline = time.monotonic() + 30
        while True:
            self.pump()
            piece = self.receive(limit)
            if piece == b"":
                self.pump()
                return b"".join(pieces)
            if piece is not None:
                pieces.append(piece)
            elif not self._patience or time.monotonic() > deadline:
                raise AssertionError("the server neither sends nor ends")

    def exchange(self, data: bytes) -> bytes:
        """Send all of ``data``, reading all the while, then FIN; returns what came back."""
        view = memoryview(data)
        pieces: list[bytes] = []
        while view:
            view = view[self.send(view) :]  # type: ignore[arg-type]  # any buffer will do
            self.pump()
            piece = self.receive()
            if piece:
                pieces.append(piece)
        self.finish()
        return b"".join([*pieces, self.readAll()])


def memoryLink(
    connection: Connection,
    *,
    limits: Limits | None = None,
    sendBuffer: int = 65536,
    receiveBuffer: int = 65536,
) -> Link:
    """
    A link in memory.

    :param connection: fresh, not connected yet.
    :param limits: its deadlines.
    :param sendBuffer: bytes each side's kernel takes before the other has room.
    :param receiveBuffer: bytes that wait to be read, each side.
    """
    loop = Loop()
    owner = _Owner(loop, limits or Limits())
    ours, theirs = MemorySocket.pair(sendBuffer, receiveBuffer)
    connection.owner = owner
    transport = _MemoryServer(ours, connection, ("127.0.0.1", 50000), None, 0, loop)  # type: ignore[arg-type]  # it is no socket, and has no port
    connection.makeConnection(transport)
    return Link(connection, theirs, loop, owner, real=False)


def tcpLink(
    connection: Connection,
    *,
    limits: Limits | None = None,
    sendBuffer: int | None = None,
    receiveBuffer: int | None = None,
) -> Link:
    """The same over loopback TCP; the buffers are asked of the kernel, which has limits."""
    loop = Loop()
    owner = _Owner(loop, limits or Limits())
    connection.owner = owner
    factory = Factory.forProtocol(lambda: connection)
    factory.noisy = False
    port = TCPPort(TCPEndpoint("127.0.0.1", 0), factory, 1, 60, loop)
    port.startListening()
    try:
        client = socket.socket()
        if receiveBuffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiveBuffer)
        if sendBuffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sendBuffer)
            port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sendBuffer)
        if receiveBuffer is not None:
            port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receiveBuffer)
        client.connect(("127.0.0.1", port.getHost().port))
        client.setblocking(False)
        while not owner.openConnections:
            loop.turn(1.0)
    finally:
        port.stopListening()
        loop.advance(0)
    return Link(connection, client, loop, owner, real=True)
