"""`echod.transports`: what every stream transport and every port does, on and off the poller."""

from __future__ import annotations

import ast
import errno
import os
import random
import re
import resource
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import tcp, udp, unix
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    serverFromString,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IReactorFDSet,
    IReactorSocket,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer
from zope.interface.verify import verifyObject

import echod.transports
from echod.interfaces import IConnectionTransport
from echod.testing import Loop, MemorySocket
from echod.transports import socket_stream as stream
from echod.transports.bulk_echo import LARGEST_READ
from echod.transports.facade import Facade
from echod.transports.loop.nested_epoll import NestedEpoll
from echod.transports.ports import ACCEPTS
from echod.transports.resting import PAUSE
from echod.transports.socket_stream import FIRST_READ
from echod.transports.tcp import Port, Server
from echod.transports.unix import UNIXPort, UNIXServer
from tests.unit.outer import Crowded, Outer, reset, tcpPair, waitUntil


@pytest.fixture(scope="module", autouse=True)
def reservedDescriptor() -> None:
    """Twisted opens /dev/null with its first port, once and for all."""
    loop = Loop()
    port = tcp.Port(0, QuietFactory(Recorder), 1, "127.0.0.1", loop)
    port.startListening()
    stop(port, loop)


@implementer(IHalfCloseableProtocol)
class Recorder(Protocol):
    """
    Remembers what it is told.

    :ivar events: names, and bytes.
    """

    transport: Any

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.echoing = False

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)
        if self.echoing:
            self.transport.write(data)

    def readConnectionLost(self) -> None:
        self.events.append("EOF")

    def writeConnectionLost(self) -> None:
        self.events.append("FIN")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append(reason.type)

    # As its own producer.

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")

    def stopProducing(self) -> None:
        self.events.append("stop")

    @property
    def received(self) -> bytes:
        return b"".join(event for event in self.events if isinstance(event, bytes))


class Rig:
    """
    A transport on an imitated socket.

    :ivar sizes: what each read asked for.
    """

    def __init__(
        self, kind: Any = Server, sendBuffer: int = 10, receiveBuffer: int = 1 << 20
    ) -> None:
        self.loop = Loop()
        ours, client = MemorySocket.pair(sendBuffer, receiveBuffer)
        self.socket: Any = ours
        self.client: Any = client
        self.protocol = Recorder()
        address: Any = ("127.0.0.1", 1)
        self.transport: Any = kind(ours, self.protocol, address, None, 0, self.loop)
        self.protocol.makeConnection(self.transport)
        self.sizes: list[int] = []
        recv = self.socket.recv

        def recorded(size: int) -> bytes:
            self.sizes.append(size)
            return bytes(recv(size))

        vars(ours)["recv"] = recorded

    @property
    def events(self) -> list[Any]:
        return self.protocol.events[1:]

    @property
    def waiting(self) -> int:
        """Bytes that wait in user space."""
        it = self.transport
        return int(len(it.dataBuffer) - it.offset + it._tempDataLen)

    def rest(self) -> None:
        while self.loop.turn():
            pass

    def read(self, limit: int = 1 << 20) -> bytes:
        """All that the client can read, turn after turn."""
        data = b""
        self.rest()
        with suppress(BlockingIOError):
            while piece := self.client.recv(limit):
                data += piece
                self.rest()
        return data


def test_acceptMeans() -> None:
    """``socket._accept``: the number of a descriptor that is not inherited, and the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        private: Any = listening
        with socket.create_connection(listening.getsockname()) as client:
            number, address = private._accept()
            assert not os.get_inheritable(number)
            with socket.socket(listening.family, listening.type, 0, number) as skt:
                assert address == skt.getpeername() == client.getsockname()
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            private._accept()


# -- Twisted's private parts -----------------------------------------------------------------


def sources() -> dict[str, ast.Module]:
    folder = Path(echod.transports.__path__[0])
    return {
        str(path.relative_to(folder)): ast.parse(path.read_text()) for path in folder.rglob("*.py")
    }


def ownNames(trees: dict[str, ast.Module]) -> set[str]:
    """Private names that echod itself defines: functions, class attributes, self._x = …."""
    names = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    for part in ast.walk(target):
                        if isinstance(part, ast.Name):
                            names.add(part.id)
                        elif isinstance(part, ast.Attribute):
                            names.add(part.attr)
    return names


def listed(tree: ast.Module) -> set[str]:
    """The names in double backquotes in a module's docstring, without what they belong to."""
    text = ast.get_docstring(tree) or ""
    return {name.rpartition(".")[2] for name in re.findall(r"``([\w.]+)``", text)}


TWISTEDS_OWN = (tcp, tcp.Server, tcp.Port, udp.Port, unix.Server, unix.Port)


def test_privatePartsAreListed() -> None:
    """Each private attribute of Twisted is known by name, in one place, and used."""
    trees = sources()
    own = ownNames(trees)
    for name, tree in trees.items():
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
        }
        defined = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name.startswith("_")
        }
        twisteds = {
            attribute
            for attribute in used | defined
            if not attribute.startswith("__")
            and (attribute not in own or any(hasattr(it, attribute) for it in TWISTEDS_OWN))
        }
        named = {attribute for attribute in listed(tree) if attribute.startswith("_")}
        assert twisteds - named - named_elsewhere(trees, name) == set(), name
        assert named - used - defined - set(stream._PRIVATE) == set(), name


def named_elsewhere(trees: dict[str, ast.Module], name: str) -> set[str]:
    """What `socket_stream` names, the modules above it may use."""
    return set() if name == "socket_stream.py" else listed(trees["socket_stream.py"])


@pytest.mark.parametrize("name", stream._PRIVATE)
def test_checkedAtImport(name: str) -> None:
    """`_PRIVATE` is listed in the docstring, and Twisted has it."""
    assert name in listed(sources()["socket_stream.py"])
    assert hasattr(tcp.Server, name)


