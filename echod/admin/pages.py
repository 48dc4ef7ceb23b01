"""
The paths that there are, and what each answers: `Pages`.

A path is what it is, byte by byte: nothing is decoded or made shorter, so that there is one way to
write each, and none leads anywhere else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from echod import __version__
from echod.admin.bodies import Reply, document, line, lines, listed, whole
from echod.admin.fair_turns import SharedTurns
from echod.admin.metrics import exposition
from echod.admin.query import limitOf, parseQuery
from echod.errors import EchodError, UnknownWord
from echod.interfaces import ServerContext
from echod.wire.timestamps import rfc3339

__all__ = ["EVENTS", "Pages"]

#: What is no page, but goes on.
EVENTS = b"/events"

_CONNECTION = b"/connections/"
_METRICS = b"/metrics"


class _Page(Struct, frozen=True):
    """
    What stands at a path.

    :ivar told: what it gives, for the list of paths.
    :ivar reply: makes the answer of the values of the query.
    :ivar keys: those of the query.
    """

    told: str
    reply: Callable[[Mapping[str, str]], Reply]
    keys: Sequence[str] = ()


class Pages:
    """
    Looks up what is asked for.

    :param context: the server.
    :param turns: when long answers are made.
    """

    def __init__(self, context: ServerContext, turns: SharedTurns) -> None:
        self._context = context
        self._turns = turns
        filters = ("listener", "state", "source", "sort", "limit")
        self._pages: dict[bytes, _Page] = {
            b"/": _Page("this list", self._index),
            b"/connections": _Page("the connections that live", self._connections, filters),
            b"/closed": _Page("those that are gone", self._closed, ("reason", "limit")),
            b"/refused": _Page("those turned away", self._refused, ("reason", "limit")),
            b"/listeners": _Page("who listens, with limits", self._listeners),
            b"/counters": _Page("all counters", self._counters),
            b"/config": _Page("what is served, and how reloads went", self._config),
            _METRICS: _Page("what is measured, for Prometheus", self._metrics),
            b"/health": _Page("ready (200) or draining (503)", self._health),
        }

    def lookUp(self, target: bytes, query: bytes, accept: str = "") -> Reply:
        """
        The answer to a request for ``target``.

        One line with 404 if there is no such thing, with 400 if the query makes no sense.

        :param accept: the kinds of content that are wanted (RFC 9110 section 12.5.1).
        """
        page = self._pages.get(target)
        if target == _METRICS:
            page = _Page("", lambda values: self._metrics(values, accept))
        if page is None and target.startswith(_CONNECTION) and target != _CONNECTION:
            page = _Page("", lambda values: self._connection(target[len(_CONNECTION) :]))
        if page is None:
            return line(404, f"no such path; there are: {' '.join(self._paths())}")
        try:
            return page.reply(parseQuery(query, page.keys))
        except UnknownWord as error:
            return line(400, str(error))

    def _paths(self) -> list[str]:
        paths = [path.decode() for path in self._pages]
        return [*paths, "/connections/ID", EVENTS.decode()]

    def _index(self, values: Mapping[str, str]) -> Reply:
        told = {path.decode(): page for path, page in self._pages.items()}
        rows = [
            (f"{path}?{'=&'.join(page.keys)}=" if page.keys else path, page.told)
            for path, page in told.items()
        ]
        rows += [("/connections/ID", "one of them, live or gone")]
        rows += [(EVENTS.decode(), "a snapshot each second, as Server-Sent Events")]
        width = max(len(path) for path, _ in rows)
        return lines("".join(f"{path:{width}}  {text}\n" for path, text in rows))

    # -- Lists ---------------------------------------------------------------------------------

    def _connections(self, values: Mapping[str, str]) -> Reply:
        limit = limitOf(values.get("limit"))
        words = {key: value for key, value in values.items() if key != "limit"}
        rows = self._context.insight.connections(**words)
        return listed("echod-connections/1", "connections", rows, limit, self._turns)

    def _closed(self, values: Mapping[str, str]) -> Reply:
        limit = limitOf(values.get("limit"))
        rows = self._context.insight.closed(values.get("reason", ""))
        return listed("echod-closed/1", "connections", rows, limit, self._turns)

    def _refused(self, values: Mapping[str, str]) -> Reply:
        limit = limitOf(values.get("limit"))
        rows = self._context.insight.refused(values.get("reason", ""))
        return listed("echod-refused/1", "refused", rows, limit, self._turns)

    # -- Documents -----------------------------------------------------------------------------

    def _connection(self, name: bytes) -> Reply:
        found = self._context.insight.connection(name.decode("latin-1"))
        if found is None:
            return line(
                404,
                "no connection with this id lives, or is kept:"
                " see /connections for those that live, /closed for those that are gone",
            )
        return document("echod-connection/1", found)

    def _listeners(self, values: Mapping[str, str]) -> Reply:
        return document("echod-listeners/1", {"listeners": self._context.insight.listeners()})

    def _counters(self, values: Mapping[str, str]) -> Reply:
        about = {
            "time": rfc3339(time.time()),
            "uptime": round(self._context.uptime, 3),
            "pid": os.getpid(),
            "version": __version__,
        }
        return document("echod-counters/1", {**about, **self._context.counters()})

    def _config(self, values: Mapping[str, str]) -> Reply:
        return document("echod-config/1", self._context.insight.configuration())

    def _metrics(self, values: Mapping[str, str], accept: str = "") -> Reply:
        try:
            kind, body = exposition(self._context, accept)
        except EchodError as error:
            return line(501, str(error))
        return whole(body, kind.encode())

    # -- Words ---------------------------------------------------------------------------------

    def _health(self, values: Mapping[str, str]) -> Reply:
        return line(503 if self._context.draining else 200, self._context.health)
