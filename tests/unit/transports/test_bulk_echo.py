"""
`SocketStream.echoUnseen`: bulk comes back in order, whichever way it goes.

In place nothing of it is kept; what waits in a pipe is bounded, and known.
"""

from __future__ import annotations

import fcntl
import functools
import os
import random
import resource
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EACCES, ECONNRESET, EINTR, EINVAL, EIO, ENOBUFS, ENOMEM, ENOSYS, EPERM
from pathlib import Path
from typing import Any
from typing import Protocol as TypingProtocol

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.connection.states import Reason
from echod.protocols.raw import RawOptions, raw
from echod.testing import Link as MemoryLink
from echod.testing import memoryLink
from echod.testing.memory_pipes import MemoryPipes
from echod.transports.bulk_echo import LARGEST_READ
from echod.transports.facade import Facade
from echod.transports.pipes import LARGEST_SPLICE, MOST, PATIENCE, Pipe, Pipes
from echod.transports.socket_stream import FIRST_READ, LEAST_READ
from echod.transports.tcp import Server
from echod.transports.unix import UNIXServer
from tests.unit.outer import Outer, reset, tcpPair, waitUntil

BULK = 8_000_000


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@functools.cache
def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@implementer(IHalfCloseableProtocol)
class Echo(Protocol):
    """
    Echoes, pauses and half-closes as a connection does.

    :ivar seen: bytes shown; ``unseen``: bytes that were not.
    :ivar ended: whether it echoes no more.
    """

    transport: Any
    factory: Any = None

    def __init__(self, inPlace: bool) -> None:
        self.inPlace = inPlace
        self.seen = self.pauses = 0
        self.ends: list[Any] = []
        self.ended = False

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.transport.echoUnseen(True, self.inPlace)

    def dataReceived(self, data: bytes) -> None:
        self.seen += len(data)
        if not self.ended:
            self.transport.write(data)

    def end(self) -> None:
        self.transport.unregisterProducer()
        self.transport.abortConnection()

    @property
    def unseen(self) -> int:
        count: int = self.transport.echoedBytes
        return count

    def readConnectionLost(self) -> None:
        self.ends.append("EOF")
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        self.ends.append("FIN")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ends.append(reason.type)

    def pauseProducing(self) -> None:
        self.pauses += 1
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.ends.append("stop")


class Link:
    """A stream of ours on a real socket, and its client."""

    def __init__(self, family: int = socket.AF_INET, *, inPlace: bool = False) -> None:
        self.outer = Outer()
        facade: Any = Facade(self.outer)
        kind: Any = Server
        if family == socket.AF_UNIX:
            kind = UNIXServer
            self.socket, self.client = socket.socketpair()
            self.client.setblocking(False)
            self.socket.setblocking(False)
        else:
            self.socket, self.client = tcpPair()
            # As on a connection that a TCPPort accepts.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        self.inPlace = inPlace
        self.protocol = Echo(inPlace)
        address: Any = ("127.0.0.1", 1)
        self.transport = kind(self.socket, self.protocol, address, None, 0, facade)
        self.protocol.makeConnection(self.transport)
        self.answer = bytearray()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exception: object) -> None:
        self.client.close()
        waitUntil(self.outer.turn, lambda: self.protocol.ends)
        if not self.transport.disconnected:
            self.transport.loseConnection()
        waitUntil(self.outer.turn, lambda: self.transport.disconnected)

    def send(self, data: memoryview, most: int = 1 << 30, flags: int = 0) -> memoryview:
        """Send what the kernel takes; returns the rest."""
        try:
            return data[self.client.send(data[:most], flags) :] if data else data
        except BlockingIOError:
            return data

    def receive(self, limit: int = 1 << 20) -> bool:
        """Receive what is there; returns whether it was the end, FIN or RST."""
        try:
            piece = self.client.recv(limit)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        self.answer += piece
        return not piece

    def exchange(
        self, data: bytes, *, before: int = 0, urgent: random.Random | None = None
    ) -> None:
        """
        Send all, and have it back.

        :param before: bytes that are on their way already.
        :param urgent: says which bytes are urgent ones.
        """
        rest = memoryview(data)
        wanted = len(self.answer) + before + len(data)

        def step(wait: float = 0.0) -> None:
            nonlocal rest
            while urgent and rest and urgent.random() < 0.7:
                # The last byte of each piece.
                rest = self.send(rest, urgent.randrange(1, 200_000), socket.MSG_OOB)
            rest = self.send(rest)
            self.outer.turn(wait)
            self.receive()

        waitUntil(step, lambda: len(self.answer) >= wanted)
        assert bytes(self.answer[-len(data) :]) == data

    def stall(self, until: Callable[[], object] = lambda: False) -> int:
        """Send until nothing is taken any more, and read nothing; returns how much was taken."""
        data = memoryview(noise(24_000_000))
        rest = data
        quiet = 0
        while quiet < 20 and not until():
            before = len(rest)
            rest = self.send(rest)
            self.outer.turn(0.01)
            quiet = quiet + 1 if len(rest) == before else 0
        return len(data) - len(rest)


