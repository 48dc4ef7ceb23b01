"""`echod.transports.loop.poller`: as Twisted's reactors, but for what its docstring says."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from errno import ENOSPC
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor, IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from echod.transports.loop.entry import QUICK
from echod.transports.loop.nested_epoll import available
from echod.transports.loop.poller import BATCH, FEW, TURN, Poller
from echod.transports.loop.spin import LOOKS
from tests.unit.outer import Outer, reset, tcpPair, waitUntil


class Descriptor:
    """
    One end of a socket pair in a poller.

    :ivar calls: what the poller told it, in order.
    :ivar number: its number, where that is another one's.
    :ivar onRead: called by doRead in place of reading; likewise the others.
    """

    connected = True

    def __init__(self, skt: socket.socket) -> None:
        self.socket = skt
        self.number: int | None = None
        self.calls: list[Any] = []
        self.onRead: Callable[[], Any] | None = None
        self.onWrite: Callable[[], Any] | None = None
        self.onLost: Callable[[], Any] | None = None

    def fileno(self) -> int:
        return self.socket.fileno() if self.number is None else self.number

    def logPrefix(self) -> str:
        return "test"

    def doRead(self) -> Any:
        if self.onRead is not None:
            self.calls.append("read")
            return self.onRead()
        data = self.socket.recv(1000)
        self.calls.append(data)
        return None if data else CONNECTION_DONE

    def doWrite(self) -> Any:
        self.calls.append("write")
        return self.onWrite() if self.onWrite is not None else None

    def connectionLost(self, reason: Failure) -> None:
        self.calls.append(reason.type)
        self.connected = False
        if self.onLost is not None:
            self.onLost()


@implementer(IHalfCloseableDescriptor)
class HalfCloseable(Descriptor):
    """One that survives EOF."""

    def readConnectionLost(self, reason: Failure) -> None:
        self.calls.append("EOF")

    def writeConnectionLost(self, reason: Failure) -> None:
        raise AssertionError("nobody calls it")


class Rig:
    """
    A poller in an outer reactor, whose clock it has, and descriptors made for it.

    :ivar slow: what the poller told of descriptors that took long, and for how many seconds.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.outer = Outer()
        self.slow: list[tuple[object, float]] = []
        self.poller = Poller(
            self.outer, lambda *told: self.slow.append(told), clock=self.outer.seconds
        )
        self._stack = stack

    def pair(self, kind: type[Descriptor] = Descriptor) -> tuple[Any, socket.socket]:
        """A descriptor, not added yet, and its peer."""
        return self.over(socket.socketpair(), kind)

    def tcp(self, kind: type[Descriptor] = Descriptor) -> tuple[Any, socket.socket]:
        """The same over TCP."""
        return self.over(tcpPair(), kind)

    def over(
        self, pair: tuple[socket.socket, socket.socket], kind: type[Descriptor] = Descriptor
    ) -> tuple[Any, socket.socket]:
        ours, theirs = pair
        ours.setblocking(False)
        self._stack.callback(ours.close)
        self._stack.callback(theirs.close)
        return kind(ours), theirs

    def reading(self, kind: type[Descriptor] = Descriptor) -> tuple[Any, socket.socket]:
        """A descriptor that reads, and its peer."""
        descriptor, peer = self.pair(kind)
        self.poller.addReader(descriptor)
        return descriptor, peer

    @property
    def empty(self) -> bool:
        """Whether nobody is known, and no epoll object is left."""
        poller = self.poller
        return (
            not poller._entries
            and self.outer.readers == []
            and all(polled.fileno() == -1 for polled in (poller._little, poller._much))
        )

    @property
    def counts(self) -> tuple[int, int]:
        """How many have little to do, and how many much."""
        where = [entry.polled for entry in self.poller._entries.values()]
        return where.count(self.poller._little), where.count(self.poller._much)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with ExitStack() as stack:
        made = Rig(stack)
        stack.callback(made.poller.removeAll)
        yield made


def fill(skt: socket.socket) -> None:
    """Send until the kernel takes no more."""
    with suppress(BlockingIOError):
        while True:
            skt.send(bytes(65536))


def drain(skt: socket.socket) -> None:
    """Read all there is."""
    skt.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            skt.recv(1 << 20)


# -- Adding and removing ---------------------------------------------------------------------


def test_interfaces(rig: Rig) -> None:
    """An IReactorFDSet that is two readers of the real reactor."""
    verifyObject(IReactorFDSet, rig.poller)
    rig.reading()
    assert len(rig.outer.readers) == 2
    for reader in rig.outer.readers:
        verifyObject(IReadDescriptor, reader)
        assert reader.logPrefix() == "Poller"
    assert available()


def test_readsAndWrites(rig: Rig) -> None:
    """Each is told what it asked for, and nothing else."""
    descriptor, peer = rig.reading()
    peer.send(b"one")
    rig.outer.turn()
    assert descriptor.calls == [b"one"]
    rig.poller.addWriter(descriptor)
    rig.outer.turn()
    assert descriptor.calls == [b"one", "write"]
    peer.send(b"two")
    rig.outer.turn()
    assert descriptor.calls == [b"one", "write", b"two", "write"]
    rig.poller.removeReader(descriptor)
    peer.send(b"three")
    rig.outer.turn()
    assert descriptor.calls[4:] == ["write"]
    rig.poller.removeWriter(descriptor)
    rig.outer.rest()
    assert len(descriptor.calls) == 5
    rig.poller.addReader(descriptor)
    rig.outer.rest()
    assert descriptor.calls[5:] == [b"three"]


