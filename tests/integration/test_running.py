"""`echod.testing.running` and `echod.client`: what other projects import."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_twisted
from echod_rot13 import rot13
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from echod.client import connect
from echod.errors import ConfigurationError, ConnectFailed, EchodError, StreamLost
from echod.kit.makers import StreamMaker
from echod.kit.stream import Stream
from echod.testing import Running, running
from echod.testing.running import PATIENCE, Process
from tests.integration.daemon import MODULE, exchange

pytest_plugins = ["echod.testing.pytest_plugin"]

CLIENT = Path(__file__).parents[2] / "examples" / "client.py"
Test = TypeVar("Test", bound=Callable[..., Any])


def inReactor(test: Test) -> Test:
    """Run an asynchronous test in pytest-twisted's reactor."""
    return pytest_twisted.ensureDeferred(test)  # type: ignore[no-any-return]  # it has no types


def test_inAProcess() -> None:
    """One line for a blocking test: a real listener, its port and its counters."""
    with running("line", prefix="Echo: ") as echo:
        client = socket.create_connection((echo.host, echo.port))
        assert exchange(client, b"hello\n") == b"Echo: hello\n"
        counters = echo.counters()
        assert counters["closed"] == {"eof": 1}
        assert counters["messages"] == 1


def test_limitsAndOptions() -> None:
    """Limits by their keys, options of every type."""
    limits = {"idle_timeout": 0.3, "max_connections": 5}
    with (
        running("dns", limits=limits, strict=True, max_length=9) as echo,
        socket.create_connection((echo.host, echo.port)) as client,
    ):
        client.settimeout(20)
        assert client.recv(10) == b""
        client.close()
        assert echo.counters()["closed"] == {"idle": 1} or echo.counters()["open"] == 1


def test_stopsWithAClientConnected() -> None:
    """The block's end waits for nobody for long."""
    with running("raw") as echo:
        client = socket.create_connection((echo.host, echo.port))
    with client:
        assert client.recv(10) == b""


def test_outerManager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service manager of the test's own hears nothing of it, and the environment stays."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        told = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "1000000",
            "LISTEN_FDS": "1",
            "LISTEN_PID": str(os.getpid()),
        }
        for key, value in told.items():
            monkeypatch.setenv(key, value)
        with running("raw"):
            pass
        with pytest.raises(BlockingIOError):
            manager.recv(1000)
        assert {key: os.environ.get(key) for key in told} == told


def test_processTakesItsFilesWithIt(tmp_path: Path) -> None:
    """The block's end is SIGTERM, which a daemon answers: the socket's file goes."""
    path = tmp_path / "echod.sock"
    with Process([*MODULE, "--listen", f"raw=unix:{path}"]) as process:
        assert path.exists()
    assert process.process.returncode != -signal.SIGKILL
    assert any("SIGTERM: draining" in line for line in process.lines)
    assert not path.exists()


def test_processThatDrains() -> None:
    """A client that stays is not waited for: the second SIGTERM ends the drain."""
    limits = ["--drain-timeout=60", "--linger-timeout=60"]
    with Process([*MODULE, "--port=0", *limits]) as process:
        client = socket.create_connection(("127.0.0.1", process.ports["raw"]))
        began = time.monotonic()
    with client:
        assert time.monotonic() - began < PATIENCE
        assert process.process.returncode == 3
        assert any("SIGTERM again: ending at once" in line for line in process.lines)


