r"""
A connection as something to await: `Stream`, and `StreamConnection`, which runs a coroutine on one.

TCP is bytes without packets, in two directions that end separately, and so is a `Stream`::

    async def shout(stream):
        while data := await stream.read():      # b"" at the peer's FIN
            await stream.write(data.upper())    # returns when there is room for more

No asyncio: any coroutine under Twisted's ``Deferred.fromCoroutine`` may await these.  This room
lives on top of `echod.connection.connection`, which decides when to read and how it all ends; here
is one buffer between it and the coroutine, and the two are never further apart than its limit:
input that nobody takes stops the reading, so that the peer's window closes.

The buffer is one ``bytearray``: appended to, which grows it by a share of its size (each byte is
copied a bounded number of times), and cut at its front, which moves nothing before half of it is
gone.  A search goes on where the last one stopped.  So all costs are linear in the bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from echod.connection.connection import Connection
from echod.connection.flow import SLICE, SLICES
from echod.connection.states import Reason
from echod.errors import (
    IncompleteRead,
    LimitExceeded,
    StreamBusy,
    StreamClosed,
    StreamError,
    StreamLost,
    StreamTruncated,
)
from echod.tls.facts import TLSFacts
from echod.wire.proxy_header import ProxyHeader

__all__ = ["BUFFER", "Handler", "Stream", "StreamConnection"]

#: Bytes of input that wait for the coroutine before reading stops, if nothing else is said;
#: one read of at most as many may come on top.
BUFFER = 65536
#: Reads that a coroutine gets in one turn of the reactor without waiting for any: then others
#: have their turn, though there is more in the buffer.
READS = 128

#: What a coroutine protocol is.
Handler = Callable[["Stream"], Coroutine[Any, Any, object]]


class Stream:
    """
    Both directions of one connection, for coroutines.

    One call reads at a time, and one writes; a second one at the same time raises `StreamBusy`.
    After the connection is lost everything raises `StreamLost`, except that what had arrived can
    still be read.  Cancelling whoever waits loses nothing that has arrived.

    Use as an async context manager closes it at the end, or aborts it after an exception;
    iteration yields what `read` returns, until EOF.

    :param connection: what it is on; made by `StreamConnection`.
    :param limit: bytes of input that wait before reading stops: what ``readUntil`` and
        ``readExactly`` can ask for at most.
    """

    def __init__(self, connection: StreamConnection, limit: int = BUFFER) -> None:
        self.limit = limit
        self._connection = connection
        self._buffer = bytearray()
        # No more input will come; nor can any answer be sent.
        self._eof = False
        # Why there may have been more before EOF.
        self._cutOff: str | None = None
        self._lost: Failure | None = None
        # We have ended our direction.
        self._finished = False
        self._reading = False
        self._writing = False
        # Who waits for more input, for room, for our FIN, for the end; fired by the connection.
        self._input: Deferred[None] | None = None
        self._output: Deferred[None] | None = None
        self._gone: list[Deferred[None]] = []
        # Reads, and bytes written, since others had their turn.
        self._reads = 0
        self._written = 0
        #: The last error that was raised because of the peer.
        self.error: StreamError | None = None

    @property
    def peer(self) -> IAddress:
        """The other end's address."""
        return self._connection.transport.getPeer()

    @property
    def host(self) -> IAddress:
        """
        Our end's address.

        :raises StreamLost: the connection is gone, and nobody remembers.
        """
        if self._lost:
            raise StreamLost("the connection is lost") from self._lost.value
        return self._connection.transport.getHost()

    @property
    def credentials(self) -> tuple[int, int, int] | None:
        """Process, user and group of the peer over a UNIX socket; ``None`` over a network."""
        return self._connection.transport.credentials

    @property
    def tls(self) -> TLSFacts | None:
        """What TLS has agreed on, and who the peer is; ``None`` without TLS."""
        return self._connection.transport.tls  # type: ignore[no-any-return]  # an attribute

    @property
    def proxied(self) -> ProxyHeader | None:
        """The PROXY header that the connection came with, if it did."""
        return self._connection.transport.proxied  # type: ignore[no-any-return]  # an attribute

    @property
    def proxyPeer(self) -> IAddress | None:
        """The proxy's address, where there must be one."""
        return self._connection.transport.proxyPeer

    @property
    def layers(self) -> dict[str, Any]:
        """
        What TLS and the PROXY header have told, by the layer's name: ``tls``, ``proxy``.

        For those who write JSON of it; `tls` and `proxied` have the same as values.
        """
        return self._connection.transport.facts()

    # -- Reading ---------------------------------------------------------------------------

    async def read(self, limit: int = BUFFER) -> bytes:
        """
        Whatever has come, at least one byte; ``b""`` after the peer's FIN.

        :param limit: bytes at most.
        :raises StreamLost: the connection was reset.
        :raises StreamTruncated: TLS failed, or ended without close_notify.
        """
        _checkSize("limit", limit, 1)
        self._beginRead()
        try:
            while not self._buffer:
                if not await self._more():
                    return b""
            return await self._take(min(limit, len(self._buffer)))
        finally:
            self._reading = False

    async def readExactly(self, size: int) -> bytes:
        """
        Just so many bytes.

        :raises IncompleteRead: the peer finished before; its ``partial`` is what had come.
        :raises StreamLost: the connection was reset.
        :raises ValueError: ``size`` is above the stream's limit; read it in pieces.
        """
        _checkSize("size", size, 0, self.limit)
        self._beginRead()
        try:
            while len(self._buffer) < size:
                if not await self._more():
                    raise self._fail(IncompleteRead(await self._take(len(self._buffer))))
            return await self._take(size)
        finally:
            self._reading = False

    async def readUntil(self, delimiter: bytes, limit: int | None = None) -> bytes:
        r"""
        Everything up to and including the next ``delimiter``: a line, with ``b"\n"``.

        :param limit: bytes at most, the delimiter counted; the stream's own if not given.
        :raises LimitExceeded: there is none within the limit.
        :raises IncompleteRead: the peer finished before; its ``partial`` is what had come.
        :raises StreamLost: the connection was reset.
        """
        if not delimiter:
            raise ValueError("a delimiter has at least one byte")
        most = self.limit if limit is None else limit
        _checkSize("limit", most, len(delimiter), self.limit)
        self._beginRead()
        try:
            searched = 0
            while (at := self._buffer.find(delimiter, searched, most)) < 0:
                if len(self._buffer) >= most:
                    raise self._fail(LimitExceeded(most))
                searched = max(0, len(self._buffer) - len(delimiter) + 1)
                if not await self._more():
                    raise self._fail(IncompleteRead(await self._take(len(self._buffer))))
            return await self._take(at + len(delimiter))
        finally:
            self._reading = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self.read()
        if not data:
            raise StopAsyncIteration
        return data

    # -- Writing ---------------------------------------------------------------------------

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """
        Send ``data``; returns when there is room for more, so that a slow reader slows us down.

        :raises StreamLost: the connection is gone.
        :raises StreamClosed: we have ended our direction.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"{data!r} is not bytes")
        if self._writing:
            raise StreamBusy("another write is waiting; await it first")
        self._checkOutput()
        self._writing = True
        connection = self._connection
        try:
            data = bytes(data)
            # An earlier write may have been cancelled while it waited.
            if connection.outputFull():
                await self._room()
            for start in range(0, len(data), SLICE):
                piece = data[start : start + SLICE]
                connection.reply(piece)
                connection.progressed()
                self._written += len(piece)
                if connection.outputFull():
                    await self._room()
                elif self._written >= SLICES * SLICE:
                    await self._nextTurn()
                    self._checkOutput()
        finally:
            self._writing = False
            self._output = None

    async def writeEOF(self) -> None:
        """
        Send FIN when all is flushed; returns when it is with the kernel.  Reading goes on.

        :raises StreamLost: the connection is gone.
        :raises StreamClosed: we have ended our direction already.
        """
        if self._writing:
            raise StreamBusy("a write is waiting; await it first")
        self._checkOutput()
        self._writing = self._finished = True
        waiting: Deferred[None] = Deferred()
        self._output = waiting
        try:
            self._connection.finishOutput()
            await waiting
        finally:
            self._writing = False
            self._output = None
        if self._lost and not self._lost.check(ConnectionDone):
            raise self._fail(StreamLost("the connection is lost")) from self._lost.value

    # -- The end ---------------------------------------------------------------------------

    def close(self) -> None:
        """
        End it gracefully: all that was written, FIN, and no more is read; a deadline watches.

        A second call does nothing.
        """
        self._finished = True
        self._connection.close()

    def abort(self) -> None:
        """End it with RST; what is not with the peer is lost."""
        self._finished = True
        self._connection.abort(Reason.QUIT)

    async def waitClosed(self) -> None:
        """Return when the connection is gone, however it went."""
        if self._lost is None:
            gone: Deferred[None] = Deferred()
            self._gone.append(gone)
            try:
                await gone
            finally:
                if gone in self._gone:
                    self._gone.remove(gone)

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._finished = True
            self._connection.abort(Reason.ERROR)
        await self.waitClosed()

    # -- Inside ----------------------------------------------------------------------------

    def _beginRead(self) -> None:
        if self._reading:
            raise StreamBusy("another read is waiting; await it first")
        self._reading = True

    async def _more(self) -> bool:
        """Wait for input; False when there will be none."""
        if self._eof:
            if self._lost and not self._lost.check(ConnectionDone):
                raise self._fail(StreamLost("the connection is lost")) from self._lost.value
            if self._cutOff:
                raise self._fail(StreamTruncated(self._cutOff))
            return False
        self._reads = self._written = 0
        self._input = Deferred()
        self._connection.releaseInput()
        try:
            await self._input
        finally:
            self._input = None
        return True

    async def _take(self, size: int) -> bytes:
        """Cut ``size`` bytes off the buffer's front; others have their turn now and then."""
        self._reads += 1
        if self._reads >= READS:
            await self._nextTurn()
        buffer = self._buffer
        if size == len(buffer):
            data = bytes(buffer)
            # A new one: a cleared one would keep its memory for as long as the peer is silent.
            self._buffer = bytearray()
        else:
            with memoryview(buffer) as view:
                data = bytes(view[:size])
            del buffer[:size]
        if 2 * len(self._buffer) < self.limit:
            self._connection.releaseInput()
        return data

    async def _room(self) -> None:
        """Wait until there is room for more output."""
        self._written = 0
        while self._connection.outputFull():
            self._output = Deferred()
            await self._output
            self._checkOutput()

    async def _nextTurn(self) -> None:
        """Let others have theirs."""
        self._reads = self._written = 0
        await deferLater(self._connection.transport.reactor, 0)

    def _checkOutput(self) -> None:
        if self._lost:
            raise self._fail(StreamLost("the connection is lost")) from self._lost.value
        if self._finished or not self._connection.canReply():
            raise self._fail(StreamClosed("it has been closed on this side"))

    def _fail(self, error: StreamError) -> StreamError:
        """What is raised because of the peer: its handler need not catch it."""
        self.error = error
        return error

    # -- What the connection tells -----------------------------------------------------------

    def feed(self, data: bytes) -> bool:
        """Input came; returns whether that is enough for now."""
        self._buffer += data
        _fire(self._input)
        return len(self._buffer) >= self.limit

    def feedEOF(self, cutOff: str | None = None) -> None:
        """No more will come; ``cutOff`` says why there may have been more, if there may."""
        self._eof = True
        self._cutOff = cutOff
        _fire(self._input)

    def ready(self) -> None:
        """There is room for more output, or our FIN is out."""
        _fire(self._output)

    def lose(self, reason: Failure) -> bool:
        """The connection is gone; returns whether somebody was waiting, and is told."""
        self._lost = reason
        self._eof = True
        told = bool(self._reading or self._writing or self._gone)
        _fire(self._input)
        _fire(self._output)
        for gone in self._gone[:]:
            _fire(gone)
        return told

    def answers(self) -> bool:
        """Whether something may still be written before more input has come."""
        return not (self._finished or self._lost or self._input)


