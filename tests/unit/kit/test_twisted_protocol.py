"""`echod.kit.twisted_protocol`: ordinary Twisted protocols on a listener."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.basic import LineReceiver
from twisted.protocols.wire import QOTD, Chargen, Echo
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.states import Reason, State
from echod.kit.makers import ConnectionFactory
from echod.kit.twisted_protocol import TwistedProtocolConnection, asConnection, halfCloses
from echod.protocols.raw import RawOptions, raw
from echod.testing import Link, memoryLink, tcpLink
from tests.conftest import LoggedErrors

KIB = 1024


class Recording(Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.transport: Any = None

    def connectionMade(self) -> None:
        self.calls.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.calls.append(data)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008  # Twisted's own
        self.calls.append(type(reason.value).__name__)


@implementer(IHalfCloseableProtocol)
class HalfClosing(Recording):
    """The same, and it can tell EOF from close."""

    def readConnectionLost(self) -> None:
        self.calls.append("read lost")

    def writeConnectionLost(self) -> None:
        self.calls.append("write lost")


def test_asConnection() -> None:
    """echod's own go as they are, others are hosted."""
    own = Connection()
    assert asConnection(own) is own
    assert isinstance(asConnection(Echo()), TwistedProtocolConnection)


def test_halfCloses() -> None:
    """Known from the factory, before there is a connection."""
    assert halfCloses(raw.makeFactory(RawOptions()))
    assert halfCloses(ConnectionFactory(Connection))
    assert halfCloses(Factory.forProtocol(HalfClosing))
    assert not halfCloses(Factory.forProtocol(Echo))
    assert not halfCloses(Factory())


@pytest.mark.parametrize("size", [0, 1, 65536, 1_000_000])
def test_twistedsEcho(size: int) -> None:
    """On a listener, Twisted's own ``Echo`` loses nothing to a half-close."""
    data = random.Random(size).randbytes(size)
    link = memoryLink(Echo(), sendBuffer=8 * KIB, receiveBuffer=8 * KIB)
    assert link.exchange(data) == data
    assert link.gone
    assert link.connection.reason is Reason.EOF
    assert link.connection.bytesIn == link.connection.bytesOut == size


def test_backpressure() -> None:
    """C5: without a producer of its own, it is not read from while its peer does not read."""
    link = memoryLink(Echo(), sendBuffer=4 * KIB, receiveBuffer=4 * KIB)
    sent = 0
    while True:
        taken = link.send(bytes(4 * KIB))
        sent += taken
        link.pump()
        if not taken:
            break
    assert sent <= 65536 * 2 + 16 * KIB
    assert link.connection.pauses == 1
    link.finish()
    assert link.readAll() == bytes(sent)


def test_calls() -> None:
    """What it is told, and when: the peer's FIN is its end."""
    protocol = Recording()
    link = memoryLink(protocol)
    assert protocol.transport.getPeer().port == 50000
    assert protocol.transport.getHost().port == 7
    link.send(b"one")
    link.pump()
    protocol.transport.writeSequence([b"a", b"b"])
    link.finish()
    assert link.readAll() == b"ab"
    assert protocol.calls == ["made", b"one", "ConnectionDone"]


def test_halfClose() -> None:
    """One that can tell EOF from close goes on writing, until it says that it is done."""
    protocol = HalfClosing()
    link = memoryLink(protocol)
    link.finish()
    link.pump()
    assert protocol.calls == ["made", "read lost"]
    assert not link.gone
    protocol.transport.write(b"late")
    protocol.transport.loseConnection()
    assert link.readAll() == b"late"
    assert protocol.calls == ["made", "read lost", "write lost", "ConnectionDone"]


def test_ownHalfClose() -> None:
    """It can end its own direction and go on reading."""
    protocol = HalfClosing()
    link = memoryLink(protocol)
    protocol.transport.write(b"mine")
    protocol.transport.loseWriteConnection()
    assert link.readAll() == b"mine"
    link.send(b"yours")
    link.finish()
    link.pump()
    assert protocol.calls == ["made", "write lost", b"yours", "read lost", "ConnectionDone"]
    assert link.gone


def test_loseConnection() -> None:
    """C2: its end is echod's: flush, FIN, and what still comes destroys nothing."""
    protocol = Recording()
    link = memoryLink(protocol)
    protocol.transport.write(b"bye")
    protocol.transport.loseConnection()
    assert protocol.transport.disconnecting
    protocol.transport.write(b"late")
    link.send(b"ignored")
    assert link.readAll() == b"bye"
    assert link.connection.state is State.LINGERING
    link.finish()
    link.pump()
    assert protocol.calls == ["made", "ConnectionDone"]
    assert link.connection.reason is Reason.QUIT


