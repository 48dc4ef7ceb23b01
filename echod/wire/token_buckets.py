"""
How often something may happen: token buckets, one for each source, in a table of bounded size.

Pure: the caller says what time it is.  A bucket is one number, the time at which it will be full
again (the generic cell rate algorithm, ITU-T I.371 annex A): taking a token moves that time on by
the time that one token needs to grow back, and a bucket is empty when it lies further ahead than
the burst allows.  A bucket that is full again needs no number at all, so forgetting the oldest
costs nobody more than a fresh burst; two generations of the table take turns.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["SOURCES", "Rate", "Rates"]

#: Sources that a generation of a table remembers; there are two.
SOURCES = 8192
#: Seconds, and parts of a token, by which sums of floating-point numbers may be wrong: a full
#: bucket has all of its tokens.
ROUNDING, PART = 1e-9, 1e-6


class Rate:
    """
    One bucket.

    :param perSecond: tokens that grow back a second; 0 for no limit.
    :param burst: tokens that a full one holds; as many as grow back in a second if not given.
    """

    def __init__(self, perSecond: float, burst: float | None = None) -> None:
        self._cost = 1 / perSecond if perSecond else 0.0
        self._ahead = (perSecond if burst is None else burst) * self._cost
        self._fullAt = 0.0

    def take(self, now: float, tokens: float = 1) -> bool:
        """Take tokens at ``now`` (monotonic seconds), or say that there are not enough."""
        if not self._cost:
            return True
        fullAt = max(self._fullAt, now) + tokens * self._cost
        if fullAt - now > self._ahead + ROUNDING:
            return False
        self._fullAt = fullAt
        return True

    def left(self, now: float) -> int:
        """
        How many whole tokens there are at ``now``.

        :raises ZeroDivisionError: there is no limit.
        """
        return int((self._ahead - max(0.0, self._fullAt - now)) / self._cost + PART)

    def spend(self, now: float, tokens: float) -> None:
        """Take tokens that `left` has told of."""
        self._fullAt = max(self._fullAt, now) + tokens * self._cost


class Rates:
    """
    A bucket for each source.

    :param perSecond: tokens that grow back a second, each; 0 for no limit.
    :param sources: how many sources a generation remembers.
    """

    def __init__(self, perSecond: float, sources: int = SOURCES) -> None:
        self._cost = 1 / perSecond if perSecond else 0.0
        self._sources = sources
        self._young: dict[Hashable, float] = {}
        self._old: dict[Hashable, float] = {}

    def take(self, source: Hashable, now: float) -> bool:
        """Take a token of a source's at ``now`` (monotonic seconds), or say that there is none."""
        cost = self._cost
        if not cost:
            return True
        young = self._young
        fullAt = young.get(source)
        if fullAt is None:
            fullAt = self._old.get(source, now)
            if len(young) >= self._sources:
                self._old, self._young = young, {}
                young = self._young
        taken = max(fullAt, now) + cost
        enough = taken - now <= 1 + ROUNDING
        # A refusal too: the older generation goes first, and an empty bucket with it.
        young[source] = taken if enough else fullAt
        return enough

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
