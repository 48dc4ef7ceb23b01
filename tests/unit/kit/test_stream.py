"""`echod.kit.stream`: what a coroutine writes, and how both directions end."""

from __future__ import annotations

import random
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost

from echod.connection.states import Reason, State
from echod.errors import (
    EchodError,
    StreamBusy,
    StreamClosed,
    StreamLost,
)
from echod.kit.makers import StreamMaker
from echod.kit.stream import Stream
from echod.testing import memoryLink, tcpLink
from tests.unit.kit.coroutines import bare, echo, serve, start


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


def test_facts() -> None:
    """Who is there."""
    link, stream = bare()
    assert (stream.peer.host, stream.peer.port) == ("127.0.0.1", 50000)  # type: ignore[attr-defined]  # of TCP
    assert (stream.host.host, stream.host.port) == ("127.0.0.1", 7)  # type: ignore[attr-defined]  # of TCP
    link.reset()
    link.pump()


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
