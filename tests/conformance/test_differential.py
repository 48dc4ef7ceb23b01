"""
The same random sessions through Twisted's transport and through ours.

Same bytes, same callbacks in the same order once adjacent ``dataReceived`` are joined, same
end.  The worlds: an imitated kernel (`KernelSocket`), UNIX socket pairs, which deliver at
once, and loopback TCP; ours on a poll-like reactor (`Loop`) and on the nested poller.

A bounded echo is also compared with ours where that echoes unseen, through a pipe or in place;
its sessions are larger, as bulk begins where reads come back full.

What is left out, and why, by name:

* ``PRODUCER``: with a paused producer registered Twisted neither closes nor
  sends FIN, ever.  So a bounded session unregisters its producer before either end.
* ``RESUME_AFTER_EOF``: Twisted reads, and tells, EOF once more.  No session
  resumes after EOF, and a bounded one unregisters its producer there.
* ``WRITE_BEFORE_FIN``: bytes written after ``loseWriteConnection`` are sent if they precede
  the turn in which Twisted sends FIN; ours is sent at once.  An echo ends with its output,
  and nobody writes after it where turns are cut short (*racing*).
* ``EARLY_FIN``: for the same reason, and only in racing sessions, ``writeConnectionLost`` may
  come earlier among the others; Twisted forgets it when ``loseConnection`` comes before that
  turn; and an abort may overtake its FIN.  (In others too, if the kernel is full to the byte,
  one session in some ten thousand: no seed here.)
* ``SECOND_FIN``: once FIN is sent Twisted answers another ``loseWriteConnection`` with another
  ``writeConnectionLost``, or with a lost connection.  Nobody asks twice.
* ``WRITE_NOTHING``: Twisted's way to FIN is through a ``send`` of no bytes, to which a UNIX
  peer that has closed answers EPIPE.  Nobody answers such a peer's FIN with FIN.
* ``READ_AHEAD``: reads differ in size, and Twisted counts sent bytes as waiting.
  So a bounded echo that stalls has read more or less when it is cut by RST or abort; so has
  whoever has something to send when input and RST come at once, because sending notices the
  RST first; and so has a racing echo when its output ends.  There, and there alone, one
  side's bytes may be the beginning of the other's.
* ``KERNEL_ROOM``: how much a real kernel takes depends on the sizes of the writes.  So where
  a real connection is cut, what the client has got, or the echo has read, may be the
  beginning of the other's.
* ``WRITE_TO_CLOSED``: TCP answers a write to a client that has closed with RST, which an
  immediate write provokes before the client's FIN is read.  Only a session that does not
  write has its client closed.
* ``PAUSED_RESET``: on the poller RST ends a paused connection at once; its unread
  input is not delivered.  Twisted does not notice before it resumes.
"""

from __future__ import annotations

import random
import select
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EAGAIN, EPIPE
from typing import Any, Literal

import pytest
from twisted.internet import tcp
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.testing import Loop, MemorySocket
from echod.transports.bulk_echo import LARGEST_READ
from echod.transports.facade import Facade
from echod.transports.tcp import Server
from tests.unit.counted_pipes import CountedMemoryPipes, CountedPipes
from tests.unit.outer import Outer, reset, tcpPair

Kind = Literal["record", "echo", "bounded", "piped", "in place"]
World = Literal["memory", "unix", "tcp"]

#: What is sent looks different everywhere.
STREAM = random.Random(0).randbytes(1 << 21)
#: How ours echoes bulk.
KINDS_OF_BULK: tuple[Kind, ...] = ("piped", "in place")
#: Turns without an end are a fault.
TURNS = 100_000


