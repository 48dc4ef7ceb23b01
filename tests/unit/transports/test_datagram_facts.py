"""`UDPPort.datagramFacts`: what the kernel says of a datagram, to a protocol that wants it."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.config.endpoints import UDPEndpoint
from echod.testing.stepped_loop import Loop
from echod.transports.adopted import AdoptedUDPPort
from echod.transports.datagram_facts import ALL, NOTHING, DatagramFacts, parseFacts
from echod.transports.udp import UDPPort
from tests.unit.transports.test_udp import PATIENCE, Door, Echo

IPV4 = "127.0.0.1"


class Asking(Echo):
    """
    An echo that asks of each datagram.

    :ivar told: what it was told.
    """

    wants: Any = tuple(ALL)

    def __init__(self) -> None:
        super().__init__()
        self.told: list[DatagramFacts] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        transport: Any = self.transport
        self.told.append(transport.datagramFacts())
        super().datagramReceived(datagram, addr)


def ask(port: UDPPort, protocol: Echo, loop: Loop, host: str) -> None:
    """Have somebody send a datagram with a TTL of 33, DSCP 46 and ECN 1, and be answered."""
    inet6 = ":" in host
    with socket.socket(socket.AF_INET6 if inet6 else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        if inet6:
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 33)
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0b10111001)
        else:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0b10111001)
        client.sendto(b"x", (host, port.getHost().port))
        assert loop.turn(PATIENCE)
        data, address = client.recvfrom(10)
        assert data == b"x"
        # It comes from there still, whatever else the kernel has told.
        assert address[0] == host


@pytest.mark.parametrize(
    ("bound", "asked"),
    [(IPV4, IPV4), ("::1", "::1"), ("any", "::1"), ("any", "127.0.0.2"), ("0.0.0.0", "127.0.0.2")],
)
def test_facts(bound: str, asked: str) -> None:
    """Over IPv4, IPv6, and both at one socket."""
    loop, protocol = Loop(), Asking()
    port = UDPPort(UDPEndpoint(bound, 0), protocol, Door(), lambda: 12.5, loop)
    port.startListening()
    before = time.time_ns()
    try:
        ask(port, protocol, loop, asked)
        (facts,) = protocol.told
        assert (facts.ttl, facts.tos, facts.ecn) == (33, 0b10111001, 1)
        assert facts.receivedAt is not None
        assert before <= facts.receivedAt <= time.time_ns()
        # Of none that is gone.
        assert port.datagramFacts() == NOTHING
    finally:
        port.close()


@pytest.mark.parametrize("host", [IPV4, "::1"])
@pytest.mark.parametrize("wants", [(), ("ttl",), ("received_at",), tuple(ALL)])
def test_adopted(host: str, wants: tuple[str, ...]) -> None:
    """A socket that was passed tells what is wanted, and no more, whatever it told before."""
    skt = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    skt.bind((host, 0))
    for wish in ALL.values():
        for level, number in wish.any + (wish.inet6 if ":" in host else ()):
            skt.setsockopt(level, number, True)
    loop, protocol = Loop(), Asking()
    protocol.wants = wants
    port = AdoptedUDPPort(
        skt.fileno(),
        UDPEndpoint(host, skt.getsockname()[1]),
        protocol,
        Door(),
        lambda: 12.5,
        loop,
    )
    skt.detach()
    port.startListening()
    try:
        ask(port, protocol, loop, host)
        (facts,) = protocol.told
        assert facts.ttl == (33 if "ttl" in wants else None)
        assert facts.tos == (0b10111001 if "tos" in wants else None)
        assert (facts.receivedAt is not None) == ("received_at" in wants)
        said = {(level, kind) for level, kind, _ in port._said}
        assert len(said) == 1 + len(wants)
    finally:
        port.close()


def test_nobodyAsks() -> None:
    """A protocol that wants nothing has no more asked of the kernel than where to answer from."""
    loop, protocol = Loop(), Echo()
    port = UDPPort(UDPEndpoint(IPV4, 0), protocol, Door(), lambda: 12.5, loop)
    port.startListening()
    try:
        for wish in ALL.values():
            assert [port.socket.getsockopt(*option) for option in wish.any] == [0]
        ask(port, protocol, loop, IPV4)
        assert len(port._said) == 1
    finally:
        port.close()


def test_unknown() -> None:
    """A word that there is not is refused, with those that there are."""
    protocol = Asking()
    protocol.wants = ["ttl", "weather"]
    with pytest.raises(ValueError, match="it wants weather; there is ttl, tos, received_at"):
        UDPPort(UDPEndpoint(IPV4, 0), protocol, Door(), lambda: 0.0, Loop())


@given(
    st.lists(
        st.tuples(
            st.sampled_from([socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.SOL_SOCKET]),
            st.sampled_from([1, 2, 8, 35, 50, 52, 67]),
            st.binary(max_size=20),
        )
    )
)
def test_anyAncillary(ancillary: list[tuple[int, int, bytes]]) -> None:
    """Whatever comes, what is too short is not told."""
    assert isinstance(parseFacts(ancillary), DatagramFacts)


def test_time() -> None:
    """Seconds and nanoseconds make nanoseconds."""
    data = struct.pack("@ll", 1_700_000_000, 123)
    assert parseFacts([(socket.SOL_SOCKET, 35, data)]).receivedAt == 1_700_000_000_000_000_123
