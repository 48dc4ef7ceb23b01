"""Datagrams behind a proxy: each has a header, answers have none, the client's address counts."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol

from echod.config.endpoints import UDPEndpoint
from echod.config.limits import Limits
from echod.connection.sweep import Sweep
from echod.kit.makers import DatagramMaker
from echod.protocols.datagram import Echo
from echod.server.datagram_listener import DatagramListener
from echod.server.listener import ListenerPlan
from echod.testing import PlainContext
from echod.testing.stepped_loop import Loop
from echod.transports.layers import ProxyLayer
from echod.wire.networks import Networks
from tests.unit.outer import waitUntil
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

HEADER = formatV2(CLIENT, ASKED, transport=DGRAM)


class Served:
    """A listener at a real socket whose proxies are on loopback, and one of them."""

    def __init__(self, listener: DatagramListener, loop: Loop, proxy: socket.socket) -> None:
        self.listener = listener
        self.proxy = proxy
        self._loop = loop
        self._sent = self._answered = 0

    def ask(self, *datagrams: bytes, sender: socket.socket | None = None) -> list[bytes]:
        """Send from the proxy, or ``sender``; returns the answers to it once all were received."""
        skt = sender or self.proxy
        host = self.listener.getHost()
        target = "127.0.0.1" if skt.family == socket.AF_INET else "::1"
        for datagram in datagrams:
            skt.sendto(datagram, (target, host.port))
        self._sent += len(datagrams)
        waitUntil(self._loop.turn, lambda: self.counters()["datagrams_in"] == self._sent)
        answers: list[bytes] = []
        while self._answered < self.counters()["datagrams_out"]:
            answer, address = skt.recvfrom(1 << 17)
            assert address[:2] == (target, host.port)
            answers.append(answer)
            self._answered += 1
        return answers

    def counters(self) -> dict[str, Any]:
        return self.listener.counters()

    @property
    def refused(self) -> dict[str, int]:
        found: dict[str, int] = self.counters()["refused"]
        return found


def bound(host: str = "127.0.0.1") -> socket.socket:
    skt = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    skt.bind((host, 0))
    skt.settimeout(20)
    return skt


@contextmanager
def serving(
    protocol: type[DatagramProtocol] = Echo,
    limits: Limits | None = None,
    *,
    host: str = "127.0.0.1",
    proxies: list[str] | None = None,
    ownPorts: Counter[int] | None = None,
) -> Iterator[Served]:
    """A listener whose clock stands still: each source has what it has in one second."""
    trusted = Networks(["127.0.0.1", "::1"] if proxies is None else proxies, [])
    plan = ListenerPlan(
        place="here",
        maker=DatagramMaker("asked", "", protocol),
        endpoint=UDPEndpoint(host, 0),
        limits=limits or Limits(),
        options=None,
        layers=[ProxyLayer(trusted)] if trusted else [],
    )
    loop = Loop()
    listener = DatagramListener(
        plan,
        loop,
        Sweep(loop, lambda: 0.0),
        ownPorts or Counter(),
        PlainContext(),
        lambda: 0.0,
    )
    listener.privilegedStartService()
    try:
        with bound("127.0.0.1" if "." in host else "::1") as proxy:
            yield Served(listener, loop, proxy)
    finally:
        listener.abandon()


def test_headerIsTakenOff() -> None:
    """P6: the payload goes back to the proxy, without a header, from the address that it asked."""
    withValues = formatV2(CLIENT, ASKED, [formatTLV(AUTHORITY, b"a")], transport=DGRAM, checksum=1)
    for host in ("127.0.0.1", "::1", "::"):
        with serving(host=host) as served:
            six = formatV2(("2001:db8::1", 1), ("2001:db8::2", 2), transport=DGRAM)
            payloads = [b"", b"hello", bytes(60_000), HEADER]
            for header in (HEADER, withValues, six, formatV2()):
                asked = [header + payload for payload in payloads]
                assert served.ask(*asked) == payloads
            assert served.refused == {}
            assert served.counters()["bytes_in"] > served.counters()["bytes_out"]


def test_ratesOfNetworks() -> None:
    """All addresses of a client's network have one rate (source_prefix)."""
    limits = Limits(datagramsPerSecond=3, sourcePrefix=(32, 64))
    with serving(limits=limits) as served:
        for network in ("2001:db8:0:1", "2001:db8:0:2"):
            asked = [
                formatV2((f"{network}::{host}", 5000), ("2001:db8::9", 7), transport=DGRAM) + b"x"
                for host in range(1, 6)
            ]
            assert served.ask(*asked) == [b"x"] * 3
        assert served.refused == {"source_rate": 4}


def test_withoutProxies() -> None:
    """Where no proxy is told of, a header is payload like any other."""
    with serving(proxies=[]) as served:
        assert served.ask(HEADER + b"hello", b"x") == [HEADER + b"hello", b"x"]


class Who(DatagramProtocol):
    """Tells the address that it is given."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Answer with it."""
        assert self.transport is not None
        self.transport.write(f"{addr[0]} {addr[1]}".encode(), addr)


