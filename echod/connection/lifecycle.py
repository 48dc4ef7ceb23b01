"""
From which state to which, and what is done on the way: `TABLE`.

Pure: it knows no connection and does nothing.  `echod.connection.connection` looks up each event
here, goes to the state that is found, and does what is found, in that order.  What is not in the
table changes nothing.  The states, and every way between them::

    NEW ── layers first ──> OPENING ── ready ──> OPEN
    NEW ── connected ──> OPEN ── peer's FIN ──> FINISHING
    OPEN ── end ──> LINGERING ── unacknowledged ──> FINISHING
    OPEN ── drain ──> DRAINING ── end ──> LINGERING
    OPENING ── end ──> LINGERING
    DRAINING ── peer's FIN ──> FINISHING
    any of OPENING, OPEN, DRAINING, FINISHING, LINGERING ── lost ──> CLOSED
    any of OPENING, OPEN, DRAINING, FINISHING, LINGERING ── abort ──> ABORTED

* **NEW**: it has no transport yet.
* **OPENING**: the transport is not ready (`IConnectionTransport.opening`).  The protocol knows
  of nothing yet, and of nothing at all if it ends here; a place is taken all the same, and
  *handshake_timeout* is the deadline.
* **OPEN**: bytes go both ways.  EOF is not close: the peer's FIN ends one direction only.
* **DRAINING**: the daemon stops.  What the kernel held when it began is still read and
  answered, then we end as in LINGERING.
* **FINISHING** (RFC 862; RFC 9293 section 3.6.1): the peer has finished, we have not.
  Answers are flushed, FIN follows, and the descriptor is kept until the peer has
  acknowledged all of it, so that a peer which never reads is still counted, swept and limited.
* **LINGERING** (RFC 9293 SHLD-3): we have finished, the peer has not.  Answers are flushed,
  FIN follows, and whatever still arrives is read and thrown away: closing with unread
  input would make the kernel send RST and destroy echoed bytes on their way.
* **CLOSED**, **ABORTED**: it is over, without and with RST from us.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from echod.connection.states import State

__all__ = ["TABLE", "Action", "Event", "Step"]


class Event(Enum):
    """What happens to a connection; pictures show the value."""

    CONNECTED = "connected"  # it has a transport, and bytes may go
    LAYERED = "layers first"  # it has a transport; a PROXY header or a TLS handshake comes first
    READY = "ready"  # the header and the handshake are done
    DRAIN = "drain"  # the daemon stops, and there may be something to answer; else it is `END`
    END = "end"  # we end it: quit, idle, a limit, a drain
    PEER_FIN = "peer's FIN"
    UNACKNOWLEDGED = "unacknowledged"  # both FINs are out, and the peer has not all of ours
    ACKNOWLEDGED = "acknowledged"  # both FINs are out, and the peer has everything
    ABORT = "abort"  # we break it: a deadline, a fault, a refusal
    LOST = "lost"  # the transport is gone: closed, reset, or without a route

    # That of Enum is a function of Python's, three times as slow.
    __hash__ = object.__hash__


class Action(Enum):
    """What is done once the new state is reached."""

    ENTER = auto()  # the owner and the sweep learn of it
    BEGIN_OPENING = auto()  # the layers begin
    TELL_ESTABLISHED = auto()  # the owner learns that the layers are done
    BEGIN_PROTOCOL = auto()  # the protocol learns of it
    DRAIN_LATER = auto()  # remember that, until the layers are done
    DRAIN_NOW = auto()  # if it was remembered
    DISCARD_INPUT = auto()  # what arrives from here on is read and thrown away
    TELL_ENDED = auto()  # the protocol learns that no more will be delivered
    END_OUTPUT = auto()  # our FIN, after all that has been answered
    TELL_INPUT_FINISHED = auto()  # the protocol learns of the peer's FIN
    FINISH = auto()  # our FIN, after all that has been answered; at once if nothing is owed
    SETTLE = auto()  # `UNACKNOWLEDGED` or `ACKNOWLEDGED`, once our FIN is out
    WATCH = auto()  # look at it each tick: no event tells of the last acknowledgement
    CLOSE = auto()  # `LOST` comes meanwhile
    RESET = auto()  # RST; `LOST` comes in a later turn
    LEAVE = auto()  # the owner and the sweep learn that it is gone


class Step(NamedTuple):
    """Where an event leads, and what is done there, in order."""

    state: State
    actions: tuple[Action, ...] = ()


def _to(state: State, *actions: Action) -> Step:
    return Step(state, actions)


_ENDED = _to(State.LINGERING, Action.DISCARD_INPUT, Action.TELL_ENDED, Action.END_OUTPUT)
_FINISHED = _to(State.FINISHING, Action.TELL_INPUT_FINISHED, Action.FINISH)
_ABORTED = _to(State.ABORTED, Action.RESET)
_LOST = _to(State.CLOSED, Action.LEAVE)

#: By state, what each event does.
TABLE: dict[State, dict[Event, Step]] = {
    State.NEW: {
        Event.CONNECTED: _to(State.OPEN, Action.ENTER, Action.BEGIN_PROTOCOL),
        Event.LAYERED: _to(State.OPENING, Action.ENTER, Action.BEGIN_OPENING),
    },
    State.OPENING: {
        Event.READY: _to(
            State.OPEN, Action.TELL_ESTABLISHED, Action.BEGIN_PROTOCOL, Action.DRAIN_NOW
        ),
        Event.DRAIN: _to(State.OPENING, Action.DRAIN_LATER),
        Event.END: _ENDED,
        Event.PEER_FIN: _to(State.OPENING, Action.CLOSE),
        Event.ABORT: _ABORTED,
        Event.LOST: _LOST,
    },
    State.OPEN: {
        Event.DRAIN: _to(State.DRAINING),
        Event.END: _ENDED,
        Event.PEER_FIN: _FINISHED,
        Event.ABORT: _ABORTED,
        Event.LOST: _LOST,
    },
    State.DRAINING: {
        Event.END: _ENDED,
        Event.PEER_FIN: _FINISHED,
        Event.ABORT: _ABORTED,
        Event.LOST: _LOST,
    },
    State.FINISHING: {
        Event.UNACKNOWLEDGED: _to(State.FINISHING, Action.WATCH),
        Event.ACKNOWLEDGED: _to(State.FINISHING, Action.CLOSE),
        Event.ABORT: _ABORTED,
        Event.LOST: _LOST,
    },
    State.LINGERING: {
        Event.PEER_FIN: _to(State.LINGERING, Action.SETTLE),
        Event.UNACKNOWLEDGED: _to(State.FINISHING, Action.WATCH),
        Event.ACKNOWLEDGED: _to(State.LINGERING, Action.CLOSE),
        Event.ABORT: _ABORTED,
        Event.LOST: _LOST,
    },
    State.CLOSED: {},
    State.ABORTED: {Event.LOST: _to(State.ABORTED, Action.LEAVE)},
}
