"""
TLS between two buffers in memory: `RecordPump`, for whoever moves the records himself.

A pump knows no socket: records come in by `RecordPump.feed` and go out by `RecordPump.records`, and
what wants more of them first is called again by `RecordPump.advance`.  The transport of a listener
(`echod.transports.layers.secured`) holds its two buffers itself, because each call counts there.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

__all__ = ["RecordPump", "TLSSide"]

_Result = TypeVar("_Result")


class TLSSide(Protocol):
    """How one side does TLS: a listener (`ServerTLS`), or a client (`ClientTLS.to`)."""

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """A connection over two buffers, its handshake still to come."""

    def verify(self, tls: ssl.SSLObject) -> None:
        """
        Check the peer, whose handshake is done.

        :raises TLSFailed: it is not who it should be.
        """


class RecordPump:
    """
    One end of a TLS connection.

    :param wrap: makes it over the two buffers, as ``ssl.SSLContext.wrap_bio`` does.
    :ivar tls: it.
    """

    def __init__(self, wrap: Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject]) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = wrap(self._incoming, self._outgoing)

    def feed(self, records: bytes) -> None:
        """Take in what has come."""
        self._incoming.write(records)

    def feedEnd(self) -> None:
        """Nothing comes any more: a truncation, if close_notify has not come."""
        self._incoming.write_eof()

    def records(self) -> bytes:
        """What is to be sent now."""
        return self._outgoing.read()

    def advance(
        self,
        act: Callable[[], _Result],
        send: Callable[[bytes], object],
        receive: Callable[[], bytes],
    ) -> _Result:
        """
        What ``act`` returns, as soon as enough has come for it.

        :param send: is given the records that are to be sent, maybe none.
        :param receive: gives some that have come, or ``b""`` at the end; what it raises ends the
            wait.
        :raises ssl.SSLError: TLS has failed; there may be an alert to be sent.
        """
        while True:
            try:
                result = act()
            except ssl.SSLWantReadError:
                send(self.records())
                if come := receive():
                    self.feed(come)
                else:
                    self.feedEnd()
            else:
                send(self.records())
                return result

    def closeNotify(self) -> bytes:
        """
        The record that ends our direction (RFC 8446 section 6.1); the peer's is not waited for.

        Records that have come already are kept: OpenSSL would take a close_notify before them for
        an error.
        """
        come = self._incoming.read()
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        if come:
            self._incoming.write(come)
        return self.records()
