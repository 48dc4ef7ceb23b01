"""What a protocol asks of the kernel is set at its listener: at the start and at a reload."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol

from echod.errors import ConfigurationError
from echod.kit import DatagramFacts, DatagramMaker, Stream, StreamMaker
from echod.server.registry import BUILTIN, Registry
from tests.ports import freePort
from tests.unit.outer import waitUntil
from tests.unit.reloading import Reloading


async def _facts(stream: Stream) -> None:
    await stream.write(json.dumps(stream.kernelFacts()).encode())


def telling(wants: Any) -> type[DatagramProtocol]:
    """A protocol that wants this, and keeps what it is told."""

    class Telling(DatagramProtocol):
        def __init__(self) -> None:
            told.append([])

        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            transport: Any = self.transport
            told[-1].append(transport.datagramFacts())
            transport.write(datagram, addr)

    if wants is not None:
        Telling.wants = wants  # type: ignore[attr-defined]  # it is optional
    return Telling


#: Of each protocol, what it was told.
told: list[list[DatagramFacts]] = []

REGISTRY = Registry(
    [
        *BUILTIN,
        StreamMaker("facts", "what the kernel knows", _facts),
        StreamMaker("more", "and the SYN", _facts, savesSYN=True),
        DatagramMaker("plain", "wants nothing", telling(None)),
        DatagramMaker("all", "wants all", telling(("ttl", "tos", "received_at"))),
        DatagramMaker("ttl", "wants one", telling(["ttl"])),
        DatagramMaker("odd", "wants what there is not", telling(("ttl", "weather"))),
    ]
)


def answer(served: Reloading, client: socket.socket) -> Any:
    """All that the server says, as JSON."""
    client.setblocking(False)
    received = bytearray()

    def ended() -> bool:
        try:
            piece = client.recv(65536)
        except BlockingIOError:
            return False
        received.extend(piece)
        return not piece

    waitUntil(served.loop.turn, ended)
    return json.loads(received)


def test_whoami() -> None:
    """It tells TCP_INFO and the SYN over TCP."""
    served = Reloading(REGISTRY)
    served.start(("whoami", "tcp:0", {}))
    with socket.create_connection(("127.0.0.1", served.ports()[0])) as client:
        said = answer(served, client)
        assert said["tcp_info"]["snd_mss"] > 0
        assert said["syn"]["source_port"] == client.getsockname()[1]
    served.stop()


def test_makersThatAsk() -> None:
    """The SYN is kept where the maker says so, also once it has taken over a socket."""
    served = Reloading(REGISTRY)
    port = freePort()
    served.start(("facts", f"tcp:{port}", {}))
    for name, keys in {
        "facts": {"tcp_info", "queues"},
        "more": {"tcp_info", "syn", "queues"},
        "raw": None,
    }.items():
        served.reload((name, f"tcp:{port}", {}))
        if keys is not None:
            with socket.create_connection(("127.0.0.1", port)) as client:
                assert answer(served, client).keys() == keys
    assert served.service.listeners[0]._port.socket.getsockopt(socket.IPPROTO_TCP, 27) == 0
    served.stop()


def test_datagrams() -> None:
    """Each protocol is told what it wants, and no more, whoever had the socket before."""
    served = Reloading(REGISTRY)
    port = freePort()
    served.start(("plain", f"udp:{port}", {}))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
        client.connect(("127.0.0.1", port))
        for name in ("plain", "all", "ttl", "plain"):
            served.reload((name, f"udp:{port}", {}))
            assert served.echo(client, b"x") == b"x"
            (facts,) = next(filter(None, reversed(told)))
            assert facts.ttl == (None if name == "plain" else 33)
            assert facts.tos == (0 if name == "all" else None)
            assert (facts.receivedAt is not None) == (name == "all")
            told.clear()
    served.stop()


def test_unknownWish() -> None:
    """What there is not is refused in one line, with what there is."""
    served = Reloading(REGISTRY)
    with pytest.raises(
        ConfigurationError, match=r"'odd' cannot be served: .*weather; there is ttl, tos, rec"
    ):
        served.start(("odd", "udp:0", {}))
