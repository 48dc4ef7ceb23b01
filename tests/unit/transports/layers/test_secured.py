"""
`echod.transports.layers.secured`: both directions' ends, whatever the other end sends, and no
plain text.

The other end is a `Peer`, whose records are the test's; the listener is a real one on a loop.
"""

from __future__ import annotations

import random
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from OpenSSL import SSL
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from echod.config.limits import Limits
from echod.config.tls_settings import CertificateSettings
from echod.connection.connection import Connection
from echod.connection.states import Reason, State
from echod.errors import StreamTruncated
from echod.kit.makers import ConnectionMaker, FactoryMaker, StreamMaker
from echod.kit.stream import Stream
from echod.protocols.chargen import PATTERN, chargen
from echod.protocols.clock import daytime
from echod.protocols.line import LineOptions, line
from echod.protocols.prefixed import DNSOptions, dns
from echod.protocols.raw import RawOptions, raw
from echod.protocols.whoami import whoami
from echod.tls.context import _silenceNames
from echod.transports.layers.secured import ANSWERS, OVERHEAD, RECORD
from echod.transports.socket_stream import FIRST_READ
from tests.certificates import Certificates
from tests.conftest import LoggedErrors
from tests.tlspeer import ALERT, DATA, HANDSHAKE, Forged, Peer, recordTypes
from tests.unit.outer import Overseen
from tests.unit.proxyheaders import formatV2
from tests.unit.served import ECHO, Served

KIB = 1024
#: What a connection with TLS may hold of user memory.
HELD = 512 * KIB
HEADER = formatV2(("192.0.2.1", 1000), ("192.0.2.2", 443))

versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class Both:
    """A server with TLS, and clients of it."""

    def __init__(self, certificates: Certificates, folder: Path) -> None:
        self.certificates = certificates
        self.folder = folder
        self.keys = folder / "keys"

    @contextmanager
    def serving(
        self, protocol: tuple[Any, Any] = ECHO, *, tls: dict[str, Any] | None = None, **more: Any
    ) -> Iterator[Served]:
        with Served({"cert": self.certificates.server, **(tls or {})}, protocol, **more) as served:
            yield served

    def peer(
        self,
        served: Served,
        version: str | None = None,
        *,
        context: ssl.SSLContext | None = None,
        **more: Any,
    ) -> Peer:
        """A client that has connected, and said nothing."""
        context = context or self.certificates.context(version)
        return Peer(served.address, context, turn=served.turn, **more)

    @contextmanager
    def connected(
        self,
        version: str | None = None,
        protocol: tuple[Any, Any] = ECHO,
        *,
        tls: dict[str, Any] | None = None,
        **more: Any,
    ) -> Iterator[tuple[Served, Peer]]:
        """A server, and one client after its handshake."""
        buffers = more.get("buffers")
        with (
            self.serving(protocol, tls=tls, **more) as served,
            self.peer(served, version, buffers=buffers) as peer,
        ):
            peer.shakeHands()
            served.until(lambda: served.connection.state is not State.OPENING)
            yield served, peer

    @contextmanager
    def forging(
        self, protocol: tuple[Any, Any] = ECHO, **more: Any
    ) -> Iterator[tuple[Served, Peer, Forged]]:
        """A server, a client of TLS 1.3 after its handshake, and what makes its records."""
        context = self.certificates.context("1.3")
        context.keylog_filename = str(self.keys)
        buffers = more.get("buffers")
        with (
            self.serving(protocol, **more) as served,
            self.peer(served, context=context, buffers=buffers) as peer,
        ):
            peer.shakeHands()
            served.until(lambda: served.connection.state is not State.OPENING)
            yield served, peer, Forged(peer, self.keys)


@pytest.fixture
def both(certificates: Certificates, tmp_path: Path) -> Both:
    return Both(certificates, tmp_path)


def waiting(connection: Connection) -> int:
    """Bytes that wait to be sent, in user memory."""
    transport: Any = connection.transport
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


def stuff(served: Served, peer: Peer, data: bytes) -> int:
    """Send without reading until nobody takes any more; returns how many bytes went."""
    sent = quiet = 0
    while quiet < 50 and sent < len(data):
        quiet += 1
        with suppress(BlockingIOError):
            sent += peer.socket.send(data[sent : sent + 65536])
            quiet = 0
        served.turn()
    return sent


# -- The peer's end --------------------------------------------------------------------------------

SIZES = [0, 1, 5, 1000, 50_000, 65_536, 200_000, 3_000_000]


@versions
@pytest.mark.parametrize("unseen", [True, False], ids=["unseen", "shown"])
def test_closeNotifyBehindData(both: Both, version: str, unseen: bool) -> None:
    """L1: data and close_notify in one write: all comes back, close_notify, then FIN."""
    protocol = (raw, RawOptions() if unseen else RawOptions(quit="never said"))
    for size in SIZES:
        data = noise(size)
        with both.connected(version, protocol) as (served, peer):
            peer.send(peer.seal(data) + peer.closeNotify())
            assert peer.readAll() == data
            assert (peer.notified, peer.end, peer.alert) == (True, "FIN", "")
            peer.finish()
            served.gone()
            assert served.closed == {"eof": 1}
            counters = served.counters()
            assert (counters["bytes_in"], counters["bytes_out"]) == (size, size)


@versions
@pytest.mark.parametrize("buffers", [4096, 65536], ids=["4K", "64K"])
def test_closeNotifyBeforeALateReader(both: Both, version: str, buffers: int) -> None:
    """Close_notify that comes while our output is full is not forgotten."""
    data = noise(120_000)
    with both.connected(version, buffers=buffers) as (served, peer):
        records = peer.seal(data[:60_000]) + peer.seal(data[60_000:]) + peer.closeNotify()
        sent = stuff(served, peer, records)
        peer.send(records[sent:])
        peer.finish()
        assert peer.readAll() == data
        assert (peer.notified, peer.end) == (True, "FIN")
        served.gone()
        assert served.closed == {"eof": 1}


@versions
def test_closeNotifyAlone(both: Both, version: str) -> None:
    """RFC 8446 section 6.1: nothing was sent, both close_notify are; no FIN needed."""
    with both.connected(version) as (served, peer):
        peer.send(peer.closeNotify())
        assert peer.readAll() == b""
        assert (peer.notified, peer.end) == (True, "FIN")
        served.gone()
        assert served.closed == {"eof": 1}


@versions
def test_bytesBehindCloseNotify(both: Both, version: str) -> None:
    """RFC 8446 section 6.1: what comes after a close_notify is ignored, garbage too."""
    with both.connected(version) as (served, peer):
        peer.send(peer.seal(b"before") + peer.closeNotify() + b"garbage" * 1000)
        assert peer.readAll() == b"before"
        assert (peer.notified, peer.alert) == (True, "")
        peer.finish()
        served.gone()
        assert served.closed == {"eof": 1}
        assert served.counters()["discarded"] == 0


@versions
def test_closeNotifyInTheHandshake(both: Both, version: str) -> None:
    """One that thinks better of it has not done TLS, and is gone with its FIN."""
    with both.serving() as served, both.peer(served, version) as peer:
        peer.send(peer.hello())
        peer.until(lambda: peer.wire)
        peer.send(b"\x15\x03\x03\0\2\1\0")
        peer.readAll()
        assert peer.end == "FIN"
        peer.finish()
        served.gone()
        assert served.closed == {"tls": 1}


# -- FIN without close_notify ----------------------------------------------------------------------


@versions
@pytest.mark.parametrize("size", [5, 200_000])
def test_truncated(both: Both, version: str, size: int) -> None:
    """L2: what was sent comes back all the same, and the end is called what it was."""
    data = noise(size)
    with both.connected(version) as (served, peer):
        peer.send(peer.seal(data))
        peer.finish()
        assert peer.readAll() == data
        assert (peer.notified, peer.end) == (True, "FIN")
        served.gone()
        assert served.closed == {"no_close_notify": 1}
        assert "reason=no_close_notify end=fin" in served.told("closed")


@versions
def test_truncatedInARecord(both: Both, version: str) -> None:
    """L2: whole records come back, the cut one never; nobody waits for the rest."""
    with both.connected(version) as (served, peer):
        peer.send(peer.seal(b"whole") + peer.seal(b"x" * 1000)[:-1])
        peer.finish()
        assert peer.readAll() == b"whole"
        served.gone()
        assert served.closed == {"no_close_notify": 1}


def test_healthCheck(both: Both) -> None:
    """C6: connect and close without a byte is a usual end, and nobody was turned away."""
    with both.serving() as served, both.peer(served) as peer:
        peer.finish()
        assert peer.readAll() == b""
        served.gone()
        assert served.closed == {"eof": 1}
        assert served.refusals() == []


def test_healthCheckOfAProxy(both: Both) -> None:
    """C6: so is a PROXY header, with no byte of TLS behind it."""
    with both.serving(proxy=True) as served, both.peer(served, header=HEADER) as peer:
        peer.finish()
        assert peer.readAll() == b""
        served.gone()
        assert served.closed == {"eof": 1}


