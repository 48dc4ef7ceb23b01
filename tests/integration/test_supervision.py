"""READY, STATUS, WATCHDOG, RELOADING and STOPPING of a real daemon, without a systemd."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.daemon import MODULE, TWISTD, Daemon, exchange, receiveAll, waitFor
from tests.integration.loaded import LoadedDaemon

#: Seconds more than it should be, on a machine that is busy.
GRACE = 4.0


class Manager:
    """A service manager's end: what it is told, as it comes."""

    def __init__(self, skt: socket.socket) -> None:
        self._socket = skt
        self.messages: list[str] = []

    def collect(self, seconds: float = 0.0) -> list[str]:
        """Read what has come, and what comes within ``seconds``; returns all so far."""
        until = time.monotonic() + seconds
        while True:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            try:
                self.messages.append(self._socket.recv(4096).decode())
            except TimeoutError:
                return self.messages

    def waitFor(self, text: str) -> None:
        """Read until a message has ``text`` in it."""
        waitFor(lambda: any(text in one for one in self.collect()), text)

    def words(self) -> list[str]:
        """The messages' first words, without STATUS and repetitions."""
        found = [one.partition("=")[0] for one in self.messages]
        kept = [word for word in found if word != "STATUS"]
        return [word for at, word in enumerate(kept) if at == 0 or kept[at - 1] != word]


@contextmanager
def supervised(
    folder: Path,
    *arguments: str,
    watchdog: float | None = None,
    command: list[str] | None = None,
    kind: type[Daemon] = LoadedDaemon,
) -> Iterator[tuple[Daemon, Manager]]:
    path = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as skt:
        skt.bind(str(path))
        variables = {"NOTIFY_SOCKET": str(path)}
        if watchdog is not None:
            variables["WATCHDOG_USEC"] = str(round(watchdog * 1e6))
        words = ["env", *(f"{key}={value}" for key, value in variables.items())]
        with kind(*arguments, command=[*words, *(command or MODULE)]) as daemon:
            yield daemon, Manager(skt)


@pytest.mark.parametrize("command", [MODULE, TWISTD], ids=["module", "twistd"])
def test_life(tmp_path: Path, command: list[str]) -> None:
    """The order; READY when it listens; more time for a drain, a second at a time."""
    with supervised(tmp_path, "--port", "0", command=command, kind=Daemon) as (daemon, manager):
        manager.waitFor("READY=1")
        held = daemon.connect()
        held.sendall(b"x")
        assert held.recv(1) == b"x"
        daemon.signal(signal.SIGHUP)
        manager.waitFor("RELOADING=1\nMONOTONIC_USEC=")
        waitFor(lambda: manager.collect().count("READY=1") == 2)
        held.sendall(b"more")
        # It has not ended, and our FIN has not come: it lingers.
        daemon.signal(signal.SIGTERM)
        waitFor(
            lambda: (
                manager.collect()
                or sum(one.startswith("EXTEND_TIMEOUT_USEC=") for one in manager.messages) >= 3
            )
        )
        assert receiveAll(held) == b"more"
        held.close()
        assert daemon.wait() == 0
        manager.collect(0.1)
        assert manager.words() == [
            *("READY", "RELOADING", "READY", "STOPPING"),
            "EXTEND_TIMEOUT_USEC",
        ]
        assert "STATUS=serving: 0 connections at 1 listeners" in manager.messages
        assert "STATUS=draining: 1 connections at 1 listeners" in manager.messages


