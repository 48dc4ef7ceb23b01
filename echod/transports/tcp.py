"""
TCP: a port that fails at once and in words, and both kinds of connections.

A *listening* socket (`TCPPort`) only ever yields *connection* sockets (`Server`); options that
Linux hands down from the first to the second (no delay, keepalive, urgent bytes in line) are set
once, on the listening one.  Private parts of Twisted known here: ``Server._addressType``,
``Port._buildAddr``, ``Port._addressType``, ``Port._realPortNumber``,
``Port._logConnectionLostMsg``, ``Connector._makeTransport`` and ``Client._connectDone``.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from errno import ECONNREFUSED, ECONNRESET

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionLost, getConnectError
from twisted.internet.interfaces import IProtocolFactory

from echod.config.endpoints import TCPEndpoint
from echod.interfaces import IDescriptorReactor
from echod.transports.accepted import Accepted
from echod.transports.binding import (
    INET6_FIELDS,
    addressOf,
    closedOnError,
    makeSocket,
    setOptions,
    tellMissing,
)
from echod.transports.kernel_facts import TCP_SAVE_SYN
from echod.transports.ports import Accepting, Listening
from echod.transports.self_connect import isItself, resetWhenClosed
from echod.transports.socket_stream import TRY_AGAIN, SocketStream, require

__all__ = ["Client", "Connector", "Port", "Server", "TCPPort"]

#: How often TCP asks a silent peer, and how many unanswered questions end the connection:
#: a peer that vanished is noticed ``keepalive + 6 * 10`` seconds after its last byte.
KEEPALIVE_INTERVAL = 10
KEEPALIVE_PROBES = 6

require(tcp.Server, "_addressType")
require(tcp.Client, "_connectDone")
require(tcp.Connector, "_makeTransport")
require(tcp.Port, "_addressType", "_realPortNumber", "_logConnectionLostMsg")


class _Sending(SocketStream):
    """What both kinds of connections do otherwise than Twisted's."""

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        """As Twisted's; but no error that passes is the end."""
        try:
            return self.socket.send(memoryview(data)[: self.SEND_LIMIT])
        except OSError as error:
            return 0 if error.errno in TRY_AGAIN else self._lostBy(error)


class Server(_Sending, Accepted):
    """One accepted TCP connection."""

    @property
    def _addressType(self) -> type[IPv4Address] | type[IPv6Address]:  # type: ignore[override]  # an attribute there
        return IPv6Address if len(self.client) == INET6_FIELDS else IPv4Address


class Client(_Sending, tcp.Client):
    """One TCP connection that we have made."""

    def _connectDone(self) -> None:
        """Nobody is there if we are; or no more, if it has been reset since."""
        try:
            why = ECONNREFUSED if isItself(self.socket) else 0
        except OSError as error:
            why = error.errno or ECONNRESET
        if why:
            # With RST alone, so that the port is free at once for whoever is to listen there.
            resetWhenClosed(self.socket)
            self._shouldShutdown = False
            self.failIfNotConnected(getConnectError((why, os.strerror(why))))
        else:
            super()._connectDone()


class Connector(tcp.Connector):
    """Twisted's connector, with echod's transport."""

    def _makeTransport(self) -> Client:
        return Client(self.host, self.port, self.bindAddress, self, self.reactor)


class Port(Accepting, tcp.Port):
    """Twisted's port, with echod's accepting and echod's transport."""

    transport = Server  # type: ignore[assignment]  # see Accepting

    def _buildAddr(
        self, address: tuple[str, int] | tuple[str, int, int, int]
    ) -> IPv4Address | IPv6Address:
        """As Twisted's, whose classes check for each connection that it is one of TCP."""
        if len(address) == INET6_FIELDS:
            inet6 = IPv6Address.__new__(IPv6Address)
            inet6.type = "TCP"
            inet6.host, inet6.port, inet6.flowInfo, inet6.scopeID = address
            return inet6
        inet4 = IPv4Address.__new__(IPv4Address)
        inet4.type = "TCP"
        inet4.host, inet4.port = address
        return inet4


class TCPPort(Listening, Port):
    """
    A listening socket at a `TCPEndpoint`.

    :param keepalive: idle seconds before TCP asks whether the peer lives; 0 never asks.
    """

    _endpoint: TCPEndpoint
    _holders = "ss -ltnp"
    # Whether the kernel is to keep each SYN; written by saveSYN.
    _savesSYN = False

    def __init__(
        self,
        endpoint: TCPEndpoint,
        factory: IProtocolFactory,
        backlog: int,
        keepalive: int,
        reactor: IDescriptorReactor,
    ) -> None:
        super().__init__(endpoint.port, factory, backlog, endpoint.host, reactor)
        self._endpoint = endpoint
        self._options = [
            (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
            # An urgent byte is a byte like others then (RFC 6093, section 4).  Apart, it would not
            # come back, and the kernel would count what waits to be read only as far as to it.
            (socket.SOL_SOCKET, "SO_OOBINLINE", 1),
            # Said either way: an adopted socket may come with it.
            (socket.SOL_SOCKET, "SO_KEEPALIVE", bool(keepalive)),
        ]
        if keepalive:
            self._options += [
                (socket.IPPROTO_TCP, "TCP_KEEPIDLE", keepalive),
                (socket.IPPROTO_TCP, "TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
                (socket.IPPROTO_TCP, "TCP_KEEPCNT", KEEPALIVE_PROBES),
            ]

    def _hold(self, skt: socket.socket) -> None:
        super()._hold(skt)
        self._realPortNumber = skt.getsockname()[1]
        # Of all addresses it is the kernel's choice.
        self.addressFamily = skt.family
        inet6 = self.addressFamily == socket.AF_INET6
        self._addressType = IPv6Address if inet6 else IPv4Address

    def _open(self) -> socket.socket:
        skt = makeSocket(self._endpoint.host, socket.SOCK_STREAM)
        with closedOnError(skt):
            skt.bind(addressOf(skt, self._endpoint.host, self._endpoint.port))
            self._prepare(skt)
            skt.listen(self.backlog)
        return skt

    def _reopen(self, skt: socket.socket) -> None:
        self._prepare(skt)
        skt.listen(self.backlog)

    def _prepare(self, skt: socket.socket) -> None:
        tellMissing(self._endpoint, self._setOptions(skt))
        self._setSaving(skt)

    def saveSYN(self, wanted: bool) -> None:
        """
        See `Listening.saveSYN`: about 100 bytes of kernel memory for each connection.

        A socket of MPTCP does without, and a connection that is made of a SYN cookie.
        """
        self._savesSYN = wanted
        if self.connected:
            self._setSaving(self.socket)

    def _setSaving(self, skt: socket.socket | None) -> None:
        # Said either way: the socket may come from another, who wanted it.
        with suppress(OSError):
            assert skt is not None
            skt.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, self._savesSYN)

    def _setOptions(self, skt: socket.socket) -> list[str]:
        return setOptions(skt, self._options)

    def _logConnectionLostMsg(self) -> None:
        """Say nothing: the listener reports its own end."""
