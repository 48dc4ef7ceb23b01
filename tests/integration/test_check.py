"""``python -m echod check`` against real daemons: every exit status, over every kind of socket."""

from __future__ import annotations

import ast
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import Certificates
from tests.integration.daemon import MODULE, PATIENCE, idle, receiveAll, run
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.loaded import runLoaded
from tests.ports import freePort

RIGHT, USAGE, REFUSED, TIMED_OUT, WRONG, TLS = range(6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where UNIX sockets are."""
    return tmp_path_factory.mktemp("check")


#: Listeners: a name for the tests, the protocol, the endpoint, and the rest of its table.
LISTENERS = [
    ("raw", "raw", "tcp:0", ""),
    ("line", "line", "tcp:0", 'options = {prefix = "Echo: ", quit = "q"}'),
    ("dns", "dns", "tcp:0", ""),
    ("upper", "upper", "tcp:0", ""),
    ("chargen", "chargen", "tcp:0", ""),
    ("discard", "discard", "tcp:0", ""),
    ("denied", "raw", "tcp:0", 'deny = ["127.0.0.0/8"]'),
    ("proxied", "raw", "tcp:0", 'proxy = ["127.0.0.0/8"]'),
    ("health", "health", "tcp:0", ""),
    ("udp", "udp", "udp:0", ""),
    ("discard-udp", "discard", "udp:0", ""),
    ("proxied-udp", "udp", "udp:0", 'proxy = ["127.0.0.0/8"]'),
    ("raw-unix", "raw", "unix:{folder}/raw.sock", ""),
    ("line-unix", "line", "unix:@{folder.name}-check", ""),
    ("chargen-unix", "chargen", "unix:{folder}/chargen.sock", ""),
    ("discard-unix", "discard", "unix:{folder}/discard.sock", ""),
    ("raw-tls", "raw", "tls:0", "tls = {{{tls}}}"),
    ("line-tls", "line", "tls:0", "tls = {{{tls}, {client}}}"),
    ("dns-tls", "dns", "tls:0", 'tls = {{{tls}}}\nproxy = ["127.0.0.0/8"]'),
    ("chargen-tls", "chargen", "tls:0", "tls = {{{tls}}}"),
    ("discard-tls", "discard", "tls:0", "tls = {{{tls}}}"),
]


@pytest.fixture(scope="module")
def places(certificates: Certificates, folder: Path) -> Iterator[dict[str, str]]:
    """A daemon with all of `LISTENERS`; the endpoint words for a client, by the tests' names."""
    words = {
        "tls": f'cert = "{certificates.server}"',
        "client": f'ca = "{certificates.ca}", client_auth = "require"',
        "folder": folder,
    }
    tables = []
    for _, protocol, endpoint, rest in LISTENERS:
        rest = rest.format(**words) if "{tls}" in rest else rest
        tables.append(
            f'[[listener]]\nprotocol = "{protocol}"\n'
            f'endpoint = "{endpoint.format(**words)}"\n{rest}\n'
        )
    configuration = folder / "echod.toml"
    configuration.write_text("\n".join(tables))
    with Daemon("--config", str(configuration)) as running:
        found = {}
        lines = [line for line in running.lines if " listening " in line]
        for (name, _, endpoint, _), line in zip(LISTENERS, lines, strict=True):
            kind, _, rest = endpoint.partition(":")
            match = re.search(r" \S+:(\d+)( \(.*\))?$", line)
            found[name] = f"{kind}:{match[1]}" if match else endpoint.format(**words)
        yield found
        assert [line for line in running.lines if "Traceback" in line or "#error" in line] == []


def check(*arguments: object) -> tuple[int, str, str]:
    """Status, standard output, standard error; over TLS in a process that has loaded nothing."""
    words = [str(argument) for argument in arguments]
    start = run if any(word.startswith("tls:") for word in words) else runLoaded
    done = start("check", *words, command=MODULE)
    return done.returncode, done.stdout, done.stderr


def right(*arguments: object) -> str:
    """What it says when all is right: one line, nothing on standard error."""
    status, said, complaint = check(*arguments)
    assert (status, complaint) == (RIGHT, "")
    (line,) = said.splitlines()
    return line


def wrong(*arguments: object) -> tuple[int, str]:
    """The status and the one line on standard error."""
    status, said, complaint = check(*arguments)
    assert said == ""
    (line,) = complaint.splitlines()
    assert line.startswith("echod check: ")
    return status, line


# -- Right -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 64, 65507])
@pytest.mark.parametrize("name", ["raw", "raw-unix", "udp"])
def test_raw(places: dict[str, str], name: str, size: int) -> None:
    """E1, E2: all of it comes back, after our FIN; one line says so, made to be read."""
    place = places[name]
    shown = place if name == "raw-unix" else place.replace(":", " 127.0.0.1:")
    said = right("--size", size, place)
    assert re.fullmatch(
        rf"ok raw {re.escape(shown.replace('unix:', 'unix '))} bytes={size} ms=\d+\.\d", said
    )


@pytest.mark.parametrize(
    ("protocol", "name"), [("line", "line"), ("line", "line-unix"), ("dns", "dns"), ("line", "raw")]
)
@pytest.mark.parametrize("size", [16, 65507])
def test_framed(places: dict[str, str], protocol: str, name: str, size: int) -> None:
    """A line whatever stands before it, and a message with its length."""
    if name == "line" and size > 60000:
        size = 60000
    said = right("--protocol", protocol, "--size", size, places[name])
    assert said.startswith(f"ok {protocol} ")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_hostAndPort(places: dict[str, str], host: str) -> None:
    """``HOST:PORT`` without a word, and a listener's own word."""
    port = places["raw"].removeprefix("tcp:")
    assert right(f"{host}:{port}").startswith(f"ok raw tcp {host}:{port} ")
    assert right(f"tcp:{port}:interface=0.0.0.0").startswith(f"ok raw tcp 127.0.0.1:{port} ")


def test_tls(places: dict[str, str], certificates: Certificates) -> None:
    """L1: half-close over TLS; by address, by name, by a name that is given."""
    trust = ("--ca", certificates.ca)
    place = places["raw-tls"]
    assert right(place, *trust).startswith(f"ok raw tls 127.0.0.1:{place[4:]} bytes=64 ")
    assert right(place, *trust, "--size", 65507)
    assert right(f"{place}:host=localhost", *trust)
    assert right(place, *trust, "--server-name", "localhost")


def test_clientCertificate(places: dict[str, str], certificates: Certificates) -> None:
    """A listener that wants a client's certificate, its key in the same file or apart."""
    arguments = ("--protocol", "line", places["line-tls"], "--ca", certificates.ca)
    assert right(*arguments, "--cert", certificates.client)
    assert right(*arguments, "--cert", certificates.client, "--key", certificates.client)


@pytest.mark.parametrize("name", ["proxied", "proxied-udp"])
def test_proxy(places: dict[str, str], name: str) -> None:
    """P1, P4: behind ``proxy`` with a header of our own."""
    assert right("--proxy", places[name])


def test_proxyBeforeTLS(places: dict[str, str], certificates: Certificates) -> None:
    """P5: the header comes before the handshake."""
    assert right("--proxy", "-p", "dns", places["dns-tls"], "--ca", certificates.ca)


# -- Cannot connect --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "tls", "udp"])
def test_nobody(kind: str) -> None:
    """Status 2, with the system's reason."""
    port = freePort()
    status, line = wrong(f"{kind}:{port}")
    assert status == REFUSED
    assert f"{kind} 127.0.0.1:{port}: cannot connect: Connection refused: start echod" in line


@pytest.mark.parametrize("stale", [True, False])
def test_nobodyAtAPath(tmp_path: Path, stale: bool) -> None:
    """Nobody's socket, and none at all."""
    path = tmp_path / "echod.sock"
    if stale:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    status, line = wrong(f"unix:{path}")
    assert status == REFUSED
    assert ("Connection refused" if stale else "No such file or directory") in line


def test_noSuchHost() -> None:
    status, line = wrong("tcp:7:host=nobody.invalid")
    assert status == REFUSED
    assert "tcp nobody.invalid:7: cannot connect: " in line


# -- The time is up --------------------------------------------------------------------------


@contextmanager
def serving(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """A listener that has one connection, which ``answer`` is called with; its endpoint word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.settimeout(PATIENCE)
                answer(client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("name", ["discard", "discard-unix", "discard-udp"])
def test_noAnswer(places: dict[str, str], name: str) -> None:
    """Status 3: a listener that is silent."""
    protocol = "raw" if name == "discard-udp" else "line"
    status, line = wrong("--timeout", "0.3", "--protocol", protocol, places[name])
    assert status == TIMED_OUT
    assert "0 bytes came, and no more within 0.3 s: is echod stopped" in line


def test_noAnswerOverTLS(places: dict[str, str], certificates: Certificates) -> None:
    arguments = ("--timeout", "1", "-p", "line", "--ca", certificates.ca)
    status, line = wrong(*arguments, places["discard-tls"])
    assert status == TIMED_OUT
    assert "0 bytes came" in line


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_nobodyAccepts(kind: str) -> None:
    """A process that is stopped: the kernel connects, and nothing follows."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        status, line = wrong("--timeout", "0.3", f"{kind}:{server.getsockname()[1]}")
    assert status == TIMED_OUT
    assert "0 bytes came, and no more within 0.3 s" in line


def test_fullBacklog() -> None:
    """Nor does the kernel connect any more: SYNs are dropped."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        with socket.create_connection(address):
            status, line = wrong("--timeout", "0.3", f"tcp:{address[1]}")
    assert status == TIMED_OUT
    assert "no connection within 0.3 s: is echod stopped, or a firewall on the way?" in line


def test_noEnd() -> None:
    """C1: all comes back, but no EOF after our FIN."""
    released = threading.Event()

    def answer(client: socket.socket) -> None:
        client.sendall(receiveAll(client))
        assert released.wait(PATIENCE)

    with serving(answer) as place:
        status, line = wrong("--timeout", "0.5", place)
        released.set()
    assert status == TIMED_OUT
    assert "64 bytes came, and no more within 0.5 s" in line


def test_drip() -> None:
    """One deadline for all, not for each read."""

    def answer(client: socket.socket) -> None:
        data = receiveAll(client)
        for byte in data:
            try:
                client.sendall(bytes([byte]))
            except OSError:
                return
            idle(0.1, "the pace of a line that is too slow")

    with serving(answer) as place:
        status, line = wrong("--timeout", "0.7", place)
    assert status == TIMED_OUT
    assert re.search(r" [1-9] bytes came", line)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes network namespaces")
@pytest.mark.skipif(shutil.which("ip") is None, reason="there is no ip(8) (package: iproute2)")
def test_resolverThatIsSilent(tmp_path: Path) -> None:
    """A name server that does not answer holds nobody beyond the deadline."""
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    script = (
        "ip link add one type veth peer name other && ip addr add 192.0.2.2/24 dev one &&"
        " ip link set one up && ip link set other up &&"
        f" mount --bind {tmp_path}/resolv.conf /etc/resolv.conf || exit 77;"
        ' exec "$@" check --timeout 0.3 slow.example:7'
    )
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *MODULE],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"no namespace of our own: {done.stderr.strip()}")
    assert done.returncode == TIMED_OUT
    assert "tcp slow.example:7: no connection within 0.3 s" in done.stderr


# -- Other bytes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "name", "part"),
    [
        ("raw", "chargen", "is not what was sent"),
        ("raw", "chargen-unix", "is not what was sent"),
        ("line", "chargen", "does not end with the line that was sent"),
        ("dns", "chargen", "byte 0 is not what was sent"),
        ("raw", "discard", "it ended after 0 of 64 bytes"),
        ("raw", "discard-unix", "it ended after 0 of 64 bytes"),
        # Nothing comes back of bytes with no byte 10 among them, or what is before that.
        ("raw", "line", "byte"),
        ("line", "upper", "does not end with the line that was sent"),
        ("health", "chargen", "it says b' !"),
        ("raw", "raw-tls", "it ended after 0 of 64 bytes"),
        ("raw", "denied", " after 0 "),
        ("raw", "proxied", " after 0 "),
    ],
)
def test_otherProtocols(places: dict[str, str], protocol: str, name: str, part: str) -> None:
    """Status 4, and what came instead."""
    place = places[name].replace("tls:", "tcp:")
    status, line = wrong("--protocol", protocol, place)
    assert status == WRONG
    assert part in line
    if protocol == "raw" and name.startswith("chargen"):
        checkChargen(line)


def checkChargen(line: str) -> None:
    """
    The characters of chargen's first line are told, from the first that is not the one sent.

    What is sent is random: once in 256 times it begins with the same.
    """
    match = re.search(r"byte (\d+) is not what was sent: (b.+): is that protocol ", line)
    assert match is not None
    shown = ast.literal_eval(match[2])
    assert len(shown) > 10
    assert bytes(range(32, 127))[int(match[1]) :].startswith(shown)


def test_otherProtocolOverTLS(places: dict[str, str], certificates: Certificates) -> None:
    for name in ("chargen-tls", "discard-tls"):
        status, line = wrong(places[name], "--ca", certificates.ca)
        assert status == WRONG
        if name == "chargen-tls":
            checkChargen(line)
        else:
            assert "it ended after 0 of 64" in line


def echoing(change: Callable[[bytes], bytes]) -> Callable[[socket.socket], object]:
    """Answers at the client's FIN with what it sent, changed."""
    return lambda client: client.sendall(change(receiveAll(client)))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda data: data + b"x", "more came than was sent: b'x'"),
        (lambda data: data + data, "more came than was sent"),
        (lambda data: data[:-1], "it ended after 4999 of 5000 bytes"),
        (lambda data: data[:4000] + bytes([data[4000] ^ 1]) + data[4001:], "byte 4000 is not"),
        (lambda data: b"", "it ended after 0 of 5000 bytes"),
    ],
)
def test_changed(change: Callable[[bytes], bytes], part: str) -> None:
    """E1: no byte is missing, none is another, none is too many."""
    with serving(echoing(change)) as place:
        status, line = wrong("--size", "5000", place)
    assert status == WRONG
    assert part in line


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (lambda line: b"", "it ended after 0 of 64 bytes"),
        (lambda line: line[:-1], "it ended after 63 of 64 bytes"),
        (lambda line: line + b"x", "more came than was sent: b'x'"),
        (lambda line: b"hello\n" + line, "b'hello' does not end with the line that was sent"),
        (lambda line: b"x" * 5000 + line, "does not end with the line that was sent"),
    ],
)
def test_changedLine(answer: Callable[[bytes], bytes], part: str) -> None:
    """Anything may stand before a line, but no other line and no megabytes, and nothing behind."""

    def reply(client: socket.socket) -> None:
        client.sendall(answer(client.makefile("rb").readline()))

    with serving(reply) as place:
        status, line = wrong("--protocol", "line", place)
    assert status == WRONG
    assert part in line


