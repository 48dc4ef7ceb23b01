"""
One listener of datagrams: a protocol at an endpoint, and the guard before it.

Unlike those of `echod.server.stream_listener.StreamListener` its clients have no connections:
nobody is admitted, drained or owed anything.  At the end what the kernel holds is answered, then
the port closes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from echod.config.endpoints import UDPEndpoint, asBound
from echod.connection.rows import Ended
from echod.connection.sweep import Sweep
from echod.insight.refusals import Refusals
from echod.insight.shelf import Shelf
from echod.interfaces import IDatagramProtocolMaker, IDescriptorReactor, ServerContext
from echod.measurements import DatagramMeasurements
from echod.server.connection_log import RefusalLog
from echod.server.datagram_guard import REFLECTORS, DatagramGuard
from echod.server.listener import Listener, ListenerPlan
from echod.server.measuring import measureDatagrams
from echod.transports.adopted import adopting
from echod.transports.layers import ProxyLayer
from echod.transports.udp import UDPPort
from echod.wire.networks import Networks

__all__ = ["DatagramListener"]


class DatagramListener(Listener):
    """
    Serves one protocol for datagrams at one endpoint.

    :param plan: what to serve, where, within which limits.
    :param reactor: a Twisted reactor.
    :param sweep: tells when a second has passed; shared by all listeners.
    :param ownPorts: the ports of all listeners of datagrams, and how many have each; this one
        adds its own.
    :param context: what the protocol may know of the server.
    :param monotonic: the clock that rates are measured with.
    :raises ConfigurationError: the protocol's maker raised.
    """

    _port: UDPPort
    _endpoint: UDPEndpoint

    def __init__(
        self,
        plan: ListenerPlan,
        reactor: IDescriptorReactor,
        sweep: Sweep,
        ownPorts: Counter[int],
        context: ServerContext,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        assert isinstance(plan.endpoint, UDPEndpoint)
        super().__init__(plan)
        self._sweep = sweep
        self._ownPorts = ownPorts
        limits = plan.limits
        reflectors = REFLECTORS if limits.reflectorPorts is None else limits.reflectorPorts
        networks = Networks(limits.allow, limits.deny)
        perSecond = limits.datagramsPerSecond
        self._guard = DatagramGuard(perSecond, reflectors, ownPorts, networks, limits.sourcePrefix)
        protocol = plan.make(cast("IDatagramProtocolMaker", plan.maker).makeDatagram, context)
        # Of somebody else's making, too.
        plan.trying(lambda: setattr(protocol, "noisy", False))
        makePort = adopting(UDPPort, plan.descriptor)
        # Each datagram has a header of its own: the port reads it, and nothing is installed.
        proxy = plan.layer(ProxyLayer)
        trusted = None if proxy is None else proxy.trusted
        # The port asks the protocol what it wants.
        self._port = plan.trying(
            lambda: makePort(plan.endpoint, protocol, self._guard, monotonic, reactor, trusted)
        )
        self._port.ticks = sweep

    def _serve(self) -> None:
        """The port listens: what depends on its address."""
        here = self._port.getHost()
        self._endpoint = asBound(self._endpoint, here.host, here.port)
        self._ownPorts[here.port] += 1
        self._refusals = RefusalLog(self.describe(), lambda: self._port.refused, self._port.refused)
        self._sweep.addQuietly(self._refusals)

    def _unserve(self) -> None:
        self._sweep.discard(self._refusals)
        self._refusals.tell()
        port = self._endpoint.port
        self._ownPorts[port] -= 1
        if not self._ownPorts[port]:
            del self._ownPorts[port]

    def observe(self, shelf: Shelf[Ended] | None) -> None:
        """See `Listener.observe`."""
        self._port.refused.keep(shelf is not None)

    @property
    def refusals(self) -> Refusals:
        """See `Listener.refusals`."""
        return self._port.refused

    def stopService(self) -> None:
        """Answer what has come, then close."""
        super().stopService()
        self.retire()

    def takeOver(self, other: Listener) -> None:
        """See `Listener.takeOver`: with what is left of its rates, too."""
        assert isinstance(other, DatagramListener)
        self._guard.takeOver(other._guard)
        super().takeOver(other)

    def measured(self, name: str) -> DatagramMeasurements:
        """See `Listener.measured`."""
        return measureDatagrams(name, self._plan.maker.name, self._port)

    def counters(self) -> dict[str, Any]:
        """See `Listener.counters`."""
        port = self._port
        return {
            "listener": self.describe(),
            "datagrams_in": port.received,
            "datagrams_out": port.answered,
            "bytes_in": port.bytesIn,
            "bytes_out": port.bytesOut,
            "refused": dict(port.refused),
            "errors": dict(port.errors),
        }