def test_abortConnection() -> None:
    protocol = Recording()
    link = memoryLink(protocol)
    protocol.transport.abortConnection()
    with pytest.raises(ConnectionResetError):
        link.readAll()
    assert protocol.calls == ["made", "ConnectionAborted"]


def test_reset() -> None:
    protocol = Recording()
    link = memoryLink(protocol)
    link.reset()
    link.pump()
    assert protocol.calls == ["made", "ConnectionLost"]
    protocol.transport.write(b"x")
    protocol.transport.loseConnection()


def test_ownPauses() -> None:
    """Its own pausing of its transport holds, whatever else pauses and resumes."""
    protocol = Recording()
    link = memoryLink(protocol, sendBuffer=4 * KIB, receiveBuffer=4 * KIB)
    protocol.transport.pauseProducing()
    link.send(b"x")
    link.pump()
    assert protocol.calls == ["made"]
    protocol.transport.write(bytes(100 * KIB))
    assert len(link.receive(4 * KIB) or b"") == 4 * KIB
    got = 4 * KIB
    while got < 100 * KIB:
        link.pump()
        got += len(link.receive() or b"")
    link.pump()
    assert protocol.calls == ["made"]
    protocol.transport.resumeProducing()
    link.pump()
    assert protocol.calls == ["made", b"x"]
    protocol.transport.stopProducing()
    link.finish()
    link.pump()
    assert link.gone


@implementer(IPushProducer)
class Pushing:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


def drainTo(link: Link, size: int) -> None:
    got = 0
    while got < size:
        link.pump()
        got += len(link.receive() or b"")
    link.pump()


def test_pushProducer() -> None:
    """A producer of its own is paused instead of reading, and waited for at the peer's FIN."""
    protocol, producer = Recording(), Pushing()
    link = memoryLink(protocol, sendBuffer=4 * KIB, receiveBuffer=4 * KIB)
    protocol.transport.registerProducer(producer, True)
    with pytest.raises(RuntimeError, match="cannot be registered beside"):
        protocol.transport.registerProducer(Pushing(), True)
    protocol.transport.write(bytes(100 * KIB))
    assert producer.calls == ["pause"]
    link.send(b"read all the same")
    link.pump()
    assert protocol.calls == ["made", b"read all the same"]
    drainTo(link, 100 * KIB)
    assert producer.calls == ["pause", "resume"]
    link.finish()
    link.pump()
    assert not link.gone
    protocol.transport.write(b"the rest")
    protocol.transport.unregisterProducer()
    assert link.readAll() == b"the rest"
    assert producer.calls == ["pause", "resume"]
    assert link.gone


def test_producerComesWhenItIsFull() -> None:
    """Registered while the peer does not read, it is paused at once; dropped, reading is."""
    protocol, producer = Recording(), Pushing()
    link = memoryLink(protocol, sendBuffer=4 * KIB, receiveBuffer=4 * KIB)
    protocol.transport.write(bytes(100 * KIB))
    protocol.transport.registerProducer(producer, True)
    assert producer.calls == ["pause"]
    link.send(b"a")
    link.pump()
    assert protocol.calls == ["made", b"a"]
    protocol.transport.unregisterProducer()
    link.send(b"b")
    link.pump()
    assert protocol.calls == ["made", b"a"]
    drainTo(link, 100 * KIB)
    assert protocol.calls == ["made", b"a", b"b"]
    protocol.transport.registerProducer(producer, True)
    link.reset()
    link.pump()
    assert producer.calls == ["pause", "stop"]
    late = Pushing()
    protocol.transport.registerProducer(late, True)
    assert late.calls == ["stop"]


@implementer(IPullProducer)
class Pulling:
    """So many pieces, each when asked for."""

    def __init__(self, transport: Any, pieces: int) -> None:
        self._transport = transport
        self.left = pieces
        self.stopped = False

    def resumeProducing(self) -> None:
        self.left -= 1
        self._transport.write(bytes(16 * KIB))
        if not self.left:
            self._transport.unregisterProducer()

    def stopProducing(self) -> None:
        self.stopped = True


def test_pullProducer() -> None:
    """A pull producer is asked while the peer reads, once a turn, and its rest is waited for."""
    protocol = Recording()
    link = memoryLink(protocol, sendBuffer=4 * KIB, receiveBuffer=4 * KIB)
    producer = Pulling(protocol.transport, 20)
    protocol.transport.registerProducer(producer, False)
    assert producer.left == 19
    link.pump()
    assert 13 <= producer.left <= 16
    link.finish()
    assert link.readAll() == bytes(20 * 16 * KIB)
    assert not producer.stopped
    link.advance(0.5)
    assert link.gone


