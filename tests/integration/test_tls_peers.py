"""TLS with peers of other making: OpenSSL's s_client, GnuTLS, socat, Ncat, curl, Python's ssl."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.certificates import Certificates
from tests.integration.daemon import PATIENCE, waitFor
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.peers import (
    HARM,
    assertUnharmed,
    configured,
    connect,
    exchangeAtOnce,
    exchangeInTurns,
    needs,
    noise,
    receiveExactly,
    waitForCounters,
    wrongOfFifty,
)

VERSIONS = ["1.2", "1.3"]
versions = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Daemon]:
    """For clients that do nothing wrong: none is refused, broken or owed anything."""
    files = {"cert": certificates.server, "ca": certificates.ca, "client_auth": "optional"}
    names = {
        "other.example": {"cert": certificates.other},
        "*.wild.example": {"cert": certificates.other},
    }
    config = configured(
        tmp_path_factory.mktemp("tls"),
        {"protocol": "raw", "endpoint": "tcp:0", "tls": {**files, "names": names}},
        {"protocol": "whoami", "endpoint": "tcp:0", "tls": {**files, "tickets": True}},
        {"protocol": "line", "endpoint": "tcp:0", "tls": files, "options": {"quit": "quit"}},
    )
    with Daemon(config) as daemon:
        yield daemon
        for counters in daemon.counters().values():
            assert (counters["refused"], counters["aborted"], counters["cut"]) == ({}, 0, 0)
            assert counters["closed"].keys() <= {"eof", "quit", "no_close_notify"}
        assertUnharmed(daemon)
        assert daemon.stop() == 0


@pytest.fixture(scope="module")
def strict(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Daemon]:
    """For clients that are refused: a line a second says so, and nothing else is wrong."""
    required = {"cert": certificates.server, "ca": certificates.ca, "client_auth": "require"}
    latest = {"cert": certificates.server, "minimum_version": "1.3"}
    config = configured(
        tmp_path_factory.mktemp("strict"),
        {"protocol": "raw", "endpoint": "tcp:0", "tls": {"cert": certificates.server}},
        {"protocol": "line", "endpoint": "tcp:0", "tls": required},
        {"protocol": "upper", "endpoint": "tcp:0", "tls": latest},
        log_connections=True,
    )
    with Daemon(config) as daemon:
        yield daemon
        for counters in daemon.counters().values():
            assert (counters["aborted"], counters["cut"]) == (0, 0)
        assertUnharmed(daemon, HARM)
        assert daemon.stop() == 0


def closedSince(daemon: Daemon, protocol: str, before: dict[str, Any]) -> dict[str, int]:
    """Why connections have ended since, once none is left."""
    after = waitForCounters(daemon, protocol, open=0)
    return dict(Counter(after["closed"]) - Counter(before["closed"]))


# -- s_client --------------------------------------------------------------------------------


def sClient(daemon: Daemon, protocol: str, certificates: Certificates, *words: str) -> list[str]:
    """Its command line, for a server that must be verified."""
    return [
        *["openssl", "s_client", "-connect", f"127.0.0.1:{daemon.ports[protocol]}"],
        *["-CAfile", certificates.ca, "-verify_return_error", "-no_ign_eof", "-brief", *words],
    ]


class Typed:
    """
    A client that somebody types at.

    :ivar errors: what it said besides, once it has ended.
    """

    def __init__(self, command: list[str]) -> None:
        self.errors = ""
        self._said: list[str] = []
        # How many of them were waited for.
        self._heard = 0
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._listener = threading.Thread(target=self._listen)
        # Then whoever reads of it reads EOF.
        self._deadline = threading.Timer(PATIENCE, self._process.kill)

    def __enter__(self) -> Typed:
        self._process.__enter__()
        self._listener.start()
        self._deadline.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._deadline.cancel()
        self._process.kill()
        self._listener.join()
        self._process.__exit__(None, None, None)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line.decode())

    def type(self, text: bytes) -> None:
        """Into its standard input, in one write."""
        stdin: IO[bytes] | None = self._process.stdin
        assert stdin is not None
        stdin.write(text)
        stdin.flush()

    def read(self, size: int) -> bytes:
        """Of its standard output."""
        stdout: IO[bytes] | None = self._process.stdout
        assert stdout is not None
        return stdout.read(size)

    def waitFor(self, line: str) -> None:
        """It says so on standard error, once more."""
        waitFor(lambda: line in self._said[self._heard :], f"{line!r} from the client")
        self._heard = self._said.index(line, self._heard) + 1

    def finish(self) -> tuple[bytes, int]:
        """End its input; what it still printed, and its status."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        return self.ended()

    def ended(self) -> tuple[bytes, int]:
        """What it still printed, and its status."""
        assert self._process.stdout is not None
        rest = self._process.stdout.read()
        status = self._process.wait(PATIENCE)
        self._listener.join()
        self.errors = "".join(self._said)
        return rest, status