def test_notReadyWithoutListeners(tmp_path: Path) -> None:
    """O3: who cannot bind is never ready."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = tmp_path / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as skt:
            skt.bind(str(path))
            port = taken.getsockname()[1]
            environment = {**os.environ, "NOTIFY_SOCKET": str(path)}
            status = os.spawnvpe(os.P_WAIT, MODULE[0], [*MODULE, "--port", str(port)], environment)
            assert status == 1
            skt.setblocking(False)
            with pytest.raises(BlockingIOError):
                skt.recv(4096)


def test_watchdog(tmp_path: Path) -> None:
    """Twice in each interval, while all is well."""
    with supervised(tmp_path, "--port", "0", watchdog=0.4) as (_, manager):
        manager.waitFor("READY=1")
        manager.collect(2.0)
        assert 7 <= manager.messages.count("WATCHDOG=1") <= 12


def test_statusCounts(tmp_path: Path) -> None:
    """How many there are is told within a second or so, also of those who do nothing."""

    def told(count: int, since: float) -> float:
        manager.messages.clear()
        manager.waitFor(f"STATUS=serving: {count} connections at 1 listeners")
        return time.monotonic() - since

    with supervised(tmp_path, "--port", "0") as (daemon, manager):
        manager.waitFor("STATUS=serving: 0 connections at 1 listeners")
        # Nobody is there: it sleeps.
        manager.collect(2.5)
        began = time.monotonic()
        with daemon.connect():
            assert told(1, began) < 1 + GRACE
            # One that was there, and does nothing.
            manager.collect(1.5)
            began = time.monotonic()
            with daemon.connect(), daemon.connect():
                assert told(3, began) < 1 + GRACE
            began = time.monotonic()
            assert told(1, began) < 1 + GRACE
        began = time.monotonic()
        assert told(0, began) < 1 + GRACE
        assert daemon.stop() == 0


def test_statusOfAFailedReload(tmp_path: Path) -> None:
    """The status line has why the last reload failed, until one succeeds."""
    file = tmp_path / "echod.toml"
    good = '[[listener]]\nprotocol = "raw"\nendpoint = "tcp:0"\n'
    file.write_text(good)
    with supervised(tmp_path, "--config", str(file)) as (daemon, manager):
        manager.waitFor("READY=1")
        file.write_text("nonsense = 1\n")
        daemon.signal(signal.SIGHUP)
        manager.waitFor(f"listeners; the last reload failed: {file}: ")
        file.write_text(good)
        manager.messages.clear()
        daemon.signal(signal.SIGHUP)
        manager.waitFor("STATUS=serving: 0 connections at 1 listeners")
        assert "failed" not in manager.messages[-1]
        assert daemon.stop() == 0


def test_watchdogThatIsNone(tmp_path: Path) -> None:
    """A nonsensical interval is no end: it serves, and says that there is no watchdog."""
    with supervised(tmp_path, "--port", "0", watchdog=0.0) as (daemon, manager):
        manager.waitFor("READY=1")
        assert exchange(daemon.connect(), b"well") == b"well"
        assert [line for line in daemon.lines if "WATCHDOG_USEC is '0'" in line]
        assert daemon.stop() == 0
        assert "WATCHDOG=1" not in manager.collect(0.1)


def test_watchdogThatIsTooShort(tmp_path: Path) -> None:
    """A microsecond: it tells as often as is reasonable, and does its work."""
    with supervised(tmp_path, "--port", "0", watchdog=1e-6) as (daemon, manager):
        for _ in range(3):
            assert exchange(daemon.connect(), b"well") == b"well"
        manager.waitFor("WATCHDOG=1")
        told = len(manager.collect())
        manager.collect(1.0)
        assert len(manager.messages) - told <= 110
        assert daemon.stop() == 0


PLUGIN = """
import time
from echod.kit.makers import StreamMaker


async def _block(stream):
    await stream.read()
    time.sleep(1.5)


