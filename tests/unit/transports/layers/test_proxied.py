"""
PROXY headers on streams: a real listener, its turns and its time one's own, and proxies before it.

Over TCP and UNIX sockets, before TLS, and in memory where there are thousands of them.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import select
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from echod.config.endpoints import TCPEndpoint, UNIXEndpoint
from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.states import Reason, State
from echod.connection.sweep import TICK, Sweep
from echod.errors import MalformedHeader
from echod.kit.makers import ConnectionMaker, FactoryMaker, StreamMaker
from echod.kit.stream import Stream
from echod.protocols.chargen import chargen
from echod.protocols.raw import RawOptions, raw
from echod.protocols.whoami import whoami
from echod.server.listener import ListenerPlan
from echod.server.stream_listener import StreamListener
from echod.testing import PlainContext, memoryLink
from echod.testing.tls_socket import TLSSocket
from echod.transports.facade import Facade
from echod.transports.layers import ProxyLayer, TLSLayer
from echod.wire.networks import Networks
from echod.wire.proxy_header import parseHeader
from tests.certificates import Certificates
from tests.unit.outer import Outer, reset, waitUntil
from tests.unit.proxyheaders import (
    ALPN,
    ASKED,
    AUTHORITY,
    CLIENT,
    LOCAL,
    NOOP,
    SIGNATURE,
    UNIQUE_ID,
    UNIX,
    formatTLS,
    formatTLV,
    formatV1,
    formatV2,
)
from tests.unit.wire.test_proxy_header import (
    REFUSED_BINARY,
    REFUSED_EARLY,
    REFUSED_LATE,
    REFUSED_TLS,
    REFUSED_VALUES,
    VALID,
    mutated,
)

V1 = formatV1(CLIENT, ASKED)
V2 = formatV2(CLIENT, ASKED, [formatTLV(AUTHORITY, b"echo.example")], checksum=1)
HEADERS = {"v1": V1, "v2": V2}

#: What a header may stand before.
KINDS = ["tcp", "unix", "tls"]
#: Turns without an end are a fault.
SPINS = 20_000


class Client:
    """
    A proxy's end of a connection; whatever waits for the listener has it take its turns.

    :ivar raw: the socket.
    """

    def __init__(self, served: Served, skt: socket.socket) -> None:
        self.raw = skt
        self._served = served
        self._skt: Any = skt
        skt.setblocking(False)

    def send(self, data: bytes) -> None:
        """Send all."""
        view = memoryview(data)
        while view:
            with suppress(BlockingIOError):
                view = view[self._skt.send(bytes(view)) :]
                continue
            self._served.outer.turn(0.005)

    def read(self, limit: int = 65536) -> bytes | None:
        """What has come: ``b""`` at FIN, ``None`` if there is nothing."""
        try:
            return bytes(self._skt.recv(limit))
        except BlockingIOError:
            return None

    def expect(self, data: bytes) -> None:
        """Have this, and nothing before it."""
        got = b""

        def complete() -> bool:
            nonlocal got
            piece = self.read(len(data) - len(got))
            assert piece != b"", f"EOF after {got!r}"
            got += piece or b""
            return len(got) == len(data)

        waitUntil(self._served.outer.turn, complete)
        assert got == data

    def readAll(self) -> bytes:
        """Read to FIN."""
        pieces: list[bytes] = []

        def ended() -> bool:
            piece = self.read()
            pieces.append(piece or b"")
            return piece == b""

        waitUntil(self._served.outer.turn, ended)
        return b"".join(pieces)

    def readSome(self) -> bytes:
        """Read what comes first: ``b""`` at FIN."""
        got: list[bytes | None] = [None]

        def came() -> bool:
            got[0] = self.read()
            return got[0] is not None

        waitUntil(self._served.outer.turn, came)
        return got[0] or b""

    def secure(self, first: bytes = b"") -> None:
        """Do TLS from here on, its first bytes in one segment with ``first``."""
        before = _Before(self.raw, first)
        self._skt = TLSSocket(before, self._served.context)  # type: ignore[arg-type]  # what it needs of one
        waitUntil(self._served.outer.turn, self._skt.shakeHands)

    def finish(self) -> None:
        """Send FIN, after close_notify where there is TLS."""
        self._skt.shutdown(socket.SHUT_WR)

    def isReset(self) -> bool:
        """Whether the next that comes is RST; over a UNIX socket, where there is none, EOF."""
        try:
            return self.readAll() == b"" and self.raw.family == socket.AF_UNIX
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.raw.close()


class _Before:
    """A socket whose first segment begins with something."""

    def __init__(self, skt: socket.socket, first: bytes) -> None:
        self._skt = skt
        self._first = first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._skt, name)

    def send(self, data: bytes) -> int:
        first, self._first = self._first, b""
        return self._skt.send(first + data) - len(first)


class Served:
    """
    A listener on the poller that it has in a daemon.

    :ivar log: what it has logged.
    """

    def __init__(
        self, listener: StreamListener, outer: Outer, kind: str, context: ssl.SSLContext | None
    ) -> None:
        self.listener = listener
        self.outer = outer
        self.kind = kind
        self._context = context
        self.clients: list[Client] = []
        self._events: Sequence[Any] = []

    @property
    def context(self) -> ssl.SSLContext:
        assert self._context is not None
        return self._context

    @property
    def counters(self) -> dict[str, Any]:
        return self.listener.counters()

    @property
    def log(self) -> list[str]:
        return [str(formatEvent(event)) for event in self._events]

    def connect(self, sender: str = "") -> Client:
        """
        A connection.

        :param sender: the address that it comes from, if not the usual one.
        """
        host = self.listener.getHost()
        if self.kind == "unix":
            skt = socket.socket(socket.AF_UNIX)
            skt.connect(host.name)
        else:
            there = "::1" if ":" in sender else "127.0.0.1"
            source = (sender, 0) if sender else None
            skt = socket.create_connection((there, host.port), 20, source)
            skt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = Client(self, skt)
        self.clients.append(client)
        return client

    def open(self, header: bytes, data: bytes = b"x", sender: str = "") -> Client:
        """A connection that has had its ``data`` back, after a header."""
        client = self.connect(sender)
        client.send(header)
        if self.kind == "tls":
            client.secure()
        client.send(data)
        client.expect(data)
        return client

    def settle(self) -> int:
        """Turns until the kernel has no more for us; how many those were."""
        # What is sent to a UNIX socket is there.
        wait = 0.0 if self.kind == "unix" else 0.002
        for number in range(SPINS):
            if not self.outer.turn(wait):
                return number
        raise AssertionError("it spins")

    def until(self, **wanted: Any) -> dict[str, Any]:
        """Turns, and where they bring nothing ticks, until the counters are so; all of them."""

        def reached() -> bool:
            counters = self.counters
            return all(counters[name] == value for name, value in wanted.items())

        def turn(wait: float) -> None:
            if not self.outer.turn(wait):
                self.outer.advance(TICK)

        waitUntil(turn, reached)
        return self.counters

    def advance(self, seconds: float) -> None:
        """Let time pass, tick by tick."""
        for _ in range(round(seconds / TICK)):
            self.outer.advance(TICK)
            self.outer.rest()
        self.settle()


@contextmanager
def serving(
    kind: str = "tcp",
    limits: Limits | None = None,
    *,
    certificates: Certificates | None = None,
    proxies: tuple[str, ...] = ("127.0.0.1", "::1"),
    host: str = "127.0.0.1",
    maker: Any = raw,
    logs: bool = False,
) -> Iterator[Served]:
    """
    A listener until the block ends; nothing of it must be left then.

    :param kind: ``tcp``, ``unix`` or ``tls``.
    :param proxies: the networks that they are in; none for a listener without headers.
    """
    endpoint: Any = TCPEndpoint(host, 0)
    if kind == "unix":
        # A name that the kernel chooses, in no file system.
        with socket.socket(socket.AF_UNIX) as unused:
            unused.bind("")
            endpoint = UNIXEndpoint("@" + unused.getsockname()[1:].decode())
    security, context = None, None
    if kind == "tls":
        assert certificates is not None
        security, context = certificates.security("1.3")
    plan = ListenerPlan(
        place="here",
        maker=maker,
        endpoint=endpoint,
        limits=limits or Limits(),
        options=maker.options and maker.options(),
        layers=[
            *([ProxyLayer(Networks(proxies, ()))] if proxies else []),
            *([] if security is None else [TLSLayer(security)]),
        ],
    )
    outer = Outer()
    reactor = Facade(outer)
    sweep = Sweep(reactor, outer.seconds)
    listener = StreamListener(plan, reactor, sweep, PlainContext())
    listener.setLogging(logs, False)
    sweep.start()
    listener.privilegedStartService()
    served = Served(listener, outer, kind, context)
    try:
        with capturedLogs() as served._events:
            yield served
            for client in served.clients:
                client.close()
            counters = served.until(open=0)
            # Whatever came in has gone, once, and has left nothing.
            assert counters["accepted"] == sum(counters["closed"].values())
            limit = listener._live.admission
            assert not limit.open
            assert not limit.lingering
            assert not listener._sources._open
            assert not sweep._hurried
            assert set(sweep._shardOf) <= {listener._refusals}
    finally:
        for client in served.clients:
            client.close()
        listener.cut()
        listener.abandon()
        served.settle()
        sweep.stop()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[name for name in KINDS if name != "tls"])
def plain(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- Headers in pieces -------------------------------------------------------------------------


@pytest.mark.parametrize("version", HEADERS)
def test_everySplit(kind: str, version: str, certificates: Certificates) -> None:
    """P2, P5: wherever a header is cut, it is taken off, and what follows comes back."""
    header = HEADERS[version]
    with serving(kind, certificates=certificates) as served:
        for at in range(1, len(header)):
            client = served.connect()
            client.send(header[:at])
            served.settle()
            assert client.read() is None
            if kind == "tls":
                client.send(header[at:])
                client.secure()
                client.send(b"hello")
            else:
                # With the last byte of the header comes payload.
                client.send(header[at:] + b"hello")
            client.expect(b"hello")
            client.finish()
            assert client.readAll() == b""
            client.close()
        counters = served.until(open=0)
        assert counters["closed"] == {"eof": len(header) - 1}
        assert counters["bytes_in"] == 5 * (len(header) - 1)


def test_byteByByte(kind: str, certificates: Certificates) -> None:
    """P2: one byte at a time; each costs one turn, and nothing is answered before the last."""
    with serving(kind, certificates=certificates) as served:
        for header in VALID.values():
            client = served.connect()
            served.settle()
            before = served.outer.served
            for at in range(len(header)):
                client.send(header[at : at + 1])
                served.outer.turn(1.0)
            # No turn is needed twice, and none finds nothing.
            assert served.outer.served - before <= len(header)
            served.settle()
            assert client.read() is None
            if kind == "tls":
                client.secure()
            for at in range(5):
                client.send(b"hello"[at : at + 1])
            client.expect(b"hello")
            client.close()
        served.until(open=0)


def test_atOnce(plain: str) -> None:
    """A header that comes at once costs one turn, however long it is."""
    with serving(plain) as served:
        for header in VALID.values():
            client = served.connect()
            served.settle()
            before = served.outer.served
            client.send(header)
            served.settle()
            assert served.outer.served - before == 1
            client.send(b"x")
            client.expect(b"x")


def test_nothingBeforeTheHeader(plain: str) -> None:
    """P2: a protocol that speaks first waits for the header, and speaks without data."""
    with serving(plain, maker=whoami) as served:
        client = served.connect()
        served.settle()
        client.send(V2[:-1])
        served.settle()
        assert client.read() is None
        client.send(V2[-1:])
        assert json.loads(client.readAll())["peer"] == "192.0.2.7:40000"
    with serving(plain, maker=chargen) as served:
        client = served.connect()
        client.send(V1)
        client.expect(b" !\"#$%&'()")


#: Nothing, and how headers begin.
CUT = [b"", b"P", b"\r", V1[:5], V1[:-1], V2[:12], V2[:16], V2[:-1], VALID["the longest"][:-1]]


def test_incomplete(kind: str, certificates: Certificates) -> None:
    """P2: a header that is not whole within ``handshake_timeout`` is waited for idly, then cut."""
    with serving(kind, Limits(handshakeTimeout=3), certificates=certificates) as served:
        for cut in CUT:
            served.connect().send(cut)
        served.until(open=len(CUT))
        served.settle()
        turns = served.outer.served
        served.advance(2.8)
        assert served.counters["open"] == len(CUT)
        # There is nothing to do, and nobody is told that there were (no spin).
        assert served.outer.served == turns
        assert [client.read() for client in served.clients] == [None] * len(CUT)
        served.advance(1.3)
        assert served.counters["closed"] == {"handshake": len(CUT)}
        served.advance(1)
        # Each of them in one line, within two at most.
        assert all("refused" in line and " handshake=" in line for line in served.log)
        assert 1 <= len(served.log) <= 2
        assert all(client.isReset() for client in served.clients)


def test_dripIsNoProgress(kind: str, certificates: Certificates) -> None:
    """P2, F6: the deadline is the header's, however many bytes of it come meanwhile."""
    with serving(kind, Limits(handshakeTimeout=3), certificates=certificates) as served:
        client = served.connect()
        with suppress(ConnectionResetError, BrokenPipeError):
            for at in range(41):
                client.send(V2[at : at + 1])
                served.advance(TICK)
        assert served.counters["closed"] == {"handshake": 1}


