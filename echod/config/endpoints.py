r"""
Endpoint words: where a listener listens, as an operator writes it.

``tcp:PORT[:interface=ADDRESS]``, or the same with ``udp``, or ``unix:PATH[:mode=MODE]``, or
``tls:PORT[:interface=ADDRESS]:cert=FILE[:key=FILE]``, which is ``tcp`` and words for TLS, in the
escaping of Twisted's endpoint strings (``\:`` is a colon inside a value), parsed to a value; or
``fd:NUMBER`` or ``systemd:name=NAME``, for sockets that the process was given.  `parseTarget` reads
the same words from the other side, where a client connects.  Pure: nothing is resolved, bound or
looked at here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import TypeVar

from echod.errors import ConfigurationError
from echod.wire.addresses import LAST_PORT, formatAddress, formatName

__all__ = [
    "ANY",
    "DescriptorEndpoint",
    "Endpoint",
    "SystemdEndpoint",
    "TCPEndpoint",
    "Target",
    "UDPEndpoint",
    "UNIXEndpoint",
    "asBound",
    "overlap",
    "parseEndpoint",
    "parseTarget",
]

#: Instead of an address: all there are, of IPv6 and IPv4, or of IPv4 where there is no IPv6.
ANY = "any"

_SHAPE = "PORT[:interface=ADDRESS]"
_UNIX = "unix:PATH[:mode=660]"
_TLS = f"tls:{_SHAPE}:cert=FILE[:key=FILE][:ca=FILE][:client_auth=require]"
_TLS_KEYS = ("cert", "key", "ca", "client_auth", "minimum_version")
_FD = "fd:NUMBER"
_SYSTEMD = "systemd:name=NAME"
_TARGET = "PORT[:host=HOST]"
#: Words for listeners, not the hosts that they look like.
_NO_HOSTS = ("fd", "systemd", "ssl")
#: Where a client finds whoever listens at every address.
_LOOPBACKS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nothing is bound to it
#: Bytes of a path that fit into ``struct sockaddr_un`` with a NUL after them (unix(7)).
_LONGEST_PATH = 107


@dataclass(frozen=True)
class TCPEndpoint:
    """
    A TCP address to listen on, or `ANY`; port 0 lets the system choose.

    :ivar tls: what is said of TLS, as text by the keys of `echod.config.tls_settings.TLSSettings`;
        ``None`` if nothing is.  Not part of where it is.
    """

    host: str
    port: int
    tls: Mapping[str, str] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"tcp {formatAddress(self.host, self.port)}"


@dataclass(frozen=True)
class UDPEndpoint:
    """A UDP address to receive at, or `ANY`; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"udp {formatAddress(self.host, self.port)}"


@dataclass(frozen=True)
class UNIXEndpoint:
    """
    A UNIX socket to listen on.

    :ivar path: of the file; or, after ``@``, a name that is in no file system (unix(7)).
    :ivar mode: of the file; not part of what it is.
    """

    path: str
    mode: int = field(default=0o660, compare=False)

    def within(self, directory: str) -> UNIXEndpoint:
        """
        The same with a path that is absolute, and has one spelling: without ``.`` and ``//``.

        :param directory: where a relative path begins.
        :raises ConfigurationError: it becomes too long.
        """
        if self.abstract:
            return self
        path = os.fspath(PurePosixPath(directory, self.path))
        _checkPath(path, self.path)
        return UNIXEndpoint(path, self.mode)

    @property
    def abstract(self) -> bool:
        """Whether it has no file."""
        return self.path.startswith("@")

    @property
    def address(self) -> bytes:
        """As the system wants it."""
        path = os.fsencode(self.path)
        return b"\0" + path[1:] if self.abstract else path

    def __str__(self) -> str:
        return f"unix {formatName(os.fsencode(self.path))}"


@dataclass(frozen=True)
class DescriptorEndpoint:
    """A socket that this process has open already."""

    descriptor: int

    def __str__(self) -> str:
        return f"fd {self.descriptor}"


@dataclass(frozen=True)
class SystemdEndpoint:
    """All sockets of one name that this process was started with (sd_listen_fds(3))."""

    name: str

    def __str__(self) -> str:
        return f"systemd {self.name}"


#: What a client can connect to.
Target = TCPEndpoint | UDPEndpoint | UNIXEndpoint
Bound = TypeVar("Bound", TCPEndpoint, UDPEndpoint)
#: The last two say nothing of what they are until the sockets are looked at:
#: `echod.server.socket_activation`.
Endpoint = Target | DescriptorEndpoint | SystemdEndpoint


