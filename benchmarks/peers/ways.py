"""
Line echo by echod, not by a connection class: ``python -m benchmarks.peers.ways WAY PORT``.

WAY is ``coroutine``, ``function`` (a framing and a function) or ``factory`` (Twisted's
`LineOnlyReceiver`, hosted).
"""

from __future__ import annotations

import sys

from twisted.internet.protocol import Factory

from benchmarks.peers.twisted_echo import LineEcho
from echod.config.settings import Configuration
from echod.interfaces import IStreamProtocolMaker
from echod.kit import FactoryMaker, MessageMaker, Stream, StreamMaker
from echod.server.plan import ListenerRequest, plan
from echod.server.registry import Registry
from echod.server.service import EchodService
from echod.wire.framing import lines


async def _echo(stream: Stream) -> None:
    while True:
        await stream.write(await stream.readUntil(b"\n"))


WAYS: dict[str, IStreamProtocolMaker] = {
    "coroutine": StreamMaker("coroutine", "each line comes back", _echo),
    "function": MessageMaker("function", "each line comes back", lines, lambda line: line),
    "factory": FactoryMaker(
        "factory", "each line comes back", lambda: Factory.forProtocol(LineEcho)
    ),
}


def main(way: str, port: int) -> None:
    """Serve until killed, on the default reactor."""
    from twisted.internet import reactor

    request = ListenerRequest(place="ways", protocol=way, endpoint=f"tcp:{port}")
    service = EchodService(
        plan(Configuration(), [request], Registry([WAYS[way]]), 1 << 16), reactor
    )
    service.privilegedStartService()
    service.startService()
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
