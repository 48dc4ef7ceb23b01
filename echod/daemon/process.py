"""
The service as a process runs it: logged from start to end, and a failure to start told once.

``twistd`` in the background has lost its terminal by the time that anything is bound, and what its
parent says of an error is cut at 100 characters.  So the caller's standard error is kept until
then.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

from twisted.logger import Logger

from echod.daemon.log import Log
from echod.daemon.log_files import writeAll
from echod.daemon.log_format import errorLine
from echod.errors import AlreadyReported, EchodError
from echod.interfaces import IProcessReactor
from echod.server.plan import Plan
from echod.server.service import EchodService
from echod.startup import StoppedEarly

__all__ = ["Daemon", "StandardError"]

_log = Logger()

#: Seconds that somebody may take to read why it cannot start.
PATIENCE = 1.0


class StandardError:
    """
    The standard error that the process was given, wherever `sys.stderr` leads by now.

    Another descriptor for it: `twistd` closes the first.  To be closed, once all is well: a shell
    may wait for that, as in ``$(twistd echod)``.

    :param patience: seconds that `tell` waits at most for whoever reads it.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        try:
            self._descriptor = -1 if sys.__stderr__ is None else os.dup(sys.__stderr__.fileno())
        except OSError:
            self._descriptor = -1

    def __bool__(self) -> bool:
        return self._descriptor >= 0

    def tell(self, text: str) -> None:
        """Write a line; wait for its reader, as long as there is patience."""
        line = f"{text}\n".encode(errors="backslashreplace")
        thread = threading.Thread(target=self._write, args=(line,), daemon=True)
        thread.start()
        thread.join(self._patience)

    def close(self) -> None:
        """Let it go."""
        if self:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _write(self, line: bytes) -> None:
        # Or nobody is there to be told.
        with suppress(OSError):
            writeAll(self._descriptor, line)


class Daemon(EchodService):
    """
    The service, with a log that begins and ends with it.

    :param log: begins to be written with the first listener, in the process that stays.
    """

    def __init__(self, plan: Plan, reactor: IProcessReactor, log: Log) -> None:
        super().__init__(plan, reactor)
        self._log = log
        self._standardError = StandardError()
        # What it exits with if the log hangs: 1 until it has begun to serve, or is stopped.
        self._status = 1
        reactor.callWhenRunning(self._begun)

    def privilegedStartService(self) -> None:
        """
        Bind every listener, or none.

        :raises AlreadyReported: an address cannot be had; standard error has the line, and so has
            the log, if it is elsewhere.  Or it was stopped meanwhile.
        """
        self._log.begin()
        try:
            super().privilegedStartService()
        except StoppedEarly as ended:
            self._status = 0
            # `twistd` tidies up after an ordinary exception alone; else its pid file stays, and in
            # the background the process that waits for this one does so for ever.
            raise AlreadyReported(0) from ended
        except EchodError as error:
            if self._standardError:
                self._standardError.tell(errorLine(str(error), self._plan.logFormat))
            if self._log.elsewhere or not self._standardError:
                _log.critical("{reason}", event="not_started", reason=str(error))
            self._status = error.status
            raise AlreadyReported(error.status) from error

    def reload(self, plan: Plan) -> None:
        """See `EchodService.reload`; the log's format is the plan's from then on."""
        super().reload(plan)
        self._log.setFormat(plan.logFormat)

    def end(self) -> None:
        """
        The process's last act: write what is logged, and end even if nobody reads it.

        At once then: the thread that hangs may hold a lock that Python's own end waits for, that of
        standard output or of `logging`.
        """
        if not self._log.finish():
            os._exit(self.exitStatus or self._status)

    def _begun(self) -> None:
        self._status = 0
        self._standardError.close()
