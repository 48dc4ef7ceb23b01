"""
A log that nobody reads holds up no echo, and a file that is rotated is followed.

Whatever the log goes to: standard output (a pipe, a terminal), a file, syslog, an observer of
somebody's own.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import termios
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.documentation.log_lines import EOF, Closed, Opened, read
from tests.integration.daemon import MODULE, PATIENCE, TWISTD, Daemonised, both, exchange, waitFor
from tests.integration.namespaces import needsRoot
from tests.integration.test_plugins import install
from tests.ports import freePort

#: How many clients come: their lines are far more than a pipe of 4 KiB, or a terminal, takes.
CLIENTS = 150
#: fcntl(2)
F_SETPIPE_SZ = 1031


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            return exchange(client, b"hello") == b"hello"
    except ConnectionRefusedError:
        return False


def serve(port: int, count: int = CLIENTS) -> None:
    """So many clients, one after the other; the daemon need not have begun."""
    waitFor(lambda: answers(port), "an answer")
    for _ in range(count - 1):
        assert answers(port)


@contextmanager
def started(command: Sequence[str], port: int, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that logs its connections; killed at the end, if it has not ended."""
    process = subprocess.Popen(
        [*command, "--port", str(port), "--log-connections"],
        stdin=subprocess.DEVNULL,
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def stop(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    return process.wait(PATIENCE)


def fullPipe() -> tuple[int, int]:
    """The ends of a pipe that holds no more."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    os.write(writing, b"x" * 4096)
    return reading, writing


def readUntil(reading: int, text: str) -> str:
    """What comes from a descriptor, up to the end of a line with ``text``."""
    got = b""

    def more() -> bool:
        nonlocal got
        got += os.read(reading, 1 << 16)
        return bool(re.search(rb"%s.*\n" % re.escape(text).encode(), got))

    os.set_blocking(reading, True)
    waitFor(more, text)
    return got.decode(errors="replace")


# -- Nobody reads it ---------------------------------------------------------------------------


@both
def test_fullPipe(command: list[str]) -> None:
    """A pipe full from the beginning: everybody is served, and SIGTERM ends it, status 0."""
    reading, writing = fullPipe()
    port = freePort()
    try:
        with started(command, port, stdout=writing, stderr=writing) as process:
            os.close(writing)
            serve(port)
            assert stop(process) == 0
    finally:
        os.close(reading)


@both
def test_readAgain(command: list[str]) -> None:
    """What waited is whole and in order once somebody reads; what did not fit is counted."""
    reading, writing = os.pipe()
    port = freePort()
    try:
        with started([*command, "--log-payload"], port, stdout=writing, stderr=writing) as process:
            os.close(writing)
            fcntl.fcntl(reading, F_SETPIPE_SZ, 4096)
            serve(port, 20)
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                # More lines than can wait: one for each read.
                for _ in range(30_000):
                    client.sendall(b"\0" * 64)
                    left = 64
                    while left:
                        left -= len(client.recv(left))
            text = readUntil(reading, "lost here: whoever reads the log was too slow")
            lines = [line for line in text.splitlines() if "opened raw" in line]
            assert len(lines) >= 21
            (lost,) = re.findall(r"(\d+) lines lost here", text)
            payloads = sum(
                " payload raw " in line and "size=64" in line for line in text.splitlines()
            )
            # The last line of all may still be on its way.
            assert payloads <= 30_000 <= payloads + int(lost)
            assert text.splitlines()[0].endswith("starting up.") or "listening raw" in text
            process.send_signal(signal.SIGUSR1)
            readUntil(reading, "counters {")
            assert stop(process) == 0
    finally:
        os.close(reading)


@both
@pytest.mark.parametrize("how", ["reader", "tcflow"])
def test_terminalStops(command: list[str], how: str) -> None:
    """After Ctrl-S, or where nobody reads the terminal: likewise."""
    port = freePort()
    terminal, slave = pty.openpty()
    try:
        with started(command, port, stdout=slave, stderr=slave, start_new_session=True) as process:
            if how == "tcflow":
                readUntil(terminal, "listening raw")
                termios.tcflow(slave, termios.TCOOFF)
            serve(port)
            if how == "tcflow":
                termios.tcflow(slave, termios.TCOON)
            else:
                assert stop(process) == 0
                return
            # A line for each, at the least.
            text = ""
            while text.count("closed raw") < CLIENTS:
                text += readUntil(terminal, "closed raw")
            termios.tcflow(slave, termios.TCOOFF)
            serve(port, 10)
            assert stop(process) == 0
    finally:
        os.close(terminal)
        os.close(slave)


def test_inTheBackground() -> None:
    """``stty tostop`` stops who writes from the background (SIGTTOU), and not this one."""
    port = freePort()
    pid, terminal = pty.fork()
    if pid == 0:
        with suppress(BaseException):
            modes = termios.tcgetattr(1)
            modes[3] |= termios.TOSTOP
            termios.tcsetattr(1, termios.TCSANOW, modes)
            # A shell with the terminal, and a job of its own group.
            with started(MODULE, port, process_group=0):
                os.read(0, 1)
        os._exit(0)
    try:
        serve(port)
        readUntil(terminal, "closed raw")
    finally:
        os.write(terminal, b"\n")
        os.waitpid(pid, 0)
        os.close(terminal)


OBSERVERS = """
    import os, sys, threading
    from zope.interface import implementer
    from twisted.logger import ILogObserver, jsonFileLogObserver, STDLibLogObserver
    from twisted.python import log
    import logging

    def hangs():
        @implementer(ILogObserver)
        def observe(event):
            print("seen", file=sys.__stderr__, flush=True)
            threading.Event().wait()
        return observe

    def legacy():
        @implementer(log.ILogObserver)
        def observe(event):
            log.textFromEventDict(event)
            threading.Event().wait()
        return observe

    def json():
        return jsonFileLogObserver(sys.stdout)

    def buffered():
        # Writes through Python's own file, and keeps its lock.
        out = sys.__stdout__
        @implementer(ILogObserver)
        def observe(event):
            out.write("x" * 10_000)
            out.flush()
        return observe

    def stdlib():
        # `logging` waits at its end for whoever writes.
        logging.basicConfig(stream=sys.__stdout__, level=logging.INFO)
        return STDLibLogObserver()
"""


@pytest.mark.parametrize("observer", ["hangs", "legacy", "json", "buffered", "stdlib"])
def test_observerHangs(tmp_path: Path, observer: str) -> None:
    """Whatever `--logger` names hangs, and may hold any lock: likewise."""
    (tmp_path / "observers.py").write_text(textwrap.dedent(OBSERVERS))
    reading, writing = fullPipe()
    port = freePort()
    command = [*TWISTD[:-1], "--logger", f"observers.{observer}", "echod"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    try:
        with started(
            command, port, stdout=writing, stderr=subprocess.DEVNULL, env=environment
        ) as process:
            os.close(writing)
            serve(port)
            assert stop(process) == 0
    finally:
        os.close(reading)


def test_observerThatReads(tmp_path: Path) -> None:
    """One that does not hang gets every line, the last one included."""
    (tmp_path / "observers.py").write_text(textwrap.dedent(OBSERVERS))
    port = freePort()
    command = [*TWISTD[:-1], "--logger", "observers.json", "echod"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with started(command, port, stdout=subprocess.PIPE, env=environment) as process:
        serve(port, 5)
        process.terminate()
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    text = output.decode()
    assert text.count('"log_format": "opened ') >= 5
    assert "Server Shut Down." in text.splitlines()[-1]


@needsRoot
def test_syslogStops(tmp_path: Path) -> None:
    """A syslog that does not read its socket: likewise."""
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("no mount namespace can be had here")
    port = freePort()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "log"))
        script = 'mount --bind "$0" /dev && exec "$@"'
        # The few devices that Python needs, and the socket.
        for name in ("null", "urandom", "zero"):
            device = os.stat(f"/dev/{name}")
            os.mknod(tmp_path / name, device.st_mode, device.st_rdev)
        command = ["unshare", "--mount", "sh", "-c", script, str(tmp_path), *TWISTD[:-1]]
        with started([*command, "--syslog", "echod"], port) as process:
            serve(port)
            # It was this one that it talked to.
            assert b"starting up" in syslog.recv(1 << 16)
            process.send_signal(signal.SIGUSR1)
            serve(port, 50)
            assert stop(process) == 0


CHATTY = '''
"""It says something a thousand times a second."""

import sys

from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.protocols.wire import Echo

from echod.kit.makers import FactoryMaker


def chatter():
    print("x" * 1000)
    print("y" * 1000, file=sys.stderr)


class Chatty(Factory):
    protocol = Echo

    def startFactory(self):
        LoopingCall(chatter).start(0.001)


chatty = FactoryMaker("chatty", "prints", Chatty)
'''


@both
def test_whatOthersPrint(tmp_path: Path, command: list[str]) -> None:
    """A plugin that prints, to either stream, holds up nobody either."""
    install(tmp_path, "echod-chatty 1.0", "chatty = echod_chatty:chatty", echod_chatty=CHATTY)
    command = [*command, "--listen", "chatty=tcp:0"]
    reading, writing = fullPipe()
    port = freePort()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    try:
        with started(command, port, stdout=writing, stderr=writing, env=environment) as process:
            os.close(writing)
            serve(port)
            assert stop(process) == 0
    finally:
        os.close(reading)


# -- It is rotated -----------------------------------------------------------------------------


@contextmanager
def logged(tmp_path: Path, *options: str) -> Iterator[tuple[Daemonised, int]]:
    with Daemonised(tmp_path) as daemon:
        assert daemon.start("--port=0", "--log-connections", *options).returncode == 0
        yield daemon, daemon.ports()["raw"]


def pidOf(daemon: Daemonised) -> int:
    return int(daemon.pidFile.read_text())


def has(path: Path, text: str) -> Any:
    return waitFor(lambda: path.exists() and text in path.read_text(), f"{text!r} in {path}")


def end(daemon: Daemonised) -> None:
    os.kill(pidOf(daemon), signal.SIGTERM)
    waitFor(lambda: not daemon.processes(), "its end")
    assert not daemon.pidFile.exists()


def test_moved(tmp_path: Path) -> None:
    """SIGHUP opens the file of `--logfile` anew; nothing is lost or written twice."""
    with logged(tmp_path) as (daemon, port):
        assert answers(port)
        has(daemon.logFile, "closed raw")
        moved = daemon.logFile.rename(tmp_path / "moved")
        before = moved.read_text()
        assert before.count("starting up.") == before.count("listening raw") == 1
        os.kill(pidOf(daemon), signal.SIGHUP)
        has(daemon.logFile, "reloaded")
        assert "SIGHUP: reading the configuration again" in daemon.lines[0]
        assert answers(port)
        has(daemon.logFile, "closed raw")
        assert moved.read_text() == before
        assert daemon.logFile.stat().st_mode == moved.stat().st_mode
        end(daemon)
        assert daemon.lines[-1].endswith("Server Shut Down.")


def test_cannotBeOpenedAnew(tmp_path: Path) -> None:
    """Where there is no folder for it, a line says so, and it goes on in the old one."""
    folder = tmp_path / "log"
    folder.mkdir()
    with logged(folder) as (_, port):
        moved = folder.rename(tmp_path / "away")
        os.kill(int((moved / "echod.pid").read_text()), signal.SIGHUP)
        has(moved / "echod.log", f"cannot open {folder}/echod.log anew: No such file or directory")
        has(moved / "echod.log", "reloaded")
        assert answers(port)
        has(moved / "echod.log", "closed raw")


LOGROTATE = Path("deploy/logrotate/echod")


def rotation(daemon: Daemonised) -> str:
    """The file of `deploy`, for this daemon."""
    text = LOGROTATE.read_text()
    for shipped, here in (
        ("/var/log/echod/echod.log", str(daemon.logFile)),
        ("/run/echod/echod.pid", str(daemon.pidFile)),
        ("create 640 nobody nogroup", "create 640"),
    ):
        assert shipped in text
        text = text.replace(shipped, here)
    return text


def rotate(folder: Path, text: str) -> None:
    """Have logrotate do at once what its file says."""
    (folder / "rotation").write_text(text)
    folder.chmod(0o755)
    files = [f"--state={folder / 'state'}", str(folder / "rotation")]
    subprocess.run(["logrotate", "--force", *files], check=True)


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="no logrotate here")
@pytest.mark.parametrize("copy", [False, True], ids=["move", "copytruncate"])
def test_logrotate(tmp_path: Path, copy: bool) -> None:
    """Logrotate itself, by the file in `deploy`, or by copying and truncating."""
    with logged(tmp_path) as (daemon, port):
        assert answers(port)
        has(daemon.logFile, "closed raw")
        if copy:
            text = f"{daemon.logFile} {{\n    rotate 1\n    copytruncate\n}}\n"
        else:
            text = rotation(daemon)
        rotate(tmp_path, text)
        (moved,) = tmp_path.glob("echod.log?*")
        assert "listening raw" in moved.read_text()
        if not copy:
            has(daemon.logFile, "reloaded")
        assert answers(port)
        has(daemon.logFile, "closed raw")
        assert "listening raw" not in daemon.logFile.read_text()
        data = daemon.logFile.read_bytes()
        assert b"\0" not in data
        assert data.startswith(b"20")
        end(daemon)


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="no logrotate here")
def test_logrotateOfJSON(tmp_path: Path) -> None:
    """Rotated and compressed amid clients: each line is whole, and each client has its lines."""
    port = freePort()
    options = (f"--port={port}", "--log-connections", "--log-format=json")
    with Daemonised(tmp_path) as daemon:
        assert daemon.start(*options).returncode == 0
        for turn in range(1, 5):
            # Who has been served has a line that may still be on its way.
            serve(port, 20)
            rotate(tmp_path, rotation(daemon))
            has(daemon.logFile, '"reloaded"')
            assert len([*tmp_path.glob("echod.log.*")]) == turn
        end(daemon)
        data = b""
        for path in sorted(tmp_path.glob("echod.log*")):
            found = path.read_bytes()
            data += gzip.decompress(found) if path.suffix == ".gz" else found
    assert len([*tmp_path.glob("echod.log.*.gz")]) == 3
    events = [read(line) for line in data.split(b"\n")[:-1]]
    for kind in (Opened, EOF, Closed):
        assert len({each.id for each in events if isinstance(each, kind)}) == 80


# -- It cannot start ---------------------------------------------------------------------------


@pytest.fixture
def busy() -> Iterator[str]:
    """An endpoint that somebody else has, with a name longer than 100 characters."""
    name = "@" + "long-" * 20 + str(os.getpid())
    with socket.socket(socket.AF_UNIX) as holder:
        holder.bind("\0" + name[1:])
        holder.listen()
        yield f"unix:{name}"


@both
def test_toldOnce(busy: str, command: list[str]) -> None:
    """On a terminal, why it cannot start stands there once."""
    where = busy.removeprefix("unix:")
    terminal, slave = pty.openpty()
    try:
        with subprocess.Popen(
            [*command, "--port", busy], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave
        ) as process:
            assert process.wait(PATIENCE) == 1
        os.write(slave, b"end\n")
        text = readUntil(terminal, "end")
    finally:
        os.close(terminal)
        os.close(slave)
    assert text.count(where) == 1
    assert f"echod: cannot listen on unix {where}: " in text
    assert "Traceback" not in text
    assert "AlreadyReported" not in text


def test_toldInTheLogToo(tmp_path: Path, busy: str) -> None:
    """A log that is elsewhere has it as well, once."""
    log = tmp_path / "log"
    command = [*TWISTD[:-1], "--logfile", str(log), "echod", "--port", busy]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("cannot listen") == log.read_text().count("cannot listen") == 1
    assert "Traceback" not in log.read_text()


def test_toldWholeAsDaemon(tmp_path: Path, busy: str) -> None:
    """In the background the caller's standard error has the whole line, and it once."""
    where = busy.removeprefix("unix:")
    with Daemonised(tmp_path) as daemon:
        ended = daemon.start("--port", busy)
        assert ended.returncode == 1
        lines = [line for line in ended.stderr.splitlines() if "cannot listen" in line]
        assert lines == [f"echod: cannot listen on unix {where}: Address already in use"]
        waitFor(lambda: not daemon.processes(), "the end of its processes")
        assert not daemon.pidFile.exists()
        assert sum(f"cannot listen on unix {where}" in line for line in daemon.lines) == 1
        assert not [line for line in daemon.lines if "Traceback" in line]


def test_nobodyReadsWhy(busy: str) -> None:
    """It ends, status 1, even if nobody reads why."""
    reading, writing = fullPipe()
    try:
        with subprocess.Popen(
            [*MODULE, "--port", busy], stdin=subprocess.DEVNULL, stdout=writing, stderr=writing
        ) as process:
            assert process.wait(PATIENCE) == 1
    finally:
        os.close(reading)
        os.close(writing)


def test_cutShortWhileStuck() -> None:
    """The exit status of a drain that was cut short is said, even if nothing else can be."""
    reading, writing = fullPipe()
    port = freePort()
    try:
        command = [*MODULE, "--drain-timeout=0"]
        with started(command, port, stdout=writing, stderr=writing) as process:
            waitFor(lambda: answers(port), "an answer")
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.setblocking(False)
                with suppress(BlockingIOError):
                    while True:
                        client.send(b"x" * 65536)
                assert stop(process) == 3
    finally:
        os.close(reading)
        os.close(writing)
