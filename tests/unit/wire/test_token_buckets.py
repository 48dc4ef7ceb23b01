"""`echod.wire.token_buckets`: token buckets, exact, and bounded however many sources there are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from echod.wire.token_buckets import Rate, Rates


def test_burstThenRate() -> None:
    """A full bucket gives a second's worth at once, then one whenever it has grown back."""
    rate = Rate(10)
    assert [rate.take(100.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not rate.take(100.05)
    assert rate.take(100.1)
    assert not rate.take(100.15)
    assert [rate.take(200.0) for _ in range(11)] == [True] * 10 + [False]


def test_ownBurst() -> None:
    rate = Rate(10, burst=2)
    assert [rate.take(0.0) for _ in range(3)] == [True, True, False]


def test_leftAndSpent() -> None:
    """How many there are is asked first; what is spent grows back, up to the burst."""
    rate = Rate(1000, burst=500)
    assert rate.left(0.0) == 500
    rate.spend(0.0, 500)
    assert [rate.left(now) for now in (0.0, 0.0005, 0.1, 0.5, 10.0)] == [0, 0, 100, 500, 500]
    rate.spend(10.0, 1)
    assert rate.left(10.0) == 499
    assert not rate.take(10.0, 500)
    assert rate.take(10.0, 499)


def test_noLimit() -> None:
    assert all(Rate(0).take(0.0) for _ in range(1000))
    rates = Rates(0)
    assert all(rates.take("a", 0.0) for _ in range(1000))
    assert len(rates) == 0


def test_eachSourceItsOwn() -> None:
    rates = Rates(2)
    assert [rates.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert [rates.take("b", 0.0) for _ in range(3)] == [True, True, False]
    assert rates.take("a", 0.5)


def test_bounded() -> None:
    """E6: however many sources, two generations are remembered; who comes often, is."""
    rates = Rates(1, sources=100)
    for number in range(10_000):
        assert rates.take(number, 0.0)
        if number % 10 == 0:
            rates.take("often", 0.0)
        assert len(rates) <= 202
    assert not rates.take("often", 0.0)


def test_refusalsAreRemembered() -> None:
    """Who has nothing left gets no fresh burst because so many others came meanwhile."""
    rates = Rates(2, sources=100)
    assert [rates.take("often", 0.0) for _ in range(3)] == [True, True, False]
    # So that it is in the older generation, and the younger one is full.
    for number in range(199):
        assert rates.take(number, 0.0)
    assert [rates.take("often", 0.0) for _ in range(3)] == [False] * 3


@given(
    rate=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 0.5), max_size=200),
)
def test_neverMoreThanItMay(rate: int, gaps: list[float]) -> None:
    """In any stretch of time no more than the burst and what grows back; none is withheld."""
    one, many = Rate(rate), Rates(rate)
    now, taken = 0.0, []
    for gap in gaps:
        now += gap
        given_ = one.take(now)
        assert many.take("x", now) == given_
        if given_:
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= rate + rate * (taken[last] - taken[first]) + 1e-6
