"""
HTTP on a connection of echod's: `AdminConnection`, `AdminChannel`, `AdminRequest`.

`twisted.web.http` reads requests and writes answers.  What it does otherwise than is wanted here:

* it writes the body of a request to a file, from 100 kB on.  Here the head decides, and no request
  that has a body is taken;
* it begins the next of several requests that came together within the same turn, whether there is
  room for an answer or not.  Here an answer ends in a turn of its own, and when there is room;
* while a client that sends does not read, it keeps all that it sends.  Here reading stops;
* it takes the peer's FIN for the end of everything.  Here what was asked before is answered;
* what it says of a request that it cannot read has no header.  Here it has those of every answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.web import http

from echod.admin.bodies import Reply, line
from echod.admin.guards import HEADERS
from echod.kit.twisted_protocol import TwistedProtocolConnection

if TYPE_CHECKING:
    from echod.admin.factory import AdminFactory

__all__ = ["AdminChannel", "AdminConnection", "AdminRequest"]

#: Bytes of a head, and of one line of it; a browser sends about 1000.
HEAD = 16384
#: Headers of a request.
MOST_HEADERS = 100

#: Bytes of later requests that are kept while one is being answered, and of a read.
AHEAD = 16384

#: RFC 9110 section 15 and RFC 6585: those that `twisted.web` does not know, or by another name.
_PHRASES = {
    413: b"Content Too Large",
    421: b"Misdirected Request",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
}


class AdminConnection(TwistedProtocolConnection):
    """The connection that a channel runs on: what it knows of requests, the channel tells it."""

    # Only what is answered: a head that comes a byte a minute is none.
    bytesAreProgress = False
    largestRead = AHEAD

    def __init__(self, channel: AdminChannel) -> None:
        super().__init__(channel)
        self._channel = channel
        channel.connection = self

    def unanswered(self) -> bool:
        """Whether a request is being answered: our FIN waits for that."""
        return self._channel.answering


class AdminChannel(http.HTTPChannel):
    """
    One client's requests, one after another.

    :ivar connection: what it runs on.
    :ivar answering: whether a request is being answered.
    """

    connection: AdminConnection
    # Deadlines are the connection's.
    timeOut = None
    MAX_LENGTH = HEAD
    # These are looked at here, so that there is an answer.
    totalHeadersSize = 2 * HEAD
    maxHeaders = 2 * MOST_HEADERS

    def __init__(self, factory: AdminFactory) -> None:
        super().__init__()
        self.admin = factory
        self.requestFactory = AdminRequest
        self.answering = False
        # Of the head that is being read.
        self._headBytes = self._headerCount = 0
        # What has come of later requests.
        self._ahead = 0

    def lineReceived(self, line: bytes) -> None:
        """A line of a head."""
        self._headBytes += len(line) + 2
        if self._headBytes > HEAD:
            self.lineLengthExceeded(line)
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """The head is too long."""
        self._refuse(431, f"a head has {HEAD} bytes at most")

    def headerReceived(self, line: bytes) -> bool:
        """A header, whole; returns whether it can be taken."""
        self._headerCount += 1
        if self._headerCount > MOST_HEADERS:
            self._refuse(431, f"a request has {MOST_HEADERS} headers at most")
            return False
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # A Content-Length of thousands of digits.
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        """The head is whole."""
        self._headBytes = self._headerCount = 0
        super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        """What comes while a request is being answered: kept for later."""
        super().rawDataReceived(data)
        self._ahead += len(data)
        if self._ahead > AHEAD:
            # `requestDone` reads on.
            self.connection.holdInput()

    def checkPersistence(self, request: http.Request, version: bytes) -> bool:
        """Whether another request may follow: not in HTTP/1.0."""
        said = b",".join(request.requestHeaders.getRawHeaders(b"Connection", []))
        words = {word.strip().lower() for word in said.split(b",")}
        return version == b"HTTP/1.1" and b"close" not in words

    def requestDone(self, request: http.Request) -> None:
        """An answer is whole: begin the next, if it was asked for already."""
        self.answering = False
        # What was kept comes again.
        self._ahead = 0
        super().requestDone(request)
        if not self.answering:
            self.connection.answered()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # What HTTPChannel calls for whatever it cannot read.
        self._refuse(400, "this is no request of HTTP/1.0 or HTTP/1.1")

    def _refuse(self, code: int, text: str) -> None:
        """Answer what is no request, and end."""
        reply = line(code, text)
        head = [b"HTTP/1.1 %d %s" % (code, _phrase(code))]
        head += [b"%s: %s" % header for header in _headers(reply, persistent=False)]
        self.write(b"\r\n".join([*head, b"", b"".join(reply.pieces)]))
        self.persistent = 0
        self.loseConnection()


def _phrase(code: int) -> bytes:
    return _PHRASES.get(code) or http.RESPONSES[code]


def _headers(reply: Reply, *, persistent: bool) -> list[tuple[bytes, bytes]]:
    """All headers of an answer."""
    headers = [(b"Date", http.datetimeToString()), (b"Content-Type", reply.kind), *HEADERS]
    if reply.length is not None:
        headers.append((b"Content-Length", b"%d" % reply.length))
    if not persistent:
        headers.append((b"Connection", b"close"))
    return [*headers, *reply.headers]


class AdminRequest(http.Request):
    """
    One request.

    :ivar hasBody: whether its head speaks of a body.
    :ivar expects: whether its head wants to hear something before that.
    """

    channel: AdminChannel
    hasBody = False
    expects = False

    def gotLength(self, length: int | None) -> None:
        """Take nothing of a body: the head is answered, and that is the end."""
        self.hasBody = length != 0 or self.requestHeaders.hasHeader(b"Transfer-Encoding")
        self.expects = self.requestHeaders.hasHeader(b"Expect")
        if self.hasBody or self.expects:
            # Else "100 Continue" would be said.
            self.requestHeaders.removeHeader(b"Expect")
            self.channel.length = 0
            self.channel.persistent = 0

    def parseCookies(self) -> None:
        """There are none."""

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Its head is whole."""
        self.method, self.uri, self.clientproto = command, path, version
        self.channel.answering = True
        self.channel.admin.answer(self)

    def begin(self, reply: Reply) -> None:
        """Write the head of its answer."""
        self.setResponseCode(reply.code, _phrase(reply.code))
        persistent = bool(self.channel.persistent)
        for name, value in _headers(reply, persistent=persistent):
            self.responseHeaders.addRawHeader(name, value)
        # Else it would be written with the first piece, which there need not be.
        self.write(b"")

    def end(self) -> None:
        """Its answer is whole."""
        self.unregisterProducer()
        self.finish()
