"""What the unit tests share beside `tests.conftest`: the lines of the log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsText,
    formatEvent,
    globalLogPublisher,
)
from zope.interface import implementer


@implementer(ILogObserver)
class LogLines:
    """What is logged, as text."""

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self._events.append(event)

    @property
    def lines(self) -> list[str]:
        """All of it, in order."""
        return [formatEvent(event) for event in self._events]

    @property
    def texts(self) -> list[str]:
        """The same, with what a log has beside the line: when, whose, and tracebacks."""
        return [eventAsText(event) for event in self._events]

    @property
    def warnings(self) -> list[str]:
        """What of it is a warning."""
        return [formatEvent(each) for each in self._events if each["log_level"] is LogLevel.warn]


@pytest.fixture
def logLines() -> Iterator[LogLines]:
    """What is logged during the test."""
    observer = LogLines()
    globalLogPublisher.addObserver(observer)
    yield observer
    globalLogPublisher.removeObserver(observer)
