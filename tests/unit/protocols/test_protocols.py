"""`echod.protocols`: what raw, line and dns answer, over the link in memory."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.flow import SLICE
from echod.connection.states import Reason, State
from echod.interfaces import IStreamProtocolMaker
from echod.kit.framed import SMALLEST_READ
from echod.protocols.line import line
from echod.protocols.prefixed import DNSOptions, dns
from echod.protocols.raw import raw
from echod.testing import Link, PlainContext, memoryLink, unixLink
from tests.unit.outer import Overseen

KIB = 1024


def connect(maker: IStreamProtocolMaker, *, buffers: int = 64 * KIB, **options: Any) -> Link:
    """A link to a connection of ``maker`` with these options."""
    connection = maker.makeFactory(maker.options(**options), PlainContext()).buildProtocol(None)
    assert isinstance(connection, Connection)
    return memoryLink(connection, sendBuffer=buffers, receiveBuffer=buffers)


class Overheard(Connection):
    """
    Any connection, where it is put before its class.

    :ivar reads: bytes of each read that it was shown.
    :ivar held: bytes that its transport held after each reply.
    """

    transport: Any

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self.reads: list[int] = []
        self.held: list[int] = []

    def received(self, data: bytes) -> None:
        self.reads.append(len(data))
        super().received(data)

    def reply(self, data: bytes) -> None:
        super().reply(data)
        # `dataBuffer` with what of it is sent already: that is memory, too.
        self.held.append(len(self.transport.dataBuffer) + self.transport._tempDataLen)


def overhear(
    maker: IStreamProtocolMaker, *, buffers: int = 64 * KIB, **options: Any
) -> tuple[Link, Overheard]:
    """The same as `connect`, and who listens to the connection."""
    settings = maker.options(**options)
    kind = type(maker.makeFactory(settings, PlainContext()).buildProtocol(None))
    connection = type("Overheard", (Overheard, kind), {})(settings)
    return memoryLink(connection, sendBuffer=buffers, receiveBuffer=buffers), connection


def sendEach(link: Link, pieces: Iterable[bytes]) -> None:
    """Send each piece so that the server reads it apart."""
    for piece in pieces:
        assert link.send(piece) == len(piece)
        link.pump()


def answers(link: Link, *pieces: bytes) -> bytes:
    """What comes back for ``pieces``, read apart, and the peer's FIN."""
    sendEach(link, pieces)
    link.finish()
    data = link.readAll()
    assert link.gone
    return data


def answersUntilEnd(link: Link, *pieces: bytes) -> bytes:
    """What comes back from a server that ends by itself, gracefully, before the peer does."""
    sendEach(link, pieces)
    data = link.readAll()
    assert not link.gone  # it lingers
    assert link.connection.state is State.LINGERING
    link.finish()
    link.pump()
    assert link.gone
    assert link.connection.state is State.CLOSED
    return data


def splits(stream: bytes) -> Iterator[list[bytes]]:
    """One piece, two pieces at every position, single bytes."""
    yield [stream]
    for at in range(1, len(stream)):
        yield [stream[:at], stream[at:]]
    yield [stream[at : at + 1] for at in range(len(stream))]


def framed(payload: bytes) -> bytes:
    """A message of DNS over TCP."""
    return len(payload).to_bytes(2, "big") + payload


# -- raw ------------------------------------------------------------------------------------


@given(pieces=st.lists(st.binary(min_size=1, max_size=300), max_size=10))
def test_rawReturnsEveryByte(pieces: list[bytes]) -> None:
    """E1: unchanged and in order, whatever the reads."""
    link = connect(raw)
    assert answers(link, *pieces) == b"".join(pieces)
    assert link.connection.bytesIn == link.connection.bytesOut == len(b"".join(pieces))
    assert link.connection.messages == 0
    assert link.connection.truncated == 0
    assert link.connection.reason is Reason.EOF