def test_protocolSeesTheClient() -> None:
    """A protocol is given the client's address; where the header has none, the proxy's."""
    with serving(Who) as served:
        host, port = served.proxy.getsockname()
        answers = served.ask(HEADER + bytes(50), formatV2(command=LOCAL) + bytes(50))
        assert answers == [b"192.0.2.7 40000", f"{host} {port}".encode()]
        # An IPv4 client is told as such, also by a proxy that writes it as IPv6.
        mapped = formatV2(("::ffff:192.0.2.7", 1), ("::1", 7), transport=DGRAM)
        assert served.ask(mapped + bytes(50)) == [b"192.0.2.7 1"]


def test_untrusted() -> None:
    """P1: whoever is no proxy is not answered, with a header or without."""
    with serving(host="0.0.0.0") as served, bound("127.0.0.2") as stranger:
        assert served.ask(HEADER + b"x", b"x", b"", sender=stranger) == []
        assert served.refused == {"untrusted": 3}
        assert served.ask(HEADER + b"x") == [b"x"]
    # An IPv4 proxy at an IPv6 socket is the same proxy.
    with serving(host="::") as served, bound("127.0.0.1") as known, bound("127.0.0.2") as stranger:
        assert served.ask(HEADER + b"x", sender=known) == [b"x"]
        assert served.ask(HEADER + b"x", sender=stranger) == []
        assert served.refused == {"untrusted": 1}


def test_malformed() -> None:
    """P4: what is no header, or not all of one, is counted; the next datagram has its own."""
    wrong = [
        *(b"", b"hello", HEADER[:-1], HEADER[:16], HEADER[:5], b"\r\n"),
        *(formatV1(CLIENT, ASKED) + b"x", b"PROXY UNKNOWN\r\nx"),
        formatV2(CLIENT, ASKED, transport=DGRAM, length=4080) + bytes(100),
    ]
    with serving() as served:
        for number, datagram in enumerate(wrong, 1):
            assert served.ask(datagram) == []
            assert served.refused == {"header": number}
            assert served.ask(HEADER + b"x") == [b"x"]
        # What dnsdist 1.7 has of its clients over HTTPS.
        assert served.ask(formatV2(CLIENT, ASKED) + b"x") == [b"x"]


class More(DatagramProtocol):
    """Answers with a byte more than it was asked with, then with as many."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Try both."""
        assert self.transport is not None
        self.transport.write(datagram + b"!", addr)
        self.transport.write(datagram, addr)


def test_noAmplification() -> None:
    """E7: no more bytes than the payload had; the header does not count."""
    with serving(More) as served:
        assert served.ask(HEADER + b"hello", HEADER) == [b"hello", b""]
        assert served.refused == {"amplified": 2}


def test_rateOfEachClient() -> None:
    """E6: a client has its rate, not the proxy; a client in two spellings is one."""
    one, other = HEADER, formatV2(("192.0.2.8", 1), ASKED, transport=DGRAM)
    mapped = formatV2(("::ffff:192.0.2.8", 1), ("::1", 7), transport=DGRAM)
    with serving(limits=Limits(datagramsPerSecond=2)) as served:
        asked = [one + b"1"] * 3 + [other + b"2", mapped + b"3", other + b"4", mapped + b"5"]
        assert served.ask(*asked) == [b"1", b"1", b"2", b"3"]
        assert served.refused == {"source_rate": 3}
        # The proxy's own has not been touched.
        assert served.ask(*[formatV2(command=LOCAL) + b"6"] * 3) == [b"6", b"6"]
        assert served.refused == {"source_rate": 4}


def test_networksOfClients() -> None:
    """``allow`` and ``deny`` are about clients; about the proxy where it speaks for itself."""
    own = formatV2(command=LOCAL) + b"own"
    with serving(limits=Limits(deny=["192.0.2.0/24"])) as served:
        elsewhere = formatV2(("198.51.100.1", 1), ASKED, transport=DGRAM)
        assert served.ask(HEADER + b"x", elsewhere + b"y", own) == [b"y", b"own"]
        assert served.refused == {"denied": 1}
    with serving(limits=Limits(allow=["192.0.2.7"])) as served:
        assert served.ask(HEADER + b"x", own) == [b"x"]
        assert served.refused == {"denied": 1}


@pytest.mark.parametrize("which", ["reflector", "own_port"])
def test_portsOfTheSender(which: str) -> None:
    """E6: where the answer goes to must be no reflector; what a header tells is asked nothing."""
    with bound() as reflector:
        port = reflector.getsockname()[1]
        limits = Limits(reflectorPorts=[port] if which == "reflector" else [])
        own = Counter([port] if which == "own_port" else [])
        with serving(limits=limits, ownPorts=own) as served:
            assert served.ask(HEADER + b"x", formatV2(command=LOCAL), sender=reflector) == []
            assert served.refused == {which: 2}
            told = [port, 0, 7, served.listener.getHost().port]
            for number in told:
                header = formatV2(("192.0.2.7", number), ASKED, transport=DGRAM)
                assert served.ask(header + b"x") == [b"x"]
            assert served.refused == {which: 2}
