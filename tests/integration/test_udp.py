"""UDP: whole datagrams, from the address that was asked, and nothing that helps an attacker."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from echod.transports.udp import DATAGRAMS
from tests.integration.daemon import MODULE, PATIENCE, exchange, idle, waitFor
from tests.integration.loaded import LoadedDaemon as Daemon
from tests.integration.loaded import runLoaded
from tests.integration.peers import connect, noise

Address = tuple[str, int]


@contextmanager
def client(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as skt:
        skt.settimeout(PATIENCE)
        skt.bind((host, port))
        yield skt


def udp(*arguments: str) -> Daemon:
    return Daemon("--udp-port", "0", *arguments)


def addressOf(daemon: Daemon, protocol: str = "udp/udp", host: str = "127.0.0.1") -> Address:
    return host, daemon.ports[protocol]


def waitForCount(daemon: Daemon, key: str, count: int, protocol: str = "udp") -> dict[str, Any]:
    """The counters, once as many datagrams are counted."""

    def reached() -> dict[str, Any] | None:
        counters: dict[str, Any] = daemon.counters()[protocol]
        return counters if counters[key] >= count else None

    found: dict[str, Any] = waitFor(reached, f"{key} of {count}")
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_everySize(host: str) -> None:
    """E2: one datagram of the same data for each, of any size."""
    escaped = host.replace(":", r"\:")
    with Daemon("--udp-port", f"udp:0:interface={escaped}") as daemon, client(host) as skt:
        skt.connect(addressOf(daemon, host=host))
        for size in (0, 1, 1472, 8192, 8193, 60_000, 65_507):
            data = noise(size)
            skt.send(data)
            assert skt.recv(1 << 17) == data
        counters = waitForCount(daemon, "datagrams_out", 7)
        assert counters["datagrams_in"] == 7
        assert counters["bytes_in"] == counters["bytes_out"]
        assert (counters["refused"], counters["errors"]) == ({}, {})


def test_offUnlessAskedFor() -> None:
    """No UDP by default."""
    with Daemon(command=MODULE) as daemon:
        assert not [line for line in daemon.lines if "udp" in line]


def test_otherProtocols() -> None:
    """E3: ``dns`` echoes messages without a length; ``discard`` never answers."""
    listeners = ["--listen", "dns=udp:0", "--listen", "discard=udp:0", "-o", "dns.max_length=600"]
    with udp(*listeners) as daemon, client() as skt:
        skt.sendto(b"away", addressOf(daemon, "discard/udp"))
        skt.sendto(bytes(601), addressOf(daemon, "dns/udp"))
        skt.sendto(b"message", addressOf(daemon, "dns/udp"))
        assert skt.recv(100) == b"message"
        counters = waitForCount(daemon, "datagrams_in", 1, "discard")
        assert counters["datagrams_out"] == 0
        assert daemon.counters()["dns"]["datagrams_in"] == 2


def test_answersFromTheAddressThatWasAsked() -> None:
    """On 0.0.0.0 an answer comes from where the question went; on :: too, for IPv4 and IPv6."""
    everywhere = [("0.0.0.0", ["127.0.0.1", "127.0.0.2", "127.1.2.3"])]
    everywhere += [(r"\:\:", ["::1", "127.0.0.1", "127.0.0.2"])]
    for interface, hosts in everywhere:
        with Daemon("--udp-port", f"udp:0:interface={interface}") as daemon:
            for host in hosts:
                # From another address, so that the route alone would choose a wrong one.
                with client("::1" if ":" in host else "127.0.0.9") as skt:
                    asked = (host, daemon.ports["udp/udp"])
                    skt.sendto(b"where?", asked)
                    data, sender = skt.recvfrom(100)
                    assert (data, sender[:2]) == (b"where?", asked)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root binds ports below 1024")
def test_refusedPorts() -> None:
    """E6: a datagram from a port where something answers by itself gets no answer."""
    with udp("--listen", "dns=udp:0") as daemon:
        own = [daemon.ports["udp/udp"], daemon.ports["dns/udp"]]
        ports = [7, 9, 13, 17, 19, 37, 53, 69, 123, 161, 389, 1900, 11211]
        for number, port in enumerate([*ports, *own], 1):
            with client("127.0.0.3", port) as skt:
                skt.sendto(b"answer me", addressOf(daemon))
                counters = waitForCount(daemon, "datagrams_in", number)
                skt.setblocking(False)
                with pytest.raises(BlockingIOError):
                    skt.recv(100)
        assert counters["datagrams_out"] == 0
        assert counters["refused"] == {"reflector": len(ports), "own_port": len(own)}


def test_configuredPorts() -> None:
    """Which ports those are is an option."""
    with client() as one, client() as other:
        refused = one.getsockname()[1]
        with udp("--reflector-ports", f"99,{refused}") as daemon:
            one.sendto(b"x", addressOf(daemon))
            other.sendto(b"y", addressOf(daemon))
            assert other.recv(10) == b"y"
            assert waitForCount(daemon, "datagrams_in", 2)["refused"] == {"reflector": 1}


def forge(source: Address, destination: Address, payload: bytes) -> None:
    """Send a datagram that claims to come from somewhere."""
    header = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0)
    ip = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 28 + len(payload), 1, 0, 64, socket.IPPROTO_UDP, 0),
        *(socket.inet_aton(source[0]), socket.inet_aton(destination[0])),
    )
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as skt:
        skt.sendto(ip + header + payload, destination)


raw = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets are root's")


@raw
def test_forgedSources() -> None:
    """E6: port 0, broadcast and multicast sources are refused; nothing is sent, nothing logged."""
    with udp() as daemon:
        destination = addressOf(daemon)
        forge(("127.0.0.1", 0), destination, b"x")
        waitForCount(daemon, "datagrams_in", 1)
        lines = len(daemon.lines)
        counters = daemon.counters()["udp"]
        assert counters["refused"] == {"port_zero": 1}
        forge(("127.0.0.1", daemon.ports["udp/udp"]), destination, b"x")
        counters = waitForCount(daemon, "datagrams_in", 2)
        assert counters["refused"] == {"port_zero": 1, "own_port": 1}
        assert counters["datagrams_out"] == 0
        told = [line for line in daemon.lines[lines:] if "counters" not in line]
        assert len(told) <= 2
        assert all("refused udp udp 127.0.0.1" in line for line in told)


@raw
def test_loopOnOnePort() -> None:
    """E6: two echods on one port, one forged datagram: at most one answer."""
    with client("127.0.0.1") as skt:
        port = skt.getsockname()[1]
    one = Daemon("--udp-port", f"udp:{port}:interface=127.0.0.1")
    other = Daemon("--udp-port", f"udp:{port}:interface=127.0.0.2")
    with one, other:
        forge(("127.0.0.2", port), ("127.0.0.1", port), b"ping")
        waitForCount(one, "datagrams_in", 1)
        idle(0.3, "a loop would go round in it")
        total = [daemon.counters()["udp"]["datagrams_out"] for daemon in (one, other)]
        assert sum(total) <= 1


@raw
def test_loopOnTwoPorts() -> None:
    """E6: on different ports a loop is no quicker than the bucket of one source, loopback too."""
    one = Daemon("--udp-port", "0", "--datagrams-per-second", "50")
    other = Daemon("--udp-port", "udp:0:interface=127.0.0.2", "--datagrams-per-second", "50")
    with one, other:
        began = time.monotonic()
        here, there = addressOf(one), addressOf(other, host="127.0.0.2")
        forge(there, here, b"ping")
        # The first datagram that finds an empty bucket ends the loop.
        counters = waitFor(
            lambda: [
                found
                for daemon in (one, other)
                if (found := daemon.counters()["udp"])["refused"].get("source_rate")
            ],
            "an empty bucket",
        )
        answered = [daemon.counters()["udp"]["datagrams_out"] for daemon in (one, other)]
        seconds = time.monotonic() - began
        assert counters
        assert all(count <= 50 + 50 * seconds for count in answered)


def test_broadcast() -> None:
    """E6: what was sent to everybody is answered by nobody."""
    with Daemon("--udp-port", "udp:0:interface=0.0.0.0") as daemon, client() as skt:
        skt.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        skt.sendto(b"everybody?", ("127.255.255.255", daemon.ports["udp/udp"]))
        counters = waitForCount(daemon, "datagrams_in", 1)
        assert counters["refused"] == {"not_unicast": 1}
        skt.sendto(b"you?", addressOf(daemon))
        assert skt.recv(100) == b"you?"


def test_multicast() -> None:
    """E6: nor what was sent to a group, if the host is in it."""
    with Daemon("--udp-port", "udp:0:interface=0.0.0.0") as daemon, client() as skt:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
            group = socket.inet_aton("239.86.2.1") + socket.inet_aton("127.0.0.1")
            member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            loopback = socket.inet_aton("127.0.0.1")
            skt.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
            skt.sendto(b"members?", ("239.86.2.1", daemon.ports["udp/udp"]))
            counters = waitForCount(daemon, "datagrams_in", 1)
        assert counters["refused"] == {"not_unicast": 1}
        assert counters["datagrams_out"] == 0


def test_rateOfOneSource() -> None:
    """A flood is answered within the bucket, the rest counted; the log has a line a second."""
    few = udp("--datagrams-per-second", "100")
    with few as daemon, client() as skt, client("127.0.0.2") as two:
        lines = len(daemon.lines)
        began = time.monotonic()
        for _ in range(5000):
            skt.sendto(b"", addressOf(daemon))
        # The queue may be full: what UDP loses is asked again.
        two.settimeout(0.1)
        got = b""
        while got != b"me":
            two.sendto(b"me", addressOf(daemon))
            with contextlib.suppress(TimeoutError):
                got = two.recv(10)
        counters = waitForCount(daemon, "datagrams_in", 1)
        assert counters["datagrams_out"] <= 101 + 100 * (time.monotonic() - began)
        assert counters["refused"]["source_rate"] > 0
        told = [line for line in daemon.lines[lines:] if "counters" not in line]
        assert len(told) <= 2 + (time.monotonic() - began)
        assert all("refused udp udp 127.0.0.1" in line for line in told)


def test_floodDelaysNobody() -> None:
    """Empty datagrams without end do not starve a TCP client."""
    both = udp("--port", "0")
    with both as daemon, client() as skt, connect(daemon) as tcp:
        address = addressOf(daemon)
        stop = time.monotonic() + 2
        latencies = []
        sent = 0
        while time.monotonic() < stop:
            for _ in range(200):
                skt.sendto(b"", address)
            sent += 200
            began = time.monotonic()
            tcp.sendall(b"ping")
            assert tcp.recv(10) == b"ping"
            latencies.append(time.monotonic() - began)
        latencies.sort()
        assert latencies[len(latencies) * 99 // 100] < 0.05
        counters = daemon.counters()["udp"]
        assert counters["datagrams_in"] > 10 * DATAGRAMS
        assert counters["datagrams_out"] <= 10_000 * 4


def test_errorsAreCounted() -> None:
    """What cannot be sent is counted; the port goes on."""
    with udp() as daemon, client() as skt:
        # Nobody is there any more when the answer comes: an ICMP message, no harm.
        with client() as gone:
            gone.sendto(b"x", addressOf(daemon))
        for _ in range(3):
            skt.sendto(b"still there?", addressOf(daemon))
            assert skt.recv(100) == b"still there?"


def test_drainAnswersWhatHasCome() -> None:
    """O1: what the kernel held at SIGTERM is answered; exit 0."""
    with udp() as daemon, client() as skt:
        datagrams = [noise(random.Random(n).randrange(500)) + bytes([n]) for n in range(100)]
        os.kill(daemon.pid, 19)
        for data in datagrams:
            skt.sendto(data, addressOf(daemon))
        daemon.signal()
        os.kill(daemon.pid, 18)
        assert [skt.recv(1000) for _ in datagrams] == datagrams
        assert daemon.wait() == 0


def test_addressInUse() -> None:
    """O3: one line that names the address, exit 1."""
    with client() as skt:
        port = skt.getsockname()[1]
        done = runLoaded("--udp-port", str(port), command=MODULE)
        said = done.stdout + done.stderr
        assert done.returncode == 1
        assert f"cannot listen on udp 127.0.0.1:{port}: Address already in use" in said
        assert "ss -lnup" in said


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        ("raw=udp:0", "udp:0 is for datagrams, and protocol 'raw' is not; choose another"),
        ("udp=tcp:0", "tcp:0 is for streams, and protocol 'udp' is not; choose another"),
        ("udp=udp", "endpoint 'udp' needs one port: write udp:PORT[:interface=ADDRESS]"),
    ],
)
def test_wrongKind(listener: str, message: str) -> None:
    """A protocol on the wrong kind of endpoint is refused at start."""
    done = runLoaded("--listen", listener, command=MODULE)
    assert (done.returncode, done.stderr) == (1, f"echod: --listen {listener}: {message}\n")


def test_both(tmp_path: Path) -> None:
    """One port number for both, from a file, each with its own keys."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    file = tmp_path / "echod.toml"
    file.write_text(
        f'[[listener]]\nprotocol = "raw"\nendpoint = "tcp:{port}"\n'
        f'[[listener]]\nprotocol = "udp"\nendpoint = "udp:{port}"\n'
        "datagrams_per_second = 5\nreflector_ports = []\n"
    )
    with Daemon("--config", str(file)) as daemon, client() as skt:
        assert exchange(connect(daemon), b"stream") == b"stream"
        skt.sendto(b"datagram", ("127.0.0.1", port))
        assert skt.recv(100) == b"datagram"
