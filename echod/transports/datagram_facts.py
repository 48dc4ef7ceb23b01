"""
What the kernel tells of a datagram beside its bytes: `DatagramFacts`, from ancillary data.

For IPv4 that is ip(7), for IPv6 RFC 3542, and for the time socket(7).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = ["ALL", "NOTHING", "Ancillary", "DatagramFacts", "Wish", "parseFacts", "spaceFor"]

#: One piece of ancillary data: a level, a type, and its bytes.
Ancillary = tuple[int, int, bytes]

# Linux's, which the standard library has not: linux/in.h, asm-generic/socket.h.
_IP_RECVTTL, _IP_TTL, _IP_TOS = 12, 2, 1
_SO_TIMESTAMPNS = 35

# What comes of them, where it comes with another number.
_TTL = {(socket.IPPROTO_IP, _IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)}
_TCLASS = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)

_INT = struct.Struct("=i")
_TIME = struct.Struct("@ll")  # struct timespec: seconds, nanoseconds
_NANOSECONDS: Final = 1_000_000_000


class Wish(NamedTuple):
    """
    What can be asked for.

    :ivar any: options of any socket, as level and number.
    :ivar inet6: options of sockets of IPv6 alone.
    :ivar size: bytes of the greatest of what comes of it.
    """

    any: tuple[tuple[int, int], ...]
    inet6: tuple[tuple[int, int], ...]
    size: int


#: By the word that a protocol asks with.  At a socket of IPv6 datagrams of IPv4 come with IPv4's.
ALL: Final = {
    "ttl": Wish(
        ((socket.IPPROTO_IP, _IP_RECVTTL),),
        ((socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT),),
        _INT.size,
    ),
    "tos": Wish(
        ((socket.IPPROTO_IP, socket.IP_RECVTOS),),
        ((socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS),),
        _INT.size,
    ),
    "received_at": Wish(((socket.SOL_SOCKET, _SO_TIMESTAMPNS),), (), _TIME.size),
}


class DatagramFacts(NamedTuple):
    """
    What the kernel says of a datagram; ``None`` where it was not asked, or says nothing.

    :ivar ttl: hops that it had left as it arrived (IPv6: hop limit).
    :ivar tos: its type of service (IPv6: traffic class): DSCP in the upper six bits, ECN in the
        lower two (RFC 3168).
    :ivar receivedAt: when the kernel received it, nanoseconds since 1970 by the system's clock.
    """

    ttl: int | None = None
    tos: int | None = None
    receivedAt: int | None = None

    @property
    def ecn(self) -> int | None:
        """The two bits of `tos`: 0 not capable, 1 and 2 capable, 3 congestion met."""
        return None if self.tos is None else self.tos & 3


#: Nothing is known.
NOTHING: Final = DatagramFacts()


def spaceFor(words: Iterable[str]) -> int:
    """Bytes of ancillary data that what is asked for takes."""
    return sum(socket.CMSG_SPACE(ALL[word].size) for word in words)


def parseFacts(ancillary: Iterable[Ancillary]) -> DatagramFacts:
    """What is said there."""
    ttl = tos = receivedAt = None
    for level, kind, data in ancillary:
        if (level, kind) in _TTL and len(data) >= _INT.size:
            (ttl,) = _INT.unpack_from(data)
        elif (level, kind) == (socket.IPPROTO_IP, _IP_TOS) and data:
            # A byte, for once.
            tos = data[0]
        elif (level, kind) == _TCLASS and len(data) >= _INT.size:
            (tos,) = _INT.unpack_from(data)
        elif (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(data) >= _TIME.size:
            seconds, rest = _TIME.unpack_from(data)
            receivedAt = seconds * _NANOSECONDS + rest
    return DatagramFacts(ttl, tos, receivedAt)
