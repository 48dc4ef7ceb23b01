"""Behind proxies of other making: HAProxy, nginx, stunnel; and curl, which can play one."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Certificates
from tests.integration.daemon import PATIENCE, exchange, receiveAll, waitFor
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.peers import (
    HARM,
    assertUnharmed,
    configured,
    exchangeAtOnce,
    exchangeInTurns,
    needs,
    noise,
    pingAll,
    waitForCounters,
    wrongOfFifty,
)
from tests.integration.proxies import (
    DOOR,
    Proxy,
    haproxy,
    needsHAProxy,
    needsNginx,
    needsStunnel,
    nginx,
    stunnel,
)

LOCAL = ["127.0.0.0/8"]
SIZES = [0, 1, 5, 65536, 65537, 3_000_000]
versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


def hasIPv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


IPV6 = hasIPv6()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the daemon's UNIX sockets."""
    return tmp_path_factory.mktemp("proxied")


@pytest.fixture(scope="module")
def daemon(folder: Path, certificates: Certificates) -> Iterator[Daemon]:
    """Behind proxies that do nothing wrong: nobody is refused, broken or owed anything."""
    tls = {"cert": certificates.server, "ca": certificates.ca, "client_auth": "optional"}
    config = configured(
        folder,
        *[
            {"protocol": protocol, "endpoint": "tcp:0", **particular}
            for protocol in ("raw", "whoami")
            for particular in ({"proxy": LOCAL}, {"tls": tls}, {"proxy": LOCAL, "tls": tls})
        ],
        {"protocol": "line", "endpoint": "tcp:0", "proxy": LOCAL, "options": {"quit": "quit"}},
        {"protocol": "raw", "endpoint": f"unix:{folder}/raw.sock", "proxy": LOCAL},
        {"protocol": "whoami", "endpoint": f"unix:{folder}/whoami.sock", "proxy": LOCAL},
    )
    with Daemon(config) as daemon:
        yield daemon
        for counters in daemon.allCounters()["listeners"]:
            assert (counters["refused"], counters["aborted"], counters["cut"]) == ({}, 0, 0)
            assert counters["closed"].keys() <= {"eof", "quit", "no_close_notify", "reset"}
        assertUnharmed(daemon)
        assert daemon.stop() == 0


def closedSince(daemon: Daemon, listener: str, before: dict[str, Any]) -> dict[str, int]:
    """Why connections have ended since, once none is left."""
    after = waitForCounters(daemon, listener, open=0)
    return dict(Counter(after["closed"]) - Counter(before["closed"]))


def name(client: Any) -> str:
    """Where a socket is connected from, as `whoami` has it."""
    host, port = client.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ask(client: socket.socket) -> dict[str, Any]:
    """What `whoami` tells; the client says nothing, and ends when it is told."""
    with client:
        facts: dict[str, Any] = json.loads(receiveAll(client))
        return facts


