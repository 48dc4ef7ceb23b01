"""Bulk on a real daemon: through pipes or in place, and nothing of it held in user space."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from echod.transports.bulk_echo import LARGEST_ECHO
from echod.transports.pipes import LARGEST_SPLICE, MOST
from tests.integration.daemon import PATIENCE, TWISTD, receiveAll, waitFor
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.namespaces import withoutSplice
from tests.integration.peers import (
    HARM,
    Sender,
    assertUnharmed,
    configured,
    connect,
    noise,
    ping,
    reset,
    stall,
    waitForCounters,
    waitForDescriptors,
)

MORE_THAN_IS_TAKEN = noise(24_000_000)
#: More than a connection holds in both kernels; sent and read at once.
BULK = noise(4_000_000, 1)
#: What had not reached the daemon's kernel when it was told to stop.
IN_THE_SENDERS_KERNEL = 6_000_000


@contextlib.contextmanager
def stalledClients(daemon: Daemon, count: int) -> Iterator[list[Sender]]:
    with contextlib.ExitStack() as stack:
        senders = [
            Sender(stack.enter_context(connect(daemon)), MORE_THAN_IS_TAKEN) for _ in range(count)
        ]
        stall(senders)
        yield senders


def finish(sender: Sender) -> None:
    """FIN, then read: all that was sent comes back."""
    sender.client.shutdown(socket.SHUT_WR)
    assert receiveAll(sender.client) == MORE_THAN_IS_TAKEN[: sender.sent]


def keptPipes(daemon: Daemon, besides: set[str]) -> dict[str, int]:
    """Bytes that wait in the pipes of which the daemon has both ends, by the pipes' names."""
    ends: dict[str, set[str]] = {}
    folder = Path(f"/proc/{daemon.pid}/fd")
    for number in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(folder / number)
            if target.startswith("pipe:") and target not in besides:
                ends.setdefault(target, set()).add(number)
    found = {}
    for name, numbers in ends.items():
        number = min(numbers)
        with contextlib.suppress(FileNotFoundError):
            pipe = os.open(folder / number, os.O_RDONLY | os.O_NONBLOCK)
            try:
                waiting = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
                assert fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) <= 256 * 1024
            finally:
                os.close(pipe)
            assert len(numbers) == 2
            found[name] = int.from_bytes(waiting, sys.byteorder)
    return found


def arrivedBytes(client: socket.socket) -> int:
    """Read what there is before the RST; how much that was."""
    size = 0
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(1 << 16):
            size += len(piece)
    return size


@pytest.fixture(params=[(), ("-o", "raw.in_place=true")], ids=["pipe", "in place"])
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Either way that bulk goes: the daemon's arguments."""
    arguments: tuple[str, ...] = request.param
    return arguments


@pytest.mark.parametrize("count", [20, 40])
def test_stalledBulk(way: tuple[str, ...], count: int) -> None:
    """
    C5: who sends bulk and does not read is held nothing of; when it reads, all comes back.

    The kernel holds at most 256 KiB each in a few pipes, fewer than there are clients.
    """
    with Daemon("--port", "0", *way) as daemon:
        baseline = daemon.descriptors()
        others = set(keptPipes(daemon, set()))
        with connect(daemon) as client:
            ping(client, BULK)
            with stalledClients(daemon, 2) as senders:
                ping(client)
                before = daemon.memory()
                with stalledClients(daemon, count) as more:
                    # Those without a pipe are echoed in place, through one buffer for all.
                    assert daemon.memory() - before < count * 32 * 1024 + LARGEST_ECHO
                    waiting = keptPipes(daemon, others)
                    if way:
                        assert waiting == {}
                    else:
                        assert 0 < len(waiting) <= MOST
                        assert sum(waiting.values()) > 0
                        assert max(waiting.values()) <= LARGEST_SPLICE
                    # Beside those, small ones and bulk are as before.
                    ping(client)
                    ping(client, BULK)
                    for sender in more:
                        finish(sender)
                for sender in senders:
                    finish(sender)
        waitForDescriptors(daemon, baseline)
        counters = waitForCounters(daemon, open=0)
        assert counters["bytes_in"] == counters["bytes_out"]
        assert counters["closed"] == {"eof": count + 3}
        assertUnharmed(daemon)


def test_resetOfStalledBulk(way: tuple[str, ...]) -> None:
    """C3: RST while nothing more can be sent ends it, and is counted; its pipe is closed."""
    with Daemon("--port", "0", *way) as daemon:
        baseline = daemon.descriptors()
        with stalledClients(daemon, 3) as senders:
            for sender in senders:
                reset(sender.client)
        counters = waitForCounters(daemon, open=0, resets=3)
        assert counters["closed"] == {"reset": 3}
        waitForDescriptors(daemon, baseline)
        assertUnharmed(daemon)


