"""
What a protocol writes, as records of TLS, and our own end of it: `SecuredOutput`.

Each write is encrypted, and goes on as any transport's.  Our end is close_notify, then FIN; after
close_notify nothing can be written.  A connection on which TLS has failed ends with OpenSSL's alert
(``_fail``).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from echod.errors import TLSFailed
from echod.tls.facts import reasonOf
from echod.transports.socket_stream import SocketStream

__all__ = ["REASON", "SecuredOutput"]

#: The `echod.connection.states.Reason` of a connection whose TLS the peer refuses, or breaks.
REASON = "tls"


class SecuredOutput(SocketStream):
    """
    The direction from us to the peer.

    `echod.transports.layers.secured.Secured` has the other direction too, and the handshake.
    """

    # Made with the first byte, so that a silent connection costs nothing.
    # Any: an SSLObject, or ``None`` while it is opening; what comes later asks no more.
    _tls: Any = None
    _outgoing: ssl.MemoryBIO

    # Our close_notify is out, or cannot be sent any more.
    _outputClosed = False
    # What still arrives is thrown away.
    _deaf = False

    def write(self, data: bytes) -> None:
        """Encrypt, and send as any transport does."""
        if self._outputClosed or not data:
            return
        if self._tls is None or self.opening:
            raise RuntimeError("nothing can be written before the handshake is done")
        try:
            self._encrypt(data)
        except TLSFailed as error:
            self._fail(error)
        else:
            self._sendRecords(len(data))

    def _encrypt(self, data: bytes | memoryview) -> None:
        """
        Make records of some bytes; the buffer in memory takes all.

        :raises TLSFailed: half a KeyUpdate has come, and OpenSSL writes nothing before the rest.
            A peer may cut it in two (RFC 8446 section 5.1), but none that means well does so
            with 5 bytes.
        """
        try:
            self._tls.write(data)
        except ssl.SSLWantReadError as error:
            raise TLSFailed("amid a handshake message of the peer") from error

    def _sendRecords(self, size: int) -> None:
        """Send the records that were made, which have ``size`` bytes of the protocol's in them."""
        records = self._outgoing.read()
        self.overhead += len(records) - size
        SocketStream.write(self, records)

    def _sendOwn(self) -> None:
        """Send what TLS has to say for itself."""
        self._sendRecords(0)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """See ``ITransport``: Twisted's would send what it is given."""
        self.write(b"".join(iovec))

    def startTLS(self, *arguments: object, **keywords: object) -> None:
        """See ``ITLSTransport``."""
        raise RuntimeError("this is TLS already")

    def _closeNotify(self) -> None:
        """Our close_notify, once; nothing can be written after it."""
        if self._outputClosed:
            return
        self._outputClosed = True
        if self._tls is None or self.opening:
            # The handshake will never be done.
            self._deaf = True
            return
        with suppress(ssl.SSLError):
            # It says that the peer's has not come.
            self._tls.unwrap()
        self._sendOwn()

    def loseWriteConnection(self) -> None:
        """Send close_notify, then FIN, after all that waits."""
        self._closeNotify()
        super().loseWriteConnection()

    def loseConnection(self) -> None:
        """See ``ITransport``."""
        self._closeNotify()
        super().loseConnection()

    def closeNow(self) -> None:
        """See `IConnectionTransport.closeNow`."""
        self._closeNotify()
        super().closeNow()

    def abortConnection(self) -> None:
        """See ``IAbortingTransport``: no close_notify, it was no clean end."""
        self._outputClosed = self._deaf = True
        super().abortConnection()

    def _fail(self, error: Exception) -> None:
        """What comes cannot be read, and OpenSSL writes nothing after its alert."""
        if self._outgoing.pending and not self._outputClosed:
            self._sendOwn()
        self.failure = reasonOf(error)
        self._deaf = self._outputClosed = True
        self.protocol.transportFailed(REASON)
