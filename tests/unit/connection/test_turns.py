"""`echod.connection.metering`: nothing is read on credit, and who waits takes turns."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.connection.metering import LEAST, UNLIMITED, Meter, Turns
from echod.connection.sweep import TICK


def read(meter: Meter, now: float, wanted: int) -> int:
    """Ask, and read as much as is there and allowed; returns how much that was."""
    count = min(wanted, meter.allowed(now))
    if count:
        meter.spend(now, count)
    return count


def test_noLimit() -> None:
    meter = Meter(0, None)
    assert meter.allowed(0.0) == UNLIMITED
    meter.spend(0.0, 1 << 40)
    assert meter.allowed(0.0) == UNLIMITED
    meter.leave()


def test_ofItsOwn() -> None:
    """A second's worth at once, then whatever has grown back; but not byte by byte."""
    meter = Meter(1000, None)
    assert read(meter, 10.0, 5000) == 1000
    assert [meter.allowed(10.0 + later) for later in (0, 0.05, 0.1, 0.3, 9)] == [
        0,
        0,
        100,
        300,
        1000,
    ]


@pytest.mark.parametrize("perSecond", [1, 9, 10, 1 << 40])
def test_extremes(perSecond: int) -> None:
    """One byte a second is a rate, too."""
    meter = Meter(perSecond, Turns(perSecond))
    now, got = 0.0, read(meter, 0.0, 1 << 50)
    assert got == perSecond
    for _ in range(100):
        now += TICK
        got += read(meter, now, 1 << 50)
    assert 0.8 * 11 * perSecond <= got <= 11 * perSecond


@given(
    perSecond=st.integers(1, 100_000),
    clients=st.integers(1, 60),
    own=st.sampled_from([0, 500, 50_000]),
    seed=st.integers(0, 1000),
)
def test_neverMoreThanTheRate(perSecond: int, clients: int, own: int, seed: int) -> None:
    """Whoever comes, asks, reads and goes: a second's worth, and what has grown back since."""
    rng = random.Random(seed)
    turns = Turns(perSecond)
    meters = [Meter(own, turns) for _ in range(clients)]
    now, got = 0.0, 0
    for _ in range(60):
        now += TICK
        for _ in range(2 * clients):
            index = rng.randrange(clients)
            got += read(meters[index], now, rng.choice([1, 100, 65536]))
            if rng.random() < 0.3:
                # It is gone, and another has come.
                meters[index].leave()
                meters[index] = Meter(own, turns)
        assert got <= perSecond * (1 + now) + 1
        assert len(turns) <= clients
    for meter in meters:
        meter.leave()
    assert len(turns) == 0


@pytest.mark.parametrize("perSecond", [10_000, 1_000_000])
def test_allOfIt(perSecond: int) -> None:
    """What is limited gets what the limit says: nothing is lost in handing it round."""
    turns = Turns(perSecond)
    meters = [Meter(0, turns) for _ in range(8)]
    now, got = 0.0, dict.fromkeys(meters, 0)
    for _ in range(100):
        now += TICK
        for meter in meters:
            while count := read(meter, now, 65536):
                got[meter] += count
    assert sum(got.values()) >= 0.95 * perSecond * 11
    # The first had the first second; of those whose turn comes in one tick, who is quick to take it
    # is the first to wait again.
    got[meters[0]] -= perSecond
    assert max(got.values()) <= 1.6 * min(got.values())


def test_nobodyStarves() -> None:
    """A hundred that take all they get, and one that sends a byte now and then."""
    turns = Turns(10_000)
    greedy = [Meter(0, turns) for _ in range(100)]
    modest = Meter(0, turns)
    now, waits, asked, got = 0.0, [], None, 0
    for _ in range(1000):
        now += TICK
        if asked is None:
            asked = now
        for meter in [*greedy, modest]:
            count = read(meter, now, 1 if meter is modest else 65536)
            got += count
            if count and meter is modest:
                waits.append(now - asked)
                asked = None
                break
    assert got >= 0.9 * 10_000 * 100
    # A round of all, three turns each tick.
    assert max(waits) <= 101 // (10_000 * TICK // LEAST) * TICK + 3 * TICK
    assert len(waits) >= 30


def test_whoComesLaterIsNotServedBefore() -> None:
    turns = Turns(1000)
    first, second, third = (Meter(0, turns) for _ in range(3))
    assert read(first, 1.0, 5000) == 1000
    assert read(second, 1.0, 1) == 0
    # There is enough by now, but somebody waits for it.
    assert third.allowed(1.05) == 0
    assert second.allowed(1.2) == 100
    assert third.allowed(1.2) == 100


def test_turnsThatAreNotTaken() -> None:
    """A turn is kept for a moment, then it is another's; one that leaves gives it up at once."""
    turns = Turns(1000)
    first, second, third = (Meter(0, turns) for _ in range(3))
    assert read(first, 0.0, 5000) == 1000
    assert second.allowed(0.0) == 0
    assert second.allowed(0.5) == 500
    # Kept, until it is too late.
    assert third.allowed(0.6) == 100
    assert third.allowed(1.2) == 1000


def test_restOfATurn() -> None:
    """What is not needed of a turn at once is for the others."""
    turns = Turns(1000)
    first, second, third = (Meter(0, turns) for _ in range(3))
    assert read(first, 0.0, 5000) == 1000
    assert (second.allowed(0.0), third.allowed(0.0)) == (0, 0)
    assert read(second, 0.4, 1) == 1
    assert second.allowed(0.4) == 199
    assert read(third, 0.4, 200) == 200
    assert third.allowed(0.4) == 0
    # The 199 and what has come meanwhile.
    assert third.allowed(0.5) == 299
