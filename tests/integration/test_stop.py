"""
From a signal to the end: who is owed something gets it, within one deadline.

"What the kernel held" is exact here: what a client sent, less what its own kernel still
has to hand over (``TIOCOUTQ``), is with the daemon or its kernel, and must come back.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import resource
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from echod.daemon.signals import ONE_REQUEST
from echod.testing.running import Process
from tests.integration.daemon import (
    MODULE,
    PATIENCE,
    Daemonised,
    both,
    exchange,
    receiveAll,
    waitFor,
)
from tests.integration.loaded import LoadedDaemon as Daemon

#: Seconds that a daemon on a busy machine may take besides its deadlines.
GRACE = 1.0

#: More than all buffers between a client and a daemon together hold.
PLENTY = 32 << 20


def pattern(length: int) -> bytes:
    """Bytes no two stretches of which are alike: a loss, or an order, cannot hide."""
    return random.Random(length).randbytes(length)


def undelivered(client: socket.socket) -> int:
    """Bytes sent that the daemon's kernel has not acknowledged."""
    (count,) = struct.unpack("i", fcntl.ioctl(client.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
    return int(count)


def stuff(daemon: Process, client: socket.socket, data: bytes) -> int:
    """
    Send, reading nothing, until the daemon stops reading and every buffer is full.

    :returns: how much of ``data`` is with the daemon or its kernel: owed to the client.
    """
    client.setblocking(False)
    view = memoryview(data)
    sent = 0

    def full() -> bool:
        nonlocal sent
        before = sent, undelivered(client)
        try:
            while True:
                sent += client.send(view[sent : sent + 65536])
        except BlockingIOError:
            pass
        assert sent < len(data), "the buffers have no end"
        return before == (sent, undelivered(client)) and bool(daemon.counters()["raw"]["pauses"])

    waitFor(full, "a daemon that stops reading")
    client.setblocking(True)
    client.settimeout(PATIENCE)
    return sent - undelivered(client)


def draining(daemon: Daemon) -> None:
    """Wait until the daemon has begun to drain."""
    daemon.waitForLine(": draining")


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def isReset(client: socket.socket) -> bool:
    """Whether the connection ends with RST, after whatever arrived before."""
    try:
        receiveAll(client)
    except ConnectionResetError:
        return True
    return False


@pytest.fixture(scope="module")
def data() -> bytes:
    return pattern(PLENTY)


@pytest.fixture
def daemonised(tmp_path: Path) -> Iterator[Daemonised]:
    with Daemonised(tmp_path) as daemon:
        yield daemon


# -- Nobody is owed anything -------------------------------------------------------------------


@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_idle(command: list[str], number: signal.Signals) -> None:
    """O1: an idle client gets FIN, closes, and the daemon exits 0 at once."""
    with Daemon("--port=0", command=command) as daemon, daemon.connect() as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        started = time.monotonic()
        daemon.signal(number)
        assert client.recv(100) == b""
        client.close()
        assert daemon.wait() == 0
        assert time.monotonic() - started < GRACE
        assert not [line for line in daemon.lines if "Traceback" in line]


def test_nobody() -> None:
    """O1: without clients it exits 0 at once."""
    with Daemon("--port=0", "--line-port=0", command=MODULE) as daemon:
        started = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - started < GRACE


def test_neverClosing() -> None:
    """O1: one that never closes after our FIN is waited for, then cut: exit 0."""
    with (
        Daemon("--port=0", "--linger-timeout=1", command=MODULE) as daemon,
        daemon.connect() as client,
    ):
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        started = time.monotonic()
        daemon.signal()
        assert client.recv(100) == b""
        assert time.monotonic() - started < GRACE
        client.sendall(b"thrown away")
        assert daemon.wait() == 0
        assert 0.9 < time.monotonic() - started < 1 + GRACE


def test_lingeringPastTheDeadline() -> None:
    """O1: the drain's deadline ends those that linger; nobody lost a byte, so it exits 0."""
    with (
        Daemon("--port=0", "--drain-timeout=0.5", "--linger-timeout=60", command=MODULE) as daemon,
        daemon.connect() as client,
    ):
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        started = time.monotonic()
        assert daemon.stop() == 0
        assert 0.4 < time.monotonic() - started < 0.5 + GRACE


# -- Somebody is -------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_midTransfer(command: list[str], number: signal.Signals, data: bytes) -> None:
    """O1: every byte that the kernel held comes back, then FIN; exit 0."""
    with Daemon("--port=0", command=command) as daemon, daemon.connect() as client:
        owed = stuff(daemon, client, data)
        assert owed > 1 << 20
        daemon.signal(number)
        draining(daemon)
        received = receiveAll(client)
        assert len(received) >= owed
        assert received == data[: len(received)]
        client.close()
        assert daemon.wait() == 0


def test_stillSending(data: bytes) -> None:
    """O1, C2: one that goes on sending gets what it is owed and FIN, not RST; exit 0."""
    with Daemon("--port=0", command=MODULE) as daemon, daemon.connect() as client:
        owed = stuff(daemon, client, data)
        ended = threading.Event()

        def send() -> None:
            while not ended.is_set():
                client.sendall(b"\xff" * 65536)

        sender = threading.Thread(target=send)
        daemon.signal()
        draining(daemon)
        sender.start()
        try:
            received = receiveAll(client)
        finally:
            ended.set()
            sender.join()
        assert len(received) >= owed
        assert received[:owed] == data[:owed]
        client.close()
        assert daemon.wait() == 0


def test_busyExchange(data: bytes) -> None:
    """O1: one that sends and reads all the while gets a prefix of it and FIN; exit 0."""
    with Daemon("--port=0", command=MODULE) as daemon, daemon.connect() as client:
        going = threading.Event()
        failures: list[OSError] = []

        def send() -> None:
            try:
                client.sendall(data)
                client.sendall(data)
            except OSError as error:
                failures.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        received = bytearray()
        while piece := client.recv(1 << 18):
            received += piece
            if len(received) > 1 << 20 and not going.is_set():
                going.set()
                daemon.signal()
        client.shutdown(socket.SHUT_WR)
        sender.join()
        assert going.is_set()
        assert len(received) < 2 * len(data)
        assert received == (data + data)[: len(received)]
        client.close()
        assert daemon.wait() == 0


def test_halfClosed(data: bytes) -> None:
    """O1, E1: one that has finished and has read nothing yet gets all of it; exit 0."""
    with (
        Daemon("--port=0", "--log-connections", command=MODULE) as daemon,
        daemon.connect() as client,
    ):
        sent = data[: 1 << 19]
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        daemon.waitForLine("] eof ")
        daemon.signal()
        draining(daemon)
        assert receiveAll(client) == sent
        client.close()
        assert daemon.wait() == 0


def test_finishedBehindFullBuffers(data: bytes) -> None:
    """O1, E1: nor does a FIN that the daemon has not seen yet cost a byte; exit 0."""
    with Daemon("--port=0", command=MODULE) as daemon, daemon.connect() as client:
        owed = stuff(daemon, client, data)
        client.shutdown(socket.SHUT_WR)
        daemon.signal()
        draining(daemon)
        received = receiveAll(client)
        assert len(received) >= owed
        assert received == data[: len(received)]
        client.close()
        assert daemon.wait() == 0


@both
def test_neverReading(command: list[str], data: bytes) -> None:
    """O1: one that never reads is cut at the deadline; exit status 3."""
    with (
        Daemon("--port=0", "--drain-timeout=1", command=command) as daemon,
        daemon.connect() as client,
    ):
        stuff(daemon, client, data)
        started = time.monotonic()
        assert daemon.stop() == 3
        assert 0.9 < time.monotonic() - started < 1 + GRACE
        assert isReset(client)


def test_oneNeverReading(data: bytes) -> None:
    """O1: those that read are served meanwhile; the one that is cut decides the status."""
    with (
        Daemon("--port=0", "--drain-timeout=1.5", command=MODULE) as daemon,
        daemon.connect() as dead,
        daemon.connect() as reading,
    ):
        stuff(daemon, dead, data)
        reading.sendall(b"hello")
        daemon.signal()
        assert receiveAll(reading) == b"hello"
        reading.close()
        assert daemon.wait() == 3


@pytest.mark.parametrize("owing", [False, True], ids=["nobody owed", "somebody owed"])
def test_noDrain(owing: bool, data: bytes) -> None:
    """`--drain-timeout 0` cuts at once; the exit status says whether bytes were lost."""
    with (
        Daemon("--port=0", "--drain-timeout=0", command=MODULE) as daemon,
        daemon.connect() as client,
    ):
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        if owing:
            stuff(daemon, client, data)
        started = time.monotonic()
        assert daemon.stop() == (3 if owing else 0)
        assert time.monotonic() - started < GRACE


def test_noDrainOfUnread() -> None:
    """What the kernel holds when a drain of 0 s cuts is answered, or it exits 3."""
    with (
        Daemon("--port=0", "--drain-timeout=0", command=MODULE) as daemon,
        daemon.connect() as client,
    ):
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        daemon.signal(signal.SIGSTOP)
        client.sendall(b"unread")
        daemon.signal()
        daemon.signal(signal.SIGCONT)
        status = daemon.wait()
        received = b""
        try:
            while piece := client.recv(100):
                received += piece
        except ConnectionResetError:
            pass
        assert received == b"unread" or status == 3
        assert status in (0, 3)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("owing", [False, True], ids=["nobody owed", "somebody owed"])
@both
def test_secondSignal(command: list[str], owing: bool, second: signal.Signals, data: bytes) -> None:
    """A second signal that is meant, a second after the first, ends it at once, with status 3."""
    with (
        Daemon("--port=0", "--drain-timeout=60", "--linger-timeout=60", command=command) as daemon,
        daemon.connect() as client,
    ):
        if owing:
            stuff(daemon, client, data)
        daemon.signal()
        draining(daemon)
        assert daemon.process.poll() is None
        started = time.monotonic()
        assert daemon.hurry(second) == 3
        assert ONE_REQUEST < time.monotonic() - started + GRACE < ONE_REQUEST + 2 * GRACE
        assert [line for line in daemon.lines if f"{second.name} again: ending at once" in line]
        assert not [line for line in daemon.lines if "Traceback" in line]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@both
def test_sameRequest(command: list[str], second: signal.Signals, data: bytes) -> None:
    """A Ctrl-C that a wrapper hands on once more is one: every byte comes back, exit 0."""
    with Daemon("--port=0", command=command) as daemon, daemon.connect() as client:
        owed = stuff(daemon, client, data)
        daemon.signal(signal.SIGINT)
        draining(daemon)
        daemon.signal(second)
        daemon.waitForLine(f"{second.name} again, too soon to mean more")
        received = receiveAll(client)
        assert len(received) >= owed
        assert received == data[: len(received)]
        client.close()
        assert daemon.wait() == 0


# -- Those in the queue ------------------------------------------------------------------------


@both
def test_queued(command: list[str]) -> None:
    """O1: connections that nobody has accepted yet are served as well."""
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon("--port=0", command=command))
        daemon.signal(signal.SIGSTOP)
        clients = [stack.enter_context(daemon.connect()) for _ in range(5)]
        for number, client in enumerate(clients):
            client.sendall(b"hello %d" % number)
        daemon.signal()
        daemon.signal(signal.SIGCONT)
        for number, client in enumerate(clients):
            assert receiveAll(client) == b"hello %d" % number
            client.close()
        assert daemon.wait() == 0


def test_urgentBytes() -> None:
    """O1: all that the kernel held comes back: urgent bytes, and what is behind them."""
    with Daemon("--port=0", command=MODULE) as daemon, daemon.connect() as accepted:
        accepted.sendall(b"hello")
        assert accepted.recv(5) == b"hello"
        daemon.signal(signal.SIGSTOP)
        with daemon.connect() as queued:
            for client in (accepted, queued):
                client.send(b"!", socket.MSG_OOB)
                client.sendall(b"x" * 5000)
                client.send(b"?", socket.MSG_OOB)
                client.sendall(b"y" * 5000)
            daemon.signal()
            daemon.signal(signal.SIGCONT)
            for client in (accepted, queued):
                assert receiveAll(client) == b"!" + b"x" * 5000 + b"?" + b"y" * 5000
                client.close()
        assert daemon.wait() == 0


def test_longQueue(data: bytes) -> None:
    """O1: a queue of several batches, silent clients and finished ones in it."""
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon("--port=0", command=MODULE))
        daemon.signal(signal.SIGSTOP)
        clients = [stack.enter_context(daemon.connect()) for _ in range(150)]
        for number, client in enumerate(clients):
            if number % 3:
                client.sendall(data[: 300 * number])
            if number % 3 == 2:
                client.shutdown(socket.SHUT_WR)
        daemon.signal()
        daemon.signal(signal.SIGCONT)
        for number, client in enumerate(clients):
            assert receiveAll(client) == (data[: 300 * number] if number % 3 else b"")
            client.close()
        assert daemon.wait() == 0


