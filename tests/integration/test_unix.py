"""UNIX sockets: the same promise, and a file that comes and goes with its daemon."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from echod.transports.unix import credentialsOf
from tests.integration.daemon import MODULE, PATIENCE, exchange, waitFor
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.loaded import runLoaded
from tests.integration.peers import noise


def connect(path: Path | str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(os.fspath(path))
    return client


def serving(path: Path | str, *arguments: str, protocol: str = "raw") -> Daemon:
    return Daemon("--listen", f"{protocol}=unix:{path}", *arguments)


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_halfClose(tmp_path: Path, size: int) -> None:
    """E1: every byte that was sent before the FIN comes back after it."""
    data = noise(size)
    with serving(tmp_path / "echod.sock") as daemon:
        assert exchange(connect(tmp_path / "echod.sock"), data) == data
        assert daemon.stop() == 0


def test_stalledReader(tmp_path: Path) -> None:
    """C5: a client that does not read is not read from; all comes once it does."""
    path = tmp_path / "echod.sock"
    with serving(path) as daemon, connect(path) as client:
        data = noise(5_000_000)
        client.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < len(data):
                sent += client.send(data[sent : sent + 65536])
        assert sent < 2_000_000
        client.settimeout(PATIENCE)
        got = bytearray()

        def read() -> None:
            while piece := client.recv(65536):
                got.extend(piece)

        reader = threading.Thread(target=read)
        reader.start()
        client.sendall(data[sent:])
        client.shutdown(socket.SHUT_WR)
        reader.join()
        assert bytes(got) == data
        waitFor(lambda: daemon.counters()["raw"]["closed"] == {"eof": 1})


@pytest.mark.parametrize("mode", [None, "600", "777"])
def test_fileComesAndGoes(tmp_path: Path, mode: str | None) -> None:
    """Its mode is what was asked for; it is gone with the daemon, and its line names it."""
    path = tmp_path / "echod.sock"
    words = f"{path}:mode={mode}" if mode else path
    with serving(words) as daemon:
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == int(mode or "660", 8)
        daemon.waitForLine(f"listening raw unix {path}")
        assert daemon.stop() == 0
    assert not path.exists()


def test_staleSocket(tmp_path: Path) -> None:
    """The socket of a dead instance is replaced."""
    path = tmp_path / "echod.sock"
    with serving(path) as daemon:
        daemon.process.kill()
        daemon.process.wait()
    assert path.exists()
    with serving(path):
        assert exchange(connect(path), b"again") == b"again"


def test_liveSocket(tmp_path: Path) -> None:
    """That of a live one is refused in one line, exit 1; and it goes on."""
    path = tmp_path / "echod.sock"
    with serving(path):
        done = runLoaded("--listen", f"raw=unix:{path}", command=MODULE)
        assert done.returncode == 1
        assert f"cannot listen on unix {path}: somebody does already" in done.stdout + done.stderr
        assert exchange(connect(path), b"still here") == b"still here"


@pytest.mark.parametrize("stale", [True, False])
def test_startedAtOnce(tmp_path: Path, stale: bool) -> None:
    """Of several that start at once one serves, at the file that is there; others are refused."""
    path = tmp_path / "echod.sock"
    if stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [*MODULE, "--listen", f"whoami=unix:{path}"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            for _ in range(4)
        ]
        for each in started:
            stack.callback(each.kill)
        waitFor(lambda: sum(each.poll() == 1 for each in started) == 3, "three that are refused")
        (serving,) = (each for each in started if each.poll() is None)
        with connect(path) as client:
            found = credentialsOf(client)
        assert found[0] == serving.pid
        assert [each.name for each in tmp_path.iterdir()] == [path.name]
        for each in started:
            if each is not serving:
                said = each.communicate()[0]
                assert f"cannot listen on unix {path}: " in said
                assert "Traceback" not in said
        serving.terminate()
        assert serving.wait(PATIENCE) == 0


def test_noSocket(tmp_path: Path) -> None:
    """What is no socket is not touched; nor is a folder made that is not there."""
    path = tmp_path / "file"
    path.write_text("mine")
    done = runLoaded("--listen", f"raw=unix:{path}", command=MODULE)
    assert done.returncode == 1
    assert "it exists, and is no socket" in done.stdout + done.stderr
    assert path.read_text() == "mine"
    done = runLoaded("--listen", f"raw=unix:{tmp_path}/none/echod.sock", command=MODULE)
    assert done.returncode == 1
    assert "No such file or directory" in done.stdout + done.stderr


def test_removesItsOwnAlone(tmp_path: Path) -> None:
    """A socket that somebody else has put there meanwhile stays."""
    path = tmp_path / "echod.sock"
    with serving(path) as daemon:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            assert daemon.stop() == 0
            assert path.exists()


def test_abstractName() -> None:
    """A name in no file system: ``@`` stands for the NUL before it."""
    name = f"echod-test-{os.getpid()}"
    with serving(f"@{name}"):
        assert exchange(connect(f"\0{name}"), b"abstract") == b"abstract"
        done = runLoaded("--listen", f"raw=unix:@{name}", command=MODULE)
        assert done.returncode == 1
        assert f"cannot listen on unix @{name}: Address already in use" in done.stdout + done.stderr


def test_whoIsThere(tmp_path: Path) -> None:
    """The peer's process, user and group are in ``whoami`` and in the log."""
    path = tmp_path / "echod.sock"
    me = {"process": os.getpid(), "user": os.geteuid(), "group": os.getegid()}
    with serving(path, "--log-connections", protocol="whoami") as daemon:
        with connect(path) as client:
            facts = json.loads(client.makefile().readline())
        assert facts["transport"] == "unix"
        assert facts["credentials"] == me
        assert facts["local"] == str(path)
        words = "process={process},user={user},group={group}".format(**me)
        for event in ("opened", "closed"):
            line = daemon.waitForLine(f"{event} whoami unix {path} id=")
            assert f" peer={words} " in f"{line} "