def test_deadlineEndsWithTheHeader(plain: str) -> None:
    """Once the header is there, ``handshake_timeout`` is nobody's; other deadlines begin."""
    with serving(plain, Limits(handshakeTimeout=3, idleTimeout=5)) as served:
        client = served.connect()
        served.settle()
        served.advance(2)
        client.send(V1)
        served.advance(4)
        assert served.counters["open"] == 1
        client.send(b"x")
        client.expect(b"x")
        served.advance(6)
        assert client.readAll() == b""
        client.close()
        assert served.until(open=0)["closed"] == {"idle": 1}


@pytest.mark.parametrize("version", HEADERS)
def test_headerAndHello(version: str, certificates: Certificates) -> None:
    """P5, P6: a header and the ClientHello in one segment; both versions of TLS."""
    with serving("tls", certificates=certificates) as served:
        for tls in ("1.2", "1.3"):
            served._context = certificates.context(tls)
            client = served.connect()
            client.secure(HEADERS[version])
            client.send(b"hello")
            client.expect(b"hello")
            client.finish()
            assert client.readAll() == b""
            client.close()
        assert served.until(open=0)["closed"] == {"eof": 2}


def test_headerWithinTLS(certificates: Certificates) -> None:
    """P5: before TLS is where it belongs; TLS without one, and one after it, are none."""
    with serving("tls", certificates=certificates) as served:
        client = served.connect()
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))
        assert client.readAll() == b""
        client.close()
        assert served.until(open=0)["closed"] == {"header": 1}
        client = served.open(V1, V2 + b"x")
        client.close()


