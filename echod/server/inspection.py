"""
What happens at a service, and what has happened, as plain values: `Inspection`.

An `echod.interfaces.ServerInsight` of a service.  Like the context of makers it holds nothing but
the service, and asks when it is asked.  A row of a list costs some microseconds; whoever asks for
many takes them a few at a time.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from echod.connection.connection import Connection
from echod.connection.rows import Ended, rowOf
from echod.connection.states import GONE, Reason, State
from echod.errors import ConfigurationError, UnknownWord
from echod.insight.identity import numberOf
from echod.insight.peers import tellPeer
from echod.insight.refusals import Refusal
from echod.insight.shelf import Shelf
from echod.insight.timeline import Timeline
from echod.measurements import Measurements
from echod.server.counters import NEVER_OPEN, REFUSED
from echod.server.listener import Listener
from echod.server.plan import Plan
from echod.server.plan_rows import listenerRow, servedConfiguration
from echod.server.reload_record import ReloadRecord
from echod.wire.networks import Networks
from echod.wire.timestamps import rfc3339

__all__ = ["Inspection"]


def _pending(connection: Connection) -> int:
    """What its row has as ``unsent`` and ``unread``."""
    transport = connection.transport
    return connection.unacknowledged(transport.unsent()) + transport.queued()


#: What rows may be sorted by; the greatest comes first.
_ORDERS: dict[str, Callable[[Connection], float]] = {
    "age": lambda connection: -connection.openedAt,
    "bytes": lambda connection: connection.bytesIn + connection.bytesOut,
    "idle": lambda connection: -max(connection.openedAt, connection.quietSince()),
    "pending": _pending,
}
#: Connections that are looked at in one go.
_BATCH = 64
_STATES = [state.value for state in State if state not in (*GONE, State.NEW)]
_REASONS = [reason.value for reason in Reason]
_REFUSED = {*REFUSED, *NEVER_OPEN}


class _Inspected(Protocol):
    """What is asked of a service."""

    @property
    def listeners(self) -> Iterable[Listener]: ...
    @property
    def shelf(self) -> Shelf[Ended] | None: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def reloads(self) -> ReloadRecord: ...
    def everybody(self) -> list[Listener]: ...
    def now(self) -> float: ...
    def measurements(self) -> Measurements: ...


class Inspection:
    """An `echod.interfaces.ServerInsight` of a service."""

    def __init__(self, service: _Inspected) -> None:
        self._service = service

    # -- Connections -----------------------------------------------------------------------

    def connections(
        self, *, listener: str = "", state: str = "", source: str = "", sort: str = "age"
    ) -> Iterator[dict[str, object]]:
        """See `ServerInsight.connections`."""
        _check("state", state, _STATES)
        _check("sort", sort, sorted(_ORDERS))
        try:
            networks = Networks([source], []) if source else None
        except ConfigurationError as error:
            raise UnknownWord(f"source {source!r} is no network: {error}") from error
        there = [one for each in self._service.everybody() for one in each.connections()]

        def asked(connection: Connection) -> bool:
            return (
                connection.state not in GONE
                and listener in connection.owner.place[0]
                and (not state or connection.state.value == state)
                and (networks is None or _isIn(networks, connection))
            )

        return self._rows(there, asked, _ORDERS[sort])

    def _rows(
        self,
        there: list[Connection],
        asked: Callable[[Connection], bool],
        order: Callable[[Connection], float],
    ) -> Iterator[dict[str, object]]:
        found: list[Connection] = []
        keys = array("d")
        for number, connection in enumerate(there):
            if number % _BATCH == _BATCH - 1:
                # What the kernel is asked takes microseconds.
                yield {}
            if asked(connection):
                found.append(connection)
                keys.append(order(connection))
        there.clear()
        # Each is asked for once, in their order.
        known = iter(keys)
        found.sort(key=lambda _: next(known), reverse=True)
        for connection in found:
            if connection.state not in GONE:
                yield rowOf(connection, self._service.now())

    def connection(self, name: str) -> dict[str, object] | None:
        """See `ServerInsight.connection`."""
        number = numberOf(name)
        if number is None:
            return None
        for listener in self._service.everybody():
            for connection in listener.connections():
                if connection.number == number and connection.state not in GONE:
                    return self._story(connection)
        shelf = self._service.shelf
        ended = None if shelf is None else shelf.find(number)
        return None if ended is None else self._ended(ended)

    def _story(self, connection: Connection) -> dict[str, object]:
        now, timeline = self._service.now(), connection.timeline
        return {
            **rowOf(connection, now),
            "opened": self._opened(connection.openedAt, timeline),
            **connection.transport.kernelFacts(),
            "timeline": None if timeline is None else timeline.told(),
        }

    # -- What is past ----------------------------------------------------------------------

    def closed(self, reason: str = "") -> Iterator[dict[str, object]]:
        """See `ServerInsight.closed`."""
        _check("reason", reason, _REASONS)
        shelf = self._service.shelf
        found = [] if shelf is None else shelf.all()
        return (self._ended(each) for each in found if not reason or each.why == reason)

    def _ended(self, ended: Ended) -> dict[str, object]:
        return {"opened": self._opened(ended.openedAt, ended.timeline), **ended.told()}

    def _opened(self, at: float, timeline: Timeline | None) -> str:
        """When one was accepted, by the clock; a timeline knows it better than to a tenth."""
        began = at if timeline is None else timeline.began
        return rfc3339(time.time() - (self._service.now() - began))

    def refused(self, reason: str = "") -> Iterator[dict[str, object]]:
        """See `ServerInsight.refused`."""
        _check("reason", reason, sorted(_REFUSED))
        found = [
            (refusal, listener.describe())
            for listener in self._service.everybody()
            for refusal in listener.refusals.kept()
            if not reason or refusal.reason == reason
        ]
        found.sort(key=lambda pair: pair[0].at, reverse=True)
        return map(_refusal, found)

    # -- What is served --------------------------------------------------------------------

    def listeners(self) -> list[dict[str, object]]:
        """See `ServerInsight.listeners`."""
        return [listenerRow(listener) for listener in self._service.listeners]

    def configuration(self) -> dict[str, object]:
        """See `ServerInsight.configuration`."""
        service = self._service
        return servedConfiguration(service.plan, service.listeners, service.reloads)

    def measurements(self) -> Measurements:
        """See `ServerInsight.measurements`."""
        return self._service.measurements()


def _check(key: str, word: str, words: list[str]) -> None:
    """
    See that there is such a word, if one is asked for.

    :raises UnknownWord: there is not.
    """
    if word and word not in words:
        raise UnknownWord(f"no {key} {word!r}; there are {', '.join(words)}")


def _refusal(found: tuple[Refusal, str]) -> dict[str, object]:
    refusal, listener = found
    return {
        "time": rfc3339(refusal.at),
        "listener": listener,
        "reason": refusal.reason,
        "peer": tellPeer(refusal.peer),
    }


def _isIn(networks: Networks, connection: Connection) -> bool:
    host = getattr(connection.transport.getPeer(), "host", None)
    return host is not None and networks.admit(host)
