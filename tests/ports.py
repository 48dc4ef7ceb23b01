"""Ports for daemons that are told their number: `freePort`."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

__all__ = ["freePort"]

#: The lowest that is tried: above those of known services.
LOWEST = 10_000

_chance = random.SystemRandom()


def freePort() -> int:
    """
    One that nobody has, over TCP and UDP at every address, and that nobody is given.

    The system chooses ports of clients, and for whoever asks for port 0, from a range of its own
    (``ip_local_port_range``, ip(7)); this one is below.  Else another test that runs at this
    moment may be given it, and may answer in the daemon's place.
    """
    chosen = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        # A machine may have a range that leaves nothing below.
        port = _chance.randrange(LOWEST, chosen if chosen > LOWEST else 1 << 16)
        with (
            suppress(OSError),
            socket.create_server(("", port)),
            socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        ):
            datagrams.bind(("", port))
            return port