def test_addedAndRemovedTwice(rig: Rig) -> None:
    """Asking twice is asking once; removing a stranger is nothing (IReactorFDSet)."""
    descriptor, peer = rig.reading()
    stranger, _ = rig.pair()
    rig.poller.addReader(descriptor)
    rig.poller.removeReader(stranger)
    rig.poller.removeWriter(stranger)
    rig.poller.removeWriter(descriptor)
    peer.send(b"one")
    rig.outer.turn()
    assert descriptor.calls == [b"one"]
    rig.poller.removeReader(descriptor)
    rig.poller.removeReader(descriptor)
    assert rig.poller.getReaders() == []


def test_getReadersAndWriters(rig: Rig) -> None:
    """They tell who asks for what; a paused one asks for nothing."""
    one, _ = rig.reading()
    two, _ = rig.reading()
    rig.poller.addWriter(two)
    paused, _ = rig.reading()
    rig.poller.removeReader(paused)
    assert rig.poller.getReaders() == [one, two]
    assert rig.poller.getWriters() == [two]


def test_removeAll(rig: Rig) -> None:
    """It returns everybody, paused ones too, and lets go of the epoll object."""
    one, peer = rig.reading()
    two, _ = rig.pair()
    rig.poller.addWriter(two)
    paused, _ = rig.reading()
    rig.poller.removeReader(paused)
    assert set(rig.poller.removeAll()) == {one, two, paused}
    assert rig.empty
    assert rig.poller.removeAll() == []
    peer.send(b"late")
    rig.outer.rest()
    assert one.calls == []


def test_epollLivesFromFirstToLast(rig: Rig) -> None:
    """The epoll objects go with the last descriptor: an idle poller holds nothing."""
    before = len(os.listdir("/proc/self/fd"))
    assert rig.empty
    for _ in range(100):
        one, _ = rig.over(socket.socketpair())
        two, _ = rig.over(socket.socketpair())
        rig.poller.addReader(one)
        rig.poller.addReader(two)
        assert len(rig.outer.readers) == 2
        assert all(reader.fileno() >= 0 for reader in rig.outer.readers)
        for descriptor in (one, two):
            descriptor.connected = False
            assert not rig.empty
            rig.poller.removeReader(descriptor)
        assert rig.empty
        rig._stack.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_withoutConnected(rig: Rig) -> None:
    """IReadDescriptor knows no ``connected``: one without it is not kept once it is removed."""

    class Bare:
        def __init__(self, skt: socket.socket) -> None:
            self.fileno = skt.fileno
            self.reads = 0

        def doRead(self) -> None:
            self.reads += 1

    ours, theirs = socket.socketpair()
    with ours, theirs:
        bare: Any = Bare(ours)
        rig.poller.addReader(bare)
        theirs.send(b"x")
        rig.outer.turn()
        assert bare.reads == 1
        rig.poller.removeReader(bare)
        assert rig.empty


# -- One fails alone -------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, SystemExit, GeneratorExit])
@pytest.mark.parametrize("where", ["onRead", "onWrite", "onLost"])
def test_oneThatRaises(rig: Rig, where: str, error: type[BaseException], loggedErrors: Any) -> None:
    """Whatever one raises costs that one, is logged, and costs nobody else."""

    def fail() -> None:
        raise error("its own fault")

    bad, badPeer = rig.reading()
    setattr(bad, where, fail)
    if where == "onWrite":
        rig.poller.addWriter(bad)
    if where == "onLost":
        bad.onRead = lambda: CONNECTION_LOST
    good, goodPeer = rig.reading()
    badPeer.send(b"x")
    goodPeer.send(b"y")
    rig.outer.turn()
    rig.outer.rest()
    assert good.calls == [b"y"]
    assert bad.calls[-1] is (ConnectionLost if where == "onLost" else error)
    (line,) = loggedErrors.flush()
    assert "its own fault" in line
    assert rig.poller.getReaders() == [good]
    assert rig.poller.getWriters() == []


def test_readConnectionLostThatRaises(rig: Rig, loggedErrors: Any) -> None:
    """The same of readConnectionLost."""

    class Bad(HalfCloseable):
        def readConnectionLost(self, reason: Failure) -> None:
            raise SystemExit("its own fault")

    _, badPeer = rig.reading(Bad)
    good, goodPeer = rig.reading()
    badPeer.shutdown(socket.SHUT_WR)
    goodPeer.send(b"y")
    rig.outer.turn()
    assert good.calls == [b"y"]
    assert "its own fault" in loggedErrors.flush()[0]