def test_missingPrivatePart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Twisted without one of them is refused at import, by name."""
    assert stream.__file__ is not None
    code = compile(Path(stream.__file__).read_text(), "stream", "exec")
    monkeypatch.delattr("twisted.internet.tcp._AbortingMixin._aborting")
    with pytest.raises(ImportError, match=r"no Server\._aborting"):
        exec(code, {"__name__": "stream"})


@pytest.fixture
def stock() -> Rig:
    """Twisted's own transport: what the private parts mean there."""
    return Rig(tcp.Server)


def test_buffersMean(stock: Rig) -> None:
    """``_tempDataLen``: not joined yet; ``dataBuffer`` from ``offset``: joined, not sent."""
    it = stock.transport
    assert (it.dataBuffer, it.offset, it._tempDataLen) == (b"", 0, 0)
    it.write(b"x" * 1_048_586)
    it.write(b"y" * 5)
    assert (it.dataBuffer, it.offset, it._tempDataLen) == (b"", 0, 1_048_591)
    assert it.doWrite() is None
    sent = it.offset
    assert len(it.dataBuffer) == 1_048_591
    assert 0 < sent < 1_048_591
    assert it._tempDataLen == 0
    # It sends from the offset on, and forgets what is sent once all is.
    stock.socket._outgoing._sendBuffer = 1 << 21
    while stock.waiting:
        assert it.doWrite() is None
    assert (it.dataBuffer, it.offset) == (b"", 0)
    assert stock.read() == b"x" * 1_048_586 + b"y" * 5


def test_sentFromOurOffset(stock: Rig) -> None:
    """What `Stream.write` does: a buffer and an offset set from outside are sent from there."""
    it = stock.transport
    it.dataBuffer, it.offset = b"gone, left", 6
    it.startWriting()
    it.write(b", more")
    stock.rest()
    assert stock.read() == b"left, more"


def test_fINMeans(stock: Rig) -> None:
    """``_writeDisconnecting``: asked for; ``_writeDisconnected``: ``_closeWriteConnection`` ran."""
    it = stock.transport
    calls = []
    close = it._closeWriteConnection

    def record() -> None:
        calls.append(it._writeDisconnected)
        close()

    it._closeWriteConnection = record
    assert (it._writeDisconnecting, it._writeDisconnected) == (False, False)
    it.loseWriteConnection()
    assert (it._writeDisconnecting, it._writeDisconnected) == (True, False)
    stock.rest()
    assert (it._writeDisconnecting, it._writeDisconnected) == (True, True)
    assert calls == [True]
    assert stock.events == ["FIN"]
    assert stock.client.recv(1) == b""


def test_writeAfterFINMeans(stock: Rig) -> None:
    """``_writeDisconnected`` drops writes, and has loseConnection end at once."""
    it = stock.transport
    it._writeDisconnected = True
    it.write(b"x")
    assert stock.waiting == 0
    it.loseConnection()
    assert stock.events == [ConnectionDone]


def test_abortingMeans(stock: Rig) -> None:
    """``_aborting``: an abort was asked for, and comes in a later turn."""
    it = stock.transport
    assert it._aborting is False
    it.abortConnection()
    assert it._aborting is True
    assert stock.events == []
    stock.rest()
    assert stock.events == [ConnectionAborted]


def test_pausingMeans(stock: Rig) -> None:
    """``_maybePauseProducer`` pauses when ``_isSendBufferFull``, which asks `bufferSize`."""
    it = stock.transport
    it.registerProducer(stock.protocol, True)
    it._maybePauseProducer()
    assert (stock.events, it._isSendBufferFull()) == ([], False)
    it.dataBuffer = bytes(it.bufferSize)
    it._maybePauseProducer()
    assert (stock.events, it._isSendBufferFull()) == ([], False)
    it.dataBuffer += b"x"
    assert it._isSendBufferFull()
    it._maybePauseProducer()
    assert (stock.events, it.producerPaused) == (["pause"], True)
    it.startWriting()
    stock.socket._outgoing._sendBuffer = 1 << 20
    stock.rest()
    assert (stock.events, it.producerPaused) == (["pause", "resume"], False)
    it.unregisterProducer()


def test_buildAddrMeans() -> None:
    """``Port._buildAddr``: accept's address as an IAddress, for either family."""
    address = tcp.Port(0, Factory(), reactor=Loop())._buildAddr(("127.0.0.1", 5))
    assert (address.host, address.port) == ("127.0.0.1", 5)
    assert unix.Port("/a", Factory(), reactor=Loop())._buildAddr("/b").name == b"/b"  # type: ignore[arg-type]  # a str will do


def test_realPortNumberMeans() -> None:
    """``Port._realPortNumber``: what the system gave; getHost tells it, repr needs it."""
    loop = Loop()
    port = tcp.Port(0, QuietFactory(Recorder), 5, "127.0.0.1", loop)
    assert port._realPortNumber is None
    assert "not listening" in repr(port)
    port.startListening()
    assert port._realPortNumber == port.getHost().port == port.socket.getsockname()[1]
    assert str(port._realPortNumber) in repr(port)
    stop(port, loop)
    assert port._realPortNumber is None


def test_preexistingSocketMeans() -> None:
    """``Port._preexistingSocket``: set by ``_fromListeningDescriptor``, listened on as it is."""
    loop = Loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = tcp.Port._fromListeningDescriptor(
            loop, listening.fileno(), socket.AF_INET, QuietFactory(Recorder)
        )
        taken = port._preexistingSocket
        assert taken is not None
        assert taken.getsockname() == listening.getsockname()
        port.startListening()
        assert port.socket is taken
        assert port._preexistingSocket is None
        stop(port, loop)


def test_resolveIPv6Means() -> None:
    """``tcp._resolveIPv6``: a literal address as bind wants it, with its scope."""
    assert tcp._resolveIPv6("::1", 7) == ("::1", 7, 0, 0)


def test_logConnectionLostMeans() -> None:
    """``Port._logConnectionLostMsg``: called once, at the end, and for nothing else."""
    calls: list[int] = []

    class Logged(tcp.Port):
        def _logConnectionLostMsg(self) -> None:
            calls.append(1)

    loop = Loop()
    port = Logged(0, QuietFactory(Recorder), 5, "127.0.0.1", loop)
    port.startListening()
    assert calls == []
    stop(port, loop)
    assert calls == [1]


