"""A third layer: it counts the bytes on the wire, and changes none (`CountingLayer`)."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from echod.interfaces import IConnectionTransport
from echod.transports.layers import AskedFor, Layer
from echod.transports.socket_stream import SocketStream

__all__ = ["Counted", "CountingLayer"]


class CountingSocket:
    """
    A socket that counts what it took from the kernel, and gave to it.

    :ivar looks: how often it only looked at what there is: an echo in place begins so.
    """

    def __init__(self, skt: Any) -> None:
        self._socket = skt
        self.received = self.sent = self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def recv(self, size: int, flags: int = 0) -> bytes:
        data: bytes = self._socket.recv(size, flags)
        self.received += len(data)
        return data

    def recv_into(self, buffer: memoryview, size: int = 0, flags: int = 0) -> int:
        count: int = self._socket.recv_into(buffer, size, flags)
        if flags & socket.MSG_PEEK:
            self.looks += 1
        else:
            self.received += count
        return count

    def send(self, data: bytes) -> int:
        count: int = self._socket.send(data)
        self.sent += count
        return count


class Counted(SocketStream):
    """Counts, outside of all else."""

    def __init__(self, sock: socket.socket, *arguments: Any) -> None:
        self.counting = CountingSocket(sock)
        super().__init__(self.counting, *arguments)  # type: ignore[arg-type]  # it passes for one

    def facts(self) -> dict[str, Any]:
        counts = {"received": self.counting.received, "sent": self.counting.sent}
        return {**super().facts(), "count": counts}


@dataclass(frozen=True)
class CountingLayer(Layer):
    """
    Whether to count.

    :ivar word: what stands in the log before the counts.
    """

    name = "count"
    transport = Counted

    word: str = ""

    @classmethod
    def made(cls, asked: AskedFor) -> CountingLayer | None:
        return None if asked.settings is None else cls(str(asked.settings))

    def terms(self) -> object:
        return self.word

    def line(self, transport: IConnectionTransport) -> str:
        counts = transport.facts()["count"]
        return f"{self.word} received={counts['received']} sent={counts['sent']}"
