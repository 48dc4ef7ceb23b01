"""
How much a client reads before the kernel tells: from which rate on nobody is taken for stalled.

What docs/configuration.md says of slow readers rests on it, and it is the kernel's to change.
TLS is TCP here: what waits are records.
"""

from __future__ import annotations

import random

import pytest

from echod.config.limits import Limits
from echod.connection.states import State
from echod.protocols.raw import RawOptions, raw
from echod.testing import tcpLink
from echod.testing.links import unixLink

#: Bytes a second from which on docs/configuration.md promises that a reader is not cut.
PROMISED = {"tcp": 2500, "unix": 1000}
#: Seconds between two looks at a connection, and some more.
LOOKS = 1.5
#: Bytes of one read of the client's.
PIECE = 1000
#: Bytes of the client's receive buffer over TCP, which the kernel doubles to tcp_rmem's default
#: (tcp(7)).  If none is asked for, it lets the buffer grow when a machine with other work reads in
#: bursts, and the step grows with it: 210 kB were seen at a buffer of 420 kB.
RECEIVE_BUFFER = 65536


@pytest.mark.parametrize("kind", sorted(PROMISED))
def test_stepsOfProgress(kind: str) -> None:
    """The longest way between two signs of progress takes less than the default deadline."""
    protocol = raw.makeFactory(RawOptions()).buildProtocol(None)  # type: ignore[arg-type]  # no address
    assert protocol is not None
    link = unixLink(protocol) if kind == "unix" else tcpLink(protocol, receiveBuffer=RECEIVE_BUFFER)
    noise = random.Random(42).randbytes(65536)
    for _ in range(1000):
        sent = link.send(noise)
        link.pump(patience=0.0)
        if not sent and link.connection.pauses:
            break
    assert link.connection.pauses
    connection, transport = link.connection, link.connection.transport

    def delivered() -> int:
        return int(connection.bytesOut + transport.overhead - transport.unsent())

    bound = PROMISED[kind] * (Limits().stallTimeout - LOOKS)
    longest = since = 0
    before = delivered()
    for _ in range(1500):
        since += len(link.receive(PIECE) or b"")
        link.pump(patience=0.0)
        if delivered() != before:
            longest, since, before = max(longest, since), 0, delivered()
    longest = max(longest, since)
    assert 0 < longest <= bound, longest
    assert connection.state is State.OPEN
    link.close()
    link.pump()
    link.advance(1)
    assert link.gone