# -- Immediate write -------------------------------------------------------------------------


def test_sentAtOnce() -> None:
    """Nothing waits, so it is with the kernel before write returns."""
    rig = Rig()
    rig.transport.write(b"0123456789")
    assert rig.client.recv(100) == b"0123456789"
    assert rig.waiting == 0
    assert rig.loop.getWriters() == []


def test_kernelTakesPart() -> None:
    """The rest is buffered without loss, and what follows stays behind it."""
    rig = Rig(sendBuffer=10, receiveBuffer=1)
    rig.transport.write(b"0123456789ABCDEF")
    assert rig.waiting == 6
    assert rig.loop.getWriters() == [rig.transport]
    rig.client.recv(1)  # room, but what waits comes first
    rig.transport.write(b"abc")
    rig.transport.writeSequence([b"d", b"ef"])
    assert rig.waiting == 12
    assert rig.read() == b"123456789ABCDEFabcdef"
    assert rig.waiting == 0
    assert rig.loop.getWriters() == []
    rig.transport.write(b"!")
    assert rig.client.recv(9) == b"!"


def test_kernelTakesNothing() -> None:
    """A full queue is no error."""
    rig = Rig(sendBuffer=2, receiveBuffer=1)
    rig.transport.write(b"012")
    rig.transport.write(b"345")
    assert rig.waiting == 4
    assert rig.read() == b"012345"
    rig.socket._outgoing._sendBuffer = 0
    rig.transport.write(b"678")
    assert rig.waiting == 3
    rig.socket._outgoing._sendBuffer = 9
    rig.rest()
    assert rig.read() == b"678"


@pytest.mark.parametrize("seed", range(20))
def test_anyWritesStayInOrder(seed: int) -> None:
    """Sizes, sequences, room and turns at random: each byte once, in order."""
    rng = random.Random(seed)
    rig = Rig(sendBuffer=rng.choice((1, 10, 1000)), receiveBuffer=rng.choice((1, 10, 1000)))
    data = rng.randbytes(20_000)
    at, received = 0, b""
    while at < len(data):
        piece = data[at : at + rng.choice((0, 1, 10, 500, 3000))]
        at += len(piece)
        if rng.random() < 0.3:
            half = len(piece) // 2
            rig.transport.writeSequence([piece[:half], piece[half:]])
        else:
            rig.transport.write(piece)
        for _ in range(rng.randrange(3)):
            rig.loop.turn()
        if rng.random() < 0.5:
            with suppress(BlockingIOError):
                received += rig.client.recv(rng.choice((1, 100, 5000)))
    assert received + rig.read() == data, seed
    assert rig.waiting == 0, seed


@pytest.mark.parametrize("data", ["text", bytearray(b"x"), memoryview(b"x"), None])
def test_onlyBytes(data: Any) -> None:
    """Refused whether the kernel has room or not; a bytearray could still change."""
    rig = Rig(sendBuffer=1, receiveBuffer=1)
    for _ in range(2):
        with pytest.raises(TypeError):
            rig.transport.write(data)
        rig.transport.write(b"full")
    assert rig.read() == b"fullfull"


def test_nothingIsWritten() -> None:
    """An empty write changes nothing."""
    rig = Rig()
    rig.transport.write(b"")
    assert rig.waiting == 0
    assert rig.loop.getWriters() == []
    assert rig.loop.getReaders() == [rig.transport]


def test_sendBufferFullIsExact() -> None:
    """Sent bytes do not count; full is more than `bufferSize`."""
    rig = Rig(sendBuffer=100, receiveBuffer=100)
    it = rig.transport
    it.registerProducer(rig.protocol, True)
    it.write(bytes(100 + it.bufferSize))
    assert (rig.waiting, it._isSendBufferFull(), rig.events) == (it.bufferSize, False, [])
    it.write(b"x")
    assert (rig.waiting, it._isSendBufferFull(), rig.events) == (it.bufferSize + 1, True, ["pause"])
    rig.loop.turn()  # the kernel has 100 more by now
    assert (rig.waiting, it._isSendBufferFull()) == (it.bufferSize - 99, False)
    rig.read()
    assert rig.events == ["pause", "resume"]
    # Part of one write alone may fill it too.
    it.write(bytes(101 + it.bufferSize))
    assert rig.events == ["pause", "resume", "pause"]
    it.unregisterProducer()


def test_writeAfterLoseConnection() -> None:
    """As Twisted: what is written while the rest is flushed goes behind it, then the end."""
    rig = Rig(sendBuffer=2, receiveBuffer=2)
    rig.transport.write(b"012345")
    rig.transport.loseConnection()
    rig.transport.write(b"67")
    assert rig.read() == b"01234567"
    assert rig.events == [ConnectionDone]
    rig.transport.write(b"late")
    assert rig.client.recv(9) == b""


def test_writeBetweenLoseConnectionAndItsTurn() -> None:
    """As Twisted: it is still sent, though nothing waited."""
    rig = Rig()
    rig.transport.loseConnection()
    rig.transport.write(b"x")
    assert rig.events == []
    rig.rest()
    assert rig.client.recv(9) == b"x"
    assert rig.client.recv(9) == b""
    assert rig.events == [ConnectionDone]


def test_writeAfterAbort() -> None:
    """Nothing of it, nor of what waited, reaches the peer."""
    rig = Rig(sendBuffer=2, receiveBuffer=2)
    rig.transport.write(b"012345")
    rig.transport.abortConnection()
    rig.transport.write(b"678")
    rig.rest()
    assert rig.events == [ConnectionAborted]
    assert rig.client.recv(9) == b"01"
    with pytest.raises(ConnectionResetError):
        rig.client.recv(9)


def test_writeBetweenAbortAndItsTurn() -> None:
    """Not even where nothing waited."""
    rig = Rig()
    rig.transport.abortConnection()
    rig.transport.write(b"x")
    with pytest.raises(BlockingIOError):
        rig.client.recv(9)
    rig.rest()
    assert rig.events == [ConnectionAborted]


