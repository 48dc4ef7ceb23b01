"""Any interleaving of sending, reading, stalling, FIN, RST, time and drain ends well."""

from __future__ import annotations

from collections.abc import Callable
from errno import EAGAIN, ECONNRESET, EINTR, ENOBUFS, ENOMEM
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.config.limits import Limits
from echod.connection.states import Reason, State
from echod.protocols.line import LineOptions, line
from echod.protocols.prefixed import DNSOptions, dns
from echod.protocols.raw import RawOptions, raw
from echod.testing import Link, memoryLink
from tests.conformance.test_link import message
from tests.unit.counted_pipes import CountedMemoryPipes

#: A stream for each protocol that looks different everywhere, and what comes back of it.
_NUMBERS = range(40_000)
_LINES = b"".join(b"%d\n" % number for number in _NUMBERS)
_PREFIX = b"The answer to your line is: "
_MESSAGES = b"".join(message(b"%d" % number) for number in _NUMBERS)
STREAMS: list[tuple[Any, Any, bytes, bytes]] = [
    (raw, RawOptions(), _LINES, _LINES),
    (raw, RawOptions(quit="30000\n"), _LINES, _LINES[: _LINES.index(b"\n30000\n") + 7]),
    (line, LineOptions(), _LINES, _LINES),
    (
        line,
        # So long a prefix that a read's answer fills the transport several times.
        LineOptions(prefix=_PREFIX.decode(), quit="39999"),
        _LINES,
        b"".join(_PREFIX + b"%d\n" % number for number in _NUMBERS[:-1]) + b"Bye.\n",
    ),
    (dns, DNSOptions(), _MESSAGES, _MESSAGES),
]

LIMITS = Limits(stallTimeout=20, lingerTimeout=5, idleTimeout=30)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 300_000)),
        st.tuples(st.just("receive"), st.integers(1, 300_000)),
        st.tuples(st.just("advance"), st.sampled_from([1, 3, 12])),
        st.tuples(st.just("turn"), st.integers(1, 3)),
        st.tuples(st.just("drain"), st.just(0)),
        st.tuples(st.just("finish"), st.just(0)),
    ),
    max_size=40,
)


class Client:
    """A client of one stream that checks all it reads."""

    def __init__(self, link: Link, stream: bytes, expected: bytes) -> None:
        self.link = link
        self.stream = stream
        self.expected = expected
        self.sent = 0
        self.got = 0
        self.finished = False
        self.ended = False

    def send(self, size: int) -> None:
        if not self.finished and not self.ended:
            try:
                self.sent += self.link.send(self.stream[self.sent : self.sent + size])
            except OSError:
                self.ended = True

    def receive(self, size: int) -> None:
        if self.ended:
            return
        try:
            piece = self.link.receive(size)
        except ConnectionResetError:
            self.ended = True
            return
        if piece is not None:
            assert piece == self.expected[self.got : self.got + len(piece)]
            self.got += len(piece)
            self.ended = not piece

    def finish(self) -> None:
        if not self.finished:
            self.finished = True
            self.link.finish()

    def play(self, steps: list[tuple[str, int]]) -> None:
        """Do one of `STEPS` after the other."""
        for step, size in steps:
            if step == "send":
                self.send(size)
            elif step == "receive":
                self.receive(size)
            elif step == "advance":
                self.link.advance(size)
            elif step == "turn":
                for _ in range(size):
                    self.link.loop.turn()
            elif step == "drain" and not self.link.gone:
                self.link.connection.drain()
            elif step == "finish":
                self.finish()


