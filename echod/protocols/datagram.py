"""
``udp``: each datagram is answered with one of the same data (RFC 862); and what is shared.

The transport answers the datagram at hand and no other, with no more bytes than it had.
"""

from __future__ import annotations

from twisted.internet.protocol import DatagramProtocol

from echod.kit import DatagramMaker

__all__ = ["Discard", "Echo", "udp"]


class Echo(DatagramProtocol):
    """Each datagram goes back."""

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Send it back."""
        assert self.transport is not None
        self.transport.write(datagram, addr)


class Discard(DatagramProtocol):
    """None does."""

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Counted, that is all."""


udp = DatagramMaker("udp", "each datagram comes back (RFC 862 over UDP)", Echo)
