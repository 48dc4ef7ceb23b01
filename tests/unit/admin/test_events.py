"""`echod.admin.events`: a snapshot each second, for whoever looks on."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from twisted.internet.task import Clock

from echod.admin.events import MOST_STREAMS
from echod.config.limits import Limits
from echod.connection.states import Reason, State
from echod.testing import Link, memoryLink
from echod.testing.plain_context import PlainInsight
from tests.unit.admin.asking import Server, connect, factory, get, parse

EVENTS = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
OLD = b"GET /events HTTP/1.0\r\n\r\n"


def listener(name: str = "raw tcp 127.0.0.1:7", **counts: int) -> dict[str, Any]:
    """The counters of one, as `ServerContext.counters` has them."""
    zero = {"open": 0, "accepted": 0, "closed": {}, "bytes_in": 0, "bytes_out": 0, "pauses": 0}
    return {"listener": name, **zero, **counts}


@pytest.fixture
def server() -> Server:
    return Server(
        totals={"listeners": [listener()], "lag_ms": 0.5, "worst_lag_ms": 1.5, "slow": 0},
        insight=PlainInsight(
            ended=[{"id": f"a-{number}", "reason": "eof", "timeline": [1]} for number in range(20)]
        ),
    )


def clockOf(server: Server) -> Clock:
    assert isinstance(server.clock, Clock)
    return server.clock


def begin(server: Server, data: bytes = EVENTS, **options: Any) -> Link:
    """One who looks on."""
    link = connect(server, **options)
    link.send(data)
    server.pump(link)
    return link


def tick(server: Server, *links: Link, seconds: float = 1.0) -> None:
    """Time passes, for the server and for the links."""
    clockOf(server).advance(seconds)
    for link in links:
        link.advance(seconds)


def snapshots(data: bytes) -> list[dict[str, Any]]:
    """Those in a body, or in pieces of a chunked one."""
    return [msgspec.json.decode(found) for found in re.findall(rb"data: ({\"format.*})", data)]


def test_stream(server: Server) -> None:
    """The head, when to ask again, a snapshot at once, and one each second."""
    link = begin(server, OLD)
    head, _, body = (link.receive() or b"").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"\r\nContent-Type: text/event-stream; charset=utf-8\r\n" in head
    assert b"\r\nCache-Control: no-store" in head
    retry, blank, event, data, *rest = body.split(b"\n")
    assert (retry, blank, event, rest) == (b"retry: 3000", b"", b"event: snapshot", [b"", b""])
    (first,) = snapshots(data)
    assert first["format"] == "echod-snapshot/1"
    assert first["health"] == "ready"
    assert (first["lag_ms"], first["worst_lag_ms"]) == (0.5, 1.5)
    assert first["listeners"] == [
        {
            "listener": "raw tcp 127.0.0.1:7",
            "open": 0,
            "accepted": 0,
            "closed": 0,
            "bytes_in": 0,
            "bytes_out": 0,
            "per_second": None,
        }
    ]
    assert first["ends"] == [{"id": f"a-{number}", "reason": "eof"} for number in range(10)]
    server.draining = True
    tick(server, link)
    (second,) = snapshots(link.receive() or b"")
    assert second["health"] == "draining"


def test_rates(server: Server) -> None:
    """Over the time since the last one; a listener that a reload has replaced is told with it."""
    link = begin(server)
    link.receive()
    server.totals = {
        "listeners": [
            listener(open=2, accepted=5, bytes_in=100, closed={"eof": 2, "idle": 1}),  # type: ignore[arg-type]
            listener(open=1, accepted=1, bytes_in=10),
            {
                "listener": "udp udp 127.0.0.1:7",
                "datagrams_in": 4,
                "datagrams_out": 2,
                "bytes_in": 8,
                "bytes_out": 8,
                "refused": {},
                "errors": {},
            },
        ],
        "lag_ms": 0.0,
        "worst_lag_ms": 0.0,
    }
    tick(server, link, seconds=2.0)
    (found,) = snapshots(link.receive() or b"")
    raw, udp = found["listeners"]
    assert (raw["open"], raw["accepted"], raw["closed"]) == (3, 6, 3)
    assert raw["per_second"] == {"accepted": 3.0, "closed": 1.5, "bytes_in": 55.0, "bytes_out": 0.0}
    assert found["closed"] == {"eof": 2, "idle": 1}
    assert udp["per_second"] == {
        "bytes_in": 4.0,
        "bytes_out": 4.0,
        "datagrams_in": 2.0,
        "datagrams_out": 1.0,
    }
    # The one that was replaced is gone.
    server.totals = {"listeners": [listener(accepted=5)], "lag_ms": 0.0, "worst_lag_ms": 0.0}
    tick(server, link)
    (found,) = snapshots(link.receive() or b"")
    assert found["listeners"][0]["per_second"]["accepted"] == 0.0


def test_head(server: Server) -> None:
    """Of the head alone, and nobody looks on."""
    asked = get(server, "/events", method="HEAD")
    assert asked.code == 200
    assert asked.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert clockOf(server).calls == []


def test_oneTimer(server: Server) -> None:
    """One for all, and none while nobody looks on."""
    clock = clockOf(server)
    links = [begin(server) for _ in range(3)]
    assert len(clock.calls) == 1
    for link in links[:-1]:
        link.reset()
        link.pump()
    assert len(clock.calls) == 1
    links[-1].reset()
    links[-1].pump()
    assert clock.calls == []
    # And again.
    assert snapshots(begin(server).receive() or b"")[0]["listeners"][0]["per_second"] is None
    assert len(clock.calls) == 1


def test_most(server: Server) -> None:
    """Sixteen in all, over all listeners; who leaves makes room."""
    one, other = factory(server), factory(server)
    links = []
    for number in range(MOST_STREAMS):
        link = memoryLink((one, other)[number % 2].buildProtocol(None))
        link.send(EVENTS)
        server.pump(link)
        links.append(link)
    # As after a reload, and while those of before are still there.
    del one, other
    late = begin(server)
    asked, rest = parse(late.readAll())
    assert (asked.code, rest) == (429, b"")
    assert asked.headers["retry-after"] == "5"
    assert asked.headers["connection"] == "close"
    assert "16" in asked.line
    assert get(server, "/events", method="HEAD").code == 200
    assert get(Server(totals=server.totals), "/health").code == 200
    links[0].reset()
    links[0].pump()
    assert snapshots(begin(server).receive() or b"")


@pytest.mark.parametrize("buffers", [1024, 65536])
def test_readerThatStops(server: Server, buffers: int) -> None:
    """Nothing is queued for it; when it reads again it gets the newest."""
    link = begin(server, buffers=buffers, limits=Limits(stallTimeout=0.0))
    transport: Any = link.connection.transport
    for number in range(300):
        server.totals = {**server.totals, "worst_lag_ms": float(number)}
        tick(server, link)
    held = len(transport.dataBuffer) + transport._tempDataLen
    assert held < 4096
    old = b""
    while piece := link.receive():
        old += piece
        link.pump()
    # What the kernels had room for is all that is old.
    assert len(old) < 2 * buffers + 4096
    tick(server, link)
    (found,) = snapshots(link.receive() or b"")
    assert found["worst_lag_ms"] == 299.0


def test_isNotIdle(server: Server) -> None:
    """Who looks on sends nothing, and stays."""
    link = begin(server, limits=Limits(idleTimeout=5.0))
    for _ in range(30):
        tick(server, link)
        assert link.receive()
    assert link.connection.state is State.OPEN


def test_stalls(server: Server) -> None:
    """Who looks on no more is cut, as any who does not read."""
    link = begin(server, buffers=512, limits=Limits(stallTimeout=5.0))
    for _ in range(10):
        tick(server, link)
    assert link.connection.reason is Reason.STALLED
    assert clockOf(server).calls == []


def test_halfClose(server: Server) -> None:
    """Who has sent FIN still looks on."""
    link = begin(server)
    link.receive()
    link.finish()
    for _ in range(3):
        tick(server, link)
        assert snapshots(link.receive() or b"")
    link.reset()
    tick(server, link)
    tick(server, link)
    assert clockOf(server).calls == []


def test_drain(server: Server) -> None:
    """As a drain begins all are told, and end; and nobody begins, until it serves again."""
    made = factory(server)
    links = [begin(server, data) for data in (EVENTS, OLD)]
    for link in links:
        link.receive()
    made.drainBegins()
    assert clockOf(server).calls == []
    new, old = [link.readAll() for link in links]
    assert old == b"event: end\ndata: {}\n\n"
    assert new == b"15\r\nevent: end\ndata: {}\n\n\r\n0\r\n\r\n"
    assert all(link.connection.reason is Reason.QUIT for link in links)
    asked = get(server, "/events")
    assert (asked.code, asked.line) == (503, "draining")
    made.doStart()
    assert snapshots(begin(server).receive() or b"")


def test_pipelined(server: Server) -> None:
    """Nothing is answered behind a stream."""
    link = begin(server, EVENTS + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    factory(server).drainBegins()
    assert b"ready\n" not in link.readAll()
