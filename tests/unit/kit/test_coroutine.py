"""`echod.kit.coroutine`: what a coroutine is given, and what its peer sees."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost

from echod.config.settings import Limits
from echod.connection.states import Reason, State
from echod.errors import (
    EchodError,
    IncompleteRead,
    LimitExceeded,
    StreamBusy,
    StreamClosed,
    StreamLost,
)
from echod.kit.coroutine import READS, Stream, StreamConnection
from echod.kit.makers import StreamMaker
from echod.testing import Link, memoryLink, tcpLink
from tests.conftest import LoggedErrors

Handler = Callable[[Stream], Coroutine[Any, Any, object]]


def serve(handler: Handler, *, limit: int = 65536, make: Any = memoryLink, **keywords: Any) -> Link:
    maker = StreamMaker("test", "a test", handler, limit=limit)
    return make(maker.makeFactory(None).buildProtocol(None), **keywords)  # type: ignore[no-any-return,arg-type]  # memoryLink or tcpLink; no address


def streamOf(link: Link) -> Stream:
    assert isinstance(link.connection, StreamConnection)
    return link.connection.stream


def sendEach(link: Link, data: bytes, step: int = 1) -> None:
    for at in range(0, len(data), step):
        assert link.send(data[at : at + step])
        link.pump()


def bare(**keywords: Any) -> tuple[Link, Stream]:
    """A stream that no handler uses: the test does."""
    link = memoryLink(StreamConnection(), **keywords)
    return link, streamOf(link)


def start(coroutine: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run it; its result, or what it raised, is in the list as soon as there is one."""
    results: list[Any] = []
    waiting = Deferred.fromCoroutine(coroutine)
    waiting.addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


# -- Reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [memoryLink, tcpLink], ids=["memory", "tcp"])
@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 300_000])
def test_echo(make: Any, size: int) -> None:
    """E1: a coroutine's echo of every size, then EOF, then gone."""
    data = random.Random(size).randbytes(size)
    link = serve(echo, make=make)
    assert link.exchange(data) == data
    link.advance(0.5)
    assert link.gone
    assert (link.connection.state, link.connection.reason) == (State.CLOSED, Reason.EOF)
    link.close()


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
    stream._buffer = Counting()
    results = start(stream.readUntil(b"\r\n"))
    size = 20_000
    sendEach(link, b"x" * size + b"\r\n")
    assert results == [b"x" * size + b"\r\n"]
    assert Counting.searched <= 3 * size
    link.reset()
    link.pump()


# -- Backpressure ------------------------------------------------------------------------------


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


def test_writeReturnsWhenThereIsRoom() -> None:
    """C5: ``write`` waits for a peer that does not read; what is held is bounded."""
    written = 0

    async def handler(stream: Stream) -> None:
        nonlocal written
        while True:
            await stream.write(bytes(10_000))
            written += 10_000

    link = serve(handler, sendBuffer=4096, receiveBuffer=4096)
    link.pump()
    assert 65536 <= link.connection.transport.unsent() <= 65536 + 4096 + 10_000
    first = written
    assert first <= 2 * 65536
    link.pump()
    assert written == first
    assert link.receive(100_000)
    link.pump()
    assert link.receive(100_000)
    got = 0
    while got < 65536:
        link.pump()
        got += len(link.receive() or b"")
    link.pump()
    assert written > first
    link.reset()
    link.pump()
    link.advance(1.5)


def test_largeWrite() -> None:
    """One write of any size is sent in pieces, as the peer reads."""
    data = random.Random(2).randbytes(2_000_000)

    async def handler(stream: Stream) -> None:
        await stream.write(bytearray(data[:1_000_000]))
        await stream.write(memoryview(data)[1_000_000:])

    link = serve(handler, sendBuffer=4096, receiveBuffer=4096)
    link.pump()
    assert link.connection.transport.unsent() <= 3 * 65536
    assert link.readAll() == data
    link.finish()
    link.pump()
    assert link.gone


