"""
When a connection reads, and how a long reply is made: `FlowControl`.

The connection is its transport's push producer, so reading stops while more than 64 KiB wait to be
sent; a reply that grows is made slice by slice, and a protocol that has enough to do stops reading
itself.  Each reason to stop reading is a bit of one mask and has one owner, who alone sets and
clears it, so that none undoes another.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from echod.connection.hooks import ProtocolHooks
from echod.connection.metering import UNLIMITED, Meter
from echod.connection.states import State

__all__ = [
    "FOR_TIMELINE",
    "INPUT_HELD",
    "LIMITED",
    "OUTPUT_FULL",
    "PAUSES",
    "RATE",
    "SLICE",
    "SLICES",
    "FlowControl",
]

#: The largest piece of a reply that is made by hand, in bytes: Twisted's own high-water
#: mark, so that one slice over it pauses the making of the next.
SLICE = 65536
#: Slices made in one turn at most: a peer that reads as fast as they are made would have the
#: turn for itself.
SLICES = 4

# Reasons to stop reading: bits of `FlowControl._paused`, and whose they are.
#: The transport's: as much waits to be sent as it may.
OUTPUT_FULL = 1
#: The protocol's: it has enough to do.
INPUT_HELD = 2
#: The making of slices: more of them come in the next turn.
NEXT_TURN = 4
#: The meter's: as many bytes have been read as may be by now.
RATE = 8
#: What they are called.
PAUSES = {
    OUTPUT_FULL: "output_full",
    INPUT_HELD: "input_held",
    NEXT_TURN: "next_turn",
    RATE: "rate",
}
#: Why each read is looked at: a timeline tells of it, or it is limited, or shown.
FOR_TIMELINE, LIMITED = 1, 2
# Those that a timeline tells: what lasts for a turn is none of them.
_LASTING = (OUTPUT_FULL, INPUT_HELD, RATE)


@implementer(IPushProducer)
class FlowControl(ProtocolHooks):
    """
    Pauses, slices and rates.

    :ivar pauses: how often reading stopped because the peer did not read.
    """

    pauses = 0
    # Why reading is stopped: a mask of the bits above.
    _paused = 0
    # Slices of a reply not made yet; written by replyEach and _makeSlices.
    _slices: Iterator[bytes] | None = None
    # The peer's FIN is in; written by readConnectionLost.
    _inputEnded = False
    # When the protocol last made progress; written for each read, and by progressed.
    _progressAt = 0.0
    # Why each read is looked at by Connection._look, if it is: `FOR_TIMELINE`, or `LIMITED`, which
    # may change it; what limits how much may be read at a time, if anything does.  Written by
    # _beginToMeter.
    _watched = 0
    _meter: Meter | None = None

    # -- To be called by a subclass --------------------------------------------------------

    def progressed(self) -> None:
        """Idle time begins anew."""
        self._progressAt = self._sweep.now

    def outputFull(self) -> bool:
        """Whether so much waits to be sent that no more should be made before `outputReady`."""
        return bool(self._paused & OUTPUT_FULL)

    def holdInput(self) -> None:
        """Read no more before `releaseInput`: there is enough to do."""
        self._pause(INPUT_HELD)

    def releaseInput(self) -> None:
        """Read on, after `holdInput`."""
        if self._paused & INPUT_HELD:
            self._resume(INPUT_HELD)
            self._readOn()

    def readAlways(self, always: bool) -> None:
        """From now on `alwaysReads` is this."""
        self.alwaysReads = always
        if always:
            self._readOn()
        elif self._paused:
            self._pause(self._paused)

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

    def reply(self, data: bytes) -> None:
        """`Connection.reply`; a subclass has it."""
        raise NotImplementedError

    def answered(self) -> None:
        """`Connection.answered`; a subclass has it."""
        raise NotImplementedError

    def sweep(self, now: float) -> None:
        """`Connection.sweep`; a subclass has it."""
        raise NotImplementedError

    # -- What the transport calls ----------------------------------------------------------

    def pauseProducing(self) -> None:
        """The transport has enough to send (`IPushProducer`): stop reading."""
        if not self._paused & OUTPUT_FULL:
            self.pauses += 1
            self._pause(OUTPUT_FULL)

    def resumeProducing(self) -> None:
        """The transport has sent all it had (`IPushProducer`): make more, or read on."""
        self._resume(OUTPUT_FULL)
        if not self._paused & NEXT_TURN:
            self._makeSlices()
        if not self._paused & OUTPUT_FULL:
            self.attempt(self.outputReady)
        self._readOn()

    def stopProducing(self) -> None:
        """The transport is going down (`IPushProducer`); ``connectionLost`` follows."""

    # -- Pauses ----------------------------------------------------------------------------

    def _stopsReading(self, why: int) -> bool:
        return bool(why & (INPUT_HELD | RATE) or (why and not self.alwaysReads))

    def pausedBy(self) -> list[str]:
        """Why reading is stopped: the names of all reasons that there are."""
        return [name for bit, name in PAUSES.items() if self._paused & bit]

    def _pause(self, why: int) -> None:
        if self.timeline is not None and not self._paused & why and why in _LASTING:
            self.timeline.repeated("pause", reason=PAUSES[why])
        self._paused |= why
        if self._stopsReading(why) and self.state is not State.LINGERING:
            self.transport.pauseProducing()

    def _resume(self, why: int) -> None:
        """This is no reason any more; others may be."""
        if self.timeline is not None and self._paused & why:
            self.timeline.repeated("resume", reason=PAUSES[why])
        self._paused &= ~why

    def _readOn(self) -> None:
        # Never after EOF: Twisted would read, and report, EOF again.
        if not (self._stopsReading(self._paused) or self._inputEnded):
            self.transport.resumeProducing()

    # -- Slices ----------------------------------------------------------------------------

    def _makeSlices(self) -> None:
        """Make slices while the transport takes them, a few a turn."""
        for _ in range(SLICES):
            if self._slices is None or self._paused & OUTPUT_FULL:
                return
            piece = self.attempt(next, self._slices, None)
            if piece is None:
                self._slices = None
                self.answered()
                return
            self.attempt(self.reply, piece)
        self._pause(NEXT_TURN)
        self.transport.reactor.callLater(0, self._makeMoreSlices)

    def _makeMoreSlices(self) -> None:
        self._paused &= ~NEXT_TURN
        self._makeSlices()
        self._readOn()

    # -- Rates (`echod.connection.metering`) ---------------------------------------------------

    def _beginToMeter(self) -> None:
        owner, limits = self.owner, self.owner.limits
        if limits.bytesPerSecond or owner.byteRate is not None:
            self._meter = Meter(limits.bytesPerSecond, owner.byteRate)
            self.transport.meterReads(self._allowed)
        if self._meter or limits.maxBytes or owner.payload:
            self._watched = LIMITED
        elif self.timeline is not None:
            self._watched = FOR_TIMELINE

    def showReads(self) -> None:
        """The owner wants to see what is read, from now on (`Owner.payload`)."""
        if self.state is State.OPEN and self._watched != LIMITED:
            self._watched = LIMITED
            self.transport.echoUnseen(False)

    def _allowed(self) -> int:
        """How many bytes may be read now (`IConnectionTransport.meterReads`); if none, it rests."""
        if self._meter is None or self.state is not State.OPEN:
            return UNLIMITED
        allowed = self._meter.allowed(self._sweep.now)
        if not allowed:
            self._pause(RATE)
            self._sweep.hurry(self)
        return allowed

    def _restOrReadOn(self, now: float) -> None:
        assert self._meter is not None
        if self._stopsReading(self._paused & ~RATE):
            # It could not read if it might.
            self._waitNoMore()
        elif self._meter.allowed(now):
            # Who had to wait is not idle; how long it may have to is idle_timeout's.
            self._progressAt = now
        else:
            return
        self._endRest()

    def _endRest(self) -> None:
        self._resume(RATE)
        self._sweep.relax(self)
        self._readOn()

    def _waitNoMore(self) -> None:
        if self._meter is not None:
            self._meter.leave()

    def _endMetering(self) -> None:
        self._waitNoMore()
        self.transport.meterReads(None)
