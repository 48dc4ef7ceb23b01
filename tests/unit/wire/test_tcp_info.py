"""`echod.wire.tcp_info`: the fields are where the kernel's header has them."""

from __future__ import annotations

import json
import re
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.wire.tcp_info import _BYTES, _PLACES, STATES, parseTCPInfo

HEADER = Path("/usr/include/linux/tcp.h")
SIZES = {"__u8": 1, "__u16": 2, "__u32": 4, "__u64": 8}


def headersFields() -> dict[str, tuple[int, int]]:
    """Offset and size of each field of ``struct tcp_info`` in the header, by its name."""
    if not HEADER.exists():
        pytest.skip(f"no {HEADER} (Debian: linux-libc-dev)")
    found = re.search(r"struct tcp_info \{(.*?)\n\};", HEADER.read_text(), re.DOTALL)
    assert found is not None
    text = re.sub(r"/\*.*?\*/", "", found[1], flags=re.DOTALL)
    fields = {}
    offset = 0
    for kind, names in re.findall(r"(__u\d+)\s+([^;]+);", text):
        size = SIZES[kind]
        # Bit fields share their byte.
        for name in [names] if ":" in names else names.split(","):
            assert offset % size == 0, "the compiler would align it"
            fields[name.strip().removeprefix("tcpi_")] = (offset, size)
            offset += size
    return fields


def test_layout() -> None:
    """Each field has its place, and no name is ours."""
    fields = headersFields()
    ours = {name: (offset, field.size) for offset, field, name in _PLACES}
    assert ours == {name: fields[name] for name in ours}
    assert [fields[name][0] for name in ("state", "retransmits", "probes", "backoff")] == [
        *(0, 2, 3, 4)
    ]
    assert fields["options"] == (5, 1)
    assert _BYTES.size == fields["rto"][0]


def whole(**values: int) -> bytes:
    """A struct with these values, all else 0."""
    data = bytearray(232)
    for offset, field, name in _PLACES:
        field.pack_into(data, offset, values.pop(name, 0))
    data[0] = values.pop("state", 1)
    data[5] = values.pop("options", 0)
    data[6] = values.pop("scales", 0)
    assert not values
    return bytes(data)


def test_values() -> None:
    """Numbers as they are, options and the state by name."""
    info = parseTCPInfo(whole(rtt=42, snd_wnd=65536, bytes_acked=1 << 40, options=0b1011, state=8))
    assert info["rtt"] == 42
    assert info["snd_wnd"] == 65536
    assert info["bytes_acked"] == 1 << 40
    assert info["options"] == ["timestamps", "sack", "ecn"]
    assert info["state"] == "CLOSE_WAIT"
    assert "snd_wscale" not in info
    assert [parseTCPInfo(whole(state=each))["state"] for each in (1, 12, 13)] == [
        *("ESTABLISHED", "NEW_SYN_RECV", "13")
    ]
    assert len(STATES) == 12


@pytest.mark.skipif(sys.byteorder != "little", reason="a byte as a little-endian machine has it")
def test_windowScales() -> None:
    """Two in one byte, where both ends scale."""
    info = parseTCPInfo(whole(options=0b100, scales=0x7A))
    assert (info["snd_wscale"], info["rcv_wscale"]) == (10, 7)


def test_nothingMeasured() -> None:
    """What means that there is none is not told as a number."""
    info = parseTCPInfo(
        whole(snd_ssthresh=0x7FFFFFFF, min_rtt=0xFFFFFFFF, pacing_rate=(1 << 64) - 1)
    )
    assert not info.keys() & {"snd_ssthresh", "min_rtt", "pacing_rate", "delivery_rate", "rcv_rtt"}


@given(st.binary(max_size=300))
def test_anyBytes(data: bytes) -> None:
    """An older kernel's is a beginning of a newer one's; and all of it is JSON."""
    info = parseTCPInfo(data)
    json.dumps(info)
    shorter = parseTCPInfo(data[: len(data) // 2])
    assert shorter.items() <= info.items()
    assert parseTCPInfo(data + bytes(300 - len(data))).items() >= info.items()
    assert bool(info) == (len(data) >= _BYTES.size)


def test_olderKernel() -> None:
    """Linux 4.1 ended with the segments: min_rtt and what follows is not there."""
    info = parseTCPInfo(whole(segs_in=3, min_rtt=5)[:144])
    assert info["segs_in"] == 3
    assert "min_rtt" not in info
    assert struct.calcsize("=8B") == _BYTES.size