class KernelSocket(MemorySocket):
    """As Linux, which tells an RST once: after that a read sees EOF, and a write EPIPE."""

    _dead = False

    def send(self, data: Any) -> int:
        if self._outgoing.finished or (self._dead and not self._error):
            raise BrokenPipeError(EPIPE, "")
        if not data:
            self._raiseError()
            return 0
        try:
            return super().send(data)
        except BlockingIOError as error:
            raise BlockingIOError(EAGAIN, "") from error

    def recv(self, limit: int) -> bytes:
        try:
            return super().recv(limit)
        except BlockingIOError as error:
            if self._dead:
                return b""
            raise BlockingIOError(EAGAIN, "") from error

    def poll(self) -> int:
        return super().poll() | (select.POLLIN | select.POLLOUT if self._dead else 0)

    def _reset(self) -> None:
        super()._reset()
        self._dead = True

    def _raiseError(self) -> None:
        error, self._error = self._error, 0
        if error:
            raise ConnectionResetError(error, "reset by the peer")


# -- A session -------------------------------------------------------------------------------


@dataclass
class Session:
    """
    What happens to one connection.

    :ivar racing: whether it goes on before all that a step brings about has happened.
    :ivar steps: what to do, and how much, if that is a question.
    :ivar onEOF: what the protocol does about the client's FIN.
    :ivar pipe: bytes that an imitated pipe takes.
    """

    seed: int
    kind: Kind
    racing: bool
    buffers: int
    onEOF: str
    pipe: int = 0
    steps: list[tuple[str, int]] = field(default_factory=list)

    def has(self, *names: str) -> bool:
        """Whether one of the steps is one of these."""
        return any(step in names for step, _ in self.steps)

    @property
    def bounded(self) -> bool:
        """Whether it stops to read while its echo waits."""
        return self.kind not in ("record", "echo")

    @property
    def unseen(self) -> bool:
        """Whether it is bulk, echoed unseen by ours."""
        return self.bounded and self.kind != "bounded"

    @property
    def cut(self) -> bool:
        """Whether bytes may be thrown away, by RST or by closing."""
        return self.has("reset", "sendReset", "close", "abort", "lose")

    @property
    def meetsReset(self) -> bool:
        """Whether the server may have something to send as the client's RST comes."""
        writes = self.kind != "record" or self.has("write")
        return writes and self.has("reset", "sendReset")


SIZES = (0, 1, 100, 2048, 2049, 5000, 65536, 70_000, 140_000)
#: Those of the buffers and of an imitated pipe where bulk goes.
BULK_BUFFERS = (16385, 65521, 150_001)
PIPES = (100, 12_287, 16_385, 65_536, 262_144)


def makeSession(seed: int, world: World, *, racing: bool, bulk: Kind | None = None) -> Session:
    """
    A session, the same for the same ``seed``.

    :param bulk: its kind, if it is to be echoed unseen.
    """
    rng = random.Random(seed)
    kinds: tuple[Kind, ...] = (bulk,) if bulk else ("record", "echo", "bounded")
    kind = rng.choice(kinds)
    session = Session(
        seed=seed,
        kind=kind,
        racing=racing,
        buffers=rng.choice(_buffers(world, bulk)),
        onEOF=rng.choice(("lose", "loseWrite") if world == "tcp" else ("lose", "loseWrite", "")),
    )
    if bulk:
        session.pipe = rng.choice(PIPES)
    steps = ["send", "send", "read", "read", "turns"]
    if kind == "record":
        steps += ["write", "write"]
    if not session.bounded:
        steps += ["pause", "resume"]
    if not racing:
        steps.append("loseWrite")
    largest = 500 if session.buffers < 100 else 150_000
    turns = 4
    if bulk:
        largest = 300_000
        turns = 12
        session.steps += [("send", rng.randrange(50_000, largest)), ("turns", rng.randrange(turns))]
        steps += ["send", "read"]
    for _ in range(rng.randrange(1, 14)):
        step = rng.choice(steps)
        if step == "loseWrite" and (session.bounded or world == "unix"):
            session.steps.append(("read", -1))  # READ_AHEAD, KERNEL_ROOM
        size = min(rng.choice((rng.choice(SIZES), rng.randrange(largest))), largest)
        session.steps.append((step, rng.randrange(turns) if step == "turns" else size))
    ends = ["finish"]
    if world == "tcp":
        # In a kernel that takes its time FIN and RST would race: one or the other.
        ends += ["sendReset", "abort"]
    elif not racing:
        ends += [
            "lose",
            "abort",
            "reset",
            "sendReset",
            "",
            *(["close"] if kind == "record" else []),
        ]
    if racing and rng.random() < 0.5:
        session.steps.insert(rng.randrange(len(session.steps) + 1), ("loseWrite", 0))
    end = rng.choice(ends)
    if world == "memory" and end != "finish" and not session.bounded and rng.random() < 0.3:
        session.steps.insert(rng.randrange(len(session.steps) + 1), ("finish", 0))
    if (end == "lose" and session.bounded) or (world == "unix" and not racing):
        session.steps.append(("read", -1))  # READ_AHEAD, KERNEL_ROOM
    if world == "unix" and end in ("reset", "sendReset", "close") and session.onEOF == "loseWrite":
        session.onEOF = "lose"  # WRITE_NOTHING
    if end:
        session.steps.append((end, rng.randrange(largest)))
    if not racing and kind == "record" and end:
        session.steps.append(("write", 5))
    return session


