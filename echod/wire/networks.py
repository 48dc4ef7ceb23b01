"""
Where a peer comes from: networks that may or may not, and what counts as one source.

Pure.  Addresses are compared as `echod.wire.addresses.parseAddress` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

from echod.errors import ConfigurationError
from echod.wire.addresses import parseAddress

__all__ = ["Networks", "Source", "sourceOf"]

#: Bits before the IPv4 address in an IPv4-mapped one.
_MAPPED = 96

#: A network of the given prefix length, as version and bits.
Source = tuple[int, int]


def sourceOf(host: str, prefixes: tuple[int, int]) -> Source:
    """
    What counts as one source.

    :param prefixes: how many bits of an IPv4 and of an IPv6 address tell sources apart.
    """
    address = parseAddress(host)
    kept = prefixes[0 if isinstance(address, IPv4Address) else 1]
    return address.version, int(address) >> (address.max_prefixlen - kept)


class Networks:
    """
    Who may come: the longest prefix that an address is in decides.

    :param allow: networks, as ``192.0.2.0/24``; if there are any, nobody else may.
    :param deny: networks that may not; of two that are equal, this one counts.
    :raises ConfigurationError: one is no network.
    """

    def __init__(self, allow: Iterable[str], deny: Iterable[str]) -> None:
        self._texts = (tuple(allow), tuple(deny))
        allow, deny = self._texts
        allowed = [(_parseNetwork(text), True) for text in allow]
        denied = [(_parseNetwork(text), False) for text in deny]
        self._rest = not allowed
        # The longest first; of equal ones the denial.
        self._networks = sorted(
            [*allowed, *denied], key=lambda entry: (-entry[0].prefixlen, entry[1])
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and self._texts == other._texts

    def __hash__(self) -> int:
        return hash(self._texts)

    def __bool__(self) -> bool:
        return bool(self._networks)

    @property
    def allowed(self) -> tuple[str, ...]:
        """Those that may come, as they were given."""
        return self._texts[0]

    def admit(self, host: str) -> bool:
        """Whether a peer with this numeric address may come."""
        if not self._networks:
            return True
        address = parseAddress(host)
        for network, admitted in self._networks:
            if address in network:
                return admitted
        return self._rest


def _parseNetwork(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        mend = ""
        try:
            mend = f"; write {ip_network(text, strict=False)}"
        except ValueError:
            mend = "; write one such as 192.0.2.0/24 or 2001:db8::/32"
        raise ConfigurationError(f"{text!r} is no network: {error}{mend}") from error
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None:
        # No address that is asked about would ever be in it.  Shorter than that it cannot be: the
        # bit before the IPv4 address is set.
        return IPv4Network((mapped, network.prefixlen - _MAPPED))
    return network