# -- HAProxy -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def front(
    tmp_path_factory: pytest.TempPathFactory,
    folder: Path,
    daemon: Daemon,
    certificates: Certificates,
) -> Iterator[Proxy]:
    """HAProxy, in every way that it can stand before us."""
    cert, ca, alice = certificates.server, certificates.ca, certificates.client
    plain, both = "bind DOOR", f"bind DOOR ssl crt {cert} ca-file {ca} verify optional alpn h2,echo"
    verify = f"ssl verify required ca-file {ca} verifyhost localhost sni str(localhost) alpn echo"
    some = "send-proxy-v2 proxy-v2-options crc32c,unique-id"
    everything = f"{some},ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority"
    sections = {
        "v1": (plain, "send-proxy"),
        "v2": (plain, some),
        "terminated": (both, everything),
        "passed": (plain, "send-proxy-v2"),
        "secured": (plain, f"send-proxy-v2 {verify}"),
        "secured-1.2": (plain, f"send-proxy {verify} force-tlsv12"),
        "line": (plain, "send-proxy-v2"),
        "whoami-v1": (plain, "send-proxy"),
        "whoami-v2": (plain, some),
        "whoami-unix": (plain, "send-proxy-v2"),
        "whoami-unix-v1": (plain, "send-proxy"),
        "whoami-terminated": (both, everything),
        "whoami-passed": (plain, "send-proxy-v2"),
        "whoami-secured": (plain, f"send-proxy-v2 {verify} crt {alice}"),
        "whoami-ipv6-v1": (plain, "send-proxy"),
        "whoami-ipv6-v2": (plain, "send-proxy-v2"),
    }
    hosts = {"whoami-unix": "unix", "whoami-unix-v1": "unix"}
    for door in ("whoami-ipv6-v1", "whoami-ipv6-v2"):
        if IPV6:
            hosts[door] = "::1"
        else:
            del sections[door]
    texts = {
        door: f"{bind}\nserver echod 127.0.0.1:{daemon.ports[listenerOf(door)]} {words}"
        for door, (bind, words) in sections.items()
    }
    for door in ("raw", "whoami"):
        server = f"server echod unix@{folder}/{door}.sock send-proxy-v2"
        texts[f"{door}-over-unix"] = f"{plain}\n{server}"
    with haproxy(tmp_path_factory.mktemp("haproxy"), texts, hosts=hosts) as proxy:
        yield proxy


def listenerOf(door: str) -> str:
    """Which listener is behind it."""
    protocol = door.partition("-")[0] if door.startswith(("line", "whoami")) else "raw"
    return (
        f"{protocol} (tls, proxy)"
        if "passed" in door or "secured" in door
        else f"{protocol} (proxy)"
    )


@needsHAProxy
@pytest.mark.parametrize("door", ["v1", "v2", "secured", "secured-1.2"])
def test_haproxy(daemon: Daemon, front: Proxy, door: str) -> None:
    """P5, P6, E1: through HAProxy, all that comes before the FIN comes back after it."""
    before = waitForCounters(daemon, listenerOf(door), open=0)
    for size in SIZES * 3:
        data = noise(size)
        assert exchange(front.connect(door), data) == data
    closed = closedSince(daemon, listenerOf(door), before)
    # A client that is gone before HAProxy has come to us is one that it may reset.
    assert closed.pop("reset", 0) <= 3
    assert closed.keys() == {"eof"}


@needsHAProxy
def test_haproxyOverUNIXSocket(front: Proxy) -> None:
    """P6, E1: the same where HAProxy comes to us over a UNIX socket."""
    for size in SIZES * 3:
        data = noise(size)
        assert exchange(front.connect("raw-over-unix"), data) == data


@needsHAProxy
@versions
@pytest.mark.parametrize("door", ["terminated", "passed"])
def test_haproxySecured(front: Proxy, certificates: Certificates, door: str, version: str) -> None:
    """P5: the same of a client that does TLS, with HAProxy or, through it, with us."""
    context = certificates.context(version)
    for size in SIZES:
        data = noise(size)
        assert exchangeAtOnce(front.connect(door), context, data) == data


@needsHAProxy
def test_haproxyOurEnd(daemon: Daemon, front: Proxy) -> None:
    """C2: our end comes through, behind the last answer."""
    before = waitForCounters(daemon, "line (proxy)", open=0)
    with front.connect("line") as client:
        client.sendall(b"hello\nquit\n")
        assert receiveAll(client) == b"hello\nBye.\n"
    assert closedSince(daemon, "line (proxy)", before) == {"quit": 1}


@needsHAProxy
def test_haproxyMany(front: Proxy) -> None:
    """O4: fifty at a time through one HAProxy, each with its own bytes."""

    def exchanged(number: int, data: bytes) -> bytes:
        return exchange(front.connect(("v1", "v2", "secured")[number % 3]), data)

    assert wrongOfFifty(exchanged) == []


