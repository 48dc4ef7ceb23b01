"""
How the two directions end, each by itself: `HalfClose`.

Our FIN follows the last answer, and is followed by the close once the peer has finished too and has
acknowledged everything.  A protocol may answer later (`ProtocolHooks.unanswered`): its answers are
waited for wherever replies are flushed, and a deadline ends the wait.
"""

from __future__ import annotations

from echod.connection.deadlines import Deadline, Facts, runningDeadlines
from echod.connection.flow import OUTPUT_FULL, RATE, FlowControl
from echod.connection.lifecycle import Event
from echod.connection.states import GONE, Reason, State, endedBy, howEnded

__all__ = ["HalfClose"]

# As in `echod.connection.connection`: looked up for each connection.
_FINISHING = State.FINISHING
_ACKNOWLEDGED = Event.ACKNOWLEDGED


class HalfClose(FlowControl):
    """What is owed, and the ends of both directions."""

    openedAt = 0.0
    broken = False
    # Bytes given to the protocol; written by dataReceived and _lateData.
    _seen = 0
    # Bytes of replies given to the transport; written by reply.
    _replied = 0
    # Whether the protocol knows of the connection; written by _beginProtocol.
    _protocolKnows = False
    # Our FIN is to follow all that is answered; it has been asked for; it is with the kernel.
    # Written by finishOutput, by _endOutput, by writeConnectionLost and _finish.
    _finishing = False
    _outputEnding = False
    _outputEnded = False
    # When the peer last acknowledged something, or began to owe that; up to which byte, and
    # whether it owed anything at the last sweep.
    _deliveredAt = 0.0
    _delivered = 0
    _owing = False

    @property
    def bytesIn(self) -> int:
        """Bytes read, and given to the protocol or echoed unseen."""
        return self._seen + self.transport.echoedBytes

    @property
    def bytesOut(self) -> int:
        """Bytes given to the transport: replies, and what was echoed unseen."""
        return self._replied + self.transport.echoedBytes

    @property
    def endedHow(self) -> str:
        """How it ended: ``fin``; ``rst``, the peer's or the network's; or ``abort``, our RST."""
        return howEnded(self.state, self.broken)

    @property
    def endedBy(self) -> str:
        """Who ended it, as far as can be told: ``peer``, ``network`` or ``us``."""
        return endedBy(self.reason, self.broken, self.transport.brokenBy)

    # -- To be called by a subclass --------------------------------------------------------

    def reply(self, data: bytes) -> None:
        """Send ``data`` (``bytes``, best at most `SLICE`): one write, in order."""
        self._replied += len(data)
        self.transport.write(data)
        if self.timeline is not None:
            self.timeline.repeated("write", len(data))

    def canReply(self) -> bool:
        """Whether what is replied now will be sent."""
        return not self._outputEnding and self.state not in GONE

    def answered(self) -> None:
        """To be called when `unanswered` has become false."""
        if self._finishing or self.state is State.FINISHING or self.state is State.LINGERING:
            self._endOutput()

    def finishOutput(self) -> None:
        """Send FIN when all is flushed; what the peer sends is still delivered."""
        self._finishing = True
        self._endOutput()

    def quietSince(self) -> float:
        """When anything last went on, either way, in monotonic seconds."""
        return max(self._lastProgress(), self._deliveredAt)

    def _lastProgress(self) -> float:
        """When the protocol last made progress, or something was echoed unseen."""
        return max(self._progressAt, self.transport.echoedAt)

    # -- What the owner and the transport call -----------------------------------------------

    def nextDeadline(self, now: float, unsent: int) -> Deadline | None:
        """
        The deadline that passes first, as things are; ``None`` if none runs.

        :param unsent: what its transport says is unsent.
        """
        if self.state in GONE:
            return None
        unanswered = not (unsent or self._outputEnding) and self._waits()
        facts = self._facts(now, unsent, unanswered, self._inputEnded and self._outputEnded)
        first = None
        for deadline in runningDeadlines(facts, self.owner.limits):
            if deadline.name and (first is None or deadline.at < first.at):
                first = deadline
        return first

    def _facts(self, now: float, unsent: int, unanswered: bool, settling: bool) -> Facts:
        """What its deadlines depend on."""
        return Facts(
            self.state,
            self.reason,
            self.openedAt,
            self._lastProgress(),
            self._deliveredAt,
            # Who waits for its turn, or has it from this moment on, has sent something.
            not (self.bytesIn or self._paused & RATE or self._progressAt == now),
            unsent,
            unanswered,
            settling,
        )

    def idleSince(self) -> float | None:
        """When it became idle, in monotonic seconds; ``None`` if it is busy or ending."""
        if self.state is State.OPENING:
            return self.openedAt
        if self.state is not State.OPEN or self._paused & RATE or self.owes():
            return None
        return self.quietSince()

    def owes(self) -> bool:
        """Whether something that was answered has not arrived yet."""
        return self._protocolKnows and (
            self._slices is not None or self._waits() or self.transport.unsent() > 0
        )

    def unacknowledged(self, unsent: int) -> int:
        """
        Bytes of what was answered that the peer has not acknowledged.

        It is rather too many: of a UNIX socket the kernel tells the memory that they take
        (unix(7), ``SIOCOUTQ``), and TLS makes them more.  But never more than have been sent.

        :param unsent: what its transport says is unsent.
        """
        return min(unsent, self.bytesOut) if self._protocolKnows else 0

    def heldBytes(self) -> int:
        """
        Bytes that are held for the peer now, outside of the socket: for metrics.

        What its transport holds.  A subclass that keeps something adds that.
        """
        return self.transport.heldBytes()

    def writeConnectionLost(self) -> None:
        """Our FIN is with the kernel."""
        if self.state is State.ABORTED:
            return
        self._outputEnded = True
        if self.timeline is not None:
            self.timeline.add("our_fin")
        self._deliveredAt = self._sweep.now
        if self._inputEnded:
            self._settle()

    def _lookAtOutput(self, now: float) -> int:
        """Bytes that the peer has not acknowledged; and whether it has some more by now."""
        written = self.bytesOut + self.transport.overhead
        if written == self._delivered:
            return 0
        unsent = self.transport.unsent()
        delivered = written - unsent
        if delivered != self._delivered or not self._owing:
            self._delivered = delivered
            # What came and went between two looks is as old as the read it answered.
            if unsent or self._owing:
                self._deliveredAt = now
        self._owing = unsent > 0
        return unsent

    # -- Actions of `echod.connection.lifecycle` -----------------------------------------------

    def _happen(self, event: Event, reason: Reason | None = None) -> None:
        """`Connection._happen`; a subclass has it."""
        raise NotImplementedError

    def _endOutput(self) -> None:
        """FIN after all that has been answered, as soon as nothing is unanswered."""
        if (
            self._slices is None
            and not self._outputEnding
            and self.state is not State.ABORTED
            and not (self._protocolKnows and self._waits())
        ):
            self._outputEnding = True
            # With a paused producer registered, Twisted would never send FIN.
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()  # type: ignore[attr-defined]  # of the fourth base
            # Nobody would tell that there is room again, and none is needed.
            self._paused &= ~OUTPUT_FULL
            self._readOn()

    def _tellInputFinished(self) -> None:
        # Answers that are still to come have their deadline from here.
        self._progressAt = self._sweep.now
        try:
            self.inputFinished()
        except BaseException:
            self._raised()

    def _finish(self) -> None:
        """Our FIN after the peer's."""
        # What the protocol was told may have made it raise; so may asking it.
        owes = self.state is _FINISHING and self.owes()
        if self.state is not _FINISHING:
            return
        if not owes:
            # Nothing to wait for: FIN goes with the close.
            self._outputEnded = True
            if self.timeline is not None:
                self.timeline.add("our_fin")
            self._happen(_ACKNOWLEDGED)
        elif self._outputEnded:
            self._settle()
        else:
            self._endOutput()

    def _settleLate(self) -> None:
        """The peer's FIN after ours: the deadline of what is left begins anew."""
        self._deliveredAt = self._sweep.now
        self._settle()

    def _settle(self) -> None:
        """The peer's FIN is in: if ours is out, close, or wait until the peer has the rest."""
        if self._outputEnded:
            unsent = self.transport.unsent()
            self._happen(Event.UNACKNOWLEDGED if unsent else Event.ACKNOWLEDGED)

    def _reset(self) -> None:
        self._slices = None
        if self.timeline is not None:
            unread = self.transport.queued()
            if unread:
                self.timeline.add("unread", unread)
            self.timeline.add("rst", "us")
        self.owner.aborting(self)  # type: ignore[arg-type]  # a subclass is a Connection
        self.transport.unregisterProducer()
        self.transport.abortConnection()
