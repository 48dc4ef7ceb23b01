"""`echod.kit.coroutine`: a coroutine on a connection, and the end of either."""

from __future__ import annotations

import random
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from echod.config.limits import Limits
from echod.connection.states import Reason, State
from echod.errors import (
    StreamLost,
)
from echod.kit.makers import StreamMaker
from echod.kit.stream import Stream
from echod.testing import memoryLink, tcpLink
from tests.conftest import LoggedErrors
from tests.unit.kit.coroutines import bare, echo, serve


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