@needsHAProxy
@pytest.mark.parametrize("version", [1, 2])
def test_haproxyHeader(front: Proxy, version: int) -> None:
    """P3, P4: the client's addresses, HAProxy's own, and the name that it gave the connection."""
    client = front.connect(f"whoami-v{version}", source="127.0.0.9")
    peer = name(client)
    facts = ask(client)
    port = peer.rpartition(":")[2]
    assert facts["peer"] == peer
    assert facts["local"] == "127.0.0.1:{}".format(front.addresses[f"whoami-v{version}"][1])
    proxy = facts["proxy"]
    assert proxy.pop("peer").startswith("127.0.0.1:")
    assert bytes.fromhex(proxy.pop("unique_id", "")) == (
        f"client-{port}".encode() if version == 2 else b""
    )
    assert proxy == {"version": version}


@needsHAProxy
@pytest.mark.skipif(not IPV6, reason="there is no IPv6 here")
@pytest.mark.parametrize("version", [1, 2])
def test_haproxyIPv6(front: Proxy, version: int) -> None:
    """P3, P4: a client that came over IPv6, to an HAProxy that comes over IPv4."""
    client = front.connect(f"whoami-ipv6-v{version}")
    peer = name(client)
    facts = ask(client)
    assert facts["peer"] == peer
    assert facts["local"].startswith("[::1]:")
    assert facts["proxy"]["peer"].startswith("127.0.0.1:")


@needsHAProxy
@pytest.mark.parametrize("door", ["whoami-unix", "whoami-unix-v1"])
def test_haproxyUnknown(daemon: Daemon, front: Proxy, door: str) -> None:
    """P3, P4: of a client without an address (UNKNOWN, UNSPEC) HAProxy's own counts."""
    facts = ask(front.connect(door))
    assert facts["peer"].startswith("127.0.0.1:")
    assert facts["local"] == "127.0.0.1:{}".format(daemon.ports["whoami (proxy)"])
    assert facts["proxy"] == {
        "peer": facts["peer"],
        "version": 1 if door.endswith("v1") else 2,
    }


@needsHAProxy
def test_haproxyOverUNIX(daemon: Daemon, front: Proxy) -> None:
    """P4: HAProxy's own way to us may be a UNIX socket; the client's is in its header."""
    client = front.connect("whoami-over-unix")
    peer = name(client)
    facts = ask(client)
    assert facts["peer"] == peer
    assert facts["proxy"] == {"version": 2}
    assert facts["credentials"]["process"] > 0


@needsHAProxy
@versions
@pytest.mark.parametrize("shows", [True, False])
def test_haproxyTerminates(
    front: Proxy, certificates: Certificates, version: str, shows: bool
) -> None:
    """P4: TLS ends at HAProxy, and its TLVs tell how the client came and who it is."""
    context = certificates.context(version, certificates.client if shows else None)
    context.set_alpn_protocols(["echo"])
    raw = front.connect("whoami-terminated")
    peer = name(raw)
    with context.wrap_socket(raw, server_hostname="localhost") as client:
        facts = json.loads(receiveAll(client))
    assert facts["peer"] == peer
    assert "tls" not in facts
    proxy = facts["proxy"]
    assert bytes.fromhex(proxy["unique_id"]) == f"client-{peer.rpartition(':')[2]}".encode()
    assert (proxy["authority"], proxy["alpn"]) == ("localhost", "echo")
    tls = proxy["tls"]
    assert tls.pop("cipher")
    common = {"common_name": "alice"} if shows else {}
    assert tls == {"version": f"TLSv{version}", "verified": shows, **common}


@needsHAProxy
@versions
def test_haproxyPasses(front: Proxy, certificates: Certificates, version: str) -> None:
    """P5: TLS goes through HAProxy to us, behind the header, the client's certificate too."""
    context = certificates.context(version, certificates.client)
    raw = front.connect("whoami-passed")
    peer = name(raw)
    with context.wrap_socket(raw, server_hostname="localhost") as client:
        facts = json.loads(receiveAll(client))
    assert facts["peer"] == peer
    assert facts["proxy"]["version"] == 2
    assert facts["tls"]["version"] == f"TLSv{version}"
    assert facts["tls"]["subject"].startswith("CN=alice,")
    assert facts["tls"]["names"] == ["email:alice@example.org"]


