"""What a protocol's maker is told of a server, said by the test: `PlainContext`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from echod.interfaces import ListenerFacts

__all__ = ["PlainContext"]


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
    """

    draining: bool = False
    listeners: Sequence[ListenerFacts] = ()
    totals: Mapping[str, Any] = field(default_factory=dict)
    clock: IReactorTime = field(default_factory=Clock)

    @property
    def health(self) -> str:
        """See `ServerContext.health`."""
        return "draining" if self.draining else "ready"

    def counters(self) -> dict[str, Any]:
        """See `ServerContext.counters`."""
        return dict(self.totals)
