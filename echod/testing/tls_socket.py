"""
A client's end of TLS on a socket that does not block: `TLSSocket`.

Nothing is decided for the caller: half-close is close_notify and FIN, an end without close_notify
is an error, and what a kernel does not take is told as a kernel tells it.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Any

__all__ = ["TLSSocket"]

#: RFC 8446 section 5.1.
RECORD = 16384


class TLSSocket:
    """
    The socket methods that a `Link`'s client needs, over TLS.

    :param skt: connected; it is made not to block, and is this one's from here on.
    :param context: the client's.
    :param record: bytes of plain text that one record takes at most.
    """

    def __init__(self, skt: socket.socket, context: ssl.SSLContext, record: int = RECORD) -> None:
        skt.setblocking(False)
        self._socket = skt
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._record = record
        # Decrypted, and not asked for yet.
        self._plain = b""
        # Encrypted, and not taken by the kernel yet; whether FIN is to follow it.
        self._waiting = b""
        self._finishing = False

    def shakeHands(self) -> bool:
        """
        Go on with the handshake; whether it is done.

        :raises ssl.SSLError: it has failed.
        """
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                if not self._read():
                    return False
            else:
                self.flush()
                return True

    def send(self, data: bytes) -> int:
        """
        See ``socket.send``.

        :raises BlockingIOError: the kernel takes nothing now.
        """
        self.flush()
        if self._waiting:
            raise BlockingIOError
        count = self.tls.write(data[: self._record]) if data else 0
        self.flush()
        return count

    def recv(self, limit: int) -> bytes:
        """
        See ``socket.recv``: ``b""`` after the server's close_notify.

        :raises ssl.SSLEOFError: FIN without it.
        :raises BlockingIOError: nothing has arrived.
        """
        self.flush()
        while not self._plain:
            try:
                self._plain = self.tls.read(RECORD)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                if not self._read():
                    raise BlockingIOError from None
            else:
                if not self._plain:
                    return b""
        data, self._plain = self._plain[:limit], self._plain[limit:]
        return data

    def _read(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return False
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return True

    def flush(self) -> None:
        """Send what the kernel takes."""
        self._waiting += self._outgoing.read()
        with suppress(BlockingIOError):
            while self._waiting:
                self._waiting = self._waiting[self._socket.send(self._waiting) :]
        if self._finishing and not self._waiting:
            self._finishing = False
            self._socket.shutdown(socket.SHUT_WR)

    def shutdown(self, how: int) -> None:
        """See ``socket.shutdown``: close_notify and FIN, behind all that was sent."""
        # Whole records that wait would be an error to OpenSSL.
        with suppress(ssl.SSLWantReadError):
            while data := self.tls.read(RECORD):
                self._plain += data
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self._finishing = True
        self.flush()

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """See ``socket.setsockopt``."""
        self._socket.setsockopt(level, option, value)

    def close(self) -> None:
        """See ``socket.close``: without close_notify."""
        self._socket.close()
