"""
``netstring``: ``5:hello,`` comes back, byte for byte (D. J. Bernstein, Netstrings, 1997).

What is no netstring ends the connection; the whole ones before it are answered.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from echod.kit import SLICE, Connection, ConnectionMaker, FramedConnection, ProtocolOptions
from echod.wire import framing

__all__ = ["NetstringOptions", "netstring"]


class NetstringOptions(ProtocolOptions, frozen=True):
    """Options of ``netstring``."""

    # Not above SLICE: a connection's memory is promised.
    maxLength: Annotated[
        int, Meta(ge=0, le=SLICE, description="bytes of a string without its length and comma")
    ] = SLICE


def _connection(settings: NetstringOptions) -> Connection:
    return FramedConnection(framing.netstring(settings.maxLength))


netstring = ConnectionMaker("netstring", "netstrings come back", _connection, NetstringOptions)
