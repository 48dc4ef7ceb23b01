"""
The other end without a reactor: a connection that blocks, to one deadline.

For what is started often and has one thing to ask, such as `echod.client.check`: neither Twisted
nor, if there is no TLS, ``ssl`` is imported.  What needs both directions at once wants
`echod.client`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from errno import ECONNRESET, ENOTCONN
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from echod.client.reach import RESETS, ask, left, reach
from echod.config.endpoints import Target, UDPEndpoint
from echod.errors import TLSFailed

if TYPE_CHECKING:
    # Not before it is needed: it takes TLS to load.
    from echod.tls.record_pump import TLSSide

__all__ = ["BlockingConnection", "connectBlocking", "exchange"]

_Result = TypeVar("_Result")

#: Bytes of a read.
READ = 65536


def connectBlocking(
    target: Target, timeout: float, security: TLSSide | None = None
) -> BlockingConnection:
    """
    Connect, to the first address of a host that answers.

    :param target: for streams; for datagrams there is `exchange`.
    :param timeout: seconds for this and all that is done with the connection.
    :param security: the client's side of TLS (`echod.tls.context.ClientTLS.to`), if it is for TLS.
    :raises ConnectFailed: none does; why.
    :raises NoAnswer: none has in time; why.
    """
    deadline = time.monotonic() + timeout
    connected, why = reach(target, deadline)
    connection = BlockingConnection(connected, deadline)
    if security is not None:
        connection = _Secured(connected, deadline, security)
    if why:
        connection.lose()
    return connection


def exchange(target: UDPEndpoint, datagram: bytes, timeout: float) -> bytes:
    """
    Send a datagram, to each address of a host in turn; returns the first answer.

    :param timeout: seconds for all of it.
    :raises ConnectFailed: nobody is there; why.
    :raises NoAnswer: none has come in time; why.
    """
    return ask(target, datagram, time.monotonic() + timeout)


class BlockingConnection:
    """
    Bytes over a connected socket that blocks, to one deadline.

    Every method raises ``TimeoutError`` at the deadline.  That the connection has been reset is
    told by reading alone, as ``ConnectionResetError``, and behind what had come: when the reset
    arrives is chance, and what is found does not depend on it.

    :ivar received: bytes that have come.
    """

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._socket = connection
        self._deadline = deadline
        self._lost = False
        self.received = 0

    def lose(self) -> None:
        """It is known to be reset: an error that has been told once is not told again."""
        self._lost = True

    def __enter__(self) -> BlockingConnection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def open(self, header: bytes) -> None:
        """Send what comes before all, a PROXY header or nothing; then shake hands, if need be."""
        self._sendAll(header)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._sendAll(data)

    def finish(self) -> None:
        """End our direction."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            # It has been reset already; reading tells.
            if error.errno != ENOTCONN:
                raise

    def receive(self) -> bytes:
        """Some bytes, or ``b""`` at the other end's end."""
        data = self._receiveSome()
        self.received += len(data)
        return data

    def _sendAll(self, data: bytes) -> None:
        if data and not self._lost:
            self._socket.settimeout(left(self._deadline))
            try:
                self._socket.sendall(data)
            except OSError as error:
                if error.errno not in RESETS:
                    raise
                self.lose()

    def _receiveSome(self) -> bytes:
        self._socket.settimeout(left(self._deadline))
        try:
            data = self._socket.recv(READ)
        except OSError as error:
            if error.errno != ENOTCONN and error.errno not in RESETS:
                raise
            self.lose()
            data = b""
        if self._lost and not data:
            raise ConnectionResetError(ECONNRESET, os.strerror(ECONNRESET))
        return data


class _Secured(BlockingConnection):
    """
    The same in TLS; every method also raises `TLSFailed`.

    ``ssl.SSLSocket`` will not do: it cannot send close_notify and then read on.
    """

    def __init__(self, connection: socket.socket, deadline: float, security: TLSSide) -> None:
        import ssl

        from echod.tls.record_pump import RecordPump

        super().__init__(connection, deadline)
        self._ended = ssl.SSLZeroReturnError
        self._failure = ssl.SSLError
        self._security = security
        self._pump = RecordPump(security.wrap)
        self._opened = False

    def open(self, header: bytes) -> None:
        """The header, the handshake, and a look at who it is."""
        self._sendAll(header)
        self._advance(self._pump.tls.do_handshake)
        self._advance(lambda: self._security.verify(self._pump.tls))
        self._opened = True

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._advance(lambda: self._pump.tls.write(data))

    def finish(self) -> None:
        """Send close_notify; the other end's is not waited for."""
        self._sendAll(self._pump.closeNotify())

    def receive(self) -> bytes:
        """Some bytes, or ``b""`` at close_notify."""
        data = self._advance(lambda: self._pump.tls.read(READ))
        self.received += len(data)
        return data

    def _advance(self, act: Callable[[], _Result]) -> _Result | bytes:
        """Call ``act``, as often as it wants more records."""
        try:
            return self._pump.advance(act, self._sendAll, self._receiveRecords)
        except self._ended:
            # As b"" is, once our own close_notify is out.
            return b""
        except self._failure as error:
            with suppress(OSError):
                self._sendAll(self._pump.records())
            from echod.tls.facts import reasonOf

            raise TLSFailed(reasonOf(error)) from error

    def _receiveRecords(self) -> bytes:
        when = "without close_notify" if self._opened else "within the handshake"
        try:
            data = self._receiveSome()
        except ConnectionResetError as error:
            # As well as FIN: which one comes of one that just closes is chance.
            raise TLSFailed(f"the other end reset it {when}") from error
        if not data:
            raise TLSFailed(f"the other end stopped {when}")
        return data
