"""`echod.wire.syn`: SYNs as they arrive, and whatever else there may be."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.wire.syn import parseSYN

#: As Linux 6.18 gave them over loopback.
IPV4 = bytes.fromhex(
    "4500003c7fcd40004006bcec7f0000017f000001d8e4b8a9b5ca35ea00000000a002ffd7fe300000"
    "0204ffd70402080a230b0c94000000000103030a"
)
IPV6 = bytes.fromhex(
    "6003e5450028064000000000000000000000000000000001000000000000000000000000000000019f04c9e3"
    "2d19285000000000a002ffc40030000002"
    "04ffc40402080aa41c00ff000000000103030a"
)


def syn(
    options: bytes = b"", *, tos: int = 0, flags: int = 2, before: bytes = b"", first: int = 6
) -> bytes:
    """Headers of IPv6 (with extensions, the first of which is of this kind) and TCP."""
    padded = options + bytes(-len(options) % 4)
    words = (20 + len(padded)) // 4
    tcp = struct.pack("!HHIIBBHHH", 1234, 7, 1, 0, words << 4, flags, 65535, 0, 0) + padded
    start = 0x60000000 | tos << 20
    return struct.pack("!IHBB", start, 0, first, 55) + bytes(32) + before + tcp


def told(data: bytes) -> dict[str, object]:
    found = parseSYN(data)
    assert found is not None
    return found


def test_iPv4() -> None:
    """All that it tells."""
    assert told(IPV4) == {
        "ip": 4,
        "ttl": 64,
        "tos": 0,
        "dscp": 0,
        "ecn": 0,
        "source_port": 55524,
        "window": 65495,
        "ece": False,
        "cwr": False,
        "mss": 65495,
        "window_scale": 10,
        "sack_permitted": True,
        "timestamps": True,
        "options": ["mss", "sack_permitted", "timestamps", "nop", "window_scale"],
    }


def test_iPv6() -> None:
    """The same over IPv6."""
    found = told(IPV6)
    assert (found["ip"], found["ttl"], found["source_port"], found["mss"]) == (6, 64, 40708, 65476)
    assert found["options"] == ["mss", "sack_permitted", "timestamps", "nop", "window_scale"]


def test_class() -> None:
    """DSCP and ECN are its two parts; the flags ask for ECN (RFC 3168 section 6.1.1)."""
    found = told(syn(tos=0b10111001, flags=0b11000010))
    assert (found["tos"], found["dscp"], found["ecn"]) == (0b10111001, 46, 1)
    assert (found["ece"], found["cwr"]) == (True, True)


@pytest.mark.parametrize(
    ("first", "before"),
    [
        (0, b"\6\1" + bytes(14)),
        (60, bytes([44, 0, *bytes(6)]) + bytes([6, 0, *bytes(6)])),
        (51, bytes([6, 4, *bytes(22)])),
    ],
    ids=["hop-by-hop", "destination, fragment", "authentication"],
)
def test_extensions(first: int, before: bytes) -> None:
    """IPv6 may have headers of its own before TCP's (RFC 8200 section 4)."""
    assert told(syn(b"\2\4\5\xb4", before=before, first=first))["mss"] == 1460


def test_options() -> None:
    """Each by its name, in order; unknown ones by number; Fast Open with its cookie's length."""
    found = told(syn(b"\x22\n12345678\xfe\4ab\1\1\x13\x12" + bytes(16) + b"\0junk"))
    assert found["options"] == ["fast_open", "254", "nop", "nop", "md5", "end"]
    assert found["fast_open"] == 8
    assert told(syn(b"\x22\2"))["fast_open"] == 0
    assert "mss" not in told(syn(b"\2\3\1\0"))


@pytest.mark.parametrize("options", [b"\2\0\0\0", b"\2\1\0\0", b"\2\x09\0\0", b"\1\1\1\2"])
def test_malformedOptions(options: bytes) -> None:
    """What is before them is told, and nothing behind."""
    found = told(syn(b"\1\1\1\1" + options))
    assert found["options"] in (["nop"] * 4, ["nop"] * 7)
    assert "mss" not in found


@pytest.mark.parametrize("sample", [IPV4, IPV6, syn(before=b"\6\0" + bytes(6), first=0)])
def test_short(sample: bytes) -> None:
    """Less than all of it is nothing."""
    assert parseSYN(sample) is not None
    assert [parseSYN(sample[:count]) for count in range(len(sample))] == [None] * len(sample)


def test_otherProtocols() -> None:
    """UDP, ICMPv6, a length below the least, a version that there is not."""
    assert parseSYN(IPV4[:9] + b"\x11" + IPV4[10:]) is None
    assert parseSYN(syn(first=58)) is None
    assert parseSYN(b"\x44" + IPV4[1:]) is None
    assert parseSYN(b"\x55" + IPV4[1:]) is None
    assert parseSYN(IPV4[:32] + b"\x40" + IPV4[33:]) is None


@given(st.binary(max_size=200), st.sampled_from([b"", IPV4[:20], IPV6[:40], IPV4[:33], IPV6[:53]]))
def test_anyBytes(data: bytes, start: bytes) -> None:
    """Values for JSON, or none; whatever follows changes nothing."""
    found = parseSYN(start + data)
    json.dumps(found)
    if found is not None:
        assert parseSYN(start + data + b"more") == found
