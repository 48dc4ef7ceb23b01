"""Who a peer is, as it is kept, and as text: `tellPeer`."""

from __future__ import annotations

from echod.wire.addresses import describeAddress, formatAddress

__all__ = ["tellPeer"]

#: How many numbers SO_PEERCRED tells (unix(7)).
CREDENTIALS = 3


def tellPeer(peer: object) -> str:
    """
    Who somebody is, as text.

    :param peer: one of Twisted's addresses, what the kernel calls an address, or process, user and
        group of the client of a UNIX socket.
    :returns: such as ``192.0.2.7:40000`` or ``process=7,user=0,group=0``; empty for whoever has no
        name.
    """
    if not isinstance(peer, tuple):
        return describeAddress(peer) or ""
    if len(peer) > 1 and isinstance(peer[0], str):
        return formatAddress(peer[0], peer[1])
    return "process={},user={},group={}".format(*peer) if len(peer) == CREDENTIALS else ""
