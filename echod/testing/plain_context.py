"""What a protocol's maker is told of a server, said by the test: `PlainContext`, `PlainInsight`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from echod.interfaces import ListenerFacts, ServerInsight
from echod.measurements import Measurements

__all__ = ["PlainContext", "PlainInsight"]


@dataclass
class PlainInsight:
    """
    An `echod.interfaces.ServerInsight` that says what it is given, whatever is asked for.

    :ivar live: the rows of `connections`.
    :ivar ended: the rows of `closed`.
    :ivar turnedAway: the rows of `refused`.
    :ivar listening: the rows of `listeners`.
    :ivar served: what `configuration` returns.
    :ivar measured: what `measurements` returns.
    """

    live: Sequence[dict[str, Any]] = ()
    ended: Sequence[dict[str, Any]] = ()
    turnedAway: Sequence[dict[str, Any]] = ()
    listening: Sequence[dict[str, Any]] = ()
    served: Mapping[str, Any] = field(default_factory=dict)
    measured: Measurements = field(default_factory=Measurements)

    def connections(
        self, *, listener: str = "", state: str = "", source: str = "", sort: str = "age"
    ) -> Iterator[dict[str, Any]]:
        """See `ServerInsight.connections`."""
        return iter(self.live)

    def connection(self, name: str) -> dict[str, Any] | None:
        """See `ServerInsight.connection`: the first that has this ``id``."""
        everybody = [*self.live, *self.ended]
        return next((row for row in everybody if row.get("id") == name), None)

    def closed(self, reason: str = "") -> Iterator[dict[str, Any]]:
        """See `ServerInsight.closed`."""
        return iter(self.ended)

    def refused(self, reason: str = "") -> Iterator[dict[str, Any]]:
        """See `ServerInsight.refused`."""
        return iter(self.turnedAway)

    def listeners(self) -> list[dict[str, Any]]:
        """See `ServerInsight.listeners`."""
        return list(self.listening)

    def configuration(self) -> dict[str, Any]:
        """See `ServerInsight.configuration`."""
        return dict(self.served)

    def measurements(self) -> Measurements:
        """See `ServerInsight.measurements`."""
        return self.measured


@dataclass
class PlainContext:
    """
    An `echod.interfaces.ServerContext` without a server.

    What it says can be changed at any time::

        context = PlainContext(totals={"slow": 3})
        link = memoryLink(stats.makeFactory(None, context).buildProtocol(None))

    :ivar draining: whether the server has been told to end.
    :ivar listeners: who listens.
    :ivar totals: what `counters` returns.
    :ivar clock: one that stands still until the test advances it.
    :ivar insight: what happens there.
    :ivar uptime: seconds since the server was made.
    """

    draining: bool = False
    listeners: Sequence[ListenerFacts] = ()
    totals: Mapping[str, Any] = field(default_factory=dict)
    clock: IReactorTime = field(default_factory=Clock)
    insight: ServerInsight = field(default_factory=PlainInsight)
    uptime: float = 0.0

    @property
    def health(self) -> str:
        """See `ServerContext.health`."""
        return "draining" if self.draining else "ready"

    def counters(self) -> dict[str, Any]:
        """See `ServerContext.counters`."""
        return dict(self.totals)
