"""
One connection: flow control, half-close and deadlines, decided here and nowhere else.

A protocol is a subclass that says what to answer (`Connection.received`); this class
decides when there is something to read, when a direction ends, and when it is over.  Only
this module registers producers, pauses, half-closes or aborts.

`echod.connection.lifecycle` draws the states, tells what each is, and has the table of what
leads from one to another; `Connection._happen` goes that way, and nothing else does.

A protocol may answer later (`Connection.unanswered`).  Its answers are waited for wherever
replies are flushed: our FIN follows the last of them, or a deadline ends the wait.

Memory: the connection is its transport's push producer, so reading stops while more than
64 KiB wait to be sent; a read is bounded (`Connection.largestRead`), a reply that grows is
made slice by slice, and a protocol that has enough to do stops reading itself
(`Connection.holdInput`).  Reasons to stop reading are bits of one mask, so that none undoes
another.

Time of life: once a second (`Connection.sweep`) `echod.connection.deadlines` is asked what has
passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from twisted.internet.error import ConnectionClosed, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
)
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.connection.deadlines import verdict
from echod.connection.lifecycle import TABLE, Action, Event
from echod.connection.metering import UNLIMITED, Meter
from echod.connection.owner import Owner
from echod.connection.states import Reason, State
from echod.connection.sweep import Sweep
from echod.insight.fault_log import tellFault
from echod.interfaces import IConnectionTransport

__all__ = ["SLICE", "SLICES", "Connection"]

#: The largest piece of a reply that is made by hand, in bytes: Twisted's own high-water
#: mark, so that one slice over it pauses the making of the next.
SLICE = 65536


# Looked up once for each read.
_OPEN = State.OPEN
_GONE = (State.CLOSED, State.ABORTED)

# Reasons to stop reading, bits of `Connection._paused`.
_OUTPUT_FULL = 1
_INPUT_HELD = 2
_NEXT_TURN = 4
_RATE = 8

#: Slices made in one turn at most: a peer that reads as fast as they are made would have the
#: turn for itself.
SLICES = 4


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class Connection(TwistedProtocol):
    """
    A connection that echoes nothing yet: subclass it and write `received`.

    A subclass calls `reply`, `replyEach`, `progressed` and `end`; one that answers later also
    `holdInput`, `releaseInput`, `finishOutput` and `answered`.  It never touches its transport.

    :ivar owner: the listener; set by it before ``makeConnection``.
    :ivar state: see `State`; written by `_happen` alone.
    :ivar reason: why it ended, or ``None`` while nothing has ended it.
    :ivar bytesIn: bytes read and given to the protocol.
    :ivar bytesOut: bytes of replies given to the transport.
    :ivar discarded: bytes read and thrown away, after our end.
    :ivar messages: whole messages, where the protocol has messages.
    :ivar truncated: 1 if the peer finished in the middle of a message.
    :ivar pauses: how often reading stopped because the peer did not read.
    :ivar broken: whether it ended with the peer's RST, or as a lost route does.
    :ivar cut: bytes that the peer was still owed when we gave up.
    """

    #: Bytes that one read takes at most.  What a protocol copies of a read, or keeps of it,
    #: counts towards the 384 KiB of a connection.
    largestRead: int = 65536

    #: Whether the answer is the input, whatever it is: it may then be echoed unseen, and only
    #: be counted.
    verbatim: ClassVar[bool] = False

    #: Whether any byte is progress, or only what the subclass calls `progressed` for.
    bytesAreProgress: ClassVar[bool] = True

    #: Whether reading goes on while the peer does not read: for a protocol that answers nothing
    #: of what it reads, and must see the peer's FIN.
    alwaysReads: bool = False

    owner: Owner
    _sweep: Sweep
    transport: IConnectionTransport

    state = State.NEW
    reason: Reason | None = None
    bytesIn = 0
    bytesOut = 0
    discarded = 0
    messages = 0
    truncated = 0
    pauses = 0
    broken = False
    cut = 0
    openedAt = 0.0

    # Whether the protocol knows of the connection; written by _beginProtocol.
    _protocolKnows = False
    # Whether unanswered is being asked, or has raised; written by _waits.
    _asking = False
    # Whether to drain as soon as it is OPEN; written by drain.
    _drainsLater = False
    # Why reading is stopped: a mask of the bits above; written by the producer methods.
    _paused = 0
    # Slices of a reply not made yet; written by replyEach and _makeSlices.
    _slices: Iterator[bytes] | None = None
    # The peer's FIN is in; our FIN is with the kernel.
    _inputEnded = False
    _outputEnded = False
    # Our FIN is to follow all that is answered; it has been asked for.  Written by finishOutput
    # and by _endOutput.
    _finishing = False
    _outputEnding = False
    # Input still to be answered before the drain ends us; written by drain and dataReceived.
    _quota = 0
    # Whether each read is looked at by _look; what limits how much may be read at a time, if
    # anything does.  Written by _beginToMeter.
    _metered = False
    _meter: Meter | None = None
    # When the protocol last made progress, when the peer last acknowledged something or
    # began to owe, up to which byte, and whether it owed anything at the last sweep.
    _progressAt = 0.0
    _deliveredAt = 0.0
    _delivered = 0
    _owing = False

    # -- What a subclass writes and calls ------------------------------------------------

    def begun(self) -> None:
        """The connection is there: for a protocol that speaks first."""

    def received(self, data: bytes) -> None:
        """Bytes arrived, never none.  To be written by the subclass."""
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

    def answered(self) -> None:
        """To be called when `unanswered` has become false."""
        if self._finishing or self.state is State.FINISHING or self.state is State.LINGERING:
            self._endOutput()

    def canReply(self) -> bool:
        """Whether what is replied now will be sent."""
        return not self._outputEnding and self.state not in _GONE

    def outputFull(self) -> bool:
        """Whether so much waits to be sent that no more should be made before `outputReady`."""
        return bool(self._paused & _OUTPUT_FULL)

    def holdInput(self) -> None:
        """Read no more before `releaseInput`: there is enough to do."""
        self._pause(_INPUT_HELD)

    def releaseInput(self) -> None:
        """Read on, after `holdInput`."""
        if self._paused & _INPUT_HELD:
            self._paused &= ~_INPUT_HELD
            self._readOn()

    def finishOutput(self) -> None:
        """Send FIN when all is flushed; what the peer sends is still delivered."""
        self._finishing = True
        self._endOutput()

    def reply(self, data: bytes) -> None:
        """Send ``data`` (``bytes``, best at most `SLICE`): one write, in order."""
        self.bytesOut += len(data)
        self.transport.write(data)

    def replyEach(self, slices: Iterator[bytes]) -> None:
        """
        Send what ``slices`` yields, each of at most `SLICE` bytes, made only as the peer reads.

        While it does not, no input is delivered (but see `alwaysReads`).  A second call before
        the last slice is made replaces the rest of the first.
        """
        making = self._slices is not None
        self._slices = slices
        if not making:
            self._makeSlices()

    def progressed(self) -> None:
        """Idle time begins anew."""
        self._progressAt = self._sweep.now

    def end(self, reason: Reason) -> None:
        """
        End it from our side, gracefully: all replies, FIN, then linger.

        Input is thrown away from here on.  A second call does nothing.
        """
        self._happen(Event.END, reason)

    # -- What the owner calls --------------------------------------------------------------

    def drain(self) -> None:
        """Answer what the kernel holds by now, then end (`Reason.DRAIN`)."""
        if self.state is State.OPENING:
            if self.transport.heard or self.transport.unread():
                # There may be something to answer behind the handshake.
                self._happen(Event.DRAIN)
            else:
                self.end(Reason.DRAIN)
        elif self.state is State.OPEN:
            self.transport.echoUnseen(False)
            if self._paused & _RATE:
                self._paused &= ~_RATE
                self._waitNoMore()
                self._readOn()
            most = self.owner.limits.maxBytes or math.inf
            self._quota = int(min(self.transport.unread(), most - self.bytesIn))
            self._happen(Event.DRAIN if self._quota else Event.END, Reason.DRAIN)

    def abort(self, reason: Reason) -> None:
        """End it with RST, dropping what is unsent; ``closed`` follows in a later turn."""
        if Event.ABORT not in TABLE[self.state]:
            return
        self.reason = reason
        if self._protocolKnows:
            waits = self._waits()
            if self.state in _GONE:
                # That has aborted it.
                return
            self.cut = self.transport.unsent() + self._quota + waits
        elif self._drainsLater and reason is Reason.DRAIN:
            # There may have been something to answer.
            self.cut = self.transport.unread()
        self._happen(Event.ABORT)

    def owes(self) -> bool:
        """Whether something that was answered has not arrived yet."""
        return self._protocolKnows and (
            self._slices is not None or self._waits() or self.transport.unsent() > 0
        )

    def idleSince(self) -> float | None:
        """When it became idle, in monotonic seconds; ``None`` if it is busy or ending."""
        if self.state is State.OPENING:
            return self.openedAt
        if self.state is not State.OPEN or self._paused & _RATE or self.owes():
            return None
        return max(self._progressAt, self._deliveredAt)

    def sweep(self, now: float) -> None:
        """Keep every deadline; called each second, each tick once only the kernel is left."""
        state = self.state
        if state is State.CLOSED or state is State.ABORTED:
            return
        unsent, unanswered, settling = 0, False, False
        if state is not State.OPENING:
            if self._paused & _RATE:
                self._restOrReadOn(now)
            settling = self._inputEnded and self._outputEnded
            # Not every reactor tells of an RST while nothing is read or written.
            if (settling or self._paused) and self.transport.failed():
                self.broken = True
                self.abort(Reason.RESET)
                return
            unsent = self._lookAtOutput(now)
            unanswered = not (unsent or self._outputEnding) and self._waits()
        found = verdict(
            state,
            now,
            self.owner.limits,
            self.reason,
            openedAt=self.openedAt,
            progressAt=self._progressAt,
            deliveredAt=self._deliveredAt,
            # Who waits for its turn, or has it from this moment on, has sent something.
            silent=not (self.bytesIn or self._paused & _RATE or self._progressAt == now),
            unsent=unsent,
            unanswered=unanswered,
            settling=settling,
        )
        # Asking the protocol may have aborted it.
        if found is None or self.state is not state:
            return
        event, reason = found
        if event is Event.END:
            self.end(reason)
        elif event is Event.ABORT:
            self.abort(reason)
        else:
            self._happen(event)

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

    # -- What the transport calls --------------------------------------------------------

    def connectionMade(self) -> None:
        """
        Begin.

        Whatever is raised here would leave the socket open (TRAPS 1.14), so it aborts.
        """
        self.attempt(self._happen, Event.LAYERED if self.transport.opening else Event.CONNECTED)

    def identified(self) -> None:
        """The transport knows now who the peer is."""
        if not self.owner.identified(self):
            self.abort(Reason.REFUSED)

    def handshakeCompleted(self) -> None:
        """What comes before the protocol's bytes is done (``IHandshakeListener``)."""
        self._happen(Event.READY)

    def transportFailed(self, reason: str) -> None:
        """Nothing can be read or written any more (a `Reason`); what waits is still sent."""
        self.end(Reason(reason))

    def caughtUp(self) -> None:
        """All that was `IConnectionTransport.unread` when that was asked has been delivered."""
        if self.state is State.DRAINING:
            self._quota = 0
            self.end(Reason.DRAIN)

    def dataReceived(self, data: bytes) -> None:
        """Give input to the protocol, or throw it away once we have ended."""
        if self.state is not _OPEN:
            self._lateData(data)
            return
        if self._metered:
            data = self._look(data)
        self.bytesIn += len(data)
        if self.bytesAreProgress:
            self._progressAt = self._sweep.now
        try:
            self.received(data)
        except BaseException:
            # As `attempt`, without a call more for each read.
            Connection.fault(self, Failure(), type(self).__name__)
        if self._metered and 0 < self.owner.limits.maxBytes <= self.bytesIn:
            self.end(Reason.MAX_BYTES)

    def echoed(self, count: int) -> None:
        """Input went back unseen (`verbatim`)."""
        self.bytesIn += count
        self.bytesOut += count
        self._progressAt = self._sweep.now

    def readConnectionLost(self) -> None:
        """The peer's FIN.  Twisted may say so twice (TRAPS 1.4)."""
        if self._inputEnded or self.state is State.ABORTED:
            return
        self._inputEnded = True
        self._waitNoMore()
        self.owner.inputEnded(self)
        ended = Reason.NO_CLOSE_NOTIFY if self.transport.truncated else Reason.EOF
        self._happen(Event.PEER_FIN, ended)

    def writeConnectionLost(self) -> None:
        """Our FIN is with the kernel."""
        if self.state is State.ABORTED:
            return
        self._outputEnded = True
        self._deliveredAt = self._sweep.now
        if self._inputEnded:
            self._settle()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        if self.state is not State.ABORTED:
            if not isinstance(reason.value, ConnectionClosed):
                # What the transport called has raised: a method of a subclass.
                self.reason = Reason.ERROR
            elif not isinstance(reason.value, ConnectionDone):
                self.broken = True
                if not self._outputEnded or self._inputEnded or self.reason is None:
                    self.reason = Reason.RESET
            elif self.transport.truncated or self.transport.failure:
                # Nobody shall take what was cut off for whole (L2).
                why = self.transport.failure or "the peer closed TLS without close_notify"
                reason = Failure(ConnectionLost(why))
        self._happen(Event.LOST)
        if self._protocolKnows:
            self.attempt(self.lost, reason)

    # -- Flow control --------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The transport has enough to send (`IPushProducer`): stop reading."""
        if not self._paused & _OUTPUT_FULL:
            self.pauses += 1
            self._pause(_OUTPUT_FULL)

    def resumeProducing(self) -> None:
        """The transport has sent all it had (`IPushProducer`): make more, or read on."""
        self._paused &= ~_OUTPUT_FULL
        if not self._paused & _NEXT_TURN:
            self._makeSlices()
        if not self._paused & _OUTPUT_FULL:
            self.attempt(self.outputReady)
        self._readOn()

    def stopProducing(self) -> None:
        """The transport is going down (`IPushProducer`); ``connectionLost`` follows."""

    # -- Bytes that are limited --------------------------------------------------------------

    def _beginToMeter(self) -> None:
        owner, limits = self.owner, self.owner.limits
        if limits.bytesPerSecond or owner.byteRate is not None:
            self._meter = Meter(limits.bytesPerSecond, owner.byteRate)
            self.transport.meterReads(self._allowed)
        self._metered = bool(self._meter or limits.maxBytes or owner.payload)

    def _allowed(self) -> int:
        """How many bytes may be read now (`IConnectionTransport.meterReads`); if none, it rests."""
        if self._meter is None or self.state is not _OPEN:
            return UNLIMITED
        allowed = self._meter.allowed(self._sweep.now)
        if not allowed:
            self._pause(_RATE)
            self._sweep.hurry(self)
        return allowed

    def _look(self, data: bytes) -> bytes:
        """Show a read, account for it, and cut off what is more than the peer may send."""
        if self.owner.payload is not None:
            self.owner.payload(self, data)
        # A drain waits for nothing: there is a deadline, and what may be read is known.
        if self._meter is not None and self.state is _OPEN:
            self._meter.spend(self._sweep.now, len(data))
        most = self.owner.limits.maxBytes
        if most and len(data) > most - self.bytesIn:
            self.discarded += len(data) - (most - self.bytesIn)
            return data[: most - self.bytesIn]
        return data

    def _restOrReadOn(self, now: float) -> None:
        assert self._meter is not None
        if self._stopsReading(self._paused & ~_RATE):
            # It could not read if it might.
            self._waitNoMore()
        elif self._meter.allowed(now):
            # Who had to wait is not idle; how long it may have to is idle_timeout's.
            self._progressAt = now
        else:
            return
        self._paused &= ~_RATE
        self._sweep.relax(self)
        self._readOn()

    def _waitNoMore(self) -> None:
        if self._meter is not None:
            self._meter.leave()

    def _stopsReading(self, why: int) -> bool:
        return bool(why & (_INPUT_HELD | _RATE) or (why and not self.alwaysReads))

    def _pause(self, why: int) -> None:
        self._paused |= why
        if self._stopsReading(why) and self.state is not State.LINGERING:
            self.transport.pauseProducing()

    def _readOn(self) -> None:
        # Never after EOF: Twisted would read, and report, EOF again (TRAPS 1.4).
        if not (self._stopsReading(self._paused) or self._inputEnded):
            self.transport.resumeProducing()

    def _makeSlices(self) -> None:
        """Make slices while the transport takes them, a few a turn."""
        for _ in range(SLICES):
            if self._slices is None or self._paused & _OUTPUT_FULL:
                return
            piece = self.attempt(next, self._slices, None)
            if piece is None:
                self._slices = None
                self.answered()
                return
            self.attempt(self.reply, piece)
        self._pause(_NEXT_TURN)
        self.transport.reactor.callLater(0, self._makeMoreSlices)

    def _makeMoreSlices(self) -> None:
        self._paused &= ~_NEXT_TURN
        self._makeSlices()
        self._readOn()

    def _lateData(self, data: bytes) -> None:
        """Input when it is not OPEN any more: within the drain's quota answered, else dropped."""
        if self.state is not State.DRAINING:
            self.discarded += len(data)
            return
        due = data[: self._quota]
        self.discarded += len(data) - len(due)
        self._quota -= len(due)
        if self._metered:
            self._look(due)
        self.bytesIn += len(due)
        self.attempt(self.received, due)
        if not self._quota:
            self.end(Reason.DRAIN)

    # -- The way from state to state (`echod.connection.lifecycle`) ------------------------

    def _happen(self, event: Event, reason: Reason | None = None) -> None:
        """
        Go where the table says, and do what it says.  The one place that writes `state`.

        :param reason: why it ends, if that is not known yet.
        """
        step = _STEPS[self.state].get(event)
        if step is None:
            return
        if reason is not None and self.reason is None:
            self.reason = reason
        self.state, actions = step
        for action in actions:
            action(self)

    def _enter(self) -> None:
        self._sweep = sweep = self.owner.sweep
        self.openedAt = sweep.now
        sweep.add(self)
        self.owner.opened(self)

    def _beginOpening(self) -> None:
        self.transport.beginOpening()

    def _tellEstablished(self) -> None:
        self.owner.established(self)

    def _beginProtocol(self) -> None:
        self._progressAt = self._deliveredAt = self._sweep.now
        self._protocolKnows = True
        try:
            self._beginToMeter()
            self.transport.limitReads(self.largestRead)
            if self.verbatim and not self._metered:
                self.transport.echoUnseen(True)
            self.transport.registerProducer(self, True)
            self.begun()
        except BaseException:
            # As `attempt`, without a call more for each connection.
            Connection.fault(self, Failure(), type(self).__name__)

    def _drainLater(self) -> None:
        self._drainsLater = True

    def _drainNow(self) -> None:
        if self._drainsLater:
            self.attempt(self.drain)

    def _discardInput(self) -> None:
        self._deliveredAt = self._sweep.now
        self.transport.echoUnseen(False)
        self.owner.lingering(self)
        self._sweep.hurry(self)
        # Input is thrown away at any speed: nothing can fill up any more.
        self._paused &= ~(_INPUT_HELD | _RATE)
        self._waitNoMore()
        self.transport.resumeProducing()
        self._quota = 0

    def _tellEnded(self) -> None:
        if self._protocolKnows:
            self.attempt(self.ended)

    def _endOutput(self) -> None:
        """FIN after all that has been answered, as soon as nothing is unanswered."""
        if (
            self._slices is None
            and not self._outputEnding
            and self.state is not State.ABORTED
            and not (self._protocolKnows and self._waits())
        ):
            self._outputEnding = True
            # With a paused producer registered, FIN would never be sent (TRAPS 1.3).
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()  # type: ignore[attr-defined]  # of the fourth base
            # Nobody would tell that there is room again, and none is needed.
            self._paused &= ~_OUTPUT_FULL
            self._readOn()

    def _tellInputFinished(self) -> None:
        # Answers that are still to come have their deadline from here.
        self._progressAt = self._sweep.now
        self.attempt(self.inputFinished)

    def _finish(self) -> None:
        # What the protocol was told may have made it raise; so may asking it.
        owes = self.state is State.FINISHING and self.owes()
        if self.state is not State.FINISHING:
            return
        if not owes:
            # Nothing to wait for: FIN goes with the close.
            self._outputEnded = True
            self._happen(Event.ACKNOWLEDGED)
        elif self._outputEnded:
            self._settle()
        else:
            self._endOutput()

    def _settle(self) -> None:
        """The peer's FIN is in: if ours is out, close, or wait for the rest of the answers."""
        if self._outputEnded:
            unsent = self.transport.unsent()
            self._happen(Event.UNACKNOWLEDGED if unsent else Event.ACKNOWLEDGED)

    def _settleLate(self) -> None:
        # The deadline of what is left begins anew.
        self._deliveredAt = self._sweep.now
        self._settle()

    def _watch(self) -> None:
        self._sweep.hurry(self)

    def _close(self) -> None:
        self.transport.closeNow()

    def _reset(self) -> None:
        self._slices = None
        self.transport.unregisterProducer()
        self.transport.abortConnection()

    def _leave(self) -> None:
        self._slices = None
        if self._meter is not None:
            self._waitNoMore()
            self.transport.meterReads(None)
        self._sweep.discard(self)
        self.owner.closed(self)

    # -- Faults of others ----------------------------------------------------------------

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
            Connection.fault(self, Failure(), type(self).__name__)
            return otherwise

    def fault(self, failure: Failure, name: str) -> None:
        """
        Say in the log that ``name`` raised (`tellFault`), and end this connection alone.

        `Reason.ERROR` counts them all.
        """
        tellFault(failure, f"{name} raised; its connection is aborted")
        Connection.abort(self, Reason.ERROR)
        self.reason = Reason.ERROR

    def _waits(self) -> bool:
        """
        Whether something is unanswered; no, while just that is being asked.

        Also if that cannot be told: the connection is aborted then, and no way of ending it
        otherwise may be taken.
        """
        if self._asking:
            return False
        self._asking = True
        try:
            found = bool(self.unanswered())
        except BaseException:
            # As `attempt`, without a call more.
            Connection.fault(self, Failure(), type(self).__name__)
            return True
        self._asking = False
        return found


_DOES: dict[Action, Callable[[Connection], None]] = {
    Action.ENTER: Connection._enter,
    Action.BEGIN_OPENING: Connection._beginOpening,
    Action.TELL_ESTABLISHED: Connection._tellEstablished,
    Action.BEGIN_PROTOCOL: Connection._beginProtocol,
    Action.DRAIN_LATER: Connection._drainLater,
    Action.DRAIN_NOW: Connection._drainNow,
    Action.DISCARD_INPUT: Connection._discardInput,
    Action.TELL_ENDED: Connection._tellEnded,
    Action.END_OUTPUT: Connection._endOutput,
    Action.TELL_INPUT_FINISHED: Connection._tellInputFinished,
    Action.FINISH: Connection._finish,
    Action.SETTLE: Connection._settleLate,
    Action.WATCH: Connection._watch,
    Action.CLOSE: Connection._close,
    Action.RESET: Connection._reset,
    Action.LEAVE: Connection._leave,
}

# The table with methods in place of names: looked up for each event.
_STEPS = {
    state: {
        event: (step.state, tuple(_DOES[action] for action in step.actions))
        for event, step in row.items()
    }
    for state, row in TABLE.items()
}
