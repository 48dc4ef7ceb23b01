"""`echod.connection.lifecycle`: the table, what is drawn of it, and a connection that obeys it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import echod.connection
from echod.config.limits import Limits
from echod.connection import lifecycle
from echod.connection.connection import Connection
from echod.connection.lifecycle import TABLE, Action, Event
from echod.connection.states import Reason, State
from echod.testing import Link, memoryLink

DOCUMENT = Path(__file__).parents[3] / "docs" / "architecture.md"

Edge = tuple[State, State, str]
EVERY_PAIR = [(state, event) for state in State for event in Event]


def edges() -> set[Edge]:
    """Every change of state in the table: from where, to where, and the event's words."""
    return {
        (state, step.state, event.value)
        for state, row in TABLE.items()
        for event, step in row.items()
        if step.state is not state
    }


# -- What is drawn -------------------------------------------------------------------------


def drawn(text: str) -> Iterator[Edge]:
    """The edges of the chains in a docstring: ``A ── event ──> B ── event ──> C``."""
    for line in text.splitlines():
        first, *rest = re.split(r" ──> ", line.strip())
        if not rest:
            continue
        places, _, event = first.partition(" ── ")
        sources = [State[word] for word in places.removeprefix("any of ").split(", ")]
        for piece in rest:
            place, _, then = piece.partition(" ── ")
            yield from ((source, State[place], event) for source in sources)
            sources, event = [State[place]], then


def test_docstringDrawsTheTable() -> None:
    """Each change of state is drawn, once, and nothing else is."""
    found = list(drawn(inspect.getdoc(lifecycle) or ""))
    assert len(found) == len(set(found))
    assert set(found) == edges()


def picture() -> str:
    """The table as Mermaid draws it, with what an event does where it leaves the state as it is."""
    lines = ["stateDiagram-v2", "    [*] --> NEW"]
    for state, row in TABLE.items():
        places: dict[State, list[str]] = {}
        for event, step in row.items():
            if step.state is state:
                doing = ", ".join(action.name.lower().replace("_", " ") for action in step.actions)
                places.setdefault(state, []).append(f"{event.value} ({doing})")
            else:
                places.setdefault(step.state, []).append(event.value)
        lines += [f"    {state.name} --> {to.name}: {', '.join(how)}" for to, how in places.items()]
    lines += ["    CLOSED --> [*]", "    ABORTED --> [*]"]
    return "\n".join(lines)


def test_documentDrawsTheTable() -> None:
    """The picture in docs/architecture.md is that of the table; `picture` can be pasted there."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(r"```mermaid\n(stateDiagram-v2.*?)\n```", text, re.DOTALL)
    assert found is not None
    assert found[1] == picture()


# -- The table -----------------------------------------------------------------------------


def test_everythingIsInTheTable() -> None:
    """Every state has its row; every event and every action is used."""
    steps = [step for row in TABLE.values() for step in row.values()]
    assert set(TABLE) == set(State)
    assert {event for row in TABLE.values() for event in row} == set(Event)
    assert {action for step in steps for action in step.actions} == set(Action)


def test_nothingLeadsOut() -> None:
    """What is over stays over; everything else can be lost and, once begun, be broken."""
    over = {State.CLOSED, State.ABORTED}
    for state, row in TABLE.items():
        if state in over:
            assert {step.state for step in row.values()} <= {state}
        elif state is not State.NEW:
            assert row[Event.LOST].state is State.CLOSED
            assert row[Event.ABORT].state is State.ABORTED


@pytest.mark.parametrize(
    ("to", "actions"),
    [
        (State.LINGERING, {(Action.DISCARD_INPUT, Action.TELL_ENDED, Action.END_OUTPUT)}),
        (State.CLOSED, {(Action.LEAVE,)}),
        (State.ABORTED, {(Action.RESET,)}),
        (
            State.FINISHING,
            {(Action.TELL_INPUT_FINISHED, Action.FINISH), (Action.WATCH,)},
        ),
    ],
)
def test_sameWayIn(to: State, actions: set[tuple[Action, ...]]) -> None:
    """Whatever leads to a state does there what has to be done there."""
    ways = {
        step.actions
        for state, row in TABLE.items()
        for step in row.values()
        if step.state is to and state is not to
    }
    assert ways == actions


def test_stateIsWrittenInOnePlace() -> None:
    """`Connection.state` has a default, and one method of all the room that assigns it."""
    assert echod.connection.__file__ is not None
    writers = [
        function.name
        for file in Path(echod.connection.__file__).parent.glob("*.py")
        for function in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and node.attr == "state"
        and isinstance(node.ctx, ast.Store)
    ]
    assert writers == ["_happen"]


# -- A connection --------------------------------------------------------------------------


class Noting(Connection):
    """Echoes, and keeps the states that it is in, one after the other."""

    def __init__(self) -> None:
        self.states = [State.NEW]

    @property
    def state(self) -> State:
        return self.states[-1]

    @state.setter
    def state(self, state: State) -> None:
        self.states.append(state)

    def received(self, data: bytes) -> None:
        self.reply(data)


def linked(**options: Any) -> Link:
    limits = Limits(idleTimeout=0)
    return memoryLink(Noting(), limits=limits, sendBuffer=64, receiveBuffer=64, **options)


def new() -> Link:
    """With a transport in reach that it has not been given."""
    link = linked()
    fresh = Noting()
    link.connection.transport.unregisterProducer()
    fresh.owner, fresh.transport = link.connection.owner, link.connection.transport
    link.connection = fresh
    return link


def opening() -> Link:
    return linked(header=b"PROXY TCP4")


def draining() -> Link:
    link = linked()
    link.send(b"x")
    link.connection.drain()
    return link


def finishing() -> Link:
    """The peer has finished, and does not read what is owed."""
    link = linked()
    for _ in range(8):
        link.send(bytes(64))
        link.pump()
    link.finish()
    link.pump()
    return link


def lingering() -> Link:
    link = linked()
    link.connection.end(Reason.QUIT)
    return link


def closed() -> Link:
    link = linked()
    link.finish()
    link.pump()
    return link


def aborted() -> Link:
    """The transport tells in a later turn."""
    link = linked()
    link.connection.abort(Reason.QUIT)
    return link


REACH: dict[State, Callable[[], Link]] = {
    State.NEW: new,
    State.OPENING: opening,
    State.OPEN: linked,
    State.DRAINING: draining,
    State.FINISHING: finishing,
    State.LINGERING: lingering,
    State.CLOSED: closed,
    State.ABORTED: aborted,
}


@pytest.mark.parametrize(("state", "event"), EVERY_PAIR)
def test_connectionObeys(state: State, event: Event) -> None:
    """
    In every state, every event leads where the table says, and nowhere if it says nothing.

    Where it leads on from there at once, as a close does, is the table's again.
    """
    connection = REACH[state]().connection
    assert isinstance(connection, Noting)
    assert connection.state is state
    connection.states = [state]
    connection._happen(event, Reason.QUIT)
    step = TABLE[state].get(event)
    assert connection.states[1:2] == ([] if step is None else [step.state])
    ways = {(state, step.state) for state, row in TABLE.items() for step in row.values()}
    assert set(zip(connection.states, connection.states[1:], strict=False)) <= ways