def test_halfClose(rig: Rig) -> None:
    """EOF ends the reading alone of one that can be half-closed; it writes on."""
    descriptor, peer = rig.reading(HalfCloseable)
    rig.poller.addWriter(descriptor)
    peer.shutdown(socket.SHUT_WR)
    rig.outer.turn()
    assert descriptor.calls == [b"", "EOF"]
    assert rig.poller.getReaders() == []
    rig.outer.turn()
    assert descriptor.calls == [b"", "EOF", "write"]
    descriptor.onWrite = lambda: CONNECTION_DONE
    rig.outer.turn()
    assert descriptor.calls[3:] == ["write", ConnectionDone]
    assert rig.empty


def test_eOFOfOneThatCannotBeHalfClosed(rig: Rig) -> None:
    """EOF ends it."""
    descriptor, peer = rig.reading()
    peer.close()
    rig.outer.turn()
    assert descriptor.calls == [b"", ConnectionDone]


def test_hangUpWithoutInput(rig: Rig) -> None:
    """EPOLLHUP alone, as of a pipe, is EOF to a reader."""
    readEnd, writeEnd = os.pipe()
    descriptor, _ = rig.pair(HalfCloseable)
    descriptor.number = readEnd
    rig.poller.addReader(descriptor)
    os.close(writeEnd)
    rig.outer.turn()
    assert descriptor.calls == ["EOF"]
    rig.poller.removeAll()
    os.close(readEnd)


def test_errorWithoutOutput(rig: Rig) -> None:
    """EPOLLERR, as of a full pipe whose reader has gone, ends a writer as a lost connection."""
    readEnd, writeEnd = os.pipe()
    os.set_blocking(writeEnd, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writeEnd, bytes(4096))
    descriptor, _ = rig.pair()
    descriptor.number = writeEnd
    descriptor.onWrite = lambda: CONNECTION_LOST
    rig.poller.addWriter(descriptor)
    rig.outer.turn()
    assert descriptor.calls == []
    os.close(readEnd)
    rig.outer.turn()
    assert descriptor.calls[-1] is ConnectionLost
    rig.poller.removeAll()
    os.close(writeEnd)


# -- epoll_ctl fails -------------------------------------------------------------------------


def test_refusedByEpoll(rig: Rig, tmp_path: Path) -> None:
    """Epoll takes no regular file (EPERM): the caller learns it, nothing is left."""
    refused, _ = rig.pair()
    with open(tmp_path / "file", "wb") as file:
        refused.number = file.fileno()
        with pytest.raises(PermissionError):
            rig.poller.addReader(refused)
        assert rig.empty
        with pytest.raises(PermissionError):
            rig.poller.addWriter(refused)
        assert rig.empty


def test_refusedByEpollWithinATurn(rig: Rig, tmp_path: Path, loggedErrors: Any) -> None:
    """The one that asked for it ends, the others stay."""
    asking, askingPeer = rig.reading()
    good, goodPeer = rig.reading()
    refused, _ = rig.pair()
    with open(tmp_path / "file", "wb") as file:
        refused.number = file.fileno()
        asking.onRead = lambda: rig.poller.addWriter(refused)
        askingPeer.send(b"x")
        goodPeer.send(b"y")
        rig.outer.turn()
    assert asking.calls == ["read", PermissionError]
    assert good.calls == [b"y"]
    assert rig.poller.getReaders() == [good]
    assert rig.poller.getWriters() == []
    assert "not permitted" in loggedErrors.flush()[0]


# -- Vanished descriptors --------------------------------------------------------------------


def test_closedWithoutRemoval(rig: Rig) -> None:
    """One that is closed first is removed all the same, and found by identity."""
    descriptor, _ = rig.reading()
    rig.poller.addWriter(descriptor)
    other, otherPeer = rig.reading()
    descriptor.socket.close()
    otherPeer.send(b"y")
    rig.outer.rest()
    assert other.calls == [b"y"]
    rig.poller.removeReader(descriptor)
    rig.poller.removeWriter(descriptor)
    assert rig.poller.getReaders() == [other]
    assert rig.poller.getWriters() == []
    assert rig.poller.removeAll() == [other]
    assert rig.empty


def test_closedBehindItsBack(rig: Rig) -> None:
    """Fileno() still names it, epoll knows it no more (EBADF): it ends whole."""
    ours, theirs = socket.socketpair()
    number = ours.detach()
    descriptor, _ = rig.pair()
    descriptor.number = number
    rig.poller.addReader(descriptor)
    rig.poller.addWriter(descriptor)

    def vanish() -> Any:
        os.close(number)
        return CONNECTION_LOST

    descriptor.onRead = vanish
    theirs.send(b"x")
    rig.outer.turn()
    assert descriptor.calls == ["read", ConnectionLost]
    assert rig.empty
    theirs.close()


def test_closedButDuplicated(rig: Rig) -> None:
    """Events of a file that lives on under another number end nobody."""
    ghost, ghostPeer = rig.reading()
    other, otherPeer = rig.reading()
    with ghost.socket.dup():
        ghost.socket.close()
        rig.poller.removeReader(ghost)
        ghostPeer.send(b"x")
        otherPeer.send(b"y")
        rig.outer.turn()
        rig.outer.turn()
    assert other.calls == [b"y"]
    assert ghost.calls == []
    rig.outer.rest()


