"""Bulk on a real daemon: echoed in place, and nothing of it held."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator

from tests.integration.daemon import receiveAll
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.peers import (
    Sender,
    assertUnharmed,
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


def test_stalledBulk() -> None:
    """C5: who sends bulk and does not read is held nothing of; when it reads, all comes back."""
    with Daemon("--port", "0") as daemon:
        baseline = daemon.descriptors()
        with connect(daemon) as client:
            ping(client, BULK)
            with stalledClients(daemon, 2) as senders:
                ping(client)
                before = daemon.memory()
                with stalledClients(daemon, 20) as more:
                    assert daemon.memory() - before < 20 * 32 * 1024
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
        assert counters["closed"] == {"eof": 23}
        assertUnharmed(daemon)


def test_resetOfStalledBulk() -> None:
    """C3: RST while nothing more can be sent ends it, and is counted."""
    with Daemon("--port", "0") as daemon:
        with stalledClients(daemon, 3) as senders:
            for sender in senders:
                reset(sender.client)
        counters = waitForCounters(daemon, open=0, resets=3)
        assert counters["closed"] == {"reset": 3}
        assertUnharmed(daemon)


def test_stallOfBulk() -> None:
    """C5: bulk that nobody reads is cut at the stall deadline, and told so."""
    with (
        Daemon("--port", "0", "--stall-timeout", "1.5") as daemon,
        stalledClients(daemon, 1) as senders,
    ):
        counters = waitForCounters(daemon, open=0, stalls=1)
        assert counters["cut"] > 0
        assert counters["bytes_in"] <= senders[0].sent
        assertUnharmed(daemon)


def test_drainOfStalledBulk() -> None:
    """O1: all that the kernel had taken before SIGTERM still arrives, then FIN; exit 0."""
    with Daemon("--port", "0") as daemon, stalledClients(daemon, 2) as senders:
        daemon.signal(signal.SIGTERM)
        answers = [receiveAll(sender.client) for sender in senders]
        for sender, answer in zip(senders, answers, strict=True):
            assert answer == MORE_THAN_IS_TAKEN[: len(answer)]
            unread = sender.sent - len(answer)
            assert 0 <= unread < IN_THE_SENDERS_KERNEL
            sender.client.close()
        assert daemon.wait() == 0
