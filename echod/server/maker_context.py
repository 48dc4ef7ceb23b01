"""What a protocol's maker is told of the server: `MakerContext`, of which a service has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime

from echod.interfaces import ListenerFacts

if TYPE_CHECKING:
    from echod.server.service import EchodService

__all__ = ["MakerContext"]


class MakerContext:
    """
    An `echod.interfaces.ServerContext` of a service.

    It holds nothing but the service, and asks it each time: so it is right after a reload, and
    whoever has it can look, and change nothing.

    :param clock: the service's reactor.
    """

    def __init__(self, service: EchodService, clock: IReactorTime) -> None:
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

    def counters(self) -> dict[str, Any]:
        """See `ServerContext.counters`."""
        return self._service.counters()
