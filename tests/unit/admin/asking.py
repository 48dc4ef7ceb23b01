"""A client of ``admin`` on a link in memory: `ask`, `Asked`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
from twisted.internet.task import Clock

from echod.admin.factory import AdminFactory
from echod.admin.maker import AdminOptions, admin
from echod.config.limits import Limits
from echod.testing import Link, PlainContext, memoryLink

__all__ = ["Asked", "Server", "ask", "connect", "get", "parse", "parseAll"]

KIB = 1024


class Server(PlainContext):
    """A context whose clock runs with the links'."""

    def pump(self, link: Link) -> None:
        """Let turns pass, of the link and of the context's clock, until nothing happens."""
        assert isinstance(self.clock, Clock)
        while True:
            link.pump()
            due = [call for call in self.clock.calls if call.getTime() <= self.clock.seconds()]
            if not due:
                return
            self.clock.advance(0)


@dataclass
class Asked:
    """
    An answer.

    :ivar headers: by their names in lower case.
    """

    version: str
    code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """Its body, decoded."""
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        assert self.body.endswith(b"}\n")
        assert self.body.count(b"\n") == 1
        return msgspec.json.decode(self.body)

    @property
    def line(self) -> str:
        """The one line of text that it is."""
        assert self.headers["content-type"] == "text/plain; charset=utf-8"
        text = self.body.decode()
        assert text.endswith("\n")
        assert text.count("\n") == 1
        return text[:-1]


def parse(data: bytes, method: str = "GET") -> tuple[Asked, bytes]:
    """The first answer in ``data``, and what comes behind it."""
    head, blank, rest = data.partition(b"\r\n\r\n")
    assert blank, data
    first, *lines = head.decode("ascii").split("\r\n")
    version, code, _ = first.split(" ", 2)
    names = [line.partition(": ")[0].lower() for line in lines]
    assert len(names) == len(set(names)), "a header stands there twice"
    headers = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines}
    asked = Asked(version, int(code), headers)
    if method == "HEAD":
        return asked, rest
    if headers.get("transfer-encoding") == "chunked":
        pieces = []
        while True:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            pieces.append(rest[:length])
            assert rest[length : length + 2] == b"\r\n"
            rest = rest[length + 2 :]
            if not length:
                break
        asked.body = b"".join(pieces)
    elif "content-length" in headers:
        length = int(headers["content-length"])
        asked.body, rest = rest[:length], rest[length:]
        assert len(asked.body) == length
    else:
        assert headers["connection"] == "close"
        asked.body, rest = rest, b""
    return asked, rest


def parseAll(data: bytes) -> list[Asked]:
    """All answers in ``data``."""
    found = []
    while data:
        asked, data = parse(data)
        found.append(asked)
    return found


def factory(context: PlainContext, **options: Any) -> AdminFactory:
    """What a listener of these options has."""
    made = admin.makeFactory(AdminOptions(**options), context)
    assert isinstance(made, AdminFactory)
    return made


def connect(
    context: PlainContext,
    *,
    buffers: int = 64 * KIB,
    limits: Limits | None = None,
    **options: Any,
) -> Link:
    """A link to a connection of a listener with these options."""
    connection = factory(context, **options).buildProtocol(None)
    return memoryLink(connection, limits=limits, sendBuffer=buffers, receiveBuffer=buffers)


def ask(context: Server, data: bytes, *, finish: bool = True, **options: Any) -> bytes:
    """Send ``data``, and FIN if that is wanted; what comes back, to the server's FIN if it ends."""
    link = connect(context, **options)
    view = memoryview(data)
    pieces = []
    while True:
        if view:
            view = view[link.send(view) :]
            if not view and finish:
                link.finish()
        context.pump(link)
        piece = link.receive()
        if piece:
            pieces.append(piece)
        elif piece is None:
            assert view or not finish, "it neither answers nor ends"
            if not view:
                break
        else:
            break
    return b"".join(pieces)


def get(context: Server, target: str, *headers: str, method: str = "GET", **options: Any) -> Asked:
    """The answer to one request."""
    head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *headers, "", ""])
    asked, rest = parse(ask(context, head.encode(), **options), method)
    assert rest == b""
    return asked