def test_reset() -> None:
    """C3: RST is not EOF."""

    def answer(client: socket.socket) -> None:
        client.recv(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving(answer) as place:
        status, line = wrong(place)
    assert status == WRONG
    assert "Connection reset by peer after 0 bytes: is that protocol served there" in line


def test_otherDatagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)

        def answer() -> None:
            data, sender = server.recvfrom(100)
            server.sendto(data[:-1], sender)

        thread = threading.Thread(target=answer)
        thread.start()
        status, line = wrong(f"udp:{server.getsockname()[1]}")
        thread.join()
    assert status == WRONG
    assert "the answer has 63 bytes" in line


def test_ready(places: dict[str, str]) -> None:
    """O1: a listener of health's says one word and ends."""
    place = places["health"].replace(":", " 127.0.0.1:")
    assert right("--protocol", "health", places["health"]).startswith(f"ok health {place} bytes=6")
    with serving(lambda client: client.sendall(b"ready\r\n")) as other:
        assert right("--protocol", "health", other)


@pytest.mark.parametrize("said", [b"draining\n", b"", b"not ready\n"])
def test_notReady(said: bytes) -> None:
    with serving(lambda client: client.sendall(said)) as place:
        status, line = wrong("--protocol", "health", place)
    assert status == WRONG
    assert f"it says {said!r}, not ready" in line


