"""`Connection.heldBytes`: bytes that are held outside of the socket, to the byte."""

from __future__ import annotations

from termios import TIOCOUTQ
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from echod.kit import MessageMaker, Stream, StreamMaker
from echod.protocols.line import LineOptions, line
from echod.protocols.raw import RawOptions, raw
from echod.testing import Link, memoryLink, tcpLink
from echod.wire.framing import lines
from tests.certificates import Certificates

BUFFER = 10_000


def linkOf(maker: Any, settings: Any = None) -> Link:
    protocol = maker.makeFactory(settings).buildProtocol(None)
    return memoryLink(protocol, sendBuffer=BUFFER, receiveBuffer=BUFFER)


def sendAll(link: Link, data: bytes) -> int:
    """Send as much as is taken; returns how many bytes that was."""
    sent = 0
    while count := link.send(data[sent:]):
        sent += count
        link.pump()
    return sent


def arrived(link: Link) -> int:
    """Read what has come, with all that follows."""
    count = 0
    while data := link.receive():
        count += len(data)
        link.pump()
    return count


@pytest.mark.parametrize("inPlace", [False, True])
def test_whatWaitsForASlowReader(inPlace: bool) -> None:
    """What was read and is not with the kernel; nothing once it is."""
    link = linkOf(raw, RawOptions(in_place=inPlace))
    sent = sendAll(link, bytes(300_000))
    connection = link.connection
    # Any: one with an imitated socket.
    transport: Any = connection.transport
    inSockets = 2 * BUFFER
    assert connection.heldBytes() == connection.bytesOut - inSockets
    assert connection.heldBytes() == transport.unsent() - transport.socket.queued(TIOCOUTQ)
    assert arrived(link) == sent
    assert connection.heldBytes() == 0
    link.close()


def test_whatIsNoMessageYet() -> None:
    """What has come of a line; the rest makes it whole, and it is gone."""
    link = linkOf(line, LineOptions())
    link.send(b"one\ntwo, not whole")
    link.pump()
    assert link.connection.heldBytes() == len(b"two, not whole")
    link.send(b"\n")
    link.pump()
    assert link.connection.heldBytes() == 0
    link.close()


def test_whatIsBeingAnswered() -> None:
    """Messages whose answers are awaited, and those answers that wait for others."""
    waiting: list[Deferred[bytes | None]] = []

    def answer(payload: bytes) -> Deferred[bytes | None]:
        waiting.append(Deferred())
        return waiting[-1]

    link = linkOf(MessageMaker("later", "answers later", lines, answer))
    link.send(b"1\n23\nrest")
    link.pump()
    assert link.connection.heldBytes() == len(b"1\n23\nrest")
    # It waits for the one before.
    waiting[1].callback(b"answer")
    assert link.connection.heldBytes() == len(b"1\n23\nrest") + len(b"answer\n")
    waiting[0].callback(b"")
    link.pump()
    assert link.connection.heldBytes() == len(b"rest")
    link.close()


def test_whatACoroutineHasNotRead() -> None:
    """Input that waits for it."""
    go: Deferred[None] = Deferred()

    async def slow(stream: Stream) -> None:
        await go
        await stream.read()
        await stream.read()

    link = linkOf(StreamMaker("slow", "waits", slow))
    link.send(b"hello")
    link.pump()
    assert link.connection.heldBytes() == 5
    go.callback(None)
    link.pump()
    assert link.connection.heldBytes() == 0
    link.close()


def test_whatTLSHolds(certificates: Certificates) -> None:
    """Records that wait for a slow reader; nothing once they are with the kernel."""
    # Any: no address is needed.
    factory: Any = raw.makeFactory(RawOptions())
    protocol = factory.buildProtocol(None)
    link = tcpLink(
        protocol, security=certificates.security(), sendBuffer=BUFFER, receiveBuffer=BUFFER
    )
    connection, sent = link.connection, 0
    while not connection.heldBytes():
        sent += link.send(bytes(BUFFER))
        link.pump()
    assert connection.heldBytes() <= connection.transport.unsent()
    received = 0
    while received < sent:
        received += len(link.receive() or b"")
        link.pump(patience=0.0)
    assert connection.heldBytes() == 0
    link.finish()
    link.readAll()
    link.close()
