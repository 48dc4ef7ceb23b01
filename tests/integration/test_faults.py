"""
Faults around a real daemon: what a client sees, and that the daemon is as it was afterwards.

docs/robustness.md has the table.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.daemon import MODULE, PATIENCE, TWISTD, exchange, idle, receiveAll, waitFor
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.namespaces import namespace, needsRoot
from tests.integration.peers import connect, noise

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@contextlib.contextmanager
def unharmed(daemon: Daemon) -> Iterator[None]:
    """Other clients' bytes come back meanwhile, and afterwards all is as it was within 10 s."""
    descriptors, memory = daemon.descriptors(), daemon.memory()
    stop = threading.Event()
    faults: list[str] = []
    rounds = 0

    def work() -> None:
        nonlocal rounds
        while not stop.is_set():
            data = noise(20_000)
            try:
                if exchange(connect(daemon), data) != data:
                    faults.append("other bytes")
            except OSError as error:
                faults.append(repr(error))
            rounds += 1
            idle(0.02, "the pace of a client")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()
    assert faults == []
    assert rounds > 0
    deadline = time.monotonic() + 10
    # What one round of each kind needs stays with Python's allocator.
    while daemon.descriptors() > descriptors or daemon.memory() > memory + (4 << 20):
        assert time.monotonic() < deadline, (daemon.descriptors(), daemon.memory())
        idle(0.05, "each look reads what the kernel has of the daemon")
    assert daemon.process.poll() is None


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_resetsAtRandom() -> None:
    """RST before, within and after anything: each costs its own connection."""
    choose = random.Random(5)
    with Daemon("--port", "0", "--line-port", "0", "--dns-port", "0") as daemon:
        exchange(connect(daemon), b"warm")
        with unharmed(daemon):
            for _ in range(600):
                client = connect(daemon, choose.choice(("raw", "line", "dns")))
                client.setblocking(False)
                for _ in range(choose.randrange(4)):
                    with contextlib.suppress(
                        BlockingIOError, ConnectionResetError, BrokenPipeError
                    ):
                        client.send(noise(choose.randrange(1, 50_000)))
                        if choose.random() < 0.3:
                            idle(0.002, "so that some of it is answered")
                            client.recv(choose.randrange(1, 10_000))
                if choose.random() < 0.3:
                    with contextlib.suppress(OSError):
                        client.shutdown(socket.SHUT_WR)
                reset(client)
        assert not [line for line in daemon.lines if "Traceback" in line]


@pytest.mark.slow
def test_stopped() -> None:
    """SIGSTOP for 5 s, then SIGCONT: clients wait, nothing is lost, no deadline fires at once."""
    with Daemon("--port", "0", "--idle-timeout", "8", "--stall-timeout", "8") as daemon:
        with connect(daemon) as client:
            client.sendall(b"before")
            assert client.recv(10) == b"before"
            daemon.signal(signal.SIGSTOP)
            client.sendall(b"while stopped")
            idle(5, "how long it is stopped")
            daemon.signal(signal.SIGCONT)
            assert client.recv(100) == b"while stopped"
            idle(1, "a deadline that was missed would cut it now")
            client.sendall(b"after")
            assert client.recv(10) == b"after"
        assert daemon.allCounters()["worst_lag_ms"] > 4000
        assert daemon.stop() == 0


@pytest.mark.slow
@pytest.mark.skipif(not FAKETIME.exists(), reason="there is no libfaketime (package: faketime)")
@pytest.mark.parametrize("step", ["-3600", "+3600"])
@pytest.mark.parametrize("loop", ["epoll", "asyncio"])
def test_clockStep(step: str, loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour's step of the wall clock: deadlines neither fire at once nor wait for an hour."""
    offset = tmp_path / "offset"
    offset.write_text("+0")
    monkeypatch.setenv("LD_PRELOAD", str(FAKETIME))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(offset))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    command = [TWISTD[0], "-n", "--pidfile=", f"--reactor={loop}", "echod"]
    with Daemon("--port", "0", "--idle-timeout", "2", command=command) as daemon:
        with connect(daemon) as client:
            client.sendall(b"before")
            assert client.recv(10) == b"before"
            offset.write_text(step)
            began = time.monotonic()
            # The next line of the log has the new time.
            daemon.counters()
            client.settimeout(PATIENCE)
            assert client.recv(10) == b""
            assert 1.5 <= time.monotonic() - began <= 6
        assert exchange(connect(daemon), b"after") == b"after"
        assert daemon.counters()["raw"]["closed"]["idle"] == 1
        hours = [line[11:13] for line in daemon.lines]
        assert hours[0] != hours[-1]
        assert daemon.stop() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_diskFull() -> None:
    """A log that cannot be written stops nothing: clients are served, SIGTERM drains, exit 0."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    command = [TWISTD[0], "-n", "--pidfile=", "--logfile=/dev/full", "echod"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--log-connections"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def serve() -> bool:
            with contextlib.suppress(ConnectionRefusedError):
                return exchange(socket.create_connection(("127.0.0.1", port)), b"x") == b"x"
            return False

        waitFor(serve, "a daemon whose disk is full")
        for _ in range(100):
            assert serve()
        process.send_signal(signal.SIGUSR1)
        assert serve()
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def test_killed() -> None:
    """``kill -9`` and a restart while clients reconnect: the port is there again at once."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    stop = threading.Event()
    wrong: list[bytes] = []
    served = 0

    def work() -> None:
        nonlocal served
        while not stop.is_set():
            data = noise(3000)
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as client:
                    client.sendall(data)
                    client.shutdown(socket.SHUT_WR)
                    got = receiveAll(client)
            except OSError:
                # Four that try without a pause leave no time for who is to start.
                stop.wait(0.01)
                continue
            # Cut short by the kill, or whole; never anything else.
            if not data.startswith(got):
                wrong.append(got)
            served += got == data

    def servedMore(count: int) -> Callable[[], bool]:
        before = served
        return lambda: served >= before + count

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(4):
            with Daemon("--port", str(port)) as daemon:
                waitFor(servedMore(20), "clients that are served")
                daemon.process.kill()
                daemon.process.wait()
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert wrong == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="there is no prlimit(1)")
def test_noDescriptorsLeft() -> None:
    """O2: at the system's limit it neither spins nor dies nor fills the log, and recovers."""
    with Daemon("--port", "0", "--max-connections", "200") as daemon:
        with connect(daemon) as kept:
            kept.sendall(b"x")
            assert kept.recv(1) == b"x"
            limit = daemon.descriptors() + 5
            command = ["prlimit", f"--pid={daemon.pid}", f"--nofile={limit}:{limit}"]
            subprocess.run(command, check=True)
            lines = len(daemon.lines)
            clients = [connect(daemon) for _ in range(30)]
            cpu, began = daemon.cpu(), time.monotonic()
            for _ in range(30):
                kept.sendall(b"still here")
                assert kept.recv(100) == b"still here"
                idle(0.1, "the pace of a client")
            seconds = time.monotonic() - began
            assert daemon.cpu() - cpu < 0.3 * seconds
            assert len(daemon.lines) - lines <= 3 + 3 * seconds
            for client in clients:
                client.close()
        waitFor(lambda: exchange(connect(daemon), b"again") == b"again", "recovery")


