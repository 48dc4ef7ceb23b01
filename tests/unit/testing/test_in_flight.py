"""`echod.testing.in_flight`: what TCP has delivered, and what it has not."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from echod.testing.in_flight import _infoOf, inFlight
from tests.unit.outer import tcpPair

#: Seconds until what must come has not come.
PATIENCE = 20.0


def arrives(one: socket.socket, other: socket.socket) -> None:
    deadline = time.monotonic() + PATIENCE
    while inFlight(one, other):
        assert time.monotonic() < deadline, "it is on its way for ever"


def test_whatBothEndsKnow() -> None:
    """What one end has sent the other has received; FIN counts as one byte."""
    server, client = tcpPair()
    with server, client:
        client.send(b"hello")
        arrives(client, server)
        assert (_infoOf(client).sent, _infoOf(server).received) == (5, 5)
        client.shutdown(socket.SHUT_WR)
        arrives(client, server)
        assert (_infoOf(client).sent, _infoOf(server).received) == (5, 6)
        assert server.recv(10) == b"hello"
        assert server.recv(10) == b""


def test_whatWaitsIsNotOnItsWay() -> None:
    """A peer that does not read holds up what is sent, for ever; nothing is on its way then."""
    server, client = tcpPair()
    with server, client:
        with suppress(BlockingIOError):
            while True:
                client.send(bytes(65536))
        arrives(client, server)
        assert _infoOf(client).unsent > 0


def test_closed() -> None:
    """Nobody knows what has become of what it sent."""
    server, client = tcpPair()
    with server:
        client.close()
        assert inFlight(client, server)
        assert inFlight(server, client)
