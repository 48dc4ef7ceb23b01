"""`echod.insight.shelf`: who is kept, who goes, and how much that is at most."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from echod.insight.identity import nextNumber
from echod.insight.shelf import APART, ENTRIES, OF_EACH, RECENT, SHORT, Shelf
from echod.insight.timeline import Timeline


class Dead(NamedTuple):
    closedAt: float
    number: int


def dead(at: float = 0.0) -> Dead:
    return Dead(at, nextNumber())


def timelineOf(events: int) -> Timeline:
    timeline = Timeline(events)
    for _ in range(events):
        timeline.add("fault")
    return timeline


def test_oneReset() -> None:
    """The reset that matters is there after ten thousand ends of another kind."""
    shelf: Shelf[Dead] = Shelf()
    reset = dead(-1.0)
    shelf.put(reset, "reset")
    for at in range(10_000):
        shelf.put(dead(at), "eof")
    assert shelf.find(reset.number) is reset
    kept = [each.closedAt for each in shelf.all()]
    assert kept == [*range(9999, 9999 - RECENT, -1), -1.0]


def test_apart() -> None:
    """Those that did nothing drive out each other, and nobody else."""
    shelf: Shelf[Dead] = Shelf()
    one = dead()
    shelf.put(one, "eof")
    for at in range(2 * APART):
        shelf.put(dead(1.0 + at), "eof", apart=True)
    assert shelf.find(one.number) is one
    assert len(shelf.all()) == APART + 1


def test_newestFirst() -> None:
    shelf: Shelf[Dead] = Shelf()
    for at in (1.0, 3.0, 2.0):
        shelf.put(dead(at), "idle")
    assert [each.closedAt for each in shelf.all()] == [3.0, 2.0, 1.0]


def test_unknown() -> None:
    shelf: Shelf[Dead] = Shelf()
    assert shelf.find(1) is None
    assert shelf.all() == []


def test_ofEach() -> None:
    """Of each reason so many stay, whatever comes after."""
    shelf: Shelf[Dead] = Shelf()
    for _ in range(OF_EACH + 10):
        shelf.put(dead(-1.0), "idle")
    for _ in range(RECENT):
        shelf.put(dead(), "eof")
    assert [each.closedAt for each in shelf.all()].count(-1.0) == OF_EACH


@given(st.lists(st.integers(0, ENTRIES), max_size=8))
def test_longTimelines(lengths: list[int]) -> None:
    """Long ones are whole as long as they have so many entries together; then the oldest go."""
    shelf: Shelf[Dead] = Shelf()
    timelines = [timelineOf(length) for length in lengths]
    for timeline in timelines:
        shelf.weigh(timeline)
    left = [len(timeline) for timeline in timelines]
    assert sum(length for length in left if length > SHORT) <= ENTRIES
    for before, after in zip(lengths, left, strict=True):
        assert after == before or after == SHORT < before
    # The newest is whole.
    assert left[-1:] == lengths[-1:]
