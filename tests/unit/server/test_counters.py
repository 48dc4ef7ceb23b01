"""`echod.server.counters`: counters as JSON, connections as log lines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock

from echod.connection.connection import Connection
from echod.connection.states import Reason, State
from echod.insight.peers import tellPeer
from echod.insight.refusals import Refusals
from echod.insight.timeline import Timeline
from echod.server.connection_log import ConnectionLog, RefusalLog, SlowLog
from echod.server.counters import Totals, toJSON
from echod.server.distributions import SECONDS as BOUNDS_OF_SECONDS
from tests.unit.conftest import LogLines

SUMMED = {
    "bytes_in": "bytesIn",
    "bytes_out": "bytesOut",
    "discarded": "discarded",
    "messages": "messages",
    "truncated": "truncated",
    "pauses": "pauses",
}


def connectionWith(
    state: State = State.CLOSED, reason: Reason | None = None, **counters: int
) -> Connection:
    """A connection that nothing is connected to, with these counters."""
    connection = Connection()
    connection.state = state
    connection.reason = reason
    transport: Any = SimpleNamespace(
        credentials=None,
        proxied=None,
        brokenBy=0,
        unsent=lambda: 7,
        failure=None,
        echoedBytes=0,
        getPeer=lambda: IPv4Address("TCP", "127.0.0.1", 40000),
    )
    connection.transport = transport
    own = {"bytesIn": "_seen", "bytesOut": "_replied"}
    for name, value in counters.items():
        assert hasattr(Connection, name)
        setattr(connection, own.get(name, name), value)
    return connection


def test_nothingYet() -> None:
    """Every counter is there from the start."""
    assert Totals().snapshot([]) == {
        "open": 0,
        "accepted": 0,
        "refused": {},
        "closed": {},
        "ends": {},
        "aborted": 0,
        "resets": 0,
        "stalls": 0,
        "cut": 0,
        "cut_bytes": 0,
        **dict.fromkeys(SUMMED, 0),
    }


@pytest.mark.parametrize(("key", "attribute"), SUMMED.items())
def test_sumsOfTheLivingAndTheGone(key: str, attribute: str) -> None:
    """Counters are summed when asked, over those that are gone and those that live."""
    totals = Totals()
    totals.add(connectionWith(State.CLOSED, None, **{attribute: 1}))
    totals.add(connectionWith(State.CLOSED, None, **{attribute: 10}))
    live = [connectionWith(State.OPEN, None, **{attribute: number}) for number in (100, 1000)]
    assert totals.snapshot([])[key] == 11
    assert totals.snapshot(live)[key] == 1111
    # Being asked changes nothing, and the other sums are their own.
    assert totals.snapshot(iter(live))[key] == 1111
    assert sum(totals.snapshot(live)[other] for other in SUMMED) == 1111
    assert totals.snapshot(live)["open"] == 2


def test_endsAreToldApart() -> None:
    """C3: FIN, RST, our own RST and lost bytes in counters of their own."""
    totals = Totals()
    totals.add(connectionWith())  # no reason at all: it ended with EOF
    totals.add(connectionWith(reason=Reason.EOF))
    totals.add(connectionWith(reason=Reason.RESET, broken=1))
    totals.add(connectionWith(State.ABORTED, Reason.STALLED, cut=500))
    totals.add(connectionWith(State.ABORTED, Reason.IDLE))
    totals.add(connectionWith(reason=Reason.QUIT))
    totals.refused["full"] += 3
    totals.accepted = 6
    snapshot = totals.snapshot([])
    assert snapshot["closed"] == {"eof": 2, "reset": 1, "stalled": 1, "idle": 1, "quit": 1}
    assert snapshot["ends"] == {
        "eof": {"fin": 2},
        "reset": {"rst": 1},
        "stalled": {"abort": 1},
        "idle": {"abort": 1},
        "quit": {"fin": 1},
    }
    assert snapshot["aborted"] == 2
    assert snapshot["resets"] == 1
    assert snapshot["stalls"] == 1
    assert (snapshot["cut"], snapshot["cut_bytes"]) == (1, 500)
    assert snapshot["refused"] == {"full": 3}
    assert snapshot["accepted"] == 6


def test_foundBrokenIsNoAbortOfOurs() -> None:
    """One that the sweep finds reset is let go by an abort, and was ended by the peer."""
    totals = Totals()
    totals.add(connectionWith(State.ABORTED, Reason.RESET, broken=1))
    snapshot = totals.snapshot([])
    assert (snapshot["aborted"], snapshot["resets"]) == (0, 1)
    assert snapshot["ends"] == {"reset": {"rst": 1}}


def test_distributionsWhereSomebodyLooks() -> None:
    """They are kept from when they are asked for, by bounds, with an example of each size."""
    totals = Totals()
    owner: Any = SimpleNamespace(sweep=SimpleNamespace(now=15.0))
    for received in (0, 5, 300):
        connection = connectionWith(reason=Reason.EOF, bytesIn=received)
        connection.openedAt = 10.0
        connection.owner = owner
        if received == 300:
            # Those without a timeline are no examples.
            connection.timeline = Timeline(32, iter([10.0, 15.0]).__next__)
            connection.timeline.add("end", "fin")
        totals.add(connection)
        totals.observe(True)
    found = totals.distributions
    assert found is not None
    assert (found.seconds.sum, sum(found.seconds.counts)) == (10.0, 2)
    assert found.seconds.counts[BOUNDS_OF_SECONDS.index(16.384)] == 2
    assert [count for count in found.received.counts if count] == [1, 1]
    assert found.received.sum == 305
    # Nobody has told when the first byte came.
    assert sum(found.firstByte.counts) == 0
    example = (connection.number, 5.0, 15.0)
    assert totals.last == {(Reason.EOF, "fin"): example}
    assert [each for each in found.seconds.exemplars if each] == [example]
    # To say it once more changes nothing.
    totals.observe(True)
    assert totals.distributions is found
    totals.observe(False)
    assert totals.distributions is None
    assert totals.last == {}


def test_aSnapshotIsACopy() -> None:
    """What was told does not change afterwards."""
    totals = Totals()
    snapshot = totals.snapshot([])
    totals.add(connectionWith(reason=Reason.EOF))
    totals.refused["full"] += 1
    assert snapshot["closed"] == {}
    assert snapshot["refused"] == {}


def test_oneLineOfJSON() -> None:
    """SIGUSR1's line can be read by a program."""
    totals = Totals()
    totals.add(connectionWith(reason=Reason.EOF, bytesIn=5))
    totals.refused["full"] += 1
    text = toJSON({"listeners": [totals.snapshot([])], "text": "a\nb"})
    assert "\n" not in text
    assert msgspec.json.decode(text) == {"listeners": [totals.snapshot([])], "text": "a\nb"}


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        (IPv4Address("TCP", "127.0.0.1", 40000), "127.0.0.1:40000"),
        (IPv6Address("TCP", "::1", 40000), "[::1]:40000"),
        (UNIXAddress(b"/a\nb"), "/a\\nb"),
        (UNIXAddress(b"\0\xff\xfe"), "@\\xff\\xfe"),
        (UNIXAddress(None), ""),
        (None, ""),
        (("192.0.2.7", 40000), "192.0.2.7:40000"),
        (("::1", 40000, 0, 0), "[::1]:40000"),
        ((7, 0, 1000), "process=7,user=0,group=1000"),
        ((), ""),
    ],
)
def test_peers(peer: object, text: str) -> None:
    """O5: a peer is one line of printable text, whatever its name is made of."""
    assert tellPeer(peer) == text
    assert msgspec.json.decode(toJSON(tellPeer(peer))) == text
    assert "\n" not in text


