"""
The PROXY header, version 2: numbers and values of a length (``proxy-protocol.txt``, section 2.2).

Pure; `echod.wire.proxy_header` tells the versions apart.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from echod.errors import MalformedHeader
from echod.wire.crc32c import crc32c
from echod.wire.proxy_values import ProxyHeader, ProxyTLS, shown

__all__ = ["LONGEST", "SIGNATURE", "parseBinary"]

#: Bytes of a header of version 2 that are taken at most, all counted.  The format could say 65 551.
#: Addresses take 232 at most; what else HAProxy and cloud balancers send fits nginx's bound, this.
LONGEST = 4096
#: Bytes of a unique id at most (section 2.2.5).
LONGEST_ID = 128
#: What a header begins with.
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: Bytes of version 2 before the addresses.
_FIXED = 16
#: What the upper half of the 13th byte says (section 2.2).
_VERSION = 2
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

_ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _TLS = 0x01, 0x02, 0x03, 0x05, 0x20
_TLS_VERSION, _TLS_NAME, _TLS_CIPHER, _TLS_SIGNATURE, _TLS_KEY = 0x21, 0x22, 0x23, 0x24, 0x25
#: Bits of a TLS value's first byte: the client came over TLS; it showed a certificate, in this
#: connection or in the session that this one resumes.
_OVER_TLS, _CERTIFICATE = 0x01, 0x02 | 0x04

#: Where the value of a TLV of each type begins and stops.
_Vectors = dict[int, tuple[int, int]]


def parseBinary(data: bytes, datagram: bool) -> tuple[ProxyHeader | None, int]:
    """
    The header that ``data`` begins with, and its length; see `echod.wire.proxy_header.parseHeader`.

    :param datagram: whether it came in a datagram.
    :raises MalformedHeader: it is none, and will be none.
    """
    at = len(SIGNATURE)
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
        raise MalformedHeader(f"TLV {kind:#04x} is no UTF-8: {shown(value)}") from error
    if not text.isprintable():
        raise MalformedHeader(f"TLV {kind:#04x} is not printable: {shown(value)}")
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
