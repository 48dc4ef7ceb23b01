"""
The connections of an endpoint that live, whichever listener there has accepted them.

A reload may have one listener go on for another, and a connection may outlive hundreds of those.
They share one `LiveConnections`: so none of them need know another, and none is kept for longer
than it has connections of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred

from echod.connection.connection import Connection
from echod.server.admission import ConnectionLimit
from echod.server.counters import Totals

__all__ = ["LiveConnections"]


class LiveConnections:
    """
    What an endpoint has of connections: who may come, who lives, and the sums.

    :param maximum: connections that there may be; see `ConnectionLimit`.
    :ivar admission: who may come.
    :ivar totals: the counters of those that are gone, and of those refused.
    :ivar hosts: every connection that has not been closed yet, whatever its state; and the host
        that it counts for, once that is known.
    """

    def __init__(self, maximum: int) -> None:
        self.admission = ConnectionLimit(maximum)
        self.totals = Totals()
        self.hosts: dict[Connection, str | None] = {}
        # Who waits for the end of all of them; written by end.
        self._ended: Deferred[None] | None = None

    def __iter__(self) -> Iterator[Connection]:
        return iter(self.hosts)

    def __len__(self) -> int:
        return len(self.hosts)

    def opened(self, connection: Connection) -> None:
        """One has come."""
        self.totals.accepted += 1
        self.hosts[connection] = None
        self.admission.opened(connection)

    def closed(self, connection: Connection) -> None:
        """One is gone; its counters are final."""
        del self.hosts[connection]
        self.admission.closed(connection)
        self.totals.add(connection)
        self._fireIfEmpty()

    def drain(self) -> Deferred[None]:
        """Have all of them end; fires when the last is gone."""
        for connection in list(self.hosts):
            connection.attempt(connection.drain)
        ended: Deferred[None] = Deferred()
        self._ended = ended
        self._fireIfEmpty()
        return ended

    def _fireIfEmpty(self) -> None:
        if not self.hosts and self._ended is not None:
            ended, self._ended = self._ended, None
            ended.callback(None)
