"""`echod.client.check` where nobody is there, a host has several addresses, or whoever is there
resets."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from echod.client.check import runCheck
from tests.certificates import Certificates
from tests.integration.daemon import PATIENCE, run
from tests.integration.namespaces import namespace, needsRoot

RIGHT, USAGE, REFUSED, TIMED_OUT, WRONG, TLS = range(6)
#: How often an outcome must be the same.
OFTEN = 50
Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """Runs it in this process; returns the status and its one line."""

    def ran(*arguments: str) -> tuple[int, str]:
        status = runCheck(arguments)
        said = capsys.readouterr()
        (line,) = (said.out + said.err).splitlines()
        return status, line

    return ran


# -- Nobody is there -------------------------------------------------------------------------

#: In a network whose only port for clients is the one that is asked.
_ONE_PORT = """
import os, socket
with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as range_:
    range_.write("40000 40000")

def isFree():
    # Without SO_REUSEADDR: not even a connection in TIME_WAIT is left.
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 40000))
"""
_CHECK_ITSELF = """
from echod.client.check import runCheck
hosts = ["127.0.0.1"] + [r"\\:\\:1"] * os.path.exists("/proc/net/if_inet6")
for place in [f"{kind}:40000:host={host}" for kind in ("tcp", "tls", "udp") for host in hosts]:
    for arguments in [[place]] * 3 + [["--proxy", place]]:
        status = runCheck(arguments)
        assert status == 2, (arguments, status)
    isFree()
"""
_CONNECT_TO_ITSELF = """
from twisted.internet import task
from twisted.internet.defer import Deferred
from echod.client import ClientTLS, connect
from echod.errors import ConnectFailed

async def main():
    for tls in (None, ClientTLS()):
        for host in ("127.0.0.1", "localhost"):
            try:
                await connect(host, 40000, tls=tls)
            except ConnectFailed as error:
                assert "refused" in str(error), error
            else:
                raise AssertionError("connected to itself")
        isFree()

task.react(lambda reactor: Deferred.fromCoroutine(main()))
"""


@needsRoot
@pytest.mark.parametrize("script", [_CHECK_ITSELF, _CONNECT_TO_ITSELF], ids=["check", "client"])
def test_itself(script: str) -> None:
    """A socket that the kernel has connected to itself has found nobody; the port is free again."""
    with namespace() as inside:
        done = run("-c", _ONE_PORT + script, command=[*inside, sys.executable])
    assert done.returncode == 0, done.stderr
    for line in done.stderr.splitlines():
        assert line.endswith(": Connection refused: start echod, or name where it listens"), line


# -- Several addresses -----------------------------------------------------------------------


def answerAll(listening: socket.socket, answer: Callable[[socket.socket], object]) -> None:
    """Serve one connection after another until the listening socket is shut down."""
    while True:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        with client, suppress(OSError):
            client.settimeout(PATIENCE)
            answer(client)


@contextmanager
def served(
    listening: socket.socket, answer: Callable[[socket.socket], object]
) -> Iterator[socket.socket]:
    """Serve in a thread."""
    thread = threading.Thread(target=answerAll, args=(listening, answer))
    thread.start()
    try:
        yield listening
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)
        listening.close()


def echo(client: socket.socket) -> None:
    """Send back what comes, up to EOF."""
    while data := client.recv(65536):
        client.sendall(data)


class Network:
    """
    A port at several addresses of the loopback network, each with somebody else.

    :ivar port: the port.
    :ivar datagrams: what has come to UDP sockets, by address.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = int(server.getsockname()[1])

    def echoing(self, address: str) -> None:
        """TCP and UDP that answer."""
        listening = socket.create_server((address, self.port))
        self._stack.enter_context(served(listening, echo))
        receiving = self._bound(address)

        def answer() -> None:
            while True:
                data, sender = receiving.recvfrom(65536)
                if not data:
                    return
                receiving.sendto(data, sender)

        thread = threading.Thread(target=answer)
        thread.start()

        def end() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", (address, self.port))
            thread.join(PATIENCE)

        self._stack.callback(end)

    def silent(self, address: str) -> None:
        """A queue that is full, where SYNs are dropped; and datagrams that nobody reads."""
        listening = socket.create_server((address, self.port), backlog=0)
        self._stack.enter_context(closing(listening))
        self._stack.enter_context(socket.create_connection((address, self.port)))
        self._bound(address)

    def _bound(self, address: str) -> socket.socket:
        receiving = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._stack.enter_context(closing(receiving))
        receiving.bind((address, self.port))
        return receiving


@pytest.fixture
def network() -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(stack)


