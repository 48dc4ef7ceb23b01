"""TLS as a client over a network meets it: a real daemon, its files, its log, its end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from tests.certificates import Certificates
from tests.integration.daemon import MODULE, TWISTD, idle, waitFor
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.loaded import runLoaded
from tests.integration.peers import assertUnharmed, stall, waitForCounters
from tests.tlspeer import ALERT, DATA, HANDSHAKE, Peer, recordTypes
from tests.unit.proxyheaders import formatV2

KIB = 1024
#: What a connection with TLS may hold of user memory.
HELD = 512 * KIB

versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


#: What is sent again and again.
STREAM = noise(65_521)


def isStream(data: bytes) -> bool:
    return (STREAM * (len(data) // len(STREAM) + 1)).startswith(data)


def words(certificates: Certificates, protocol: str = "raw", more: str = "") -> list[str]:
    """Options for one listener."""
    return ["--listen", f"{protocol}=tls:0:interface=127.0.0.1:cert={certificates.server}{more}"]


@contextmanager
def serving(certificates: Certificates, *more: str) -> Iterator[Daemon]:
    """Raw echo over TLS, and no fault in the log in the end."""
    with Daemon(*words(certificates), *more, command=MODULE) as daemon:
        yield daemon
        assertUnharmed(daemon)


def connect(daemon: Daemon, context: ssl.SSLContext, protocol: str = "raw", **more: Any) -> Peer:
    """A client that has said nothing."""
    return Peer(("127.0.0.1", daemon.ports[protocol]), context, **more)


class Stuffed:
    """
    A client that sends and does not read.

    :ivar sent: bytes of plain text, the last record of which may not be out yet.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.client = peer.socket
        self.sent = 0
        self._pending = memoryview(b"")

    def sendSome(self) -> None:
        """Send some."""
        assert self.sent < 32 << 20, "nobody stops it"
        if not self._pending:
            self._pending = memoryview(self.peer.seal(STREAM))
            self.sent += len(STREAM)
        with suppress(BlockingIOError):
            self._pending = self._pending[self.client.send(self._pending) :]

    def finish(self) -> None:
        """Send the rest of it and close_notify, reading meanwhile."""
        self.peer.send(bytes(self._pending))
        self.peer.send(self.peer.closeNotify())


def stuff(*senders: Stuffed) -> None:
    """Have all send until nobody takes any more."""
    stall(senders, quiet=0.3)


# -- Bytes -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the daemon's UNIX socket is."""
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def daemon(certificates: Certificates, folder: Path) -> Iterator[Daemon]:
    """All protocols that speak, one of them behind a proxy, and one over UNIX sockets."""
    configuration = folder / "echod.toml"
    configuration.write_text(
        "".join(
            f"""
[[listener]]
protocol = "{protocol}"
endpoint = "{endpoint}"
{more}
[listener.tls]
cert = "{certificates.server}"
"""
            for protocol, endpoint, more in (
                ("raw", "tcp:0", ""),
                ("line", "tcp:0", "options = {quit = 'quit'}"),
                ("chargen", "tcp:0", ""),
                ("daytime", "tcp:0", ""),
                ("whoami", "tcp:0", "proxy = ['127.0.0.0/8']"),
                ("raw", f"unix:{folder}/raw.sock", ""),
            )
        )
    )
    with Daemon("--config", str(configuration)) as running:
        yield running
        assertUnharmed(running)


@versions
def test_oneWrite(daemon: Daemon, certificates: Certificates, version: str) -> None:
    """L1: data and close_notify in one write: all of it, close_notify, FIN."""
    for size in (0, 1, 5, 1000, 50_000, 65_536, 200_000, 3_000_000):
        with connect(daemon, certificates.context(version)) as peer:
            peer.shakeHands()
            data = noise(size)
            peer.send(peer.seal(data) + peer.closeNotify())
            assert peer.readAll() == data
            assert (peer.notified, peer.end, peer.alert) == (True, "FIN", "")


@versions
def test_lateReader(daemon: Daemon, certificates: Certificates, version: str) -> None:
    """A close_notify behind what fills our output: it comes, and the descriptor goes."""
    before = daemon.descriptors()
    with connect(daemon, certificates.context(version), buffers=65536) as peer:
        peer.shakeHands()
        sender = Stuffed(peer)
        stuff(sender)
        sender.finish()
        received = peer.readAll()
        assert (len(received), peer.notified, peer.end) == (sender.sent, True, "FIN")
        assert isStream(received)
    waitFor(lambda: daemon.descriptors() <= before)