def test_stallOfBulk(way: tuple[str, ...]) -> None:
    """C5: bulk that nobody reads is cut at the stall deadline, and told so; its pipe is closed."""
    with Daemon("--port", "0", "--stall-timeout", "1.5", *way) as daemon:
        baseline = daemon.descriptors()
        with stalledClients(daemon, 1) as senders:
            counters = waitForCounters(daemon, open=0, stalls=1)
            assert counters["cut"] == 1
            assert counters["bytes_in"] <= senders[0].sent
            assert arrivedBytes(senders[0].client) < counters["bytes_out"]
        waitForDescriptors(daemon, baseline)
        assertUnharmed(daemon)


@pytest.mark.parametrize("count", [2, 40])
def test_drainOfStalledBulk(way: tuple[str, ...], count: int) -> None:
    """O1: all that the kernel had taken before SIGTERM still arrives, then FIN; exit 0."""
    with Daemon("--port", "0", *way) as daemon, stalledClients(daemon, count) as senders:
        daemon.signal(signal.SIGTERM)
        answers = [receiveAll(sender.client) for sender in senders]
        for sender, answer in zip(senders, answers, strict=True):
            assert answer == MORE_THAN_IS_TAKEN[: len(answer)]
            unread = sender.sent - len(answer)
            assert 0 <= unread < IN_THE_SENDERS_KERNEL
            sender.client.close()
        assert daemon.wait() == 0


def test_drainOfStalledBulkOverUNIX(way: tuple[str, ...], tmp_path: Path) -> None:
    """O1: the same over a UNIX socket, where the daemon's kernel has every byte that was sent."""
    path = tmp_path / "echod.sock"
    with (
        Daemon("--listen", f"raw=unix:{path}", *way) as daemon,
        contextlib.ExitStack() as stack,
    ):
        others = set(keptPipes(daemon, set()))
        senders = []
        for _ in range(20):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(PATIENCE)
            client.connect(str(path))
            # Pieces of bulk: a sender's buffer is what a UNIX socket may hold.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
            senders.append(Sender(client, MORE_THAN_IS_TAKEN))
        stall(senders)
        waiting = keptPipes(daemon, others)
        assert (sum(waiting.values()) > 0) is not bool(way)
        assert len(waiting) <= MOST
        daemon.signal(signal.SIGTERM)
        for sender in senders:
            assert receiveAll(sender.client) == MORE_THAN_IS_TAKEN[: sender.sent]
            sender.client.close()
        assert daemon.wait() == 0


def test_drainOfStalledBulkCutShort(way: tuple[str, ...]) -> None:
    """A second signal ends it at once, whatever waits in pipes: status 3, and RST to those."""
    with Daemon("--port", "0", *way) as daemon, stalledClients(daemon, 3) as senders:
        assert daemon.hurry() == 3
        for sender in senders:
            assert 0 < arrivedBytes(sender.client) < sender.sent


@pytest.mark.parametrize("stays", [True, False])
def test_reloadBesideStalledBulk(way: tuple[str, ...], tmp_path: Path, stays: bool) -> None:
    """What waits in pipes arrives when the configuration is read again, gone listener or not."""
    here, there = (f"tcp:0:interface=127.0.0.{number}" for number in (1, 2))
    words = configured(tmp_path, {"protocol": "raw", "endpoint": here})
    with Daemon(words, *way) as daemon, stalledClients(daemon, 3) as senders:
        configured(tmp_path, {"protocol": "raw", "endpoint": here if stays else there})
        daemon.signal(signal.SIGHUP)
        daemon.waitForLine("reloaded: ")
        for sender in senders:
            finish(sender)
        assertUnharmed(daemon)


def test_roomBesideStalledBulk(way: tuple[str, ...]) -> None:
    """F11: a newcomer gets the place of who is idle, not of whose bulk is under way."""
    with (
        Daemon("--port", "0", "--max-connections", "2", *way) as daemon,
        stalledClients(daemon, 1) as senders,
        connect(daemon) as idle,
    ):
        ping(idle)

        def newcomerIsServed() -> bool:
            with connect(daemon) as newcomer:
                newcomer.sendall(b"?")
                with contextlib.suppress(ConnectionResetError):
                    return newcomer.recv(1) == b"?"
                return False

        # It is, once the other has been idle for a second.
        waitFor(newcomerIsServed, "a place")
        assert idle.recv(1) == b""
        # The newcomer has gone, and nobody is left who is idle.
        finish(senders[0])
        waitForCounters(daemon, open=1)
        # That newcomers were refused is said.
        assertUnharmed(daemon, HARM)


def test_spliceForbidden() -> None:
    """Where a filter of system calls forbids splice(2), bulk is echoed in place."""
    with Daemon("--port", "0", command=[*withoutSplice(), *TWISTD]) as daemon:
        others = set(keptPipes(daemon, set()))
        with connect(daemon) as client:
            ping(client, BULK)
            with stalledClients(daemon, 2) as senders:
                assert keptPipes(daemon, others) == {}
                for sender in senders:
                    finish(sender)
        assertUnharmed(daemon)