@versions
@needs("openssl")
def test_openssl(daemon: Daemon, certificates: Certificates, version: str) -> None:
    """L1: s_client verifies us, is echoed what it types, and its close_notify is a clean end."""
    before = waitForCounters(daemon, "raw", open=0)
    words = ["-servername", "localhost", "-verify_hostname", "localhost", "-alpn", "echo"]
    option = f"-tls{version.replace('.', '_')}"
    with Typed(sClient(daemon, "raw", certificates, *words, option)) as client:
        for text in (b"hello\n", b"\0\xff\n", noise(10_000)):
            client.type(text)
            assert client.read(len(text)) == text
        assert client.finish() == (b"", 0)
    assert f"Protocol version: TLSv{version}\n" in client.errors
    assert "Verification: OK\n" in client.errors
    assert "Verified peername: localhost\n" in client.errors
    assert closedSince(daemon, "raw", before) == {"eof": 1}


@versions
@needs("openssl")
def test_opensslIsEnded(daemon: Daemon, certificates: Certificates, version: str) -> None:
    """L1: our end is close_notify: without it s_client says "unexpected eof", with status 1."""
    before = waitForCounters(daemon, "line", open=0)
    option = f"-tls{version.replace('.', '_')}"
    with Typed(sClient(daemon, "line", certificates, option)) as client:
        client.type(b"hello\nquit\nnever answered\n")
        assert client.ended() == (b"hello\nBye.\n", 0)
    assert "unexpected eof" not in client.errors
    assert closedSince(daemon, "line", before) == {"quit": 1}


@needs("openssl")
def test_drain(certificates: Certificates) -> None:
    """O1, L1: SIGTERM ends an idle s_client with close_notify, after all that it was owed."""
    endpoint = f"raw=tls:0:cert={certificates.server}"
    with Daemon("--listen", endpoint) as daemon:
        with Typed(sClient(daemon, "raw", certificates)) as client:
            client.type(b"hello\n")
            assert client.read(6) == b"hello\n"
            assert daemon.stop() == 0
            assert client.ended() == (b"", 0)
        assert "unexpected eof" not in client.errors


@needs("openssl")
def test_keyUpdate(daemon: Daemon, certificates: Certificates) -> None:
    """RFC 8446 4.6.3: s_client's K (both sides') and k (its own) change keys; nothing is lost."""
    before = waitForCounters(daemon, "raw", open=0)
    with Typed(sClient(daemon, "raw", certificates, "-tls1_3")) as client:
        for command in (b"K\n", b"k\n", b"K\n"):
            client.type(b"before\n")
            assert client.read(7) == b"before\n"
            # A command is one only where a read of its input begins.
            client.type(command)
            client.waitFor("KEYUPDATE\n")
            client.type(b"after\n")
            assert client.read(6) == b"after\n"
        assert client.finish() == (b"", 0)
    assert closedSince(daemon, "raw", before) == {"eof": 1}