def test_refusedWhileDraining() -> None:
    """O1: no new accepts: while somebody is waited for, new connections are refused."""
    with (
        Daemon("--port=0", "--drain-timeout=60", "--linger-timeout=60", command=MODULE) as daemon,
        daemon.connect() as client,
    ):
        daemon.signal()
        assert client.recv(100) == b""
        waitFor(lambda: refuses(daemon.ports["raw"]), "a closed port")
        assert daemon.process.poll() is None
        client.close()
        assert daemon.wait() == 0


def test_many() -> None:
    """O1: 500 connections, each with an echo that it has not read: all get it; exit 0."""
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon("--port=0", command=MODULE))
        payload = pattern(10_000)
        clients = [stack.enter_context(daemon.connect()) for _ in range(500)]
        for client in clients:
            client.sendall(payload)
        started = time.monotonic()
        daemon.signal()
        for client in clients:
            assert receiveAll(client) == payload
            client.close()
        assert daemon.wait() == 0
        assert time.monotonic() - started < 10


def listening(port: int) -> int | None:
    """How many wait in the accept queue of a port; ``None`` if nobody listens there."""
    with open("/proc/net/tcp") as table:
        # Those that listen come first.
        for line in table.read(1 << 16).splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
                return int(fields[4].partition(":")[2], 16)
    return None