# -- FIN -------------------------------------------------------------------------------------


def test_fINAtOnce() -> None:
    """Nothing waits, so FIN is sent before loseWriteConnection returns."""
    rig = Rig()
    rig.transport.write(b"x")
    rig.transport.loseWriteConnection()
    assert rig.events == ["FIN"]
    assert rig.client.recv(9) == b"x"
    assert rig.client.recv(9) == b""
    rig.transport.write(b"late")
    rig.transport.writeSequence([b"late"])
    assert rig.waiting == 0
    rig.client.send(b"still read")
    rig.rest()
    assert rig.events == ["FIN", b"still read"]


@pytest.mark.parametrize("how", ["dataBuffer", "_tempDataLen", "producer"])
def test_fINDelayed(how: str) -> None:
    """Something waits, or a producer may bring more: flushed first."""
    rig = Rig(sendBuffer=2, receiveBuffer=2)
    it = rig.transport
    if how == "dataBuffer":
        it.write(b"012345")
    elif how == "_tempDataLen":
        it.writeSequence([b"012345"])
    else:
        it.registerProducer(rig.protocol, True)
    it.loseWriteConnection()
    assert rig.events == []
    it.write(b"67")
    data = rig.read()
    rig.rest()
    assert data + rig.read() == (b"67" if how == "producer" else b"01234567")
    assert rig.events == ["FIN"]
    assert rig.client.recv(9) == b""
    it.unregisterProducer()


def test_fINTwice() -> None:
    """Asked for twice it is sent, and told, once; Twisted would end the connection."""
    ours, client = tcpPair()
    facade: Any = Facade(Outer())
    protocol = Recorder()
    transport: Any = Server(ours, protocol, client.getsockname(), None, 0, facade)
    protocol.makeConnection(transport)
    transport.loseWriteConnection()
    transport.loseWriteConnection()
    facade.rest()
    assert protocol.events == ["made", "FIN"]
    client.send(b"x")
    waitUntil(facade.turn, lambda: protocol.received)
    transport.abortConnection()
    facade.rest()
    client.close()


def test_fINThenClose() -> None:
    """After FIN loseConnection ends at once, in the middle of the call."""
    rig = Rig()
    rig.transport.loseWriteConnection()
    rig.transport.loseConnection()
    assert rig.events == ["FIN", ConnectionDone]
    assert rig.loop.getReaders() == []


@pytest.mark.parametrize("first", ["loseConnection", "abortConnection"])
def test_fINAfterAnEnd(first: str) -> None:
    """An end that was asked for already is the end."""
    rig = Rig()
    getattr(rig.transport, first)()
    rig.transport.loseWriteConnection()
    assert rig.events == []
    rig.rest()
    assert rig.events[-1] is (ConnectionAborted if first == "abortConnection" else ConnectionDone)
    rig.transport.loseWriteConnection()
    rig.transport.loseConnection()
    rig.transport.abortConnection()
    rig.rest()
    assert len(rig.events) == 1


# -- RST -------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [True, False], ids=["poller", "loop"])
def test_resetThatAWriteMeets(nested: bool) -> None:
    """The kernel tells an RST once.  A write that is told leaves no EOF for the next read."""
    reactor: Any = Facade(Outer()) if nested else Loop()
    ours, client = tcpPair()
    protocol = Recorder()
    protocol.echoing = True
    transport = Server(ours, protocol, client.getsockname(), None, 0, reactor)
    protocol.makeConnection(transport)
    client.send(b"hello")
    reset(client)
    poll = select.poll()
    poll.register(ours, 0)
    waitUntil(lambda _: None, lambda: poll.poll(5))
    waitUntil(reactor.turn, lambda: ConnectionLost in protocol.events)
    assert protocol.events == ["made", b"hello", ConnectionLost]


def test_brokenPipeIsNoReset() -> None:
    """EPIPE takes nothing from the next read: a UNIX peer that closed has sent EOF."""
    ours, theirs = socket.socketpair()
    loop = Loop()
    protocol = Recorder()
    transport: Any = UNIXServer(ours, protocol, None, None, 0, loop)
    protocol.makeConnection(transport)
    theirs.send(b"hello")
    theirs.close()
    transport.write(b"x")
    transport.stopWriting()  # reading comes first
    loop.turn()
    loop.turn()
    assert protocol.events == ["made", b"hello", "EOF"]
    transport.startWriting()
    loop.turn()
    assert protocol.events[3:] == [ConnectionLost]


def test_transientErrorIsNoReset() -> None:
    """ENOBUFS: it is tried again, and a later EOF is an EOF."""
    rig = Rig()
    rig.socket.faults["send"] = [errno.ENOBUFS]
    rig.transport.write(b"x")
    assert rig.waiting == 1
    rig.rest()
    assert rig.read() == b"x"
    rig.client.shutdown(socket.SHUT_WR)
    rig.rest()
    assert rig.events == ["EOF"]


# -- Reads -----------------------------------------------------------------------------------


