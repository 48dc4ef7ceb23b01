"""`echod.connection.connection`: bytes that are limited, by number and by rate, and shown (issue
5)."""

from __future__ import annotations

import gc
import socket
import weakref
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import msgspec
import pytest

from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.states import Reason, State
from echod.connection.sweep import SHARDS, TICK
from echod.protocols.line import LineOptions, line
from echod.protocols.raw import RawOptions, raw
from echod.server.stream_listener import StreamListener
from echod.testing import Link, PlainContext, memoryLink, tcpLink
from echod.testing.in_flight import inFlight
from echod.testing.links import unixLink
from tests.certificates import Certificates
from tests.unit.served import Served

KIB = 1024


def serve(limits: Limits, maker: Any = raw, settings: Any = None, make: Any = memoryLink) -> Link:
    settings = settings or RawOptions()
    return make(maker.makeFactory(settings).buildProtocol(None), limits=limits)  # type: ignore[no-any-return]  # a link


@pytest.mark.parametrize("make", [memoryLink, tcpLink], ids=["memory", "tcp"])
@pytest.mark.parametrize("pieces", [[b"x" * 10], [b"x" * 9, b"xxx"], [b"x" * 4, b"x" * 6, b"x"]])
def test_maxBytes(make: Any, pieces: list[bytes]) -> None:
    """What it may send comes back, no more; then our FIN, counted as that."""
    link = serve(Limits(maxBytes=10), make=make)
    for piece in pieces:
        link.send(piece)
        link.pump()
    assert link.readAll() == b"x" * 10
    assert link.connection.reason is Reason.MAX_BYTES
    assert link.connection.bytesIn == 10
    assert link.connection.bytesIn + link.connection.discarded == len(b"".join(pieces))
    link.finish()
    link.pump()
    assert link.gone
    link.close()


def test_maxBytesAndMessages() -> None:
    """A message that is cut by the limit is not answered; those before it are."""
    link = serve(Limits(maxBytes=10), line, LineOptions())
    link.send(b"one\ntwo\nthree\n")
    assert link.readAll() == b"one\ntwo\n"
    assert link.connection.reason is Reason.MAX_BYTES
    link.finish()
    link.pump()
    assert link.gone


@pytest.mark.parametrize("key", ["bytesPerSecond", "listenerBytesPerSecond"])
def test_bytesPerSecond(key: str) -> None:
    """A rate is a pause, never a drop: a second's worth at once, then as it grows back."""
    link = serve(Limits(**{key: 10_000}))  # type: ignore[arg-type]  # a number
    data = bytes(range(250)) * 200
    assert link.send(data) == len(data)
    got = bytearray()
    seconds = 0.0
    while len(got) < len(data):
        link.pump()
        got += link.receive() or b""
        assert len(got) <= 10_000 * (1 + seconds) + 10_000
        link.advance(0.1)
        seconds += 0.1
        assert seconds < 10
    assert got == data
    assert 3 <= seconds <= 5
    # It has rested for seconds: whoever may not send is not idle.
    assert link.connection.state is State.OPEN
    link.finish()
    link.advance(1.5)
    assert link.readAll() == b""


def test_restingIsNotIdle() -> None:
    link = serve(Limits(bytesPerSecond=100, idleTimeout=2))
    link.send(bytes(600))
    got = 0
    for _ in range(60):
        link.pump()
        got += len(link.receive() or b"")
        link.advance(0.1)
    assert got == 600
    assert link.connection.state is State.OPEN
    link.advance(4)
    assert link.connection.reason is Reason.IDLE
    link.finish()
    link.pump()


