"""
Which deadline has passed: `verdict`.

Pure: facts about a connection and the time in, what to do about it out.  A connection asks once a
second (`echod.connection.sweep`), each tick once only the kernel is left.

docs/architecture.md lists the deadlines, when each runs, and from when.

"Unsent" is asked of the kernel too, because a slow reader is busy, not idle: after a half-close
the whole echo may lie there, and a peer that reads it slowly causes no event at all.
"""

from __future__ import annotations

from typing import NamedTuple

from echod.config.limits import Limits
from echod.connection.lifecycle import Event
from echod.connection.states import Reason, State

__all__ = ["Verdict", "verdict"]


class Verdict(NamedTuple):
    """
    What is to happen: `Event.END`, `Event.ABORT` or `Event.ACKNOWLEDGED`, which closes.

    :ivar reason: why it ends.
    """

    event: Event
    reason: Reason


def verdict(
    state: State,
    now: float,
    limits: Limits,
    reason: Reason | None,
    *,
    openedAt: float,
    progressAt: float,
    deliveredAt: float,
    silent: bool,
    unsent: int,
    unanswered: bool,
    settling: bool,
) -> Verdict | None:
    """
    What to do about the deadlines of a connection; ``None`` for nothing.

    Times are monotonic seconds.

    :param state: a living one.
    :param reason: why it ends, if that is known already: a stall alone takes its place.
    :param progressAt: when a byte, or a whole message, last came or went.
    :param deliveredAt: when the peer last acknowledged something, or began to owe that; or our
        end.
    :param silent: whether nothing has come, and nothing waits for its turn to be read.
    :param unsent: bytes that the peer has not acknowledged.
    :param unanswered: whether an answer is still to come, where nothing is unsent.
    :param settling: whether both FINs are out.
    """
    age = now - openedAt
    if state is State.OPENING:
        return Verdict(Event.ABORT, Reason.HANDSHAKE) if age >= limits.handshakeTimeout else None
    active = state is State.OPEN or state is State.DRAINING
    if active and silent and 0 < limits.firstByteTimeout <= age:
        return Verdict(Event.END, Reason.FIRST_BYTE)
    if limits.maxAge:
        if active and age >= limits.maxAge:
            return Verdict(Event.END, Reason.MAX_AGE)
        if not active and age >= limits.maxAge + limits.lingerTimeout:
            return Verdict(Event.ABORT, reason or Reason.MAX_AGE)
    quiet = now - max(progressAt, deliveredAt)
    if unsent or (unanswered and not active):
        still = now - deliveredAt if unsent else quiet
        if 0 < limits.stallTimeout <= still:
            return Verdict(Event.ABORT, Reason.STALLED)
    elif settling:
        return Verdict(Event.ACKNOWLEDGED, reason or Reason.EOF)
    elif state is State.LINGERING:
        if now - deliveredAt >= limits.lingerTimeout:
            return Verdict(Event.ABORT, reason or Reason.EOF)
    elif active and not unanswered and 0 < limits.idleTimeout <= quiet:
        return Verdict(Event.END, Reason.IDLE)
    return None
