"""`echod.admin.channel`: requests and answers on a connection of echod's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from twisted.internet.task import Clock

from echod.config.limits import Limits
from echod.connection.states import Reason, State
from echod.testing import Link
from echod.testing.plain_context import PlainInsight
from tests.conftest import LoggedErrors
from tests.unit.admin.asking import Server, ask, connect, get, parse, parseAll

KIB = 1024
#: What a connection of any protocol may hold (docs/configuration.md).
BOUND = 384 * KIB

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def _noFiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes a temporary file fails."""

    def refuse(*arguments: object, **named: object) -> NoReturn:
        raise AssertionError("a temporary file")

    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)


# -- Requests that are refused ---------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "X"]
)
def test_methods(method: str) -> None:
    """GET and HEAD alone; a connection stays where nothing else is wrong."""
    asked = get(Server(), "/health", method=method)
    assert asked.code == 405
    assert asked.headers["allow"] == "GET, HEAD"
    assert "connection" not in asked.headers
    assert asked.line


@pytest.mark.usefixtures("_noFiles")
@pytest.mark.parametrize(
    ("method", "headers", "code"),
    [
        ("GET", "Content-Length: 5", 413),
        ("GET", "Content-Length: 1000000000", 413),
        ("HEAD", "Content-Length: 5", 413),
        ("GET", "Transfer-Encoding: chunked", 413),
        ("GET", "Transfer-Encoding: identity", 413),
        ("GET", "Transfer-Encoding: gzip", 400),
        ("POST", "Content-Length: 1000000000", 405),
        ("POST", "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 200000", 405),
        ("GET", "Content-Length: 5\r\nContent-Length: 6", 400),
        ("GET", "Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("GET", "Content-Length: +5", 400),
        ("GET", f"Content-Length: {'9' * 5000}", 400),
        ("GET", "Expect: 100-continue", 417),
        ("GET", "Expect: 100-continue\r\nContent-Length: 200000", 417),
        ("PUT", "Expect: 100-continue\r\nContent-Length: 200000", 405),
    ],
)
@pytest.mark.parametrize("body", [b"", b"hello", bytes(300_000)])
def test_bodies(method: str, headers: str, code: int, body: bytes) -> None:
    """The head is answered, and that is the end: nothing of a body is taken, or kept anywhere."""
    link = connect(Server())
    head = f"{method} /health HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n"
    data = ask(Server(), head.encode() + body, finish=False)
    # No "100 Continue" before it.
    asked, rest = parse(data, method)
    assert asked.code == code
    assert asked.headers["connection"] == "close"
    assert rest == b""
    assert not link.gone


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_emptyBody(version: str) -> None:
    """A length of 0 is none."""
    data = f"GET /health {version}\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode()
    assert parse(ask(Server(), data))[0].code == 200


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /" + b"x" * 20_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 20_000, 431),
        (b"GET / HTTP/1.1\r\na: b\r\n" + b" c\r\n" * 10_000, 431),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 9000 + b"\r\nc: " + b"d" * 9000 + b"\r\n\r\n", 431),
        (b"x" * 100_000, 431),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1 x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
        (b"GET /\x1b HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n", 400),
        (b"\r\n\r\n\r\n", 400),
    ],
)
def test_noRequests(data: bytes, code: int) -> None:
    """What is no request is answered, and the connection ends."""
    link = connect(Server())
    link.send(data)
    link.pump()
    asked, rest = parse(link.readAll())
    assert (asked.code, rest) == (code, b"")
    assert asked.headers["connection"] == "close"
    assert asked.line
    assert link.connection.reason is Reason.QUIT


# -- One after another -------------------------------------------------------------------------


def test_keepAlive() -> None:
    """HTTP/1.1: as many as the client wants, on one connection."""
    server, link = Server(), connect(Server())
    link = connect(server)
    for _ in range(3):
        link.send(GET)
        server.pump(link)
        data = link.receive()
        assert data
        asked, rest = parse(data)
        assert (asked.code, rest) == (200, b"")
    assert link.connection.state is State.OPEN
    link.finish()
    assert link.readAll() == b""
    assert link.gone
    assert link.connection.reason is Reason.EOF


@pytest.mark.parametrize(
    ("headers", "stays"),
    [
        ("", True),
        ("Connection: keep-alive", True),
        ("Connection: close", False),
        ("Connection: TE, Close", False),
        ("Connection: TE\r\nConnection: close", False),
    ],
)
def test_connectionHeader(headers: str, stays: bool) -> None:
    head = f"GET /health HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".replace(
        "\r\n\r\n\r\n", "\r\n\r\n"
    )
    server = Server()
    link = connect(server)
    link.send(head.encode())
    server.pump(link)
    assert (link.connection.state is State.OPEN) == stays
    asked, _ = parse(link.receive() or b"")
    assert asked.headers.get("connection") == (None if stays else "close")


