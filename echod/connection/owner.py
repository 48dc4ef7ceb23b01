"""
What a connection asks of whoever has made it: `Owner`.

A listener is one, and so is a client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from echod.config.settings import Limits
from echod.connection.metering import Turns
from echod.connection.sweep import Sweep

if TYPE_CHECKING:
    from echod.connection.connection import Connection

__all__ = ["Owner"]


class Owner(Protocol):
    """What a connection asks of the listener that accepted it."""

    @property
    def sweep(self) -> Sweep:
        """Keeps the time, and the deadlines."""

    @property
    def limits(self) -> Limits:
        """The deadlines to keep."""

    @property
    def byteRate(self) -> Turns | None:
        """What all of its connections together may read, if that is limited."""

    @property
    def payload(self) -> Callable[[Connection, bytes], None] | None:
        """Is shown what is read, if anybody wants to see it."""

    def opened(self, connection: Connection) -> None:
        """It has its transport."""

    def identified(self, connection: Connection) -> bool:
        """It is known who the peer is (`IConnectionTransport.opening`); whether it may come."""

    def established(self, connection: Connection) -> None:
        """It is not OPENING any more."""

    def lingering(self, connection: Connection) -> None:
        """We ended it: it counts no more against the limit."""

    def inputEnded(self, connection: Connection) -> None:
        """The peer's FIN arrived."""

    def closed(self, connection: Connection) -> None:
        """It is gone; its counters are final."""
