"""`echod.wire.networks`: networks and what counts as one source."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echod.config.limits import Limits
from echod.errors import ConfigurationError
from echod.server.admission import SourceLimit
from echod.wire.networks import Networks, sourceOf


@pytest.mark.parametrize(
    ("allow", "deny", "admitted", "refused"),
    [
        ([], [], ["10.0.0.1", "::1"], []),
        ([], ["10.0.0.0/8"], ["11.0.0.1", "::1"], ["10.0.0.1", "::ffff:10.0.0.1"]),
        (["10.0.0.0/8"], [], ["10.1.2.3", "::ffff:10.0.0.1"], ["11.0.0.1", "::1"]),
        # The longest prefix wins, whichever list it is in.
        (["10.0.0.0/8", "10.1.2.0/24"], ["10.1.0.0/16"], ["10.0.0.1", "10.1.2.9"], ["10.1.3.1"]),
        (["10.0.0.0/8"], ["10.0.0.0/8"], [], ["10.0.0.1", "9.0.0.1"]),
        (["fe80::/10", "::1"], [], ["fe80::1%eth0", "::1"], ["fec0::1", "127.0.0.1"]),
        (["0.0.0.0/0"], [], ["1.2.3.4"], ["::1"]),
        # In either spelling.
        (["::ffff:10.0.0.0/104"], [], ["10.0.0.1", "::ffff:10.9.9.9"], ["11.0.0.1", "::1"]),
        (["::ffff:0:0/96"], ["::ffff:10.0.0.1"], ["1.2.3.4"], ["10.0.0.1", "::1"]),
        (["::fffe:0:0/95"], [], ["::fffe:1.2.3.4"], ["1.2.3.4"]),
    ],
)
def test_networks(
    allow: list[str], deny: list[str], admitted: list[str], refused: list[str]
) -> None:
    networks = Networks(allow, deny)
    assert [host for host in admitted + refused if networks.admit(host)] == admitted
    assert bool(networks) is bool(allow or deny)


def test_noNetwork() -> None:
    with pytest.raises(ConfigurationError, match=r"write 10\.0\.0\.0/8$"):
        Networks(["10.1.1.1/8"], [])
    with pytest.raises(ConfigurationError, match=r"'x' is no network: .*write one such as"):
        Networks([], ["x"])


def test_sourceOf() -> None:
    """Addresses that share the prefix are one source; v4-mapped ones count as IPv4."""
    assert sourceOf("10.0.0.1", (32, 128)) != sourceOf("10.0.0.2", (32, 128))
    assert sourceOf("10.0.0.1", (24, 128)) == sourceOf("10.0.0.255", (24, 128))
    assert sourceOf("10.0.0.1", (24, 128)) != sourceOf("10.0.1.1", (24, 128))
    assert sourceOf("::ffff:10.0.0.1", (32, 64)) == sourceOf("10.0.0.1", (32, 64))
    assert sourceOf("2001:db8::1", (32, 64)) == sourceOf("2001:db8::2:1", (32, 64))
    assert sourceOf("2001:db8::1", (32, 64)) != sourceOf("2001:db8:0:1::1", (32, 64))
    assert sourceOf("fe80::1%eth0", (32, 128)) == sourceOf("fe80::1%eth1", (32, 128))
    assert sourceOf("1.2.3.4", (0, 0)) == sourceOf("4.3.2.1", (0, 0))
    assert sourceOf("1.2.3.4", (0, 0)) != sourceOf("::1", (0, 0))


@given(one=st.ip_addresses(), other=st.ip_addresses(), bits=st.integers(0, 32))
def test_sourceIsItsNetwork(one: object, other: object, bits: int) -> None:
    """Two addresses are one source if, and only if, one is in the other's network."""
    first, second = ip_address(str(one)), ip_address(str(other))
    if getattr(first, "ipv4_mapped", None) or getattr(second, "ipv4_mapped", None):
        return
    same = first.version == second.version and first in ip_network(f"{second}/{bits}", strict=False)
    assert (sourceOf(str(one), (bits, bits)) == sourceOf(str(other), (bits, bits))) is same


def test_sourceLimit() -> None:
    """So many of one source at a time, and no more once one is gone and one came."""
    limit = SourceLimit(Limits(maxPerSource=2, sourcePrefix=(24, 64)))
    assert limit.counts
    for _ in range(2):
        assert limit.refusal("10.0.0.1", 0.0) is None
        limit.opened("10.0.0.1")
    assert limit.refusal("10.0.0.9", 0.0) == "source_full"
    assert limit.refusal("::ffff:10.0.0.9", 0.0) == "source_full"
    assert limit.refusal("10.0.1.1", 0.0) is None
    limit.closed("10.0.0.1")
    assert limit.refusal("10.0.0.9", 0.0) is None
    limit.closed("10.0.0.1")
    assert len(limit._open) == 0


def test_newPerSecond() -> None:
    limit = SourceLimit(Limits(newPerSecond=2))
    assert not limit.counts
    assert [limit.refusal("10.0.0.1", 0.0) for _ in range(3)] == [None, None, "source_rate"]
    assert limit.refusal("10.0.0.2", 0.0) is None
    assert limit.refusal("10.0.0.1", 0.5) is None


def test_denied() -> None:
    limit = SourceLimit(Limits(deny=["10.0.0.0/8"]))
    assert limit.refusal("10.0.0.1", 0.0) == "denied"
    assert limit.refusal("11.0.0.1", 0.0) is None


def test_countedOn() -> None:
    """A reload: places taken stay taken, where both mean the same by a source; else each counts."""
    before = SourceLimit(Limits(maxPerSource=1))
    before.opened("192.0.2.1")
    same, other = (
        SourceLimit(Limits(maxPerSource=1, sourcePrefix=prefix)) for prefix in ((32, 128), (24, 64))
    )
    for after in (same, other):
        after.takeOver(before)
    assert same.refusal("192.0.2.1", 0.0) == "source_full"
    assert other.refusal("192.0.2.1", 0.0) is None
    other.opened("192.0.2.1")
    before.closed("192.0.2.1")
    assert same.refusal("192.0.2.1", 0.0) is None
    assert other.refusal("192.0.2.99", 0.0) == "source_full"
