"""`echod.wire.framing`: the same blocks whatever the split, the limit exact, the cost linear."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.errors import FramingError, MessageTooLong
from echod.wire.framing import OVERHEAD, Framer, LengthPrefixed, Lines, cutting, fixed, netstring

#: One read of a connection.
CHUNK = 65536


@dataclass(frozen=True)
class Framing:
    """
    One framing under test.

    :ivar noticedAt: of a limit and a message above it, how many bytes tell that it is one.
    """

    name: str
    make: Callable[[int], Framer]
    encode: Callable[[bytes], bytes]
    noticedAt: Callable[[int, bytes], int]
    largest: int

    def __str__(self) -> str:
        return self.name


def _prefixed(width: int) -> Framing:
    return Framing(
        name=f"width {width}",
        make=lambda maxLength: LengthPrefixed(width, maxLength),
        encode=lambda payload: len(payload).to_bytes(width, "big") + payload,
        noticedAt=lambda maxLength, message: width,
        largest=min(256**width - 1, 1 << 20),
    )


LINES = Framing(
    name="lines",
    make=Lines,
    encode=lambda payload: payload.replace(b"\n", b"\r") + b"\n",
    noticedAt=lambda maxLength, message: maxLength + 1,
    largest=1 << 20,
)
NETSTRINGS = Framing(
    name="netstring",
    make=netstring,
    encode=lambda payload: b"%d:%b," % (len(payload), payload),
    # Its length, and the colon after it.
    noticedAt=lambda maxLength, message: message.index(b":") + 1,
    largest=1 << 20,
)
FRAMINGS = [LINES, NETSTRINGS, *map(_prefixed, (1, 2, 4))]
everyFraming = pytest.mark.parametrize("framing", FRAMINGS, ids=str)


def split(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """``stream`` in pieces, cut at each of ``cuts``; two equal cuts make an empty piece."""
    edges = [0, *sorted(cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def endsOf(messages: Sequence[bytes]) -> list[int]:
    """Where in the stream each of the encoded ``messages`` ends, 0 first."""
    return list(itertools.accumulate(map(len, messages), initial=0))


def checkWhole(framer: Framer, messages: Sequence[bytes], pieces: Iterable[bytes]) -> None:
    """After each piece the framer has returned just the messages that are whole by then."""
    stream, ends = b"".join(messages), endsOf(messages)
    fed, returned = 0, b""
    for piece in pieces:
        fed += len(piece)
        block = framer.feed(piece)
        assert type(block) is bytes
        returned += block
        whole = max(end for end in ends if end <= fed)
        assert returned == stream[:whole]
        assert framer.messages == ends.index(whole)
        assert framer.pending == fed - whole
    assert returned == stream


def checkTooLong(
    framing: Framing, maxLength: int, before: Sequence[bytes], long: bytes, pieces: Iterable[bytes]
) -> None:
    """The fault is raised by the first piece that shows it, with all that was whole before."""
    stream = b"".join(before)
    shown = len(stream) + framing.noticedAt(maxLength, long)
    framer = framing.make(maxLength)
    fed, returned = 0, b""
    for piece in pieces:
        fed += len(piece)
        if fed < shown:
            returned += framer.feed(piece)
            continue
        with pytest.raises(MessageTooLong) as caught:
            framer.feed(piece)
        assert type(caught.value.complete) is bytes
        assert returned + caught.value.complete == stream
        assert framer.messages == len(before)
        assert str(maxLength) in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    raise AssertionError(f"{long[:20]!r} was never fed")


def splits(stream: bytes, most: int = 3) -> Iterator[list[bytes]]:
    """Every way to cut ``stream`` into up to ``most`` pieces, and into single bytes."""
    for count in range(most):
        for cuts in itertools.combinations(range(len(stream) + 1), count):
            yield split(stream, cuts)
    yield [stream[at : at + 1] for at in range(len(stream))]


# -- The same, whatever the split -----------------------------------------------------------

cutsOf = st.lists(st.floats(0, 1), max_size=12)
payloads = st.lists(
    st.one_of(st.just(b""), st.binary(max_size=12), st.binary(min_size=200, max_size=255)),
    max_size=12,
)


@given(payloads=payloads, cuts=cutsOf, rest=st.integers(0, 3))
def test_anySplitGivesWholeMessages(payloads: list[bytes], cuts: list[float], rest: int) -> None:
    """F3, F4: any split of any messages, and an unfinished one after them."""
    # pytest-twisted wraps a hypothesis test once more for each of its parameters: no parameters.
    for framing in FRAMINGS:
        messages = [framing.encode(payload) for payload in payloads]
        stream = b"".join(messages)
        framer = framing.make(255)
        checkWhole(framer, messages, split(stream, (round(cut * len(stream)) for cut in cuts)))
        assert framer.messages == len(messages)
        # A length of 128 is promised, or a line without its end.
        unfinished = framing.encode(b"x" * 128)[:rest]
        assert framer.feed(unfinished) == b""
        assert framer.pending == rest
        assert framer.messages == len(messages)


@given(payloads=payloads, cuts=cutsOf)
def test_anySplitGivesTheSameAsOnePiece(payloads: list[bytes], cuts: list[float]) -> None:
    """F3: joined blocks and count are those of one piece."""
    for framing in FRAMINGS:
        stream = b"".join(map(framing.encode, payloads))
        whole = framing.make(255)
        block = whole.feed(stream)
        framer = framing.make(255)
        pieces = split(stream, (round(cut * len(stream)) for cut in cuts))
        assert b"".join(map(framer.feed, pieces)) == block == stream
        assert framer.messages == whole.messages == len(payloads)
        assert framer.pending == whole.pending == 0


@given(
    payloads=st.lists(st.binary(max_size=10), max_size=8),
    excess=st.integers(1, 20),
    after=st.binary(max_size=30),
    cuts=cutsOf,
)
def test_anySplitGivesAllBeforeTheFault(
    payloads: list[bytes], excess: int, after: bytes, cuts: list[float]
) -> None:
    """F10: whatever the split, what was whole before the long message is returned."""
    for framing in FRAMINGS:
        before = [framing.encode(payload) for payload in payloads]
        long = framing.encode(b"x" * (10 + excess))
        stream = b"".join([*before, long, after])
        pieces = split(stream, (round(cut * len(stream)) for cut in cuts))
        checkTooLong(framing, 10, before, long, pieces)


SMALL = [
    [b""],
    [b"a"],
    [b"", b""],
    [b"a", b"", b"bc"],
    [b"", b"", b"", b"abc"],
    [b"\r", b"ab\r", b"\r\r"],
    [b"\0", b"\0\0", b"", b"\0\1"],
]


@everyFraming
def test_everySplitOfSmallExamples(framing: Framing) -> None:
    """F3, F4: every split position and every pair of them, inside the length too."""
    for payloads in SMALL:
        messages = [framing.encode(payload) for payload in payloads]
        for pieces in splits(b"".join(messages)):
            checkWhole(framing.make(255), messages, pieces)


@everyFraming
def test_emptyPieces(framing: Framing) -> None:
    """No bytes change nothing, wherever they come."""
    messages = [framing.encode(payload) for payload in (b"", b"ab", b"")]
    framer = framing.make(2)
    assert framer.feed(b"") == b""
    assert (framer.messages, framer.pending) == (0, 0)
    checkWhole(
        framer,
        messages,
        [piece for byte in b"".join(messages) for piece in (b"", bytes([byte]), b"")],
    )


@everyFraming
def test_aThousandInOnePiece(framing: Framing) -> None:
    """F4: 1 000 pipelined messages are one block."""
    stream = b"".join(framing.encode(b"%d" % number) for number in range(1000))
    framer = framing.make(16)
    assert framer.feed(stream) == stream
    assert framer.messages == 1000
    assert framer.pending == 0


@pytest.mark.parametrize("width", [1, 2, 4])
def test_lengthsAreBigEndianAndDoNotCountThemselves(width: int) -> None:
    """F1: for two bytes, RFC 1035 section 4.2.2."""
    one = b"\0" * (width - 1) + b"\1"
    framer = LengthPrefixed(width, 255)
    assert framer.feed(one) == b""
    assert framer.feed(b"x" + one) == one + b"x"
    assert framer.pending == width
    if width > 1:
        wide = LengthPrefixed(width, 1000)
        length = b"\0" * (width - 2) + b"\1\2"
        assert wide.feed(length + b"x" * 257) == b""
        assert wide.feed(b"y") == length + b"x" * 257 + b"y"


@pytest.mark.parametrize("width", [1, 2, 4])
def test_zeroLengthMessages(width: int) -> None:
    """F1: a length of 0 is a message of 0 bytes, also with a limit of 0 and byte by byte."""
    stream = bytes(width) * 5
    for pieces in splits(stream):
        framer = LengthPrefixed(width, 0)
        checkWhole(framer, [bytes(width)] * 5, pieces)
        assert framer.messages == 5


def test_emptyLines() -> None:
    r"""``\n`` alone is a message of 0 bytes, also with a limit of 0."""
    for pieces in splits(b"\n" * 5):
        framer = Lines(0)
        checkWhole(framer, [b"\n"] * 5, pieces)
        assert framer.messages == 5
    with pytest.raises(MessageTooLong):
        Lines(0).feed(b"\r\n")


def test_linesKeepTheirBytes() -> None:
    r"""Split at ``\n`` alone; ``\r`` and all other bytes are kept."""
    framer = Lines(300)
    everything = bytes(range(256)).replace(b"\n", b"")
    assert framer.feed(b"a\r\nb\rc\n\r\n" + everything) == b"a\r\nb\rc\n\r\n"
    assert framer.messages == 3
    assert framer.pending == 255
    assert framer.feed(b"\r") == b""
    assert framer.feed(b"\n") == everything + b"\r\n"


# -- The limit ------------------------------------------------------------------------------


@everyFraming
@pytest.mark.parametrize("maxLength", [0, 1, 2, 3, 5, 16])
def test_atTheLimitAtEverySplit(framing: Framing, maxLength: int) -> None:
    """F10: max-1 and max pass, max+1 does not, wherever the split is."""
    after = framing.encode(b"")
    for payloads in ([], [b""], [b"", b"", b""], [b"\r", b""]):
        before = [framing.encode(payload) for payload in payloads if len(payload) <= maxLength]
        for length in range(max(0, maxLength - 1), maxLength + 1):
            # A line's own \r counts; Twisted takes it for a part of the delimiter.
            for payload in (b"x" * length, b"x" * (length - 1) + b"\r" * (length > 0)):
                messages = [*before, framing.encode(payload), after]
                for pieces in splits(b"".join(messages)):
                    checkWhole(framing.make(maxLength), messages, pieces)
        for payload in (b"x" * (maxLength + 1), b"x" * maxLength + b"\r", b"x" * (maxLength + 9)):
            long = framing.encode(payload)
            for pieces in splits(b"".join([*before, long, after])):
                checkTooLong(framing, maxLength, before, long, pieces)


@pytest.mark.parametrize("maxLength", [254, 255])
def test_largestOneByteLength(maxLength: int) -> None:
    """F10: for a width of one byte, 255 passes where it may."""
    framing = _prefixed(1)
    message = framing.encode(b"x" * 255)
    for at in range(len(message) + 1):
        pieces = split(message, [at])
        if maxLength == 255:
            checkWhole(framing.make(maxLength), [message], pieces)
        else:
            checkTooLong(framing, maxLength, [], message, pieces)


def test_largestDNSMessage() -> None:
    """F10: 65 535 bytes pass, between others, split anywhere."""
    framing = _prefixed(2)
    messages = [framing.encode(payload) for payload in (b"a", b"x" * 65535, b"", b"b")]
    size = len(b"".join(messages))
    for at in {*range(12), *range(12, size, 4999), *range(size - 12, size)}:
        checkWhole(framing.make(65535), messages, split(b"".join(messages), [at]))
    for at in (0, 3, 4, 5):
        pieces = split(b"".join(messages), [at])
        checkTooLong(framing, 65534, messages[:1], messages[1], pieces)


@pytest.mark.parametrize("maxLength", [1, 7, 100])
def test_longLineAmongManyShortOnes(maxLength: int) -> None:
    """F10: the hops over short lines neither miss a long one nor blame a short one."""
    shorts = [b"\n", b"x" * maxLength + b"\n", b"x" * (maxLength // 2) + b"\n"]
    for pattern in itertools.product(shorts, repeat=4):
        long = b"y" * (maxLength + 1) + b"\n"
        whole = Lines(maxLength)
        assert whole.feed(b"".join(pattern) * 3) == b"".join(pattern) * 3
        for place in range(5):
            before = pattern[:place]
            stream = b"".join([*before, long, *pattern[place:]])
            checkTooLong(LINES, maxLength, before, long, [stream])
            # Without its end it is too long all the same.
            unended = b"".join([*before, long[:-1]])
            checkTooLong(LINES, maxLength, before, long, [unended])


@everyFraming
def test_theFaultIsRaisedBeforeTheMessageIsHeld(framing: Framing) -> None:
    """C5: a long message is refused when it shows, not once it is in memory."""
    framer = framing.make(100)
    long = framing.encode(b"x" * 255)
    shown = framing.noticedAt(100, long)
    for byte in long[: shown - 1]:
        assert framer.feed(bytes([byte])) == b""
    with pytest.raises(FramingError) as caught:
        framer.feed(long[shown - 1 : shown])
    assert isinstance(caught.value, MessageTooLong)
    assert framer.pending <= 100
    assert caught.value.complete == b""


def test_pendingCountsTheFraming() -> None:
    """`Framer.pending`: the bytes of the message that is incomplete, its length included."""
    framer = LengthPrefixed(2, 10)
    assert framer.pending == 0
    seen = []
    for byte in b"\0\3abc\0\0\0":
        framer.feed(bytes([byte]))
        seen.append(framer.pending)
    assert seen == [1, 2, 3, 4, 0, 1, 0, 1]
    lines = Lines(10)
    seen = []
    for byte in b"ab\r\n\nc":
        lines.feed(bytes([byte]))
        seen.append(lines.pending)
    assert seen == [1, 2, 3, 0, 0, 1]


def test_unknownWidth() -> None:
    """Lengths have 1, 2 or 4 bytes."""
    with pytest.raises(KeyError):
        LengthPrefixed(3, 10)


# -- The cost -------------------------------------------------------------------------------


def timeOf(action: Callable[[], Any]) -> float:
    """The processor time of ``action``, in seconds."""
    start = time.process_time()
    action()
    return time.process_time() - start


def cpuTime(action: Callable[[], Any], repetitions: int) -> float:
    """The least of several: what others took is not its own."""
    return min(timeOf(action) for _ in range(repetitions))


def drip(framer: Framer, count: int) -> None:
    """Feed ``count`` bytes of a message that does not end, one by one."""
    feed, byte, before = framer.feed, b"x", framer.pending
    for _ in range(count):
        feed(byte)
    assert framer.pending == before + count


@pytest.mark.parametrize(
    ("make", "head"),
    [
        (lambda: Lines(1 << 21), b""),
        (lambda: LengthPrefixed(4, 1 << 21), (1 << 21).to_bytes(4, "big")),
    ],
    ids=["lines", "width 4"],
)
def test_drippedBytesCostTheSameEach(make: Callable[[], Framer], head: bytes) -> None:
    """1 MiB byte by byte costs 16 times as much as 64 KiB, not 256 times."""

    def fed(size: int) -> Framer:
        framer = make()
        for chunk in [head, *[bytes(CHUNK)] * (size // CHUNK)]:
            assert framer.feed(chunk) == b""
        return framer

    # First a few bytes with 1 MiB waiting, so that a quadratic cost is found before it is paid.
    few = min(timeOf(partial(drip, fed(0), 1 << 12)) for _ in range(5))
    late = min(timeOf(partial(drip, fed(1 << 20), 1 << 12)) for _ in range(5))
    assert late < few * 4
    few = min(timeOf(partial(drip, fed(0), 1 << 16)) for _ in range(3))
    many = min(timeOf(partial(drip, fed(0), 1 << 20)) for _ in range(2))
    assert many < few * 16 * 4


def test_drippedFramesOfTheLargestSize() -> None:
    """Frames of 65 535 bytes, byte by byte: sixteen cost sixteen times one."""
    frame = b"\xff\xff" + b"x" * 65535
    single = [frame[at : at + 1] for at in range(len(frame))]

    def feed(times: int) -> None:
        framer = LengthPrefixed(2, 65535)
        for _ in range(times):
            for byte in single:
                framer.feed(byte)
        assert framer.messages == times

    assert cpuTime(lambda: feed(8), 2) < cpuTime(lambda: feed(1), 3) * 8 * 4


WORST: list[tuple[str, Callable[[], Framer], bytes]] = [
    ("empty lines", lambda: Lines(65536), b"\n" * CHUNK),
    ("empty lines, limit below", lambda: Lines(65535), b"\n" * CHUNK),
    ("empty lines, limit 1", lambda: Lines(1), b"\n" * CHUNK),
    ("lines of 1 byte, limit 1", lambda: Lines(1), b"x\n" * (CHUNK // 2)),
    ("hops of 1 byte and of 2, limit 1", lambda: Lines(1), b"\nx\n" * (CHUNK // 3)),
    (
        "hops of 1 byte and of 100",
        lambda: Lines(100),
        (b"\n" + b"x" * 100 + b"\n") * 642,
    ),
    ("16 KiB lines", lambda: Lines(16384), (b"x" * 16383 + b"\n") * 4),
    ("empty frames, width 2", lambda: LengthPrefixed(2, 65535), b"\0" * CHUNK),
    ("empty frames, width 4", lambda: LengthPrefixed(4, 65535), b"\0" * CHUNK),
    ("frames of 1 byte, width 2", lambda: LengthPrefixed(2, 1), b"\0\1x" * (CHUNK // 3)),
]


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer measures itself")
@pytest.mark.parametrize(("name", "make", "chunk"), WORST, ids=[name for name, _, _ in WORST])
def test_worstChunkIsCheap(name: str, make: Callable[[], Framer], chunk: bytes) -> None:
    """
    No 64 KiB, whatever is in them, cost more than a few looks at each byte.

    Twenty empty loops over as many bytes are about 20 ms on a machine of 2020; said as a ratio,
    because machines differ.  The worst needs 5 to 10 of them; who looked at each byte once for
    each message would need thousands.
    """
    framer = make()
    assert framer.feed(chunk) == chunk

    def loop() -> None:
        for _ in range(CHUNK):
            pass

    assert cpuTime(lambda: make().feed(chunk), 9) < 20 * cpuTime(loop, 9)


@pytest.mark.parametrize(
    ("make", "unit"),
    [
        (lambda: Lines(0), b"\n"),
        (lambda: Lines(1), b"\nx\n"),
        (lambda: Lines(1 << 20), b"\n"),
        (lambda: LengthPrefixed(1, 255), b"\0"),
        (lambda: LengthPrefixed(2, 255), b"\0\0"),
        (lambda: LengthPrefixed(4, 255), b"\0\0\0\0"),
    ],
    ids=["lines, limit 0", "lines, limit 1", "lines", "width 1", "width 2", "width 4"],
)
def test_tinyMessagesCostTheSameEach(make: Callable[[], Framer], unit: bytes) -> None:
    """A chunk sixteen times as long costs sixteen times as much."""
    short = unit * (16384 // len(unit))
    assert make().feed(short * 16) == short * 16
    few = cpuTime(lambda: make().feed(short), 9)
    many = cpuTime(lambda: make().feed(short * 16), 3)
    # 50 µs: below that the clock itself is what is measured.
    assert many < max(few, 50e-6) * 16 * 4


class Searched(bytes):
    """Bytes that count how often they are searched, and how many of them a search looks at."""

    searches = 0
    looked = 0

    def _count(self, start: int, end: int) -> None:
        self.searches += 1
        self.looked += max(0, min(end, len(self)) - start)

    def find(self, sub: Any, start: Any = 0, end: Any = None, /) -> int:
        found = super().find(sub, start, end)
        self._count(start, found if found >= 0 else len(self) if end is None else end)
        return found

    def rfind(self, sub: Any, start: Any = 0, end: Any = None, /) -> int:
        found = super().rfind(sub, start, end)
        self._count(max(found, start), len(self) if end is None else end)
        return found


@pytest.mark.parametrize("maxLength", [1, 2, 10, 100, 1000, 16384])
def test_linesAreSearchedALinearNumberOfTimes(maxLength: int) -> None:
    """The search looks at each byte a few times, and seldom where lines are short."""
    lengths = sorted({0, 1, maxLength // 2, maxLength - 1, maxLength})
    for pair in itertools.product(lengths, repeat=2):
        unit = b"".join(b"x" * length + b"\n" for length in pair)
        data = Searched(unit * (CHUNK // len(unit) + 1))
        assert Lines(maxLength).feed(data) == data
        assert 0 < data.looked < 4 * len(data)
        # Two hops pass more than a limit; and the first line's end, the last one's, the rest.
        assert data.searches <= 2 * len(data) // maxLength + 4


# -- Messages one by one, and framings of one's own ----------------------------------------------


@given(payloads=payloads)
def test_splitAndWrap(payloads: list[bytes]) -> None:
    """What split takes out of a block, wrap puts back: byte for byte what was sent."""
    for framing in FRAMINGS:
        framer = framing.make(1 << 20)
        fitting = [payload[: framing.largest] for payload in payloads]
        messages = [framing.encode(payload) for payload in fitting]
        block = framer.feed(b"".join(messages))
        found = list(framer.split(block))
        assert [message for _, message in found] == messages
        assert b"".join(framer.wrap(*pair) for pair in found) == block
        if framing is not LINES:
            assert [payload for payload, _ in found] == fitting


def test_linesAreWrappedAsTheyCame() -> None:
    """A payload is a line without its end; an answer ends as its line did."""
    framer = Lines(10)
    found = list(framer.split(b"a\r\nb\n\r\n\n\rc\r\r\n"))
    assert [payload for payload, _ in found] == [b"a", b"b", b"", b"", b"\rc\r"]
    assert [framer.wrap(b"x", message) for _, message in found] == [
        *(b"x\r\n", b"x\n", b"x\r\n", b"x\n", b"x\r\n")
    ]


def test_wrapRefuses() -> None:
    """What the framing has no place for."""
    assert LengthPrefixed(1, 255).wrap(bytes(255), b"") == b"\xff" + bytes(255)
    with pytest.raises(ValueError, match="256 bytes do not fit a length of 1"):
        LengthPrefixed(1, 255).wrap(bytes(256), b"")
    with pytest.raises(ValueError, match="an answer of 2 bytes where each has 3"):
        fixed(3)(3).wrap(b"ab", b"")
    with pytest.raises(ValueError, match="messages of 0 bytes have no boundaries"):
        fixed(0)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"hello,", "is no length"),
        (b"-1:,", "is no length"),
        (b"05:hello,", "is no length"),
        (b"00:,", "is no length"),
        (b":,", "there is no length before a colon"),
        (b"5:hello;", "there is no comma after a netstring"),
        (b"12345678901", "there is no colon in"),
        (b" 5:hello,", "is no length"),
        ("\N{ARABIC-INDIC DIGIT FIVE}:hello,".encode(), "is no length"),
    ],
)
def test_noNetstring(bad: bytes, why: str) -> None:
    """What is no netstring raises at the first byte that says so; the whole ones before it stay."""
    for step in (1, 2, 100):
        framer = netstring(100)
        data = b"3:abc,0:," + bad
        whole, error = b"", None
        for at in range(0, len(data), step):
            try:
                whole += framer.feed(data[at : at + step])
            except FramingError as raised:
                whole, error = whole + raised.complete, raised
                break
        assert why in str(error)
        assert whole == b"3:abc,0:,"
        assert framer.messages == 2


def test_fixed() -> None:
    """Messages of one size, at every split; what is above the maximum is told at once."""
    data = bytes(range(10))
    for step in range(1, 11):
        framer = fixed(3)(3)
        blocks = [framer.feed(data[at : at + step]) for at in range(0, 10, step)]
        assert b"".join(blocks) == data[:9]
        assert (framer.pending, framer.messages) == (1, 3)
    with pytest.raises(MessageTooLong):
        fixed(4)(3).feed(b"x")


def test_cutThatNeverTells() -> None:
    """A function that cannot tell the end is given a maximum and a little more, then it is over."""
    framer = cutting(lambda data, start: None, bytes)(100)
    framer.feed(bytes(100 + OVERHEAD))
    with pytest.raises(MessageTooLong):
        framer.feed(b"x")


@pytest.mark.parametrize("found", [(0, 0, 0), (1, 0, 2), (0, 3, 2), (-1, 0, 1)])
def test_cutThatGoesNowhere(found: tuple[int, int, int]) -> None:
    """A function that answers nonsense ends the connection, not the daemon's turn."""
    with pytest.raises(FramingError, match="no message can be at"):
        cutting(lambda data, start: found, bytes)(100).feed(b"abc")


def test_cutIsAskedOnlyWhenItMatters() -> None:
    """A message whose end is known is not looked at again before it is all there."""
    asked = 0

    def cut(data: bytes | bytearray, start: int) -> tuple[int, int, int]:
        nonlocal asked
        asked += 1
        return start, start + 5000, start + 5000

    framer = cutting(cut, bytes)(5000)
    for _ in range(3 * 5000):
        framer.feed(b"x")
    assert framer.messages == 3
    assert asked == 6
