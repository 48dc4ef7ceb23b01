"""Lines for programs and for systemd's journal, by whatever way the daemon is started."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.certificates import Certificates
from tests.documentation.log_lines import read
from tests.integration.daemon import (
    MODULE,
    PATIENCE,
    TWISTD,
    Daemonised,
    both,
    exchange,
    run,
    waitFor,
)
from tests.integration.test_logging import answers, serve, started, stop
from tests.integration.test_plugins import install
from tests.ports import freePort

#: It says things that no line of a log should have as they are.
STRANGE = """
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python import log

from echod.kit.makers import FactoryMaker


class Strange(Protocol):
    def connectionMade(self):
        print("two\\nlines \\u202e\\x1b[31m \\udc80")
        log.msg("of old", system="it")
        log.err(ValueError("of\\nold"), "failed")
        Logger().info("mine {it}", it=object, event="closed", time=3)
        raise KeyError("on\\npurpose")


class Stranger(Factory):
    protocol = Strange


strange = FactoryMaker("strange", "logs", Stranger)
"""


class Told:
    """A file with lines that are read as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[bytes]:
        """All that are whole."""
        return self._path.read_bytes().split(b"\n")[:-1]

    def until(self, word: str, count: int = 1) -> None:
        """Wait for so many lines with ``word`` in them."""
        waitFor(lambda: sum(word.encode() in line for line in self.lines()) >= count, word)


@contextmanager
def logging(
    folder: Path, command: list[str], *options: str, **environment: str
) -> Iterator[tuple[Told, int, int]]:
    """A daemon, what it tells, its port and its process; SIGTERM ends it."""
    port = freePort()
    path = folder / "out"
    everything = {**os.environ, "PYTHONPATH": str(folder), **environment}
    with (
        path.open("wb") as out,
        started(
            [*command, *options], port, stdout=out, stderr=subprocess.STDOUT, env=everything
        ) as process,
    ):
        told = Told(path)
        told.until("listening raw")
        serve(port, 1)
        yield told, port, process.pid
        assert stop(process) == 0


@both
def test_everyLineIsAsTheSchemaSays(
    tmp_path: Path, certificates: Certificates, command: list[str]
) -> None:
    """Each line is one object, with the fields of its event and no others; numbers are numbers."""
    options = [
        *("--log-format", "json", "--log-payload", "-o", "line.quit=q", "--listen"),
        f"line=tls:0:cert={certificates.server}:interface=127.0.0.1",
    ]
    with logging(tmp_path, command, *options) as (told, port, pid):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.sendall("h\u00e9\x1b\n\u2028".encode())
            assert client.recv(100)
        secured = next(event for event in map(read, told.lines()) if "tls" in event.message)
        _, _, number = secured.message.split()[3].rpartition(":")
        context = certificates.context()
        with (
            socket.create_connection(("127.0.0.1", int(number)), PATIENCE) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as client,
        ):
            client.sendall(b"q\n")
            assert client.recv(100) == b"Bye.\n"
            # Whoever closes with something unread sends RST.
            assert client.recv(100) == b""
        with socket.create_connection(("127.0.0.1", int(number)), PATIENCE) as raw:
            raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while raw.recv(100):
                pass
        for each in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
            os.kill(pid, each)
        told.until('"reloaded"')
        told.until('"counters"')
        told.until('"closed"', 4)
    events = [json.loads(line) for line in told.lines()]
    for line in told.lines():
        read(line)
    assert {event["event"] for event in events} >= {
        *("note", "listening", "opened", "payload", "eof", "closed", "tls", "ended", "signal"),
        *("counters", "reloaded", "draining", "message"),
    }
    failed = [event for event in events if event.get("failure")]
    assert [(event["event"], event["reason"]) for event in failed] == [("closed", "tls")]
    (ended,) = (
        event for event in events if event["event"] == "ended" and event["reason"] == "quit"
    )
    ours = [event["event"] for event in events if event.get("id") == ended["id"]]
    assert ours == ["opened", "tls", "payload", "ended", "eof", "closed"]
    (counters,) = (event["counters"] for event in events if event["event"] == "counters")
    assert sum(listener["bytes_in"] for listener in counters["listeners"]) >= 5
    assert {event["level"] for event in events} >= {"info", "warn"}


def bring(folder: Path) -> list[str]:
    """Have a plugin that `provoke` makes say strange things; returns its option."""
    install(folder, "echod-strange 1.0", "strange = echod_strange:strange", echod_strange=STRANGE)
    return ["--listen", "strange=tcp:0:interface=127.0.0.1"]


def provoke(told: Told) -> None:
    """Be its client: it says what it has to say, and breaks the connection."""
    (port,) = re.findall(rb"listening strange tcp \S+?:(\d+)", b"\n".join(told.lines()))
    with (
        socket.create_connection(("127.0.0.1", int(port)), PATIENCE) as client,
        suppress(ConnectionResetError),
    ):
        assert client.recv(1) == b""
    told.until("closed strange")


