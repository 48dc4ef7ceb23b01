"""What connections are called."""

from __future__ import annotations

import subprocess
import sys

import pytest

from echod.insight.identity import idOf, nextNumber, numberOf


def test_roundTrip() -> None:
    """An id leads back to its number, and each number is given once."""
    first, second = nextNumber(), nextNumber()
    assert first != second
    assert idOf(first) != idOf(second)
    assert numberOf(idOf(second)) == second


def test_anotherProcess() -> None:
    """The same number has another id in another process."""
    code = "from echod.insight.identity import idOf; print(idOf(1))"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert other != idOf(1)
    assert numberOf(other) is None


@pytest.mark.parametrize("word", ["", "-", "1", "x-1"])
def test_noId(word: str) -> None:
    assert numberOf(word) is None


@pytest.mark.parametrize("number", ["", " 1", "0x1", "01", "F", "-1", "1_0", "x"])
def test_otherSpellings(number: str) -> None:
    """There is one way to write an id."""
    process = idOf(1).partition("-")[0]
    assert numberOf(f"{process}-{number}") is None