@pytest.mark.parametrize(
    ("word", "before", "after"),
    [
        ("quit", b"", b""),
        ("quit", b"", b"x"),
        ("quit", b"hello ", b" and more quit"),
        ("quit", b"quiqui", b"t"),
        ("quit", b"qqququi", b"quit"),
        ("aab", b"aaaaa", b"aab"),
        ("abab", b"aba", b"ab"),
        ("x", b"yz", b"x"),
        ("\r\n.\r\n", b"\r\n..\r\n", b"\r\n"),
        ("tschüß", "tschütsch".encode(), b"!"),
    ],
)
def test_rawQuitAtEverySplit(word: str, before: bytes, after: bytes) -> None:
    """The echo goes up to and including quit, and nothing after it comes back."""
    expected = before + word.encode()
    assert expected.find(word.encode()) == len(before)
    for pieces in splits(expected + after):
        link = connect(raw, quit=word)
        assert answersUntilEnd(link, *pieces) == expected
        assert link.connection.reason is Reason.QUIT
        assert link.connection.bytesOut == len(expected)
        # Bytes of the read that holds the word went to the protocol; later ones are discarded.
        assert link.connection.bytesIn + link.connection.discarded == len(expected + after)


@given(
    data=st.lists(st.sampled_from([b"a", b"b", b"ab", b"aab"]), max_size=20).map(b"".join),
    word=st.sampled_from(["aab", "aba", "bb", "a", "abab"]),
    cuts=st.lists(st.floats(0, 1), max_size=5),
)
def test_rawQuitAmongItsOwnLetters(data: bytes, word: str, cuts: list[float]) -> None:
    """The first occurrence counts, however the reads split it, and none is imagined."""
    edges = sorted({0, len(data), *(round(cut * len(data)) for cut in cuts)})
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    link = connect(raw, quit=word)
    at = data.find(word.encode())
    if at < 0:
        assert answers(link, *pieces) == data
        assert link.connection.reason is Reason.EOF
    else:
        assert answersUntilEnd(link, *pieces) == data[: at + len(word)]
        assert link.connection.reason is Reason.QUIT


def test_rawQuitSplitOverManyReads() -> None:
    """A long word, each byte a read of its own, after much else."""
    word = "0123456789" * 25
    noise = random.Random(1).randbytes(5000)
    link = connect(raw, quit=word)
    pieces = [noise, *(digit.encode() for digit in word), b"after"]
    assert answersUntilEnd(link, *pieces) == noise + word.encode()


# -- line -----------------------------------------------------------------------------------


@given(
    lines=st.lists(st.binary(max_size=50).map(lambda data: data.replace(b"\n", b"")), max_size=8),
    ending=st.sampled_from([b"\n", b"\r\n"]),
    rest=st.sampled_from([b"", b"x", b"\r", b"rest"]),
    cuts=st.lists(st.floats(0, 1), max_size=5),
    prefix=st.sampled_from(["", "> ", "Écho: "]),
)
def test_lineReturnsWholeLines(
    lines: list[bytes], ending: bytes, rest: bytes, cuts: list[float], prefix: str
) -> None:
    """Byte for byte, the prefix before each; an unfinished one is counted only."""
    whole = [line_ + ending for line_ in lines]
    stream = b"".join(whole) + rest
    edges = sorted({0, len(stream), *(round(cut * len(stream)) for cut in cuts)})
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    link = connect(line, prefix=prefix)
    expected = b"".join(prefix.encode() + each for each in whole)
    assert answers(link, *pieces) == expected
    assert link.connection.messages == len(lines)
    assert link.connection.truncated == (1 if rest else 0)
    assert link.connection.bytesIn == len(stream)
    assert link.connection.bytesOut == len(expected)


@pytest.mark.parametrize("prefix", ["", "Echo: "])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"], ids=repr)
def test_lineQuit(prefix: str, ending: bytes) -> None:
    """Answered with goodbye, ended as quit was; nothing after it; first, middle or last."""
    befores: list[list[bytes]] = [[], [b"a"], [b"", b"quit now", b"b"]]
    afters: list[list[bytes]] = [[], [b"c"], [b"quit"]]
    for before, after in itertools.product(befores, afters):
        stream = b"".join(each + ending for each in [*before, b"quit", *after])
        expected = b"".join(prefix.encode() + each + ending for each in before)
        expected += b"Bye." + ending
        for pieces in splits(stream):
            link = connect(line, prefix=prefix, quit="quit")
            assert answersUntilEnd(link, *pieces) == expected
            assert link.connection.reason is Reason.QUIT
            assert link.connection.truncated == 0