def test_finInTheHandshake(both: Both) -> None:
    """L2: half a ClientHello is no clean end."""
    with both.serving() as served, both.peer(served) as peer:
        peer.send(peer.hello()[:100])
        peer.finish()
        assert peer.readAll() == b""
        served.gone()
        assert served.closed == {"no_close_notify": 1}


class Told(Protocol):
    """A foreign protocol that remembers its end."""

    ends: list[str]
    heard: list[bytes]

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)

    def connectionLost(self, reason: Failure = Failure(Exception())) -> None:  # noqa: B008  # Twisted's own
        self.ends.append(type(reason.value).__name__)


@implementer(IHalfCloseableProtocol)
class ToldBoth(Told):
    """The same, and it can tell EOF from close."""

    def readConnectionLost(self) -> None:
        self.ends.append("EOF")
        self.transport.loseConnection()  # type: ignore[union-attr]  # it is connected

    def writeConnectionLost(self) -> None:
        pass


def hosted(kind: type[Told]) -> tuple[tuple[Any, None], list[str], list[bytes]]:
    """A maker of ``kind``, what its protocols are told of their end, and their input."""
    ends: list[str] = []
    heard: list[bytes] = []

    def build() -> Told:
        protocol = kind()
        protocol.ends, protocol.heard = ends, heard
        return protocol

    factory = Factory.forProtocol(build)
    factory.noisy = False
    return (FactoryMaker("told", "", lambda: factory), None), ends, heard


@versions
@pytest.mark.parametrize(
    ("kind", "clean", "cut"),
    [
        (Told, ["ConnectionDone"], ["ConnectionLost"]),
        (ToldBoth, ["EOF", "ConnectionDone"], ["EOF", "ConnectionLost"]),
    ],
)
def test_foreignProtocolIsTold(
    both: Both, version: str, kind: type[Told], clean: list[str], cut: list[str]
) -> None:
    """L2: nobody takes what was cut off for whole: ConnectionLost, not ConnectionDone."""
    for notify, expected in ((True, clean), (False, cut)):
        protocol, ends, heard = hosted(kind)
        with both.connected(version, protocol) as (served, peer):
            peer.send(peer.seal(b"hello") + (peer.closeNotify() if notify else b""))
            peer.finish()
            assert peer.readAll() == b""
            served.gone()
            assert ends == expected
            assert b"".join(heard) == b"hello"


@versions
def test_foreignProtocolIsToldOfAFailure(both: Both, version: str) -> None:
    """L2: nor what TLS itself has cut off."""
    protocol, ends, heard = hosted(Told)
    with both.connected(version, protocol) as (served, peer):
        peer.send(peer.seal(b"hello"))
        served.until(lambda: heard)
        peer.send(b"garbage, in the middle of it all")
        peer.readAll()
        peer.finish()
        served.gone()
        assert ends == ["ConnectionLost"]


def test_protocolThatNeverBegan(both: Both) -> None:
    """However a handshake ends that is none: the protocol has not heard of it."""
    for kind in (Told, ToldBoth):
        protocol, ends, heard = hosted(kind)
        limits = Limits(handshakeTimeout=2)
        with both.serving(protocol, limits=limits) as served, ExitStack() as stack:
            health, cut, broken, slow, reset = (
                stack.enter_context(both.peer(served)) for _ in range(5)
            )
            health.finish()
            cut.send(cut.hello()[:100])
            cut.finish()
            broken.send(b"garbage" * 40)
            broken.finish()
            reset.send(reset.hello()[:100])
            served.rest()
            reset.reset()
            slow.send(slow.hello()[:100])
            served.advance(3.1)
            served.gone()
            counted = {"eof": 1, "no_close_notify": 1, "tls": 1, "reset": 1, "handshake": 1}
            assert served.closed == counted
            assert (ends, heard) == ([], [])


@versions
def test_coroutineIsTold(both: Both, version: str) -> None:
    """L2: a read after what has come raises, and only where close_notify is missing."""
    found: list[Any] = []

    async def handler(stream: Stream) -> None:
        try:
            while data := await stream.read():
                found.append(data)
            found.append("EOF")
        except StreamTruncated as error:
            found.append(str(error))
            raise

    maker = StreamMaker("reader", "", handler), None
    for notify, end in ((True, "EOF"), (False, "the peer finished without TLS's close_notify")):
        found.clear()
        with both.connected(version, maker) as (served, peer):
            peer.send(peer.seal(b"hello") + (peer.closeNotify() if notify else b""))
            peer.finish()
            assert peer.readAll() == b""
            served.gone()
            assert found == [b"hello", end]


def test_coroutineIsToldOfAFailure(both: Both) -> None:
    """L2: the same where TLS itself breaks."""
    found: list[str] = []

    async def handler(stream: Stream) -> None:
        try:
            await stream.read()
        except StreamTruncated as error:
            found.append(str(error))
            raise

    with both.connected("1.3", (StreamMaker("reader", "", handler), None)) as (served, peer):
        peer.send(b"garbage, in the middle of it all")
        peer.readAll()
        peer.finish()
        served.gone()
    assert found == ["TLS failed: WRONG_VERSION_NUMBER"]


# -- Our end ---------------------------------------------------------------------------------------


def test_handshakeTimeout(both: Both) -> None:
    """L3: who does not shake hands is gone at handshake_timeout, and its place is free again."""
    for hello in (0, 1, 100):
        for header in (b"", HEADER):
            checkTimeout(both, hello, header)
    checkTimeout(both, 0, HEADER[:20])


def checkTimeout(both: Both, hello: int, header: bytes) -> None:
    limits = Limits(handshakeTimeout=4)
    with (
        both.serving(limits=limits, proxy=bool(header)) as served,
        both.peer(served, header=header) as peer,
    ):
        peer.send(peer.hello()[:hello])
        connection = served.connection
        served.rest()
        served.advance(3)
        assert connection in served.connections
        served.advance(2.1)
        served.gone()
        assert connection.state is State.ABORTED
        assert served.closed == {"handshake": 1}
        assert served.counters()["cut"] == 0
        peer.readAll()
        assert peer.end == "RST"
        assert served.refusals()[0].endswith("handshake=1")


def test_handshakeByDrips(both: Both) -> None:
    """L3: the deadline is for all of it; a byte now and then does not put it off."""
    with both.serving(limits=Limits(handshakeTimeout=4)) as served, both.peer(served) as peer:
        for byte in peer.hello():
            peer.send(bytes([byte]))
            served.advance(0.5)
            if peer.end:
                break
        assert served.closed == {"handshake": 1}


def untilQuit() -> tuple[Any, Any]:
    return raw, RawOptions(quit="QUIT")


@versions
def test_lingeringEnds(both: Both, version: str) -> None:
    """L3: a peer that ignores our close_notify is gone after linger_timeout."""
    with both.connected(version, untilQuit(), limits=Limits(lingerTimeout=5)) as (served, peer):
        connection = served.connection
        peer.send(peer.seal(b"QUIT"))
        assert peer.readAll() == b"QUIT"
        assert (peer.notified, peer.end) == (True, "FIN")
        served.advance(4)
        assert connection.state is State.LINGERING
        peer.send(peer.seal(b"more"))
        served.advance(2)
        served.gone()
        assert (connection.state, connection.reason) == (State.ABORTED, Reason.QUIT)
        assert connection.cut == 0


@versions
@pytest.mark.parametrize("notify", [True, False], ids=["close_notify", "FIN"])
def test_inputAfterOurEnd(both: Both, version: str, notify: bool) -> None:
    """C2: what still comes is read, counted, and given to nobody; FIN is the end."""
    with both.connected(version, untilQuit()) as (served, peer):
        connection = served.connection
        peer.send(peer.seal(b"beforeQUITbehind"))
        peer.until(lambda: peer.end)
        peer.send(peer.seal(b"late" * 50_000) + (peer.closeNotify() if notify else b""))
        peer.finish()
        served.gone()
        assert peer.take() == b"beforeQUIT"
        assert peer.end == "FIN"
        assert (connection.state, connection.reason) == (State.CLOSED, Reason.QUIT)
        assert connection.bytesIn == len(b"beforeQUITbehind")
        assert connection.discarded == 200_000


@versions
def test_halfCloseOfOurs(both: Both, version: str) -> None:
    """Our close_notify comes before our FIN, and what the peer says then is heard."""
    heard: list[bytes] = []

    async def handler(stream: Stream) -> None:
        await stream.write(b"that is all")
        await stream.writeEOF()
        heard.extend([data async for data in stream])

    data = noise(300_000)
    with both.connected(version, (StreamMaker("half", "", handler), None)) as (served, peer):
        peer.until(lambda: peer.end)
        assert (peer.take(), peer.notified, peer.end) == (b"that is all", True, "FIN")
        assert recordTypes(bytes(peer.wire))[-1] in (ALERT, DATA)
        peer.send(peer.seal(data) + peer.closeNotify())
        served.gone()
        assert b"".join(heard) == data
        assert served.closed == {"eof": 1}