def overlap(one: Endpoint, other: Endpoint) -> bool:
    """Whether only one of them can be had: they are the same, or one is all addresses."""
    if not isinstance(one, TCPEndpoint | UDPEndpoint):
        return one == other
    return (
        isinstance(other, type(one))
        and one.port == other.port != 0
        and (_covers(one.host, other.host) or _covers(other.host, one.host))
    )


def _covers(host: str, other: str) -> bool:
    # A socket at all addresses of IPv6 has those of IPv4 too: echod says so (IPV6_V6ONLY, ipv6(7)).
    anywhere = host in (ANY, "::") or (host == "0.0.0.0" and ":" not in other)  # noqa: S104  # nothing is bound
    return anywhere or host == other


def asBound(endpoint: Bound, host: str, port: int) -> Bound:
    """
    Where a socket for an endpoint is: the port that the system chose, and an address for `ANY`.

    :param host: the socket's own address.
    """
    return replace(endpoint, host=host if endpoint.host == ANY else endpoint.host, port=port)


_WORDS: dict[str, type[TCPEndpoint | UDPEndpoint]] = {
    "tcp": TCPEndpoint,
    "tls": TCPEndpoint,
    "udp": UDPEndpoint,
}


def parseEndpoint(text: str, interface: str = "127.0.0.1") -> Endpoint:
    """
    Parse one endpoint word.

    :param interface: the address where the text gives none.
    :raises ConfigurationError: naming the text and what would be right.
    """
    fields = _split(text)
    if fields[0] == "unix":
        return _parseUNIX(text, fields[1:])
    if fields[0] == "fd":
        return _parseDescriptor(text, fields[1:])
    if fields[0] == "systemd":
        return _parseSystemd(text, fields[1:])
    kind = _WORDS.get(fields[0])
    if kind is None:
        raise ConfigurationError(
            f"cannot listen on {text!r}: write tcp:{_SHAPE}, or udp: for datagrams, or {_UNIX},"
            f" or {_TLS},"
            f" or {_FD} or {_SYSTEMD} for a socket that was passed"
        )
    secured = fields[0] == "tls"
    shape = _TLS if secured else f"{fields[0]}:{_SHAPE}"
    tls: dict[str, str] = {}
    ports: list[str] = []
    host = interface
    for index, word in enumerate(fields[1:], 1):
        key, equals, value = word.partition("=")
        if not equals and index == 1:
            ports.append(word)
        elif equals and key == "port":
            ports.append(value)
        elif equals and key == "interface":
            host = value
        elif equals and secured and key in _TLS_KEYS and key not in tls:
            tls[key] = value
        else:
            raise ConfigurationError(f"endpoint {text!r} has no use for {word!r}: write {shape}")
    if len(ports) != 1:
        raise ConfigurationError(f"endpoint {text!r} needs one port: write {shape}")
    where = _checkHost(host, text), _checkPort(ports[0], text)
    return TCPEndpoint(*where, tls) if secured else kind(*where)


def parseTarget(text: str) -> Target:
    r"""
    Parse where a client is to connect.

    ``tcp:PORT[:host=HOST]``, the same with ``tls`` or ``udp``, ``unix:PATH``, or ``HOST:PORT``
    (``[::1]:1234``) for TCP.  The host is a name or an address, 127.0.0.1 if not given;
    ``interface=`` is the same, so that a listener's word will do, and 0.0.0.0, ``::`` and
    ``interface=any`` are the loopback address.

    :returns: with ``tls`` an empty mapping for ``tls:``, else ``None``.
    :raises ConfigurationError: naming the text and what would be right.
    """
    fields = _split(text)
    if fields[0] == "unix":
        return _parseUNIX(text, fields[1:])
    if fields[0] not in _WORDS:
        host, _, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        if not host or host in _NO_HOSTS or (":" in host and not bracketed):
            raise ConfigurationError(
                f"cannot connect to {text!r}: write HOST:PORT, with an IPv6 address in brackets,"
                f" or tcp:{_TARGET}, or the same with tls or udp, or unix:PATH"
            )
        return TCPEndpoint(_checkName(host, text), _checkPort(port, text, 1))
    secured = fields[0] == "tls"
    shape = f"{fields[0]}:{_TARGET}"
    found: dict[str, str] = {}
    for index, word in enumerate(fields[1:]):
        key, equals, value = word.partition("=")
        if not equals and not index:
            key, value = "port", word
        if key == "interface":
            # No host's name there: all addresses, one of which is in every kernel.
            key, value = "host", "127.0.0.1" if value == ANY else value
        if secured and key in _TLS_KEYS:
            raise ConfigurationError(
                f"{word!r} in {text!r} is the listener's: write {shape}, and what is the client's"
                " as --ca, --cert and --key"
            )
        if key not in ("port", "host") or key in found:
            raise ConfigurationError(f"endpoint {text!r} has no use for {word!r}: write {shape}")
        found[key] = value
    if "port" not in found:
        raise ConfigurationError(f"endpoint {text!r} needs one port: write {shape}")
    where = (
        _checkName(found.get("host", "127.0.0.1"), text),
        _checkPort(found["port"], text, 1),
    )
    return TCPEndpoint(*where, {}) if secured else _WORDS[fields[0]](*where)


