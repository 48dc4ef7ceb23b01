"""
From the listeners that there are to those of another plan, all of them or none.

`prepare` does everything that can fail; if something does, it undoes what it has done.  What it
returns can only be carried out: `Reload.commit` cannot fail.  Before that the log says nothing of
what is to be served.

A listener goes on at its socket.  Where the system chose the port, the port belongs to who serves
there: see `match`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.logger import Logger

from echod.config.endpoints import overlap
from echod.errors import ConfigurationError, ListenError
from echod.server.descriptors import descriptorsFor
from echod.server.listener import Likeness, Listener, ListenerPlan
from echod.server.plan import Plan
from echod.server.reload_changes import Changes, tellSettings

__all__ = ["Reload", "Succession", "prepare"]

_log = Logger()


@dataclass(frozen=True)
class Succession:
    """
    Who serves what one listener's plan says, now and from the reload on.

    :ivar plan: what is to be served.
    :ivar current: who listens there now, if anybody does.
    :ivar heir: who is to: ``current`` itself where nothing has changed.
    """

    plan: ListenerPlan
    current: Listener | None
    heir: Listener

    @property
    def replaced(self) -> Listener | None:
        """Who hands its socket over to the heir, if anybody does."""
        return None if self.current is self.heir else self.current

    def prepareHeir(self) -> None:
        """
        Have the heir bind, or be ready to take over; `abandonHeir` undoes it.

        :raises ConfigurationError: the protocol raised.
        :raises ListenError: the address cannot be had.
        """
        if self.current is None:
            self.heir.bind()
        elif self.replaced is not None:
            self.heir.prepareTakeOver(self.replaced)

    def abandonHeir(self) -> None:
        """Undo `prepareHeir`, also one that has raised or was not called."""
        if self.current is not self.heir:
            self.heir.abandon()

    def commit(self) -> None:
        """Have the heir serve.  This does not fail."""
        if self.current is None:
            self.heir.tellListening()
        elif self.replaced is not None:
            self.heir.takeOver(self.replaced)
        self.heir.renew(self.plan)


@dataclass(frozen=True)
class Reload:
    """
    One that is prepared: every heir has bound its endpoint, or is ready to take it over.

    :ivar before: the plan that was served.
    :ivar plan: the one to be carried out.
    :ivar successions: one for each of its listeners, in its order.
    :ivar gone: the listeners of now that nobody asks for any more.
    """

    before: Plan
    plan: Plan
    successions: Sequence[Succession]
    gone: Sequence[Listener]

    @property
    def listeners(self) -> list[Listener]:
        """Who serves from the reload on, in the plan's order."""
        return [each.heir for each in self.successions]

    @property
    def replaced(self) -> list[Listener]:
        """Who hands its socket over at `commit`; its connections go on."""
        return [each.replaced for each in self.successions if each.replaced is not None]

    def commit(self) -> None:
        """
        Have every heir serve.  This does not fail.

        Those that are `gone` serve on; whoever commits retires them.
        """
        for note in self.plan.notes:
            _log.warn("{note}", event="note", note=note)
        changes = [
            (each.heir, Changes(each.current.plan, each.plan))
            for each in self.successions
            if each.current is not None
        ]
        for each in self.successions:
            each.commit()
        tellSettings(self.before, self.plan)
        for heir, change in changes:
            change.tell(heir)
        for listener in self.gone:
            _log.info("gone {listener}", event="gone", listener=listener.describe())
        _log.info(
            "reloaded: {new} listeners are new, {changed} changed, {gone} gone",
            event="reloaded",
            new=sum(each.current is None for each in self.successions),
            changed=len(self.replaced),
            gone=len(self.gone),
        )


def prepare(
    before: Plan,
    after: Plan,
    listeners: Sequence[Listener],
    retired: Sequence[Listener],
    make: Callable[[ListenerPlan, Plan], Listener],
) -> Reload:
    """
    Do all of a reload that can fail; if it fails, whoever served serves on.

    :param before: what is served now, by ``listeners``.
    :param after: what is to be served.
    :param retired: earlier listeners that accept nobody, and may have connections.
    :param make: makes a listener of one of the plan's, unbound.
    :raises ConfigurationError: a protocol raised, or its maker; there are too few descriptors;
        or no listener is asked for any more.
    :raises ListenError: a new endpoint cannot be had.
    """
    if after.byDefault and not before.byDefault:
        raise ConfigurationError(
            "no [[listener]] is left in the configuration file; write what is to be served"
        )
    found = match(listeners, after.listeners)
    gone = [listener for listener in listeners if listener not in found]
    plan = _fit(after, found, [*retired, *gone])
    successions = []
    for each, current in zip(plan.listeners, found, strict=True):
        if current is None:
            _checkOwn(listeners, each)
        if current is not None and current.plan.likeness(each) is Likeness.ALL:
            heir = current
        else:
            heir = make(each, plan)
        successions.append(Succession(each, current, heir))
    _prepareHeirs(successions)
    return Reload(before, plan, successions, gone)


def _prepareHeirs(successions: Sequence[Succession]) -> None:
    """Have all heirs ready, or none: first those of new endpoints, then those that take over."""
    try:
        for each in sorted(successions, key=lambda each: each.current is not None):
            each.prepareHeir()
    except BaseException:
        for each in successions:
            each.abandonHeir()
        raise


def match(before: Sequence[Listener], plans: Sequence[ListenerPlan]) -> list[Listener | None]:
    """
    For each plan the listener that goes on as it, or ``None`` where a new one is needed.

    Each listener goes on once.  Several can be for the same plan at any port (``tcp:0``) alone:
    the one that is most like it does, and of those that are as like as each other the first.
    """
    found: list[Listener | None] = [None] * len(plans)
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


def _checkOwn(before: Sequence[Listener], plan: ListenerPlan) -> None:
    """
    See that nobody of ``before`` has the address of a new listener, or the socket that it names.

    A passed socket is closed with its listener; the system then gives its number to another.

    :raises ListenError: who has it, and what to do.
    """
    for listener in before:
        if plan.descriptor is not None and listener.descriptor == plan.descriptor:
            raise ListenError(
                f"{plan.place}: descriptor {plan.descriptor} is that of this daemon's own"
                f" {listener.describe()} by now: restart, and have the socket passed anew"
            )
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


def _fit(plan: Plan, found: Sequence[Listener | None], ending: Sequence[Listener]) -> Plan:
    """
    The plan with as many connections as there are descriptors for, besides those that stay.

    :param found: for each listener of the plan the one that goes on as it, or ``None``.
    :param ending: those that accept nobody any more, whose connections stay.
    :raises ConfigurationError: there is no room.
    """
    left = sum(listener.connectionCount for listener in ending)
    fitted, held = plan, 0
    while True:
        # Where fewer may come than there are, those above it stay too.
        above = sum(
            max(0, current.connectionCount - descriptorsFor(each.limits.maxConnections))
            for each, current in zip(fitted.listeners, found, strict=True)
            if current is not None
        )
        if left + above <= held:
            return fitted
        held = left + above
        fitted = plan.holding(held)