def test_lineQuitEndsAsItsOwnLine() -> None:
    r"""``\r\n`` after quit and ``\n`` elsewhere, or the other way round."""
    link = connect(line, quit="quit", goodbye="See you")
    assert answersUntilEnd(link, b"a\nquit\r\nb\n") == b"a\nSee you\r\n"
    link = connect(line, quit="quit", goodbye="")
    assert answersUntilEnd(link, b"a\r\nquit\nb\r\n") == b"a\r\n\n"


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"], ids=repr)
@pytest.mark.parametrize(
    "text",
    [
        b"quitter",
        b"I quit",
        b" quit",
        b"quit ",
        b"QUIT",
        b"qui",
        b"quit\rx",
        b"quit\0",
        b"\rquit",
        b"quitquit",
    ],
)
def test_lineQuitIsAWholeLine(text: bytes, ending: bytes) -> None:
    """Quit within a longer line is a line like any other."""
    for stream in (text + ending, b"a" + ending + text + ending + b"b" + ending):
        link = connect(line, quit="quit")
        assert answers(link, stream) == stream
        assert link.connection.reason is Reason.EOF
        link = connect(line, quit="quit", prefix="> ")
        assert answers(link, *(stream[at : at + 1] for at in range(len(stream)))) == b"> " + (
            stream[:-1].replace(b"\n", b"\n> ") + b"\n"
        )


def test_lineQuitWithoutItsEnd() -> None:
    """An unfinished quit is an unfinished line."""
    link = connect(line, quit="quit")
    assert answers(link, b"a\nquit") == b"a\n"
    assert link.connection.truncated == 1
    assert link.connection.reason is Reason.EOF


def test_lineQuitIsNoPattern() -> None:
    """The word is text, whatever its letters mean elsewhere."""
    link = connect(line, quit=".*")
    assert answers(link, b"abc\n.*.\n\n") == b"abc\n.*.\n\n"
    link = connect(line, quit=".*", prefix=r"\1 ", goodbye=r"\g<0>")
    assert answersUntilEnd(link, b"abc\n.*\n") == b"\\1 abc\n\\g<0>\n"


def test_lineWithoutQuit() -> None:
    """An empty word is none: empty lines end nothing."""
    link = connect(line, quit="", prefix="> ")
    assert answers(link, b"\n\nquit\n") == b"> \n> \n> quit\n"


