"""
TLS over echod's own stream transports (RFC 8446, RFC 5246), with both directions' ends kept.

`Secured` is mixed into a transport.  What arrives is decrypted before the protocol sees it, what
the protocol writes is encrypted before the transport does
(`echod.transports.layers.secured_output`): so the transport's buffer, its high-water mark,
``unsent`` and FIN are those of the records on the wire, and half-close, backpressure and deadlines
are the same as over TCP.  ``ssl.SSLObject`` does the cryptography, on two memory buffers.

The peer's close_notify is its end (``readConnectionLost``); what it is owed is still sent.  Our
end is close_notify, then FIN.  A peer's FIN without close_notify is `Secured.truncated`.  A
record that cannot be decrypted, or a handshake that fails, is answered with OpenSSL's alert, then
FIN; whatever still arrives is read and thrown away, because closing with unread input would
destroy the alert.

Bounds, in user memory: one read (64 KiB) and an unfinished record (16 KiB) on the way in, and what
the transport buffers on the way out.  Plain text waits here only while reading is stopped.  A peer
can have OpenSSL itself write, by asking for other keys (KeyUpdate, RFC 8446 section 4.6.3): such
answers are limited too (`ANSWERS`).

Each record costs time, whatever is in it, and a KeyUpdate costs most.  So reads become small again
while less than half of what comes is plain text.  A long record that comes in parts is not taken
for that.
"""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure

from echod.errors import TLSFailed
from echod.tls.facts import TLSFacts, tlsFacts
from echod.tls.record_pump import TLSSide
from echod.transports.layers.secured_output import SecuredOutput
from echod.transports.socket_stream import FIRST_READ, TRY_AGAIN

__all__ = ["ANSWERS", "OVERHEAD", "RECORD", "Secured"]

#: What records add to the bytes in them, for a read that shall take in several whole ones
#: (RFC 8446 section 5.2: 5 bytes of header, at most 256 of the rest; in practice 17).
OVERHEAD = 512
#: Bytes of plain text in one record (RFC 8446 section 5.1).
RECORD = 16384
#: Bytes of answers to KeyUpdates that may wait while a peer does not read: thousands of them.
ANSWERS = 131072

_eof = Failure(CONNECTION_DONE)

# Where a record is that is being echoed; free again when doRead returns.
_scratch = memoryview(bytearray(RECORD))


