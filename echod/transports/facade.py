"""
The real reactor, with echod's descriptors and transports in place of its own.

`Facade` passes for the reactor that it wraps: timers, threads and signals are the real one's.
Descriptors go to a `Poller` where there is epoll, and what listens or connects through it
(``listenTCP``, ``listenUNIX``, ``adoptStreamPort``, ``connectTCP``, ``connectUNIX``) gets echod's
transports; so an endpoint of any kind that is given a facade goes the fast way, under whatever
reactor the process runs.  A private part of Twisted known here: ``Port._fromListeningDescriptor``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.interfaces import IDelayedCall, IProtocolFactory, IReactorFDSet, IReactorTime
from twisted.internet.protocol import ClientFactory
from zope.interface import directlyProvides, implementer, providedBy

from echod.config.endpoints import UNIXEndpoint
from echod.interfaces import IDescriptorReactor
from echod.tls.record_pump import TLSSide
from echod.transports.adopted import AdoptedUNIXPort, examine
from echod.transports.layers.secured_client import TLSConnector
from echod.transports.loop.nested_epoll import available
from echod.transports.loop.poller import Poller
from echod.transports.socket_stream import require
from echod.transports.tcp import Connector, Port
from echod.transports.unix import UNIXConnector, UNIXPort

__all__ = ["Facade", "Securing"]

require(Port, "_fromListeningDescriptor")


@implementer(IDescriptorReactor)
class Facade:
    """
    Passes for the reactor that it wraps, and serves descriptors better.

    :param reactor: the real one, which watches descriptors too (``IReactorFDSet``).
    :param slow: see `Poller`.
    """

    # The real one's.
    callLater: Callable[..., IDelayedCall]
    getDelayedCalls: Callable[[], Sequence[IDelayedCall]]
    seconds: Callable[[], float]

    def __init__(
        self,
        reactor: IReactorTime,
        slow: Callable[[object, float], None] | None = None,
    ) -> None:
        self._reactor = reactor
        inner = cast("IReactorFDSet", reactor)
        descriptors: IReactorFDSet = Poller(inner, slow) if available() else inner
        self.addReader = descriptors.addReader
        self.addWriter = descriptors.addWriter
        self.removeReader = descriptors.removeReader
        self.removeWriter = descriptors.removeWriter
        self.removeAll = descriptors.removeAll
        self.getReaders = descriptors.getReaders
        self.getWriters = descriptors.getWriters
        directlyProvides(self, IReactorFDSet, *providedBy(reactor))

    # Any: whatever the reactor has.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> Port:
        """See ``IReactorTCP.listenTCP``."""
        listening = Port(port, factory, backlog, interface, reactor=self)
        listening.startListening()
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> Connector:
        """See ``IReactorTCP.connectTCP``."""
        connector = Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def connectUNIX(
        self,
        address: str | bytes,
        factory: ClientFactory,
        timeout: float = 30,
        checkPID: int | bool = 0,
    ) -> UNIXConnector:
        """See ``IReactorUNIX.connectUNIX``."""
        connector = UNIXConnector(address, factory, timeout, self, checkPID)
        connector.connect()
        return connector

    def listenUNIX(
        self,
        address: str | bytes,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int | bool = 0,
    ) -> UNIXPort:
        """See ``IReactorUNIX.listenUNIX``."""
        listening = UNIXPort(os.fsencode(address), factory, backlog, mode, self, wantPID)
        listening.startListening()
        return listening

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> Port | AdoptedUNIXPort:
        """See ``IReactorSocket.adoptStreamPort``."""
        listening: Port | AdoptedUNIXPort
        if addressFamily == socket.AF_UNIX:
            # Twisted's own would change mode and backlog, and remove the file.
            endpoint = examine(fileDescriptor)
            assert isinstance(endpoint, UNIXEndpoint)
            listening = AdoptedUNIXPort(os.dup(fileDescriptor), endpoint, factory, 0, self)
        else:
            listening = Port._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        listening.startListening()
        return listening


class Securing:
    """
    A facade whose outgoing TCP connections do TLS.

    :param facade: whose they are.
    :param security: the client's side of TLS (`echod.tls.context.ClientTLS.to`).
    """

    def __init__(self, facade: Facade, security: TLSSide) -> None:
        self._facade = facade
        self._security = security
        directlyProvides(self, *providedBy(facade))

    # Any: whatever the reactor has.
    def __getattr__(self, name: str) -> Any:
        return getattr(self._facade, name)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> TLSConnector:
        """See ``IReactorTCP.connectTCP``."""
        connector = TLSConnector(host, port, factory, timeout, bindAddress, self._facade)
        connector.security = self._security
        connector.connect()
        return connector
