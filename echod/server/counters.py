"""
What the daemon counts: the sums of its connections, as JSON.

Counters are plain attributes where the bytes pass (`Connection`); here they are summed,
when somebody asks (`Totals.snapshot`) or when a connection is gone (`Totals.add`).

Each counter is defined here, in one sentence: the tables of docs/operations.md are computed from
`PROCESS`, `STREAMS`, `DATAGRAMS` and `REFUSED`.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from echod.connection.connection import Connection
from echod.connection.states import Reason, State, howEnded
from echod.insight.histogram import Exemplar
from echod.insight.refusals import Refusals
from echod.server.distributions import Distributions
from echod.transports.layers import LAYERS
from echod.wire.keys import keyOf

__all__ = [
    "DATAGRAMS",
    "DATAGRAMS_REFUSED",
    "NEVER_OPEN",
    "PROCESS",
    "REFUSED",
    "STREAMS",
    "STREAMS_REFUSED",
    "Totals",
    "toJSON",
]

#: Of the daemon as a whole.
PROCESS = {
    "listeners": "The counters of each listener; one that a reload took away stays until a later"
    " reload finds it without connections.",
    "lag_ms": "How late the last tick of the clock came, in milliseconds.",
    "worst_lag_ms": "The latest tick since the start, in milliseconds.",
    "slow": "How often one event held everybody up for more than 100 ms.",
}
#: Of a listener of connections.
STREAMS = {
    "listener": "Its protocol and endpoint.",
    "open": "Connections that are not closed yet, in whatever state.",
    "accepted": "Connections that came in.",
    "refused": "Connections turned away, by reason.",
    "closed": "Connections that are gone, by reason.",
    "ends": "The same, by reason and by how they ended: `fin`, `rst` (the peer's, or the"
    " network's) or `abort` (RST by echod).",
    "aborted": "Connections that echod ended with RST.",
    "resets": "Connections that the peer, or the network, broke.",
    "stalls": "Connections that were reset because their peer read nothing for `stall_timeout`.",
    "cut": "Connections that were still owed bytes when echod gave up.",
    "cut_bytes": "Bytes that they were owed.",
    "bytes_in": "Bytes of payload that were read for the protocol.",
    "bytes_out": "Bytes of payload that were handed over to be sent.",
    "discarded": "Bytes that were read and thrown away after echod's own end.",
    "messages": "Whole messages that came in, where the protocol has messages.",
    "truncated": "Connections whose peer finished in the middle of a message.",
    "pauses": "How often reading stopped because a peer did not read.",
}
#: Of a listener of datagrams.
DATAGRAMS = {
    "listener": "Its protocol and endpoint.",
    "datagrams_in": "Datagrams that came, refused ones included.",
    "datagrams_out": "Datagrams that were sent.",
    "bytes_in": "Bytes that were in those that came.",
    "bytes_out": "Bytes that were in those that were sent.",
    "refused": "Datagrams that were not answered, by reason.",
    "errors": "Errors of the socket by their names, and of the protocol.",
}
#: Why somebody is turned away: a connection at once, a datagram without an answer.
REFUSED = {
    "denied": "Its address may not come: `allow`, `deny`.",
    "untrusted": "It is not in the networks of `proxy`.",
    "source_full": "Its source has `max_per_source` connections.",
    "source_rate": "Its source came oftener than `new_per_second` or `datagrams_per_second`.",
    "full": "There are `max_connections`, and none has been idle for a second.",
    "protocol": "The protocol wanted no connection.",
    "error": "The protocol raised as it was asked for a connection.",
    "port_zero": "A datagram came from port 0, where nobody can be answered.",
    "own_port": "A datagram came from one of echod's own ports: an answer might make a loop.",
    "reflector": "A datagram came from a port of `reflector_ports`.",
    "not_unicast": "A datagram came from or to broadcast or multicast.",
    "rate": "All sources together have used up ten times `datagrams_per_second`.",
    "header": "A datagram had no PROXY header where there must be one, or half of one.",
    "unasked": "The protocol wanted to send where no datagram was at hand to be answered.",
    "amplified": "The protocol wanted to send more bytes than had come.",
}
#: Which of these there can be at a listener of connections, and at one of datagrams.
STREAMS_REFUSED = ["denied", "untrusted", "source_full", "source_rate", "full", "protocol", "error"]
DATAGRAMS_REFUSED = [
    *("denied", "untrusted", "source_rate", "rate", "header", "port_zero", "own_port"),
    *("reflector", "not_unicast", "unasked", "amplified"),
]

#: Reasons for which a connection ends before its protocol knows of it; that of TLS also later.
NEVER_OPEN = frozenset(
    [Reason.HANDSHAKE.value, *(Reason(why).value for layer in LAYERS for why in layer.reasons)]
)

_SUMMED = ("bytesIn", "bytesOut", "discarded", "messages", "truncated", "pauses")
_summed = operator.attrgetter(*_SUMMED)
_KEYS = tuple(map(keyOf, _SUMMED))

# What tells why one ended, and how.
_Ending = tuple[Reason | None, State, bool]


def _told(ending: _Ending) -> tuple[Reason, str]:
    reason, state, broken = ending
    return reason or Reason.EOF, howEnded(state, broken)


class _Tally:
    """How many ended so, and the last one, where somebody observes it."""

    __slots__ = ("count", "last")

    def __init__(self) -> None:
        self.count = 0
        self.last: Exemplar | None = None


class Totals:
    """
    The counters of one listener.

    :ivar accepted: connections that came in.
    :ivar refused: connections turned away at once, by reason.
    :ivar cut: how many of them were still owed bytes when we gave up.
    :ivar cutBytes: how many bytes these were.
    :ivar distributions: how they were, where somebody observes it.

    What `Connection` counts has the same name here, and is the sum of those that are gone.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = Refusals()
        # Those that are gone, by what tells reason and end.
        self._gone: dict[_Ending, _Tally] = {}
        self.cut = self.cutBytes = 0
        self.bytesIn = self.bytesOut = self.discarded = 0
        self.messages = self.truncated = self.pauses = 0
        self.distributions: Distributions | None = None

    def observe(self, observes: bool) -> None:
        """From now on keep `distributions`, or forget those that there are."""
        if not observes:
            self.distributions = None
            for tally in self._gone.values():
                tally.last = None
        elif self.distributions is None:
            self.distributions = Distributions()

    def add(self, connection: Connection) -> None:
        """Take in the counters of a connection that is gone."""
        ending = connection.reason, connection.state, connection.broken
        tally = self._gone.get(ending)
        if tally is None:
            tally = self._gone[ending] = _Tally()
        tally.count += 1
        cut = connection.cut
        if cut:
            self.cut += 1
            self.cutBytes += cut
        received = connection.bytesIn
        self.bytesIn += received
        self.bytesOut += connection.bytesOut
        self.discarded += connection.discarded
        self.messages += connection.messages
        self.truncated += connection.truncated
        self.pauses += connection.pauses
        if self.distributions is not None:
            example = self.distributions.add(connection, received)
            if example is not None:
                tally.last = example

    @property
    def ends(self) -> Counter[tuple[Reason, str]]:
        """Connections that are gone, by reason and end (`howEnded`)."""
        ends: Counter[tuple[Reason, str]] = Counter()
        for ending, tally in self._gone.items():
            ends[_told(ending)] += tally.count
        return ends

    @property
    def last(self) -> dict[tuple[Reason, str], Exemplar]:
        """The last of them of each reason and end, where somebody observes it."""
        return {_told(ending): tally.last for ending, tally in self._gone.items() if tally.last}

    @property
    def closed(self) -> Counter[str]:
        """Connections that are gone, by reason."""
        closed: Counter[str] = Counter()
        for (reason, _), count in self.ends.items():
            closed[reason.value] += count
        return closed

    def ended(self, how: str) -> int:
        """How many of them ended so (`howEnded`)."""
        return sum(count for (_, end), count in self.ends.items() if end == how)

    def turnedAway(self) -> Counter[str]:
        """Those refused, and those that never came past a header or a handshake."""
        closed = self.closed
        return self.refused + Counter({why: closed[why] for why in NEVER_OPEN})

    def snapshot(self, live: Iterable[Connection]) -> dict[str, Any]:
        """All counters, the connections that still live included; plain values."""
        connections = list(live)
        closed = self.closed
        return {
            "open": len(connections),
            "accepted": self.accepted,
            "refused": dict(self.refused),
            "closed": dict(closed),
            "ends": self._endsByReason(),
            "aborted": self.ended("abort"),
            "resets": self.ended("rst"),
            "stalls": closed[Reason.STALLED.value],
            "cut": self.cut,
            "cut_bytes": self.cutBytes,
            **dict(zip(_KEYS, self.sumsWith(connections), strict=True)),
        }

    def _endsByReason(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for (reason, end), count in self.ends.items():
            found.setdefault(reason.value, {})[end] = count
        return found

    def sumsWith(self, connections: Iterable[Connection]) -> list[int]:
        """The sums of those that are gone, and of these: bytes in and out, and so on."""
        sums = list(_summed(self))
        for connection in connections:
            sums = list(map(operator.add, sums, _summed(connection)))
        return sums


def toJSON(value: object) -> str:
    """One line of JSON."""
    return msgspec.json.encode(value).decode()
