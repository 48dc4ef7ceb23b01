"""
Who is admitted: sources, and connections of a listener.

`ConnectionLimit` stands outermost, in the factory that the port calls.  At the limit the
connection that has been idle longest makes room, gracefully (RFC 9210 section 4); if none
has been idle for a second, the new one is refused.  `SourceLimit` is asked before.
"""

from __future__ import annotations

import math
from collections import Counter

from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.states import Reason
from echod.server.descriptors import extraFor
from echod.wire.networks import Networks, Source, sourceOf
from echod.wire.token_buckets import Rates

__all__ = ["ConnectionLimit", "SourceLimit"]

#: Seconds a connection must have been idle before another may take its place.
IDLE_ENOUGH = 1.0


class ConnectionLimit:
    """
    The connections of one listener, at most ``maximum`` and a few on their way out.

    :ivar open: those that count against the limit, in the order of their arrival.
    :ivar lingering: those that we ended, in the order of their ends.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.open: dict[Connection, None] = {}
        self.lingering: dict[Connection, None] = {}
        # Who could make room, longest idle last, as of `_rankedAt`; written by _longestIdle,
        # which sorts at most once a tick however many knock.
        self._ranked: list[Connection] = []
        self._rankedAt = -math.inf

    def admit(self, now: float) -> bool:
        """Make room for one more at ``now`` (monotonic seconds), or say that there is none."""
        if len(self.open) >= self.maximum:
            idle = self._longestIdle(now)
            if idle is None:
                return False
            idle.attempt(idle.end, Reason.EVICTED)
        return True

    def opened(self, connection: Connection) -> None:
        """One came; if that makes too many in all, the oldest that we ended is aborted."""
        self.open[connection] = None
        total = len(self.open) + len(self.lingering)
        if self.lingering and total > self.maximum + extraFor(self.maximum):
            oldest = next(iter(self.lingering))
            del self.lingering[oldest]
            oldest.attempt(oldest.abort, oldest.reason or Reason.EVICTED)

    def ended(self, connection: Connection) -> None:
        """We ended one: it is on its way out."""
        self.open.pop(connection, None)
        self.lingering[connection] = None

    def closed(self, connection: Connection) -> None:
        """One is gone."""
        self.open.pop(connection, None)
        self.lingering.pop(connection, None)

    def _longestIdle(self, now: float) -> Connection | None:
        if now > self._rankedAt:
            self._rankedAt = now
            idle = [
                (since, connection)
                for connection in self.open
                if (since := _idleSince(connection)) is not None and now - since >= IDLE_ENOUGH
            ]
            idle.sort(key=lambda pair: pair[0])
            self._ranked = [connection for _, connection in reversed(idle)]
        while self._ranked:
            connection = self._ranked.pop()
            since = _idleSince(connection) if connection in self.open else None
            if since is not None and now - since >= IDLE_ENOUGH:
                return connection
        return None


def _idleSince(connection: Connection) -> float | None:
    """See `Connection.idleSince`; ``None`` for one that cannot tell."""
    found: float | None = connection.attempt(connection.idleSince)
    return found


class SourceLimit:
    """
    Who may come to one listener, how many of them from one source, and how quickly.

    :param limits: of the listener.
    :ivar refuses: whether it ever refuses anybody: else `refusal` need not be asked.
    :ivar counts: whether `opened` and `closed` must be called.
    """

    def __init__(self, limits: Limits) -> None:
        self._networks = Networks(limits.allow, limits.deny)
        self._maximum = limits.maxPerSource
        self._prefixes = limits.sourcePrefix
        self._newPerSecond = limits.newPerSecond
        self._rates = Rates(limits.newPerSecond)
        self.counts = bool(limits.maxPerSource)
        self._sources = bool(limits.maxPerSource or limits.newPerSecond)
        self.refuses = bool(self._networks) or self._sources
        self._open: Counter[Source] = Counter()

    def refusal(self, host: str, now: float) -> str | None:
        """
        Why a connection from ``host`` may not come at ``now`` (monotonic seconds).

        :returns: ``denied``, ``source_full`` or ``source_rate``, the key of a counter; or ``None``.
        """
        if self._networks and not self._networks.admit(host):
            return "denied"
        if self._sources:
            source = sourceOf(host, self._prefixes)
            if self.counts and self._open.get(source, 0) >= self._maximum:
                return "source_full"
            if not self._rates.take(source, now):
                return "source_rate"
        return None

    def takeOver(self, other: SourceLimit) -> None:
        """Count those that ``other`` counts too, where both mean the same by a source."""
        if self._prefixes == other._prefixes:
            self._open = other._open
            if self._newPerSecond == other._newPerSecond:
                self._rates = other._rates

    def opened(self, host: str) -> None:
        """One came from there."""
        self._open[sourceOf(host, self._prefixes)] += 1

    def closed(self, host: str) -> None:
        """One is gone."""
        source = sourceOf(host, self._prefixes)
        self._open[source] -= 1
        if not self._open[source]:
            del self._open[source]