@versions
def test_finishedOutputOfAnEcho(both: Both, version: str) -> None:
    """What is answered after our own end goes nowhere, and is no error; input is still counted."""
    with both.connected(version) as (served, peer):
        connection = served.connection
        peer.ping()
        connection.finishOutput()
        peer.until(lambda: peer.end)
        assert (peer.notified, peer.end) == (True, "FIN")
        peer.send(peer.seal(bytes(5000)) + peer.closeNotify())
        served.gone()
        assert served.closed == {"eof": 1}
        assert connection.bytesIn == 5005
        assert not peer.take()


@versions
def test_loseConnection(both: Both, version: str) -> None:
    """Whoever ends the transport itself, as Twisted has it, ends with close_notify too."""
    with both.connected(version) as (served, peer):
        transport: Any = served.connection.transport
        transport.unregisterProducer()
        transport.write(b"last words")
        transport.loseConnection()
        assert peer.readAll() == b"last words"
        assert (peer.notified, peer.end) == (True, "FIN")
        served.gone()


# -- The wire -------------------------------------------------------------------------


class InPieces(Protocol):
    """A foreign protocol that writes in each way that there is."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"plain text 1, ")
        self.transport.writeSequence([b"plain text 2, ", b"", b"plain text 3, "])

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.writeSequence([b"plain ", b"text ", data])
        self.transport.loseConnection()


def inPieces() -> tuple[Any, Any]:
    factory = Factory.forProtocol(InPieces)
    factory.noisy = False
    return FactoryMaker("pieces", "", lambda: factory), None


class Sequence(Connection):
    """echod's own, by way of the transport's other method."""

    def received(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.writeSequence([b"plain text ", data])


async def late(stream: Stream) -> None:
    """Its answer comes a second after the question, and our end with it."""
    data = await stream.read()
    await deferLater(stream._connection.transport.reactor, 1)
    await stream.write(b"plain text " + data)


PROTOCOLS: dict[str, tuple[tuple[Any, Any], bytes, bytes]] = {
    "unseen": (ECHO, b"plain text", b"plain text"),
    "quit": (untilQuit(), b"plain text, QUIT", b"plain text, QUIT"),
    "line": ((line, LineOptions(prefix="plain text ")), b"hi\n" * 9, b"plain text hi\n" * 9),
    "dns": ((dns, DNSOptions()), b"\0\12plain text", b"\0\12plain text"),
    "chargen": ((chargen, None), b"", PATTERN),
    "daytime": ((daytime, None), b"", b""),
    "whoami": ((whoami, None), b"", b""),
    "foreign": (inPieces(), b"4", b"plain text 1, plain text 2, plain text 3, plain text 4"),
    "sequence": ((ConnectionMaker("sequence", "", Sequence), None), b"1", b"plain text 1"),
    "late": ((StreamMaker("late", "", late), None), b"answer", b"plain text answer"),
}


@versions
def test_noPlainText(both: Both, version: str) -> None:
    """Whoever writes, whenever, in whatever way: the wire has records alone."""
    for protocol, question, answer in PROTOCOLS.values():
        checkTheWire(both, version, protocol, question, answer)


def checkTheWire(
    both: Both, version: str, protocol: tuple[Any, Any], question: bytes, answer: bytes
) -> None:
    with both.serving(protocol) as served, both.peer(served, version) as peer:
        peer.shakeHands()
        peer.send(peer.seal(question))
        served.rest()
        served.advance(1.1)
        peer.until(lambda: len(peer.plain) >= max(1, len(answer)))
        said = peer.take(len(answer) or None)
        assert said.startswith(answer)
        peer.send(peer.closeNotify())
        said += peer.readAll()
        assert (peer.notified, peer.end, peer.alert) == (True, "FIN", "")
        wire = bytes(peer.wire)
        assert set(recordTypes(wire)) <= {20, ALERT, HANDSHAKE, DATA}
        assert said
        assert b"plain text" not in wire
        assert said[:30] not in wire
        served.gone()


# -- What goes wrong -------------------------------------------------------------------------------


def _oldContext(both: Both) -> ssl.SSLContext:
    context = both.certificates.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def _weakContext(both: Both) -> ssl.SSLContext:
    context = both.certificates.context("1.2")
    context.set_ciphers("AES128-SHA256")
    return context


def _strangersContext(both: Both) -> ssl.SSLContext:
    return both.certificates.context("1.2", both.certificates.stranger)


REQUIRE = {"clientAuth": "require"}
#: Keys of the server's table, the client's context, and what the server says of it.
HANDSHAKES: dict[str, tuple[dict[str, Any], Callable[[Both], ssl.SSLContext], str]] = {
    "version": ({"minimumVersion": "1.3"}, _oldContext, "UNSUPPORTED_PROTOCOL"),
    "cipher": ({}, _weakContext, "NO_SHARED_CIPHER"),
    "certificate": (
        REQUIRE,
        lambda both: both.certificates.context("1.2"),
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    ),
    "certificate 1.3": (
        REQUIRE,
        lambda both: both.certificates.context("1.3"),
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    ),
    "authority": (REQUIRE, _strangersContext, "unable to get local issuer certificate"),
    "optional authority": (
        {"clientAuth": "optional"},
        _strangersContext,
        "unable to get local issuer certificate",
    ),
    "expired": (
        REQUIRE,
        lambda both: both.certificates.context("1.3", both.certificates.expired),
        "certificate has expired",
    ),
    "unknown to the client": (
        {},
        lambda both: both.certificates.context(ca=both.certificates.server),
        "TLSV1_ALERT_UNKNOWN_CA",
    ),
}


def test_handshakesThatFail(both: Both) -> None:
    """O4, O5, C2: the client is told why by an alert, not an RST; one counter, one line."""
    for name in HANDSHAKES:
        checkHandshake(both, name)


def checkHandshake(both: Both, name: str) -> None:
    tls, makeContext, failure = HANDSHAKES[name]
    if "clientAuth" in tls:
        tls = {**tls, "ca": both.certificates.ca}
    with both.serving(tls=tls) as served, both.peer(served, context=makeContext(both)) as peer:
        with suppress(ssl.SSLError):
            peer.shakeHands()
        peer.readAll()
        assert peer.end == "FIN"
        if name != "unknown to the client":
            # In 1.3 the client's part is done before the server has seen it.
            assert ALERT in recordTypes(bytes(peer.wire)) or "ALERT" in peer.alert
        peer.finish()
        served.gone()
        assert served.closed == {"tls": 1}
        assert served.refusals() == ["tls=1"]
        assert f"reason=tls end=fin failure={failure!r}" in served.told("closed")
        assert not [line for line in served.lines if line.startswith("tls ")]


#: What a client sends first, and what the server says of it.
OPENINGS = {
    "garbage": (b"garbage" * 40, "WRONG_VERSION_NUMBER"),
    "HTTP": (b"GET / HTTP/1.0\r\n\r\n", "HTTP_REQUEST"),
    "proxied HTTP": (b"CONNECT example.org:443 HTTP/1.1\r\n\r\n", "HTTPS_PROXY_REQUEST"),
    "SSL 2": (b"\x80\x2e\1\0\2" + bytes(43), "UNSUPPORTED_PROTOCOL"),
    "too long": (b"\x16\3\1\xff\xff" + bytes(70_000), "PACKET_LENGTH_TOO_LONG"),
    "much": (bytes(300_000), "WRONG_VERSION_NUMBER"),
}


def test_noClientHello(both: Both) -> None:
    """O4, C2: whoever does not speak TLS gets what OpenSSL has to say, and FIN; no RST."""
    for name in OPENINGS:
        checkOpening(both, name)


def checkOpening(both: Both, name: str) -> None:
    said, failure = OPENINGS[name]
    with both.serving() as served, both.peer(served) as peer:
        peer.send(said)
        peer.readAll()
        assert peer.end == "FIN"
        # OpenSSL has no alert for what is no TLS at all.
        alerts = {"too long": [ALERT], "SSL 2": [ALERT]}
        assert recordTypes(bytes(peer.wire)) == alerts.get(name, [])
        peer.finish()
        served.gone()
        assert served.closed == {"tls": 1}
        assert served.refusals() == ["tls=1"]
        line = served.told("closed")
        assert "reason=tls end=fin failure=" in line
        if name != "SSL 2":
            assert repr(failure) in line


def test_refusalsAreOneLineASecond(both: Both) -> None:
    """O5: fifty that fail are one line, and fifty in the counter."""
    with both.serving() as served:
        for _ in range(50):
            with both.peer(served) as peer:
                peer.send(b"garbage" * 40)
                peer.readAll()
        served.until(lambda: served.closed == {"tls": 50})
        assert served.refusals() == ["tls=50"]


def _flipped(record: bytes, at: int) -> bytes:
    spoilt = bytearray(record)
    spoilt[at] ^= 1
    return bytes(spoilt)


#: What comes after a handshake, as the peer makes it; what the server says of it.
BREAKS: dict[str, tuple[Callable[[Peer], bytes], str]] = {
    "bit": (
        lambda peer: _flipped(peer.seal(bytes(100)), 50),
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
    ),
    "tag": (lambda peer: _flipped(peer.seal(b"x"), -1), "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
    "version": (lambda peer: _flipped(peer.seal(b"x"), 1), "WRONG_VERSION_NUMBER"),
    "length": (lambda peer: b"\x17\3\3\xff\xff" + bytes(66_000), ""),
    "replayed": (lambda peer: peer.seal(b"x") * 2, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
    "plain": (lambda peer: b"plain text, suddenly", "WRONG_VERSION_NUMBER"),
}


@versions
def test_brokenInTheMiddle(both: Both, version: str) -> None:
    """O4, C2: what came before is back, the alert arrives, FIN follows; one counter, one line."""
    for name in BREAKS:
        checkBreak(both, version, name)


def checkBreak(both: Both, version: str, name: str) -> None:
    make, failure = BREAKS[name]
    data = noise(100_000)
    with both.connected(version) as (served, peer):
        peer.ping(data)
        connection = served.connection
        peer.send(make(peer) + b"and more behind" * 10_000)
        peer.readAll()
        assert "ALERT" in peer.alert
        assert not peer.notified
        assert peer.end == "FIN"
        assert connection.state is State.LINGERING
        peer.finish()
        served.gone()
        assert served.closed == {"tls": 1}
        assert served.refusals() == ["tls=1"]
        line = served.told("closed")
        assert "reason=tls end=fin failure=" in line
        if name != "length":
            assert repr(failure) in line


@versions
def test_brokenWhileOurOutputIsFull(both: Both, version: str) -> None:
    """C2: what had been answered before a bad record is still sent, and the alert behind it."""
    with both.connected(version, buffers=4096) as (served, peer):
        sent = stuff(served, peer, peer.seal(bytes(4_000_000), 1000))
        record = 1000 + (29 if version == "1.2" else 22)
        # To the end of a record, and nonsense.
        peer.send(bytes(-sent % record) + b"nonsense" * 10)
        echoed = peer.readAll()
        assert peer.end == "FIN"
        assert set(echoed) == {0}
        assert len(echoed) >= sent // record * 1000 - 2 * 65536
        assert "ALERT" in peer.alert
        peer.finish()
        served.gone()
        assert served.closed == {"tls": 1}


@versions
def test_whatCameBeforeABreak(both: Both, version: str) -> None:
    """What came in one read with a bad record is echoed; no other protocol can answer any more."""
    for protocol, echoed in ((ECHO, b"hello\n"), ((line, LineOptions()), b"")):
        with both.connected(version, protocol) as (served, peer):
            peer.send(peer.seal(b"hello\n") + b"garbage, in the middle of it all")
            assert peer.readAll() == echoed
            assert "ALERT" in peer.alert
            peer.finish()
            served.gone()
            counters = served.counters()
            counted = (counters["bytes_in"], counters["bytes_out"], counters["discarded"])
            assert counted == (len(echoed), len(echoed), 6 - len(echoed))


@versions
def test_alertOfThePeers(both: Both, version: str) -> None:
    """RFC 8446 section 6.2: a fatal alert is the end; nothing more is said, and no retort."""
    with both.serving() as served:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_verify(SSL.VERIFY_NONE)
        peer = OtherPeer(served, context, version)
        with peer.socket:
            peer.shakeHands()
            peer.exchange(b"hello")
            heard = len(peer.wire)
            # It answers nonsense with a fatal alert.
            peer.tls.bio_write(b"\x17\3\3\0\x20" + bytes(32))
            with pytest.raises(SSL.Error):
                peer.tls.recv(100)
            peer.flush()
            served.until(peer.ended)
            assert len(peer.wire) == heard
            peer.socket.shutdown(1)
            served.gone()
            assert served.closed == {"tls": 1}
            assert "failure='SSLV3_ALERT_BAD_RECORD_MAC'" in served.told("closed")


def test_whatPeersSayOfThemselvesIsCounted(both: Both) -> None:
    """A failure after our own end changes no reason, and is told."""
    with both.connected("1.3", untilQuit()) as (served, peer):
        peer.send(peer.seal(b"QUIT"))
        peer.until(lambda: peer.end)
        peer.send(b"garbage, in the middle of it all")
        peer.finish()
        served.gone()
        assert peer.take() == b"QUIT"
        assert served.closed == {"quit": 1}
        assert "reason=quit end=fin failure='WRONG_VERSION_NUMBER'" in served.told("closed")


# -- Records that no library makes -----------------------------------------------------------------


class OtherPeer:
    """A client on another OpenSSL (pyOpenSSL), which can ask for renegotiation."""

    def __init__(self, served: Served, context: SSL.Context, version: str) -> None:
        import socket

        number = SSL.TLS1_2_VERSION if version == "1.2" else SSL.TLS1_3_VERSION
        context.set_min_proto_version(number)
        context.set_max_proto_version(number)
        self.served = served
        self.socket = socket.create_connection(served.address)
        self.socket.setblocking(False)
        self.tls = SSL.Connection(context, None)
        self.tls.set_connect_state()
        self.wire = b""

    def flush(self) -> None:
        with suppress(SSL.WantReadError):
            while True:
                self.socket.sendall(self.tls.bio_read(65536))

    def read(self) -> None:
        self.served.turn()
        with suppress(BlockingIOError):
            data = self.socket.recv(65536)
            self.wire += data
            if data:
                self.tls.bio_write(data)

    def ended(self) -> bool:
        with suppress(BlockingIOError):
            return not self.socket.recv(1)
        return False

    def shakeHands(self) -> None:
        for _ in range(1000):
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                self.flush()
                self.read()
            else:
                self.flush()
                return
        raise AssertionError("the handshake has no end")

    def exchange(self, data: bytes) -> None:
        self.tls.send(data)
        self.flush()
        for _ in range(1000):
            with suppress(SSL.WantReadError):
                assert self.tls.recv(len(data)) == data
                return
            self.read()
        raise AssertionError("no answer")


def test_renegotiation(both: Both) -> None:
    """RFC 9325 section 3.4: nobody makes us shake hands again; the connection goes on."""
    with both.serving() as served:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_verify(SSL.VERIFY_NONE)
        # SSL_OP_ALLOW_CLIENT_RENEGOTIATION and the like are a server's; a client only asks.
        peer = OtherPeer(served, context, "1.2")
        with peer.socket:
            peer.shakeHands()
            peer.exchange(b"hello")
            before = len(peer.wire)
            assert peer.tls.renegotiate()
            with suppress(SSL.WantReadError):
                peer.tls.do_handshake()
            peer.flush()
            while len(peer.wire) == before:
                peer.read()
            # A warning, no_renegotiation, and nothing else.
            assert recordTypes(peer.wire[before:]) == [ALERT]
            assert served.connection.state is State.OPEN
            assert served.connection.transport.tls.version == "TLSv1.2"


def test_keyUpdate(both: Both) -> None:
    """RFC 8446 section 4.6.3: other keys in between, asked for or not, change nothing."""
    with both.forging() as (served, peer, forged):
        for number in range(40):
            data = b"%d" % number
            peer.send(forged.keyUpdate(answer=number % 3 == 0) + forged.record(DATA, data))
            assert peer.receiveExactly(len(data)) == data
        peer.send(forged.record(ALERT, b"\1\0"))
        assert peer.readAll() == b""
        assert (peer.notified, peer.end, peer.alert) == (True, "FIN", "")
        served.gone()


def test_keyUpdateByHalves(both: Both, loggedErrors: LoggedErrors) -> None:
    """
    O4: nothing can be written amid a handshake message, and that is the peer's fault.

    A message may be cut over two records (section 5.1); no record of another kind may be between.
    """
    head, tail = b"\x18\0\0\1", b"\0"
    with both.forging((line, LineOptions())) as (served, peer, forged):
        peer.send(forged.record(HANDSHAKE, head))
        served.rest()
        last = forged.record(HANDSHAKE, tail)
        forged.updateKey()
        peer.send(last + forged.record(DATA, b"hello\n"))
        assert peer.receiveExactly(6) == b"hello\n"
        peer.send(forged.record(DATA, b"never answered\n") + forged.record(HANDSHAKE, head))
        assert peer.readAll() == b""
        assert peer.end == "FIN"
        peer.finish()
        served.gone()
        assert served.closed == {"tls": 1}
        assert "failure='amid a handshake message of the peer'" in served.told("closed")


def test_endAmidAHandshakeMessage(both: Both) -> None:
    """Where OpenSSL writes no close_notify, FIN comes all the same."""
    with both.forging(untilQuit(), limits=Limits(idleTimeout=2)) as (served, peer, forged):
        peer.send(forged.record(HANDSHAKE, b"\x18\0\0\1"))
        served.rest()
        served.advance(4)
        assert peer.readAll() == b""
        assert peer.end == "FIN"
        peer.finish()
        served.gone()
        assert served.closed == {"idle": 1}


def test_keyUpdatesAfterOurEnd(both: Both) -> None:
    """C5: answers to KeyUpdates do not pile up behind a close_notify that cannot be sent yet."""
    with both.forging(buffers=4096) as (served, peer, forged):
        records = b"".join(forged.record(DATA, bytes(1000)) for _ in range(4000))
        sent = stuff(served, peer, records)
        size = len(records) // 4000
        connection = served.connection
        held = waiting(connection)
        connection.end(Reason.MAX_AGE)
        whole = -(-sent // size)
        forged._number = whole
        flood = b"".join(forged.keyUpdate() for _ in range(8_000))
        peer.send(records[sent : whole * size] + flood, reading=False)
        served.rest()
        assert connection.state is State.LINGERING
        assert waiting(connection) <= held + 1000
        echoed = peer.readAll()
        assert (set(echoed), peer.notified, peer.end) == ({0}, True, "FIN")
        peer.finish()
        served.gone()


def test_keyUpdatesThatNobodyReadsTheAnswersTo(both: Both) -> None:
    """C5: where reading goes on while our output is full, a flood of them is the end."""
    with both.forging((chargen, None), buffers=4096) as (served, peer, forged):
        served.rest()
        connection = served.connection
        assert waiting(connection) > 65536
        stuff(served, peer, b"".join(forged.keyUpdate() for _ in range(12_000)))
        assert waiting(connection) < HELD
        assert connection.reason is Reason.TLS
        peer.readAll()
        assert (peer.notified, peer.end) == (False, "FIN")
        peer.finish()
        served.gone()
        assert served.closed == {"tls": 1}


def test_manyKeyUpdatesWithAnswersRead(both: Both) -> None:
    """They are tedious, but legal: whoever reads the answers may go on, however many there were."""
    with both.forging() as (served, peer, forged):
        size = len(peer.wire)
        for _ in range(6):
            peer.send(b"".join(forged.keyUpdate() for _ in range(1000)))
            served.rest()
        peer.until(lambda: not peer.receive())
        # What would be too much, did it wait.
        assert len(peer.wire) - size > ANSWERS
        assert served.connection.state is State.OPEN
        peer.send(forged.record(DATA, b"hello"))
        assert peer.receiveExactly(5) == b"hello"


#: One more record of a flood.
FLOODS: dict[str, Callable[[Forged], bytes]] = {
    "keys": lambda forged: forged.keyUpdate(),
    "keys, no answers": lambda forged: forged.keyUpdate(answer=False),
    "keys and a byte": lambda forged: forged.keyUpdate() + forged.record(DATA, b"x"),
    "bytes": lambda forged: forged.record(DATA, b"x"),
    "keys between data": lambda forged: (
        forged.record(DATA, bytes(160)) + b"".join(forged.keyUpdate() for _ in range(8))
    ),
}


#: Those with some data in them.
HALF = ("keys between data",)


@pytest.mark.parametrize("unseen", [True, False], ids=["unseen", "shown"])
@pytest.mark.parametrize("flood", FLOODS)
def test_readsOfManyLittleRecords(both: Both, flood: str, unseen: bool) -> None:
    """C5: a record costs a turn some time, whatever is in it; so less is read, while little is."""
    protocol = (raw, RawOptions() if unseen else RawOptions(quit="never said"))
    with both.forging(protocol) as (served, peer, forged):
        transport: Any = served.connection.transport
        seen = Overseen(transport)

        def send(records: bytes) -> None:
            seen.reads.clear()
            peer.send(records)
            peer.until(lambda: sum(seen.reads) == len(records))

        def bulk() -> None:
            send(b"".join(forged.record(DATA, bytes(16_384)) for _ in range(60)))
            assert max(seen.reads) > transport._largestRead

        def fill() -> None:
            makes = FLOODS[flood]
            records = bytearray()
            while len(records) < 200_000:
                records += makes(forged)
            send(bytes(records))
            if flood not in HALF:
                assert transport._readSize == FIRST_READ

        fill()
        # No more than may be one long record.
        assert max(seen.reads) <= RECORD + OVERHEAD
        if flood in HALF:
            # A short read may be half data; the next ones are larger then.
            few = RECORD + OVERHEAD
        else:
            assert sum(size > FIRST_READ + OVERHEAD for size in seen.reads) <= 3
            few = FIRST_READ + OVERHEAD
        fill()
        assert max(seen.reads) <= few
        bulk()
        fill()
        # What it was that has come is known afterwards.
        assert max(seen.reads[2:]) <= few


@versions
@pytest.mark.parametrize("unseen", [True, False], ids=["unseen", "shown"])
@pytest.mark.parametrize("size", [64, 1000, 3000, 9000, 16_384])
def test_readsOfBulkGrow(both: Both, version: str, unseen: bool, size: int) -> None:
    """Where there is data in them, reads grow, by records longer than a read too."""
    protocol = (raw, RawOptions() if unseen else RawOptions(quit="never said"))
    with both.connected(version, protocol) as (served, peer):
        transport: Any = served.connection.transport
        seen = Overseen(transport)
        peer.send(peer.seal(bytes(600_000), size))
        peer.receiveExactly(600_000)
        assert max(seen.reads) == transport._largestRead + OVERHEAD
        assert len(seen.reads) < 100


def test_handshakesWaitInLine(both: Both) -> None:
    """A handshake is much to do, from its first byte to its last, whatever comes before it."""
    for version, header in (("1.2", b""), ("1.3", b""), ("1.3", HEADER)):
        with (
            both.serving(proxy=bool(header)) as served,
            both.peer(served, version) as peer,
        ):
            transport: Any = served.connection.transport
            assert transport.readsMuch
            if header:
                peer.send(header, reading=False)
                served.until(lambda: served.connection.transport.proxied is not None)
                assert transport.readsMuch
            peer.send(peer.hello(), reading=False)
            served.until(lambda: served.connection.transport.heard)
            served.rest()
            assert transport.opening
            assert transport.readsMuch
            peer.shakeHands()
            peer.ping()
            assert not transport.readsMuch


def test_keyUpdatesWaitInLine(both: Both) -> None:
    """So is what costs time for other reasons; a short message is little."""
    with both.forging() as (served, peer, forged):
        transport: Any = served.connection.transport
        peer.send(forged.record(DATA, b"x"))
        served.rest()
        assert not transport.readsMuch
        updates = b""
        while len(updates) < FIRST_READ // 2:
            updates += forged.keyUpdate(answer=False)
        peer.send(updates)
        served.rest()
        assert transport.readsMuch
        peer.send(forged.record(DATA, b"x"))
        served.rest()
        assert not transport.readsMuch


@pytest.mark.parametrize("padding", [0, 100])
def test_emptyRecords(both: Both, padding: int) -> None:
    """Some are nothing, a flood of them is the end; neither is data."""
    with both.forging() as (served, peer, forged):
        empty = b"".join(forged.record(DATA, b"", padding) for _ in range(20))
        peer.send(empty + forged.record(DATA, b"hello", padding))
        assert peer.receiveExactly(5) == b"hello"
        peer.send(b"".join(forged.record(DATA, b"", padding) for _ in range(5000)))
        peer.readAll()
        assert peer.end == "FIN"
        peer.finish()
        served.gone()
        assert served.closed == {"tls": 1}
        assert served.counters()["bytes_in"] == 5


def test_whateverComesAfterAHandshake(both: Both) -> None:
    """O4: records of every type, with anything in them, cost nobody but their sender."""
    rng = random.Random(4)
    contents = [
        b"",
        b"\0",
        b"\1\0",
        b"\2\x28",
        b"\1\x5a",
        b"\x18\0\0\1\1",
        b"\x18\0\0\1",
        b"\4\0\0\4",
    ]
    context = both.certificates.context("1.3")
    context.keylog_filename = str(both.keys)
    with both.serving() as served:
        for _ in range(150):
            with both.peer(served, context=context) as peer:
                peer.shakeHands()
                forged = Forged(peer, both.keys)
                for _ in range(rng.randrange(1, 8)):
                    content = rng.choice([*contents, rng.randbytes(rng.randrange(1, 40))])
                    kind = rng.choice([20, ALERT, HANDSHAKE, DATA, DATA, 24, 0])
                    record = forged.record(kind, content, rng.choice([0, 3]))
                    peer.send(record[: rng.choice([len(record)] * 9 + [len(record) // 2])])
                    if rng.random() < 0.5:
                        served.rest()
                served.rest()
                peer.receive()
        served.gone()
        assert sum(served.closed.values()) == 150
        assert set(served.closed) <= {"eof", "tls", "no_close_notify", "reset"}


def test_whateverIsNearlyAClientHello(both: Both) -> None:
    """O4, O5: a hello with some bytes of it wrong ends in words, or goes on; nothing is raised."""
    rng = random.Random(5)
    other = CertificateSettings(cert=both.certificates.other)
    with both.serving(tls={"names": {"a.example": other}}) as served:
        for _ in range(300):
            with both.peer(served, rng.choice(["1.2", "1.3"])) as peer:
                hello = bytearray(peer.hello())
                for _ in range(rng.randrange(1, 4)):
                    hello[rng.randrange(len(hello))] = rng.randrange(256)
                peer.send(
                    bytes(hello[: rng.choice([len(hello)] * 9 + [rng.randrange(len(hello))])])
                )
                served.turn()
                peer.receive()
        served.gone()
        assert sum(served.closed.values()) == 300
        assert set(served.closed) <= {"eof", "tls", "no_close_notify", "reset", "handshake"}


@pytest.mark.parametrize("name", [b"l\xffcalhost", b"\x1b[31mxxxx", b"l'calh\"st", b"local\nost"])
def test_strangeServerName(both: Both, name: bytes) -> None:
    """O5: a name in no alphabet is refused without a traceback; any other is escaped."""
    assert len(name) == len("localhost")
    with both.serving() as served, both.peer(served, "1.2") as peer:
        peer.send(peer.hello().replace(b"localhost", name))
        peer.until(lambda: peer.wire)
        served.rest()
        refused = ALERT in recordTypes(bytes(peer.wire))
        assert refused == (max(name) > 127)
        if refused:
            peer.readAll()
            peer.finish()
            served.gone()
            assert "failure='CALLBACK_FAILED'" in served.told("closed")
        assert all(line.isprintable() for line in served.lines)


def test_unraisableErrors(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """What strange names make Python say is dropped; all else is told, and no hook is exchanged."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    _silenceNames.cache_clear()

    class Ends:
        def __del__(self) -> None:
            b"\xff".decode("ascii")

    def greet(name: bytes) -> None:
        with both.peer(served, "1.2") as peer:
            peer.send(peer.hello().replace(b"localhost", name))
            peer.until(lambda: peer.wire)

    with both.serving() as served:
        hook = sys.unraisablehook
        assert served.security is not None
        greet(b"l\xffcalhost")
        assert told == []
        # The same error, and not of a handshake.
        Ends()
        assert len(told) == 1
        # Another thread, in the middle of one.
        seen: list[Any] = []

        def look() -> None:
            seen.append(sys.unraisablehook)
            Ends()

        def choose(*arguments: Any) -> None:
            other = threading.Thread(target=look)
            other.start()
            other.join()

        served.security._context.sni_callback = choose
        greet(b"localhost")
        assert seen == [hook]
        assert len(told) == 2
        # A plugin's, later: it is not taken away.
        monkeypatch.setattr(sys, "unraisablehook", plugins := told.append)
        greet(b"l\xffcalhost")
        assert sys.unraisablehook == plugins
    _silenceNames.cache_clear()