@pytest.mark.parametrize("removed", [True, False], ids=["removed", "not removed"])
def test_numberReusedWithinABatch(rig: Rig, removed: bool) -> None:
    """The new bearer of a number does not get its predecessor's events."""
    newcomers: list[Any] = []

    def replace(other: Any) -> Callable[[], None]:
        def act() -> None:
            if newcomers:
                return
            number = other.fileno()
            if removed:
                rig.poller.removeReader(other)
                other.connected = False
                rig.poller.removeReader(other)
                rig.poller.removeWriter(other)
            other.socket.close()
            newcomer, peer = rig.pair()
            if newcomer.fileno() != number:
                os.dup2(newcomer.fileno(), number)
                newcomer.socket.close()
                newcomer.socket = socket.socket(fileno=number)
                rig._stack.callback(newcomer.socket.close)
            assert newcomer.fileno() == number
            rig.poller.addReader(newcomer)
            newcomers.extend((newcomer, peer, other))

        return act

    one, onePeer = rig.reading()
    two, twoPeer = rig.reading()
    one.onRead, two.onRead = replace(two), replace(one)
    onePeer.send(b"x")
    twoPeer.send(b"x")
    rig.outer.turn()
    newcomer, newPeer, replaced = newcomers
    assert newcomer.calls == []
    assert replaced.calls == []
    assert replaced not in rig.poller.getReaders()
    assert newcomer in rig.poller.getReaders()
    newPeer.send(b"mine")
    rig.outer.turn()
    assert newcomer.calls == [b"mine"]


def test_forgottenWithinItsOwnRead(rig: Rig) -> None:
    """One that ends itself in doRead is not told to write in the same turn."""
    descriptor, peer = rig.reading()
    rig.poller.addWriter(descriptor)

    def end() -> None:
        descriptor.connected = False
        rig.poller.removeReader(descriptor)
        rig.poller.removeWriter(descriptor)
        descriptor.socket.close()

    descriptor.onRead = end
    peer.send(b"x")
    rig.outer.turn()
    assert descriptor.calls == ["read"]
    assert rig.empty


def stoppingPair(rig: Rig, stop: Callable[[Any], None]) -> tuple[Any, socket.socket]:
    """A descriptor with an event in a batch in which another, served before it, stops it."""
    stopper, stopperPeer = rig.reading()
    stopped, stoppedPeer = rig.pair(HalfCloseable)

    def act() -> None:
        stopper.socket.recv(10)
        stop(stopped)

    stopper.onRead = act
    stopperPeer.send(b"x")
    return stopped, stoppedPeer


def test_readingStoppedWithinABatch(rig: Rig) -> None:
    """Stopped by another's turn, with output still to come: it is not read, but written."""
    stopped, peer = stoppingPair(rig, rig.poller.removeReader)
    fill(stopped.socket)
    rig.poller.addReader(stopped)
    rig.poller.addWriter(stopped)
    peer.send(b"x")
    rig.outer.turn()
    assert stopped.calls == []
    assert rig.poller.getWriters() == [stopped]
    drain(peer)
    rig.outer.turn()
    assert stopped.calls == ["write"]


def test_writingStoppedWithinABatch(rig: Rig) -> None:
    """Its output stopped by another's turn: that is no EOF."""
    stopped, peer = stoppingPair(rig, rig.poller.removeWriter)
    rig.poller.addReader(stopped)
    rig.poller.addWriter(stopped)
    rig.outer.turn()
    assert stopped.calls == []
    peer.send(b"x")
    rig.outer.rest()
    assert stopped.calls == [b"x"]


def test_pausedWithinABatch(rig: Rig) -> None:
    """Paused by another's turn it stays registered, so that RST is noticed."""
    stopper, stopperPeer = rig.reading()
    stopped, peer = rig.tcp()

    def act() -> None:
        stopper.socket.recv(10)
        rig.poller.removeReader(stopped)

    stopper.onRead = act
    stopperPeer.send(b"x")
    rig.poller.addReader(stopped)
    peer.send(b"x")
    rig.outer.turn()
    assert stopped.calls == []
    reset(peer)
    waitUntil(rig.outer.turn, lambda: stopped.calls)
    assert stopped.calls == [ConnectionLost]


# -- Paused ----------------------------------------------------------------------------------


def test_pausedNoticesReset(rig: Rig) -> None:
    """A peer's RST ends a paused connection at once, unread input or not."""
    for unread in (b"", b"x"):
        descriptor, peer = rig.tcp(HalfCloseable)
        rig.poller.addReader(descriptor)
        rig.poller.removeReader(descriptor)
        peer.send(unread)
        rig.outer.rest()
        assert descriptor.calls == []
        reset(peer)
        waitUntil(rig.outer.turn, lambda it=descriptor: it.calls)  # type: ignore[misc]
        assert descriptor.calls == [ConnectionLost]
        assert rig.empty