# -- The network ---------------------------------------------------------------------------------

CLIENT = """
import random, socket, sys, threading
port, size = int(sys.argv[1]), int(sys.argv[2])
data = random.Random(size).randbytes(size)
client = socket.create_connection(("127.0.0.1", port), 60)
def send():
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send)
sender.start()
got = bytearray()
while piece := client.recv(65536):
    got += piece
sender.join()
print("same" if got == data else f"{len(got)} other bytes")
"""


def inNamespace(prefix: list[str], size: int, *arguments: str) -> str:
    with Daemon("--port", "1234", *arguments, command=[*prefix, *MODULE]):
        done = subprocess.run(
            [*prefix, sys.executable, "-c", CLIENT, "1234", str(size)],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return done.stdout.strip() + done.stderr.strip()


@needsRoot
@pytest.mark.skipif(shutil.which("nft") is None, reason="there is no nft(8) (package: nftables)")
def test_loss() -> None:
    """Every twentieth packet is lost: TCP sends it again, every byte comes back once."""
    rules = (
        "nft add table inet t",
        "nft add chain inet t i { type filter hook input priority 0 ; }",
        "nft add rule inet t i tcp dport 1234 numgen random mod 100 < 5 drop",
        "nft add rule inet t i tcp sport 1234 numgen random mod 100 < 5 drop",
    )
    with namespace(*rules) as prefix:
        assert inNamespace(prefix, 300_000) == "same"


@pytest.mark.slow
@needsRoot
@pytest.mark.skipif(shutil.which("tc") is None, reason="there is no tc(8) (package: iproute2)")
def test_slowLink() -> None:
    """A link of 2 Mbit/s: no deadline cuts what makes progress, half-closed as it is."""
    shape = "tc qdisc add dev lo root tbf rate 2mbit burst 16kb latency 400ms"
    with namespace("ip link set lo mtu 1500", shape) as prefix:
        limits = ["--stall-timeout", "2", "--idle-timeout", "2", "--linger-timeout", "2"]
        assert inNamespace(prefix, 400_000, *limits) == "same"


class ToxicProxy:
    """
    Between a client and the daemon: each chunk is handed on as ``toxic`` says.

    :param toxic: from a chunk to the pieces to send, with the seconds to wait before each.
    """

    def __init__(self, port: int, toxic: Callable[[bytes], Iterator[tuple[float, bytes]]]) -> None:
        self._target = port
        self._toxic = toxic
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        client, _ = self._listening.accept()
        server = socket.create_connection(("127.0.0.1", self._target))
        both = [
            threading.Thread(target=self._pass, args=pair)
            for pair in ((client, server), (server, client))
        ]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        client.close()
        server.close()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(8192):
            for seconds, piece in self._toxic(data):
                idle(seconds, "the pace of the link")
                target.sendall(piece)
        target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._threads[0].join()
        self._listening.close()


@pytest.mark.parametrize("protocol", ["raw", "line", "dns"])
def test_toxicProxy(protocol: str) -> None:
    """Delayed and sliced anywhere, both ways: the same messages, in order; each FIN apart."""
    choose = random.Random(9)

    def toxic(data: bytes) -> Iterator[tuple[float, bytes]]:
        at = 0
        while at < len(data):
            size = choose.choice((1, 2, 3, 100, 1460, 8192))
            yield choose.choice((0, 0, 0, 0.002)), data[at : at + size]
            at += size

    bodies = [noise(choose.randrange(300)).replace(b"\n", b" ") for _ in range(200)]
    if protocol == "dns":
        data = b"".join(len(body).to_bytes(2, "big") + body for body in bodies)
    else:
        data = b"".join(body + b"\r\n" for body in bodies)
    with Daemon("--port", "0", "--line-port", "0", "--dns-port", "0") as daemon:
        proxy = ToxicProxy(daemon.ports[protocol], toxic)
        try:
            client = socket.create_connection(("127.0.0.1", proxy.port), PATIENCE)
            assert exchange(client, data) == data
        finally:
            proxy.close()
