"""
How long to look for an answer before going to sleep: `Spin`.

A client on this machine that plays ping-pong answers within some microseconds.  To look for that
long costs less than to go to sleep and be woken: with one client 11 µs of CPU a message in place of
28, and a latency of 10 in place of 27.  A client far away does not answer in that time, and to look
for it each time costs 15 µs a message.  So whether it pays is learnt from whether it did.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["LONGEST_PAUSE", "LOOKS", "Events", "Spin"]

#: What a look brings: descriptors and what has come about with them.
Events = list[tuple[int, int]]

#: Looks in a row: 10 µs in all, half of what going to sleep and being woken costs.
LOOKS = 20
#: Chances that are passed over after a row of misses, at most: then a wasted one costs 0.2 µs each.
LONGEST_PAUSE = 64


class Spin:
    """
    Learns whether it pays to look for an answer.

    A row of looks in vain doubles the pause before the next; a hit ends all pauses.
    """

    def __init__(self) -> None:
        # Chances to be passed over after the next miss; and still to be passed over.
        self._pause = 1
        self._left = 0

    def look(self, poll: Callable[[float, int], Events], most: int) -> Events:
        """
        Look for what the only client sends meanwhile, if that pays.

        :param poll: that of an epoll object.
        :param most: events that it may return.
        """
        events: Events = []
        looks = self.looks()
        for _ in range(looks):
            events = poll(0, most)
            if events:
                break
        if looks:
            self.tell(bool(events))
        return events

    def looks(self) -> int:
        """How often to look at this chance: `LOOKS`, or 0."""
        if self._left:
            self._left -= 1
            return 0
        return LOOKS

    def tell(self, found: bool) -> None:
        """Say whether something came while it was looked for."""
        if found:
            self._pause = 1
        else:
            self._left = self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