def test_pausedDoesNotRead(rig: Rig) -> None:
    """Neither input nor the peer's FIN is told to a paused one, and they do not spin."""
    descriptor, peer = rig.tcp(HalfCloseable)
    rig.poller.addReader(descriptor)
    rig.poller.removeReader(descriptor)
    peer.send(b"x")
    peer.shutdown(socket.SHUT_WR)
    served = rig.outer.served
    for _ in range(20):
        rig.outer.turn()
    assert rig.outer.served == served
    rig.poller.addReader(descriptor)
    rig.outer.turn()
    rig.outer.turn()
    assert descriptor.calls == [b"x", b"", "EOF"]


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_hangUpDoesNotSpin(rig: Rig, kind: str) -> None:
    """EPOLLHUP is reported for ever to an empty mask: told once, then never."""
    descriptor, peer = rig.pair(HalfCloseable) if kind == "unix" else rig.tcp(HalfCloseable)
    other, _ = rig.reading()
    rig.poller.addReader(descriptor)
    rig.poller.removeReader(descriptor)
    descriptor.socket.shutdown(socket.SHUT_WR)
    peer.close()
    poll = select.poll()
    poll.register(descriptor.fileno(), 0)
    waitUntil(lambda _: None, lambda: poll.poll(5))
    served = rig.outer.served
    for _ in range(20):
        rig.outer.turn()
    assert rig.outer.served - served == 1
    assert descriptor.calls == []
    assert rig.poller.getReaders() == [other]
    # It may go on reading: the rest, then EOF.
    rig.poller.addReader(descriptor)
    rig.outer.turn()
    assert descriptor.calls == [b"", "EOF"]


# -- Fairness --------------------------------------------------------------------------------


def test_boundedBatch(rig: Rig) -> None:
    """A turn takes BATCH events at most, and then the others come first."""
    assert BATCH <= 256
    size = BATCH + 20
    descriptors = []
    for _ in range(size):
        descriptor, peer = rig.reading()
        peer.send(b"x")
        descriptor.onRead = lambda: None  # leaves its byte: it is ready for ever
        descriptors.append(descriptor)
    rig.outer.turn()
    assert sum(len(descriptor.calls) for descriptor in descriptors) == BATCH
    rig.outer.turn()
    assert sum(len(descriptor.calls) for descriptor in descriptors) == 2 * BATCH
    assert min(len(descriptor.calls) for descriptor in descriptors) == 1


def test_whoIsSlow(rig: Rig) -> None:
    """Each is blamed for its own time alone, not for a batch's."""
    descriptors = [rig.reading() for _ in range(4)]

    def take(seconds: float, skt: socket.socket) -> None:
        rig.outer.advance(seconds)
        skt.recv(10)

    for (descriptor, peer), seconds in zip(descriptors, (0.09, 0.09, 0.25, 0.09), strict=True):
        descriptor.onRead = partial(take, seconds, descriptor.socket)
        peer.send(b"x")
    rig.outer.turn()
    ((descriptor, seconds),) = rig.slow
    assert descriptor is descriptors[2][0]
    assert seconds == pytest.approx(0.25)


# -- Quick ones ------------------------------------------------------------------------------


class Quick(Descriptor):
    """One whose reads take next to nothing, of the clock 1 ms."""

    def __init__(self, skt: socket.socket) -> None:
        super().__init__(skt)
        self.onRead = self.read
        self.passTime: Callable[[float], None] = lambda _: None

    def read(self) -> Any:
        self.socket.recv(10)
        self.passTime(0.001)
        return QUICK


def quickOnes(rig: Rig, count: int) -> list[tuple[Any, socket.socket]]:
    """Some that have had a read, and have another before them."""
    found = [rig.reading(Quick) for _ in range(count)]
    for descriptor, peer in found:
        descriptor.passTime = rig.outer.advance
        peer.send(b"x")
    rig.outer.rest()
    for descriptor, peer in found:
        assert descriptor.calls == ["read"]
        peer.send(b"x")
    return found


def test_whoIsSlowAmongQuickOnes(rig: Rig) -> None:
    """The clock is not read for each of them, and the right one is blamed all the same."""
    quick = quickOnes(rig, 9)
    slow, _ = quick[4]

    def take() -> None:
        slow.socket.recv(10)
        rig.outer.advance(0.25)

    slow.onRead = take
    rig.outer.rest()
    ((descriptor, seconds),) = rig.slow
    assert descriptor is slow
    assert seconds == pytest.approx(0.25, abs=0.0091)
    assert all(descriptor.calls == ["read"] * 2 for descriptor, _ in quick)


def test_quickOnesGoOn(rig: Rig) -> None:
    """While nothing else is ready they are served again in the same turn, up to BATCH."""
    ((quick, _),) = quickOnes(rig, 1)
    quick.onRead = lambda: QUICK  # leaves its byte: it is ready for ever
    rig.outer.turn()
    assert len(quick.calls) == 1 + BATCH
    other, peer = rig.reading()
    peer.send(b"y")
    quick.calls.clear()
    rig.outer.turn()
    assert other.calls == [b"y"]
    assert len(quick.calls) == 1


class Looks:
    """An epoll object that counts how often it is asked, and does something before one of them."""

    def __init__(self, epoll: Any, before: int, act: Callable[[], object]) -> None:
        self._epoll = epoll
        self._before = before
        self._act = act
        self.count = 0

    def poll(self, seconds: float, most: int) -> Any:
        self.count += 1
        if self.count == self._before:
            self._act()
        return self._epoll.poll(seconds, most)

    def fileno(self) -> int:
        return int(self._epoll.fileno())


