"""`echod.output`: what is written, and who is told where it cannot be."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from echod.errors import OutputFailed
from echod.output import FAILED, NO_READER, writeError, writeOut


@pytest.fixture
def gone() -> Iterator[io.TextIOWrapper]:
    """A stream whose reader has gone."""
    far, near = os.pipe()
    os.close(far)
    stream = os.fdopen(near, "w", encoding="ascii")
    yield stream
    # What was left in its buffer goes to nobody, and does not fail.
    stream.close()


@pytest.fixture
def full() -> Iterator[io.TextIOWrapper]:
    """A stream to a device that is full."""
    with open("/dev/full", "w", encoding="ascii") as stream:
        yield stream
        with suppress(OSError):
            stream.flush()


def test_written(capsys: pytest.CaptureFixture[str]) -> None:
    writeOut("one\ntwo\n")
    writeError("three")
    assert capsys.readouterr() == ("one\ntwo\n", "three\n")


def test_noLetters(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the locale has no letters for is escaped, and is no fault."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    writeOut("f\xfcr\n")
    assert raw.getvalue() == b"f\\xfcr\n"


def test_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has ``None`` for a descriptor that was closed at the start."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    writeOut("nobody reads this")
    writeError("nor this")


def test_readerGone(monkeypatch: pytest.MonkeyPatch, gone: io.TextIOWrapper) -> None:
    """Nobody is told, by the status that is usual; and more can be written, to nobody."""
    monkeypatch.setattr(sys, "stdout", gone)
    with pytest.raises(OutputFailed) as caught:
        writeOut("text\n")
    assert (str(caught.value), caught.value.status) == ("", NO_READER)
    gone.flush()


def test_full(monkeypatch: pytest.MonkeyPatch, full: io.TextIOWrapper) -> None:
    """One line that says why."""
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(OutputFailed, match=r"No space left on device; redirect it$") as caught:
        writeOut("text\n")
    assert caught.value.status == FAILED
    full.flush()


def test_nobodyCanBeTold(monkeypatch: pytest.MonkeyPatch, gone: io.TextIOWrapper) -> None:
    monkeypatch.setattr(sys, "stderr", gone)
    writeError("text")
    gone.flush()
