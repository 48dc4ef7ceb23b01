"""`echod.kit.messages`: a framing and a function that answers each message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from echod.config.limits import Limits
from echod.connection.states import Reason, State
from echod.kit.makers import MessageMaker
from echod.testing import Link, memoryLink
from echod.wire.framing import Framing, fixed, int8, int16, int32, lines, netstring
from tests.conftest import LoggedErrors


def serve(framing: Framing, answer: Callable[[bytes], Any], **keywords: Any) -> Link:
    link: dict[str, Any] = {
        name: keywords.pop(name) for name in ("limits", "sendBuffer") if name in keywords
    }
    if "sendBuffer" in link:
        link["receiveBuffer"] = link["sendBuffer"]
    maker = MessageMaker("test", "a test", framing, answer, **keywords)
    return memoryLink(maker.makeFactory(None).buildProtocol(None), **link)  # type: ignore[arg-type]  # no address


class Later:
    """An answer function whose answers come when the test says."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.waiting: dict[bytes, Deferred[bytes | None]] = {}

    def __call__(self, message: bytes) -> Deferred[bytes | None]:
        self.asked.append(message)
        self.waiting[message] = Deferred()
        return self.waiting[message]

    def answer(self, message: bytes, answer: bytes | None = b"") -> None:
        self.waiting.pop(message).callback(answer)


@pytest.mark.parametrize(
    ("framing", "sent", "answered"),
    [
        (lines, b"ab\r\nc\n\n\r\nx\r\r\ncut", b"ba\r\nc\n\n\r\n\rx\r\n"),
        (int8, b"\2ab\0\3xyzc", b"\2ba\0\3zyx"),
        (int16, b"\0\2ab\0\0\0\3xyz\0", b"\0\2ba\0\0\0\3zyx"),
        (int32, b"\0\0\0\2ab\0\0\0\0", b"\0\0\0\2ba\0\0\0\0"),
        (netstring, b"2:ab,0:,3:xyz,1:", b"2:ba,0:,3:zyx,"),
        (fixed(3), b"abcdefgh", b"cbafed"),
    ],
    ids=["lines", "int8", "int16", "int32", "netstring", "fixed"],
)
def test_framings(framing: Framing, sent: bytes, answered: bytes) -> None:
    """F3: each message is answered in its framing, however reads split it."""
    for step in range(1, len(sent) + 1):
        link = serve(framing, lambda message: message[::-1])
        for at in range(0, len(sent), step):
            link.send(sent[at : at + step])
            link.pump()
        link.finish()
        assert link.readAll() == answered
        assert link.connection.truncated == int(framing is not int32)
        assert link.gone


def test_noAnswer() -> None:
    """``None`` is no answer at all; an empty one is an empty message."""
    link = serve(lines, lambda line: {b"none": None, b"empty": b""}.get(line, line))
    assert link.exchange(b"a\nnone\nempty\nb\n") == b"a\n\nb\n"


def test_coroutine() -> None:
    """An answer may be a coroutine."""

    async def answer(line: bytes) -> bytes:
        return line + b"!"

    assert serve(lines, answer).exchange(b"a\nb\n") == b"a!\nb!\n"


def test_order() -> None:
    """Answers leave in the order of their messages, whichever is ready first."""
    later = Later()
    link = serve(lines, later)
    link.send(b"1\n2\n3\n4\n")
    link.pump()
    assert later.asked == [b"1", b"2", b"3", b"4"]
    later.answer(b"3", b"three")
    later.answer(b"2", None)
    link.pump()
    assert link.receive() is None
    later.answer(b"1", b"one")
    link.pump()
    assert link.receive() == b"one\nthree\n"
    link.finish()
    link.pump()
    assert link.connection.state is State.FINISHING
    later.answer(b"4", b"four")
    assert link.readAll() == b"four\n"
    assert link.gone