def test_restIsAPauseOfItsOwn() -> None:
    """A rate does not resume what waits for its peer, nor the other way round."""
    connection: Any = raw.makeFactory(RawOptions()).buildProtocol(None)  # type: ignore[arg-type]  # no address
    limits = Limits(bytesPerSecond=50_000)
    link = memoryLink(connection, limits=limits, sendBuffer=4 * KIB, receiveBuffer=4 * KIB)
    sent = 0
    for _ in range(100):
        sent += link.send(bytes(4 * KIB))
        link.pump()
        link.advance(0.1)
    # Not read by the peer: full, however long it has rested.
    assert link.connection.bytesIn <= 65536 + 50_000 + 8 * KIB
    before = link.connection.bytesIn
    link.advance(5)
    assert link.connection.bytesIn == before
    link.finish()
    got = 0
    for _ in range(400):
        link.pump()
        piece = link.receive()
        if piece == b"":
            break
        got += len(piece or b"")
        link.advance(0.1)
    assert got == sent


def test_drainDoesNotRest() -> None:
    """O1: what the kernel held is read at any speed once the daemon stops."""
    link = serve(Limits(bytesPerSecond=1000))
    link.send(bytes(20_000))
    link.pump()
    assert link.connection.bytesIn < 20_000
    link.connection.drain()
    assert link.readAll() == bytes(20_000)
    assert link.connection.reason is Reason.DRAIN
    link.finish()
    link.pump()
    assert link.gone


class BusyInADrain(Connection):
    """Echoes; has enough to do as soon as it drains, and counts how often it is looked at."""

    sweeps = 0

    def received(self, data: bytes) -> None:
        self.reply(data)
        if self.state is State.DRAINING:
            self.holdInput()

    def sweep(self, now: float) -> None:
        self.sweeps += 1
        super().sweep(now)


def test_drainIsNotLookedAtEachTick() -> None:
    """A rest is looked at each tick; once a drain has ended it, that is once a second again."""
    connection = BusyInADrain()
    link = memoryLink(connection, limits=Limits(bytesPerSecond=1000))
    link.send(bytes(20_000))
    link.pump()
    link.advance(1.0)
    assert connection.sweeps >= SHARDS
    connection.sweeps = 0
    connection.drain()
    link.advance(1.0)
    assert connection.state is State.DRAINING
    assert connection.sweeps == 1
    connection.releaseInput()
    while connection.state is State.DRAINING:
        link.pump()
        connection.releaseInput()
    assert link.readAll() == bytes(20_000)


@pytest.mark.parametrize("most", [5000, 200, 1])
@pytest.mark.parametrize("kind", ["memory", "tcp", "unix", "tls"])
def test_drainAnswersNoMoreThanMaxBytes(most: int, kind: str, certificates: Certificates) -> None:
    """What a drain reads at any speed is limited in number as ever."""
    makers: dict[str, Any] = {
        "memory": memoryLink,
        "tcp": tcpLink,
        "unix": unixLink,
        "tls": partial(tcpLink, security=certificates.security("1.3")),
    }
    limits = Limits(maxBytes=most, bytesPerSecond=100)
    link = serve(limits, make=makers[kind])
    link.send(bytes(8_000))
    link.pump(lambda: link.connection.bytesIn > 0)
    link.connection.drain()
    assert link.readAll() == bytes(most)
    assert link.connection.bytesIn == link.connection.bytesOut == most
    link.finish()
    link.advance(0.5)
    assert link.gone
    assert link.connection.cut == 0
    link.close()


def test_drainOwesNoMoreThanMaxBytes() -> None:
    """Who had its bytes is not one that was cut, however much more it has sent."""
    link = serve(Limits(maxBytes=1000, bytesPerSecond=1000))
    link.send(bytes(999))
    link.pump()
    link.send(bytes(20_000))
    link.connection.drain()
    link.pump()
    assert link.connection.bytesIn == 1000
    link.connection.abort(Reason.DRAIN)
    link.pump()
    assert link.connection.cut == 0
    assert link.gone