def test_processThatCannotAnswer() -> None:
    """One that is stopped is killed; nothing waits for ever."""
    with Process([*MODULE, "--port=0"]) as process:
        process.signal(signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < PATIENCE
    assert process.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_processThatHasEnded(number: signal.Signals) -> None:
    """What a test has ended itself keeps its status."""
    with Process([*MODULE, "--port=0"]) as process:
        process.signal(number)
        status = process.wait()
    assert process.process.returncode == status == (0 if number == signal.SIGTERM else -number)


def test_cannotStart() -> None:
    """Why, in the words of echod."""
    with (
        pytest.raises(EchodError, match=r"echod ended: echod: --listen nope=.*no protocol 'nope'"),
        running("nope"),
    ):
        pass
    with (
        pytest.raises(TypeError, match="is not installed; use its name, or `async with`"),
        running(rot13),
    ):
        pass


def test_fixture(echod: Callable[..., Running]) -> None:
    """The same as a fixture; several at a time."""
    one, other = echod("raw"), echod("upper")
    for echo, answer in ((one, b"x\n"), (other, b"X\n")):
        assert exchange(socket.create_connection((echo.host, echo.port)), b"x\n") == answer
    assert one.port != other.port


@inReactor
async def test_inTheReactor() -> None:
    """For a test with Twisted: in the reactor that runs; a maker need not be installed."""
    async with running(rot13) as echo, await connect(echo.host, echo.port) as stream:
        await stream.write(b"uryyb")
        await stream.writeEOF()
        assert await stream.readExactly(5) == b"hello"
        assert await stream.read() == b""
        assert echo.counters()["bytes_out"] == 5
    with pytest.raises(ConfigurationError, match="no protocol 'nope'"):
        async with running("nope"):
            pass


@inReactor
async def test_clientBothWaysAtOnce() -> None:
    """E1: with our own client, 20 MB there and back, by one reader and one writer."""
    data = random.Random(5).randbytes(5_000_000)
    got = bytearray()

    async def readAll(stream: Stream) -> None:
        async for piece in stream:
            got.extend(piece)

    async with running("raw") as echo:
        async with await connect(echo.host, echo.port) as stream:
            reading = Deferred.fromCoroutine(readAll(stream))
            for at in range(0, len(data), 100_000):
                await stream.write(data[at : at + 100_000])
            await stream.writeEOF()
            await reading
        assert bytes(got) == data
        await deferLater(reactor, 0.2)
        assert echo.counters()["closed"] == {"eof": 1}


@inReactor
async def test_clientIsCancelled() -> None:
    """Cancelling the coroutine's Deferred ends it at once, its ``finally`` run, with RST."""
    seen = []

    async def talk(echo: Running) -> None:
        async with await connect(echo.host, echo.port) as stream:
            try:
                await stream.read()
            finally:
                seen.append("finally")

    async with running("raw") as echo:
        talking = Deferred.fromCoroutine(talk(echo))
        while not echo.counters()["open"]:
            await deferLater(reactor, 0.01)
        talking.cancel()
        assert seen == ["finally"]
        with pytest.raises(CancelledError):
            await talking
        while echo.counters()["open"]:
            await deferLater(reactor, 0.01)
        assert echo.counters()["resets"] == 1


@inReactor
async def test_clientsTogether() -> None:
    """Several connections of one reactor have one clock, until the last of them has gone."""
    timers: Any = reactor
    async with running("raw") as echo:
        alone = len(timers.getDelayedCalls())
        first, second = [await connect(echo.host, echo.port, reactor=reactor) for _ in range(2)]
        assert len(timers.getDelayedCalls()) == alone + 1
        first.abort()
        await first.waitClosed()
        assert len(timers.getDelayedCalls()) == alone + 1
        await second.write(b"still here")
        assert await second.readExactly(10) == b"still here"
        second.abort()
        await second.waitClosed()
        assert len(timers.getDelayedCalls()) == alone


@inReactor
async def test_serverGoes() -> None:
    """Errors reject, they do not hang."""

    async def leave(stream: Stream) -> None:
        await stream.read()
        stream.abort()

    async with running(StreamMaker("leave", "leaves", leave)) as echo:
        stream = await connect("localhost", echo.port)
        await stream.write(b"x")
        with pytest.raises(StreamLost):
            await stream.readExactly(1)
        await stream.waitClosed()
        with pytest.raises(StreamLost):
            await stream.write(b"x")


@inReactor
async def test_nobodyListens() -> None:
    """Who cannot connect is told why, and where."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        where = rf"^cannot connect to 127\.0\.0\.1:{port}: .*refused"
        with pytest.raises(ConnectFailed, match=where):
            await connect("127.0.0.1", port)
    with pytest.raises(ConnectFailed, match=r"^cannot connect to no-such-host\.invalid:7: "):
        await connect("no-such-host.invalid", 7)


def test_exampleClient() -> None:
    """The notes' client: connect, write, print, end."""
    with running("line", prefix="Echo: ") as echo:
        done = subprocess.run(
            [sys.executable, CLIENT, str(echo.port)], capture_output=True, timeout=20, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"Echo: hello\n", b"")
        assert echo.counters()["accepted"] == 1
    lines = [line for line in CLIENT.read_text().splitlines() if line.startswith("    ")]
    assert len(lines) <= 10
