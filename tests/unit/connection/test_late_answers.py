"""`echod.connection.connection`: what a subclass that answers later, or wrongly, may do to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.states import Reason, State
from echod.protocols.line import LineOptions, line
from echod.testing import memoryLink
from tests.conftest import LoggedErrors


class Echo(Connection):
    """The least there is."""

    def received(self, data: bytes) -> None:
        self.reply(data)


class Late(Echo):
    """Has something to answer for as long as it says so."""

    late = True

    def received(self, data: bytes) -> None:
        """Later."""

    def unanswered(self) -> bool:
        return self.late


def test_slowAnswersWhileOpen() -> None:
    """An answer that takes long is no stall while the peer still listens and may send."""
    link = memoryLink(Late(), limits=Limits(stallTimeout=5))
    link.send(b"x")
    link.pump()
    link.advance(20)
    assert link.connection.state is State.OPEN
    link.reset()
    link.pump()


def test_answerDeadlineIsFromTheLastProgress() -> None:
    """What was acknowledged before the input came does not shorten the wait for the answer."""
    link = memoryLink(Late(), limits=Limits(stallTimeout=10))
    link.connection.reply(b"hello")
    link.pump()
    link.advance(9)
    link.send(b"x")
    link.finish()
    link.pump()
    link.advance(8)
    assert not link.gone
    link.advance(4)
    assert link.gone
    assert link.connection.reason is Reason.STALLED
    link.close()


def test_finishOutputWhileSlicesAreMade() -> None:
    """FIN follows the last slice, though it was asked for before that was made."""

    class Finishing(Echo):
        def begun(self) -> None:
            self.replyEach(iter([bytes(1000)] * 10))
            self.finishOutput()

    link = memoryLink(Finishing())
    assert link.readAll() == bytes(10_000)
    link.finish()
    link.pump()
    assert link.gone


def test_sliceRaises(loggedErrors: LoggedErrors) -> None:
    """An iterator that raises costs its connection, in whatever turn it does."""

    def slices() -> Iterator[bytes]:
        yield from [b"x"] * 5
        raise KeyError("mine")

    class Raising(Echo):
        def received(self, data: bytes) -> None:
            self.replyEach(slices())

    link = memoryLink(Raising())
    link.send(b"x")
    link.pump()
    assert link.gone
    assert link.connection.reason is Reason.ERROR
    assert len(loggedErrors.flush()) == 1


@pytest.mark.parametrize("name", ["ended", "lost", "outputReady"])
def test_hookRaises(name: str, loggedErrors: LoggedErrors) -> None:
    """No hook's fault reaches the daemon's drain, its sweep or its reactor."""

    def fail(*arguments: object) -> None:
        raise KeyError("mine")

    connection = type("Faulty", (Echo,), {name: fail})()
    link = memoryLink(connection, sendBuffer=4096, receiveBuffer=4096)
    if name == "outputReady":
        connection.reply(bytes(100_000))
        got = 0
        while got < 100_000:
            link.pump()
            try:
                piece = link.receive()
            except ConnectionResetError:
                break
            got += len(piece or b"")
    else:
        connection.drain()
        link.finish()
    link.pump()
    link.advance(0.5)
    assert link.gone
    assert len(loggedErrors.flush()) == 1


def test_quitDuringADrain() -> None:
    """What is thrown away after the end is owed to nobody."""
    connection = line.makeFactory(LineOptions(quit="q")).buildProtocol(None)  # type: ignore[arg-type]  # no address
    assert connection is not None
    link = memoryLink(connection, limits=Limits(lingerTimeout=3))
    link.send(b"q\n" + b"x\n" * 30_000)
    link.connection.drain()
    assert link.readAll() == b"Bye.\n"
    link.advance(5)
    assert link.gone
    assert link.connection.cut == 0
    link.close()


def test_heldInputIsDiscardedAfterTheEnd() -> None:
    """C2: once we have ended, what the peer still sends is read at any speed."""

    class Holding(Echo):
        def received(self, data: bytes) -> None:
            self.holdInput()

    link = memoryLink(Holding(), sendBuffer=4096, receiveBuffer=4096)
    link.send(b"x")
    link.pump()
    link.connection.end(Reason.QUIT)
    for _ in range(10):
        assert link.send(bytes(4096)) == 4096
        link.pump()
    assert link.readAll() == b""
    link.finish()
    link.pump()
    assert link.gone
    assert link.connection.discarded == 10 * 4096


def test_drainReadsItsQuotaAlone() -> None:
    """O1: what comes after the drain has begun is not answered, however much it is."""
    link = memoryLink(Echo(), sendBuffer=4096, receiveBuffer=4096)
    link.connection.holdInput()
    link.send(b"before")
    link.connection.drain()
    assert link.connection.state is State.DRAINING
    link.send(b"after")
    link.connection.releaseInput()
    link.pump()
    assert link.readAll() == b"before"
    link.finish()
    link.pump()
    assert link.gone


def test_canReply() -> None:
    """Not after FIN has been asked for."""
    link = memoryLink(Echo())
    assert link.connection.canReply()
    link.connection.finishOutput()
    assert not link.connection.canReply()
    link.finish()
    link.pump()
    assert not link.connection.canReply()


def test_faultsDoNotFillTheLog(loggedErrors: LoggedErrors) -> None:
    """O5: a peer that knows how to make a protocol raise gets a few tracebacks, all are counted."""

    class Faulty(Echo):
        def received(self, data: bytes) -> None:
            raise KeyError(data)

    for _ in range(100):
        link = memoryLink(Faulty())
        link.send(b"x")
        link.pump()
        assert link.connection.reason is Reason.ERROR
    assert 10 <= len(loggedErrors.flush()) <= 20
