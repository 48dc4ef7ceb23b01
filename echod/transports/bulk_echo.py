"""
How bulk is echoed unseen: `BulkEcho`, the ground floor of `echod.transports.socket_stream`.

There are two ways:

* **Through a pipe** (splice(2), `echod.transports.pipes`): uncopied, from the socket into the pipe
  and from there into the same socket.  What the peer does not take waits in the pipe; it comes
  before all else that is written, and the protocol is paused until the pipe is empty.
* **In place**, where that is asked for or no pipe is to be had: looked at in the kernel's queue
  (``MSG_PEEK``, recv(2)), sent, and taken out of it (``MSG_TRUNC``, tcp(7)) as far as it was sent.
  Nothing of it is ever ours.

docs/performance.md tells which costs what.
"""

from __future__ import annotations

import socket
from errno import EACCES, EAGAIN, EINTR, EINVAL, ENOBUFS, ENOMEM, ENOSYS, EPERM, EPIPE
from typing import Literal

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure

from echod.interfaces import IClock, IConnectionProtocol
from echod.transports.loop.entry import QUICK
from echod.transports.pipes import FLAGS, LARGEST_SPLICE, Pipe, Pipes

__all__ = ["LARGEST_COPY_IN_PLACE", "LARGEST_READ", "TRY_AGAIN", "BulkEcho"]

#: Errors that pass: nothing was read or sent, the next call may do.
TRY_AGAIN = frozenset({EAGAIN, EINTR, ENOBUFS, ENOMEM})
#: Errors of a send after which a read is still told of a broken connection; after any other
#: it would see EOF.
_TELLS_NOTHING = frozenset({ENOBUFS, ENOMEM, EPIPE})
#: Errors of splice(2) where it is not to be had: a system call filter, another kernel.
_NO_SPLICE = frozenset({EACCES, EINVAL, ENOSYS, EPERM})

#: Bytes that a read asks for at most.
LARGEST_READ = 65536
#: The largest read that is no bulk: above it a pipe is cheaper than a copy.  The second is for bulk
#: in place.
LARGEST_COPY = 16384
LARGEST_COPY_IN_PLACE = 32768
#: Bytes of a turn below which the next one is copied again.
LEAST_SPLICE = 12288
#: Bytes that are echoed in place in one turn at most: half of a common second-level cache.
LARGEST_ECHO = 512 * 1024

# Where bytes are that are being echoed in place; free again when doRead returns.
_scratch = memoryview(bytearray(LARGEST_ECHO))


class _NoClock:
    """Where nobody asks for the time."""

    now = 0.0


_noClock = _NoClock()


