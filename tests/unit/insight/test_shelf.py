"""`echod.insight.shelf`: who is kept, who goes, and how much that is at most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from echod.insight.identity import nextNumber
from echod.insight.shelf import APART, OF_EACH, RECENT, Ended, Shelf
from echod.insight.timeline import Timeline


def ended(reason: str = "eof", at: float = 0.0, events: int = 0, weight: int = 0) -> Ended:
    timeline = Timeline(1000)
    for _ in range(events):
        timeline.add("fault")
    return Ended(
        number=nextNumber(),
        place=("raw tcp 127.0.0.1:7", "raw"),
        peer=("192.0.2.7", 40000),
        openedAt=at,
        closedAt=at,
        counts=(0,) * 6,
        reason=reason,
        end="fin",
        endedBy="peer",
        owed=0,
        failure=None,
        layers=None,
        kernel=None,
        timeline=timeline,
        weight=weight,
    )


def test_oneReset() -> None:
    """The reset that matters is there after ten thousand ends of another kind."""
    shelf = Shelf()
    reset = ended("reset")
    shelf.put(reset)
    for at in range(10_000):
        shelf.put(ended(at=at))
    assert shelf.all("reset") == [reset]
    assert shelf.find(reset.number) is reset
    assert [each.closedAt for each in shelf.all("eof")] == list(range(9999, 9999 - RECENT, -1))


def test_apart() -> None:
    """Those that did nothing drive out each other, and nobody else."""
    shelf = Shelf()
    one = ended()
    shelf.put(one)
    for at in range(2 * APART):
        shelf.put(ended(at=1.0 + at), apart=True)
    assert shelf.find(one.number) is one
    assert len(shelf.all()) == APART + 1


def test_newestFirst() -> None:
    shelf = Shelf()
    for at in (1.0, 3.0, 2.0):
        shelf.put(ended("idle", at))
    assert [each.closedAt for each in shelf.all()] == [3.0, 2.0, 1.0]


def test_unknown() -> None:
    assert Shelf().find(1) is None
    assert Shelf().all("eof") == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["eof", "reset", "idle"]),
            st.integers(0, 50),
            st.integers(0, 5000),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_bound(comers: list[tuple[str, int, int, bool]]) -> None:
    """It never holds more bytes than it may, and knows when it holds none."""
    shelf = Shelf(20_000)
    for reason, events, weight, apart in comers:
        shelf.put(ended(reason, events=events, weight=weight), apart)
        assert 0 <= shelf.held <= 20_000
    if shelf.held == 0:
        assert shelf.all() == []


def test_ofEach() -> None:
    """Of each reason so many stay, whatever comes after."""
    shelf = Shelf()
    for _ in range(OF_EACH + 10):
        shelf.put(ended("idle"))
    for _ in range(RECENT):
        shelf.put(ended())
    assert len(shelf.all("idle")) == OF_EACH