def test_thousand() -> None:
    """
    O1: 1 000 active connections, and 50 that wait to be accepted, at the moment of SIGTERM.

    The queue is served, then the port is closed within 50 ms; each gets all that the daemon, or its
    kernel, had received; exit 0 within a second of the deadline.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    first, second = pattern(5_000), pattern(3_000)
    arguments = ["--port=0", "--max-connections=1100", "--drain-timeout=10"]
    with Daemon(*arguments, command=MODULE) as daemon, ExitStack() as stack:
        port = daemon.ports["raw"]
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        clients = []
        for _ in range(1_000):
            clients.append(stack.enter_context(daemon.connect()))
            clients[-1].sendall(first)
        waitFor(lambda: daemon.counters()["raw"]["bytes_out"] == 1_000 * len(first), "all echoes")
        # What comes now it has not read, and those that come now it has not accepted.
        daemon.signal(signal.SIGSTOP)
        for client in clients:
            client.sendall(second)
        waiting = [stack.enter_context(daemon.connect()) for _ in range(50)]
        for client in waiting:
            client.sendall(second)
        assert listening(port) == 50
        daemon.signal()
        daemon.signal(signal.SIGCONT)
        begun = served = time.monotonic()
        while (queued := listening(port)) is not None:
            if queued:
                served = time.monotonic()
        closed = time.monotonic()
        assert closed - served <= 0.05
        for client in clients:
            assert receiveAll(client) == first + second
            client.close()
        for client in waiting:
            assert receiveAll(client) == second
            client.close()
        assert daemon.wait() == 0
        assert time.monotonic() - begun < 10 + GRACE


# -- The daemon without a terminal -------------------------------------------------------------


@pytest.mark.parametrize("cut", [False, True], ids=["drained", "cut"])
def test_pidFile(daemonised: Daemonised, cut: bool, data: bytes) -> None:
    """O1: as a daemon too it ends in time; its pid file is gone, cut or not."""
    assert daemonised.start("--port=0", "--drain-timeout=0.5").returncode == 0
    port = daemonised.ports()["raw"]
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        if cut:
            client.setblocking(False)

            def full() -> bool:
                before = undelivered(client)
                try:
                    while True:
                        client.send(data[:65536])
                except BlockingIOError:
                    return before > 0 and before == undelivered(client)

            waitFor(full, "full buffers")
            client.setblocking(True)
        pid = int(daemonised.pidFile.read_text())
        started = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        if not cut:
            assert client.recv(10) == b""
            client.close()
        waitFor(lambda: not daemonised.processes(), "its end")
        assert time.monotonic() - started < 0.5 + GRACE
        assert not daemonised.pidFile.exists()
        assert not [line for line in daemonised.lines if "Traceback" in line]


# -- Other signals -----------------------------------------------------------------------------


@both
def test_hangUp(command: list[str]) -> None:
    """SIGHUP neither ends the daemon nor a connection."""
    with Daemon("--port=0", command=command) as daemon, daemon.connect() as client:
        client.sendall(b"before")
        assert client.recv(100) == b"before"
        daemon.signal(signal.SIGHUP)
        daemon.waitForLine("reloaded: ")
        client.sendall(b"after")
        assert client.recv(100) == b"after"
        assert exchange(daemon.connect(), b"new") == b"new"
        client.close()
        assert daemon.stop() == 0


KEYS = {
    "listener",
    "open",
    "accepted",
    "refused",
    "closed",
    "bytes_in",
    "bytes_out",
    "messages",
    "truncated",
    "stalls",
    "pauses",
}


@both
def test_counters(command: list[str], data: bytes) -> None:
    """SIGUSR1 logs one line of JSON, the same bytes and connections as happened."""
    with Daemon("--port=0", "--line-port=0", command=command) as daemon:
        assert exchange(daemon.connect("raw"), b"hello") == b"hello"
        assert exchange(daemon.connect("line"), b"one\ntwo\nthr") == b"one\ntwo\n"
        with daemon.connect("raw") as client:
            stuff(daemon, client, data)
            waitFor(lambda: daemon.counters()["line"]["open"] == 0)
            waitFor(lambda: daemon.counters()["raw"]["open"] == 1)
            start = len(daemon.lines)
            counters = daemon.counters()
            assert len([line for line in daemon.lines[start:] if "counters {" in line]) == 1
            raw, line = counters["raw"], counters["line"]
            assert raw.keys() >= KEYS
            assert raw["listener"] == f"raw tcp 127.0.0.1:{daemon.ports['raw']}"
            assert line["listener"] == f"line tcp 127.0.0.1:{daemon.ports['line']}"
            assert (raw["open"], raw["accepted"], raw["closed"]) == (1, 2, {"eof": 1})
            assert raw["pauses"] > 0
            assert (raw["stalls"], raw["refused"]) == (0, {})
            assert raw["bytes_in"] == raw["bytes_out"] > 1 << 20
            assert (line["open"], line["accepted"], line["closed"]) == (0, 1, {"eof": 1})
            assert (line["bytes_in"], line["bytes_out"]) == (11, 8)
            assert (line["messages"], line["truncated"], line["pauses"]) == (2, 1, 0)


def test_countersOfRefusals(data: bytes) -> None:
    """Who was turned away is counted, and is no connection."""
    arguments = ["--port=0", "--max-connections=1", "--stall-timeout=0"]
    with Daemon(*arguments, command=MODULE) as daemon, daemon.connect() as client:
        stuff(daemon, client, data)  # it is busy: nobody takes its place
        with daemon.connect() as other, suppress(ConnectionResetError):
            assert other.recv(10) == b""
        counters = daemon.counters()["raw"]
        assert counters["refused"] == {"full": 1}
        assert (counters["open"], counters["accepted"]) == (1, 1)


def test_countersOfStalls(data: bytes) -> None:
    """Who stood still for too long is counted."""
    arguments = ["--port=0", "--stall-timeout=0.5"]
    with Daemon(*arguments, command=MODULE) as daemon, daemon.connect() as client:
        stuff(daemon, client, data)
        counters = waitFor(lambda: (one := daemon.counters()["raw"])["stalls"] and one)
        assert (counters["stalls"], counters["aborted"], counters["cut"]) == (1, 1, 1)
        assert counters["closed"] == {"stalled": 1}
        assert isReset(client)


# -- The log of connections --------------------------------------------------------------------


def about(daemon: Daemon, client: tuple[str, int]) -> list[str]:
    """What the log says of a client, without the time and the module."""
    peer = f"peer={client[0]}:{client[1]}"
    return [line.partition("] ")[2] for line in daemon.lines if f"{peer} " in f"{line} "]


def reset(client: socket.socket) -> None:
    """Close with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@both
