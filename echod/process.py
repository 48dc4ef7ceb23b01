"""
What the process does with signals, and the status it exits with.

``twistd`` answers SIGTERM by killing itself with it once more, and swallows exit codes;
an operator wants: SIGTERM and SIGINT drain, a second one ends at once, the exit status says
whether everybody got what was owed (0) or not (`CUT_SHORT`), SIGUSR1 logs the counters.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any

from twisted.logger import Logger

from echod.errors import EchodError, Told
from echod.logs import Log
from echod.service import EchodService
from echod.supervision import Supervision

__all__ = ["Signals", "printEchodErrors", "shedGroups", "useMonotonicClock"]

_log = Logger()

#: Exit status after a drain that was cut short; 1 is that of whoever could not start.
CUT_SHORT = 3


class Signals:
    """
    The process's signals, for one service.

    Constructed pure; `install` once the reactor runs, because the reactor installs its own
    handlers as it starts.
    """

    def __init__(
        self, service: EchodService, supervision: Supervision, reactor: Any, log: Log
    ) -> None:
        self._log = log
        self._service = service
        self._supervision = supervision
        self._reactor = reactor
        self._stopping = False

    def install(self) -> None:
        """Take over SIGTERM, SIGINT, SIGHUP and SIGUSR1."""
        for number, act in (
            (signal.SIGTERM, self._stop),
            (signal.SIGINT, self._stop),
            (signal.SIGHUP, self._hangUp),
            (signal.SIGUSR1, self._tellCounters),
        ):
            signal.signal(number, self._inReactor(act))
        self._reactor.addSystemEventTrigger("after", "shutdown", self._setExitStatus)

    def _inReactor(self, act: Any) -> Any:
        def handler(number: int, frame: FrameType | None) -> None:
            self._reactor.callFromThread(act, signal.Signals(number).name)

        return handler

    def _stop(self, name: str) -> None:
        if self._stopping:
            _log.warn("{name} again: ending at once", name=name)
            self._service.cut()
        else:
            self._stopping = True
            _log.info("{name}: draining; once more to end at once", name=name)
            self._reactor.stop()

    def _hangUp(self, name: str) -> None:
        self._log.reopen()
        _log.info("{name}: reading the configuration again", name=name)
        self._supervision.reload()

    def _tellCounters(self, name: str) -> None:
        _log.info("counters {counters}", counters=self._service.counters())

    def _setExitStatus(self) -> None:
        if self._service.cutShort:
            # `twistd` has its pid file to remove yet, and no way to hand on a status.
            atexit.register(_exitCutShort)


def useMonotonicClock(reactor: Any) -> None:
    """
    Let the reactor's timers run by the monotonic clock.

    Its own is the wall clock: a step back stops every timer for as long, and with them all
    deadlines.  Not if somebody has timers by the other clock already.
    """
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def shedGroups() -> None:
    """
    Keep no group of root's beside the one that ``twistd --gid`` has given.

    Without ``--uid`` Twisted leaves the supplementary groups as they are (TRAPS 7.5).
    """
    group = os.getegid()
    if os.geteuid() == 0 and group != 0:
        os.setgroups([group])


def _exitCutShort() -> None:
    # Whatever others have registered, first: nothing of Python's end comes after this.
    atexit.unregister(_exitCutShort)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(CUT_SHORT)


def printEchodErrors() -> None:
    """Let an `EchodError` that ends the process be one line on standard error, exit status 1."""
    before = sys.excepthook

    def hook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Told):
            pass
        elif isinstance(error, EchodError):
            # The real one: `twistd` has turned the other into log events by now.
            print(f"echod: {error}", file=sys.__stderr__)
        else:
            before(kind, error, traceback)

    sys.excepthook = hook