@needsHAProxy
def test_haproxySecures(front: Proxy) -> None:
    """P5: HAProxy comes over TLS with a certificate of its own, for a client that does not."""
    client = front.connect("whoami-secured")
    peer = name(client)
    facts = ask(client)
    assert facts["peer"] == peer
    assert facts["proxy"]["version"] == 2
    assert facts["tls"]["subject"].startswith("CN=alice,")
    assert (facts["tls"]["alpn"], facts["tls"]["server_name"]) == ("echo", "localhost")


@needsHAProxy
def test_healthChecks(tmp_path: Path, certificates: Certificates) -> None:
    """
    C6, P4: HAProxy's checks: it finds us up, and we find nothing wrong.

    They come with HAProxy's own addresses in version 1 and as LOCAL in version 2; most end in RST.
    """
    tls = {"cert": certificates.server}
    scripted = (
        f"option tcp-check\ntcp-check send-binary {b'hello'.hex()}0a\ntcp-check expect string"
    )
    # The listener's protocol and table, what HAProxy is to do, and to what `server`.
    checks: dict[str, tuple[str, dict[str, Any], str, str]] = {
        "asks": ("raw", {}, f"{scripted} hello", ""),
        "v1": ("raw", {"proxy": LOCAL}, "", "send-proxy"),
        "v2": ("whoami", {"proxy": LOCAL}, "", "send-proxy-v2"),
        "v1-asks": ("upper", {"proxy": LOCAL}, f"{scripted} HELLO", "send-proxy"),
        "v1-tls": ("raw", {"proxy": LOCAL, "tls": tls}, "", "send-proxy ssl verify none"),
        "v2-tls": ("whoami", {"proxy": LOCAL, "tls": tls}, "", "send-proxy-v2 ssl verify none"),
        "v2-tls-asks": (
            "upper",
            {"proxy": LOCAL, "tls": tls},
            f"{scripted} HELLO",
            "send-proxy-v2 ssl verify none",
        ),
        "tls": ("raw", {"tls": tls}, "", "ssl verify none"),
    }
    config = configured(
        tmp_path,
        *[
            {"protocol": protocol, "endpoint": "tcp:0", **table}
            for protocol, table, _, _ in checks.values()
        ],
    )
    folder = tmp_path / "haproxy"
    folder.mkdir()
    with Daemon(config) as daemon:
        ports = {
            check: daemon.ports[protocol + traits(table)]
            for check, (protocol, table, _, _) in checks.items()
        }
        sections = {
            check: f"bind {DOOR}\noption log-health-checks\ntimeout check {PATIENCE:.0f}s\n{how}\n"
            # Each has `inter` for its handshake; twenty servers have twenty checks in one of it.
            f"server-template echod 20 127.0.0.1:{ports[check]} {words} check inter 3s"
            for check, (_, _, how, words) in checks.items()
        }
        with haproxy(folder, sections) as proxy:

            def checked() -> bool:
                listeners = daemon.allCounters()["listeners"]
                return all(counters["accepted"] >= 20 for counters in listeners)

            waitFor(checked, "twenty checks of each")
            # The first, and each that differs from the last, is told.
            told = [line for line in proxy.lines if line.startswith("Health check for")]
            assert {re.split("[ /]", line)[4] for line in told} == checks.keys()
            assert [line for line in told if not re.search(r"/echod\d+ succeeded", line)] == []
        for counters in daemon.allCounters()["listeners"]:
            assert (counters["refused"], counters["aborted"], counters["cut"]) == ({}, 0, 0)
            assert counters["closed"].keys() <= {"eof", "reset", "quit"}
        assertUnharmed(daemon)
        assert daemon.stop() == 0


def traits(table: dict[str, Any]) -> str:
    """As a listener tells of itself."""
    words = [word for word in ("tls", "proxy") if word in table]
    return f" ({', '.join(words)})" if words else ""


