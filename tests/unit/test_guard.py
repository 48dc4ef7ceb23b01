"""`echod.guard`: which datagrams are answered (E6)."""

from __future__ import annotations

import pytest

from echod.guard import REFLECTORS, Guard, isUnicast
from echod.sources import Networks


def test_ports() -> None:
    """Port 0, reflectors and our own ports are refused, each with its reason."""
    own = {1234}
    guard = Guard(0, REFLECTORS, own)
    assert guard.refusal("10.0.0.1", 40000, 0.0) is None
    assert guard.refusal("10.0.0.1", 0, 0.0) == "port_zero"
    for port in (7, 9, 13, 17, 19, 37, 53, 69, 123, 161, 389, 1900, 11211):
        assert guard.refusal("10.0.0.1", port, 0.0) == "reflector"
    assert guard.refusal("127.0.0.2", 1234, 0.0) == "own_port"
    own.add(4321)
    assert guard.refusal("10.0.0.1", 4321, 0.0) == "own_port"


def test_configuredReflectors() -> None:
    guard = Guard(0, [99], set())
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
    refusal = Guard(0, (), set()).refusal(host, 40000, 0.0)
    assert refusal == (None if unicast else "not_unicast")


def test_rates() -> None:
    """One source has its rate, all together ten times that."""
    guard = Guard(5, (), set())
    answers = [guard.refusal("10.0.0.1", 40000, 0.0) for _ in range(7)]
    assert answers == [None] * 5 + ["source_rate"] * 2
    for host in range(2, 12):
        answers += [guard.refusal(f"10.0.0.{host}", 40000, 0.0) for _ in range(5)]
    assert answers.count(None) == 50
    assert answers[-5:] == ["rate"] * 5
    assert guard.refusal("10.0.0.1", 40001, 1.0) is None


def test_clientOfAProxy() -> None:
    """The client has the rate, and may come or not; where the answer goes to is the proxy's."""
    guard = Guard(2, [99], {1234}, Networks([], ["10.9.0.0/16"]))
    proxy = ("10.0.0.1", 40000, 0.0)
    answers = [guard.refusal(*proxy, "10.0.0.2") for _ in range(3)]
    assert answers == [None, None, "source_rate"]
    assert guard.refusal(*proxy) is None
    assert guard.refusal(*proxy, "10.9.0.1") == "denied"
    assert guard.refusal("10.9.0.1", 40000, 0.0, "10.0.0.3") is None
    for port, why in ((0, "port_zero"), (99, "reflector"), (1234, "own_port")):
        assert guard.refusal("10.0.0.1", port, 0.0, "10.0.0.3") == why
    assert guard.refusal("224.0.0.1", 40000, 0.0, "10.0.0.3") == "not_unicast"
