"""
One listener: a protocol at an endpoint, from binding to the last connection's end.

`StreamListener` owns its connections (`echod.connection.connection.Owner`), and its stopping is
the drain (docs/wire.md O1): the accept queue is served, the port closes, each connection answers
what it holds, sends FIN and lingers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure

from echod.config.endpoints import TCPEndpoint, UNIXEndpoint, asBound
from echod.connection.connection import Connection
from echod.connection.metering import Turns
from echod.connection.rows import Ended, peerOf
from echod.connection.states import Reason
from echod.connection.sweep import Sweep
from echod.insight.fault_log import tellFault
from echod.insight.refusals import Refusals
from echod.insight.shelf import Shelf
from echod.insight.timeline import Timeline
from echod.interfaces import IDescriptorReactor, IStreamProtocolMaker, ServerContext
from echod.kit.twisted_protocol import halfCloses
from echod.measurements import StreamMeasurements
from echod.server.admission import SourceLimit
from echod.server.connection_log import ConnectionLog, RefusalLog
from echod.server.counters import NEVER_OPEN, Totals
from echod.server.keeping import TIMELINE, Keeping
from echod.server.listener import Listener, ListenerPlan
from echod.server.live_connections import LiveConnections
from echod.server.measuring import measureStream
from echod.server.outermost_factory import Accepts, OutermostFactory
from echod.transports.adopted import adopting
from echod.transports.tcp import TCPPort
from echod.transports.unix import UNIXListeningPort

__all__ = ["StreamListener"]

_log = Logger()


class StreamListener(Listener, Accepts):
    """
    Serves one protocol for streams at one endpoint.

    :param plan: what to serve, where, within which limits.
    :param reactor: a Twisted reactor.
    :param sweep: keeps the deadlines; shared by all listeners.
    :param context: what the protocol may know of the server.
    :raises ConfigurationError: the protocol's maker raised.
    """

    def __init__(
        self,
        plan: ListenerPlan,
        reactor: IDescriptorReactor,
        sweep: Sweep,
        context: ServerContext,
    ) -> None:
        super().__init__(plan)
        self.sweep = sweep
        self.limits = plan.limits
        # Shared with whoever succeeds this one.
        self._live = LiveConnections(plan.limits.maxConnections)
        self._sources = SourceLimit(plan.limits)
        rate = plan.limits.listenerBytesPerSecond
        self.byteRate = Turns(rate) if rate else None
        # Whether connections get lines in the log, and whether reads do; written by setLogging.
        self._logs = (False, False)
        self._log: ConnectionLog | None = None
        factory = plan.make(cast("IStreamProtocolMaker", plan.maker).makeFactory, context)
        self._halfCloses = plan.trying(lambda: halfCloses(factory))
        # Its own, or nothing.
        self._tellDrain: Callable[[], object] = plan.trying(
            lambda: getattr(factory, "drainBegins", _nothing)
        )
        #: See `IStreamProtocolMaker`.
        self.lasts = plan.trying(lambda: bool(getattr(plan.maker, "lasts", False)))
        outermost = OutermostFactory(self, factory)
        backlog = plan.limits.backlog
        self._port: TCPPort | UNIXListeningPort
        if isinstance(plan.endpoint, UNIXEndpoint):
            makePort = adopting(UNIXListeningPort, plan.descriptor)
            self._port = makePort(plan.endpoint, outermost, backlog, reactor)
        else:
            assert isinstance(plan.endpoint, TCPEndpoint)
            keepalive = plan.limits.keepalive
            makePort = adopting(TCPPort, plan.descriptor)
            self._port = makePort(plan.endpoint, outermost, backlog, keepalive, reactor)
        self._savesSYN = plan.trying(lambda: bool(getattr(plan.maker, "savesSYN", False)))
        self._port.installLayers(plan.layers)
        # Who tells of clients, if that is not the kernel.
        self._teller = next((layer for layer in plan.layers if layer.tellsPeer), None)
        # Whether it matters who comes; whether it must be known of each that is there.
        self._choosy = self._teller is not None or self._sources.refuses
        self._notes = self._sources.counts
        self.timeline = plan.limits.timeline or 0
        self.place = (self.describe(), plan.maker.name)
        # Where its connections' stories go, if anybody can ask for them; written by observe.
        self._shelf: Shelf[Ended] | None = None
        self._keeping: Keeping | None = None

    # -- The service -----------------------------------------------------------------------

    def _serve(self) -> None:
        """The port listens: what depends on its address."""
        if isinstance(self._endpoint, TCPEndpoint):
            here = self._port.getHost()
            self._endpoint = asBound(self._endpoint, here.host, here.port)
        self.place = (self.describe(), self._plan.maker.name)
        self._keepFor(self._shelf)
        self._log = None
        self._beginLog()
        self._refusals = RefusalLog(self.describe(), self.totals.turnedAway, self.totals.refused)
        self.sweep.addQuietly(self._refusals)

    def _unserve(self) -> None:
        self.sweep.discard(self._refusals)
        self._refusals.tell()

    def stopService(self) -> Deferred[None]:
        """Drain; fires when the last connection is gone.  `cut` hastens it."""
        super().stopService()
        self.retire()
        return self._live.drain()

    @property
    def totals(self) -> Totals:
        """The counters, also of those that this one has succeeded."""
        return self._live.totals

    @property
    def refusals(self) -> Refusals:
        """See `Listener.refusals`."""
        return self.totals.refused

    @property
    def cutCount(self) -> int:
        """See `Listener.cutCount`."""
        return self.totals.cut

    def drainBegins(self) -> None:
        """See `Listener.drainBegins`: the protocol's factory is told."""
        try:
            self._tellDrain()
        except BaseException:
            # SystemExit too: see echod.insight.fault_log.
            tellFault(Failure(), f"{self.describe()} could not tell its protocol of the drain")

    def cut(self) -> None:
        """See `Listener.cut`: connections are aborted."""
        for connection in list(self._live):
            connection.attempt(connection.abort, connection.reason or Reason.DRAIN)

    def observe(self, shelf: Shelf[Ended] | None) -> None:
        """See `Listener.observe`: also of those that an earlier one here accepted."""
        for owner in self._owners():
            owner._keepFor(shelf)
        self.totals.refused.keep(shelf is not None)
        self.totals.observe(shelf is not None)

    def _owners(self) -> set[StreamListener]:
        """This one, and whoever else has accepted somebody that lives here."""
        owners = {connection.owner for connection in self._live}
        return {self, *(owner for owner in owners if isinstance(owner, StreamListener))}

    def _keepFor(self, shelf: Shelf[Ended] | None) -> None:
        maker, asked = self._plan.maker, self.limits.timeline
        unsaid = 0 if shelf is None else TIMELINE
        self.timeline = unsaid if asked is None else asked
        self._port.tellEchoes(self.timeline > 0)
        self._port.saveSYN(self.timeline > 0 or self._savesSYN)
        self._shelf = shelf
        self._keeping = None
        if shelf is not None:
            self._keeping = Keeping(
                shelf,
                self.timeline,
                self.sweep,
                layered=bool(self._plan.layers),
                apart=getattr(maker, "insight", False),
            )

    def setLogging(self, connections: bool, payload: bool) -> None:
        """See `Listener.setLogging`: also of those that an earlier one here accepted."""
        for owner in self._owners():
            owner._logs = (connections, payload)
            owner._beginLog()
        for connection in self._live if payload else ():
            connection.showReads()

    def _beginLog(self) -> None:
        connections, payload = self._logs
        self._notes = self._sources.counts or connections
        log = self._log or ConnectionLog(self.place[0])
        self._log = log if connections else None
        self.payload = log.payload if payload else None

    def connections(self) -> list[Connection]:
        """See `Listener.connections`."""
        return list(self._live)

    def renew(self, plan: ListenerPlan) -> None:
        """See `Listener.renew`."""
        super().renew(plan)
        self._port.installLayers(plan.layers)

    def takeOver(self, other: Listener) -> None:
        """See `Listener.takeOver`: with its counters and its places taken, too."""
        assert isinstance(other, StreamListener)
        self._live = other._live
        self._live.admission.maximum = self.limits.maxConnections
        self._sources.takeOver(other._sources)
        if self.limits.listenerBytesPerSecond == other.limits.listenerBytesPerSecond:
            self.byteRate = other.byteRate
        super().takeOver(other)

    @property
    def ownTraits(self) -> Sequence[str]:
        """See `Listener.ownTraits`: ``no half-close``, where the protocol has none."""
        return ["no half-close"] * (not self._halfCloses)

    @property
    def connectionCount(self) -> int:
        """See `Listener.connectionCount`."""
        return len(self._live)

    def neglects(self) -> bool:
        """See `Listener.neglects`; also if clients wait, and nobody accepts them."""
        return super().neglects() or self._port.neglects()

    def measured(self, name: str) -> StreamMeasurements:
        """See `Listener.measured`."""
        plan = self._plan
        return measureStream(name, plan.maker.name, self.totals, self._live, plan.expiries)

    def counters(self) -> dict[str, Any]:
        """See `Listener.counters`."""
        return {"listener": self.describe(), **self.totals.snapshot(self._live)}

    # -- The owner of connections ------------------------------------------------------------

    def admit(self, address: IAddress) -> bool:
        """Whether one more connection may come, from there; a refusal is counted."""
        sweep = self.sweep
        if sweep.quiet:
            # Asked here: mostly there is somebody, and this is no call for each.
            sweep.wake()
        # Mostly anybody may come: then it is not asked who it is.
        why = self._refusal(address) if self._choosy else None
        if why is None:
            if self._live.admission.admit(sweep.now):
                return True
            why = "full"
        self.totals.refused.add(why, address)
        return False

    def _refusal(self, address: IAddress) -> str | None:
        host = _hostOf(address)
        if host is None:
            return None
        if self._teller is None:
            return self._sources.refusal(host, self.sweep.now)
        return None if self._teller.trusts(host) else "untrusted"

    def beginTimeline(self) -> Timeline | None:
        """See `Owner.beginTimeline`."""
        return super().beginTimeline() if self._keeping is None else self._keeping.beginTimeline()

    def opened(self, connection: Connection) -> None:
        """See `Owner.opened`."""
        self._live.opened(connection)
        if self._notes and self._teller is None:
            self._count(connection)

    def identified(self, connection: Connection) -> bool:
        """See `Owner.identified`: a PROXY header has come; a refusal is counted."""
        peer = connection.transport.getPeer()
        host = _hostOf(peer)
        why = None if host is None else self._sources.refusal(host, self.sweep.now)
        if why is not None:
            self.totals.refused.add(why, peer)
            return False
        self._count(connection)
        return True

    def _count(self, connection: Connection) -> None:
        host = _hostOf(connection.transport.getPeer()) if self._sources.counts else None
        if host is not None:
            self._live.hosts[connection] = host
            self._sources.opened(host)
        if self._log is not None:
            self._log.opened(connection)

    def established(self, connection: Connection) -> None:
        """See `Owner.established`."""
        if self._log is not None:
            for layer in self._plan.layers:
                line = layer.line(connection.transport)
                if line is not None:
                    self._log.layered(connection, layer.name, line)

    def lingering(self, connection: Connection) -> None:
        """See `Owner.lingering`."""
        self._live.admission.ended(connection)
        if self._log is not None:
            self._log.ended(connection)

    def aborting(self, connection: Connection) -> None:
        """See `Owner.aborting`."""
        if self._log is not None and not connection.broken:
            self._log.ended(connection)

    def inputEnded(self, connection: Connection) -> None:
        """See `Owner.inputEnded`."""
        if self._log is not None:
            self._log.inputEnded(connection)

    def closed(self, connection: Connection) -> None:
        """See `Owner.closed`."""
        live = self._live
        if connection not in live.hosts:
            return
        host = live.hosts[connection]
        if host is not None:
            self._sources.closed(host)
        if self._log is not None:
            self._log.closed(connection, self.sweep.now)
        reason = connection.reason
        if reason in NEVER_OPEN:
            live.totals.refused.note(reason.value, peerOf(connection.transport))
        if self._keeping is not None:
            self._keeping.put(connection)
        live.closed(connection)


def _nothing() -> None:
    """What a factory does that need not know of a drain."""


def _hostOf(address: IAddress) -> str | None:
    """
    What limits on sources are about.

    Over a UNIX socket, unless a PROXY header has told of a client, that is nothing: who connects is
    on this machine, and the mode of the socket's file says who may.
    """
    return getattr(address, "host", None)