def test_oneWriteAtATime() -> None:
    link, stream = bare(sendBuffer=4096, receiveBuffer=4096)
    first = start(stream.write(bytes(200_000)))
    for ask in (stream.write(b"x"), stream.writeEOF()):
        (error,) = start(ask)
        assert isinstance(error, StreamBusy)
    assert first == []
    got = 0
    while got < 200_000:
        link.pump()
        got += len(link.receive() or b"")
    assert first == [None]
    assert got == 200_000
    link.reset()
    link.pump()


# -- Ends ----------------------------------------------------------------------------------------


def test_returnsBeforeItsPeerEnds() -> None:
    """C2: what was written, FIN; what still comes is thrown away, and destroys nothing."""

    async def handler(stream: Stream) -> None:
        await stream.write(b"bye")

    link = serve(handler)
    link.send(b"unread")
    assert link.readAll() == b"bye"
    assert link.connection.state is State.LINGERING
    link.send(b"more")
    link.pump()
    link.finish()
    link.pump()
    assert link.gone
    assert link.connection.reason is Reason.QUIT
    assert link.connection.discarded == 10


def test_writeEOF() -> None:
    """Each direction ends on its own: after our FIN, the peer's bytes still come."""
    got: list[Any] = []

    async def handler(stream: Stream) -> None:
        await stream.write(b"mine")
        await stream.writeEOF()
        got.append("FIN")
        while data := await stream.read():
            got.append(data)
        with pytest.raises(StreamClosed):
            await stream.write(b"x")
        with pytest.raises(StreamClosed):
            await stream.writeEOF()

    for make in (memoryLink, tcpLink):
        got.clear()
        link = serve(handler, make=make)
        assert link.readAll() == b"mine"
        assert got == ["FIN"]
        link.send(b"yours")
        link.pump(lambda: len(got) > 1)
        assert link.connection.state is State.OPEN
        link.finish()
        link.pump()
        link.advance(0.5)
        assert got == ["FIN", b"yours"]
        assert link.gone
        assert link.connection.reason is Reason.EOF
        link.close()


def test_writeEOFWithABacklog() -> None:
    """FIN follows what the peer has not read yet; meanwhile its bytes are read."""
    got: list[Any] = []

    async def handler(stream: Stream) -> None:
        await stream.write(bytes(65536 + 8192))
        await stream.writeEOF()
        got.append("FIN")
        async for data in stream:
            got.append(data)  # noqa: PERF401  # this is what is tested

    link = serve(handler, sendBuffer=4096, receiveBuffer=4096)
    link.pump()
    assert got == []
    assert link.receive(8192)
    link.pump()
    link.send(b"early")
    link.pump()
    assert len(link.readAll()) == 65536 + 8192 - 4096
    assert got == ["FIN", b"early"]
    link.finish()
    link.pump()
    assert link.gone


def test_closeTwice() -> None:
    link, stream = bare()
    stream.close()
    stream.close()
    (error,) = start(stream.write(b"x"))
    assert isinstance(error, StreamClosed)
    assert start(stream.read()) == [b""]
    closed = start(stream.waitClosed())
    assert link.readAll() == b""
    assert closed == []
    link.finish()
    link.pump()
    assert closed == [None]
    assert start(stream.waitClosed()) == [None]


def test_closeDuringARead() -> None:
    """Whoever reads is not left waiting."""
    link, stream = bare()
    results = start(stream.read())
    stream.close()
    assert results == [b""]
    link.finish()
    link.pump()
    assert link.gone


def test_abort() -> None:
    link, stream = bare()
    start(stream.write(b"lost"))
    stream.abort()
    link.pump()
    with pytest.raises(ConnectionResetError):
        link.readAll()
    assert link.gone
    (error,) = start(stream.write(b"x"))
    assert isinstance(error, StreamLost)


