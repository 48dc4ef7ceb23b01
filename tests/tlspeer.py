"""
A client of TLS whose every record is the test's: `Peer`.

Records are made without being sent (`Peer.seal`, `Peer.closeNotify`), so that several may go in one
write, be cut, be spoilt, or come too late; and all that came over the wire is kept as it came.
`Forged` makes records of TLS 1.3 that no library would.
"""

from __future__ import annotations

import hmac
import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from echod.tls.record_pump import RecordPump

__all__ = ["ALERT", "DATA", "HANDSHAKE", "Forged", "Peer", "recordTypes"]

#: Types of records (RFC 8446 section 5.1).
ALERT, HANDSHAKE, DATA = 21, 22, 23
#: Seconds until what must happen has not happened.
PATIENCE = 20.0


def recordTypes(wire: bytes) -> list[int]:
    """The type of each record on the ``wire``, the last one whole or not; nothing else is there."""
    types = []
    while wire:
        kind, version, length = struct.unpack(">BHH", wire[:5].ljust(5, b"\0"))
        assert kind in (20, ALERT, HANDSHAKE, DATA), wire[:20]
        assert version >> 8 == 3, wire[:20]
        types.append(kind)
        wire = wire[5 + length :]
    return types


class Peer:
    """
    One connection.

    :param address: of the server.
    :param context: the client's side: an ``ssl.SSLContext``, or what `ClientTLS.to` gives.
    :param turn: lets the server do something, where it runs in this thread.
    :param buffers: bytes of its send and receive buffers.
    :param session: to resume.
    :param header: sent before all else.
    :ivar sent: how many bytes the kernel has taken.
    :ivar wire: all bytes that have come.
    :ivar plain: what they say, since the last `take`.
    :ivar alert: the name of the fatal alert that has come, or what else OpenSSL did not like.
    :ivar notified: whether close_notify has come.
    :ivar end: ``"FIN"`` or ``"RST"`` once that has come.
    """

    def __init__(
        self,
        address: Any,
        context: Any,
        *,
        turn: Callable[[], object] | None = None,
        serverName: str | None = "localhost",
        buffers: int | None = None,
        session: ssl.SSLSession | None = None,
        header: bytes = b"",
    ) -> None:
        self._turn = turn
        family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX
        self.socket = socket.socket(family)
        if buffers is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        if self.socket.family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket.connect(address)
        except BaseException:
            self.socket.close()
            raise
        self.socket.setblocking(False)
        if isinstance(context, ssl.SSLContext):
            if serverName is None:
                context.check_hostname = False
            self._pump = RecordPump(
                lambda incoming, outgoing: context.wrap_bio(
                    incoming, outgoing, server_hostname=serverName, session=session
                )
            )
        else:
            self._pump = RecordPump(context.wrap)
        self.tls = self._pump.tls
        self._open = False
        self.sent = 0
        self.wire = bytearray()
        self.plain = bytearray()
        self.alert = ""
        self.notified = False
        self.end = ""
        if header:
            self.send(header)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    # -- Records -----------------------------------------------------------------------------

    def hello(self) -> bytes:
        """The first flight."""
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._pump.records()

    def seal(self, data: bytes, size: int = 16384) -> bytes:
        """Records of ``size`` bytes each, the last one shorter."""
        for start in range(0, len(data), size):
            self.tls.write(data[start : start + size])
        return self._pump.records()

    def closeNotify(self) -> bytes:
        """The record that ends our direction."""
        self._decrypt()
        return self._pump.closeNotify()

    # -- The wire ----------------------------------------------------------------------------

    def send(self, data: bytes, *, reading: bool = True) -> None:
        """Send all of ``data``; a server that ends the connection meanwhile is no error."""
        view = memoryview(data)
        deadline = time.monotonic() + PATIENCE
        while view:
            assert time.monotonic() < deadline, f"{len(view)} bytes cannot be sent"
            try:
                count = self.socket.send(view)
                self.sent += count
                view = view[count:]
            except BlockingIOError:
                self.turn(select.POLLOUT)
            except (BrokenPipeError, ConnectionResetError):
                return
            if reading:
                self.receive()

    def finish(self) -> None:
        """FIN."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def turn(self, events: int = select.POLLIN) -> None:
        """Let the server do something."""
        if self._turn is not None:
            self._turn()
        else:
            poll = select.poll()
            poll.register(self.socket, events)
            poll.poll(50)

    def receive(self, limit: int = 1 << 16) -> bool:
        """Take in what has come, at most ``limit`` bytes of it; whether that was anything."""
        if self.end:
            return False
        try:
            data = self.socket.recv(limit)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            self.end = "RST"
            return True
        if not data:
            self.end = "FIN"
            return True
        self.wire += data
        self._pump.feed(data)
        if self._open:
            self._decrypt()
        return True

    def _decrypt(self) -> None:
        try:
            while data := self.tls.read(1 << 16):
                self.plain += data
            self.notified = True
        except ssl.SSLZeroReturnError:
            self.notified = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.alert = self.alert or str(error.reason)

    # -- What takes time ---------------------------------------------------------------------

    def until(self, condition: Callable[[], object], what: str = "it") -> None:
        """Receive until ``condition`` is true."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come about; end: {self.end!r}"
            if not self.receive():
                self.turn()

    def shakeHands(self) -> Peer:
        """
        Do the handshake.

        :raises ssl.SSLError: it has failed.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < deadline, "the handshake has no end"
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send(self._pump.records())
                if self.end:
                    raise ssl.SSLEOFError(f"{self.end} in the handshake") from None
                if not self.receive():
                    self.turn()
            except ssl.SSLError as error:
                self.alert = str(error.reason)
                self.send(self._pump.records())
                raise
            else:
                self._open = True
                self.send(self._pump.records())
                self._decrypt()
                return self

    def receiveExactly(self, size: int) -> bytes:
        """So many bytes of plain text."""
        self.until(lambda: len(self.plain) >= size or self.end, f"{size} bytes")
        return self.take(size)

    def readAll(self) -> bytes:
        """Everything up to FIN or RST."""
        self.until(lambda: self.end, "the end")
        return self.take()

    def take(self, size: int | None = None) -> bytes:
        """Plain text that has come."""
        data = bytes(self.plain[:size])
        del self.plain[: len(data)]
        return data

    def ping(self, data: bytes = b"ping\n") -> None:
        """Send, and have it back."""
        self.send(self.seal(data))
        found = self.receiveExactly(len(data))
        assert found == data, (found, self.end, self.alert)


class Forged:
    """
    Records of a client in TLS 1.3 (RFC 8446 section 5.2) with whatever in them.

    The peer itself can send nothing more; it still reads.

    :param peer: after the handshake, having sent ``sent`` records since.
    :param keys: the file that its context writes its secrets to (``keylog_filename``).
    """

    def __init__(self, peer: Peer, keys: Path, sent: int = 0) -> None:
        found = re.findall(r"CLIENT_TRAFFIC_SECRET_0 \S+ (\S+)", keys.read_text())
        self._secret = bytes.fromhex(found[-1])
        cipher = peer.tls.cipher()
        assert cipher is not None
        assert "AES_256_GCM_SHA384" in cipher[0], cipher
        self._number = sent
        self._makeKeys()

    def record(self, kind: int, content: bytes, padding: int = 0) -> bytes:
        """One record, the next in their order."""
        inner = content + bytes([kind]) + bytes(padding)
        header = struct.pack(">BHH", DATA, 0x0303, len(inner) + 16)
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return header + self._key.encrypt(nonce, inner, header)

    def keyUpdate(self, *, answer: bool = True) -> bytes:
        """Another key from here on (section 4.6.3), and whether the server shall do the same."""
        record = self.record(HANDSHAKE, bytes([24, 0, 0, 1, answer]))
        self.updateKey()
        return record

    def updateKey(self) -> None:
        """As `keyUpdate`, without a word."""
        self._secret = self._expand(b"traffic upd", 48)
        self._number = 0
        self._makeKeys()

    def _makeKeys(self) -> None:
        self._key = AESGCM(self._expand(b"key", 32))
        self._iv = int.from_bytes(self._expand(b"iv", 12), "big")

    def _expand(self, label: bytes, length: int) -> bytes:
        """HKDF-Expand-Label of section 7.1; one block of RFC 5869's output is enough."""
        label = b"tls13 " + label
        info = struct.pack(">HB", length, len(label)) + label + b"\0"
        return hmac.digest(self._secret, info + b"\1", "sha384")[:length]