@pytest.mark.parametrize("size", [100, 1000])
@pytest.mark.parametrize("prefix", ["p" * 256, "é" * 256, "\n", "a\nb"])
def test_linePrefixSlicesAreComplete(prefix: str, size: int) -> None:
    """Whatever the share of line ends, pieces of a long reply are the whole reply."""
    source = random.Random(size)
    lines = b"".join(b"x" * source.choice([0, 0, 1, size]) + b"\n" for _ in range(40_000 // size))
    lines += b"\n" * 40_000
    link = connect(line, prefix=prefix, quit="quit", buffers=256 * KIB)
    start = prefix.encode()
    expected = start + lines[:-1].replace(b"\n", b"\n" + start) + b"\n"
    assert len(expected) > SLICE
    assert answersUntilEnd(link, lines + b"quit\nmore\n") == expected + b"Bye.\n"


@pytest.mark.parametrize("quitting", [False, True])
@pytest.mark.parametrize("buffers", [16 * KIB, 64 * KIB])
def test_linePrefixIsMadeAsThePeerReads(buffers: int, quitting: bool) -> None:
    """C5: 64 KiB of empty lines become 16 MiB; never more than 192 KiB of them are held."""
    prefix = "p" * 256
    data = b"\n" * (64 * KIB - 5) + b"quit\n"
    link, overheard = overhear(
        line, prefix=prefix, quit="quit" if quitting else "", buffers=buffers
    )
    rest, received = data, b""
    while taken := link.send(rest):
        rest = rest[taken:]
        link.pump()
    # The peer has not read yet: only what fits the queues has been made.
    assert link.connection.bytesOut <= 192 * KIB + 2 * buffers
    while rest:
        received += link.receive() or b""
        link.pump()
        rest = rest[link.send(rest) :]
    if not quitting:
        link.finish()
    received += link.readAll()
    expected = (prefix.encode() + b"\n") * (64 * KIB - 5)
    expected += b"Bye.\n" if quitting else prefix.encode() + b"quit\n"
    assert received == expected
    assert link.connection.reason is (Reason.QUIT if quitting else Reason.EOF)
    assert max(overheard.held) <= 192 * KIB
    assert link.connection.messages == 64 * KIB - 4


def test_noInputBetweenSlices() -> None:
    """C5: what is sent meanwhile waits until the last slice is made, then is answered in order."""
    link = connect(line, prefix="p" * 256, buffers=16 * KIB)
    sendEach(link, [b"\n" * 8 * KIB])
    assert link.connection.bytesOut < 8 * KIB * 257
    answered = link.connection.messages
    for _ in range(10):
        link.send(b"next\n")
        link.pump()
    assert link.connection.messages == answered
    link.finish()
    prefix = b"p" * 256
    assert link.readAll() == (prefix + b"\n") * 8 * KIB + (prefix + b"next\n") * 10
    assert link.connection.messages == 8 * KIB + 10


def test_resetBetweenSlices() -> None:
    """O4: a peer that is gone gets no more slices; nothing is logged."""
    link = connect(line, prefix="p" * 256, buffers=4 * KIB)
    sendEach(link, [b"\n" * 4 * KIB])
    link.reset()
    link.pump()
    assert link.gone
    assert link.connection.reason is Reason.RESET
    assert link.connection.bytesOut < 4 * KIB * 257


# -- dns ------------------------------------------------------------------------------------


def test_dnsReturnsMessages() -> None:
    """F1, F3, F4, F5: in order, at every split, an empty one too, connection kept."""
    messages = [framed(payload) for payload in (b"a", b"", b"bcd")]
    for pieces in splits(b"".join(messages)):
        link = connect(dns)
        sendEach(link, pieces)
        assert link.receive() == b"".join(messages)
        assert link.connection.state is State.OPEN
        assert answers(link, framed(b"later")) == framed(b"later")
        assert link.connection.messages == 4
        assert link.connection.truncated == 0


@pytest.mark.parametrize("count", [1, 1000])
def test_dnsAnswersInOneWrite(count: int) -> None:
    """F2, F4: length and body, of all that a read held, in one write to the kernel."""
    link = unixLink(dns.makeFactory(DNSOptions()).buildProtocol(None))  # type: ignore[arg-type]  # no address
    written = Overseen(link.connection.transport).sent
    stream = framed(b"12 bytes sent") * count
    assert link.exchange(stream) == stream
    link.close()
    link.advance(0.5)
    # A read begins small, and doubles: four of them for a thousand messages.
    assert b"".join(written) == stream
    assert [len(piece) % len(framed(b"12 bytes sent")) for piece in written] == [0] * len(written)
    assert len(written) <= (1 if count == 1 else 4)


@pytest.mark.parametrize("size", [65534, 65535])
def test_dnsLargestMessages(size: int) -> None:
    """F10: up to 65 535 bytes, over small queues too."""
    data = framed(random.Random(size).randbytes(size))
    link = connect(dns, buffers=4 * KIB)
    assert link.exchange(data * 3) == data * 3
    assert link.connection.messages == 3
    assert link.connection.reason is Reason.EOF


def clientSendsAndNeverReads(strict: bool) -> tuple[Link, bytes]:
    """Answers that do not fit the queues, then the peer's FIN."""
    link = connect(dns, buffers=4 * KIB, strict=strict)
    sent = b""
    for number in range(4):
        message = framed(bytes([number]) * 2000)
        sent += message
        sendEach(link, [message])
    # Some more, which no queue beyond the server's can take.
    for number in range(4, 8):
        message = framed(bytes([number]) * 2000)
        sent += message
        sendEach(link, [message])
    assert link.connection.owes()
    link.finish()
    link.pump()
    return link, sent


def test_dnsFlushesOnFIN() -> None:
    """F8, E1: by default a half-closed peer gets all its answers."""
    link, sent = clientSendsAndNeverReads(strict=False)
    assert link.connection.state is State.FINISHING
    assert link.readAll() == sent
    link.advance(0.2)
    assert link.gone
    assert link.connection.cut == 0


def test_dnsStrictDiscardsOnFIN() -> None:
    """F8: RFC 7766 section 6.2.4 to the letter: what is unsent is dropped, and counted."""
    link, sent = clientSendsAndNeverReads(strict=True)
    assert link.connection.state is State.ABORTED
    assert link.connection.reason is Reason.EOF
    assert link.gone
    # What had arrived before the RST can still be read.
    received = link.receive() or b""
    with pytest.raises(ConnectionResetError):
        link.receive()
    assert sent.startswith(received)
    assert 0 < link.connection.cut <= len(sent) - len(received)


def test_dnsStrictEndsCleanlyWhenAllIsSent() -> None:
    """F8: nothing unsent, nothing to drop: FIN, not RST; an unfinished message is counted."""
    link = connect(dns, strict=True)
    message = framed(b"hello")
    assert answers(link, message, message[:4]) == message
    assert link.connection.state is State.CLOSED
    assert link.connection.cut == 0
    assert link.connection.truncated == 1


# -- What both have -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maker", "stream", "complete"),
    [
        (line, b"", b""),
        (line, b"a\n", b"a\n"),
        (line, b"a\nb", b"a\n"),
        (line, b"a\n\r", b"a\n"),
        (line, b"a", b""),
        (dns, framed(b"a"), framed(b"a")),
        (dns, framed(b"a") + b"\0", framed(b"a")),
        (dns, framed(b"a") + b"\0\0", framed(b"a") + b"\0\0"),
        (dns, b"\0\1", b""),
        (dns, framed(b"abc")[:-1], b""),
    ],
)
def test_truncated(maker: IStreamProtocolMaker, stream: bytes, complete: bytes) -> None:
    """An unfinished message at FIN is not answered, but counted, once."""
    for pieces in splits(stream) if stream else [[]]:
        link = connect(maker)
        assert answers(link, *pieces) == complete
        assert link.connection.truncated == (1 if complete != stream else 0)
        assert link.connection.reason is Reason.EOF
        assert link.connection.state is State.CLOSED


TOO_LONG = [
    pytest.param(line, {"maxLength": 5}, b"1\n12345\n\r\n", b"123456", id="line"),
    pytest.param(
        line, {"maxLength": 5, "prefix": "> "}, b"1\n12345\n\r\n", b"123456\n", id="line, prefix"
    ),
    pytest.param(line, {"maxLength": 5, "quit": "q"}, b"", b"12345\r\n", id="line, quit"),
    pytest.param(
        dns, {"maxLength": 5}, framed(b"1") + framed(b"12345") + framed(b""), b"\0\6", id="dns"
    ),
    pytest.param(dns, {"maxLength": 0}, framed(b"") * 3, b"\0\1x", id="dns, 0"),
]


@pytest.mark.parametrize(("maker", "options", "before", "long"), TOO_LONG)
def test_tooLong(
    maker: IStreamProtocolMaker, options: dict[str, Any], before: bytes, long: bytes
) -> None:
    """F10, C2: it ends gracefully after all that was complete, at every split; nothing after."""
    prefix = options.get("prefix", "").encode()
    expected = before
    if prefix:
        expected = prefix + before[:-1].replace(b"\n", b"\n" + prefix) + b"\n"
    after = b"\nmore\n\0\0\0\0"
    for pieces in splits(before + long + after):
        link = connect(maker, **options)
        assert answersUntilEnd(link, *pieces) == expected
        assert link.connection.reason is Reason.TOO_LONG
        assert link.connection.messages == 3 * bool(before)
        assert link.connection.truncated == 0
        assert link.connection.cut == 0


@pytest.mark.parametrize("maker", [line, dns])
def test_tooLongWhileThePeerDoesNotRead(maker: IStreamProtocolMaker) -> None:
    """F10, C2: what was complete arrives however late the peer reads it, then FIN."""
    message = framed(bytes(500)) if maker is dns else bytes(500) + b"\n"
    options = {"maxLength": 500}
    link = connect(maker, buffers=4 * KIB, **options)
    sent = b""
    while not link.connection.owes():
        sendEach(link, [message])
        sent += message
    sendEach(link, [message, b"\xff" * 501])
    sent += message
    assert link.connection.reason is Reason.TOO_LONG
    link.send(b"more" * 100)
    # Longer than the linger timeout: it has not begun while bytes are owed.
    link.advance(Limits().lingerTimeout * 2)
    assert link.connection.state is State.LINGERING
    assert link.readAll() == sent
    assert link.connection.discarded == 400
    link.finish()
    link.pump()
    assert link.gone


@pytest.mark.parametrize("maker", [line, dns])
def test_onlyWholeMessagesAreProgress(maker: IStreamProtocolMaker) -> None:
    """F6: a peer that drips one byte at a time is idle; one that finishes messages is not."""
    message = framed(b"12345") if maker is dns else b"12345\n"
    for whole in (True, False):
        connection = maker.makeFactory(maker.options(), PlainContext()).buildProtocol(None)
        assert isinstance(connection, Connection)
        link = memoryLink(connection, limits=Limits(idleTimeout=3.0))
        sent = 0
        for _ in range(8):
            piece = message if whole else b"\1"
            assert link.send(piece)
            sent += len(piece)
            link.advance(1.0)
        assert connection.state is (State.OPEN if whole else State.LINGERING)
        assert connection.reason is (None if whole else Reason.IDLE)
        assert connection.bytesIn + connection.discarded == sent


@pytest.mark.parametrize("maker", [line, dns])
def test_idleTimeBeginsAtTheMessage(maker: IStreamProtocolMaker) -> None:
    """F6: with its last byte, not at the next sweep."""
    message = framed(b"12345") if maker is dns else b"12345\n"
    link = connect(maker)
    link.advance(5.0)
    sendEach(link, [message[:3]])
    assert link.connection.idleSince() == 0.0
    sendEach(link, [message[3:]])
    assert link.receive() == message
    assert link.connection.idleSince() == link.connection.owner.sweep.now
    assert link.connection.owner.sweep.now == pytest.approx(5.0)


def test_bulkIsProgress() -> None:
    """F6, E1: bulk that is echoed unseen is counted, and begins idle time anew."""
    link = connect(raw)
    connection = link.connection
    data = bytes(range(256)) * 4096
    assert link.exchange(data) == data
    assert (connection.bytesIn, connection.bytesOut) == (len(data), len(data))

    link = connect(raw)
    link.advance(5.0)
    for _ in range(8):
        assert link.send(bytes(65536)) == 65536
        link.pump()
        while link.receive():
            link.pump()
    assert link.connection.bytesIn == 8 * 65536
    assert link.connection.idleSince() == link.connection.owner.sweep.now
    assert link.connection.owner.sweep.now == pytest.approx(5.0)


def test_shortEchoesAreProgress() -> None:
    """Each short message in a row is counted, and begins idle time anew; so is a long one."""
    link = connect(raw)
    connection = link.connection
    sizes = [1, 64, 2047, 64, 64, 2048, 64, 10_000, 64, 64, 64, 64, 64, 64]
    for count, size in enumerate(sizes, 1):
        link.advance(5.0)
        sendEach(link, [bytes(size)])
        assert link.receive() == bytes(size)
        assert (connection.bytesIn, connection.bytesOut) == (sum(sizes[:count]),) * 2
        assert connection._lastProgress() == pytest.approx(5.0 * count, abs=1)


@pytest.mark.parametrize("maker", [line, dns])
def test_aTurnIsBounded(maker: IStreamProtocolMaker) -> None:
    """The smaller the messages, the less a read takes; long ones, more again."""
    link, overheard = overhear(maker)
    reads = overheard.reads
    tiny = (b"\0\0" if maker is dns else b"x\n") * 65536
    longer = (framed(b"y" * 298) if maker is dns else b"y" * 299 + b"\n") * 1000
    assert link.exchange(tiny + longer) == tiny + longer
    assert link.connection.messages == 66536
    assert max(reads) == 16384
    passed = list(itertools.accumulate(reads))
    ofTiny = [size for size, end in zip(reads, passed, strict=True) if 60_000 < end < len(tiny)]
    assert max(ofTiny) == SMALLEST_READ
    assert max(reads[-10:]) == 16384


@pytest.mark.parametrize("maker", [raw, line, dns])
def test_nothingAtAll(maker: IStreamProtocolMaker) -> None:
    """C6: connect and close without a byte is normal."""
    link = connect(maker)
    assert answers(link) == b""
    assert link.connection.reason is Reason.EOF
    assert link.connection.truncated == 0
