r"""
The other end: a connection that we make, as a coroutine stream.

::

    async def main(reactor):
        async with await connect("127.0.0.1", 1234) as stream:
            await stream.write(b"hello\n")
            await stream.writeEOF()
            print(await stream.read())

    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor)))

`connect` is for TCP and TLS (``tls=ClientTLS(ca="ca.pem")``), `connectUNIX` for UNIX sockets.  The
connection is the same as a listener's (`echod.connection.connection`), with the same half-close,
backpressure and deadlines, on the same transports.
"""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory

from echod.config.endpoints import UNIXEndpoint
from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.owner import Owner
from echod.connection.states import Reason, State
from echod.connection.sweep import Sweep
from echod.errors import ConnectFailed
from echod.kit.coroutine import StreamConnection
from echod.kit.stream import BUFFER, Stream
from echod.tls.context import ClientTLS
from echod.transports.facade import Facade, Securing
from echod.wire.addresses import formatAddress

__all__ = ["ClientTLS", "connect", "connectUNIX"]

#: Seconds for a connection to be made.
CONNECT_TIMEOUT = 30.0


class _ClientOwner(Owner):
    """All connections that were made with one reactor: one facade, one sweep."""

    limits = Limits()

    def __init__(self, reactor: IReactorTime) -> None:
        self.clock = reactor
        self.reactor = Facade(reactor)
        self.sweep = Sweep(reactor, time.monotonic)
        # Who needs the clock: connections, and those that are being made.
        self._live: set[Connection] = set()
        # Who waits for a handshake.
        self._opening: dict[Connection, Deferred[None]] = {}

    def begin(self, connection: Connection) -> None:
        """It is about to be made."""
        if not self._live:
            self.sweep.start()
        self._live.add(connection)

    def established(self, connection: Connection) -> None:
        waiting = self._opening.pop(connection, None)
        if waiting is not None:
            waiting.callback(None)

    def lingering(self, connection: Connection) -> None:
        self._failed(connection)

    def closed(self, connection: Connection) -> None:
        self._failed(connection)
        self._live.discard(connection)
        if not self._live:
            self.sweep.stop()

    def _failed(self, connection: Connection) -> None:
        waiting = self._opening.pop(connection, None)
        if waiting is not None:
            reason = connection.reason or Reason.EOF
            waiting.errback(
                ConnectFailed(connection.transport.failure or f"it ended: {reason.value}")
            )

    async def secured(self, connection: Connection, timeout: float) -> None:
        """
        Wait for the handshake, if there is one.

        :raises ConnectFailed: it has failed.
        :raises TimeoutError: it is not done after ``timeout`` seconds.
        """
        if connection.state is State.OPENING:
            waiting: Deferred[None] = Deferred()
            self._opening[connection] = waiting
            await waiting.addTimeout(timeout, self.clock)


_owners: WeakKeyDictionary[Any, _ClientOwner] = WeakKeyDictionary()


async def connect(
    host: str,
    port: int,
    *,
    tls: ClientTLS | None = None,
    timeout: float = CONNECT_TIMEOUT,
    limit: int = BUFFER,
    reactor: IReactorTime | None = None,
) -> Stream:
    """
    Connect over TCP, or over TLS.

    :param host: a name or an address; of several addresses the first that answers
        (RFC 8305).
    :param tls: how to do TLS, if at all.  The server's certificate must be for ``host``, a name
        or an address (RFC 9525), or for what ``tls`` names.
    :param timeout: seconds until one of them must have answered, and as many for the handshake.
    :param limit: see `Stream`.
    :param reactor: the global one if not given.
    :raises ConnectFailed: none of them did, or TLS failed; why.
    """
    owner = _ownerOf(reactor)
    facade = owner.reactor if tls is None else Securing(owner.reactor, tls.to(host))
    endpoint = HostnameEndpoint(facade, host, port, timeout=timeout)
    return await _connect(owner, endpoint, formatAddress(host, port), timeout, limit)


async def connectUNIX(
    path: str,
    *,
    timeout: float = CONNECT_TIMEOUT,
    limit: int = BUFFER,
    reactor: IReactorTime | None = None,
) -> Stream:
    """
    Connect to a UNIX socket.

    :param path: of its file; or, after ``@``, its abstract name.
    :raises ConnectFailed: nobody listens there; why.
    """
    owner = _ownerOf(reactor)
    endpoint = UNIXClientEndpoint(owner.reactor, UNIXEndpoint(path).address, timeout=timeout)
    return await _connect(owner, endpoint, path, timeout, limit)


def _ownerOf(asked: IReactorTime | None) -> _ClientOwner:
    if asked is None:
        from twisted.internet import reactor

        asked = reactor
    owner = _owners.get(asked)
    if owner is None:
        owner = _owners[asked] = _ClientOwner(asked)
    return owner


async def _connect(
    owner: _ClientOwner, endpoint: IStreamClientEndpoint, address: str, timeout: float, limit: int
) -> Stream:
    connection = StreamConnection(limit=limit)
    connection.owner = owner
    factory = Factory.forProtocol(lambda: connection)
    factory.noisy = False
    owner.begin(connection)
    made = endpoint.connect(factory)
    # When it is cancelled an endpoint may say that the name was not found; this one does not.
    waiting: Deferred[Any] = Deferred()
    made.chainDeferred(waiting)
    try:
        await waiting
        # An endpoint puts a wrapper in between, which knows nothing of echod's own callbacks.
        connection.transport.protocol = connection  # type: ignore[attr-defined]  # Twisted's
        await owner.secured(connection, timeout)
    except BaseException as error:
        made.cancel()
        if connection.transport is None:
            owner.closed(connection)
        else:
            connection.abort(Reason.ERROR)
        if not isinstance(error, Exception) or isinstance(error, CancelledError):
            raise
        raise ConnectFailed(f"cannot connect to {address}: {error}") from error
    return connection.stream
