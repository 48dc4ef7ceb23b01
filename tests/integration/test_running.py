"""`echod.testing.running` and `echod.client`: what other projects import."""

from __future__ import annotations

import os
import random
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
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
from echod.testing.admin_client import AdminClient
from echod.testing.running import PATIENCE, Process, waitFor
from tests.integration.daemon import MODULE, exchange, receiveAll

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


def talk(echo: Running, size: int) -> None:
    """Send so much, FIN, read to EOF, close."""
    sent = random.Random(size).randbytes(size)
    assert exchange(socket.create_connection((echo.host, echo.port)), sent) == sent


def leave(echo: Running, size: int) -> None:
    """Send so much and close, without a look at what comes back."""
    with socket.create_connection((echo.host, echo.port)) as client:
        client.sendall(bytes(size))


def breakOff(echo: Running, size: int) -> None:
    """Send so much, and end with RST."""
    with socket.create_connection((echo.host, echo.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(bytes(size))


@pytest.mark.parametrize("size", [1, 2_000_000])
@pytest.mark.parametrize("client", [talk, leave, breakOff])
def test_countsWhatCame(client: Callable[[Running, int], None], size: int) -> None:
    """What clients have done is counted, whatever the daemon has yet to do: nobody waits here."""
    with running("raw") as echo:
        for turn in range(1, 31):
            client(echo, size)
            counters = echo.counters()
            assert (counters["accepted"], counters["open"]) == (turn, 0)
            assert sum(counters["closed"].values()) == turn
            if client is talk:
                assert counters["closed"] == {"eof": turn}
                assert counters["bytes_in"] == counters["bytes_out"] == turn * size


def test_manyAtOnce() -> None:
    """Those too that wait to be accepted."""
    with running("raw", limits={"max_connections": 200}) as echo:
        for turn in range(1, 11):
            clients = [socket.create_connection((echo.host, echo.port)) for _ in range(50)]
            for client in clients:
                client.sendall(b"12345")
                client.close()
            counters = echo.counters()
            assert (counters["accepted"], counters["open"]) == (turn * 50, 0)
            assert counters["bytes_in"] == turn * 250


def test_whoDoesNotRead() -> None:
    """One who keeps the daemon waiting is not waited for."""
    with running("raw") as echo, socket.create_connection((echo.host, echo.port)) as client:
        client.setblocking(False)

        def full() -> bool:
            try:
                client.send(bytes(1 << 16))
            except BlockingIOError:
                return bool(echo.counters()["pauses"])
            return False

        waitFor(full, "a pause")
        client.shutdown(socket.SHUT_WR)
        assert echo.counters()["open"] == 1
        assert echo.closed() == []


def readOn(client: socket.socket) -> None:
    """Read until there is nothing more, however it ends."""
    with suppress(ConnectionResetError):
        receiveAll(client)


def test_noRest() -> None:
    """Where counters never stand still, what there is after a while is the answer."""
    with running("chargen") as echo, socket.create_connection((echo.host, echo.port)) as client:
        reader = threading.Thread(target=readOn, args=(client,))
        reader.start()
        try:
            first, second = echo.counters(), echo.counters()
        finally:
            client.shutdown(socket.SHUT_RDWR)
            reader.join()
        # On a busy machine nobody may have read in between.
        assert 0 < first["bytes_out"] <= second["bytes_out"]
        assert first["open"] == second["open"] == 1
        assert echo.counters()["open"] == 0


def test_closed() -> None:
    """How each connection ended."""
    with running("raw") as echo:
        talk(echo, 100)
        with socket.create_connection((echo.host, echo.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert len(echo.closed()) == 1
            port = client.getsockname()[1]
        # Both ended within one tick, whose order nobody tells.
        rows = echo.closed()
        (second,) = (row for row in rows if row["peer"] == f"127.0.0.1:{port}")
        (first,) = (row for row in rows if row is not second)
        assert (first["reason"], first["end"], first["ended_by"]) == ("eof", "fin", "peer")
        assert (second["reason"], second["end"], second["ended_by"]) == ("reset", "rst", "peer")
        assert first["timeline"]["events"][-1]["event"] == "end"
        assert first["bytes_in"] == 100


def test_limitsOfClientsAlone() -> None:
    """No limit holds for the test's own questions."""
    limits = {"max_connections": 1, "max_bytes": 3, "bytes_per_second": 1, "deny": "10.0.0.0/8"}
    with running("raw", limits=limits) as echo:
        with socket.create_connection((echo.host, echo.port)):
            assert [echo.counters()["open"] for _ in range(3)] == [1, 1, 1]
        assert echo.counters()["closed"] == {"eof": 1}


@pytest.mark.parametrize("name", ["short", "long" * 40, "a:b"])
def test_socketOfItsOwn(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked by nobody else, wherever temporary files are; and is gone afterwards."""
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with running("raw") as echo:
        assert echo.counters()["open"] == 0
        if "long" not in name:
            (made,) = folder.iterdir()
            assert stat.S_IMODE(made.stat().st_mode) == 0o700
            assert stat.S_IMODE((made / "admin.sock").stat().st_mode) == 0o600
    assert list(folder.iterdir()) == []


def test_nobodyAnswers(tmp_path: Path) -> None:
    """Where there is no daemon any more, the error says it."""
    client = AdminClient(str(tmp_path / "none"), 1.0, 1.0)
    with pytest.raises(EchodError, match=r"^echod does not answer /counters: FileNotFoundError"):
        client.settled(0)


def test_notThere(tmp_path: Path) -> None:
    """What the daemon says is in the error."""
    path = str(tmp_path / "a.sock")
    with Process([*MODULE, "--listen", "raw=tcp:0", f"--admin=unix:{path}"]):
        client = AdminClient(path, PATIENCE, 1.0)
        with pytest.raises(EchodError, match=r"^echod answers /nope: 404 no such path; there are"):
            client.ask("/nope")


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
        pytest.raises(EchodError, match=r"echod ended: echod: .*no protocol 'nope'"),
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
        while echo.counters()["open"]:
            await deferLater(reactor, 0.01)
        (row,) = echo.closed()
        assert (row["reason"], row["bytes_in"]) == ("eof", 5)
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
