"""
Every test here runs over the link in memory and over loopback TCP, and must not notice which.

So the imitation is held to the real thing, and the connection is tested on both.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.states import Reason, State
from echod.protocols.line import LineOptions, line
from echod.protocols.prefixed import DNSOptions, dns
from echod.protocols.raw import RawOptions, raw
from echod.testing import Link, memoryLink, tcpLink, unixLink
from tests.certificates import Certificates
from tests.unit.proxyheaders import formatV1, formatV2

MakeLink = Callable[..., Link]

RAW = (raw, RawOptions())
LINE = (line, LineOptions())
DNS = (dns, DNSOptions())
ECHO_UNTIL_QUIT = (raw, RawOptions(quit="QUIT"))


V1 = formatV1(("192.0.2.1", 1000), ("192.0.2.2", 7))
V2 = formatV2(("2001:db8::1", 1000), ("2001:db8::2", 7))
PLAIN: dict[str, MakeLink] = {
    "memory": memoryLink,
    "tcp": tcpLink,
    "unix": unixLink,
    "proxy1": partial(tcpLink, header=V1),
    "proxy2": partial(tcpLink, header=V2),
}
#: The version of TLS, and what comes before it.
SECURED = {"tls12": ("1.2", b""), "tls13": ("1.3", b""), "proxy-tls13": ("1.3", V2)}


def linkOf(name: str, certificates: Certificates) -> MakeLink:
    if name in PLAIN:
        return PLAIN[name]
    version, header = SECURED[name]
    return partial(tcpLink, security=certificates.security(version), header=header)


@pytest.fixture(params=[*PLAIN, *SECURED])
def makeLink(request: pytest.FixtureRequest, certificates: Certificates) -> MakeLink:
    return linkOf(request.param, certificates)


@pytest.fixture(params=[*(name for name in PLAIN if name != "unix"), *SECURED])
def makeTCPLink(request: pytest.FixtureRequest, certificates: Certificates) -> MakeLink:
    """
    For what UNIX sockets have not.

    There is no RST: an abort is an EOF where nothing is unread.  And what was sent is unsent until
    the peer has read it, in the size that it takes in the kernel.
    """
    return linkOf(request.param, certificates)


@pytest.fixture(params=["memory", "tcp", "proxy1", "proxy2"])
def makePlainLink(request: pytest.FixtureRequest) -> MakeLink:
    """
    For what is known to the byte, and at once, only where bytes are sent as they are.

    A close_notify waits in user space for room; records are longer than what is in them.
    """
    return PLAIN[request.param]


def connect(make: MakeLink, protocol: tuple[Any, Any] = RAW, **keywords: Any) -> Link:
    maker, settings = protocol
    return make(maker.makeFactory(settings).buildProtocol(None), **keywords)


def sendUntilFull(link: Link, piece: bytes = bytes(65536)) -> int:
    """Send and never read, until the server has stopped reading too; returns the bytes sent."""
    sent = 0
    deadline = time.monotonic() + 20
    while True:
        taken = link.send(piece)
        sent += taken
        # Only where it seems full, what a kernel has on its way makes a difference.
        link.pump(patience=0.0 if taken else None)
        if taken:
            continue
        taken = link.send(piece[:1])
        # It has stopped if there is something to read: else a slow kernel has it all on its way.
        if not taken and link.connection.transport.unread():
            return sent
        sent += taken
        assert time.monotonic() < deadline, f"{sent} bytes are sent, and none waits to be read"


def receiveExactly(link: Link, size: int) -> bytes:
    data = b""
    deadline = time.monotonic() + 20
    while len(data) < size:
        assert time.monotonic() < deadline, f"{len(data)} of {size} bytes came"
        link.pump()
        piece = link.receive(size - len(data))
        assert piece != b"", "EOF too early"
        data += piece or b""
    return data


def settle(link: Link) -> None:
    """Give the peer's acknowledgement its tick."""
    link.pump()
    link.advance(0.5)


def message(body: bytes) -> bytes:
    return len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize("buffers", [4096, 65536], ids=["4K", "64K"])