def test_readsGrowAndShrink() -> None:
    """Doubled while they come back full, halved when three quarters stay empty."""
    rig = Rig(sendBuffer=1 << 21, receiveBuffer=1 << 21)
    sizes = [FIRST_READ]
    while sizes[-1] < LARGEST_READ:
        sizes.append(2 * sizes[-1])
    data = random.Random(0).randbytes(sum(sizes) + 2 * LARGEST_READ)
    assert rig.client.send(data) == len(data)
    rig.rest()
    assert rig.protocol.received == data
    assert rig.sizes[: len(sizes)] == sizes
    assert set(rig.sizes[len(sizes) :]) == {LARGEST_READ}
    rig.sizes.clear()
    for size in (LARGEST_READ - 1, LARGEST_READ // 4, LARGEST_READ // 4 - 1, 10, 10):
        rig.client.send(bytes(size))
        rig.rest()
    most = LARGEST_READ
    assert rig.sizes == [most, most, most, most // 2, most // 4]
    for _ in range(20):
        rig.client.send(b"x")
        rig.rest()
    assert rig.sizes[-1] == FIRST_READ


@pytest.mark.parametrize("largest", [1, 1000, FIRST_READ, 5000, 65536])
def test_limitReads(largest: int) -> None:
    """IConnectionTransport.limitReads: never more, from now on, however much there is."""
    rig = Rig(sendBuffer=1 << 20)
    rig.client.send(bytes(300_000))
    for _ in range(6):
        rig.loop.turn()
    assert max(rig.sizes) == FIRST_READ << 5
    rig.sizes.clear()
    rig.transport.limitReads(largest)
    for _ in range(20):
        rig.loop.turn()
    assert max(rig.sizes) == largest
    rig.client.send(b"x")
    rig.rest()
    assert max(rig.sizes) == largest


def test_readsThatGrowAreNotMuchYet() -> None:
    """A full read is much when none can be larger: else a message would go back and forth."""
    rig = Rig(sendBuffer=1 << 20)
    for size in (FIRST_READ, 5000):
        rig.client.send(bytes(size))
        rig.transport.doRead()
        assert not rig.transport.readsMuch
        rig.rest()
    rig.transport.limitReads(FIRST_READ)
    rig.client.send(bytes(FIRST_READ))
    rig.transport.doRead()
    assert rig.transport.readsMuch


def test_readErrors() -> None:
    """A spurious event is nothing; an error is the end."""
    rig = Rig()
    assert rig.transport.doRead() is None
    assert rig.events == []
    rig.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    rig.client.close()
    assert isinstance(rig.transport.doRead(), ConnectionLost)


# -- TLS, descriptors --------------------------------------------------------------------------


def test_startTLSWritesNoPlainText(monkeypatch: pytest.MonkeyPatch) -> None:
    """After startTLS a write goes through TLS, never at once to the kernel."""
    rig = Rig(sendBuffer=1 << 20)
    # Else it would be the real reactor's, and install that.
    monkeypatch.setattr("twisted.protocols.tls._get_default_clock", lambda: rig.loop)
    rig.transport.startTLS(CertificateOptions(), normal=False)
    wire = rig.read()
    assert rig.waiting == 0  # else it would wait in any case
    rig.transport.write(b"SECRET")
    rig.transport.writeSequence([b"SECRET"])
    wire += rig.read()
    assert wire[:1] == b"\x16"  # a handshake record
    assert b"SECRET" not in wire
    rig.transport.abortConnection()
    rig.rest()


def test_passingADescriptor() -> None:
    """IUNIXTransport: a descriptor travels with bytes; none of them may overtake it."""
    ours, theirs = socket.socketpair()
    loop = Loop()
    protocol = Recorder()
    transport: Any = UNIXServer(ours, protocol, None, None, 0, loop)
    protocol.makeConnection(transport)
    number = os.open("/dev/null", os.O_RDONLY)
    transport.sendFileDescriptor(number)
    transport.write(b"with it")
    while loop.turn():
        pass
    os.close(number)
    data, passed, _, _ = socket.recv_fds(theirs, 100, 5)
    assert (data, len(passed)) == (b"w", 1)
    os.close(passed[0])
    assert theirs.recv(100) == b"ith it"
    assert protocol.events == ["made"]
    transport.abortConnection()
    loop.turn()
    theirs.close()


# -- Accepting -------------------------------------------------------------------------------


class QuietFactory(Factory):
    """
    Builds what it is given to call.

    :ivar clients: the addresses that it was asked for.
    """

    noisy = False

    def __init__(self, make: Any) -> None:
        self._make = make
        self.clients: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        self.clients.append(addr)
        return self._make()


def stop(port: Any, reactor: Any) -> None:
    """Close a port, and let its turn pass."""
    done: list[Any] = []
    port.stopListening().addBoth(done.append)
    reactor.advance(0)
    assert done == [None]


class Accepted:
    """A factory's protocols, and a port that accepts for them."""

    def __init__(self, backlog: int = 50, host: str = "127.0.0.1") -> None:
        self.loop = Crowded()
        self.protocols: list[Recorder] = []
        self.kind: Any = Recorder
        self.factory = QuietFactory(self._make)
        self.port: Any = Port(0, self.factory, backlog, host, self.loop)
        self.port.startListening()

    def _make(self) -> Any:
        protocol = self.kind()
        if protocol is not None:
            self.protocols.append(protocol)
        return protocol

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port.getHost().port), 20)

    def close(self) -> None:
        for descriptor in self.loop.getReaders():
            if descriptor is not self.port:
                descriptor.abortConnection()
        stop(self.port, self.loop)
        assert self.loop.getReaders() == self.loop.getWriters() == []
        assert self.loop.calls == []


@pytest.fixture
def accepting() -> Iterator[Accepted]:
    made = Accepted()
    yield made
    made.close()


class Script:
    """A listening socket whose accept does as it is told."""

    def __init__(self, real: socket.socket, *answers: Any) -> None:
        self._real = real
        self.answers = list(answers)

    def _accept(self) -> tuple[int, Any]:
        if not self.answers:
            raise BlockingIOError
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        skt, address = answer
        return skt.detach(), address

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def pairs(stack: ExitStack, count: int) -> list[Any]:
    """What accept returns, and the clients' ends, closed at the end."""
    answers = []
    for _ in range(count):
        ours, theirs = socket.socketpair()
        stack.enter_context(theirs)
        answers.append((ours, ("127.0.0.1", 5)))
    return answers


@pytest.mark.parametrize(
    "code", [errno.ECONNABORTED, errno.EINTR, errno.EPERM, errno.EPROTO], ids=errno.errorcode.get
)
def test_oneClientIsGone(accepting: Accepted, code: int) -> None:
    """accept(2): that one is not to be had; the next is served in the same turn."""
    with ExitStack() as stack:
        accepting.port.socket = Script(
            accepting.port.socket, code, *pairs(stack, 1), code, *pairs(stack, 1)
        )
        accepting.port.doRead()
        assert len(accepting.protocols) == 2
        assert accepting.loop.getReaders()[0] is accepting.port
        assert accepting.loop.calls == []


