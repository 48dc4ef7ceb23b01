"""
A request that is being answered: `Answering`.

It is the request's producer: while the peer does not read it makes nothing, and when the peer has
gone it is told.  From looking up what was asked for to the end of the answer it works in the turns
of `echod.admin.fair_turns`.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from echod.admin.bodies import PIECE, Reply
from echod.admin.channel import AdminRequest
from echod.admin.fair_turns import SharedTurns

__all__ = ["Answering"]


@implementer(IPushProducer)
class Answering:
    """
    Answers one request.

    :param reply: looks up what was asked for.
    """

    def __init__(
        self, request: AdminRequest, reply: Callable[[], Reply], turns: SharedTurns
    ) -> None:
        self._request = request
        self._lookUp = reply
        self._turns = turns
        self._connection = request.channel.connection
        self._reply: Reply | None = None
        self._paused = self._connection.outputFull()
        self._stopped = False
        request.registerProducer(self, True)
        if not self._paused:
            turns.join(self._work)

    def pauseProducing(self) -> None:
        """The peer does not read."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The peer reads again."""
        if self._paused and not self._stopped:
            self._paused = False
            self._turns.leave(self._work)
            self._turns.join(self._work)

    def stopProducing(self) -> None:
        """The peer is gone, or all is said."""
        self._stopped = True
        self._turns.leave(self._work)
        self._reply = None

    def _work(self) -> bool:
        """Go on for a turn; returns whether there is more to do in the next."""
        # What is looked up may raise: then this connection alone ends.
        return bool(self._connection.attempt(self._makeSome, otherwise=False))

    def _makeSome(self) -> bool:
        if self._reply is None:
            self._reply = self._lookUp()
            self._request.begin(self._reply)
            if self._request.method == b"HEAD":
                self._end()
                return False
        while not (self._paused or self._stopped):
            piece = self._piece(self._reply)
            if piece is None:
                self._end()
                return False
            self._request.write(piece)
            if self._turns.over():
                break
        return not (self._paused or self._stopped)

    def _piece(self, reply: Reply) -> bytes | None:
        """Some bytes more, which may be none as yet; ``None`` at the end."""
        found: list[bytes] = []
        size = 0
        for part in reply.pieces:
            found.append(part)
            size += len(part)
            if size >= PIECE or self._turns.over():
                break
        return b"".join(found) if found else None

    def _end(self) -> None:
        self._stopped = True
        self._request.end()