@pytest.mark.parametrize("look", [2, 3, 2 + LOOKS])
def test_loneClientIsWaitedFor(rig: Rig, look: int) -> None:
    """What a lone client answers while it is looked for is served in the same turn."""
    ((quick, peer),) = quickOnes(rig, 1)
    little = rig.poller._little
    epoll = little.epoll
    little.epoll = looks = Looks(epoll, look, lambda: peer.send(b"x"))
    rig.outer.turn()
    little.epoll = epoll
    assert quick.calls == ["read"] * 3
    assert looks.count == look + 1 + LOOKS


def test_noAnswerNoLook(rig: Rig) -> None:
    """Nobody is looked for after a look in vain, nor while there are others."""
    ((quick, peer),) = quickOnes(rig, 1)
    little = rig.poller._little
    epoll = little.epoll
    counts = []
    for _ in range(3):
        little.epoll = looks = Looks(epoll, 0, list)
        rig.outer.turn()
        counts.append(looks.count)
        peer.send(b"x")
    assert counts == [2 + LOOKS, 2, 2 + LOOKS]
    little.epoll = epoll
    rig.outer.rest()
    quickOnes(rig, 2)
    little.epoll = looks = Looks(epoll, 0, list)
    rig.outer.turn()
    little.epoll = epoll
    assert looks.count == 2
    assert quick.calls == ["read"] * 5


def test_quickOneThatEnds(rig: Rig) -> None:
    """EOF in the middle of a turn; the last one takes the epoll object with it."""
    ((quick, peer),) = quickOnes(rig, 1)

    def read() -> Any:
        if quick.socket.recv(10):
            peer.close()
            return QUICK
        return CONNECTION_DONE

    quick.onRead = read
    rig.outer.turn()
    assert quick.calls == ["read", "read", "read", ConnectionDone]
    assert rig.empty


def test_quickOneThatReadsMuch(rig: Rig) -> None:
    """It waits as others do, once a read of it has come back full."""
    (quick, quickPeer), (little, littlePeer) = quickOnes(rig, 2)
    order: list[str] = []

    def read(name: str, skt: socket.socket) -> None:
        order.append(name)
        skt.recv(10)

    def readMuch() -> None:
        read("much", quick.socket)
        quick.readsMuch = True

    quick.onRead = readMuch
    little.onRead = partial(read, "little", little.socket)
    rig.outer.turn()
    assert order == ["much", "little"]
    quickPeer.send(b"x")
    littlePeer.send(b"x")
    rig.outer.turn()
    assert order == ["much", "little", "little", "much"]


def test_quickOneStoppedWithinABatch(rig: Rig) -> None:
    """Stopped by another's turn it is not read, and noticed again when it reads on."""
    (first, _), (second, _) = quickOnes(rig, 2)

    def stop() -> Any:
        rig.poller.removeReader(second)
        return first.read()

    first.onRead = stop
    rig.outer.rest()
    assert second.calls == ["read"]
    rig.poller.addReader(second)
    rig.outer.rest()
    assert second.calls == ["read", "read"]


def test_quickOneThatWritesToo(rig: Rig) -> None:
    """Once it asks to write as well, it is told of both."""
    ((quick, _),) = quickOnes(rig, 1)
    rig.poller.addWriter(quick)
    rig.outer.turn()
    assert quick.calls == ["read", "read", "write"]


def test_quickOnesNumberForAnother(rig: Rig) -> None:
    """The new bearer of its number, within the batch, does not get its event."""
    (first, _), (second, _) = quickOnes(rig, 2)
    newcomer, peer = rig.pair()

    def replace() -> Any:
        number = second.fileno()
        second.connected = False
        rig.poller.removeReader(second)
        os.dup2(newcomer.fileno(), number)
        second.number = -1
        newcomer.number = number
        rig.poller.addReader(newcomer)
        first.onRead = first.read
        return first.read()

    first.onRead = replace
    rig.outer.rest()
    assert (newcomer.calls, second.calls) == ([], ["read"])
    peer.send(b"y")
    rig.outer.turn()
    assert newcomer.calls == [b"y"]


# -- The end ---------------------------------------------------------------------------------


class Flood(Descriptor):
    """One whose reads come back full."""

    readsMuch = True


def test_littleGoesFirst(rig: Rig) -> None:
    """In one batch those that read much come last, each once."""
    order: list[str] = []

    def read(name: str, skt: socket.socket) -> None:
        order.append(name)
        skt.recv(10)

    for number, kind in enumerate((Flood, Descriptor, Flood, Descriptor)):
        descriptor, peer = rig.reading(kind)
        descriptor.onRead = partial(read, f"{kind.__name__} {number}", descriptor.socket)
        peer.send(b"x")
    assert rig.outer.turn()
    assert order == ["Descriptor 1", "Descriptor 3", "Flood 0", "Flood 2"]


