r"""
A real listener for somebody else's tests: `running`.

Whoever tests a client needs something to talk to, on a free port, that echoes every byte whatever
the client does, and can say afterwards what it saw::

    def test_myClient():                                # blocking: echod in a process of its own
        with running("line", prefix="Echo: ") as echo:
            assert myClient(echo.host, echo.port).ask(b"hello\n") == b"Echo: hello\n"
            assert echo.counters()["closed"] == {"eof": 1}
            assert [client["ended_by"] for client in echo.closed()] == ["peer"]

    async def test_myProtocol():                        # with Twisted: in the test's own reactor
        async with running(rot13) as echo:
            ...

`Process` is what the first is made of: a whole daemon, with its lines, signals and exit status.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from echod.config.settings import Configuration
from echod.errors import EchodError
from echod.interfaces import IStreamProtocolMaker
from echod.server.plan import ListenerRequest, plan
from echod.server.registry import Registry, discover
from echod.server.service import EchodService
from echod.testing.admin_client import SOCKET, AdminClient, listenersOf, socketFolder

__all__ = ["PATIENCE", "Process", "Running", "running", "waitFor"]

_Result = TypeVar("_Result")

#: Seconds after which something that must happen has not happened.
PATIENCE = 20.0
#: Lines of a daemon's that are shown when a ``with`` block fails.
TOLD = 200
#: Seconds that a drain may take when a ``with`` block ends.
DRAIN = 1.0
#: Seconds after SIGTERM, and after the second, until the end is forced: a drain is cut short, and
#: who cannot answer (it hangs, it is stopped) is killed.  What comes within a second of the first
#: is the same request.
LEAVE = (1.2, 1.0)
#: Seconds that counters may go on to change until they are taken as they are.
UNSETTLED = 1.0


def waitFor(condition: Callable[[], _Result | None], what: str = "the condition") -> _Result:
    """
    Poll until ``condition`` is true; returns its value.

    :raises AssertionError: it did not come about within `PATIENCE`.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come about in {PATIENCE} s"
        time.sleep(0.005)


class Process:
    """
    A daemon in a process of its own until the ``with`` block ends.

    It is ended as an operator would end it, in a hurry: SIGTERM, then a second one, so that it
    takes its files with it.  SIGKILL comes last.  A service manager of ours hears nothing of it.

    :param command: what starts it in the foreground, as a list.
    :param descriptors: of ours, which it gets too, by the same numbers.
    :ivar lines: what it has printed so far.
    :ivar ports: the ports it listens on, by protocol: the first of each; of datagrams as
        ``udp/udp``; with what is particular also as ``raw (tls, proxy)``.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: str | os.PathLike[str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self._command = list(command)
        self._cwd = cwd
        self._descriptors = descriptors
        self.lines: list[str] = []
        self.ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.process = self._launch()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            # The signal handlers are in place once the reactor runs; a counter line proves it.
            self.waitForLine("listening ")
            self.counters()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        for line in self.lines:
            match = re.search(r"listening (\S+) (tcp|udp) \S+:(\d+)( \(.*)?$", line)
            if match:
                name = match[1] if match[2] == "tcp" else f"{match[1]}/{match[2]}"
                self.ports.setdefault(name, int(match[3]))
                self.ports.setdefault(name + (match[4] or ""), int(match[3]))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if error is not None:
            sys.stderr.write("".join(f"daemon: {line}\n" for line in self.lines[-TOLD:]))

    def _launch(self) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603  # the caller's own command
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._cwd,
            pass_fds=self._descriptors,
            env=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        """Ours, without what a service manager has told us: it is not to hear of somebody else."""
        managers = ("NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")
        ours = {key: value for key, value in os.environ.items() if not key.startswith(managers)}
        return {**ours, "PYTHONUNBUFFERED": "1"}

    def _end(self) -> None:
        for seconds in LEAVE:
            # Nothing is sent to one that has ended.
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
                return
        self.process.kill()
        self.process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end; returns the exit status."""
        status = self.process.wait(timeout)
        self._reader.join()
        return status

    def stop(self) -> int:
        """SIGTERM, and wait."""
        self.signal()
        return self.wait()

    def waitForLine(self, text: str, start: int = 0) -> str:
        """
        The first line from number ``start`` on with ``text`` in it.

        :raises EchodError: it ended instead; the message has what it said.
        """

        def found() -> str | None:
            for line in self.lines[start:]:
                if text in line:
                    return line
            if self.process.poll() is not None:
                self._reader.join()
                raise EchodError(f"echod ended: {' / '.join(self.lines) or 'it said nothing'}")
            return None

        return str(waitFor(found, f"a line with {text!r}"))

    def counters(self) -> dict[str, Any]:
        """SIGUSR1's counters: the first listener of each protocol, by protocol, as `ports` is."""
        listeners: dict[str, Any] = {}
        for listener in self.allCounters()["listeners"]:
            name, _, rest = listener["listener"].partition(" ")
            _, parenthesis, traits = rest.partition(" (")
            listeners.setdefault(name, listener)
            listeners.setdefault(f"{name}{parenthesis}{traits}", listener)
        return listeners

    def allCounters(self) -> dict[str, Any]:
        """SIGUSR1's counters, as they are."""
        start = len(self.lines)
        if not self.ports:
            # Before the reactor runs the signal would kill it.
            self._waitUntilHandled()
        self.signal(signal.SIGUSR1)
        line = self.waitForLine("counters {", start)
        found: dict[str, Any] = msgspec.json.decode(line.partition("counters ")[2])
        return found

    def _waitUntilHandled(self) -> None:
        bit = 1 << (signal.SIGUSR1 - 1)

        def handled() -> bool:
            status = Path(f"/proc/{self.pid}/status").read_text()
            match = re.search(r"SigCgt:\s+([0-9a-f]+)", status)
            return match is not None and bool(int(match[1], 16) & bit)

        waitFor(handled, "a handler for SIGUSR1")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))