class Bulk(TypingProtocol):
    """Makes a link over which bulk goes one way."""

    def __call__(self, family: int = socket.AF_INET) -> Link: ...


@pytest.fixture(params=["pipe", "in place"])
def bulk(request: pytest.FixtureRequest) -> Bulk:
    """Each test in turn with either."""
    return functools.partial(Link, inPlace=request.param == "in place")


def test_bulkGoesUnseen(bulk: Bulk) -> None:
    """All comes back in order and none of it was shown; no descriptor is left."""
    before = descriptors()
    with bulk() as link:
        link.exchange(noise(BULK))
        assert (link.protocol.seen, link.protocol.unseen) == (0, BULK)
    assert descriptors() == before


def test_thereAndBack(bulk: Bulk) -> None:
    """Small, bulk, small, bulk: small reads after bulk, and all in order."""
    source = random.Random(3)
    with bulk() as link:
        for _ in range(20):
            link.exchange(source.randbytes(1_000_000))
            for _ in range(12):
                link.exchange(source.randbytes(source.randrange(1, 200)))
            assert link.transport._readSize < LARGEST_READ
        assert link.protocol.seen == 0


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_randomSessions(bulk: Bulk, family: int, seed: int) -> None:
    """Random sizes, buffers, pauses of both sides, and writes of ours between; then FIN."""
    source = random.Random(seed)
    with bulk(family) as link:
        for skt in (link.client, link.socket):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                if source.random() < 0.5:
                    skt.setsockopt(
                        socket.SOL_SOCKET, option, source.choice((65536, 1 << 18, 1 << 20))
                    )
        data = noise(source.randrange(1_000_000, 4_000_000), seed)
        rest = memoryview(data)
        done = False

        def step(wait: float) -> None:
            nonlocal rest, done
            for _ in range(source.randrange(4)):
                rest = link.send(rest, source.choice((1, 5000, 1 << 20)))
            if not rest and not done:
                done = True
                link.client.shutdown(socket.SHUT_WR)
            for _ in range(source.randrange(4)):
                link.outer.turn(0.001)
            if source.random() < 0.1:
                link.transport.pauseProducing()
                link.outer.turn(0)
                if not link.transport.producerPaused and "EOF" not in link.protocol.ends:
                    link.transport.resumeProducing()
            for _ in range(source.randrange(4)):
                link.receive(source.choice((100, 65536, 1 << 20)))

        waitUntil(step, lambda: link.protocol.ends == ["EOF", "FIN"])
        waitUntil(link.outer.turn, link.receive)
        assert bytes(link.answer) == data
        assert link.protocol.seen + link.protocol.unseen == len(data)


