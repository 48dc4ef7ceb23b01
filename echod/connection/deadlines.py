"""
Which deadlines run, and which has passed: `runningDeadlines`, `verdict`.

Pure: facts about a connection and the time in, what to do about it out.  A connection asks once a
second (`echod.connection.sweep`), each tick once only the kernel is left.

docs/architecture.md lists the deadlines, when each runs, and from when.

"Unsent" is asked of the kernel too, because a slow reader is busy, not idle: after a half-close
the whole echo may lie there, and a peer that reads it slowly causes no event at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from echod.config.limits import Limits
from echod.connection.lifecycle import Event
from echod.connection.states import Reason, State

__all__ = ["Deadline", "Facts", "runningDeadlines", "verdict"]


class Deadline(NamedTuple):
    """
    A deadline that runs.

    :ivar name: of the limit that it keeps, without ``_timeout``; empty if it is none, and there is
        nothing left to wait for.
    :ivar at: when it passes, in monotonic seconds.
    :ivar event: what happens then: `Event.END`, `Event.ABORT`, or `Event.ACKNOWLEDGED`, which
        closes.
    :ivar reason: why it ends then.
    """

    name: str
    at: float
    event: Event
    reason: Reason


class Facts(NamedTuple):
    """
    What deadlines depend on.  Times are monotonic seconds.

    :ivar state: a living one.
    :ivar reason: why it ends, if that is known already: a stall alone takes its place.
    :ivar progressAt: when a byte, or a whole message, last came or went.
    :ivar deliveredAt: when the peer last acknowledged something, or began to owe that; or our
        end.
    :ivar silent: whether nothing has come, and nothing waits for its turn to be read.
    :ivar unsent: bytes that the peer has not acknowledged.
    :ivar unanswered: whether an answer is still to come, where nothing is unsent.
    :ivar settling: whether both FINs are out.
    """

    state: State
    reason: Reason | None
    openedAt: float
    progressAt: float
    deliveredAt: float
    silent: bool
    unsent: int
    unanswered: bool
    settling: bool


def runningDeadlines(facts: Facts, limits: Limits) -> Iterator[Deadline]:
    """The deadlines that run, the one first that comes before others once it has passed."""
    state, openedAt, reason = facts.state, facts.openedAt, facts.reason
    if state is State.OPENING:
        at = openedAt + limits.handshakeTimeout
        yield Deadline("handshake", at, Event.ABORT, Reason.HANDSHAKE)
        return
    active = state is State.OPEN or state is State.DRAINING
    if active and facts.silent and limits.firstByteTimeout:
        at = openedAt + limits.firstByteTimeout
        yield Deadline("first_byte", at, Event.END, Reason.FIRST_BYTE)
    if limits.maxAge:
        at = openedAt + limits.maxAge
        if active:
            yield Deadline("max_age", at, Event.END, Reason.MAX_AGE)
        else:
            at += limits.lingerTimeout
            yield Deadline("max_age", at, Event.ABORT, reason or Reason.MAX_AGE)
    quietSince = max(facts.progressAt, facts.deliveredAt)
    if facts.unsent or (facts.unanswered and not active):
        if limits.stallTimeout:
            at = (facts.deliveredAt if facts.unsent else quietSince) + limits.stallTimeout
            yield Deadline("stall", at, Event.ABORT, Reason.STALLED)
    elif facts.settling:
        yield Deadline("", facts.deliveredAt, Event.ACKNOWLEDGED, reason or Reason.EOF)
    elif state is State.LINGERING:
        at = facts.deliveredAt + limits.lingerTimeout
        yield Deadline("linger", at, Event.ABORT, reason or Reason.EOF)
    elif active and not facts.unanswered and limits.idleTimeout:
        yield Deadline("idle", quietSince + limits.idleTimeout, Event.END, Reason.IDLE)


def verdict(facts: Facts, limits: Limits, now: float) -> Deadline | None:
    """The deadline that has passed by ``now``; ``None`` if there is nothing to do."""
    for deadline in runningDeadlines(facts, limits):
        if deadline.at <= now:
            return deadline
    return None