def test_oldVersion() -> None:
    """HTTP/1.0: the answer, then the end, also where its length is not known."""
    server = Server(insight=PlainInsight(live=[{"id": "a-1"}]))
    link = connect(server)
    link.send(b"GET /connections HTTP/1.0\r\n\r\n")
    server.pump(link)
    asked, _ = parse(link.readAll())
    assert asked.version == "HTTP/1.0"
    assert "transfer-encoding" not in asked.headers
    assert asked.json["connections"] == [{"id": "a-1"}]


@pytest.mark.parametrize("finish", [True, False])
def test_pipelining(finish: bool) -> None:
    """Those that come together are answered in their order, whatever each is."""
    requests = [
        b"GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: evil\r\n\r\n",
        GET,
    ]
    found = parseAll(ask(Server(), b"".join(requests), finish=finish))
    assert [each.code for each in found] == [200, 404, 421, 200]


def test_headBetween() -> None:
    """HEAD has no body, and what comes behind it is the next answer."""
    server = Server(insight=PlainInsight(live=[{"id": "a-1"}]))
    for target, length in ((b"/connections", None), (b"/health", "6")):
        head = b"HEAD " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
        asked, rest = parse(ask(server, head + GET), "HEAD")
        assert asked.code == 200
        assert asked.headers.get("content-length") == length
        assert "transfer-encoding" not in asked.headers
        assert parse(rest)[0].line == "ready"


def test_headAsksNobody() -> None:
    """A HEAD of a list makes no row."""

    class Careful(PlainInsight):
        def connections(self, **words: str) -> Iterator[dict[str, Any]]:
            yield from ()
            raise AssertionError("a row is made")

    assert get(Server(insight=Careful()), "/connections", method="HEAD").code == 200


def test_thousandsAtOnce() -> None:
    """What is asked for together is made as it is read: it piles up nowhere."""
    server = Server()
    link = connect(server, buffers=4 * KIB)
    count = 5000
    view = memoryview(GET * count)
    transport: Any = link.connection.transport
    found, most = b"", 0
    while view:
        sent = link.send(view)
        view = view[sent:]
        server.pump(link)
        most = max(most, len(transport.dataBuffer) + transport._tempDataLen)
        if not sent:
            piece = link.receive()
            assert piece
            found += piece
    link.finish()
    found += drained(server, link)
    assert [each.code for each in parseAll(found)] == [200] * count
    assert most < 64 * KIB + 4 * KIB


def test_thousandsOfHeads() -> None:
    """An answer without a body waits for room as any other."""
    server = Server()
    link = connect(server, buffers=4 * KIB)
    view = memoryview(GET.replace(b"GET", b"HEAD") * 5000)
    transport: Any = link.connection.transport
    while sent := link.send(view):
        view = view[sent:]
        server.pump(link)
    assert len(transport.dataBuffer) + transport._tempDataLen < 64 * KIB + 4 * KIB
    assert link.connection.bytesIn < 128 * KIB


