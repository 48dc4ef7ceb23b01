"""`IConnectionTransport.kernelFacts`: what sockets tell, and what ss(8) does."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol

from echod.config.endpoints import Endpoint, TCPEndpoint, UNIXEndpoint
from echod.protocols.raw import RawOptions, raw
from echod.testing import memoryLink
from echod.transports.adopted import adopting
from echod.transports.facade import Facade
from echod.transports.kernel_facts import TCP_SAVE_SYN
from echod.transports.tcp import TCPPort
from echod.transports.unix import UNIXListeningPort
from tests.unit.outer import Outer, waitUntil


class _Quiet(Factory):
    """Of protocols that say nothing, and that are kept."""

    noisy = False

    def __init__(self, made: list[Any]) -> None:
        self._made = made

    def buildProtocol(self, addr: object) -> Protocol:
        protocol = Protocol()
        self._made.append(protocol)
        return protocol


class Rig:
    """A port of echod's, and whoever connects to it."""

    def __init__(
        self, endpoint: Endpoint, *, saves: bool = True, descriptor: int | None = None
    ) -> None:
        self.outer = Outer()
        self.protocols: list[Any] = []
        facade: Any = Facade(self.outer)
        factory = _Quiet(self.protocols)
        kind: Any = TCPPort if isinstance(endpoint, TCPEndpoint) else UNIXListeningPort
        more = (0,) if kind is TCPPort else ()
        self.port = adopting(kind, descriptor)(endpoint, factory, 50, *more, facade)
        self.port.saveSYN(saves)
        self.port.startListening()

    def accept(self) -> Any:
        """The transport of one more connection that has come."""
        count = len(self.protocols)
        waitUntil(self.outer.turn, lambda: len(self.protocols) > count)
        return self.protocols[-1].transport

    @contextmanager
    def connected(self) -> Iterator[tuple[socket.socket, Any]]:
        """A client, and the transport at its other end."""
        with socket.socket(self.port.socket.family) as client:
            client.connect(self.port.socket.getsockname())
            yield client, self.accept()

    def close(self) -> None:
        for protocol in self.protocols:
            if protocol.transport.connected:
                protocol.transport.abortConnection()
        self.outer.rest()
        if self.port.connected:
            self.port.close()


@contextmanager
def rigged(endpoint: Endpoint, **words: Any) -> Iterator[Rig]:
    rig = Rig(endpoint, **words)
    try:
        yield rig
    finally:
        rig.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "any"])
def test_tcp(host: str) -> None:
    """The SYN is the client's: its port, its MSS; however often that is asked for."""
    loopback = "::1" if ":" in host else "127.0.0.1"
    with (
        rigged(TCPEndpoint(host, 0)) as rig,
        socket.create_connection((loopback, rig.port._realPortNumber)) as client,
    ):
        transport = rig.accept()
        facts = transport.kernelFacts()
        json.dumps(facts)
        syn = facts["syn"]
        assert syn["ip"] == (6 if ":" in host else 4)
        assert syn["source_port"] == client.getsockname()[1]
        assert syn["ttl"] == 64
        assert syn["mss"] > 1000
        assert facts["tcp_info"]["state"] == "ESTABLISHED"
        assert facts["tcp_info"]["congestion"]
        client.sendall(b"x" * 1000)
        transport.stopReading()

        def arrived() -> bool:
            return bool(transport.kernelFacts()["tcp_info"]["bytes_received"] == 1000)

        waitUntil(lambda _: None, arrived)
        again = transport.kernelFacts()
        assert again["syn"] == syn
        assert again["queues"]["unread"] == 1000
        assert again["queues"]["receive_memory"] >= 1000
        assert again["queues"]["unsent"] == 0


def test_options() -> None:
    """Linux says of its own SYN what TCP_INFO says of the connection."""
    with rigged(TCPEndpoint("127.0.0.1", 0)) as rig, rig.connected() as (_, transport):
        facts = transport.kernelFacts()
        syn, info = facts["syn"], facts["tcp_info"]
        assert syn["timestamps"] == ("timestamps" in info["options"])
        assert syn["sack_permitted"] == ("sack" in info["options"])
        assert syn.get("window_scale") == info.get("snd_wscale")


def test_afterTheEnd() -> None:
    """Nothing is known, and nothing is raised, once the connection is lost."""
    with rigged(TCPEndpoint("127.0.0.1", 0)) as rig, rig.connected() as (client, transport):
        assert transport.kernelFacts()["tcp_info"]
        client.close()
        waitUntil(rig.outer.turn, lambda: not transport.connected)
        assert transport.kernelFacts() == {}


def test_closedBehindIts() -> None:
    """Nor where the descriptor has gone without a word."""
    with rigged(TCPEndpoint("127.0.0.1", 0)) as rig, rig.connected() as (_, transport):
        number = transport.socket.detach()
        assert transport.kernelFacts() == {}
        transport.socket = socket.socket(fileno=number)


