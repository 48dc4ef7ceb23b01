"""
Pipes that bulk goes through, from a socket and back into the same socket, uncopied: `Pipes`.

splice(2) moves pages from a socket's queue into a pipe, and from a pipe into a socket's queue.
One pipe serves all connections, because it is empty between two turns.  A connection whose peer
does not take everything keeps the pipe with the rest, and the next one takes another.  There are
few of them, and each holds `LARGEST_SPLICE` bytes at most.

`echod.transports.bulk_echo` moves the bytes.  Here is told which pipes there are, and who has one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fcntl import F_GETPIPE_SZ, F_SETPIPE_SZ, fcntl

__all__ = ["DESCRIPTORS", "FLAGS", "LARGEST_SPLICE", "MOST", "PATIENCE", "Pipe", "Pipes"]

#: Pipes there are at most, and descriptors that they take.
MOST = 16
DESCRIPTORS = 2 * MOST
#: Bytes that one turn takes at most: less than two segments of a loopback (2 * 65483), as a turn
#: that leaves a short third one may cost half as much again (docs/performance.md).
LARGEST_SPLICE = 112 * 1024
#: Turns after which a pipe is asked for again when there was none to be had: to ask costs 20 µs.
PATIENCE = 8
#: How splice(2) is to be called.
FLAGS = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)


@dataclass(slots=True)
class Pipe:
    """
    A pipe.

    :ivar entry: the descriptor that is written to.
    :ivar exit: the descriptor that is read from.
    :ivar held: bytes that wait in it, while a connection keeps it.
    """

    entry: int
    exit: int
    held: int = 0


class Pipes:
    """
    All pipes there are; they are opened when they are needed, and closed with their last user.

    :param most: how many there may be.
    :param size: bytes that one should take; it counts pages, and a segment takes one or several.
    :param least: bytes that one must take to be of use.
    :ivar idle: those that nobody keeps, all of them empty.
    :cvar sockets: the kind of socket whose number is the kernel's.
    :ivar splice: ``os.splice``.
    """

    sockets: type = socket.socket
    splice: Callable[..., int]

    def __init__(self, most: int = MOST, size: int = 256 * 1024, least: int = 64 * 1024) -> None:
        self.idle: list[Pipe] = []
        self._most = most if hasattr(os, "splice") else 0
        if self._most:
            self.splice = os.splice
        self._size = size
        self._least = least
        self._count = 0
        self._users = 0
        # How often none is asked for, as there was none a moment ago; written by open.
        self._refrain = 0

    def join(self) -> None:
        """One connection more uses them."""
        self._users += 1

    def leave(self, kept: Pipe | None) -> None:
        """
        It is gone.

        :param kept: the one that it keeps, if any; what is in it is lost.
        """
        if kept is not None:
            self._close(kept)
        self._users -= 1
        if not self._users:
            self._closeIdle()

    def open(self) -> bool:
        """
        Have an idle one more, if there may be; returns whether that was done.

        The system may have no descriptor left, or give a user who has many pipes only small ones
        (``pipe-user-pages-soft``, pipe(7)).  Then the next `PATIENCE` calls do not ask it.
        """
        if self._count >= self._most:
            return False
        if self._refrain:
            self._refrain -= 1
            return False
        pipe = None
        with suppress(OSError):
            pipe = self._make()
        if pipe is None:
            self._refrain = PATIENCE
            return False
        self._count += 1
        self.idle.append(pipe)
        return True

    def forbid(self) -> None:
        """Open no more: the system does not let us splice."""
        self._most = 0
        self._closeIdle()

    def _closeIdle(self) -> None:
        while self.idle:
            self._close(self.idle.pop())

    def _close(self, pipe: Pipe) -> None:
        self._count -= 1
        self._unmake(pipe)

    def _make(self) -> Pipe | None:
        """
        A pipe, or ``None`` if it would be too small.

        :raises OSError: there is none to be had.
        """
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        pipe = Pipe(write, read)
        with suppress(OSError):
            # An unprivileged user may not have more than pipe-max-size (pipe(7)).
            fcntl(write, F_SETPIPE_SZ, self._size)
        if fcntl(write, F_GETPIPE_SZ) < self._least:
            self._unmake(pipe)
            return None
        return pipe

    def _unmake(self, pipe: Pipe) -> None:
        os.close(pipe.entry)
        os.close(pipe.exit)
