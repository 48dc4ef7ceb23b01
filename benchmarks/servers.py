"""Building and starting servers, seeing that they echo, and ending them whatever happens."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import os
import secrets
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from benchmarks.rows import PEERS, Pattern, Peer

__all__ = [
    "Children",
    "Server",
    "ServerError",
    "build",
    "checkEcho",
    "checkHalfClose",
    "commandOf",
    "missing",
    "secure",
]

HERE = Path(__file__).parent
#: How long a server may take to listen, and an echo to come back, in seconds.
PATIENCE = 15.0

_PR_SET_PDEATHSIG = 1
_LISTENER = {"raw": "--port", "line": "--line-port", "frame": "--dns-port"}
_DEBIAN = {"node": "nodejs", "go": "golang-go"}


class ServerError(Exception):
    """A server cannot be built or started, or does not echo; the message says why."""


class Children:
    """
    Every process that is started, each in a session of its own and pinned to one CPU.

    They end with `endAll`, at exit at the latest; and when this process is killed, the kernel
    kills them.
    """

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._prctl = ctypes.CDLL(None).prctl
        atexit.register(self.endAll)

    def start(
        self,
        command: list[str],
        cpu: int,
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
        folder: str = "",
    ) -> subprocess.Popen[bytes]:
        """Start it on that CPU, in that folder; the project's folder for none."""

        def prepare() -> None:
            os.sched_setaffinity(0, {cpu})
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

        process = subprocess.Popen(
            command,
            cwd=folder or HERE.parent,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509  # this process has one thread
        )
        self._processes.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End it and what it forked, now."""
        if process in self._processes:
            self._processes.remove(process)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def endAll(self) -> None:
        """End all that are left."""
        for process in list(self._processes):
            self.end(process)


def missing(peer: Peer) -> str | None:
    """Why it cannot be had here, or ``None`` if it can."""
    for need in peer.needs:
        kind, _, package = need.rpartition(":")
        if kind:
            if importlib.util.find_spec(package) is None:
                return f"the Python package {package} is not installed (the extra `bench` has it)"
        elif shutil.which(need) is None:
            return f"there is no {need} on the PATH (Debian's package: {_DEBIAN.get(need, need)})"
    return None


def build(folder: str) -> dict[str, str]:
    """
    Compile the load generator and the compiled servers into a folder.

    :returns: for each peer that could not be compiled, why.
    :raises ServerError: if the load generator cannot be compiled.
    """
    try:
        _gcc(f"{folder}/load", "load.c", "plain.c")
        _gcc(f"{folder}/epoll_echo", "epoll_echo.c")
    except FileNotFoundError as error:
        raise ServerError("the load generator needs gcc (Debian's package: gcc)") from error
    failures = {}
    if missing(PEERS["go"]) is None:
        try:
            _compile(
                ["go", "build", "-o", f"{folder}/echo_go", str(HERE / "peers" / "echo.go")],
                # A single file without a module: nothing is fetched.
                {"GO111MODULE": "off", "GOPROXY": "off", "GOCACHE": f"{folder}/go"},
            )
        except ServerError as error:
            failures["go"] = str(error)
    return failures


def secure(folder: str) -> str:
    """
    Make what rows with TLS need besides: a load generator over OpenSSL, and a certificate.

    The certificate is for 127.0.0.1, signed by itself, and lies with its key (ECDSA, P-256) in
    one file.

    :returns: the path of that file.
    :raises ServerError: saying what is missing.
    """
    try:
        _gcc(f"{folder}/load_tls", "load.c", "tls.c", "-lssl", "-lcrypto")
    except ServerError as error:
        if "fatal error: openssl/" in str(error):
            raise ServerError(
                "the load generator needs OpenSSL's headers (Debian's package: libssl-dev)"
            ) from error
        raise
    pem = f"{folder}/server.pem"
    words = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        " -subj /CN=echo -addext subjectAltName=IP:127.0.0.1"
    )
    try:
        _compile(["openssl", *words.split(), "-keyout", pem, "-out", pem])
    except FileNotFoundError as error:
        raise ServerError(
            "there is no openssl on the PATH to make a certificate (Debian's package: openssl)"
        ) from error
    return pem


def _gcc(program: str, *words: str) -> None:
    sources = [str(HERE / "csrc" / word) if word.endswith(".c") else word for word in words]
    _compile(["gcc", "-O2", "-Wall", "-o", program, *sources])


def _compile(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        raise ServerError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")


def commandOf(peer: Peer, pattern: Pattern, port: int, folder: str, pem: str = "") -> list[str]:
    """
    The words that start a peer on a port; `Peer.command` says what stands for what.

    :param pem: the certificate and its key, if it shall speak TLS.
    """
    values = {
        "python": sys.executable,
        "build": folder,
        "here": str(HERE),
        "port": str(port),
        "pattern": pattern,
        "listener": _LISTENER[pattern],
        "place": f"tls:{port}:interface=127.0.0.1:cert={pem}:key={pem}" if pem else str(port),
        "pem": pem,
    }
    return [made for word in peer.command if (made := word.format_map(values))]


class Server:
    """
    A peer that runs and listens; a context manager that ends it.

    :param children: starts it.
    :param peer: what to start; its pattern is that of the row.
    :param cpu: the CPU it is pinned to.
    :param options: more words for its command.
    :param pem: the certificate and its key, if it shall speak TLS.
    :ivar port: where it listens, on 127.0.0.1.
    :raises ServerError: if it does not listen within 15 seconds.
    """

    def __init__(
        self,
        children: Children,
        peer: Peer,
        pattern: Pattern,
        folder: str,
        cpu: int,
        options: tuple[str, ...] = (),
        pem: str = "",
    ) -> None:
        self.peer = peer
        self.port = _freePort()
        self._children = children
        self._log = open(f"{folder}/server-{self.port}.log", "w+b")  # noqa: SIM115  # closed by end
        try:
            self._process = children.start(
                [*commandOf(peer, pattern, self.port, folder, pem), *options],
                cpu,
                stdout=self._log,
                stderr=self._log,
                folder=peer.folder,
            )
        except OSError as error:
            self._log.close()
            raise ServerError(f"cannot be started: {error}") from error
        self.pid = self._process.pid
        try:
            self._waitForListening()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        """End it; a second call does nothing."""
        self._children.end(self._process)
        self._log.close()

    def lastWords(self) -> str:
        """The last line that it wrote, for messages; empty if it wrote none."""
        # Not by seeking: the server writes at the same position.
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), 4096, max(0, size - 4096)).decode(errors="replace")
        lines = text.strip().splitlines()
        return lines[-1][:200] if lines else ""

    def blame(self, error: Exception) -> str:
        """What to say about an error in its turn."""
        words = self.lastWords()
        ended = "; the server has ended" if self._process.poll() is not None else ""
        return f"{error}{ended}" + (f"; its last words: {words}" if words else "")

    def _waitForListening(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            if self._process.poll() is not None:
                raise ServerError(f"ended at once: {self.lastWords()}")
            if _connects(self.port):
                break
            if time.monotonic() > deadline:
                raise ServerError(f"does not listen: {self.lastWords()}")
            time.sleep(0.02)


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _freePort() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def message(pattern: Pattern, size: int) -> bytes:
    """One message of ``size`` bytes, random where the pattern leaves room."""
    if pattern == "raw":
        return secrets.token_bytes(size)
    body = secrets.token_hex(size)[: size - 2].encode()
    return body + b"\r\n" if pattern == "line" else len(body).to_bytes(2, "big") + body


def checkEcho(port: int, pattern: Pattern, size: int, pem: str = "") -> None:
    """
    See that about ``size`` bytes come back as they are, one message and many.

    :param pem: the certificate that the server must show, over TLS 1.3; plain TCP without.
    :raises ServerError: if they do not.
    """
    with _connection(port, pem) as client:
        _exchange(client, message(pattern, 64))
        _exchange(client, b"".join(message(pattern, 64) for _ in range(size // 64)))


def checkHalfClose(port: int) -> None:
    """
    See that 64 bytes with a FIN right behind them come back, and then EOF.

    :raises ServerError: if they do not, in any of ten tries.
    """
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            data = secrets.token_bytes(64)
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            echo = b""
            try:
                while more := client.recv(65536):
                    echo += more
            except OSError as error:
                raise ServerError(f"no EOF after half-close: {error}") from error
            if echo != data:
                raise ServerError(f"after half-close {len(echo)} of 64 bytes came back")


def _connection(port: int, pem: str) -> socket.socket:
    """Connected; over TLS 1.3, with a server that shows this certificate, if there is one."""
    client = socket.create_connection(("127.0.0.1", port), PATIENCE)
    if not pem:
        return client
    context = ssl.create_default_context(cafile=pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context.wrap_socket(client, server_hostname="127.0.0.1")


def _exchange(client: socket.socket, data: bytes) -> None:
    """Send while reading, and compare."""
    deadline = time.monotonic() + PATIENCE
    echo, sent = bytearray(), 0
    client.setblocking(False)
    while len(echo) < len(data):
        left = deadline - time.monotonic()
        writers = [client] if sent < len(data) else []
        readable, writable, _ = select.select([client], writers, [], max(0.0, left))
        if not (readable or writable):
            raise ServerError(f"of {len(data)} bytes {len(echo)} came back")
        # TLS may have nothing to show for what arrived: half a record, a ticket.
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if writable:
                sent += client.send(data[sent : sent + 65536])
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if readable:
                more = client.recv(65536)
                if not more:
                    raise ServerError(f"closed after {len(echo)} of {len(data)} bytes")
                echo += more
    if echo != data:
        raise ServerError("other bytes came back than were sent")
