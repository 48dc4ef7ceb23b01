"""
A queue before a log's observer, so that only a thread of its own waits for it.

`LogQueue` takes events in any thread, and writes none.  What it holds is bounded: what finds it
full is lost and counted, and a line in its place tells how many there were, as soon as writing
works.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from echod.errors import EchodError

__all__ = ["HELD", "LogQueue", "Outlet"]

#: Bytes that one queue holds, its lines' own overhead included.
HELD = 4 << 20
#: Bytes that are written at once.
_BATCH = 1 << 16


class Outlet(Protocol):
    """Where a queue's events go."""

    def settle(self, event: LogEvent) -> tuple[Any, int]:
        """What to write for an event, whatever becomes of it later, and what that holds, bytes."""

    def write(self, payloads: Sequence[Any]) -> int:
        """
        Write, from the first on, however long that takes; returns how many.

        :raises BaseException: the first cannot be written.
        """

    def reopen(self) -> None:
        """
        Open the file anew, if it is known by a name.

        :raises OSError: it cannot be had; the one before goes on.
        """


@implementer(ILogObserver)
class LogQueue:
    """
    An observer whose outlet may take for ever to write.

    Until `begin`, events are queued and nothing is written.

    :param outlet: settles events in the caller's thread, and writes them in its own.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        # What is queued, its size, and how many lines it stands for.
        self._entries: deque[tuple[Any, int, int]] = deque()
        self._held = self._lost = 0
        self._reason = ""
        self._reopening = False
        # Whether the thread waits for something to do.
        self._idle = True
        self._begun = False
        # Until when lines are waited for, once the process ends.
        self._deadline: float | None = None
        # Reentrant: a destructor may log, wherever it runs.
        self._changed = threading.Condition(threading.RLock())

    def __call__(self, event: LogEvent) -> None:
        """Queue an event, or count it as lost."""
        if self._held >= HELD:
            with self._changed:
                self._lost += 1
                self._reason = "whoever reads the log was too slow"
            return
        payload, size = self._outlet.settle(event)
        with self._changed:
            if payload:
                self._tellLost()
                self._append(payload, size, 1)
        if self._deadline is not None:
            self.finish(self._deadline)

    def begin(self) -> None:
        """
        Write from now on.

        In the process that is to stay: no thread survives fork(2).

        :raises EchodError: no thread can be had.
        """
        if self._begun:
            return
        thread = threading.Thread(target=self._run, name="echod log", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise EchodError(f"cannot start a thread for the log: {error}") from error
        self._begun = True

    def reopen(self) -> None:
        """Have the file opened anew before the next line is written, if it has a name."""
        with self._changed:
            self._reopening = True
            self._changed.notify_all()

    def finish(self, deadline: float) -> bool:
        """
        Wait until all is written, to a monotonic deadline; whether that came about.

        Whatever is logged from now on is waited for likewise: soon no thread will run.
        """
        self._deadline = deadline
        with self._changed:
            return self._changed.wait_for(self._isDone, max(0, deadline - time.monotonic()))

    def flush(self) -> None:
        """Write what is queued, in the caller's thread, where there is no other."""
        while self._entries:
            self._write(self._take())

    def _isDone(self) -> bool:
        return self._idle and not self._entries and not self._reopening

    def _append(self, payload: object, size: int, lines: int) -> None:
        self._entries.append((payload, size, lines))
        self._held += size
        if self._idle:
            self._changed.notify_all()

    def _tellLost(self) -> None:
        """Queue a line in the place of those that were lost, if any were."""
        if self._lost:
            lost, self._lost = self._lost, 0
            text = f"{lost} line{'s' * (lost > 1)} lost here: {self._reason}"
            self._tell(LogLevel.warn, text, lost, event="lost", lines=lost, reason=self._reason)

    def _tell(self, level: object, text: str, holds: int, **values: object) -> None:
        event = {
            **values,
            "log_format": "{log_text}",
            "log_text": text,
            "log_level": level,
            "log_namespace": __name__,
            "log_time": time.time(),
        }
        payload, size = self._outlet.settle(event)
        self._append(payload, size, holds)

    def _run(self) -> None:
        # Signals are the reactor's.  Blocked, SIGTTOU stops nobody either (stty tostop).
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                while not self._entries and not self._reopening:
                    self._idle = True
                    self._changed.notify_all()
                    self._changed.wait()
                self._idle = False
                reopening, self._reopening = self._reopening, False
                batch = self._take()
            if reopening:
                self._reopen()
            self._write(batch)

    def _take(self) -> list[tuple[Any, int, int]]:
        batch, size = [], 0
        while self._entries and size < _BATCH:
            batch.append(self._entries.popleft())
            size += batch[-1][1]
        return batch

    def _write(self, batch: list[tuple[Any, int, int]]) -> None:
        while batch:
            written = failed = 0
            reason = "it could not be written"
            try:
                written = self._outlet.write([payload for payload, _, _ in batch])
            except BaseException as error:
                reason = getattr(error, "strerror", None) or repr(error)
            if not written:
                failed = 1
            done, batch = batch[: written + failed], batch[written + failed :]
            with self._changed:
                self._held -= sum(size for _, size, _ in done)
                if failed:
                    self._lost += done[-1][2]
                    self._reason = reason
                elif not batch and not self._entries:
                    self._tellLost()

    def _reopen(self) -> None:
        try:
            self._outlet.reopen()
        except OSError as error:
            text = f"cannot open {error.filename} anew: {error.strerror}"
            with self._changed:
                self._tell(LogLevel.error, f"{text}; the log goes on in the file that it was in", 1)
