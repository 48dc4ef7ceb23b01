"""
What a reload makes of the listeners that there are: which of them goes on as which.

A listener goes on at its socket.  Where the system chose the port, the port belongs to who serves
there: see `match`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from echod.config.endpoints import overlap
from echod.errors import ListenError
from echod.server.listener import Likeness, Listener, ListenerPlan

__all__ = ["checkOwn", "match"]


Kind = TypeVar("Kind", bound=Listener)


def match(before: Sequence[Kind], plans: Sequence[ListenerPlan]) -> list[Kind | None]:
    """
    For each plan the listener that goes on as it, or ``None`` where a new one is needed.

    Each listener goes on once.  Several can be for the same plan at any port (``tcp:0``) alone:
    the one that is most like it does, and of those that are as like as each other the first.
    """
    found: list[Kind | None] = [None] * len(plans)
    left = [listener for listener in before if listener.listens]
    for likeness in (Likeness.ALL, Likeness.BUT_LIMITS, Likeness.KIND):
        for index, plan in enumerate(plans):
            if found[index] is not None:
                continue
            for listener in left:
                if listener.plan.likeness(plan) >= likeness:
                    found[index] = listener
                    left.remove(listener)
                    break
    return found


def checkOwn(before: Sequence[Listener], plan: ListenerPlan) -> None:
    """
    See that nobody of ``before`` has the address of a new listener.

    :raises ListenError: who has it, and what to do.
    """
    for listener in before:
        if (
            plan.descriptor is None
            and listener.listens
            and overlap(plan.endpoint, listener.endpoint)
        ):
            raise ListenError(
                f"{plan.place}: cannot listen on {plan.endpoint}: this daemon's own"
                f" {listener.describe()} has the address; take that one out and reload,"
                " then add the new one and reload again"
            )