def test_lifeInTheLog(logLines: LogLines) -> None:
    """One line each: opened, the peer's FIN, gone."""
    log = ConnectionLog("raw tcp 127.0.0.1:1234")
    connection = connectionWith(reason=Reason.EOF, bytesIn=5, bytesOut=4)
    connection.openedAt = 10.0
    log.opened(connection)
    log.inputEnded(connection)
    log.closed(connection, 12.34)
    who = f"raw tcp 127.0.0.1:1234 id={connection.id} peer=127.0.0.1:40000"
    assert logLines.lines == [
        f"opened {who}",
        f"eof {who} in=5",
        f"closed {who} in=5 out=4 seconds=2.3 reason=eof end=fin",
    ]


def test_ourEndInTheLog(logLines: LogLines) -> None:
    """A line when we end it, with what it is owed; one, however often we end it."""
    log = ConnectionLog("raw tcp 127.0.0.1:1234")
    connection = connectionWith(State.LINGERING, Reason.IDLE, bytesOut=9)
    # It has not come so far that the protocol knows of it: nobody is owed anything.
    log.ended(connection)
    assert logLines.lines[-1].endswith(" peer=127.0.0.1:40000 reason=idle owed=0")
    log.closed(connection, 0.0)
    connection._protocolKnows = True
    for _ in range(3):
        log.ended(connection)
    assert [line.split()[0] for line in logLines.lines] == ["ended", "closed", "ended"]
    assert logLines.lines[-1].endswith(" reason=idle owed=7")