def _buffers(world: World, bulk: Kind | None) -> tuple[int, ...]:
    if bulk:
        return BULK_BUFFERS
    return (1, 7, 4093, 65521) if world == "memory" else (4096, 65536)


# -- The server ------------------------------------------------------------------------------


@implementer(IHalfCloseableProtocol)
class Recorder(Protocol):
    """
    Remembers what it is told, and echoes it or not.

    :ivar events: the callbacks, adjacent ``dataReceived`` joined.
    """

    transport: Any

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[tuple[str, bytes]] = []
        self.finishing = False
        self.inputEnded = False
        self.lost = False
        # Bytes of input in the events; of them, those that were echoed unseen.
        self._taken = self._unseen = 0

    def connectionMade(self) -> None:
        if self.session.bounded:
            self.transport.registerProducer(self.transport, True)
        if self.session.unseen and isinstance(self.transport, Server):
            self.transport.echoUnseen(True, self.session.kind == "in place")

    def catchUp(self) -> None:
        """Write down what was echoed unseen since the last event; Twisted's has nothing of that."""
        count = getattr(self.transport, "echoedBytes", 0) - self._unseen
        if count:
            self._unseen += count
            self._record(STREAM[self._taken : self._taken + count])

    def _record(self, data: bytes) -> None:
        self._taken += len(data)
        before = b""
        if self.events and self.events[-1][0] == "data":
            before = self.events.pop()[1]
        self.events.append(("data", before + data))

    def dataReceived(self, data: bytes) -> None:
        assert data
        self.catchUp()
        self._record(data)
        if self.session.kind != "record" and not self.finishing:
            self.transport.write(data)

    def readConnectionLost(self) -> None:
        self.inputEnded = True
        self.catchUp()
        self.transport.unregisterProducer()  # RESUME_AFTER_EOF
        self.events.append(("EOF", b""))
        if self.session.onEOF:
            getattr(self, self.session.onEOF)()

    def writeConnectionLost(self) -> None:
        self.catchUp()
        self.events.append(("FIN", b""))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self.catchUp()
        assert reason.type is not None
        self.events.append((reason.type.__name__, b""))

    def lose(self) -> None:
        self.transport.unregisterProducer()  # PRODUCER
        self.transport.loseConnection()

    def loseWrite(self) -> None:
        if self.finishing:  # SECOND_FIN
            return
        self.finishing = True  # WRITE_BEFORE_FIN
        self.transport.unregisterProducer()  # PRODUCER
        self.transport.loseWriteConnection()

    def abort(self) -> None:
        self.transport.abortConnection()


# -- A run -----------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a session came to, told by both ends."""

    events: list[tuple[str, bytes]]
    received: bytes
    end: str
    gone: bool

    def input(self) -> bytes:
        return b"".join(data for name, data in self.events if name == "data")

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


