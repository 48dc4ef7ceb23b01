"""
What happens at a service, and what has happened, as plain values: `Inspection`.

An `echod.interfaces.ServerInsight` of a service.  Like the context of makers it holds nothing but
the service, and asks when it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from echod.server.listener import Listener

__all__ = ["Inspection"]


class _Service(Protocol):
    """What is asked of a service."""

    @property
    def listeners(self) -> Iterable[Listener]: ...


class Inspection:
    """An `echod.interfaces.ServerInsight` of a service."""

    def __init__(self, service: _Service) -> None:
        self._service = service

    def connections(
        self, *, listener: str = "", state: str = "", source: str = "", sort: str = "age"
    ) -> Iterator[dict[str, Any]]:
        """See `ServerInsight.connections`."""
        return iter(())

    def connection(self, name: str) -> dict[str, Any] | None:
        """See `ServerInsight.connection`."""
        return None

    def closed(self, reason: str = "") -> Iterator[dict[str, Any]]:
        """See `ServerInsight.closed`."""
        return iter(())

    def refused(self, reason: str = "") -> Iterator[dict[str, Any]]:
        """See `ServerInsight.refused`."""
        return iter(())

    def listeners(self) -> list[dict[str, Any]]:
        """See `ServerInsight.listeners`."""
        return [{"listener": listener.describe()} for listener in self._service.listeners]

    def configuration(self) -> dict[str, Any]:
        """See `ServerInsight.configuration`."""
        return {}