@pytest.mark.parametrize("target", [b"/connections?limit=10000", b"/events"])
def test_keepsNothing(target: bytes) -> None:
    """Of a client that sends on and does not read, nothing is kept but a little."""
    server = Server(insight=Counted(), totals={"listeners": [], "lag_ms": 0.0, "worst_lag_ms": 0.0})
    link = connect(server, buffers=4 * KIB)
    link.send(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server.pump(link)
    sent = 0
    while taken := link.send(bytes(4 * KIB)):
        sent += taken
        server.pump(link)
    assert sent < 64 * KIB
    link.reset()
    assert isinstance(server.clock, Clock)
    for _ in range(3):
        link.advance(1.0)
        server.clock.advance(1.0)
    assert link.gone
    assert server.clock.calls == []


def drained(server: Server, link: Link) -> bytes:
    """All that comes to the server's FIN."""
    pieces: list[bytes] = []
    while True:
        server.pump(link)
        piece = link.receive()
        assert piece is not None
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


# -- The ends -----------------------------------------------------------------------------------


class Counted(PlainInsight):
    """Notes how many rows were made."""

    made = 0

    def connections(self, **words: str) -> Iterator[dict[str, Any]]:
        for number in range(10_000):
            self.made += 1
            yield {"id": f"a-{number:x}", "filler": "x" * 300}


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("buffers", [KIB, 64 * KIB])
def test_halfClose(version: bytes, buffers: int) -> None:
    """Who asks and sends FIN gets its whole answer, however long, and then FIN."""
    server = Server(insight=Counted())
    link = connect(server, buffers=buffers)
    request = b"GET /connections?limit=5000 HTTP/%b\r\nHost: localhost\r\n\r\n" % version
    link.send(request + (GET if version == b"1.1" else b""))
    link.finish()
    asked, *others = parseAll(drained(server, link))
    assert len(asked.json["connections"]) == 5000
    assert asked.json["consistent"] is False
    assert [each.line for each in others] == ["ready"] * (version == b"1.1")
    link.advance(1.0)
    assert link.gone


def test_halfRequest() -> None:
    """FIN amid a head: nobody has asked for anything."""
    link = connect(Server())
    link.send(b"GET /health HTTP/1.1\r\nHost:")
    link.finish()
    assert link.readAll() == b""
    assert link.gone


def test_readerThatStops() -> None:
    """Whoever does not read costs no more than the bound of a connection, and is cut."""
    insight = Counted()
    server = Server(insight=insight)
    link = connect(server, buffers=KIB, limits=Limits(stallTimeout=5.0))
    link.send(b"GET /connections?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server.pump(link)
    # Each has more than 300 bytes: as they are made, then as they wait to be sent.
    assert insight.made * 300 < BOUND
    made = insight.made
    link.advance(4.0)
    server.pump(link)
    assert insight.made == made
    link.advance(3.0)
    assert link.connection.reason is Reason.STALLED
    assert link.gone


@pytest.mark.parametrize("how", ["close", "reset"])
def test_readerThatGoes(how: str) -> None:
    """Whoever goes away amid a list costs nothing more."""
    insight = Counted()
    server = Server(insight=insight)
    link = connect(server, buffers=4 * KIB)
    link.send(b"GET /connections?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server.pump(link)
    link.receive()
    getattr(link, how)()
    server.pump(link)
    link.advance(1.0)
    server.pump(link)
    assert link.gone
    assert insight.made < 2000
    assert isinstance(server.clock, Clock)
    assert server.clock.calls == []


def test_goesBeforeItIsAnswered() -> None:
    """An answer that has not begun is not made."""
    insight = Counted()
    server = Server(insight=insight)
    link = connect(server)
    link.send(b"GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n")
    link.pump()
    link.reset()
    link.pump()
    assert link.gone
    server.pump(link)
    assert insight.made == 0


def test_whatRaises(loggedErrors: LoggedErrors) -> None:
    """Its own connection ends, and nothing is left over."""

    class Broken(PlainInsight):
        def closed(self, reason: str = "") -> Iterator[dict[str, Any]]:
            yield {"id": "a-1"}
            raise RuntimeError("broken")

    server = Server(insight=Broken())
    link = connect(server)
    link.send(b"GET /closed HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server.pump(link)
    assert link.connection.reason is Reason.ERROR
    assert len(loggedErrors.flush()) == 1
    assert isinstance(server.clock, Clock)
    assert server.clock.calls == []


# -- Deadlines -----------------------------------------------------------------------------------


def test_idle() -> None:
    """Who keeps a connection and asks nothing holds no place for ever; nor with half a head."""
    server = Server()
    for data in (b"", GET, b"GET"):
        link = connect(server, limits=Limits(idleTimeout=5.0))
        link.send(data)
        server.pump(link)
        link.receive()
        for _ in range(7):
            link.send(b"x" if data == b"GET" else b"")
            link.advance(1.0)
        link.readAll()
        assert link.connection.reason is Reason.IDLE


@pytest.mark.parametrize("data", [b"", GET, b"GET /heal"])
def test_drain(data: bytes) -> None:
    """One that nobody waits for ends at once."""
    server = Server()
    link = connect(server)
    link.send(data)
    server.pump(link)
    link.receive()
    link.connection.drain()
    assert link.readAll() == b""
    assert link.connection.reason is Reason.DRAIN


def test_drainAmidAnAnswer() -> None:
    """An answer that has begun is given whole, then comes our FIN."""
    server = Server(insight=Counted())
    link = connect(server, buffers=4 * KIB)
    link.send(b"GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server.pump(link)
    link.connection.drain()
    asked, rest = parse(drained(server, link))
    assert len(asked.json["connections"]) == 1000
    assert rest == b""