# -- Bounds ----------------------------------------------------------------------------------------


@versions
def test_neverReads(both: Both, version: str) -> None:
    """C5: what is held for a peer that never reads is bounded, and it is all there later."""
    data = noise(4_000_000)
    with both.connected(version, buffers=16_384) as (served, peer):
        records = peer.seal(data)
        sent = stuff(served, peer, records)
        transport: Any = served.connection.transport
        assert 65536 < waiting(served.connection) <= 3 * 65536
        assert len(transport._plain) <= 65536 + 16384
        assert served.connection.pauses == 1
        peer.send(records[sent:] + peer.closeNotify())
        assert peer.readAll() == data
        assert peer.notified
        served.gone()


@versions
def test_bytesPerSecond(both: Both, version: str) -> None:
    """A rate is of plain text; a record longer than a second's share is given in pieces."""
    data = noise(16_384)
    pieces: list[int] = []

    class Noting(Connection):
        def received(self, data: bytes) -> None:
            pieces.append(len(data))
            self.reply(data)

    protocol = (ConnectionMaker("noting", "", Noting), None)
    limits = Limits(bytesPerSecond=2000, idleTimeout=3)
    with both.connected(version, protocol, limits=limits) as (served, peer):
        peer.send(peer.seal(data) + peer.closeNotify())
        served.rest()
        assert sum(pieces) <= 4000
        served.advance(3)
        # Nobody who may not send is idle; and close_notify waits behind what was sent before it.
        assert served.connection.state is State.OPEN
        assert not served.connection._inputEnded
        served.advance(7)
        assert peer.readAll() == data
        assert max(pieces) <= 2000
        assert (peer.notified, peer.end) == (True, "FIN")
        served.gone()
        assert served.closed == {"eof": 1}