def test_contextManager() -> None:
    """It is closed at the end of the block, and that is waited for; after an exception aborted."""
    link, stream = bare()

    async def use() -> str:
        async with stream:
            await stream.write(b"hello")
        return "closed"

    results = start(use())
    assert link.readAll() == b"hello"
    assert results == []
    link.finish()
    link.pump()
    assert results == ["closed"]

    link, stream = bare()

    async def fail() -> None:
        async with stream:
            raise KeyError("x")

    results = start(fail())
    link.pump()
    assert isinstance(results[0], KeyError)
    with pytest.raises(ConnectionResetError):
        link.readAll()


def test_lost() -> None:
    """RST: what waits raises, with the cause; what had come can still be read, then it raises."""
    link, stream = bare(sendBuffer=4096, receiveBuffer=4096)
    link.send(b"abc")
    link.pump()
    reading = start(stream.readExactly(10))
    writing = start(stream.write(bytes(200_000)))
    closed = start(stream.waitClosed())
    link.reset()
    link.pump()
    for (error,) in (reading, writing):
        assert isinstance(error, StreamLost)
        assert isinstance(error, EchodError)
        assert isinstance(error.__cause__, ConnectionLost)
    assert closed == [None]
    assert start(stream.readExactly(2)) == [b"ab"]
    assert start(stream.read()) == [b"c"]
    for ask in (stream.read(), stream.write(b"x"), stream.writeEOF()):
        (error,) = start(ask)
        assert isinstance(error, (StreamLost, StreamClosed))


def test_lostDuringWriteEOF() -> None:
    link, stream = bare(sendBuffer=4096, receiveBuffer=4096)
    assert start(stream.write(bytes(60_000))) == [None]
    link.pump()
    ending = start(stream.writeEOF())
    assert ending == []
    link.reset()
    link.pump()
    (error,) = ending
    assert isinstance(error, StreamLost)


# -- The handler's end -----------------------------------------------------------------------------


@pytest.mark.parametrize("waits", ["read", "write", "else"])
def test_lossEndsTheHandler(waits: str) -> None:
    """Losing the connection ends the coroutine at once, with its ``finally`` blocks run."""
    never: Deferred[None] = Deferred()
    seen: list[object] = []

    async def handler(stream: Stream) -> None:
        try:
            if waits == "read":
                await stream.read()
            elif waits == "write":
                await stream.write(bytes(1_000_000))
            else:
                await never
        except BaseException as error:
            seen.append(type(error))
            raise
        finally:
            seen.append("finally")

    link = serve(handler, sendBuffer=4096, receiveBuffer=4096)
    link.pump()
    link.reset()
    link.pump()
    link.advance(1.5)
    assert link.gone
    assert seen == [CancelledError if waits == "else" else StreamLost, "finally"]
    assert link.connection.reason is Reason.RESET


def test_cleanEndCancelsNobody() -> None:
    """After both FINs the handler may go on with what it has to do besides."""
    later: Deferred[str] = Deferred()
    seen = []

    async def handler(stream: Stream) -> None:
        await stream.writeEOF()
        await stream.read()
        seen.append(await later)

    link = serve(handler)
    link.finish()
    assert link.readAll() == b""
    assert link.gone
    later.callback("done")
    assert seen == ["done"]


def test_handlerRaises(loggedErrors: LoggedErrors) -> None:
    """A fault of the handler costs its connection, and is logged with its name."""

    async def faulty(stream: Stream) -> None:
        await stream.read()
        raise KeyError("mine")

    link = serve(faulty)
    link.send(b"x")
    link.pump()
    with pytest.raises(ConnectionResetError):
        link.readAll()
    assert link.connection.reason is Reason.ERROR
    (line,) = loggedErrors.flush()
    assert "faulty raised; its connection is aborted" in line
    assert "mine" in line


