"""A reactor to nest a poller in, its turns one's own, and sockets to poll."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from zope.interface import implementer


@implementer(IReactorFDSet)
class Outer(Clock):
    """
    Watches readers alone, as many as there are: one poller, mostly.

    :ivar served: how often a reader was told to read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []
        self.served = 0

    def addReader(self, reader: Any) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        raise AssertionError("a poller never writes")

    def removeWriter(self, writer: Any) -> None:
        raise AssertionError("a poller never writes")

    def removeAll(self) -> list[Any]:
        everybody, self.readers = self.readers, []
        return everybody

    def getReaders(self) -> list[Any]:
        return list(self.readers)

    def getWriters(self) -> list[Any]:
        return []

    def turn(self, wait: float = 0.0) -> bool:
        """Call what is due, then every reader that is ready; returns whether anything was."""
        due = bool(self.calls) and self.calls[0].getTime() <= self.seconds()
        self.advance(0)
        poll = select.poll()
        readers = {}
        for reader in self.readers:
            poll.register(reader.fileno(), select.POLLIN)
            readers[reader.fileno()] = reader
        ready = poll.poll(0 if due else wait * 1000) if readers else []
        for number, _ in ready:
            self.served += 1
            why = readers[number].doRead()
            assert not why, f"the poller itself ended: {why!r}"
        return due or bool(ready)

    def rest(self) -> None:
        """Turns until nothing happens any more."""
        for _ in range(100_000):
            if not self.turn():
                return
        raise AssertionError("it spins")


def waitUntil(turn: Callable[[float], object], condition: Callable[[], object]) -> None:
    """Turns, each as long as the kernel is busy, until ``condition`` is true."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        turn(0.005)


def tcpPair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends over loopback, neither of them blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        server, _ = listening.accept()
    client.setblocking(False)
    server.setblocking(False)
    return server, client


def reset(skt: socket.socket) -> None:
    """Close with RST."""
    skt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    skt.close()