@needs("openssl")
def test_renegotiation(strict: Daemon, certificates: Certificates) -> None:
    """RFC 9325 3.5: s_client's R is answered no_renegotiation, in TLS 1.2."""
    before = waitForCounters(strict, "raw", open=0)
    with Typed(sClient(strict, "raw", certificates, "-tls1_2")) as client:
        client.type(b"before\n")
        assert client.read(7) == b"before\n"
        client.type(b"R\n")
        assert client.ended() == (b"", 1)
    assert "RENEGOTIATING" in client.errors
    assert "no renegotiation" in client.errors
    assert closedSince(strict, "raw", before) == {"tls": 1}


@needs("openssl")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("other.example", "other.example"),
        ("OTHER.example", "other.example"),
        ("a.wild.example", "a.wild.example"),
        ("localhost", "localhost"),
        ("unknown.example", "localhost"),
        ("", "localhost"),
    ],
)
def test_serverName(daemon: Daemon, certificates: Certificates, name: str, shown: str) -> None:
    """RFC 6066 3: the certificate is the one for the name, or the listener's own."""
    asked = ["-servername", name] if name else ["-noservername"]
    command = sClient(daemon, "raw", certificates, *asked, "-verify_hostname", shown)
    with Typed(command) as client:
        client.type(b"x")
        assert client.read(1) == b"x"
        assert client.finish() == (b"", 0)
    assert f"Verified peername: {shown.replace('a.wild', '*.wild')}\n" in client.errors


