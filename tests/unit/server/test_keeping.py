"""`echod.server.keeping`: who gets a timeline, and who is kept, however many come."""

from __future__ import annotations

from typing import Any

from echod.connection.rows import Ended
from echod.connection.states import Reason, State
from echod.insight.shelf import APART, RECENT, Shelf
from echod.kit import Connection
from echod.protocols.raw import RawOptions, raw
from echod.server.keeping import BURST, PER_SECOND, Keeping
from echod.testing import Link, memoryLink

PLACE = ("raw tcp 127.0.0.1:7", "raw")


class Clock:
    """A sweep, as far as it tells the time."""

    now = 10.0


def keeping(shelf: Shelf[Ended], entries: int = 32) -> tuple[Keeping, Clock]:
    clock: Any = Clock()
    return Keeping(shelf, entries, clock, layered=False, apart=False), clock


def ended(data: bytes = b"hello") -> Link:
    # Any: no address is needed.
    nowhere: Any = None
    made = raw.makeFactory(RawOptions()).buildProtocol(nowhere)
    assert isinstance(made, Connection)
    link = memoryLink(made)
    link.connection.owner.place = PLACE
    assert link.exchange(data) == data
    return link


def test_burst() -> None:
    """So many at once have a timeline, then so many a second, and again when fewer have come."""
    kept, clock = keeping(Shelf())
    assert sum(kept.beginTimeline() is not None for _ in range(2 * BURST)) == BURST
    for _ in range(20):
        clock.now += 0.1
        had = sum(kept.beginTimeline() is not None for _ in range(2 * BURST))
        assert had in (PER_SECOND // 10 - 1, PER_SECOND // 10)
    clock.now += 3600
    assert sum(kept.beginTimeline() is not None for _ in range(2 * BURST)) == BURST


def test_ordinaryEnds() -> None:
    """Without a timeline an ordinary end is only counted; where nobody has one, it is kept."""
    shelf: Shelf[Ended] = Shelf()
    kept, _ = keeping(shelf)
    link = ended()
    kept.put(link.connection)
    assert shelf.all() == []
    kept.put(link.connection)
    without, _ = keeping(shelf, entries=0)
    without.put(link.connection)
    (one,) = shelf.all()
    assert one.told()["bytes_in"] == 5


def test_otherEnds() -> None:
    """One that did not end as most do is kept, however many come."""
    for change in ("reason", "state", "broken"):
        shelf: Shelf[Ended] = Shelf()
        kept, _ = keeping(shelf)
        connection = ended().connection
        if change == "reason":
            connection.reason = Reason.IDLE
        elif change == "state":
            connection.state = State.ABORTED
        else:
            connection.broken = True
        kept.put(connection)
        assert len(shelf.all()) == 1


def test_row() -> None:
    """What is kept of one is what it was."""
    shelf: Shelf[Ended] = Shelf()
    kept, clock = keeping(shelf, entries=0)
    connection = ended(b"x" * 300).connection
    clock.now = connection.openedAt + 2.5
    kept.put(connection)
    (one,) = shelf.all()
    told = one.told()
    assert told == {
        "id": connection.id,
        "listener": PLACE[0],
        "protocol": PLACE[1],
        "peer": "127.0.0.1:50000",
        "state": "closed",
        "seconds": 2.5,
        "bytes_in": 300,
        "bytes_out": 300,
        "messages": 0,
        "discarded": 0,
        "truncated": 0,
        "pauses": 0,
        "reason": "eof",
        "end": "fin",
        "ended_by": "peer",
        "owed": 0,
        "unacknowledged": None,
        "failure": None,
        "proxied": None,
        "tls": None,
        "timeline": None,
    }
    assert shelf.find(connection.number) is one


def test_healthChecks() -> None:
    """Who sent nothing takes no place of those who did, not of those that were reset either."""
    shelf: Shelf[Ended] = Shelf()
    kept, _ = keeping(shelf, entries=0)
    broken = ended().connection
    broken.reason = Reason.RESET
    kept.put(broken)
    for reason in (Reason.EOF, Reason.RESET, Reason.QUIT):
        for _ in range(2 * RECENT):
            silent = ended(b"").connection
            silent.reason = reason
            kept.put(silent)
    assert broken.number in [each.number for each in shelf.all()]
    assert len(shelf.all()) == APART + 1


def test_silentOnes() -> None:
    """One that was ended because it was silent is there, however many health checks come."""
    shelf: Shelf[Ended] = Shelf()
    kept, _ = keeping(shelf, entries=0)
    silent = ended(b"").connection
    silent.reason = Reason.FIRST_BYTE
    kept.put(silent)
    for _ in range(2 * APART):
        kept.put(ended(b"").connection)
    assert shelf.find(silent.number) is not None
