"""Every size comes back whole, however it is cut on the way."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.integration.daemon import exchange, receiveAll, waitFor
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.peers import (
    SMALL,
    STREAMS,
    assertUnharmed,
    connect,
    frame,
    frames,
    lines,
    noise,
    ping,
    receiveExactly,
    serving,
    waitForCounters,
    wholeFrames,
    wholeLines,
)

REPETITIONS = 50
SIZES = [0, 1, 5, 65535, 65536, 65537]

buffers = pytest.mark.parametrize("buffers", [None, SMALL], ids=["default", "4KiB"])
protocols = pytest.mark.parametrize("protocol", list(STREAMS))


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """One for the whole module: nothing here may harm it."""
    with Daemon("--port", "0", "--line-port", "0", "--dns-port", "0") as daemon:
        yield daemon
        assertUnharmed(daemon)
        assert daemon.stop() == 0


def burst(
    daemon: Daemon, protocol: str, data: bytes, *, buffers: int | None = None
) -> tuple[bytes, int]:
    """
    Send, FIN at once, then read to EOF.

    :returns: what came, and the local port.
    """
    with connect(daemon, protocol, buffers=buffers) as client:
        port = int(client.getsockname()[1])
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return receiveAll(client), port


@protocols
@buffers
@pytest.mark.parametrize("size", SIZES)
def test_burst(daemon: Daemon, protocol: str, buffers: int | None, size: int) -> None:
    """E1, F8: send + FIN in one burst, nothing read before: all back, then EOF."""
    make, answer = STREAMS[protocol]
    data = make(size)
    before = waitForCounters(daemon, protocol, open=0)
    got = [burst(daemon, protocol, data, buffers=buffers)[0] for _ in range(REPETITIONS)]
    wrong = [len(one) for one in got if one != answer(data)]
    assert wrong == [], f"{len(wrong)} of {REPETITIONS} differ, wanted {len(answer(data))} bytes"
    after = waitForCounters(daemon, protocol, open=0)
    # Each ended with a FIN both ways, and nobody was owed a byte.
    assert after["closed"]["eof"] - before["closed"].get("eof", 0) == REPETITIONS
    for name in ("resets", "aborted", "cut"):
        assert after[name] == before[name]
    assert after["bytes_in"] - before["bytes_in"] == REPETITIONS * size
    cut = answer(data) != data
    assert after["truncated"] - before["truncated"] == REPETITIONS * cut


@buffers
@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("line", noise(65536).replace(b"\n", b"\0") + b"\n"),
        ("line", b"\n" * 65537),
        ("dns", frame(noise(65535))),
        ("dns", frame(b"") * 32768),
    ],
    ids=["longest line", "empty lines", "longest message", "empty messages"],
)
def test_extremes(daemon: Daemon, protocol: str, message: bytes, buffers: int | None) -> None:
    """F1, F10, E1: the longest and the shortest messages, in one burst with FIN."""
    for _ in range(10):
        assert burst(daemon, protocol, message, buffers=buffers)[0] == message


@protocols
@buffers
def test_threeMegabytes(daemon: Daemon, protocol: str, buffers: int | None) -> None:
    """E1, F8: 3 MB, read as they come, FIN behind them."""
    make, answer = STREAMS[protocol]
    data = make(3_000_000)
    for _ in range(3):
        assert exchange(connect(daemon, protocol, buffers=buffers), data) == answer(data)


@pytest.mark.slow
@protocols
@buffers
def test_sixtyFourMegabytes(daemon: Daemon, protocol: str, buffers: int | None) -> None:
    """E1, F8: the same with 64 MB, many times what all buffers on the way hold."""
    make, answer = STREAMS[protocol]
    # A whole number of kernel buffers would hide an off-by-one.
    block = answer(make(1_000_003))
    data = block * 64
    assert exchange(connect(daemon, protocol, buffers=buffers), data) == data


def test_pipelinedMessages(daemon: Daemon) -> None:
    """F4, F5: 1000 messages in one segment are answered, in order; the connection stays."""
    messages = b"".join(frame(b"%04d" % number * (number % 16)) for number in range(1000))
    assert len(messages) < 65483  # one segment, on loopback
    with connect(daemon, "dns") as client:
        before = daemon.counters()["dns"]["messages"]
        assert client.send(messages) == len(messages)
        assert receiveExactly(client, len(messages)) == messages
        assert daemon.counters()["dns"]["messages"] - before == 1000
        ping(client, frame(b"one more"))


def test_connectionIsKept(daemon: Daemon) -> None:
    """F5, F2: a hundred messages one after another on one connection, each answered at once."""
    with connect(daemon, "dns") as client:
        for number in range(100):
            ping(client, frame(b"x" * number))
        client.shutdown(socket.SHUT_WR)
        assert receiveAll(client) == b""


def test_emptyMessages(daemon: Daemon) -> None:
    """F1: a length of 0 is a message of 0 bytes, answered as such and counted."""
    with connect(daemon, "dns") as client:
        before = daemon.counters()["dns"]["messages"]
        ping(client, b"\0\0")
        ping(client, b"\0\0\0\0" + frame(b"a") + b"\0\0")
        assert daemon.counters()["dns"]["messages"] - before == 5


def test_lengthIsBigEndian(daemon: Daemon) -> None:
    """F1: 0x0102 is 258 bytes, and does not count itself."""
    body = noise(258)
    with connect(daemon, "dns") as client:
        client.sendall(b"\1\2" + body[:257])
        before = daemon.counters()["dns"]["bytes_out"]
        client.sendall(body[257:])
        assert receiveExactly(client, 260) == b"\1\2" + body
        assert daemon.counters()["dns"]["bytes_out"] - before == 260


_DNS = frame(b"ab") + frame(b"") + frame(b"c" * 256) + frame(b"d")
_LINES = b"one\n\ntwo\r\n\r\n" + b"x" * 40 + b"\nlast\n"


@pytest.mark.parametrize(
    ("protocol", "stream"),
    [("raw", _LINES), ("line", _LINES), ("dns", _DNS)],
    ids=list(STREAMS),
)
def test_everySplit(daemon: Daemon, protocol: str, stream: bytes) -> None:
    """
    F3: split at every position, in a length too; the first part is answered before the second.

    The pause between the parts is the answer to the first's whole messages, or, where it has
    none, the daemon's having read it.
    """
    _, answer = STREAMS[protocol]
    for position in range(len(stream) + 1):
        first, second = stream[:position], stream[position:]
        early = answer(first)
        before = daemon.counters()[protocol]["bytes_in"]
        with connect(daemon, protocol) as client:
            if first:
                client.sendall(first)
                assert receiveExactly(client, len(early)) == early
                waitForCounters(daemon, protocol, bytes_in=before + len(first))
            client.sendall(second)
            client.shutdown(socket.SHUT_WR)
            assert early + receiveAll(client) == stream, f"split at {position}"


@pytest.mark.parametrize(
    ("protocol", "stream"),
    [("raw", noise(1500)), ("line", lines(1500, longest=40)), ("dns", frames(1500, longest=40))],
    ids=list(STREAMS),
)
def test_byteByByte(daemon: Daemon, protocol: str, stream: bytes) -> None:
    """F3, E1: every byte a segment of its own; the whole comes back, the cut message does not."""
    _, answer = STREAMS[protocol]
    with connect(daemon, protocol) as client:
        for byte in stream:
            client.sendall(bytes((byte,)))
        client.shutdown(socket.SHUT_WR)
        assert receiveAll(client) == answer(stream)


@pytest.mark.parametrize(
    ("protocol", "stream"),
    [
        ("line", b"whole\ncut"),
        ("dns", frame(b"whole") + b"\0"),
        ("dns", frame(b"whole") + b"\0\5cut"),
    ],
    ids=["line", "dns length", "dns body"],
)
def test_cutMessage(daemon: Daemon, protocol: str, stream: bytes) -> None:
    """F8: FIN in the middle of a message: what is whole is answered, the rest is counted."""
    expected = (wholeLines if protocol == "line" else wholeFrames)(stream)
    before = waitForCounters(daemon, protocol, open=0)
    got, _ = burst(daemon, protocol, stream)
    assert got == expected
    assert len(got) < len(stream)
    after = waitForCounters(daemon, protocol, open=0)
    assert after["truncated"] - before["truncated"] == 1


def test_strict() -> None:
    """F8: `dns.strict` throws away on FIN what is unsent; what was taken before is whole."""
    stream = wholeFrames(frames(600_000))
    with serving("--dns-port", "0", "-o", "dns.strict=true") as daemon:
        with connect(daemon, "dns") as client:
            ping(client, frame(b"question"))
            # What the daemon's kernel knows to be taken: acknowledged by now.
            waitFor(lambda: daemon.counters()["dns"]["messages"] == 1)
            client.shutdown(socket.SHUT_WR)
            assert receiveAll(client) == b""
        waitForCounters(daemon, "dns", open=0, closed={"eof": 1}, aborted=0, cut=0)
        with connect(daemon, "dns", buffers=SMALL) as client:
            client.sendall(stream)
            client.shutdown(socket.SHUT_WR)
            waitForCounters(daemon, "dns", open=0, closed={"eof": 2}, aborted=1, cut=1)
            with pytest.raises(ConnectionResetError):
                receiveAll(client)