#: What s_client is told, which alert it is sent (as it names it), and what our log says.
REFUSALS = {
    "an old version": (
        "raw",
        ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
        "alert protocol version",
        "UNSUPPORTED_PROTOCOL",
    ),
    "an older version than the listener's": (
        "upper",
        ["-tls1_2"],
        "alert protocol version",
        "UNSUPPORTED_PROTOCOL",
    ),
    "no forward secrecy": (
        "raw",
        ["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
        "alert handshake failure",
        "NO_SHARED_CIPHER",
    ),
    "no authenticated encryption": (
        "raw",
        ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"],
        "alert handshake failure",
        "NO_SHARED_CIPHER",
    ),
    "no certificate": (
        "line",
        [],
        "alert certificate required",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    ),
    "no certificate, TLS 1.2": (
        "line",
        ["-tls1_2"],
        "alert handshake failure",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    ),
    "another authority's certificate": (
        "line",
        ["-cert", "{stranger}"],
        "alert unknown ca",
        "unable to get local issuer certificate",
    ),
    "an expired certificate": (
        "line",
        ["-cert", "{expired}"],
        "alert certificate expired",
        "certificate has expired",
    ),
    "a certificate, not believed": (
        "raw",
        ["-CAfile", "{stranger}"],
        "certificate verify failed",
        "TLSV1_ALERT_UNKNOWN_CA",
    ),
}


@needs("openssl")
@pytest.mark.parametrize("kind", REFUSALS)
def test_refused(strict: Daemon, certificates: Certificates, kind: str) -> None:
    """RFC 8446 6.2: whoever is refused is told by the right alert, and the log tells why."""
    protocol, words, alert, failure = REFUSALS[kind]
    before = waitForCounters(strict, protocol, open=0)
    start = len(strict.lines)
    words = [word.format(**vars(certificates)) for word in words]
    with Typed(sClient(strict, protocol, certificates, *words)) as client:
        assert client.ended() == (b"", 1)
    assert alert in client.errors
    assert closedSince(strict, protocol, before) == {"tls": 1}
    line = strict.waitForLine(f"closed {protocol} ", start)
    assert line.endswith(f" reason=tls end=fin failure='{failure}'")


@needs("openssl")
@pytest.mark.parametrize("version", VERSIONS)
def test_resumption(
    daemon: Daemon, certificates: Certificates, version: str, tmp_path: Path
) -> None:
    """
    RFC 8446 2.2, RFC 5077: with ``tickets`` a session is resumed, and the client still known.

    Who it is comes from the certificate of the session's first connection.
    """
    file = str(tmp_path / "session")
    option = f"-tls{version.replace('.', '_')}"
    words = [option, "-cert", certificates.client, "-servername", "localhost"]
    subjects = []
    for how in ("-sess_out", "-sess_in"):
        command = sClient(daemon, "whoami", certificates, *words, how, file)
        command.remove("-brief")
        with Typed(command) as client:
            output, status = client.ended()
        assert status == 0
        kind = b"Reused" if how == "-sess_in" else b"New"
        assert f", TLSv{version}, Cipher is ".encode() in output.partition(kind)[2][:30]
        found = re.search(rb'{"peer":.*}\n', output)
        assert found is not None
        subjects.append(json.loads(found[0])["tls"]["subject"])
    assert subjects[0] == subjects[1]
    assert subjects[0].startswith("CN=alice,")


# -- Others ------------------------------------------------------------------------------------

#: Command lines of clients that send their input, then their end, and print until ours.
CLIENTS = {
    "gnutls-cli": [
        *["gnutls-cli", "--x509cafile={ca}", "--logfile=/dev/null", "--alpn=echo"],
        *["--priority=NORMAL:-VERS-ALL:+VERS-TLS{version}", "--port={port}", "localhost"],
    ],
    "socat": [
        *["socat", "-t", "30", "-"],
        (
            "OPENSSL:127.0.0.1:{port},cafile={ca},commonname=localhost"
            ",openssl-min-proto-version=TLS{version},openssl-max-proto-version=TLS{version}"
        ),
    ],
    "ncat": [
        *["ncat", "--ssl", "--ssl-verify", "--ssl-trustfile", "{ca}", "localhost", "{port}"],
    ],
}
#: How each ends: Ncat's FIN comes without close_notify, a truncation to TLS.
ENDS = {"gnutls-cli": "eof", "socat": "eof", "ncat": "no_close_notify"}


def command(name: str, port: int, certificates: Certificates, version: str = "1.3") -> list[str]:
    """The command line of a client."""
    return [word.format(port=port, ca=certificates.ca, version=version) for word in CLIENTS[name]]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        pytest.param("gnutls-cli", "1.2", marks=needs("gnutls-cli", "gnutls-bin")),
        pytest.param("gnutls-cli", "1.3", marks=needs("gnutls-cli", "gnutls-bin")),
        pytest.param("socat", "1.2", marks=needs("socat")),
        pytest.param("socat", "1.3", marks=needs("socat")),
        pytest.param("ncat", "1.3", marks=needs("ncat")),
    ],
)
def test_clients(daemon: Daemon, certificates: Certificates, name: str, version: str) -> None:
    """L1: whatever the client's end looks like, all of its bytes come back."""
    before = waitForCounters(daemon, "raw", open=0)
    # gnutls-cli prints byte by byte.
    sizes = [0, 6, 300_000]
    for size in sizes:
        data = noise(size)
        done = subprocess.run(
            command(name, daemon.ports["raw"], certificates, version),
            input=data,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stdout == data) == (0, True), done.stderr
    assert closedSince(daemon, "raw", before) == {ENDS[name]: len(sizes)}


SIZES = [0, 1, 5, 65536, 65537, 3_000_000]


@versions
def test_python(daemon: Daemon, certificates: Certificates, version: str) -> None:
    """``sendall``, recv and unwrap of blocking sockets: all came back, then the end."""
    before = waitForCounters(daemon, "raw", open=0)
    context = certificates.context(version)
    for size in SIZES:
        data = noise(size)
        assert exchangeInTurns(connect(daemon), context, data) == data
    assert closedSince(daemon, "raw", before) == {"eof": len(SIZES)}


@versions
def test_pythonAtOnce(daemon: Daemon, certificates: Certificates, version: str) -> None:
    """Bytes and close_notify in one segment: all comes back before our close_notify."""
    before = waitForCounters(daemon, "raw", open=0)
    context = certificates.context(version)
    for size in SIZES * 4:
        data = noise(size)
        assert exchangeAtOnce(connect(daemon), context, data) == data
    assert closedSince(daemon, "raw", before) == {"eof": 4 * len(SIZES)}