def _parseUNIX(text: str, fields: list[str]) -> UNIXEndpoint:
    paths: list[str] = []
    modes: list[str] = []
    for index, word in enumerate(fields):
        key, equals, value = word.partition("=")
        if key == "mode" and equals:
            modes.append(value)
        elif key == "address" and equals:
            paths.append(value)
        elif not index:
            paths.append(word)
        else:
            raise ConfigurationError(f"endpoint {text!r} has no use for {word!r}: write {_UNIX}")
    if len(paths) != 1 or len(modes) > 1 or paths[0] in ("", "@"):
        raise ConfigurationError(f"endpoint {text!r} needs one path: write {_UNIX}")
    (path,) = paths
    _checkPath(path, text)
    mode = modes[0] if modes else "660"
    if not re.fullmatch("0?[0-7]{3}", mode):
        raise ConfigurationError(
            f"{mode!r} in {text!r} is no mode: write three octal digits, such as 660"
        )
    return UNIXEndpoint(path, int(mode, 8))


def _checkPath(path: str, text: str) -> None:
    if "\0" in path or len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigurationError(
            f"{path!r} in {text!r} is no path of a socket: at most {_LONGEST_PATH} bytes, none NUL"
        )


def _parseDescriptor(text: str, fields: list[str]) -> DescriptorEndpoint:
    if len(fields) == 1 and re.fullmatch("[0-9]{1,7}", fields[0]):
        return DescriptorEndpoint(int(fields[0]))
    raise ConfigurationError(f"endpoint {text!r} needs one number of a descriptor: write {_FD}")


def _parseSystemd(text: str, fields: list[str]) -> SystemdEndpoint:
    if len(fields) == 1:
        key, _, name = fields[0].partition("=")
        if key == "name" and name:
            return SystemdEndpoint(name)
    raise ConfigurationError(f"endpoint {text!r} needs one name, and no more: write {_SYSTEMD}")


def _split(text: str) -> list[str]:
    r"""Split at unescaped colons and take the backslashes off: ``a\:b:c`` → ``a:b``, ``c``."""
    fields = [""]
    characters = iter(text)
    for character in characters:
        if character == "\\":
            fields[-1] += next(characters, "\\")
        elif character == ":":
            fields.append("")
        else:
            fields[-1] += character
    return fields


def _checkPort(port: str, text: str, least: int = 0) -> int:
    digits = port.isascii() and port.isdigit() and len(port) <= len(str(LAST_PORT))
    if digits and least <= int(port) <= LAST_PORT:
        return int(port)
    lowest = least or "0 (any)"
    raise ConfigurationError(
        f"{port!r} in {text!r} is no port: write a number from {lowest} to {LAST_PORT}"
    )


def _checkHost(host: str, text: str) -> str:
    if host == ANY:
        return host
    with suppress(ValueError):
        if host.isprintable():  # ipaddress takes anything for a zone
            # In the one spelling, so that two of the same are seen to be.
            return str(ip_address(host))
    raise ConfigurationError(
        f"{host!r} in {text!r} is no address: write one such as 127.0.0.1 or ::1"
        " (its colons as \\: within an endpoint), or any"
    )


def _checkName(host: str, text: str) -> str:
    """An address in its one spelling, or a name."""
    with suppress(ValueError):
        if host.isprintable():
            address = str(ip_address(host))
            return _LOOPBACKS.get(address, address)
    with suppress(UnicodeError):
        if host.isprintable() and not set(host) & set(" /:") and host.encode("idna"):
            return host
    raise ConfigurationError(
        f"{host!r} in {text!r} is no host: write a name, or an address such as 127.0.0.1 or ::1"
        " (its colons as \\: within an endpoint)"
    )
