r"""
Both directions of a connection, as something to await: `Stream`.

TCP is bytes without packets, in two directions that end separately, and so is a `Stream`::

    async def shout(stream):
        while data := await stream.read():      # b"" at the peer's FIN
            await stream.write(data.upper())    # returns when there is room for more

No asyncio: any coroutine under Twisted's ``Deferred.fromCoroutine`` may await these.  A stream
lives on top of an `echod.connection.connection.Connection`, which decides when to read and how it
all ends.  How input is read is in `echod.kit.stream_input`; here is how answers are written, and
how both directions end.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from echod.connection.connection import Connection
from echod.connection.flow import SLICE, SLICES
from echod.connection.states import Reason
from echod.errors import StreamBusy, StreamClosed, StreamLost
from echod.kit.stream_input import BUFFER, StreamInput, fire
from echod.tls.facts import TLSFacts
from echod.wire.proxy_values import ProxyHeader

__all__ = ["BUFFER", "Stream"]


class Stream(StreamInput):
    """
    Both directions of one connection, for coroutines.

    One call reads at a time, and one writes; a second one at the same time raises `StreamBusy`.
    After the connection is lost everything raises `StreamLost`, except that what had arrived can
    still be read.  Cancelling whoever waits loses nothing that has arrived.

    Use as an async context manager closes it at the end, or aborts it after an exception;
    iteration yields what `read` returns, until EOF.

    :param connection: what it is on; tells it what comes
        (`echod.kit.coroutine.StreamConnection`).
    :param limit: bytes of input that wait before reading stops: what ``readUntil`` and
        ``readExactly`` can ask for at most.
    """

    def __init__(self, connection: Connection, limit: int = BUFFER) -> None:
        super().__init__(connection, limit)
        # We have ended our direction.
        self._finished = False
        self._writing = False
        # Who waits for room or for our FIN, and for the end; fired by the connection.
        self._output: Deferred[None] | None = None
        self._gone: list[Deferred[None]] = []

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

    def kernelFacts(self) -> dict[str, dict[str, object]]:
        """
        What the kernel knows of the connection, for those who write JSON of it.

        ``tcp_info``, ``syn`` and ``queues``: docs/insight.md has the keys.  What it does not know
        is not there: over a UNIX socket there is no TCP; a SYN is kept only if the maker says
        ``savesSYN``; and nothing is known of a connection that is lost.
        """
        return self._connection.transport.kernelFacts()

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
        self._checkReset()

    # -- The end ---------------------------------------------------------------------------

    def close(self) -> None:
        """
        End it gracefully: all that was written, FIN, and no more is read; a deadline watches.

        A second call does nothing.
        """
        self._finished = True
        self._connection.end(Reason.QUIT)
        self._connection.answered()

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

    async def _room(self) -> None:
        """Wait until there is room for more output."""
        self._written = 0
        while self._connection.outputFull():
            self._output = Deferred()
            await self._output
            self._checkOutput()

    def _checkOutput(self) -> None:
        if self._lost:
            raise self._fail(StreamLost("the connection is lost")) from self._lost.value
        if self._finished or not self._connection.canReply():
            raise self._fail(StreamClosed("it has been closed on this side"))

    # -- What the connection tells -----------------------------------------------------------

    def ready(self) -> None:
        """There is room for more output, or our FIN is out."""
        fire(self._output)

    def lose(self, reason: Failure) -> bool:
        """The connection is gone; returns whether somebody was waiting, and is told."""
        self._lost = reason
        self._eof = True
        told = bool(self._reading or self._writing or self._gone)
        fire(self._input)
        fire(self._output)
        for gone in self._gone[:]:
            fire(gone)
        return told

    def answers(self) -> bool:
        """Whether something may still be written before more input has come."""
        return not (self._finished or self._lost or self._input)
