"""What the timeline of a connection tells of what happened to it, over each kind of link."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from echod.config.limits import Limits
from echod.connection.rows import endedOf
from echod.connection.states import Reason
from echod.kit import Connection
from echod.protocols.line import LineOptions, line
from echod.protocols.raw import raw
from echod.testing import Link, memoryLink, tcpLink, unixLink

LINKS: list[Callable[..., Link]] = [memoryLink, tcpLink, unixLink]


def connectionOf(maker: Any, settings: object = None) -> Connection:
    factory = maker.makeFactory(settings if settings is not None else maker.options())
    made: Connection = factory.buildProtocol(None)
    return made


def limits(**others: Any) -> Limits:
    return Limits(timeline=32, **others)


def end(link: Link) -> None:
    """What waits to be acknowledged is looked at each tick."""
    link.close()
    link.advance(0.3)
    assert link.gone


def events(link: Link) -> list[dict[str, Any]]:
    assert link.connection.timeline is not None
    told: Any = link.connection.timeline.told()["events"]
    return list(told)


def words(link: Link) -> list[str]:
    return [event["event"] for event in events(link)]


@pytest.mark.parametrize("makeLink", LINKS)
def test_halfClose(makeLink: Callable[..., Link]) -> None:
    """A message, its echo, the peer's FIN, ours, the end."""
    link = makeLink(connectionOf(raw), limits=limits())
    assert link.exchange(b"hello") == b"hello"
    end(link)
    assert words(link) == ["open", "first", "read", "write", "peer_fin", "our_fin", "end"]
    read, write = events(link)[2:4]
    assert (read["bytes"], read["count"]) == (write["bytes"], write["count"]) == (5, 1)
    assert events(link)[-1]["reason"] == "fin"


@pytest.mark.parametrize("makeLink", LINKS)
def test_bulk(makeLink: Callable[..., Link]) -> None:
    """However bulk goes, every byte is in it, in a turn's entries and not a byte's."""
    link = makeLink(connectionOf(raw), limits=limits())
    data = bytes(range(256)) * 8192
    assert link.exchange(data) == data
    end(link)
    told = events(link)
    assert sum(event["bytes"] for event in told if event["event"] == "read") == len(data)
    assert sum(event["bytes"] for event in told if event["event"] == "write") == len(data)
    assert link.connection.bytesIn == len(data)


def test_lines() -> None:
    """A protocol's reads and writes are told apart; its own end, with the reason."""
    link = memoryLink(connectionOf(line, LineOptions(prefix="> ", quit="q")), limits=limits())
    link.send(b"one\ntwo\nq\n")
    link.pump()
    link.finish()
    link.readAll()
    link.pump()
    assert words(link)[:5] == ["open", "first", "read", "write", "ending"]
    assert [e["reason"] for e in events(link) if e["event"] == "ending"] == ["quit"]
    assert words(link)[-3:] == ["our_fin", "peer_fin", "end"]


@pytest.mark.parametrize("makeLink", [memoryLink, tcpLink])
def test_reset(makeLink: Callable[..., Link]) -> None:
    """The peer's RST is told as the peer's."""
    link = makeLink(connectionOf(raw), limits=limits())
    link.send(b"hello")
    link.pump()
    link.reset()
    link.pump(lambda: link.gone)
    assert words(link)[-2:] == ["rst", "end"]
    assert events(link)[-2]["reason"] == "peer"
    assert events(link)[-1]["reason"] == "rst"
    assert (link.connection.endedHow, link.connection.endedBy) == ("rst", "peer")


def test_stall() -> None:
    """A peer that reads nothing: reading stops, a deadline passes, RST, and what was not read."""
    link = memoryLink(connectionOf(raw), limits=limits(stallTimeout=5))
    while link.send(b"x" * 65536):
        link.pump()
    link.advance(7)
    assert words(link) == [
        *("open", "first", "read", "write", "pause", "deadline", "unread", "rst", "end")
    ]
    pause, deadline, unread, rst, end = events(link)[-5:]
    assert (pause["reason"], deadline["reason"]) == ("output_full", "stall")
    assert unread["bytes"] > 0
    assert (rst["reason"], end["reason"]) == ("us", "abort")


