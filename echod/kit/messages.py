"""
Messages and a function that answers each: `AnsweringConnection`.

On top of `echod.kit.framed`: a framer takes the stream apart, the function is given each payload
and returns an answer, a Deferred or a coroutine of one, or ``None`` for no answer.  Answers leave
in the order of their messages.  At most so many messages are being answered at a time; none is
begun while they and the answers that wait for those before them have 64 KiB, or while what was
answered waits for the peer, and until then nothing more is read.  How long an answer is nobody
knows before it is there: those of all messages that are being answered may come on top.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from echod.connection.flow import SLICE, SLICES
from echod.kit.framed import FramedConnection
from echod.wire.framing import Framer

__all__ = ["IN_FLIGHT", "Answer", "AnsweringConnection"]

#: Messages that are being answered at a time, if nothing else is said.
IN_FLIGHT = 16

#: From a payload to an answer's payload.
Answer = Callable[
    [bytes], bytes | Deferred[bytes | None] | Coroutine[Any, Any, bytes | None] | None
]


class _Flight:
    """
    A message that is being answered.

    :ivar answer: framed, or ``None`` while unknown.
    :ivar size: bytes of both.
    """

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.size = len(message)
        self.answer: bytes | None = None
        self.waiting: Deferred[None] | None = None


class AnsweringConnection(FramedConnection):
    """
    Has each message answered by a function, in order.

    :param framer: a fresh one, this connection's own.
    :param answer: called with each payload.
    :param inFlight: how many messages are being answered at a time at most.
    """

    def __init__(self, framer: Framer, answer: Answer, inFlight: int = IN_FLIGHT) -> None:
        super().__init__(framer)
        self._answer = answer
        self._inFlight = inFlight
        # What is left of the block at hand, and what has been begun, in order.
        self._messages: Iterator[tuple[bytes, bytes]] | None = None
        self._flights: deque[_Flight] = deque()
        # Bytes of the messages and answers in it.
        self._held = 0
        self._working = False
        # A turn to go on in is on its way.
        self._later = False

    def messagesReceived(self, block: bytes) -> None:
        """Begin to answer them."""
        self._messages = self._framer.split(block)
        self._work()

    def unanswered(self) -> bool:
        """Whether there are messages whose answers have not been sent."""
        return self._messages is not None or bool(self._flights)

    def heldBytes(self) -> int:
        """As any connection; and messages that are being answered, with answers that wait."""
        return super().heldBytes() + self._held

    def outputReady(self) -> None:
        """Begin with more."""
        self._work()

    def lost(self, reason: Failure) -> None:
        """Nobody wants the answers any more."""
        self._messages = None
        flights, self._flights = self._flights, deque()
        for flight in flights:
            if flight.waiting is not None:
                self.attempt(flight.waiting.cancel)

    def _nextTurn(self) -> None:
        self._later = False
        self._work()

    def _work(self) -> None:
        """Begin what may be begun, send what is next in order; until neither is possible."""
        if self._working or self._later or not self.canReply():
            return
        self._working = True
        try:
            self._begin()
        except BaseException:
            # SystemExit too: see echod.insight.fault_log.
            self._broke(None, Failure())
        finally:
            self._working = False
        if self._messages is not None or self._later:
            self.holdInput()
        else:
            self.releaseInput()
            if not self._flights:
                self.answered()

    def _begin(self) -> None:
        ready: list[bytes] = []
        size = slices = 0
        flights = self._flights
        while self.canReply() and not self.outputFull():
            while flights and (answer := flights[0].answer) is not None:
                self._held -= flights.popleft().size
                ready.append(answer)
                size += len(answer)
                if size >= SLICE:
                    break
            if size >= SLICE:
                self.reply(b"".join(ready))
                self.progressed()
                ready, size = [], 0
                slices += 1
                if slices == SLICES:
                    # Others have their turn.
                    self._later = True
                    self.transport.reactor.callLater(0, self._nextTurn)
                    return
                continue
            full = len(flights) >= self._inFlight or self._held >= SLICE
            if self._messages is None or full:
                break
            found = next(self._messages, None)
            if found is None:
                self._messages = None
                break
            flights.append(self._ask(*found))
        if ready:
            self.reply(b"".join(ready))
            self.progressed()

    def _ask(self, payload: bytes, message: bytes) -> _Flight:
        flight = _Flight(message)
        self._held += flight.size
        answer = self._answer(payload)
        if isinstance(answer, Coroutine):
            answer = Deferred.fromCoroutine(answer)
        if isinstance(answer, Deferred):
            came: Deferred[None] = answer.addCallback(partial(self._came, flight))
            flight.waiting = came
            came.addErrback(partial(self._broke, flight))
        else:
            self._came(flight, answer)
        return flight

    def _came(self, flight: _Flight, answer: bytes | None) -> None:
        """An answer is there: send it as soon as those before it are sent."""
        if answer is not None and not isinstance(answer, bytes):
            raise TypeError(f"{self._answer!r} answered {answer!r}; bytes or None can be sent")
        flight.answer = b"" if answer is None else self._framer.wrap(answer, flight.message)
        flight.waiting = None
        self._held += len(flight.answer)
        flight.size += len(flight.answer)
        self._work()

    def _broke(self, flight: _Flight | None, failure: Failure) -> None:
        if not self.canReply():
            # Cancelled because nobody wants the answer; or one fault is told already.
            return
        self.fault(failure, repr(self._answer))
