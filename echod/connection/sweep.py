"""
Deadlines without a timer for each connection.

A connection stores when it last made progress (one attribute write, of `Sweep.now`); one
timer for the whole daemon looks at everybody once a second.  Twisted's ``DelayedCall`` to
an earlier time costs a linear search of all of them, and its clock is the wall clock; here
time is monotonic, and a timer that fires early or late changes nothing.

The timer ticks ten times a second.  Each tick writes `Sweep.now`, looks at the connections
that wait for the kernel alone to finish (no event tells of that), and at one tenth of all
the others, so that no turn is long however many there are.

While nobody is served there are no ticks, so that an idle daemon does not wake up.  Whoever comes
begins them again (`Sweep.wake`), and time is looked at anew.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from echod.insight.fault_log import tellFault

__all__ = ["TICK", "Sweep", "Swept"]

#: Seconds between ticks: the resolution of `Sweep.now`, and how long a connection whose
#: last bytes are with the kernel may keep its descriptor after the peer has them.
TICK = 0.1
#: Ticks in which everybody is looked at once.
SHARDS = 10


class Swept(Protocol):
    """What a sweep looks at."""

    def sweep(self, now: float) -> None:
        """
        Compare every deadline with ``now`` (monotonic seconds) and act on those passed.

        If it raises, its ``fault(failure, name)`` is called, where it has one.
        """


def _fault(failure: Failure, name: str) -> None:
    tellFault(failure, f"a deadline of {name} could not be kept")


class Sweep:
    """
    The one timer.

    :param reactor: schedules the ticks.
    :param monotonic: the clock that deadlines are measured with.
    :ivar now: the time of the last tick, in seconds; of the last `wake`, if that is later.
    :ivar lag: how much later than it should the last tick came, in seconds: what held the reactor.
        While nobody is served there are no ticks: it stays that of the last one.
    :ivar worstLag: the most so far.
    :ivar quiet: ticks since there was last anybody; 0 while there is.  After `SHARDS` of them,
        in which everybody was looked at once more, there are no more ticks before `wake`.
    """

    def __init__(self, reactor: IReactorTime, monotonic: Callable[[], float]) -> None:
        self._reactor = reactor
        self._monotonic = monotonic
        self.now = monotonic()
        # Everybody, one dict of SHARDS each; written by add and discard.
        self._shards: list[dict[Swept, None]] = [{} for _ in range(SHARDS)]
        self._shardOf: dict[Swept, int] = {}
        self._nextShard = cycle(range(SHARDS))
        # Those to be looked at each tick; written by hurry and discard.
        self._hurried: dict[Swept, None] = {}
        # Those that want a look once a second, and no ticks for themselves; written by addQuietly.
        self._quietOnes: set[Swept] = set()
        self._started = False
        self.quiet = SHARDS
        self._tickCount = 0
        self._due = self.now
        self.lag = 0.0
        self.worstLag = 0.0
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin to tick, for a second at least."""
        self._started = True
        self.wake()

    def stop(self) -> None:
        """Tick no more, whoever comes."""
        self._started = False
        self.quiet = SHARDS
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def wake(self) -> None:
        """Somebody comes: tick for a second at least; if there were no ticks, `now` is new."""
        self.quiet = 0
        if self._started and self._call is None:
            self.now = self._monotonic()
            self._due = self.now + TICK
            self._call = self._reactor.callLater(TICK, self._tick)

    def addQuietly(self, swept: Swept) -> None:
        """As `add`, while there are ticks for others, and once after the last of them."""
        self._quietOnes.add(swept)
        self.add(swept)

    def add(self, swept: Swept) -> None:
        """Look at ``swept`` once a second from now on; a second call does nothing."""
        if swept not in self._shardOf:
            shard = self._shardOf[swept] = next(self._nextShard)
            self._shards[shard][swept] = None
        if self.quiet or self._call is None:
            self.wake()

    def hurry(self, swept: Swept) -> None:
        """Look at ``swept`` each tick."""
        self._hurried[swept] = None
        if self.quiet or self._call is None:
            self.wake()

    def relax(self, swept: Swept) -> None:
        """Look at ``swept`` once a second again, after `hurry`."""
        self._hurried.pop(swept, None)

    def discard(self, swept: Swept) -> None:
        """Look at ``swept`` no more; a second call does nothing."""
        shard = self._shardOf.pop(swept, None)
        if shard is not None:
            del self._shards[shard][swept]
        self._quietOnes.discard(swept)
        self._hurried.pop(swept, None)

    def _tick(self) -> None:
        self._call = self._reactor.callLater(TICK, self._tick)
        self.now = now = self._monotonic()
        self.lag = max(0.0, now - self._due)
        self.worstLag = max(self.worstLag, self.lag)
        self._due = now + TICK
        self._tickCount += 1
        for swept in [*self._hurried, *self._shards[self._tickCount % SHARDS]]:
            try:
                swept.sweep(now)
            except BaseException:
                # SystemExit too: see echod.insight.fault_log.
                # Any: it is there where what is swept can be told of a fault.
                fault: Any = getattr(swept, "fault", _fault)
                fault(Failure(), type(swept).__name__)
        if self._hurried or len(self._shardOf) > len(self._quietOnes):
            self.quiet = 0
            return
        self.quiet += 1
        if self.quiet > SHARDS and self._call is not None:
            self._call.cancel()
            self._call = None