def test_overUNIX(daemon: Daemon, folder: Path, certificates: Certificates) -> None:
    """TLS is the same over a UNIX socket."""
    with Peer(f"{folder}/raw.sock", certificates.context()) as peer:
        peer.shakeHands()
        data = noise(300_000)
        peer.send(peer.seal(data) + peer.closeNotify())
        assert peer.readAll() == data
        assert (peer.notified, peer.end) == (True, "FIN")


@versions
def test_wire(daemon: Daemon, certificates: Certificates, version: str) -> None:
    """Not a byte that is no record, whoever speaks, and whenever."""
    header = formatV2(("192.0.2.1", 1000), ("192.0.2.2", 443))
    for protocol, question, before in (
        ("raw", b"plain text" * 10_000, b""),
        ("line", b"plain text\nquit\n", b""),
        ("chargen", b"", b""),
        ("daytime", b"", b""),
        ("whoami", b"", header),
    ):
        with connect(daemon, certificates.context(version), protocol, header=before) as peer:
            peer.shakeHands()
            peer.send(peer.seal(question))
            said = peer.receiveExactly(len(question) or 20)
            if protocol != "line":
                peer.send(peer.closeNotify())
            said += peer.readAll()
            assert (peer.notified, peer.end) == (True, "FIN")
            wire = bytes(peer.wire)
            assert set(recordTypes(wire)) <= {20, ALERT, HANDSHAKE, DATA}
            assert b"plain text" not in wire
            assert said[:20] not in wire
            if protocol == "whoami":
                assert msgspec.json.decode(said)["peer"] == "192.0.2.1:1000"


# -- What costs what -------------------------------------------------------------------------------


def test_memoryOfFiftyThatNeverRead(certificates: Certificates) -> None:
    """C5: each costs < 512 KiB; others are answered; nobody spins; nothing is lost."""
    with ExitStack() as stack, serving(certificates) as daemon:
        context = certificates.context()
        peers = [stack.enter_context(connect(daemon, context, buffers=65536)) for _ in range(51)]
        for peer in peers:
            peer.shakeHands()
            peer.ping()
        *stalled, lively = peers
        before = daemon.memory()
        senders = [Stuffed(peer) for peer in stalled]
        stuff(*senders)
        waitFor(lambda: daemon.counters()["raw"]["pauses"] == len(stalled), "all of them pause")
        held = (daemon.memory() - before) / len(stalled)
        sys.stdout.write(f"a stalled client costs {held / KIB:.0f} KiB with TLS\n")
        assert held < HELD
        cpu = daemon.cpu()
        started = time.monotonic()
        for _ in range(20):
            lively.ping(STREAM[:1000])
        idle(max(0.0, started + 0.5 - time.monotonic()), "what it takes in half a second")
        assert daemon.cpu() - cpu < 0.25
        one = senders[0]
        one.finish()
        received = one.peer.readAll()
        assert (len(received), one.peer.notified) == (one.sent, True)
        assert isStream(received)


def test_memoryOfManyHandshakes(certificates: Certificates) -> None:
    """C5: connections that are gone leave nothing (TLS 1.3; 1.2 is remembered for resumption)."""
    with serving(certificates) as daemon:
        context = certificates.context("1.3")

        def some(count: int) -> None:
            for _ in range(count):
                with connect(daemon, context) as peer:
                    peer.shakeHands()
                    peer.send(peer.seal(b"hello") + peer.closeNotify())
                    assert peer.readAll() == b"hello"

        some(50)
        before = daemon.memory()
        some(200)
        grown = (daemon.memory() - before) / 200
        assert grown < 8 * KIB


