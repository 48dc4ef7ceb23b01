"""`echod.connection.deadlines`: each deadline just before and just at it, and which goes first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.config.limits import Limits
from echod.connection.deadlines import Facts, runningDeadlines, verdict
from echod.connection.lifecycle import TABLE, Event
from echod.connection.states import Reason, State

#: All different, so that none is taken for another.
LIMITS = Limits(
    handshakeTimeout=3,
    firstByteTimeout=5,
    lingerTimeout=7,
    stallTimeout=11,
    idleTimeout=13,
    maxAge=100,
)
NONE = Limits(firstByteTimeout=0, stallTimeout=0, idleTimeout=0, maxAge=0)
LIVING = [State.OPENING, State.OPEN, State.DRAINING, State.FINISHING, State.LINGERING]


def judged(
    state: State, now: float, limits: Limits = LIMITS, reason: Reason | None = None, **facts: Any
) -> tuple[Event, Reason] | None:
    """The verdict on somebody who has talked at 0, and whom nothing is owed."""
    talked: dict[str, Any] = {
        "openedAt": 0.0,
        "progressAt": 0.0,
        "deliveredAt": 0.0,
        "silent": False,
        "unsent": 0,
        "unanswered": False,
        "settling": False,
    }
    found = verdict(Facts(state=state, reason=reason, **{**talked, **facts}), limits, now)
    return None if found is None else (found.event, found.reason)


@pytest.mark.parametrize(
    ("state", "at", "facts", "event", "reason"),
    [
        (State.OPENING, 3, {}, Event.ABORT, Reason.HANDSHAKE),
        (State.OPEN, 5, {"silent": True}, Event.END, Reason.FIRST_BYTE),
        (State.OPEN, 13, {}, Event.END, Reason.IDLE),
        (State.DRAINING, 13, {}, Event.END, Reason.IDLE),
        (State.OPEN, 18, {"progressAt": 5.0}, Event.END, Reason.IDLE),
        (State.OPEN, 17, {"deliveredAt": 4.0}, Event.END, Reason.IDLE),
        (State.OPEN, 100, {"progressAt": 99.0}, Event.END, Reason.MAX_AGE),
        (State.OPEN, 100, {"unsent": 1, "deliveredAt": 99.0}, Event.END, Reason.MAX_AGE),
        (State.FINISHING, 107, {"unsent": 1, "deliveredAt": 99.0}, Event.ABORT, Reason.MAX_AGE),
        (State.OPEN, 11, {"unsent": 1}, Event.ABORT, Reason.STALLED),
        (State.OPEN, 11, {"unsent": 1, "progressAt": 9.0}, Event.ABORT, Reason.STALLED),
        (State.FINISHING, 15, {"unsent": 1, "deliveredAt": 4.0}, Event.ABORT, Reason.STALLED),
        (State.FINISHING, 15, {"unanswered": True, "progressAt": 4.0}, Event.ABORT, Reason.STALLED),
        (State.LINGERING, 11, {"unanswered": True}, Event.ABORT, Reason.STALLED),
        (State.LINGERING, 7, {}, Event.ABORT, Reason.EOF),
        (State.LINGERING, 9, {"deliveredAt": 2.0}, Event.ABORT, Reason.EOF),
    ],
)
def test_atADeadline(
    state: State, at: float, facts: dict[str, Any], event: Event, reason: Reason
) -> None:
    """Nothing before it, and what the deadline says at it."""
    assert judged(state, at - 0.01, **facts) is None
    assert judged(state, at, **facts) == (event, reason)


@pytest.mark.parametrize(
    ("state", "facts"),
    [
        (State.OPEN, {"unsent": 1, "deliveredAt": 1000.0}),
        (State.OPEN, {"unanswered": True}),
        (State.FINISHING, {}),
    ],
)
def test_busyIsNotIdle(state: State, facts: dict[str, Any]) -> None:
    """Who reads slowly, or waits for an answer, is not idle; and who has finished cannot be."""
    limits = Limits(idleTimeout=13, stallTimeout=11, maxAge=0)
    assert judged(state, 1000, limits, **facts) is None


def test_unsentGoesFirst() -> None:
    """What is unsent stalls; nobody lingers, or is closed, meanwhile."""
    for settling in (False, True):
        assert judged(State.LINGERING, 10, unsent=1, settling=settling) is None
        stalled = judged(State.LINGERING, 11, unsent=1, settling=settling)
        assert stalled == (Event.ABORT, Reason.STALLED)


def test_closes() -> None:
    """Both FINs are out, and the peer has everything: at once, without a deadline."""
    assert judged(State.FINISHING, 0, reason=Reason.EOF, settling=True) == (
        Event.ACKNOWLEDGED,
        Reason.EOF,
    )


@pytest.mark.parametrize("at", [7, 107])
def test_firstCauseStays(at: float) -> None:
    """Whose end has taken too long has ended for what began it."""
    assert judged(State.LINGERING, at, reason=Reason.QUIT) == (Event.ABORT, Reason.QUIT)


def test_stallTakesItsPlace() -> None:
    """But bytes that were owed are lost: that is told."""
    found = judged(State.LINGERING, 11, reason=Reason.QUIT, unsent=1)
    assert found == (Event.ABORT, Reason.STALLED)


@given(
    state=st.sampled_from(LIVING[1:]),
    limits=st.sampled_from([LIMITS, NONE]),
    now=st.floats(0, 1000),
    progressAt=st.floats(0, 1000),
    deliveredAt=st.floats(0, 1000),
    silent=st.booleans(),
    unsent=st.integers(0, 1),
    unanswered=st.booleans(),
    settling=st.booleans(),
)
def test_whateverTheFacts(
    state: State, limits: Limits, now: float, settling: bool, **facts: Any
) -> None:
    """The state's row has what is to happen; without limits only a lingering peer is ended."""
    facts["settling"] = settling and state in (State.FINISHING, State.LINGERING)
    found = judged(state, now, limits, **facts)
    assert found is None or found[0] in TABLE[state]
    if limits is NONE and found is not None and found[0] is not Event.ACKNOWLEDGED:
        assert (state, found[0]) == (State.LINGERING, Event.ABORT)


@given(
    st.sampled_from(LIVING),
    st.booleans(),
    st.integers(0, 1),
    st.booleans(),
    st.booleans(),
    st.integers(0, 50),
)
def test_announced(
    state: State, silent: bool, unsent: int, unanswered: bool, settling: bool, quiet: int
) -> None:
    """The deadline that runs out first is the first to pass, at its time and not before."""
    facts = Facts(state, None, 0.0, float(quiet), 0.0, silent, unsent, unanswered, settling)
    first = min(runningDeadlines(facts, LIMITS), key=lambda each: each.at, default=None)
    if first is None:
        assert verdict(facts, LIMITS, 1e9) is None
    else:
        assert verdict(facts, LIMITS, first.at - 0.5) is None
        assert verdict(facts, LIMITS, first.at) in list(runningDeadlines(facts, LIMITS))
