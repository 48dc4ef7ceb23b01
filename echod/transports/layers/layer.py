"""
The contract of what may lie between a socket and a connection: `Layer`.

A layer is data: what it is called, what was asked of it, and the class that is mixed into a
listener's transports.  `echod.transports.layers.LAYERS` lists them all, in order.

Layers are not for plugins of others.  What is mixed into a transport works with private parts of
Twisted (`echod.transports.socket_stream` names them), and a public contract here would promise
those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from echod.config.endpoints import Endpoint
from echod.interfaces import IConnectionTransport
from echod.tls.facts import CertificateExpiry
from echod.transports.socket_stream import SocketStream

__all__ = ["AskedFor", "Layer"]


@dataclass(frozen=True)
class AskedFor:
    """
    What a listener's table says of one layer.

    :ivar settings: the value of the layer's key, or ``None`` where the key is missing.  Its type
        is the layer's business.
    :ivar place: of the key, for messages.
    :ivar endpoint: where the listener is to be.
    :ivar written: that endpoint, as somebody has written it.
    :ivar directory: where relative paths begin.
    """

    # Any: each layer has settings of a type of its own.
    settings: Any
    place: str
    endpoint: Endpoint
    written: str
    directory: str = ""


class Layer:
    """
    One layer of one listener: a subclass is a kind of layer, an instance holds its settings.

    It is mixed into the listener's transports (`transport`).  That class may override whatever
    `SocketStream` does; it finds its settings in ``self.server.layers``.  To see what goes over
    the wire, below TLS too, it puts an object of its own before the socket as it is made.  Where
    it has bytes to read before the protocol's, it sets ``opening``, reads them once
    `SocketStream._outerLayersDone` is called (the outermost: at once), and calls that of its
    ``super`` when it has them.

    :cvar name: its key in a listener's table, and what `describe` of a listener and the log call
        it.
    :cvar transport: what is mixed into the listener's transports.  Its `SocketStream.facts` are
        what ``whoami`` tells.
    :cvar reasons: the `echod.connection.states.Reason` values with which it can end a connection
        (``transportFailed``) before the protocol knows of it.
    :cvar rowName: what rows of connections call what it found out, if not ``name``.
    :cvar tellsPeer: whether it tells who the client is (``identified``).  Limits on sources then
        are about that client, and `trusts` says who may connect.
    """

    name: ClassVar[str]
    transport: ClassVar[type[SocketStream]]
    reasons: ClassVar[Sequence[str]] = ()
    tellsPeer: ClassVar[bool] = False
    rowName: ClassVar[str] = ""

    #: What an operator might like to know of the settings, a line each.
    notes: Sequence[str] = ()
    #: Until when each certificate is good that the layer shows.
    expiries: Sequence[CertificateExpiry] = ()

    @classmethod
    def made(cls, asked: AskedFor) -> Self | None:
        """
        The layer that a listener asks for; ``None`` if it asks for none.

        :raises ConfigurationError: it cannot have it; in one line that names the place.
        """
        raise NotImplementedError

    def terms(self) -> object:
        """What must be equal for a listener to go on with another's layer (a reload)."""
        return None

    def told(self) -> object:
        """Its settings, as its key in a listener's table could have them: plain values."""
        return None

    def trusts(self, host: str) -> bool:
        """Whether a peer with this address may connect, where the layer `tellsPeer`."""
        return True

    def line(self, transport: IConnectionTransport) -> str | None:
        """
        What the log says of it in a line of its own, if anything.

        That is when the layers have read all that is theirs; where none had anything to read
        there is no such line.
        """
        return None
