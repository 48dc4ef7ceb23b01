"""
Connections that are gone, and what there was to tell of them: `Shelf`.

It keeps the last `RECENT`, and of each reason the last `OF_EACH` whatever else came, so that a
thousand health checks do not drive out the one reset that matters.  Those that did nothing worth
telling (no byte came, or they only asked about the others) are kept apart: the last `APART`.

However much there is to tell of each, all of it together is `BYTES` at most: then the oldest of
where most is kept go first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import chain
from typing import NamedTuple

from echod.insight.timeline import Timeline

__all__ = ["APART", "BYTES", "OF_EACH", "RECENT", "Ended", "Shelf"]

#: Connections that are kept: of all, of each reason, and of those apart.
RECENT, OF_EACH, APART = 1000, 50, 200
#: Bytes that the shelf holds at most, by its own reckoning, which is rather too high.
BYTES = 16 << 20
#: What one takes, and each entry of its timeline.  Measured with CPython 3.11: 620 and 145.
_ONE, _ENTRY = 768, 160


class Ended(NamedTuple):
    """
    One that is gone.

    :ivar number: see `echod.insight.identity`.
    :ivar place: its listener and its protocol.
    :ivar peer: who it was, for `echod.insight.peers.tellPeer`.
    :ivar openedAt: monotonic seconds; so is ``closedAt``.
    :ivar counts: bytes in and out, bytes discarded, messages, truncated, pauses.
    :ivar reason: why it ended, ``end`` how, ``endedBy`` who did it: as `/closed` tells them.
    :ivar owed: bytes that the peer was still owed when we gave up.
    :ivar failure: what failed in TLS or in a header, if anything did.
    :ivar layers: what the layers found out (`IConnectionTransport.facts`).
    :ivar kernel: what the kernel knew of it at its end, where somebody asked.
    :ivar weight: bytes that ``layers`` and ``kernel`` take, about.
    """

    number: int
    place: tuple[str, str]
    peer: object
    openedAt: float
    closedAt: float
    counts: tuple[int, ...]
    reason: str
    end: str
    endedBy: str
    owed: int
    failure: str | None
    layers: Mapping[str, object] | None
    kernel: Mapping[str, object] | None
    timeline: Timeline | None
    weight: int


class _Section:
    """The last few of some."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.ended: deque[Ended] = deque()

    def put(self, ended: Ended) -> int:
        """Keep it; returns by how many bytes more is kept now."""
        self.ended.append(ended)
        weight = _weightOf(ended)
        return weight - self.drop() if len(self.ended) > self._most else weight

    def drop(self) -> int:
        """Forget the oldest; returns what it weighed."""
        return _weightOf(self.ended.popleft())


def _weightOf(ended: Ended) -> int:
    timeline = ended.timeline
    return _ONE + ended.weight + (_ENTRY * len(timeline) if timeline is not None else 0)


class Shelf:
    """
    Those that are gone.

    :param most: bytes that it holds at most.
    """

    def __init__(self, most: int = BYTES) -> None:
        self._most = most
        self._recent, self._apart = _Section(RECENT), _Section(APART)
        self._reasons: dict[str, _Section] = {}
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes that it holds, about; what is in two sections is counted twice."""
        return self._held

    def put(self, ended: Ended, apart: bool = False) -> None:
        """
        Keep one more.

        :param apart: whether it did nothing worth telling.
        """
        if apart:
            self._held += self._apart.put(ended)
        else:
            section = self._reasons.get(ended.reason)
            if section is None:
                section = self._reasons[ended.reason] = _Section(OF_EACH)
            self._held += self._recent.put(ended) + section.put(ended)
        while self._held > self._most:
            self._held -= max(self._sections(), key=lambda each: len(each.ended)).drop()

    def all(self, reason: str = "") -> list[Ended]:
        """All that are kept, or all of one reason; the newest first."""
        everybody = {
            ended.number: ended
            for ended in chain.from_iterable(section.ended for section in self._sections())
            if not reason or ended.reason == reason
        }
        return sorted(everybody.values(), key=lambda ended: ended.closedAt, reverse=True)

    def find(self, number: int) -> Ended | None:
        """The one with this number, if it is kept."""
        for section in self._sections():
            for ended in section.ended:
                if ended.number == number:
                    return ended
        return None

    def _sections(self) -> list[_Section]:
        return [self._recent, self._apart, *self._reasons.values()]
