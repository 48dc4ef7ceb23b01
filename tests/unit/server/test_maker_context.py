"""`echod.server.maker_context`: what makers are told of the server, from its start to its end."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.protocols.wire import Echo
from zope.interface import implementer

from echod.config.settings import Configuration
from echod.interfaces import IDatagramProtocolMaker, IStreamProtocolMaker, ServerContext
from echod.kit import MessageMaker
from echod.server.plan import ListenerRequest, plan
from echod.server.registry import BUILTIN, Registry
from echod.server.service import EchodService
from echod.testing import Loop
from echod.wire.framing import lines
from tests.unit.outer import waitUntil
from tests.unit.reloading import Reloading


@implementer(IStreamProtocolMaker, IDatagramProtocolMaker)
class Curious:
    """Keeps the contexts that it is given, and what each told as it was given."""

    name = "curious"
    description = "asks"
    options = None
    defaults: dict[str, Any] = {}

    def __init__(self) -> None:
        self.contexts: list[ServerContext] = []
        self.first: list[Any] = []

    def _ask(self, context: ServerContext) -> None:
        self.contexts.append(context)
        self.first.append((context.health, context.listeners, context.counters()["listeners"]))

    def makeFactory(self, settings: Any, context: ServerContext) -> Any:
        self._ask(context)
        return Factory.forProtocol(Echo)

    def makeDatagram(self, settings: Any, context: ServerContext) -> Any:
        self._ask(context)
        return DatagramProtocol()


@implementer(IStreamProtocolMaker)
class Incurious:
    """Takes the settings alone."""

    name = "incurious"
    description = "does not ask"
    options = None
    defaults: dict[str, Any] = {}

    def makeFactory(self, settings: Any) -> Any:  # type: ignore[override]  # it may leave it out
        return Factory.forProtocol(Echo)


def receiveLine(client: socket.socket, loop: Loop) -> bytes:
    """What the server sends, up to the end of a line."""
    client.setblocking(False)
    received = bytearray()

    def whole() -> bool:
        with suppress(BlockingIOError):
            received.extend(client.recv(4096))
        return received.endswith(b"\n")

    waitUntil(loop.turn, whole)
    return bytes(received)


def names(context: ServerContext) -> list[str]:
    return [each.description for each in context.listeners]


def test_fromStartToReload() -> None:
    """It tells of now: of who listens, where, and of what was counted; after a reload too."""
    curious = Curious()
    served = Reloading(Registry([*BUILTIN, curious, Incurious()]))
    served.start(("raw", "tcp:0", {}), ("curious", "tcp:0", {}), ("incurious", "tcp:0", {}))
    (context,) = curious.contexts
    assert curious.first == [("ready", [], [])]
    one, own, third = served.ports()
    first, second, _ = context.listeners
    assert (first.protocol, first.endpoint) == ("raw", f"tcp 127.0.0.1:{one}")
    assert first.description == f"raw tcp 127.0.0.1:{one}"
    assert second.description == f"curious tcp 127.0.0.1:{own} (no half-close)"
    with socket.create_connection(("127.0.0.1", one)) as client:
        assert served.echo(client, b"x") == b"x"
        assert context.counters() == served.service.counters()
        assert [each["open"] for each in context.counters()["listeners"]] == [1, 0, 0]
        # One goes, with a connection that stays; one stays; one changes; one is new.
        served.reload(
            ("curious", "tcp:0", {}),
            ("incurious", "tcp:0", {"idle_timeout": 9.0}),
            ("dns", "tcp:0", {}),
        )
        assert curious.contexts == [context]
        assert [each.protocol for each in context.listeners] == ["curious", "incurious", "dns"]
        assert context.listeners[1].endpoint == f"tcp 127.0.0.1:{third}"
        assert [each["open"] for each in context.counters()["listeners"]] == [0, 0, 0, 1]
    waitUntil(served.loop.turn, lambda: not context.counters()["listeners"][-1]["open"])
    served.reload(("curious", "tcp:0", {}), ("curious", "udp:0", {}))
    assert curious.contexts == [context, context]
    # As it was made the others served already, and it did not.
    assert [each.protocol for each in curious.first[1][1]] == ["curious", "incurious", "dns"]
    assert [each.endpoint.split()[0] for each in context.listeners] == ["tcp", "udp"]
    assert context.clock is served.loop
    served.stop()


def test_inAReloadThatFails() -> None:
    """Nothing has changed for it either."""
    curious = Curious()
    served = Reloading(Registry([*BUILTIN, curious]))
    served.start(("curious", "tcp:0", {}))
    (context,) = curious.contexts
    before = names(context)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Exception, match=f"cannot listen on tcp 127.0.0.1:{port}"):
            served.reload(("curious", "tcp:0", {"idle_timeout": 9.0}), ("raw", f"tcp:{port}", {}))
    assert names(context) == before
    assert curious.contexts == [context, context]
    served.stop()


def test_health() -> None:
    """``ready``, and ``draining`` from the signal on, while the delay lasts and afterwards."""
    curious = Curious()
    loop = Loop()
    requests = [
        ListenerRequest(place="test", protocol=name, endpoint="tcp:0")
        for name in ("curious", "health")
    ]
    configuration = Configuration(drainDelay=5.0)
    registry = Registry([*BUILTIN, curious])
    service = EchodService(plan(configuration, requests, registry, 1 << 16), loop, loop.seconds)
    service.privilegedStartService()
    service.startService()
    (context,) = curious.contexts
    port = service.listeners[1].getHost().port

    def asked() -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as client:
            told = receiveLine(client, loop)
        waitUntil(loop.turn, lambda: not service.connectionCount())
        return told

    assert (context.health, context.draining) == ("ready", False)
    assert asked() == b"ready\n"
    ended: list[Any] = []
    service.stopService().addCallback(ended.append)
    assert (context.health, context.draining) == ("draining", True)
    assert asked() == b"draining\n"
    loop.advance(5.0)
    waitUntil(loop.turn, lambda: ended)


def test_countersAreAnybodys() -> None:
    """A protocol that tells the counters is a function."""

    def tell(line: bytes, context: ServerContext) -> bytes:
        return json.dumps(context.counters()).encode()

    stats = MessageMaker("stats", "the counters", lines, tell)
    served = Reloading(Registry([stats]))
    served.start(("stats", "tcp:0", {}))
    with socket.create_connection(("127.0.0.1", served.ports()[0])) as client:
        client.send(b"?\n")
        told = receiveLine(client, served.loop)
    (listener,) = json.loads(told)["listeners"]
    assert (listener["accepted"], listener["bytes_in"], listener["messages"]) == (1, 2, 1)
    served.stop()