@pytest.mark.parametrize("size", [0, 1, 5, 65536, 65537, 3_000_000])
def test_oneSegment(plain: str, size: int) -> None:
    """P6, E1: header, data and FIN at once; every byte comes back, then FIN."""
    data = random.Random(size).randbytes(size)
    with serving(plain) as served:
        for number in range(40 if size < 65536 else 2):
            client = served.connect()
            rest = (V1, V2)[number % 2] + data
            if size <= 5:
                # All of it is there before anybody looks.
                _sendAndFinish(client.raw, rest)
                assert client.readAll() == data
            else:
                sender = threading.Thread(target=_sendAndFinish, args=(client.raw, rest))
                sender.start()
                assert client.readAll() == data
                sender.join()
            client.close()
        counters = served.until(open=0)
        assert set(counters["closed"]) == {"eof"}
        assert counters["resets"] == counters["aborted"] == 0


def _sendAndFinish(skt: socket.socket, data: bytes) -> None:
    """Send all, FIN with the last bytes and not after them."""
    view = memoryview(data)
    while view:
        try:
            view = view[skt.send(view, socket.MSG_MORE) :]
        except BlockingIOError:
            select.select([], [skt], [])
    skt.shutdown(socket.SHUT_WR)


# -- Who the client is ---------------------------------------------------------------------------


def told(served: Served, header: bytes, sender: str = "") -> dict[str, Any]:
    """What ``whoami`` says behind a header."""
    client = served.connect(sender)
    client.send(header)
    if served.kind == "tls":
        client.secure()
    facts: dict[str, Any] = json.loads(client.readAll())
    client.close()
    served.until(open=0)
    return facts


@pytest.mark.parametrize("version", HEADERS)
def test_clientIsTold(kind: str, version: str, certificates: Certificates) -> None:
    """P3, P4: the client's address and where it went to, over whatever the proxy came."""
    with serving(kind, certificates=certificates, maker=whoami, logs=True) as served:
        facts = told(served, HEADERS[version])
        words = ["opened", *["tls"] * (kind == "tls"), "ended", "eof", "closed"]
        assert [line.split()[0] for line in served.log] == words
        who = r"\((tls, )?proxy\) id=\S+ peer=192\.0\.2\.7:40000\b"
        assert all(re.search(who, line) for line in served.log)
        assert (facts["peer"], facts["local"]) == ("192.0.2.7:40000", "192.0.2.1:7")
        assert facts["transport"] == "tcp"
        assert facts["proxy"]["version"] == int(version[1:])
        assert ("tls" in facts) is (kind == "tls")
        # The proxy itself is still known.
        if kind == "unix":
            assert facts["credentials"]["process"] > 0
        else:
            assert facts["proxy"]["peer"].startswith("127.0.0.1:")
        six = told(served, formatV2(("2001:db8::7", 1), ("2001:db8::1", 65535)))
        assert (six["peer"], six["local"]) == ("[2001:db8::7]:1", "[2001:db8::1]:65535")


