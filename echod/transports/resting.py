"""
A port that rests: the system has nothing left for it now, and would say so again at once.

`Resting` is mixed into a port.  It asks for nothing for a while, and then tries again.
`isShutDown` tells when that would be in vain.
"""

from __future__ import annotations

import select

from twisted.internet.base import BasePort
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from echod.interfaces import IDescriptorReactor

__all__ = ["PAUSE", "Resting", "isShutDown"]

_log = Logger()

#: Seconds of rest.
PAUSE = 0.5


def isShutDown(number: int) -> bool:
    """
    Whether a listening socket, or one of datagrams, will never be of use again.

    Whoever else holds it has called shutdown(2): it is readable for ever, and gives nothing.
    """
    poll = select.poll()
    poll.register(number, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


class Resting(BasePort):
    """Lets a port do nothing for a while, when the system has nothing left for it."""

    reactor: IDescriptorReactor

    # The end of the rest; written by rest, wake and stopResting.
    _resume: IDelayedCall | None = None
    # Whether it would read, and cannot be watched; written by rest and wake.
    _unwatched = False

    @property
    def resting(self) -> bool:
        """Whether the system had nothing for it a moment ago; not if it only cannot be watched."""
        return self._resume is not None and not self._unwatched

    def rest(self, error: OSError) -> None:
        """Do nothing for a while, for what the system has said."""
        _log.warn(
            "{port} takes nobody for {seconds} s: {reason}",
            port=repr(self),
            seconds=PAUSE,
            reason=error.strerror,
        )
        self.stopReading()
        self._unwatched = False
        self._resume = self.reactor.callLater(PAUSE, self.wake)

    def wake(self) -> None:
        """Read; if the system has no memory to watch one more (epoll_ctl(2)), a while later."""
        self._resume = None
        self._unwatched = False
        try:
            self.startReading()
        except OSError as error:
            self.rest(error)
            self._unwatched = True

    def stopResting(self) -> None:
        """Do not try again."""
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
