"""UNIX stream sockets, with echod's accepting and echod's transport."""

from __future__ import annotations

from twisted.internet import unix

from echod.transports.accepting import Accepting
from echod.transports.stream import Stream

__all__ = ["UNIXPort", "UNIXServer"]


class UNIXServer(Stream, unix.Server):  # type: ignore[misc]  # as tcp.Server
    """
    One accepted UNIX connection.

    Descriptors that a peer passes are not received: nobody here has a use for them.
    """

    def sendFileDescriptor(self, fileno: int) -> None:
        """See ``IUNIXTransport``: a descriptor travels with bytes that no `write` may overtake."""
        self._end()
        super().sendFileDescriptor(fileno)


class UNIXPort(Accepting, unix.Port):
    """Twisted's port at a path."""

    transport = UNIXServer
