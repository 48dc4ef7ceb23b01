"""
What can be told of a connection: `rowOf` while it lives, `endedOf` once it is gone.

Both only look.  The first is asked for now and then, by whoever wants to see a list.  The second is
asked for each connection, where the dead are kept: it copies values, and makes no text.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

import msgspec

from echod.connection.connection import Connection
from echod.connection.states import Reason, State, endedBy, howEnded
from echod.insight.identity import idOf
from echod.insight.peers import tellPeer
from echod.insight.timeline import Timeline
from echod.interfaces import IConnectionTransport, LastFacts
from echod.transports.layers import LAYERS

__all__ = ["Ended", "endedOf", "peerOf", "rowOf"]

#: What is kept of what a peer wrote: characters of a value (a subject, a name), and values.
LONGEST, MOST = 128, 16


def peerOf(transport: IConnectionTransport) -> object:
    """
    Who the peer is, for `tellPeer`.

    Over a network its address, over a UNIX socket process, user and group; but if a PROXY header
    told of somebody, that is who.
    """
    header = transport.proxied
    if header is not None and header.source is not None:
        return transport.getPeer()
    if transport.credentials is not None:
        return transport.credentials
    # What accept(2) said needs no object more.
    client = getattr(transport, "client", None)
    return transport.getPeer() if client is None else client


def rowOf(connection: Connection, now: float) -> dict[str, object]:
    """
    What there is to see of one that lives, as plain values.

    :param now: monotonic seconds.
    """
    listener, protocol = connection.owner.place
    transport = connection.transport
    unsent = transport.unsent()
    deadline = connection.nextDeadline(now, unsent)
    facts = transport.facts()
    reason = connection.reason
    return {
        "id": connection.id,
        "listener": listener,
        "protocol": protocol,
        "peer": tellPeer(peerOf(transport)),
        "state": connection.state.value,
        "age": _seconds(now - connection.openedAt),
        "idle": _seconds(now - max(connection.openedAt, connection.quietSince())),
        "bytes_in": connection.bytesIn,
        "bytes_out": connection.bytesOut,
        "unsent": connection.unacknowledged(unsent),
        "unread": transport.queued(),
        "messages": connection.messages,
        "discarded": connection.discarded,
        "pauses": connection.pauses,
        "paused": connection.pausedBy(),
        "reason": None if reason is None else reason.value,
        "next_deadline": None
        if deadline is None
        else {"name": deadline.name, "in": _seconds(deadline.at - now)},
        **(_layers(facts) if facts else _NOTHING),
    }


# What rows call what each layer found out.
_LAYERS = {layer.name: layer.rowName or layer.name for layer in LAYERS}
# Where no layer has found out anything.
_NOTHING = dict.fromkeys(_LAYERS.values())


class Ended(NamedTuple):
    """
    What there is to keep of one that is gone; the first fields are copied at one go.

    :ivar reason: why it ended, ``state`` and ``broken`` how, ``brokenBy`` by which error.
    :ivar cut: bytes that the peer was still owed when we gave up.
    :ivar replied: bytes that its protocol answered, ``echoed`` those that were echoed unseen.
    :ivar client: who it was, as accept(2) said, ``credentials`` as a UNIX socket did.
    :ivar failure: what failed in TLS or in a header, if anything did.
    :ivar lastFacts: what the kernel knew as it was closed, where it was asked.
    :ivar overhead: see `IConnectionTransport.overhead`.
    :ivar place: its listener and its protocol.
    :ivar number: see `echod.insight.identity`.
    :ivar closedAt: monotonic seconds, to a tenth; so is ``openedAt``.
    :ivar layers: what the layers found out, and ``toldPeer`` who the peer is, as text; ``None``
        where there are none.
    """

    reason: Reason | None
    state: State
    broken: bool
    cut: int
    openedAt: float
    timeline: Timeline | None
    seen: int
    replied: int
    discarded: int
    messages: int
    truncated: int
    pauses: int
    echoed: int
    client: tuple[object, ...]
    credentials: tuple[int, int, int] | None
    failure: str | None
    brokenBy: int
    lastFacts: LastFacts | None
    overhead: int
    place: tuple[str, str]
    number: int
    closedAt: float
    layers: Mapping[str, object] | None
    toldPeer: str | None

    @property
    def why(self) -> str:
        """The reason's name."""
        return (self.reason or Reason.EOF).value

    @property
    def peer(self) -> str:
        """Who it was, as text."""
        if self.toldPeer is not None:
            return self.toldPeer
        return tellPeer(self.credentials or self.client)

    @property
    def bytesOut(self) -> int:
        """See `Connection.bytesOut`."""
        return self.replied + self.echoed

    @property
    def unacknowledged(self) -> int | None:
        """
        Bytes that the peer had not acknowledged at its RST; ``None`` where that is not known.

        It may have some of them: an acknowledgement can wait for 40 ms, and then comes none.
        """
        if not self.broken or self.lastFacts is None:
            return None
        left = self.bytesOut + self.overhead - self.lastFacts.acknowledged
        return max(0, min(left, self.bytesOut))

    def told(self) -> dict[str, object]:
        """What there is to tell, as plain values; but for when it was, in the time of clocks."""
        lived = self.closedAt - self.openedAt
        timeline = self.timeline
        if timeline is not None:
            # Not to a tenth of a second.
            lived = timeline.seconds
        listener, protocol = self.place
        return {
            "id": idOf(self.number),
            "listener": listener,
            "protocol": protocol,
            "peer": self.peer,
            "state": self.state.value,
            "seconds": round(max(0.0, lived), 6),
            "bytes_in": self.seen + self.echoed,
            "bytes_out": self.bytesOut,
            "messages": self.messages,
            "discarded": self.discarded,
            "truncated": self.truncated,
            "pauses": self.pauses,
            "reason": self.why,
            "end": howEnded(self.state, self.broken),
            "ended_by": endedBy(self.reason, self.broken, self.brokenBy),
            "owed": self.cut,
            "unacknowledged": self.unacknowledged,
            "failure": self.failure,
            **(self.layers or _NOTHING),
            **({} if self.lastFacts is None else self.lastFacts.told()),
            "timeline": None if timeline is None else timeline.told(),
        }


