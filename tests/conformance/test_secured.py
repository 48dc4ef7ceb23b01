"""
The same random sessions over TCP and over TLS: a protocol must not notice which.

The same callbacks in the same order once adjacent ``received`` are joined, the same bytes, the same
end for the client, the same state and reason; whatever the client does, and whatever the protocol
does, also in the middle of a callback.  Each step is settled before the next one.

What is left out, and why, by name:

* ``KERNEL_ROOM``: records are longer than what is in them, and a kernel has room for so many bytes.
  So where something was stalled, and then cut off by an end of ours or by RST, one side's bytes may
  be the beginning of the other's.
* ``SHOWN``: what may be echoed unseen is shown now and then.
* ``OUTPUT_READY``: for the same reason it is not the same how often output was full.
* ``ACKNOWLEDGED``: at the peer's end ours goes with the close if the peer's kernel has said by then
  that it has all, and has a callback of its own otherwise; nor is it the same what we still owed.
* ``OVERTAKEN``: an RST of ours destroys what the client has not read, FIN too.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from twisted.python.failure import Failure

from echod.config.limits import Limits
from echod.connection.connection import Connection
from echod.connection.states import Reason
from echod.testing import tcpLink
from tests.certificates import Certificates
from tests.conftest import LoggedErrors
from tests.unit.proxyheaders import formatV2

STREAM = random.Random(0).randbytes(1 << 20)
LIMITS = Limits(stallTimeout=20, lingerTimeout=5)
HEADER = formatV2(("192.0.2.1", 1000), ("192.0.2.2", 7))
#: Bytes that surely fit into buffers of so many, both ways.
SMALL = {4096: 1000, 65536: 30_000}
#: Turns without an end are a fault.
TURNS = 20_000


@dataclass
class Session:
    """
    What happens to one connection.

    :ivar echoes: whether the protocol sends back what it is given.
    :ivar verbatim: whether it lets that be done unseen.
    :ivar largest: bytes that it is given at a time.
    :ivar steps: what to do, and how much of it.
    """

    seed: int
    echoes: bool
    verbatim: bool
    largest: int
    buffers: int
    steps: list[tuple[str, int]] = field(default_factory=list)

    def has(self, *names: str) -> bool:
        """Whether one of the steps is one of these."""
        return any(step in names for step, _ in self.steps)

    @property
    def cut(self) -> bool:
        """Whether there is an RST of ours (OVERTAKEN)."""
        return self.has("abort", "act abort", "act raise")

    @property
    def loose(self) -> bool:
        """Whether KERNEL_ROOM matters."""
        sizes = [size for step, size in self.steps if step in ("send", "reply")]
        return sum(sizes) > SMALL[self.buffers] and self.has(*ENDS)


#: Steps that end a direction of ours, or cut something off.
ENDS = ("end", "finishOutput", "abort", "drain", "reset", "act end", "act abort", "act raise")


def makeSession(seed: int) -> Session:
    """A session, the same for the same ``seed``."""
    rng = random.Random(seed)
    verbatim = rng.random() < 0.3
    session = Session(
        seed=seed,
        echoes=verbatim or rng.random() < 0.7,
        verbatim=verbatim,
        largest=rng.choice([100, 1000, 65536]),
        buffers=65536,
    )
    steps = ["send", "send", "send", "read", "read", "time", "tap"]
    largest = rng.choice([500, 5000, 200_000])
    stalls = largest > 5000
    if not verbatim:
        steps += ["hold", "release"]
    if not session.echoes:
        steps.append("reply")
    if not (verbatim or stalls):
        # Where something is stalled it would not be said in the middle of what (KERNEL_ROOM).
        steps += ["act pause", "act hold", "act reply"]
    if not stalls:
        # In so small ones more than that would be waited for, not tested.
        session.buffers = rng.choice([4096, 65536])
    for _ in range(rng.randrange(1, 10)):
        step = rng.choice(steps)
        session.steps.append((step, rng.randrange(largest)))
    ends = ["finish", "finish", "reset", "end", "abort", "drain", "finishOutput"]
    if not (verbatim or stalls):
        ends += ["act end", "act abort", "act raise"]
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(session.steps) + 1)
        session.steps.insert(at, (rng.choice(ends), rng.randrange(500)))
    return session


class Player(Connection):
    """Remembers what it is told, and does what it is asked to."""

    def __init__(self, session: Session) -> None:
        self._echo = session.echoes
        self.verbatim = session.verbatim  # type: ignore[misc]  # each session has its own
        self.largestRead = session.largest
        self.events: list[tuple[str, bytes]] = []
        self.act = ""

    def begun(self) -> None:
        self.events.append(("begun", b""))

    def received(self, data: bytes) -> None:
        assert 0 < len(data) <= self.largestRead
        before = b""
        if self.events[-1][0] == "data":
            before = self.events.pop()[1]
        self.events.append(("data", before + data))
        self.respond(data)
        act, self.act = self.act, ""
        if act == "pause":
            self.holdInput()
            self.releaseInput()
        elif act == "hold":
            self.holdInput()
        elif act == "reply":
            self.respond(b"twice")
        elif act == "end":
            self.end(Reason.QUIT)
        elif act == "abort":
            self.abort(Reason.QUIT)
        elif act == "raise":
            raise ZeroDivisionError("by the protocol")

    def respond(self, data: bytes) -> None:
        if self._echo and self.canReply():
            self.reply(data)

    def inputFinished(self) -> None:
        self.events.append(("EOF", b""))

    def ended(self) -> None:
        self.events.append(("ended", b""))

    def lost(self, reason: Failure) -> None:
        self.events.append((type(reason.value).__name__, b""))


class Run:
    """
    One session over one kind of link.

    :ivar received: what the client has got.
    :ivar end: how that ended: ``FIN``, ``RST``, or ``open``.
    """

    def __init__(self, session: Session, makeLink: Any) -> None:
        self._session = session
        self.player = Player(session)
        self.link = makeLink(
            self.player, limits=LIMITS, sendBuffer=session.buffers, receiveBuffer=session.buffers
        )
        self._sent = 0
        self._toSend = memoryview(b"")
        self._finishing = False
        self._broken = False
        self.received = bytearray()
        self.end = "open"
        self._settle()

    def play(self) -> None:
        for step, size in self._session.steps:
            kind, _, act = step.partition(" ")
            getattr(self, f"_{kind}")(act or size)
            self._settle()
        self.player.act = ""
        self._release(0)
        self._finish(0)
        self._settle()
        deadline = time.monotonic() + 20
        while self.end == "open":
            # Whoever reads gets all that it is owed, as soon as its kernel has it.
            assert time.monotonic() < deadline, self._session
            self._readOnce()
            self._settle()
        for _ in range(30):
            if not self.link.gone:
                self.link.loop.advance(1)
                self._settle()
        assert self.link.gone, (self.link.connection.state, self._session)
        self._settle()
        assert self.link.loop.getReaders() == self.link.loop.getWriters() == []
        self.link.close()

    # The client's.

    def _send(self, size: int) -> None:
        if not self._finishing:
            self._toSend = memoryview(bytes(self._toSend) + STREAM[self._sent : self._sent + size])
            self._sent += size

    def _tap(self, size: int) -> None:
        """Something small, in one piece."""
        self._send(size % 90 + 1)

    def _act(self, act: str) -> None:
        """The same, in the middle of which something is done."""
        self.player.act = act
        self._tap(50)

    def _finish(self, _: int) -> None:
        self._finishing = self._finishing or True

    def _read(self, size: int) -> None:
        """Read so many bytes, if there are."""
        wanted = len(self.received) + size
        while len(self.received) < wanted and self._readOnce(wanted - len(self.received)):
            self._settle()

    def _readOnce(self, size: int = 65536) -> bool:
        """Read what is there, at most ``size`` bytes; whether that was anything."""
        before = size
        while size and self.end == "open":
            try:
                data = self.link.receive(size)
            except OSError:
                self.end = "RST"
                return True
            if data is None:
                break
            if not data:
                self.end = "RST" if self._broken else "FIN"
                return True
            self.received += data
            size -= len(data)
        return size < before

    def _reset(self, _: int) -> None:
        if self.end != "closed":
            self.end = "closed"
            self.link.reset()

    def _flush(self) -> bool:
        if self.end == "closed":
            return False
        try:
            taken = self.link.send(self._toSend[:65536]) if self._toSend else 0
        except OSError:
            # The kernel tells an RST once: a read would see EOF.
            self._broken = True
            self._toSend = memoryview(b"")
            return False
        self._toSend = self._toSend[taken:]
        if self._finishing is True and not self._toSend:
            self._finishing = "done"  # type: ignore[assignment]  # once
            with suppress(OSError):
                self.link.finish()
            return True
        if hasattr(self.link._client, "flush"):
            try:
                self.link._client.flush()
            except OSError:
                self._broken = True
        return bool(taken)

    # The protocol's.

    def _hold(self, _: int) -> None:
        self.player.holdInput()

    def _release(self, _: int) -> None:
        self.player.releaseInput()

    def _reply(self, size: int) -> None:
        if self.player.canReply():
            self.player.reply(STREAM[:size])

    def _finishOutput(self, _: int) -> None:
        if self.player.canReply():
            self.player.finishOutput()

    def _end(self, _: int) -> None:
        self.player.end(Reason.QUIT)

    def _abort(self, _: int) -> None:
        self.player.abort(Reason.QUIT)

    def _drain(self, _: int) -> None:
        self.player.drain()

    # Time's.

    def _time(self, size: int) -> None:
        self.link.loop.advance(size % 10 / 10)

    def _settle(self) -> None:
        """Until nothing happens any more, the client not reading."""
        idle = 0
        for _ in range(TURNS):
            busy = self._flush()
            wait = 0.0005 if self.link.coming() else 0.0
            idle = 0 if self.link.loop.turn(wait) or busy else idle + 1
            if idle == 2:
                return
        raise AssertionError("it spins")


def alike(one: bytes | bytearray, other: bytes | bytearray) -> bool:
    """Whether one is the beginning of the other."""
    return one.startswith(other) or other.startswith(one)


def compare(session: Session, plain: Run, secured: Run) -> None:
    one, other = plain.player, secured.player
    assert (one.state, one.broken) == (other.state, other.broken), session
    if not (session.loose and session.has("reset")):
        # Else it depends on whether our end was out by then (KERNEL_ROOM).
        assert one.reason == other.reason, session
    if not session.cut:
        assert plain.end == secured.end, session
    names = [[name for name, _ in player.events] for player in (one, other)]
    if session.loose or session.verbatim:
        # SHOWN, and there may have been none yet.
        names = [[name for name in some if name != "data"] for some in names]
    assert names[0] == names[1], session
    if not session.verbatim:
        inputs = [b"".join(data for _, data in player.events) for player in (one, other)]
        assert alike(*inputs), session
        assert session.loose or len(inputs[0]) == len(inputs[1]), session
    assert alike(plain.received, secured.received), session
    if not (session.loose or session.cut):
        assert len(plain.received) == len(secured.received), session
    if not session.loose:
        counted = [(player.bytesIn, player.bytesOut, player.discarded) for player in (one, other)]
        assert counted[0] == counted[1], session


def expectErrors(session: Session, errors: LoggedErrors) -> None:
    """The protocol's own are logged, as far as they are not rationed; any other fails the test."""
    if session.has("act raise"):
        errors.flush()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("seeds", [range(150), range(150, 300)], ids=str)
def test_sameSessions(
    certificates: Certificates, version: str, seeds: range, loggedErrors: LoggedErrors
) -> None:
    """L1, L3: 600 sessions, half of each version, some behind a PROXY header."""
    security = certificates.security(version)
    for seed in seeds:
        session = makeSession(seed)
        header = b"" if seed % 5 else HEADER
        plain = Run(session, partial(tcpLink, header=header))
        plain.play()
        expectErrors(session, loggedErrors)
        secured = Run(session, partial(tcpLink, header=header, security=security))
        secured.play()
        expectErrors(session, loggedErrors)
        compare(session, plain, secured)
