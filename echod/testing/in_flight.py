"""
Whether TCP has something on its way between two sockets of this process: `inFlight`.

Over loopback the kernel mostly delivers before ``send`` returns, now and then a moment later.
Whoever is to wait for that moment, and only then, asks both ends.
"""

from __future__ import annotations

import socket
from struct import Struct
from typing import NamedTuple

from echod.testing.tls_socket import TLSSocket

__all__ = ["inFlight"]

#: Parts of ``struct tcp_info`` (linux/tcp.h, since Linux 4.19), in the order of `_Info`.
_INFO = Struct("=24xI100xQ8xI52xQQ")


class _Info(NamedTuple):
    """
    What one end knows.

    :ivar unacknowledged: ``tcpi_unacked``: packets, one with FIN too, that nobody has said to have.
    :ivar received: ``tcpi_bytes_received``; FIN counts as one.
    :ivar unsent: ``tcpi_notsent_bytes``: bytes that wait for room at the peer.
    :ivar sent: ``tcpi_bytes_sent``.
    :ivar sentAgain: ``tcpi_bytes_retrans``: of these, those that were sent before.
    """

    unacknowledged: int
    received: int
    unsent: int
    sent: int
    sentAgain: int


def inFlight(one: socket.socket | TLSSocket, other: socket.socket | TLSSocket) -> bool:
    """
    Whether bytes, FIN or an acknowledgement of all are on their way between the two ends.

    What a sender may not send yet, because its peer does not read, is not on its way.  Of a socket
    that is closed nobody can tell: then it is true.
    """
    if one.fileno() < 0 or other.fileno() < 0:
        return True
    here, there = _infoOf(one), _infoOf(other)
    return _isAhead(here, there) or _isAhead(there, here)


def _infoOf(end: socket.socket | TLSSocket) -> _Info:
    return _Info(*_INFO.unpack(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)))


def _isAhead(sender: _Info, receiver: _Info) -> bool:
    return sender.sent - sender.sentAgain > receiver.received or (
        sender.unacknowledged > 0 and not sender.unsent
    )
