"""`echod.daemon.signals`, where a daemon's tests do not come: the clock, and other people's
errors."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time
from typing import Any

import pytest
from twisted.internet.task import Clock

import echod
from echod.daemon.signals import printEchodErrors, useMonotonicClock
from echod.errors import ConfigurationError


def test_importsStartNothing() -> None:
    """Who imports whatever there is, as ``pydoc`` does, gets modules and no daemon."""
    for found in pkgutil.walk_packages(echod.__path__, "echod."):
        importlib.import_module(found.name)
    assert callable(sys.modules["echod.__main__"].main)


def test_monotonicClock() -> None:
    """A step of the wall clock moves no timer."""
    clock: Any = Clock()
    useMonotonicClock(clock)
    assert clock.seconds is time.monotonic


def test_clockWithTimers() -> None:
    """Somebody's timers by the other clock go on by it."""
    clock: Any = Clock()
    before = clock.seconds
    clock.callLater(1, print)
    useMonotonicClock(clock)
    assert clock.seconds == before


def test_errorsThatEndIt(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One of ours is a line on standard error, and its status; another is as before."""
    others: list[Any] = []
    monkeypatch.setattr(sys, "excepthook", lambda *seen: others.append(seen))
    printEchodErrors()
    ours, other = ConfigurationError("$.drain: no such key"), KeyError("not ours")
    with pytest.raises(SystemExit) as ended:
        sys.excepthook(type(ours), ours, None)
    assert ended.value.code == 1
    sys.excepthook(type(other), other, None)
    assert others == [(KeyError, other, None)]
    assert capfd.readouterr() == ("", "echod: $.drain: no such key\n")
