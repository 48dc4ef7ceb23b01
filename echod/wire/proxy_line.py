"""
The PROXY header, version 1: one line of text (``proxy-protocol.txt``, section 2.1).

Pure; `echod.wire.proxy_header` tells the versions apart.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from echod.errors import MalformedHeader
from echod.wire.addresses import LAST_PORT
from echod.wire.proxy_values import ProxyHeader, shown

__all__ = ["LINE", "LONGEST_LINE", "parseLine"]

#: What a line begins with.
LINE = b"PROXY "
#: Bytes of a header of version 1 at most, with its CRLF (section 2.1).
LONGEST_LINE = 107
#: Words of version 1 behind the family: two addresses, two ports (section 2.1).
_WORDS = 4
#: A family of version 1: its addresses, and all that may stand behind its name.
_FAMILIES: dict[bytes, tuple[type[IPv4Address | IPv6Address], bytes]] = {
    b"TCP4": (IPv4Address, b"0123456789. "),
    b"TCP6": (IPv6Address, b"0123456789abcdefABCDEF:. "),
}


def parseLine(data: bytes) -> tuple[ProxyHeader | None, int]:
    """
    The header that ``data`` begins with, and its length; see `echod.wire.proxy_header.parseHeader`.

    :raises MalformedHeader: it is none, and will be none.
    """
    length = data.find(b"\n", 0, LONGEST_LINE) + 1
    line = data[: length or LONGEST_LINE]
    text = line.removesuffix(b"\n" if length else b"\r")
    if length:
        if not text.endswith(b"\r"):
            raise MalformedHeader("a PROXY line ends without CR")
        text = text[:-1]
    elif len(text) + 2 > LONGEST_LINE:
        raise MalformedHeader(f"a PROXY line has more than {LONGEST_LINE} bytes")
    if b"\r" in text:
        raise MalformedHeader("there is a CR within a PROXY line")
    name, space, rest = text[len(LINE) :].partition(b" ")
    if name == b"UNKNOWN":
        return (ProxyHeader(version=1), length) if length else (None, len(data))
    if not space and len(text) == len(line) and _begins(name):
        return None, len(data)
    if not space or name not in _FAMILIES:
        raise MalformedHeader(f"no PROXY header begins with {shown(text)}")
    kind, allowed = _FAMILIES[name]
    stray = rest.translate(None, allowed)
    if stray:
        raise MalformedHeader(f"there is {shown(stray)} in a PROXY line of {name.decode()}")
    if not length:
        return None, len(data)
    words = rest.split(b" ")
    if len(words) != _WORDS:
        raise MalformedHeader(f"a PROXY line has {len(words)} words after its family, not {_WORDS}")
    source, destination = (_parseAddress(kind, word) for word in words[:2])
    sourcePort, destinationPort = (_parsePort(word) for word in words[2:])
    return (
        ProxyHeader(
            version=1, source=(source, sourcePort), destination=(destination, destinationPort)
        ),
        length,
    )


def _begins(name: bytes) -> bool:
    """Whether a line's family may still become one that is known."""
    return any(known.startswith(name) for known in (*_FAMILIES, b"UNKNOWN"))


def _parseAddress(kind: type[IPv4Address | IPv6Address], word: bytes) -> str:
    try:
        return str(kind(word.decode("ascii")))
    except ValueError as error:
        raise MalformedHeader(f"{shown(word)} is no {kind.__name__}") from error


def _parsePort(word: bytes) -> int:
    """Decimal digits only: no sign, no zeros before the number."""
    if word.isdigit() and (word[:1] != b"0" or word == b"0") and int(word) <= LAST_PORT:
        return int(word)
    raise MalformedHeader(f"{shown(word)} is no port, 0 to {LAST_PORT}")
