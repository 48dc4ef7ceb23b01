"""`IConnectionTransport.brokenBy`: the kernel's error is kept, whichever call was told of it."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost

from echod.connection.states import Reason
from echod.protocols.raw import RawOptions, raw
from echod.testing import Link, memoryLink
from echod.transports.layers.secured import Secured
from echod.transports.ports import layered
from tests.unit.outer import reset, waitUntil
from tests.unit.transports.test_bulk_echo import Link as SocketLink

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"


def memory(header: bytes = b"", transport: Any = None, **options: Any) -> Link:
    protocol: Any = raw.makeFactory(RawOptions(**options)).buildProtocol(None)  # type: ignore[arg-type]  # no address
    return memoryLink(protocol, header=header, transport=transport)


def fail(link: Link, **faults: list[int]) -> Any:
    """Have calls fail, with something to read; returns the transport."""
    transport: Any = link.connection.transport
    transport.socket.faults.update(faults)
    link.send(b"x" * 100)
    link.pump()
    return transport


@pytest.mark.parametrize("code", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ECONNRESET])
@pytest.mark.parametrize("word", ["", "never"], ids=["unseen", "seen"])
@pytest.mark.parametrize("header", [b"", HEADER], ids=["plain", "proxied"])
def test_read(code: int, word: str, header: bytes) -> None:
    """A read that fails says why it is over."""
    link = memory(header, quit=word)
    link.pump()
    transport = fail(link, recv=[code])
    assert link.gone
    assert link.connection.reason is Reason.RESET
    assert transport.brokenBy == code


def test_readOfHeader() -> None:
    """So does a look for a PROXY header; and taking the header out of the queue."""
    for name in ("MSG_PEEK", "MSG_TRUNC"):
        transport = fail(memory(HEADER), **{name: [errno.EHOSTUNREACH]})
        assert transport.brokenBy == errno.EHOSTUNREACH


def test_readOfTLS() -> None:
    """So does a read of records."""
    secured: Any = layered(Secured, type(memory().connection.transport))  # type: ignore[arg-type]  # of one's own
    link = memory(transport=secured)
    assert fail(link, recv=[errno.ETIMEDOUT]).brokenBy == errno.ETIMEDOUT


@pytest.mark.parametrize("word", ["", "never"], ids=["unseen", "seen"])
def test_write(word: str) -> None:
    """A send that fails says it too, once the read is told."""
    link = memory(quit=word)
    link.pump()
    transport = fail(link, send=[errno.EHOSTUNREACH])
    assert transport.brokenBy == errno.EHOSTUNREACH
    link.finish()
    link.pump()
    assert link.connection.reason is Reason.RESET
    assert transport.brokenBy == errno.EHOSTUNREACH


def test_pendingWrite() -> None:
    """So does one that had to wait for room."""
    link = memory(quit="never")
    for _ in range(3):
        link.send(bytes(60_000))
        link.pump()
    transport: Any = link.connection.transport
    assert transport.dataBuffer
    transport.socket.faults["send"] = [errno.ENETUNREACH]
    link.receive(60_000)
    link.pump()
    assert link.gone
    assert transport.brokenBy == errno.ENETUNREACH


@pytest.mark.parametrize("call", ["MSG_PEEK", "send", "MSG_TRUNC"])
def test_inPlace(call: str) -> None:
    """So does each call of an echo in place."""
    link = memory(in_place=True)
    for _ in range(20):
        link.send(bytes(60_000))
        link.pump()
        link.receive(1 << 20)
    transport: Any = link.connection.transport
    transport.socket.faults[call] = [errno.ETIMEDOUT]
    link.send(bytes(60_000))
    link.pump()
    # Where a read was small the next one tells.
    link.finish()
    link.pump()
    assert link.gone
    assert transport.brokenBy == errno.ETIMEDOUT


def test_theFirstRealError() -> None:
    """EPIPE gives way to another error; no other does."""
    link = memory(quit="never")
    link.pump()
    transport = fail(link, send=[errno.EPIPE])
    assert transport.brokenBy == errno.EPIPE
    assert fail(link, recv=[errno.ETIMEDOUT]) is transport
    assert transport.brokenBy == errno.ETIMEDOUT
    link = memory(quit="never")
    link.pump()
    fail(link, send=[errno.ETIMEDOUT])
    assert fail(link, recv=[errno.ECONNRESET]).brokenBy == errno.ETIMEDOUT


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENOMEM, errno.EINTR])
def test_passing(code: int) -> None:
    """An error that passes breaks nothing."""
    link = memory(quit="never")
    link.pump()
    transport = fail(link, recv=[code], send=[code])
    assert link.receive() == b"x" * 100
    link.finish()
    assert link.readAll() == b""
    assert link.gone
    assert transport.brokenBy == 0


@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_reset(family: int, paused: bool) -> None:
    """A peer's RST is told by a read; of one that does not read by epoll, and SO_ERROR."""
    link = SocketLink(family)
    if paused:
        link.transport.stopReading()
    # Over a UNIX socket only unread bytes make it a reset.
    link.transport.write(b"x")
    reset(link.client)
    waitUntil(link.outer.turn, lambda: link.transport.disconnected)
    assert link.protocol.ends[-1] is ConnectionLost
    assert link.transport.brokenBy == errno.ECONNRESET


def test_failed() -> None:
    """Who asks for it and is told that it has failed finds out by what."""
    link = SocketLink()
    link.transport.stopReading()
    reset(link.client)
    waitUntil(lambda _: None, link.transport.failed)
    assert link.transport.brokenBy == errno.ECONNRESET
    link.transport.abortConnection()
    waitUntil(link.outer.turn, lambda: link.transport.disconnected)


@pytest.mark.parametrize("inPlace", [False, True], ids=["pipe", "in place"])
def test_stalledBulk(inPlace: bool) -> None:
    """RST while bulk waits for a peer that does not read."""
    link = SocketLink(inPlace=inPlace)
    link.stall()
    reset(link.client)
    waitUntil(link.outer.turn, lambda: link.transport.disconnected)
    assert link.transport.brokenBy == errno.ECONNRESET


def test_cleanEnd() -> None:
    """FIN breaks nothing."""
    with SocketLink() as link:
        transport = link.transport
    assert transport.brokenBy == 0
