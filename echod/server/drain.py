"""
The end of a service: a delay, then all listeners stop, within one deadline for everybody.

For the time of ``drain_delay`` everything goes on: balancers see that ``health`` says ``draining``,
and find another server meanwhile.  Then every listener is told that it begins, and stops, and those
that last when all others have ended.  After ``drain_timeout`` whoever is left is cut; `PATIENCE`
later the drain ends without those that have not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from echod.server.listener import Listener

__all__ = ["PATIENCE", "Drain"]

_log = Logger()

#: Seconds from the cut until a drain ends without those that have not.
PATIENCE = 2.0


class Drain:
    """
    Stops all listeners, and ends whoever has not by a deadline.

    :param everybody: returns all listeners, those that a reload has retired included.
    :param delay: seconds until they stop.
    :param timeout: seconds from then to the cut.
    :param reactor: its clock.
    :ivar ended: fires with ``None`` when it is over, whatever has become of anybody.
    :ivar cutShort: whether it ended a connection that was still owed bytes, or ended without one
        that did not end; final once `ended` has fired.
    """

    def __init__(
        self,
        everybody: Callable[[], Sequence[Listener]],
        delay: float,
        timeout: float,
        reactor: IReactorTime,
    ) -> None:
        self.cutShort = False
        self.ended: Deferred[None] = Deferred()
        self._everybody = everybody
        self._timeout = timeout
        self._reactor = reactor
        # Whether the cut was made: who begins to drain afterwards is cut at once.
        self._deadlinePassed = False
        # Connections that were owed bytes as they ended before; written by _stop.
        self._cutBefore = 0
        # Its timers; None before they begin to run, and where they must not be touched any more.
        self._delay: IDelayedCall | None = None
        self._deadline: IDelayedCall | None = None
        self._last: IDelayedCall | None = None
        if delay:
            self._delay = reactor.callLater(delay, self._stop)
        else:
            self._stop()

    def cut(self) -> None:
        """End it at once, also the delay."""
        if self._delay is not None:
            self._delay.cancel()
            self._stop()
        self._cut()
        if self._last is not None:
            self._last.reset(PATIENCE)

    def _stop(self) -> None:
        self._delay = None
        self._cutBefore = self._owed()
        # Before anybody stops: a timeout of 0 cuts at once, but not before all have begun.
        self._deadline = self._reactor.callLater(self._timeout, self._cut)
        self._last = self._reactor.callLater(self._timeout + PATIENCE, self._giveUp)
        for listener in self._everybody():
            listener.drainBegins()
        lasting = [listener for listener in self._everybody() if listener.lasts]
        others = [listener for listener in self._everybody() if not listener.lasts]
        stopped = _stopAll(others).addBoth(lambda _: self._stopLasting(lasting))
        stopped.addBoth(lambda _: self._end())

    def _stopLasting(self, lasting: Sequence[Listener]) -> Deferred[Any]:
        ended = _stopAll(lasting)
        if self._deadlinePassed:
            # There is one deadline for all: theirs has passed too.
            self._cut()
        return ended

    def _cut(self) -> None:
        self._deadlinePassed = True
        for listener in self._everybody():
            listener.cut()

    def _giveUp(self) -> None:
        left = sum(listener.connectionCount for listener in self._everybody())
        _log.error(
            "the drain ends without {left} connections that did not end", event="left", left=left
        )
        self.cutShort = True
        self._end()

    def _end(self) -> None:
        if self.ended.called:
            return
        for timer in (self._deadline, self._last):
            if timer is not None and timer.active():
                timer.cancel()
        self._last = None
        owed = self._owed() - self._cutBefore
        if owed:
            _log.warn(
                "{connections} connections were cut that were still owed bytes",
                event="cut",
                connections=owed,
            )
            self.cutShort = True
        self.ended.callback(None)

    def _owed(self) -> int:
        return sum(listener.cutCount for listener in self._everybody())


def _stopAll(listeners: Sequence[IService]) -> Deferred[Any]:
    """Stop all of them, in reverse; fires when the last has ended, whatever became of it."""
    return DeferredList([maybeDeferred(each.stopService) for each in reversed(listeners)])