def test_mappedClient(plain: str) -> None:
    """An IPv4 client is told as such, also by a proxy that writes it as IPv6."""
    with serving(plain, maker=whoami, logs=True) as served:
        mapped = ("::ffff:192.0.2.7", 1), ("::ffff:192.0.2.1", 7)
        for header in (formatV1(*mapped), formatV2(*mapped)):
            facts = told(served, header)
            assert (facts["peer"], facts["local"]) == ("192.0.2.7:1", "192.0.2.1:7")
        assert all("peer=192.0.2.7:1" in line for line in served.log if "opened" in line)


#: UNKNOWN, LOCAL, UNSPEC, and a path.
NOBODY = [
    b"PROXY UNKNOWN\r\n",
    formatV1(CLIENT, ASKED, "UNKNOWN"),
    b"PROXY UNKNOWN \x1b[31m evil\r\n",
    formatV2(command=LOCAL),
    formatV2(CLIENT, ASKED, command=LOCAL),
    formatV2(),
    formatV2(family=UNIX, addresses=b"/run/evil".ljust(216, b"\0")),
]


def test_realAddress(kind: str, certificates: Certificates) -> None:
    """P3, P4: where the proxy speaks for itself, or of nobody, the real addresses count."""
    with serving(kind, certificates=certificates, maker=whoami, logs=True) as served:
        for start in NOBODY:
            client = served.connect()
            client.send(start)
            if kind == "tls":
                client.secure()
            facts = json.loads(client.readAll())
            assert "192.0.2" not in json.dumps(facts)
            assert facts["proxy"]["version"] == (1 if start[:1] == b"P" else 2)
            opened = [line for line in served.log if line.startswith("opened")][-1]
            if kind == "unix":
                assert (facts["peer"], facts["transport"]) == (None, "unix")
                assert opened.rpartition(" peer=")[2].startswith(f"process={os.getpid()},")
            else:
                host, port = client.raw.getsockname()
                assert facts["peer"] == facts["proxy"]["peer"] == f"{host}:{port}"
                assert facts["local"].endswith(f":{served.listener.getHost().port}")
                assert opened.endswith(f"peer={host}:{port}")


def test_values(kind: str, certificates: Certificates) -> None:
    """P4: what TLVs tell reaches the protocol; what is not known is skipped."""
    values = [
        formatTLV(NOOP, bytes(1000)),
        formatTLV(0xEA, b"\1vpce-0"),
        formatTLV(ALPN, b"h2"),
        formatTLV(AUTHORITY, "b\u00fccher.example".encode()),
        formatTLV(UNIQUE_ID, b"\0\xff"),
        formatTLS(
            7,
            0,
            formatTLV(0x21, b"TLSv1.3"),
            formatTLV(0x22, b"alice"),
            formatTLV(0x23, b"TLS_AES_256_GCM_SHA384"),
        ),
    ]
    with serving(kind, certificates=certificates, maker=whoami) as served:
        facts = told(served, formatV2(CLIENT, ASKED, values, checksum=3))["proxy"]
        facts.pop("peer", None)
        assert facts == {
            "version": 2,
            "alpn": "h2",
            "authority": "b\u00fccher.example",
            "unique_id": "00ff",
            "tls": {
                "version": "TLSv1.3",
                "common_name": "alice",
                "cipher": "TLS_AES_256_GCM_SHA384",
                "verified": True,
            },
        }


# -- What is no header -----------------------------------------------------------------------------

WRONG = [
    *REFUSED_EARLY,
    *(f"PROXY {words}\r\n".encode() for words in REFUSED_LATE),
    *REFUSED_BINARY,
    *(formatV2(CLIENT, ASKED, [values]) for values in (*REFUSED_VALUES, *REFUSED_TLS)),
    V2[:-1] + bytes([V2[-1] ^ 1]),
    b"GET / HTTP/1.1\r\n\r\n",
]


def test_refused(kind: str, certificates: Certificates) -> None:
    """P3, P4, O5: reason ``header``, FIN, not a byte of echo; what follows is thrown away."""
    # Some are refused only after what they say is there.
    wrong = [header.ljust(150, b"\0") if header[:1] == b"\r" else header for header in WRONG]
    with serving(kind, certificates=certificates, logs=True) as served:
        for number, header in enumerate(wrong, 1):
            client = served.connect()
            client.send(header + b"hello")
            assert client.readAll() == b""
            client.send(V1 + b"and on")
            client.raw.shutdown(socket.SHUT_WR)
            served.settle()
            client.close()
            counters = served.until(open=0)
            assert counters["closed"] == {"header": number}
        assert counters["bytes_in"] == counters["bytes_out"] == 0
        assert counters["aborted"] == counters["resets"] == 0
        served.advance(1)
        assert not [line for line in served.log if line.startswith("opened")]
        assert [line for line in served.log if "refused" in line and " header=" in line]
        closed = [line for line in served.log if line.startswith("closed")]
        assert len(closed) == len(wrong)
        assert all("reason=header end=fin failure=" in line for line in closed)
        assert all(line.isprintable() for line in closed)


def test_refusedAndStays(kind: str, certificates: Certificates) -> None:
    """C2: whoever does not end after our FIN is read until the linger deadline, then cut."""
    with serving(kind, Limits(lingerTimeout=2), certificates=certificates) as served:
        client = served.connect()
        client.send(b"GET / HTTP/1.1\r\n")
        assert client.readAll() == b""
        for _ in range(15):
            client.send(bytes(100_000))
            served.advance(TICK)
        assert served.counters["open"] == 1
        served.advance(2)
        assert served.counters["closed"] == {"header": 1}
        assert served.counters["aborted"] == 1
        assert served.counters["discarded"] >= 1_500_000 or kind == "tls"


