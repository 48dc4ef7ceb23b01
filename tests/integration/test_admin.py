"""The protocol ``admin`` with clients of other making, and with those that mean no good."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Certificates
from tests.integration.daemon import PATIENCE, Daemon, promptly, receiveAll, run, waitFor
from tests.integration.loaded import LoadedDaemon
from tests.integration.peers import configured, needs, serving

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLOSE = b"GET /connections HTTP/1.0\r\nHost: localhost\r\n\r\n"
EVENTS = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
DOCUMENTS = ["connections", "closed", "refused", "listeners", "counters", "config"]

pytestmark = needs("curl")


def curl(*arguments: str, code: int = 0) -> str:
    """What curl(1) prints; and that it ends with this ``code``."""
    command = ["curl", "--silent", "--show-error", "--max-time", str(PATIENCE), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=2 * PATIENCE
    )
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with serving("--port", "0", "--admin", "0", "--interface", "0.0.0.0") as daemon:
        yield daemon


def url(daemon: Daemon, path: str = "/") -> str:
    return f"http://127.0.0.1:{daemon.ports['admin']}{path}"


# -- Clients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(daemon: Daemon, name: str) -> None:
    found = json.loads(curl(url(daemon, f"/{name}")))
    assert re.fullmatch(rf"echod-{name}/1", found["format"])


def test_index(daemon: Daemon) -> None:
    for path in re.findall("^/[a-z]*", curl(url(daemon)), re.MULTILINE):
        assert curl("--head", url(daemon, path)).startswith("HTTP/1.1 200 OK\n")


def test_loopback(daemon: Daemon) -> None:
    """Whatever ``--interface`` says."""
    assert daemon.waitForLine("listening admin tcp 127.0.0.1:")
    assert daemon.waitForLine("listening raw tcp 0.0.0.0:")


def test_keepAlive(daemon: Daemon) -> None:
    """Of three requests the first alone connects."""
    say = ("--write-out", "%{http_code} %{num_connects}\\n")
    urls = [word for _ in range(3) for word in ("--output", "/dev/null", url(daemon, "/closed"))]
    assert curl(*say, *urls).splitlines() == ["200 1", "200 0", "200 0"]


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
def test_versions(daemon: Daemon, version: str) -> None:
    """One that would like HTTP/2 gets HTTP/1.1."""
    assert curl(version, url(daemon, "/health")) == "ready\n"


def test_oneConnection(daemon: Daemon) -> None:
    """From the list to the story of one, live and gone."""
    with daemon.connect() as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        found = json.loads(curl(url(daemon, "/connections?listener=raw&limit=1")))
        (row,) = found["connections"]
        assert (row["bytes_in"], row["bytes_out"]) == (5, 5)
        story = json.loads(curl(url(daemon, f"/connections/{row['id']}")))
        assert story["format"] == "echod-connection/1"
        assert story["timeline"]
    gone = waitFor(
        lambda: [
            row
            for row in json.loads(curl(url(daemon, "/closed?reason=eof")))["connections"]
            if row["id"] == story["id"]
        ],
        "its end",
    )
    assert gone[0]["bytes_in"] == 5


@needs("nc", "netcat-openbsd")
@pytest.mark.parametrize("path", ["/health", "/connections", "/counters", "/nope"])
def test_netcat(daemon: Daemon, path: str) -> None:
    """One that sends FIN behind its request gets the whole answer."""
    done = subprocess.run(
        ["nc", "-N", "127.0.0.1", str(daemon.ports["admin"])],
        input=f"GET {path} HTTP/1.0\r\n\r\n".encode(),
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 ")
    assert body.endswith(b"\n")


def test_tls(certificates: Certificates, tmp_path: Path) -> None:
    """With a client's certificate, and not without."""
    tls = {"cert": certificates.server, "ca": certificates.ca, "client_auth": "require"}
    config = configured(tmp_path, {"protocol": "admin", "endpoint": "tcp:0", "tls": tls})
    with LoadedDaemon(config) as daemon:
        base = f"https://127.0.0.1:{daemon.ports['admin']}"
        ours = ["--cacert", str(certificates.ca), "--cert", str(certificates.client)]
        assert curl(*ours, f"{base}/health") == "ready\n"
        (listener,) = json.loads(curl(*ours, f"{base}/listeners"))["listeners"]
        assert listener["traits"] == ["tls"]
        assert listener["certificates"][0]["path"] == str(certificates.server)
        (row,) = json.loads(curl(*ours, f"{base}/connections"))["connections"]
        assert row["tls"]["subject"].startswith("CN=alice")
        without = subprocess.run(
            ["curl", "--silent", "--cacert", str(certificates.ca), f"{base}/health"],
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        assert (without.returncode != 0, without.stdout) == (True, b"")


def test_unix(tmp_path: Path) -> None:
    """A socket with a mode; names are looked at there too."""
    path = tmp_path / "admin.socket"
    with serving("--admin", f"unix:{path}:mode=600") as daemon:
        daemon.waitForLine(f"listening admin unix {path}")
        assert path.stat().st_mode & 0o777 == 0o600
        assert curl("--unix-socket", str(path), "http://localhost/health") == "ready\n"
        found = curl("--unix-socket", str(path), "http://x/health")
        assert found.startswith("Host must be an address, localhost")
        (row,) = json.loads(curl("--unix-socket", str(path), "http://localhost/connections"))[
            "connections"
        ]
        assert row["listener"] == f"admin unix {path}"


def test_proxy(tmp_path: Path) -> None:
    """Behind one that tells who the client is; what it says of itself is text."""
    proxy = ["127.0.0.1"]
    config = configured(tmp_path, {"protocol": "admin", "endpoint": "tcp:0", "proxy": proxy})
    with LoadedDaemon(config) as daemon:
        (row,) = json.loads(curl("--haproxy-protocol", url(daemon, "/connections")))["connections"]
        assert row["peer"].startswith("127.0.0.1:")
        assert row["proxied"]
        with connect(daemon, b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n" + CLOSE) as client:
            found = receiveAll(client).partition(b"\r\n\r\n")[2]
        (row,) = json.loads(found)["connections"]
        assert row["peer"] == "192.0.2.7:1"


def test_hosts() -> None:
    """Names of ours, on the command line; they stay after a reload."""
    with serving("--admin", "0", "--option", "admin.hosts=a.example,b") as daemon:
        for _ in range(2):
            for host, code in (("a.example", "200"), ("B:80", "200"), ("c", "421"), ("::1", "421")):
                say = ["--output", "/dev/null", "--write-out", "%{http_code}"]
                found = curl(*say, "--header", f"Host: {host}", url(daemon, "/health"))
                assert (host, found) == (host, code)
            daemon.signal(signal.SIGHUP)
            waitFor(lambda: json.loads(curl(url(daemon, "/config")))["reload"]["succeeded"])


def test_refusedReload(tmp_path: Path) -> None:
    """Why the last one was refused, until one succeeds."""
    config = configured(tmp_path, {"protocol": "admin", "endpoint": "tcp:0"})
    with LoadedDaemon(config) as daemon:
        file = tmp_path / "echod.toml"
        text = file.read_text()
        file.write_text(text + "idle_timeout = -1\n")
        daemon.signal(signal.SIGHUP)

        def refused() -> str:
            found: str = json.loads(curl(url(daemon, "/config")))["reload"]["refused"]
            return found

        assert "idle_timeout" in waitFor(refused, "the refusal")
        file.write_text(text)
        daemon.signal(signal.SIGHUP)
        waitFor(lambda: refused() is None, "a reload")


def test_metrics(daemon: Daemon) -> None:
    assert "\necho" in curl(url(daemon, "/metrics"))


@needs("jq")
def test_jq(daemon: Daemon) -> None:
    done = subprocess.run(
        ["jq", "-r", '.listeners[] | select(.listener | startswith("raw")) | .accepted'],
        input=curl(url(daemon, "/counters")),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert int(done.stdout) >= 0


# -- Hostile ones --------------------------------------------------------------------------------


def connect(daemon: Daemon, data: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", daemon.ports["admin"]), PATIENCE)
    client.sendall(data)
    return client


def code(answer: bytes) -> int:
    """Of the one answer that it is."""
    assert answer.count(b"HTTP/1.1 ") == 1
    return int(answer.split()[1])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--request", "DELETE"], "405"),
        (["--data-binary", "@/proc/self/exe"], "405"),
        (["--request", "GET", "--data-binary", "@/proc/self/exe"], "413"),
        (["--request", "GET", "--header", "Transfer-Encoding: chunked", "--data", "x"], "413"),
        (["--header", "Expect: 100-continue"], "417"),
        (["--header", "Host: evil.example"], "421"),
        (["--header", "Sec-Fetch-Site: cross-site"], "403"),
        (["--header", f"X: {'x' * 20_000}"], "431"),
        (["--path-as-is"], "200"),
    ],
)
def test_refused(daemon: Daemon, arguments: list[str], expected: str) -> None:
    say = ["--output", "/dev/null", "--write-out", "%{http_code}"]
    # curl may not have sent all of it when it is told.
    command = ["curl", "--silent", *say, *arguments, url(daemon, "/health")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.stdout == expected


@pytest.mark.parametrize(
    "path", ["/../etc/passwd", "//", "/%2e%2e/counters", "/./counters", "/connections/..%2fconfig"]
)
def test_paths(daemon: Daemon, path: str) -> None:
    say = ["--output", "/dev/null", "--write-out", "%{http_code}", "--path-as-is"]
    assert curl(*say, url(daemon, path)) == "404"


def test_hundredStreams() -> None:
    """Of a hundred at once sixteen are served; all end as the daemon is told to, at once."""
    with LoadedDaemon("--port", "0", "--admin", "0") as daemon:
        clients = [connect(daemon, EVENTS) for _ in range(100)]
        answers = [client.recv(1 << 16) for client in clients]
        codes = Counter(int(answer.split()[1]) for answer in answers)
        assert codes == {200: 16, 429: 84}
        streams = [
            one for one, answer in zip(clients, answers, strict=True) if b" 200 " in answer[:20]
        ]
        with daemon.connect() as other:
            other.sendall(b"x")
            assert other.recv(1) == b"x"
            daemon.signal()
            for stream in streams:
                assert receiveAll(stream).endswith(b"event: end\ndata: {}\n\n\r\n0\r\n\r\n")
        for client in clients:
            client.close()
        assert daemon.wait() == 0


def test_stopsAtOnce() -> None:
    """A page that is open, and a connection that is kept, cost a stop no second."""

    def stop() -> None:
        with LoadedDaemon("--admin", "0") as daemon:
            with connect(daemon, EVENTS) as stream, connect(daemon, GET) as kept:
                assert stream.recv(10)
                assert kept.recv(10)
                daemon.signal()
                assert receiveAll(stream).endswith(b"0\r\n\r\n")
                assert receiveAll(kept).endswith(b"ready\n")
            assert daemon.wait() == 0

    promptly(1.0, stop)


def test_streamOverReload() -> None:
    """It goes on, and counts."""
    with serving("--admin", "0") as daemon:
        streams = [connect(daemon, EVENTS) for _ in range(16)]
        assert all(b" 200 OK" in stream.recv(100) for stream in streams)
        daemon.signal(signal.SIGHUP)
        waitFor(lambda: json.loads(curl(url(daemon, "/config")))["reload"]["succeeded"])
        with connect(daemon, EVENTS) as late:
            assert code(receiveAll(late)) == 429
        for stream in streams:
            stream.close()


def test_slowReaders() -> None:
    """Those who look on and do not read hold up nobody, and little."""
    with serving("--port", "0", "--admin", "0") as daemon:
        before = daemon.memory()
        slow = [connect(daemon, EVENTS) for _ in range(16)]
        many = b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
        slow += [connect(daemon, many) for _ in range(16)]
        for _ in range(20):
            assert curl(url(daemon, "/health")) == "ready\n"
        # 512 KiB are more than the bound of any connection.
        assert daemon.memory() - before < 32 * (512 << 10)
        for client in slow:
            client.close()


# -- What is loaded ------------------------------------------------------------------------------

PROGRAM = """
import sys
from echod.daemon.options import Options

try:
    Options().parseOptions(sys.argv[1:])
finally:
    print([name for name in sys.modules if name.startswith(("twisted.web", "prometheus_client"))])
"""


@pytest.mark.parametrize(
    "words", [["--list-protocols"], ["--check-config", "--admin", "0"], ["--help"]]
)
def test_notLoadedForWords(words: list[str]) -> None:
    done = run(*words, command=[sys.executable, "-c", PROGRAM])
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]")


def test_loaded() -> None:
    """By the first listener that needs it."""
    program = (
        "import sys; from echod.admin.maker import admin; before = 'twisted.web' in sys.modules;"
    )
    program += "from echod.testing import PlainContext; from echod.admin.maker import AdminOptions;"
    program += "admin.makeFactory(AdminOptions(), PlainContext());"
    program += (
        "print(before, 'twisted.web.http' in sys.modules, 'twisted.web.server' in sys.modules)"
    )
    done = run(command=[sys.executable, "-c", program])
    assert done.stdout.split() == ["False", "True", "False"]


def rows(daemon: Daemon, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(curl(url(daemon, path)))["connections"]
    return found


def test_hundreds(daemon: Daemon) -> None:
    """As many as are asked for, of all that are there."""
    clients = [daemon.connect() for _ in range(300)]
    waitFor(lambda: len(rows(daemon, "/connections?listener=raw")) >= 300, "all of them")
    assert len(rows(daemon, "/connections?limit=200&listener=raw")) == 200
    assert len({row["id"] for row in rows(daemon, "/connections?limit=10000")}) > 300
    for client in clients:
        client.close()