class Run:
    """
    One session in one world.

    :param transport: the class that serves it.
    :param nested: whether its descriptor is in a nested poller.
    :param pipes: those of a transport that has any.
    """

    def __init__(
        self,
        session: Session,
        world: World,
        transport: Any,
        *,
        nested: bool,
        pipes: CountedPipes | None = None,
    ) -> None:
        self.session = session
        self.world = world
        ours, self.client = self._sockets()
        reactor: Any = Facade(Outer()) if nested else Loop()
        self.reactor = reactor
        self.protocol = Recorder(session)
        self.server = transport(ours, self.protocol, ("127.0.0.1", 1), None, 0, reactor)
        if pipes is not None:
            self.server.pipes = pipes
        self._pipes = pipes
        self.protocol.makeConnection(self.server)
        self.received = bytearray()
        self.end = "open"
        self._closed = False
        self._broken = False
        self._toSend = bytearray()
        self._offset = 0
        self._finishing = False
        self._written = 0

    def _sockets(self) -> tuple[Any, Any]:
        size = self.session.buffers
        if self.world == "memory":
            return KernelSocket.pair(size, size)
        pair = socket.socketpair() if self.world == "unix" else tcpPair()
        for skt in pair:
            skt.setblocking(False)
            # A small receive buffer over TCP would be waited for, not tested.
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        return pair

    def play(self) -> Outcome:
        """All steps; then both ends read all there is."""
        try:
            for step, size in self.session.steps:
                getattr(self, f"_{step}")(size)
                if not self.session.racing:
                    self._settle()
            self._resume(0)
            self._last()
            self.protocol.catchUp()
            return Outcome(self.protocol.events, bytes(self.received), self.end, self.protocol.lost)
        finally:
            self._cleanUp()

    def _cleanUp(self) -> None:
        self.server.abortConnection()
        self.reactor.advance(0)
        assert self.protocol.lost
        assert self.reactor.getReaders() == self.reactor.getWriters() == []
        assert not (self._pipes and self._pipes._count)
        self.client.close()

    # The client's.

    def _send(self, size: int) -> None:
        self._toSend += STREAM[self._offset : self._offset + size]
        self._offset += size
        self._flush()

    def _flush(self) -> bool:
        if self._closed or not self._toSend:
            return False
        try:
            taken = self.client.send(bytes(self._toSend[:200_000]))
        except BlockingIOError:
            return False
        except OSError:
            # The kernel tells an RST once: recv would see EOF.
            self._broken = True
            self._toSend.clear()
            return False
        del self._toSend[:taken]
        self._flushFinish()
        return bool(taken)

    def _flushFinish(self) -> None:
        if self._finishing and not self._toSend and not self._closed:
            self._finishing = False
            with suppress(OSError):
                self.client.shutdown(socket.SHUT_WR)

    def _finish(self, _: int) -> None:
        self._finishing = True
        self._flushFinish()

    def _read(self, size: int) -> None:
        """Read ``size`` bytes, if there are that many; -1: all, settled."""
        if size < 0:
            while self._readOnce(1 << 20):
                self._settle()
            return
        while size > 0 and (taken := self._readOnce(size)):
            size -= taken

    def _readOnce(self, size: int) -> int:
        if self._closed or self.end != "open":
            return 0
        try:
            data = self.client.recv(size)
        except BlockingIOError:
            return 0
        except OSError:
            self.end = "RST"
            return 0
        if not data:
            self.end = "RST" if self._broken else "FIN"
        self.received += data
        return len(data)

    def _reset(self, _: int) -> None:
        if not self._closed:
            self._closed = True
            if self.world == "memory":
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.client.close()
            else:
                reset(self.client)

    def _sendReset(self, size: int) -> None:
        """RST behind bytes that the server has not read: its answer meets the RST."""
        self._send(size)
        self._reset(0)

    def _close(self, _: int) -> None:
        self._closed = True
        self.client.close()

    # The server's.

    def _write(self, size: int) -> None:
        last = self.protocol.finishing and (self.session.racing or self.world != "memory")
        if not self.protocol.lost and not last:  # WRITE_BEFORE_FIN
            self.server.write(STREAM[self._written : self._written + size])
            self._written += size

    def _pause(self, _: int) -> None:
        if not self.protocol.lost:
            self.server.pauseProducing()

    def _resume(self, _: int) -> None:
        if not self.protocol.lost and not self.protocol.inputEnded:  # RESUME_AFTER_EOF
            self.server.resumeProducing()

    def _lose(self, _: int) -> None:
        if not self.protocol.lost:
            self.protocol.lose()

    def _loseWrite(self, _: int) -> None:
        if not self.protocol.lost:
            self.protocol.loseWrite()

    def _abort(self, _: int) -> None:
        if not self.protocol.lost:
            self.protocol.abort()

    # Time's.

    def _turns(self, count: int) -> None:
        for _ in range(count):
            self._flush()
            self.reactor.turn()

    def _settle(self) -> None:
        """Until nothing happens any more, the client not reading."""
        for _ in range(TURNS):
            busy = self._flush()
            if not self.reactor.turn() and not busy:
                return
        raise AssertionError("it spins")

    def _last(self) -> None:
        if self.world != "tcp":
            for _ in range(TURNS):
                self._settle()
                if not self._readOnce(1 << 20):
                    self._settle()
                    if not self._readOnce(1 << 20):
                        return
            raise AssertionError("the client reads for ever")
        # A real network takes its time; but every session there comes to an end.
        deadline = time.monotonic() + 20
        while not self._over():
            assert time.monotonic() < deadline, (self.protocol.events[-1:], self.end)
            self._flush()
            self.reactor.turn(0.001)
            self._readOnce(1 << 20)

    def _over(self) -> bool:
        names = [name for name, _ in self.protocol.events[-3:]]
        served = self.protocol.lost or ("EOF" in names and "FIN" in names)
        return served and (self._closed or self.end != "open")