@pytest.mark.parametrize("size", [0, 1, 5, 65535, 65536, 65537, 300_000])
def test_everySizeComesBack(makeLink: MakeLink, size: int, buffers: int) -> None:
    """E1: sent and half-closed, then identical bytes, then EOF, then gone."""
    data = random.Random(size).randbytes(size)
    link = connect(makeLink, sendBuffer=buffers, receiveBuffer=buffers)
    assert link.exchange(data) == data
    settle(link)
    assert (link.connection.state, link.connection.reason) == (State.CLOSED, Reason.EOF)
    assert link.connection.bytesIn == link.connection.bytesOut == size
    assert link.gone
    link.close()


@pytest.mark.parametrize("protocol", [LINE, DNS], ids=["line", "dns"])
def test_wholeMessagesComeBack(makeLink: MakeLink, protocol: tuple[Any, Any]) -> None:
    """F3, F4, F8: every complete message, then EOF; the cut one is counted."""
    if protocol is LINE:
        whole, tail = b"".join(b"%d\r\n" % number * 9 for number in range(3000)), b"cut"
    else:
        whole, tail = b"".join(message(b"x" * (number % 300)) for number in range(3000)), b"\0\5x"
    link = connect(makeLink, protocol, sendBuffer=8192, receiveBuffer=8192)
    assert link.exchange(whole + tail) == whole
    assert link.connection.truncated == 1
    settle(link)
    assert link.gone
    link.close()


def test_halfCloseBeforeAnythingIsRead(makeLink: MakeLink) -> None:
    """C1: the echo goes on after the peer's FIN for as long as the peer reads."""
    link = connect(makeLink, sendBuffer=4096, receiveBuffer=4096)
    sent = sendUntilFull(link)
    link.finish()
    link.pump()
    link.advance(30)  # half a stall timeout of silence is no reason to end
    assert link.readAll() == bytes(sent)
    settle(link)
    assert link.gone
    assert link.connection.reason is Reason.EOF
    link.close()


def test_stalledReaderIsBounded(makeLink: MakeLink) -> None:
    """C5: what echod holds for a peer that never reads is at most 192 KiB here."""
    link = connect(makeLink, sendBuffer=16384, receiveBuffer=16384)
    sent = sendUntilFull(link)
    transport: Any = link.connection.transport
    held = len(transport.dataBuffer) + transport._tempDataLen + transport._inPipe()
    # With a pipe reading stops at the first byte that the peer does not take.
    assert 0 < held <= 3 * 65536
    assert link.connection.pauses == 1
    assert receiveExactly(link, sent) == bytes(sent)
    # And it goes on: what stalled was nothing but the peer.
    assert link.exchange(b"more") == b"more"
    settle(link)
    link.close()


def test_ourEndWithPendingOutput(makeLink: MakeLink) -> None:
    """C2: FIN follows more than 64 KiB, and no RST destroys any of it."""
    link = connect(makeLink, ECHO_UNTIL_QUIT, sendBuffer=65536, receiveBuffer=65536)
    sent = sendUntilFull(link)
    total = sent + len(b"QUIT")
    assert receiveExactly(link, 1) == b"\0"
    link.pump()
    word = b"QUIT"
    while word:
        word = word[link.send(word) :]
        link.pump()
        if word:
            receiveExactly(link, 4096)
            sent -= 4096
    # Input that we shall not answer goes on arriving, and must not become an RST.
    late = link.send(bytes(5000))
    link.pump()
    assert link.readAll() == bytes(sent - 1) + b"QUIT"
    late += link.send(bytes(5000))
    link.pump()
    assert link.connection.state is State.LINGERING
    assert link.connection.bytesIn + link.connection.discarded == total + late
    assert link.connection.discarded >= 5000
    link.finish()
    settle(link)
    assert (link.connection.state, link.connection.reason) == (State.CLOSED, Reason.QUIT)
    assert link.gone
    link.close()


def test_ourEndWhilePaused(makeLink: MakeLink) -> None:
    """FIN follows although reading was paused when we ended it."""
    link = connect(makeLink, sendBuffer=16384, receiveBuffer=16384)
    sent = sendUntilFull(link)
    link.connection.end(Reason.MAX_AGE)
    echoed = link.readAll()
    assert len(echoed) == link.connection.bytesOut >= 65536
    assert link.connection.bytesIn + link.connection.discarded == sent
    link.finish()
    settle(link)
    assert (link.connection.state, link.connection.reason) == (State.CLOSED, Reason.MAX_AGE)
    assert link.gone
    link.close()