def test_finishWaitsForTheProducer() -> None:
    """``loseWriteConnection`` with a producer: FIN comes after its last byte."""
    protocol = Recording()
    link = memoryLink(protocol)
    protocol.transport.registerProducer(Pushing(), True)
    protocol.transport.loseWriteConnection()
    link.pump()
    assert link.receive() is None
    protocol.transport.write(b"last")
    protocol.transport.unregisterProducer()
    assert link.readAll() == b"last"
    link.finish()
    link.pump()
    assert link.gone


def test_twistedsOwn() -> None:
    """More of Twisted's own, unchanged: a pull producer without end, a line receiver, a quote."""
    link = memoryLink(Chargen(), sendBuffer=4 * KIB, receiveBuffer=4 * KIB)
    link.pump()
    assert link.connection.transport.unsent() <= 80 * KIB
    drainTo(link, 300 * KIB)
    link.reset()
    link.pump()
    assert link.gone

    class Shout(LineReceiver):
        def lineReceived(self, line: bytes) -> None:
            self.sendLine(line.upper())

    assert memoryLink(Shout()).exchange(b"a\r\nbc\r\n") == b"A\r\nBC\r\n"
    link = memoryLink(QOTD())
    assert link.readAll() == b"An apple a day keeps the doctor away.\r\n"
    link.finish()
    link.pump()
    assert link.gone


def test_raises(loggedErrors: LoggedErrors) -> None:
    """Whatever it raises costs its own connection."""

    class Faulty(Recording):
        def dataReceived(self, data: bytes) -> None:
            raise KeyError(data)

    protocol = Faulty()
    link = memoryLink(protocol)
    link.send(b"x")
    link.pump()
    with pytest.raises(ConnectionResetError):
        link.readAll()
    assert protocol.calls == ["made", "ConnectionAborted"]
    assert link.connection.reason is Reason.ERROR
    assert len(loggedErrors.flush()) == 1


def test_deadlines() -> None:
    """It is held to the listener's deadlines like any other."""
    protocol = Recording()
    link = memoryLink(protocol, limits=Limits(idleTimeout=5, lingerTimeout=2))
    link.advance(6.5)
    assert link.connection.state is State.LINGERING
    link.advance(3)
    assert link.gone
    assert protocol.calls == ["made", "ConnectionAborted"]
    link.close()


def test_drain() -> None:
    """O1: what the kernel held is still given to it."""
    link = memoryLink(Echo())
    link.send(b"before")
    link.connection.drain()
    assert link.readAll() == b"before"
    link.finish()
    link.pump()
    assert link.gone
    assert link.connection.reason is Reason.DRAIN


# -- What was found by looking for it ----------------------------------------------------------


def test_endsAfterItsProducer() -> None:
    """Our end while a producer still writes: its rest, then FIN, whatever the peer does."""
    protocol = HalfClosing()
    link = memoryLink(protocol, limits=Limits(stallTimeout=0, lingerTimeout=60))
    protocol.transport.registerProducer(Pushing(), True)
    link.connection.drain()
    link.pump()
    link.finish()
    link.pump()
    protocol.transport.write(b"rest")
    protocol.transport.unregisterProducer()
    assert link.readAll() == b"rest"
    link.advance(0.5)
    assert link.gone


def test_settlesAfterOurEnd() -> None:
    """After our FIN and the peer's there is nothing to wait for."""
    protocol = HalfClosing()
    link = memoryLink(
        protocol, limits=Limits(stallTimeout=20), sendBuffer=8 * KIB, receiveBuffer=4 * KIB
    )
    protocol.transport.write(bytes(6000))
    link.connection.drain()
    link.pump()
    link.finish()
    assert link.readAll() == bytes(6000)
    link.advance(0.5)
    assert link.gone
    assert link.connection.cut == 0


def test_producerForLife() -> None:
    """One that has a push producer for all its life is idle like any, and ends at a FIN."""
    limits = Limits(idleTimeout=10, lingerTimeout=2)
    protocol = Recording()
    link = memoryLink(protocol, limits=limits)
    protocol.transport.registerProducer(Pushing(), True)
    assert link.connection.idleSince() is not None
    link.finish()
    link.pump()
    assert not link.gone
    link.advance(3.5)
    assert link.readAll() == b""
    assert link.gone
    assert link.connection.state is State.CLOSED
    assert protocol.calls == ["made", "ConnectionDone"]
    link = memoryLink(Recording(), limits=limits)
    link.connection._protocol.transport.registerProducer(Pushing(), True)
    link.advance(12)
    assert link.connection.reason is Reason.IDLE
    link.finish()
    link.advance(4)
    assert link.gone


