"""Counters add up, whatever clients do: accepted, open and gone; bytes in, out, cut and dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.owner import Owner
from echod.connection.rows import Ended
from echod.connection.states import ENDS, Reason
from echod.insight.refusals import KEPT, Refusals
from echod.insight.shelf import Shelf
from echod.measurements import Measurements
from echod.protocols.raw import RawOptions, raw
from echod.server.keeping import Keeping
from echod.server.live_connections import LiveConnections
from echod.server.measuring import measureStream
from echod.testing import Link, PlainContext, memoryLink
from echod.testing.plain_context import PlainInsight
from tests.conformance.test_interleavings import LIMITS, STEPS, STREAMS, Client
from tests.integration.peers import whole, wholeFrames, wholeLines
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

    :param live: those that are counted together.
    :param shelf: where those go that are gone, if they are kept.
    """

    def __init__(
        self, live: LiveConnections, link: Link, shelf: Shelf[Ended] | None = None
    ) -> None:
        self._live = live
        self._inner = link.connection.owner
        self._keeping = None
        if shelf is not None:
            self._keeping = Keeping(shelf, 0, self._inner.sweep, layered=False, apart=False)
        self.sweep, self.limits = self._inner.sweep, self._inner.limits
        live.opened(link.connection)
        link.connection.owner = self

    def lingering(self, connection: Connection) -> None:
        self._live.admission.ended(connection)

    def closed(self, connection: Connection) -> None:
        self._inner.closed(connection)
        if self._keeping is not None:
            self._keeping.put(connection)
        self._live.closed(connection)


def play(
    live: LiveConnections,
    which: int,
    buffers: int,
    steps: list[tuple[str, int]],
    last: str,
    *,
    shelf: Shelf[Ended] | None = None,
    limits: Limits = LIMITS,
) -> Client:
    """
    One client's life, up to its last step.

    Every second connection has a timeline: the others are told by the clock, many at a time.
    """
    maker, settings, stream, expected = STREAMS[which]
    link = memoryLink(
        maker.makeFactory(settings).buildProtocol(None),
        limits=msgspec.structs.replace(limits, timeline=32 * (live.totals.accepted % 2 == 0)),
        sendBuffer=buffers,
        receiveBuffer=buffers,
    )
    Counting(live, link, shelf)
    client = Client(link, stream, expected)
    client.play(steps)
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
        if connection.endedHow == "abort" and connection.timeline is not None:
            unread = toldOf({"timeline": connection.timeline.told()}, "unread")
            assert client.sent == connection.bytesIn + connection.discarded + unread
        # It has, or had before it, all but what was cut.
        assert client.got + connection.cut <= connection.bytesOut
        client.link.close()
    sums = live.totals.snapshot(live)
    assert sums["bytes_in"] == sums["bytes_out"]
    addsUp(live)


def toldOf(row: dict[str, Any], word: str) -> int:
    """Bytes of all events of a timeline with this name."""
    return sum(each["bytes"] for each in row["timeline"]["events"] if each["event"] == word)


def answers() -> list[Callable[[bytes], bytes]]:
    """For each of `STREAMS` what is answered, at once, to the beginning of one."""

    def upTo(word: bytes, stream: bytes) -> bytes:
        at = stream.find(word)
        return stream if at < 0 else stream[: at + len(word)]

    def prefixed(stream: bytes) -> bytes:
        lines = wholeLines(stream).splitlines(keepends=True)
        (_, settings, _, _) = STREAMS[3]
        prefix = settings.prefix.encode()
        quits = f"{settings.quit}\n".encode()
        return b"".join(b"Bye.\n" if line == quits else prefix + line for line in lines)

    return [whole, partial(upTo, b"30000\n"), wholeLines, prefixed, wholeFrames]


@given(plays=PLAYS)
def test_whatGoesOutAnswersWhatCameIn(plays: list[Any]) -> None:
    """
    Of any protocol: bytes out are those of the answer to bytes in.

    Those of its bytes that are no whole message, or that came behind the one that ends it, are
    bytes in and have no answer.  A long answer that is made piece by piece may be broken off.
    """
    for which, *rest in plays:
        client = play(LiveConnections(100), which, *rest)
        connection = client.link.connection
        client.link.advance(60)
        due = len(answers()[which](client.stream[: connection.bytesIn]))
        assert connection.bytesOut <= due
        # The fourth has a prefix, which makes answers long.
        if which != 3 or connection.endedHow == "fin":
            assert connection.bytesOut == due
        assert connection.cut <= connection.bytesOut
        client.link.close()


@given(plays=PLAYS, maxBytes=st.integers(1, 100_000))
def test_noMoreThanItMay(plays: list[Any], maxBytes: int) -> None:
    """With ``max_bytes`` what is more than that is discarded, and answered by nothing."""
    live = LiveConnections(100)
    limits = msgspec.structs.replace(LIMITS, maxBytes=maxBytes)
    for _, *rest in plays:
        client = play(live, 0, *rest, limits=limits)
        connection = client.link.connection
        client.link.advance(60)
        assert connection.bytesIn == connection.bytesOut <= maxBytes
        assert client.sent >= connection.bytesIn + connection.discarded
        client.link.close()


@given(plays=PLAYS)
def test_theShelf(plays: list[Any]) -> None:
    """Rows of those that are kept, one by one, are what counters have in all."""
    live, shelf = LiveConnections(100), Shelf[Ended]()
    clients = [play(live, *each, shelf=shelf) for each in plays]
    for client in clients:
        client.link.advance(60)
        client.link.close()
        client.link.advance(60)
    rows: list[dict[str, Any]] = [ended.told() for ended in shelf.all()]
    sums = live.totals.snapshot(live)
    assert sums["open"] == 0
    assert len(rows) == sums["accepted"] == len(plays)
    assert Counter(row["reason"] for row in rows) == sums["closed"]
    ends = Counter((row["reason"], row["end"]) for row in rows)
    assert ends == {
        (why, end): count for why, of in sums["ends"].items() for end, count in of.items()
    }
    for key in ("bytes_in", "bytes_out", "discarded", "messages", "truncated", "pauses"):
        assert sum(row[key] for row in rows) == sums[key], key
    assert sum(row["owed"] for row in rows) == sums["cut_bytes"]
    assert sum(row["owed"] > 0 for row in rows) == sums["cut"]
    for row in rows:
        if row["timeline"] and not row["timeline"]["fell_out"]:
            # Over and over is told by sums, too.
            for word, key in (("read", "bytes_in"), ("write", "bytes_out")):
                assert toldOf(row, word) == row[key]
        assert row["ended_by"] == {"abort": "us", "rst": "peer"}.get(row["end"], row["ended_by"])


@given(st.lists(st.sampled_from(["full", "denied", "rate"]), max_size=400))
def test_refusals(reasons: list[str]) -> None:
    """All are counted, and of each reason the last fifty are kept."""
    refusals = Refusals()
    refusals.keep(True)
    for number, reason in enumerate(reasons):
        refusals.add(reason, ("192.0.2.7", number))
    assert refusals == Counter(reasons)
    kept = refusals.kept()
    assert Counter(each.reason for each in kept) == {
        reason: min(KEPT, count) for reason, count in Counter(reasons).items()
    }
    for reason in {*reasons}:
        last = [number for number, each in enumerate(reasons) if each == reason][-KEPT:]
        assert [each.told() for each in kept if each.reason == reason] == [
            f"192.0.2.7:{number}" for number in last
        ]


def test_theMakerIsTheEcho() -> None:
    """The first stream is that of ``raw`` without quit, as the test of bytes says."""
    assert STREAMS[0][:2] == (raw, RawOptions())