def test_limits(tmp_path: Path) -> None:
    """Limits hold; networks are nothing to a UNIX socket."""
    path = tmp_path / "echod.sock"
    limits = ["--max-connections", "2", "--deny", "0.0.0.0/0", "--idle-timeout", "1"]
    with serving(path, *limits) as daemon, connect(path) as first, connect(path) as second:
        for client in (first, second):
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        with connect(path) as third:
            assert third.recv(1) == b""
        assert daemon.counters()["raw"]["refused"] == {"full": 1}
        assert first.recv(1) == b""
        assert second.recv(1) == b""
        first.close()
        second.close()
        waitFor(lambda: daemon.counters()["raw"]["closed"] == {"idle": 2})


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"\0\xff\xfe", "@\\xff\\xfe"),
        (b"\0a\0b", "@a\\x00b"),
        (b"\xff.client", "\\xff.client"),
        ("\u00e9.client".encode(), "\u00e9.client"),
    ],
    ids=["abstract", "NUL", "file", "UTF-8"],
)
def test_clientsName(tmp_path: Path, name: bytes, shown: str) -> None:
    """A client's name may be any bytes: `whoami` and the log tell it as printable text."""
    path = tmp_path / "echod.sock"
    folder = "" if name.startswith(b"\0") else f"{tmp_path}/"
    with (
        serving(path, "--log-connections", protocol="whoami") as daemon,
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.settimeout(PATIENCE)
        client.bind(os.fsencode(folder) + name)
        client.connect(os.fspath(path))
        facts = json.loads(client.makefile("rb").readline())
        assert facts["peer"] == folder + shown
        assert facts["local"] == str(path)
        client.close()
        waitFor(lambda: daemon.counters()["whoami"]["closed"] == {"quit": 1})
        assert daemon.stop() == 0
    assert "Traceback" not in "".join(daemon.lines)
