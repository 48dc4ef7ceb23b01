"""
A socket that is connected to itself: how to tell, and how to end it.

A port of the ephemeral range at which nobody listens may be given to the very socket that connects
to it.  TCP is connected to itself then (simultaneous open, RFC 9293 section 3.5), and a datagram
comes back to its sender.  Nobody else is there.

It imports little, for `echod.client.blocking` uses it too.
"""

from __future__ import annotations

import socket
import struct

__all__ = ["isItself", "resetWhenClosed"]


def isItself(connected: socket.socket) -> bool:
    """
    Whether both ends of a connected socket are the same one.

    :raises OSError: it has been reset already.
    """
    return bool(connected.getsockname() == connected.getpeername())


def resetWhenClosed(connected: socket.socket) -> None:
    """Let closing send RST, and leave no TIME_WAIT (socket(7), SO_LINGER)."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
