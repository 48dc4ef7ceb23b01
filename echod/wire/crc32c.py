"""
The checksum of PROXY headers, CRC32C: `crc32c`.

The standard library has none: `zlib` has the CRC-32 of another polynomial.
"""

from __future__ import annotations

__all__ = ["crc32c"]

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
    """The CRC32C of ``data`` (RFC 4960 appendix B)."""
    remainder = _ALL_BITS
    for value in data:
        remainder = remainder >> 8 ^ _TABLE[(remainder ^ value) & 0xFF]
    return remainder ^ _ALL_BITS
