"""
A state machine over one connection: whatever a client does, in whatever order, the promise holds.

Hypothesis chooses what the client does next, and what time does; after each step what came back
is a beginning of what was sent and what is held is bounded, and at the end it is all there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from errno import EAGAIN, EINTR, ENOBUFS, ENOMEM, EPERM
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.interfaces import IProtocol
from twisted.protocols.wire import Echo

from echod.config.limits import Limits
from echod.connection.states import Reason, State
from echod.kit.coroutine import StreamConnection
from echod.kit.messages import AnsweringConnection
from echod.kit.stream import Stream
from echod.protocols.raw import RawOptions, raw
from echod.testing import Link, memoryLink
from echod.wire.framing import fixed
from tests.unit.counted_pipes import CountedMemoryPipes

POOL = random.Random(5).randbytes(1 << 20)
LIMITS = Limits(stallTimeout=30, lingerTimeout=5)
HELD = 384 * 1024
#: Bytes that come back before all else, where a client sends bulk.
BULK = 100_000


async def _echo(stream: Stream) -> None:
    async for data in stream:
        await stream.write(data)


async def _sips(stream: Stream) -> None:
    while data := await stream.read(100):
        await stream.write(data)


def _raw(**options: Any) -> IProtocol:
    protocol = raw.makeFactory(RawOptions(**options)).buildProtocol(None)  # type: ignore[arg-type]  # no address
    assert protocol is not None
    return protocol


#: All of them give back every byte.
ECHOES: list[Callable[[], IProtocol]] = [
    _raw,
    lambda: _raw(quit="a word that nobody says"),
    lambda: StreamConnection(_echo),
    lambda: StreamConnection(_sips, 5000),
    lambda: AnsweringConnection(fixed(1)(1), lambda message: message),
    Echo,
]


class Client(RuleBasedStateMachine):
    """What a client may do."""

    link: Link

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self.got = bytearray()
        self.finished = self.vanished = self.ended = self.late = False

    @initialize(
        echo=st.sampled_from(ECHOES),
        buffers=st.sampled_from([64, 4099, 65536]),
        rate=st.sampled_from([0, 0, 0, 20_000]),
    )
    def connect(self, echo: Callable[[], IProtocol], buffers: int, rate: int) -> None:
        limits = Limits(stallTimeout=30, lingerTimeout=5, bytesPerSecond=rate)
        self.link = memoryLink(echo(), limits=limits, sendBuffer=buffers, receiveBuffer=buffers)

    def sendAll(self, data: bytes) -> int:
        """Send what is taken, a buffer at a time; returns how much that is."""
        rest = memoryview(data)
        while taken := self.link.send(rest):
            rest = rest[taken:]
        return len(data) - len(rest)

    def receiveAll(self) -> bytes | None:
        """Read all that is there; returns what was last: ``b""`` is FIN, ``None`` is no more."""
        while piece := self.link.receive(1 << 20):
            self.got += piece
        return piece

    def cutOff(self) -> None:
        """Only a deadline may do this: to who did not read, or did not end after our FIN."""
        assert self.link.connection.state in (State.ABORTED, State.CLOSED)
        assert self.link.connection.reason in (Reason.STALLED, Reason.DRAIN)
        self.ended = True

    def connected(self) -> bool:
        return not (self.vanished or self.ended)

    @precondition(lambda self: self.connected() and not self.finished)
    @rule(size=st.sampled_from([1, 100, 5000, 70_000, 250_000]))
    def send(self, size: int) -> None:
        try:
            taken = self.sendAll(POOL[self.sent : self.sent + size])
        except (ConnectionResetError, BrokenPipeError):
            self.cutOff()
            return
        self.late = self.late or (taken > 0 and self.link.connection.state is not State.OPEN)
        self.sent += taken

    @precondition(connected)
    @rule(size=st.sampled_from([1, 1000, 1 << 20]))
    def receive(self, size: int) -> None:
        try:
            piece = self.link.receive(size)
        except ConnectionResetError:
            self.cutOff()
            return
        if piece == b"":
            self.ended = True
        self.got += piece or b""

    @rule()
    def turns(self) -> None:
        self.link.pump()

    @rule()
    def oneTurn(self) -> None:
        self.link.loop.turn()

    @rule(ticks=st.integers(1, 30))
    def time(self, ticks: int) -> None:
        self.link.advance(ticks / 10)

    @precondition(lambda self: self.connected() and not self.finished)
    @rule()
    def finish(self) -> None:
        self.link.finish()
        self.finished = True

    @precondition(connected)
    @rule(chance=st.integers(0, 9))
    def vanish(self, chance: int) -> None:
        if not chance:
            self.link.reset()
            self.vanished = True

    @precondition(lambda self: self.connected() and self.link.connection.state is State.OPEN)
    @rule(chance=st.integers(0, 9))
    def drain(self, chance: int) -> None:
        if not chance:
            # What is not with the server's kernel by now need not be answered.
            waiting = self.link._client._outgoing.sent
            self.late = self.late or bool(waiting)
            self.link.connection.drain()

    @invariant()
    def nothingElse(self) -> None:
        assert POOL.startswith(bytes(self.got))
        assert len(self.got) <= self.sent

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "link") and not self.link.gone:
            transport: Any = self.link.connection.transport
            held = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
            assert held + transport._inPipe() <= HELD

    @invariant()
    def counted(self) -> None:
        """What was written is with the client, or is known to be on its way; no byte is both."""
        if hasattr(self, "link") and not (self.link.gone or self.vanished):
            connection = self.link.connection
            arrived = len(self.link._client._incoming.arrived)
            known = len(self.got) + arrived + connection.transport.unsent()
            assert connection.bytesOut == known

    def teardown(self) -> None:
        if not hasattr(self, "link"):
            return
        link = self.link
        if self.connected():
            if not self.finished:
                link.finish()
            for _ in range(3000):
                link.pump()
                try:
                    piece = self.receiveAll()
                except ConnectionResetError:
                    self.cutOff()
                    break
                if piece == b"":
                    break
                if piece is None:
                    link.advance(0.5)
            else:
                raise AssertionError(f"no end: {link.connection.state}")
            assert bytes(self.got) == POOL[: len(self.got)]
            if not self.late and link.connection.state is not State.ABORTED:
                assert len(self.got) == self.sent, link.connection.state
        if not self.vanished:
            link.close()
        link.pump()
        link.advance(LIMITS.stallTimeout + LIMITS.lingerTimeout + 5)
        assert link.gone, link.connection.state


#: Those that are echoed unseen.
UNSEEN = [_raw, _raw, lambda: _raw(in_place=True)]


class BulkClient(Client):
    """One that has had much echoed: reads are as large as they become, and pipes are in use."""

    #: Those of all examples.
    allPipes: ClassVar[list[CountedMemoryPipes]] = []

    @initialize(
        echo=st.sampled_from(UNSEEN),
        sendBuffer=st.sampled_from([1000, 20_000]),
        receiveBuffer=st.sampled_from([20_000, 100_000]),
        pipe=st.sampled_from([50, 16_385, 65_536, 262_144]),
    )
    def connect(
        self, echo: Callable[[], IProtocol], sendBuffer: int, receiveBuffer: int, pipe: int
    ) -> None:
        limits = Limits(stallTimeout=30, lingerTimeout=5)
        self.link = memoryLink(
            echo(), limits=limits, sendBuffer=sendBuffer, receiveBuffer=receiveBuffer
        )
        # Any: one that has pipes, and an imitated socket.
        transport: Any = self.link.connection.transport
        transport.pipes = self.pipes = CountedMemoryPipes(size=pipe)
        self.allPipes.append(self.pipes)
        self.faults = transport.socket.faults
        while len(self.got) < BULK:
            self.sent += self.sendAll(POOL[self.sent : BULK])
            self.link.pump()
            self.receiveAll()

    @precondition(lambda self: self.connected() and not self.finished)
    @rule(size=st.sampled_from([20_000, 70_000, 300_000]))
    def flood(self, size: int) -> None:
        """Send, and never read, until no more is taken."""
        before = self.sent - 1
        limit = self.sent + size
        while before < self.sent < limit and self.connected():
            before = self.sent
            self.send(limit - self.sent)
            self.link.pump()

    @rule(
        call=st.sampled_from(["splice", "send", "MSG_PEEK"]),
        errors=st.lists(st.sampled_from([EAGAIN, ENOBUFS, ENOMEM]), min_size=1, max_size=3),
    )
    def fail(self, call: str, errors: list[int]) -> None:
        """The kernel does not do what it said, for a moment."""
        self.faults[call] = errors

    @rule(error=st.sampled_from([EINTR, EPERM]))
    def failToSplice(self, error: int) -> None:
        self.faults["splice"] = [error]

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "pipes"):
            assert self.pipes._count == 0


def play(machine: type[Client]) -> int:
    """Play sessions; returns how many."""
    # A whole session is one example: three times as many as of anything else.
    examples = 3 * settings().max_examples
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None)
    )
    return examples


def test_whateverAClientDoes() -> None:
    """A Hypothesis state machine over the connection, in each way to write an echo."""
    play(Client)


def test_whateverAClientOfBulkDoes() -> None:
    """The same where bulk goes through pipes and in place, and the kernel fails now and then."""
    examples = play(BulkClient)
    # Whether a rest waits in one is chance here: see test_interleavings.
    assert sum(one.moved for one in BulkClient.allPipes) > 1000 * examples