#: A family of addresses that no kernel has had for long (``AF_WANPIPE``, Linux 2.6).
NO_FAMILY = 24


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names and their addresses, as a resolver has them; ``none`` is of an unknown family."""
    known: dict[str, list[str]] = {}
    asked = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *rest: int, **named: int) -> Any:
        if host not in known or named.get("flags"):
            return asked(host, port, *rest, **named)
        families = {"none": NO_FAMILY}
        return [
            (families.get(address, socket.AF_INET), named["type"], 0, "", (address, port))
            for address in known[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize(
    "before",
    [
        ["127.0.0.2"],
        ["127.0.0.3"],
        ["none"],
        ["none", "127.0.0.3", "127.0.0.2", "127.0.0.2", "127.0.0.4"],
    ],
    ids=["silent", "refuses", "no family", "all of them"],
)
def test_laterAddress(
    check: Check, network: Network, hosts: dict[str, list[str]], kind: str, before: list[str]
) -> None:
    """RFC 8305: whoever answers is found behind those who refuse or say nothing."""
    network.silent("127.0.0.2")
    network.echoing("127.0.0.9")
    hosts["several.example"] = [*before, "127.0.0.9"]
    status, line = check(f"{kind}:{network.port}:host=several.example")
    assert status == RIGHT, line
    # However short the time is, each gets its part of it.
    status, line = check("--timeout", "2", f"{kind}:{network.port}:host=several.example")
    assert status == RIGHT, line


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_allRefuse(check: Check, network: Network, hosts: dict[str, list[str]], kind: str) -> None:
    """Each address is named, with its reason; the mend is of those who are there."""
    hosts["several.example"] = ["none", "127.0.0.3", "127.0.0.4"]
    status, line = check(f"{kind}:{network.port}:host=several.example")
    assert status == REFUSED
    assert line.endswith(
        ": cannot connect: Address family not supported by protocol (none),"
        " Connection refused (127.0.0.3, 127.0.0.4): start echod, or name where it listens"
    )


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_oneIsSilent(
    check: Check, network: Network, hosts: dict[str, list[str]], kind: str
) -> None:
    """The time is up for one of them: it may be there."""
    network.silent("127.0.0.2")
    hosts["several.example"] = ["127.0.0.3", "127.0.0.2"]
    status, line = check("--timeout", "0.4", f"{kind}:{network.port}:host=several.example")
    assert status == TIMED_OUT
    assert " within 0.4 s: Connection refused (127.0.0.3), no answer (127.0.0.2): is echod" in line


def test_fullQueue(check: Check, tmp_path: Path) -> None:
    """A UNIX socket whose queue is full is waited for, and is not "temporarily unavailable"."""
    path = str(tmp_path / "full.sock")
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(path)
        listening.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        status, line = check("--timeout", "0.3", f"unix:{path}")
    assert status == TIMED_OUT
    assert "no connection within 0.3 s: is echod stopped, or a firewall" in line


# -- The hint fits ---------------------------------------------------------------------------


def test_noSuchHost(check: Check) -> None:
    """Whoever misspells a host need not start echod."""
    status, line = check("tcp:7:host=nobody.invalid")
    assert status == REFUSED
    assert "tcp nobody.invalid:7: cannot connect: " in line
    assert "start echod" not in line
    assert "see DNS and /etc/hosts" in line or "/etc/resolv.conf" in line


@needsRoot
def test_noRoute() -> None:
    with namespace() as inside:
        for kind in ("tcp", "udp"):
            command = [*inside, sys.executable, "-m", "echod", "check"]
            done = run(f"{kind}:7:host=192.0.2.1", command=command)
            assert done.returncode == REFUSED
            assert (
                ": cannot connect: Network is unreachable: see this machine's routes" in done.stderr
            )


def test_forbidden(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broadcast address is refused by the kernel, as a firewall's rule is."""
    for kind in ("tcp", "udp"):
        status, line = check(f"{kind}:7:host=255.255.255.255")
        assert status == REFUSED
        assert "start echod" not in line


# -- Resets ----------------------------------------------------------------------------------


def reset(client: socket.socket) -> None:
    """Close with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def closeUnread(client: socket.socket) -> None:
    client.recv(1)


def echoAndReset(client: socket.socket) -> None:
    echo(client)
    reset(client)


def finishAndReset(client: socket.socket) -> None:
    """FIN, and RST behind it: the client's error is EPIPE then."""
    client.shutdown(socket.SHUT_WR)
    reset(client)


def halfAndReset(client: socket.socket) -> None:
    client.sendall(client.recv(32))
    reset(client)


RESETS = [reset, socket.socket.close, closeUnread, echoAndReset, finishAndReset, halfAndReset]
CASES = [(protocol, answer) for answer in RESETS for protocol in ("raw", "line", "dns")]
# A client of health's says nothing, which the others wait for.
CASES += [("health", answer) for answer in (reset, socket.socket.close, finishAndReset)]


@pytest.mark.parametrize(("protocol", "answer"), CASES)
def test_reset(check: Check, answer: Callable[[socket.socket], None], protocol: str) -> None:
    """Status 4 whenever it comes: there was somebody, who does not echo."""
    with served(socket.create_server(("127.0.0.1", 0)), answer) as listening:
        place = f"tcp:{listening.getsockname()[1]}"
        found = {check("--protocol", protocol, place)[0] for _ in range(OFTEN)}
    assert found == {WRONG}


@pytest.mark.parametrize("answer", [socket.socket.close, closeUnread])
def test_resetOfUNIX(check: Check, tmp_path: Path, answer: Callable[[Any], None]) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "reset.sock"))
    listening.listen()
    with served(listening, answer):
        found = {check(f"unix:{tmp_path}/reset.sock")[0] for _ in range(OFTEN)}
    assert found == {WRONG}


def closeAbruptly(client: socket.socket) -> None:
    """FIN or RST, as what has come was read or not; over TLS no close_notify."""
    client.close()


PLAIN = [reset, closeAbruptly, closeUnread, finishAndReset]
SECURED = [reset, closeAbruptly, halfAndReset]


@pytest.mark.parametrize(
    ("answer", "handshake"),
    [*((answer, False) for answer in PLAIN), *((answer, True) for answer in SECURED)],
)
def test_resetOfTLS(
    check: Check,
    certificates: Certificates,
    answer: Callable[[socket.socket], None],
    handshake: bool,
) -> None:
    """Status 5, as of every end without close_notify: FIN or RST is chance."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server)

    def secured(client: socket.socket) -> None:
        answer(context.wrap_socket(client, server_side=True) if handshake else client)

    with served(socket.create_server(("127.0.0.1", 0)), secured) as listening:
        place = f"tls:{listening.getsockname()[1]}"
        found = {check(place, "--ca", certificates.ca)[0] for _ in range(OFTEN)}
    assert found == {TLS}
