"""`echod.insight.timeline`: what is one entry, what stays, and how it is told."""

from __future__ import annotations

import tracemalloc
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from echod.insight.timeline import EVENTS, FIRST, GAP, Timeline

#: A tick of the clock.
NOW = 12.5


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def events(timeline: Timeline) -> list[dict[str, Any]]:
    told: Any = timeline.told()["events"]
    return list(told)


def words(timeline: Timeline) -> list[str]:
    return [event["event"] for event in events(timeline)]


def test_begins() -> None:
    """Who did nothing was accepted, at 0."""
    assert Timeline(32).told() == {"fell_out": 0, "events": [{"event": "open", "at": 0}]}


def test_pingPong() -> None:
    """A thousand messages, read and answered, are two entries."""
    hand = Hand()
    timeline = Timeline(32, hand)
    for size in range(1, 1001):
        hand.now += 0.001
        timeline.repeated("read", size)
        timeline.repeated("write", size)
    run = {"at": 1000, "count": 1000, "until": 1_000_000, "bytes": 500_500, "greatest": 1000}
    assert events(timeline)[1:] == [
        {"event": "first", "at": 1000},
        {"event": "read", **run},
        {"event": "write", **run},
    ]
    assert timeline.firstAt == 1000.001


def test_echoed() -> None:
    """What went back in the turn in which it came is told as a read and a write."""
    hand = Hand()
    timeline = Timeline(32, hand)
    hand.now += 0.5
    timeline.echoed(7, 1.0)
    hand.now += 0.25
    timeline.echoed(10, 2.0)
    run = {"at": 500_000, "count": 2, "until": 750_000, "bytes": 10, "greatest": 7}
    assert events(timeline)[1:] == [
        {"event": "first", "at": 500_000},
        {"event": "read", **run},
        {"event": "write", **run},
    ]


def test_somethingBetween() -> None:
    """What happens before and after something else is two entries."""
    timeline = Timeline(32)
    timeline.echoed(1, NOW)
    timeline.add("peer_fin")
    timeline.echoed(3, NOW)
    timeline.repeated("read", 3)
    assert words(timeline) == [
        *("open", "first", "read", "write", "peer_fin", "read", "write", "read")
    ]


def test_silence() -> None:
    """What goes on after a second has an entry of its own; the silence before it is told."""
    hand = Hand()
    timeline = Timeline(32, hand)
    timeline.echoed(1, 1.0)
    hand.now += GAP - 0.001
    timeline.echoed(2, 2.0)
    hand.now += GAP
    timeline.echoed(3, 3.0)
    assert words(timeline) == ["open", "first", "read", "write", "quiet", "read", "write"]
    assert events(timeline)[4] == {"event": "quiet", "at": 999_000, "us": 1_000_000}


def test_reasonsApart() -> None:
    """Pauses for one reason are one entry, those for another are another."""
    timeline = Timeline(32)
    for reason in ("output_full", "rate", "output_full", "rate"):
        timeline.repeated("pause", reason=reason)
    assert [(event["reason"], event["count"]) for event in events(timeline)[1:]] == [
        ("output_full", 2),
        ("rate", 2),
    ]


@given(st.integers(0, 80), st.integers(0, 200))
def test_firstAndLast(most: int, count: int) -> None:
    """The first entries stay, and the last ones; how many fell out is told."""
    timeline = Timeline(most)
    for number in range(count):
        timeline.add("unread", number)
    most = max(most, 2)
    first = min(FIRST, most // 2)
    kept = [event["bytes"] for event in events(timeline)[1:]]
    everything = list(range(count))
    if count <= most:
        assert kept == everything
    else:
        assert kept == everything[:first] + everything[count - (most - first) :]
    assert len(kept) + timeline.fellOut == count
    assert len(timeline) == len(kept)


@given(
    st.lists(
        st.tuples(st.sampled_from(["echo", "read", "write", "pause", "fin"]), st.floats(0, 2)),
        max_size=300,
    )
)
def test_nothingIsLost(steps: list[tuple[str, float]]) -> None:
    """Whatever the mix, no byte is counted twice, and times only grow where nothing fell out."""
    hand = Hand()
    timeline = Timeline(1000, hand)
    echoed = read = written = 0
    for kind, wait in steps:
        hand.now += wait
        if kind == "echo":
            echoed += 5
            timeline.echoed(echoed, float(int(10 * hand.now)))
            read, written = read + 5, written + 5
        elif kind == "fin":
            timeline.add("peer_fin")
        else:
            timeline.repeated(kind, 3)
            read += 3 * (kind == "read")
            written += 3 * (kind == "write")
    told = events(timeline)
    assert sum(event["bytes"] for event in told if event["event"] == "read") == read
    assert sum(event["bytes"] for event in told if event["event"] == "write") == written
    assert {event["event"] for event in told} <= EVENTS.keys()
    begins = [event["at"] for event in told if event["event"] != "quiet"]
    assert begins == sorted(begins)


@given(st.lists(st.sampled_from(["echo", "read", "write", "pause", "fin"]), max_size=100))
def test_fewEntries(steps: list[str]) -> None:
    """However few entries there may be, what fell out does not come back."""
    timeline = Timeline(4)
    echoed = 0
    for kind in steps:
        if kind == "echo":
            echoed += 5
            timeline.echoed(echoed, NOW)
        elif kind == "fin":
            timeline.add("peer_fin")
        else:
            timeline.repeated(kind, 3)
        assert len(timeline) <= 4
    timeline.echoed(echoed + 9, NOW)
    assert max(event.get("greatest", 0) for event in events(timeline)) == 9


def test_longOneDropsCheaply() -> None:
    """What falls out of a long one costs no look at all those that stay."""
    timeline = Timeline(10_000, lambda: 0.0)
    for _ in range(10_000):
        timeline.add("deadline", "idle")
    tracemalloc.start()
    try:
        timeline.add("deadline", "idle")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert timeline.fellOut == 1
    # A list of those that stay would take 80 kB.
    assert most < 20_000


def test_whatFellOutBeginsAnew() -> None:
    """A run that fell out has a new entry when it goes on; one that stayed goes on in its own."""
    timeline = Timeline(4, lambda: 0.0)
    for kind in ("read", "write", "pause", "resume", "read", "write"):
        timeline.repeated(kind)
    assert timeline.fellOut == 2
    assert [(event["event"], event["count"]) for event in events(timeline)[2:]] == [
        ("read", 2),
        ("resume", 1),
        ("write", 1),
    ]
