"""Any interleaving of sending, reading, stalling, FIN, RST, time and drain ends well."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from echod.config.limits import Limits
from echod.connection.states import Reason, State
from echod.protocols.line import LineOptions, line
from echod.protocols.prefixed import DNSOptions, dns
from echod.protocols.raw import RawOptions, raw
from echod.testing import Link, memoryLink
from tests.conformance.test_link import message

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
