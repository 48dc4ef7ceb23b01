"""
What every stream transport of echod does, whatever its address family.

`SocketStream` is mixed into one of Twisted's server transports and makes two things quicker.  A
write goes to the kernel at once when nothing waits before it, and only the rest is buffered:
Twisted buffers everything and asks the reactor for a turn.  A read starts small and doubles
while reads come back full.

Where the protocol would only send back what it is given it may say so (`SocketStream.echoUnseen`):
then reading and sending are one step.  Short reads are copied to a buffer and sent from it; bulk
goes the ways of `echod.transports.bulk_echo`.

Private parts of Twisted 26.10 that are known here (checked at import, and each has a test):
``dataBuffer``, ``offset`` and ``_tempDataLen`` (what waits in user space),
``_writeDisconnecting`` and ``_writeDisconnected`` (FIN asked for, FIN sent), ``_aborting``,
``_closeWriteConnection``, ``_maybePauseProducer``, ``_isSendBufferFull``, ``_shouldShutdown``.
"""

from __future__ import annotations

import socket
from array import array
from collections.abc import Callable, Iterable
from fcntl import ioctl
from termios import FIONREAD, TIOCOUTQ
from typing import Any, Literal

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.interfaces import (
    IClock,
    IConnectionProtocol,
    IConnectionTransport,
    IDescriptorReactor,
    LastFacts,
)
from echod.tls.facts import TLSFacts
from echod.transports.bulk_echo import LARGEST_COPY, LARGEST_READ, TRY_AGAIN, BulkEcho
from echod.transports.kernel_facts import kernelFacts, savedSYN
from echod.transports.loop.entry import QUICK
from echod.wire.proxy_values import ProxyHeader

__all__ = ["TRY_AGAIN", "SocketStream", "require"]

#: Bytes that the first read asks for.
FIRST_READ = 2048
#: Bytes that a read asks for after many short echoes.  With its header it is less than 512, up to
#: which CPython has memory at hand: 0.15 µs cheaper than malloc(3) and realloc(3).
LEAST_READ = 448

_PRIVATE = (
    "dataBuffer",
    "offset",
    "_writeDisconnecting",
    "_writeDisconnected",
    "_aborting",
    "_closeWriteConnection",
    "_maybePauseProducer",
    "_isSendBufferFull",
    "_shouldShutdown",
)


def require(owner: type, *names: str) -> None:
    """
    Check that private parts of others are still there.

    :raises ImportError: naming the first that is missing.
    """
    for name in names:
        if not hasattr(owner, name):
            raise ImportError(f"there is no {owner.__name__}.{name}; echod needs Twisted 26.10")


require(tcp.Server, *_PRIVATE)

_closed = Failure(CONNECTION_DONE)

# Where the kernel writes an int.  Given bytes, ioctl first makes the text of an error.
_count = array("i", [0])