@both
def test_whateverIsLogged(tmp_path: Path, command: list[str]) -> None:
    """What others print and log, tracebacks and all: one line of ASCII each."""
    options = ["--log-format", "json", *bring(tmp_path)]
    with logging(tmp_path, command, *options, PYTHONIOENCODING="ascii") as (told, _, _):
        provoke(told)
    events = [json.loads(line) for line in told.lines()]
    assert all(line.isascii() and line.decode().isprintable() for line in told.lines())
    failures = [event for event in events if event["event"] == "failure"]
    assert any("KeyError" in event["traceback"] for event in failures)
    assert any("of\nold" in event["traceback"] for event in failures)
    if command is not MODULE:
        assert any("lines \u202e\x1b[31m" in event["message"] for event in events)
    for event in events:
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])


@both
def test_journal(tmp_path: Path, command: list[str]) -> None:
    """Each line has a priority and no time, those of a traceback too (sd-daemon(3))."""
    options = ["--log-format", "journal", *bring(tmp_path)]
    with logging(tmp_path, command, *options) as (told, port, _):
        provoke(told)
    lines = [line.decode(errors="replace") for line in told.lines()]
    assert all(re.match(r"<[2-7]>", line) for line in lines), lines
    assert f"<6>listening raw tcp 127.0.0.1:{port}" in lines
    assert "<2>Traceback (most recent call last):" in lines
    assert time.strftime("%Y-") not in "".join(lines)


def test_logfile(tmp_path: Path) -> None:
    """In the background, with `--logfile`, over a rotation: whole lines in both files."""
    with Daemonised(tmp_path) as daemon:
        port = freePort()
        options = (f"--port={port}", "--log-connections", "--log-format=json")
        assert daemon.start(*options).returncode == 0
        told = Told(daemon.logFile)
        told.until("listening raw")
        serve(port, 20)
        moved = daemon.logFile.rename(tmp_path / "moved")
        os.kill(int(daemon.pidFile.read_text()), signal.SIGHUP)
        waitFor(daemon.logFile.exists, "a new file")
        serve(port, 20)
        told.until('"reloaded"')
        # Of the last clients before, some may have closed after.
        waitFor(
            lambda: (
                moved.read_bytes().count(b'"closed"')
                + daemon.logFile.read_bytes().count(b'"closed"')
                == 40
            ),
            "all ends",
        )
        events = [read(line) for path in (moved, daemon.logFile) for line in Told(path).lines()]
        words = [type(event).__name__ for event in events]
        assert (words.count("Opened"), words.count("Closed")) == (40, 40)
        assert b"\n" in moved.read_bytes()[-1:]


def test_reload(tmp_path: Path) -> None:
    """A reload that changes it: what comes after its own line is of the new format."""
    file = tmp_path / "echod.toml"
    formats = ["text", "json", "journal", "json", "text"]

    def write(word: str) -> None:
        file.write_text(f'log_format = "{word}"\n')

    write(formats[0])
    with logging(tmp_path, MODULE, "--config", str(file)) as (told, port, pid):
        for number, word in enumerate(formats[1:], 1):
            before = len(told.lines())
            write(word)
            os.kill(pid, signal.SIGHUP)
            told.until("reloaded: ", number)
            assert answers(port)
            told.until("closed raw", number + 1)
            last = told.lines()[-1]
            assert len(told.lines()) > before
            assert {"text": b"20", "json": b"{", "journal": b"<"}[word] == last[
                : 1 + (word == "text")
            ]
        # One that is refused changes nothing.
        write("xml")
        os.kill(pid, signal.SIGHUP)
        told.until("the configuration stays as it was: ")
        assert b"$.log_format: Invalid enum value 'xml'" in told.lines()[-1]
        assert told.lines()[-1].startswith(b"20")


@both
def test_noSuchFormat(command: list[str]) -> None:
    """One line that says which there are."""
    done = run("--log-format", "xml", command=command)
    assert (done.returncode, done.stdout) == (1, "")
    line = (
        "echod: --log-format 'xml': Invalid enum value 'xml' (there are: 'journal', 'json', 'text')"
    )
    assert done.stderr.splitlines() == [line]


@both
def test_startsThatFail(command: list[str]) -> None:
    """Why it cannot start has a priority in the journal too."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in (str(taken.getsockname()[1]), "nonsense:1"):
            for options, prefix in (((), ""), (("--log-format=journal",), "<3>")):
                done = run("--port", port, *options, command=command)
                assert done.returncode == 1
                (line,) = done.stderr.splitlines()
                assert line.startswith(f"{prefix}echod: ")


def test_otherObservers(tmp_path: Path) -> None:
    """What `--logger` names makes its own lines, and finds our values there."""
    port = freePort()
    (tmp_path / "observers.py").write_text(
        "import sys\nfrom twisted.logger import jsonFileLogObserver\n"
        "def json(): return jsonFileLogObserver(sys.stdout)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [*TWISTD[:-1], "--logger", "observers.json", "echod", "--log-format", "journal"]
    with started(command, port, stdout=subprocess.PIPE, env=environment) as process:
        with waitFor(lambda: connected(port), "a connection") as client:
            assert exchange(client, b"hello") == b"hello"
        process.terminate()
        output, _ = process.communicate(timeout=PATIENCE)
    assert not re.search(rb"^<\d>", output, re.MULTILINE)
    assert b'"event": "opened"' in output


def connected(port: int) -> socket.socket | None:
    """A client, once somebody listens."""
    try:
        return socket.create_connection(("127.0.0.1", port), PATIENCE)
    except ConnectionRefusedError:
        return None
