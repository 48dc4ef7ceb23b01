"""Limits on a running daemon: sources, networks, rates; what its log and counters say."""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from pathlib import Path

import pytest

from tests.integration.daemon import PATIENCE, exchange, waitFor
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.peers import connect, noise

# Linux's, which the standard library has from Python 3.12 on: ip(7).
IP_BIND_ADDRESS_NO_PORT = 24


def fromSource(daemon: Daemon, source: str, protocol: str = "raw") -> socket.socket:
    client = socket.socket()
    try:
        client.settimeout(PATIENCE)
        # A port that is free for this connection.  One that is free for any is searched for long
        # once thousands are in TIME_WAIT, and with 28 000 there is none.
        client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        client.bind((source, 0))
        client.connect(("127.0.0.1", daemon.ports[protocol]))
    except BaseException:
        client.close()
        raise
    return client


def isServed(client: socket.socket) -> bool:
    with client:
        try:
            client.sendall(b"?")
            return client.recv(1) == b"?"
        except ConnectionResetError:
            return False


def test_maxPerSource() -> None:
    """F11: so many of one source; another is served, and the first again when one has gone."""
    with Daemon("--port", "0", "--max-per-source", "2") as daemon:
        first, second = fromSource(daemon, "127.0.0.2"), fromSource(daemon, "127.0.0.2")
        for client in (first, second):
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        assert not isServed(fromSource(daemon, "127.0.0.2"))
        assert isServed(fromSource(daemon, "127.0.0.3"))
        first.close()
        waitFor(lambda: daemon.counters()["raw"]["open"] == 1)
        assert isServed(fromSource(daemon, "127.0.0.2"))
        second.close()
        assert daemon.counters()["raw"]["refused"] == {"source_full": 1}


def test_newPerSecond() -> None:
    with Daemon("--port", "0", "--new-per-second", "3") as daemon:
        served = [isServed(fromSource(daemon, "127.0.0.2")) for _ in range(5)]
        assert served == [True] * 3 + [False] * 2
        assert isServed(fromSource(daemon, "127.0.0.3"))


def test_networks() -> None:
    """The longest prefix decides; who may not come is closed at once, without a byte."""
    networks = ["--allow", "127.0.0.0/8", "--deny", "127.0.0.0/24"]
    with Daemon("--port", "0", *networks) as daemon:
        assert isServed(fromSource(daemon, "127.0.1.1"))
        assert not isServed(fromSource(daemon, "127.0.0.2"))
        assert daemon.counters()["raw"]["refused"] == {"denied": 1}


