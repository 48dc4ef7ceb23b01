"""
What the process does with signals, and the status it exits with.

``twistd`` answers SIGTERM by killing itself with it once more, and swallows exit codes;
an operator wants: SIGTERM and SIGINT drain, a later one ends at once, the exit status says
whether everybody got what was owed (0) or not (3), SIGUSR1 logs the counters.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from echod import startup
from echod.daemon.log import Log
from echod.daemon.log_format import JSONText
from echod.daemon.supervision import Supervision
from echod.errors import AlreadyReported, EchodError
from echod.interfaces import IProcessReactor
from echod.server.counters import toJSON
from echod.server.service import EchodService

__all__ = ["Signals", "printEchodErrors", "shedGroups", "useMonotonicClock"]

_log = Logger()

#: As signal(2) calls it.
Handler = Callable[[int, FrameType | None], None]

#: Seconds within which signals to stop are one request.  A Ctrl-C reaches every process of the
#: terminal, and a wrapper (npm, make, a shell's trap) hands it on once more; nobody who means it
#: presses twice in less.
ONE_REQUEST = 1.0


class Signals:
    """
    The process's signals, for one service.

    Constructed pure; `install` once the reactor runs, because the reactor installs its own
    handlers as it starts.
    """

    def __init__(
        self, service: EchodService, supervision: Supervision, reactor: IProcessReactor, log: Log
    ) -> None:
        self._log = log
        self._service = service
        self._supervision = supervision
        self._reactor = reactor
        # When the first signal to stop came, if one has; written by _stop.
        self._asked: float | None = None

    def install(self) -> None:
        """Take over what `startup` has kept, also what of it came meanwhile."""
        for number, act in (
            (signal.SIGTERM, self._stop),
            (signal.SIGINT, self._stop),
            (signal.SIGHUP, self._hangUp),
            (signal.SIGUSR1, self._tellCounters),
            (signal.SIGUSR2, self._reserve),
        ):
            if startup.ignored(number):
                _log.info(
                    "{signal} stays ignored, as it was at the start",
                    event="signal",
                    signal=number.name,
                )
            else:
                signal.signal(number, self._inReactor(act))
        self._reactor.addSystemEventTrigger("after", "shutdown", self._setExitStatus)
        startup.ready()

    def _inReactor(self, act: Callable[[str, float], None]) -> Handler:
        def handler(number: int, frame: FrameType | None) -> None:
            # The time when it came: the reactor may have been busy.
            self._reactor.callFromThread(act, signal.Signals(number).name, time.monotonic())

        return handler

    def _stop(self, name: str, when: float) -> None:
        if self._asked is None:
            self._asked = when
            _log.info("{signal}: draining; once more to end at once", event="draining", signal=name)
            # It may have begun to by itself.
            with suppress(ReactorNotRunning):
                self._reactor.stop()
        elif when - self._asked < ONE_REQUEST:
            _log.info("{signal} again, too soon to mean more", event="signal", signal=name)
        else:
            _log.warn("{signal} again: ending at once", event="signal", signal=name)
            self._service.cut()

    def _hangUp(self, name: str, when: float) -> None:
        self._log.reopen()
        _log.info("{signal}: reading the configuration again", event="signal", signal=name)
        self._supervision.reload()

    def _tellCounters(self, name: str, when: float) -> None:
        counters = JSONText(toJSON(self._service.counters()))
        _log.info("counters {counters}", event="counters", counters=counters)

    def _reserve(self, name: str, when: float) -> None:
        _log.info(
            "{signal} is kept for rolling restarts: nothing is done", event="signal", signal=name
        )

    def _setExitStatus(self) -> None:
        status = self._service.exitStatus
        if status:
            # `twistd` has its pid file to remove yet, and no way to hand on a status.
            atexit.register(_exitWith, status)


def useMonotonicClock(reactor: IProcessReactor) -> None:
    """
    Let the reactor's timers run by the monotonic clock.

    Its own is the wall clock: a step back stops every timer for as long, and with them all
    deadlines.  Not if somebody has timers by the other clock already.
    """
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic  # type: ignore[method-assign]  # it allows that


def shedGroups() -> None:
    """
    Keep no group of root's beside the one that ``twistd --gid`` has given.

    Without ``--uid`` Twisted leaves the supplementary groups as they are.
    """
    group = os.getegid()
    if os.geteuid() == 0 and group != 0:
        os.setgroups([group])


def _exitWith(status: int) -> None:
    # Whatever others have registered, first: nothing of Python's end comes after this.
    atexit.unregister(_exitWith)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def printEchodErrors() -> None:
    """Let an `EchodError` that ends the process be one line on standard error, and its status."""
    before = sys.excepthook

    def hook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, EchodError):
            before(kind, error, traceback)
            return
        if not isinstance(error, AlreadyReported):
            # The real one: `twistd` has turned the other into log events by now.
            print(f"echod: {error}", file=sys.__stderr__)
        # Python ends with the status of what its hook raises.
        raise SystemExit(error.status)

    sys.excepthook = hook