def test_logOfConnections(command: list[str]) -> None:
    """C3: opened, eof, closed, with peer, bytes, seconds and reason."""
    with Daemon("--port=0", "--log-connections", command=command) as daemon:
        listener = rf"raw tcp 127\.0\.0\.1:{daemon.ports['raw']}"
        client = daemon.connect()
        name = client.getsockname()
        # The same in all of its lines.
        (number,) = re.findall(r" id=(\S+)", daemon.waitForLine("opened raw"))
        peer = rf"id={number} peer=127\.0\.0\.1:{name[1]}"
        assert exchange(client, b"hello") == b"hello"
        lines = waitFor(lambda: (found := about(daemon, name))[2:] and found)
        expected = (
            rf"opened {listener} {peer}",
            rf"eof {listener} {peer} in=5",
            rf"closed {listener} {peer} in=5 out=5 seconds=\d+\.\d reason=eof end=fin",
        )
        for line, shape in zip(lines, expected, strict=True):
            assert re.fullmatch(shape, line)
        assert daemon.stop() == 0


def test_secondsOfConnection() -> None:
    """The seconds are those from accepting to the end."""
    arguments = ["--port=0", "--log-connections", "--max-age=1"]
    with Daemon(*arguments, command=MODULE) as daemon, daemon.connect() as client:
        assert receiveAll(client) == b""
        client.close()
        line = daemon.waitForLine("closed raw")
        match = re.search(r"seconds=(\d+\.\d) reason=max_age end=fin$", line)
        assert match is not None
        assert 1.0 <= float(match[1]) <= 2.0 + GRACE