@pytest.mark.parametrize(
    "code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM], ids=errno.errorcode.get
)
def test_noDescriptorLeft(accepting: Accepted, code: int) -> None:
    """Accepting rests for a moment, then goes on; nobody's connection is closed."""
    with ExitStack() as stack:
        accepting.port.socket = script = Script(
            accepting.port.socket, *pairs(stack, 1), code, *pairs(stack, 1)
        )
        accepting.port.doRead()
        assert len(accepting.protocols) == 1
        assert accepting.port not in accepting.loop.getReaders()
        accepting.loop.advance(PAUSE / 2)
        assert accepting.port not in accepting.loop.getReaders()
        accepting.loop.advance(PAUSE / 2)
        assert accepting.port in accepting.loop.getReaders()
        accepting.port.doRead()
        assert len(accepting.protocols) == 2
        assert script.answers == []


def test_whoCannotBeWatched(accepting: Accepted) -> None:
    """O2, O5: ENOSPC of epoll_ctl(2) closes one; accepting rests: no traceback for each."""
    with ExitStack() as stack:
        first, second = pairs(stack, 2)
        accepting.port.socket = Script(accepting.port.socket, first, second)
        accepting.loop.refuses = Server
        accepting.port.doRead()
        accepting.loop.refuses = ()
        assert accepting.port.socket.answers == [second]
        assert [made.transport for made in accepting.protocols] == [None]
        assert accepting.port not in accepting.loop.getReaders()
        accepting.loop.advance(PAUSE)
        assert accepting.port in accepting.loop.getReaders()
        accepting.port.doRead()
        assert accepting.protocols[1].transport.connected


def test_stoppedWhileItRests(accepting: Accepted) -> None:
    """Closed while it rests, the port does not wake."""
    accepting.port.socket = Script(accepting.port.socket, errno.EMFILE)
    accepting.port.doRead()
    assert len(accepting.loop.calls) == 1
    # The fixture stops it, and looks for what is left.


def test_realDescriptorLimit(accepting: Accepted) -> None:
    """EMFILE from the kernel: no spin, no client lost, served once there is room."""
    with accepting.connect() as client:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        try:
            waitUntil(accepting.loop.turn, lambda: accepting.loop.calls)
            assert accepting.protocols == []
            assert not accepting.loop.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        accepting.loop.advance(PAUSE)
        waitUntil(accepting.loop.turn, lambda: accepting.protocols)
        accepting.protocols[0].echoing = True
        client.send(b"x")
        waitUntil(accepting.loop.turn, lambda: accepting.protocols[0].received)
        assert client.recv(9) == b"x"


def test_boundedAccepting(accepting: Accepted) -> None:
    """ACCEPTS connections a turn at most."""
    with ExitStack() as stack:
        accepting.port.socket = Script(accepting.port.socket, *pairs(stack, ACCEPTS + 3))
        accepting.port.doRead()
        assert len(accepting.protocols) == ACCEPTS
        accepting.port.doRead()
        assert len(accepting.protocols) == ACCEPTS + 3


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_buildProtocolThatRaises(
    accepting: Accepted, error: type[BaseException], loggedErrors: Any
) -> None:
    """Its socket is closed at once; the next client is served."""

    def fail() -> None:
        accepting.kind = Recorder
        raise error("not this one")

    accepting.kind = fail
    with accepting.connect() as refused, accepting.connect():
        waitUntil(accepting.loop.turn, lambda: accepting.protocols)
        assert refused.recv(9) == b""
        assert accepting.port in accepting.loop.getReaders()
    assert "not this one" in loggedErrors.flush()[0]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_connectionMadeThatRaises(
    accepting: Accepted, error: type[BaseException], loggedErrors: Any
) -> None:
    """It is aborted, learns so, and nothing of it stays; the next is served."""

    class Bad(Recorder):
        def connectionMade(self) -> None:
            accepting.kind = Recorder
            raise error("not this one")

    accepting.kind = Bad
    with accepting.connect() as refused, accepting.connect():
        waitUntil(accepting.loop.turn, lambda: len(accepting.protocols) == 2)
        accepting.loop.turn()
        with pytest.raises(ConnectionResetError):
            refused.recv(9)
        bad, good = accepting.protocols
        assert bad.events == [ConnectionAborted]
        assert good.events == ["made"]
        assert accepting.loop.getReaders() == [accepting.port, good.transport]
    assert "not this one" in loggedErrors.flush()[0]


def test_refusedByTheFactory(accepting: Accepted) -> None:
    """A factory that makes no protocol has the socket closed."""
    accepting.kind = lambda: None
    with accepting.connect() as refused:
        waitUntil(accepting.loop.turn, lambda: not accepting.loop.turn())
        assert refused.recv(9) == b""


def test_linkLocalPeer() -> None:
    """A link-local address keeps its interface."""
    ours, theirs = socket.socketpair()
    accepting = Accepted(host="::1")
    with theirs:
        accepting.port.socket = Script(
            accepting.port.socket, (ours, ("fe80::1", 5, 0, socket.if_nametoindex("lo")))
        )
        accepting.port.doRead()
        assert [client.host for client in accepting.factory.clients] == ["fe80::1%lo"]
        accepting.close()


@pytest.mark.parametrize("adopted", [False, True], ids=["bound", "adopted"])
def test_serveQueue(adopted: bool) -> None:
    """Every connection that is complete already, and then no further one."""
    accepted = Accepted(backlog=100)
    if adopted:
        listening = accepted.port.socket
        other = Port._fromListeningDescriptor(
            accepted.loop, listening.fileno(), socket.AF_INET, accepted.port.factory
        )
        other.startListening()
        stopped, accepted.port = accepted.port, other
        stopped.stopReading()
        stopped._shouldShutdown = False
        stop(stopped, accepted.loop)
    with ExitStack() as stack:
        for _ in range(ACCEPTS + 5):
            stack.enter_context(accepted.connect())
        assert accepted.protocols == []
        accepted.port.serveQueue()
        assert len(accepted.protocols) == ACCEPTS + 5
        accepted.port.serveQueue()
        assert len(accepted.protocols) == ACCEPTS + 5
        accepted.close()


