"""
TCP for listeners: a port that fails at once and in words, a transport that can be asked.

A *listening* socket (`Port`) only ever yields *connection* sockets (`Server`); options that
Linux hands down from the first to the second (no delay, keepalive) are set once, on the
listening one.  This room knows these private parts of Twisted 26.10, each with a test:
``Connection.dataBuffer``, ``offset`` and ``_tempDataLen`` (what waits in user space),
``_writeDisconnected`` (FIN sent), ``Port._realPortNumber`` and ``_resolveIPv6``.
"""

from __future__ import annotations

import select
import socket
import struct
from errno import EADDRINUSE
from fcntl import ioctl
from termios import FIONREAD, TIOCOUTQ
from typing import Any

from twisted.internet import tcp
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.endpoints import TCPEndpoint
from echod.errors import ListenError
from echod.interfaces import IConnectionTransport

__all__ = ["ACCEPTS", "Port", "Server"]

#: Connections accepted in one turn at most, so that a flood of them delays nobody.
ACCEPTS = 32

#: How often TCP asks a silent peer, and how many unanswered questions end the connection:
#: a peer that vanished is noticed ``keepalive + 6 * 10`` seconds after its last byte.
KEEPALIVE_INTERVAL = 10
KEEPALIVE_PROBES = 6


@implementer(IConnectionTransport)
class Server(tcp.Server):
    """One accepted connection."""

    def unsent(self) -> int:
        """See `IConnectionTransport.unsent` (``TIOCOUTQ``, tcp(7), counts a sent FIN as one)."""
        waiting = len(self.dataBuffer) - self.offset + self._tempDataLen
        queued = self._queued(TIOCOUTQ)
        if queued and self._writeDisconnected:
            queued -= 1
        return waiting + queued

    def unread(self) -> int:
        """See `IConnectionTransport.unread`."""
        return self._queued(FIONREAD)

    def failed(self) -> bool:
        """See `IConnectionTransport.failed`."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def _queued(self, request: int) -> int:
        (count,) = struct.unpack("i", ioctl(self.socket.fileno(), request, b"\0\0\0\0"))
        return int(count)


class Port(tcp.Port):
    """
    A listening socket at a `TCPEndpoint`.

    :param keepalive: idle seconds before TCP asks whether the peer lives; 0 never asks.
    """

    transport = Server

    def __init__(
        self, endpoint: TCPEndpoint, factory: Any, backlog: int, keepalive: int, reactor: Any
    ) -> None:
        super().__init__(endpoint.port, factory, backlog, endpoint.host, reactor)
        self._endpoint = endpoint
        self._keepalive = keepalive

    def startListening(self) -> None:
        """
        Bind and listen, now.

        :raises ListenError: in one line that names the address.  Twisted's own method lets
            ``listen()`` raise a bare ``OSError`` and leaves the socket open.
        """
        skt = self.createInternetSocket()
        try:
            address: tuple[Any, ...] = (self.interface, self.port)
            if self.addressFamily == socket.AF_INET6:
                address = tcp._resolveIPv6(self.interface, self.port)
            skt.bind(address)
            self._setOptions(skt)
            skt.listen(self.backlog)
        except OSError as error:
            skt.close()
            hint = "; who holds it: ss -ltnp" if error.errno == EADDRINUSE else ""
            reason = error.strerror or str(error)
            raise ListenError(f"cannot listen on {self._endpoint}: {reason}{hint}") from error
        self._realPortNumber = skt.getsockname()[1]
        self.factory.doStart()  # type: ignore[union-attr]  # the constructor set it
        self.connected = True
        self.socket = skt
        self.fileno = skt.fileno  # type: ignore[method-assign]  # as Twisted does
        self.numberAccepts = ACCEPTS
        self.startReading()

    def _setOptions(self, skt: socket.socket) -> None:
        skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._keepalive:
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, self._keepalive)
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)

    def _logConnectionLostMsg(self) -> None:
        """Say nothing: the listener reports its own end."""

    def doRead(self) -> None:
        """Accept a batch; Twisted adapts its size, here within `ACCEPTS`."""
        self.numberAccepts = min(self.numberAccepts, ACCEPTS)
        super().doRead()

    def close(self) -> None:
        """Stop listening now; ``stopListening`` takes a turn to it."""
        self.stopReading()
        self.connectionLost(Failure(CONNECTION_DONE))

    def serveQueue(self) -> None:
        """
        Accept every connection that the kernel has completed already.

        Closing the socket would reset them.  Bounded by the backlog, so that clients which
        arrive all the while cannot hold this up.
        """
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        for _ in range(self.backlog):
            if not poll.poll(0):
                return
            self.numberAccepts = 1
            self.doRead()