@pytest.mark.parametrize(
    ("end", "reason", "how", "resets"),
    [(socket.socket.close, "eof", "fin", 0), (reset, "reset", "rst", 1)],
    ids=["FIN", "RST"],
)
def test_finAndReset(
    end: Callable[[socket.socket], None], reason: str, how: str, resets: int
) -> None:
    """C3: a FIN is told from a RST, in the log and in the counters."""
    with Daemon("--port=0", "--log-connections", command=MODULE) as daemon:
        client = daemon.connect()
        name = client.getsockname()
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        end(client)
        line = daemon.waitForLine("closed ")
        assert line.endswith(f" reason={reason} end={how}")
        counters = daemon.counters()["raw"]
        assert (counters["closed"], counters["resets"]) == ({reason: 1}, resets)
        assert [line.split()[0] for line in about(daemon, name)] == (
            ["opened", "closed"] if resets else ["opened", "eof", "closed"]
        )


def test_logOfDrain(data: bytes) -> None:
    """O1, C3: who was drained and who was cut is told apart."""
    with (
        Daemon("--port=0", "--log-connections", "--drain-timeout=0.5", command=MODULE) as daemon,
        daemon.connect() as idle,
        daemon.connect() as dead,
    ):
        stuff(daemon, dead, data)
        daemon.signal()
        assert idle.recv(10) == b""
        name = idle.getsockname()
        idle.close()
        assert daemon.wait() == 3
        opened, ended, *_, closed = about(daemon, name)
        assert opened.startswith("opened raw tcp ")
        assert ended.startswith("ended raw tcp ")
        assert ended.endswith(" reason=drain owed=0")
        assert closed.endswith(" reason=drain end=fin")
        _, ended, closed = about(daemon, dead.getsockname())
        assert re.search(r"^ended raw tcp .* reason=drain owed=[1-9]\d*$", ended)
        assert closed.endswith(" reason=drain end=abort")