def compare(session: Session, world: World, stock: Outcome, ours: Outcome, *, nested: bool) -> None:
    where = f"{world}, {'poller' if nested else 'loop'}, {session}"
    stockNames, ourNames = stock.names(), ours.names()
    stockInput, ourInput = stock.input(), ours.input()
    unsettled = (
        world != "memory"  # KERNEL_ROOM
        or session.bounded
        or session.meetsReset
    )
    if session.cut and unsettled:
        # READ_AHEAD
        assert alike(stockInput, ourInput), where
        assert alike(stock.received, ours.received), where
        # A UNIX peer that closes sends both EOF and, to a write, EPIPE.
        loose = {"data", "EOF"} if world == "unix" and session.meetsReset else {"data"}
        stockNames = [name for name in stockNames if name not in loose]
        ourNames = [name for name in ourNames if name not in loose]
    else:
        assert stockInput == ourInput, where
        if session.racing and session.has("loseWrite") and session.kind != "record":
            assert alike(stock.received, ours.received), where
        else:
            assert stock.received == ours.received, where
    ends = (stock.end, stock.gone), (ours.end, ours.gone)
    early = session.racing or world != "memory"
    if early and (session.has("loseWrite") or session.onEOF == "loseWrite"):
        # EARLY_FIN, KERNEL_ROOM
        if session.cut:
            ends = (("", stock.gone), ("", ours.gone))
        elif session.onEOF != "lose":
            assert stockNames.count("FIN") == ourNames.count("FIN"), where
        stockNames, ourNames = withoutFIN(stockNames), withoutFIN(ourNames)
    assert stockNames == ourNames, where
    assert ends[0] == ends[1], where


def alike(one: bytes, other: bytes) -> bool:
    """Whether one is the beginning of the other."""
    return one.startswith(other) or other.startswith(one)


def withoutFIN(names: list[str]) -> list[str]:
    """The names but ``FIN``, adjacent ``data`` joined."""
    rest: list[str] = []
    for name in names:
        if name != "FIN" and (name, rest[-1:]) != ("data", ["data"]):
            rest.append(name)
    return rest


