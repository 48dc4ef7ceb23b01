"""
Two imitated, non-blocking TCP sockets, joined: `MemorySocket`.

Bounded queues, FIN behind the bytes, RST over them, as two kernels would; the project's tests hold
the imitation against loopback TCP.
"""

from __future__ import annotations

import os
import select
import socket
from errno import EAGAIN, ECONNRESET, ENOPROTOOPT
from itertools import count
from termios import FIONREAD, TIOCOUTQ
from typing import ClassVar
from weakref import WeakValueDictionary

__all__ = ["MemorySocket"]

_FLAGS = {"MSG_PEEK": socket.MSG_PEEK, "MSG_TRUNC": socket.MSG_TRUNC}


class _Direction:
    """Bytes on their way from one socket to the other, FIN behind them."""

    def __init__(self, sendBuffer: int, receiveBuffer: int) -> None:
        self._sendBuffer = sendBuffer
        self._receiveBuffer = receiveBuffer
        self.sent = bytearray()
        self.arrived = bytearray()
        self.finished = False

    @property
    def room(self) -> int:
        return self._sendBuffer - len(self.sent)

    @property
    def ended(self) -> bool:
        """Whether the reader has nothing more to expect."""
        return self.finished and not self.sent and not self.arrived

    def push(self, data: bytes | memoryview) -> int:
        taken = min(len(data), self.room)
        self.sent += memoryview(data)[:taken]
        self.flow()
        return taken

    def take(self, limit: int) -> bytes:
        data = bytes(self.arrived[:limit])
        del self.arrived[:limit]
        self.flow()
        return data

    def flow(self) -> None:
        moved = min(self._receiveBuffer - len(self.arrived), len(self.sent))
        self.arrived += self.sent[:moved]
        del self.sent[:moved]


class MemorySocket:
    """
    One end of an imitated, non-blocking TCP connection, with the socket methods in use here.

    Errors are those of the real calls: ``BlockingIOError``, ``ConnectionResetError``,
    ``BrokenPipeError``; others come when they are put in.

    :ivar faults: errors that the next calls raise instead of doing anything, by the call's name,
        or by that of a flag that it is given: ``{"send": [ENOBUFS, ENOBUFS], "MSG_PEEK": [EIO]}``.
    """

    _numbers = count(1 << 20)
    _byNumber: ClassVar[WeakValueDictionary[int, MemorySocket]] = WeakValueDictionary()
    peer: MemorySocket

    def __init__(self, outgoing: _Direction, incoming: _Direction) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._number = next(self._numbers)
        self._byNumber[self._number] = self
        self._error = 0
        self._abortive = False
        self.closed = False
        self.faults: dict[str, list[int]] = {}

    @classmethod
    def pair(cls, sendBuffer: int, receiveBuffer: int) -> tuple[MemorySocket, MemorySocket]:
        """
        Two connected ends.

        :param sendBuffer: bytes that wait at the sender, each direction.
        :param receiveBuffer: bytes that wait at the receiver, each direction.
        """
        there = _Direction(sendBuffer, receiveBuffer)
        back = _Direction(sendBuffer, receiveBuffer)
        one, other = cls(there, back), cls(back, there)
        one.peer, other.peer = other, one
        return one, other

    @classmethod
    def numbered(cls, number: int) -> MemorySocket:
        """The one that has this number."""
        return cls._byNumber[number]

    def send(self, data: bytes | memoryview) -> int:
        """See ``socket.send``."""
        self.fault("send")
        self._raiseError()
        if self._outgoing.finished:
            raise BrokenPipeError
        if self.peer.closed:
            self._reset()
            return len(data)
        taken = self._outgoing.push(data)
        if not taken and data:
            raise BlockingIOError(EAGAIN, "nothing at the moment")
        return taken

    def recv(self, limit: int) -> bytes:
        """See ``socket.recv``: bytes that arrived before an RST are read before it."""
        self.fault("recv")
        return self._receive(limit)

    def _receive(self, limit: int) -> bytes:
        if self._incoming.arrived:
            return self._incoming.take(limit)
        self._raiseError()
        if self._incoming.ended:
            return b""
        raise BlockingIOError(EAGAIN, "nothing at the moment")

    def recv_into(self, buffer: memoryview, size: int = 0, flags: int = 0) -> int:
        """See ``socket.recv_into``: ``MSG_PEEK`` only looks, ``MSG_TRUNC`` only drops."""
        size = size or len(buffer)
        self.fault("recv_into")
        for name, flag in _FLAGS.items():
            if flags & flag:
                self.fault(name)
        if flags & socket.MSG_PEEK and self._incoming.arrived:
            data = bytes(self._incoming.arrived[:size])
        else:
            data = self._receive(size)
        if not flags & socket.MSG_TRUNC:
            buffer[: len(data)] = data
        return len(data)

    def fault(self, call: str) -> None:
        """Raise what `faults` has for this call next, if anything."""
        if self.faults.get(call):
            raise OSError(self.faults[call].pop(0), "put in by a test")

    def shutdown(self, how: int) -> None:
        """See ``socket.shutdown``."""
        if how != socket.SHUT_RD:
            self._outgoing.finished = True

    def close(self) -> None:
        """See ``socket.close``: RST if bytes are unread or ``SO_LINGER`` is (1, 0), else FIN."""
        if self.closed:
            return
        self.closed = True
        if self._abortive or self._incoming.arrived or self._incoming.sent:
            self._outgoing.sent.clear()
            self.peer._reset()
        self._outgoing.finished = True

    def fileno(self) -> int:
        """A number that no real descriptor has; -1 once closed."""
        return -1 if self.closed else self._number

    def setblocking(self, flag: bool) -> None:
        """Nothing here ever blocks."""

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Only ``SO_LINGER`` is looked at."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._abortive = True

    def getsockopt(self, level: int, option: int, size: int = 0) -> int:
        """
        Only ``SO_ERROR``, which reports an error once.

        :raises OSError: there is no such option.
        """
        if (level, option) != (socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(ENOPROTOOPT, os.strerror(ENOPROTOOPT))
        error, self._error = self._error, 0
        return error

    def getsockname(self) -> tuple[str, int]:
        """An address to show."""
        return ("127.0.0.1", 7)

    def poll(self) -> int:
        """What ``poll(2)`` would say."""
        events = 0
        if self._incoming.arrived or self._incoming.ended or self._error:
            events |= select.POLLIN
        if self._outgoing.room or self._error:
            events |= select.POLLOUT
        if self._error:
            events |= select.POLLERR
        return events

    def queued(self, request: int) -> int:
        """What ``ioctl`` would say to ``FIONREAD`` and ``TIOCOUTQ``."""
        if request == FIONREAD:
            return len(self._incoming.arrived)
        assert request == TIOCOUTQ
        waiting = len(self._outgoing.sent)
        return waiting + (1 if waiting and self._outgoing.finished else 0)

    def _reset(self) -> None:
        """RST arrived: what was to be sent, or was on its way, is gone."""
        if not self.closed:
            self._error = ECONNRESET
        self._outgoing.sent.clear()
        self._incoming.sent.clear()

    def _raiseError(self) -> None:
        if self._error:
            raise ConnectionResetError(self._error, "reset by the peer")