def test_peersFaultIsNotLogged() -> None:
    """What the peer did wrong ends the connection without a traceback, and is counted."""

    async def handler(stream: Stream) -> None:
        while True:
            await stream.write(await stream.readUntil(b"\n", 10))

    link = serve(handler)
    link.send(b"one\ncut")
    link.finish()
    assert link.readAll() == b"one\n"
    assert (link.connection.truncated, link.connection.reason) == (1, Reason.EOF)

    link = serve(handler)
    link.send(b"one\n")
    link.finish()
    assert link.readAll() == b"one\n"
    assert (link.connection.truncated, link.connection.reason) == (0, Reason.EOF)

    link = serve(handler)
    link.send(b"one\n0123456789\ntwo\n")
    assert link.readAll() == b"one\n"
    assert link.connection.reason is Reason.TOO_LONG
    link.finish()
    link.pump()
    assert link.gone


def test_noCoroutine() -> None:
    """What is no coroutine function is refused where it is written."""

    def plain(stream: Stream) -> None: ...

    class Callable_:
        async def __call__(self, stream: Stream) -> None:
            await echo(stream)

    with pytest.raises(TypeError, match="is no coroutine function; write it with async def"):
        StreamMaker("test", "a test", plain)
    assert serve(Callable_()).exchange(b"x") == b"x"


# -- What the daemon does --------------------------------------------------------------------------


def test_drain() -> None:
    """O1: what the kernel held is read and answered; then the coroutine sees EOF, the peer FIN."""
    seen = []

    async def handler(stream: Stream) -> None:
        while data := await stream.read():
            seen.append(data)
            await stream.write(data)
        seen.append(b"EOF")
        await stream.write(b"bye")

    link = serve(handler)
    link.send(b"before")
    link.connection.drain()
    assert link.readAll() == b"beforebye"
    assert seen == [b"before", b"EOF"]
    assert link.connection.reason is Reason.DRAIN
    link.finish()
    link.pump()
    assert link.gone


def test_drainWaitsForAnAnswer() -> None:
    """A coroutine that is at work when the daemon stops still answers."""
    work: Deferred[bytes] = Deferred()

    async def handler(stream: Stream) -> None:
        await stream.read()
        await stream.write(await work)

    link = serve(handler)
    link.send(b"ask")
    link.pump()
    link.connection.drain()
    link.pump()
    assert link.receive() is None
    work.callback(b"answer")
    assert link.readAll() == b"answer"
    link.finish()
    link.pump()
    assert link.gone
    assert link.connection.cut == 0


@pytest.mark.parametrize("how", ["eof", "drain"])
def test_answersHaveADeadline(how: str) -> None:
    """Every close path ends: an answer that never comes is waited for until the stall timeout."""
    never: Deferred[bytes] = Deferred()
    seen = []

    async def handler(stream: Stream) -> None:
        await stream.read()
        try:
            await never
        finally:
            seen.append("finally")

    link = serve(handler, limits=Limits(stallTimeout=20, lingerTimeout=5))
    link.send(b"ask")
    link.pump()
    if how == "eof":
        link.finish()
        link.pump()
    else:
        link.connection.drain()
    link.advance(15)
    assert not link.gone
    assert seen == []
    link.advance(10)
    assert link.gone
    assert seen == ["finally"]
    assert (link.connection.state, link.connection.reason) == (State.ABORTED, Reason.STALLED)
    assert link.connection.cut == 1


def test_idle() -> None:
    """F7: a coroutine that waits for input is idle, one that is at work is not."""
    work: Deferred[bytes] = Deferred()

    async def handler(stream: Stream) -> None:
        while await stream.read():
            await stream.write(await work)

    link = serve(handler, limits=Limits(idleTimeout=10))
    assert link.connection.idleSince() is not None
    link.send(b"ask")
    link.pump()
    assert link.connection.idleSince() is None
    link.advance(30)
    assert link.connection.state is State.OPEN
    work.callback(b"answer")
    link.pump()
    assert link.receive() == b"answer"
    link.advance(8)
    assert link.connection.state is State.OPEN
    link.advance(4)
    assert link.readAll() == b""
    assert link.connection.reason is Reason.IDLE
    link.finish()
    link.pump()
    assert link.gone