def test_slowReader() -> None:
    """One that reads now and then: pauses and resumes are entries with counts."""
    link = memoryLink(connectionOf(raw), limits=limits())
    sent = 0
    for _ in range(50):
        sent += link.send(b"x" * 65536)
        link.pump()
        link.receive(30_000)
        link.pump()
    told = {event["event"]: event for event in events(link)}
    assert told["pause"]["count"] > 1
    assert told["resume"]["count"] > 1
    assert len(events(link)) < 16


def test_idle() -> None:
    """A deadline of ours is told, then what it led to."""
    link = memoryLink(connectionOf(raw), limits=limits(idleTimeout=3))
    link.send(b"hello")
    link.pump()
    link.advance(4.2)
    link.finish()
    link.pump()
    named = [(e["event"], e.get("reason")) for e in events(link)]
    assert ("deadline", "idle") in named
    assert named.index(("deadline", "idle")) + 1 == named.index(("ending", "idle"))
    assert named[-1] == ("end", "fin")


def test_none() -> None:
    """Without being asked for there is none, whatever happens."""
    link = memoryLink(connectionOf(raw))
    assert link.exchange(b"hello") == b"hello"
    assert link.connection.timeline is None


@pytest.mark.parametrize("event", ["drain", "fault"])
def test_others(event: str, loggedErrors: Any) -> None:
    """A drain, and a protocol that raises, are told."""

    class Raising(Connection):
        def received(self, data: bytes) -> None:
            raise KeyError("its own")

    if event == "drain":
        link = memoryLink(connectionOf(raw), limits=limits())
        link.send(b"hello")
        link.connection.drain()
        link.pump()
    else:
        link = memoryLink(Raising(), limits=limits())
        link.send(b"hello")
        link.pump()
        loggedErrors.flush()
    assert event in words(link)


@pytest.mark.parametrize("resets", [False, True])
def test_whatTheKernelKnew(resets: bool) -> None:
    """The kernel is asked before the socket is closed, however it ends."""
    link = tcpLink(connectionOf(raw), limits=limits())
    if resets:
        link.send(b"hello")
        link.pump(lambda: link.connection.bytesIn)
        link.reset()
        link.pump(lambda: link.gone)
    else:
        assert link.exchange(b"hello") == b"hello"
        end(link)
    last = link.connection.transport.lastFacts
    assert last is not None
    info: Any = last.told()["tcp_info"]
    # The peer's FIN counts as one.
    assert info["bytes_received"] == (5 if resets else 6)


def test_whatNobodyAsksFor() -> None:
    """Where there are no timelines it is not."""
    link = tcpLink(connectionOf(raw))
    assert link.exchange(b"hello") == b"hello"
    end(link)
    assert link.connection.transport.lastFacts is None


@pytest.mark.parametrize("makeLink", LINKS)
def test_owed(makeLink: Callable[..., Link]) -> None:
    """Whoever reads nothing is owed all that was sent and no more, whatever memory it takes."""
    link = makeLink(connectionOf(raw), limits=limits(stallTimeout=5))
    # Small writes take much more memory of the kernel's than they are long.
    for _ in range(100):
        link.send(b"x" * 10)
        link.pump()
    assert (
        link.connection.unacknowledged(link.connection.transport.unsent())
        <= link.connection.bytesOut
        == 1000
    )
    link.connection.abort(Reason.DRAIN)
    assert link.connection.cut <= 1000
    link.pump(lambda: link.gone)
    link.close()


def test_unacknowledgedAtTheirReset() -> None:
    """What the peer had not acknowledged when it broke the connection is told."""
    link = tcpLink(connectionOf(raw), limits=limits(), receiveBuffer=65536)
    while link.send(b"x" * 65536):
        link.pump()
    link.pump(link.connection.pausedBy)
    link.reset()
    link.pump(lambda: link.gone)
    connection = link.connection
    ended = endedOf(connection, 0.0)
    assert connection.cut == 0
    assert 0 < (ended.unacknowledged or 0) < connection.bytesOut
    assert ended.told()["unacknowledged"] == ended.unacknowledged