def test_whoNeverReads(bulk: Bulk) -> None:
    """C5: nothing of what it sends is held in user space; `unsent` and `unread` know of all."""
    with bulk() as link:
        sent = link.stall()
        transport = link.transport
        assert (transport.dataBuffer, transport._tempDataLen) == (b"", 0)
        assert link.protocol.unseen > 0
        assert link.protocol.pauses > 0
        echoed = link.protocol.seen + link.protocol.unseen
        assert transport.unread() > 0
        assert echoed < sent
        arrived = fcntl.ioctl(link.client.fileno(), termios.FIONREAD, b"\0\0\0\0")
        # What has arrived and is not acknowledged yet is in both.
        assert int.from_bytes(arrived, sys.byteorder) + transport.unsent() >= echoed
        # What is written now comes after it, and FIN after that.
        assert transport._inPipe() <= (0 if link.inPlace else LARGEST_SPLICE)
        transport.write(b"written")
        transport.unregisterProducer()
        transport.loseWriteConnection()
        waitUntil(link.outer.turn, link.receive)
        assert bytes(link.answer) == noise(24_000_000)[:echoed] + b"written"
        waitUntil(link.outer.turn, lambda: not transport.unsent())
        transport.loseConnection()
        waitUntil(link.outer.turn, lambda: transport.disconnected)


def test_whoReadsAgain(bulk: Bulk) -> None:
    """C5: when it reads again, all that the kernel took of it comes back."""
    with bulk() as link:
        sent = link.stall()
        link.outer.rest()
        waitUntil(link.outer.turn, lambda: link.receive() or len(link.answer) == sent)
        assert bytes(link.answer) == noise(24_000_000)[:sent]


@pytest.mark.parametrize("reads", [False, True])
def test_reset(bulk: Bulk, reads: bool) -> None:
    """RST ends it, whether it is stalled or in full flight."""
    before = descriptors()
    link = bulk()
    if reads:
        link.exchange(noise(1_000_000))
        link.send(memoryview(noise(1_000_000)))
    else:
        link.stall()
    reset(link.client)
    waitUntil(link.outer.turn, lambda: link.transport.disconnected)
    assert link.protocol.ends == ["stop", ConnectionLost]
    assert descriptors() == before


def test_afterWhatWaits(bulk: Bulk) -> None:
    """What was written before, and waits in user space, goes before what is echoed."""
    with bulk() as link:
        link.exchange(noise(1_000_000))
        written = 0
        while not link.transport._tempDataLen:
            link.transport.write(b"x" * 1000)
            written += 1000
        assert link.protocol.pauses == 0
        link.exchange(noise(1_000_000), before=written)
        assert link.answer[1_000_000:-1_000_000] == b"x" * written


def test_ourEndWhileStalled(bulk: Bulk) -> None:
    """
    Our FIN while nothing more can be sent: it stays open, and nothing is lost.

    It follows what waits in a pipe.
    """
    with bulk() as link:
        link.stall()
        echoed = link.protocol.unseen
        link.transport.echoUnseen(False)
        link.transport.unregisterProducer()
        link.transport.loseWriteConnection()
        link.protocol.ended = True
        link.transport.resumeProducing()
        waitUntil(link.outer.turn, lambda: link.protocol.seen > 1_000_000)
        link.outer.rest()
        assert link.protocol.ends == (["FIN"] if link.inPlace else [])
        waitUntil(link.outer.turn, link.receive)
        assert link.protocol.ends == ["FIN"]
        assert bytes(link.answer) == noise(24_000_000)[:echoed]


def test_afterASequence(bulk: Bulk) -> None:
    """The same for what was written with ``writeSequence``, which never goes at once."""
    with bulk() as link:
        link.transport.writeSequence([b"before, "])
        link.client.send(b"after")
        link.transport.doRead()
        waitUntil(link.outer.turn, lambda: link.receive() or len(link.answer) == 13)
        assert link.answer == b"before, after"


