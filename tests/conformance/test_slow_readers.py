"""
How much a client reads before the kernel tells: from which rate on nobody is taken for stalled.

What docs/configuration.md says of slow readers rests on it, and it is the kernel's to change.
TLS is TCP here: what waits are records.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from echod.config.settings import Limits
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


@pytest.mark.parametrize("kind", sorted(PROMISED))
def test_stepsOfProgress(kind: str) -> None:
    """The longest way between two signs of progress takes less than the default deadline."""
    protocol = raw.makeFactory(RawOptions()).buildProtocol(None)  # type: ignore[arg-type]  # no address
    make: Any = unixLink if kind == "unix" else tcpLink
    link = make(protocol)
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
        # A kernel with other work tells late: it has a moment before it is taken to be silent.
        link.pump(patience=0.0 if since < 0.9 * bound else 0.02)
        if delivered() != before:
            longest, since, before = max(longest, since), 0, delivered()
    longest = max(longest, since)
    assert 0 < longest <= bound, longest
    assert connection.state is State.OPEN
    link.close()
    link.pump()
    link.advance(1)
    assert link.gone