def differ(world: World, seeds: range, *, racing: bool, nested: bool = False) -> int:
    """Play all sessions both ways; returns how many there were."""
    for seed in seeds:
        session = makeSession(seed, world, racing=racing)
        try:
            stock = Run(session, world, tcp.Server, nested=False).play()
            ours = Run(session, world, Server, nested=nested).play()
        except AssertionError as error:
            raise AssertionError(f"{world}, {session}: {error}") from error
        compare(session, world, stock, ours, nested=nested)
    return len(seeds)


def differUnseen(world: World, seeds: range, *, racing: bool, nested: bool = False) -> None:
    """
    Play all sessions as Twisted does, through a pipe, and in place.

    Bulk goes through a pipe in a third of them at least, and a rest waits there in a sixth.
    """
    piped = kept = 0
    for seed in seeds:
        for kind in KINDS_OF_BULK:
            session = makeSession(seed, world, racing=racing, bulk=kind)
            pipes = CountedMemoryPipes(size=session.pipe) if world == "memory" else CountedPipes()
            try:
                stock = Run(session, world, tcp.Server, nested=False).play()
                ours = Run(session, world, Server, nested=nested, pipes=pipes).play()
            except AssertionError as error:
                raise AssertionError(f"{world}, {session}: {error}") from error
            compare(session, world, stock, ours, nested=nested)
            assert kind == "piped" or not pipes.moved
            piped += pipes.moved > LARGEST_READ
            kept += pipes.refused > 0
    assert 3 * piped > len(seeds) < 6 * kept, (piped, kept)


def batches(count: int, size: int) -> list[Any]:
    """Ranges of seeds, each one test."""
    return [
        pytest.param(range(start, start + size), id=f"{start}")
        for start in range(0, count * size, size)
    ]


@pytest.mark.parametrize("seeds", batches(6, 250))
def test_memory(seeds: range) -> None:
    """1 500 sessions, each step settled: the same to the last event and byte."""
    assert differ("memory", seeds, racing=False) == 250


@pytest.mark.parametrize("seeds", batches(3, 250))
def test_memoryRacing(seeds: range) -> None:
    """750 sessions in which a step meets what the last ones have not finished."""
    assert differ("memory", seeds, racing=True) == 250


@pytest.mark.parametrize("nested", [False, True], ids=["loop", "poller"])
@pytest.mark.parametrize("racing", [False, True], ids=["settled", "racing"])
@pytest.mark.parametrize("seeds", batches(1, 200))
def test_uNIX(seeds: range, racing: bool, nested: bool) -> None:
    """800 sessions over socket pairs, where a real kernel delivers at once."""
    assert differ("unix", seeds, racing=racing, nested=nested) == 200


@pytest.mark.parametrize("nested", [False, True], ids=["loop", "poller"])
@pytest.mark.parametrize("seeds", batches(1, 150))
def test_tCP(seeds: range, nested: bool) -> None:
    """300 sessions over loopback, RST in the middle of writing among them."""
    assert differ("tcp", seeds, racing=True, nested=nested) == 150


@pytest.mark.parametrize("racing", [False, True], ids=["settled", "racing"])
@pytest.mark.parametrize("seeds", batches(2, 150))
def test_memoryUnseen(seeds: range, racing: bool) -> None:
    """600 sessions of bulk that ours echoes unseen, through pipes of all sizes and in place."""
    differUnseen("memory", seeds, racing=racing)


@pytest.mark.parametrize("nested", [False, True], ids=["loop", "poller"])
@pytest.mark.parametrize("racing", [False, True], ids=["settled", "racing"])
@pytest.mark.parametrize("seeds", batches(1, 150))
def test_uNIXUnseen(seeds: range, racing: bool, nested: bool) -> None:
    """600 sessions of bulk over socket pairs, each through a pipe and in place."""
    differUnseen("unix", seeds, racing=racing, nested=nested)


@pytest.mark.parametrize("nested", [False, True], ids=["loop", "poller"])
@pytest.mark.parametrize("seeds", batches(1, 75))
def test_tCPUnseen(seeds: range, nested: bool) -> None:
    """150 sessions of bulk over loopback, RST while a rest waits in a pipe among them."""
    differUnseen("tcp", seeds, racing=True, nested=nested)
