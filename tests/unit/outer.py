"""A reactor to nest a poller in, its turns one's own, and sockets to poll."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from errno import ENOSPC
from typing import Any

from echod.testing import Loop


class Crowded(Loop):
    """
    One of which the kernel watches no more (epoll_ctl(2): ENOSPC), if it is told so.

    :ivar refuses: whether it watches no more readers of this kind.
    """

    def __init__(self, refuses: type | tuple[()] = ()) -> None:
        super().__init__()
        self.refuses = refuses

    def addReader(self, reader: Any) -> None:
        """See `Loop.addReader`."""
        if isinstance(reader, self.refuses):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        super().addReader(reader)


class Outer(Loop):
    """
    Watches readers alone, as many as there are: one poller, mostly.

    :ivar served: how often a reader was told to read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.served = 0

    @property
    def readers(self) -> list[Any]:
        """Who is watched."""
        return self.getReaders()

    def addWriter(self, writer: Any) -> None:
        """A poller never writes."""
        raise AssertionError("a poller never writes")

    def removeWriter(self, writer: Any) -> None:
        """A poller never writes."""
        raise AssertionError("a poller never writes")

    def serve(self, descriptor: Any, events: int) -> None:
        """See `Loop.serve`."""
        self.served += 1
        super().serve(descriptor, events)

    def rest(self) -> None:
        """Turns until nothing happens any more."""
        for _ in range(100_000):
            if not self.turn():
                return
        raise AssertionError("it spins")


class Overseen:
    """
    A transport's socket, of which is written down what passes.

    :ivar reads: bytes that each read has given.
    :ivar sent: what of each write the kernel has taken.
    """

    def __init__(self, transport: Any) -> None:
        self._socket = transport.socket
        self.reads: list[int] = []
        self.sent: list[bytes] = []
        transport.socket = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def recv(self, size: int) -> bytes:
        """See ``socket.recv``."""
        data: bytes = self._socket.recv(size)
        self.reads.append(len(data))
        return data

    def send(self, data: bytes | memoryview) -> int:
        """See ``socket.send``."""
        count: int = self._socket.send(data)
        self.sent.append(bytes(data[:count]))
        return count


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