def test_web() -> None:
    """twisted.web, whose every channel is its own producer."""

    class Hello(Resource):
        isLeaf = True

        def render_GET(self, request: Request) -> bytes:  # Twisted's name
            return b"hello"

    channel = Site(Hello()).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    link = memoryLink(channel, limits=Limits(lingerTimeout=2))
    link.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    link.pump()
    assert (link.receive() or b"").endswith(b"\r\n\r\nhello")
    link.finish()
    link.advance(3.5)
    assert link.readAll() == b""
    assert link.gone
    assert link.connection.state is State.CLOSED


@pytest.mark.parametrize("kind", [True, False], ids=["push", "pull"])
def test_producerRaises(kind: bool, loggedErrors: LoggedErrors) -> None:
    """A producer that raises costs its connection, once, and is not taken for the peer's reset."""

    class Raising(Pushing):
        def resumeProducing(self) -> None:
            super().resumeProducing()
            if kind or len(self.calls) > 1:
                raise KeyError("mine")

    protocol, producer = Recording(), Raising()
    link = memoryLink(protocol, sendBuffer=4 * KIB, receiveBuffer=4 * KIB)
    protocol.transport.registerProducer(producer, kind)
    protocol.transport.write(bytes(100 * KIB))
    drainTo(link, 60 * KIB)
    link.pump()
    for _ in range(200):
        if link.gone:
            break
        with contextlib.suppress(ConnectionResetError):
            link.receive()
        link.pump()
    assert link.gone
    assert link.connection.reason is Reason.ERROR
    assert not link.connection.broken
    assert len(loggedErrors.flush()) == 1


def test_pullProducerRaisesLater(loggedErrors: LoggedErrors) -> None:
    """Likewise in a turn of its own, while there is room for more."""

    class Raising(Pushing):
        def resumeProducing(self) -> None:
            super().resumeProducing()
            if len(self.calls) > 1:
                raise KeyError("mine")

    protocol, producer = Recording(), Raising()
    link = memoryLink(protocol)
    protocol.transport.registerProducer(producer, False)
    link.pump()
    assert link.gone
    assert link.connection.reason is Reason.ERROR
    assert len(loggedErrors.flush()) == 1


def test_optionsOfTCP() -> None:
    """ITCPTransport: a hosted protocol reads and sets what its own socket has."""
    protocol = Recording()
    link = tcpLink(protocol)
    transport = protocol.transport
    assert transport.getTcpNoDelay()
    assert transport.getTcpKeepAlive()
    transport.setTcpNoDelay(False)
    transport.setTcpKeepAlive(False)
    assert not transport.getTcpNoDelay()
    assert not transport.getTcpKeepAlive()
    transport.stopProducing()
    assert transport.disconnecting
    assert link.readAll() == b""
    link.close()
    link.pump(lambda: link.gone)
    assert link.gone


def test_stopProducingRaises(loggedErrors: LoggedErrors) -> None:
    """Whatever its producer does, the protocol hears of the end."""

    class Raising(Pushing):
        def stopProducing(self) -> None:
            raise KeyError("mine")

    protocol = Recording()
    link = memoryLink(protocol)
    protocol.transport.registerProducer(Raising(), True)
    link.reset()
    link.pump()
    assert protocol.calls == ["made", "ConnectionLost"]
    assert len(loggedErrors.flush()) == 1


def test_abortsAtItsFIN() -> None:
    """An abort in the middle of our end is an abort."""

    class Aborting(HalfClosing):
        def writeConnectionLost(self) -> None:
            self.transport.abortConnection()

    protocol = Aborting()
    link = memoryLink(protocol, sendBuffer=8 * KIB, receiveBuffer=4 * KIB)
    protocol.transport.write(bytes(6000))
    link.finish()
    link.pump()
    protocol.transport.loseWriteConnection()
    link.pump()
    assert link.connection.state is State.ABORTED
    assert link.gone


def test_raisesAtItsFIN(loggedErrors: LoggedErrors) -> None:
    """A fault there is told, and costs the connection."""

    class Faulty(HalfClosing):
        def writeConnectionLost(self) -> None:
            raise KeyError("mine")

    protocol = Faulty()
    link = memoryLink(protocol)
    protocol.transport.loseWriteConnection()
    link.pump()
    assert link.connection.reason is Reason.ERROR
    assert len(loggedErrors.flush()) == 1


def test_halfClosingIsIdleToo() -> None:
    """One that could answer after EOF is idle before it."""
    protocol = HalfClosing()
    link = memoryLink(protocol, limits=Limits(idleTimeout=5))
    link.advance(3)
    protocol.transport.write(b"x")
    link.pump()
    link.receive()
    link.advance(3)
    assert link.connection.state is State.OPEN
    link.advance(4)
    assert link.connection.reason is Reason.IDLE
    link.finish()
    link.pump()