def test_serveQueueIsBounded(accepting: Accepted) -> None:
    """Clients that arrive all the while cannot hold it up."""
    with ExitStack() as stack:
        stack.enter_context(accepting.connect())
        accepting.port.socket = script = Script(accepting.port.socket, *pairs(stack, 4 * ACCEPTS))
        accepting.port.backlog = ACCEPTS
        accepting.port.serveQueue()
        assert len(accepting.protocols) == 2 * ACCEPTS
        for ours, _ in script.answers:
            ours.close()


def test_serveQueueWithoutDescriptors(accepting: Accepted) -> None:
    """When there is none left it does not try again and again."""
    with accepting.connect():
        accepting.port.socket = script = Script(accepting.port.socket, errno.EMFILE, errno.EMFILE)
        accepting.port.serveQueue()
        assert script.answers == [errno.EMFILE]


# -- The facade ------------------------------------------------------------------------------


class Net:
    """A facade over an outer reactor, and what its ports accepted."""

    def __init__(self, stack: ExitStack) -> None:
        self.outer = Outer()
        self.stack = stack
        self.facade: Any = Facade(self.outer)
        self.protocols: list[Recorder] = []
        self.factory = QuietFactory(self._make)

    def _make(self) -> Recorder:
        protocol = Recorder()
        protocol.echoing = True
        self.protocols.append(protocol)
        return protocol

    def connect(self, port: Any) -> tuple[Recorder, socket.socket]:
        """A client of ``port``, and the protocol that serves it."""
        address = port.socket.getsockname()
        client = self.stack.enter_context(socket.socket(port.socket.family))
        client.settimeout(20)
        client.connect(address)
        before = len(self.protocols)
        waitUntil(self.outer.turn, lambda: len(self.protocols) > before)
        return self.protocols[-1], client

    def serves(self, port: Any, transport: Any) -> None:
        """``port`` serves with just this transport, on the poller."""
        protocol, client = self.connect(port)
        served: Any = protocol.transport
        assert type(served) is transport
        assert served.reactor is self.facade
        assert {type(reader) for reader in self.outer.readers} == {NestedEpoll}
        assert set(self.facade.getReaders()) == {port, served}
        client.sendall(b"hello")
        waitUntil(self.outer.turn, lambda: protocol.received)
        assert client.recv(9) == b"hello"
        client.shutdown(socket.SHUT_WR)
        waitUntil(self.outer.turn, lambda: "EOF" in protocol.events)
        served.write(b"after EOF")
        served.loseConnection()
        waitUntil(self.outer.turn, lambda: ConnectionDone in protocol.events)
        assert client.recv(9) == b"after EOF"
        assert client.recv(9) == b""
        stop(port, self.facade)
        assert self.outer.readers == []


@pytest.fixture
def net() -> Iterator[Net]:
    with ExitStack() as stack:
        yield Net(stack)


def listened(deferred: Any) -> Any:
    """The port of an endpoint's ``listen``, which needs no turn."""
    ports: list[Any] = []
    deferred.addCallback(ports.append)
    (port,) = ports
    return port


def test_facadeInterfaces() -> None:
    """It passes for the reactor: whatever that provides, and an IReactorFDSet."""
    outer = Outer()
    directlyProvides(outer, IReactorTime, IReactorTCP, IReactorUNIX, IReactorSocket)
    facade: Any = Facade(outer)
    verifyObject(IReactorFDSet, facade)
    for interface in (IReactorTime, IReactorTCP, IReactorUNIX, IReactorSocket):
        assert interface.providedBy(facade)
    called: list[str] = []
    facade.callLater(0, called.append, "called")
    outer.turn()
    assert called == ["called"]
    assert facade.removeAll() == []


def test_listenTCP(net: Net) -> None:
    """IReactorTCP.listenTCP, as Twisted's in every argument."""
    port = net.facade.listenTCP(0, net.factory, 7, interface="127.0.0.1")
    assert (type(port), port.backlog) == (Port, 7)
    net.serves(port, Server)


def test_listenUNIX(net: Net, tmp_path: Path) -> None:
    """IReactorUNIX.listenUNIX."""
    path = tmp_path / "socket"
    port = net.facade.listenUNIX(str(path), net.factory, mode=0o600, wantPID=True)
    assert type(port) is UNIXPort
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "socket.lock").is_symlink()
    net.serves(port, UNIXServer)
    assert not path.exists()


def test_adoptTCP(net: Net) -> None:
    """IReactorSocket.adoptStreamPort; the caller keeps its descriptor."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = net.facade.adoptStreamPort(listening.fileno(), socket.AF_INET, net.factory)
        assert type(port) is Port
        net.serves(port, Server)
        with socket.create_connection(listening.getsockname()):
            listening.accept()[0].close()  # it listens on


def test_adoptUNIX(net: Net, tmp_path: Path) -> None:
    """The same for a UNIX socket, whose file is not ours either."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen()
        listening.setblocking(False)
        port = net.facade.adoptStreamPort(listening.fileno(), socket.AF_UNIX, net.factory)
        net.serves(port, UNIXServer)
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            listening.accept()[0].close()  # it listens on


@pytest.mark.parametrize("kind", ["tcp", "tcp6", "unix", "TCP4", "adopted"])
def test_endpoints(net: Net, tmp_path: Path, kind: str) -> None:
    """Any endpoint that is given the facade serves through our transports."""
    transport: Any = Server
    if kind == "TCP4":
        endpoint: Any = TCP4ServerEndpoint(net.facade, 0, interface="127.0.0.1")
    elif kind == "adopted":
        number = socket.create_server(("127.0.0.1", 0)).detach()
        endpoint = AdoptedStreamServerEndpoint(net.facade, number, socket.AF_INET)
    elif kind == "unix":
        transport = UNIXServer
        endpoint = serverFromString(net.facade, f"unix:{tmp_path / 'socket'}")
    else:
        address = "127.0.0.1" if kind == "tcp" else r"\:\:1"
        endpoint = serverFromString(net.facade, f"{kind}:0:interface={address}")
    net.serves(listened(endpoint.listen(net.factory)), transport)