@versions
def test_listenerBytesPerSecond(both: Both, version: str) -> None:
    """What a whole record has too much waits, and is no debt of those who come after it."""
    limits = Limits(listenerBytesPerSecond=4000)
    with both.serving(limits=limits) as served:
        for _ in range(4):
            with both.peer(served, version) as peer:
                peer.shakeHands()
                peer.send(peer.seal(noise(16_384)), reading=False)
                served.rest()
                served.advance(0.1)
                peer.reset()
            served.rest()
        assert 3000 <= served.counters()["bytes_in"] <= 4000 + 4 * 400
        served.advance(0.5)
        with both.peer(served, version) as peer:
            peer.shakeHands()
            for _ in range(3):
                peer.send(peer.seal(b"x"), reading=False)
                served.advance(0.2)
                assert peer.receiveExactly(1) == b"x"


@versions
def test_maxBytes(both: Both, version: str) -> None:
    """The limit is exact, in plain text, wherever in a record it is."""
    for size in (1, 1000, 16_384, 16_385, 50_000):
        with both.connected(version, limits=Limits(maxBytes=size)) as (served, peer):
            peer.send(peer.seal(noise(60_000)))
            assert peer.readAll() == noise(60_000)[:size]
            assert (peer.notified, peer.end) == (True, "FIN")
            peer.finish()
            served.gone()
            assert served.closed == {"max_bytes": 1}
            counters = served.counters()
            assert (counters["bytes_in"], counters["discarded"]) == (size, 60_000 - size)