@given(
    protocol=st.integers(0, len(STREAMS) - 1),
    buffers=st.sampled_from([1000, 4096, 65536]),
    steps=STEPS,
    last=st.sampled_from(["finish", "reset", "close", "stall"]),
)
def test_everyInterleavingEnds(
    protocol: int, buffers: int, steps: list[tuple[str, int]], last: str
) -> None:
    """What comes back is a prefix of the echo; it ends CLOSED or ABORTED, and nothing stays."""
    maker, settings, stream, expected = STREAMS[protocol]
    link = memoryLink(
        maker.makeFactory(settings).buildProtocol(None),
        limits=LIMITS,
        sendBuffer=buffers,
        receiveBuffer=buffers,
    )
    client = Client(link, stream, expected)
    client.play(steps)
    if last == "reset":
        link.reset()
    elif last == "close":
        link.close()
    elif last == "finish":
        client.finish()
    # However slow it is, whatever is owed arrives before any deadline, if it is read.
    for _ in range(2000):
        if last in ("finish", "stall") and not client.ended:
            link.pump()
            client.receive(30_000)
            if last == "stall":
                break
    if last == "finish" and client.ended and link.connection.reason is Reason.EOF:
        assert client.got == link.connection.bytesOut
    link.advance(60)
    assert link.gone
    assert link.connection.state in (State.CLOSED, State.ABORTED)
    assert link.loop.getReaders() == link.loop.getWriters() == []
    link.close()


@given(
    protocol=st.integers(0, len(STREAMS) - 1),
    buffers=st.sampled_from([1000, 4096, 65536]),
    pieces=st.lists(st.integers(300, 100_000), min_size=1, max_size=20),
)
def test_whoReadsGetsEverything(protocol: int, buffers: int, pieces: list[int]) -> None:
    """E1, F4: however the stream is split, one who reads gets every byte once, in order."""
    maker, settings, stream, expected = STREAMS[protocol]
    link = memoryLink(
        maker.makeFactory(settings).buildProtocol(None), sendBuffer=buffers, receiveBuffer=buffers
    )
    client = Client(link, stream, expected)
    turn = 0
    while client.sent < len(stream) and not client.ended:
        client.send(pieces[turn % len(pieces)])
        link.pump()
        client.receive(200_000)
        turn += 1
    client.finish()
    while not client.ended:
        link.pump()
        client.receive(200_000)
    assert client.got == len(expected)
    link.advance(1)
    assert link.gone
    link.close()


# -- Bulk --------------------------------------------------------------------------------------


_BULK = b"".join(b"%d\n" % number for number in range(150_000))


class BulkClient(Client):
    """
    One of ``raw`` whose reads have become as large as they do.

    :ivar pipes: those that its echo goes through.
    """

    def __init__(
        self,
        inPlace: bool,
        pipe: int,
        sendBuffer: int = 20_000,
        receiveBuffer: int = 40_000,
        *,
        pipes: CountedMemoryPipes | None = None,
    ) -> None:
        link = memoryLink(
            raw.makeFactory(RawOptions(in_place=inPlace)).buildProtocol(None),  # type: ignore[arg-type]  # no address
            limits=LIMITS,
            sendBuffer=sendBuffer,
            receiveBuffer=receiveBuffer,
        )
        super().__init__(link, _BULK, _BULK)
        # Any: one that has pipes, and an imitated socket.
        transport: Any = link.connection.transport
        self.transport = transport
        transport.pipes = self.pipes = pipes or CountedMemoryPipes(size=pipe)
        self.faults: dict[str, list[int]] = transport.socket.faults
        while self.got < WARM:
            self.send(WARM - self.sent)
            link.pump()
            self.receive(WARM)

    def send(self, size: int) -> None:
        """As many times as something is taken."""
        limit = self.sent + size
        before = -1
        while before < self.sent < limit and not (self.finished or self.ended):
            before = self.sent
            super().send(limit - self.sent)

    def stall(self, until: int = len(_BULK)) -> None:
        """Send until no more is taken, reading nothing."""
        before = -1
        while before < self.sent < until:
            before = self.sent
            self.send(until - self.sent)
            self.link.pump()

    def readOn(self) -> None:
        """Read until nothing more comes."""
        before = -1
        while before < self.got and not self.ended:
            before = self.got
            self.link.pump()
            self.receive(1 << 20)

    def arrived(self) -> int:
        """Bytes that wait to be read."""
        return len(self.link._client._incoming.arrived)

    def assertCounted(self) -> None:
        """What was written is here, has arrived or is unsent."""
        if not (self.link.gone or self.ended):
            known = self.got + self.arrived() + self.transport.unsent()
            assert self.link.connection.bytesOut == known

    def assertGone(self) -> None:
        """The server has let go of everything; its pipes too."""
        self.link.pump()
        assert self.link.gone
        assert self.link.loop.getReaders() == self.link.loop.getWriters() == []
        assert (self.pipes._count, self.pipes.idle) == (0, [])
        self.link.close()


