"""`echod.wire.crc32c`: the checksum, against published values, and computed otherwise."""

from __future__ import annotations

import random

from echod.wire.crc32c import crc32c
from tests.unit.proxyheaders import slowCRC32C


def test_crc32c() -> None:
    """RFC 3720 appendix B.4 and the check value of the polynomial."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    noise = random.Random(11).randbytes(1000)
    assert crc32c(noise) == slowCRC32C(noise)
