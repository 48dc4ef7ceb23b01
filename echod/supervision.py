"""
The daemon's life as a service manager sees it: ready, well, reloading, ending.

`Supervision` says so through `echod.notify.Notifier` (sd_notify(3)).  ``READY=1`` comes when every
listener is bound and privileges are gone, ``STOPPING=1`` when the drain begins, with as much more
time as it takes, a second at a time.  ``WATCHDOG=1`` is earned: since the last one a byte must
have gone through the listeners' poller, and nobody may have waited at a listener all the while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from echod.errors import EchodError
from echod.notify import Notifier
from echod.service import EchodService, Plan

__all__ = ["Supervision"]

_log = Logger()

#: Seconds between lines for ``systemctl status``.
STATUS = 5.0
#: Seconds between requests for more time, and the time that each asks for.
EXTEND = 1.0
EXTENSION = 5.0


class Supervision:
    """
    See the module's docstring.

    :param service: what is watched.
    :param notifier: who is told.
    :param makePlan: reads the configuration again.
    :param reactor: the process's.
    """

    def __init__(
        self,
        service: EchodService,
        notifier: Notifier,
        makePlan: Callable[[], Plan],
        reactor: Any,
    ) -> None:
        self._service = service
        self._makePlan = makePlan
        self._notifier = notifier
        self._reactor = reactor
        self._calls: list[LoopingCall] = []
        self._faults: list[str] = []

    def begin(self) -> None:
        """The reactor runs, everything is bound: say that it is ready."""
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stopping)
        self._reactor.addSystemEventTrigger("after", "shutdown", self._stopped)
        self._tell()
        self._notifier.ready()
        self._repeat(self._tell, STATUS)
        if self._notifier.watchdogInterval is not None:
            self._repeat(self._beat, self._notifier.watchdogInterval / 2)

    def reload(self) -> None:
        """Read the configuration again, and serve it; whatever is wrong with it changes nothing."""
        self._notifier.reloading()
        try:
            self._service.reload(self._makePlan())
        except EchodError as error:
            _log.error("the configuration stays as it was: {error}", error=error)
        finally:
            self._notifier.ready()
            self._tell()

    def _repeat(self, call: Any, seconds: float) -> None:
        repeated = LoopingCall(call)
        repeated.clock = self._reactor
        repeated.start(seconds)
        self._calls.append(repeated)

    def _tell(self) -> None:
        service = self._service
        listeners, connections = len(service.listeners), service.connectionCount()
        self._notifier.status(
            f"{'draining' if service.draining else 'serving'}:"
            f" {connections} connections at {listeners} listeners"
        )

    def _beat(self) -> None:
        faults = self._service.faults()
        if faults == []:
            self._notifier.watchdog()
        elif faults != self._faults:
            _log.critical("not well: {faults}", faults="; ".join(faults))
        self._faults = faults

    def _stopping(self) -> None:
        self._notifier.stopping()
        self._repeat(self._extend, EXTEND)

    def _extend(self) -> None:
        self._notifier.extend(EXTENSION)
        self._tell()

    def _stopped(self) -> None:
        for repeated in self._calls:
            if repeated.running:
                repeated.stop()
