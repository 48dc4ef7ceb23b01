"""`echod.daemon.log`: whatever observers the process is given, they are waited for by nobody."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LegacyLogObserverWrapper,
    LogBeginner,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    LogPublisher,
    eventAsText,
    jsonFileLogObserver,
    textFileLogObserver,
)
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from zope.interface import implementer

from echod.daemon.log import Log

PATIENCE = 20.0


class World:
    """
    A process's logging of a test's own.

    :param patience: see `Log`.
    """

    def __init__(self, patience: float = PATIENCE, lineFormat: str = "text") -> None:
        self.publisher = LogPublisher()
        self.stdio: Any = type("Stdio", (), {"stdout": io.StringIO(), "stderr": io.StringIO()})()
        self.warnings: Any = type("Warnings", (), {"showwarning": warnings.showwarning})()
        self.errors = io.StringIO()
        beginner = LogBeginner(self.publisher, self.errors, self.stdio, self.warnings)
        self.log = Log(beginner, patience, lineFormat)
        self.beginLoggingTo = beginner.beginLoggingTo
        self.logger = Logger(namespace="test", observer=self.publisher)


@pytest.fixture
def world() -> World:
    return World()


def collect(into: list[Any]) -> Any:
    return into.append


def test_before(world: World) -> None:
    """What is logged before there is a log, and before it is written, comes first, and once."""
    events: list[Any] = []
    world.logger.info("before")
    world.beginLoggingTo([collect(events)])
    world.logger.info("between")
    assert events == []
    world.log.begin()
    world.logger.info("after")
    assert world.log.finish()
    assert [event["log_format"] for event in events] == ["before", "between", "after"]


def test_beganBefore(world: World) -> None:
    """`twist` gives the observers when the service runs already."""
    events: list[Any] = []
    world.log.begin()
    world.beginLoggingTo([collect(events)], redirectStandardIO=False)
    world.logger.info("hello")
    assert world.log.finish()
    assert [event["log_format"] for event in events] == ["hello"]


def test_neverBegan(world: World) -> None:
    """A process that ends before the log is written says what it had to say."""
    events: list[Any] = []
    world.beginLoggingTo([collect(events)])
    world.logger.info("hello")
    assert world.log.finish()
    assert len(events) == 1


def test_noThreadAtTheEnd(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it need a thread, which an interpreter that ends does not give."""

    def start(self: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    events: list[Any] = []
    world.beginLoggingTo([collect(events)])
    world.logger.info("hello")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert world.log.finish()
    assert len(events) == 1


def test_nobodyHoldsUp(world: World) -> None:
    """An observer that hangs holds up neither who logs nor another observer."""
    goOn, events = threading.Event(), []
    hung: list[Any] = []

    @implementer(ILogObserver)
    def hangs(event: Any) -> None:
        assert goOn.wait(PATIENCE)
        hung.append(event)

    @implementer(ILogObserver)
    def see(event: Any) -> None:
        events.append(event)
        if len(events) == 3:
            seen.set()

    seen = threading.Event()
    world.beginLoggingTo([hangs, see])
    world.log.begin()
    for _ in range(3):
        world.logger.info("hello")
    assert seen.wait(PATIENCE)
    assert hung == []
    goOn.set()
    assert world.log.finish()
    assert len(hung) == 3


def test_standardStreamsAndWarnings(world: World) -> None:
    """What others print or warn of goes the same way."""
    events: list[Any] = []
    world.beginLoggingTo([collect(events)])
    world.log.begin()
    world.stdio.stdout.write("printed\n")
    world.stdio.stderr.write("an error\n")
    world.warnings.showwarning("careful", UserWarning, "file.py", 1)
    assert world.log.finish()
    texts = [eventAsText(event, includeTimestamp=False, includeSystem=False) for event in events]
    assert texts == ["printed", "an error", "file.py:1: builtins.UserWarning: careful"]


class Changing:
    """A value that is another one when it is looked at later."""

    def __init__(self) -> None:
        self.value = "then"

    def __str__(self) -> str:
        return self.value

    __repr__ = __str__


def test_settled(world: World) -> None:
    """An event tells what was true when it happened."""
    events: list[Any] = []
    world.beginLoggingTo([collect(events)])
    changing, mutable = Changing(), [1]
    world.logger.info("{it} {it.value} {them}", it=changing, them=mutable, number=7)
    changing.value = "now"
    mutable.append(2)
    world.log.begin()
    assert world.log.finish()
    (event,) = events
    assert eventAsText(event).endswith("[test#info] then then [1]")
    assert (event["it"], event["them"], event["number"]) == ("then", "[1]", 7)


def test_failure(world: World, tmp_path: Path) -> None:
    """A traceback is whole, and keeps nothing alive that was in its frames."""
    events: list[Any] = []
    world.beginLoggingTo([collect(events)])

    class Value:
        pass

    gone = threading.Event()

    def fail() -> None:
        value = Value()
        value.__class__.__del__ = lambda self: gone.set()  # type: ignore[attr-defined]
        raise KeyError("why")

    try:
        fail()
    except KeyError:
        world.logger.failure("it {what}", what="failed")
    assert gone.wait(0)
    world.log.begin()
    assert world.log.finish()
    (event,) = events
    text = eventAsText(event)
    assert "it failed\nTraceback (most recent call last):" in text
    assert "in fail" in text
    assert text.rstrip().endswith("builtins.KeyError: 'why'")
    assert event["log_failure"].check(KeyError)


def test_legacyObserver(world: World) -> None:
    """An observer of the old kind (syslog's) gets what it knows, from either way to log."""
    texts: list[Any] = []

    @implementer(ILogObserver)
    def observe(event: Any) -> None:
        texts.append((event["isError"], event["system"], legacy.textFromEventDict(event)))

    world.beginLoggingTo([LegacyLogObserverWrapper(observe)])
    old = legacy.LogPublisher(world.publisher, world.publisher)
    world.logger.info("new {it}", it=Changing())
    old.msg("old", Changing(), system="of old")
    old.msg(format="%(number)d old", number=3, system="-", more=[])
    world.logger.failure("failed", Failure(KeyError("why")))
    world.log.begin()
    assert world.log.finish()
    assert texts[:3] == [(0, "-", "new then"), (0, "of old", "old then"), (0, "-", "3 old")]
    error, _, text = texts[3]
    assert error == 1
    assert text.startswith("failed\nTraceback")
    assert text.rstrip().endswith("builtins.KeyError: 'why'")


def test_json(world: World) -> None:
    """An observer that writes fields gets them, each for itself."""
    out = io.StringIO()
    world.beginLoggingTo([jsonFileLogObserver(out, "")])
    world.logger.info("{it}", it=5)
    world.log.begin()
    assert world.log.finish()
    assert json.loads(out.getvalue())["it"] == 5


def standardOutput(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, int]:
    """A pipe as the process's standard output; its reading end."""
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w", **options)
    monkeypatch.setattr(sys, "__stdout__", stream)
    return stream, reading


def test_standardOutput(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is written to past Python's file, whose lock its end would wait for."""
    stream, reading = standardOutput(monkeypatch, encoding="ascii")
    world = World()
    with stream:
        stream.write("before\n")
        world.beginLoggingTo([textFileLogObserver(stream, None)])
        world.logger.info("h\u00e9llo")
        world.log.begin()
        assert world.log.finish()
        assert os.read(reading, 1000) == b"before\n- [test#info] h\\xe9llo\n"
        assert not world.log.elsewhere
    os.close(reading)


def test_formats(tmp_path: Path) -> None:
    """Twisted's text in a file is another format from the first line on, or from one on."""
    world = World(lineFormat="json")
    path = tmp_path / "echod.log"
    world.logger.info("early")
    world.beginLoggingTo([textFileLogObserver(LogFile.fromFullPath(str(path)))])
    world.logger.info("{number}", number=5, event="mine")
    world.log.setFormat("journal")
    world.logger.error("h\u00e9llo")
    world.log.setFormat("text")
    world.logger.info("bye")
    world.log.begin()
    assert world.log.finish()
    early, mine, journal, text = path.read_text().splitlines()
    assert json.loads(early)["message"] == "early"
    assert json.loads(mine)["number"] == 5
    assert journal == "<3>h\u00e9llo"
    assert text.endswith(" [test#info] bye")
    (queue,) = world.log._queues
    os.close(queue._outlet.file._descriptor)  # type: ignore[attr-defined]


def test_formatsOfOthers() -> None:
    """What somebody has made of events of his own is his: JSON of Twisted's, and syslog's text."""
    world = World(lineFormat="journal")
    out = io.StringIO()
    texts: list[Any] = []

    @implementer(ILogObserver)
    def syslog(event: Any) -> None:
        texts.append(legacy.textFromEventDict(event))

    world.beginLoggingTo([jsonFileLogObserver(out, ""), LegacyLogObserverWrapper(syslog)])
    world.logger.info("{number}", number=5, event="mine", _more=[1])
    world.log.begin()
    assert world.log.finish()
    assert json.loads(out.getvalue())["number"] == 5
    assert texts == ["5"]


def test_linesThatAreLost() -> None:
    """They have an event of their own."""
    world = World(lineFormat="json")
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as lines, os.fdopen(writing, "w") as stream:
        world.log._standard = [stream]
        world.beginLoggingTo([textFileLogObserver(stream)])
        for _ in range(6):
            world.logger.info("{text}", text="x" * (1 << 20))
        world.log.begin()
        events = [json.loads(lines.readline())]
        while events[-1]["event"] == "message":
            events.append(json.loads(lines.readline()))
        assert world.log.finish()
    lost = events.pop()
    assert (lost["event"], lost["lines"], lost["level"]) == ("lost", 6 - len(events), "warn")
    assert lost["reason"] == "whoever reads the log was too slow"


def test_noStandardOutput(world: World) -> None:
    """Without a standard output there is nothing to write to, and nothing fails."""
    world.beginLoggingTo([textFileLogObserver(None)])  # type: ignore[arg-type]
    world.logger.info("hello")
    assert world.log.finish()
    assert not world.log.elsewhere


def test_logFile(world: World, tmp_path: Path) -> None:
    """`--logfile`: appended to, opened anew, and not cut in pieces of 1 MB by Twisted."""
    path = tmp_path / "echod.log"
    world.beginLoggingTo([textFileLogObserver(LogFile.fromFullPath(str(path)))])
    world.log.begin()
    assert world.log.elsewhere
    world.logger.info("{text}", text="x" * 2_000_000)
    world.logger.info("long")
    assert world.log.finish()
    assert [each.name for each in tmp_path.iterdir()] == ["echod.log"]
    path.rename(tmp_path / "echod.log.1")
    world.log.reopen()
    world.logger.info("hello")
    assert world.log.finish()
    assert path.read_text().endswith("[test#info] hello\n")
    assert len(path.read_text().splitlines()) == 1
    (queue,) = world.log._queues
    os.close(queue._outlet.file._descriptor)  # type: ignore[attr-defined]


def test_filtered(world: World) -> None:
    """`twist` filters by level before the file; that goes on."""
    out = io.StringIO()
    predicate = LogLevelFilterPredicate(LogLevel.warn)
    world.beginLoggingTo([FilteringLogObserver(textFileLogObserver(out), [predicate])])
    world.logger.info("no")
    world.logger.error("yes")
    world.log.begin()
    assert world.log.finish()
    assert "yes" in out.getvalue()
    assert "no" not in out.getvalue()
    world.log.reopen()
    assert world.log.finish()