def test_firstByte() -> None:
    """Who says nothing at all is ended; who has said something is not."""
    limits = Limits(firstByteTimeout=3)
    silent, talking = serve(limits), serve(limits)
    for link in (silent, talking):
        link.advance(2)
    talking.send(b"x")
    for link in (silent, talking):
        link.advance(2)
    assert silent.readAll() == b""
    assert silent.connection.reason is Reason.FIRST_BYTE
    assert talking.connection.state is State.OPEN
    talking.advance(10)
    assert talking.connection.state is State.OPEN
    for link in (silent, talking):
        link.finish()
        link.pump()
        link.advance(0.5)


def test_payloadIsShown() -> None:
    """Each read is shown as it comes, also of a protocol whose input need not be looked at."""
    link = memoryLink(raw.makeFactory(RawOptions()).buildProtocol(None))  # type: ignore[arg-type]  # no address
    assert not link.connection._watched
    link.reset()
    link.pump()
    with Served(None, logPayload=True) as served:
        with connected(served) as client:
            for data in (b"one", b"two"):
                client.send(data)
                assert answer(served, client, 0.2) == data
        served.gone()
        shown = [line for line in served.lines if line.startswith("payload ")]
    assert [line.partition("data=")[2] for line in shown] == ["b'one'", "b'two'"]


def test_payloadIsShownInADrain() -> None:
    """What is answered after the drain has begun is shown as before it; what is not, is not."""
    with Served(None, limits=Limits(bytesPerSecond=100), logPayload=True) as served:
        with socket.create_connection(served.address) as client:
            client.sendall(b"a" * 100 + b"b" * 100)
            served.until(lambda: served.connection.bytesIn == 100)
            served.connection.drain()
            served.until(lambda: served.connection.bytesIn == 200)
            client.sendall(b"late")
            client.shutdown(socket.SHUT_WR)
            served.gone()
        shown = [line for line in served.lines if line.startswith("payload ")]
    assert [line.partition("size=")[2].split()[0] for line in shown] == ["100", "100"]


# -- What all connections of a listener share ------------------------------------------------------

TOGETHER = Limits(listenerBytesPerSecond=10_000)


def reset(client: socket.socket) -> None:
    """Close with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def answer(served: Served, client: socket.socket, seconds: float) -> bytes:
    """What has come back within so many seconds of the loop's."""
    for _ in range(round(seconds / TICK) + 1):
        served.rest()
        with suppress(BlockingIOError):
            return client.recv(65536)
        served.advance(TICK)
    raise AssertionError("nothing came back")


def connected(served: Served) -> socket.socket:
    client = socket.create_connection(served.address)
    client.setblocking(False)
    served.rest()
    return client


def test_shortConnections() -> None:
    """Each sends a second's worth and is gone: no more is read for it, and none of it is owed."""
    with Served(None, limits=TOGETHER) as served:
        for accepted in range(1, 251):
            client = socket.create_connection(served.address)
            served.until(lambda: served.counters()["accepted"] == accepted)  # noqa: B023  # at once
            client.send(bytes(10_000))
            transport: Any = served.connections[-1].transport
            served.until(lambda: not inFlight(client, transport.socket))  # noqa: B023  # at once
            while served.loop.turn():
                pass
            reset(client)
            if accepted % 5 == 0:
                served.advance(TICK)
        # Ticks are counted in whole bytes.
        assert served.counters()["bytes_in"] <= 10_000 * (1 + 5)
        served.advance(0.5)
        with connected(served) as honest:
            for _ in range(5):
                honest.send(b"1")
                assert answer(served, honest, 0.2) == b"1"


@pytest.mark.parametrize("greedy", [4, 40])
def test_turns(greedy: int) -> None:
    """Among many that send all the while, each has its share, and one that sends little too."""
    with Served(None, limits=TOGETHER) as served, ExitStack() as stack:
        clients = [stack.enter_context(connected(served)) for _ in range(greedy)]
        for client in clients:
            client.send(bytes(60_000))
        served.advance(1)
        modest = stack.enter_context(connected(served))
        for _ in range(3):
            modest.send(b"1")
            assert answer(served, modest, 0.3 + greedy * TICK / 3) == b"1"
        served.advance(10)
        got = [len(client.recv(65536)) for client in clients]
        # The first had what there was.
        assert min(got) >= sum(got[1:]) / (greedy - 1) / 2


