"""Who a peer is, as it is kept, and as text: `tellPeer`."""

from __future__ import annotations

from echod.wire.addresses import describeAddress, formatAddress

__all__ = ["tellPeer"]


def tellPeer(peer: object) -> str:
    """
    Who somebody is, as text.

    :param peer: one of Twisted's addresses, what the kernel calls an address, or process, user and
        group of the client of a UNIX socket.
    :returns: such as ``192.0.2.7:40000`` or ``process=7,user=0,group=0``; empty for whoever has no
        name.
    """
    match peer:
        case (str(host), int(port), *_):
            return formatAddress(host, port)
        case (int(process), int(user), int(group)):
            return f"process={process},user={user},group={group}"
    return describeAddress(peer) or ""
