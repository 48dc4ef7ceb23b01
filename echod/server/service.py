"""
The daemon: a plan and a reactor in, one service out.

The one module that knows everybody.  `EchodService` holds the listeners and the sweep, reloads
them, and stops them within one deadline.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger

from echod import startup
from echod.config.endpoints import UDPEndpoint
from echod.connection.sweep import Sweep
from echod.errors import ConfigurationError
from echod.server.connection_log import SlowLog
from echod.server.counters import toJSON
from echod.server.datagram_listener import DatagramListener
from echod.server.descriptors import descriptorsFor
from echod.server.late_addresses import bindAll
from echod.server.listener import Likeness, ListenerPlan
from echod.server.plan import Plan
from echod.server.reload import checkOwn, match
from echod.server.stream_listener import StreamListener
from echod.transports.facade import Facade
from echod.transports.loop.heartbeat import Heartbeat

__all__ = ["EchodService"]

_log = Logger()

#: Exit status after a drain that was cut short; 1 is that of whoever could not start.
CUT_SHORT = 3
#: Exit status of one that could not go on, and may if it is started again: EX_TEMPFAIL of
#: sysexits(3).
SOCKET_LOST = 75

#: Seconds from the cut until a drain ends without those that have not.
PATIENCE = 2.0


def _stop(listeners: Sequence[Service]) -> Deferred[Any]:
    """Stop all of them, in reverse; fires when the last has ended, whatever became of it."""
    return DeferredList([maybeDeferred(each.stopService) for each in reversed(listeners)])


class EchodService(MultiService):
    """
    All listeners, and the one deadline for their end.

    :param plan: see `plan`.
    :param reactor: a Twisted reactor.
    :param monotonic: the clock for deadlines.
    :ivar draining: whether it is about to end.
    :ivar cutShort: whether the drain had to end a connection that was still owed bytes, or
        was itself ended by `cut`; final once ``stopService`` has fired.
    """

    def __init__(self, plan: Plan, reactor: Any, monotonic: Any = time.monotonic) -> None:
        super().__init__()
        self._plan = plan
        self._reactor = reactor
        self._sweep = Sweep(reactor, monotonic)
        self.cutShort = False
        self.draining = False
        self._cutBefore = 0
        # Whether the drain has been cut: who begins to drain afterwards is cut at once.
        self._deadlinePassed = False
        # The timer that ends the drain whoever is left.
        self._last: Any = None
        # Until the drain begins: its timer, and who waits for the end.
        self._delay: Any = None
        self._ended: Deferred[None] | None = None
        self._bound = False
        self._socketLost = False
        self._slow = SlowLog(monotonic)
        self._monotonic = monotonic
        self._facade = Facade(reactor, self._slow)
        self._heartbeat = Heartbeat(self._facade)
        # Of all listeners of datagrams: they must not answer each other.
        self._ownPorts: Counter[int] = Counter()
        # Listeners that accept nobody any more, and may still have connections.
        self._retired: list[StreamListener | DatagramListener] = []
        self.listeners = [self._make(each, plan) for each in plan.listeners]
        for listener in self.listeners:
            listener.setServiceParent(self)

    def _make(self, each: ListenerPlan, plan: Plan) -> StreamListener | DatagramListener:
        if isinstance(each.endpoint, UDPEndpoint):
            return DatagramListener(
                each, self._facade, self._sweep, self._ownPorts, self._monotonic
            )
        return StreamListener(
            each,
            self._facade,
            self._sweep,
            logConnections=plan.logConnections,
            logPayload=plan.logPayload,
            draining=lambda: self.draining,
        )

    def privilegedStartService(self) -> None:
        """
        Bind every listener, or none.

        :raises ListenError: naming the first address that cannot be had.
        """
        for note in self._plan.notes:
            _log.warn("{note}", note=note)
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

    def stopService(self) -> Deferred[None]:
        """
        Drain: fires when every connection is gone, at the latest after the drain timeout.

        Before that, for the time of ``drain_delay``, everything goes on, except that `draining` is
        true: whoever asks finds another server meanwhile.  Listeners that last begin when all
        others have ended.
        """
        self.draining = True
        if not self._plan.drainDelay:
            return self._drain()
        self._ended = Deferred()
        self._delay = self._reactor.callLater(self._plan.drainDelay, self._delayOver)
        return self._ended

    def _delayOver(self) -> None:
        ended, self._ended = self._ended, None
        assert ended is not None
        self._drain().chainDeferred(ended)

    def _drain(self) -> Deferred[None]:
        self._cutBefore = self._owed()
        self._deadlinePassed = False
        # First of all: a timeout of 0 cuts at once, but not before what is below has begun.
        deadline = self._reactor.callLater(self._plan.drainTimeout, self._cutConnections)
        Service.stopService(self)
        lasting = [listener for listener in self._everybody() if listener.lasts]
        others = [listener for listener in self._everybody() if not listener.lasts]
        over: Deferred[None] = Deferred()

        def end(_: Any = None) -> None:
            if not over.called:
                over.callback(None)

        def giveUp() -> None:
            left = sum(each.connectionCount for each in self._everybody())
            _log.error("the drain ends without {left} connections that did not end", left=left)
            self.cutShort = True
            end()

        self._last = last = self._reactor.callLater(self._plan.drainTimeout + PATIENCE, giveUp)
        _stop(others).addBoth(lambda _: self._stopLasting(lasting)).addBoth(end)

        def finished(_: Any) -> None:
            for timer in (deadline, last):
                if timer.active():
                    timer.cancel()
            self._sweep.stop()
            self._heartbeat.stop()
            owed = self._owed() - self._cutBefore
            if owed:
                _log.warn("{owed} connections were cut that were still owed bytes", owed=owed)
            self.cutShort = self.cutShort or owed > 0
            self._bound = self.draining = False

        return over.addBoth(finished)

    @property
    def exitStatus(self) -> int:
        """What the process exits with: 0 if everybody got what was owed, and it ends as told."""
        return CUT_SHORT if self.cutShort else SOCKET_LOST if self._socketLost else 0

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
                    listener=listener.describe(),
                )
        return self._socketLost

    def cut(self) -> None:
        """End a drain at once, also one that has not begun."""
        self.cutShort = True
        if self._ended is not None:
            self._delay.cancel()
            self._delayOver()
        self._cutConnections()
        if self._last is not None and self._last.active():
            self._last.reset(PATIENCE)

    def reload(self, plan: Plan) -> None:
        """
        Serve another plan from now on.

        New endpoints are bound before others are closed; one that stays keeps its socket.
        Connections go on under the settings that they began with, also those of listeners that
        are gone.

        All that may fail comes first; if it does, nothing has changed.

        :raises ConfigurationError: a protocol raised, or its maker; there are too few descriptors;
            or no listener is asked for any more.
        :raises ListenError: a new endpoint cannot be had.
        """
        if plan.byDefault and not self._plan.byDefault:
            raise ConfigurationError(
                "no [[listener]] is left in the configuration file; write what is to be served"
            )
        logs = (plan.logConnections, plan.logPayload)
        logged = (self._plan.logConnections, self._plan.logPayload)
        for old in [old for old in self._retired if not old.connectionCount]:
            self._retired.remove(old)
            self.services.remove(old)
        matched = match(self.listeners, plan.listeners)
        before = [listener for listener in self.listeners if listener not in matched]
        plan = self._fit(plan, matched, before)
        for note in plan.notes:
            _log.warn("{note}", note=note)
        # Each listener to be, with the one that is at its endpoint now.
        after: list[tuple[Any, Any]] = []
        for each, found in zip(plan.listeners, matched, strict=True):
            if found is None:
                checkOwn(self.listeners, each)
            same = found and found.plan.likeness(each) is Likeness.ALL and logs == logged
            after.append((found if same else self._make(each, plan), found))
        new = [listener for listener, found in after if found is None]
        changed = [(listener, found) for listener, found in after if found not in (None, listener)]
        try:
            for listener in new:
                listener.privilegedStartService()
            for listener, found in changed:
                listener.standBy(found)
        except BaseException:
            for listener in [*new, *(listener for listener, _ in changed)]:
                listener.abandon()
            raise
        # Nothing fails from here on.
        for listener, found in changed:
            listener.takeOver(found)
            # Not as a service that ends: its connections go on.
            self.services.remove(found)
            self.listeners[self.listeners.index(found)] = listener
        for each, (listener, _) in zip(plan.listeners, after, strict=True):
            listener.renew(each)
            if listener.parent is None:
                listener.setServiceParent(self)
        self._retired += before
        for listener in before:
            listener.retire()
        self._plan = plan
        self.listeners = [listener for listener, _ in after]
        _log.info(
            "reloaded: {new} listeners are new, {changed} changed, {gone} gone",
            new=len(new),
            changed=len(changed),
            gone=len(before),
        )

    def _fit(self, plan: Plan, matched: Sequence[Any], gone: Sequence[Any]) -> Plan:
        """
        The plan with as many connections as there are descriptors for, besides those that stay.

        :param matched: for each listener of the plan the one that goes on as it, or ``None``.
        :param gone: those that go.
        :raises ConfigurationError: there is no room.
        """
        left = sum(listener.connectionCount for listener in [*self._retired, *gone])
        fitted, held = plan, 0
        while True:
            # Where fewer may come than there are, those above it stay too.
            above = sum(
                max(0, found.connectionCount - descriptorsFor(each.limits.maxConnections))
                for each, found in zip(fitted.listeners, matched, strict=True)
                if found is not None
            )
            if left + above <= held:
                return fitted
            held = left + above
            fitted = plan.holding(held)

    def connectionCount(self) -> int:
        """Connections at all listeners."""
        return sum(listener.connectionCount for listener in self._everybody())

    def faults(self) -> list[str]:
        """What is wrong with the daemon itself, by what has come to pass since the last call."""
        deaf = [] if self._heartbeat.beat() else ["no descriptor is served"]
        return deaf + [
            f"nobody is accepted at {listener.describe()}"
            for listener in self.listeners
            if listener.neglects()
        ]

    def counters(self) -> str:
        """All counters of all listeners: one line of JSON."""
        return toJSON(
            {
                "listeners": [listener.counters() for listener in self._everybody()],
                "lag_ms": round(self._sweep.lag * 1000, 1),
                "worst_lag_ms": round(self._sweep.worstLag * 1000, 1),
                "slow": self._slow.count,
            }
        )

    def _stopLasting(self, lasting: Sequence[Service]) -> Deferred[Any]:
        ended = _stop(lasting)
        if self._deadlinePassed:
            # There is one deadline for all: theirs has passed too.
            self._cutConnections()
        return ended

    def _cutConnections(self) -> None:
        self._deadlinePassed = True
        for listener in self._everybody():
            listener.cut()

    def _owed(self) -> int:
        return sum(listener.cutCount for listener in self._everybody())

    def _everybody(self) -> list[StreamListener | DatagramListener]:
        """All listeners; of those that are gone, the ones that had connections since."""
        return [*self.listeners, *self._retired]