# -- TLS fails -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "part"),
    [
        ("raw-tls", ("--ca", "{stranger}"), "unable to get local issuer certificate"),
        ("raw-tls", (), "unable to get local issuer certificate"),
        ("raw-tls", ("--ca", "{ca}", "--server-name", "other.example"), "is not for other.example"),
        ("line-tls", ("--ca", "{ca}"), "CERTIFICATE_REQUIRED"),
        ("line-tls", ("--ca", "{ca}", "--cert", "{stranger}"), "UNKNOWN_CA"),
        ("raw", ("--ca", "{ca}"), ""),
        ("chargen", ("--ca", "{ca}"), "WRONG_VERSION_NUMBER"),
        ("discard", ("--ca", "{ca}", "--timeout", "0.3"), None),
        ("dns-tls", ("--ca", "{ca}"), "within the handshake"),
    ],
)
def test_tlsFails(
    places: dict[str, str],
    certificates: Certificates,
    name: str,
    arguments: tuple[str, ...],
    part: str | None,
) -> None:
    """Status 5: who it is, who we are, and whether there is TLS at all; and what to look at."""
    files = {"ca": certificates.ca, "stranger": certificates.stranger}
    given = [argument.format(**files) for argument in arguments]
    status, line = wrong(*given, places[name].replace("tcp:", "tls:"))
    if part is None:
        assert status == TIMED_OUT
        return
    assert status == TLS
    assert "TLS failed: " in line
    assert part in line
    assert "see to --ca, --server-name and --cert" in line


def test_truncated(certificates: Certificates) -> None:
    """L2: all bytes, and then FIN without close_notify."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)

    def answer(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as secured:
            data = secured.recv(100)
            secured.sendall(data)
            # What is left is the client's close_notify; unread, it would make this a reset.
            assert secured.recv(100) == b""

    with serving(answer) as place:
        arguments = ("--ca", certificates.ca, place.replace("tcp:", "tls:"))
        status, line = wrong(*arguments)
    assert status == TLS
    assert "the other end stopped without close_notify" in line