@needsHAProxy
def test_limitsSeeTheClient(tmp_path: Path) -> None:
    """P1: networks and numbers are those of the client in the header, not of HAProxy."""
    config = configured(
        tmp_path,
        {
            "protocol": "raw",
            "endpoint": "tcp:0",
            "proxy": LOCAL,
            "deny": ["127.0.0.66"],
            "max_per_source": 1,
        },
    )
    folder = tmp_path / "haproxy"
    folder.mkdir()
    with Daemon(config, "--log-connections") as daemon:
        section = f"bind {DOOR}\nserver echod 127.0.0.1:{daemon.ports['raw']} send-proxy-v2"
        with haproxy(folder, {"front": section}) as proxy:
            with proxy.connect("front", source="127.0.0.66") as denied:
                assert receiveUntilGone(denied) == b""
            with proxy.connect("front", source="127.0.0.7") as first:
                first.sendall(b"first")
                assert first.recv(5) == b"first"
                with proxy.connect("front", source="127.0.0.7") as second:
                    assert receiveUntilGone(second) == b""
                assert exchange(proxy.connect("front", source="127.0.0.8"), b"other") == b"other"
            line = daemon.waitForLine("closed raw tcp 127.0.0.1:{}".format(daemon.ports["raw"]))
            assert " (proxy) id=" in line
            counters = waitForCounters(daemon, "raw", open=0)
            assert counters["refused"] == {"denied": 1, "source_full": 1}
            assert counters["closed"] == {"refused": 2, "eof": 2}
        assertUnharmed(daemon, HARM)
        assert daemon.stop() == 0


def receiveUntilGone(client: socket.socket) -> bytes:
    """Read to EOF, or to RST, which is as good here."""
    try:
        return receiveAll(client)
    except ConnectionResetError:
        return b""


@needsHAProxy
def test_headerIsMissing(tmp_path: Path) -> None:
    """P1, P2: of an HAProxy that was not told to send one nothing is taken for payload."""
    config = configured(tmp_path, {"protocol": "raw", "endpoint": "tcp:0", "proxy": LOCAL})
    folder = tmp_path / "haproxy"
    folder.mkdir()
    with Daemon(config, "--log-connections") as daemon:
        section = f"bind {DOOR}\nserver echod 127.0.0.1:{daemon.ports['raw']}"
        with haproxy(folder, {"front": section}) as proxy:
            with proxy.connect("front") as client:
                client.sendall(b"hello\n")
                assert receiveUntilGone(client) == b""
            counters = waitForCounters(daemon, "raw", open=0)
            assert (counters["closed"], counters["bytes_out"]) == ({"header": 1}, 0)
            line = daemon.waitForLine("closed raw ")
            assert "no PROXY header begins with b'hello" in line
        assertUnharmed(daemon, HARM)
        assert daemon.stop() == 0


@needsHAProxy
def test_drain(tmp_path: Path, certificates: Certificates) -> None:
    """O1: SIGTERM behind HAProxy: what was sent is answered, then the client sees our end."""
    tls = {"cert": certificates.server}
    config = configured(
        tmp_path,
        {"protocol": "raw", "endpoint": "tcp:0", "proxy": LOCAL},
        {"protocol": "raw", "endpoint": "tcp:0", "proxy": LOCAL, "tls": tls},
    )
    folder = tmp_path / "haproxy"
    folder.mkdir()
    with Daemon(config) as daemon:
        server = "server echod 127.0.0.1:{} send-proxy-v2 {}"
        sections = {
            "plain": server.format(daemon.ports["raw (proxy)"], ""),
            "secured": server.format(daemon.ports["raw (tls, proxy)"], "ssl verify none"),
        }
        sections = {door: f"bind {DOOR}\n{text}" for door, text in sections.items()}
        with haproxy(folder, sections) as proxy:
            clients = [proxy.connect(door) for door in sections]
            for client in clients:
                client.sendall(b"hello")
                assert client.recv(5) == b"hello"
            daemon.signal()
            for client in clients:
                with client:
                    assert receiveAll(client) == b""
            assert daemon.wait() == 0


