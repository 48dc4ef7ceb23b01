"""
What every listening port of echod does, whatever its address family.

`Accepting` is mixed into one of Twisted's ports.  It accepts a bounded batch a turn, rests while
the system has nothing left for one more (accept(2)), and can be closed at once, with its queue
served.  Private parts known here: Twisted's ``Port._buildAddr``, and the standard library's
``socket._accept``, which is its ``accept`` but for three conversions to enumerations that make a
short connection cost 8 % more.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable, Mapping
from errno import ECONNABORTED, EINTR, EPERM, EPROTO
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from twisted.internet import tcp
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure

from echod.insight.fault_log import tellFault
from echod.transports.accepted import Accepted
from echod.transports.binding import INET6_FIELDS, withZone
from echod.transports.endpoint_port import EndpointPort
from echod.transports.resting import Resting, isShutDown
from echod.transports.socket_stream import SocketStream, require
from echod.transports.telling import silent, telling
from echod.wire.addresses import SocketAddress

if TYPE_CHECKING:
    from echod.transports.layers.layer import Layer

__all__ = ["ACCEPTS", "Accepting", "Listening", "layered"]

#: Connections accepted in one turn at most, so that a flood of them delays nobody.
ACCEPTS = 32
#: What ``accept`` says of one client that is gone, or not let in: the next may be fine.
_ONE_CLIENT = frozenset({ECONNABORTED, EINTR, EPERM, EPROTO})

require(tcp.Port, "_buildAddr")
require(socket.socket, "_accept")


def layered(layer: type[SocketStream], transport: type[Accepted]) -> type[Accepted]:
    """A class of ``transport`` with a ``layer`` between it and the protocol, if it has it not."""
    if issubclass(transport, layer):
        return transport
    return type(f"{layer.__name__}{transport.__name__}", (layer, transport), {})


def _shareNames(*first: object) -> None:
    """
    Have objects share the names of their attributes with those of their class that come later.

    CPython (3.11 to 3.13) keeps the attributes of an object in an array if an early object of its
    class had all of these names; else in a dictionary of its own, some hundred bytes more.

    :param first: of their classes; ``lateNames`` has what is not set as they are made.
    """
    for one in first:
        for name in getattr(one, "lateNames", ()):
            setattr(one, name, getattr(one, name))


class Accepting(Resting, tcp.Port):
    """A listening socket."""

    # Twisted's.
    sessionno: int
    factory: IProtocolFactory  # type: ignore[assignment]  # a Factory alone, it says
    transport: type[Accepted]

    #: What is between a socket and its connection, by name; written by `installLayers`.
    layers: Mapping[str, Layer] = MappingProxyType({})

    # How often there was a turn to accept in; how often by the last `neglects`, if somebody
    # waited then.
    _turns = 0
    _turnsThen: int | None = None

    def installLayers(self, layers: Iterable[Layer]) -> None:
        """
        Put layers before whoever connects from now on.

        Again, with layers of the same kinds, to change their settings.

        :param layers: the outermost first, whose bytes come first on the wire.
        """
        found = list(layers)
        self.layers = {layer.name: layer for layer in found}
        for layer in reversed(found):
            self.transport = layered(layer.transport, self.transport)

    def tellEchoes(self, tells: bool) -> None:
        """Have whoever connects from now on `telling`, or silent, transports."""
        base = silent(self.transport)
        self.transport = telling(base) if tells else base

    def doRead(self) -> Exception | None:
        """
        Accept a batch of connections; returns why it can accept no more, ever (`isShutDown`).

        One that cannot be set up costs itself alone.  When the system has no descriptor or
        memory left the port rests for a moment: it would be told again at once, for ever.  So it
        does when one that was accepted cannot be watched (``ENOSPC`` and ``ENOMEM`` of
        epoll_ctl(2)): it is reset, and who comes later waits.
        """
        listening = self.socket
        self._turns += 1
        for count in range(ACCEPTS):
            try:
                number, address = listening._accept()  # type: ignore[union-attr]  # see above
            except BlockingIOError:
                # Called for nobody: by a client that has gone, or for ever.
                return CONNECTION_LOST if not count and isShutDown(self.fileno()) else None
            except OSError as error:
                if error.errno in _ONE_CLIENT:
                    continue
                if isShutDown(self.fileno()):
                    return CONNECTION_LOST
                self.rest(error)
                return None
            skt = socket.socket(self.addressFamily, socket.SOCK_STREAM, 0, number)
            try:
                self._accepted(skt, address)
            except BaseException:
                # SystemExit too, as Twisted does: it must not end the port.
                tellFault(Failure(), f"{self!r} could not set up a connection")
                skt.close()
            if self.resting:
                break
        return None

    def _accepted(self, skt: socket.socket, address: SocketAddress) -> None:
        if isinstance(address, tuple) and len(address) == INET6_FIELDS and address[3]:
            address = withZone(address)
        protocol = self.factory.buildProtocol(self._buildAddr(address))
        if protocol is None:
            skt.close()
            return
        number = self.sessionno
        self.sessionno = number + 1
        try:
            make: Callable[..., Accepted] = self.transport
            transport = make(skt, protocol, address, self, number, self.reactor)
            if not number:
                _shareNames(transport, protocol)
        except OSError as error:
            skt.close()
            self.rest(error)
            return
        try:
            protocol.makeConnection(transport)
            try:
                transport.begin()
            except OSError as error:
                transport.abortConnection()
                self.rest(error)
        except BaseException:
            tellFault(Failure(), f"{self!r} could not set up a connection")
            # Its descriptor is with the reactor by now.
            transport.abortConnection()

    def neglects(self) -> bool:
        """Whether who waited at the last call waits still, and nobody looked in between."""
        waits = bool(self.connected) and not self.resting and self._somebodyWaits()
        neglected = waits and self._turnsThen == self._turns
        self._turnsThen = self._turns if waits else None
        return neglected

    def _somebodyWaits(self) -> bool:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def connectionLost(self, reason: Failure) -> None:
        """See ``IReadDescriptor``."""
        self.stopResting()
        super().connectionLost(reason)

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
        # An adopted socket's backlog is not known.
        for _ in range((self.backlog or socket.SOMAXCONN) // ACCEPTS + 1):
            if self.resting or not self._somebodyWaits():
                return
            self.doRead()


class Listening(EndpointPort, Accepting):
    """A listening socket at an endpoint of echod's."""

    def saveSYN(self, wanted: bool) -> None:
        """
        Have the kernel keep the SYN of each connection until it is asked for, from now on; or not.

        It tells of none where there is no TCP.
        """

    def _startProtocol(self) -> None:
        self.factory.doStart()

    def _stopProtocol(self) -> None:
        self.factory.doStop()

    def _inherit(self, other: Self) -> None:
        self.sessionno = other.sessionno