def _fire(waiting: Deferred[None] | None) -> None:
    if waiting is not None and not waiting.called:
        waiting.callback(None)


def _checkSize(name: str, value: int, least: int, most: int | None = None) -> None:
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is {value}; it can be {bounds}")


class StreamConnection(Connection):
    """
    A connection with a `Stream` on it.

    :param handler: the coroutine function that is run on the stream, if any: when it returns,
        the stream is closed; when it raises, it is aborted and the log has the traceback, except
        that a `StreamError` of this stream is the peer's doing and closes it like a return.  When
        the connection is lost while it waits for something else, it is cancelled at once; while
        it waits for the stream, that raises, and it has ``linger_timeout`` to clean up; as it has
        when the connection ends cleanly.
    :param limit: see `Stream`.
    """

    def __init__(self, handler: Handler | None = None, limit: int = BUFFER) -> None:
        self.stream = Stream(self, limit)
        self.largestRead = min(BUFFER, limit)
        self._handler = handler
        self._running: Deferred[object] | None = None
        # When it is ended although it was told of the loss.
        self._deadline: IDelayedCall | None = None

    def close(self) -> None:
        """See `Stream.close`."""
        self.end(Reason.QUIT)
        self.answered()

    def begun(self) -> None:
        """Run the handler, up to where it first waits."""
        if self._handler is not None:
            self._running = Deferred.fromCoroutine(self._handler(self.stream))
            self._running.addCallbacks(self._returned, self._failed)

    def received(self, data: bytes) -> None:
        """Into the stream's buffer; no more is read while that is full."""
        if self.stream.feed(data):
            self.holdInput()

    def inputFinished(self) -> None:
        """EOF, after what is in the buffer."""
        transport = self.transport
        if transport.failure is not None:
            self.stream.feedEOF(f"TLS failed: {transport.failure}")
        elif transport.truncated:
            self.stream.feedEOF("the peer finished without TLS's close_notify")
        else:
            self.stream.feedEOF()

    ended = inputFinished

    def unanswered(self) -> bool:
        """Whatever a coroutine does when it is not waiting for input may be an answer."""
        return self.stream.answers()

    def outputReady(self) -> None:
        """Whoever waits to write goes on."""
        self.stream.ready()

    def writeConnectionLost(self) -> None:
        """Our FIN is with the kernel."""
        super().writeConnectionLost()
        self.stream.ready()

    def lost(self, reason: Failure) -> None:
        """Tell whoever waits for the stream; a handler that waits for something else is ended."""
        told = self.stream.lose(reason)
        running = self._running
        if running is None:
            return
        if told or reason.check(ConnectionDone):
            # It knows, or somebody whom it has asked to read does; it has a while for its cleanup.
            grace = self.owner.limits.lingerTimeout
            self._deadline = self.transport.reactor.callLater(grace, running.cancel)
        else:
            running.cancel()

    def _over(self) -> None:
        self._running = None
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def _returned(self, result: object) -> None:
        self._over()
        self.stream.close()

    def _failed(self, failure: Failure) -> None:
        self._over()
        error = failure.value
        if error is self.stream.error and isinstance(error, IncompleteRead):
            self.truncated = int(bool(error.partial))
        if error is self.stream.error and isinstance(error, LimitExceeded):
            self.end(Reason.TOO_LONG)
        if error is self.stream.error:
            self.stream.close()
            return
        if not (failure.check(CancelledError) and not self.canReply()):
            self.fault(failure, getattr(self._handler, "__qualname__", repr(self._handler)))
