"""The small services: `chargen`, `daytime`, `time`, `whoami`, `upper`, `discard`."""

from __future__ import annotations

import time as clock
from email.utils import parsedate_to_datetime
from itertools import islice

import msgspec
import pytest

from echod.config.limits import Limits
from echod.connection.states import Reason, State
from echod.interfaces import IStreamProtocolMaker
from echod.protocols.chargen import PATTERN, chargen
from echod.protocols.clock import SINCE_1900, daytime, time
from echod.protocols.discard import discard
from echod.protocols.health import health
from echod.protocols.upper import upper
from echod.protocols.whoami import whoami
from echod.testing import Link, PlainContext, memoryLink


def serve(maker: IStreamProtocolMaker, buffers: int = 65536, limits: Limits | None = None) -> Link:
    protocol = maker.makeFactory(None, PlainContext()).buildProtocol(None)
    return memoryLink(protocol, sendBuffer=buffers, receiveBuffer=buffers, limits=limits)


def receiveExactly(link: Link, size: int) -> bytes:
    data = b""
    while len(data) < size:
        link.pump(lambda: link.loop is None)
        data += link.receive(size - len(data)) or b""
    return data


def test_pattern() -> None:
    """RFC 864: 72 printable characters and CR LF, each line one place further; 95 lines."""
    lines = PATTERN.split(b"\r\n")
    assert lines.pop() == b""
    assert len(lines) == 95
    assert len(lines[0]) == 72
    ring = "".join(map(chr, range(32, 127))).encode() * 2
    for number, line in enumerate(islice(lines, 95)):
        assert line == ring[number : number + 72]


def test_chargenUntilFIN() -> None:
    """E4: it streams until the caller ends, and what the caller sends is thrown away."""
    link = serve(chargen, 4096)
    assert receiveExactly(link, 50_000) == (PATTERN * 10)[:50_000]
    link.send(b"ignored")
    got = receiveExactly(link, 50_000)
    assert got == (PATTERN * 20)[50_000:100_000]
    assert link.connection.bytesIn == 7
    link.finish()
    link.pump()
    rest = link.readAll()
    assert len(rest) <= 3 * 65536 + 16384
    assert (PATTERN * 60)[100_000:].startswith(rest)
    link.advance(0.5)
    assert link.gone
    assert link.connection.reason is Reason.EOF


def test_chargenAndASlowReader() -> None:
    """E4: no memory growth while the caller does not read, but its FIN is seen."""
    link = serve(chargen, 4096, Limits(stallTimeout=20))
    link.pump()
    held = link.connection.transport.unsent()
    assert held <= 65536 + len(PATTERN) + 4096
    for _ in range(20):
        assert link.send(bytes(4096)) == 4096
        link.pump()
    assert link.connection.transport.unsent() == held
    assert link.connection.discarded + link.connection.bytesIn == 20 * 4096
    link.finish()
    link.pump()
    assert link.connection.state is State.FINISHING
    link.advance(25)
    assert link.gone
    assert link.connection.reason is Reason.STALLED


def test_chargenIsOneOfMany() -> None:
    """A reader that is as quick as it gets has no turn for itself."""
    link = serve(chargen, 1 << 30)
    for turns in range(1, 4):
        link.loop.turn()
        assert link.connection.bytesOut == (turns + 1) * 4 * len(PATTERN)
    link.reset()
    link.pump(lambda: link.gone)
    link.pump()
    assert link.gone


def test_chargenDrains() -> None:
    """O1: it stops when the daemon does; what was made is sent."""
    link = serve(chargen, 4096)
    link.pump()
    link.connection.drain()
    data = link.readAll()
    assert (PATTERN * 60).startswith(data)
    link.finish()
    link.advance(0.5)
    assert link.gone
    assert link.connection.reason is Reason.DRAIN


def test_time() -> None:
    """RFC 868: four bytes, big-endian, seconds since 1900; then the end, from our side."""
    # The RFC's own examples.
    assert SINCE_1900 == 2_208_988_800
    before = int(clock.time())
    link = serve(time)
    data = link.readAll()
    assert len(data) == 4
    assert before <= int.from_bytes(data, "big") - 2_208_988_800 <= clock.time()
    assert link.connection.state is State.LINGERING
    link.finish()
    link.pump()
    assert link.gone


def test_timeBeginsAnew(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 2036-02-07 at 06:28:16 UTC the four bytes are full."""
    monkeypatch.setattr(clock, "time", lambda: 2_085_978_496.5)
    link = serve(time)
    assert link.readAll() == bytes(4)
    link.finish()
    link.pump()


def test_daytime() -> None:
    """RFC 867: one line of text, whatever is sent."""
    before = int(clock.time())
    link = serve(daytime)
    link.send(b"what time is it?")
    data = link.readAll()
    assert data.endswith(b"GMT\r\n")
    assert before <= parsedate_to_datetime(data.decode()).timestamp() <= clock.time()
    link.finish()
    link.pump()
    assert link.gone


def test_whoami() -> None:
    """One line of JSON, then the end."""
    link = serve(whoami)
    data = link.readAll()
    assert data.endswith(b"}\n")
    assert msgspec.json.decode(data) == {
        "peer": "127.0.0.1:50000",
        "local": "127.0.0.1:7",
        "protocol": "whoami",
        "transport": "tcp",
    }
    link.finish()
    link.pump()
    assert link.gone


def test_upper() -> None:
    """Each whole line; a cut one is counted, one that is too long ends it."""
    link = serve(upper)
    assert link.exchange(b"one\r\ntwo\ncut") == b"ONE\r\nTWO\n"
    assert link.connection.truncated == 1
    link = serve(upper)
    link.send(b"one\n" + b"x" * 60_000)
    link.pump()
    link.send(b"x" * 10_000)
    assert link.readAll() == b"ONE\n"
    assert link.connection.reason is Reason.TOO_LONG
    link.finish()
    link.pump()
    assert link.gone


def test_discard() -> None:
    """E3: it never answers."""
    link = serve(discard)
    assert link.exchange(bytes(300_000)) == b""
    assert (link.connection.bytesIn, link.connection.bytesOut) == (300_000, 0)


@pytest.mark.parametrize("name", ["raw", "discard", "chargen", "whoami"])
def test_isShort(name: str) -> None:
    """Under 60 lines, docstrings counted."""
    module = __import__(f"echod.protocols.{name}", fromlist=["__file__"])
    with open(str(module.__file__)) as file:
        assert len(file.readlines()) < 60


def test_health() -> None:
    """What the context says, at the moment of the connection."""
    context = PlainContext()
    factory = health.makeFactory(None, context)
    for draining, told in ((False, b"ready\n"), (True, b"draining\n")):
        context.draining = draining
        link = memoryLink(factory.buildProtocol(None))  # type: ignore[arg-type]  # no address
        assert link.readAll() == told
        link.finish()
        link.pump()
        assert link.gone
        assert link.connection.reason is Reason.QUIT
