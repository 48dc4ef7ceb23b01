"""
What a listener keeps of its connections while somebody can ask for it: `Keeping`.

Timelines of those that live, and a record of each that is gone.  Both together cost 40 % of what a
short connection does, and nobody reads a thousand stories a second.  So `PER_SECOND` connections
get a timeline, and `BURST` of them at once.  Of those that come faster the ones without are only
counted as they end, but for those that did not end as most do: these are always kept.
"""

from __future__ import annotations

from echod.connection.connection import Connection
from echod.connection.rows import Ended, endedOf
from echod.connection.states import Reason, State
from echod.connection.sweep import Sweep
from echod.insight.shelf import SHORT, Shelf
from echod.insight.timeline import Timeline

__all__ = ["BURST", "PER_SECOND", "TIMELINE", "Keeping"]

#: Events of a timeline, unless somebody says how many.
TIMELINE = SHORT
#: Connections that get a timeline: a second, and at once.
PER_SECOND, BURST = 1000, 1000

_ORDINARY = frozenset([Reason.EOF, Reason.QUIT])
_BY_CHECKS = frozenset([*_ORDINARY, Reason.RESET])


class Keeping:
    """
    What one listener keeps.

    :param shelf: where records go.
    :param entries: of a timeline; with 0 there are none, and everybody that is gone is kept.
    :param sweep: the clock.
    :param layered: whether there are layers that find something out.
    :param apart: whether its connections only ask about others: they are kept apart.
    """

    def __init__(
        self,
        shelf: Shelf[Ended],
        entries: int,
        sweep: Sweep,
        *,
        layered: bool,
        apart: bool,
    ) -> None:
        self._shelf = shelf
        self._entries = entries
        self._sweep = sweep
        self._layered = layered
        self._apart = apart
        # How many connections more may have a timeline, as of when.
        self._left, self._since = BURST, sweep.now

    def beginTimeline(self) -> Timeline | None:
        """One for a connection that comes; ``None`` if too many come."""
        if not self._left:
            now = self._sweep.now
            # The same object between two ticks.
            if now is self._since:
                return None
            self._left = int(min(BURST, PER_SECOND * (now - self._since)))
            self._since = now
            if not self._left:
                return None
        self._left -= 1
        return Timeline(self._entries)

    def put(self, connection: Connection) -> None:
        """One is gone."""
        timeline = connection.timeline
        if timeline is None and self._entries and _isOrdinary(connection):
            return
        ended = endedOf(connection, self._sweep.now, self._layered)
        apart = self._apart or not connection.bytesIn
        # A health check is no example of how connections end, be it by RST.
        example = not apart or connection.reason not in _BY_CHECKS
        self._shelf.put(ended, ended.why if example else "", apart)
        if timeline is not None and self._entries > SHORT:
            self._shelf.weigh(timeline)


def _isOrdinary(connection: Connection) -> bool:
    """Whether it ended as most do, and was owed nothing."""
    return (
        connection.reason in _ORDINARY
        and connection.state is State.CLOSED
        and not connection.broken
    )
