"""
What comes between a socket and a connection: a PROXY header, TLS.

Each layer is an `echod.transports.layers.layer.Layer`: settings, and a class that is mixed into a
transport, so that it works the same over TCP and UNIX sockets.  `LAYERS` lists them.  One more is
one module here and one line in that list.  With a key of its own in the file it is also a field of
`echod.config.settings.ListenerSettings`, of which the documentation's table is computed; with a
reason of its own for the end of a connection, a member of `echod.connection.states.Reason`.
"""

from __future__ import annotations

from echod.transports.layers.layer import AskedFor, Layer
from echod.transports.layers.proxied import ProxyLayer
from echod.transports.layers.secured_server import TLSLayer

__all__ = ["LAYERS", "AskedFor", "Layer", "ProxyLayer", "TLSLayer"]

#: All layers that a listener may have, the outermost first: its bytes come first on the wire.
LAYERS: tuple[type[Layer], ...] = (
    ProxyLayer,
    TLSLayer,
)