#: Bytes after which reads are as large as they become.
WARM = 70_000
#: Calls that may fail, and how; the last one ends the connection.
CALLS = ["splice", "send", "MSG_PEEK"]
ERRORS = [EAGAIN, ENOBUFS, ENOMEM, ECONNRESET]
BULK_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 100_000)),
        st.tuples(st.just("receive"), st.integers(1, 100_000)),
        st.tuples(st.just("stall"), st.just(0)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
        st.tuples(st.just("advance"), st.sampled_from([1, 3, 12])),
        st.tuples(st.sampled_from(CALLS), st.sampled_from(ERRORS)),
        st.tuples(st.sampled_from(["drain", "end", "abort", "finish"]), st.just(0)),
    ),
    min_size=2,
    max_size=30,
)


@given(
    inPlace=st.sampled_from([False, False, True]),
    pipe=st.sampled_from([13_000, 40_000, 65_536, 262_144]),
    sendBuffer=st.sampled_from([3000, 20_000]),
    receiveBuffer=st.sampled_from([40_000, 70_000]),
    steps=BULK_STEPS,
    last=st.sampled_from(["finish", "reset", "close", "nothing"]),
)
def _playBulk(
    seen: list[CountedMemoryPipes],
    inPlace: bool,
    pipe: int,
    sendBuffer: int,
    receiveBuffer: int,
    steps: list[tuple[str, int]],
    last: str,
) -> None:
    client = BulkClient(inPlace, pipe, sendBuffer, receiveBuffer)
    link = client.link
    seen.append(client.pipes)
    client.stall()
    for step, size in steps:
        if step in CALLS:
            client.faults[step] = [size]
        elif step in ("send", "receive"):
            getattr(client, step)(size)
        elif step in ("stall", "finish"):
            getattr(client, step)()
        elif step == "advance":
            link.advance(size)
        elif step == "turn":
            for _ in range(size):
                link.loop.turn()
        elif link.gone:
            continue
        elif step == "drain":
            link.connection.drain()
        elif step == "end":
            link.connection.end(Reason.MAX_AGE)
        elif step == "abort":
            link.connection.abort(Reason.STALLED)
        client.assertCounted()
    if last in ("reset", "close"):
        getattr(link, last)()
    elif last == "finish":
        client.finish()
        client.readOn()
        if link.connection.reason is Reason.EOF:
            assert client.got == link.connection.bytesOut == client.sent
    link.advance(60)
    client.assertGone()


def test_everyInterleavingOfBulkEnds() -> None:
    """
    The same where all is echoed unseen, through a pipe or in place, and calls fail.

    The client's kernel, ours and the pipe take as little as they like.  Each byte that was written
    is accounted for after each step, and no pipe is left.
    """
    seen: list[CountedMemoryPipes] = []
    _playBulk(seen)
    # With few examples as well: of 25 it was 6 to 24, and 2 to 11.
    assert 8 * sum(pipes.moved > 0 for pipes in seen) > len(seen)
    assert 25 * sum(pipes.refused > 0 for pipes in seen) >= len(seen)


# -- What happens while a rest waits in a pipe ---------------------------------------------------


def comesBack(client: BulkClient) -> None:
    """All that was sent, then FIN."""
    client.finish()
    client.readOn()
    client.link.advance(1)
    assert client.got == client.sent == client.link.connection.bytesOut
    assert (client.ended, client.link.connection.reason) == (True, Reason.EOF)
    assert client.link.connection.cut == 0


def isReset(client: BulkClient) -> None:
    client.link.reset()
    client.link.pump()
    assert client.link.connection.reason is Reason.RESET


def isClosed(client: BulkClient) -> None:
    # With bytes unread it is a reset.
    client.link.close()
    client.link.pump()
    assert client.link.connection.reason is Reason.RESET