def test_facts() -> None:
    """Who is there."""
    link, stream = bare()
    assert (stream.peer.host, stream.peer.port) == ("127.0.0.1", 50000)  # type: ignore[attr-defined]  # of TCP
    assert (stream.host.host, stream.host.port) == ("127.0.0.1", 7)  # type: ignore[attr-defined]  # of TCP
    link.reset()
    link.pump()


# -- What was found by looking for it ----------------------------------------------------------


@pytest.mark.parametrize("make", [memoryLink, tcpLink], ids=["memory", "tcp"])
def test_deadlineOfAnswersBeginsAtFIN(make: Any) -> None:
    """However long it was silent before: a late answer has its time from the peer's FIN on."""
    late: Deferred[None] = Deferred()

    async def handler(stream: Stream) -> None:
        async for _ in stream:
            pass
        await late
        await stream.write(b"bye")

    link = serve(handler, make=make, limits=Limits(stallTimeout=60))
    link.send(b"x")
    link.pump()
    link.advance(120)
    link.finish()
    link.pump()
    link.advance(30)
    late.callback(None)
    assert link.readAll() == b"bye"
    link.advance(0.5)
    assert link.gone
    link.close()


def test_cancelledWritesDoNotPileUp() -> None:
    """C5: a write that was cancelled while it waited for room leaves the next one waiting."""
    link, stream = bare(sendBuffer=4096, receiveBuffer=4096)
    for _ in range(100):
        writing = Deferred.fromCoroutine(stream.write(bytes(65536)))
        writing.addErrback(lambda failure: None)
        writing.cancel()
    assert link.connection.transport.unsent() <= 3 * 65536
    link.reset()
    link.pump()


def test_writerIsOneOfMany() -> None:
    """A coroutine that writes without end to a peer as quick as it is lets others have a turn."""
    written = 0

    async def handler(stream: Stream) -> None:
        nonlocal written
        await stream.read()
        while written < 10_000_000:
            await stream.write(bytes(10_000))
            written += 10_000

    link = serve(handler, sendBuffer=1 << 30)
    link.send(b"x")
    before = most = 0
    while link.loop.turn():
        most = max(most, written - before)
        before = written
    assert written == 10_000_000
    assert most <= 5 * 65536
    link.reset()
    link.pump()


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


def test_lossWhileAHelperReads() -> None:
    """A handler that waits for something else is ended, though somebody reads for it."""
    seen = []

    async def handler(stream: Stream) -> None:
        helper = Deferred.fromCoroutine(stream.read())
        helper.addErrback(lambda failure: seen.append(failure.type))
        try:
            await Deferred()
        finally:
            seen.append("finally")

    link = serve(handler, limits=Limits(lingerTimeout=3))
    link.reset()
    link.pump()
    link.advance(1.5)
    assert seen == [StreamLost]
    link.loop.advance(3)
    assert seen == [StreamLost, "finally"]


def test_cleanupAfterLoss() -> None:
    """Who was told of the loss has a while for what it has to do besides."""
    cleaned: Deferred[str] = Deferred()
    seen = []

    async def handler(stream: Stream) -> None:
        await stream.waitClosed()
        seen.append(await cleaned)

    link = serve(handler)
    link.reset()
    link.pump()
    link.loop.advance(1)
    cleaned.callback("cleaned")
    assert seen == ["cleaned"]
    assert link.loop.getDelayedCalls() == link.loop.getDelayedCalls()[:1]


def test_errorOfAnotherStream(loggedErrors: LoggedErrors) -> None:
    """A proxy whose upstream is lost has not answered: that is no clean end."""
    other, upstream = bare()

    async def proxy(stream: Stream) -> None:
        await stream.write(await upstream.read())
        await stream.write(await upstream.readExactly(10))

    link = serve(proxy)
    other.send(b"half")
    other.pump()
    link.pump()
    other.reset()
    other.pump()
    link.pump()
    with pytest.raises(ConnectionResetError):
        link.readAll()
    assert link.connection.reason is Reason.ERROR
    assert len(loggedErrors.flush()) == 1


