"""100 000 random inputs for each target of `tests.fuzz.targets`, the same in each run."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS
from tests.unit.proxyheaders import DGRAM, formatTLS, formatTLV, formatV1, formatV2

ADDRESS = ("192.0.2.1", 7)
#: What inputs are made of, besides any bytes.
WORDS = {
    "settings": (
        b"[defaults]\n|[[listener]]\n|protocol = |endpoint = |'raw'|1|=\n|max_connections|\n|nan"
        b"|idle_timeout|allow|deny|[|]|'10.0.0.0/8'|-1|{|}|\"|'''|1e400|0x|2020-01-01|options|."
    ).split(b"|"),
    "endpoint": (
        b"tcp|udp|:|port=|interface=|0|65536|127.0.0.1|\\:|\\|::1|%|fe80\\:\\:1%eth0|=| "
    ).split(b"|"),
    "networks": b"10.0.0.0/8|::/0|/|,|;|1.2.3.4|fe80::|/129|%eth0".split(b"|"),
    "proxyHeader": [
        *(
            b"s",
            b"d",
            b"sPROXY ",
            b"sPROXY TCP4 ",
            b"PROXY TCP6 ",
            b"UNKNOWN",
            b" ",
            b"\r\n",
            b"\r",
        ),
        *(
            b"192.0.2.1 ",
            b"::1 ",
            b"1 65535",
            b"0",
            b"\r\n\r\n\0\r\nQUIT\n",
            b"!\x11\0\x0c",
            b"!\0\0\7",
        ),
        *(b"s" + formatV1(ADDRESS, ADDRESS), b"sPROXY TCP6 ::1 ::1 1 ", b"sPROXY UNKNOWN "),
        *(b"s" + formatV2(ADDRESS, ADDRESS, length=12 + size) for size in (0, 3, 4, 7, 8, 11, 14)),
        *(b"d" + formatV2(ADDRESS, ADDRESS, transport=DGRAM, length=size) for size in (16, 20, 30)),
        *(b"s" + formatV2(length=4), b" \0\0\3", bytes(12), formatTLV(3, bytes(4))),
        *(formatTLV(2, b"a"), formatTLV(4, b""), formatTLS(7, 0, formatTLV(0x22, b"b"))),
    ],
    "syn": [
        *(bytes([0x45, 0, *bytes(7), 6, *bytes(10)]), bytes([0x60, *bytes(5), 6, *bytes(33)])),
        *(bytes([0x60, *bytes(39)]), bytes([6, 0, *bytes(6)]), bytes([44, 1, *bytes(14)])),
        *(bytes([*bytes(12), 0x50, 2, *bytes(6)]), bytes([*bytes(12), 0xF0, 2, *bytes(6)])),
        *(
            b"\2\4\5\xb4",
            b"\3\3\7",
            b"\4\2",
            b"\x08\x0a" + bytes(8),
            b"\x22\2",
            b"\1",
            b"\0",
            b"\2\0",
        ),
    ],
    "tcpInfo": [bytes(8), bytes(4), b"\xff" * 8, b"\1\0\0\0\0\7\x7a\0", bytes(96)],
}
FRAMES = (
    b"\n|\r\n|\0|\0\5|\0\0\0\3|\xff|5:|hello|,|0:,|12:|xxxxxxxxxxxxxxxxxxxx|:|0|-|5:hello,"
).split(b"|")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TARGETS)
def test_randomInputs(name: str) -> None:
    """No exception outside `EchodError`, and the same blocks whatever the pieces."""
    choose = random.Random(name)
    words = WORDS.get(name, FRAMES)
    target = TARGETS[name]
    for _ in range(100_000):
        parts = [
            choose.choice(words) if choose.random() < 0.8 else choose.randbytes(choose.randrange(4))
            for _ in range(choose.randrange(12))
        ]
        head = choose.randbytes(2) if name not in WORDS else b""
        data = head + b"".join(parts)
        try:
            target(data)
        except BaseException as error:
            raise AssertionError(f"{name} fails for {data!r}") from error


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed (extra: fuzz)"
)
def test_guidedByCoverage(tmp_path: Path) -> None:
    """A minute of inputs that atheris looks for: none of them breaks a promise."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.targets", "-max_total_time=60", f"{tmp_path}/"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "DONE" in done.stderr