def test_inFlight() -> None:
    """At most so many are being answered, in all; then reading pauses, and goes on later."""
    later = Later()
    link = serve(lines, later, inFlight=3, sendBuffer=64)
    data = b"".join(b"%04d\n" % number for number in range(1000))
    sent = 0
    while taken := link.send(data[sent : sent + 32]):
        sent += taken
        link.pump()
    assert later.asked == [b"0000", b"0001", b"0002"]
    # What is in the two queues, and the one read that is at hand.
    assert sent <= 4 * 64
    for number in range(1000):
        later.answer(b"%04d" % number, b"%d" % number)
        link.pump()
        assert len(later.waiting) <= 3
        assert link.receive() == b"%d\n" % number
        sent += link.send(data[sent : sent + 32])
        link.pump()
    assert sent == len(data)
    link.finish()
    assert link.readAll() == b""


def test_stalledPeer() -> None:
    """C5: nothing is asked for while what was answered waits for the peer."""
    asked = 0

    def answer(line: bytes) -> bytes:
        nonlocal asked
        asked += 1
        return bytes(1000)

    link = serve(lines, answer, sendBuffer=4096)
    link.send(b"\n" * 4000)
    link.pump()
    assert asked < 220
    assert link.connection.transport.unsent() <= 2 * 65536 + 8192
    link.finish()
    assert link.readAll() == (bytes(1000) + b"\n") * 4000


def test_stalledPeerAndLateAnswers() -> None:
    """The same where answers come later, and some when the peer has stalled already."""
    later = Later()
    link = serve(lines, later, sendBuffer=4096, inFlight=4)
    link.send(b"".join(b"%d\n" % number for number in range(12)))
    link.pump()
    while later.waiting:
        for message in [*later.waiting]:
            later.answer(message, message * 40_000)
        link.pump()
    assert len(later.asked) < 12
    got = b""
    while len(got) < 40_001 * 10 + 80_001 * 2:
        link.pump()
        got += link.receive() or b""
        for message in [*later.waiting]:
            later.answer(message, message * 40_000)
    assert got == b"".join(b"%d" % number * 40_000 + b"\n" for number in range(12))
    link.finish()
    link.pump()
    assert link.gone


def test_tooLong() -> None:
    """F10: what came before is answered, late answers too; then our FIN."""
    later = Later()
    link = serve(lines, later, maxLength=10)
    link.send(b"one\n" + b"x" * 20 + b"\n")
    link.pump()
    assert link.receive() is None
    assert link.connection.state is State.LINGERING
    later.answer(b"one", b"1")
    assert link.readAll() == b"1\n"
    assert link.connection.reason is Reason.TOO_LONG
    link.finish()
    link.pump()
    assert link.gone


def test_malformed() -> None:
    """What is no message ends the connection, counted as that; those before it are answered."""
    link = serve(netstring, lambda message: message)
    link.send(b"1:a,hello,")
    assert link.readAll() == b"1:a,"
    assert link.connection.reason is Reason.MALFORMED
    link.finish()
    link.pump()
    assert link.gone


@pytest.mark.parametrize("when", ["now", "later", "type", "wrap"])
def test_fault(when: str, loggedErrors: LoggedErrors) -> None:
    """A function that raises, or answers what cannot be sent, costs its connection, logged."""
    later = Later()
    functions: dict[str, Callable[[bytes], Any]] = {
        "now": lambda message: dict[bytes, bytes]()[message],
        "later": later,
        "type": lambda message: "text",
        "wrap": lambda message: bytes(300),
    }
    link = serve(int8, functions[when])
    link.send(b"\1x")
    link.pump()
    if when == "later":
        later.waiting[b"x"].errback(KeyError("mine"))
    with pytest.raises(ConnectionResetError):
        link.readAll()
    assert link.connection.reason is Reason.ERROR
    (line,) = loggedErrors.flush()
    assert "raised; its connection is aborted" in line


def test_lossCancels() -> None:
    """When the peer is gone, what is being answered is cancelled, silently."""
    later = Later()
    link = serve(lines, later)
    link.send(b"1\n2\n")
    link.pump()
    cancelled: list[Deferred[bytes | None]] = []
    later.waiting[b"1"]._canceller = cancelled.append
    link.reset()
    link.pump()
    assert link.gone
    assert [waiting.called for waiting in later.waiting.values()] == [True, True]
    assert cancelled == [later.waiting[b"1"]]


