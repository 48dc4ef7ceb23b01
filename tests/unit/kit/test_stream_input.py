"""`echod.kit.stream_input`: what a coroutine reads, however it comes, and how much waits for it."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from echod.errors import (
    EchodError,
    IncompleteRead,
    LimitExceeded,
    StreamBusy,
    StreamLost,
)
from echod.kit.stream import Stream
from echod.kit.stream_input import READS
from tests.unit.kit.coroutines import bare, echo, sendEach, serve, start, streamOf


def test_eofIsEmptyBytes() -> None:
    """EOF is ``b""``, again and again; and it is not close: writing goes on."""
    link, stream = bare()
    link.send(b"last")
    link.finish()
    link.pump()
    assert start(stream.read()) == [b"last"]
    assert start(stream.read()) == [b""]
    assert start(stream.read()) == [b""]
    assert start(stream.write(b"answer")) == [None]
    stream.close()
    assert link.readAll() == b"answer"
    assert link.gone


def test_readIsBounded() -> None:
    link, stream = bare()
    link.send(b"abcdef")
    link.pump()
    assert [start(stream.read(4)), start(stream.read(4))] == [[b"abcd"], [b"ef"]]
    for limit in (0, -1):
        (error,) = start(stream.read(limit))
        assert isinstance(error, ValueError)
    link.reset()
    link.pump()


def test_readExactlyAtEverySplit() -> None:
    data = b"abcdefgh"
    for split in range(1, len(data)):
        link, stream = bare()
        results = start(stream.readExactly(5))
        link.send(data[:split])
        link.pump()
        assert results == ([b"abcde"] if split >= 5 else [])
        link.send(data[split:])
        link.pump()
        assert results == [b"abcde"]
        assert start(stream.readExactly(0)) == [b""]
        assert start(stream.readExactly(3)) == [b"fgh"]
        link.reset()
        link.pump()


def test_readUntilAtEverySplit() -> None:
    data = b"a\rb\r\n\r\ncd"
    for step in range(1, len(data)):
        link, stream = bare()
        results = start(stream.readUntil(b"\r\n"))
        sendEach(link, data, step)
        assert results == [b"a\rb\r\n"]
        assert start(stream.readUntil(b"\r\n")) == [b"\r\n"]
        assert start(stream.read()) == [b"cd"]
        link.reset()
        link.pump()


def test_incompleteRead() -> None:
    """A read that will never be satisfied raises, with what had come."""
    for ask in (lambda s: s.readExactly(10), lambda s: s.readUntil(b"\n")):
        link, stream = bare()
        link.send(b"par")
        link.pump()
        results = start(ask(stream))
        link.send(b"tial")
        link.finish()
        link.pump()
        (error,) = results
        assert isinstance(error, IncompleteRead)
        assert isinstance(error, EchodError)
        assert error.partial == b"partial"
        assert str(error) == "the peer finished after 7 bytes of what was to come"
        assert start(stream.read()) == [b""]
        stream.close()
        assert link.readAll() == b""


def test_limitExceeded() -> None:
    """What is too long raises, at the first byte too many; the bytes can still be read."""
    link, stream = bare()
    results = start(stream.readUntil(b"\n", 8))
    sendEach(link, b"1234567")
    assert results == []
    sendEach(link, b"8")
    (error,) = results
    assert isinstance(error, LimitExceeded)
    assert isinstance(error, EchodError)
    assert error.limit == 8
    sendEach(link, b"\n")
    assert start(stream.readUntil(b"\n", 9)) == [b"12345678\n"]
    link.reset()
    link.pump()


def test_sizesThatCannotBe() -> None:
    """What the buffer cannot hold is refused at once, rather than waited for."""
    link, stream = bare()
    for ask in (
        lambda: stream.readExactly(stream.limit + 1),
        lambda: stream.readExactly(-1),
        lambda: stream.readUntil(b"\n", stream.limit + 1),
        lambda: stream.readUntil(b"\r\n", 1),
        lambda: stream.readUntil(b""),
    ):
        (error,) = start(ask())
        assert isinstance(error, ValueError)
    results = start(stream.readExactly(stream.limit))
    sendEach(link, bytes(stream.limit), 4096)
    assert results == [bytes(stream.limit)]
    link.reset()
    link.pump()


@given(
    pieces=st.lists(st.binary(max_size=40).map(lambda data: data + b"\n"), max_size=12),
    steps=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    asks=st.lists(st.tuples(st.sampled_from("rxu"), st.integers(1, 40)), min_size=1),
)
def test_anyReadsOfAnyPieces(
    pieces: list[bytes], steps: list[int], asks: list[tuple[str, int]]
) -> None:
    """Whatever is asked in whatever order, the bytes are the ones sent, once and in order."""
    data = b"".join(pieces)
    got: list[bytes] = []

    async def handler(stream: Stream) -> None:
        turn = 0
        while True:
            kind, size = asks[turn % len(asks)]
            turn += 1
            try:
                if kind == "r":
                    piece = await stream.read(size)
                    assert len(piece) <= size
                    if not piece:
                        return
                elif kind == "x":
                    piece = await stream.readExactly(size)
                    assert len(piece) == size
                else:
                    piece = await stream.readUntil(b"\n")
                    assert piece.index(b"\n") == len(piece) - 1
            except IncompleteRead as error:
                got.append(error.partial)
                return
            got.append(piece)

    link = serve(handler)
    at = turn = 0
    while at < len(data):
        step = steps[turn % len(steps)]
        link.send(data[at : at + step])
        link.pump()
        at, turn = at + step, turn + 1
    link.finish()
    assert link.readAll() == b""
    assert b"".join(got) == data
    assert link.gone


def test_oneReadAtATime() -> None:
    """A second concurrent read is an error that says so; the first goes on."""
    link, stream = bare()
    first = start(stream.read())
    for ask in (stream.read(), stream.readExactly(1), stream.readUntil(b"\n")):
        (error,) = start(ask)
        assert isinstance(error, StreamBusy)
        assert str(error) == "another read is waiting; await it first"
    link.send(b"x")
    link.pump()
    assert first == [b"x"]
    link.reset()
    link.pump()


def test_cancelledReadLosesNothing() -> None:
    """Cancelling a read leaves what has come, and comes, for the next."""
    link, stream = bare()
    link.send(b"abc")
    link.pump()
    errors: list[Any] = []
    waiting = Deferred.fromCoroutine(stream.readExactly(6)).addErrback(
        lambda failure: errors.append(failure.value)
    )
    waiting.cancel()
    assert isinstance(errors[0], CancelledError)
    link.send(b"def")
    link.pump()
    assert start(stream.readExactly(6)) == [b"abcdef"]
    link.reset()
    link.pump()


def test_iteration() -> None:
    pieces = []

    async def handler(stream: Stream) -> None:
        async for data in stream:
            pieces.append(data)  # noqa: PERF401  # this is what is tested

    link = serve(handler)
    sendEach(link, b"abc")
    link.finish()
    assert link.readAll() == b""
    assert pieces == [b"a", b"b", b"c"]


def test_othersHaveTheirTurn() -> None:
    """A coroutine that has much to read, and never waits, lets others run all the same."""
    lines = 0

    async def handler(stream: Stream) -> None:
        nonlocal lines
        while True:
            await stream.readUntil(b"\n")
            lines += 1

    link = serve(handler)
    link.send(b"\n" * 20_000)
    before = 0
    most = 0
    while link.loop.turn():
        most = max(most, lines - before)
        before = lines
    assert lines == 20_000
    assert most <= 2 * READS
    link.reset()
    link.pump()


def test_dripIsLinear() -> None:
    """Byte by byte, a long message is searched and copied once, not once a byte."""

    class Counting(bytearray):
        searched = 0

        def find(self, what: Any, begin: Any = 0, end: Any = None) -> int:
            Counting.searched += len(self) - begin
            return super().find(what, begin, len(self) if end is None else end)

    link, stream = bare()
    # In place of its own: how much `find` looks at is seen nowhere else.
    stream._buffer = Counting()
    results = start(stream.readUntil(b"\r\n"))
    size = 20_000
    sendEach(link, b"x" * size + b"\r\n")
    assert results == [b"x" * size + b"\r\n"]
    assert Counting.searched <= 3 * size
    link.reset()
    link.pump()


def test_nobodyReads() -> None:
    """When nobody reads, the transport is paused: at most twice the limit is held."""

    async def handler(stream: Stream) -> None:
        await Deferred()

    for limit in (1000, 65536):
        link = serve(handler, limit=limit, sendBuffer=4096, receiveBuffer=4096)
        sent = 0
        while taken := link.send(bytes(4096)):
            sent += taken
            link.pump()
        held = len(streamOf(link)._buffer)
        assert limit <= held <= 2 * limit
        assert sent <= held + 3 * 4096
        link.reset()
        link.pump()
        link.advance(1.5)
        assert link.gone


def test_readingGoesOnWhereItPaused() -> None:
    """What waited in the peer's queues comes when it is asked for, once and in order."""
    go: Deferred[None] = Deferred()

    async def handler(stream: Stream) -> None:
        await go
        await echo(stream)

    data = random.Random(1).randbytes(300_000)
    link = serve(handler, limit=5000, sendBuffer=4096, receiveBuffer=4096)
    sent = 0
    while taken := link.send(data[sent : sent + 4096]):
        sent += taken
        link.pump()
    go.callback(None)
    view = memoryview(data)[sent:]
    got: list[Any] = []
    while view:
        view = view[link.send(view) :]
        link.pump()
        got.append(link.receive() or b"")
    link.finish()
    assert b"".join(got) + link.readAll() == data


def test_lostDuringATurnForOthers() -> None:
    """What had arrived is read although the connection is lost while others have their turn."""
    seen = 0
    errors = []

    async def handler(stream: Stream) -> None:
        nonlocal seen
        try:
            while True:
                await stream.readUntil(b"\n")
                seen += 1
        except BaseException as error:
            errors.append(type(error))
            raise

    link = serve(handler)
    link.send(b"\n" * 1000)
    link.pump(lambda: link.connection.bytesIn == 1000)
    assert seen < 1000
    link.reset()
    link.pump()
    assert seen == 1000
    assert errors == [StreamLost]


def test_waitingForMoreThanIsHeld() -> None:
    """Reading goes on for a read that needs more than there was when it paused."""
    link, stream = bare()
    stream.limit = 100
    first = start(stream.readExactly(1))
    link.send(bytes(100))
    link.pump()
    assert first == [bytes(1)]
    link.send(bytes(200))
    link.pump()
    assert start(stream.readExactly(30)) == [bytes(30)]
    for _ in range(2):
        results = start(stream.readExactly(100))
        link.pump()
        assert results == [bytes(100)]
    link.reset()
    link.pump()