def test_lingeringEnds(makeLink: MakeLink) -> None:
    """C2: a peer that never finishes is aborted, linger_timeout after our FIN."""
    link = connect(makeLink, ECHO_UNTIL_QUIT, limits=Limits(lingerTimeout=5))
    link.send(b"QUIT")
    assert link.readAll() == b"QUIT"
    link.advance(4)
    assert link.connection.state is State.LINGERING
    link.advance(2)
    assert (link.connection.state, link.connection.reason) == (State.ABORTED, Reason.QUIT)
    assert link.connection.cut == 0
    assert link.gone
    link.close()


@pytest.mark.parametrize("moment", ["open", "pending", "half-closed", "lingering"])
def test_resetIsNoticed(makeTCPLink: MakeLink, moment: str) -> None:
    """C3: RST in each state ends the connection, and is told from FIN."""
    link = connect(makeTCPLink, ECHO_UNTIL_QUIT, sendBuffer=4096, receiveBuffer=4096)
    if moment == "lingering":
        link.send(b"QUIT")
        link.pump()
    elif moment != "open":
        sendUntilFull(link)
        if moment == "half-closed":
            link.finish()
            link.pump()
    link.reset()
    settle(link)
    assert link.gone
    assert link.connection.broken
    expected = Reason.QUIT if moment == "lingering" else Reason.RESET
    assert link.connection.reason is expected


def test_resetAfterBothEnds(makeLink: MakeLink) -> None:
    """With both FINs out nothing is registered; the RST is noticed all the same."""
    link = connect(makeLink, sendBuffer=65536, receiveBuffer=4096)
    data = bytes(40000)
    while data:
        data = data[link.send(data) :]
        link.pump()
    link.finish()
    link.pump()
    assert link.connection.state is State.FINISHING
    link.reset()
    # The sweep may see it first, or the poller.
    settle(link)
    assert link.gone
    assert link.connection.reason is Reason.RESET
    # The peer gave up, not we.
    assert link.connection.cut == 0


def test_stallEnds(makeLink: MakeLink) -> None:
    """A reader that stopped is cut after stall_timeout, with what it was owed."""
    link = connect(
        makeLink, sendBuffer=4096, receiveBuffer=4096, limits=Limits(stallTimeout=60, maxAge=0)
    )
    sendUntilFull(link)
    link.advance(55)
    assert link.connection.state is State.OPEN
    link.advance(10)
    assert (link.connection.state, link.connection.reason) == (State.ABORTED, Reason.STALLED)
    assert link.connection.cut > 65536
    assert link.gone
    with pytest.raises(ConnectionResetError):
        link.readAll()
    link.close()


def test_idleBeforeIsNoStall() -> None:
    """The deadline runs from when it began to owe, however long nothing was owed."""
    link = connect(memoryLink, receiveBuffer=1, limits=Limits(stallTimeout=10, idleTimeout=0))
    # Its echo fills the client's buffer: of the next one nothing is acknowledged.
    link.send(b"x")
    link.advance(40)
    assert link.connection.transport.unsent() == 0
    link.send(b"y")
    link.advance(9)
    assert link.connection.transport.unsent() == 1
    assert link.connection.state is State.OPEN
    link.advance(3)
    assert (link.connection.state, link.connection.reason) == (State.ABORTED, Reason.STALLED)
    link.close()


def test_moreToSendIsNoProgress(makeTCPLink: MakeLink) -> None:
    """One that reads nothing is cut, however much it sends that is echoed behind."""
    link = connect(makeTCPLink, receiveBuffer=4096, limits=Limits(stallTimeout=3))
    for _ in range(8):
        link.send(bytes(4096))
        link.pump()
    assert link.connection.transport.unsent() > 16384
    for _ in range(6):
        if link.connection.state is State.OPEN:
            link.send(b"x")
        link.advance(1)
    assert (link.connection.state, link.connection.reason) == (State.ABORTED, Reason.STALLED)
    link.close()
    settle(link)
    assert link.gone


