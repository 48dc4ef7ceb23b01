"""
Imitated pipes between imitated sockets: `MemoryPipes`.

As splice(2) between a `MemorySocket` and a pipe: a call moves what there is room for, and never
blocks.
"""

from __future__ import annotations

from errno import EAGAIN
from itertools import count

from echod.testing.memory_socket import MemorySocket
from echod.transports.pipes import MOST, Pipe, Pipes

__all__ = ["MemoryPipes"]


class MemoryPipes(Pipes):
    """
    Pipes for imitated sockets.

    :param most: how many there may be.
    :param size: bytes that one takes.
    """

    sockets = MemorySocket

    def __init__(self, most: int = MOST, size: int = 65536) -> None:
        super().__init__(most)
        self.splice = self._splice
        self._size = size
        self._numbers = count(1 << 40)
        # By the number of either end.
        self._held: dict[int, bytearray] = {}

    def _splice(self, source: int, target: int, limit: int, *_: int | None) -> int:
        """Move bytes as the system call does; one end is a pipe's, the other a socket's."""
        if target in self._held:
            held = self._held[target]
            skt = MemorySocket.numbered(source)
            skt.fault("splice")
            data = skt.recv(min(limit, self._size - len(held)))
            held += data
            return len(data)
        held = self._held[source]
        if not held:
            raise BlockingIOError(EAGAIN, "nothing at the moment")
        sent = MemorySocket.numbered(target).send(bytes(held[:limit]))
        del held[:sent]
        return sent

    def _make(self) -> Pipe:
        pipe = Pipe(next(self._numbers), next(self._numbers))
        self._held[pipe.entry] = self._held[pipe.exit] = bytearray()
        return pipe

    def _unmake(self, pipe: Pipe) -> None:
        del self._held[pipe.entry], self._held[pipe.exit]
