"""Every byte of 1 and 64 MiB, through random stalls, sizes and buffers, over TCP and UNIX."""

from __future__ import annotations

import contextlib
import functools
import random
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon import PATIENCE
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.peers import assertUnharmed, noise, waitForDescriptors

MIB = 1 << 20
#: Milliseconds without room to send that are a stall.
STALL = 30
#: Sizes of reads while a client reads at full speed, and while it sips.
GULPS = (65536, 200_000, MIB)
SIPS = (1, 700, 5000)


@functools.cache
def stream(size: int) -> bytes:
    """
    Noise of 1 MiB, again and again, with a number in each 4 KiB.

    So a block that is lost, shifted or doubled is seen.
    """
    data = bytearray(noise(MIB) * (size // MIB))
    for number, at in enumerate(range(0, size, 4096)):
        struct.pack_into(">Q", data, at, number)
    return bytes(data)


class Client:
    """
    Sends and reads as it likes, and compares all that comes back.

    It reads at full speed, sips, or stalls until nobody takes anything from it any more.

    :ivar stalls: how often it did that.
    """

    def __init__(self, skt: socket.socket, data: bytes, source: random.Random) -> None:
        skt.setblocking(False)
        self._socket = skt
        self._data = memoryview(data)
        self._source = source
        self._sent = 0
        self._got = 0
        self.stalls = 0

    def run(self) -> None:
        """All, then FIN of either side."""
        size = len(self._data)
        self._stall()
        while self._got < size:
            mode = self._source.random()
            if mode < 0.1:
                self._stall()
            else:
                self._read(SIPS if mode < 0.3 else GULPS, self._source.randrange(1, 20))
        self._wait(select.POLLIN)
        assert self._socket.recv(1) == b""

    def _wait(self, events: int, milliseconds: float = 1000 * PATIENCE) -> int:
        poll = select.poll()
        poll.register(self._socket, events)
        return dict(poll.poll(milliseconds)).get(self._socket.fileno(), 0)

    def _send(self) -> None:
        """Send a piece; FIN behind the last one."""
        piece = self._data[self._sent :][: self._source.choice((100, 70_000, MIB))]
        with contextlib.suppress(BlockingIOError):
            self._sent += self._socket.send(piece)
        if self._sent == len(self._data):
            self._socket.shutdown(socket.SHUT_WR)

    def _stall(self) -> None:
        while self._sent < len(self._data):
            if not self._wait(select.POLLOUT, STALL):
                self.stalls += 1
                return
            self._send()

    def _read(self, sizes: tuple[int, ...], times: int) -> None:
        for _ in range(times):
            sending = self._sent < len(self._data)
            events = self._wait(select.POLLIN | (select.POLLOUT if sending else 0))
            assert events, f"nothing comes after {self._got} bytes, of {self._sent} that were sent"
            if events & select.POLLOUT and sending:
                self._send()
            if events & select.POLLIN:
                piece = self._socket.recv(self._source.choice(sizes))
                expected = self._data[self._got : self._got + len(piece)]
                assert piece == expected, f"wrong within {len(piece)} bytes from {self._got} on"
                self._got += len(piece)
                if self._got == len(self._data):
                    return


@pytest.fixture(scope="module", params=["pipe", "in place"])
def daemon(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Daemon, Path]]:
    """One for all, and its UNIX socket."""
    path = tmp_path_factory.mktemp("bulk") / "echod.sock"
    words = ["--port", "0", "--listen", f"raw=unix:{path}"]
    if request.param == "in place":
        words += ["-o", "raw.in_place=true"]
    with Daemon(*words) as one:
        yield one, path


def connected(daemon: Daemon, path: Path, family: str, buffers: int) -> socket.socket:
    client = socket.socket(socket.AF_UNIX if family == "unix" else socket.AF_INET)
    if buffers:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            client.setsockopt(socket.SOL_SOCKET, option, buffers)
    client.connect(str(path) if family == "unix" else ("127.0.0.1", daemon.ports["raw"]))
    return client


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize(
    ("size", "buffers"), [(MIB, 8192), (MIB, 30_000), (8 * MIB, 100_000), (64 * MIB, 0)]
)
def test_everyByte(daemon: tuple[Daemon, Path], family: str, size: int, buffers: int) -> None:
    """E1: each byte comes back once, in its place, however the client reads."""
    process, path = daemon
    baseline = process.descriptors()
    stalls = 0
    for seed in range(4 if size == MIB else 1):
        with connected(process, path, family, buffers) as skt:
            client = Client(skt, stream(size), random.Random(seed))
            client.run()
            stalls += client.stalls
    # Less is taken by the kernels at both ends.
    assert stalls or size < 64 * MIB
    waitForDescriptors(process, baseline)
    assertUnharmed(process)
