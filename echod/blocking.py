"""
The other end without a reactor: a connection that blocks, to one deadline.

For what is started often and has one thing to ask, such as `echod.check`: neither Twisted nor, if
there is no TLS, ``ssl`` is imported.  What needs both directions at once wants `echod.client`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from errno import ENOTCONN
from types import TracebackType
from typing import Any

from echod.endpoints import Target, UDPEndpoint, UNIXEndpoint
from echod.errors import ConnectFailed, TLSFailed

__all__ = ["Wire", "connect"]

#: Bytes of a read; no datagram is longer.
READ = 65536


def connect(target: Target, timeout: float, security: Any = None) -> Wire:
    """
    Connect, to the first address of a host that answers.

    :param timeout: seconds for this and all that is done with the connection.
    :param security: the client's side of TLS (`echod.tlscontext.ClientTLS.to`), if it is for TLS.
    :raises ConnectFailed: none does; why.
    :raises TimeoutError: none has in time.
    """
    deadline = time.monotonic() + timeout
    kind = socket.SOCK_DGRAM if isinstance(target, UDPEndpoint) else socket.SOCK_STREAM
    addresses: list[tuple[int, Any]]
    if isinstance(target, UNIXEndpoint):
        addresses = [(socket.AF_UNIX, target.address)]
    else:
        addresses = _resolve(target.host, target.port, kind, deadline)
    why: OSError | None = None
    for family, address in addresses:
        client = socket.socket(family, kind)
        try:
            if family != socket.AF_UNIX and kind == socket.SOCK_STREAM:
                # Otherwise what follows a handshake's last message waits for its acknowledgement.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.settimeout(_left(deadline))
            client.connect(address)
        except OSError as error:
            client.close()
            if isinstance(error, TimeoutError):
                raise
            why = error
        else:
            return (
                Wire(client, deadline) if security is None else _Secured(client, deadline, security)
            )
    raise ConnectFailed(why.strerror if why else "it has no address") from why


def _left(deadline: float) -> float:
    """Seconds until then."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _resolve(host: str, port: int, kind: int, deadline: float) -> list[tuple[int, Any]]:
    """The host's addresses, with their families."""
    found: list[Any] = []
    failed: list[OSError] = []

    def look(flags: int) -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=kind, flags=flags))
        except OSError as error:
            failed.append(error)

    look(socket.AI_NUMERICHOST)
    if not found:
        # A name. Nothing interrupts the resolver, but nobody has to wait for it either.
        import threading

        failed.clear()
        resolver = threading.Thread(target=look, args=(0,), daemon=True)
        resolver.start()
        resolver.join(_left(deadline))
        if resolver.is_alive():
            raise TimeoutError
    if failed:
        raise ConnectFailed(failed[0].strerror) from failed[0]
    return [(family, address) for family, _, _, _, address in found]


class Wire:
    """
    Bytes over a connected socket that blocks, to one deadline.

    Every method raises ``TimeoutError`` at the deadline, and ``OSError`` when the connection is
    reset.

    :ivar received: bytes that have come.
    """

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._socket = connection
        self._deadline = deadline
        self.received = 0

    def __enter__(self) -> Wire:
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
        if data:
            self._socket.settimeout(_left(self._deadline))
            self._socket.sendall(data)

    def _receiveSome(self) -> bytes:
        self._socket.settimeout(_left(self._deadline))
        return self._socket.recv(READ)


class _Secured(Wire):
    """
    The same in TLS; every method also raises `TLSFailed`.

    ``ssl.SSLSocket`` will not do: it cannot send close_notify and then read on.
    """

    def __init__(self, connection: socket.socket, deadline: float, security: Any) -> None:
        import ssl

        super().__init__(connection, deadline)
        self._wantsRead = ssl.SSLWantReadError
        self._ended = ssl.SSLZeroReturnError
        self._failures = (ssl.SSLError, TLSFailed)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._security = security
        self._tls = security.wrap(self._incoming, self._outgoing)
        self._opened = False

    def open(self, header: bytes) -> None:
        """The header, the handshake, and a look at who it is."""
        self._sendAll(header)
        self._advance(self._tls.do_handshake)
        self._advance(lambda: self._security.verify(self._tls))
        self._opened = True

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._advance(lambda: self._tls.write(data))

    def finish(self) -> None:
        """Send close_notify; the other end's is not waited for."""
        with suppress(self._wantsRead):
            self._tls.unwrap()
        self._sendAll(self._outgoing.read())

    def receive(self) -> bytes:
        """Some bytes, or ``b""`` at close_notify."""
        data: bytes = self._advance(lambda: self._tls.read(READ))
        self.received += len(data)
        return data

    def _advance(self, act: Callable[[], Any]) -> Any:
        """Call ``act``, as often as it wants more records."""
        while True:
            try:
                result = act()
            except self._wantsRead:
                self._sendAll(self._outgoing.read())
                data = self._receiveSome()
                if not data:
                    when = "without close_notify" if self._opened else "within the handshake"
                    raise TLSFailed(f"the other end stopped {when}") from None
                self._incoming.write(data)
            except self._ended:
                # As b"" is, once our own close_notify is out.
                return b""
            except self._failures as error:
                with suppress(OSError):
                    self._sendAll(self._outgoing.read())
                from echod.tlscontext import reasonOf

                raise TLSFailed(reasonOf(error)) from error
            else:
                self._sendAll(self._outgoing.read())
                return result
