"""
How connections were, once they are gone: `Distributions`, for metrics.

Kept only where somebody can look (`echod.server.counters.Totals.observe`).
"""

from __future__ import annotations

from echod.connection.connection import Connection
from echod.insight.histogram import Exemplar, Histogram

__all__ = ["BYTES", "FIRST_BYTE", "SECONDS", "Distributions"]

#: Bounds of how long connections lived, in seconds: from a health check to an hour.
SECONDS = (*(0.001 * 4**power for power in range(11)), 3600.0)
#: Bounds of the bytes that came over one; the first bucket has those over which none came.
BYTES = (0, *(16 * 16**power for power in range(8)))
#: Bounds of the time from accepting one to its first byte of payload, in seconds.
FIRST_BYTE = tuple(0.001 * 4**power for power in range(9))

#: Connections without a timeline that are taken in at a time.
MANY = 1024


class Distributions:
    """
    Of the connections of one endpoint that are gone.

    :ivar firstByte: seconds until the first of them came, with examples; a connection without a
        timeline does not know it.
    """

    def __init__(self) -> None:
        self._seconds = Histogram(SECONDS)
        self._received = Histogram(BYTES)
        self.firstByte = Histogram(FIRST_BYTE)
        # Of those without a timeline, not taken in yet.
        self._lives: list[float] = []
        self._sizes: list[int] = []

    @property
    def seconds(self) -> Histogram:
        """How long they lived, with examples."""
        self._takeIn()
        return self._seconds

    @property
    def received(self) -> Histogram:
        """The bytes that came over each."""
        self._takeIn()
        return self._received

    def add(self, connection: Connection, received: int) -> Exemplar | None:
        """
        One is gone.

        Without a timeline its life is told by the ticks of the clock, to a tenth of a second, and
        many are taken in at a time: that is cheaper than one by one.

        :param received: its bytes.
        :returns: it, as an example of how long they live; ``None`` if it is none.
        """
        timeline = connection.timeline
        if timeline is None:
            self._lives.append(connection.owner.sweep.now - connection.openedAt)
            self._sizes.append(received)
            if len(self._sizes) >= MANY:
                self._takeIn()
            return None
        number = connection.number
        began, firstAt, lived = timeline.began, timeline.firstAt, timeline.seconds
        now = began + lived
        if firstAt is not None:
            waited = firstAt - began
            self.firstByte.exemplars[self.firstByte.add(waited)] = (number, waited, now)
        example = number, lived, now
        self._seconds.exemplars[self._seconds.add(lived)] = example
        self._received.add(received)
        return example

    def _takeIn(self) -> None:
        if self._sizes:
            self._seconds.addMany(self._lives)
            self._received.addMany(self._sizes)
            self._lives.clear()
            self._sizes.clear()