def test_notSaved() -> None:
    """Where nobody asks for it the kernel keeps no SYN; from when it is asked for on it does."""
    with rigged(TCPEndpoint("127.0.0.1", 0), saves=False) as rig:
        with rig.connected() as (_, transport):
            assert transport.kernelFacts().keys() == {"tcp_info", "queues"}
        rig.port.saveSYN(True)
        with rig.connected() as (_, transport):
            assert "syn" in transport.kernelFacts()
        rig.port.saveSYN(False)
        with rig.connected() as (_, transport):
            assert "syn" not in transport.kernelFacts()


@pytest.mark.parametrize("saves", [False, True])
def test_adopted(saves: bool) -> None:
    """A socket that was passed keeps them from then on; of who came before there is none."""
    with socket.create_server(("127.0.0.1", 0)) as passed:
        passed.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, not saves)
        place = passed.getsockname()
        with socket.create_connection(place):
            endpoint = TCPEndpoint(*place)
            with rigged(endpoint, saves=saves, descriptor=passed.detach()) as rig:
                # Of the other way round too: the kernel had kept it.
                assert ("syn" in rig.accept().kernelFacts()) == (not saves)
                with rig.connected() as (_, transport):
                    assert ("syn" in transport.kernelFacts()) == saves


def test_takenOver() -> None:
    """A port that goes on with another's socket has it keep them, or no more."""
    with rigged(TCPEndpoint("127.0.0.1", 0), saves=False) as first:
        for saves in (True, False):
            next_ = TCPPort(
                TCPEndpoint("127.0.0.1", 0), first.port.factory, 50, 0, first.port.reactor
            )
            next_.saveSYN(saves)
            next_.prepareTakeOver(first.port)
            next_.takeOver(first.port)
            first.port = next_
            with first.connected() as (_, transport):
                assert ("syn" in transport.kernelFacts()) == saves


def test_unix(tmp_path: Path) -> None:
    """Over a UNIX socket there are queues alone, and not how many bytes wait to be sent."""
    with rigged(UNIXEndpoint(str(tmp_path / "s"))) as rig, rig.connected() as (client, transport):
        client.sendall(b"x" * 10)
        facts = transport.kernelFacts()
        assert facts.keys() == {"queues"}
        assert "unsent" not in facts["queues"]
        assert facts["queues"]["unread"] == 10


def test_mptcp() -> None:
    """A socket of MPTCP does without what it has not."""
    try:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
    except OSError as error:
        pytest.skip(f"no MPTCP: {error}")
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    endpoint = TCPEndpoint(*listening.getsockname())
    with (
        rigged(endpoint, descriptor=listening.detach()) as rig,
        rig.connected() as (_, transport),
    ):
        assert "syn" not in transport.kernelFacts()
        assert "queues" in transport.kernelFacts()


def test_memory() -> None:
    """An imitated socket has no kernel."""
    protocol: Any = raw.makeFactory(RawOptions()).buildProtocol(None)  # type: ignore[arg-type]  # no address
    assert memoryLink(protocol).connection.transport.kernelFacts() == {}


@pytest.mark.skipif(shutil.which("ss") is None, reason="no ss(8)")
def test_asSSTells() -> None:
    """ss(8) reads the same struct, by netlink."""
    with rigged(TCPEndpoint("127.0.0.1", 0)) as rig, rig.connected() as (client, transport):
        transport.stopReading()
        client.sendall(b"x" * 5000)
        transport.write(b"y" * 3000)

        number = client.getsockname()[1]
        command = ["ss", "-Htin", f"dport = :{number}"]
        seen: list[tuple[str, Any]] = []

        def still() -> bool:
            """Whether nothing has changed meanwhile but the time."""
            before = transport.kernelFacts()["tcp_info"]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            after = transport.kernelFacts()["tcp_info"]
            seen.append((told, after))
            changed = {name for name in after if after[name] != before.get(name)}
            return after["bytes_acked"] == 3000 and all(each.startswith("last") for each in changed)

        waitUntil(lambda _: None, still)
        told, info = seen[-1]
    said = dict(re.findall(r"([a-z_]+):([\d,./]+)", told))
    assert (info["bytes_received"], info["bytes_acked"], info["bytes_sent"]) == (5000, 3000, 3000)
    for theirs, ours in {
        "mss": "snd_mss",
        "rcvmss": "rcv_mss",
        "advmss": "advmss",
        "pmtu": "pmtu",
        "cwnd": "snd_cwnd",
        "bytes_sent": "bytes_sent",
        "bytes_acked": "bytes_acked",
        "bytes_received": "bytes_received",
        "segs_out": "segs_out",
        "segs_in": "segs_in",
        "data_segs_out": "data_segs_out",
        "data_segs_in": "data_segs_in",
        "rcv_space": "rcv_space",
        "snd_wnd": "snd_wnd",
        "delivered": "delivered",
    }.items():
        if theirs in said:
            assert int(said[theirs]) == info[ours], (theirs, told)
    assert "bytes_acked" in said
    assert said["wscale"] == f"{info['snd_wscale']},{info['rcv_wscale']}"
    rtt, variance = (float(each) * 1000 for each in said["rtt"].split("/"))
    assert rtt == pytest.approx(info["rtt"], abs=1)
    assert variance == pytest.approx(info["rttvar"], abs=1)
    if "minrtt" in said:
        assert float(said["minrtt"]) * 1000 == pytest.approx(info["min_rtt"], abs=1)
    assert info["congestion"] in told