@versions
def test_restIsQuiet(certificates: Certificates, version: str) -> None:
    """No state burns time: half-closed and not read, lingering, silent, failed, held by a rate."""
    configuration = ["--bytes-per-second=1000", "--linger-timeout=60", "--handshake-timeout=60"]
    context = certificates.context(version)
    with ExitStack() as stack, serving(certificates, *configuration) as daemon:

        def client(**more: Any) -> Peer:
            return stack.enter_context(connect(daemon, context, **more))

        client()
        client().socket.send(b"\x16\3\1")
        broken = client()
        broken.send(b"garbage" * 10)
        broken.readAll()
        held = client().shakeHands()
        held.send(held.seal(bytes(60_000)) + held.closeNotify(), reading=False)
        held.finish()
        waitFor(lambda: daemon.counters()["raw"]["bytes_in"] > 0, "a byte")
        before = daemon.cpu()
        idle(1, "what it takes in a second")
        assert daemon.cpu() - before < 0.1


# -- What goes wrong -------------------------------------------------------------------------------


def test_failuresAreCounted(certificates: Certificates) -> None:
    """O4, O5: whoever breaks TLS, however, is a count in one line a second, and no traceback."""
    garbage = [
        b"garbage" * 40,
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x16\3\1\xff\xff" + bytes(70_000),
        bytes(300_000),
    ]
    started = time.monotonic()
    with Daemon(*words(certificates), "--log-connections", command=MODULE) as daemon:
        for number in range(40):
            with connect(daemon, certificates.context()) as peer:
                peer.send(garbage[number % len(garbage)])
                peer.readAll()
                assert peer.end == "FIN"
        for number in range(40):
            with connect(daemon, certificates.context("1.2" if number % 2 else "1.3")) as peer:
                hello = peer.hello()
                peer.send(hello.replace(b"localhost", b"l\xff\xfealhost"))
                peer.readAll()
                assert recordTypes(bytes(peer.wire)) == [ALERT]
        for number in range(10):
            with connect(daemon, certificates.context("1.2" if number % 2 else "1.3")) as peer:
                peer.shakeHands()
                peer.ping()
                record = bytearray(peer.seal(b"spoilt"))
                record[-1] ^= 1
                peer.send(bytes(record))
                peer.readAll()
                assert (peer.end, peer.notified) == ("FIN", False)
                assert "ALERT" in peer.alert
        waitForCounters(daemon, closed={"tls": 90})
        daemon.waitForLine("] refused raw ")
        waitFor(lambda: _refusals(daemon) == 90, "ninety refusals in the log")
        lines = [line for line in daemon.lines if " refused " in line]
        assert len(lines) <= time.monotonic() - started + 2
        assert all(line.isprintable() for line in daemon.lines)
        faults = ("Traceback", "ignored", "Error", "raised", "#error", "#critical")
        assert not [line for line in daemon.lines if any(word in line for word in faults)]
        failures = {line.partition(" failure=")[2] for line in daemon.lines if " closed " in line}
        assert {"'HTTP_REQUEST'", "'CALLBACK_FAILED'", "'WRONG_VERSION_NUMBER'"} <= failures


def _refusals(daemon: Daemon) -> int:
    found = [
        line.partition(" tls=")[2].partition(" ")[0]
        for line in list(daemon.lines)
        if " refused " in line
    ]
    return sum(map(int, found))


