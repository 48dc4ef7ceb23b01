"""
What can be told of a connection: `rowOf` while it lives, `endedOf` once it is gone.

Both only look.  The first is asked for now and then, by whoever wants to see a list.  The second is
asked for each connection, where the dead are kept: it copies values, and makes no text.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping

import msgspec

from echod.connection.connection import Connection
from echod.connection.states import Reason, State
from echod.insight.peers import tellPeer
from echod.insight.shelf import Ended
from echod.interfaces import IConnectionTransport
from echod.wire.keys import keyOf

__all__ = ["COUNTS", "endedOf", "peerOf", "rowOf"]

#: Characters of what a peer wrote that are kept of each value: a subject, a name, a header's field.
LONGEST = 256

_COUNTED = ("bytesIn", "bytesOut", "discarded", "messages", "truncated", "pauses")
#: What `Ended.counts` are.
COUNTS = tuple(map(keyOf, _COUNTED))
_counts = operator.attrgetter(*_COUNTED)
_NAMES = {reason: reason.value for reason in Reason}
_ABORTED = State.ABORTED


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


def rowOf(connection: Connection, place: tuple[str, str], now: float) -> dict[str, object]:
    """
    What there is to see of one that lives, as plain values.

    :param place: its listener, and its protocol.
    :param now: monotonic seconds.
    """
    transport = connection.transport
    deadline = connection.nextDeadline(now)
    reason = connection.reason
    return {
        "id": connection.id,
        "listener": place[0],
        "protocol": place[1],
        "peer": tellPeer(peerOf(transport)),
        "state": connection.state.value,
        "age": _seconds(now - connection.openedAt),
        "idle": _seconds(now - max(connection.openedAt, connection.quietSince())),
        "bytes_in": connection.bytesIn,
        "bytes_out": connection.bytesOut,
        "unsent": transport.unsent(),
        "unread": transport.queued(),
        "messages": connection.messages,
        "discarded": connection.discarded,
        "pauses": connection.pauses,
        "paused": connection.pausedBy(),
        "reason": None if reason is None else reason.value,
        "next_deadline": None
        if deadline is None
        else {"name": deadline.name, "in": _seconds(deadline.at - now)},
        **_layers(transport.facts()),
    }


def endedOf(
    connection: Connection,
    place: tuple[str, str],
    now: float,
    kernel: Mapping[str, object] | None = None,
) -> Ended:
    """
    What there is to keep of one that is gone.

    :param kernel: what the kernel knew of it, if anybody asked.
    """
    transport = connection.transport
    layers = transport.facts() or None
    weight = 0
    if layers is not None or kernel is not None:
        layers = _layers(layers or {})
        weight = 2 * len(msgspec.json.encode((layers, kernel)))
    # Ended(…), which is a call of Python's more.
    return tuple.__new__(
        Ended,
        (
            connection.number,
            place,
            peerOf(transport),
            connection.openedAt,
            now,
            _counts(connection),
            _NAMES[connection.reason or Reason.EOF],
            connection.endedHow,
            connection.endedBy,
            connection.cut,
            transport.failure,
            layers,
            kernel,
            connection.timeline,
            weight,
        ),
    )


def _seconds(seconds: float) -> float:
    return round(max(0.0, seconds), 3)


def _layers(facts: Mapping[str, object]) -> dict[str, object]:
    """What the layers found out, as plain values that are not too long."""
    found: dict[str, object] = msgspec.to_builtins(facts)
    return {key: _short(value) for key, value in found.items()}


def _short(value: object) -> object:
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]}…"
    if isinstance(value, Mapping):
        return {key: _short(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_short(each) for each in value]
    return value
