"""`echod.server.late_addresses`: a start that waits for addresses which are not there yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from echod.config.settings import Configuration
from echod.errors import AddressMissing, BindTimedOut, ListenError
from echod.server.late_addresses import STEP, bindAll
from echod.server.listener import Listener
from echod.server.plan import ListenerRequest, plan
from echod.server.registry import Registry
from echod.server.service import EchodService
from tests.unit.conftest import LogLines
from tests.unit.outer import Outer


class Time:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Tried:
    """A listener whose binding fails with each of some errors in turn, and then succeeds."""

    def __init__(self, timeout: float, *errors: Exception) -> None:
        self.plan = SimpleNamespace(limits=SimpleNamespace(bindTimeout=timeout))
        self.errors = list(errors)
        self.tries = 0

    def privilegedStartService(self) -> None:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)


def missing(times: int, what: str = "cannot listen on tcp 192.0.2.1:7: not there") -> list[Any]:
    return [AddressMissing(what) for _ in range(times)]


def bind(*listeners: Tried) -> float:
    """Bind them; the seconds that it took."""
    time = Time()
    began = time.now
    bindAll(cast("list[Listener]", list(listeners)), time.monotonic, time.sleep)
    return time.now - began


def test_comes(logLines: LogLines) -> None:
    """It is tried again until it comes; one line tells, and another only of another reason."""
    late = Tried(5, *missing(4), *missing(2, "cannot listen on tcp 192.0.2.1:7: no such zone"))
    assert bind(late) == pytest.approx(6 * STEP)
    assert late.tries == 7
    begin, end = "cannot listen on tcp 192.0.2.1:7: ", ": tried again for 5 s"
    assert logLines.lines == [f"{begin}not there{end}", f"{begin}no such zone{end}"]


def test_doesNotCome() -> None:
    """Then the error says how long it was tried, and the status is one to be started again by."""
    late = Tried(5, *missing(100))
    with pytest.raises(BindTimedOut, match=r"not there, for 5 s \(bind_timeout\)$") as raised:
        bind(late)
    assert raised.value.status == 75
    assert late.tries == 26


def test_onlyWhatMayCome() -> None:
    """Whatever waiting does not change is refused at once, and so is all without a time."""
    for listener in (Tried(0, *missing(9)), Tried(5, ListenError("in use"), *missing(9))):
        with pytest.raises(ListenError) as raised:
            bind(listener)
        assert (listener.tries, raised.value.status) == (1, 1)


def test_one(logLines: LogLines) -> None:
    """One that is late delays no other; each has its own time, from the same beginning."""
    early, late, later = Tried(0), Tried(1, *missing(3)), Tried(9, *missing(20))
    assert bind(late, early, later) == pytest.approx(20 * STEP)
    assert (early.tries, late.tries, later.tries) == (1, 4, 21)
    assert len(logLines.lines) == 2


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_realAddress(kind: str) -> None:
    """What the system says of an address that it has not is such an error (bind(2))."""
    request = ListenerRequest(
        place="here",
        protocol={"tcp": "raw", "udp": "udp"}[kind],
        # TEST-NET-1 (RFC 5737) is nobody's.
        endpoint=f"{kind}:0:interface=192.0.2.1",
        limits={"bind_timeout": 2},
    )
    service = EchodService(plan(Configuration(), [request], Registry(), 4096), Outer())
    time = Time()
    with pytest.raises(BindTimedOut):
        bindAll(service.listeners, time.monotonic, time.sleep)
    assert time.now == pytest.approx(1002)