def test_onlySomeVersionsAndClients(certificates: Certificates) -> None:
    """RFC 8446 section 4.2.1: too old, nobody, or no room: each is told by its end."""
    more = f":minimum_version=1.3:client_auth=require:ca={certificates.ca}"
    arguments = [*words(certificates, more=more), "--max-connections=1"]
    with Daemon(*arguments, command=MODULE) as daemon:
        for context, alert in (
            (certificates.context("1.2", certificates.client), "TLSV1_ALERT_PROTOCOL_VERSION"),
            (certificates.context("1.3"), "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
            (certificates.context("1.3", certificates.stranger), "TLSV1_ALERT_UNKNOWN_CA"),
        ):
            with connect(daemon, context) as peer:
                with suppress(ssl.SSLError):
                    peer.shakeHands()
                assert peer.readAll() == b""
                assert (peer.alert, peer.end) == (alert, "FIN")
            waitFor(lambda: not daemon.counters()["raw"]["open"], "the place")
        with connect(daemon, certificates.context("1.3", certificates.client)) as peer:
            peer.shakeHands()
            peer.ping()
            with connect(daemon, certificates.context("1.3", certificates.client)) as other:
                other.readAll()
                assert (other.end, bytes(other.wire)) == ("FIN", b"")
            peer.ping()
        assertUnharmed(daemon)


# -- Files -----------------------------------------------------------------------------------------


def _copies(certificates: Certificates, folder: Path, *names: str) -> list[str]:
    found = []
    for name in names:
        path = folder / f"{name}.pem"
        shutil.copy(getattr(certificates, name), path)
        path.chmod(0o600)
        found.append(str(path))
    return found


def test_refusedConfigurations(certificates: Certificates, tmp_path: Path) -> None:
    """O3: what cannot work is one line that names the place and the file, exit status 1."""
    server, other, ca, missing = (
        *_copies(certificates, tmp_path, "server", "other", "ca"),
        str(tmp_path / "missing.pem"),
    )
    text = Path(server).read_text()
    at = text.index("-----BEGIN CERTIFICATE")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text(text[at:])
    key.write_text(text[:at])
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    writable = tmp_path / "writable.pem"
    shutil.copy(server, writable)
    writable.chmod(0o666)
    none = tmp_path / "none.pem"
    none.write_text("no PEM\n")
    tables = [
        (f"cert = '{missing}'", f"tls: cannot read {missing}: "),
        (f"cert = '{certificates.expired}'", "tls: the certificate in "),
        (f"cert = '{certificates.early}'", "is valid only from "),
        (f"cert = '{cert}', key = '{other}'", f"the key in {other} is not that of "),
        (f"cert = '{cert}', key = '{locked}'", f"the key in {locked} has a passphrase: "),
        (f"cert = '{none}'", f"tls: {none} holds no certificate: "),
        (f"cert = '{cert}', key = '{none}'", f"cannot use the key in {none} with "),
        (f"cert = '{writable}'", f"anybody may write to {writable}: "),
        (f"cert = '{server}', ca = '{ca}'", "tls: client_auth 'optional' or 'require' and ca"),
        (f"cert = '{server}', client_auth = 'require'", "tls: client_auth 'optional' or "),
        (f"cert = '{server}', names = {{'a.b' = {{cert = '{missing}'}}}}", "cannot read "),
        (f"cert = '{server}', nonsense = 1", "tls: Object contains unknown field `nonsense`"),
    ]
    endpoints = [
        (f"tls:0:cert={server}", f"cert = '{server}'", "tls: cert is in tls:0:cert="),
        ("udp:0", f"cert = '{server}'", "tls: udp:0 is for datagrams; TLS is for streams"),
        *(("tcp:0", table, why) for table, why in tables),
    ]
    for number, (endpoint, table, why) in enumerate(endpoints):
        path = tmp_path / f"{number}.toml"
        protocol = "udp" if endpoint == "udp:0" else "raw"
        path.write_text(
            f"[[listener]]\nprotocol='{protocol}'\nendpoint='{endpoint}'\ntls={{{table}}}\n"
        )
        check = ["--check-config"] * (number % 2)
        command = TWISTD if number % 4 == 0 else MODULE
        ended = runLoaded("--config", str(path), *check, command=command)
        assert ended.returncode == 1, (why, ended)
        assert ended.stdout == ""
        (line,) = ended.stderr.splitlines()
        assert line.startswith(f"echod: {path}: $.listener[0].tls"), line
        assert why in line, line
        assert line.isprintable()


def test_notes(certificates: Certificates, tmp_path: Path) -> None:
    """A key that everybody may read is told, and used."""
    (server,) = _copies(certificates, tmp_path, "server")
    os.chmod(server, 0o644)
    note = f"--listen raw=tls:0:cert={server}: anybody may read the key {server}: chmod o-r it"
    arguments = ["--listen", f"raw=tls:0:cert={server}"]
    checked = runLoaded(*arguments, "--check-config", command=MODULE)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert f"note: {note}" in checked.stdout.splitlines()
    with Daemon(*arguments, command=MODULE) as daemon:
        assert daemon.waitForLine(note)
        assert daemon.waitForLine("listening raw tcp 127.0.0.1:").endswith(" (tls)")


def test_reload(certificates: Certificates, tmp_path: Path) -> None:
    """SIGHUP: new files for new connections, live ones go on; broken ones are one line."""
    (path,) = _copies(certificates, tmp_path, "server")
    context = certificates.context()
    context.check_hostname = False

    def names() -> set[str]:
        with connect(running, context) as peer:
            found: Any = peer.shakeHands().tls.getpeercert()
            return {value for _, value in found["subjectAltName"]}

    def hangUp(expected: str) -> str:
        start = len(running.lines)
        running.signal(signal.SIGHUP)
        return running.waitForLine(expected, start)

    running: Daemon
    with (
        Daemon("--listen", f"raw=tls:0:cert={path}", command=MODULE) as running,
        connect(running, context) as old,
    ):
        old.shakeHands()
        old.ping()
        shutil.copy(certificates.other, path)
        assert "localhost" in names()
        hangUp("reloaded: 0 listeners are new, 0 changed, 0 gone")
        assert "other.example" in names()
        Path(path).write_text("no PEM\n")
        assert hangUp(f"{path} holds no certificate").isprintable()
        assert "other.example" in names()
        old.ping(b"still there")
        assert len([one for one in running.lines if "holds no certificate" in one]) == 1
        assert not [one for one in running.lines if "Traceback" in one]


# -- The daemon's end ------------------------------------------------------------------------------


def draining(daemon: Daemon) -> None:
    daemon.signal()
    daemon.waitForLine(": draining")


@versions
def test_drain(certificates: Certificates, version: str) -> None:
    """O1: the idle, the silent, one in the middle: all that came is answered; exit 0."""
    context = certificates.context(version)
    with (
        Daemon(*words(certificates), "--log-connections", command=MODULE) as daemon,
        connect(daemon, context) as idle,
        connect(daemon, context) as silent,
        connect(daemon, context, buffers=65536) as busy,
    ):
        idle.shakeHands()
        idle.ping()
        busy.shakeHands()
        stuff(Stuffed(busy))
        before = daemon.counters()["raw"]["bytes_in"]
        draining(daemon)
        for peer in (idle, silent):
            assert peer.readAll() == b""
            assert peer.end == "FIN"
            peer.finish()
        assert idle.notified
        assert not silent.wire
        echoed = busy.readAll()
        assert isStream(echoed)
        assert len(echoed) >= before - 5
        assert (busy.notified, busy.end) == (True, "FIN")
        busy.finish()
        assert daemon.wait() == 0
        assert not [line for line in daemon.lines if "Traceback" in line]
        assert len([line for line in daemon.lines if " reason=drain end=fin" in line]) == 3


@versions
def test_drainOfOneThatNeverReads(certificates: Certificates, version: str) -> None:
    """O1: it is cut at the deadline, and the status says that somebody lost something."""
    context = certificates.context(version)
    with (
        Daemon(*words(certificates), "--drain-timeout=1", command=MODULE) as daemon,
        connect(daemon, context, buffers=65536) as peer,
    ):
        peer.shakeHands()
        stuff(Stuffed(peer))
        started = time.monotonic()
        assert daemon.stop() == 3
        assert 0.9 < time.monotonic() - started < 3
        peer.readAll()
        assert (peer.end, peer.notified) == ("RST", False)


def test_drainOfOneThatStopsInItsHandshake(certificates: Certificates) -> None:
    """O1: it is cut at the deadline too; nobody lost anything, so the status is 0."""
    with (
        Daemon(*words(certificates), "--drain-timeout=1", command=MODULE) as daemon,
        connect(daemon, certificates.context()) as peer,
    ):
        peer.send(peer.hello()[:100])
        waitFor(lambda: daemon.counters()["raw"]["open"], "a connection")
        started = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - started < 3


def test_drainOfTheQueue(certificates: Certificates) -> None:
    """O1: those whom nobody has accepted yet may shake hands, and are answered."""
    context = certificates.context("1.3")
    with ExitStack() as stack:
        daemon = stack.enter_context(Daemon(*words(certificates), command=MODULE))
        daemon.signal(signal.SIGSTOP)
        peers = [stack.enter_context(connect(daemon, context)) for _ in range(5)]
        for peer in peers:
            peer.send(peer.hello())
        daemon.signal()
        daemon.signal(signal.SIGCONT)
        for number, peer in enumerate(peers):
            finished: Callable[[], bytes] = peer._pump.records
            while True:
                try:
                    peer.tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    assert peer.end == ""
                    if not peer.receive():
                        peer.turn()
            peer._open = True
            data = noise(10_000 + number)
            peer.send(finished() + peer.seal(data))
            assert peer.readAll() == data
            assert (peer.notified, peer.end) == (True, "FIN")
            peer.finish()
        assert daemon.wait() == 0
