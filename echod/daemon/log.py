"""
The log's way out of the reactor: no line of it is waited for.

Whoever reads a log may stop: a full pipe, a terminal after Ctrl-S, a journal that hangs.  A write
to it then lasts for ever, and ``O_NONBLOCK`` is no answer: it belongs to everybody who shares the
descriptor (open(2)).  So each observer that the process is given, whichever it is, stands behind a
queue (`LogQueue`) with a thread of its own, which alone waits.  What finds the queue full is lost
and counted; a line in its place tells how many there were.

What an event says is settled before it is queued: as text, or as values that nobody can change.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import Any

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogBeginner,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.python.reflect import safe_str

from echod.daemon.log_files import NamedFile, StandardStream, TextFile
from echod.daemon.log_format import FORMATS
from echod.daemon.log_queue import LogQueue
from echod.errors import EchodError

__all__ = ["Log"]

#: What a line takes in memory beside its text, and an event beside its values.
_LINE, _EVENT = 128, 2048
#: Seconds that the process's end waits for lines to be written.
PATIENCE = 1.0

#: Values that stay what they are.
_SETTLED = (str, bytes, int, float, type(None), type(LogLevel.info), Logger)


class _Text:
    """
    Lines of text for a file: formatted at once, written many at a time.

    :param own: what the observer makes of an event.
    """

    def __init__(self, own: Callable[[Any], str | None], file: TextFile) -> None:
        # What does so by now.
        self._own = self._formatted = own
        self.file = file

    def setFormat(self, word: str) -> None:
        """Format what comes from now on so, if the observer's own is Twisted's text."""
        # Private: the name of a function within a function is all that tells whose it is.
        if getattr(self._own, "__qualname__", "").startswith(f"{textFileLogObserver.__name__}."):
            self._formatted = FORMATS.get(word, self._own)

    def settle(self, event: LogEvent) -> tuple[object, int]:
        text = self._formatted(event)
        line = self.file.encode(text) if text else b""
        return line, len(line) + _LINE

    def write(self, lines: Sequence[Any]) -> int:
        return self.file.write(lines)

    def reopen(self) -> None:
        self.file.reopen()


class _Events:
    """Events for an observer that does with them whatever it does."""

    def __init__(self, observer: ILogObserver) -> None:
        self._observer = observer

    def settle(self, event: LogEvent) -> tuple[object, int]:
        settled = _settled(event)
        return settled, sum(map(_sizeOf, settled.values())) + _EVENT

    def write(self, events: Sequence[Any]) -> int:
        self._observer(events[0])
        return 1

    def setFormat(self, word: str) -> None:
        """What it makes of events is its own business."""

    def reopen(self) -> None:
        """What it writes to is its own business."""


def _settled(event: LogEvent) -> LogEvent:
    """A copy of an event whose values cannot change; in words, where they could."""
    if all(isinstance(value, _SETTLED) for value in event.values()):
        return dict(event)
    settled = {key: _constant(value) for key, value in event.items() if key != "log_flattened"}
    settled["log_text"], settled["log_format"] = formatEvent(event), "{log_text}"
    if "format" in settled:
        # That of `twisted.python.log`.
        settled["format"] = "%(log_text)s"
    return settled


def _constant(value: object) -> object:
    if isinstance(value, _SETTLED):
        return value
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    if isinstance(value, Failure):
        # Without its frames and what lives in them, which the exception has too.
        # Any: it is said to have an exception, and to show text is all that is left to do.
        failure: Any = copy(value)
        failure.value = safe_str(value.value)
        return failure
    return safe_str(value)


def _sizeOf(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, tuple):
        return sum(map(_sizeOf, value))
    return len(value.getTraceback()) if isinstance(value, Failure) else 0


def _outlet(observer: ILogObserver, standard: Sequence[Any]) -> _Text | _Events:
    """How to write to ``observer``: straight into its file, where that is known."""
    if isinstance(observer, FileLogObserver):
        # Private: Twisted tells nobody otherwise.  Any: nor what it is.
        file: Any = getattr(observer, "_outFile", observer)
        if file is None:
            return _Text(observer.formatEvent, StandardStream(-1))
        if any(file is stream for stream in standard):
            file.flush()
            stream = StandardStream(file.fileno(), file.encoding)
            return _Text(observer.formatEvent, stream)
        if type(file) is LogFile:
            file.close()
            return _Text(observer.formatEvent, NamedFile(file.path))
    return _Events(observer)


class Log:
    """
    The process's log.

    From now on whatever observers the process is given by ``beginLoggingTo`` are `LogQueue`;
    `begin` has them write.

    :param lineFormat: what its lines are: a key of `echod.daemon.log_format.FORMATS`, or ``text``.
        It takes the place of Twisted's text in standard streams and files; syslog, and what
        ``--logger`` names, have their own.
    :param patience: seconds that `finish` waits at most.
    :ivar elsewhere: whether something goes elsewhere than to standard output or standard error.
    """

    def __init__(
        self,
        beginner: LogBeginner = globalLogBeginner,
        patience: float = PATIENCE,
        lineFormat: str = "text",
    ) -> None:
        self._patience = patience
        self._format = lineFormat
        self._queues: list[LogQueue] = []
        self._outlets: list[_Text | _Events] = []
        self.elsewhere = False
        self._begun = False
        self._standard = [stream for stream in (sys.__stdout__, sys.__stderr__) if stream]
        beginLoggingTo = beginner.beginLoggingTo

        # Any: the rest is Twisted's business.
        def begin(observers: Iterable[ILogObserver], *rest: Any, **options: Any) -> None:
            beginLoggingTo([self._queue(observer) for observer in observers], *rest, **options)

        beginner.beginLoggingTo = begin  # type: ignore[method-assign]  # no other way in

    def begin(self) -> None:
        """Write what is queued, and from now on; see `LogQueue.begin`."""
        self._begun = True
        for queue in self._queues:
            queue.begin()

    def setFormat(self, word: str) -> None:
        """Have lines from now on be of that format; those that wait stay as they are."""
        self._format = word
        for outlet in self._outlets:
            outlet.setFormat(word)

    def reopen(self) -> None:
        """Open files that have a name anew: somebody has moved them."""
        for queue in self._queues:
            queue.reopen()

    def finish(self) -> bool:
        """
        Wait until all is written, as long as there is patience; whether that came about.

        If not, a thread hangs in the middle of something, and may hold any lock.
        """
        if not self._begun and self._queues:
            try:
                self.begin()
            except EchodError:
                # The interpreter ends, and lets no thread begin (CPython 3.12).
                for queue in self._queues:
                    queue.flush()
        deadline = time.monotonic() + self._patience
        # Of all of them, whichever hangs.
        written = [queue.finish(deadline) for queue in self._queues]
        return all(written)

    def _queue(self, observer: ILogObserver) -> LogQueue:
        outlet = _outlet(observer, self._standard)
        if not (isinstance(outlet, _Text) and isinstance(outlet.file, StandardStream)):
            self.elsewhere = True
        outlet.setFormat(self._format)
        self._outlets.append(outlet)
        queue = LogQueue(outlet)
        self._queues.append(queue)
        if self._begun:
            queue.begin()
        return queue