def test_fuzz() -> None:
    """
    P3, P4, O4: 10 000 random inputs in random pieces: each is a header, and what follows comes
    back, or it is refused, or waited for until the deadline; whatever it is, without an error.
    """
    choose = random.Random("proxied")
    known = [*(header for header in VALID.values() if len(header) < 300), V1, V2]
    outcomes = {"eof": 0, "header": 0, "handshake": 0}
    limits = Limits(handshakeTimeout=3, lingerTimeout=1)
    for number in range(10_000):
        data = mutated(choose, known[number % len(known)]) + choose.randbytes(choose.randrange(9))
        if number % 10 == 0:
            start = choose.choice((b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"!\x11"))
            data = start + choose.randbytes(choose.randrange(1, 120))
        data = data or b"\r"
        try:
            header, length = parseHeader(data)
            expected = Reason.HANDSHAKE if header is None else Reason.EOF
        except MalformedHeader:
            expected = Reason.HEADER
        cuts = sorted(choose.randrange(1, len(data) + 1) for _ in range(choose.randrange(4)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        link = memoryLink(protocol(), limits=limits, header=pieces[0])
        for piece in pieces[1:]:
            link.pump()
            link.send(piece)
        link.pump()
        connection = link.connection
        if expected is Reason.HANDSHAKE:
            assert connection.state is State.OPENING
            link.advance(4.1)
            with pytest.raises(ConnectionResetError):
                link.receive()
        elif expected is Reason.HEADER:
            assert connection.state is State.LINGERING
            assert link.readAll() == b""
            if number % 2:
                link.finish()
                link.pump()
            else:
                link.advance(2.1)
        else:
            link.finish()
            assert link.readAll() == data[length:]
        assert connection.reason is expected
        assert link.gone
        link.close()
        outcomes[expected.value] += 1
    # A fuzz that only ever sees one of them tests nothing.
    assert min(outcomes.values()) > 500, outcomes


def protocol() -> Any:
    return raw.makeFactory(RawOptions()).buildProtocol(None)  # type: ignore[arg-type]  # no address


class Spy(Protocol):
    """
    Remembers what it is told.

    :cvar told: by all of them; to be emptied.
    """

    told: ClassVar[list[Any]] = []

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.told.append((self.transport.getPeer(), self.transport.getHost()))

    def dataReceived(self, data: bytes) -> None:
        self.told.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.told.append("lost")


spy = FactoryMaker("spy", "", lambda: Factory.forProtocol(Spy))


async def _remember(stream: Stream) -> None:
    Spy.told.append((stream.peer, stream.host))
    async for data in stream:
        Spy.told.append(data)
    Spy.told.append("lost")


class Listening(Connection):
    """Of echod's own kind."""

    def begun(self) -> None:
        transport: Any = self.transport
        Spy.told.append((transport.getPeer(), transport.getHost()))

    def received(self, data: bytes) -> None:
        Spy.told.append(data)

    def inputFinished(self) -> None:
        Spy.told.append("lost")

    def ended(self) -> None:
        Spy.told.append("ended")

    def lost(self, reason: Failure) -> None:
        if self.reason is not Reason.EOF:
            Spy.told.append("lost")

    def unanswered(self) -> bool:
        assert Spy.told, "nobody can be owed an answer"
        return False


MAKERS = [
    spy,
    StreamMaker("coroutine", "", _remember),
    ConnectionMaker("connection", "", Listening),
]


@pytest.mark.parametrize("maker", MAKERS, ids=["factory", "coroutine", "connection"])
def test_protocolKnowsNothing(kind: str, maker: Any, certificates: Certificates) -> None:
    """It is told of a connection with its header, and of one that has none never."""
    Spy.told.clear()
    limits = Limits(deny=["192.0.2.9"], handshakeTimeout=3, lingerTimeout=1)
    with serving(kind, limits, certificates=certificates, maker=maker) as served:
        for start in (b"", V1[:20], b"nonsense", header("192.0.2.9")):
            for way in range(3):
                client = served.connect()
                client.send(start)
                served.settle()
                if way == 0:
                    reset(client.raw)
                elif way == 1:
                    with suppress(OSError):  # it has been reset
                        client.raw.shutdown(socket.SHUT_WR)
                else:
                    served.advance(4.1)
                client.close()
                served.until(open=0)
        half, silent = served.connect(), served.connect()
        half.send(V1[:20])
        served.settle()
        for connection in list(served.listener._live):
            connection.end(Reason.EVICTED)
        half.close()
        silent.close()
        served.until(open=0)
        assert Spy.told == []
        for family in (("192.0.2.7", "192.0.2.1"), ("2001:db8::7", "2001:db8::1")):
            client = served.connect()
            client.send(formatV2((family[0], 1), (family[1], 2)))
            if kind == "tls":
                client.secure()
            client.send(b"hello")
            client.finish()
            client.readAll()
            client.close()
            served.until(open=0)
            address = IPv6Address if ":" in family[0] else IPv4Address
            ends = address("TCP", family[0], 1), address("TCP", family[1], 2)
            assert Spy.told == [ends, b"hello", "lost"]
            Spy.told.clear()


# -- Who may come, and how many -------------------------------------------------------------------


@pytest.mark.parametrize("version", HEADERS)
def test_untrusted(version: str) -> None:
    """P1: who is no proxy is closed at once, header or not; it is counted, and told in one line."""
    with serving(logs=True) as served:
        for sender in ("127.0.0.2", "127.1.0.1"):
            client = served.connect(sender)
            client.send(HEADERS[version] + b"hello")
            with suppress(ConnectionResetError):
                assert client.readAll() == b""
        waitUntil(served.outer.turn, lambda: served.counters["refused"] == {"untrusted": 2})
        assert served.counters["accepted"] == 0
        served.advance(1)
        told = [line for line in served.log if line.startswith("refused")]
        (line,) = told
        assert line.startswith(
            f"refused {served.listener.describe()} untrusted=2 example=127.1.0.1:"
        )
        assert len(served.log) == 1
        served.open(HEADERS[version])


@pytest.mark.parametrize(
    ("host", "proxies", "trusted", "others"),
    [
        ("0.0.0.0", ["127.0.0.0/30"], ["127.0.0.1", "127.0.0.3"], ["127.0.0.4"]),
        # IPv4 at an IPv6 socket, and networks in either spelling.
        ("::", ["127.0.0.2/31"], ["127.0.0.2", "127.0.0.3"], ["127.0.0.1", "::1"]),
        ("::", ["::ffff:127.0.0.2/127"], ["127.0.0.2", "127.0.0.3"], ["127.0.0.1", "::1"]),
        ("0.0.0.0", ["::ffff:127.0.0.2/128"], ["127.0.0.2"], ["127.0.0.3"]),
        ("::", ["::1"], ["::1"], ["127.0.0.1"]),
        ("::", ["::/0"], ["::1"], ["127.0.0.1"]),
        ("::", ["0.0.0.0/0"], ["127.0.0.1"], ["::1"]),
    ],
)
def test_networks(host: str, proxies: list[str], trusted: list[str], others: list[str]) -> None:
    """P1: who is in one of the networks is believed, and nobody else."""
    with serving(host=host, proxies=tuple(proxies)) as served:
        for sender in trusted:
            served.open(V1, b"hello", sender).close()
        for number, sender in enumerate(others, 1):
            client = served.connect(sender)
            assert client.readAll() == b""
            assert served.counters["refused"] == {"untrusted": number}
        assert served.counters["accepted"] == len(trusted)


@pytest.mark.parametrize("version", HEADERS)
def test_withoutProxies(kind: str, version: str, certificates: Certificates) -> None:
    """P1: where no proxy is told of, a header is payload like any other."""
    header = HEADERS[version]
    with serving(kind, certificates=certificates, proxies=()) as served:
        if kind == "tls":
            client = served.connect()
            client.secure()
            client.send(header)
            client.expect(header)
        else:
            served.open(b"", header)


def test_everybodyOverUNIX() -> None:
    """P1: who may connect to a UNIX socket is trusted, whatever the networks; a header must be."""
    with serving("unix", proxies=("192.0.2.1",)) as served:
        served.open(V1).close()
        client = served.connect()
        client.send(b"hello")
        assert client.readAll() == b""
        client.close()
        assert served.until(open=0)["closed"] == {"eof": 1, "header": 1}


def header(host: str) -> bytes:
    """One that tells of a client there."""
    return formatV1((host, 1000), ("2001:db8::1" if ":" in host else ASKED[0], 7))


def isRefused(served: Served, first: bytes, sender: str = "") -> bool:
    """Whether a connection with that header is reset; else it has been served, and is gone."""
    client = served.connect(sender)
    client.send(first)
    served.settle()
    if served.kind == "tls":
        try:
            client.secure()
        except (ConnectionResetError, BrokenPipeError):
            return True
    with suppress(ConnectionResetError, BrokenPipeError):
        client.send(b"x")
    before = served.counters["open"]
    try:
        refused = client.readSome() != b"x"
    except ConnectionResetError:
        refused = True
    if not refused:
        client.close()
        served.until(open=before - 1)
    return refused


def test_maxPerSource(kind: str, certificates: Certificates) -> None:
    """F11: so many of one client, not of the proxy; whoever goes makes room."""
    with serving(kind, Limits(maxPerSource=2), certificates=certificates) as served:
        first = [served.open(header("192.0.2.7")), served.open(header("192.0.2.7"))]
        for number, host in enumerate(("192.0.2.7", "::ffff:192.0.2.7"), 1):
            assert isRefused(served, header(host))
            assert served.until(open=2)["refused"] == {"source_full": number}
            # The place of who is refused is free again, and it is no traffic of ours.
            assert served.counters["closed"] == {"refused": number}
        assert not isRefused(served, header("192.0.2.8"))
        first[0].close()
        served.until(open=1)
        assert not isRefused(served, header("192.0.2.7"))
        # Who has not told yet who it is counts for nobody; nor does who told nonsense.
        half = served.connect()
        half.send(V1[:10])
        for _ in range(3):
            wrong = served.connect()
            wrong.send(b"hello")
            assert wrong.readAll() == b""
        assert not isRefused(served, header("192.0.2.7"))


def test_newPerSecond(plain: str) -> None:
    """A client has its rate, and the proxy, which opens all of them, none."""
    with serving(plain, Limits(newPerSecond=3)) as served:
        asked = ["192.0.2.7"] * 5 + ["192.0.2.8"] * 5
        refused = [isRefused(served, header(host)) for host in asked]
        assert refused == ([False] * 3 + [True] * 2) * 2
        assert served.counters["refused"] == {"source_rate": 4}
        assert served.counters["closed"] == {"eof": 6, "refused": 4}
        served.advance(2)
        assert not isRefused(served, header("192.0.2.7"))


def test_allowAndDeny(kind: str, certificates: Certificates) -> None:
    """``allow`` and ``deny`` are about clients, not about the proxy that brings them."""
    limits = Limits(allow=["192.0.2.0/24", "2001:db8::/32"], deny=["192.0.2.128/25"])
    with serving(kind, limits, certificates=certificates, logs=True) as served:
        assert not isRefused(served, header("192.0.2.7"))
        assert not isRefused(served, header("2001:db8::1"))
        for number, host in enumerate(("192.0.2.200", "198.51.100.1", "::1"), 1):
            assert isRefused(served, header(host))
            assert served.until(open=0)["refused"] == {"denied": number}
        opened = [line for line in served.log if line.startswith("opened")]
        assert [line.rpartition("=")[2] for line in opened] == [
            "192.0.2.7:1000",
            "[2001:db8::1]:1000",
        ]
        served.advance(1)
        told = f"refused {served.listener.describe()} denied=3 example=[::1]:1000"
        assert told in served.log


def test_theProxyItself() -> None:
    """Where it speaks for itself, its own address has to be allowed; of a UNIX socket none is."""
    own = formatV2(command=LOCAL)
    with serving(limits=Limits(allow=["192.0.2.0/24"])) as served:
        assert isRefused(served, own)
        assert served.until(open=0)["refused"] == {"denied": 1}
    with serving(limits=Limits(allow=["192.0.2.0/24", "127.0.0.1"])) as served:
        assert not isRefused(served, own)
    limits = Limits(allow=["192.0.2.0/24"], deny=["::/0"], maxPerSource=1, newPerSecond=1)
    with serving("unix", limits) as served:
        for _ in range(3):
            served.open(own)
        assert isRefused(served, header("192.0.3.1"))


def test_full(kind: str, certificates: Certificates) -> None:
    """F11: at the limit one more sees EOF at once, before any header, and costs none."""
    limits = Limits(maxConnections=3)
    with serving(kind, limits, certificates=certificates) as served:
        served.open(V1)
        half = served.connect()
        half.send(V1[:10])
        silent = served.connect()
        served.until(open=3)
        for number in (1, 2):
            client = served.connect()
            assert client.readAll() == b""
            assert served.counters["refused"] == {"full": number}
        assert served.counters["open"] == 3
        silent.close()
        served.until(open=2)
        served.open(V1)


def test_silentOnesMakeRoom(kind: str, certificates: Certificates) -> None:
    """F11: full of those who tell nothing, the one that has been silent longest makes room."""
    limits = Limits(maxConnections=3)
    with serving(kind, limits, certificates=certificates, logs=True) as served:
        busy = served.open(V1)
        silent = served.connect()
        served.settle()
        served.advance(0.5)
        half = served.connect()
        half.send(V1[:10])
        served.settle()
        served.advance(1)
        busy.send(b"x")
        busy.expect(b"x")
        served.open(V1)
        assert silent.readAll() == b""
        silent.close()
        served.open(V1)
        assert half.readAll() == b""
        half.close()
        assert served.until(open=3)["closed"] == {"evicted": 2}
        assert len([line for line in served.log if line.startswith("opened")]) == 3


def test_lateHeader(plain: str) -> None:
    """Who was ended in the middle of its header is not judged by the rest of it."""
    limits = Limits(maxConnections=1, maxPerSource=1, deny=["192.0.2.9"])
    with serving(plain, limits, logs=True) as served:
        for late in (header("192.0.2.9"), V1, b"nonsense", V2[:20]):
            client = served.connect()
            served.settle()
            served.advance(1.5)
            other = served.connect()
            assert client.readAll() == b""
            client.send(late)
            served.settle()
            assert not served.counters["refused"]
            client.close()
            other.close()
            served.until(open=0)
        assert served.counters["closed"] == {"evicted": 4, "eof": 4}
        assert not [line for line in served.log if line.startswith(("opened", "refused"))]
        assert not [line for line in served.log if "failure" in line]


# -- Ends -----------------------------------------------------------------------------------------


def test_healthCheck(kind: str, certificates: Certificates) -> None:
    """C6: to connect and close is no fault, nor is it with a header, whatever would have come."""
    with serving(kind, certificates=certificates, logs=True) as served:
        number = 0
        for start in (b"", V1, V2, formatV2(command=LOCAL), b"PROXY UNKNOWN\r\n"):
            for settles in (False, True):
                client = served.connect()
                client.send(start)
                if settles:
                    served.settle()
                client.raw.shutdown(socket.SHUT_WR)
                assert client.readAll() == b""
                client.close()
                number += 1
        counters = served.until(open=0)
        assert counters["closed"] == {"eof": number}
        assert counters["resets"] == counters["aborted"] == 0
        served.advance(1)
        words = ("opened", "eof", "closed")
        assert not [line for line in served.log if not line.startswith(words) or "failure" in line]


def test_finInTheHandshake(certificates: Certificates) -> None:
    """L2: half a handshake behind a header is cut off, as it is without one."""
    with serving("tls", certificates=certificates) as served:
        for settles in (False, True):
            client = served.connect()
            client.send(V2 + b"\x16\x03\x01\x02")
            if settles:
                served.settle()
            client.raw.shutdown(socket.SHUT_WR)
            assert client.readAll() == b""
            client.close()
        assert served.until(open=0)["closed"] == {"no_close_notify": 2}


def test_finInTheHeader(kind: str, certificates: Certificates) -> None:
    """P2: an end in the header is told as what it is, and answered with our end."""
    with serving(kind, certificates=certificates, logs=True) as served:
        for number, cut in enumerate(CUT[1:], 1):
            client = served.connect()
            client.send(cut)
            if number % 2:
                served.settle()
            client.raw.shutdown(socket.SHUT_WR)
            assert client.readAll() == b""
            client.close()
            counters = served.until(open=0)
            assert counters["closed"] == {"header": number}
        assert counters["resets"] == counters["aborted"] == 0
        closed = [line for line in served.log if line.startswith("closed")]
        assert len(closed) == number
        assert all(line.endswith("failure='it ended in the header'") for line in closed)


STAGES = ["accepted", "half", "header", "data", "unread", "echo", "refused", "wrong"]


@pytest.mark.parametrize("stage", STAGES)
def test_reset(stage: str, certificates: Certificates) -> None:
    """C3, O4: RST at every stage ends the connection at once, and costs nothing else."""
    for kind in ("tcp", "tls"):
        limits = Limits(deny=["192.0.2.9"])
        with serving(kind, limits, certificates=certificates) as served:
            client = served.connect()
            client.send(
                {
                    "accepted": b"",
                    "half": V2[:20],
                    "refused": header("192.0.2.9"),
                    "wrong": b"nonsense",
                }.get(stage, V2)
            )
            if stage in ("data", "unread", "echo"):
                if kind == "tls":
                    client.secure()
                client.send(b"x")
                if stage != "unread":
                    served.settle()
                if stage == "echo":
                    client.expect(b"x")
            else:
                served.settle()
            reset(client.raw)
            served.settle()
            counters = served.until(open=0)
            ended = {"refused": "refused", "wrong": "header"}.get(stage, "reset")
            assert counters["closed"] == {ended: 1}
            assert counters["resets"] == (stage != "refused")
            served.open(V1)


def test_endIsAsBelow() -> None:
    """Behind a header, too, what is written after our end goes nowhere, and waits for nothing."""
    link = memoryLink(protocol(), header=V1)
    link.pump()
    transport: Any = link.connection.transport
    transport.unregisterProducer()
    transport.loseWriteConnection()
    transport.write(b"late")
    assert transport.unsent() == 0
    assert link.readAll() == b""
    link.close()
    link.pump()
    assert link.gone


def test_drain(kind: str, certificates: Certificates) -> None:
    """
    O1: what had come by then is answered, behind a header too; who has said nothing ends at once,
    and who is in the middle of it may go on, until a deadline.
    """
    limits = Limits(handshakeTimeout=3)
    with serving(kind, limits, certificates=certificates) as served:
        silent, half, never, unread = (served.connect() for _ in range(4))
        quiet, busy = served.open(V1), served.open(V2)
        half.send(V1[:20])
        never.send(V2[:20])
        served.settle()
        # This nobody has read yet; of one nobody has even accepted the connection.
        busy.send(b"hello")
        queued = served.connect()
        behind = b"" if kind == "tls" else b"hello"
        for client in (unread, queued):
            client.send(V2 + behind)
        gone = served.listener.stopService()
        for client in (silent, quiet):
            assert client.readAll() == b""
            client.close()
        assert busy.readAll() == b"hello"
        half.send(V1[20:] + behind)
        for client in (unread, queued, half):
            if kind == "tls":
                client.secure()
            assert client.readAll() == behind
        assert not gone.called
        served.advance(4.1)
        assert never.isReset()
        assert served.counters["closed"]["handshake"] == 1
        for client in served.clients:
            client.close()
        served.until(open=0)
        assert gone.called
        assert served.counters["closed"] == {"drain": 6, "handshake": 1}
        assert served.listener.cutCount == 0


def test_drainOfNonsense(kind: str, certificates: Certificates) -> None:
    """C2, O1: what is no header lingers in a drain too: what still comes is read, to the FIN."""
    with serving(kind, Limits(lingerTimeout=2), certificates=certificates) as served:
        client = served.connect()
        served.settle()
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        gone = served.listener.stopService()
        assert client.readAll() == b""
        for _ in range(10):
            client.send(b"and on")
            served.settle()
            assert served.counters["open"] == 1
        client.raw.shutdown(socket.SHUT_WR)
        counters = served.until(open=0)
        assert counters["closed"] == {"header": 1}
        assert counters["aborted"] == 0
        assert gone.called


def test_drainCutAtOnce(plain: str) -> None:
    """O1: whoever sent something behind its header, and was cut before that was read, was owed."""
    with serving(plain) as served:
        client, half, silent = (served.connect() for _ in range(3))
        half.send(V1[:20])
        served.settle()
        client.send(V1 + b"hello")
        served.listener.stopService()
        # This comes after our end.
        silent.send(V1 + b"hello")
        served.listener.cut()
        assert client.isReset()
        assert half.isReset()
        assert served.until(open=0)["closed"] == {"drain": 3}
        assert served.listener.cutCount == 1


def test_refusedIsNotOwed(plain: str) -> None:
    """O1: nor is it cut by a drain whom the header tells to be refused."""
    with serving(plain, Limits(deny=["192.0.2.7"])) as served:
        client = served.connect()
        served.settle()
        client.send(V1 + b"hello")
        served.listener.stopService()
        assert client.isReset()
        assert served.until(open=0)["closed"] == {"refused": 1}
        assert served.listener.cutCount == 0


# -- What a peer could do to us -------------------------------------------------------------------


def test_urgent(kind: str, certificates: Certificates) -> None:
    """An urgent byte is part of a header as others, and makes nobody spin."""
    with serving(kind, certificates=certificates) as served:
        client = served.connect()
        for at in range(len(V1)):
            client.raw.send(V1[at : at + 1], socket.MSG_OOB)
            served.settle()
        if kind == "tls":
            client.secure()
        client.send(b"x")
        client.expect(b"x")
        for at in (0, 1, 5, len(V1) - 1):
            client = served.connect()
            client.send(V1[:at])
            served.settle()
            client.raw.send(V1[at : at + 1], socket.MSG_OOB)
            served.settle()
            assert client.read() is None
            client.send(V1[at + 1 :])
            if kind == "tls":
                client.secure()
            client.send(b"x")
            client.expect(b"x")


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EINTR, errno.ENOBUFS, errno.ENOMEM])
def test_errorsThatPass(code: int) -> None:
    """O4: whatever the kernel lacks for a moment costs time, and no header."""
    link = memoryLink(protocol(), header=V2[:20])
    skt: Any = link.connection.transport.socket  # type: ignore[attr-defined]  # an imitated one
    skt.faults["recv_into"] = [code] * 3
    link.pump()
    skt.faults["recv_into"] = [code] * 3
    link.send(V2[20:])
    assert link.exchange(b"hello") == b"hello"
    assert link.connection.reason is Reason.EOF