def comesToItsEnd(client: BulkClient, due: int, reason: Reason) -> None:
    """So many bytes come, and FIN after them; then the client ends too."""
    connection = client.link.connection
    client.readOn()
    assert client.got == connection.bytesOut == due
    assert client.ended
    client.link.finish()
    client.link.advance(1)
    assert (connection.reason, connection.cut) == (reason, 0)


def isEnded(client: BulkClient) -> None:
    """What was echoed by then comes, and FIN after it."""
    connection = client.link.connection
    echoed = connection.bytesOut
    connection.end(Reason.MAX_AGE)
    comesToItsEnd(client, echoed, Reason.MAX_AGE)


def isDrained(client: BulkClient) -> None:
    """What was echoed, and what the kernel had, comes; and FIN."""
    connection = client.link.connection
    due = connection.bytesOut + client.transport.unread()
    connection.drain()
    comesToItsEnd(client, due, Reason.DRAIN)


def isCut(client: BulkClient, reason: Reason) -> None:
    connection = client.link.connection
    assert connection.reason is reason
    assert connection.cut == connection.bytesOut - client.got - client.arrived()


def isAborted(client: BulkClient) -> None:
    """What did not arrive is cut, to the byte."""
    client.link.connection.abort(Reason.IDLE)
    client.link.pump()
    isCut(client, Reason.IDLE)


def isOverdue(client: BulkClient) -> None:
    client.link.advance(LIMITS.stallTimeout + 2)
    isCut(client, Reason.STALLED)


def isAborting(client: BulkClient) -> None:
    """A drain that is given up: what the kernel had is cut as well."""
    connection = client.link.connection
    due = connection.bytesOut + client.transport.unread()
    connection.drain()
    connection.abort(Reason.DRAIN)
    client.link.pump()
    assert connection.cut == due - client.got - client.arrived()


def isWrittenTo(client: BulkClient) -> None:
    """What is written then comes after it, and before what is echoed later."""
    echoed = client.link.connection.bytesOut
    client.expected = _BULK[:echoed] + b"written" + _BULK[echoed:]
    # Now there is room, and nobody has told the server.
    client.receive(500)
    client.link.connection.reply(b"written")
    client.readOn()
    client.finish()
    client.readOn()
    assert client.got == client.sent + len(b"written")
    assert client.ended
    client.link.advance(1)


def readsOn(client: BulkClient) -> None:
    """It is read from against all warnings: nothing overtakes what waits."""
    client.transport.resumeProducing()
    client.link.loop.turn()
    comesBack(client)


def fails(client: BulkClient) -> None:
    client.faults["send"] = [ECONNRESET]
    client.receive(1 << 20)
    client.link.pump()
    assert client.link.connection.reason is Reason.RESET


def failsForAMoment(client: BulkClient) -> None:
    client.faults["send"] = [ENOBUFS, ENOMEM, EAGAIN, ENOBUFS]
    client.faults["splice"] = [ENOBUFS, EINTR, EAGAIN, ENOMEM]
    comesBack(client)
    assert client.faults["send"] == []


def isNoPlaceForMore(client: BulkClient) -> None:
    """Another connection has what is left of its pipe's room to itself, and harms nobody."""
    other = BulkClient(False, 0, pipes=client.pipes)
    other.stall()
    comesBack(other)
    other.link.pump()
    assert other.link.gone
    other.link.close()
    comesBack(client)


HAPPENINGS = [
    comesBack,
    isReset,
    isClosed,
    isEnded,
    isDrained,
    isAborted,
    isOverdue,
    isAborting,
    isWrittenTo,
    readsOn,
    fails,
    failsForAMoment,
    isNoPlaceForMore,
]


@pytest.mark.parametrize("happens", HAPPENINGS)
def test_whileARestWaits(happens: Callable[[BulkClient], None]) -> None:
    """It is a stalled client at each moment of its way, as the peer takes the rest in sips."""
    rests = set()
    for moment in range(40):
        client = BulkClient(False, 30_000, sendBuffer=3000, receiveBuffer=40_000)
        client.stall()
        for _ in range(moment):
            client.receive(997)
            client.link.pump()
        rests.add(client.transport._inPipe())
        client.assertCounted()
        happens(client)
        client.assertGone()
    assert len(rests) > 10
    assert 0 not in rests
