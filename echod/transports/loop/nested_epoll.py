"""An epoll object that the real reactor watches as one descriptor: `NestedEpoll` (epoll(7))."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["NestedEpoll", "available"]


def available() -> bool:
    """Whether this system has epoll."""
    return hasattr(select, "epoll")


@implementer(IReadDescriptor)
class NestedEpoll:
    """
    Tells when any of its descriptors is ready.

    :param reactor: the real one, which watches it while it is open.
    :param serve: called when something is ready; may close it.
    :param lost: called when the reactor goes down.
    :ivar epoll: the epoll object, while it is open.
    """

    connected = True

    def __init__(
        self,
        reactor: IReactorFDSet,
        serve: Callable[[], None],
        lost: Callable[[Failure], None],
    ) -> None:
        self._reactor = reactor
        self._serve = serve
        self._lost = lost
        # Any: an epoll object while it is open; ``None`` is asked for nothing.
        self.epoll: Any = None
        # Asks epoll itself, which keeps its order then.
        self._asking = select.poll()

    def open(self) -> None:
        """
        Begin to be watched.

        :raises OSError: there is no epoll object to be had.
        """
        self.epoll = select.epoll()
        self._asking.register(self.epoll.fileno(), select.POLLIN)
        self._reactor.addReader(self)

    def close(self) -> None:
        """Let go of everything, if it is open."""
        if self.epoll is not None:
            self._reactor.removeReader(self)
            self._asking.unregister(self.epoll.fileno())
            self.epoll.close()
            self.epoll = None

    def ready(self) -> bool:
        """Whether something is ready; what is stays in its order."""
        return bool(self._asking.poll(0))

    def takeOver(self, number: int, mask: int, other: NestedEpoll) -> bool:
        """
        Have a descriptor that another one has had; returns whether that was done.

        :param mask: what it is asked for.
        """
        try:
            self.epoll.register(number, mask)
        except OSError:
            # There is no room, or it is closed.
            return False
        try:
            other.epoll.unregister(number)
        except OSError:
            # It was closed, and the number is another's, whom nobody has added yet.
            self.epoll.unregister(number)
            return False
        return True

    def fileno(self) -> int:
        """The epoll object's number."""
        return -1 if self.epoll is None else int(self.epoll.fileno())

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "Poller"

    def doRead(self) -> None:
        """See ``IReadDescriptor``."""
        self._serve()

    def connectionLost(self, reason: Failure) -> None:
        """See ``IReadDescriptor``."""
        self._lost(reason)