class Running:
    """
    A listener that runs.

    :ivar host: the address to connect to.
    :ivar port: the port.
    :ivar counters: returns what the listener has counted so far: a dict as of SIGUSR1.  In a
        process of its own the daemon is asked until nothing changes any more, for a second at
        most.  So what clients have sent, and that they have closed, is counted, as far as no limit
        holds it back.  That takes some milliseconds.  In the test's own reactor the answer is what
        is counted at this moment: what comes later needs turns of the reactor.
    :ivar closed: returns the connections that have ended, as far as the shelf keeps them
        (docs/insight.md), the newest first, as rows of ``/closed``: ``reason``, ``end``,
        ``ended_by``, ``owed``, ``timeline`` and so on.  Those of one tick, 0.1 s, are in any order.
        It waits as ``counters`` does.
    """

    # Any: values as JSON has them.
    def __init__(
        self,
        host: str,
        port: int,
        counters: Callable[[], dict[str, Any]],
        closed: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self.host = host
        self.port = port
        self.counters = counters
        self.closed = closed


class running:  # noqa: N801  # it reads as a function
    """
    Start a listener on a free port of 127.0.0.1, and end it with the block.

    ``with`` starts a process; ``async with`` uses the reactor that runs.

    :param protocol: its name; or, with ``async with``, a maker that is not installed.
    :param limits: keys of ``[defaults]``, as in ``{"idle_timeout": 0.5}``.
    :param options: the protocol's own.
    :raises EchodError: it cannot be started; why.
    """

    def __init__(
        self,
        protocol: str | IStreamProtocolMaker = "raw",
        *,
        limits: Mapping[str, Any] | None = None,
        # Any: the protocol's own.
        **options: Any,
    ) -> None:
        self._protocol = protocol
        self._limits = {"max_connections": 100, **(limits or {})}
        self._options = options
        self._stack = ExitStack()
        self._service: EchodService | None = None

    def __enter__(self) -> Running:
        name = self._protocol
        if not isinstance(name, str):
            raise TypeError(f"{name!r} is not installed; use its name, or `async with`")
        with ExitStack() as stack:
            folder = stack.enter_context(socketFolder())
            file, path = Path(folder, "echod.toml"), str(Path(folder, SOCKET))
            file.write_text(listenersOf(name, path))
            command = [sys.executable, "-m", "echod", f"--config={file}"]
            command += [f"--drain-timeout={DRAIN}"]
            command += [f"--{key.replace('_', '-')}={text}" for key, text in self._limits.items()]
            for key, value in self._options.items():
                text = str(value).lower() if isinstance(value, bool) else str(value)
                command += ["--option", f"{name}.{key}={text}"]
            process = stack.enter_context(Process(command))
            stack.callback(process.stop)
            self._stack = stack.pop_all()
        admin = AdminClient(path, PATIENCE, UNSETTLED)

        def closed() -> list[dict[str, Any]]:
            listener = admin.settled(0)["listener"]
            return _of(listener, admin.ask("/closed?limit=10000")["connections"])

        return Running("127.0.0.1", process.ports[name], lambda: admin.settled(0), closed)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    async def __aenter__(self) -> Running:
        from twisted.internet import reactor

        maker = self._protocol
        known = discover() if isinstance(maker, str) else Registry([maker])
        request = ListenerRequest(
            place="running",
            protocol=maker if isinstance(maker, str) else maker.name,
            endpoint="tcp:0:interface=127.0.0.1",
            options=self._options,
            limits=self._limits,
        )
        configuration = Configuration(drainTimeout=DRAIN)
        # So few connections fit any limit of descriptors.
        planned = plan(configuration, [request], known, 1 << 16)
        service = EchodService(msgspec.structs.replace(planned, insight=True), reactor)
        service.privilegedStartService()
        service.startService()
        self._service = service
        (listener,) = service.listeners
        address = listener.getHost()

        def closed() -> list[dict[str, Any]]:
            return _of(listener.describe(), service.insight.closed())

        return Running(address.host, address.port, listener.counters, closed)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._service is not None
        await self._service.stopService()


def _of(listener: str, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of one listener."""
    return [row for row in rows if row["listener"] == listener]
