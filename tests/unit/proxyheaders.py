"""
PROXY headers as a proxy makes them, right ones and wrong ones (haproxy's proxy-protocol.txt).

The checksum is computed here bit by bit, so that it and `echod.wire.crc32c.crc32c` check each
other.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import ip_address

__all__ = [
    "ALPN",
    "ASKED",
    "AUTHORITY",
    "CLIENT",
    "CRC32C",
    "DGRAM",
    "INET",
    "INET6",
    "LOCAL",
    "NOOP",
    "PROXY",
    "SIGNATURE",
    "STREAM",
    "UNIQUE_ID",
    "UNIX",
    "UNSPEC",
    "formatTLS",
    "formatTLV",
    "formatV1",
    "formatV2",
    "slowCRC32C",
]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0, 1
UNSPEC, INET, INET6, UNIX = 0, 1, 2, 3
STREAM, DGRAM = 1, 2
ALPN, AUTHORITY, CRC32C, NOOP, UNIQUE_ID, TLS = 0x01, 0x02, 0x03, 0x04, 0x05, 0x20

Address = tuple[str, int]

#: A client, and where it asked its proxy.
CLIENT: Address = ("192.0.2.7", 40000)
ASKED: Address = ("192.0.2.1", 7)


def formatV1(source: Address, destination: Address, family: str = "") -> bytes:
    """
    ``PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n``.

    :param family: such as ``TCP6``; that of ``source`` if not given.
    """
    name = family or f"TCP{ip_address(source[0]).version}"
    return f"PROXY {name} {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n".encode()


def formatTLV(kind: int, value: bytes) -> bytes:
    """One type-length-value."""
    return struct.pack(">BH", kind, len(value)) + value


def formatTLS(flags: int, verify: int, *within: bytes) -> bytes:
    """The TLV about TLS: whether, with a certificate, and what OpenSSL said; TLVs in it."""
    return formatTLV(TLS, struct.pack(">BI", flags, verify) + b"".join(within))


def formatV2(
    source: Address | None = None,
    destination: Address | None = None,
    tlvs: Sequence[bytes] = (),
    *,
    transport: int = STREAM,
    command: int = PROXY,
    family: int | None = None,
    addresses: bytes | None = None,
    checksum: int | None = None,
    length: int | None = None,
) -> bytes:
    """
    A header of version 2.

    :param source: with ``destination``, addresses of one family; without them UNSPEC, and then
        the transport is, too.
    :param tlvs: see `formatTLV`.
    :param family: another nibble for it.
    :param addresses: other bytes for them.
    :param checksum: before which of ``tlvs`` a right CRC32C stands; none if not given.
    :param length: another length than the right one.
    """
    kind, block = UNSPEC, b""
    if source is not None and destination is not None:
        one, other = ip_address(source[0]), ip_address(destination[0])
        assert one.version == other.version
        kind = INET if one.version == 4 else INET6
        block = one.packed + other.packed + struct.pack(">HH", source[1], destination[1])
    elif family is None:
        transport = UNSPEC
    block = block if addresses is None else addresses
    kind = kind if family is None else family
    parts = list(tlvs)
    if checksum is not None:
        parts.insert(checksum, formatTLV(CRC32C, bytes(4)))
    size = len(block) + sum(map(len, parts)) if length is None else length
    fixed = SIGNATURE + struct.pack(">BBH", 0x20 | command, kind << 4 | transport, size)
    header = fixed + block + b"".join(parts)
    if checksum is None:
        return header
    at = len(fixed + block + b"".join(parts[:checksum])) + 3
    return header[:at] + struct.pack(">I", slowCRC32C(header)) + header[at + 4 :]


def slowCRC32C(data: bytes) -> int:
    """RFC 4960 appendix B, bit by bit."""
    remainder = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            odd = (remainder ^ byte >> bit) & 1
            remainder = remainder >> 1 ^ (0x82F63B78 if odd else 0)
    return remainder ^ 0xFFFFFFFF
