"""
One connection: flow control, half-close and deadlines, decided in this room and nowhere else.

A protocol is a subclass that says what to answer (`Connection.received`).  When there is something
to read, when a direction ends, and when it is over is decided here.  `Connection` is what the
transport, the listener and the sweep talk to; it stands on three floors, each of which knows only
those below it:

* `echod.connection.half_close`: what is owed, and the ends of both directions;
* `echod.connection.flow`: when it reads; replies that are made slice by slice;
* `echod.connection.hooks`: what a protocol writes, and how that is called.

`echod.connection.lifecycle` draws the states, tells what each is, and has the table of what leads
from one to another; `Connection._happen` goes that way, and nothing else does.
`echod.connection.deadlines` tells once a second what is overdue.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.error import ConnectionClosed, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.connection.deadlines import verdict
from echod.connection.flow import INPUT_HELD, LIMITED, RATE
from echod.connection.half_close import HalfClose
from echod.connection.lifecycle import TABLE, Action, Event
from echod.connection.states import GONE, Reason, State

__all__ = ["Connection"]

# Looked up for each read and each connection: EnumType has a __getattr__, so that its members cost
# ten times as much as other attributes (CPython 3.11).
_OPEN, _ABORTED = State.OPEN, State.ABORTED
_CONNECTED, _LAYERED = Event.CONNECTED, Event.LAYERED
_PEER_FIN, _LOST, _EOF = Event.PEER_FIN, Event.LOST, Reason.EOF
# What a timeline tells of them.
_IN_TIMELINE = {
    Event.READY: "handshake",
    Event.DRAIN: "drain",
    Event.END: "ending",
    Event.PEER_FIN: "peer_fin",
}
_LARGEST_READ = HalfClose.largestRead  # what a transport reads at most unless it is told


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Connection(HalfClose):
    """
    A connection that echoes nothing yet: subclass it and write `received`.

    A subclass **writes** what `ProtocolHooks` has: `begun`, `received`, `inputFinished`, `ended`,
    `outputReady`, `lost`, `unanswered`, and the attributes beside them.

    It **calls**, and does not write, `reply`, `replyEach`, `progressed` and `end`; one that
    answers later also `answered`, `canReply`, `outputFull`, `holdInput`, `releaseInput`,
    `finishOutput`, `readAlways` and `quietSince`; and where it calls others `attempt` and `fault`.
    It never touches its transport, but for the addresses.

    It may **extend**, and then calls the inherited one: `sweep`, `pauseProducing`,
    `writeConnectionLost`, `heldBytes`.

    :ivar owner: the listener; set by it before ``makeConnection``.
    :ivar state: where it stands (`State`); written by `_happen` alone.
    :ivar reason: why it ended, or ``None`` while nothing has ended it.
    :ivar discarded: bytes read and thrown away, after our end.
    :ivar messages: whole messages, where the protocol has messages.
    :ivar truncated: 1 if the peer finished in the middle of a message.
    :ivar pauses: how often reading stopped because the peer did not read.
    :ivar broken: whether it ended with the peer's RST, or as a lost route does.
    :ivar cut: bytes that the peer was still owed when we gave up; none if it gave up.
    """

    discarded = 0
    messages = 0
    truncated = 0
    cut = 0

    # Whether to drain as soon as it is OPEN; written by drain.
    _drainsLater = False
    # Input still to be answered before the drain ends us; written by drain and _lateData.
    _quota = 0

    # -- To be called by a subclass --------------------------------------------------------

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
            if self._paused & RATE:
                self._waitNoMore()
                self._endRest()
            most = self.owner.limits.maxBytes or math.inf
            self._quota = int(min(self.transport.unread(), most - self.bytesIn))
            self._happen(Event.DRAIN if self._quota else Event.END, Reason.DRAIN)

    def abort(self, reason: Reason) -> None:
        """End it with RST, dropping what is unsent; ``closed`` follows in a later turn."""
        self._breakOff(reason)

    def _breakOff(self, reason: Reason) -> None:
        if Event.ABORT not in TABLE[self.state]:
            return
        self.reason = reason
        if self._protocolKnows:
            waits = self._waits()
            if self.state in GONE:
                # That has aborted it.
                return
            if reason is not Reason.RESET:
                self.cut = self.unacknowledged(self.transport.unsent()) + self._quota + waits
        elif self._drainsLater and reason is Reason.DRAIN:
            # There may have been something to answer.
            self.cut = self.transport.unread()
        self._happen(Event.ABORT)

    def sweep(self, now: float) -> None:
        """Keep every deadline; called each second, each tick once only the kernel is left."""
        state = self.state
        if state is State.CLOSED or state is State.ABORTED:
            return
        unsent, unanswered, settling = 0, False, False
        if state is not State.OPENING:
            if self._paused & RATE:
                self._restOrReadOn(now)
            settling = self._inputEnded and self._outputEnded
            # Not every reactor tells of an RST while nothing is read or written.
            if (settling or self._paused) and self.transport.failed():
                self.broken = True
                self.abort(Reason.RESET)
                return
            unsent = self._lookAtOutput(now)
            unanswered = not (unsent or self._outputEnding) and self._waits()
        facts = self._facts(now, unsent, unanswered, settling)
        found = verdict(facts, self.owner.limits, now)
        # Asking the protocol may have aborted it.
        if found is None or self.state is not state:
            return
        if self.timeline is not None and found.event is not Event.ACKNOWLEDGED:
            self.timeline.add("deadline", found.name)
        if found.event is Event.END:
            self.end(found.reason)
        elif found.event is Event.ABORT:
            self.abort(found.reason)
        else:
            self._happen(found.event)

    # -- What the transport calls --------------------------------------------------------

    def connectionMade(self) -> None:
        """
        Begin.

        Whatever is raised here would leave the socket open, so it aborts.
        """
        try:
            self._happen(_LAYERED if self.transport.opening else _CONNECTED)
        except BaseException:
            self._raised()

    def identified(self) -> None:
        """The transport knows now who the peer is."""
        if self.timeline is not None:
            self.timeline.add("header")
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
        if self._watched:
            data = self._look(data)
        self._seen += len(data)
        if self.bytesAreProgress:
            self._progressAt = self._sweep.now
        try:
            self.received(data)
        except BaseException:
            self._raised()
        if self._watched and 0 < self.owner.limits.maxBytes <= self.bytesIn:
            self.end(Reason.MAX_BYTES)

    def readConnectionLost(self) -> None:
        """The peer's FIN.  Twisted may say so twice."""
        if self._inputEnded or self.state is _ABORTED:
            return
        self._inputEnded = True
        if self._meter is not None:
            self._waitNoMore()
        self.owner.inputEnded(self)
        self._happen(_PEER_FIN, Reason.NO_CLOSE_NOTIFY if self.transport.truncated else _EOF)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        if self.state is not _ABORTED:
            if not isinstance(reason.value, ConnectionClosed):
                # What the transport called has raised: a method of a subclass.
                self.reason = Reason.ERROR
            elif not isinstance(reason.value, ConnectionDone):
                self.broken = True
                if self.timeline is not None:
                    self.timeline.add("rst", self.endedBy)
                if not self._outputEnded or self._inputEnded or self.reason is None:
                    self.reason = Reason.RESET
            elif self.transport.truncated or self.transport.failure:
                # Nobody shall take what was cut off for whole.
                why = self.transport.failure or "the peer closed TLS without close_notify"
                reason = Failure(ConnectionLost(why))
        self._happen(_LOST)
        if self._protocolKnows:
            try:
                self.lost(reason)
            except BaseException:
                self._raised()

    def _look(self, data: bytes) -> bytes:
        """Show a read, account for it, and cut off what is more than the peer may send."""
        if self.timeline is not None:
            self.timeline.repeated("read", len(data))
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

    def _lateData(self, data: bytes) -> None:
        """Input when it is not OPEN any more: within the drain's quota answered, else dropped."""
        if self.state is not State.DRAINING:
            self.discarded += len(data)
            return
        due = data[: self._quota]
        self.discarded += len(data) - len(due)
        self._quota -= len(due)
        if self._watched:
            self._look(due)
        self._seen += len(due)
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
        if self.timeline is not None and event in _IN_TIMELINE:
            why = self.reason if event is Event.END else None
            self.timeline.add(_IN_TIMELINE[event], "" if why is None else why.value)
        for action in actions:
            action(self)

    def _enter(self) -> None:
        self._sweep = sweep = self.owner.sweep
        sweep.add(self)
        self.openedAt = sweep.now
        # Its own also where there is none: CPython reads an attribute of the class more slowly.
        self.timeline = self.owner.beginTimeline() if self.owner.timeline else None
        self.owner.opened(self)

    def _beginProtocol(self) -> None:
        self._progressAt = self._deliveredAt = self._sweep.now
        self._protocolKnows = True
        try:
            self._beginToMeter()
            if self.largestRead != _LARGEST_READ:
                self.transport.limitReads(self.largestRead)
            if self.verbatim and self._watched != LIMITED:
                told = None if self.timeline is None else self.timeline.echoed
                self.transport.echoUnseen(True, self.inPlace, self._sweep, told)
            self.transport.registerProducer(self, True)
            self.begun()
        except BaseException:
            self._raised()

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
        self._resume(INPUT_HELD)
        self._resume(RATE)
        self._waitNoMore()
        self.transport.resumeProducing()
        self._quota = 0

    def _tellEnded(self) -> None:
        if self._protocolKnows:
            self.attempt(self.ended)

    def _leave(self) -> None:
        self._slices = None
        if self._meter is not None:
            self._endMetering()
        self._sweep.discard(self)
        if self.timeline is not None:
            self.timeline.add("end", self.endedHow)
        self.owner.closed(self)


_DOES: dict[Action, Callable[[Connection], None]] = {
    Action.ENTER: Connection._enter,
    Action.BEGIN_OPENING: lambda self: self.transport.beginOpening(),
    Action.TELL_ESTABLISHED: lambda self: self.owner.established(self),
    Action.BEGIN_PROTOCOL: Connection._beginProtocol,
    Action.DRAIN_LATER: Connection._drainLater,
    Action.DRAIN_NOW: Connection._drainNow,
    Action.DISCARD_INPUT: Connection._discardInput,
    Action.TELL_ENDED: Connection._tellEnded,
    Action.END_OUTPUT: Connection._endOutput,
    Action.TELL_INPUT_FINISHED: Connection._tellInputFinished,
    Action.FINISH: Connection._finish,
    Action.SETTLE: Connection._settleLate,
    Action.WATCH: lambda self: self._sweep.hurry(self),
    Action.CLOSE: lambda self: self.transport.closeNow(),
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