@versions
def test_deadlines(both: Both, version: str) -> None:
    """Each ends with close_notify and FIN: nothing was said, idle, old."""
    for limits, reason, speaks in (
        (Limits(firstByteTimeout=3), "first_byte", False),
        (Limits(idleTimeout=3), "idle", True),
        (Limits(maxAge=3), "max_age", True),
    ):
        with both.connected(version, limits=limits) as (served, peer):
            if speaks:
                peer.ping()
                # The client's kernel takes its time to say so.
                served.until(lambda: not served.connection.transport.unsent())
            served.advance(2)
            assert served.connection.state is State.OPEN
            served.advance(2.1)
            assert peer.readAll() == b""
            assert (peer.notified, peer.end) == (True, "FIN")
            peer.send(peer.closeNotify())
            served.gone()
            assert served.closed == {reason: 1}


def test_eviction(both: Both) -> None:
    """F11: who has not shaken hands for a while makes room; who talks does not."""
    with (
        both.serving(limits=Limits(maxConnections=2)) as served,
        both.peer(served) as talking,
        both.peer(served) as silent,
    ):
        talking.shakeHands()
        served.until(lambda: len(served.connections) == 2)
        served.advance(1.5)
        talking.ping()
        with both.peer(served) as third:
            third.shakeHands()
            third.ping()
            silent.readAll()
            assert silent.end == "FIN"
            # It is deaf by now: whatever it sends is no handshake.
            silent.send(silent.hello())
            silent.finish()
            served.until(lambda: served.closed == {"evicted": 1})
            talking.ping()
            with both.peer(served) as fourth:
                # There is no room, and it is told at once.
                fourth.readAll()
                assert fourth.end == "FIN"
            assert served.counters()["refused"] == {"full": 1}
            assert served.counters()["open"] == 2


def test_limitsOfSources(both: Both) -> None:
    """Each is outermost, before a byte of TLS."""
    for limits, why in (
        (Limits(maxPerSource=1), "source_full"),
        (Limits(newPerSecond=1), "source_rate"),
        (Limits(deny=["127.0.0.0/8"]), "denied"),
    ):
        with both.serving(limits=limits) as served, both.peer(served) as first:
            if why != "denied":
                first.shakeHands()
                first.ping()
                with both.peer(served) as second:
                    second.readAll()
                    assert second.end == "FIN"
                    assert not second.wire
            else:
                first.readAll()
                assert first.end == "FIN"
            assert served.counters()["refused"] == {why: 1}


def test_sessionsCostNothingWithTLS13(both: Both) -> None:
    """No handshake leaves anything behind: with TLS 1.3 the server remembers nobody."""
    with both.serving() as served:
        assert served.security is not None
        for _ in range(20):
            with both.peer(served, "1.3") as peer:
                peer.shakeHands()
                peer.send(peer.closeNotify())
                peer.readAll()
        assert served.security._context.session_stats()["number"] == 0


# -- The daemon's end ------------------------------------------------------------------------------


def draining(served: Served) -> Any:
    """Begin the drain; fires when nobody is left."""
    return served.listener.stopService()