@pytest.mark.parametrize("count", [1, 3, FEW, FEW + 3, BATCH])
def test_littleGoesBetween(rig: Rig, count: int) -> None:
    """
    What becomes ready during the turn of one flood waits for no other.

    A few floods have more than one turn each, until others than these shall have theirs.  Then a
    batch is only finished.
    """
    order: list[str] = []
    floods = [rig.reading(Flood) for _ in range(count)]
    little, peerOfLittle = rig.reading()

    def flood() -> None:
        order.append("much")
        peerOfLittle.send(b"x")
        rig.outer.advance(TURN / 20.5)

    def read() -> None:
        order.append("little")
        little.socket.recv(100)

    little.onRead = read
    for descriptor, peer in floods:
        descriptor.onRead = flood
        peer.send(b"x")
    rig.outer.turn()
    batch = min(count, FEW)
    served = batch * min(-(-21 // batch), BATCH // FEW)
    looks = min(served, 21)
    assert order == ["much", "little"] * (looks - 1) + ["much"] * (served - looks + 1)


def test_floodsThatTakeNoTime(rig: Rig) -> None:
    """A turn ends even so."""
    flood, peer = rig.reading(Flood)
    flood.onRead = lambda: None
    peer.send(b"x")
    rig.outer.turn()
    assert len(flood.calls) == BATCH // FEW


@pytest.mark.parametrize("count", [FEW + 1, BATCH + 1, 2 * BATCH, 3 * BATCH, 4 * BATCH])
@pytest.mark.parametrize("seconds", [TURN / 1000, TURN / 10, 2 * TURN])
def test_floodsTakeTurns(rig: Rig, count: int, seconds: float) -> None:
    """None is passed over for ever, wherever a turn ends."""

    def flood() -> None:
        rig.outer.advance(seconds)

    floods = [rig.reading(Flood) for _ in range(count)]
    for descriptor, peer in floods:
        descriptor.onRead = flood
        peer.send(b"x")
    for _ in range(50):
        rig.outer.turn()
        turns = [len(descriptor.calls) for descriptor, _ in floods]
        assert max(turns) - min(turns) <= 1
    assert sum(turns) >= 50 * FEW


def test_writerThatStopsWhileItWaits(rig: Rig) -> None:
    """What epoll said of one that waits may be old: it writes only if it still asks to."""
    floods = [rig.reading(Flood) for _ in range(2)]
    (first, _), (second, _) = floods

    def stop(descriptor: Any) -> None:
        descriptor.socket.recv(10)
        rig.poller.removeWriter(second)

    for descriptor, peer in floods:
        descriptor.onRead = partial(stop, descriptor)
        descriptor.onWrite = partial(rig.poller.removeWriter, descriptor)
        rig.poller.addWriter(descriptor)
        peer.send(b"x")
    rig.outer.turn()
    assert (first.calls, second.calls) == (["read", "write"], ["read"])


def test_floodsNumberForAnother(rig: Rig) -> None:
    """One that is gone before its turn in a batch is not served, nor is who has its number then."""
    floods = [rig.reading(Flood) for _ in range(FEW)]
    (first, _), (last, _) = floods[0], floods[-1]
    newcomer, newPeer = rig.pair(Flood)

    def replace() -> None:
        first.socket.recv(10)
        number = last.fileno()
        last.connected = False
        rig.poller.removeReader(last)
        os.dup2(newcomer.fileno(), number)
        last.number, newcomer.number = -1, number
        rig.poller.addReader(newcomer)

    for _, peer in floods:
        peer.send(b"x")
    first.onRead = replace
    rig.outer.turn()
    assert all(descriptor.calls for descriptor, _ in floods[:-1])
    assert (last.calls, newcomer.calls) == ([], [])
    newPeer.send(b"y")
    rig.outer.turn()
    assert newcomer.calls == [b"y"]


def test_allGoBeforeAFlood(rig: Rig) -> None:
    """Who has little to do, and goes first, ends everybody: the turn ends."""
    floods = [rig.reading(Flood) for _ in range(2)]
    little, peerOfLittle = rig.reading()

    def removeAll() -> None:
        rig.poller.removeAll()

    little.onRead = removeAll
    for peer in (peerOfLittle, *(peer for _, peer in floods)):
        peer.send(b"x")
    rig.poller._serveMuch()
    assert little.calls == ["read"]
    assert [descriptor.calls for descriptor, _ in floods] == [[], []]
    assert rig.empty


def test_muchAndLittleByTurns(rig: Rig) -> None:
    """After each turn it is with those that it is one of then."""
    descriptor, peer = rig.reading()
    poller = rig.poller
    for much in (True, False, True):
        descriptor.readsMuch = much
        peer.send(b"x")
        rig.outer.turn()
        assert rig.counts == (not much, much)
    assert descriptor.calls == [b"x"] * 3
    descriptor.connected = False
    poller.removeReader(descriptor)
    assert rig.empty


def test_closedInItsOwnTurn(rig: Rig) -> None:
    """Closed without a word, and the number another's by then: that one is not watched twice."""
    descriptor, peer = rig.reading()
    newcomer, newPeer = rig.pair()
    number = descriptor.fileno()

    def close() -> None:
        descriptor.socket.detach()
        os.dup2(newcomer.fileno(), number)
        descriptor.number = newcomer.number = number
        descriptor.readsMuch = True

    descriptor.onRead = close
    peer.send(b"x")
    rig.poller._serveLittle()
    rig.poller.addReader(newcomer)
    rig.poller.removeReader(newcomer)
    newPeer.send(b"y")
    assert rig.poller._much.epoll.poll(0, 9) == rig.poller._little.epoll.poll(0, 9) == []
    os.close(number)


def test_numberTakenOver(rig: Rig) -> None:
    """A newcomer with the number of one that nobody removed takes its place in the kernel."""
    former, _ = rig.reading()
    newcomer, peer = rig.pair(Flood)
    newcomer.number = former.fileno()
    os.dup2(newcomer.fileno(), former.fileno())
    rig.poller.addReader(newcomer)
    other, otherPeer = rig.pair()
    other.number = former.fileno()
    rig.poller.addReader(other)
    peer.send(b"x")
    assert rig.poller._much.epoll.poll(0, 9) == []
    assert rig.poller.getReaders() == [other]
    assert rig.counts == (1, 0)
    otherPeer.close()


def test_noRoomAmongThoseWithMuch(rig: Rig) -> None:
    """Where the kernel has no room for one more (ENOSPC) it stays where it is, and is served."""
    descriptor, peer = rig.reading()
    epoll = rig.poller._much.epoll
    rig.poller._much.epoll = Full()
    descriptor.readsMuch = True
    for _ in range(2):
        peer.send(b"x")
        rig.poller._serveLittle()
    assert descriptor.calls == [b"x"] * 2
    rig.poller._much.epoll = epoll
    peer.send(b"x")
    rig.poller._serveLittle()
    assert rig.counts == (0, 1)


class Full:
    """An epoll object that takes nobody."""

    def register(self, number: int, mask: int) -> None:
        raise OSError(ENOSPC, "No space left on device")


def test_nobodyIsLookedForBesideFloods(rig: Rig) -> None:
    """A lone client's answer is not waited for while somebody has much to do; idle ones do not."""
    ((quick, peer),) = quickOnes(rig, 1)
    flood, peerOfFlood = rig.reading(Flood)
    little = rig.poller._little
    epoll = little.epoll
    counts = []
    for act in (lambda: peerOfFlood.send(b"x"), flood.doRead):
        act()
        little.epoll = looks = Looks(epoll, 0, list)
        little.doRead()
        little.epoll = epoll
        counts.append(looks.count)
        peer.send(b"x")
    assert quick.calls == ["read"] * 3
    assert counts == [2, 2 + LOOKS]


def test_loneClientBesideFloods(rig: Rig) -> None:
    """Whether to look for its answer is asked without taking a flood's turn from it."""
    ((_, peer),) = quickOnes(rig, 1)
    floods = [rig.reading(Flood) for _ in range(FEW + 1)]
    for descriptor, peerOfFlood in floods:
        descriptor.onRead = partial(rig.outer.advance, 2 * TURN)
        peerOfFlood.send(b"x")
    for _ in range(9 * (FEW + 1)):
        peer.send(b"x")
        rig.poller._serveLittle()
        rig.poller._serveMuch()
    turns = [len(descriptor.calls) for descriptor, _ in floods]
    assert max(turns) - min(turns) <= 1


def test_floodGoneMeanwhile(rig: Rig) -> None:
    """One that was left for later and removed before its turn is not served."""
    first, peer = rig.reading(Flood)
    second, other = rig.reading(Flood)
    little, another = rig.reading()
    for skt in (peer, other, another):
        skt.send(b"x")

    def remove() -> None:
        little.socket.recv(10)
        second.connected = False
        rig.poller.removeReader(second)

    little.onRead = remove
    rig.outer.turn()
    assert (first.calls, second.calls) == ([b"x"], [])


def test_lastFloodGoes(rig: Rig) -> None:
    """The last one ends in its turn, and the epoll object with it."""
    flood, peer = rig.reading(Flood)
    peer.close()
    rig.outer.turn()
    assert flood.calls == [b"", ConnectionDone]
    assert rig.empty


def test_reactorGoesDown(rig: Rig, loggedErrors: Any) -> None:
    """As the reactor's disconnectAll: everybody's connectionLost, whatever one of them raises."""

    def fail() -> None:
        raise SystemExit("at the end")

    bad, _ = rig.reading()
    bad.onLost = fail
    one, _ = rig.reading()
    paused, _ = rig.reading()
    rig.poller.removeReader(paused)
    flood, _ = rig.reading(Flood)
    for reader in rig.outer.readers:
        reader.connectionLost(Failure(ConnectionLost()))
    assert flood.calls == [ConnectionLost]
    assert bad.calls == one.calls == paused.calls == [ConnectionLost]
    assert rig.empty
    assert "at the end" in loggedErrors.flush()[0]


def test_usedAgain(rig: Rig) -> None:
    """When everybody has gone, another may come: within the same batch too."""
    last, lastPeer = rig.reading()
    successors: list[Any] = []

    def succeed() -> Any:
        last.connected = False
        rig.poller.removeReader(last)
        successors.append(rig.reading())

    last.onRead = succeed
    lastPeer.send(b"x")
    rig.outer.turn()
    ((successor, peer),) = successors
    peer.send(b"y")
    rig.outer.turn()
    assert successor.calls == [b"y"]
