"""Behind a proxy that tells of its clients (PROXY protocol): a real daemon, its log and its end."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import Certificates
from tests.integration.daemon import (
    MODULE,
    PATIENCE,
    TWISTD,
    exchange,
    receiveAll,
    waitFor,
)
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.loaded import runLoaded
from tests.integration.peers import (
    assertUnharmed,
    connect,
    noise,
    ping,
    reset,
    waitForCounters,
    waitForDescriptors,
)
from tests.unit.proxyheaders import (
    ASKED,
    AUTHORITY,
    CLIENT,
    DGRAM,
    LOCAL,
    formatTLV,
    formatV1,
    formatV2,
)

V1 = formatV1(CLIENT, ASKED)
V2 = formatV2(CLIENT, ASKED, [formatTLV(AUTHORITY, b"echo.example")], checksum=1)

#: Seconds that a daemon on a busy machine may take besides its deadlines.
GRACE = 4.0
#: Proxies are at 127.0.0.1; nobody else in 127.0.0.0/8 is one.
TRUSTED = 'proxy = ["127.0.0.1", "::1"]'


def listener(
    protocol: str = "raw", endpoint: str = "tcp:0", more: str = "", proxy: str = TRUSTED
) -> str:
    """A ``[[listener]]`` table."""
    return f"[[listener]]\nprotocol = '{protocol}'\nendpoint = '{endpoint}'\n{proxy}\n{more}\n"


@contextmanager
def serving(folder: Path, *tables: str, top: str = "") -> Iterator[Daemon]:
    """A daemon with that file, which must live through the block."""
    path = folder / "echod.toml"
    path.write_text("\n".join([top, *(tables or [listener()])]))
    with Daemon("--config", str(path)) as daemon:
        yield daemon
        assert daemon.process.poll() in (None, 0)
        assert [line for line in daemon.lines if "Traceback" in line or "#critical" in line] == []


def open_(daemon: Daemon, header: bytes = V1, protocol: str = "raw") -> socket.socket:
    """A connection that has been served once behind a header."""
    client = connect(daemon, protocol)
    client.sendall(header)
    ping(client)
    return client


@pytest.mark.parametrize("size", [0, 1, 5, 65536, 65537, 3_000_000])
def test_everyByteComesBack(tmp_path: Path, size: int) -> None:
    """E1, P6: header, data and FIN at once, fifty times; all of it comes back."""
    data = noise(size)
    with serving(tmp_path) as daemon:
        count = 50 if size <= 65537 else 4
        for number in range(count):
            assert exchange(connect(daemon), (V1, V2)[number % 2] + data) == data
        counters = waitForCounters(daemon, open=0)
        assert counters["closed"] == {"eof": count}
        assert counters["bytes_in"] == counters["bytes_out"] == count * size
        assertUnharmed(daemon)
        assert daemon.stop() == 0


def test_beforeTLS(tmp_path: Path, certificates: Certificates) -> None:
    """P5: the header comes before the handshake, in pieces or not; both are told of."""
    table = listener("whoami", f"tls:0:cert={certificates.server}")
    with serving(tmp_path, table) as daemon:
        for header in (V1, V2):
            for pieces in ([header], [header[:9], header[9:]]):
                client = connect(daemon, "whoami")
                for piece in pieces:
                    client.sendall(piece)
                with certificates.context().wrap_socket(
                    client, server_hostname="localhost"
                ) as secured:
                    facts = json.loads(receiveAll(secured))
                assert facts["peer"] == "192.0.2.7:40000"
                assert facts["proxy"]["peer"].startswith("127.0.0.1:")
                assert facts["tls"]["version"] == "TLSv1.3"
        # TLS at once is no header; nor is one after it.
        with connect(daemon, "whoami") as client, pytest.raises((ssl.SSLError, OSError)):
            certificates.context().wrap_socket(client, server_hostname="localhost")
        counters = waitForCounters(daemon, "whoami", open=0)
        assert counters["closed"]["header"] == 1
        assertServed(daemon, "header=1")


def assertServed(daemon: Daemon, refused: str) -> None:
    """It has told of whom it refused, and has no other complaint."""
    daemon.waitForLine(refused)
    assert [line for line in daemon.lines if "#warn" in line and " refused " not in line] == []


def test_overUNIX(tmp_path: Path) -> None:
    """P1: whoever may connect to a UNIX socket must send a header, whatever the networks."""
    path = tmp_path / "echod.sock"
    networks = 'proxy = ["192.0.2.99"]\nmax_per_source = 1'
    with serving(
        tmp_path,
        listener("whoami", f"unix:{path}:mode=600", proxy=networks),
        top="log_connections = true",
    ) as daemon:

        def told(start: bytes) -> bytes:
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(PATIENCE)
            client.connect(str(path))
            return exchange(client, start)

        facts = json.loads(told(V2))
        assert (facts["peer"], facts["proxy"]["authority"]) == ("192.0.2.7:40000", "echo.example")
        assert facts["credentials"]["process"] == os.getpid()
        assert json.loads(told(formatV2(command=LOCAL)))["transport"] == "unix"
        assert told(b"hello") == b""
        assert f"opened whoami unix {path} (proxy) id=" in daemon.waitForLine(
            " peer=192.0.2.7:40000"
        )
        assert waitForCounters(daemon, "whoami", open=0)["closed"] == {"quit": 2, "header": 1}
        me = f"process={os.getpid()},user={os.geteuid()},group={os.getegid()}"
        assert f"opened whoami unix {path} (proxy) id=" in daemon.waitForLine(f" peer={me}")


def test_untrusted(tmp_path: Path) -> None:
    """P1: 500 strangers get not a byte, and a line a second; the proxy is served meanwhile."""
    with serving(tmp_path) as daemon:
        port = daemon.ports["raw"]
        began = time.monotonic()
        for number in range(500):
            address = ("127.0.0.1", port)
            with socket.create_connection(address, PATIENCE, ("127.0.0.2", 0)) as stranger:
                try:
                    stranger.sendall((V1, V2, b"hello", b"")[number % 4])
                    assert stranger.recv(10) == b""
                except (ConnectionResetError, BrokenPipeError):
                    pass
            if number % 100 == 0:
                open_(daemon).close()
        waitForCounters(daemon, refused={"untrusted": 500})
        assert daemon.counters()["raw"]["accepted"] == 5
        daemon.waitForLine("refused raw tcp")
        told = [line for line in daemon.lines if "untrusted" in line and "counters" not in line]
        assert 1 <= len(told) <= time.monotonic() - began + 2
        assert f"refused raw tcp 127.0.0.1:{port} (proxy) untrusted=" in told[0]
        open_(daemon).close()


def test_withoutProxies(tmp_path: Path) -> None:
    """P1: a listener that knows of none echoes a header as it echoes anything."""
    with serving(tmp_path, listener(proxy=""), listener("line", proxy="")) as daemon:
        for header in (V1, V2):
            assert exchange(connect(daemon), header) == header
        assert exchange(connect(daemon, "line"), V1) == V1
        assert " (proxy)" not in "".join(daemon.lines)


def test_wrongHeaders(tmp_path: Path) -> None:
    """P3, P4, O5: whatever comes is refused in silence but for one line a second."""
    wrong = [
        *(b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 evil\x1b[31mhost 192.0.2.2 1 1\r\n"),
        *(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n", b"PROXY TCP4 \xff\xfe 1 1 1\r\n"),
        *(b"PROXY UNKNOWN " + b"x" * 60_000, V2[:12] + b"\x31" + V2[13:], V2[:-1] + b"\xff"),
        *(formatV2(CLIENT, ASKED, length=60_000), formatV2(CLIENT, ASKED, transport=DGRAM)),
        formatV2(CLIENT, ASKED, [formatTLV(AUTHORITY, b"\x1b[31m")]),
    ]
    with serving(tmp_path, top="log_connections = true") as daemon:
        baseline = daemon.descriptors()
        for data in wrong * 20:
            client = connect(daemon)
            client.sendall(data)
            with client:
                assert client.recv(100) == b""
        counters = waitForCounters(daemon, open=0)
        assert counters["closed"] == {"header": 20 * len(wrong)}
        assert counters["bytes_out"] == counters["aborted"] == 0
        assert exchange(connect(daemon), V1 + b"hello") == b"hello"
        waitForDescriptors(daemon, baseline)
        daemon.waitForLine(" header=")
        assert all(line.isprintable() for line in daemon.lines)
        assert [line for line in daemon.lines if "#warn" in line and " header=" not in line] == []


def test_deadline(tmp_path: Path) -> None:
    """P2: fifty that never say all are cut at ``handshake_timeout``, and cost nothing till then."""
    with serving(tmp_path, listener(more="handshake_timeout = 3")) as daemon:
        clients = [connect(daemon) for _ in range(50)]
        for number, client in enumerate(clients):
            client.sendall((b"", V1[:20], V2[:20], V1[:-1], V2[:-1])[number % 5])
        waitForCounters(daemon, open=50)
        began, before = time.monotonic(), daemon.cpu()
        for client in clients:
            with client, pytest.raises(ConnectionResetError):
                client.recv(1)
        seconds, used = time.monotonic() - began, daemon.cpu() - before
        assert 2.5 < seconds < 3 + GRACE
        assert used < 0.2 * seconds
        assert waitForCounters(daemon, open=0)["closed"] == {"handshake": 50}
        assertServed(daemon, "handshake=")


def test_clientsCount(tmp_path: Path) -> None:
    """F11: limits, networks and the log are about clients, whatever proxy brings them."""
    table = listener(more='max_per_source = 2\ndeny = ["192.0.2.9", "127.0.0.1"]')
    with serving(tmp_path, table, top="log_connections = true") as daemon:
        other = formatV1(("192.0.2.8", 1), ASKED)
        clients = [open_(daemon), open_(daemon, V2), open_(daemon, other)]
        for header in (V1, formatV1(("192.0.2.9", 1), ASKED), b"PROXY UNKNOWN\r\n"):
            with connect(daemon) as refused:
                refused.sendall(header)
                with pytest.raises(ConnectionResetError):
                    refused.recv(1)
        counters = waitForCounters(daemon, open=3)
        assert counters["refused"] == {"source_full": 1, "denied": 2}
        assert counters["closed"] == {"refused": 3}
        clients.pop(0).close()
        waitForCounters(daemon, open=2)
        clients.append(open_(daemon))
        for client in clients:
            client.close()
        counters = waitForCounters(daemon, open=0)
        assert counters["accepted"] == sum(counters["closed"].values()) == 7
        opened = [line.rpartition("=")[2] for line in daemon.lines if " opened raw" in line]
        assert opened == ["192.0.2.7:40000"] * 2 + ["192.0.2.8:1", "192.0.2.7:40000"]


def test_chaos(tmp_path: Path, certificates: Certificates) -> None:
    """C3, C6, O4: 600 connections that end anyhow, at any stage; every counter agrees."""
    choose = random.Random(8)
    limits = "max_connections = 40\nhandshake_timeout = 2"
    secured = listener("line", f"tls:0:cert={certificates.server}", limits)
    with serving(tmp_path, listener(more=limits), secured) as daemon:
        baseline = daemon.descriptors()
        kept: list[socket.socket] = []
        for number in range(600):
            client = connect(daemon, ("raw", "line")[number % 2])
            header = choose.choice((V1, V2, b"nonsense"))
            try:
                client.sendall((header + noise(9))[: choose.randrange(len(header) + 9)])
            except (ConnectionResetError, BrokenPipeError):
                client.close()
                continue
            kept.append(client)
            if len(kept) > 30:
                choose.shuffle(kept)
                for client in kept[20:]:
                    choose.choice((reset, socket.socket.close))(client)
                del kept[20:]
        for client in kept:
            client.close()
        for protocol in ("raw", "line"):
            counters = waitForCounters(daemon, protocol, open=0)
            assert counters["accepted"] == sum(counters["closed"].values())
            turnedAway = counters["refused"].get("full", 0)
            assert counters["accepted"] + turnedAway == 300
            assert "error" not in counters["closed"]
        waitForDescriptors(daemon, baseline)
        assert exchange(connect(daemon), V1 + b"hello") == b"hello"


def test_drain(tmp_path: Path) -> None:
    """
    O1: what the kernel held at SIGTERM is answered behind its header; the silent end at once, and
    half a header has its deadline; nobody was owed anything in the end.
    """
    with serving(tmp_path, listener(more="handshake_timeout = 4")) as daemon:
        silent, half, never = (connect(daemon) for _ in range(3))
        quiet = open_(daemon)
        half.sendall(V2[:20])
        never.sendall(V1[:20])
        waitForCounters(daemon, open=4)
        daemon.signal(signal.SIGSTOP)
        try:
            unread = connect(daemon)
            unread.sendall(V1 + b"hello")
            daemon.signal(signal.SIGTERM)
        finally:
            daemon.signal(signal.SIGCONT)
        assert receiveAll(unread) == b"hello"
        assert receiveAll(silent) == receiveAll(quiet) == b""
        half.sendall(V2[20:] + b"late")
        assert receiveAll(half) == b"late"
        with pytest.raises(ConnectionResetError):
            never.recv(1)
        for client in (silent, half, never, quiet, unread):
            client.close()
        assert daemon.wait() == 0


def test_drainDeadline(tmp_path: Path) -> None:
    """O1: half a header holds nothing up beyond ``drain_timeout``, and is owed nothing."""
    path = tmp_path / "echod.toml"
    path.write_text(f"drain_timeout = 1\n{listener()}")
    with Daemon("--config", str(path)) as daemon, connect(daemon) as half:
        half.sendall(V2[:20])
        waitForCounters(daemon, open=1)
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 1 + GRACE


def test_datagrams(tmp_path: Path) -> None:
    """P1, P4, E7: each datagram has a header, its client's address counts, its answer has none."""
    table = listener("udp", "udp:0", 'deny = ["192.0.2.9"]', 'proxy = ["127.0.0.1"]')
    header = formatV2(CLIENT, ASKED, transport=DGRAM)
    denied = formatV2(("192.0.2.9", 1), ASKED, transport=DGRAM)
    with (
        serving(tmp_path, table) as daemon,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as proxy,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        there = ("127.0.0.1", daemon.ports["udp/udp"])
        stranger.bind(("127.0.0.2", 0))
        stranger.sendto(header + b"x", there)
        proxy.settimeout(PATIENCE)
        for data in (b"no header", V1 + b"x", header[:-1], denied + b"x"):
            proxy.sendto(data, there)
        for payload in (b"hello", b"", noise(60_000), header):
            proxy.sendto(header + payload, there)
            assert proxy.recvfrom(1 << 17) == (payload, there)
        counters = daemon.counters()["udp"]
        assert counters["refused"] == {"untrusted": 1, "header": 3, "denied": 1}
        assert counters["datagrams_out"] == 4
        assert f"listening udp udp 127.0.0.1:{there[1]} (proxy)" in "".join(daemon.lines)


def test_reload(tmp_path: Path, certificates: Certificates) -> None:
    """
    SIGHUP: other proxies, or none, for those who come from then on; whoever is in the middle of a
    header goes on with it.  A certificate that is read again changes nothing about headers.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp:{taken.getsockname()[1]}"
    secured = listener("whoami", f"tls:0:cert={certificates.server}")

    def reload(proxy: str) -> None:
        table = listener(endpoint=endpoint, proxy=proxy, more="max_per_source = 1")
        (tmp_path / "echod.toml").write_text("\n".join([table, secured]))
        seen = len(daemon.lines)
        daemon.signal(signal.SIGHUP)
        daemon.waitForLine("reloaded: 0 listeners are new, 1 changed, 0 gone", seen)

    table = listener(endpoint=endpoint, proxy='proxy = ["127.0.0.2"]', more="max_per_source = 1")
    with serving(tmp_path, table, secured) as daemon:
        with connect(daemon) as stranger:
            assert stranger.recv(1) == b""
        reload(TRUSTED)
        half = connect(daemon)
        half.sendall(V2[:20])
        waitForCounters(daemon, open=1)
        reload("")
        assert exchange(connect(daemon), V1) == V1
        half.sendall(V2[20:])
        ping(half)
        half.close()
        counters = waitForCounters(daemon, open=0)
        assert counters["refused"] == {"untrusted": 1}
        assert counters["accepted"] == sum(counters["closed"].values()) == 2
        client = connect(daemon, "whoami")
        client.sendall(V1)
        with certificates.context().wrap_socket(client, server_hostname="localhost") as tls:
            assert json.loads(receiveAll(tls))["peer"] == "192.0.2.7:40000"


# -- Configuration ---------------------------------------------------------------------------------


BROKEN = {
    "bits": ('proxy = ["10.0.0.1/8"]', "$.listener[0].proxy: '10.0.0.1/8' is no network"),
    "name": ('proxy = ["::1", "localhost"]', "$.listener[0].proxy: 'localhost' is no network"),
    "empty": ('proxy = [""]', "$.listener[0].proxy: '' is no network"),
    "text": ('proxy = "10.0.0.0/8"', "$.listener[0].proxy: "),
    "number": ("proxy = [1]", "$.listener[0].proxy[0]: "),
    "flag": ("proxy = true", "$.listener[0].proxy: "),
    "deadline": ("handshake_timeout = 0", "$.listener[0].handshake_timeout: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_brokenFiles(tmp_path: Path, name: str) -> None:
    """O3: one line that names the place, exit status 1; both commands."""
    wrong, place = BROKEN[name]
    path = tmp_path / "echod.toml"
    path.write_text(listener(proxy=wrong))
    for ended in _both("--config", str(path)):
        assert ended.returncode == 1
        assert ended.stdout == ""
        (line,) = ended.stderr.splitlines()
        assert line.startswith(f"echod: {path}: {place}")


def _both(*arguments: str) -> list[subprocess.CompletedProcess[str]]:
    return [runLoaded(*arguments, command=command) for command in (TWISTD, MODULE)]


def test_notOfDefaults(tmp_path: Path) -> None:
    """Who is trusted is said for each listener, never for all of them."""
    path = tmp_path / "echod.toml"
    path.write_text(f"[defaults]\n{TRUSTED}\n")
    ended = runLoaded("--config", str(path), command=MODULE)
    assert ended.returncode == 1
    assert f"{path}: $.defaults: " in ended.stderr


def test_checkConfig(tmp_path: Path, certificates: Certificates) -> None:
    """O6: what would listen, with TLS and headers, in the words that are logged at start."""
    path = tmp_path / "echod.toml"
    tables = [
        listener(),
        listener("line", f"tls:0:cert={certificates.server}"),
        listener("raw", f"tls:1234:cert={certificates.server}", proxy=""),
        listener("raw", f"unix:{tmp_path}/echod.sock"),
        listener("udp", "udp:0"),
        listener("dns", "tcp:0", proxy=""),
    ]
    path.write_text("\n".join(tables))
    ended = runLoaded("--config", str(path), "--check-config", command=MODULE)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        "would listen raw tcp 127.0.0.1:0 (proxy)",
        "would listen line tcp 127.0.0.1:0 (tls, proxy)",
        "would listen raw tcp 127.0.0.1:1234 (tls)",
        f"would listen raw unix {tmp_path}/echod.sock (proxy)",
        "would listen udp udp 127.0.0.1:0 (proxy)",
        "would listen dns tcp 127.0.0.1:0",
    ]


def test_bothFamilies(tmp_path: Path) -> None:
    """An IPv4 proxy at an IPv6 socket is the same proxy."""
    table = listener(endpoint=r"tcp:0:interface=\:\:", proxy='proxy = ["127.0.0.1"]')
    with serving(tmp_path, table) as daemon:
        port = daemon.ports["raw"]
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as four:
            four.sendall(V1)
            ping(four)
        with socket.create_connection(("::1", port), PATIENCE) as six:
            assert six.recv(1) == b""
        waitFor(lambda: daemon.counters()["raw"]["refused"] == {"untrusted": 1})
