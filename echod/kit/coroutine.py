"""
A connection on which a coroutine runs: `StreamConnection`.

It gives the coroutine an `echod.kit.stream.Stream`, and feeds the stream with what comes.  When the
coroutine ends, so does the connection; when the connection ends, so does the coroutine.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from echod.connection.connection import Connection
from echod.connection.states import Reason
from echod.errors import IncompleteRead, LimitExceeded
from echod.kit.stream import BUFFER, Stream

__all__ = ["Handler", "StreamConnection"]

#: What a coroutine protocol is.
Handler = Callable[[Stream], Coroutine[Any, Any, object]]


class StreamConnection(Connection):
    """
    A connection with a `Stream` on it.

    :param handler: the coroutine function that is run on the stream, if any.  When it returns,
        the stream is closed.  When it raises, the stream is aborted and the log has the traceback;
        but a `StreamError` of this stream is the peer's doing, and closes it as a return does.
        When the connection is lost, what it awaits of the stream raises, and it has
        ``linger_timeout`` to clean up; if it awaits something else, it is cancelled at once.  It
        also has ``linger_timeout`` after a clean end.
    :param limit: see `Stream`.
    """

    def __init__(self, handler: Handler | None = None, limit: int = BUFFER) -> None:
        self.stream = Stream(self, limit)
        self.largestRead = min(BUFFER, limit)
        self._handler = handler
        self._running: Deferred[object] | None = None
        # When it is ended although it was told of the loss.
        self._deadline: IDelayedCall | None = None

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

    def heldBytes(self) -> int:
        """As any connection; and what has come for the coroutine, and was not read by it."""
        return super().heldBytes() + self.stream.waiting

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
