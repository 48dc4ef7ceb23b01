"""
Every protocol through the public conformance kit; and the kit through what is broken.

The three ways to write the same protocol (rot13, in ``examples/``) pass the same checks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from echod_rot13 import TABLE, rot13, rot13_lines, rot13_twisted
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo

from echod.connection.connection import Connection
from echod.connection.states import Reason
from echod.errors import ConfigurationError, StreamLost
from echod.interfaces import IStreamProtocolMaker
from echod.kit.makers import ConnectionMaker, FactoryMaker, StreamMaker
from echod.kit.stream import Stream
from echod.protocols.line import LineOptions
from echod.protocols.prefixed import DNSOptions
from echod.server.registry import BUILTIN
from echod.testing import Link, checkProtocol, memoryLink, tcpLink, unixLink
from echod.testing.conformance import SAMPLE
from echod.testing.links import _MemoryServer
from echod.testing.memory_pipes import MemoryPipes
from echod.transports.pipes import Pipe, Pipes
from echod.wire.framing import LengthPrefixed, netstring
from tests.unit.counted_pipes import CountedMemoryPipes, CountedPipes

MAKERS: dict[str, Any] = {maker.name: maker for maker in BUILTIN}
LINES = b"Hello, world!\r\n\nthe end\n"


def wholeLines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def wholeFrames(width: int) -> Callable[[bytes], bytes]:
    return lambda data: LengthPrefixed(width, 1 << 16).feed(data)


def frames(width: int) -> bytes:
    bodies = (b"Hello, world!", b"", bytes(range(200)))
    return b"".join(len(body).to_bytes(width, "big") + body for body in bodies)


CASES: dict[str, tuple[Any, Any, bytes, Callable[[bytes], bytes] | bytes | None]] = {
    "raw": (MAKERS["raw"], None, SAMPLE, lambda data: data),
    "line": (MAKERS["line"], None, SAMPLE, wholeLines),
    "line with a prefix": (
        MAKERS["line"],
        LineOptions(prefix="Echo: "),
        LINES,
        b"Echo: Hello, world!\r\nEcho: \nEcho: the end\n",
    ),
    "line until quit": (MAKERS["line"], LineOptions(quit="q"), b"a\nq\nb\n", b"a\nBye.\n"),
    "dns": (MAKERS["dns"], None, frames(2), wholeFrames(2)),
    "int8": (MAKERS["int8"], None, frames(1), wholeFrames(1)),
    "int32": (MAKERS["int32"], None, frames(4), wholeFrames(4)),
    "netstring": (
        MAKERS["netstring"],
        None,
        b"13:Hello, world!,0:,3:end,",
        lambda data: netstring(1 << 16).feed(data),
    ),
    "discard": (MAKERS["discard"], None, SAMPLE, lambda data: b""),
    "whoami": (MAKERS["whoami"], None, SAMPLE, None),
    "upper": (MAKERS["upper"], None, LINES, lambda data: wholeLines(data).upper()),
    "rot13, a coroutine": (rot13, None, SAMPLE, lambda data: data.translate(TABLE)),
    "rot13, lines": (rot13_lines, None, LINES, lambda data: wholeLines(data).translate(TABLE)),
    "rot13, Twisted's": (rot13_twisted, None, SAMPLE, lambda data: data.translate(TABLE)),
    "Twisted's Echo": (
        FactoryMaker("wire", "Twisted's own", lambda: Factory.forProtocol(Echo)),
        None,
        SAMPLE,
        lambda data: data,
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_conforms(case: str) -> None:
    """Whole and byte by byte, half-close, stall, pause, loss, drain, bad settings."""
    maker, settings, sample, answer = CASES[case]
    checkProtocol(maker, settings, sample=sample, answer=answer)


@pytest.mark.parametrize("case", ["dns", *(name for name in CASES if name.startswith("rot13"))])
@pytest.mark.parametrize("link", [tcpLink, unixLink], ids=["tcp", "unix"])
def test_conformsOverAKernel(case: str, link: Any) -> None:
    """The same where a real kernel is between: each way to write a protocol."""
    maker, settings, sample, answer = CASES[case]
    checkProtocol(maker, settings, sample=sample, answer=answer, link=link)


def test_conformsOverTLS(certificates: Any) -> None:
    """A part of a record has arrived at the client and cannot be read: nothing is missing."""
    maker, settings, sample, answer = CASES["raw"]
    link = partial(tcpLink, security=certificates.security("1.3"))
    checkProtocol(maker, settings, sample=sample, answer=answer, link=link)


def test_lowerMaximum() -> None:
    """Settings that are given are those that are used."""
    with pytest.raises(AssertionError, match="wholeInput: 17 bytes came back instead of 219"):
        checkProtocol(
            MAKERS["dns"], DNSOptions(maxLength=20), sample=frames(2), answer=wholeFrames(2)
        )


# -- Protocols that break one promise each -----------------------------------------------------


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """Takes anything for ``what``."""

    what: Any = None


async def _packets(stream: Stream) -> None:
    async for data in stream:
        await stream.write(b"<" + data + b">")


async def _forgetsTheEnd(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)
    stream.abort()


async def _neverEnds(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)
    await Deferred()


async def _complains(stream: Stream) -> None:
    try:
        async for data in stream:
            await stream.write(data)
    except StreamLost as error:
        raise KeyError("lost") from error


async def _expectsBytes(stream: Stream) -> None:
    await stream.write((await stream.readExactly(1)) + await stream.read())
    async for data in stream:
        await stream.write(data)
    assert False, "an end is no end"  # noqa: B011, PT015  # whatever it raises


class _Hoards(Connection):
    def received(self, data: bytes) -> None:
        self.reply(b"".join(data[at : at + 1] * 200 for at in range(len(data))))


class _LeavesAtOnce(Connection):
    def received(self, data: bytes) -> None:
        self.reply(data)

    def ended(self) -> None:
        self.abort(Reason.ERROR)


class _Stays(Connection):
    def received(self, data: bytes) -> None:
        self.reply(data)

    def unanswered(self) -> bool:
        return self.bytesIn > 1000


class _Swaps(Connection):
    """Answers in the wrong order once it has been paused."""

    def received(self, data: bytes) -> None:
        self.reply(data[::-1] if self.pauses else data)


BROKEN: dict[str, tuple[IStreamProtocolMaker, str]] = {
    "packets": (StreamMaker("x", "x", _packets), "byteByByte: "),
    "forgets the end": (StreamMaker("x", "x", _forgetsTheEnd), "reset|came back"),
    "never ends": (StreamMaker("x", "x", _neverEnds), "neither sends nor ends"),
    "complains": (StreamMaker("x", "x", _complains), "the log has .*KeyError"),
    "expects bytes": (StreamMaker("x", "x", _expectsBytes), "the log has|reset|came back"),
    "hoards": (ConnectionMaker("x", "x", _Hoards), "stalledReader: [0-9]+ bytes wait"),
    "leaves at once": (ConnectionMaker("x", "x", _LeavesAtOnce), "reset|drain"),
    "stays": (ConnectionMaker("x", "x", _Stays), "neither sends nor ends"),
    "swaps": (ConnectionMaker("x", "x", _Swaps), "bytes came back instead of"),
    "options": (
        ConnectionMaker("x", "x", lambda settings: Connection(), Options),
        r"badSettings: Options takes \{'what': \[\[\]\]\}",
    ),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_kitFindsIt(case: str, loggedErrors: Any) -> None:
    """A kit that cannot fail proves nothing."""
    maker, message = BROKEN[case]
    with pytest.raises((AssertionError, ConnectionResetError), match=message):
        checkProtocol(maker)
    loggedErrors.flush()


def test_kitVerifies() -> None:
    """What the registry would leave out does not get as far as a connection."""
    maker = ConnectionMaker("No Name", "x", _Hoards)
    with pytest.raises(ConfigurationError, match="does not match"):
        checkProtocol(maker)


# -- Bulk that waits in a pipe -----------------------------------------------------------------


def checkRaw(makeLink: Callable[..., Link], makePipes: Callable[[], Pipes]) -> list[Any]:
    """Put raw through the kit; returns the pipes of each of its links."""
    used = []

    def link(protocol: IProtocol, **keywords: Any) -> Link:
        made = makeLink(protocol, **keywords)
        # Any: one that has pipes.
        transport: Any = made.connection.transport
        transport.pipes = makePipes()
        used.append(transport.pipes)
        return made

    checkProtocol(MAKERS["raw"], answer=lambda data: data, link=link)
    return used


@pytest.mark.parametrize(
    ("makeLink", "makePipes"),
    [(memoryLink, CountedMemoryPipes), (tcpLink, CountedPipes), (unixLink, CountedPipes)],
    ids=["memory", "tcp", "unix"],
)
def test_bulkWaitsInPipes(
    makeLink: Callable[..., Link], makePipes: Callable[[], CountedPipes]
) -> None:
    """In each of the four checks that stall a peer, a rest of what is echoed unseen waits so."""
    assert sum(pipes.refused > 0 for pipes in checkRaw(makeLink, makePipes)) >= 4


class _ForgetsTheRest(_MemoryServer):
    def _keep(self, pipe: Pipe, rest: int) -> None:
        super()._keep(pipe, rest)
        pipe.held = 0


class _LosesTheRest(_MemoryServer):
    def _emptyPipe(self, pipe: Pipe, pipes: Pipes) -> None:
        self._pipe = None
        pipes._close(pipe)


class _SendsNoRest(_MemoryServer):
    def _emptyPipe(self, pipe: Pipe, pipes: Pipes) -> None:
        pass


class _CountsNoRest(_MemoryServer):
    def _inPipe(self) -> int:
        return 0


class _LeavesThePipe(_MemoryServer):
    def _leavePipes(self) -> None:
        self._joined = None


BROKEN_BULK: dict[str, tuple[type[_MemoryServer], str]] = {
    "forgets the rest": (_ForgetsTheRest, "halfCloseWithPendingOutput: [0-9]+ bytes came back"),
    "loses the rest": (_LosesTheRest, "halfCloseWithPendingOutput: [0-9]+ bytes came back"),
    "sends no rest": (_SendsNoRest, "still there after both FINs"),
    "counts no rest": (_CountsNoRest, "stalledReader: [0-9]+ bytes wait that are not counted"),
    "leaves the pipe": (_LeavesThePipe, "neverReads: still there"),
}


@pytest.mark.parametrize("case", list(BROKEN_BULK))
def test_kitFindsItInBulk(case: str) -> None:
    """The same of a transport that breaks one promise once a rest is in a pipe."""
    kind, message = BROKEN_BULK[case]
    with pytest.raises(AssertionError, match=message):
        checkRaw(partial(memoryLink, transport=kind), MemoryPipes)
