"""
How an accepted connection begins and ends, whatever its address family.

`Accepted` is mixed into one of Twisted's server transports.  Most of what a short connection costs
is here: it is made without a text, read before the kernel is asked to watch it, and ended in one
call.  Private parts of Twisted known here: ``_tempDataBuffer`` (with ``_tempDataLen``, which
`echod.transports.socket_stream` knows too) and ``_closeSocket``.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from twisted.internet import tcp
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableProtocol, IProducer, IProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure

from echod.insight.fault_log import tellFault
from echod.interfaces import IDescriptorReactor
from echod.transports.loop.entry import QUICK
from echod.transports.socket_stream import SocketStream, require

__all__ = ["Accepted"]

require(tcp.Server, "_closeSocket")


class Accepted(SocketStream, tcp.Server):
    """
    One accepted connection, from its beginning to its end.

    Twisted's makes two texts of each connection as it comes; here they are made when asked for.

    The protocol may be one whose input is echoed unseen (``verbatim``).  Its bytes, and often its
    end, mostly are there as it is accepted.  So it is read first (`begin`), and the kernel is asked
    to watch only what is left: a short connection never is.  Others are watched at once, so that
    whatever takes long in a protocol has a turn of its own.
    """

    # Twisted's.
    client: tuple[object, ...]
    sessionno: int
    _tempDataBuffer: list[bytes]

    #: Attributes that most connections are given later than as they are made (`Accepting`).
    lateNames: ClassVar[Sequence[str]] = (
        *("_mayEcho", "_echoesNow", "_clock", "echoedBytes", "echoedAt"),
        *("producer", "streamingProducer", "producerPaused", "readsMuch", "_readSize"),
        *("dataBuffer", "offset", "disconnected"),
    )

    # Whether nobody has been told yet to watch it, or not to: it waits for `begin`.
    _fresh = False

    def __init__(
        self,
        sock: socket.socket,
        protocol: IProtocol,
        client: tuple[object, ...],
        server: tcp.Port | None,
        sessionno: int,
        reactor: IDescriptorReactor,
    ) -> None:
        sock.setblocking(False)
        self.reactor = reactor
        self._tempDataBuffer = []
        self._tempDataLen = 0
        self.socket = sock
        self.fileno = sock.fileno
        self.protocol = protocol  # type: ignore[assignment]  # of a port of Twisted's it is any
        self.server = server  # type: ignore[assignment]  # a test may have none
        self.client = client
        self.sessionno = sessionno
        if server is not None and getattr(protocol, "verbatim", False):
            self._fresh = True
        else:
            self.startReading()
        self.connected = 1

    def begin(self) -> None:
        """
        To be called by the port, once the protocol has its transport: read, and be watched.

        It reads twice at most: what came with the connection, and its end.

        :raises OSError: it cannot be watched.
        """
        if not self._fresh:
            return
        if self._mayEcho:
            why = self.doRead()
            if why is QUICK:
                why = self.doRead()
            if why is CONNECTION_DONE:
                self._tellEnd()
                if self._fresh:
                    # It waits for its last bytes to arrive.  A reset shall be told all the same:
                    # by the sweep if it cannot be watched, a tick later.
                    with suppress(OSError):
                        self.startReading()
                        self.stopReading()
            elif why:
                self.connectionLost(Failure(why))
        if self._fresh:
            self.startReading()

    @property
    def hostname(self) -> object:  # type: ignore[override]  # an attribute there
        """The client's address; of a UNIX socket the name that it has bound, mostly none."""
        return self.client[0]

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return f"{type(self).__name__},{self.sessionno},{self.hostname}"

    def __repr__(self) -> str:
        """Name the client and the number of the connection."""
        return f"<{type(self).__name__} #{self.sessionno} of {self.hostname}>"

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """As Twisted's, in one call for a connection's own."""
        if streaming and self.producer is None and self.connected and not self.TLS:
            self.producer, self.streamingProducer = producer, True  # type: ignore[assignment]  # of the push kind
        else:
            super().registerProducer(producer, streaming)

    def startReading(self) -> None:
        """As Twisted's."""
        self._fresh = False
        self.reactor.addReader(self)

    def stopReading(self) -> None:
        """As Twisted's."""
        self._fresh = False
        self.reactor.removeReader(self)

    def startWriting(self) -> None:
        """As Twisted's."""
        self._fresh = False
        self.reactor.addWriter(self)

    def readConnectionLost(self, reason: Failure) -> None:
        """As Twisted's, but without asking for an adapter."""
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self._tellEnd()
        else:
            self.connectionLost(reason)

    def _tellEnd(self) -> None:
        try:
            self.protocol.readConnectionLost()
        except BaseException:
            # SystemExit too: see echod.insight.fault_log.
            failure = Failure()
            tellFault(failure, f"{self!r} could not tell its protocol of the peer's end")
            self.connectionLost(failure)

    def connectionLost(self, reason: Failure) -> None:
        """As Twisted's, in one call: tell who watches, close, tell the protocol; once."""
        if not self.connected:
            return
        watched = not self._fresh
        self.disconnected = 1
        self.connected = 0
        self._fresh = False
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        if watched:
            self.reactor.removeReader(self)
            self.reactor.removeWriter(self)
        self._leavePipes()
        if isinstance(reason.value, ConnectionAborted):
            # With RST.
            self._closeSocket(False)
        else:
            if reason.value is CONNECTION_LOST:
                self._askWhy()
            # That ends both directions: descriptors are not inherited (FD_CLOEXEC).
            try:  # noqa: SIM105  # no objects for each connection
                self.socket.close()
            except OSError:
                pass
        protocol = self.protocol
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(reason)
