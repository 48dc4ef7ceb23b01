"""
How connections were, once they are gone: `Distributions`, for metrics.

Kept only where somebody can look (`echod.server.counters.Totals.observe`).
"""

from __future__ import annotations

from time import monotonic

from echod.connection.connection import Connection
from echod.insight.histogram import Exemplar, Histogram

__all__ = ["BYTES", "FIRST_BYTE", "SECONDS", "Distributions"]

#: Bounds of how long connections lived, in seconds: from a health check to an hour.
SECONDS = (*(0.001 * 4**power for power in range(11)), 3600.0)
#: Bounds of the bytes that came over one; the first bucket has those over which none came.
BYTES = (0, *(16 * 16**power for power in range(8)))
#: Bounds of the time from accepting one to its first byte of payload, in seconds.
FIRST_BYTE = tuple(0.001 * 4**power for power in range(9))


class Distributions:
    """
    Of the connections of one endpoint that are gone.

    :ivar seconds: how long they lived, with examples.
    :ivar received: the bytes that came over each.
    :ivar firstByte: seconds until the first of them came, with examples; a connection without a
        timeline does not know it.
    """

    def __init__(self) -> None:
        self.seconds = Histogram(SECONDS)
        self.received = Histogram(BYTES)
        self.firstByte = Histogram(FIRST_BYTE)

    def add(self, connection: Connection, received: int) -> Exemplar:
        """
        One is gone.

        Without a timeline its life is told by the ticks of the clock, to a tenth of a second.

        :param received: its bytes.
        :returns: it, as an example of how long they live.
        """
        number = connection.number
        timeline = connection.timeline
        if timeline is None:
            now = connection.owner.sweep.now
            lived = now - connection.openedAt
        else:
            now, began, firstAt = monotonic(), timeline.began, timeline.firstAt
            lived = now - began
            if firstAt is not None:
                waited = firstAt - began
                self.firstByte.exemplars[self.firstByte.add(waited)] = (number, waited, now)
        example = number, lived, now
        self.seconds.exemplars[self.seconds.add(lived)] = example
        self.received.add(received)
        return example