@versions
def test_drainAnswers(certificates: Certificates, version: str) -> None:
    """O1: what has come by the time of SIGTERM is answered, then close_notify and FIN."""
    data = noise(60_000)
    with Daemon("--listen", f"raw=tls:0:cert={certificates.server}") as daemon:
        context = certificates.context(version)
        with context.wrap_socket(connect(daemon), server_hostname="localhost") as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            daemon.signal(signal.SIGSTOP)
            client.sendall(data)
            daemon.signal(signal.SIGTERM)
            daemon.signal(signal.SIGCONT)
            assert receiveExactly(client, len(data)) == data
            assert client.unwrap().recv(1) == b""
        assert daemon.wait() == 0


def test_many(daemon: Daemon, certificates: Certificates) -> None:
    """O4: fifty at a time, each with its own bytes and version."""
    before = waitForCounters(daemon, "raw", open=0)

    def exchanged(number: int, data: bytes) -> bytes:
        return exchangeAtOnce(connect(daemon), certificates.context(VERSIONS[number % 2]), data)

    assert wrongOfFifty(exchanged) == []
    assert closedSince(daemon, "raw", before) == {"eof": 50}


# -- Who is there ------------------------------------------------------------------------------

#: Clients that print what they are told, and show a certificate.
ASKING = {
    "openssl": [
        *["openssl", "s_client", "-connect", "localhost:{port}", "-servername", "localhost"],
        *["-CAfile", "{ca}", "-verify_return_error", "-quiet", "-alpn", "h2,echo"],
        *["-cert", "{client}", "-tls{_version}"],
    ],
    "gnutls-cli": [
        *["gnutls-cli", "--x509cafile={ca}", "--logfile=/dev/null", "--alpn=h2", "--alpn=echo"],
        *["--x509certfile={client}", "--x509keyfile={client}"],
        *["--priority=NORMAL:-VERS-ALL:+VERS-TLS{version}", "--port={port}", "localhost"],
    ],
    "curl": [
        *["curl", "-sS", "--http0.9", "--cacert", "{ca}", "--cert", "{client}", "--no-alpn"],
        *["--tls-max", "{version}", "https://localhost:{port}/"],
    ],
}


@versions
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("openssl", marks=needs("openssl")),
        pytest.param("gnutls-cli", marks=needs("gnutls-cli", "gnutls-bin")),
        pytest.param("curl", marks=needs("curl")),
    ],
)
def test_whoami(daemon: Daemon, certificates: Certificates, name: str, version: str) -> None:
    """What was agreed on, and whose certificate was shown, as `whoami` tells it."""
    values = {
        **vars(certificates),
        "port": daemon.ports["whoami"],
        "version": version,
        "_version": version.replace(".", "_"),
    }
    done = subprocess.run(
        [word.format(**values) for word in ASKING[name]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["transport"] == "tcp"
    tls = facts["tls"]
    assert tls.pop("cipher").startswith("TLS_" if version == "1.3" else "ECDHE-ECDSA-")
    assert tls.pop("subject").startswith("CN=alice,")
    assert tls.pop("alpn", None) == (None if name == "curl" else "echo")
    assert tls == {
        "version": f"TLSv{version}",
        "server_name": "localhost",
        "names": ["email:alice@example.org"],
    }


@needs("curl")
def test_plainHTTP(strict: Daemon) -> None:
    """O4: curl that forgot the s of https: refused, counted, and nothing more."""
    before = waitForCounters(strict, "raw", open=0)
    start = len(strict.lines)
    done = subprocess.run(
        ["curl", "-sS", f"http://127.0.0.1:{strict.ports['raw']}/"],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (52, b"")
    assert closedSince(strict, "raw", before) == {"tls": 1}
    assert "failure='HTTP_REQUEST'" in strict.waitForLine("closed raw ", start)