@pytest.mark.parametrize("flag", ["MSG_PEEK", "MSG_TRUNC"])
def test_errorsThatStay(flag: str) -> None:
    """Any other ends the connection; what cannot be taken out would be read as payload."""
    for start in (V2[:20], V2):
        link = memoryLink(protocol(), header=start)
        skt: Any = link.connection.transport.socket  # type: ignore[attr-defined]  # an imitated one
        skt.faults[flag] = [errno.EIO]
        link.pump()
        assert skt.faults == {flag: []}
        assert link.gone
        assert link.connection.reason is Reason.RESET
        assert link.connection.bytesIn == 0


def test_thousands() -> None:
    """
    10 000 short connections of every fate: nothing of them stays, and every counter agrees.

    `serving` looks at the rest of what must not stay.
    """
    choose = random.Random(6)
    limits = Limits(maxPerSource=10, deny=["192.0.2.9"], maxConnections=45)
    denied, half = header("192.0.2.9"), V2[:20]
    fates = [b"", half, V1, V2 + b"hello", b"nonsense", denied, denied + b"x", V1[:-1] + b"x"]
    with serving(limits=limits) as served:
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(200):
            clients = [served.connect() for _ in range(50)]
            for client in clients:
                client.send(choose.choice(fates))
            served.settle()
            choose.shuffle(clients)
            for client in clients:
                way = choose.randrange(3)
                if way == 0:
                    reset(client.raw)
                    continue
                if way == 1:
                    with suppress(OSError):  # it has been reset
                        client.raw.shutdown(socket.SHUT_WR)
                    served.outer.turn()
                client.close()
            served.clients.clear()
            counters = served.until(open=0)
            assert counters["accepted"] == sum(counters["closed"].values())
        refused, closed = counters["refused"], counters["closed"]
        assert counters["accepted"] + refused["full"] == 10_000
        assert closed["refused"] == refused["denied"] + refused["source_full"]
        assert set(closed) == {"eof", "reset", "header", "refused"}
        assert min(*closed.values(), *refused.values()) > 100, counters
        assert len(os.listdir("/proc/self/fd")) == descriptors