def test_slowReaderLives(makeLink: MakeLink) -> None:
    """F7: one that reads a little now and then is neither idle nor stalled."""
    link = connect(
        makeLink,
        sendBuffer=4096,
        receiveBuffer=4096,
        limits=Limits(stallTimeout=4, idleTimeout=2),
    )
    sent = sendUntilFull(link)
    got = 0
    while got + 4096 <= sent:
        got += len(receiveExactly(link, 4096))
        link.advance(1)
        assert link.connection.state is State.OPEN
    got += len(receiveExactly(link, sent - got))
    link.advance(4)
    # Now everything is with the peer, and it has been idle since.
    assert link.connection.reason is Reason.IDLE
    assert link.readAll() == b""
    link.close()
    settle(link)


def test_halfClosedReaderThatStops(makeLink: MakeLink) -> None:
    """Half-closed, the rest with the kernel alone: counted, swept and cut."""
    link = connect(makeLink, sendBuffer=65536, receiveBuffer=4096, limits=Limits(stallTimeout=10))
    data = bytes(40000)
    while data:
        data = data[link.send(data) :]
        link.pump()
    link.finish()
    link.pump()
    assert link.connection.state is State.FINISHING
    assert not link.gone
    link.advance(12)
    assert (link.connection.state, link.connection.reason) == (State.ABORTED, Reason.STALLED)
    assert link.gone
    link.close()


def test_maximumAge(makeLink: MakeLink) -> None:
    """However active, a connection ends gracefully at max_age."""
    link = connect(makeLink, limits=Limits(maxAge=3.5))
    for _ in range(4):
        link.send(b"x")
        link.advance(1)
    link.advance(1)
    assert link.readAll() == b"xxxx"
    assert link.connection.reason is Reason.MAX_AGE
    link.close()
    settle(link)
    assert link.gone


def test_maximumAgeOfATrickle(makeLink: MakeLink) -> None:
    """A reader that trickles after our end is bounded by max_age + linger."""
    link = connect(
        makeLink,
        sendBuffer=4096,
        receiveBuffer=4096,
        limits=Limits(maxAge=3, lingerTimeout=2, stallTimeout=60),
    )
    sendUntilFull(link)
    for _ in range(7):
        if not link.gone:
            receiveExactly(link, 2048)
            link.advance(1)
    assert (link.connection.state, link.connection.reason) == (State.ABORTED, Reason.MAX_AGE)
    link.close()
    settle(link)


def test_dripIsIdle(makeLink: MakeLink) -> None:
    """F6: idle time runs from the last whole message."""
    link = connect(makeLink, DNS, limits=Limits(idleTimeout=3))
    for byte in message(b"0123456789"):
        link.send(bytes([byte]))
        link.advance(1)
        if link.connection.state is not State.OPEN:
            break
    assert link.connection.reason is Reason.IDLE
    assert link.readAll() == b""
    link.close()
    settle(link)


def test_activeIsNotIdle(makeLink: MakeLink) -> None:
    """F6: whole messages keep it alive."""
    link = connect(makeLink, DNS, limits=Limits(idleTimeout=3))
    for _ in range(8):
        link.send(message(b"x"))
        link.advance(1)
    assert link.exchange(b"") == message(b"x") * 8
    settle(link)
    link.close()


def test_strictDiscards(makePlainLink: MakeLink) -> None:
    """F8: strict (RFC 7766 section 6.2.4) drops what is unsent when the peer finishes."""
    link = connect(
        makePlainLink, (dns, DNSOptions(strict=True)), sendBuffer=4096, receiveBuffer=4096
    )
    sendUntilFull(link, message(bytes(30000)) * 2)
    link.finish()
    with pytest.raises(ConnectionResetError):
        link.readAll()
    assert link.connection.state is State.ABORTED
    assert link.gone
    link.close()


def test_drainAnswersWhatIsThere(makeLink: MakeLink) -> None:
    """O1: a drain reads what the kernel holds by then, echoes it, sends FIN, and lingers."""
    link = connect(makeLink, sendBuffer=65536, receiveBuffer=65536)
    link.send(b"before")
    while link.connection.transport.unread() < 6:
        pass
    link.connection.drain()
    link.send(b"after")
    assert link.readAll() == b"before"
    assert link.connection.state is State.LINGERING
    link.finish()
    settle(link)
    assert (link.connection.state, link.connection.reason) == (State.CLOSED, Reason.DRAIN)
    assert link.connection.discarded == 5
    link.close()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_drainWithinARecord(makeLink: MakeLink, turns: int) -> None:
    """O1: what has been read of a TLS record counts with what the kernel holds of it."""
    link = connect(makeLink)
    # Reads are of 2 KiB at first, and of twice as much each time.
    data = random.Random(0).randbytes(16384)
    assert link.send(data) == len(data)
    for _ in range(turns):
        link.loop.turn(1.0)
    link.connection.drain()
    assert link.readAll() == data
    link.finish()
    settle(link)
    assert (link.connection.state, link.connection.reason) == (State.CLOSED, Reason.DRAIN)
    assert (link.connection.cut, link.connection.discarded) == (0, 0)
    link.close()