@pytest.mark.parametrize(
    ("state", "reason", "broken", "words"),
    [
        (State.CLOSED, Reason.EOF, False, "reason=eof end=fin"),
        (State.CLOSED, None, False, "reason=eof end=fin"),
        (State.CLOSED, Reason.QUIT, False, "reason=quit end=fin"),
        (State.CLOSED, Reason.RESET, True, "reason=reset end=rst"),
        (State.ABORTED, Reason.STALLED, False, "reason=stalled end=abort"),
        (State.ABORTED, Reason.RESET, True, "reason=reset end=rst"),
    ],
)
def test_endsInTheLog(
    logLines: LogLines, state: State, reason: Reason | None, broken: bool, words: str
) -> None:
    """C3: FIN, RST and our own abort are told apart in the log."""
    log = ConnectionLog("raw")
    log.closed(connectionWith(state, reason, broken=broken), 0.0)
    assert len(logLines.lines) == 1
    assert logLines.lines[0].endswith(words)


def test_bracesInNames(logLines: LogLines) -> None:
    """A brace in a value is a value."""
    log = ConnectionLog("{peer} {nothing}")
    connection = connectionWith()
    log.opened(connection)
    assert logLines.lines == [
        f"opened {{peer}} {{nothing}} id={connection.id} peer=127.0.0.1:40000"
    ]


def test_peerOverAUNIXSocket(logLines: LogLines) -> None:
    """It has no address: who it is says the kernel."""
    connection = connectionWith()
    transport: Any = connection.transport
    transport.credentials = (123, 1000, 100)
    ConnectionLog("raw unix /run/echod").opened(connection)
    who = f"id={connection.id} peer=process=123,user=1000,group=100"
    assert logLines.lines == [f"opened raw unix /run/echod {who}"]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"hello\n", r"size=6 data=b'hello\n'"),
        (b"\x1b[31m\xff", r"size=6 data=b'\x1b[31m\xff'"),
        (b"x" * 64, f"size=64 data=b'{'x' * 64}'"),
        (b"x" * 65, f"size=65 data=b'{'x' * 64}'"),
        (bytearray(b"view"), "size=4 data=b'view'"),
    ],
)
def test_payload(logLines: LogLines, data: bytes, shown: str) -> None:
    """O5: 64 bytes at most, none of which can do anything to a terminal."""
    connection = connectionWith()
    ConnectionLog("raw").payload(connection, data)
    assert logLines.lines == [f"payload raw id={connection.id} peer=127.0.0.1:40000 {shown}"]


def test_refusals(logLines: LogLines) -> None:
    """A line says how many since the last, by reason, and who one was; none: no line."""
    refused = Refusals()
    refused["full"] = 5  # told by somebody else, before
    log = RefusalLog("raw tcp 127.0.0.1:7", lambda: refused, refused)
    log.sweep(0.0)
    assert logLines.lines == []
    refused["full"] += 1
    for port in range(20):
        refused.add("denied", ("192.0.2.7", port))
    log.sweep(1.0)
    log.sweep(2.0)
    refused["full"] += 2
    log.sweep(3.0)
    assert logLines.lines == [
        "refused raw tcp 127.0.0.1:7 denied=20 full=1 example=192.0.2.7:19",
        "refused raw tcp 127.0.0.1:7 full=2",
    ]


class Described:
    """A listener, as far as it is named in the log."""

    def describe(self) -> str:
        return "raw tcp 127.0.0.1:7"


def test_slow(logLines: LogLines) -> None:
    """Who held the reactor, for how long; a line a second at most, all counted."""
    clock = Clock()
    log = SlowLog(clock.seconds)
    connection = connectionWith()
    connection.owner = Described()  # type: ignore[assignment]  # it is asked for its name alone
    descriptor = SimpleNamespace(protocol=connection)
    for seconds in (0.0, 0.5, 0.4, 0.1, 0.1):
        clock.advance(seconds)
        log(descriptor, 0.1234)
    assert log.count == 5
    assert logLines.lines == [
        "slow raw tcp 127.0.0.1:7 protocol=Connection milliseconds=123 count=1",
        "slow raw tcp 127.0.0.1:7 protocol=Connection milliseconds=123 count=4",
    ]


@pytest.mark.parametrize(
    ("descriptor", "words"),
    [
        # Twisted's own, such as its waker; and a port, whose protocol no listener owns.
        ("waker", "slow 'waker' protocol=none"),
        (SimpleNamespace(protocol=1), "slow namespace(protocol=1) protocol=int"),
    ],
    ids=["no protocol", "no owner"],
)
def test_slowStrangers(logLines: LogLines, descriptor: object, words: str) -> None:
    """Whatever was served is named somehow."""
    SlowLog(lambda: 0.0)(descriptor, 1.0)
    assert logLines.lines == [f"{words} milliseconds=1000 count=1"]
