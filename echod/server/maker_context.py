"""What a protocol's maker is told of the server: `MakerContext`, of which a service has one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from echod.interfaces import ListenerFacts, ServerInsight

__all__ = ["MakerContext"]


class _Listener(Protocol):
    def facts(self) -> ListenerFacts: ...


class _Service(Protocol):
    """What is asked of a service."""

    @property
    def draining(self) -> bool: ...
    @property
    def listeners(self) -> Iterable[_Listener]: ...
    @property
    def uptime(self) -> float: ...
    @property
    def insight(self) -> ServerInsight: ...
    def counters(self) -> dict[str, Any]: ...


class MakerContext:
    """
    An `echod.interfaces.ServerContext` of a service.

    It holds nothing but the service, and asks it each time: so it is right after a reload, and
    whoever has it can look, and change nothing.

    :param clock: the service's reactor.
    """

    def __init__(self, service: _Service, clock: IReactorTime) -> None:
        self._service = service
        self._clock = clock

    @property
    def health(self) -> str:
        """See `ServerContext.health`."""
        return "draining" if self.draining else "ready"

    @property
    def draining(self) -> bool:
        """See `ServerContext.draining`."""
        return self._service.draining

    @property
    def listeners(self) -> list[ListenerFacts]:
        """See `ServerContext.listeners`."""
        return [listener.facts() for listener in self._service.listeners]

    @property
    def clock(self) -> IReactorTime:
        """See `ServerContext.clock`."""
        return self._clock

    @property
    def uptime(self) -> float:
        """See `ServerContext.uptime`."""
        return self._service.uptime

    @property
    def insight(self) -> ServerInsight:
        """See `ServerContext.insight`."""
        return self._service.insight

    def counters(self) -> dict[str, Any]:
        """See `ServerContext.counters`."""
        return self._service.counters()
