"""
Addresses as text: how a peer's is read, and how one is shown.

An IPv4 address that is written as an IPv6 one (``::ffff:192.0.2.1``, RFC 4291 section 2.5.5.2)
counts as IPv4; a zone (``%eth0``) is no part of an address here.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from echod.errors import oneLine

__all__ = [
    "FIRST_MULTICAST",
    "LAST_PORT",
    "SocketAddress",
    "describeAddress",
    "formatAddress",
    "formatName",
    "parseAddress",
]

#: Ports have 16 bits (RFC 9293 section 3.1, RFC 768).
LAST_PORT = 65535
#: The first byte of the lowest IPv4 address that is no host's (RFC 1112, RFC 6890).
FIRST_MULTICAST = 224

#: What the module ``socket`` takes and gives: host and port; two numbers more of IPv6; over a UNIX
#: socket a path, or the name of one in no file system; another of IPv6 where Python has none.
SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes] | str | bytes


def parseAddress(host: str) -> IPv4Address | IPv6Address:
    """
    A peer's numeric address as a value.

    :raises ValueError: it is none.
    """
    address = ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def formatAddress(host: str, port: int) -> str:
    """``127.0.0.1:1234`` or ``[::1]:1234``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def formatName(name: bytes) -> str:
    r"""
    The name of a UNIX socket as one printable line.

    A NUL at its front, of a name that is in no file system (unix(7)), becomes ``@``.  A name is
    any bytes: those that are no UTF-8 become ``\xff``, what is not printable ``\n`` or the like.
    """
    name = b"@" + name[1:] if name.startswith(b"\0") else name
    return oneLine(name.decode(errors="backslashreplace"))


def describeAddress(address: object) -> str | None:
    """
    One of Twisted's addresses as text: `formatAddress` or `formatName`.

    ``None`` for a UNIX socket without a name, and for whatever else names nobody.
    """
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is not None and port is not None:
        return formatAddress(host, port)
    name = getattr(address, "name", None)
    return None if name is None else formatName(name)