def test_exceptionInAContext(loggedErrors: LoggedErrors) -> None:
    """``async with stream`` does not hide why it was aborted."""

    async def handler(stream: Stream) -> None:
        async with stream:
            raise KeyError("mine")

    link = serve(handler)
    link.pump()
    assert link.connection.reason is Reason.ERROR
    assert len(loggedErrors.flush()) == 1


def test_busyIsAFault(loggedErrors: LoggedErrors) -> None:
    """Two reads at a time are the handler's fault, not the peer's: the log says so."""

    async def handler(stream: Stream) -> None:
        Deferred.fromCoroutine(stream.read()).addErrback(lambda failure: None)
        await stream.read()

    link = serve(handler)
    link.pump()
    assert link.connection.reason is Reason.ERROR
    assert len(loggedErrors.flush()) == 1


def test_wrongArguments() -> None:
    link, stream = bare()
    for wrong in (5, "text", None):
        (error,) = start(stream.write(wrong))  # type: ignore[arg-type]  # that is the point
        assert isinstance(error, TypeError)
    link.reset()
    link.pump()
    with pytest.raises(StreamLost):
        _ = stream.host
    with pytest.raises(ValueError, match="limit is 0; it must be 1 at least"):
        StreamMaker("x", "x", echo, limit=0)


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


def test_forgottenWaiters() -> None:
    """Who no longer waits for the end is not kept."""
    link, stream = bare()
    for _ in range(3):
        waiting = Deferred.fromCoroutine(stream.waitClosed())
        waiting.addErrback(lambda failure: None)
        waiting.cancel()
    assert stream._gone == []
    link.reset()
    link.pump()


def test_abortedIsNotOwed() -> None:
    """A handler that aborts has nothing more to answer."""

    async def handler(stream: Stream) -> None:
        await stream.read()
        stream.abort()

    link = serve(handler)
    link.send(b"x")
    link.pump()
    assert link.connection.cut == 0
    with pytest.raises(ConnectionResetError):
        link.readAll()


def test_returnsDuringADrain() -> None:
    """What it does not want to read is not owed."""

    async def handler(stream: Stream) -> None:
        await stream.readExactly(100)

    link = serve(handler, limits=Limits(lingerTimeout=3))
    link.send(bytes(5000))
    link.connection.drain()
    assert link.readAll() == b""
    link.advance(5)
    assert link.gone
    assert link.connection.cut == 0
    link.close()


def test_writeEOFWhileFull() -> None:
    """Our FIN is asked for while the peer does not read: its own bytes are read all the same."""
    got: list[Any] = []

    async def handler(stream: Stream) -> None:
        writing = Deferred.fromCoroutine(stream.write(bytes(100_000)))
        writing.addErrback(lambda failure: None)
        writing.cancel()
        ending = Deferred.fromCoroutine(stream.writeEOF())
        async for data in stream:
            got.append(data)  # noqa: PERF401  # this is what is tested
        await ending

    link = serve(handler, sendBuffer=4096, receiveBuffer=4096)
    link.pump()
    link.send(b"early")
    link.pump()
    assert got == [b"early"]
    link.finish()
    link.pump()
    assert len(link.readAll()) == 100_000
    link.advance(0.5)
    assert link.gone


def test_cleanEndDoesNotKeepACoroutine() -> None:
    """One that waits for something else is cancelled, linger_timeout after a clean end."""
    cancelled: list[str] = []
    never: Deferred[None] = Deferred(lambda _: cancelled.append("yes"))

    async def handler(stream: Stream) -> None:
        stream.close()
        await never

    link = serve(handler, limits=Limits(lingerTimeout=3))
    link.finish()
    link.pump()
    link.advance(1)
    assert link.gone
    assert link.connection.reason is not Reason.ERROR
    assert not cancelled
    link.advance(3)
    assert cancelled
