"""
UDP for listeners: a port that no datagram can stop.

Whole datagrams, a bounded number of them a turn, answers from the address that was asked
(``IP_PKTINFO``, ip(7); ``IPV6_PKTINFO``, RFC 3542 section 6), errors counted and never raised.
Twisted's own port cuts datagrams at 8192 bytes, reads empty ones without end, logs a traceback for
each error of a send and is dead after an error of a receive.  A private part of it known
here: ``Port._realPortNumber``.

Behind a proxy that speaks the PROXY protocol each datagram begins with a header of its own
(`echod.wire.proxy_header`).  Answers go to the proxy and have none: it knows whose they are by the
port that it asked from, and dnsdist, for one, takes no answer with a header.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import base, udp
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from echod.config.endpoints import ANY, UDPEndpoint
from echod.errors import MalformedHeader, whatFailed
from echod.insight.fault_log import tellFault
from echod.insight.refusals import Refusals
from echod.interfaces import IDescriptorReactor
from echod.transports.binding import addressOf, closedOnError, makeSocket
from echod.transports.datagram_facts import (
    ALL,
    NOTHING,
    Ancillary,
    DatagramFacts,
    parseFacts,
    spaceFor,
)
from echod.transports.endpoint_port import EndpointPort
from echod.transports.resting import isShutDown
from echod.transports.socket_stream import require
from echod.wire.addresses import FIRST_MULTICAST, parseAddress
from echod.wire.networks import Networks
from echod.wire.proxy_binary import LONGEST
from echod.wire.proxy_header import parseDatagram

__all__ = ["DATAGRAMS", "LARGEST", "Admission", "UDPPort"]

_log = Logger()
# A port has an attribute of the module's name.
_Socket = socket.socket

#: Datagrams received in one turn at most: an empty one costs as much as any.
DATAGRAMS = 64
#: Bytes of the receive buffer that an empty datagram takes at least; Linux counts some more.
LEAST_SPACE = 512
#: Bytes of the largest datagram: 65 535 less the headers of IPv4 and UDP; over IPv6 20 more.
LARGEST = 65_527

# Linux's, which the standard library has not: ip(7).
_IP_PKTINFO = 8

#: The first bytes of IPv6 addresses that need their interface (fe80::/10, RFC 4291 section 2.5.6;
#: of the second byte these bits), and of multicast ones (ff00::/8, section 2.7).
_LINK_LOCAL, _LINK_LOCAL_BITS = (0xFE, 0x80), 0xC0
_MULTICAST6 = 0xFF
_UNKNOWN = bytes(4)

_IN4 = struct.Struct("=I4s4s")  # struct in_pktinfo: interface, our address, the header's
_IN6 = struct.Struct("=16sI")  # struct in6_pktinfo: our address, interface

require(udp.Port, "_realPortNumber")


class Admission(Protocol):
    """Who may be answered: see `echod.server.datagram_guard.DatagramGuard`."""

    def refusal(self, host: str, port: int, now: float, client: str | None = None) -> str | None:
        """
        Why a datagram from there is not answered, as a counter's key, or ``None``.

        :param client: for whom it was sent, if its sender is a proxy that told.
        """


class RestingClock(Protocol):
    """
    A clock that stands while nobody comes: see `echod.connection.sweep.Sweep`.

    :ivar quiet: 0 while it runs for somebody; then `wake` changes nothing.
    """

    quiet: int

    def wake(self) -> None:
        """Somebody has come, or a socket is lost: go on, and look at the time anew."""


class UDPPort(EndpointPort, udp.Port):
    """
    A datagram socket at a `UDPEndpoint`.

    The protocol's ``transport.write`` answers the datagram that it is being given, and no other:
    to its sender, with no more bytes than it had in all.  What a proxy put before it does not
    count; the address that the protocol is given is the proxy's client's.

    The protocol's class may say what it wants to be told of each datagram: an attribute ``wants``,
    with words of `ALL`.  Then `datagramFacts` tells it of the one at hand.

    :raises ValueError: it wants something else.
    :param admission: asked before the protocol sees a datagram.
    :param monotonic: the clock that it is told.
    :param proxy: the networks of the proxies, of which there must be one; their datagrams have a
        PROXY header, and nobody else's are answered.  ``None`` where there are no headers.
    :ivar received: datagrams that came, refused ones too; ``bytesIn`` what was in them.
    :ivar answered: datagrams that were sent; ``bytesOut`` what was in them.
    :ivar refused: those not answered, by reason.
    :ivar errors: errors of the socket, by name.
    """

    _holders = "ss -lnup"

    _endpoint: UDPEndpoint
    reactor: IDescriptorReactor
    # Twisted's.
    socket: _Socket
    protocol: DatagramProtocol

    #: Whether the last turn did not empty the queue: for `Poller`, which lets others go first.
    readsMuch = False

    #: A clock that rests while nobody comes, if there is one.
    ticks: RestingClock | None = None

    def __init__(
        self,
        endpoint: UDPEndpoint,
        protocol: DatagramProtocol,
        admission: Admission,
        monotonic: Callable[[], float],
        reactor: IDescriptorReactor,
        proxy: Networks | None = None,
    ) -> None:
        # An empty one would trust everybody.
        assert proxy is None or proxy
        interface = "" if endpoint.host == ANY else endpoint.host
        super().__init__(endpoint.port, protocol, interface, LARGEST + 1, reactor)
        self._endpoint = endpoint
        self._admission = admission
        self._monotonic = monotonic
        self._proxy = proxy
        self._buffer = bytearray(LARGEST + 1)
        self._wants = _wishesOf(protocol)
        self._ancillarySize = (
            socket.CMSG_SPACE(_IN4.size) + socket.CMSG_SPACE(_IN6.size) + spaceFor(self._wants)
        )
        # The datagram at hand, which alone can be answered: who sent it and for whom, where its
        # payload begins, how many bytes may go back, and the address to send them from.
        self._sender: tuple[Any, ...] | None = None
        self._client: tuple[str, int] = ("", 0)
        self._begin = 0
        self._allowance = 0
        self._from: list[Ancillary] = []
        # What the kernel has said of the last one.
        self._said: list[Ancillary] = []
        self.received = 0
        self.bytesIn = 0
        self.answered = 0
        self.bytesOut = 0
        self.refused = Refusals()
        self.errors: Counter[str] = Counter()

    def _startProtocol(self) -> None:
        self.protocol.makeConnection(self)

    def _hold(self, skt: _Socket) -> None:
        super()._hold(skt)
        self._realPortNumber = skt.getsockname()[1]
        # Of all addresses it is the kernel's choice.
        self.addressFamily = skt.family

    def _open(self) -> _Socket:
        skt = makeSocket(self._endpoint.host, socket.SOCK_DGRAM)
        with closedOnError(skt):
            self._prepare(skt)
            skt.bind(addressOf(skt, self._endpoint.host, self._endpoint.port))
        return skt

    def _prepare(self, skt: _Socket) -> None:
        """Have the kernel tell where a datagram was sent to: no answer could be right without."""
        if skt.family == socket.AF_INET6:
            skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        # Of IPv4 datagrams at an IPv6 socket, too.
        skt.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        for word, wish in ALL.items():
            options = wish.any + (wish.inet6 if skt.family == socket.AF_INET6 else ())
            for level, number in options:
                # Said either way: it may come with it, and what nobody reads takes the place of
                # what is needed.
                skt.setsockopt(level, number, word in self._wants)

    def _reopen(self, skt: _Socket) -> None:
        self._prepare(skt)

    def doRead(self) -> Exception | None:
        """
        Receive a batch of datagrams; whatever happens, the port goes on.

        :returns: why it cannot (`isShutDown`).
        """
        if self.ticks is not None and self.ticks.quiet:
            self.ticks.wake()
        now = self._monotonic()
        for count in range(DATAGRAMS):
            try:
                if not self._receive(now):
                    self.readsMuch = False
                    # Called for nothing.
                    return CONNECTION_LOST if not count and isShutDown(self.fileno()) else None
            except OSError as error:
                # Such as ENOMEM, or what ICMP told of an answer: the next may be fine.
                self._count(error)
        self.readsMuch = True
        return None

    def _receive(self, now: float) -> bool:
        """One datagram; ``False`` if there is none."""
        try:
            length, ancillary, _, sender = self.socket.recvmsg_into(
                [self._buffer], self._ancillarySize
            )
        except BlockingIOError:
            return False
        self.received += 1
        self.bytesIn += length
        self._said = ancillary
        self._from, unicast = _whereTo(ancillary)
        self._client, self._begin = sender[:2], 0
        why = self._refusal(length, now) if unicast else "not_unicast"
        if why is not None:
            self.refused.add(why, self._client)
            return True
        self._sender, self._allowance = sender, length - self._begin
        try:
            payload = bytes(memoryview(self._buffer)[self._begin : length])
            self.protocol.datagramReceived(payload, self._client)
        except BaseException:
            # SystemExit too, as Twisted does: it must not end the port.
            self.errors["protocol"] += 1
            if self.errors["protocol"] == 1:
                tellFault(Failure(), f"{self._endpoint} raised; told once, then counted")
        finally:
            self._sender = None
        return True

    def _refusal(self, length: int, now: float) -> str | None:
        """
        Why the datagram in the buffer, from ``_client``, is not answered.

        If it begins with a header, ``_begin`` is moved behind that, and ``_client`` is whom it
        tells of.
        """
        host, port = self._client
        if self._proxy is None:
            return self._admission.refusal(host, port, now)
        if not self._proxy.admit(host):
            return "untrusted"
        try:
            start = bytes(memoryview(self._buffer)[: min(length, LONGEST)])
            header, self._begin = parseDatagram(start)
        except MalformedHeader:
            return "header"
        if header.source is None:
            return self._admission.refusal(host, port, now)
        self._client = str(parseAddress(header.source[0])), header.source[1]
        return self._admission.refusal(host, port, now, self._client[0])

    def write(self, datagram: bytes, addr: tuple[Any, ...] | None = None) -> None:
        """Answer the datagram at hand; anything else is counted and not sent."""
        if self._sender is None or (addr is not None and tuple(addr[:2]) != self._client):
            self.refused.add("unasked", addr)
            return
        if len(datagram) > self._allowance:
            self.refused.add("amplified", self._client)
            return
        self._allowance -= len(datagram)
        try:
            self.socket.sendmsg([datagram], self._from, 0, self._sender)
        except OSError as error:
            self._count(error)
        else:
            self.answered += 1
            self.bytesOut += len(datagram)

    def datagramFacts(self) -> DatagramFacts:
        """
        What the kernel says of the datagram that the protocol is being given.

        That is what the protocol ``wants``; all else is ``None``, and so is everything at another
        time.  Behind a proxy it is about the proxy's datagram.
        """
        return NOTHING if self._sender is None or not self._wants else parseFacts(self._said)

    def serveQueue(self) -> None:
        """Answer what the kernel holds by now, bounded by what it can hold."""
        size = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        for _ in range(size // LEAST_SPACE // DATAGRAMS + 1):
            self.doRead()
            if not self.readsMuch:
                return

    def _inherit(self, other: UDPPort) -> None:
        self.received, self.bytesIn = other.received, other.bytesIn
        self.answered, self.bytesOut = other.answered, other.bytesOut
        self.refused, self.errors = other.refused, other.errors

    def _stopProtocol(self) -> None:
        """Stop the protocol, if it has started; what it raises is told."""
        try:
            if self.protocol.numPorts:
                self.protocol.doStop()
        except BaseException as error:
            # SystemExit too: see echod.insight.fault_log.
            _log.error(
                "{port} could not stop its protocol: {why}",
                port=self._endpoint,
                why=whatFailed(error),
            )
        self.protocol.transport = None

    def close(self) -> None:
        """Stop listening now; ``stopListening`` takes a turn to it."""
        self.stopReading()
        self.connectionLost()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """As Twisted's, without its line in the log: the listener reports its own end."""
        self.stopResting()
        if self.ticks is not None:
            # Its socket may be lost: whoever looks for that once a second shall look.
            self.ticks.wake()
        base.BasePort.connectionLost(self, reason)
        self._realPortNumber = None
        self.connected = False
        self._stopProtocol()
        self.socket.close()
        del self.socket
        del self.fileno

    def _count(self, error: OSError) -> None:
        self.errors[errno.errorcode.get(error.errno or 0, str(error))] += 1


