"""From a `Connection` class to a protocol that listeners can serve, in one expression."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Factory
from zope.interface import implementer

from echod.connection import Connection
from echod.interfaces import IProtocolMaker

__all__ = ["ConnectionFactory", "ConnectionMaker"]


class ConnectionFactory(Factory):
    """Builds a connection for each peer, each with the same settings."""

    noisy = False

    def __init__(self, connection: Callable[[Any], Connection], settings: Struct) -> None:
        self._connection = connection
        self._settings = settings

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        """One connection; its owner is for the listener to set."""
        return self._connection(self._settings)


@implementer(IProtocolMaker)
@dataclass(frozen=True)
class ConnectionMaker:
    """
    See `IProtocolMaker`.

    :param connection: called with the settings for each peer; a `Connection` class whose
        ``__init__`` takes them.
    """

    name: str
    description: str
    options: type[Struct]
    connection: Callable[[Any], Connection]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def makeFactory(self, settings: Any) -> IProtocolFactory:
        """See `IProtocolMaker.makeFactory`."""
        return ConnectionFactory(self.connection, settings)
