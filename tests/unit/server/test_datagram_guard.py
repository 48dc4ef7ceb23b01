"""`echod.server.datagram_guard`: which datagrams are answered."""

from __future__ import annotations

import pytest

from echod.server.datagram_guard import REFLECTORS, DatagramGuard, isUnicast
from echod.wire.networks import Networks


def test_ports() -> None:
    """Port 0, reflectors and our own ports are refused, each with its reason."""
    own = {1234}
    guard = DatagramGuard(0, REFLECTORS, own)
    assert guard.refusal("10.0.0.1", 40000, 0.0) is None
    assert guard.refusal("10.0.0.1", 0, 0.0) == "port_zero"
    for port in (7, 9, 13, 17, 19, 37, 53, 69, 123, 161, 389, 1900, 11211):
        assert guard.refusal("10.0.0.1", port, 0.0) == "reflector"
    assert guard.refusal("127.0.0.2", 1234, 0.0) == "own_port"
    own.add(4321)
    assert guard.refusal("10.0.0.1", 4321, 0.0) == "own_port"


def test_configuredReflectors() -> None:
    guard = DatagramGuard(0, [99], set())
    assert guard.refusal("10.0.0.1", 99, 0.0) == "reflector"
    assert guard.refusal("10.0.0.1", 53, 0.0) is None


@pytest.mark.parametrize(
    ("host", "unicast"),
    [
        *(("10.0.0.1", True), ("127.0.0.1", True), ("223.255.255.255", True)),
        *(("224.0.0.1", False), ("239.1.2.3", False), ("255.255.255.255", False)),
        *(("0.0.0.0", False), ("0.1.2.3", False), ("240.0.0.1", False)),
        *(("::1", True), ("fe80::1%eth0", True), ("2001:db8::ff02", True)),
        *(("ff02::1%eth0", False), ("FF05::2", False), ("::", False)),
        *(("::ffff:10.0.0.1", True), ("::ffff:224.0.0.1", False), ("::FFFF:0.0.0.0", False)),
    ],
)
def test_unicast(host: str, unicast: bool) -> None:
    """Broadcast and multicast sources are nobody's address."""
    assert isUnicast(host) is unicast
    refusal = DatagramGuard(0, (), set()).refusal(host, 40000, 0.0)
    assert refusal == (None if unicast else "not_unicast")


def test_rates() -> None:
    """One source has its rate, all together ten times that."""
    guard = DatagramGuard(5, (), set())
    answers = [guard.refusal("10.0.0.1", 40000, 0.0) for _ in range(7)]
    assert answers == [None] * 5 + ["source_rate"] * 2
    for host in range(2, 12):
        answers += [guard.refusal(f"10.0.0.{host}", 40000, 0.0) for _ in range(5)]
    assert answers.count(None) == 50
    assert answers[-5:] == ["rate"] * 5
    assert guard.refusal("10.0.0.1", 40001, 1.0) is None


def test_clientOfAProxy() -> None:
    """The client has the rate, and may come or not; where the answer goes to is the proxy's."""
    guard = DatagramGuard(2, [99], {1234}, Networks([], ["10.9.0.0/16"]))
    proxy = ("10.0.0.1", 40000, 0.0)
    answers = [guard.refusal(*proxy, "10.0.0.2") for _ in range(3)]
    assert answers == [None, None, "source_rate"]
    assert guard.refusal(*proxy) is None
    assert guard.refusal(*proxy, "10.9.0.1") == "denied"
    assert guard.refusal("10.9.0.1", 40000, 0.0, "10.0.0.3") is None
    for port, why in ((0, "port_zero"), (99, "reflector"), (1234, "own_port")):
        assert guard.refusal("10.0.0.1", port, 0.0, "10.0.0.3") == why
    assert guard.refusal("224.0.0.1", 40000, 0.0, "10.0.0.3") == "not_unicast"


def test_prefixes() -> None:
    """Whoever has a network has one source, with as many addresses as that may be."""
    guard = DatagramGuard(5, (), set(), prefixes=(24, 64))
    network = [guard.refusal(f"2001:db8:0:1::{host:x}", 40000, 0.0) for host in range(1, 9)]
    assert network == [None] * 5 + ["source_rate"] * 3
    assert guard.refusal("2001:db8:0:2::1", 40000, 0.0) is None
    network = [guard.refusal(f"10.0.0.{host}", 40000, 0.0) for host in range(1, 9)]
    assert network == [None] * 5 + ["source_rate"] * 3
    # The same network, as a socket of both families has it.
    assert guard.refusal("::ffff:10.0.0.99", 40000, 0.0) == "source_rate"
    assert guard.refusal("10.0.1.1", 40000, 0.0) is None
    # A zone is no part of it.
    zones = [guard.refusal("fe80::1%lo", 40000, 0.0), guard.refusal("fe80::2%eth0", 40000, 0.0)]
    assert zones == [None, None]


def test_prefixesOfClients() -> None:
    guard = DatagramGuard(2, (), set(), prefixes=(32, 48))
    proxy = ("10.0.0.1", 40000, 0.0)
    answers = [guard.refusal(*proxy, f"2001:db8:1:{net}::1") for net in range(3)]
    assert answers == [None, None, "source_rate"]
    assert guard.refusal(*proxy, "2001:db8:2::1") is None


@pytest.mark.parametrize(("rate", "prefixes"), [(5, (32, 128)), (6, (32, 128)), (5, (32, 64))])
def test_succession(rate: int, prefixes: tuple[int, int]) -> None:
    """With the same rates a successor gives nobody a second burst."""
    first, heir = DatagramGuard(5, (), set()), DatagramGuard(rate, (), set(), prefixes=prefixes)
    assert [first.refusal("10.0.0.1", 40000, 0.0) for _ in range(5)] == [None] * 5
    heir.takeOver(first)
    same = (rate, prefixes) == (5, (32, 128))
    assert heir.refusal("10.0.0.1", 40000, 0.0) == ("source_rate" if same else None)
