"""
What the daemon counts: the sums of its connections, as JSON.

Counters are plain attributes where the bytes pass (`Connection`); here they are summed,
when somebody asks (`Totals.snapshot`) or when a connection is gone (`Totals.add`).
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from echod.connection.connection import Connection
from echod.connection.states import Reason, State
from echod.wire.keys import keyOf

__all__ = ["Totals", "toJSON"]

#: Reasons for which a connection ends before its protocol knows of it; TLS also later.
_NEVER_OPEN = (Reason.HANDSHAKE.value, Reason.HEADER.value, Reason.TLS.value)

_SUMMED = ("bytesIn", "bytesOut", "discarded", "messages", "truncated", "pauses")
_summed = operator.attrgetter(*_SUMMED)
_KEYS = tuple(map(keyOf, _SUMMED))


class Totals:
    """
    The counters of one listener.

    :ivar accepted: connections that came in.
    :ivar refused: connections turned away at once, by reason.
    :ivar closed: connections that are gone, by `Reason`.
    :ivar aborted: how many of them we ended with RST.
    :ivar resets: how many of them the peer, or the network, broke.
    :ivar cut: how many of them were still owed bytes when we gave up.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.aborted = 0
        self.resets = 0
        self.cut = 0
        self._sums = [0] * len(_SUMMED)

    def add(self, connection: Connection) -> None:
        """Take in the counters of a connection that is gone."""
        self.closed[(connection.reason or Reason.EOF).value] += 1
        self.aborted += connection.state is State.ABORTED
        self.resets += connection.broken
        self.cut += connection.cut > 0
        self._sums = self._sumsWith([connection])

    def turnedAway(self) -> Counter[str]:
        """Those refused, and those that never came past a header or a handshake."""
        return self.refused + Counter({why: self.closed[why] for why in _NEVER_OPEN})

    def snapshot(self, live: Iterable[Connection]) -> dict[str, Any]:
        """All counters, the connections that still live included; plain values."""
        connections = list(live)
        return {
            "open": len(connections),
            "accepted": self.accepted,
            "refused": dict(self.refused),
            "closed": dict(self.closed),
            "aborted": self.aborted,
            "resets": self.resets,
            "stalls": self.closed[Reason.STALLED.value],
            "cut": self.cut,
            **dict(zip(_KEYS, self._sumsWith(connections), strict=True)),
        }

    def _sumsWith(self, connections: Iterable[Connection]) -> list[int]:
        sums = list(self._sums)
        for connection in connections:
            sums = list(map(operator.add, sums, _summed(connection)))
        return sums


def toJSON(value: Any) -> str:
    """One line of JSON."""
    return msgspec.json.encode(value).decode()
