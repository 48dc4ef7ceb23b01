"""
Sockets of our own at addresses of a network: how they are made, and why one cannot be had.

What the system refuses, at whatever step, is a `ListenError` of one line.  An option that a kind of
socket does not know is done without: ``mptcpize run`` makes every TCP socket one of MPTCP
(RFC 8684), which has not all of TCP's.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, ENOPROTOOPT, EOPNOTSUPP
from typing import Final

from twisted.logger import Logger

from echod.config.endpoints import ANY, Target
from echod.errors import AddressMissing, ListenError
from echod.wire.addresses import SocketAddress

__all__ = [
    "INET6_FIELDS",
    "addressOf",
    "closedOnError",
    "makeSocket",
    "refusals",
    "setOptions",
    "tellMissing",
    "withZone",
]

_log = Logger()

#: What ``setsockopt`` says where the kind of socket has no such option.
_UNKNOWN = frozenset({ENOPROTOOPT, EOPNOTSUPP})

#: A level, the name of an option in `socket`, and its value.
Option = tuple[int, str, int]


@contextmanager
def refusals(endpoint: Target, holders: str = "") -> Iterator[None]:
    """
    Let an ``OSError`` within be one line about an endpoint.

    :param holders: a command that tells who holds the address.
    :raises AddressMissing: the address, or the interface in it, is not there; it may come.
    :raises ListenError: anything else.
    """
    try:
        yield
    except OSError as error:
        line = f"cannot listen on {endpoint}: {error.strerror or error}"
        zoned = isinstance(error, socket.gaierror) and "%" in str(endpoint)
        if error.errno == EADDRNOTAVAIL or zoned:
            raise AddressMissing(line) from error
        if error.errno == EADDRINUSE and holders:
            line += f"; who holds it: {holders}"
        elif error.errno == EAFNOSUPPORT and ":" in getattr(endpoint, "host", ""):
            line += "; there is no IPv6 here: name an address of IPv4, or interface=any"
        raise ListenError(line) from error


def makeSocket(host: str, kind: socket.SocketKind) -> socket.socket:
    """
    Make one for an address, or for all of them (`ANY`): IPv6 with IPv4, or IPv4 alone.

    :raises OSError: there are none of that family, or something else is missing.
    """
    if host == ANY:
        try:
            return _make(socket.AF_INET6, kind)
        except OSError as error:
            if error.errno != EAFNOSUPPORT:
                raise
    return _make(socket.AF_INET6 if host != ANY and ":" in host else socket.AF_INET, kind)


def _make(family: int, kind: socket.SocketKind) -> socket.socket:
    skt = socket.socket(family, kind)
    with closedOnError(skt):
        skt.setblocking(False)
        if kind == socket.SOCK_STREAM:
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Whatever net.ipv6.bindv6only is: at :: there is IPv4 too.
            skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return skt


@contextmanager
def closedOnError(skt: socket.socket) -> Iterator[None]:
    """Close a socket that cannot be made ready, whatever is raised in the block."""
    try:
        yield
    except BaseException:
        skt.close()
        raise


#: What an address of IPv6 has in Python: host, port, flow label, and the number of an interface.
INET6_FIELDS: Final = 4


def withZone(address: tuple[str, int, int, int]) -> tuple[str, int, int, int]:
    """A link-local address with its interface, without which it means nothing."""
    host, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return host, *address[1:]


def addressOf(skt: socket.socket, host: str, port: int) -> SocketAddress:
    """
    What ``bind`` wants: with a zone (RFC 4007) its number.

    :raises OSError: the zone is no interface.
    """
    if host == ANY:
        host = "::" if skt.family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104  # as was asked
    found = socket.getaddrinfo(host, port, skt.family, skt.type, flags=socket.AI_NUMERICHOST)
    return found[0][4]


def setOptions(skt: socket.socket, options: Iterable[Option]) -> list[str]:
    """
    Set them; those that this kind of socket does not know are returned, by name.

    :raises OSError: another error than that.
    """
    missing = []
    for level, name, value in options:
        try:
            skt.setsockopt(level, getattr(socket, name), value)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
            missing.append(name)
    return missing


def tellMissing(endpoint: Target, missing: list[str]) -> None:
    """One line about options that are done without, if there are any."""
    if missing:
        _log.info(
            "{endpoint} does without {options}: its kind of socket has none",
            endpoint=str(endpoint),
            options=", ".join(missing),
        )
