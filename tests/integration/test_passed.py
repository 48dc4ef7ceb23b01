"""Sockets that were passed: what they are is theirs to say, and they outlive their daemons."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.protocol import Factory, Protocol

from echod.config.settings import Configuration
from echod.errors import ListenError
from echod.kit.makers import FactoryMaker
from echod.protocols.raw import raw
from echod.server.plan import ListenerRequest, plan
from echod.server.registry import Registry
from echod.server.service import EchodService
from tests.certificates import Certificates
from tests.integration.daemon import (
    MODULE,
    PATIENCE,
    TWISTD,
    Daemonised,
    exchange,
    idle,
    receiveAll,
    waitFor,
)
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.loaded import runLoaded
from tests.integration.passing import passing
from tests.integration.peers import noise, ping


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    """A listening socket of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0), backlog=300) as listening:
        yield listening


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[socket.socket]:
    """A listening UNIX socket whose file is its owner's alone."""
    path = tmp_path / "echod.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(300)
        yield listening


def datagrams(host: str = "127.0.0.1") -> socket.socket:
    """A bound UDP socket, blocking as systemd makes it; one of ``::`` is for IPv4 too."""
    skt = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    skt.bind((host, 0))
    return skt


def serving(sockets: Sequence[Any], *arguments: str, protocol: str = "raw") -> Daemon:
    """A daemon that serves ``protocol`` on all of them, under one name."""
    names = ":".join(["x"] * len(sockets))
    return Daemon("--listen", f"{protocol}=systemd:name=x", *arguments, **passing(sockets, names))


def connect(listening: socket.socket) -> socket.socket:
    """A client of whoever accepts there."""
    client = socket.socket(listening.family)
    client.settimeout(PATIENCE)
    try:
        client.connect(listening.getsockname())
    except BaseException:
        client.close()
        raise
    return client


def ask(skt: socket.socket, address: Any, data: bytes) -> tuple[bytes, Any]:
    """A datagram and its answer, with who sent that."""
    skt.settimeout(PATIENCE)
    skt.sendto(data, address)
    answer, sender = skt.recvfrom(1 << 17)
    return answer, sender[:2]


def backlogOf(listening: socket.socket) -> int:
    """The backlog of a listening socket, as the kernel tells it."""
    name = listening.getsockname()
    isPath = isinstance(name, str)
    words = ["-lxH"] if isPath else ["-ltnH"]
    wanted = name if isPath else f"{name[0]}:{name[1]}"
    done = subprocess.run(["ss", *words], capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if wanted in line.split()]
    fields = line.split()
    return int(fields[fields.index("LISTEN") + 2])


def serviceOn(number: int, maker: Any) -> EchodService:
    """In this process, a service that adopts a descriptor."""
    from twisted.internet import reactor

    request = ListenerRequest(place="--port", protocol=maker.name, endpoint=f"fd:{number}")
    planned = plan(Configuration(), [request], Registry([maker]), 1 << 16)
    return EchodService(planned, reactor)


# -- What is passed is served ----------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_537, 3_000_000])
def test_halfClose(stack: ExitStack, tcp: socket.socket, unix: socket.socket, size: int) -> None:
    """E1: on each socket of one name every byte that came before the FIN comes back."""
    tcp6 = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
    data = noise(size)
    with serving([tcp, tcp6, unix]) as daemon:
        shown = [line.partition("listening ")[2] for line in daemon.lines if "listening" in line]
        assert shown == [
            f"raw tcp 127.0.0.1:{tcp.getsockname()[1]} (adopted)",
            f"raw tcp [::1]:{tcp6.getsockname()[1]} (adopted)",
            f"raw unix {unix.getsockname()} (adopted)",
        ]
        for listening in (tcp, tcp6, unix):
            assert exchange(connect(listening), data) == data
        assert [each["bytes_in"] for each in daemon.allCounters()["listeners"]] == [size] * 3
        assert daemon.stop() == 0