def test_networksOfDatagrams() -> None:
    with (
        Daemon("--udp-port", "0", "--deny", "127.0.0.2/32") as daemon,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as denied,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(PATIENCE)
        denied.bind(("127.0.0.2", 0))
        denied.sendto(b"x", ("127.0.0.1", daemon.ports["udp/udp"]))
        client.sendto(b"y", ("127.0.0.1", daemon.ports["udp/udp"]))
        assert client.recv(10) == b"y"
        assert daemon.counters()["udp"]["refused"] == {"denied": 1}


def test_bytesPerSecond() -> None:
    """300 kB at 100 kB a second take two seconds after the first; every byte comes back."""
    data = noise(300_000)
    with Daemon("--port", "0", "--bytes-per-second", "100000") as daemon:
        began = time.monotonic()
        assert exchange(connect(daemon), data) == data
        assert 1.5 <= time.monotonic() - began <= 6


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_listenerBytesPerSecond(kind: str, tmp_path: Path) -> None:
    """Short connections read no more than the rate, and leave nothing that others wait for."""
    path = f"{tmp_path}/socket"
    endpoint = "tcp:0" if kind == "tcp" else f"unix:{path}"
    listen = ["--listen", f"raw={endpoint}", "--listener-bytes-per-second", "10000"]

    def connected() -> socket.socket:
        if kind == "tcp":
            return daemon.connect()
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(path)
        return client

    with Daemon(*listen) as daemon:
        began = time.monotonic()
        for _ in range(50):
            with connected() as client:
                client.sendall(bytes(10_000))
                # RST, or what comes nearest to it.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        waitFor(lambda: daemon.counters()["raw"]["accepted"] == 50)
        assert daemon.counters()["raw"]["bytes_in"] <= 10_000 * (time.monotonic() - began + 2)
        with connected() as honest:
            began = time.monotonic()
            for _ in range(2):
                honest.sendall(b"x")
                assert honest.recv(1) == b"x"
            # Those that are closed have sent what has its turn, too: a UNIX socket keeps it.
            assert time.monotonic() - began < 8


def test_flood() -> None:
    """
    20 000 attempts of one source against a limit of 100: descriptors and memory stay, the log has
    few lines, and another source is served at once.
    """
    arguments = ["--port", "0", "--max-per-source", "100", "--max-connections", "200"]
    with Daemon(*arguments) as daemon:
        baseline = daemon.descriptors()
        kept = [fromSource(daemon, "127.0.0.2") for _ in range(100)]
        waitFor(lambda: daemon.counters()["raw"]["open"] == 100)
        lines = len(daemon.lines)
        memory = daemon.memory()
        began = time.monotonic()
        slowest = 0.0
        for number in range(20_000):
            fromSource(daemon, "127.0.0.2").close()
            if number % 500 == 0:
                assert daemon.descriptors() <= baseline + 100 + 64
                asked = time.monotonic()
                assert isServed(fromSource(daemon, "127.0.0.3"))
                slowest = max(slowest, time.monotonic() - asked)
        seconds = time.monotonic() - began
        # A machine with other work makes it slow, and it says so.
        others = ("counters", "#warn] slow ")
        told = [line for line in daemon.lines[lines:] if not any(word in line for word in others)]
        assert len(told) <= min(30, seconds + 2)
        assert all("refused raw tcp" in line for line in told)
        assert slowest < 1
        assert daemon.memory() - memory < 2 << 20
        # The last of them may wait to be accepted yet.
        waitFor(lambda: daemon.counters()["raw"]["refused"]["source_full"] == 20_000)
        for client in kept:
            client.close()


SLOW = """
import time
from echod.connection.connection import Connection
from echod.kit.makers import ConnectionMaker

class Slow(Connection):
    def received(self, data):
        time.sleep(0.3)
        self.reply(data)

slow = ConnectionMaker("slow", "holds everybody up", Slow)
"""


def test_slowHandler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One slow handler is named, with its listener and milliseconds, once a second at most."""
    info = tmp_path / "slowly-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slowly\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[echod.protocols]\nslow = slowly:slow\n")
    (tmp_path / "slowly.py").write_text(SLOW)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    with Daemon("--port", "0", "--listen", "slow=tcp:0") as daemon:
        with connect(daemon, "slow") as client:
            began = time.monotonic()
            for _ in range(6):
                client.sendall(b"x")
                assert client.recv(1) == b"x"
            seconds = time.monotonic() - began
        told = [line for line in daemon.lines if "#warn] slow " in line]
        assert 1 <= len(told) <= seconds + 1
        found = re.search(
            r"slow slow tcp 127\.0\.0\.1:\d+ protocol=Slow milliseconds=(\d+) count=1$", told[0]
        )
        assert found is not None
        assert 290 <= int(found[1]) <= 1000
        all_ = daemon.allCounters()
        assert all_["slow"] == 6
        assert all_["worst_lag_ms"] >= 150


def test_payload() -> None:
    """O5: only when asked for, with a warning; escaped, and cut at 64 bytes."""
    with Daemon("--port", "0", "--log-payload") as daemon:
        daemon.waitForLine("log_payload is on: what clients send is in the log")
        with connect(daemon) as client:
            client.sendall(b"\x1b[31mred\r\n" + b"x" * 100)
            assert len(client.recv(200)) == 110
            line = daemon.waitForLine("payload raw tcp")
        assert "size=110" in line
        assert r"data=b'\x1b[31mred\r\n" + "x" * 54 + "'" in line
        assert "x" * 55 not in line
        assert "\x1b" not in line
    with Daemon("--port", "0") as daemon:
        assert exchange(connect(daemon), b"secret") == b"secret"
        assert not [line for line in daemon.lines if "secret" in line or "payload" in line]
