"""Counters add up, whatever clients do: accepted, open and gone; bytes in, out, cut and dropped."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from echod.connection.connection import Connection
from echod.connection.owner import Owner
from echod.connection.states import ENDS, Reason
from echod.insight.timeline import Timeline
from echod.measurements import Measurements
from echod.protocols.raw import RawOptions, raw
from echod.server.live_connections import LiveConnections
from echod.server.measuring import measureStream
from echod.testing import Link, PlainContext, memoryLink
from echod.testing.plain_context import PlainInsight
from tests.conformance.test_interleavings import LIMITS, STEPS, STREAMS, Client
from tests.unit.admin.reading import OPEN, samples, total

LAST = st.sampled_from(["finish", "reset", "close", "stall", "leave"])
PLAYS = st.lists(
    st.tuples(st.integers(0, len(STREAMS) - 1), st.sampled_from([1000, 4096, 65536]), STEPS, LAST),
    min_size=1,
    max_size=4,
)


class Counting(Owner):
    """
    A listener, as far as it counts; on top of the one that a link has.

    Every second connection has a timeline: the others are told by the clock, many at a time.

    :param live: those that are counted together.
    """

    def __init__(self, live: LiveConnections, link: Link) -> None:
        self._live = live
        self._inner = link.connection.owner
        self.sweep, self.limits = self._inner.sweep, self._inner.limits
        if live.totals.accepted % 2 == 0:
            link.connection.timeline = Timeline(32, link.loop.seconds)
        live.opened(link.connection)
        link.connection.owner = self

    def lingering(self, connection: Connection) -> None:
        self._live.admission.ended(connection)

    def closed(self, connection: Connection) -> None:
        self._inner.closed(connection)
        self._live.closed(connection)


def play(
    live: LiveConnections, which: int, buffers: int, steps: list[tuple[str, int]], last: str
) -> Client:
    """One client's life, up to its last step."""
    maker, settings, stream, expected = STREAMS[which]
    link = memoryLink(
        maker.makeFactory(settings).buildProtocol(None),
        limits=LIMITS,
        sendBuffer=buffers,
        receiveBuffer=buffers,
    )
    Counting(live, link)
    client = Client(link, stream, expected)
    for step, size in steps:
        if step == "send":
            client.send(size)
        elif step == "receive":
            client.receive(size)
        elif step == "advance":
            link.advance(size)
        elif step == "turn":
            for _ in range(size):
                link.loop.turn()
        elif step == "drain" and not link.gone:
            link.connection.drain()
        elif step == "finish":
            client.finish()
    if last in ("reset", "close"):
        getattr(link, last)()
        client.ended = True
    elif last == "finish":
        client.finish()
    for _ in count():
        link.pump()
        before = client.got
        if last == "finish":
            client.receive(100_000)
        if client.got == before:
            break
    if last != "leave":
        link.advance(60)
    return client


def addsUp(live: LiveConnections) -> None:
    """What holds at any time."""
    totals = live.totals
    snapshot = totals.snapshot(live)
    assert snapshot["accepted"] == snapshot["open"] + sum(snapshot["closed"].values())
    assert {why: sum(ends.values()) for why, ends in snapshot["ends"].items()} == snapshot["closed"]
    assert snapshot["aborted"] == sum(ends.get("abort", 0) for ends in snapshot["ends"].values())
    assert all(end in ENDS[reason] for reason, end in totals.ends), totals.ends
    assert (snapshot["cut"] > 0) == (snapshot["cut_bytes"] > 0)
    found = totals.distributions
    assert found is not None
    gone = sum(snapshot["closed"].values())
    for histogram in (found.seconds, found.received):
        assert sum(histogram.counts) == gone
    assert sum(example is not None for example in found.seconds.exemplars) <= gone
    # The first one that came has a timeline, and so is an example, once it is gone.
    assert {*totals.last} <= {*totals.ends}
    assert totals.last or not gone or totals.accepted > gone


def metricsAgree(live: LiveConnections) -> None:
    """Metrics, read by Prometheus' own parsers, say what the counters say, and add up as these."""
    counters = live.totals.snapshot(live)
    measured = measureStream("here", "any", live.totals, live, ())
    context = PlainContext(insight=PlainInsight(measured=Measurements(streams=[measured])))
    for accept in ("", OPEN):
        found = samples(context, accept)
        isOpen = total(found, "echod_connections_open")
        gone = total(found, "echod_connections_closed_total")
        assert total(found, "echod_connections_accepted_total") == isOpen + gone
        assert (isOpen, gone) == (counters["open"], sum(counters["closed"].values()))
        for reason, ends in counters["ends"].items():
            for end, many in ends.items():
                name = "echod_connections_closed_total"
                assert total(found, name, reason=reason, end=end) == many
        for name, key in {
            "echod_connections_cut": "cut",
            "echod_cut_bytes": "cut_bytes",
            "echod_received_bytes": "bytes_in",
            "echod_sent_bytes": "bytes_out",
            "echod_discarded_bytes": "discarded",
            "echod_messages": "messages",
            "echod_messages_truncated": "truncated",
            "echod_pauses": "pauses",
        }.items():
            assert total(found, f"{name}_total") == counters[key]
        for name in ("duration_seconds", "received_bytes"):
            assert total(found, f"echod_connection_{name}_count") == gone
            assert total(found, f"echod_connection_{name}_bucket", le="+Inf") == gone
        received = sum(connection.bytesIn for connection in live)
        closed = total(found, "echod_connection_received_bytes_sum")
        assert closed + received == counters["bytes_in"]
    held = [connection.heldBytes() for connection in live]
    assert total(found, "echod_held_bytes") == sum(held)
    # What a connection may hold: docs/robustness.md.
    assert all(0 <= each <= 384 * 1024 for each in held)


@given(plays=PLAYS)
def test_whateverClientsDo(plays: list[Any]) -> None:
    """Accepted are those that are open and those that are gone, each with a reason and an end."""
    live = LiveConnections(100)
    live.totals.observe(True)
    clients = []
    for each in plays:
        clients.append(play(live, *each))
        addsUp(live)
    metricsAgree(live)
    for client in clients:
        client.link.advance(60)
        client.link.close()
    addsUp(live)
    assert len(live) == 0
    assert live.totals.bytesIn == sum(client.link.connection.bytesIn for client in clients)


@given(plays=PLAYS)
def test_bytesOfAnEcho(plays: list[Any]) -> None:
    """Of ``raw`` what came in went out; and each of it arrived, was cut, or was given up."""
    live = LiveConnections(100)
    live.totals.observe(True)
    for _, *rest in plays:
        client = play(live, 0, *rest)
        connection = client.link.connection
        client.link.advance(60)
        assert connection.bytesIn == connection.bytesOut
        # What it sent was read, or was on its way as everything ended.
        assert client.sent >= connection.bytesIn + connection.discarded
        if connection.reason is Reason.EOF and connection.endedHow == "fin":
            assert client.sent == connection.bytesIn + connection.discarded
        # It has, or had before it, all but what was cut.
        assert client.got + connection.cut <= connection.bytesOut
        client.link.close()
    sums = live.totals.snapshot(live)
    assert sums["bytes_in"] == sums["bytes_out"]
    addsUp(live)


def test_theMakerIsTheEcho() -> None:
    """The first stream is that of ``raw`` without quit, as the test of bytes says."""
    assert STREAMS[0][:2] == (raw, RawOptions())