def test_withoutEpoll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no epoll the real reactor watches; the transports are ours."""
    monkeypatch.delattr(select, "epoll")
    loop = Loop()
    facade: Any = Facade(loop)
    made: list[Recorder] = []

    def make() -> Recorder:
        made.append(Recorder())
        return made[-1]

    port = facade.listenTCP(0, QuietFactory(make), interface="127.0.0.1")
    assert loop.getReaders() == facade.getReaders() == [port]
    with socket.create_connection(("127.0.0.1", port.getHost().port)):
        waitUntil(loop.turn, lambda: made)
        assert type(made[0].transport) is Server
        assert made[0].transport in loop.getReaders()
        made[0].transport.abortConnection()
        loop.turn()
    stop(port, loop)


# -- UNIX ------------------------------------------------------------------------------------


@pytest.fixture
def unixPort(net: Net, tmp_path: Path) -> Iterator[Any]:
    port = net.facade.listenUNIX(str(tmp_path / "socket"), net.factory)
    yield port
    for protocol in net.protocols:
        if protocol.transport.connected:
            protocol.transport.abortConnection()
    net.outer.rest()
    stop(port, net.facade)


def test_uNIXTransport(net: Net, unixPort: Any) -> None:
    """It provides what a connection asks of a transport, as TCP's does."""
    protocol, _ = net.connect(unixPort)
    verifyObject(IConnectionTransport, protocol.transport)
    assert IConnectionTransport.implementedBy(Server)
    assert protocol.transport.getHost().name == os.fsencode(unixPort.socket.getsockname())
    assert not protocol.transport.failed()


def test_uNIXHalfClose(net: Net, unixPort: Any) -> None:
    """The echo of what precedes the peer's FIN arrives whole, then ours."""
    protocol, client = net.connect(unixPort)
    data = random.Random(1).randbytes(300_000)
    client.setblocking(False)
    sent = client.send(data)
    received = b""
    while len(received) < len(data):
        net.outer.turn()
        with suppress(BlockingIOError):
            received += client.recv(1 << 16)
        if sent < len(data):
            with suppress(BlockingIOError):
                sent += client.send(data[sent:])
            if sent == len(data):
                client.shutdown(socket.SHUT_WR)
    net.outer.rest()
    assert received == data
    assert protocol.events[-1] == "EOF"
    protocol.transport.loseWriteConnection()
    assert client.recv(9) == b""
    assert protocol.events[-1] == "FIN"


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_unsentAndUnread(net: Net, unixPort: Any, kind: str) -> None:
    """IConnectionTransport: in user space and in the kernel; a FIN is not counted; exact 0."""
    port = unixPort
    if kind == "tcp":
        port = net.facade.listenTCP(0, net.factory, interface="127.0.0.1")
    protocol, client = net.connect(port)
    it = protocol.transport
    assert (it.unsent(), it.unread()) == (0, 0)
    it.pauseProducing()
    client.send(b"hello")
    waitUntil(net.outer.turn, it.unread)
    assert it.unread() == 5
    it.resumeProducing()
    waitUntil(net.outer.turn, lambda: protocol.received)
    assert client.recv(9) == b"hello"
    waitUntil(net.outer.turn, lambda: not it.unsent())
    size = 20_000_000
    it.write(bytes(size))
    assert len(it.dataBuffer) - it.offset < it.unsent()
    if kind == "tcp":
        # What is in the peer's queue is acknowledged.
        assert it.unsent() <= size
    it.loseWriteConnection()
    left = it.unsent()
    while client.recv(1 << 20):
        net.outer.turn()
        assert it.unsent() <= left
        left = it.unsent()
    waitUntil(net.outer.turn, lambda: not it.unsent())
    if kind == "tcp":
        it.abortConnection()
        net.outer.rest()
        stop(port, net.facade)


def test_unsentWithoutFIN(net: Net) -> None:
    """TIOCOUTQ counts a FIN that waits behind unacknowledged bytes; `unsent` does not."""
    port = net.facade.listenTCP(0, net.factory, interface="127.0.0.1")
    protocol, client = net.connect(port)
    it: Any = protocol.transport
    while not it.dataBuffer:
        it.write(bytes(65536))
    while it.dataBuffer:
        client.recv(65536)
        net.outer.turn()
    before = it.unsent()
    assert before > 0
    it.loseWriteConnection()
    assert protocol.events == ["made", "FIN"]
    assert it.unsent() == before
    it.abortConnection()
    net.outer.rest()
    stop(port, net.facade)


def test_uNIXBackpressure(net: Net, unixPort: Any) -> None:
    """Over 64 KiB waiting pause the producer, none waiting resumes it, none is lost."""
    protocol, client = net.connect(unixPort)
    it = protocol.transport
    it.registerProducer(protocol, True)
    data = random.Random(2).randbytes(1 << 20)
    written = 0
    while "pause" not in protocol.events:
        it.write(data[written : written + 5000])
        written += 5000
        assert written < len(data), "it never pauses"
    assert 65536 < it._tempDataLen + len(it.dataBuffer) - it.offset <= 65536 + 5000
    received = b""
    while len(received) < written:
        received += client.recv(1 << 16)
        net.outer.turn()
    assert received == data[:written]
    assert protocol.events == ["made", "pause", "resume"]
    it.unregisterProducer()


def test_uNIXPeerGone(net: Net, unixPort: Any) -> None:
    """A peer that closes with unread input resets: told as a lost connection, once."""
    protocol, client = net.connect(unixPort)
    protocol.transport.write(b"unread")
    client.close()
    waitUntil(net.outer.turn, lambda: len(protocol.events) > 1)
    assert protocol.events == ["made", ConnectionLost]
