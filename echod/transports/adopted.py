"""
Sockets that others have made: what they are, and ports that listen on them.

Whoever passes a socket (systemd, see `echod.server.socket_activation`; a parent process) has bound
it, chosen its backlog and, of a UNIX socket, its file's mode; it may hold the socket too, and goes
on with it when we end.  So nothing of that is changed here: no ``bind``, ``listen`` or ``chmod``,
and at the end no ``unlink`` and no ``shutdown``, which would end the socket for everybody.  What
kind of socket it is, it says itself (``SO_DOMAIN``, ``SO_TYPE``, ``SO_PROTOCOL``,
``SO_ACCEPTCONN``; socket(7)).  A private part of Twisted known here: ``Port._shouldShutdown``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from errno import EBADF
from functools import partial
from typing import Any

from twisted.internet import tcp

from echod.config.endpoints import TCPEndpoint, UDPEndpoint, UNIXEndpoint
from echod.errors import ConfigurationError, ListenError
from echod.transports.binding import INET6_FIELDS, withZone
from echod.transports.endpoint_port import EndpointPort
from echod.transports.socket_stream import require
from echod.transports.tcp import TCPPort
from echod.transports.udp import UDPPort
from echod.transports.unix import UNIXListeningPort
from echod.wire.addresses import SocketAddress

__all__ = ["AdoptedTCPPort", "AdoptedUDPPort", "AdoptedUNIXPort", "adopting", "examine"]

#: What can be served: family, type and protocol, and what it is called.
_SERVED: dict[tuple[int, int, int], Any] = {
    (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP): TCPEndpoint,
    (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP): TCPEndpoint,
    (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP): TCPEndpoint,
    (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_MPTCP): TCPEndpoint,
    (socket.AF_UNIX, socket.SOCK_STREAM, 0): UNIXEndpoint,
    (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP): UDPEndpoint,
    (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP): UDPEndpoint,
}

require(tcp.Port, "_shouldShutdown")


def examine(descriptor: int) -> TCPEndpoint | UDPEndpoint | UNIXEndpoint:
    """
    What a descriptor is, and where; it stays as it is.

    :raises ConfigurationError: nothing that can be listened on; what it is instead.
    """
    try:
        skt = socket.socket(fileno=descriptor)
    except OSError as error:
        if error.errno == EBADF:
            what = "is not open; have whoever starts echod pass it"
        else:
            what = "is no socket; pass a listening one"
        raise ConfigurationError(f"descriptor {descriptor} {what}") from error
    try:
        return _examine(skt)
    except ConfigurationError as error:
        raise ConfigurationError(f"descriptor {descriptor} {error}") from error
    finally:
        # It is not ours to close.
        skt.detach()


def _examine(skt: socket.socket) -> TCPEndpoint | UDPEndpoint | UNIXEndpoint:
    family, kind, protocol, accepts = (
        skt.getsockopt(socket.SOL_SOCKET, option)
        for option in (socket.SO_DOMAIN, socket.SO_TYPE, socket.SO_PROTOCOL, socket.SO_ACCEPTCONN)
    )
    endpoint = _SERVED.get((family, kind, protocol))
    if endpoint is None:
        raise ConfigurationError(
            f"is a socket of {_name(socket.AddressFamily, family)},"
            f" {_name(socket.SocketKind, kind)}, protocol {protocol};"
            " pass one of TCP, UDP or UNIX streams"
        )
    with suppress(OSError):
        skt.getpeername()
        raise ConfigurationError(
            "is connected to one peer, and nobody else can come; in a socket unit write Accept=no"
        )
    if endpoint is UNIXEndpoint:
        path = _pathOf(skt.getsockname())
        found, bound = UNIXEndpoint(path), path != ""
    else:
        host, port = _hostOf(skt.getsockname())
        found, bound = endpoint(host, port), port != 0
    if not bound:
        raise ConfigurationError("is bound to no address; bind it before it is passed")
    if kind == socket.SOCK_STREAM and not accepts:
        raise ConfigurationError(f"({found}) does not listen; let it before it is passed")
    return found


def _name(names: type[IntEnum], number: int) -> str:
    try:
        return str(names(number).name)
    except ValueError:
        return str(number)


def _hostOf(address: tuple[str, int] | tuple[str, int, int, int]) -> tuple[str, int]:
    if len(address) == INET6_FIELDS and address[3]:
        address = withZone(address)
    host, port = address[:2]
    return host, port


def _pathOf(address: str | bytes) -> str:
    """As `UNIXEndpoint` has it: a name in no file system has a NUL before it, there an ``@``."""
    path = os.fsdecode(address)
    return f"@{path[1:]}" if path.startswith("\0") else path


class _Adopting(EndpointPort):
    """
    Mixed into a port, which adopts a socket instead of making one.

    :param descriptor: belongs to the port from `startListening` on, which closes it at the end; a
        port that has served nobody leaves it open.
    :param arguments: the port's; its endpoint is what `examine` says of the descriptor.
    """

    # Any: those of the port that it is mixed into.
    def __init__(self, descriptor: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._descriptor = descriptor
        self._adopted = False

    def _open(self) -> socket.socket:
        where = f"cannot listen on {self._endpoint}"
        if self._adopted:
            raise ListenError(
                f"{where} again: descriptor {self._descriptor} was closed at the stop;"
                " start a new process, and have it passed anew"
            )
        try:
            found = examine(self._descriptor)
        except ConfigurationError as error:
            raise ListenError(f"{where}: {error}") from error
        if found != self._endpoint:
            raise ListenError(f"{where}: descriptor {self._descriptor} has become {found}")
        skt = socket.socket(fileno=self._descriptor)
        try:
            # Those of UDP come blocking from systemd.
            skt.setblocking(False)
            skt.set_inheritable(False)
            self._prepare(skt)
        except BaseException:
            skt.detach()
            raise
        self._adopted = True
        return skt

    def giveUp(self) -> None:
        """See `EndpointPort.giveUp`: the descriptor stays open, for another port."""
        self.stopReading()
        self.socket.detach()
        self._adopted = False
        self.close()

    def _reopen(self, skt: socket.socket) -> None:
        self._adopted = True
        self._prepare(skt)


class _AdoptingStreams(_Adopting):
    """
    The same for ports that accept.

    The accept queue is served at the end like that of any port: whoever waits in it is answered,
    and nobody need know whether another process holds the socket and would have.
    """

    _shouldShutdown = False

    # Any: as above.
    def __init__(self, descriptor: int, *arguments: Any) -> None:
        super().__init__(descriptor, *arguments)
        # Not known, and not changed.
        self.backlog = 0


class AdoptedTCPPort(_AdoptingStreams, TCPPort):
    """A `TCPPort` on a socket that was passed."""

    def _accepted(self, skt: socket.socket, address: SocketAddress) -> None:
        # Linux hands options down when a connection is made: some were before we came.
        self._setOptions(skt)
        super()._accepted(skt, address)


class AdoptedUNIXPort(_AdoptingStreams, UNIXListeningPort):
    """A `UNIXListeningPort` on a socket that was passed; its file is not ours."""

    def _prepare(self, skt: socket.socket) -> None:
        """There are no options."""


class AdoptedUDPPort(_Adopting, UDPPort):
    """A `UDPPort` on a socket that was passed."""


_KINDS: dict[type, type] = {
    TCPPort: AdoptedTCPPort,
    UNIXListeningPort: AdoptedUNIXPort,
    UDPPort: AdoptedUDPPort,
}


def adopting(port: type, descriptor: int | None) -> Callable[..., Any]:
    """What makes such a port: its class itself, or with a descriptor the one that adopts it."""
    return port if descriptor is None else partial(_KINDS[port], descriptor)