# -- nginx -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def streams(
    tmp_path_factory: pytest.TempPathFactory, daemon: Daemon, certificates: Certificates
) -> Iterator[Proxy]:
    """nginx, of streams, with and without TLS to us."""
    alice = certificates.client
    tls = (
        f"proxy_ssl on; proxy_ssl_verify on; proxy_ssl_trusted_certificate {certificates.ca};"
        " proxy_ssl_name localhost; proxy_ssl_server_name on;"
        f" proxy_ssl_certificate {alice}; proxy_ssl_certificate_key {alice};"
    )
    servers = {
        "plain": "",
        "secured-1.2": f"{tls} proxy_ssl_protocols TLSv1.2;",
        "secured-1.3": f"{tls} proxy_ssl_protocols TLSv1.3;",
        "whoami": "",
        "whoami-secured": f"{tls} proxy_ssl_protocols TLSv1.3;",
    }
    texts = {
        door: f"proxy_pass 127.0.0.1:{daemon.ports[listenerOf(door)]};"
        f" proxy_protocol on; proxy_half_close on; {words}"
        for door, words in servers.items()
    }
    with nginx(tmp_path_factory.mktemp("nginx"), texts) as proxy:
        yield proxy


@needsNginx
@pytest.mark.parametrize("door", ["plain", "secured-1.2", "secured-1.3"])
def test_nginx(daemon: Daemon, streams: Proxy, door: str) -> None:
    """
    P5, P6, E1, L2: through nginx, all that comes before the FIN comes back after it.

    nginx half-closes TLS as it does TCP, with FIN alone: to us a truncation, and so counted.
    """
    before = waitForCounters(daemon, listenerOf(door), open=0)
    for size in SIZES * 3:
        data = noise(size)
        assert exchange(streams.connect(door), data) == data
    end = "eof" if door == "plain" else "no_close_notify"
    assert closedSince(daemon, listenerOf(door), before) == {end: 3 * len(SIZES)}


@needsNginx
@pytest.mark.parametrize("door", ["whoami", "whoami-secured"])
def test_nginxHeader(streams: Proxy, door: str) -> None:
    """P3, P5: the client's addresses, and whose certificate nginx has."""
    client = streams.connect(door, source="127.0.0.9")
    peer = name(client)
    facts = ask(client)
    assert facts["peer"] == peer
    assert facts["local"] == f"127.0.0.1:{streams.addresses[door][1]}"
    assert facts["proxy"]["version"] == 1
    if "secured" in door:
        assert facts["tls"]["version"] == "TLSv1.3"
        assert facts["tls"]["server_name"] == "localhost"
        assert facts["tls"]["subject"].startswith("CN=alice,")


# -- stunnel -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tunnel(
    tmp_path_factory: pytest.TempPathFactory, daemon: Daemon, certificates: Certificates
) -> Iterator[Proxy]:
    """stunnel, at the client's end of TLS and at the server's."""
    cert, ca = certificates.server, certificates.ca
    verify = f"client = yes\nCAfile = {ca}\nverifyChain = yes\ncheckHost"
    services = {
        "client": ("raw (tls)", f"{verify} = localhost"),
        "client-1.2": ("raw (tls)", f"{verify} = localhost\nsslVersionMax = TLSv1.2"),
        "whoami": ("whoami (tls)", f"{verify} = localhost\ncert = {certificates.client}"),
        "server": ("raw (proxy)", f"cert = {cert}\nprotocol = proxy"),
        "whoami-server": ("whoami (proxy)", f"cert = {cert}\nprotocol = proxy"),
    }
    texts = {
        service: f"connect = 127.0.0.1:{daemon.ports[listener]}\n{words}"
        for service, (listener, words) in services.items()
    }
    with stunnel(tmp_path_factory.mktemp("stunnel"), texts) as proxy:
        yield proxy


