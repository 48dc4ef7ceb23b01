"""
What a protocol writes: `ProtocolHooks`, the ground floor of `echod.connection.connection`.

A hook is called by the connection and does nothing, or little, unless a subclass writes it.  One
that raises ends its own connection and nothing else (`ProtocolHooks.attempt`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from echod.connection.owner import Owner
from echod.connection.states import Reason, State
from echod.connection.sweep import Sweep
from echod.insight.fault_log import tellFault
from echod.insight.identity import idOf, nextNumber
from echod.insight.timeline import Timeline
from echod.interfaces import IConnectionTransport

__all__ = ["ProtocolHooks"]


class ProtocolHooks(TwistedProtocol):
    """
    What a subclass of `Connection` writes, and how it is called.

    :ivar owner: the listener; set by it before ``makeConnection``.
    :ivar state: where it stands (`State`); written by ``Connection._happen`` alone.
    :ivar reason: why it ended, or ``None`` while nothing has ended it.
    :ivar timeline: what happened to it, if its owner keeps that.
    """

    #: Bytes that one read takes at most.  What a protocol copies of a read, or keeps of it,
    #: counts towards the 384 KiB of a connection.
    largestRead: int = 65536

    #: Whether the answer is the input, whatever it is: it may then be echoed unseen, and only
    #: be counted.
    verbatim: ClassVar[bool] = False

    #: Whether bulk is then to stay in the socket's queue until it is sent back.
    inPlace: bool = False

    #: Whether any byte is progress, or only what the subclass calls `progressed` for.
    bytesAreProgress: ClassVar[bool] = True

    #: Whether reading goes on while the peer does not read: for a protocol that answers nothing
    #: of what it reads, and must see the peer's FIN.  `readAlways` changes it later.
    alwaysReads: bool = False

    #: Attributes that most connections are given later than as they are made: whoever accepts them
    #: sets these of the first one, and all others then need less memory.
    lateNames: ClassVar[Sequence[str]] = (
        *("state", "reason", "openedAt", "_protocolKnows", "_watched", "_paused"),
        *("_progressAt", "_deliveredAt", "_delivered", "_owing", "_seen", "_replied"),
        *("_inputEnded", "_outputEnding", "_outputEnded", "_slices"),
    )

    owner: Owner
    transport: IConnectionTransport
    _sweep: Sweep
    state = State.NEW
    reason: Reason | None = None
    timeline: Timeline | None = None
    # Its number, once somebody has asked for its id; written by number.
    _number = 0
    # Whether a subclass has written unanswered; whether that is being asked, or has raised.
    # Written by __init_subclass__, and by _waits.
    _answersLater: ClassVar[bool] = False
    _asking = False

    def __init_subclass__(cls) -> None:
        """Who answers at once is not asked, at each end and once a second, whether it has."""
        super().__init_subclass__()
        cls._answersLater = cls.unanswered is not ProtocolHooks.unanswered

    @property
    def number(self) -> int:
        """Its number in this process (`echod.insight.identity`): given when it is asked for."""
        number = self._number
        if not number:
            number = self._number = nextNumber()
        return number

    @property
    def id(self) -> str:
        """What it is called in the log, in metrics and on pages."""
        return idOf(self.number)

    # -- To be written by a subclass -------------------------------------------------------

    def begun(self) -> None:
        """The connection is there: for a protocol that speaks first."""

    def received(self, data: bytes) -> None:
        """Bytes arrived, never none.  This one must be written."""
        raise NotImplementedError

    def inputFinished(self) -> None:
        """The peer has finished; what was answered will still be sent."""

    def ended(self) -> None:
        """We have ended it (`end`): nothing more will be delivered, answers are still sent."""

    def outputReady(self) -> None:
        """What was replied is with the kernel, after `outputFull`."""

    def lost(self, reason: Failure) -> None:
        """It is gone: nothing that is replied now arrives anywhere."""

    def unanswered(self) -> bool:
        """
        Whether something that was delivered has not been answered yet.

        Our FIN waits for it, until `answered` is called.
        """
        return False

    # -- How they are called ---------------------------------------------------------------

    # Any: what is called has whatever arguments and result.
    def attempt(self, call: Callable[..., Any], *arguments: Any, otherwise: Any = None) -> Any:
        """
        What ``call`` returns, which a subclass may have written; ``otherwise`` when it raises.

        It then ends this connection alone (`fault`).  Whoever goes on has `State.ABORTED` to reckon
        with.
        """
        try:
            return call(*arguments)
        except BaseException:
            # SystemExit too: see echod.insight.fault_log.
            self._raised()
            return otherwise

    def fault(self, failure: Failure, name: str) -> None:
        """
        Say in the log that ``name`` raised (`tellFault`), and end this connection alone.

        `Reason.ERROR` counts them all.
        """
        tellFault(failure, f"{name} raised; its connection is aborted")
        if self.timeline is not None:
            self.timeline.add("fault")
        self._breakOff(Reason.ERROR)
        self.reason = Reason.ERROR

    def _raised(self) -> None:
        """
        What `attempt` does about an exception; `fault` itself may be a subclass's.

        What is done for each read, and for each connection, catches by itself: a call less.
        """
        ProtocolHooks.fault(self, Failure(), type(self).__name__)

    def _breakOff(self, reason: Reason) -> None:
        """`Connection.abort`; a subclass has it."""
        raise NotImplementedError

    def _waits(self) -> bool:
        """
        Whether something is `unanswered`; no, while just that is being asked.

        Also if that cannot be told: the connection is aborted then, and no way of ending it
        otherwise may be taken.
        """
        if self._asking or not self._answersLater:
            return False
        self._asking = True
        try:
            found = bool(self.unanswered())
        except BaseException:
            self._raised()
            return True
        self._asking = False
        return found
