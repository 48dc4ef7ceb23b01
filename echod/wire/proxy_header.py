r"""
The PROXY header, versions 1 and 2: what a proxy tells of its client, before any payload.

Pure bytes in, a value out, after HAProxy's ``doc/proxy-protocol.txt`` (docs/wire.md P3, P4).
`parseHeader` is for streams: it is given all that has come so far, as often as more comes, and
costs the same however little that was.  `parseDatagram` is for datagrams, each with a header of
its own.  Who may send a header, and for how long one is waited for, is the caller's business.

PyPI's ``proxy-protocol`` is not used.  Its last release is of April 2024; it cannot be given bytes
that follow a header (it reads them as addresses and TLVs), takes lines of any length and UDP on a
stream, checks no CRC32C without another package and calls right ones wrong with it, and answers
faults of the peer with half a dozen kinds of exception.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from msgspec import Struct

from echod.errors import MalformedHeader
from echod.wire.addresses import LAST_PORT

__all__ = [
    "LONGEST",
    "LONGEST_LINE",
    "ProxyHeader",
    "ProxyTLS",
    "crc32c",
    "parseDatagram",
    "parseHeader",
    "proxyFacts",
]

#: Bytes of a header of version 2 that are taken at most, all counted.  The format could say 65 551.
#: Addresses take 232 at most; what else HAProxy and cloud balancers send fits nginx's bound, this.
LONGEST = 4096
#: Bytes of a header of version 1 at most, with its CRLF (section 2.1).
LONGEST_LINE = 107
#: Bytes of a unique id at most (section 2.2.5).
LONGEST_ID = 128
#: Bytes of the peer's that an error shows at most.
SHOWN = 20

_LINE = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: Bytes of version 2 before the addresses.
_FIXED = 16
#: What the upper half of the 13th byte says (section 2.2).
_VERSION = 2
#: Words of version 1 behind the family: two addresses, two ports (section 2.1).
_WORDS = 4
#: Bytes of a checksum (section 2.2.3); of flags and result before the TLVs of TLS (section 2.2.6).
_SUM = 4
_TLS_HEAD = 5

_LOCAL, _PROXY = 0, 1
_STREAM, _DATAGRAM = 1, 2
_UNSPECIFIED, _INET, _INET6, _UNIX = 0, 1, 2, 3
#: Bytes that the addresses of a family take.
_ADDRESSES = {_UNSPECIFIED: 0, _INET: 12, _INET6: 36, _UNIX: 216}
_LAYOUTS = {
    _INET: (IPv4Address, struct.Struct(">4s4sHH")),
    _INET6: (IPv6Address, struct.Struct(">16s16sHH")),
}
#: A family of version 1: its addresses, and all that may stand behind its name.
_FAMILIES: dict[bytes, tuple[type[IPv4Address | IPv6Address], bytes]] = {
    b"TCP4": (IPv4Address, b"0123456789. "),
    b"TCP6": (IPv6Address, b"0123456789abcdefABCDEF:. "),
}

_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _TLS = 0x01, 0x02, 0x03, 0x05, 0x20
_TLS_VERSION, _TLS_NAME, _TLS_CIPHER, _TLS_SIGNATURE, _TLS_KEY = 0x21, 0x22, 0x23, 0x24, 0x25
#: Bits of a TLS value's first byte: the client came over TLS; it showed a certificate, in this
#: connection or in the session that this one resumes.
_OVER_TLS, _CERTIFICATE = 0x01, 0x02 | 0x04

#: Where the value of a TLV of each type begins and stops.
_Vectors = dict[int, tuple[int, int]]


class ProxyTLS(Struct, frozen=True, kw_only=True):
    """
    How a client came to its proxy, if that was over TLS; texts are printable.

    :ivar version: such as ``TLSv1.3``.
    :ivar cipher: its name as OpenSSL has it.
    :ivar commonName: of the client's certificate.
    :ivar signatureAlgorithm: that the proxy's certificate was signed with, such as ``RSA-SHA256``.
    :ivar keyAlgorithm: of the proxy's certificate, such as ``RSA2048``.
    :ivar presented: whether the client showed a certificate.
    :ivar verified: whether it did and the proxy found it good.
    """

    version: str | None = None
    cipher: str | None = None
    commonName: str | None = None
    signatureAlgorithm: str | None = None
    keyAlgorithm: str | None = None
    presented: bool = False
    verified: bool = False


class ProxyHeader(Struct, frozen=True, kw_only=True):
    """
    What a header tells; texts are printable.

    :ivar version: 1 or 2.
    :ivar source: the client's numeric address and port; ``None`` where the real ones count: the
        proxy speaks for itself (LOCAL), knows none (UNKNOWN, UNSPEC) or has paths (AF_UNIX).
    :ivar destination: where the client connected to, or ``None`` with ``source``.
    :ivar datagram: whether the client sent datagrams.
    :ivar authority: the host that the client asked for, such as TLS's server name.
    :ivar alpn: the protocol that it agreed on with the proxy.
    :ivar uniqueId: the proxy's name for the connection, at most 128 bytes.
    :ivar tls: how it came to the proxy; ``None`` if not over TLS.
    """

    version: int
    source: tuple[str, int] | None = None
    destination: tuple[str, int] | None = None
    datagram: bool = False
    authority: str | None = None
    alpn: str | None = None
    uniqueId: bytes | None = None
    tls: ProxyTLS | None = None


def parseHeader(data: bytes, *, datagram: bool = False) -> tuple[ProxyHeader | None, int]:
    """
    The header that ``data`` begins with.

    :param data: all that has come, from the very first byte.
    :param datagram: whether it came in a datagram: then version 1 is refused; otherwise a proxy
        of datagrams is.
    :returns: the header and its length in bytes; what follows is payload and was not looked at.
        ``None`` and the length of ``data``, all of which belongs to the header, while it may still
        become one.
    :raises MalformedHeader: it cannot any more.
    """
    if _SIGNATURE.startswith(data[: len(_SIGNATURE)]):
        return _parseBinary(data, datagram)
    if not datagram and _LINE.startswith(data[: len(_LINE)]):
        return _parseLine(data)
    raise MalformedHeader(f"no PROXY header begins with {_shown(data)}")


def parseDatagram(data: bytes) -> tuple[ProxyHeader, int]:
    """
    The header, of version 2, that a datagram begins with.

    :returns: the header and its length in bytes; the rest is payload.
    :raises MalformedHeader: there is none, or not all of it.
    """
    header, length = parseHeader(data, datagram=True)
    if header is None:
        raise MalformedHeader(f"a datagram ends within its PROXY header, after {length} bytes")
    return header, length


def _parseLine(data: bytes) -> tuple[ProxyHeader | None, int]:
    """Version 1; see `parseHeader`."""
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
    name, space, rest = text[len(_LINE) :].partition(b" ")
    if name == b"UNKNOWN":
        return (ProxyHeader(version=1), length) if length else (None, len(data))
    if not space and len(text) == len(line) and _begins(name):
        return None, len(data)
    if not space or name not in _FAMILIES:
        raise MalformedHeader(f"no PROXY header begins with {_shown(text)}")
    kind, allowed = _FAMILIES[name]
    stray = rest.translate(None, allowed)
    if stray:
        raise MalformedHeader(f"there is {_shown(stray)} in a PROXY line of {name.decode()}")
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
        raise MalformedHeader(f"{_shown(word)} is no {kind.__name__}") from error


def _parsePort(word: bytes) -> int:
    """Decimal digits only: no sign, no zeros before the number."""
    if word.isdigit() and (word[:1] != b"0" or word == b"0") and int(word) <= LAST_PORT:
        return int(word)
    raise MalformedHeader(f"{_shown(word)} is no port, 0 to {LAST_PORT}")


def _parseBinary(data: bytes, datagram: bool) -> tuple[ProxyHeader | None, int]:
    """Version 2; see `parseHeader`."""
    at = len(_SIGNATURE)
    command = family = transport = 0
    if len(data) > at:
        version, command = divmod(data[at], 16)
        if version != _VERSION or command not in (_LOCAL, _PROXY):
            raise MalformedHeader(f"{data[at]:#04x} is no PROXY version and command, 0x20 or 0x21")
    if len(data) > at + 1:
        family, transport = divmod(data[at + 1], 16)
        if command == _PROXY:
            _checkKind(family, transport, datagram)
    if len(data) < _FIXED:
        return None, len(data)
    length = _FIXED + int.from_bytes(data[at + 2 : _FIXED])
    if length > LONGEST:
        raise MalformedHeader(f"a PROXY header says that it has {length} bytes, above {LONGEST}")
    # Of LOCAL even the family is ignored (section 2.2), so it may be any.
    vectorsAt = _FIXED + _ADDRESSES.get(family, 0)
    if length < vectorsAt and command == _PROXY:
        raise MalformedHeader(f"{length - _FIXED} bytes are no addresses of family {family}")
    if len(data) < length:
        return None, len(data)
    header = data[:length]
    try:
        vectors = _vectors(header, vectorsAt)
        _checkSum(header, vectors)
    except _NoVectors:
        # Addresses of no known family have no known length; they are skipped with the rest.
        if command == _PROXY and family != _UNSPECIFIED:
            raise
        vectors = {}
    if command == _LOCAL:
        return ProxyHeader(version=2), length
    source = destination = None
    if transport and family in _LAYOUTS:
        kind, layout = _LAYOUTS[family]
        one, other, sourcePort, destinationPort = layout.unpack_from(header, _FIXED)
        source, destination = (str(kind(one)), sourcePort), (str(kind(other)), destinationPort)
    return (
        ProxyHeader(
            version=2,
            source=source,
            destination=destination,
            datagram=transport == _DATAGRAM,
            authority=_text(header, vectors, _AUTHORITY),
            alpn=_text(header, vectors, _ALPN),
            uniqueId=_uniqueId(header, vectors),
            tls=_tls(header, vectors),
        ),
        length,
    )


def _checkKind(family: int, transport: int, datagram: bool) -> None:
    if family not in _ADDRESSES or transport > _DATAGRAM:
        raise MalformedHeader(f"{family << 4 | transport:#04x} is no known family and transport")
    # The other way round is allowed: dnsdist 1.7 hands on by UDP what came to it over HTTPS.
    if transport == _DATAGRAM and not datagram:
        raise MalformedHeader("a datagram's PROXY header came in a stream")


class _NoVectors(MalformedHeader):
    """What stands there are no type-length-values."""


def _vectors(header: bytes, at: int) -> _Vectors:
    """
    The type-length-values (section 2.2) from ``at`` to the end; of several of a type the first.

    :raises _NoVectors: one goes beyond the end.
    """
    found: _Vectors = {}
    while at < len(header):
        begin = at + 3
        stop = begin + int.from_bytes(header[at + 1 : begin])
        if stop > len(header):
            raise _NoVectors(f"the TLV at byte {at} goes beyond the end of a PROXY header")
        found.setdefault(header[at], (begin, stop))
        at = stop
    return found


def _checkSum(header: bytes, vectors: _Vectors) -> None:
    """Compare the checksum, if there is one (section 2.2.3)."""
    if _CRC32C not in vectors:
        return
    begin, stop = vectors[_CRC32C]
    if stop - begin != _SUM:
        raise _NoVectors(f"the CRC32C of a PROXY header has {stop - begin} bytes, not {_SUM}")
    if crc32c(header[:begin] + bytes(_SUM) + header[stop:]) != int.from_bytes(header[begin:stop]):
        raise MalformedHeader("the CRC32C of a PROXY header is wrong")


def _text(header: bytes, vectors: _Vectors, kind: int) -> str | None:
    if kind not in vectors:
        return None
    begin, stop = vectors[kind]
    value = header[begin:stop]
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise MalformedHeader(f"TLV {kind:#04x} is no UTF-8: {_shown(value)}") from error
    if not text.isprintable():
        raise MalformedHeader(f"TLV {kind:#04x} is not printable: {_shown(value)}")
    return text


def _uniqueId(header: bytes, vectors: _Vectors) -> bytes | None:
    if _UNIQUE_ID not in vectors:
        return None
    begin, stop = vectors[_UNIQUE_ID]
    if stop - begin > LONGEST_ID:
        raise MalformedHeader(f"a unique id has {stop - begin} bytes, more than {LONGEST_ID}")
    return header[begin:stop]


def _tls(header: bytes, vectors: _Vectors) -> ProxyTLS | None:
    """Section 2.2.6: flags, the result of verifying, and TLVs within the TLV."""
    if _TLS not in vectors:
        return None
    begin, stop = vectors[_TLS]
    if stop - begin < _TLS_HEAD:
        raise MalformedHeader(f"TLV {_TLS:#04x} has {stop - begin} bytes, fewer than {_TLS_HEAD}")
    flags, result = header[begin], header[begin + 1 : begin + _TLS_HEAD]
    within = _vectors(header[:stop], begin + _TLS_HEAD)
    presented = bool(flags & _CERTIFICATE)
    found = ProxyTLS(
        version=_text(header, within, _TLS_VERSION),
        cipher=_text(header, within, _TLS_CIPHER),
        commonName=_text(header, within, _TLS_NAME),
        signatureAlgorithm=_text(header, within, _TLS_SIGNATURE),
        keyAlgorithm=_text(header, within, _TLS_KEY),
        presented=presented,
        verified=presented and result == bytes(4),
    )
    return found if flags & _OVER_TLS else None


def _shown(data: bytes) -> str:
    return repr(data[:SHOWN]) + ("..." if len(data) > SHOWN else "")


#: The polynomial of CRC32C, 0x1EDC6F41, with its bits reversed (RFC 3720 appendix B.4); what the
#: remainder begins with, and is turned by at the end.
_CASTAGNOLI = 0x82F63B78
_ALL_BITS = 0xFFFFFFFF


def _tabulate(remainder: int) -> int:
    for _ in range(8):
        remainder = remainder >> 1 ^ (_CASTAGNOLI if remainder & 1 else 0)
    return remainder


_TABLE = [_tabulate(value) for value in range(256)]


def crc32c(data: bytes) -> int:
    """The CRC32C of ``data`` (RFC 4960 appendix B), which the standard library has not."""
    remainder = _ALL_BITS
    for value in data:
        remainder = remainder >> 8 ^ _TABLE[(remainder ^ value) & 0xFF]
    return remainder ^ _ALL_BITS


def proxyFacts(header: ProxyHeader) -> dict[str, Any]:
    """What a header tells besides addresses, for those who read JSON: what is known, by name."""
    facts: dict[str, Any] = {
        "version": header.version,
        "authority": header.authority,
        "alpn": header.alpn,
        "unique_id": None if header.uniqueId is None else header.uniqueId.hex(),
    }
    tls = header.tls
    if tls is not None:
        facts["tls"] = {
            "version": tls.version,
            "cipher": tls.cipher,
            "common_name": tls.commonName,
            "verified": tls.verified,
        }
        facts["tls"] = {key: value for key, value in facts["tls"].items() if value is not None}
    return {key: value for key, value in facts.items() if value is not None}
