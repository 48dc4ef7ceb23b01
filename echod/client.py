r"""
The other end: a connection that we make, as a coroutine stream.

::

    async def main(reactor):
        async with await connect("127.0.0.1", 1234) as stream:
            await stream.write(b"hello\n")
            await stream.writeEOF()
            print(await stream.read())

    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor)))

The connection is the same as a listener's (`echod.connection`), with the same half-close,
backpressure and deadlines, on the same transports.
"""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory

from echod.connection import Connection
from echod.deadlines import Sweep
from echod.endpoints import formatAddress
from echod.errors import ConnectFailed
from echod.settings import Limits
from echod.stream import BUFFER, Stream, StreamConnection
from echod.transports.reactor import Facade

__all__ = ["connect"]

#: Seconds for a connection to be made.
CONNECT_TIMEOUT = 30.0


class _Owner:
    """All connections that were made with one reactor: one facade, one sweep."""

    limits = Limits()
    byteRate = None
    payload = None

    def __init__(self, reactor: Any) -> None:
        self.reactor = Facade(reactor)
        self.sweep = Sweep(reactor, time.monotonic)
        # Who needs the clock: connections, and those that are being made.
        self._live: set[Connection] = set()

    def begin(self, connection: Connection) -> None:
        """It is about to be made."""
        if not self._live:
            self.sweep.start()
        self._live.add(connection)

    def opened(self, connection: Connection) -> None:
        pass

    def identified(self, connection: Connection) -> bool:
        return True

    def established(self, connection: Connection) -> None:
        pass

    def lingering(self, connection: Connection) -> None:
        pass

    def inputEnded(self, connection: Connection) -> None:
        pass

    def closed(self, connection: Connection) -> None:
        self._live.discard(connection)
        if not self._live:
            self.sweep.stop()


_owners: WeakKeyDictionary[Any, _Owner] = WeakKeyDictionary()


async def connect(
    host: str,
    port: int,
    *,
    timeout: float = CONNECT_TIMEOUT,
    limit: int = BUFFER,
    reactor: Any = None,
) -> Stream:
    """
    Connect over TCP.

    :param host: a name or an address; of several addresses the first that answers
        (RFC 8305).
    :param timeout: seconds until one of them must have answered.
    :param limit: see `Stream`.
    :param reactor: the global one if not given.
    :raises ConnectFailed: none of them did; why.
    """
    if reactor is None:
        from twisted.internet import reactor
    owner = _owners.get(reactor)
    if owner is None:
        owner = _owners[reactor] = _Owner(reactor)
    connection = StreamConnection(limit=limit)
    connection.owner = owner
    factory = Factory.forProtocol(lambda: connection)
    factory.noisy = False
    owner.begin(connection)
    try:
        await HostnameEndpoint(owner.reactor, host, port, timeout=timeout).connect(factory)
    except BaseException as error:
        owner.closed(connection)
        if not isinstance(error, Exception) or isinstance(error, CancelledError):
            raise
        raise ConnectFailed(f"cannot connect to {formatAddress(host, port)}: {error}") from error
    return connection.stream
