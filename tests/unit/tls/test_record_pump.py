"""`echod.tls.record_pump`: two pumps, and the records between them."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress

import pytest

from echod.config.tls_settings import TLSSettings
from echod.tls.context import ClientTLS, ServerTLS
from echod.tls.record_pump import RecordPump
from tests.certificates import Certificates


@pytest.fixture
def ends(certificates: Certificates) -> tuple[RecordPump, RecordPump]:
    """A client and a server that have shaken hands."""
    client = RecordPump(ClientTLS(ca=certificates.ca).to("localhost").wrap)
    server = RecordPump(ServerTLS(TLSSettings(cert=certificates.server)).wrap)
    client.advance(client.tls.do_handshake, server.feed, answered(server))
    server.advance(server.tls.do_handshake, client.feed, client.records)
    return client, server


def answered(other: RecordPump) -> Callable[[], bytes]:
    """Receives what ``other`` says to what it was fed."""

    def receive() -> bytes:
        with pytest.raises(ssl.SSLWantReadError):
            other.tls.do_handshake()
        return other.records()

    return receive


def test_bothWays(ends: tuple[RecordPump, RecordPump]) -> None:
    client, server = ends
    client.advance(lambda: client.tls.write(b"hello"), server.feed, client.records)
    assert server.advance(lambda: server.tls.read(99), client.feed, server.records) == b"hello"


def test_closeNotifyBehindWhatHasCome(ends: tuple[RecordPump, RecordPump]) -> None:
    """A record that has come and was not read is no reason to fail, and can be read afterwards."""
    client, server = ends
    server.tls.write(b"late")
    client.feed(server.records())
    end = client.closeNotify()
    server.feed(end)
    assert server.tls.read(99) == b""
    assert client.tls.read(99) == b"late"


def test_nobodyIsThere(ends: tuple[RecordPump, RecordPump]) -> None:
    """What receiving raises ends the wait, and so does ``b""``, in the words of this OpenSSL."""
    client, _ = ends

    def receive() -> bytes:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        client.advance(lambda: client.tls.read(99), lambda records: None, receive)
    # Before CPython 3.11.4 a truncation is told as an end.
    with suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):
        ended = client.advance(lambda: client.tls.read(99), lambda records: None, lambda: b"")
        assert ended == b""