def test_words(stack: ExitStack, tmp_path: Path, tcp: socket.socket) -> None:
    """Options, ``--listen`` and a file take the words; all sorts of sockets in one daemon."""
    udp = stack.enter_context(datagrams())
    two = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    file = tmp_path / "echod.toml"
    file.write_text(
        '[[listener]]\nprotocol = "raw"\nendpoint = "systemd:name=t"\n'
        '[[listener]]\nprotocol = "udp"\nendpoint = "fd:4"\n'
        '[[listener]]\nprotocol = "line"\nendpoint = "fd:5"\n'
    )
    options = ["--port", "systemd:name=t", "--udp-port", "fd:4", "--line-port", "systemd:name=l"]
    listens = ["-l", "raw=fd:3", "-l", "udp=systemd:name=u", "-l", "line=systemd:name=l"]
    for arguments in (options, listens, ["--config", str(file)]):
        with (
            Daemon(*arguments, **passing([tcp, udp, two], "t:u:l", command=MODULE)) as daemon,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            assert exchange(connect(tcp), b"stream") == b"stream"
            assert exchange(connect(two), b"line\nrest") == b"line\n"
            assert ask(client, udp.getsockname(), b"d") == (b"d", udp.getsockname())
            assert daemon.stop() == 0


def test_layers(
    stack: ExitStack, tmp_path: Path, tcp: socket.socket, certificates: Certificates
) -> None:
    """P5: a PROXY header and TLS are the listener's, whoever made its socket, or its sockets."""
    two = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    file = tmp_path / "echod.toml"
    file.write_text(
        '[[listener]]\nprotocol = "raw"\nendpoint = "systemd:name=x"\nproxy = ["127.0.0.1"]\n'
        f'[listener.tls]\ncert = "{certificates.server}"\n'
    )
    data = noise(65_537)
    arguments = ["--config", str(file), "--log-connections"]
    with Daemon(*arguments, **passing([tcp, two], "x:x")) as daemon:
        for listening in (tcp, two):
            where = f"raw tcp 127.0.0.1:{listening.getsockname()[1]} (adopted, tls, proxy)"
            daemon.waitForLine(f"listening {where}")
            client = connect(listening)
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 7\r\n")
            with certificates.context().wrap_socket(client, server_hostname="localhost") as tls:
                ping(tls, data)
                tls.unwrap().close()
            daemon.waitForLine("192.0.2.1:1000")
        assert daemon.stop() == 0


def test_nameOfAnyBytes(stack: ExitStack, tmp_path: Path) -> None:
    """A path that is no UTF-8: counters, log and `whoami` tell it as printable text."""
    listening = stack.enter_context(socket.socket(socket.AF_UNIX))
    listening.bind(os.fsencode(tmp_path) + b"/\xff.sock")
    listening.listen()
    shown = f"{tmp_path}/\\xff.sock"
    with serving([listening], "--log-connections", protocol="whoami") as daemon:
        daemon.waitForLine(f"listening whoami unix {shown} (adopted)")
        facts = json.loads(exchange(connect(listening), b""))
        assert facts["local"] == shown
        assert daemon.allCounters()["listeners"][0]["listener"] == f"whoami unix {shown} (adopted)"
        assert daemon.stop() == 0
    assert "Traceback" not in "".join(daemon.lines)


@pytest.mark.parametrize("v6only", [True, False])
def test_dualStack(v6only: bool) -> None:
    """Whether IPv4 comes to an IPv6 socket is what its maker chose."""
    with socket.socket(socket.AF_INET6) as listening:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        listening.bind(("::", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with serving([listening], "--log-connections", "--deny", "127.0.0.2/32") as daemon:
            daemon.waitForLine(f"listening raw tcp [::]:{port} (adopted)")
            assert exchange(socket.create_connection(("::1", port)), b"six") == b"six"
            if v6only:
                # So that nobody else listens there meanwhile: the system gives each number twice.
                with socket.socket() as taken:
                    taken.bind(("127.0.0.1", port))
                    with pytest.raises(ConnectionRefusedError):
                        socket.create_connection(("127.0.0.1", port))
            else:
                assert exchange(socket.create_connection(("127.0.0.1", port)), b"4") == b"4"
                # Limits know it by its IPv4 address.
                with socket.create_connection(
                    ("127.0.0.1", port), source_address=("127.0.0.2", 0)
                ) as client:
                    assert client.recv(1) == b""
                assert daemon.counters()["raw"]["refused"] == {"denied": 1}


def test_abstractName() -> None:
    """A UNIX socket in no file system, and one whose name the system chose."""
    for name in (f"\0echod-passed-{os.getpid()}", ""):
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(name)
            listening.listen()
            shown = os.fsdecode(listening.getsockname()[1:])
            with serving([listening], protocol="whoami") as daemon:
                daemon.waitForLine(f"listening whoami unix @{shown} (adopted)")
                with connect(listening) as client:
                    facts = client.makefile().readline()
                # SO_PEERCRED is of who connected, whoever listens.
                assert f'"process":{os.getpid()}' in facts
                assert shown in facts
                assert daemon.stop() == 0


# -- UDP -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_everySize(host: str) -> None:
    """E2: one datagram of the same data for each, of any size, also from a blocking socket."""
    with (
        datagrams(host) as udp,
        datagrams(host) as client,
        serving([udp], protocol="udp") as daemon,
    ):
        shown = f"[{host}]" if ":" in host else host
        daemon.waitForLine(f"listening udp udp {shown}:{udp.getsockname()[1]} (adopted)")
        for size in (0, 1, 8193, 65_507):
            data = noise(size)
            assert ask(client, udp.getsockname(), data) == (data, udp.getsockname()[:2])
        counters = daemon.counters()["udp"]
        assert (counters["datagrams_out"], counters["errors"]) == (4, {})
        assert daemon.stop() == 0


@pytest.mark.parametrize("interface", ["127.0.0.1", "0.0.0.0", "::"])
def test_datagramsThatWereThereBefore(interface: str) -> None:
    """E2: what started us is answered too, from the address that was asked."""
    with ExitStack() as stack:
        udp = stack.enter_context(datagrams(interface))
        port = udp.getsockname()[1]
        hosts = ["127.0.0.1"] if interface == "127.0.0.1" else ["127.0.0.1", "127.0.0.2"]
        hosts += ["::1"] * (interface == "::")
        clients = {
            host: stack.enter_context(datagrams("::1" if ":" in host else "127.0.0.9"))
            for host in hosts
        }
        for host, client in clients.items():
            client.sendto(b"early", (host, port))
        with serving([udp], protocol="udp") as daemon:
            for host, client in clients.items():
                client.settimeout(PATIENCE)
                data, sender = client.recvfrom(100)
                assert (data, sender[:2]) == (b"early", (host, port))
                assert ask(client, (host, port), b"late") == (b"late", (host, port))
            assert daemon.counters()["udp"]["refused"] == {}


def test_broadcastsThatWereThereBefore() -> None:
    """E6: and what went to everybody is answered by nobody, also then."""
    with datagrams("0.0.0.0") as udp, datagrams() as client:
        port = udp.getsockname()[1]
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        group = socket.inet_aton("239.86.2.7") + socket.inet_aton("127.0.0.1")
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        for host in ("127.255.255.255", "239.86.2.7"):
            client.sendto(b"everybody?", (host, port))
        with serving([udp], protocol="udp") as daemon:
            assert ask(client, ("127.0.0.1", port), b"you?")[0] == b"you?"
            counters = daemon.counters()["udp"]
            assert (counters["datagrams_in"], counters["datagrams_out"]) == (3, 1)
            # The one to the group is known by its address; the kernel refuses the other.
            assert counters["refused"] == {"not_unicast": 1}
            assert sum(counters["errors"].values()) == 1


# -- However it is started -------------------------------------------------------------------


def test_inTheBackground(tmp_path: Path, tcp: socket.socket, unix: socket.socket) -> None:
    """LISTEN_PID is read before ``twistd`` forks, and is another process's afterwards."""
    arguments = passing([tcp, unix], "x:x", command=[])
    with Daemonised(tmp_path) as daemonised:
        ended = daemonised.start(
            "--port",
            "systemd:name=x",
            before=arguments["command"],
            descriptors=arguments["descriptors"],
        )
        assert ended.returncode == 0, ended
        assert daemonised.ports() == {"raw": tcp.getsockname()[1]}
        for listening in (tcp, unix):
            assert exchange(connect(listening), b"hello") == b"hello"


def test_standardInput(tcp: socket.socket) -> None:
    """A descriptor that nobody tells of: as inetd's, the standard input."""
    script = "import os, sys; os.dup2(int(sys.argv[1]), 0); os.execv(sys.argv[2], sys.argv[2:])"
    command = [sys.executable, "-c", script, str(tcp.fileno()), *MODULE]
    with Daemon("--port", "fd:0", command=command, descriptors=[tcp.fileno()]) as daemon:
        assert exchange(connect(tcp), b"hello") == b"hello"
        assert daemon.stop() == 0


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None,
    reason="systemd-socket-activate is not installed",
)
@pytest.mark.parametrize("name", ["echod", None])
@pytest.mark.parametrize("kind", ["tcp", "unix", "udp"])
def test_systemdsOwn(tmp_path: Path, kind: str, name: str | None) -> None:
    """
    What systemd itself passes, names missing or not, is served to who came first.

    It starts the daemon at the first connection or datagram.
    """
    address: Any = str(tmp_path / "echod.sock")
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    style = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
    if kind != "unix":
        with socket.socket(family, style) as free:
            free.bind(("127.0.0.1", 0))
            address = free.getsockname()
    where = address if kind == "unix" else "{}:{}".format(*address)
    command = ["systemd-socket-activate", "-l", where]
    command += ["--datagram"] * (kind == "udp") + [f"--fdname={name}"] * (name is not None)
    for variable in ("PYTHONPATH", "PYTHONUNBUFFERED"):
        command += ["-E", variable] if variable in os.environ else []
    protocol = "udp" if kind == "udp" else "raw"
    word = f"{protocol}=systemd:name={name or 'unknown'}"
    answers: list[bytes] = []

    def first() -> None:
        """Come again until somebody listens: that starts the daemon, which then answers."""
        deadline = time.monotonic() + PATIENCE
        while not answers and time.monotonic() < deadline:
            with socket.socket(family, style) as client:
                client.settimeout(PATIENCE if kind != "udp" else 0.2)
                try:
                    client.connect(address)
                    client.sendall(b"first")
                    if kind != "udp":
                        client.shutdown(socket.SHUT_WR)
                    answers.append(client.recv(100))
                except OSError:
                    idle(0.01, "nobody listens yet")

    thread = threading.Thread(target=first)
    thread.start()
    try:
        with Daemon("--listen", word, command=[*command, *MODULE]) as daemon:
            daemon.waitForLine(f"listening {protocol} {kind} {where} (adopted)")
            thread.join()
            assert answers == [b"first"]
            assert daemon.stop() == 0
    finally:
        thread.join()


# -- They are left as they were --------------------------------------------------------------


def test_unixFileIsNotOurs(unix: socket.socket) -> None:
    """Mode, backlog and path before, while and after; it listens on."""
    path = Path(unix.getsockname())

    def state() -> tuple[int, int, int]:
        found = path.stat()
        return stat.S_IMODE(found.st_mode), found.st_ino, backlogOf(unix)

    before = state()
    assert before[::2] == (0o600, 300)
    for _ in range(2):
        with serving([unix]) as daemon:
            assert exchange(connect(unix), b"hello") == b"hello"
            assert state() == before
            assert daemon.stop() == 0
        assert state() == before
    with connect(unix), unix.accept()[0]:
        assert state() == before


def test_tcpListensOn(tcp: socket.socket) -> None:
    """Backlog as before; no shutdown: the next daemon has who came in between."""
    assert backlogOf(tcp) == 300
    with serving([tcp]) as daemon:
        assert exchange(connect(tcp), b"first") == b"first"
        assert backlogOf(tcp) == 300
        assert daemon.stop() == 0
    assert backlogOf(tcp) == 300
    with connect(tcp) as waiting:
        waiting.sendall(b"second")
        waiting.shutdown(socket.SHUT_WR)
        with serving([tcp]):
            assert receiveAll(waiting) == b"second"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")
def test_withoutPrivileges(tmp_path: Path, unix: socket.socket) -> None:
    """A file in a folder that is closed to us costs nothing, at the end either."""
    user = pwd.getpwnam("nobody")
    tmp_path.chmod(0o700)
    command = [TWISTD[0], "-n", "--pidfile=", f"--uid={user.pw_uid}", f"--gid={user.pw_gid}"]
    arguments = passing([unix], "x", command=[*command, "echod"])
    with Daemon("--port", "systemd:name=x", **arguments, cwd="/") as daemon:
        assert exchange(connect(unix), b"hello") == b"hello"
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        assert re.search(rf"^Uid:\t{user.pw_uid}\t", status, re.MULTILINE)
        assert daemon.stop() == 0
    assert Path(unix.getsockname()).exists()


@pytest.mark.parametrize("keepalive", [60, 0])
def test_keepalive(tcp: socket.socket, keepalive: int) -> None:
    """The options of our own sockets, for who came before us too: as configured, either way."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, not keepalive)
    with connect(tcp) as early, serving([tcp], "--keepalive", str(keepalive)), connect(tcp) as late:
        for client in (early, late):
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            port = client.getsockname()[1]

            def timer(port: int = port) -> str | None:
                # Only once nothing is unacknowledged it is the one of keepalive.
                words = ["ss", "-tnoH", "state", "established", f"( dport = :{port} )"]
                found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
                assert found.count("\n") == 1
                match = re.search(r"timer:\((\w+),", found)
                kind = match[1] if match else "none"
                return kind if kind in ("keepalive", "none") else None

            assert waitFor(timer, "a socket at rest") == ("keepalive" if keepalive else "none")


def test_urgentByte(tcp: socket.socket) -> None:
    """An urgent byte comes back to who came before us too."""
    with connect(tcp) as early:
        early.send(b"!", socket.MSG_OOB)
        early.sendall(b"hello")
        early.shutdown(socket.SHUT_WR)
        with serving([tcp]):
            assert receiveAll(early) == b"!hello"


# -- What cannot be served -------------------------------------------------------------------


def refused(arguments: dict[str, Any], *options: str) -> str:
    """O3: exit status 1 and one line; returns what follows ``echod: ``."""
    ended = runLoaded(*options, **arguments)
    assert (ended.returncode, ended.stdout) == (1, ""), ended
    line: str = ended.stderr.removesuffix("\n").removeprefix("echod: ")
    assert line.isprintable()
    return line


@pytest.mark.parametrize("command", [TWISTD, MODULE], ids=["twistd", "module"])
def test_refused(stack: ExitStack, tcp: socket.socket, command: list[str]) -> None:
    """Each mistake in one line that names it and the mend."""
    udp = stack.enter_context(datagrams())
    where = f"tcp 127.0.0.1:{tcp.getsockname()[1]}"
    both = [tcp, udp]
    for arguments, options, message in (
        (
            passing([tcp], "x", command=command),
            ["--port", "systemd:name=y"],
            "--port systemd:name=y: no socket named 'y' was passed (there are: x)",
        ),
        (
            passing([tcp], command=command),
            ["--port", "systemd:name=y"],
            "--port systemd:name=y: no socket named 'y' was passed (there are: unknown)",
        ),
        (
            passing(both, "x:y", command=command),
            ["--port", "systemd:name=x"],
            (
                "no listener uses what was passed as descriptor 4 (y): add --listen"
                " PROTOCOL=systemd:name=NAME, or take it out of the socket unit"
            ),
        ),
        (
            passing(both, "x", command=command),
            ["--port", "systemd:name=x"],
            (
                "LISTEN_FDNAMES is 'x', but LISTEN_FDS is 2: there must be one name for each"
                " descriptor"
            ),
        ),
        (
            passing([tcp], "x", command=command),
            ["--udp-port", "systemd:name=x"],
            (
                f"--udp-port systemd:name=x: systemd:name=x (descriptor 3, {where}) is for"
                " streams, and protocol 'udp' is not; choose another"
            ),
        ),
        (
            passing([tcp], "x", command=command),
            ["--port", "fd:3", "--line-port", "systemd:name=x"],
            "--line-port systemd:name=x: fd 3 is taken by --port fd:3; give it another",
        ),
        (
            {"command": command},
            ["--port", "fd:77"],
            "--port fd:77: descriptor 77 is not open; have whoever starts echod pass it",
        ),
    ):
        assert refused(arguments, *options) == message


def test_refusedInAFile(tmp_path: Path) -> None:
    """O3: with the file and the place in it."""
    file = tmp_path / "echod.toml"
    file.write_text('[[listener]]\nprotocol = "raw"\nendpoint = "systemd:name=x"\n')
    assert refused({"command": MODULE}, "--config", str(file)) == (
        f"{file}: $.listener[0].endpoint: no socket was passed: LISTEN_PID is not set:"
        " start echod by its socket unit"
    )


def test_passedToSomebodyElse(tcp: socket.socket) -> None:
    """A shell between systemd and us is told of; who asks for none is not concerned."""
    wrong = passing([tcp], "x", process="1", command=MODULE)
    message = refused(wrong, "--port", "systemd:name=x")
    assert message.startswith("--port systemd:name=x: no socket was passed: LISTEN_PID is '1' and")
    assert message.endswith(": a shell in ExecStart= must exec echod")
    with Daemon("--port", "0", **wrong) as daemon:
        assert exchange(daemon.connect(), b"own") == b"own"


# -- The end, and the next one ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_queueIsServed(kind: str, request: pytest.FixtureRequest) -> None:
    """O1: who waits to be accepted at SIGTERM is answered, as by any listener."""
    listening: socket.socket = request.getfixturevalue(kind)
    with serving([listening]) as daemon, ExitStack() as stack:
        os.kill(daemon.pid, signal.SIGSTOP)
        clients = [stack.enter_context(connect(listening)) for _ in range(200)]
        for client in clients:
            client.sendall(b"waiting")
            client.shutdown(socket.SHUT_WR)
        daemon.signal()
        os.kill(daemon.pid, signal.SIGCONT)
        assert [receiveAll(client) for client in clients] == [b"waiting"] * 200
        assert daemon.wait() == 0


def test_closedWhileOthersHoldIt(tcp: socket.socket) -> None:
    """
    A socket that lives on elsewhere does not keep us busy.

    Closed before it is taken out of epoll it would report each new client for ever (epoll(7), Q6).
    """
    arguments = ["--drain-timeout", "30", "--linger-timeout", "30"]
    with serving([tcp], *arguments) as daemon, connect(tcp) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        daemon.signal()
        # Our FIN: it has let go of the socket, and lingers for this client alone.
        assert client.recv(1) == b""
        with connect(tcp):
            before, began = daemon.cpu(), time.monotonic()
            waitFor(lambda: time.monotonic() > began + 1)
            assert daemon.cpu() - before < 0.3
        client.close()
        assert daemon.wait() == 0


def test_restart(tcp: socket.socket) -> None:
    """
    C4: nobody is refused or reset by a restart, whoever comes meanwhile.

    Each has all of its echo, or, if it was accepted and had not sent before we ended, none.
    """
    seen: Counter[str] = Counter()
    stop = threading.Event()

    def client() -> None:
        data = noise(1000)
        while not stop.is_set():
            try:
                got = exchange(connect(tcp), data)
            except OSError as error:
                seen[repr(error)] += 1
            else:
                seen["echo" if got == data else "nothing" if not got else "part"] += 1

    threads = [threading.Thread(target=client) for _ in range(4)]
    try:
        for number in range(4):
            with serving([tcp]) as daemon:
                if not number:
                    for thread in threads:
                        thread.start()
                count = seen["echo"]
                waitFor(lambda count=count: seen["echo"] > count + 50, "clients")  # type: ignore[misc]  # bound
                if number == 3:
                    stop.set()
                    for thread in threads:
                        thread.join()
                assert daemon.stop() == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(seen) <= {"echo", "nothing"}, seen
    assert seen["nothing"] <= 3 * len(threads)
    print(f"restarts: {dict(seen)}")  # noqa: T201  # a figure


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_traits(tcp: socket.socket) -> None:
    """O6: what is special of a listener is one list behind its address."""
    maker = FactoryMaker("plain", "no half-close", lambda: Factory.forProtocol(Protocol))
    service = serviceOn(os.dup(tcp.fileno()), maker)
    service.startService()
    where = f"tcp 127.0.0.1:{tcp.getsockname()[1]}"
    assert service.listeners[0].describe() == f"plain {where} (adopted, no half-close)"
    await service.stopService()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_notTwice(tcp: socket.socket) -> None:
    """Who stops a service and starts it again is told that the socket is gone."""
    number = os.dup(tcp.fileno())
    service = serviceOn(number, raw)
    service.startService()
    await service.stopService()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    with pytest.raises(ListenError) as caught:
        service.startService()
    where = f"tcp 127.0.0.1:{tcp.getsockname()[1]}"
    assert str(caught.value) == (
        f"cannot listen on {where} again: descriptor {number} was closed at the stop;"
        " start a new process, and have it passed anew"
    )
    await service.stopService()


@pytest.mark.parametrize("kind", ["tcp", "unix", "udp"])
def test_shutDownByAnother(tmp_path: Path, kind: str) -> None:
    """Another holder's shutdown(2): nobody can come any more; it says so, drains and ends."""
    skt = socket.socket(
        socket.AF_UNIX if kind == "unix" else socket.AF_INET,
        socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM,
    )
    with skt, socket.socket() as other:
        skt.bind(str(tmp_path / "socket") if kind == "unix" else ("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        other.listen()
        if kind != "udp":
            skt.listen()
        words = ["--listen", f"{'udp' if kind == 'udp' else 'raw'}=fd:{skt.fileno()}"]
        words += ["--listen", f"line=fd:{other.fileno()}"]
        with (
            Daemon(*words, descriptors=[skt.fileno(), other.fileno()]) as daemon,
            socket.create_connection(other.getsockname()) as client,
        ):
            client.sendall(b"a line\n")
            # Of datagrams it has effect, and says ENOTCONN (udp(7)).
            with suppress(OSError):
                skt.shutdown(socket.SHUT_RDWR)
            line = daemon.waitForLine("its socket was shut down by another process that holds it")
            assert ("critical" in line, kind in line) == (True, True)
            assert receiveAll(client) == b"a line\n"
            client.close()
            assert daemon.wait() == 75
