"""`echod.daemon.log_format`: lines for programs, and for systemd's journal."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.daemon.log_format import JSONText, formatForJournal, formatJSON


@implementer(ILogObserver)
class Collected:
    """A logger, and what it has logged."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.logger = Logger(namespace="test", observer=self)

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)

    def json(self) -> Any:
        """The last event as a program reads it."""
        line = formatJSON(self.events[-1])
        assert line is not None
        assert line.isascii()
        assert line.endswith("\n")
        assert line[:-1].isprintable()
        return json.loads(line)

    def journal(self) -> str | None:
        """The same as the journal has it."""
        return formatForJournal(self.events[-1])


@pytest.fixture
def log() -> Collected:
    return Collected()


def test_ours(log: Collected) -> None:
    """A word, its values under the names of keys, and the text; numbers are numbers."""
    log.logger.emit(
        LogLevel.warn,
        "closed {listener} in={bytesIn}{_more}",
        event="closed",
        listener="raw",
        bytesIn=5,
        seconds=0.25,
        names=["a", "b"],
        failure=None,
        _more=" more",
    )
    found = log.json()
    when = datetime.fromisoformat(found.pop("time"))
    assert abs((datetime.now(UTC) - when).total_seconds()) < 60
    assert found == {
        "level": "warn",
        "event": "closed",
        "listener": "raw",
        "bytes_in": 5,
        "seconds": 0.25,
        "names": ["a", "b"],
        "message": "closed raw in=5 more",
    }
    assert log.journal() == "<4>closed raw in=5 more\n"


def test_time(log: Collected) -> None:
    """RFC 3339 in UTC, with three digits; an event that has none is of now."""
    for moment, text in (
        (0, "1970-01-01T00:00:00.000Z"),
        (1e9 + 0.0625, "2001-09-09T01:46:40.062Z"),
    ):
        log.events.append({"log_format": "x", "log_time": moment})
        assert log.json()["time"] == text
    for wrong in (None, "now", 1e300, float("nan")):
        log.events.append({"log_format": "x", "log_time": wrong})
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", log.json()["time"])


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (LogLevel.debug, 7),
        (LogLevel.info, 6),
        (LogLevel.warn, 4),
        (LogLevel.error, 3),
        (LogLevel.critical, 2),
    ],
)
def test_levels(log: Collected, level: Any, priority: int) -> None:
    """sd-daemon(3)."""
    log.logger.emit(level, "hello")
    assert log.json()["level"] == level.name
    assert log.journal() == f"<{priority}>hello\n"


def test_others(log: Collected) -> None:
    """Who has no word, or one that is none, has its text, and the name of who has logged it."""
    log.logger.info("{a}\n{b}", a=1, b=object, listener="mine")
    found = log.json()
    assert {*found} == {"time", "level", "event", "namespace", "message"}
    assert (found["event"], found["namespace"]) == ("message", "test")
    assert found["message"].startswith("1\n<class")
    log.logger.info("hello", event=object())
    assert log.json()["event"] == "message"
    log.events.append({"format": "of old", "isError": 0})
    assert (formatJSON(log.events[-1]), log.journal()) == (None, None)


def test_ourNamesStay(log: Collected) -> None:
    """Nobody's value takes the place of what every line has."""
    log.logger.info("hello", event="mine", time="never", message="no", namespace="mine")
    log.events[-1]["level"] = "none"
    found = log.json()
    assert (found["event"], found["level"], found["message"]) == ("mine", "info", "hello")
    assert found["time"].startswith("20")
    assert found["namespace"] == "mine"


def test_failure(log: Collected) -> None:
    """A traceback is a value of its own; in the journal each of its lines has the priority."""

    def fail() -> None:
        raise KeyError("why\x1b")

    try:
        fail()
    except KeyError:
        log.logger.failure("it {what}", what="failed")
    found = log.json()
    assert (found["event"], found["level"], found["message"]) == (
        "failure",
        "critical",
        "it failed",
    )
    assert found["traceback"].startswith("Traceback (most recent call last):\n")
    assert "in fail" in found["traceback"]
    lines = (log.journal() or "").splitlines()
    assert lines[:2] == ["<2>it failed", "<2>Traceback (most recent call last):"]
    assert all(line.startswith("<2>") for line in lines)
    # A word of ours stays.
    log.logger.failure("no", Failure(KeyError("why")), event="reload_refused")
    assert log.json()["event"] == "reload_refused"


def test_failureWithoutTraceback(log: Collected) -> None:
    """What has failed cannot even say what it is."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

        __repr__ = __str__

    class Broken(Failure):
        def getTraceback(self, *args: object, **more: object) -> str:
            raise ValueError("no words")

    for failure in (Failure(Mute()), Broken(Mute()), "a word"):
        log.events.append({"log_format": "hello", "log_failure": failure})
        assert isinstance(log.json()["traceback"], str)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\r", None),
        ("\x1b[31m\x7f\x9b", None),
        ("\u202e\u2028\u0085", None),
        ("\U0001f600 h\u00e9", None),
        ("half \udc80 a pair", "half \\udc80 a pair"),
        ('"}\\', None),
    ],
)
def test_whateverStrangersWrite(log: Collected, text: str, shown: str | None) -> None:
    """One line of ASCII that nothing can be done with to a terminal, and nothing is lost."""
    log.logger.info("{it}", event="mine", it=text)
    assert (log.json()["it"], log.json()["message"]) == (shown or text, shown or text)


def test_valuesThatJSONHasNot(log: Collected) -> None:
    """Each has a line all the same."""

    class Mute:
        def __repr__(self) -> str:
            raise ValueError("no words")

    log.logger.info("hello", event="mine", big=1 << 70, it=object())
    found = log.json()
    assert int(found["big"]) == 1 << 70
    assert found["it"].startswith("<object object")
    log.logger.info("hello", event="mine", keys={(1, 2): 3}, data=b"\xff\0")
    assert log.json()["message"] == "hello"
    log.logger.info("hello", event="mine", nan=float("nan"), data=b"\xff\0", mute=Mute())
    assert (log.json()["nan"], log.json()["data"]) == (None, "/wA=")


def test_textThatIsJSON(log: Collected) -> None:
    """It stands there as what it is."""
    log.logger.info("counters {counters}", event="counters", counters=JSONText('{"a":[1]}'))
    found = log.json()
    assert found["counters"] == {"a": [1]}
    assert found["message"] == 'counters {"a":[1]}'


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text() | st.integers()))
def test_anyValues(values: dict[str, Any]) -> None:
    """Whatever the values, there is one object, in one line."""
    event = {**values, "event": "mine", "log_format": "{log_text}", "log_text": "".join(values)}
    line = formatJSON(event)
    assert line is not None
    assert line.count("\n") == 1
    assert line.isascii()
    assert json.loads(line)["event"] == "mine"