def _wishesOf(protocol: DatagramProtocol) -> frozenset[str]:
    wants = frozenset(getattr(protocol, "wants", ()))
    unknown = sorted(map(str, wants - ALL.keys()))
    if unknown:
        raise ValueError(f"it wants {', '.join(unknown)}; there is {', '.join(ALL)}")
    return wants


def _whereTo(ancillary: list[Ancillary]) -> tuple[list[Ancillary], bool]:
    """
    Where a datagram was sent to.

    :returns: what sends the answer from there, and whether it is one host's address alone.
    """
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            _, ours, header = _IN4.unpack_from(data)
            if ours == _UNKNOWN:
                # It was in an adopted socket before we asked.  That it went to a network's
                # broadcast address cannot be seen here; the kernel sends nothing from one.
                ours = header if header[0] < FIRST_MULTICAST else _UNKNOWN
            # Of a broadcast or multicast one, ours is that of the interface.
            return [(level, kind, _IN4.pack(0, ours, bytes(4)))], ours == header
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            header, interface = _IN6.unpack_from(data)
            linkLocal = (header[0], header[1] & _LINK_LOCAL_BITS) == _LINK_LOCAL
            back = _IN6.pack(header, interface if linkLocal else 0)
            return [(level, kind, back)], header[0] != _MULTICAST6
    return [], True
