"""The daemon under every reactor that it is for, and where there is no epoll."""

from __future__ import annotations

import random
import signal
import socket
import struct
import sys
import threading
from pathlib import Path

import pytest

from tests.integration.daemon import Daemon, exchange, receiveAll, waitFor

TWISTD = str(Path(sys.executable).with_name("twistd"))

#: ``twistd`` in a Python that never had epoll.
WITHOUT_EPOLL = """
import select
del select.epoll
import sys
from twisted.scripts.twistd import run
sys.argv[0] = "twistd"
run()
"""


def command(reactor: str, *, epoll: bool = True) -> list[str]:
    program = [TWISTD] if epoll else [sys.executable, "-c", WITHOUT_EPOLL]
    return [*program, f"--reactor={reactor}", "-n", "--pidfile=", "echod"]


def descriptorKinds(daemon: Daemon) -> list[str]:
    """What its descriptors are, sockets and files aside."""
    return [
        target
        for path in Path(f"/proc/{daemon.pid}/fd").iterdir()
        if (target := str(path.readlink())).startswith("anon_inode:")
    ]


REACTORS = [("epoll", True), ("poll", True), ("select", True), ("asyncio", True)]
STEPPED_ASIDE = [("poll", False), ("select", False)]


@pytest.mark.parametrize(
    ("name", "epoll"),
    REACTORS + STEPPED_ASIDE,
    ids=[it if epoll else f"{it}-without-epoll" for it, epoll in REACTORS + STEPPED_ASIDE],
)
def test_reactor(name: str, epoll: bool) -> None:
    """
    Works under it, or steps aside where there is no epoll.

    3 MB with half-close, 50 clients at once, RST, then SIGTERM: drained, exit status 0.
    """
    with Daemon("--port", "0", command=command(name, epoll=epoll)) as daemon:
        polling = descriptorKinds(daemon)
        # Two epoll objects are the poller's; the real reactor may have one too.
        own = {"epoll": 1, "asyncio": 1}.get(name, 0) if epoll else 0
        assert polling.count("anon_inode:[eventpoll]") == own + 2 * epoll

        data = random.Random(3).randbytes(3_000_000)
        assert exchange(daemon.connect(), data) == data

        clients = [daemon.connect() for _ in range(50)]
        for round_ in range(3):
            for number, client in enumerate(clients):
                client.sendall(b"%d %d;" % (round_, number))
        for number, client in enumerate(clients):
            client.shutdown(socket.SHUT_WR)
            with client:
                assert receiveAll(client) == b"".join(b"%d %d;" % (it, number) for it in range(3))

        waitFor(lambda: daemon.counters()["raw"]["open"] == 0, "the end of 51 connections")
        victim = daemon.connect()
        victim.sendall(b"x")
        assert victim.recv(9) == b"x"
        victim.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        victim.close()
        waitFor(lambda: daemon.counters()["raw"]["closed"].get("reset") == 1, "the RST")

        drained(daemon)


def drained(daemon: Daemon) -> None:
    """SIGTERM amid a transfer: all that was taken comes back, then EOF, and exit status 0."""
    idle, client = daemon.connect(), daemon.connect()
    data = random.Random(4).randbytes(1_000_000)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(receiveAll(client)))
    client.sendall(data[:1000])
    waitFor(lambda: daemon.counters()["raw"]["bytes_in"] >= 1000, "the first bytes")
    reader.start()
    client.sendall(data)
    waitFor(lambda: daemon.counters()["raw"]["bytes_in"] >= 3_000_000 + len(data), "the rest")
    daemon.signal(signal.SIGTERM)
    with idle:
        assert receiveAll(idle) == b""
    reader.join()
    client.close()
    assert received == [data[:1000] + data]
    assert daemon.wait() == 0
    assert not [line for line in daemon.lines if "Traceback" in line]
