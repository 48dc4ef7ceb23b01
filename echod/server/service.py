"""
The daemon's listeners as one service: a plan and a reactor in, `EchodService` out.

It holds the listeners, the sweep, and the poller that all of them share.  `echod.server.reload`
says how one plan becomes another, `echod.server.drain` how it all ends.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from echod import startup
from echod.config.endpoints import UDPEndpoint
from echod.connection.rows import Ended
from echod.connection.sweep import Sweep, Swept
from echod.insight.shelf import Shelf
from echod.interfaces import ServerContext, ServerInsight
from echod.measurements import DatagramMeasurements, Measurements, StreamMeasurements
from echod.server.certificate_watch import CertificateWatch
from echod.server.connection_log import SlowLog
from echod.server.datagram_listener import DatagramListener
from echod.server.drain import Drain
from echod.server.inspection import Inspection
from echod.server.late_addresses import bindAll
from echod.server.listener import Listener, ListenerPlan
from echod.server.listener_names import ListenerNames
from echod.server.maker_context import MakerContext
from echod.server.plan import Plan
from echod.server.reload import prepare
from echod.server.reload_record import ReloadRecord
from echod.server.stream_listener import StreamListener
from echod.transports.facade import Facade
from echod.transports.loop.heartbeat import Heartbeat

__all__ = ["CUT_SHORT", "EchodService"]

_log = Logger()

#: Exit status after a drain that was cut short; 1 is that of whoever could not start.
CUT_SHORT = 3


class EchodService(MultiService):
    """
    All listeners, and the one deadline for their end.

    :param plan: see `echod.server.plan.plan`.
    :param reactor: a Twisted reactor.
    :param monotonic: the clock for deadlines.
    :ivar listeners: those that accept, in the plan's order.
    :ivar insight: what happens at them.
    :ivar reloads: how the reloads went; whoever catches what `reload` raises tells it.
    :ivar draining: whether it is about to end.
    :ivar cutShort: whether the drain had to end a connection that was still owed bytes, or
        was itself ended by `cut`; final once ``stopService`` has fired.
    """

    def __init__(
        self,
        plan: Plan,
        reactor: IReactorTime,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._plan = plan
        self._reactor = reactor
        self._monotonic = monotonic
        self._sweep = Sweep(reactor, monotonic)
        self._slow = SlowLog(monotonic)
        self._facade = Facade(reactor, self._slow)
        self._heartbeat = Heartbeat(self._facade)
        # Of all listeners of datagrams: they must not answer each other.
        self._ownPorts: Counter[int] = Counter()
        self._bound = False
        self._socketLost = False
        self.reloads = ReloadRecord()
        self._certificates = CertificateWatch(lambda: self.listeners, reactor)
        # When it was made, in seconds since 1970 and by the clock for deadlines.
        self._startedAt, self._since = time.time(), monotonic()
        self._names = ListenerNames()
        self.draining = False
        self.cutShort = False
        # While it ends; written by stopService and _drained.
        self._drain: Drain | None = None
        # Listeners that accept nobody any more, and may still have connections; written by reload.
        self._retired: list[Listener] = []
        # Connections that are gone, if anybody wants to tell of them; written by _observe.
        self.shelf: Shelf[Ended] | None = None
        self.insight: ServerInsight = Inspection(self)
        self._context: ServerContext = MakerContext(self, reactor)
        # None yet, for makers that ask.
        self.listeners: list[Listener] = []
        self.listeners = [self._make(each, plan) for each in plan.listeners]
        self._observe()
        for listener in self.listeners:
            listener.setServiceParent(self)

    def _make(self, each: ListenerPlan, plan: Plan) -> Listener:
        if isinstance(each.endpoint, UDPEndpoint):
            return DatagramListener(
                each, self._facade, self._sweep, self._ownPorts, self._context, self._monotonic
            )
        return StreamListener(each, self._facade, self._sweep, self._context)

    def _observe(self) -> None:
        """Keep and log what the plan wants told, and forget it once it does not."""
        if not self._plan.insight:
            self.shelf = None
        elif self.shelf is None:
            self.shelf = Shelf()
        for listener in self.everybody():
            listener.observe(self.shelf)
            listener.setLogging(self._plan.logConnections, self._plan.logPayload)

    # -- Its life --------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        """
        Bind every listener, or none.

        :raises ListenError: naming the first address that cannot be had.
        """
        for note in self._plan.notes:
            _log.warn("{note}", event="note", note=note)
        self._bound = True
        try:
            bindAll(self.listeners)
        except BaseException:
            for listener in self.listeners:
                listener.abandon()
            raise
        startup.bound()

    def startService(self) -> None:
        """Begin to serve."""
        if not self._bound:
            self.privilegedStartService()
        self._sweep.start()
        super().startService()
        self._certificates.look()

    def reload(self, plan: Plan) -> None:
        """
        Serve another plan from now on.

        New endpoints are bound before others are closed; one that stays keeps its socket.
        Connections go on under the settings that they began with, also those of listeners that
        are gone.

        :raises ConfigurationError: see `echod.server.reload.prepare`; nothing has changed then.
        :raises ListenError: the same.
        """
        self._forgetEnded()
        reload = prepare(self._plan, plan, self.listeners, self._retired, self._make)
        # Nothing fails from here on.
        reload.commit()
        for listener in reload.replaced:
            # Not as a service that ends: its connections go on.
            self.services.remove(listener)
        for listener in reload.listeners:
            if listener.parent is None:
                listener.setServiceParent(self)
        self._plan = reload.plan
        self.listeners = reload.listeners
        self._retired += reload.gone
        self._observe()
        for listener in reload.gone:
            listener.retire()
        self.reloads.succeed()
        self._certificates.look()

    def _forgetEnded(self) -> None:
        for listener in [each for each in self._retired if not each.connectionCount]:
            self._retired.remove(listener)
            self.services.remove(listener)

    def stopService(self) -> Deferred[None]:
        """Drain (`echod.server.drain`): fires when every connection is gone, or its time is up."""
        self.draining = True
        self._certificates.stop()
        Service.stopService(self)
        self._drain = Drain(
            self.everybody, self._plan.drainDelay, self._plan.drainTimeout, self._reactor
        )
        return self._drain.ended.addCallback(self._drained, self._drain)

    def _drained(self, _: None, drain: Drain) -> None:
        self._sweep.stop()
        self._heartbeat.stop()
        self.cutShort = self.cutShort or drain.cutShort
        self._drain = None
        self._bound = self.draining = False

    def cut(self) -> None:
        """End a drain at once, also one that has not begun."""
        self.cutShort = True
        if self._drain is not None:
            self._drain.cut()
        else:
            for listener in self.everybody():
                listener.cut()

    @property
    def exitStatus(self) -> int:
        """What the process exits with: 0 if everybody got what was owed, and it ends as told."""
        return CUT_SHORT if self.cutShort else os.EX_TEMPFAIL if self._socketLost else 0

    def lookEachSecond(self, swept: Swept) -> None:
        """Have ``swept`` look once a second while anybody is served, and once more afterwards."""
        self._sweep.addQuietly(swept)

    # -- How it is -------------------------------------------------------------------------

    def losesSocket(self) -> bool:
        """
        Whether a listener has lost its socket: another process that holds it has shut it down.

        It could listen again at some addresses, and at none that was passed; so the daemon is to
        end, and whoever started it may do so again.  The log has a line for each.
        """
        for listener in self.listeners:
            if listener.running and not listener.listens:
                self._socketLost = True
                _log.critical(
                    "{listener}: its socket was shut down by another process that holds it",
                    event="socket_lost",
                    listener=listener.describe(),
                )
        return self._socketLost

    def faults(self) -> list[str]:
        """What is wrong with the daemon itself, by what has come to pass since the last call."""
        deaf = [] if self._heartbeat.beat() else ["no descriptor is served"]
        return deaf + [
            f"nobody is accepted at {listener.describe()}"
            for listener in self.listeners
            if listener.neglects()
        ]

    @property
    def plan(self) -> Plan:
        """What is served."""
        return self._plan

    @property
    def uptime(self) -> float:
        """Seconds since it was made."""
        return self._monotonic() - self._since

    def now(self) -> float:
        """What time it is, in monotonic seconds."""
        return self._monotonic()

    def connectionCount(self) -> int:
        """Connections at all listeners."""
        return sum(listener.connectionCount for listener in self.everybody())

    def counters(self) -> dict[str, Any]:
        """All counters of all listeners, as plain values (`echod.server.counters`)."""
        return {
            "listeners": [listener.counters() for listener in self.everybody()],
            "lag_ms": round(self._sweep.lag * 1000, 1),
            "worst_lag_ms": round(self._sweep.worstLag * 1000, 1),
            "slow": self._slow.count,
        }

    def measurements(self) -> Measurements:
        """What metrics are made of."""
        everybody = self.everybody()
        names = self._names.of(everybody)
        measured = [each.measured(name) for each, name in zip(everybody, names, strict=True)]
        return Measurements(
            streams=[each for each in measured if isinstance(each, StreamMeasurements)],
            datagrams=[each for each in measured if isinstance(each, DatagramMeasurements)],
            lag=self._sweep.lag,
            worstLag=self._sweep.worstLag,
            slow=self._slow.count,
            startedAt=self._startedAt,
            reloadedAt=self.reloads.succeededAt or self._startedAt,
            reloaded=not self.reloads.refused,
        )

    def everybody(self) -> list[Listener]:
        """All listeners; of those that are gone, the ones that had connections since."""
        return [*self.listeners, *self._retired]
