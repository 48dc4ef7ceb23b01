"""
What a protocol may know of the server that it is served by: `ServerContext`, `ServerInsight`.

A maker is given a context as a listener asks it for a factory.  What is told is as of now, and
nothing can be changed.  `echod.interfaces` offers all of this too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from echod.measurements import Measurements

__all__ = ["ListenerFacts", "ServerContext", "ServerInsight"]


@dataclass(frozen=True)
class ListenerFacts:
    """
    What others may know of a listener.

    :ivar protocol: its name, as ``raw``.
    :ivar endpoint: where it listens, as ``tcp 127.0.0.1:1234``, with the port that the system
        chose, once it is bound.
    :ivar description: both, and what is particular: ``raw tcp 127.0.0.1:1234 (adopted, tls)``.
    """

    protocol: str
    endpoint: str
    description: str


class ServerContext(Protocol):
    """
    What a protocol may know of the server that it is served by.

    There is one as long as the server lives, and what it says is as of now, after a reload too:
    keep it, and ask it when somebody wants to know.  In the reactor's thread alone.  It can be
    asked while a factory is made; then it tells of those who serve already.
    """

    @property
    def health(self) -> str:
        """``ready``; ``draining`` from the moment that the server is told to end."""

    @property
    def draining(self) -> bool:
        """Whether it has been told to end, be it that ``drain_delay`` still runs."""

    @property
    def listeners(self) -> Sequence[ListenerFacts]:
        """Everybody who listens, the one that asks included, in the order of the plan."""

    @property
    def clock(self) -> IReactorTime:
        """The clock to call later by, and to tell seconds by: the reactor."""

    @property
    def uptime(self) -> float:
        """Seconds since the server was made, by a clock that never steps."""

    @property
    def insight(self) -> ServerInsight:
        """What happens at the server, connection by connection."""

    def counters(self) -> dict[str, Any]:
        """
        All counters as SIGUSR1 logs them, plain values that are the caller's.

        Summed when they are asked for: it costs some microseconds for each open connection.
        """


class ServerInsight(Protocol):
    """
    What happens at a server, and what has happened: plain values for JSON.

    Rows are made one at a time, as they are asked for, so that a long list need not be made in one
    turn.  An empty row is none: it says that the next is not found yet, and that others may have a
    turn.  A connection that has ended meanwhile is left out.  Keys are described in
    docs/insight.md.
    """

    def connections(
        self, *, listener: str = "", state: str = "", source: str = "", sort: str = "age"
    ) -> Iterator[dict[str, Any]]:
        """
        The connections that live, a row each.

        :param listener: only those of listeners whose description has this in it.
        :param state: only those in this `echod.connection.states.State`.
        :param source: only those of clients in this network.
        :param sort: what the first of them have most of: ``pending`` (bytes that wait to be sent
            or read), ``age``, ``idle`` or ``bytes``.
        :raises UnknownWord: there is no such state, network or order; as it is called.
        """

    def connection(self, name: str) -> dict[str, Any] | None:
        """All there is to tell of the one with this id, live or gone; ``None``: none is known."""

    def closed(self, reason: str = "") -> Iterator[dict[str, Any]]:
        """
        Those that are gone, as far as they are kept, the newest first.

        :raises UnknownWord: there is no such reason; as it is called.
        """

    def refused(self, reason: str = "") -> Iterator[dict[str, Any]]:
        """
        Those that were turned away, as far as they are kept, the newest first.

        :raises UnknownWord: there is no such reason; as it is called.
        """

    def listeners(self) -> list[dict[str, Any]]:
        """Everybody who listens, with the limits that are in force."""

    def configuration(self) -> dict[str, Any]:
        """What is served, as a configuration would say it, without secrets; and of the reloads."""

    def measurements(self) -> Measurements:
        """
        What metrics are made of: sums of the connections that are gone and of those that live.

        Made in one turn: it costs some microseconds for each open connection.
        """
