"""
What a connection may read now: its own bytes a second, and its turn at those of a listener.

Pure: the caller says what time it is, asks before it reads, and tells what it has read.  Nothing
is read on credit, so nobody leaves a debt that another pays for.  Who finds too little left of what
all share waits in line; what has grown back is dealt among those who wait, in the order in which
they came, as often as time moves on.  While anybody waits, nobody who comes later is served before.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Hashable
from itertools import islice

from echod.wire.token_buckets import Rate

__all__ = ["LEAST", "UNLIMITED", "Meter", "Turns"]

#: Bytes that a turn is worth at least, unless a tenth of the rate is less: to read few bytes costs
#: as much as to read many.
LEAST = 256
#: Seconds that a turn waits to be taken.
TAKEN_WITHIN = 0.5
#: What `Meter.allowed` returns where there is no limit.
UNLIMITED = sys.maxsize


def _least(perSecond: int) -> int:
    return max(1, min(LEAST, perSecond // 10))


class Turns:
    """
    What all connections of a listener may read together.

    :param perSecond: bytes that grow back a second, and that there are at most.
    """

    def __init__(self, perSecond: int) -> None:
        self._rate = Rate(perSecond)
        self._least = _least(perSecond)
        self._waiting: dict[Hashable, None] = {}
        # Whose turn it is: how many bytes are kept for that, and until when.
        self._turns: dict[Hashable, tuple[int, float]] = {}
        self._kept = 0
        self._dealtAt = -math.inf

    def allowed(self, who: Hashable, now: float) -> int:
        """How many bytes ``who`` may read at ``now`` (monotonic seconds); if none, it waits."""
        if now > self._dealtAt:
            self._deal(now)
        turn = self._turns.get(who)
        if turn is not None:
            return turn[0]
        free = 0 if self._waiting else self._free(now)
        if free < self._least:
            self._waiting[who] = None
            return 0
        return free

    def spend(self, who: Hashable, now: float, count: int) -> None:
        """It has read so many of what it was allowed."""
        self._rate.spend(now, count)
        turn = self._turns.get(who)
        if turn is not None:
            self._drop(who)
            if turn[0] > count:
                # The rest is for this moment: what is not needed now is dealt to others.
                self._keep(who, turn[0] - count, now)

    def leave(self, who: Hashable) -> None:
        """It does not wait any more, and gives its turn up."""
        self._waiting.pop(who, None)
        if who in self._turns:
            self._drop(who)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._turns)

    def _free(self, now: float) -> int:
        return self._rate.left(now) - self._kept

    def _deal(self, now: float) -> None:
        self._dealtAt = now
        for who in [who for who, (_, until) in self._turns.items() if until < now]:
            self._drop(who)
        free = self._free(now)
        number = min(len(self._waiting), free // self._least)
        for who in list(islice(self._waiting, max(0, number))):
            del self._waiting[who]
            self._keep(who, free // number, now + TAKEN_WITHIN)

    def _keep(self, who: Hashable, count: int, until: float) -> None:
        self._turns[who] = (count, until)
        self._kept += count

    def _drop(self, who: Hashable) -> None:
        self._kept -= self._turns.pop(who)[0]


class Meter:
    """
    What one connection may read.

    :param perSecond: bytes a second of its own; 0 for no limit.
    :param together: what it shares with others, if that is limited.
    """

    def __init__(self, perSecond: int, together: Turns | None) -> None:
        self._own = Rate(perSecond)
        self._least = _least(perSecond) if perSecond else 0
        self._together = together

    def allowed(self, now: float) -> int:
        """How many bytes it may read at ``now`` (monotonic seconds); 0 if it has to wait."""
        allowed = self._own.left(now) if self._least else UNLIMITED
        if allowed < self._least:
            return 0
        if self._together is not None:
            allowed = min(allowed, self._together.allowed(self, now))
        return allowed

    def spend(self, now: float, count: int) -> None:
        """It has read so many of what it was allowed."""
        self._own.spend(now, count)
        if self._together is not None:
            self._together.spend(self, now, count)

    def leave(self) -> None:
        """It wants to read nothing more: others need not wait for it."""
        if self._together is not None:
            self._together.leave(self)