# In the order of the fields of `Ended`; read at one go, which is not a call of Python's for each.
_copied = operator.attrgetter(
    *("reason", "state", "broken", "cut", "openedAt", "timeline", "_seen", "_replied"),
    *("discarded", "messages", "truncated", "pauses", "transport.echoedBytes"),
    *("transport.client", "transport.credentials", "transport.failure", "transport.brokenBy"),
    *("transport.lastFacts", "transport.overhead", "owner.place"),
)


def endedOf(connection: Connection, now: float, layered: bool = False) -> Ended:
    """
    What there is to keep of one that is gone.

    :param now: monotonic seconds.
    :param layered: whether there are layers that may have found something out.
    """
    layers = toldPeer = None
    if layered:
        transport = connection.transport
        layers, toldPeer = _layers(transport.facts()), tellPeer(peerOf(transport))
    # Ended(…), which is a call of Python's more.
    number = connection._number or connection.number
    return tuple.__new__(Ended, (*_copied(connection), number, now, layers, toldPeer))


def _seconds(seconds: float) -> float:
    return round(max(0.0, seconds), 3)


def _layers(facts: Mapping[str, object]) -> dict[str, object]:
    """What the layers found out, as plain values that are not too long; ``None``: nothing."""
    found: dict[str, object] = msgspec.to_builtins(facts)
    return {told: _short(found.get(name)) for name, told in _LAYERS.items()}


def _short(value: object) -> object:
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]}…"
    if isinstance(value, Mapping):
        return {key: _short(each) for key, each in islice(value.items(), MOST)}
    if isinstance(value, list):
        return [_short(each) for each in value[:MOST]]
    return value
