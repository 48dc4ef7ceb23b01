"""
A byte that goes round through the poller: whether descriptors are served at all.

A reactor whose poller has gone deaf still has timers: measured with injected faults of
``epoll_ctl``, a server refused 28 of 30 clients and went on ticking.
"""

from __future__ import annotations

import socket

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.interfaces import IDescriptorReactor

__all__ = ["Heartbeat"]


@implementer(IReadDescriptor)
class Heartbeat:
    """
    A pair of sockets, one of which the ``reactor`` reads.

    :param reactor: the listeners' (`echod.transports.facade.Facade`).
    """

    def __init__(self, reactor: IDescriptorReactor) -> None:
        self._reactor = reactor
        self._near: socket.socket | None = None
        self._far: socket.socket | None = None
        self._arrived = True

    def beat(self) -> bool:
        """Whether the last byte has arrived; the next one is on its way now."""
        if self._near is None or self._far is None:
            self._near, self._far = socket.socketpair()
            self._near.setblocking(False)
            self._far.setblocking(False)
            self._reactor.addReader(self)
        arrived, self._arrived = self._arrived, False
        if arrived:
            self._near.send(b"\0")
        return arrived

    def stop(self) -> None:
        """Close both."""
        if self._near is not None and self._far is not None:
            self._reactor.removeReader(self)
            self._near.close()
            self._far.close()
            self._near = self._far = None
            self._arrived = True

    def doRead(self) -> None:
        """See ``IReadDescriptor``."""
        assert self._far is not None
        self._arrived = bool(self._far.recv(16))

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        return -1 if self._far is None else self._far.fileno()

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "Heartbeat"

    def connectionLost(self, reason: Failure) -> None:
        """See ``IFileDescriptor``: the reactor is going down."""
        self.stop()
