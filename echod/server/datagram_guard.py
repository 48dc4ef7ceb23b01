"""
Which datagrams may be answered: an echo over UDP must be no reflector and no loop.

An answer goes to whatever address a datagram claims to come from (docs/wire.md E6, E7;
CVE-1999-0103, CVE-2024-2169).  So nothing is answered that claims to come from a port where
something else answers by itself, from one of our own, or from many at once; and of what is left,
no more than a rate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Hashable
from functools import lru_cache, partial

from echod.wire.addresses import FIRST_MULTICAST
from echod.wire.networks import Networks, sourceOf
from echod.wire.token_buckets import SOURCES, Rate, Rates

__all__ = ["REFLECTORS", "DatagramGuard", "isUnicast"]

#: Source ports that answer by themselves: echo, discard, daytime, qotd, chargen, time, domain,
#: tftp, portmap, ntp, netbios, snmp, ldap, rip, memcached, ssdp, ws-discovery, mdns, coap ...
REFLECTORS = frozenset(
    {
        *(7, 9, 13, 17, 19, 37, 53, 69, 111, 123, 137, 138, 161, 177, 389, 427, 520, 623, 1194),
        *(1434, 1701, 1900, 3283, 3478, 3702, 5060, 5093, 5353, 5683, 10001, 11211, 27015),
    }
)
#: The prefixes with which each host is a source of its own.
HOSTS = (32, 128)
#: How many times the rate of one source all together may have.
TOGETHER = 10


class DatagramGuard:
    """
    Says of each datagram whether it may be answered.

    :param perSecond: datagrams a second of one source; all together `TOGETHER` times that; 0 for
        no limit.
    :param reflectors: source ports that are not answered.
    :param ownPorts: the ports of all our own datagram listeners; may grow.
    :param networks: who may come.
    :param prefixes: see `echod.wire.networks.sourceOf`; where each host is a source of its own its
        text tells them apart, and costs nothing to make.
    """

    def __init__(
        self,
        perSecond: int,
        reflectors: Collection[int],
        ownPorts: Container[int],
        networks: Networks | None = None,
        prefixes: tuple[int, int] = HOSTS,
    ) -> None:
        self._reflectors = frozenset(reflectors)
        self._ownPorts = ownPorts
        self._networks = networks
        # What both rates depend on.
        self._measure = (perSecond, prefixes)
        self._sourceOf: Callable[[str], Hashable] | None = None
        if prefixes != HOSTS and perSecond:
            # To parse an address costs five times as much as all the rest.
            self._sourceOf = lru_cache(SOURCES)(partial(sourceOf, prefixes=prefixes))
        self._bySource = Rates(perSecond)
        self._together = Rate(perSecond * TOGETHER)

    def refusal(self, host: str, port: int, now: float, client: str | None = None) -> str | None:
        """
        Why a datagram from there is not answered at ``now``, in monotonic seconds.

        :param client: the numeric address of whom the sender, a proxy, speaks for: this one may
            come or not and has a rate.  Where the answer goes to remains the sender's.
        :returns: one of ``port_zero``, ``own_port``, ``reflector``, ``not_unicast``, ``denied``,
            ``source_rate`` and ``rate``, the key of a counter; ``None`` if it is answered.
        """
        if port == 0:
            return "port_zero"
        if port in self._ownPorts:
            return "own_port"
        if port in self._reflectors:
            return "reflector"
        if not isUnicast(host):
            return "not_unicast"
        source = host if client is None else client
        if self._networks and not self._networks.admit(source):
            return "denied"
        counted = source if self._sourceOf is None else self._sourceOf(source)
        if not self._bySource.take(counted, now):
            return "source_rate"
        if not self._together.take(now):
            return "rate"
        return None

    def takeOver(self, other: DatagramGuard) -> None:
        """Go on with what is left of the rates of ``other``, where they mean the same."""
        if self._measure == other._measure:
            self._bySource, self._together = other._bySource, other._together


def isUnicast(host: str) -> bool:
    """
    Whether a numeric address may be a single host's: not multicast, broadcast or unspecified.

    The broadcast address of a network cannot be told from a host's; the system refuses to send
    to it.
    """
    lower = host.lower()
    if "." in lower:
        lower = lower.removeprefix("::ffff:")
    if ":" in lower:
        return not (lower.startswith("ff") or lower == "::")
    return 0 < int(lower.partition(".")[0]) < FIRST_MULTICAST