@versions
def test_drainOfAnIdleOne(both: Both, version: str) -> None:
    """O1: close_notify and FIN at once."""
    with both.connected(version) as (served, peer):
        peer.ping()
        drained = draining(served)
        assert peer.readAll() == b""
        assert (peer.notified, peer.end) == (True, "FIN")
        peer.send(peer.closeNotify())
        served.gone()
        assert drained.called
        assert served.closed == {"drain": 1}


def test_drainOfASilentOne(both: Both) -> None:
    """O1: who has said nothing yet is not waited for; a hello on its way is too late."""
    with both.serving() as served, both.peer(served) as peer:
        assert served.connection.state is State.OPENING
        draining(served)
        peer.readAll()
        assert (peer.end, bytes(peer.wire)) == ("FIN", b"")
        # It is deaf by now.
        peer.send(peer.hello() + b"garbage" * 100)
        peer.finish()
        served.gone()
        assert served.closed == {"drain": 1}
        assert served.told("closed").endswith(" reason=drain end=fin")


def test_drainAmidAHandshake(both: Both) -> None:
    """O1: who has begun may end it, and what comes with its last flight is answered."""
    with both.serving() as served, both.peer(served, "1.3") as peer:
        peer.send(peer.hello())
        peer.until(lambda: peer.wire)
        served.rest()
        while peer.receive():
            pass
        draining(served)
        served.rest()
        peer.tls.do_handshake()
        peer._open = True
        peer.send(peer._pump.records() + peer.seal(b"hello"))
        assert peer.readAll() == b"hello"
        assert (peer.notified, peer.end) == (True, "FIN")
        peer.send(peer.closeNotify())
        served.gone()
        assert served.closed == {"drain": 1}


def test_drainBeforeTheHelloIsRead(both: Both) -> None:
    """O1: what is with the kernel counts as said."""
    with both.serving() as served, both.peer(served, "1.3") as peer:
        connection = served.connection
        peer.send(peer.hello())
        while not connection.transport.unread():
            pass
        draining(served)
        assert connection.state is State.OPENING
        peer.shakeHands()
        assert peer.readAll() == b""
        assert (peer.notified, peer.end) == (True, "FIN")
        peer.send(peer.closeNotify())
        served.gone()


def test_drainOfAHandshakeThatStops(both: Both) -> None:
    """O1, L3: it has the deadline that it had anyhow."""
    with both.serving(limits=Limits(handshakeTimeout=3)) as served, both.peer(served) as peer:
        peer.send(peer.hello()[:50])
        served.rest()
        served.advance(1)
        draining(served)
        served.rest()
        assert served.connection.state is State.OPENING
        served.advance(3)
        served.gone()
        assert served.closed == {"handshake": 1}


@versions
def test_drainInARecord(both: Both, version: str) -> None:
    """O1: a record of which the beginning has been read, and the end is with the kernel, counts."""
    for cut in (1, 5, 8000, 16_000, 16_383):
        checkDrain(both, version, cut)


def checkDrain(both: Both, version: str, cut: int) -> None:
    data = noise(16_384)
    with both.connected(version) as (served, peer):
        peer.ping()
        connection = served.connection
        record = peer.seal(data)
        peer.send(record[:cut])
        served.rest()
        peer.send(record[cut:])
        while connection.transport.unread() < len(record) - cut:
            pass
        draining(served)
        assert peer.readAll() == data
        assert (peer.notified, peer.end) == (True, "FIN")
        peer.send(peer.closeNotify())
        served.gone()
        assert served.closed == {"drain": 1}
        assert served.counters()["discarded"] == 0


@versions
def test_drainAnswersNothingLater(both: Both, version: str) -> None:
    """O1: what the kernel held is answered, what comes after is not; it is counted."""
    with both.connected(version) as (served, peer):
        peer.ping()
        connection = served.connection
        peer.send(peer.seal(b"before"))
        while not connection.transport.unread():
            pass
        draining(served)
        peer.send(peer.seal(b"after"), reading=False)
        assert peer.readAll() == b"before"
        assert (peer.notified, peer.end) == (True, "FIN")
        peer.send(peer.closeNotify())
        served.gone()
        assert served.closed == {"drain": 1}
        assert connection.discarded == 5


@versions
def test_drainOfARecordThatNeverEnds(both: Both, version: str) -> None:
    """O1: a beginning alone cannot be answered, and is not waited for."""
    with both.connected(version) as (served, peer):
        peer.send(peer.seal(b"whole") + peer.seal(bytes(1000))[:-1])
        assert peer.receiveExactly(5) == b"whole"
        draining(served)
        assert peer.readAll() == b""
        assert (peer.notified, peer.end) == (True, "FIN")
        peer.finish()
        served.gone()
        assert served.closed == {"drain": 1}


@versions
def test_drainOfABrokenOne(both: Both, version: str) -> None:
    """O1, C2: what breaks TLS in the queue does not look like the peer's end; FIN, and no RST."""
    with both.connected(version) as (served, peer):
        connection = served.connection
        garbage = b"garbage, in the middle of it all" * 300
        peer.send(garbage, reading=False)
        while connection.transport.unread() < len(garbage):
            pass
        draining(served)
        served.rest()
        assert connection.state is State.LINGERING
        peer.send(garbage, reading=False)
        served.rest()
        peer.readAll()
        assert (peer.end, peer.notified) == ("FIN", False)
        assert "ALERT" in peer.alert
        assert connection.state is State.LINGERING
        peer.finish()
        served.gone()
        assert served.closed == {"drain": 1}


@versions
def test_drainOfAStalledOne(both: Both, version: str) -> None:
    """O1, C5: whatever the kernel held comes back, at the pace of the peer's reading."""
    data = noise(4_000_000)
    with both.connected(version, buffers=16_384) as (served, peer):
        sent = stuff(served, peer, peer.seal(data, 1000))
        connection = served.connection
        queued = connection.transport.unread()
        before = connection.bytesIn
        draining(served)
        assert connection.state is State.DRAINING
        echoed = peer.readAll()
        assert data.startswith(echoed)
        assert before + queued - 65536 < len(echoed) < sent
        assert (peer.notified, peer.end) == (True, "FIN")
        peer.finish()
        served.gone()
        assert served.closed == {"drain": 1}
        assert served.counters()["cut"] == 0


@versions
def test_drainOfOneThatNeverReads(both: Both, version: str) -> None:
    """O1: the drain's deadline ends it, and it is counted as cut."""
    with both.connected(version, buffers=16_384) as (served, peer):
        stuff(served, peer, peer.seal(bytes(4_000_000)))
        drained = draining(served)
        served.rest()
        assert not drained.called
        served.listener.cut()
        served.gone()
        assert drained.called
        assert served.closed == {"drain": 1}
        assert served.counters()["cut"] == 1


@versions
def test_drainOfPlainTextThatWaits(both: Both, version: str) -> None:
    """O1: what had been decrypted before the drain, and rested for a rate, is answered too."""
    data = noise(16_384)
    limits = Limits(bytesPerSecond=1000)
    with both.connected(version, limits=limits) as (served, peer):
        peer.send(peer.seal(data))
        served.rest()
        assert served.connection.bytesIn <= 2000
        draining(served)
        assert peer.readAll() == data
        assert (peer.notified, peer.end) == (True, "FIN")
        peer.send(peer.closeNotify())
        served.gone()
        assert served.closed == {"drain": 1}


@versions
def test_drainOfOneThatHasFinished(both: Both, version: str) -> None:
    """O1: close_notify that has been read, and waits behind held input, is no loss."""
    limits = Limits(bytesPerSecond=1000)
    data = noise(5000)
    with both.connected(version, limits=limits) as (served, peer):
        peer.send(peer.seal(data) + peer.closeNotify())
        served.rest()
        transport: Any = served.connection.transport
        draining(served)
        assert peer.readAll() == data
        # The kernel may take its time to acknowledge the last of it, whatever the loop's time is.
        served.until(lambda: not transport.connected or not transport.unsent(), "the last ACK")
        served.gone()
        assert served.closed == {"drain": 1}


# -- Within a callback -----------------------------------------------------------------------------


class Acting(Connection):
    """Does something with each read, in the middle of it."""

    act: ClassVar[Callable[[Acting, bytes], None]]

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def received(self, data: bytes) -> None:
        self.calls.append(data)
        type(self).act(self, data)

    def inputFinished(self) -> None:
        self.calls.append("EOF")

    def ended(self) -> None:
        self.calls.append("ended")

    def lost(self, reason: Failure) -> None:
        self.calls.append(type(reason.value).__name__)


def acting(act: Callable[[Acting, bytes], None], largest: int = 65536) -> tuple[Any, None]:
    kind = type("Acts", (Acting,), {"act": act, "largestRead": largest})
    return ConnectionMaker("acting", "", kind), None


def heard(connection: Any) -> bytes:
    return b"".join(call for call in connection.calls if isinstance(call, bytes))