@implementer(IConnectionTransport)
class SocketStream(BulkEcho):
    """One accepted connection."""

    #: Bytes a read asks for at most; the protocol may lower it (`limitReads`).
    _largestRead: int = LARGEST_READ
    _readSize = FIRST_READ
    # Twisted's.
    dataBuffer: bytes
    offset: int
    bufferSize: int
    socket: socket.socket
    _tempDataLen: int
    _writeDisconnecting: bool
    _writeDisconnected: bool
    producer: IPushProducer | None
    streamingProducer: bool
    reactor: IDescriptorReactor
    protocol: IConnectionProtocol

    # Whether an end was asked for, or TLS stands between: then all goes Twisted's way.
    _ending = False
    # How many bytes may be read now, where that is limited; written by meterReads.
    _allowed: Callable[[], int] | None = None
    # Who is told of echoes (`echod.transports.telling`); written by echoUnseen.
    _told: Callable[[int, float], None] | None = None
    # The headers of the peer's SYN, once they have been asked for.
    _syn: bytes | None = None
    #: See `IConnectionTransport`.
    lastFacts: LastFacts | None = None
    # Closing ends both directions by itself: descriptors are not inherited (FD_CLOEXEC).
    _shouldShutdown = False
    #: See `IConnectionTransport`.
    credentials: tuple[int, int, int] | None = None
    opening = False
    heard = False
    truncated = False
    failure: str | None = None
    overhead = 0
    tls: TLSFacts | None = None
    proxied: ProxyHeader | None = None
    proxyPeer: IAddress | None = None

    def beginOpening(self) -> None:
        """See `IConnectionTransport.beginOpening`."""

    def facts(self) -> dict[str, Any]:
        """See `IConnectionTransport.facts`; a layer adds its own."""
        return {}

    def _outerLayersDone(self) -> None:
        """What the layers outside of this class had to read has come: the next is its own."""
        self.opening = False
        self.protocol.handshakeCompleted()

    def limitReads(self, size: int) -> None:
        """See `IConnectionTransport.limitReads`."""
        self._echoesNow = False
        self._largestRead = size
        self._readSize = min(self._readSize, size)

    def meterReads(self, allowed: Callable[[], int] | None) -> None:
        """See `IConnectionTransport.meterReads`."""
        self._echoesNow = False
        self._allowed = allowed
        if allowed is None:
            # It refers to this one, which would wait for the collector.
            self.__dict__.pop("doRead", None)
            return
        # Where nothing is limited there is nothing to ask, and a read does not look.
        self.doRead = self._readMetered  # type: ignore[method-assign]  # for this one alone

    def _readMetered(self) -> ConnectionDone | ConnectionLost | Literal[False] | None:
        assert self._allowed is not None
        allowed = self._allowed()
        if not allowed:
            return None
        self._readSize = min(self._readSize, allowed)
        return type(self).doRead(self)

    def echoUnseen(
        self,
        allowed: bool,
        inPlace: bool = False,
        clock: IClock | None = None,
        told: Callable[[int, float], None] | None = None,
    ) -> None:
        """See `IConnectionTransport.echoUnseen`."""
        self._allowEcho(allowed and not self._ending, inPlace, clock)
        if told is not None:
            self._told = told

    # The base that it differs from has its doRead and doWrite exchanged at an abort.
    def doRead(  # type: ignore[override]
        self,
    ) -> ConnectionDone | ConnectionLost | Literal[False] | None:
        """
        Read once, as much as the last reads make likely.

        :returns: why it ended, if it did; `QUICK` for a short echo.
        """
        size = self._readSize
        if self._echoesNow or self._findEchoes(size):
            if size > LARGEST_COPY and size > self._largestCopy and self.producer is not None:
                return self._echoBulk()
            # As little as can be: all that a short message costs is here, and in the kernel.
            skt = self.socket
            try:
                data = skt.recv(size)
            except OSError as error:
                return None if error.errno in TRY_AGAIN else self._lostBy(error)
            if not data:
                return CONNECTION_LOST if self._broken else CONNECTION_DONE
            try:
                sent = skt.send(data)
            except OSError as error:
                sent = self._sentNothing(error)
            length = len(data)
            self.echoedBytes += length
            self.echoedAt = self._clock.now
            if sent == length and length < size and (size <= FIRST_READ or size <= 4 * length):
                self.readsMuch = False
                if size > LEAST_READ and 4 * length < size:
                    # Step by step: a longer one is read in two parts then.
                    self._readSize = max(size - size // 8, LEAST_READ)
                return QUICK
            if sent != length:
                self._buffer(data[sent:])
        else:
            try:
                data = self.socket.recv(size)
            except OSError as error:
                return None if error.errno in TRY_AGAIN else self._lostBy(error)
            if not data:
                return CONNECTION_LOST if self._broken else CONNECTION_DONE
            length = len(data)
            self.protocol.dataReceived(data)
        full = length == size
        # A read that grows is not much yet: to say so for a moment costs four calls of the kernel.
        self.readsMuch = full and size >= self._largestRead
        # Most reads change nothing: no call for each.
        if size < self._largestRead if full else size > FIRST_READ and 4 * length < size:
            self._adaptReads(size, length)
        return None

    def _findEchoes(self, size: int) -> bool:
        """Whether it may echo unseen from now on, until something changes one of these."""
        self._echoesNow = self._mayEcho and self._allowed is None and not self._waits()
        # What an object has itself is found sooner than what its class has.
        self._readSize = size
        return self._echoesNow

    def _adaptReads(self, size: int, length: int) -> None:
        """Ask for twice as much after a full read, for half after one that was mostly empty."""
        if length >= size:
            self._readSize = min(max(2 * size, FIRST_READ), self._largestRead)
        elif 4 * length < size and size > FIRST_READ:
            self._readSize = max(size // 2, FIRST_READ)

    def write(self, data: bytes) -> None:
        """Send now what the kernel takes, if nothing waits before it; buffer the rest."""
        if (
            self._tempDataLen
            or self.dataBuffer
            or self._pipe is not None
            or self._ending
            or not self.connected
            or type(data) is not bytes  # which Twisted refuses
        ):
            self._echoesNow = False
            super().write(data)
        else:
            try:
                sent = self.socket.send(data)
            except OSError as error:
                sent = self._sentNothing(error)
            # With a pull producer doWrite must have its turn: it asks for more when all is sent.
            if sent != len(data) or not (self.streamingProducer or self.producer is None):
                self._buffer(data[sent:])

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """See ``ITransport``: all of it waits for a turn."""
        self._echoesNow = False
        super().writeSequence(iovec)

    def _buffer(self, data: bytes | memoryview) -> None:
        """Keep what could not be sent; nothing waits yet."""
        self._echoesNow = False
        self.dataBuffer = bytes(data)
        self._maybePauseProducer()
        self.startWriting()

    def _isSendBufferFull(self) -> bool:
        """As Twisted's, but not counting what has been sent already."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen > self.bufferSize

    def _end(self) -> None:
        """From here on all goes Twisted's way."""
        self._ending = True
        self._allowEcho(False)

    # Any: Twisted's own says no types.
    def startTLS(self, *arguments: Any, **keywords: Any) -> None:
        """See ``ITLSTransport``: from here on `write` is given plain text."""
        self._end()
        super().startTLS(*arguments, **keywords)

    def loseConnection(self) -> None:
        """See ``ITransport``."""
        self._end()
        super().loseConnection()

    def closeNow(self) -> None:
        """See `IConnectionTransport.closeNow`."""
        self.connectionLost(_closed)

    def loseWriteConnection(self) -> None:
        """Send FIN: now, if nothing waits before it; once, however often it is asked for."""
        if self._writeDisconnected or not self.connected:
            return
        self._end()
        if (
            self._waits()
            or self.producer is not None
            or self.disconnecting
            or self._writeDisconnecting
            or self._aborting
        ):
            super().loseWriteConnection()
            return
        # Who waits to echo in place would be told that it can: a socket whose output has ended
        # always is writable, and doWrite would meet EPIPE.
        self.stopWriting()
        self._writeDisconnecting = self._writeDisconnected = True
        self._closeWriteConnection()

    def abortConnection(self) -> None:
        """See ``IAbortingTransport``."""
        self._end()
        super().abortConnection()

    def unsent(self) -> int:
        """See `IConnectionTransport.unsent` (``TIOCOUTQ``, tcp(7), counts a sent FIN as one)."""
        # As heldBytes, without a call: asked at each end.
        waiting = len(self.dataBuffer) - self.offset + self._tempDataLen + self._inPipe()
        queued = self._inQueue(TIOCOUTQ)
        if queued and self._writeDisconnected:
            queued -= 1
        return waiting + queued

    def heldBytes(self) -> int:
        """See `IConnectionTransport.heldBytes`; a layer adds what it has not delivered."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen + self._inPipe()

    def unread(self) -> int:
        """See `IConnectionTransport.unread`."""
        return self.queued()

    def queued(self) -> int:
        """See `IConnectionTransport.queued`."""
        return self._inQueue(FIONREAD)

    def failed(self) -> bool:
        """See `IConnectionTransport.failed`."""
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._blame(error)
        return error != 0

    def kernelFacts(self) -> dict[str, dict[str, object]]:
        """See `IConnectionTransport.kernelFacts`."""
        if not self.connected:
            return {}
        if self._syn is None:
            # The kernel gives it once.
            self._syn = savedSYN(self.socket)
        return kernelFacts(self.socket, self._syn)

    def _inQueue(self, request: int) -> int:
        ioctl(self.fileno(), request, _count)
        return _count[0]