def test_drainOfAStalledConnection(makeLink: MakeLink) -> None:
    """O1: also when the peer has to read first."""
    link = connect(makeLink, sendBuffer=16384, receiveBuffer=16384)
    sent = sendUntilFull(link)
    unread = link.connection.transport.unread()
    link.connection.drain()
    assert link.connection.state is State.DRAINING
    echoed = link.readAll()
    # Everything up to what the kernel held at that moment; a client's own send queue
    # may hold more.
    assert len(echoed) == link.connection.bytesIn >= sent - 3 * 65536
    assert set(echoed) == {0}
    assert unread > 0
    link.close()
    settle(link)
    assert link.gone


def test_idleConnectionDrainsAtOnce(makeLink: MakeLink) -> None:
    """O1."""
    link = connect(makeLink)
    link.connection.drain()
    assert link.readAll() == b""
    link.close()
    settle(link)
    assert (link.gone, link.connection.reason) == (True, Reason.DRAIN)


class Faulty(Connection):
    def received(self, data: bytes) -> None:
        raise ZeroDivisionError("by the protocol")


def test_protocolThatRaises(makeTCPLink: MakeLink, loggedErrors: Any) -> None:
    """O4: it costs this connection, with one logged error, and nothing else."""
    link = makeTCPLink(Faulty())
    link.send(b"x")
    with pytest.raises(ConnectionResetError):
        link.readAll()
    settle(link)
    assert (link.gone, link.connection.reason) == (True, Reason.ERROR)
    assert len(loggedErrors.flush()) == 1
    link.close()


class FaultyAtOnce(Connection):
    #: No number: connectionMade cannot go on.
    largestRead: Any = "much"


def test_connectionMadeThatRaises(loggedErrors: Any) -> None:
    """An exception in connectionMade must not leave the socket open."""
    link = memoryLink(FaultyAtOnce())
    with pytest.raises(ConnectionResetError):
        link.readAll()
    assert link.connection.state is State.ABORTED
    assert len(loggedErrors.flush()) == 1


def test_endedTwice(makeLink: MakeLink) -> None:
    """A second FIN notice and a second end change nothing."""
    link = connect(makeLink)
    sendUntilFull(link)
    link.connection.end(Reason.IDLE)
    link.connection.end(Reason.QUIT)
    link.connection.readConnectionLost()
    link.connection.readConnectionLost()
    link.connection.abort(Reason.STALLED)
    link.connection.abort(Reason.IDLE)
    link.connection.readConnectionLost()
    link.connection.drain()
    link.pump()
    assert (link.connection.state, link.connection.reason) == (State.ABORTED, Reason.STALLED)
    link.close()
    settle(link)
    assert link.gone


def test_unreadAndUnsent(makePlainLink: MakeLink) -> None:
    """What the transport says of the kernel's queues is what the client did."""
    link = connect(makePlainLink)
    transport = link.connection.transport
    assert (transport.unread(), transport.unsent(), transport.failed()) == (0, 0, False)
    link.send(b"12345")
    while transport.unread() != 5:
        pass
    link.pump()
    assert (transport.unread(), transport.unsent()) == (0, 0)
    assert receiveExactly(link, 5) == b"12345"
    sendUntilFull(link)
    assert transport.unsent() >= 65536
    link.close()
    settle(link)


def test_inputBeforeReset(makeLink: MakeLink) -> None:
    """What a client sent before its RST is still read, as Linux has it, or the RST is seen."""
    link = connect(makeLink)
    link.send(b"last words")
    while link.connection.transport.unread() < 10:
        pass
    link.reset()
    settle(link)
    assert link.connection.bytesIn == 10
    assert link.connection.reason is Reason.RESET
    assert link.gone