blocking = StreamMaker("blocking", "holds the reactor", _block)
"""


def test_blockedReactor(tmp_path: Path) -> None:
    """A protocol that holds the reactor keeps the watchdog silent as long."""
    package = tmp_path / "blocking-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: blocking\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[echod.protocols]\nblocking = blocks:blocking\n")
    (tmp_path / "blocks.py").write_text(PLUGIN)
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    command = ["env", f"PYTHONPATH={path}", *MODULE]
    with supervised(tmp_path, "--listen", "blocking=tcp:0", watchdog=0.4, command=command) as (
        daemon,
        manager,
    ):
        manager.waitFor("WATCHDOG=1")
        with daemon.connect("blocking") as client:
            client.sendall(b"x")
            daemon.waitForLine("slow blocking")
            manager.collect()
        manager.messages.clear()
        manager.waitFor("WATCHDOG=1")
        assert re.search(r"milliseconds=1[4-9]\d\d", "\n".join(daemon.lines))


def deafening(file: Path) -> list[str]:
    """The command of a daemon whose pollers are told of nothing any more once there is a file."""
    code = (
        "import os, select, time\n"
        "from twisted.internet import reactor\n"
        "real = select.epoll\n"
        "class Deaf:\n"
        "    def __init__(self, *a): self._real = real(*a)\n"
        "    def __getattr__(self, name): return getattr(self._real, name)\n"
        "    def poll(self, *a):\n"
        f"        if not os.path.exists({str(file)!r}): return self._real.poll(*a)\n"
        "        time.sleep(0.005)\n"
        "        return []\n"
        "select.epoll = Deaf\n"
        "from echod.__main__ import main\n"
        "main()\n"
    )
    return [MODULE[0], "-c", code]


def test_deafPoller(tmp_path: Path) -> None:
    """After faults of epoll_ctl timers go on, clients are not served: no ping, and a reason."""
    command = deafening(tmp_path / "deaf")
    with supervised(tmp_path, "--port", "0", watchdog=0.4, command=command) as (daemon, manager):
        manager.waitFor("WATCHDOG=1")
        (tmp_path / "deaf").touch()
        daemon.waitForLine("not well: no descriptor is served")
        manager.collect()
        manager.messages.clear()
        manager.collect(1.0)
        assert "WATCHDOG=1" not in manager.messages
        with daemon.connect():
            daemon.waitForLine("nobody is accepted at raw tcp")


def test_deafBetweenPings(tmp_path: Path) -> None:
    """
    Deaf right after a ping: there is no other one.

    The manager acts WATCHDOG_USEC after the last: it would come so much later.
    """
    command = deafening(tmp_path / "deaf")
    with supervised(tmp_path, "--port", "0", watchdog=2.0, command=command) as (daemon, manager):
        manager.waitFor("WATCHDOG=1")
        manager.messages.clear()
        (tmp_path / "deaf").touch()
        daemon.waitForLine("not well: no descriptor is served")
        manager.collect(1.5)
        assert "WATCHDOG=1" not in manager.messages


def test_health() -> None:
    """One line: ready; draining as long as anybody is served; the listener closes last."""
    with LoadedDaemon("--port", "0", "--listen", "health=tcp:0", "--drain-timeout", "20") as daemon:
        assert exchange(daemon.connect("health"), b"") == b"ready\n"
        assert exchange(daemon.connect("health"), b"anything\n") == b"ready\n"
        held = daemon.connect()
        held.sendall(b"x")
        assert held.recv(1) == b"x"
        daemon.signal(signal.SIGTERM)
        daemon.waitForLine("draining")
        waitFor(lambda: exchange(daemon.connect("health"), b"") == b"draining\n")
        with pytest.raises(ConnectionRefusedError):
            daemon.connect()
        assert receiveAll(held) == b""
        held.close()
        assert daemon.wait() == 0


def test_drainDelay() -> None:
    """O1: not ready first, and for a while nothing else changes; then the drain."""
    arguments = ["--listen", "health=tcp:0", "--drain-delay", "1.5", "--drain-timeout", "20"]
    with LoadedDaemon("--port", "0", *arguments) as daemon:
        held = daemon.connect()
        daemon.signal(signal.SIGTERM)
        begun = time.monotonic()
        waitFor(lambda: exchange(daemon.connect("health"), b"") == b"draining\n")
        assert exchange(daemon.connect(), b"new") == b"new"
        held.sendall(b"old")
        assert held.recv(3) == b"old"
        assert time.monotonic() - begun < 1.5, "the machine is too slow to tell"
        # The drain's FIN; and from then on nobody is accepted.
        assert receiveAll(held) == b""
        assert 1.4 < time.monotonic() - begun < 5
        with pytest.raises(ConnectionRefusedError):
            daemon.connect()
        assert exchange(daemon.connect("health"), b"") == b"draining\n"
        held.close()
        assert daemon.wait() == 0


def test_secondSignalInTheDelay() -> None:
    """O1: it ends at once, with status 3."""
    with LoadedDaemon("--port", "0", "--drain-delay", "300") as daemon, daemon.connect() as held:
        held.sendall(b"x")
        assert held.recv(1) == b"x"
        daemon.signal(signal.SIGTERM)
        daemon.waitForLine("draining")
        assert daemon.hurry() == 3
