"""
The stream of snapshots at ``/events``: `Events`, one for all who look on.

Server-Sent Events (WHATWG HTML, section 9.2): a snapshot is made once a second, and each reader
gets it.  One that has not had the last yet gets none: nothing is queued for it, and when it reads
again it gets the newest.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from zope.interface import implementer

from echod.admin.bodies import Reply, line
from echod.admin.channel import AdminRequest
from echod.admin.safe_json import safeJSON
from echod.interfaces import ServerContext
from echod.wire.timestamps import rfc3339

__all__ = ["MOST_STREAMS", "Events"]

#: Readers at a time.
MOST_STREAMS = 16
#: Seconds from a snapshot to the next.
PERIOD = 1.0
#: Milliseconds after which a browser that has lost its stream asks again.
RETRY = 3000
#: Connections that are gone, in a snapshot.
ENDS = 10

#: Counters that a snapshot has of each listener; of those that only grow, the rates too.
_STANDING = ("open",)
_GROWING = ("accepted", "closed", "bytes_in", "bytes_out", "datagrams_in", "datagrams_out")


class Events:
    """
    Makes snapshots while somebody looks on.

    :param context: the server.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._streams: list[_Stream] = []
        # Whether the server drains: nobody may begin to look on.
        self._ended = False
        self._timer: IDelayedCall | None = None
        # The last snapshot, and what it was made of: when, and the counters.
        self._latest = b""
        self._before: tuple[float, Mapping[str, Mapping[str, int]]] | None = None

    def begin(self) -> None:
        """Let whoever wants look on."""
        self._ended = False

    def serve(self, request: AdminRequest) -> Reply | None:
        """Begin a stream; or what is to be answered in place of one."""
        # One stream a connection: whoever has looked on is to go.
        request.channel.persistent = 0
        if self._ended:
            return line(503, "draining")
        reply = Reply(kind=b"text/event-stream; charset=utf-8", pieces=iter(()))
        if request.method == b"HEAD":
            return reply
        if len(self._streams) >= MOST_STREAMS:
            why = f"{MOST_STREAMS} look on already, which is all that may"
            return line(429, why, (b"Retry-After", b"5"))
        request.begin(reply)
        if not self._streams:
            self._make()
            self._timer = self._context.clock.callLater(PERIOD, self._tick)
        stream = _Stream(request, self)
        self._streams.append(stream)
        stream.send(b"retry: %d\n\n%b" % (RETRY, self._latest))
        return None

    def end(self) -> None:
        """Tell all that it is over, and let nobody begin."""
        self._ended = True
        for stream in list(self._streams):
            stream.finish()

    def left(self, stream: _Stream) -> None:
        """It is over for one."""
        if stream in self._streams:
            self._streams.remove(stream)
        if not self._streams and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._before = None

    def _tick(self) -> None:
        self._timer = self._context.clock.callLater(PERIOD, self._tick)
        self._make()
        for stream in list(self._streams):
            stream.offer(self._latest)

    def _make(self) -> None:
        data = safeJSON({"format": "echod-snapshot/1", **self._snapshot()})
        self._latest = b"event: snapshot\ndata: %b\n\n" % data

    def _snapshot(self) -> dict[str, Any]:
        context = self._context
        seconds = context.clock.seconds()
        counters = context.counters()
        listeners, reasons = _told(counters["listeners"])
        passed, before = 0.0, None
        if self._before is not None:
            passed, before = seconds - self._before[0], self._before[1]
        self._before = seconds, listeners
        return {
            "time": rfc3339(time.time()),
            "health": context.health,
            "lag_ms": counters["lag_ms"],
            "worst_lag_ms": counters["worst_lag_ms"],
            "listeners": [
                {"listener": name, **told, "per_second": _rates(told, name, before, passed)}
                for name, told in listeners.items()
            ],
            "closed": reasons,
            "ends": [
                {key: value for key, value in row.items() if key != "timeline"}
                for row in islice(context.insight.closed(), ENDS)
            ],
        }


def _told(
    listeners: list[dict[str, Any]],
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """What a snapshot has of each listener, by what it is called; and of all, by reason."""
    told: dict[str, dict[str, int]] = {}
    reasons: Counter[str] = Counter()
    for each in listeners:
        closed = each.get("closed", {})
        reasons.update(closed)
        values = {**each, "closed": sum(closed.values())} if "closed" in each else each
        found = {key: values[key] for key in (*_STANDING, *_GROWING) if key in values}
        # One that a reload has replaced may be called the same: they are told as one.
        same = told.get(each["listener"], {})
        told[each["listener"]] = {key: count + same.get(key, 0) for key, count in found.items()}
    return told, dict(reasons)


def _rates(
    told: Mapping[str, int],
    name: str,
    before: Mapping[str, Mapping[str, int]] | None,
    passed: float,
) -> dict[str, float] | None:
    """How much more of each there is a second; ``None`` in the first snapshot."""
    if before is None or passed <= 0:
        return None
    last = before.get(name, {})
    # One that was replaced is gone at some time, with what it has counted.
    return {
        key: round(max(0, told[key] - last.get(key, 0)) / passed, 1)
        for key in _GROWING
        if key in told
    }


@implementer(IPushProducer)
class _Stream:
    """One who looks on."""

    def __init__(self, request: AdminRequest, events: Events) -> None:
        self._request = request
        self._events = events
        self._connection = request.channel.connection
        request.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """What is offered is not taken, as long as something is unsent."""

    def resumeProducing(self) -> None:
        """The next that is offered is taken."""

    def stopProducing(self) -> None:
        """The peer has gone."""
        self._events.left(self)

    def offer(self, data: bytes) -> None:
        """Send it, if the peer has all that was sent before."""
        if not self._connection.attempt(self._connection.transport.unsent, otherwise=1):
            self.send(data)

    def send(self, data: bytes) -> None:
        """Send it."""
        self._connection.attempt(self._request.write, data)

    def finish(self) -> None:
        """Say that it is over, and end."""
        self._events.left(self)
        self._connection.attempt(self._last)

    def _last(self) -> None:
        self._request.write(b"event: end\ndata: {}\n\n")
        self._request.end()
