"""
Those that are gone, and what there was to tell of them: `Shelf`.

It keeps the last `RECENT`, and of each reason the last `OF_EACH` whatever else came, so that a
thousand health checks do not drive out the one reset that matters.  Those that did nothing worth
telling (no byte came, or they only asked about the others) are kept apart from the last ones: the
last `APART` of them.

It holds 32 MiB at most.  That is 2100 of them with what peers wrote (4 KiB of each at most), what
the kernel knew (0.5 KiB) and `SHORT` entries of a timeline (5 KiB).  Longer timelines are kept as
long as all of them together have no more than `ENTRIES`; then the oldest are made short.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from echod.insight.timeline import Timeline

__all__ = ["APART", "ENTRIES", "OF_EACH", "RECENT", "SHORT", "Gone", "Shelf"]

#: How many are kept: of all, of each reason, and of those apart.
RECENT, OF_EACH, APART = 1000, 50, 200
#: Entries of a timeline that is short; and of all that are longer.
SHORT, ENTRIES = 32, 50_000


class Gone(Protocol):
    """One that is gone."""

    @property
    def number(self) -> int:
        """Tells it from others."""

    @property
    def closedAt(self) -> float:
        """When that was, in monotonic seconds."""


_Ended = TypeVar("_Ended", bound=Gone)


class Shelf(Generic[_Ended]):
    """Those that are gone."""

    def __init__(self) -> None:
        self._recent: deque[_Ended] = deque(maxlen=RECENT)
        self._apart: deque[_Ended] = deque(maxlen=APART)
        self._reasons: dict[str, deque[_Ended]] = {}
        # The timelines that are not short, and how many entries they have.
        self._long: deque[Timeline] = deque()
        self._entries = 0

    def put(self, ended: _Ended, reason: str, apart: bool = False) -> None:
        """
        Keep one more.

        :param reason: why it ended; empty: for none that others would be looked for by.
        :param apart: whether it did nothing worth telling.
        """
        (self._apart if apart else self._recent).append(ended)
        if not reason:
            return
        of = self._reasons.get(reason)
        if of is None:
            of = self._reasons[reason] = deque(maxlen=OF_EACH)
        of.append(ended)

    def weigh(self, timeline: Timeline) -> None:
        """To be called for each timeline that may be long, as its connection is put here."""
        if len(timeline) <= SHORT:
            return
        self._long.append(timeline)
        self._entries += len(timeline)
        while self._entries > ENTRIES:
            oldest = self._long.popleft()
            self._entries -= len(oldest)
            oldest.shorten(SHORT)

    def all(self) -> list[_Ended]:
        """All that are kept, the newest first."""
        found = {ended.number: ended for ended in self._everybody()}
        return sorted(
            found.values(), key=lambda ended: (ended.closedAt, ended.number), reverse=True
        )

    def find(self, number: int) -> _Ended | None:
        """The one with this number, if it is kept."""
        return next((ended for ended in self._everybody() if ended.number == number), None)

    def _everybody(self) -> Iterator[_Ended]:
        yield from self._recent
        yield from self._apart
        for of in self._reasons.values():
            yield from of
