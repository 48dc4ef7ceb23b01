"""
What a connection asks of whoever has made it: `Owner`.

A listener is one, a client is one, and so is whatever a test puts a connection on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from echod.config.limits import Limits
from echod.connection.metering import Turns
from echod.connection.sweep import Sweep
from echod.insight.timeline import Timeline

if TYPE_CHECKING:
    from echod.connection.connection import Connection

__all__ = ["Owner"]


class Owner:
    """
    What a connection asks of the listener that accepted it.

    ``sweep`` and ``limits`` must be given.  All else has a default, which limits nothing and does
    nothing.

    :ivar sweep: keeps the time, and the deadlines.
    :ivar limits: the deadlines to keep.
    :ivar byteRate: what all of its connections together may read, if that is limited.
    :ivar payload: is shown what is read, if anybody wants to see it.
    :ivar place: what it and its protocol are called.
    :ivar timeline: entries that the timeline of each connection has; 0: it has none.
    """

    sweep: Sweep
    limits: Limits
    byteRate: Turns | None = None
    payload: Callable[[Connection, bytes], None] | None = None
    timeline: int = 0
    place: tuple[str, str] = ("", "")

    def beginTimeline(self) -> Timeline | None:
        """One for a connection that comes, if `timeline` says that there is one."""
        return Timeline(self.timeline)

    def opened(self, connection: Connection) -> None:
        """It has its transport."""

    def identified(self, connection: Connection) -> bool:
        """It is known who the peer is (`IConnectionTransport.opening`); whether it may come."""
        return True

    def established(self, connection: Connection) -> None:
        """It is not OPENING any more."""

    def lingering(self, connection: Connection) -> None:
        """We ended it: it counts no more against the limit."""

    def aborting(self, connection: Connection) -> None:
        """It is about to get RST from us, or is found to be broken; `closed` follows."""

    def inputEnded(self, connection: Connection) -> None:
        """The peer's FIN arrived."""

    def closed(self, connection: Connection) -> None:
        """It is gone; its counters are final."""
