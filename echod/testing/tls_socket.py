"""
A client's end of TLS on a socket that does not block: `TLSSocket`.

Nothing is decided for the caller: half-close is close_notify and FIN, an end without close_notify
is an error, and what a kernel does not take is told as a kernel tells it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from echod.tls.record_pump import RecordPump

__all__ = ["TLSSocket"]

#: RFC 8446 section 5.1.
RECORD = 16384
#: Bytes of a read.
READ = 65536

_Result = TypeVar("_Result")


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
        self._pump = RecordPump(
            lambda incoming, outgoing: context.wrap_bio(
                incoming, outgoing, server_hostname="localhost"
            )
        )
        self.tls = self._pump.tls
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
        try:
            self._advance(self.tls.do_handshake)
        except BlockingIOError:
            return False
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
        if not self._plain:
            try:
                self._plain = self._advance(lambda: self.tls.read(RECORD))
            except ssl.SSLZeroReturnError:
                return b""
        data, self._plain = self._plain[:limit], self._plain[limit:]
        return data

    def _advance(self, act: Callable[[], _Result]) -> _Result:
        return self._pump.advance(act, self._send, lambda: self._socket.recv(READ))

    def flush(self) -> None:
        """Send what the kernel takes."""
        self._send(self._pump.records())

    def _send(self, records: bytes) -> None:
        self._waiting += records
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
        self._waiting += self._pump.closeNotify()
        self._finishing = True
        self.flush()

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """See ``socket.setsockopt``."""
        self._socket.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """See ``socket.getsockopt``."""
        return self._socket.getsockopt(level, option, size)

    def fileno(self) -> int:
        """See ``socket.fileno``."""
        return self._socket.fileno()

    def close(self) -> None:
        """See ``socket.close``: without close_notify."""
        self._socket.close()
