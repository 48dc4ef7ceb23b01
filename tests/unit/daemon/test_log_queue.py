"""`echod.daemon.log_queue`: nobody waits for a log's reader, and what is lost is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from echod.daemon.log_queue import HELD, LogQueue
from echod.errors import EchodError

PATIENCE = 20.0


class Reader:
    """An outlet for text whose reader may stop."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.reads = threading.Semaphore(0)
        self.writing = threading.Event()
        self.opening = threading.Event()
        self.fault: BaseException | None = None

    def readOn(self) -> None:
        self.reads.release(1000)

    def settle(self, event: Any) -> tuple[Any, int]:
        text = event["log_text"]
        return text, len(text)

    def write(self, payloads: Sequence[Any]) -> int:
        self.writing.set()
        assert self.reads.acquire(timeout=PATIENCE)
        if self.fault is not None:
            raise self.fault
        self.lines.append(payloads[0])
        return 1

    def reopen(self) -> None:
        self.opening.set()
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.readOn()


def said(text: str) -> dict[str, Any]:
    return {"log_text": text}


def finished(queue: LogQueue) -> bool:
    return queue.finish(time.monotonic() + PATIENCE)


def test_inOrder(reader: Reader) -> None:
    """What came before the beginning is written too, once, in order."""
    queue = LogQueue(reader)
    reader.readOn()
    for number in range(10):
        queue(said(str(number)))
    assert reader.lines == []
    queue.begin()
    queue.begin()
    queue(said("last"))
    assert finished(queue)
    assert reader.lines == [*map(str, range(10)), "last"]


def test_readerStops(reader: Reader) -> None:
    """What finds the queue full is lost; a line in its place says how many."""
    queue = LogQueue(reader)
    queue.begin()
    queue(said("first"))
    assert reader.writing.wait(PATIENCE)
    piece = "x" * (HELD // 4)
    for _ in range(4):
        queue(said(piece))
    for _ in range(7):
        queue(said("lost"))
    reader.readOn()
    assert finished(queue)
    assert reader.lines[:5] == ["first", *[piece] * 4]
    assert reader.lines[5:] == ["7 lines lost here: whoever reads the log was too slow"]
    queue(said("well"))
    assert finished(queue)
    assert reader.lines[6:] == ["well"]


def test_itsPlace(reader: Reader) -> None:
    """A line that comes after lost ones comes after the line that counts them."""
    queue = LogQueue(reader)
    queue.begin()
    queue(said("x" * (HELD // 2)))
    assert reader.writing.wait(PATIENCE)
    queue(said("y" * HELD))
    queue(said("lost"))
    reader.writing.clear()
    reader.reads.release()
    assert reader.writing.wait(PATIENCE)
    queue(said("lost as well"))
    reader.writing.clear()
    reader.reads.release()
    assert reader.writing.wait(PATIENCE)
    queue(said("after"))
    reader.readOn()
    assert finished(queue)
    assert [line[:6] for line in reader.lines[:2]] == ["xxxxxx", "yyyyyy"]
    assert reader.lines[2:] == ["2 lines lost here: whoever reads the log was too slow", "after"]


def test_aLongLine(reader: Reader) -> None:
    """No line is too long for a queue that has room: thousands of listeners' counters."""
    queue = LogQueue(reader)
    queue(said("short"))
    queue(said("x" * (2 * HELD)))
    reader.readOn()
    queue.flush()
    assert [len(line) for line in reader.lines] == [5, 2 * HELD]


def test_cannotWrite(reader: Reader) -> None:
    """A full disk loses lines as well; how many is said once it has room, and nothing spins."""
    queue = LogQueue(reader)
    queue.begin()
    reader.readOn()
    reader.fault = OSError(28, "No space left on device")
    for _ in range(3):
        queue(said("lost"))
        assert finished(queue)
    assert reader.lines == []
    reader.fault = None
    queue(said("well"))
    assert finished(queue)
    assert reader.lines == ["3 lines lost here: No space left on device", "well"]


def test_observerRaises(reader: Reader) -> None:
    """Whatever an observer raises, SystemExit included, costs its line alone."""
    queue = LogQueue(reader)
    queue.begin()
    reader.readOn()
    reader.fault = SystemExit(5)
    queue(said("lost"))
    assert finished(queue)
    reader.fault = None
    queue(said("well"))
    assert finished(queue)
    assert reader.lines == ["1 line lost here: SystemExit(5)", "well"]


def test_reopen(reader: Reader) -> None:
    """A file is opened anew by who writes it: opening may take for ever too."""
    queue = LogQueue(reader)
    queue.reopen()
    queue.begin()
    assert reader.opening.wait(PATIENCE)
    reader.readOn()
    queue(said("new"))
    assert finished(queue)
    assert reader.lines == ["new"]


def test_cannotReopen(reader: Reader) -> None:
    """Where it cannot be opened anew, what there is says so."""
    queue = LogQueue(reader)
    reader.fault = OSError(13, "Permission denied", "/var/log/echod.log")
    queue.reopen()
    queue.begin()
    assert reader.writing.wait(PATIENCE)
    reader.fault = None
    reader.readOn()
    assert finished(queue)
    (line,) = reader.lines
    assert line.startswith("cannot open /var/log/echod.log anew: Permission denied; ")
    assert line.endswith("; the log goes on in the file that it was in")


def test_endsAnyway(reader: Reader) -> None:
    """The end waits to a deadline, and knows whether all was written."""
    queue = LogQueue(reader)
    queue.begin()
    queue(said("stuck"))
    assert reader.writing.wait(PATIENCE)
    assert not queue.finish(time.monotonic())
    queue(said("too late to be waited for"))
    reader.readOn()
    assert finished(queue)


def test_lateLines(reader: Reader) -> None:
    """What is logged after the end began is written before it goes on."""
    queue = LogQueue(reader)
    queue.begin()
    reader.readOn()
    assert finished(queue)
    queue(said("an atexit function's"))
    assert reader.lines == ["an atexit function's"]


def test_noThread(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be had, it says so in a line."""

    def start(self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(EchodError, match=r"^cannot start a thread for the log: can't start "):
        LogQueue(reader).begin()


def test_destructorsLog() -> None:
    """A destructor that logs while a line is queued waits for nobody."""

    class Chatty(Reader):
        def settle(self, event: Any) -> tuple[Any, int]:
            if event["log_text"].startswith("9 lines"):
                # Within the queue's lock.
                queue(said("from within"))
            return super().settle(event)

    reader = Chatty()
    reader.readOn()
    queue = LogQueue(reader)
    queue(said("x" * HELD))
    for _ in range(9):
        queue(said("lost"))
    queue.flush()
    assert sorted(line[:7] for line in reader.lines[1:]) == ["9 lines", "from wi"]
