"""SIGHUP: a configuration that is read again, and what stays."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Certificates
from tests.integration.daemon import TWISTD, exchange, receiveAll
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.ports import freePort
from tests.unit.outer import waitUntil


class Reloaded:
    """A daemon whose file can be written again."""

    def __init__(self, daemon: Daemon, path: Path) -> None:
        self.daemon = daemon
        self._path = path

    def reload(self, text: str, expect: str = "reloaded: ") -> str:
        """Write ``text``, send SIGHUP, and wait for a line; returns it."""
        self._path.write_text(text)
        return self.hangUp(expect)

    def hangUp(self, expect: str = "reloaded: ") -> str:
        """Send SIGHUP and wait for a new line with ``expect`` in it."""
        seen = len(self.daemon.lines)
        self.daemon.signal(signal.SIGHUP)
        return self.daemon.waitForLine(expect, seen)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[[str], Reloaded]]:
    running: list[Daemon] = []

    def serve(text: str) -> Reloaded:
        path = tmp_path / "echod.toml"
        path.write_text(text)
        daemon = Daemon("--config", str(path), command=TWISTD)
        daemon.__enter__()
        running.append(daemon)
        return Reloaded(daemon, path)

    yield serve
    for daemon in running:
        daemon.__exit__(None, None, None)


def listener(protocol: str, endpoint: str, more: str = "") -> str:
    return f'[[listener]]\nprotocol = "{protocol}"\nendpoint = "{endpoint}"\n{more}\n'


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 20)


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    answer = b""
    while not answer.endswith(b"\n"):
        piece = client.recv(4096)
        assert piece, answer
        answer += piece
    return answer


Serve = Callable[[str], Reloaded]


def test_unchanged(serving: Serve) -> None:
    """The same file: sockets, connections and counters stay."""
    text = listener("line", f"tcp:{freePort()}") + listener("raw", "tcp:0")
    it = serving(text)
    held = it.daemon.connect("line")
    assert ask(held, b"one\n") == b"one\n"
    line = it.hangUp()
    assert line.endswith("reloaded: 0 listeners are new, 0 changed, 0 gone")
    assert ask(held, b"two\n") == b"two\n"
    with it.daemon.connect("raw") as other:
        assert exchange(other, b"x") == b"x"
    held.close()


def test_changed(serving: Serve) -> None:
    """The socket stays, its factory is another; who came before has the settings of before."""
    port = freePort()
    it = serving(listener("line", f"tcp:{port}", '[listener.options]\nprefix = "a "'))
    held = connect(port)
    assert ask(held, b"x\n") == b"a x\n"
    line = it.reload(listener("line", f"tcp:{port}", '[listener.options]\nprefix = "b "'))
    assert line.endswith("reloaded: 0 listeners are new, 1 changed, 0 gone")
    with connect(port) as new:
        assert ask(new, b"x\n") == b"b x\n"
        assert ask(held, b"x\n") == b"a x\n"
        # Counted together: one endpoint, one listener.
        (counters,) = it.daemon.allCounters()["listeners"]
        assert (counters["open"], counters["accepted"]) == (2, 2)
        # Another protocol.
        it.reload(listener("raw", f"tcp:{port}"))
        with connect(port) as third:
            assert exchange(third, b"raw") == b"raw"
        assert ask(new, b"x\n") == b"b x\n"
    held.close()


def test_newAndGone(serving: Serve) -> None:
    """A new one is bound; one that is gone accepts nobody, and its connections live on."""
    one, two = freePort(), freePort()
    it = serving(listener("line", f"tcp:{one}"))
    held = connect(one)
    assert ask(held, b"x\n") == b"x\n"
    line = it.reload(listener("line", f"tcp:{two}"))
    assert line.endswith("reloaded: 1 listeners are new, 0 changed, 1 gone")
    with pytest.raises(ConnectionRefusedError):
        connect(one)
    with connect(two) as new:
        assert ask(new, b"n\n") == b"n\n"
    assert ask(held, b"y\n") == b"y\n"
    # And they are drained with all others.
    it.daemon.signal(signal.SIGTERM)
    assert receiveAll(held) == b""
    held.close()
    assert it.daemon.wait() == 0


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("", "no [[listener]] is left"),
        ("drain_timeout = 3.0", "no [[listener]] is left"),
        ("nonsense", "not TOML"),
        ('drain_timeout = "soon"', "drain_timeout"),
        (listener("nope", "tcp:0"), "no protocol 'nope'"),
        (listener("raw", "tls:0:cert=/nowhere"), "cannot read /nowhere"),
        ("TAKEN", "Address already in use"),
    ],
)
def test_error(serving: Serve, wrong: str, why: str) -> None:
    """Whatever is wrong: one line, and everything stays as it was, new listeners too."""
    port, other = freePort(), freePort()
    it = serving(listener("line", f"tcp:{port}"))
    held = connect(port)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        if wrong == "TAKEN":
            wrong = (
                listener("line", f"tcp:{port}", '[listener.options]\nprefix = "new "')
                + listener("raw", f"tcp:{other}")
                + listener("raw", f"tcp:{taken.getsockname()[1]}")
            )
        line = it.reload(wrong, "the configuration stays as it was: ")
    assert why in line
    assert ask(held, b"x\n") == b"x\n"
    with connect(port) as new:
        assert ask(new, b"x\n") == b"x\n"
    with pytest.raises(ConnectionRefusedError):
        connect(other)
    # And the next one is taken.
    it.reload(listener("line", f"tcp:{port}", '[listener.options]\nprefix = "new "'))
    with connect(port) as new:
        assert ask(new, b"x\n") == b"new x\n"
    held.close()


def test_certificates(serving: Serve, certificates: Certificates, tmp_path: Path) -> None:
    """Files of TLS: new for who comes, as before for who is there; a broken one is refused."""
    path = tmp_path / "server.pem"
    path.write_bytes(Path(certificates.server).read_bytes())
    path.chmod(0o600)
    port = freePort()
    it = serving(listener("line", f"tls:{port}:cert={path}"))
    context = certificates.context()
    context.check_hostname = False

    def names() -> set[str]:
        with context.wrap_socket(connect(port)) as client:
            assert ask(client, b"x\n") == b"x\n"
            found: Any = client.getpeercert()
            return {value for _, value in found["subjectAltName"]}

    held = context.wrap_socket(connect(port))
    assert "localhost" in names()
    path.write_bytes(Path(certificates.other).read_bytes())
    it.hangUp()
    assert "other.example" in names()
    path.write_text("nothing")
    assert f"{path} holds no certificate" in it.hangUp("the configuration stays as it was: ")
    assert "other.example" in names()
    assert ask(held, b"x\n") == b"x\n"
    # Without TLS, and with it again.
    it.reload(listener("line", f"tcp:{port}"))
    with connect(port) as plain:
        assert ask(plain, b"x\n") == b"x\n"
    assert ask(held, b"x\n") == b"x\n"
    it.reload(listener("line", f"tls:{port}:cert={certificates.server}"))
    assert "localhost" in names()
    held.close()


def test_unixSocket(serving: Serve, tmp_path: Path) -> None:
    """The file stays, takes another mode, and goes when its listener does."""
    path = tmp_path / "raw.sock"
    it = serving(listener("line", f"unix:{path}:mode=600"))
    number = path.stat().st_ino
    it.reload(listener("line", f"unix:{path}:mode=660"))
    assert (path.stat().st_ino, stat.S_IMODE(path.stat().st_mode)) == (number, 0o660)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(path))
        assert ask(client, b"x\n") == b"x\n"
        it.reload(listener("line", f"tcp:{freePort()}"))
        assert not path.exists()
        assert ask(client, b"y\n") == b"y\n"


def test_datagrams(serving: Serve) -> None:
    """The same for UDP: the socket stays, and so do the counters."""
    port = freePort()
    it = serving(listener("udp", f"udp:{port}"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.connect(("127.0.0.1", port))
        client.send(b"one")
        assert client.recv(10) == b"one"
        it.reload(listener("discard", f"udp:{port}"))
        client.send(b"two")
        it.reload(listener("udp", f"udp:{port}"))
        client.send(b"three")
        assert client.recv(10) == b"three"
        assert it.daemon.allCounters()["listeners"][0]["datagrams_in"] == 3


def test_nobodyIsRefused(serving: Serve) -> None:
    """Ten reloads, each another prefix, under clients that connect all the while."""
    port = freePort()
    texts = [
        listener("line", f"tcp:{port}", f'[listener.options]\nprefix = "{number} "')
        for number in range(10)
    ]
    it = serving(texts[0])
    stop = threading.Event()
    faults: list[BaseException] = []
    answers: set[bytes] = set()

    def client() -> None:
        try:
            while not stop.is_set():
                with connect(port) as skt:
                    answers.add(ask(skt, b"x\n")[1:])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=client) for _ in range(3)]
    for thread in threads:
        thread.start()
    for text in texts:
        it.reload(text)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert faults == []
    assert answers == {b" x\n"}


def test_whileItDrains(serving: Serve) -> None:
    """Nothing is bound any more, and the drain goes on as it was."""
    port, other = freePort(), freePort()
    it = serving(listener("line", f"tcp:{port}"))
    held = connect(port)
    assert ask(held, b"x\n") == b"x\n"
    it.daemon.signal(signal.SIGTERM)
    assert receiveAll(held) == b""
    it.reload(listener("raw", f"tcp:{other}"), "the daemon is stopping")
    with pytest.raises(ConnectionRefusedError):
        connect(other)
    held.close()
    assert it.daemon.wait() == 0


def test_withoutAFile() -> None:
    """On the command line alone nothing changes, and nothing breaks."""
    with Daemon("--port", "0") as daemon:
        held = daemon.connect()
        seen = len(daemon.lines)
        daemon.signal(signal.SIGHUP)
        daemon.waitForLine("reloaded: 0 listeners are new, 0 changed, 0 gone", seen)
        assert exchange(held, b"x") == b"x"


def test_withoutListeners(tmp_path: Path) -> None:
    """A file without listeners is read again where the command line gives them."""
    path = tmp_path / "echod.toml"
    path.write_text("")
    with Daemon("--config", str(path), "--port", "0") as daemon:
        it = Reloaded(daemon, path)
        it.reload("drain_timeout = 3.0")
        assert exchange(daemon.connect(), b"x") == b"x"


@pytest.mark.parametrize("kind", ["pipe", "fifo"])
def test_fileThatIsNone(tmp_path: Path, kind: str) -> None:
    """A pipe was read at the start: read again it would be empty, or hold everybody up."""
    text = listener("line", "tcp:0")
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    writer = threading.Thread(target=path.write_text, args=(text,))
    if kind == "fifo":
        writer.start()
    name = str(path) if kind == "fifo" else f"/dev/fd/{reading}"
    try:
        with Daemon("--config", name, descriptors=[reading]) as daemon:
            it = Reloaded(daemon, path)
            line = it.hangUp("the configuration stays as it was: ")
            assert f"{name} is no file, and cannot be read again" in line
            with daemon.connect("line") as client:
                assert ask(client, b"x\n") == b"x\n"
    finally:
        os.close(reading)
        if kind == "fifo":
            # Whoever still waits to write has nobody to read.
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            writer.join(20)


def test_elsewhere(tmp_path: Path, certificates: Certificates) -> None:
    """Relative paths begin where the daemon was started, whatever folder ``twistd`` goes to."""
    run = tmp_path / "run"
    run.mkdir()
    for name, source in (
        ("server.pem", certificates.server),
        ("ca.pem", certificates.ca),
        ("other.pem", certificates.other),
    ):
        (tmp_path / name).write_bytes(Path(source).read_bytes())
        (tmp_path / name).chmod(0o600)
    table = (
        '[listener.tls]\ncert = "server.pem"\nclient_auth = "optional"\nca = "ca.pem"\n'
        'names = {"a.example" = {cert = "other.pem", key = "other.pem"}}'
    )
    text = (
        listener("raw", "tls:0:cert=server.pem")
        + listener("line", "tcp:0", table)
        + listener("upper", "unix:socket")
    )
    path = tmp_path / "echod.toml"
    path.write_text(text)
    command = [*TWISTD[:-1], f"--rundir={run}", TWISTD[-1]]
    with Daemon("--config", "echod.toml", command=command, cwd=tmp_path) as daemon:
        it = Reloaded(daemon, path)
        assert it.hangUp().endswith("reloaded: 0 listeners are new, 0 changed, 0 gone")
        line = it.reload(text.replace("unix:socket", "unix:./socket:mode=600"))
        assert line.endswith("reloaded: 0 listeners are new, 1 changed, 0 gone")
        assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == 0o600
        it.reload(text.replace("unix:socket", "unix:other"))
        # What is gone is retired once that has been said.
        waitUntil(
            time.sleep,
            lambda: [each.name for each in tmp_path.iterdir() if each.is_socket()] == ["other"],
        )
    assert list(run.iterdir()) == []
