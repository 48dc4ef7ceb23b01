"""
Who may work in a turn of the reactor, and for how long: `SharedTurns`.

Answers may be long.  All that are being made share `TURN` seconds of a turn; then everybody else
of the daemon has one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["TURN", "SharedTurns"]

#: Seconds of a turn, for all answers together.
TURN = 0.01


class SharedTurns:
    """
    Has work done, a piece after another, each its turn.

    :param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # Who has something to do, the next first.
        self._waiting: deque[Callable[[], bool]] = deque()
        self._call: IDelayedCall | None = None
        self._until = 0.0

    def join(self, work: Callable[[], bool]) -> None:
        """
        Have ``work`` called in the turns to come, until it returns false.

        It is to return when it asks `over` and hears yes.
        """
        self._waiting.append(work)
        if self._call is None:
            self._call = self._clock.callLater(0, self._turn)

    def leave(self, work: Callable[[], bool]) -> None:
        """Have it called no more, if it still would be."""
        if work in self._waiting:
            self._waiting.remove(work)

    def over(self) -> bool:
        """Whether this turn's time is up."""
        return self._clock.seconds() >= self._until

    def _turn(self) -> None:
        self._until = self._clock.seconds() + TURN
        for _ in range(len(self._waiting)):
            # Who has worked may have made others leave.
            if not self._waiting:
                break
            work = self._waiting.popleft()
            if work():
                self._waiting.append(work)
            if self.over():
                break
        self._call = self._clock.callLater(0, self._turn) if self._waiting else None