class Secured(SecuredOutput):
    """
    Encrypts what a transport sends, and decrypts what it reads.

    A class with this in it says what its `security` is.
    """

    @property
    def security(self) -> TLSSide:
        """What to wrap the connection with, and who it must be."""
        raise NotImplementedError

    _incoming: ssl.MemoryBIO

    # Whether there is a part of a record in _incoming.
    _partial = False
    # Decrypted, and not delivered because reading was stopped; written by _decrypt and _deliver.
    _plain = b""
    # Whether reading is stopped; whether a turn to go on in is on its way.
    _stopped = False
    _resuming = False
    # The peer's close_notify is in.
    _closeNotified = False
    # Bytes that have come since a read last was plain text for the half of it.
    _bare = 0
    # Bytes of answers to KeyUpdates that have come to wait behind something else.
    _answers = 0
    # Bytes of the kernel's queue that have not been read since `unread` was asked, if it was.
    _asked = 0
    _tells = False

    opening = True
    # A step of a handshake costs a millisecond (RSA of 2048 bits, a client's chain), however few
    # bytes it comes of: so whoever is amid one waits in line with those who send much.
    readsMuch = True
    tls: TLSFacts | None = None

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The protocol that ALPN chose, if any (``INegotiated``)."""
        return None if self.tls is None or self.tls.alpn is None else self.tls.alpn.encode()

    def facts(self) -> dict[str, Any]:
        """See `IConnectionTransport.facts`."""
        facts = super().facts()
        if self.tls is not None:
            facts["tls"] = self.tls
        return facts

    def _outerLayersDone(self) -> None:
        """See `SocketStream`: the handshake is next, and nothing of that was heard."""
        self.heard = False

    def beginOpening(self) -> None:
        """See `IConnectionTransport.beginOpening`: a server waits."""

    def doRead(  # type: ignore[override]  # as SocketStream
        self,
    ) -> ConnectionDone | ConnectionLost | None:
        """Read once, decrypt, and deliver."""
        size = self._readSize
        try:
            # What was asked for comes alone, so that its end is known.
            data = self.socket.recv(min(size, self._asked) if self._tells else size + OVERHEAD)
        except OSError as error:
            return None if error.errno in TRY_AGAIN else self._lostBy(error)
        length = len(data)
        if not length:
            self.truncated = self.heard and not self._deaf
            return CONNECTION_LOST if self._broken else CONNECTION_DONE
        if self._tells:
            self._asked -= length
        self.readsMuch = length >= size >= self._largestRead
        self._adaptReads(size, length)
        if self._deaf:
            # Nobody is told of its end, and to read none of it would look like the peer's.
            self._tells = False
            return None
        if self.opening:
            self._shakeHands(data)
            self.readsMuch = self.readsMuch or self.opening
        else:
            self._incoming.write(data)
            plain = self._echo(self._tls) if self._mayEcho else self._decrypt(self._tls, length)
            if 2 * plain < length:
                self._readLess(length)
            elif self._bare:
                self._bare = 0
        return self._deliver()

    def _readLess(self, length: int) -> None:
        """
        Ask for little again, if what has come is more than a part of one long record.

        And wait in line if it was no single short message: a hundred KeyUpdates take milliseconds.
        """
        self.readsMuch = self.readsMuch or 2 * length >= FIRST_READ
        self._bare += length
        if self._bare >= RECORD + OVERHEAD:
            self._readSize = min(self._readSize, FIRST_READ)

    def _shakeHands(self, data: bytes) -> None:
        """Go on with the handshake; what may be behind it is decrypted before that is told."""
        self.heard = True
        tls = self._tls or self._wrap()
        self._incoming.write(data)
        try:
            tls.do_handshake()
            self.security.verify(tls)
            # Now: amid a later message of a handshake OpenSSL does not say.
            self.tls = tlsFacts(tls)
        except ssl.SSLWantReadError:
            self._sendOwn()
        except (ssl.SSLError, TLSFailed) as error:
            self._fail(error)
        else:
            self._sendOwn()
            self.opening = False
            self._decrypt(tls, len(data))
            self.protocol.handshakeCompleted()

    def _wrap(self) -> ssl.SSLObject:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls: ssl.SSLObject = self.security.wrap(self._incoming, self._outgoing)
        self._tls = tls
        return tls

    def _decrypt(self, tls: ssl.SSLObject, length: int) -> int:
        """
        Take every whole record out of the buffer.

        Nothing but a part of one is left there: OpenSSL would not forgive a close_notify of ours
        before them.

        :param length: bytes that have just come.
        :returns: bytes of plain text that were in them.
        """
        incoming, plain = self._incoming, self._plain
        before = len(plain)
        # Python makes room for all that is asked for, and gives most of it back.
        size = RECORD if self._partial or length > RECORD else length
        self._partial = False
        try:
            while True:
                data = tls.read(size)
                if not data:
                    self._closeNotified = True
                    break
                plain = plain + data if plain else data
                if not incoming.pending:
                    break
        except ssl.SSLWantReadError:
            self._partial = True
        except ssl.SSLZeroReturnError:
            # As b"" is, once our own close_notify is out.
            self._closeNotified = True
        except ssl.SSLError as error:
            # What came before is counted, but cannot be answered any more.
            self._plain = plain
            self._fail(error)
            return len(plain) - before
        self._plain = plain
        if self._outgoing.pending:
            self._answer()
        return len(plain) - before

    def _echo(self, tls: ssl.SSLObject) -> int:
        """As `_decrypt`, but each record goes back at once: none waits for the next, or is kept."""
        echoed = 0
        failure: ssl.SSLError | TLSFailed | None = None
        self._partial = False
        try:
            while True:
                # Any: with a buffer it is a number, whatever typeshed says.
                count: Any = tls.read(RECORD, _scratch)
                if not count:
                    self._closeNotified = True
                    break
                self._encrypt(_scratch[:count])
                echoed += count
                if not self._incoming.pending:
                    break
        except ssl.SSLWantReadError:
            self._partial = True
        except (ssl.SSLError, TLSFailed) as error:
            failure = error
        if echoed:
            self._sendRecords(echoed)
            self._count(echoed)
        if failure is not None:
            self._fail(failure)
        elif self._outgoing.pending:
            self._answer()
        return echoed

    def _answer(self) -> None:
        """Send the answers to KeyUpdates, for as long as they are read."""
        if self._outputClosed:
            # They would come behind a close_notify, or pile up behind one that cannot be sent yet.
            self._outgoing.read()
            return
        waits = bool(self._tempDataLen or self.dataBuffer)
        self._answers = self._answers + self._outgoing.pending if waits else 0
        self._sendOwn()
        if self._answers > ANSWERS:
            self._fail(TLSFailed("too many KeyUpdates"))

    def _deliver(self) -> ConnectionDone | None:
        """Give the protocol what one read may bring; tell whether that was the end."""
        plain = self._plain
        if plain and not self._stopped:
            largest = self._largestRead
            if self._allowed is not None:
                # Of a record one knows how much is in it once it has been read.
                largest = min(largest, self._allowed())
            if len(plain) > largest:
                plain, self._plain = plain[:largest], plain[largest:]
            else:
                self._plain = b""
            if plain:
                self.protocol.dataReceived(plain)
        if not self.connected:
            return None
        if self._plain:
            # The rest has a turn of its own.
            self.stopReading()
            self._goOn()
            return None
        if self._tells and self._asked <= 0:
            self._tells = False
            self.protocol.caughtUp()
        if self._closeNotified and not self._stopped:
            return CONNECTION_DONE
        return None

    def pauseProducing(self) -> None:
        """See ``IPushProducer``."""
        self._stopped = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """See ``IPushProducer``: what has been decrypted comes first, in a turn of its own."""
        self._stopped = False
        if not (self._plain or self._closeNotified):
            super().resumeProducing()
        else:
            self._goOn()

    def _goOn(self) -> None:
        if not (self._stopped or self._resuming):
            self._resuming = True
            self.reactor.callLater(0, self._deliverRest)

    def _deliverRest(self) -> None:
        self._resuming = False
        if self._mayRead():
            if self._deliver() is not None:
                self.stopReading()
                self.readConnectionLost(_eof)
            elif self._mayRead() and not self._plain:
                super().resumeProducing()

    def _mayRead(self) -> bool:
        return bool(self.connected) and not self._stopped

    def heldBytes(self) -> int:
        """See `IConnectionTransport.heldBytes`: with what is in the buffers of TLS."""
        buffered = self._tls and self._incoming.pending + self._outgoing.pending
        return super().heldBytes() + len(self._plain) + (buffered or 0)

    def unread(self) -> int:
        """See `IConnectionTransport.unread`."""
        self._asked = queued = super().unread()
        self._tells = queued > 0
        # More bytes than there are do no harm, `caughtUp` will tell; but what has been read of a
        # record is not in the queue, and comes with the rest of it.
        begun = RECORD if self._tells and self._partial else 0
        return queued + len(self._plain) + begun
