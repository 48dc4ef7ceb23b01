"""Whatever a protocol raises, wherever it is called: it costs its own connection, and no more."""

from __future__ import annotations

import pytest

from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.states import Reason, State
from echod.testing import Link, memoryLink
from tests.conftest import LoggedErrors

HOOKS = ["begun", "received", "inputFinished", "ended", "outputReady", "lost", "unanswered"]
OURS = ["sweep", "drain", "abort", "idleSince", "owes"]


class Echo(Connection):
    def received(self, data: bytes) -> None:
        self.reply(data)


def faulty(name: str, error: type[BaseException]) -> Connection:
    def fail(*arguments: object) -> None:
        raise error("mine")

    found: Connection = type("Faulty", (Echo,), {name: fail})()
    return found


def act(link: Link, moment: str) -> None:
    connection = link.connection
    if moment == "paused":
        connection.reply(bytes(100_000))
    elif moment == "draining":
        connection.holdInput()
        link.send(b"x")
        connection.attempt(connection.drain)
    elif moment == "lingering":
        connection.end(Reason.QUIT)
    elif moment == "finishing":
        link.finish()
    elif moment == "lost":
        link.reset()
    link.pump()


@pytest.mark.parametrize("error", [KeyError, SystemExit])
@pytest.mark.parametrize("moment", ["open", "paused", "draining", "lingering", "finishing", "lost"])
@pytest.mark.parametrize("name", HOOKS + OURS)
def test_everyMoment(
    name: str, moment: str, error: type[BaseException], loggedErrors: LoggedErrors
) -> None:
    """The deadlines, the drain and the cut go on, and the connection is gone."""
    connection = faulty(name, error)
    link = memoryLink(
        connection, limits=Limits(lingerTimeout=2), sendBuffer=4096, receiveBuffer=4096
    )
    act(link, moment)
    if not link.gone:
        link.send(b"x")
        link.pump()
        link.advance(1.5)
        connection.attempt(connection.idleSince)
        connection.attempt(connection.owes)
        connection.attempt(connection.drain)
        link.pump()
        connection.attempt(connection.abort, Reason.DRAIN)
        link.pump()
    assert link.gone
    assert connection.state in (State.CLOSED, State.ABORTED)
    # Once a connection, or twice: as it ends it is told of that.
    assert len(loggedErrors.flush()) <= 2


@pytest.mark.parametrize("name", ["unanswered", "sweep"])
def test_sweepEndsIt(name: str, loggedErrors: LoggedErrors) -> None:
    """One whose deadlines cannot be kept is aborted, counted as an error, and told once."""
    connection = faulty(name, KeyError)
    link = memoryLink(connection)
    link.advance(30)
    assert link.gone
    assert connection.reason is Reason.ERROR
    assert len(loggedErrors.flush()) == 1
