"""
The daemon's life as a service manager sees it: ready, well, reloading, ending.

`Supervision` says so through `echod.daemon.sd_notify.Notifier` (sd_notify(3)).  ``READY=1`` comes
when every listener is bound and privileges are gone, ``STOPPING=1`` when the drain begins, with as
much more time as it takes, a second at a time.  ``WATCHDOG=1`` is earned: between two looks, which
are closer than the messages, a byte must have gone through the listeners' poller, and nobody may
have waited at a listener all the while.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from echod.daemon.sd_notify import Notifier
from echod.errors import EchodError, whatFailed
from echod.interfaces import IProcessReactor
from echod.server.plan import Plan
from echod.server.service import EchodService

__all__ = ["AGAIN", "Supervision"]

_log = Logger()

#: Seconds between requests for more time, and the time that each asks for.
EXTEND = 1.0
EXTENSION = 5.0
#: Seconds until a manager that had no room for a message is told again.
AGAIN = 1.0
#: Seconds between two looks at how it is, at most: by so much the manager may learn of it later
#: than by a message that was due.
LOOK = 0.25
#: And at least: whoever asks for more gets no more, and no daemon that does nothing else.
LEAST_LOOK = 0.01


class Supervision:
    """
    Watches a service, and tells its manager.

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
        reactor: IProcessReactor,
    ) -> None:
        self._service = service
        self._makePlan = makePlan
        self._notifier = notifier
        self._reactor = reactor
        self._calls: list[LoopingCall] = []
        # What was wrong at the last look, and what of it the log knows; written by _look.
        self._faults: list[str] = []
        self._told: list[str] = []
        # Looks at which nothing was wrong until the next message; written by _look.
        self._looks = self._due = 0
        # When what the manager had no room for is sent; written by _sendWaiting.
        self._later: IDelayedCall | None = None

    def begin(self) -> None:
        """The reactor runs, everything is bound: say that it is ready."""
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stopping)
        self._reactor.addSystemEventTrigger("after", "shutdown", self._stopped)
        self._tell()
        self._service.lookEachSecond(self)
        self._notifier.ready()
        self._sendWaiting()
        interval = self._notifier.watchdogInterval
        if interval is not None:
            seconds = max(min(interval / 4, LOOK), LEAST_LOOK)
            self._looks = max(int(interval / 2 / seconds), 1)
            self._repeat(self._look, seconds)

    def sweep(self, now: float) -> None:
        """Once a second while anybody is served: tell of a change, and look for lost sockets."""
        self._tell()
        self._lookForSockets()

    def reload(self) -> None:
        """
        Read the configuration again, and serve it; whatever is wrong with it changes nothing.

        The log has why, and of a fault its traceback; the status has it too, until a reload
        succeeds.  Not once it drains: nothing new is to be bound then.
        """
        if self._service.draining:
            _log.warn(
                "the configuration stays as it was: {reason}",
                event="reload_refused",
                reason="the daemon is stopping",
            )
            return
        self._notifier.reloading()
        try:
            self._service.reload(self._makePlan())
        except EchodError as error:
            reason = str(error)
            _log.error(
                "the configuration stays as it was: {reason}", event="reload_refused", reason=reason
            )
            self._service.reloads.refuse(reason)
        except BaseException as error:
            # A plugin's fault, or ours; SystemExit too: see echod.insight.fault_log.
            what = whatFailed(error)
            _log.failure(
                "the configuration stays as it was: {reason}", event="reload_refused", reason=what
            )
            self._service.reloads.refuse(f"{what}; see the log")
        finally:
            self._notifier.ready()
            self._tell()

    def _sendWaiting(self) -> None:
        """Send what the manager had no room for; if it has none now, in a while once more."""
        self._notifier.sendWaiting()
        if self._notifier.waits and self._later is None:
            self._later = self._reactor.callLater(AGAIN, self._again)

    def _again(self) -> None:
        self._later = None
        self._sendWaiting()

    def _repeat(self, call: Callable[[], object], seconds: float) -> None:
        repeated = LoopingCall(call)
        repeated.clock = self._reactor
        repeated.start(seconds)
        self._calls.append(repeated)

    def _tell(self) -> None:
        service = self._service
        listeners, connections = len(service.listeners), service.connectionCount()
        refused = service.reloads.refused
        self._notifier.status(
            f"{'draining' if service.draining else 'serving'}:"
            f" {connections} connections at {listeners} listeners"
            f"{'; the last reload failed: ' * bool(refused)}{refused}"
        )
        self._sendWaiting()

    def _lookForSockets(self) -> None:
        if not self._service.draining and self._service.losesSocket():
            self._reactor.stop()

    def _look(self) -> None:
        before, self._faults = self._faults, self._service.faults()
        if self._faults:
            # Once it is well again, at once.
            self._due = 0
            # Whatever held everybody up for a moment is gone by the next look.
            if self._faults == before != self._told:
                self._told = before
                _log.critical(
                    "not well: {_faults}",
                    event="unwell",
                    faults=before,
                    _faults="; ".join(before),
                )
            return
        self._told = []
        self._due -= 1
        if self._due <= 0:
            self._due = self._looks
            self._notifier.watchdog()

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
        if self._later is not None:
            self._later.cancel()