@versions
def test_endsInACallback(both: Both, version: str) -> None:
    """What has been decrypted besides is thrown away, as if it were still in the kernel."""

    def act(self: Acting, data: bytes) -> None:
        self.reply(data)
        self.end(Reason.QUIT)

    with both.connected(version, acting(act, 1000)) as (served, peer):
        connection: Any = served.connection
        peer.send(peer.seal(noise(16_384)) + peer.closeNotify())
        assert peer.readAll() == noise(16_384)[:1000]
        assert (peer.notified, peer.end) == (True, "FIN")
        served.gone()
        assert connection.calls[1:] == ["ended", "ConnectionDone"]
        assert connection.discarded == 15_384


@versions
def test_abortsInACallback(both: Both, version: str) -> None:
    """RST, no close_notify, and no more callbacks but the last."""

    def act(self: Acting, data: bytes) -> None:
        self.reply(data)
        self.abort(Reason.QUIT)

    with both.connected(version, acting(act, 1000)) as (served, peer):
        connection: Any = served.connection
        peer.send(peer.seal(noise(16_384)) + peer.closeNotify())
        peer.readAll()
        assert (peer.notified, peer.end) == (False, "RST")
        served.gone()
        assert connection.calls[1:] == ["ConnectionAborted"]
        assert heard(connection) == noise(16_384)[:1000]


@versions
def test_raisesInACallback(both: Both, version: str, loggedErrors: LoggedErrors) -> None:
    """O4: it costs this connection, one traceback, and nothing else."""

    def act(self: Acting, data: bytes) -> None:
        raise ZeroDivisionError("by the protocol")

    with both.connected(version, acting(act, 1000)) as (served, peer):
        connection: Any = served.connection
        peer.send(peer.seal(bytes(16_384)))
        peer.readAll()
        assert peer.end == "RST"
        served.gone()
        assert served.closed == {"error": 1}
        assert len(heard(connection)) == 1000
        assert len(loggedErrors.flush()) == 1


@versions
def test_pausesInACallback(both: Both, version: str) -> None:
    """Each byte once, in order, however it pauses and resumes; EOF behind them all."""
    rng = random.Random(3)
    later: list[Connection] = []

    def act(self: Acting, data: bytes) -> None:
        for _ in range(rng.randrange(4)):
            rng.choice([self.holdInput, self.releaseInput])()
        if self._paused:
            later.append(self)

    data = noise(300_000)
    with both.connected(version, acting(act, 700)) as (served, peer):
        connection: Any = served.connection
        peer.send(peer.seal(data, 5000) + peer.closeNotify(), reading=False)
        for _ in range(20_000):
            if "EOF" in connection.calls:
                break
            served.turn()
            if later and rng.random() < 0.5:
                later.pop().releaseInput()
        assert heard(connection) == data
        assert connection.calls[-2:] == ["EOF", "ConnectionDone"]
        assert max(len(call) for call in connection.calls[:-2]) <= 700
        peer.readAll()
        assert peer.notified
        served.gone()


@versions
def test_holdsAsItEnds(both: Both, version: str) -> None:
    """EOF is not told while input is held, however it came, and whatever came before it."""
    for largest in (65536, 1000):
        for notify in (True, False):
            data = noise(16_384)

            def act(self: Acting, piece: bytes, whole: int = len(data)) -> None:
                if len(heard(self)) == whole:
                    self.holdInput()

            with both.connected(version, acting(act, largest)) as (served, peer):
                connection: Any = served.connection
                peer.send(peer.seal(data) + (peer.closeNotify() if notify else b""))
                served.rest()
                peer.finish()
                served.rest()
                assert heard(connection) == data
                assert "EOF" not in connection.calls
                connection.releaseInput()
                served.gone()
                assert "EOF" in connection.calls
                assert served.closed == {"eof" if notify else "no_close_notify": 1}


def test_holdsAsItBegins(both: Both) -> None:
    """Bytes behind the handshake wait for a protocol that will not have them yet."""

    class Later(Acting):
        act = lambda self, data: None  # noqa: E731  # nothing

        def begun(self) -> None:
            self.holdInput()

    with (
        both.serving((ConnectionMaker("later", "", Later), None)) as served,
        both.peer(served, "1.3") as peer,
    ):
        peer.send(peer.hello())
        served.rest()
        while peer.receive():
            pass
        peer.tls.do_handshake()
        peer.send(peer._pump.records() + peer.seal(b"hello"))
        served.rest()
        connection: Any = served.connection
        assert (connection.state, connection.calls) == (State.OPEN, [])
        connection.releaseInput()
        served.until(lambda: connection.calls == [b"hello"])


@versions
def test_onePieceATurn(both: Both, version: str) -> None:
    """Little that is asked for at a time is little held: a turn for each piece, and no reading."""
    turns: list[int] = []

    def act(self: Acting, data: bytes) -> None:
        turns[-1] += 1
        self.holdInput()
        self.releaseInput()

    with both.connected(version, acting(act, 100)) as (served, peer):
        connection: Any = served.connection
        records = peer.seal(bytes(200_000))
        most = 0
        while len(heard(connection)) < 200_000:
            with suppress(BlockingIOError):
                records = records[peer.socket.send(records) :]
            turns.append(0)
            served.loop.turn()
            most = max(most, len(connection.transport._plain))
        # A read and what it completes; and the rest of an earlier one.
        assert max(turns) <= 2
        assert most <= 2 * 16_384


@versions
def test_endsWhilePlainTextWaits(both: Both, version: str) -> None:
    """A hold, then an end from outside: nothing is stuck, and nothing is delivered after it."""
    with both.connected(version, acting(lambda self, data: self.holdInput(), 1000)) as (
        served,
        peer,
    ):
        connection: Any = served.connection
        peer.send(peer.seal(noise(16_384)) + peer.closeNotify())
        served.rest()
        assert heard(connection) == noise(16_384)[:1000]
        connection.end(Reason.QUIT)
        peer.readAll()
        assert (peer.notified, peer.end) == (True, "FIN")
        served.gone()
        assert connection.discarded == 15_384
        assert connection.calls[1:] == ["ended", "ConnectionDone"]


@versions
def test_abortWhilePlainTextWaits(both: Both, version: str) -> None:
    """A turn that is on its way finds nobody any more."""
    with both.connected(version, acting(lambda self, data: None, 1000)) as (served, peer):
        connection: Any = served.connection
        peer.send(peer.seal(noise(16_384)))
        served.until(lambda: connection.calls)
        assert connection.transport._plain
        connection.abort(Reason.QUIT)
        served.gone()
        served.rest()
        assert len(heard(connection)) <= 2000
        assert connection.calls[-1] == "ConnectionAborted"


@versions
def test_resetWhilePlainTextWaits(both: Both, version: str) -> None:
    """Also where nothing is read at the moment."""
    with both.connected(version, acting(lambda self, data: self.holdInput(), 1000)) as (
        served,
        peer,
    ):
        connection: Any = served.connection
        peer.send(peer.seal(noise(16_384)))
        served.rest()
        peer.reset()
        served.advance(1.5)
        served.gone()
        assert served.closed == {"reset": 1}
        assert len(heard(connection)) == 1000


@pytest.mark.parametrize("what", ["end", "abort", "raise"])
def test_endsAsItBegins(both: Both, what: str, loggedErrors: LoggedErrors) -> None:
    """A protocol that ends in the moment of the handshake: bytes behind that are nobody's."""

    class AtOnce(Connection):
        def begun(self) -> None:
            if what == "raise":
                raise ZeroDivisionError("by the protocol")
            self.reply(b"no")
            self.end(Reason.QUIT) if what == "end" else self.abort(Reason.QUIT)

        def received(self, data: bytes) -> None:
            raise AssertionError("after the end")

    with (
        both.serving((ConnectionMaker("at-once", "", AtOnce), None)) as served,
        both.peer(served, "1.3") as peer,
    ):
        peer.send(peer.hello())
        served.rest()
        while peer.receive():
            pass
        peer.tls.do_handshake()
        peer._open = True
        peer.send(peer._pump.records() + peer.seal(b"hello") + peer.closeNotify())
        said = peer.readAll()
        if what == "end":
            assert (said, peer.notified, peer.end) == (b"no", True, "FIN")
        else:
            assert peer.end == "RST"
        served.gone()
        assert served.closed == ({"error": 1} if what == "raise" else {"quit": 1})
        assert len(loggedErrors.flush()) == (what == "raise")


def test_itIsTLSAlready(both: Both) -> None:
    """There is no second TLS on a connection, and nothing is written before the first is there."""
    with both.serving() as served, both.peer(served) as peer:
        transport: Any = served.connection.transport
        with pytest.raises(RuntimeError, match="TLS already"):
            transport.startTLS(None)
        with pytest.raises(RuntimeError, match="before the handshake is done"):
            transport.write(b"plain text")
        assert (transport.tls, transport.negotiatedProtocol) == (None, None)
        peer.shakeHands()
        peer.ping()
        assert b"plain text" not in peer.wire