def test_deadline() -> None:
    """An answer that never comes holds a finished connection until the stall timeout."""
    link = serve(lines, Later(), limits=Limits(stallTimeout=20))
    link.send(b"1\n")
    link.finish()
    link.advance(15)
    assert not link.gone
    link.advance(7)
    assert link.gone
    assert link.connection.reason is Reason.STALLED


# -- What was found by looking for it ----------------------------------------------------------


def test_heldBytesAreBounded() -> None:
    """C5: long messages and answers that wait for the first are bounded in bytes too."""
    waiting: list[Deferred[bytes | None]] = []

    def answer(message: bytes) -> Deferred[bytes | None]:
        waiting.append(Deferred())
        return waiting[-1]

    link = serve(lines, answer, sendBuffer=4096)
    data = memoryview((b"x" * 65535 + b"\n") * 20)
    while taken := link.send(data[:4096]):
        data = data[taken:]
        link.pump()
    assert len(waiting) == 1
    assert link.connection._held <= 2 * 65536  # type: ignore[attr-defined]  # an AnsweringConnection
    link.reset()
    link.pump()
    link.advance(1.5)
    assert link.gone


def test_manyTurns() -> None:
    """Answers that are much longer than their messages are made a few a turn."""
    link = serve(lines, lambda line: bytes(65536), sendBuffer=1 << 30)
    link.send(b"\n" * 1000)
    before = most = 0
    while link.loop.turn():
        most = max(most, link.connection.bytesOut - before)
        before = link.connection.bytesOut
    assert before == 1000 * 65537
    assert most <= 5 * 65537
    link.finish()
    assert len(link.readAll(1 << 20)) == before
    assert link.gone


def test_oneFaultIsToldOnce(loggedErrors: LoggedErrors) -> None:
    """One peer cannot fill the log with a fault."""
    calls = 0

    async def answer(message: bytes) -> bytes:
        nonlocal calls
        calls += 1
        raise KeyError(message)

    link = serve(lines, answer)
    link.send(b"a\n" * 12)
    link.pump()
    assert calls == 1
    assert len(loggedErrors.flush()) == 1
    with pytest.raises(ConnectionResetError):
        link.readAll()


def test_noneOfTheBlockIsForgotten() -> None:
    """FIN waits for messages that have not been begun yet."""
    link = serve(lines, lambda line: line * 100, sendBuffer=4096)
    link.send(b"x" * 100 + b"\n")
    link.send(b"".join(b"%09d\n" % number for number in range(300)))
    link.finish()
    data = link.readAll()
    assert data.count(b"\n") == 301
    link.advance(0.5)
    assert link.gone


def test_lateAnswersAreProgress() -> None:
    """F7: neither while an answer is made nor just after it is the connection idle."""
    later = Later()
    link = serve(lines, later, limits=Limits(idleTimeout=5))
    link.send(b"1\n")
    link.pump()
    link.advance(20)
    assert link.connection.state is State.OPEN
    later.answer(b"1", b"one")
    link.pump()
    assert link.receive() == b"one\n"
    link.advance(3)
    assert link.connection.state is State.OPEN
    link.advance(4)
    assert link.connection.reason is Reason.IDLE
    link.finish()
    link.pump()


def test_cancelledAnswer(loggedErrors: LoggedErrors) -> None:
    """An answer that somebody else cancels is a fault like any, not a wait for ever."""
    later = Later()
    link = serve(lines, later)
    link.send(b"1\n")
    link.pump()
    later.waiting[b"1"].cancel()
    with pytest.raises(ConnectionResetError):
        link.readAll()
    assert link.connection.reason is Reason.ERROR
    assert len(loggedErrors.flush()) == 1


def test_refused() -> None:
    with pytest.raises(ValueError, match="inFlight is 0; it must be 1 at least"):
        MessageMaker("x", "x", lines, bytes, inFlight=0)
    with pytest.raises(ValueError, match="maxLength is -1; it must be 0 at least"):
        MessageMaker("x", "x", lines, bytes, maxLength=-1)