@needsStunnel
@pytest.mark.parametrize("service", ["client", "client-1.2"])
def test_stunnel(daemon: Daemon, tunnel: Proxy, service: str) -> None:
    """
    L1, E1: stunnel verifies us, and brings a client's FIN to us as close_notify.

    The FIN waits for the echo: stunnel 5.68 forgets what it has not read when it is told of a FIN
    (2 times of 150 with 3 MB on a busy machine, whatever server was behind it).
    """
    before = waitForCounters(daemon, "raw (tls)", open=0)
    for size in SIZES:
        data = noise(size)
        with tunnel.connect(service) as client:
            assert pingAll(client, data) == data
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
    assert closedSince(daemon, "raw (tls)", before) == {"eof": len(SIZES)}


@needsStunnel
def test_stunnelCertificate(tunnel: Proxy) -> None:
    """The certificate is stunnel's, and so is the address: it sends no header here."""
    facts = ask(tunnel.connect("whoami"))
    assert facts["tls"]["subject"].startswith("CN=alice,")
    assert "proxy" not in facts


@needsStunnel
@versions
def test_stunnelTerminates(
    daemon: Daemon, tunnel: Proxy, certificates: Certificates, version: str
) -> None:
    """P3, P6: TLS ends at stunnel, whose header comes before what was in it; see above."""
    before = waitForCounters(daemon, "raw (proxy)", open=0)
    context = certificates.context(version)
    for size in SIZES:
        data = noise(size)
        assert exchangeInTurns(tunnel.connect("server"), context, data) == data
    assert closedSince(daemon, "raw (proxy)", before) == {"eof": len(SIZES)}


@needsStunnel
def test_stunnelHeader(tunnel: Proxy, certificates: Certificates) -> None:
    """P3: the client's addresses."""
    raw = tunnel.connect("whoami-server", source="127.0.0.9")
    peer = name(raw)
    with certificates.context().wrap_socket(raw, server_hostname="localhost") as client:
        facts = json.loads(receiveAll(client))
    assert facts["peer"] == peer
    assert facts["local"] == f"127.0.0.1:{tunnel.addresses['whoami-server'][1]}"
    assert facts["proxy"]["version"] == 1


# -- Without a proxy -----------------------------------------------------------------------------


def curl(*words: str) -> dict[str, Any]:
    """What curl is told, which says that it speaks for itself as a proxy does."""
    done = subprocess.run(
        ["curl", "-sS", "--http0.9", "--haproxy-protocol", *words],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


@needs("curl")
def test_curl(daemon: Daemon, certificates: Certificates, folder: Path) -> None:
    """P3, P5: curl --haproxy-protocol, also before TLS, also over a UNIX socket (UNKNOWN)."""
    facts = curl(f"http://127.0.0.1:{daemon.ports['whoami (proxy)']}/")
    assert facts["peer"] == facts["proxy"]["peer"]
    port = daemon.ports["whoami (tls, proxy)"]
    facts = curl("--cacert", certificates.ca, f"https://localhost:{port}/")
    assert facts["peer"] == facts["proxy"]["peer"]
    assert facts["tls"]["server_name"] == "localhost"
    facts = curl("--unix-socket", f"{folder}/whoami.sock", "http://localhost/")
    assert facts["peer"] is None
    assert facts["proxy"] == {"version": 1}


@pytest.mark.parametrize(
    "client",
    [
        pytest.param("nc -N 127.0.0.1 {port}", marks=needs("nc", "netcat-openbsd")),
        pytest.param("socat -t 30 - TCP:127.0.0.1:{port}", marks=needs("socat")),
        pytest.param("socat -t 30 - UNIX-CONNECT:{folder}/raw.sock", marks=needs("socat")),
    ],
)
def test_typed(daemon: Daemon, folder: Path, client: str) -> None:
    """P6: `(printf 'PROXY ...\\r\\n'; cat) | client`: a header by hand, payload in its segment."""
    command = client.format(port=daemon.ports["raw (proxy)"], folder=folder)
    done = subprocess.run(
        command.split(),
        input=b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n" + noise(100_000),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == noise(100_000)