def test_sharedByFoldedRates() -> None:
    """Its own rate holds for one that could have more of what all share."""
    limits = Limits(listenerBytesPerSecond=10_000, bytesPerSecond=1000)
    with Served(None, limits=limits) as served, connected(served) as client:
        client.send(bytes(20_000))
        served.advance(3)
        assert 3000 <= len(client.recv(65536)) <= 4000


def test_aWaitHasAnEnd() -> None:
    """Who waits for its turn longer than idle_timeout is ended, and is not taken for silent."""
    limits = Limits(listenerBytesPerSecond=10, idleTimeout=3, firstByteTimeout=1)
    with Served(None, limits=limits) as served, ExitStack() as stack:
        clients = [stack.enter_context(connected(served)) for _ in range(60)]
        for client in clients:
            client.send(bytes(1000))
        served.advance(2.5)
        assert served.counters()["open"] == 60
        assert min(served.counters()["bytes_in"], 40) >= 30
        served.advance(1)
        reasons = {connection.reason for connection in served.connections}
        assert Reason.IDLE in reasons
        assert Reason.FIRST_BYTE not in reasons


def test_whoWaitsIsNotIdle() -> None:
    """At the limit it makes no room for another: it has sent what is not answered yet."""
    limits = Limits(listenerBytesPerSecond=10, maxConnections=2)
    with Served(None, limits=limits) as served, ExitStack() as stack:
        clients = [stack.enter_context(connected(served)) for _ in range(2)]
        for client in clients:
            client.send(bytes(1000))
        served.advance(3)
        stack.enter_context(connected(served))
        assert served.counters()["refused"] == {"full": 1}
        assert len(served.connections) == 2


def test_placesAreGivenUp() -> None:
    """Whoever ends, in whatever way, leaves nothing behind that others would wait for."""
    with Served(None, limits=TOGETHER) as served:
        turns: Any = served.listener.byteRate
        clients = [connected(served) for _ in range(12)]
        for client in clients:
            client.send(bytes(20_000))
        served.rest()
        assert len(turns) == 12
        for client in clients[:3]:
            reset(client)
        served.advance(TICK)
        assert len(turns) == 9
        for connection in served.connections[:3]:
            connection.end(Reason.QUIT)
        for connection in served.connections[3:6]:
            connection.drain()
        served.rest()
        assert len(turns) == 3
        for client in clients:
            client.close()


@pytest.mark.parametrize("rate", [10_000, 20_000])
def test_reload(rate: int) -> None:
    """With the same rate a successor goes on with what is left; another rate begins anew."""
    with Served(None, limits=TOGETHER) as served, connected(served) as client:
        client.send(bytes(20_000))
        served.rest()
        assert served.counters()["bytes_in"] == 10_000
        plan = msgspec.structs.replace(
            served.listener.plan, limits=Limits(listenerBytesPerSecond=rate)
        )
        heir = StreamListener(plan, served.loop, served.sweep, PlainContext())
        heir.prepareTakeOver(served.listener)
        heir.takeOver(served.listener)
        served.listener = heir
        with connected(served) as other:
            other.send(bytes(20_000))
            served.rest()
            assert served.counters()["bytes_in"] == (10_000 if rate == 10_000 else 30_000)


def test_nothingIsLeft() -> None:
    """One that is gone is forgotten at once: no cycle waits for the collector."""
    with Served(None, limits=TOGETHER) as served:
        client = connected(served)
        client.send(b"x")
        served.rest()
        (connection,) = served.connections
        gone: list[Any] = [weakref.ref(connection), weakref.ref(connection.transport)]
        del connection
        gc.collect()
        gc.disable()
        try:
            reset(client)
            served.gone()
            assert [each() for each in gone] == [None, None]
        finally:
            gc.enable()
