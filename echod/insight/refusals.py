"""
Who was turned away: `Refusals`, counted always, and kept where somebody wants to know.

Of each reason the last `KEPT` are kept, with the time and the address, so that a flood for one
reason leaves the others to be seen.  That is at most some 200 bytes each.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import NamedTuple

from echod.insight.peers import tellPeer

__all__ = ["KEPT", "Refusal", "Refusals"]

#: Refusals that are kept of each reason.
KEPT = 50


class Refusal(NamedTuple):
    """
    Somebody was turned away.

    :ivar reason: why, as counters name it.
    :ivar peer: who, for `echod.insight.peers.tellPeer`.
    :ivar at: when, in seconds since 1970.
    """

    reason: str
    peer: object
    at: float

    def told(self) -> str:
        """Who, as text: ``192.0.2.7:40000``; empty if that has no name."""
        return tellPeer(self.peer)


class Refusals(Counter[str]):
    """
    How many one endpoint has turned away, by reason.

    :ivar example: who was the last, since somebody took it away; ``None`` if nobody was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.example: object = None
        # By reason, if they are kept; written by keep and add.
        self._kept: dict[str, deque[Refusal]] | None = None

    def keep(self, kept: bool) -> None:
        """From now on keep them, or forget those that there are."""
        if not kept:
            self._kept = None
        elif self._kept is None:
            self._kept = {}

    def add(self, reason: str, peer: object) -> None:
        """
        One more was turned away.

        :param peer: who, for `echod.insight.peers.tellPeer`.
        """
        self[reason] += 1
        self.note(reason, peer)

    def note(self, reason: str, peer: object) -> None:
        """One more was, which is counted elsewhere."""
        self.example = peer
        if self._kept is not None:
            of = self._kept.get(reason)
            if of is None:
                of = self._kept[reason] = deque(maxlen=KEPT)
            of.append(Refusal(reason, peer, time.time()))

    def kept(self) -> list[Refusal]:
        """All that are kept, in no order."""
        return [each for of in (self._kept or {}).values() for each in of]
