"""
What the kernel knows of a connection, asked when somebody wants to know: `kernelFacts`.

All of it comes by getsockopt(2) and ioctl(2), from the socket alone, for any user.  What a kind of
socket does not know is left out: over a UNIX socket there is neither TCP nor a SYN.
"""

from __future__ import annotations

import socket
import struct
from array import array
from contextlib import suppress
from fcntl import ioctl
from termios import FIONREAD, TIOCOUTQ
from typing import NamedTuple

from echod.wire.syn import parseSYN
from echod.wire.tcp_info import parseTCPInfo

__all__ = [
    "TCP_SAVE_SYN",
    "KernelRecord",
    "kernelFacts",
    "lastFactsOf",
    "queuesOf",
    "savedSYN",
    "tcpInfoOf",
]

# Linux's, which the standard library has not: linux/tcp.h, asm-generic/socket.h.
#: On a listening socket: keep the headers of each SYN, as long as nobody has read them.
TCP_SAVE_SYN = 27
_TCP_SAVED_SYN = 28
_SO_MEMINFO = 55

#: Bytes to read it into; the kernel tells nothing in too few.  ``struct tcp_info`` had 280 in
#: Linux 6.18.
_TCP_INFO_SIZE = 512
#: At most 60 of IPv4 or 40 of IPv6, with what comes before TCP's, and 60 of TCP.
_SYN_SIZE = 1024
#: TCP_CA_NAME_MAX.
_NAME_SIZE = 16

# Memory for what has come, its limit, for what is sent, its limit, kept in advance, of what waits
# to be sent, for options, of what came while the socket was busy, and how often something was
# dropped (linux/sock_diag.h: SK_MEMINFO_…).
_MEMORY = struct.Struct("=9I")


def kernelFacts(skt: socket.socket, syn: bytes) -> dict[str, dict[str, object]]:
    """
    All of it: ``tcp_info``, ``syn`` and ``queues``, those that there are; see docs/insight.md.

    :param syn: what `savedSYN` has given.
    """
    facts = {"tcp_info": tcpInfoOf(skt), "syn": parseSYN(syn) or {}, "queues": queuesOf(skt)}
    return {name: values for name, values in facts.items() if values}


def tcpInfoOf(skt: socket.socket) -> dict[str, object]:
    """What `parseTCPInfo` tells, and ``congestion``, the name of the algorithm (tcp(7))."""
    info: dict[str, object] = {}
    with suppress(OSError):
        info = parseTCPInfo(skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE))
        name = skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_SIZE)
        info["congestion"] = name.partition(b"\0")[0].decode("ascii", "backslashreplace")
    return info


class KernelRecord(NamedTuple):
    """
    An `echod.interfaces.LastFacts`, as it came: it is read when it is told.

    :ivar tcpInfo: ``struct tcp_info``.
    :ivar syn: what `savedSYN` has given.
    """

    tcpInfo: bytes
    syn: bytes

    @property
    def acknowledged(self) -> int:
        """Bytes that the peer had acknowledged; a FIN counts as one."""
        acknowledged = parseTCPInfo(self.tcpInfo).get("bytes_acked", 0)
        assert isinstance(acknowledged, int)
        return acknowledged

    def told(self) -> dict[str, object]:
        """``tcp_info`` and ``syn``, those that there are."""
        facts = {"tcp_info": parseTCPInfo(self.tcpInfo), "syn": parseSYN(self.syn) or {}}
        return {name: values for name, values in facts.items() if values}


def lastFactsOf(skt: socket.socket, syn: bytes | None) -> KernelRecord | None:
    """
    What is kept of a connection that is about to be closed; ``None`` where there is no TCP.

    :param syn: what `savedSYN` has given, if somebody has asked.
    """
    try:
        info = skt.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:
        return None
    return KernelRecord(info, savedSYN(skt) if syn is None else syn)


def savedSYN(skt: socket.socket) -> bytes:
    """
    The headers of the SYN that made the connection, which the kernel gives once, and then forgets.

    It is empty where the listening socket had no `TCP_SAVE_SYN` at that time, and where the
    connection was made of a SYN cookie.
    """
    with suppress(OSError):
        return skt.getsockopt(socket.IPPROTO_TCP, _TCP_SAVED_SYN, _SYN_SIZE)
    return b""


def queuesOf(skt: socket.socket) -> dict[str, object]:
    """Bytes that wait in the kernel, and the memory that they take there."""
    queues: dict[str, object] = {}
    # ioctl says ValueError to a descriptor that is closed.
    with suppress(OSError, ValueError):
        queues["unread"] = _asked(skt, FIONREAD)
        if skt.family != socket.AF_UNIX:
            # There it counts memory, not bytes.
            queues["unsent"] = _asked(skt, TIOCOUTQ)
        queues["receive_buffer"] = skt.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        queues["send_buffer"] = skt.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        data = skt.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY.size)
        received, _, allocated, _, ahead, waiting, options, backlog, drops = _MEMORY.unpack(data)
        queues["receive_memory"] = received + backlog
        queues["send_memory"] = max(allocated, waiting) + options
        queues["spare_memory"] = ahead
        queues["drops"] = drops
    return queues


def _asked(skt: socket.socket, request: int) -> int:
    count = array("i", [0])
    ioctl(skt.fileno(), request, count)
    return count[0]