class BulkEcho(tcp.Connection):
    """
    A transport that can echo bulk.

    :cvar pipes: those that bulk goes through.
    :ivar readsMuch: whether the last reads brought much: for `Poller`, which lets others go first.
    """

    # Twisted's.
    socket: socket.socket
    dataBuffer: bytes
    _tempDataLen: int
    producer: IPushProducer | None
    protocol: IConnectionProtocol

    pipes = Pipes()
    readsMuch = False
    #: Bytes that go from a pipe to the socket at a time, at most.
    largestPortion = LARGEST_SPLICE
    # Bytes that the next read asks for; the largest that is no bulk.
    _readSize: int
    _largestCopy = LARGEST_COPY
    #: Bytes that were echoed unseen; and when the last of them were, by the clock of
    #: `SocketStream.echoUnseen`, or 0.
    echoedBytes = 0
    echoedAt = 0.0
    # Whether what is read may be echoed unseen; and whether it may be now, as nothing waits to be
    # sent, and how much may be read is not limited.  `SocketStream.doRead` finds the second one;
    # whatever changes one of these makes it false.
    _mayEcho = False
    _echoesNow = False
    # Tells echoedAt; written by _allowEcho, before it is asked.  An object of a class of ours as
    # the default would have CPython look at both each time.
    _clock: IClock = None  # type: ignore[assignment]  # see above
    # Whether bulk is to be echoed in place.
    _inPlace = False
    # The pipes, once it uses them, and `largestPortion`: attributes of one's own are read faster.
    _joined: Pipes | None = None
    _portion: int
    # What the peer has not taken; written by _keep and _emptyPipe.
    _pipe: Pipe | None = None
    # Whether a write was told of a broken connection, which the kernel tells only once.
    _broken = False
    #: See `echod.interfaces.IConnectionTransport`; written by _blame.
    brokenBy = 0

    def _allowEcho(self, allowed: bool, inPlace: bool = False, clock: IClock | None = None) -> None:
        self._mayEcho = allowed
        self._echoesNow = False
        if allowed:
            self._clock = _noClock if clock is None else clock
        if inPlace:
            self._inPlace = True
            self._largestCopy = LARGEST_COPY_IN_PLACE

    def _after(self, error: OSError) -> ConnectionLost | None:
        """What a reactor is told after an error: nothing, if it passes."""
        return None if error.errno in TRY_AGAIN else self._lostBy(error)

    def _lostBy(self, error: OSError) -> ConnectionLost:
        """Remember the error that has broken it; returns what a reactor is told."""
        self._blame(error.errno or 0)
        return CONNECTION_LOST

    def _blame(self, number: int) -> None:
        # EPIPE only says that the connection was broken before.
        if number and self.brokenBy in {0, EPIPE}:
            self.brokenBy = number

    def _askWhy(self) -> None:
        """Ask the kernel what has broken it, if no call was told: the poller only learns that."""
        if self.brokenBy in {0, EPIPE}:
            self._blame(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _waits(self) -> bool:
        """Whether anything waits to be sent, in user space or in a pipe."""
        return bool(self._tempDataLen or self.dataBuffer or self._pipe is not None)

    def _echoBulk(self) -> ConnectionDone | ConnectionLost | Literal[False] | None:
        """
        Echo as much as a turn may have, through a pipe if there is one.

        :returns: why it ended, if it did; `QUICK` if that was 64 KiB or less.
        """
        pipes = self._joined or self._join()
        if pipes is None or not (pipes.idle or pipes.open()):
            return self._echoInPlace()
        # Back there only when it is known to be empty: it is everybody's.
        pipe = pipes.idle.pop()
        number, splice, portion = self.fileno(), pipes.splice, self._portion
        try:
            count = rest = splice(number, pipe.entry, LARGEST_SPLICE, None, None, FLAGS)
        except OSError as error:
            pipes.idle.append(pipe)
            return self._notSpliced(error)
        if not count:
            pipes.idle.append(pipe)
            return self._copyNext()
        # As _count, without a call.
        self.echoedBytes += count
        self.echoedAt = self._clock.now
        much = count > LARGEST_READ
        if much:
            self.readsMuch = True
        try:
            while rest:
                rest -= splice(pipe.exit, number, portion, None, None, FLAGS)
        except OSError as error:
            self._keep(pipe, rest)
            return self._after(error)
        pipes.idle.append(pipe)
        if much:
            return None
        if count < LEAST_SPLICE:
            self.readsMuch = False
            self._readSize = LARGEST_COPY
        return QUICK

    def _join(self) -> Pipes | None:
        """Begin to use pipes, if it may; returns them."""
        # What is put before a socket wants to see what passes.
        if not self._inPlace and isinstance(self.socket, self.pipes.sockets):
            self._joined = self.pipes
            self._portion = self.largestPortion
            self._joined.join()
        return self._joined

    def _notSpliced(
        self, error: OSError
    ) -> ConnectionDone | ConnectionLost | Literal[False] | None:
        """What to do when nothing went from the socket into the pipe."""
        if error.errno == EAGAIN:
            return self._copyNext()
        if error.errno in _NO_SPLICE:
            self.pipes.forbid()
            return self._echoInPlace()
        return self._after(error)

    def _copyNext(self) -> ConnectionDone | ConnectionLost | Literal[False] | None:
        """
        Read by recv(2), which tells what is next.

        At an urgent byte that is kept in line splice(2) says for ever that there is nothing, and
        once FIN is in, that it is the end.
        """
        self._readSize = LARGEST_COPY
        return self.doRead()

    def _count(self, count: int) -> None:
        """So many bytes were echoed."""
        self.echoedBytes += count
        self.echoedAt = self._clock.now

    def _keep(self, pipe: Pipe, rest: int) -> None:
        """Wait until the peer takes the rest that is in the pipe."""
        pipe.held = rest
        self._pipe = pipe
        # What comes meanwhile has to wait behind it.
        self._echoesNow = False
        self._pauseProducer()

    def _inPipe(self) -> int:
        """Bytes that wait in a pipe."""
        return 0 if self._pipe is None else self._pipe.held

    # The base that it differs from has its doRead and doWrite exchanged at an abort.
    def doWrite(self) -> Exception | None:  # type: ignore[override]
        """Send what waits: what is in a pipe came before all else."""
        if self._pipe is not None and self._joined is not None:
            try:
                self._emptyPipe(self._pipe, self._joined)
            except OSError as error:
                return self._after(error)
        why: Exception | None = super().doWrite()
        return why

    def _emptyPipe(self, pipe: Pipe, pipes: Pipes) -> None:
        """
        Send what is in the pipe, and give it back.

        :raises OSError: not all of it, for this reason.
        """
        while pipe.held:
            pipe.held -= pipes.splice(pipe.exit, self.fileno(), self._portion, None, None, FLAGS)
        self._pipe = None
        pipes.idle.append(pipe)

    def connectionLost(self, reason: Failure) -> None:
        """See ``IReadDescriptor``; what waits in a pipe is lost too."""
        if reason.value is CONNECTION_LOST and self.connected:
            self._askWhy()
        self._leavePipes()
        super().connectionLost(reason)

    def _leavePipes(self) -> None:
        if self._joined is not None:
            self._joined.leave(self._pipe)
            self._joined = self._pipe = None

    def _echoInPlace(self) -> ConnectionDone | ConnectionLost | None:
        """Read and write at one go; what cannot be sent now stays unread."""
        skt = self.socket
        try:
            count = skt.recv_into(_scratch, 0, socket.MSG_PEEK)
            if not count:
                return CONNECTION_LOST if self._broken else CONNECTION_DONE
            try:
                sent = skt.send(_scratch[:count])
            except OSError as error:
                if error.errno not in TRY_AGAIN:
                    raise
                sent = 0
        except OSError as error:
            return self._after(error)
        if sent and not self._takeOut(sent):
            # It would be sent twice.  A reset alone could take it away.
            return CONNECTION_LOST
        if count > LARGEST_READ:
            self.readsMuch = True
        if sent:
            self._count(sent)
        if sent != count:
            # doWrite, with nothing to write, will resume it.
            self._pauseProducer()
        elif 2 * count < LARGEST_READ:
            self.readsMuch = False
            self._readSize = self._largestCopy
        return None

    def _takeOut(self, count: int) -> bool:
        """Drop what was looked at and sent; returns whether that was done."""
        try:
            return self.socket.recv_into(_scratch, count, socket.MSG_TRUNC) == count
        except OSError as error:
            self._lostBy(error)
            return False

    def _pauseProducer(self) -> None:
        """As _maybePauseProducer does, however little waits; and ask for room."""
        # There is one: else bulk is not echoed so.
        assert self.producer is not None
        self.producerPaused = True
        self.producer.pauseProducing()
        self.startWriting()

    def _sentNothing(self, error: OSError) -> int:
        """
        Zero.

        A broken connection is remembered: doWrite will be told so too, and may end it; a
        caller of write does not expect it there.
        """
        if not isinstance(error, BlockingIOError):
            self._broken = error.errno not in _TELLS_NOTHING
            self._after(error)
        return 0