def test_readsOfShortMessages(bulk: Bulk) -> None:
    """They ask for less and less; the first longer one is read in two parts, and no other is."""
    with bulk() as link:
        transport = link.transport
        sizes = []
        for count in (*[64] * 20, 1000, 1000, 64, 1000):
            link.client.send(bytes(count))
            sizes.append(transport._readSize)
            transport.doRead()
        assert sizes[:2] == [FIRST_READ, FIRST_READ * 7 // 8]
        assert sizes[:20] == sorted(sizes[:20], reverse=True)
        assert sizes[19:] == [LEAST_READ, LEAST_READ, FIRST_READ, FIRST_READ, FIRST_READ * 7 // 8]
        link.receive()
        assert link.answer == bytes(21 * 64 + 3000)


def test_readsMuch(bulk: Bulk) -> None:
    """The transport says whether others shall go first: while reads bring more than 64 KiB."""
    with bulk() as link:
        transport = link.transport
        link.exchange(noise(BULK))
        for asked, size, much in (
            (FIRST_READ, 100, False),
            (FIRST_READ, FIRST_READ, False),
            (LARGEST_READ, 80_000, True),
            (LARGEST_READ, 40_000, True),
            (LARGEST_READ, 10_000, False),
            (LARGEST_READ, 40_000, False),
        ):
            assert link.client.send(bytes(size)) == size
            waitUntil(lambda _: None, lambda: transport.unread() == size)  # noqa: B023  # called before the next one
            transport._readSize = asked
            transport.doRead()
            assert transport.readsMuch is much, size
            link.receive()


def test_readsMuchThoughLittleIsTaken() -> None:
    """A turn that brought much was much, also if most of that waits in the pipe."""
    with Link(socket.AF_UNIX) as link:
        transport = link.transport
        link.exchange(noise(BULK))
        link.client.send(bytes(100))
        transport.doRead()
        assert not transport.readsMuch
        link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        assert link.client.send(bytes(100_000)) == 100_000
        transport._readSize = LARGEST_READ
        transport.doRead()
        assert transport._inPipe()
        assert transport.readsMuch


def test_readsMuchOfALittle(bulk: Bulk) -> None:
    """Where reads are limited to a little, they are much once they come back full."""
    with bulk() as link:
        link.transport.limitReads(FIRST_READ)
        for size, much in ((FIRST_READ, True), (FIRST_READ - 1, False)):
            link.client.send(bytes(size))
            link.transport.doRead()
            assert link.transport.readsMuch is much
            link.receive()


def test_afterOurEnd(bulk: Bulk) -> None:
    """Input after our FIN is shown, as there is nowhere to echo it."""
    with bulk() as link:
        link.exchange(noise(1_000_000))
        link.transport.loseWriteConnection()
        waitUntil(link.outer.turn, lambda: link.protocol.ends)
        link.protocol.ends.clear()
        # Nor can it be allowed again.
        link.transport.echoUnseen(True)
        seen, unseen = link.protocol.seen, link.protocol.unseen
        late = memoryview(noise(1_000_000))[:300_000]
        assert not link.send(late)
        waitUntil(link.outer.turn, lambda: link.protocol.seen == seen + 300_000)
        assert link.protocol.unseen == unseen


def test_urgentByte(bulk: Bulk) -> None:
    """Urgent bytes within bulk, where reads stop (tcp(7)), come back in their places."""
    source = random.Random(5)
    with bulk() as link:
        link.exchange(noise(1_000_000))
        for _ in range(30):
            link.exchange(source.randbytes(source.randrange(1, 1_000_000)), urgent=source)
        assert link.protocol.unseen > 1_000_000


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_urgentByteBeforeTheEnd(bulk: Bulk, family: int) -> None:
    """FIN is in already as an urgent byte is met: splice(2) tells of an end that is not there."""
    with bulk(family) as link:
        link.exchange(noise(1_000_000))
        assert link.protocol.unseen
        data = noise(30_000)
        assert link.client.send(data[:20_000], socket.MSG_OOB) == 20_000
        assert link.client.send(data[20_000:]) == 10_000
        link.client.shutdown(socket.SHUT_WR)
        waitUntil(link.outer.turn, link.receive)
        assert bytes(link.answer[1_000_000:]) == data
        assert link.protocol.ends == ["EOF", "FIN"]


def test_urgentByteOverUNIX(bulk: Bulk) -> None:
    """
    Over a UNIX socket (unix(7), since Linux 5.15) it is a byte as any other.

    Left apart, it would be readable and not be seen, and everybody would wait for nothing.
    """
    with bulk(socket.AF_UNIX) as link:
        for number in range(20):
            link.exchange(noise(300_000))
            assert link.protocol.unseen
            got = len(link.answer)
            link.client.send(bytes([number]), socket.MSG_OOB)
            link.outer.rest()
            link.receive()
            assert link.answer[got:] == bytes([number])


def test_closedAfterBulk(bulk: Bulk) -> None:
    """
    A UNIX client that has all of its bulk and closes has ended, and reset nothing.

    Whoever sends to it from then on, be it no byte, is told of a broken connection.
    """
    with bulk(socket.AF_UNIX) as link:
        link.exchange(noise(1_000_000))
        assert link.transport._readSize > link.transport._largestCopy
        link.client.close()
        waitUntil(link.outer.turn, lambda: link.protocol.ends)
        assert link.protocol.ends == ["EOF", "FIN"]


def test_forbidden(bulk: Bulk) -> None:
    """Once it is not allowed any more, everything is shown."""
    with bulk() as link:
        link.exchange(noise(1_000_000))
        unseen = link.protocol.unseen
        assert unseen > 0
        link.transport.echoUnseen(False)
        link.exchange(noise(1_000_000))
        assert link.protocol.unseen == unseen


def test_nobodyToPause(bulk: Bulk) -> None:
    """Without a producer nobody stops reading: what cannot be sent is buffered, not asked again."""
    with bulk() as link:
        link.transport.unregisterProducer()
        sent = link.stall()
        assert sent == 24_000_000
        link.outer.rest()
        assert link.transport.unread() == 0
        waitUntil(link.outer.turn, lambda: link.receive() or len(link.answer) == sent)
        assert bytes(link.answer) == noise(sent)


def test_answersBetween(bulk: Bulk) -> None:
    """What is written of one's own keeps its place among what is echoed in place."""
    with bulk() as link:
        link.exchange(noise(1_000_000))
        assert link.protocol.unseen > 0
        sent = link.stall()
        assert sent
        link.transport.write(b"x" * 3_000_000)
        before = link.protocol.seen + link.protocol.unseen
        waitUntil(link.outer.turn, lambda: link.receive() or len(link.answer) >= before + 3_000_000)
        assert link.answer[before : before + 3_000_000] == b"x" * 3_000_000
        waitUntil(link.outer.turn, lambda: link.receive() or len(link.answer) == 4_000_000 + sent)
        assert (
            link.answer[1_000_000:before] + link.answer[before + 3_000_000 :]
            == (noise(24_000_000)[:sent])
        )


# -- Pipes ---------------------------------------------------------------------------------------


def pipesOf(link: Link) -> Pipes:
    pipes: Pipes = link.transport.pipes
    return pipes


def test_onePipeForAll() -> None:
    """Who is read by its peer leaves nothing in the pipe; it is closed with its last user."""
    before = descriptors()
    with Link() as one, Link() as other:
        opened = descriptors()
        for _ in range(3):
            one.exchange(noise(1_000_000))
            other.exchange(noise(1_000_000))
        # A moment's rest in one may have made one more.
        assert descriptors() - opened == 2 * len(pipesOf(one).idle) <= 4
    assert descriptors() == before
    assert pipesOf(one).idle == []


def test_restInAPipe() -> None:
    """What waits in a pipe is unsent, FIN and writes wait for it, and RST frees it."""
    before = descriptors()
    with Link() as link:
        link.stall()
        held = link.transport._inPipe()
        assert 0 < held <= LARGEST_SPLICE
        assert link.transport.unsent() > held
        assert pipesOf(link).idle == []
        # Reading on, against all warnings, overtakes nothing.
        seen = link.protocol.seen
        link.transport.doRead()
        assert link.protocol.seen > seen
        reset(link.client)
        waitUntil(link.outer.turn, lambda: link.transport.disconnected)
    assert descriptors() == before


def test_morePipesThanThereAre() -> None:
    """As many as there are pipes keep one; who comes then is echoed in place.  All comes back."""
    with ExitStack() as stack:
        links = [stack.enter_context(Link()) for _ in range(MOST + 2)]
        sent = [link.stall() for link in links]
        held = [link.transport._inPipe() for link in links]
        assert all(held[:MOST])
        assert held[MOST:] == [0, 0]
        with Link() as other:
            other.exchange(noise(BULK))
            assert other.protocol.seen == 0
        for link, count in zip(links, sent, strict=True):
            waitUntil(link.outer.turn, lambda: link.receive() or len(link.answer) == count)  # noqa: B023  # called before the next one
            assert bytes(link.answer) == noise(24_000_000)[:count]
        # And all of them are to be had again.
        assert len(pipesOf(links[0]).idle) == MOST


@contextmanager
def noDescriptors() -> Iterator[None]:
    """None is left."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, limits[1])
    )
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        with suppress(OSError):
            while True:
                stack.callback(os.close, os.dup(0))
        yield


def test_noDescriptorForAPipe() -> None:
    """Without a descriptor left bulk is echoed in place; when there is one it takes a pipe."""
    with Link() as link:
        with noDescriptors():
            link.exchange(noise(BULK))
            assert (link.protocol.seen, pipesOf(link).idle) == (0, [])
        link.exchange(noise(BULK))
        assert len(pipesOf(link).idle) == 1


@contextmanager
def userOfItsOwn(*, privileged: bool) -> Iterator[None]:
    """
    As a user that no other test is: pages in pipes are counted for each (real) user.

    :param privileged: whether the kernel's limits do not apply.
    """
    before = os.getresuid()
    if before[1]:
        yield
        return
    user = 60_000 + os.getpid() % 5000
    os.setresuid(user, 0 if privileged else user, 0)
    try:
        yield
    finally:
        os.setresuid(*before)


@pytest.mark.parametrize(("least", "opens"), [(65536, True), (131_072, False)])
def test_smallPipe(least: int, opens: bool) -> None:
    """A user may get a smaller pipe than was asked for; one that is too small is of no use."""
    before = descriptors()
    with userOfItsOwn(privileged=False):
        # More than pipe-max-size (pipe(7)): it stays as it was made.
        pipes = Pipes(size=1 << 30, least=least)
        pipes.join()
        assert pipes.open() is opens
        assert len(pipes.idle) == opens
        pipes.leave(None)
    assert descriptors() == before


@contextmanager
def allPipePages() -> Iterator[None]:
    """This user's pipes have as many pages as they may (``pipe-user-pages-soft``, pipe(7))."""
    pages = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text())
    if not pages:
        pytest.skip("this kernel has no limit of the pages in a user's pipes")
    with ExitStack() as stack:
        while pages > 0:
            for number in os.pipe():
                stack.callback(os.close, number)
            pages -= fcntl.fcntl(number, fcntl.F_SETPIPE_SZ, 1 << 20) // resource.getpagesize()
        yield


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have that many pages, to begin with")
def test_noPagesForAPipe() -> None:
    """A user whose pipes have all pages they may have gets tiny ones: bulk is echoed in place."""
    with Link() as link:
        with (
            userOfItsOwn(privileged=True),
            allPipePages(),
            userOfItsOwn(privileged=False),
        ):
            link.exchange(noise(BULK))
            assert (link.protocol.seen, pipesOf(link).idle) == (0, [])
        link.exchange(noise(BULK))
        assert len(pipesOf(link).idle) == 1


def test_readsMuchInPlaceToo() -> None:
    """Where no pipe is left bulk waits in line as well, however small the last turn's was."""
    with Link() as link:
        transport, pipes, taken = link.transport, pipesOf(link), []
        link.exchange(noise(BULK))
        for size, much in ((100, False), (20_000, False), (200_000, True)):
            assert link.client.send(noise(size)) == size
            waitUntil(lambda _: None, lambda: transport.unread() == size)  # noqa: B023  # called before the next one
            transport._readSize = LARGEST_READ
            transport.doRead()
            assert transport.readsMuch is much
            while pipes.idle or pipes.open():
                taken.append(pipes.idle.pop())
        pipes.idle.extend(taken)


class ScarcePipes(Pipes):
    """
    Such as are not to be had for a while.

    :ivar asked: how often one was asked for.
    """

    asked = 0
    lacking = True

    def _make(self) -> Pipe | None:
        self.asked += 1
        return None if self.lacking else super()._make()


def test_noneToBeHad() -> None:
    """When there is none to be had that is not asked in each turn."""
    pipes = ScarcePipes()
    for _ in range(2 * (PATIENCE + 1)):
        assert not pipes.open()
    assert pipes.asked == 2
    pipes.lacking = False
    pipes.join()
    waitUntil(lambda _: None, pipes.open)
    assert len(pipes.idle) == 1
    pipes.leave(None)


def test_smallPipes() -> None:
    """Pipes of 64 KiB, and links that stall: all comes back."""
    with Link() as link:
        link.transport.pipes = pipes = Pipes(size=65536)
        link.exchange(noise(BULK))
        sent = link.stall()
        waitUntil(link.outer.turn, lambda: link.receive() or len(link.answer) == BULK + sent)
        assert bytes(link.answer) == noise(BULK) + noise(24_000_000)[:sent]
        assert len(pipes.idle) == 1


def memoryBulk() -> tuple[MemoryLink, Any]:
    """A link in memory, and its transport, with pipes of its own."""
    # Any: raw asks nothing of the address.
    address: Any = None
    connection = raw.makeFactory(RawOptions()).buildProtocol(address)
    assert connection is not None
    link = memoryLink(connection)
    transport: Any = link.connection.transport
    transport.pipes = MemoryPipes()
    return link, transport


@pytest.mark.parametrize("error", [EPERM, EINVAL, ENOSYS, EACCES])
def test_spliceForbidden(error: int) -> None:
    """Where the system does not let us splice it is not asked again; bulk is echoed in place."""
    link, transport = memoryBulk()
    transport.socket.faults["splice"] = [error, EIO]
    assert link.exchange(noise(1_000_000)) == noise(1_000_000)
    assert transport.pipes.idle == []


@pytest.mark.parametrize("error", [EINTR, ENOBUFS, ENOMEM])
def test_errorsOfSpliceThatPass(error: int) -> None:
    """Nothing was moved, and the next turn may do better."""
    link, transport = memoryBulk()
    transport.socket.faults["splice"] = faults = [error] * 3
    assert link.exchange(noise(1_000_000)) == noise(1_000_000)
    assert faults == []


@pytest.mark.parametrize("call", ["splice", "send"])
def test_errorsOfSpliceThatEnd(call: str) -> None:
    """It is over, and the pipe with what was in it is closed."""
    link, transport = memoryBulk()
    pipes = transport.pipes
    rest = memoryview(noise(1_000_000))
    while not pipes.idle:
        rest = rest[link.send(rest) :]
        link.pump()
        link.receive()
    transport.socket.faults[call] = [ECONNRESET]
    rest = rest[link.send(rest) :]
    link.pump()
    assert link.gone
    assert link.connection.reason is Reason.RESET
    assert (pipes.idle, pipes._count) == ([], 0)
