"""
What comes over a connection, for a coroutine to read: `StreamInput`.

There is one buffer between the connection and the coroutine, and the two are never further apart
than its limit: input that nobody takes stops the reading, so that the peer's window closes.

The buffer is one ``bytearray``: appended to, which grows it by a share of its size (each byte is
copied a bounded number of times), and cut at its front, which moves nothing before half of it is
gone.  A search goes on where the last one stopped.  So all costs are linear in the bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from echod.connection.connection import Connection
from echod.errors import (
    IncompleteRead,
    LimitExceeded,
    StreamBusy,
    StreamError,
    StreamLost,
    StreamTruncated,
)

__all__ = ["BUFFER", "READS", "StreamInput", "fire"]

#: Bytes of input that wait for the coroutine before reading stops, if nothing else is said;
#: one read of at most as many may come on top.
BUFFER = 65536
#: Reads that a coroutine gets in one turn of the reactor without waiting for any: then others
#: have their turn, though there is more in the buffer.
READS = 128


class StreamInput:
    """
    The direction from the peer to us, one read at a time.

    Whoever waits and is cancelled loses nothing that has arrived.  `echod.kit.stream.Stream` has
    the other direction too, and is what a coroutine is given.

    :param connection: what it is on.
    :param limit: bytes of input that wait before reading stops.
    :ivar error: the last error that was raised because of the peer.
    """

    def __init__(self, connection: Connection, limit: int) -> None:
        self.limit = limit
        self._connection = connection
        self._buffer = bytearray()
        # No more input will come; nor can any answer be sent.
        self._eof = False
        # Why there may have been more before EOF.
        self._cutOff: str | None = None
        self._lost: Failure | None = None
        self._reading = False
        # Who waits for more input; fired by the connection.
        self._input: Deferred[None] | None = None
        # Reads, and bytes written, since others had their turn.
        self._reads = 0
        self._written = 0
        self.error: StreamError | None = None

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

    # -- Inside ----------------------------------------------------------------------------

    def _beginRead(self) -> None:
        if self._reading:
            raise StreamBusy("another read is waiting; await it first")
        self._reading = True

    async def _more(self) -> bool:
        """Wait for input; False when there will be none."""
        if self._eof:
            self._checkReset()
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

    def _checkReset(self) -> None:
        """Raise `StreamLost` if the connection is gone, and did not end cleanly."""
        if self._lost and not self._lost.check(ConnectionDone):
            raise self._fail(StreamLost("the connection is lost")) from self._lost.value

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

    async def _nextTurn(self) -> None:
        """Let others have theirs."""
        self._reads = self._written = 0
        await deferLater(self._connection.transport.reactor, 0)

    def _fail(self, error: StreamError) -> StreamError:
        """What is raised because of the peer: its handler need not catch it."""
        self.error = error
        return error

    @property
    def waiting(self) -> int:
        """Bytes that have come, and have not been read."""
        return len(self._buffer)

    # -- What the connection tells -----------------------------------------------------------

    def feed(self, data: bytes) -> bool:
        """Input came; returns whether that is enough for now."""
        self._buffer += data
        fire(self._input)
        return len(self._buffer) >= self.limit

    def feedEOF(self, cutOff: str | None = None) -> None:
        """No more will come; ``cutOff`` says why there may have been more, if there may."""
        self._eof = True
        self._cutOff = cutOff
        fire(self._input)


def fire(waiting: Deferred[None] | None) -> None:
    """Let whoever waits, if anybody does and has not been told, go on."""
    if waiting is not None and not waiting.called:
        waiting.callback(None)


def _checkSize(name: str, value: int, least: int, most: int | None = None) -> None:
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is {value}; it can be {bounds}")