def test_logWithoutConnections() -> None:
    """O5: unless asked, nothing is logged for a connection, however it ends."""
    with Daemon("--port=0", command=MODULE) as daemon:
        start = len(daemon.lines)
        assert exchange(daemon.connect(), b"hello") == b"hello"
        client = daemon.connect()
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        reset(client)
        daemon.connect().close()
        waitFor(lambda: sum(daemon.counters()["raw"]["closed"].values()) == 3)
        assert [line for line in daemon.lines[start:] if "counters {" not in line] == []


@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("queued", [False, True], ids=["accepted", "queued"])
def test_healthCheck(end: Callable[[socket.socket], None], queued: bool) -> None:
    """C6: connect-and-close, at once or while queued, is no error and leaves nothing open."""
    with Daemon("--port=0", "--line-port=0", "--dns-port=0", command=MODULE) as daemon:
        descriptors = daemon.descriptors()
        start = len(daemon.lines)
        if queued:
            daemon.signal(signal.SIGSTOP)
        for protocol in ("raw", "line", "dns"):
            for _ in range(10):
                end(daemon.connect(protocol))
        if queued:
            daemon.signal(signal.SIGCONT)

        def gone() -> bool:
            counters: dict[str, Any] = daemon.counters()
            return all(sum(one["closed"].values()) == 10 for one in counters.values())

        waitFor(gone, "the end of them all")
        assert [line for line in daemon.lines[start:] if "counters {" not in line] == []
        assert daemon.descriptors() == descriptors
        for counters in daemon.counters().values():
            assert (counters["open"], counters["refused"], counters["cut"]) == (0, {}, 0)
            if end is not reset:
                assert counters["closed"] == {"eof": 10}
        assert daemon.stop() == 0
